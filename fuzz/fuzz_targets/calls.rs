//! Calls of the C functions in any order, with any sizes, against a model of what is live and what it holds.
#![no_main]

use allokit_c_exports::*;
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};

/// What may be live at a time, so that no input needs more memory than a machine has.
const LIVE_BYTES: usize = 256 << 20;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Size {
    Tiny(u8),
    Small(u16),
    /// Around a power of two.
    Edge(u8, i8),
    Large(u32),
    /// Anything: mostly more than there is.
    Any(usize),
}

impl Size {
    fn get(self) -> usize {
        match self {
            Size::Tiny(size) => size as usize,
            Size::Small(size) => size as usize,
            Size::Edge(log, off) => (1usize << (log % 25)).saturating_add_signed(off as isize),
            Size::Large(size) => size as usize % (24 << 20),
            Size::Any(size) => size,
        }
    }
}

#[derive(Arbitrary, Debug)]
enum Call {
    Alloc(Size),
    Calloc(Size, u8),
    CallocAny(usize, usize),
    Aligned(Size, u8),
    CallocAligned(Size, u8),
    Realloc(u8, Size),
    ReallocNull(Size),
    Reallocarray(u8, Size, u8),
    ReallocarrayAny(u8, usize, usize),
    ReallocarrayAligned(u8, Size, u8),
    Strdup(u8),
    Strndup(u8, Size),
    Memdup(u8, Size),
    UsableSize(u8),
    Free(u8),
    FreeSized(u8),
    FreeNull,
    /// By a thread that ends at once.
    FreeElsewhere(u8),
    AllocElsewhere(Size),
    Trim,
    Check,
    /// Sampled guarding, of more or fewer blocks.
    Sample(u8),
}

struct Block {
    ptr: *mut u8,
    size: usize,
    align: usize,
    seed: u8,
}

struct Elsewhere(*mut c_void);
// SAFETY: a block may be used by whichever thread holds it.
unsafe impl Send for Elsewhere {}

fn places(own: usize, size: usize) -> impl Iterator<Item = usize> {
    let (head, tail) = (own.min(300), own.saturating_sub(300).max(own.min(300)));
    (0..head).chain((head..tail).step_by(4096)).chain(tail..own).filter(move |at| *at < size)
}

impl Block {
    fn byte(&self, at: usize) -> u8 {
        self.seed.wrapping_add(at as u8).wrapping_mul(31) | 1
    }

    fn fill(&self) {
        // SAFETY: the block is ours.
        places(self.size, self.size).for_each(|at| unsafe { *self.ptr.add(at) = self.byte(at) });
    }

    fn verify(&self, size: usize) {
        for at in places(self.size, size) {
            // SAFETY: the block is ours.
            assert_eq!(unsafe { *self.ptr.add(at) }, self.byte(at), "byte {at} of {}", self.size);
        }
    }
}

#[derive(Default)]
struct Model {
    blocks: Vec<Block>,
    /// From each live block's start to the end of what it may use.
    stretches: BTreeMap<usize, usize>,
    bytes: usize,
    seed: u8,
}

fn errno() -> i32 {
    // SAFETY: errno is this thread's.
    unsafe { *libc::__errno_location() }
}

fn set_errno(value: i32) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = value };
}

impl Model {
    /// A new block, or NULL with ENOMEM, which is wrong for a size that there must be memory for.
    fn add(&mut self, ptr: *mut c_void, size: usize, align: usize) -> Option<&Block> {
        if ptr.is_null() {
            assert_eq!(errno(), libc::ENOMEM);
            assert!(size > 64 << 20, "no memory for {size}");
            return None;
        }
        assert_eq!(ptr.addr() % align.max(16), 0);
        // SAFETY: a live block.
        let usable = unsafe { ak_usable_size(ptr) };
        assert!(usable >= size);
        let end = ptr.addr() + usable.max(1);
        let before = self.stretches.range(..end).next_back();
        assert!(before.is_none_or(|(_, &before)| before <= ptr.addr()), "two live blocks overlap");
        self.stretches.insert(ptr.addr(), end);
        self.seed = self.seed.wrapping_add(1);
        self.bytes += size;
        self.blocks.push(Block { ptr: ptr.cast(), size, align, seed: self.seed });
        self.blocks.last()
    }

