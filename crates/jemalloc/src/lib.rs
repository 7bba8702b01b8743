//! jemalloc as a backend.
//!
//! Owns: [`Jemalloc`]. Uses: the tikv-jemalloc-sys crate. Invariant: every rule of [`Backend`] that jemalloc does not
//! keep by itself is kept here, in the function that needs it, and nowhere else.
//!
//! Blocks of up to 8 bytes come from a class aligned to 8 only, so smaller sizes are raised to 16. The malloc-like
//! functions set `errno`, those with an `x` at the end do not. There is no sized free: `sdallocx` would need the
//! alignment too.
#![no_std]

use allokit_core::{Backend, Known, MIN_ALIGN, Stats};
use allokit_platform::{errno, keep_errno};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::fmt;
use tikv_jemalloc_sys as je;

#[cfg(test)]
extern crate std;

mod info;
#[cfg(test)]
mod tests;

/// jemalloc, version 5.
#[derive(Debug)]
pub struct Jemalloc;

/// `MALLOCX_ALIGN(align)`.
#[inline]
fn align_flag(align: usize) -> c_int {
    align.max(MIN_ALIGN).trailing_zeros() as c_int
}

/// Sets `errno` for the functions that do not.
#[inline]
fn checked(block: *mut c_void) -> *mut u8 {
    if block.is_null() {
        errno::set(errno::ENOMEM);
    }
    block.cast()
}

// SAFETY: jemalloc keeps the contract; what it leaves open is added below.
unsafe impl Backend for Jemalloc {
    const NAME: &'static str = "jemalloc";

    #[inline]
    fn alloc(size: usize) -> *mut u8 {
        // SAFETY: no precondition.
        unsafe { je::malloc(size.max(MIN_ALIGN)) }.cast()
    }

    #[inline]
    fn alloc_zeroed(size: usize) -> *mut u8 {
        // SAFETY: no precondition.
        unsafe { je::calloc(1, size.max(MIN_ALIGN)) }.cast()
    }

    fn alloc_aligned(size: usize, align: usize) -> *mut u8 {
        debug_assert!(allokit_core::is_valid_align(align));
        // SAFETY: the size is not 0.
        checked(unsafe { je::mallocx(size.max(MIN_ALIGN), align_flag(align)) })
    }

    fn alloc_aligned_zeroed(size: usize, align: usize) -> *mut u8 {
        debug_assert!(allokit_core::is_valid_align(align));
        // SAFETY: the size is not 0.
        checked(unsafe { je::mallocx(size.max(MIN_ALIGN), align_flag(align) | je::MALLOCX_ZERO) })
    }

    #[inline]
    unsafe fn realloc(ptr: *mut u8, size: usize) -> *mut u8 {
        // SAFETY: the caller's block is jemalloc's.
        unsafe { je::realloc(ptr.cast(), size.max(MIN_ALIGN)) }.cast()
    }

    unsafe fn realloc_aligned(ptr: *mut u8, size: usize, align: usize) -> *mut u8 {
        // SAFETY: the caller's block is jemalloc's and the size is not 0.
        checked(unsafe { je::rallocx(ptr.cast(), size.max(MIN_ALIGN), align_flag(align)) })
    }

    #[inline]
    unsafe fn free(ptr: *mut u8) {
        // SAFETY: the caller's block is jemalloc's.
        keep_errno(|| unsafe { je::free(ptr.cast()) });
    }

    #[inline]
    unsafe fn usable_size(ptr: *const u8) -> usize {
        // SAFETY: the caller's block is jemalloc's.
        unsafe { je::malloc_usable_size(ptr.cast()) }
    }

    fn trim() -> bool {
        // 4096: all arenas.
        let name = c"arena.4096.purge";
        // SAFETY: a control without a value; the name is zero-terminated.
        unsafe {
            je::mallctl(name.as_ptr(), core::ptr::null_mut(), core::ptr::null_mut(), core::ptr::null_mut(), 0) == 0
        }
    }

    fn stats(stats: &mut Stats) {
        let Some(info) = info::read() else { return };
        stats.current_bytes = info.allocated;
        stats.committed_bytes = info.committed;
        stats.reserved_bytes = info.reserved;
        stats.known |= Known::CURRENT_BYTES | Known::COMMITTED_BYTES | Known::RESERVED_BYTES;
    }

    fn write_own_stats(out: &mut dyn fmt::Write) -> fmt::Result {
        unsafe extern "C" fn write(arg: *mut c_void, text: *const c_char) {
            // SAFETY: jemalloc hands a zero-terminated text and the argument that it was given below.
            unsafe {
                let sink = &mut *arg.cast::<Sink<'_>>();
                if sink.result.is_ok() {
                    sink.result = sink.out.write_str(CStr::from_ptr(text).to_str().unwrap_or("?"));
                }
            }
        }
        struct Sink<'a> {
            out: &'a mut dyn fmt::Write,
            result: fmt::Result,
        }
        let mut sink = Sink { out, result: Ok(()) };
        // g, m, d, b, l, x: leave out the settings, the merged and each arena's figures, bins, large classes and mutexes;
        // what remains is the summary of the whole process.
        let options = c"gdablx";
        // SAFETY: the sink outlives the call; the options are zero-terminated.
        unsafe { je::malloc_stats_print(Some(write), (&raw mut sink).cast(), options.as_ptr()) };
        sink.result
    }
}
