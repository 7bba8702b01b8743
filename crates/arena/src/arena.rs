//! Arenas: a pointer is bumped through chunks that double in size; all blocks end together, or back to a mark.
//!
//! Owns: [`Raw`], the arena as C sees it: `next`, `end` and `wide` are its first words, and the header's inline allocation is
//! `if (size - 1 < end - next) next += round16(size)`. Everything else is [`Raw::more`], off the hot path.
//!
//! How it is laid out. A chunk is taken from the source with a header in front. Chunks in use form a chain from the newest
//! (`chunk`) to [`EMPTY`], which has no room and stands for "no chunk yet", so that no path tests for null. Chunks that
//! a reset or a rewind has emptied wait in `spare`, the oldest first, so that the same sequence of calls finds the same
//! chunks; only a chunk that all of a round would have fitted into is put before them by a reset. A block larger than the largest chunk has one of its own (`large`, `large_spare`, kept likewise).
//!
//! Invariants, checked by [`Raw::check`]:
//!   begin <= next <= end of the current chunk; next is a multiple of 16 unless the chunk's odd tail is in use
//!   end is the last multiple of 16 in the chunk, or equal to next: then every allocation takes the long way. It is so in
//!     arenas that are guarded, watched by a tool or aligned to more than 16 (`closed`), and when the odd tail is in use
//!   used_before == the sum of (filled - begin) over all chunks in use but the current one
//!   reserved == the sum of the sizes of all chunks and of the arena itself; family == reserved + the children's family

use crate::census::ARENAS;
use crate::{Error, Fault, Kind, Label, Source, gap, round_up};
use allokit_core::{MAX_SIZE, MIN_ALIGN, is_valid_align};
use core::ffi::c_void;
use core::ptr::{self, NonNull};

/// The first chunk, when nothing else is asked for.
pub const FIRST_CHUNK: usize = 4 << 10;
/// The largest chunk for several blocks, when nothing else is asked for.
pub const LARGEST_CHUNK: usize = 64 << 10;
/// No chunk is smaller.
const LEAST_CHUNK: usize = 256;
const HEADER: usize = round_up(size_of::<Chunk>(), MIN_ALIGN);
const ALIVE: usize = 0xA11A_0C0D_E5A5_E001;
const MARKED: usize = 0x3C96_A53C_0F69_C35A;
/// What guarded arenas fill free memory with.
pub const POISON: u8 = 0xDD;

/// Called when an arena has taken memory: the arena, how many bytes, and the argument of the options.
pub type OnGrow = unsafe extern "C" fn(arena: *mut Raw, bytes: usize, argument: *mut c_void);

/// How an arena is to be. `Options::new(source)` is the ordinary one.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Name and place for reports.
    pub label: Label,
    /// Bytes of the first chunk.
    pub first_chunk: usize,
    /// Bytes of the largest chunk that several blocks share.
    pub largest_chunk: usize,
    /// Every block is aligned to this at least; 16 is the least.
    pub alignment: usize,
    /// The most bytes to take, the children's included.
    pub limit: usize,
    /// The first memory; null for none. The arena itself then lies in it too.
    pub buffer: *mut u8,
    /// Its size.
    pub buffer_size: usize,
    /// Free memory is filled, and looked at when it is handed out again.
    pub guard: bool,
    /// Told of each chunk.
    pub on_grow: Option<OnGrow>,
    /// For `on_grow`.
    pub argument: *mut c_void,
    /// Where chunks come from.
    pub source: Source,
}

impl Options {
    /// Everything as usual.
    #[must_use]
    pub const fn new(source: Source) -> Options {
        Options {
            label: Label::NONE,
            first_chunk: FIRST_CHUNK,
            largest_chunk: LARGEST_CHUNK,
            alignment: MIN_ALIGN,
            limit: usize::MAX,
            buffer: ptr::null_mut(),
            buffer_size: 0,
            guard: cfg!(debug_assertions),
            on_grow: None,
            argument: ptr::null_mut(),
            source,
        }
    }
}

/// What `ak_arena_stats_t` reports after its first word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes that blocks occupy, rounding and alignment gaps included.
    pub used: usize,
    /// Bytes taken from the source or the caller's buffer.
    pub reserved: usize,
    /// Bytes that no block can have until a reset: headers, and the ends of chunks that the next block did not fit in.
    pub waste: usize,
    /// The most that `used` has been.
    pub peak: usize,
    /// Chunks, in use or waiting.
    pub chunks: usize,
}

/// A point in an arena's life to go back to; `ak_arena_mark_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Mark {
    arena: *mut Raw,
    next: *mut u8,
    /// Of the chunk that was current.
    serial: usize,
    /// The arena's counter then: large blocks and children with later numbers are newer.
    born: usize,
    generation: usize,
    /// The number in the record before `next`; 0 when there was no room for one.
    record: usize,
}

impl Mark {
    /// Whether both are marks of the same point of the same arena: with no block between them, one is as good as the other.
    #[must_use]
    pub fn is_same_point(&self, other: &Mark) -> bool {
        Mark { born: 0, ..*self } == Mark { born: 0, ..*other }
    }

    /// A mark of no arena.
    pub const NONE: Mark =
        Mark { arena: ptr::null_mut(), next: ptr::null_mut(), serial: 0, born: 0, generation: 0, record: 0 };
}

#[repr(C)]
struct Chunk {
    /// The next older chunk in use, or the next one that waits.
    link: *mut Chunk,
    begin: *mut u8,
    /// May be no multiple of 16: a caller's buffer ends where it ends.
    end: *mut u8,
    /// Where `next` was when the chunk was left; the end of a large block.
    filled: *mut u8,
    /// Bytes taken from the source; 0 for a caller's buffer.
    size: usize,
    /// Unique in the arena since it came into use; 0 for [`EMPTY`].
    serial: usize,
    /// Guarded arenas: what lies between the blocks and this is filled with [`POISON`].
    dirty: *mut u8,
    /// Unique in the arena, smaller in older chunks; 0 for a caller's buffer, which is the oldest.
    rank: usize,
}

/// What a mark leaves behind in the arena, right before the place that it means.
#[repr(C)]
struct Record {
    /// The end of the record before; null for none.
    older: *mut u8,
    /// Its number, mixed with [`Raw::record_key`].
    check: usize,
}

