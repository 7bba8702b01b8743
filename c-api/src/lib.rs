//! The C library: what `include/alloc.h` declares, one line each over `allokit_select::api`.
//!
//! Owns: the exported names, nothing else. `exports.txt` lists them. Each allocating function exists three times: plain
//! (attributed to its caller's return address when tracking is on), `_at` (file and line) and `_site` (a macro's record).
#![no_std]
#![cfg_attr(test, allow(dead_code))] // a test program has no load and exit hooks
#![allow(clippy::missing_safety_doc)] // alloc.h says what each function wants

#[macro_use]
mod arena;
mod heap;

pub use arena::*;
pub use heap::*;

use allokit_core::{Backend, FaultKind, Site, Stats};
use allokit_platform::handler::{self, Handler};
#[cfg(feature = "track")]
use allokit_platform::unwind::Here;
use allokit_platform::{errno, stderr::Stderr, symbol};
use allokit_report::{Format, fault};
#[cfg(feature = "track")]
use allokit_select::Kinded;
use allokit_select::api::{self, Plain};
#[cfg(feature = "track")]
use allokit_select::api::{Kind, Origin};
use allokit_select::fail::{self, FailFilter};
use allokit_select::{Selected, leaks, limit, sampled, settings};
use core::ffi::{CStr, c_char, c_void};
use core::fmt;

#[cfg(not(any(test, allokit_rust_library)))]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    use core::fmt::Write;
    let mut out = Stderr::new();
    let _ = writeln!(out, "allokit: internal error, please report it: {info}");
    out.flush();
    allokit_platform::abort()
}

// core was built to unwind and names this function; nothing here unwinds. Hidden, so that no other Rust library in the
// program meets it.
#[cfg(all(not(any(test, allokit_rust_library)), target_os = "linux"))]
core::arch::global_asm!(".weak rust_eh_personality", ".hidden rust_eh_personality", "rust_eh_personality:");

/// What `include/allokit/inline.h` finds where the backend is not native: a heap whose bins are empty for good, so that
/// each call comes here. An object compiled for the one may be linked with the other.
#[cfg(not(any(feature = "native", test, allokit_rust_library)))]
mod inline {
    /// 73 bins, the table's address and 73 lists, as there.
    const WORDS: usize = 73 * 2 + 1 + 73;

    #[repr(C, align(16))]
    pub(crate) struct Empty([usize; WORDS]);

    static EMPTY: Empty = Empty([0; WORDS]);

    allokit_platform::thread_cell! { pub(crate) static INLINE: *mut Empty = EMPTY; }
    allokit_platform::name_thread_cell! { INLINE = "ak_inline_2_needs_a_static_library_of_this_header" }
}

// Nothing else names libc, and the shared library must.
#[cfg(not(test))]
#[link(name = "c")]
unsafe extern "C" {}

extern "C" fn at_load() {
    if !serves() {
        return;
    }
    settings::read_environment();
    api::prepare();
    leaks::listen();
}

extern "C" fn at_exit() {
    if serves() {
        api::at_exit();
        leaks::at_exit();
    }
}

/// Whether this copy of the library is the one that the process calls. Two shared objects may each hold the static
/// library; the loader binds the public names of both to the first one's, and the second must keep quiet: it would warn
/// about the environment, and report at exit on an allocator that served nobody.
fn serves() -> bool {
    static BOUND: symbol::Bound<1> = symbol::Bound([ak_backend_name as *const c_void]);
    BOUND.is_here()
}

allokit_platform::at_load!(at_load);
allokit_platform::at_exit!(at_exit);

/// The exported entry: with tracking built in, a test of the mode; without it, the plain function.
#[cfg(feature = "track")]
macro_rules! plain_entry {
    ($count:tt $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?) => {
        allokit_platform::entry! {
            $count,
            #[doc = concat!("See `", stringify!($name), "` in alloc.h.")]
            pub fn $name($($arg: $type),*) $(-> $result)?;
            mode = api::MODE, plain = plain, slow = slow;
        }
    };
}

