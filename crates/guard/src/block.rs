//! A guarded block of the backend: where its parts are, its header and its canary.
//!
//! The header is tracking's, with the kind in the two topmost bits of its first word. The canary is one word, made of the
//! secret and the address of the block's last word; it is written at the end of the payload and at the end of the block,
//! which are 8 to 15 bytes apart, so that each byte between is guarded. Its lowest byte has the highest bit set: neither a
//! zero nor an ASCII character written one byte too far is ever equal to it.

use crate::budget::Budget;
use crate::switches::Check;
use crate::{Kind, SiteId};
use allokit_core::Backend;
use allokit_platform::{entropy, fill, peek};
use allokit_track::header::{self, Header};
use core::sync::atomic::{AtomicBool, Ordering};

/// The parts of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// As asked for.
    pub(crate) size: usize,
    /// From the backend's block to the payload: a power of two, at least 16.
    pub(crate) offset: usize,
}

impl Layout {
    #[inline(always)]
    pub(crate) fn new(size: usize) -> Layout {
        Layout { size, offset: header::SIZE }
    }

    pub(crate) fn aligned(size: usize, align: usize) -> Layout {
        Layout { size, offset: align.max(header::SIZE) }
    }

    /// From the payload to the end: 8 to 15 bytes more than the payload, and 16 at least.
    #[inline(always)]
    pub(crate) fn tail(self) -> usize {
        ((self.size + 15) & !7).max(16)
    }

    /// What the backend is asked for, a multiple of 8.
    #[inline(always)]
    pub(crate) fn gross(self) -> usize {
        self.tail() + self.offset
    }

    pub(crate) fn header(self, word: u64) -> Header {
        Header { site: word as u32, epoch: epoch(word), offset: self.offset, size: self.size }
    }
}

pub(crate) fn make_secret() {
    header::guard::KEY.store(entropy::secret(), Ordering::Relaxed);
}

#[inline(always)]
fn secret() -> u64 {
    header::guard::KEY.load(Ordering::Relaxed)
}

