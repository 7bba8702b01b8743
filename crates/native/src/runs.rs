//! Runs: units in a row, taken and given back under one lock.
//!
//! Address space comes in reservations, committed from their start onwards as it is needed. A free run is *dirty* (its
//! memory is still there) or *clean* (given back, or never used: it reads as zero). Free runs of a kind that touch are
//! one run; the first and last unit of each say how long it is, so freeing finds its neighbours in constant time. Each
//! kind has lists by length: one for each length below 64 units, then eight to a doubling, and a bit for each list that
//! is not empty. A request takes the best fit of the dirty runs, else of the clean ones, else fresh units.
//!
//! Dirty runs are also in a list by age, and [`purge_older`] gives back those that nobody wanted for a while: by time,
//! so that a steady load keeps its memory and an idle one returns it.
//!
//! Invariant: every unit between a reservation's start and its `fresh` belongs to exactly one run; a free run has kind
//! Free in its first unit and, if longer than one, FreeEnd in its last, with equal `units`; no two neighbouring free runs
//! are of the same kind; `used + dirty + clean == sum of fresh`; `used + dirty` is charged to the [`budget`] of the process.

use crate::classes::{UNIT, UNIT_SHIFT};
use crate::page::{Kind, Page};
use crate::sync::{AtomicUsize, Lock, Ordering};
use crate::table;
use allokit_core::MAX_SIZE;
use allokit_platform::{budget, clock, pages};
use core::cell::UnsafeCell;
use core::ptr;

const LISTS: usize = 256;
const EXACT: usize = 64;
/// The lists of runs up to 32 MiB, for which a heap's cache has slots.
pub(crate) const CACHED_LISTS: usize = 96;
/// How many runs of a list that may hold shorter ones are looked at for the best fit.
const LOOKS: usize = 32;

/// The first reservation and the largest; each is twice the last.
const RESERVE_FIRST: usize = if cfg!(miri) { 1 << 20 } else { 4 << 30 };
const RESERVE_MOST: usize = if cfg!(miri) { 1 << 20 } else { 64 << 30 };
/// A reservation where address space is limited.
const RESERVE_LIMITED: usize = 32 << 20;
/// Huge pages are asked for beyond so much committed memory: a small heap would only grow by them.
const HUGE_FROM: usize = 4 << 20;
/// How large a huge page is; reservations begin at a multiple of it.
const HUGE_PAGE: usize = 2 << 20;
/// For how much of the first reservation the metadata is made with it.
const METADATA_FIRST: usize = 256 << 20;
/// How much is committed at a time.
const COMMIT: usize = if cfg!(miri) { 1 << 20 } else { 4 << 20 };
/// In steps of a unit at least: see [`crate::Native::commit_in_steps_of`].
pub(crate) static STEP: AtomicUsize = AtomicUsize::new(COMMIT);
const RESERVATIONS: usize = if cfg!(miri) { 64 } else { 4096 };

#[derive(Clone, Copy)]
struct Reservation {
    start: *mut u8,
    bytes: usize,
    /// `start..fresh` has been given out as runs; `fresh..committed` may be without asking the system.
    fresh: usize,
    committed: usize,
}

/// Free runs of one kind, by length.
struct Lists {
    heads: [*mut Page; LISTS],
    filled: [u64; LISTS / 64],
}

struct Runs {
    reservations: [Reservation; RESERVATIONS],
    count: usize,
    /// 0 before the first: all of this is zero at first, so that it takes no memory until it is used.
    last_reservation: usize,
    committed: usize,
    dirty: Lists,
    clean: Lists,
    oldest: *mut Page,
    youngest: *mut Page,
}

struct Shared(UnsafeCell<Runs>);

// SAFETY: touched only under LOCK.
unsafe impl Sync for Shared {}

const NO_RESERVATION: Reservation = Reservation { start: ptr::null_mut(), bytes: 0, fresh: 0, committed: 0 };

static LOCK: Lock = Lock::new();
/// Held while a run is between the lists, for the time of a system call. Taken before LOCK.
static PURGING: Lock = Lock::new();
static RUNS: Shared = Shared(UnsafeCell::new(Runs {
    reservations: [NO_RESERVATION; RESERVATIONS],
    count: 0,
    last_reservation: 0,
    committed: 0,
    dirty: Lists { heads: [ptr::null_mut(); LISTS], filled: [0; LISTS / 64] },
    clean: Lists { heads: [ptr::null_mut(); LISTS], filled: [0; LISTS / 64] },
    oldest: ptr::null_mut(),
    youngest: ptr::null_mut(),
}));

