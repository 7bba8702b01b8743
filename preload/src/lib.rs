//! Allokit in the place of malloc: what `LD_PRELOAD=liballokit_preload_<backend>.so` puts before libc and the C++ library.
//!
//! Owns: the exported names ([`c`], [`cxx`], [`info`]; `exports.txt` lists them), libc's own blocks ([`foreign`]). Uses:
//! `allokit_select::api` for everything else. The rules are libc's and C23's where they differ from those of `ak_*`:
//! `realloc(p, 0)` gives a block, `posix_memalign` returns its error. The names `ak_*` are not exported: a program that
//! is linked with Allokit brings its own.
//!
//! Invariants: any function may be called before the library's constructor has run, and from inside what it calls (libc
//! allocates when keys are made and fork handlers are registered); nothing unwinds through Rust.
#![no_std]
#![cfg_attr(test, allow(dead_code))] // a test program has no load and exit hooks
#![allow(clippy::missing_safety_doc)] // the C library's manual says what each function wants

#[cfg(all(feature = "system", not(any(feature = "native", feature = "mimalloc", feature = "jemalloc"))))]
compile_error!("the preload library cannot be built on the system backend: its malloc would call itself");

pub mod c;
pub mod cxx;
mod foreign;
pub mod info;
#[cfg(feature = "guard")]
pub mod mem;

use allokit_platform::symbol;
use allokit_select::{api, leaks, settings};
use core::ffi::c_void;

#[cfg(not(test))]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    use allokit_platform::stderr::Stderr;
    use core::fmt::Write;
    let mut out = Stderr::new();
    let _ = writeln!(out, "allokit: internal error, please report it: {info}");
    out.flush();
    allokit_platform::abort()
}

// core was built to unwind and names this function; nothing here unwinds. Hidden, so that no other Rust library in the
// program meets it.
#[cfg(all(not(test), target_os = "linux"))]
core::arch::global_asm!(".weak rust_eh_personality", ".hidden rust_eh_personality", "rust_eh_personality:");

// Nothing else names libc, and the shared library must.
#[cfg(not(test))]
#[link(name = "c")]
unsafe extern "C" {}

extern "C" fn at_load() {
    foreign::install();
    #[cfg(feature = "guard")]
    mem::install();
    if serves() {
        settings::read_environment();
        api::prepare();
        leaks::listen();
    }
}

extern "C" fn at_exit() {
    if serves() {
        api::at_exit();
        leaks::at_exit();
    }
}

/// Whether the process calls this library's `malloc`. The program may have one of its own, another library may have been
/// loaded before this one, or this one too late: then it keeps quiet.
fn serves() -> bool {
    static BOUND: symbol::Bound<5> = symbol::Bound([
        c::malloc as *const c_void,
        c::free as *const c_void,
        c::realloc as *const c_void,
        c::calloc as *const c_void,
        c::malloc_usable_size as *const c_void,
    ]);
    BOUND.is_here()
}

allokit_platform::at_load!(at_load);
allokit_platform::at_exit!(at_exit);