/// The two hot functions, where the backend can serve them without knowing the mode: a try at what is at hand, then the
/// long way. No stack frame: tests/instr counts the instructions.
#[cfg(feature = "native")]
macro_rules! quick_entry {
    (ak_alloc, $size:ident) => {{
        let block = if api::GUARD { core::ptr::null_mut() } else { Selected::alloc_at_hand($size) };
        if !block.is_null() {
            return block.cast();
        }
    }};
    (ak_free, $ptr:ident) => {
        // SAFETY: the C caller's promise.
        if !api::GUARD && unsafe { Selected::free_at_hand($ptr.cast()) } {
            return;
        }
    };
}

#[cfg(all(feature = "track", feature = "native"))]
macro_rules! at_hand_entry {
    ($name:ident($arg:ident: $type:ty) $(-> $result:ty)?) => {
        allokit_platform::slow_entry! { 1, fn long_way($arg: $type) $(-> $result)?; slow = slow; }

        #[doc = concat!("See `", stringify!($name), "` in alloc.h.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($arg: $type) $(-> $result)? {
            quick_entry!($name, $arg);
            // SAFETY: the C caller's promise.
            unsafe { long_way($arg) }
        }
    };
}

#[cfg(all(not(feature = "track"), feature = "native"))]
macro_rules! at_hand_entry {
    ($name:ident($arg:ident: $type:ty) $(-> $result:ty)?) => {
        #[inline(never)]
        unsafe extern "C" fn long_way($arg: $type) $(-> $result)? {
            // SAFETY: the C caller's promise.
            unsafe { plain($arg) }
        }

        #[doc = concat!("See `", stringify!($name), "` in alloc.h.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($arg: $type) $(-> $result)? {
            quick_entry!($name, $arg);
            // SAFETY: the C caller's promise.
            unsafe { long_way($arg) }
        }
    };
}

#[cfg(not(feature = "native"))]
macro_rules! at_hand_entry {
    ($name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?) => {
        plain_entry! { 1 $name($($arg: $type),*) $(-> $result)? }
    };
}

/// Leaves a `hot` function that has a site with what the backend has at hand.
#[cfg(all(feature = "track", feature = "native"))]
macro_rules! plain_at_hand {
    (hot $name:ident, $site:ident, $arg:ident) => {
        quick_entry!($name, $arg);
        // SAFETY: the C caller's promise.
        return unsafe { slow_site($arg, $site) }
    };
    ($count:tt $name:ident, $site:ident $(, $arg:ident)*) => {};
}

/// Leaves a `hot` function with what the tracking layer has at hand.
#[cfg(feature = "track")]
macro_rules! tracked_at_hand {
    (hot ak_alloc, $origin:expr, $size:ident) => {
        let block = $origin.alloc_at_hand($size);
        if !block.is_null() {
            return block.cast();
        }
    };
    (hot ak_free, $origin:expr, $ptr:ident) => {
        // SAFETY: the C caller's promise.
        if unsafe { $origin.free_at_hand($ptr.cast()) } {
            return;
        }
    };
    ($count:tt $name:ident, $origin:expr $(, $arg:ident)*) => {};
}

/// `hot` functions serve from what is at hand where the backend has that; the others have the number of arguments.
macro_rules! public_entry {
    (hot $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?) => {
        at_hand_entry! { $name($($arg: $type),*) $(-> $result)? }
    };
    ($count:tt $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?) => {
        plain_entry! { $count $name($($arg: $type),*) $(-> $result)? }
    };
}

#[cfg(not(feature = "track"))]
macro_rules! plain_entry {
    ($count:tt $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?) => {
        #[doc = concat!("See `", stringify!($name), "` in alloc.h.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) $(-> $result)? {
            // SAFETY: the C caller's promise.
            unsafe { plain($($arg),*) }
        }
    };
}

