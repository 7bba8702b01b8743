//! Units of 16 KiB: where heaps get memory, and the map from an address to what lies there.
//!
//! Address space comes in reservations of 4 to 64 MiB that are never given back; inside them runs of units are found by a
//! buddy system: free runs of 2^k units, aligned to their length, in a list for each k; a request that is no power of two
//! gives its tail back at once. A run longer than the largest buddy is a mapping of its own and is given back to the system.
//!
//! Free runs are *dirty* (their memory is still there) or *clean* (it reads as zero); buddies of one kind are merged. What
//! stays dirty is as much as heaps lately used at the same time, between [`KEEP`] and [`KEEP_MOST`], or a quarter of what they
//! use now; what comes back beyond that is given to the system at once. "Lately" fades, a quarter each [`FADE_MS`], when
//! heaps take or give units.
//!
//! Invariant: the entry of a unit is null (not ours), [`FREE`], a chunk that owns it, or the record of the large block it
//! belongs to; it changes only under LOCK or by the run's owner.

use crate::chunk::Chunk;
use crate::heap::Raw;
use allokit_platform::{AddressMap, Lock, budget, clock, pages, tools};
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

const UNIT_SHIFT: u32 = 14;
/// What memory is counted in here.
pub(crate) const UNIT: usize = 1 << UNIT_SHIFT;
/// Buddies have up to 2^(ORDERS - 1) units: 16 MiB.
const ORDERS: usize = if cfg!(miri) { 7 } else { 11 };
const RESERVE_FIRST: usize = if cfg!(miri) { UNIT << (ORDERS - 1) } else { 4 << 20 };
const RESERVE_MOST: usize = if cfg!(miri) { UNIT << (ORDERS - 1) } else { 64 << 20 };
/// How much free memory stays at hand in any case, and how much at most because it was in use lately.
const KEEP: usize = 8 << 20;
const KEEP_MOST: usize = 20 << 20;
const FADE_MS: u64 = 100;

/// The root of the map has so many entries: 2 MiB of zeroes; a leaf, 5 MiB, for each GiB. Under Miri it should be small.
const ROOT: usize = if cfg!(miri) { 1 << 20 } else { 1 << 18 };
const UNITS_PER_LEAF: usize = (1 << 48) / ROOT / UNIT;
const LEAF_SHIFT: u32 = 48 - ROOT.ilog2();

#[repr(C)]
struct Leaf {
    entries: [AtomicPtr<u8>; UNITS_PER_LEAF],
    units: [Unit; UNITS_PER_LEAF],
}

static MAP: AddressMap<{ size_of::<Leaf>() }, ROOT> = AddressMap::new();

/// The record of a unit: of use for the first one of a free run and of a large block.
#[repr(C)]
pub(crate) struct Unit {
    pub next: *mut Unit,
    pub prev: *mut Unit,
    /// The run's memory.
    pub start: *mut u8,
    /// Of a large block: whose it is, how many units and bytes it has.
    pub heap: AtomicPtr<Raw>,
    pub units: usize,
    pub size: usize,
    /// What a mapping of its own is aligned to; 0 for a run of a reservation.
    pub mapped: usize,
    order: u8,
    /// [`NOT_FREE`], or in which lists the run is.
    state: u8,
}

const NOT_FREE: u8 = 0;
const DIRTY: u8 = 1;
const CLEAN: u8 = 2;

/// The entry of a unit of ours that nobody has.
const FREE: *mut u8 = ptr::without_provenance_mut(2);
/// In an entry: it is a large block's record.
const LARGE: usize = 1;
/// In an entry: it is a chunk. Records and [`FREE`] do not have this bit.
const CHUNK: usize = 4;
const _: () = assert!(align_of::<Unit>() > CHUNK);

/// What lies at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing of ours.
    Nothing,
    /// Memory of ours that no heap has.
    Free,
    Chunk(*mut Chunk),
    Large(*mut Unit),
}

/// Units in a row.
pub(crate) struct Run {
    pub start: *mut u8,
    /// All bytes are zero.
    pub zero: bool,
    /// As [`Unit::mapped`].
    pub mapped: usize,
}

struct Lists {
    heads: [*mut Unit; ORDERS],
    filled: u32,
}