struct Empty(Chunk);
// SAFETY: it is never written.
unsafe impl Sync for Empty {}
const NOWHERE: *mut u8 = ptr::without_provenance_mut(MIN_ALIGN);
static EMPTY: Empty = Empty(Chunk {
    link: ptr::null_mut(),
    begin: NOWHERE,
    end: NOWHERE,
    filled: NOWHERE,
    size: 0,
    serial: 0,
    dirty: NOWHERE,
    rank: 0,
});

fn empty() -> *mut Chunk {
    (&raw const EMPTY.0).cast_mut()
}

/// The first byte that is not [`POISON`]: looked for in stretches, byte by byte only in the one that differs.
///
/// # Safety
/// The bytes may be read, and each of them was written.
unsafe fn first_other(from: *const u8, bytes: usize) -> Option<usize> {
    const WHOLE: [u8; 256] = [POISON; 256];
    // SAFETY: the caller's promise.
    let bytes = unsafe { core::slice::from_raw_parts(from, bytes) };
    let at = bytes.chunks(WHOLE.len()).position(|stretch| stretch != &WHOLE[..stretch.len()])? * WHOLE.len();
    bytes[at..].iter().position(|&byte| byte != POISON).map(|more| at + more)
}

/// An arena: `ak_arena_t`. Only ever behind a pointer.
#[derive(Debug)]
#[repr(C)]
pub struct Raw {
    // allokit/arena.h knows these three words. Change them, and the number in `ak_arena_more_2` changes.
    next: *mut u8,
    end: *mut u8,
    /// Not 0: a block was aligned to more than 16 since the last reset: how much room the same calls need depends on the chunk.
    wide: usize,
    alive: usize,
    chunk: *mut Chunk,
    /// Blocks of the current chunk that begin before it are not resized in place: a mark lies behind them.
    floor: *mut u8,
    spare: *mut Chunk,
    large: *mut Chunk,
    large_spare: *mut Chunk,
    used_before: usize,
    peak: usize,
    reserved: usize,
    family: usize,
    next_size: usize,
    counter: usize,
    generation: usize,
    /// The end of the newest mark's record, and its number.
    marked: *mut u8,
    record: usize,
    parent: *mut Raw,
    child: *mut Raw,
    sibling: *mut Raw,
    elder: *mut Raw,
    /// The parent's counter when this one was made.
    born: usize,
    /// Bytes taken from the source for this struct; 0 when it lies in a buffer or in its parent.
    own: usize,
    /// Whether it was made out of a block of its parent.
    in_parent: bool,
    closed: bool,
    fault: Option<Fault>,
    options: Options,
}

type Block = Result<NonNull<u8>, Error>;

/// Every function takes the arena as a pointer, since C and children hold others: no reference to the whole lives across
/// a call out.
///
/// # Safety of all functions here
/// `a` is an arena that [`Raw::create`] or [`Raw::child`] gave and that nobody else uses at the same time.
#[allow(clippy::missing_safety_doc)] // said above, once
impl Raw {
    /// Makes an arena.
    ///
    /// # Errors
    /// `Invalid` for an alignment that is none and a buffer in which nothing fits, `NoMemory` from the source.
    ///
    /// # Safety
    /// The options' buffer is the caller's, and the arena's until it is destroyed.
    pub unsafe fn create(options: &Options) -> Result<NonNull<Raw>, Error> {
        let mut options = *options;
        options.alignment = crate::asked_alignment(options.alignment)?;
        // 0: as usual.
        let of = |asked: usize, usual| if asked == 0 { usual } else { asked };
        options.first_chunk = of(options.first_chunk, FIRST_CHUNK).clamp(LEAST_CHUNK, MAX_SIZE / 4) & !(MIN_ALIGN - 1);
        options.largest_chunk = of(options.largest_chunk, LARGEST_CHUNK).min(MAX_SIZE / 4) & !(MIN_ALIGN - 1);
        options.largest_chunk = options.largest_chunk.max(options.first_chunk);
        options.limit = of(options.limit, usize::MAX);
        // A tool sees more than a pattern does, and would take its check for a use.
        options.guard &= options.source.tools().is_none();
        let (place, rest, own) = if options.buffer.is_null() {
            let size = size_of::<Raw>();
            if size > options.limit {
                return Err(Error::NoMemory);
            }
            let place = options.source.take(size, MIN_ALIGN, &ARENAS);
            if place.is_null() {
                return Err(Error::NoMemory);
            }
            (place, ptr::null_mut(), size)
        } else {
            let skip = gap(options.buffer, MIN_ALIGN);
            let records = skip + round_up(size_of::<Raw>(), MIN_ALIGN) + HEADER;
            if options.buffer_size > MAX_SIZE || options.buffer_size <= records {
                return Err(Error::Invalid);
            }
            // SAFETY: the buffer is longer than `records`.
            unsafe { (options.buffer.add(skip), options.buffer.add(records - HEADER), 0) }
        };
        let a = place.cast::<Raw>();
        // A caller's buffer needs no memory of ours, but counts.
        let reserved = if rest.is_null() { own } else { options.buffer_size };
        // SAFETY: the place is aligned, large enough and ours.
        unsafe {
            a.write(Raw {
                next: NOWHERE,
                end: NOWHERE,
                wide: 0,
                alive: ALIVE ^ a.addr(),
                chunk: empty(),
                floor: NOWHERE,
                spare: ptr::null_mut(),
                large: ptr::null_mut(),
                large_spare: ptr::null_mut(),
                used_before: 0,
                peak: 0,
                reserved,
                family: reserved,
                next_size: options.first_chunk,
                counter: 0,
                generation: 0,
                marked: ptr::null_mut(),
                record: 0,
                parent: ptr::null_mut(),
                child: ptr::null_mut(),
                sibling: ptr::null_mut(),
                elder: ptr::null_mut(),
                born: 0,
                own,
                in_parent: false,
                closed: options.guard || options.source.tools().is_some() || options.alignment > MIN_ALIGN,
                fault: None,
                options,
            });
            if !rest.is_null() {
                let chunk = rest.cast::<Chunk>();
                let begin = rest.add(HEADER);
                let end = options.buffer.add(options.buffer_size);
                chunk.write(Chunk {
                    link: ptr::null_mut(),
                    begin,
                    end,
                    filled: begin,
                    size: 0,
                    serial: 0,
                    dirty: begin,
                    rank: 0,
                });
                (*a).spare = chunk;
                options.source.hide(begin, end.addr() - begin.addr());
            }
        }
        ARENAS.made();
        // SAFETY: not null.
        Ok(unsafe { NonNull::new_unchecked(a) })
    }