/// Defines the three forms of a function; the body is written once and made for each source.
macro_rules! general {
    ($($count:tt $name:ident $at:ident $site:ident = |$source:ident $(, $arg:ident: $type:ty)*| $(-> $result:ty)? $body:block)*) => {$(
        #[doc(hidden)]
        pub mod $name {
            use super::*;

            #[inline]
            unsafe extern "C" fn plain($($arg: $type),*) $(-> $result)? {
                let $source = Plain;
                // SAFETY: the C caller's promise.
                #[allow(unused_unsafe)]
                unsafe { $body }
            }

            /// Decides the mode if it is not decided yet.
            #[cfg(feature = "track")]
            #[inline(always)]
            unsafe fn not_plain(origin: Origin, here: Here, $($arg: $type),*) $(-> $result)? {
                if api::way() != api::PLAIN {
                    let $source = Kinded(origin, Kind::Malloc, here);
                    // SAFETY: the C caller's promise.
                    #[allow(unused_unsafe)]
                    return unsafe { $body };
                }
                // SAFETY: the C caller's promise.
                unsafe { plain($($arg),*) }
            }

            // Functions of their own, so that the plain side of the entries, and what is at hand, need no stack frame.
            #[cfg(feature = "track")]
            #[inline(never)]
            unsafe extern "C" fn slow($($arg: $type,)* caller: usize) $(-> $result)? {
                tracked_at_hand!($count $name, Origin::Caller(caller) $(, $arg)*);
                // SAFETY: the C caller's promise.
                unsafe { slow_caller($($arg,)* caller) }
            }

            #[cfg(feature = "track")]
            allokit_platform::framed_entry! {
                fn slow_caller($($arg: $type,)* caller: usize) $(-> $result)?; slow = from_caller;
            }

            #[cfg(feature = "track")]
            allokit_platform::framed_entry! {
                fn slow_at($($arg: $type,)* file: *const c_char, line: u32) $(-> $result)?; slow = from_place;
            }

            #[cfg(feature = "track")]
            allokit_platform::framed_entry! {
                fn slow_site($($arg: $type,)* site: *mut Site) $(-> $result)?; slow = from_site;
            }

            #[cfg(feature = "track")]
            unsafe extern "C" fn from_caller($($arg: $type,)* caller: usize, sp: f64, fp: f64) $(-> $result)? {
                // SAFETY: the C caller's promise.
                unsafe { not_plain(Origin::Caller(caller), Here::new(sp, fp), $($arg),*) }
            }

            #[cfg(feature = "track")]
            unsafe extern "C" fn from_place(
                $($arg: $type,)* file: *const c_char, line: u32, sp: f64, fp: f64
            ) $(-> $result)? {
                // SAFETY: the C caller's promise.
                unsafe { not_plain(Origin::At(file, line), Here::new(sp, fp), $($arg),*) }
            }

            #[cfg(feature = "track")]
            unsafe extern "C" fn from_site($($arg: $type,)* site: *mut Site, sp: f64, fp: f64) $(-> $result)? {
                // SAFETY: the C caller's promise.
                unsafe { not_plain(Origin::Site(site), Here::new(sp, fp), $($arg),*) }
            }

            public_entry! { $count $name($($arg: $type),*) $(-> $result)? }

            #[doc = concat!("See `", stringify!($at), "` in alloc.h.")]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $at($($arg: $type,)* file: *const c_char, line: u32) $(-> $result)? {
                #[cfg(feature = "track")]
                if !api::is_plain() {
                    // SAFETY: the C caller's promise.
                    return unsafe { slow_at($($arg,)* file, line) };
                }
                let _ = (file, line);
                // SAFETY: the C caller's promise.
                unsafe { plain($($arg),*) }
            }

            #[doc = concat!("See `", stringify!($site), "` in alloc.h.")]
            #[unsafe(no_mangle)]
            #[allow(unreachable_code)] // what is at hand has an end of its own
            pub unsafe extern "C" fn $site($($arg: $type,)* site: *mut Site) $(-> $result)? {
                #[cfg(feature = "track")]
                if !api::is_plain() {
                    if api::is_tracked() {
                        tracked_at_hand!($count $name, Origin::Site(site) $(, $arg)*);
                    }
                    // SAFETY: the C caller's promise.
                    return unsafe { slow_site($($arg,)* site) };
                }
                #[cfg(all(feature = "track", feature = "native"))]
                plain_at_hand!($count $name, site $(, $arg)*);
                let _ = site;
                // SAFETY: the C caller's promise.
                unsafe { plain($($arg),*) }
            }
        }
        pub use $name::*;
    )*};
}

