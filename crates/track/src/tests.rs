//! The tracker over libc's allocator: exact counts against a model, wrong frees, sites, failures.

#[cfg(not(miri))]
#[path = "../../system/contract.rs"]
mod contract;

use crate::{Leaks, Since, SiteId, Tracked, header, mark, sites, threads};
use allokit_core::{Backend, Site, Stats};
use allokit_platform::errno;
use allokit_report::fault::{self, Policy};
use allokit_system::System;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicPtr, AtomicU32};
use std::sync::{Mutex, MutexGuard};
use std::vec::Vec;
use std::{format, ptr, thread};

type T = Tracked<System>;

/// The tracker is one for the process: tests that look at totals take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    fault::set_policy(Policy::Quiet);
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn place(line: u32) -> SiteId {
    // SAFETY: the text is zero-terminated.
    unsafe { sites::of_place(c"model.c".as_ptr(), line) }
}

fn stats() -> Stats {
    let mut stats = Stats::new();
    T::stats(&mut stats);
    stats
}

/// Live blocks and bytes of the sites given, without those that have none.
fn live_of(lines: std::ops::Range<u32>, since: Since) -> BTreeMap<u32, (u64, u64)> {
    let leaks = Leaks::take(since);
    assert!(leaks.rows().is_sorted_by_key(|row| std::cmp::Reverse(row.bytes)));
    assert_eq!(leaks.blocks, leaks.rows().iter().map(|row| row.blocks).sum());
    assert_eq!(leaks.bytes, leaks.rows().iter().map(|row| row.bytes).sum());
    lines
        .filter_map(|line| {
            let row = leaks.rows().iter().find(|row| row.site == place(line))?;
            Some((line, (row.blocks, row.bytes)))
        })
        .collect()
}

#[test]
#[cfg(not(miri))] // too large for it; counts_are_exact makes the same calls
fn the_contract() {
    let _turn = alone();
    let before = fault::count();
    contract::check::<T>();
    assert_eq!(fault::count(), before);
}

/// Runs the test called `name` again in a process of its own, where nothing has been allocated yet; true in that process.
#[cfg(not(miri))]
fn in_a_child(name: &str) -> bool {
    if std::env::var_os("ALLOKIT_TEST_CHILD").is_some() {
        return true;
    }
    let output = child(name).output().unwrap();
    assert!(output.status.success(), "{}", std::string::String::from_utf8_lossy(&output.stdout));
    false
}

#[cfg(not(miri))]
fn child(name: &str) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("tests::{name}"), "--nocapture", "--test-threads=1"]);
    command.env("ALLOKIT_TEST_CHILD", "1");
    command
}

// ---- exact counts ----

#[derive(Clone, Debug)]
enum Step {
    Alloc { size: usize, line: u32, align: usize, zeroed: bool },
    Realloc { index: usize, size: usize, line: u32, align: usize },
    Free { index: usize, sized: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let scale: usize = if cfg!(miri) { 100 } else { 1 };
    let size =
        move || prop_oneof![8 => 0usize..300, 2 => 300 / scale..40_000 / scale, 1 => 100_000 / scale..400_000 / scale];
    let align = || prop_oneof![4 => Just(1usize), 1 => (4u32..14).prop_map(|log| 1usize << log)];
    prop_oneof![
        4 => (size(), 1u32..9, align(), any::<bool>())
            .prop_map(|(size, line, align, zeroed)| Step::Alloc { size, line, align, zeroed }),
        2 => (any::<usize>(), size(), 1u32..9, align())
            .prop_map(|(index, size, line, align)| Step::Realloc { index, size: size.max(1), line, align }),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(index, sized)| Step::Free { index, sized }),
    ]
}

struct Held {
    address: usize,
    size: usize,
    line: u32,
}

impl Held {
    fn new(block: *mut u8, size: usize, line: u32) -> Held {
        assert!(!block.is_null());
        // SAFETY: the block is live and holds `size` bytes.
        unsafe { block.write_bytes(line as u8, size) };
        Held { address: block.expose_provenance(), size, line }
    }

