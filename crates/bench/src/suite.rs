//! The allocators, and the rounds: in each, every program runs on every allocator, one right after the other, and who
//! begins changes, so that a change in the machine's speed falls on all alike.

use crate::measure::{self, Runner, Sample};
use crate::plan::{Group, Kind, Workload};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What everything is set against.
pub const REFERENCE: &str = "mimalloc2";
/// What the targets are for.
pub const SUBJECT: &str = "native";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Allocator {
    pub name: String,
    pub version: String,
    /// How it was built, or where it is from.
    pub origin: String,
    /// None: the C library's own.
    pub library: Option<PathBuf>,
    pub environment: Vec<(String, String)>,
}

impl Allocator {
    /// Whether a file that served a call is this allocator's.
    pub fn must_be(&self, file: &str) -> Result<()> {
        let right = match &self.library {
            Some(library) => Path::new(file) == library || same_file(Path::new(file), library),
            None => Path::new(file).file_name().is_some_and(|name| name.to_string_lossy().starts_with("libc.so")),
        };
        ensure!(right, "{} was to serve, but {file} did", self.name);
        Ok(())
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

/// All runs of one program on one allocator.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cell {
    pub workload: String,
    pub allocator: String,
    pub samples: Vec<Sample>,
    /// Why there are no more samples.
    pub failed: Option<String>,
}

/// Runs everything. `extra` are arguments for the programs of ours.
pub fn run(
    workloads: &[Workload],
    allocators: &[Allocator],
    rounds: u32,
    extra: &[String],
    runner: &Runner,
) -> Result<Vec<Cell>> {
    let mut cells: Vec<Cell> = Vec::new();
    let mut checks: Vec<Option<(String, String)>> = vec![None; workloads.len()];
    for workload in workloads {
        for allocator in allocators {
            let (workload, allocator) = (workload.name.clone(), allocator.name.clone());
            cells.push(Cell { workload, allocator, ..Cell::default() });
        }
    }
    // Rehearsal of the programs that cannot say who serves them; it also warms the file cache.
    for (w, workload) in workloads.iter().enumerate().filter(|(_, workload)| traced(workload)) {
        eprintln!("bench: {}: is it served by whom it should be?", workload.name);
        for (a, allocator) in allocators.iter().enumerate() {
            if let Err(error) = measure::who_serves(workload, allocator, runner) {
                fail(&mut cells[w * allocators.len() + a], &error);
            }
        }
    }
    for round in 0..rounds {
        for (w, workload) in workloads.iter().enumerate() {
            if workload.rounds.is_some_and(|most| round >= most) {
                continue;
            }
            eprintln!("bench: round {} of {rounds}: {}", round + 1, workload.name);
            for turn in 0..allocators.len() {
                let a = (turn + round as usize + w) % allocators.len();
                let cell = &mut cells[w * allocators.len() + a];
                if cell.failed.is_some() {
                    continue;
                }
                let extra = if matches!(workload.kind, Kind::Own) { extra } else { &[] };
                match measure::run(workload, &allocators[a], extra, runner) {
                    Ok(run) => {
                        let (who, right) =
                            checks[w].get_or_insert_with(|| (allocators[a].name.clone(), run.check.clone()));
                        if *right == run.check {
                            cell.samples.push(run.sample);
                        } else {
                            fail(cell, &anyhow::anyhow!("its output differs from that with {who}"));
                        }
                    }
                    Err(error) => fail(cell, &error),
                }
            }
        }
    }
    Ok(cells)
}

fn traced(workload: &Workload) -> bool {
    workload.group == Group::Real
}

fn fail(cell: &mut Cell, error: &anyhow::Error) {
    eprintln!("bench: {} on {} FAILED: {error:#}", cell.workload, cell.allocator);
    cell.failed = Some(format!("{error:#}"));
}
