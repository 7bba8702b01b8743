//! Call sites: a table of the places that have allocated or freed, each with a number.
//!
//! A place is file, line and function (a record of `AK_TRACK`), file and line (`_at`), or a return address. The same
//! place always has the same number, whichever record, copy of the text or module it comes from; numbers are never given
//! back, and the texts are copied, since the module that holds them may be unloaded. Number 0 is "unknown site": no
//! place, or no memory for a new one.
//!
//! Fast paths: a record keeps its number; `_at` and return addresses have a cache that is read without a lock and
//! verified against the table. Only a place that is new, or pushed out of its cache, takes the lock.

use crate::stacks;
use allokit_core::{Place, Site, Tag};
use allokit_platform::symbol::write_text;
use allokit_platform::{Lock, meta, symbol};
use allokit_report::write_json_text;
use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use core::{fmt, ptr};

/// The number of a call site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteId(pub(crate) u32);

impl SiteId {
    /// No site.
    pub const UNKNOWN: SiteId = SiteId(0);
    /// The site of a number that [`SiteId::number`] gave.
    #[must_use]
    pub fn from_number(number: u32) -> SiteId {
        SiteId(number)
    }
    /// The number itself, for tables.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }
    /// The site as the program's handler for faults sees it; the texts stay for good.
    #[must_use]
    pub fn place(self) -> Place {
        entry(self.0).map_or(Place::UNKNOWN, |entry| Place {
            file: entry.file,
            function: entry.function,
            address: entry.caller,
            line: entry.line,
        })
    }
}

/// An entry of the table; constant once its number is published.
struct Entry {
    /// Null for a return address.
    file: *const c_char,
    /// Null when it is not known.
    function: *const c_char,
    line: u32,
    /// The next entry in the same bucket, or 0.
    next: u32,
    /// The return address, else 0.
    caller: usize,
}

const CHUNK: usize = 1024;
/// As many as a tag can name.
const CHUNKS: usize = (Tag::SITE_MAX as usize + 1) / CHUNK;
const BUCKETS: usize = 4096;
const TEXT_BUCKETS: usize = 1024;
const CACHE: usize = 4096;
const CALLER_BITS: u32 = 10;
const CALLER_CACHE: usize = 1 << CALLER_BITS;
/// A number's bits in an entry of the cache of return addresses.
const NUMBER_BITS: u32 = Tag::SITE_MAX.count_ones();

static LOCK: Lock = Lock::new();
static ENTRIES: [AtomicPtr<Entry>; CHUNKS] = [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS];
/// The largest number given out.
static LAST: AtomicU32 = AtomicU32::new(0);
/// The first entry of each hash; under the lock.
static HEADS: [AtomicU32; BUCKETS] = [const { AtomicU32::new(0) }; BUCKETS];
/// Copied texts by hash; under the lock.
static TEXTS: [AtomicPtr<Text>; TEXT_BUCKETS] = [const { AtomicPtr::new(ptr::null_mut()) }; TEXT_BUCKETS];
static PLACES: [AtomicU32; CACHE] = [const { AtomicU32::new(0) }; CACHE];
/// Return addresses: in a place that the address says, the address without its last bits, and the number.
static CALLERS: [AtomicU64; CALLER_CACHE] = [const { AtomicU64::new(0) }; CALLER_CACHE];

/// A copied text: this, then the bytes and a zero byte.
struct Text {
    next: *mut Text,
}

/// How many sites there are; their numbers run from 1.
#[must_use]
pub fn count() -> u32 {
    LAST.load(Ordering::Acquire)
}

/// The lock of the table, for fork handlers.
pub(crate) fn lock() -> &'static Lock {
    &LOCK
}

/// Of a stack, its leaf's.
fn entry(id: u32) -> Option<&'static Entry> {
    if id == 0 {
        return None;
    }
    let id = if id > LAST.load(Ordering::Acquire) { stacks::leaf(id).filter(|leaf| *leaf > 0)? } else { id };
    let chunk = ENTRIES[id as usize / CHUNK].load(Ordering::Acquire);
    // SAFETY: a published number has an entry, which is never changed or moved.
    Some(unsafe { &*chunk.add(id as usize % CHUNK) })
}