    fn block(&self) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.address)
    }

    fn check(&self, bytes: usize) {
        // SAFETY: the block is live.
        unsafe { assert!((0..bytes).all(|i| *self.block().add(i) == self.line as u8)) };
    }
}

/// What a thread's steps come to: the blocks left, and its counts.
#[derive(Default)]
struct Outcome {
    held: Vec<Held>,
    counts: [u64; 4],
}

impl Outcome {
    fn allocated(&mut self, size: usize) {
        self.counts[0] += 1;
        self.counts[1] += size as u64;
    }

    fn freed(&mut self, size: usize) {
        self.counts[2] += 1;
        self.counts[3] += size as u64;
    }
}

fn run(steps: &[Step]) -> Outcome {
    let mut outcome = Outcome::default();
    for step in steps {
        match *step {
            Step::Alloc { size, line, align, zeroed } => {
                let block = match (align, zeroed) {
                    (1, false) => T::alloc_at(size, place(line)),
                    (1, true) => T::alloc_zeroed_at(size, place(line)),
                    (_, false) => T::alloc_aligned_at(size, align, place(line)),
                    (_, true) => T::alloc_aligned_zeroed_at(size, align, place(line)),
                };
                assert_eq!(block.addr() % align.max(16), 0);
                outcome.held.push(Held::new(block, size, line));
                outcome.allocated(size);
            }
            Step::Realloc { index, size, line, align } if !outcome.held.is_empty() => {
                let index = index % outcome.held.len();
                let old = outcome.held.swap_remove(index);
                // SAFETY: the block is live.
                let block = unsafe {
                    if align == 1 {
                        T::realloc_at(old.block(), size, place(line))
                    } else {
                        T::realloc_aligned_at(old.block(), size, align, place(line))
                    }
                };
                assert_eq!(block.addr() % align.max(16), 0);
                Held { address: block.expose_provenance(), ..old }.check(old.size.min(size));
                outcome.held.push(Held::new(block, size, line));
                outcome.freed(old.size);
                outcome.allocated(size);
            }
            Step::Free { index, sized } if !outcome.held.is_empty() => {
                let index = index % outcome.held.len();
                let old = outcome.held.swap_remove(index);
                old.check(old.size);
                // SAFETY: the block is live.
                unsafe {
                    assert_eq!(T::usable_size(old.block()), old.size);
                    if sized {
                        T::free_sized_at(old.block(), old.size, place(100));
                    } else {
                        T::free_at(old.block(), place(100));
                    }
                }
                outcome.freed(old.size);
            }
            _ => {}
        }
    }
    outcome
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 100 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn counts_are_exact(steps in prop::collection::vec(prop::collection::vec(step(), 0..60), 1..4)) {
        let _turn = alone();
        let before = stats();
        let faults = fault::count();
        mark();
        let outcomes: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = steps.iter().map(|steps| scope.spawn(|| run(steps))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let after = stats();
        let mut model = BTreeMap::<u32, (u64, u64)>::new();
        let mut counts = [0u64; 4];
        for outcome in &outcomes {
            counts.iter_mut().zip(outcome.counts).for_each(|(sum, count)| *sum += count);
            for held in &outcome.held {
                let row = model.entry(held.line).or_default();
                *row = (row.0 + 1, row.1 + held.size as u64);
            }
        }
        prop_assert_eq!(live_of(1..9, Since::Start), model.clone());
        prop_assert_eq!(live_of(1..9, Since::Mark), model.clone());
        prop_assert_eq!(
            [
                after.alloc_count - before.alloc_count,
                after.alloc_bytes - before.alloc_bytes,
                after.free_count - before.free_count,
                after.free_bytes - before.free_bytes,
            ],
            counts
        );
        prop_assert_eq!(after.current_bytes, after.alloc_bytes - after.free_bytes);
        prop_assert!(after.peak_bytes >= after.current_bytes);
        // What one thread allocated another frees.
        for held in outcomes.into_iter().flat_map(|outcome| outcome.held) {
            held.check(held.size);
            // SAFETY: the block is live.
            unsafe { T::free_at(held.block(), place(101)) };
        }
        prop_assert!(live_of(1..9, Since::Start).is_empty());
        prop_assert_eq!(fault::count(), faults);
    }
}

#[test]
fn only_blocks_since_the_mark() {
    let _turn = alone();
    let old = T::alloc_at(10, place(200));
    let grown = T::alloc_at(10, place(200));
    mark();
    let new = T::alloc_at(20, place(200));
    // SAFETY: the blocks are live.
    unsafe {
        let grown = T::realloc_at(grown, 100_000, place(200));
        assert_eq!(live_of(200..201, Since::Mark)[&200], (1, 20));
        assert_eq!(live_of(200..201, Since::Start)[&200], (3, 100_030));
        T::free_at(new, place(201));
        assert!(live_of(200..201, Since::Mark).is_empty());
        T::free_at(old, place(201));
        T::free_at(grown, place(201));
    }
}

#[test]
#[cfg(not(miri))]
fn the_peak() {
    if !in_a_child("the_peak") {
        return;
    }
    // One thread: exact.
    let block = T::alloc_at(10_000, place(210));
    // SAFETY: the block is live.
    unsafe { T::free_at(block, place(211)) };
    let blocks: Vec<_> = (0..1000).map(|_| T::alloc_at(1000, place(210)).expose_provenance()).collect();
    assert_eq!(stats().peak_bytes, 1_000_000);
    let free = |blocks: Vec<usize>| {
        for block in blocks {
            // SAFETY: the block is live and handed over.
            unsafe { T::free_at(ptr::with_exposed_provenance_mut(block), place(211)) };
        }
    };
    // Several: never too low, and too high by 64 KiB for each at most.
    thread::spawn(move || free(blocks)).join().unwrap();
    let (start, go) = (std::sync::Barrier::new(5), std::sync::Barrier::new(5));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let blocks = (0..3000).map(|_| T::alloc_at(700, place(210)).expose_provenance()).collect();
                start.wait();
                go.wait();
                free(blocks);
            });
        }
        start.wait();
        let stats = stats();
        // Before anything can fail: the threads wait.
        go.wait();
        assert_eq!(stats.current_bytes, 4 * 3000 * 700);
        assert!(stats.peak_bytes >= 4 * 3000 * 700 && stats.peak_bytes <= 4 * 3000 * 700 + 6 * (64 << 10), "{stats:?}");
    });
    assert_eq!(stats().current_bytes, 0);
}

