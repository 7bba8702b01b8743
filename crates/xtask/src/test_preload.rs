//! The preload libraries (preload/, tests/preload): what malloc and the C++ operators promise, what the libraries export,
//! tracking and statistics without a change to the program, set-user-id programs, and real programs, which must behave as
//! they do on libc.

use crate::build::{self, Options};
use crate::case::{Case, LeftOut};
use crate::tools;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Those that have a preload library.
const BACKENDS: [&str; 3] = ["native", "mimalloc", "jemalloc"];

/// The cases that a backend is known to fail, and why: none is ours to repair.
const KNOWN: [(&str, &str, &str); 7] = [
    ("mimalloc", "tls_destructors", "a thread that allocates in a late destructor gets a heap that is not given back"),
    ("mimalloc", "blocks_of_libc", "it cannot tell whose a pointer is"),
    ("mimalloc", "returned_small_blocks", "it keeps small pages longer than two seconds"),
    ("jemalloc", "blocks_of_libc", "it cannot tell whose a pointer is"),
    (
        "jemalloc",
        "fork_in_a_signal_handler",
        "its fork handlers take its locks also where the one thread may hold them",
    ),
    (
        "jemalloc",
        "fork_while_streams_are_flushed",
        "its fork handlers take its locks before libc takes that of the streams",
    ),
    ("jemalloc", "returned_", "it gives memory back over ten seconds"),
];

/// The cases of this module.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backend in BACKENDS {
        for (mode, track, level) in
            [("plain", true, "off"), ("tracked", true, "sites"), ("stacks", true, "stacks"), ("no-track", false, "off")]
        {
            // The matrix is full for our own allocator only.
            if backend == "native" || mode == "plain" {
                let name = format!("preload/cases/{backend}/{mode}");
                cases.push(Case::new(name, move || all_cases(backend, track, level)));
            }
        }
        cases.push(Case::new(format!("preload/c++/{backend}"), move || operators(backend)));
        cases.push(Case::new(format!("preload/library/{backend}"), move || library(backend)));
        cases.push(Case::new(format!("preload/tracking/{backend}"), move || tracking(backend)));
        cases.push(Case::new(format!("preload/set-user-id/{backend}"), move || set_user_id(backend)));
    }
    cases.push(Case::new("preload/cases/native/guarded", guarded_cases));
    cases.push(Case::new("preload/control", control));
    cases.push(Case::new("preload/aarch64", aarch64));
    cases.push(Case::new("preload/system", system_is_refused));
    cases.push(Case::new("preload/own-malloc", own_malloc));
    cases.push(Case::new("preload/double-free", double_free));
    cases.push(Case::new("mutants/preload", mutants));
    cases.push(Case::new("preload/instructions", instructions));
    for program in PROGRAMS {
        for backend in BACKENDS {
            if backend == "native" || program.quick {
                let name = format!("preload/programs/{}/{backend}", program.name);
                cases.push(Case::new(name, move || real_program(program, backend)));
            }
        }
    }
    cases
}

fn preload(backend: &str, track: bool) -> Result<PathBuf> {
    build::build_preload(&Options { track, ..Options::new(backend) })
}

fn sources() -> PathBuf {
    build::root().join("tests/preload")
}

const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// Compiles a source of tests/preload and gives the path of what it made.
fn compile(compiler: &str, source: &str, folder: &Path, more: &[&str]) -> Result<PathBuf> {
    tools::need(&["gcc", "g++", "clang"])?;
    let made = folder.join(source).with_extension(if more.contains(&"-shared") { "so" } else { "bin" });
    let mut command = Command::new(compiler);
    command.args(WARNINGS).args(["-O2", "-pthread"]);
    if source.ends_with(".cc") {
        command.arg("-std=c++17");
        if compiler == "clang++" {
            command.arg("-fsized-deallocation");
        }
    } else {
        // The calls are what is tested, so the compiler is to know nothing about them.
        command.args(["-std=gnu11", "-fno-builtin"]);
    }
    tools::output(command.arg("-o").arg(&made).arg(sources().join(source)).args(more).arg("-ldl"))?;
    Ok(made)
}

/// Of what the environment may hold of ours, nothing; and the library.
fn under(library: &Path, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = clean(program);
    command.env("LD_PRELOAD", library);
    command
}

fn clean(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ALLOKIT_") {
            command.env_remove(name);
        }
    }
    command.env_remove("LD_PRELOAD").env("LC_ALL", "C");
    command
}

