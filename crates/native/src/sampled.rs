//! Sampled guarding: now and then a small block gets a place of its own between pages that cannot be touched, and when it
//! is freed its pages cannot be touched either, until 255 other places were used. An access that leaves the block, or comes
//! after its end, stops the program where it happens, in production, at the cost of nothing on the paths that take a block
//! at hand: an allocation is chosen where the thread's list of its class is empty anyway. After GWP-ASan (Serebryany et
//! al., "GWP-ASan: Sampling-Based Detection of Memory-Safety Bugs in Production", 2023).
//!
//! One reservation is cut into slots of [`STRIDE`]. The upper half of a slot is for the block, which ends where the slot
//! ends, or, as often, begins where its first page begins; what is left of its pages holds a pattern that is looked at when
//! the block is freed. The table of words knows nothing of these addresses, so a free comes to [`crate::foreign`], which
//! asks here first.
//!
//! Bounds: [`SLOTS`] blocks and [`BYTES_MOST`] at a time; one block every [`REST_MS`], unless more than one of a
//! hundred allocations is wanted. So at most 125 blocks a second cost two system calls and two walks over the stack each.
//!
//! Invariants: a slot is unused, live, or in the queue of freed ones, unless it is burnt: an access was let through under
//! a policy that goes on, and it is not used again. Slots change under `LOCK`, or by whoever has made the one exchange from
//! `LIVE`. The signal's handler takes no lock: it reads, and sets what says that a slot is burnt.

use crate::Native;
use crate::classes::SMALL_MAX;
use crate::heap::Heap;
use allokit_core::{
    Backend, FaultKind, Found, Frames, MIN_ALIGN, SAMPLED_FRAMES, SampleHooks, SampledFault, Tag, Tagged,
};
use allokit_platform::access::{self, Access, Verdict};
use allokit_platform::{Lock, clock, entropy, keep_errno, meta, pages};
use core::ffi::CStr;
use core::ptr;
// Not from `sync`: the model leaves sampling out.
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

const SLOTS: usize = if cfg!(miri) { 4 } else { 256 };
const STRIDE: usize = 64 << 10;
const BODY: usize = SMALL_MAX;
const _: () = assert!(BODY * 2 <= STRIDE);
/// Of the pages of live blocks: with the slots' records under 1 MiB in all.
const BYTES_MOST: usize = 768 << 10;
const REST_MS: u64 = 8;
/// From this rate on (one in so many) the clock is asked.
const UNHURRIED: usize = 100;
/// What lies in a block's pages beside the block.
const PATTERN: u8 = 0xe6;
/// How many allocations until a heap asks again whether sampling is on.
const ASK_AGAIN: i64 = 256;

const ASK: u32 = 0;
const PASS_ON: u32 = 1;
const LET_THROUGH: u32 = 2;

const UNUSED: u32 = 0;
const LIVE: u32 = 1;
const ENDING: u32 = 2;
const FREED: u32 = 3;

/// What is known of a slot. All zeroes is valid.
#[repr(C)]
struct Slot {
    state: AtomicU32,
    /// The next freed slot, plus 1.
    next: AtomicU32,
    payload: AtomicUsize,
    size: AtomicUsize,
    /// Of the pages that are accessible while it is live.
    body: AtomicUsize,
    length: AtomicUsize,
    tag: AtomicU64,
    /// The call site, where tracking has told one.
    freed_at: AtomicU32,
    burnt: AtomicBool,
    /// What becomes of accesses that fail: [`ASK`] before the first.
    answer: AtomicU32,
    allocated: [AtomicUsize; SAMPLED_FRAMES],
    freed: [AtomicUsize; SAMPLED_FRAMES],
}

/// One in so many; 0: off.
static EVERY: AtomicUsize = AtomicUsize::new(0);
static HOOKS: AtomicPtr<SampleHooks> = AtomicPtr::new(ptr::null_mut());
/// Of the reservation; [`NOWHERE`]: there is none, and never was a sampled block.
static START: AtomicUsize = AtomicUsize::new(NOWHERE);
/// No address of a program's is near it.
const NOWHERE: usize = 1 << (usize::BITS - 1);
static TABLE: AtomicPtr<Slot> = AtomicPtr::new(ptr::null_mut());
static LAST: AtomicU64 = AtomicU64::new(0);