#[test]
fn threads_come_and_go() {
    let _turn = alone();
    let before = stats();
    for _ in 0..50 {
        thread::spawn(|| {
            let block = T::alloc_at(100, place(220));
            // SAFETY: the block is live.
            unsafe { T::free_at(block, place(221)) };
        })
        .join()
        .unwrap();
    }
    let after = stats();
    assert_eq!((after.alloc_count - before.alloc_count, after.free_count - before.free_count), (50, 50));
    assert!(after.threads <= before.threads + 3, "{before:?} {after:?}");
}

#[test]
#[cfg(not(miri))] // too large for it
fn a_walk_while_others_free() {
    let _turn = alone();
    let stop = AtomicU32::new(0);
    let faults = fault::count();
    thread::scope(|scope| {
        for worker in 0..3 {
            let stop = &stop;
            scope.spawn(move || {
                // Large enough to be unmapped by free: reading a header after that would crash.
                let mut blocks = [ptr::null_mut::<u8>(); 8];
                while stop.load(std::sync::atomic::Ordering::Relaxed) == 0 {
                    for (i, block) in blocks.iter_mut().enumerate() {
                        if !block.is_null() {
                            // SAFETY: the block is live.
                            unsafe { T::free_at(*block, place(231)) };
                        }
                        *block = T::alloc_at(if i % 2 == 0 { 50 } else { 40 << 20 }, place(230 + worker % 2));
                    }
                }
                for block in blocks.into_iter().filter(|block| !block.is_null()) {
                    // SAFETY: the block is live.
                    unsafe { T::free_at(block, place(231)) };
                }
            });
        }
        for _ in 0..100 {
            let blocks: u64 = live_of(230..232, Since::Start).values().map(|row| row.0).sum();
            assert!(blocks <= 24);
        }
        stop.store(1, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(fault::count(), faults);
}

#[test]
fn a_free_waits_for_a_pin() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let _turn = alone();
    let block = T::alloc_at(10, place(250)).expose_provenance();
    let faults = fault::count();
    let (began, freed) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let walk = crate::live::WALK.lock();
        let pin = crate::live::pin(block).unwrap();
        scope.spawn(|| {
            began.store(true, Ordering::Release);
            // SAFETY: the block is live.
            unsafe { T::free_at(ptr::with_exposed_provenance_mut(block), place(251)) };
            freed.store(true, Ordering::Release);
        });
        while !began.load(Ordering::Acquire) {
            thread::yield_now();
        }
        thread::sleep(std::time::Duration::from_millis(if cfg!(miri) { 1 } else { 50 }));
        // SAFETY: the block is pinned.
        assert_eq!(unsafe { header::read(pin.payload) }.unwrap().size, 10);
        assert!(!freed.load(Ordering::Acquire));
        drop(pin);
        drop(walk);
    });
    assert_eq!(fault::count(), faults);
}

