//! The table: for each unit of 64 KiB one word (owner and class) and one [`Page`] of metadata, outside the memory.
//!
//! A word is 0 (no block starts here), a heap's address plus a class from 1 to 127 (a page; bit 7 is kept for pages whose
//! blocks carry a tag), or [`LARGE`] in the low byte (a large block). Heaps are aligned to 256 bytes, so owner and class
//! do not overlap, and a thread tests "mine, and of which class?" with one exclusive or.

use crate::classes::{BINS, UNIT_SHIFT};
use crate::heap::Heap;
use crate::page::Page;
use crate::sync::{AtomicU64, Ordering};
use allokit_platform::AddressMap;

/// The low byte of the word of a large block.
pub(crate) const LARGE: u8 = 0xff;

const UNITS_PER_LEAF: usize = 1 << (32 - UNIT_SHIFT);

#[repr(C)]
struct Leaf {
    words: [AtomicU64; UNITS_PER_LEAF],
    pages: [Page; UNITS_PER_LEAF],
}

static MAP: AddressMap<{ size_of::<Leaf>() }> = AddressMap::new();

/// See the module's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl Word {
    pub(crate) const NONE: Word = Word(0);

    pub(crate) fn small(heap: *mut Heap, class: usize) -> Word {
        debug_assert!(heap.addr().is_multiple_of(256) && class > 0 && class < BINS);
        Word(heap.expose_provenance() as u64 | class as u64)
    }

    pub(crate) fn large() -> Word {
        Word(u64::from(LARGE))
    }

    /// The class when the page belongs to `heap`, else a number of at least [`BINS`].
    #[inline(always)]
    pub(crate) fn owned_by(self, heap: *mut Heap) -> usize {
        self.0 as usize ^ heap.addr()
    }

    #[inline(always)]
    pub(crate) fn kind(self) -> u8 {
        self.0 as u8
    }

    #[inline(always)]
    pub(crate) fn is_small(self) -> bool {
        self.0 != 0 && self.kind() != LARGE
    }

    #[inline(always)]
    pub(crate) fn is_large(self) -> bool {
        self.kind() == LARGE
    }

    #[inline(always)]
    pub(crate) fn class(self) -> usize {
        debug_assert!(self.is_small());
        self.0 as usize & (BINS - 1)
    }

    pub(crate) fn heap(self) -> *mut Heap {
        debug_assert!(self.is_small());
        core::ptr::with_exposed_provenance_mut((self.0 & !0xff) as usize)
    }
}

#[inline(always)]
fn index(addr: usize) -> usize {
    (addr >> UNIT_SHIFT) & (UNITS_PER_LEAF - 1)
}

/// The word of the unit that holds `addr`; 0 where nothing of ours is.
#[inline(always)]
pub(crate) fn word(addr: usize) -> Word {
    let leaf = MAP.leaf(addr).cast::<Leaf>();
    if leaf.is_null() {
        return Word::NONE;
    }
    // SAFETY: leaves live for good; words are atomic. A thread that may free a block learned of it from one that
    // received it after the word was written, so relaxed loads see it.
    unsafe { Word((*leaf).words[index(addr)].load(Ordering::Relaxed)) }
}

/// Sets the word of the unit that holds `addr`; its leaf exists.
pub(crate) fn set_word(addr: usize, word: Word) {
    let leaf = MAP.leaf(addr).cast::<Leaf>();
    debug_assert!(!leaf.is_null());
    // SAFETY: as in `word`.
    unsafe { (*leaf).words[index(addr)].store(word.0, Ordering::Relaxed) };
}

/// The metadata of the unit that holds `addr`, or null where nothing of ours is.
#[inline]
pub(crate) fn page(addr: usize) -> *mut Page {
    let leaf = MAP.leaf(addr).cast::<Leaf>();
    if leaf.is_null() {
        return core::ptr::null_mut();
    }
    // SAFETY: the index is within the leaf.
    unsafe { &raw mut (*leaf).pages[index(addr)] }
}

/// Makes the leaves for `bytes` from `start`. False when there is no memory for them.
pub(crate) fn cover(start: usize, bytes: usize) -> bool {
    let last = start + bytes - 1;
    let mut addr = start;
    loop {
        if MAP.leaf_or_insert(addr).is_null() {
            return false;
        }
        if addr >> 32 == last >> 32 {
            return true;
        }
        addr = ((addr >> 32) + 1) << 32;
    }
}

/// The lock under which leaves are made, for fork.
pub(crate) fn lock() -> &'static allokit_platform::Lock {
    MAP.lock()
}
