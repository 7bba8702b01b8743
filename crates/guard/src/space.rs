//! Blocks with address space of their own: large ones, between pages that cannot be touched, and those of no bytes, which
//! cannot be touched at all.
//!
//! One reservation is cut into sixteen parts of the same length. The first holds blocks of no bytes, 64 bytes apart. Each
//! other part is cut into slots, 4 MiB in the second part and twice as much in each further one. A block lies in a slot
//! with at least 1 MiB on either side that cannot be touched; its payload ends as close to the end of its last page as its
//! alignment lets it. What is freed cannot be touched either, and its slot comes back when 256 others of its part were
//! freed after it.
//!
//! What is known of a block lies in a table, by the number of its slot: its header (tracking's two words), where its pages
//! are, where it was freed. Invariants: a slot's record is written under the lock, or by whoever has taken its block out
//! of the map; a slot is fresh, in use, or in its part's ring of freed ones.

use crate::block::{self, Layout};
use crate::budget::Budget;
use crate::switches::Check;
use crate::{Kind, SiteId, fault};
use allokit_platform::{Lock, entropy, errno, fill, meta, pages};
use allokit_track::header;
use allokit_track::threads::Freed;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

const PARTS: usize = 16;
/// What is asked for, and the least that is of use, in powers of two: 4 TiB, 64 GiB.
const MOST: u32 = 42;
const LEAST: u32 = 36;
/// Around a block.
const GAP: usize = 1 << 20;
const SLOT: usize = 4 << 20;
/// Blocks of no bytes: how far apart, and how many.
const EMPTY_STEP: usize = 64;
const EMPTY_COUNT: usize = 1 << 20;
/// Freed slots that wait before the oldest is used again.
const WAITING: usize = 256;
/// Blocks with pages of their own at a time: each costs two mappings, of which a process has 65530.
const LIVE_MOST: usize = 4096;
/// How many empty blocks are looked through for a free place.
const LOOKS: usize = 64;

/// What is known of a slot. All zeroes is valid.
#[repr(C)]
struct Record {
    /// The header, as tracking reads it.
    words: [AtomicU64; 2],
    payload: AtomicUsize,
    /// The block's pages.
    body: AtomicUsize,
    length: AtomicUsize,
    freed_at: AtomicU32,
    /// The next freed slot, plus 1.
    next: AtomicU32,
}

/// A part of the reservation. Under the lock.
struct Part {
    records: AtomicPtr<Record>,
    fresh: AtomicUsize,
    /// The freed slots, oldest first: numbers plus 1.
    oldest: AtomicU32,
    newest: AtomicU32,
    waiting: AtomicUsize,
}

static LOCK: Lock = Lock::new();
static START: AtomicUsize = AtomicUsize::new(0);
/// Log2 of a part's length; 0: there is no reservation.
static PART: AtomicU32 = AtomicU32::new(0);
static RANDOM: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);
static TABLE: [Part; PARTS] = [const {
    Part {
        records: AtomicPtr::new(ptr::null_mut()),
        fresh: AtomicUsize::new(0),
        oldest: AtomicU32::new(0),
        newest: AtomicU32::new(0),
        waiting: AtomicUsize::new(0),
    }
}; PARTS];

pub(crate) fn lock() -> &'static Lock {
    &LOCK
}

/// How many large blocks may have pages of their own: two system calls and the faults of fresh pages are not paid for all
/// blocks of a program that does little but allocate large ones.
static BUDGET: Budget = Budget::new(crate::Options::PAGES_FIRST, crate::Options::PAGES);

pub(crate) fn may_spend() -> bool {
    BUDGET.spend(1)
}

/// Reserves the address space, as much as there is.
pub(crate) fn begin(each_second: usize) {
    BUDGET.set(each_second);
    if cfg!(miri) || pages::space_is_limited() {
        return;
    }
    for bits in (LEAST..=MOST).rev() {
        let start = pages::reserve(1 << bits, 1 << 21);
        if !start.is_null() {
            // (A part of it once used would make all of it count as memory.)
            // SAFETY: our reservation.
            unsafe { pages::dump(start, 1 << bits, false) };
            START.store(start.expose_provenance(), Ordering::Relaxed);
            PART.store(bits - PARTS.ilog2(), Ordering::Relaxed);
            RANDOM.store(entropy::secret(), Ordering::Relaxed);
            header::guard::keep_elsewhere(start.addr(), 1 << bits, words);
            return;
        }
    }
}