    /// Makes an arena that ends with `parent`, at the latest when the parent is reset. Its memory counts against the limits
    /// of both. Where the parent has a buffer and nothing else, the child lies in one block of the parent's, of the size
    /// that the options give for the first chunk.
    ///
    /// # Errors
    /// As [`Raw::create`].
    pub unsafe fn child(parent: *mut Raw, options: &Options) -> Result<NonNull<Raw>, Error> {
        // SAFETY: both arenas are the caller's.
        unsafe {
            let mut options = *options;
            let in_parent = options.buffer.is_null() && !options.source.exists();
            if in_parent {
                let asked = if options.first_chunk == 0 { FIRST_CHUNK } else { options.first_chunk };
                options.buffer_size = asked.saturating_add(size_of::<Raw>() + HEADER);
                options.buffer = Raw::alloc(parent, options.buffer_size)?.as_ptr();
            } else if options.buffer.is_null() && size_of::<Raw>() > Raw::left(parent) {
                return Err(Error::NoMemory);
            }
            let made = match Raw::create(&options) {
                Ok(made) => made,
                Err(error) => {
                    if in_parent {
                        let _ = Raw::realloc(parent, options.buffer, options.buffer_size, 0);
                    }
                    return Err(error);
                }
            };
            let c = made.as_ptr();
            (*c).in_parent = in_parent;
            if in_parent {
                // The parent has counted it.
                (*c).family = 0;
            }
            (*parent).counter += 1;
            (*c).born = (*parent).counter;
            (*c).parent = parent;
            (*c).elder = (*parent).child;
            if !(*c).elder.is_null() {
                (*(*c).elder).sibling = c;
            }
            (*parent).child = c;
            let family = (*c).family;
            Raw::count(parent, family as isize);
            Ok(made)
        }
    }

    /// Whether `a` is an arena that lives; a null pointer is not. Looks at memory that may have ended: a net, no proof.
    #[inline]
    pub unsafe fn is_alive(a: *const Raw) -> bool {
        // SAFETY: the caller's promise, as far as it goes.
        !a.is_null() && a.addr() & (align_of::<Raw>() - 1) == 0 && unsafe { (*a).alive } == ALIVE ^ a.addr()
    }

    /// A block of `size` bytes. The hot path; allokit/arena.h does the same in C.
    ///
    /// # Errors
    /// `NoMemory`.
    #[inline(always)]
    pub unsafe fn alloc(a: *mut Raw, size: usize) -> Block {
        // SAFETY: next..end is free memory of the current chunk, and a multiple of 16 long: a size in it fits rounded up.
        unsafe {
            let next = (*a).next;
            if size.wrapping_sub(1) < (*a).end.addr() - next.addr() {
                (*a).next = next.add(round_up(size, MIN_ALIGN));
                return Ok(NonNull::new_unchecked(next));
            }
            Raw::more(a, size, MIN_ALIGN)
        }
    }

    /// A block aligned to `align`.
    ///
    /// # Errors
    /// `Invalid` when that is no power of two or over the limit, `NoMemory`.
    pub unsafe fn alloc_aligned(a: *mut Raw, size: usize, align: usize) -> Block {
        if !is_valid_align(align) {
            return Err(Error::Invalid);
        }
        // SAFETY: the caller's promise.
        unsafe { if align <= MIN_ALIGN { Raw::alloc(a, size) } else { Raw::more(a, size, align) } }
    }

    /// A zeroed block.
    ///
    /// # Errors
    /// `NoMemory`, also when the product is impossible.
    pub unsafe fn calloc(a: *mut Raw, count: usize, size: usize) -> Block {
        let bytes = allokit_core::array_size(count, size).ok_or(Error::NoMemory)?;
        // SAFETY: the block is fresh and has that many bytes.
        unsafe {
            let block = Raw::alloc(a, bytes)?;
            block.as_ptr().write_bytes(0, bytes);
            Ok(block)
        }
    }

    /// What `next..end` cannot serve: the odd tail, wide alignments, guarded arenas, another chunk.
    #[cold]
    #[inline(never)]
    pub unsafe fn more(a: *mut Raw, size: usize, align: usize) -> Block {
        let size = size.max(1);
        // SAFETY: the caller's promise.
        unsafe {
            let align = align.max((*a).options.alignment);
            (*a).wide |= usize::from(align > MIN_ALIGN);
            if size > MAX_SIZE - align - HEADER {
                return Err(Error::NoMemory);
            }
            if let Some(block) = Raw::here(a, size, align) {
                return Ok(block);
            }
            let need = size + (align - MIN_ALIGN);
            if need > (*a).options.largest_chunk - HEADER && !Raw::spare_fits(a, need) {
                return Raw::large(a, size, align);
            }
            Raw::advance(a, need)?;
            Raw::here(a, size, align).ok_or(Error::NoMemory)
        }
    }

    /// A block out of the current chunk, its odd tail included.
    unsafe fn here(a: *mut Raw, size: usize, align: usize) -> Option<NonNull<u8>> {
        // SAFETY: next..chunk.end is free memory of the current chunk.
        unsafe {
            let next = (*a).next;
            let room = (*(*a).chunk).end.addr() - next.addr();
            let gap = gap(next, align);
            if size > room || gap > room - size {
                return None;
            }
            let block = next.add(gap);
            let after = Raw::after(a, block, size);
            if (*a).closed {
                Raw::handed_out(a, next, block, size, after);
            }
            Raw::set_next(a, after);
            Some(NonNull::new_unchecked(block))
        }
    }

    /// Where `next` goes behind a block of the current chunk: a multiple of 16, or the end of the chunk when the block
    /// reaches into its odd tail.
    unsafe fn after(a: *mut Raw, block: *mut u8, size: usize) -> *mut u8 {
        // SAFETY: the block lies in the chunk.
        unsafe {
            let end = (*(*a).chunk).end;
            let rounded = round_up(size, MIN_ALIGN);
            if rounded <= end.addr() - block.addr() { block.add(rounded) } else { end }
        }
    }

