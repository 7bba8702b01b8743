//! What is run: the programs of our own, with the figures that each prints. The real programs are added by xtask, which
//! knows where they lie.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// Prints figures of single operations; its own CPU time says nothing.
    Micro,
    /// A program of ours that does little but allocate.
    Stress,
    /// A program that people use.
    Real,
}

/// A program to run.
#[derive(Clone, Debug)]
pub struct Workload {
    pub name: String,
    pub group: Group,
    /// One line for the report.
    pub what: String,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// Where it runs; it may write there.
    pub folder: PathBuf,
    pub environment: Vec<(String, String)>,
    pub kind: Kind,
    /// Not more rounds than this, for those that take their time.
    pub rounds: Option<u32>,
}

/// How a program is run and what its output is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A program of ours: prints `result`, `check` and `served` lines.
    Own,
    /// Single-stepped by tests/instr/count.c: prints a number of instructions, of 32 operations, under this name.
    Steps(String),
    /// Any program: it must print the same with every allocator.
    Plain,
    /// A server that is measured while these commands, run after each other without an allocator of ours, ask it things.
    Server {
        /// The server is up when this file is there.
        socket: PathBuf,
        clients: Vec<Vec<String>>,
    },
}

/// A program of ours before it is compiled.
pub struct Own {
    pub name: &'static str,
    pub group: Group,
    /// File in tests/bench, without `.c`.
    pub source: &'static str,
    pub mode: &'static str,
    pub what: &'static str,
    pub rounds: Option<u32>,
    /// It takes any number of threads.
    pub threads: bool,
}

const fn micro(name: &'static str, source: &'static str, mode: &'static str, what: &'static str) -> Own {
    Own { name, group: Group::Micro, source, mode, what, rounds: None, threads: false }
}

const fn memory(mode: &'static str, what: &'static str) -> Own {
    Own { name: mode, group: Group::Micro, source: "memory", mode, what, rounds: Some(2), threads: false }
}

const fn stress(name: &'static str, source: &'static str, mode: &'static str, what: &'static str) -> Own {
    Own { name, group: Group::Stress, source, mode, what, rounds: None, threads: false }
}

const fn threaded(name: &'static str, source: &'static str, mode: &'static str, what: &'static str) -> Own {
    Own { name, group: Group::Stress, source, mode, what, rounds: None, threads: true }
}

/// The programs of tests/bench.
pub const OWN: &[Own] = &[
    micro("lifo64", "micro", "lifo64", "malloc and free of 64 bytes, others of the page live"),
    micro("empties64", "micro", "empties64", "the same, the page has no other block"),
    micro("mixed", "micro", "mixed", "one of 4096 live blocks of 16 to 255 bytes freed and allocated anew"),
    micro("million", "micro", "million", "a million blocks of 64 bytes allocated, then freed in random order"),
    micro("pair64k", "micro", "pair64k", "malloc and free of 64 KiB"),
    micro("pair64k_touch", "micro", "pair64k_touch", "the same, first byte written"),
    micro("pair1m", "micro", "pair1m", "malloc and free of 1 MiB"),
    micro("pair1m_touch", "micro", "pair1m_touch", "the same, first byte written"),
    micro("pair16m", "micro", "pair16m", "malloc and free of 16 MiB"),
    micro("pair16m_touch", "micro", "pair16m_touch", "the same, first byte written"),
    micro("realloc", "micro", "realloc", "realloc by half as much again, 16 bytes to 1 MiB, small blocks between"),
    micro("aligned", "micro", "aligned", "aligned_alloc(64, 256) and free"),
    micro("remote", "remote", "", "64 bytes allocated by one thread, freed by another"),
    memory("return", "200 MiB of small blocks freed, then 2 s of light use"),
    memory("return_large", "200 MiB of blocks of 1 MiB freed, then 2 s of light use"),
    memory("idle", "4 threads freed 50 MiB each and sleep"),
    memory("rest", "a small program at rest"),
    threaded("churn", "churn", "", "a server's churn; threads end and others take over their blocks"),
    threaded("queue", "queue", "", "producers allocate, consumers free, batches through a bounded queue"),
    threaded("batch_fifo", "batch", "fifo", "100 000 blocks of mixed sizes, freed first to last"),
    threaded("batch_lifo", "batch", "lifo", "the same, freed last to first"),
    threaded("batch_stride", "batch", "stride", "the same, freed in strides of 97"),
    threaded("replace", "replace", "", "random replacement and resizing of 60 000 blocks up to 32 KiB"),
    threaded("vectors", "vectors", "", "200 vectors grow by realloc"),
    stress("fragment", "fragment", "", "48 MiB live while the usual size wanders from 32 bytes to 4 KiB and back"),
    threaded("storm", "storm", "", "8000 short-lived threads, half of whose blocks another one frees"),
    threaded("sharing_active", "sharing", "active", "threads write to small blocks that they allocated"),
    threaded("sharing_passive", "sharing", "passive", "the same after freeing neighbours that came from one thread"),
    threaded("large", "large", "", "blocks of 32 KiB to 4 MiB, 24 live, replaced at random"),
    threaded("zeroed", "zeroed", "", "calloc of 16 bytes to 64 KiB, checked and written"),
    threaded("trees", "trees", "", "syntax trees built, folded, freed"),
    threaded("free_only", "free_only", "", "one thread allocates, another does nothing but free"),
    threaded("strings", "strings", "", "a hash table of copied strings"),
    threaded("exchange", "exchange", "", "threads swap blocks through a shared table and free what they get"),
];

