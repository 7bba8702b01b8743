//! Stacks: which calls led to an allocation, as a number in the space of sites.
//!
//! A stack is the site of the call itself (the *leaf*), the return addresses above it, and how it came to be taken: always,
//! or as one of a sample. Its number counts down from [`Tag::SITE_MAX`], as those of sites count up from 1, so that tags,
//! headers, snapshots and reports take one for the other; asked for its place, a stack names its leaf's.
//!
//! The store is append-only, and finding a stack in it takes no lock: a record is made, then named by a slot of a table with one exchange, so of two
//! threads with the same stack one finds the other's. Tables are of growing size, eight slots (a line of the cache) to a
//! bucket; what finds a bucket full goes to the next table. Nothing is ever given back. When numbers, slots or memory are
//! used up, a block falls back to its leaf, which is counted and told once.
//!
//! Sampling: of the bytes that a thread allocates one in so many is chosen, at random (the gaps are exponentially
//! distributed), and the block that it lies in gets its stack. A block of `size` bytes is so chosen with the probability
//! `1 - exp(-(size + 1) / interval)`, and stands for as many as that says, so sums over sampled blocks are right on average
//! whatever their sizes. Blocks that are passed over carry the number [`UNSAMPLED`].
//!
//! Each thread has a record ([`Thread`]): the bounds of its stack, how far its next sample is, a random generator.

use crate::sites::{self, SiteId};
use allokit_core::Tag;
use allokit_platform::unwind::{self, Bounds, Here, How};
use allokit_platform::{Lock, entropy, errno, meta, pages, stderr::Stderr, thread, thread_cell};
use core::ffi::c_void;
use core::fmt::Write;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// The number that blocks carry which a sample has passed over.
pub(crate) const UNSAMPLED: u32 = Tag::SITE_MAX;
/// How many stacks there may be; the rest of the numbers is for sites.
const MOST: u32 = 3 << 18;
/// How many bytes of records there may be.
const MOST_BYTES: usize = if cfg!(test) { 1 << 20 } else { 256 << 20 };
/// Stacks and sites stay so far apart that threads which take a number at once do not meet.
const APART: u32 = 4096;
/// The most frames of a stack, the leaf included.
pub const DEPTH_MOST: usize = 128;
/// As many as are kept unless somebody wants another number.
pub const DEPTH: usize = 32;

/// A record; `len` return addresses follow, the innermost first.
#[repr(C)]
struct Stack {
    hash: u64,
    /// Of how many bytes one was chosen; 0: each block has its stack.
    interval: u64,
    leaf: u32,
    len: u32,
}

impl Stack {
    fn frames(&self) -> &[usize] {
        // SAFETY: so many words follow, and none of them changes.
        unsafe { core::slice::from_raw_parts(ptr::from_ref(self).add(1).cast(), self.len as usize) }
    }
}

/// A number in its low bits, and above them those of the hash that say nothing of the bucket; 0 is none.
type Slot = AtomicU64;

#[repr(C, align(64))]
struct Bucket([Slot; 8]);

const NUMBER_BITS: u32 = Tag::SITE_MAX.count_ones();
/// The tables: the first has so many buckets, each further one four times as many.
const FIRST_BUCKETS: usize = 128;
const TABLES: usize = 7;

const fn buckets(table: usize) -> usize {
    FIRST_BUCKETS << (2 * table)
}
const _: () =
    assert!(buckets(TABLES - 1) <= 1 << NUMBER_BITS && size_of::<Stack>().is_multiple_of(align_of::<usize>()));

static TABLE: [AtomicPtr<Bucket>; TABLES] = [const { AtomicPtr::new(ptr::null_mut()) }; TABLES];

/// Records by their number, counted down from [`UNSAMPLED`].
const CHUNK: usize = 1024;
static RECORDS: [AtomicPtr<AtomicPtr<Stack>>; MOST as usize / CHUNK] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MOST as usize / CHUNK];
/// How many numbers were given out.
static COUNT: AtomicU32 = AtomicU32::new(0);
/// How many bytes of records were taken.
static BYTES: AtomicUsize = AtomicUsize::new(0);
/// How many blocks have a leaf in the place of a stack since the store is full.
static LOST: AtomicU64 = AtomicU64::new(0);

