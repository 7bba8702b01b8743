//! `allokit run -- PROGRAM`.

use crate::data;
use crate::launch::{self, BACKENDS, Done};
use crate::show::{self, Format};
use crate::symbols;
use anyhow::{Context, Result, bail, ensure};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  allokit run -- ./server                                what is live at the end, by call site
  allokit run --report html:report.html -- ./server      the same as a page, with resident memory over time
  allokit run --backend native,mimalloc,jemalloc,system --runs 5 -- ./server    a comparison

Exit status: that of the program, also when it ends by a signal; 125 for an error of allokit, 126 for a program that cannot \
be run, 127 for one that is not there. Of several runs, that of the first that fails.")]
pub struct Args {
    /// native, mimalloc, jemalloc, or system (the program's own malloc); several, with commas, are compared
    #[arg(long, value_delimiter = ',', default_value = "native")]
    backend: Vec<String>,
    /// off, sites or stacks [default: sites for a report, off for a comparison]
    #[arg(long)]
    track: Option<String>,
    /// text, json, ci, github, or one of html, json, pprof, folded, svg with :FILE; may be given several times
    #[arg(long, value_name = "FORMAT[:FILE]")]
    report: Vec<String>,
    /// Print the allocator's figures at the end, and the use of time and memory
    #[arg(long)]
    stats: bool,
    /// Run so many times with each backend, in turns; medians are shown
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// The comparison as JSON on standard output, not as a table on standard error
    #[arg(long)]
    json: bool,
    /// Keep the reports of all processes of the program in this folder, as PID.json
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Call sites in a table; 0 for all
    #[arg(long, default_value_t = show::TOP)]
    top: usize,
    /// The program and its arguments, after --
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

/// A report that is wanted: its form, and the file; without one it goes to standard error.
fn wish(text: &str) -> Result<(Format, Option<PathBuf>)> {
    let (name, file) = match text.split_once(':') {
        Some((name, file)) => (name, Some(PathBuf::from(file))),
        None => (text, None),
    };
    let format = <Format as clap::ValueEnum>::from_str(name, false);
    let valid = "text, json, ci, github, html:FILE, json:FILE, pprof:FILE, folded:FILE, svg:FILE";
    let Ok(format) = format else { bail!("--report {text} is not known; valid: {valid}") };
    ensure!(file.as_deref() != Some(Path::new("")), "--report {text} names no file");
    let needs = matches!(format, Format::Html | Format::Pprof | Format::Svg);
    ensure!(file.is_some() || !needs, "--report {name} wants a file: --report {name}:FILE");
    Ok((format, file))
}

pub fn run(args: &Args) -> Result<ExitCode> {
    for backend in &args.backend {
        let valid = BACKENDS.join(", ");
        ensure!(BACKENDS.contains(&backend.as_str()), "--backend {backend} is not known; valid: {valid}");
    }
    if let Some(level) = &args.track {
        ensure!(
            ["off", "sites", "stacks"].contains(&level.as_str()),
            "--track {level} is not known; valid: off, sites, stacks"
        );
    }
    let wishes = args.report.iter().map(|text| wish(text)).collect::<Result<Vec<_>>>()?;
    // Before the program has run for an hour.
    for path in wishes.iter().filter_map(|(_, file)| file.as_deref()).chain(args.keep.as_deref()) {
        let folder = if args.keep.as_deref() == Some(path) { path } else { path.parent().unwrap_or(path) };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        if path.symlink_metadata().is_ok_and(|about| !about.is_file() && !about.is_dir()) {
            continue;
        }
        ensure!(
            args.keep.as_deref() == Some(path) || !path.is_dir(),
            "cannot write {}: it is a folder",
            path.display()
        );
        tempfile::tempfile_in(folder)
            .with_context(|| format!("cannot write to the folder {} (is it there, and yours?)", folder.display()))?;
    }
    let compares = args.backend.len() > 1 || args.runs > 1;
    if compares {
        ensure!(
            wishes.is_empty() && args.keep.is_none(),
            "a comparison has no --report and no --keep: run one backend once"
        );
        return compare(args);
    }
    let backend = &args.backend[0];
    let level = args.track.as_deref().unwrap_or("sites");
    if backend == "system" && (args.track.is_some() || !wishes.is_empty()) {
        bail!(
            "--backend system is the program's own malloc, and nothing is known of its call sites; use native, mimalloc or jemalloc"
        );
    }
    if level == "off" && !wishes.is_empty() {
        bail!("--track off leaves nothing to report; leave out --track or --report");
    }
    let folder = tempfile::tempdir().context("cannot make a folder for the reports (set TMPDIR)")?;
    let place = args.keep.as_deref().unwrap_or(folder.path());
    let mut command = prepared(args, backend, level, place)?;
    let done = launch::run(&mut command, true)?;
    if level != "off" && backend != "system" {
        let wishes = if wishes.is_empty() { vec![(Format::Text, None)] } else { wishes };
        tell(args, place, &done, &wishes)?;
    }
    if args.stats {
        figures(place, &done);
    }
    Ok(launch::end_as(done.status))
}

/// The program with a backend's library before its own.
fn prepared(args: &Args, backend: &str, level: &str, place: &Path) -> Result<Command> {
    let preloads = backend != "system";
    let path = launch::program(&args.program[0], preloads)?;
    let mut command = Command::new(path);
    command.args(&args.program[1..]);
    // The name that was typed: some programs look at it.
    std::os::unix::process::CommandExt::arg0(&mut command, &args.program[0]);
    for name in ["ALLOKIT_TRACK", "ALLOKIT_PROFILE", "ALLOKIT_STATS", "ALLOKIT_LEAKS", "ALLOKIT_BACKEND"] {
        command.env_remove(name);
    }
    if !preloads {
        return Ok(command);
    }
    let place = std::path::absolute(place)?;
    let into = |what: &str, ending: &str| {
        let mut text = OsString::from(what);
        text.push(place.join(format!("%p{ending}")));
        text
    };
    command.env("LD_PRELOAD", launch::preload(&launch::library(backend)?)).env("ALLOKIT_TRACK", level);
    command.env("ALLOKIT_STATS", into("json:", ".stats"));
    if level != "off" {
        command.env("ALLOKIT_PROFILE", into("json:", ".json"));
    }
    Ok(command)
}

/// How it ended, in words: why there is no report.
fn ending(done: &Done) -> String {
    match (done.status.signal(), done.status.code()) {
        (Some(signal), _) => format!("it ended by signal {signal}, and a report is written at an orderly end"),
        (None, code) => format!(
            "it ended with status {} and without running its exit handlers (_exit), or started a program that takes no \
             library, or cleared its environment",
            code.unwrap_or(0)
        ),
    }
}

fn tell(args: &Args, place: &Path, done: &Done, wishes: &[(Format, Option<PathBuf>)]) -> Result<()> {
    let own = place.join(format!("{}.json", done.pid));
    let mut others: Vec<String> = Vec::new();
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(pid) = name.strip_suffix(".json")
            && pid.parse() != Ok(done.pid)
        {
            others.push(pid.to_string());
        }
    }
    if !own.is_file() {
        let hint = match others.len() {
            0 => String::new(),
            _ if args.keep.is_some() => format!("; processes that it started left reports: {}", others.join(", ")),
            count => format!("; {count} processes that it started left reports: --keep DIR keeps them"),
        };
        eprintln!("allokit: the program left no report: {}{hint}", ending(done));
        return Ok(());
    }
    let mut report = data::read(&own)?;
    // What grows is told with the moments of its own.
    if report.growth.is_empty() {
        report.timeline.clone_from(&done.samples);
    }
    if !others.is_empty() && args.keep.is_none() {
        let count = others.len();
        report.note(format!("{count} processes that it started left reports too: --keep DIR keeps them all."));
    }
    symbols::resolve(&mut report);
    report.tidy();
    for (format, file) in wishes {
        let bytes = show::write(&report, *format, args.top)?;
        match file {
            Some(file) => show::put(&bytes, Some(file))?,
            // Standard output is the program's.
            None => eprint!("{}", String::from_utf8_lossy(&bytes)),
        }
    }
    Ok(())
}

