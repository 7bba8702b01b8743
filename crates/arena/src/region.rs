//! Regions: blocks freed one by one inside a fixed buffer, in constant time.
//!
//! Owns: [`Raw`], the region as C sees it. The algorithm is the two-level segregated fit of M. Masmano, I. Ripoll,
//! A. Crespo and J. Real (TLSF, ECRTS 2004): free blocks hang in lists by the highest bit of their size and the four bits
//! below it, two bitmaps find a list with a block that fits, and neighbours are merged at once. In front of it, blocks of
//! up to 1 KiB that are freed wait, unmerged, in lists by exact size: at most [`QUICK_DEPTH`] of each size, so that
//! merging them when memory runs short is bounded by a constant too.
//!
//! How it is laid out: the control block (this struct, then the lists), the blocks, and an end mark, all in one buffer and
//! in units of 16 bytes. A block is a header of one unit and its payload. A header holds the block's size, the size of the
//! one before it (so both neighbours are known), the distance back to the control block (so a bare pointer leads to its
//! region), and a check word: a checksum over these and the header's address, the region's generation (a reset makes all
//! old headers invalid at once) and the block's state.
//!
//! Invariants, checked by [`Raw::check`]:
//!   the blocks' sizes add up to the region, and each one's `prev` is the size of the one before
//!   no two neighbours are both FREE; every FREE block is in the list of its size, every QUICK one in that of its exact size
//!   a bit is set exactly where a list is not empty; used is the sum over the USED blocks

use crate::census::REGIONS;
use crate::{Error, Kind, Label, Source, gap};
use allokit_core::{MAX_SIZE, MIN_ALIGN, is_valid_align};
use core::fmt;
use core::ptr::{self, NonNull};

const UNIT: usize = 16;
const NONE: u32 = u32::MAX;
/// Sizes from 2^4 units on have sixteen lists to a doubling.
const SPLIT_LOG: u32 = 4;
const SPLIT: usize = 1 << SPLIT_LOG;
/// A header and room for the links of a free block.
const LEAST: u32 = 2;
/// Sizes up to this, in units, wait unmerged in a region that is not small.
const QUICK_CLASSES: u32 = 64;
/// At most so many blocks of one size wait.
pub const QUICK_DEPTH: u32 = 4;
/// How many blocks of a list are looked at when no list is sure to fit.
const LOOKS: u32 = 8;
/// Less the region's address, its first word; of 31 bits, so that no instruction is needed for the constant alone.
const ALIVE: usize = 0x4E61_5A02;
/// The largest region: what 32 bits count in units.
const MOST_BYTES: usize = (u32::MAX as usize - 4096) * UNIT;

/// Of the end mark.
const END: u32 = 0;
const USED: u32 = 1;
const FREE: u32 = 2;
const QUICK: u32 = 3;
const STATE: u32 = 3;

/// One unit in front of each payload.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Header {
    /// In units, header included. 0: the end mark.
    size: u32,
    /// Units back to the control block.
    back: u32,
    /// The size of the block before; 0 for the first one.
    prev: u32,
    /// Checksum in the upper half, generation and state in the lower.
    check: u32,
}

impl Header {
    /// As the place holds it. The first two fields in one load; the check word alone, as it is stored alone.
    #[inline(always)]
    unsafe fn load(place: *const Header) -> Header {
        // SAFETY: the caller's header may be read; it is aligned to 16.
        unsafe {
            let words = place.cast::<u64>().read();
            let (low, high) = (words as u32, (words >> 32) as u32);
            let (size, back) = if cfg!(target_endian = "little") { (low, high) } else { (high, low) };
            Header { size, back, prev: (*place).prev, check: (*place).check }
        }
    }

    #[inline(always)]
    fn sum(self, addr: usize) -> u32 {
        let words = u64::from(self.size) | u64::from(self.back) << 32;
        // One multiplication: its upper bits depend on every bit below them.
        let mixed = words ^ (addr as u64) ^ u64::from(self.prev).rotate_left(43);
        (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as u32
    }

    /// The check word of a block at `addr` in this low half.
    #[inline(always)]
    fn seal(mut self, addr: usize, low: u32) -> Header {
        self.check = (self.sum(addr) ^ low) << 16 | low;
        self
    }

    #[inline(always)]
    fn is_sound(self, addr: usize) -> bool {
        (self.check ^ self.check >> 16) as u16 == self.sum(addr) as u16
    }

    #[inline(always)]
    fn state(self) -> u32 {
        self.check & STATE
    }
}

/// In the payload of a block that waits.
#[repr(C)]
struct Link {
    next: *mut u8,
    /// What [`Raw::beside`] says.
    beside: usize,
}

/// The blocks of one size that wait. Payloads and not numbers, so that a block that is freed and the next one of its size
/// cost no arithmetic between the two; the next one's is in the payload.
#[repr(C)]
struct Waiting {
    first: *mut u8,
    depth: usize,
}

/// In the payload of a free block: numbers of units from the first block.
#[repr(C)]
struct Links {
    next: u32,
    prev: u32,
}

/// The figures of a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes for blocks, their headers included.
    pub capacity: usize,
    /// Bytes of live blocks, headers included.
    pub used: usize,
    /// The rest.
    pub free: usize,
    /// The most that `used` has been.
    pub peak: usize,
    /// The largest payload that one free block has.
    pub largest_free: usize,
    /// Live blocks.
    pub blocks: usize,
}

