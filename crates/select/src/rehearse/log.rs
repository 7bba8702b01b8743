//! What a sweep wants to know of a run, in a file that it has made and that outlives the process: which call sites asked for
//! memory, in which order and how often, which of them were refused, how many faults were found, and how the program ended.
//!
//! The file is a header, a table of texts (paths of modules and source files, names of functions) and a hash table of call
//! sites, all words little-endian as the machine has them; `crates/cli` reads it. It belongs to the process that claims it
//! first: those that it starts write nothing.

use super::{FRAMES, From, Inside, stack_from};
use allokit_platform::{Lock, crash, file, process, symbol};
use allokit_report::fault;
use core::ffi::CStr;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

const MAGIC: u64 = u64::from_le_bytes(*b"AKSWEEP1");
const TEXTS: usize = 1024;
const TEXT_ROOM: usize = 256;
const SITES: usize = 16384;

const CRASH: usize = 16;

/// A frame of a site is a place: the number of its file in bits 32 to 47, and its line.
const IS_PLACE: u64 = 1 << 63;
/// A frame of a site is a function's name.
const IS_FUNCTION: u64 = 1 << 62;

#[repr(C)]
struct Header {
    /// Written by the sweep.
    magic: AtomicU64,
    /// The process that it belongs to; 0: nobody yet.
    owner: AtomicU64,
    /// How many frames tell sites apart; 0: up to the first outside the C and C++ libraries. Written by the sweep.
    depth: AtomicU64,
    requests: AtomicU64,
    refused: AtomicU64,
    faults: [AtomicU64; 2],
    /// 0: not by exit; 1: `main` returned, or the like; 2: `exit` was called further inside.
    ended: AtomicU64,
    texts: AtomicU64,
    /// Sites for which there was no room.
    lost: AtomicU64,
    /// Where a signal has ended it, the innermost first.
    crash: [AtomicU64; CRASH],
    _more: [AtomicU64; 54 - CRASH],
}

#[repr(C)]
struct Site {
    /// 0: none.
    key: AtomicU64,
    first: AtomicU64,
    hits: AtomicU64,
    refused: AtomicU64,
    /// Of the first request.
    size: AtomicU64,
    frames: AtomicU64,
    frame: [AtomicU64; FRAMES],
    /// How many of them tell it from others.
    depth: AtomicU64,
    _more: AtomicU64,
}

#[repr(C)]
struct Log {
    header: Header,
    texts: [[AtomicU8; TEXT_ROOM]; TEXTS],
    sites: [Site; SITES],
}

static LOG: AtomicPtr<Log> = AtomicPtr::new(ptr::null_mut());
static NAMING: Lock = Lock::new();
static DEPTH: AtomicUsize = AtomicUsize::new(1);
/// The process that writes; a forked child does not.
static OWNER: AtomicU32 = AtomicU32::new(0);

fn log() -> Option<&'static Log> {
    // SAFETY: null, or a mapping of that size for good, of words that are only read and written whole.
    let log = unsafe { LOG.load(Ordering::Acquire).as_ref() }?;
    (OWNER.load(Ordering::Relaxed) == process::id()).then_some(log)
}

pub(super) fn is_on() -> bool {
    !LOG.load(Ordering::Relaxed).is_null()
}

/// What `ALLOKIT_FAIL_LOG` led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// This process is the one that is looked at.
    Mine,
    /// Another process is: nothing is to fail here.
    Anothers,
    /// There is no such file, or it is none of a sweep.
    No,
}

/// Writes into a sweep's file from now on, if it is nobody's or (after an `exec`) this process's.
pub(crate) fn begin(path: &CStr) -> Begun {
    let start = file::map_shared(path, size_of::<Log>()).cast::<Log>();
    // SAFETY: as above.
    let Some(log) = (unsafe { start.as_ref() }) else { return Begun::No };
    if log.header.magic.load(Ordering::Relaxed) != MAGIC {
        return Begun::No;
    }
    let me = u64::from(process::id());
    match log.header.owner.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
        Err(owner) if owner != me => return Begun::Anothers,
        _ => {}
    }
    OWNER.store(process::id(), Ordering::Relaxed);
    let depth = log.header.depth.load(Ordering::Relaxed).min(FRAMES as u64) as usize;
    DEPTH.store(depth, Ordering::Relaxed);
    fault::keep_in(&log.header.faults);
    crash::on_crash(note_crash);
    LOG.store(start, Ordering::Release);
    Begun::Mine
}

/// The number of a text; `None` when there is no room.
fn text(log: &Log, text: &CStr) -> Option<u64> {
    let bytes = text.to_bytes();
    // What is too long keeps its end.
    let bytes = &bytes[bytes.len().saturating_sub(TEXT_ROOM - 1)..];
    let _guard = NAMING.lock();
    let count = log.header.texts.load(Ordering::Relaxed) as usize;
    let is = |slot: &[AtomicU8; TEXT_ROOM]| {
        slot[bytes.len()].load(Ordering::Relaxed) == 0
            && bytes.iter().zip(slot).all(|(byte, slot)| *byte == slot.load(Ordering::Relaxed))
    };
    if let Some(number) = log.texts[..count.min(TEXTS)].iter().position(is) {
        return Some(number as u64);
    }
    let slot = log.texts.get(count)?;
    for (byte, slot) in bytes.iter().zip(slot) {
        slot.store(*byte, Ordering::Relaxed);
    }
    log.header.texts.store(count as u64 + 1, Ordering::Release);
    Some(count as u64)
}

