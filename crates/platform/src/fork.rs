//! fork: handlers that leave every lock of ours free and every structure whole in the child.
//!
//! A process with one thread forks without them: nobody else holds a lock or is between two stores, and a handler of a
//! signal may fork (POSIX allows it) while the thread that it interrupts holds a lock of ours, which that thread gives
//! back in both processes. Where the process has several threads, libc's lock of the list of its streams is taken first:
//! fork takes it after the handlers, and a thread that flushes all streams holds it while it waits for a stream whose
//! user is in malloc.

use crate::lock::Lock;
use crate::weak_symbol;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A function that runs before or after a fork.
pub type Handler = unsafe extern "C" fn();

#[derive(Clone, Copy)]
struct Handlers {
    prepare: Handler,
    parent: Handler,
    child: Handler,
}

/// One for the backend, one for tracking, and room for more.
const MOST: usize = 6;

/// Invariant: the first `count` slots are filled and never change.
struct Table {
    lock: Lock,
    count: AtomicUsize,
    slots: UnsafeCell<[Option<Handlers>; MOST]>,
}

// SAFETY: slots beyond the count are written under the lock, those before it only read.
unsafe impl Sync for Table {}

static TABLE: Table = Table { lock: Lock::new(), count: AtomicUsize::new(0), slots: UnsafeCell::new([None; MOST]) };

/// Whether the fork that goes on was begun by a process with one thread.
static ALONE: AtomicBool = AtomicBool::new(false);

weak_symbol! { fn single_threaded = "__libc_single_threaded": &'static AtomicBool; }
weak_symbol! { fn lock_streams = "_IO_list_lock": Handler; }
weak_symbol! { fn unlock_streams = "_IO_list_unlock": Handler; }
weak_symbol! { fn reset_streams = "_IO_list_resetlock": Handler; }

/// Registers handlers: `prepare` runs before a fork (latest registered first), `parent` and `child` after it (earliest
/// first), none of them while the process has one thread. False when the system has no memory for them.
pub fn register(prepare: Handler, parent: Handler, child: Handler) -> bool {
    if cfg!(miri) {
        return true;
    }
    let guard = TABLE.lock.lock();
    let count = TABLE.count.load(Ordering::Relaxed);
    if count == MOST {
        return false;
    }
    // SAFETY: a slot beyond the count, under the lock.
    unsafe { (*TABLE.slots.get())[count] = Some(Handlers { prepare, parent, child }) };
    TABLE.count.store(count + 1, Ordering::Release);
    drop(guard); // libc may allocate, and what serves that may register handlers
    // SAFETY: the handlers are functions for good.
    count > 0 || unsafe { libc::pthread_atfork(Some(before), Some(after), Some(in_child)) == 0 }
}

/// The handlers, earliest first.
fn registered() -> impl DoubleEndedIterator<Item = Handlers> {
    let count = TABLE.count.load(Ordering::Acquire);
    // SAFETY: slots before the count do not change.
    (0..count).filter_map(|at| unsafe { (*TABLE.slots.get())[at] })
}

unsafe extern "C" fn before() {
    let alone = single_threaded().is_some_and(|flag| flag.load(Ordering::Relaxed));
    ALONE.store(alone, Ordering::Relaxed);
    if alone {
        return;
    }
    // SAFETY: libc's own functions, in the order that its fork uses them in; the lock may be taken again by its holder.
    // The handlers are called where fork calls them.
    unsafe {
        if let Some(lock_streams) = lock_streams() {
            lock_streams();
        }
        registered().rev().for_each(|handlers| (handlers.prepare)());
    }
}

unsafe extern "C" fn after() {
    if !ALONE.load(Ordering::Relaxed) {
        // SAFETY: as above; this thread has taken the lock.
        unsafe {
            registered().for_each(|handlers| (handlers.parent)());
            if let Some(unlock_streams) = unlock_streams() {
                unlock_streams();
            }
        }
    }
}

unsafe extern "C" fn in_child() {
    if !ALONE.load(Ordering::Relaxed) {
        // SAFETY: as above; in the child this thread is the only one, so the lock is nobody else's.
        unsafe {
            registered().for_each(|handlers| (handlers.child)());
            if let Some(reset_streams) = reset_streams() {
                reset_streams();
            }
        }
    }
}
