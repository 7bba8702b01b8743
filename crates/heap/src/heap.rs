//! The heap as C sees it, the tree of heaps, and the way from a bare pointer to its heap.
//!
//! A block comes from a page of its class that has room (`classes[c].head`), from slices by itself, or from units by
//! itself (`larges`). A page that is used up leaves its list and comes back with the first block that is freed; one that is
//! empty gives its slices back, except one a class (`spare`), which stays until slices are short.
//!
//! The limit counts what blocks occupy. A heap with a limit counts it in `metered`, for itself and all heaps below; each
//! heap knows the nearest heap with a limit, itself or above (`meter`), and such a one the next (`outer`). So a heap that no
//! limit concerns pays nothing. What a heap has taken in pages (`held`) is limited too, to twice the limit and 64 KiB:
//! scattered frees cannot pin more.
//!
//! Invariants, checked by [`Raw::check`]: `current` is the sum of the usable sizes of live blocks, `allocs - frees` their number;
//! `held` that of all pages and large blocks; a page is in its class's list exactly when it has room; a chunk is in the
//! list of roomy ones when it has a free slice.

use crate::chunk::{Block, Chunk, Page, ROOM_LARGE, ROOM_SMALL, mask};
use crate::classes::{self, CLASS_MAX, CLASSES, LEAST, SIZES, SLICE, SLICES_MAX};
use crate::space::{self, Found, UNIT, Unit};
use crate::{Error, Kind, Label, Options, Stats, round_up};
use allokit_core::{MAX_SIZE, MIN_ALIGN, is_valid_align};
use allokit_platform::{Lock, fork, keep_errno, meta, pages, tools};
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const ALIVE: usize = 0x4EA9_0C0D_E5A5_E001;
/// A larger block inside a chunk has slices by itself, a still larger one units.
const IN_CHUNK_MAX: usize = SLICES_MAX * SLICE;
/// What a large block's size is rounded to.
const LARGE_STEP: usize = 4096;
/// Chunks are small until a heap has so much.
const SMALL_CHUNKS: usize = 48 << 10;
/// How many chunks are looked at for free slices.
const LOOKS: usize = 8;
/// What a limited heap may hold beyond twice its limit.
const HELD_SLACK: usize = 64 << 10;

#[derive(Clone, Copy)]
struct Class {
    /// Pages with room.
    head: *mut Page,
    /// One that is empty, if there is one; in the list too.
    spare: *mut Page,
    pages: usize,
}

/// A heap: `ak_heap_t`. Only ever behind a pointer, in memory that stays a heap's record for good.
pub struct Raw {
    alive: AtomicUsize,
    lock: Lock,
    // -- fixed while it lives
    watch: bool,
    label: Label,
    /// Whatever the layer above wants to find again.
    tag: *mut c_void,
    limit: usize,
    held_most: usize,
    meter: *mut Raw,
    outer: *mut Raw,
    // -- anybody's
    metered: AtomicUsize,
    /// Written under `lock`.
    current: AtomicUsize,
    // -- under `lock`
    classes: [Class; CLASSES],
    chunks: *mut Chunk,
    roomy: *mut Chunk,
    larges: *mut Unit,
    peak: usize,
    held: usize,
    reserved: usize,
    /// The difference is how many blocks live.
    allocs: u64,
    frees: u64,
    failed: u64,
    /// Blocks of arenas.
    pinned: usize,
    // -- under TREE
    parent: *mut Raw,
    child: *mut Raw,
    younger: *mut Raw,
    elder: *mut Raw,
    /// All records ever made; and those that are no heap's.
    next: *mut Raw,
    next_free: *mut Raw,
}

impl core::fmt::Debug for Raw {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Raw").finish_non_exhaustive()
    }
}

struct Tree {
    all: *mut Raw,
    /// The record that has been free the longest, and the shortest: a pointer to a heap that has ended stays a pointer to
    /// one as long as possible.
    oldest: *mut Raw,
    newest: *mut Raw,
}

struct Shared(UnsafeCell<Tree>);
// SAFETY: touched only under TREE.
unsafe impl Sync for Shared {}

static TREE: Lock = Lock::new();
static HEAPS: Shared =
    Shared(UnsafeCell::new(Tree { all: ptr::null_mut(), oldest: ptr::null_mut(), newest: ptr::null_mut() }));

type Result<T> = core::result::Result<T, Error>;

/// What a block of a size is made of.
#[derive(Clone, Copy)]
pub(crate) enum Fit {
    Class(usize),
    Slices(usize),
    /// Aligned to so many bytes.
    Units(usize),
}

/// How a block of `size` bytes aligned to `align` is made, and how many bytes it then occupies.
#[inline]
pub(crate) fn fit(size: usize, align: usize) -> Result<(Fit, usize)> {
    if size > MAX_SIZE - align {
        return Err(Error::NoMemory);
    }
    let size = size.max(1);
    if align <= SLICE {
        let rounded = round_up(size, align);
        if rounded <= CLASS_MAX {
            let class = classes::of(rounded);
            return Ok((Fit::Class(class), SIZES[class] as usize));
        }
        if rounded <= IN_CHUNK_MAX {
            let slices = rounded.div_ceil(SLICE);
            return Ok((Fit::Slices(slices), slices * SLICE));
        }
    }
    Ok((Fit::Units(align), round_up(size, LARGE_STEP)))
}

/// A live block.
enum Place {
    Small(*mut Chunk, *mut Page),
    Large(*mut Unit),
}

/// Registers what keeps heaps whole in a forked child. Once, after the backend has done the same: what is registered last
/// takes its locks first, and a heap's user may hold one of ours while it calls the backend, never the other way round.
pub fn register_fork() {
    static DONE: AtomicBool = AtomicBool::new(false);
    if !DONE.swap(true, Ordering::Relaxed) {
        fork::register(before_fork, after_fork, after_fork);
    }
}

unsafe extern "C" fn before_fork() {
    TREE.lock_raw();
    // SAFETY: under TREE; records live for good.
    unsafe { for_all(|heap| (*heap).lock.lock_raw()) };
    space::lock().lock_raw();
}

unsafe extern "C" fn after_fork() {
    space::lock().unlock_raw();
    // SAFETY: as above; the locks were taken before.
    unsafe { for_all(|heap| (*heap).lock.unlock_raw()) };
    TREE.unlock_raw();
}