// ---- malloc ------------------------------------------------------------------------------------------------------------

fn all_cases(backend: &str, track: bool, level: &str) -> Result<()> {
    cases_on(backend, &preload(backend, track)?, track, level, &[])
}

/// The guarded library keeps the promises too, but for these: freed blocks wait and hold their pages, and a block with pages
/// of its own costs two mappings.
fn guarded_cases() -> Result<()> {
    let library = build::build_preload(&Options { guard: true, ..Options::new("native") })?;
    cases_on("native", &library, true, "sites", &["returned_small_blocks", "mappings_of_20000_large_blocks"])
}

fn cases_on(backend: &str, library: &Path, track: bool, level: &str, also_known: &[&str]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = compile(if track { "clang" } else { "gcc" }, "cases.c", folder.path(), &[])?;
    let plugin = compile("gcc", "plugin.c", folder.path(), &["-shared", "-fPIC"])?;
    let mut command = clean(&program);
    command.env("CASES_PRELOAD", library).env("CASES_PLUGIN", &plugin).env("ALLOKIT_TRACK", level);
    if backend != "native" {
        // Two of the known ones hang until then.
        command.env("CASES_SECONDS", "20");
    }
    let done = tools::attempt(&mut command)?;
    let known = |name: &str| {
        also_known.contains(&name) || KNOWN.iter().any(|(of, start, _)| *of == backend && name.starts_with(start))
    };
    let wrong: Vec<&str> = done
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("FAILED "))
        .filter(|line| !known(line.split([' ', ':']).next().unwrap_or("")))
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let right = done.stdout.lines().filter(|line| line.starts_with("ok ")).count();
    ensure!(right >= 35, "only {right} cases passed:\n{}", done.all());
    Ok(())
}

/// Each case fails when malloc has the bug that it is there for (tests/preload/mutants.txt), and passes without.
fn mutants() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = compile("gcc", "cases.c", folder.path(), &[])?;
    let plugin = compile("gcc", "plugin.c", folder.path(), &["-shared", "-fPIC"])?;
    let faulty = compile("gcc", "faulty.c", folder.path(), &["-shared", "-fPIC"])?;
    let run = |case: &str, bug: &str| -> Result<tools::Done> {
        let mut command = clean(&program);
        let library = if bug == "absent" { folder.path().join("absent.so") } else { faulty.clone() };
        command.env("CASES_PRELOAD", &library).env("CASES_PLUGIN", &plugin).env("PRELOAD_BUG", bug);
        command.env("CASES_EXACT", "1").env("CASES_SECONDS", "10");
        tools::attempt(command.arg(case))
    };
    let listed = tools::output(clean(&program).arg("--list"))?;
    let mut without: BTreeSet<&str> = listed.lines().collect();
    let mut wrong = Vec::new();
    let text = fs::read_to_string(sources().join("mutants.txt"))?;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (case, bug) = line.split_once(' ').with_context(|| format!("mutants.txt: {line}"))?;
        without.remove(case);
        let sound = run(case, "")?;
        if !sound.success {
            wrong.push(format!("{case} fails without a bug: {}", sound.all().trim()));
        }
        // A bug that needs two threads at the same place may take a few tries.
        let mut is_missed = true;
        for _ in 0..5 {
            is_missed = is_missed && run(case, bug.trim())?.success;
        }
        if is_missed {
            wrong.push(format!("{case} does not see the bug {}", bug.trim()));
        }
    }
    for case in without {
        wrong.push(format!("{case} has no bug in mutants.txt"));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

// ---- C++ ---------------------------------------------------------------------------------------------------------------

fn operators(backend: &str) -> Result<()> {
    let library = preload(backend, true)?;
    let folder = tempfile::tempdir()?;
    for compiler in ["g++", "clang++"] {
        let program = compile(compiler, "operators.cc", folder.path(), &[])?;
        for level in ["off", "sites"] {
            let done = tools::attempt(under(&library, &program).env("ALLOKIT_TRACK", level))?;
            ensure!(
                done.success && done.stdout == "all forms are right\n" && done.stderr.is_empty(),
                "{compiler}, ALLOKIT_TRACK={level}: {}\n{}",
                done.ending,
                done.all()
            );
        }
    }
    let program = compile("gcc", "nothrow.c", folder.path(), &[])?;
    let quiet = tools::attempt(under(&library, &program).arg("quiet"))?;
    ensure!(quiet.success, "without a C++ library: {}\n{}", quiet.ending, quiet.all());
    let done = under(&library, &program).stdin(Stdio::null()).output()?;
    let words = "allokit: operator new: out of memory, and no C++ library is there to throw std::bad_alloc\n";
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.signal() == Some(6) && said == words, "without a C++ library: {}\n{said}", done.status);
    Ok(())
}