static LOCK: Lock = Lock::new();
// Under the lock:
static FRESH: AtomicUsize = AtomicUsize::new(0);
static OLDEST: AtomicU32 = AtomicU32::new(0);
static NEWEST: AtomicU32 = AtomicU32::new(0);
static ACCESSIBLE: AtomicUsize = AtomicUsize::new(0);
static RANDOM: AtomicU64 = AtomicU64::new(0);

/// For fork.
pub(crate) fn lock() -> &'static Lock {
    &LOCK
}

/// See [`Backend::sample`].
pub(crate) fn sample(every: usize, hooks: &'static SampleHooks) -> bool {
    if every > 0 && START.load(Ordering::Acquire) == NOWHERE {
        let _guard = LOCK.lock();
        if START.load(Ordering::Relaxed) == NOWHERE {
            let table = meta::alloc(size_of::<Slot>() * SLOTS, align_of::<Slot>());
            // The last slot has a neighbour too.
            let start = pages::reserve((SLOTS + 1) * STRIDE, STRIDE);
            if table.is_null() || start.is_null() {
                return false;
            }
            RANDOM.store(entropy::secret() | 1, Ordering::Relaxed);
            HOOKS.store(ptr::from_ref(hooks).cast_mut(), Ordering::Release);
            TABLE.store(table.cast(), Ordering::Release);
            START.store(start.expose_provenance(), Ordering::Release);
            // Where accesses cannot be watched, a fault ends the program without a report; frees are looked at all the same.
            access::watch(judge);
        }
    }
    EVERY.store(every, Ordering::Release);
    true
}

/// How many allocations to pass over from now: uniformly distributed, the mean is what was asked for.
fn gap(heap: *mut Heap) -> i64 {
    static TURN: AtomicU64 = AtomicU64::new(0);
    let every = EVERY.load(Ordering::Relaxed);
    if every == 0 {
        return ASK_AGAIN;
    }
    // SplitMix64 (Steele, Lea, Flood, 2014); how threads come by makes it no worse.
    let turn = TURN.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed) ^ heap.addr() as u64;
    let mut bits = turn ^ RANDOM.load(Ordering::Relaxed);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((bits ^ (bits >> 31)) % (2 * every as u64)) as i64
}

/// A guarded block instead of another one, for a heap that has counted down; mostly null.
///
/// # Safety
/// The heap is this thread's.
#[cold]
#[inline(never)]
pub(crate) unsafe fn take(heap: *mut Heap, size: usize, tag: Tag) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { (*heap).until_sample = gap(heap) };
    let every = EVERY.load(Ordering::Acquire);
    if every == 0 || size > BODY {
        return ptr::null_mut();
    }
    if every >= UNHURRIED {
        let (now, last) = (clock::now_ms(), LAST.load(Ordering::Relaxed));
        if now.wrapping_sub(last) < REST_MS
            || LAST.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return ptr::null_mut();
        }
    }
    keep_errno(|| make(size, tag))
}

