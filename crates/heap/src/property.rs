//! Random calls on a tree of heaps against a model that knows which blocks live, what is in them and what limits allow.

use crate::heap::{Raw, fit, free_any};
use crate::{Error, Kind, Options};
use proptest::prelude::*;
use std::ptr;
use std::vec::Vec;

struct Block {
    ptr: *mut u8,
    size: usize,
    usable: usize,
    seed: u8,
}

struct Model {
    raw: *mut Raw,
    limit: usize,
    parent: Option<usize>,
    blocks: Vec<Block>,
    pinned: Vec<*mut u8>,
    pinned_bytes: usize,
}

#[derive(Clone, Debug)]
enum Call {
    Alloc { heap: usize, size: usize, shift: u32, zeroed: bool },
    Realloc { heap: usize, block: usize, size: usize },
    Free { heap: usize, block: usize, any: bool },
    FreeWrong { heap: usize, other: usize, block: usize },
    FreeTwice { heap: usize, block: usize },
    Pin { heap: usize, size: usize },
    Unpin { heap: usize },
    Reset { heap: usize },
    Again { heap: usize, limit: usize },
}

fn size() -> impl Strategy<Value = usize> {
    // Each unit of a large block costs the interpreter much.
    let most: usize = if cfg!(miri) { 60_000 } else { 400_000 };
    prop_oneof![4 => 0..300usize, 3 => 0..5000usize, 2 => 0..40_000usize, 1 => 0..most]
}

fn call() -> impl Strategy<Value = Call> {
    let heap = 0..HEAPS;
    prop_oneof![
        10 => (heap.clone(), size(), prop_oneof![8 => Just(0u32), 2 => 0..16u32], any::<bool>())
            .prop_map(|(heap, size, shift, zeroed)| Call::Alloc { heap, size, shift, zeroed }),
        5 => (heap.clone(), any::<usize>(), size()).prop_map(|(heap, block, size)| Call::Realloc { heap, block, size }),
        7 => (heap.clone(), any::<usize>(), any::<bool>())
            .prop_map(|(heap, block, any)| Call::Free { heap, block, any }),
        1 => (heap.clone(), heap.clone(), any::<usize>())
            .prop_map(|(heap, other, block)| Call::FreeWrong { heap, other, block }),
        1 => (heap.clone(), any::<usize>()).prop_map(|(heap, block)| Call::FreeTwice { heap, block }),
        1 => (heap.clone(), size()).prop_map(|(heap, size)| Call::Pin { heap, size }),
        1 => heap.clone().prop_map(|heap| Call::Unpin { heap }),
        1 => heap.clone().prop_map(|heap| Call::Reset { heap }),
        1 => (heap, limit()).prop_map(|(heap, limit)| Call::Again { heap, limit }),
    ]
}

fn limit() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0usize), 20_000..2_000_000usize]
}

/// Heap 0 has children 1 and 2, 1 has 3, 3 has 4; 5 stands alone.
const HEAPS: usize = 6;
const PARENTS: [Option<usize>; HEAPS] = [None, Some(0), Some(0), Some(1), Some(3), None];

fn live(models: &[Model], at: usize) -> usize {
    let below: usize =
        (0..models.len()).filter(|child| models[*child].parent == Some(at)).map(|child| live(models, child)).sum();
    models[at].blocks.iter().map(|block| block.usable).sum::<usize>() + models[at].pinned_bytes + below
}

/// Whether limits let a heap have so many bytes more.
fn allowed(models: &[Model], at: usize, more: usize) -> bool {
    let mut heap = Some(at);
    while let Some(now) = heap {
        if models[now].limit != 0 && live(models, now) + more > models[now].limit {
            return false;
        }
        heap = models[now].parent;
    }
    true
}

fn usable(size: usize, align: usize) -> usize {
    fit(size, align).unwrap().1
}

