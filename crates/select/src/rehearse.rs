//! Rehearsed failure: requests that fail because the program asked for it.
//!
//! Nobody pays for it until it is asked for: from then on the mode has the bit [`api::ASKED`], nothing is at hand, and each
//! request of memory comes by [`refuses`]. It counts those that the filter lets through; the nth fails, or those that a
//! hash of the seed and the count says, so that the same program with the same seed has the same failures. Frees never fail.
//!
//! For `allokit oom-sweep` each request is also written down by its call site, in a file that outlives the process
//! ([`log`]).
//!
//! Invariants: what a request calls here (the dynamic linker, libc's `backtrace`) may itself allocate: those requests are
//! let through ([`Inside`]). Texts of the filter are kept in bytes that are read and written one by one, so that a change
//! in the middle of a comparison gives a wrong answer at worst.

mod log;
mod text;

use crate::api::{self, Origin};
use crate::fail::FailFilter;
use allokit_core::{Fault, FaultKind};
use allokit_heap::Raw;
use allokit_platform::{backtrace, errno, symbol, thread_cell};
use allokit_report::fault;
use allokit_track::SiteId;
use core::ffi::{CStr, c_char};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use text::Text;

pub(crate) use log::{Begun, at_exit, begin as begin_log};

/// The most frames that a request's stack is known by.
pub(crate) const FRAMES: usize = 8;

static NTH: AtomicU64 = AtomicU64::new(0);
/// Per million; 0: none.
static RATE: AtomicU32 = AtomicU32::new(0);
static SEED: AtomicU64 = AtomicU64::new(0);
/// How many fail from the nth on.
static TIMES: AtomicU64 = AtomicU64::new(1);
static SEEN: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);

/// Which requests are meant; what is not set means all.
struct Filter {
    is_set: AtomicBool,
    file: Text,
    function: Text,
    line: AtomicU32,
    address: AtomicUsize,
    heap: AtomicPtr<Raw>,
    least: AtomicUsize,
    most: AtomicUsize,
    /// Return addresses as module and offset, the innermost first.
    depth: AtomicUsize,
    modules: [Text; FRAMES],
    offsets: [AtomicUsize; FRAMES],
}

static FILTER: Filter = Filter {
    is_set: AtomicBool::new(false),
    file: Text::new(),
    function: Text::new(),
    line: AtomicU32::new(0),
    address: AtomicUsize::new(0),
    heap: AtomicPtr::new(ptr::null_mut()),
    least: AtomicUsize::new(0),
    most: AtomicUsize::new(usize::MAX),
    depth: AtomicUsize::new(0),
    modules: [const { Text::new() }; FRAMES],
    offsets: [const { AtomicUsize::new(0) }; FRAMES],
};

/// What the dynamic linker has said of return addresses: the address, shifted, and whether it is meant.
static KNOWN: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];

struct Flag;
static IDLE: Flag = Flag;
static BUSY: Flag = Flag;
thread_cell! { static REHEARSING: *mut Flag = IDLE; }

/// Requests of this thread are let through while this lives.
struct Inside;

impl Inside {
    fn enter() -> Option<Inside> {
        if REHEARSING::get().cast_const() == &raw const BUSY {
            return None;
        }
        REHEARSING::set((&raw const BUSY).cast_mut());
        Some(Inside)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        REHEARSING::set((&raw const IDLE).cast_mut());
    }
}

/// Where a request comes from.
#[derive(Clone, Copy)]
pub(crate) enum From {
    Place { file: *const c_char, function: *const c_char, line: u32 },
    Caller(usize),
}

impl From {
    pub(crate) const UNKNOWN: From = From::Caller(0);

    pub(crate) fn place(file: *const c_char, line: u32) -> From {
        if file.is_null() { From::UNKNOWN } else { From::Place { file, function: ptr::null(), line } }
    }

    pub(crate) fn site(site: SiteId) -> From {
        let place = site.place();
        if place.file.is_null() {
            return From::Caller(place.address);
        }
        From::Place { file: place.file, function: place.function, line: place.line }
    }

    pub(crate) fn origin(origin: Origin) -> From {
        match origin {
            // SAFETY: the record is the C caller's, and lives.
            Origin::Site(record) => match unsafe { record.as_ref() } {
                Some(record) => From::Place {
                    file: record.file,
                    function: record.function.load(Ordering::Relaxed),
                    line: record.line,
                },
                None => From::UNKNOWN,
            },
            Origin::At(file, line) => From::place(file, line),
            Origin::Caller(address) => From::Caller(address),
        }
    }
}