    unsafe fn set_next(a: *mut Raw, next: *mut u8) {
        // SAFETY: the caller's promise: a place in the current chunk.
        unsafe {
            let chunk = (*a).chunk;
            let stop = (*chunk).begin.add(((*chunk).end.addr() - (*chunk).begin.addr()) & !(MIN_ALIGN - 1));
            (*a).next = next;
            (*a).end = if (*a).closed || next > stop { next } else { stop };
        }
    }

    /// A closed arena's memory changes hands: `from..after` holds a gap, the block and a rest.
    unsafe fn handed_out(a: *mut Raw, from: *mut u8, block: *mut u8, size: usize, after: *mut u8) {
        // SAFETY: free memory of the current chunk.
        unsafe {
            let options = &(*a).options;
            options.source.show(from, after.addr() - from.addr());
            let dirty = (*(*a).chunk).dirty.min(after);
            if options.guard
                && dirty > from
                && let Some(at) = first_other(from, dirty.addr() - from.addr())
            {
                (*a).fault = Some(Fault { kind: Kind::WriteAfterReset, address: from.addr() + at });
            }
            options.source.hide(from, block.addr() - from.addr());
            options.source.hide(block.add(size), after.addr() - block.addr() - size);
        }
    }

    /// Memory of a chunk in use becomes free: `from..to`, and nothing behind it is in use.
    unsafe fn taken_back(a: *mut Raw, chunk: *mut Chunk, from: *mut u8, to: *mut u8) {
        // SAFETY: memory of the chunk that no block has any more.
        unsafe {
            let bytes = to.addr() - from.addr();
            let options = &(*a).options;
            if options.guard {
                options.source.show(from, bytes);
                from.write_bytes(POISON, bytes);
                (*chunk).dirty = (*chunk).dirty.max(to);
            }
            options.source.hide(from, bytes);
        }
    }

    unsafe fn spare_fits(a: *mut Raw, need: usize) -> bool {
        // SAFETY: the chain of chunks that wait.
        unsafe {
            let mut chunk = (*a).spare;
            while !chunk.is_null() {
                if (*chunk).end.addr() - (*chunk).begin.addr() >= need {
                    return true;
                }
                chunk = (*chunk).link;
            }
            false
        }
    }

    /// Makes a chunk with `need` bytes of room the current one: the first that waits and fits, else a new one.
    unsafe fn advance(a: *mut Raw, need: usize) -> Result<(), Error> {
        // SAFETY: the chains hold the arena's own chunks.
        unsafe {
            let mut place = &raw mut (*a).spare;
            while !(*place).is_null() && (**place).end.addr() - (**place).begin.addr() < need {
                place = &raw mut (**place).link;
            }
            let mut chunk = *place;
            if chunk.is_null() {
                let mut size = (*a).next_size;
                while size < need + HEADER {
                    size *= 2;
                }
                size = size.min((*a).options.largest_chunk).max(need + HEADER);
                chunk = Raw::take(a, size, need + HEADER)?;
                (*a).next_size = size.saturating_mul(2).min((*a).options.largest_chunk).max((*a).next_size);
            } else {
                *place = (*chunk).link;
            }
            let old = (*a).chunk;
            if old != empty() {
                (*old).filled = (*a).next;
                (*a).used_before += (*a).next.addr() - (*old).begin.addr();
            }
            (*a).counter += 1;
            (*chunk).serial = (*a).counter;
            (*chunk).link = old;
            (*a).chunk = chunk;
            (*a).floor = (*chunk).begin;
            Raw::set_next(a, (*chunk).begin);
            Ok(())
        }
    }

    /// A new chunk of `size` bytes, header included, or of as few as `least` when a limit or the source has no more.
    unsafe fn take(a: *mut Raw, size: usize, least: usize) -> Result<*mut Chunk, Error> {
        // SAFETY: the caller's promise.
        unsafe {
            let left = Raw::left(a) & !(MIN_ALIGN - 1);
            if left < least {
                return Err(Error::NoMemory);
            }
            let mut size = size.min(left);
            let source = (*a).options.source;
            let mut place = source.take(size, MIN_ALIGN, &ARENAS);
            if place.is_null() && size > least {
                size = least;
                place = source.take(size, MIN_ALIGN, &ARENAS);
            }
            if place.is_null() {
                return Err(Error::NoMemory);
            }
            let chunk = place.cast::<Chunk>();
            let (begin, end) = (place.add(HEADER), place.add(size));
            (*a).counter += 1;
            let rank = (*a).counter;
            chunk.write(Chunk {
                link: ptr::null_mut(),
                begin,
                end,
                filled: begin,
                size,
                serial: 0,
                dirty: begin,
                rank,
            });
            source.hide(begin, size - HEADER);
            (*a).reserved += size;
            Raw::count(a, size as isize);
            if let Some(on_grow) = (*a).options.on_grow {
                on_grow(a, size, (*a).options.argument);
            }
            Ok(chunk)
        }
    }

    unsafe fn give(a: *mut Raw, chunk: *mut Chunk) {
        // SAFETY: the chunk is in no chain any more and was taken from the source with its size.
        unsafe {
            let (size, source) = ((*chunk).size, (*a).options.source);
            debug_assert!(size != 0);
            (*a).reserved -= size;
            Raw::count(a, -(size as isize));
            source.show(chunk.cast(), size);
            source.give(chunk.cast(), size, &ARENAS);
        }
    }

    /// The family's memory, from here up to the oldest.
    unsafe fn count(a: *mut Raw, bytes: isize) {
        let mut one = a;
        // SAFETY: parents outlive their children.
        unsafe {
            loop {
                (*one).family = (*one).family.wrapping_add_signed(bytes);
                if (*one).parent.is_null() || (*one).in_parent {
                    return;
                }
                one = (*one).parent;
            }
        }
    }

    /// How many bytes the limits leave, this arena's and its parents'.
    unsafe fn left(a: *mut Raw) -> usize {
        let (mut one, mut left) = (a, usize::MAX);
        // SAFETY: parents outlive their children.
        unsafe {
            while !one.is_null() {
                left = left.min((*one).options.limit.saturating_sub((*one).family));
                one = (*one).parent;
            }
        }
        left
    }

