//! Random sequences of calls by several threads against a model, made shorter by proptest when one of them fails. The
//! threads take turns, so a sequence does the same each time.

use crate::tests::{Held, alone};
use crate::{Native, SMALL_MAX, check};
use allokit_core::{Backend, Tagged};
use proptest::prelude::*;
use proptest::test_runner::Config;
use std::boxed::Box;
use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::vec::Vec;

const THREADS: usize = 3;

#[derive(Clone, Debug)]
enum Op {
    Alloc {
        size: usize,
        align: u32,
        zeroed: bool,
    },
    /// Many blocks of one size.
    Burst {
        size: usize,
        count: usize,
    },
    Realloc {
        which: usize,
        size: usize,
    },
    Free {
        which: usize,
    },
    /// Every `step`th block, from the oldest.
    FreeMany {
        step: usize,
    },
    Trim,
    Check,
    /// The thread ends, and another one takes its place.
    End,
}

fn size() -> impl Strategy<Value = usize> {
    let most = if cfg!(miri) { 200_000usize } else { 5usize << 20 };
    prop_oneof![
        8 => 0..=1100usize,
        4 => 0..=SMALL_MAX,
        2 => SMALL_MAX - 20..=SMALL_MAX + 20,
        2 => SMALL_MAX + 1..=200_000usize,
        1 => 65_530..=65_540usize,
        1 => 100_000..=most,
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (size(), any::<bool>()).prop_map(|(size, zeroed)| Op::Alloc { size, align: 0, zeroed }),
        2 => (size(), 0..=17u32, any::<bool>()).prop_map(|(size, align, zeroed)| Op::Alloc { size, align, zeroed }),
        2 => (0..=3000usize, 1..=if cfg!(miri) { 20 } else { 300usize })
            .prop_map(|(size, count)| Op::Burst { size, count }),
        4 => (any::<usize>(), size()).prop_map(|(which, size)| Op::Realloc { which, size }),
        8 => any::<usize>().prop_map(|which| Op::Free { which }),
        2 => (1..=4usize).prop_map(|step| Op::FreeMany { step }),
        1 => Just(Op::Trim),
        1 => Just(Op::Check),
        1 => Just(Op::End),
    ]
}

/// A thread that does what it is told, while the others wait.
struct Worker {
    jobs: Option<mpsc::Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn new() -> Worker {
        let (jobs, todo) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let thread = std::thread::spawn(move || todo.into_iter().for_each(|job| job()));
        Worker { jobs: Some(jobs), thread: Some(thread) }
    }

    /// What `job` gives on this thread; its panic is the caller's.
    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        let job = move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            let _ = sender.send(result);
        };
        self.jobs.as_ref().unwrap().send(Box::new(job)).unwrap();
        receiver.recv().unwrap().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        let _ = self.thread.take().unwrap().join();
    }
}

/// The live blocks, oldest first, and the stretches that they may use.
#[derive(Default)]
struct Model {
    blocks: Vec<Held>,
    stretches: BTreeMap<usize, usize>,
    seed: u8,
}

impl Model {
    fn add(&mut self, held: Held) {
        let start = held.addr();
        let end = start + held.usable();
        let before = self.stretches.range(..end).next_back();
        assert!(before.is_none_or(|(_, &before)| before <= start), "two live blocks overlap");
        self.stretches.insert(start, end);
        self.blocks.push(held);
    }

    fn remove(&mut self, which: usize) -> Option<Held> {
        let count = self.blocks.len();
        let held = (count > 0).then(|| self.blocks.remove(which % count))?;
        self.stretches.remove(&held.addr());
        Some(held)
    }

    /// A walk finds each block with a tag, once, and no other where these are.
    fn walk(&self) {
        let mut left: BTreeMap<usize, Tagged> =
            self.blocks.iter().filter_map(Held::tagged).map(|block| (block.start, block)).collect();
        let mut wrong = 0;
        Native::visit_tagged(&mut |block| {
            let ours = self.stretches.range(..=block.start).next_back().is_some_and(|(_, &end)| block.start < end);
            // Nothing is allocated or freed in here: the map stays as it is.
            match left.get_mut(&block.start) {
                Some(known) if *known == *block => known.start = 0,
                _ => wrong += usize::from(ours),
            }
        });
        assert_eq!(wrong, 0, "a walk found what is not there");
        left.retain(|_, block| block.start != 0);
        assert!(left.is_empty(), "a walk missed {left:?}");
    }

    fn step(&mut self, worker: &mut Worker, op: Op) {
        self.seed = self.seed.wrapping_add(1);
        let seed = self.seed;
        match op {
            Op::Alloc { size, align, zeroed } => {
                self.add(worker.run(move || Held::new(size, 1 << align, seed, zeroed)))
            }
            Op::Burst { size, count } => {
                let fresh = move || (0..count).map(|_| Held::new(size, 1, seed, false)).collect::<Vec<_>>();
                worker.run(fresh).into_iter().for_each(|held| self.add(held));
            }
            Op::Realloc { which, size } => {
                if let Some(mut held) = self.remove(which) {
                    let resized = worker.run(move || {
                        held.resize(size);
                        held
                    });
                    self.add(resized);
                }
            }
            Op::Free { which } => {
                if let Some(held) = self.remove(which) {
                    worker.run(move || held.free());
                }
            }
            Op::FreeMany { step } => {
                let chosen: Vec<Held> =
                    (0..self.blocks.len()).rev().step_by(step).filter_map(|which| self.remove(which)).collect();
                worker.run(move || chosen.into_iter().for_each(Held::free));
            }
            Op::Trim => worker.run(Native::trim),
            Op::Check => {
                assert_eq!(worker.run(check), 0);
                self.walk();
            }
            Op::End => *worker = Worker::new(),
        }
    }
}

proptest! {
    #![proptest_config(Config {
        cases: if cfg!(miri) { 2 } else { 300 },
        max_shrink_iters: 2000,
        failure_persistence: None,
        ..Config::default()
    })]

    #[test]
    fn calls_of_several_threads_agree_with_a_model(
        ops in prop::collection::vec((0..THREADS, op()), 1..if cfg!(miri) { 25 } else { 200 })
    ) {
        let _alone = alone();
        let mut workers: Vec<Worker> = (0..THREADS).map(|_| Worker::new()).collect();
        let mut model = Model::default();
        for (thread, op) in ops {
            model.step(&mut workers[thread], op);
        }
        model.walk();
        for block in std::mem::take(&mut model.blocks) {
            block.free();
        }
        drop(workers);
        prop_assert_eq!(check(), 0);
    }
}
