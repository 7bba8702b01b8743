//! The tables, once for the terminal and once as Markdown: the same rows.

use crate::plan::{FIGURES, Group};
use crate::result::{LOSS, Measure, Report};
use crate::suite::{REFERENCE, SUBJECT};
use crate::targets;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use std::fmt::Write;

/// A table before it has a form.
pub struct Sheet {
    pub title: String,
    pub note: String,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_string(), number)
}

/// Two digits, always.
fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_string(), |value| format!("{value:.2}"))
}

fn names(report: &Report) -> Vec<String> {
    report.allocators.iter().map(|allocator| allocator.name.clone()).collect()
}

fn aim(target: &targets::Target) -> String {
    format!("{} {}", if target.more { ">=" } else { "<=" }, target.aim)
}

fn means(report: &Report) -> Sheet {
    let mut head = vec!["geometric mean".to_string(), "programs".to_string()];
    head.extend(names(report));
    head.extend(["best peer each".to_string(), "target".to_string()]);
    let rows = report.means().into_iter().filter(|mean| mean.programs > 0).map(|mean| {
        let mut row = vec![mean.name.clone(), mean.programs.to_string()];
        row.extend(mean.ratios.iter().zip(&mean.lost).map(|(value, lost)| match (value, lost) {
            (Some(value), 0) => format!("{value:.2}"),
            (Some(value), lost) => format!("{value:.2} ({lost} lost)"),
            (None, _) => "-".to_string(),
        }));
        row.push(ratio(mean.best_peer));
        row.push(targets::of_mean(mean.measure, mean.group).map(aim).unwrap_or_default());
        row
    });
    Sheet {
        title: "Against mimalloc2".into(),
        note: "CPU: best of the rounds; RSS: median. Below 1 is better. `lost`: programs it did not finish.".into(),
        rows: rows.collect(),
        head,
    }
}

fn figures(report: &Report) -> Sheet {
    let mut head = vec!["one operation".to_string(), "unit".to_string()];
    head.extend(names(report));
    head.push("target".to_string());
    let mut rows = Vec::new();
    for figure in FIGURES {
        let values: Vec<Option<f64>> =
            report.allocators.iter().map(|allocator| report.figure(figure.name, &allocator.name)).collect();
        if values.iter().all(Option::is_none) {
            continue;
        }
        let mut row = vec![figure.what.to_string(), figure.unit.to_string()];
        row.extend(values.into_iter().map(optional));
        row.push(targets::of_figure(figure.name).map(aim).unwrap_or_default());
        rows.push(row);
    }
    Sheet { title: "One operation".into(), note: "The best of the rounds.".into(), head, rows }
}

/// Programs by allocators: ratios to the reference, whose own value is given.
fn programs(report: &Report, title: &str, unit: &str, scale: f64, measure: Measure) -> Sheet {
    let mut head = vec!["program".to_string(), format!("{REFERENCE} {unit}")];
    head.extend(names(report));
    if measure == Measure::Cpu {
        head.push("spread".into());
    }
    let mut rows = Vec::new();
    for group in [Group::Real, Group::Stress] {
        for about in report.programs(Some(group)) {
            let ratios: Vec<Option<f64>> =
                report.allocators.iter().map(|allocator| report.ratio(&about.name, &allocator.name, measure)).collect();
            if ratios.iter().all(Option::is_none) && measure == Measure::Left {
                continue;
            }
            let best = ratios.iter().flatten().copied().min_by(f64::total_cmp);
            let mut row = vec![about.name.clone()];
            row.push(optional(report.value(&about.name, REFERENCE, measure).map(|value| value * scale)));
            for (allocator, value) in report.allocators.iter().zip(&ratios) {
                let lost = report.cells.iter().any(|cell| {
                    cell.workload == about.name && cell.allocator == allocator.name && cell.failed.is_some()
                });
                row.push(match value {
                    _ if lost => "FAILED".to_string(),
                    // Without the reference there are no ratios: the value itself, so that nothing is lost.
                    None => report
                        .value(&about.name, &allocator.name, measure)
                        .map_or_else(|| "-".to_string(), |value| format!("({})", number(value * scale))),
                    Some(value) if Some(*value) == best => format!("{value:.2} *"),
                    Some(value) if *value > LOSS => format!("{value:.2} !"),
                    Some(value) => format!("{value:.2}"),
                });
            }
            if measure == Measure::Cpu {
                row.push(spread(report, &about.name));
            }
            rows.push(row);
        }
    }
    let note = format!(
        "Ratios to {REFERENCE}, whose own {unit} are in the second column. `*` the best of the row, `!` more than 10 % \
         above {REFERENCE}."
    );
    let spread = " `spread`: how far the runs of the same program lie apart, the median over allocators.";
    let note = if measure == Measure::Cpu { note + spread } else { note };
    Sheet { title: title.into(), note, head, rows }
}