    /// A block in a chunk of its own.
    #[cold]
    unsafe fn large(a: *mut Raw, size: usize, align: usize) -> Block {
        // SAFETY: the chains hold the arena's own chunks; the block lies between begin and end of its chunk.
        unsafe {
            let need = size + (align - MIN_ALIGN);
            // One that waits, if it is not more than twice as large; the same calls in the same order find the same one.
            let mut place = &raw mut (*a).large_spare;
            let fits = |chunk: *mut Chunk| {
                let room = (*chunk).end.addr() - (*chunk).begin.addr();
                room >= need && room / 2 <= need
            };
            while !(*place).is_null() && !fits(*place) {
                place = &raw mut (**place).link;
            }
            let mut chunk = *place;
            if chunk.is_null() {
                let whole = round_up(need + HEADER, MIN_ALIGN);
                chunk = Raw::take(a, whole, whole)?;
            } else {
                *place = (*chunk).link;
            }
            let begin = (*chunk).begin;
            let block = begin.add(gap(begin, align));
            if (*a).closed {
                // The check for late writes looks at the chunk that it is told.
                let current = (*a).chunk;
                (*a).chunk = chunk;
                Raw::handed_out(a, begin, block, size, block.add(size));
                (*a).chunk = current;
            }
            (*a).counter += 1;
            (*chunk).serial = (*a).counter;
            (*chunk).filled = block.add(size);
            (*chunk).link = (*a).large;
            (*a).large = chunk;
            (*a).used_before += (*chunk).filled.addr() - begin.addr();
            Ok(NonNull::new_unchecked(block))
        }
    }

    /// The newest large block goes to those that wait.
    unsafe fn retire_large(a: *mut Raw, place: *mut *mut Chunk) {
        // SAFETY: `place` is a link of the chain of large blocks.
        unsafe {
            let chunk = *place;
            *place = (*chunk).link;
            (*a).used_before -= (*chunk).filled.addr() - (*chunk).begin.addr();
            Raw::taken_back(a, chunk, (*chunk).begin, (*chunk).filled);
            (*chunk).link = (*a).large_spare;
            (*a).large_spare = chunk;
        }
    }

    /// Resizes a block of `old` bytes: in place where it is the newest or has a chunk of its own with room, else by copying.
    /// A null block allocates. `new` 0 gives the block up, and the result is `None`.
    ///
    /// # Errors
    /// `NoMemory`, and a block that is not this arena's; the block is then as it was.
    pub unsafe fn realloc(a: *mut Raw, block: *mut u8, old: usize, new: usize) -> Result<Option<NonNull<u8>>, Error> {
        // SAFETY: what lies inside a chunk in use is this arena's memory; the block has `old` bytes by the caller's promise.
        unsafe {
            if block.is_null() {
                return Raw::alloc(a, new).map(Some);
            }
            let old = old.max(1);
            let chunk = (*a).chunk;
            if block >= (*chunk).begin && block < (*a).next {
                let used = (*a).next.addr() - block.addr();
                if old > used {
                    return Err(Error::fault(Kind::Foreign, block.addr()));
                }
                if block >= (*a).floor && round_up(old, MIN_ALIGN) >= used {
                    if let Some(resized) = Raw::resize_newest(a, block, old, new) {
                        return Ok(resized);
                    }
                } else if new == 0 {
                    return Ok(None);
                } else if new <= old {
                    return Ok(NonNull::new(block));
                }
            } else if let Some(place) = Raw::find_large(a, block) {
                return Raw::resize_large(a, place, block, old, new);
            } else if !Raw::holds(a, block) {
                return Err(Error::fault(Kind::Foreign, block.addr()));
            } else if new == 0 {
                return Ok(None);
            } else if new <= old {
                return Ok(NonNull::new(block));
            }
            let made = Raw::alloc(a, new)?;
            made.as_ptr().copy_from_nonoverlapping(block, old.min(new));
            Ok(Some(made))
        }
    }

    /// `None` when it does not fit here.
    #[allow(clippy::option_option)]
    unsafe fn resize_newest(a: *mut Raw, block: *mut u8, old: usize, new: usize) -> Option<Option<NonNull<u8>>> {
        // SAFETY: the block is the last one of the current chunk.
        unsafe {
            let chunk = (*a).chunk;
            if new > (*chunk).end.addr() - block.addr() {
                return None;
            }
            let next = (*a).next;
            let after = if new == 0 { block } else { Raw::after(a, block, new) };
            if after < next {
                Raw::note_peak(a);
                Raw::taken_back(a, chunk, after, next);
            }
            if (*a).closed && new != 0 {
                if after > next {
                    Raw::handed_out(a, next, next, after.addr() - next.addr(), after);
                }
                // What the block had stays as it is, written or not.
                let source = (*a).options.source;
                source.show(block.add(old.min(new)), new - old.min(new));
                source.hide(block.add(new), after.addr() - block.addr() - new);
            }
            Raw::set_next(a, after);
            Some(if new == 0 { None } else { NonNull::new(block) })
        }
    }

    unsafe fn find_large(a: *mut Raw, block: *mut u8) -> Option<*mut *mut Chunk> {
        // SAFETY: the chain of large blocks.
        unsafe {
            let mut place = &raw mut (*a).large;
            while !(*place).is_null() {
                if block >= (**place).begin && block < (**place).filled {
                    return Some(place);
                }
                place = &raw mut (**place).link;
            }
            None
        }
    }

    unsafe fn resize_large(
        a: *mut Raw,
        place: *mut *mut Chunk,
        block: *mut u8,
        old: usize,
        new: usize,
    ) -> Result<Option<NonNull<u8>>, Error> {
        // SAFETY: `place` leads to the chunk that the block has to itself.
        unsafe {
            let chunk = *place;
            if old > (*chunk).filled.addr() - block.addr() {
                return Err(Error::fault(Kind::Foreign, block.addr()));
            }
            Raw::note_peak(a);
            if new == 0 {
                Raw::retire_large(a, place);
                return Ok(None);
            }
            if new <= (*chunk).end.addr() - block.addr() {
                let (from, to) = ((*chunk).filled, block.add(new));
                if to < from {
                    Raw::taken_back(a, chunk, to, from);
                } else if (*a).closed {
                    let current = (*a).chunk;
                    (*a).chunk = chunk;
                    Raw::handed_out(a, from, from, to.addr() - from.addr(), to);
                    (*a).chunk = current;
                }
                (*a).used_before = (*a).used_before + to.addr() - from.addr();
                (*chunk).filled = to;
                return Ok(NonNull::new(block));
            }
            let made = Raw::alloc(a, new)?;
            made.as_ptr().copy_from_nonoverlapping(block, old.min(new));
            // `made` may be a new head of the chain: look again.
            if let Some(place) = Raw::find_large(a, block) {
                Raw::retire_large(a, place);
            }
            Ok(Some(made))
        }
    }

