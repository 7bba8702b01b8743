//! Arenas for Rust: references that cannot outlive what they lie in.
//!
//! Owns: [`Arena`], [`Child`] (ends with its parent) and [`Scope`] (rewound when it ends). Values are not dropped: an arena
//! is for data without destructors, and the types here demand that.

use crate::Error;
use crate::Source;
use crate::arena::{Options, Raw, Stats};
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::mem::{MaybeUninit, needs_drop};
use core::ptr::{self, NonNull};

/// An arena. `'m` is the life of a caller's buffer, `'static` without one.
#[derive(Debug)]
pub struct Arena<'m> {
    raw: NonNull<Raw>,
    buffer: PhantomData<&'m mut [MaybeUninit<u8>]>,
}

// SAFETY: an arena is used by whoever holds it; sources take calls from any thread.
unsafe impl Send for Arena<'_> {}

impl Arena<'static> {
    /// An arena with the usual chunks from a source.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn new(source: Source) -> Result<Self, Error> {
        Arena::with_options(&Options { guard: false, ..Options::new(source) })
    }

    /// An arena as the options say; they must name no buffer and no callback, whose pointers nobody vouches for here.
    ///
    /// # Errors
    /// `Invalid` for an alignment that is none, a buffer and a callback; `NoMemory`.
    pub fn with_options(options: &Options) -> Result<Self, Error> {
        if !options.buffer.is_null() || options.on_grow.is_some() {
            return Err(Error::Invalid);
        }
        // SAFETY: there is no buffer; the label's texts are not looked at by any function of the safe types.
        unsafe { Raw::create(options) }.map(|raw| Arena { raw, buffer: PhantomData })
    }
}

impl<'m> Arena<'m> {
    /// An arena in a buffer, and nowhere else: it needs no allocator.
    ///
    /// # Errors
    /// `Invalid` for a buffer that is too small for the arena itself (about 500 bytes).
    pub fn in_buffer(buffer: &'m mut [MaybeUninit<u8>]) -> Result<Self, Error> {
        let (buffer, buffer_size) = (buffer.as_mut_ptr().cast(), buffer.len());
        let options = Options { buffer, buffer_size, guard: false, ..Options::new(Source::NONE) };
        // SAFETY: the buffer is borrowed for as long as the arena lives.
        unsafe { Raw::create(&options) }.map(|raw| Arena { raw, buffer: PhantomData })
    }

    /// The whole arena as a scope, in which blocks outlive the calls that made them.
    pub fn scope(&mut self) -> Scope<'_> {
        Scope { raw: self.raw, life: PhantomData }
    }

    /// An arena that ends before this one, and counts against its limit.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn child(&self) -> Result<Child<'_>, Error> {
        // SAFETY: the arena lives; the child is gone before it is reset or dropped, by its borrow.
        unsafe {
            let source = Raw::options(self.raw.as_ptr()).source;
            let options = Options { guard: false, ..Options::new(source) };
            let raw = Raw::child(self.raw.as_ptr(), &options)?;
            Ok(Child { raw, parent: PhantomData })
        }
    }

    /// Ends all blocks, keeps all chunks.
    pub fn reset(&mut self) {
        // SAFETY: the borrow shows that no block is in use.
        unsafe { Raw::reset(self.raw.as_ptr()) }
    }

    /// Ends all blocks, keeps the first chunk.
    pub fn clear(&mut self) {
        // SAFETY: as above.
        unsafe { Raw::clear(self.raw.as_ptr()) }
    }
}

impl Drop for Arena<'_> {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference into it.
        unsafe { Raw::destroy(self.raw.as_ptr()) }
    }
}

/// An arena within another one's life. Stays on the thread of its parent.
#[derive(Debug)]
pub struct Child<'p> {
    raw: NonNull<Raw>,
    parent: PhantomData<(&'p (), *mut ())>,
}

