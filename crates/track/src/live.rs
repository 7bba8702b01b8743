//! Which addresses are live payload starts: one byte for each 32 bytes of address space, outside the heap, so that a
//! wrong free is found without ever reading a block that is freed or not ours, and live blocks can be walked.
//!
//! Payload starts are multiples of 16 and at least 32 bytes apart (a header and at least 16 bytes of payload lie between
//! them), so a byte stands for one start at most; which of the two places in the 32 bytes it is, the state says.
//!
//! A byte's life: 0, then [`LIVE`] (a plain store: the block is its maker's), then [`FREED`] by whoever frees it (a
//! compare-and-swap, so of two frees at once one loses), then LIVE again... A walker turns LIVE into [`PINNED`] while it
//! reads the block's header, and a free that meets a pin waits: so the block cannot be unmapped under the walker.

use allokit_platform::{AddressMap, Lock, errno, pages};
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// States; bit 4 is that of the start's address, so a state stands for one of the two places.
const LIVE: u8 = 1;
const FREED: u8 = 2;
const PINNED: u8 = 4;
/// LIVE in either place, for eight bytes at once.
const LIVE_MASK: u64 = 0x0101_0101_0101_0101;

const GRANULE: usize = 32;
/// Address space that a leaf covers.
const SPAN: usize = 256 << 20;
const STATES: usize = SPAN / GRANULE;
/// The states come in pages; a bit in the summary says that a page was ever used.
const PAGE: usize = 4096;
const PAGES: usize = STATES / PAGE;

/// The map's unit. All zeroes is valid.
#[repr(C, align(4096))]
struct Leaf {
    states: [AtomicU8; STATES],
    used: [AtomicU64; PAGES / 64],
    /// The first address covered, plus 1; 0 until the leaf is in the list.
    base: AtomicUsize,
    /// The next of all leaves.
    next: AtomicPtr<Leaf>,
}

const LEAF: usize = size_of::<Leaf>();
static MAP: AddressMap<LEAF, { (1 << 48) / SPAN }> = AddressMap::new();
/// All leaves, for walking: the map's root is too long to be looked through.
static LEAVES: AtomicPtr<Leaf> = AtomicPtr::new(ptr::null_mut());
/// A leaf kept for [`mark_surely`], or null.
static RESERVE: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

/// Bit 4 of the address: which of the two places.
#[inline(always)]
fn place(addr: usize) -> u8 {
    addr as u8 & 16
}

#[inline(always)]
fn leaf(addr: usize) -> Option<&'static Leaf> {
    // SAFETY: a leaf of the map is LEAF zeroed bytes for good, aligned to a page.
    unsafe { MAP.leaf(addr).cast::<Leaf>().as_ref() }
}

#[inline(always)]
fn state(leaf: &Leaf, addr: usize) -> &AtomicU8 {
    // SAFETY: the index is below STATES.
    unsafe { leaf.states.get_unchecked(addr % SPAN / GRANULE) }
}

/// Makes the start live; false, with nothing changed, when there is no memory to say so.
#[inline(always)]
pub fn mark(payload: *mut u8) -> bool {
    let addr = payload.expose_provenance();
    let Some(leaf) = leaf(addr) else { return mark_in_new_leaf(addr) };
    set_live(leaf, addr);
    true
}

#[cold]
#[inline(never)]
fn mark_in_new_leaf(addr: usize) -> bool {
    MAP.leaf_or_insert(addr);
    match leaf(addr) {
        Some(leaf) => {
            list(leaf, addr);
            set_live(leaf, addr);
            true
        }
        None => false,
    }
}

/// Puts a leaf into the list if it is not there.
fn list(leaf: &'static Leaf, addr: usize) {
    let base = addr / SPAN * SPAN + 1;
    if leaf.base.compare_exchange(0, base, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        return;
    }
    let this = ptr::from_ref(leaf).cast_mut();
    let mut first = LEAVES.load(Ordering::Relaxed);
    loop {
        leaf.next.store(first, Ordering::Relaxed);
        match LEAVES.compare_exchange_weak(first, this, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(other) => first = other,
        }
    }
}

#[inline(always)]
fn set_live(leaf: &Leaf, addr: usize) {
    let page = addr % SPAN / GRANULE / PAGE;
    // SAFETY: the index is below PAGES / 64.
    let used = unsafe { leaf.used.get_unchecked(page / 64) };
    if used.load(Ordering::Relaxed) & 1 << (page % 64) == 0 {
        used.fetch_or(1 << (page % 64), Ordering::Relaxed);
        make_around(addr);
    }
    // Release: whoever sees the start live sees its header.
    state(leaf, addr).store(LIVE | place(addr), Ordering::Release);
}