/// A region: `ak_region_t`. Lies in its own buffer; the lists follow it.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Raw {
    alive: usize,
    /// The first block's header.
    base: *mut u8,
    /// From there to the end mark.
    units: u32,
    /// Generation, shifted past the state.
    stamp: u32,
    /// What the lower half of a USED block's check word is.
    used_mark: u16,
    used: u32,
    peak: u32,
    /// Sizes up to this, in units, wait unmerged.
    quick_classes: u32,
    /// How deep their lists may be.
    quick_depth: u32,
    /// The largest payload that they have, in bytes.
    quick_bytes: usize,
    /// Which rows have a block.
    row_map: u32,
    rows: u32,
    /// The payload of the block at the far end, or null.
    scratch: *mut u8,
    /// Whose block this region lies in, and the chain of those in ours.
    parent: *mut Raw,
    child: *mut Raw,
    elder: *mut Raw,
    sibling: *mut Raw,
    /// What was taken from the source or the parent; null for a caller's buffer.
    memory: *mut u8,
    memory_size: usize,
    source: Source,
    label: Label,
}

type Block = Result<NonNull<u8>, Error>;

/// The list of a size: row and column.
#[inline(always)]
fn place_of(units: u32) -> (usize, usize) {
    if units < SPLIT as u32 {
        (0, units as usize)
    } else {
        let log = 31 - units.leading_zeros();
        ((log - SPLIT_LOG + 1) as usize, ((units >> (log - SPLIT_LOG)) & (SPLIT as u32 - 1)) as usize)
    }
}

/// The size from which on every block of a list fits.
#[inline(always)]
fn rounded(units: u32) -> u32 {
    if units < SPLIT as u32 {
        units
    } else {
        let log = 31 - units.leading_zeros();
        units.saturating_add((1 << (log - SPLIT_LOG)) - 1)
    }
}

/// Units of a block with this much payload, or `None` when no region has room for it.
#[inline(always)]
fn units_of(size: usize) -> Option<u32> {
    if size > MOST_BYTES {
        return None;
    }
    Some(size.max(1).div_ceil(UNIT) as u32 + 1)
}

/// Bytes of the control block of a region with so many units: the struct, the waiting lists, the lists, the columns' maps.
fn control_size(rows: u32, quick_classes: u32) -> usize {
    let lists = (quick_classes as usize + 1) * size_of::<Waiting>() + rows as usize * (SPLIT * 4 + 2);
    size_of::<Raw>() + lists.next_multiple_of(UNIT)
}

/// # Safety of all functions here
/// `r` is a living region that nobody else uses at the same time; payload pointers are whatever the caller has.
#[allow(clippy::missing_safety_doc)] // said above, once
impl Raw {
    /// Makes a region in a buffer of the caller's, of any alignment.
    ///
    /// # Errors
    /// `Invalid` for null and for a buffer without room for the control block and one block.
    ///
    /// # Safety
    /// The buffer is the region's until it is destroyed.
    pub unsafe fn in_buffer(buffer: *mut u8, size: usize, label: Label) -> Result<NonNull<Raw>, Error> {
        if buffer.is_null() || size > MAX_SIZE {
            return Err(Error::Invalid);
        }
        let skip = gap(buffer, UNIT);
        // What is beyond the largest region stays unused.
        let units = size.saturating_sub(skip).min(MOST_BYTES) / UNIT;
        let (quick_classes, quick_depth) = match units * UNIT {
            0..4096 => (0, 0),
            4096..65536 => (16, 1),
            _ => (QUICK_CLASSES, QUICK_DEPTH),
        };
        let rows = place_of(units as u32).0 as u32 + 1;
        let control = control_size(rows, quick_classes) / UNIT;
        if units < control + LEAST as usize + 1 {
            return Err(Error::Invalid);
        }
        // SAFETY: the buffer has room for the control block and what follows.
        unsafe {
            let r = buffer.add(skip).cast::<Raw>();
            r.write(Raw {
                alive: ALIVE.wrapping_sub(r.addr()),
                base: r.cast::<u8>().add(control * UNIT),
                units: (units - control - 1) as u32,
                stamp: 0,
                used_mark: USED as u16,
                used: 0,
                peak: 0,
                quick_classes,
                quick_depth,
                quick_bytes: (quick_classes as usize).saturating_sub(1) * UNIT,
                row_map: 0,
                rows,
                scratch: ptr::null_mut(),
                parent: ptr::null_mut(),
                child: ptr::null_mut(),
                elder: ptr::null_mut(),
                sibling: ptr::null_mut(),
                memory: ptr::null_mut(),
                memory_size: 0,
                source: Source::NONE,
                label,
            });
            Raw::empty(r);
            REGIONS.made();
            Ok(NonNull::new_unchecked(r))
        }
    }

    /// A region with room for about `size` bytes of blocks, out of a source.
    ///
    /// # Errors
    /// `NoMemory`.
    pub unsafe fn create(size: usize, source: Source, label: Label) -> Result<NonNull<Raw>, Error> {
        let whole = Raw::whole(size).ok_or(Error::NoMemory)?;
        let memory = source.take(whole, UNIT, &REGIONS);
        if memory.is_null() {
            return Err(Error::NoMemory);
        }
        // SAFETY: the memory is ours; a failure gives it back.
        unsafe {
            match Raw::in_buffer(memory, whole, label) {
                Ok(r) => {
                    let raw = r.as_ptr();
                    ((*raw).memory, (*raw).memory_size, (*raw).source) = (memory, whole, source);
                    Ok(r)
                }
                Err(error) => {
                    source.give(memory, whole, &REGIONS);
                    Err(error)
                }
            }
        }
    }

    /// A region in a block of another one. It ends with its parent, also when that is reset.
    ///
    /// # Errors
    /// `NoMemory`.
    pub unsafe fn child(parent: *mut Raw, size: usize, label: Label) -> Result<NonNull<Raw>, Error> {
        let whole = Raw::whole(size).ok_or(Error::NoMemory)?;
        // SAFETY: the block is the child's.
        unsafe {
            let memory = Raw::alloc(parent, whole)?.as_ptr();
            let r = match Raw::in_buffer(memory, whole, label) {
                Ok(r) => r,
                Err(error) => {
                    let _ = Raw::free(memory);
                    return Err(error);
                }
            };
            let raw = r.as_ptr();
            ((*raw).memory, (*raw).memory_size, (*raw).parent) = (memory, whole, parent);
            (*raw).elder = (*parent).child;
            if !(*raw).elder.is_null() {
                (*(*raw).elder).sibling = raw;
            }
            (*parent).child = raw;
            Ok(r)
        }
    }

