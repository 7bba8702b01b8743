//! The limit of the process, which concerns every test of a process: so this one has its own.

use allokit_core::{Backend, Stats};
use allokit_native::{Native, check};
use allokit_platform::budget;

fn held() -> usize {
    let mut stats = Stats::new();
    Native::stats(&mut stats);
    stats.committed_bytes as usize
}

#[test]
#[cfg(not(miri))]
fn a_limit_of_the_process_is_hard_and_takes_what_is_cached_first() {
    // SAFETY: freed once.
    unsafe { Native::free(Native::alloc(1)) };
    Native::trim();
    assert_eq!(budget::held(), held());
    let limit = held() + (16 << 20);
    budget::set_limit(limit);
    for round in 0..4 {
        // One kind of block after the other: what the last kind has left free must not be missing.
        let (mut blocks, mut got, mut seed) = (Vec::new(), 0, 1u32);
        loop {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let mixed = 1 << (seed >> 16 & 15);
            let bytes = [96, 100_000, mixed, 5 << 20][round];
            let block = Native::alloc(bytes);
            assert!(held() <= limit, "{} of {limit}", held());
            if block.is_null() {
                break;
            }
            blocks.push(block);
            got += bytes;
        }
        assert!(got > 12 << 20, "round {round}: only {got} bytes");
        // Growing is refused too, and leaves the block.
        // SAFETY: a live block.
        assert!(unsafe { Native::realloc(blocks[0], 17 << 20) }.is_null());
        // Another thread's cache counts, and goes when another thread is in need.
        if round == 2 {
            std::thread::scope(|scope| {
                // SAFETY: live blocks.
                let free = |block: usize| unsafe { Native::free(std::ptr::with_exposed_provenance_mut(block)) };
                let all: Vec<usize> = blocks.drain(..).map(|block| block.expose_provenance()).collect();
                scope.spawn(move || all.into_iter().for_each(free));
            });
        }
        // SAFETY: live blocks.
        blocks.into_iter().for_each(|block| unsafe { Native::free(block) });
    }
    budget::set_limit(usize::MAX);
    let large = Native::alloc(32 << 20);
    assert!(!large.is_null());
    // SAFETY: freed once.
    unsafe { Native::free(large) };
    assert_eq!(check(), 0);
    assert_eq!(budget::held(), held());
    Native::trim();
    assert_eq!(budget::held(), held());
}