// ---- what is wanted

/// 0: each allocation.
static INTERVAL: AtomicU64 = AtomicU64::new(0);
/// Without the leaf.
static FRAMES: AtomicUsize = AtomicUsize::new(DEPTH - 1);
/// How callers are found: 0, by tables while there is sampling; 1, by frame pointers; 2, by tables.
static HOW: AtomicU8 = AtomicU8::new(0);
/// 0: none.
static SEED: AtomicU64 = AtomicU64::new(0);

/// From now on one in `bytes` bytes is sampled; 0: each allocation.
pub fn set_interval(bytes: usize) {
    INTERVAL.store((bytes as u64).min(1 << 40), Ordering::Relaxed);
}

/// See [`set_interval`].
#[must_use]
pub fn interval() -> usize {
    INTERVAL.load(Ordering::Relaxed) as usize
}

/// From now on stacks have at most so many frames, the leaf included; at least 1, at most [`DEPTH_MOST`].
pub fn set_depth(frames: usize) {
    FRAMES.store(frames.clamp(1, DEPTH_MOST) - 1, Ordering::Relaxed);
}

/// How callers are found from now on; `None`: by the tables of the code while there is sampling, else by frame pointers.
pub fn set_how(how: Option<How>) {
    let how = match how {
        None => 0,
        Some(How::Pointers) => 1,
        Some(How::Tables) => 2,
    };
    HOW.store(how, Ordering::Relaxed);
}

/// Threads that have no random generator yet get one that begins here, and so the same sample in each run.
pub fn set_seed(seed: u64) {
    SEED.store(seed, Ordering::Relaxed);
}

// ---- what is kept

/// How many stacks have a number, and how many numbers there are in all: those of sites, [`SiteId::UNKNOWN`] and stacks.
pub(crate) fn count() -> u32 {
    COUNT.load(Ordering::Acquire).min(MOST)
}

/// The largest number that a site may have.
pub(crate) fn room_for_sites() -> u32 {
    UNSAMPLED - APART - count()
}

fn stack(number: u32) -> Option<&'static Stack> {
    let index = UNSAMPLED.checked_sub(number)?.checked_sub(1)?;
    if index >= count() {
        return None;
    }
    let chunk = RECORDS[index as usize / CHUNK].load(Ordering::Acquire);
    if chunk.is_null() {
        return None;
    }
    // SAFETY: chunks have CHUNK places and are for good, as records are.
    unsafe { (*chunk.add(index as usize % CHUNK)).load(Ordering::Acquire).as_ref() }
}

/// The leaf of a stack; `None` for other numbers.
pub(crate) fn leaf(number: u32) -> Option<u32> {
    stack(number).map(|stack| stack.leaf)
}

impl SiteId {
    /// The return addresses above the call, the innermost first; none unless this is a stack.
    #[must_use]
    pub fn frames(self) -> &'static [usize] {
        stack(self.0).map_or(&[], Stack::frames)
    }

    /// Of how many bytes one was chosen, if the blocks of this number are of a sample.
    #[must_use]
    pub fn sampled_of(self) -> Option<u64> {
        stack(self.0).map(|stack| stack.interval).filter(|interval| *interval > 0)
    }

    /// The site of the call itself.
    #[must_use]
    pub fn leaf(self) -> SiteId {
        SiteId(leaf(self.0).unwrap_or(self.0))
    }
}

/// For how many blocks a sampled one of `size` bytes stands. (One more than its bytes counts: of size 0 there are some too.)
pub(crate) fn weight(size: usize, interval: u64) -> f64 {
    -1.0 / libm::expm1(-(size as f64 + 1.0) / interval as f64)
}

