//! A long stress of the native backend through the C functions: threads that come and go and hand blocks to each other,
//! forks in the middle of it, children with little address space whose allocations fail and work again, and a look at
//! the heap's invariants and at the process's memory all along.
//!
//! `cargo xtask soak [--minutes 30]`. A line a minute, a summary, and exit status 1 when something was found.

#[path = "../../../crates/native/src/tests/random.rs"]
mod random;

use allokit_c_exports::*;
use random::Rng;
use std::collections::VecDeque;
use std::ffi::c_void;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const WORKERS: usize = 6;
/// Live blocks of one worker, at most.
const LIVE: usize = 3000;
const LIVE_BYTES: usize = 48 << 20;
/// Blocks on their way from thread to thread, at most.
const HANDED: usize = 4000;

static STOP: AtomicBool = AtomicBool::new(false);
static CALLS: AtomicU64 = AtomicU64::new(0);
static THREADS: AtomicU64 = AtomicU64::new(0);
static FORKS: AtomicU64 = AtomicU64::new(0);
static STARVED: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);
static SMALL: AtomicU64 = AtomicU64::new(0);
static CHECKS: AtomicU64 = AtomicU64::new(0);
static FOUND: AtomicU64 = AtomicU64::new(0);
static HANDOVER: Mutex<VecDeque<Block>> = Mutex::new(VecDeque::new());

/// Says what was found; the run goes on.
fn found(what: &str) {
    FOUND.fetch_add(1, Ordering::Relaxed);
    eprintln!("FOUND: {what}");
}

impl Rng {
    /// Mostly small, now and then large.
    fn size(&mut self) -> usize {
        let log = match self.below(1000) {
            0 => 24,
            1..=10 => 21,
            11..=60 => 17,
            61..=300 => 13,
            _ => 9,
        };
        self.below(1 << log)
    }
}

struct Block {
    ptr: *mut u8,
    size: usize,
    seed: u64,
}

// SAFETY: a block may be used by whichever thread holds it.
unsafe impl Send for Block {}

