//! The guarded libraries (crates/guard): the programs of tests/guard, one bug each, as C and as C++, for three sizes, under
//! each policy, their reports compared to the letter; and, with the check switched off that is to find the bug, missed.

use crate::build::{self, Options};
use crate::case::Case;
use crate::{test_misuse, tools};
use anyhow::{Context, Result, bail, ensure};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SIZES: [usize; 3] = [8, 4096, 256 << 10];

/// The cases of this module.
pub fn cases() -> Vec<Case> {
    let corpus = |backend| Case::new(format!("guard/corpus/{backend}"), move || corpus(backend));
    let mut cases: Vec<Case> = ["native", "mimalloc", "jemalloc"].into_iter().map(corpus).collect();
    cases.push(Case::new("guard/controls", controls));
    cases.push(Case::new("guard/programs", programs));
    cases.push(Case::new("guard/places", places));
    cases.push(Case::new("guard/json", json));
    cases
}

/// What one program says of itself, for one size.
#[derive(Default)]
struct Wanted {
    lines: Vec<String>,
    /// Lines that come after the first fault: not under abort.
    later: Vec<String>,
    signal: Option<i32>,
    nothing: bool,
    mute: Option<String>,
    /// The handler does not come back.
    leaves: bool,
    environment: Vec<(String, String)>,
}

fn sources(folder: &str, least: usize) -> Result<Vec<PathBuf>> {
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(build::root().join(folder))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "c" || extension == "cc") {
            sources.push(path);
        }
    }
    sources.sort();
    ensure!(sources.len() >= least, "{folder} holds {} programs only", sources.len());
    Ok(sources)
}

fn read(path: &Path, size: usize) -> Result<Wanted> {
    let mut wanted = Wanted::default();
    for line in std::fs::read_to_string(path)?.lines() {
        let Some(directive) = line.strip_prefix("/* ").and_then(|rest| rest.strip_suffix(" */")) else { continue };
        let (head, text) = directive.split_once(": ").unwrap_or((directive, ""));
        let mut words = head.split_whitespace();
        let Some(name) = words.next() else { continue };
        if name == "ENV"
            && let Some((name, value)) = words.next().and_then(|setting| setting.split_once('='))
        {
            wanted.environment.push((name.to_string(), value.to_string()));
            continue;
        }
        if name == "LEAVES" {
            wanted.leaves = true;
            continue;
        }
        if !["EXPECT", "DIES", "NOTHING", "MUTE"].contains(&name) {
            continue;
        }
        let (mut for_this, mut listed, mut later) = (false, false, false);
        for word in words {
            match word.parse::<usize>() {
                Ok(number) => (listed, for_this) = (true, for_this || number == size),
                Err(_) if word == "REPORT" => later = true,
                Err(_) => bail!("{}: {line}", path.display()),
            }
        }
        if listed && !for_this {
            continue;
        }
        let text = text.strip_prefix('|').unwrap_or(text);
        let text = text.replace("@SIZE@", &size.to_string()).replace("@OVER@", &(size + 1).to_string());
        let text = text.replace("@FAR@", &(size + 31).to_string());
        match name {
            "EXPECT" if later => wanted.later.push(text),
            "EXPECT" => wanted.lines.push(text),
            "DIES" => wanted.signal = Some(if text == "SIGSEGV" { 11 } else { bail!("{}: {text}", path.display()) }),
            "MUTE" => wanted.mute = Some(text),
            _ => wanted.nothing = true,
        }
    }
    let told =
        usize::from(!wanted.lines.is_empty()) + usize::from(wanted.signal.is_some()) + usize::from(wanted.nothing);
    ensure!(told == 1, "{} says {told} things of size {size}", path.display());
    Ok(wanted)
}

/// A source compiled in a language for a size.
fn compile(source: &Path, size: usize, cxx: bool, folder: &Path) -> Result<PathBuf> {
    let name = source.file_stem().context("a source has a name")?.to_string_lossy();
    let made = folder.join(format!("{name}-{size}-{}", if cxx { "cxx" } else { "c" }));
    let mut command = Command::new(if cxx { "g++" } else { "gcc" });
    command.args(if cxx { ["-x", "c++", "-std=c++17"] } else { ["-x", "c", "-std=gnu11"] });
    command.args(["-O1", "-w", "-fno-builtin", "-fno-inline", "-fno-optimize-sibling-calls", "-rdynamic"]);
    command.arg(format!("-DSIZE={size}ul")).arg("-o").arg(&made).arg(source);
    tools::output(&mut command)?;
    Ok(made)
}

fn library(backend: &str, mutants: bool) -> Result<PathBuf> {
    build::build_preload(&Options { guard: true, mutants, ..Options::new(backend) })
}

fn run(library: Option<&Path>, binary: &Path, variables: &[(&str, &str)]) -> Result<std::process::Output> {
    let mut command = Command::new(binary);
    command.env_clear().envs(variables.iter().copied()).stdin(Stdio::null());
    command.envs(library.map(|library| ("LD_PRELOAD", library)));
    command.output().with_context(|| format!("cannot run {}", binary.display()))
}

