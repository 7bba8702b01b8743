//! A report in each of its forms, and the way to a file.

use crate::data::{Frame, Report, Sample};
use crate::pprof;
use allokit_report::growth::{self, Likely};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table
    Text,
    /// Allokit's own data
    Json,
    /// A page for a browser, whole in itself
    Html,
    /// A line `file:line: warning: …` for each call site, for editors and CI
    Ci,
    /// The same as GitHub's annotations
    Github,
    /// A flame graph
    Svg,
    /// `outer;inner bytes` on each line, for flame graph programs
    Folded,
    /// pprof's protocol buffer, compressed
    Pprof,
}

/// How many call sites a table has, unless it is told.
pub const TOP: usize = 40;

/// The report in a form. `top` is the number of call sites in a table, 0 for all.
pub fn write(report: &Report, format: Format, top: usize) -> Result<Vec<u8>> {
    Ok(match format {
        Format::Text => text(report, top).into_bytes(),
        Format::Json => {
            let mut bytes = serde_json::to_vec(report)?;
            bytes.push(b'\n');
            bytes
        }
        Format::Html => html(report)?.into_bytes(),
        Format::Ci | Format::Github => {
            let lines = report.sites.iter().map(|row| {
                let about = format!("{} in {} are live", counted(row.bytes, "byte"), counted(row.blocks, "block"));
                line_of(format, &row.site, &about)
            });
            lines.collect::<String>().into_bytes()
        }
        Format::Svg => svg(report)?,
        Format::Folded => folded(report).into_bytes(),
        Format::Pprof => pprof::write(report)?,
    })
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A finding at a place: as compilers say it, or as GitHub reads it.
pub fn line_of(format: Format, site: &Frame, about: &str) -> String {
    let Some(file) = &site.file else { return format!("{site}: warning: {about}\n") };
    let file = relative(file);
    let line = site.line.unwrap_or(1).max(1);
    let function = site.function.as_ref().map_or(String::new(), |function| format!(" ({function})"));
    if format == Format::Github {
        let escaped = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
        let property = |text: &str| escaped(text).replace(':', "%3A").replace(',', "%2C");
        let about = escaped(&format!("{about}{function}"));
        return format!("::warning file={},line={line},title=Allokit::{about}\n", property(file));
    }
    format!("{file}:{line}: warning: {about}{function}\n")
}

/// A finding that is an error, as GitHub reads it; without a file it is just said.
pub fn error_of(site: &Frame, about: &str) -> String {
    line_of(Format::Github, site, about).replacen("::warning ", "::error ", 1).replacen(": warning: ", ": error: ", 1)
}

/// A file as those who read findings know it: from the folder of the checkout, if it lies there. Compilers note whole paths.
pub fn relative(file: &str) -> &str {
    let named = std::env::var_os("GITHUB_WORKSPACE").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let Some(folder) = named.or_else(|| std::env::current_dir().ok()) else { return file };
    Path::new(file).strip_prefix(&folder).ok().and_then(Path::to_str).unwrap_or(file)
}

fn text(report: &Report, top: usize) -> String {
    let mut out = String::new();
    let name = report.program.rsplit('/').next().unwrap_or("");
    let mut head: Vec<String> = Vec::new();
    head.extend((!name.is_empty()).then(|| name.to_string()));
    head.extend(report.pid.map(|pid| format!("process {pid}")));
    head.extend(report.text("backend").map(|backend| format!("backend {backend}")));
    if !head.is_empty() {
        let _ = write!(out, "{}: ", head.join(", "));
    }
    let (blocks, sites) = (counted(report.blocks, "live block"), counted(report.sites.len() as u64, "call site"));
    let _ = writeln!(out, "{blocks}, {}, from {sites}", counted(report.bytes, "byte"));
    if !report.sites.is_empty() {
        let _ = writeln!(out, "{:>16}{:>14}{:>8}  call site", "count", "bytes", "share");
    }
    let shown = if top == 0 { report.sites.len() } else { top };
    for row in report.sites.iter().take(shown) {
        let share = 100.0 * row.bytes as f64 / report.bytes.max(1) as f64;
        let _ = writeln!(out, "{:>16}{:>14}{share:>7.1}%  {}", row.blocks, row.bytes, row.site);
        for frame in row.stack.iter().skip(1) {
            let _ = writeln!(out, "{:>40}  {frame}", "");
        }
    }
    if report.sites.len() > shown {
        let rest = &report.sites[shown..];
        let bytes: u64 = rest.iter().map(|row| row.bytes).sum();
        let _ = writeln!(out, "{:>16}{bytes:>14}          {} more call sites (--top 0 shows all)", "", rest.len());
    }
    out.push_str(&growth(report, top));
    for note in &report.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

/// The call sites that may leak, of a report that knows several moments; nothing of another.
pub fn growth(report: &Report, top: usize) -> String {
    let mut out = String::new();
    let grown: Vec<_> = report.growth.iter().filter(|row| row.trend().likely() > Likely::No).collect();
    let (Some(first), Some(last)) = (report.timeline.first(), report.timeline.last()) else { return out };
    if grown.is_empty() {
        return out;
    }
    let change = |of: fn(&Sample) -> Option<u64>| of(last).unwrap_or(0) as i64 - of(first).unwrap_or(0) as i64;
    let (bytes, blocks, ms) = (change(|at| at.live_bytes), change(|at| at.live_blocks), report.span_ms());
    out.push_str("growth over ");
    // A text takes all.
    let _ = growth::heading(&mut out, report.timeline.len(), ms, bytes, blocks);
    let _ = growth::columns(&mut out);
    let shown = if top == 0 { grown.len() } else { top };
    for row in grown.iter().take(shown) {
        let _ = growth::row(&mut out, &row.trend(), ms, row.live_bytes, &row.site);
        for frame in row.stack.iter().skip(1) {
            let _ = writeln!(out, "{:>63}{frame}", "");
        }
    }
    if grown.len() > shown {
        let _ = writeln!(out, "{:>61}  {} more call sites (--top 0 shows all)", "", grown.len() - shown);
    }
    out
}

pub fn html(report: &Report) -> Result<String> {
    let data = serde_json::to_string(report)?;
    let mut page = String::new();
    allokit_report::page::write(&mut page, |out| out.write_str(&data))?;
    Ok(page)
}

fn folded(report: &Report) -> String {
    let mut out = String::new();
    for row in &report.sites {
        let frames: Vec<String> = row.frames().iter().rev().map(folded_frame).collect();
        let _ = writeln!(out, "{} {}", frames.join(";"), row.bytes);
    }
    out
}

/// As the library writes it: the function first.
fn folded_frame(frame: &Frame) -> String {
    let text = match (&frame.function, &frame.file) {
        (Some(function), Some(file)) => format!("{function} ({file}:{})", frame.line.unwrap_or(0)),
        _ => frame.to_string(),
    };
    text.replace([';', '\n'], " ")
}

fn svg(report: &Report) -> Result<Vec<u8>> {
    if report.bytes == 0 {
        bail!("nothing is live, so there is no flame graph to draw");
    }
    let mut options = inferno::flamegraph::Options::default();
    options.title = match report.program.rsplit('/').next() {
        Some(name) if !name.is_empty() => format!("Live bytes of {name}"),
        _ => "Live bytes".to_string(),
    };
    options.count_name = "bytes".into();
    let (folded, mut out) = (folded(report), Vec::new());
    inferno::flamegraph::from_lines(&mut options, folded.lines(), &mut out)?;
    Ok(out)
}

/// To standard output.
pub fn print(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    Ok(out.write_all(bytes).and_then(|()| out.flush())?)
}

/// To a file, which takes its name when it is whole; to standard output without one.
pub fn put(bytes: &[u8], path: Option<&Path>) -> Result<()> {
    let Some(path) = path.filter(|path| *path != Path::new("-")) else { return print(bytes) };
    let said = || format!("cannot write {}", path.display());
    // A pipe or a device is written to as it is.
    if path.symlink_metadata().is_ok_and(|about| !about.is_file()) {
        return fs::write(path, bytes).with_context(said);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".allokit-").tempfile_in(folder).with_context(said)?;
    file.write_all(bytes).with_context(said)?;
    // As a file that any program makes: 0666 less the umask.
    use std::os::unix::fs::PermissionsExt;
    // SAFETY: umask cannot fail; nothing else runs here at the same time.
    let mask = unsafe {
        let mask = libc::umask(0o022);
        libc::umask(mask);
        mask
    };
    file.as_file().set_permissions(fs::Permissions::from_mode(0o666 & !mask)).with_context(said)?;
    file.persist(path).map_err(|error| error.error).with_context(said)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::parse;

    #[test]
    fn findings_are_lines_that_editors_and_github_read() {
        let report = parse(b"grow (src/a,b.c:12) 300\nx.so(make+0x1f) 20\n").unwrap();
        let said = |format| String::from_utf8(write(&report, format, 0).unwrap()).unwrap();
        let lines = said(Format::Ci);
        assert!(lines.starts_with("src/a,b.c:12: warning: 300 bytes in 0 blocks are live (grow)\n"), "{lines}");
        assert!(lines.ends_with("x.so(make+0x1f): warning: 20 bytes in 0 blocks are live\n"), "{lines}");
        let lines = said(Format::Github);
        assert!(lines.starts_with("::warning file=src/a%2Cb.c,line=12,title=Allokit::300 bytes in "), "{lines}");
    }

    #[test]
    fn what_is_folded_is_read_again() {
        let text = "main (a.c:1);grow (b.c:12) 300\n";
        assert_eq!(write(&parse(text.as_bytes()).unwrap(), Format::Folded, 0).unwrap(), text.as_bytes());
    }

    #[test]
    fn a_table_ends_with_what_it_leaves_out() {
        let report = parse(b"a (a.c:1) 6\nb (b.c:1) 3\nc (c.c:1) 1\n").unwrap();
        let table = String::from_utf8(write(&report, Format::Text, 1).unwrap()).unwrap();
        assert!(table.starts_with("0 live blocks, 10 bytes, from 3 call sites\n"), "{table}");
        assert!(table.contains("6   60.0%  a.c:1 (a)") && table.contains("4          2 more call sites"), "{table}");
    }
}