/// The site of a record of `AK_TRACK`; null is the unknown site.
///
/// # Safety
/// `record` is null or a valid `ak_site_t`.
#[inline]
pub unsafe fn of_record(record: *mut Site) -> SiteId {
    // SAFETY: the caller's promise.
    let Some(site) = (unsafe { record.as_ref() }) else { return SiteId::UNKNOWN };
    match site.id.load(Ordering::Relaxed) {
        // SAFETY: as above.
        0 => unsafe { new_record(site) },
        id => SiteId(id),
    }
}

/// # Safety
/// The texts of `site` are null or zero-terminated.
#[cold]
unsafe fn new_record(site: &Site) -> SiteId {
    // SAFETY: the caller's promise.
    let id = unsafe { intern(site.file, site.function.load(Ordering::Relaxed), site.line) };
    site.id.store(id.0, Ordering::Relaxed);
    id
}

/// The site of a file and line; a null file is the unknown site.
///
/// # Safety
/// `file` is null or a zero-terminated text.
#[inline]
pub unsafe fn of_place(file: *const c_char, line: u32) -> SiteId {
    if file.is_null() {
        return SiteId::UNKNOWN;
    }
    let slot = &PLACES[mixed(file.addr() as u64 ^ u64::from(line) << 40) % CACHE];
    let id = slot.load(Ordering::Relaxed);
    // The address may hold another text by now: the text decides.
    if let Some(entry) = entry(id)
        && entry.line == line
        && !entry.file.is_null()
        // SAFETY: both are zero-terminated.
        && unsafe { same_text(entry.file, file) }
    {
        return SiteId(id);
    }
    // SAFETY: the caller's promise.
    let id = unsafe { intern(file, ptr::null(), line) };
    slot.store(id.0, Ordering::Relaxed);
    id
}

/// The site of a return address; 0 is the unknown site.
#[inline]
#[must_use]
pub fn of_caller(address: usize) -> SiteId {
    if address == 0 {
        return SiteId::UNKNOWN;
    }
    known_caller(address).unwrap_or_else(|| new_caller(address))
}

/// Where a return address is in the cache, and what must be found there. (Of the address's last bits the place tells as
/// much as the others leave open.)
#[inline(always)]
fn caller_slot(address: usize) -> (&'static AtomicU64, u64) {
    let rest = address >> CALLER_BITS;
    (&CALLERS[(address ^ rest ^ rest >> CALLER_BITS) % CALLER_CACHE], (rest as u64) << NUMBER_BITS)
}

/// The site of a return address if it is in the cache.
#[inline(always)]
#[must_use]
pub fn known_caller(address: usize) -> Option<SiteId> {
    let (slot, rest) = caller_slot(address);
    let number = slot.load(Ordering::Relaxed) ^ rest;
    // One comparison: 0 is none.
    (number.wrapping_sub(1) < u64::from(Tag::SITE_MAX)).then_some(SiteId(number as u32))
}

#[cold]
#[inline(never)]
fn new_caller(address: usize) -> SiteId {
    let id = intern_caller(address);
    if id == SiteId::UNKNOWN {
        return id;
    }
    let (slot, rest) = caller_slot(address);
    slot.store(rest | u64::from(id.0), Ordering::Relaxed);
    id
}

/// The site of a record of `AK_TRACK` if it has its number already.
///
/// # Safety
/// `record` is null or a valid `ak_site_t`.
#[inline(always)]
#[must_use]
pub unsafe fn known_record(record: *mut Site) -> Option<SiteId> {
    // SAFETY: the caller's promise.
    let id = unsafe { record.as_ref() }?.id.load(Ordering::Relaxed);
    (id != 0).then_some(SiteId(id))
}

fn mixed(key: u64) -> usize {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize
}

/// # Safety
/// Both are zero-terminated.
unsafe fn same_text(a: *const c_char, b: *const c_char) -> bool {
    // SAFETY: the caller's promise.
    a == b || unsafe { CStr::from_ptr(a) == CStr::from_ptr(b) }
}

