//! The table: for each unit of 64 KiB one word (owner and class) and one [`Page`] of metadata, outside the memory.
//!
//! A word is 0 (no block starts here), [`LARGE`] (a large block), or the address of the bin that takes the page's blocks:
//! the one of the page's class in its heap, or one that is the page's own (see heap.rs). Heaps are aligned to
//! [`HEAP_SPAN`], which holds all their bins, so a thread tests "mine, and in which bin?" with one exclusive or, and pushes
//! onto the word itself. The word of a page whose blocks carry a tag has its lowest bit set besides; such pages belong to
//! heaps of their own, so that a thread's plain frees never meet them.
//!
//! The words lie in one flat array over all addresses that a process can have, 8 bytes for each 64 KiB: reserved, not
//! used, so that it costs address space only. Where there is no such address space (a limit) they lie in the leaves that
//! hold the metadata, one load further away. So they do on other processors than x86-64: for 48 bits of address the array
//! is twice as large, and qemu-user, under which those are tested, keeps a record of each OS page of it: 256 MiB. Under
//! valgrind's memcheck a record of each byte took two minutes.

use crate::classes::{BINS, UNIT_SHIFT};
use crate::heap::{Bin, Heap};
use crate::page::{Bits, MANY, MOST, Page};
use crate::sync::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use allokit_platform::{AddressMap, pages, tools};

/// The word of a large block.
const LARGE: u64 = 0xff;
/// In a page's word: its blocks carry tags.
const TAGGED: u64 = 1;
/// Heaps are aligned to this, and so large.
pub(crate) const HEAP_SPAN: usize = 256 << 10;
/// Where the pages' own bins begin in a heap, and where they end.
pub(crate) const SLOTS_AT: usize = 16 << 10;
/// See [`SLOTS_AT`].
pub(crate) const SLOTS_END: usize = HEAP_SPAN - 4096;
/// The bins at a heap's start, in bytes.
pub(crate) const BINS_BYTES: usize = BINS * size_of::<Bin>();

const UNITS_PER_LEAF: usize = 1 << (32 - UNIT_SHIFT);

/// Addresses of a process are below this.
const ADDRESSES: usize = if cfg!(target_arch = "x86_64") { 1 << 47 } else { 1 << 48 };

/// The flat array, or null.
static FLAT: AtomicPtr<AtomicU64> = AtomicPtr::new(core::ptr::null_mut());
/// As [`FLAT`], once plain frees may use it without a look at anything else; null before.
pub(crate) static OPEN: AtomicPtr<AtomicU64> = AtomicPtr::new(core::ptr::null_mut());
/// Whether [`close`] was called.
static CLOSED: AtomicBool = AtomicBool::new(false);
/// Whether it has been decided where the words lie.
static STARTED: AtomicBool = AtomicBool::new(false);

#[repr(C)]
struct Leaf {
    words: [AtomicU64; UNITS_PER_LEAF],
    pages: [Page; UNITS_PER_LEAF],
}

/// The bits of pages with many blocks, in smaller leaves: a process with little address space has room for one of these.
#[repr(C)]
struct BitsLeaf {
    many: [Bits<MANY>; UNITS_PER_BITS_LEAF],
    most: [Bits<MOST>; UNITS_PER_BITS_LEAF],
}

const BITS_LEAF_SHIFT: u32 = 28;
const UNITS_PER_BITS_LEAF: usize = 1 << (BITS_LEAF_SHIFT - UNIT_SHIFT);

static BITS: AddressMap<{ size_of::<BitsLeaf>() }, { 1 << (48 - BITS_LEAF_SHIFT) }> = AddressMap::new();

static MAP: AddressMap<{ size_of::<Leaf>() }> = AddressMap::new();

/// See the module's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Word(u64);

impl Word {
    pub(crate) const NONE: Word = Word(0);

    pub(crate) fn small(heap: *mut Heap, class: usize) -> Word {
        debug_assert!(heap.addr().is_multiple_of(HEAP_SPAN) && class > 0 && class < BINS);
        // SAFETY: a heap; set once, before it has a page.
        let tagged = u64::from(unsafe { (*heap).tagged });
        Word((heap.expose_provenance() + class * size_of::<Bin>()) as u64 | tagged)
    }

    /// The word of the pages that a bin is for.
    pub(crate) fn of_bin(bin: *mut Bin) -> Word {
        let heap: *mut Heap = core::ptr::with_exposed_provenance_mut(bin.expose_provenance() & !(HEAP_SPAN - 1));
        // SAFETY: a bin lies in a heap.
        let tagged = u64::from(unsafe { (*heap).tagged });
        Word(bin.addr() as u64 | tagged)
    }

    pub(crate) fn large() -> Word {
        Word(LARGE)
    }