static RESERVED: AtomicUsize = AtomicUsize::new(0);
static USED_UNITS: AtomicUsize = AtomicUsize::new(0);
static DIRTY_UNITS: AtomicUsize = AtomicUsize::new(0);
static PEAK_UNITS: AtomicUsize = AtomicUsize::new(0);

/// Bytes: reserved, committed (in use or dirty), the most that was committed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub reserved: u64,
    pub committed: u64,
    pub peak: u64,
}

/// The figures of now. Thread-safe; each figure is exact, the set not from one moment.
pub(crate) fn figures() -> Figures {
    let held = USED_UNITS.load(Ordering::Relaxed) + DIRTY_UNITS.load(Ordering::Relaxed);
    let bytes = |units: usize| (units as u64) << UNIT_SHIFT;
    Figures {
        reserved: RESERVED.load(Ordering::Relaxed) as u64,
        committed: bytes(held),
        peak: bytes(PEAK_UNITS.load(Ordering::Relaxed).max(held)),
    }
}

/// Whether an address lies in a reservation.
pub(crate) fn holds(addr: usize) -> bool {
    let _guard = LOCK.lock();
    // SAFETY: under LOCK.
    let runs = unsafe { &*RUNS.0.get() };
    runs.reservations[..runs.count].iter().any(|at| addr.wrapping_sub(at.start.addr()) < at.bytes)
}

/// Bytes of memory in free runs.
pub(crate) fn dirty_bytes() -> usize {
    DIRTY_UNITS.load(Ordering::Relaxed) << UNIT_SHIFT
}

/// The list of runs of this length; [`crate::cache`] sorts by it too.
#[inline]
pub(crate) fn list_of(units: usize) -> usize {
    if units < EXACT {
        units
    } else {
        let log = units.ilog2() as usize;
        (EXACT + (log - 6) * 8 + ((units >> (log - 3)) & 7)).min(LISTS - 1)
    }
}

impl Lists {
    /// Puts a run into its list.
    ///
    /// # Safety
    /// Under LOCK; the run is the caller's.
    unsafe fn push(&mut self, page: *mut Page) {
        // SAFETY: all pages in the lists are first units of free runs, whose metadata LOCK protects.
        unsafe {
            let list = list_of((*page).units as usize);
            let head = self.heads[list];
            (*page).next = head;
            (*page).prev = ptr::null_mut();
            if !head.is_null() {
                (*head).prev = page;
            }
            self.heads[list] = page;
            self.filled[list / 64] |= 1 << (list % 64);
        }
    }

    /// Takes a run out of its list.
    ///
    /// # Safety
    /// Under LOCK; the run is in these lists.
    unsafe fn remove(&mut self, page: *mut Page) {
        // SAFETY: as in `push`.
        unsafe {
            let (next, prev) = ((*page).next, (*page).prev);
            if !next.is_null() {
                (*next).prev = prev;
            }
            if prev.is_null() {
                let list = list_of((*page).units as usize);
                debug_assert!(self.heads[list] == page);
                self.heads[list] = next;
                if next.is_null() {
                    self.filled[list / 64] &= !(1 << (list % 64));
                }
            } else {
                (*prev).next = next;
            }
        }
    }

    /// The best fit for `units` among what is looked at; null when there is none.
    ///
    /// # Safety
    /// Under LOCK.
    unsafe fn find(&self, units: usize) -> *mut Page {
        let first = list_of(units);
        // SAFETY: as in `push`.
        unsafe {
            let mut best: *mut Page = ptr::null_mut();
            let mut page = self.heads[first];
            let mut looks = LOOKS;
            while !page.is_null() && looks > 0 {
                if (*page).units as usize >= units && (best.is_null() || (*page).units < (*best).units) {
                    best = page;
                    if (*best).units as usize == units {
                        return best;
                    }
                }
                page = (*page).next;
                looks -= 1;
            }
            if !best.is_null() {
                return best;
            }
            let mut word = (first + 1) / 64;
            if word >= LISTS / 64 {
                return ptr::null_mut();
            }
            let mut bits = self.filled[word] & (u64::MAX << ((first + 1) % 64));
            loop {
                if bits != 0 {
                    return self.heads[word * 64 + bits.trailing_zeros() as usize];
                }
                word += 1;
                if word == LISTS / 64 {
                    return ptr::null_mut();
                }
                bits = self.filled[word];
            }
        }
    }
}