fn text_hash(text: &CStr) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for &byte in text.to_bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

/// The copy of a text, made if it is the first; null when there is no memory. Under the lock.
fn copy(text: &CStr) -> *const c_char {
    let bucket = &TEXTS[mixed(text_hash(text)) % TEXT_BUCKETS];
    let first = bucket.load(Ordering::Relaxed);
    let mut known = first;
    while !known.is_null() {
        // SAFETY: the texts in a bucket are copies for good, each followed by its zero-terminated bytes.
        unsafe {
            let bytes = known.add(1).cast::<c_char>();
            if CStr::from_ptr(bytes) == text {
                return bytes;
            }
            known = (*known).next;
        }
    }
    let bytes = text.to_bytes_with_nul();
    let made = meta::alloc(size_of::<Text>() + bytes.len(), align_of::<Text>()).cast::<Text>();
    if made.is_null() {
        return ptr::null();
    }
    // SAFETY: the memory is ours and large enough.
    unsafe {
        made.write(Text { next: first });
        made.add(1).cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        bucket.store(made, Ordering::Relaxed);
        made.add(1).cast()
    }
}

/// # Safety
/// The texts are null or zero-terminated.
#[cold]
unsafe fn intern(file: *const c_char, function: *const c_char, line: u32) -> SiteId {
    if file.is_null() {
        return SiteId::UNKNOWN;
    }
    // SAFETY: the caller's promise.
    let (file, function) = unsafe { (CStr::from_ptr(file), (!function.is_null()).then(|| CStr::from_ptr(function))) };
    let hash = text_hash(file) ^ function.map_or(0, text_hash).rotate_left(17) ^ u64::from(line);
    let _guard = LOCK.lock();
    let same = |entry: &Entry| {
        // SAFETY: the texts of an entry are null or copies for good.
        unsafe {
            entry.caller == 0
                && entry.line == line
                && CStr::from_ptr(entry.file) == file
                && match function {
                    Some(function) => !entry.function.is_null() && CStr::from_ptr(entry.function) == function,
                    None => entry.function.is_null(),
                }
        }
    };
    find_or_add(hash, same, || {
        let (file, function) = (copy(file), function.map_or(ptr::null(), copy));
        (!file.is_null()).then_some(Entry { file, function, line, next: 0, caller: 0 })
    })
}

#[cold]
fn intern_caller(address: usize) -> SiteId {
    // (A signal handler may have interrupted the holder: then the place is not known.)
    let Some(_guard) = LOCK.lock_for_report() else { return SiteId::UNKNOWN };
    let make = || Some(Entry { file: ptr::null(), function: ptr::null(), line: 0, next: 0, caller: address });
    find_or_add(address as u64, |entry| entry.caller == address, make)
}

/// Under the lock.
fn find_or_add(hash: u64, same: impl Fn(&Entry) -> bool, make: impl FnOnce() -> Option<Entry>) -> SiteId {
    let head = &HEADS[mixed(hash) % BUCKETS];
    let first = head.load(Ordering::Relaxed);
    let mut id = first;
    while let Some(known) = entry(id) {
        if same(known) {
            return SiteId(id);
        }
        id = known.next;
    }
    let id = LAST.load(Ordering::Relaxed) + 1;
    let Some(slot) = ENTRIES.get(id as usize / CHUNK).filter(|_| id <= stacks::room_for_sites()) else {
        return SiteId::UNKNOWN;
    };
    let mut chunk = slot.load(Ordering::Relaxed);
    if chunk.is_null() {
        chunk = meta::alloc(size_of::<Entry>() * CHUNK, align_of::<Entry>()).cast();
        if chunk.is_null() {
            return SiteId::UNKNOWN;
        }
        slot.store(chunk, Ordering::Release);
    }
    let Some(made) = make() else { return SiteId::UNKNOWN };
    // SAFETY: the number is not published, so the place in the chunk is ours.
    unsafe { chunk.add(id as usize % CHUNK).write(Entry { next: first, ..made }) };
    LAST.store(id, Ordering::Release);
    head.store(id, Ordering::Relaxed);
    SiteId(id)
}

