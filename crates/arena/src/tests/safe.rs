use super::Memory;
use crate::{Arena, Error, Pool, Region, Stack};
use core::mem::MaybeUninit;
use std::format;

#[test]
fn references_live_as_long_as_their_scope() {
    let memory = Memory::new();
    let mut arena = Arena::new(memory.source()).unwrap();
    let number = arena.alloc(7u64).unwrap();
    *number += 1;
    assert_eq!(*number, 8);
    let mut outer = arena.scope();
    let text = outer.alloc_str("outer").unwrap();
    let sum = outer.scoped(|inner| {
        let numbers = inner.alloc_slice(&[1u32, 2, 3]).unwrap();
        let more = inner.scoped(|inmost| *inmost.alloc(4u32).unwrap());
        numbers.iter().sum::<u32>() + more
    });
    text.make_ascii_uppercase();
    assert_eq!((&*text, sum), ("OUTER", 10));
    assert_eq!(outer.format(format_args!("{}-{sum:03}", text)).unwrap(), "OUTER-010");
    arena.reset();
    assert_eq!(arena.stats().used, 0);
    assert_eq!(arena.check(), 0);
}

#[test]
fn wide_types_and_none() {
    #[repr(align(128))]
    #[derive(Clone, Copy)]
    struct Wide(u8);
    let memory = Memory::new();
    let arena = Arena::new(memory.source()).unwrap();
    for i in 0..50 {
        let wide = arena.alloc(Wide(i)).unwrap();
        assert_eq!((&raw const *wide).addr() % 128, 0);
        arena.alloc(()).unwrap();
        assert_eq!(wide.0, i);
    }
    assert!(arena.alloc_slice::<u8>(&[]).unwrap().is_empty());
}

#[test]
fn without_any_allocator() {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
    let arena = Arena::in_buffer(&mut buffer).unwrap();
    let mut count = 0;
    while arena.alloc([count; 16]).is_ok() {
        count += 1;
    }
    assert!(count > 20);
    drop(arena);
    let region = Region::in_buffer(&mut buffer).unwrap();
    let one = region.alloc(format!("dropped {}", 1)).unwrap();
    let two = region.alloc([1u64; 20]).unwrap();
    assert_eq!((one.as_str(), two.len()), ("dropped 1", 20));
    drop(one);
    drop(two);
    assert_eq!((region.stats().used, region.check()), (0, 0));
    assert_eq!(region.alloc([0u8; 5000]).err(), Some(Error::NoMemory));
}

#[test]
fn children() {
    let memory = Memory::new();
    let arena = Arena::new(memory.source()).unwrap();
    let mut child = arena.child().unwrap();
    let value = arena.alloc(5).unwrap();
    assert_eq!(child.scope().scoped(|scope| *scope.alloc(6).unwrap() + *value), 11);
    child.reset();
}

#[test]
fn pools_and_stacks() {
    let memory = Memory::new();
    let pool = Pool::new(memory.source()).unwrap();
    let one = pool.take(format!("{}", 1)).unwrap();
    let two = pool.take(format!("{}", 2)).unwrap();
    drop(one);
    let mut three = pool.take(format!("{}", 3)).unwrap();
    three.push('!');
    assert_eq!((two.as_str(), three.as_str()), ("2", "3!"));
    let mut stack = Stack::new(1000, memory.source()).unwrap();
    for _ in 0..20 {
        let sum = stack.scoped(|frame| {
            let a = frame.push(1u64).unwrap();
            let inner = frame.scoped(|frame| *frame.push([2u64; 20]).unwrap()).unwrap();
            *a + inner[19]
        });
        assert_eq!(sum, Ok(3));
    }
}

#[cfg(feature = "allocator-api2")]
#[test]
fn what_collections_ask_of_an_arena() {
    use allocator_api2::alloc::Allocator;
    use std::alloc::Layout;
    let memory = Memory::new();
    let arena = Arena::new(memory.source()).unwrap();
    let region = Region::new(20_000, memory.source()).unwrap();
    let layout = |size| Layout::from_size_align(size, 64).unwrap();
    // As a vector does: blocks that grow, shrink and go.
    fn grown(of: &impl Allocator, layout: impl Fn(usize) -> Layout) {
        let mut block = of.allocate(layout(64)).unwrap().cast::<u8>();
        for size in [64, 128, 256, 512] {
            // SAFETY: the block is live, of this allocator and this layout; its first byte is written before it is read.
            unsafe {
                block.write(size as u8);
                let larger = of.grow(block, layout(size), layout(size * 2)).unwrap().cast::<u8>();
                assert!(larger.addr().get().is_multiple_of(64) && larger.read() == size as u8);
                block = larger;
            }
        }
        // SAFETY: as above.
        unsafe {
            let smaller = of.shrink(block, layout(1024), layout(100)).unwrap().cast::<u8>();
            of.deallocate(smaller, layout(100));
        }
    }
    grown(&&arena, layout);
    // It grew in place: nothing else came behind it.
    assert!(arena.stats().used < 2048);
    grown(&&region, layout);
    assert_eq!(region.stats().used, 0);
}

#[test]
fn options_that_nobody_vouches_for_are_refused() {
    unsafe extern "C" fn grown(_: *mut crate::arena::Raw, _: usize, _: *mut core::ffi::c_void) {}
    let memory = Memory::new();
    let usual = crate::arena::Options::new(memory.source());
    let told = crate::arena::Options { on_grow: Some(grown), ..usual };
    assert_eq!(Arena::with_options(&told).err(), Some(Error::Invalid));
    let mut byte = 0u8;
    let placed = crate::arena::Options { buffer: &raw mut byte, buffer_size: 1 << 20, ..usual };
    assert_eq!(Arena::with_options(&placed).err(), Some(Error::Invalid));
}

/// Under Miri: what a value leaves behind may be uninitialised.
#[test]
fn a_pool_takes_back_values_with_padding() {
    let memory = Memory::new();
    let pool = Pool::new(memory.source()).unwrap();
    let one = pool.take((1u64, 2u8)).unwrap();
    let two = pool.take((3u64, 4u8)).unwrap();
    drop(one);
    drop(two);
    assert_eq!(pool.take((5u64, 6u8)).unwrap().1, 6);
    let pool = Pool::new(memory.source()).unwrap();
    drop(pool.take([MaybeUninit::<u8>::uninit(); 40]).unwrap());
    pool.take([MaybeUninit::<u8>::uninit(); 40]).unwrap();
}