// ---- failures ----

#[test]
#[cfg(not(miri))] // it has no failing realloc
fn a_failed_realloc_changes_nothing() {
    let _turn = alone();
    for align in [16, 64] {
        let block = T::alloc_aligned_at(100, align, place(240));
        let before = stats();
        errno::set(0);
        // SAFETY: the block is live, also after resizes that fail.
        unsafe {
            for size in [1 << 47, allokit_core::MAX_SIZE, usize::MAX] {
                assert!(T::realloc_at(block, size, place(241)).is_null());
                assert!(T::realloc_aligned_at(block, size, 4096, place(241)).is_null());
                assert_eq!(errno::get(), errno::ENOMEM);
            }
            let after = stats();
            assert_eq!(
                (after.alloc_count, after.alloc_bytes, after.free_count, after.free_bytes),
                (before.alloc_count, before.alloc_bytes, before.free_count, before.free_bytes)
            );
            assert_eq!(live_of(240..242, Since::Start), BTreeMap::from([(240, (1, 100))]));
            T::free_at(block, place(242));
        }
    }
}

#[test]
#[cfg(not(miri))]
fn without_memory_for_the_map() {
    if !in_a_child("without_memory_for_the_map") {
        return;
    }
    use crate::live;
    // Addresses far from every heap: their leaves are missing. Nothing is ever read there.
    let far = |gib: usize| ptr::without_provenance_mut::<u8>((gib << 30) + 0x9ab0);
    assert!(live::have_reserve());
    let none = libc::rlimit { rlim_cur: 0, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: from here on this process gets no more address space.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const none) }, 0);
    assert!(!live::mark(far(1)) && !live::take(far(1)));
    live::mark_surely(far(2));
    assert!(!live::have_reserve() && !live::mark(far(3)));
    assert!(live::take(far(2)) && !live::take(far(2)));
    assert!(live::was_freed(far(2).addr()) && !live::was_freed(far(2).addr() + 16));
}

// ---- sites ----