    /// The bytes that a region with so much room for blocks takes in all.
    fn whole(size: usize) -> Option<usize> {
        if size > MOST_BYTES - (64 << 10) {
            return None;
        }
        let blocks = size.max(LEAST as usize * UNIT).next_multiple_of(UNIT) + UNIT;
        // The control block grows with the size; twice is enough to know its rows.
        let rows = place_of(((blocks + 8192) / UNIT) as u32).0 as u32 + 1;
        Some(blocks + control_size(rows, QUICK_CLASSES))
    }

    /// One free block, and nothing else.
    unsafe fn empty(r: *mut Raw) {
        // SAFETY: the control block is ours; so are the blocks by now.
        unsafe {
            for class in 0..=(*r).quick_classes {
                Raw::quick(r, class).write(Waiting { first: ptr::null_mut(), depth: 0 });
            }
            for at in 0..(*r).rows as usize * SPLIT {
                Raw::heads(r).add(at).write(NONE);
            }
            for row in 0..(*r).rows as usize {
                Raw::maps(r).add(row).write(0);
            }
            ((*r).row_map, (*r).used, (*r).scratch) = (0, 0, ptr::null_mut());
            let units = (*r).units;
            Raw::write(r, 0, units, 0, FREE);
            Raw::write(r, units, 0, units, END);
            Raw::insert(r, 0, units);
        }
    }

    // ---- the parts of the buffer ----

    #[inline(always)]
    unsafe fn quick(r: *mut Raw, class: u32) -> *mut Waiting {
        // SAFETY: the lists follow the struct.
        unsafe { r.add(1).cast::<Waiting>().add(class as usize) }
    }

    #[inline(always)]
    unsafe fn heads(r: *mut Raw) -> *mut u32 {
        // SAFETY: behind the waiting lists.
        unsafe { r.add(1).cast::<Waiting>().add((*r).quick_classes as usize + 1).cast() }
    }

    #[inline(always)]
    unsafe fn maps(r: *mut Raw) -> *mut u16 {
        // SAFETY: behind the lists.
        unsafe { Raw::heads(r).add((*r).rows as usize * SPLIT).cast() }
    }

    #[inline(always)]
    unsafe fn header(r: *mut Raw, at: u32) -> *mut Header {
        // SAFETY: `at` is a block's number, or the end mark's.
        unsafe { (*r).base.add(at as usize * UNIT).cast() }
    }

    #[inline(always)]
    unsafe fn links(r: *mut Raw, at: u32) -> *mut Links {
        // SAFETY: a block has a unit of payload.
        unsafe { Raw::header(r, at).add(1).cast() }
    }

    /// Writes the header of a block.
    #[inline(always)]
    unsafe fn write(r: *mut Raw, at: u32, size: u32, prev: u32, state: u32) {
        // SAFETY: `at` is where a block begins, by the caller's word.
        unsafe {
            let place = Raw::header(r, at);
            let back = ((place.addr() - r.addr()) / UNIT) as u32;
            place.write(Header { size, back, prev, check: 0 }.seal(place.addr(), (*r).stamp | state));
        }
    }

    /// Tells a block the size of the one before it.
    #[inline(always)]
    unsafe fn tell_prev(r: *mut Raw, at: u32, prev: u32) {
        // SAFETY: `at` is a block's number or the end mark's.
        unsafe {
            let place = Raw::header(r, at);
            let low = (*place).check & 0xFFFF;
            let mut header = place.read();
            header.prev = prev;
            place.write(header.seal(place.addr(), low));
        }
    }

    /// Another state for a block.
    #[inline(always)]
    unsafe fn turn(place: *mut Header, from: u32, to: u32) {
        // SAFETY: a block's header.
        unsafe {
            (*place).check ^= (from ^ to) << 16 | (from ^ to);
        }
    }

    unsafe fn number(r: *mut Raw, place: *mut Header) -> u32 {
        // SAFETY: a header of this region.
        unsafe { ((place.addr() - (*r).base.addr()) / UNIT) as u32 }
    }

    // ---- the lists of free blocks ----

    #[inline(always)]
    unsafe fn insert(r: *mut Raw, at: u32, units: u32) {
        // SAFETY: a block in state FREE that is in no list.
        unsafe {
            let (row, column) = place_of(units);
            let head = Raw::heads(r).add(row * SPLIT + column);
            let first = *head;
            Raw::links(r, at).write(Links { next: first, prev: NONE });
            if first == NONE {
                *Raw::maps(r).add(row) |= 1 << column;
                (*r).row_map |= 1 << row;
            } else {
                (*Raw::links(r, first)).prev = at;
            }
            *head = at;
        }
    }

    #[inline(always)]
    unsafe fn unlink(r: *mut Raw, at: u32, units: u32) {
        // SAFETY: a block in the list of its size.
        unsafe {
            let Links { next, prev } = Raw::links(r, at).read();
            if next != NONE {
                (*Raw::links(r, next)).prev = prev;
            }
            if prev != NONE {
                (*Raw::links(r, prev)).next = next;
                return;
            }
            let (row, column) = place_of(units);
            *Raw::heads(r).add(row * SPLIT + column) = next;
            if next == NONE {
                let map = Raw::maps(r).add(row);
                *map &= !(1 << column);
                if *map == 0 {
                    (*r).row_map &= !(1 << row);
                }
            }
        }
    }

