//! What is looked for beyond the unit tests: the model of the native heap's protocols (loom), Miri and the sanitizers on
//! its tests, the fuzzer and the long stress. The first three are cases of `cargo xtask test`; `cargo xtask fuzz` and
//! `cargo xtask soak` take as long as they are told to.

use crate::build;
use crate::case::{Case, LeftOut};
use crate::tools;
use anyhow::{Context, Result, bail, ensure};
use std::path::PathBuf;
use std::process::Command;

/// What the sanitizers leave out: the thousands of random sequences, and the classes, which are plain arithmetic.
const SANITIZED: [&str; 4] = ["--skip", "property", "--skip", "classes"];

/// The programs in fuzz/fuzz_targets.
const FUZZ_TARGETS: [&str; 8] = ["calls", "arena", "region", "pool", "stack", "scratch", "heap", "guard"];

#[derive(clap::Args)]
pub struct FuzzArgs {
    /// How long; inputs that reach new code are kept in target/fuzz/corpus for the next time
    #[arg(long, default_value = "60")]
    seconds: u64,
    /// What: calls (the C functions), or an allocator of allokit-arena against its model
    #[arg(long, default_value = "calls", value_parser = FUZZ_TARGETS)]
    target: String,
}

#[derive(clap::Args)]
pub struct SoakArgs {
    /// How long; a line a minute
    #[arg(long, default_value = "30")]
    minutes: f64,
    /// Instead: 100 million operations over 100 000 live blocks of a region
    #[arg(long)]
    region: bool,
}

/// The cases of this module.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![Case::new("rust/loom", loom), Case::new("rust/fuzz-and-soak-build", builds)];
    for which in ["thread", "address"] {
        cases.push(Case::new(format!("sanitizer/{which}"), move || sanitizer(which)));
    }
    cases
}

/// A cargo that knows nothing of the one that runs this program.
fn cargo(toolchain: Option<&str>) -> Command {
    let mut command = match toolchain {
        Some(toolchain) => {
            let mut command = Command::new("rustup");
            command.args(["run", toolchain, "cargo"]);
            command
        }
        None => Command::new("cargo"),
    };
    command.current_dir(build::root());
    command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO_MANIFEST_DIR");
    command
}

fn loom() -> Result<()> {
    let text = tools::output(cargo(None).args(["test", "--quiet", "-p", "allokit-native", "--test", "model"]))?;
    ensure!(text.contains("test result: ok"), "the model ran no case:\n{text}");
    Ok(())
}

/// The native backend's tests with threads, under a sanitizer that watches the metadata as well as std.
fn sanitizer(which: &str) -> Result<()> {
    // ThreadSanitizer must see std's own atomics, or it takes what they order for races.
    let with_std = which == "thread";
    let component = if with_std { "rust-src" } else { "rustc" };
    let installed = ["component", "list", "--installed", "--toolchain", "nightly"];
    let installed = tools::attempt(Command::new("rustup").args(installed));
    if !installed.is_ok_and(|done| done.success && done.stdout.contains(component)) {
        return Err(LeftOut::because("it needs rustup toolchain install nightly --component rust-src"));
    }
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut command = cargo(Some("nightly"));
    command.args(["test", "--quiet", "-p", "allokit-native", "--lib", "--target", &target]);
    command.args(with_std.then_some("-Zbuild-std")).arg("--").args(SANITIZED);
    // Tests unwind; without this, core would be built twice and be in its own way.
    command.env("CARGO_PROFILE_DEV_PANIC", "unwind");
    command.env("RUSTFLAGS", format!("-Zsanitizer={which}"));
    command.env("CARGO_TARGET_DIR", build::target_dir().join(format!("sanitizer-{which}")));
    command.env("ASAN_OPTIONS", "detect_leaks=0");
    let text = tools::output(&mut command)?;
    ensure!(text.contains("test result: ok"), "no test ran:\n{text}");
    Ok(())
}

fn builds() -> Result<()> {
    tools::need(&["c++"])?;
    build_fuzz().map(drop)?;
    build_soak().map(drop)
}

/// The fuzz targets with libFuzzer's view of which code is reached; the folder of the programs.
fn build_fuzz() -> Result<PathBuf> {
    let flags = [
        "--cfg fuzzing",
        "-Cpasses=sancov-module",
        "-Cllvm-args=-sanitizer-coverage-level=4",
        "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
        "-Cllvm-args=-sanitizer-coverage-pc-table",
        "-Cllvm-args=-sanitizer-coverage-trace-compares",
        "-Ccodegen-units=1",
    ];
    let folder = build::target_dir().join("fuzz");
    // Named, so that the flags are for the target alone and not for build scripts.
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut command = cargo(None);
    command.args(["build", "--quiet", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target", &target]);
    command.env("RUSTFLAGS", flags.join(" ")).env("CARGO_TARGET_DIR", &folder);
    tools::output(&mut command)?;
    Ok(folder.join(target).join("release"))
}

fn build_soak() -> Result<PathBuf> {
    let folder = build::target_dir().join("soak");
    let mut command = cargo(None);
    command.args(["build", "--quiet", "--release", "--manifest-path", "tests/soak/Cargo.toml"]);
    command.env("CARGO_TARGET_DIR", &folder);
    tools::output(&mut command)?;
    Ok(folder.join("release/allokit-soak"))
}

pub fn fuzz(args: &FuzzArgs) -> Result<()> {
    tools::need(&["c++"])?;
    let program = build_fuzz()?.join(&args.target);
    // The C functions' corpus has kept its name.
    let folder =
        build::target_dir().join(if args.target == "calls" { "fuzz".into() } else { format!("fuzz/{}", args.target) });
    let (corpus, found) = (folder.join("corpus"), folder.join("found"));
    for folder in [&corpus, &found] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let mut command = Command::new(&program);
    command.arg(format!("-max_total_time={}", args.seconds)).args(["-max_len=2000", "-len_control=0"]);
    command.arg(format!("-artifact_prefix={}/", found.display())).arg(&corpus);
    if !command.status().with_context(|| format!("cannot run {}", program.display()))?.success() {
        bail!("the fuzzer found something: run {} with the file that it names", program.display());
    }
    Ok(())
}

/// The long form of a unit test of regions.
fn soak_region() -> Result<()> {
    let mut command = cargo(None);
    command.args(["test", "--quiet", "--release", "-p", "allokit-arena", "--lib", "many_operations"]);
    let text = tools::output(command.env("ALLOKIT_REGION_OPERATIONS", "100000000"))?;
    ensure!(text.contains("1 passed"), "the test did not run:\n{text}");
    println!(
        "100 million operations over 100 000 live blocks: the region's records are sound, and so is what the blocks hold"
    );
    Ok(())
}

pub fn soak(args: &SoakArgs) -> Result<()> {
    if args.region {
        return soak_region();
    }
    for which in ["thread", "address"] {
        match sanitizer(which) {
            Ok(()) => println!("the native backend's tests are clean under the {which} sanitizer"),
            Err(error) if error.is::<LeftOut>() => println!("LEFT OUT: the {which} sanitizer: {error}"),
            Err(error) => return Err(error),
        }
    }
    let program = build_soak()?;
    tools::run(Command::new(program).arg("--minutes").arg(args.minutes.to_string()))
}
