//! `cargo xtask bench --inline`: the fast path in the caller beside plain calls, and beside mimalloc linked statically, with
//! and without link-time optimisation. One program (tests/bench/inline.c) in four builds, run in turns.

use crate::{bench_peers, build, tools};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the program prints, and what the table calls it; the target in ns for the fast path in the caller.
const FIGURES: [(&str, &str, f64); 6] = [
    ("lifo", "LIFO, unsized free", 1.4),
    ("lifo_sized", "LIFO, sized free", 1.3),
    ("fifo64", "64, then 64 FIFO", 2.6),
    ("list1000", "list of 1000", 3.7),
    ("random1024", "random over 1024, unsized", 4.0),
    ("random1024_sized", "random over 1024, sized", 2.6),
];

/// Builds the four programs, runs each in turn and prints the table of their best rounds.
pub fn run(rounds: u32) -> Result<()> {
    tools::need(&["gcc"])?;
    let folder = build::target_dir().join("bench/inline");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let programs = programs(&folder)?;
    let mut best: Vec<BTreeMap<String, f64>> = vec![BTreeMap::new(); programs.len()];
    for round in 0..rounds {
        eprintln!("bench: round {} of {rounds}", round + 1);
        for step in 0..programs.len() {
            let which = (round as usize + step) % programs.len();
            let text = tools::output(&mut Command::new(&programs[which].1))?;
            for line in text.lines() {
                let Some((name, value)) = line.strip_prefix("result ").and_then(|rest| rest.split_once(' ')) else {
                    continue;
                };
                let value: f64 = value.parse().with_context(|| format!("the program printed {line:?}"))?;
                let held = best[which].entry(name.to_string()).or_insert(value);
                *held = held.min(value);
            }
        }
    }
    println!("| 64 bytes, ns for an allocation and a free | {} | target |", names(&programs).join(" | "));
    println!("|---|{}---:|", "---:|".repeat(programs.len()));
    for (figure, title, target) in FIGURES {
        let mut row = Vec::new();
        for found in &best {
            row.push(format!("{:.2}", found.get(figure).with_context(|| format!("no figure {figure}"))?));
        }
        println!("| {title} | {} | {target} |", row.join(" | "));
    }
    Ok(())
}

fn names(programs: &[(&'static str, PathBuf)]) -> Vec<&'static str> {
    programs.iter().map(|(name, _)| *name).collect()
}

fn programs(folder: &Path) -> Result<Vec<(&'static str, PathBuf)>> {
    let library = build::build("native", true, None)?.static_lib;
    let include = build::root().join("include");
    let source = build::root().join("tests/bench/inline.c");
    let (package, _) = bench_peers::package("libmimalloc-sys")?;
    let mimalloc = package.join("c_src/mimalloc/v2");
    ensure!(mimalloc.is_dir(), "libmimalloc-sys has no folder {}", mimalloc.display());
    let mut made = Vec::new();
    for (name, file, ours, more) in [
        ("native, in the caller", "native-inline", true, &["-DAK_INLINE_NATIVE"][..]),
        ("native, called", "native-called", true, &[][..]),
        ("mimalloc 2, called", "mimalloc-called", false, &[][..]),
        ("mimalloc 2, LTO", "mimalloc-lto", false, &["-flto"][..]),
    ] {
        let program = folder.join(file);
        let mut command = Command::new("gcc");
        command.args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]).args(more);
        if ours {
            command.args(["-DHEADER=<alloc.h>", "-DALLOC=ak_alloc", "-DFREE=ak_free", "-DFREE_SIZED=ak_free_sized"]);
            command.arg("-I").arg(&include).arg(&source).arg(&library);
        } else {
            let object = folder.join(file).with_extension("o");
            let mut compile = Command::new("gcc");
            compile.args(["-std=gnu11", "-O3", "-DNDEBUG", "-DMI_DEBUG=0", "-w", "-c"]).args(more);
            compile.arg("-I").arg(mimalloc.join("include")).arg(mimalloc.join("src/static.c")).arg("-o").arg(&object);
            tools::output(&mut compile)?;
            command.args(["-DALLOC=mi_malloc", "-DFREE=mi_free", "-DFREE_SIZED(p,n)=mi_free_size(p,n)"]);
            command.args(["-DHEADER=<mimalloc.h>", "-I"]).arg(mimalloc.join("include"));
            command.arg(&source).arg(&object);
        }
        tools::output(command.args(["-lpthread", "-ldl", "-o"]).arg(&program))?;
        made.push((name, program));
    }
    Ok(made)
}
