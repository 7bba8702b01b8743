//! Random calls against models: an arena and a region as lists of blocks with known contents, a pool and a stack likewise.
//! proptest makes a sequence that fails shorter.

use super::Memory;
use crate::arena::{self, Options};
use crate::{Error, Label, pool, region, stack};
use proptest::prelude::*;
use proptest::test_runner::Config;
use std::collections::BTreeMap;
use std::vec::Vec;

fn config() -> Config {
    Config { cases: if cfg!(miri) { 2 } else { 300 }, failure_persistence: None, ..Config::default() }
}

const LENGTH: usize = if cfg!(miri) { 30 } else { 200 };

fn size() -> impl Strategy<Value = usize> {
    let large = if cfg!(miri) { 66_000..67_000usize } else { 60_000..140_000 };
    prop_oneof![6 => 0..300usize, 2 => 0..5000usize, 1 => large]
}

#[derive(Clone, Debug)]
enum ArenaOp {
    Alloc { size: usize, log: u32, zeroed: bool },
    Realloc { which: usize, size: usize },
    Mark,
    Rewind { which: usize },
    Reset,
    Clear,
    Trim,
    Child,
    EndChild,
}

fn arena_op() -> impl Strategy<Value = ArenaOp> {
    prop_oneof![
        8 => (size(), 0..12u32, any::<bool>()).prop_map(|(size, log, zeroed)| ArenaOp::Alloc { size, log, zeroed }),
        4 => (any::<usize>(), size()).prop_map(|(which, size)| ArenaOp::Realloc { which, size }),
        2 => Just(ArenaOp::Mark),
        2 => any::<usize>().prop_map(|which| ArenaOp::Rewind { which }),
        1 => Just(ArenaOp::Reset),
        1 => Just(ArenaOp::Clear),
        1 => Just(ArenaOp::Trim),
        1 => Just(ArenaOp::Child),
        1 => Just(ArenaOp::EndChild),
    ]
}

/// The bytes of a block that are written and looked at: under Miri some must do.
fn places(size: usize) -> impl Iterator<Item = usize> {
    (0..size).step_by(if !cfg!(miri) { 1 } else { 61 })
}

struct Held {
    place: *mut u8,
    size: usize,
    seed: u8,
}

impl Held {
    fn fill(place: *mut u8, from: usize, size: usize, seed: u8) -> Held {
        // SAFETY: the block has that many bytes.
        places(size).filter(|&i| i >= from).for_each(|i| unsafe { place.add(i).write(seed ^ i as u8) });
        Held { place, size, seed }
    }

    fn assert_whole(&self) {
        // SAFETY: as above.
        places(self.size).for_each(|i| unsafe { assert_eq!(self.place.add(i).read(), self.seed ^ i as u8) });
    }
}

fn assert_apart(blocks: &[Held]) {
    let mut places: BTreeMap<usize, usize> = BTreeMap::new();
    for block in blocks {
        assert!(places.insert(block.place.addr(), block.size.max(1)).is_none());
    }
    for ((a, size), (b, _)) in places.iter().zip(places.iter().skip(1)) {
        assert!(a + size <= *b);
    }
}