struct State {
    dirty: Lists,
    clean: Lists,
    next_reservation: usize,
    /// When [`HIGH`] faded the last time, in ms.
    faded: u64,
}

struct Shared(UnsafeCell<State>);
// SAFETY: touched only under LOCK.
unsafe impl Sync for Shared {}

const NO_LISTS: Lists = Lists { heads: [ptr::null_mut(); ORDERS], filled: 0 };
static STATE: Shared =
    Shared(UnsafeCell::new(State { dirty: NO_LISTS, clean: NO_LISTS, next_reservation: RESERVE_FIRST, faded: 0 }));
static LOCK: Lock = Lock::new();

static RESERVED: AtomicUsize = AtomicUsize::new(0);
static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static UNUSED: AtomicUsize = AtomicUsize::new(0);
/// The most that was used, lately. Written under LOCK.
static HIGH: AtomicUsize = AtomicUsize::new(0);

/// Bytes of all heaps.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Address space.
    pub reserved: usize,
    /// Memory: heaps', and free but not given back to the system.
    pub committed: usize,
}

/// The figures of now; each is exact, the two not from one moment.
#[must_use]
pub fn figures() -> Figures {
    Figures {
        reserved: RESERVED.load(Ordering::Relaxed),
        committed: USED.load(Ordering::Relaxed) + UNUSED.load(Ordering::Relaxed),
    }
}

/// What all heaps have, and the most that they had.
pub(crate) fn used_and_peak() -> (usize, usize) {
    let used = USED.load(Ordering::Relaxed);
    (used, PEAK.load(Ordering::Relaxed).max(used))
}

/// So many bytes more are used.
fn count_used(bytes: usize) -> usize {
    let used = USED.fetch_add(bytes, Ordering::Relaxed) + bytes;
    if used > PEAK.load(Ordering::Relaxed) {
        PEAK.fetch_max(used, Ordering::Relaxed);
    }
    used
}

/// The lock of free runs, for fork.
pub(crate) fn lock() -> &'static Lock {
    &LOCK
}

#[inline(always)]
fn index(addr: usize) -> usize {
    (addr >> UNIT_SHIFT) & (UNITS_PER_LEAF - 1)
}

#[inline(always)]
fn leaf(addr: usize) -> *mut Leaf {
    // The map looks at 48 bits only.
    if addr >> 48 == 0 { MAP.leaf(addr).cast() } else { ptr::null_mut() }
}

/// What lies at an address. For a live block the answer is stable; for anything else it is a moment's.
#[inline]
pub(crate) fn find(addr: usize) -> Found {
    let leaf = leaf(addr);
    if leaf.is_null() {
        return Found::Nothing;
    }
    // SAFETY: leaves live for good, and the index is within.
    let entry = unsafe { (*leaf).entries[index(addr)].load(Ordering::Acquire) };
    if entry.is_null() {
        Found::Nothing
    } else if entry == FREE {
        Found::Free
    } else if entry.addr() & LARGE != 0 {
        Found::Large(entry.map_addr(|addr| addr & !LARGE).cast())
    } else {
        Found::Chunk(entry.wrapping_byte_sub(CHUNK).cast())
    }
}

/// Whether there is a chunk at an address, and which. What [`find`] says, in as few instructions as can be.
#[inline(always)]
pub(crate) fn chunk_at(addr: usize) -> (bool, *mut Chunk) {
    if addr >> LEAF_SHIFT >= ROOT {
        return (false, ptr::null_mut());
    }
    let leaf = MAP.leaf(addr).cast::<Leaf>();
    if leaf.is_null() {
        return (false, ptr::null_mut());
    }
    // SAFETY: as in `find`.
    let entry = unsafe { (*leaf).entries[index(addr)].load(Ordering::Acquire) };
    (entry.addr() & CHUNK != 0, entry.wrapping_byte_sub(CHUNK).cast())
}

/// The record of the unit at an address of ours; null elsewhere.
fn unit(addr: usize) -> *mut Unit {
    let leaf = leaf(addr);
    if leaf.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the index is within the leaf.
    unsafe { &raw mut (*leaf).units[index(addr)] }
}

