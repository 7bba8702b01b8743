use super::{Buffer, Memory};
use crate::arena::{Options, Raw};
use crate::{Error, Kind, Source};
use core::ffi::c_void;
use core::ptr;

fn options(memory: &Memory, guard: bool) -> Options {
    Options { guard, ..Options::new(memory.source()) }
}

fn kind<T>(result: Result<T, Error>) -> Option<Kind> {
    match result {
        Err(Error::Fault(fault)) => Some(fault.kind),
        _ => None,
    }
}

/// Runs `body` with an ordinary arena and with a guarded one.
fn both(body: impl Fn(&Memory, *mut Raw)) {
    for guard in [false, true] {
        let memory = Memory::new();
        // SAFETY: the arena is used until it is destroyed.
        unsafe {
            let a = Raw::create(&options(&memory, guard)).unwrap().as_ptr();
            body(&memory, a);
            assert_eq!((Raw::check(a), Raw::take_fault(a)), (0, None));
            Raw::destroy(a);
        }
        assert_eq!(memory.blocks.get(), 0);
    }
}

#[test]
fn chunks_double_and_are_full() {
    both(|memory, a| unsafe {
        let mut sizes = std::vec::Vec::new();
        let mut before = memory.bytes.get();
        for _ in 0..4000 {
            Raw::alloc(a, 64).unwrap();
            if memory.bytes.get() != before {
                sizes.push(memory.bytes.get() - before);
                before = memory.bytes.get();
            }
        }
        assert_eq!(sizes, [4096, 8192, 16384, 32768, 65536, 65536, 65536]);
        assert!(Raw::stats(a).waste <= 7 * 128);
    });
}

#[test]
fn zero_sizes_are_distinct_blocks() {
    both(|_, a| unsafe {
        let (p, q) = (Raw::alloc(a, 0).unwrap(), Raw::alloc(a, 0).unwrap());
        assert_ne!(p, q);
        assert!(Raw::owns(a, p.as_ptr()));
    });
}

#[test]
fn impossible_sizes_change_nothing() {
    both(|_, a| unsafe {
        Raw::alloc(a, 10).unwrap();
        let before = Raw::stats(a);
        for size in [usize::MAX, usize::MAX - 15, isize::MAX as usize, isize::MAX as usize + 1] {
            assert_eq!(Raw::alloc(a, size), Err(Error::NoMemory));
            assert_eq!(Raw::alloc_aligned(a, size, 4096), Err(Error::NoMemory));
        }
        assert_eq!(Raw::calloc(a, usize::MAX, 2), Err(Error::NoMemory));
        assert_eq!(Raw::alloc_aligned(a, 1, 24), Err(Error::Invalid));
        assert_eq!(Raw::alloc_aligned(a, 1, 0), Err(Error::Invalid));
        assert_eq!(Raw::alloc_aligned(a, 1, 1 << 31), Err(Error::Invalid));
        assert_eq!(Raw::stats(a), before);
    });
}

#[test]
fn every_alignment_is_given() {
    both(|_, a| unsafe {
        let most = if cfg!(miri) { 13 } else { 21 };
        for log in 0..most {
            for size in [1, 24, 5000] {
                let block = Raw::alloc_aligned(a, size, 1 << log).unwrap();
                assert_eq!(block.addr().get() % (1 << log).max(16), 0);
                block.write_bytes(7, size);
            }
        }
    });
}

/// Found by the fuzzer: from the second round on, a block with a wide alignment was put where a chunk happened to be aligned,
/// and the next one needed a new chunk.
#[test]
fn a_wide_alignment_does_not_displace_what_follows() {
    both(|memory, a| unsafe {
        let mut held = None;
        for _ in 0..3 {
            // One byte more than a chunk holds whatever its alignment.
            Raw::alloc_aligned(a, 65_361, 128).unwrap();
            Raw::alloc(a, 65_361).unwrap();
            let now = (Raw::stats(a).chunks, memory.bytes.get());
            assert_eq!(*held.get_or_insert(now), now);
            Raw::reset(a);
        }
    });
}