    fn added(&mut self, ptr: *mut c_void, size: usize, align: usize, zeroed: bool) {
        if let Some(block) = self.add(ptr, size, align) {
            if zeroed {
                // SAFETY: the block is ours.
                places(size, size).for_each(|at| assert_eq!(unsafe { *block.ptr.add(at) }, 0, "byte {at} of {size}"));
            }
            block.fill();
        }
    }

    fn take(&mut self, which: u8) -> Option<Block> {
        let count = self.blocks.len();
        let block = (count > 0).then(|| self.blocks.swap_remove(which as usize % count))?;
        self.stretches.remove(&block.ptr.addr());
        self.bytes -= block.size;
        block.verify(block.size);
        Some(block)
    }

    /// What comes of a resize of a block that was taken out; size 0 has freed it.
    fn resized(&mut self, old: Block, ptr: *mut c_void, size: Option<usize>, align: usize) {
        match size {
            Some(0) => assert!(ptr.is_null()),
            Some(size) if !ptr.is_null() => {
                Block { ptr: ptr.cast(), ..old }.verify(size);
                self.added(ptr, size, align, false);
            }
            _ => {
                // Failed: the block is as it was.
                assert!(ptr.is_null());
                assert_eq!(errno(), libc::ENOMEM);
                assert!(size.is_none_or(|size| size > 64 << 20), "no memory for {size:?}");
                old.verify(old.size);
                self.added(old.ptr.cast(), old.size, old.align, false);
            }
        }
    }

