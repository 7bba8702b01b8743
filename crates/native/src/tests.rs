//! The allocator against a reference: every block is filled with a pattern of its own and checked when it goes.

mod random;

use crate::{Native, SMALL_MAX, check, runs};
use allokit_core::{Backend, Found, Tag, Tagged};
use random::Rng;
use std::collections::HashMap;
use std::sync::{Mutex, mpsc};
use std::vec::Vec;

/// Tests share the one heap of the process; those that look at figures or call `check` run one at a time.
static ALONE: Mutex<()> = Mutex::new(());

pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Rng {
    fn size(&mut self) -> usize {
        let log = self.below(if cfg!(miri) { 17 } else { 19 });
        self.below((1 << log) + 1)
    }
}

pub(crate) struct Held {
    ptr: *mut u8,
    size: usize,
    align: usize,
    seed: u8,
}

// SAFETY: a block may be used by whichever thread holds it.
unsafe impl Send for Held {}

fn pattern(seed: u8, index: usize) -> u8 {
    seed.wrapping_add(index as u8).wrapping_mul(31) ^ (index >> 8) as u8
}

/// Where a block is written and checked: all of a small one, both ends of a large one.
fn places(size: usize) -> impl Iterator<Item = usize> {
    let most = if cfg!(miri) { 4 } else { 512 };
    (0..size.min(most)).chain(size.saturating_sub(most).max(most)..size)
}

impl Held {
    /// With a tag if the seed says so.
    pub(crate) fn new(size: usize, align: usize, seed: u8, zeroed: bool) -> Held {
        let ptr = match (align, zeroed) {
            _ if matches!(seed % 4, 1 | 2) => Native::alloc_tagged(size, align, zeroed, tag(seed)),
            (1, false) => Native::alloc(size),
            (1, true) => Native::alloc_zeroed(size),
            (_, false) => Native::alloc_aligned(size, align),
            (_, true) => Native::alloc_aligned_zeroed(size, align),
        };
        assert!(!ptr.is_null());
        assert_eq!(ptr.addr() % align.max(16), 0, "{size} at {align}");
        // SAFETY: the block is ours.
        unsafe {
            assert!(Native::usable_size(ptr) >= size);
            for index in places(size) {
                if zeroed {
                    assert_eq!(*ptr.add(index), 0);
                }
                *ptr.add(index) = pattern(seed, index);
            }
        }
        Held { ptr, size, align, seed }
    }

    fn verify(&self, size: usize) {
        for index in places(self.size).filter(|index| *index < size) {
            // SAFETY: the block is ours.
            assert_eq!(unsafe { *self.ptr.add(index) }, pattern(self.seed, index), "{} of {}", index, self.size);
        }
    }

    pub(crate) fn resize(&mut self, size: usize) {
        let size = size.max(1);
        // SAFETY: the block is ours and live.
        unsafe {
            self.ptr = match Native::tagged_at(self.ptr) {
                Found::Wrong => panic!("a live block is not found"),
                // As the layer above does it.
                Found::Tagged(block) if self.seed % 4 == 1 => {
                    let mut moved = Native::resize_tagged(self.ptr, size, tag(self.seed));
                    if moved.is_null() {
                        moved = Native::alloc_tagged(size, 1, false, tag(self.seed));
                        moved.copy_from_nonoverlapping(self.ptr, block.size.min(size));
                        assert_eq!(Native::free_tagged(self.ptr, 0), Found::Tagged(block));
                    }
                    moved
                }
                _ => Native::realloc(self.ptr, size),
            };
            assert!(!self.ptr.is_null());
            self.verify(size);
            self.size = size;
            for index in places(size) {
                *self.ptr.add(index) = pattern(self.seed, index);
            }
        }
    }

    pub(crate) fn addr(&self) -> usize {
        self.ptr.addr()
    }

    pub(crate) fn usable(&self) -> usize {
        // SAFETY: the block is ours.
        unsafe { Native::usable_size(self.ptr) }
    }

    pub(crate) fn free(self) {
        self.verify(self.size);
        let _ = self.align;
        let tagged = self.tagged();
        // SAFETY: the block is ours and given up.
        unsafe {
            if matches!(self.seed % 4, 0 | 2) {
                return Native::free(self.ptr);
            }
            assert_eq!(Native::free_tagged(self.ptr, 7), tagged.map_or(Found::Plain, Found::Tagged));
        }
    }

