//! Thread heaps: the bins, what fills and empties them, frees from other threads, the end of a thread.
//!
//! A heap's bins and its outbox belong to its thread alone. Everything else is under `lock`, so that another thread can
//! sort in the frees of a heap whose thread sleeps, and so that a dead thread's heap is whole. Heaps live for good: a
//! thread that ends leaves its heap with all its pages to the next thread that begins, and until then others take pages
//! from it when they need a fresh one.
//!
//! A class has two lists: allocations pop from `heads`, frees push onto `bins`; when the first is empty it gets the second.
//! Were they one, the load of an allocation would wait for the store of the free before it whenever the two are of one
//! class, and the processor cannot foresee when they are. Both are short, so that blocks come back while they are in the
//! nearest cache: a full bin's list goes onto a stack of such lists, the class's *reserve*, in one piece, and comes back from
//! there in one piece (Bonwick and Adams, "Magazines and Vmem", 2001, without an array for the magazine). The bin of a
//! class counts as full when the reserve is.
//!
//! A page is *hot* or *cold*. The blocks of hot pages go into the bin of their class, the last one first. When that is
//! full and nobody takes from it, the page of the next block becomes cold: it gets a bin of its own, and its word names
//! that, so that further frees go there, by the same few instructions. An empty list is filled with all that such a page
//! has, in one step; the page is hot again then. So a few blocks that come and go stay in the bin of their class, and a
//! long row of frees goes to where the blocks belong, without a look at each. A cold page's bin counts down: at 0 all its
//! blocks are home, and the page is given back.
//!
//! A block freed by another thread goes into that thread's outbox, into the batch for its owner and class, and 32 of them
//! (or 8 KiB) together, by one exchange, into the owner's inbox. The owner looks at a bounded number of batches whenever
//! it refills a list or makes a page cold, and takes a batch as it is to refill a list of its class; if it does not come by,
//! whoever sends the next batch sorts them into the pages, or the upkeep by time.
//!
//! A class's lists may hold blocks of other heaps' pages: a page can change its owner while its blocks travel. They find
//! their way when they go home.

use crate::cache::Cache;
use crate::classes::{self, BINS, CLASS_COUNT};
use crate::page::{self, Kind, Page};
use crate::sync::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Lock, Ordering, compiler_fence};
use crate::table::{self, Word};
use crate::{Native, fork, runs, sampled, upkeep};
use allokit_core::Tag;
use allokit_core::counts::{self, Counts};
use allokit_platform::{barrier, budget, keep_errno, meta, thread, thread_cell};
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr;

/// A free block holds the next one; the first block of a batch holds the next batch too.
#[repr(C)]
pub(crate) struct Block {
    pub next: *mut Block,
    next_batch: *mut Block,
}

/// Blocks of one class, or of one cold page, that were freed.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Bin {
    pub head: *mut Block,
    /// How many more frees until the bin is looked at.
    pub room: i32,
    /// How many more it may take then: until a class's bin is full; until all blocks of a cold page are home, without the
    /// last one.
    pub aside: u32,
}

/// Closed: it is full without a block.
const EMPTY_BIN: Bin = Bin { head: ptr::null_mut(), room: 0, aside: 0 };

/// Blocks of one class of another heap that this thread has freed and not yet sent.
#[derive(Clone, Copy)]
struct Batch {
    /// The word of their pages.
    word: Word,
    head: *mut Block,
    /// How many more until it is sent.
    left: u32,
}

/// Full lists of a class's bin, the last one first.
#[derive(Clone, Copy)]
struct Reserve {
    head: *mut Block,
    /// How many more it may take; none while the class's bin is closed.
    room: u32,
}

const EMPTY_RESERVE: Reserve = Reserve { head: ptr::null_mut(), room: 0 };

const EMPTY_BATCH: Batch = Batch { word: Word::NONE, head: ptr::null_mut(), left: 0 };

/// More than classes: a thread that frees another one's blocks of all sizes keeps a batch of each.
const BATCHES: usize = 128;
/// How many pages of a class become cold, with no allocation in between, until its lists are emptied.
const COLD_UNTIL_EMPTIED: u8 = 4;
/// An empty list is filled from so many pages at most, until it has so many blocks.
const FILL_PAGES: usize = 8;
const FILL_LEAST: u32 = 16;
/// How many cold pages that nothing happens to are settled at a look.
const SETTLE_MOST: usize = 64;
/// How many batches of the inbox are looked at at a time.
const DRAIN: usize = 32;
/// When an inbox holds more than this, the sender sorts it in.
const INBOX_BYTES: usize = 1 << 20;
/// After how many frees of a class a thread looks around: the number doubles while looks follow one another within so
/// many ms.
const PATIENCE_LEAST: i32 = 16;
const PATIENCE_MOST: i32 = 1 << 16;
const QUICK_MS: u64 = 20;
/// The same for the frees of all classes, counted when their blocks are handed out again: a thread that was busy and does
/// little now must not take long to notice.
const BEAT_MOST: i32 = 128;
/// How many large blocks are freed between two looks at the clock.
const LARGE_TICKS: u32 = 64;
/// A page with fewer bytes of free blocks is not worth a system call.
const THIN_LEAST: usize = 8 << 10;
/// How many heaps without a thread are asked for a page before a fresh one is made.
const ADOPTION_LOOKS: usize = 4;

/// No thread: the heap waits for one.
const IDLE: u32 = 0;
const LIVE: u32 = 1;
/// Its thread ends, and frees nothing any more.
const ENDING: u32 = 2;

/// See the module's head. One lies at the start of [`table::HEAP_SPAN`] bytes, so that a bin's address tells its heap;
/// the bins of its cold pages begin at [`table::SLOTS_AT`].
#[repr(C, align(4096))]
pub(crate) struct Heap {
    // -- the thread's own
    pub bins: [Bin; BINS],
    /// [`table::OPEN`] once [`OPEN_HEAP`] is this heap; null before.
    pages: *const AtomicU64,
    /// Blocks of each class, ready to be handed out.
    pub heads: [*mut Block; BINS],
    /// From a size in steps of 16 bytes to the offset of its list: here, so that finding it costs no further address.
    pub tiny: [u16; classes::TINY_COUNT],
    reserves: [Reserve; BINS],
    outbox: [Batch; BATCHES],
    /// Whether a bin was found full.
    has_full: bool,
    /// How many pages of a class became cold since a block of it was last wanted.
    cooled: [u8; BINS],
    exit_rounds: u32,
    /// The epoch in which the bins were last looked at.
    epoch: u16,
    /// When the thread last looked around, in ms, and after how many frees at most it does again.
    looked_at: u64,
    patience: i32,
    /// How many more frees until it does, as far as they are counted apart from the bins.
    beat: i32,
    /// How many more large blocks until the upkeep is called.
    large_ticks: u32,
    /// About how many more small blocks until one is guarded (see sampled.rs).
    pub until_sample: i64,
    /// Whether the blocks carry tags (see tagged.rs); for good.
    pub tagged: bool,
    /// Whether the end of the thread will be noticed.
    ends: bool,
    /// What the thread counts of blocks with tags.
    pub counts: Counts,
    // -- its thread's mostly: see there
    pub cache: Cache,
    // -- anybody's
    inbox: AtomicPtr<Block>,
    inbox_bytes: AtomicUsize,
    /// Whether batches may wait for the bins.
    keeps_ready: AtomicBool,
    state: AtomicU32,
    /// Where the cell lies that the thread's plain calls look at, while it names this heap; written by the thread, read and
    /// taken away under `REGISTRY`.
    cell: AtomicPtr<*mut Heap>,
    /// All heaps, from [`HEAPS`]; set once.
    next: AtomicPtr<Heap>,
    pub lock: Lock,
    // -- under `lock`
    /// Batches taken from the inbox, not yet looked at.
    pending: *mut Block,
    /// Batches for the bins, by class.
    ready: [*mut Block; BINS],
    ready_count: [u16; BINS],
    /// The pages of each class that have free or uncarved blocks, and all cold ones.
    queues: [*mut Page; CLASS_COUNT + 1],
    /// Bins for cold pages: those given back, as a list, and how many were ever used.
    free_slots: *mut Bin,
    slots_used: usize,
}

/// How many pages may be cold at a time.
const SLOTS: usize = (table::SLOTS_END - table::SLOTS_AT) / size_of::<Bin>();
const _: () = assert!(size_of::<Heap>() <= table::SLOTS_AT && size_of::<Placeholder>() == size_of::<Heap>());