fn make(size: usize, tag: Tag) -> *mut u8 {
    let mut frames = [0; SAMPLED_FRAMES];
    (hooks().stack)(&mut frames);
    // Whoever holds it does the same, or what the stack took allocates: this one is no sample then.
    let Some(_guard) = LOCK.try_lock() else { return ptr::null_mut() };
    let page = pages::os_page();
    let length = size.next_multiple_of(page);
    if ACCESSIBLE.load(Ordering::Relaxed) + length > BYTES_MOST {
        return ptr::null_mut();
    }
    let Some((number, slot)) = unused() else { return ptr::null_mut() };
    let end = START.load(Ordering::Relaxed) + (number + 1) * STRIDE;
    // Against overflows and against underflows by turns.
    let at_end = size == 0 || random() & 1 == 0;
    let body = end - length;
    let payload = if at_end { end - size.max(1).next_multiple_of(MIN_ALIGN) } else { body };
    let body_ptr = ptr::with_exposed_provenance_mut::<u8>(body);
    // SAFETY: whole pages of a slot that nobody uses; the pattern lies in them, outside the block.
    unsafe {
        if length > 0 {
            if !pages::commit(body_ptr, length) {
                put_back(number, slot);
                return ptr::null_mut();
            }
            body_ptr.write_bytes(PATTERN, payload - body);
            body_ptr.add(payload - body + size).write_bytes(PATTERN, end - payload - size);
        }
    }
    ACCESSIBLE.fetch_add(length, Ordering::Relaxed);
    slot.payload.store(payload, Ordering::Relaxed);
    slot.size.store(size, Ordering::Relaxed);
    slot.body.store(body, Ordering::Relaxed);
    slot.length.store(length, Ordering::Relaxed);
    slot.tag.store(tag.0, Ordering::Relaxed);
    slot.freed_at.store(0, Ordering::Relaxed);
    slot.answer.store(ASK, Ordering::Relaxed);
    keep(&slot.allocated, &frames);
    keep(&slot.freed, &[0; SAMPLED_FRAMES]);
    slot.state.store(LIVE, Ordering::Release);
    body_ptr.with_addr(payload)
}

fn hooks() -> &'static SampleHooks {
    // SAFETY: set for good before the first block.
    unsafe { &*HOOKS.load(Ordering::Acquire) }
}

fn keep(place: &[AtomicUsize; SAMPLED_FRAMES], frames: &Frames) {
    place.iter().zip(frames).for_each(|(place, frame)| place.store(*frame, Ordering::Relaxed));
}

fn kept(place: &[AtomicUsize; SAMPLED_FRAMES]) -> Frames {
    core::array::from_fn(|at| place[at].load(Ordering::Relaxed))
}

/// Under the lock.
fn random() -> u64 {
    let next = RANDOM.load(Ordering::Relaxed).wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
    RANDOM.store(next, Ordering::Relaxed);
    next >> 40
}

fn slot(number: usize) -> &'static Slot {
    debug_assert!(number < SLOTS);
    // SAFETY: the table has so many, all zeroes at first, for good.
    unsafe { &*TABLE.load(Ordering::Acquire).add(number) }
}

/// A slot for a block: a fresh one, then the one that was freed first. Under the lock.
fn unused() -> Option<(usize, &'static Slot)> {
    let fresh = FRESH.load(Ordering::Relaxed);
    if fresh < SLOTS {
        FRESH.store(fresh + 1, Ordering::Relaxed);
        return Some((fresh, slot(fresh)));
    }
    loop {
        let number = OLDEST.load(Ordering::Relaxed).checked_sub(1)? as usize;
        let found = slot(number);
        let next = found.next.load(Ordering::Relaxed);
        OLDEST.store(next, Ordering::Relaxed);
        if next == 0 {
            NEWEST.store(0, Ordering::Relaxed);
        }
        if !found.burnt.load(Ordering::Relaxed) {
            return Some((number, found));
        }
    }
}

/// Appends to the queue of freed slots. Under the lock.
fn put_back(number: usize, freed: &Slot) {
    freed.next.store(0, Ordering::Relaxed);
    let name = number as u32 + 1;
    match NEWEST.swap(name, Ordering::Relaxed).checked_sub(1) {
        Some(newest) => slot(newest as usize).next.store(name, Ordering::Relaxed),
        None => OLDEST.store(name, Ordering::Relaxed),
    }
}

/// Whether an address is of the reservation.
#[inline(always)]
pub(crate) fn holds(addr: usize) -> bool {
    addr.wrapping_sub(START.load(Ordering::Acquire)) < (SLOTS + 1) * STRIDE
}

