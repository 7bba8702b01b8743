//! Arenas against a list of blocks: contents, overlap, alignment, marks and children by age, limits, and the same chunks in
//! each of five equal rounds.
#![no_main]

mod common;

use allokit_arena::Error;
use allokit_arena::arena::{Mark, Options, Raw};
use arbitrary::Arbitrary;
use common::{Block, Memory, Size, assert_apart, with_memory};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Call {
    Alloc(Size),
    Aligned(Size, u8),
    Calloc(Size, u8),
    Realloc(u8, Size),
    Mark,
    Rewind(u8),
    RewindDead(u8),
    Reset,
    Clear,
    Trim,
    Child(Size),
    ChildAlloc(u8, Size),
    EndChild,
    Commit(u8),
    Refuse(u8),
}

#[derive(Arbitrary, Debug)]
enum Plan {
    Calls(Vec<Call>),
    /// The same allocations five times, a reset after each.
    Rounds {
        wide: bool,
        sizes: Vec<(Size, u8)>,
    },
}

#[derive(Arbitrary, Debug)]
struct Input {
    guard: bool,
    limit: Option<u16>,
    alignment: u8,
    first: u16,
    buffer: Option<(u16, u8)>,
    plan: Plan,
}

struct Model {
    a: *mut Raw,
    memory: *mut Memory,
    options: Options,
    align: usize,
    blocks: Vec<Block>,
    /// Each with the number of blocks and of children before it.
    marks: Vec<(Mark, usize, usize)>,
    dead: Vec<Mark>,
    children: Vec<(*mut Raw, Vec<Block>)>,
    seed: u8,
}

impl Model {
    fn may_fail(&self) -> bool {
        // SAFETY: the source's memory.
        self.options.limit != usize::MAX || unsafe { (*self.memory).refuse != 0 || (*self.memory).bytes > 32 << 20 }
    }

    fn add(&mut self, made: Result<std::ptr::NonNull<u8>, Error>, size: usize, align: usize, could_fail: bool) {
        match made {
            Ok(block) => {
                assert_eq!(block.addr().get() % align.max(self.align), 0);
                self.seed = self.seed.wrapping_add(1);
                self.blocks.push(Block::fill(block.as_ptr(), size, self.seed));
            }
            Err(error) => {
                assert_eq!(error, Error::NoMemory);
                assert!(could_fail || size > 16 << 20, "no memory for {size}");
            }
        }
    }

    fn end_marks(&mut self, from: usize) {
        self.dead.extend(self.marks.drain(from..).map(|mark| mark.0));
        let old = self.dead.len().saturating_sub(16);
        self.dead.drain(..old);
    }