/// A heap that has nothing and gets nothing: what the cell points at before a thread's first allocation, and after its
/// end, so that the hot paths need no test for "no heap".
#[repr(transparent)]
pub(crate) struct Placeholder(UnsafeCell<Heap>);

/// Where the lists are.
pub(crate) const HEADS_AT: usize = offset_of!(Heap, heads);

// What include/allokit/inline.h knows. A change of it needs another number there and in the name below.
const _: () = assert!(
    offset_of!(Heap, bins) == 0
        && offset_of!(Bin, head) == 0
        && offset_of!(Bin, room) == 8
        && size_of::<Bin>() == 16
        && BINS == 73
        && table::SLOTS_END == 258048
        && offset_of!(Heap, pages) == 73 * 16
        && HEADS_AT == 73 * 16 + 8
        && offset_of!(Block, next) == 0
        && classes::UNIT_SHIFT == 16
        && classes::SMALL_MAX == 32768
);
allokit_platform::name_thread_cell! { OPEN_HEAP = "ak_inline_2_needs_a_static_library_of_this_header" }

// SAFETY: never written: its bins are empty, and no word of the table names it.
unsafe impl Sync for Placeholder {}

const fn blank(tagged: bool) -> Heap {
    Heap {
        bins: [EMPTY_BIN; BINS],
        pages: ptr::null(),
        heads: [ptr::null_mut(); BINS],
        tiny: classes::tiny_offsets(HEADS_AT, size_of::<*mut Block>(), if tagged { classes::TAGGED_FIRST } else { 1 }),
        reserves: [EMPTY_RESERVE; BINS],
        outbox: [EMPTY_BATCH; BATCHES],
        has_full: false,
        cooled: [0; BINS],
        exit_rounds: 0,
        epoch: 0,
        looked_at: 0,
        patience: PATIENCE_LEAST,
        beat: PATIENCE_LEAST,
        large_ticks: 0,
        until_sample: 0,
        tagged,
        ends: false,
        counts: Counts::new(),
        cache: Cache::new(),
        inbox: AtomicPtr::new(ptr::null_mut()),
        inbox_bytes: AtomicUsize::new(0),
        keeps_ready: AtomicBool::new(false),
        state: AtomicU32::new(IDLE),
        cell: AtomicPtr::new(ptr::null_mut()),
        next: AtomicPtr::new(ptr::null_mut()),
        lock: Lock::new(),
        pending: ptr::null_mut(),
        ready: [ptr::null_mut(); BINS],
        ready_count: [0; BINS],
        queues: [ptr::null_mut(); CLASS_COUNT + 1],
        free_slots: ptr::null_mut(),
        slots_used: 0,
    }
}

/// Before the first allocation of a thread.
static NO_HEAP: Placeholder = Placeholder(UnsafeCell::new(blank(false)));
/// After its end: allocations come from the late heap.
static ENDED: Placeholder = Placeholder(UnsafeCell::new(blank(false)));

// This thread's heap.
thread_cell! { pub(crate) static HEAP: *mut Heap = NO_HEAP; }
// The same once plain allocations may take from it without a look at anything else, else a placeholder: so that a layer
// over this backend costs the hot path nothing while it is not in force.
thread_cell! { pub(crate) static OPEN_HEAP: *mut Heap = NO_HEAP; }

// This thread's heap for blocks with tags: a second one, so that the plain one knows nothing of them.
thread_cell! { pub(crate) static TAGGED_HEAP: *mut Heap = NO_HEAP; }

/// Whether the heap is one of the calling thread's.
#[inline(always)]
fn is_mine(heap: *mut Heap) -> bool {
    heap == HEAP::get() || heap == TAGGED_HEAP::get()
}

fn no_heap() -> *mut Heap {
    NO_HEAP.0.get()
}

fn ended() -> *mut Heap {
    ENDED.0.get()
}

/// The thread never uses its heap again, which may be locked and amid a change; its next allocation begins another one.
pub(crate) fn leave() {
    HEAP::set(no_heap());
    OPEN_HEAP::set(no_heap());
    TAGGED_HEAP::set(no_heap());
}

/// Whether it is a heap, and not what stands for none.
#[inline(always)]
pub(crate) fn is_real(heap: *mut Heap) -> bool {
    heap != no_heap() && heap != ended()
}

/// The first of all heaps; only ever prepended to, under `REGISTRY`.
static HEAPS: AtomicPtr<Heap> = AtomicPtr::new(ptr::null_mut());
static REGISTRY: Lock = Lock::new();
/// Heaps with a thread.
static LIVE_COUNT: AtomicUsize = AtomicUsize::new(0);
/// Heaps without.
static IDLE_COUNT: AtomicUsize = AtomicUsize::new(0);
/// The heap of threads that have ended, used under `LATE`.
static LATE_HEAP: AtomicPtr<Heap> = AtomicPtr::new(ptr::null_mut());
/// The same for blocks with tags.
static LATE_TAGGED: AtomicPtr<Heap> = AtomicPtr::new(ptr::null_mut());
static LATE: Lock = Lock::new();
static EXIT: thread::Key = thread::Key::new(on_thread_exit);

/// How many threads own a heap.
pub(crate) fn live_count() -> u64 {
    LIVE_COUNT.load(Ordering::Relaxed) as u64
}

/// Calls `visit` with every heap.
pub(crate) fn for_each(mut visit: impl FnMut(*mut Heap)) {
    let mut heap = HEAPS.load(Ordering::Acquire);
    while !heap.is_null() {
        visit(heap);
        // SAFETY: heaps live for good.
        heap = unsafe { (*heap).next.load(Ordering::Acquire) };
    }
}

/// Puts a block into a bin.
///
/// # Safety
/// The bin is this thread's and of the block's class; the caller owns the block.
#[inline(always)]
pub(crate) unsafe fn push(bin: *mut Bin, block: *mut Block) {
    // SAFETY: the caller's promise. The order of the two stores is kept (at no cost), so that a fork between them leaves
    // the child with a whole list.
    unsafe {
        (*block).next = (*bin).head;
        compiler_fence(Ordering::Release);
        (*bin).head = block;
    }
}

/// A block of a class when the thread's list is empty: one that was freed since, or from the heap's pages, or a fresh page,
/// or, now and then, a guarded one of `size` bytes. Null with ENOMEM.
///
/// # Safety
/// `heap` is what the cell holds.
#[cold]
#[inline(never)]
pub(crate) unsafe fn alloc_slow(heap: *mut Heap, class: usize, size: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { alloc_slowly::<false>(heap, class, size) }
}

/// The same for a block with a tag.
///
/// # Safety
/// `heap` is what the cell of such heaps holds.
#[cold]
#[inline(never)]
pub(crate) unsafe fn alloc_tagged_slow(heap: *mut Heap, class: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { alloc_slowly::<true>(heap, class, 0) }
}

#[inline(always)]
unsafe fn alloc_slowly<const TAGGED: bool>(heap: *mut Heap, class: usize, size: usize) -> *mut u8 {
    // SAFETY: the cell's lists are this thread's; a placeholder's are empty.
    unsafe {
        if !(*heap).bins[class].head.is_null() && (TAGGED || !(*heap).pages.is_null()) {
            let block = take_freed(heap, class);
            if (*heap).beat < 0 {
                look_around(heap);
                if !TAGGED && (*heap).until_sample < 0 {
                    return guard_instead(heap, class, size, block);
                }
            }
            return block;
        }
    }
    let mut heap = heap;
    if heap == no_heap() {
        heap = begin(TAGGED);
        if heap.is_null() {
            return Native::fail();
        }
    }
    // SAFETY: a real heap of this thread, or the late one under its lock.
    unsafe {
        if heap == ended() {
            let _late = LATE.lock();
            let late = late_heap(TAGGED);
            if late.is_null() {
                return Native::fail();
            }
            return take_one(late, class);
        }
        if !TAGGED {
            open_or_close(heap);
        }
        if (*heap).epoch != upkeep::epoch() {
            age_bins(heap);
        }
        let has_own = !(*heap).bins[class].head.is_null() || !(*heap).reserves[class].head.is_null();
        let mut block = take_one(heap, class);
        if block.is_null() && budget::relieve() {
            block = take_one(heap, class);
        }
        if !has_own {
            upkeep::tick();
            (*heap).until_sample -= i64::from(FILL_LEAST);
        } else if (*heap).beat < 0 {
            look_around(heap);
        }
        if !TAGGED && (*heap).until_sample < 0 && !block.is_null() {
            return guard_instead(heap, class, size, block);
        }
        block
    }
}

