//! A page: a run of units that holds blocks of one class; and the metadata of a unit, whatever it is part of.

use crate::classes::{self, UNIT};
use crate::heap::{Block, Heap};
use crate::sync::{AtomicPtr, AtomicU8, Ordering};
use crate::table::{self, Word};
use crate::{tagged, upkeep};
use allokit_core::Tag;
use allokit_platform::pages;
use core::cell::UnsafeCell;
use core::ptr;
// Not from `sync`: see tagged.rs.
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};

/// What a unit is part of. Zeroed metadata is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(dead_code)] // `None` is made by zeroed memory
pub(crate) enum Kind {
    /// Not ours, or never used.
    None = 0,
    /// The first unit of a page.
    Small,
    /// A further unit of a page; `start` says where it begins.
    Inside,
    /// The first unit of a large block.
    Large,
    /// The last unit of a large block of several units.
    LargeEnd,
    /// The first unit of a free run.
    Free,
    /// The last unit of a free run of several units.
    FreeEnd,
    /// The first or last unit of a run that is neither free nor in use yet.
    Busy,
    /// The first unit of a large block that was freed and waits in a heap's cache.
    Cached,
}

/// A [`Kind`] that a neighbour may read, under the lock of the runs, while the owner of the run changes it.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct KindCell(AtomicU8);

impl KindCell {
    #[inline]
    pub(crate) fn get(&self) -> Kind {
        // SAFETY: only `set` writes it, or it is zero: always a value of `Kind`.
        unsafe { core::mem::transmute::<u8, Kind>(self.0.load(Ordering::Relaxed)) }
    }

    #[inline]
    pub(crate) fn set(&self, kind: Kind) {
        self.0.store(kind as u8, Ordering::Relaxed);
    }
}

/// The metadata of one unit. The first cache line serves pages, the second free runs.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Page {
    // -- pages: under the owner's lock
    /// No word of [`Page::bits`] before this one has a bit.
    pub first: u16,
    /// Where the first block begins, in bytes: 0, or [`classes::LEAD`] where they carry tags.
    pub lead: u16,
    /// The page's own bin while it is cold, as an offset from the heap; 0 while it is hot.
    pub slot: u32,
    /// Blocks that came home: as many as there are bits in [`Page::bits`].
    pub free_count: u32,
    /// Blocks made so far.
    pub carved: u32,
    /// Blocks that another thread took home while the page was cold: the page's bin does not know of them yet.
    pub outside: u32,
    /// The epoch in which a block last came home or went out.
    pub touched: u16,
    /// Whether the memory of the free blocks has been given back since.
    pub thin: bool,
    /// What was left in the page's bin when it was last looked at, cut off: whether anything happened to it since.
    pub seen: u8,
    /// The owner.
    pub heap: AtomicPtr<Heap>,
    // -- all kinds
    /// The first byte of the run.
    pub start: *mut u8,
    /// Length of the run in units; valid in the first unit, and in the last one of a free run.
    pub units: u32,
    /// See [`Kind`].
    pub kind: KindCell,
    /// The class of a page.
    pub class: u8,
    /// Whether the page is in its heap's queue.
    pub queued: bool,
    /// Whether the run, free or just taken, is known to be zero.
    pub zero: bool,
    // -- lists: a heap's queue of pages, or free runs of one length
    /// The next one.
    pub next: *mut Page,
    /// The one before; null for the first.
    pub prev: *mut Page,
    // -- second line: the bits of a page with few blocks, see [`Page::bits`]
    bits: [u64; IN_PAGE],
    /// Where its bits are.
    bits_at: *mut u64,
    // -- and dirty free runs by age, under the lock of the runs
    /// When the run was freed, in ms.
    pub freed_at: u64,
    /// The next younger one. (Of a large block with a tag, its size: see [`Page::large_size`].)
    pub younger: *mut Page,
    /// The next older one. (Of a large block, its tag: see [`Page::large_tag`].)
    pub older: *mut Page,
}