fn random() -> usize {
    let next = RANDOM.load(Ordering::Relaxed).wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
    RANDOM.store(next, Ordering::Relaxed);
    (next >> 33) as usize
}

fn step(part: usize) -> usize {
    if part == 0 { EMPTY_STEP } else { SLOT << (part - 1) }
}

/// The slots of a part.
fn count(part: usize) -> usize {
    if part == 0 { EMPTY_COUNT } else { (1 << PART.load(Ordering::Relaxed)) / step(part) }
}

fn start(part: usize) -> usize {
    START.load(Ordering::Relaxed) + (part << PART.load(Ordering::Relaxed))
}

/// The part and the slot that an address of the reservation lies in.
fn slot_of(addr: usize) -> (usize, usize) {
    let distance = addr - START.load(Ordering::Relaxed);
    let bits = PART.load(Ordering::Relaxed);
    let part = distance >> bits;
    (part, (distance & ((1 << bits) - 1)) / step(part))
}

/// The record of a slot, if its part has ever had a block there.
fn record(part: usize, slot: usize) -> Option<&'static Record> {
    let records = TABLE[part].records.load(Ordering::Acquire);
    if records.is_null() || slot >= count(part) {
        return None;
    }
    // SAFETY: the table has a record for each slot, for good.
    Some(unsafe { &*records.add(slot) })
}

fn record_of(addr: usize) -> Option<&'static Record> {
    if !header::guard::is_elsewhere(addr) {
        return None;
    }
    let (part, slot) = slot_of(addr);
    record(part, slot)
}

/// Where the header of a payload in the reservation is.
pub(crate) fn words(payload: usize) -> *mut u64 {
    /// For an address that is no block: no valid header.
    static NONE: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    let words = record_of(payload).map_or(&NONE, |record| &record.words);
    ptr::from_ref(words).cast_mut().cast()
}

/// A block, or null: no space, too many, too large.
#[cold]
pub(crate) fn alloc(size: usize, align: usize, site: SiteId, kind: Kind) -> *mut u8 {
    let _errno = errno::Saved::new();
    let switch = if size == 0 { Check::Zero } else { Check::Pages };
    if PART.load(Ordering::Relaxed) == 0 || !switch.is_on() {
        return ptr::null_mut();
    }
    let _guard = LOCK.lock();
    let found = if size == 0 { place_empty(align) } else { place_large(size, align) };
    let Some((record, payload)) = found else { return ptr::null_mut() };
    record.payload.store(payload, Ordering::Relaxed);
    let payload = ptr::with_exposed_provenance_mut::<u8>(payload);
    let layout = Layout { size, offset: header::SIZE };
    let (first, second) = block::words(payload, layout, site, kind, header::epoch());
    record.words[0].store(first, Ordering::Relaxed);
    record.words[1].store(second, Ordering::Relaxed);
    payload
}

/// The records of a part, made at first use.
fn records(part: usize) -> *mut Record {
    let mut records = TABLE[part].records.load(Ordering::Relaxed);
    if records.is_null() {
        records = meta::alloc(count(part) * size_of::<Record>(), 4096).cast();
        TABLE[part].records.store(records, Ordering::Release);
    }
    records
}

/// The next place for a block of no bytes, in turn, so that an address comes back as late as can be.
fn place_empty(align: usize) -> Option<(&'static Record, usize)> {
    let records = records(0);
    if records.is_null() || align > 1 << 16 {
        return None;
    }
    let part = &TABLE[0];
    for _ in 0..LOOKS {
        let stride = align.max(EMPTY_STEP) / EMPTY_STEP;
        let slot = part.fresh.load(Ordering::Relaxed).next_multiple_of(stride) % EMPTY_COUNT;
        part.fresh.store(slot + 1, Ordering::Relaxed);
        // SAFETY: below the count.
        let record = unsafe { &*records.add(slot) };
        let payload = start(0) + slot * EMPTY_STEP;
        if !allokit_track::live::is_live(payload) {
            return Some((record, payload));
        }
    }
    None
}

