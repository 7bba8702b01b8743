//! What the heap promises, one thing a test; random calls are in `property`.

use crate::heap::{Raw, find, free_any};
use crate::{Error, Fault, Heap, Kind, Label, Options};
use std::ptr::NonNull;
use std::vec::Vec;

/// The tests look at what has ended, and at what the process has: one at a time.
pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn heap(limit: usize) -> Heap<'static> {
    Heap::new(&Options { label: Label::named(b"test"), limit }).unwrap()
}

fn fault<T>(result: Result<T, Error>) -> Option<Kind> {
    match result {
        Err(Error::Fault(Fault { kind, .. })) => Some(kind),
        _ => None,
    }
}

const MANY: usize = if cfg!(miri) { 300 } else { 20_000 };

#[test]
fn blocks_of_every_size_are_aligned_disjoint_and_found() {
    let _alone = alone();
    let h = heap(0);
    let mut blocks: Vec<(NonNull<u8>, usize)> = Vec::new();
    let step = if cfg!(miri) { 997 } else { 37 };
    for size in (0..40_000).step_by(step).chain([4096, 4097, 16384, 16385, 1 << 20]) {
        let block = h.alloc(size).unwrap();
        assert_eq!(block.addr().get() % 16, 0);
        assert!(h.usable(block).unwrap() >= size.max(1));
        // SAFETY: the block is ours.
        unsafe { block.write_bytes(size as u8, size) };
        assert_eq!(find(block.as_ptr()), Some(h.as_raw()));
        blocks.push((block, size));
    }
    assert_eq!(h.check(), 0);
    assert_eq!(h.stats().blocks, blocks.len());
    for (block, size) in blocks {
        // SAFETY: written above, freed once.
        unsafe {
            assert!((0..size).step_by(97).all(|at| *block.as_ptr().add(at) == size as u8));
            assert!(h.owns(block.as_ptr().add(size.max(1) - 1)));
            h.free(block).unwrap();
            assert!(!h.owns(block.as_ptr()));
        }
    }
    let stats = h.stats();
    assert_eq!((stats.current, stats.blocks, stats.allocs), (0, 0, stats.frees));
    assert!(stats.peak > 1 << 20);
    assert_eq!(h.check(), 0);
}

#[test]
fn what_is_freed_is_used_again() {
    let _alone = alone();
    let h = heap(0);
    let mut reserved = 0;
    for round in 0..5 {
        // Another size each time: empty pages go back to the chunk, and to other classes.
        let blocks: Vec<_> = (0..MANY).map(|i| h.alloc(1 + (round * 200 + i % 100)).unwrap()).collect();
        for block in &blocks {
            // SAFETY: ours, once.
            unsafe { h.free(*block).unwrap() };
        }
        assert_eq!(h.check(), 0);
        let now = h.stats().reserved;
        assert!(now <= 128 << 10, "{now} bytes held by an empty heap");
        reserved = reserved.max(now);
    }
    assert!(reserved > 0);
}

#[test]
fn a_small_heap_is_small() {
    let _alone = alone();
    let h = heap(0);
    assert_eq!(h.stats().reserved, 0);
    for size in 1..200 {
        let _ = h.alloc(size).unwrap();
    }
    let stats = h.stats();
    assert!(stats.reserved <= 48 << 10, "{stats:?}");
}

#[test]
fn every_alignment_is_given() {
    let _alone = alone();
    let h = heap(0);
    let most = if cfg!(miri) { 14 } else { 26 };
    for shift in 0..=most {
        let align = 1usize << shift;
        for size in [0, 1, 100, 4000, 20_000] {
            let block = h.alloc_aligned(size, align).unwrap();
            assert_eq!(block.addr().get() % align.max(16), 0, "{size} {align}");
            // SAFETY: ours, once.
            unsafe {
                block.write_bytes(1, size);
                h.free(block).unwrap();
            }
        }
    }
    for wrong in [0, 3, 24, 48, usize::MAX, 2 << 30] {
        assert_eq!(h.alloc_aligned(16, wrong), Err(Error::Invalid));
    }
    assert_eq!(h.check(), 0);
}