// Two cache lines, the first one for what is looked at in turns. (The model's atomics are larger.)
const _: () =
    assert!(size_of::<AtomicPtr<Heap>>() > 8 || size_of::<Page>() == 128 && core::mem::offset_of!(Page, bits) == 64);

/// The bits of a page of one unit: see [`Page::bits`].
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Bits<const WORDS: usize>(UnsafeCell<[u64; WORDS]>);

/// Words for the blocks of a page of 16-byte blocks; for those of 64 bytes; in the page's own record.
pub(crate) const MOST: usize = UNIT / 16 / 64;
pub(crate) const MANY: usize = UNIT / 64 / 64;
const IN_PAGE: usize = 4;

/// The page of a block (a pointer into a unit whose word is that of a page).
///
/// # Safety
/// The table's word for `addr` is that of a page.
#[inline]
pub(crate) unsafe fn of_block(addr: usize) -> *mut Page {
    let page = table::page(addr);
    // SAFETY: a unit with a page's word has metadata, of kind Small or Inside, and `start` in both.
    unsafe { if (*page).kind.get() == Kind::Small { page } else { table::page((*page).start.addr()) } }
}

/// Whether a pointer into a page is the start of a block that was carved; for debug assertions.
///
/// # Safety
/// The table's word for `ptr` is that of a page.
pub(crate) unsafe fn is_block_start(ptr: *const u8) -> bool {
    // SAFETY: the caller's promise. `start` and `class` do not change while a block of the page is live.
    unsafe {
        let page = of_block(ptr.addr());
        let offset = (ptr.addr() - (*page).start.addr()).wrapping_sub((*page).lead as usize);
        (offset as isize) >= 0 && offset.is_multiple_of(classes::class_size((*page).class as usize))
    }
}

impl Page {
    /// Makes a fresh run into an empty page of a heap.
    ///
    /// # Safety
    /// `page` is the first unit of a run that the caller has just taken, of the length that the class wants.
    pub(crate) unsafe fn init(page: *mut Page, heap: *mut Heap, class: usize) {
        let about = classes::get(class);
        // SAFETY: the run is the caller's, so all its units' metadata are.
        unsafe {
            debug_assert!((*page).units == about.units);
            (*page).first = 0;
            (*page).lead = if (*heap).tagged { classes::LEAD as u16 } else { 0 };
            (*page).slot = 0;
            (*page).thin = false;
            (*page).free_count = 0;
            (*page).carved = 0;
            (*page).outside = 0;
            (*page).class = class as u8;
            (*page).queued = false;
            (*page).kind.set(Kind::Small);
            let start = (*page).start;
            let words = about.capacity.div_ceil(64) as usize;
            (*page).bits_at =
                if words <= IN_PAGE { (&raw mut (*page).bits).cast() } else { table::bits(start.addr(), words) };
            for unit in 1..about.units as usize {
                let inside = table::page(start.addr() + unit * UNIT);
                (*inside).kind.set(Kind::Inside);
                (*inside).class = class as u8;
                (*inside).start = start;
            }
            Page::set_owner(page, heap);
        }
    }

    /// Names the owner in the metadata and in the words.
    ///
    /// # Safety
    /// `page` is a page that nobody else may change: a fresh one, or under its owner's lock.
    pub(crate) unsafe fn set_owner(page: *mut Page, heap: *mut Heap) {
        // SAFETY: the caller's promise.
        unsafe {
            (*page).heap.store(heap, Ordering::Relaxed);
            Page::set_words(page, Word::small(heap, (*page).class as usize));
        }
    }

    /// Names the bin that takes the page's blocks.
    ///
    /// # Safety
    /// As [`Page::set_owner`].
    pub(crate) unsafe fn set_words(page: *mut Page, word: Word) {
        // SAFETY: the caller's promise.
        unsafe {
            for unit in 0..(*page).units as usize {
                table::set_word((*page).start.addr() + unit * UNIT, word);
            }
        }
    }

    /// Blocks that fit.
    ///
    /// # Safety
    /// `page` is a page.
    pub(crate) unsafe fn capacity(page: *mut Page) -> u32 {
        // SAFETY: the caller's promise.
        unsafe {
            let about = classes::get((*page).class as usize);
            if (*page).lead == 0 { about.capacity } else { about.tagged_capacity }
        }
    }

