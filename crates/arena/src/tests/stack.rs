use super::{Buffer, Memory};
use crate::stack::{Options, Raw};
use crate::{Error, Kind, Source};
use core::ptr;

fn kind<T>(result: Result<T, Error>) -> Option<Kind> {
    match result {
        Err(Error::Fault(fault)) => Some(fault.kind),
        _ => None,
    }
}

fn with(size: usize, body: impl Fn(*mut Raw)) {
    let memory = Memory::new();
    // SAFETY: the stack is used until it is destroyed.
    unsafe {
        let s = Raw::create(size, &Options::new(memory.source())).unwrap().as_ptr();
        body(s);
        assert_eq!(Raw::check(s), 0);
        Raw::destroy(s);
    }
}

#[test]
fn last_in_first_out() {
    with(10_000, |s| unsafe {
        let blocks: [_; 20] = core::array::from_fn(|i| {
            let block = Raw::push(s, i * 20).unwrap();
            block.write_bytes(1, i * 20);
            block
        });
        assert_eq!(Raw::check(s), 0);
        for block in blocks.iter().rev() {
            Raw::pop(s, block.as_ptr()).unwrap();
        }
        assert_eq!(Raw::used(s), 0);
        Raw::pop(s, ptr::null_mut()).unwrap();
    });
}

#[test]
fn out_of_order_is_known() {
    with(10_000, |s| unsafe {
        let (a, b) = (Raw::push(s, 50).unwrap().as_ptr(), Raw::push(s, 50).unwrap().as_ptr());
        assert_eq!(kind(Raw::pop(s, a)), Some(Kind::OutOfOrder));
        Raw::pop(s, b).unwrap();
        assert_eq!(kind(Raw::pop(s, b)), Some(Kind::DoubleFree));
        let outer = Raw::mark(s).unwrap();
        assert_eq!(kind(Raw::pop(s, a)), Some(Kind::OutOfOrder));
        Raw::push(s, 3).unwrap();
        let inner = Raw::mark(s).unwrap();
        Raw::push(s, 3).unwrap();
        Raw::release(s, &outer).unwrap();
        assert_eq!(kind(Raw::release(s, &inner)), Some(Kind::OutOfOrder));
        assert_eq!(kind(Raw::release(s, &outer)), Some(Kind::OutOfOrder));
        // In the same place again: another mark.
        let next = Raw::mark(s).unwrap();
        assert_eq!(kind(Raw::release(s, &outer)), Some(Kind::OutOfOrder));
        Raw::release(s, &next).unwrap();
        let mut local = 0u128;
        assert_eq!(kind(Raw::pop(s, (&raw mut local).cast())), Some(Kind::Foreign));
        assert_eq!(kind(Raw::pop(s, a.add(16))), Some(Kind::Foreign));
        assert_eq!(kind(Raw::pop(s, a.add(1))), Some(Kind::Foreign));
        Raw::pop(s, a).unwrap();
    });
    let memory = Memory::new();
    unsafe {
        let other = Raw::create(100, &Options::new(memory.source())).unwrap().as_ptr();
        let mark = Raw::mark(other).unwrap();
        with(100, |s| assert_eq!(kind(Raw::release(s, &mark)), Some(Kind::Foreign)));
        Raw::destroy(other);
    }
}

#[test]
fn to_the_last_byte_and_no_further() {
    for offset in [0, 5] {
        let mut buffer = Buffer::new(1003, offset);
        unsafe {
            let options = Options { buffer: buffer.start(), ..Options::new(Source::NONE) };
            let s = Raw::create(1003, &options).unwrap().as_ptr();
            let mut most = 0;
            for size in if cfg!(miri) { 800 } else { 1 }..1003 {
                if let Ok(block) = Raw::push(s, size) {
                    block.write_bytes(1, size);
                    most = size;
                    Raw::pop(s, block.as_ptr()).unwrap();
                }
            }
            let block = Raw::push(s, most).unwrap();
            assert_eq!(block.addr().get() + most, buffer.start().addr() + 1003);
            assert_eq!(Raw::push(s, 0), Err(Error::NoMemory));
            assert_eq!(Raw::mark(s), Err(Error::NoMemory));
            assert_eq!(Raw::check(s), 0);
            Raw::pop(s, block.as_ptr()).unwrap();
            for size in [usize::MAX, usize::MAX - 40, 1003] {
                assert_eq!(Raw::push(s, size), Err(Error::NoMemory));
            }
            let small = Options { buffer: buffer.start(), ..options };
            assert_eq!(Raw::create(90, &small), Err(Error::Invalid));
        }
        buffer.assert_untouched_around();
    }
}

#[test]
fn alignment() {
    let memory = Memory::new();
    unsafe {
        let options = Options { alignment: 512, ..Options::new(memory.source()) };
        let s = Raw::create(10_000, &options).unwrap().as_ptr();
        let blocks = [Raw::push(s, 1).unwrap(), Raw::push(s, 600).unwrap(), Raw::push(s, 1).unwrap()];
        assert!(blocks.iter().all(|block| block.addr().get() % 512 == 0));
        for block in blocks.iter().rev() {
            Raw::pop(s, block.as_ptr()).unwrap();
        }
        assert_eq!(Raw::used(s), 0);
        Raw::destroy(s);
        assert_eq!(Raw::create(100, &Options { alignment: 20, ..options }), Err(Error::Invalid));
        assert_eq!(Raw::create(usize::MAX, &options), Err(Error::NoMemory));
    }
}

#[test]
fn a_mark_that_ended_is_not_found_in_a_later_block() {
    with(1000, |s| unsafe {
        let outer = Raw::mark(s).unwrap();
        let inner = Raw::mark(s).unwrap();
        Raw::release(s, &outer).unwrap();
        // Its memory holds what the inner mark left there.
        Raw::push(s, 64).unwrap();
        assert_eq!(kind(Raw::release(s, &inner)), Some(Kind::OutOfOrder));
    });
}
