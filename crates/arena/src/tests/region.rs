use super::{Buffer, Memory};
use crate::region::Raw;
use crate::{Error, Kind, Label};
use core::ptr;
use std::string::String;
use std::vec::Vec;

fn kind<T>(result: Result<T, Error>) -> Option<Kind> {
    match result {
        Err(Error::Fault(fault)) => Some(fault.kind),
        _ => None,
    }
}

/// Runs `body` with regions of several sizes and places of their buffers.
fn each(body: impl Fn(*mut Raw)) {
    for (size, offset) in [(3000, 3), (20_000, 0), (if cfg!(miri) { 66_000 } else { 200_000 }, 9)] {
        let mut buffer = Buffer::new(size, offset);
        // SAFETY: the buffer lives as long as the region.
        unsafe {
            let r = Raw::in_buffer(buffer.start(), size, Label::NONE).unwrap().as_ptr();
            body(r);
            assert_eq!(Raw::check(r), 0);
            Raw::destroy(r).unwrap();
        }
        buffer.assert_untouched_around();
    }
}

/// All that is free is one block again, and can be had as one.
unsafe fn assert_empty(r: *mut Raw) {
    unsafe {
        let stats = Raw::stats(r);
        assert_eq!((stats.used, stats.blocks, stats.free), (0, 0, stats.capacity));
        let block = Raw::alloc(r, stats.capacity - 16).unwrap();
        block.write_bytes(1, stats.capacity - 16);
        Raw::free(block.as_ptr()).unwrap();
        assert_eq!(Raw::check(r), 0);
    }
}

#[test]
fn blocks_come_back_and_merge() {
    each(|r| unsafe {
        for order in 0..3 {
            let mut blocks = Vec::new();
            let mut size = 1;
            while let Ok(block) = Raw::alloc(r, size) {
                block.write_bytes(1, size);
                blocks.push(block);
                size = size * 5 % 331 + 1;
            }
            assert_eq!(Raw::check(r), 0);
            match order {
                0 => {}
                1 => blocks.reverse(),
                _ => blocks.sort_by_key(|block| block.addr().get().wrapping_mul(0x9E37_79B9) >> 7),
            }
            blocks.iter().for_each(|block| Raw::free(block.as_ptr()).unwrap());
            assert_empty(r);
        }
    });
}

#[test]
fn overhead_is_sixteen_bytes() {
    each(|r| unsafe {
        let capacity = Raw::stats(r).capacity;
        let mut blocks = 0;
        while Raw::alloc(r, 112).is_ok() {
            blocks += 1;
        }
        assert_eq!(blocks, capacity / 128);
    });
}

#[test]
fn sizes_and_alignments_that_are_none() {
    each(|r| unsafe {
        for size in [usize::MAX, isize::MAX as usize, 1 << 40] {
            assert_eq!(Raw::alloc(r, size), Err(Error::NoMemory));
            assert_eq!(Raw::alloc_aligned(r, size, 1 << 20), Err(Error::NoMemory));
            assert_eq!(Raw::scratch(r, size), Err(Error::NoMemory));
            assert_eq!(Raw::realloc(r, ptr::null_mut(), size), Err(Error::NoMemory));
        }
        assert_eq!(Raw::calloc(r, usize::MAX, 3), Err(Error::NoMemory));
        for align in [0, 3, 48, 1 << 31] {
            assert_eq!(Raw::alloc_aligned(r, 1, align), Err(Error::Invalid));
        }
        let (p, q) = (Raw::alloc(r, 0).unwrap(), Raw::alloc(r, 0).unwrap());
        assert_ne!(p, q);
        Raw::free(p.as_ptr()).unwrap();
        Raw::free(q.as_ptr()).unwrap();
        assert_empty(r);
    });
}