/// A guarded block if one is due, and `block` goes back to where it was popped; mostly `block`.
///
/// # Safety
/// `block` was popped from the list of the class, of this thread's heap.
#[cold]
#[inline(never)]
unsafe fn guard_instead(heap: *mut Heap, class: usize, size: usize, block: *mut u8) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe {
        let guarded = sampled::take(heap, size, Tag::NONE);
        if guarded.is_null() {
            return block;
        }
        let list = &raw mut (*heap).heads[class];
        let block = block.cast::<Block>();
        (*block).next = *list;
        compiler_fence(Ordering::Release);
        *list = block;
        guarded
    }
}

/// Lets the thread's plain calls use its heap without a look at anything else, or no longer.
unsafe fn open_or_close(heap: *mut Heap) {
    // SAFETY: the heap is this thread's.
    unsafe {
        if table::is_open() && (*heap).ends {
            if OPEN_HEAP::get() == heap {
                return;
            }
            (*heap).pages = table::OPEN.load(Ordering::Acquire);
            OPEN_HEAP::set(heap);
            (*heap).cell.store(OPEN_HEAP::address(), Ordering::Release);
            // Either `close` finds the cell, or this finds the table closed.
            barrier::light();
        }
        if !table::is_open() && OPEN_HEAP::get() == heap {
            OPEN_HEAP::set(no_heap());
        }
    }
}

/// From now on, in every thread, plain calls take the way that asks for the mode. (On systems where a thread's cell cannot
/// be reached from outside, the thread follows when it next runs out of blocks of a class.)
pub(crate) fn close() {
    table::close();
    let sure = barrier::heavy();
    {
        let _registry = REGISTRY.lock();
        for_each(|heap| {
            // SAFETY: heaps live for good; a cell that is named under REGISTRY is that of a thread that lives, and is read
            // and written whole.
            unsafe {
                let cell = (*heap).cell.swap(ptr::null_mut(), Ordering::Acquire);
                if !cell.is_null() {
                    (*cell.cast::<core::sync::atomic::AtomicPtr<Heap>>()).store(no_heap(), Ordering::Relaxed);
                }
            }
        });
    }
    // Whoever gets a block from this thread from here on sees that. (Without the barrier, by the lock that hands it over.)
    let _ = sure && barrier::heavy();
}

/// Pops a block, after the empty list has got what was freed since.
///
/// # Safety
/// As [`take_one`]; the list is empty, and the bin is not.
#[inline(always)]
unsafe fn take_freed(heap: *mut Heap, class: usize) -> *mut u8 {
    // SAFETY: the caller's promise. The bin lets go of the blocks before the list has them, for a fork in between.
    unsafe {
        let bin = &raw mut (*heap).bins[class];
        let block = take_all(bin);
        compiler_fence(Ordering::Release);
        (*heap).heads[class] = (*block).next;
        (*heap).cooled[class] = 0;
        let full = classes::get(class).bin + 1;
        (*heap).beat -= (full - left(bin)) as i32;
        set_left(heap, bin, full);
        block.cast()
    }
}

/// Pops a block, after the empty list has got what was freed, or others.
///
/// # Safety
/// The heap is this thread's, or the late one under its lock.
unsafe fn take_one(heap: *mut Heap, class: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe {
        let bin = &raw mut (*heap).bins[class];
        let link = &raw mut (*heap).heads[class];
        // It is not empty when the thread has just taken over a heap.
        if (*link).is_null() {
            if !(*bin).head.is_null() {
                return take_freed(heap, class);
            }
            if !take_reserve(heap, class) && !refill(heap, class) {
                return Native::fail();
            }
        }
        let block = *link;
        *link = (*block).next;
        block.cast()
    }
}

/// Fills an empty list with the newest of the class's reserve.
unsafe fn take_reserve(heap: *mut Heap, class: usize) -> bool {
    // SAFETY: the lists are the caller's. The reserve lets go of a list before another has it, for a fork in between.
    unsafe {
        let reserve = &raw mut (*heap).reserves[class];
        let list = (*reserve).head;
        if list.is_null() {
            return false;
        }
        (*reserve).head = (*list).next_batch;
        (*reserve).room += 1;
        compiler_fence(Ordering::Release);
        (*heap).heads[class] = list;
        (*heap).cooled[class] = 0;
        true
    }
}

/// Puts a full bin's list onto its class's reserve.
unsafe fn add_to_reserve(heap: *mut Heap, class: usize) {
    // SAFETY: as above.
    unsafe {
        let reserve = &raw mut (*heap).reserves[class];
        let list = take_all(&raw mut (*heap).bins[class]);
        if list.is_null() {
            return;
        }
        compiler_fence(Ordering::Release);
        (*list).next_batch = (*reserve).head;
        compiler_fence(Ordering::Release);
        (*reserve).head = list;
        (*reserve).room -= 1;
    }
}

/// Fills an empty list. False when there is no memory.
///
/// # Safety
/// As [`take_one`].
unsafe fn refill(heap: *mut Heap, class: usize) -> bool {
    // SAFETY: the bins are the caller's; pages and queues are touched under the heap's lock.
    unsafe {
        let guard = (*heap).lock.lock();
        if (*heap).tagged {
            (*heap).counts.settle();
        }
        drain(heap, true, DRAIN);
        if fill_from_ready(heap, class) || fill_from_queue(heap, class) {
            return true;
        }
        let mut fresh = if IDLE_COUNT.load(Ordering::Relaxed) > 0 { adopt(heap, class) } else { ptr::null_mut() };
        if fresh.is_null() {
            empty_full_bins(heap);
            fresh = new_page(heap, class);
        }
        if !fresh.is_null() {
            enqueue(heap, fresh);
            return fill_from_queue(heap, class);
        }
        // No memory for a page: what others have freed may do.
        while has_inbox(heap) {
            drain(heap, false, DRAIN);
            if fill_from_queue(heap, class) {
                return true;
            }
        }
        drop(guard);
        false
    }
}

/// Fills an empty list with a batch as it came.
unsafe fn fill_from_ready(heap: *mut Heap, class: usize) -> bool {
    // SAFETY: under the heap's lock; a batch in `ready` is a list of free blocks of its class that nobody else has.
    unsafe {
        let batch = (*heap).ready[class];
        if batch.is_null() {
            return false;
        }
        (*heap).ready[class] = (*batch).next_batch;
        (*heap).ready_count[class] -= 1;
        (*heap).heads[class] = batch;
        open_bin(heap, class);
        true
    }
}

/// Lets a bin without blocks take frees: its class is in use.
unsafe fn open_bin(heap: *mut Heap, class: usize) {
    // SAFETY: the bins are the caller's.
    unsafe {
        debug_assert!((*heap).bins[class].head.is_null() && (*heap).reserves[class].head.is_null());
        let about = classes::get(class);
        (*heap).cooled[class] = 0;
        (*heap).reserves[class].room = about.reserve;
        set_left(heap, &raw mut (*heap).bins[class], about.bin + 1);
    }
}

/// Fills an empty list with all that a cold page's bin has, or with some blocks of a hot page; where that are few, with those
/// of further pages, so that not every other allocation comes here.
unsafe fn fill_from_queue(heap: *mut Heap, class: usize) -> bool {
    // SAFETY: under the heap's lock; the queue holds pages of this heap and class. Lists taken from pages are the
    // caller's, and end with null.
    unsafe {
        let step = classes::get(class).step;
        let mut link = &raw mut (*heap).heads[class];
        let mut got = 0;
        for _ in 0..FILL_PAGES {
            let page = (*heap).queues[class];
            if page.is_null() {
                break;
            }
            let (mut list, mut count) = (ptr::null_mut(), 0);
            if (*page).slot != 0 {
                (list, count) = warm(heap, page);
            }
            if list.is_null() {
                (list, count) = Page::take(page, step);
            }
            if list.is_null() && (*page).carved < Page::capacity(page) {
                (list, count) = Page::carve(page);
            }
            if !Page::has_free(page) {
                dequeue(heap, page);
            }
            *link = list;
            got += count;
            if got >= step.min(FILL_LEAST) {
                break;
            }
            // A short list: its end is near. (By its count, so that a block freed twice makes no endless list.)
            for _ in 0..count {
                link = &raw mut (**link).next;
            }
        }
        if got == 0 {
            return false;
        }
        open_bin(heap, class);
        true
    }
}

