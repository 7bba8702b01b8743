//! The heap as C sees it, the tree of heaps, and the way from a bare pointer to its heap.
//!
//! A block comes from a page of its class (`heads[class]`), from slices by itself, or from units by itself (`larges`). A
//! page that is found to be used up leaves its list and comes back with the first block that is freed; one that is empty gives
//! its slices back, except one a class (`spare`), which stays until slices are short.
//!
//! [`Raw::alloc_quick`] and [`Raw::free_quick`] are the hot paths: for the heap's owner ([`turn`]), in a page with a freed block,
//! and in one that does not become empty. Everything else is off them.
//!
//! What a heap has taken in pages (`held`) is limited to twice the limit ([`meter`]) and 64 KiB: scattered frees cannot
//! pin more.
//!
//! Invariants, checked by [`Raw::check`]: what the account says is in use is the sum of the usable sizes of live blocks,
//! `allocs - frees` their number; `held` that of all pages and large blocks; a page with room is in its class's list; a chunk is in
//! the list of roomy ones when it has a free slice.

use crate::chunk::{Block, Chunk, Page, ROOM_LARGE, ROOM_SMALL, bit, mask};
use crate::classes::{self, CLASS_MAX, CLASSES, LEAST, SIZES, SLICE, SLICES_MAX};
use crate::meter::{self, Account, charge, discharge, uncharge};
use crate::space::{self, Found, UNIT, Unit};
use crate::turn::{self, Habit};
use crate::{Error, Kind, Label, Options, Stats, round_up};
use allokit_core::{MAX_SIZE, MIN_ALIGN, is_valid_align};
use allokit_platform::{Lock, barrier, budget, fork, keep_errno, meta, pages, tools};
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

const ALIVE: usize = 0x4EA9_0C0D_E5A5_E001;
/// A larger block inside a chunk has slices by itself, a still larger one units.
const IN_CHUNK_MAX: usize = SLICES_MAX * SLICE;
/// What a large block's size is rounded to.
const LARGE_STEP: usize = 4096;
/// Chunks are small until a heap has so much.
const SMALL_CHUNKS: usize = 48 << 10;
/// How many chunks are looked at for free slices.
const LOOKS: usize = 8;
/// The largest size that the hot path takes.
const QUICK_MAX: usize = classes::TABLE_MAX;
/// What a heap without blocks may keep in chunks.
const ENOUGH: usize = 4 * UNIT;
/// What a limited heap may hold beyond twice its limit.
const HELD_SLACK: usize = 64 << 10;

#[derive(Clone, Copy)]
struct Class {
    /// The page that stays when it is empty, if there is one; in the list.
    spare: *mut Page,
    pages: usize,
}

impl Class {
    const NONE: Class = Class { spare: ptr::null_mut(), pages: 0 };
}

/// The page of a class that has none: nothing to hand out. So that the hot path does not test for null.
struct NoPage(Page);
// SAFETY: it is never written.
unsafe impl Sync for NoPage {}
static NO_PAGE: NoPage = NoPage(Page {
    free: ptr::null_mut(),
    next: ptr::null_mut(),
    prev: ptr::null_mut(),
    bits: ptr::null_mut(),
    size: 0,
    capacity: 0,
    carved: 0,
    used: 0,
    first: 0,
    slices: 0,
    class: 0,
    listed: false,
});

fn no_page() -> *mut Page {
    (&raw const NO_PAGE.0).cast_mut()
}

/// A heap: `ak_heap_t`. Only ever behind a pointer, in memory that stays a heap's record for good.
pub struct Raw {
    /// The thread that enters without the lock, and whether it is inside.
    pub(crate) owner: AtomicUsize,
    pub(crate) busy: AtomicBool,
    pub(crate) account: Account,
    // -- for whoever is alone in it
    /// The difference is how many blocks live.
    allocs: u64,
    frees: u64,
    reserved: usize,
    /// Pages from which blocks are handed out, or [`no_page`].
    heads: [*mut Page; CLASSES],
    classes: [Class; CLASSES],
    chunks: *mut Chunk,
    roomy: *mut Chunk,
    larges: *mut Unit,
    held: usize,
    /// Blocks of arenas.
    pinned: usize,
    // -- anybody's
    failed: AtomicU64,
    pub(crate) lock: Lock,
    // -- under `lock`
    pub(crate) habit: Habit,
    // -- fixed while it lives
    alive: AtomicUsize,
    pub(crate) watch: bool,
    label: Label,
    /// Whatever the layer above wants to find again.
    tag: *mut c_void,
    held_most: usize,
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

pub(crate) static TREE: Lock = Lock::new();
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
        budget::on_relief(space::trim);
    }
}

