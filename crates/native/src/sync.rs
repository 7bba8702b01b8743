//! Atomics and locks, through one door, so that a model checker can take their place.

pub(crate) use allokit_platform::Lock;
pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, compiler_fence,
};
