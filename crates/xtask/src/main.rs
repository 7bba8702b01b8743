//! The project's commands: `cargo xtask lib`, `install`, `demo`, `bench`, `test`, `fuzz`, `soak`. Each one's module says
//! what it does.
#![allow(missing_docs)]

mod bench;
mod bench_arenas;
mod bench_inline;
mod bench_peers;
mod bench_real;
mod build;
mod case;
mod demo;
mod install;
mod proof;
mod sources;
mod suites;
mod test;
mod test_arena;
mod test_bench;
mod test_cli;
mod test_conformance;
mod test_consumers;
mod test_examples;
mod test_growth;
mod test_guard;
mod test_heap;
mod test_instr;
mod test_misuse;
mod test_page;
mod test_preload;
mod test_profile;
mod test_rust;
mod test_sampled;
mod test_stacks;
mod tools;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Allokit's build, install, demo, bench and test commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build one backend's static and shared library into a folder
    Lib(build::Args),
    /// Build every backend and install headers, libraries, CMake package and pkg-config files
    Install(install::Args),
    /// Build all backends, run the Lua and SQLite programs on each, and print the table
    Demo(demo::Args),
    /// Compare allocators: time, memory and single operations, in one interleaved run
    Bench(bench::Args),
    /// Print where the C sources of Lua 5.4 and SQLite lie, fetching them the first time
    Sources(sources::Args),
    /// Run all tests
    Test(test::Args),
    /// Call the C functions with whatever reaches new code (libFuzzer)
    Fuzz(proof::FuzzArgs),
    /// Stress the native backend for long: threads, forks, little memory
    Soak(proof::SoakArgs),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Lib(args) => build::run(&args),
        Command::Install(args) => install::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Sources(args) => sources::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Fuzz(args) => proof::fuzz(&args),
        Command::Soak(args) => proof::soak(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The causes follow on the same line, without a backtrace: these are messages for the user.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