/// # Safety
/// Under TREE.
unsafe fn for_all(mut visit: impl FnMut(*mut Raw)) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut heap = (*HEAPS.0.get()).all;
        while !heap.is_null() {
            visit(heap);
            heap = (*heap).next;
        }
    }
}

/// Calls `see` with the number of each heap that lives, its parent's (0: none), its name and place and its figures. Numbers
/// tell heaps apart, no more. `see` must not call a function of heaps.
pub fn for_each(mut see: impl FnMut(usize, usize, &Label, &Stats)) {
    let _tree = TREE.lock();
    // SAFETY: under TREE; a heap that lives then lives on.
    unsafe {
        for_all(|heap| {
            if Raw::is_alive(heap) {
                see(heap.addr(), (*heap).parent.addr(), &(*heap).label, &Raw::figures(heap));
            }
        });
    }
}

/// The heap in whose memory an address lies: `None` where no heap's memory is, null where it is no heap's any more.
#[must_use]
pub fn find(address: *const u8) -> Option<*mut Raw> {
    // SAFETY: what the map names.
    unsafe { heap_of(space::find(address.addr())) }
}

/// # Safety
/// It is what the map says of an address.
#[inline(always)]
unsafe fn heap_of(found: Found) -> Option<*mut Raw> {
    // SAFETY: what the map names may be looked at: chunks lie in memory that is never unmapped, records in the map.
    unsafe {
        match found {
            Found::Nothing => None,
            Found::Free => Some(ptr::null_mut()),
            Found::Chunk(chunk) => Some((*chunk).heap.load(Ordering::Relaxed)),
            Found::Large(record) => Some((*record).heap.load(Ordering::Relaxed)),
        }
    }
}

/// Frees a block of whichever heap. `None` when the pointer lies in no heap's memory; else what [`Raw::free`] says, and the
/// heap, which is null when there is none any more.
///
/// # Safety
/// If it is a live block of a heap, nobody uses it any more.
#[inline]
pub unsafe fn free_any(block: *mut u8) -> Option<(Result<()>, *mut Raw)> {
    let found = space::find(block.addr());
    // SAFETY: as in `find`; records live for good; what else the block is is looked at.
    unsafe {
        let heap = heap_of(found)?;
        if heap.is_null() {
            return Some((Err(Error::fault(Kind::Gone, block.addr())), heap));
        }
        let _guard = (*heap).lock.lock();
        Some((Raw::free_found(heap, block, found), heap))
    }
}

/// Every function takes the heap as a pointer: several threads may have it.
///
/// # Safety of all functions here
/// `h` is a heap that [`Raw::create`] gave and that nobody destroys at the same time.
#[allow(clippy::missing_safety_doc)] // said above, once
impl Raw {
    /// Makes a heap; with a parent it counts against the parent's limit too, and must be destroyed before it.
    ///
    /// # Errors
    /// `NoMemory`; a fault when the parent has ended.
    ///
    /// # Safety
    /// The parent is null, or a heap, perhaps one that has ended. The label's file is for good.
    pub unsafe fn create(parent: *mut Raw, options: &Options) -> Result<NonNull<Raw>> {
        let watch = tools::watch();
        let _tree = TREE.lock();
        // SAFETY: under TREE.
        unsafe {
            if !parent.is_null() && !Raw::is_alive(parent) {
                return Err(Error::fault(Kind::Ended, parent.addr()));
            }
            let tree = HEAPS.0.get();
            let mut h = (*tree).oldest;
            if h.is_null() {
                h = meta::alloc(size_of::<Raw>(), align_of::<Raw>()).cast();
                if h.is_null() {
                    return Err(Error::NoMemory);
                }
                h.write(Raw::blank());
                (*h).next = (*tree).all;
                (*tree).all = h;
            } else {
                (*tree).oldest = (*h).next_free;
                if (*tree).oldest.is_null() {
                    (*tree).newest = ptr::null_mut();
                }
            }
            // The record's lock and its place among all records stay.
            let above = if parent.is_null() { ptr::null_mut() } else { (*parent).meter };
            let limit = if options.limit == 0 { usize::MAX } else { options.limit };
            (*h).watch = watch;
            (*h).label = options.label;
            (*h).tag = ptr::null_mut();
            (*h).limit = limit;
            (*h).meter = if options.limit == 0 { above } else { h };
            (*h).outer = above;
            let nearest = if (*h).meter.is_null() { usize::MAX } else { (*(*h).meter).limit };
            (*h).held_most = nearest.saturating_mul(2).saturating_add(HELD_SLACK);
            (*h).metered.store(0, Ordering::Relaxed);
            (*h).peak = 0;
            (*h).allocs = 0;
            (*h).frees = 0;
            (*h).failed = 0;
            (*h).parent = parent;
            if !parent.is_null() {
                (*h).younger = (*parent).child;
                if !(*h).younger.is_null() {
                    (*(*h).younger).elder = h;
                }
                (*parent).child = h;
            }
            (*h).alive.store(ALIVE ^ h.addr(), Ordering::Release);
            Ok(NonNull::new_unchecked(h))
        }
    }

    const fn blank() -> Raw {
        Raw {
            alive: AtomicUsize::new(0),
            lock: Lock::new(),
            watch: false,
            label: Label::NONE,
            tag: ptr::null_mut(),
            limit: 0,
            held_most: 0,
            meter: ptr::null_mut(),
            outer: ptr::null_mut(),
            metered: AtomicUsize::new(0),
            current: AtomicUsize::new(0),
            classes: [Class { head: ptr::null_mut(), spare: ptr::null_mut(), pages: 0 }; CLASSES],
            chunks: ptr::null_mut(),
            roomy: ptr::null_mut(),
            larges: ptr::null_mut(),
            peak: 0,
            held: 0,
            reserved: 0,
            allocs: 0,
            frees: 0,
            failed: 0,
            pinned: 0,
            parent: ptr::null_mut(),
            child: ptr::null_mut(),
            younger: ptr::null_mut(),
            elder: ptr::null_mut(),
            next: ptr::null_mut(),
            next_free: ptr::null_mut(),
        }
    }

    /// Whether `h` is a heap that lives; a null pointer is not. A heap that has ended is known as long as its record has not
    /// become another heap's.
    ///
    /// # Safety
    /// `h` is null, or was a heap, or is readable.
    #[inline]
    pub unsafe fn is_alive(h: *const Raw) -> bool {
        // SAFETY: the caller's promise.
        !h.is_null()
            && h.addr() & (align_of::<Raw>() - 1) == 0
            && unsafe { (*h).alive.load(Ordering::Acquire) } == ALIVE ^ h.addr()
    }