/// Calls `judge` with each program, for each size; C programs as C++ too if `both`.
fn each(sizes: &[usize], both: bool, folder: &Path, mut judge: impl FnMut(&Wanted, &Path) -> Result<()>) -> Result<()> {
    tools::need(&["gcc", "g++"])?;
    let mut failures = Vec::new();
    for source in sources("tests/guard", 24)? {
        let only_cxx = source.extension().is_some_and(|extension| extension == "cc");
        for &size in sizes {
            let wanted = read(&source, size)?;
            for cxx in [false, true] {
                let wanted_so = if cxx { both || only_cxx } else { !only_cxx };
                if !wanted_so {
                    continue;
                }
                let binary = compile(&source, size, cxx, folder)?;
                if let Err(error) = judge(&wanted, &binary) {
                    failures.push(format!("{}: {error:#}", binary.file_name().unwrap_or_default().to_string_lossy()));
                }
            }
        }
    }
    ensure!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

fn corpus(backend: &'static str) -> Result<()> {
    let library = library(backend, false)?;
    let folder = tempfile::tempdir()?;
    // All of it on our own allocator; elsewhere the layer is the same.
    let sizes = if backend == "native" { &SIZES[..] } else { &SIZES[1..2] };
    each(sizes, backend == "native", folder.path(), |wanted, binary| {
        let name = binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // What lies behind the neighbours of a block is known with our own allocator only.
        if backend != "native"
            && (name.contains("_far-") && !name.starts_with("invalid") || name.starts_with("secrets"))
        {
            return Ok(());
        }
        matrix(wanted, binary, Some(&library), backend)
    })
}

/// Runs a program under each policy and compares what comes of it.
fn matrix(wanted: &Wanted, binary: &Path, library: Option<&Path>, backend: &str) -> Result<()> {
    let name = binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for policy in ["abort", "report", "quiet"] {
        let mut variables = vec![("ALLOKIT_POLICY", policy)];
        variables.extend(wanted.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let done = run(library, binary, &variables)?;
        let err = String::from_utf8_lossy(&done.stderr);
        let mut expected = Vec::new();
        if policy != "quiet" {
            expected.extend(wanted.lines.iter().cloned());
        }
        let signal = match policy {
            "abort" if !wanted.lines.is_empty() && !wanted.leaves => {
                expected.push(test_misuse::ABORTING.to_string());
                Some(6)
            }
            "report" => {
                expected.extend(wanted.later.iter().cloned());
                wanted.signal
            }
            _ => wanted.signal,
        };
        let ended = if signal.is_some() { done.status.signal() == signal } else { done.status.success() };
        ensure!(ended, "policy {policy}: it ended with {} instead of {signal:?}\n{err}", done.status);
        test_misuse::compare(&expected, &err, backend, library.map(|_| &name))
            .with_context(|| format!("policy {policy}, it printed\n{err}but expected was\n{}", expected.join("\n")))?;
    }
    Ok(())
}

/// A program linked with the guarded library.
fn link(source: &Path, folder: &Path) -> Result<PathBuf> {
    let built = build::build_with(&Options { guard: true, ..Options::new("native") })?;
    let binary = folder.join(source.file_stem().context("a source has a name")?);
    let mut command = Command::new(tools::find("cc")?);
    command.current_dir(source.parent().context("a source has a folder")?);
    command.args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-use-after-free", "-Wno-array-bounds"]);
    command.args(["-Wno-stringop-overflow", "-fno-builtin", "-fno-inline", "-rdynamic", "-DAK_TRACK", "-I"]);
    command
        .arg(build::root().join("include"))
        .arg("-o")
        .arg(&binary)
        .arg(source.file_name().context("a source has a name")?)
        .arg(&built.static_lib);
    tools::output(command.args(["-lpthread", "-ldl", "-lm"]))?;
    Ok(binary)
}

/// `ALLOKIT_REPORT`: each fault as a line of JSON, which parsers take, with what the text has.
fn json() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let source = build::root().join("tests/guard/json/json.c");
    let binary = link(&source, folder.path())?;
    let text = std::fs::read_to_string(&source)?;
    let wanted: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("/* LINE ")?.strip_suffix(" */")).collect();
    ensure!(wanted.len() == 3, "{} holds {} lines", source.display(), wanted.len());
    let file = folder.path().join("faults.jsonl");
    let to_file = format!("json:{}", file.display());
    for policy in ["abort", "report", "quiet"] {
        let expected: Vec<String> = wanted.iter().map(|line| line.replace("@POLICY@", policy)).collect();
        let expected = &expected[..match policy {
            "abort" => 1,
            "report" => 3,
            _ => 0,
        }];
        for report in ["json", &to_file] {
            let done = run(None, &binary, &[("ALLOKIT_POLICY", policy), ("ALLOKIT_REPORT", report)])?;
            let err = String::from_utf8_lossy(&done.stderr).into_owned();
            ensure!(
                done.status.signal() == (policy == "abort").then_some(6),
                "{policy}, {report}: {}\n{err}",
                done.status
            );
            let lines = if report == "json" {
                err
            } else {
                // The text is there too.
                let told = err.lines().filter(|line| line.starts_with("allokit: ")).count();
                ensure!(told == expected.len() + usize::from(policy == "abort"), "{policy}: {err}");
                if expected.is_empty() { String::new() } else { std::fs::read_to_string(&file)? }
            };
            let mut found = Vec::new();
            for line in lines.lines() {
                let value: serde_json::Value =
                    serde_json::from_str(line).with_context(|| format!("{report}: {line:?}"))?;
                ensure!(value["process"].as_i64() > Some(0) && value["thread"] == value["process"], "{line}");
                let (known, _) = line.split_once(",\"process\":").context("no process")?;
                let block = value["block"].as_str().context("no block")?;
                found.push(known.replace(block, "0xADDR") + ",\"process\":@N@,\"thread\":@N@}");
            }
            ensure!(found == expected, "{policy}, {report}: {found:#?} is not {expected:#?}");
            // The next program adds to the file; here each begins anew.
            if file.exists() {
                std::fs::remove_file(&file)?;
            }
        }
    }
    // Where no file can be made, that is said once, and the text is there.
    let report = format!("json:{}/none/faults", folder.path().display());
    let done = run(None, &binary, &[("ALLOKIT_POLICY", "report"), ("ALLOKIT_REPORT", &report)])?;
    let err = String::from_utf8_lossy(&done.stderr);
    ensure!(err.matches("cannot write").count() == 1 && err.matches("allokit: ").count() == 4, "{err}");
    let done = run(None, &binary, &[("ALLOKIT_POLICY", "quiet"), ("ALLOKIT_REPORT", "xml")])?;
    let err = String::from_utf8_lossy(&done.stderr);
    ensure!(err == "allokit: ALLOKIT_REPORT=xml is not known; valid: text, json, json:path\n", "{err}");
    Ok(())
}

