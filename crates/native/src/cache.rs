//! A heap's cache of large runs: the last one freed of each length, handed out again without the lock of the runs.
//!
//! Its thread takes and gives with plain loads and stores. Others empty it by time, so that a thread that sleeps pins
//! nothing: they close the cache, let every processor pass a fence ([`barrier`]), and go on only if the thread is not
//! inside at that moment. So a cached run costs its thread no atomic operation.
//!
//! Invariant: a run in a slot has the kind `Cached`, a word of 0, a length that belongs to the slot, and is counted in
//! `units`; it is in no other list.

use crate::classes::UNIT;
use crate::page::{Kind, Page};
use crate::runs;
use crate::sync::{AtomicBool, AtomicPtr, AtomicU16, AtomicU32, Ordering};
use crate::upkeep;
use allokit_platform::barrier;
use core::ptr;

const SLOTS: usize = runs::CACHED_LISTS;
/// What a heap's cache may hold in all of runs up to 4 MiB, and of longer ones.
const UNITS_MOST: [u32; 2] = if cfg!(miri) { [4, 4] } else { [(8 << 20) / UNIT as u32, (32 << 20) / UNIT as u32] };

/// Which of the two a slot counts as.
#[inline(always)]
fn kind(slot: usize) -> usize {
    usize::from(slot > 64)
}

/// See the module's head.
pub(crate) struct Cache {
    /// The thread is inside.
    busy: AtomicBool,
    /// Somebody else is, or is about to be.
    closed: AtomicBool,
    /// Length of all cached runs of each kind.
    units: [AtomicU32; 2],
    /// The epochs in which the slots were filled.
    filled: [AtomicU16; SLOTS],
    slots: [AtomicPtr<Page>; SLOTS],
}

impl Cache {
    pub(crate) const fn new() -> Cache {
        Cache {
            busy: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            units: [const { AtomicU32::new(0) }; 2],
            filled: [const { AtomicU16::new(0) }; SLOTS],
            slots: [const { AtomicPtr::new(ptr::null_mut()) }; SLOTS],
        }
    }

    #[inline(always)]
    fn enter(&self) -> bool {
        self.busy.store(true, Ordering::Relaxed);
        barrier::light();
        if self.closed.load(Ordering::Acquire) {
            self.leave();
            return false;
        }
        true
    }

    #[inline(always)]
    fn leave(&self) {
        self.busy.store(false, Ordering::Release);
    }

    /// A run of at least `units`, at most an eighth longer, of kind `Cached`; null when there is none. Its contents are
    /// whatever was left there.
    ///
    /// # Safety
    /// The cache is that of the calling thread's heap.
    #[inline(always)]
    pub(crate) unsafe fn take(&self, units: usize) -> *mut Page {
        let slot = runs::list_of(units);
        if slot >= SLOTS || !self.enter() {
            return ptr::null_mut();
        }
        let mut page = self.slots[slot].load(Ordering::Relaxed);
        // SAFETY: a run in a slot is ours while we are inside.
        unsafe {
            if !page.is_null() {
                if (*page).units as usize >= units {
                    self.slots[slot].store(ptr::null_mut(), Ordering::Relaxed);
                    let units = &self.units[kind(slot)];
                    units.store(units.load(Ordering::Relaxed) - (*page).units, Ordering::Relaxed);
                } else {
                    page = ptr::null_mut();
                }
            }
        }
        self.leave();
        page
    }

    /// Gives the shortest cached run of at least `units` back to the runs, for somebody who would take memory that was never
    /// used. False when there is none.
    ///
    /// # Safety
    /// The cache is that of the calling thread's heap.
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn lend(&self, units: usize) -> bool {
        if self.units.iter().all(|units| units.load(Ordering::Relaxed) == 0) || !self.enter() {
            return false;
        }
        // SAFETY: runs in slots are ours while we are inside, and this one afterwards too.
        unsafe {
            let found = (runs::list_of(units)..SLOTS).find(|&slot| {
                let page = self.slots[slot].load(Ordering::Relaxed);
                !page.is_null() && (*page).units as usize >= units
            });
            let page = found.map(|slot| self.remove(slot));
            self.leave();
            if let Some(page) = page {
                (*page).kind.set(Kind::Busy);
                runs::give(page, false);
            }
            page.is_some()
        }
    }

    /// Takes the run out of a slot that holds one.
    ///
    /// # Safety
    /// As [`Cache::empty_older`].
    unsafe fn remove(&self, slot: usize) -> *mut Page {
        let page = self.slots[slot].swap(ptr::null_mut(), Ordering::Relaxed);
        let units = &self.units[kind(slot)];
        // SAFETY: the run was in the slot, so it is nobody else's.
        units.store(units.load(Ordering::Relaxed) - unsafe { (*page).units }, Ordering::Relaxed);
        page
    }