general! {
    hot ak_alloc ak_alloc_at ak_alloc_site
        = |s, size: usize| -> *mut c_void { api::alloc(s, size).cast() }
    2 ak_calloc ak_calloc_at ak_calloc_site
        = |s, count: usize, size: usize| -> *mut c_void { api::calloc(s, count, size).cast() }
    2 ak_alloc_aligned ak_alloc_aligned_at ak_alloc_aligned_site
        = |s, size: usize, alignment: usize| -> *mut c_void { api::alloc_aligned(s, size, alignment).cast() }
    3 ak_calloc_aligned ak_calloc_aligned_at ak_calloc_aligned_site
        = |s, count: usize, size: usize, alignment: usize| -> *mut c_void {
            api::calloc_aligned(s, count, size, alignment).cast()
        }
    2 ak_realloc ak_realloc_at ak_realloc_site
        = |s, ptr: *mut c_void, size: usize| -> *mut c_void { api::realloc(s, ptr.cast(), size).cast() }
    3 ak_reallocarray ak_reallocarray_at ak_reallocarray_site
        = |s, ptr: *mut c_void, count: usize, size: usize| -> *mut c_void {
            api::reallocarray(s, ptr.cast(), count, size).cast()
        }
    4 ak_reallocarray_aligned ak_reallocarray_aligned_at ak_reallocarray_aligned_site
        = |s, ptr: *mut c_void, count: usize, size: usize, alignment: usize| -> *mut c_void {
            api::reallocarray_aligned(s, ptr.cast(), count, size, alignment).cast()
        }
    hot ak_free ak_free_at ak_free_site
        = |s, ptr: *mut c_void| { api::free(s, ptr.cast()) }
    2 ak_free_sized ak_free_sized_at ak_free_sized_site
        = |s, ptr: *mut c_void, size: usize| { api::free_sized(s, ptr.cast(), size) }
    1 ak_usable_size ak_usable_size_at ak_usable_size_site
        = |s, ptr: *const c_void| -> usize { api::usable_size(s, ptr.cast()) }
    1 ak_strdup ak_strdup_at ak_strdup_site
        = |s, text: *const c_char| -> *mut c_char { api::strdup(s, text) }
    2 ak_strndup ak_strndup_at ak_strndup_site
        = |s, text: *const c_char, n: usize| -> *mut c_char { api::strndup(s, text, n) }
    2 ak_memdup ak_memdup_at ak_memdup_site
        = |s, from: *const c_void, n: usize| -> *mut c_void { api::memdup(s, from.cast(), n).cast() }
}

/// See `ak_version` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// See `ak_abi_version` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_abi_version() -> u32 {
    allokit_core::ABI_VERSION
}

/// See `ak_backend_name` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_backend_name() -> *const c_char {
    match Selected::NAME {
        "native" => c"native",
        "mimalloc" => c"mimalloc",
        "jemalloc" => c"jemalloc",
        _ => c"system",
    }
    .as_ptr()
}

/// See `ak_stats_get` in alloc.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ak_stats_get(st: *mut Stats) -> bool {
    // SAFETY: the C caller's promise.
    unsafe { api::stats_get(st) }
}