/// The operators, and those cases that an emulator does not disturb.
fn aarch64() -> Result<()> {
    const CASES: [&str; 11] =
        ["zero", "null", "too_large", "align", "usable", "keeps", "calloc", "c23", "obstacks", "before", "exit"];
    let target = "aarch64-unknown-linux-gnu";
    tools::need(&["aarch64-cc", "aarch64-c++", "qemu-aarch64"])
        .map_err(|error| LeftOut::because(format!("{error:#}")))?;
    if !tools::attempt(Command::new("rustup").args(["target", "add", target])).is_ok_and(|done| done.success) {
        return Err(LeftOut::because(format!("Rust's libraries for {target} cannot be had")));
    }
    let options = Options { target: Some(target.to_string()), ..Options::new("native") };
    let library = build::build_preload(&options)?;
    let folder = tempfile::tempdir()?;
    let operators = compile("aarch64-linux-gnu-g++", "operators.cc", folder.path(), &[])?;
    let cases = compile("aarch64-linux-gnu-gcc", "cases.c", folder.path(), &[])?;
    let emulated = |program: &Path, arguments: &[&str], level: &str| -> Result<tools::Done> {
        let mut command = clean(tools::find("qemu-aarch64")?);
        command.env("QEMU_LD_PREFIX", "/usr/aarch64-linux-gnu"); // where cross compilers keep the target's libc
        for (name, value) in
            [("LD_PRELOAD", &*library.to_string_lossy()), ("ALLOKIT_TRACK", level), ("CASES_EMULATED", "1")]
        {
            command.arg("-E").arg(format!("{name}={value}"));
        }
        tools::attempt(command.env("CASES_PRELOAD", &library).arg(program).args(arguments))
    };
    let listed = emulated(&cases, &["--list"], "off")?.stdout;
    for level in ["off", "sites"] {
        let done = emulated(&operators, &[], level)?;
        ensure!(done.success && done.stdout == "all forms are right\n", "{level}: {}\n{}", done.ending, done.all());
        for case in listed.lines().filter(|name| CASES.iter().any(|word| name.contains(word))) {
            let done = emulated(&cases, &["--run", case], level)?;
            ensure!(done.success, "{case}, {level}: {}\n{}", done.ending, done.all());
        }
    }
    Ok(())
}

// ---- the library -------------------------------------------------------------------------------------------------------

fn library(backend: &str) -> Result<()> {
    tools::need(&["readelf", "nm"])?;
    let library = preload(backend, true)?;
    let (offered, exports) = (build::offered(&library)?, build::preload_exports(false)?);
    ensure!(
        offered == exports,
        "exports.txt and the library differ in {:?}",
        offered.symmetric_difference(&exports).collect::<Vec<_>>()
    );
    let dynamic = tools::output(Command::new(tools::find("readelf")?).args(["--dynamic", "--wide"]).arg(&library))?;
    let soname = format!("[liballokit_preload_{backend}.so]");
    ensure!(dynamic.contains(&soname), "the soname is not {soname}:\n{dynamic}");
    ensure!(dynamic.contains("NODELETE"), "dlclose may take it away:\n{dynamic}");
    for line in dynamic.lines().filter(|line| line.contains("(NEEDED)")) {
        ensure!(line.contains("[libc.so") || line.contains("[ld-linux"), "it needs more than libc: {line}");
    }
    for tag in ["RUNPATH", "RPATH", "TEXTREL"] {
        ensure!(!dynamic.contains(tag), "{tag}:\n{dynamic}");
    }
    // What libc must have: no function of its own malloc but those that take blocks back.
    let mut nm = Command::new(tools::find("nm")?);
    let wanted = tools::output(nm.args(["--dynamic", "--undefined-only", "--format=posix"]).arg(&library))?;
    for line in wanted.lines() {
        let name = line.split(['@', ' ']).next().unwrap_or("");
        ensure!(!exports.contains(name), "it wants {name} from somebody else");
    }
    Ok(())
}

