//! Freed blocks wait here, cleared, before the backend gets them back: so that a write through an old pointer is seen, an
//! old pointer does not soon name a new block, and a second free can say where the first one was.
//!
//! A thread's record has two parts. A free puts its block into one of 64 places, chosen at random; what was there goes to
//! the end of a ring, and what the ring cannot hold any more leaves at its other end. Larger blocks go to the ring at once.
//! So the order in which memory comes back is not the order in which it was freed, and never at once. What leaves a thread
//! is looked at, every byte, and goes to the backend, or, when the process is to keep more than a thread may, to a ring of
//! the process. Entries lie outside the blocks, which hold nothing but zeroes.
//!
//! A record is written by its thread only (the ring of the process under its lock) and read by anybody; it outlives its
//! thread, with its blocks, and serves the next one.

use crate::block::{self, Layout};
use crate::switches::Check;
use crate::{Options, fault};
use allokit_core::Backend;
use allokit_platform::{Lock, entropy, errno, meta, thread, thread_cell};
use allokit_track::{SiteId, threads::Freed};
use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Places for a block to wait in that are chosen at random.
const PLACES: usize = 64;
/// Blocks of more bytes than this go to the ring at once.
const PLACE_MAX: usize = 1024;
/// Blocks of more bytes than this do not wait in a thread's ring.
const PUSHED: usize = crate::LARGE + 4096;
/// What a thread's ring can hold.
const RING: usize = 1024;
/// When a ring has more than it may, the oldest leave until there is room for so many more: the backend takes and gives
/// them in rows, which costs less than one at a time.
const ROW: usize = 32;
/// How far ahead a block that leaves is fetched.
const AHEAD: usize = 3;
/// What the ring of the process can hold.
const SHARED_RING: usize = 1 << 18;
/// Bytes of blocks that are too large for a thread's ring; those of a quarter do not wait.
const LARGE_MOST: usize = 4 << 20;

/// A block that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// The payload's address; bits 48 to 55: log2 of its distance from the backend's block; bit 56: not all of it is clear.
    place: u64,
    size: u64,
    /// Where it was allocated; where it was freed.
    sites: u64,
}

impl Entry {
    #[inline(always)]
    pub(crate) fn new(payload: *mut u8, layout: Layout, allocated: u32, freed: SiteId, all_clear: bool) -> Entry {
        Entry {
            place: payload.expose_provenance() as u64
                | u64::from(layout.offset.trailing_zeros()) << 48
                | u64::from(!all_clear) << 56,
            size: layout.size as u64,
            sites: u64::from(allocated) | u64::from(freed.number()) << 32,
        }
    }

    pub(crate) fn payload(&self) -> *mut u8 {
        ptr::with_exposed_provenance_mut((self.place & ((1 << 48) - 1)) as usize)
    }

    #[inline(always)]
    pub(crate) fn layout(&self) -> Layout {
        Layout { size: self.size as usize, offset: 1usize.wrapping_shl((self.place >> 48) as u32) }
    }

    /// See [`block::cleared`].
    #[inline(always)]
    pub(crate) fn is_all_clear(&self) -> bool {
        self.place >> 56 & 1 == 0
    }

    pub(crate) fn freed(&self) -> Freed {
        Freed { size: self.size as usize, allocated_at: self.sites as u32, freed_at: (self.sites >> 32) as u32 }
    }

    /// Whether every byte of the block is zero.
    ///
    /// # Safety
    /// The block waits: its memory is there.
    #[inline(always)]
    unsafe fn is_clear(&self) -> bool {
        let layout = self.layout();
        // SAFETY: the caller's promise.
        unsafe {
            block::is_clear(self.payload().sub(layout.offset), layout, self.is_all_clear())
                || !Check::WriteAfterFree.is_on()
        }
    }
}

/// An entry that other threads may read while it is written.
struct Slot {
    place: AtomicU64,
    size: AtomicU64,
    sites: AtomicU64,
}

impl Slot {
    #[allow(clippy::declare_interior_mutable_const)]
    const EMPTY: Slot = Slot { place: AtomicU64::new(0), size: AtomicU64::new(0), sites: AtomicU64::new(0) };

    #[inline(always)]
    fn get(&self) -> Entry {
        Entry {
            place: self.place.load(Ordering::Relaxed),
            size: self.size.load(Ordering::Relaxed),
            sites: self.sites.load(Ordering::Relaxed),
        }
    }