fn fill(block: &Block) {
    // SAFETY: the block is the model's.
    unsafe { block.ptr.write_bytes(block.seed, block.size) };
}

fn holds(ptr: *mut u8, size: usize, seed: u8) -> bool {
    // SAFETY: as above.
    (0..size).step_by(if cfg!(miri) { 499 } else { 31 }).all(|at| unsafe { *ptr.add(at) } == seed)
}

fn create(parent: *mut Raw, limit: usize) -> *mut Raw {
    // SAFETY: the parent lives.
    unsafe { Raw::create(parent, &Options { limit, ..Options::USUAL }) }.unwrap().as_ptr()
}

fn run(calls: &[Call], limits: &[usize]) {
    let mut models: Vec<Model> = Vec::new();
    for at in 0..HEAPS {
        let parent = PARENTS[at].map_or(ptr::null_mut(), |parent| models[parent].raw);
        models.push(Model {
            raw: create(parent, limits[at]),
            limit: limits[at],
            parent: PARENTS[at],
            blocks: Vec::new(),
            pinned: Vec::new(),
            pinned_bytes: 0,
        });
    }
    let mut seed = 0u8;
    for call in calls {
        seed = seed.wrapping_add(1);
        // SAFETY: the model's heaps live, and its blocks are live blocks of them; what is wrong is meant to be noticed.
        unsafe {
            match *call {
                Call::Alloc { heap, size, shift, zeroed } => {
                    let align = 1 << shift;
                    let bytes = usable(size, align.max(16));
                    let raw = models[heap].raw;
                    let (got, align) = if zeroed {
                        (Raw::calloc(raw, size, 1), 16)
                    } else {
                        (Raw::alloc_aligned(raw, size, align), align)
                    };
                    let bytes = if zeroed { usable(size, 16) } else { bytes };
                    assert_eq!(got.is_ok(), allowed(&models, heap, bytes), "{size}");
                    let Ok(block) = got else { continue };
                    assert_eq!(block.addr().get() % align.max(16), 0);
                    assert!(!zeroed || holds(block.as_ptr(), size, 0));
                    assert_eq!(Raw::usable(raw, block.as_ptr()), Ok(bytes));
                    let block = Block { ptr: block.as_ptr(), size, usable: bytes, seed };
                    fill(&block);
                    models[heap].blocks.push(block);
                }
                Call::Realloc { heap, block, size } => {
                    if models[heap].blocks.is_empty() {
                        continue;
                    }
                    let block = block % models[heap].blocks.len();
                    let Block { ptr, size: had, usable: old, seed: was } = models[heap].blocks[block];
                    let wanted = usable(size, 16);
                    let got = Raw::realloc(models[heap].raw, ptr, size);
                    if wanted <= old {
                        assert!(got.is_ok(), "a block shrinks from {had} to {size}");
                    } else {
                        assert_eq!(got.is_ok(), allowed(&models, heap, wanted - old));
                    }
                    let (now, kept) = got.map_or((ptr, had), |new| (new.as_ptr(), had.min(size)));
                    assert!(holds(now, kept, was));
                    if got.is_ok() {
                        let usable = Raw::usable(models[heap].raw, now).unwrap();
                        assert!(usable >= wanted && usable <= wanted.max(old));
                        models[heap].blocks[block] = Block { ptr: now, size, usable, seed };
                        fill(&models[heap].blocks[block]);
                    }
                }
                Call::Free { heap, block, any } => {
                    if models[heap].blocks.is_empty() {
                        continue;
                    }
                    let block = block % models[heap].blocks.len();
                    let block = models[heap].blocks.swap_remove(block);
                    assert!(holds(block.ptr, block.size, block.seed));
                    if any {
                        assert_eq!(free_any(block.ptr), Some((Ok(()), models[heap].raw)));
                    } else {
                        assert_eq!(Raw::free(models[heap].raw, block.ptr), Ok(()));
                    }
                }
                Call::FreeWrong { heap, other, block } => {
                    if heap == other || models[heap].blocks.is_empty() {
                        continue;
                    }
                    let ptr = models[heap].blocks[block % models[heap].blocks.len()].ptr;
                    let wrong = Err(Error::fault(Kind::Foreign, ptr.addr()));
                    assert_eq!(Raw::free(models[other].raw, ptr), wrong);
                    assert_eq!(Raw::realloc(models[other].raw, ptr, 100).map(drop), wrong);
                }
                Call::FreeTwice { heap, block } => {
                    if models[heap].blocks.is_empty() {
                        continue;
                    }
                    let block = block % models[heap].blocks.len();
                    let block = models[heap].blocks.swap_remove(block);
                    assert_eq!(Raw::free(models[heap].raw, block.ptr), Ok(()));
                    assert!(matches!(Raw::free(models[heap].raw, block.ptr), Err(Error::Fault(_))));
                }
                Call::Pin { heap, size } => {
                    let bytes = usable(size, 16);
                    let got = Raw::alloc_pinned(models[heap].raw, size, 16);
                    assert_eq!(got.is_ok(), allowed(&models, heap, bytes));
                    if let Ok(block) = got {
                        models[heap].pinned.push(block.as_ptr());
                        models[heap].pinned_bytes += bytes;
                    }
                }
                Call::Unpin { heap } => {
                    if let Some(block) = models[heap].pinned.pop() {
                        let raw = models[heap].raw;
                        models[heap].pinned_bytes -= Raw::usable(raw, block).unwrap();
                        assert_eq!(Raw::free_pinned(raw, block), Ok(()));
                    }
                }
                Call::Reset { heap } => {
                    if models[heap].pinned.is_empty() {
                        assert_eq!(Raw::reset(models[heap].raw), Ok(()));
                        models[heap].blocks.clear();
                    } else {
                        assert_eq!(Raw::reset(models[heap].raw), Err(Error::fault(Kind::HasArenas, 0)));
                    }
                }
                Call::Again { heap, limit } => {
                    let raw = models[heap].raw;
                    if PARENTS.contains(&Some(heap)) {
                        assert_eq!(Raw::destroy(raw), Err(Error::fault(Kind::HasChildren, 0)));
                    } else if !models[heap].pinned.is_empty() {
                        assert_eq!(Raw::destroy(raw), Err(Error::fault(Kind::HasArenas, 0)));
                    } else {
                        assert_eq!(Raw::destroy(raw), Ok(()));
                        assert!(!Raw::is_alive(raw));
                        models[heap].blocks.clear();
                        models[heap].limit = limit;
                        models[heap].raw =
                            create(models[heap].parent.map_or(ptr::null_mut(), |parent| models[parent].raw), limit);
                    }
                }
            }
        }
    }
    for at in 0..HEAPS {
        // SAFETY: the heap lives.
        unsafe {
            assert_eq!(Raw::check(models[at].raw), 0);
            let stats = Raw::stats(models[at].raw);
            assert_eq!(stats.total, live(&models, at));
            assert_eq!(stats.blocks, models[at].blocks.len() + models[at].pinned.len());
            assert!(models[at].blocks.iter().all(|block| holds(block.ptr, block.size, block.seed)));
            for block in core::mem::take(&mut models[at].pinned) {
                assert_eq!(Raw::free_pinned(models[at].raw, block), Ok(()));
            }
        }
    }
    for at in (0..HEAPS).rev() {
        // SAFETY: as above; children come later in the row than their parents.
        unsafe { assert_eq!(Raw::destroy(models[at].raw), Ok(())) };
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 300 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn random_calls_agree_with_the_model(
        calls in prop::collection::vec(call(), 1..if cfg!(miri) { 40 } else { 600 }),
        limits in prop::collection::vec(limit(), HEAPS),
    ) {
        let _alone = crate::tests::alone();
        run(&calls, &limits);
    }
}