fn system_is_refused() -> Result<()> {
    let error = build::build_preload(&Options::new("system")).err().context("it was built")?.to_string();
    ensure!(error == "the system backend has no preload library: its malloc would call itself", "{error}");
    // And by cargo alone.
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["check", "--quiet", "-p", "allokit-preload", "--no-default-features", "--features", "system"]);
    cargo.arg("--target-dir").arg(build::target_dir().join("allokit/cargo/system")).current_dir(build::root());
    let done = tools::attempt(&mut cargo)?;
    let words = "the preload library cannot be built on the system backend: its malloc would call itself";
    ensure!(!done.success && done.stderr.contains(words), "cargo check: {}\n{}", done.ending, done.stderr);
    Ok(())
}

/// A program with a malloc of its own is served by that, and the library says nothing.
fn own_malloc() -> Result<()> {
    let library = preload("native", true)?;
    let folder = tempfile::tempdir()?;
    let program = compile("gcc", "own_malloc.c", folder.path(), &["-rdynamic"])?;
    let done = tools::attempt(under(&library, &program).env("ALLOKIT_STATS", "text").env("ALLOKIT_TRACK", "nonsense"))?;
    ensure!(done.success && done.stdout == "its own\n" && done.stderr.is_empty(), "{}\n{}", done.ending, done.all());
    Ok(())
}

/// Without tracking, native sees the second free of a block when that comes home to its page.
fn double_free() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = compile("gcc", "twice.c", folder.path(), &[])?;
    for debug in [false, true] {
        let library = build::build_preload(&Options { debug, ..Options::new("native") })?;
        for how in ["trim", "thread", "once"] {
            let done = under(&library, &program).arg(how).stdin(Stdio::null()).output()?;
            let (said, block) = (String::from_utf8_lossy(&done.stderr), String::from_utf8_lossy(&done.stdout));
            let message =
                format!("allokit: second free of {}, which is no live block of this allocator\n", block.trim());
            let right = match how {
                "once" => done.status.success() && said.is_empty(),
                _ => done.status.signal() == Some(6) && said == message,
            };
            ensure!(right, "{how}, debug {debug}: {}\n{block}{said}", done.status);
        }
    }
    Ok(())
}

// ---- tracking, statistics ----------------------------------------------------------------------------------------------

/// A leak in a running program is named through the pipe of ALLOKIT_CONTROL, with tracking switched on and off there.
fn control() -> Result<()> {
    use std::io::{BufRead, BufReader, Read};
    let library = preload("native", true)?;
    let folder = tempfile::tempdir()?;
    let program = compile("gcc", "server.c", folder.path(), &["-rdynamic"])?;
    let (pipe, profile) = (folder.path().join("control"), folder.path().join("now.folded"));
    let mut command = under(&library, &program);
    command.env("ALLOKIT_CONTROL", &pipe).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = command.spawn()?;
    BufReader::new(server.stdout.take().context("no output")?).read_line(&mut String::new())?;
    let order = |line: &str| -> Result<()> {
        fs::write(&pipe, format!("{line}\n")).with_context(|| format!("cannot write \"{line}\" to the pipe"))?;
        std::thread::sleep(std::time::Duration::from_millis(300));
        Ok(())
    };
    order("leaks")?;
    order("track sites")?;
    order("mark")?;
    order("grown")?;
    (0..4).try_for_each(|_| order("snapshot"))?;
    order("grown")?;
    order(&format!("folded:{}", profile.display()))?;
    order("track off")?;
    order("nonsense")?;
    order(&format!("folded:{}", folder.path().join("no/such/folder").display()))?;
    drop(server.stdin.take());
    let status = server.wait()?;
    let mut said = String::new();
    server.stderr.take().context("no stderr")?.read_to_string(&mut said)?;
    let folded = fs::read_to_string(&profile).context("no profile was written")?;
    ensure!(status.success() && !pipe.exists(), "{status}, and the pipe is {}\n{said}", pipe.exists());
    let grew = said.lines().find(|line| line.contains("likely   3 of  3") && line.contains("server.bin(forgets+0x"));
    ensure!(grew.is_some(), "the leak has not grown from snapshot to snapshot:\n{said}");
    ensure!(folded.contains("server.bin(forgets+0x"), "the leak is not in the profile:\n{folded}\n{said}");
    for wanted in [
        "allokit: leaks are unknown: tracking is off",
        "server.bin(forgets+0x",
        "allokit: ALLOKIT_CONTROL: \"nonsense\" is not known; valid: track sites",
        "no/such/folder; the profile is lost",
    ] {
        ensure!(said.contains(wanted), "\"{wanted}\" is missing in\n{said}");
    }
    // Files that have the number of the pipe's descriptor later are the program's.
    let mut other = under(&library, &program);
    other.arg("reuse").env("ALLOKIT_CONTROL", folder.path().join("other")).env("ALLOKIT_GROWTH", "20ms");
    let done = other.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success() && said.is_empty(), "its own files were read: {}\n{said}", done.status);
    // A path that is something else is left alone, and the program runs.
    fs::write(&pipe, "not a pipe")?;
    let done = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(
        done.status.success() && said.contains("cannot be a pipe") && fs::read(&pipe)? == b"not a pipe",
        "a file in the place of the pipe: {}\n{said}",
        done.status
    );
    Ok(())
}

