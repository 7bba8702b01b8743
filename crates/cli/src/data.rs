//! A report: what is live in a program, by call site. Read from the library's JSON, its page, pprof or folded stacks; the
//! content tells which, not the name.

use crate::pprof;
use allokit_report::growth::Trend;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

/// The name of our own format.
pub const FORMAT: &str = "allokit-report";
/// The version of it that this command writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// docs/profiling.md has the schema.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    pub format: String,
    pub version: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub program: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u64>,
    /// Of the day, since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_ns: Option<u64>,
    pub blocks: u64,
    pub bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_before: Option<u64>,
    pub sites: Vec<Row>,
    /// Of several moments, the likeliest leak first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub growth: Vec<Grown>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<Sample>,
    /// What the reader should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What the page shows and this command passes on: statistics, sizes, map, heaps, and what is newer than it.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// What is live of one call site.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    pub site: Frame,
    pub blocks: u64,
    pub bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_before: Option<u64>,
    /// The age of the oldest live block, in marks and snapshots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest: Option<u64>,
    /// The innermost first; empty where only the call site is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<Frame>,
}

/// How a call site went over several moments; `allokit_report::growth` says what the words mean.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Grown {
    pub site: Frame,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<Frame>,
    pub leak: String,
    pub grew: u32,
    pub fell: u32,
    pub of: u32,
    pub trend: i32,
    pub bytes: i64,
    pub blocks: i64,
    pub bytes_per_minute: i64,
    pub live_blocks: u64,
    pub live_bytes: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<u64>,
}

impl Grown {
    pub fn trend(&self) -> Trend {
        Trend { of: self.of, grew: self.grew, fell: self.fell, change: self.bytes, trend: self.trend }
    }
}

/// A place in a program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Frame {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The return address, `0x…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
    /// From the symbol, or from the module's beginning when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Where the module began in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
}

/// A moment while the program ran.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    pub ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_blocks: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alloc_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alloc_bytes: Option<u64>,
}

pub fn number(text: &Option<String>) -> Option<u64> {
    u64::from_str_radix(text.as_ref()?.strip_prefix("0x")?, 16).ok()
}

impl Frame {
    /// The address as the module's file counts from its beginning.
    pub fn in_module(&self) -> Option<u64> {
        // One less: the call, not what comes after it.
        number(&self.address)?.checked_sub(1)?.checked_sub(number(&self.base)?)
    }

    /// What is the same in two runs of a program: addresses are not.
    fn key(&self) -> Frame {
        if self.file.is_some() || self.module.is_none() {
            let address = if self.file.is_none() && self.function.is_none() { self.address.clone() } else { None };
            return Frame { address, module: None, symbol: None, offset: None, base: None, ..self.clone() };
        }
        let offset = self.in_module().or(self.offset);
        Frame { module: self.module.clone(), symbol: self.symbol.clone(), offset, ..Frame::default() }
    }
}

/// As the library's own text has it.
impl std::fmt::Display for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}")?;
            match self.line {
                Some(line) if line > 0 => write!(f, ":{line}")?,
                _ => {}
            }
            return self.function.iter().try_for_each(|function| write!(f, " ({function})"));
        }
        if let Some(function) = &self.function {
            return f.write_str(function);
        }
        if let Some(module) = &self.module {
            let name = module.rsplit('/').next().unwrap_or(module);
            return write!(f, "{name}({}+{:#x})", self.symbol.as_deref().unwrap_or(""), self.offset.unwrap_or(0));
        }
        f.write_str(self.address.as_deref().unwrap_or("unknown site"))
    }
}

impl Row {
    /// The innermost first; never empty.
    pub fn frames(&self) -> &[Frame] {
        if self.stack.is_empty() { std::slice::from_ref(&self.site) } else { &self.stack }
    }

    /// What tells it from other rows, in this run and in another.
    pub fn key(&self) -> Vec<Frame> {
        self.frames().iter().map(Frame::key).collect()
    }
}

impl Report {
    /// Rows of the same place become one; most bytes first; the sums are those of the rows.
    pub fn tidy(&mut self) {
        let mut at: HashMap<Vec<Frame>, usize> = HashMap::new();
        let mut rows: Vec<Row> = Vec::new();
        for row in self.sites.drain(..) {
            let index = *at.entry(row.key()).or_insert(rows.len());
            match rows.get_mut(index) {
                Some(same) => {
                    same.blocks += row.blocks;
                    same.bytes += row.bytes;
                    same.oldest = same.oldest.max(row.oldest);
                }
                None => rows.push(row),
            }
        }
        rows.sort_by_key(|row| std::cmp::Reverse((row.bytes, row.blocks)));
        self.sites = rows;
    }

