//! Pointers that the table does not know: guarded samples, and what is no block of ours: whose they may be, and who frees
//! them then.
//!
//! Where this allocator takes the place of libc's, a block of libc's own may still come here, from a library that was
//! bound to libc directly. Whoever makes such a library says with `Backend::set_others` what is to be done with it. A pointer
//! into memory of ours is never handed on.

use crate::sync::{AtomicPtr, Ordering};
use crate::table::{self, Word};
use crate::{invalid, runs, sampled, tagged};
use allokit_core::Others;
use core::ptr;

static OTHERS: AtomicPtr<Others> = AtomicPtr::new(ptr::null_mut());

/// Has pointers of others handed to them from now on; without this, they end the program.
pub(crate) fn set_others(others: &'static Others) {
    OTHERS.store(ptr::from_ref(others).cast_mut(), Ordering::Release);
}

/// Whether `ptr` lies in memory of ours, in use or not.
pub(crate) fn owns(ptr: *const u8) -> bool {
    table::word(ptr.addr()) != Word::NONE || runs::holds(ptr.addr()) || sampled::holds(ptr.addr())
}

/// Those who take `ptr`, or the end of the program.
fn others(ptr: *const u8, what: &str) -> &'static Others {
    let others = OTHERS.load(Ordering::Acquire);
    // SAFETY: null, or `set_others` was given it for good.
    match unsafe { others.as_ref() } {
        Some(others) if others.know_their_own || !owns(ptr) => others,
        _ => invalid(ptr, what),
    }
}

/// A free of a pointer that no word of the table knows; null is allowed, so that callers need no test for it.
///
/// # Safety
/// The caller gives the block up.
#[cold]
#[inline(never)]
pub(crate) unsafe extern "C" fn free(ptr: *mut u8) {
    if sampled::holds(ptr.addr()) {
        // SAFETY: the caller's promise.
        unsafe { free_sampled(ptr) };
    } else if !ptr.is_null() {
        // SAFETY: the caller's promise; it is no block of ours.
        unsafe { (others(ptr, "free").free)(ptr) }
    }
}

/// # Safety
/// As [`sampled::free`].
#[cold]
#[inline(never)]
unsafe fn free_sampled(ptr: *mut u8) {
    // SAFETY: the caller's promise.
    if let Some(block) = unsafe { sampled::free(ptr, 0) } {
        tagged::count_free(&block);
    }
}

/// # Safety
/// As [`allokit_core::Backend::realloc`], for a block of somebody else.
#[cold]
pub(crate) unsafe fn realloc(ptr: *mut u8, size: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe {
        if sampled::holds(ptr.addr()) {
            return sampled::realloc(ptr, size);
        }
        (others(ptr, "realloc").realloc)(ptr, size)
    }
}

/// # Safety
/// As [`allokit_core::Backend::usable_size`], for a block of somebody else.
#[cold]
pub(crate) unsafe fn usable_size(ptr: *const u8) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        if sampled::holds(ptr.addr()) {
            return sampled::usable_size(ptr);
        }
        (others(ptr, "usable size").usable_size)(ptr)
    }
}