    /// The free bytes at the newest block's place, where a text of unknown length may be written before
    /// [`Raw::commit`]; none in a closed arena.
    pub unsafe fn tail(a: *mut Raw) -> (*mut u8, usize) {
        // SAFETY: free memory.
        unsafe { ((*a).next, (*a).end.addr() - (*a).next.addr()) }
    }

    /// Makes the first `size` bytes of [`Raw::tail`] a block.
    pub unsafe fn commit(a: *mut Raw, size: usize) -> Block {
        // SAFETY: the caller's promise: it fits, so the hot path serves it.
        unsafe { Raw::alloc(a, size) }
    }

    /// Whether the address lies in a block of this arena. Takes as long as there are chunks.
    pub unsafe fn owns(a: *mut Raw, address: *const u8) -> bool {
        // SAFETY: the caller's promise.
        unsafe { Raw::find_large(a, address.cast_mut()).is_some() || Raw::holds(a, address.cast_mut()) }
    }

    /// Whether the address lies in a block of a shared chunk.
    unsafe fn holds(a: *mut Raw, address: *mut u8) -> bool {
        // SAFETY: the chain of chunks in use.
        unsafe {
            let (mut chunk, mut filled) = ((*a).chunk, (*a).next);
            while chunk != empty() {
                if address >= (*chunk).begin && address < filled {
                    return true;
                }
                chunk = (*chunk).link;
                filled = (*chunk).filled;
            }
            false
        }
    }

    /// This point, to go back to. Never fails. Costs 16 bytes where blocks came since the last mark: the record by which a
    /// mark that an earlier rewind has ended is known.
    pub unsafe fn mark(a: *mut Raw) -> Mark {
        // SAFETY: the record is a block of the arena.
        unsafe {
            let record = if (*a).marked == (*a).next && (*a).record != 0 {
                (*a).record
            } else if let Some(place) = Raw::here(a, size_of::<Record>(), MIN_ALIGN) {
                (*a).counter += 1;
                place
                    .as_ptr()
                    .cast::<Record>()
                    .write(Record { older: (*a).marked, check: (*a).counter ^ Raw::record_key(a, (*a).marked) });
                (*a).marked = (*a).next;
                (*a).record = (*a).counter;
                (*a).counter
            } else {
                0
            };
            (*a).floor = (*a).next;
            let serial = (*(*a).chunk).serial;
            let born = (*a).counter;
            Mark { arena: a, next: (*a).next, serial, born, generation: (*a).generation, record }
        }
    }

    /// What a record's number is mixed with, so that memory that was written over is none.
    fn record_key(a: *mut Raw, older: *mut u8) -> usize {
        MARKED ^ a.addr() ^ older.addr().rotate_left(32)
    }

    /// The newest record with a number of at most this, and its number; a null pointer and 0 when there is none. Records
    /// are followed from the newest on, since one that has ended may still lie in a block that was not written: each that is
    /// passed ends with the rewind that asks.
    unsafe fn record_of(a: *mut Raw, most: usize) -> (*mut u8, usize) {
        // SAFETY: the chain of records; each is believed only if its number is its key's and smaller than the last one.
        unsafe {
            let (mut at, mut last) = ((*a).marked, usize::MAX);
            while !at.is_null() {
                let place = at.sub(size_of::<Record>());
                (*a).options.source.reveal(place, size_of::<Record>());
                let record = place.cast::<Record>().read();
                let number = record.check ^ Raw::record_key(a, record.older);
                if number >= last || number == 0 {
                    break;
                }
                if number <= most {
                    return (at, number);
                }
                (at, last) = (record.older, number);
            }
            (ptr::null_mut(), 0)
        }
    }

    /// Ends all blocks and children that are newer than the mark; the chunks wait for what comes. A mark may be gone back to
    /// many times.
    ///
    /// # Errors
    /// A mark of another arena, or one that has ended; nothing is changed.
    pub unsafe fn rewind(a: *mut Raw, mark: &Mark) -> Result<(), Error> {
        // SAFETY: the chains hold the arena's own chunks; the record is read only where blocks are.
        unsafe {
            if mark.arena != a {
                return Err(Error::fault(Kind::Foreign, mark.arena.addr()));
            }
            let stale = Err(Error::fault(Kind::StaleMark, mark.next.addr()));
            if mark.generation != (*a).generation {
                return stale;
            }
            let (mut chunk, mut filled) = ((*a).chunk, (*a).next);
            while (*chunk).serial > mark.serial {
                chunk = (*chunk).link;
                filled = (*chunk).filled;
            }
            if (*chunk).serial != mark.serial || mark.next < (*chunk).begin || mark.next > filled {
                return stale;
            }
            let known = Raw::record_of(a, if mark.record != 0 { mark.record } else { mark.born });
            if mark.record != 0 && known != (mark.next, mark.record) {
                return stale;
            }
            Raw::note_peak(a);
            Raw::end_children(a, mark.born);
            Raw::back_to(a, mark.serial, mark.born);
            if (*a).chunk != empty() {
                Raw::taken_back(a, (*a).chunk, mark.next, (*a).next);
                Raw::set_next(a, mark.next);
            }
            (*a).floor = (*a).next;
            ((*a).marked, (*a).record) = known;
            Ok(())
        }
    }

    /// Empties all chunks newer than `serial`, and all large blocks newer than `born`. The older end up before the newer
    /// among those that wait.
    unsafe fn back_to(a: *mut Raw, serial: usize, born: usize) {
        // SAFETY: the chains hold the arena's own chunks.
        unsafe {
            while (*(*a).chunk).serial > serial {
                let chunk = (*a).chunk;
                Raw::taken_back(a, chunk, (*chunk).begin, (*a).next);
                let older = (*chunk).link;
                (*chunk).link = (*a).spare;
                (*a).spare = chunk;
                (*a).chunk = older;
                (*a).used_before -= (*older).filled.addr() - (*older).begin.addr();
                Raw::set_next(a, (*older).filled);
            }
            while !(*a).large.is_null() && (*(*a).large).serial > born {
                Raw::retire_large(a, &raw mut (*a).large);
            }
        }
    }

