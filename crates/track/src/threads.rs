//! What each thread counts, and its ring of recent frees.
//!
//! A thread's record is written by that thread only and read by anybody; a record outlives its thread, its counts moved
//! into [`DEAD`], and serves the next one. A cell points at the record, at first at [`INITIAL`] and, once the
//! thread's destructor has run (or when there is no memory for a record), at [`SHARED`]; their limits are such that every
//! operation on them takes the slow path.
//!
//! The peak. With one thread it is exact: the record's high-water mark. With several no thread knows what the others
//! have live, so each keeps a `limit` at or above its own live bytes, [`CHARGED`] is the sum of all limits, and the peak
//! is the most that `CHARGED` has been. A limit is moved when live bytes leave `floor..=limit`, which is 64 KiB wide: so
//! the peak is never too low, and too high by at most 64 KiB for each thread.

use allokit_platform::{Lock, errno, meta, thread, thread_cell};
use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Half the width of `floor..=limit`.
const MARGIN: i64 = 32 << 10;
/// Frees that each thread remembers.
pub(crate) const RING: usize = 256;

/// A thread's record. All zeroes is valid.
#[repr(C, align(64))]
pub(crate) struct Record {
    alloc_count: AtomicU64,
    alloc_bytes: AtomicU64,
    free_count: AtomicU64,
    free_bytes: AtomicU64,
    limit: AtomicI64,
    floor: AtomicI64,
    /// The most live bytes of this record since it was taken.
    high: AtomicI64,
    /// Whether a thread has it.
    in_use: AtomicBool,
    /// The next of all records.
    next: AtomicPtr<Record>,
    /// The last frees; the next one goes to `free_count % RING`.
    ring: [Slot; RING],
}

impl Record {
    const fn empty(limit: i64, floor: i64) -> Record {
        Record {
            alloc_count: AtomicU64::new(0),
            alloc_bytes: AtomicU64::new(0),
            free_count: AtomicU64::new(0),
            free_bytes: AtomicU64::new(0),
            limit: AtomicI64::new(limit),
            floor: AtomicI64::new(floor),
            high: AtomicI64::new(0),
            in_use: AtomicBool::new(false),
            next: AtomicPtr::new(ptr::null_mut()),
            ring: [const { Slot::empty() }; RING],
        }
    }

    fn live(&self) -> i64 {
        self.alloc_bytes.load(Ordering::Relaxed).wrapping_sub(self.free_bytes.load(Ordering::Relaxed)) as i64
    }
}

/// Counts of one kind, to be added: at most one block each way.
#[derive(Clone, Copy, Default)]
struct Change {
    allocs: u64,
    alloc_bytes: u64,
    frees: u64,
    free_bytes: u64,
}

/// Where a new thread's cell points. Never written.
static INITIAL: Record = Record::empty(i64::MIN, i64::MAX);
/// For threads without a record of their own: written under [`LOCK`], its ring by anybody.
static SHARED: Record = Record::empty(i64::MIN, i64::MAX);
/// The counts of threads that have ended. Written under [`LOCK`].
static DEAD: Record = Record::empty(i64::MIN, i64::MAX);

/// Guards the list of records, taking and returning them, `SHARED` and `DEAD`.
static LOCK: Lock = Lock::new();
static RECORDS: AtomicPtr<Record> = AtomicPtr::new(ptr::null_mut());
/// The sum of the limits, of the live bytes of ended threads, and of SHARED's.
static CHARGED: AtomicI64 = AtomicI64::new(0);
/// The most that CHARGED has been since there was a second thread, and the first thread's peak before.
static PEAK: AtomicI64 = AtomicI64::new(0);
/// Whether more than one record was ever taken.
static SEVERAL: AtomicBool = AtomicBool::new(false);
static AT_END: thread::Key = thread::Key::new(at_thread_end);

thread_cell! { pub(crate) static TRACK_THREAD: *mut Record = INITIAL; }

#[inline(always)]
fn mine() -> &'static Record {
    // SAFETY: the cell points at a static or at a record, which are for good.
    unsafe { &*TRACK_THREAD::get() }
}