    /// Every place in it.
    pub fn frames(&mut self) -> impl Iterator<Item = &mut Frame> {
        let sites = self.sites.iter_mut().flat_map(|row| std::iter::once(&mut row.site).chain(&mut row.stack));
        sites.chain(self.growth.iter_mut().flat_map(|row| std::iter::once(&mut row.site).chain(&mut row.stack)))
    }

    /// How long its moments took, in ms.
    pub fn span_ms(&self) -> u64 {
        match (self.timeline.first(), self.timeline.last()) {
            (Some(first), Some(last)) => last.ms.saturating_sub(first.ms),
            _ => 0,
        }
    }

    /// Says something about it, once.
    pub fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    pub fn text(&self, member: &str) -> Option<&str> {
        self.rest.get(member)?.as_str()
    }
}

/// Reads a report; `-` is standard input.
pub fn read(path: &Path) -> Result<Report> {
    let mut bytes = Vec::new();
    let name = if path == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read standard input")?;
        "standard input".to_string()
    } else {
        bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        path.display().to_string()
    };
    let mut report = parse(&bytes).with_context(|| name.clone())?;
    report.tidy();
    Ok(report)
}

/// A report from the content of a file.
pub fn parse(bytes: &[u8]) -> Result<Report> {
    ensure!(!bytes.is_empty(), "the file is empty: has the program ended, and was tracking on (ALLOKIT_TRACK=sites)?");
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        let done = flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain);
        done.context("the file is cut off or damaged: gzip does not come to its end; write it again")?;
        return pprof::read(&plain);
    }
    let text = std::str::from_utf8(bytes).ok();
    if let Some(text) = text {
        let start = text.trim_start();
        if start.starts_with('{') {
            return json(start);
        }
        if start.starts_with("<!DOCTYPE html>") {
            return page(text);
        }
        if let Some(report) = folded(text) {
            return Ok(report);
        }
    }
    if bytes.starts_with(b"\x7fELF") {
        bail!("the file is a program or a library, no report; to run it: allokit run -- FILE");
    }
    pprof::read(bytes)
}

fn json(text: &str) -> Result<Report> {
    let value: Value = serde_json::from_str(text).map_err(|error| {
        if error.is_eof() {
            anyhow::anyhow!("the file is cut off in line {}: write the report again", error.line())
        } else {
            anyhow::anyhow!("the file is no JSON: {error}")
        }
    })?;
    if value["format"] != FORMAT {
        let what = if value["stats"].is_object() {
            "these are statistics (ALLOKIT_STATS=json), without call sites"
        } else if value["sites"][0]["live_bytes"].is_u64() {
            "this is a difference between two moments already"
        } else {
            "the file is JSON of another kind"
        };
        bail!("{what}; a report comes from ALLOKIT_PROFILE=json:FILE or allokit run --report json:FILE");
    }
    let version = value["version"].as_u64().unwrap_or(0);
    ensure!(
        version <= u64::from(VERSION),
        "the report is of version {version}, and this command knows versions up to {VERSION}: use a newer allokit"
    );
    let mut report: Report = serde_json::from_value(value).context("the report is damaged")?;
    // The loader knows the program by the name that it was started with, perhaps relative to a folder of then.
    let program = report.program.clone();
    let name = |path: &str| path.rsplit('/').next().map(str::to_string);
    for frame in report.frames() {
        if let Some(module) = &mut frame.module
            && !module.starts_with('/')
            && program.starts_with('/')
            && name(module) == name(&program)
        {
            module.clone_from(&program);
        }
    }
    Ok(report)
}

fn page(text: &str) -> Result<Report> {
    let (begin, end) = ("id=\"data\">", "</script>");
    let data = text.split_once(begin).map(|(_, rest)| rest).context("the page is none of Allokit's")?;
    match data.split_once(end) {
        Some((data, _)) => json(data),
        None => bail!("the page is cut off: write the report again"),
    }
}

/// `outer;inner 123` on each line.
fn folded(text: &str) -> Option<Report> {
    let mut report = Report { format: FORMAT.into(), version: VERSION, ..Report::default() };
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (stack, bytes) = line.rsplit_once(' ')?;
        let bytes: u64 = bytes.trim().parse().ok()?;
        let mut frames: Vec<Frame> = stack.split(';').rev().map(frame_of_text).collect();
        let site = frames.first()?.clone();
        if frames.len() == 1 {
            frames.clear();
        }
        report.bytes += bytes;
        report.sites.push(Row { site, bytes, stack: frames, ..Row::default() });
    }
    report.note("Folded stacks have bytes and no numbers of blocks.".into());
    (!report.sites.is_empty()).then_some(report)
}