    /// Whether it is that of a page of `heap`.
    #[inline(always)]
    pub(crate) fn is_owned_by(self, heap: *mut Heap) -> bool {
        (self.0 as usize ^ heap.addr()) < SLOTS_END
    }

    /// The bin that takes the page's blocks, which have no tags.
    #[inline(always)]
    pub(crate) fn bin(self) -> *mut Bin {
        debug_assert!(self.is_small() && !self.is_tagged());
        core::ptr::with_exposed_provenance_mut(self.0 as usize)
    }

    /// The bin that takes the page's blocks, which have tags.
    #[inline(always)]
    pub(crate) fn tagged_bin(self) -> *mut Bin {
        debug_assert!(self.is_small() && self.is_tagged());
        core::ptr::with_exposed_provenance_mut((self.0 - TAGGED) as usize)
    }

    /// Whether the blocks of the page (it is one) carry tags.
    #[inline(always)]
    pub(crate) fn is_tagged(self) -> bool {
        debug_assert!(self.is_small());
        self.0 & TAGGED != 0
    }

    /// A number that differs between heaps and classes.
    #[inline(always)]
    pub(crate) fn spread(self) -> usize {
        ((self.0 >> 4) + (self.0 >> 12) * 37) as usize
    }

    #[inline(always)]
    pub(crate) fn is_small(self) -> bool {
        self.0 > LARGE
    }

    #[inline(always)]
    pub(crate) fn is_large(self) -> bool {
        self.0 == LARGE
    }

    /// Whether the bin is that of a class, not a page's own.
    #[inline(always)]
    pub(crate) fn is_hot(self) -> bool {
        debug_assert!(self.is_small());
        (self.0 as usize & (HEAP_SPAN - 1)) < BINS_BYTES
    }

    /// The class of the page that holds `addr`, whose word this is.
    #[inline(always)]
    pub(crate) fn class(self, addr: usize) -> usize {
        debug_assert!(self.is_small());
        if self.is_hot() {
            (self.0 as usize & (HEAP_SPAN - 1)) / size_of::<Bin>()
        } else {
            // SAFETY: a unit with a page's word has metadata, and the class is in that of all units. It does not change
            // while the page has a block that somebody may ask for.
            unsafe { (*page(addr)).class as usize }
        }
    }

    /// The word of the page that holds `addr`, whose word this is, while it is hot.
    #[inline(always)]
    pub(crate) fn hot(self, addr: usize) -> Word {
        if self.is_hot() { self } else { Word::small(self.heap(), self.class(addr)) }
    }

    #[inline(always)]
    pub(crate) fn heap(self) -> *mut Heap {
        debug_assert!(self.is_small());
        core::ptr::with_exposed_provenance_mut(self.0 as usize & !(HEAP_SPAN - 1))
    }
}

/// Decides where the words lie, before the first is written.
fn start() {
    if STARTED.load(Ordering::Acquire) {
        return;
    }
    let _guard = MAP.lock().lock();
    if STARTED.load(Ordering::Relaxed) {
        return;
    }
    if cfg!(all(target_arch = "x86_64", not(miri))) && !pages::space_is_limited() && !tools::records_each_byte() {
        let flat = pages::map_sparse((ADDRESSES >> UNIT_SHIFT) * size_of::<AtomicU64>());
        FLAT.store(flat.cast(), Ordering::Release);
    }
    STARTED.store(true, Ordering::Release);
}

/// Lets plain frees use the flat array directly, where there is one.
pub(crate) fn open() {
    start();
    if !CLOSED.load(Ordering::Acquire) {
        OPEN.store(FLAT.load(Ordering::Acquire), Ordering::Release);
    }
}

/// Undoes [`open`], for good.
pub(crate) fn close() {
    CLOSED.store(true, Ordering::Release);
    OPEN.store(core::ptr::null_mut(), Ordering::Release);
}

/// Whether [`open`] was called and could be followed.
pub(crate) fn is_open() -> bool {
    !OPEN.load(Ordering::Relaxed).is_null()
}

/// The entry of `addr` in the flat array, or null when there is none.
#[inline(always)]
fn flat_entry(addr: usize) -> *const AtomicU64 {
    let flat = FLAT.load(Ordering::Acquire);
    if flat.is_null() || addr >= ADDRESSES {
        return core::ptr::null();
    }
    // SAFETY: the array has an entry for each unit below ADDRESSES.
    unsafe { flat.add(addr >> UNIT_SHIFT) }
}

/// The word of the unit that holds `addr`, from what [`OPEN`] gave.
///
/// # Safety
/// `open` is the value of [`OPEN`] and not null; `addr` is below `ADDRESSES`. (A pointer that no process can have reads
/// outside the array and ends the program.)
#[inline(always)]
pub(crate) unsafe fn open_word(open: *mut AtomicU64, addr: usize) -> Word {
    // SAFETY: the caller's promise.
    unsafe { Word((*open.add(addr >> UNIT_SHIFT)).load(Ordering::Relaxed)) }
}

