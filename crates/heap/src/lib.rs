//! Heaps: memory with an owner. Any number of them, each with a name, statistics and perhaps a limit and a parent; blocks
//! are freed one by one, or all at once when the heap is reset or destroyed, which costs pages, not blocks.
//!
//! Owns: the units that heaps are made of and the map from addresses to them ([`space`]), the pages of a chunk
//! ([`chunk`]), size classes ([`classes`]), limits ([`meter`]), the way into a heap ([`turn`]), the heap as C sees it ([`Raw`]) and,
//! over it, a safe type ([`Heap`]). Uses: `allokit-platform` for address space, the lock, fences and fork, `allokit-core` for the rules. No backend: heaps take memory
//! from the system themselves, so that they are the same over every backend.
//!
//! In short: a heap takes *chunks* of 16 or 64 KiB, made of units of 16 KiB; a chunk is divided into slices of 1 KiB; some
//! slices in a row are a *page* of blocks of one class, or one block of up to 16 KiB; a larger block is a run of units.
//! For each unit a map tells the chunk, and so the heap: that is how a bare pointer finds its owner. A chunk's head has a
//! bit for each 16 bytes that says whether a live block begins there, so a wrong or second free is always noticed.
//!
//! Invariants: all of a heap but its limit's count is touched by one thread at a time ([`turn`]); nobody is in two heaps. A call that
//! fails has changed nothing. Nothing here panics or prints: misuse comes back as a [`Fault`], and whoever called decides
//! by policy what becomes of it. The locks nest: tree, heap, space. Records of heaps are never given back, so a pointer to a
//! heap that has ended can be looked at.
#![no_std]

#[cfg(test)]
extern crate std;

mod chunk;
mod classes;
mod heap;
mod meter;
mod safe;
mod space;
mod turn;

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;

pub use heap::{Census, Raw, census, close, find, for_each, free_any, register_fork};
pub use safe::Heap;
pub use space::Figures;
pub use space::figures;

use core::ffi::c_char;
use core::ptr;

/// What was found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A block of another heap, or of none.
    Foreign,
    /// A block that is free already.
    DoubleFree,
    /// A pointer into a block, not at its beginning.
    Inside,
    /// A place in a heap's memory where no block is any more: freed, or its heap was reset or destroyed.
    Gone,
    /// The heap itself has been destroyed, or never was one.
    Ended,
    /// It cannot be destroyed while heaps that are its children live.
    HasChildren,
    /// It cannot be reset or destroyed while arenas have their memory in it.
    HasArenas,
}

impl Kind {
    /// As it is said in a report, after the words "allokit: ".
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Kind::Foreign => "what is given belongs to another owner or to none",
            Kind::DoubleFree => "double free",
            Kind::Inside => "it points into a block, not at its beginning",
            Kind::Gone => "the block was freed, or its heap was reset or destroyed",
            Kind::Ended => "it has been destroyed, or never was one",
            Kind::HasChildren => "it is the parent of heaps that live",
            Kind::HasArenas => "arenas have their memory in it",
        }
    }
}

/// A misuse: what it is, and which address it is about (0 when there is none).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What was found wrong.
    pub kind: Kind,
    /// The block or the heap.
    pub address: usize,
}

/// Why a call did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No memory: the system has none, a limit is reached, or the size is impossible.
    NoMemory,
    /// An argument that no state could make right: an alignment that is no power of two.
    Invalid,
    /// Misuse.
    Fault(Fault),
}

impl Error {
    pub(crate) const fn fault(kind: Kind, address: usize) -> Error {
        Error::Fault(Fault { kind, address })
    }
}

/// The longest name that is kept whole, in bytes.
pub const NAME_MAX: usize = 63;

/// What a heap is called and where it was made.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Its name, zero-terminated; empty for none.
    pub name: [u8; NAME_MAX + 1],
    /// The file that made it: zero-terminated, or null.
    pub file: *const c_char,
    /// The line there.
    pub line: u32,
}

impl Label {
    /// No name and no place.
    pub const NONE: Label = Label { name: [0; NAME_MAX + 1], file: ptr::null(), line: 0 };

    /// With a name, of which the first [`NAME_MAX`] bytes are kept, less where that would cut a character of UTF-8.
    #[must_use]
    pub fn named(name: &[u8]) -> Label {
        let mut length = name.len().min(NAME_MAX);
        while length > 0 && length < name.len() && name[length] & 0xC0 == 0x80 {
            length -= 1;
        }
        let mut label = Label::NONE;
        label.name[..length].copy_from_slice(&name[..length]);
        label
    }
}

/// How a heap is to be.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Name and place for reports.
    pub label: Label,
    /// The most bytes that blocks may occupy, those of heaps below it included; 0 for no limit.
    pub limit: usize,
}

impl Options {
    /// Everything as usual.
    pub const USUAL: Options = Options { label: Label::NONE, limit: 0 };
}

/// What `ak_heap_stats_t` reports after its first word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes that live blocks occupy: their usable sizes.
    pub current: usize,
    /// The most that `current` has been.
    pub peak: usize,
    /// Bytes taken from the system: what `current` is in, free parts included.
    pub reserved: usize,
    /// `current` and that of all heaps below this one.
    pub total: usize,
    /// The limit of `total`; 0 for none.
    pub limit: usize,
    /// Live blocks.
    pub blocks: usize,
    /// Heaps whose parent this one is.
    pub children: usize,
    /// Blocks handed out since the heap was made; a realloc that succeeds counts as one allocation and one free.
    pub allocs: u64,
    /// Blocks taken back, those of resets included.
    pub frees: u64,
    /// Allocations and reallocs that failed for want of memory, most often at the limit.
    pub failed: u64,
}

/// Rounds up to a power of two; the sum must not overflow.
#[inline(always)]
const fn round_up(value: usize, to: usize) -> usize {
    (value + (to - 1)) & !(to - 1)
}