/// Gives a page a bin of its own, into which its blocks go from now on. Null when there is none to be had.
///
/// # Safety
/// Under the heap's lock, by its thread; the page is its own, hot, and not all of its blocks are home.
unsafe fn cool(heap: *mut Heap, page: *mut Page) -> *mut Bin {
    // SAFETY: the caller's promise; a slot that is free or was never used is nobody's.
    unsafe {
        debug_assert!((*page).slot == 0 && (*page).free_count < (*page).carved);
        let mut slot = (*heap).free_slots;
        if slot.is_null() {
            if (*heap).slots_used == SLOTS {
                return slot;
            }
            slot = heap.byte_add(table::SLOTS_AT).cast::<Bin>().add((*heap).slots_used);
            (*heap).slots_used += 1;
        } else {
            (*heap).free_slots = (*slot).head.cast();
        }
        (*slot).head = ptr::null_mut();
        set_left(heap, slot, (*page).carved - (*page).free_count);
        (*page).slot = (slot.addr() - heap.addr()) as u32;
        (*page).outside = 0;
        (*page).seen = 0;
        Page::set_words(page, Word::of_bin(slot));
        if !(*page).queued {
            enqueue(heap, page);
        }
        slot
    }
}

/// The bin of a cold page.
unsafe fn slot_of(heap: *mut Heap, page: *mut Page) -> *mut Bin {
    // SAFETY: under the heap's lock; a cold page's offset is that of its bin.
    unsafe {
        debug_assert!((*page).slot as usize >= table::SLOTS_AT);
        heap.byte_add((*page).slot as usize).cast()
    }
}

/// How many blocks of a cold page are neither in its bin nor at home, as far as the bin knows; for a class's bin, one more
/// than it may take.
unsafe fn left(slot: *mut Bin) -> u32 {
    // SAFETY: under the lock, by the heap's thread or for a heap without one.
    unsafe { (*slot).aside.wrapping_add_signed((*slot).room).wrapping_add(1) }
}

/// Sets [`left`]: the bin is looked at when the last one comes, or earlier.
unsafe fn set_left(heap: *mut Heap, slot: *mut Bin, left: u32) {
    // SAFETY: as above.
    unsafe {
        let more = left as i32 - 1;
        let room = more.min((*heap).patience);
        (*slot).room = room;
        (*slot).aside = (more - room) as u32;
    }
}

/// Makes a cold page hot: what lay in its bin, and how many.
///
/// # Safety
/// Under the heap's lock, by its thread or for a heap without one.
unsafe fn warm(heap: *mut Heap, page: *mut Page) -> (*mut Block, u32) {
    // SAFETY: the caller's promise.
    unsafe {
        let slot = slot_of(heap, page);
        let (list, elsewhere) = ((*slot).head, left(slot) - (*page).outside);
        let count = (*page).carved - (*page).free_count - elsewhere;
        give_slot(heap, page);
        Page::set_words(page, Word::small(heap, (*page).class as usize));
        (list, count)
    }
}

unsafe fn give_slot(heap: *mut Heap, page: *mut Page) {
    // SAFETY: as above.
    unsafe {
        let slot = slot_of(heap, page);
        (*slot).head = (*heap).free_slots.cast();
        (*slot).room = 0;
        (*heap).free_slots = slot;
        (*page).slot = 0;
        (*page).outside = 0;
    }
}

/// Whether nobody pushes onto the heap's bins without its lock but the caller.
unsafe fn is_exclusive(heap: *mut Heap) -> bool {
    // SAFETY: heaps live for good; under its lock.
    unsafe { is_mine(heap) || (*heap).state.load(Ordering::Relaxed) != LIVE }
}

/// Gives an empty page back to the runs.
///
/// # Safety
/// Under the heap's lock; all blocks of the page are at home or in the page's own bin.
unsafe fn give_page(heap: *mut Heap, page: *mut Page) {
    // SAFETY: the caller's promise.
    unsafe {
        if (*page).slot != 0 {
            if cfg!(debug_assertions) {
                settle(heap, page);
                debug_assert!((*page).free_count == (*page).carved, "a block of the page was freed twice");
            } else {
                give_slot(heap, page);
            }
        }
        if (*page).queued {
            dequeue(heap, page);
        }
        Page::retire(page);
        (*page).kind.set(Kind::Busy);
        runs::give(page, false);
    }
}

/// Takes home what lies in a cold page's bin, and makes the page hot.
///
/// # Safety
/// As [`warm`].
unsafe fn settle(heap: *mut Heap, page: *mut Page) {
    // SAFETY: the caller's promise.
    unsafe {
        let (mut block, count) = warm(heap, page);
        let before = (*page).free_count;
        while !block.is_null() {
            let next = (*block).next;
            take_home(page, block);
            block = next;
        }
        debug_assert!((*page).free_count == before + count);
    }
}

unsafe fn take_home(page: *mut Page, block: *mut Block) {
    // SAFETY: under the lock of the page's heap; a block of the page.
    if !unsafe { Page::put(page, block.cast()) } {
        crate::invalid(block.cast(), "second free");
    }
}

/// Looks at the cold pages: gives back those whose last blocks others have taken home, and settles up to `most` that
/// nothing happened to since the last look (all, if `at_once`), so that their memory can be given back in parts.
///
/// # Safety
/// As [`warm`].
unsafe fn look_at_cold(heap: *mut Heap, mut most: usize, at_once: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        for class in 1..=CLASS_COUNT {
            let mut page = (*heap).queues[class];
            while !page.is_null() {
                let next = (*page).next;
                if (*page).slot != 0 {
                    let slot = slot_of(heap, page);
                    let elsewhere = left(slot) - (*page).outside;
                    if (*page).outside > 0 {
                        set_left(heap, slot, elsewhere);
                        (*page).outside = 0;
                    }
                    if elsewhere == 0 {
                        give_page(heap, page);
                    } else if most > 0 && (at_once || (*page).seen == elsewhere as u8) {
                        settle(heap, page);
                        most -= 1;
                    } else {
                        (*page).seen = elsewhere as u8;
                    }
                }
                page = next;
            }
        }
    }
}

unsafe fn enqueue(heap: *mut Heap, page: *mut Page) {
    // SAFETY: under the heap's lock; the page is its own and in no queue.
    unsafe {
        debug_assert!(!(*page).queued);
        let head = &raw mut (*heap).queues[(*page).class as usize];
        (*page).next = *head;
        (*page).prev = ptr::null_mut();
        if !(*head).is_null() {
            (**head).prev = page;
        }
        *head = page;
        (*page).queued = true;
    }
}

unsafe fn dequeue(heap: *mut Heap, page: *mut Page) {
    // SAFETY: under the heap's lock; the page is in its queue.
    unsafe {
        debug_assert!((*page).queued);
        let (next, prev) = ((*page).next, (*page).prev);
        if !next.is_null() {
            (*next).prev = prev;
        }
        if prev.is_null() {
            (*heap).queues[(*page).class as usize] = next;
        } else {
            (*prev).next = next;
        }
        (*page).queued = false;
    }
}

unsafe fn new_page(heap: *mut Heap, class: usize) -> *mut Page {
    // SAFETY: the heap is the caller's; the run was just taken.
    unsafe {
        let page = take_run(heap, classes::get(class).units as usize, 1);
        if !page.is_null() {
            Page::init(page, heap, class);
        }
        page
    }
}

/// [`runs::take`], but of a run in the heap's cache before memory that was not used before.
///
/// # Safety
/// The heap is the calling thread's (or the late one, under its lock).
pub(crate) unsafe fn take_run(heap: *mut Heap, units: usize, align: usize) -> *mut Page {
    // SAFETY: the caller's promise.
    unsafe {
        if align == 1 {
            let page = runs::take_dirty(units);
            if !page.is_null() {
                return page;
            }
            (*heap).cache.lend(units);
        }
        runs::take(units, align)
    }
}

/// A page with free blocks from a heap whose thread has ended.
unsafe fn adopt(heap: *mut Heap, class: usize) -> *mut Page {
    let mut looks = ADOPTION_LOOKS;
    let mut other = HEAPS.load(Ordering::Acquire);
    // SAFETY: heaps live for good. Another heap's lock is only tried, so two heaps cannot wait for each other. An idle
    // heap has empty bins, and under its lock with the state IDLE nobody can begin to use it.
    unsafe {
        while !other.is_null() && looks > 0 {
            let fits = other != heap && (*other).tagged == (*heap).tagged;
            if fits && (*other).state.load(Ordering::Relaxed) == IDLE {
                looks -= 1;
                if let Some(_guard) = (*other).lock.try_lock()
                    && (*other).state.load(Ordering::Relaxed) == IDLE
                {
                    drain(other, false, DRAIN);
                    let page = (*other).queues[class];
                    if !page.is_null() {
                        if (*page).slot != 0 {
                            settle(other, page);
                        }
                        dequeue(other, page);
                        Page::set_owner(page, heap);
                        return page;
                    }
                }
            }
            other = (*other).next.load(Ordering::Acquire);
        }
    }
    ptr::null_mut()
}