    /// Name and place.
    pub unsafe fn label(h: *mut Raw) -> Label {
        // SAFETY: the caller's promise: it does not change.
        unsafe { (*h).label }
    }

    /// What [`Raw::set_tag`] was given; null at first.
    pub unsafe fn tag(h: *mut Raw) -> *mut c_void {
        // SAFETY: the caller's promise.
        unsafe { (*h).tag }
    }

    /// Keeps a pointer for whoever made the heap, before anybody else has it.
    pub unsafe fn set_tag(h: *mut Raw, tag: *mut c_void) {
        // SAFETY: the caller's promise.
        unsafe { (*h).tag = tag }
    }

    /// A block of `size` bytes.
    ///
    /// # Errors
    /// `NoMemory`.
    #[inline]
    pub unsafe fn alloc(h: *mut Raw, size: usize) -> Result<NonNull<u8>> {
        // SAFETY: the caller's promise.
        unsafe {
            if size > CLASS_MAX {
                return Raw::alloc_as(h, size, MIN_ALIGN, false, false);
            }
            let class = classes::of(size);
            let size = SIZES[class] as usize;
            let _guard = (*h).lock.lock();
            if charge(h, size) {
                let block = pop(h, class);
                if !block.is_null() {
                    count(h, size);
                    return Ok(NonNull::new_unchecked(block));
                }
                discharge(h, size);
            }
            (*h).failed += 1;
            Err(Error::NoMemory)
        }
    }

    /// A block aligned to `align`.
    ///
    /// # Errors
    /// `Invalid` when that is no power of two or over the limit, `NoMemory`.
    pub unsafe fn alloc_aligned(h: *mut Raw, size: usize, align: usize) -> Result<NonNull<u8>> {
        if !is_valid_align(align) {
            return Err(Error::Invalid);
        }
        // SAFETY: the caller's promise.
        unsafe { Raw::alloc_as(h, size, align.max(MIN_ALIGN), false, false) }
    }

    /// A zeroed block.
    ///
    /// # Errors
    /// `NoMemory`, also when the product is impossible.
    pub unsafe fn calloc(h: *mut Raw, count: usize, size: usize) -> Result<NonNull<u8>> {
        let Some(bytes) = allokit_core::array_size(count, size) else { return Err(Error::NoMemory) };
        // SAFETY: the caller's promise.
        unsafe { Raw::alloc_as(h, bytes, MIN_ALIGN, true, false) }
    }

    /// As [`Raw::alloc_aligned`], for what must not be taken away by a reset: an arena's memory.
    ///
    /// # Errors
    /// As there.
    pub unsafe fn alloc_pinned(h: *mut Raw, size: usize, align: usize) -> Result<NonNull<u8>> {
        if !is_valid_align(align) {
            return Err(Error::Invalid);
        }
        // SAFETY: the caller's promise.
        unsafe { Raw::alloc_as(h, size, align.max(MIN_ALIGN), false, true) }
    }

    unsafe fn alloc_as(h: *mut Raw, size: usize, align: usize, zeroed: bool, pinned: bool) -> Result<NonNull<u8>> {
        // SAFETY: the caller's promise.
        unsafe {
            let _guard = (*h).lock.lock();
            let Ok((how, bytes)) = fit(size, align) else { return failed(h) };
            if !charge(h, bytes) {
                return failed(h);
            }
            let (block, zero) = place(h, how, bytes);
            if block.is_null() {
                discharge(h, bytes);
                return failed(h);
            }
            count(h, bytes);
            (*h).pinned += usize::from(pinned);
            if zeroed {
                if !zero {
                    block.write_bytes(0, size);
                } else if (*h).watch {
                    tools::reveal(block, size);
                }
            }
            Ok(NonNull::new_unchecked(block))
        }
    }

