//! Pools: objects of one size, taken and given back in any order.
//!
//! Owns: [`Raw`], the pool as C sees it: its first four words are what the header's inline take and give use. Given objects
//! hang in a list, the newest first. An object that was never taken is carved off a chunk when the list is empty, so a
//! new chunk is not touched before it is needed.
//!
//! A given object holds the next one and a key bound to pool and address. An object that is given while it holds its key
//! is looked for in the list, so a double give is seen and data that happen to look like a key are not taken for one; an
//! object that is taken without its key was written after it was given. The list ends in a node of the pool itself that has no
//! key, so that the hot path need not ask whether there is a given object: one test finds both.
//!
//! Invariants, checked by [`Raw::check`]:
//!   low..low + span covers exactly the objects carved so far when they lie in one chunk, and all of them otherwise;
//!     span is 0 in a guarded pool, so that each give takes the long way, which tells objects from anything else
//!   every object of the list lies in a chunk, at a multiple of the stride, below the place up to which it is carved

use crate::census::POOLS;
use crate::{Error, Kind, Label, Source, gap, round_up};
use allokit_core::{MAX_SIZE, MIN_ALIGN};
use core::ptr::{self, NonNull};

const ALIVE: usize = 0x9001_0C0D_E5A5_E003;
const KEY: usize = 0x5D8E_1A2B_94C7_6F35;
const FIRST_CHUNK: usize = 4 << 10;
const LARGEST_CHUNK: usize = 64 << 10;

/// How a pool is to be.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Name and place for reports.
    pub label: Label,
    /// Of every object; 16 is the least.
    pub alignment: usize,
    /// How many objects a chunk holds; 0: chunks of 4 KiB, doubling to 64 KiB.
    pub per_chunk: usize,
    /// The most objects; 0: as many as there is memory for.
    pub limit: usize,
    /// The first memory; null for none.
    pub buffer: *mut u8,
    /// Its size.
    pub buffer_size: usize,
    /// Look at everything on each call.
    pub guard: bool,
    /// Where chunks come from.
    pub source: Source,
}

impl Options {
    /// A pool that grows.
    #[must_use]
    pub const fn new(source: Source) -> Options {
        Options {
            label: Label::NONE,
            alignment: MIN_ALIGN,
            per_chunk: 0,
            limit: 0,
            buffer: ptr::null_mut(),
            buffer_size: 0,
            guard: cfg!(debug_assertions),
            source,
        }
    }
}

/// What a given object holds.
#[derive(Debug)]
#[repr(C)]
struct Node {
    next: *mut Node,
    key: usize,
}

#[repr(C)]
struct Chunk {
    /// The next newer one.
    link: *mut Chunk,
    begin: *mut u8,
    end: *mut u8,
    /// Bytes taken from the source; 0 for a caller's buffer.
    size: usize,
}

const HEADER: usize = round_up(size_of::<Chunk>(), MIN_ALIGN);

/// A pool: `ak_pool_t`.
#[derive(Debug)]
#[repr(C)]
pub struct Raw {
    // allokit/arena.h knows these four words. Change them, and the number in `ak_pool_take_2` changes.
    free: *mut Node,
    low: usize,
    span: usize,
    key: usize,
    /// Where the list ends.
    end: Node,
    alive: usize,
    carve: *mut u8,
    carve_end: *mut u8,
    stride: usize,
    first: *mut Chunk,
    current: *mut Chunk,
    next_size: usize,
    carved: usize,
    own: usize,
    options: Options,
}