/// Makes the leaves of the spans on both sides, while there is memory for them: mappings grow downwards, or upwards into
/// a gap, and when address space runs out the backend may have taken the last of it for blocks that could then not be
/// marked, again and again the same.
#[cold]
#[inline(never)]
fn make_around(addr: usize) {
    let _errno = errno::Saved::new();
    for beside in [addr.saturating_sub(SPAN), addr.saturating_add(SPAN)] {
        if leaf(beside).is_none() {
            MAP.leaf_or_insert(beside);
            if let Some(leaf) = leaf(beside) {
                list(leaf, beside);
            }
        }
    }
}

/// Makes sure that the next [`mark_surely`] succeeds (of one thread; several at once may each need a leaf). False when
/// there is no memory for that.
#[inline]
pub fn have_reserve() -> bool {
    !RESERVE.load(Ordering::Relaxed).is_null() || fill_reserve()
}

#[cold]
fn fill_reserve() -> bool {
    let leaf = pages::map(LEAF, PAGE);
    if leaf.is_null() {
        return false;
    }
    if RESERVE.compare_exchange(ptr::null_mut(), leaf, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        // SAFETY: nobody else knows it.
        unsafe { pages::release(leaf, LEAF, PAGE) };
    }
    true
}

/// As [`mark`], with the leaf in reserve for when there is no memory.
#[inline]
pub fn mark_surely(payload: *mut u8) {
    if !mark(payload) {
        let spare = RESERVE.swap(ptr::null_mut(), Ordering::AcqRel);
        if !spare.is_null() {
            // SAFETY: the spare is LEAF zeroed bytes, ours until the map has it. Where another thread was faster with its
            // leaf the spare is lost: a few megabytes of address space, never touched.
            unsafe { MAP.adopt(payload.addr(), spare) };
        }
        mark_in_new_leaf(payload.addr());
    }
}

/// Takes a live start: it is freed from now on, its header and memory are the caller's. False when it is not live.
#[inline(always)]
pub fn take(payload: *const u8) -> bool {
    let addr = payload.addr();
    if !addr.is_multiple_of(16) {
        return false;
    }
    let Some(leaf) = leaf(addr) else { return false };
    let (state, place) = (state(leaf, addr), place(addr));
    match state.compare_exchange(LIVE | place, FREED | place, Ordering::AcqRel, Ordering::Relaxed) {
        Ok(_) => true,
        Err(found) if found == PINNED | place => take_after_pin(state, place),
        Err(_) => false,
    }
}

#[cold]
fn take_after_pin(state: &AtomicU8, place: u8) -> bool {
    loop {
        match state.compare_exchange(LIVE | place, FREED | place, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(found) if found == PINNED | place => core::hint::spin_loop(),
            Err(_) => return false,
        }
    }
}

/// Whether a live block starts here.
#[inline(always)]
#[must_use]
pub fn is_live(addr: usize) -> bool {
    let Some(leaf) = leaf(addr) else { return false };
    let state = state(leaf, addr).load(Ordering::Acquire);
    addr.is_multiple_of(16) && (state == LIVE | place(addr) || state == PINNED | place(addr))
}

/// Whether any block has ever started near `addr` (in the same 128 KiB).
#[inline(always)]
pub fn is_used_near(addr: usize) -> bool {
    leaf(addr).is_some_and(|leaf| is_used(leaf, addr % SPAN / GRANULE / PAGE))
}

/// LIVE or PINNED in either place, for eight bytes at once.
const TAKEN_MASK: u64 = 0x0505_0505_0505_0505;

/// The eight states that begin with this granule's, a multiple of 8; the first one lowest.
#[inline(always)]
fn eight(leaf: &Leaf, granule: usize) -> u64 {
    if cfg!(miri) {
        // Miri knows no atomics of two sizes in one place.
        let states = leaf.states[granule..granule + 8].iter().rev();
        return states.fold(0, |eight, state| eight << 8 | u64::from(state.load(Ordering::Acquire)));
    }
    // SAFETY: eight states, aligned, inside the array.
    let found = unsafe { &*leaf.states.as_ptr().add(granule).cast::<AtomicU64>() };
    u64::from_le(found.load(Ordering::Acquire))
}

/// The last live start at or before `addr`, not much further away than `reach`; not pinned, so it may be freed meanwhile.
#[inline]
#[must_use]
pub fn last_start(addr: usize, reach: usize) -> Option<usize> {
    let lowest = addr.saturating_sub(reach);
    let mut next = addr;
    loop {
        let leaf = leaf(next)?;
        let base = next / SPAN * SPAN;
        let own = next % SPAN / GRANULE;
        let mut first = own & !7;
        let mut found = eight(leaf, first) & (u64::MAX >> (56 - own % 8 * 8));
        if next == addr {
            // The start in the address's own 32 bytes may lie behind it.
            let state = (found >> (own % 8 * 8)) as usize;
            if state & 16 > addr & 31 {
                found &= !(0xff << (own % 8 * 8));
            }
        }
        loop {
            if found & TAKEN_MASK != 0 {
                let byte = (63 - (found & TAKEN_MASK).leading_zeros() as usize) / 8;
                let state = (found >> (byte * 8)) as usize;
                return Some(base + (first + byte) * GRANULE + (state & 16));
            }
            if base + first * GRANULE <= lowest {
                return None;
            }
            if first == 0 {
                break;
            }
            first -= 8;
            found = eight(leaf, first);
        }
        next = base.checked_sub(1)?;
    }
}