/// Writes the boundary marks of a run that is neither free nor in use.
unsafe fn mark(page: *mut Page, units: usize, kind: Kind, end: Kind) {
    // SAFETY: the run is the caller's, under LOCK.
    unsafe {
        (*page).kind.set(kind);
        (*page).units = units as u32;
        if units > 1 {
            let last = table::page((*page).start.addr() + (units - 1) * UNIT);
            (*last).kind.set(end);
            (*last).units = units as u32;
            (*last).start = (*page).start;
        }
    }
}

impl Runs {
    fn lists(&mut self, zero: bool) -> &mut Lists {
        if zero { &mut self.clean } else { &mut self.dirty }
    }

    /// Adds a free run, joined with its neighbours of the same kind. `page` is its first unit; `start` is set.
    unsafe fn insert(&mut self, mut page: *mut Page, mut units: usize, zero: bool, mut freed_at: u64) {
        // SAFETY: the caller's run, under LOCK; neighbours found by their marks are free runs in our lists.
        unsafe {
            if !zero {
                DIRTY_UNITS.fetch_add(units, Ordering::Relaxed);
            }
            let start = (*page).start;
            let before = table::page(start.addr().wrapping_sub(UNIT));
            if !before.is_null() {
                let first = match (*before).kind.get() {
                    Kind::FreeEnd => table::page((*before).start.addr()),
                    Kind::Free if (*before).units == 1 => before,
                    _ => ptr::null_mut(),
                };
                if !first.is_null() && (*first).zero == zero {
                    let length = (*first).units as usize;
                    if length > units {
                        freed_at = (*first).freed_at;
                    }
                    self.unlink(first);
                    page = first;
                    units += length;
                }
            }
            let after = table::page((*page).start.addr() + units * UNIT);
            if !after.is_null() && (*after).kind.get() == Kind::Free && (*after).zero == zero {
                let length = (*after).units as usize;
                if length > units {
                    freed_at = (*after).freed_at;
                }
                self.unlink(after);
                units += length;
            }
            mark(page, units, Kind::Free, Kind::FreeEnd);
            (*page).zero = zero;
            (*page).freed_at = freed_at;
            self.lists(zero).push(page);
            if !zero {
                (*page).younger = ptr::null_mut();
                (*page).older = self.youngest;
                if self.youngest.is_null() {
                    self.oldest = page;
                } else {
                    (*self.youngest).younger = page;
                }
                self.youngest = page;
            }
        }
    }

    /// Takes a free run out of all lists.
    unsafe fn unlink(&mut self, page: *mut Page) {
        // SAFETY: under LOCK; the run is in the lists of its kind.
        unsafe {
            let zero = (*page).zero;
            self.lists(zero).remove(page);
            if !zero {
                let (younger, older) = ((*page).younger, (*page).older);
                if younger.is_null() {
                    self.youngest = older;
                } else {
                    (*younger).older = older;
                }
                if older.is_null() {
                    self.oldest = younger;
                } else {
                    (*older).younger = younger;
                }
            }
        }
    }

    /// Takes `units` at a multiple of `align` units out of a free run that is long enough, and gives the rest back.
    unsafe fn cut(&mut self, page: *mut Page, units: usize, align: usize) -> *mut Page {
        // SAFETY: under LOCK; the run is free and has `units + align - 1` units at least, so an aligned stretch exists.
        unsafe {
            self.unlink(page);
            let length = (*page).units as usize;
            let zero = (*page).zero;
            let freed_at = (*page).freed_at;
            if !zero {
                DIRTY_UNITS.fetch_sub(length, Ordering::Relaxed);
            }
            let start = (*page).start;
            let before = (start.addr().wrapping_neg() & (align * UNIT - 1)) >> UNIT_SHIFT;
            let taken = self.part(start.add(before * UNIT), units, zero);
            if before > 0 {
                let rest = self.part(start, before, zero);
                self.insert(rest, before, zero, freed_at);
            }
            let behind = length - before - units;
            if behind > 0 {
                let rest = self.part(start.add((before + units) * UNIT), behind, zero);
                self.insert(rest, behind, zero, freed_at);
            }
            taken
        }
    }

