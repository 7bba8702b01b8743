//! The contract of `Backend` as tests, shared by the backends and layers: `check::<B>()` tries every rule.

use allokit_core::{Backend, MAX_ALIGN, MAX_SIZE, MIN_ALIGN};
use allokit_platform::errno;
use std::collections::HashSet;
use std::vec::Vec;

/// Every rule, over one backend.
pub fn check<B: Backend>() {
    sizes_and_alignment::<B>();
    zero_sizes_are_unique::<B>();
    alignments::<B>();
    impossible_requests::<B>();
    realloc_keeps_contents::<B>();
    realloc_aligned_keeps_alignment::<B>();
    free_keeps_errno::<B>();
    threads_free_each_others_blocks::<B>();
}

fn aligned(block: *mut u8, align: usize) -> bool {
    block.addr() & (align - 1) == 0
}

fn sizes_and_alignment<B: Backend>() {
    let mut blocks = Vec::new();
    for size in (0..300).chain([1000, 4096, 5000, 40_000, 70_000, 300_000, 1 << 20, 9_000_001]) {
        for zeroed in [false, true] {
            let block = if zeroed { B::alloc_zeroed(size) } else { B::alloc(size) };
            assert!(!block.is_null() && aligned(block, MIN_ALIGN), "{size} at {block:?}");
            // SAFETY: the block is live and holds `size` bytes.
            unsafe {
                assert!(B::usable_size(block) >= size);
                assert!(!zeroed || (0..size).all(|i| *block.add(i) == 0));
                block.write_bytes(size as u8 | 1, size);
            }
            blocks.push((block, size));
        }
    }
    for (block, size) in blocks {
        // SAFETY: the block is live; nobody else wrote to it.
        unsafe {
            assert!((0..size).all(|i| *block.add(i) == size as u8 | 1));
            if size % 2 == 0 { B::free(block) } else { B::free_sized(block, size) }
        }
    }
    // A dirty block of the same class must come back zeroed.
    for size in [1, 16, 100, 5000, 70_000, 1 << 20] {
        let block = B::alloc_zeroed(size);
        // SAFETY: the block is live.
        unsafe {
            assert!((0..size).all(|i| *block.add(i) == 0), "{size}");
            B::free(block);
        }
    }
}

fn zero_sizes_are_unique<B: Backend>() {
    let blocks: Vec<_> = (0..64)
        .map(|i| if i % 2 == 0 { B::alloc(0) } else { B::alloc_zeroed(0) })
        .chain([B::alloc_aligned(0, 64)])
        .collect();
    let distinct: HashSet<_> = blocks.iter().map(|block| block.addr()).collect();
    assert!(distinct.len() == blocks.len() && !distinct.contains(&0));
    for block in blocks {
        // SAFETY: the block is live.
        unsafe { B::free(block) };
    }
}

fn alignments<B: Backend>() {
    let mut align = 1;
    while align <= MAX_ALIGN {
        let sizes: &[usize] = if align > 1 << 26 { &[0, 100, 70_000] } else { &[0, 1, 24, 100, 5000, 70_000, 300_000] };
        let mut blocks = Vec::new();
        for &size in sizes {
            for zeroed in [false, true] {
                let block = if zeroed { B::alloc_aligned_zeroed(size, align) } else { B::alloc_aligned(size, align) };
                assert!(!block.is_null(), "{size} aligned to {align}");
                assert!(aligned(block, align.max(MIN_ALIGN)), "{size} aligned to {align} at {block:?}");
                // SAFETY: the block is live.
                unsafe {
                    assert!(B::usable_size(block) >= size);
                    assert!(!zeroed || (0..size).all(|i| *block.add(i) == 0));
                    block.write_bytes(0x5a, size);
                }
                blocks.push((block, size));
            }
        }
        for (i, (mut block, size)) in blocks.into_iter().enumerate() {
            // SAFETY: the block is live, also after it was resized.
            unsafe {
                if i % 3 == 0 {
                    block = B::realloc(block, size + 1000);
                    assert!(!block.is_null() && aligned(block, MIN_ALIGN) && (0..size).all(|i| *block.add(i) == 0x5a));
                }
                B::free(block);
            }
        }
        align *= 2;
    }
}