    /// A free block of at least `units`, in constant time: the head of the first list in which all blocks fit; failing
    /// that, one of the first few in the list in which some may.
    unsafe fn find(r: *mut Raw, units: u32, fits: impl Fn(u32, u32) -> bool) -> u32 {
        // SAFETY: the lists hold free blocks of this region.
        unsafe {
            let (row, column) = place_of(rounded(units));
            if row < (*r).rows as usize {
                let columns = u32::from(*Raw::maps(r).add(row)) & (u32::MAX << column);
                let found = if columns != 0 {
                    Some((row, columns.trailing_zeros() as usize))
                } else {
                    let rows = (*r).row_map & (u32::MAX << row << 1);
                    (rows != 0).then(|| {
                        let row = rows.trailing_zeros() as usize;
                        (row, (*Raw::maps(r).add(row)).trailing_zeros() as usize)
                    })
                };
                if let Some((row, column)) = found {
                    let at = *Raw::heads(r).add(row * SPLIT + column);
                    if fits(at, (*Raw::header(r, at)).size) {
                        return at;
                    }
                }
            }
            let (row, column) = place_of(units);
            if row >= (*r).rows as usize {
                return NONE;
            }
            let mut at = *Raw::heads(r).add(row * SPLIT + column);
            for _ in 0..LOOKS {
                if at == NONE || fits(at, (*Raw::header(r, at)).size) {
                    return at;
                }
                at = (*Raw::links(r, at)).next;
            }
            NONE
        }
    }

    /// Merges the blocks that wait; at most [`QUICK_DEPTH`] of each size. Whether there were any.
    #[cold]
    unsafe fn merge_waiting(r: *mut Raw) -> bool {
        let mut any = false;
        // SAFETY: the waiting lists hold blocks in state QUICK.
        unsafe {
            for class in LEAST..=(*r).quick_classes {
                let list = Raw::quick(r, class);
                // Ends at null, and at a block that was written after it was freed: it and what hangs behind are lost until a
                // reset, and check() says so.
                while Raw::is_linked(r, (*list).first, class) {
                    let payload = (*list).first;
                    (*list).first = (*payload.cast::<Link>()).next;
                    let place = payload.cast::<Header>().sub(1);
                    Raw::turn(place, QUICK, USED);
                    Raw::release(r, Raw::number(r, place));
                    any = true;
                }
                list.write(Waiting { first: ptr::null_mut(), depth: 0 });
            }
        }
        any
    }

    /// Whether a pointer from a waiting list is the payload of a block that waits there. Null is not.
    unsafe fn is_waiting(r: *mut Raw, payload: *mut u8, class: u32) -> bool {
        let place = payload.wrapping_sub(UNIT).cast::<Header>();
        // SAFETY: read only where the region is, and at multiples of a unit: what is no multiple becomes a huge number.
        unsafe {
            let number = place.addr().wrapping_sub((*r).base.addr()).rotate_right(UNIT.trailing_zeros());
            number < (*r).units as usize && {
                let header = place.read();
                header.size == class && header.check == header.seal(place.addr(), (*r).stamp | QUICK).check
            }
        }
    }

    /// As `is_waiting`, and its links are what `free` wrote.
    unsafe fn is_linked(r: *mut Raw, payload: *mut u8, class: u32) -> bool {
        // SAFETY: read only when it is a block.
        unsafe {
            Raw::is_waiting(r, payload, class) && {
                let link = payload.cast::<Link>().read();
                link.beside == Raw::beside(payload, link.next)
            }
        }
    }

    /// What stands beside the link in a block that waits: a write into it after it was freed is known by it.
    #[inline(always)]
    fn beside(payload: *mut u8, next: *mut u8) -> usize {
        payload.addr() ^ next.addr()
    }

    // ---- allocating ----

    /// A block.
    ///
    /// # Errors
    /// `NoMemory`; `Fault` when the block that would have served was written while free.
    #[inline(always)]
    pub unsafe fn alloc(r: *mut Raw, size: usize) -> Block {
        // SAFETY: the caller's promise.
        unsafe {
            match Raw::alloc_waiting(r, size) {
                Some(block) => Ok(block),
                None => Raw::alloc_fit(r, size),
            }
        }
    }

    /// A block that waits, of exactly the size. The hot path.
    #[inline(always)]
    pub unsafe fn alloc_waiting(r: *mut Raw, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: the list leads to a block that waits, and on only if its links are what free() wrote. (Whether somebody wrote
        // over the header meanwhile is seen when the block is freed.)
        unsafe {
            if size.wrapping_sub(1) >= (*r).quick_bytes {
                return None;
            }
            let units = ((size + 2 * UNIT - 1) / UNIT) as u32;
            let list = Raw::quick(r, units);
            let payload = (*list).first;
            if payload.is_null() {
                return None;
            }
            let link = payload.cast::<Link>().read();
            if link.beside != Raw::beside(payload, link.next) {
                return None;
            }
            (*list).first = link.next;
            (*list).depth = (*list).depth.wrapping_sub(1);
            Raw::turn(payload.cast::<Header>().sub(1), QUICK, USED);
            Raw::count(r, units);
            Some(NonNull::new_unchecked(payload))
        }
    }

    /// A block, when none of the size waits.
    ///
    /// # Errors
    /// As [`Raw::alloc`].
    #[inline(never)]
    pub unsafe fn alloc_fit(r: *mut Raw, size: usize) -> Block {
        let Some(units) = units_of(size) else { return Err(Error::NoMemory) };
        // SAFETY: the list is cut; what it leads to is not followed.
        unsafe {
            if units <= (*r).quick_classes {
                let list = Raw::quick(r, units);
                let payload = (*list).first;
                // A block of no bytes takes this way too.
                if !payload.is_null() && !Raw::is_linked(r, payload, units) {
                    // It leads to no block: it was written after it was freed.
                    list.write(Waiting { first: ptr::null_mut(), depth: 0 });
                    return Err(Error::fault(Kind::WriteAfterReset, payload.addr()));
                }
            }
            Raw::fit(r, units, UNIT)
        }
    }

    #[inline(always)]
    unsafe fn count(r: *mut Raw, units: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let used = (*r).used + units;
            (*r).used = used;
            if used > (*r).peak {
                (*r).peak = used;
            }
        }
    }