/// # Safety of all functions here
/// `p` is a living pool that nobody else uses at the same time.
#[allow(clippy::missing_safety_doc)] // said above, once
impl Raw {
    /// Makes a pool of objects of `size` bytes.
    ///
    /// # Errors
    /// `Invalid` for an alignment that is none and a buffer in which nothing fits; `NoMemory`.
    ///
    /// # Safety
    /// The options' buffer is the pool's until it is destroyed.
    pub unsafe fn create(size: usize, options: &Options) -> Result<NonNull<Raw>, Error> {
        let mut options = *options;
        options.alignment = crate::asked_alignment(options.alignment)?;
        if size > MAX_SIZE / 4 - options.alignment {
            return Err(Error::NoMemory);
        }
        let stride = round_up(size.max(size_of::<Node>()), options.alignment);
        let mut chunk: *mut Chunk = ptr::null_mut();
        // SAFETY: the buffer holds pool, chunk header and at least one object, or is refused; else the source's memory.
        unsafe {
            let (place, own) = if options.buffer.is_null() {
                let place = options.source.take(size_of::<Raw>(), MIN_ALIGN, &POOLS);
                if place.is_null() {
                    return Err(Error::NoMemory);
                }
                (place, size_of::<Raw>())
            } else {
                let skip = gap(options.buffer, MIN_ALIGN);
                let records = skip + round_up(size_of::<Raw>(), MIN_ALIGN) + HEADER;
                if options.buffer_size > MAX_SIZE || options.buffer_size <= records {
                    return Err(Error::Invalid);
                }
                let begin = options.buffer.add(records);
                let lost = gap(begin, options.alignment);
                if options.buffer_size - records < stride.saturating_add(lost) {
                    return Err(Error::Invalid);
                }
                chunk = begin.sub(HEADER).cast();
                let end = options.buffer.add(options.buffer_size);
                chunk.write(Chunk { link: ptr::null_mut(), begin: begin.add(lost), end, size: 0 });
                (options.buffer.add(skip), 0)
            };
            let p = place.cast::<Raw>();
            p.write(Raw {
                free: ptr::null_mut(),
                low: 0,
                span: 0,
                key: KEY ^ p.addr().rotate_left(24),
                end: Node { next: ptr::null_mut(), key: 0 },
                alive: ALIVE ^ p.addr(),
                carve: ptr::null_mut(),
                carve_end: ptr::null_mut(),
                stride,
                first: chunk,
                current: ptr::null_mut(),
                next_size: FIRST_CHUNK,
                carved: 0,
                own,
                options,
            });
            (*p).free = Raw::end(p);
            (*p).end.key = !((*p).key ^ Raw::end(p).addr());
            POOLS.made();
            Ok(NonNull::new_unchecked(p))
        }
    }

    /// Whether `p` is a pool that lives. A net, no proof.
    #[inline]
    pub unsafe fn is_alive(p: *const Raw) -> bool {
        // SAFETY: the caller's promise, as far as it goes.
        !p.is_null() && p.addr() & (align_of::<Raw>() - 1) == 0 && unsafe { (*p).alive } == ALIVE ^ p.addr()
    }

    /// Where the list of given objects ends.
    #[inline(always)]
    unsafe fn end(p: *mut Raw) -> *mut Node {
        // SAFETY: the caller's promise.
        unsafe { &raw mut (*p).end }
    }

    /// An object, contents undefined. The hot path; allokit/arena.h does the same in C.
    ///
    /// # Errors
    /// `NoMemory`; `Fault` when the object that would have served was written after it was given: it is left out.
    #[inline(always)]
    pub unsafe fn take(p: *mut Raw) -> Result<NonNull<u8>, Error> {
        // SAFETY: the list holds given objects, and the end, which has no key.
        unsafe {
            let node = (*p).free;
            if (*node).key == (*p).key ^ node.addr() {
                (*p).free = (*node).next;
                (*node).key = 0;
                return Ok(NonNull::new_unchecked(node.cast()));
            }
            Raw::take_slow(p)
        }
    }

