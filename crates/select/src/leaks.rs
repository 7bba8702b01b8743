//! What is live and by whom: `ak_leaks_print`, `ak_mark`, `ak_assert_balanced`; and the reports at exit.

use crate::api::{self, Level};
use crate::settings;
use allokit_platform::file::File;
use allokit_platform::stderr::Stderr;
use core::ffi::{CStr, c_char};
use core::fmt::Write;

/// What stands for the tracking layer in a build without it; never reached, since [`unknown`] has a reason then.
#[cfg(not(feature = "track"))]
mod absent {
    pub(super) fn leaks_print() -> usize {
        0
    }
    pub(super) fn mark() {}
    pub(super) fn assert_balanced(_context: &core::ffi::CStr) -> bool {
        true
    }
}
#[cfg(feature = "track")]
use crate::tracked;
#[cfg(not(feature = "track"))]
use absent as tracked;

/// Why nothing is known of live blocks; `None` when something is.
fn unknown() -> Option<&'static str> {
    if !cfg!(feature = "track") {
        Some("this library was built without tracking (ALLOKIT_TRACK=OFF)")
    } else if api::track_get() == Level::Off {
        Some("tracking is off (set ALLOKIT_TRACK=sites before the program starts)")
    } else {
        None
    }
}

/// `ak_leaks_print`
pub fn print() -> usize {
    if let Some(reason) = unknown() {
        let mut out = Stderr::new();
        let _ = writeln!(out, "allokit: leaks are unknown: {reason}");
        return 0;
    }
    tracked::leaks_print()
}

/// `ak_mark`
pub fn mark() {
    if unknown().is_none() {
        tracked::mark();
    }
}

/// `ak_assert_balanced`
///
/// # Safety
/// `context` is null or zero-terminated.
pub unsafe fn assert_balanced(context: *const c_char) -> bool {
    // SAFETY: the caller's promise.
    let context = if context.is_null() { c"assert_balanced" } else { unsafe { CStr::from_ptr(context) } };
    if let Some(reason) = unknown() {
        let mut out = Stderr::new();
        let context = context.to_str().unwrap_or("(not UTF-8)");
        let _ = writeln!(out, "allokit: {context}: balance is unknown: {reason}");
        return true;
    }
    tracked::assert_balanced(context)
}

/// What the environment wants at the end of the process.
pub fn at_exit() {
    let (stats, leaks) = settings::at_exit();
    if let Some((format, path)) = stats {
        match path {
            None => {
                let _ = api::stats_write(format, &mut Stderr::new());
            }
            Some(path) => match File::create(path) {
                Some(mut file) => {
                    let _ = api::stats_write(format, &mut file);
                }
                None => complain_of(path),
            },
        }
    }
    if leaks {
        print();
    }
}

fn complain_of(path: &CStr) {
    let mut out = Stderr::new();
    let path = path.to_str().unwrap_or("(not UTF-8)");
    let _ = writeln!(out, "allokit: ALLOKIT_STATS: cannot write {path}; the statistics are lost");
}