/// Reports in bad places: the programs of tests/guard/places, linked with the guarded library.
fn places() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut failures = Vec::new();
    for source in sources("tests/guard/places", 12)? {
        let binary = link(&source, folder.path())?;
        let judged = read(&source, 0).and_then(|wanted| matrix(&wanted, &binary, None, "native"));
        if let Err(error) = judged {
            failures.push(format!("{}: {error:#}", binary.file_name().unwrap_or_default().to_string_lossy()));
        }
    }
    ensure!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

/// With its check off, each bug is missed.
fn controls() -> Result<()> {
    let library = library("native", true)?;
    let folder = tempfile::tempdir()?;
    let mut muted = 0;
    each(&SIZES, false, folder.path(), |wanted, binary| {
        let Some(mute) = &wanted.mute else { return Ok(()) };
        muted += 1;
        let done = run(Some(&library), binary, &[("ALLOKIT_POLICY", "report"), ("ALLOKIT_MUTE", mute)])?;
        let err = String::from_utf8_lossy(&done.stderr);
        ensure!(!err.contains("allokit:"), "without {mute} it is found all the same:\n{err}");
        ensure!(done.status.signal().is_none(), "without {mute} it ended with {}", done.status);
        let done = run(Some(&library), binary, &[("ALLOKIT_POLICY", "report")])?;
        let seen = String::from_utf8_lossy(&done.stderr).contains("allokit:") || done.status.signal().is_some();
        ensure!(seen, "with all checks on it is missed");
        Ok(())
    })?;
    ensure!(muted > 50, "{muted} controls only");
    Ok(())
}

/// Right programs, which must run as they do on libc, and say nothing.
fn programs() -> Result<()> {
    for backend in ["native", "mimalloc"] {
        let library = library(backend, false)?;
        for (program, arguments) in [
            ("bash", vec!["-c", "for i in $(seq 200); do a[$i]=$i$i; done; echo ${a[@]} | md5sum"]),
            (
                "python3",
                vec![
                    "-c",
                    "import json,re,threading; d=[{str(i):list(range(i%50))} for i in range(5000)]; s=json.dumps(d); assert json.loads(s)==d; ts=[threading.Thread(target=lambda: json.loads(s)) for _ in range(4)]; [t.start() for t in ts]; [t.join() for t in ts]; print(len(s))",
                ],
            ),
            ("perl", vec!["-e", "my %h; $h{$_}=('x' x ($_ % 70000)) for 1..3000; print scalar(keys %h), \"\\n\""]),
            ("sort", vec!["-R", "/usr/share/common-licenses/GPL-3", "-o", "/dev/null"]),
        ] {
            if tools::in_path(program).is_none() {
                continue;
            }
            for variables in [
                vec![],
                vec![("ALLOKIT_CHECK", "1000")],
                vec![("ALLOKIT_QUARANTINE", "8M")],
                vec![("ALLOKIT_QUARANTINE", "0")],
            ] {
                let mut command = Command::new(program);
                command.args(&arguments).env("LD_PRELOAD", &library).envs(variables.clone());
                let done = command.output()?;
                let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
                ensure!(
                    done.status.success() && err.is_empty(),
                    "{program} {variables:?} on {backend}: {}\n{err}{out}",
                    done.status
                );
            }
        }
    }
    Ok(())
}