/// The slot in which an address lies, used at least once.
fn find(addr: usize) -> Option<(usize, &'static Slot)> {
    if !holds(addr) {
        return None;
    }
    let number = (addr - START.load(Ordering::Relaxed)) / STRIDE;
    let found = (number < SLOTS).then(|| slot(number))?;
    (found.state.load(Ordering::Acquire) != UNUSED).then_some((number, found))
}

/// The live block that begins at `addr`.
fn live(addr: usize) -> Option<(usize, &'static Slot)> {
    find(addr)
        .filter(|(_, slot)| slot.state.load(Ordering::Acquire) == LIVE && slot.payload.load(Ordering::Relaxed) == addr)
}

fn report(slot: &Slot, kind: FaultKind, operation: &CStr, addr: usize, writes: Option<bool>, now: &Frames) -> bool {
    let freed = if slot.state.load(Ordering::Relaxed) == LIVE { [0; SAMPLED_FRAMES] } else { kept(&slot.freed) };
    (hooks().wrong)(&SampledFault {
        kind,
        operation,
        addr,
        start: slot.payload.load(Ordering::Relaxed),
        size: slot.size.load(Ordering::Relaxed),
        writes,
        tag: Tag(slot.tag.load(Ordering::Relaxed)),
        allocated: kept(&slot.allocated),
        freed,
        now: *now,
    })
}

/// A pointer into the reservation that is no live block.
#[cold]
fn wrong(addr: usize, operation: &CStr) {
    let mut now = [0; SAMPLED_FRAMES];
    (hooks().stack)(&mut now);
    match find(addr) {
        Some((_, slot)) => {
            let is_start = slot.payload.load(Ordering::Relaxed) == addr;
            let kind = if is_start { FaultKind::DoubleFree } else { FaultKind::InvalidFree };
            report(slot, kind, operation, addr, None, &now);
        }
        None => {
            (hooks().wrong)(&SampledFault {
                kind: FaultKind::InvalidFree,
                operation,
                addr,
                start: 0,
                size: 0,
                writes: None,
                tag: Tag::NONE,
                allocated: [0; SAMPLED_FRAMES],
                freed: [0; SAMPLED_FRAMES],
                now,
            });
        }
    }
}

/// Frees a block; what is none is reported. Keeps `errno`. What the block was, if it was one.
///
/// # Safety
/// [`holds`] the address; unless it is found to be wrong, the caller gives the block up.
#[cold]
pub(crate) unsafe fn free(ptr: *mut u8, site: u32) -> Option<Tagged> {
    keep_errno(|| {
        let Some((number, slot)) = live(ptr.addr()) else {
            wrong(ptr.addr(), c"free");
            return None;
        };
        let mut frames = [0; SAMPLED_FRAMES];
        (hooks().stack)(&mut frames);
        if slot.state.compare_exchange(LIVE, ENDING, Ordering::Acquire, Ordering::Relaxed).is_err() {
            wrong(ptr.addr(), c"free");
            return None;
        }
        // SAFETY: the block is ours now.
        let damage = unsafe { damage(slot) };
        if let Some(addr) = damage {
            let kind = if addr < ptr.addr() { FaultKind::Underflow } else { FaultKind::Overflow };
            slot.state.store(LIVE, Ordering::Relaxed); // so the report says nothing of a free
            report(slot, kind, c"free", addr, Some(true), &frames);
            slot.state.store(ENDING, Ordering::Relaxed);
        }
        let (size, tag) = (slot.size.load(Ordering::Relaxed), Tag(slot.tag.load(Ordering::Relaxed)));
        let was = Tagged { start: ptr.addr(), size, tag, freed_at: 0 };
        keep(&slot.freed, &frames);
        slot.freed_at.store(site, Ordering::Relaxed);
        slot.tag.store(if tag == Tag::NONE { tag.0 } else { tag.freed().0 }, Ordering::Relaxed);
        let (body, length) = (slot.body.load(Ordering::Relaxed), slot.length.load(Ordering::Relaxed));
        if length > 0 {
            // SAFETY: whole pages of the slot, whose block has ended. (Refused, they stay accessible and read as zero.)
            unsafe { pages::revoke(ptr.with_addr(body), length) };
        }
        let _guard = LOCK.lock();
        slot.state.store(FREED, Ordering::Release);
        ACCESSIBLE.fetch_sub(length, Ordering::Relaxed);
        put_back(number, slot);
        Some(was)
    })
}