#[test]
fn one_place_one_number() {
    let record = |file: &'static CStr, function: Option<&'static CStr>, line| Site {
        file: file.as_ptr(),
        function: AtomicPtr::new(function.map_or(ptr::null_mut(), |name| name.as_ptr().cast_mut())),
        line,
        id: AtomicU32::new(0),
    };
    let (mut a, mut b) = (record(c"x/a.c", Some(c"main"), 7), record(c"x/a.c", Some(c"main"), 7));
    let (mut c, mut d) = (record(c"x/a.c", Some(c"other"), 7), record(c"x/a.c", None, 7));
    // SAFETY: the records are valid.
    unsafe {
        let id = sites::of_record(&raw mut a);
        assert_eq!(id, sites::of_record(&raw mut b));
        assert_eq!(id, sites::of_record(&raw mut a));
        assert_eq!(format!("{id}"), "x/a.c:7 (main)");
        let other = sites::of_record(&raw mut c);
        assert_ne!(id, other);
        assert_eq!(format!("{other}"), "x/a.c:7 (other)");
        let plain = sites::of_record(&raw mut d);
        assert_eq!(format!("{plain}"), "x/a.c:7");
        assert_eq!(plain, sites::of_place(c"x/a.c".as_ptr(), 7));
        assert_ne!(plain, sites::of_place(c"x/a.c".as_ptr(), 8));
        assert_eq!(sites::of_record(ptr::null_mut()), SiteId::UNKNOWN);
        assert_eq!(sites::of_place(ptr::null(), 3), SiteId::UNKNOWN);
    }
    assert_eq!(format!("{}", SiteId::UNKNOWN), "unknown site");
    assert_eq!(format!("{}", SiteId(0x00ff_ffff)), "unknown site");
}

#[test]
fn a_place_is_its_text_not_its_address() {
    let mut text = *b"one.c\0";
    // SAFETY: the text is zero-terminated each time.
    unsafe {
        let one = sites::of_place(text.as_ptr().cast(), 1);
        text[..3].copy_from_slice(b"two");
        let two = sites::of_place(text.as_ptr().cast(), 1);
        assert_ne!(one, two);
        text.fill(b'x');
        assert_eq!((format!("{one}"), format!("{two}")), ("one.c:1".into(), "two.c:1".into()));
        let copy = CString::new("one.c").unwrap();
        assert_eq!(one, sites::of_place(copy.as_ptr(), 1));
    }
}

#[test]
fn many_places_from_many_threads() {
    let places = if cfg!(miri) { 30 } else { 20_000 };
    let lists: Vec<Vec<SiteId>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    (0..places)
                        .flat_map(|line| {
                            // SAFETY: the text is zero-terminated.
                            let place = unsafe { sites::of_place(c"many.c".as_ptr(), line) };
                            let caller = sites::of_caller(0x7000_0000_0000 + line as usize * 4);
                            assert_ne!(place, caller);
                            [place, caller]
                        })
                        .collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(lists.iter().all(|list| *list == lists[0]));
    for (line, ids) in lists[0].chunks(2).enumerate().step_by(97) {
        assert_eq!(format!("{}", ids[0]), format!("many.c:{line}"));
    }
}

#[test]
#[cfg(not(miri))]
fn a_return_address_has_a_symbol() {
    let address = libc_function().addr();
    let site = sites::of_caller(address + 5);
    let text = format!("{site}");
    assert!(text.starts_with("libc.so") && text.ends_with("+0x4)") && !text.contains('/'), "{text}");
    assert_eq!(format!("{}", sites::of_caller(0x10)), "0x10");
    assert_eq!(sites::of_caller(0), SiteId::UNKNOWN);
}

#[cfg(not(miri))]
fn libc_function() -> *const () {
    // Through the dynamic table: the address of the function itself, not of a stub.
    // SAFETY: the name is zero-terminated.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"qsort".as_ptr()).cast_const().cast() }
}

// ---- wrong frees ----

