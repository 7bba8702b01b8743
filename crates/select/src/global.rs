//! Allokit as the allocator of a Rust program.

use crate::api::{self, Plain, Source};
use core::alloc::{GlobalAlloc, Layout};

/// `#[global_allocator] static ALLOC: Allokit = Allokit;`
///
/// With tracking on (`ALLOKIT_TRACK=sites`), blocks have no call site of their own: they are counted together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allokit;

/// Calls `run` with the source that the mode says.
macro_rules! with_source {
    ($source:ident => $run:expr) => {
        match api::mode() {
            #[cfg(feature = "track")]
            api::TRACKED.. => {
                let $source = api::Origin::Caller(0);
                $run
            }
            _ => {
                let $source = Plain;
                $run
            }
        }
    };
}

// SAFETY: the backend keeps GlobalAlloc's contract: sizes up to isize::MAX (which Layout guarantees), blocks live until
// they are freed, no unwinding. Alignments over 1 GiB are refused with null, as the contract allows.
unsafe impl GlobalAlloc for Allokit {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        with_source!(source => api::alloc_aligned(source, layout.size(), layout.align()))
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        with_source!(source => api::calloc_aligned(source, 1, layout.size(), layout.align()))
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise: a live block of ours, of this size.
        with_source!(source => unsafe { source.free_sized(ptr, layout.size()) })
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise: a live block of ours; `size` is not 0.
        with_source!(source => unsafe {
            if layout.align() <= allokit_core::MIN_ALIGN {
                source.realloc(ptr, size)
            } else {
                source.realloc_aligned(ptr, size, layout.align())
            }
        })
    }
}
