//! The file in which the library writes down a run's requests: see crates/select/src/rehearse/log.rs, whose layout this is.

use crate::data::Frame;
use anyhow::{Context, Result, ensure};
use std::collections::HashMap;
use std::fs;
use std::path::Path;

const MAGIC: &[u8; 8] = b"AKSWEEP1";
const HEADER: usize = 512;
const TEXTS: usize = 1024;
const TEXT_ROOM: usize = 256;
const SITES: usize = 16384;
const SITE: usize = 128;
const FRAMES: usize = 8;
const BYTES: usize = HEADER + TEXTS * TEXT_ROOM + SITES * SITE;

/// The first word of the crash's frames, and how many there may be.
const CRASH: (usize, usize) = (10, 16);

const IS_PLACE: u64 = 1 << 63;
const IS_FUNCTION: u64 = 1 << 62;

/// How the program ended, as far as the library has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Not by `exit`.
    Otherwise,
    /// `main` returned.
    Returned,
    /// `exit` was called by a function that had not returned.
    Inside,
}

/// What a run has left.
pub struct Log {
    /// Whether the library was there and wrote.
    pub claimed: bool,
    pub refused: u64,
    pub faults: u64,
    /// `ak_fault_kind_t` of the first.
    pub fault: u64,
    pub ended: Ended,
    /// Sites that there was no room for.
    pub lost: u64,
    /// Where a signal ended it, the innermost first.
    pub crash: Vec<Frame>,
    /// In the order of their first requests.
    pub sites: Vec<Site>,
}

/// A call site of an allocation.
#[derive(Clone, Debug)]
pub struct Site {
    /// For ALLOKIT_FAIL_ONLY: the same in each run of the program.
    pub only: String,
    /// The innermost first.
    pub stack: Vec<Frame>,
    /// Which request was its first.
    pub first: u64,
    pub hits: u64,
    /// Bytes asked for by the first.
    pub size: u64,
}

/// Makes the file for a run.
pub fn prepare(path: &Path, depth: u64) -> Result<()> {
    let mut head = vec![0; HEADER];
    head[..8].copy_from_slice(MAGIC);
    head[16..24].copy_from_slice(&depth.to_ne_bytes());
    let write = || -> std::io::Result<()> {
        fs::write(path, &head)?;
        fs::OpenOptions::new().write(true).open(path)?.set_len(BYTES as u64)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map_or(0, u64::from_ne_bytes)
}

/// Reads it; `program` is the name that the program was started with, and its path.
pub fn read(path: &Path, program: (&str, &str)) -> Result<Log> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(bytes.len() == BYTES && bytes.starts_with(MAGIC), "{} was overwritten", path.display());
    let text = |number: u64| {
        let at = HEADER + (number as usize).min(TEXTS) * TEXT_ROOM;
        let room = if number < TEXTS as u64 { &bytes[at..at + TEXT_ROOM] } else { &[][..] };
        let end = room.iter().position(|byte| *byte == 0).unwrap_or(room.len());
        String::from_utf8_lossy(&room[..end]).into_owned()
    };
    let address = |frame: &u64| {
        let (module, offset) = (text(frame >> 48), frame & 0xffff_ffff_ffff);
        // The loader knows the program by the name that it was started with.
        let module = if module == program.0 { program.1.to_string() } else { module };
        let (address, base) = (Some(format!("{offset:#x}")), Some("0x0".to_string()));
        let module = (!module.is_empty()).then_some(module);
        Frame { module, address, base, offset: Some(offset), ..Frame::default() }
    };
    let crash = (CRASH.0..CRASH.0 + CRASH.1).map(|at| word(&bytes, at * 8)).take_while(|frame| *frame != 0);
    let crash = crash.map(|frame| address(&frame)).collect();
    let mut sites: Vec<Site> = Vec::new();
    let mut at: HashMap<String, usize> = HashMap::new();
    for index in 0..SITES {
        let start = HEADER + TEXTS * TEXT_ROOM + index * SITE;
        let field = |number: usize| word(&bytes, start + number * 8);
        let count = (field(5) as usize).min(FRAMES);
        if field(0) == 0 || count == 0 {
            continue;
        }
        let frames: Vec<u64> = (0..count).map(|number| field(6 + number)).collect();
        let (only, stack) = if frames[0] & IS_PLACE != 0 {
            let (file, line) = (text(frames[0] >> 32 & 0xffff), frames[0] & 0xffff_ffff);
            let function = frames.get(1).filter(|frame| **frame & IS_FUNCTION != 0);
            let function = function.map(|frame| text(frame >> 32 & 0xffff));
            let only = format!("{file}:{line}");
            (only, vec![Frame { file: Some(file), line: Some(line), function, ..Frame::default() }])
        } else {
            let depth = (field(6 + FRAMES) as usize).clamp(1, count);
            let short = |frame: &u64| {
                let (module, offset) = (text(frame >> 48), frame & 0xffff_ffff_ffff);
                format!("{}+{offset:#x}", module.rsplit('/').next().unwrap_or(&module))
            };
            let mut only = frames[..depth].iter().map(short).collect::<Vec<_>>();
            // Who calls main is the same for all.
            let is_libcs = |frame: &String| frame.starts_with("libc.so");
            if let [.., _, one, other, _] = only.as_slice()
                && is_libcs(one)
                && is_libcs(other)
            {
                only.truncate(only.len() - 3);
            }
            let only = only.join("<");
            (only, frames.iter().map(address).collect())
        };
        let site = Site { only, stack, first: field(1), hits: field(2), size: field(4) };
        // A module that was loaded twice, at two addresses.
        match at.get(&site.only) {
            Some(index) => {
                let same: &mut Site = &mut sites[*index];
                same.hits += site.hits;
                same.first = same.first.min(site.first);
            }
            None => {
                at.insert(site.only.clone(), sites.len());
                sites.push(site);
            }
        }
    }
    sites.sort_by_key(|site| site.first);
    Ok(Log {
        claimed: word(&bytes, 8) != 0,
        refused: word(&bytes, 32),
        faults: word(&bytes, 40),
        fault: word(&bytes, 48),
        ended: match word(&bytes, 56) {
            1 => Ended::Returned,
            2 => Ended::Inside,
            _ => Ended::Otherwise,
        },
        lost: word(&bytes, 72),
        crash,
        sites,
    })
}
