//! Large blocks: a run each, for sizes above [`crate::SMALL_MAX`] and for alignments that no class has.

use crate::classes::UNIT;
use crate::page::{Kind, Page};
use crate::table::{self, Word};
use crate::{Native, heap, runs, tagged, upkeep};
use allokit_core::MAX_SIZE;
use allokit_platform::pages::Remapped;
use allokit_platform::{budget, keep_errno, pages};

/// From this size on, a block that must move is remapped, not copied. Each move may cost a mapping for good, which the
/// system limits to about 65 000.
const REMAP_FROM: usize = 2 << 20;

fn units_for(size: usize) -> usize {
    size.max(1).div_ceil(UNIT)
}

/// A block of `size` bytes aligned to `align`, zeroed if wanted. Null with ENOMEM.
#[inline(never)]
pub(crate) fn alloc(size: usize, align: usize, zeroed: bool) -> *mut u8 {
    let heap = heap::with_cache();
    if size <= MAX_SIZE && align <= UNIT && !heap.is_null() {
        // SAFETY: the heap is this thread's; a run from its cache is the caller's.
        unsafe {
            let page = (*heap).cache.take(units_for(size));
            if !page.is_null() {
                let start = (*page).start;
                if zeroed {
                    clear(start, size, (*page).units as usize * UNIT);
                }
                table::set_word(start.addr(), Word::large());
                (*page).kind.set(Kind::Large);
                return start;
            }
        }
    }
    alloc_fresh(size, align, zeroed)
}

/// Zeroes the `size` bytes that are wanted of a run of `bytes`.
///
/// # Safety
/// The run is the caller's.
unsafe fn clear(start: *mut u8, size: usize, bytes: usize) {
    // SAFETY: the caller's promise. Fresh zero pages are cheaper than clearing many old ones.
    unsafe {
        if bytes < 4 * REMAP_FROM || !pages::purge(start, bytes) {
            start.write_bytes(0, size);
        }
    }
}

#[cold]
#[inline(never)]
fn alloc_fresh(size: usize, align: usize, zeroed: bool) -> *mut u8 {
    if size > MAX_SIZE {
        return Native::fail();
    }
    heap::begin_if_new();
    upkeep::tick();
    let heap = heap::with_cache();
    let (units, align_units) = (units_for(size), align.div_ceil(UNIT));
    let mut page = if heap.is_null() {
        runs::take(units, align_units)
    } else {
        // SAFETY: the heap is this thread's.
        unsafe { heap::take_run(heap, units, align_units) }
    };
    if page.is_null() && budget::relieve() {
        page = runs::take(units, align_units);
    }
    if page.is_null() {
        return Native::fail();
    }
    // SAFETY: the run was just taken: its metadata and memory are ours.
    unsafe {
        let start = (*page).start;
        if zeroed && !(*page).zero {
            clear(start, size, (*page).units as usize * UNIT);
        }
        settle(page);
        debug_assert!(start.addr() & (align - 1) == 0);
        start
    }
}

/// A block of `size` bytes that has just outgrown another one and will probably grow again: where there is room behind it.
/// Null with ENOMEM.
#[cold]
#[inline(never)]
pub(crate) fn alloc_growing(size: usize) -> *mut u8 {
    if size > MAX_SIZE {
        return Native::fail();
    }
    upkeep::tick();
    let page = take_with_room(units_for(size));
    if page.is_null() {
        return Native::fail();
    }
    // SAFETY: the run was just taken.
    unsafe {
        settle(page);
        (*page).start
    }
}

/// A run of `units` that is followed by as many free ones, if there is such a one with memory in it: room in fresh memory
/// that is never used costs memory all the same where it comes in huge pages.
fn take_with_room(units: usize) -> *mut Page {
    let page = runs::take_dirty(units * 2);
    if page.is_null() {
        let heap = heap::with_cache();
        // SAFETY: the heap is this thread's.
        let page = if heap.is_null() { runs::take(units, 1) } else { unsafe { heap::take_run(heap, units, 1) } };
        return if page.is_null() && budget::relieve() { runs::take(units, 1) } else { page };
    }
    // SAFETY: the run was just taken.
    unsafe { runs::shorten(page, units, (*page).zero) };
    page
}