#[test]
fn five_cycles_hold_the_same_chunks() {
    both(|memory, a| unsafe {
        let cycle = || {
            for i in 0..if cfg!(miri) { 12 } else { 600 } {
                Raw::alloc(a, i * 7 % 900).unwrap().write_bytes(1, i * 7 % 900);
                if i % 50 == 0 {
                    Raw::alloc(a, 70_000 + i * 100).unwrap();
                }
            }
        };
        cycle();
        let (first, taken) = (Raw::stats(a), memory.taken.get());
        for _ in 0..4 {
            Raw::reset(a);
            assert_eq!(Raw::stats(a).used, 0);
            cycle();
            assert_eq!(Raw::stats(a), first);
        }
        assert_eq!(memory.taken.get(), taken);
    });
}

#[test]
fn the_grown_size_outlives_a_reset() {
    both(|memory, a| unsafe {
        for _ in 0..200 {
            Raw::alloc(a, 100).unwrap();
        }
        Raw::reset(a);
        Raw::trim(a);
        let before = memory.bytes.get();
        Raw::alloc(a, 100).unwrap();
        assert_eq!(memory.bytes.get() - before, 32768);
        Raw::clear(a);
        assert_eq!(Raw::stats(a).chunks, 1);
    });
}

#[test]
fn clear_keeps_the_first_chunk_and_trim_what_is_used() {
    both(|_, a| unsafe {
        let first = Raw::alloc(a, 100).unwrap();
        for _ in 0..2000 {
            Raw::alloc(a, 100).unwrap();
        }
        Raw::alloc(a, 100_000).unwrap();
        assert_eq!(Raw::trim(a), 0);
        let mark = Raw::mark(a);
        Raw::alloc(a, 300_000).unwrap();
        Raw::rewind(a, &mark).unwrap();
        assert!(Raw::trim(a) >= 300_000);
        Raw::clear(a);
        assert_eq!(Raw::stats(a).chunks, 1);
        assert_eq!(Raw::alloc(a, 100).unwrap(), first);
    });
}

#[test]
fn the_newest_block_is_resized_in_place() {
    both(|_, a| unsafe {
        Raw::alloc(a, 10).unwrap();
        let p = Raw::alloc(a, 100).unwrap();
        p.write_bytes(9, 100);
        for (old, new) in [(100, 200), (200, 3000), (3000, 1), (1, 17), (17, 100)] {
            assert_eq!(Raw::realloc(a, p.as_ptr(), old, new), Ok(Some(p)));
            p.add(old.min(new)).write_bytes(9, new.saturating_sub(old));
        }
        let before = Raw::stats(a).used;
        assert_eq!(Raw::realloc(a, p.as_ptr(), 100, 0), Ok(None));
        assert_eq!(before - Raw::stats(a).used, 112);
        assert_eq!(Raw::alloc(a, 1).unwrap(), p);
    });
}

#[test]
fn an_older_block_moves_with_its_contents() {
    both(|_, a| unsafe {
        let p = Raw::alloc(a, 100).unwrap();
        p.write_bytes(3, 100);
        Raw::alloc(a, 1).unwrap();
        assert_eq!(Raw::realloc(a, p.as_ptr(), 100, 50), Ok(Some(p)));
        let q = Raw::realloc(a, p.as_ptr(), 100, 5000).unwrap().unwrap();
        assert_ne!(p, q);
        assert!((0..100).all(|i| q.add(i).read() == 3));
        // To a large one, and from one large chunk to another.
        let q = Raw::realloc(a, q.as_ptr(), 5000, 100_000).unwrap().unwrap();
        let q = Raw::realloc(a, q.as_ptr(), 100_000, 200_000).unwrap().unwrap();
        assert_eq!(Raw::realloc(a, q.as_ptr(), 200_000, 150_000), Ok(Some(q)));
        assert_eq!(Raw::realloc(a, q.as_ptr(), 150_000, 200_000), Ok(Some(q)));
        assert!((0..100).all(|i| q.add(i).read() == 3));
        assert!(!Raw::owns(a, q.as_ptr().wrapping_add(300_000)));
        assert_eq!(Raw::realloc(a, q.as_ptr(), 200_000, 0), Ok(None));
        assert!(!Raw::owns(a, q.as_ptr()));
    });
}

