//! `cargo xtask demo`: real programs on every backend. Owns what is measured and how it is shown.
//!
//! The programs are the examples 04_lua_host and 05_sqlite, linked with each backend's static library. One binary serves
//! both modes: tracking is switched on by ALLOKIT_TRACK=sites. Runs are interleaved, so that a change in the machine's
//! speed falls on all alike; of each the median CPU time counts (user and system, from wait4).

use crate::{build, sources, tools};
use anyhow::{Context, Result, bail};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

#[derive(clap::Args)]
pub struct Args {
    /// How many times each program runs on each backend in each mode
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// The backends to run, separated by commas
    #[arg(long, value_delimiter = ',', default_values = BACKENDS, value_parser = BACKENDS)]
    backends: Vec<String>,
}

const BACKENDS: [&str; 4] = ["native", "mimalloc", "jemalloc", "system"];
/// What the others' times are set against.
const REFERENCE: &str = "mimalloc";
const SCRIPTS: [&str; 5] = ["json", "trees", "strings", "coroutines", "states"];
/// When runs of one program differ by more than this, the table says so.
const SPREAD: f64 = 0.15;
/// Rounds inside one run of a program: about a second and a half of work.
const LUA_ROUNDS: &str = "6";
const SQLITE_ROUNDS: &str = "4";

pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    tools::need(&["cc", "make"])?;
    let sources = sources::find()?;
    let root = build::root();
    let results = build::target_dir().join("allokit");
    let folder = results.join("demo");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;

    let mut libraries = Vec::new();
    for backend in &args.backends {
        eprintln!("demo: building the {backend} backend");
        libraries.push((backend.as_str(), build::build(backend, true, None)?.static_lib));
    }
    eprintln!("demo: compiling Lua and SQLite, once for all backends");
    let programs = compile(&root, &folder, &sources)?;

    let mut cases = Vec::new();
    for (backend, library) in &libraries {
        for program in &programs {
            let binary = program.link(&folder, backend, library)?;
            cases.push(Case::new(backend, program, binary, &folder));
        }
    }
    // The first run of each is not timed: it says whether the results are right, and counts the allocations.
    for case in &mut cases {
        case.rehearse(&folder)?;
    }
    same_results(&cases)?;
    for round in 1..=args.rounds {
        eprintln!("demo: round {round} of {}", args.rounds);
        for case in &mut cases {
            case.measure(round, &folder)?;
        }
    }

    let rows = rows(&cases);
    println!("{}", table(&rows, args.rounds));
    let json = results.join("demo.json");
    fs::write(&json, report(&rows, args.rounds)?).with_context(|| format!("cannot write {}", json.display()))?;

    show_statistics(&cases[0])?;
    let (backend, library) = &libraries[0];
    show_leaks(&root, &folder, backend, library)?;
    println!("All results are right, in {} s. The table as JSON: {}", start.elapsed().as_secs(), json.display());
    Ok(())
}

// ---- the programs -----------------------------------------------------------------------------------------------------

/// A program to run: compiled, not linked yet.
struct Program {
    name: &'static str,
    objects: Vec<PathBuf>,
    arguments: Vec<String>,
}

impl Program {
    /// Links the program with a backend's static library.
    fn link(&self, folder: &Path, backend: &str, library: &Path) -> Result<PathBuf> {
        let binary = folder.join(format!("{}_{backend}", self.name.to_lowercase()));
        tools::output(cc()?.args(&self.objects).arg(library).args(["-lm", "-lpthread", "-ldl", "-o"]).arg(&binary))?;
        Ok(binary)
    }
}

fn cc() -> Result<Command> {
    Ok(Command::new(tools::find("cc")?))
}

