//! mimalloc as a backend.
//!
//! Owns: [`Mimalloc`]. Uses: the libmimalloc-sys crate. Invariant: every rule of [`Backend`] that mimalloc does not keep
//! by itself is kept here, in the function that needs it, and nowhere else.
//!
//! Blocks of up to 8 bytes come from a class aligned to 8 only, so smaller sizes are raised to 16. mimalloc does not set
//! `errno`, but calls an error handler on every failure: the handler sets it, so that `alloc` stays a jump.
#![no_std]

use allokit_core::{Backend, Known, MIN_ALIGN, Stats};
use allokit_platform::{errno, keep_errno};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::fmt;
use libmimalloc_sys as mi;

#[cfg(test)]
extern crate std;

mod info;
#[cfg(test)]
mod tests;

/// mimalloc, version 3.
#[derive(Debug)]
pub struct Mimalloc;

/// Installs the error handler. To be called before the first allocation; may be called again.
pub fn init() {
    // SAFETY: the handler is a function for good and needs no argument.
    unsafe { mi::mi_register_error(Some(on_error), core::ptr::null_mut()) };
}

/// Called by mimalloc when a request fails, always as the last thing before it returns null. (In `free`, where it could
/// be called for a corrupted heap, `errno` is restored afterwards.)
unsafe extern "C" fn on_error(_code: c_int, _arg: *mut c_void) {
    errno::set(errno::ENOMEM);
}

// SAFETY: mimalloc keeps the contract; what it leaves open is added below.
unsafe impl Backend for Mimalloc {
    const NAME: &'static str = "mimalloc";

    #[inline]
    fn alloc(size: usize) -> *mut u8 {
        // SAFETY: no precondition.
        unsafe { mi::mi_malloc(size.max(MIN_ALIGN)) }.cast()
    }

    #[inline]
    fn alloc_zeroed(size: usize) -> *mut u8 {
        // SAFETY: no precondition.
        unsafe { mi::mi_zalloc(size.max(MIN_ALIGN)) }.cast()
    }

    fn alloc_aligned(size: usize, align: usize) -> *mut u8 {
        debug_assert!(allokit_core::is_valid_align(align));
        // SAFETY: no precondition.
        unsafe { mi::mi_malloc_aligned(size.max(MIN_ALIGN), align.max(MIN_ALIGN)) }.cast()
    }

    fn alloc_aligned_zeroed(size: usize, align: usize) -> *mut u8 {
        debug_assert!(allokit_core::is_valid_align(align));
        // SAFETY: no precondition.
        unsafe { mi::mi_zalloc_aligned(size.max(MIN_ALIGN), align.max(MIN_ALIGN)) }.cast()
    }

    #[inline]
    unsafe fn realloc(ptr: *mut u8, size: usize) -> *mut u8 {
        // SAFETY: the caller's block is mimalloc's.
        unsafe { mi::mi_realloc(ptr.cast(), size.max(MIN_ALIGN)) }.cast()
    }

    unsafe fn realloc_aligned(ptr: *mut u8, size: usize, align: usize) -> *mut u8 {
        // SAFETY: the caller's block is mimalloc's.
        unsafe { mi::mi_realloc_aligned(ptr.cast(), size.max(MIN_ALIGN), align.max(MIN_ALIGN)) }.cast()
    }

    #[inline]
    unsafe fn free(ptr: *mut u8) {
        // SAFETY: the caller's block is mimalloc's.
        keep_errno(|| unsafe { mi::mi_free(ptr.cast()) });
    }

    #[inline]
    unsafe fn usable_size(ptr: *const u8) -> usize {
        // SAFETY: the caller's block is mimalloc's.
        unsafe { mi::mi_usable_size(ptr.cast()) }
    }

    fn trim() -> bool {
        // SAFETY: no precondition.
        unsafe { mi::mi_collect(true) };
        true
    }

    fn stats(stats: &mut Stats) {
        let Some(info) = info::read() else { return };
        stats.reserved_bytes = info.reserved.current();
        stats.committed_bytes = info.committed.current();
        stats.mapped_peak_bytes = info.committed.peak();
        stats.threads = info.threads.current();
        stats.known |= Known::RESERVED_BYTES | Known::COMMITTED_BYTES | Known::MAPPED_PEAK_BYTES | Known::THREADS;
    }

    fn write_own_stats(out: &mut dyn fmt::Write) -> fmt::Result {
        unsafe extern "C" fn write(text: *const c_char, arg: *mut c_void) {
            // SAFETY: mimalloc hands a zero-terminated text and the argument that it was given below.
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
        // SAFETY: the sink outlives the call.
        unsafe { mi::mi_stats_print_out(Some(write), (&raw mut sink).cast()) };
        sink.result
    }
}