    #[inline(always)]
    fn set(&self, entry: Entry) {
        self.place.store(entry.place, Ordering::Relaxed);
        self.size.store(entry.size, Ordering::Relaxed);
        self.sites.store(entry.sites, Ordering::Relaxed);
    }

    #[inline(always)]
    fn clear(&self) {
        self.place.store(0, Ordering::Relaxed);
    }
}

/// All zeroes is valid, but for `last`.
#[repr(C, align(64))]
struct Record {
    /// The first word of the block freed last, while it waits; else [`NOTHING`].
    last: AtomicPtr<u64>,
    random: AtomicU64,
    /// Bytes that wait.
    bytes: AtomicUsize,
    /// How many may; 0 in a record that is no thread's.
    most: AtomicUsize,
    /// The ring holds the entries from `tail` to `head`, both counted up for ever.
    head: AtomicUsize,
    tail: AtomicUsize,
    /// Frees until everything is checked.
    countdown: AtomicUsize,
    in_use: AtomicBool,
    next: AtomicPtr<Record>,
    places: [Slot; PLACES],
    ring: [Slot; RING],
}

static NOTHING: u64 = 0;

impl Record {
    #[allow(clippy::declare_interior_mutable_const)]
    const EMPTY: Record = Record {
        last: AtomicPtr::new((&raw const NOTHING).cast_mut()),
        random: AtomicU64::new(0),
        bytes: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
        head: AtomicUsize::new(0),
        tail: AtomicUsize::new(0),
        countdown: AtomicUsize::new(0),
        in_use: AtomicBool::new(false),
        next: AtomicPtr::new(ptr::null_mut()),
        places: [Slot::EMPTY; PLACES],
        ring: [Slot::EMPTY; RING],
    };
}

/// Where a new thread's cell points; never written.
static INITIAL: Record = Record::EMPTY;
/// For threads that have ended, or found no memory for a record: nothing waits here.
static NONE: Record = Record::EMPTY;

static RECORDS: AtomicPtr<Record> = AtomicPtr::new(ptr::null_mut());
static AT_END: thread::Key = thread::Key::new(at_thread_end);
/// Bytes for each thread.
static THREAD_MOST: AtomicUsize = AtomicUsize::new(Options::THREAD);
/// Bytes for the process.
static SHARED_MOST: AtomicUsize = AtomicUsize::new(0);
static CHECK_EVERY: AtomicUsize = AtomicUsize::new(0);

/// The ring of the process; guards the list of records too.
static LOCK: Lock = Lock::new();
static SHARED: AtomicPtr<Slot> = AtomicPtr::new(ptr::null_mut());
static SHARED_HEAD: AtomicUsize = AtomicUsize::new(0);
static SHARED_TAIL: AtomicUsize = AtomicUsize::new(0);
static SHARED_BYTES: AtomicUsize = AtomicUsize::new(0);

thread_cell! { static GUARD_THREAD: *mut Record = INITIAL; }

#[inline(always)]
fn mine() -> &'static Record {
    // SAFETY: the cell points at a static or at a record, which are for good.
    unsafe { &*GUARD_THREAD::get() }
}

pub(crate) fn begin(options: Options) {
    let bytes = options.quarantine.unwrap_or(Options::THREAD);
    THREAD_MOST.store(bytes.min(Options::THREAD), Ordering::Relaxed);
    SHARED_MOST.store(bytes.saturating_sub(Options::THREAD), Ordering::Relaxed);
    CHECK_EVERY.store(options.check_every, Ordering::Relaxed);
}

/// The lock, for fork handlers.
pub(crate) fn lock() -> &'static Lock {
    &LOCK
}

/// A look at the block that this thread has freed last: most writes after free come soon.
#[inline(always)]
pub(crate) fn look_at_last(site: SiteId) {
    let last = mine().last.load(Ordering::Relaxed);
    // SAFETY: the block waits in this thread's record, so its memory is there; or it is NOTHING.
    if unsafe { last.read_volatile() } != 0 {
        last_is_not_clear(site);
    }
}

#[cold]
#[inline(never)]
fn last_is_not_clear(site: SiteId) {
    let record = mine();
    let addr = record.last.load(Ordering::Relaxed).addr();
    record.last.store((&raw const NOTHING).cast_mut(), Ordering::Relaxed);
    if Check::WriteAfterFree.is_on()
        && let Some(slot) = find(record, addr)
    {
        let entry = slot.get();
        take_out(record, slot, &entry);
        fault::write_after_free(&entry, site);
    }
}

