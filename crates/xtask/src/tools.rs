//! The programs of the machine that the commands need: finds them, installs them where that is plainly wanted (root on
//! Debian or Ubuntu), else says in one line each what to install and how. Also runs programs with errors worth reading.
//!
//! Owns the list of tools and their packages; knows nothing of what they are used for.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// A tool by the name that [`need`] takes.
struct Tool {
    name: &'static str,
    /// Programs of which one must be in PATH; an absolute pattern `dir*/file*` names a file instead.
    any_of: &'static [&'static str],
    /// The variable that may name the tool instead, or the folder of the file.
    variable: &'static str,
    /// The packages on Debian and Ubuntu, Fedora, Arch, Homebrew; empty where there is none.
    apt: &'static str,
    dnf: &'static str,
    pacman: &'static str,
    brew: &'static str,
}

/// One row of the table below.
const fn tool(
    name: &'static str,
    any_of: &'static [&'static str],
    variable: &'static str,
    [apt, dnf, pacman, brew]: [&'static str; 4],
) -> Tool {
    Tool { name, any_of, variable, apt, dnf, pacman, brew }
}

const BINUTILS: [&str; 4] = ["binutils", "binutils", "binutils", "binutils"];
const LLVM: [&str; 4] = ["clang", "clang", "clang", "llvm"];

const TOOLS: &[Tool] = &[
    tool("cc", &["cc", "gcc", "clang"], "CC", ["gcc libc6-dev", "gcc glibc-devel", "gcc", "gcc"]),
    tool("c++", &["c++", "g++", "clang++"], "CXX", ["g++", "gcc-c++", "gcc", "gcc"]),
    tool("gcc", &["gcc"], "", ["gcc libc6-dev", "gcc glibc-devel", "gcc", "gcc"]),
    tool("g++", &["g++"], "", ["g++", "gcc-c++", "gcc", "gcc"]),
    tool("clang", &["clang"], "", LLVM),
    tool("clang++", &["clang++"], "", LLVM),
    tool("libclang", &LIBCLANG, "LIBCLANG_PATH", ["libclang-dev", "clang-devel", "clang", "llvm"]),
    tool("cmake", &["cmake"], "", ["cmake", "cmake", "cmake", "cmake"]),
    tool("ninja", &["ninja", "ninja-build"], "", ["ninja-build", "ninja-build", "ninja", "ninja"]),
    tool("make", &["make", "gmake"], "MAKE", ["make", "make", "make", "make"]),
    tool("pkg-config", &["pkg-config", "pkgconf"], "PKG_CONFIG", ["pkg-config", "pkgconf", "pkgconf", "pkgconf"]),
    tool("ld", &["ld.bfd", "ld"], "", BINUTILS),
    tool("ar", &["ar"], "", BINUTILS),
    tool("objcopy", &["objcopy"], "", BINUTILS),
    tool("objdump", &["objdump"], "", BINUTILS),
    tool("nm", &["nm"], "", BINUTILS),
    tool("readelf", &["readelf"], "", BINUTILS),
    tool("addr2line", &["addr2line"], "", BINUTILS),
    tool("valgrind", &["valgrind"], "", ["valgrind", "valgrind", "valgrind", ""]),
    tool("gdb", &["gdb"], "", ["gdb", "gdb", "gdb", "gdb"]),
    tool("python3", &["python3"], "", ["python3", "python3", "python", "python"]),
    tool("git", &["git"], "", ["git", "git", "git", "git"]),
    tool("perl", &["perl"], "", ["perl", "perl", "perl", "perl"]),
    tool("redis-server", &["redis-server"], "", ["redis-server", "redis", "redis", "redis"]),
    tool("node", &["node"], "", ["nodejs", "nodejs", "nodejs", "node"]),
    tool(
        "aarch64-cc",
        &["aarch64-linux-gnu-gcc"],
        "",
        ["gcc-aarch64-linux-gnu libc6-dev-arm64-cross", "gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc", ""],
    ),
    tool(
        "aarch64-c++",
        &["aarch64-linux-gnu-g++"],
        "",
        ["g++-aarch64-linux-gnu", "gcc-c++-aarch64-linux-gnu", "aarch64-linux-gnu-gcc", ""],
    ),
    tool("perl", &["perl"], "", ["perl", "perl", "perl", "perl"]),
    // Debian's server is redis-check-rdb under another name: its package of tools is enough, and starts no service.
    tool("z3", &["z3"], "", ["z3", "z3", "z3", "z3"]),
    tool("redis", &["redis-check-rdb"], "", ["redis-tools", "redis", "redis", "redis"]),
    tool("libtcmalloc", &LIBTCMALLOC, "", ["libtcmalloc-minimal4", "gperftools-libs", "gperftools", "gperftools"]),
    tool("libapr", &LIBAPR, "", ["libapr1-dev", "apr-devel", "apr", "apr"]),
    tool("libtalloc", &LIBTALLOC, "", ["libtalloc-dev", "libtalloc-devel", "talloc", "talloc"]),
    tool(
        "qemu-system-aarch64",
        &["qemu-system-aarch64"],
        "",
        ["qemu-system-arm", "qemu-system-aarch64-core", "qemu-system-aarch64", "qemu"],
    ),
    tool("chromium", &CHROMIUM, "CHROMIUM", ["chromium-headless-shell", "chromium-headless", "chromium", "chromium"]),
    tool(
        "prometheus_client",
        &PROMETHEUS_CLIENT,
        "",
        ["python3-prometheus-client", "python3-prometheus_client", "python-prometheus_client", ""],
    ),
    tool("qemu-aarch64", &["qemu-aarch64", "qemu-aarch64-static"], "", ["qemu-user", "qemu-user", "qemu-user", ""]),
];