#[test]
fn buffers_that_are_none() {
    let mut buffer = Buffer::new(3000, 1);
    let mut made = 0;
    unsafe {
        assert_eq!(Raw::in_buffer(ptr::null_mut(), 5000, Label::NONE), Err(Error::Invalid));
        for size in (0..3000).step_by(if cfg!(miri) { 100 } else { 1 }) {
            match Raw::in_buffer(buffer.start(), size, Label::NONE) {
                Ok(r) => {
                    made += 1;
                    let block = Raw::alloc(r.as_ptr(), 16).unwrap();
                    Raw::free(block.as_ptr()).unwrap();
                }
                Err(error) => assert_eq!((error, made), (Error::Invalid, 0)),
            }
        }
    }
    assert!(made > if cfg!(miri) { 20 } else { 2000 });
    buffer.assert_untouched_around();
}

#[test]
fn every_alignment_is_given_and_the_gap_used() {
    each(|r| unsafe {
        let capacity = Raw::stats(r).capacity;
        for log in 5..17 {
            let align = 1usize << log;
            let Ok(block) = Raw::alloc_aligned(r, 100, align) else {
                assert!(align * 2 > capacity / 2, "{align} in {capacity}");
                continue;
            };
            assert_eq!(block.addr().get() % align, 0);
            assert!(Raw::stats(r).used <= 144);
            block.write_bytes(1, 100);
            assert_eq!(Raw::check(r), 0);
            Raw::free(block.as_ptr()).unwrap();
            assert_empty(r);
        }
    });
}

#[test]
fn resizing_stays_in_place_where_it_can() {
    each(|r| unsafe {
        let p = Raw::alloc(r, 100).unwrap();
        p.write_bytes(4, 100);
        assert_eq!(Raw::realloc(r, p.as_ptr(), 1000), Ok(Some(p)));
        assert_eq!(Raw::realloc(r, p.as_ptr(), 500), Ok(Some(p)));
        let q = Raw::alloc(r, 16).unwrap();
        assert_eq!(Raw::realloc(r, p.as_ptr(), 200), Ok(Some(p)));
        // Back into what it has just given up, and no further.
        assert_eq!(Raw::realloc(r, p.as_ptr(), 500), Ok(Some(p)));
        let moved = Raw::realloc(r, p.as_ptr(), 600).unwrap().unwrap();
        assert_ne!(moved, p);
        assert!((0..100).all(|i| moved.add(i).read() == 4));
        let before = Raw::stats(r);
        assert_eq!(Raw::realloc(r, moved.as_ptr(), 1 << 20), Err(Error::NoMemory));
        assert_eq!(Raw::stats(r), before);
        assert!((0..100).all(|i| moved.add(i).read() == 4));
        assert_eq!(Raw::realloc(r, moved.as_ptr(), 0), Ok(None));
        Raw::free(q.as_ptr()).unwrap();
        assert_empty(r);
    });
}

#[test]
fn wrong_frees_are_known() {
    each(|r| unsafe {
        let p = Raw::alloc(r, 100).unwrap().as_ptr();
        let q = Raw::alloc(r, 2000 % 300).unwrap().as_ptr();
        let s = Raw::alloc(r, 60).unwrap().as_ptr();
        s.write_bytes(0, 60);
        Raw::free(p).unwrap();
        assert_eq!(kind(Raw::free(p)), Some(Kind::DoubleFree));
        Raw::free(q).unwrap();
        assert_eq!(kind(Raw::free(q)), Some(Kind::DoubleFree));
        assert_eq!(kind(Raw::free(s.add(16))), Some(Kind::Foreign));
        assert_eq!(kind(Raw::free(s.add(3))), Some(Kind::Foreign));
        assert_eq!(kind(Raw::realloc(r, q, 10)), Some(Kind::DoubleFree));
        let mut local = [0u128; 4];
        assert_eq!(kind(Raw::free((&raw mut local).cast::<u128>().add(2).cast())), Some(Kind::Foreign));
        let before = Raw::stats(r);
        Raw::reset(r);
        assert_eq!(kind(Raw::free(s)), Some(Kind::StaleMark));
        assert_ne!(Raw::stats(r), before);
        assert_empty(r);
    });
}