/// A block that was written to stays where it is, so that nobody gets it.
fn take_out(record: &Record, slot: &Slot, entry: &Entry) {
    slot.clear();
    let bytes = record.bytes.load(Ordering::Relaxed).saturating_sub(entry.layout().gross());
    record.bytes.store(bytes, Ordering::Relaxed);
    if record.last.load(Ordering::Relaxed).addr() == entry.payload().addr() {
        record.last.store((&raw const NOTHING).cast_mut(), Ordering::Relaxed);
    }
}

/// Puts a cleared block into the quarantine, and takes out what has to leave.
///
/// # Safety
/// The block is the backend's, the caller's alone, and all of it is zero.
#[inline(always)]
pub(crate) unsafe fn push<B: Backend>(entry: Entry) {
    let record = mine();
    let gross = entry.layout().gross();
    let bytes = record.bytes.load(Ordering::Relaxed) + gross;
    let most = record.most.load(Ordering::Relaxed);
    if most < gross || gross > PUSHED {
        // SAFETY: the caller's promise.
        return unsafe { push_slowly::<B>(entry) };
    }
    record.bytes.store(bytes, Ordering::Relaxed);
    record.last.store(entry.payload().cast(), Ordering::Relaxed);
    let mut next = entry;
    if gross <= PLACE_MAX {
        let random = record.random.load(Ordering::Relaxed).wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        record.random.store(random, Ordering::Relaxed);
        // SAFETY: six bits.
        let place = unsafe { record.places.get_unchecked((random >> 58) as usize) };
        next = place.get();
        place.set(entry);
    }
    let head = record.head.load(Ordering::Relaxed);
    if next.place != 0 {
        record.ring[head % RING].set(next);
        record.head.store(head + 1, Ordering::Relaxed);
    }
    if bytes > most || head + 1 - record.tail.load(Ordering::Relaxed) >= RING {
        // SAFETY: what leaves the ring is the caller's alone.
        unsafe { shrink::<B>(record, bytes) };
    }
    let countdown = record.countdown.load(Ordering::Relaxed);
    if countdown != 0 {
        count_down(record, countdown);
    }
}

/// Takes out the oldest until what waits fits, and a little more.
#[cold]
#[inline(never)]
unsafe fn shrink<B: Backend>(record: &Record, mut bytes: usize) {
    let most = record.most.load(Ordering::Relaxed);
    let most = most - most / 16;
    let head = record.head.load(Ordering::Relaxed);
    let mut tail = record.tail.load(Ordering::Relaxed);
    while head != tail && (bytes > most || head - tail >= RING - ROW) {
        let slot = &record.ring[tail % RING];
        prefetch(record.ring[(tail + AHEAD) % RING].get().payload());
        let oldest = slot.get();
        tail += 1;
        // First it is out of the ring: a child of a fork that happens now loses the block, and does not free it twice.
        record.tail.store(tail, Ordering::Relaxed);
        if oldest.place == 0 {
            continue;
        }
        slot.clear();
        bytes = bytes.saturating_sub(oldest.layout().gross());
        record.bytes.store(bytes, Ordering::Relaxed);
        if record.last.load(Ordering::Relaxed).addr() == oldest.payload().addr() {
            record.last.store((&raw const NOTHING).cast_mut(), Ordering::Relaxed);
        }
        // SAFETY: nobody else has it.
        unsafe { leave::<B>(oldest) };
    }
}

