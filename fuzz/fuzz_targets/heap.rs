//! Heaps against a tree of lists of blocks: contents, overlap, alignment, limits that nest and are exact, resets, ends, wrong
//! pointers, the figures, and other threads in between.
#![no_main]

mod common;

use allokit_heap::{Error, Kind, Options, Raw, find, free_any};
use arbitrary::Arbitrary;
use common::{Block, Size, assert_apart};
use libfuzzer_sys::fuzz_target;
use std::ptr::{self, NonNull};

#[derive(Arbitrary, Debug)]
enum Call {
    New(u8, Option<u16>),
    Alloc(u8, Size),
    /// Blocks of one size, taken and given back: the thread becomes the heap's owner.
    Pairs(u8, u16, u8),
    Aligned(u8, Size, u8),
    Calloc(u8, Size, u8),
    Realloc(u8, u8, Size, u8),
    Free(u8, u8),
    FreeAny(u8, u8),
    FreeTwice(u8, u8),
    FreeMiddle(u8, u8, u8),
    FreeForeign(u8, u8, u8),
    Pin(u8, Size),
    Unpin(u8),
    Reset(u8),
    Destroy(u8),
    /// Another thread does the next call.
    Elsewhere,
}

#[derive(Arbitrary, Debug)]
struct Input {
    limit: Option<u16>,
    calls: Vec<Call>,
}

struct Heap {
    raw: *mut Raw,
    parent: Option<usize>,
    limit: usize,
    blocks: Vec<Block>,
    pinned: Vec<Block>,
    peak: usize,
    failed: u64,
    alive: bool,
}

#[derive(Default)]
struct Model {
    heaps: Vec<Heap>,
    seed: u8,
}

// SAFETY: one thread at a time has it.
unsafe impl Send for Model {}

/// What a block of this size occupies, as docs/heaps.md says; `None` where there can be none.
fn usable(size: usize, align: usize) -> Option<usize> {
    let (size, align) = (size.max(1), align.max(16));
    if size > isize::MAX as usize - align {
        return None;
    }
    if align > 1024 {
        return Some(size.next_multiple_of(4096));
    }
    let size = size.next_multiple_of(align);
    let step = match size {
        0..=256 => 16,
        257..=512 => 32,
        513..=1024 => 64,
        1025..=2048 => 256,
        2049..=4096 => 512,
        4097..=16384 => 1024,
        _ => 4096,
    };
    Some(size.next_multiple_of(step))
}

/// A size for which there is memory, or none at all.
fn sane(size: Size) -> usize {
    let size = size.get();
    if size > isize::MAX as usize { size } else { size % (9 << 20) }
}

fn limit(asked: Option<u16>) -> usize {
    asked.map_or(0, |limit| 1 + limit as usize * 40)
}

impl Heap {
    fn current(&self) -> usize {
        self.blocks.iter().chain(&self.pinned).map(|block| block.size).sum()
    }
}

impl Model {
    fn one(&self, which: u8) -> Option<usize> {
        let alive: Vec<usize> = (0..self.heaps.len()).filter(|at| self.heaps[*at].alive).collect();
        (!alive.is_empty()).then(|| alive[which as usize % alive.len()])
    }

    fn block(&self, heap: usize, which: u8) -> Option<usize> {
        let count = self.heaps[heap].blocks.len();
        (count != 0).then(|| which as usize % count)
    }

    fn children(&self, heap: usize) -> impl Iterator<Item = usize> {
        (0..self.heaps.len()).filter(move |at| self.heaps[*at].alive && self.heaps[*at].parent == Some(heap))
    }

    fn total(&self, heap: usize) -> usize {
        self.heaps[heap].current() + self.children(heap).map(|child| self.total(child)).sum::<usize>()
    }

    /// Whether limits let the heap have so many bytes more, and the nearest limit.
    fn allows(&self, heap: usize, more: usize) -> (bool, usize) {
        let (mut at, mut nearest, mut allowed) = (Some(heap), 0, true);
        while let Some(here) = at {
            let limit = self.heaps[here].limit;
            if limit != 0 {
                nearest = if nearest == 0 { limit } else { nearest };
                allowed &= self.total(here).saturating_add(more) <= limit;
            }
            at = self.heaps[here].parent;
        }
        (allowed, nearest)
    }

