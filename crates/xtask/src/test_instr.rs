//! Instruction budgets: what a call through Allokit costs beyond the backend's own, counted exactly by single-stepping
//! (tests/instr). The hot paths of the native backend have budgets of their own. Wall-clock time gates nothing.

use crate::build::{self, Options};
use crate::case::{Case, LeftOut};
use crate::tools;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

const CALLS: u64 = 32;
/// What `ak_alloc` may add to a foreign backend's call, in instructions: with tracking built in and off, and without it.
const ADDED: [(bool, u64); 2] = [(true, 12), (false, 8)];
/// What a call on the native backend may cost, loop and call included (about 6): alloc, free.
const NATIVE: [(&str, u64); 2] = [("alloc", 19), ("free", 22)];
/// What an allocation with stacks may cost, loop and call included, few frames deep: sampled (0: each has its stack).
const STACKS: [(&str, u64); 2] = [("1G", 80), ("0", 260)];
/// What a pair of the fast path in the caller may cost, loop included (3).
const INLINE: [(&str, u64); 2] = [("unsized", 24), ("sized", 20)];
/// What an arena's allocation, a pool's take and give and a region's alloc and free may cost, loop and calls included.
const ARENA: [(&str, u64); 3] = [("arena", 21), ("pool", 26), ("region", 92)];

/// What a heap's calls may cost while one thread uses it, loop and call included: with and without a limit.
const HEAP: [(&str, u64); 3] = [("alloc", 54), ("free", 92), ("general", 122)];

/// One call's instructions, the loop's included.
struct Counter {
    folder: tempfile::TempDir,
}

impl Counter {
    fn new() -> Result<Counter> {
        let folder = tempfile::tempdir()?;
        let source = build::root().join("tests/instr/count.c");
        tools::run(compiler().arg("-o").arg(folder.path().join("count")).arg(source))?;
        Ok(Counter { folder })
    }

    /// Builds calls.c over two functions of a library and counts one of them.
    fn count(&self, name: &str, functions: (&str, &str), libraries: &[&Path], which: &str) -> Result<u64> {
        let program = self.folder.path().join(name);
        let source = build::root().join("tests/instr/calls.c");
        let mut command = compiler();
        command.arg(format!("-DALLOC={}", functions.0)).arg(format!("-DFREE={}", functions.1));
        command.arg("-o").arg(&program).arg(source).args(libraries).args(["-lpthread", "-ldl", "-lm"]);
        tools::run(&mut command)?;
        Ok(self.steps(&program, which)? / CALLS)
    }

    /// The instructions between the marks of a program.
    fn steps(&self, program: &Path, which: &str) -> Result<u64> {
        counted(Command::new(self.folder.path().join("count")).arg(program).arg(which))
    }
}

/// What count prints.
fn counted(command: &mut Command) -> Result<u64> {
    let text = tools::output(command)
        .map_err(|error| LeftOut::because(format!("single-stepping does not work here: {error:#}")))?;
    text.trim().parse().with_context(|| format!("count printed {text:?}"))
}

fn compiler() -> Command {
    let mut command = Command::new("cc");
    command.args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror"]);
    command
}

/// The backend's own library, as its crate has built it, and its two functions.
fn own(backend: &str) -> Result<(PathBuf, (&'static str, &'static str))> {
    let (package, file, functions) = match backend {
        "mimalloc" => ("libmimalloc-sys", "out/libmimalloc.a", ("mi_malloc", "mi_free")),
        _ => ("tikv-jemalloc-sys", "out/lib/libjemalloc_pic.a", ("_rjem_malloc", "_rjem_free")),
    };
    let folder = build::target_dir().join("allokit/cargo").join(backend).join("release/build");
    let mut found: Vec<PathBuf> = std::fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(package)))
        .map(|path| path.join(file))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    let library = found.pop().with_context(|| format!("no {file} of {package} under {}", folder.display()))?;
    Ok((library, functions))
}

/// The cases of this module.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backend in ["mimalloc", "jemalloc"] {
        for (track, budget) in ADDED {
            let mode = if track { "tracking-off" } else { "no-tracking" };
            cases.push(Case::new(format!("instructions/{backend}/{mode}"), move || added(backend, track, budget)));
        }
    }
    for track in [true, false] {
        let name = if track { "instructions/native/tracking-off" } else { "instructions/native/no-tracking" };
        cases.push(Case::new(name, move || native(track)));
    }
    cases.push(Case::new("instructions/stacks", stacks));
    cases.push(Case::new("instructions/inline", inline));
    cases.push(Case::new("instructions/arena", arena));
    cases.push(Case::new("instructions/heap", heap));
    cases
}