fn place_large(size: usize, align: usize) -> Option<(&'static Record, usize)> {
    let page = pages::os_page();
    let length = size.next_multiple_of(page);
    let wanted = length.checked_add(2 * (GAP + page))?.checked_add(if align > page { align } else { 0 })?;
    let part = (1..PARTS).find(|part| step(*part) >= wanted && count(*part) != 0)?;
    if LIVE.load(Ordering::Relaxed) >= LIVE_MOST {
        return None;
    }
    let records = records(part);
    if records.is_null() {
        return None;
    }
    let table = &TABLE[part];
    let fresh = table.fresh.load(Ordering::Relaxed);
    let slot = if table.waiting.load(Ordering::Relaxed) > WAITING || fresh == count(part) {
        take_oldest(table, records)?
    } else {
        table.fresh.store(fresh + 1, Ordering::Relaxed);
        fresh
    };
    // SAFETY: below the count.
    let record = unsafe { &*records.add(slot) };
    // Somewhere in the slot, by whole pages.
    let room = (step(part) - wanted) / page;
    let body = start(part) + slot * step(part) + GAP + random() % (room.min(256) + 1) * page;
    let (body, payload) = if align > page {
        let aligned = body.next_multiple_of(align);
        (aligned, aligned)
    } else {
        (body, (body + length - size) & !(align.max(16) - 1))
    };
    let pointer = ptr::with_exposed_provenance_mut::<u8>(body);
    // SAFETY: pages of ours that nobody uses.
    if !unsafe { pages::commit(pointer, length) } {
        put(table, records, slot);
        return None;
    }
    // SAFETY: as above.
    unsafe { pages::dump(pointer, length, true) };
    record.body.store(body, Ordering::Relaxed);
    record.length.store(length, Ordering::Relaxed);
    LIVE.fetch_add(1, Ordering::Relaxed);
    // SAFETY: what lies behind the payload, in its pages.
    unsafe { fill::set(pointer.add(payload + size - body), filler(payload), body + length - payload - size) };
    Some((record, payload))
}

/// Makes a block of another size of a large one where it is, if its slot has room; the block is the caller's. What lies
/// behind it was looked at. The header is the caller's to write.
#[cold]
pub(crate) fn resize(payload: usize, size: usize, new: usize) -> bool {
    let _errno = errno::Saved::new();
    let (part, slot) = slot_of(payload);
    let Some(record) = record(part, slot) else { return false };
    if part == 0 || new < crate::LARGE || new < size / 2 {
        return false;
    }
    let page = pages::os_page();
    let (body, length) = (record.body.load(Ordering::Relaxed), record.length.load(Ordering::Relaxed));
    let end = start(part) + (slot + 1) * step(part) - GAP - page;
    let Some(wanted) = (payload - body).checked_add(new).map(|bytes| bytes.next_multiple_of(page)) else {
        return false;
    };
    if body.checked_add(wanted).is_none_or(|after| after > end) {
        return false;
    }
    let at = |offset: usize| ptr::with_exposed_provenance_mut::<u8>(body + offset);
    // SAFETY: pages of this slot, which are the block's or nobody's.
    unsafe {
        if wanted > length {
            if !pages::commit(at(length), wanted - length) {
                return false;
            }
            pages::dump(at(length), wanted - length, true);
        }
        if wanted < length {
            if !pages::revoke(at(wanted), length - wanted) {
                return false;
            }
            pages::dump(at(wanted), length - wanted, false);
        }
        let (old_end, new_end) = (payload - body + size, payload - body + new);
        // What was behind the payload and is in it now says nothing of the secret.
        if new_end > old_end {
            fill::set(at(old_end), 0, length.min(new_end) - old_end);
        }
        fill::set(at(new_end), filler(payload), wanted - new_end);
    }
    record.length.store(wanted, Ordering::Relaxed);
    true
}

/// What the bytes between a payload and the end of its page hold: never a zero nor ASCII.
fn filler(payload: usize) -> u8 {
    block::canary(payload) as u8
}

fn take_oldest(table: &Part, records: *mut Record) -> Option<usize> {
    let slot = (table.oldest.load(Ordering::Relaxed) as usize).checked_sub(1)?;
    // SAFETY: a slot of this part.
    let next = unsafe { (*records.add(slot)).next.swap(0, Ordering::Relaxed) };
    table.oldest.store(next, Ordering::Relaxed);
    if next == 0 {
        table.newest.store(0, Ordering::Relaxed);
    }
    table.waiting.fetch_sub(1, Ordering::Relaxed);
    Some(slot)
}

