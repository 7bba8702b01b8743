use super::{Buffer, Memory};
use crate::pool::{Options, Raw};
use crate::{Error, Kind, Source};
use core::ptr;
use std::collections::BTreeSet;
use std::vec::Vec;

fn kind<T>(result: Result<T, Error>) -> Option<Kind> {
    match result {
        Err(Error::Fault(fault)) => Some(fault.kind),
        _ => None,
    }
}

fn both(size: usize, body: impl Fn(&Memory, *mut Raw)) {
    for guard in [false, true] {
        let memory = Memory::new();
        // SAFETY: the pool is used until it is destroyed.
        unsafe {
            let p = Raw::create(size, &Options { guard, ..Options::new(memory.source()) }).unwrap().as_ptr();
            body(&memory, p);
            assert_eq!(Raw::check(p), 0);
            Raw::destroy(p);
        }
        assert_eq!(memory.blocks.get(), 0);
    }
}

#[test]
fn objects_are_distinct_and_come_back() {
    const COUNT: usize = if cfg!(miri) { 10 } else { 300 };
    for size in [0, 1, 16, 24, 100, if cfg!(miri) { 200 } else { 5000 }] {
        both(size, |_, p| unsafe {
            let take = || Raw::take(p).unwrap();
            let taken: Vec<_> = (0..COUNT).map(|_| take()).collect();
            taken.iter().for_each(|object| object.write_bytes(1, size));
            let places: BTreeSet<_> = taken.iter().map(|object| object.addr().get()).collect();
            assert_eq!(places.len(), COUNT);
            let least = places.iter().zip(places.iter().skip(1)).map(|(a, b)| b - a).min().unwrap();
            assert!(least >= size.max(16) && places.iter().all(|place| place % 16 == 0));
            assert_eq!(Raw::live(p), COUNT);
            taken.iter().for_each(|object| Raw::give(p, object.as_ptr()).unwrap());
            assert_eq!(Raw::live(p), 0);
            let again: BTreeSet<_> = (0..COUNT).map(|_| take().addr().get()).collect();
            assert_eq!(again, places);
        });
    }
}

#[test]
fn misuse_is_known() {
    both(40, |memory, p| unsafe {
        let (a, b) = (Raw::take(p).unwrap().as_ptr(), Raw::take(p).unwrap().as_ptr());
        Raw::give(p, a).unwrap();
        assert_eq!(kind(Raw::give(p, a)), Some(Kind::DoubleFree));
        Raw::give(p, b).unwrap();
        assert_eq!(kind(Raw::give(p, a)), Some(Kind::DoubleFree));
        Raw::give(p, ptr::null_mut()).unwrap();
        let other = Raw::create(40, &Options::new(memory.source())).unwrap().as_ptr();
        let foreign = Raw::take(other).unwrap().as_ptr();
        assert_eq!(kind(Raw::give(p, foreign)), Some(Kind::Foreign));
        Raw::destroy(other);
        let mut local = 0u128;
        assert_eq!(kind(Raw::give(p, (&raw mut local).cast())), Some(Kind::Foreign));
        assert_eq!(Raw::live(p), 0);
    });
    let memory = Memory::new();
    unsafe {
        let p = Raw::create(40, &Options { guard: true, ..Options::new(memory.source()) }).unwrap().as_ptr();
        let a = Raw::take(p).unwrap().as_ptr();
        assert_eq!(kind(Raw::give(p, a.add(16))), Some(Kind::Foreign));
        Raw::destroy(p);
    }
}

#[test]
fn data_that_look_like_a_key_are_no_double_give() {
    both(40, |_, p| unsafe {
        let a = Raw::take(p).unwrap().as_ptr();
        Raw::give(p, a).unwrap();
        let key = a.cast::<usize>().add(1).read();
        assert_eq!(Raw::take(p).unwrap().as_ptr(), a);
        a.cast::<usize>().add(1).write(key);
        Raw::give(p, a).unwrap();
        assert_eq!(kind(Raw::give(p, a)), Some(Kind::DoubleFree));
    });
}

#[test]
fn a_write_after_give_is_noticed() {
    both(64, |_, p| unsafe {
        let (a, b) = (Raw::take(p).unwrap().as_ptr(), Raw::take(p).unwrap().as_ptr());
        Raw::give(p, a).unwrap();
        Raw::give(p, b).unwrap();
        b.write_bytes(0x41, 64);
        assert_eq!(Raw::check(p), 1);
        assert_eq!(kind(Raw::take(p)), Some(Kind::WriteAfterReset));
        Raw::take(p).unwrap();
    });
}

#[test]
fn a_limit_and_a_reset() {
    for guard in [false, true] {
        let memory = Memory::new();
        unsafe {
            let options = Options { limit: 100, per_chunk: 30, guard, ..Options::new(memory.source()) };
            let p = Raw::create(24, &options).unwrap().as_ptr();
            for _ in 0..5 {
                let mut last = ptr::null_mut();
                for _ in 0..100 {
                    last = Raw::take(p).unwrap().as_ptr();
                }
                assert_eq!(Raw::take(p), Err(Error::NoMemory));
                assert_eq!(memory.blocks.get(), 5);
                Raw::reset(p);
                assert_eq!(kind(Raw::give(p, last)), Some(Kind::Foreign));
            }
            Raw::destroy(p);
        }
    }
}

#[test]
fn a_pool_in_a_buffer() {
    let mut buffer = Buffer::new(2000, 5);
    unsafe {
        let mut options = Options { buffer: buffer.start(), buffer_size: 2000, ..Options::new(Source::NONE) };
        let p = Raw::create(64, &options).unwrap().as_ptr();
        let mut count = 0;
        while let Ok(object) = Raw::take(p) {
            object.write_bytes(1, 64);
            count += 1;
        }
        assert!(count > 25);
        assert_eq!(Raw::take(p), Err(Error::NoMemory));
        Raw::destroy(p);
        options.buffer_size = 100;
        assert_eq!(Raw::create(64, &options), Err(Error::Invalid));
        options.alignment = 24;
        assert_eq!(Raw::create(64, &options), Err(Error::Invalid));
    }
    buffer.assert_untouched_around();
}

#[test]
fn alignment_and_impossible_sizes() {
    let memory = Memory::new();
    unsafe {
        let options = Options { alignment: 256, ..Options::new(memory.source()) };
        let p = Raw::create(24, &options).unwrap().as_ptr();
        for _ in 0..100 {
            assert_eq!(Raw::take(p).unwrap().addr().get() % 256, 0);
        }
        Raw::destroy(p);
        assert_eq!(Raw::create(usize::MAX, &options), Err(Error::NoMemory));
        let p = Raw::create(1000, &Options { per_chunk: usize::MAX, ..options }).unwrap().as_ptr();
        assert_eq!(Raw::take(p), Err(Error::NoMemory));
        Raw::destroy(p);
        memory.left.set(1);
        let p = Raw::create(24, &options).unwrap().as_ptr();
        assert_eq!(Raw::take(p), Err(Error::NoMemory));
        memory.left.set(usize::MAX);
        Raw::take(p).unwrap();
        Raw::destroy(p);
    }
}