fn hash_of(leaf: u32, interval: u64, frames: &[usize]) -> u64 {
    let mut hash = u64::from(leaf) ^ interval.rotate_left(32);
    for &frame in frames {
        hash = (hash ^ frame as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    }
    hash = hash.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash ^ hash >> 31
}

/// What a search has come to.
enum Search {
    Found(u32),
    /// Here it would be.
    Free(&'static Slot),
    /// There is no place for it.
    Full,
}

fn search(hash: u64, same: impl Fn(&Stack) -> bool, add_tables: bool) -> Search {
    for (table, place) in TABLE.iter().enumerate() {
        let mut first = place.load(Ordering::Acquire);
        if first.is_null() {
            if !add_tables {
                return Search::Full;
            }
            first = add_table(table);
            if first.is_null() {
                return Search::Full;
            }
        }
        // SAFETY: the table has so many buckets, and is for good.
        let bucket = unsafe { &*first.add(hash as usize & (buckets(table) - 1)) };
        for slot in &bucket.0 {
            let found = slot.load(Ordering::Acquire);
            if found == 0 {
                return Search::Free(slot);
            }
            let number = (found & u64::from(Tag::SITE_MAX)) as u32;
            if (found ^ hash) >> NUMBER_BITS == 0 && stack(number).is_some_and(&same) {
                return Search::Found(number);
            }
        }
    }
    Search::Full
}

#[cold]
fn add_table(table: usize) -> *mut Bucket {
    let bytes = buckets(table) * size_of::<Bucket>();
    let bytes = bytes.next_multiple_of(pages::os_page());
    let made = pages::map(bytes, pages::os_page()).cast::<Bucket>();
    match TABLE[table].compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => made,
        Err(other) => {
            if !made.is_null() {
                // SAFETY: nobody else knows it.
                unsafe { pages::release(made.cast(), bytes, pages::os_page()) };
            }
            other
        }
    }
}

/// The number of a stack, given now if it has none; `None` when there is no room for another one.
fn number_of(leaf: u32, interval: u64, frames: &[usize]) -> Option<u32> {
    let hash = hash_of(leaf, interval, frames);
    let same = |known: &Stack, hash: u64, frames: &[usize]| {
        known.hash == hash && known.leaf == leaf && known.interval == interval && known.frames() == frames
    };
    if let Search::Found(number) = search(hash, |known| same(known, hash, frames), false) {
        return Some(number);
    }
    // It is new. What was read where a frame pointer might be, and is no code, ends it.
    let end = frames.iter().position(|&frame| !unwind::is_code(frame - 1));
    let frames = &frames[..end.unwrap_or(frames.len())];
    if interval == 0 && frames.is_empty() {
        return Some(leaf);
    }
    let hash = hash_of(leaf, interval, frames);
    let mut made = None;
    loop {
        match search(hash, |known| same(known, hash, frames), true) {
            Search::Found(number) => return Some(number),
            Search::Full => return None,
            Search::Free(slot) => {
                // One that another thread was faster to name is lost: a few bytes, and a number.
                let number = match made {
                    Some(number) => number,
                    None => *made.insert(make(hash, leaf, interval, frames)?),
                };
                let named = hash >> NUMBER_BITS << NUMBER_BITS | u64::from(number);
                if slot.compare_exchange(0, named, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    return Some(number);
                }
            }
        }
    }
}

/// A record with a number, not in a table yet.
#[cold]
fn make(hash: u64, leaf: u32, interval: u64, frames: &[usize]) -> Option<u32> {
    let bytes = size_of::<Stack>() + size_of_val(frames);
    if COUNT.load(Ordering::Relaxed) >= MOST
        || COUNT.load(Ordering::Relaxed) + sites::count() > UNSAMPLED - 2 * APART
        || BYTES.fetch_add(bytes, Ordering::Relaxed) > MOST_BYTES
    {
        return None;
    }
    let record = meta::alloc(bytes, align_of::<Stack>()).cast::<Stack>();
    if record.is_null() {
        return None;
    }
    // SAFETY: the memory is ours and large enough.
    unsafe {
        record.write(Stack { hash, interval, leaf, len: frames.len() as u32 });
        record.add(1).cast::<usize>().copy_from_nonoverlapping(frames.as_ptr(), frames.len());
    }
    let index = COUNT.fetch_add(1, Ordering::AcqRel);
    let place = &RECORDS.get(index as usize / CHUNK)?;
    let mut chunk = place.load(Ordering::Acquire);
    if chunk.is_null() {
        let made: *mut AtomicPtr<Stack> =
            meta::alloc(CHUNK * size_of::<AtomicPtr<Stack>>(), align_of::<AtomicPtr<Stack>>()).cast();
        if made.is_null() {
            return None;
        }
        chunk = match place.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => made,
            Err(other) => other,
        };
    }
    // SAFETY: the chunk has CHUNK places.
    unsafe { (*chunk.add(index as usize % CHUNK)).store(record, Ordering::Release) };
    Some(UNSAMPLED - 1 - index)
}

