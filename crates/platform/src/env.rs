//! The environment, read without allocating and never by a set-user-id program.

use core::ffi::CStr;

/// The value of a variable, or `None` when it is unset or the program runs with rights that its user does not have.
/// The text belongs to the environment: a later `setenv` may change it.
#[must_use]
pub fn var(name: &CStr) -> Option<&'static CStr> {
    if is_privileged() {
        return None;
    }
    // SAFETY: `name` is zero-terminated; getenv gives null or a zero-terminated text.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        if value.is_null() { None } else { Some(CStr::from_ptr(value)) }
    }
}

/// Whether the program is set-user-id, set-group-id or has capabilities of its own.
#[must_use]
pub fn is_privileged() -> bool {
    cfg_if::cfg_if! {
        if #[cfg(miri)] {
            false
        } else if #[cfg(any(target_os = "linux", target_os = "android"))] {
            // SAFETY: getauxval has no precondition.
            unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
        } else {
            // SAFETY: no preconditions.
            unsafe { libc::getuid() != libc::geteuid() || libc::getgid() != libc::getegid() }
        }
    }
}
