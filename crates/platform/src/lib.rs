//! Everything that touches the operating system or the processor: the only crate of the product with `asm!`, `global_asm!`,
//! `cfg(target_os)` and system calls.
//!
//! Owns: address space ([`pages`]), permanent metadata memory ([`meta`]), the map from addresses to metadata
//! ([`AddressMap`]), the thread-local cell ([`thread_cell!`]), thread exit ([`thread`]), fork ([`fork`]), the lock
//! ([`Lock`]), the fence that costs one side nothing ([`barrier`]), the program's own function for faults ([`handler`]),
//! accesses that fail ([`access`]), the limit of the process ([`budget`]), its last moment ([`crash`]), the stack by the
//! tables for exceptions ([`backtrace`]), the calling thread's stack ([`unwind`]), errno, the environment, stderr, the clock, symbols, the process ([`process`]),
//! and the exported entry points ([`entry!`]).
//! Uses: `allokit-core`, `libc`, and `gimli` for the tables of code without frame pointers. Porting Allokit means porting this crate.
//!
//! Invariants: nothing here calls `malloc`; nothing here panics; functions that `free` may reach keep `errno`.
#![no_std]

#[cfg(any(test, miri))]
#[doc(hidden)]
pub extern crate std;

#[cfg(not(unix))]
compile_error!(
    "allokit-platform knows Unix systems only so far; a port needs pages, thread, fork, env and stderr for this one"
);

pub mod access;
pub mod backtrace;
pub mod barrier;
pub mod budget;
mod cell;
pub mod clock;
pub mod control;
pub mod crash;
mod cxx;
pub mod entropy;
mod entry;
pub mod env;
pub mod errno;
pub mod file;
pub mod fill;
pub mod fork;
pub mod handler;
mod keep;
mod lifecycle;
mod lock;
mod map;
pub mod meta;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
pub mod net;
pub mod pages;
pub mod peek;
pub mod process;
pub mod stderr;
pub mod symbol;
pub mod thread;
pub mod tools;
pub mod unwind;
pub mod va;
mod weak;

pub use keep::keep_errno;
pub use lock::{Lock, LockGuard};
pub use map::AddressMap;

/// Ends the process with SIGABRT, without running anything else.
pub fn abort() -> ! {
    // SAFETY: abort has no precondition.
    unsafe { libc::abort() }
}