/// A figure that a program prints.
pub struct Figure {
    pub name: &'static str,
    pub what: &'static str,
    pub unit: &'static str,
    /// More is better.
    pub more: bool,
}

const fn figure(name: &'static str, what: &'static str, unit: &'static str) -> Figure {
    Figure { name, what, unit, more: false }
}

/// The figures that programs print beside their operations, in the order of the report.
pub const FIGURES: &[Figure] = &[
    figure("lifo64", "alloc+free 64 B, LIFO", "ns"),
    figure("steps_lifo64", "the same, instructions", "instr"),
    figure("empties64", "alloc+free 64 B, page empties each time", "ns"),
    figure("steps_empties64", "the same, instructions", "instr"),
    figure("mixed", "mixed 16-255 B, 4096 live: free+alloc", "ns"),
    figure("million_alloc", "1e6 x 64 B: alloc", "ns"),
    figure("million_free", "1e6 x 64 B: free in random order", "ns"),
    figure("pair64k", "pair of 64 KiB", "ns"),
    figure("pair64k_touch", "pair of 64 KiB, first byte written", "ns"),
    figure("pair1m", "pair of 1 MiB", "ns"),
    figure("pair1m_touch", "pair of 1 MiB, first byte written", "ns"),
    figure("pair16m", "pair of 16 MiB", "ns"),
    figure("pair16m_touch", "pair of 16 MiB, first byte written", "ns"),
    figure("realloc", "realloc x1.5 up to 1 MiB, a step", "ns"),
    figure("aligned", "aligned_alloc(64, 256)+free", "ns"),
    figure("remote_alloc", "allocated here, freed there: alloc", "ns"),
    figure("remote_free", "allocated here, freed there: free", "ns"),
    Figure { name: "return", what: "200 MiB of small blocks freed, 2 s: went back", unit: "%", more: true },
    Figure { name: "return_large", what: "200 MiB of 1 MiB blocks freed, 2 s: went back", unit: "%", more: true },
    figure("idle", "4 idle threads after freeing 200 MiB hold", "MiB"),
    figure("rss_per_live", "fragment: resident by live bytes", "ratio"),
    figure("rest", "small program at rest, resident", "KiB"),
    figure("rest_anonymous", "of that not backed by a file", "KiB"),
];

/// What is single-stepped: mode of micro.c, name of the figure.
pub const STEPS: [(&str, &str); 2] = [("steps:lifo64", "steps_lifo64"), ("steps:empties64", "steps_empties64")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_used_once() {
        let mut names: Vec<_> = OWN.iter().map(|own| own.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(STEPS.iter().all(|(_, name)| FIGURES.iter().any(|figure| figure.name == *name)));
    }
}
