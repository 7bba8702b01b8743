//! A heap with a lifetime.

use crate::heap::Raw;
use crate::{Error, Options, Stats};
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

/// A heap: any number of blocks, freed one by one, and all of them when it is dropped or reset. Threads may use it at the
/// same time. A heap made by [`Heap::child`] counts against its parent's limit too, and does not outlive it.
///
/// ```
/// use allokit_heap::{Heap, Label, Options};
/// let tenant = Heap::new(&Options { label: Label::named(b"tenant 7"), limit: 1 << 20 })?;
/// let request = tenant.child(&Options::USUAL)?;
/// let block = request.alloc(100)?;
/// // SAFETY: the block is 100 bytes of ours; it is freed once.
/// unsafe {
///     block.write_bytes(7, 100);
///     let block = request.realloc(block, 200)?;
///     assert_eq!(*block.as_ptr().add(99), 7);
///     request.free(block)?;
/// }
/// assert!(tenant.alloc(2 << 20).is_err());
/// # Ok::<(), allokit_heap::Error>(())
/// ```
#[derive(Debug)]
pub struct Heap<'parent> {
    raw: NonNull<Raw>,
    parent: PhantomData<&'parent Heap<'parent>>,
}

// SAFETY: all that a heap has is under its lock.
unsafe impl Send for Heap<'_> {}
// SAFETY: as above.
unsafe impl Sync for Heap<'_> {}

impl Heap<'static> {
    /// A heap without a parent.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn new(options: &Options) -> Result<Heap<'static>, Error> {
        // SAFETY: no parent; a label's file is static or null in safe code, which cannot make others.
        let raw = unsafe { Raw::create(ptr::null_mut(), options) }?;
        Ok(Heap { raw, parent: PhantomData })
    }
}

impl Heap<'_> {
    /// A heap below this one.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn child(&self, options: &Options) -> Result<Heap<'_>, Error> {
        // SAFETY: the parent lives as long as the borrow.
        let raw = unsafe { Raw::create(self.raw.as_ptr(), options) }?;
        Ok(Heap { raw, parent: PhantomData })
    }

    /// A block of `size` bytes; of none, one of its own all the same.
    ///
    /// # Errors
    /// `NoMemory`: the system's, or a limit's.
    pub fn alloc(&self, size: usize) -> Result<NonNull<u8>, Error> {
        // SAFETY: the heap lives.
        unsafe { Raw::alloc(self.raw.as_ptr(), size) }
    }

    /// A block aligned to `align`.
    ///
    /// # Errors
    /// `Invalid` when that is no power of two or over 1 GiB; `NoMemory`.
    pub fn alloc_aligned(&self, size: usize, align: usize) -> Result<NonNull<u8>, Error> {
        // SAFETY: the heap lives.
        unsafe { Raw::alloc_aligned(self.raw.as_ptr(), size, align) }
    }

    /// A zeroed block of `count * size` bytes.
    ///
    /// # Errors
    /// `NoMemory`, also when the product is impossible.
    pub fn calloc(&self, count: usize, size: usize) -> Result<NonNull<u8>, Error> {
        // SAFETY: the heap lives.
        unsafe { Raw::calloc(self.raw.as_ptr(), count, size) }
    }

    /// Resizes a block. A smaller size never fails.
    ///
    /// # Errors
    /// `NoMemory`; a fault when it is no live block of this heap. The block is untouched then.
    ///
    /// # Safety
    /// When it succeeds, the old block is used no more.
    pub unsafe fn realloc(&self, block: NonNull<u8>, size: usize) -> Result<NonNull<u8>, Error> {
        // SAFETY: the heap lives; the rest is the caller's promise.
        unsafe { Raw::realloc(self.raw.as_ptr(), block.as_ptr(), size) }
    }

    /// Frees a block.
    ///
    /// # Errors
    /// A fault when it is no live block of this heap.
    ///
    /// # Safety
    /// The block is used no more.
    pub unsafe fn free(&self, block: NonNull<u8>) -> Result<(), Error> {
        // SAFETY: as above.
        unsafe { Raw::free(self.raw.as_ptr(), block.as_ptr()) }
    }

    /// Frees all blocks; those of heaps below stay.
    ///
    /// # Errors
    /// A fault while arenas have their memory in the heap.
    ///
    /// # Safety
    /// No block is used any more.
    pub unsafe fn reset(&self) -> Result<(), Error> {
        // SAFETY: as above.
        unsafe { Raw::reset(self.raw.as_ptr()) }
    }

    /// How many bytes of a block may be used.
    ///
    /// # Errors
    /// A fault when it is no live block of this heap.
    pub fn usable(&self, block: NonNull<u8>) -> Result<usize, Error> {
        // SAFETY: the heap lives; a wrong pointer is noticed.
        unsafe { Raw::usable(self.raw.as_ptr(), block.as_ptr()) }
    }

    /// Whether an address lies in a live block of the heap.
    #[must_use]
    #[allow(clippy::not_unsafe_ptr_arg_deref)] // compared with addresses of the heap's own, never followed
    pub fn owns(&self, address: *const u8) -> bool {
        // SAFETY: the heap lives.
        unsafe { Raw::owns(self.raw.as_ptr(), address) }
    }

    /// The figures of now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        // SAFETY: the heap lives.
        unsafe { Raw::stats(self.raw.as_ptr()) }
    }

    /// The number of faults in the heap's records; 0 when all is well.
    #[must_use]
    pub fn check(&self) -> usize {
        // SAFETY: the heap lives.
        unsafe { Raw::check(self.raw.as_ptr()) }
    }

    /// The heap as the C functions take it, while this value lives.
    #[must_use]
    pub fn as_raw(&self) -> *mut Raw {
        self.raw.as_ptr()
    }
}

impl Drop for Heap<'_> {
    fn drop(&mut self) {
        // SAFETY: children borrow this value and so are gone. Where an arena has its memory in the heap, by way of
        // `as_raw`, the heap stays: a leak is what can be done safely.
        let _ = unsafe { Raw::destroy(self.raw.as_ptr()) };
    }
}

#[cfg(feature = "allocator-api2")]
// SAFETY: blocks live until they are freed or the heap is dropped or reset; a reference to the heap keeps the first away,
// and whoever resets promises that no block is in use.
unsafe impl allocator_api2::alloc::Allocator for &Heap<'_> {
    fn allocate(&self, layout: core::alloc::Layout) -> Result<NonNull<[u8]>, allocator_api2::alloc::AllocError> {
        match self.alloc_aligned(layout.size(), layout.align()) {
            Ok(block) => Ok(NonNull::slice_from_raw_parts(block, layout.size())),
            Err(_) => Err(allocator_api2::alloc::AllocError),
        }
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, _layout: core::alloc::Layout) {
        // SAFETY: the caller's promise: a live block of ours.
        let done = unsafe { self.free(block) };
        debug_assert!(done.is_ok());
    }
}
