//! What is run in every order. Each case ends with the count of units that are still taken: a lost block keeps its page,
//! a block that comes home twice ends the model.

use crate::around::{begin_anew, runs, upkeep};
use crate::{Native, heap, thread};
use std::time::Duration;

/// Two of these travel together.
const SIZE: usize = 4096;
const LARGE: usize = 60_000;

#[derive(Clone, Copy)]
struct Block(*mut u8);
// SAFETY: a block may be used by whichever thread holds it.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

fn alloc(size: usize) -> Block {
    let block = Native::alloc(size);
    assert!(!block.is_null());
    runs::touch(block);
    Block(block)
}

fn free(block: Block) {
    runs::touch(block.0);
    // SAFETY: the block is live and given up.
    unsafe { Native::free(block.0) };
}

/// A thread of the program, with its end.
fn spawn<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> loom::thread::JoinHandle<T> {
    loom::thread::Builder::new()
        .stack_size(1 << 20)
        .spawn(move || {
            let result = run();
            thread::end();
            result
        })
        .unwrap()
}

fn model(preemptions: usize, seconds: u64, case: impl Fn() + Sync + Send + 'static) {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 100_000;
    builder.max_duration = Some(Duration::from_secs(seconds));
    let rounds = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (counted, begun) = (rounds.clone(), std::time::Instant::now());
    builder.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        begin_anew();
        case();
        // Every thread has ended but this one.
        thread::end();
        // Twice: what comes out of a bin may be another heap's.
        for _ in 0..2 {
            heap::for_each(heap::drain_other);
            heap::for_each(|heap| {
                heap::thin_out(heap, 0, usize::MAX);
            });
        }
        upkeep::release_cached();
        assert_eq!(runs::taken(), 0, "units are still taken: a block was lost");
    });
    let rounds = rounds.load(std::sync::atomic::Ordering::Relaxed);
    println!("{rounds} orders in {:.1} s", begun.elapsed().as_secs_f64());
}

/// Two threads free into the inbox of one that sorts it in, while a fourth sorts it in from outside.
#[test]
fn frees_from_others_come_home_once() {
    model(2, 12, || {
        let blocks: Vec<Block> = (0..4).map(|_| alloc(SIZE)).collect();
        let (one, two) = ([blocks[0], blocks[1]], [blocks[2], blocks[3]]);
        let first = spawn(move || one.into_iter().for_each(free));
        let second = spawn(move || {
            two.into_iter().for_each(free);
            heap::for_each(heap::drain_other);
        });
        let again: Vec<Block> = (0..3).map(|_| alloc(SIZE)).collect();
        first.join().unwrap();
        second.join().unwrap();
        again.into_iter().for_each(free);
    });
}

/// A page becomes cold, hot again and cold, while others free its blocks and sort them in.
#[test]
fn a_cold_page_hears_of_what_others_bring_home() {
    model(3, 12, || {
        let mut blocks: Vec<Block> = (0..13).map(|_| alloc(SIZE)).collect();
        let theirs = [blocks.pop().unwrap(), blocks.pop().unwrap()];
        let other = spawn(move || {
            theirs.into_iter().for_each(free);
            heap::for_each(heap::drain_other);
        });
        // Six fill the bin; the others' page becomes cold.
        blocks.drain(..8).for_each(free);
        let again: Vec<Block> = (0..8).map(|_| alloc(SIZE)).collect();
        blocks.into_iter().for_each(free);
        again.into_iter().for_each(free);
        other.join().unwrap();
    });
}

/// The blocks of a thread that has ended come home while one thread takes its pages and another its heap.
#[test]
fn pages_change_hands_while_their_blocks_travel() {
    model(4, 12, || {
        let blocks = spawn(|| [alloc(SIZE), alloc(SIZE)]).join().unwrap();
        let sender = spawn(move || blocks.into_iter().for_each(free));
        let heir = spawn(|| free(alloc(SIZE)));
        // From a page of the heap that waits, unless the heir has it already.
        let own = [alloc(SIZE), alloc(SIZE)];
        sender.join().unwrap();
        heir.join().unwrap();
        own.into_iter().for_each(free);
    });
}

/// A thread uses its cache of large runs while another one empties it.
#[test]
fn a_cached_run_goes_to_one_side() {
    model(3, 12, || {
        free(alloc(SIZE)); // makes the heap
        free(alloc(LARGE));
        let other = spawn(|| {
            upkeep::release_cached();
            free(alloc(LARGE));
        });
        let block = alloc(LARGE);
        free(alloc(LARGE * 2));
        free(block);
        other.join().unwrap();
    });
}

/// A thread ends, and so empties its cache, while another one empties it too.
#[test]
fn a_cache_is_emptied_by_one_side() {
    model(4, 12, || {
        let ends = spawn(|| {
            free(alloc(SIZE)); // makes the heap
            free(alloc(LARGE));
        });
        upkeep::release_cached();
        upkeep::release_cached();
        ends.join().unwrap();
    });
}

/// Threads begin and end: a heap has one thread at a time, and none is lost.
#[test]
fn threads_begin_and_end() {
    model(3, 12, || {
        let first = spawn(|| free(alloc(SIZE)));
        let second = spawn(|| free(alloc(SIZE)));
        let block = alloc(SIZE);
        first.join().unwrap();
        second.join().unwrap();
        let third = spawn(move || free(block));
        free(alloc(SIZE));
        third.join().unwrap();
        let mut heaps = 0;
        heap::for_each(|_| heaps += 1);
        assert!(heaps <= 3, "{heaps} heaps for three threads at a time");
    });
}
