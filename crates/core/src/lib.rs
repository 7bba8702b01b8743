//! The contract that every backend and layer of Allokit keeps.
//!
//! Owns: [`Backend`], [`Stats`], [`Site`], [`Fault`], the size and alignment rules. Uses nothing: no OS, no allocation, no
//! dependency, so that everything else may depend on it.
//!
//! Invariants: a block is aligned to [`MIN_ALIGN`] at least; no block is larger than [`MAX_SIZE`]; a failure is a null
//! pointer (and, where the OS has it, `errno`), never a panic.
#![no_std]
#![warn(missing_docs)]

mod backend;
pub mod counts;
mod fault;
mod rules;
mod sampled;
mod site;
mod stats;
mod tag;

pub use backend::{Backend, Others};
pub use fault::{Fault, FaultKind, Place};
pub use rules::{MAX_ALIGN, MAX_SIZE, MIN_ALIGN, array_size, is_valid_align};
pub use sampled::{Frames, SAMPLED_FRAMES, SampleHooks, SampledFault};
pub use site::Site;
pub use stats::{Known, Stats};
pub use tag::{Found, Tag, Tagged};

/// The version of the whole workspace, as `ak_version()` gives it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The number of the C binary interface: `AK_ABI_VERSION` in `alloc.h`.
pub const ABI_VERSION: u32 = 1;
