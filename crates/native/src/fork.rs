//! fork: the child finds every lock free and every structure whole, and may allocate at once.

use crate::sync::{AtomicU32, Ordering};
use crate::{heap, runs, sampled, table, upkeep};
use allokit_platform::{fork, meta};

/// Registers the handlers, once.
pub(crate) fn register() {
    static DONE: AtomicU32 = AtomicU32::new(0);
    if DONE.swap(1, Ordering::Relaxed) == 0 {
        fork::register(prepare, release, child);
    }
}

/// Takes all locks in the order in which the rest of the crate nests them.
unsafe extern "C" fn prepare() {
    upkeep::lock().lock_raw();
    heap::stop_all(true);
    for lock in runs::locks() {
        lock.lock_raw();
    }
    table::lock().lock_raw();
    sampled::lock().lock_raw();
    meta::fork::lock();
}

unsafe extern "C" fn release() {
    meta::fork::unlock();
    sampled::lock().unlock_raw();
    table::lock().unlock_raw();
    for lock in runs::locks().iter().rev() {
        lock.unlock_raw();
    }
    heap::stop_all(false);
    upkeep::lock().unlock_raw();
}

unsafe extern "C" fn child() {
    // SAFETY: the child has one thread, which holds all locks since `prepare`.
    unsafe { release() };
    heap::after_fork_in_child();
}