/// The word of the unit that holds `addr`, where the words lie in the flat array.
#[inline(always)]
pub(crate) fn flat_word(addr: usize) -> Option<Word> {
    let flat = FLAT.load(Ordering::Acquire);
    if flat.is_null() {
        return None;
    }
    // SAFETY: the array has an entry for each unit below ADDRESSES.
    (addr < ADDRESSES).then(|| unsafe { Word((*flat.add(addr >> UNIT_SHIFT)).load(Ordering::Relaxed)) })
}

#[inline(always)]
fn index(addr: usize) -> usize {
    (addr >> UNIT_SHIFT) & (UNITS_PER_LEAF - 1)
}

/// The word of the unit that holds `addr`; 0 where nothing of ours is.
#[inline(always)]
pub(crate) fn word(addr: usize) -> Word {
    let entry = flat_entry(addr);
    if !entry.is_null() {
        // SAFETY: as below: the array lives for good.
        return unsafe { Word((*entry).load(Ordering::Relaxed)) };
    }
    let leaf = MAP.leaf(addr).cast::<Leaf>();
    if leaf.is_null() {
        return Word::NONE;
    }
    // SAFETY: leaves live for good; words are atomic. A thread that may free a block learned of it from one that
    // received it after the word was written, so relaxed loads see it.
    unsafe { Word((*leaf).words[index(addr)].load(Ordering::Relaxed)) }
}

/// Sets the word of the unit that holds `addr`, which is covered.
pub(crate) fn set_word(addr: usize, word: Word) {
    let entry = flat_entry(addr);
    if !entry.is_null() {
        // SAFETY: as in `word`.
        unsafe { (*entry).store(word.0, Ordering::Relaxed) };
        return;
    }
    let leaf = MAP.leaf(addr).cast::<Leaf>();
    debug_assert!(!leaf.is_null());
    // SAFETY: as in `word`.
    unsafe { (*leaf).words[index(addr)].store(word.0, Ordering::Relaxed) };
}

/// The metadata of the unit that holds `addr`, or null where nothing of ours is.
#[inline]
pub(crate) fn page(addr: usize) -> *mut Page {
    let leaf = MAP.leaf(addr).cast::<Leaf>();
    if leaf.is_null() {
        return core::ptr::null_mut();
    }
    // SAFETY: the index is within the leaf.
    unsafe { &raw mut (*leaf).pages[index(addr)] }
}

/// Room for `words` words of bits (at most [`MOST`]) of the page that begins in the unit of `addr`, which is covered.
#[inline]
pub(crate) fn bits(addr: usize, words: usize) -> *mut u64 {
    let leaf = BITS.leaf(addr).cast::<BitsLeaf>();
    debug_assert!(!leaf.is_null() && words <= MOST);
    let unit = (addr >> UNIT_SHIFT) & (UNITS_PER_BITS_LEAF - 1);
    // SAFETY: the index is within the leaf.
    unsafe { if words <= MANY { (&raw mut (*leaf).many[unit]).cast() } else { (&raw mut (*leaf).most[unit]).cast() } }
}

/// Makes the leaves for `bytes` from `first`. False when there is no memory for them. One caller at a time.
pub(crate) fn cover(first: usize, bytes: usize) -> bool {
    start();
    let last = first + bytes - 1;
    let mut addr = first;
    loop {
        if MAP.leaf(addr).is_null() && (!make_writable(addr) || MAP.leaf_or_insert(addr).is_null()) {
            return false;
        }
        if BITS.leaf_or_insert(addr).is_null() {
            return false;
        }
        if addr >> BITS_LEAF_SHIFT == last >> BITS_LEAF_SHIFT {
            return true;
        }
        addr = ((addr >> BITS_LEAF_SHIFT) + 1) << BITS_LEAF_SHIFT;
    }
}

/// Makes the part of the flat array writable that a leaf's words would be: only this counts as memory that the process may
/// come to write (limits of data, overcommit switched off).
fn make_writable(addr: usize) -> bool {
    let entry = flat_entry(addr >> 32 << 32);
    // SAFETY: whole OS pages inside the array, which is ours; giving rights changes no contents.
    entry.is_null() || unsafe { pages::commit(entry.cast_mut().cast(), UNITS_PER_LEAF * size_of::<AtomicU64>()) }
}

/// The lock under which leaves of metadata are made, for fork; those of bits are made under the lock of the runs.
pub(crate) fn lock() -> &'static allokit_platform::Lock {
    MAP.lock()
}
