//! The benchmark suite behind `cargo xtask bench`: what is run ([`plan`]), how a run is measured ([`measure`]), how runs of
//! all allocators interleave ([`suite`]), what the figures say ([`result`], [`targets`]) and how they are shown ([`report`]).
//!
//! Owns no compiler and no download: xtask builds the programs and the allocators and hands in their paths. An allocator is
//! a shared library for LD_PRELOAD, so every one is measured in the same binaries. Linux only.
#![allow(missing_docs)]

pub mod arenas;
pub mod machine;
pub mod measure;
pub mod plan;
pub mod report;
pub mod result;
pub mod scaling;
pub mod suite;
pub mod targets;