    /// A block aligned to `align`; the gap in front of it is a free block.
    ///
    /// # Errors
    /// `Invalid` when the alignment is none, `NoMemory`.
    pub unsafe fn alloc_aligned(r: *mut Raw, size: usize, align: usize) -> Block {
        if !is_valid_align(align) {
            return Err(Error::Invalid);
        }
        // SAFETY: the caller's promise.
        unsafe {
            if align <= MIN_ALIGN {
                return Raw::alloc(r, size);
            }
            match units_of(size) {
                Some(units) => Raw::fit(r, units, align),
                None => Err(Error::NoMemory),
            }
        }
    }

    /// A zeroed block.
    ///
    /// # Errors
    /// `NoMemory`, also when the product is impossible.
    pub unsafe fn calloc(r: *mut Raw, count: usize, size: usize) -> Block {
        let bytes = allokit_core::array_size(count, size).ok_or(Error::NoMemory)?;
        // SAFETY: the block is fresh and has that many bytes.
        unsafe {
            let block = Raw::alloc(r, bytes)?;
            block.as_ptr().write_bytes(0, bytes);
            Ok(block)
        }
    }

    /// How many units in front of a block make its payload aligned: 0, or enough for a block.
    unsafe fn front(r: *mut Raw, at: u32, align: usize) -> u32 {
        // SAFETY: a block's number.
        unsafe {
            let payload = Raw::header(r, at).add(1).cast::<u8>();
            let front = (gap(payload, align) / UNIT) as u32;
            if front != 0 && front < LEAST { front + (align / UNIT) as u32 } else { front }
        }
    }

    #[inline(never)]
    unsafe fn fit(r: *mut Raw, units: u32, align: usize) -> Block {
        // SAFETY: what is found is a free block with room for the gap and the block.
        unsafe {
            let wide = (align > MIN_ALIGN).then(|| u64::from(units) + (align / UNIT) as u64 + 1);
            loop {
                let fits = |at: u32, size: u32| {
                    size >= units
                        && (wide.is_none() || u64::from(size) >= u64::from(units) + u64::from(Raw::front(r, at, align)))
                };
                let mut at = Raw::find(r, units, fits);
                if at == NONE
                    && let Some(wide) = wide
                    && wide <= u64::from((*r).units)
                {
                    at = Raw::find(r, wide as u32, fits);
                }
                if at != NONE {
                    let front = if wide.is_some() { Raw::front(r, at, align) } else { 0 };
                    return Ok(Raw::carve(r, at, front, units));
                }
                if !Raw::merge_waiting(r) {
                    return Err(Error::NoMemory);
                }
            }
        }
    }

    /// Takes `units` out of a free block, `front` units into it; what is left on both sides stays free.
    #[inline]
    unsafe fn carve(r: *mut Raw, at: u32, front: u32, units: u32) -> NonNull<u8> {
        // SAFETY: the block is in its list and large enough; all numbers stay inside it.
        unsafe {
            let Header { size, mut prev, .. } = Raw::header(r, at).read();
            Raw::unlink(r, at, size);
            let start = at + front;
            if front != 0 {
                Raw::write(r, at, front, prev, FREE);
                Raw::insert(r, at, front);
                prev = front;
            }
            let (mut taken, left) = (units, size - front - units);
            if left >= LEAST {
                let rest = start + units;
                Raw::write(r, rest, left, units, FREE);
                Raw::insert(r, rest, left);
                Raw::tell_prev(r, rest + left, left);
            } else {
                taken += left;
                if front != 0 || left != 0 {
                    Raw::tell_prev(r, start + taken, taken);
                }
            }
            Raw::write(r, start, taken, prev, USED);
            Raw::count(r, taken);
            NonNull::new_unchecked(Raw::header(r, start).add(1).cast())
        }
    }

    /// The one block at the far end of the buffer, where it is in nobody's way.
    ///
    /// # Errors
    /// `Busy` while there is one, `NoMemory` when the last block is in use or too small.
    pub unsafe fn scratch(r: *mut Raw, size: usize) -> Block {
        let Some(units) = units_of(size) else { return Err(Error::NoMemory) };
        // SAFETY: the end mark knows the last block.
        unsafe {
            if !(*r).scratch.is_null() {
                return Err(Error::Busy);
            }
            Raw::merge_waiting(r);
            let last = (*Raw::header(r, (*r).units)).prev;
            let at = (*r).units - last;
            let header = Raw::header(r, at).read();
            if header.state() != FREE || header.size < units {
                return Err(Error::NoMemory);
            }
            let front = header.size - units;
            let block = Raw::carve(
                r,
                at,
                if front >= LEAST { front } else { 0 },
                if front >= LEAST { units } else { header.size },
            );
            (*r).scratch = block.as_ptr();
            Ok(block)
        }
    }

    // ---- freeing ----

    /// The region and the header of a live block, from its bare pointer.
    #[inline(always)]
    unsafe fn owner(payload: *mut u8) -> Option<(*mut Raw, Header)> {
        if payload.addr() & (UNIT - 1) != 0 {
            return None;
        }
        // SAFETY: the caller gives a pointer that was a block's; what stands before it is believed only if its checksum,
        // which is bound to this very address, says so.
        unsafe {
            let place = payload.cast::<Header>().sub(1);
            let header = Header::load(place);
            if header.is_sound(place.addr()) {
                let r = place.cast::<u8>().sub(header.back as usize * UNIT).cast::<Raw>();
                // No end mark: that is in no state of a block's.
                if (*r).alive == ALIVE.wrapping_sub(r.addr()) && header.check as u16 == (*r).used_mark {
                    return Some((r, header));
                }
            }
            None
        }
    }

