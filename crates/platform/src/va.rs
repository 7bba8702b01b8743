//! C's formatted output from Rust, for functions that take a `va_list`.
//!
//! On the targets here a `va_list` reaches the callee as a pointer to a struct of the caller's, which the first use
//! consumes; a copy of the struct is what `va_copy` makes.

use core::ffi::{c_char, c_int, c_void};

/// What a `va_list` argument is: only ever behind a pointer.
#[repr(C)]
#[derive(Debug)]
pub struct VaList {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn vsnprintf(text: *mut c_char, room: usize, format: *const c_char, arguments: *mut c_void) -> c_int;
}

#[cfg(all(target_arch = "x86_64", unix))]
type Words = [u64; 3];
#[cfg(all(target_arch = "aarch64", not(target_vendor = "apple")))]
type Words = [u64; 4];

/// `vsnprintf`, leaving `arguments` as they were.
///
/// # Safety
/// As `vsnprintf`.
pub unsafe fn format(text: *mut c_char, room: usize, format: *const c_char, arguments: *mut VaList) -> c_int {
    #[cfg(any(all(target_arch = "x86_64", unix), all(target_arch = "aarch64", not(target_vendor = "apple"))))]
    // SAFETY: the pointer is that of a struct of this size, by the target's calling convention.
    unsafe {
        let mut copy = arguments.cast::<Words>().read();
        vsnprintf(text, room, format, (&raw mut copy).cast())
    }
    // Elsewhere it is a bare pointer, passed by value.
    #[cfg(not(any(all(target_arch = "x86_64", unix), all(target_arch = "aarch64", not(target_vendor = "apple")))))]
    // SAFETY: the caller's promise.
    unsafe {
        vsnprintf(text, room, format, arguments.cast())
    }
}