#[test]
fn a_block_of_another_arena_is_refused() {
    both(|memory, a| unsafe {
        let b = Raw::create(&options(memory, false)).unwrap().as_ptr();
        let foreign = Raw::alloc(b, 10).unwrap();
        let mut local = 0u64;
        Raw::alloc(a, 10).unwrap();
        assert_eq!(kind(Raw::realloc(a, foreign.as_ptr(), 10, 20)), Some(Kind::Foreign));
        assert_eq!(kind(Raw::realloc(a, (&raw mut local).cast(), 8, 20)), Some(Kind::Foreign));
        let mark = Raw::mark(b);
        assert_eq!(kind(Raw::rewind(a, &mark)), Some(Kind::Foreign));
        Raw::destroy(b);
    });
}

#[test]
fn marks_rewind_across_chunks() {
    both(|_, a| unsafe {
        let start = Raw::mark(a);
        let p = Raw::alloc(a, 100).unwrap();
        p.write_bytes(5, 100);
        let mark = Raw::mark(a);
        let used = Raw::stats(a).used;
        for _ in 0..3 {
            for i in 0..500 {
                Raw::alloc(a, 400).unwrap().write_bytes(i as u8, 400);
            }
            Raw::alloc(a, 90_000).unwrap();
            Raw::rewind(a, &mark).unwrap();
            assert_eq!(Raw::stats(a).used, used);
            assert!((0..100).all(|i| p.add(i).read() == 5));
        }
        Raw::rewind(a, &start).unwrap();
        assert_eq!(kind(Raw::rewind(a, &mark)), Some(Kind::StaleMark));
        assert!(!Raw::owns(a, p.as_ptr()));
    });
}

#[test]
fn marks_that_ended_are_known() {
    both(|_, a| unsafe {
        Raw::alloc(a, 16).unwrap();
        let outer = Raw::mark(a);
        Raw::alloc(a, 16).unwrap();
        let inner = Raw::mark(a);
        Raw::rewind(a, &outer).unwrap();
        assert_eq!(kind(Raw::rewind(a, &inner)), Some(Kind::StaleMark));
        // The arena has grown past it again, with other contents.
        Raw::alloc(a, 500).unwrap().write_bytes(0, 500);
        assert_eq!(kind(Raw::rewind(a, &inner)), Some(Kind::StaleMark));
        Raw::rewind(a, &outer).unwrap();
        Raw::reset(a);
        assert_eq!(kind(Raw::rewind(a, &outer)), Some(Kind::StaleMark));
    });
}

#[test]
fn marks_in_a_loop_do_not_add_up() {
    both(|_, a| unsafe {
        Raw::alloc(a, 16).unwrap();
        for _ in 0..1000 {
            let mark = Raw::mark(a);
            Raw::alloc(a, 100).unwrap();
            Raw::rewind(a, &mark).unwrap();
        }
        assert!(Raw::stats(a).used <= 32);
    });
}

#[test]
fn a_block_before_a_mark_does_not_grow_past_it() {
    both(|_, a| unsafe {
        let p = Raw::alloc(a, 16).unwrap();
        let mark = Raw::mark(a);
        let q = Raw::realloc(a, p.as_ptr(), 16, 64).unwrap().unwrap();
        assert_ne!(p, q);
        Raw::rewind(a, &mark).unwrap();
        // It stays whole although it is the newest one now.
        assert_ne!(Raw::realloc(a, p.as_ptr(), 16, 64), Ok(Some(p)));
    });
}

#[test]
fn a_limit_holds_and_loses_nothing() {
    let memory = Memory::new();
    unsafe {
        let a = Raw::create(&Options { limit: 20_000, ..options(&memory, false) }).unwrap().as_ptr();
        let p = Raw::alloc(a, 3000).unwrap();
        p.write_bytes(8, 3000);
        Raw::alloc(a, 16).unwrap();
        assert_eq!(Raw::realloc(a, p.as_ptr(), 3000, 30_000), Err(Error::NoMemory));
        assert!((0..3000).all(|i| p.add(i).read() == 8));
        let mut got = 0;
        while Raw::alloc(a, 100).is_ok() {
            got += 112;
        }
        assert!(memory.bytes.get() <= 20_000 && got > 14_000, "{got} of {}", memory.bytes.get());
        assert_eq!(Raw::check(a), 0);
        Raw::reset(a);
        Raw::alloc(a, 3000).unwrap();
        Raw::destroy(a);
    }
}