/// Where distributions put libclang; the last component may be any of its versions.
const LIBCLANG: [&str; 7] = [
    "/usr/lib/llvm-*/lib/libclang*.so*",
    "/usr/lib/*-linux-gnu/libclang*.so*",
    "/usr/lib64/libclang*.so*",
    "/usr/lib/libclang*.so*",
    "/usr/local/lib/libclang*.so*",
    "/opt/homebrew/opt/llvm/lib/libclang*.dylib",
    "/usr/local/opt/llvm/lib/libclang*.dylib",
];

const CHROMIUM: [&str; 5] =
    ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Of the system's Python.
const PROMETHEUS_CLIENT: [&str; 2] = [
    "/usr/lib/python3*/dist-packages/prometheus_client/parser.py",
    "/usr/lib/python3*/site-packages/prometheus_client/parser.py",
];

const LIBTCMALLOC: [&str; 3] = [
    "/usr/lib/*-linux-gnu/libtcmalloc_minimal.so.4",
    "/usr/lib64/libtcmalloc_minimal.so.4",
    "/usr/lib/libtcmalloc_minimal.so.4",
];

/// Headers.
const LIBAPR: [&str; 4] = [
    "/usr/include/apr-1.0/apr_pools.h",
    "/usr/include/apr-1/apr_pools.h",
    "/usr/local/include/apr-1/apr_pools.h",
    "/opt/homebrew/include/apr-1/apr_pools.h",
];

const LIBTALLOC: [&str; 3] = ["/usr/include/talloc.h", "/usr/local/include/talloc.h", "/opt/homebrew/include/talloc.h"];

/// Makes sure that the tools are here: `need(&["cmake", "ninja|make"])`. A name is one of the table's, or several with
/// `|` of which one is enough (the first is the one that gets installed). As root on a system with apt-get the missing
/// ones are installed, which is said on stderr; elsewhere the error has one line for each, with the command to run.
pub fn need(tools: &[&str]) -> Result<()> {
    // Parallel tests may ask at once; apt-get runs one at a time.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(|poison| poison.into_inner());
    let missing = missing(tools)?;
    if missing.is_empty() {
        return Ok(());
    }
    let manager = Manager::of_this_machine();
    if manager == Manager::Apt && is_root() {
        install(&missing)?;
        let still = self::missing(tools)?;
        if still.is_empty() {
            return Ok(());
        }
        bail!("{}", advice(&still, manager));
    }
    bail!("{}", advice(&missing, manager))
}