/// The canary of a block whose last word lies at `addr`. No byte of it is zero or text, so what an overflow mostly writes
/// differs from it in each byte.
#[inline(always)]
pub(crate) fn canary(addr: usize) -> u64 {
    (secret() ^ addr as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 0x8080_8080_8080_8080
}

/// The number of the site in a header's first word.
pub(crate) fn site(word: u64) -> u32 {
    word as u32
}

pub(crate) fn epoch(word: u64) -> u32 {
    (word >> 32) as u32 & 0xff_ffff
}

#[inline(always)]
pub(crate) fn kind(word: u64) -> u8 {
    (word >> 62) as u8
}

/// The two words of a header.
#[inline(always)]
pub(crate) fn words(payload: *const u8, layout: Layout, site: SiteId, kind: Kind, epoch: u32) -> (u64, u64) {
    let word = u64::from(site.number())
        | u64::from(epoch) << 32
        | u64::from(layout.offset.trailing_zeros()) << 56
        | (kind as u64) << 62;
    let size = layout.size as u64;
    (word, size | header::guard::checksum(payload, word, size) << 48)
}

/// Writes header and canary.
///
/// # Safety
/// The block is the caller's, and holds the layout around `payload`.
#[inline(always)]
pub(crate) unsafe fn write(payload: *mut u8, layout: Layout, site: SiteId, kind: Kind, epoch: u32) {
    let (first, second) = words(payload, layout, site, kind, epoch);
    // SAFETY: the header lies before the payload, and at least 8 bytes after it are in the block.
    unsafe {
        let header = payload.sub(header::SIZE).cast::<u64>();
        header.write(first);
        header.add(1).write(second);
        let last = payload.add(layout.tail() - 8);
        let canary = canary(last.addr());
        payload.add(layout.size).cast::<u64>().write_unaligned(canary);
        last.cast::<u64>().write(canary);
    }
}

/// The layout and the first word of the header, or `None` when it is not what was written.
///
/// # Safety
/// A block of this layer that the caller has taken out of the map, or pinned.
#[inline(always)]
pub(crate) unsafe fn read(payload: *const u8) -> Option<(Layout, u64)> {
    let words = if header::guard::is_elsewhere(payload.addr()) {
        crate::space::words(payload.addr()).cast_const()
    } else {
        payload.wrapping_sub(header::SIZE).cast::<u64>()
    };
    // SAFETY: the caller's promise.
    let (word, second) = unsafe { (words.read(), words.add(1).read()) };
    let size = second & header::MAX_SIZE as u64;
    if second >> 48 != header::guard::checksum(payload, word, size) && Check::Underflow.is_on() {
        return None;
    }
    Some((Layout { size: size as usize, offset: 1usize.wrapping_shl((word >> 56) as u32) }, word))
}

/// What the header of a block of the backend says of its size.
///
/// # Safety
/// There is such a block.
#[inline(always)]
pub(crate) unsafe fn size_unchecked(payload: *const u8) -> usize {
    // SAFETY: the caller's promise.
    unsafe { payload.sub(8).cast::<u64>().read() as usize & header::MAX_SIZE }
}

/// Writes the header of a block with address space of its own.
///
/// # Safety
/// The block is the caller's.
pub(crate) unsafe fn write_elsewhere(payload: *const u8, layout: Layout, site: SiteId, kind: Kind, epoch: u32) {
    let (first, second) = words(payload, layout, site, kind, epoch);
    let header = crate::space::words(payload.addr());
    // SAFETY: the record of the block's slot.
    unsafe {
        header.write(first);
        header.add(1).write(second);
    }
}

/// Gives a block the epoch of the one that it takes the place of.
///
/// # Safety
/// The block is the caller's.
pub(crate) unsafe fn keep_epoch(payload: *mut u8, epoch: u32) {
    let words = if header::guard::is_elsewhere(payload.addr()) {
        crate::space::words(payload.addr())
    } else {
        payload.wrapping_sub(header::SIZE).cast::<u64>()
    };
    // SAFETY: the caller's promise.
    unsafe {
        let word = words.read() & !(0xff_ffff << 32) | u64::from(epoch) << 32;
        let size = words.add(1).read() & header::MAX_SIZE as u64;
        words.write(word);
        words.add(1).write(size | header::guard::checksum(payload, word, size) << 48);
    }
}

/// Whether the canary is as it was written.
///
/// # Safety
/// The block is the caller's, or pinned.
#[inline(always)]
pub(crate) unsafe fn is_whole(payload: *const u8, layout: Layout) -> bool {
    // SAFETY: both words are in the block.
    unsafe {
        let last = payload.add(layout.tail() - 8);
        let canary = canary(last.addr());
        let first = payload.add(layout.size);
        let before_last = (last.addr() - first.addr()).min(8);
        // The first word's bytes that the last word does not hold.
        let mask = if before_last == 8 { u64::MAX } else { (1u64 << (8 * before_last)) - 1 };
        let differs = (last.cast::<u64>().read() ^ canary) | ((first.cast::<u64>().read_unaligned() ^ canary) & mask);
        differs == 0 || !Check::Overflow.is_on()
    }
}

/// The canary's bytes that are not what was written: the first and the last, counted from the payload's start.
///
/// # Safety
/// As [`is_whole`].
pub(crate) unsafe fn damage(payload: *const u8, layout: Layout) -> Option<(usize, usize)> {
    let tail = layout.tail();
    // SAFETY: all bytes are in the block.
    unsafe {
        let canary = canary(payload.add(tail - 8).addr()).to_le_bytes();
        let differs = |at: &usize| {
            let wanted = if *at >= tail - 8 { canary[*at - (tail - 8)] } else { canary[*at - layout.size] };
            payload.add(*at).read() != wanted
        };
        let first = (layout.size..tail).find(differs)?;
        Some((first, (layout.size..tail).rfind(differs)?))
    }
}

/// Clears from the payload's byte `from` to its byte `to`, a multiple of 8.
///
/// # Safety
/// The block is the caller's and has these bytes.
pub(crate) unsafe fn clear_tail(payload: *mut u8, from: usize, to: usize) {
    let aligned = from.next_multiple_of(8).min(to);
    // SAFETY: the caller's promise.
    unsafe {
        for at in from..aligned {
            payload.add(at).write_volatile(0);
        }
        fill::zero(payload.add(aligned), to - aligned);
    }
}

/// A freed block is cleared as a whole up to this many bytes. Of a longer one, too, while there is [`CLEAR`] for it; or
/// else its two [`EDGE`]s.
const CLEARED: usize = 4096 + 256;
/// What is cleared of a longer one at its start and at its end.
const EDGE: usize = 256;
/// How many bytes of longer blocks are cleared: 64 MiB at first and 128 MiB each second, about a thirtieth of the time.
static CLEAR: Budget = Budget::new(64 << 20, 128 << 20);

/// Whether a block that is freed now is cleared as a whole.
#[inline(always)]
pub(crate) fn clears_all(gross: usize) -> bool {
    gross <= CLEARED || CLEAR.spend(gross)
}

/// The parts of a freed block that are clear: from where to where, counted from the backend's block. (The second may be
/// empty.)
#[inline(always)]
pub(crate) fn cleared(layout: Layout, all: bool) -> [(usize, usize); 2] {
    let gross = layout.gross();
    if all {
        return [(0, gross), (gross, gross)];
    }
    let start = layout.offset - header::SIZE;
    let end = (start + EDGE).min(gross);
    [(start, end), ((gross - EDGE).max(end), gross)]
}

/// Whether blocks have come back to the backend that were not cleared as a whole: then there may be anything in memory that
/// was never a small block's.
static MIXED: AtomicBool = AtomicBool::new(false);

#[inline(always)]
pub(crate) fn is_heap_mixed() -> bool {
    MIXED.load(Ordering::Relaxed)
}

pub(crate) fn mix_heap() {
    MIXED.store(true, Ordering::Relaxed);
}

/// Clears a block that is freed.
///
/// # Safety
/// The block is the caller's.
#[inline(always)]
pub(crate) unsafe fn clear(base: *mut u8, layout: Layout, all: bool) {
    if all {
        // SAFETY: the caller's promise.
        return unsafe { fill::zero(base, layout.gross()) };
    }
    mix_heap();
    for (from, to) in cleared(layout, all) {
        // SAFETY: the caller's promise.
        unsafe { fill::zero(base.add(from), to - from) };
    }
}

/// Whether what was cleared is clear.
///
/// # Safety
/// As [`clear`], or the block waits.
#[inline(always)]
pub(crate) unsafe fn is_clear(base: *const u8, layout: Layout, all: bool) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        if all {
            return fill::is_zero(base, layout.gross());
        }
        cleared(layout, all).iter().all(|(from, to)| fill::is_zero(base.add(*from), to - from))
    }
}