fn run_arena(ops: &[ArenaOp], guard: bool, limit: usize) {
    let memory = Memory::new();
    let options = Options { guard, limit, ..Options::new(memory.source()) };
    // SAFETY: the arena is used until it is destroyed.
    unsafe {
        let a = arena::Raw::create(&options).unwrap().as_ptr();
        let mut blocks: Vec<Held> = Vec::new();
        // A mark, and how many blocks and children there were.
        let mut marks: Vec<(arena::Mark, usize, usize)> = Vec::new();
        let mut children: Vec<*mut arena::Raw> = Vec::new();
        for (step, op) in ops.iter().enumerate() {
            let seed = step as u8;
            match *op {
                ArenaOp::Alloc { size, log, zeroed } => {
                    let block = if zeroed {
                        arena::Raw::calloc(a, 1, size)
                    } else {
                        arena::Raw::alloc_aligned(a, size, 1 << log)
                    };
                    let Ok(block) = block else {
                        assert!(limit != usize::MAX);
                        continue;
                    };
                    let place = block.as_ptr();
                    assert_eq!(place.addr() % if zeroed { 16 } else { 16.max(1 << log) }, 0);
                    assert!(!zeroed || places(size).all(|i| place.add(i).read() == 0));
                    blocks.push(Held::fill(place, 0, size, seed));
                }
                ArenaOp::Realloc { which, size } => {
                    // Only blocks since the last mark: a rewind would take the new place of an older one.
                    let from = marks.last().map_or(0, |mark| mark.1);
                    if blocks.len() == from {
                        continue;
                    }
                    let which = from + which % (blocks.len() - from);
                    let held = &blocks[which];
                    match arena::Raw::realloc(a, held.place, held.size, size) {
                        Ok(None) => {
                            assert_eq!(size, 0);
                            blocks.remove(which);
                        }
                        Ok(Some(block)) => {
                            let (kept, seed) = (held.size.min(size), held.seed);
                            blocks[which] = Held { place: block.as_ptr(), size: kept, seed };
                            blocks[which].assert_whole();
                            blocks[which] = Held::fill(block.as_ptr(), kept, size, seed);
                        }
                        Err(error) => assert_eq!(error, Error::NoMemory),
                    }
                }
                ArenaOp::Mark => marks.push((arena::Raw::mark(a), blocks.len(), children.len())),
                ArenaOp::Rewind { which } => {
                    if marks.is_empty() {
                        continue;
                    }
                    marks.truncate(which % marks.len() + 1);
                    let (mark, count, young) = marks[marks.len() - 1];
                    arena::Raw::rewind(a, &mark).unwrap();
                    blocks.truncate(count);
                    children.truncate(young);
                }
                ArenaOp::Reset | ArenaOp::Clear => {
                    if matches!(op, ArenaOp::Reset) {
                        arena::Raw::reset(a);
                    } else {
                        arena::Raw::clear(a);
                    }
                    marks.iter().for_each(|mark| assert!(arena::Raw::rewind(a, &mark.0).is_err()));
                    marks.clear();
                    blocks.clear();
                    children.clear();
                    assert_eq!(arena::Raw::stats(a).used, 0);
                }
                ArenaOp::Trim => {
                    arena::Raw::trim(a);
                }
                ArenaOp::Child => {
                    if let Ok(child) = arena::Raw::child(a, &options) {
                        let _ = arena::Raw::alloc(child.as_ptr(), 5000);
                        children.push(child.as_ptr());
                    }
                }
                ArenaOp::EndChild => {
                    if children.len() > marks.last().map_or(0, |mark| mark.2)
                        && let Some(child) = children.pop()
                    {
                        arena::Raw::destroy(child);
                    }
                }
            }
            assert_eq!((arena::Raw::check(a), arena::Raw::take_fault(a)), (0, None));
            let stats = arena::Raw::stats(a);
            assert!(stats.used >= blocks.iter().map(|block| block.size).sum());
            assert!(memory.bytes.get() <= limit && stats.reserved <= memory.bytes.get());
            blocks.iter().for_each(|block| assert!(arena::Raw::owns(a, block.place)));
            if step % 8 == 0 {
                blocks.iter().for_each(Held::assert_whole);
                assert_apart(&blocks);
            }
        }
        blocks.iter().for_each(Held::assert_whole);
        assert_apart(&blocks);
        arena::Raw::destroy(a);
    }
}

#[derive(Clone, Debug)]
enum RegionOp {
    Alloc { size: usize, log: u32 },
    Free { which: usize },
    FreeTwice { which: usize },
    Realloc { which: usize, size: usize },
    Scratch { size: usize },
    Reset,
}

