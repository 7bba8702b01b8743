use super::Memory;
use crate::arena::{Options, Raw};
use crate::scratch::Scratch;
use crate::{Error, Kind};

#[test]
fn inner_stretches_have_arenas_of_their_own() {
    let memory = Memory::new();
    let options = Options::new(memory.source());
    let mut set = Scratch::new(memory.source());
    unsafe {
        let outer = set.begin(&options).unwrap();
        let result = Raw::alloc(outer.arena, 100).unwrap();
        let inner = set.begin(&options).unwrap();
        assert_ne!(inner.arena, outer.arena);
        // A result for the caller, made while the temporaries live.
        let second = Raw::alloc(outer.arena, 100).unwrap();
        Raw::alloc(inner.arena, 1000).unwrap();
        set.end(&inner).unwrap();
        result.write_bytes(1, 100);
        second.write_bytes(1, 100);
        assert_eq!(Raw::stats(inner.arena).used, 0);
        let again = set.begin(&options).unwrap();
        assert_eq!(again.arena, inner.arena);
        set.end(&again).unwrap();
        set.end(&outer).unwrap();
        assert_eq!(set.depth(), 0);
    }
}

#[test]
fn ends_out_of_order() {
    let memory = Memory::new();
    let options = Options::new(memory.source());
    let mut set = Scratch::new(memory.source());
    let mut other = Scratch::new(memory.source());
    let fault = |result| match result {
        Err(Error::Fault(fault)) => Some(fault.kind),
        _ => None,
    };
    let (a, b) = (unsafe { set.begin(&options) }.unwrap(), unsafe { set.begin(&options) }.unwrap());
    assert_eq!(fault(other.end(&a)), Some(Kind::Foreign));
    assert_eq!(fault(set.end(&a)), Some(Kind::OutOfOrder));
    assert_eq!(set.depth(), 0);
    assert_eq!(fault(set.end(&b)), Some(Kind::Foreign));
    let c = unsafe { set.begin(&options) }.unwrap();
    assert_eq!(fault(set.end(&a)), Some(Kind::Foreign));
    set.end(&c).unwrap();
    memory.left.set(0);
    let (_c, _d) = (unsafe { set.begin(&options) }.unwrap(), unsafe { set.begin(&options) }.unwrap());
    assert_eq!(unsafe { set.begin(&options) }.err(), Some(Error::NoMemory));
    assert_eq!(set.depth(), 2);
}

#[test]
fn what_was_large_is_given_back() {
    let memory = Memory::new();
    let options = Options::new(memory.source());
    let mut set = Scratch::new(memory.source());
    let stretch = unsafe { set.begin(&options) }.unwrap();
    unsafe { Raw::alloc(stretch.arena, 2 << 20).unwrap() };
    set.end(&stretch).unwrap();
    assert!(memory.bytes.get() < 8 << 10);
}
