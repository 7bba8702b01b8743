//! `cargo xtask bench`: allocators side by side. Owns how the programs of tests/bench are compiled and which allocators and
//! programs run; how they run and what the report says is crate allokit-bench's.

use crate::{bench_arenas, bench_inline, bench_peers, bench_real, build, tools};
use allokit_bench::machine::Machine;
use allokit_bench::measure::Runner;
use allokit_bench::plan::{Group, Kind, OWN, STEPS, Workload};
use allokit_bench::report;
use allokit_bench::result::{About, Missing, Report};
use allokit_bench::{scaling, suite};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

#[derive(clap::Args, Default)]
pub struct Args {
    /// Only the programs whose name contains this, or a group: micro, stress, real; may be given several times
    #[arg(long)]
    only: Vec<String>,
    /// The allocators, separated by commas; `all` are all that run by default
    #[arg(long, value_delimiter = ',', default_value = "all")]
    allocators: Vec<String>,
    /// How often every program runs on every allocator [default: 7; with --quick 2]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: Option<u32>,
    /// A quarter of the work, for a look
    #[arg(long)]
    quick: bool,
    /// Instead: operations per second of the threaded programs with these numbers of threads
    #[arg(long, value_delimiter = ',', value_name = "1,2,4,8,16", value_parser = clap::value_parser!(u32).range(1..=1024))]
    scaling: Vec<u32>,
    /// Instead: the fast path in the caller beside plain calls and mimalloc linked statically, with and without LTO
    #[arg(long)]
    inline: bool,
    /// Instead: arenas, regions, pools and stacks beside bumpalo, APR's pools and talloc's
    #[arg(long)]
    arenas: bool,
    /// List programs and allocators and run none
    #[arg(long)]
    list: bool,
    /// Measure nothing: make the reports of a JSON file that was written before
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Where the data goes [default: target/bench/report.json]
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Where the page with charts goes [default: target/bench/report.html]
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Where the tables go as Markdown; between the marks of a page that has them [default: nowhere]
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

/// The compiler must not know what malloc does, or it leaves out the calls that are to be measured.
pub const FLAGS: &[&str] = &[
    "-std=c11",
    "-O2",
    "-fno-builtin-malloc",
    "-fno-builtin-free",
    "-fno-builtin-calloc",
    "-fno-builtin-realloc",
    "-fno-builtin-aligned_alloc",
];
/// Per cent of the work with --quick.
const QUICK: &str = "25";

pub fn run(args: &Args) -> Result<()> {
    if args.inline {
        return bench_inline::run(args.rounds.unwrap_or(7));
    }
    if args.arenas {
        return bench_arenas::run(args);
    }
    let report = match &args.from {
        Some(file) => {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            report::from_json(&text)?
        }
        None if args.list => return list(args),
        None => measure(args, &folder())?,
    };
    print!("{}", report::text(&report));
    let folder = folder();
    fs::create_dir_all(&folder)?;
    let json = args.json.clone().unwrap_or_else(|| folder.join("report.json"));
    let html = args.html.clone().unwrap_or_else(|| folder.join("report.html"));
    let mut files = vec![(json, report::json(&report)?), (html, report::page(&report))];
    if let Some(file) = &args.markdown {
        let tables = report::markdown(&report);
        let old = fs::read_to_string(file).unwrap_or_default();
        files.push((file.clone(), between_marks(&old, &tables).unwrap_or(tables)));
    }
    for (file, text) in files {
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}

/// The page with what stands between its marks replaced; None without marks.
fn between_marks(page: &str, tables: &str) -> Option<String> {
    const BEGIN: &str = "<!-- results: begin -->\n";
    const END: &str = "<!-- results: end -->";
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{tables}{END}{after}"))
}

/// A quick look at some programs and allocators, for a test: the report as JSON. Keeps its files in a folder of its own.
pub fn smoke(only: &[&str], allocators: &[&str]) -> Result<String> {
    let list = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    let args = Args { only: list(only), allocators: list(allocators), rounds: Some(1), quick: true, ..Args::default() };
    report::json(&measure(&args, &folder().join("smoke"))?)
}

fn folder() -> PathBuf {
    build::target_dir().join("bench")
}

fn list(args: &Args) -> Result<()> {
    for own in OWN.iter().filter(|own| wanted(args, own.name, own.group)) {
        println!("{:16} {}{}", own.name, own.what, if own.threads { " (threads)" } else { "" });
    }
    for (name, what) in bench_real::NAMES.iter().filter(|(name, _)| wanted(args, name, Group::Real)) {
        println!("{name:16} {what}");
    }
    println!(
        "allocators: {}; when asked for: {}",
        default_names().join(","),
        bench_peers::NAMES[bench_peers::DEFAULT..].join(",")
    );
    Ok(())
}

fn default_names() -> Vec<String> {
    bench_peers::NAMES[..bench_peers::DEFAULT].iter().map(ToString::to_string).collect()
}

fn wanted(args: &Args, name: &str, group: Group) -> bool {
    let fits = |word: &String| match word.as_str() {
        "micro" => group == Group::Micro,
        "stress" => group == Group::Stress,
        "real" => group == Group::Real,
        word => name.contains(word),
    };
    args.only.is_empty() || args.only.iter().any(fits)
}

/// Builds what is needed and runs it; `folder` keeps what was built.
fn measure(args: &Args, folder: &Path) -> Result<Report> {
    let start = Instant::now();
    let machine = Machine::here(&build::root());
    tools::need(&["cc"])?;
    let mut names: Vec<String> = Vec::new();
    for name in &args.allocators {
        match name.as_str() {
            "all" => names.extend(default_names()),
            _ => names.push(name.clone()),
        }
    }
    for name in &names {
        let known = bench_peers::NAMES.contains(&name.as_str());
        ensure!(known, "no allocator is called {name}; known: all, {}", bench_peers::NAMES.join(", "));
    }
    let (allocators, mut missing) = bench_peers::get(&names, &folder.join("peers"))?;

    let bin = folder.join("bin");
    fs::create_dir_all(&bin)?;
    let mut workloads = Vec::new();
    for own in OWN.iter().filter(|own| wanted(args, own.name, own.group)) {
        if args.scaling.is_empty() || own.threads {
            let program = compile(own.source, &bin)?;
            let arguments = if own.mode.is_empty() { vec![] } else { vec![own.mode.to_string()] };
            workloads.push(Workload {
                name: own.name.to_string(),
                group: own.group,
                what: own.what.to_string(),
                program,
                arguments,
                folder: bin.clone(),
                environment: vec![],
                kind: Kind::Own,
                rounds: if args.quick { own.rounds.map(|_| 1) } else { own.rounds },
            });
        }
    }
    if args.scaling.is_empty() {
        workloads.extend(steps(args, &bin, &mut missing)?);
        let (real, lacking) =
            bench_real::get(&|name| wanted(args, name, Group::Real), &folder.join("real"), args.quick)?;
        workloads.extend(real);
        missing.extend(lacking);
    }
    ensure!(!workloads.is_empty(), "no program is called so; cargo xtask bench --list names them all");

    let scratch = tempfile::tempdir_in(folder)?;
    let runner = Runner { launch: compile("launch", &bin)?, scratch: scratch.path().to_path_buf() };
    let rounds = args.rounds.unwrap_or(if args.quick { 2 } else { 7 });
    let extra: Vec<String> = if args.quick { vec!["-s".into(), QUICK.into()] } else { vec![] };
    let (cells, points) = if args.scaling.is_empty() {
        (suite::run(&workloads, &allocators, rounds, &extra, &runner)?, Vec::new())
    } else {
        let rounds = args.rounds.unwrap_or(2);
        (Vec::new(), scaling::run(&workloads, &allocators, &args.scaling, rounds, &extra, &runner)?)
    };
    let about =
        |workload: &Workload| About { name: workload.name.clone(), group: workload.group, what: workload.what.clone() };
    let workloads = if args.scaling.is_empty() { workloads.iter().map(about).collect() } else { Vec::new() };
    let (seconds, quick) = (start.elapsed().as_secs_f64(), args.quick);
    Ok(Report { machine, rounds, quick, seconds, allocators, missing, workloads, cells, scaling: points })
}

/// Compiles a program of tests/bench, unless that was done since it changed.
fn compile(source: &str, bin: &Path) -> Result<PathBuf> {
    let sources = build::root().join("tests/bench");
    let (file, program) = (sources.join(format!("{source}.c")), bin.join(source));
    let time = |path: &Path| path.metadata().and_then(|data| data.modified());
    if let (Ok(made), Ok(file), Ok(header)) = (time(&program), time(&file), time(&sources.join("bench.h")))
        && made > file
        && made > header
    {
        return Ok(program);
    }
    let mut cc = Command::new(tools::find("cc")?);
    tools::output(cc.args(FLAGS).arg(&file).arg("-o").arg(&program).args(["-lpthread", "-ldl", "-lm"]))?;
    Ok(program)
}

/// The programs that are single-stepped, once each: the count is the same every time.
fn steps(args: &Args, bin: &Path, missing: &mut Vec<Missing>) -> Result<Vec<Workload>> {
    let wanted: Vec<_> = STEPS.iter().filter(|(_, name)| wanted(args, name, Group::Micro)).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let micro = compile("micro", bin)?;
    let count = bin.join("count");
    let mut cc = Command::new(tools::find("cc")?);
    tools::output(cc.args(["-O1", "-o"]).arg(&count).arg(build::root().join("tests/instr/count.c")))?;
    let tried = tools::attempt(Command::new(&count).arg(&micro).arg(STEPS[0].0))?;
    if !tried.success {
        let why = format!("single-stepping does not work here: {}", tried.all().trim());
        missing.push(Missing { name: "instructions".into(), why });
        return Ok(Vec::new());
    }
    let workload = |(mode, name): &&(&str, &str)| Workload {
        name: name.to_string(),
        group: Group::Micro,
        what: "instructions of one malloc and free, counted by single-stepping".to_string(),
        program: count.clone(),
        arguments: vec![micro.display().to_string(), mode.to_string()],
        folder: bin.to_path_buf(),
        environment: vec![],
        kind: Kind::Steps(name.to_string()),
        rounds: Some(1),
    };
    Ok(wanted.iter().map(workload).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_keeps_what_is_around_its_marks() {
        let page = "a\n<!-- results: begin -->\nold\n<!-- results: end -->\nb\n";
        let right = "a\n<!-- results: begin -->\nnew\n<!-- results: end -->\nb\n";
        assert_eq!(between_marks(page, "new\n").as_deref(), Some(right));
        assert_eq!(between_marks("no marks", "new\n"), None);
    }
}