/// Marks a taken run as a large block. (Here and wherever one comes or goes: a run of kind `Large` has its word, also for
/// a check or a fork between two stores.)
unsafe fn settle(page: *mut Page) {
    // SAFETY: the run is the caller's.
    unsafe {
        let units = (*page).units as usize;
        if units > 1 {
            (*table::page((*page).start.addr() + (units - 1) * UNIT)).kind.set(Kind::LargeEnd);
        }
        table::set_word((*page).start.addr(), Word::large());
        (*page).kind.set(Kind::Large);
    }
}

/// The metadata of a live large block; ends the program when `ptr` is not the start of one.
unsafe fn page_of(ptr: *const u8, what: &str) -> *mut Page {
    let page = table::page(ptr.addr());
    // SAFETY: the word of the unit is that of a large block, so it has metadata.
    unsafe {
        if (*page).start.addr() != ptr.addr() || (*page).kind.get() != Kind::Large {
            crate::invalid(ptr, what);
        }
    }
    page
}

/// # Safety
/// `ptr` is a live large block.
pub(crate) unsafe fn usable(ptr: *const u8) -> usize {
    // SAFETY: the caller's promise.
    unsafe { (*page_of(ptr, "usable size")).units as usize * UNIT }
}

/// # Safety
/// `ptr` lies in a unit whose word is that of a large block, and the caller gives it up.
#[inline(never)]
pub(crate) unsafe extern "C" fn free(ptr: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut page = page_of(ptr, "free");
        tagged::on_large_free(page);
        (*page).kind.set(Kind::Cached);
        table::set_word(ptr.addr(), Word::NONE);
        let heap = heap::with_cache();
        if !heap.is_null() {
            page = (*heap).cache.give(page);
            heap::tick_large(heap);
        }
        if !page.is_null() {
            give(page);
        }
    }
}

/// Gives a run that no cache wants back to the runs.
///
/// # Safety
/// The run is the caller's and nobody uses it any more.
#[cold]
#[inline(never)]
unsafe fn give(page: *mut Page) {
    keep_errno(|| {
        // SAFETY: the caller's promise.
        unsafe {
            (*page).kind.set(Kind::Busy);
            runs::give(page, false);
        }
        upkeep::tick();
    });
}

/// Resizes a block to another large size: in place, by remapping or by copying. Null with ENOMEM, the block untouched.
///
/// # Safety
/// `ptr` is a live large block; when the result is not null it replaces `ptr`. `size` is above [`crate::SMALL_MAX`].
pub(crate) unsafe fn resize(ptr: *mut u8, size: usize) -> *mut u8 {
    debug_assert!(size > crate::SMALL_MAX);
    if size > MAX_SIZE {
        return Native::fail();
    }
    // SAFETY: the caller's promise; the run is the caller's while the block is live.
    unsafe {
        let page = page_of(ptr, "realloc");
        let have = (*page).units as usize;
        let want = units_for(size);
        if want < have {
            runs::shorten(page, want, false);
        }
        if want <= have || runs::lengthen(page, want) {
            return ptr;
        }
        upkeep::tick();
        let moved = take_with_room(want);
        if moved.is_null() {
            return Native::fail();
        }
        let start = (*moved).start;
        let bytes = have * UNIT;
        let how = if bytes >= REMAP_FROM { pages::remap(ptr, start, bytes) } else { Remapped::Copy };
        match how {
            Remapped::Moved => {}
            Remapped::Copy => start.copy_from_nonoverlapping(ptr, bytes),
            // The run stays taken for good: it is address space without memory.
            Remapped::TargetLost => return Native::fail(),
        }
        settle(moved);
        (*page).kind.set(Kind::Busy);
        table::set_word(ptr.addr(), Word::NONE);
        runs::give(page, how == Remapped::Moved);
        start
    }
}