#[inline(always)]
fn add(counter: &AtomicU64, value: u64) {
    // One writer: no read-modify-write is needed.
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
}

/// Counts a block handed out.
#[inline(always)]
pub fn on_alloc(size: usize) {
    let record = mine();
    let live = record.live().wrapping_add(size as i64);
    if live > record.limit.load(Ordering::Relaxed) {
        return change_slowly(Change { allocs: 1, alloc_bytes: size as u64, ..Change::default() });
    }
    add(&record.alloc_count, 1);
    add(&record.alloc_bytes, size as u64);
    if live > record.high.load(Ordering::Relaxed) {
        record.high.store(live, Ordering::Relaxed);
    }
}

/// Counts a block taken back, and remembers it.
#[inline(always)]
pub(crate) fn on_free(addr: usize, freed: Freed) {
    let record = mine();
    if record.live().wrapping_sub(freed.size as i64) < record.floor.load(Ordering::Relaxed) {
        return on_free_slowly(addr, freed);
    }
    remember(record, addr, freed);
    add(&record.free_count, 1);
    add(&record.free_bytes, freed.size as u64);
}

/// Counts a block taken back that somebody else remembers.
#[inline(always)]
pub fn count_free(size: usize) {
    let record = mine();
    if record.live().wrapping_sub(size as i64) < record.floor.load(Ordering::Relaxed) {
        return change_slowly(Change { frees: 1, free_bytes: size as u64, ..Change::default() });
    }
    add(&record.free_count, 1);
    add(&record.free_bytes, size as u64);
}

#[cold]
#[inline(never)]
fn on_free_slowly(addr: usize, freed: Freed) {
    remember_slowly(addr, freed);
    change_slowly(Change { frees: 1, free_bytes: freed.size as u64, ..Change::default() });
}

/// Counts a block resized: one taken back, which is remembered if the block has moved, and one of `new` bytes handed out.
pub(crate) fn on_realloc(addr: usize, freed: Freed, new: usize, moved: bool) {
    remember_slowly(if moved { addr } else { 0 }, freed);
    let old = freed.size;
    let change = Change { allocs: 1, alloc_bytes: new as u64, frees: 1, free_bytes: old as u64 };
    let record = mine();
    let live = record.live().wrapping_sub(old as i64).wrapping_add(new as i64);
    if live > record.limit.load(Ordering::Relaxed) || live < record.floor.load(Ordering::Relaxed) {
        return change_slowly(change);
    }
    apply(record, change);
}

fn apply(record: &Record, change: Change) {
    add(&record.free_count, change.frees);
    add(&record.free_bytes, change.free_bytes);
    add(&record.alloc_count, change.allocs);
    add(&record.alloc_bytes, change.alloc_bytes);
    let live = record.live();
    if live > record.high.load(Ordering::Relaxed) {
        record.high.store(live, Ordering::Relaxed);
    }
}

#[cold]
#[inline(never)]
fn change_slowly(change: Change) {
    let _errno = errno::Saved::new();
    let mut record = mine();
    if ptr::eq(record, &raw const INITIAL) {
        record = register();
    }
    if ptr::eq(record, &raw const SHARED) {
        let _guard = LOCK.lock();
        apply(&SHARED, change);
        charge(change.alloc_bytes.wrapping_sub(change.free_bytes) as i64);
        return;
    }
    apply(record, change);
    let live = record.live();
    let limit = record.limit.load(Ordering::Relaxed);
    if live > limit || live < record.floor.load(Ordering::Relaxed) {
        set_limits(record, live);
        charge(live + MARGIN - limit);
    }
}

fn set_limits(record: &Record, live: i64) {
    record.limit.store(live + MARGIN, Ordering::Relaxed);
    record.floor.store(live - MARGIN, Ordering::Relaxed);
}

/// SeqCst with `register`: either this sees SEVERAL, or `register` sees this charge.
fn charge(bytes: i64) {
    let charged = CHARGED.fetch_add(bytes, Ordering::SeqCst) + bytes;
    if SEVERAL.load(Ordering::SeqCst) {
        PEAK.fetch_max(charged, Ordering::Relaxed);
    }
}

