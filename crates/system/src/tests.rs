//! The contract, and what this backend tells about itself.

#[path = "../contract.rs"]
mod contract;

use crate::System;
use allokit_core::{Backend, Known, Stats};
use std::string::String;

#[test]
fn the_contract() {
    contract::check::<System>();
}

#[test]
fn statistics() {
    let before = stats();
    // A compiler that knows malloc and free would drop the pair.
    let block = std::hint::black_box(System::alloc(50 << 20));
    // SAFETY: the block is live.
    unsafe { block.write_bytes(1, 50 << 20) };
    let with_block = stats();
    // SAFETY: as above.
    unsafe { System::free(block) };
    assert!(with_block.known.has(Known::COMMITTED_BYTES));
    assert!(with_block.committed_bytes >= before.committed_bytes + (50 << 20), "{before:?} {with_block:?}");
    let mut text = String::new();
    System::write_own_stats(&mut text).unwrap();
    assert!(text.len() > 100 && text.len() < 20_000 && text.ends_with('\n'), "{text}");
}

fn stats() -> Stats {
    let mut stats = Stats::new();
    System::stats(&mut stats);
    stats
}