/// A free when the bin's room is used up. If the bin may take more, it was only time to look around. If not: a class's bin
/// is full, and the block's page becomes cold; or all of a cold page's blocks are home.
///
/// # Safety
/// `bin` is this thread's and of the block's class or page; the caller gives the block up.
#[cold]
#[inline(never)]
pub(crate) unsafe extern "C" fn overflow(bin: *mut Bin, ptr: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        (*bin).room = 0;
        let word = Word::of_bin(bin);
        if !word.is_hot() {
            return overflow_cold(word.heap(), bin, ptr);
        }
        let heap = word.heap();
        if (*bin).aside > 0 {
            set_left(heap, bin, (*bin).aside);
            push(bin, ptr.cast());
            return look_around(heap);
        }
        let class = (bin.addr() - heap.addr()) / size_of::<Bin>();
        if (*heap).reserves[class].room > 0 {
            let full = classes::get(class).bin;
            add_to_reserve(heap, class);
            set_left(heap, bin, full);
            push(bin, ptr.cast());
            (*heap).beat -= full as i32;
            if (*heap).beat < 0 {
                look_around(heap);
            }
            return;
        }
        (*heap).has_full = true;
        to_page(heap, ptr);
    }
}

/// The last block of a cold page, or one of many.
unsafe fn overflow_cold(heap: *mut Heap, slot: *mut Bin, ptr: *mut u8) {
    // SAFETY: as in `overflow`.
    unsafe {
        keep_errno(|| {
            let _guard = (*heap).lock.lock();
            let others = (*slot).aside;
            if others > 0 {
                set_left(heap, slot, others);
                push(slot, ptr.cast());
            } else {
                let page = page::of_block(ptr.addr());
                // At home: the bin counts it already.
                debug_assert!((*page).outside == 0 && (*page).heap.load(Ordering::Relaxed) == heap);
                if cfg!(debug_assertions) {
                    push(slot, ptr.cast());
                    (*slot).room = -1;
                }
                give_page(heap, page);
            }
            drain(heap, true, DRAIN);
        });
        look_around(heap);
    }
}

/// Makes the page of a block cold, and frees the block there: the bin of its class is full. When that happens again and
/// again, the bin is emptied too: each of its blocks may keep a page.
#[inline(never)]
unsafe fn to_page(heap: *mut Heap, ptr: *mut u8) {
    // SAFETY: as in `overflow`; pages are touched under the lock.
    unsafe {
        let word = table::word(ptr.addr());
        if !word.is_owned_by(heap) {
            // A sized free in the caller does not look whose block it is.
            return free_remote(heap, word.hot(ptr.addr()), ptr);
        }
        keep_errno(|| {
            let _guard = (*heap).lock.lock();
            let page = page::of_block(ptr.addr());
            let class = (*page).class as usize;
            let slot = if (*page).free_count + 1 == (*page).carved || (*page).slot != 0 {
                ptr::null_mut()
            } else {
                cool(heap, page)
            };
            if slot.is_null() {
                home(heap, page, ptr.cast());
            } else {
                (*slot).room -= 1;
                push(slot, ptr.cast());
                (*heap).cooled[class] += 1;
                if (*heap).cooled[class] == COLD_UNTIL_EMPTIED {
                    close_bin(heap, class);
                }
            }
            drain(heap, true, DRAIN);
        });
        look_around(heap);
    }
}

/// Sends home what a class has in its lists; further frees go to their pages until an allocation wants a block.
unsafe fn close_bin(heap: *mut Heap, class: usize) {
    // SAFETY: the bins are the caller's; the lock is held.
    unsafe {
        (*heap).cooled[class] = 0;
        let freed = take_all(&raw mut (*heap).bins[class]);
        let ready = core::mem::replace(&mut (*heap).heads[class], ptr::null_mut());
        (*heap).bins[class] = EMPTY_BIN;
        send_home(heap, freed);
        cut_reserve(heap, class, 0);
        (*heap).reserves[class].room = 0;
        send_home(heap, ready);
    }
}

/// Sends home the older lists of a class's reserve: all but so many.
unsafe fn cut_reserve(heap: *mut Heap, class: usize, keep: usize) {
    // SAFETY: the bins are the caller's; the lock is held.
    unsafe {
        let mut link = &raw mut (*heap).reserves[class].head;
        for _ in 0..keep {
            if (*link).is_null() {
                return;
            }
            link = &raw mut (**link).next_batch;
        }
        let mut list = core::mem::replace(&mut *link, ptr::null_mut());
        while !list.is_null() {
            let next = (*list).next_batch;
            (*heap).reserves[class].room += 1;
            send_home(heap, list);
            list = next;
        }
    }
}

/// How many lists a class's reserve has.
unsafe fn reserve_length(heap: *mut Heap, class: usize) -> usize {
    // SAFETY: the bins are the caller's.
    unsafe {
        let (mut list, mut length) = ((*heap).reserves[class].head, 0);
        while !list.is_null() {
            list = (*list).next_batch;
            length += 1;
        }
        length
    }
}

/// Sends home what lies in bins that are full and that nobody takes from: each of their blocks may keep a page that could
/// serve as another class's.
unsafe fn empty_full_bins(heap: *mut Heap) {
    // SAFETY: the bins are the caller's; the lock is held.
    unsafe {
        if !(*heap).has_full {
            return;
        }
        (*heap).has_full = false;
        for class in 1..=CLASS_COUNT {
            let bin = &raw mut (*heap).bins[class];
            if !(*bin).head.is_null() && left(bin) <= 1 && (*heap).reserves[class].room == 0 {
                close_bin(heap, class);
            }
        }
    }
}

/// Takes all blocks out of a bin, as a list.
unsafe fn take_all(bin: *mut Bin) -> *mut Block {
    // SAFETY: the bin is the caller's.
    unsafe {
        let list = (*bin).head;
        (*bin).head = ptr::null_mut();
        list
    }
}

/// What a thread does now and then, from its frees.
unsafe fn look_around(heap: *mut Heap) {
    let now = upkeep::tick();
    // SAFETY: the heap is this thread's.
    unsafe {
        // A busy thread looks seldom; one that hardly allocates must not take a minute to get here.
        let quick = now.wrapping_sub((*heap).looked_at) < QUICK_MS;
        (*heap).looked_at = now;
        if (*heap).tagged {
            (*heap).counts.settle();
        }
        (*heap).until_sample -= i64::from((*heap).patience.min(BEAT_MOST));
        (*heap).patience = if quick { ((*heap).patience * 2).min(PATIENCE_MOST) } else { PATIENCE_LEAST };
        (*heap).beat = (*heap).patience.min(BEAT_MOST);
        if (*heap).epoch != upkeep::epoch() {
            keep_errno(|| age_bins(heap));
        }
    }
}

/// Cuts the second half off a list, the larger one; and how many blocks are left.
unsafe fn cut_half(mut cut: *mut *mut Block) -> (*mut Block, u32) {
    // SAFETY: a list of the caller's.
    unsafe {
        // `end` goes two steps for each of `cut`.
        let (mut end, mut kept) = (*cut, 0);
        while !end.is_null() && !(*end).next.is_null() {
            end = (*(*end).next).next;
            cut = &raw mut (**cut).next;
            kept += 1;
            if end == *cut && !end.is_null() {
                // Only a list without an end lets the two meet.
                crate::invalid(end.cast(), "second free");
            }
        }
        (core::mem::replace(&mut *cut, ptr::null_mut()), kept)
    }
}

/// Sends home the older half of each list: once in an epoch, so that a bin that is not used any more is empty after a
/// second, and its blocks keep no pages.
#[cold]
#[inline(never)]
unsafe fn age_bins(heap: *mut Heap) {
    // SAFETY: the bins are this thread's; the pages are touched under the lock.
    unsafe {
        (*heap).epoch = upkeep::epoch();
        empty_outbox(heap);
        let _guard = (*heap).lock.lock();
        look_at_cold(heap, SETTLE_MOST, false);
        for class in 1..=CLASS_COUNT {
            let bin = &raw mut (*heap).bins[class];
            if !(*bin).head.is_null() {
                let (rest, kept) = cut_half(&raw mut (*bin).head);
                set_left(heap, bin, (classes::get(class).bin + 1).saturating_sub(kept).max(1));
                send_home(heap, rest);
            }
            cut_reserve(heap, class, reserve_length(heap, class) / 2);
            let (rest, _) = cut_half(&raw mut (*heap).heads[class]);
            send_home(heap, rest);
        }
    }
}

