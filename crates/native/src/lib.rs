//! Allokit's own allocator.
//!
//! Owns: size classes ([`classes`]), the table from addresses to pages ([`table`]), runs of address space ([`runs`]),
//! thread heaps ([`heap`]), large blocks ([`large`]) and each heap's cache of them ([`cache`]), guarded samples
//! ([`sampled`]), what must happen by time
//! ([`upkeep`]). Uses: `allokit-platform` for everything that touches the system, `allokit-core` for the contract.
//!
//! In short: memory is divided into units of 64 KiB. A *run* is some units in a row; a *page* is a run that holds blocks
//! of one size class; a larger block is a run of its own. For each unit a table outside the memory itself holds one
//! 8-byte word, owner and class, so that `free` finds out everything in one load and a wild pointer finds nothing. Each
//! thread owns a *heap*: for each class a list from which blocks are popped and a *bin* onto which the thread's own frees
//! are pushed, without a lock or an atomic operation. Everything behind the bins happens under the
//! heap's lock, by its own thread nearly always, by another thread when this one sleeps or has died.
//!
//! Invariants, checked by [`check`]: for each page `free_count <= carved <= capacity`, its bits say which `free_count` blocks
//! are at home; of a cold one, `free_count`, the blocks in its bin and those that the bin waits for are `carved`; for each
//! block in a list the table names its class; runs and free runs tile the memory.
#![no_std]

#[cfg(any(test, miri))]
extern crate std;

mod cache;
mod check;
mod classes;
mod foreign;
mod fork;
mod heap;
mod large;
mod page;
#[cfg(test)]
mod property;
mod runs;
mod sampled;
mod sync;
mod table;
mod tagged;
#[cfg(test)]
mod tests;
mod upkeep;

pub use check::check;
pub use classes::{CLASS_COUNT, SMALL_MAX, class_size};

use allokit_core::counts::Totals;
use allokit_core::{Backend, Fault, FaultKind, Found, Known, MAX_SIZE, Others, SampleHooks, Stats, Tag, Tagged};
use allokit_platform::{errno, handler};
use core::ptr;
use heap::{Bin, Block, HEAP, Heap, OPEN_HEAP};
use sync::Ordering;
use table::Word;

/// The native backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct Native;

impl Native {
    /// From now on so many bytes are made accessible at a time, rounded up to a power of two of 64 KiB at least: where
    /// wild writes shall meet inaccessible memory soon.
    pub fn commit_in_steps_of(bytes: usize) {
        runs::STEP.store(bytes.next_power_of_two().max(classes::UNIT), sync::Ordering::Relaxed);
    }

    /// The list for a size up to [`SMALL_MAX`].
    ///
    /// # Safety
    /// `heap` is a heap or a placeholder.
    #[inline(always)]
    #[allow(clippy::manual_div_ceil)] // the sum cannot overflow, and this is one instruction less
    unsafe fn list_for(heap: *mut Heap, size: usize) -> *mut *mut Block {
        // SAFETY: the table has an entry for each multiple of 16 up to TABLE_MAX, and all offsets are those of lists.
        unsafe {
            let offset = if size <= classes::TABLE_MAX {
                let tiny = (&raw const (*heap).tiny).cast::<u16>();
                *tiny.add((size + 15) / 16) as usize
            } else {
                classes::of_small(size) * size_of::<*mut Block>() + heap::HEADS_AT
            };
            heap.byte_add(offset).cast()
        }
    }

    /// The first block of a list, or null.
    ///
    /// # Safety
    /// The list is one of this thread's heap, or of a placeholder's.
    #[inline(always)]
    unsafe fn pop(list: *mut *mut Block) -> *mut u8 {
        // SAFETY: the list is this thread's, or a static one that is empty; only this thread touches it. A block in a list
        // is free and holds the next one.
        unsafe {
            let block = *list;
            if !block.is_null() {
                *list = (*block).next;
            }
            block.cast()
        }
    }