#[test]
fn impossible_sizes() {
    let _alone = alone();
    let h = heap(0);
    for size in [usize::MAX, isize::MAX as usize, isize::MAX as usize - 15, 1 << 60] {
        if cfg!(miri) && size == 1 << 60 {
            continue; // the interpreter ends where a system refuses
        }
        assert_eq!(h.alloc(size), Err(Error::NoMemory));
        assert_eq!(h.alloc_aligned(size, 4096), Err(Error::NoMemory));
        assert_eq!(h.calloc(1, size), Err(Error::NoMemory));
    }
    assert_eq!(h.calloc(usize::MAX, 2), Err(Error::NoMemory));
    assert_eq!(h.calloc(1 << 32, 1 << 32), Err(Error::NoMemory));
    let block = h.alloc(10).unwrap();
    // SAFETY: ours.
    unsafe {
        assert_eq!(h.realloc(block, usize::MAX), Err(Error::NoMemory));
        h.free(block).unwrap();
    }
    assert_eq!((h.check(), h.stats().current), (0, 0));
    assert_eq!(h.stats().failed, if cfg!(miri) { 9 } else { 12 }); // products that are no size are not asked for
}

#[test]
fn calloc_is_zero_where_others_have_written() {
    let _alone = alone();
    let h = heap(0);
    for size in [16, 100, 1000, 5000, 20_000, 300_000] {
        if cfg!(miri) && size > 20_000 {
            continue;
        }
        for _ in 0..3 {
            let dirty = h.alloc(size).unwrap();
            // SAFETY: ours.
            unsafe {
                dirty.write_bytes(0xA5, size);
                h.free(dirty).unwrap();
                let zero = h.calloc(size / 4, 4).unwrap();
                assert!((0..size / 4 * 4).step_by(13).all(|at| *zero.as_ptr().add(at) == 0));
                h.free(zero).unwrap();
            }
        }
    }
}

#[test]
fn realloc_keeps_the_contents() {
    let _alone = alone();
    let h = heap(0);
    let sizes = [1, 16, 17, 100, 90, 40, 1000, 5000, 4097, 12_000, 16_385, 100_000, 50_000, 1 << 20, 70_000, 3000, 1];
    let mut block = h.alloc(1).unwrap();
    let mut have = 1;
    // SAFETY: always the newest block.
    unsafe {
        *block.as_ptr() = 0;
        for size in sizes {
            if cfg!(miri) && size > 20_000 {
                continue;
            }
            block = h.realloc(block, size).unwrap();
            for at in (0..have.min(size)).step_by(61) {
                assert_eq!(*block.as_ptr().add(at), at as u8, "{have} to {size} at {at}");
            }
            for at in 0..size {
                *block.as_ptr().add(at) = at as u8;
            }
            have = size;
            assert_eq!(h.check(), 0);
            assert_eq!(h.stats().current, h.usable(block).unwrap());
        }
        h.free(block).unwrap();
    }
    assert_eq!(h.stats().current, 0);
}

#[test]
fn a_limit_holds_and_a_refusal_changes_nothing() {
    let _alone = alone();
    let h = heap(10_000);
    let block = h.alloc(6000).unwrap();
    let before = h.stats();
    assert_eq!(before.current, 6144);
    assert_eq!(h.alloc(4000), Err(Error::NoMemory));
    // SAFETY: ours.
    unsafe {
        block.write_bytes(3, 6000);
        assert_eq!(h.realloc(block, 10_001), Err(Error::NoMemory));
        assert_eq!(*block.as_ptr().add(5999), 3);
        assert_eq!(h.stats(), crate::Stats { failed: 2, ..before });
        // The old block and the new one do not both count.
        let block = h.realloc(block, 9000).unwrap();
        assert_eq!(*block.as_ptr().add(5999), 3);
        assert_eq!(h.alloc(1024), Err(Error::NoMemory));
        let small = h.realloc(block, 10).unwrap();
        assert_eq!(h.stats().current, 16);
        assert!(h.alloc(9000).is_ok());
        h.free(small).unwrap();
    }
    assert_eq!(h.check(), 0);
}

