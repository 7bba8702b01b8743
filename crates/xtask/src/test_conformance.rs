//! The conformance suite (tests/conformance): one set of sources, compiled as C99 and as C++11, with and without AK_TRACK,
//! linked with each backend's static and shared library, run plain and tracked; and the mutants, which show that each
//! test can fail.

use crate::build::{self, BACKENDS, Options};
use crate::case::{Case, LeftOut};
use crate::tools;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// How the suite is compiled and linked.
#[derive(Clone, Copy)]
struct Build {
    backend: &'static str,
    track: bool,
    shared: bool,
    cxx: bool,
    /// Compiled with AK_TRACK.
    sites: bool,
    clang: bool,
    /// Compiled with the fast path in the caller (AK_INLINE_NATIVE).
    inline: bool,
}

impl Build {
    fn name(&self) -> String {
        format!(
            "{}{}/{}/{}{}{}{}",
            self.backend,
            if self.track { "" } else { "-notrack" },
            if self.shared { "shared" } else { "static" },
            if self.cxx { "c++" } else { "c" },
            if self.sites { "-sites" } else { "" },
            if self.inline { "-inline" } else { "" },
            if self.clang { "-clang" } else { "" },
        )
    }
}

/// The cases of this module.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backend in BACKENDS {
        for shared in [false, true] {
            for cxx in [false, true] {
                // Each is run plain and tracked; AK_TRACK and the second compiler take turns, so that each backend
                // meets each of them.
                let sites = shared == cxx;
                add(&mut cases, Build { backend, track: true, shared, cxx, sites, clang: shared, inline: false });
            }
        }
        let build =
            Build { backend, track: false, shared: false, cxx: false, sites: true, clang: false, inline: false };
        add(&mut cases, build);
    }
    for cxx in [false, true] {
        let build =
            Build { backend: "native", track: !cxx, shared: false, cxx, sites: false, clang: cxx, inline: true };
        add(&mut cases, build);
    }
    cases.push(Case::new("conformance/aarch64", aarch64));
    cases.push(Case::new("conformance/late-loading", late));
    cases.push(Case::new("mutants", mutants));
    cases
}

fn add(cases: &mut Vec<Case>, build: Build) {
    cases.push(Case::new(format!("conformance/{}", build.name()), move || suite(&build)));
}

fn folder() -> PathBuf {
    build::root().join("tests/conformance")
}

fn sources(cxx: bool) -> Result<Vec<PathBuf>> {
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(folder())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let wanted = name.ends_with(".c") && name != "plugin.c" && name != "late.c" || cxx && name == "cxx.cc";
        if wanted {
            sources.push(path);
        }
    }
    sources.sort();
    ensure!(sources.len() > 5, "tests/conformance lacks its sources");
    Ok(sources)
}

/// The compiler with what all objects of a build are compiled with.
fn compiler(build: &Build) -> Command {
    let mut command = Command::new(match (build.cxx, build.clang) {
        (false, false) => "gcc",
        (false, true) => "clang",
        (true, false) => "g++",
        (true, true) => "clang++",
    });
    command.args(WARNINGS).args(["-O2", "-g0", "-pthread", "-fPIC"]).args(if build.cxx {
        &["-x", "c++", "-std=c++11"][..]
    } else {
        &["-std=c99"][..]
    });
    command.arg("-I").arg(build::root().join("include"));
    command.arg(format!("-DCHECK_VERSION=\"{}\"", build::VERSION));
    if build.sites {
        command.arg("-DAK_TRACK");
    }
    command
}

