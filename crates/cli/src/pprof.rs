//! pprof's protocol buffer, both ways: github.com/google/pprof, `profile.proto`.

use crate::data::{FORMAT, Frame, Report, Row, VERSION, number, return_address};
use anyhow::{Context, Result, bail, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use std::collections::HashMap;
use std::io::Write;

#[derive(Clone, PartialEq, Message)]
pub struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    memory_start: u64,
    #[prost(uint64, tag = "3")]
    memory_limit: u64,
    #[prost(uint64, tag = "4")]
    file_offset: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// The bytes of a profile, unpacked.
pub fn read(bytes: &[u8]) -> Result<Report> {
    let Ok(profile) = Profile::decode(bytes) else {
        bail!(
            "the file is neither pprof, nor folded stacks, nor a report of Allokit; or it is a pprof file that was cut off"
        );
    };
    ensure!(
        !profile.sample_type.is_empty(),
        "the file is neither pprof, nor folded stacks, nor a report of Allokit: it has no sample types"
    );
    let gone = "the pprof file was cut off: what its samples name is not there; write it again";
    let text = |index: i64| profile.string_table.get(usize::try_from(index).ok()?).map(String::as_str);
    let mut kinds = Vec::new();
    for kind in &profile.sample_type {
        kinds.push((text(kind.kind).context(gone)?, text(kind.unit).context(gone)?));
    }
    // What is live, where a profile has that as well as what was allocated.
    let find = |unit: &str, name: &str| {
        let wanted = kinds.iter().position(|kind| *kind == (name, unit));
        wanted.or_else(|| kinds.iter().position(|kind| kind.1 == unit))
    };
    let Some(bytes_at) = find("bytes", "inuse_space") else {
        let kinds: Vec<String> = kinds.iter().map(|(kind, unit)| format!("{kind} in {unit}")).collect();
        bail!("the profile tells nothing of memory: its values are {}", kinds.join(", "));
    };
    let blocks_at = find("count", "inuse_objects");

    let locations: HashMap<u64, &Location> = profile.location.iter().map(|location| (location.id, location)).collect();
    let functions: HashMap<u64, &Function> = profile.function.iter().map(|function| (function.id, function)).collect();
    let mappings: HashMap<u64, &Mapping> = profile.mapping.iter().map(|mapping| (mapping.id, mapping)).collect();
    let frames_of = |location: &Location| -> Option<Vec<Frame>> {
        let mut whole = Frame::default();
        if location.address != 0 {
            whole.address = Some(format!("{:#x}", location.address));
        }
        if let Some(mapping) = mappings.get(&location.mapping_id) {
            whole.module = Some(text(mapping.filename)?.to_string()).filter(|name| !name.is_empty());
            // A mapping of no extent is one that was made for its name.
            if mapping.memory_limit > mapping.memory_start {
                whole.base = mapping.memory_start.checked_sub(mapping.file_offset).map(|base| format!("{base:#x}"));
            }
        }
        if location.line.is_empty() {
            return Some(vec![whole]);
        }
        let frames = location.line.iter().map(|line| {
            let function = functions.get(&line.function_id)?;
            let (name, file) = (text(function.name)?, text(function.filename)?);
            // The library names a return address so, and its module as the file.
            if line.line == 0
                && let Some(found) = return_address(name)
            {
                return Some(Frame { module: Some(file.to_string()), address: whole.address.clone(), ..found });
            }
            // And this command a name of which no more is known than its module.
            if line.line == 0 && whole.module.as_deref() == Some(file) {
                return Some(Frame { symbol: (!name.is_empty()).then(|| name.to_string()), ..whole.clone() });
            }
            Some(Frame {
                file: (!file.is_empty()).then(|| file.to_string()),
                line: u64::try_from(line.line).ok().filter(|line| *line > 0),
                function: (!name.is_empty()).then(|| name.to_string()),
                ..whole.clone()
            })
        });
        frames.collect()
    };
    let mut report = Report { format: FORMAT.into(), version: VERSION, ..Report::default() };
    report.time_ns = u64::try_from(profile.time_nanos).ok().filter(|time| *time > 0);
    for sample in &profile.sample {
        let value = |at: usize| sample.value.get(at).map_or(0, |value| u64::try_from(*value).unwrap_or(0));
        let (blocks, bytes) = (blocks_at.map_or(0, value), value(bytes_at));
        if blocks == 0 && bytes == 0 {
            continue;
        }
        let mut stack = Vec::new();
        for id in &sample.location_id {
            stack.extend(locations.get(id).and_then(|location| frames_of(location)).context(gone)?);
        }
        let site = stack.first().cloned().unwrap_or_default();
        if stack.len() < 2 {
            stack.clear();
        }
        report.blocks += blocks;
        report.bytes += bytes;
        report.sites.push(Row { site, blocks, bytes, stack, ..Row::default() });
    }
    if blocks_at.is_none() {
        report.note("The profile has no numbers of blocks.".into());
    }
    Ok(report)
}

/// Strings, each once; the first is empty.
struct Strings {
    list: Vec<String>,
    at: HashMap<String, i64>,
}

impl Strings {
    fn of(&mut self, text: &str) -> i64 {
        if let Some(at) = self.at.get(text) {
            return *at;
        }
        let at = self.list.len() as i64;
        self.list.push(text.to_string());
        self.at.insert(text.to_string(), at);
        at
    }
}

/// A profile of a report, compressed as pprof's own are.
pub fn write(report: &Report) -> Result<Vec<u8>> {
    let mut strings = Strings { list: Vec::new(), at: HashMap::new() };
    strings.of("");
    let mut profile = Profile::default();
    for (kind, unit) in [("inuse_objects", "count"), ("inuse_space", "bytes")] {
        profile.sample_type.push(ValueType { kind: strings.of(kind), unit: strings.of(unit) });
    }
    profile.default_sample_type = strings.of("inuse_space");
    profile.time_nanos = report.time_ns.and_then(|time| i64::try_from(time).ok()).unwrap_or(0);
    let (mut locations, mut functions, mut mappings) = (HashMap::new(), HashMap::new(), HashMap::new());
    for row in &report.sites {
        let mut sample = Sample { value: vec![row.blocks as i64, row.bytes as i64], ..Sample::default() };
        for frame in row.frames() {
            let next = locations.len() as u64 + 1;
            let id = *locations.entry(frame.clone()).or_insert(next);
            sample.location_id.push(id);
            if id != next {
                continue;
            }
            let name = match (&frame.function, &frame.symbol) {
                (Some(name), _) | (None, Some(name)) => name.clone(),
                (None, None) => frame.to_string(),
            };
            let place = (name, frame.file.clone().or_else(|| frame.module.clone()).unwrap_or_default());
            let next = functions.len() as u64 + 1;
            let function = *functions.entry(place.clone()).or_insert(next);
            if function == next {
                let (name, filename) = (strings.of(&place.0), strings.of(&place.1));
                profile.function.push(Function { id: function, name, system_name: name, filename });
            }
            let mapping_id = frame.module.as_ref().map_or(0, |module| {
                let next = mappings.len() as u64 + 1;
                let id = *mappings.entry(module.clone()).or_insert(next);
                if id == next {
                    let (start, filename) = (number(&frame.base).unwrap_or(0), strings.of(module));
                    let mapping =
                        Mapping { id, memory_start: start, filename, has_functions: true, ..Mapping::default() };
                    profile.mapping.push(mapping);
                }
                id
            });
            let line = Line { function_id: function, line: frame.line.unwrap_or(0) as i64 };
            let address = number(&frame.address).unwrap_or(0);
            profile.location.push(Location { id, mapping_id, address, line: vec![line] });
        }
        profile.sample.push(sample);
    }
    // A mapping reaches as far as its addresses do.
    for location in &profile.location {
        if let Some(mapping) = profile.mapping.iter_mut().find(|mapping| mapping.id == location.mapping_id) {
            mapping.memory_limit = mapping.memory_limit.max(location.address + 1);
        }
    }
    profile.string_table = strings.list;
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(&profile.encode_to_vec())?;
    Ok(packed.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data;

    #[test]
    fn what_is_written_is_read_again() {
        let text = b"main (a.c:1);grow (b.c:12) 300\nmain (a.c:1);grow (b.c:13) 30\nx.so(make+0x1f) 20\n";
        let report = data::parse(text).unwrap();
        let packed = write(&report).unwrap();
        let again = data::parse(&packed).unwrap();
        assert_eq!(again.bytes, 350);
        for (one, other) in report.sites.iter().zip(&again.sites) {
            assert_eq!((one.bytes, one.stack.len()), (other.bytes, other.stack.len()));
        }
        assert_eq!(again.sites[0].stack, report.sites[0].stack);
    }

    #[test]
    fn a_profile_that_is_cut_off_is_said_to_be() {
        let report = data::parse(b"main;grow 300\nmain;shrink 30\n").unwrap();
        let mut plain = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&write(&report).unwrap()[..]), &mut plain)
            .unwrap();
        let whole = read(&plain).unwrap();
        for length in 0..plain.len() {
            match read(&plain[..length]) {
                Err(error) => assert!(!error.to_string().is_empty()),
                // Only what comes after all that samples name may be missing.
                Ok(report) => assert_eq!(report.bytes, whole.bytes, "{length} of {}", plain.len()),
            }
        }
    }
}