    /// What a walk should say of the block.
    pub(crate) fn tagged(&self) -> Option<Tagged> {
        let Found::Tagged(block) = Native::tagged_at(self.ptr) else { return None };
        assert_eq!((block.start, block.size), (self.ptr.addr(), self.size));
        assert_eq!((block.tag.site(), block.tag.stretch()), (tag(self.seed).site(), tag(self.seed).stretch()));
        Some(block)
    }
}

fn tag(seed: u8) -> Tag {
    Tag::live(u32::from(seed) + 1000).with_site(u32::from(seed))
}

fn churn(rounds: usize, seed: u64, hand_over: Option<&mpsc::Sender<Held>>) {
    let mut rng = Rng(seed * 2 + 1);
    let mut live: Vec<Held> = Vec::new();
    let mut starts: HashMap<usize, usize> = HashMap::new();
    for round in 0..rounds {
        match rng.below(10) {
            0..=4 => {
                let align = if rng.below(8) == 0 { 1 << rng.below(17) } else { 1 };
                let held = Held::new(rng.size(), align, round as u8, rng.below(4) == 0);
                assert!(starts.insert(held.ptr.addr(), held.size).is_none(), "handed out twice");
                live.push(held);
            }
            5 if !live.is_empty() => {
                let index = rng.below(live.len());
                starts.remove(&live[index].ptr.addr());
                live[index].resize(rng.size());
                starts.insert(live[index].ptr.addr(), live[index].size);
            }
            _ if !live.is_empty() => {
                let held = live.swap_remove(rng.below(live.len()));
                starts.remove(&held.ptr.addr());
                match hand_over {
                    Some(sender) if rng.below(3) == 0 => sender.send(held).unwrap(),
                    _ => held.free(),
                }
            }
            _ => {}
        }
        if live.len() > 2000 {
            live.drain(..1000).for_each(|held| {
                starts.remove(&held.ptr.addr());
                held.free();
            });
        }
    }
    live.into_iter().for_each(Held::free);
}

#[test]
fn threads_hand_blocks_to_each_other() {
    let _alone = alone();
    let (sender, receiver) = mpsc::channel::<Held>();
    let rounds = if cfg!(miri) { 40 } else { 100_000 };
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let sender = sender.clone();
            scope.spawn(move || churn(rounds, 10 + seed, Some(&sender)));
        }
        drop(sender);
        scope.spawn(move || receiver.into_iter().for_each(Held::free));
    });
    assert_eq!(check(), 0);
}

#[test]
fn blocks_of_a_dead_thread_are_freed_and_its_pages_used_again() {
    let _alone = alone();
    let count = if cfg!(miri) { 50 } else { 20_000 };
    for _ in 0..3 {
        let blocks =
            std::thread::spawn(move || (0..count).map(|n| Held::new(100, 1, n as u8, false)).collect::<Vec<_>>())
                .join()
                .unwrap();
        blocks.into_iter().for_each(Held::free);
        assert_eq!(check(), 0);
    }
    if !cfg!(miri) {
        Native::trim();
        let before = runs::figures().committed;
        for _ in 0..50 {
            std::thread::spawn(move || (0..100).map(|n| Held::new(100, 1, n as u8, false)).for_each(Held::free))
                .join()
                .unwrap();
        }
        Native::trim();
        assert!(runs::figures().committed <= before + (1 << 20), "threads that come and go must not gather memory");
    }
}

#[test]
fn alignments_up_to_1_gib() {
    let _alone = alone();
    let sizes: &[usize] =
        if cfg!(miri) { &[1, 5000, SMALL_MAX + 1] } else { &[0, 1, 15, 100, 5000, SMALL_MAX, SMALL_MAX + 1, 300_000] };
    let (most, step) = if cfg!(miri) { (17, 4) } else { (30, 1) };
    for log in (0..=most).step_by(step) {
        for &size in sizes {
            Held::new(size, 1 << log, log as u8, true).free();
        }
    }
    assert_eq!(check(), 0);
}