/// Whether a request of `size` bytes, from a heap or (null) from the general functions, is to fail.
#[cold]
#[inline(never)]
pub(crate) fn refuses(from: From, heap: *mut Raw, size: usize) -> bool {
    let nth = NTH.load(Ordering::Relaxed);
    let rate = RATE.load(Ordering::Relaxed);
    if nth == 0 && rate == 0 && !log::is_on() {
        return false;
    }
    let Some(_inside) = Inside::enter() else { return false };
    let _errno = errno::Saved::new();
    let entry = log::note(from, size);
    if FILTER.is_set.load(Ordering::Acquire) && !is_meant(from, heap, size) {
        return false;
    }
    let number = SEEN.fetch_add(1, Ordering::Relaxed) + 1;
    let fails = nth != 0 && number >= nth && number - nth < TIMES.load(Ordering::Relaxed)
        || rate != 0 && hash(SEED.load(Ordering::Relaxed) ^ hash(number)) % 1_000_000 < u64::from(rate);
    if fails {
        FAILED.fetch_add(1, Ordering::Relaxed);
        log::note_failure(entry);
    }
    fails
}

/// What becomes of a request that is to fail: null with ENOMEM, and the program's handler hears of it.
#[cold]
pub(crate) fn refused(from: From, size: usize) -> *mut u8 {
    let mut now = allokit_core::Place::UNKNOWN;
    match from {
        From::Place { file, function, line } => (now.file, now.function, now.line) = (file, function, line),
        From::Caller(address) => now.address = address,
    }
    let operation = c"alloc".as_ptr();
    fault::tell(&Fault { operation, size, now, ..Fault::new(FaultKind::OutOfMemory) });
    errno::set(errno::ENOMEM);
    ptr::null_mut()
}

/// The finaliser of MurmurHash3: every bit of the number has a say in every bit of the result.
fn hash(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ mixed >> 33
}

fn is_meant(from: From, heap: *mut Raw, size: usize) -> bool {
    let only = FILTER.heap.load(Ordering::Relaxed);
    if !only.is_null() && only != heap
        || size < FILTER.least.load(Ordering::Relaxed)
        || size > FILTER.most.load(Ordering::Relaxed)
    {
        return false;
    }
    let depth = FILTER.depth.load(Ordering::Relaxed);
    let address = FILTER.address.load(Ordering::Relaxed);
    let line = FILTER.line.load(Ordering::Relaxed);
    let by_place = !FILTER.file.is_empty() || !FILTER.function.is_empty() || line != 0;
    if depth == 0 && address == 0 && !by_place {
        return true;
    }
    match from {
        From::Place { file, function, line: at } => {
            // SAFETY: texts of a call site are null or zero-terminated.
            depth == 0
                && address == 0
                && (line == 0 || line == at)
                && unsafe { FILTER.file.is_end_of_path(file) && FILTER.function.is(function) }
        }
        From::Caller(0) => false,
        From::Caller(caller) => {
            (address == 0 || address == caller)
                && FILTER.file.is_empty()
                && line == 0
                && known(caller, by_place || depth > 0)
                && (depth < 2 || is_stack(caller, depth))
        }
    }
}

/// Whether a return address is the innermost frame and lies in the function that are meant.
fn known(caller: usize, asks: bool) -> bool {
    if !asks {
        return true;
    }
    let slot = &KNOWN[(caller ^ caller >> 10) % KNOWN.len()];
    let found = slot.load(Ordering::Relaxed);
    if found >> 1 == caller as u64 {
        return found & 1 != 0;
    }
    let symbol = symbol::of(caller);
    let function = symbol.and_then(|symbol| symbol.name).map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: null or zero-terminated.
    let meant =
        unsafe { FILTER.function.is(function) } && (FILTER.depth.load(Ordering::Relaxed) == 0 || is_frame(caller, 0));
    slot.store((caller as u64) << 1 | u64::from(meant), Ordering::Relaxed);
    meant
}

fn is_frame(address: usize, index: usize) -> bool {
    symbol::of(address).is_some_and(|symbol| {
        address - symbol.base == FILTER.offsets[index].load(Ordering::Relaxed)
            // SAFETY: a module's path is zero-terminated.
            && unsafe { FILTER.modules[index].is_end_of_path(symbol.module.as_ptr()) }
    })
}

fn is_stack(caller: usize, depth: usize) -> bool {
    let mut frames = [0; FRAMES];
    let count = stack_from(caller, &mut frames);
    (1..depth).all(|index| index < count && is_frame(frames[index], index))
}