/// Gives back the memory of free blocks in the heap's pages that nothing happened to for so many looks, in at most `left`
/// stretches (and one page's more); how many are left. Sends home what lies in the bins of a heap that has been without a
/// thread for a while. Passes over a heap that is busy.
pub(crate) fn thin_out(heap: *mut Heap, looks: u16, mut left: usize) -> usize {
    // SAFETY: heaps live for good; pages are touched under the lock.
    unsafe {
        if let Some(_guard) = (*heap).lock.try_lock() {
            if (*heap).state.load(Ordering::Relaxed) == IDLE {
                if looks == 0 || upkeep::epoch().wrapping_sub((*heap).epoch) > 1 {
                    empty_bins(heap);
                    empty_ready(heap);
                }
                look_at_cold(heap, SETTLE_MOST, looks == 0);
            }
            for class in 1..=CLASS_COUNT {
                let least = (THIN_LEAST / classes::class_size(class)) as u32;
                let mut page = (*heap).queues[class];
                while !page.is_null() && left > 0 {
                    let age = upkeep::epoch().wrapping_sub((*page).touched);
                    if !(*page).thin && (*page).free_count > least && age >= looks {
                        left = left.saturating_sub(Page::thin_out(page));
                    }
                    page = (*page).next;
                }
            }
        }
    }
    left
}

/// Gives a list of blocks back to their pages, or to the heaps that own these.
unsafe fn send_home(heap: *mut Heap, mut block: *mut Block) {
    // SAFETY: under the heap's lock; the blocks are free, in nobody's list but this. A page of this heap stays so while
    // the lock is held.
    unsafe {
        while !block.is_null() {
            let next = (*block).next;
            send_one_home(heap, block);
            block = next;
        }
    }
}

#[inline]
unsafe fn send_one_home(heap: *mut Heap, block: *mut Block) {
    // SAFETY: as in `send_home`.
    unsafe {
        let word = table::word(block.addr());
        if word.is_owned_by(heap) {
            home(heap, page::of_block(block.addr()), block);
        } else {
            if !word.is_small() {
                // Its page was empty already, and is gone.
                crate::invalid(block.cast(), "second free");
            }
            (*block).next = ptr::null_mut();
            send(word.hot(block.addr()), block, 1);
        }
    }
}

/// Gives a block back to its page; an empty page goes back to the runs.
#[inline]
unsafe fn home(heap: *mut Heap, page: *mut Page, block: *mut Block) {
    // SAFETY: as in `send_home`; the block is the page's.
    unsafe {
        debug_assert!((*page).kind.get() == Kind::Small && (*page).heap.load(Ordering::Relaxed) == heap);
        take_home(page, block);
        let mut elsewhere = (*page).carved - (*page).free_count;
        if (*page).slot != 0 {
            if !is_exclusive(heap) {
                // Only its thread can tell how many are in the page's bin.
                (*page).outside += 1;
                return;
            }
            let slot = slot_of(heap, page);
            elsewhere = left(slot) - (*page).outside - 1;
            set_left(heap, slot, elsewhere);
            (*page).outside = 0;
        }
        if elsewhere == 0 {
            give_page(heap, page);
        } else if !(*page).queued {
            enqueue(heap, page);
        }
    }
}

fn has_inbox(heap: *mut Heap) -> bool {
    // SAFETY: heaps live for good; called under the lock.
    unsafe { !(*heap).pending.is_null() || !(*heap).inbox.load(Ordering::Relaxed).is_null() }
}

/// Looks at up to `limit` batches that other threads have sent: they wait for the bins if `keep` and there are not many
/// yet, else their blocks go home.
///
/// # Safety
/// Under the heap's lock.
pub(crate) unsafe fn drain(heap: *mut Heap, keep: bool, limit: usize) {
    // SAFETY: the caller's promise; blocks in the inbox are free and belong to whoever takes them.
    unsafe {
        let mut batch = (*heap).pending;
        for _ in 0..limit {
            if batch.is_null() {
                if (*heap).inbox.load(Ordering::Relaxed).is_null() {
                    break;
                }
                (*heap).inbox_bytes.store(0, Ordering::Relaxed);
                batch = (*heap).inbox.swap(ptr::null_mut(), Ordering::Acquire);
            }
            let next = (*batch).next_batch;
            let word = table::word(batch.addr());
            let ready = if word.is_owned_by(heap) { word.class(batch.addr()) } else { 0 };
            if keep && ready != 0 && (*heap).ready_count[ready] < classes::get(ready).ready_most {
                (*batch).next_batch = (*heap).ready[ready];
                (*heap).ready[ready] = batch;
                (*heap).ready_count[ready] += 1;
                (*heap).keeps_ready.store(true, Ordering::Relaxed);
            } else {
                send_home(heap, batch);
            }
            batch = next;
        }
        (*heap).pending = batch;
    }
}

/// Sends home what waits for the bins.
///
/// # Safety
/// Under the heap's lock.
unsafe fn empty_ready(heap: *mut Heap) {
    // SAFETY: as in `fill_from_ready`.
    unsafe {
        for class in 1..=CLASS_COUNT {
            while !(*heap).ready[class].is_null() {
                let batch = (*heap).ready[class];
                (*heap).ready[class] = (*batch).next_batch;
                send_home(heap, batch);
            }
            (*heap).ready_count[class] = 0;
        }
    }
}

/// Sorts in all that waits in a heap whose thread does not; nothing when somebody else is at it.
pub(crate) fn drain_other(heap: *mut Heap) {
    // SAFETY: heaps live for good; the rest is done under the lock and without the bins.
    unsafe {
        if (*heap).inbox.load(Ordering::Relaxed).is_null() && !(*heap).keeps_ready.load(Ordering::Relaxed) {
            return;
        }
        if let Some(_guard) = (*heap).lock.try_lock() {
            while has_inbox(heap) {
                drain(heap, false, DRAIN);
            }
            empty_ready(heap);
            (*heap).keeps_ready.store(false, Ordering::Relaxed);
        }
    }
}

/// Adds a batch of `count` blocks to the inbox of the heap that owns their pages.
///
/// # Safety
/// The list from `head` belongs to the caller; `word` was the word of its blocks' pages, hot.
unsafe fn send(word: Word, head: *mut Block, count: usize) {
    // SAFETY: heaps live for good. The list is published by the exchange; only a consumer of the whole list takes from
    // it, so an address that comes back in between does no harm.
    unsafe {
        let owner = word.heap();
        let inbox = &(*owner).inbox;
        let mut old = inbox.load(Ordering::Relaxed);
        loop {
            (*head).next_batch = old;
            match inbox.compare_exchange_weak(old, head, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => old = now,
            }
        }
        (*owner).inbox_bytes.fetch_add(count * classes::class_size(word.class(head.addr())), Ordering::Relaxed);
    }
}

/// Frees a block of a page that is not this thread's.
///
/// # Safety
/// `word` is the block's, hot, and the caller gives the block up.
#[inline(always)]
pub(crate) unsafe fn free_remote(heap: *mut Heap, word: Word, ptr: *mut u8) {
    // SAFETY: the outbox is this thread's; a placeholder's is empty and stays so, since no word is NONE.
    unsafe {
        debug_assert!(page::is_block_start(ptr), "free of an interior pointer");
        let block = ptr.cast::<Block>();
        let batch = &raw mut (*heap).outbox[word.spread() % BATCHES];
        if (*batch).word != word {
            return change_batch(heap, batch, word, block);
        }
        (*block).next = (*batch).head;
        compiler_fence(Ordering::Release);
        (*batch).head = block;
        (*batch).left -= 1;
        if (*batch).left == 0 {
            flush_and_relieve(heap, batch);
        }
    }
}