#[test]
fn a_source_without_memory_changes_nothing() {
    let memory = Memory::new();
    unsafe {
        memory.left.set(0);
        assert_eq!(Raw::create(&options(&memory, false)), Err(Error::NoMemory));
        memory.left.set(2);
        let a = Raw::create(&options(&memory, false)).unwrap().as_ptr();
        let p = Raw::alloc(a, 4000).unwrap();
        assert_eq!(Raw::alloc(a, 4000), Err(Error::NoMemory));
        assert_eq!(Raw::child(a, &options(&memory, false)), Err(Error::NoMemory));
        // What is left of the chunk still serves.
        assert_eq!(Raw::alloc(a, 16).unwrap().addr().get(), p.addr().get() + 4000);
        assert_eq!(Raw::check(a), 0);
        memory.left.set(usize::MAX);
        Raw::alloc(a, 4000).unwrap();
        Raw::destroy(a);
    }
}

#[test]
fn a_buffer_is_used_to_its_last_byte() {
    for guard in [false, true] {
        for offset in [0, 1, 8, 15] {
            let size = 2000 + offset * 3;
            let mut buffer = Buffer::new(size, offset);
            let start = buffer.start();
            unsafe {
                let options = Options { buffer: start, buffer_size: size, guard, ..Options::new(Source::NONE) };
                let a = Raw::create(&options).unwrap().as_ptr();
                let mut last = ptr::null_mut();
                for each in [16, 1] {
                    while let Ok(block) = Raw::alloc(a, each) {
                        block.write_bytes(1, each);
                        last = block.as_ptr().wrapping_add(each);
                    }
                }
                // Blocks are 16 apart; a single byte fits wherever one is left.
                assert!(start.addr() + size - last.addr() < 16);
                Raw::reset(a);
                // One block of all that is there.
                let stats = Raw::stats(a);
                let all = size - stats.waste - stats.used;
                let block = Raw::alloc(a, all).unwrap();
                block.write_bytes(2, all);
                assert_eq!(block.addr().get() + all, start.addr() + size);
                assert_eq!(Raw::alloc(a, 0), Err(Error::NoMemory));
                assert_eq!(Raw::realloc(a, block.as_ptr(), all, all + 1), Err(Error::NoMemory));
                assert_eq!(Raw::realloc(a, block.as_ptr(), all, all - 1), Ok(Some(block)));
                assert_eq!(Raw::realloc(a, block.as_ptr(), all - 1, all), Ok(Some(block)));
                assert_eq!(Raw::check(a), 0);
                Raw::destroy(a);
            }
            buffer.assert_untouched_around();
        }
    }
}

#[test]
fn a_buffer_too_small_is_refused() {
    let mut buffer = Buffer::new(2000, 3);
    let mut made = 0;
    for size in (0..2000).step_by(if cfg!(miri) { 100 } else { 1 }) {
        let options = Options { buffer: buffer.start(), buffer_size: size, ..Options::new(Source::NONE) };
        unsafe {
            match Raw::create(&options) {
                Ok(a) => {
                    made += 1;
                    Raw::alloc(a.as_ptr(), 1).unwrap();
                    Raw::destroy(a.as_ptr());
                }
                Err(error) => assert_eq!((error, made), (Error::Invalid, 0)),
            }
        }
    }
    assert!(made > if cfg!(miri) { 10 } else { 1000 });
}

#[test]
fn a_buffer_is_the_first_memory_of_an_arena_that_grows() {
    let memory = Memory::new();
    let mut buffer = Buffer::new(3000, 5);
    unsafe {
        let start = buffer.start();
        let options = Options { buffer: start, buffer_size: 3000, ..options(&memory, false) };
        let a = Raw::create(&options).unwrap().as_ptr();
        let first = Raw::alloc(a, 500).unwrap();
        assert!(first.as_ptr() > start && first.as_ptr().addr() < start.addr() + 3000);
        for _ in 0..100 {
            Raw::alloc(a, 500).unwrap();
        }
        assert!(memory.blocks.get() > 2);
        Raw::clear(a);
        assert_eq!(memory.blocks.get(), 0);
        assert_eq!(Raw::alloc(a, 500).unwrap(), first);
        assert_eq!(Raw::check(a), 0);
        Raw::destroy(a);
    }
}