    /// What a call that takes so many bytes more must give: limits are exact; what a heap holds may refuse as well, beyond twice the
    /// limit and 64 KiB.
    ///
    /// # Safety
    /// The heap lives.
    unsafe fn expect(&mut self, heap: usize, more: usize, bytes: Option<usize>, got: &Result<NonNull<u8>, Error>) {
        let Some(bytes) = bytes else { return assert_eq!(*got, Err(Error::NoMemory)) };
        let (allowed, nearest) = self.allows(heap, more);
        match got {
            Ok(_) => assert!(allowed, "over a limit"),
            Err(error) => {
                assert_eq!(*error, Error::NoMemory);
                // SAFETY: the heap lives.
                let reserved = unsafe { Raw::stats(self.heaps[heap].raw) }.reserved;
                let held = nearest != 0 && reserved + bytes + (32 << 10) > 2 * nearest + (64 << 10);
                assert!(!allowed || held, "{bytes} bytes refused");
            }
        }
    }

    fn add(&mut self, place: NonNull<u8>, usable: usize) -> Block {
        self.seed = self.seed.wrapping_add(1);
        Block::fill(place.as_ptr(), usable, self.seed)
    }

    /// # Safety
    /// The model's heaps live where it says so.
    unsafe fn take(
        &mut self,
        heap: usize,
        size: usize,
        align: usize,
        got: Result<NonNull<u8>, Error>,
    ) -> Option<Block> {
        // SAFETY: the caller's promise.
        unsafe {
            let bytes = usable(size, align);
            self.expect(heap, bytes.unwrap_or(0), bytes, &got);
            let raw = self.heaps[heap].raw;
            match got {
                Ok(place) => {
                    assert_eq!(place.addr().get() % align.max(16), 0);
                    assert_eq!(Raw::usable(raw, place.as_ptr()).ok(), bytes);
                    assert_eq!(find(place.as_ptr()), Some(raw));
                    Some(self.add(place, bytes.unwrap()))
                }
                Err(_) => {
                    self.heaps[heap].failed += 1;
                    None
                }
            }
        }
    }

