//! What the models of allokit-arena share: a source that remembers what it gave, and blocks with known contents.
#![allow(dead_code)] // no target uses all of it

use allokit_arena::Source;
use arbitrary::Arbitrary;
use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;
use std::ffi::c_void;

/// The most that a source gives at a time, so that no input needs more memory than a machine has.
const MOST: usize = 64 << 20;

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Size {
    Tiny(u8),
    Small(u16),
    /// Around a power of two.
    Edge(u8, i8),
    /// Anything: mostly more than there is.
    Any(usize),
}

impl Size {
    pub fn get(self) -> usize {
        match self {
            Size::Tiny(size) => size as usize,
            Size::Small(size) => size as usize % 9000,
            Size::Edge(log, off) => (1usize << (log % 19)).saturating_add_signed(off as isize),
            Size::Any(size) => size,
        }
    }

    /// A size that there may be memory for.
    pub fn possible(self) -> usize {
        self.get() % (1 << 20)
    }
}

/// A source that knows its blocks, and has none left after a while if it is told so.
#[derive(Default)]
pub struct Memory {
    pub blocks: BTreeMap<usize, usize>,
    pub bytes: usize,
    /// How many more requests are refused.
    pub refuse: usize,
}

unsafe fn take(context: *mut c_void, size: usize, align: usize) -> *mut u8 {
    // SAFETY: the memory outlives its users in each target.
    let memory = unsafe { &mut *context.cast::<Memory>() };
    assert!(size != 0 && align == 16);
    if memory.refuse != 0 || size > MOST - memory.bytes.min(MOST) {
        memory.refuse = memory.refuse.saturating_sub(1);
        return std::ptr::null_mut();
    }
    // SAFETY: the size is not 0.
    unsafe {
        let block = alloc(Layout::from_size_align(size, 16).unwrap());
        block.write_bytes(0xA5, size);
        memory.blocks.insert(block.addr(), size);
        memory.bytes += size;
        block
    }
}

unsafe fn give(context: *mut c_void, block: *mut u8, size: usize) {
    // SAFETY: as above; the layout is that of `take`.
    unsafe {
        let memory = &mut *context.cast::<Memory>();
        assert_eq!(memory.blocks.remove(&block.addr()), Some(size), "given back with another size, or twice");
        memory.bytes -= size;
        dealloc(block, Layout::from_size_align(size, 16).unwrap());
    }
}

/// Runs `body` with a source; all that it took must be given back at the end.
pub fn with_memory(body: impl FnOnce(*mut Memory, Source)) {
    let memory = Box::into_raw(Box::<Memory>::default());
    // SAFETY: the memory outlives the body, on this thread; its blocks are std's.
    body(memory, unsafe { Source::new(take, give, memory.cast()) });
    // SAFETY: made above.
    let memory = unsafe { Box::from_raw(memory) };
    assert!(memory.blocks.is_empty() && memory.bytes == 0, "{} bytes leak", memory.bytes);
}

/// A block, and the bytes that were written into it.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    pub place: *mut u8,
    pub size: usize,
    pub seed: u8,
}

/// All of a small block, and the ends and some of the middle of a large one.
fn places(size: usize) -> impl Iterator<Item = usize> {
    let (head, tail) = (size.min(600), size.saturating_sub(40).max(size.min(600)));
    (0..head).chain((head..tail).step_by(1021)).chain(tail..size)
}

impl Block {
    pub fn fill(place: *mut u8, size: usize, seed: u8) -> Block {
        // SAFETY: the block has that many bytes.
        places(size).for_each(|at| unsafe { place.add(at).write(seed ^ (at as u8).wrapping_mul(31)) });
        Block { place, size, seed }
    }

    pub fn verify(&self) {
        for at in places(self.size) {
            // SAFETY: as above.
            let byte = unsafe { self.place.add(at).read() };
            assert_eq!(byte, self.seed ^ (at as u8).wrapping_mul(31), "byte {at} of {}", self.size);
        }
    }

    /// The first bytes, after a block has grown or shrunk to another place.
    pub fn verify_moved(&self, place: *mut u8, kept: usize) {
        // Only what both sizes have in their lists of places.
        for at in places(self.size).take_while(|&at| at < kept) {
            // SAFETY: both blocks have these bytes.
            assert_eq!(unsafe { place.add(at).read() }, self.seed ^ (at as u8).wrapping_mul(31), "moved byte {at}");
        }
    }
}

/// No two blocks share a byte, and none has the address of another one.
pub fn assert_apart<'a>(blocks: impl Iterator<Item = &'a Block>) {
    let mut stretches = BTreeMap::new();
    for block in blocks {
        assert!(stretches.insert(block.place.addr(), block.size.max(1)).is_none(), "one address twice");
    }
    for ((at, size), (next, _)) in stretches.iter().zip(stretches.iter().skip(1)) {
        assert!(at + size <= *next, "two live blocks overlap");
    }
}