#[test]
fn wide_alignment_for_every_block() {
    let memory = Memory::new();
    unsafe {
        assert_eq!(Raw::create(&Options { alignment: 48, ..options(&memory, false) }), Err(Error::Invalid));
        let a = Raw::create(&Options { alignment: 256, ..options(&memory, false) }).unwrap().as_ptr();
        for size in [1, 300, 16, 70_000] {
            assert_eq!(Raw::alloc(a, size).unwrap().addr().get() % 256, 0);
        }
        let p = Raw::alloc(a, 10).unwrap();
        Raw::alloc(a, 10).unwrap();
        assert_eq!(Raw::realloc(a, p.as_ptr(), 10, 1000).unwrap().unwrap().addr().get() % 256, 0);
        Raw::destroy(a);
    }
}

#[test]
fn children_end_with_their_parent() {
    both(|memory, a| unsafe {
        let blocks = memory.blocks.get();
        let child = Raw::child(a, &options(memory, false)).unwrap().as_ptr();
        let grandchild = Raw::child(child, &options(memory, false)).unwrap().as_ptr();
        Raw::alloc(child, 100).unwrap();
        Raw::alloc(grandchild, 100_000).unwrap();
        assert_eq!(Raw::check(a) + Raw::check(child), 0);
        let mark = Raw::mark(a);
        let younger = Raw::child(a, &options(memory, false)).unwrap().as_ptr();
        Raw::alloc(younger, 10).unwrap();
        Raw::rewind(a, &mark).unwrap();
        assert_eq!(Raw::check(child), 0);
        Raw::reset(a);
        assert_eq!(memory.blocks.get(), blocks + usize::from(Raw::stats(a).chunks > 0));
        // Deep families end without recursion.
        let mut one = a;
        for _ in 0..if cfg!(miri) { 50 } else { 5000 } {
            one = Raw::child(one, &options(memory, false)).unwrap().as_ptr();
        }
    });
}

#[test]
fn children_in_any_order() {
    both(|memory, a| unsafe {
        let made: [*mut Raw; 5] = core::array::from_fn(|_| {
            let child = Raw::child(a, &options(memory, false)).unwrap().as_ptr();
            Raw::alloc(child, 10).unwrap();
            child
        });
        for i in [2, 0, 4] {
            Raw::destroy(made[i]);
            assert_eq!(Raw::check(a), 0);
        }
    });
}

#[test]
fn a_parents_limit_holds_for_children() {
    let memory = Memory::new();
    unsafe {
        let a = Raw::create(&Options { limit: 30_000, ..options(&memory, false) }).unwrap().as_ptr();
        let child = Raw::child(a, &options(&memory, false)).unwrap().as_ptr();
        while Raw::alloc(child, 500).is_ok() {}
        assert!(memory.bytes.get() <= 30_000);
        assert_eq!(Raw::alloc(a, 2000), Err(Error::NoMemory));
        Raw::destroy(child);
        Raw::alloc(a, 2000).unwrap();
        Raw::destroy(a);
    }
}

#[test]
fn a_child_of_a_buffer_lies_in_it() {
    let mut buffer = Buffer::new(8000, 7);
    unsafe {
        let none = Options::new(Source::NONE);
        let options = Options { buffer: buffer.start(), buffer_size: 8000, ..none };
        let a = Raw::create(&options).unwrap().as_ptr();
        let used = Raw::stats(a).used;
        let child = Raw::child(a, &Options { first_chunk: 1000, ..none }).unwrap().as_ptr();
        Raw::alloc(child, 900).unwrap();
        assert_eq!(Raw::alloc(child, 900), Err(Error::NoMemory));
        assert_eq!(Raw::check(child) + Raw::check(a), 0);
        assert_eq!(Raw::child(a, &Options { first_chunk: 9000, ..none }), Err(Error::NoMemory));
        Raw::destroy(child);
        assert_eq!(Raw::stats(a).used, used);
        Raw::child(a, &Options { first_chunk: 1000, ..none }).unwrap();
        Raw::destroy(a);
    }
    buffer.assert_untouched_around();
}