    /// Takes the long way: an empty list, or an object without its key.
    #[cold]
    #[inline(never)]
    pub unsafe fn take_slow(p: *mut Raw) -> Result<NonNull<u8>, Error> {
        // SAFETY: carve..carve_end is memory of the current chunk that was not taken since the last reset.
        unsafe {
            let node = (*p).free;
            if node != Raw::end(p) {
                if (*node).key == (*p).key ^ node.addr() {
                    return Raw::take(p);
                }
                // Where it leads cannot be trusted: the list ends here. Its objects are lost until a reset.
                (*p).free = Raw::end(p);
                return Err(Error::fault(Kind::WriteAfterReset, node.addr()));
            }
            let stride = (*p).stride;
            if (*p).options.limit != 0 && (*p).carved >= (*p).options.limit {
                return Err(Error::NoMemory);
            }
            if (*p).carve_end.addr() - (*p).carve.addr() < stride {
                Raw::advance(p)?;
            }
            let object = (*p).carve;
            (*p).carve = object.add(stride);
            (*p).carved += 1;
            if !(*p).options.guard {
                let (from, to) = (object.addr(), object.addr() + stride);
                let low = if (*p).span == 0 { from } else { (*p).low.min(from) };
                let high = if (*p).span == 0 { to } else { ((*p).low + (*p).span).max(to) };
                ((*p).low, (*p).span) = (low, high - low);
            }
            // What a reset left there is no key any more.
            (*object.cast::<Node>()).key = 0;
            Ok(NonNull::new_unchecked(object))
        }
    }

    /// The next chunk: one from before a reset, or a new one.
    unsafe fn advance(p: *mut Raw) -> Result<(), Error> {
        // SAFETY: the chain of chunks.
        unsafe {
            let place = if (*p).current.is_null() { &raw mut (*p).first } else { &raw mut (*(*p).current).link };
            if (*place).is_null() {
                let options = &(*p).options;
                let (stride, slack) = ((*p).stride, options.alignment - MIN_ALIGN + HEADER);
                let objects = if options.per_chunk != 0 {
                    options.per_chunk
                } else {
                    ((*p).next_size.max(slack) - slack) / stride
                };
                let mut objects = objects.max(1);
                if options.limit != 0 {
                    objects = objects.min(options.limit - (*p).carved);
                }
                let bytes = objects.checked_mul(stride).and_then(|bytes| bytes.checked_add(slack));
                let size = bytes.filter(|&bytes| bytes <= MAX_SIZE).ok_or(Error::NoMemory)?;
                let memory = options.source.take(size, MIN_ALIGN, &POOLS);
                if memory.is_null() {
                    return Err(Error::NoMemory);
                }
                let begin = memory.add(HEADER);
                let begin = begin.add(gap(begin, options.alignment));
                let chunk = memory.cast::<Chunk>();
                chunk.write(Chunk { link: ptr::null_mut(), begin, end: memory.add(size), size });
                (*p).next_size = ((*p).next_size * 2).min(LARGEST_CHUNK);
                *place = chunk;
            }
            let chunk = *place;
            (*p).current = chunk;
            ((*p).carve, (*p).carve_end) = ((*chunk).begin, (*chunk).end);
            Ok(())
        }
    }

    /// Takes an object back; null does nothing.
    ///
    /// # Errors
    /// `Fault` for an object that is given already, and for what is no object of this pool. A pointer into the middle of an
    /// object is noticed in a guarded pool only.
    #[inline(always)]
    pub unsafe fn give(p: *mut Raw, object: *mut u8) -> Result<(), Error> {
        // SAFETY: inside the hull: an object of this pool, by the caller's word.
        unsafe {
            let node = object.cast::<Node>();
            if object.addr().wrapping_sub((*p).low) < (*p).span && (*node).key != (*p).key ^ object.addr() {
                Raw::link(p, node);
                return Ok(());
            }
            Raw::give_slow(p, object)
        }
    }

    #[inline(always)]
    unsafe fn link(p: *mut Raw, node: *mut Node) {
        // SAFETY: an object that is nobody's any more.
        unsafe {
            node.write(Node { next: (*p).free, key: (*p).key ^ node.addr() });
            (*p).free = node;
        }
    }

