//! The suite for heaps (tests/heap) with the runner of the conformance suite: each backend, static and shared, C and C++,
//! plain and tracked; a late read under AddressSanitizer and valgrind; and a Lua host whose states have a limit.

use crate::build::{self, BACKENDS};
use crate::case::{Case, LeftOut};
use crate::{sources, tools};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The cases of this module.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backend in BACKENDS {
        cases.push(Case::new(format!("heap/{backend}/static"), move || suite(backend, false)));
        cases.push(Case::new(format!("heap/{backend}/shared"), move || suite(backend, true)));
        cases.push(Case::new(format!("heap/{backend}/lua"), move || lua_host(backend)));
    }
    for backend in ["native", "system"] {
        cases.push(Case::new(format!("heap/{backend}/address-sanitizer"), move || sanitizer(backend)));
        cases.push(Case::new(format!("heap/{backend}/valgrind"), move || valgrind(backend)));
    }
    cases
}

fn source(name: &str) -> PathBuf {
    build::root().join("tests/heap").join(name)
}

fn suite(backend: &'static str, shared: bool) -> Result<()> {
    tools::need(&["g++", "clang"])?;
    let built = build::build(backend, true, None)?;
    let library = if shared { &built.shared_lib } else { &built.static_lib };
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("suite");
    // C with call sites against the static library, C++ without against the shared one; the compilers take turns.
    let mut command = Command::new(match (shared, backend) {
        (false, "native" | "jemalloc") => "gcc",
        (false, _) => "clang",
        (true, "native" | "jemalloc") => "clang++",
        (true, _) => "g++",
    });
    command.args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2", "-pthread"]);
    command.args(if shared { &["-x", "c++", "-std=c++11"][..] } else { &["-std=c99", "-DAK_TRACK"][..] });
    command.arg("-I").arg(build::root().join("include")).arg(format!("-DCHECK_VERSION=\"{}\"", build::VERSION));
    command.arg(build::root().join("tests/conformance/main.c")).arg(source("heaps.c"));
    if shared {
        command.args(["-x", "none"]);
    }
    link(&mut command, library, &program)?;
    for level in ["off", "sites"] {
        let mut command = Command::new(&program);
        command.env("CHECK_BACKEND", backend).env("ALLOKIT_TRACK", level);
        let done = tools::attempt(&mut command)?;
        if !done.success {
            let kept: Vec<&str> = done.stdout.lines().filter(|line| !line.starts_with("ok")).collect();
            bail!("ALLOKIT_TRACK={level}: {}\n{}\n{}", done.ending, kept.join("\n"), done.stderr);
        }
    }
    Ok(())
}

fn link(command: &mut Command, library: &Path, program: &Path) -> Result<()> {
    let folder = library.parent().context("a library lies in a folder")?;
    command.arg(library).arg(format!("-Wl,-rpath,{}", folder.display()));
    command.args(["-rdynamic", "-ldl", "-lm", "-o"]).arg(program);
    tools::output(command).map(drop)
}

/// The line of late_use.c that a tool must name.
fn late_line() -> Result<usize> {
    let text = std::fs::read_to_string(source("late_use.c"))?;
    let at = text.lines().position(|line| line.contains("/* LATE */")).context("late_use.c lost its mark")?;
    Ok(at + 1)
}

fn late_use(backend: &str, flags: &[&str], folder: &Path) -> Result<PathBuf> {
    let built = build::build(backend, true, None)?;
    let program = folder.join("late_use");
    let mut command = Command::new("gcc");
    command.args(["-std=c99", "-g", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror"]).args(flags);
    command.arg("-I").arg(build::root().join("include")).arg(source("late_use.c"));
    link(&mut command, &built.static_lib, &program)?;
    Ok(program)
}

fn sanitizer(backend: &str) -> Result<()> {
    tools::need(&["gcc"])?;
    let folder = tempfile::tempdir()?;
    let program = late_use(backend, &["-fsanitize=address"], folder.path())?;
    look(|| Command::new(&program), "use-after-poison")
}

fn valgrind(backend: &str) -> Result<()> {
    let Some(valgrind) = tools::in_path("valgrind") else {
        return Err(LeftOut::because("valgrind is missing; on Debian: apt-get install valgrind"));
    };
    let folder = tempfile::tempdir()?;
    let program = late_use(backend, &[], folder.path())?;
    let run = || {
        let mut command = Command::new(&valgrind);
        command.args(["--quiet", "--error-exitcode=9"]).arg(&program);
        command
    };
    look(run, "Invalid read")
}

/// Nothing is said without a bug; a read after a free and one after a reset are named at their line.
fn look(run: impl Fn() -> Command, words: &str) -> Result<()> {
    let clean = tools::attempt(&mut run())?;
    ensure!(clean.success, "without a bug: {}\n{}", clean.ending, clean.all());
    let line = format!("late_use.c:{}", late_line()?);
    for when in ["late", "reset"] {
        let late = tools::attempt(run().arg(when))?;
        let named = late.stderr.contains(words) && late.stderr.contains(&line);
        ensure!(!late.success && named, "the read {when} is not reported at {line}: {}\n{}", late.ending, late.all());
    }
    Ok(())
}

/// examples-c/11_lua_limits with the Lua of `cargo xtask sources`.
fn lua_host(backend: &str) -> Result<()> {
    tools::need(&["gcc"])?;
    let lua = sources::find()?.lua;
    let built = build::build(backend, true, None)?;
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("lua_limits");
    let mut command = Command::new("gcc");
    command.args(["-std=gnu99", "-O1", "-Wall", "-Wextra", "-DLUA_USE_POSIX", "-pthread"]);
    command.arg("-I").arg(build::root().join("include")).arg("-isystem").arg(&lua);
    command.arg(build::root().join("examples-c/11_lua_limits/lua_limits.c"));
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in lua.read_dir()? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.ends_with(".c") && !["lua.c", "luac.c", "onelua.c", "ltests.c"].contains(&name) {
            files.push(path);
        }
    }
    files.sort();
    command.args(files);
    link(&mut command, &built.static_lib, &program)?;
    for level in ["off", "sites"] {
        let done = tools::attempt(Command::new(&program).env("ALLOKIT_TRACK", level).env("ALLOKIT_LEAKS", "1"))?;
        ensure!(done.success, "ALLOKIT_TRACK={level}: {}\n{}", done.ending, done.all());
        for words in ["greedy: not enough memory", "sly: not enough memory", "the host goes on: 0 went wrong"] {
            ensure!(done.stdout.contains(words), "{words:?} is not said:\n{}", done.all());
        }
    }
    Ok(())
}