/// The path of a tool of the table, or the value of its variable. An error says how to install it.
pub fn find(name: &str) -> Result<PathBuf> {
    let tool = row(name)?;
    locate(tool).with_context(|| advice(&[tool], Manager::of_this_machine()))
}

/// Runs a command with its output shown. An error names the command and how it ended.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs a command and returns what it wrote to stdout. An error names the command and holds the end of all its output.
pub fn output(command: &mut Command) -> Result<String> {
    let done = attempt(command)?;
    if !done.success {
        bail!("{} failed: {}\n{}", shown(command), done.ending, tail(&done.all(), 60));
    }
    Ok(done.stdout)
}

/// How a command went: for callers to whom failure is an answer.
pub struct Done {
    pub success: bool,
    /// `exit status: 1`, `signal: 6 (SIGABRT)`.
    pub ending: String,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// Both outputs, stdout first.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs a command to its end without showing anything. An error only when it cannot be started.
pub fn attempt(command: &mut Command) -> Result<Done> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", shown(command)))?;
    Ok(Done {
        success: output.status.success(),
        ending: output.status.to_string(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A command as one would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| quoted(&word.to_string_lossy())).collect();
    format!("`{}`", words.join(" "))
}

fn quoted(word: &str) -> String {
    if word.is_empty() || word.contains([' ', ';', '\'', '"', '$', '\n']) {
        format!("{word:?}")
    } else {
        word.to_string()
    }
}

/// The last lines of a text.
fn tail(text: &str, lines: usize) -> &str {
    let text = text.trim_end();
    let start = text.rmatch_indices('\n').nth(lines - 1).map_or(0, |(at, _)| at + 1);
    &text[start..]
}

fn row(name: &str) -> Result<&'static Tool> {
    TOOLS.iter().find(|tool| tool.name == name).with_context(|| format!("no tool is called {name} in tools.rs"))
}

/// The tools that are not here; of alternatives, the first.
fn missing(names: &[&str]) -> Result<Vec<&'static Tool>> {
    let mut missing: Vec<&'static Tool> = Vec::new();
    for name in names {
        let choice = name.split('|').map(row).collect::<Result<Vec<_>>>()?;
        if choice.iter().all(|tool| locate(tool).is_none()) && !missing.iter().any(|tool| tool.name == choice[0].name) {
            missing.push(choice[0]);
        }
    }
    Ok(missing)
}

fn locate(tool: &Tool) -> Option<PathBuf> {
    if !tool.variable.is_empty()
        && let Some(value) = std::env::var_os(tool.variable)
        && !value.is_empty()
    {
        // CC may be `ccache gcc`: whoever sets it knows why.
        return Some(value.into());
    }
    tool.any_of.iter().find_map(|program| match program.strip_prefix('/') {
        Some(pattern) => matching(Path::new("/"), pattern),
        None => in_path(program),
    })
}

/// The first file in PATH of this name.
pub fn in_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(program)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// A file under `folder` whose path fits a pattern in which `*` stands for any characters but `/`.
fn matching(folder: &Path, pattern: &str) -> Option<PathBuf> {
    let (first, rest) = pattern.split_once('/').map_or((pattern, None), |(first, rest)| (first, Some(rest)));
    folder.read_dir().ok()?.flatten().find_map(|entry| {
        if !fits(&entry.file_name(), first) {
            return None;
        }
        match rest {
            Some(rest) => matching(&entry.path(), rest),
            None => Some(entry.path()),
        }
    })
}

fn fits(name: &OsStr, pattern: &str) -> bool {
    let Some(name) = name.to_str() else { return false };
    let mut parts = pattern.split('*');
    let Some(mut left) = name.strip_prefix(parts.next().unwrap_or("")) else { return false };
    let mut last = None;
    for part in parts {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
        last = Some(part);
    }
    // Without a star nothing may be left over; after one, the last part must end the name.
    last.map_or(left.is_empty(), |part| name.ends_with(part))
}

/// What installs packages here.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Manager {
    Apt,
    Dnf,
    Pacman,
    Brew,
    Unknown,
}

