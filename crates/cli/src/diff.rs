//! `allokit diff A B`: what has grown. Exit status 1 when something has, for CI. Of more than two reports: what grows from one to
//! the next.

use crate::data::{self, Frame, Grown, Report, Row, Sample};
use crate::show::{self, Format};
use crate::symbols;
use allokit_report::growth::{self, Likely, Trend};
use anyhow::{Result, bail};
use serde_json::json;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Exit status: 0 when no call site has grown, 1 when one has, 2 for an error.")]
pub struct Args {
    /// The reports, the earliest first, in any format that `allokit report` reads; of three or more: what grows from one to the
    /// next, the likeliest leak first
    #[arg(required = true, num_args = 2..)]
    files: Vec<PathBuf>,
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
    let mut all = args.files.iter().map(|path| data::read(path)).collect::<Result<Vec<_>>>()?;
    for report in &mut all {
        if !args.no_symbols {
            symbols::resolve(report);
            report.tidy();
        }
    }
    let [before, after] = match <[Report; 2]>::try_from(all) {
        Ok(two) => two,
        Err(many) => return of_many(args, many),
    };
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

/// The last report, with what has become of each call site from the first to it.
pub fn over(mut reports: Vec<Report>) -> Report {
    let count = reports.len();
    let mut series: HashMap<Vec<Frame>, Vec<(u64, u64)>> = HashMap::new();
    for (index, report) in reports.iter().enumerate() {
        for row in &report.sites {
            let at = &mut series.entry(row.key()).or_insert_with(|| vec![(0, 0); count])[index];
            *at = (at.0 + row.blocks, at.1 + row.bytes);
        }
    }
    // Where the times are not known, or are in another order, the reports count as a minute apart.
    let times: Vec<Option<u64>> = reports.iter().map(|report| report.time_ns).collect();
    let known = times.iter().all(Option::is_some) && times.is_sorted() && times.first() != times.last();
    let start = times[0].unwrap_or(0);
    let ms = |index: usize| if known { (times[index].unwrap_or(0) - start) / 1_000_000 } else { index as u64 * 60_000 };
    let stat = |report: &Report, name: &str| report.rest.get("stats").and_then(|stats| stats.get(name)?.as_u64());
    let timeline: Vec<Sample> = reports
        .iter()
        .enumerate()
        .map(|(index, report)| Sample {
            ms: ms(index),
            live_bytes: Some(report.bytes),
            live_blocks: Some(report.blocks),
            committed_bytes: stat(report, "committed_bytes"),
            alloc_count: stat(report, "alloc_count"),
            alloc_bytes: stat(report, "alloc_bytes"),
            ..Sample::default()
        })
        .collect();
    let Some(mut last) = reports.pop() else { return Report::default() };
    last.growth.clear();
    for row in &last.sites {
        let moments = &series[&row.key()];
        let bytes: Vec<u64> = moments.iter().map(|(_, bytes)| *bytes).collect();
        let trend = Trend::of(&bytes);
        if trend.change > 0 {
            last.growth.push(Grown {
                site: row.site.clone(),
                stack: row.stack.clone(),
                leak: trend.likely().word().into(),
                grew: trend.grew,
                fell: trend.fell,
                of: trend.of,
                trend: trend.trend,
                bytes: trend.change,
                blocks: row.blocks as i64 - moments[0].0 as i64,
                bytes_per_minute: trend.per_minute(ms(count - 1)),
                live_blocks: row.blocks,
                live_bytes: row.bytes,
                series: bytes,
            });
        }
    }
    last.growth.sort_by_cached_key(|row| (row.trend().rank(), row.site.to_string()));
    last.timeline = timeline;
    for note in reports.into_iter().flat_map(|report| report.notes) {
        last.note(note);
    }
    if !known {
        last.note(
            "The reports do not say when they were made, one after another: they count as a minute apart.".into(),
        );
    }
    last
}

/// More than two reports.
fn of_many(args: &Args, reports: Vec<Report>) -> Result<ExitCode> {
    let report = over(reports);
    let allowed = i64::try_from(args.allow).unwrap_or(i64::MAX);
    let too_much = |row: &&Grown| row.trend().likely() > Likely::No && row.bytes > allowed;
    let text = match args.format {
        Format::Html => show::html(&report)?,
        Format::Json => format!(
            "{}\n",
            json!({"snapshots": report.timeline.len(), "ms": report.span_ms(),
            "growth": report.growth, "timeline": report.timeline})
        ),
        Format::Ci | Format::Github => report.growth.iter().filter(too_much).fold(String::new(), |mut text, row| {
            let mut about = String::new();
            // A text takes all.
            let _ = growth::about(&mut about, &row.trend(), report.span_ms());
            text.push_str(&show::line_of(args.format, &row.site, &about));
            text
        }),
        _ => {
            let table = show::growth(&report, args.top);
            let notes = report.notes.iter().fold(String::new(), |text, note| format!("{text}note: {note}\n"));
            if table.is_empty() { format!("no call site grows from report to report\n{notes}") } else { table + &notes }
        }
    };
    show::put(text.as_bytes(), args.output.as_deref())?;
    Ok(ExitCode::from(u8::from(report.growth.iter().any(|row| too_much(&row)))))
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

    #[test]
    fn what_grows_from_report_to_report_is_told_from_what_came_once() {
        let report = |leak: u64, once: u64| {
            format!("tide (t.c:1) {}\nleak (l.c:2) {leak}\nonce (o.c:3) {once}\n", 50 + once % 7)
        };
        let all = [(10, 1), (20, 900), (30, 900), (41, 900), (50, 900)];
        let all = over(all.iter().map(|(leak, once)| data::parse(report(*leak, *once).as_bytes()).unwrap()).collect());
        let rows: Vec<_> =
            all.growth.iter().map(|row| (row.site.line, &*row.leak, row.bytes, row.series.len())).collect();
        assert_eq!(rows, [(Some(2), "likely", 40, 5), (Some(3), "perhaps", 899, 5), (Some(1), "perhaps", 3, 5)]);
        assert_eq!((all.span_ms(), all.growth[0].bytes_per_minute, all.notes.len()), (240_000, 10, 2));
        let table = show::growth(&all, 1);
        assert!(table.starts_with("growth over 5 snapshots in 4 min 0 s: +942 bytes, +0 blocks\n"), "{table}");
        assert!(
            table.contains("   likely   4 of  4           +40           +10            50  l.c:2 (leak)\n"),
            "{table}"
        );
        assert!(table.ends_with("  2 more call sites (--top 0 shows all)\n"), "{table}");
    }
}