    /// Frees a block.
    ///
    /// # Errors
    /// A fault when it is no live block of this heap.
    ///
    /// # Safety
    /// If it is one, nobody uses it any more.
    #[inline]
    pub unsafe fn free(h: *mut Raw, block: *mut u8) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe {
            let found = space::find(block.addr());
            let _guard = (*h).lock.lock();
            Raw::free_found(h, block, found)
        }
    }

    /// Frees what [`Raw::alloc_pinned`] gave.
    ///
    /// # Errors
    /// As [`Raw::free`].
    ///
    /// # Safety
    /// As there.
    pub unsafe fn free_pinned(h: *mut Raw, block: *mut u8) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe {
            let found = space::find(block.addr());
            let _guard = (*h).lock.lock();
            Raw::free_found(h, block, found)?;
            (*h).pinned -= 1;
            Ok(())
        }
    }

    #[inline(always)]
    unsafe fn free_found(h: *mut Raw, block: *mut u8, found: Found) -> Result<()> {
        // SAFETY: under the heap's lock; what `locate` gives is a live block of it.
        unsafe {
            let bytes = match locate(h, block, found)? {
                Place::Small(chunk, page) => {
                    let bytes = (*page).size as usize;
                    remove(h, chunk, page, block);
                    bytes
                }
                Place::Large(record) => {
                    let bytes = (*record).size;
                    remove_large(h, record);
                    bytes
                }
            };
            discharge(h, bytes);
            let current = (*h).current.load(Ordering::Relaxed);
            (*h).current.store(current - bytes, Ordering::Relaxed);
            (*h).frees += 1;
            if (*h).frees == (*h).allocs && (*h).reserved > 4 * UNIT {
                // Nothing lives: empty pages must not hold chunks.
                keep_errno(|| release_spares(h));
            }
            Ok(())
        }
    }

    /// Resizes a block, moving it when it must; a smaller size never fails.
    ///
    /// # Errors
    /// `NoMemory`, the block untouched: also when what it grows by is over a limit. A fault when it is no live block of this
    /// heap.
    ///
    /// # Safety
    /// When it succeeds, nobody uses the old block any more.
    pub unsafe fn realloc(h: *mut Raw, block: *mut u8, size: usize) -> Result<NonNull<u8>> {
        // SAFETY: the caller's promise.
        unsafe { Raw::realloc_aligned(h, block, size, MIN_ALIGN) }
    }

    /// As [`Raw::realloc`], and the result is aligned to `align`.
    ///
    /// # Errors
    /// As there, and `Invalid` as in [`Raw::alloc_aligned`].
    ///
    /// # Safety
    /// As there.
    pub unsafe fn realloc_aligned(h: *mut Raw, block: *mut u8, size: usize, align: usize) -> Result<NonNull<u8>> {
        if !is_valid_align(align) {
            return Err(Error::Invalid);
        }
        let align = align.max(MIN_ALIGN);
        // SAFETY: under the heap's lock; what `locate` gives is a live block of it.
        unsafe {
            let found = space::find(block.addr());
            let _guard = (*h).lock.lock();
            let at = locate(h, block, found)?;
            let Ok((how, bytes)) = fit(size, align) else { return failed(h) };
            let old = match at {
                Place::Small(_, page) => (*page).size as usize,
                Place::Large(record) => (*record).size,
            };
            let aligned = block.addr() & (align - 1) == 0;
            match (&at, how) {
                // In place unless more than half would be wasted.
                (Place::Small(..), _) if aligned && bytes <= old && bytes > old / 2 => {
                    return Ok(NonNull::new_unchecked(block));
                }
                (&Place::Large(record), Fit::Units(_)) if aligned && bytes <= (*record).units * UNIT => {
                    return resize_large(h, record, bytes);
                }
                _ => {}
            }
            if bytes > old && !charge(h, bytes - old) {
                return failed(h);
            }
            let (new, _) = place(h, how, bytes);
            if new.is_null() {
                if size <= old && aligned {
                    if bytes > old {
                        discharge(h, bytes - old);
                    }
                    return Ok(NonNull::new_unchecked(block));
                }
                if bytes > old {
                    discharge(h, bytes - old);
                }
                return failed(h);
            }
            if (*h).watch {
                tools::reveal(block, old);
            }
            new.copy_from_nonoverlapping(block, old.min(size));
            match at {
                Place::Small(chunk, page) => remove(h, chunk, page, block),
                Place::Large(record) => remove_large(h, record),
            }
            if bytes < old {
                discharge(h, old - bytes);
            }
            let current = (*h).current.load(Ordering::Relaxed) - old + bytes;
            (*h).current.store(current, Ordering::Relaxed);
            (*h).peak = (*h).peak.max(current);
            (*h).allocs += 1;
            (*h).frees += 1;
            Ok(NonNull::new_unchecked(new))
        }
    }

    /// How many bytes of a block may be used.
    ///
    /// # Errors
    /// A fault when it is no live block of this heap.
    pub unsafe fn usable(h: *mut Raw, block: *mut u8) -> Result<usize> {
        // SAFETY: as above.
        unsafe {
            let _guard = (*h).lock.lock();
            Ok(match locate(h, block, space::find(block.addr()))? {
                Place::Small(_, page) => (*page).size as usize,
                Place::Large(record) => (*record).size,
            })
        }
    }

    /// Whether an address lies in a live block of the heap.
    pub unsafe fn owns(h: *mut Raw, address: *const u8) -> bool {
        // SAFETY: under the heap's lock.
        unsafe {
            let _guard = (*h).lock.lock();
            let found = space::find(address.addr());
            match found {
                Found::Large(record) => {
                    (*record).heap.load(Ordering::Relaxed) == h
                        && address.addr() - (*record).start.addr() < (*record).size
                }
                Found::Chunk(chunk) => {
                    (*chunk).heap.load(Ordering::Relaxed) == h && around(chunk, address.addr()).is_some()
                }
                _ => false,
            }
        }
    }

    /// The figures of now.
    pub unsafe fn stats(h: *mut Raw) -> Stats {
        let _tree = TREE.lock();
        // SAFETY: under TREE.
        unsafe { Raw::figures(h) }
    }

    /// Under TREE.
    unsafe fn figures(h: *mut Raw) -> Stats {
        // SAFETY: under both locks.
        unsafe {
            let (mut total, mut children) = (0, 0);
            let mut below = (*h).child;
            while !below.is_null() {
                children += 1;
                below = (*below).younger;
            }
            // Every heap below, in depth first.
            let mut at = h;
            loop {
                total += (*at).current.load(Ordering::Relaxed);
                if !(*at).child.is_null() {
                    at = (*at).child;
                    continue;
                }
                while at != h && (*at).younger.is_null() {
                    at = (*at).parent;
                }
                if at == h {
                    break;
                }
                at = (*at).younger;
            }
            let _guard = (*h).lock.lock();
            Stats {
                current: (*h).current.load(Ordering::Relaxed),
                peak: (*h).peak,
                reserved: (*h).reserved,
                total: if (*h).limit == usize::MAX { total } else { (*h).metered.load(Ordering::Relaxed) },
                limit: if (*h).limit == usize::MAX { 0 } else { (*h).limit },
                blocks: ((*h).allocs - (*h).frees) as usize,
                children,
                allocs: (*h).allocs,
                frees: (*h).frees,
                failed: (*h).failed,
            }
        }
    }

    /// Frees all blocks of the heap; heaps below it keep theirs. Its first chunk stays at hand.
    ///
    /// # Errors
    /// A fault while arenas have their memory in it.
    pub unsafe fn reset(h: *mut Raw) -> Result<()> {
        // SAFETY: under the heap's lock.
        unsafe {
            let _guard = (*h).lock.lock();
            if (*h).pinned != 0 {
                return Err(Error::fault(Kind::HasArenas, 0));
            }
            release_all(h, true);
            Ok(())
        }
    }

    /// Ends the heap and all its blocks.
    ///
    /// # Errors
    /// A fault, and nothing has happened, while it is the parent of heaps that live, or arenas have their memory in it.
    pub unsafe fn destroy(h: *mut Raw) -> Result<()> {
        // SAFETY: under both locks; nobody else uses the heap, by the caller's word.
        unsafe {
            let tree = TREE.lock();
            // Two threads that destroy it at once are misuse; the second should not do it again all the same.
            if !Raw::is_alive(h) {
                return Err(Error::fault(Kind::Ended, h.addr()));
            }
            if !(*h).child.is_null() {
                return Err(Error::fault(Kind::HasChildren, 0));
            }
            let guard = (*h).lock.lock();
            if (*h).pinned != 0 {
                return Err(Error::fault(Kind::HasArenas, 0));
            }
            (*h).alive.store(0, Ordering::Release);
            let (elder, younger) = ((*h).elder, (*h).younger);
            if !elder.is_null() {
                (*elder).younger = younger;
            } else if !(*h).parent.is_null() {
                (*(*h).parent).child = younger;
            }
            if !younger.is_null() {
                (*younger).elder = elder;
            }
            (*h).elder = ptr::null_mut();
            (*h).younger = ptr::null_mut();
            // Its parent could be destroyed before the bytes are given back to it: not without TREE.
            release_all(h, false);
            drop(guard);
            let list = HEAPS.0.get();
            (*h).next_free = ptr::null_mut();
            if (*list).newest.is_null() {
                (*list).oldest = h;
            } else {
                (*(*list).newest).next_free = h;
            }
            (*list).newest = h;
            drop(tree);
            Ok(())
        }
    }

    /// The number of faults in the heap's records; 0 when all is well.
    pub unsafe fn check(h: *mut Raw) -> usize {
        let mut faults = 0;
        // SAFETY: under the heap's lock.
        unsafe {
            let _guard = (*h).lock.lock();
            let (mut bytes, mut blocks, mut held, mut reserved) = (0, 0, 0, 0);
            let mut chunk = (*h).chunks;
            while !chunk.is_null() {
                reserved += (*chunk).units as usize * UNIT;
                faults += usize::from((*chunk).heap.load(Ordering::Relaxed) != h);
                faults += usize::from(space::find(chunk.addr()) != Found::Chunk(chunk));
                faults += usize::from((*chunk).free & !Chunk::all(chunk) != 0);
                faults += usize::from((*chunk).free != 0 && !(*chunk).roomy);
                let mut taken = Chunk::all(chunk) & !(*chunk).free;
                while taken != 0 {
                    let first = taken.trailing_zeros() as usize;
                    let page = Chunk::page(chunk, first);
                    let slices = (*page).slices as usize;
                    let mut live = 0;
                    for slice in first..(first + slices).min(64) {
                        live += (*Chunk::live(chunk, slice)).count_ones() as usize;
                        faults += usize::from(Chunk::page(chunk, slice) != page);
                    }
                    let mut free = 0;
                    let mut block = (*page).free;
                    while !block.is_null() && free <= (*page).carved as usize {
                        free += 1;
                        if (*h).watch {
                            tools::reveal(block.cast(), size_of::<Block>());
                        }
                        let next = (*block).next;
                        if (*h).watch {
                            tools::hide(block.cast(), size_of::<Block>());
                        }
                        block = next;
                    }
                    let used = (*page).used as usize;
                    let sound = (*page).first as usize == first
                        && (*page).chunk == chunk
                        && used == live
                        && used + free == (*page).carved as usize
                        && (*page).carved <= (*page).capacity
                        && ((*page).class as usize == CLASSES || (*page).listed == (used < (*page).capacity as usize));
                    faults += usize::from(!sound);
                    blocks += live;
                    bytes += live * (*page).size as usize;
                    held += slices * SLICE;
                    if slices == 0 || mask(first, slices) & !taken != 0 {
                        return faults + 1;
                    }
                    taken &= !mask(first, slices);
                }
                chunk = (*chunk).next;
            }
            let mut record = (*h).larges;
            while !record.is_null() {
                reserved += (*record).units * UNIT;
                held += (*record).size;
                bytes += (*record).size;
                blocks += 1;
                faults += usize::from((*record).size > (*record).units * UNIT);
                faults += usize::from(space::find((*record).start.addr()) != Found::Large(record));
                record = (*record).next;
            }
            faults += usize::from(bytes != (*h).current.load(Ordering::Relaxed));
            faults += usize::from(held != (*h).held || reserved != (*h).reserved);
            faults += usize::from((*h).allocs - (*h).frees != blocks as u64);
        }
        faults
    }
}

