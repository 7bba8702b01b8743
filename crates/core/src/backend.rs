//! What an allocator must do to serve as a backend, or as a layer over one.

use crate::counts::Totals;
use crate::{Found, SampleHooks, Stats, Tag, Tagged};
use core::fmt;

/// What takes the blocks of another allocator, where a backend stands in for libc's. No function keeps `errno`.
#[derive(Debug)]
pub struct Others {
    /// Whether the functions below find out by themselves whether a block is theirs; else they are called only for pointers
    /// that certainly lie in no memory of the backend, which takes longer.
    pub know_their_own: bool,
    /// As `free`.
    pub free: unsafe fn(*mut u8),
    /// As `realloc`, `errno` included; the size is not 0.
    pub realloc: unsafe fn(*mut u8, usize) -> *mut u8,
    /// As `malloc_usable_size`.
    pub usable_size: unsafe fn(*const u8) -> usize,
}

/// An allocator for the whole process. It has no value: its state is global, as `malloc`'s is, so a layer over a
/// backend is a type (`Tracked<B>`), and a layer that is not named in a build does not exist in it.
///
/// All functions may be called from any thread at any time, also while the thread or the process ends and in a forked
/// child. None of them panics or unwinds.
///
/// # Safety
/// An implementation keeps, for every block it hands out until the block is freed: it is exclusive, it has at least the
/// size and alignment asked for and at least [`crate::MIN_ALIGN`], and a zero size gives a unique block. It returns null
/// with `errno = ENOMEM` when it cannot, for any size up to `usize::MAX`, and then has changed nothing.
pub unsafe trait Backend: 'static {
    /// `"native"`, `"mimalloc"`, `"jemalloc"`, `"system"`.
    const NAME: &'static str;

    /// Whether [`Backend::free`] accepts null, so that a caller can leave the test out.
    const FREES_NULL: bool = false;

    /// A block of `size` bytes, contents undefined.
    fn alloc(size: usize) -> *mut u8;

    /// A zeroed block of `size` bytes.
    fn alloc_zeroed(size: usize) -> *mut u8;

    /// A block aligned to `align`: a valid alignment by [`crate::is_valid_align`] (debug-asserted).
    fn alloc_aligned(size: usize, align: usize) -> *mut u8;

    /// As [`Backend::alloc_aligned`], zeroed.
    fn alloc_aligned_zeroed(size: usize, align: usize) -> *mut u8 {
        let block = Self::alloc_aligned(size, align);
        if !block.is_null() {
            // SAFETY: the block is exclusive and holds at least `size` bytes.
            unsafe { block.write_bytes(0, size) };
        }
        block
    }

    /// Resizes a block, moving it when it must; the contents are kept up to the smaller size, the alignment only up to
    /// [`crate::MIN_ALIGN`]. Null on failure, the block untouched. `size` is not 0.
    ///
    /// # Safety
    /// `ptr` is a live block of this backend; when the result is not null, `ptr` is no longer.
    unsafe fn realloc(ptr: *mut u8, size: usize) -> *mut u8;

    /// As [`Backend::realloc`], and the result is aligned to `align`.
    ///
    /// # Safety
    /// As [`Backend::realloc`].
    unsafe fn realloc_aligned(ptr: *mut u8, size: usize, align: usize) -> *mut u8 {
        let block = Self::alloc_aligned(size, align);
        if !block.is_null() {
            // SAFETY: both blocks are live and distinct, and hold at least the bytes copied.
            unsafe {
                let kept = Self::usable_size(ptr).min(size);
                block.copy_from_nonoverlapping(ptr, kept);
                Self::free(ptr);
            }
        }
        block
    }

    /// Frees a block. Preserves `errno`.
    ///
    /// # Safety
    /// `ptr` is a live block of this backend (not null), and is no longer afterwards.
    unsafe fn free(ptr: *mut u8);

    /// Frees a block of which the caller knows the size that it asked for.
    ///
    /// # Safety
    /// As [`Backend::free`], and `size` is what the block was last allocated or resized to.
    #[inline]
    unsafe fn free_sized(ptr: *mut u8, size: usize) {
        let _ = size;
        // SAFETY: the caller's promise.
        unsafe { Self::free(ptr) }
    }

    /// How many bytes of the block may be used: at least what was asked for.
    ///
    /// # Safety
    /// `ptr` is a live block of this backend.
    unsafe fn usable_size(ptr: *const u8) -> usize;

    /// The same, a little faster, of a block that was asked for with `size` bytes, and neither resized nor tagged since.
    ///
    /// # Safety
    /// As [`Backend::usable_size`].
    #[inline(always)]
    unsafe fn usable_size_of(ptr: *const u8, _size: usize) -> usize {
        // SAFETY: the caller's promise.
        unsafe { Self::usable_size(ptr) }
    }

    /// Whether the backend has the four functions below; without them they do nothing.
    const AT_HAND: bool = false;

    /// From now on no layer is in force over this backend, so that the next two may serve calls. Called once the mode of
    /// the process is known; before it they find nothing.
    fn open() {}

    /// A layer may be in force again from now on: undoes [`Backend::open`] in every thread, for good.
    fn close() {}

    /// A block if one is at hand; null says nothing but that the caller must take the long way.
    #[inline(always)]
    #[must_use]
    fn alloc_at_hand(size: usize) -> *mut u8 {
        let _ = size;
        core::ptr::null_mut()
    }

    /// As [`Backend::alloc_at_hand`], aligned to `align`, a power of two.
    #[inline(always)]
    #[must_use]
    fn alloc_aligned_at_hand(size: usize, align: usize) -> *mut u8 {
        let _ = (size, align);
        core::ptr::null_mut()
    }

    /// Frees a block if that is done at once; false says nothing but that the caller must take the long way.
    ///
    /// # Safety
    /// As [`Backend::free`], except that `ptr` may be null.
    #[inline(always)]
    #[must_use]
    unsafe fn free_at_hand(ptr: *mut u8) -> bool {
        let _ = ptr;
        false
    }

    /// Whether the backend can keep a [`Tag`] beside a block; without it the functions below are not to be called.
    const TAGS: bool = false;

    /// As [`Backend::alloc_aligned`] (zeroed if wanted), with a tag, to which the size is added.
    #[must_use]
    fn alloc_tagged(size: usize, align: usize, zeroed: bool, tag: Tag) -> *mut u8 {
        let _ = (size, align, zeroed, tag);
        core::ptr::null_mut()
    }

    /// A block with a tag if one is at hand; null says nothing but that the caller must take the long way.
    #[inline(always)]
    #[must_use]
    fn alloc_tagged_at_hand(size: usize, tag: Tag) -> *mut u8 {
        let _ = (size, tag);
        core::ptr::null_mut()
    }

    /// Frees a block with a tag if that is done at once; false says nothing but that the caller must take the long way.
    ///
    /// # Safety
    /// As [`Backend::free_tagged`], except that `ptr` may be null.
    #[inline(always)]
    #[must_use]
    unsafe fn free_tagged_at_hand(ptr: *mut u8, site: u32) -> bool {
        let _ = (ptr, site);
        false
    }

    /// As [`Backend::free`], for a block with a tag or without; `site` is where, for the tag.
    ///
    /// # Safety
    /// Unless the pointer is found to be wrong, as [`Backend::free`].
    unsafe fn free_tagged(ptr: *mut u8, site: u32) -> Found {
        let _ = (ptr, site);
        Found::Wrong
    }

    /// The block that starts at `ptr`, if it is live. (A block without a tag is believed to be.)
    fn tagged_at(ptr: *const u8) -> Found {
        let _ = ptr;
        Found::Wrong
    }

    /// Gives a live block with a tag another size, where that can be done without moving it or (a large one) by moving
    /// pages, and another tag; null when that cannot be. Null with nothing changed also without memory.
    ///
    /// # Safety
    /// As [`Backend::realloc`]; [`Backend::tagged_at`] has found the block tagged.
    unsafe fn resize_tagged(ptr: *mut u8, size: usize, tag: Tag) -> *mut u8 {
        let _ = (ptr, size, tag);
        core::ptr::null_mut()
    }

    /// Calls `see` with each live block that has a tag, or whose tag was overwritten. Other threads may go on as far as they need no memory of the
    /// system; blocks that they allocate or free meanwhile may be seen or not. `see` must not allocate or free.
    fn visit_tagged(see: &mut dyn FnMut(&Tagged)) {
        let _ = see;
    }

    /// The block with a tag, live or freed, that `addr` lies in, if any.
    fn tagged_around(addr: usize) -> Option<Tagged> {
        let _ = addr;
        None
    }

    /// What was counted of blocks with tags.
    fn tagged_totals() -> Totals {
        Totals::default()
    }

    /// Whether [`Backend::sample`] does something.
    const SAMPLES: bool = false;

    /// From now on about one of `every` small blocks is guarded by pages without access rights, until that is called
    /// again; 0: none more. False when there is no memory for that. The hooks of the first call stay.
    fn sample(every: usize, hooks: &'static SampleHooks) -> bool {
        let _ = hooks;
        every == 0
    }

    /// Whether an address is of a block that is, or was, guarded so.
    fn is_sampled(ptr: *const u8) -> bool {
        let _ = ptr;
        false
    }

    /// Whether [`Backend::set_others`] does something.
    const HANDS_ON: bool = false;

    /// Whether `ptr` lies in memory of this backend, live or not; `None` where it cannot tell.
    fn owns(ptr: *const u8) -> Option<bool> {
        let _ = ptr;
        None
    }

    /// From now on, pointers that lie in no memory of this backend are handed to `others`. Where it cannot tell, nothing
    /// happens.
    fn set_others(others: &'static Others) {
        let _ = others;
    }

    /// Gives back to the system at once what is free; false where nothing was or can be done.
    fn trim() -> bool {
        false
    }

    /// Fills in what the backend knows and marks it in [`Stats::known`]; the other fields are left alone.
    fn stats(stats: &mut Stats);

    /// Writes the backend's own statistics in its own words; nothing where it has none.
    ///
    /// # Errors
    /// Those of the writer.
    fn write_own_stats(out: &mut dyn fmt::Write) -> fmt::Result {
        let _ = out;
        Ok(())
    }
}
