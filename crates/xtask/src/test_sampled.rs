//! Sampled guarding (crates/native/src/sampled.rs): tests/sampled/bugs.c makes one mistake with a guarded block, under each
//! policy, over the preload library and over the shared C library; the reports are compared to the letter but for addresses.

use crate::build::{self, Options};
use crate::case::Case;
use crate::tools;
use anyhow::{Context, Result, ensure};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The cases of this module.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("sampled/preload", preload),
        Case::new("sampled/shared", shared),
        Case::new("sampled/settings", settings),
        Case::new("sampled/bounds", bounds),
    ]
}

/// A mistake: the report's first line, which stacks follow, and how the program ends under abort: by which signal.
struct Bug {
    name: &'static str,
    line: &'static str,
    freed: bool,
    now: &'static str,
    signal: i32,
}

const SEGV: i32 = libc::SIGSEGV;
const ABRT: i32 = libc::SIGABRT;

const BUGS: [Bug; 9] = [
    bug("overflow", "overflow of ADDR, a block of 96 bytes: written 4 bytes past its end", false, "change", SEGV),
    bug("overread", "overflow of ADDR, a block of 96 bytes: read 1 byte past its end", false, "look", SEGV),
    bug("underflow", "underflow of ADDR, a block of 96 bytes: written 1 byte before its start", false, "change", SEGV),
    bug("near", "overflow of ADDR, a block of 96 bytes: written 1 byte past its end", false, "release", ABRT),
    bug("read", "read after free of ADDR, a block of 96 bytes: at offset 5", true, "look", SEGV),
    bug("write", "write after free to ADDR, a block of 96 bytes: at offset 95", true, "change", SEGV),
    bug("double", "double free of ADDR, a block of 96 bytes", true, "release", ABRT),
    bug("inside", "free of ADDR, which is 32 bytes into a block of 96 bytes at ADDR", false, "release", ABRT),
    bug("resize", "realloc of ADDR, a block of 96 bytes that is already freed", true, "main", ABRT),
];

const fn bug(name: &'static str, line: &'static str, freed: bool, now: &'static str, signal: i32) -> Bug {
    Bug { name, line, freed, now, signal }
}

const PASSED_ON: &str = "allokit: the signal goes on to the program (ALLOKIT_POLICY=report goes on without it)";
const ABORTING: &str = "allokit: aborting (ALLOKIT_POLICY=report goes on)";

/// The program; `library`: linked with that, or nothing but libc.
fn compile(folder: &Path, library: Option<&Path>) -> Result<PathBuf> {
    tools::need(&["gcc"])?;
    let program = folder.join("bugs");
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-rdynamic"]);
    gcc.args(["-fno-optimize-sibling-calls", "-o"]).arg(&program).arg(build::root().join("tests/sampled/bugs.c"));
    if let Some(library) = library {
        let folder = library.parent().context("a library lies in a folder")?;
        gcc.arg("-DAK").arg("-I").arg(build::root().join("include")).arg(library);
        gcc.arg(format!("-Wl,-rpath,{}", folder.display()));
    }
    tools::output(&mut gcc)?;
    Ok(program)
}

/// The same program over one library or the other.
struct Runner {
    program: PathBuf,
    preload: Option<PathBuf>,
    _folder: tempfile::TempDir,
}

impl Runner {
    fn preloaded() -> Result<Runner> {
        let library = build::build_preload(&Options::new("native"))?;
        let folder = tempfile::tempdir()?;
        Ok(Runner { program: compile(folder.path(), None)?, preload: Some(library), _folder: folder })
    }

    fn linked() -> Result<Runner> {
        let built = build::build("native", true, None)?;
        let folder = tempfile::tempdir()?;
        Ok(Runner { program: compile(folder.path(), Some(&built.shared_lib))?, preload: None, _folder: folder })
    }

    fn run(&self, bug: &str, env: &[(&str, &str)]) -> Result<Output> {
        let mut command = Command::new(&self.program);
        command.arg(bug).envs(env.iter().copied());
        if let Some(library) = &self.preload {
            command.env("LD_PRELOAD", library);
        }
        Ok(command.output()?)
    }

    /// What it wrote to stderr, with names for addresses and distances.
    fn text(output: &Output) -> String {
        let mut text = String::new();
        for word in String::from_utf8_lossy(&output.stderr).split_inclusive([' ', ',', ')', '\n', ':']) {
            let end = word.find([',', ')', '\n', ' ', ':']).unwrap_or(word.len());
            if let Some(at) = word.find("+0x") {
                text.push_str(&word[..at]);
            } else if word.starts_with("0x") {
                text.push_str("ADDR");
            } else {
                text.push_str(word);
                continue;
            }
            text.push_str(&word[end..]);
        }
        text
    }
}

/// The first frames of a stack, and that it does not end there.
fn expect_stack<'a>(lines: &mut impl Iterator<Item = &'a str>, label: &str, wanted: &[&str]) -> Result<()> {
    for (place, name) in wanted.iter().enumerate() {
        let label = if place == 0 { label } else { "          by  " };
        let line = lines.next().context("the report ends early")?;
        ensure!(line == format!("{label} bugs({name})"), "{line:?} is not {label} bugs({name})");
    }
    Ok(())
}

fn each_bug(runner: &Runner) -> Result<()> {
    for bug in &BUGS {
        for policy in ["abort", "report", "quiet"] {
            let output = runner.run(bug.name, &[("ALLOKIT_GUARD_SAMPLE", "2"), ("ALLOKIT_POLICY", policy)])?;
            let text = Runner::text(&output);
            check(bug, policy, &output, &text).with_context(|| format!("{} under {policy}: {text}", bug.name))?;
        }
    }
    Ok(())
}