// ---- under the heap's lock: the caller of each function below holds it ----

#[cold]
unsafe fn failed<T>(h: *mut Raw) -> Result<T> {
    // SAFETY: under the lock.
    unsafe { (*h).failed += 1 };
    Err(Error::NoMemory)
}

/// Counts bytes against all limits that concern the heap. False, and nothing has changed, when one of them is too low.
#[inline(always)]
unsafe fn charge(h: *mut Raw, bytes: usize) -> bool {
    // SAFETY: a heap lives longer than those below it.
    unsafe { (*h).meter.is_null() || charge_up((*h).meter, bytes) }
}

unsafe fn charge_up(first: *mut Raw, bytes: usize) -> bool {
    let mut meter = first;
    // SAFETY: as above.
    unsafe {
        while !meter.is_null() {
            let limit = (*meter).limit;
            let more = |have: usize| have.checked_add(bytes).filter(|sum| *sum <= limit);
            if (*meter).metered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
                discharge_to(first, bytes, meter);
                return false;
            }
            meter = (*meter).outer;
        }
    }
    true
}

#[inline(always)]
unsafe fn discharge(h: *mut Raw, bytes: usize) {
    // SAFETY: as above.
    unsafe {
        if !(*h).meter.is_null() {
            discharge_to((*h).meter, bytes, ptr::null_mut());
        }
    }
}

unsafe fn discharge_to(mut meter: *mut Raw, bytes: usize, end: *mut Raw) {
    // SAFETY: as above.
    unsafe {
        while meter != end {
            (*meter).metered.fetch_sub(bytes, Ordering::Relaxed);
            meter = (*meter).outer;
        }
    }
}

#[inline(always)]
unsafe fn count(h: *mut Raw, bytes: usize) {
    // SAFETY: under the lock.
    unsafe {
        let current = (*h).current.load(Ordering::Relaxed) + bytes;
        (*h).current.store(current, Ordering::Relaxed);
        if current > (*h).peak {
            (*h).peak = current;
        }
        (*h).allocs += 1;
    }
}

/// The live block that begins at a pointer, given what lies there.
#[inline(always)]
unsafe fn locate(h: *mut Raw, block: *mut u8, found: Found) -> Result<Place> {
    // SAFETY: under the heap's lock its chunks and records do not change; those of others are compared only.
    unsafe {
        if let Found::Chunk(chunk) = found
            && (*chunk).heap.load(Ordering::Relaxed) == h
        {
            let offset = block.addr() - chunk.addr();
            let (bits, bit) = Chunk::bit(chunk, offset);
            if *bits & bit != 0 && offset & 15 == 0 {
                return Ok(Place::Small(chunk, Chunk::page(chunk, offset / SLICE)));
            }
        }
        locate_other(h, block, found)
    }
}