#[test]
fn wrong_frees_are_counted_and_harmless() {
    let _turn = alone();
    let before = stats();
    let faults = fault::count();
    let block = T::alloc_at(24, place(300));
    let mut local = [0u8; 64];
    // SAFETY: wrong pointers are what is tested; the tracker does not touch them.
    unsafe {
        T::free_at(block.add(8), place(301));
        T::free_at(block.add(16), place(301));
        T::free_at(local.as_mut_ptr(), place(301));
        T::free_at(ptr::without_provenance_mut(16), place(301));
        T::free_at(ptr::without_provenance_mut(usize::MAX - 15), place(301));
        assert_eq!(fault::count() - faults, 5);
        T::free_at(block, place(302));
        T::free_at(block, place(303));
        T::free_sized_at(block, 24, place(303));
        errno::set(0);
        assert!(T::realloc_at(block, 10, place(303)).is_null());
        assert_eq!(errno::get(), errno::EINVAL);
        assert!(T::realloc_aligned_at(block, 10, 64, place(303)).is_null());
        assert_eq!(T::usable_size(block), 0);
        assert_eq!(fault::count() - faults, 10);
        let sized = T::alloc_at(24, place(300));
        T::free_sized_at(sized, 32, place(301));
        assert_eq!(fault::count() - faults, 11);
    }
    let after = stats();
    assert_eq!((after.alloc_count - before.alloc_count, after.free_count - before.free_count), (2, 2));
    assert_eq!(after.current_bytes, before.current_bytes);
}

#[test]
fn of_two_frees_at_once_one_is_reported() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let _turn = alone();
    let faults = fault::count();
    let rounds = if cfg!(miri) { 5 } else { 10_000 };
    // Spinning brings the two together within nanoseconds, which a barrier that sleeps does not.
    let (arrived, shared) = (AtomicUsize::new(0), AtomicPtr::new(ptr::null_mut()));
    let meet = |target: usize| {
        arrived.fetch_add(1, Ordering::AcqRel);
        let mut spins = 0;
        while arrived.load(Ordering::Acquire) < target {
            spins += 1;
            if cfg!(miri) || spins > 2000 { thread::yield_now() } else { std::hint::spin_loop() }
        }
    };
    thread::scope(|scope| {
        for thread in 0..2 {
            let (meet, shared) = (&meet, &shared);
            scope.spawn(move || {
                for round in 0..rounds {
                    if thread == 0 {
                        shared.store(T::alloc_at(40, place(310)), Ordering::Relaxed);
                    }
                    meet(round * 4 + 2);
                    // SAFETY: one of the two is wrong, and found.
                    unsafe { T::free_at(shared.load(Ordering::Relaxed), place(311)) };
                    meet(round * 4 + 4);
                }
            });
        }
    });
    assert_eq!(fault::count() - faults, rounds as u64);
}

#[test]
fn the_ring_remembers_the_last_frees() {
    let _turn = alone();
    let block = T::alloc_at(1234, place(320));
    // SAFETY: the blocks are live.
    unsafe {
        T::free_at(block, place(321));
        let freed = threads::recall(block.addr()).unwrap();
        assert_eq!((freed.size, freed.allocated_at, freed.freed_at), (1234, place(320).0, place(321).0));
        let elsewhere = block.addr();
        thread::spawn(move || assert!(threads::recall(elsewhere).is_some())).join().unwrap();
        let others: Vec<_> = (0..threads::RING).map(|_| T::alloc_at(5000, place(322))).collect();
        others.into_iter().for_each(|other| T::free_at(other, place(322)));
        assert!(threads::recall(block.addr()).is_none_or(|freed| freed.size != 1234));
    }
}

#[test]
fn a_damaged_header_is_seen_and_the_block_left_alone() {
    let _turn = alone();
    let block = T::alloc_at(24, place(330));
    let (before, faults) = (stats(), fault::count());
    // SAFETY: the header lies before the payload, in the same block of the backend.
    unsafe {
        let byte = block.sub(5);
        *byte ^= 0x40;
        T::free_at(block, place(331));
        assert!(T::realloc_at(block, 100, place(331)).is_null());
        assert_eq!(T::usable_size(block), 0);
        assert_eq!(fault::count() - faults, 3);
        assert_eq!(stats().free_count, before.free_count);
        *byte ^= 0x40;
        assert!(header::read(block).is_some());
        T::free_at(block, place(331));
        assert_eq!((fault::count() - faults, stats().free_count), (3, before.free_count + 1));
    }
}

