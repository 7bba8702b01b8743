//! The benchmark suite as a test: its programs compile without a warning, run, and give a report in which no number is
//! missing. What the numbers are is not tested: the machine is busy while tests run.

use crate::build;
use crate::case::Case;
use crate::tools;
use crate::{bench, bench_arenas};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The cases of this module.
pub fn cases() -> Vec<Case> {
    vec![Case::new("bench/smoke", smoke), Case::new("bench/arenas", arenas)]
}

/// `cargo xtask bench --arenas`, one round: all libraries are there, with a figure in each row that is theirs.
fn arenas() -> Result<()> {
    let folder = build::target_dir().join("bench/arenas-smoke");
    fs::create_dir_all(&folder)?;
    let report = bench_arenas::measure(1, &folder)?;
    let missing: Vec<String> = report.missing.iter().map(|one| format!("{}: {}", one.name, one.why)).collect();
    ensure!(missing.is_empty(), "could not be had:\n{}", missing.join("\n"));
    for kind in &report.kinds {
        let mut figures = vec!["l1", "560k"];
        if kind.name.starts_with("allokit") {
            figures.extend(["aligned_l1", "region_pair", "region_long_way", "region_dearest_100000", "pool_pair"]);
        }
        for figure in figures {
            let found = report.arenas.iter().find(|one| one.kind == kind.name && one.figure == figure);
            let found = found.with_context(|| format!("{} has no {figure}", kind.name))?;
            ensure!(found.rounds.len() == 1 && found.rounds[0] > 0.0, "{}: {figure} is {:?}", kind.name, found.rounds);
        }
    }
    ensure!(!report.markdown().contains("not measured"), "a target is not measured:\n{}", report.markdown());
    Ok(())
}

fn smoke() -> Result<()> {
    let folder = build::root().join("tests/bench");
    let scratch = tempfile::tempdir()?;
    let mut sources: Vec<PathBuf> = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    sources.retain(|file| file.extension().is_some_and(|end| end == "c"));
    ensure!(sources.len() > 10, "only {} programs in {}", sources.len(), folder.display());
    for source in &sources {
        strictly(source, scratch.path())?;
    }
    let report = bench::smoke(&["lifo64", "trees"], &["glibc", "native"])?;
    let json: serde_json::Value = serde_json::from_str(&report).context("the report is no JSON")?;
    complete(&json)
}

/// Compiles a program with both compilers, every warning an error.
fn strictly(source: &Path, folder: &Path) -> Result<()> {
    let name = source.file_name().context("a source without a name")?;
    for compiler in ["gcc", "clang"] {
        let object = folder.join(name).with_extension(format!("{compiler}.o"));
        let mut command = Command::new(tools::find(compiler)?);
        command.args(bench::FLAGS).args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-c"]);
        tools::output(command.arg(source).arg("-o").arg(object))?;
    }
    Ok(())
}

/// Every run is there, with its numbers; the allocators are those that were asked for.
fn complete(json: &serde_json::Value) -> Result<()> {
    let list = |key: &str| json[key].as_array().with_context(|| format!("the report has no {key}"));
    // A machine that cannot single-step says so here.
    let missing = list("missing")?.iter().filter(|one| one["name"] != "instructions").count();
    ensure!(missing == 0, "could not be had: {}", json["missing"]);
    ensure!(list("allocators")?.len() == 2, "the allocators are {}", json["allocators"]);
    for key in ["cpu", "kernel", "libc", "date", "commit"] {
        ensure!(json["machine"][key].as_str().is_some_and(|text| !text.is_empty()), "the report has no {key}");
    }
    // Two programs and the two that are single-stepped, by two allocators.
    let cells = list("cells")?;
    let stepped = cells.iter().filter(|cell| cell["workload"].as_str().is_some_and(|name| name.starts_with("steps_")));
    ensure!(cells.len() - stepped.count() == 4, "{} programs by allocators", cells.len());
    for cell in cells {
        let name = format!("{} on {}", cell["workload"], cell["allocator"]);
        ensure!(cell["failed"].is_null(), "{name} failed: {}", cell["failed"]);
        let sample = &cell["samples"][0];
        for key in ["wall", "peak_kib"] {
            ensure!(sample[key].as_f64().is_some_and(|number| number > 0.0), "{name} has no {key}: {sample}");
        }
        ensure!(sample["cpu"].is_number(), "{name} has no cpu: {sample}");
        let own = cell["workload"] == "lifo64" || cell["workload"] == "trees";
        let figure = if cell["workload"] == "lifo64" { "lifo64" } else { "ops" };
        ensure!(!own || sample["figures"][figure].as_f64() > Some(0.0), "{name} has no {figure}: {sample}");
    }
    let mean = list("means")?.iter().find(|mean| mean["measure"] == "peak").context("no mean of peaks")?;
    ensure!(mean["programs"] == 1, "the means are of {} programs", mean["programs"]);
    ensure!(list("targets")?.len() > 15, "targets are missing");
    Ok(())
}