/// See `ak_stats_print` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_stats_print() {
    // Stderr never fails.
    let _ = api::stats_write(Format::Text, &mut Stderr::new());
}

/// `ak_write_fn`
pub type WriteFn = Option<unsafe extern "C" fn(text: *const c_char, length: usize, arg: *mut c_void)>;

/// A C writer as a Rust one.
struct Writer {
    write: unsafe extern "C" fn(text: *const c_char, length: usize, arg: *mut c_void),
    arg: *mut c_void,
}

impl fmt::Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: the C caller's writer takes any text with its argument.
        unsafe { (self.write)(text.as_ptr().cast(), text.len(), self.arg) };
        Ok(())
    }
}

/// See `ak_stats_write` in alloc.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ak_stats_write(format: u32, write: WriteFn, arg: *mut c_void) -> bool {
    let format = match format {
        0 => Format::Text,
        1 => Format::Json,
        2 => Format::Prometheus,
        3 => Format::OpenMetrics,
        _ => return invalid(),
    };
    match write {
        Some(write) => api::stats_write(format, &mut Writer { write, arg }).is_ok(),
        None => invalid(),
    }
}

fn invalid() -> bool {
    errno::set(errno::EINVAL);
    false
}

/// See `ak_track_set` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_track_set(level: u32) -> bool {
    api::track_set(level)
}

/// See `ak_track_get` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_track_get() -> u32 {
    api::track_get() as u32
}

/// See `ak_track_sample_set` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_track_sample_set(bytes: usize) -> bool {
    api::sample_set(bytes)
}

/// See `ak_track_sample_get` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_track_sample_get() -> usize {
    api::sample()
}

/// See `ak_leaks_print` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_leaks_print() -> usize {
    leaks::print()
}

/// See `ak_leaks_write` in alloc.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ak_leaks_write(format: u32, write: WriteFn, arg: *mut c_void) -> bool {
    match (leaks_format(format), write) {
        (Some(format), Some(write)) => leaks::write(format, &mut Writer { write, arg }),
        _ => invalid(),
    }
}

/// See `ak_growth_take` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_growth_take() -> bool {
    leaks::growth_take()
}

/// See `ak_growth_write` in alloc.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ak_growth_write(format: u32, write: WriteFn, arg: *mut c_void) -> bool {
    match (leaks_format(format), write) {
        (Some(format), Some(write)) => leaks::growth_write(format, &mut Writer { write, arg }),
        _ => invalid(),
    }
}

/// The forms that leaks and growth have, out of `ak_format_t`.
fn leaks_format(format: u32) -> Option<leaks::LeaksFormat> {
    match format {
        0 => Some(leaks::LeaksFormat::Text),
        1 => Some(leaks::LeaksFormat::Json),
        4 => Some(leaks::LeaksFormat::Lines),
        _ => None,
    }
}

/// See `ak_mark` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_mark() {
    leaks::mark();
}

/// See `ak_assert_balanced` in alloc.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ak_assert_balanced(context: *const c_char) -> bool {
    // SAFETY: the C caller's promise.
    unsafe { leaks::assert_balanced(context) }
}

/// `ak_site_fn`
pub type SiteFn = Option<unsafe extern "C" fn(site: *const leaks::SiteInfo, arg: *mut c_void) -> bool>;

/// See `ak_site_visit` in alloc.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ak_site_visit(see: SiteFn, arg: *mut c_void) -> usize {
    let Some(see) = see else {
        invalid();
        return 0;
    };
    // SAFETY: the C caller's function takes any site with its argument.
    leaks::visit(&mut |site| unsafe { see(site, arg) })
}

/// See `ak_snapshot_take` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_snapshot_take() -> *mut leaks::RawSnapshot {
    leaks::snapshot_take()
}