fn set(start: *mut u8, units: usize, entry: *mut u8) {
    for number in 0..units {
        let addr = start.addr() + number * UNIT;
        // SAFETY: the caller's units are covered by leaves.
        unsafe { (*leaf(addr)).entries[index(addr)].store(entry, Ordering::Release) };
    }
}

/// Says that a run is a chunk.
pub(crate) fn set_chunk(start: *mut u8, units: usize) {
    set(start, units, start.wrapping_byte_add(CHUNK));
}

/// The record of a run that becomes a large block; [`publish`] follows.
pub(crate) fn large_record(start: *mut u8) -> *mut Unit {
    unit(start.addr())
}

/// Says that a run is a large block.
pub(crate) fn set_large(start: *mut u8, units: usize) {
    set(start, units, large_record(start).cast::<u8>().map_addr(|addr| addr | LARGE));
}

/// Makes the leaves for a stretch. False when there is no memory for them.
fn cover(start: *mut u8, bytes: usize) -> bool {
    let (mut addr, last) = (start.addr(), start.addr() + bytes - 1);
    loop {
        if MAP.leaf_or_insert(addr).is_null() {
            return false;
        }
        let next = (addr / UNIT / UNITS_PER_LEAF + 1) * UNITS_PER_LEAF * UNIT;
        if next > last {
            return true;
        }
        addr = next;
    }
}

/// A run of `units`, aligned to `align` units (a power of two); `None` without memory. Nobody knows it yet.
pub(crate) fn take(units: usize, align: usize) -> Option<Run> {
    let order = units.max(align).next_power_of_two().trailing_zeros() as usize;
    if order >= ORDERS {
        return map(units, align);
    }
    take_order(units, order).or_else(|| if budget::relieve() { take_order(units, order) } else { None })
}

fn take_order(units: usize, order: usize) -> Option<Run> {
    let _guard = LOCK.lock();
    // SAFETY: under the lock, which nothing below takes.
    let state = unsafe { &mut *STATE.0.get() };
    // SAFETY: records in the lists are those of free runs, under the lock.
    unsafe {
        let (mut record, mut kind) = (pop(&mut state.dirty, DIRTY, order), DIRTY);
        if record.is_null() {
            kind = CLEAN;
            if !budget::charge(units * UNIT) {
                return None;
            }
            record = pop(&mut state.clean, CLEAN, order);
            if record.is_null() && clean_all(state) {
                record = pop(&mut state.clean, CLEAN, order);
            }
            if record.is_null() && reserve(state, UNIT << order) {
                record = pop(&mut state.clean, CLEAN, order);
            }
            if record.is_null() {
                budget::refund(units * UNIT);
                return None;
            }
        }
        let start = (*record).start;
        let whole = 1 << order;
        let mut at = units;
        while at < whole {
            // The run is aligned to its length, so each piece of the tail is to its own.
            let piece = at.trailing_zeros() as usize;
            push(lists(state, kind), kind, start.add(at * UNIT), piece);
            at += 1 << piece;
        }
        let used = count_used(units * UNIT);
        if used > HIGH.load(Ordering::Relaxed) {
            HIGH.store(used, Ordering::Relaxed);
        }
        fade(state);
        Some(Run { start, zero: kind == CLEAN, mapped: 0 })
    }
}

/// Takes a run of 2^order units out of the lists, halving a longer one; null when there is none.
///
/// # Safety
/// Under LOCK.
unsafe fn pop(lists: &mut Lists, kind: u8, order: usize) -> *mut Unit {
    let larger = lists.filled >> order << order;
    if larger == 0 {
        return ptr::null_mut();
    }
    let mut have = larger.trailing_zeros() as usize;
    let record = lists.heads[have];
    // SAFETY: the caller's promise; a run of 2^have units holds what is split off.
    unsafe {
        unlink(lists, record);
        while have > order {
            have -= 1;
            push(lists, kind, (*record).start.add(UNIT << have), have);
        }
    }
    record
}