/// Compiles both programs. The objects are the same for every backend: that is the point of the interface.
fn compile(root: &Path, folder: &Path, sources: &sources::Sources) -> Result<Vec<Program>> {
    let include = root.join("include");
    let examples = root.join("examples-c");
    let mut jobs = Vec::new();

    let mut lua = Vec::new();
    let mut files: Vec<PathBuf> = fs::read_dir(&sources.lua)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    for file in files {
        let name = file.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_string();
        if file.extension().is_some_and(|extension| extension == "c") && name != "lua" && name != "luac" {
            let object = folder.join(format!("lua_{name}.o"));
            jobs.push(object_of(&file, &object, &["-w", "-DLUA_USE_POSIX"], &[])?);
            lua.push(object);
        }
    }
    let host = folder.join("lua_host.o");
    let strict = ["-std=c11", "-D_XOPEN_SOURCE=700"];
    jobs.push(object_of(&examples.join("04_lua_host/lua_host.c"), &host, &strict, &[&include, &sources.lua])?);
    lua.push(host);
    let mut arguments = vec![LUA_ROUNDS.to_string()];
    for script in SCRIPTS {
        arguments.push(format!("{}", examples.join(format!("04_lua_host/scripts/{script}.lua")).display()));
    }

    let sqlite = folder.join("sqlite3.o");
    let mapped = ["-w", "-include", "alloc_override.h", "-DSQLITE_OMIT_LOAD_EXTENSION"];
    jobs.insert(0, object_of(&sources.sqlite.join("sqlite3.c"), &sqlite, &mapped, &[&include])?);
    let shop = folder.join("shop.o");
    jobs.push(object_of(&examples.join("05_sqlite/shop.c"), &shop, &strict, &[&include, &sources.sqlite])?);

    in_parallel(jobs)?;
    Ok(vec![
        Program { name: "Lua", objects: lua, arguments },
        Program { name: "SQLite", objects: vec![shop, sqlite], arguments: vec![SQLITE_ROUNDS.to_string()] },
    ])
}

fn object_of(source: &Path, object: &Path, flags: &[&str], includes: &[&Path]) -> Result<Command> {
    let mut command = cc()?;
    command.arg("-O2").args(flags);
    for include in includes {
        command.arg("-I").arg(include);
    }
    command.arg("-c").arg(source).arg("-o").arg(object);
    Ok(command)
}

/// Runs compilations, as many at a time as there are processors; the first error ends it.
fn in_parallel(jobs: Vec<Command>) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = std::sync::Mutex::new(jobs.into_iter());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        // A lock of its own statement: it must not be held while the command runs.
                        let next = jobs.lock().unwrap_or_else(|poison| poison.into_inner()).next();
                        let Some(mut job) = next else { return Ok(()) };
                        tools::output(&mut job)?;
                    }
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a compilation panicked")))
    })
}

// ---- runs -------------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Plain,
    Tracked,
}

/// What one run took.
struct Run {
    /// CPU time, user and system.
    seconds: f64,
    /// The most memory that was resident at once.
    peak_bytes: u64,
}

/// One program on one backend.
struct Case {
    backend: String,
    program: &'static str,
    binary: PathBuf,
    arguments: Vec<String>,
    statistics: PathBuf,
    output: String,
    allocations: u64,
    plain: Vec<Run>,
    tracked: Vec<Run>,
}

impl Case {
    fn new(backend: &str, program: &Program, binary: PathBuf, folder: &Path) -> Case {
        Case {
            backend: backend.to_string(),
            program: program.name,
            binary,
            arguments: program.arguments.clone(),
            statistics: folder.join("statistics.json"),
            output: String::new(),
            allocations: 0,
            plain: Vec::new(),
            tracked: Vec::new(),
        }
    }

