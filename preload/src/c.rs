//! malloc and its family, and the way every exported function takes: `entries!`.

use allokit_core::{Backend, MAX_ALIGN, MAX_SIZE, array_size};
use allokit_platform::{errno, keep_errno, pages};
use allokit_select::Selected;
use allokit_select::api::{self, Source};
use core::ffi::{c_int, c_void};
use core::ptr;

/// Defines exported functions; the body is written once and made for each source. With tracking off, a function is one
/// comparison and the plain body; the other side needs the return address and is a function of its own. What must not
/// follow a call (so that it stays a jump) is written with `return`. A function marked `@(alloc size)` or so first tries what
/// the backend has at hand, where it has that.
macro_rules! entries {
    ($($count:tt $(@ ($hand:ident $($first:ident)+))? $name:ident = |$source:ident $(, $arg:ident: $type:ty)*| $(-> $result:ty)? $body:block)*) => {$(
        #[doc(hidden)]
        pub mod $name {
            use super::*;

            /// What the tracking layer has at hand needs no stack frame.
            #[cfg(feature = "track")]
            #[inline(never)]
            unsafe extern "C" fn slow($($arg: $type,)* caller: usize) $(-> $result)? {
                // (Where the guarding layer is built in, nothing is at hand.)
                $(if !api::GUARD && api::is_tracked() {
                    $crate::c::tracked_at_hand! { $count caller $hand $($first)+ }
                })?
                // SAFETY: the C caller's promise.
                unsafe { slower($($arg,)* caller) }
            }

            #[cfg(feature = "track")]
            allokit_platform::framed_entry! {
                fn slower($($arg: $type,)* caller: usize) $(-> $result)?; slow = slowest;
            }

            /// Decides the mode if it is not decided yet.
            #[cfg(feature = "track")]
            unsafe extern "C" fn slowest($($arg: $type,)* caller: usize, sp: f64, fp: f64) $(-> $result)? {
                use allokit_select::api::{Origin, Plain};
                if api::way() != api::PLAIN {
                    let (kind, here) = ($crate::c::kind_of(stringify!($name)), allokit_platform::unwind::Here::new(sp, fp));
                    let $source = $crate::foreign::Watched(Origin::Caller(caller), kind, here);
                    // SAFETY: the C caller's promise.
                    #[allow(unused_unsafe)]
                    return unsafe { $body };
                }
                let $source = Plain;
                // SAFETY: the C caller's promise.
                #[allow(unused_unsafe)]
                unsafe { $body }
            }

            #[cfg(feature = "track")]
            allokit_platform::slow_entry! { $count, fn slow_entry($($arg: $type),*) $(-> $result)?; slow = slow; }

            /// Apart, so that what is at hand needs no stack frame.
            #[cfg(not(feature = "track"))]
            #[inline(never)]
            unsafe extern "C" fn slow_entry($($arg: $type),*) $(-> $result)? {
                let $source = api::Plain;
                // SAFETY: the C caller's promise.
                #[allow(unused_unsafe)]
                unsafe { $body }
            }

            #[doc = concat!("`", stringify!($name), "`")]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($arg: $type),*) $(-> $result)? {
                // Where the guarding layer is built in, nothing is at hand.
                #[cfg(not(feature = "guard"))]
                $($crate::c::at_hand! { $hand $($first)+ })?
                if !api::GUARD && Selected::AT_HAND && $crate::c::is_given!($($hand)?) {
                    // SAFETY: the C caller's promise.
                    return unsafe { slow_entry($($arg),*) };
                }
                #[cfg(feature = "track")]
                allokit_platform::unless_one! { api::MODE => {
                    // SAFETY: the C caller's promise.
                    return unsafe { slow_entry($($arg),*) };
                } }
                let $source = api::Plain;
                // SAFETY: the C caller's promise.
                #[allow(unused_unsafe)]
                unsafe { $body }
            }
        }
        pub use $name::$name;
    )*};
}
pub(crate) use entries;

/// What a function's blocks are, by its name.
#[cfg(feature = "track")]
pub(crate) const fn kind_of(name: &str) -> api::Kind {
    match name.as_bytes() {
        [b'_', b'Z', b'n', b'w', ..] | [b'_', b'Z', b'd', b'l', ..] => api::Kind::New,
        [b'_', b'Z', b'n', b'a', ..] | [b'_', b'Z', b'd', b'a', ..] => api::Kind::NewArray,
        _ => api::Kind::Malloc,
    }
}

/// Leaves the function when the backend has what is wanted at hand.
#[cfg(not(feature = "guard"))]
macro_rules! at_hand {
    (alloc $size:ident) => {
        let block = Selected::alloc_at_hand($size);
        if !block.is_null() {
            return block.cast();
        }
    };
    (aligned $size:ident $align:ident) => {
        if $align.is_power_of_two() {
            let block = Selected::alloc_aligned_at_hand($size, $align);
            if !block.is_null() {
                return block.cast();
            }
        }
    };
    (free $ptr:ident) => {
        // SAFETY: the C caller's promise.
        if unsafe { Selected::free_at_hand($ptr.cast()) } {
            return;
        }
    };
}
#[cfg(not(feature = "guard"))]
pub(crate) use at_hand;

