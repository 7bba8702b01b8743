//! A system that refuses: the calls that the allocator makes for memory are functions of this program, which fail when
//! they are told to. Whatever is refused, a call gives NULL with ENOMEM or does what it should; nothing is lost, and
//! later calls work.
#![cfg(all(target_os = "linux", not(miri)))]

use allokit_core::{Backend, Stats};
use allokit_native::{Native, check};
use libc::{c_int, c_void, off_t, size_t};
use std::cell::Cell;
use std::sync::Mutex;

const MMAP: u32 = 1;
const MPROTECT: u32 = 2;
const MADVISE: u32 = 4;
const MUNMAP: u32 = 8;
const MREMAP: u32 = 16;
const ALL: u32 = 31;

thread_local! {
    /// The calls of this thread that fail.
    static REFUSED: Cell<u32> = const { Cell::new(0) };
    /// How many of them succeed first; and then one fails, or all (see ONCE).
    static SPARED: Cell<u64> = const { Cell::new(0) };
    static ONCE: Cell<bool> = const { Cell::new(false) };
    static HITS: Cell<u64> = const { Cell::new(0) };
    /// A refused mremap has taken its target away, as Linux 5.7 to 6.16 do when a block lies in two mappings.
    static TAKES_TARGET: Cell<bool> = const { Cell::new(false) };
}