/// Counts a request at its call site; the site's place in the table, for [`note_failure`].
pub(super) fn note(from: From, size: usize) -> Option<usize> {
    let log = log()?;
    let number = log.header.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let mut stack = [0; FRAMES];
    let (key, count) = match from {
        From::Place { file, line, .. } => (super::hash(file.addr() as u64 ^ u64::from(line) << 48), 0),
        From::Caller(caller) => {
            stack[0] = caller;
            let count = match DEPTH.load(Ordering::Relaxed) {
                1 => 1,
                0 if !is_runtime(caller) => 1,
                0 => {
                    let count = stack_from(caller, &mut stack);
                    stack[..count].iter().position(|frame| !is_runtime(*frame)).map_or(count, |at| at + 1)
                }
                depth => stack_from(caller, &mut stack).min(depth),
            };
            (stack[..count].iter().fold(1, |key, frame| super::hash(key ^ *frame as u64)), count)
        }
    };
    let key = key.max(1);
    for step in 0..64 {
        let index = (key as usize).wrapping_add(step) % SITES;
        let site = &log.sites[index];
        let found = match site.key.compare_exchange(0, key, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                site.first.store(number, Ordering::Relaxed);
                site.size.store(size as u64, Ordering::Relaxed);
                describe(log, site, from, &stack[..count]);
                key
            }
            Err(found) => found,
        };
        if found == key {
            site.hits.fetch_add(1, Ordering::Relaxed);
            return Some(index);
        }
    }
    log.header.lost.fetch_add(1, Ordering::Relaxed);
    None
}

/// Whether an address lies in the C or C++ library: who calls `strdup` matters, not that it calls `malloc`.
fn is_runtime(address: usize) -> bool {
    static KNOWN: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];
    let slot = &KNOWN[(address ^ address >> 8) % KNOWN.len()];
    let found = slot.load(Ordering::Relaxed);
    if found >> 1 == address as u64 {
        return found & 1 != 0;
    }
    let is = symbol::of(address).is_some_and(|symbol| {
        let path = symbol.module.to_bytes();
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        ["libc.so", "libc-", "libc.musl", "libstdc++.so", "libc++", "libgcc_s.so", "ld-linux", "ld-musl"]
            .iter()
            .any(|begin| name.starts_with(begin.as_bytes()))
    });
    slot.store((address as u64) << 1 | u64::from(is), Ordering::Relaxed);
    is
}

fn describe(log: &Log, site: &Site, from: From, stack: &[usize]) {
    let mut count = 0;
    site.depth.store(stack.len() as u64, Ordering::Relaxed);
    match from {
        From::Place { file, function, line } => {
            let text_of = |what: *const core::ffi::c_char| {
                if what.is_null() {
                    return None;
                }
                // SAFETY: texts of a call site are null or zero-terminated.
                text(log, unsafe { CStr::from_ptr(what) })
            };
            let file = text_of(file).unwrap_or(TEXTS as u64);
            site.frame[0].store(IS_PLACE | file << 32 | u64::from(line), Ordering::Relaxed);
            count = 1;
            if let Some(function) = text_of(function) {
                site.frame[1].store(IS_FUNCTION | function << 32, Ordering::Relaxed);
                count = 2;
            }
        }
        From::Caller(caller) => {
            let mut all = [0; FRAMES];
            let length = stack_from(caller, &mut all);
            for (frame, address) in site.frame.iter().zip(&all[..length]) {
                frame.store(named(log, *address), Ordering::Relaxed);
                count += 1;
            }
        }
    }
    site.frames.store(count, Ordering::Release);
}

/// A return address as module and offset.
fn named(log: &Log, address: usize) -> u64 {
    let found = symbol::of(address);
    let module = found.and_then(|found| text(log, found.module)).unwrap_or(TEXTS as u64);
    let offset = found.map_or(address, |found| address - found.base);
    module << 48 | offset as u64 & 0xffff_ffff_ffff
}

/// In a signal handler; the process ends afterwards.
fn note_crash(executed: usize) {
    let Some(log) = log() else { return };
    // The signal may have come in the middle of one.
    let inside = Inside::enter();
    if inside.is_none() && NAMING.is_held() {
        return;
    }
    let mut all = [0; CRASH + 8];
    let count = super::stack(&mut all);
    // As if it was a return address.
    let first = executed.wrapping_add(1);
    log.header.crash[0].store(named(log, first), Ordering::Relaxed);
    let start = all[..count].iter().position(|address| *address == executed).map_or(count, |at| at + 1);
    for (frame, address) in log.header.crash[1..].iter().zip(&all[start..count]) {
        frame.store(named(log, *address), Ordering::Relaxed);
    }
}

pub(super) fn note_failure(entry: Option<usize>) {
    // Also in a forked child: it is the same program.
    // SAFETY: as above.
    if let Some(log) = unsafe { LOG.load(Ordering::Acquire).as_ref() } {
        log.header.refused.fetch_add(1, Ordering::Relaxed);
        if let Some(index) = entry {
            log.sites[index].refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Notes how the program ended: whether functions of it had not returned yet.
pub(crate) fn at_exit() {
    let Some(log) = log() else { return };
    let Some(_inside) = Inside::enter() else { return };
    let mut frames = [0; 128];
    let count = super::stack(&mut frames);
    let base = symbol::program_base();
    let is_programs = |frame: &usize| symbol::of(*frame).is_some_and(|at| at.base == base);
    // (This function may be linked into the program; `exit` is not.)
    let below = frames[..count].iter().skip_while(|frame| is_programs(frame));
    let mut inside = below.filter(|frame| is_programs(frame));
    // Only the program's own `_start`, below everything.
    let returned = inside.next().is_some_and(|last| Some(last) == frames[..count].last());
    log.header.ended.store(if returned { 1 } else { 2 }, Ordering::Relaxed);
}