#[test]
fn a_damaged_header_is_known() {
    each(|r| unsafe {
        let p = Raw::alloc(r, 24).unwrap().as_ptr();
        let q = Raw::alloc(r, 24).unwrap().as_ptr();
        let header = q.sub(16).read();
        q.sub(16).write(header ^ 1);
        assert_eq!(kind(Raw::free(q)), Some(Kind::Foreign));
        assert_eq!(Raw::check(r), 1);
        q.sub(16).write(header);
        Raw::free(q).unwrap();
        Raw::free(p).unwrap();
    });
}

#[test]
fn a_header_copied_elsewhere_is_none() {
    each(|r| unsafe {
        let p = Raw::alloc(r, 64).unwrap().as_ptr();
        let header = p.sub(16).cast::<[u8; 16]>().read();
        p.add(16).cast::<[u8; 16]>().write(header);
        assert_eq!(kind(Raw::free(p.add(32))), Some(Kind::Foreign));
    });
}

#[test]
fn a_write_after_free_is_noticed() {
    let mut buffer = Buffer::new(100_000, 0);
    unsafe {
        let r = Raw::in_buffer(buffer.start(), 100_000, Label::NONE).unwrap().as_ptr();
        for write in [0, 4, 8, 12] {
            let (p, q) = (Raw::alloc(r, 50).unwrap().as_ptr(), Raw::alloc(r, 50).unwrap().as_ptr());
            Raw::free(p).unwrap();
            Raw::free(q).unwrap();
            q.add(write).cast::<u32>().write(0x7777_7777);
            assert_ne!(Raw::check(r), 0);
            // The block is not handed out again, and neither is what its link leads to.
            assert_eq!(kind(Raw::alloc(r, 50)), Some(Kind::WriteAfterReset));
            Raw::alloc(r, 50).unwrap();
            Raw::reset(r);
            assert_empty(r);
        }
    }
}

#[test]
fn the_scratch_block_lies_at_the_far_end() {
    each(|r| unsafe {
        let p = Raw::alloc(r, 100).unwrap();
        let scratch = Raw::scratch(r, 300).unwrap();
        let stats = Raw::stats(r);
        assert_eq!(stats.used, 128 + 320);
        assert_eq!(Raw::scratch(r, 1), Err(Error::Busy));
        // Everything between the two can be had as one block.
        let between = Raw::alloc(r, stats.largest_free).unwrap();
        assert!(between > p && scratch > between);
        assert_eq!(Raw::stats(r).free, 0);
        Raw::free(scratch.as_ptr()).unwrap();
        let again = Raw::scratch(r, 200).unwrap();
        assert!(again > scratch);
        [p, between, again].iter().for_each(|block| Raw::free(block.as_ptr()).unwrap());
        assert_empty(r);
    });
}

#[test]
fn resets() {
    each(|r| unsafe {
        while let Ok(block) = Raw::alloc(r, 60) {
            block.write_bytes(9, 60);
        }
        Raw::reset(r);
        assert_empty(r);
        let all = Raw::stats(r).capacity;
        Raw::reset_zero(r);
        let block = Raw::alloc(r, all - 16).unwrap();
        assert!((16..all - 16).step_by(if cfg!(miri) { 97 } else { 1 }).all(|i| block.add(i).read() == 0));
        Raw::free(block.as_ptr()).unwrap();
    });
}