    /// Ends all blocks and children. Keeps every chunk, and the size that the next one will have.
    #[inline]
    pub unsafe fn reset(a: *mut Raw) {
        // SAFETY: the current chunk is the arena's own, or EMPTY, which is only read.
        unsafe {
            let chunk = (*a).chunk;
            // One chunk in use and nothing else, as in each round but the first of an arena that has found its size.
            let simple = (*chunk).link == empty() && (*a).large.is_null() && (*a).child.is_null() && !(*a).closed;
            if !simple {
                return Raw::reset_slow(a);
            }
            Raw::note_peak(a);
            (*a).generation += 1;
            let begin = (*chunk).begin;
            ((*a).marked, (*a).record, (*a).floor, (*a).wide) = (ptr::null_mut(), 0, begin, 0);
            Raw::set_next(a, begin);
        }
    }

    #[cold]
    #[inline(never)]
    unsafe fn reset_slow(a: *mut Raw) {
        // SAFETY: the caller's promise; all chunks wait once they are emptied.
        unsafe {
            let (used, wide) = (Raw::used(a), (*a).wide != 0);
            Raw::empty_all(a);
            if !(*a).closed && !wide && (*a).options.buffer.is_null() {
                // All of it fits one chunk now: that is the first, so that the next rounds stay in it. Elsewhere the same
                // calls might need other room than before, and chunks are used in their order.
                let mut place = &raw mut (*a).spare;
                while !(*place).is_null() && (**place).end.addr() - (**place).begin.addr() < used {
                    place = &raw mut (**place).link;
                }
                let chunk = *place;
                if !chunk.is_null() {
                    *place = (*chunk).link;
                    (*chunk).link = (*a).spare;
                    (*a).spare = chunk;
                }
            }
            if !(*a).spare.is_null() && !wide && (*a).options.buffer.is_null() {
                // The oldest chunk is at hand at once: what follows a reset is an allocation, as a rule. (Not where the first
                // one may then lie elsewhere than it did at first, and what comes after it needs a chunk more: a wide
                // alignment may happen to be had in a chunk that is too short for it as a rule; a buffer may be passed over.)
                let ready = Raw::advance(a, 1);
                debug_assert!(ready.is_ok());
            }
        }
    }

    /// Ends all blocks and children; all chunks wait, the oldest in front.
    unsafe fn empty_all(a: *mut Raw) {
        // SAFETY: the caller's promise.
        unsafe {
            Raw::note_peak(a);
            Raw::end_children(a, 0);
            Raw::back_to(a, 0, 0);
            (*a).generation += 1;
            (*a).floor = (*a).next;
            ((*a).marked, (*a).record, (*a).wide) = (ptr::null_mut(), 0, 0);
        }
    }

    /// As [`Raw::reset`], and gives back all chunks but the first; growth starts again.
    pub unsafe fn clear(a: *mut Raw) {
        // SAFETY: all chunks wait, the first one in front.
        unsafe {
            Raw::empty_all(a);
            if !(*a).spare.is_null() {
                // A reset may have put a larger one in front.
                let (mut first, mut place) = (&raw mut (*a).spare, &raw mut (*(*a).spare).link);
                while !(*place).is_null() {
                    if (**place).rank < (**first).rank {
                        first = place;
                    }
                    place = &raw mut (**place).link;
                }
                let chunk = *first;
                *first = (*chunk).link;
                (*chunk).link = (*a).spare;
                (*a).spare = chunk;
                Raw::give_all(a, &raw mut (*chunk).link);
            }
            Raw::give_all(a, &raw mut (*a).large_spare);
            (*a).next_size = (*a).options.first_chunk;
            if !(*a).spare.is_null() {
                (*a).next_size = ((*a).next_size * 2).min((*a).options.largest_chunk);
            }
        }
    }

    /// Gives back the chunks that no block is in, and tells how many bytes. The blocks stay.
    pub unsafe fn trim(a: *mut Raw) -> usize {
        // SAFETY: the chains of chunks that wait.
        unsafe {
            let before = (*a).reserved;
            if (*a).chunk != empty() && (*(*a).chunk).link == empty() && (*a).next == (*(*a).chunk).begin {
                // At hand, and empty.
                Raw::back_to(a, 0, usize::MAX);
                (*a).floor = (*a).next;
            }
            Raw::give_all(a, &raw mut (*a).spare);
            Raw::give_all(a, &raw mut (*a).large_spare);
            before - (*a).reserved
        }
    }

    /// Gives back a chain, except a caller's buffer.
    unsafe fn give_all(a: *mut Raw, chain: *mut *mut Chunk) {
        // SAFETY: a chain of chunks that no block is in.
        unsafe {
            let (mut chunk, mut kept) = (*chain, ptr::null_mut::<Chunk>());
            while !chunk.is_null() {
                let next = (*chunk).link;
                if (*chunk).size == 0 {
                    kept = chunk;
                } else {
                    Raw::give(a, chunk);
                }
                chunk = next;
            }
            if !kept.is_null() {
                (*kept).link = ptr::null_mut();
            }
            *chain = kept;
        }
    }

    /// Ends the arena, its blocks and its children.
    pub unsafe fn destroy(a: *mut Raw) {
        // SAFETY: the family's pointers lead to living arenas: a child leaves its parent's chain when it ends.
        unsafe {
            // From the youngest leaf up, without recursion: families may be deep.
            let mut one = a;
            loop {
                while !(*one).child.is_null() {
                    one = (*one).child;
                }
                let parent = (*one).parent;
                Raw::destroy_one(one);
                if one == a {
                    return;
                }
                one = parent;
            }
        }
    }