#[test]
fn limits_nest() {
    let _alone = alone();
    let top = heap(100_000);
    let middle = top.child(&Options::USUAL).unwrap();
    let low = middle.child(&Options { limit: 50_000, ..Options::USUAL }).unwrap();
    let block = low.alloc(40_000).unwrap();
    assert_eq!(low.alloc(16_000), Err(Error::NoMemory));
    let other = middle.alloc(50_000).unwrap();
    assert_eq!(low.alloc(9000), Err(Error::NoMemory));
    assert_eq!(top.alloc(9000), Err(Error::NoMemory));
    assert_eq!(top.stats().total, 40_960 + 53_248);
    assert_eq!((top.stats().current, top.stats().children), (0, 1));
    assert_eq!(middle.stats().total, 40_960 + 53_248);
    // SAFETY: ours.
    unsafe {
        middle.free(other).unwrap();
        assert!(low.alloc(8000).is_ok());
        low.free(block).unwrap();
    }
    drop(low);
    assert_eq!(top.stats().total, 0);
    let _ = middle.alloc(1000).unwrap();
    // SAFETY: the block is used no more.
    unsafe { middle.reset().unwrap() };
    assert_eq!(top.stats().total, 0);
}

#[test]
fn scattered_frees_pin_no_more_than_twice_the_limit() {
    let _alone = alone();
    let limit = 256 << 10;
    let h = heap(limit);
    let mut kept = Vec::new();
    for size in (16..=2048).step_by(16) {
        let mut all = Vec::new();
        while let Ok(block) = h.alloc(size) {
            all.push(block);
            if cfg!(miri) && all.len() > 20 {
                break;
            }
        }
        for (number, block) in all.into_iter().enumerate() {
            if number % 200 == 0 {
                kept.push(block);
            } else {
                // SAFETY: ours, once.
                unsafe { h.free(block).unwrap() };
            }
        }
    }
    let stats = h.stats();
    assert!(stats.reserved <= 3 * limit, "{stats:?}");
    assert_eq!(h.check(), 0);
}

#[test]
fn reset_and_destroy_end_all_blocks() {
    let _alone = alone();
    let h = heap(1 << 22);
    let mut old = None;
    for _ in 0..3 {
        for size in 0..MANY {
            old = Some(h.alloc(size % 700).unwrap());
            if size % 1000 == 0 {
                let _ = h.alloc(size % 9 * 10_000).unwrap();
            }
            if h.stats().total > 3 << 20 {
                break;
            }
        }
        // SAFETY: no block is used any more.
        unsafe { h.reset().unwrap() };
        let stats = h.stats();
        assert_eq!((stats.current, stats.blocks, stats.total, stats.reserved), (0, 0, 0, 16 << 10));
        assert_eq!(h.check(), 0);
    }
    // SAFETY: looked at only.
    unsafe {
        let kind = fault(free_any(old.unwrap().as_ptr()).unwrap().0).unwrap();
        assert!(kind == Kind::Gone || kind == Kind::Foreign, "{kind:?}");
    }
    let raw = h.as_raw();
    let last = h.alloc(100).unwrap();
    drop(h);
    // SAFETY: records stay readable; the block is looked at only.
    unsafe {
        assert!(!Raw::is_alive(raw));
        assert!(fault(Raw::destroy(raw)) == Some(Kind::Ended) || Raw::is_alive(raw));
        if let Some((result, _)) = free_any(last.as_ptr()) {
            assert!(result.is_err());
        }
    }
}

#[test]
fn wrong_pointers_are_noticed() {
    let _alone = alone();
    let (h, other) = (heap(0), heap(0));
    let (block, next) = (h.alloc(100).unwrap(), h.alloc(100).unwrap());
    let large = h.alloc(100_000).unwrap();
    let medium = h.alloc(7000).unwrap();
    let mut on_stack = 0u8;
    // SAFETY: wrong pointers are what this is about; live blocks are freed once.
    unsafe {
        assert_eq!(fault(other.free(block)), Some(Kind::Foreign));
        assert_eq!(fault(other.realloc(block, 5)), Some(Kind::Foreign));
        assert_eq!(fault(other.free(large)), Some(Kind::Foreign));
        assert_eq!(fault(h.free(NonNull::from(&mut on_stack))), Some(Kind::Foreign));
        assert_eq!(fault(h.free(block.add(16))), Some(Kind::Inside));
        assert_eq!(fault(h.free(block.add(1))), Some(Kind::Inside));
        assert_eq!(fault(h.free(large.add(16))), Some(Kind::Inside));
        assert_eq!(fault(h.free(medium.add(5000))), Some(Kind::Inside));
        assert_eq!(h.stats().blocks, 4);
        h.free(block).unwrap();
        assert_eq!(fault(h.free(block)), Some(Kind::DoubleFree));
        assert_eq!(fault(h.realloc(block, 5)), Some(Kind::DoubleFree));
        assert_eq!(fault(h.usable(block)), Some(Kind::DoubleFree));
        h.free(large).unwrap();
        assert_eq!(fault(h.free(large)), Some(Kind::Gone));
        h.free(medium).unwrap();
        assert_eq!(fault(h.free(medium)), Some(Kind::Gone));
        assert!(free_any(&raw mut on_stack).is_none());
        assert_eq!(free_any(next.as_ptr()), Some((Ok(()), h.as_raw())));
    }
    assert_eq!((h.check(), h.stats().blocks, other.check()), (0, 0, 0));
}