    /// The command, in an environment without any ALLOKIT_ variable of the caller.
    fn command(&self, mode: Mode) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(&self.arguments);
        clean(&mut command);
        if mode == Mode::Tracked {
            command.env("ALLOKIT_TRACK", "sites");
        }
        command
    }

    /// Both modes once: the outputs must be equal. The tracked run also checks that nothing is left, and counts.
    fn rehearse(&mut self, folder: &Path) -> Result<()> {
        let (_, plain) = timed(&mut self.command(Mode::Plain), folder)?;
        let _ = fs::remove_file(&self.statistics);
        let mut counting = self.command(Mode::Tracked);
        counting.env("ALLOKIT_STATS", format!("json:{}", self.statistics.display()));
        let (_, tracked) = timed(&mut counting, folder)?;
        if plain != tracked {
            bail!("{} on {} says\n{plain}but tracked it says\n{tracked}", self.program, self.backend);
        }
        let text = fs::read_to_string(&self.statistics).context("the tracked run left no statistics")?;
        let json: serde_json::Value = serde_json::from_str(&text).context("the statistics are no JSON")?;
        self.allocations = json["stats"]["alloc_count"].as_u64().context("the statistics hold no alloc_count")?;
        self.output = plain;
        Ok(())
    }

    /// Both modes once, timed, one right after the other; which is first changes from round to round.
    fn measure(&mut self, round: u32, folder: &Path) -> Result<()> {
        let order = if round % 2 == 1 { [Mode::Plain, Mode::Tracked] } else { [Mode::Tracked, Mode::Plain] };
        for mode in order {
            let (run, output) = timed(&mut self.command(mode), folder)?;
            if output != self.output {
                bail!("{} on {} says\n{output}but said before\n{}", self.program, self.backend, self.output);
            }
            match mode {
                Mode::Plain => self.plain.push(run),
                Mode::Tracked => self.tracked.push(run),
            }
        }
        Ok(())
    }
}

/// Takes the caller's ALLOKIT_ variables out of a command's environment.
fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ALLOKIT_") {
            command.env_remove(name);
        }
    }
}

/// Runs a program to its end; what it took, and what it wrote to stdout. Any other ending than 0 is an error.
fn timed(command: &mut Command, folder: &Path) -> Result<(Run, String)> {
    let (stdout, stderr) = (folder.join("stdout.txt"), folder.join("stderr.txt"));
    command.stdin(Stdio::null()).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?);
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command.spawn().with_context(|| format!("cannot run {program}"))?;

    let mut status = 0;
    // SAFETY: all-zero is a valid rusage, a struct of plain integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live values of this frame; the child is ours, and std has not waited for it.
        let reaped = unsafe { libc::wait4(child.id() as libc::pid_t, &mut status, 0, &mut usage) };
        if reaped >= 0 {
            break;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error).context("wait4");
        }
    }
    let ending: ExitStatus = std::os::unix::process::ExitStatusExt::from_raw(status);
    if !ending.success() {
        bail!("{program} failed: {ending}\n{}", fs::read_to_string(&stderr).unwrap_or_default().trim_end());
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    // Linux counts ru_maxrss in KiB, macOS in bytes.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    let run =
        Run { seconds: seconds(usage.ru_utime) + seconds(usage.ru_stime), peak_bytes: usage.ru_maxrss as u64 * unit };
    Ok((run, fs::read_to_string(&stdout)?))
}

/// A program must say the same on every backend.
fn same_results(cases: &[Case]) -> Result<()> {
    for case in cases {
        let Some(first) = cases.iter().find(|other| other.program == case.program) else { continue };
        if first.output != case.output {
            bail!(
                "{} says on {}\n{}but on {}\n{}",
                case.program,
                first.backend,
                first.output,
                case.backend,
                case.output
            );
        }
    }
    Ok(())
}

// ---- the table --------------------------------------------------------------------------------------------------------

/// A row of the table and of demo.json.
#[derive(Serialize)]
struct Row {
    backend: String,
    program: &'static str,
    /// CPU seconds of one run, the median.
    seconds: f64,
    /// Time as a multiple of mimalloc's, the median over the rounds; null when mimalloc was not run.
    ratio_to_mimalloc: Option<f64>,
    peak_bytes: u64,
    allocations: u64,
    tracked_seconds: f64,
    tracked_peak_bytes: u64,
    /// What tracking adds, as a part of the plain time: the median over the rounds.
    tracking_overhead: f64,
    /// The CPU seconds of every run, in the order of the rounds.
    runs: Vec<f64>,
    tracked_runs: Vec<f64>,
}