fn region_op() -> impl Strategy<Value = RegionOp> {
    prop_oneof![
        8 => (size(), 0..10u32).prop_map(|(size, log)| RegionOp::Alloc { size, log }),
        6 => any::<usize>().prop_map(|which| RegionOp::Free { which }),
        1 => any::<usize>().prop_map(|which| RegionOp::FreeTwice { which }),
        4 => (any::<usize>(), size()).prop_map(|(which, size)| RegionOp::Realloc { which, size }),
        1 => size().prop_map(|size| RegionOp::Scratch { size }),
        1 => Just(RegionOp::Reset),
    ]
}

fn run_region(ops: &[RegionOp], room: usize) {
    let memory = Memory::new();
    // SAFETY: the region is used until it is destroyed.
    unsafe {
        let r = region::Raw::create(room, memory.source(), Label::NONE).unwrap().as_ptr();
        let mut blocks: Vec<Held> = Vec::new();
        let mut scratch: *mut u8 = core::ptr::null_mut();
        for (step, op) in ops.iter().enumerate() {
            let seed = step as u8;
            match *op {
                RegionOp::Alloc { size, log } => {
                    let before = region::Raw::stats(r);
                    match region::Raw::alloc_aligned(r, size, 1 << log) {
                        Ok(block) => {
                            assert_eq!(block.addr().get() % 16.max(1 << log), 0);
                            blocks.push(Held::fill(block.as_ptr(), 0, size, seed));
                        }
                        Err(error) => {
                            assert_eq!(error, Error::NoMemory);
                            // A good fit may miss a block of its own list; one twice as large it may not.
                            assert!(before.largest_free < 2 * size.max(16) + 2 * (1 << log) + 64, "{before:?}");
                        }
                    }
                }
                RegionOp::Free { which } | RegionOp::FreeTwice { which } if !blocks.is_empty() => {
                    let held = blocks.swap_remove(which % blocks.len());
                    held.assert_whole();
                    region::Raw::free(held.place).unwrap();
                    if held.place == scratch {
                        scratch = core::ptr::null_mut();
                    }
                    if matches!(op, RegionOp::FreeTwice { .. }) {
                        assert!(matches!(region::Raw::free(held.place), Err(Error::Fault(_))));
                    }
                }
                RegionOp::Realloc { which, size } if !blocks.is_empty() => {
                    let which = which % blocks.len();
                    let (place, had, seed) = (blocks[which].place, blocks[which].size, blocks[which].seed);
                    match region::Raw::realloc(r, place, size) {
                        Ok(None) => {
                            blocks.swap_remove(which);
                        }
                        Ok(Some(block)) => {
                            let kept = had.min(size);
                            Held { place: block.as_ptr(), size: kept, seed }.assert_whole();
                            blocks[which] = Held::fill(block.as_ptr(), kept, size, seed);
                        }
                        Err(error) => assert_eq!(error, Error::NoMemory),
                    }
                    if place == scratch && blocks.get(which).is_none_or(|held| held.place != place) {
                        scratch = core::ptr::null_mut();
                    }
                }
                RegionOp::Scratch { size } => match region::Raw::scratch(r, size) {
                    Ok(block) => {
                        assert!(scratch.is_null());
                        scratch = block.as_ptr();
                        blocks.push(Held::fill(scratch, 0, size, seed));
                    }
                    Err(error) => assert_eq!(error == Error::Busy, !scratch.is_null()),
                },
                RegionOp::Reset => {
                    region::Raw::reset(r);
                    scratch = core::ptr::null_mut();
                    blocks.clear();
                }
                _ => {}
            }
            assert_eq!(region::Raw::check(r), 0);
            assert_eq!(region::Raw::stats(r).blocks, blocks.len());
            if step % 8 == 0 {
                blocks.iter().for_each(Held::assert_whole);
                assert_apart(&blocks);
            }
        }
        blocks.iter().for_each(Held::assert_whole);
        assert_apart(&blocks);
        blocks.iter().for_each(|held| region::Raw::free(held.place).unwrap());
        let stats = region::Raw::stats(r);
        assert_eq!((stats.used, stats.largest_free), (0, stats.capacity - 16));
        let all = region::Raw::alloc(r, stats.largest_free).unwrap();
        region::Raw::free(all.as_ptr()).unwrap();
        region::Raw::destroy(r).unwrap();
    }
}