    /// # Safety
    /// The arena lives.
    unsafe fn step(&mut self, call: &Call) {
        let (a, could_fail) = (self.a, self.may_fail());
        // SAFETY: the arena lives; blocks are those of the model.
        unsafe {
            match *call {
                Call::Alloc(size) => self.add(Raw::alloc(a, size.get()), size.get(), 16, could_fail),
                Call::Aligned(size, log) => {
                    let align = 1 << (log % 15);
                    self.add(Raw::alloc_aligned(a, size.get(), align), size.get(), align, could_fail);
                    assert_eq!(Raw::alloc_aligned(a, 1, align * 3), Err(Error::Invalid));
                }
                Call::Calloc(size, count) => {
                    let Some(bytes) = size.get().checked_mul(count as usize) else {
                        assert_eq!(Raw::calloc(a, count as usize, size.get()), Err(Error::NoMemory));
                        return;
                    };
                    let made = Raw::calloc(a, count as usize, size.get());
                    if let Ok(block) = made {
                        assert!((0..bytes).all(|at| block.add(at).read() == 0));
                    }
                    self.add(made, bytes, 16, could_fail);
                }
                Call::Realloc(which, size) => {
                    // Only blocks since the last mark: a rewind would take the new place of an older one.
                    let from = self.marks.last().map_or(0, |mark| mark.1);
                    if self.blocks.len() == from {
                        return;
                    }
                    let which = from + which as usize % (self.blocks.len() - from);
                    let (old, size) = (self.blocks[which], size.get());
                    match Raw::realloc(a, old.place, old.size, size) {
                        Ok(None) => {
                            assert_eq!(size, 0);
                            self.blocks.remove(which);
                        }
                        Ok(Some(block)) => {
                            assert_eq!(block.addr().get() % self.align, 0);
                            old.verify_moved(block.as_ptr(), old.size.min(size));
                            self.blocks[which] = Block::fill(block.as_ptr(), size, old.seed);
                        }
                        Err(error) => {
                            assert_eq!(error, Error::NoMemory);
                            assert!(could_fail || size > 16 << 20);
                        }
                    }
                }
                Call::Mark => self.marks.push((Raw::mark(a), self.blocks.len(), self.children.len())),
                Call::Rewind(which) => {
                    if self.marks.is_empty() {
                        return;
                    }
                    let at = which as usize % self.marks.len();
                    let (mark, count, young) = self.marks[at];
                    Raw::rewind(a, &mark).unwrap();
                    self.blocks.truncate(count);
                    self.children.truncate(young);
                    // Marks with the very same words are the same point, and may be gone back to as well.
                    let ended = self.marks.split_off(at + 1);
                    self.dead.extend(
                        ended.iter().map(|one| one.0).filter(|one| self.marks.iter().all(|kept| kept.0 != *one)),
                    );
                    let old = self.dead.len().saturating_sub(16);
                    self.dead.drain(..old);
                }
                Call::RewindDead(which) => {
                    if !self.dead.is_empty() {
                        let mark = self.dead[which as usize % self.dead.len()];
                        // A later mark of a point that a live one holds is as good as that one.
                        if self.marks.iter().any(|kept| kept.0.is_same_point(&mark)) {
                            return;
                        }
                        assert!(matches!(Raw::rewind(a, &mark), Err(Error::Fault(_))));
                    }
                }
                Call::Reset | Call::Clear => {
                    if matches!(call, Call::Reset) {
                        Raw::reset(a)
                    } else {
                        Raw::clear(a)
                    }
                    self.end_marks(0);
                    self.blocks.clear();
                    self.children.clear();
                    assert_eq!(Raw::stats(a).used, 0);
                    if matches!(call, Call::Clear) {
                        assert!(Raw::stats(a).chunks <= 1 + usize::from(!self.options.buffer.is_null()));
                    }
                }
                Call::Trim => {
                    let before = Raw::stats(a).reserved;
                    assert_eq!(Raw::trim(a), before - Raw::stats(a).reserved);
                }
                Call::Child(first) => {
                    let options = Options {
                        first_chunk: first.possible() % 5000,
                        buffer: std::ptr::null_mut(),
                        limit: usize::MAX,
                        ..self.options
                    };
                    match Raw::child(a, &options) {
                        Ok(child) => self.children.push((child.as_ptr(), Vec::new())),
                        Err(error) => assert!(could_fail && error == Error::NoMemory),
                    }
                }
                Call::ChildAlloc(which, size) => {
                    let count = self.children.len();
                    if count != 0 {
                        let (child, blocks) = &mut self.children[which as usize % count];
                        let size = size.possible();
                        if let Ok(block) = Raw::alloc(*child, size) {
                            blocks.push(Block::fill(block.as_ptr(), size, which));
                        } else {
                            assert!(could_fail);
                        }
                    }
                }
                Call::EndChild => {
                    if self.children.len() > self.marks.last().map_or(0, |mark| mark.2) {
                        Raw::destroy(self.children.pop().unwrap().0);
                    }
                }
                Call::Commit(size) => {
                    let (place, room) = Raw::tail(a);
                    let size = size as usize;
                    if size != 0 && size <= room {
                        let block = Raw::commit(a, size).unwrap();
                        assert_eq!(block.as_ptr(), place);
                        self.add(Ok(block), size, 16, false);
                    }
                }
                Call::Refuse(times) => (*self.memory).refuse = times as usize % 8,
            }
        }
    }

