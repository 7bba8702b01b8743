//! The limit of the process: `ak_limit_set`.
//!
//! What heaps and the native backend take from the system is counted by themselves (`allokit_platform::budget`): no call pays
//! for it. The other backends cannot be told to stop, so there each block is counted, by its usable size, from the moment
//! that there is a limit: `Counting` does that, below the tracking layer and, without tracking, for calls that go by
//! `api::ASKED`. What was live before is counted as far as the backend can tell, and not too low.

#[cfg(all(feature = "track", not(feature = "native")))]
use crate::Selected;
use allokit_platform::{budget, errno};
#[cfg(all(feature = "track", not(feature = "native")))]
use core::sync::atomic::{AtomicBool, Ordering};

/// Whether this build can hold a limit.
const CAN: bool = cfg!(any(feature = "native", feature = "track"));

/// `ak_limit_set`: 0 for none.
pub fn set(bytes: usize) -> bool {
    if !CAN {
        errno::set(errno::ENOTSUP);
        return false;
    }
    budget::set_limit(if bytes == 0 { usize::MAX } else { bytes });
    #[cfg(all(feature = "track", not(feature = "native")))]
    if bytes != 0 && !COUNTS.load(Ordering::Relaxed) {
        start();
        crate::api::ask();
    }
    true
}

/// `ak_limit_get`: 0 for none.
#[must_use]
pub fn get() -> usize {
    if budget::is_limited() { budget::limit() } else { 0 }
}

/// `ak_limit_used`
#[must_use]
pub fn used() -> usize {
    budget::held()
}

/// `ALLOKIT_LIMIT`, before the first allocation; false where this build cannot.
pub(crate) fn set_first(bytes: usize) -> bool {
    if CAN && bytes != 0 {
        budget::set_limit(bytes);
        #[cfg(all(feature = "track", not(feature = "native")))]
        start();
    }
    CAN
}

/// Whether blocks are counted one by one.
#[cfg(feature = "track")]
pub(crate) fn counts() -> bool {
    cfg_if::cfg_if! {
        if #[cfg(feature = "native")] { false } else { COUNTS.load(Ordering::Relaxed) }
    }
}

#[cfg(all(feature = "track", not(feature = "native")))]
static COUNTS: AtomicBool = AtomicBool::new(false);

/// Counts what is live, and each block from here on, for good.
#[cfg(all(feature = "track", not(feature = "native")))]
fn start() {
    use allokit_core::{Backend, Known, Stats};
    if COUNTS.swap(true, Ordering::AcqRel) {
        return;
    }
    let mut stats = Stats::new();
    Selected::stats(&mut stats);
    let live = if stats.known.has(Known::CURRENT_BYTES) { stats.current_bytes } else { stats.committed_bytes };
    budget::charge_at_any_rate(live as usize);
}

#[cfg(all(feature = "track", not(feature = "native")))]
pub(crate) use counting::Counting;

#[cfg(all(feature = "track", not(feature = "native")))]
mod counting {
    use super::COUNTS;
    use allokit_core::{Backend, MAX_SIZE, Others, Stats};
    use allokit_platform::{budget, errno};
    use core::fmt;
    use core::marker::PhantomData;
    use core::ptr;
    use core::sync::atomic::Ordering;

    /// A backend whose blocks count against the limit of the process.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Counting<B>(PhantomData<B>);

    fn is_on() -> bool {
        COUNTS.load(Ordering::Relaxed)
    }

    #[cold]
    fn refused() -> *mut u8 {
        errno::set(errno::ENOMEM);
        ptr::null_mut()
    }

    /// A block of `size` bytes or more, counted, if the limit allows it.
    #[inline]
    fn counted<B: Backend>(size: usize, alloc: impl Fn() -> *mut u8) -> *mut u8 {
        if !is_on() {
            return alloc();
        }
        if size > MAX_SIZE || !charge(size) {
            return refused();
        }
        let block = alloc();
        if block.is_null() {
            budget::refund(size);
            return block;
        }
        // SAFETY: the block is live, and nobody else's yet.
        unsafe {
            let more = B::usable_size(block).saturating_sub(size);
            if more > 0 && !charge(more) {
                B::free(block);
                budget::refund(size);
                return refused();
            }
        }
        block
    }

    fn charge(bytes: usize) -> bool {
        budget::charge(bytes) || budget::relieve() && budget::charge(bytes)
    }

    /// A block that gets another size.
    unsafe fn recounted<B: Backend>(ptr: *mut u8, size: usize, realloc: impl Fn() -> *mut u8) -> *mut u8 {
        if !is_on() {
            return realloc();
        }
        // SAFETY: the caller's block is live.
        let old = unsafe { B::usable_size(ptr) };
        let ahead = size.saturating_sub(old);
        if size > MAX_SIZE || !charge(ahead) {
            return refused();
        }
        let block = realloc();
        if block.is_null() {
            budget::refund(ahead);
            return block;
        }
        // SAFETY: the block is live, and its owner waits for it.
        let new = unsafe { B::usable_size(block) };
        // What it has beyond the request cannot be refused any more.
        match (old + ahead).checked_sub(new) {
            Some(less) => budget::refund(less),
            None => budget::charge_at_any_rate(new - old - ahead),
        }
        block
    }

    // SAFETY: each function is the backend's.
    unsafe impl<B: Backend> Backend for Counting<B> {
        const NAME: &'static str = B::NAME;
        const FREES_NULL: bool = false;

        #[inline]
        fn alloc(size: usize) -> *mut u8 {
            counted::<B>(size, || B::alloc(size))
        }
        fn alloc_zeroed(size: usize) -> *mut u8 {
            counted::<B>(size, || B::alloc_zeroed(size))
        }
        fn alloc_aligned(size: usize, align: usize) -> *mut u8 {
            counted::<B>(size, || B::alloc_aligned(size, align))
        }
        fn alloc_aligned_zeroed(size: usize, align: usize) -> *mut u8 {
            counted::<B>(size, || B::alloc_aligned_zeroed(size, align))
        }
        unsafe fn realloc(ptr: *mut u8, size: usize) -> *mut u8 {
            // SAFETY: the caller's promise.
            unsafe { recounted::<B>(ptr, size, || B::realloc(ptr, size)) }
        }
        unsafe fn realloc_aligned(ptr: *mut u8, size: usize, align: usize) -> *mut u8 {
            // SAFETY: the caller's promise.
            unsafe { recounted::<B>(ptr, size, || B::realloc_aligned(ptr, size, align)) }
        }
        #[inline]
        unsafe fn free(ptr: *mut u8) {
            // SAFETY: the caller's promise.
            unsafe {
                if is_on() {
                    budget::refund(B::usable_size(ptr));
                }
                B::free(ptr);
            }
        }
        #[inline]
        unsafe fn free_sized(ptr: *mut u8, size: usize) {
            // SAFETY: the caller's promise.
            unsafe {
                if is_on() {
                    budget::refund(B::usable_size(ptr));
                }
                B::free_sized(ptr, size);
            }
        }
        unsafe fn usable_size(ptr: *const u8) -> usize {
            // SAFETY: the caller's promise.
            unsafe { B::usable_size(ptr) }
        }
        fn owns(ptr: *const u8) -> Option<bool> {
            B::owns(ptr)
        }
        fn set_others(others: &'static Others) {
            B::set_others(others);
        }
        fn trim() -> bool {
            B::trim()
        }
        fn stats(stats: &mut Stats) {
            B::stats(stats);
        }
        fn write_own_stats(out: &mut dyn fmt::Write) -> fmt::Result {
            B::write_own_stats(out)
        }
    }
}
