//! `allokit man`: the manual page, one for each subcommand too.

use anyhow::{Context, Result};
use clap::CommandFactory;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// Write allokit.1 and a page for each subcommand into this folder, instead of printing the first
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let command = crate::Cli::command();
    match &args.dir {
        Some(dir) => {
            clap_mangen::generate_to(command, dir)
                .with_context(|| format!("cannot write the manual pages into {}; is it a folder?", dir.display()))?;
        }
        None => {
            let mut text = Vec::new();
            clap_mangen::Man::new(command).render(&mut text)?;
            crate::show::print(&text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
