//! The product's own source of heaps, caches, pages, the table and large blocks, run by loom in every order that two
//! or three threads can take (up to a number of preemptions), with the stale values that the memory model lets a relaxed
//! load see.
//!
//! The files are compiled a second time here, as they are; what lies around them is replaced: atomics and locks by
//! loom's, the fence by loom's, the runs by eight units under one lock, the clock by nothing. A block has a cell whose
//! accesses loom compares: two threads that use one block without an order between them end the model.
//!
//! `cargo test -p allokit-native --test model`
#![allow(dead_code, missing_docs, clippy::missing_safety_doc)]

extern crate self as allokit_platform;

#[path = "../../src/cache.rs"]
mod cache;
#[path = "../../src/classes.rs"]
mod classes;
#[path = "../../src/heap.rs"]
mod heap;
#[path = "../../src/large.rs"]
mod large;
#[path = "../../src/page.rs"]
mod page;
#[path = "../../src/table.rs"]
mod table;

mod around;
mod cases;

use around::platform::{AddressMap, Lock, barrier, budget, keep_errno, meta, pages, thread, tools};
use around::{fork, runs, sampled, sync, tagged, upkeep};
use classes::SMALL_MAX;

/// The calls, as `lib.rs` makes them, without what makes them fast.
struct Native;

impl Native {
    fn fail() -> *mut u8 {
        std::ptr::null_mut()
    }

    fn alloc(size: usize) -> *mut u8 {
        if size > SMALL_MAX {
            return large::alloc(size, 1, false);
        }
        let heap = heap::HEAP::get();
        let class = if size <= 128 { size.div_ceil(16).max(1) } else { classes::of_small(size) };
        // SAFETY: the cell points at this thread's heap, or at a placeholder.
        unsafe {
            let list = &raw mut (*heap).heads[class];
            let block = *list;
            if block.is_null() {
                return heap::alloc_slow(heap, class, size);
            }
            *list = (*block).next;
            block.cast()
        }
    }

    unsafe fn free(ptr: *mut u8) {
        let word = table::word(ptr.addr());
        let heap = heap::HEAP::get();
        // SAFETY: the caller gives up a live block.
        unsafe {
            if word.is_owned_by(heap) {
                let bin = word.bin();
                (*bin).room -= 1;
                if (*bin).room < 0 {
                    return heap::overflow(bin, ptr);
                }
                heap::push(bin, ptr.cast());
            } else if word.is_small() {
                heap::free_remote(heap, word.hot(ptr.addr()), ptr);
            } else {
                assert!(word.is_large(), "free of {ptr:?}, which is no block");
                large::free(ptr);
            }
        }
    }
}

fn invalid(ptr: *const u8, what: &str) -> ! {
    panic!("{what} of {ptr:?}")
}