#[test]
fn a_write_after_reset_is_noticed_in_a_guarded_arena() {
    let memory = Memory::new();
    unsafe {
        let a = Raw::create(&options(&memory, true)).unwrap().as_ptr();
        let p = Raw::alloc(a, 100).unwrap();
        Raw::reset(a);
        assert!((0..100).all(|i| p.add(i).read() == crate::arena::POISON));
        p.add(40).write(1);
        assert_eq!(Raw::check(a), 1);
        let q = Raw::alloc(a, 30).unwrap();
        assert_eq!((q, Raw::take_fault(a)), (p, None));
        Raw::alloc(a, 30).unwrap();
        let fault = Raw::take_fault(a).unwrap();
        assert_eq!((fault.kind, fault.address), (Kind::WriteAfterReset, p.addr().get() + 40));
        Raw::destroy(a);
    }
}

#[test]
fn growth_is_told() {
    unsafe extern "C" fn told(_: *mut Raw, bytes: usize, argument: *mut c_void) {
        // SAFETY: the argument is the counter below.
        unsafe { *argument.cast::<usize>() += bytes };
    }
    let memory = Memory::new();
    let mut sum = 0usize;
    unsafe {
        let argument = (&raw mut sum).cast();
        let a = Raw::create(&Options { on_grow: Some(told), argument, ..options(&memory, false) }).unwrap().as_ptr();
        for i in 0..100 {
            Raw::alloc(a, i * 1000).unwrap();
        }
        assert_eq!(*argument.cast::<usize>() + size_of::<Raw>(), memory.bytes.get());
        Raw::destroy(a);
    }
}

#[test]
fn statistics_add_up() {
    both(|memory, a| unsafe {
        for _ in 0..100 {
            Raw::alloc(a, 1000).unwrap();
        }
        let full = Raw::stats(a);
        assert_eq!((full.used, full.reserved), (100 * 1008, memory.bytes.get()));
        assert_eq!(full.chunks, memory.blocks.get() - 1);
        Raw::reset(a);
        let empty = Raw::stats(a);
        assert_eq!((empty.used, empty.peak, empty.reserved), (0, full.used, full.reserved));
    });
}

#[test]
fn a_mark_that_ended_is_not_found_in_a_later_block() {
    let memory = Memory::new();
    unsafe {
        let a = Raw::create(&options(&memory, false)).unwrap().as_ptr();
        let outer = Raw::mark(a);
        Raw::alloc(a, 16).unwrap();
        let inner = Raw::mark(a);
        Raw::rewind(a, &outer).unwrap();
        // Its memory holds what the inner mark left there.
        Raw::alloc(a, 256).unwrap();
        assert_eq!(kind(Raw::rewind(a, &inner)), Some(Kind::StaleMark));
        Raw::rewind(a, &outer).unwrap();
        Raw::destroy(a);
    }
}

#[test]
fn after_a_reset_one_chunk_serves_what_fits_one() {
    let memory = Memory::new();
    unsafe {
        let a = Raw::create(&options(&memory, false)).unwrap().as_ptr();
        let round = || {
            let first = Raw::alloc(a, 144).unwrap().addr().get();
            let last = (1..100).fold(first, |_, _| Raw::alloc(a, 144).unwrap().addr().get());
            (first, last)
        };
        let start = round();
        assert_eq!(Raw::stats(a).chunks, 3);
        for _ in 0..4 {
            Raw::reset(a);
            let (first, last) = round();
            assert_eq!(last - first, 99 * 144);
            assert_eq!((Raw::stats(a).chunks, Raw::check(a)), (3, 0));
        }
        // The first chunk is still the one that clear keeps.
        Raw::clear(a);
        assert_eq!(Raw::alloc(a, 1).unwrap().addr().get(), start.0);
        Raw::destroy(a);
    }
}