    /// A run of memory that was given back, or never used: as far as the limit of the process allows.
    unsafe fn more(&mut self, units: usize, align: usize, also_fresh: bool) -> *mut Page {
        if !budget::charge(units * UNIT) {
            return ptr::null_mut();
        }
        // SAFETY: under LOCK.
        let page = unsafe {
            let found = self.clean.find(units + align - 1);
            if !found.is_null() {
                self.cut(found, units, align)
            } else if also_fresh {
                self.fresh(units, align)
            } else {
                ptr::null_mut()
            }
        };
        if page.is_null() {
            budget::refund(units * UNIT);
        }
        page
    }

    /// Marks a stretch as a run of its own that is neither free nor in use.
    unsafe fn part(&mut self, start: *mut u8, units: usize, zero: bool) -> *mut Page {
        let page = table::page(start.addr());
        // SAFETY: under LOCK; the stretch is ours and covered by the table.
        unsafe {
            (*page).start = start;
            (*page).zero = zero;
            mark(page, units, Kind::Busy, Kind::Busy);
        }
        page
    }

    /// Fresh units from a reservation, or from a new one.
    unsafe fn fresh(&mut self, units: usize, align: usize) -> *mut Page {
        let bytes = units * UNIT;
        // SAFETY: under LOCK.
        unsafe {
            for index in (0..self.count).rev() {
                let page = self.fresh_from(index, bytes, align);
                if !page.is_null() {
                    return page;
                }
            }
            let Some(least) = bytes.checked_add((align - 1) * UNIT) else { return ptr::null_mut() };
            // There is room, and the system gives no memory for it: nor would it elsewhere.
            if self.reservations[..self.count].iter().any(|at| at.bytes - at.fresh >= least) {
                return ptr::null_mut();
            }
            if self.reserve(least) { self.fresh_from(self.count - 1, bytes, align) } else { ptr::null_mut() }
        }
    }

    unsafe fn fresh_from(&mut self, index: usize, bytes: usize, align: usize) -> *mut Page {
        let at = self.reservations[index];
        let gap = at.start.addr().wrapping_add(at.fresh).wrapping_neg() & (align * UNIT - 1);
        let Some(end) = at.fresh.checked_add(gap).and_then(|from| from.checked_add(bytes)) else {
            return ptr::null_mut();
        };
        if end > at.bytes {
            return ptr::null_mut();
        }
        // SAFETY: `fresh..end` lies in the reservation and nobody uses it; the table is made to cover it first.
        unsafe {
            if !table::cover(at.start.addr() + at.fresh, end - at.fresh) {
                return ptr::null_mut();
            }
            if end > at.committed {
                let wanted = end.next_multiple_of(STEP.load(Ordering::Relaxed)).min(at.bytes);
                let from = at.start.add(at.committed);
                let target = if pages::commit(from, wanted - at.committed) {
                    wanted
                } else if pages::commit(from, end - at.committed) {
                    end
                } else {
                    return ptr::null_mut();
                };
                self.reservations[index].committed = target;
                self.committed += target - at.committed;
                if self.committed > HUGE_FROM {
                    pages::advise_huge(from, target - at.committed);
                }
            }
            self.reservations[index].fresh = end;
            let start = at.start.add(at.fresh);
            if gap > 0 {
                let rest = self.part(start, gap / UNIT, true);
                self.insert(rest, gap / UNIT, true, 0);
            }
            self.part(start.add(gap), bytes / UNIT, true)
        }
    }

    /// A new reservation of at least `least` bytes.
    unsafe fn reserve(&mut self, least: usize) -> bool {
        if self.count == RESERVATIONS {
            return false;
        }
        let limited = pages::space_is_limited();
        let mut bytes =
            if limited { RESERVE_LIMITED } else { (self.last_reservation * 2).clamp(RESERVE_FIRST, RESERVE_MOST) }
                .max(least);
        loop {
            let start = pages::reserve(bytes, if limited { UNIT } else { HUGE_PAGE });
            if !start.is_null() {
                self.reservations[self.count] = Reservation { start, bytes, fresh: 0, committed: 0 };
                self.count += 1;
                RESERVED.fetch_add(bytes, Ordering::Relaxed);
                if !limited {
                    self.last_reservation = bytes;
                }
                return true;
            }
            if bytes == least {
                return false;
            }
            bytes = ((bytes / 2) & !(UNIT - 1)).max(least);
        }
    }
}

/// Makes the first reservation with its metadata, if there is none yet and there is address space for it.
pub(crate) fn begin() {
    let _guard = LOCK.lock();
    // SAFETY: under LOCK.
    unsafe {
        let runs = &mut *RUNS.0.get();
        if runs.count == 0 && runs.reserve(UNIT) {
            let first = &runs.reservations[0];
            // What cannot be had now is tried again when it is needed.
            let _ = table::cover(first.start.addr(), first.bytes.min(METADATA_FIRST));
        }
    }
}