/// Return addresses of the calling thread's stack, the innermost first, and how many there are. The first call may allocate:
/// not before it is known what becomes of allocations.
fn stack(frames: &mut [usize]) -> usize {
    backtrace::prepare();
    backtrace::frames(0, frames)
}

/// The stack from the return address of a call on, which is known to be in it; just that where it is not.
pub(crate) fn stack_from(caller: usize, frames: &mut [usize; FRAMES]) -> usize {
    // What lies between: the layers of this library.
    let mut all = [0; FRAMES + 24];
    let count = stack(&mut all);
    frames[0] = caller;
    let Some(start) = all[..count].iter().position(|address| *address == caller) else { return 1 };
    let length = (count - start).min(FRAMES);
    frames[..length].copy_from_slice(&all[start..start + length]);
    length
}

/// Counts from here on; asks about each call, or no longer.
fn begin() {
    SEEN.store(0, Ordering::Relaxed);
    FAILED.store(0, Ordering::Relaxed);
    api::ask();
}

/// Whether requests are to be asked about.
pub(crate) fn is_wanted() -> bool {
    NTH.load(Ordering::Relaxed) != 0 || RATE.load(Ordering::Relaxed) != 0 || log::is_on()
}

/// `ak_fail_nth`
pub(crate) fn fail_nth(n: u64) {
    NTH.store(n, Ordering::Relaxed);
    begin();
}

/// `ak_fail_rate`
pub(crate) fn fail_rate(per_million: u32, seed: u64) {
    SEED.store(seed, Ordering::Relaxed);
    RATE.store(per_million, Ordering::Relaxed);
    begin();
}

/// `ak_fail_only`: false for a text that is too long.
///
/// # Safety
/// The texts are null or zero-terminated.
pub(crate) unsafe fn fail_only(only: Option<&FailFilter>) -> bool {
    FILTER.is_set.store(false, Ordering::Release);
    clear();
    let mut fits = true;
    if let Some(only) = only {
        // SAFETY: the caller's promise.
        fits = unsafe { FILTER.file.set(only.file) && FILTER.function.set(only.function) };
        FILTER.line.store(only.line, Ordering::Relaxed);
        FILTER.address.store(only.address.addr(), Ordering::Relaxed);
        FILTER.heap.store(only.heap, Ordering::Relaxed);
        FILTER.least.store(only.min_size, Ordering::Relaxed);
        FILTER.most.store(if only.max_size == 0 { usize::MAX } else { only.max_size }, Ordering::Relaxed);
        TIMES.store(only.times.max(1), Ordering::Relaxed);
        if fits {
            FILTER.is_set.store(true, Ordering::Release);
        } else {
            clear();
        }
    }
    begin();
    fits
}

fn clear() {
    FILTER.file.clear();
    FILTER.function.clear();
    FILTER.line.store(0, Ordering::Relaxed);
    FILTER.address.store(0, Ordering::Relaxed);
    FILTER.heap.store(ptr::null_mut(), Ordering::Relaxed);
    FILTER.least.store(0, Ordering::Relaxed);
    FILTER.most.store(usize::MAX, Ordering::Relaxed);
    FILTER.depth.store(0, Ordering::Relaxed);
    TIMES.store(1, Ordering::Relaxed);
    for slot in &KNOWN {
        slot.store(0, Ordering::Relaxed);
    }
}

/// `ak_fail_seen`
pub(crate) fn seen() -> u64 {
    SEEN.load(Ordering::Relaxed)
}

/// `ak_fail_count`
pub(crate) fn count() -> u64 {
    FAILED.load(Ordering::Relaxed)
}

// ---- the environment: before the first allocation ----

/// `ALLOKIT_FAIL_NTH`: a number, `n+` for that one and all after it.
pub(crate) fn nth_of(value: &CStr) -> bool {
    let Ok(text) = value.to_str() else { return false };
    let (number, times) = text.strip_suffix('+').map_or((text, 1), |number| (number, u64::MAX));
    let Ok(nth) = number.parse() else { return false };
    NTH.store(nth, Ordering::Relaxed);
    TIMES.store(times, Ordering::Relaxed);
    true
}

/// `ALLOKIT_FAIL_RATE`: per million, with `:seed`.
pub(crate) fn rate_of(value: &CStr) -> bool {
    let Ok(text) = value.to_str() else { return false };
    let (rate, seed) = text.split_once(':').unwrap_or((text, "0"));
    match (rate.parse(), seed.parse()) {
        (Ok(rate), Ok(seed)) if rate <= 1_000_000 => {
            SEED.store(seed, Ordering::Relaxed);
            RATE.store(rate, Ordering::Relaxed);
            true
        }
        _ => false,
    }
}