#[cold]
#[inline(never)]
unsafe fn locate_other(h: *mut Raw, block: *mut u8, found: Found) -> Result<Place> {
    let addr = block.addr();
    // SAFETY: as above.
    let kind = unsafe {
        match found {
            Found::Large(record) if (*record).heap.load(Ordering::Relaxed) == h => {
                if (*record).start.addr() == addr {
                    return Ok(Place::Large(record));
                }
                Kind::Inside
            }
            Found::Chunk(chunk) if (*chunk).heap.load(Ordering::Relaxed) == h => wrong_kind(chunk, addr),
            Found::Free => Kind::Gone,
            _ => Kind::Foreign,
        }
    };
    Err(Error::fault(kind, addr))
}

/// What a pointer into a chunk is that is no live block.
unsafe fn wrong_kind(chunk: *mut Chunk, addr: usize) -> Kind {
    // SAFETY: under the lock of the chunk's heap.
    unsafe {
        let slice = (addr - chunk.addr()) / SLICE;
        if Chunk::all(chunk) & 1 << slice == 0 {
            return Kind::Foreign;
        }
        if (*chunk).free & 1 << slice != 0 {
            return Kind::Gone;
        }
        let page = Chunk::page(chunk, slice);
        let offset = addr - chunk.addr() - (*page).first as usize * SLICE;
        if offset / (*page).size as usize >= (*page).carved as usize {
            Kind::Foreign
        } else if offset.is_multiple_of((*page).size as usize) {
            Kind::DoubleFree
        } else if around(chunk, addr).is_some() {
            Kind::Inside
        } else {
            Kind::Gone
        }
    }
}

/// The offset of the live block that an address of a chunk lies in.
unsafe fn around(chunk: *mut Chunk, addr: usize) -> Option<usize> {
    // SAFETY: as above.
    unsafe {
        let slice = (addr - chunk.addr()) / SLICE;
        if Chunk::all(chunk) & !(*chunk).free & 1 << slice == 0 {
            return None;
        }
        let page = Chunk::page(chunk, slice);
        let begin = (*page).first as usize * SLICE;
        let offset = begin + (addr - chunk.addr() - begin) / (*page).size as usize * (*page).size as usize;
        // The end of a page may be no block's.
        if offset / SLICE >= begin / SLICE + (*page).slices as usize {
            return None;
        }
        let (bits, bit) = Chunk::bit(chunk, offset);
        (*bits & bit != 0).then_some(offset)
    }
}

/// A block of a class, or null.
#[inline(always)]
unsafe fn pop(h: *mut Raw, class: usize) -> *mut u8 {
    // SAFETY: under the lock; a page in the list has room.
    unsafe {
        let mut page = (*h).classes[class].head;
        if page.is_null() {
            page = new_page(h, class);
            if page.is_null() {
                return ptr::null_mut();
            }
        }
        let used = (*page).used;
        if used == 0 && (*h).classes[class].spare == page {
            (*h).classes[class].spare = ptr::null_mut();
        }
        (*page).used = used + 1;
        let block = take_block(h, page);
        if used + 1 == (*page).capacity {
            unlist(h, page);
        }
        block
    }
}

/// Takes a block out of a page that has room, and marks it as live.
#[inline(always)]
unsafe fn take_block(h: *mut Raw, page: *mut Page) -> *mut u8 {
    // SAFETY: as above.
    unsafe {
        let chunk = (*page).chunk;
        if (*h).watch {
            show_next(page);
        }
        let mut block = (*page).free.cast::<u8>();
        if block.is_null() {
            block = chunk.cast::<u8>().add(next_carved(page));
            (*page).carved += 1;
        } else {
            (*page).free = (*block.cast::<Block>()).next;
        }
        let (bits, bit) = Chunk::bit(chunk, block.addr() - chunk.addr());
        *bits |= bit;
        block
    }
}

/// The offset of the block that is carved next.
#[inline(always)]
unsafe fn next_carved(page: *mut Page) -> usize {
    // SAFETY: as above.
    unsafe { (*page).first as usize * SLICE + (*page).carved as usize * (*page).size as usize }
}

/// Tells the tool that the block which the page hands out next may be used; its link may be read.
#[cold]
#[inline(never)]
unsafe fn show_next(page: *mut Page) {
    // SAFETY: as above.
    unsafe {
        let (free, size) = ((*page).free, (*page).size as usize);
        if free.is_null() {
            tools::show((*page).chunk.cast::<u8>().add(next_carved(page)), size);
        } else {
            tools::reveal(free.cast(), size_of::<Block>());
            let next = (*free).next;
            tools::show(free.cast(), size);
            (*free).next = next;
        }
    }
}

/// Takes a live block back.
#[inline(always)]
unsafe fn remove(h: *mut Raw, chunk: *mut Chunk, page: *mut Page, block: *mut u8) {
    // SAFETY: under the lock; the block is the page's, and its bytes are ours now.
    unsafe {
        let (bits, bit) = Chunk::bit(chunk, block.addr() - chunk.addr());
        *bits &= !bit;
        let freed = block.cast::<Block>();
        if (*h).watch {
            tools::show(block, size_of::<Block>());
        }
        (*freed).next = (*page).free;
        (*page).free = freed;
        if (*h).watch {
            tools::hide(block, (*page).size as usize);
        }
        let used = (*page).used - 1;
        (*page).used = used;
        if !(*page).listed {
            keep_errno(|| room_again(h, page));
        } else if used == 0 {
            let list = &raw mut (*h).classes[(*page).class as usize];
            if (*list).spare.is_null() {
                (*list).spare = page;
            } else {
                keep_errno(|| room_again(h, page));
            }
        }
    }
}

/// A block was freed in a page that had none free, or that has no other.
#[cold]
#[inline(never)]
unsafe fn room_again(h: *mut Raw, page: *mut Page) {
    // SAFETY: under the lock.
    unsafe {
        let class = (*page).class as usize;
        if class == CLASSES {
            return release_page(h, page);
        }
        let list = &raw mut (*h).classes[class];
        if !(*page).listed {
            (*page).listed = true;
            (*page).prev = ptr::null_mut();
            (*page).next = (*list).head;
            if !(*list).head.is_null() {
                (*(*list).head).prev = page;
            }
            (*list).head = page;
        }
        if (*page).used == 0 {
            if (*list).spare.is_null() {
                (*list).spare = page;
            } else {
                unlist(h, page);
                (*list).pages -= 1;
                release_page(h, page);
            }
        }
    }
}

