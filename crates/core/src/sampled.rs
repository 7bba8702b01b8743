//! What a backend that guards a sample of its blocks and the layer above say to each other.

use crate::{FaultKind, Tag};
use core::ffi::CStr;

/// How many return addresses are kept of a stack, some of them the library's own.
pub const SAMPLED_FRAMES: usize = 24;

/// Some return addresses, the innermost first; 0 ends them early.
pub type Frames = [usize; SAMPLED_FRAMES];

/// What has happened to a sampled block.
#[derive(Debug)]
pub struct SampledFault<'a> {
    /// What.
    pub kind: FaultKind,
    /// A verb: what the program did; null-terminated.
    pub operation: &'a CStr,
    /// With which address.
    pub addr: usize,
    /// Of the block.
    pub start: usize,
    /// Of the block, as asked for.
    pub size: usize,
    /// Whether the address was written to; `None`: it was handed to a function, or the system does not tell.
    pub writes: Option<bool>,
    /// Of the block, if it has one.
    pub tag: Tag,
    /// Where it was allocated.
    pub allocated: Frames,
    /// Where it was freed; zeroes if it is live.
    pub freed: Frames,
    /// Where the program is.
    pub now: Frames,
}

/// What the layer above does for the backend.
#[derive(Debug)]
pub struct SampleHooks {
    /// The calling thread's stack, as far as it can be told.
    pub stack: fn(&mut Frames),
    /// The same from inside a signal handler, beginning with the instruction that was interrupted.
    pub stack_at: fn(usize, &mut Frames),
    /// Is told what has happened. No lock is held. Whether the program goes on.
    pub wrong: fn(&SampledFault<'_>) -> bool,
}