impl Row {
    /// How much longer the longest run of a mode took than the shortest: 0.1 for a tenth.
    fn spread(&self) -> f64 {
        let spread = |runs: &[f64]| {
            let longest = runs.iter().copied().fold(f64::MIN, f64::max);
            longest / runs.iter().copied().fold(f64::MAX, f64::min) - 1.0
        };
        spread(&self.runs).max(spread(&self.tracked_runs))
    }
}

fn median<T: Copy + PartialOrd>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values[values.len() / 2]
}

/// The median over the rounds of one time divided by the other. Runs of one round are near each other, so a machine that
/// is slower for a while shows in both.
fn median_ratio(runs: &[Run], others: &[Run]) -> f64 {
    median(runs.iter().zip(others).map(|(run, other)| run.seconds / other.seconds))
}

fn rows(cases: &[Case]) -> Vec<Row> {
    let seconds = |case: &Case| median(case.plain.iter().map(|run| run.seconds));
    let reference = |program: &str| cases.iter().find(|case| case.backend == REFERENCE && case.program == program);
    let row = |case: &Case| {
        let plain = seconds(case);
        let tracked = median(case.tracked.iter().map(|run| run.seconds));
        Row {
            backend: case.backend.clone(),
            program: case.program,
            seconds: plain,
            ratio_to_mimalloc: reference(case.program).map(|reference| median_ratio(&case.plain, &reference.plain)),
            peak_bytes: median(case.plain.iter().map(|run| run.peak_bytes)),
            allocations: case.allocations,
            tracked_seconds: tracked,
            tracked_peak_bytes: median(case.tracked.iter().map(|run| run.peak_bytes)),
            tracking_overhead: median_ratio(&case.tracked, &case.plain) - 1.0,
            runs: case.plain.iter().map(|run| run.seconds).collect(),
            tracked_runs: case.tracked.iter().map(|run| run.seconds).collect(),
        }
    };
    // All backends of a program next to each other.
    let mut programs: Vec<&str> = Vec::new();
    for case in cases {
        if !programs.contains(&case.program) {
            programs.push(case.program);
        }
    }
    programs.iter().flat_map(|program| cases.iter().filter(move |case| case.program == *program).map(row)).collect()
}