/// The allocator's figures at the program's end.
fn stats_of(place: &Path, done: &Done) -> Option<Value> {
    let text = fs::read_to_string(place.join(format!("{}.stats", done.pid))).ok()?;
    Some(serde_json::from_str::<Value>(&text).ok()?["stats"].take())
}

fn figures(place: &Path, done: &Done) {
    eprintln!("time               {:>12.3} s, of a processor {:.3} s", done.wall.as_secs_f64(), done.cpu.as_secs_f64());
    eprintln!("peak resident      {:>12} bytes", done.peak_resident);
    match stats_of(place, done) {
        Some(Value::Object(stats)) => stats.iter().for_each(|(name, value)| match value.as_u64() {
            Some(value) => eprintln!("{name:<19}{value:>12}"),
            None => eprintln!("{name:<19}{:>12}", "unknown"),
        }),
        _ => eprintln!("the allocator's figures are unknown: {}", ending(done)),
    }
}

// ---- several backends or runs ----

fn median<T: Copy + PartialOrd>(mut values: Vec<T>) -> Option<T> {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len() / 2).copied()
}

struct Figures {
    backend: String,
    wall: Option<Duration>,
    cpu: Option<Duration>,
    peak: Option<u64>,
    live: Option<u64>,
    held: Option<u64>,
}