/// See `ak_snapshot_diff` in alloc.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ak_snapshot_diff(
    before: *const leaks::RawSnapshot,
    after: *const leaks::RawSnapshot,
    format: u32,
    write: WriteFn,
    arg: *mut c_void,
) -> bool {
    match write {
        // SAFETY: the C caller's promise.
        Some(write) if format <= 1 => unsafe {
            leaks::snapshot_diff(before, after, format == 1, &mut Writer { write, arg })
        },
        _ => invalid(),
    }
}

/// See `ak_snapshot_free` in alloc.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ak_snapshot_free(snapshot: *mut leaks::RawSnapshot) {
    // SAFETY: the C caller's promise.
    unsafe { leaks::snapshot_free(snapshot) }
}

/// See `ak_profile_write` in alloc.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ak_profile_write(format: u32, path: *const c_char) -> bool {
    let format = match format {
        0 => leaks::Profile::Pprof,
        1 => leaks::Profile::Folded,
        2 => leaks::Profile::Html,
        3 => leaks::Profile::Json,
        _ => return invalid(),
    };
    if path.is_null() {
        return invalid();
    }
    // SAFETY: the C caller's promise: a zero-terminated path.
    leaks::profile_write(format, unsafe { CStr::from_ptr(path) })
}

/// See `ak_guard_sample_set` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_guard_sample_set(every: usize) -> bool {
    sampled::set(every)
}

/// See `ak_guard_sampled` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_guard_sampled(ptr: *const c_void) -> bool {
    sampled::is_sampled(ptr.cast())
}

/// See `ak_limit_set` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_limit_set(bytes: usize) -> bool {
    limit::set(bytes)
}

/// See `ak_limit_get` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_limit_get() -> usize {
    limit::get()
}

/// See `ak_limit_used` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_limit_used() -> usize {
    limit::used()
}

/// See `ak_fail_nth` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_fail_nth(n: u64) -> bool {
    fail::nth(n)
}

/// See `ak_fail_rate` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_fail_rate(per_million: u32, seed: u64) -> bool {
    fail::rate(per_million, seed)
}

/// See `ak_fail_only` in alloc.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ak_fail_only(only: *const FailFilter) -> bool {
    // SAFETY: the C caller's promise.
    unsafe {
        if only.is_null() {
            return fail::only(None);
        }
        arena::options(only).is_some_and(|only| fail::only(Some(&only)))
    }
}

/// See `ak_fail_seen` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_fail_seen() -> u64 {
    fail::seen()
}

/// See `ak_fail_count` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_fail_count() -> u64 {
    fail::count()
}

/// See `ak_policy_set` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_policy_set(policy: u32) -> bool {
    fault::set_policy(match policy {
        0 => fault::Policy::Abort,
        1 => fault::Policy::Report,
        2 => fault::Policy::Quiet,
        _ => return invalid(),
    });
    true
}

/// See `ak_policy_get` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_policy_get() -> u32 {
    fault::policy() as u32
}

/// `ak_error_fn`
pub type ErrorFn = Option<Handler>;

/// See `ak_error_handler_set` in alloc.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ak_error_handler_set(handler: ErrorFn, arg: *mut c_void) -> bool {
    let done = handler::set(handler, arg);
    if !done {
        errno::set(errno::ENOMEM);
    }
    done
}

/// See `ak_fault_name` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_fault_name(kind: u32) -> *const c_char {
    let known = FaultKind::ALL.into_iter().find(|one| *one as u32 == kind);
    known.map_or(c"unknown fault", FaultKind::name).as_ptr()
}

extern "C" fn check_plain() -> usize {
    0
}

extern "C" fn check_from(caller: usize) -> usize {
    api::check(caller)
}

allokit_platform::entry! {
    0,
    /// See `ak_check` in alloc.h.
    pub fn ak_check() -> usize;
    mode = api::MODE, plain = check_plain, slow = check_from;
}

/// See `ak_fault_count` in alloc.h.
#[unsafe(no_mangle)]
pub extern "C" fn ak_fault_count() -> u64 {
    fault::count()
}