fn tracking(backend: &str) -> Result<()> {
    let library = preload(backend, true)?;
    let folder = tempfile::tempdir()?;
    let program = compile("gcc", "leaky.c", folder.path(), &["-rdynamic"])?;
    let tracked = |arguments: &[&str], variables: &[(&str, &str)]| -> Result<std::process::Output> {
        let mut command = under(&library, &program);
        command.env("ALLOKIT_TRACK", "sites").envs(variables.iter().copied()).args(arguments);
        Ok(command.stdin(Stdio::null()).output()?)
    };

    let done = tracked(&[], &[("ALLOKIT_LEAKS", "1")])?;
    let said = String::from_utf8_lossy(&done.stderr);
    let line = said.lines().find(|line| line.contains("leaky.bin(leaves_three+0x"));
    let counted = line.is_some_and(|line| line.split_whitespace().take(2).eq(["3", "300"]));
    ensure!(done.status.success() && counted, "the leak is not reported:\n{said}");

    let done = tracked(&["double"], &[])?;
    let said = String::from_utf8_lossy(&done.stderr);
    let places = said.matches("leaky.bin(frees_twice+0x").count();
    ensure!(
        done.status.signal() == Some(6) && said.contains("allokit: double free of 0x") && places == 3,
        "the double free is not reported: {}\n{said}",
        done.status
    );
    let done = tracked(&["double"], &[("ALLOKIT_POLICY", "report")])?;
    ensure!(done.status.success() && done.stdout == b"went on\n", "policy report: {}", done.status);

    let figures = folder.path().join("figures.json");
    let target = format!("json:{}", figures.display());
    for level in ["sites", "off"] {
        let _ = fs::remove_file(&figures);
        let done = tracked(&[], &[("ALLOKIT_STATS", target.as_str()), ("ALLOKIT_TRACK", level)])?;
        ensure!(done.status.success() && done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&figures).context("ALLOKIT_STATS=json:path")?)?;
        let count = json["stats"]["alloc_count"].as_u64();
        ensure!(
            json["backend"] == backend
                && json["tracking"] == level
                && count.is_some_and(|n| n > 1000) == (level == "sites"),
            "{json}"
        );
    }
    // A word that is not known is said once, and the program runs.
    let done = tracked(&[], &[("ALLOKIT_TRACK", "places")])?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success() && said.matches("ALLOKIT_TRACK=places is not known").count() == 1, "{said}");
    Ok(())
}

// ---- set-user-id -------------------------------------------------------------------------------------------------------

/// The loader ignores LD_PRELOAD there, so the program is linked with the library.
fn set_user_id(backend: &str) -> Result<()> {
    let library = preload(backend, true)?;
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let here = folder.path().join(library.file_name().context("a name")?);
    fs::copy(&library, &here)?;
    fs::set_permissions(&here, fs::Permissions::from_mode(0o755))?;
    let rpath = format!("-Wl,-rpath,{}", folder.path().display());
    let named = here.display().to_string();
    let program = compile("gcc", "privileged.c", folder.path(), &["-Wl,--no-as-needed", &named, &rpath])?;

    let if_root = tools::attempt(Command::new("id").arg("-u"))?.stdout.trim() == "0";
    if !if_root || tools::in_path("setpriv").is_none() {
        return Err(LeftOut::because(
            "it takes root and setpriv to make a set-user-id program and run it as another user",
        ));
    }
    let variables = [
        ("ALLOKIT_TRACK", "sites"),
        ("ALLOKIT_LEAKS", "1"),
        ("ALLOKIT_STATS", "text"),
        ("ALLOKIT_POLICY", "nonsense"),
        ("ALLOKIT_BACKEND", "nonsense"),
    ];
    let run = || {
        let mut command = clean("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program).envs(variables);
        tools::attempt(&mut command)
    };
    let ordinary = run()?;
    ensure!(
        ordinary.stdout == "ordinary\n"
            && ordinary.stderr.contains(&format!("backend {backend}, tracking sites"))
            && ordinary.stderr.contains("ALLOKIT_POLICY=nonsense is not known"),
        "the variables do nothing even in an ordinary program: {}\n{}",
        ordinary.ending,
        ordinary.all()
    );
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755))?;
    let secure = run()?;
    if secure.stdout == "ordinary\n" {
        return Err(LeftOut::because("set-user-id has no effect where temporary files lie (nosuid)"));
    }
    ensure!(
        secure.success && secure.stdout == "secure\n" && secure.stderr.is_empty(),
        "{}\n{}",
        secure.ending,
        secure.all()
    );
    Ok(())
}

