//! The invariants of the crate's head as equations, for tests, fuzzers and `ak_check`.

use crate::classes;
use crate::heap;
use crate::page::{Kind, Page};
use crate::{runs, table};

/// Verifies the heap and returns the number of faults. Other threads wait at their slow paths meanwhile, so pages and
/// queues are seen whole; the bins of the calling thread are verified, those of others are not. Large blocks that are
/// being handed out or taken back at this moment are passed over. Thread-safe; slow.
#[must_use]
pub fn check() -> usize {
    let mut faults = 0;
    heap::stop_all(true);
    heap::for_each(|heap| faults += heap::check_heap(heap));
    faults += runs::check(check_run);
    heap::stop_all(false);
    faults
}

fn check_run(page: *mut Page) -> usize {
    // SAFETY: the first unit of a run, under the lock of the runs.
    unsafe {
        match (*page).kind.get() {
            Kind::Small => check_page(page),
            Kind::Large => usize::from(!table::word((*page).start.addr()).is_large()),
            Kind::Free => usize::from(table::word((*page).start.addr()).is_small()),
            _ => 0,
        }
    }
}

unsafe fn check_page(page: *mut Page) -> usize {
    let mut faults = 0;
    // SAFETY: as above; blocks on the free list are free, so their first word is the next one.
    unsafe {
        let about = classes::get((*page).class as usize);
        if (*page).used + (*page).free_count != (*page).carved
            || (*page).carved > (*page).capacity
            || (*page).capacity != about.capacity
            || (*page).units != about.units
        {
            faults += 1;
        }
        let mut length = 0;
        let mut block = (*page).free;
        while !block.is_null() && length <= (*page).free_count {
            let offset = block.addr().wrapping_sub((*page).start.addr());
            if !offset.is_multiple_of(about.size as usize) || offset / about.size as usize >= (*page).carved as usize {
                return faults + 1;
            }
            length += 1;
            block = (*block).next;
        }
        if length != (*page).free_count {
            faults += 1;
        }
        let word = table::word((*page).start.addr());
        if !word.is_small() || word.class() != (*page).class as usize {
            faults += 1;
        }
    }
    faults
}