fn check(bug: &Bug, policy: &str, output: &Output, text: &str) -> Result<()> {
    let aborts = policy == "abort";
    let wanted = aborts.then_some(bug.signal);
    ensure!(output.status.signal() == wanted, "it ended with {}", output.status);
    let goes_on = |line: Option<&str>| {
        ensure!(aborts || line == Some("went on"), "after the report: {line:?}");
        Ok(())
    };
    let mut lines = text.lines();
    if policy == "quiet" {
        return goes_on(lines.next());
    }
    ensure!(lines.next() == Some(&format!("allokit: {}", bug.line)), "the first line is another");
    // The stacks go on to libc's start and the program's.
    let mut lines = lines.filter(|line| !line.contains("libc.so") && !line.contains("(_start)")).peekable();
    expect_stack(&mut lines, "  allocated at", &["make", "guarded", "main"])?;
    if bug.freed {
        expect_stack(&mut lines, "  freed at    ", &["release", "main"])?;
    }
    let now = if bug.now == "main" { &["main"][..] } else { &[bug.now, "main"][..] };
    expect_stack(&mut lines, "  now at      ", now)?;
    if aborts {
        let last = if bug.signal == SEGV { PASSED_ON } else { ABORTING };
        ensure!(lines.next() == Some(last), "the last line is another");
    } else {
        goes_on(lines.next())?;
    }
    ensure!(lines.next().is_none(), "there is more than one report");
    Ok(())
}

fn preload() -> Result<()> {
    each_bug(&Runner::preloaded()?)
}

fn shared() -> Result<()> {
    let runner = Runner::linked()?;
    each_bug(&runner)?;
    // Tags and guarded blocks at the same time.
    let output = runner.run("read", &[("ALLOKIT_GUARD_SAMPLE", "2"), ("ALLOKIT_TRACK", "sites")])?;
    let text = Runner::text(&output);
    ensure!(output.status.signal() == Some(SEGV) && text.contains("read after free"), "with tracking: {text}");
    let output =
        runner.run("none", &[("ALLOKIT_GUARD_SAMPLE", "2"), ("ALLOKIT_TRACK", "sites"), ("ALLOKIT_LEAKS", "1")])?;
    let text = Runner::text(&output);
    ensure!(output.status.success() && text.contains("no live blocks"), "leaks with guarded blocks: {text}");
    // A handler that was there first is told after the report; one that comes later is told alone.
    for (bug, reports) in [("before", true), ("own", false)] {
        let output = runner.run(bug, &[("ALLOKIT_GUARD_SAMPLE", if reports { "0" } else { "2" })])?;
        let text = Runner::text(&output);
        ensure!(output.status.code() == Some(41), "{bug}: {} {text}", output.status);
        ensure!(text.contains("allokit: overflow of") == reports, "{bug}: {text}");
        ensure!(text.ends_with("the program's own handler\n"), "{bug}: {text}");
    }
    Ok(())
}

fn settings() -> Result<()> {
    let runner = Runner::preloaded()?;
    // A guarded block is one in a forked child too.
    let output = runner.run("child", &[("ALLOKIT_GUARD_SAMPLE", "2")])?;
    let text = Runner::text(&output);
    ensure!(output.status.success() && text.contains("the child: signal"), "{text}");
    ensure!(text.matches("allokit: overflow of").count() == 1, "{text}");
    // What is no block of ours is none of ours to report.
    let output = runner.run("elsewhere", &[("ALLOKIT_GUARD_SAMPLE", "2")])?;
    ensure!(output.status.signal() == Some(SEGV) && output.stderr.is_empty(), "{}", Runner::text(&output));
    let unknown = |value| {
        format!(
            "allokit: ALLOKIT_GUARD_SAMPLE={value} is not known; valid: off, on, or N for one in N blocks\nwent on\n"
        )
    };
    for (value, said) in [
        ("off", "went on\n".to_string()),
        ("0", "went on\n".into()),
        ("on", "went on\n".into()),
        ("1k", "went on\n".into()),
        ("-3", unknown("-3")),
        ("often", unknown("often")),
    ] {
        let output = runner.run("none", &[("ALLOKIT_GUARD_SAMPLE", value)])?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success() && text == said, "{value}: {text:?}");
    }
    let other = build::build_preload(&Options::new("mimalloc"))?;
    let other = Runner { preload: Some(other), ..runner };
    let output = other.run("none", &[("ALLOKIT_GUARD_SAMPLE", "on")])?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = "allokit: ALLOKIT_GUARD_SAMPLE is ignored: only the native backend guards samples\nwent on\n";
    ensure!(text == said, "{text:?}");
    Ok(())
}

/// At the usual rate: some, but no more than 125 a second, and no more than 1 MiB.
fn bounds() -> Result<()> {
    let runner = Runner::linked()?;
    let figures = |rate: &str| -> Result<(u64, u64)> {
        let output = runner.run("load", &[("ALLOKIT_GUARD_SAMPLE", rate)])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = |label: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix(label))?.split_whitespace().next()?.parse().ok()
        };
        ensure!(output.status.success(), "{}", Runner::text(&output));
        Ok((number("VmRSS:").context("no VmRSS")?, number("seen:").context("no count")?))
    };
    let (plain, none) = figures("off")?;
    let (guarded, seen) = figures("on")?;
    ensure!(none == 0, "{none} blocks are guarded although nobody asked");
    // On a machine that is busy with other things there may be few.
    ensure!((3..=135).contains(&seen), "{seen} blocks are guarded in a second");
    ensure!(guarded <= plain + 1024, "{plain} KiB without and {guarded} with guarded blocks");
    Ok(())
}