/// The hot paths of arenas, pools and regions: the first two in the caller.
fn arena() -> Result<()> {
    let built = build::build("native", true, None)?;
    let counter = Counter::new()?;
    let program = counter.folder.path().join("arena");
    let root = build::root();
    let mut command = Command::new("gcc");
    command.args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-I"]);
    command.arg(root.join("include")).arg("-o").arg(&program).arg(root.join("tests/instr/arena.c"));
    tools::run(command.arg(&built.static_lib).args(["-lpthread", "-ldl"]))?;
    for (which, budget) in ARENA {
        let cost = counter.steps(&program, which)? / CALLS;
        ensure!(cost > 5, "{which} was counted as {cost} instructions: the count is wrong");
        ensure!(cost <= budget, "{which} costs {cost} instructions, loop included; {budget} are allowed");
    }
    Ok(())
}

/// Heaps: 64 blocks of 64 bytes, in pages of sixteen at first, so the way around a page that fills up is in the figures.
fn heap() -> Result<()> {
    let built = build::build("native", true, None)?;
    let counter = Counter::new()?;
    let program = counter.folder.path().join("heap");
    let root = build::root();
    let mut command = Command::new("gcc");
    command.args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-I"]);
    command.arg(root.join("include")).arg("-o").arg(&program).arg(root.join("tests/heap/calls.c"));
    tools::run(command.arg(&built.static_lib).args(["-lpthread", "-ldl", "-lm"]))?;
    for (which, budget) in HEAP {
        for limit in [false, true] {
            let mut command = Command::new(counter.folder.path().join("count"));
            command.arg(&program).arg(which).args(limit.then_some("limit"));
            let cost = counted(&mut command)? / CALLS;
            ensure!(cost > 5, "{which} was counted as {cost} instructions: the count is wrong");
            ensure!(
                cost <= budget,
                "{which} of a heap (limit: {limit}) costs {cost} instructions, loop included; {budget} are allowed"
            );
        }
    }
    Ok(())
}

fn added(backend: &str, track: bool, budget: u64) -> Result<()> {
    let built = build::build_with(&Options { track, ..Options::new(backend) })?;
    let (own_library, functions) = own(backend)?;
    let counter = Counter::new()?;
    let through = counter.count("through", ("ak_alloc", "ak_free"), &[&built.static_lib], "alloc")?;
    let own = counter.count("own", functions, &[&own_library], "alloc")?;
    ensure!(own > 5, "the backend's own call was counted as {own} instructions: the count is wrong");
    let added = through.saturating_sub(own);
    ensure!(
        added <= budget,
        "ak_alloc on {backend} costs {through} instructions, the backend's own call {own}: {added} more, and {budget} \
         are allowed"
    );
    Ok(())
}

fn native(track: bool) -> Result<()> {
    let built = build::build_with(&Options { track, ..Options::new("native") })?;
    let counter = Counter::new()?;
    for (which, budget) in NATIVE {
        let cost = counter.count("native", ("ak_alloc", "ak_free"), &[&built.static_lib], which)?;
        ensure!(cost > 5, "{which} was counted as {cost} instructions: the count is wrong");
        ensure!(cost <= budget, "{which} on native costs {cost} instructions, loop included; {budget} are allowed");
    }
    Ok(())
}

/// Stacks: of a sample what passes by, and each by frame pointers, from a function that `main` calls.
fn stacks() -> Result<()> {
    let built = build::build("native", true, None)?;
    let counter = Counter::new()?;
    counter.count("stacks", ("ak_alloc", "ak_free"), &[&built.static_lib], "alloc")?;
    for (bytes, budget) in STACKS {
        let mut command = Command::new(counter.folder.path().join("count"));
        command.arg(counter.folder.path().join("stacks")).arg("alloc").env("ALLOKIT_TRACK", "stacks");
        // (The seed: whether one of the counted calls is sampled must not be chance.)
        command.env("ALLOKIT_SAMPLE", bytes).env("ALLOKIT_SAMPLE_SEED", "1").env("ALLOKIT_UNWIND", "fp");
        let cost = counted(&mut command)? / CALLS;
        ensure!(cost > 30, "with ALLOKIT_SAMPLE={bytes} an allocation was counted as {cost}: the count is wrong");
        ensure!(
            cost <= budget,
            "with ALLOKIT_SAMPLE={bytes} it costs {cost} instructions, loop included; {budget} are allowed"
        );
    }
    Ok(())
}

fn inline() -> Result<()> {
    let built = build::build("native", true, None)?;
    let counter = Counter::new()?;
    let program = counter.folder.path().join("inline");
    let root = build::root();
    let mut command = Command::new("gcc");
    command.args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-DAK_INLINE_NATIVE", "-I"]);
    command.arg(root.join("include")).arg("-o").arg(&program).arg(root.join("tests/instr/inline.c"));
    tools::run(command.arg(&built.static_lib).args(["-lpthread", "-ldl"]))?;
    for (which, budget) in INLINE {
        let cost = counter.steps(&program, which)? / CALLS;
        ensure!(cost > 5, "{which} was counted as {cost} instructions: the count is wrong");
        ensure!(cost <= budget, "a pair, {which}, costs {cost} instructions, loop included; {budget} are allowed");
    }
    Ok(())
}
