//! Pools against a list of objects: contents, overlap, alignment, the limit, and what must not be taken back.
#![no_main]

mod common;

use allokit_arena::pool::{Options, Raw};
use allokit_arena::{Error, Kind};
use arbitrary::Arbitrary;
use common::{Block, assert_apart, with_memory};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Call {
    Take,
    TakeMany(u8),
    Give(u8),
    GiveTwice(u8),
    GiveForeign(u8),
    GiveMiddle(u8, u8),
    /// An object whose contents are what a given one would hold.
    GiveLookalike(u8, u8),
    Refuse(u8),
    Reset,
}

#[derive(Arbitrary, Debug)]
struct Input {
    size: u16,
    alignment: u8,
    per_chunk: u8,
    limit: Option<u8>,
    guard: bool,
    buffer: Option<u16>,
    calls: Vec<Call>,
}

fuzz_target!(|input: Input| {
    let size = input.size as usize % 700;
    let mut buffer = vec![0u8; input.buffer.unwrap_or(0) as usize];
    with_memory(|memory, source| {
        let mut options = Options {
            alignment: 1 << (input.alignment % 9),
            per_chunk: input.per_chunk as usize % 40,
            limit: input.limit.unwrap_or(0) as usize,
            guard: input.guard,
            ..Options::new(source)
        };
        if input.buffer.is_some() {
            (options.buffer, options.buffer_size) = (buffer.as_mut_ptr(), buffer.len());
        }
        // SAFETY: the pool is used until it is destroyed; objects are those of the model.
        unsafe {
            let Ok(p) = Raw::create(size, &options) else { return };
            let p = p.as_ptr();
            let mut held: Vec<Block> = Vec::new();
            let mut seed = 0u8;
            let mut take = move |held: &mut Vec<Block>| {
                seed = seed.wrapping_add(1);
                let refused = (*memory).refuse != 0;
                match Raw::take(p) {
                    Ok(object) => {
                        assert_eq!(object.addr().get() % options.alignment.max(16), 0);
                        held.push(Block::fill(object.as_ptr(), size.max(16), seed));
                        assert!(options.limit == 0 || held.len() <= options.limit);
                    }
                    Err(error) => {
                        assert_eq!(error, Error::NoMemory);
                        // There was memory, so it is the limit.
                        assert!(refused || held.len() == options.limit || (*memory).bytes > 32 << 20);
                    }
                }
            };
            for call in input.calls.iter().take(200) {
                let one = |which: u8| (!held.is_empty()).then(|| which as usize % held.len());
                match *call {
                    Call::Take => take(&mut held),
                    Call::TakeMany(count) => (0..count % 20).for_each(|_| take(&mut held)),
                    Call::Give(which) | Call::GiveTwice(which) => {
                        let Some(at) = one(which) else { continue };
                        let object = held.swap_remove(at);
                        object.verify();
                        Raw::give(p, object.place).unwrap();
                        if matches!(call, Call::GiveTwice(_)) {
                            let again = Raw::give(p, object.place);
                            assert!(matches!(again, Err(Error::Fault(fault)) if fault.kind == Kind::DoubleFree));
                        }
                    }
                    Call::GiveForeign(at) => {
                        let mut other = [0u64; 40];
                        let place = other.as_mut_ptr().cast::<u8>().add(at as usize);
                        // On this stack, so in no pool; between the chunks of one, its give would have to look at the chunks.
                        let hull = held.iter().any(|one| one.place < place) && held.iter().any(|one| one.place > place);
                        assert!(hull || Raw::give(p, place).is_err());
                        assert_eq!(Raw::give(p, std::ptr::null_mut()), Ok(()));
                    }
                    Call::GiveMiddle(which, by) => {
                        // A pool that is not guarded believes a pointer into the middle.
                        let Some(at) = one(which) else { continue };
                        if options.guard {
                            let by = 1 + by as usize % (size.max(16) - 1);
                            assert!(Raw::give(p, held[at].place.add(by)).is_err());
                        }
                    }
                    Call::GiveLookalike(which, from) => {
                        let (Some(to), Some(from)) = (one(which), one(from)) else { continue };
                        if to == from {
                            continue;
                        }
                        // The first becomes a copy of what the second is once it is given, and then is given itself.
                        let (first, second) = (held[to], held[from]);
                        Raw::give(p, second.place).unwrap();
                        first.place.copy_from_nonoverlapping(second.place, 16);
                        held.retain(|one| one.place != first.place && one.place != second.place);
                        Raw::give(p, first.place).unwrap();
                    }
                    Call::Refuse(times) => (*memory).refuse = times as usize % 4,
                    Call::Reset => {
                        Raw::reset(p);
                        held.clear();
                    }
                }
                assert_eq!((Raw::check(p), Raw::live(p)), (0, held.len()));
                held.iter().for_each(Block::verify);
                held.iter().for_each(|one| assert!(Raw::is_object(p, one.place)));
                assert_apart(held.iter());
            }
            Raw::destroy(p);
        }
    });
});