    /// Caches a run of kind `Cached` that nobody uses any more, and gives the one that has to make room for it, or that
    /// run itself, or null.
    ///
    /// # Safety
    /// The cache is that of the calling thread's heap; the run is the caller's, its word is 0.
    #[inline(always)]
    pub(crate) unsafe fn give(&self, page: *mut Page) -> *mut Page {
        // SAFETY: the caller's run; a run in a slot is ours while we are inside.
        unsafe {
            debug_assert!((*page).kind.get() == Kind::Cached);
            let slot = runs::list_of((*page).units as usize);
            if slot >= SLOTS || !self.enter() {
                return page;
            }
            let old = self.slots[slot].load(Ordering::Relaxed);
            let cached = &self.units[kind(slot)];
            let mut units = cached.load(Ordering::Relaxed) + (*page).units;
            if !old.is_null() {
                units -= (*old).units;
            }
            let out = if units > UNITS_MOST[kind(slot)] {
                page
            } else {
                cached.store(units, Ordering::Relaxed);
                self.slots[slot].store(page, Ordering::Relaxed);
                self.filled[slot].store(upkeep::epoch(), Ordering::Relaxed);
                old
            };
            self.leave();
            out
        }
    }

    /// Whether something lies there since `epochs` looks of the upkeep.
    fn has_older(&self, epochs: u16) -> bool {
        self.units.iter().any(|units| units.load(Ordering::Relaxed) > 0)
            && (0..SLOTS).any(|slot| self.is_older(slot, epochs))
    }

    fn is_older(&self, slot: usize, epochs: u16) -> bool {
        let age = upkeep::epoch().wrapping_sub(self.filled[slot].load(Ordering::Relaxed));
        age >= epochs && !self.slots[slot].load(Ordering::Relaxed).is_null()
    }

    /// Gives the runs back that lie there since `epochs` looks of the upkeep (0: all), from whatever thread; leaves them
    /// when the heap's thread is inside right now. One caller at a time.
    pub(crate) fn release_older(&self, epochs: u16) {
        if !self.has_older(epochs) {
            return;
        }
        self.closed.store(true, Ordering::SeqCst);
        if barrier::heavy() && !self.busy.load(Ordering::Acquire) {
            // SAFETY: the thread is not inside, and finds the cache closed when it comes: what is here is ours.
            unsafe { self.empty_older(epochs) };
        }
        self.closed.store(false, Ordering::Release);
    }

    /// As [`Cache::release_older`].
    ///
    /// # Safety
    /// No other thread is or comes inside: one that is closed, or, while nobody else empties caches, the calling thread's
    /// own or that of a thread that has ended.
    pub(crate) unsafe fn empty_older(&self, epochs: u16) {
        for slot in 0..SLOTS {
            if self.is_older(slot, epochs) {
                // SAFETY: the caller's promise; the run is ours then.
                unsafe {
                    let page = self.remove(slot);
                    (*page).kind.set(Kind::Busy);
                    runs::give(page, false);
                }
            }
        }
    }

    /// In a forked child: whoever was inside does not exist here, and may have left between two stores.
    pub(crate) fn reopen(&self) {
        self.busy.store(false, Ordering::Relaxed);
        self.closed.store(false, Ordering::Relaxed);
        let mut units = [0; 2];
        for slot in 0..SLOTS {
            let page = self.slots[slot].load(Ordering::Relaxed);
            if !page.is_null() {
                // SAFETY: a run in a slot has metadata, and no other thread exists.
                units[kind(slot)] += unsafe { (*page).units };
            }
        }
        (0..2).for_each(|kind| self.units[kind].store(units[kind], Ordering::Relaxed));
    }

    /// Counts the faults; by the heap's own thread.
    pub(crate) fn check(&self) -> usize {
        let mut faults = 0;
        let mut units = [0; 2];
        for slot in 0..SLOTS {
            let page = self.slots[slot].load(Ordering::Relaxed);
            if !page.is_null() {
                // SAFETY: a run in a slot has metadata; its own thread looks.
                unsafe {
                    faults += usize::from((*page).kind.get() != Kind::Cached);
                    faults += usize::from(runs::list_of((*page).units as usize) != slot);
                    units[kind(slot)] += (*page).units;
                }
            }
        }
        faults + (0..2).filter(|&kind| units[kind] != self.units[kind].load(Ordering::Relaxed)).count()
    }
}