fn spread(report: &Report, workload: &str) -> String {
    let spreads = report.allocators.iter().filter_map(|allocator| {
        let samples = report.samples(workload, &allocator.name)?;
        Some(crate::result::Spread::of(samples.iter().map(|sample| sample.cpu))?.relative())
    });
    crate::result::Spread::of(spreads).map_or_else(String::new, |all| format!("{:.0} %", 100.0 * all.median))
}

fn reached(report: &Report) -> Sheet {
    let head = ["target", "unit", "aim", SUBJECT, REFERENCE, "verdict"].map(str::to_string).to_vec();
    let row = |row: targets::Reached| {
        let sign = if row.more { ">=" } else { "<=" };
        let verdict = row.verdict();
        let aim = format!("{sign} {}", row.aim);
        vec![row.name.into(), row.unit.into(), aim, optional(row.reached), optional(row.reference), verdict]
    };
    let (measured, other): (Vec<_>, Vec<_>) =
        targets::reached(report).into_iter().partition(|target| target.reached.is_some());
    let names: Vec<&str> = other.iter().map(|target| target.name).collect();
    let note =
        if names.is_empty() { String::new() } else { format!("Not measured in this run: {}.", names.join("; ")) };
    let rows = measured.into_iter().map(row).collect();
    Sheet { title: "Targets of the native backend".into(), note, head, rows }
}

fn scaling(report: &Report) -> Vec<Sheet> {
    let mut workloads: Vec<&str> = Vec::new();
    for point in &report.scaling {
        if !workloads.contains(&point.workload.as_str()) {
            workloads.push(&point.workload);
        }
    }
    let sheet = |workload: &str| {
        let points = || report.scaling.iter().filter(|point| point.workload == workload);
        let mut threads: Vec<u32> = points().map(|point| point.threads).collect();
        threads.sort_unstable();
        threads.dedup();
        let mut head = vec!["threads".to_string()];
        head.extend(names(report));
        let rows = threads.iter().map(|&count| {
            let mut row = vec![count.to_string()];
            for allocator in &report.allocators {
                let point = points().find(|point| point.threads == count && point.allocator == allocator.name);
                row.push(match point {
                    Some(point) if point.ops_per_second > 0.0 => number(point.ops_per_second / 1e6),
                    Some(_) => "FAILED".to_string(),
                    None => "-".to_string(),
                });
            }
            row
        });
        let rows = rows.collect();
        Sheet { title: format!("Scaling: {workload}"), note: "Million operations a second.".into(), head, rows }
    };
    workloads.into_iter().map(sheet).collect()
}

/// All tables that have rows.
pub fn sheets(report: &Report) -> Vec<Sheet> {
    let mut sheets = vec![
        means(report),
        figures(report),
        programs(report, "CPU time by program", "seconds", 1.0, Measure::Cpu),
        programs(report, "Peak memory by program", "MiB", 1.0 / 1024.0, Measure::Peak),
        programs(report, "Memory left when all is freed", "MiB", 1.0 / 1024.0, Measure::Left),
        programs(report, "Wall clock by program", "seconds", 1.0, Measure::Wall),
    ];
    sheets.extend(scaling(report));
    sheets.push(reached(report));
    sheets.retain(|sheet| !sheet.rows.is_empty());
    sheets
}

/// The lines above the tables.
pub fn heading(report: &Report) -> Vec<String> {
    let machine = &report.machine;
    let mut lines = vec![
        format!(
            "{}, {} cores, {} MiB, Linux {}, {}",
            machine.cpu, machine.cores, machine.memory_mib, machine.kernel, machine.libc
        ),
        format!(
            "{}, commit {}, {} rounds interleaved{}, {:.0} s, load before {:.1}",
            machine.date,
            machine.commit,
            report.rounds,
            if report.quick { " of the QUICK suite (a quarter of the work: for a look, not for a claim)" } else { "" },
            report.seconds,
            machine.load_before
        ),
    ];
    if machine.load_before > 0.5 {
        lines.push("The machine was NOT QUIET when this began: read the ratios with care.".into());
    }
    lines
}