#[test]
fn regions_in_regions() {
    let memory = Memory::new();
    unsafe {
        let r = Raw::create(100_000, memory.source(), Label::NONE).unwrap().as_ptr();
        assert!(Raw::stats(r).capacity >= 100_000);
        let child = Raw::child(r, 20_000, Label::NONE).unwrap().as_ptr();
        assert!(Raw::stats(child).capacity >= 20_000);
        let grandchild = Raw::child(child, 5000, Label::NONE).unwrap().as_ptr();
        let p = Raw::alloc(grandchild, 10).unwrap().as_ptr();
        assert_eq!(kind(Raw::realloc(child, p, 20)), Some(Kind::Foreign));
        assert_eq!(Raw::child(child, 50_000, Label::NONE), Err(Error::NoMemory));
        Raw::free(p).unwrap();
        let other = Raw::child(r, 1000, Label::NONE).unwrap().as_ptr();
        Raw::destroy(child).unwrap();
        assert!(!Raw::is_alive(grandchild) && Raw::is_alive(other));
        assert_eq!(Raw::stats(r).blocks, 1);
        assert_eq!(Raw::check(r), 0);
        Raw::reset(r);
        assert!(!Raw::is_alive(other));
        assert_empty(r);
        Raw::destroy(r).unwrap();
        memory.left.set(0);
        assert_eq!(Raw::create(100, memory.source(), Label::NONE), Err(Error::NoMemory));
        assert_eq!(Raw::create(usize::MAX, memory.source(), Label::NONE), Err(Error::NoMemory));
    }
}

#[test]
fn the_picture_shows_what_is_used() {
    let mut buffer = Buffer::new(100_000, 0);
    unsafe {
        let r = Raw::in_buffer(buffer.start(), 100_000, Label::NONE).unwrap().as_ptr();
        Raw::alloc(r, 50_000).unwrap();
        let mut text = String::new();
        Raw::print(r, &mut text).unwrap();
        assert!(text.starts_with("region of 98"), "{text}");
        assert!(text.contains(&"#".repeat(64)) && text.contains(&".".repeat(64)), "{text}");
    }
}

/// Many operations over many live blocks: `ALLOKIT_REGION_OPERATIONS` sets how many.
#[test]
fn many_operations_stay_correct() {
    let asked = std::env::var("ALLOKIT_REGION_OPERATIONS").ok().and_then(|text| text.parse().ok());
    let operations: u64 = asked.unwrap_or(if cfg!(miri) { 700 } else { 2_000_000 });
    let live = if cfg!(miri) { 100 } else { 100_000usize };
    let memory = Memory::new();
    let mut state = 0x0123_4567_89AB_CDEF_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    unsafe {
        let r = Raw::create(live * 400, memory.source(), Label::NONE).unwrap().as_ptr();
        let mut blocks: Vec<(*mut u8, usize)> = std::vec![(ptr::null_mut(), 0); live];
        let mut count = 0usize;
        for step in 0..operations {
            let slot = random() as usize % live;
            let (block, size) = blocks[slot];
            if !block.is_null() {
                assert_eq!(block.cast::<usize>().read_unaligned(), slot ^ size);
                assert_eq!(block.add(size - 1).read(), (slot ^ size) as u8);
            }
            let mut new = (random() >> 40) as usize % 400 + 9;
            if random() % 64 == 0 {
                new *= 20;
            }
            let made = match random() % 8 {
                0 if !block.is_null() => {
                    Raw::free(block).unwrap();
                    count -= 1;
                    ptr::null_mut()
                }
                1 if !block.is_null() => match Raw::realloc(r, block, new) {
                    Ok(block) => block.unwrap().as_ptr(),
                    Err(error) => {
                        assert_eq!(error, Error::NoMemory);
                        continue;
                    }
                },
                _ => {
                    if !block.is_null() {
                        Raw::free(block).unwrap();
                        count -= 1;
                    }
                    let made = Raw::alloc(r, new).map_or(ptr::null_mut(), |block| block.as_ptr());
                    count += usize::from(!made.is_null());
                    made
                }
            };
            if !made.is_null() {
                made.add(new - 1).write((slot ^ new) as u8);
                made.cast::<usize>().write_unaligned(slot ^ new);
                made.add(new - 1).write(if new > 8 { (slot ^ new) as u8 } else { made.add(new - 1).read() });
            }
            blocks[slot] = (made, new);
            if step % (operations / 10).max(1) == 0 {
                assert_eq!(Raw::check(r), 0);
                assert_eq!(Raw::stats(r).blocks, count);
            }
        }
        assert_eq!(Raw::check(r), 0);
        assert!(count > live / 2, "{count}");
        Raw::destroy(r).unwrap();
    }
}