fn compare(args: &Args) -> Result<ExitCode> {
    let mut backends: Vec<&String> = Vec::new();
    for backend in &args.backend {
        ensure!(!backends.contains(&backend), "--backend names {backend} twice; --runs N runs it N times");
        backends.push(backend);
    }
    let level = args.track.as_deref().unwrap_or("off");
    let total = u64::from(args.runs) * backends.len() as u64;
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}") {
        bar.set_style(style);
    }
    let mut all: Vec<Vec<(Done, Option<Value>)>> = backends.iter().map(|_| Vec::new()).collect();
    // In turns, so that whatever else the machine does meets all alike.
    for run in 1..=args.runs {
        for (backend, runs) in backends.iter().zip(&mut all) {
            bar.set_message(backend.to_string());
            let folder = tempfile::tempdir().context("cannot make a folder for the figures (set TMPDIR)")?;
            let mut command = prepared(args, backend, level, folder.path())?;
            let done = launch::run(command.stdin(Stdio::null()).stdout(Stdio::null()), false)?;
            if !done.status.success() {
                bar.finish_and_clear();
                eprintln!("allokit: run {run} with {backend} failed: {}; the comparison ends here", done.status);
                return Ok(launch::end_as(done.status));
            }
            let stats = stats_of(folder.path(), &done);
            runs.push((done, stats));
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let figures: Vec<Figures> = backends
        .iter()
        .zip(&all)
        .map(|(backend, runs)| {
            let of = |name: &str| median(runs.iter().filter_map(|(_, stats)| stats.as_ref()?[name].as_u64()).collect());
            Figures {
                backend: backend.to_string(),
                wall: median(runs.iter().map(|(done, _)| done.wall).collect()),
                cpu: median(runs.iter().map(|(done, _)| done.cpu).collect()),
                peak: median(runs.iter().map(|(done, _)| done.peak_resident).collect()),
                live: of("current_bytes"),
                held: of("committed_bytes"),
            }
        })
        .collect();
    if args.json {
        let rows: Vec<Value> = figures.iter().map(|row| json!({
            "backend": row.backend, "wall_s": row.wall.map(|time| time.as_secs_f64()), "cpu_s": row.cpu.map(|time| time.as_secs_f64()),
            "peak_resident_bytes": row.peak, "live_bytes": row.live, "committed_bytes": row.held,
        })).collect();
        show::print(format!("{}\n", json!({"runs": args.runs, "tracking": level, "backends": rows})).as_bytes())?;
    } else {
        eprintln!("{}", table(&figures));
        let (runs, each) = (args.runs, if args.runs > 1 { ", medians" } else { "" });
        eprintln!(
            "{runs} {} with each backend in turns{each}; tracking {level}",
            if runs == 1 { "run" } else { "runs" }
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn table(figures: &[Figures]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([
        "backend",
        "wall s",
        "",
        "CPU s",
        "",
        "peak resident MiB",
        "",
        "live at the end MiB",
        "held at the end MiB",
    ]);
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    let cell = |value: Option<f64>, digits: usize| value.map_or("unknown".into(), |value| format!("{value:.digits$}"));
    let ratio = |value: Option<f64>, first: Option<f64>| match (value, first) {
        (Some(value), Some(first)) if first > 0.0 => format!("{:.2}", value / first),
        _ => "-".into(),
    };
    let mib = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64 / f64::from(1 << 20));
    for row in figures {
        let (wall, cpu, peak) = (seconds(row.wall), seconds(row.cpu), mib(row.peak));
        let first = &figures[0];
        table.add_row([
            row.backend.clone(),
            cell(wall, 3),
            ratio(wall, seconds(first.wall)),
            cell(cpu, 3),
            ratio(cpu, seconds(first.cpu)),
            cell(peak, 1),
            ratio(peak, mib(first.peak)),
            cell(mib(row.live), 1),
            cell(mib(row.held), 1),
        ]);
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_checked_in_one_line() {
        assert_eq!(wish("html:a:b").unwrap(), (Format::Html, Some("a:b".into())));
        assert_eq!(wish("text").unwrap(), (Format::Text, None));
        for (text, words) in [("xml", "not known"), ("html", "wants a file"), ("json:", "names no file")] {
            let error = wish(text).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn the_median_is_one_of_the_values() {
        assert_eq!(median(vec![3, 1, 2]), Some(2));
        assert_eq!(median(Vec::<u64>::new()), None);
    }
}
