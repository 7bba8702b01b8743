//! `allokit oom-sweep -- PROGRAM`: the program is run once to learn where it asks for memory, then once for each of these
//! call sites with its requests failing; what becomes of it is told by site.
//!
//! Owns: the runs and the verdicts. The library's file is [`log`]'s, the forms of the report [`report`]'s.

mod log;
mod report;

use crate::data::{self, Row};
use crate::launch::{self, BACKENDS};
use crate::{show, symbols};
use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use log::{Ended, Log, Site};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  allokit oom-sweep -- ./parser data.json                    a run for each call site, those that go wrong by file and line
  allokit oom-sweep --depth stack --jobs 4 -- ./parser       callers of a wrapper such as xmalloc are told apart
  allokit oom-sweep --report github --report junit:oom.xml -- ./tests       for CI

Exit status: 0 when the program survives each failure, 1 when there is one that it does not (--fail-on), 2 for an error; 126 \
and 127 for a program that cannot be run or is not there.")]
pub struct Args {
    /// native, mimalloc or jemalloc
    #[arg(long, default_value = "native")]
    backend: String,
    /// Run on the guarded library, which sees overflows and writes after free too: auto (when it is installed), on or off
    #[arg(long, default_value = "auto")]
    guard: String,
    /// So many runs at a time; the program must not mind (files that it writes, ports that it opens)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// A run that takes longer hangs, in seconds [default: ten times as long as without a failure, and 5 at least]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,
    /// Look at so many call sites, in the order of their first requests; 0 for all
    #[arg(long, default_value_t = 0)]
    max_sites: usize,
    /// What tells call sites apart: auto (the first frame outside the C and C++ libraries), stack, or 1 to 8 frames
    #[arg(long, default_value = "auto")]
    depth: String,
    /// Begin the failure at the first N requests of a site, in a run each
    #[arg(long, default_value_t = 1, value_name = "N")]
    hits: u64,
    /// Only that one request fails, not all of the site from there on
    #[arg(long)]
    once: bool,
    /// Which verdicts give exit status 1: of crash, hang, corruption, leak, abort, silent; or none
    #[arg(long, value_delimiter = ',', default_value = "crash,hang,corruption,leak")]
    fail_on: Vec<String>,
    /// Which blocks that are live at the end are leaks: returned (where main returned), all (also where exit was called), none
    #[arg(long, default_value = "returned")]
    leaks: String,
    /// The program's standard input, for each run [default: nothing]
    #[arg(long, value_name = "FILE")]
    stdin: Option<PathBuf>,
    /// text, json, junit or github, with :FILE; may be given several times
    #[arg(long, value_name = "FORMAT[:FILE]")]
    report: Vec<String>,
    /// Show the sites that are handled too
    #[arg(long)]
    all: bool,
    /// The program and its arguments, after --
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

/// What became of the program, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    Crash,
    Corruption,
    Hang,
    Abort,
    Leak,
    Silent,
    NotReached,
    Handled,
}

impl Verdict {
    pub const ALL: [Verdict; 8] = [
        Verdict::Crash,
        Verdict::Corruption,
        Verdict::Hang,
        Verdict::Abort,
        Verdict::Leak,
        Verdict::Silent,
        Verdict::NotReached,
        Verdict::Handled,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Verdict::Crash => "crash",
            Verdict::Corruption => "corruption",
            Verdict::Hang => "hang",
            Verdict::Abort => "abort",
            Verdict::Leak => "leak",
            Verdict::Silent => "silent",
            Verdict::NotReached => "not reached",
            Verdict::Handled => "handled",
        }
    }
}

/// A site whose failure was rehearsed.
pub struct Finding {
    pub site: Site,
    /// Where the site is, for people: the innermost frame that has a line.
    pub place: data::Frame,
    /// Which of its requests failed first.
    pub hit: u64,
    pub verdict: Verdict,
    pub about: String,
    /// Where it ended, or was when it took too long.
    pub end: Vec<data::Frame>,
    /// What more is to be said, a line each.
    pub more: Vec<String>,
    pub seconds: f64,
}

/// All of it.
pub struct Sweep {
    pub program: String,
    pub library: String,
    /// The verdicts that count as failures.
    pub fatal: Vec<Verdict>,
    pub once: bool,
    pub sites: usize,
    pub runs: usize,
    pub findings: Vec<Finding>,
    pub notes: Vec<String>,
}

