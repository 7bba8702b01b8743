//! A chunk: 16 or 64 KiB of one heap, divided into slices of 1 KiB. Its head has, for each slice, 64 bits that say where
//! live blocks begin, the number of the page that the slice belongs to, and room for a page's record.
//!
//! Invariants, checked by `Raw::check`: `free` has the bits of exactly the slices that no page has; a page's [`Page::live`] is
//! the number of bits set in its slices; `live <= carved <= capacity`; its free list has `carved - live` blocks.

use crate::classes::SLICE;
use crate::heap::Raw;
use crate::space::{self, UNIT};
use allokit_core::MIN_ALIGN;
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
    /// The bits of the chunk, as in [`Chunk::bits`].
    pub bits: *mut u64,
    /// Of each block.
    pub size: u16,
    pub capacity: u16,
    /// How many blocks have ever been handed out, or lie in the free list.
    pub carved: u16,
    /// How many blocks live, so that the free that makes it 0 is the only one that must look further: one more in the page
    /// that is its class's spare one; 1 in a page that is full and in no list.
    pub used: u16,
    /// The first slice, and how many.
    pub first: u8,
    pub slices: u8,
    /// `CLASSES` for a block by itself.
    pub class: u8,
    /// Whether it is in the list.
    pub listed: bool,
}

impl Page {
    /// The chunk that it lies in.
    #[inline(always)]
    pub unsafe fn chunk(page: *mut Page) -> *mut Chunk {
        // SAFETY: the record of slice `first` lies there, and the pointer may be used for all of the chunk.
        unsafe { page.sub((*page).first as usize).byte_sub(PAGES_AT).cast() }
    }

    /// How many blocks live.
    pub unsafe fn live(page: *mut Page, spare: bool) -> usize {
        // SAFETY: the caller's promise.
        unsafe { if (*page).listed { ((*page).used - u16::from(spare)) as usize } else { (*page).capacity as usize } }
    }
}

/// The head of a chunk. A page's record for each slice follows, then the bits, then the numbers.
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
    /// Where the bits of the slice at address 0 would be: those of an address are `addr / SLICE` further.
    pub bits: *mut u64,
    /// The like for how far behind the chunk's begin the record of a slice's page lies.
    pub numbers: *mut u16,
}

/// How many slices a unit has.
pub(crate) const PER_UNIT: usize = UNIT / SLICE;

const PAGES_AT: usize = size_of::<Chunk>();

const fn head_slices(units: usize) -> usize {
    (PAGES_AT + units * PER_UNIT * (size_of::<Page>() + 8 + 2)).div_ceil(SLICE)
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
        let first = start.addr() / SLICE;
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
                bits: start.add(PAGES_AT + slices * size_of::<Page>()).cast::<u64>().wrapping_sub(first),
                numbers: start.add(PAGES_AT + slices * (size_of::<Page>() + 8)).cast::<u16>().wrapping_sub(first),
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
        unsafe { (*chunk).bits.wrapping_add(chunk.addr() / SLICE + slice) }
    }

    /// The record of the page whose first slice this is.
    #[inline(always)]
    pub unsafe fn record(chunk: *mut Chunk, first: usize) -> *mut Page {
        // SAFETY: the records follow the head.
        unsafe { chunk.byte_add(PAGES_AT).cast::<Page>().add(first) }
    }

    /// The page that a slice in use belongs to.
    #[inline(always)]
    pub unsafe fn page(chunk: *mut Chunk, slice: usize) -> *mut Page {
        // SAFETY: the caller's promise.
        unsafe { Chunk::page_at(chunk, chunk.addr() + slice * SLICE) }
    }

    /// The page that an address in a slice in use belongs to.
    #[inline(always)]
    pub unsafe fn page_at(chunk: *mut Chunk, addr: usize) -> *mut Page {
        // SAFETY: the caller's promise.
        unsafe { chunk.byte_add(*(*chunk).numbers.wrapping_add(addr / SLICE) as usize).cast() }
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
            let page = Chunk::record(chunk, first);
            let number = (page.addr() - chunk.addr()) as u16;
            for slice in first..first + slices {
                (*chunk).numbers.wrapping_add(chunk.addr() / SLICE + slice).write(number);
            }
            page.write(Page {
                free: core::ptr::null_mut(),
                next: core::ptr::null_mut(),
                prev: core::ptr::null_mut(),
                bits: (*chunk).bits,
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
}

/// Where the bit of the block that begins at an address is, given [`Chunk::bits`]: the word, and the number in it.
#[inline(always)]
pub(crate) fn bit(bits: *mut u64, addr: usize) -> (*mut u64, usize) {
    (bits.wrapping_add(addr / SLICE), addr / MIN_ALIGN % 64)
}

/// The bits of slices.
pub(crate) fn mask(first: usize, slices: usize) -> u64 {
    (u64::MAX >> (64 - slices)) << first
}
