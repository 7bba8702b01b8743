//! The C library's allocator as a backend.
//!
//! Owns: [`System`]. Uses: libc. Invariant: every rule of [`Backend`] that libc does not keep by itself is kept here, in
//! the function that needs it, and nowhere else.
//!
//! libc aligns to 16 bytes on 64-bit systems, gives unique blocks for size 0, refuses more than `PTRDIFF_MAX` and sets
//! `errno`; only older ones change `errno` in `free`.
#![no_std]

use allokit_core::{Backend, Known, MIN_ALIGN, Stats};
use allokit_platform::{errno, keep_errno};
use core::fmt;

#[cfg(test)]
extern crate std;

mod info;
#[cfg(test)]
mod tests;

/// The C library's `malloc`.
#[derive(Debug)]
pub struct System;

// SAFETY: malloc and its family keep the contract; what they leave open is added below.
unsafe impl Backend for System {
    const NAME: &'static str = "system";

    #[inline]
    fn alloc(size: usize) -> *mut u8 {
        // SAFETY: no precondition.
        unsafe { libc::malloc(size) }.cast()
    }

    #[inline]
    fn alloc_zeroed(size: usize) -> *mut u8 {
        // SAFETY: no precondition.
        unsafe { libc::calloc(1, size) }.cast()
    }

    fn alloc_aligned(size: usize, align: usize) -> *mut u8 {
        debug_assert!(allokit_core::is_valid_align(align));
        let mut block = core::ptr::null_mut();
        // SAFETY: `block` is valid for writing and the alignment is a power of two of at least a pointer's size.
        let error = unsafe { libc::posix_memalign(&raw mut block, align.max(MIN_ALIGN), size) };
        if error != 0 {
            errno::set(errno::ENOMEM);
            return core::ptr::null_mut();
        }
        block.cast()
    }

    #[inline]
    unsafe fn realloc(ptr: *mut u8, size: usize) -> *mut u8 {
        // SAFETY: the caller's block came from malloc's family.
        unsafe { libc::realloc(ptr.cast(), size) }.cast()
    }

    #[inline]
    unsafe fn free(ptr: *mut u8) {
        // SAFETY: the caller's block came from malloc's family.
        keep_errno(|| unsafe { libc::free(ptr.cast()) });
    }

    #[inline]
    unsafe fn usable_size(ptr: *const u8) -> usize {
        // SAFETY: the caller's block came from malloc's family.
        unsafe { info::usable_size(ptr) }
    }

    fn stats(stats: &mut Stats) {
        let Some(info) = info::read() else { return };
        stats.current_bytes = info.allocated();
        stats.committed_bytes = info.held();
        stats.known |= Known::CURRENT_BYTES | Known::COMMITTED_BYTES;
    }

    fn write_own_stats(out: &mut dyn fmt::Write) -> fmt::Result {
        match info::read() {
            Some(info) => info.write(out),
            None => Ok(()),
        }
    }
}