impl Sweep {
    pub fn is_fatal(&self, finding: &Finding) -> bool {
        self.fatal.contains(&finding.verdict)
    }
}

/// A run that has ended.
struct Run {
    /// `None`: it took too long.
    status: Option<ExitStatus>,
    wall: Duration,
    log: Log,
    /// What was live at the end, where that is known.
    live: Option<Vec<Row>>,
    output: Vec<u8>,
    /// The last line that it wrote to standard error.
    last_words: String,
}

struct Runner<'a> {
    args: &'a Args,
    path: PathBuf,
    library: PathBuf,
    depth: u64,
    folder: &'a Path,
}

fn one_of<'a>(option: &str, value: &'a str, valid: &[&str]) -> Result<&'a str> {
    ensure!(valid.contains(&value), "--{option} {value} is not known; valid: {}", valid.join(", "));
    Ok(value)
}

/// The library, guarded if that is wanted or there, and whether it is.
fn library(args: &Args) -> Result<PathBuf> {
    let valid: Vec<&str> = BACKENDS.into_iter().filter(|name| *name != "system").collect();
    one_of("backend", &args.backend, &valid)?;
    let guarded = launch::library(&format!("{}_guard", args.backend));
    match one_of("guard", &args.guard, &["auto", "on", "off"])? {
        "on" => guarded,
        "auto" if guarded.is_ok() => guarded,
        _ => launch::library(&args.backend),
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let wishes = args.report.iter().map(|text| report::wish(text)).collect::<Result<Vec<_>>>()?;
    one_of("leaks", &args.leaks, &["returned", "all", "none"])?;
    let mut fatal = Vec::new();
    for name in args.fail_on.iter().filter(|name| *name != "none") {
        let known = Verdict::ALL.into_iter().find(|one| one.name() == name && *one < Verdict::NotReached);
        let Some(known) = known else {
            bail!("--fail-on {name} is not known; valid: crash, hang, corruption, leak, abort, silent, none");
        };
        fatal.push(known);
    }
    let depth = match args.depth.as_str() {
        "auto" => 0,
        "stack" => 8,
        text => text.parse().ok().filter(|depth| (1..=8).contains(depth)).with_context(|| {
            format!("--depth {text} is not known; valid: auto, stack, or a number of frames from 1 to 8")
        })?,
    };
    if let Some(seconds) = args.timeout {
        ensure!(seconds > 0.0 && seconds <= 1e6, "--timeout {seconds} is no time to wait");
    }
    let library = library(args)?;
    let path = launch::program(&args.program[0], true)?;
    let folder = tempfile::tempdir().context("cannot make a folder for the runs (set TMPDIR)")?;
    let runner = Runner { args, path, library, depth, folder: folder.path() };
    let sweep = runner.sweep(fatal)?;
    let wishes = if wishes.is_empty() { vec![(report::Form::Text, None)] } else { wishes };
    for (form, file) in wishes {
        show::put(report::write(&sweep, form, args.all).as_bytes(), file.as_deref())?;
    }
    Ok(ExitCode::from(u8::from(sweep.findings.iter().any(|finding| sweep.is_fatal(finding)))))
}

impl Runner<'_> {
    /// Runs the program with what is to fail: the filter and the number of the request.
    fn run(&self, number: usize, fails: Option<(&str, u64)>, limit: Duration) -> Result<Run> {
        let file = |ending: &str| self.folder.join(format!("{number}.{ending}"));
        log::prepare(&file("log"), self.depth)?;
        let mut command = Command::new(&self.path);
        command.arg0(&self.args.program[0]).args(&self.args.program[1..]);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"ALLOKIT_") && name != "ALLOKIT_LIMIT" {
                command.env_remove(name);
            }
        }
        command.env("LD_PRELOAD", launch::preload(&self.library)).env("ALLOKIT_TRACK", "sites");
        let mut profile = OsString::from("json:");
        profile.push(file("%p.live"));
        command.env("ALLOKIT_PROFILE", profile).env("ALLOKIT_FAIL_LOG", file("log"));
        if let Some((only, hit)) = fails {
            let nth = if self.args.once { hit.to_string() } else { format!("{hit}+") };
            command.env("ALLOKIT_FAIL_ONLY", only).env("ALLOKIT_FAIL_NTH", nth);
        }
        let input = match &self.args.stdin {
            Some(path) => File::open(path).with_context(|| format!("cannot read {}", path.display()))?.into(),
            None => Stdio::null(),
        };
        command.stdin(input).stdout(File::create(file("out"))?).stderr(File::create(file("err"))?);
        command.process_group(0);
        let parent = std::process::id().cast_signed();
        // SAFETY: only system calls between fork and exec. Nothing is left behind when this command is killed, nor a core.
        unsafe {
            command.pre_exec(move || {
                let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if libc::getppid() != parent {
                    libc::_exit(1);
                }
                Ok(())
            });
        }
        let start = Instant::now();
        let mut child = command
            .spawn()
            .map_err(|error| launch::NoProgram::Refused(format!("cannot run {}: {error}", self.path.display())))?;
        let pid = child.id();
        let mut pause = Duration::from_micros(500);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if start.elapsed() > limit {
                // The library notes where it is; what ignores the signal goes by the next one.
                // SAFETY: the child has not been waited for.
                unsafe { libc::kill(pid.cast_signed(), libc::SIGABRT) };
                std::thread::sleep(Duration::from_millis(100));
                break None;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        };
        let wall = start.elapsed();
        // What it started goes too.
        // SAFETY: the group is the child's own.
        unsafe { libc::kill(-pid.cast_signed(), libc::SIGKILL) };
        if status.is_none() {
            child.wait()?;
        }
        let (name, path) = (self.args.program[0].to_string_lossy(), self.path.to_string_lossy());
        let log = log::read(&file("log"), (&name, &path))?;
        let live = self.folder.join(format!("{number}.{pid}.live"));
        let live = data::read(&live).ok().map(|report| report.sites);
        let output = fs::read(file("out"))?;
        let errors = String::from_utf8_lossy(&fs::read(file("err"))?).into_owned();
        let mut said = errors.lines().filter(|line| !line.trim().is_empty());
        // Of a fault, what it is; what follows are addresses.
        let last_words = match log.faults {
            0 => said.next_back(),
            _ => said.find(|line| line.starts_with("allokit: ")),
        };
        let last_words = last_words.unwrap_or("").to_string();
        let beginning = format!("{number}.");
        for entry in fs::read_dir(self.folder)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&beginning) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(Run { status, wall, log, live, output, last_words })
    }

    fn sweep(&self, fatal: Vec<Verdict>) -> Result<Sweep> {
        let args = self.args;
        let mut notes = Vec::new();
        // Twice, to know what differs by itself.
        let patience = Duration::from_secs_f64(args.timeout.unwrap_or(3600.0));
        let first = self.run(0, None, patience)?;
        ensure!(
            first.log.claimed,
            "the library was not at work in {}: it is a program that takes no library, or clears its environment",
            args.program[0].display()
        );
        let Some(status) = first.status else {
            bail!("without any failure the program takes longer than {} s", patience.as_secs_f64());
        };
        if let Some(signal) = status.signal() {
            let words = &first.last_words;
            bail!("without any failure the program ends by {}: {words}", signal_name(signal));
        }
        ensure!(first.log.faults == 0, "without any failure there is a fault: {}", first.last_words);
        if !status.success() {
            notes.push(format!("without any failure the program ends with {}", ending(status)));
        }
        let limit = args.timeout.map_or_else(|| (first.wall * 10).max(Duration::from_secs(5)), Duration::from_secs_f64);
        let second = self.run(0, None, patience)?;
        let steady = second.output == first.output && second.status == first.status;
        if !steady {
            notes.push("two runs without a failure differ in their output or status, so what a failure changes there is not told".into());
        }
        if first.live.is_none() {
            notes.push("the program does not end by exit, so leaks are not known".into());
        }
        if first.log.lost > 0 {
            notes.push(format!(
                "there were more call sites than there is room for: {} requests are not attributed",
                first.log.lost
            ));
        }
        let mut normal: HashMap<Vec<data::Frame>, u64> = HashMap::new();
        for row in first.live.iter().chain(&second.live).flatten() {
            let most = normal.entry(row.key()).or_default();
            *most = row.blocks.max(*most);
        }
        let sites = &first.log.sites;
        let shown = if args.max_sites == 0 { sites.len() } else { args.max_sites.min(sites.len()) };
        if shown < sites.len() {
            notes.push(format!("{} of {} call sites were looked at (--max-sites)", shown, sites.len()));
        }
        let mut plan: Vec<(&Site, u64)> = Vec::new();
        for site in &sites[..shown] {
            plan.extend((1..=site.hits.min(args.hits.max(1))).map(|hit| (site, hit)));
        }
        let bar = ProgressBar::new(plan.len() as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}") {
            bar.set_style(style);
        }
        let usual = Usual { status, steady: steady.then_some(&first.output), live: &normal };
        let (next, done, trouble) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(None));
        std::thread::scope(|scope| {
            for _ in 0..args.jobs {
                scope.spawn(|| {
                    while let Some((site, hit)) = plan.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let run = self.run(unique(), Some((&site.only, *hit)), limit);
                        match run {
                            Ok(run) => {
                                let finding = self.judge(site, *hit, &run, &usual);
                                let bad = finding.verdict < Verdict::Silent;
                                if let Ok(mut done) = done.lock() {
                                    done.push(finding);
                                    let count =
                                        done.iter().filter(|one: &&Finding| one.verdict < Verdict::Silent).count();
                                    bar.set_message(format!("{count} not survived"));
                                    if bad
                                        && bar.is_hidden()
                                        && let Some(last) = done.last()
                                    {
                                        eprintln!("allokit: {} of {}: {}", done.len(), plan.len(), last.verdict.name());
                                    }
                                }
                                bar.inc(1);
                            }
                            Err(error) => {
                                if let Ok(mut trouble) = trouble.lock() {
                                    trouble.get_or_insert(error);
                                }
                                next.store(plan.len(), Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        bar.finish_and_clear();
        if let Ok(Some(error)) = trouble.into_inner() {
            return Err(error);
        }
        let mut findings = done.into_inner().unwrap_or_default();
        findings.sort_by_key(|finding| (finding.verdict, finding.site.first, finding.hit));
        name(&mut findings, &mut notes);
        let program = args.program.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let library = self.library.file_name().unwrap_or(OsStr::new("")).to_string_lossy().into_owned();
        let runs = findings.len();
        Ok(Sweep { program, library, fatal, once: args.once, sites: shown, runs, findings, notes })
    }

    fn judge(&self, site: &Site, hit: u64, run: &Run, usual: &Usual<'_>) -> Finding {
        let mut more = Vec::new();
        let (verdict, about) = self.verdict(run, usual, &mut more);
        if verdict < Verdict::Silent && verdict != Verdict::Leak && !run.last_words.is_empty() {
            let words = if run.log.faults > 0 { "" } else { "its last words: " };
            more.push(format!("{words}{}", run.last_words));
        }
        let ends = matches!(verdict, Verdict::Crash | Verdict::Hang | Verdict::Abort);
        let end = if ends { run.log.crash.clone() } else { Vec::new() };
        let (site, place) = (site.clone(), data::Frame::default());
        Finding { site, place, hit, verdict, about, end, more, seconds: run.wall.as_secs_f64() }
    }

    fn verdict(&self, run: &Run, usual: &Usual<'_>, more: &mut Vec<String>) -> (Verdict, String) {
        if run.log.faults > 0 {
            return (Verdict::Corruption, fault_name(run.log.fault).to_string());
        }
        let Some(status) = run.status else {
            return (Verdict::Hang, format!("still running after {:.1} s", run.wall.as_secs_f64()));
        };
        match status.signal() {
            Some(libc::SIGABRT) => return (Verdict::Abort, "SIGABRT".into()),
            Some(signal) => return (Verdict::Crash, signal_name(signal)),
            None => {}
        }
        if run.log.refused == 0 {
            return (Verdict::NotReached, format!("no request came from there; {}", ending(status)));
        }
        let (blocks, bytes, rows) = usual.leaked(run);
        if blocks > 0 {
            let counts = match self.args.leaks.as_str() {
                "all" => true,
                "none" => false,
                _ => run.log.ended == Ended::Returned,
            };
            if counts {
                more.extend(rows);
                let s = if blocks == 1 { "" } else { "s" };
                return (
                    Verdict::Leak,
                    format!("{blocks} block{s}, {bytes} bytes are live at its end; {}", ending(status)),
                );
            }
        }
        if let Some(output) = usual.steady
            && status.success()
            && usual.status.success()
            && run.output != *output
        {
            return (Verdict::Silent, "exit status 0, and another output than without the failure".into());
        }
        (Verdict::Handled, ending(status))
    }
}

/// A number that no run has had.
fn unique() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The program without a failure.
struct Usual<'a> {
    status: ExitStatus,
    /// Its output, if that is the same each time.
    steady: Option<&'a Vec<u8>>,
    live: &'a HashMap<Vec<data::Frame>, u64>,
}

impl Usual<'_> {
    /// Blocks and bytes that are live at the end of a run beyond what is usual, and where they were allocated.
    fn leaked(&self, run: &Run) -> (u64, u64, Vec<String>) {
        let mut rows: Vec<Row> = Vec::new();
        for row in run.live.iter().flatten() {
            let usual = self.live.get(&row.key()).copied().unwrap_or(0);
            // The buffers of streams, which libc keeps.
            let is_streams = row.site.symbol.as_deref().is_some_and(|name| name.starts_with("_IO_"));
            if row.blocks > usual && !is_streams {
                let more = row.blocks - usual;
                let bytes = (row.bytes as f64 * more as f64 / row.blocks as f64) as u64;
                rows.push(Row { blocks: more, bytes, ..row.clone() });
            }
        }
        let mut report = data::Report { sites: rows, ..data::Report::default() };
        symbols::resolve(&mut report);
        let sum = |of: fn(&Row) -> u64| report.sites.iter().map(of).sum();
        let said = report.sites.iter().take(4).map(|row| {
            let s = if row.blocks == 1 { "" } else { "s" };
            format!("{} block{s} allocated at {}", row.blocks, row.site)
        });
        (sum(|row| row.blocks), sum(|row| row.bytes), said.collect())
    }
}

/// Lines and names for the call sites.
fn name(findings: &mut [Finding], notes: &mut Vec<String>) {
    let rows = findings.iter().map(|finding| Row {
        site: finding.site.stack.first().cloned().unwrap_or_default(),
        stack: finding.site.stack.clone(),
        ..Row::default()
    });
    let mut rows: Vec<Row> = rows.collect();
    let ends = findings.iter().map(|finding| Row { stack: finding.end.clone(), ..Row::default() });
    rows.extend(ends);
    let mut report = data::Report { sites: rows, ..data::Report::default() };
    symbols::resolve(&mut report);
    let mut ends = report.sites.split_off(findings.len());
    for (finding, row) in findings.iter_mut().zip(&mut ends) {
        finding.end = std::mem::take(&mut row.stack);
    }
    for (finding, row) in findings.iter_mut().zip(report.sites) {
        finding.place = told(&row.stack).unwrap_or(&row.site).clone();
        finding.site.stack = row.stack;
    }
    notes.extend(report.notes);
}

/// The frame of a stack that tells people the most: the innermost with a line, or outside the C and C++ libraries.
pub fn told(stack: &[data::Frame]) -> Option<&data::Frame> {
    let mut frames = stack.iter();
    frames.find(|frame| frame.file.is_some()).or_else(|| stack.iter().find(|frame| !is_runtimes(frame)))
}

/// Whether a frame is in the C or C++ library: who called it says more.
fn is_runtimes(frame: &data::Frame) -> bool {
    let name = frame.module.as_deref().unwrap_or("").rsplit('/').next().unwrap_or("");
    ["libc.so", "libc-", "libstdc++.so", "libc++", "libgcc_s.so", "ld-"].iter().any(|begin| name.starts_with(begin))
}

fn ending(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => signal_name(signal),
        None => format!("exit status {}", status.code().unwrap_or(0)),
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGBUS => "SIGBUS",
        libc::SIGILL => "SIGILL",
        libc::SIGFPE => "SIGFPE",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGKILL => "SIGKILL",
        libc::SIGTERM => "SIGTERM",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        other => return format!("signal {other}"),
    };
    name.to_string()
}

/// `ak_fault_name`
fn fault_name(kind: u64) -> &'static str {
    match kind {
        1 => "double free",
        2 => "invalid free",
        3 => "overflow",
        4 => "underflow",
        5 => "write after free",
        6 => "size mismatch",
        7 => "allocator mismatch",
        10 => "corrupted arena",
        11 => "use after reset",
        12 => "use after destroy",
        13 => "out of order",
        _ => "a fault",
    }
}