// ---- threads

/// What a thread has; written by that thread only. All zeroes is valid.
#[repr(C, align(64))]
pub(crate) struct Thread {
    /// How many bytes until the next sample; not above 0 while there is no sampling.
    left: AtomicI64,
    /// What `left` was drawn for.
    interval: AtomicU64,
    random: AtomicU64,
    low: AtomicUsize,
    /// 0: the bounds are not known.
    high: AtomicUsize,
    /// Whether the thread is in here: what it allocates meanwhile (or a signal handler of it) has no stack.
    busy: AtomicBool,
    /// The next one that no thread has.
    next: AtomicPtr<Thread>,
}

impl Thread {
    const fn new(interval: u64) -> Thread {
        Thread {
            left: AtomicI64::new(0),
            interval: AtomicU64::new(interval),
            random: AtomicU64::new(0),
            low: AtomicUsize::new(0),
            high: AtomicUsize::new(0),
            busy: AtomicBool::new(false),
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

/// Where a new thread's cell points. Never written, and of no interval.
static INITIAL: Thread = Thread::new(u64::MAX);
/// The same for a thread whose end has come, or that got no record.
static ENDED: Thread = Thread::new(u64::MAX);
/// Records that no thread has, and how many there are in all; under [`LOCK`].
static IDLE: AtomicPtr<Thread> = AtomicPtr::new(ptr::null_mut());
static THREADS: AtomicU64 = AtomicU64::new(0);
static LOCK: Lock = Lock::new();
static AT_END: thread::Key = thread::Key::new(at_thread_end);

thread_cell! { pub(crate) static STACKS_THREAD: *mut Thread = INITIAL; }

#[inline(always)]
fn mine() -> &'static Thread {
    // SAFETY: the cell points at a static or at a record, which are for good.
    unsafe { &*STACKS_THREAD::get() }
}

/// The lock of the threads' records, for fork handlers.
pub(crate) fn lock() -> &'static Lock {
    &LOCK
}

#[cold]
fn register() -> &'static Thread {
    let taken = {
        let _guard = LOCK.lock();
        let idle = IDLE.load(Ordering::Relaxed);
        // SAFETY: records are for good.
        if let Some(record) = unsafe { idle.as_ref() } {
            IDLE.store(record.next.load(Ordering::Relaxed), Ordering::Relaxed);
            idle
        } else {
            meta::alloc(size_of::<Thread>(), align_of::<Thread>()).cast::<Thread>()
        }
    };
    // SAFETY: as above; nobody else has it.
    let Some(record) = (unsafe { taken.as_ref() }) else {
        STACKS_THREAD::set((&raw const ENDED).cast_mut());
        return &ENDED;
    };
    let ordinal = THREADS.fetch_add(1, Ordering::Relaxed) + 1;
    let seed = match SEED.load(Ordering::Relaxed) {
        0 => entropy::secret(),
        seed => seed,
    };
    record.random.store(seed.wrapping_add(ordinal.wrapping_mul(0x9e37_79b9_7f4a_7c15)), Ordering::Relaxed);
    record.left.store(0, Ordering::Relaxed);
    record.interval.store(u64::MAX, Ordering::Relaxed);
    record.high.store(0, Ordering::Relaxed);
    // The key may be made, and allocate: that is of no stack.
    record.busy.store(true, Ordering::Relaxed);
    STACKS_THREAD::set(taken);
    if !AT_END.set(taken.cast()) {
        STACKS_THREAD::set((&raw const ENDED).cast_mut());
        give_back(record);
        return &ENDED;
    }
    unwind::prepare();
    let bounds = unwind::bounds().unwrap_or(Bounds::NONE);
    record.low.store(bounds.low, Ordering::Relaxed);
    record.high.store(bounds.high, Ordering::Relaxed);
    record.busy.store(false, Ordering::Relaxed);
    record
}