#[test]
fn parents_and_arenas_keep_a_heap() {
    let _alone = alone();
    let h = heap(0);
    let child = h.child(&Options::USUAL).unwrap();
    // SAFETY: all heaps live where they are used.
    unsafe {
        assert_eq!(fault(Raw::destroy(h.as_raw())), Some(Kind::HasChildren));
        drop(child);
        let block = Raw::alloc_pinned(h.as_raw(), 100, 16).unwrap();
        assert_eq!(fault(Raw::destroy(h.as_raw())), Some(Kind::HasArenas));
        assert_eq!(fault(Raw::reset(h.as_raw())), Some(Kind::HasArenas));
        assert_eq!(h.stats().blocks, 1);
        Raw::free_pinned(h.as_raw(), block.as_ptr()).unwrap();
        assert_eq!(Raw::reset(h.as_raw()), Ok(()));
    }
}

#[test]
fn names_are_kept_and_cut_between_characters() {
    let _alone = alone();
    let long = "é".repeat(40);
    let label = Label::named(long.as_bytes());
    let end = label.name.iter().position(|byte| *byte == 0).unwrap();
    assert_eq!(std::str::from_utf8(&label.name[..end]).unwrap(), "é".repeat(31));
    assert_eq!(&Label::named(b"short").name[..6], b"short\0");
}

#[test]
fn threads_share_a_heap_and_hand_blocks_over() {
    let _alone = alone();
    let h = heap(64 << 20);
    let rounds = if cfg!(miri) { 30 } else { 20_000 };
    let (send, receive) = std::sync::mpsc::channel::<(usize, usize)>();
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let (h, send) = (&h, send.clone());
            scope.spawn(move || {
                let mut random = thread * 2 + 1;
                let mut own: Vec<(NonNull<u8>, usize)> = Vec::new();
                for _ in 0..rounds {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let size = (random >> 40) as usize % if random >> 60 == 0 { 30_000 } else { 300 };
                    let block = h.alloc(size).unwrap();
                    // SAFETY: ours until it is freed or sent.
                    unsafe {
                        block.write_bytes(size as u8, size);
                        match random >> 33 & 3 {
                            0 => send.send((block.as_ptr().expose_provenance(), size)).unwrap(),
                            1 => own.push((h.realloc(block, size + 50).unwrap(), size)),
                            _ => own.push((block, size)),
                        }
                        if own.len() > 50 {
                            let (block, size) = own.swap_remove(random as usize >> 8 & 31);
                            assert!((0..size).all(|at| *block.as_ptr().add(at) == size as u8));
                            h.free(block).unwrap();
                        }
                    }
                }
                for (block, _) in own {
                    // SAFETY: as above.
                    unsafe { h.free(block).unwrap() };
                }
            });
        }
        drop(send);
        for (address, size) in receive {
            let block = std::ptr::with_exposed_provenance_mut::<u8>(address);
            // SAFETY: it was sent to be freed here.
            unsafe {
                assert!((0..size).all(|at| *block.add(at) == size as u8));
                assert_eq!(free_any(block), Some((Ok(()), h.as_raw())));
            }
        }
    });
    let stats = h.stats();
    assert_eq!((stats.blocks, stats.total, h.check()), (0, 0, 0));
}