/// Whether more than one thread has counted.
pub fn are_several() -> bool {
    SEVERAL.load(Ordering::Relaxed)
}

/// Gives the calling thread a record, or SHARED when there is no memory or no way to get it back.
#[cold]
fn register() -> &'static Record {
    let record = take_record();
    if !ptr::eq(record, &raw const SHARED) && !AT_END.set(ptr::from_ref(record).cast_mut().cast()) {
        give_back(record);
        TRACK_THREAD::set((&raw const SHARED).cast_mut());
        return &SHARED;
    }
    TRACK_THREAD::set(ptr::from_ref(record).cast_mut());
    record
}

fn take_record() -> &'static Record {
    let _guard = LOCK.lock();
    let first = RECORDS.load(Ordering::Relaxed);
    let mut found = first;
    // SAFETY: records are for good.
    while let Some(record) = unsafe { found.as_ref() } {
        if !record.in_use.load(Ordering::Relaxed) {
            break;
        }
        found = record.next.load(Ordering::Relaxed);
    }
    if found.is_null() {
        found = meta::alloc(size_of::<Record>(), align_of::<Record>()).cast();
        if found.is_null() {
            several();
            return &SHARED;
        }
        // SAFETY: zeroed memory is a Record.
        unsafe { (*found).next.store(first, Ordering::Relaxed) };
        RECORDS.store(found, Ordering::Release);
    }
    if !first.is_null() {
        several();
    }
    // SAFETY: as above.
    let record = unsafe { &*found };
    record.high.store(0, Ordering::Relaxed);
    set_limits(record, 0);
    charge(MARGIN);
    record.in_use.store(true, Ordering::Relaxed);
    record
}

/// From now on the peak is that of CHARGED. Under the lock; at most one record was ever used before the first call.
fn several() {
    if SEVERAL.load(Ordering::Relaxed) {
        return;
    }
    SEVERAL.store(true, Ordering::SeqCst);
    let mut high = 0;
    for_each_record(|record| high = high.max(record.high.load(Ordering::Relaxed)));
    PEAK.fetch_max(high.max(CHARGED.load(Ordering::SeqCst)), Ordering::Relaxed);
}

/// Moves a record's counts to DEAD and makes it free. Its thread does not use it any more.
fn give_back(record: &Record) {
    let _guard = LOCK.lock();
    bury(record);
}

