//! Memory by lifetime and by place: arenas (blocks that end together), regions (blocks freed one by one inside a fixed
//! buffer), pools (objects of one size), stacks (last in, first out) and scratch arenas (a thread's temporaries).
//!
//! Owns: the five allocators, each as a raw type behind a pointer (what the C surface calls) and, over it, a safe type
//! with lifetimes. Uses: `allokit-core` alone. There is no system call, no libc and no thread-local in this crate: memory
//! comes from a [`Source`] or from a buffer of the caller's.
//!
//! Invariants: a call that fails has changed nothing; nothing here panics or prints: misuse that is noticed comes back as
//! a [`Fault`], and whoever called decides by policy what becomes of it. No type here is used by two threads at once; any
//! thread may use any of them in turn.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod arena;
mod bump;
pub mod census;
pub mod pool;
pub mod region;
mod safe;
pub mod scratch;
mod source;
pub mod stack;

#[cfg(test)]
mod tests;

#[cfg(doctest)]
mod misuse;

pub use bump::{Arena, Child, Scope};
pub use safe::{Pool, Region, Stack};
pub use source::{Source, Tools};

use core::ffi::c_char;
use core::ptr;

/// What was found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A block, an object or a mark of another owner, or of none.
    Foreign,
    /// A mark that a reset or a rewind has ended.
    StaleMark,
    /// A block that is free already.
    DoubleFree,
    /// Not the newest: a stack's blocks and marks, and scratch arenas, end in the reverse of their order.
    OutOfOrder,
    /// Memory that was reset or given back has been written.
    WriteAfterReset,
    /// The allocator's own records are not what was written.
    Corrupt,
    /// The arena, region, pool or stack itself has been destroyed, or never was one.
    Ended,
}

impl Kind {
    /// As it is said in a report, after the words "allokit: ".
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Kind::Foreign => "what is given belongs to another owner or to none",
            Kind::StaleMark => "the mark is from before a reset, or an earlier rewind has ended it",
            Kind::DoubleFree => "double free",
            Kind::OutOfOrder => "released out of order",
            Kind::WriteAfterReset => "written after it was reset or freed",
            Kind::Corrupt => "records are damaged",
            Kind::Ended => "it has been destroyed, or never was one",
        }
    }
}

/// A misuse: what it is and which address it is about (0 when there is none).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What was found wrong.
    pub kind: Kind,
    /// The block, object or mark.
    pub address: usize,
}

/// Why a call did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No memory: the source has none, a limit or the end of a buffer is reached, or the size is impossible.
    NoMemory,
    /// An argument that no state could make right: an alignment that is no power of two, a buffer too small.
    Invalid,
    /// What is asked for once only is taken.
    Busy,
    /// Misuse.
    Fault(Fault),
}

impl Error {
    pub(crate) const fn fault(kind: Kind, address: usize) -> Error {
        Error::Fault(Fault { kind, address })
    }
}

/// What reports call an arena, a region, a pool or a stack, and where it was made. The texts are zero-terminated or null
/// and outlive their owner.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Label {
    /// Its name.
    pub name: *const c_char,
    /// The file that made it.
    pub file: *const c_char,
    /// The line there.
    pub line: u32,
}

impl Label {
    /// No name and no place.
    pub const NONE: Label = Label { name: ptr::null(), file: ptr::null(), line: 0 };
}

/// Rounds up to a power of two; the sum must not overflow.
#[inline(always)]
const fn round_up(value: usize, to: usize) -> usize {
    (value + (to - 1)) & !(to - 1)
}

/// How far it is from an address to the next multiple of `align`.
#[inline(always)]
fn gap(at: *mut u8, align: usize) -> usize {
    at.addr().wrapping_neg() & (align - 1)
}

/// The alignment that an option asks for: 0 is the usual one, and 16 the least.
fn asked_alignment(asked: usize) -> Result<usize, Error> {
    match asked {
        0 => Ok(allokit_core::MIN_ALIGN),
        _ if allokit_core::is_valid_align(asked) => Ok(asked.max(allokit_core::MIN_ALIGN)),
        _ => Err(Error::Invalid),
    }
}
