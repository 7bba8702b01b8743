//! The misuse programs (tests/misuse): one bug each, and at its end what must come of it. Each runs on every backend,
//! compiled with and without AK_TRACK, under each policy; the messages are compared to the letter.

use crate::build::{self, BACKENDS};
use crate::case::Case;
use crate::tools;
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub const ABORTING: &str = "allokit: aborting (ALLOKIT_POLICY=report goes on)";

/// What the names 0xADDR, 0xADDR2 … stand for in one output.
type Addresses = HashMap<String, String>;

/// What a program's directives say.
struct Program {
    path: PathBuf,
    name: String,
    fault: bool,
    aborts: bool,
    env: Vec<(String, String)>,
    notrack: bool,
    /// The only backend it is for, and the one it is not for.
    only: Option<String>,
    except: Option<String>,
    lines: Vec<Line>,
    /// What its own handler writes, under each policy.
    handler: Vec<String>,
}

/// A line of a report.
struct Line {
    /// It is there only in a program that is compiled with AK_TRACK.
    with_sites: bool,
    text: String,
}

/// The cases of this module: one for each backend.
pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> =
        BACKENDS.into_iter().map(|backend| Case::new(format!("misuse/{backend}"), move || all(backend))).collect();
    cases.push(Case::new("mutants/misuse", mutants));
    cases
}

fn programs() -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for entry in std::fs::read_dir(build::root().join("tests/misuse"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "c") {
            programs.push(read(path)?);
        }
    }
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(programs.len() > 20, "tests/misuse holds {} programs only", programs.len());
    Ok(programs)
}

fn read(path: PathBuf) -> Result<Program> {
    let text = std::fs::read_to_string(&path)?;
    let name = path.file_stem().context("a program has a name")?.to_string_lossy().into_owned();
    let mut program = Program {
        path,
        name,
        fault: false,
        aborts: false,
        env: Vec::new(),
        notrack: false,
        only: None,
        except: None,
        lines: Vec::new(),
        handler: Vec::new(),
    };
    let mut told = false;
    for line in text.lines() {
        let Some(directive) = line.strip_prefix("/* ").and_then(|rest| rest.strip_suffix(" */")) else { continue };
        if directive == "FAULT" {
            (program.fault, told) = (true, true);
        } else if let Some(status) = directive.strip_prefix("STATUS: ") {
            told = true;
            program.aborts = match status {
                "0" => false,
                "SIGABRT" => true,
                _ => bail!("{}: STATUS {status} is not known", program.name),
            };
        } else if let Some(env) = directive.strip_prefix("ENV: ") {
            for word in env.split_whitespace() {
                let (name, value) = word.split_once('=').with_context(|| format!("{}: ENV {word}", program.name))?;
                program.env.push((name.to_string(), value.to_string()));
            }
        } else if directive == "BUILD: notrack" {
            program.notrack = true;
        } else if let Some(backend) = directive.strip_prefix("ONLY: ") {
            program.only = Some(backend.to_string());
        } else if let Some(backend) = directive.strip_prefix("EXCEPT: ") {
            program.except = Some(backend.to_string());
        } else if let Some(line) = directive.strip_prefix("EXPECT-HANDLER: ") {
            program.handler.push(line.to_string());
        } else if let Some((with_sites, line)) = [("EXPECT-ERR: ", false), ("EXPECT-SITES: ", true)]
            .into_iter()
            .find_map(|(prefix, with_sites)| Some((with_sites, directive.strip_prefix(prefix)?)))
        {
            let text = line.strip_prefix('|').unwrap_or(line).to_string();
            program.lines.push(Line { with_sites, text });
        }
    }
    ensure!(told, "{}: neither FAULT nor STATUS", program.name);
    Ok(program)
}

fn all(backend: &'static str) -> Result<()> {
    tools::need(&["gcc"])?;
    let tracked = build::build(backend, true, None)?;
    let plain = build::build(backend, false, None)?;
    let folder = tempfile::tempdir()?;
    let mut failures = Vec::new();
    let mut programs = programs()?;
    programs.retain(|program| {
        program.only.as_ref().is_none_or(|only| only == backend) && program.except.as_deref() != Some(backend)
    });
    for program in &programs {
        let library = if program.notrack { &plain.static_lib } else { &tracked.static_lib };
        for sites in [true, false] {
            if let Err(error) = one(program, backend, library, sites, folder.path(), "") {
                failures.push(format!("{} ({}): {error:#}", program.name, if sites { "AK_TRACK" } else { "plain" }));
            }
        }
    }
    ensure!(failures.is_empty(), "{} of {}:\n{}", failures.len(), programs.len() * 2, failures.join("\n"));
    Ok(())
}