fn impossible_requests<B: Backend>() {
    let refused = |block: *mut u8| {
        assert_eq!((block, errno::get()), (std::ptr::null_mut(), errno::ENOMEM));
        errno::set(0);
    };
    let block = B::alloc(100);
    // SAFETY: the block is live, before and after resizes that fail.
    unsafe { block.write_bytes(3, 100) };
    errno::set(0);
    for size in
        [1 << 60, MAX_SIZE - 4096, MAX_SIZE - 15, MAX_SIZE, MAX_SIZE + 1, MAX_SIZE + 4096, usize::MAX - 15, usize::MAX]
    {
        refused(B::alloc(size));
        refused(B::alloc_zeroed(size));
        for align in [32, 4096, 1 << 20, MAX_ALIGN] {
            refused(B::alloc_aligned(size, align));
            refused(B::alloc_aligned_zeroed(size, align));
        }
        // SAFETY: as above.
        unsafe {
            refused(B::realloc(block, size));
            refused(B::realloc_aligned(block, size, 64));
            assert!((0..100).all(|i| *block.add(i) == 3));
        }
    }
    // SAFETY: the block is still live.
    unsafe { B::free(block) };
}

fn realloc_keeps_contents<B: Backend>() {
    let mut block = B::alloc(1);
    let mut size = 1;
    // SAFETY: each result is live until the next.
    unsafe {
        *block = 1;
        for next in [2, 8, 9, 16, 17, 100, 24, 1000, 5000, 70_000, 65, 400_000, 3_000_000, 1_000_000, 3, 12] {
            block = B::realloc(block, next);
            assert!(!block.is_null() && aligned(block, MIN_ALIGN));
            assert!(B::usable_size(block) >= next);
            assert!((0..size.min(next)).all(|i| *block.add(i) == (i % 251 + 1) as u8), "{size} to {next}");
            for i in 0..next {
                *block.add(i) = (i % 251 + 1) as u8;
            }
            size = next;
        }
        B::free(block);
    }
}

fn realloc_aligned_keeps_alignment<B: Backend>() {
    for align in [16, 32, 64, 256, 4096, 1 << 17] {
        let mut block = B::alloc_aligned(10, align);
        let mut size = 10;
        // SAFETY: each result is live until the next.
        unsafe {
            block.write_bytes(9, 10);
            for next in [5, 40, 100, 5000, 300_000, 20] {
                block = B::realloc_aligned(block, next, align);
                assert!(!block.is_null() && aligned(block, align));
                assert!((0..size.min(next)).all(|i| *block.add(i) == 9));
                block.write_bytes(9, next);
                size = next;
            }
            B::free(block);
        }
    }
}

fn free_keeps_errno<B: Backend>() {
    for size in [1, 100, 5000, 70_000, 1 << 20, 64 << 20] {
        let block = std::hint::black_box(B::alloc(size));
        errno::set(77);
        // SAFETY: the block is live.
        unsafe { B::free(block) };
        assert_eq!(errno::get(), 77);
    }
}

fn threads_free_each_others_blocks<B: Backend>() {
    let (send, receive) = std::sync::mpsc::sync_channel::<Vec<(usize, usize)>>(4);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for (address, size) in receive.into_iter().flatten() {
                let block = std::ptr::with_exposed_provenance_mut::<u8>(address);
                // SAFETY: the other thread has handed the live block over.
                unsafe {
                    assert!((0..size).all(|i| *block.add(i) == size as u8));
                    B::free(block);
                }
            }
        });
        for round in 0..50 {
            let batch = (0..100).map(|i| {
                let size = (round * 37 + i * 13) % 600;
                let block = B::alloc(size);
                // SAFETY: the block is live.
                unsafe { block.write_bytes(size as u8, size) };
                (block.expose_provenance(), size)
            });
            send.send(batch.collect()).unwrap();
        }
        drop(send);
    });
}