    /// The region, the number and the size of a live block.
    unsafe fn live(payload: *mut u8) -> Result<(*mut Raw, u32, u32), Error> {
        // SAFETY: the caller's promise.
        unsafe {
            match Raw::owner(payload) {
                Some((r, header)) => Ok((r, Raw::number(r, payload.cast::<Header>().sub(1)), header.size)),
                None => Err(Raw::why(payload)),
            }
        }
    }

    /// What is wrong with a pointer that is no live block.
    #[cold]
    #[inline(never)]
    unsafe fn why(payload: *mut u8) -> Error {
        // SAFETY: as in `owner`.
        unsafe {
            if payload.addr() & (UNIT - 1) != 0 {
                return Error::fault(Kind::Foreign, payload.addr());
            }
            let place = payload.cast::<Header>().sub(1);
            let header = place.read();
            let mut kind = Kind::Foreign;
            if header.is_sound(place.addr()) {
                let r = place.cast::<u8>().sub(header.back as usize * UNIT).cast::<Raw>();
                kind = if (*r).alive != ALIVE.wrapping_sub(r.addr()) {
                    Kind::Ended
                } else if header.check & 0xFFFC != (*r).stamp {
                    Kind::StaleMark
                } else if header.size >= LEAST {
                    Kind::DoubleFree
                } else {
                    Kind::Foreign
                };
            }
            Error::fault(kind, payload.addr())
        }
    }

    /// The region of a block that lives; for reports.
    ///
    /// # Safety
    /// The pointer is or was a block's of some region.
    pub unsafe fn of(payload: *mut u8) -> Option<NonNull<Raw>> {
        // SAFETY: the caller's promise.
        unsafe {
            if payload.is_null() || payload.addr() & (UNIT - 1) != 0 {
                return None;
            }
            let place = payload.cast::<Header>().sub(1);
            let header = place.read();
            if !header.is_sound(place.addr()) {
                return None;
            }
            let r = place.cast::<u8>().sub(header.back as usize * UNIT).cast::<Raw>();
            if Raw::is_alive(r) { NonNull::new(r) } else { None }
        }
    }