/// One thread has the heap to itself for long, and others come in between: the account stays right, and nothing is lost.
#[test]
fn an_owner_gives_way() {
    let _alone = alone();
    let top = heap(200_000);
    let h = top.child(&Options::USUAL).unwrap();
    let (rounds, visits) = if cfg!(miri) { (120, 3) } else { (300_000, 40) };
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut own: Vec<NonNull<u8>> = Vec::new();
            for round in 0..rounds {
                own.push(h.alloc(16 + round % 300).unwrap());
                if own.len() > 20 {
                    // SAFETY: ours, once.
                    unsafe { h.free(own.swap_remove(round % 20)).unwrap() };
                }
            }
            for block in own {
                // SAFETY: as above.
                unsafe { h.free(block).unwrap() };
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let mut visit = 0;
        while visit < visits && !done.load(std::sync::atomic::Ordering::Relaxed) {
            visit += 1;
            std::thread::sleep(std::time::Duration::from_micros(300 * visit));
            match visit % 4 {
                0 => assert_eq!(h.check(), 0),
                1 => assert!(h.stats().blocks <= 21),
                // All that the limit allows: what the owner has in reserve is collected.
                2 => {
                    let all: Vec<_> = std::iter::from_fn(|| top.alloc(10_000).ok()).take(18).collect();
                    assert_eq!(all.len(), 18);
                    // SAFETY: as above.
                    all.into_iter().for_each(|block| unsafe { top.free(block).unwrap() });
                }
                // SAFETY: as above.
                _ => unsafe { h.free(h.alloc(64).unwrap()).unwrap() },
            }
        }
    });
    let stats = h.stats();
    assert_eq!((stats.blocks, stats.current, stats.allocs, h.check()), (0, 0, stats.frees, 0));
    assert_eq!((top.stats().total, top.check()), (0, 0));
}

/// Others come in at every moment that there is: what one of two has counted is not lost to the other.
#[test]
fn an_owner_is_disturbed_often() {
    let _alone = alone();
    let h = heap(0);
    let visits = if cfg!(miri) { 12 } else { 60_000 };
    let done = std::sync::atomic::AtomicBool::new(false);
    let pair = || {
        let block = h.alloc(64).unwrap();
        // SAFETY: ours, once.
        unsafe {
            block.write_bytes(1, 64);
            h.free(block).unwrap();
        }
    };
    let pairs = std::thread::scope(|scope| {
        let owner = scope.spawn(|| {
            let mut pairs = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                pair();
                pairs += 1;
            }
            pairs
        });
        for visit in 0..visits {
            pair();
            // Long enough for the other one to become the owner again.
            (0..visit % 200).for_each(|_| std::hint::spin_loop());
            if cfg!(miri) {
                std::thread::sleep(std::time::Duration::from_micros(500));
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        owner.join().unwrap()
    });
    let stats = h.stats();
    assert_eq!((stats.allocs, stats.frees, stats.current), (pairs + visits, pairs + visits, 0));
    assert_eq!(h.check(), 0);
}

#[test]
fn many_heaps_come_and_go() {
    let _alone = alone();
    let count = if cfg!(miri) { 40 } else { 10_000 };
    let heaps: Vec<_> = (0..count).map(|_| heap(1 << 20)).collect();
    for (number, h) in heaps.iter().enumerate() {
        let block = h.alloc(64).unwrap();
        // SAFETY: ours.
        unsafe { block.cast::<usize>().write(number) };
        assert_eq!(find(block.as_ptr()), Some(h.as_raw()));
    }
    assert!(heaps.iter().all(|h| h.stats().reserved == 16 << 10));
}

#[test]
#[cfg(feature = "allocator-api2")]
fn an_allocator_for_collections() {
    let _alone = alone();
    use allocator_api2::alloc::Allocator;
    use std::alloc::Layout;
    let h = heap(100_000);
    let layout = Layout::from_size_align(1000, 256).unwrap();
    let block = (&h).allocate(layout).unwrap();
    assert_eq!((block.len(), block.cast::<u8>().addr().get() % 256), (1000, 0));
    let larger = Layout::from_size_align(3000, 256).unwrap();
    // SAFETY: a live block of this layout, which is then that of the larger one.
    unsafe {
        let block = (&h).grow(block.cast(), layout, larger).unwrap();
        assert!((&h).allocate(Layout::from_size_align(200_000, 1).unwrap()).is_err());
        (&h).deallocate(block.cast(), larger);
    }
    assert_eq!(h.stats().blocks, 0);
}