fn table(rows: &[Row], rounds: u32) -> String {
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([
        "program",
        "backend",
        "seconds",
        "of mimalloc",
        "peak memory",
        "allocations",
        "tracked",
        "overhead of tracking",
        "peak tracked",
    ]);
    for row in rows {
        table.add_row([
            row.program.to_string(),
            row.backend.clone(),
            format!("{:.3}", row.seconds),
            row.ratio_to_mimalloc.map_or_else(|| "unknown".to_string(), |ratio| format!("{ratio:.2}")),
            megabytes(row.peak_bytes),
            row.allocations.to_string(),
            format!("{:.3}", row.tracked_seconds),
            format!("{:+.1} %", row.tracking_overhead * 100.0),
            megabytes(row.tracked_peak_bytes),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let spread = rows.iter().map(Row::spread).fold(0.0, f64::max);
    let doubt = if spread > SPREAD {
        format!("\nThe machine was busy: runs of the same program differ by up to {:.0} %.\n", spread * 100.0)
    } else {
        String::new()
    };
    format!(
        "\nCPU seconds (user and system) of one run, the median of {rounds}, all runs interleaved:\n\n{table}\n{doubt}"
    )
}

fn report(rows: &[Row], rounds: u32) -> Result<String> {
    let report = serde_json::json!({
        "allokit": env!("CARGO_PKG_VERSION"),
        "machine": {
            "processors": std::thread::available_parallelism().map_or(1, usize::from),
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
        },
        "rounds": rounds,
        "rows": rows,
    });
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}

// ---- the two reports ----------------------------------------------------------------------------------------------------

/// The statistics of the first program, as ak_stats_print() writes them; ALLOKIT_STATS=text has it called at exit.
fn show_statistics(case: &Case) -> Result<()> {
    println!("ak_stats_print() at the end of {} on {}, tracked (ALLOKIT_STATS=text):\n", case.program, case.backend);
    let done = tools::attempt(case.command(Mode::Tracked).env("ALLOKIT_STATS", "text"))?;
    if !done.success || !done.stderr.contains("allocated") {
        bail!("no statistics came: {}\n{}", done.ending, done.stderr);
    }
    println!("{}", done.stderr);
    Ok(())
}

/// The leaks of example 02, found by file and line.
fn show_leaks(root: &Path, folder: &Path, backend: &str, library: &Path) -> Result<()> {
    let binary = folder.join("leak");
    let mut compile = cc()?;
    // From the folder of the examples, so that the report names the file as the user would.
    compile.current_dir(root.join("examples-c")).args(["-std=c11", "-DAK_TRACK", "-I", "../include", "02_leak/leak.c"]);
    tools::output(compile.arg(library).args(["-lm", "-lpthread", "-ldl", "-o"]).arg(&binary))?;
    println!("The leaks of examples-c/02_leak on {backend} (ALLOKIT_TRACK=sites):\n");
    let mut command = Command::new(&binary);
    clean(&mut command);
    let done = tools::attempt(command.env("ALLOKIT_TRACK", "sites"))?;
    if !done.success || !done.stderr.contains("leak.c:") {
        bail!("example 02 found no leaks: {}\n{}", done.ending, done.all());
    }
    println!("{}", done.stderr);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(backend: &str, program: &'static str, plain: &[f64], tracked: &[f64]) -> Case {
        let runs = |seconds: &[f64]| seconds.iter().map(|&seconds| Run { seconds, peak_bytes: 1000 }).collect();
        Case {
            backend: backend.to_string(),
            program,
            binary: PathBuf::new(),
            arguments: Vec::new(),
            statistics: PathBuf::new(),
            output: "right".to_string(),
            allocations: 7,
            plain: runs(plain),
            tracked: runs(tracked),
        }
    }

    #[test]
    fn rows_hold_medians_and_their_ratios() {
        let cases = [
            case("native", "Lua", &[9.0, 1.0, 2.0], &[2.5, 2.5, 9.0]),
            case("native", "SQLite", &[3.0], &[3.0]),
            case("mimalloc", "Lua", &[4.0, 4.0, 4.0], &[5.0, 5.0, 5.0]),
        ];
        let rows = rows(&cases);
        assert_eq!(rows.iter().map(|row| row.program).collect::<Vec<_>>(), ["Lua", "Lua", "SQLite"]);
        assert_eq!((rows[0].seconds, rows[0].tracked_seconds), (2.0, 2.5));
        assert_eq!(rows[0].ratio_to_mimalloc, Some(0.5));
        assert!((rows[0].tracking_overhead - 1.5).abs() < 1e-12); // of 2.5/9, 2.5/1 and 9/2
        assert_eq!(rows[1].tracking_overhead, 0.25);
        assert_eq!(rows[1].ratio_to_mimalloc, Some(1.0));
        assert_eq!(rows[2].ratio_to_mimalloc, None);
        assert!(table(&rows, 3).contains("+25.0 %") && table(&rows, 3).contains("unknown"));
        assert!(table(&rows, 3).contains("differ by up to 800 %")); // 1.0 and 9.0
        assert!(!table(&rows[1..], 3).contains("busy"));
    }

    #[test]
    fn a_result_that_differs_is_an_error() {
        let mut cases = [case("native", "Lua", &[1.0], &[1.0]), case("system", "Lua", &[1.0], &[1.0])];
        assert!(same_results(&cases).is_ok());
        cases[1].output = "wrong".to_string();
        assert!(same_results(&cases).is_err_and(|error| error.to_string().contains("wrong")));
    }

    #[test]
    fn a_run_is_timed_and_its_output_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done";
        let (run, output) = timed(Command::new("sh").args(["-c", script]), folder.path()).expect("a run");
        assert_eq!(output, "done\n");
        assert!(run.seconds > 0.0 && run.peak_bytes > 100_000, "{} s, {} bytes", run.seconds, run.peak_bytes);
        let failed = timed(Command::new("sh").args(["-c", "echo why >&2; exit 3"]), folder.path());
        assert!(failed.is_err_and(|error| error.to_string().contains("exit status: 3\nwhy")));
    }
}