fn give_back(record: &'static Thread) {
    let _guard = LOCK.lock();
    record.next.store(IDLE.load(Ordering::Relaxed), Ordering::Relaxed);
    IDLE.store(ptr::from_ref(record).cast_mut(), Ordering::Relaxed);
}

unsafe extern "C" fn at_thread_end(value: *mut c_void) {
    // Later destructors of this thread may still allocate.
    STACKS_THREAD::set((&raw const ENDED).cast_mut());
    // SAFETY: `register` has set the value to a record, which is for good.
    give_back(unsafe { &*value.cast::<Thread>() });
}

/// 0 < number <= 1, uniformly (splitmix64).
fn uniform(thread: &Thread) -> f64 {
    let state = thread.random.load(Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
    thread.random.store(state, Ordering::Relaxed);
    let mut mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ mixed >> 31) >> 11) as f64 / (1u64 << 53) as f64 + 1.0 / (1u64 << 54) as f64
}

/// Bytes to the next sample.
fn draw(thread: &Thread, interval: u64) -> i64 {
    (-libm::log(uniform(thread)) * interval as f64) as i64 + 1
}

/// The largest block that [`passes`] counts: such a one a backend has at hand if it has any.
const PASSES_MOST: usize = 16 << 10;

/// Whether a block is passed over by the sample; then it is counted. False says nothing but that [`of`] must be asked.
/// About 10 instructions.
#[inline(always)]
#[must_use]
pub fn passes(size: usize) -> bool {
    let thread = mine();
    let left = thread.left.load(Ordering::Relaxed) - (size as i64 + 1);
    if left <= 0 || size > PASSES_MOST || thread.interval.load(Ordering::Relaxed) != INTERVAL.load(Ordering::Relaxed) {
        return false;
    }
    thread.left.store(left, Ordering::Relaxed);
    true
}

impl SiteId {
    /// What blocks carry that a sample has passed over.
    pub const UNSAMPLED: SiteId = SiteId(UNSAMPLED);
}

/// What a block of `size` bytes is to carry that is allocated by a call which came in at `here`, from `leaf`: its stack; or
/// [`SiteId::UNSAMPLED`]; or its leaf, where the stack cannot be had.
///
/// # Safety
/// The calling thread has not returned from `here`.
pub unsafe fn of(size: usize, here: Here, leaf: impl FnOnce() -> SiteId) -> SiteId {
    let interval = INTERVAL.load(Ordering::Relaxed);
    let mut thread = mine();
    if ptr::eq(thread, &raw const INITIAL) {
        let _errno = errno::Saved::new();
        thread = register();
    }
    if ptr::eq(thread, &raw const ENDED) || thread.busy.load(Ordering::Relaxed) {
        return leaf();
    }
    if thread.interval.load(Ordering::Relaxed) != interval {
        thread.interval.store(interval, Ordering::Relaxed);
        thread.left.store(if interval == 0 { 0 } else { draw(thread, interval) }, Ordering::Relaxed);
    }
    if interval != 0 {
        let left = thread.left.load(Ordering::Relaxed).saturating_sub(size.min(1 << 48) as i64 + 1);
        if left > 0 {
            thread.left.store(left, Ordering::Relaxed);
            return SiteId::UNSAMPLED;
        }
        thread.left.store(draw(thread, interval), Ordering::Relaxed);
    }
    let leaf = leaf();
    thread.busy.store(true, Ordering::Relaxed);
    let mut room = [MaybeUninit::uninit(); DEPTH_MOST];
    let bounds = Bounds { low: thread.low.load(Ordering::Relaxed), high: thread.high.load(Ordering::Relaxed) };
    let most = FRAMES.load(Ordering::Relaxed);
    let how = match HOW.load(Ordering::Relaxed) {
        0 if interval == 0 => How::Pointers,
        1 => How::Pointers,
        _ => How::Tables,
    };
    // SAFETY: the bounds are this thread's; the caller's promise.
    let frames = unsafe { unwind::walk(here, bounds, how, &mut room[..most]) };
    let number = if interval == 0 && frames.is_empty() { Some(leaf.0) } else { number_of(leaf.0, interval, frames) };
    thread.busy.store(false, Ordering::Relaxed);
    number.map_or_else(|| lost(leaf), SiteId)
}