/// What is known of a site.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts {
    /// The file, unless the site is a return address.
    pub file: Option<&'static CStr>,
    /// The function, where it is known.
    pub function: Option<&'static CStr>,
    /// The line; 0 for a return address.
    pub line: u32,
    /// The return address, else 0.
    pub caller: usize,
}

impl SiteId {
    /// What is known of the site; nothing of [`SiteId::UNKNOWN`]. The texts stay for the life of the process.
    #[must_use]
    pub fn parts(self) -> Parts {
        let Some(entry) = entry(self.0) else { return Parts::default() };
        // SAFETY: the texts of an entry are null or copies for good.
        let text = |text: *const c_char| (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) });
        Parts { file: text(entry.file), function: text(entry.function), line: entry.line, caller: entry.caller }
    }

    /// The site as a JSON object: `file`, `line` and `function`, or `address`, `module`, `symbol`, `offset` and `base` (where
    /// the module begins), as far as they are known; empty for the unknown site.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_json(self, out: &mut dyn fmt::Write) -> fmt::Result {
        let place = self.parts();
        if place.caller != 0 {
            return write_caller_json(place.caller, out);
        }
        out.write_str("{")?;
        if let Some(file) = place.file {
            out.write_str("\"file\":")?;
            write_json_text(file.to_bytes(), out)?;
            write!(out, ",\"line\":{}", place.line)?;
        }
        if let Some(function) = place.function {
            out.write_str(",\"function\":")?;
            write_json_text(function.to_bytes(), out)?;
        }
        out.write_str("}")
    }
}

/// A return address as a JSON object.
fn write_caller_json(address: usize, out: &mut dyn fmt::Write) -> fmt::Result {
    write!(out, "{{\"address\":\"{address:#x}\"")?;
    if let Some(found) = symbol::of(address - 1) {
        out.write_str(",\"module\":")?;
        write_json_text(found.module.to_bytes(), out)?;
        if let Some(name) = found.name {
            out.write_str(",\"symbol\":")?;
            write_json_text(name.to_bytes(), out)?;
        }
        write!(out, ",\"offset\":{},\"base\":\"{:#x}\"", found.offset, found.base)?;
    }
    out.write_str("}")
}

/// A return address above an allocation, as people read it: as a site.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller(pub(crate) usize);

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", symbol::Call(self.0))
    }
}

impl SiteId {
    /// The member `stack` of a JSON object, with the comma before it: a list of places, the innermost first; nothing where there
    /// are no stacks.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_json_stack(self, out: &mut dyn fmt::Write) -> fmt::Result {
        if self.frames().is_empty() {
            return Ok(());
        }
        out.write_str(",\"stack\":[")?;
        self.write_json(out)?;
        for &frame in self.frames() {
            out.write_str(",")?;
            write_caller_json(frame, out)?;
        }
        out.write_str("]")
    }

    /// A line for each call above that of the site, for a table whose last column begins after `indent` characters.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_stack(self, out: &mut dyn fmt::Write, indent: usize) -> fmt::Result {
        self.frames().iter().try_for_each(|&frame| writeln!(out, "{:indent$}  by {}", "", Caller(frame)))
    }
}

/// The site as people read it: `file:line (function)`, `file:line`, `module(symbol+0x1f)`, `module(+0x1234)`.
impl fmt::Display for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(entry) = entry(self.0) else { return f.write_str("unknown site") };
        if entry.caller != 0 {
            return write!(f, "{}", symbol::Call(entry.caller));
        }
        // SAFETY: the texts of an entry are null or copies for good.
        unsafe {
            write_text(CStr::from_ptr(entry.file).to_bytes(), f)?;
            write!(f, ":{}", entry.line)?;
            if !entry.function.is_null() {
                f.write_str(" (")?;
                write_text(CStr::from_ptr(entry.function).to_bytes(), f)?;
                f.write_str(")")?;
            }
        }
        Ok(())
    }
}

/// A text of C; what is not UTF-8 becomes U+FFFD.
pub(crate) struct Shown<'a>(pub(crate) &'a CStr);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_text(self.0.to_bytes(), f)
    }
}
