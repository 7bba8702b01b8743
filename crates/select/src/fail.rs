//! The C rules of rehearsed failure: what a build without tracking answers, and errors. The rest is `rehearse`'s.

use allokit_heap::Raw;
use allokit_platform::errno;
use core::ffi::{c_char, c_void};

/// `ak_fail_filter_t`
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[allow(missing_docs)] // alloc.h says
pub struct FailFilter {
    pub struct_size: usize,
    pub file: *const c_char,
    pub function: *const c_char,
    pub line: u32,
    pub reserved: u32,
    pub address: *const c_void,
    pub heap: *mut Raw,
    pub min_size: usize,
    pub max_size: usize,
    pub times: u64,
}

fn refused(error: i32) -> bool {
    errno::set(error);
    false
}

#[cfg(feature = "track")]
use crate::rehearse;

/// `ak_fail_nth`
pub fn nth(n: u64) -> bool {
    #[cfg(feature = "track")]
    {
        rehearse::fail_nth(n);
        true
    }
    #[cfg(not(feature = "track"))]
    {
        n == 0 || refused(errno::ENOTSUP)
    }
}

/// `ak_fail_rate`
pub fn rate(per_million: u32, seed: u64) -> bool {
    if per_million > 1_000_000 {
        return refused(errno::EINVAL);
    }
    #[cfg(feature = "track")]
    {
        rehearse::fail_rate(per_million, seed);
        true
    }
    #[cfg(not(feature = "track"))]
    {
        let _ = seed;
        per_million == 0 || refused(errno::ENOTSUP)
    }
}

/// `ak_fail_only`
///
/// # Safety
/// The texts are null or zero-terminated.
pub unsafe fn only(filter: Option<&FailFilter>) -> bool {
    #[cfg(feature = "track")]
    {
        // SAFETY: the caller's promise.
        unsafe { rehearse::fail_only(filter) || refused(errno::EINVAL) }
    }
    #[cfg(not(feature = "track"))]
    {
        filter.is_none() || refused(errno::ENOTSUP)
    }
}

/// `ak_fail_seen`
#[must_use]
pub fn seen() -> u64 {
    cfg_if::cfg_if! {
        if #[cfg(feature = "track")] { rehearse::seen() } else { 0 }
    }
}

/// `ak_fail_count`
#[must_use]
pub fn count() -> u64 {
    cfg_if::cfg_if! {
        if #[cfg(feature = "track")] { rehearse::count() } else { 0 }
    }
}