#[cold]
fn lost(leaf: SiteId) -> SiteId {
    if LOST.fetch_add(1, Ordering::Relaxed) == 0 {
        let _errno = errno::Saved::new();
        let mut out = Stderr::new();
        let count = count();
        let _ = writeln!(
            out,
            "allokit: there is no room for more than {count} different stacks; further blocks have their call site only"
        );
    }
    leaf
}

/// How many blocks have got their call site only, since there was no room for another stack.
#[must_use]
pub fn lost_count() -> u64 {
    LOST.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// One stack, as of this leaf and these frames, which are in the test's own code.
    fn number(leaf: u32, interval: u64, frames: &[usize]) -> Option<u32> {
        number_of(leaf, interval, frames)
    }

    /// So many return addresses that are in a module; `which` tells them from others.
    fn code(which: usize, count: usize) -> Vec<usize> {
        let start = number as *const () as usize;
        (0..count).map(|at| start + 1 + (which >> (at % 8)) % 16 + at % 16).collect()
    }

    #[test]
    fn a_stack_has_one_number_whoever_asks() {
        unwind::prepare();
        let all: Vec<Vec<Option<u32>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| (0..if cfg!(miri) { 20 } else { 2000 }).map(|n| number(n, 0, &code(7, 3))).collect())
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.windows(2).all(|two| two[0] == two[1]));
        let mut numbers: Vec<u32> = all[0].iter().map(|number| number.unwrap()).collect();
        for (leaf, &number) in numbers.iter().enumerate() {
            assert_eq!((SiteId(number).leaf().0, SiteId(number).frames()), (leaf as u32, &code(7, 3)[..]));
        }
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), all[0].len());
        let other = number(1, 4096, &code(7, 3)).unwrap();
        assert!(Some(other) != all[0][1] && SiteId(other).sampled_of() == Some(4096));
        assert_eq!(SiteId(numbers[0]).sampled_of(), None);
        assert_ne!(number(1, 0, &code(7, 2)), number(1, 0, &code(7, 3)));
    }

    #[test]
    fn what_is_no_code_ends_a_stack() {
        unwind::prepare();
        if unwind::is_code(8192) {
            return; // the loader cannot be asked here
        }
        let frames = [code(0, 1)[0], 8192, code(0, 1)[0]];
        let number = number(3, 0, &frames).unwrap();
        assert_eq!(SiteId(number).frames(), &frames[..1]);
        assert_eq!(number_of(3, 0, &[8192]), Some(3), "then it is its call site");
    }

    #[test]
    fn a_sample_stands_for_what_it_was_taken_from() {
        let thread = Thread::new(0);
        thread.random.store(11, Ordering::Relaxed);
        let interval = 1 << 12;
        for size in [0usize, 16, 1000, 5000, 100_000] {
            let (mut left, mut blocks) = (draw(&thread, interval), 0.0);
            let rounds = if cfg!(miri) { 100 } else { 200_000 };
            for _ in 0..rounds {
                left -= size as i64 + 1;
                if left <= 0 {
                    left = draw(&thread, interval);
                    blocks += weight(size, interval);
                }
            }
            // Five standard deviations of a sum of independent choices.
            let chance = 1.0 / weight(size, interval);
            let spread = libm::sqrt((1.0 - chance) / chance / f64::from(rounds));
            let ratio = blocks / f64::from(rounds);
            assert!((ratio - 1.0).abs() <= 5.0 * spread + 1e-3, "{size}: {ratio}, {spread}");
        }
    }
}