unsafe fn unlist(h: *mut Raw, page: *mut Page) {
    // SAFETY: under the lock; the page is in its class's list.
    unsafe {
        let (next, prev) = ((*page).next, (*page).prev);
        if prev.is_null() {
            (*h).classes[(*page).class as usize].head = next;
        } else {
            (*prev).next = next;
        }
        if !next.is_null() {
            (*next).prev = prev;
        }
        (*page).listed = false;
    }
}

/// Gives the slices of an empty page, which is in no list, back to its chunk, and an empty chunk to the space.
unsafe fn release_page(h: *mut Raw, page: *mut Page) {
    // SAFETY: under the lock.
    unsafe {
        let chunk = (*page).chunk;
        (*h).held -= (*page).slices as usize * SLICE;
        (*chunk).free |= mask((*page).first as usize, (*page).slices as usize);
        if (*chunk).free == Chunk::all(chunk) && !((*chunk).next.is_null() && (*chunk).prev.is_null()) {
            return release_chunk(h, chunk);
        }
        if !(*chunk).roomy || (*chunk).free.count_ones() as usize >= SLICES_MAX {
            if (*chunk).roomy {
                forget_roomy(h, chunk);
            }
            add_roomy(h, chunk);
        }
    }
}

unsafe fn release_chunk(h: *mut Raw, chunk: *mut Chunk) {
    // SAFETY: under the lock; the chunk is empty.
    unsafe {
        if (*chunk).roomy {
            forget_roomy(h, chunk);
        }
        let (next, prev) = ((*chunk).next, (*chunk).prev);
        if prev.is_null() {
            (*h).chunks = next;
        } else {
            (*prev).next = next;
        }
        if !next.is_null() {
            (*next).prev = prev;
        }
        give_chunk(h, chunk);
    }
}

unsafe fn give_chunk(h: *mut Raw, chunk: *mut Chunk) {
    // SAFETY: as above.
    unsafe {
        let units = (*chunk).units as usize;
        (*h).reserved -= units * UNIT;
        (*chunk).heap.store(ptr::null_mut(), Ordering::Relaxed);
        if (*h).watch {
            tools::hide(chunk.cast(), units * UNIT);
        }
        space::give(chunk.cast(), units);
    }
}

unsafe fn add_roomy(h: *mut Raw, chunk: *mut Chunk) {
    // SAFETY: under the lock.
    unsafe {
        (*chunk).roomy = true;
        (*chunk).roomy_prev = ptr::null_mut();
        (*chunk).roomy_next = (*h).roomy;
        if !(*h).roomy.is_null() {
            (*(*h).roomy).roomy_prev = chunk;
        }
        (*h).roomy = chunk;
    }
}

unsafe fn forget_roomy(h: *mut Raw, chunk: *mut Chunk) {
    // SAFETY: under the lock; it is in the list.
    unsafe {
        let (next, prev) = ((*chunk).roomy_next, (*chunk).roomy_prev);
        if prev.is_null() {
            (*h).roomy = next;
        } else {
            (*prev).roomy_next = next;
        }
        if !next.is_null() {
            (*next).roomy_prev = prev;
        }
        (*chunk).roomy = false;
    }
}

/// Gives the class's first page that has room a successor. Null without memory.
#[cold]
#[inline(never)]
unsafe fn new_page(h: *mut Raw, class: usize) -> *mut Page {
    // SAFETY: under the lock.
    unsafe {
        let least = LEAST[class] as usize;
        // The more pages of a class there are, the larger the next one.
        let mut want = least;
        for _ in 0..((*h).classes[class].pages + 1).ilog2() {
            if want * 2 <= SLICES_MAX {
                want *= 2;
            }
        }
        let page = take_slices(h, want, least, SIZES[class] as usize, class);
        if !page.is_null() {
            (*h).classes[class].pages += 1;
            (*page).listed = true;
            (*h).classes[class].head = page;
        }
        page
    }
}

/// A page of `want` slices, or fewer, but `least`. Null without memory.
unsafe fn take_slices(h: *mut Raw, want: usize, least: usize, size: usize, class: usize) -> *mut Page {
    // SAFETY: under the lock.
    unsafe {
        let mut want = want;
        if !may_hold(h, want * SLICE) {
            want = least;
            if !may_hold(h, want * SLICE) {
                return ptr::null_mut();
            }
        }
        for attempt in 0..3 {
            let mut chunk = (*h).roomy;
            for _ in 0..LOOKS {
                if chunk.is_null() {
                    break;
                }
                let mut slices = want;
                loop {
                    if let Some(first) = Chunk::room(chunk, slices) {
                        // A block by itself is no class's, and its size is that of its slices.
                        let size = if class == CLASSES { slices * SLICE } else { size };
                        (*h).held += slices * SLICE;
                        let page = Chunk::make_page(chunk, first, slices, size, class);
                        if (*chunk).free == 0 {
                            forget_roomy(h, chunk);
                        }
                        return page;
                    }
                    if slices == least {
                        break;
                    }
                    slices = (slices / 2).max(least);
                }
                chunk = (*chunk).roomy_next;
            }
            // Empty pages of other classes first, then a new chunk; then it must be there.
            let more = attempt == 0 && release_spares(h) || attempt < 2 && new_chunk(h, least);
            if !more {
                break;
            }
        }
        ptr::null_mut()
    }
}

/// Whether the heap may take so many bytes more in pages and large blocks, perhaps after it has given back empty pages.
unsafe fn may_hold(h: *mut Raw, bytes: usize) -> bool {
    // SAFETY: under the lock.
    unsafe {
        let fits = |h: *mut Raw| (*h).held.checked_add(bytes).is_some_and(|sum| sum <= (*h).held_most);
        fits(h) || release_spares(h) && fits(h)
    }
}

/// Gives back the slices of empty pages. False when there were none.
unsafe fn release_spares(h: *mut Raw) -> bool {
    let mut any = false;
    // SAFETY: under the lock.
    unsafe {
        for class in 0..CLASSES {
            let page = (*h).classes[class].spare;
            if !page.is_null() {
                (*h).classes[class].spare = ptr::null_mut();
                (*h).classes[class].pages -= 1;
                unlist(h, page);
                release_page(h, page);
                any = true;
            }
        }
    }
    any
}