impl Child<'_> {
    /// As [`Arena::scope`].
    pub fn scope(&mut self) -> Scope<'_> {
        Scope { raw: self.raw, life: PhantomData }
    }

    /// As [`Arena::reset`].
    pub fn reset(&mut self) {
        // SAFETY: the borrow shows that no block is in use.
        unsafe { Raw::reset(self.raw.as_ptr()) }
    }
}

impl Drop for Child<'_> {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference into it; the parent lives.
        unsafe { Raw::destroy(self.raw.as_ptr()) }
    }
}

/// A stretch of an arena's life. Blocks made in it live as long as the stretch, not only as long as a borrow of it, so
/// that an inner stretch may follow while outer blocks are in use.
#[derive(Debug)]
pub struct Scope<'a> {
    raw: NonNull<Raw>,
    life: PhantomData<(&'a (), *mut ())>,
}

impl Scope<'_> {
    /// Runs `body` with an inner scope, and rewinds the arena to where it was. What the body returns cannot hold a block of
    /// the inner scope.
    pub fn scoped<R>(&mut self, body: impl FnOnce(&mut Scope<'_>) -> R) -> R {
        /// Rewinds also when the body unwinds.
        struct Back(NonNull<Raw>, crate::arena::Mark);
        impl Drop for Back {
            fn drop(&mut self) {
                // SAFETY: the arena lives; the inner scope's blocks are out of reach.
                let rewound = unsafe { Raw::rewind(self.0.as_ptr(), &self.1) };
                debug_assert!(rewound.is_ok(), "scopes nest");
            }
        }
        // SAFETY: the arena lives, and nobody else uses it: the outer scope is borrowed.
        let mark = unsafe { Raw::mark(self.raw.as_ptr()) };
        let _back = Back(self.raw, mark);
        body(&mut Scope { raw: self.raw, life: PhantomData })
    }
}