    /// # Safety
    /// As above.
    unsafe fn step(&mut self, call: &Call) {
        // SAFETY: heaps and blocks are the model's; wrong pointers are meant to be noticed.
        unsafe {
            match *call {
                Call::New(parent, asked) => {
                    if self.heaps.iter().filter(|heap| heap.alive).count() < 8 {
                        let parent = if parent & 1 == 0 { None } else { self.one(parent >> 1) };
                        self.create(parent, limit(asked));
                    }
                }
                Call::Alloc(heap, size) => {
                    let Some(heap) = self.one(heap) else { return };
                    let size = sane(size);
                    let got = Raw::alloc(self.heaps[heap].raw, size);
                    let block = self.take(heap, size, 16, got);
                    self.heaps[heap].blocks.extend(block);
                }
                Call::Pairs(heap, size, count) => {
                    let Some(heap) = self.one(heap) else { return };
                    let (raw, size) = (self.heaps[heap].raw, size as usize % 1100);
                    for at in 0..count as usize {
                        let got = Raw::alloc(raw, size + at % 3);
                        let Some(block) = self.take(heap, size + at % 3, 16, got) else { break };
                        self.note(heap, block.size);
                        Raw::free(raw, block.place).unwrap();
                    }
                }
                Call::Aligned(heap, size, log) => {
                    let Some(heap) = self.one(heap) else { return };
                    let (size, align) = (sane(size), 1 << (log % 18));
                    let raw = self.heaps[heap].raw;
                    let got = Raw::alloc_aligned(raw, size, align);
                    let block = self.take(heap, size, align, got);
                    self.heaps[heap].blocks.extend(block);
                    assert_eq!(Raw::alloc_aligned(raw, 1, align * 3), Err(Error::Invalid));
                }
                Call::Calloc(heap, size, count) => {
                    let Some(heap) = self.one(heap) else { return };
                    let (size, count) = (sane(size), count as usize % 4);
                    let got = Raw::calloc(self.heaps[heap].raw, count, size);
                    let bytes = count.checked_mul(size).filter(|bytes| *bytes <= isize::MAX as usize);
                    if let (Ok(block), Some(bytes)) = (&got, bytes) {
                        assert!((0..bytes).all(|at| block.add(at).read() == 0));
                    }
                    let Some(bytes) = bytes else {
                        // An impossible product is refused before the heap is asked.
                        return assert_eq!(got, Err(Error::NoMemory));
                    };
                    let block = self.take(heap, bytes, 16, got);
                    self.heaps[heap].blocks.extend(block);
                }
                Call::Realloc(heap, which, size, log) => {
                    let Some(heap) = self.one(heap) else { return };
                    let Some(which) = self.block(heap, which) else { return };
                    let (raw, old) = (self.heaps[heap].raw, self.heaps[heap].blocks[which]);
                    let (size, align) = (sane(size), if log & 3 == 0 { 1 << (log >> 2 & 15) } else { 16 });
                    let got = Raw::realloc_aligned(raw, old.place, size, align);
                    let bytes = usable(size, align);
                    match got {
                        Ok(place) => {
                            assert_eq!(place.addr().get() % align.max(16), 0);
                            let now = Raw::usable(raw, place.as_ptr()).unwrap();
                            assert!(now >= bytes.unwrap() && now <= bytes.unwrap().max(old.size));
                            old.verify_moved(place.as_ptr(), old.size.min(size));
                            let before = self.heaps[heap].blocks.swap_remove(which).size;
                            assert!(now <= before || self.allows(heap, now).0, "over a limit");
                            let block = self.add(place, now);
                            self.heaps[heap].blocks.push(block);
                        }
                        Err(_) => {
                            let grows = bytes.is_none_or(|bytes| bytes > old.size);
                            assert!(grows || old.place.addr() % align != 0, "a block that shrinks was refused");
                            self.expect(heap, bytes.unwrap_or(0).saturating_sub(old.size), bytes, &got);
                            self.heaps[heap].failed += 1;
                        }
                    }
                }
                Call::Free(heap, which) | Call::FreeAny(heap, which) | Call::FreeTwice(heap, which) => {
                    let Some(heap) = self.one(heap) else { return };
                    let Some(which) = self.block(heap, which) else { return };
                    let raw = self.heaps[heap].raw;
                    let block = self.heaps[heap].blocks.swap_remove(which);
                    block.verify();
                    if matches!(call, Call::FreeAny(..)) {
                        assert_eq!(free_any(block.place), Some((Ok(()), raw)));
                    } else {
                        assert_eq!(Raw::free(raw, block.place), Ok(()));
                    }
                    if matches!(call, Call::FreeTwice(..)) {
                        assert!(matches!(Raw::free(raw, block.place), Err(Error::Fault(_))));
                        assert!(free_any(block.place).is_none_or(|(result, _)| result.is_err()));
                        assert!(!Raw::owns(raw, block.place));
                    }
                }
                Call::FreeMiddle(heap, which, at) => {
                    let Some(heap) = self.one(heap) else { return };
                    let Some(which) = self.block(heap, which) else { return };
                    let (raw, block) = (self.heaps[heap].raw, self.heaps[heap].blocks[which]);
                    let at = 1 + at as usize * 37 % block.size;
                    if at < block.size {
                        let fault = Err(Error::Fault(allokit_heap::Fault {
                            kind: Kind::Inside,
                            address: block.place.addr() + at,
                        }));
                        assert_eq!(Raw::free(raw, block.place.add(at)), fault);
                        assert!(Raw::owns(raw, block.place.add(at)));
                    }
                }
                Call::FreeForeign(heap, other, which) => {
                    let (Some(heap), Some(other)) = (self.one(heap), self.one(other)) else { return };
                    let Some(which) = self.block(heap, which) else { return };
                    if heap != other {
                        let (raw, block) = (self.heaps[other].raw, self.heaps[heap].blocks[which]);
                        assert!(Raw::free(raw, block.place).is_err() && !Raw::owns(raw, block.place));
                        assert!(Raw::realloc(raw, block.place, 10).is_err());
                    }
                }
                Call::Pin(heap, size) => {
                    let Some(heap) = self.one(heap) else { return };
                    let size = sane(size);
                    let got = Raw::alloc_pinned(self.heaps[heap].raw, size, 16);
                    let block = self.take(heap, size, 16, got);
                    self.heaps[heap].pinned.extend(block);
                }
                Call::Unpin(heap) => {
                    let Some(heap) = self.one(heap) else { return };
                    let Some(block) = self.heaps[heap].pinned.pop() else { return };
                    block.verify();
                    assert_eq!(Raw::free_pinned(self.heaps[heap].raw, block.place), Ok(()));
                }
                Call::Reset(heap) => {
                    let Some(heap) = self.one(heap) else { return };
                    let done = Raw::reset(self.heaps[heap].raw);
                    assert_eq!(done.is_ok(), self.heaps[heap].pinned.is_empty());
                    if done.is_ok() {
                        let raw = self.heaps[heap].raw;
                        for block in self.heaps[heap].blocks.drain(..).take(3) {
                            assert!(Raw::free(raw, block.place).is_err());
                        }
                    }
                }
                Call::Destroy(heap) => {
                    let Some(heap) = self.one(heap) else { return };
                    let kept = self.children(heap).next().is_some() || !self.heaps[heap].pinned.is_empty();
                    let raw = self.heaps[heap].raw;
                    assert_eq!(Raw::destroy(raw).is_ok(), !kept);
                    if !kept {
                        assert!(!Raw::is_alive(raw));
                        let gone = &mut self.heaps[heap];
                        gone.alive = false;
                        for block in gone.blocks.drain(..).take(3) {
                            assert!(free_any(block.place).is_none_or(|(result, _)| result.is_err()));
                        }
                    }
                }
                Call::Elsewhere => {}
            }
        }
    }

