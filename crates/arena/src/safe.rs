//! Regions, pools and stacks for Rust: blocks that cannot outlive what they lie in and are freed when they are dropped.
//!
//! Owns: [`Region`], [`Pool`], [`Stack`] and their blocks. A fault cannot happen here: the types rule out what the raw
//! functions would report.

use crate::{Error, Label, Source, pool, region, stack};
use core::alloc::Layout;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

macro_rules! boxed {
    ($(#[$meta:meta])* $name:ident, $pointer:ident => $free:expr) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub struct $name<'r, T> {
            place: NonNull<T>,
            owner: NonNull<()>,
            life: PhantomData<(&'r (), T)>,
        }

        impl<T> Deref for $name<'_, T> {
            type Target = T;
            fn deref(&self) -> &T {
                // SAFETY: the value was written when the block was made, and is this box's alone.
                unsafe { self.place.as_ref() }
            }
        }

        impl<T> DerefMut for $name<'_, T> {
            fn deref_mut(&mut self) -> &mut T {
                // SAFETY: as above.
                unsafe { self.place.as_mut() }
            }
        }

        impl<T> Drop for $name<'_, T> {
            fn drop(&mut self) {
                let $pointer = self.place.as_ptr().cast::<u8>();
                // SAFETY: the value is dropped once, and then its block, which lives as long as the box.
                let freed = unsafe {
                    self.place.as_ptr().drop_in_place();
                    ($free)(self.owner, $pointer)
                };
                debug_assert!(freed.is_ok());
            }
        }
    };
}

boxed! {
    /// A value in a region; freed when it is dropped.
    RegionBox, block => |_owner, block| region::Raw::free(block)
}
boxed! {
    /// A value in a pool; given back when it is dropped. The key that a given object holds is no part of the value: what the
    /// value has left there, padding included, is not looked at.
    PoolBox, object => |owner: NonNull<()>, object: *mut u8| {
        object.cast::<[usize; 2]>().write([0; 2]);
        pool::Raw::give(owner.as_ptr().cast(), object)
    }
}

/// A region in a borrowed buffer.
#[derive(Debug)]
pub struct Region<'m> {
    raw: NonNull<region::Raw>,
    buffer: PhantomData<&'m mut [MaybeUninit<u8>]>,
}

// SAFETY: a region is used by whoever holds it; its blocks borrow it and so stay where it is.
unsafe impl Send for Region<'_> {}

impl<'m> Region<'m> {
    /// A region in a buffer: it needs no allocator.
    ///
    /// # Errors
    /// `Invalid` for a buffer that is too small.
    pub fn in_buffer(buffer: &'m mut [MaybeUninit<u8>]) -> Result<Self, Error> {
        // SAFETY: the buffer is borrowed for as long as the region lives.
        unsafe { region::Raw::in_buffer(buffer.as_mut_ptr().cast(), buffer.len(), Label::NONE) }
            .map(|raw| Region { raw, buffer: PhantomData })
    }

    /// A region out of a source.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn new(size: usize, source: Source) -> Result<Self, Error> {
        // SAFETY: the source's memory is the region's.
        unsafe { region::Raw::create(size, source, Label::NONE) }.map(|raw| Region { raw, buffer: PhantomData })
    }

    /// Moves a value in.
    ///
    /// # Errors
    /// `NoMemory`; the value is lost.
    pub fn alloc<T>(&self, value: T) -> Result<RegionBox<'_, T>, Error> {
        let place = self.alloc_layout(Layout::new::<T>())?.cast::<T>();
        // SAFETY: the block is fresh, large enough and aligned.
        unsafe { place.write(value) };
        Ok(RegionBox { place, owner: self.raw.cast(), life: PhantomData })
    }

    fn alloc_layout(&self, layout: Layout) -> Result<NonNull<u8>, Error> {
        // SAFETY: the region lives, and this thread alone uses it.
        unsafe { region::Raw::alloc_aligned(self.raw.as_ptr(), layout.size(), layout.align()) }
    }

    /// Ends all blocks.
    pub fn reset(&mut self) {
        // SAFETY: the borrow shows that no block is in use.
        unsafe { region::Raw::reset(self.raw.as_ptr()) }
    }

    /// The figures of now.
    #[must_use]
    pub fn stats(&self) -> region::Stats {
        // SAFETY: the region lives.
        unsafe { region::Raw::stats(self.raw.as_ptr()) }
    }

    /// The number of faults in the region's records.
    #[must_use]
    pub fn check(&self) -> usize {
        // SAFETY: the region lives.
        unsafe { region::Raw::check(self.raw.as_ptr()) }
    }
}

impl Drop for Region<'_> {
    fn drop(&mut self) {
        // SAFETY: no block is in use.
        let _ = unsafe { region::Raw::destroy(self.raw.as_ptr()) };
    }
}