/// # Safety
/// Under LOCK; the run is nobody's.
unsafe fn push(lists: &mut Lists, kind: u8, start: *mut u8, order: usize) {
    let record = unit(start.addr());
    let next = lists.heads[order];
    // SAFETY: the caller's promise; units of reservations have records.
    unsafe {
        (*record).start = start;
        (*record).order = order as u8;
        (*record).state = kind;
        (*record).prev = ptr::null_mut();
        (*record).next = next;
        if !next.is_null() {
            (*next).prev = record;
        }
    }
    lists.heads[order] = record;
    lists.filled |= 1 << order;
    if kind == DIRTY {
        UNUSED.fetch_add(UNIT << order, Ordering::Relaxed);
    }
}

/// # Safety
/// Under LOCK; the run is in these lists.
unsafe fn unlink(lists: &mut Lists, record: *mut Unit) {
    // SAFETY: the caller's promise.
    unsafe {
        let (order, next, prev) = ((*record).order as usize, (*record).next, (*record).prev);
        if prev.is_null() {
            lists.heads[order] = next;
            if next.is_null() {
                lists.filled &= !(1 << order);
            }
        } else {
            (*prev).next = next;
        }
        if !next.is_null() {
            (*next).prev = prev;
        }
        if (*record).state == DIRTY {
            UNUSED.fetch_sub(UNIT << order, Ordering::Relaxed);
        }
        (*record).state = NOT_FREE;
    }
}

/// Adds a free run, merged with its free buddies of the same kind.
///
/// # Safety
/// Under LOCK; the run is nobody's, and aligned to its length.
unsafe fn merge(lists: &mut Lists, kind: u8, mut start: *mut u8, mut order: usize) {
    while order < ORDERS - 1 {
        let buddy = unit(start.addr() ^ (UNIT << order));
        // SAFETY: a record of a unit that is not a free run's first says so; those of units that are not ours are zero.
        unsafe {
            if buddy.is_null() || (*buddy).state != kind || (*buddy).order as usize != order {
                break;
            }
            unlink(lists, buddy);
            if (*buddy).start < start {
                start = (*buddy).start;
            }
        }
        order += 1;
    }
    // SAFETY: the caller's promise.
    unsafe { push(lists, kind, start, order) };
}

fn lists(state: &mut State, kind: u8) -> &mut Lists {
    if kind == DIRTY { &mut state.dirty } else { &mut state.clean }
}

/// Gives all dirty runs to the system, so that they can be merged with clean ones. False when there were none.
///
/// # Safety
/// Under LOCK.
unsafe fn clean_all(state: &mut State) -> bool {
    let mut any = false;
    // SAFETY: the caller's promise.
    unsafe {
        while clean_one(state, false) {
            any = true;
        }
    }
    any
}

/// Gives one dirty run to the system, the longest or the shortest one. False when there is none that can be.
///
/// # Safety
/// Under LOCK.
unsafe fn clean_one(state: &mut State, longest: bool) -> bool {
    let filled = state.dirty.filled;
    if filled == 0 {
        return false;
    }
    let order = if longest { filled.ilog2() } else { filled.trailing_zeros() } as usize;
    // SAFETY: the caller's promise; free runs hold nothing.
    unsafe {
        let record = state.dirty.heads[order];
        unlink(&mut state.dirty, record);
        let start = (*record).start;
        if !pages::purge(start, UNIT << order) {
            // Locked pages: they stay as they are, and whoever gets them must not take them for zero.
            push(&mut state.dirty, DIRTY, start, order);
            return false;
        }
        budget::refund(UNIT << order);
        merge(&mut state.clean, CLEAN, start, order);
    }
    true
}

/// How many bytes may stay dirty.
fn kept() -> usize {
    let lately = HIGH.load(Ordering::Relaxed).min(KEEP_MOST);
    lately.max(USED.load(Ordering::Relaxed) / 4).max(KEEP)
}

/// Forgets some of what was used lately, and gives to the system what may no longer stay.
///
/// # Safety
/// Under LOCK.
unsafe fn fade(state: &mut State) {
    if UNUSED.load(Ordering::Relaxed) <= KEEP {
        return;
    }
    let now = clock::now_ms();
    let times = (now - state.faded.min(now)) / FADE_MS;
    if times != 0 {
        state.faded = now;
        let used = USED.load(Ordering::Relaxed);
        let mut high = HIGH.load(Ordering::Relaxed).max(used);
        for _ in 0..times.min(32) {
            high -= (high - used) / 4;
        }
        HIGH.store(high, Ordering::Relaxed);
    }
    // SAFETY: the caller's promise; free runs hold nothing.
    unsafe { while UNUSED.load(Ordering::Relaxed) > kept() && clean_one(state, true) {} }
}

