//! Stacks against a list of blocks and marks: contents, overlap, alignment, order.
#![no_main]

mod common;

use allokit_arena::Error;
use allokit_arena::stack::{Mark, Options, Raw};
use arbitrary::Arbitrary;
use common::{Block, Size, assert_apart, with_memory};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Call {
    Push(Size),
    Pop,
    PopAny(u8),
    Mark,
    Release(u8),
    ReleaseDead(u8),
}

#[derive(Arbitrary, Debug)]
struct Input {
    size: u16,
    alignment: u8,
    buffer: Option<u8>,
    calls: Vec<Call>,
}

#[derive(Clone, Copy)]
enum Entry {
    Block(Block),
    Mark(Mark),
}

fuzz_target!(|input: Input| {
    let size = input.size as usize;
    let mut buffer = vec![0xEEu8; size + 48];
    let at = 16 + input.buffer.unwrap_or(0) as usize % 16;
    with_memory(|_, source| {
        let mut options = Options { alignment: 1 << (input.alignment % 9), ..Options::new(source) };
        if input.buffer.is_some() {
            options.buffer = buffer.as_mut_ptr().wrapping_add(at);
        }
        // SAFETY: the stack is used until it is destroyed; blocks are those of the model.
        unsafe {
            let Ok(s) = Raw::create(size, &options) else { return };
            let s = s.as_ptr();
            let mut entries: Vec<Entry> = Vec::new();
            let mut dead: Vec<Mark> = Vec::new();
            let mut seed = 0u8;
            for call in input.calls.iter().take(400) {
                seed = seed.wrapping_add(1);
                match *call {
                    Call::Push(size_asked) => match Raw::push(s, size_asked.get()) {
                        Ok(block) => {
                            assert_eq!(block.addr().get() % options.alignment.max(16), 0);
                            entries.push(Entry::Block(Block::fill(block.as_ptr(), size_asked.get(), seed)));
                        }
                        Err(error) => {
                            assert_eq!(error, Error::NoMemory);
                            let need = size_asked.get().saturating_add(32 + options.alignment.max(16));
                            assert!(Raw::used(s).saturating_add(need).saturating_add(400) > size, "there was room");
                        }
                    },
                    Call::Pop => {
                        if let Some(Entry::Block(block)) = entries.last() {
                            block.verify();
                            Raw::pop(s, block.place).unwrap();
                            entries.pop();
                        }
                    }
                    Call::PopAny(which) => {
                        if entries.len() > 1
                            && let Entry::Block(block) = entries[which as usize % (entries.len() - 1)]
                        {
                            assert!(matches!(Raw::pop(s, block.place), Err(Error::Fault(_))));
                        }
                    }
                    Call::Mark => {
                        if let Ok(mark) = Raw::mark(s) {
                            entries.push(Entry::Mark(mark));
                        }
                    }
                    Call::Release(which) => {
                        if entries.is_empty() {
                            continue;
                        }
                        let at = which as usize % entries.len();
                        if let Entry::Mark(mark) = entries[at] {
                            Raw::release(s, &mark).unwrap();
                            for entry in entries.drain(at..) {
                                if let Entry::Mark(mark) = entry {
                                    dead.push(mark);
                                }
                            }
                            let old = dead.len().saturating_sub(16);
                            dead.drain(..old);
                        }
                    }
                    Call::ReleaseDead(which) => {
                        if !dead.is_empty() {
                            let mark = dead[which as usize % dead.len()];
                            assert!(matches!(Raw::release(s, &mark), Err(Error::Fault(_))));
                        }
                    }
                }
                assert_eq!(Raw::check(s), 0);
                let blocks = || {
                    entries.iter().filter_map(|entry| match entry {
                        Entry::Block(block) => Some(block),
                        Entry::Mark(_) => None,
                    })
                };
                blocks().for_each(Block::verify);
                assert_apart(blocks());
            }
            Raw::destroy(s);
        }
    });
    assert!(buffer[..at].iter().chain(&buffer[at + size..]).all(|&byte| byte == 0xEE), "written outside the buffer");
});
