//! Regions against a list of blocks: contents, overlap, alignment, the exact figures, wrong frees, and memory that is there
//! when it must be.
#![no_main]

mod common;

use allokit_arena::region::Raw;
use allokit_arena::{Error, Label};
use arbitrary::Arbitrary;
use common::{Block, Size, assert_apart};
use libfuzzer_sys::fuzz_target;
use std::ptr::{self, NonNull};

#[derive(Arbitrary, Debug)]
enum Call {
    Alloc(Size),
    Aligned(Size, u8),
    Calloc(Size, u8),
    Realloc(u8, Size),
    Free(u8),
    FreeTwice(u8),
    FreeMiddle(u8, u8),
    Scratch(Size),
    Child(Size),
    Reset,
    ResetZero,
}

#[derive(Arbitrary, Debug)]
struct Input {
    size: Size,
    offset: u8,
    calls: Vec<Call>,
}

struct Model {
    r: *mut Raw,
    blocks: Vec<Block>,
    scratch: *mut u8,
    children: Vec<*mut Raw>,
    peak: usize,
    seed: u8,
}

impl Model {
    fn add(&mut self, made: Result<NonNull<u8>, Error>, size: usize, align: usize, largest: usize) -> Option<*mut u8> {
        match made {
            Ok(block) => {
                assert_eq!(block.addr().get() % align.max(16), 0);
                // SAFETY: a live block.
                let usable = unsafe { Raw::usable(block.as_ptr()).unwrap() };
                assert!(usable >= size.max(1) && usable <= size.max(16).next_multiple_of(16) + 16);
                self.seed = self.seed.wrapping_add(1);
                // All that it may use, not only what was asked for.
                self.blocks.push(Block::fill(block.as_ptr(), usable, self.seed));
                Some(block.as_ptr())
            }
            Err(error) => {
                assert_eq!(error, Error::NoMemory);
                // A good fit may miss a block of its own list; one so much larger it may not.
                let sure = size.max(16).saturating_add(size / 8).saturating_add(2 * align + 96);
                assert!(largest < sure, "no {size} aligned to {align} where {largest} are free");
                None
            }
        }
    }

    fn one(&self, which: u8) -> Option<usize> {
        (!self.blocks.is_empty()).then(|| which as usize % self.blocks.len())
    }