impl Block {
    /// None when there is no memory.
    fn new(rng: &mut Rng, size: usize) -> Option<Block> {
        let seed = rng.next() | 1;
        CALLS.fetch_add(1, Ordering::Relaxed);
        let (kind, align) = (rng.below(12), 1usize << rng.below(13));
        // SAFETY: the functions take any sizes, and powers of two as alignments.
        let ptr = unsafe {
            match kind {
                0 => ak_calloc(1, size),
                1 => ak_alloc_aligned(size, align),
                _ => ak_alloc(size),
            }
        }
        .cast::<u8>();
        if ptr.is_null() {
            REFUSED.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let block = Block { ptr, size, seed };
        if kind == 0 && block.places(size).any(|at| block.read(at) != 0) {
            found("calloc gave a block that is not zero");
        }
        if kind == 1 && ptr.addr() % align != 0 {
            found("an aligned block is not aligned");
        }
        block.fill();
        Some(block)
    }

    /// Where words are written: all of a small block, one in 512 bytes of a larger one, and the end.
    fn places(&self, size: usize) -> impl Iterator<Item = usize> + use<> {
        let words = self.size / 8;
        let step = if self.size <= 4096 { 1 } else { 64 };
        (0..words).step_by(step).chain(words.checked_sub(1)).map(|word| word * 8).filter(move |at| at + 8 <= size)
    }

    fn read(&self, at: usize) -> u64 {
        // SAFETY: the block is ours and the place lies in it.
        unsafe { self.ptr.add(at).cast::<u64>().read_unaligned() }
    }

    fn fill(&self) {
        for at in self.places(self.size) {
            // SAFETY: as in `read`.
            unsafe { self.ptr.add(at).cast::<u64>().write_unaligned(self.seed.wrapping_mul(at as u64 | 1)) };
        }
    }

    fn verify(&self, size: usize) {
        if self.places(size).any(|at| self.read(at) != self.seed.wrapping_mul(at as u64 | 1)) {
            found("the contents of a block have changed");
        }
    }

    fn resize(&mut self, size: usize) {
        CALLS.fetch_add(1, Ordering::Relaxed);
        let size = size.max(1);
        // SAFETY: the block is ours.
        let ptr = unsafe { ak_realloc(self.ptr.cast(), size) }.cast::<u8>();
        if ptr.is_null() {
            REFUSED.fetch_add(1, Ordering::Relaxed);
            return self.verify(self.size);
        }
        self.ptr = ptr;
        self.verify(size.min(self.size));
        self.size = size;
        self.fill();
    }

    fn free(self, rng: &mut Rng) {
        CALLS.fetch_add(1, Ordering::Relaxed);
        self.verify(self.size);
        // SAFETY: the block is ours and given up.
        unsafe {
            if rng.below(4) == 0 {
                ak_free_sized(self.ptr.cast::<c_void>(), self.size);
            } else {
                ak_free(self.ptr.cast());
            }
        }
    }
}

/// Allocates, resizes, frees and hands over, until `rounds` are done or all is to stop.
fn churn(seed: u64, rounds: usize, hand_over: bool) {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut live: Vec<Block> = Vec::new();
    let mut bytes = 0;
    for _ in 0..rounds {
        if STOP.load(Ordering::Relaxed) {
            break;
        }
        match rng.below(16) {
            0..=7 => {
                let size = rng.size();
                if let Some(block) = Block::new(&mut rng, size) {
                    bytes += block.size;
                    live.push(block);
                }
            }
            8 if !live.is_empty() => {
                let index = rng.below(live.len());
                let size = if rng.below(3) == 0 { live[index].size * 3 / 2 } else { rng.size() };
                bytes -= live[index].size;
                live[index].resize(size.min(40 << 20));
                bytes += live[index].size;
            }
            9 if hand_over && !live.is_empty() => {
                let block = live.swap_remove(rng.below(live.len()));
                bytes -= block.size;
                let mut handed = HANDOVER.lock().unwrap();
                handed.push_back(block);
                let taken = if handed.len() > HANDED / 2 { handed.pop_front() } else { None };
                drop(handed);
                taken.into_iter().for_each(|block| block.free(&mut rng));
            }
            10 if hand_over => {
                let taken: Vec<Block> = {
                    let mut handed = HANDOVER.lock().unwrap();
                    let count = handed.len().min(100);
                    handed.drain(..count).collect()
                };
                taken.into_iter().for_each(|block| block.free(&mut rng));
            }
            _ if !live.is_empty() => {
                let block = live.swap_remove(rng.below(live.len()));
                bytes -= block.size;
                block.free(&mut rng);
            }
            _ => {}
        }
        while live.len() > LIVE || bytes > LIVE_BYTES {
            let block = live.swap_remove(rng.below(live.len()));
            bytes -= block.size;
            block.free(&mut rng);
        }
    }
    live.into_iter().for_each(|block| block.free(&mut rng));
}

/// One that lives for long.
fn worker(seed: u64) {
    while !STOP.load(Ordering::Relaxed) {
        churn(seed, 200_000, true);
    }
}

/// Threads that come and go, many at a time.
fn storms() {
    let mut seed = 1000;
    while !STOP.load(Ordering::Relaxed) {
        std::thread::scope(|scope| {
            for _ in 0..24 {
                seed += 1;
                let seed = seed;
                THREADS.fetch_add(1, Ordering::Relaxed);
                scope.spawn(move || churn(seed, 500, true));
            }
        });
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn check() {
    CHECKS.fetch_add(1, Ordering::Relaxed);
    let faults = allokit_native::check();
    if faults != 0 {
        found(&format!("check() counts {faults} faults"));
    }
}

/// What a child does between fork and its end: it has one thread, and nothing of std's that another one may have held.
fn child(seed: u64, limited: bool) -> i32 {
    FOUND.store(0, Ordering::Relaxed);
    if limited {
        REFUSED.store(0, Ordering::Relaxed);
        // SAFETY: the struct is valid; statm tells what the process has now.
        unsafe {
            let limit = libc::rlimit { rlim_cur: address_space() + (24 << 20), rlim_max: libc::RLIM_INFINITY };
            libc::setrlimit(libc::RLIMIT_AS, &raw const limit);
        }
        let mut rng = Rng(seed | 1);
        for size in [64, 3000, 100_000, 3 << 20] {
            // At most as many as it takes; the reservation of the parent may have room for some.
            let mut held: Vec<Block> = Vec::new();
            while held.len() * size < 300 << 20 && held.len() < 400_000 {
                match Block::new(&mut rng, size) {
                    Some(block) => held.push(block),
                    None => break,
                }
            }
            held.into_iter().for_each(|block| block.free(&mut rng));
            match Block::new(&mut rng, size) {
                Some(block) => block.free(&mut rng),
                None => found("no memory although all of it is free"),
            }
        }
    }
    churn(seed, 4000, false);
    check();
    (FOUND.load(Ordering::Relaxed) != 0).into()
}

/// Forks in the middle of everything. The children end without running anything else.
fn forks() {
    let mut seed = 1 << 20;
    while !STOP.load(Ordering::Relaxed) {
        seed += 1;
        let limited = seed % 4 == 0;
        // SAFETY: the child runs `child` alone, which keeps to calls that serve a forked child.
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                libc::alarm(60);
                libc::_exit(child(seed, limited));
            }
            let mut status = 0;
            if pid < 0 || libc::waitpid(pid, &raw mut status, 0) != pid {
                continue;
            }
            if status != 0 {
                let kind = if limited { "a child with little address space" } else { "a child" };
                found(&format!("{kind} ended with {status:#x}"));
            }
        }
        FORKS.fetch_add(1, Ordering::Relaxed);
        STARVED.fetch_add(u64::from(limited), Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn statm(field: usize) -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split(' ').nth(field).and_then(|word| word.parse().ok()).unwrap_or(0);
    pages * 4096
}

fn address_space() -> u64 {
    statm(0)
}

fn memory() -> u64 {
    statm(1)
}

/// A process of its own under a limit that it has from its start, on address space or on memory that can be written: allocations fail, and work again later.
fn small_process() {
    let mut rng = Rng(77);
    for round in 0..20 {
        let mut held = Vec::with_capacity(700_000);
        let size = [400, 5000, 60_000, 1 << 20][round % 4];
        while let Some(block) = Block::new(&mut rng, size) {
            held.push(block);
        }
        let first = held.len();
        if first * size < 16 << 20 {
            found(&format!("only {first} blocks of {size} bytes fit"));
        }
        held.into_iter().for_each(|block| block.free(&mut rng));
        // No thread here: what the heap has taken of the address space stays taken, and a stack needs some.
        churn(round as u64, 2000, false);
        check();
    }
    if REFUSED.load(Ordering::Relaxed) == 0 {
        found("nothing was refused");
    }
}

/// Small processes, one after the other.
fn small_processes() {
    for resource in ["as", "data"].into_iter().cycle() {
        if STOP.load(Ordering::Relaxed) {
            break;
        }
        let mut command = Command::new(std::env::current_exe().expect("the program has a path"));
        let which = if resource == "as" { libc::RLIMIT_AS } else { libc::RLIMIT_DATA };
        // SAFETY: setrlimit may be called between fork and exec; the struct is valid.
        unsafe {
            command.pre_exec(move || {
                let limit = libc::rlimit { rlim_cur: 256 << 20, rlim_max: libc::RLIM_INFINITY };
                libc::setrlimit(which, &raw const limit);
                Ok(())
            });
        }
        match command.arg("--small").status() {
            Ok(status) if status.success() => SMALL.fetch_add(1, Ordering::Relaxed),
            other => {
                found(&format!("the process with little {resource} ended with {other:?}"));
                0
            }
        };
        std::thread::sleep(Duration::from_secs(5));
    }
}

fn number(name: &str, default: f64) -> f64 {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.nth(1).and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    if std::env::args().any(|arg| arg == "--small") {
        small_process();
        std::process::exit((FOUND.load(Ordering::Relaxed) != 0).into());
    }
    let minutes = number("--minutes", 30.0);
    let begun = Instant::now();
    let end = Duration::from_secs_f64(minutes * 60.0);
    let mut least: Option<u64> = None;
    std::thread::scope(|scope| {
        (0..WORKERS).for_each(|seed| {
            scope.spawn(move || worker(seed as u64 + 1));
        });
        scope.spawn(storms);
        scope.spawn(forks);
        scope.spawn(small_processes);
        let line = Duration::from_secs_f64((minutes * 60.0 / 4.0).min(60.0));
        let mut next = line;
        let mut window: u64 = 0;
        while begun.elapsed() < end {
            std::thread::sleep(Duration::from_millis(500));
            check();
            window = window.max(memory());
            if begun.elapsed() >= next {
                println!(
                    "{:>5.1} min  {:>6.1} M calls  {:>6} threads  {:>5} forks ({} starved)  {:>3} small  {:>5} refused  {:>5} checks  \
                     {:>4} MiB at most  {} found",
                    begun.elapsed().as_secs_f64() / 60.0,
                    CALLS.load(Ordering::Relaxed) as f64 / 1e6,
                    THREADS.load(Ordering::Relaxed),
                    FORKS.load(Ordering::Relaxed),
                    STARVED.load(Ordering::Relaxed),
                    SMALL.load(Ordering::Relaxed),
                    REFUSED.load(Ordering::Relaxed),
                    CHECKS.load(Ordering::Relaxed),
                    window >> 20,
                    FOUND.load(Ordering::Relaxed)
                );
                // The first window is warm-up; after it the most of a window stays within a quarter of the least.
                match least {
                    None => least = Some(u64::MAX),
                    Some(before) => {
                        if window > before.saturating_add(before / 4).saturating_add(32 << 20) {
                            found(&format!("memory grows: {} MiB after {} MiB", window >> 20, before >> 20));
                        }
                        least = Some(before.min(window));
                    }
                }
                window = 0;
                next += line;
            }
        }
        STOP.store(true, Ordering::Relaxed);
    });
    HANDOVER.lock().unwrap().drain(..).for_each(|block| block.free(&mut Rng(1)));
    check();
    let full = memory();
    allokit_native::Native::trim();
    check();
    println!(
        "{} calls, {} threads, {} forks, {} checks; {} MiB at the end, {} MiB after a trim; {} found",
        CALLS.load(Ordering::Relaxed),
        THREADS.load(Ordering::Relaxed),
        FORKS.load(Ordering::Relaxed),
        CHECKS.load(Ordering::Relaxed),
        full >> 20,
        memory() >> 20,
        FOUND.load(Ordering::Relaxed)
    );
    std::process::exit((FOUND.load(Ordering::Relaxed) != 0).into());
}