/// The objects of the suite, and last the plugin's. They do not depend on the library, so each way to compile them is
/// compiled once.
fn objects(build: &Build) -> Result<Vec<PathBuf>> {
    static COMPILED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let key = format!("{}-{}-{}-{}", build.cxx, build.sites, build.clang, build.inline)
        .replace("true", "1")
        .replace("false", "0");
    let folder = build::target_dir().join("allokit/conformance").join(key);
    let mut sources = sources(build.cxx)?;
    sources.push(self::folder().join("plugin.c"));
    let object = |source: &PathBuf| folder.join(source.file_name().unwrap_or_default()).with_extension("o");
    let objects: Vec<PathBuf> = sources.iter().map(object).collect();
    let mut compiled = COMPILED.lock().unwrap_or_else(|poison| poison.into_inner());
    if !compiled.contains(&folder) {
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        for (source, object) in sources.iter().zip(&objects) {
            let mut command = compiler(build);
            // The plugin finds the functions in the program, where the fast path's variable is hidden.
            if build.inline && !source.ends_with("plugin.c") {
                command.arg("-DAK_INLINE_NATIVE");
            }
            tools::output(command.arg("-c").arg(source).arg("-o").arg(object))?;
        }
        compiled.insert(folder);
    }
    Ok(objects)
}

/// Links the suite and its plugin against a library.
fn compile(build: &Build, library: &Path, into: &Path) -> Result<(PathBuf, PathBuf)> {
    let (program, plugin) = (into.join("suite"), into.join("plugin.so"));
    let mut objects = objects(build)?;
    let plugin_object = objects.pop().context("the plugin is the last object")?;
    let linker = if build.cxx { "g++" } else { "gcc" };
    let folder = library.parent().context("a library lies in a folder")?;
    let rpath = format!("-Wl,-rpath,{}", folder.display());
    let mut command = Command::new(linker);
    command.args(["-pthread", "-o"]).arg(&program).args(objects).arg(library).args([
        &rpath,
        "-rdynamic",
        "-ldl",
        "-lm",
    ]);
    tools::output(&mut command)?;
    // With a static library the plugin finds the functions in the program.
    let mut command = Command::new(linker);
    command.args(["-shared", "-pthread", "-o"]).arg(&plugin).arg(plugin_object).args(build.shared.then_some(library));
    command.arg(&rpath);
    tools::output(&mut command)?;
    Ok((program, plugin))
}

fn suite(build: &Build) -> Result<()> {
    tools::need(&["g++", "clang"])?;
    let built = build::build_with(&Options { track: build.track, ..Options::new(build.backend) })?;
    let folder = tempfile::tempdir()?;
    let library = if build.shared { &built.shared_lib } else { &built.static_lib };
    let (program, plugin) = compile(build, library, folder.path())?;
    for level in ["off", "sites"] {
        let tracked = build.track && level == "sites";
        let mut command = Command::new(&program);
        command.env("CHECK_BACKEND", build.backend).env("CHECK_PLUGIN", &plugin).env("ALLOKIT_TRACK", level);
        command.env("CHECK_TRACKED", if tracked { "1" } else { "0" });
        if !build.track {
            if level == "sites" {
                continue;
            }
            command.env("CHECK_NO_TRACK_BUILD", "1");
        }
        judge(&mut command, &format!("ALLOKIT_TRACK={level}"))?;
        emitted(Command::new(&program).env("ALLOKIT_TRACK", level), build, tracked)?;
    }
    Ok(())
}

/// The JSON of the statistics, read by a parser: every field is there, a number where it is known and null elsewhere.
fn emitted(command: &mut Command, build: &Build, tracked: bool) -> Result<()> {
    let done = tools::attempt(command.args(["--emit", "json"]))?;
    ensure!(done.success, "--emit json: {}\n{}", done.ending, done.all());
    let known: u64 = done.stderr.trim().parse().with_context(|| format!("known is {:?}", done.stderr))?;
    let json: serde_json::Value =
        serde_json::from_str(&done.stdout).with_context(|| format!("this is no JSON: {}", done.stdout))?;
    let tracking = if !build.track {
        "none"
    } else if tracked {
        "sites"
    } else {
        "off"
    };
    ensure!(
        json["allokit"] == build::VERSION && json["backend"] == build.backend && json["tracking"] == tracking,
        "the JSON is of something else: {json}"
    );
    let stats = json["stats"].as_object().context("no stats in the JSON")?;
    for (bit, field) in FIELDS.into_iter().enumerate() {
        let is_known = known >> bit & 1 == 1;
        let value = stats.get(field).with_context(|| format!("no {field} in {json}"))?;
        ensure!(if is_known { value.is_u64() } else { value.is_null() }, "{field} is {value}, known: {is_known}");
    }
    ensure!(stats.len() == FIELDS.len(), "more fields than known: {json}");
    Ok(())
}