/// `bug`: what the reference does wrong, where that is the library.
fn one(program: &Program, backend: &str, library: &Path, sites: bool, folder: &Path, bug: &str) -> Result<()> {
    let binary = folder.join(format!("{}{}", program.name, if sites { "-sites" } else { "" }));
    let source = program.path.file_name().context("a program has a name")?;
    let mut command = Command::new("gcc");
    // Frame pointers off, -O1: as users compile. The source is named without its folder, as the messages have it.
    command.current_dir(program.path.parent().context("a program lies in a folder")?);
    command.args(["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-rdynamic"]);
    command.arg("-fno-inline").arg("-fno-optimize-sibling-calls").arg("-I").arg(build::root().join("include"));
    if sites {
        command.arg("-DAK_TRACK");
    }
    command.arg("-o").arg(&binary).arg(source).arg(library).args(["-ldl", "-lm"]);
    tools::output(&mut command)?;
    let policies: &[&str] = if program.fault { &["abort", "report", "quiet"] } else { &[""] };
    for policy in policies {
        let mut command = Command::new(&binary);
        command.env_clear().env("ALLOKIT_TRACK", "sites").env("REFERENCE_BUG", bug).stdin(Stdio::null());
        if !policy.is_empty() {
            command.env("ALLOKIT_POLICY", policy);
        }
        for (name, value) in &program.env {
            command.env(name, value.replace("@BACKEND@", backend));
        }
        let done = command.output().with_context(|| format!("cannot run {}", binary.display()))?;
        let aborts = if program.fault { *policy == "abort" } else { program.aborts };
        let as_it_should = if aborts { done.status.signal() == Some(6) } else { done.status.success() };
        let err = String::from_utf8_lossy(&done.stderr);
        ensure!(as_it_should, "policy {policy:?}: it ended with {}\n{err}", done.status);
        let mut expected: Vec<String> = if *policy == "quiet" {
            Vec::new()
        } else {
            let lines = program.lines.iter().filter(|line| sites || !line.with_sites);
            lines.map(|line| line.text.clone()).collect()
        };
        expected.extend(program.handler.iter().cloned());
        if program.fault && *policy == "abort" {
            expected.push(ABORTING.to_string());
        }
        let binary_name = binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
        compare(&expected, &err, backend, (!sites).then_some(&binary_name)).with_context(|| {
            format!("policy {policy:?}, it printed\n{err}but expected was\n{}", expected.join("\n"))
        })?;
    }
    Ok(())
}

/// A bug of the reference (tests/reference), and a program that must be found wrong with it and right without.
const MUTANTS: [(&str, &str); 13] = [
    ("wrong_frees_unseen", "double_free"),
    ("wrong_frees_unseen", "free_stack"),
    ("wrong_frees_unseen", "realloc_interior"),
    ("never_aborts", "double_free"),
    ("never_aborts", "unbalanced_abort"),
    ("size_unchecked", "free_sized_wrong"),
    ("freed_site_lost", "double_free"),
    ("same_site_for_all", "double_free"),
    ("unknown_value_unsaid", "environment_track_unknown"),
    ("nothing_at_exit", "leak_at_exit"),
    ("leaks_smallest_first", "leak"),
    ("mark_ignored", "balanced"),
    ("track_set_too_late", "track_set_running"),
];

/// The judge is judged.
fn mutants() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let object = folder.path().join("reference.o");
    let mut command = Command::new("gcc");
    command.args(["-std=gnu11", "-O1", "-pthread", "-c", "-o"]).arg(&object);
    command.arg(format!("-DREFERENCE_VERSION=\"{}\"", build::VERSION)).arg("-I").arg(build::root().join("include"));
    command.arg(build::root().join("tests/reference/reference.c"));
    tools::output(&mut command)?;
    let programs = programs()?;
    for (bug, name) in MUTANTS {
        let program = programs.iter().find(|program| program.name == name).with_context(|| format!("no {name}.c"))?;
        one(program, "native", &object, true, folder.path(), "").with_context(|| format!("{name} without a bug"))?;
        let judged = one(program, "native", &object, true, folder.path(), bug);
        ensure!(judged.is_err(), "{name} is not found wrong with {bug}");
    }
    Ok(())
}

