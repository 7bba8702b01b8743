//! What a sweep has found: for people, for programs, for CI.

use super::{Finding, Sweep, Verdict, told};
use crate::data::Frame;
use crate::show;
use anyhow::{Result, bail, ensure};
use serde_json::json;
use std::fmt::Write;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Text,
    Json,
    Junit,
    Github,
}

/// A report that is wanted, and its file; without one it goes to standard output.
pub fn wish(text: &str) -> Result<(Form, Option<PathBuf>)> {
    let (name, file) = text.split_once(':').map_or((text, None), |(name, file)| (name, Some(PathBuf::from(file))));
    let form = match name {
        "text" => Form::Text,
        "json" => Form::Json,
        "junit" => Form::Junit,
        "github" => Form::Github,
        _ => bail!("--report {text} is not known; valid: text, json, junit, github (each may be followed by :FILE)"),
    };
    ensure!(file.as_deref() != Some(Path::new("")), "--report {text} names no file");
    Ok((form, file))
}

pub fn write(sweep: &Sweep, form: Form, all: bool) -> String {
    match form {
        Form::Text => text(sweep, all),
        Form::Json => json(sweep),
        Form::Junit => junit(sweep),
        Form::Github => github(sweep),
    }
}

fn count(sweep: &Sweep, verdict: Verdict) -> usize {
    sweep.findings.iter().filter(|finding| finding.verdict == verdict).count()
}

/// How many runs came to which verdict.
fn summary(sweep: &Sweep) -> String {
    let counts = Verdict::ALL.into_iter().map(|verdict| (verdict, count(sweep, verdict)));
    let said = counts.filter(|(_, count)| *count > 0).map(|(verdict, count)| format!("{count} {}", verdict.name()));
    said.collect::<Vec<_>>().join(", ")
}

/// A frame, its file from the folder of the checkout.
fn named(frame: &Frame) -> String {
    let file = frame.file.as_deref().map(|file| show::relative(file).to_string());
    Frame { file, ..frame.clone() }.to_string()
}

/// Whether a frame lies below `main`: what started it.
fn is_start(frame: &Frame) -> bool {
    let module = frame.module.as_deref().unwrap_or("").rsplit('/').next().unwrap_or("");
    frame.file.is_none() && module.starts_with("libc.so")
}

/// What to type to see it again.
fn again(sweep: &Sweep, finding: &Finding) -> String {
    let plus = if sweep.once { "" } else { "+" };
    format!("ALLOKIT_FAIL_ONLY='{}' ALLOKIT_FAIL_NTH={}{plus}", finding.site.only, finding.hit)
}

fn text(sweep: &Sweep, all: bool) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{} call sites, {} runs of {} with {}: {}",
        sweep.sites,
        sweep.runs,
        sweep.program,
        sweep.library,
        summary(sweep)
    );
    for finding in &sweep.findings {
        let quiet = matches!(finding.verdict, Verdict::Handled | Verdict::NotReached);
        if quiet && !all {
            continue;
        }
        let site = &finding.site;
        let hit =
            if finding.hit > 1 { format!(", from request {} of the site on", finding.hit) } else { String::new() };
        let _ = writeln!(out, "{:<12}{}: {}{hit}", finding.verdict.name(), named(&finding.place), finding.about);
        if quiet {
            continue;
        }
        let hits = if site.hits == 1 { "once".to_string() } else { format!("{} times", site.hits) };
        let _ = writeln!(out, "            asks {hits}, first for {} bytes, in request {}", site.size, site.first);
        // The frames around the place: what was called there, and who called.
        let at = site.stack.iter().position(|frame| *frame == finding.place).unwrap_or(0);
        for frame in &site.stack[..at] {
            let _ = writeln!(out, "            in {}", named(frame));
        }
        for frame in site.stack.iter().skip(at + 1).take_while(|frame| !is_start(frame)).take(4) {
            let _ = writeln!(out, "            called from {}", named(frame));
        }
        if let Some(frame) = told(&finding.end) {
            let what = if finding.verdict == Verdict::Hang { "was" } else { "ended" };
            let _ = writeln!(out, "            {what} at {}", named(frame));
            if let Some(first) = finding.end.first().filter(|first| *first != frame) {
                let _ = writeln!(out, "            in {}", named(first));
            }
        }
        for line in &finding.more {
            let _ = writeln!(out, "            {line}");
        }
        let _ = writeln!(out, "            again: {}", again(sweep, finding));
    }
    for note in &sweep.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

fn json(sweep: &Sweep) -> String {
    let findings: Vec<_> = sweep
        .findings
        .iter()
        .map(|finding| {
            json!({
                "verdict": finding.verdict.name(),
                "fatal": sweep.is_fatal(finding),
                "about": finding.about,
                "more": finding.more,
                "end": finding.end,
                "place": finding.place,
                "stack": finding.site.stack,
                "only": finding.site.only,
                "hit": finding.hit,
                "first_request": finding.site.first,
                "requests": finding.site.hits,
                "bytes": finding.site.size,
                "seconds": finding.seconds,
            })
        })
        .collect();
    let counts: serde_json::Map<String, serde_json::Value> = Verdict::ALL
        .into_iter()
        .map(|verdict| (verdict.name().replace(' ', "_"), count(sweep, verdict).into()))
        .collect();
    let whole = json!({
        "format": "allokit-oom-sweep",
        "version": 1,
        "program": sweep.program,
        "library": sweep.library,
        "sites": sweep.sites,
        "runs": sweep.runs,
        "counts": counts,
        "findings": findings,
        "notes": sweep.notes,
    });
    format!("{whole:#}\n")
}

fn junit(sweep: &Sweep) -> String {
    let escaped = |text: &str| {
        let text: String = text.chars().filter(|char| !char.is_control() || *char == '\n').collect();
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
    };
    let failures = sweep.findings.iter().filter(|finding| sweep.is_fatal(finding)).count();
    let seconds: f64 = sweep.findings.iter().map(|finding| finding.seconds).sum();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        out,
        "<testsuite name=\"allokit oom-sweep: {}\" tests=\"{}\" failures=\"{failures}\" errors=\"0\" time=\"{seconds:.3}\">",
        escaped(&sweep.program),
        sweep.runs
    );
    for finding in &sweep.findings {
        let hit = if finding.hit > 1 { format!(", request {}", finding.hit) } else { String::new() };
        let name = escaped(&format!("{}{hit}", named(&finding.place)));
        let _ = write!(out, "  <testcase classname=\"oom-sweep\" name=\"{name}\" time=\"{:.3}\"", finding.seconds);
        if sweep.is_fatal(finding) {
            let about = escaped(&format!("{}: {}", finding.verdict.name(), finding.about));
            let more = escaped(&format!("{}\n{}", finding.more.join("\n"), again(sweep, finding)));
            let _ = writeln!(out, ">\n    <failure message=\"{about}\">{more}</failure>\n  </testcase>");
        } else if finding.verdict == Verdict::NotReached {
            let _ = writeln!(out, "><skipped/></testcase>");
        } else {
            let _ = writeln!(out, "/>");
        }
    }
    out.push_str("</testsuite>\n");
    out
}

fn github(sweep: &Sweep) -> String {
    let fatal = sweep.findings.iter().filter(|finding| sweep.is_fatal(finding));
    let mut out: String = fatal
        .map(|finding| {
            let about =
                format!("a failed allocation here is not survived: {}, {}", finding.verdict.name(), finding.about);
            show::error_of(&finding.place, &about)
        })
        .collect();
    let _ = writeln!(out, "{} call sites, {} runs: {}", sweep.sites, sweep.runs, summary(sweep));
    out
}