#[cfg(feature = "allocator-api2")]
// SAFETY: a block lives until it is freed or the region is reset, for which no allocator may borrow it.
unsafe impl allocator_api2::alloc::Allocator for &Region<'_> {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, allocator_api2::alloc::AllocError> {
        let block = self.alloc_layout(layout).map_err(|_| allocator_api2::alloc::AllocError)?;
        Ok(NonNull::slice_from_raw_parts(block, layout.size()))
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, _layout: Layout) {
        // SAFETY: a live block of this region.
        let freed = unsafe { region::Raw::free(block.as_ptr()) };
        debug_assert!(freed.is_ok());
    }
}

/// A pool of values of one type.
#[derive(Debug)]
pub struct Pool<T> {
    raw: NonNull<pool::Raw>,
    values: PhantomData<T>,
}

// SAFETY: a pool is used by whoever holds it; its objects borrow it and so stay where it is.
unsafe impl<T> Send for Pool<T> {}

impl<T> Pool<T> {
    /// A pool that grows.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn new(source: Source) -> Result<Self, Error> {
        let options = pool::Options { alignment: align_of::<T>(), guard: false, ..pool::Options::new(source) };
        // SAFETY: there is no buffer.
        unsafe { pool::Raw::create(size_of::<T>(), &options) }.map(|raw| Pool { raw, values: PhantomData })
    }

    /// Moves a value in.
    ///
    /// # Errors
    /// `NoMemory`; the value is lost.
    #[inline]
    pub fn take(&self, value: T) -> Result<PoolBox<'_, T>, Error> {
        // SAFETY: the pool lives; the object is fresh, large enough and aligned.
        unsafe {
            let place = pool::Raw::take(self.raw.as_ptr())?.cast::<T>();
            place.write(value);
            Ok(PoolBox { place, owner: self.raw.cast(), life: PhantomData })
        }
    }
}

impl<T> Drop for Pool<T> {
    fn drop(&mut self) {
        // SAFETY: no object is in use.
        unsafe { pool::Raw::destroy(self.raw.as_ptr()) }
    }
}

/// A stack. What is pushed inside a scope ends with it.
#[derive(Debug)]
pub struct Stack {
    raw: NonNull<stack::Raw>,
}

// SAFETY: a stack is used by whoever holds it.
unsafe impl Send for Stack {}

impl Stack {
    /// A stack of this many bytes.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn new(size: usize, source: Source) -> Result<Self, Error> {
        // SAFETY: there is no buffer.
        unsafe { stack::Raw::create(size, &stack::Options::new(source)) }.map(|raw| Stack { raw })
    }

    /// Runs `body` with a frame in which it may push; all of it ends when it returns.
    ///
    /// # Errors
    /// `NoMemory` when there is no room for the mark.
    pub fn scoped<R>(&mut self, body: impl FnOnce(&mut Frame<'_>) -> R) -> Result<R, Error> {
        Frame { raw: self.raw, life: PhantomData }.scoped(body)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: nothing in it is in use.
        unsafe { stack::Raw::destroy(self.raw.as_ptr()) }
    }
}

/// A stretch of a stack between a mark and its release.
#[derive(Debug)]
pub struct Frame<'s> {
    raw: NonNull<stack::Raw>,
    life: PhantomData<(&'s (), *mut ())>,
}

impl<'s> Frame<'s> {
    /// Moves a value in; it is not dropped.
    ///
    /// # Errors
    /// `NoMemory`; the value is lost. (A type with a destructor or aligned above 16 does not compile.)
    pub fn push<T>(&self, value: T) -> Result<&'s mut T, Error> {
        const { assert!(!core::mem::needs_drop::<T>() && align_of::<T>() <= 16) };
        // SAFETY: the block is fresh, large enough, aligned, and lives as long as the frame.
        unsafe {
            let place = stack::Raw::push(self.raw.as_ptr(), size_of::<T>())?.cast::<T>();
            place.write(value);
            Ok(&mut *place.as_ptr())
        }
    }

    /// As [`Stack::scoped`], inside this frame.
    ///
    /// # Errors
    /// As there.
    pub fn scoped<R>(&mut self, body: impl FnOnce(&mut Frame<'_>) -> R) -> Result<R, Error> {
        /// Releases also when the body unwinds.
        struct Back(NonNull<stack::Raw>, stack::Mark);
        impl Drop for Back {
            fn drop(&mut self) {
                // SAFETY: what was pushed inside is out of reach.
                let released = unsafe { stack::Raw::release(self.0.as_ptr(), &self.1) };
                debug_assert!(released.is_ok(), "frames nest");
            }
        }
        // SAFETY: the stack lives, and the outer frame is borrowed.
        let mark = unsafe { stack::Raw::mark(self.raw.as_ptr())? };
        let _back = Back(self.raw, mark);
        Ok(body(&mut Frame { raw: self.raw, life: PhantomData }))
    }
}