fn refuses(call: u32) -> bool {
    if REFUSED.get() & call == 0 {
        return false;
    }
    if SPARED.get() > 0 {
        SPARED.set(SPARED.get() - 1);
        return false;
    }
    if ONCE.get() {
        REFUSED.set(0);
    }
    HITS.set(HITS.get() + 1);
    // SAFETY: errno is this thread's.
    unsafe { *libc::__errno_location() = libc::ENOMEM };
    true
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmap(
    addr: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    at: off_t,
) -> *mut c_void {
    if refuses(MMAP) {
        return libc::MAP_FAILED;
    }
    // SAFETY: the caller's call.
    unsafe { libc::syscall(libc::SYS_mmap, addr, len, prot, flags, fd, at) as *mut c_void }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mprotect(addr: *mut c_void, len: size_t, prot: c_int) -> c_int {
    // SAFETY: the caller's call.
    if refuses(MPROTECT) { -1 } else { unsafe { libc::syscall(libc::SYS_mprotect, addr, len, prot) as c_int } }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn madvise(addr: *mut c_void, len: size_t, advice: c_int) -> c_int {
    // SAFETY: the caller's call.
    if refuses(MADVISE) { -1 } else { unsafe { libc::syscall(libc::SYS_madvise, addr, len, advice) as c_int } }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn munmap(addr: *mut c_void, len: size_t) -> c_int {
    // SAFETY: the caller's call.
    if refuses(MUNMAP) { -1 } else { unsafe { libc::syscall(libc::SYS_munmap, addr, len) as c_int } }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mremap(
    old: *mut c_void,
    len: size_t,
    new_len: size_t,
    flags: c_int,
    new: *mut c_void,
) -> *mut c_void {
    // SAFETY: the caller's call; MREMAP_FIXED allows the target to go.
    unsafe {
        if refuses(MREMAP) {
            if TAKES_TARGET.get() {
                libc::syscall(libc::SYS_munmap, new, new_len);
                *libc::__errno_location() = libc::EFAULT;
            }
            return libc::MAP_FAILED;
        }
        libc::syscall(libc::SYS_mremap, old, len, new_len, flags, new) as *mut c_void
    }
}

/// Runs `call` while the calls in `which` fail after the first `spared`; how many did.
fn refusing(which: u32, spared: u64, once: bool, call: impl FnOnce()) -> u64 {
    HITS.set(0);
    SPARED.set(spared);
    ONCE.set(once);
    REFUSED.set(which);
    call();
    REFUSED.set(0);
    HITS.get()
}

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn errno() -> c_int {
    // SAFETY: errno is this thread's.
    unsafe { *libc::__errno_location() }
}

fn reserved() -> u64 {
    let mut stats = Stats::default();
    Native::stats(&mut stats);
    stats.reserved_bytes
}

/// A live block, marked at both ends and every 4 KiB.
struct Held {
    ptr: *mut u8,
    size: usize,
    seed: u8,
}

impl Held {
    /// None when there is no memory, and then with ENOMEM.
    fn new(size: usize, zeroed: bool, seed: u8) -> Option<Held> {
        let ptr = if zeroed { Native::alloc_zeroed(size) } else { Native::alloc(size) };
        if ptr.is_null() {
            assert_eq!(errno(), libc::ENOMEM);
            return None;
        }
        let held = Held { ptr, size, seed };
        if zeroed {
            // SAFETY: the block is ours.
            held.places(size).for_each(|at| assert_eq!(unsafe { *ptr.add(at) }, 0, "byte {at} of {size}"));
        }
        held.fill();
        Some(held)
    }

    fn places(&self, size: usize) -> impl Iterator<Item = usize> + use<> {
        let own = self.size;
        (0..own).step_by(4096).chain([own - 1]).filter(move |at| *at < size)
    }

    fn fill(&self) {
        // SAFETY: the block is ours.
        self.places(self.size).for_each(|at| unsafe { *self.ptr.add(at) = self.seed ^ (at >> 12) as u8 });
    }

    fn verify(&self, size: usize) {
        for at in self.places(size) {
            // SAFETY: the block is ours.
            assert_eq!(unsafe { *self.ptr.add(at) }, self.seed ^ (at >> 12) as u8, "byte {at} of {}", self.size);
        }
    }

    fn resize(&mut self, size: usize) {
        // SAFETY: the block is ours.
        let ptr = unsafe { Native::realloc(self.ptr, size) };
        if ptr.is_null() {
            assert_eq!(errno(), libc::ENOMEM);
            return self.verify(self.size);
        }
        self.ptr = ptr;
        self.verify(size);
        self.size = size;
        self.fill();
    }

    fn free(self) {
        self.verify(self.size);
        // SAFETY: the block is ours and given up.
        unsafe { Native::free(self.ptr) };
    }
}

/// A bit of everything that asks the system for something.
fn work() {
    let mut held: Vec<Held> = Vec::new();
    for round in 0..40usize {
        let sizes = [300_000, 64, 3 << 20, 20_000, 9 << 20];
        if let Some(block) = Held::new(sizes[round % 5] + round, round % 3 == 0, round as u8) {
            held.push(block);
        }
        if round % 4 == 3 && !held.is_empty() {
            let at = round * 7 % held.len();
            let size = held[at].size;
            held[at].resize(size * 2 + 1);
        }
        if round % 6 == 5 && !held.is_empty() {
            held.swap_remove(round * 5 % held.len()).free();
        }
        if round % 10 == 9 {
            Native::trim();
        }
    }
    held.into_iter().for_each(Held::free);
    Native::trim();
}

/// As many blocks as there are, up to 64 GiB in all.
fn until_null(size: usize) -> Vec<Held> {
    let mut held = Vec::new();
    while let Some(block) = Held::new(size, false, held.len() as u8) {
        held.push(block);
        assert!(held.len() < 4000, "nothing was refused");
    }
    held
}

#[test]
fn memory_that_cannot_be_committed() {
    let _alone = alone();
    let mut held = Vec::new();
    refusing(MPROTECT, 0, false, || held = until_null(1 << 20));
    let before = reserved();
    refusing(MPROTECT, 0, false, || {
        for _ in 0..100 {
            assert!(Held::new(1 << 20, false, 0).is_none());
        }
    });
    assert!(reserved() <= before + (8 << 30), "{} GiB of address space for nothing", (reserved() - before) >> 30);
    assert_eq!(check(), 0);
    work();
    held.into_iter().for_each(Held::free);
    assert_eq!(check(), 0);
}

#[test]
fn a_thread_that_cannot_begin() {
    let _alone = alone();
    std::thread::spawn(|| {
        let mut held = None;
        refusing(ALL & !MADVISE, 0, false, || held = Held::new(100, false, 1));
        assert!(Held::new(100, false, 2).is_some_and(|block| {
            block.free();
            true
        }));
        if let Some(block) = held {
            block.free();
        }
        work();
    })
    .join()
    .unwrap();
    assert_eq!(check(), 0);
}

#[test]
fn memory_that_cannot_be_given_back() {
    let _alone = alone();
    assert!(refusing(MADVISE, 0, false, work) > 0);
    assert_eq!(check(), 0);
    work();
}

#[test]
fn blocks_that_cannot_be_moved() {
    let _alone = alone();
    for takes_target in [false, true] {
        TAKES_TARGET.set(takes_target);
        let mut hits = 0;
        for _ in 0..3 {
            let mut block = Held::new(3 << 20, false, 5).unwrap();
            let wall = Held::new(70_000, false, 6).unwrap();
            hits += refusing(MREMAP, 0, false, || {
                block.resize(6 << 20);
                block.resize(30 << 20);
                block.resize(70 << 20);
            });
            block.free();
            wall.free();
        }
        assert!(hits > 0, "no block was moved");
        let mut block = Held::new(3 << 20, false, 7).unwrap();
        let wall = Held::new(70_000, false, 8).unwrap();
        refusing(MREMAP | MMAP, 0, false, || block.resize(6 << 20));
        block.resize(6 << 20);
        block.free();
        wall.free();
        TAKES_TARGET.set(false);
        assert_eq!(check(), 0);
        work();
    }
}

#[test]
fn any_one_call_refused() {
    let _alone = alone();
    for spared in 0..400 {
        let hits = refusing(ALL, spared, true, work);
        assert_eq!(check(), 0, "after call {spared} was refused");
        if hits == 0 {
            assert!(spared > 10, "hardly any call was made");
            break;
        }
    }
    work();
}

#[test]
fn every_call_refused_from_some_on() {
    let _alone = alone();
    for which in [ALL, MMAP, MPROTECT | MADVISE, MUNMAP | MREMAP] {
        for spared in [0, 1, 2, 3, 5, 8, 13, 21, 34] {
            refusing(which, spared, false, work);
            assert_eq!(check(), 0, "calls {which} refused from {spared} on");
        }
    }
    work();
}

/// The limit on mappings itself, in a child: alternating rights make every page a mapping.
#[test]
fn no_mapping_left() {
    let _alone = alone();
    work();
    // SAFETY: the child calls the allocator, which serves a forked child, and ends without running anything else.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            let page = 4096;
            let pages = 80_000;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let start = libc::mmap(std::ptr::null_mut(), page * pages, libc::PROT_NONE, flags, -1, 0).cast::<u8>();
            let mut made = 0;
            while made < pages && mprotect(start.add(made * page).cast(), page, libc::PROT_READ) == 0 {
                made += 2;
            }
            for _ in 0..3 {
                work();
            }
            let held = until_null(40 << 20);
            held.into_iter().for_each(Held::free);
            let faults = check();
            libc::munmap(start.cast(), page * pages);
            work();
            libc::_exit(if made >= pages { 3 } else { i32::from(faults + check() != 0) });
        }
        let mut status: c_int = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 3 {
            return eprintln!("the limit on mappings is too high here to be reached");
        }
        assert_eq!(status, 0, "the child ended with {status:#x}");
    }
}