    /// # Safety
    /// The parent lives.
    unsafe fn create(&mut self, parent: Option<usize>, limit: usize) {
        let above = parent.map_or(ptr::null_mut(), |parent| self.heaps[parent].raw);
        // SAFETY: the caller's promise.
        let raw = unsafe { Raw::create(above, &Options { limit, ..Options::USUAL }) }.unwrap().as_ptr();
        let (blocks, pinned) = (Vec::new(), Vec::new());
        self.heaps.push(Heap { raw, parent, limit, blocks, pinned, peak: 0, failed: 0, alive: true });
    }

    /// So many bytes more are in use for a moment.
    fn note(&mut self, heap: usize, more: usize) {
        self.heaps[heap].peak = self.heaps[heap].peak.max(self.heaps[heap].current() + more);
    }

    /// # Safety
    /// As above.
    unsafe fn check(&mut self) {
        for at in (0..self.heaps.len()).filter(|at| self.heaps[*at].alive).collect::<Vec<_>>() {
            self.note(at, 0);
            let heap = &self.heaps[at];
            // SAFETY: the heap lives.
            let stats = unsafe {
                assert_eq!(Raw::check(heap.raw), 0);
                Raw::stats(heap.raw)
            };
            assert_eq!((stats.current, stats.total), (heap.current(), self.total(at)));
            assert_eq!((stats.peak, stats.limit, stats.failed), (heap.peak, heap.limit, heap.failed));
            assert_eq!(
                (stats.blocks, stats.children),
                (heap.blocks.len() + heap.pinned.len(), self.children(at).count())
            );
            assert_eq!(stats.allocs - stats.frees, stats.blocks as u64);
            heap.blocks.iter().chain(&heap.pinned).for_each(Block::verify);
        }
        assert_apart(self.heaps.iter().flat_map(|heap| heap.blocks.iter().chain(&heap.pinned)));
    }
}

fuzz_target!(|input: Input| {
    let mut model = Model::default();
    // SAFETY: heaps are used while they live, by one thread at a time.
    unsafe {
        model.create(None, limit(input.limit));
        let mut elsewhere = false;
        for (number, call) in input.calls.iter().take(250).enumerate() {
            if matches!(call, Call::Elsewhere) {
                elsewhere = true;
            } else if std::mem::take(&mut elsewhere) {
                let shared = &mut model;
                std::thread::scope(|scope| {
                    scope.spawn(move || shared.step(call)).join().unwrap();
                });
            } else {
                model.step(call);
            }
            if number % 4 == 0 || number < 20 {
                model.check();
            } else {
                (0..model.heaps.len()).for_each(|heap| model.note(heap, 0));
            }
        }
        model.check();
        for at in (0..model.heaps.len()).rev() {
            let heap = &mut model.heaps[at];
            if heap.alive {
                for block in heap.pinned.drain(..) {
                    Raw::free_pinned(heap.raw, block.place).unwrap();
                }
                assert_eq!(Raw::destroy(heap.raw), Ok(()));
            }
        }
    }
});