    unsafe fn destroy_one(a: *mut Raw) {
        // SAFETY: it has no children; nobody uses it any more.
        unsafe {
            Raw::empty_all(a);
            Raw::give_all(a, &raw mut (*a).spare);
            Raw::give_all(a, &raw mut (*a).large_spare);
            let options = (*a).options;
            if !options.buffer.is_null() {
                options.source.show(options.buffer, options.buffer_size);
            }
            let (parent, in_parent, own) = ((*a).parent, (*a).in_parent, (*a).own);
            if !parent.is_null() {
                let family = (*a).family;
                if !in_parent {
                    Raw::count(parent, -(family as isize));
                }
                if (*a).sibling.is_null() {
                    (*parent).child = (*a).elder;
                } else {
                    (*(*a).sibling).elder = (*a).elder;
                }
                if !(*a).elder.is_null() {
                    (*(*a).elder).sibling = (*a).sibling;
                }
            }
            (*a).alive = 0;
            ARENAS.ended();
            if own != 0 {
                options.source.give(a.cast(), own, &ARENAS);
            } else if in_parent {
                // Back to the parent, if nothing came behind it.
                let _ = Raw::realloc(parent, options.buffer, options.buffer_size, 0);
            }
        }
    }

    /// Ends the children that are younger than `born`.
    unsafe fn end_children(a: *mut Raw, born: usize) {
        // SAFETY: the chain of children, the youngest first.
        unsafe {
            while !(*a).child.is_null() && (*(*a).child).born > born {
                Raw::destroy((*a).child);
            }
        }
    }

    unsafe fn used(a: *mut Raw) -> usize {
        // SAFETY: the caller's promise.
        unsafe { (*a).used_before + ((*a).next.addr() - (*(*a).chunk).begin.addr()) }
    }

    unsafe fn note_peak(a: *mut Raw) {
        // SAFETY: the caller's promise.
        unsafe { (*a).peak = (*a).peak.max(Raw::used(a)) }
    }

    /// The figures of now. Takes as long as there are chunks.
    pub unsafe fn stats(a: *mut Raw) -> Stats {
        // SAFETY: the chains hold the arena's own chunks.
        unsafe {
            Raw::note_peak(a);
            let (mut chunks, mut free) = (0, (*(*a).chunk).end.addr() - (*a).next.addr());
            let mut chunk = (*a).chunk;
            while chunk != empty() {
                chunks += 1;
                chunk = (*chunk).link;
            }
            for (chain, waits) in [((*a).spare, true), ((*a).large, false), ((*a).large_spare, true)] {
                let mut chunk = chain;
                while !chunk.is_null() {
                    chunks += 1;
                    if waits {
                        free += (*chunk).end.addr() - (*chunk).begin.addr();
                    }
                    chunk = (*chunk).link;
                }
            }
            let (used, reserved) = (Raw::used(a), (*a).reserved);
            Stats { used, reserved, waste: reserved - used - free, peak: (*a).peak, chunks }
        }
    }

    /// Bytes taken from the source or the caller's buffer.
    pub unsafe fn stats_reserved(a: *const Raw) -> usize {
        // SAFETY: the caller's promise.
        unsafe { (*a).reserved }
    }

    /// Name and place.
    pub unsafe fn label(a: *const Raw) -> Label {
        // SAFETY: the caller's promise.
        unsafe { (*a).options.label }
    }

    /// What it was made with; a child takes its source and guard from here.
    pub unsafe fn options(a: *const Raw) -> Options {
        // SAFETY: the caller's promise.
        unsafe { (*a).options }
    }

    /// A misuse that was noticed while something else was done (a late write); asked for once.
    #[inline]
    pub unsafe fn take_fault(a: *mut Raw) -> Option<Fault> {
        // SAFETY: the caller's promise.
        unsafe { (*a).fault.take() }
    }

    /// Looks at all records, and in a guarded arena at all free memory; the number of faults.
    pub unsafe fn check(a: *mut Raw) -> usize {
        // SAFETY: the chains hold the arena's own chunks; free memory may be read.
        unsafe {
            let mut faults = usize::from((*a).alive != ALIVE ^ a.addr());
            let (mut reserved, mut before, mut serial) = ((*a).own, 0, usize::MAX);
            let (mut chunk, mut filled) = ((*a).chunk, (*a).next);
            let tail_in_use = filled.addr() & (MIN_ALIGN - 1) != 0;
            faults += usize::from(tail_in_use && filled != (*chunk).end);
            faults += usize::from((*a).end < filled || (*a).end > (*chunk).end);
            let in_order = |chunk: *mut Chunk, filled: *mut u8| {
                (*chunk).begin <= filled && filled <= (*chunk).end && (*chunk).begin.addr() & (MIN_ALIGN - 1) == 0
            };
            while chunk != empty() {
                faults += usize::from(!in_order(chunk, filled) || (*chunk).serial >= serial);
                faults += Raw::late_writes(a, chunk, filled);
                reserved += (*chunk).size;
                serial = (*chunk).serial;
                chunk = (*chunk).link;
                filled = (*chunk).filled;
                before += filled.addr() - (*chunk).begin.addr();
            }
            for (chain, waits) in [((*a).spare, true), ((*a).large, false), ((*a).large_spare, true)] {
                let mut chunk = chain;
                while !chunk.is_null() {
                    let filled = if waits { (*chunk).begin } else { (*chunk).filled };
                    faults += usize::from(!in_order(chunk, filled)) + Raw::late_writes(a, chunk, filled);
                    before += filled.addr() - (*chunk).begin.addr();
                    reserved += (*chunk).size;
                    chunk = (*chunk).link;
                }
            }
            if !(*a).options.buffer.is_null() {
                reserved += (*a).options.buffer_size;
            }
            let (mut family, mut child) = (if (*a).in_parent { 0 } else { reserved }, (*a).child);
            while !child.is_null() {
                family += if (*child).in_parent { 0 } else { (*child).family };
                faults += usize::from((*child).parent != a);
                child = (*child).elder;
            }
            faults += usize::from(before != (*a).used_before);
            faults += usize::from(reserved != (*a).reserved);
            faults + usize::from((*a).family != family)
        }
    }

    unsafe fn late_writes(a: *mut Raw, chunk: *mut Chunk, from: *mut u8) -> usize {
        // SAFETY: `from..dirty` is free memory of the chunk.
        unsafe {
            let to = (*chunk).dirty;
            if !(*a).options.guard || to <= from {
                return 0;
            }
            let bytes = to.addr() - from.addr();
            (*a).options.source.show(from, bytes);
            let written = first_other(from, bytes);
            (*a).options.source.hide(from, bytes);
            usize::from(written.is_some())
        }
    }
}