/// `ALLOKIT_FAIL_ONLY`: conditions with commas between them, which must all hold: `min-max` (bytes), `module+0x12`, or several
/// of these with `<` between them (a stack of return addresses, the innermost first), `file.c`, `file.c:12`, `function`.
pub(crate) fn only_of(value: &CStr) -> bool {
    let Ok(text) = value.to_str() else { return false };
    clear_but_times();
    let understood = !text.is_empty() && text.split(',').all(one_of);
    if !understood {
        clear_but_times();
    }
    FILTER.is_set.store(understood, Ordering::Release);
    understood
}

fn clear_but_times() {
    let times = TIMES.load(Ordering::Relaxed);
    clear();
    TIMES.store(times, Ordering::Relaxed);
}

/// Nothing is to fail.
pub(crate) fn nothing() {
    NTH.store(0, Ordering::Relaxed);
    RATE.store(0, Ordering::Relaxed);
}

fn one_of(text: &str) -> bool {
    if let Some((least, most)) = text.split_once('-')
        && let (Ok(least), Ok(most)) = (least.parse(), if most.is_empty() { Ok(usize::MAX) } else { most.parse() })
    {
        FILTER.least.store(least, Ordering::Relaxed);
        FILTER.most.store(most, Ordering::Relaxed);
        return true;
    }
    if text.contains("+0x") {
        let mut depth = 0;
        for frame in text.split('<') {
            let Some((module, offset)) = frame.rsplit_once("+0x") else { return false };
            let Ok(offset) = usize::from_str_radix(offset, 16) else { return false };
            if depth == FRAMES || !FILTER.modules[depth].set_bytes(module.as_bytes()) {
                return false;
            }
            FILTER.offsets[depth].store(offset, Ordering::Relaxed);
            depth += 1;
        }
        FILTER.depth.store(depth, Ordering::Relaxed);
        return true;
    }
    if let Some((file, line)) = text.rsplit_once(':')
        && let Ok(line) = line.parse()
    {
        FILTER.line.store(line, Ordering::Relaxed);
        return !file.is_empty() && FILTER.file.set_bytes(file.as_bytes());
    }
    // A file has an ending or lies in a folder; the function of a C program has neither a dot nor a slash.
    let text_of = if text.contains(['.', '/']) { &FILTER.file } else { &FILTER.function };
    !text.is_empty() && text_of.set_bytes(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_understood_or_refused() {
        for good in [c"1", c"17+", c"0"] {
            assert!(nth_of(good), "{good:?}");
        }
        for bad in [c"", c"x", c"+", c"-1", c"3 ", c"1.5"] {
            assert!(!nth_of(bad), "{bad:?}");
        }
        for good in [c"0", c"1000000", c"10:7"] {
            assert!(rate_of(good), "{good:?}");
        }
        for bad in [c"", c"1000001", c"10:", c":1", c"1%"] {
            assert!(!rate_of(bad), "{bad:?}");
        }
        for good in [c"16-4096", c"100-", c"lib.so+0x1f", c"a+0x1<b+0x2", c"x.c:12", c"x.c", c"load,10-20"] {
            assert!(only_of(good), "{good:?}");
        }
        for bad in [c"", c",", c"a+0xzz", c"a+0x1<b", c":12", c"load,"] {
            assert!(!only_of(bad), "{bad:?}");
        }
        assert!(only_of(c"src/x.c:12,16-64"));
        let from = |file: &'static CStr, line| From::place(file.as_ptr(), line);
        let meant = |from, size| is_meant(from, ptr::null_mut(), size);
        assert!(meant(from(c"/home/src/x.c", 12), 16) && meant(from(c"src/x.c", 12), 64));
        assert!(!meant(from(c"src/x.c", 13), 16) && !meant(from(c"osrc/x.c", 12), 16));
        assert!(!meant(from(c"src/x.c", 12), 65) && !meant(from(c"src/x.c", 12), 15));
        assert!(!meant(From::Caller(1), 16) && !meant(From::UNKNOWN, 16));
        NTH.store(0, Ordering::Relaxed);
        RATE.store(0, Ordering::Relaxed);
        clear();
        FILTER.is_set.store(false, Ordering::Relaxed);
    }

    #[test]
    fn a_rate_is_about_what_it_says() {
        let failing = |seed: u64| (1..=100_000u64).filter(move |n| hash(seed ^ hash(*n)) % 1_000_000 < 10_000).count();
        for seed in 0..20 {
            assert!((850..1150).contains(&failing(seed)), "{} with seed {seed}", failing(seed));
        }
    }
}