    /// # Safety
    /// None beyond that of the calls, which get live blocks only.
    unsafe fn run(&mut self, call: Call) {
        // A size that fits, or one that no machine has.
        let room = LIVE_BYTES.saturating_sub(self.bytes);
        let fit = |size: Size| {
            let size = size.get();
            if size <= room || size > 1 << 47 { size } else { size % (room + 1) }
        };
        let align = |log: u8| 1usize << (log % 22);
        // SAFETY: the blocks are live, strings end, alignments are powers of two.
        unsafe {
            match call {
                Call::Alloc(size) => {
                    let size = fit(size);
                    self.added(ak_alloc(size), size, 1, false);
                }
                Call::Calloc(size, count) => {
                    let (size, count) = (fit(size), count as usize);
                    let all = size.checked_mul(count);
                    if all.is_none_or(|all| all <= room || all > 1 << 47) {
                        self.added(ak_calloc(count, size), all.unwrap_or(usize::MAX), 1, true);
                    }
                }
                Call::CallocAny(count, size) => {
                    let all = size.checked_mul(count);
                    if all.is_none_or(|all| all <= room || all > 1 << 47) {
                        self.added(ak_calloc(count, size), all.unwrap_or(usize::MAX), 1, true);
                    }
                }
                Call::Aligned(size, log) => {
                    let size = fit(size);
                    self.added(ak_alloc_aligned(size, align(log)), size, align(log), false);
                }
                Call::CallocAligned(size, log) => {
                    let size = fit(size);
                    self.added(ak_calloc_aligned(1, size, align(log)), size, align(log), true);
                }
                Call::Realloc(which, size) => {
                    let size = fit(size);
                    if let Some(old) = self.take(which) {
                        let ptr = ak_realloc(old.ptr.cast(), size);
                        self.resized(old, ptr, Some(size), 1);
                    }
                }
                Call::ReallocNull(size) => {
                    let size = fit(size);
                    self.added(ak_realloc(std::ptr::null_mut(), size), size, 1, false);
                }
                Call::Reallocarray(which, size, count) => {
                    let (size, count) = (fit(size), count as usize);
                    self.reallocarray(which, count, size, room);
                }
                Call::ReallocarrayAny(which, count, size) => self.reallocarray(which, count, size, room),
                Call::ReallocarrayAligned(which, size, log) => {
                    let size = fit(size);
                    if let Some(old) = self.take(which) {
                        let ptr = ak_reallocarray_aligned(old.ptr.cast(), 1, size, align(log));
                        self.resized(old, ptr, Some(size), align(log));
                    }
                }
                Call::Strdup(length) => {
                    let text = vec![b'x'; length as usize].into_iter().chain([0]).collect::<Vec<u8>>();
                    let copy = ak_strdup(text.as_ptr().cast::<c_char>());
                    assert_eq!(CStr::from_ptr(copy).count_bytes(), length as usize);
                    self.added(copy.cast(), length as usize + 1, 1, false);
                }
                Call::Strndup(length, most) => {
                    let text = vec![b'y'; length as usize].into_iter().chain([0]).collect::<Vec<u8>>();
                    let copy = ak_strndup(text.as_ptr().cast::<c_char>(), most.get());
                    let length = most.get().min(length as usize);
                    assert_eq!(CStr::from_ptr(copy).count_bytes(), length);
                    self.added(copy.cast(), length + 1, 1, false);
                }
                Call::Memdup(which, size) => {
                    let count = self.blocks.len();
                    if count > 0 {
                        let from = &self.blocks[which as usize % count];
                        let size = size.get().min(from.size).min(room);
                        let copy = ak_memdup(from.ptr.cast(), size);
                        assert!(!copy.is_null());
                        Block { ptr: copy.cast(), size: from.size, align: 1, seed: from.seed }.verify(size);
                        self.added(copy, size, 1, false);
                    }
                }
                Call::UsableSize(which) => {
                    assert_eq!(ak_usable_size(std::ptr::null()), 0);
                    let count = self.blocks.len();
                    if count > 0 {
                        let block = &self.blocks[which as usize % count];
                        assert!(ak_usable_size(block.ptr.cast()) >= block.size);
                    }
                }
                Call::Free(which) => {
                    if let Some(block) = self.take(which) {
                        set_errno(7);
                        ak_free(block.ptr.cast());
                        assert_eq!(errno(), 7);
                    }
                }
                Call::FreeSized(which) => {
                    if let Some(block) = self.take(which) {
                        ak_free_sized(block.ptr.cast(), block.size);
                    }
                }
                Call::FreeNull => ak_free(std::ptr::null_mut()),
                Call::FreeElsewhere(which) => {
                    if let Some(block) = self.take(which) {
                        let block = Elsewhere(block.ptr.cast());
                        let free = move || {
                            let whole = block;
                            ak_free(whole.0);
                        };
                        std::thread::spawn(free).join().unwrap();
                    }
                }
                Call::AllocElsewhere(size) => {
                    let size = fit(size).min(1 << 20);
                    let block = std::thread::spawn(move || Elsewhere(ak_alloc(size))).join().unwrap();
                    self.added(block.0, size, 1, false);
                }
                Call::Trim => allokit_native::Native::trim(),
                Call::Sample(every) => assert!(ak_guard_sample_set([0, 1, 2, 200][every as usize % 4])),
                Call::Check => assert_eq!(allokit_native::check(), 0),
            }
        }
    }

    unsafe fn reallocarray(&mut self, which: u8, count: usize, size: usize, room: usize) {
        let all = size.checked_mul(count);
        if all.is_none_or(|all| all <= room || all > 1 << 47)
            && let Some(old) = self.take(which)
        {
            // SAFETY: a live block.
            let ptr = unsafe { ak_reallocarray(old.ptr.cast(), count, size) };
            self.resized(old, ptr, all, 1);
        }
    }
}

fuzz_target!(|calls: Vec<Call>| {
    let mut model = Model::default();
    for call in calls {
        // SAFETY: see there.
        unsafe { model.run(call) };
    }
    while let Some(block) = model.take(0) {
        // SAFETY: a live block.
        unsafe { ak_free(block.ptr.cast()) };
    }
    assert_eq!(allokit_native::check(), 0);
});