/// Undoes [`take`].
pub fn put_back(payload: *mut u8) {
    mark(payload);
}

/// Whether a block of ours once started here and was freed.
pub fn was_freed(addr: usize) -> bool {
    addr.is_multiple_of(16)
        && leaf(addr).is_some_and(|leaf| state(leaf, addr).load(Ordering::Relaxed) == FREED | place(addr))
}

/// A pinned block: it stays live, and its header readable, until this is dropped.
pub struct Pin {
    state: &'static AtomicU8,
    place: u8,
    /// The payload.
    pub payload: *const u8,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.state.store(LIVE | self.place, Ordering::Release);
    }
}

/// Pins the start at `addr` if it is live. Callers hold [`WALK`], so that there is one pin at a time.
pub fn pin(addr: usize) -> Option<Pin> {
    if !addr.is_multiple_of(16) {
        return None;
    }
    let leaf = leaf(addr)?;
    let (state, place) = (state(leaf, addr), place(addr));
    state.compare_exchange(LIVE | place, PINNED | place, Ordering::Acquire, Ordering::Relaxed).ok()?;
    Some(Pin { state, place, payload: ptr::with_exposed_provenance(addr) })
}

/// Held by whoever pins: walkers and fault reports. Never taken by an allocation or a right free.
pub static WALK: Lock = Lock::new();

/// The lock of the map, for fork handlers.
pub(crate) fn map_lock() -> &'static Lock {
    MAP.lock()
}

/// The address of the start in this byte if it is live.
fn live_start(state: u8, granule: usize) -> Option<usize> {
    (state & LIVE != 0).then_some(granule * GRANULE + usize::from(state & 16))
}

fn is_used(leaf: &Leaf, page: usize) -> bool {
    leaf.used[page / 64].load(Ordering::Relaxed) & 1 << (page % 64) != 0
}

/// Calls `visit` with each live block, pinned. Blocks that are allocated, freed or being resized meanwhile may be seen
/// or not. The caller holds [`WALK`].
pub fn for_each(mut visit: impl FnMut(&Pin)) {
    let mut next = LEAVES.load(Ordering::Acquire);
    // SAFETY: leaves are for good.
    while let Some(leaf) = unsafe { next.as_ref() } {
        for_each_in(leaf, leaf.base.load(Ordering::Relaxed) - 1, &mut visit);
        next = leaf.next.load(Ordering::Acquire);
    }
}

fn for_each_in(leaf: &Leaf, start: usize, visit: &mut impl FnMut(&Pin)) {
    for page in (0..PAGES).filter(|&page| is_used(leaf, page)) {
        for word in (page * PAGE..(page + 1) * PAGE).step_by(8) {
            if !cfg!(miri) {
                // SAFETY: eight states, aligned, inside the array. (Miri knows no atomics of two sizes in one place; here
                // they are only a first look, the pin decides.)
                let eight = unsafe { &*leaf.states.as_ptr().add(word).cast::<AtomicU64>() }.load(Ordering::Relaxed);
                if eight & LIVE_MASK == 0 {
                    continue;
                }
            }
            for granule in word..word + 8 {
                let addr = live_start(leaf.states[granule].load(Ordering::Relaxed), granule);
                if let Some(pin) = addr.and_then(|addr| pin(start + addr)) {
                    visit(&pin);
                }
            }
        }
    }
}

/// How far [`before`] looks: blocks larger than this are not recognised from their middle.
const REACH: usize = 1 << 40;

/// The nearest live start before `addr`, pinned. The caller holds [`WALK`].
pub fn before(addr: usize) -> Option<Pin> {
    let mut next = addr.checked_sub(1)?;
    let lowest = addr.saturating_sub(REACH);
    loop {
        if let Some(leaf) = leaf(next)
            && let Some(start) = before_in(leaf, next)
            && let Some(pin) = pin(start)
        {
            return Some(pin);
        }
        next = (next / SPAN * SPAN).checked_sub(1)?;
        if next < lowest {
            return None;
        }
    }
}

/// The last live start in the leaf at or before `addr`.
fn before_in(leaf: &Leaf, addr: usize) -> Option<usize> {
    let base = addr / SPAN * SPAN;
    let last = addr % SPAN / GRANULE;
    for page in (0..=last / PAGE).rev().filter(|&page| is_used(leaf, page)) {
        let end = last.min(page * PAGE + PAGE - 1);
        for granule in (page * PAGE..=end).rev() {
            if let Some(start) = live_start(leaf.states[granule].load(Ordering::Relaxed), granule)
                && base + start <= addr
            {
                return Some(base + start);
            }
        }
    }
    None
}
