//! The header is handwritten; this proves it. bindgen reads `include/alloc.h`, and for every function that it declares
//! the build script writes a constant of the declared type whose value is the library's function of that name: this
//! crate compiles only when the types are the same. The layouts of the structs are compared field by field.
//!
//! Without libclang there is nothing to compare, and a warning says so. With `ALLOKIT_ABI=required` in the environment
//! (as `cargo xtask test` sets it) that is an error.
#![no_std]

#[cfg(not(test))] // a test harness brings std, and the library has its own panic handler
include!(concat!(env!("OUT_DIR"), "/checks.rs"));