/// Takes address space, `least` bytes or more (a buddy's length). False when there is none.
///
/// # Safety
/// Under LOCK.
unsafe fn reserve(state: &mut State, least: usize) -> bool {
    let largest = UNIT << (ORDERS - 1);
    let mut bytes = state.next_reservation.max(least);
    let mut start;
    loop {
        start = pages::map(bytes, bytes.min(largest));
        if !start.is_null() || bytes <= least.max(RESERVE_FIRST / 4) || cfg!(miri) {
            break;
        }
        bytes /= 2;
    }
    if start.is_null() {
        return false;
    }
    if !cover(start, bytes) {
        // SAFETY: just mapped, and nobody knows it.
        unsafe { pages::release(start, bytes, bytes.min(largest)) };
        return false;
    }
    // SAFETY: as above. A heap is meant to be small, and there may be many: each would hold 2 MiB in huge pages.
    unsafe { pages::advise_small(start, bytes) };
    state.next_reservation = (bytes * 2).min(RESERVE_MOST);
    RESERVED.fetch_add(bytes, Ordering::Relaxed);
    set(start, bytes / UNIT, FREE);
    // SAFETY: the run is nobody's; the reservation is aligned to the largest buddy, or to its own length.
    unsafe { spread(&mut state.clean, CLEAN, start, bytes / UNIT) };
    true
}

/// Adds a run of any length as free ones of powers of two.
///
/// # Safety
/// As [`merge`].
unsafe fn spread(lists: &mut Lists, kind: u8, start: *mut u8, units: usize) {
    let mut at = 0;
    while at < units {
        // SAFETY: inside the run.
        let here = unsafe { start.add(at * UNIT) };
        let aligned = (here.addr() >> UNIT_SHIFT).trailing_zeros() as usize;
        let order = aligned.min((units - at).ilog2() as usize).min(ORDERS - 1);
        // SAFETY: the caller's promise.
        unsafe { merge(lists, kind, here, order) };
        at += 1 << order;
    }
}

/// Gives a run back, or the tail of one.
///
/// # Safety
/// It was taken here (not mapped by itself), and nobody uses it any more.
pub(crate) unsafe fn give(start: *mut u8, units: usize) {
    let bytes = units * UNIT;
    let mut kind = DIRTY;
    // SAFETY: the caller's promise: the run is ours until it is in a list.
    unsafe {
        if UNUSED.load(Ordering::Relaxed) + bytes > kept() && pages::purge(start, bytes) {
            kind = CLEAN;
        }
        set(start, units, FREE);
        let _guard = LOCK.lock();
        let state = &mut *STATE.0.get();
        spread(lists(state, kind), kind, start, units);
        USED.fetch_sub(bytes, Ordering::Relaxed);
        if kind == CLEAN {
            budget::refund(bytes);
        }
        fade(state);
    }
}

/// Gives all that is free back to the system.
pub(crate) fn trim() {
    let _guard = LOCK.lock();
    // SAFETY: under the lock.
    unsafe {
        clean_all(&mut *STATE.0.get());
    }
}

/// A run longer than buddies are.
#[cold]
fn map(units: usize, align: usize) -> Option<Run> {
    let (bytes, mapped) = (units.checked_mul(UNIT)?, align.checked_mul(UNIT)?);
    let charged = budget::charge(bytes) || budget::relieve() && budget::charge(bytes);
    if !charged {
        return None;
    }
    let start = pages::map(bytes, mapped);
    if start.is_null() {
        budget::refund(bytes);
        return None;
    }
    let _guard = LOCK.lock();
    if !cover(start, bytes) {
        // SAFETY: just mapped, and nobody knows it.
        unsafe { pages::release(start, bytes, mapped) };
        budget::refund(bytes);
        return None;
    }
    RESERVED.fetch_add(bytes, Ordering::Relaxed);
    count_used(bytes);
    Some(Run { start, zero: true, mapped })
}