fn put(table: &Part, records: *mut Record, slot: usize) {
    let number = slot as u32 + 1;
    match table.newest.swap(number, Ordering::Relaxed) {
        0 => table.oldest.store(number, Ordering::Relaxed),
        // SAFETY: a slot of this part.
        before => unsafe { (*records.add(before as usize - 1)).next.store(number, Ordering::Relaxed) },
    }
    table.waiting.fetch_add(1, Ordering::Relaxed);
}

/// The first and the last byte of the rest of the last page that were written to, counted from the payload's start; or,
/// of what lies before the payload in its first page, that it was written to. The block is the caller's, or pinned.
pub(crate) enum Damage {
    None,
    Behind(usize, usize),
    Before,
}

pub(crate) fn damage(payload: usize, size: usize) -> Damage {
    let Some(record) = record_of(payload) else { return Damage::None };
    let (body, length) = (record.body.load(Ordering::Relaxed), record.length.load(Ordering::Relaxed));
    if size == 0 {
        return Damage::None;
    }
    let start = ptr::with_exposed_provenance::<u8>(body);
    let (before, end) = (payload - body, length - (payload - body));
    // SAFETY: the block's pages.
    unsafe {
        let wrong = |at: &usize| start.add(before + *at).read() != filler(payload);
        if Check::Overflow.is_on()
            && let Some(first) = (size..end).find(wrong)
        {
            return Damage::Behind(first, (size..end).rfind(wrong).unwrap_or(first));
        }
        if Check::Underflow.is_on() && !fill::is_zero(start, before) {
            return Damage::Before;
        }
    }
    Damage::None
}

/// A block that is freed.
#[cold]
#[inline(never)]
pub(crate) fn retire(payload: usize, site: SiteId) {
    let _errno = errno::Saved::new();
    let Some(record) = record_of(payload) else { return };
    record.freed_at.store(site.number(), Ordering::Relaxed);
    let pointer = ptr::with_exposed_provenance::<u8>(payload);
    // SAFETY: the caller has taken the block out of the map and seen its header.
    if let Some((layout, word)) = unsafe { block::read(pointer) } {
        match damage(payload, layout.size) {
            Damage::None => {}
            Damage::Behind(first, last) => fault::overflow_large(pointer, &layout, word, site, first, last),
            Damage::Before => fault::underflow(pointer, &layout, word, site),
        }
        if layout.size == 0 {
            return;
        }
    }
    give_back(payload);
}

/// Takes the rights from a block's pages, and puts its slot among the freed ones. (Of no bytes: nothing is to be done.)
pub(crate) fn give_back(payload: usize) {
    let (part, slot) = slot_of(payload);
    let Some(record) = record(part, slot) else { return };
    if part == 0 {
        return;
    }
    let body = ptr::with_exposed_provenance_mut::<u8>(record.body.load(Ordering::Relaxed));
    let length = record.length.load(Ordering::Relaxed);
    // SAFETY: the block is the caller's, and nobody needs it any more.
    unsafe {
        pages::revoke(body, length);
        // As what lies around it, so that the two are one mapping again.
        pages::dump(body, length, false);
    }
    let _guard = LOCK.lock();
    LIVE.fetch_sub(1, Ordering::Relaxed);
    put(&TABLE[part], TABLE[part].records.load(Ordering::Relaxed), slot);
}

/// What is known of a block that was freed, until its slot is used again.
pub(crate) fn recall(addr: usize) -> Option<Freed> {
    let record = record_of(addr)?;
    let word = record.words[0].load(Ordering::Relaxed);
    let size = record.words[1].load(Ordering::Relaxed) as usize & header::MAX_SIZE;
    (record.payload.load(Ordering::Relaxed) == addr).then(|| Freed {
        size,
        allocated_at: block::site(word),
        freed_at: record.freed_at.load(Ordering::Relaxed),
    })
}

/// The block whose slot an address lies in: its payload's start and size; `None` outside the reservation. Whether it is
/// live is the caller's to ask.
pub(crate) fn around(addr: usize) -> Option<(usize, usize)> {
    let record = record_of(addr)?;
    let size = record.words[1].load(Ordering::Relaxed) as usize & header::MAX_SIZE;
    Some((record.payload.load(Ordering::Relaxed), size))
}
