//! A call site: the static record that each macro use owns under `AK_TRACK`.

use core::ffi::c_char;
use core::sync::atomic::{AtomicPtr, AtomicU32};

/// `ak_site_t`, field for field. The texts are zero-terminated and, while the module that holds the record is loaded,
/// valid; the tracker copies them when the site is first used.
#[derive(Debug)]
#[repr(C)]
pub struct Site {
    /// The file, as the compiler's `__FILE__`.
    pub file: *const c_char,
    /// The function; in C++ it is filled in at the first call.
    pub function: AtomicPtr<c_char>,
    /// The line, from 1.
    pub line: u32,
    /// The tracker's number of the site; 0 until it is first used.
    pub id: AtomicU32,
}
