//! What the safe types rule out: each of these must not compile. The first block of each pair is the same program without
//! the mistake, and compiles.
//!
//! A block does not outlive its arena.
//! ```no_run
//! use allokit_arena::{Arena, Source};
//! let arena = Arena::new(Source::NONE).unwrap();
//! let _block = arena.alloc(1).ok();
//! ```
//! ```compile_fail,E0505
//! use allokit_arena::{Arena, Source};
//! let arena = Arena::new(Source::NONE).unwrap();
//! let block = arena.alloc(1).ok();
//! drop(arena);
//! let _ = block;
//! ```
//! Nor a reset, nor the end of the scope that it was made in.
//! ```compile_fail,E0502
//! use allokit_arena::{Arena, Source};
//! let mut arena = Arena::new(Source::NONE).unwrap();
//! let block = arena.alloc(1).ok();
//! arena.reset();
//! let _ = block;
//! ```
//! ```no_run
//! use allokit_arena::{Arena, Source};
//! let mut arena = Arena::new(Source::NONE).unwrap();
//! arena.scope().scoped(|inner| inner.alloc(1u8).ok().map(|value| *value));
//! ```
//! ```compile_fail
//! use allokit_arena::{Arena, Source};
//! let mut arena = Arena::new(Source::NONE).unwrap();
//! arena.scope().scoped(|inner| inner.alloc(1u8).ok());
//! ```
//! ```compile_fail
//! use allokit_arena::{Arena, Source};
//! let mut arena = Arena::new(Source::NONE).unwrap();
//! let mut outside = None;
//! arena.scope().scoped(|inner| outside = inner.alloc(1u8).ok());
//! ```
//! The outer scope is not used while an inner one is open: its blocks would end with the inner one.
//! ```compile_fail,E0502
//! use allokit_arena::{Arena, Source};
//! let mut arena = Arena::new(Source::NONE).unwrap();
//! let mut outer = arena.scope();
//! outer.scoped(|_inner| outer.alloc(1u8).is_ok());
//! ```
//! Scopes of two arenas are not exchanged.
//! ```compile_fail
//! use allokit_arena::{Arena, Source};
//! let mut a = Arena::new(Source::NONE).unwrap();
//! let mut b = Arena::new(Source::NONE).unwrap();
//! a.scope().scoped(|x| b.scope().scoped(|y| std::mem::swap(x, y)));
//! ```
//! An arena drops nothing, so it takes nothing that wants to be dropped.
//! ```compile_fail,E0080
//! use allokit_arena::{Arena, Source};
//! let arena = Arena::new(Source::NONE).unwrap();
//! arena.alloc(String::new()).ok();
//! ```
//! A child does not outlive its parent.
//! ```compile_fail,E0505
//! use allokit_arena::{Arena, Source};
//! let arena = Arena::new(Source::NONE).unwrap();
//! let child = arena.child().ok();
//! drop(arena);
//! drop(child);
//! ```
//! A buffer is the arena's as long as that lives.
//! ```compile_fail,E0499
//! use allokit_arena::Arena;
//! use std::mem::MaybeUninit;
//! let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
//! let one = Arena::in_buffer(&mut buffer);
//! let two = Arena::in_buffer(&mut buffer);
//! drop((one, two));
//! ```
//! An arena changes threads, as long as nobody has a block of it; it is not shared, and neither are scopes and children.
//! ```no_run
//! use allokit_arena::{Arena, Pool, Region, Source, Stack};
//! fn sent<T: Send>() {}
//! sent::<(Arena, Region, Stack, Pool<u8>)>();
//! ```
//! ```compile_fail,E0277
//! fn shared<T: Sync>() {}
//! shared::<allokit_arena::Arena>();
//! ```
//! ```compile_fail,E0277
//! fn shared<T: Sync>() {}
//! shared::<allokit_arena::Region>();
//! ```
//! ```compile_fail,E0277
//! fn shared<T: Sync>() {}
//! shared::<allokit_arena::Pool<u8>>();
//! ```
//! ```compile_fail,E0277
//! fn sent<T: Send>() {}
//! sent::<allokit_arena::Scope>();
//! ```
//! ```compile_fail,E0277
//! fn sent<T: Send>() {}
//! sent::<allokit_arena::Child>();
//! ```
//! A value in a region or a pool does not outlive it, and ends a reset of it.
//! ```compile_fail,E0505
//! use allokit_arena::{Region, Source};
//! let region = Region::new(1000, Source::NONE).unwrap();
//! let value = region.alloc(1).ok();
//! drop(region);
//! drop(value);
//! ```
//! ```compile_fail,E0502
//! use allokit_arena::{Region, Source};
//! let mut region = Region::new(1000, Source::NONE).unwrap();
//! let value = region.alloc(1).ok();
//! region.reset();
//! drop(value);
//! ```
//! ```compile_fail,E0505
//! use allokit_arena::{Pool, Source};
//! let pool = Pool::new(Source::NONE).unwrap();
//! let value = pool.take(1).ok();
//! drop(pool);
//! drop(value);
//! ```
//! What is pushed in a frame does not leave it.
//! ```no_run
//! use allokit_arena::{Source, Stack};
//! let mut stack = Stack::new(1000, Source::NONE).unwrap();
//! stack.scoped(|frame| frame.push(1u8).ok().map(|value| *value)).ok();
//! ```
//! ```compile_fail
//! use allokit_arena::{Source, Stack};
//! let mut stack = Stack::new(1000, Source::NONE).unwrap();
//! stack.scoped(|frame| frame.push(1u8).ok()).ok();
//! ```
//! A source is made of functions that somebody vouches for.
//! ```compile_fail,E0133
//! unsafe fn take(_: *mut std::ffi::c_void, _: usize, _: usize) -> *mut u8 { 16 as *mut u8 }
//! unsafe fn give(_: *mut std::ffi::c_void, _: *mut u8, _: usize) {}
//! allokit_arena::Source::new(take, give, std::ptr::null_mut());
//! ```