/// Gives the run of a large block back.
///
/// # Safety
/// The record is that of a large block that nobody uses any more.
pub(crate) unsafe fn give_large(record: *mut Unit, watch: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        let (start, units, mapped) = ((*record).start, (*record).units, (*record).mapped);
        (*record).heap.store(ptr::null_mut(), Ordering::Relaxed);
        if mapped == 0 {
            if watch {
                tools::hide(start, units * UNIT);
            }
            return give(start, units);
        }
        if watch {
            // Whoever maps memory here next must find it as it is elsewhere.
            tools::show(start, units * UNIT);
        }
        set(start, units, ptr::null_mut());
        pages::release(start, units * UNIT, mapped);
        RESERVED.fetch_sub(units * UNIT, Ordering::Relaxed);
        USED.fetch_sub(units * UNIT, Ordering::Relaxed);
        budget::refund(units * UNIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn runs_of_every_length_are_disjoint_aligned_and_merge_again() {
        let _alone = crate::tests::alone();
        let most = if cfg!(miri) { 12 } else { 70 };
        let mut taken: Vec<(usize, usize, *mut u8)> = Vec::new();
        for round in 0..3 {
            for units in 1..most {
                let align = 1 << (units % 5);
                let run = take(units, align).unwrap();
                assert_eq!(run.start.addr() % (align * UNIT), 0);
                assert_eq!(run.mapped, 0);
                set_chunk(run.start, units);
                for (addr, bytes, _) in &taken {
                    assert!(run.start.addr() >= addr + bytes || run.start.addr() + units * UNIT <= *addr);
                }
                taken.push((run.start.addr(), units * UNIT, run.start));
            }
            while taken.len() > 3 * round {
                let (addr, bytes, start) = taken.swap_remove(taken.len() / 2);
                assert_eq!(find(addr + bytes - 1), Found::Chunk(start.cast()));
                // SAFETY: taken above.
                unsafe { give(start, bytes / UNIT) };
                assert_eq!(find(addr), Found::Free);
            }
        }
        for (_, bytes, start) in taken {
            // SAFETY: as above.
            unsafe { give(start, bytes / UNIT) };
        }
    }

    #[test]
    fn addresses_that_are_not_ours() {
        let _alone = crate::tests::alone();
        assert_eq!(find(0), Found::Nothing);
        assert_eq!(find((&raw const STATE).addr()), Found::Nothing);
        assert_eq!(find(usize::MAX), Found::Nothing);
        let run = take(1, 1).unwrap();
        assert_eq!(find(run.start.addr() | 1 << 60), Found::Nothing);
        // SAFETY: taken above.
        unsafe { give(run.start, 1) };
    }

    #[test]
    #[cfg(not(miri))] // which has not so much memory, and whose clock is its own
    fn what_was_used_lately_stays_and_fades() {
        let _alone = crate::tests::alone();
        let runs = |count: usize| (0..count).map(|_| take(64, 1).unwrap().start).collect::<Vec<_>>();
        let unused = || UNUSED.load(Ordering::Relaxed);
        // SAFETY: taken here, and no longer used.
        let give_all = |runs: Vec<*mut u8>| runs.into_iter().for_each(|start| unsafe { give(start, 64) });
        give_all(runs(18));
        assert!(unused() >= 18 << 20, "{}", unused());
        give_all(runs(100));
        assert!(unused() > 16 << 20 && unused() <= KEEP_MOST, "{}", unused());
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_millis(FADE_MS + 10));
            give_all(runs(1));
        }
        assert!(unused() <= KEEP + (1 << 20), "{}", unused());
    }

    #[test]
    fn clean_runs_are_zero() {
        let _alone = crate::tests::alone();
        for _ in 0..8 {
            let run = take(3, 1).unwrap();
            // SAFETY: the run is ours.
            unsafe {
                if run.zero {
                    assert!((0..3 * UNIT).step_by(509).all(|at| *run.start.add(at) == 0));
                }
                run.start.write_bytes(0xA5, 3 * UNIT);
                give(run.start, 3);
                let _guard = LOCK.lock();
                clean_all(&mut *STATE.0.get());
            }
        }
    }
}
