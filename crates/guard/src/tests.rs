//! The layer over libc's allocator: the contract, and what it finds. One state for the process, so faults are counted
//! under one lock.

#[path = "../../system/contract.rs"]
mod contract;

use crate::{Guarded, Kind, LARGE, Options, SiteId, check};
use allokit_core::Backend;
use allokit_report::fault::{self, Policy};
use allokit_system::System;
use allokit_track::live;
use std::sync::{Mutex, MutexGuard, PoisonError};

type Layer = Guarded<System>;

const HERE: SiteId = SiteId::UNKNOWN;

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    fault::set_policy(Policy::Quiet);
    Layer::start(Options::default());
    guard
}

/// How many faults `run` makes.
fn faults(run: impl FnOnce()) -> u64 {
    let before = fault::count();
    run();
    fault::count() - before
}

#[test]
#[cfg_attr(miri, ignore = "long; the other tests go the same ways")]
fn the_contract() {
    let _alone = alone();
    assert_eq!(faults(contract::check::<Layer>), 0);
}

#[test]
fn each_byte_of_the_canary_is_guarded() {
    let _alone = alone();
    for size in (0..18).chain([200, 4096]) {
        for over in [0, 1, 7] {
            let bytes = size + over;
            // SAFETY: blocks of this layer; the bytes that are written too much are in their canaries.
            unsafe {
                let block = Layer::alloc_inside(crate::Layout::new(size), false, HERE, Kind::Malloc);
                *block.add(bytes) ^= 1;
                assert_eq!(faults(|| assert_eq!(check(HERE), 1)), 1, "{size} + {over}");
                assert_eq!(faults(|| Layer::free_at(block, HERE)), 1, "{size} + {over}");
                assert_eq!(faults(|| Layer::free_at(block, HERE)), 1, "freed again");
            }
        }
    }
}

#[test]
fn each_byte_of_the_header_is_guarded() {
    let _alone = alone();
    for before in 1..=16 {
        // SAFETY: as above.
        unsafe {
            let block = Layer::alloc_at(24, HERE);
            *block.sub(before) ^= 4;
            assert_eq!(faults(|| Layer::free_at(block, HERE)), 1, "{before}");
            *block.sub(before) ^= 4;
            assert_eq!(faults(|| Layer::free_at(block, HERE)), 0);
        }
    }
}

#[test]
fn kinds_and_sizes_are_told() {
    let _alone = alone();
    // SAFETY: live blocks of this layer.
    unsafe {
        let kinds = [Kind::Malloc, Kind::New, Kind::NewArray];
        for made in kinds {
            for freed in kinds {
                let block = Layer::alloc_as(24, HERE, made);
                assert_eq!(faults(|| Layer::free_as(block, None, HERE, freed)), u64::from(made != freed));
            }
        }
        let block = Layer::alloc_at(24, HERE);
        assert_eq!(faults(|| Layer::free_sized_at(block, 25, HERE)), 1);
        let block = Layer::alloc_at(24, HERE);
        assert_eq!(faults(|| Layer::free_sized_at(block, 24, HERE)), 0);
        assert_eq!(faults(|| assert_eq!(Layer::usable_size_at(block, HERE), 0)), 1);
    }
}

#[test]
fn a_write_after_free_is_told_once() {
    let _alone = alone();
    for at in [0, 5, 23] {
        // SAFETY: the block waits in the quarantine, so its memory is there.
        unsafe {
            let block = Layer::alloc_at(24, HERE);
            block.write_bytes(7, 24);
            Layer::free_at(block, HERE);
            assert_eq!(core::slice::from_raw_parts(block, 24), [0; 24]);
            block.add(at).write(1);
            assert_eq!(faults(|| assert_eq!(check(HERE), 1)), 1);
            assert_eq!(faults(|| assert_eq!(check(HERE), 0)), 0);
        }
    }
}

#[test]
fn freed_blocks_do_not_come_back_at_once() {
    let _alone = alone();
    let block = Layer::alloc_at(100, HERE);
    // SAFETY: live blocks of this layer.
    unsafe {
        Layer::free_at(block, HERE);
        for _ in 0..100 {
            let next = Layer::alloc_at(100, HERE);
            assert_ne!(next, block);
            Layer::free_at(next, HERE);
        }
        // In the end they do: the quarantine is no leak.
        let rounds = 4 * Options::THREAD / 100;
        assert!((0..rounds).any(|_| {
            let next = Layer::alloc_at(100, HERE);
            Layer::free_at(next, HERE);
            next == block
        }));
    }
}