/// The ways to allocate, the same for all three; `$life` is how long a block lives.
macro_rules! allocating {
    ($($life:lifetime)? ; $type:ty) => {
        impl$(<$life>)? $type {
            /// Moves a value in.
            ///
            /// # Errors
            /// `NoMemory`; the value is lost.
            #[inline(always)]
            #[allow(clippy::mut_from_ref)] // each call gives other memory
            pub fn alloc<T>(&self, value: T) -> Result<&$($life)? mut T, Error> {
                const { assert!(!needs_drop::<T>(), "an arena drops nothing") };
                let place = self.alloc_layout(Layout::new::<T>())?.cast::<T>();
                // SAFETY: the block is fresh, large enough, aligned, and lives as long as the reference.
                unsafe {
                    place.write(value);
                    Ok(&mut *place.as_ptr())
                }
            }

            /// Copies a slice in.
            ///
            /// # Errors
            /// `NoMemory`.
            #[allow(clippy::mut_from_ref)]
            pub fn alloc_slice<T: Copy>(&self, values: &[T]) -> Result<&$($life)? mut [T], Error> {
                let place = self.alloc_layout(Layout::for_value(values))?.cast::<T>();
                // SAFETY: as above; the block has room for as many.
                unsafe {
                    place.as_ptr().copy_from_nonoverlapping(values.as_ptr(), values.len());
                    Ok(&mut *ptr::slice_from_raw_parts_mut(place.as_ptr(), values.len()))
                }
            }

            /// Copies a text in.
            ///
            /// # Errors
            /// `NoMemory`.
            #[allow(clippy::mut_from_ref)]
            pub fn alloc_str(&self, text: &str) -> Result<&$($life)? mut str, Error> {
                let bytes = self.alloc_slice(text.as_bytes())?;
                // SAFETY: a copy of a text.
                Ok(unsafe { core::str::from_utf8_unchecked_mut(bytes) })
            }

            /// Writes a text in: measured once, then written in place.
            ///
            /// # Errors
            /// `NoMemory`, also when formatting fails or gives other texts from one time to the next.
            pub fn format(&self, text: fmt::Arguments<'_>) -> Result<&$($life)? str, Error> {
                let mut length = Length(0);
                fmt::write(&mut length, text).map_err(|_| Error::NoMemory)?;
                let layout = Layout::array::<u8>(length.0).map_err(|_| Error::NoMemory)?;
                let place = self.alloc_layout(layout)?;
                let mut into = Fill { at: place.as_ptr(), left: length.0 };
                fmt::write(&mut into, text).map_err(|_| Error::NoMemory)?;
                if into.left != 0 {
                    return Err(Error::NoMemory);
                }
                // SAFETY: all bytes were written, from texts.
                unsafe {
                    let bytes = &*ptr::slice_from_raw_parts(place.as_ptr(), length.0);
                    Ok(core::str::from_utf8_unchecked(bytes))
                }
            }

            /// Uninitialised memory.
            ///
            /// # Errors
            /// `NoMemory`.
            #[inline(always)]
            pub fn alloc_layout(&self, layout: Layout) -> Result<NonNull<u8>, Error> {
                // SAFETY: the arena lives, and this thread alone uses it.
                unsafe {
                    if layout.align() <= allokit_core::MIN_ALIGN {
                        Raw::alloc(self.raw.as_ptr(), layout.size())
                    } else {
                        Raw::alloc_aligned(self.raw.as_ptr(), layout.size(), layout.align())
                    }
                }
            }

            /// Whether a place lies in a block of this arena.
            #[must_use]
            pub fn owns<T>(&self, place: *const T) -> bool {
                // SAFETY: the arena lives.
                unsafe { Raw::owns(self.raw.as_ptr(), place.cast()) }
            }

            /// The figures of now.
            #[must_use]
            pub fn stats(&self) -> Stats {
                // SAFETY: the arena lives.
                unsafe { Raw::stats(self.raw.as_ptr()) }
            }

            /// The number of faults in the arena's records.
            #[must_use]
            pub fn check(&self) -> usize {
                // SAFETY: the arena lives.
                unsafe { Raw::check(self.raw.as_ptr()) }
            }
        }

        #[cfg(feature = "allocator-api2")]
        // SAFETY: a block lives until the arena is reset or rewound, for which no allocator may borrow it; moving the
        // reference moves no block.
        unsafe impl$(<$life>)? allocator_api2::alloc::Allocator for &$type {
            fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, allocator_api2::alloc::AllocError> {
                let block = self.alloc_layout(layout).map_err(|_| allocator_api2::alloc::AllocError)?;
                Ok(NonNull::slice_from_raw_parts(block, layout.size()))
            }

            unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
                // SAFETY: a block of this arena; only the newest gives its memory back.
                let _ = unsafe { Raw::realloc(self.raw.as_ptr(), block.as_ptr(), layout.size(), 0) };
            }

            unsafe fn grow(
                &self,
                block: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, allocator_api2::alloc::AllocError> {
                // SAFETY: a block of this arena, of the old layout. An alignment that it has is kept in place.
                let resized = unsafe {
                    if new.align() <= allokit_core::MIN_ALIGN {
                        Raw::realloc(self.raw.as_ptr(), block.as_ptr(), old.size(), new.size().max(1)).ok().flatten()
                    } else {
                        let made = self.alloc_layout(new).ok();
                        if let Some(made) = made {
                            made.as_ptr().copy_from_nonoverlapping(block.as_ptr(), old.size());
                        }
                        made
                    }
                };
                let block = resized.ok_or(allocator_api2::alloc::AllocError)?;
                Ok(NonNull::slice_from_raw_parts(block, new.size()))
            }
        }
    };
}

allocating! { ; Arena<'_> }
allocating! { ; Child<'_> }
allocating! { 'a; Scope<'a> }

struct Length(usize);

impl fmt::Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.checked_add(text.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}

struct Fill {
    at: *mut u8,
    left: usize,
}

impl fmt::Write for Fill {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() > self.left {
            return Err(fmt::Error);
        }
        // SAFETY: `left` bytes follow `at`.
        unsafe {
            self.at.copy_from_nonoverlapping(text.as_ptr(), text.len());
            self.at = self.at.add(text.len());
        }
        self.left -= text.len();
        Ok(())
    }
}
