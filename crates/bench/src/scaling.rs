//! How the threaded programs scale: each runs with several numbers of threads on every allocator, the work of one thread
//! being always the same; operations per second of wall clock, the best of the rounds.

use crate::measure::{self, Runner};
use crate::plan::Workload;
use crate::suite::Allocator;
use anyhow::Result;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    pub workload: String,
    pub allocator: String,
    pub threads: u32,
    pub ops_per_second: f64,
}

pub fn run(
    workloads: &[Workload],
    allocators: &[Allocator],
    threads: &[u32],
    rounds: u32,
    extra: &[String],
    runner: &Runner,
) -> Result<Vec<Point>> {
    let mut points: Vec<Point> = Vec::new();
    for workload in workloads {
        for &count in threads {
            eprintln!("bench: scaling: {} with {count} threads", workload.name);
            let mut arguments = extra.to_vec();
            arguments.extend(["-t".to_string(), count.to_string()]);
            let mut best = vec![0.0f64; allocators.len()];
            for round in 0..rounds as usize {
                for turn in 0..allocators.len() {
                    let a = (turn + round) % allocators.len();
                    match measure::run(workload, &allocators[a], &arguments, runner) {
                        Ok(run) => {
                            let figure = |name| run.sample.figures.get(name).copied().unwrap_or(0.0);
                            best[a] = best[a].max(figure("ops") / figure("seconds").max(1e-9));
                        }
                        Err(error) => {
                            let (name, who) = (&workload.name, &allocators[a].name);
                            eprintln!("bench: {name} with {count} threads on {who} FAILED: {error:#}");
                        }
                    }
                }
            }
            for (allocator, ops_per_second) in allocators.iter().zip(best) {
                let (workload, allocator) = (workload.name.clone(), allocator.name.clone());
                // 0: it failed.
                points.push(Point { workload, allocator, threads: count, ops_per_second });
            }
        }
    }
    Ok(points)
}