#[test]
fn the_map_finds_the_start_of_a_block() {
    let _alone = alone();
    let blocks: std::vec::Vec<*mut u8> = (0..200).map(|size| Layer::alloc_at(size + 1, HERE)).collect();
    for (size, block) in blocks.iter().enumerate() {
        for into in [0, size / 2, size] {
            assert_eq!(live::last_start(block.addr() + into, LARGE), Some(block.addr()));
            assert!(crate::checked::fits(block.wrapping_add(into), size + 1 - into));
            assert!(!crate::checked::fits(block.wrapping_add(into), size + 2 - into));
        }
    }
    for block in blocks {
        // SAFETY: live.
        unsafe { Layer::free_at(block, HERE) };
    }
}

#[test]
#[cfg_attr(miri, ignore = "no reservations in the interpreter")]
fn large_blocks_end_at_their_page_and_grow() {
    let _alone = alone();
    // SAFETY: live blocks of this layer.
    unsafe {
        for size in [LARGE, LARGE + 1, 300_000, 5 << 20] {
            let block = Layer::alloc_at(size, HERE);
            assert!((block.addr() + size).next_multiple_of(4096) - (block.addr() + size) < 16);
            block.write(1);
            block.add(size - 1).write(2);
            let grown = Layer::realloc_at(block, size + 100_000, HERE);
            assert_eq!((*grown, *grown.add(size - 1)), (1, 2));
            grown.add(size + 99_999).write(3);
            let less = Layer::realloc_at(grown, size, HERE);
            assert_eq!((*less, *less.add(size - 1)), (1, 2));
            assert_eq!(faults(|| assert_eq!(check(HERE), 0)), 0);
            if !(less.addr() + size).is_multiple_of(4096) {
                *less.add(size) ^= 1;
                assert_eq!(faults(|| assert_eq!(check(HERE), 1)), 1);
                *less.add(size) ^= 1;
            }
            assert_eq!(faults(|| Layer::free_at(less, HERE)), 0);
            assert_eq!(faults(|| Layer::free_at(less, HERE)), 1);
        }
    }
}

#[test]
fn realloc_keeps_contents_and_guards_the_new_end() {
    let _alone = alone();
    // SAFETY: live blocks of this layer.
    unsafe {
        let mut block = Layer::alloc_at(1, HERE);
        block.write(9);
        for size in 2..300 {
            block = Layer::realloc_at(block, size, HERE);
            block.add(size - 1).write(size as u8);
            assert_eq!((*block, *block.add(size - 1)), (9, size as u8));
            assert!(size % 60 != 0 || faults(|| assert_eq!(check(HERE), 0)) == 0);
        }
        for size in (1..300).rev() {
            block = Layer::realloc_at(block, size, HERE);
            assert_eq!(*block, 9);
        }
        *block.add(1) ^= 1;
        assert_eq!(faults(|| block = Layer::realloc_at(block, 50, HERE)), 1);
        assert_eq!(faults(|| Layer::free_at(block, HERE)), 0);
    }
}

#[test]
fn threads_free_each_others_blocks() {
    let _alone = alone();
    let found = faults(|| {
        let blocks: std::vec::Vec<usize> = (0..500).map(|size| Layer::alloc(size).expose_provenance()).collect();
        std::thread::spawn(move || {
            for block in blocks {
                // SAFETY: live blocks that this thread has been given.
                unsafe { Layer::free(core::ptr::with_exposed_provenance_mut(block)) };
            }
        })
        .join()
        .expect("the thread ends");
    });
    assert_eq!(found, 0);
}

/// Whatever is cleared of a block lies in it, and its start and its end are.
#[test]
fn cleared_parts_lie_in_the_block() {
    for align in [16, 64, 4096, 1 << 16, 1 << 20] {
        for size in [1, 16, 300, 4096, 5000, LARGE, 1 << 20] {
            let layout = crate::Layout::aligned(size, align);
            for all in [false, true] {
                if !all && layout.gross() <= 4096 {
                    continue;
                }
                let [(start, end), (behind, last)] = crate::block::cleared(layout, all);
                assert!(start <= layout.offset - 16 && end >= layout.offset + 16, "{layout:?}");
                assert!(end <= behind && behind <= last && last == layout.gross(), "{layout:?}");
            }
        }
    }
}

mod corruption {
    use crate as allokit_guard_under_test;
    use allokit_report as allokit_report_under_test;
    use std::vec::Vec;
    include!("../corruption.rs");
}

#[test]
fn random_corruption_is_reported_or_does_no_harm() {
    let _alone = alone();
    for seed in 1..=if cfg!(miri) { 1 } else { 5u64 } {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bytes = std::iter::repeat_with(move || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(seed | 1);
            (state >> 56) as u8
        });
        corruption::run::<System>(bytes.take(if cfg!(miri) { 800 } else { 12_000 }));
    }
}
