//! Where memory comes from: a backend, another allocator, or nothing at all.

use crate::census::Census;
use allokit_core::Backend;
use core::ffi::c_void;
use core::ptr;

/// Tells the tools that watch a program's memory (AddressSanitizer, valgrind) what may be touched.
#[derive(Clone, Copy, Debug)]
pub struct Tools {
    hide: unsafe fn(*mut u8, usize),
    show: unsafe fn(*mut u8, usize),
    reveal: unsafe fn(*mut u8, usize),
}

impl Tools {
    /// `hide`: from now on nobody may touch these bytes; `show`: they may be written, and read once written; `reveal`: they
    /// may be read as they are.
    ///
    /// # Safety
    /// The functions change no memory of the program's.
    #[must_use]
    pub const unsafe fn new(
        hide: unsafe fn(*mut u8, usize),
        show: unsafe fn(*mut u8, usize),
        reveal: unsafe fn(*mut u8, usize),
    ) -> Tools {
        Tools { hide, show, reveal }
    }
}

/// Takes memory and gives it back. A value, not a type: it is called once for many blocks, and an arena of any source is
/// the same type, which C needs.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    // Private: safe code that could put any function here could break the safe types.
    take: Take,
    give: Give,
    context: *mut c_void,
    exists: bool,
    tools: Option<&'static Tools>,
}

/// A block of `size` bytes, aligned to `align` (16 or more), or null.
pub type Take = unsafe fn(context: *mut c_void, size: usize, align: usize) -> *mut u8;
/// Gives back a block that was taken with this size.
pub type Give = unsafe fn(context: *mut c_void, ptr: *mut u8, size: usize);

impl Source {
    /// Whatever these functions give and take; `context` is handed to both.
    ///
    /// # Safety
    /// They may be called from any thread until the last owner of their memory has ended. A block of `take` is nobody
    /// else's until it is given back. Neither uses the owner that calls it.
    #[must_use]
    pub const unsafe fn new(take: Take, give: Give, context: *mut c_void) -> Source {
        Source { take, give, context, exists: true, tools: None }
    }

    /// The same, watched. Tools may be told of any memory that the source's users have.
    #[must_use]
    pub const fn watched(self, tools: Option<&'static Tools>) -> Source {
        Source { tools, ..self }
    }

    /// Who watches.
    #[must_use]
    pub const fn tools(&self) -> Option<&'static Tools> {
        self.tools
    }

    /// Whether it ever has memory: false for [`Source::NONE`] alone.
    #[must_use]
    pub const fn exists(&self) -> bool {
        self.exists
    }

    /// Whether it was made with this function.
    #[must_use]
    pub fn takes_by(&self, take: Take) -> bool {
        ptr::fn_addr_eq(self.take, take)
    }

    /// The blocks of a backend.
    #[must_use]
    pub const fn of<B: Backend>() -> Source {
        unsafe fn take<B: Backend>(_: *mut c_void, size: usize, align: usize) -> *mut u8 {
            if align <= allokit_core::MIN_ALIGN { B::alloc(size) } else { B::alloc_aligned(size, align) }
        }
        unsafe fn give<B: Backend>(_: *mut c_void, ptr: *mut u8, size: usize) {
            // SAFETY: the caller gives back what `take` gave, of that size.
            unsafe { B::free_sized(ptr, size) }
        }
        Source { take: take::<B>, give: give::<B>, context: ptr::null_mut(), exists: true, tools: None }
    }

    /// No memory: for what lives in a caller's buffer alone.
    pub const NONE: Source = {
        unsafe fn take(_: *mut c_void, _: usize, _: usize) -> *mut u8 {
            ptr::null_mut()
        }
        unsafe fn give(_: *mut c_void, _: *mut u8, _: usize) {}
        Source { take, give, context: ptr::null_mut(), exists: false, tools: None }
    };

    pub(crate) fn take(&self, size: usize, align: usize, census: &Census) -> *mut u8 {
        // SAFETY: whoever made the source vouches for its functions; they take any size and a power of two.
        let taken = unsafe { (self.take)(self.context, size, align) };
        if !taken.is_null() {
            census.took(size);
        }
        taken
    }

    /// # Safety
    /// `ptr` was taken here with this size, and nobody uses it any more.
    pub(crate) unsafe fn give(&self, ptr: *mut u8, size: usize, census: &Census) {
        census.gave(size);
        // SAFETY: the caller's promise.
        unsafe { (self.give)(self.context, ptr, size) }
    }

    /// # Safety
    /// The bytes belong to the caller, who will not touch them.
    pub(crate) unsafe fn hide(&self, ptr: *mut u8, size: usize) {
        if let Some(tools) = self.tools
            && size != 0
        {
            // SAFETY: the caller's promise.
            unsafe { (tools.hide)(ptr, size) }
        }
    }

    /// # Safety
    /// The bytes belong to the caller.
    pub(crate) unsafe fn reveal(&self, ptr: *mut u8, size: usize) {
        if let Some(tools) = self.tools {
            // SAFETY: the caller's promise.
            unsafe { (tools.reveal)(ptr, size) }
        }
    }

    /// # Safety
    /// The bytes belong to the caller.
    pub(crate) unsafe fn show(&self, ptr: *mut u8, size: usize) {
        if let Some(tools) = self.tools
            && size != 0
        {
            // SAFETY: the caller's promise.
            unsafe { (tools.show)(ptr, size) }
        }
    }
}