/// From now on [`Raw::alloc_quick`] and [`Raw::free_quick`] find nothing, so that a layer above sees every call; or they may
/// again.
pub fn close(closed: bool) {
    let _tree = TREE.lock();
    // SAFETY: under TREE; records live for good.
    unsafe { turn::close(closed, |visit| for_all(visit)) };
}

unsafe extern "C" fn before_fork() {
    TREE.lock_raw();
    // SAFETY: under TREE; records live for good.
    unsafe { turn::stop_all(|visit| for_all(visit)) };
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

/// Visits a heap and all below it.
///
/// # Safety
/// Under TREE; the heap lives.
pub(crate) unsafe fn walk(h: *mut Raw, mut visit: impl FnMut(*mut Raw)) {
    let mut at = h;
    // SAFETY: the caller's promise.
    unsafe {
        loop {
            visit(at);
            if !(*at).child.is_null() {
                at = (*at).child;
                continue;
            }
            while at != h && (*at).younger.is_null() {
                at = (*at).parent;
            }
            if at == h {
                return;
            }
            at = (*at).younger;
        }
    }
}

/// How many heaps live, and what they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// How many live.
    pub live: usize,
    /// Bytes that they have taken from the system.
    pub reserved: usize,
    /// Bytes of live blocks.
    pub used: usize,
    /// The most that `reserved` has been.
    pub peak: usize,
}