/// Sends what is in a batch and makes it one for `word`, with its first block.
#[cold]
#[inline(never)]
unsafe fn change_batch(heap: *mut Heap, batch: *mut Batch, word: Word, block: *mut Block) {
    // SAFETY: as in `free_remote`.
    unsafe {
        (*block).next = ptr::null_mut();
        if !is_real(heap) {
            // A thread that only frees gets a heap too, for its batches: with this block it is done all the same.
            if heap == no_heap() {
                keep_errno(|| begin(word.is_tagged()));
            }
            send(word, block, 1);
            return relieve(word.heap());
        }
        flush(batch);
        (*batch).word = word;
        (*batch).left = classes::get(word.class(block.addr())).batch;
        if (*batch).left == 1 {
            (*batch).word = Word::NONE;
            send(word, block, 1);
            return relieve(word.heap());
        }
        compiler_fence(Ordering::Release);
        (*batch).head = block;
        (*batch).left -= 1;
    }
}

#[cold]
#[inline(never)]
unsafe fn flush_and_relieve(heap: *mut Heap, batch: *mut Batch) {
    // SAFETY: as in `flush`.
    unsafe {
        let word = (*batch).word;
        flush(batch);
        relieve(word.heap());
        look_around(heap);
    }
}

/// Sends a batch.
///
/// # Safety
/// The batch is this thread's.
unsafe fn flush(batch: *mut Batch) {
    // SAFETY: the caller's promise. The batch is emptied before it is sent, so that a fork in between loses blocks
    // rather than having them twice.
    unsafe {
        let (word, head) = ((*batch).word, (*batch).head);
        if head.is_null() {
            return;
        }
        let full = classes::get(word.class(head.addr())).batch;
        let count = full - (*batch).left;
        (*batch).head = ptr::null_mut();
        (*batch).left = full;
        compiler_fence(Ordering::Release);
        send(word, head, count as usize);
    }
}

/// Sorts in an owner's inbox when much has gathered: its thread sleeps or only hands out.
fn relieve(owner: *mut Heap) {
    // SAFETY: heaps live for good.
    if unsafe { (*owner).inbox_bytes.load(Ordering::Relaxed) } > INBOX_BYTES {
        keep_errno(|| drain_other(owner));
    }
}

/// The heap whose cache of large runs the calling thread may use, or null.
#[inline(always)]
pub(crate) fn with_cache() -> *mut Heap {
    let heap = HEAP::get();
    if is_real(heap) { heap } else { ptr::null_mut() }
}

/// Gives the thread a heap before its first large block, if it has none.
#[cold]
pub(crate) fn begin_if_new() {
    if HEAP::get() == no_heap() {
        // Without memory for a heap there is none for the block either; that is found there.
        begin(false);
    }
}

/// Calls the upkeep after so many large blocks: it looks at the clock.
///
/// # Safety
/// `heap` is the calling thread's.
#[inline(always)]
pub(crate) unsafe fn tick_large(heap: *mut Heap) {
    // SAFETY: the caller's promise.
    unsafe {
        let left = (*heap).large_ticks;
        (*heap).large_ticks = left.wrapping_sub(1);
        if left == 0 {
            (*heap).large_ticks = LARGE_TICKS;
            upkeep::tick();
        }
    }
}

/// Gives this thread a heap: one whose thread has ended, or a new one. Null when there is no memory.
#[cold]
pub(crate) fn begin(tagged: bool) -> *mut Heap {
    let mut heap = HEAP::get();
    if heap == no_heap() {
        heap = claim(false);
        if heap.is_null() {
            return heap;
        }
        HEAP::set(heap);
        barrier::prepare();
        // Both may allocate: the heap is in place already.
        fork::register();
        budget::on_relief(upkeep::trim);
        // SAFETY: the heap is this thread's.
        unsafe { (*heap).ends = EXIT.set(heap.cast()) };
    }
    if tagged && TAGGED_HEAP::get() == no_heap() {
        heap = claim(true);
        if !heap.is_null() {
            TAGGED_HEAP::set(heap);
        }
    } else if tagged {
        // What was called above has allocated.
        heap = TAGGED_HEAP::get();
    }
    heap
}

/// Finds or makes a heap and marks it as in use.
fn claim(tagged: bool) -> *mut Heap {
    let _registry = REGISTRY.lock();
    // SAFETY: heaps live for good; states change under REGISTRY.
    unsafe {
        let mut heap: *mut Heap = ptr::null_mut();
        if IDLE_COUNT.load(Ordering::Relaxed) > 0 {
            for_each(|other| {
                if heap.is_null() && (*other).tagged == tagged && (*other).state.load(Ordering::Relaxed) == IDLE {
                    heap = other;
                }
            });
        }
        if heap.is_null() {
            heap = memory_for_heap();
            if heap.is_null() {
                return heap;
            }
            heap.write(blank(tagged));
            if tagged {
                count_several();
            }
            (*heap).next.store(HEAPS.load(Ordering::Relaxed), Ordering::Relaxed);
            (*heap).state.store(LIVE, Ordering::Relaxed);
            HEAPS.store(heap, Ordering::Release);
        } else {
            // Under its lock, so that whoever is taking a page from it has finished.
            let _guard = (*heap).lock.lock();
            (*heap).state.store(LIVE, Ordering::Relaxed);
            IDLE_COUNT.fetch_sub(1, Ordering::Relaxed);
        }
        (*heap).exit_rounds = 0;
        if !tagged {
            LIVE_COUNT.fetch_add(1, Ordering::Relaxed);
        }
        heap
    }
}

/// A heap for blocks with tags is made: if it is not the first, several threads count from now on. Under REGISTRY.
fn count_several() {
    let mut any = false;
    // SAFETY: heaps live for good.
    for_each(|heap| any |= unsafe { (*heap).tagged });
    if any {
        // SAFETY: as above.
        counts::several(|see| for_each(|heap| see(unsafe { &(*heap).counts })));
    }
}

/// Memory for a heap, for good; null when there is none.
fn memory_for_heap() -> *mut Heap {
    let memory = meta::alloc(table::HEAP_SPAN, table::HEAP_SPAN);
    if !memory.is_null() {
        return memory.cast();
    }
    // No address space is left: what blocks have given back may do. A run that stays busy is nobody else's.
    let units = table::HEAP_SPAN / classes::UNIT;
    let page = runs::take(units, units);
    // SAFETY: the run was just taken.
    if page.is_null() { ptr::null_mut() } else { unsafe { (*page).start.cast() } }
}

/// The heap for threads that have ended; null when there is no memory.
fn late_heap(tagged: bool) -> *mut Heap {
    debug_assert!(LATE.is_held());
    let late = if tagged { &LATE_TAGGED } else { &LATE_HEAP };
    let mut heap = late.load(Ordering::Relaxed);
    if heap.is_null() {
        heap = claim(tagged);
        if !heap.is_null() {
            if !tagged {
                LIVE_COUNT.fetch_sub(1, Ordering::Relaxed);
            }
            late.store(heap, Ordering::Relaxed);
        }
    }
    heap
}

/// Has `count` count in the calling thread's heap for blocks with tags, or, when it has none any more, in the late one.
/// Nothing is counted when there is no memory for one.
#[cold]
#[inline(never)]
pub(crate) fn count_slowly(count: impl FnOnce(&Counts)) {
    keep_errno(|| {
        let mut heap = TAGGED_HEAP::get();
        if heap == no_heap() {
            heap = begin(true);
        }
        let late = (!heap.is_null() && heap == ended()).then(|| LATE.lock());
        if late.is_some() {
            heap = late_heap(true);
        }
        if !heap.is_null() {
            // SAFETY: the heap is this thread's, or the late one under its lock.
            count(unsafe { &(*heap).counts });
        }
    });
}

/// The end of a thread, as far as pthread tells. Other destructors may follow and allocate, so the heap is kept for two
/// more rounds of destructors (pthread makes four at least); what comes later is served by the late heap.
unsafe extern "C" fn on_thread_exit(heap: *mut c_void) {
    let heap = heap.cast::<Heap>();
    // SAFETY: pthread calls this on the thread that set the value: its own heap.
    unsafe {
        (*heap).exit_rounds += 1;
        if (*heap).exit_rounds <= 2 && EXIT.set(heap.cast()) {
            return;
        }
        {
            // Nobody writes the cell once the thread is gone.
            let _registry = REGISTRY.lock();
            (*heap).cell.store(ptr::null_mut(), Ordering::Relaxed);
        }
        let tagged = TAGGED_HEAP::get();
        OPEN_HEAP::set(ended());
        HEAP::set(ended());
        TAGGED_HEAP::set(ended());
        retire(heap);
        if is_real(tagged) {
            retire(tagged);
        }
    }
}

