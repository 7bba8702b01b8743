//! `cargo xtask test`: every case of every module, two at a time, one line each, and a summary.

use crate::case::{Case, LeftOut};
use crate::{
    build, proof, test_arena, test_bench, test_cli, test_conformance, test_consumers, test_examples, test_growth,
    test_guard, test_heap, test_instr, test_misuse, test_page, test_preload, test_profile, test_rust, test_sampled,
    test_stacks, tools,
};
use anyhow::{Result, bail, ensure};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

#[derive(clap::Args)]
pub struct Args {
    /// Only the cases whose name contains this; may be given several times
    #[arg(long)]
    only: Vec<String>,
    /// List the cases and run none
    #[arg(long)]
    list: bool,
    /// Leave out Miri, the sanitizers, emulation and the mutants
    #[arg(long)]
    quick: bool,
}

/// Cases, or beginnings of their names, that run only when they are asked for by such a beginning.
const BY_NAME: [&str; 9] = [
    "sanitizer/",
    "miri/allokit-arena",
    "miri/allokit-heap",
    "miri/allokit-native",
    "conformance/jemalloc/static/c++",
    "conformance/jemalloc-notrack",
    "conformance/system/shared/c++-sites-clang",
    "conformance/system-notrack",
    "preload/cases/native/stacks",
];

enum Outcome {
    Passed,
    Failed(String),
    LeftOut(String),
}

pub fn run(args: &Args) -> Result<()> {
    let mut cases: Vec<Case> = Vec::new();
    cases.extend(test_rust::cases());
    cases.extend(proof::cases());
    cases.extend(test_conformance::cases());
    cases.extend(test_arena::cases());
    cases.extend(test_heap::cases());
    cases.extend(test_guard::cases());
    cases.extend(test_sampled::cases());
    cases.extend(test_misuse::cases());
    cases.extend(test_instr::cases());
    cases.extend(test_consumers::cases());
    cases.extend(test_examples::cases());
    cases.extend(test_preload::cases());
    cases.extend(test_profile::cases());
    cases.extend(test_growth::cases());
    cases.extend(test_stacks::cases());
    cases.extend(test_page::cases());
    cases.extend(test_cli::cases());
    cases.extend(test_bench::cases());
    if !args.only.is_empty() {
        cases.retain(|case| args.only.iter().any(|word| case.name.contains(word.as_str())));
    }
    // They take many minutes: the first build Rust's own library, Miri interprets many calls. Of the others a run has
    // neighbours that are nearly the same.
    let by_name: Vec<&str> = BY_NAME
        .into_iter()
        .filter(|name| !args.only.iter().any(|word| name.starts_with(word.as_str()) || word.starts_with(name)))
        .collect();
    let before = cases.len();
    cases.retain(|case| !by_name.iter().any(|name| case.name.starts_with(name)));
    if args.only.is_empty() && cases.len() < before {
        println!("not part of this run (cargo xtask test --only NAME runs them): {}", by_name.join(", "));
    }
    if args.quick {
        cases.retain(|case| !["miri/", "sanitizer/", "aarch64", "mutants"].iter().any(|slow| case.name.contains(slow)));
    }
    ensure!(!cases.is_empty(), "no case is called so; cargo xtask test --list names them all");
    if args.list {
        cases.iter().for_each(|case| println!("{}", case.name));
        return Ok(());
    }
    prepare(&cases)?;

    let start = Instant::now();
    let outcomes: Mutex<Vec<(usize, Outcome)>> = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get().min(4));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((index, case)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    cases.get(index).map(|case| (index, case))
                } {
                    let started = Instant::now();
                    let outcome = run_one(case);
                    let seconds = started.elapsed().as_secs_f64();
                    // One lock for the line and the list, so that lines do not mix.
                    let mut outcomes = outcomes.lock().unwrap_or_else(|poison| poison.into_inner());
                    let line = match &outcome {
                        Outcome::Passed => format!("ok        {} ({seconds:.1} s)", case.name),
                        Outcome::Failed(why) => format!("FAILED    {} ({seconds:.1} s)\n{}", case.name, indented(why)),
                        Outcome::LeftOut(why) => format!("LEFT OUT  {}: {why}", case.name),
                    };
                    println!("{line}");
                    let _ = std::io::stdout().flush();
                    outcomes.push((index, outcome));
                }
            });
        }
    });
    summary(&cases, outcomes.into_inner().unwrap_or_else(|poison| poison.into_inner()), start)
}

/// What several cases need, before they ask for it at once.
fn prepare(cases: &[Case]) -> Result<()> {
    let wants =
        |prefixes: &[&str]| cases.iter().any(|case| prefixes.iter().any(|prefix| case.name.starts_with(prefix)));
    if wants(&[
        "arena/",
        "heap/",
        "examples/",
        "conformance/",
        "misuse/",
        "instructions/",
        "consumers/",
        "mutants",
        "header/",
        "preload/",
        "sampled/",
        "profile/",
        "stacks/",
        "report/",
        "cli/",
        "bench/",
    ]) {
        tools::need(&["gcc", "g++", "clang", "make", "ld", "objcopy", "ar"])?;
    }
    for backend in build::BACKENDS {
        if wants(&["misuse/", "instructions/"]) {
            build::build(backend, false, None)?;
        }
        if wants(&["conformance/", "misuse/", "instructions/", "consumers/"]) {
            build::build(backend, true, None)?;
        }
        if wants(&["preload/"]) && build::has_preload(backend) {
            build::build_preload(&build::Options::new(backend))?;
        }
    }
    Ok(())
}

fn run_one(case: &Case) -> Outcome {
    match catch_unwind(AssertUnwindSafe(|| (case.run)())) {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(error)) => match error.downcast_ref::<LeftOut>() {
            Some(reason) => Outcome::LeftOut(reason.to_string()),
            None => Outcome::Failed(format!("{error:#}")),
        },
        Err(_) => Outcome::Failed("the case itself panicked".to_string()),
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

fn summary(cases: &[Case], mut outcomes: Vec<(usize, Outcome)>, start: Instant) -> Result<()> {
    outcomes.sort_by_key(|(index, _)| *index);
    let (mut passed, mut failed, mut skipped) = (0, Vec::new(), 0);
    for (index, outcome) in &outcomes {
        match outcome {
            Outcome::Passed => passed += 1,
            Outcome::Failed(_) => failed.push(cases[*index].name.as_str()),
            Outcome::LeftOut(why) => {
                if skipped == 0 {
                    println!("\nLEFT OUT on this machine:");
                }
                println!("  {}: {why}", cases[*index].name);
                skipped += 1;
            }
        }
    }
    if !failed.is_empty() {
        println!("\nFAILED:");
        failed.iter().for_each(|name| println!("  {name}"));
    }
    println!("\nin {} s", start.elapsed().as_secs());
    println!("{passed} passed, {} failed, {skipped} skipped", failed.len());
    if !failed.is_empty() {
        bail!("{} cases failed", failed.len());
    }
    Ok(())
}
