//! What must happen by time: whoever is awake gives back memory that nobody wanted for a while, and sorts in the frees
//! that wait in heaps whose threads sleep. Called from slow paths; costs a look at the clock.

use crate::sync::{AtomicU16, AtomicU64, Lock, Ordering};
use crate::{heap, runs};
use allokit_platform::{clock, keep_errno};

/// A free run is given back when it was not wanted for this long.
const KEEP_MS: u64 = 500;
/// At most this often somebody looks.
const EVERY_MS: u64 = 100;

/// The same in looks, for cached runs and for the free blocks of a page.
const KEEP_LOOKS: u16 = (KEEP_MS / EVERY_MS) as u16;

/// How many stretches of pages are given back at a look.
const THIN_MOST: usize = 512;

static NEXT: AtomicU64 = AtomicU64::new(0);
/// Counts the looks; wraps.
static EPOCH: AtomicU16 = AtomicU16::new(0);
/// Held by whoever empties caches: one at a time.
static RELEASING: Lock = Lock::new();

/// The number of the last look: a clock that costs one load.
#[inline(always)]
pub(crate) fn epoch() -> u16 {
    EPOCH.load(Ordering::Relaxed)
}

/// Does what is due, and gives the time in ms. No lock may be held.
#[inline]
pub(crate) fn tick() -> u64 {
    let now = clock::now_ms();
    let due = NEXT.load(Ordering::Relaxed);
    if now >= due && NEXT.compare_exchange(due, now + EVERY_MS, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        work(now);
    }
    now
}

#[cold]
fn work(now: u64) {
    keep_errno(|| {
        EPOCH.fetch_add(1, Ordering::Relaxed);
        heap::for_each(heap::drain_other);
        thin_out(KEEP_LOOKS);
        release_cached(KEEP_LOOKS);
        if runs::dirty_bytes() > 0 {
            runs::purge_older(now.saturating_sub(KEEP_MS));
        }
    });
}

/// Gives back the memory of free blocks in pages that nothing happened to for so many looks.
fn thin_out(looks: u16) {
    let mut left = THIN_MOST;
    heap::for_each(|heap| left = heap::thin_out(heap, looks, left));
}

/// Empties the caches of large runs of what lies there since so many looks.
fn release_cached(looks: u16) {
    let _one = RELEASING.lock();
    // SAFETY: heaps live for good.
    heap::for_each(|heap| unsafe { (*heap).cache.release_older(looks) });
}

/// The lock that is taken before all others, for fork.
pub(crate) fn lock() -> &'static Lock {
    &RELEASING
}

/// All at once.
pub(crate) fn trim() {
    heap::release_own();
    // Twice: what comes out of the bins of a heap without a thread may be another heap's.
    for _ in 0..2 {
        heap::for_each(heap::drain_other);
        thin_out(0);
    }
    release_cached(0);
    runs::purge_older(u64::MAX);
}