/// Compares the lines. `binary`: the program was compiled without AK_TRACK, so places are return addresses in it.
pub fn compare(expected: &[String], err: &str, backend: &str, binary: Option<&String>) -> Result<()> {
    let lines: Vec<&str> = err.lines().collect();
    ensure!(lines.len() == expected.len(), "{} lines instead of {}", lines.len(), expected.len());
    let mut addresses = Addresses::default();
    for (line, wanted) in lines.iter().zip(expected) {
        let wanted = wanted.replace("@BACKEND@", backend);
        ensure!(matches(line, &wanted, &mut addresses, binary), "{line:?} is not {wanted:?}");
    }
    Ok(())
}

fn matches(mut line: &str, mut wanted: &str, addresses: &mut Addresses, binary: Option<&String>) -> bool {
    loop {
        // The next thing in `wanted` that is not to be taken to the letter.
        let address = wanted.find("0xADDR");
        let place = binary.and_then(|_| find_place(wanted));
        let (at, end) = match (address, place) {
            (None, None) => return line == wanted,
            (Some(address), place) if place.is_none_or(|(start, _)| address < start) => {
                let end = address + "0xADDR".len();
                (address, if wanted[end..].starts_with(|c: char| c.is_ascii_digit()) { end + 1 } else { end })
            }
            (_, Some(place)) => place,
            (Some(_), None) => unreachable!("the guard above takes it"),
        };
        let Some(rest) = line.strip_prefix(&wanted[..at]) else { return false };
        let what = &wanted[at..end];
        if what.starts_with("0xADDR") {
            let digits = rest.strip_prefix("0x").unwrap_or("");
            let length =
                digits.find(|c: char| !c.is_ascii_hexdigit() || c.is_ascii_uppercase()).unwrap_or(digits.len());
            if length == 0 {
                return false;
            }
            let found = &rest[..length + 2];
            if addresses.entry(what.to_string()).or_insert_with(|| found.to_string()) != found {
                return false;
            }
            line = &rest[length + 2..];
        } else {
            // `file.c:12 (main)` stands for `program(main+0x1f)`.
            let function = &what[what.find('(').map_or(0, |open| open + 1)..what.len() - 1];
            let start = format!("{}({function}+0x", binary.map_or("", String::as_str));
            let Some(after) = rest.strip_prefix(start.as_str()) else { return false };
            let Some(close) = after.find(')') else { return false };
            if close == 0 || !after[..close].chars().all(|c| c.is_ascii_hexdigit()) {
                return false;
            }
            line = &after[close + 1..];
        }
        wanted = &wanted[end..];
    }
}

/// The first `name.c:12 (function)` in a line: where it starts and ends.
fn find_place(wanted: &str) -> Option<(usize, usize)> {
    let colon = wanted.find(".c:").or_else(|| wanted.find(".cc:"))?;
    let start = wanted[..colon].rfind(' ').map_or(0, |space| space + 1);
    let end = colon + wanted[colon..].find(')')? + 1;
    Some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_match_to_the_letter() {
        let ok = |line, wanted, binary: Option<&String>| matches(line, wanted, &mut Addresses::default(), binary);
        let program = "double_free".to_string();
        assert!(ok("free of 0x12ab, x", "free of 0xADDR, x", None));
        assert!(!ok("free of 0x12AB, x", "free of 0xADDR, x", None));
        assert!(!ok("free of 12, x", "free of 0xADDR, x", None));
        assert!(!ok("0x1 and 0x2", "0xADDR and 0xADDR", None));
        assert!(ok("0x1 and 0x2", "0xADDR and 0xADDR2", None));
        assert!(ok("  at double_free(main+0x1f)", "  at double_free.c:5 (main)", Some(&program)));
        assert!(!ok("  at double_free(make+0x1f)", "  at double_free.c:5 (main)", Some(&program)));
        assert!(ok("  at double_free.c:5 (main)", "  at double_free.c:5 (main)", None));
        assert!(!ok("  at double_free.c:6 (main)", "  at double_free.c:5 (main)", None));
    }
}