/// Our own allocator's unit: the memory of one is there as a whole.
const UNIT: usize = 64 << 10;

/// Whether the 16 bytes before a block are what the end of the block before it is: a canary, or zero.
///
/// # Safety
/// The block is one of our own allocator's, and the caller's.
#[inline(always)]
pub(crate) unsafe fn is_clear_before<B: Backend>(base: *const u8) -> bool {
    if base.addr().is_multiple_of(UNIT) {
        return is_clear_before_unit::<B>(base);
    }
    // SAFETY: the same unit of memory.
    unsafe {
        let words = base.sub(16).cast::<u64>();
        let last = words.add(1).read_volatile();
        last == canary(base.addr() - 8) || (last | words.read_volatile()) == 0 || is_expected::<B>(base.addr() - 16)
    }
}

/// The same at the start of a unit: the one before it may not be there.
#[cold]
#[inline(never)]
fn is_clear_before_unit<B: Backend>(base: *const u8) -> bool {
    peek::words(base.addr() - 16).is_none_or(|words| words == [0, 0] || is_expected::<B>(base.addr() - 16))
}

/// Whether 16 bytes behind a block are zero, in what the allocator has rounded it up by, or in the next block if nobody has
/// that. (What follows a block at once is the next one's header, or the allocator's.) Gives where they are if they are not.
///
/// # Safety
/// As [`is_clear_before`]; the block is `gross` bytes long.
#[inline(always)]
pub(crate) unsafe fn damage_after<B: Backend>(base: *const u8, gross: usize) -> Option<*const u8> {
    // SAFETY: the caller's promise.
    let rest = unsafe { B::usable_size_of(base, gross) } - gross;
    let there = base.wrapping_add(gross + if rest < 32 { rest + header::SIZE } else { 16 });
    if rest < 32 && base.addr() / UNIT != (there.addr() + 15) / UNIT {
        return None;
    }
    // SAFETY: the same block, or the same unit of memory.
    let words = unsafe { there.cast::<u64>().read_volatile() | there.cast::<u64>().add(1).read_volatile() };
    if words == 0 || rest < 32 && allokit_track::live::is_live(there.addr()) || is_expected::<B>(there.addr()) {
        return None;
    }
    Some(there)
}

/// The slower look at 16 bytes that are not zero: a live block may reach there, or one that is just now allocated or freed;
/// or what was a block of another size once has left a link of the allocator's.
#[cold]
#[inline(never)]
fn is_expected<B: Backend>(addr: usize) -> bool {
    use allokit_track::live;
    if !Check::Underflow.is_on() {
        return true;
    }
    // The usual case, without a lock: a live block that ends here, rounded up by the allocator.
    if let Some(start) = live::last_start(addr + 15, crate::LARGE)
        // SAFETY: it was live a moment ago; if it is freed just now, it waits in the quarantine.
        && let size = unsafe { size_unchecked(core::ptr::with_exposed_provenance(start)) }
        && start + Layout::new(size).tail() > addr
    {
        return true;
    }
    is_expected_slowly::<B>(addr)
}

#[cold]
#[inline(never)]
fn is_expected_slowly<B: Backend>(addr: usize) -> bool {
    use allokit_track::live;
    for _ in 0..2 {
        let Some(_walk) = live::WALK.lock_for_report() else { return true };
        // A block that covers these bytes, or whose header does.
        let before = live::last_start(addr + 15 + header::SIZE, crate::LARGE * 2);
        if let Some(pin) = before.and_then(live::pin)
            // SAFETY: pinned.
            && unsafe { read(pin.payload) }.is_none_or(|(layout, _)| pin.payload.addr() + layout.tail() > addr)
        {
            // It reaches so far; whether it is whole is found when it is freed.
            return true;
        }
        drop(_walk);
        let is_link = |word: usize| {
            word == 0 || word.is_multiple_of(16) && B::owns(core::ptr::without_provenance(word)) == Some(true)
        };
        if peek::words(addr).is_none_or(|words| words.into_iter().all(is_link)) {
            return true;
        }
    }
    false
}