    /// # Safety
    /// The arena lives.
    unsafe fn check(&mut self) {
        // SAFETY: the arena lives.
        unsafe {
            assert_eq!((Raw::check(self.a), Raw::take_fault(self.a)), (0, None));
            let stats = Raw::stats(self.a);
            assert!(stats.used >= self.blocks.iter().map(|block| block.size).sum());
            assert!(stats.peak >= stats.used && stats.used + stats.waste <= stats.reserved);
            assert!((*self.memory).bytes <= self.options.limit);
            let own = if self.options.buffer.is_null() { 0 } else { self.options.buffer_size };
            assert!(stats.reserved <= (*self.memory).bytes + own);
            self.blocks.iter().for_each(|block| assert!(Raw::owns(self.a, block.place)));
            self.blocks.iter().for_each(Block::verify);
            for (child, blocks) in &self.children {
                assert_eq!(Raw::check(*child), 0);
                blocks.iter().for_each(Block::verify);
                blocks
                    .iter()
                    .for_each(|block| assert!(!Raw::owns(self.a, block.place) && Raw::owns(*child, block.place)));
            }
            assert_apart(self.blocks.iter().chain(self.children.iter().flat_map(|child| &child.1)));
        }
    }
}

fuzz_target!(|input: Input| {
    let mut buffer = input.buffer.map(|(size, _)| vec![0xEEu8; size as usize + 32]).unwrap_or_default();
    with_memory(|memory, source| {
        let mut options = Options {
            guard: input.guard,
            limit: input.limit.map_or(usize::MAX, |limit| (limit as usize + 1) * 16),
            alignment: 1 << (input.alignment % 8),
            first_chunk: input.first as usize % 5000,
            ..Options::new(source)
        };
        if let Some((size, offset)) = input.buffer {
            options.buffer = buffer.as_mut_ptr().wrapping_add(offset as usize % 16);
            options.buffer_size = size as usize;
            options.limit = usize::MAX;
        }
        // SAFETY: the arena is used until it is destroyed; the buffer outlives it.
        unsafe {
            let Ok(a) = Raw::create(&options) else { return };
            let a = a.as_ptr();
            match &input.plan {
                Plan::Calls(calls) => {
                    let (align, blocks) = (options.alignment.max(16), Vec::new());
                    let (marks, dead, children) = (Vec::new(), Vec::new(), Vec::new());
                    let mut model = Model { a, memory, options, align, blocks, marks, dead, children, seed: 0 };
                    for call in calls.iter().take(200) {
                        model.step(call);
                        model.check();
                    }
                }
                Plan::Rounds { wide, sizes } => {
                    let mut held = None;
                    for round in 0..5 {
                        let mut blocks = Vec::new();
                        for (step, (size, log)) in sizes.iter().take(300).enumerate() {
                            let (size, align) = (size.possible(), 1 << if *wide { log % 12 } else { 0 });
                            if let Ok(block) = Raw::alloc_aligned(a, size, align) {
                                assert_eq!(block.addr().get() % align, 0);
                                blocks.push(Block::fill(block.as_ptr(), size, step as u8));
                            } else {
                                assert!(options.limit != usize::MAX || (*memory).bytes > 32 << 20);
                            }
                        }
                        blocks.iter().for_each(Block::verify);
                        assert_apart(blocks.iter());
                        let now = (Raw::stats(a).chunks, (*memory).bytes, blocks.len());
                        // What a limit refused once may fit in the first of the next rounds.
                        if options.limit == usize::MAX && (*memory).bytes < 32 << 20 {
                            assert_eq!(*held.get_or_insert(now), now, "round {round}");
                        }
                        assert_eq!(Raw::check(a), 0);
                        Raw::reset(a);
                        assert_eq!(Raw::check(a), 0);
                    }
                }
            }
            Raw::destroy(a);
        }
    });
});