    /// # Safety
    /// The region lives.
    unsafe fn step(&mut self, call: &Call) {
        let r = self.r;
        // SAFETY: the region lives; blocks are those of the model.
        unsafe {
            let largest = Raw::stats(r).largest_free;
            match *call {
                Call::Alloc(size) => drop(self.add(Raw::alloc(r, size.get()), size.get(), 16, largest)),
                Call::Aligned(size, log) => {
                    let align = 1 << (log % 13);
                    self.add(Raw::alloc_aligned(r, size.get(), align), size.get(), align, largest);
                    assert_eq!(Raw::alloc_aligned(r, 1, align * 5), Err(Error::Invalid));
                }
                Call::Calloc(size, count) => {
                    let Some(bytes) = size.get().checked_mul(count as usize) else { return };
                    let made = Raw::calloc(r, count as usize, size.get());
                    if let Ok(block) = made {
                        assert!((0..bytes).all(|at| block.add(at).read() == 0));
                    }
                    self.add(made, bytes, 16, largest);
                }
                Call::Realloc(which, size) => {
                    let Some(which) = self.one(which) else { return };
                    let (old, size) = (self.blocks[which], size.get());
                    let made = Raw::realloc(r, old.place, size);
                    match made {
                        Err(error) => assert_eq!(error, Error::NoMemory),
                        Ok(made) => {
                            self.blocks.swap_remove(which);
                            if made.is_none_or(|made| made.as_ptr() != old.place) && old.place == self.scratch {
                                self.scratch = ptr::null_mut();
                            }
                            let Some(made) = made else { return assert_eq!(size, 0) };
                            let usable = Raw::usable(made.as_ptr()).unwrap();
                            assert!(usable >= size);
                            old.verify_moved(made.as_ptr(), old.size.min(size));
                            self.blocks.push(Block::fill(made.as_ptr(), usable, old.seed));
                        }
                    }
                }
                Call::Free(which) | Call::FreeTwice(which) => {
                    let Some(which) = self.one(which) else { return };
                    let block = self.blocks.swap_remove(which);
                    block.verify();
                    Raw::free(block.place).unwrap();
                    if block.place == self.scratch {
                        self.scratch = ptr::null_mut();
                    }
                    if matches!(call, Call::FreeTwice(_)) {
                        assert!(matches!(Raw::free(block.place), Err(Error::Fault(_))));
                    }
                }
                Call::FreeMiddle(which, at) => {
                    let Some(which) = self.one(which) else { return };
                    let block = self.blocks[which];
                    // From 16 on, so that all in front of it is the block's own pattern. One pattern in 65536 is a header's.
                    if block.size > 48 {
                        let at = 16 + at as usize % (block.size - 16).min(500);
                        assert!(Raw::free(block.place.add(at)).is_err());
                    }
                }
                Call::Scratch(size) => match Raw::scratch(r, size.get()) {
                    Ok(block) => {
                        assert!(self.scratch.is_null());
                        self.scratch = block.as_ptr();
                        let usable = Raw::usable(block.as_ptr()).unwrap();
                        assert!(usable >= size.get());
                        self.blocks.push(Block::fill(block.as_ptr(), usable, 77));
                    }
                    Err(Error::Busy) => assert!(!self.scratch.is_null()),
                    Err(error) => assert!(error == Error::NoMemory && (self.scratch.is_null() || size.get() > 1 << 30)),
                },
                Call::Child(size) => {
                    if self.children.len() < 4
                        && let Ok(child) = Raw::child(r, size.possible(), Label::NONE)
                    {
                        self.children.push(child.as_ptr());
                    } else if let Some(child) = self.children.pop() {
                        if let Ok(block) = Raw::alloc(child, 40) {
                            assert!(Raw::owns(child, block.as_ptr()) && Raw::owns(r, block.as_ptr()));
                        }
                        assert_eq!(Raw::check(child), 0);
                        Raw::destroy(child).unwrap();
                    }
                }
                Call::Reset | Call::ResetZero => {
                    if matches!(call, Call::Reset) {
                        Raw::reset(r)
                    } else {
                        Raw::reset_zero(r)
                    }
                    for block in self.blocks.drain(..).take(4) {
                        assert!(Raw::free(block.place).is_err());
                    }
                    self.scratch = ptr::null_mut();
                    assert!(self.children.drain(..).all(|child| !Raw::is_alive(child)));
                }
            }
        }
    }

    /// # Safety
    /// The region lives.
    unsafe fn check(&mut self) {
        // SAFETY: the region lives.
        unsafe {
            assert_eq!(Raw::check(self.r), 0);
            let stats = Raw::stats(self.r);
            assert_eq!(stats.blocks, self.blocks.len() + self.children.len());
            assert_eq!(stats.used + stats.free, stats.capacity);
            if self.children.is_empty() {
                let used: usize = self.blocks.iter().map(|block| block.size + 16).sum();
                assert_eq!(stats.used, used);
            }
            self.peak = self.peak.max(stats.used);
            assert!(stats.peak >= self.peak && stats.peak <= stats.capacity);
            if self.blocks.is_empty() && self.children.is_empty() {
                assert_eq!(stats.largest_free + 16, stats.capacity, "free blocks were not merged");
            }
            self.blocks.iter().for_each(Block::verify);
            assert_apart(self.blocks.iter());
        }
    }
}

fuzz_target!(|input: Input| {
    let size = input.size.possible();
    let mut buffer = vec![0xEEu8; size + 64];
    let at = 32 + input.offset as usize % 16;
    // SAFETY: the region is used until it is destroyed, and its buffer outlives it.
    unsafe {
        let Ok(r) = Raw::in_buffer(buffer.as_mut_ptr().add(at), size, Label::NONE) else { return };
        let r = r.as_ptr();
        let (blocks, children) = (Vec::new(), Vec::new());
        let mut model = Model { r, blocks, scratch: ptr::null_mut(), children, peak: 0, seed: 0 };
        for call in input.calls.iter().take(300) {
            model.step(call);
            model.check();
        }
        // Whatever order they go in, one free block is left.
        for block in model.blocks.drain(..) {
            Raw::free(block.place).unwrap();
        }
        for child in model.children.drain(..) {
            Raw::destroy(child).unwrap();
        }
        model.check();
        let whole = Raw::stats(r).largest_free;
        assert_eq!(Raw::free(Raw::alloc(r, whole).unwrap().as_ptr()), Ok(()));
        Raw::destroy(r).unwrap();
    }
    assert!(buffer[..at].iter().chain(&buffer[at + size..]).all(|&byte| byte == 0xEE), "written outside the buffer");
});