/// Asks for the memory at an address, which may be anything.
#[inline(always)]
fn prefetch(block: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint, which touches nothing.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(block.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = block;
}

/// A block that leaves a thread's quarantine.
#[inline(always)]
unsafe fn leave<B: Backend>(entry: Entry) {
    if SHARED_MOST.load(Ordering::Relaxed) != 0 {
        // SAFETY: as below.
        return unsafe { leave_for_shared::<B>(entry) };
    }
    // SAFETY: the block is the caller's alone, and the backend's.
    unsafe { give_back::<B>(entry) }
}

/// Looks at a block, and gives it to the backend when it is as it was put in.
#[inline(always)]
unsafe fn give_back<B: Backend>(entry: Entry) {
    // SAFETY: the block is the caller's alone, and the backend's.
    unsafe {
        if !entry.is_clear() {
            return fault::write_after_free(&entry, SiteId::UNKNOWN);
        }
        let layout = entry.layout();
        B::free_sized(entry.payload().sub(layout.offset), layout.gross());
    }
}

/// The ring of the process, made at first use; null without memory. Under the lock.
fn shared() -> *mut Slot {
    let mut ring = SHARED.load(Ordering::Relaxed);
    if ring.is_null() {
        ring = meta::alloc(SHARED_RING * size_of::<Slot>(), 4096).cast();
        SHARED.store(ring, Ordering::Relaxed);
    }
    ring
}

/// # Safety
/// As [`give_back`].
#[cold]
unsafe fn leave_for_shared<B: Backend>(entry: Entry) {
    let _errno = errno::Saved::new();
    let most = SHARED_MOST.load(Ordering::Relaxed).max(LARGE_MOST);
    let mut coming = Some(entry);
    loop {
        let leaving = {
            let _guard = LOCK.lock();
            let ring = shared();
            let (mut head, tail) = (SHARED_HEAD.load(Ordering::Relaxed), SHARED_TAIL.load(Ordering::Relaxed));
            let mut bytes = SHARED_BYTES.load(Ordering::Relaxed);
            if ring.is_null() {
                coming.take()
            } else {
                // SAFETY: indexes below the ring's length.
                let slot = |at: usize| unsafe { &*ring.add(at % SHARED_RING) };
                if let Some(entry) = coming.take() {
                    // There is room: whoever came before has left some.
                    slot(head).set(entry);
                    head += 1;
                    bytes += entry.layout().gross();
                    SHARED_HEAD.store(head, Ordering::Relaxed);
                    SHARED_BYTES.store(bytes, Ordering::Relaxed);
                }
                (head != tail && (bytes > most || head - tail >= SHARED_RING - 1)).then(|| {
                    let oldest = slot(tail).get();
                    SHARED_TAIL.store(tail + 1, Ordering::Relaxed);
                    if oldest.place != 0 {
                        SHARED_BYTES.store(bytes - oldest.layout().gross(), Ordering::Relaxed);
                    }
                    oldest
                })
            }
        };
        let Some(leaving) = leaving else { return };
        if leaving.place == 0 {
            // It was written to and taken out.
            continue;
        }
        // SAFETY: it is in no quarantine any more.
        unsafe { give_back::<B>(leaving) };
    }
}

/// A thread's first free, a thread without a record, or a block that is too large to wait.
#[cold]
#[inline(never)]
unsafe fn push_slowly<B: Backend>(entry: Entry) {
    let _errno = errno::Saved::new();
    let mut record = mine();
    if ptr::eq(record, &raw const INITIAL) && THREAD_MOST.load(Ordering::Relaxed) != 0 {
        record = register();
        if !ptr::eq(record, &raw const NONE) {
            // SAFETY: the caller's promise.
            return unsafe { push::<B>(entry) };
        }
    }
    let gross = entry.layout().gross();
    // SAFETY: the caller's promise.
    unsafe {
        if gross > crate::LARGE && gross <= LARGE_MOST / 4 && THREAD_MOST.load(Ordering::Relaxed) != 0 {
            return leave_for_shared::<B>(entry);
        }
        leave::<B>(entry);
    }
}

#[cold]
fn register() -> &'static Record {
    let record = take_record();
    if !ptr::eq(record, &raw const NONE) && !AT_END.set(ptr::from_ref(record).cast_mut().cast()) {
        record.in_use.store(false, Ordering::Release);
        GUARD_THREAD::set((&raw const NONE).cast_mut());
        return &NONE;
    }
    GUARD_THREAD::set(ptr::from_ref(record).cast_mut());
    record
}

fn take_record() -> &'static Record {
    let _guard = LOCK.lock();
    let first = RECORDS.load(Ordering::Relaxed);
    let mut found = first;
    // SAFETY: records are for good.
    while let Some(record) = unsafe { found.as_ref() } {
        if !record.in_use.load(Ordering::Acquire) {
            break;
        }
        found = record.next.load(Ordering::Relaxed);
    }
    if found.is_null() {
        found = meta::alloc(size_of::<Record>(), align_of::<Record>()).cast();
        if found.is_null() {
            return &NONE;
        }
        // SAFETY: zeroed memory is a Record, but for `last`.
        unsafe {
            (*found).last.store((&raw const NOTHING).cast_mut(), Ordering::Relaxed);
            (*found).random.store(entropy::secret(), Ordering::Relaxed);
            (*found).most.store(THREAD_MOST.load(Ordering::Relaxed), Ordering::Relaxed);
            (*found).countdown.store(CHECK_EVERY.load(Ordering::Relaxed), Ordering::Relaxed);
            (*found).next.store(first, Ordering::Relaxed);
        }
        RECORDS.store(found, Ordering::Release);
    }
    // SAFETY: as above.
    let record = unsafe { &*found };
    record.in_use.store(true, Ordering::Relaxed);
    record
}

