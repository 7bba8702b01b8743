//! `allokit report FILE`.

use crate::show::{self, Format};
use crate::{data, symbols};
use anyhow::Result;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// A report or profile: Allokit's JSON or page, pprof (gzip or not), folded stacks; - for standard input
    file: PathBuf,
    /// What to make of it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Where to write it [default: standard output]
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Call sites in the table; 0 for all
    #[arg(long, default_value_t = show::TOP)]
    top: usize,
    /// Do not look for lines in the modules' debug information
    #[arg(long)]
    no_symbols: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let mut report = data::read(&args.file)?;
    if !args.no_symbols {
        symbols::resolve(&mut report);
        report.tidy();
    }
    show::put(&show::write(&report, args.format, args.top)?, args.output.as_deref())?;
    Ok(ExitCode::SUCCESS)
}
