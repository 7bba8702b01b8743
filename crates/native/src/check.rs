//! The invariants of the crate's head as equations, for tests, fuzzers and `ak_check`.

use crate::classes;
use crate::heap;
use crate::page::{Kind, Page};
use crate::{runs, table, upkeep};

/// Verifies the heap and returns the number of faults. Other threads wait at their slow paths meanwhile, so pages and
/// queues are seen whole; the bins of the calling thread are verified, those of others are not. Large blocks that are
/// being handed out or taken back at this moment are passed over. Thread-safe; slow.
#[must_use]
pub fn check() -> usize {
    let mut faults = 0;
    // Nobody empties the calling thread's cache meanwhile.
    let _one = upkeep::lock().lock();
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
    // SAFETY: as above.
    unsafe {
        let about = classes::get((*page).class as usize);
        if (*page).free_count > (*page).carved
            || (*page).outside > (*page).free_count
            || (*page).carved > Page::capacity(page)
            || (*page).units != about.units
        {
            faults += 1;
        }
        let bits = Page::bits(page);
        let words = about.capacity.div_ceil(64) as usize;
        let (mut free, mut beyond) = (0, 0);
        for word in 0..words {
            let set = *bits.add(word);
            free += set.count_ones();
            let carved = ((*page).carved as usize).saturating_sub(word * 64);
            beyond += if carved >= 64 { 0 } else { (set >> carved).count_ones() };
            if set != 0 && word < (*page).first as usize {
                faults += 1;
            }
        }
        if free != (*page).free_count || beyond != 0 {
            faults += 1;
        }
        let word = table::word((*page).start.addr());
        if !word.is_small()
            || word.is_hot() != ((*page).slot == 0)
            || word.class((*page).start.addr()) != (*page).class as usize
        {
            faults += 1;
        }
    }
    faults
}
