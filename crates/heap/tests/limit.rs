//! The limit of the process, which concerns every test of a process: so this one has its own.

use allokit_heap::{Heap, Label, Options, figures, register_fork};
use allokit_platform::budget;

#[test]
#[cfg(not(miri))]
fn the_limit_of_the_process_counts_what_heaps_hold() {
    register_fork();
    let heap = Heap::new(&Options { label: Label::named(b"test"), limit: 0 }).unwrap();
    let first = heap.alloc(1).unwrap();
    assert_eq!(budget::held(), figures().committed);
    let limit = budget::held() + (2 << 20);
    budget::set_limit(limit);
    for size in [100, 60_000, 3000, 500_000] {
        let mut blocks = Vec::new();
        while let Ok(block) = heap.alloc(size) {
            blocks.push(block);
            assert!(budget::held() <= limit && budget::held() == figures().committed);
        }
        assert!(blocks.len() * size > 1 << 20, "{} blocks of {size}", blocks.len());
        assert!(heap.alloc(20 << 20).is_err(), "nor a mapping of its own");
        // SAFETY: live blocks of this heap.
        blocks.into_iter().for_each(|block| unsafe { heap.free(block).unwrap() });
    }
    budget::set_limit(usize::MAX);
    // SAFETY: as above.
    unsafe {
        heap.free(first).unwrap();
        let large = heap.alloc(20 << 20).unwrap();
        assert_eq!(budget::held(), figures().committed);
        heap.free(large).unwrap();
    }
    assert_eq!(budget::held(), figures().committed);
}