/// The figures of now, of all heaps together. Takes as long as there are heaps.
#[must_use]
pub fn census() -> Census {
    let (reserved, peak) = space::used_and_peak();
    let mut census = Census { live: 0, reserved, used: 0, peak };
    let _tree = TREE.lock();
    // SAFETY: under TREE; records live for good, and nobody makes or ends a heap.
    unsafe {
        for_all(|heap| {
            if Raw::is_alive(heap) {
                census.live += 1;
                census.used += (*heap).account.current();
            }
        });
    }
    census
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
#[inline(always)]
pub unsafe fn free_any(block: *mut u8) -> Option<(Result<()>, *mut Raw)> {
    // SAFETY: the caller's promise; a chunk of a heap that has ended has none.
    unsafe {
        let (is, chunk) = space::chunk_at(block.addr());
        if is {
            let heap = (*chunk).heap.load(Ordering::Relaxed);
            if turn::enter_as_owner(heap) && Raw::give_quick(heap, chunk, block) {
                return Some((Ok(()), heap));
            }
        }
        free_any_slow(block)
    }
}

#[cold]
#[inline(never)]
unsafe fn free_any_slow(block: *mut u8) -> Option<(Result<()>, *mut Raw)> {
    let found = space::find(block.addr());
    // SAFETY: as in `find`; records live for good; what else the block is is looked at.
    unsafe {
        let heap = heap_of(found)?;
        if heap.is_null() {
            return Some((Err(Error::fault(Kind::Gone, block.addr())), heap));
        }
        let _turn = turn::wait(heap);
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
            barrier::prepare();
            (*h).watch = watch;
            (*h).habit = Habit::NONE;
            (*h).label = options.label;
            (*h).tag = ptr::null_mut();
            (*h).account = Account::new(h, parent, options.limit);
            (*h).held_most = (*h).account.nearest_limit().saturating_mul(2).saturating_add(HELD_SLACK);
            (*h).allocs = 0;
            (*h).frees = 0;
            (*h).failed.store(0, Ordering::Relaxed);
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

    fn blank() -> Raw {
        Raw {
            owner: AtomicUsize::new(0),
            busy: AtomicBool::new(false),
            // SAFETY: no parent and no limit: no heap is asked.
            account: unsafe { Account::new(ptr::null_mut(), ptr::null_mut(), 0) },
            allocs: 0,
            frees: 0,
            reserved: 0,
            heads: [no_page(); CLASSES],
            classes: [Class::NONE; CLASSES],
            chunks: ptr::null_mut(),
            roomy: ptr::null_mut(),
            larges: ptr::null_mut(),
            held: 0,
            pinned: 0,
            failed: AtomicU64::new(0),
            lock: Lock::new(),
            habit: Habit::NONE,
            alive: AtomicUsize::new(0),
            watch: false,
            label: Label::NONE,
            tag: ptr::null_mut(),
            held_most: 0,
            parent: ptr::null_mut(),
            child: ptr::null_mut(),
            younger: ptr::null_mut(),
            elder: ptr::null_mut(),
            next: ptr::null_mut(),
            next_free: ptr::null_mut(),
        }
    }

    /// Whether heaps below it live.
    ///
    /// # Safety
    /// Under TREE.
    pub(crate) unsafe fn has_children(h: *mut Raw) -> bool {
        // SAFETY: the caller's promise.
        unsafe { !(*h).child.is_null() }
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
            match NonNull::new(Raw::alloc_quick(h, size)) {
                Some(block) => Ok(block),
                None => Raw::alloc_slow(h, size),
            }
        }
    }

    /// As [`Raw::alloc`], the long way.
    ///
    /// # Errors
    /// As there.
    pub unsafe fn alloc_slow(h: *mut Raw, size: usize) -> Result<NonNull<u8>> {
        // SAFETY: the caller's promise.
        unsafe { Raw::alloc_as(h, size, MIN_ALIGN, false, false) }
    }

    /// A block, or null when it takes the long way, [`Raw::alloc_slow`], to get one or to find out why there is none.
    ///
    /// # Safety
    /// As [`Raw::is_alive`].
    #[inline(always)]
    pub unsafe fn alloc_quick(h: *mut Raw, size: usize) -> *mut u8 {
        if size > QUICK_MAX {
            return ptr::null_mut();
        }
        // SAFETY: an owner is alone in a heap that lives; a page's free blocks are its own.
        unsafe {
            if !turn::enter_as_owner(h) {
                return ptr::null_mut();
            }
            let class = classes::of_small(size);
            let page = (*h).heads[class];
            let block = (*page).free;
            let credit = (*h).account.credit.load(Ordering::Relaxed) - (*page).size as isize;
            if block.is_null() || credit < 0 {
                return Raw::alloc_refill(h, class);
            }
            (*page).free = (*block).next;
            (*page).used += 1;
            let (bits, bit) = bit((*page).bits, block.addr());
            *bits |= 1 << bit;
            (*h).account.credit.store(credit, Ordering::Relaxed);
            (*h).allocs += 1;
            turn::leave(h);
            block.cast()
        }
    }

    /// [`Raw::alloc_quick`] where the page has no block at hand.
    #[cold]
    #[inline(never)]
    unsafe fn alloc_refill(h: *mut Raw, class: usize) -> *mut u8 {
        // SAFETY: the owner is inside.
        unsafe {
            let (size, mut short) = (SIZES[class] as usize, ptr::null_mut());
            let mut block = ptr::null_mut();
            if charge(h, size, &mut short) {
                block = pop(h, class);
                if block.is_null() {
                    uncharge(h, size);
                } else {
                    (*h).allocs += 1;
                }
            }
            turn::leave(h);
            block
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

    #[cold]
    #[inline(never)]
    unsafe fn alloc_as(h: *mut Raw, size: usize, align: usize, zeroed: bool, pinned: bool) -> Result<NonNull<u8>> {
        let Ok((how, bytes)) = fit(size, align) else {
            // SAFETY: the caller's promise.
            return unsafe { failed(h) };
        };
        // SAFETY: the caller's promise.
        unsafe {
            again(h, |short| {
                let _turn = turn::wait(h);
                if !charge(h, bytes, short) {
                    return Err(Error::NoMemory);
                }
                let (block, zero) = place(h, how, bytes);
                if block.is_null() {
                    uncharge(h, bytes);
                    return Err(Error::NoMemory);
                }
                (*h).allocs += 1;
                (*h).pinned += usize::from(pinned);
                if zeroed {
                    if !zero {
                        block.write_bytes(0, size);
                    } else if (*h).watch {
                        tools::reveal(block, size);
                    }
                }
                Ok(NonNull::new_unchecked(block))
            })
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
        unsafe { if Raw::free_quick(h, block) { Ok(()) } else { Raw::free_slow(h, block) } }
    }

    /// Frees a block; false, and nothing has happened, when it takes the long way, [`Raw::free_slow`], to do that or to find out what is
    /// wrong with it.
    ///
    /// # Safety
    /// As [`Raw::is_alive`], and as [`Raw::free`].
    #[inline(always)]
    pub unsafe fn free_quick(h: *mut Raw, block: *mut u8) -> bool {
        let (is, chunk) = space::chunk_at(block.addr());
        // SAFETY: the caller's promise.
        unsafe { is && turn::enter_as_owner(h) && Raw::give_quick(h, chunk, block) }
    }

    /// Takes a block back if it is a live one of the heap, whose owner is inside, and leaves the heap.
    #[inline(always)]
    unsafe fn give_quick(h: *mut Raw, chunk: *mut Chunk, block: *mut u8) -> bool {
        // SAFETY: the owner is alone in the heap; where a bit is set, a live block begins, in a slice that has a page.
        unsafe {
            let (bits, bit) = bit((*chunk).bits, block.addr());
            if (*chunk).heap.load(Ordering::Relaxed) != h || block.addr() & (MIN_ALIGN - 1) != 0 {
                turn::leave(h);
                return false;
            }
            let live = *bits;
            if live >> bit & 1 == 0 {
                turn::leave(h);
                return false;
            }
            let page = Chunk::page_at(chunk, block.addr());
            let credit = (*h).account.note() + (*page).size as isize;
            let empty = credit == (*h).account.granted.load(Ordering::Relaxed) && (*h).reserved > ENOUGH;
            if (*page).used == 1 || empty {
                return Raw::give_last(h, block, chunk);
            }
            (*page).used -= 1;
            *bits = live ^ 1 << bit;
            let freed = block.cast::<Block>();
            (*freed).next = (*page).free;
            (*page).free = freed;
            (*h).account.credit.store(credit, Ordering::Relaxed);
            (*h).frees += 1;
            turn::leave(h);
            true
        }
    }

    /// [`Raw::give_quick`] where the page or the heap becomes empty, or the page was used up.
    #[cold]
    #[inline(never)]
    unsafe fn give_last(h: *mut Raw, block: *mut u8, chunk: *mut Chunk) -> bool {
        // SAFETY: as there.
        unsafe {
            let page = Chunk::page_at(chunk, block.addr());
            let bytes = (*page).size as usize;
            remove(h, chunk, page, block);
            Raw::removed(h, bytes);
            turn::leave(h);
        }
        true
    }

    /// What a block that was taken back changes in the heap's figures.
    unsafe fn removed(h: *mut Raw, bytes: usize) {
        // SAFETY: alone in the heap.
        unsafe {
            discharge(h, bytes);
            (*h).frees += 1;
            if (*h).frees == (*h).allocs && (*h).reserved > ENOUGH {
                // Nothing lives: empty pages must not hold chunks.
                keep_errno(|| release_spares(h));
            }
        }
    }

    /// As [`Raw::free`], for a heap that lives.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// As there.
    #[cold]
    #[inline(never)]
    pub unsafe fn free_slow(h: *mut Raw, block: *mut u8) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe {
            let found = space::find(block.addr());
            let _turn = turn::wait(h);
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
            let _turn = turn::wait(h);
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
            Raw::removed(h, bytes);
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
        // SAFETY: the caller's promise.
        unsafe { again(h, |short| Raw::resize(h, block, size, align, short)) }
    }

    unsafe fn resize(
        h: *mut Raw,
        block: *mut u8,
        size: usize,
        align: usize,
        short: &mut *mut Raw,
    ) -> Result<NonNull<u8>> {
        // SAFETY: alone in the heap; what `locate` gives is a live block of it.
        unsafe {
            let found = space::find(block.addr());
            let _turn = turn::wait(h);
            let at = locate(h, block, found)?;
            let (how, bytes) = fit(size, align)?;
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
                    return resize_large(h, record, bytes, short);
                }
                _ => {}
            }
            if bytes > old && !charge(h, bytes - old, short) {
                return Err(Error::NoMemory);
            }
            let (new, _) = place(h, how, bytes);
            if new.is_null() {
                if bytes > old {
                    uncharge(h, bytes - old);
                }
                return if size <= old && aligned { Ok(NonNull::new_unchecked(block)) } else { Err(Error::NoMemory) };
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
            let _turn = turn::wait(h);
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
            let _turn = turn::wait(h);
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
            walk(h, |at| {
                if at != h {
                    total += (*at).account.current();
                }
            });
            let _turn = turn::wait(h);
            let current = (*h).account.current();
            Stats {
                current,
                peak: (*h).account.peak(),
                reserved: (*h).reserved,
                total: total + current,
                limit: (*h).account.limit(),
                blocks: ((*h).allocs - (*h).frees) as usize,
                children,
                allocs: (*h).allocs,
                frees: (*h).frees,
                failed: (*h).failed.load(Ordering::Relaxed),
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
            let _turn = turn::wait(h);
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
            let turn = turn::wait(h);
            if (*h).pinned != 0 {
                return Err(Error::fault(Kind::HasArenas, 0));
            }
            (*h).alive.store(0, Ordering::Release);
            // The turn lasts until the end: whoever it may be, nobody enters as the owner of what has ended.
            (*h).owner.store(0, Ordering::Relaxed);
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
            drop(turn);
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
            let _turn = turn::wait(h);
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
                    let class = (*page).class as usize;
                    let spare = class < CLASSES && (*h).classes[class].spare == page;
                    let sound = (*page).first as usize == first
                        && Page::chunk(page) == chunk
                        && Page::live(page, spare) == live
                        && live + free == (*page).carved as usize
                        && (*page).carved <= (*page).capacity
                        && (class == CLASSES || (*page).listed || live == (*page).capacity as usize);
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
            faults += usize::from(bytes != (*h).account.current());
            faults += usize::from(held != (*h).held || reserved != (*h).reserved);
            faults += usize::from((*h).allocs - (*h).frees != blocks as u64);
        }
        faults
    }
}

// ---- under the heap's lock: the caller of each function below holds it ----

#[cold]
unsafe fn failed<T>(h: *mut Raw) -> Result<T> {
    // SAFETY: the heap lives.
    unsafe { (*h).failed.fetch_add(1, Ordering::Relaxed) };
    Err(Error::NoMemory)
}

/// Does what may fail at a limit, and again for each meter at which that was for credit that others had. The caller is in
/// no heap.
unsafe fn again<T>(h: *mut Raw, mut call: impl FnMut(&mut *mut Raw) -> Result<T>) -> Result<T> {
    let mut last = ptr::null_mut();
    loop {
        let mut short = ptr::null_mut();
        let result = call(&mut short);
        if !matches!(result, Err(Error::NoMemory)) {
            return result;
        }
        // SAFETY: the caller's promise.
        if short.is_null() || short == last || unsafe { !meter::collect(h, short) } {
            // SAFETY: as above.
            return unsafe { failed(h) };
        }
        last = short;
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
            let (bits, bit) = bit((*chunk).bits, block.addr());
            if *bits >> bit & 1 != 0 && block.addr() & (MIN_ALIGN - 1) == 0 {
                return Ok(Place::Small(chunk, Chunk::page_at(chunk, block.addr())));
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
        let (bits, bit) = bit((*chunk).bits, chunk.addr() + offset);
        (*bits >> bit & 1 != 0).then_some(offset)
    }
}

/// A block of a class, or null.
unsafe fn pop(h: *mut Raw, class: usize) -> *mut u8 {
    // SAFETY: alone in the heap.
    unsafe {
        loop {
            let mut page = (*h).heads[class];
            if page == no_page() {
                page = new_page(h, class);
                if page.is_null() {
                    return ptr::null_mut();
                }
            }
            if (*page).free.is_null() {
                if (*page).carved == (*page).capacity {
                    // Used up: nothing is known of it until a block comes back.
                    if (*h).classes[class].spare == page {
                        (*h).classes[class].spare = ptr::null_mut();
                    }
                    unlist(h, page);
                    (*page).used = 1;
                    continue;
                }
                carve(h, page);
            }
            (*page).used += 1;
            return take_block(h, page);
        }
    }
}

/// Makes blocks out of what no block was in yet: as many as a slice holds, so that little is touched early.
unsafe fn carve(h: *mut Raw, page: *mut Page) {
    // SAFETY: alone in the heap; the bytes behind what is carved are the page's.
    unsafe {
        let size = (*page).size as usize;
        let room = ((*page).capacity - (*page).carved) as usize;
        let count = room.min((SLICE / size).max(1));
        let first = Page::chunk(page).cast::<u8>().add((*page).first as usize * SLICE + (*page).carved as usize * size);
        let mut next = (*page).free;
        for at in (0..count).rev() {
            let block = first.add(at * size).cast::<Block>();
            if (*h).watch {
                tools::show(block.cast(), size_of::<Block>());
            }
            (*block).next = next;
            if (*h).watch {
                tools::hide(block.cast(), size_of::<Block>());
            }
            next = block;
        }
        (*page).free = next;
        (*page).carved += count as u16;
    }
}

/// Takes a block out of a page that has a free one, and marks it as live.
unsafe fn take_block(h: *mut Raw, page: *mut Page) -> *mut u8 {
    // SAFETY: as above.
    unsafe {
        if (*h).watch {
            show_next(page);
        }
        let block = (*page).free;
        (*page).free = (*block).next;
        let (bits, bit) = bit((*page).bits, block.addr());
        *bits |= 1 << bit;
        block.cast()
    }
}

/// Tells the tool that the block which the page hands out next may be used; its link may be read.
#[cold]
#[inline(never)]
unsafe fn show_next(page: *mut Page) {
    // SAFETY: as above.
    unsafe {
        let (free, size) = ((*page).free, (*page).size as usize);
        tools::reveal(free.cast(), size_of::<Block>());
        let next = (*free).next;
        tools::show(free.cast(), size);
        (*free).next = next;
    }
}

/// Takes a live block back.
unsafe fn remove(h: *mut Raw, chunk: *mut Chunk, page: *mut Page, block: *mut u8) {
    // SAFETY: alone in the heap; the block is the page's, and its bytes are ours now.
    unsafe {
        let (bits, bit) = bit((*chunk).bits, block.addr());
        *bits &= !(1 << bit);
        let freed = block.cast::<Block>();
        if (*h).watch {
            tools::show(block, size_of::<Block>());
        }
        (*freed).next = (*page).free;
        (*page).free = freed;
        if (*h).watch {
            tools::hide(block, (*page).size as usize);
        }
        (*page).used -= 1;
        if (*page).used == 0 {
            keep_errno(|| look_again(h, page));
        }
    }
}

/// A block was freed in a page that was in no list, or that is empty now.
#[cold]
#[inline(never)]
unsafe fn look_again(h: *mut Raw, page: *mut Page) {
    // SAFETY: alone in the heap.
    unsafe {
        let class = (*page).class as usize;
        if class == CLASSES {
            return release_page(h, page);
        }
        if !(*page).listed {
            (*page).used = (*page).capacity - 1;
            list(h, page);
            if (*page).used != 0 {
                return;
            }
        }
        let spare = (*h).classes[class].spare;
        if spare.is_null() || (*spare).used > 1 {
            // The spare page counts one block more than it has, so that it may become empty unseen.
            if !spare.is_null() {
                (*spare).used -= 1;
            }
            (*page).used = 1;
            (*h).classes[class].spare = page;
        } else {
            unlist(h, page);
            (*h).classes[class].pages -= 1;
            release_page(h, page);
        }
    }
}

unsafe fn list(h: *mut Raw, page: *mut Page) {
    // SAFETY: alone in the heap; the page is in no list.
    unsafe {
        let head = &raw mut (*h).heads[(*page).class as usize];
        let next = if *head == no_page() { ptr::null_mut() } else { *head };
        (*page).listed = true;
        (*page).prev = ptr::null_mut();
        (*page).next = next;
        if !next.is_null() {
            (*next).prev = page;
        }
        *head = page;
    }
}

unsafe fn unlist(h: *mut Raw, page: *mut Page) {
    // SAFETY: under the lock; the page is in its class's list.
    unsafe {
        let (next, prev) = ((*page).next, (*page).prev);
        if prev.is_null() {
            (*h).heads[(*page).class as usize] = if next.is_null() { no_page() } else { next };
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
        let chunk = Page::chunk(page);
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
            list(h, page);
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
            // One block that is none: it is empty.
            if !page.is_null() && (*page).used == 1 {
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
                carve(h, page);
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
unsafe fn resize_large(h: *mut Raw, record: *mut Unit, bytes: usize, short: &mut *mut Raw) -> Result<NonNull<u8>> {
    // SAFETY: under the lock; the record is that of a live block.
    unsafe {
        let (start, old, units) = ((*record).start, (*record).size, bytes.div_ceil(UNIT));
        if bytes > old {
            if !may_hold(h, bytes - old) || !charge(h, bytes - old, short) {
                return Err(Error::NoMemory);
            }
        } else {
            discharge(h, old - bytes);
        }
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
        meter::discharge_all(h);
        (*h).frees = (*h).allocs;
        (*h).held = 0;
        while !(*h).larges.is_null() {
            let record = (*h).larges;
            (*h).larges = (*record).next;
            (*h).reserved -= (*record).units * UNIT;
            space::give_large(record, (*h).watch);
        }
        (*h).heads = [no_page(); CLASSES];
        (*h).classes = [Class::NONE; CLASSES];
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
