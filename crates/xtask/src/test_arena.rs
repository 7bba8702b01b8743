//! The suite for arenas, scratch, regions, pools and stacks (tests/arena) with the runner of the conformance suite: each
//! backend, static and shared, C and C++, plain, tracked and guarded; and a late read under AddressSanitizer and valgrind.

use crate::build::{self, BACKENDS};
use crate::case::{Case, LeftOut};
use crate::tools;
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The cases of this module.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backend in BACKENDS {
        cases.push(Case::new(format!("arena/{backend}/static"), move || suite(backend, false)));
        cases.push(Case::new(format!("arena/{backend}/shared"), move || suite(backend, true)));
    }
    for backend in ["native", "system"] {
        cases.push(Case::new(format!("arena/{backend}/address-sanitizer"), move || sanitizer(backend)));
        cases.push(Case::new(format!("arena/{backend}/valgrind"), move || valgrind(backend)));
    }
    cases.push(Case::new("arena/no-system", no_system));
    cases.push(Case::new("arena/bare-metal", bare_metal));
    cases
}

fn source(name: &str) -> PathBuf {
    build::root().join("tests/arena").join(name)
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
    command
        .arg(build::root().join("tests/conformance/main.c"))
        .args(["arenas.c", "places.c", "bad_input.c"].map(source));
    if shared {
        command.args(["-x", "none"]);
    }
    link(&mut command, library, &program)?;
    // What is no fault is the same under each policy.
    for (level, guard, policy) in [("off", "0", "abort"), ("sites", "0", "report"), ("off", "1", "quiet")] {
        let mut command = Command::new(&program);
        command
            .env("CHECK_BACKEND", backend)
            .env("ALLOKIT_TRACK", level)
            .env("ALLOKIT_GUARD", guard)
            .env("ALLOKIT_POLICY", policy);
        let done = tools::attempt(&mut command)?;
        if !done.success {
            let kept: Vec<&str> = done.stdout.lines().filter(|line| !line.starts_with("ok")).collect();
            bail!(
                "ALLOKIT_TRACK={level} ALLOKIT_GUARD={guard} ALLOKIT_POLICY={policy}: {}\n{}\n{}",
                done.ending,
                kept.join("\n"),
                done.stderr
            );
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

/// The line of late_read.c that a tool must name.
fn late_line() -> Result<usize> {
    let text = std::fs::read_to_string(source("late_read.c"))?;
    let at = text.lines().position(|line| line.contains("/* LATE */")).context("late_read.c lost its mark")?;
    Ok(at + 1)
}

fn late_read(backend: &str, flags: &[&str], folder: &Path) -> Result<PathBuf> {
    let built = build::build(backend, true, None)?;
    let program = folder.join("late_read");
    let mut command = Command::new("gcc");
    command.args(["-std=c99", "-g", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror"]).args(flags);
    command.arg("-I").arg(build::root().join("include")).arg(source("late_read.c"));
    link(&mut command, &built.static_lib, &program)?;
    Ok(program)
}

fn sanitizer(backend: &str) -> Result<()> {
    tools::need(&["gcc"])?;
    let folder = tempfile::tempdir()?;
    let program = late_read(backend, &["-fsanitize=address"], folder.path())?;
    let clean = tools::attempt(&mut Command::new(&program))?;
    ensure!(clean.success, "without a bug: {}\n{}", clean.ending, clean.all());
    let late = tools::attempt(Command::new(&program).arg("late"))?;
    let line = format!("late_read.c:{}", late_line()?);
    let named = late.stderr.contains("use-after-poison") && late.stderr.contains(&line);
    ensure!(!late.success && named, "the late read is not reported at {line}: {}\n{}", late.ending, late.all());
    Ok(())
}

fn valgrind(backend: &str) -> Result<()> {
    let Some(valgrind) = tools::in_path("valgrind") else {
        return Err(LeftOut::because("valgrind is missing; on Debian: apt-get install valgrind"));
    };
    let folder = tempfile::tempdir()?;
    let program = late_read(backend, &[], folder.path())?;
    let run = |late: bool| {
        let mut command = Command::new(&valgrind);
        command.args(["--quiet", "--error-exitcode=9"]).arg(&program).args(late.then_some("late"));
        tools::attempt(&mut command)
    };
    let clean = run(false)?;
    ensure!(clean.success, "without a bug: {}\n{}", clean.ending, clean.all());
    let late = run(true)?;
    let line = format!("late_read.c:{}", late_line()?);
    let named = late.stderr.contains("Invalid read") && late.stderr.contains(&line);
    ensure!(!late.success && named, "the late read is not reported at {line}: {}\n{}", late.ending, late.all());
    Ok(())
}

/// The Rust crate for a machine without an operating system.
fn no_system() -> Result<()> {
    let target = "x86_64-unknown-none";
    if !tools::attempt(Command::new("rustup").args(["target", "add", target])).is_ok_and(|done| done.success) {
        return Err(LeftOut::because(format!(
            "Rust's libraries for {target} cannot be had (rustup target add {target})"
        )));
    }
    let mut command = Command::new("cargo");
    command.current_dir(build::root()).args(["check", "--quiet", "--target", target, "-p", "allokit-arena"]);
    command.args(["--features", "allocator-api2"]);
    command.env_remove("CARGO_MANIFEST_DIR").env_remove("RUSTUP_TOOLCHAIN");
    tools::output(&mut command).map(drop)
}

/// examples-rust/bare_metal on a machine that is not there.
fn bare_metal() -> Result<()> {
    let target = "aarch64-unknown-none-softfloat";
    if !tools::attempt(Command::new("rustup").args(["target", "add", target])).is_ok_and(|done| done.success) {
        return Err(LeftOut::because(format!(
            "Rust's libraries for {target} cannot be had (rustup target add {target})"
        )));
    }
    if let Err(error) = tools::need(&["qemu-system-aarch64"]) {
        return Err(LeftOut::because(format!("{error:#}")));
    }
    let output = build::target_dir().join("bare-metal");
    let mut command = Command::new("cargo");
    command.current_dir(build::root().join("examples-rust/bare_metal")).env("CARGO_TARGET_DIR", &output);
    command.args(["build", "--quiet", "--locked", "--target", target]);
    command.env_remove("CARGO_MANIFEST_DIR").env_remove("RUSTUP_TOOLCHAIN");
    tools::output(&mut command)?;
    let mut board = Command::new(tools::find("qemu-system-aarch64")?);
    board.args(["-M", "virt", "-cpu", "cortex-a53", "-display", "none", "-nic", "none", "-semihosting", "-kernel"]);
    let done = tools::attempt(board.arg(output.join(target).join("debug/bare-metal")))?;
    ensure!(done.success && done.all().contains("refused, all right"), "{}\n{}", done.ending, done.all());
    Ok(())
}