    /// Takes the long way, which looks at everything.
    #[cold]
    #[inline(never)]
    pub unsafe fn give_slow(p: *mut Raw, object: *mut u8) -> Result<(), Error> {
        if object.is_null() {
            return Ok(());
        }
        // SAFETY: written only when it is an object that is out.
        unsafe {
            if !Raw::is_object(p, object) {
                return Err(Error::fault(Kind::Foreign, object.addr()));
            }
            let node = object.cast::<Node>();
            if (*node).key == (*p).key ^ object.addr() && Raw::is_listed(p, node) {
                return Err(Error::fault(Kind::DoubleFree, object.addr()));
            }
            Raw::link(p, node);
            Ok(())
        }
    }

    /// Whether it is the start of an object that was carved since the last reset.
    pub unsafe fn is_object(p: *mut Raw, object: *const u8) -> bool {
        // SAFETY: the chain of chunks.
        unsafe {
            let mut chunk = if (*p).current.is_null() { ptr::null_mut() } else { (*p).first };
            while !chunk.is_null() {
                let newest = chunk == (*p).current;
                let end = if newest { (*p).carve } else { (*chunk).end };
                if object >= (*chunk).begin && object < end {
                    let distance = object.addr() - (*chunk).begin.addr();
                    return distance.is_multiple_of((*p).stride)
                        && distance + (*p).stride <= end.addr() - (*chunk).begin.addr();
                }
                if newest {
                    return false;
                }
                chunk = (*chunk).link;
            }
            false
        }
    }

    unsafe fn is_listed(p: *mut Raw, node: *mut Node) -> bool {
        // SAFETY: followed only from object to object with their keys.
        unsafe {
            let mut one = (*p).free;
            while (*one).key == (*p).key ^ one.addr() {
                if one == node {
                    return true;
                }
                one = (*one).next;
            }
            false
        }
    }

    /// How many objects are out. Takes as long as there are given ones.
    pub unsafe fn live(p: *mut Raw) -> usize {
        // SAFETY: as above.
        unsafe {
            let (mut one, mut free) = ((*p).free, 0);
            while (*one).key == (*p).key ^ one.addr() {
                free += 1;
                one = (*one).next;
            }
            (*p).carved - free
        }
    }

    /// Takes all objects back; the chunks stay.
    pub unsafe fn reset(p: *mut Raw) {
        // SAFETY: the caller's promise.
        unsafe {
            (*p).free = Raw::end(p);
            ((*p).low, (*p).span, (*p).carved) = (0, 0, 0);
            (*p).current = ptr::null_mut();
            ((*p).carve, (*p).carve_end) = (ptr::null_mut(), ptr::null_mut());
        }
    }

    /// Bytes that an object takes.
    pub unsafe fn stride(p: *const Raw) -> usize {
        // SAFETY: the caller's promise.
        unsafe { (*p).stride }
    }

    /// Ends the pool and its objects.
    pub unsafe fn destroy(p: *mut Raw) {
        // SAFETY: nobody uses it any more.
        unsafe {
            let (mut chunk, source, own) = ((*p).first, (*p).options.source, (*p).own);
            while !chunk.is_null() {
                let (next, size) = ((*chunk).link, (*chunk).size);
                if size != 0 {
                    source.give(chunk.cast(), size, &POOLS);
                }
                chunk = next;
            }
            (*p).alive = 0;
            POOLS.ended();
            if own != 0 {
                source.give(p.cast(), own, &POOLS);
            }
        }
    }

    /// Name and place.
    pub unsafe fn label(p: *const Raw) -> Label {
        // SAFETY: the caller's promise.
        unsafe { (*p).options.label }
    }

    /// Looks at all records; the number of faults.
    pub unsafe fn check(p: *mut Raw) -> usize {
        // SAFETY: an object is read only when it is one.
        unsafe {
            let mut faults = usize::from((*p).alive != ALIVE ^ p.addr());
            let (mut one, mut listed) = ((*p).free, 0);
            while one != Raw::end(p) {
                if !Raw::is_object(p, one.cast()) || (*one).key != (*p).key ^ one.addr() || listed == (*p).carved {
                    return faults + 1;
                }
                listed += 1;
                one = (*one).next;
            }
            faults += usize::from((*p).options.limit != 0 && (*p).carved > (*p).options.limit);
            faults
        }
    }
}