/// Runs in a process of its own, started by the test below.
#[test]
fn reports_as_a_child() {
    if std::env::var_os("ALLOKIT_TEST_CHILD").is_none() {
        return;
    }
    let _turn = alone();
    fault::set_policy(Policy::Report);
    let mut local = [0u8; 32];
    let block = T::alloc_at(24, site("make"));
    std::eprintln!("block {block:?} local {:?}", local.as_mut_ptr());
    // SAFETY: wrong pointers are what is tested.
    unsafe {
        T::free_at(block.add(8), site("drop"));
        T::realloc_at(block.add(16), 5, site("drop"));
        T::free_at(block.add(24), site("drop"));
        T::free_sized_at(block, 32, site("drop"));
        T::free_at(block, site("main"));
        T::realloc_at(block, 5, site("main"));
        T::usable_size_at(block, site("main"));
        T::free_at(local.as_mut_ptr(), site("drop"));
        let block = T::alloc_at(24, site("make"));
        *block.sub(1) ^= 1;
        fault::set_policy(Policy::Abort);
        T::free_at(block, site("drop"));
    }
}

fn site(function: &str) -> SiteId {
    let function = CString::new(function).unwrap();
    let mut record = Site {
        file: c"leak.c".as_ptr(),
        function: AtomicPtr::new(function.as_ptr().cast_mut()),
        line: 10,
        id: AtomicU32::new(0),
    };
    // SAFETY: the record is valid; its texts are copied.
    unsafe { sites::of_record(&raw mut record) }
}

#[test]
#[cfg(not(miri))]
fn reports_read_as_promised() {
    use std::os::unix::process::ExitStatusExt;
    let output = child("reports_as_a_child").output().unwrap();
    let text = std::string::String::from_utf8(output.stderr).unwrap();
    let (first, reports) = text.split_once('\n').unwrap();
    let words: Vec<_> = first.split(' ').collect();
    let (block, local) = (words[1], words[3]);
    let [inside, end, past] =
        [8, 16, 24].map(|distance| format!("{:#x}", usize::from_str_radix(&block[2..], 16).unwrap() + distance));
    let (reports, rest) = reports.split_once("allokit: block at ").unwrap();
    let expected = format!(
        "\
allokit: free of {inside}, which is 8 bytes into a block of 24 bytes at {block}
  allocated at leak.c:10 (make)
  freed at     leak.c:10 (drop)
allokit: realloc of {end}, which is 16 bytes into a block of 24 bytes at {block}
  allocated at leak.c:10 (make)
  resized at   leak.c:10 (drop)
allokit: free of {past}, which is no live block of this allocator
  freed at     leak.c:10 (drop)
allokit: free of {block} with size 32, but the block has 24 bytes
  allocated at leak.c:10 (make)
  freed at     leak.c:10 (drop)
allokit: double free of {block}, a block of 24 bytes
  allocated at leak.c:10 (make)
  freed at     leak.c:10 (drop)
  freed again  leak.c:10 (main)
allokit: realloc of {block}, a block of 24 bytes that is already freed
  allocated at leak.c:10 (make)
  freed at     leak.c:10 (drop)
  resized at   leak.c:10 (main)
allokit: usable size of {block}, a block of 24 bytes that is already freed
  allocated at leak.c:10 (make)
  freed at     leak.c:10 (drop)
  asked at     leak.c:10 (main)
allokit: free of {local}, which is no live block of this allocator
  freed at     leak.c:10 (drop)
"
    );
    assert_eq!(reports, expected);
    let (_, rest) = rest.split_once(' ').unwrap();
    let expected = "\
is damaged: its header was overwritten
  freed at     leak.c:10 (drop)
allokit: aborting (ALLOKIT_POLICY=report goes on)
";
    assert_eq!(rest, expected);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT));
}
