//! A chunk: 16 or 64 KiB of one heap, divided into slices of 1 KiB. Its head has, for each slice, 64 bits that say where
//! live blocks begin, the number of the page that the slice belongs to, and room for a page's record.
//!
//! Invariants, checked by `Raw::check`: `free` has the bits of exactly the slices that no page has; a page's `used` is the
//! number of bits set in its slices; `used <= carved <= capacity`; its free list has `carved - used` blocks.

use crate::classes::SLICE;
use crate::heap::Raw;
use crate::space::{self, UNIT};
use core::sync::atomic::AtomicPtr;

/// A free block.
pub(crate) struct Block {
    pub next: *mut Block,
}

/// Some slices in a row: blocks of one class, or one block.
pub(crate) struct Page {
    /// Freed blocks.
    pub free: *mut Block,
    /// In the list of the class's pages that have room.
    pub next: *mut Page,
    pub prev: *mut Page,
    pub chunk: *mut Chunk,
    /// Of each block.
    pub size: u16,
    pub capacity: u16,
    /// How many blocks have ever been handed out, or lie in the free list.
    pub carved: u16,
    pub used: u16,
    /// The first slice, and how many.
    pub first: u8,
    pub slices: u8,
    /// `CLASSES` for a block by itself.
    pub class: u8,
    /// Whether it is in the list.
    pub listed: bool,
}

/// The head of a chunk. A byte for each slice follows (room for 64), then a page's record for each, then the bits.
pub(crate) struct Chunk {
    pub heap: AtomicPtr<Raw>,
    /// All chunks of the heap.
    pub next: *mut Chunk,
    pub prev: *mut Chunk,
    /// Those in which slices may be free.
    pub roomy_next: *mut Chunk,
    pub roomy_prev: *mut Chunk,
    pub roomy: bool,
    pub units: u8,
    /// How many slices the head has.
    head: u8,
    /// A bit for each free slice.
    pub free: u64,
    /// The bits of the first slice.
    live: *mut u64,
}

/// How many slices a unit has.
pub(crate) const PER_UNIT: usize = UNIT / SLICE;

const NUMBERS_AT: usize = size_of::<Chunk>();
const PAGES_AT: usize = NUMBERS_AT + 64;

const fn head_slices(units: usize) -> usize {
    (PAGES_AT + units * PER_UNIT * (size_of::<Page>() + 8)).div_ceil(SLICE)
}
const _: () = assert!(head_slices(1) == 1 && head_slices(4) == 4);
/// How many slices of a chunk of one unit, and of four, are there for pages.
pub(crate) const ROOM_SMALL: usize = PER_UNIT - head_slices(1);
pub(crate) const ROOM_LARGE: usize = 4 * PER_UNIT - head_slices(4);

/// # Safety of all functions here
/// The chunk is one that [`Chunk::make`] made; its heap's lock is held.
impl Chunk {
    /// Makes a run of units a chunk; everything but the lists.
    pub unsafe fn make(start: *mut u8, units: usize, heap: *mut Raw) -> *mut Chunk {
        let chunk = start.cast::<Chunk>();
        let slices = units * PER_UNIT;
        // SAFETY: the run is the caller's, and large enough for the head.
        unsafe {
            chunk.write(Chunk {
                heap: AtomicPtr::new(heap),
                next: core::ptr::null_mut(),
                prev: core::ptr::null_mut(),
                roomy_next: core::ptr::null_mut(),
                roomy_prev: core::ptr::null_mut(),
                roomy: false,
                units: units as u8,
                head: head_slices(units) as u8,
                free: 0,
                live: start.add(PAGES_AT + slices * size_of::<Page>()).cast(),
            });
            Chunk::clear(chunk);
        }
        space::set_chunk(start, units);
        chunk
    }

    /// Makes it empty.
    pub unsafe fn clear(chunk: *mut Chunk) {
        // SAFETY: the caller's promise.
        unsafe {
            (*chunk).free = Chunk::all(chunk);
            Chunk::live(chunk, 0).write_bytes(0, (*chunk).units as usize * PER_UNIT);
        }
    }

    /// The bits of all slices that pages may have.
    pub unsafe fn all(chunk: *mut Chunk) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { (u64::MAX >> (64 - (*chunk).units as usize * PER_UNIT)) & (u64::MAX << (*chunk).head) }
    }

    /// The bits of a slice.
    #[inline(always)]
    pub unsafe fn live(chunk: *mut Chunk, slice: usize) -> *mut u64 {
        // SAFETY: the caller's promise.
        unsafe { (*chunk).live.add(slice) }
    }

    /// The number of the first slice of a slice's page.
    #[inline(always)]
    unsafe fn page_of(chunk: *mut Chunk, slice: usize) -> *mut u8 {
        // SAFETY: the numbers follow the head.
        unsafe { chunk.byte_add(NUMBERS_AT + slice).cast() }
    }

    /// The record of the page whose first slice this is.
    #[inline(always)]
    pub unsafe fn record(chunk: *mut Chunk, first: usize) -> *mut Page {
        // SAFETY: the records follow the numbers.
        unsafe { chunk.byte_add(PAGES_AT).cast::<Page>().add(first) }
    }

    /// The page that a slice in use belongs to.
    #[inline(always)]
    pub unsafe fn page(chunk: *mut Chunk, slice: usize) -> *mut Page {
        // SAFETY: the caller's promise.
        unsafe { Chunk::record(chunk, *Chunk::page_of(chunk, slice) as usize) }
    }

    /// Where a run of so many free slices begins.
    pub unsafe fn room(chunk: *mut Chunk, slices: usize) -> Option<usize> {
        // SAFETY: the caller's promise.
        let mut starts = unsafe { (*chunk).free };
        let mut length = 1;
        while length < slices {
            let step = length.min(slices - length);
            starts &= starts >> step;
            length += step;
        }
        if starts == 0 { None } else { Some(starts.trailing_zeros() as usize) }
    }

    /// Makes free slices a page of blocks of `size`.
    pub unsafe fn make_page(chunk: *mut Chunk, first: usize, slices: usize, size: usize, class: usize) -> *mut Page {
        // SAFETY: the caller's promise; the slices are free.
        unsafe {
            (*chunk).free &= !mask(first, slices);
            for slice in first..first + slices {
                Chunk::page_of(chunk, slice).write(first as u8);
            }
            let page = Chunk::record(chunk, first);
            page.write(Page {
                free: core::ptr::null_mut(),
                next: core::ptr::null_mut(),
                prev: core::ptr::null_mut(),
                chunk,
                size: size as u16,
                capacity: (slices * SLICE / size) as u16,
                carved: 0,
                used: 0,
                first: first as u8,
                slices: slices as u8,
                class: class as u8,
                listed: false,
            });
            page
        }
    }

    /// The bit of the block that begins at an offset of the chunk, and where it is.
    #[inline(always)]
    pub unsafe fn bit(chunk: *mut Chunk, offset: usize) -> (*mut u64, u64) {
        // SAFETY: the caller's promise.
        unsafe { (Chunk::live(chunk, offset / SLICE), 1 << (offset / 16 % 64)) }
    }
}

/// The bits of slices.
pub(crate) fn mask(first: usize, slices: usize) -> u64 {
    (u64::MAX >> (64 - slices)) << first
}