// ---- instructions ------------------------------------------------------------------------------------------------------

/// What malloc and free of the native library may cost, loop and call through the PLT included.
const BUDGETS: [(&str, u64); 2] = [("alloc", 20), ("free", 23)];

fn instructions() -> Result<()> {
    tools::need(&["gcc"])?;
    let library = preload("native", true)?;
    let folder = tempfile::tempdir()?;
    let root = build::root().join("tests/instr");
    let (count, calls) = (folder.path().join("count"), folder.path().join("calls"));
    let flags = ["-std=gnu11", "-O1", "-fno-builtin", "-Wall", "-Wextra", "-Werror"];
    tools::output(Command::new("gcc").args(flags).arg("-o").arg(&count).arg(root.join("count.c")))?;
    let functions = ["-DALLOC=malloc", "-DFREE=free"];
    tools::output(Command::new("gcc").args(flags).args(functions).arg("-o").arg(&calls).arg(root.join("calls.c")))?;
    for (which, budget) in BUDGETS {
        let text = tools::output(under(&library, &count).arg(&calls).arg(which))
            .map_err(|error| LeftOut::because(format!("single-stepping does not work here: {error:#}")))?;
        let cost = text.trim().parse::<u64>().with_context(|| format!("count printed {text:?}"))? / 32;
        ensure!(cost > 5, "{which} was counted as {cost} instructions: the count is wrong");
        ensure!(cost <= budget, "{which} costs {cost} instructions, loop included; {budget} are allowed");
    }
    Ok(())
}

// ---- real programs -----------------------------------------------------------------------------------------------------

/// A script for `sh -e` in an empty folder; what it prints must be the same with the library as without.
#[derive(Clone, Copy)]
struct Program {
    name: &'static str,
    /// Of tools.rs.
    needs: &'static [&'static str],
    /// Run on every backend.
    quick: bool,
    script: &'static str,
}

