//! `cargo xtask bench --arenas`: arenas, regions, pools and stacks beside bumpalo, the pools of APR and talloc. One program
//! (tests/bench/arena_kinds.c) compiled for each library, and one in Rust (tests/bench/bumpalo), run in turns. Owns how they are
//! built; what the report says is crate allokit-bench's.

use crate::bench::Args;
use crate::{build, tools};
use allokit_bench::arenas::{Arenas, Kind, Reached, SUBJECT};
use allokit_bench::machine::Machine;
use allokit_bench::result::Missing;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Measures, or reads what was measured, and writes the report in its forms.
pub fn run(args: &Args) -> Result<()> {
    let folder = build::target_dir().join("bench/arenas");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let report = match &args.from {
        Some(file) => {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            serde_json::from_str(&text)
                .with_context(|| format!("{} is no report of cargo xtask bench --arenas", file.display()))?
        }
        None => measure(args.rounds.unwrap_or(7), &folder)?,
    };
    print!("{}", report.text());
    let place = |asked: &Option<PathBuf>, name| asked.clone().unwrap_or_else(|| folder.join(name));
    let json = serde_json::to_string_pretty(&report)? + "\n";
    let mut files = vec![(place(&args.json, "arenas.json"), json), (place(&args.html, "arenas.html"), report.page())];
    if let Some(file) = &args.markdown {
        files.push((file.clone(), report.markdown()));
    }
    for (file, text) in files {
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}

/// Builds the programs and runs each so many times, in turns.
pub fn measure(rounds: u32, folder: &Path) -> Result<Arenas> {
    let start = Instant::now();
    let machine = Machine::here(&build::root());
    tools::need(&["gcc"])?;
    let mut programs = Vec::new();
    let mut missing = Vec::new();
    for (name, make) in [
        (SUBJECT, allokit as fn(&Path) -> Result<(Kind, PathBuf)>),
        ("allokit, called", called),
        ("naive bump", naive),
        ("bumpalo", bumpalo),
        ("APR pools", apr),
        ("talloc pool", talloc),
    ] {
        match make(folder) {
            Ok((kind, program)) => programs.push((Kind { name: name.to_string(), ..kind }, program)),
            Err(error) => missing.push(Missing { name: name.to_string(), why: format!("{error:#}") }),
        }
    }
    ensure!(programs.iter().any(|(kind, _)| kind.name == SUBJECT), "the library itself: {}", missing[0].why);
    let mut arenas: Vec<Reached> = Vec::new();
    for round in 0..rounds as usize {
        eprintln!("bench: round {} of {rounds}", round + 1);
        // Who is first changes, so that a change in the machine's speed falls on all alike.
        for step in 0..programs.len() {
            let (kind, program) = &programs[(round + step) % programs.len()];
            for line in tools::output(&mut Command::new(program))?.lines() {
                let (figure, value) = line
                    .strip_prefix("result ")
                    .and_then(|rest| rest.split_once(' '))
                    .with_context(|| format!("{} printed {line:?}", kind.name))?;
                let value: f64 = value.parse().with_context(|| format!("{} printed {line:?}", kind.name))?;
                match arenas.iter_mut().find(|one| one.kind == kind.name && one.figure == figure) {
                    Some(found) => found.rounds.push(value),
                    None => arenas.push(Reached {
                        kind: kind.name.clone(),
                        figure: figure.to_string(),
                        rounds: vec![value],
                    }),
                }
            }
        }
    }
    let (seconds, kinds) = (start.elapsed().as_secs_f64(), programs.into_iter().map(|(kind, _)| kind).collect());
    Ok(Arenas { machine, rounds, seconds, kinds, missing, arenas })
}

fn kind(version: &str, origin: &str) -> Kind {
    Kind { name: String::new(), version: version.trim().to_string(), origin: origin.to_string() }
}

/// Compiles the program for one library.
fn compile(name: &str, folder: &Path, more: &[&str], after: &[&str]) -> Result<PathBuf> {
    let program = folder.join(name);
    let mut command = Command::new("gcc");
    command.args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]).args(more);
    command.arg(build::root().join("tests/bench/arena_kinds.c")).args(after).arg("-o").arg(&program);
    tools::output(&mut command)?;
    Ok(program)
}

fn ours(name: &str, folder: &Path, more: &[&str]) -> Result<PathBuf> {
    let library = build::build("native", true, None)?.static_lib.display().to_string();
    let include = build::root().join("include").display().to_string();
    let flags = [&["-DKIND_ALLOKIT", "-I", include.as_str()], more].concat();
    compile(name, folder, &flags, &[library.as_str(), "-lpthread", "-ldl", "-lm"])
}

fn allokit(folder: &Path) -> Result<(Kind, PathBuf)> {
    Ok((kind(build::VERSION, "native, static, in the caller"), ours("allokit", folder, &[])?))
}

fn called(folder: &Path) -> Result<(Kind, PathBuf)> {
    Ok((kind(build::VERSION, "AK_NO_INLINE"), ours("allokit-called", folder, &["-DAK_NO_INLINE"])?))
}

fn naive(folder: &Path) -> Result<(Kind, PathBuf)> {
    Ok((kind("", "one buffer, in the caller: the least that an arena can do"), compile("naive", folder, &[], &[])?))
}

fn bumpalo(folder: &Path) -> Result<(Kind, PathBuf)> {
    let source = build::root().join("tests/bench/bumpalo");
    let target = folder.join("bumpalo");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--quiet", "--release", "--locked", "--manifest-path"]).arg(source.join("Cargo.toml"));
    command.arg("--target-dir").arg(&target).env_remove("CARGO_MANIFEST_DIR");
    tools::output(&mut command)?;
    let text = fs::read_to_string(source.join("Cargo.toml"))?;
    let version = text.lines().find_map(|line| line.strip_prefix("bumpalo = \"=")?.strip_suffix('"'));
    Ok((
        kind(version.context("bumpalo's version")?, "Rust, release, LTO"),
        target.join("release/allokit-bench-bumpalo"),
    ))
}

/// The version of the distribution's package.
fn packaged(name: &str) -> String {
    let asked = tools::attempt(Command::new("dpkg-query").args(["-W", "-f", "${Version}", name]));
    asked.ok().filter(|done| done.success).map_or_else(|| "unknown".to_string(), |done| done.stdout)
}

fn apr(folder: &Path) -> Result<(Kind, PathBuf)> {
    tools::need(&["libapr"])?;
    let header = tools::find("libapr")?;
    let include = header.parent().context("a header lies in a folder")?.display().to_string();
    let program = compile("apr", folder, &["-DKIND_APR", "-I", &include], &["-lapr-1"])?;
    Ok((kind(&packaged("libapr1-dev"), "of the distribution"), program))
}

fn talloc(folder: &Path) -> Result<(Kind, PathBuf)> {
    tools::need(&["libtalloc"])?;
    let program = compile("talloc", folder, &["-DKIND_TALLOC"], &["-ltalloc"])?;
    Ok((kind(&packaged("libtalloc-dev"), "of the distribution"), program))
}
