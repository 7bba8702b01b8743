//! `errno`: the failures of the C surface, and keeping it across `free`.

pub use libc::{EBUSY, EINVAL, ENOMEM, ENOTSUP};

cfg_if::cfg_if! {
    if #[cfg(any(target_os = "macos", target_os = "ios", target_os = "freebsd"))] {
        use libc::__error as location;
    } else if #[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))] {
        use libc::__errno as location;
    } else {
        use libc::__errno_location as location;
    }
}

/// The calling thread's `errno`.
#[inline]
#[must_use]
pub fn get() -> i32 {
    // SAFETY: libc gives the address of this thread's errno, valid as long as the thread.
    unsafe { *location() }
}

/// Sets the calling thread's `errno`.
#[inline]
pub fn set(value: i32) {
    // SAFETY: as in `get`.
    unsafe { *location() = value }
}

/// Keeps `errno` as it is now until the value is dropped.
#[derive(Debug)]
pub struct Saved(i32);

impl Saved {
    /// Remembers `errno`.
    #[inline]
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Saved {
        Saved(get())
    }
}

impl Drop for Saved {
    #[inline]
    fn drop(&mut self) {
        set(self.0);
    }
}
