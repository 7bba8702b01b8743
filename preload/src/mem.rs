//! `memcpy` and its family in the guarded libraries: each asks whether what it reads and writes stays in its block, then
//! goes on to libc's. Programs whose compiler has put the copy in place are not seen.
//!
//! Our own code calls these too, where the compiler makes a call of a copy; it works on blocks that are nobody's by
//! `allokit_platform::fill` only.

use allokit_platform::fill;
use allokit_platform::symbol::{self, Where};
use allokit_select::api::Origin;
use allokit_select::checked;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem;
use core::sync::atomic::{AtomicPtr, Ordering};

type CopyFn = unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> *mut c_void;
type SetFn = unsafe extern "C" fn(*mut c_void, c_int, usize) -> *mut c_void;

/// libc's functions, once they are found: null until then.
static REAL: [AtomicPtr<c_void>; 3] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 3];

/// Finds libc's functions; called when the library is loaded.
pub(crate) fn install() {
    for (place, name) in REAL.iter().zip([c"memcpy", c"memmove", c"memset"]) {
        place.store(symbol::find(Where::Next, name), Ordering::Relaxed);
    }
}

#[inline(always)]
unsafe fn copy(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void {
    let real = REAL[0].load(Ordering::Relaxed);
    // SAFETY: libc's function of this type; the C caller's promise.
    unsafe {
        if !real.is_null() {
            return mem::transmute::<*mut c_void, CopyFn>(real)(to, from, bytes);
        }
        fill::copy(to.cast(), from.cast(), bytes);
    }
    to
}

#[inline(always)]
unsafe fn move_(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void {
    let real = REAL[1].load(Ordering::Relaxed);
    // SAFETY: as above.
    unsafe {
        if !real.is_null() {
            return mem::transmute::<*mut c_void, CopyFn>(real)(to, from, bytes);
        }
        if to.addr().wrapping_sub(from.addr()) < bytes {
            fill::copy_backwards(to.cast(), from.cast(), bytes);
        } else {
            fill::copy(to.cast(), from.cast(), bytes);
        }
    }
    to
}

#[inline(always)]
unsafe fn set(to: *mut c_void, byte: c_int, bytes: usize) -> *mut c_void {
    let real = REAL[2].load(Ordering::Relaxed);
    // SAFETY: as above.
    unsafe {
        if !real.is_null() {
            return mem::transmute::<*mut c_void, SetFn>(real)(to, byte, bytes);
        }
        fill::set(to.cast(), byte as u8, bytes);
    }
    to
}

/// How much of a copy stays in its blocks; reports when that is not all.
#[cold]
fn least(name: &'static CStr, to: *mut c_void, from: *const c_void, bytes: usize, caller: usize) -> usize {
    let site = || Origin::Caller(caller).site();
    let written = checked::room(name, true, to.cast(), bytes, site);
    if from.is_null() { written } else { written.min(checked::room(name, false, from.cast(), bytes, site)) }
}

#[inline(always)]
fn fits(to: *const c_void, bytes: usize) -> bool {
    checked::fits(to.cast(), bytes)
}

unsafe extern "C" {
    fn strlen(text: *const c_char) -> usize;
    fn strnlen(text: *const c_char, most: usize) -> usize;
}

/// A function with three arguments, and what becomes of a call that leaves its block, `caller` being where it returns to.
macro_rules! checked {
    ($($name:ident = |$to:ident: $to_type:ty, $from:ident: $from_type:ty $(, $n:ident: usize)?| -> $fits:expr => $run:expr, $caller:ident => $short:expr;)*) => {$(
        #[doc(hidden)]
        pub mod $name {
            use super::*;

            #[cold]
            unsafe extern "C" fn short($to: $to_type, $from: $from_type, n: usize, $caller: usize) -> $to_type {
                $(let $n = n;)?
                let _ = n;
                // SAFETY: the C caller's promise, as far as it holds.
                unsafe { $short }
            }

            allokit_platform::slow_entry! {
                3, fn short_entry($to: $to_type, $from: $from_type, n: usize) -> $to_type; slow = short;
            }

            #[doc = concat!("`", stringify!($name), "`")]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($to: $to_type, $from: $from_type, n: usize) -> $to_type {
                $(let $n = n;)?
                // SAFETY: the C caller's promise.
                unsafe {
                    if $fits {
                        return $run;
                    }
                    short_entry($to, $from, n)
                }
            }
        }
    )*};
}

// strcpy and strcat have two arguments; what lies in the third register is handed on and not looked at.
checked! {
    memcpy = |to: *mut c_void, from: *const c_void, n: usize| ->
        fits(to, n) && fits(from, n) => copy(to, from, n),
        caller => move_(to, from, least(c"memcpy", to, from, n, caller));
    memmove = |to: *mut c_void, from: *const c_void, n: usize| ->
        fits(to, n) && fits(from, n) => move_(to, from, n),
        caller => move_(to, from, least(c"memmove", to, from, n, caller));
    memset = |to: *mut c_void, byte: c_int, n: usize| ->
        fits(to, n) => set(to, byte, n),
        caller => set(to, byte, least(c"memset", to, core::ptr::null(), n, caller));
    strcpy = |to: *mut c_char, from: *const c_char| ->
        fits(to.cast(), strlen(from) + 1) => copy(to.cast(), from.cast(), strlen(from) + 1).cast(),
        caller => text(c"strcpy", to, 0, from, strlen(from), caller);
    stpcpy = |to: *mut c_char, from: *const c_char| ->
        fits(to.cast(), strlen(from) + 1) => copy(to.cast(), from.cast(), strlen(from) + 1).cast::<c_char>().add(strlen(from)),
        caller => { text(c"stpcpy", to, 0, from, strlen(from), caller); to.add(strlen(to)) };
    strcat = |to: *mut c_char, from: *const c_char| ->
        fits(to.cast(), strlen(to) + strlen(from) + 1) => {
            copy(to.add(strlen(to)).cast(), from.cast(), strlen(from) + 1);
            to
        },
        caller => text(c"strcat", to, strlen(to), from, strlen(from), caller);
    strncat = |to: *mut c_char, from: *const c_char, n: usize| ->
        fits(to.cast(), strlen(to) + strnlen(from, n) + 1) => append(to, strlen(to), from, strnlen(from, n)),
        caller => text(c"strncat", to, strlen(to), from, strnlen(from, n), caller);
    strncpy = |to: *mut c_char, from: *const c_char, n: usize| ->
        fits(to.cast(), n) => pad(to, from, n),
        caller => {
            let n = least(c"strncpy", to.cast(), core::ptr::null(), n, caller);
            pad(to, from, n)
        };
}

/// Writes `length` bytes of a text and a zero, `at` bytes into `to`.
unsafe fn append(to: *mut c_char, at: usize, from: *const c_char, length: usize) -> *mut c_char {
    // SAFETY: the caller's promise.
    unsafe {
        copy(to.add(at).cast(), from.cast(), length);
        *to.add(at + length) = 0;
    }
    to
}

/// The same for a text that does not fit: what fits of it, and a zero.
#[cold]
unsafe fn text(
    name: &'static CStr,
    to: *mut c_char,
    at: usize,
    from: *const c_char,
    length: usize,
    caller: usize,
) -> *mut c_char {
    let room = least(name, to.cast(), core::ptr::null(), at + length + 1, caller);
    if room > at {
        // SAFETY: so much fits.
        unsafe { append(to, at, from, length.min(room - at - 1)) };
    }
    to
}

/// `strncpy`: zeroes up to `n` bytes.
unsafe fn pad(to: *mut c_char, from: *const c_char, n: usize) -> *mut c_char {
    // SAFETY: the caller's promise.
    unsafe {
        let length = strnlen(from, n);
        copy(to.cast(), from.cast(), length);
        set(to.add(length).cast(), 0, n - length);
    }
    to
}