/// Takes a chunk in which so many slices are free. False without memory.
unsafe fn new_chunk(h: *mut Raw, slices: usize) -> bool {
    const _: () = assert!(ROOM_LARGE >= SLICES_MAX);
    // SAFETY: under the lock.
    unsafe {
        let mut units = if (*h).reserved < SMALL_CHUNKS && slices <= ROOM_SMALL { 1 } else { 4 };
        let mut run = space::take(units, 1);
        if run.is_none() && slices <= ROOM_SMALL {
            units = 1;
            run = space::take(units, 1);
        }
        let Some(run) = run else { return false };
        if (*h).watch {
            tools::show(run.start, units * UNIT);
        }
        let chunk = Chunk::make(run.start, units, h);
        if (*h).watch {
            hide_slices(chunk);
        }
        (*h).reserved += units * UNIT;
        (*chunk).next = (*h).chunks;
        if !(*h).chunks.is_null() {
            (*(*h).chunks).prev = chunk;
        }
        (*h).chunks = chunk;
        add_roomy(h, chunk);
        true
    }
}

unsafe fn hide_slices(chunk: *mut Chunk) {
    // SAFETY: under the lock; no page is in the chunk.
    unsafe {
        let head = Chunk::all(chunk).trailing_zeros() as usize * SLICE;
        tools::hide(chunk.cast::<u8>().add(head), (*chunk).units as usize * UNIT - head);
    }
}

/// A block made as [`fit`] says, and whether its bytes are known to be zero; null without memory.
unsafe fn place(h: *mut Raw, how: Fit, bytes: usize) -> (*mut u8, bool) {
    // SAFETY: under the lock.
    unsafe {
        match how {
            Fit::Class(class) => (pop(h, class), false),
            Fit::Slices(slices) => {
                let page = take_slices(h, slices, slices, bytes, CLASSES);
                if page.is_null() {
                    return (ptr::null_mut(), false);
                }
                (*page).used = 1;
                (take_block(h, page), false)
            }
            Fit::Units(align) => {
                if !may_hold(h, bytes) {
                    return (ptr::null_mut(), false);
                }
                let units = bytes.div_ceil(UNIT);
                let Some(run) = space::take(units, align.div_ceil(UNIT)) else { return (ptr::null_mut(), false) };
                let record = space::large_record(run.start);
                (*record).start = run.start;
                (*record).heap.store(h, Ordering::Relaxed);
                (*record).units = units;
                (*record).size = bytes;
                (*record).mapped = run.mapped;
                (*record).prev = ptr::null_mut();
                (*record).next = (*h).larges;
                if !(*h).larges.is_null() {
                    (*(*h).larges).prev = record;
                }
                (*h).larges = record;
                space::set_large(run.start, units);
                (*h).held += bytes;
                (*h).reserved += units * UNIT;
                if (*h).watch {
                    tools::show(run.start, bytes);
                }
                (run.start, run.zero)
            }
        }
    }
}

unsafe fn remove_large(h: *mut Raw, record: *mut Unit) {
    // SAFETY: under the lock; the record is in the heap's list.
    unsafe {
        let (next, prev) = ((*record).next, (*record).prev);
        if prev.is_null() {
            (*h).larges = next;
        } else {
            (*prev).next = next;
        }
        if !next.is_null() {
            (*next).prev = prev;
        }
        (*h).held -= (*record).size;
        (*h).reserved -= (*record).units * UNIT;
        keep_errno(|| space::give_large(record, (*h).watch));
    }
}

/// Gives a large block another size that its units hold, and the units that it needs no more back.
unsafe fn resize_large(h: *mut Raw, record: *mut Unit, bytes: usize) -> Result<NonNull<u8>> {
    // SAFETY: under the lock; the record is that of a live block.
    unsafe {
        let (start, old, units) = ((*record).start, (*record).size, bytes.div_ceil(UNIT));
        if bytes > old {
            if !may_hold(h, bytes - old) || !charge(h, bytes - old) {
                return failed(h);
            }
        } else {
            discharge(h, old - bytes);
        }
        let current = (*h).current.load(Ordering::Relaxed) - old + bytes;
        (*h).current.store(current, Ordering::Relaxed);
        (*h).peak = (*h).peak.max(current);
        (*h).held = (*h).held - old + bytes;
        (*record).size = bytes;
        let tail = (*record).units - units;
        if (*h).watch {
            if bytes > old {
                tools::show(start.add(old), bytes - old);
            } else {
                tools::hide(start.add(bytes), (*record).units * UNIT - bytes);
            }
        }
        if tail != 0 {
            let rest = start.add(units * UNIT);
            if (*record).mapped == 0 {
                (*record).units = units;
                (*h).reserved -= tail * UNIT;
                space::give(rest, tail);
            } else if bytes < old {
                // One mapping: its memory goes back, its addresses stay.
                pages::purge(rest, tail * UNIT);
            }
        }
        if bytes != old {
            (*h).allocs += 1;
            (*h).frees += 1;
        }
        Ok(NonNull::new_unchecked(start))
    }
}

/// Takes all blocks back: by chunk and large block, not by block. One chunk stays when the heap does.
unsafe fn release_all(h: *mut Raw, keep: bool) {
    // SAFETY: under the lock.
    unsafe {
        discharge(h, (*h).current.load(Ordering::Relaxed));
        (*h).current.store(0, Ordering::Relaxed);
        (*h).frees = (*h).allocs;
        (*h).held = 0;
        while !(*h).larges.is_null() {
            let record = (*h).larges;
            (*h).larges = (*record).next;
            (*h).reserved -= (*record).units * UNIT;
            space::give_large(record, (*h).watch);
        }
        (*h).classes = [Class { head: ptr::null_mut(), spare: ptr::null_mut(), pages: 0 }; CLASSES];
        let mut chunk = (*h).chunks;
        (*h).chunks = ptr::null_mut();
        (*h).roomy = ptr::null_mut();
        while !chunk.is_null() {
            let next = (*chunk).next;
            // The first one taken is the last here, and small.
            if keep && next.is_null() {
                Chunk::clear(chunk);
                if (*h).watch {
                    hide_slices(chunk);
                }
                (*chunk).prev = ptr::null_mut();
                (*h).chunks = chunk;
                add_roomy(h, chunk);
            } else {
                give_chunk(h, chunk);
            }
            chunk = next;
        }
    }
}