    /// The first block's address.
    ///
    /// # Safety
    /// `page` is a page.
    #[inline(always)]
    pub(crate) unsafe fn first_block(page: *mut Page) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { (*page).start.add((*page).lead as usize) }
    }

    /// The number of the block that `addr` lies in, or that its tag is before.
    ///
    /// # Safety
    /// `page` is a page, and `addr` not before its first block.
    #[inline(always)]
    pub(crate) unsafe fn number(page: *mut Page, addr: usize) -> usize {
        // SAFETY: the caller's promise.
        unsafe {
            let magic = classes::get((*page).class as usize).magic;
            classes::number(magic, addr - (*page).start.addr() - (*page).lead as usize)
        }
    }

    /// Whether there are blocks to be had that are in no list: at home, or not carved yet.
    ///
    /// # Safety
    /// Under the owner's lock.
    pub(crate) unsafe fn has_free(page: *mut Page) -> bool {
        // SAFETY: the caller's promise.
        unsafe { (*page).free_count > 0 || (*page).carved < Page::capacity(page) }
    }

    /// The tag of a large block, where a run that waits has a pointer, whose top byte is that of no tag.
    ///
    /// # Safety
    /// `page` is the first unit of a run in use or cached.
    #[inline(always)]
    pub(crate) unsafe fn large_tag<'a>(page: *mut Page) -> &'a AtomicU64 {
        // SAFETY: metadata is for good; the place is as large and aligned as a pointer.
        unsafe { &*(&raw const (*page).older).cast::<AtomicU64>() }
    }

    /// Where a large block with a tag was freed, as long as nothing became of the run.
    ///
    /// # Safety
    /// As [`Page::large_tag`].
    #[inline(always)]
    pub(crate) unsafe fn large_freed_at<'a>(page: *mut Page) -> &'a AtomicU32 {
        // SAFETY: as above.
        unsafe { &*(&raw const (*page).freed_at).cast::<AtomicU32>() }
    }

    /// The size as asked for of a large block with a tag.
    ///
    /// # Safety
    /// As [`Page::large_tag`].
    #[inline(always)]
    pub(crate) unsafe fn large_size<'a>(page: *mut Page) -> &'a AtomicUsize {
        // SAFETY: as above.
        unsafe { &*(&raw const (*page).younger).cast::<AtomicUsize>() }
    }

    /// Takes the words away; the run is no page any more.
    ///
    /// # Safety
    /// The page is empty, and under its owner's lock.
    pub(crate) unsafe fn retire(page: *mut Page) {
        // SAFETY: the caller's promise.
        unsafe {
            debug_assert!(!(*page).queued && (*page).slot == 0);
            if (*page).free_count > 0 {
                Page::bits(page).cast::<u64>().write_bytes(0, ((*page).carved as usize).div_ceil(64));
            }
            Page::set_words(page, Word::NONE);
        }
    }

    /// A bit for each block of a page, set while the block is free and at home, as an array of words: outside the blocks,
    /// so that a block that goes home is not touched, one that comes home twice is seen, and blocks are handed out in the
    /// order of their addresses. In the page's own record where they fit, else in arrays apart: as close together as the
    /// class allows, since they stay when the page goes.
    ///
    /// # Safety
    /// `page` is a page; the bits are read and written under its owner's lock.
    #[inline(always)]
    pub(crate) unsafe fn bits(page: *mut Page) -> *mut u64 {
        // SAFETY: the caller's promise.
        unsafe { (*page).bits_at }
    }

    /// Takes a block home. False when it is at home already: it was freed twice.
    ///
    /// # Safety
    /// Under the owner's lock; the block is the page's.
    #[inline(always)]
    #[must_use]
    pub(crate) unsafe fn put(page: *mut Page, block: *mut u8) -> bool {
        // SAFETY: the caller's promise: the block's number is below the capacity.
        unsafe {
            let number = Page::number(page, block.addr());
            debug_assert!(number < (*page).carved as usize);
            let word = Page::bits(page).add(number / 64);
            let bit = 1 << (number % 64);
            if *word & bit != 0 {
                return false;
            }
            *word |= bit;
            (*page).first = (*page).first.min((number / 64) as u16);
            (*page).touched = upkeep::epoch();
            (*page).thin = false;
            (*page).free_count += 1;
            true
        }
    }

    /// Gives out up to `most` blocks that are at home, as a list in the order of their addresses: the first one, or null,
    /// and how many.
    ///
    /// # Safety
    /// Under the owner's lock.
    pub(crate) unsafe fn take(page: *mut Page, most: u32) -> (*mut Block, u32) {
        // SAFETY: the caller's promise; a block with a bit is free and nobody has it.
        unsafe {
            let count = most.min((*page).free_count);
            if count == 0 {
                return (ptr::null_mut(), 0);
            }
            let size = classes::class_size((*page).class as usize);
            let bits = Page::bits(page);
            let first = Page::first_block(page);
            let mut at = (*page).first as usize;
            let mut head: *mut Block = ptr::null_mut();
            let mut link = &raw mut head;
            let mut left = count;
            loop {
                let mut word = *bits.add(at);
                while word != 0 && left > 0 {
                    let number = at * 64 + word.trailing_zeros() as usize;
                    word &= word - 1;
                    left -= 1;
                    let block = first.add(number * size).cast::<Block>();
                    *link = block;
                    link = &raw mut (*block).next;
                }
                *bits.add(at) = word;
                if left == 0 {
                    break;
                }
                at += 1;
            }
            *link = ptr::null_mut();
            (*page).touched = upkeep::epoch();
            (*page).first = at as u16;
            (*page).free_count -= count;
            (head, count)
        }
    }

    /// Gives back the memory of the OS pages in which all blocks are at home. How many stretches that were.
    ///
    /// # Safety
    /// Under the owner's lock.
    pub(crate) unsafe fn thin_out(page: *mut Page) -> usize {
        // SAFETY: the caller's promise; nobody needs the contents of a block at home.
        unsafe {
            (*page).thin = true;
            let size = classes::class_size((*page).class as usize);
            let carved = (*page).carved as usize;
            let bits = Page::bits(page);
            let is_free = |number: usize| *bits.add(number / 64) & (1 << (number % 64)) != 0;
            let mut stretches = 0;
            let mut number = 0;
            while number < carved {
                if !is_free(number) {
                    number += 1;
                    continue;
                }
                let first = number;
                while number < carved && is_free(number) {
                    number += 1;
                }
                // From the first one's tag to the next one's.
                let lead = ((*page).lead as usize).saturating_sub(classes::TAG);
                let os_page = pages::os_page();
                let from = (lead + first * size).next_multiple_of(os_page);
                let to = (lead + number * size) & !(os_page - 1);
                if from < to {
                    // Failure (locked memory) leaves it there.
                    let _ = pages::purge((*page).start.add(from), to - from);
                    stretches += 1;
                }
            }
            stretches
        }
    }

    /// Makes the next blocks of a page and gives them out as a list: the first one, and how many.
    ///
    /// # Safety
    /// Under the owner's lock; not all blocks are carved.
    pub(crate) unsafe fn carve(page: *mut Page) -> (*mut Block, u32) {
        // SAFETY: the blocks from `carved` on lie in the page and nobody uses them.
        unsafe {
            let about = classes::get((*page).class as usize);
            let size = about.size as usize;
            let count = about.step.min(Page::capacity(page) - (*page).carved);
            debug_assert!(count > 0);
            let first = Page::first_block(page).add((*page).carved as usize * size);
            let mut block = first;
            if (*page).lead != 0 {
                // What was here before may look like a tag.
                for number in 0..count as usize {
                    tagged::set(first.add(number * size), Tag::NONE);
                }
            }
            for _ in 1..count {
                let next = block.add(size);
                (*block.cast::<Block>()).next = next.cast();
                block = next;
            }
            (*block.cast::<Block>()).next = ptr::null_mut();
            (*page).carved += count;
            (first.cast(), count)
        }
    }
}
