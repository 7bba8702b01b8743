//! One page with charts that needs nothing else: SVG in the text, no script, no network.

use super::tables::{Sheet, heading, rule, sheets, warnings};
use crate::plan::Group;
use crate::result::{Measure, Report};
use crate::suite::{REFERENCE, SUBJECT};
use std::fmt::Write;

/// Distinguishable in grey and by most colour-blind readers; the subject's is the first.
const COLOURS: [&str; 11] = [
    "#d62728", "#1f77b4", "#17becf", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22",
    "#4a4a8a",
];

const STYLE: &str = "
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 74rem; padding: 0 1rem; color: #222; background: #fff }
table { border-collapse: collapse; font-size: 13px; margin: .6rem 0 } td, th { border: 1px solid #ccc; padding: .15rem .5rem }
td + td, th + th { text-align: right } .wide { overflow-x: auto } .bad { color: #b00; font-weight: 600 } .best { font-weight: 600 }
svg text { font: 12px system-ui, sans-serif; fill: currentColor } .key span { margin-right: 1.2em; white-space: nowrap }
svg { max-width: 100%; height: auto } .grid { stroke: #ddd } .one { stroke: #888 }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818 } td, th, .grid { border-color: #444; stroke: #444 } .bad { color: #f77 } }
";

pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn colour(report: &Report, allocator: &str) -> &'static str {
    if allocator == SUBJECT {
        return COLOURS[0];
    }
    let others = report.allocators.iter().filter(|one| one.name != SUBJECT);
    let place = others.map(|one| &one.name).position(|name| name == allocator).unwrap_or(0);
    COLOURS[1 + place % (COLOURS.len() - 1)]
}

/// A page up to its heading.
pub fn page_head(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
    )
}

/// One table.
pub fn sheet_html(sheet: &Sheet) -> String {
    let mut out = format!("<h2>{}</h2>\n<div class=\"wide\"><table><tr>\n", escaped(&sheet.title));
    for cell in &sheet.head {
        let _ = write!(out, "<th>{}</th>", escaped(cell));
    }
    out += "</tr>\n";
    for row in &sheet.rows {
        out += "<tr>";
        for cell in row {
            let class = match cell {
                cell if cell.ends_with('!') || cell.starts_with("MISSED") || cell == "FAILED" => " class=\"bad\"",
                cell if cell.ends_with('*') => " class=\"best\"",
                _ => "",
            };
            let _ = write!(out, "<td{class}>{}</td>", escaped(cell));
        }
        out += "</tr>\n";
    }
    let _ = writeln!(out, "</table></div>\n<p>{}</p>", escaped(&sheet.note.replace('`', "")));
    out
}

/// The whole page.
pub fn page(report: &Report) -> String {
    let mut out = page_head("Allokit benchmarks");
    for line in heading(report) {
        let _ = writeln!(out, "<p>{}</p>", escaped(&line));
    }
    let _ = writeln!(out, "<p><b>{}</b></p>", escaped(&rule(report)));
    for line in warnings(report) {
        let _ = writeln!(out, "<p class=\"bad\">{}</p>", escaped(&line));
    }
    key(report, &mut out);
    if !report.programs(None).is_empty() {
        bars(report, &mut out);
        for (title, measure) in [("CPU time", Measure::Cpu), ("Peak memory", Measure::Peak)] {
            dots(report, title, measure, &mut out);
        }
    }
    lines(report, &mut out);
    for sheet in sheets(report) {
        out += &sheet_html(&sheet);
    }
    out += "<h2>What the programs do</h2>\n<table>\n";
    for about in &report.workloads {
        let _ = writeln!(out, "<tr><td>{}</td><td>{}</td></tr>", escaped(&about.name), escaped(&about.what));
    }
    out += "</table>\n</body></html>\n";
    out
}

fn key(report: &Report, out: &mut String) {
    *out += "<p class=\"key\">";
    for allocator in &report.allocators {
        let (name, version) = (escaped(&allocator.name), escaped(&allocator.version));
        let colour = colour(report, &allocator.name);
        let _ = write!(
            out,
            "<span><b style=\"color:{colour}\">●</b> {name} {version} ({})</span> ",
            escaped(&allocator.origin)
        );
    }
    *out += "</p>\n";
}

/// The geometric means as bars, a group of bars for each.
fn bars(report: &Report, out: &mut String) {
    *out += "<h2>Geometric means against mimalloc2</h2>\n<p>Shorter is better; the line is 1.</p>\n";
    let means: Vec<_> = report.means().into_iter().filter(|mean| mean.ratios.iter().any(Option::is_some)).collect();
    let (left, bar, gap, width) = (170.0, 11.0, 14.0, 900.0);
    let most = means.iter().flat_map(|mean| mean.ratios.iter().flatten()).copied().fold(1.0, f64::max);
    let x = |value: f64| left + value / most * (width - left - 60.0);
    let group = bar * report.allocators.len() as f64 + gap;
    let height = group * means.len() as f64;
    let _ = writeln!(out, "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" role=\"img\">");
    for (row, mean) in means.iter().enumerate() {
        let top = row as f64 * group;
        let middle = top + (group - gap) / 2.0;
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 8.0,
            middle,
            escaped(&mean.name)
        );
        for (place, (allocator, value)) in report.allocators.iter().zip(&mean.ratios).enumerate() {
            let Some(value) = value else { continue };
            let (y, colour) = (top + place as f64 * bar, colour(report, &allocator.name));
            let (name, end) = (escaped(&allocator.name), x(*value));
            let _ = writeln!(
                out,
                "<rect x=\"{left}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{}\" fill=\"{colour}\"><title>{name} {value:.3}</title></rect>\
                 <text x=\"{:.1}\" y=\"{:.1}\" style=\"font-size:9px\">{value:.2} {name}</text>",
                end - left,
                bar - 1.5,
                end + 3.0,
                y + bar - 3.0
            );
        }
    }
    let _ = writeln!(out, "<line class=\"one\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"0\" y2=\"{height}\"/></svg>", x(1.0));
}

