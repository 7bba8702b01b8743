//! `allokit diff A B`: what has grown. Exit status 1 when something has, for CI.

use crate::data::{self, Report, Row};
use crate::show::{self, Format};
use crate::symbols;
use anyhow::{Result, bail};
use serde_json::json;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Exit status: 0 when no call site has grown, 1 when one has, 2 for an error.")]
pub struct Args {
    /// The earlier report, in any format that `allokit report` reads
    before: PathBuf,
    /// The later one
    after: PathBuf,
    /// text, json, html, ci or github
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Where to write it [default: standard output]
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// How many bytes a call site may grow by
    #[arg(long, default_value_t = 0)]
    allow: u64,
    /// Call sites in the table; 0 for all
    #[arg(long, default_value_t = show::TOP)]
    top: usize,
    /// Do not look for lines in the modules' debug information
    #[arg(long)]
    no_symbols: bool,
}

/// The later report with each row's figures of the earlier one; rows that are gone have none now.
pub fn joined(before: &Report, mut after: Report) -> Report {
    let mut old: HashMap<_, &Row> = before.sites.iter().map(|row| (row.key(), row)).collect();
    for row in &mut after.sites {
        let was = old.remove(&row.key());
        row.blocks_before = Some(was.map_or(0, |was| was.blocks));
        row.bytes_before = Some(was.map_or(0, |was| was.bytes));
    }
    // In the order of the file, not of the table.
    for row in &before.sites {
        if old.contains_key(&row.key()) {
            let (blocks_before, bytes_before) = (Some(row.blocks), Some(row.bytes));
            after.sites.push(Row { blocks: 0, bytes: 0, blocks_before, bytes_before, ..row.clone() });
        }
    }
    after.blocks_before = Some(before.blocks);
    after.bytes_before = Some(before.bytes);
    for note in &before.notes {
        after.note(note.clone());
    }
    after
}

fn grown(row: &Row) -> (i64, i64) {
    let change = |now: u64, was: Option<u64>| now as i64 - was.unwrap_or(0) as i64;
    (change(row.bytes, row.bytes_before), change(row.blocks, row.blocks_before))
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if matches!(args.format, Format::Svg | Format::Folded | Format::Pprof) {
        bail!("a difference is shown as text, json, html, ci or github; the others have no place for what has shrunk");
    }
    let mut both = [data::read(&args.before)?, data::read(&args.after)?];
    for report in &mut both {
        if !args.no_symbols {
            symbols::resolve(report);
            report.tidy();
        }
    }
    let [before, after] = both;
    let mut report = joined(&before, after);
    report.sites.sort_by_cached_key(|row| (std::cmp::Reverse(grown(row)), row.site.to_string()));
    let allowed = i64::try_from(args.allow).unwrap_or(i64::MAX);
    let too_much = |row: &&Row| {
        let (bytes, blocks) = grown(row);
        // Blocks without bytes grow too.
        bytes > allowed || (bytes == 0 && blocks > 0 && allowed == 0)
    };
    let changed: Vec<&Row> = report.sites.iter().filter(|row| grown(row) != (0, 0)).collect();
    let text = match args.format {
        Format::Html => show::html(&report)?,
        Format::Json => json(&report, &changed),
        Format::Ci | Format::Github => report.sites.iter().filter(too_much).fold(String::new(), |mut text, row| {
            let (bytes, blocks) = grown(row);
            let about =
                format!("grown by {bytes} bytes in {blocks:+} blocks, to {} bytes in {}", row.bytes, row.blocks);
            text.push_str(&show::line_of(args.format, &row.site, &about));
            text
        }),
        _ => table(&report, &changed, args.top),
    };
    show::put(text.as_bytes(), args.output.as_deref())?;
    Ok(ExitCode::from(u8::from(report.sites.iter().any(|row| too_much(&row)))))
}

/// As `ak_snapshot_diff` writes it.
fn table(report: &Report, changed: &[&Row], top: usize) -> String {
    let mut out = String::new();
    let bytes = report.bytes as i64 - report.bytes_before.unwrap_or(0) as i64;
    let blocks = report.blocks as i64 - report.blocks_before.unwrap_or(0) as i64;
    let _ = writeln!(out, "{blocks:+} blocks, {bytes:+} bytes, at {} call sites", changed.len());
    if !changed.is_empty() {
        let _ = writeln!(out, "{:>16}{:>14}{:>16}{:>14}  call site", "count", "bytes", "live count", "live bytes");
    }
    let shown = if top == 0 { changed.len() } else { top };
    for row in changed.iter().take(shown) {
        let (bytes, blocks) = grown(row);
        let _ = writeln!(out, "{blocks:>+16}{bytes:>+14}{:>16}{:>14}  {}", row.blocks, row.bytes, row.site);
    }
    if changed.len() > shown {
        let _ = writeln!(out, "{:>60}  {} more call sites (--top 0 shows all)", "", changed.len() - shown);
    }
    // They tell why a line is missing: only of interest where something is shown.
    for note in report.notes.iter().filter(|_| !changed.is_empty()) {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

/// As `ak_snapshot_diff` writes it.
fn json(report: &Report, changed: &[&Row]) -> String {
    let rows: Vec<_> = changed
        .iter()
        .map(|row| {
            let (bytes, blocks) = grown(row);
            json!({"site": row.site, "blocks": blocks, "bytes": bytes, "live_blocks": row.blocks, "live_bytes": row.bytes,
                "live_blocks_before": row.blocks_before, "live_bytes_before": row.bytes_before})
        })
        .collect();
    let blocks = report.blocks as i64 - report.blocks_before.unwrap_or(0) as i64;
    let bytes = report.bytes as i64 - report.bytes_before.unwrap_or(0) as i64;
    format!("{}\n", json!({"blocks": blocks, "bytes": bytes, "sites": rows}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_meets_its_own() {
        let before = data::parse(b"a (a.c:1) 100\nb (b.c:1) 50\n").unwrap();
        let after = data::parse(b"a (a.c:1) 130\nc (c.c:1) 7\n").unwrap();
        let both = joined(&before, after);
        let rows: Vec<_> = both.sites.iter().map(|row| (row.site.to_string(), grown(row).0)).collect();
        assert_eq!(rows, [("a.c:1 (a)".into(), 30), ("c.c:1 (c)".into(), 7), ("b.c:1 (b)".into(), -50)]);
        assert_eq!(both.bytes_before, Some(150));
    }
}