/// The fields of `ak_stats_t`, in the order of the bits of `known`.
const FIELDS: [&str; 10] = [
    "alloc_count",
    "free_count",
    "alloc_bytes",
    "free_bytes",
    "current_bytes",
    "peak_bytes",
    "reserved_bytes",
    "committed_bytes",
    "mapped_peak_bytes",
    "threads",
];

/// Runs the suite; on failure the error holds the lines of what failed.
fn judge(command: &mut Command, mode: &str) -> Result<()> {
    let done = tools::attempt(command)?;
    if done.success {
        return Ok(());
    }
    let kept: Vec<&str> =
        done.stdout.lines().filter(|line| !line.starts_with("ok") && !line.starts_with("skipped")).collect();
    bail!("with {mode}: {}\n{}\n{}", done.ending, kept.join("\n"), done.stderr);
}

/// The suite for aarch64, under qemu-user.
fn aarch64() -> Result<()> {
    let target = "aarch64-unknown-linux-gnu";
    let missing =
        |what: &str| LeftOut::because(format!("{what}; on Debian: apt-get install gcc-aarch64-linux-gnu qemu-user"));
    tools::need(&["aarch64-cc", "qemu-aarch64"]).map_err(|error| missing(&format!("{error:#}")))?;
    if !tools::attempt(Command::new("rustup").args(["target", "add", target])).is_ok_and(|done| done.success) {
        return Err(LeftOut::because(format!(
            "Rust's libraries for {target} cannot be had (rustup target add {target})"
        )));
    }
    let out = build::target_dir().join("allokit").join(target).join("native");
    let options = Options { target: Some(target.to_string()), out: Some(out), ..Options::new("native") };
    let built = build::build_with(&options)?;
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("suite");
    let mut command = Command::new("aarch64-linux-gnu-gcc");
    command.args(WARNINGS).args(["-O2", "-std=c99", "-pthread", "-rdynamic"]);
    command.arg("-I").arg(build::root().join("include")).arg(format!("-DCHECK_VERSION=\"{}\"", build::VERSION));
    command.args(sources(false)?).arg("-o").arg(&program).arg(&built.static_lib).args(["-ldl", "-lm"]);
    tools::output(&mut command)?;
    let emulator = tools::find("qemu-aarch64")?;
    for level in ["off", "sites"] {
        let mut command = Command::new(&emulator);
        command.arg(&program).env("CHECK_EMULATOR", &emulator).env("ALLOKIT_TRACK", level);
        command.env("QEMU_LD_PREFIX", "/usr/aarch64-linux-gnu"); // where cross compilers keep the target's libc
        command.env("CHECK_BACKEND", "native");
        judge(&mut command, &format!("qemu, ALLOKIT_TRACK={level}"))?;
    }
    Ok(())
}

/// A program that loads the shared library while it runs, for each backend.
fn late() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("late");
    let source = self::folder().join("late.c");
    let mut command = Command::new("gcc");
    command.args(WARNINGS).args(["-O2", "-std=gnu11", "-pthread", "-o"]).arg(&program).arg(source).arg("-ldl");
    tools::output(&mut command)?;
    for backend in BACKENDS {
        let built = build::build(backend, true, None)?;
        for level in ["off", "sites"] {
            let done = tools::attempt(Command::new(&program).arg(&built.shared_lib).env("ALLOKIT_TRACK", level))?;
            // jemalloc keeps a thread's state in static TLS, of which a running program has little left.
            let limit_of_jemalloc = backend == "jemalloc" && done.stderr.contains("static TLS block");
            let ok = done.success || limit_of_jemalloc;
            ensure!(ok, "{backend}, ALLOKIT_TRACK={level}: {}\n{}", done.ending, done.all());
        }
    }
    Ok(())
}