/// The first byte beside the block, in its pages, that is not what was written.
///
/// # Safety
/// The block is the caller's.
unsafe fn damage(slot: &Slot) -> Option<usize> {
    let (body, length) = (slot.body.load(Ordering::Relaxed), slot.length.load(Ordering::Relaxed));
    let (payload, size) = (slot.payload.load(Ordering::Relaxed), slot.size.load(Ordering::Relaxed));
    if length == 0 {
        return None;
    }
    let differs = |addr: &usize| {
        // SAFETY: of the block's pages, which are accessible.
        unsafe { ptr::with_exposed_provenance::<u8>(*addr).read_volatile() != PATTERN }
    };
    // The nearest to the block on either side.
    (payload + size..body + length).find(differs).or_else(|| (body..payload).rev().find(differs))
}

/// Resizes a block by moving it to an ordinary one.
///
/// # Safety
/// [`holds`] the address; as [`Backend::realloc`].
#[cold]
pub(crate) unsafe fn realloc(ptr: *mut u8, size: usize) -> *mut u8 {
    let Some((_, slot)) = live(ptr.addr()) else {
        wrong(ptr.addr(), c"realloc");
        return Native::fail();
    };
    let old = slot.size.load(Ordering::Relaxed);
    let tag = Tag(slot.tag.load(Ordering::Relaxed));
    // It keeps its tag.
    let block = if tag == Tag::NONE {
        Native::alloc(size)
    } else {
        Native::alloc_tagged(size, MIN_ALIGN, false, Tag::live(tag.stretch()).with_site(tag.site()))
    };
    if !block.is_null() {
        // SAFETY: both are live and distinct.
        unsafe {
            block.copy_from_nonoverlapping(ptr, old.min(size));
            Native::free(ptr);
        }
    }
    block
}

/// How large a block is, as asked for; 0 for what is none.
///
/// # Safety
/// [`holds`] the address.
#[cold]
pub(crate) unsafe fn usable_size(ptr: *const u8) -> usize {
    let Some((_, slot)) = live(ptr.addr()) else {
        wrong(ptr.addr(), c"usable size");
        return 0;
    };
    slot.size.load(Ordering::Relaxed)
}

/// What tracking knows of the block that begins at `addr`.
pub(crate) fn at(addr: usize) -> Found {
    match live(addr) {
        Some((_, slot)) => match Tag(slot.tag.load(Ordering::Relaxed)) {
            Tag::NONE => Found::Plain,
            tag => Found::Tagged(Tagged { start: addr, size: slot.size.load(Ordering::Relaxed), tag, freed_at: 0 }),
        },
        None => Found::Wrong,
    }
}

fn tagged(slot: &Slot) -> Option<Tagged> {
    let tag = Tag(slot.tag.load(Ordering::Relaxed));
    (tag != Tag::NONE).then(|| Tagged {
        start: slot.payload.load(Ordering::Relaxed),
        size: slot.size.load(Ordering::Relaxed),
        tag,
        freed_at: slot.freed_at.load(Ordering::Relaxed),
    })
}

/// The block with a tag in whose slot an address lies.
pub(crate) fn around(addr: usize) -> Option<Tagged> {
    find(addr).and_then(|(_, slot)| tagged(slot))
}

/// Calls `see` with each live block that has a tag.
pub(crate) fn visit(see: &mut dyn FnMut(&Tagged)) {
    if START.load(Ordering::Acquire) == NOWHERE {
        return;
    }
    for number in 0..FRESH.load(Ordering::Relaxed).min(SLOTS) {
        let slot = slot(number);
        if slot.state.load(Ordering::Acquire) == LIVE
            && let Some(block) = tagged(slot)
        {
            see(&block);
        }
    }
}