/// A row for each program, a dot for each allocator, on a logarithmic axis of ratios.
fn dots(report: &Report, title: &str, measure: Measure, out: &mut String) {
    let mut rows = report.programs(Some(Group::Real));
    rows.extend(report.programs(Some(Group::Stress)));
    let of = |workload: &str| -> Vec<(String, f64)> {
        let values = report.allocators.iter();
        values.filter_map(|one| Some((one.name.clone(), report.ratio(workload, &one.name, measure)?))).collect()
    };
    let all: Vec<f64> = rows.iter().flat_map(|about| of(&about.name)).map(|(_, value)| value).collect();
    if all.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "<h2>{title} by program, against {REFERENCE}</h2>\n<p>Left is better; the axis is logarithmic, the large dot is {SUBJECT}.</p>"
    );
    let low = all.iter().copied().fold(0.8, f64::min) * 0.95;
    let high = all.iter().copied().fold(1.25, f64::max) * 1.05;
    let (left, width, step, top) = (150.0, 900.0, 20.0, 24.0);
    let x = |value: f64| left + (value / low).ln() / (high / low).ln() * (width - left - 20.0);
    let height = top + step * rows.len() as f64 + 6.0;
    let _ = writeln!(out, "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" role=\"img\">");
    for tick in [0.1, 0.2, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0] {
        if (low..=high).contains(&tick) {
            let class = if tick == 1.0 { "one" } else { "grid" };
            let _ = writeln!(
                out,
                "<line class=\"{class}\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{top}\" y2=\"{height}\"/>\
                 <text x=\"{0:.1}\" y=\"14\" text-anchor=\"middle\">{tick}</text>",
                x(tick)
            );
        }
    }
    for (row, about) in rows.iter().enumerate() {
        let y = top + step * (row as f64 + 0.5);
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 8.0,
            y + 4.0,
            escaped(&about.name)
        );
        let mut values = of(&about.name);
        // The subject last, so that it lies on top.
        values.sort_by_key(|(name, _)| name == SUBJECT);
        for (name, value) in values {
            let radius = if name == SUBJECT { 6.0 } else { 4.0 };
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{}\" fill-opacity=\".8\"><title>{} {value:.3}</title></circle>",
                x(value),
                colour(report, &name),
                escaped(&name)
            );
        }
    }
    *out += "</svg>\n";
}

/// Operations a second over threads, a chart for each program.
fn lines(report: &Report, out: &mut String) {
    let mut workloads: Vec<&str> = report.scaling.iter().map(|point| point.workload.as_str()).collect();
    workloads.dedup();
    if workloads.is_empty() {
        return;
    }
    *out += "<h2>Scaling</h2>\n<p>Million operations a second over the number of threads; more is better.</p>\n";
    for workload in workloads {
        let points: Vec<_> = report.scaling.iter().filter(|point| point.workload == workload).collect();
        let most = points.iter().map(|point| point.ops_per_second).fold(1.0, f64::max);
        let mut threads: Vec<u32> = points.iter().map(|point| point.threads).collect();
        threads.sort_unstable();
        threads.dedup();
        let (left, right, top, bottom) = (60.0, 400.0, 24.0, 190.0);
        let x = |count: u32| {
            let place = threads.iter().position(|one| *one == count).unwrap_or(0) as f64;
            left + place / (threads.len().max(2) - 1) as f64 * (right - left)
        };
        let y = |value: f64| bottom - value / most * (bottom - top);
        let _ = writeln!(
            out,
            "<svg viewBox=\"0 0 430 215\" width=\"430\" role=\"img\"><text x=\"{left}\" y=\"14\">{}</text>",
            escaped(workload)
        );
        for part in 0..=4 {
            let value = most * f64::from(part) / 4.0;
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{0:.1}\" y2=\"{0:.1}\"/>\
                 <text x=\"{1}\" y=\"{2:.1}\" text-anchor=\"end\">{3:.1}</text>",
                y(value),
                left - 6.0,
                y(value) + 4.0,
                value / 1e6
            );
        }
        for count in &threads {
            let _ = writeln!(out, "<text x=\"{:.1}\" y=\"208\" text-anchor=\"middle\">{count}</text>", x(*count));
        }
        for allocator in &report.allocators {
            let mine: Vec<String> = points
                .iter()
                .filter(|point| point.allocator == allocator.name && point.ops_per_second > 0.0)
                .map(|point| format!("{:.1},{:.1}", x(point.threads), y(point.ops_per_second)))
                .collect();
            let width = if allocator.name == SUBJECT { 3 } else { 1 };
            let _ = writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\"><title>{}</title></polyline>",
                mine.join(" "),
                colour(report, &allocator.name),
                escaped(&allocator.name)
            );
        }
        *out += "</svg>\n";
    }
}