unsafe extern "C" fn at_thread_end(value: *mut c_void) {
    // Later destructors of this thread may still free.
    GUARD_THREAD::set((&raw const NONE).cast_mut());
    // SAFETY: `register` has set the value to a record.
    let record = unsafe { &*value.cast::<Record>() };
    record.last.store((&raw const NOTHING).cast_mut(), Ordering::Relaxed);
    record.in_use.store(false, Ordering::Release);
}

#[cold]
fn count_down(record: &Record, countdown: usize) {
    record
        .countdown
        .store(if countdown == 1 { CHECK_EVERY.load(Ordering::Relaxed) } else { countdown - 1 }, Ordering::Relaxed);
    if countdown == 1 {
        crate::check(SiteId::UNKNOWN);
    }
}

fn for_each_record(mut visit: impl FnMut(&'static Record)) {
    let mut next = RECORDS.load(Ordering::Acquire);
    // SAFETY: records are for good.
    while let Some(record) = unsafe { next.as_ref() } {
        visit(record);
        next = record.next.load(Ordering::Relaxed);
    }
}

fn slots(record: &Record) -> impl Iterator<Item = &Slot> {
    record.places.iter().chain(record.ring.iter())
}

fn find(record: &Record, addr: usize) -> Option<&Slot> {
    slots(record).find(|slot| {
        let entry = slot.get();
        entry.place != 0 && entry.payload().addr() == addr
    })
}

/// What is known of a block that waits, in this thread's quarantine or another's.
pub(crate) fn recall(addr: usize) -> Option<Freed> {
    let mut found = find(mine(), addr).map(|slot| slot.get().freed());
    for_each_record(|record| found = found.or_else(|| find(record, addr).map(|slot| slot.get().freed())));
    let ring = SHARED.load(Ordering::Relaxed);
    if found.is_none() && !ring.is_null() {
        let _guard = LOCK.lock_for_report()?;
        let (head, tail) = (SHARED_HEAD.load(Ordering::Relaxed), SHARED_TAIL.load(Ordering::Relaxed));
        // SAFETY: indexes below the ring's length.
        let entries = (tail..head).map(|at| unsafe { (*ring.add(at % SHARED_RING)).get() });
        found = entries.into_iter().find(|entry| entry.payload().addr() == addr).map(|entry| entry.freed());
    }
    found
}

/// Looks at what waits in this thread's quarantine and in the process's; the number of blocks that were written to. Each is told once.
pub(crate) fn check(site: SiteId) -> usize {
    let record = mine();
    let mut faults = 0;
    for slot in slots(record) {
        let entry = slot.get();
        // SAFETY: it waits in this thread's quarantine, so its memory is there.
        if entry.place != 0 && !unsafe { entry.is_clear() } {
            take_out(record, slot, &entry);
            faults += 1;
            fault::write_after_free(&entry, site);
        }
    }
    // One at a time: a report is written without the lock.
    while let Some(entry) = take_written_from_shared() {
        faults += 1;
        fault::write_after_free(&entry, site);
    }
    faults
}

/// A block of the process's ring that was written to; it is out of the ring.
fn take_written_from_shared() -> Option<Entry> {
    let ring = SHARED.load(Ordering::Acquire);
    if ring.is_null() {
        return None;
    }
    let _guard = LOCK.lock_for_report()?;
    let (head, tail) = (SHARED_HEAD.load(Ordering::Relaxed), SHARED_TAIL.load(Ordering::Relaxed));
    for at in tail..head {
        // SAFETY: below the ring's length.
        let slot = unsafe { &*ring.add(at % SHARED_RING) };
        let entry = slot.get();
        // SAFETY: it waits, and under the lock it goes on waiting.
        if entry.place != 0 && !unsafe { entry.is_clear() } {
            SHARED_BYTES.fetch_sub(entry.layout().gross(), Ordering::Relaxed);
            slot.clear();
            return Some(entry);
        }
    }
    None
}

/// In a forked child only the calling thread goes on: the others' records are free, with what waits in them.
pub(crate) fn after_fork_in_child() {
    let own = mine();
    for_each_record(|record| {
        if !ptr::eq(record, own) {
            record.last.store((&raw const NOTHING).cast_mut(), Ordering::Relaxed);
            record.in_use.store(false, Ordering::Relaxed);
        }
    });
}