/// Each bug that the reference can have must be seen by the test that mutants.txt names, which passes without it.
fn mutants() -> Result<()> {
    let reference = build::root().join("tests/reference");
    let folder = tempfile::tempdir()?;
    let build =
        Build { backend: "native", track: true, shared: true, cxx: true, sites: true, clang: false, inline: false };
    let library = folder.path().join("libreference.so");
    let mut command = Command::new("gcc");
    command.args(WARNINGS).args(["-std=gnu11", "-O1", "-fPIC", "-shared", "-pthread", "-Wl,-soname,libreference.so"]);
    command.arg(format!("-DREFERENCE_VERSION=\"{}\"", build::VERSION)).arg("-o").arg(&library);
    command.arg("-I").arg(build::root().join("include")).arg(reference.join("reference.c")).arg("-ldl");
    tools::output(&mut command)?;
    let (program, plugin) = compile(&build, &library, folder.path())?;
    let list = std::fs::read_to_string(reference.join("mutants.txt"))?;
    let mut mutants = Vec::new();
    for line in list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [bug, mode @ ("plain" | "tracked"), test] = words[..] else { bail!("mutants.txt: what is {line:?}?") };
        mutants.push((bug, mode == "tracked", test));
    }
    let all = tools::output(Command::new(&program).arg("--list"))?;
    let tests: BTreeSet<&str> = all.lines().collect();
    let covered: BTreeSet<&str> = mutants.iter().map(|(_, _, test)| *test).collect();
    let bare: Vec<&&str> = tests.difference(&covered).filter(|test| !NOT_THE_LIBRARYS.contains(test)).collect();
    ensure!(bare.is_empty(), "mutants.txt has no bug for these tests: {bare:?}");

    let status = |bug: &str, tracked: bool, test: &str| -> Result<(Option<i32>, String)> {
        let mut command = Command::new(&program);
        command.args(["--run", test]).env("REFERENCE_BUG", bug).env("CHECK_PLUGIN", &plugin);
        command.env("ALLOKIT_TRACK", if tracked { "sites" } else { "off" });
        command.env("CHECK_TRACKED", if tracked { "1" } else { "0" });
        let output = command.output()?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    let mut wrong = Vec::new();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(&mut wrong);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((bug, tracked, test)) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // A bug that only some orders of threads show may be missed once.
                    let seen =
                        (0..3).map(|_| status(bug, *tracked, test)).find(|seen| !matches!(seen, Ok((Some(0), _))));
                    let seen = seen.unwrap_or(Ok((Some(0), String::new())));
                    let line = match (status("", *tracked, test), seen) {
                        // 1: a check failed; no status: a signal ended it.
                        (Ok((Some(0), _)), Ok((Some(1) | None, _))) => continue,
                        (Ok((Some(0), _)), Ok((with, _))) => format!("{test} does not notice {bug}: status {with:?}"),
                        (Ok((without, text)), _) => {
                            format!("{test} on the right reference: status {without:?}: {text}")
                        }
                        (Err(error), _) => format!("{test}: {error:#}"),
                    };
                    found.lock().unwrap_or_else(|poison| poison.into_inner()).push(line);
                }
            });
        }
    });
    ensure!(mutants.len() > 80, "mutants.txt holds {} lines only", mutants.len());
    ensure!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), mutants.len(), wrong.join("\n"));
    Ok(())
}

/// Tests of the header's macros, which no library can make fail (docs/testing.md says how they were seen to), and of what
/// only the runner of the matrix knows.
const NOT_THE_LIBRARYS: [&str; 2] = ["functions_as_values", "typed_free_evaluates_once"];
