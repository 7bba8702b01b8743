//! C++'s operators `new` and `delete`, by their mangled names where `size_t` is `unsigned long`. Without a C++ library:
//! the exception is thrown by the one that the program has, found when there is no memory.
#![allow(non_snake_case)]

use crate::c::{entries, release, release_sized};
use allokit_core::Backend;
use allokit_platform::symbol::{self, Where};
use allokit_platform::{abort, new_failure, stderr::Stderr};
use allokit_select::Selected;
use allokit_select::api::{self, Source};
use core::ffi::{CStr, c_void};
use core::fmt::Write;
use core::mem;

#[cfg(not(target_pointer_width = "64"))]
compile_error!("the mangled names of operator new are those of 64-bit systems");

type NewHandler = unsafe extern "C" fn();

/// The C++ libraries that may have been opened for one plugin only.
const LIBRARIES: [&CStr; 3] = [c"libstdc++.so.6", c"libc++abi.so.1", c"libc++.so.1"];

/// A function of the program's C++ library. (Not by a weak reference: mimalloc has a function of such a name.)
fn find(name: &CStr) -> Option<*mut c_void> {
    let places = LIBRARIES.into_iter().map(Where::In);
    let mut found = core::iter::once(Where::Program).chain(places).map(|place| symbol::find(place, name));
    found.find(|address| !address.is_null())
}

/// The handler that the program has installed.
extern "C" fn handler() -> Option<NewHandler> {
    let get = find(c"_ZSt15get_new_handlerv")?;
    // SAFETY: the C++ library's function of this name has this type.
    unsafe {
        let get: unsafe extern "C" fn() -> Option<NewHandler> = mem::transmute(get);
        get()
    }
}

/// The function that throws std::bad_alloc: of GNU's library, of LLVM's.
extern "C" fn thrower() -> *mut c_void {
    let thrower = find(c"_ZSt17__throw_bad_allocv").or_else(|| find(c"_ZNSt3__117__throw_bad_allocEv"));
    thrower.unwrap_or_else(|| {
        let mut out = Stderr::new();
        let _ =
            writeln!(out, "allokit: operator new: out of memory, and no C++ library is there to throw std::bad_alloc");
        out.flush();
        abort()
    })
}

/// Another attempt, after the handler. `align` 0: none in particular.
extern "C" fn again(size: usize, align: usize) -> *mut c_void {
    #[cfg(feature = "track")]
    if api::way() != api::PLAIN {
        let here = allokit_platform::unwind::Here::NONE;
        return allocate(allokit_select::Kinded(api::Origin::Caller(0), api::Kind::AnyNew, here), size, align);
    }
    allocate(api::Plain, size, align)
}

#[inline(always)]
fn allocate<S: Source>(source: S, size: usize, align: usize) -> *mut c_void {
    if align == 0 { api::alloc(source, size) } else { api::alloc_aligned(source, size, align) }.cast()
}

new_failure! {
    throwing = allokit_new_throws, nothrow = allokit_new_nothrow, handler = handler, again = again, thrower = thrower;
}

#[inline(always)]
unsafe fn new<S: Source>(source: S, size: usize, align: usize) -> *mut c_void {
    let block = allocate(source, size, align);
    if block.is_null() {
        // SAFETY: nothing of this function is left to do, so nothing unwinds through it.
        return unsafe { allokit_new_throws(size, align) };
    }
    block
}

#[inline(always)]
unsafe fn new_nothrow<S: Source>(source: S, size: usize, align: usize) -> *mut c_void {
    let block = allocate(source, size, align);
    if block.is_null() {
        // SAFETY: as above.
        return unsafe { allokit_new_nothrow(size, align) };
    }
    block
}

/// `const std::nothrow_t &`
type Nothrow = *const c_void;

entries! {
    1 @(alloc size) _Znwm = |s, size: usize| -> *mut c_void { new(s, size, 0) }
    1 @(alloc size) _Znam = |s, size: usize| -> *mut c_void { new(s, size, 0) }
    2 _ZnwmSt11align_val_t = |s, size: usize, align: usize| -> *mut c_void { new(s, size, align) }
    2 _ZnamSt11align_val_t = |s, size: usize, align: usize| -> *mut c_void { new(s, size, align) }
    2 _ZnwmRKSt9nothrow_t = |s, size: usize, tag: Nothrow| -> *mut c_void {
        let _ = tag;
        new_nothrow(s, size, 0)
    }
    2 _ZnamRKSt9nothrow_t = |s, size: usize, tag: Nothrow| -> *mut c_void {
        let _ = tag;
        new_nothrow(s, size, 0)
    }
    3 _ZnwmSt11align_val_tRKSt9nothrow_t = |s, size: usize, align: usize, tag: Nothrow| -> *mut c_void {
        let _ = tag;
        new_nothrow(s, size, align)
    }
    3 _ZnamSt11align_val_tRKSt9nothrow_t = |s, size: usize, align: usize, tag: Nothrow| -> *mut c_void {
        let _ = tag;
        new_nothrow(s, size, align)
    }
    1 @(free ptr) _ZdlPv = |s, ptr: *mut c_void| { release(s, ptr) }
    1 @(free ptr) _ZdaPv = |s, ptr: *mut c_void| { release(s, ptr) }
    2 @(free ptr) _ZdlPvm = |s, ptr: *mut c_void, size: usize| { release_sized(s, ptr, size) }
    2 @(free ptr) _ZdaPvm = |s, ptr: *mut c_void, size: usize| { release_sized(s, ptr, size) }
    2 _ZdlPvRKSt9nothrow_t = |s, ptr: *mut c_void, tag: Nothrow| {
        let _ = tag;
        release(s, ptr)
    }
    2 _ZdaPvRKSt9nothrow_t = |s, ptr: *mut c_void, tag: Nothrow| {
        let _ = tag;
        release(s, ptr)
    }
    2 _ZdlPvSt11align_val_t = |s, ptr: *mut c_void, align: usize| {
        let _ = align;
        release(s, ptr)
    }
    2 _ZdaPvSt11align_val_t = |s, ptr: *mut c_void, align: usize| {
        let _ = align;
        release(s, ptr)
    }
    3 _ZdlPvmSt11align_val_t = |s, ptr: *mut c_void, size: usize, align: usize| {
        let _ = align;
        release_sized(s, ptr, size)
    }
    3 _ZdaPvmSt11align_val_t = |s, ptr: *mut c_void, size: usize, align: usize| {
        let _ = align;
        release_sized(s, ptr, size)
    }
    3 _ZdlPvSt11align_val_tRKSt9nothrow_t = |s, ptr: *mut c_void, align: usize, tag: Nothrow| {
        let _ = (align, tag);
        release(s, ptr)
    }
    3 _ZdaPvSt11align_val_tRKSt9nothrow_t = |s, ptr: *mut c_void, align: usize, tag: Nothrow| {
        let _ = (align, tag);
        release(s, ptr)
    }
}