/// What could not be had or did not end well, one line each.
pub fn warnings(report: &Report) -> Vec<String> {
    let missing = report.missing.iter().map(|missing| format!("MISSING: {}: {}", missing.name, missing.why));
    let failures = report.failures().into_iter().map(|cell| {
        format!("FAILED: {} on {}: {}", cell.workload, cell.allocator, cell.failed.as_deref().unwrap_or_default())
    });
    missing.chain(failures).collect()
}

/// The rule about single programs, in a sentence.
pub fn rule(report: &Report) -> String {
    let has = |name: &str| report.allocators.iter().any(|allocator| allocator.name == name);
    let programs = report.programs(None).len();
    if !has(SUBJECT) || !has(REFERENCE) || programs == 0 {
        return format!("No program more than 10 % slower than {REFERENCE}: not measured.");
    }
    let offenders = report.offenders();
    if offenders.is_empty() {
        return format!("No program of {programs} is more than 10 % slower on {SUBJECT} than on {REFERENCE}: met.");
    }
    let list: Vec<String> = offenders
        .iter()
        .map(|one| {
            format!("{} {}", one.workload, one.ratio.map_or("failed".to_string(), |ratio| format!("{ratio:.2}")))
        })
        .collect();
    format!(
        "More than 10 % slower on {SUBJECT} than on {REFERENCE}: {} of {programs}: {}.",
        list.len(),
        list.join(", ")
    )
}

/// One table for a terminal.
pub fn sheet_text(sheet: &Sheet) -> String {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(&sheet.head);
    for row in &sheet.rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut out = format!("\n{}\n{table}\n", sheet.title);
    if !sheet.note.is_empty() {
        let _ = writeln!(out, "{}", sheet.note.replace('`', ""));
    }
    out
}

/// One table as Markdown.
pub fn sheet_markdown(sheet: &Sheet) -> String {
    let mut out = format!("\n### {}\n\n", sheet.title);
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | ").replace("<=", "≤").replace(">=", "≥"));
    let align: Vec<String> = (0..sheet.head.len()).map(|i| if i == 0 { "---" } else { "---:" }.into()).collect();
    out += &line(&sheet.head);
    out += &line(&align);
    for row in &sheet.rows {
        let bold = |cell: &String| {
            if cell.ends_with('!') || cell.starts_with("MISSED") { format!("**{cell}**") } else { cell.clone() }
        };
        out += &line(&row.iter().map(bold).collect::<Vec<_>>());
    }
    if !sheet.note.is_empty() {
        let _ = writeln!(out, "\n{}", sheet.note);
    }
    out
}

/// For a terminal.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    for line in heading(report) {
        let _ = writeln!(out, "{line}");
    }
    for allocator in &report.allocators {
        let _ = writeln!(out, "  {:17} {:14} {}", allocator.name, allocator.version, allocator.origin);
    }
    for line in warnings(report) {
        let _ = writeln!(out, "{line}");
    }
    for sheet in sheets(report) {
        out += &sheet_text(&sheet);
    }
    let _ = writeln!(out, "\n{}", rule(report));
    // Once more at the end, where it is seen.
    for line in warnings(report) {
        let _ = writeln!(out, "{line}");
    }
    out
}

/// For docs/benchmarks.md.
pub fn markdown(report: &Report) -> String {
    let mut out = String::new();
    for line in heading(report) {
        let _ = writeln!(out, "{line}  ");
    }
    let versions: Vec<String> = report
        .allocators
        .iter()
        .map(|allocator| format!("{} {} ({})", allocator.name, allocator.version, allocator.origin))
        .collect();
    let _ = writeln!(out, "\n{}.", versions.join("; "));
    for line in warnings(report) {
        let _ = writeln!(out, "\n**{line}**");
    }
    for sheet in sheets(report) {
        out += &sheet_markdown(&sheet);
    }
    let _ = writeln!(out, "\n{}", rule(report));
    out
}