/// Takes a run of `units` at a multiple of `align` units (a power of two): its first unit, with `start`, `units` and
/// `zero` set and of kind Busy; null when there is no memory. Thread-safe.
pub(crate) fn take(units: usize, align: usize) -> *mut Page {
    if units > MAX_SIZE / UNIT / 2 || units > u32::MAX as usize {
        return ptr::null_mut();
    }
    let wanted = units + align - 1;
    let guard = LOCK.lock();
    // SAFETY: under LOCK.
    let page = unsafe {
        let runs = &mut *RUNS.0.get();
        let found = runs.dirty.find(wanted);
        if found.is_null() { runs.more(units, align, true) } else { runs.cut(found, units, align) }
    };
    let page = if page.is_null() {
        // Before giving up: dirty and clean neighbours that together are long enough.
        drop(guard);
        if !purge_older(u64::MAX) {
            return page;
        }
        let _guard = LOCK.lock();
        // SAFETY: under LOCK. (The system had no fresh memory a moment ago; a limit of the process may allow some now.)
        let page = unsafe { (*RUNS.0.get()).more(units, align, budget::is_limited()) };
        if page.is_null() {
            return page;
        }
        page
    } else {
        page
    };
    count_taken(units);
    page
}

/// As [`take`], of memory that is there already; null when there is none.
pub(crate) fn take_dirty(units: usize) -> *mut Page {
    if units > MAX_SIZE / UNIT / 2 || units > u32::MAX as usize {
        return ptr::null_mut();
    }
    let guard = LOCK.lock();
    // SAFETY: under LOCK.
    let page = unsafe {
        let runs = &mut *RUNS.0.get();
        let found = runs.dirty.find(units);
        if found.is_null() {
            return found;
        }
        runs.cut(found, units, 1)
    };
    drop(guard);
    count_taken(units);
    page
}

fn count_taken(units: usize) {
    let held = USED_UNITS.fetch_add(units, Ordering::Relaxed) + units + DIRTY_UNITS.load(Ordering::Relaxed);
    if held > PEAK_UNITS.load(Ordering::Relaxed) {
        PEAK_UNITS.fetch_max(held, Ordering::Relaxed);
    }
}

/// Gives a run back. `zero`: it is known to read as zero.
///
/// # Safety
/// The run was taken and nobody uses it any more; its words are 0.
pub(crate) unsafe fn give(page: *mut Page, zero: bool) {
    let now = clock::now_ms();
    let _guard = LOCK.lock();
    // SAFETY: under LOCK; the caller's run.
    unsafe {
        let units = (*page).units as usize;
        USED_UNITS.fetch_sub(units, Ordering::Relaxed);
        (*RUNS.0.get()).insert(page, units, zero, now);
        if zero {
            budget::refund(units * UNIT);
        }
    }
}

/// Makes a taken run shorter; what is cut off is free, and reads as zero if `zero`.
///
/// # Safety
/// The run is the caller's; `units` is at least 1 and less than its length; nobody uses the units cut off.
pub(crate) unsafe fn shorten(page: *mut Page, units: usize, zero: bool) {
    let now = clock::now_ms();
    let _guard = LOCK.lock();
    // SAFETY: under LOCK; the caller's run.
    unsafe {
        let runs = &mut *RUNS.0.get();
        let cut = (*page).units as usize - units;
        let (kind, end) = ((*page).kind.get(), Kind::LargeEnd);
        mark(page, units, kind, end);
        let rest = runs.part((*page).start.add(units * UNIT), cut, zero);
        USED_UNITS.fetch_sub(cut, Ordering::Relaxed);
        runs.insert(rest, cut, zero, now);
        if zero {
            budget::refund(cut * UNIT);
        }
    }
}

