//! Scratch sets against a list of stretches: who is open, what their blocks hold, and ends out of order.
#![no_main]

mod common;

use allokit_arena::arena::{self, Options};
use allokit_arena::scratch::{Scratch, Stretch};
use allokit_arena::{Error, Kind};
use arbitrary::Arbitrary;
use common::{Block, Size, assert_apart, with_memory};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Call {
    Begin,
    End,
    /// Any open one: all inside it end too.
    EndAny(u8),
    EndDead(u8),
    EndElsewhere,
    /// In the stretch of this depth, not only in the newest.
    Alloc(u8, Size),
    Refuse(u8),
}

fn kind(result: Result<(), Error>) -> Option<Kind> {
    match result {
        Err(Error::Fault(fault)) => Some(fault.kind),
        _ => None,
    }
}

fuzz_target!(|input: (bool, Vec<Call>)| {
    let (guard, calls) = input;
    with_memory(|memory, source| {
        let options = Options { guard, ..Options::new(source) };
        let (mut set, mut other) = (Scratch::new(source), Scratch::new(source));
        let mut open: Vec<(Stretch, Vec<Block>)> = Vec::new();
        let mut dead: Vec<Stretch> = Vec::new();
        // SAFETY: arenas are used while their stretch is open; the source outlives the sets.
        unsafe {
            for call in calls.iter().take(200) {
                match *call {
                    Call::Begin => {
                        let refused = (*memory).refuse != 0;
                        match set.begin(&options) {
                            Ok(stretch) => {
                                assert_eq!(arena::Raw::stats(stretch.arena).used, 0);
                                assert!(open.iter().all(|one| one.0.arena != stretch.arena), "an arena twice");
                                open.push((stretch, Vec::new()));
                            }
                            Err(error) => assert!(refused && error == Error::NoMemory),
                        }
                    }
                    Call::End => {
                        if let Some((stretch, _)) = open.pop() {
                            set.end(&stretch).unwrap();
                            dead.push(stretch);
                        }
                    }
                    Call::EndAny(which) => {
                        if !open.is_empty() {
                            let at = which as usize % open.len();
                            let newest = at + 1 == open.len();
                            let ended = set.end(&open[at].0);
                            assert_eq!(kind(ended), (!newest).then_some(Kind::OutOfOrder));
                            dead.extend(open.drain(at..).map(|one| one.0));
                        }
                    }
                    Call::EndDead(which) => {
                        if !dead.is_empty() {
                            assert_eq!(kind(set.end(&dead[which as usize % dead.len()])), Some(Kind::Foreign));
                        }
                    }
                    Call::EndElsewhere => {
                        if let Some((stretch, _)) = open.last() {
                            assert_eq!(kind(other.end(stretch)), Some(Kind::Foreign));
                        }
                    }
                    Call::Alloc(which, size) => {
                        if !open.is_empty() {
                            let at = which as usize % open.len();
                            let (refused, size) = ((*memory).refuse != 0, size.possible());
                            match arena::Raw::alloc(open[at].0.arena, size) {
                                Ok(block) => open[at].1.push(Block::fill(block.as_ptr(), size, which)),
                                Err(_) => assert!(refused || (*memory).bytes > 32 << 20),
                            }
                        }
                    }
                    Call::Refuse(times) => (*memory).refuse = times as usize % 4,
                }
                let old = dead.len().saturating_sub(16);
                dead.drain(..old);
                assert_eq!(set.depth(), open.len());
                for (stretch, blocks) in &open {
                    assert_eq!((arena::Raw::check(stretch.arena), arena::Raw::take_fault(stretch.arena)), (0, None));
                    blocks.iter().for_each(|block| assert!(arena::Raw::owns(stretch.arena, block.place)));
                    blocks.iter().for_each(Block::verify);
                }
                assert_apart(open.iter().flat_map(|one| &one.1));
            }
        }
        drop((set, other));
    });
});