/// `$U` stands before each command that is to run with the library.
const PROGRAMS: [Program; 11] = [
    Program {
        name: "ls",
        needs: &[],
        quick: true,
        script: "$U ls -lR /usr/include | sort | cksum; $U ls -la /usr/bin",
    },
    Program {
        name: "bash",
        needs: &[],
        quick: true,
        script: r#"cat > s.sh <<'END'
declare -A seen
for i in {1..3000}; do a[i]=$((i * i)); seen[k$((i % 100))]+=x$i; done
f() { local n=$1; if ((n < 2)); then echo "$n"; else echo $(($(f $((n - 1))) + $(f $((n - 2))))); fi; }
echo "${#a[@]} ${#seen[@]} ${seen[k7]}"; f 9
while read -r line; do t+="$line,"; done < <(seq 500); echo "$t" | md5sum
s=; for i in {1..2000}; do s="$s$i"; done; echo "${s//1/one}" | cksum
trap 'echo trapped' EXIT; (exit 3) || echo "status $?"
END
$U bash s.sh"#,
    },
    Program {
        name: "git",
        needs: &["git"],
        quick: true,
        script: r#"export HOME="$PWD" GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
$U git -c init.defaultBranch=main init -q r; cd r
for i in 1 2 3 4 5; do seq $((i * 1000)) > f$i; $U git add .; $U git commit -q -m "c$i"; done
$U git checkout -q -b other HEAD~2; echo x >> f1; $U git commit -qam side; $U git merge -q main -m merged
$U git log --stat --graph; $U git gc -q; $U git fsck --full; $U git blame f1 | tail -3; $U git rev-parse HEAD"#,
    },
    Program {
        name: "python3",
        needs: &["python3"],
        quick: true,
        script: r#"cat > s.py <<'END'
import collections, concurrent.futures, ctypes, gc, json, re, threading, zlib
def work(n):
    d = {}
    for i in range(20000):
        d[i % 997] = [str(i * n)] * (i % 7)
    return zlib.crc32(json.dumps(d, sort_keys=True).encode())
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    print(list(pool.map(work, range(8))))
try:
    import sqlite3
    db = sqlite3.connect(':memory:')
    db.execute('create table t(a integer, b text)')
    db.executemany('insert into t values(?, ?)', ((i, 'x' * (i % 50)) for i in range(20000)))
    db.execute('create index i on t(b)')
    print(db.execute('select count(*), sum(a), max(length(b)) from t where b > ?', ('xxx',)).fetchone())
except ImportError: print('no sqlite3')
try:
    import ssl
    c = ssl.create_default_context(); print(len(c.get_ciphers()) > 0)
    a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
    o = c.wrap_bio(a, b, server_hostname='x')
    try: o.do_handshake()
    except ssl.SSLWantReadError: print(len(b.read()) > 100)
except ImportError: print('no ssl')
print(len(re.findall(r'(\w+)@(\w+)', 'a@b c@d ' * 5000)))
for size in (1, 100, 10000, 10000000): assert ctypes.create_string_buffer(size).raw == bytes(size)
t = [threading.Thread(target=work, args=(i,)) for i in range(10)]
[x.start() for x in t]; [x.join() for x in t]; gc.collect(); print('end')
END
PYTHONMALLOC=malloc $U python3 s.py; $U python3 s.py"#,
    },
    Program {
        name: "perl",
        needs: &["perl"],
        quick: false,
        script: r#"cat > s.pl <<'END'
use strict; my %h; $h{$_ % 1009} .= "v$_," for 1..100000;
my @s = sort { length($h{$a}) <=> length($h{$b}) || $a <=> $b } keys %h; print "@s[0..9]\n";
my $t = join ',', map { sprintf '%05d', $_ } 1..20000; my $n = () = $t =~ /(\d)\1/g; print "$n\n";
my @l; push @l, { n => $_, t => 'x' x ($_ % 300), a => [1..$_ % 20] } for 1..20000; print scalar(@l), "\n";
for my $i (1..5) { my $p = fork; if (!$p) { my @x = map { [$_] } 1..10000; exit(@x == 10000 ? 0 : 1) } waitpid $p, 0; print "$?\n"; }
END
$U perl s.pl"#,
    },
    Program {
        name: "gcc",
        needs: &["gcc", "g++"],
        quick: true,
        script: r#"cat > a.cc <<'END'
#include <algorithm>
#include <iostream>
#include <map>
#include <sstream>
int main() { std::map<std::string, int> m; for (int i = 0; i < 1000; i++) { std::ostringstream s; s << i % 37; m[s.str()]++; }
  for (auto &e : m) std::cout << e.first << e.second << "\n"; }
END
$U g++ -O2 -o a a.cc; $U ./a | cksum; cksum < a; $U gcc -E -x c /dev/null"#,
    },
    Program {
        name: "clang",
        needs: &["clang"],
        quick: false,
        script: r#"printf '#include <stdio.h>\nint main(void){ for(int i=0;i<5;i++) printf("%%d\\n", i*i); return 0; }\n' > a.c
$U clang -O2 -o a a.c; $U ./a; $U clang -O2 -S -emit-llvm -o - a.c | cksum"#,
    },
    Program {
        name: "gdb",
        needs: &["gdb", "gcc"],
        quick: false,
        script: r#"printf 'int f(int n){ return n < 2 ? n : f(n-1) + f(n-2); }\nint main(void){ return f(6); }\n' > a.c; gcc -g -O0 -o a a.c
$U gdb -q -nx -batch -ex 'info functions ^f$' -ex 'print sizeof(long)*3' -ex 'ptype main' -ex 'list f' -ex 'disassemble main' ./a"#,
    },
    Program {
        name: "redis",
        needs: &["redis-server"],
        quick: false,
        script: r#"$U redis-server --port 0 --unixsocket "$PWD/s" --save '' --appendonly no --daemonize no --dir "$PWD" > log 2>&1 &
server=$!; trap 'kill $server 2> /dev/null || true' EXIT; n=0
until redis-cli -s s ping > /dev/null 2>&1; do n=$((n + 1)); [ $n -lt 100 ] || { cat log; exit 1; }; sleep 0.1; done
$U redis-benchmark -s s -q -n 10000 -c 20 -d 300 -r 2000 -t set,get,lpush,lrange_100,sadd,hset,zadd > /dev/null
seq 3000 | sed 's/.*/set key& value&/' | redis-cli -s s > /dev/null
redis-cli -s s get key77; redis-cli -s s eval 'local t = {} for i = 1, 1000 do t[i] = tostring(i) end return #table.concat(t)' 0
redis-cli -s s debug reload 2> /dev/null || true; redis-cli -s s shutdown nosave || true; wait $server; echo "status $?""#,
    },
    Program {
        name: "node-repl",
        needs: &["node"],
        quick: false,
        script: r#"printf '%s\n' 'var a = []; for (var i = 0; i < 20000; i++) a.push({ n: i, t: "x".repeat(i %% 50) }); a.length' \
 'JSON.stringify(a).length' 'Buffer.alloc(5000000).length' '[1, 2, 3].map(x => x * x)' '.exit' | NO_COLOR=1 $U node -i"#,
    },
    Program {
        name: "node-workers",
        needs: &["node"],
        quick: false,
        script: r#"cat > s.js <<'END'
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads'), zlib = require('zlib');
if (isMainThread) {
  let sums = [], left = 4;
  for (let i = 0; i < 4; i++) new Worker(__filename, { workerData: i })
    .on('message', m => sums.push(m)).on('error', e => { throw e; })
    .on('exit', () => { if (--left == 0) console.log(sums.sort().join(' ')); });
} else {
  let o = {}; for (let i = 0; i < 30000; i++) o['k' + i % 500] = 'v'.repeat(i % 90) + workerData;
  const packed = zlib.gzipSync(JSON.stringify(o)); parentPort.postMessage(zlib.gunzipSync(packed).length + workerData);
}
END
$U node s.js"#,
    },
];