/// Leaves a heap to others: other heaps' blocks go to where they belong. Its own stay in the bins for the next thread; if
/// none comes soon, the upkeep sends them home.
///
/// # Safety
/// No thread uses the heap any more.
pub(crate) unsafe fn retire(heap: *mut Heap) {
    // SAFETY: the caller's promise: bins and outbox are ours; the pages are touched under the lock.
    unsafe {
        empty_outbox(heap);
        empty_cache(heap);
        let guard = (*heap).lock.lock();
        (*heap).state.store(ENDING, Ordering::Relaxed);
        drain(heap, false, DRAIN);
        (*heap).epoch = upkeep::epoch();
        drop(guard);
        let _registry = REGISTRY.lock();
        (*heap).state.store(IDLE, Ordering::Relaxed);
        IDLE_COUNT.fetch_add(1, Ordering::Relaxed);
        if (*heap).tagged {
            (*heap).counts.rest();
        } else {
            LIVE_COUNT.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Sends home what the calling thread has in its bins and outbox.
pub(crate) fn release_own() {
    release(HEAP::get());
    release(TAGGED_HEAP::get());
}

fn release(heap: *mut Heap) {
    if !is_real(heap) {
        return;
    }
    // SAFETY: the heap is this thread's.
    unsafe {
        empty_outbox(heap);
        empty_cache(heap);
        let _guard = (*heap).lock.lock();
        empty_bins(heap);
        while has_inbox(heap) {
            drain(heap, false, DRAIN);
        }
        empty_ready(heap);
        look_at_cold(heap, usize::MAX, true);
    }
}

unsafe fn empty_outbox(heap: *mut Heap) {
    // SAFETY: the caller owns the outbox.
    unsafe {
        for index in 0..BATCHES {
            flush(&raw mut (*heap).outbox[index]);
        }
    }
}

/// Empties the cache of the calling thread's heap, or of one that has no thread any more, while nobody else does.
unsafe fn empty_cache(heap: *mut Heap) {
    let _one = upkeep::lock().lock();
    // SAFETY: the caller owns the cache; others come inside under this lock only.
    unsafe { (*heap).cache.empty_older(0) };
}

unsafe fn empty_bins(heap: *mut Heap) {
    // SAFETY: the caller owns the bins and holds the lock.
    unsafe {
        for class in 1..=CLASS_COUNT {
            close_bin(heap, class);
        }
    }
}

/// In a forked child: the heaps of the threads that do not exist here are left to others. A thread may have been between
/// any two instructions; stores were seen in order, so its lists are whole and lack at most the block in its hands.
pub(crate) fn after_fork_in_child() {
    let late = [LATE_HEAP.load(Ordering::Relaxed), LATE_TAGGED.load(Ordering::Relaxed)];
    for_each(|heap| {
        // SAFETY: the other threads do not exist; all locks are free.
        unsafe {
            (*heap).cache.reopen();
            if !is_mine(heap) && !late.contains(&heap) && (*heap).state.load(Ordering::Relaxed) != IDLE {
                (*heap).cell.store(ptr::null_mut(), Ordering::Relaxed);
                for class in 1..=CLASS_COUNT {
                    keep_sound(&raw mut (*heap).bins[class].head, class);
                    keep_sound(&raw mut (*heap).heads[class], class);
                    keep_reserve_sound(heap, class);
                    let mut page = (*heap).queues[class];
                    while !page.is_null() {
                        if (*page).slot != 0 {
                            keep_sound(&raw mut (*slot_of(heap, page)).head, class);
                        }
                        page = (*page).next;
                    }
                }
                retire(heap);
            }
        }
    });
}

/// No list of a class is longer.
const LONGEST: usize = 1 << 17;

/// Cuts a bin's list before the first block that does not belong there.
unsafe fn keep_sound(mut link: *mut *mut Block, class: usize) {
    // SAFETY: the table tells whether an address is one of this allocator's blocks before it is read.
    unsafe {
        for _ in 0..LONGEST {
            let block = *link;
            if block.is_null() {
                return;
            }
            if !is_of_class(block, class) {
                break;
            }
            link = &raw mut (*block).next;
        }
        *link = ptr::null_mut();
    }
}

/// The same for the lists of a reserve.
unsafe fn keep_reserve_sound(heap: *mut Heap, class: usize) {
    // SAFETY: as above.
    unsafe {
        let reserve = &raw mut (*heap).reserves[class];
        let most = classes::get(class).reserve;
        let (mut link, mut length) = (&raw mut (*reserve).head, 0);
        while !(*link).is_null() && length < most {
            let mut list = *link;
            keep_sound(&raw mut list, class);
            if list.is_null() {
                break;
            }
            link = &raw mut (*list).next_batch;
            length += 1;
        }
        *link = ptr::null_mut();
        if length > 0 || (*reserve).room > 0 {
            (*reserve).room = most - length;
        }
    }
}

/// Whether this is a block of a page of the class.
fn is_of_class(block: *mut Block, class: usize) -> bool {
    let word = table::word(block.addr());
    // SAFETY: the word is that of a page.
    word.is_small() && word.class(block.addr()) == class && unsafe { page::is_block_start(block.cast()) }
}

/// Takes every heap's lock and those around them, in the order in which the rest of the crate nests them; or gives them
/// back. For fork and for [`crate::check`].
pub(crate) fn stop_all(stop: bool) {
    if stop {
        LATE.lock_raw();
        REGISTRY.lock_raw();
    }
    for_each(|heap| {
        // SAFETY: heaps live for good.
        let lock = unsafe { &(*heap).lock };
        if stop { lock.lock_raw() } else { lock.unlock_raw() }
    });
    if !stop {
        REGISTRY.unlock_raw();
        LATE.unlock_raw();
    }
}

/// Checks a heap's queues and, when it is the calling thread's, its bins; counts faults. Between [`stop_all`]s.
pub(crate) fn check_heap(heap: *mut Heap) -> usize {
    let mut faults = 0;
    if is_mine(heap) {
        // SAFETY: heaps live for good.
        faults += unsafe { (*heap).cache.check() };
    }
    // SAFETY: pages and queues are read under the heap's lock, bins only on their own thread.
    unsafe {
        debug_assert!((*heap).lock.is_held());
        for class in 1..=CLASS_COUNT {
            let mut page = (*heap).queues[class];
            let mut before = ptr::null_mut();
            while !page.is_null() {
                let sound = (*page).kind.get() == Kind::Small
                    && (*page).class as usize == class
                    && (*page).queued
                    && (*page).prev == before
                    && (*page).heap.load(Ordering::Relaxed) == heap
                    && ((*page).slot != 0 || Page::has_free(page));
                if !sound {
                    faults += 1;
                    break;
                }
                if (*page).slot != 0 && is_mine(heap) && !is_cold_sound(heap, page) {
                    faults += 1;
                }
                before = page;
                page = (*page).next;
            }
            if is_mine(heap) {
                for mut block in [(*heap).bins[class].head, (*heap).heads[class]] {
                    let mut length = 0;
                    while !block.is_null() {
                        length += 1;
                        if length > LONGEST || !is_of_class(block, class) {
                            faults += 1;
                            break;
                        }
                        block = (*block).next;
                    }
                }
                faults += usize::from(!is_reserve_sound(heap, class));
            }
        }
    }
    faults
}

/// Whether a class's reserve has as many lists as it says, each of as many blocks as a full bin.
unsafe fn is_reserve_sound(heap: *mut Heap, class: usize) -> bool {
    // SAFETY: by the heap's thread.
    unsafe {
        let about = classes::get(class);
        let reserve = (*heap).reserves[class];
        let (mut list, mut lists) = (reserve.head, 0);
        while !list.is_null() && lists <= about.reserve {
            let (mut block, mut length) = (list, 0);
            while !block.is_null() && length <= about.bin && is_of_class(block, class) {
                block = (*block).next;
                length += 1;
            }
            if !block.is_null() || length > about.bin {
                return false;
            }
            list = (*list).next_batch;
            lists += 1;
        }
        list.is_null() && (lists + reserve.room == about.reserve || lists == 0 && reserve.room == 0)
    }
}

/// Whether a cold page's bin holds as many blocks as it says, all of them the page's.
unsafe fn is_cold_sound(heap: *mut Heap, page: *mut Page) -> bool {
    // SAFETY: under the heap's lock, by its thread.
    unsafe {
        let slot = slot_of(heap, page);
        let (mut block, mut count) = ((*slot).head, 0);
        while count <= (*page).carved
            && table::word(block.addr()) == Word::of_bin(slot)
            && page::is_block_start(block.cast())
        {
            block = (*block).next;
            count += 1;
        }
        block.is_null() && count + left(slot) - (*page).outside + (*page).free_count == (*page).carved
    }
}