impl Manager {
    fn of_this_machine() -> Manager {
        let known =
            [("apt-get", Manager::Apt), ("dnf", Manager::Dnf), ("pacman", Manager::Pacman), ("brew", Manager::Brew)];
        known.iter().find(|(program, _)| in_path(program).is_some()).map_or(Manager::Unknown, |(_, manager)| *manager)
    }

    fn command(self, tool: &Tool) -> Option<String> {
        let (command, packages) = match self {
            Manager::Apt => ("sudo apt-get install", tool.apt),
            Manager::Dnf => ("sudo dnf install", tool.dnf),
            Manager::Pacman => ("sudo pacman -S", tool.pacman),
            Manager::Brew => ("brew install", tool.brew),
            Manager::Unknown => return None,
        };
        (!packages.is_empty()).then(|| format!("{command} {packages}"))
    }
}

/// One line for each tool: what is missing, and how to get it.
fn advice(missing: &[&Tool], manager: Manager) -> String {
    let line = |tool: &&Tool| match manager.command(tool) {
        Some(command) => format!("{} is missing; install it with: {command}", tool.name),
        None => format!("{} is missing; install it (on Debian: apt-get install {})", tool.name, tool.apt),
    };
    missing.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| id.stdout.trim_ascii() == b"0")
}

/// apt-get, quietly; its words are shown only when it fails.
fn install(missing: &[&Tool]) -> Result<()> {
    let packages: Vec<&str> = missing.iter().flat_map(|tool| tool.apt.split_whitespace()).collect();
    eprintln!("installing what is missing: apt-get install {}", packages.join(" "));
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-qq", "-y", "-o", "DPkg::Lock::Timeout=120"]);
        apt
    };
    // A fresh machine has no package lists, an old one has stale ones; one that is offline may still have the packages.
    let _ = attempt(apt().arg("update"))?;
    output(apt().args(["install", "--no-install-recommends"]).args(&packages))
        .with_context(|| advice(missing, Manager::Apt))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_patterns_whole() {
        let fits = |name: &str, pattern| fits(OsStr::new(name), pattern);
        assert!(fits("lib", "lib") && !fits("lib64", "lib") && !fits("alib", "lib"));
        assert!(fits("llvm-14", "llvm-*") && !fits("llvm", "llvm-*"));
        assert!(fits("libclang-14.so.1", "libclang*.so*") && fits("libclang.so", "libclang*.so*"));
        assert!(!fits("libclang.a", "libclang*.so*"));
        assert!(fits("x86_64-linux-gnu", "*-linux-gnu") && !fits("x86_64-linux-gnux32", "*-linux-gnu"));
    }

    #[test]
    fn every_missing_tool_has_its_line() {
        let tools = [row("valgrind").unwrap(), row("cc").unwrap()];
        assert_eq!(
            advice(&tools, Manager::Apt),
            "valgrind is missing; install it with: sudo apt-get install valgrind\n\
             cc is missing; install it with: sudo apt-get install gcc libc6-dev"
        );
        assert!(advice(&tools, Manager::Brew).starts_with("valgrind is missing; install it (on Debian:"));
    }

    #[test]
    fn a_name_outside_the_table_is_refused() {
        assert!(need(&["cmale"]).unwrap_err().to_string().contains("cmale"));
    }

    #[test]
    fn one_of_several_is_enough() {
        let gone = tool("gone", &["a-program-that-is-not-here"], "", ["a", "b", "c", "d"]);
        assert!(locate(&gone).is_none());
        assert!(missing(&["cc|clang"]).unwrap().is_empty(), "tests run where a C compiler is");
    }

    #[test]
    fn a_failed_command_is_named_with_its_words() {
        let error = output(Command::new("sh").args(["-c", "echo it broke >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.starts_with("`sh -c \"echo it broke >&2; exit 3\"` failed: exit status: 3"), "{error}");
        assert!(error.ends_with("it broke"), "{error}");
        assert_eq!(output(Command::new("echo").arg("fine")).unwrap(), "fine\n");
        assert!(run(&mut Command::new("a-program-that-is-not-here")).is_err());
    }

    #[test]
    fn tail_keeps_the_last_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a\n", 2), "a");
    }
}