/// Makes a taken run longer, to `units`, where what follows is free or fresh. The new part may hold old contents. False
/// when it cannot be; nothing has changed then.
///
/// # Safety
/// The run is the caller's; `units` is more than its length.
pub(crate) unsafe fn lengthen(page: *mut Page, units: usize) -> bool {
    let _guard = LOCK.lock();
    // SAFETY: under LOCK; the caller's run; what follows it is ours only when marked free or fresh in a reservation.
    let more = unsafe {
        let runs = &mut *RUNS.0.get();
        let more = units - (*page).units as usize;
        let end = (*page).start.add((*page).units as usize * UNIT);
        let after = table::page(end.addr());
        if !after.is_null() && (*after).kind.get() == Kind::Free {
            if ((*after).units as usize) < more || (*after).zero && !budget::charge(more * UNIT) {
                return false;
            }
            runs.cut(after, more, 1);
        } else {
            let Some(index) = (0..runs.count).find(|&index| {
                let at = &runs.reservations[index];
                at.start.addr() + at.fresh == end.addr() && at.fresh > 0
            }) else {
                return false;
            };
            if !budget::charge(more * UNIT) {
                return false;
            }
            if runs.fresh_from(index, more * UNIT, 1).is_null() {
                budget::refund(more * UNIT);
                return false;
            }
        }
        let (kind, end) = ((*page).kind.get(), Kind::LargeEnd);
        mark(page, units, kind, end);
        more
    };
    count_taken(more);
    true
}

/// Gives the memory of dirty runs back that were freed before `deadline` (in ms; `u64::MAX`: all). Whether there were
/// any. Thread-safe; the system calls are made outside the lock.
pub(crate) fn purge_older(deadline: u64) -> bool {
    let _purging = PURGING.lock();
    let mut any = false;
    loop {
        // SAFETY: under LOCK while the lists are touched; in between the run is Busy, so nobody else takes it.
        unsafe {
            let guard = LOCK.lock();
            let runs = &mut *RUNS.0.get();
            let page = runs.oldest;
            if page.is_null() || ((*page).freed_at >= deadline && deadline != u64::MAX) {
                return any;
            }
            runs.unlink(page);
            let units = (*page).units as usize;
            mark(page, units, Kind::Busy, Kind::Busy);
            let start = (*page).start;
            drop(guard);
            let zero = pages::purge(start, units * UNIT);
            if !zero {
                // Locked pages: the contents are zeroed by hand, so that the run counts as clean and is not tried again.
                start.write_bytes(0, units * UNIT);
            }
            let guard = LOCK.lock();
            DIRTY_UNITS.fetch_sub(units, Ordering::Relaxed);
            (*RUNS.0.get()).insert(page, units, true, 0);
            budget::refund(units * UNIT);
            drop(guard);
            any = true;
        }
    }
}

/// The locks of the runs in the order in which they are taken, for fork.
pub(crate) fn locks() -> [&'static Lock; 2] {
    [&PURGING, &LOCK]
}

/// Calls `visit` with the first unit of every run under the lock, and counts the faults that it reports and those of the
/// boundary marks. A run may reach from one reservation into another that follows it without a gap.
pub(crate) fn check(mut visit: impl FnMut(*mut Page) -> usize) -> usize {
    let _purging = PURGING.lock();
    let _guard = LOCK.lock();
    let mut faults = 0;
    let mut dirty = 0;
    // SAFETY: under LOCK; runs tile what has been given out.
    unsafe {
        let runs = &*RUNS.0.get();
        let all = &runs.reservations[..runs.count];
        let ends_at = |addr: usize| all.iter().any(|at| at.fresh == at.bytes && at.start.addr() + at.bytes == addr);
        let starts_at = |addr: usize| all.iter().find(|at| at.fresh > 0 && at.start.addr() == addr);
        for first in all.iter().filter(|at| at.fresh > 0 && !ends_at(at.start.addr())) {
            let mut end = first.start.addr() + first.fresh;
            if first.fresh == first.bytes {
                while let Some(next) = starts_at(end) {
                    end += next.fresh;
                    if next.fresh < next.bytes {
                        break;
                    }
                }
            }
            let mut addr = first.start.addr();
            let mut last: Option<bool> = None;
            while addr < end {
                let page = table::page(addr);
                let units = (*page).units as usize;
                if (*page).start.addr() != addr || units == 0 || addr + units * UNIT > end {
                    return faults + 1;
                }
                if (*page).kind.get() == Kind::Free {
                    let tail = table::page(addr + (units - 1) * UNIT);
                    if units > 1 && ((*tail).kind.get() != Kind::FreeEnd || (*tail).units as usize != units) {
                        faults += 1;
                    }
                    if last == Some((*page).zero) {
                        faults += 1;
                    }
                    last = Some((*page).zero);
                    if !(*page).zero {
                        dirty += units;
                    }
                } else {
                    last = None;
                }
                faults += visit(page);
                addr += units * UNIT;
            }
        }
        if dirty != DIRTY_UNITS.load(Ordering::Relaxed) {
            faults += 1;
        }
    }
    faults
}
