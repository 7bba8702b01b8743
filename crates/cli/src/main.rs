//! `allokit`, the command: run any program on Allokit, read what it reports, compare two reports.
//!
//! Owns: the command line; one module for each subcommand, with `Args` and `run`. What they share: [`data`] (a report, from
//! whichever format), [`show`] (a report, in whichever format), [`symbols`] (lines for return addresses). A further
//! subcommand is a module, a line in [`Command`] and a line in [`main`]: one that watches a process or replays a trace
//! starts programs with [`launch`] and fills a [`data::Report`]. Knows nothing of the library but its environment
//! variables, its files and the page.
//!
//! Exit status: that of the program (`run`), 0 or 1 (`diff`: something grew; `oom-sweep`: something is not survived), 2 for an error; `run` gives 125 for an error of
//! its own, 126 for a program that cannot be run and 127 for one that is not there, as `env` and `timeout` do.

mod completions;
mod data;
mod diff;
mod launch;
mod man;
mod oom_sweep;
mod pprof;
mod report;
mod run;
mod show;
mod symbols;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Which line of a program has the memory.
#[derive(Parser)]
#[command(name = "allokit", version, about, after_help = "More: docs/profiling.md, or `allokit help SUBCOMMAND`")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a program on Allokit: tell what is live at its end, or compare backends
    Run(run::Args),
    /// Show a report or profile as text, page, flame graph or data
    Report(report::Args),
    /// Tell what has grown from one report to another; exit status 1 when something has
    Diff(diff::Args),
    /// Fail each allocation call site of a program in turn: tell which it does not survive; exit status 1 when there are some
    OomSweep(oom_sweep::Args),
    /// Print completions for a shell
    Completions(completions::Args),
    /// Print the manual page
    Man(man::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let failed = if matches!(cli.command, Command::Run(_)) { 125 } else { 2 };
    let done = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::OomSweep(args) => oom_sweep::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            // A reader that has seen enough (`| head`) is no error.
            let broken = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
            if broken.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
                return ExitCode::SUCCESS;
            }
            eprintln!("allokit: {error:#}");
            match error.downcast_ref::<launch::NoProgram>() {
                Some(launch::NoProgram::Missing(_)) => ExitCode::from(127),
                Some(launch::NoProgram::Refused(_)) => ExitCode::from(126),
                None => ExitCode::from(failed),
            }
        }
    }
}