/// An access that failed: inside the signal's handler.
fn judge(access: &Access) -> Verdict {
    if !holds(access.addr) {
        return Verdict::PassOn;
    }
    let Some((slot, kind)) = blame(access) else { return Verdict::PassOn };
    let mut answer = slot.answer.load(Ordering::Relaxed);
    if answer == ASK {
        slot.burnt.store(true, Ordering::Relaxed);
        let mut now = [0; SAMPLED_FRAMES];
        (hooks().stack_at)(access.instruction, &mut now);
        let operation = match access.writes {
            Some(true) => c"write",
            Some(false) => c"read",
            None => c"access",
        };
        let goes_on = report(slot, kind, operation, access.addr, access.writes, &now);
        answer = if goes_on { LET_THROUGH } else { PASS_ON };
        slot.answer.store(answer, Ordering::Relaxed);
    }
    if answer == PASS_ON {
        return Verdict::PassOn;
    }
    let page = pages::os_page();
    // SAFETY: a page of the reservation that no block has, of a slot that none will get.
    if unsafe { pages::commit(ptr::with_exposed_provenance_mut(access.addr & !(page - 1)), page) } {
        Verdict::Retry
    } else {
        Verdict::PassOn
    }
}

/// Which block an access was meant for: the one whose slot it is in, or the one before, whichever is nearer.
fn blame(access: &Access) -> Option<(&'static Slot, FaultKind)> {
    let after_free = if access.writes == Some(false) { FaultKind::ReadAfterFree } else { FaultKind::WriteAfterFree };
    let addr = access.addr;
    let start = |slot: &Slot| slot.payload.load(Ordering::Relaxed);
    let own = find(addr).map(|(_, slot)| slot);
    let before = find(addr.wrapping_sub(STRIDE)).map(|(_, slot)| slot);
    let slot = match (own, before) {
        (Some(own), Some(before)) => {
            let end = start(before) + before.size.load(Ordering::Relaxed);
            let nearer = start(own).saturating_sub(addr) <= addr.saturating_sub(end);
            if nearer { own } else { before }
        }
        (own, before) => own.or(before)?,
    };
    let kind = if slot.state.load(Ordering::Acquire) != LIVE {
        after_free
    } else if addr < start(slot) {
        FaultKind::Underflow
    } else {
        FaultKind::Overflow
    };
    Some((slot, kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::alone;
    use std::sync::Mutex;
    use std::vec::Vec;

    /// What was reported: kind, address and start.
    static TOLD: Mutex<Vec<(FaultKind, usize, usize)>> = Mutex::new(Vec::new());

    static TEST_HOOKS: SampleHooks = SampleHooks {
        stack: |frames| frames[0] = 7,
        stack_at: |at, frames| frames[0] = at,
        wrong: |fault| {
            assert_eq!(fault.now[0], 7);
            TOLD.lock().unwrap().push((fault.kind, fault.addr, fault.start));
            true
        },
    };

    /// Guarded blocks of a size, however many come.
    fn sampled(size: usize) -> Vec<*mut u8> {
        assert!(Native::sample(1, &TEST_HOOKS));
        let mut found = Vec::new();
        let mut others = Vec::new();
        let usual = if cfg!(miri) { 300 } else { 3000 };
        for turn in 0..20_000 {
            if turn > usual && !found.is_empty() {
                break;
            }
            let block = Native::alloc(size);
            assert!(!block.is_null());
            if holds(block.addr()) {
                found.push(block)
            } else {
                others.push(block)
            }
            if found.len() == SLOTS / 2 {
                break;
            }
        }
        Native::sample(0, &TEST_HOOKS);
        // SAFETY: live blocks of this test's.
        others.into_iter().for_each(|block| unsafe { Native::free(block) });
        assert!(!found.is_empty(), "no block of {size} bytes is guarded");
        found
    }

    #[test]
    fn blocks_are_blocks() {
        let _alone = alone();
        let sizes: &[usize] = if cfg!(miri) { &[100] } else { &[0, 1, 100, 4096, BODY] };
        for &size in sizes {
            for block in sampled(size) {
                // SAFETY: a live block.
                unsafe {
                    assert!(block.addr().is_multiple_of(MIN_ALIGN));
                    assert_eq!(Native::usable_size(block), size);
                    block.write_bytes(1, size);
                    let moved = Native::realloc(block, size + 1);
                    assert!(!holds(moved.addr()));
                    assert!((0..size).all(|at| moved.add(at).read() == 1));
                    Native::free(moved);
                }
                assert_eq!(at(block.addr()), Found::Wrong);
            }
        }
        assert!(TOLD.lock().unwrap().is_empty());
        assert_eq!(ACCESSIBLE.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_beside_a_block_is_looked_at() {
        let _alone = alone();
        let mut seen = Vec::new();
        for block in sampled(100) {
            // SAFETY: the byte is one of the block's pages: behind it there is always room, before it when it is at the end.
            unsafe {
                let at_end = !block.addr().is_multiple_of(pages::os_page());
                let (by, kind) =
                    if at_end && seen.len() % 2 == 0 { (-1, FaultKind::Underflow) } else { (100, FaultKind::Overflow) };
                let there = block.offset(by);
                there.write(!PATTERN);
                seen.push((kind, there.addr(), block.addr()));
                Native::free(block);
                seen.push((FaultKind::DoubleFree, block.addr(), block.addr()));
                Native::free(block);
                seen.push((FaultKind::InvalidFree, block.addr() + 16, block.addr()));
                Native::free(block.add(16));
            }
        }
        assert_eq!(core::mem::take(&mut *TOLD.lock().unwrap()), seen);
    }

    #[test]
    fn tags_are_kept_and_walked() {
        let _alone = alone();
        assert!(Native::sample(1, &TEST_HOOKS));
        let tag = Tag::live(3).with_site(9);
        let mut blocks: Vec<*mut u8> = Vec::new();
        while blocks.len() < 20_000 && !blocks.iter().any(|block| holds(block.addr())) {
            blocks.extend(
                (0..if cfg!(miri) { 30 } else { 300 }).map(|_| Native::alloc_tagged(50, MIN_ALIGN, false, tag)),
            );
        }
        Native::sample(0, &TEST_HOOKS);
        let guarded: Vec<_> = blocks.iter().filter(|block| holds(block.addr())).collect();
        assert!(!guarded.is_empty());
        let mut starts: Vec<usize> = blocks.iter().map(|block| block.addr()).collect();
        starts.sort_unstable();
        let mut walked = 0;
        Native::visit_tagged(&mut |block| {
            walked += usize::from(starts.binary_search(&block.start).is_ok());
        });
        assert_eq!(walked, blocks.len());
        for block in &blocks {
            // SAFETY: live blocks of this test's; of another way each.
            unsafe {
                let is = |found| matches!(found, Found::Tagged(Tagged { size: 50, tag, .. }) if tag.site() == 9);
                assert!(is(Native::tagged_at(*block)));
                assert!(is(Native::free_tagged(*block, 4)));
            }
        }
        for block in guarded {
            let known = Native::tagged_around(block.addr() + 3).unwrap();
            assert!(known.tag.is_freed() && known.freed_at == 4 && known.size == 50);
        }
        assert!(TOLD.lock().unwrap().is_empty());
    }

    #[test]
    #[cfg_attr(miri, ignore)] // many calls, and nothing of memory in them
    fn freed_places_are_used_again_last() {
        let _alone = alone();
        let mut seen: Vec<usize> = Vec::new();
        for _ in 0..80 {
            for block in sampled(64) {
                let place = (block.addr() - START.load(Ordering::Relaxed)) / STRIDE;
                seen.push(place);
                // SAFETY: a live block.
                unsafe { Native::free(block) };
            }
        }
        assert!(seen.len() > SLOTS, "{}", seen.len());
        let half = SLOTS / 2;
        for window in seen.windows(half) {
            assert!(!window[1..].contains(&window[0]), "{window:?}");
        }
    }
}