fn run_pool(ops: &[(u8, usize)], guard: bool) {
    let memory = Memory::new();
    let options = pool::Options { guard, limit: 60, per_chunk: 7, ..pool::Options::new(memory.source()) };
    // SAFETY: the pool is used until it is destroyed.
    unsafe {
        let p = pool::Raw::create(40, &options).unwrap().as_ptr();
        let mut held: Vec<Held> = Vec::new();
        for (step, (op, which)) in ops.iter().enumerate() {
            match op % 20 {
                0..10 => match pool::Raw::take(p) {
                    Ok(object) => held.push(Held::fill(object.as_ptr(), 0, 40, step as u8)),
                    Err(error) => assert_eq!((error, held.len()), (Error::NoMemory, 60)),
                },
                10..19 if !held.is_empty() => {
                    let object = held.swap_remove(which % held.len());
                    object.assert_whole();
                    pool::Raw::give(p, object.place).unwrap();
                    assert!(pool::Raw::give(p, object.place).is_err());
                }
                _ if which % 10 == 0 => {
                    pool::Raw::reset(p);
                    held.clear();
                }
                _ => {}
            }
            assert_eq!((pool::Raw::check(p), pool::Raw::live(p)), (0, held.len()));
            held.iter().for_each(Held::assert_whole);
            assert_apart(&held);
        }
        pool::Raw::destroy(p);
    }
}

fn run_stack(ops: &[(u8, usize)]) {
    enum Entry {
        Block(Held),
        Mark(stack::Mark),
    }
    let memory = Memory::new();
    // SAFETY: the stack is used until it is destroyed.
    unsafe {
        let s = stack::Raw::create(3000, &stack::Options::new(memory.source())).unwrap().as_ptr();
        let mut entries: Vec<Entry> = Vec::new();
        for (step, (op, which)) in ops.iter().enumerate() {
            match op % 10 {
                0..4 => match stack::Raw::push(s, which % 300) {
                    Ok(block) => entries.push(Entry::Block(Held::fill(block.as_ptr(), 0, which % 300, step as u8))),
                    Err(error) => {
                        assert_eq!(error, Error::NoMemory);
                        assert!(stack::Raw::used(s) + which % 300 + 16 > 3000 - 16);
                    }
                },
                4 => {
                    if let Ok(mark) = stack::Raw::mark(s) {
                        entries.push(Entry::Mark(mark));
                    }
                }
                5 if !entries.is_empty() => {
                    let at = which % entries.len();
                    if let Entry::Mark(mark) = entries[at] {
                        stack::Raw::release(s, &mark).unwrap();
                        assert!(stack::Raw::release(s, &mark).is_err());
                        entries.truncate(at);
                    }
                }
                _ if !entries.is_empty() => {
                    let at = which % entries.len();
                    let newest = at + 1 == entries.len();
                    if let Entry::Block(held) = &entries[at] {
                        held.assert_whole();
                        assert_eq!(stack::Raw::pop(s, held.place).is_ok(), newest);
                        if newest {
                            entries.pop();
                        }
                    }
                }
                _ => {}
            }
            assert_eq!(stack::Raw::check(s), 0);
        }
        stack::Raw::destroy(s);
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn arenas(ops in prop::collection::vec(arena_op(), 1..LENGTH), guard: bool, limited: bool) {
        run_arena(&ops, guard, if limited { 200_000 } else { usize::MAX });
    }

    #[test]
    fn regions(ops in prop::collection::vec(region_op(), 1..LENGTH), room in prop_oneof![Just(1000usize), Just(20_000), Just(400_000)]) {
        run_region(&ops, room);
    }

    #[test]
    fn pools(ops in prop::collection::vec((any::<u8>(), any::<usize>()), 1..LENGTH), guard: bool) {
        run_pool(&ops, guard);
    }

    #[test]
    fn stacks(ops in prop::collection::vec((any::<u8>(), any::<usize>()), 1..LENGTH)) {
        run_stack(&ops);
    }
}