const SCRIPT_SECONDS: u64 = 100;

fn real_program(program: Program, backend: &str) -> Result<()> {
    tools::need(program.needs).map_err(|error| LeftOut::because(format!("{error:#}")))?;
    let library = preload(backend, true)?;
    let plain = script(program, None)?;
    let figures = tempfile::tempdir()?;
    let served = figures.path().join("served.json");
    let preloaded = script(program, Some((&library, &served)))?;
    ensure!(plain.0, "it fails without the library too:\n{}", plain.1);
    ensure!(preloaded.0, "with the library it fails:\n{}", preloaded.1);
    if plain.1 != preloaded.1 {
        let (a, b): (Vec<&str>, Vec<&str>) = (plain.1.lines().collect(), preloaded.1.lines().collect());
        let at = a.iter().zip(&b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()));
        bail!("line {}: {:?} without the library, {:?} with it", at + 1, a.get(at), b.get(at));
    }
    // The last process to end has left its figures: it was served by this library.
    let text = fs::read(&served).context("no process has reported at its end: was the library there at all?")?;
    let json: serde_json::Value = serde_json::from_slice(&text)?;
    ensure!(json["backend"] == backend, "served by {json}");
    let held = json["stats"]["committed_bytes"].as_u64().unwrap_or(0);
    ensure!(held > 0, "it holds no memory: {json}");
    Ok(())
}

/// Whether the script went well, and all that it printed.
fn script(program: Program, library: Option<(&Path, &Path)>) -> Result<(bool, String)> {
    let folder = tempfile::tempdir()?;
    // A name of its own, since some programs print it.
    let at = folder.path().join("at");
    fs::create_dir(&at)?;
    let out = folder.path().join("out");
    let prefix = library.map_or(String::new(), |(library, served)| {
        format!("env LD_PRELOAD={} ALLOKIT_STATS=json:{}", library.display(), served.display())
    });
    let mut command = clean("sh");
    command.arg("-e").env("U", prefix).current_dir(&at).stdin(Stdio::piped());
    let file = fs::File::create(&out)?;
    let mut child = command.stdout(file.try_clone()?).stderr(file).spawn()?;
    let path = folder.path().display().to_string();
    child.stdin.take().context("stdin is piped")?.write_all(program.script.as_bytes())?;
    let end = Instant::now() + Duration::from_secs(SCRIPT_SECONDS);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            bail!("it did not end within {SCRIPT_SECONDS} s:\n{}", fs::read_to_string(&out)?);
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let text = String::from_utf8_lossy(&fs::read(&out)?).replace(&path, "HERE");
    Ok((status.success(), text))
}
