//! Unit tests by subject, and random calls against models.
//!
//! Everything here calls unsafe functions on what the test itself has made and not yet ended, and writes inside its blocks.
#![allow(clippy::undocumented_unsafe_blocks)]

mod arena;
mod model;
mod pool;
mod region;
mod safe;
mod scratch;
mod stack;

use crate::Source;
use core::ffi::c_void;
use std::alloc::{Layout, alloc, dealloc};
use std::boxed::Box;
use std::cell::Cell;

/// A source that counts, and refuses on demand.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) blocks: Cell<usize>,
    pub(crate) bytes: Cell<usize>,
    pub(crate) taken: Cell<usize>,
    /// How many more requests are served; usize::MAX: all.
    pub(crate) left: Cell<usize>,
}

impl Memory {
    pub(crate) fn new() -> Box<Memory> {
        let memory = Box::<Memory>::default();
        memory.left.set(usize::MAX);
        memory
    }

    pub(crate) fn source(&self) -> Source {
        unsafe fn take(context: *mut c_void, size: usize, align: usize) -> *mut u8 {
            // SAFETY: the memory outlives its users in these tests.
            let memory = unsafe { &*context.cast::<Memory>() };
            if memory.left.get() == 0 || size > 1 << 30 {
                return core::ptr::null_mut();
            }
            if memory.left.get() != usize::MAX {
                memory.left.set(memory.left.get() - 1);
            }
            memory.blocks.set(memory.blocks.get() + 1);
            memory.bytes.set(memory.bytes.get() + size);
            memory.taken.set(memory.taken.get() + 1);
            assert!(align <= 16);
            // SAFETY: the size is not 0.
            unsafe {
                let block = alloc(Layout::from_size_align(size, 16).unwrap());
                block.write_bytes(0xA5, size);
                block
            }
        }
        unsafe fn give(context: *mut c_void, ptr: *mut u8, size: usize) {
            // SAFETY: as above; the layout is that of `take`.
            unsafe {
                let memory = &*context.cast::<Memory>();
                memory.blocks.set(memory.blocks.get() - 1);
                memory.bytes.set(memory.bytes.get() - size);
                dealloc(ptr, Layout::from_size_align(size, 16).unwrap());
            }
        }
        // SAFETY: the memory outlives its users, who stay on one thread in these tests; its blocks are std's.
        unsafe { Source::new(take, give, (&raw const *self).cast_mut().cast()) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        assert!(self.blocks.get() == 0 || std::thread::panicking(), "{} blocks leak", self.blocks.get());
    }
}

/// A buffer at an odd place, all of whose bytes are checked to be untouched outside of it.
pub(crate) struct Buffer {
    memory: std::vec::Vec<u8>,
    start: usize,
    size: usize,
}

impl Buffer {
    /// `offset`: of the address, by 16.
    pub(crate) fn new(size: usize, offset: usize) -> Buffer {
        let memory = std::vec![0xEE; size + 64];
        let start = 16 + (memory.as_ptr().addr() + 16).wrapping_neg() % 16 + offset;
        Buffer { memory, start, size }
    }

    pub(crate) fn start(&mut self) -> *mut u8 {
        // SAFETY: inside.
        unsafe { self.memory.as_mut_ptr().add(self.start) }
    }

    pub(crate) fn assert_untouched_around(&self) {
        let (start, end) = (self.start, self.start + self.size);
        assert!(self.memory[..start].iter().chain(&self.memory[end..]).all(|&byte| byte == 0xEE));
    }
}