    /// Frees a block of any region.
    ///
    /// # Errors
    /// `Fault` for what is no live block; nothing is changed.
    ///
    /// # Safety
    /// `payload` is or was a block of a region whose memory is still there.
    #[inline(always)]
    pub unsafe fn free(payload: *mut u8) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { if Raw::free_to_wait(payload) { Ok(()) } else { Raw::free_now(payload) } }
    }

    /// Frees a block if it may wait for the next one of its size; false when that is not so, whatever the reason. The hot
    /// path.
    ///
    /// # Safety
    /// As [`Raw::free`].
    #[inline(always)]
    pub unsafe fn free_to_wait(payload: *mut u8) -> bool {
        // SAFETY: the owner's records are sound as far as the block goes.
        unsafe {
            let Some((r, header)) = Raw::owner(payload) else { return false };
            if header.size > (*r).quick_classes || payload == (*r).scratch {
                return false;
            }
            let list = Raw::quick(r, header.size);
            if (*list).depth >= (*r).quick_depth as usize {
                return false;
            }
            (*r).used -= header.size;
            Raw::turn(payload.cast::<Header>().sub(1), USED, QUICK);
            let next = (*list).first;
            payload.cast::<Link>().write(Link { next, beside: Raw::beside(payload, next) });
            (*list).first = payload;
            (*list).depth += 1;
            true
        }
    }

    /// Frees a block that does not wait.
    ///
    /// # Errors
    /// As [`Raw::free`].
    ///
    /// # Safety
    /// As [`Raw::free`].
    #[inline(never)]
    pub unsafe fn free_now(payload: *mut u8) -> Result<(), Error> {
        // SAFETY: a live block of this region, once its owner is known.
        unsafe {
            let (r, at, units) = Raw::live(payload)?;
            (*r).used -= units;
            if payload == (*r).scratch {
                (*r).scratch = ptr::null_mut();
            }
            Raw::release(r, at);
            Ok(())
        }
    }

    /// Makes a block free, merged with its neighbours.
    #[inline(never)]
    unsafe fn release(r: *mut Raw, mut at: u32) {
        // SAFETY: the neighbours' numbers come from sound headers.
        unsafe {
            let Header { mut size, mut prev, .. } = Raw::header(r, at).read();
            let next = Raw::header(r, at + size).read();
            if next.state() == FREE {
                Raw::unlink(r, at + size, next.size);
                size += next.size;
            }
            if prev != 0 {
                let before = Raw::header(r, at - prev).read();
                if before.state() == FREE {
                    // What is left of this header still says that the block is free.
                    Raw::turn(Raw::header(r, at), USED, FREE);
                    Raw::unlink(r, at - prev, before.size);
                    at -= prev;
                    size += before.size;
                    prev = before.prev;
                }
            }
            Raw::write(r, at, size, prev, FREE);
            Raw::tell_prev(r, at + size, size);
            Raw::insert(r, at, size);
        }
    }

    /// Resizes a block, in place where it shrinks or what follows is free. A null block allocates, size 0 frees.
    ///
    /// # Errors
    /// `NoMemory`, `Fault`; the block is then as it was.
    ///
    /// # Safety
    /// As [`Raw::free`].
    pub unsafe fn realloc(r: *mut Raw, payload: *mut u8, size: usize) -> Result<Option<NonNull<u8>>, Error> {
        // SAFETY: the block is live and of this region; copies stay inside both blocks.
        unsafe {
            if payload.is_null() {
                return Raw::alloc(r, size).map(Some);
            }
            let (owner, at, had) = Raw::live(payload)?;
            if owner != r {
                return Err(Error::fault(Kind::Foreign, payload.addr()));
            }
            if size == 0 {
                Raw::free(payload)?;
                return Ok(None);
            }
            let Some(units) = units_of(size) else { return Err(Error::NoMemory) };
            if units > had {
                let mut next = Raw::header(r, at + had).read();
                if next.state() == QUICK {
                    Raw::merge_waiting(r);
                    next = Raw::header(r, at + had).read();
                }
                if next.state() != FREE || u64::from(had) + u64::from(next.size) < u64::from(units) {
                    let made = Raw::alloc(r, size)?;
                    made.as_ptr().copy_from_nonoverlapping(payload, (had as usize - 1) * UNIT);
                    Raw::free(payload)?;
                    return Ok(Some(made));
                }
                Raw::unlink(r, at + had, next.size);
                Raw::resize(r, at, had + next.size, units);
            } else if had - units >= LEAST {
                Raw::resize(r, at, had, units);
            }
            (*r).used = (*r).used - had + (*Raw::header(r, at)).size;
            (*r).peak = (*r).peak.max((*r).used);
            Ok(NonNull::new(payload))
        }
    }

    /// Gives a USED block `units` of the `size` that are there, and makes the rest free.
    unsafe fn resize(r: *mut Raw, at: u32, size: u32, units: u32) {
        // SAFETY: `size` units from `at` on are the block's and in no list.
        unsafe {
            let prev = (*Raw::header(r, at)).prev;
            if size - units < LEAST {
                Raw::write(r, at, size, prev, USED);
                Raw::tell_prev(r, at + size, size);
                return;
            }
            Raw::write(r, at, units, prev, USED);
            Raw::write(r, at + units, size - units, units, USED);
            Raw::tell_prev(r, at + size, size - units);
            Raw::release(r, at + units);
        }
    }

    /// How many bytes a live block has.
    ///
    /// # Errors
    /// `Fault` for what is no live block.
    ///
    /// # Safety
    /// As [`Raw::free`].
    pub unsafe fn usable(payload: *mut u8) -> Result<usize, Error> {
        // SAFETY: the caller's promise.
        unsafe { Raw::live(payload).map(|(_, _, units)| (units as usize - 1) * UNIT) }
    }

    // ---- the whole ----

    /// Ends all blocks and the regions in them. What they leave behind is known as ended for 16384 resets.
    pub unsafe fn reset(r: *mut Raw) {
        // SAFETY: the caller's promise.
        unsafe {
            Raw::end_children(r);
            (*r).stamp = ((*r).stamp + (STATE + 1)) & 0xFFFC;
            (*r).used_mark = ((*r).stamp | USED) as u16;
            Raw::empty(r);
        }
    }

    /// As [`Raw::reset`], and zeroes the memory.
    pub unsafe fn reset_zero(r: *mut Raw) {
        // SAFETY: base..end mark is memory for blocks.
        unsafe {
            Raw::end_children(r);
            (*r).base.write_bytes(0, (*r).units as usize * UNIT);
            Raw::reset(r);
        }
    }

    /// Ends the region. Its memory goes back to where it came from; a caller's buffer is the caller's again.
    ///
    /// # Errors
    /// A fault of the block that a child lies in.
    pub unsafe fn destroy(r: *mut Raw) -> Result<(), Error> {
        // SAFETY: nobody uses it any more.
        unsafe {
            Raw::end_children(r);
            let (parent, memory, size, source) = ((*r).parent, (*r).memory, (*r).memory_size, (*r).source);
            (*r).alive = 0;
            REGIONS.ended();
            if !parent.is_null() {
                if (*r).sibling.is_null() {
                    (*parent).child = (*r).elder;
                } else {
                    (*(*r).sibling).elder = (*r).elder;
                }
                if !(*r).elder.is_null() {
                    (*(*r).elder).sibling = (*r).sibling;
                }
                return Raw::free(memory);
            }
            if !memory.is_null() {
                source.give(memory, size, &REGIONS);
            }
            Ok(())
        }
    }

    /// The regions inside this one are told that they have ended.
    unsafe fn end_children(r: *mut Raw) {
        // SAFETY: the chains lead to living regions; each is left before it ends. Without recursion, however deep.
        unsafe {
            let mut one = r;
            loop {
                while !(*one).child.is_null() {
                    one = (*one).child;
                }
                if one == r {
                    return;
                }
                let parent = (*one).parent;
                (*one).alive = 0;
                REGIONS.ended();
                (*parent).child = (*one).elder;
                one = parent;
            }
        }
    }

    /// Whether `r` is a region that lives. Looks at memory that may have ended: a net, no proof.
    #[inline]
    pub unsafe fn is_alive(r: *const Raw) -> bool {
        // SAFETY: the caller's promise, as far as it goes.
        !r.is_null() && unsafe { (&raw const (*r).alive).read_unaligned() } == ALIVE.wrapping_sub(r.addr())
    }

    /// Whether the address lies in a block of this region.
    pub unsafe fn owns(r: *mut Raw, address: *const u8) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            let from = (*r).base.addr();
            address.addr() >= from && address.addr() < from + (*r).units as usize * UNIT
        }
    }

    /// Name and place.
    pub unsafe fn label(r: *const Raw) -> Label {
        // SAFETY: the caller's promise.
        unsafe { (*r).label }
    }

    /// Calls `each` with number and header of each block, as long as headers are sound; false when one is not.
    unsafe fn walk(r: *mut Raw, mut each: impl FnMut(u32, Header)) -> bool {
        // SAFETY: only sound headers are followed, and only up to the end mark.
        unsafe {
            let (mut at, mut prev) = (0, 0);
            while at < (*r).units {
                let place = Raw::header(r, at);
                let header = place.read();
                let back = ((place.addr() - r.addr()) / UNIT) as u32;
                let low = header.check & 0xFFFF;
                let sound = header.is_sound(place.addr())
                    && header.prev == prev
                    && header.back == back
                    && header.size >= LEAST
                    && header.size <= (*r).units - at
                    && low & !STATE == (*r).stamp
                    && low & STATE != 0;
                if !sound {
                    return false;
                }
                each(at, header);
                prev = header.size;
                at += header.size;
            }
            let end = Raw::header(r, at);
            (*end).is_sound(end.addr()) && (*end).prev == prev && (*end).size == 0
        }
    }

    /// The figures of now. Takes as long as there are blocks.
    pub unsafe fn stats(r: *mut Raw) -> Stats {
        // SAFETY: the caller's promise.
        unsafe {
            let mut largest = 0;
            let (mut run, mut end, mut live) = (0, NONE, 0);
            Raw::walk(r, |at, header| {
                if header.state() == USED {
                    live += 1;
                    return;
                }
                // Blocks that wait count as merged: an allocation merges them when it must.
                run = if at == end { run + header.size } else { header.size };
                end = at + header.size;
                largest = largest.max(run);
            });
            Stats {
                capacity: (*r).units as usize * UNIT,
                used: (*r).used as usize * UNIT,
                free: ((*r).units - (*r).used) as usize * UNIT,
                peak: (*r).peak as usize * UNIT,
                largest_free: (largest as usize * UNIT).saturating_sub(UNIT),
                blocks: live,
            }
        }
    }

    /// Looks at every record; the number of faults. Takes as long as there are blocks.
    pub unsafe fn check(r: *mut Raw) -> usize {
        // SAFETY: numbers from lists are followed only as far as they are a block's.
        unsafe {
            let mut faults = usize::from((*r).alive != ALIVE.wrapping_sub(r.addr()));
            let (mut used, mut free, mut waiting, mut last) = (0u64, 0u32, 0u32, USED);
            let mut wrong = 0;
            let whole = Raw::walk(r, |at, header| {
                match header.state() {
                    USED => used += u64::from(header.size),
                    FREE => {
                        free += 1;
                        wrong += usize::from(last == FREE);
                    }
                    _ => waiting += 1,
                }
                last = header.state();
                let _ = at;
            });
            faults += wrong;
            if !whole {
                // The lists cannot be trusted either.
                return faults + 1;
            }
            faults += usize::from(used != u64::from((*r).used));
            let mut listed = 0;
            for row in 0..(*r).rows as usize {
                let map = *Raw::maps(r).add(row);
                faults += usize::from((map != 0) != ((*r).row_map >> row & 1 == 1));
                for column in 0..SPLIT {
                    let (mut at, mut before) = (*Raw::heads(r).add(row * SPLIT + column), NONE);
                    faults += usize::from((at != NONE) != (map >> column & 1 == 1));
                    while at != NONE {
                        let sound = at < (*r).units && {
                            let header = Raw::header(r, at).read();
                            header.is_sound(Raw::header(r, at).addr())
                                && header.state() == FREE
                                && place_of(header.size) == (row, column)
                                && (*Raw::links(r, at)).prev == before
                        };
                        if !sound || listed > free {
                            faults += 1;
                            break;
                        }
                        listed += 1;
                        before = at;
                        at = (*Raw::links(r, at)).next;
                    }
                }
            }
            faults += usize::from(listed != free);
            let mut listed = 0;
            for class in 0..=(*r).quick_classes {
                let Waiting { first: mut payload, depth } = Raw::quick(r, class).read();
                let mut deep = 0;
                while !payload.is_null() && deep < depth {
                    if !Raw::is_linked(r, payload, class) {
                        faults += 1;
                        break;
                    }
                    deep += 1;
                    payload = (*payload.cast::<Link>()).next;
                }
                faults += usize::from(deep != depth || depth > (*r).quick_depth as usize || !payload.is_null());
                listed += deep as u32;
            }
            faults + usize::from(listed != waiting)
        }
    }

    /// A picture of the buffer: 64 characters a line, each the same stretch of it: `#` in use, `.` free, `+` both.
    ///
    /// # Errors
    /// Those of the writer.
    pub unsafe fn print(r: *mut Raw, out: &mut dyn fmt::Write) -> fmt::Result {
        const CELLS: usize = 256;
        // SAFETY: the caller's promise.
        unsafe {
            let units = (*r).units as usize;
            let step = units.div_ceil(CELLS).max(1);
            let cells = units.div_ceil(step);
            let mut seen = [0u8; CELLS];
            let whole = Raw::walk(r, |at, header| {
                let mark = if header.state() == USED { 1 } else { 2 };
                let (from, to) = (at as usize / step, (at + header.size - 1) as usize / step);
                seen[from..=to].iter_mut().for_each(|cell| *cell |= mark);
            });
            let stats = Raw::stats(r);
            writeln!(
                out,
                "region of {} bytes: {} in use in {} blocks, {} free, largest {}; a character is {} bytes",
                stats.capacity,
                stats.used,
                stats.blocks,
                stats.free,
                stats.largest_free,
                step * UNIT
            )?;
            for line in seen[..cells].chunks(64) {
                out.write_str("  ")?;
                for cell in line {
                    out.write_char(match cell {
                        1 => '#',
                        2 => '.',
                        3 => '+',
                        _ => '?',
                    })?;
                }
                out.write_str("\n")?;
            }
            if !whole {
                out.write_str("  the records are damaged where the picture ends\n")?;
            }
            Ok(())
        }
    }
}