    /// # Safety
    /// The bin is this thread's and for the page of `ptr`, which the caller gives up.
    #[inline(always)]
    unsafe fn free_into(bin: *mut Bin, ptr: *mut u8) {
        // SAFETY: the caller's promise: the block's first bytes are ours now.
        unsafe {
            debug_assert!(page::is_block_start(ptr), "free of an interior pointer");
            (*bin).room -= 1;
            if (*bin).room < 0 {
                return heap::overflow(bin, ptr);
            }
            heap::push(bin, ptr.cast());
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn fail() -> *mut u8 {
        errno::set(errno::ENOMEM);
        ptr::null_mut()
    }

    /// Gives back at once what is free: what `malloc_trim` promises. The calling thread's bins are emptied too.
    pub fn trim() {
        upkeep::trim();
    }
}

/// What a free of a pointer that is no block of ours does; the layer above may have a better report.
#[cold]
#[inline(never)]
pub(crate) fn invalid(ptr: *const u8, what: &str) -> ! {
    use core::fmt::Write;
    let mut out = allokit_platform::stderr::Stderr::new();
    let _ = writeln!(out, "allokit: {what} of {:#x}, which is no live block of this allocator", ptr.addr());
    out.flush();
    if handler::is_set() {
        // Some callers are amid a walk over a list of this thread's heap, under its lock: what the handler allocates comes
        // from another heap.
        heap::leave();
        let (kind, operation) = match what {
            "second free" => (FaultKind::DoubleFree, c"free"),
            "realloc" => (FaultKind::InvalidFree, c"realloc"),
            "usable size" => (FaultKind::InvalidFree, c"usable size"),
            _ => (FaultKind::InvalidFree, c"free"),
        };
        handler::call(&Fault { operation: operation.as_ptr(), block: ptr.cast(), ..Fault::new(kind) });
    }
    allokit_platform::abort()
}

// SAFETY: see the crate's head: every block is handed out once (a block is in exactly one of: live, a bin, an inbox, a
// page's free list), pages start at multiples of 64 KiB and class sizes are multiples of 16.
unsafe impl Backend for Native {
    const NAME: &'static str = "native";
    const FREES_NULL: bool = true;

    #[inline]
    fn alloc(size: usize) -> *mut u8 {
        if size > SMALL_MAX {
            return large::alloc(size, 1, false);
        }
        let heap = HEAP::get();
        // SAFETY: the cell points at this thread's heap, or at a placeholder.
        unsafe {
            let list = Self::list_for(heap, size);
            let block = Self::pop(list);
            if block.is_null() {
                heap::alloc_slow(heap, (list.addr() - heap.addr() - heap::HEADS_AT) / size_of::<*mut Block>(), size)
            } else {
                block
            }
        }
    }

    #[inline]
    fn alloc_zeroed(size: usize) -> *mut u8 {
        if size > SMALL_MAX {
            return large::alloc(size, 1, true);
        }
        let block = Self::alloc(size);
        if !block.is_null() {
            // SAFETY: the block is ours and at least this large.
            unsafe { block.write_bytes(0, size) };
        }
        block
    }

    #[inline]
    fn alloc_aligned(size: usize, align: usize) -> *mut u8 {
        debug_assert!(allokit_core::is_valid_align(align));
        if size > MAX_SIZE - align {
            return Self::fail();
        }
        // A class of a size that is a multiple of `align` is itself one, and pages start at multiples of 64 KiB.
        let rounded = (size.max(1) + align - 1) & !(align - 1);
        if rounded <= SMALL_MAX {
            let block = Self::alloc(rounded);
            debug_assert!(block.addr() & (align - 1) == 0);
            return block;
        }
        large::alloc(size, align, false)
    }

    fn alloc_aligned_zeroed(size: usize, align: usize) -> *mut u8 {
        if size <= MAX_SIZE - align && (size.max(1) + align - 1) & !(align - 1) > SMALL_MAX {
            return large::alloc(size, align, true);
        }
        let block = Self::alloc_aligned(size, align);
        if !block.is_null() {
            // SAFETY: the block is ours and at least this large.
            unsafe { block.write_bytes(0, size) };
        }
        block
    }

    #[inline]
    unsafe fn realloc(ptr: *mut u8, size: usize) -> *mut u8 {
        let word = table::word(ptr.addr());
        let old = if word.is_small() {
            if word.is_tagged() {
                // SAFETY: the caller's promise.
                return unsafe { tagged::realloc_plainly(ptr, size) };
            }
            let old = class_size(word.class(ptr.addr()));
            // In place unless more than half would be wasted.
            if size <= old && (size >= old / 2 || old <= 64) {
                return ptr;
            }
            old
        } else if word.is_large() {
            if tagged::is_large_tagged(ptr) {
                // SAFETY: the caller's promise.
                return unsafe { tagged::realloc_plainly(ptr, size) };
            }
            if size > SMALL_MAX {
                // SAFETY: the caller's promise: a live block.
                return unsafe { large::resize(ptr, size) };
            }
            // SAFETY: as above.
            unsafe { large::usable(ptr) }
        } else {
            // SAFETY: as above.
            return unsafe { foreign::realloc(ptr, size) };
        };
        let block = if size > SMALL_MAX { large::alloc_growing(size) } else { Self::alloc(size) };
        if !block.is_null() {
            // SAFETY: both are live and distinct; the smaller size fits both.
            unsafe {
                block.copy_from_nonoverlapping(ptr, old.min(size));
                Self::free(ptr);
            }
        }
        block
    }

    #[inline]
    unsafe fn free(ptr: *mut u8) {
        let word = table::word(ptr.addr());
        let heap = HEAP::get();
        if !word.is_owned_by(heap) {
            // SAFETY: the caller's promise.
            return unsafe { free_elsewhere(ptr, word) };
        }
        // SAFETY: the word is that of a page of this thread's heap, and so the address of its bin; the rest is the
        // caller's promise.
        unsafe { Self::free_into(word.bin(), ptr) };
    }

    unsafe fn usable_size(ptr: *const u8) -> usize {
        let word = table::word(ptr.addr());
        if let Found::Tagged(block) = tagged::at(ptr) {
            block.size
        } else if word.is_small() {
            class_size(word.class(ptr.addr()))
        } else if word.is_large() {
            // SAFETY: the caller's promise: a live block.
            unsafe { large::usable(ptr) }
        } else {
            // SAFETY: as above.
            unsafe { foreign::usable_size(ptr) }
        }
    }

    #[inline(always)]
    unsafe fn usable_size_of(ptr: *const u8, _size: usize) -> usize {
        let word = table::word(ptr.addr());
        if word.is_small() {
            return class_size(word.class(ptr.addr()));
        }
        // SAFETY: the caller's promise.
        unsafe { Self::usable_size(ptr) }
    }

    const AT_HAND: bool = true;

    fn open() {
        // Both take address space: before the program sets itself a limit of it.
        runs::begin();
        table::open();
    }

    /// About 13 instructions.
    #[inline(always)]
    fn alloc_at_hand(size: usize) -> *mut u8 {
        let heap = OPEN_HEAP::get();
        // SAFETY: the cell points at this thread's heap, or at a placeholder.
        unsafe {
            if size <= classes::TABLE_MAX {
                return Self::pop(Self::list_for(heap, size));
            }
            if size <= SMALL_MAX { Self::pop(Self::list_for(heap, size)) } else { ptr::null_mut() }
        }
    }

    #[inline(always)]
    fn alloc_aligned_at_hand(size: usize, align: usize) -> *mut u8 {
        if size > classes::TABLE_MAX || align > classes::TABLE_MAX {
            return ptr::null_mut();
        }
        // As in `alloc_aligned`.
        let rounded = (size.max(1) + align - 1) & !(align - 1);
        Self::alloc_at_hand(rounded)
    }

    /// About 17 instructions. (A pointer that no process can have ends the program.)
    #[inline(always)]
    unsafe fn free_at_hand(ptr: *mut u8) -> bool {
        let open = table::OPEN.load(Ordering::Relaxed);
        if open.is_null() {
            return false;
        }
        // SAFETY: `open` is the array of words, and its contents are reached through it, so that relaxed loads do.
        let word = unsafe { table::open_word(open, ptr.addr()) };
        // SAFETY: when the word is that of a page of this thread's heap, it is the address of its bin; the rest is the
        // caller's promise.
        unsafe {
            if word.is_owned_by(OPEN_HEAP::get()) {
                Self::free_into(word.bin(), ptr);
            } else {
                free_elsewhere(ptr, word);
            }
        }
        true
    }

    const TAGS: bool = true;

    #[inline(always)]
    fn alloc_tagged_at_hand(size: usize, tag: Tag) -> *mut u8 {
        tagged::alloc_at_hand(size, tag)
    }

    #[inline(always)]
    unsafe fn free_tagged_at_hand(ptr: *mut u8, site: u32) -> bool {
        // SAFETY: the caller's promise.
        unsafe { tagged::free_at_hand(ptr, site) }
    }

    fn alloc_tagged(size: usize, align: usize, zeroed: bool, tag: Tag) -> *mut u8 {
        tagged::alloc(size, align, zeroed, tag)
    }

    unsafe fn free_tagged(ptr: *mut u8, site: u32) -> Found {
        // SAFETY: the caller's promise.
        unsafe { tagged::free(ptr, site) }
    }

    fn tagged_at(ptr: *const u8) -> Found {
        tagged::at(ptr)
    }

    unsafe fn resize_tagged(ptr: *mut u8, size: usize, tag: Tag) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { tagged::resize(ptr, size, tag) }
    }

    fn visit_tagged(see: &mut dyn FnMut(&Tagged)) {
        tagged::visit(see);
    }

    fn tagged_around(addr: usize) -> Option<Tagged> {
        tagged::around(addr)
    }

    fn tagged_totals() -> Totals {
        tagged::totals()
    }

    fn close() {
        heap::close();
    }

    const SAMPLES: bool = true;

    fn sample(every: usize, hooks: &'static SampleHooks) -> bool {
        sampled::sample(every, hooks)
    }

    fn is_sampled(ptr: *const u8) -> bool {
        sampled::holds(ptr.addr())
    }

    const HANDS_ON: bool = true;

    fn owns(ptr: *const u8) -> Option<bool> {
        Some(foreign::owns(ptr))
    }

    fn set_others(others: &'static Others) {
        foreign::set_others(others);
    }

    fn trim() -> bool {
        Native::trim();
        true
    }

    fn stats(stats: &mut Stats) {
        let figures = runs::figures();
        stats.reserved_bytes = figures.reserved;
        stats.committed_bytes = figures.committed;
        stats.mapped_peak_bytes = figures.peak;
        stats.threads = heap::live_count();
        stats.known |= Known::RESERVED_BYTES | Known::COMMITTED_BYTES | Known::MAPPED_PEAK_BYTES | Known::THREADS;
    }
}

/// A block of another heap, a large one, none, or null.
#[inline(never)]
unsafe extern "C" fn free_elsewhere(ptr: *mut u8, word: Word) {
    if word.is_small() {
        if word.is_tagged() {
            // SAFETY: the caller's promise.
            return unsafe { tagged::free_plainly(ptr) };
        }
        // SAFETY: the table names a heap, and heaps live for good; the caller gives the block up.
        unsafe { heap::free_remote(HEAP::get(), word.hot(ptr.addr()), ptr) }
    } else if word.is_large() {
        // SAFETY: the caller's promise.
        unsafe { large::free(ptr) }
    } else {
        // SAFETY: the caller gives the block up.
        unsafe { foreign::free(ptr) }
    }
}
