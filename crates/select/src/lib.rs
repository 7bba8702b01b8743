//! What is built in: the one place that knows the Cargo features.
//!
//! Owns: [`Selected`], the backend; [`api`], the rules of the C surface over it, written once for every backend and mode;
//! [`Allokit`], the `GlobalAlloc` for Rust programs. Uses: everything below it.
//!
//! Features are additive; with several backends the first of native, mimalloc, jemalloc, system serves. Without the
//! feature `track` the tracking layer does not exist in the binary, and without `guard` the guarding layer.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod api;
pub mod arena;
pub mod fail;
mod global;
pub mod heap;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
mod http;
pub mod leaks;
pub mod limit;
#[cfg(feature = "track")]
mod rehearse;
pub mod sampled;
pub mod settings;
#[cfg(feature = "track")]
mod tracked;

#[cfg(feature = "guard")]
pub use allokit_guard::{checked, set_stranger};
#[cfg(feature = "track")]
pub use tracked::Kinded;

/// The backend below the tracking layer: where it does not itself count against the limit of the process, with that.
#[cfg(all(feature = "track", feature = "native"))]
pub(crate) type Base = Selected;
#[cfg(all(feature = "track", not(feature = "native")))]
pub(crate) type Base = limit::Counting<Selected>;
#[cfg(not(feature = "track"))]
pub(crate) type Base = Selected;

pub use global::Allokit;

cfg_if::cfg_if! {
    if #[cfg(feature = "native")] {
        /// The backend of this build.
        pub type Selected = allokit_native::Native;
        fn init_backend_once() {}
    } else if #[cfg(feature = "mimalloc")] {
        /// The backend of this build.
        pub type Selected = allokit_mimalloc::Mimalloc;
        use allokit_mimalloc::init as init_backend_once;
    } else if #[cfg(feature = "jemalloc")] {
        /// The backend of this build.
        pub type Selected = allokit_jemalloc::Jemalloc;
        fn init_backend_once() {}
    } else if #[cfg(feature = "system")] {
        /// The backend of this build.
        pub type Selected = allokit_system::System;
        fn init_backend_once() {}
    } else {
        compile_error!("choose a backend: one of the features native, mimalloc, jemalloc, system");
    }
}

/// What the backend wants before its first allocation; may be called again. The first allocation calls it where tracking
/// is built in; a build without tracking calls it when it is loaded.
pub fn init_backend() {
    init_backend_once();
}