/// `function (file:line)`, `file:line`, `module(symbol+0x1f)`, or a name.
pub fn frame_of_text(text: &str) -> Frame {
    let place = |text: &str| -> Option<(String, u64)> {
        let (file, line) = text.rsplit_once(':')?;
        (!file.is_empty()).then_some(())?;
        Some((file.to_string(), line.parse().ok()?))
    };
    if let Some((function, rest)) = text.split_once(" (")
        && let Some((file, line)) = rest.strip_suffix(')').and_then(place)
    {
        return Frame { file: Some(file), line: Some(line), function: Some(function.into()), ..Frame::default() };
    }
    if let Some((file, line)) = place(text) {
        return Frame { file: Some(file), line: Some(line), ..Frame::default() };
    }
    return_address(text).unwrap_or_else(|| Frame { function: Some(text.into()), ..Frame::default() })
}

/// `module(symbol+0x1f)`
pub fn return_address(text: &str) -> Option<Frame> {
    let (module, rest) = text.split_once('(')?;
    let (symbol, offset) = rest.strip_suffix(')')?.rsplit_once("+0x")?;
    Some(Frame {
        module: Some(module.into()),
        symbol: (!symbol.is_empty()).then(|| symbol.into()),
        offset: Some(u64::from_str_radix(offset, 16).ok()?),
        ..Frame::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(bytes: &[u8]) -> String {
        format!("{:#}", parse(bytes).unwrap_err())
    }

    #[test]
    fn what_is_no_report_is_told_from_one_that_is_cut_off() {
        assert!(said(b"").starts_with("the file is empty"));
        assert!(said(b"{\"format\":\"allokit-report\",\n\"sites\":[{").contains("cut off in line 2"));
        assert!(said(b"{\"stats\":{}}").starts_with("these are statistics"));
        assert!(said(b"{\"sites\":[{\"live_bytes\":1}]}").starts_with("this is a difference"));
        assert!(said(b"{\"format\":\"allokit-report\",\"version\":9}").contains("use a newer allokit"));
        assert!(said(b"{oh").starts_with("the file is no JSON"));
        assert!(said(b"<!DOCTYPE html><p>").contains("none of Allokit's"));
        assert!(said(b"<!DOCTYPE html><script id=\"data\">{\"a\"").contains("cut off"));
        assert!(said(&[0x1f, 0x8b, 8, 0, 0]).contains("cut off or damaged"));
        assert!(said(b"\x7fELF\x02").contains("allokit run"));
        assert!(said(b"Dear reader,\nthis is a letter.\n").contains("neither"));
    }

    #[test]
    fn the_program_is_found_from_another_folder() {
        let text = r#"{"format":"allokit-report","program":"/opt/a/server","sites":[{"site":{"module":"./server"}},{"site":{"module":"[vdso]"}}]}"#;
        let report = parse(text.as_bytes()).unwrap();
        assert_eq!(report.sites[0].site.module.as_deref(), Some("/opt/a/server"));
        assert_eq!(report.sites[1].site.module.as_deref(), Some("[vdso]"));
    }

    #[test]
    fn folded_stacks_are_read() {
        let report = parse(b"main;grow (a b.c:12) 300\nx.so(make+0x1f) 20\nparse.c:7 1\n").unwrap();
        assert_eq!((report.bytes, report.sites.len()), (321, 3));
        assert_eq!(report.sites[0].site.file.as_deref(), Some("a b.c"));
        assert_eq!(report.sites[0].stack[1].function.as_deref(), Some("main"));
        let place = &report.sites[1].site;
        assert_eq!(
            (place.module.as_deref(), place.symbol.as_deref(), place.offset),
            (Some("x.so"), Some("make"), Some(31))
        );
        assert_eq!(report.sites[2].site.to_string(), "parse.c:7");
    }

    #[test]
    fn the_same_place_in_two_runs_has_one_key() {
        let at = |address: &str, base: &str| Frame {
            address: Some(address.into()),
            base: Some(base.into()),
            module: Some("/lib/x.so".into()),
            ..Frame::default()
        };
        assert_eq!(at("0x1010", "0x1000").key(), at("0x7010", "0x7000").key());
        assert_ne!(at("0x1010", "0x1000").key(), at("0x1011", "0x1000").key());
        assert_eq!(at("0x1010", "0x1000").in_module(), Some(15));
    }
}