/// Leaves the function when the tracking layer has what is wanted at hand. (Where the caller says a size, that is to be
/// looked at.)
#[cfg(feature = "track")]
macro_rules! tracked_at_hand {
    (1 $caller:ident alloc $size:ident) => {
        let block = api::Origin::Caller($caller).alloc_at_hand($size);
        if !block.is_null() {
            return block.cast();
        }
    };
    (1 $caller:ident free $ptr:ident) => {
        // SAFETY: the C caller's promise.
        if unsafe { api::Origin::Caller($caller).free_at_hand($ptr.cast()) } {
            return;
        }
    };
    ($count:tt $caller:ident $($rest:ident)+) => {};
}
#[cfg(feature = "track")]
pub(crate) use tracked_at_hand;

macro_rules! is_given {
    () => {
        false
    };
    ($word:ident) => {
        true
    };
}
pub(crate) use is_given;

#[cold]
fn fail(error: c_int) -> *mut c_void {
    errno::set(error);
    ptr::null_mut()
}

/// `free`, without a test for null where the backend does not need it.
#[inline(always)]
pub(crate) unsafe fn release<S: Source>(source: S, ptr: *mut c_void) {
    if PLAIN_FREES_NULL && size_of::<S>() == 0 || !ptr.is_null() {
        // SAFETY: the caller's promise.
        unsafe { source.free(ptr.cast()) }
    }
}

/// Of the sources only [`api::Plain`] has no size.
const PLAIN_FREES_NULL: bool = Selected::FREES_NULL;

#[inline(always)]
pub(crate) unsafe fn release_sized<S: Source>(source: S, ptr: *mut c_void, size: usize) {
    if PLAIN_FREES_NULL && size_of::<S>() == 0 || !ptr.is_null() {
        // SAFETY: the caller's promise.
        unsafe { source.free_sized(ptr.cast(), size) }
    }
}

/// As `realloc`, where a size of 0 gives a block of its own.
#[inline(always)]
unsafe fn resize<S: Source>(source: S, ptr: *mut c_void, size: usize) -> *mut c_void {
    if ptr.is_null() {
        return source.alloc(size).cast();
    }
    // SAFETY: the caller's promise.
    unsafe { source.realloc(ptr.cast(), size.max(1)) }.cast()
}

/// A valid power of two that nobody can have in full is a lack of memory, not a mistake.
#[inline(always)]
fn aligned<S: Source>(source: S, align: usize, size: usize) -> *mut c_void {
    if align > MAX_ALIGN {
        return fail(errno::ENOMEM);
    }
    api::alloc_aligned(source, size, align).cast()
}

entries! {
    1 @(alloc size) malloc = |s, size: usize| -> *mut c_void { api::alloc(s, size).cast() }
    2 calloc = |s, count: usize, size: usize| -> *mut c_void { api::calloc(s, count, size).cast() }
    2 realloc = |s, ptr: *mut c_void, size: usize| -> *mut c_void { resize(s, ptr, size) }
    3 reallocarray = |s, ptr: *mut c_void, count: usize, size: usize| -> *mut c_void {
        match array_size(count, size) {
            Some(bytes) => resize(s, ptr, bytes),
            None => fail(errno::ENOMEM),
        }
    }
    1 @(free ptr) free = |s, ptr: *mut c_void| { release(s, ptr) }
    1 @(free ptr) cfree = |s, ptr: *mut c_void| { release(s, ptr) }
    2 @(free ptr) free_sized = |s, ptr: *mut c_void, size: usize| { release_sized(s, ptr, size) }
    3 free_aligned_sized = |s, ptr: *mut c_void, align: usize, size: usize| {
        let _ = align;
        release_sized(s, ptr, size)
    }
    2 @(aligned size align) aligned_alloc = |s, align: usize, size: usize| -> *mut c_void {
        if !align.is_power_of_two() {
            return fail(errno::EINVAL);
        }
        aligned(s, align, size)
    }
    2 memalign = |s, align: usize, size: usize| -> *mut c_void {
        // As libc has it: rounded up to a power of two.
        match align.checked_next_power_of_two() {
            Some(align) => aligned(s, align, size),
            None => fail(errno::EINVAL),
        }
    }
    3 posix_memalign = |s, out: *mut *mut c_void, align: usize, size: usize| -> c_int {
        if !align.is_power_of_two() || !align.is_multiple_of(size_of::<*mut c_void>()) {
            return errno::EINVAL;
        }
        let block = keep_errno(|| aligned(s, align, size));
        if block.is_null() {
            errno::set(errno::ENOMEM); // as libc's does, and programs look there
            return errno::ENOMEM;
        }
        out.write(block);
        0
    }
    1 valloc = |s, size: usize| -> *mut c_void { aligned(s, pages::os_page(), size) }
    1 pvalloc = |s, size: usize| -> *mut c_void {
        let page = pages::os_page();
        if size > MAX_SIZE - page {
            return fail(errno::ENOMEM);
        }
        aligned(s, page, size.max(1).next_multiple_of(page))
    }
    1 malloc_usable_size = |s, ptr: *const c_void| -> usize { api::usable_size(s, ptr.cast()) }
}