#[test]
fn what_cannot_be_is_null_and_changes_nothing() {
    let _alone = alone();
    let before = runs::figures();
    for size in [usize::MAX, isize::MAX as usize, isize::MAX as usize + 1, 1 << 50] {
        if cfg!(miri) && size <= isize::MAX as usize {
            continue;
        }
        assert!(Native::alloc(size).is_null(), "{size}");
        assert!(Native::alloc_zeroed(size).is_null());
        assert!(Native::alloc_aligned(size, 64).is_null());
        let block = Native::alloc(100);
        // SAFETY: the block is ours.
        unsafe {
            block.write_bytes(5, 100);
            assert!(Native::realloc(block, size).is_null());
            assert_eq!(*block.add(99), 5);
            Native::free(block);
        }
    }
    assert_eq!(runs::figures().reserved, before.reserved);
    assert_eq!(check(), 0);
}

#[test]
fn large_blocks_grow_in_place_or_move_whole() {
    let _alone = alone();
    let mut held = Held::new(40_000, 1, 9, false);
    let mut wall = Vec::new();
    let most = if cfg!(miri) { 400_000 } else { 64 << 20 };
    while held.size < most {
        held.resize(held.size + held.size / 2);
        if held.size.is_multiple_of(3) {
            wall.push(Held::new(70_000, 1, 1, false));
        }
    }
    while held.size > 50_000 {
        held.resize(held.size / 3);
    }
    held.resize(10);
    held.free();
    wall.into_iter().for_each(Held::free);
    assert_eq!(check(), 0);
}

#[test]
#[cfg(not(miri))]
fn memory_goes_back() {
    let _alone = alone();
    Native::trim();
    let start = runs::figures().committed;
    let blocks: Vec<_> = (0..400_000).map(|n| Held::new(500, 1, n as u8, false)).collect();
    assert!(runs::figures().committed > start + (190 << 20));
    blocks.into_iter().for_each(Held::free);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(2);
    while std::time::Instant::now() < until {
        for _ in 0..1000 {
            Held::new(64, 1, 1, false).free();
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let left = runs::figures().committed.saturating_sub(start);
    assert!(left < 10 << 20, "{left} bytes are still held");
    assert_eq!(check(), 0);
}

#[test]
#[cfg(not(miri))]
fn a_cached_run_is_used_before_fresh_memory() {
    let _alone = alone();
    Native::trim();
    Held::new(3 << 20, 1, 1, false).free();
    let start = runs::figures().committed;
    let small: Vec<_> = (0..3000).map(|n| Held::new(500, 1, n as u8, false)).collect();
    let mut growing = Held::new(100_000, 1, 1, false);
    growing.resize(900_000);
    let grown = runs::figures().committed.saturating_sub(start);
    assert!(grown < 512 << 10, "{grown} bytes more beside a cached run of 3 MiB");
    growing.free();
    small.into_iter().for_each(Held::free);
    assert_eq!(check(), 0);
}

#[test]
fn a_producer_that_sleeps_does_not_pin_what_others_free() {
    let _alone = alone();
    let count = if cfg!(miri) { 100 } else { 100_000 };
    let (sender, receiver) = mpsc::channel::<Held>();
    let (wake, sleep) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for n in 0..count {
                sender.send(Held::new(1000, 1, n as u8, false)).unwrap();
            }
            drop(sender);
            sleep.recv().unwrap();
        });
        let blocks: Vec<_> = receiver.into_iter().collect();
        let full = runs::figures().committed;
        blocks.into_iter().for_each(Held::free);
        if !cfg!(miri) {
            Native::trim();
            let left = runs::figures().committed;
            assert!(left < full / 4, "{left} of {full} bytes are still held");
        }
        wake.send(()).unwrap();
    });
    assert_eq!(check(), 0);
}

#[test]
fn check_sees_damage() {
    let _alone = alone();
    std::thread::spawn(|| {
        let blocks: Vec<_> = (0..4).map(|_| Native::alloc(208)).collect();
        // SAFETY: the page is this thread's; the field is put back before anybody else looks.
        unsafe {
            let page = crate::page::of_block(blocks[0].addr());
            (*page).free_count += 1;
            assert_ne!(check(), 0);
            (*page).free_count -= 1;
            assert_eq!(check(), 0);
            blocks.into_iter().for_each(|block| Native::free(block));
        }
    })
    .join()
    .unwrap();
}