/// Under the lock.
fn bury(record: &Record) {
    if !SEVERAL.load(Ordering::Relaxed) {
        PEAK.fetch_max(record.high.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    let live = record.live();
    for (from, to) in [
        (&record.free_count, &DEAD.free_count),
        (&record.free_bytes, &DEAD.free_bytes),
        (&record.alloc_count, &DEAD.alloc_count),
        (&record.alloc_bytes, &DEAD.alloc_bytes),
    ] {
        add(to, from.swap(0, Ordering::Relaxed));
    }
    CHARGED.fetch_sub(record.limit.load(Ordering::Relaxed) - live, Ordering::SeqCst);
    record.in_use.store(false, Ordering::Relaxed);
}

unsafe extern "C" fn at_thread_end(value: *mut c_void) {
    // Later destructors of this thread may still allocate and free.
    TRACK_THREAD::set((&raw const SHARED).cast_mut());
    // SAFETY: `register` has set the value to a record.
    give_back(unsafe { &*value.cast::<Record>() });
}

/// The totals of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) alloc_count: u64,
    pub(crate) alloc_bytes: u64,
    pub(crate) free_count: u64,
    pub(crate) free_bytes: u64,
    pub(crate) peak_bytes: u64,
    pub(crate) threads: u64,
}

/// Exact when no other thread allocates or frees meanwhile.
pub(crate) fn totals() -> Totals {
    let _guard = LOCK.lock();
    let mut totals = Totals::default();
    let mut peak = PEAK.load(Ordering::Relaxed);
    let mut sum = |record: &Record| {
        // Frees first: what is freed in between must not exceed what is allocated.
        totals.free_count += record.free_count.load(Ordering::Acquire);
        totals.free_bytes += record.free_bytes.load(Ordering::Acquire);
        totals.alloc_count += record.alloc_count.load(Ordering::Acquire);
        totals.alloc_bytes += record.alloc_bytes.load(Ordering::Acquire);
    };
    sum(&DEAD);
    sum(&SHARED);
    let mut threads = 0;
    for_each_record(|record| {
        if record.in_use.load(Ordering::Relaxed) {
            sum(record);
            threads += 1;
            if !SEVERAL.load(Ordering::Relaxed) {
                peak = peak.max(record.high.load(Ordering::Relaxed));
            }
        }
    });
    totals.threads = threads;
    totals.peak_bytes = (peak.max(0) as u64).max(totals.alloc_bytes.saturating_sub(totals.free_bytes));
    totals
}

fn for_each_record(mut visit: impl FnMut(&'static Record)) {
    let mut next = RECORDS.load(Ordering::Acquire);
    // SAFETY: records are for good.
    while let Some(record) = unsafe { next.as_ref() } {
        visit(record);
        next = record.next.load(Ordering::Relaxed);
    }
}

// ---- the ring ----

/// A remembered free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freed {
    pub size: usize,
    pub allocated_at: u32,
    pub freed_at: u32,
}

/// A place in the ring; address 0 is none.
struct Slot {
    addr: AtomicUsize,
    size: AtomicUsize,
    /// Allocated at, low 32 bits; freed at, high.
    sites: AtomicU64,
}

impl Slot {
    const fn empty() -> Slot {
        Slot { addr: AtomicUsize::new(0), size: AtomicUsize::new(0), sites: AtomicU64::new(0) }
    }
}

/// The count of frees, which says where, is to be raised by the caller.
#[inline(always)]
fn remember(record: &Record, addr: usize, freed: Freed) {
    let slot = &record.ring[record.free_count.load(Ordering::Relaxed) as usize % RING];
    slot.addr.store(addr, Ordering::Relaxed);
    slot.size.store(freed.size, Ordering::Relaxed);
    slot.sites.store(u64::from(freed.allocated_at) | u64::from(freed.freed_at) << 32, Ordering::Relaxed);
}

/// As [`remember`], for a thread that may not have a record yet.
fn remember_slowly(addr: usize, freed: Freed) {
    let mut record = mine();
    if ptr::eq(record, &raw const INITIAL) {
        let _errno = errno::Saved::new();
        record = register();
    }
    remember(record, addr, freed);
}

/// The latest free of a block at `addr` that is remembered: of this thread if it has one, else of any.
pub fn recall(addr: usize) -> Option<Freed> {
    let own = recall_from(mine(), addr);
    if own.is_some() {
        return own;
    }
    let mut found = recall_from(&SHARED, addr);
    for_each_record(|record| found = found.or_else(|| recall_from(record, addr)));
    found
}

fn recall_from(record: &Record, addr: usize) -> Option<Freed> {
    let frees = record.free_count.load(Ordering::Relaxed) as usize;
    (1..=RING).find_map(|back| {
        let slot = &record.ring[frees.wrapping_sub(back) % RING];
        let sites = slot.sites.load(Ordering::Relaxed);
        (slot.addr.load(Ordering::Relaxed) == addr).then(|| Freed {
            size: slot.size.load(Ordering::Relaxed),
            allocated_at: sites as u32,
            freed_at: (sites >> 32) as u32,
        })
    })
}

// ---- fork ----

/// The lock of the records, for fork handlers.
pub(crate) fn lock() -> &'static Lock {
    &LOCK
}

/// In a forked child only the calling thread goes on: the others' records are free. All locks are free.
pub(crate) fn after_fork_in_child() {
    let _guard = LOCK.lock();
    let own = mine();
    for_each_record(|record| {
        if record.in_use.load(Ordering::Relaxed) && !ptr::eq(record, own) {
            bury(record);
        }
    });
}
