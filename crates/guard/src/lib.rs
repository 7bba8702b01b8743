//! Guarding: no heap bug goes on unseen. A layer over any backend; it answers all that tracking answers too.
//!
//! Owns: [`Guarded`], the canaries, the quarantine, the blocks with pages of their own, the checks. Uses: `allokit-track`
//! (its headers, its map of live blocks, its sites and counts), `allokit-core`, `allokit-platform`, `allokit-report`.
//! One state for the process.
//!
//! A block of the backend: `[16 bytes header][payload as asked for][canary to the end, 8 to 15 bytes]`. The header is
//! tracking's, its checksum mixed with a secret. The canary is made of the secret and its address. A freed block is
//! cleared and waits in the quarantine; it must be clear when it leaves. Blocks of 64 KiB and more, and those of no bytes,
//! lie in address space of their own (`space`), where what is around them, and what was freed, cannot be touched; their
//! headers lie elsewhere.
//!
//! Invariants: tracking's (an address is live in the map exactly while its block is the program's; whoever takes it out
//! alone may free it); a block in the quarantine is not live, all of it is zero, and it is in one quarantine only; a block
//! that was found damaged is not used again.
#![no_std]

#[cfg(test)]
extern crate std;

mod block;
mod budget;
mod check;
pub mod checked;
mod fault;
mod quarantine;
mod space;
mod switches;

#[cfg(test)]
mod tests;

pub use check::{at_exit, check};
pub use switches::Check;

use allokit_core::{Backend, MIN_ALIGN, Others, Stats};
use allokit_platform::{Lock, errno, fill, fork, keep_errno};
pub use allokit_track::SiteId;
use allokit_track::fault::{Operation, no_memory, wrong_pointer_with};
use allokit_track::header::{self, Header};
use allokit_track::{Tracked, live, threads};
use block::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use quarantine::Entry;

/// What a block was allocated by, and must be freed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// `malloc` and its family, `ak_alloc` and its family.
    Malloc = 0,
    /// `new`
    New = 1,
    /// `new[]`
    NewArray = 2,
    /// One of these two.
    AnyNew = 3,
}

impl Kind {
    fn of(bits: u8) -> Kind {
        match bits {
            1 => Kind::New,
            2 => Kind::NewArray,
            3 => Kind::AnyNew,
            _ => Kind::Malloc,
        }
    }

    fn allocates(self) -> &'static str {
        match self {
            Kind::Malloc => "malloc",
            Kind::New | Kind::AnyNew => "new",
            Kind::NewArray => "new[]",
        }
    }

    fn frees(self) -> &'static str {
        match self {
            Kind::Malloc => "free",
            Kind::New | Kind::AnyNew => "delete",
            Kind::NewArray => "delete[]",
        }
    }
}

/// Blocks of so many bytes have pages of their own.
pub const LARGE: usize = 64 << 10;

/// What the environment asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How many bytes of freed blocks wait, in each thread and, above [`Options::THREAD`], in the process.
    pub quarantine: Option<usize>,
    /// Every so many frees of a thread all blocks are checked; 0: never.
    pub check_every: usize,
    /// How many large blocks may have pages of their own each second, after the first [`Options::PAGES_FIRST`];
    /// `usize::MAX`: all.
    pub pages_each_second: Option<usize>,
}

impl Options {
    /// The most that waits in one thread, and the default.
    pub const THREAD: usize = 256 << 10;
    /// So many large blocks have pages of their own in any case.
    pub const PAGES_FIRST: usize = 1024;
    /// See [`Options::pages_each_second`]: at 10 to 30 us each, at most a few per cent of the time.
    pub const PAGES: usize = 1000;
}

/// A backend whose blocks are guarded. As [`Tracked`], with more to see.
#[derive(Debug)]
pub struct Guarded<B>(PhantomData<B>);

#[cold]
fn out_of_memory(size: usize, site: SiteId) -> *mut u8 {
    no_memory(size, site);
    errno::set(errno::ENOMEM);
    ptr::null_mut()
}

/// What becomes of the blocks of another allocator, where this one stands in for `malloc`: see [`set_stranger`].
static STRANGER: AtomicPtr<Others> = AtomicPtr::new(ptr::null_mut());

/// From now on, pointers that are certainly none of ours are `others`' if `is_theirs` says so.
pub fn set_stranger(others: &'static Others, is_theirs: fn(usize) -> bool) {
    IS_THEIRS.store(is_theirs as *mut (), Ordering::Relaxed);
    STRANGER.store(ptr::from_ref(others).cast_mut(), Ordering::Release);
}

static IS_THEIRS: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Who a pointer belongs to that is no live block, if it is somebody.
#[cold]
#[inline(never)]
fn stranger<B: Backend>(ptr: *const u8) -> Option<&'static Others> {
    // SAFETY: null, or for good.
    let others = unsafe { STRANGER.load(Ordering::Acquire).as_ref() }?;
    // SAFETY: set before, to a function of this type.
    let is_theirs: fn(usize) -> bool = unsafe { core::mem::transmute(IS_THEIRS.load(Ordering::Relaxed)) };
    let addr = ptr.addr();
    let ours = live::was_freed(addr) || header::guard::is_elsewhere(addr) || B::owns(ptr) == Some(true);
    (!ours && is_theirs(addr)).then_some(others)
}

/// Reports what is no live block.
#[cold]
#[inline(never)]
fn wrong(operation: Operation, ptr: *const u8, site: SiteId) {
    if Check::InvalidFree.is_on() {
        wrong_pointer_with(operation, ptr, site, |addr| {
            quarantine::recall(addr).or_else(|| space::recall(addr)).or_else(|| threads::recall(addr))
        });
    }
}

impl<B: Backend> Guarded<B> {
    /// Whether a block's neighbours in memory are the backend's blocks, or zero: so is it with our own allocator.
    const NEIGHBOURS: bool = matches!(B::NAME.as_bytes(), b"native");

    /// To be called before the first allocation; later calls do nothing.
    pub fn start(options: Options) {
        static STARTED: AtomicBool = AtomicBool::new(false);
        static STARTING: Lock = Lock::new();
        {
            let _guard = STARTING.lock();
            if STARTED.swap(true, Ordering::Relaxed) {
                return;
            }
            switches::read();
            block::make_secret();
            space::begin(options.pages_each_second.unwrap_or(Options::PAGES));
            quarantine::begin(options);
            checked::begin::<B>();
        }
        Tracked::<B>::start_with_headers();
        fork::register(before_fork, after_fork, after_fork_in_child);
    }

    /// [`Backend::alloc`] for a call site.
    #[inline]
    pub fn alloc_at(size: usize, site: SiteId) -> *mut u8 {
        Self::alloc_as(size, site, Kind::Malloc)
    }

    /// [`Backend::alloc`] for a call site and a kind.
    #[inline]
    pub fn alloc_as(size: usize, site: SiteId, kind: Kind) -> *mut u8 {
        if size.wrapping_sub(1) >= LARGE - 1 {
            return Self::alloc_apart(size, MIN_ALIGN, false, site, kind);
        }
        Self::alloc_inside(Layout::new(size), false, site, kind)
    }

    /// [`Backend::alloc_zeroed`] for a call site.
    #[inline]
    pub fn alloc_zeroed_at(size: usize, site: SiteId) -> *mut u8 {
        if size.wrapping_sub(1) >= LARGE - 1 {
            return Self::alloc_apart(size, MIN_ALIGN, true, site, Kind::Malloc);
        }
        Self::alloc_inside(Layout::new(size), true, site, Kind::Malloc)
    }

    /// [`Backend::alloc_aligned`] for a call site.
    pub fn alloc_aligned_at(size: usize, align: usize, site: SiteId) -> *mut u8 {
        Self::alloc_apart(size, align, false, site, Kind::Malloc)
    }

    /// [`Backend::alloc_aligned`] for a call site and a kind.
    pub fn alloc_aligned_as(size: usize, align: usize, site: SiteId, kind: Kind) -> *mut u8 {
        Self::alloc_apart(size, align, false, site, kind)
    }

    /// [`Backend::alloc_aligned_zeroed`] for a call site.
    pub fn alloc_aligned_zeroed_at(size: usize, align: usize, site: SiteId) -> *mut u8 {
        Self::alloc_apart(size, align, true, site, Kind::Malloc)
    }

    /// A block with address space of its own if it is large or empty and there is some; else one of the backend's.
    #[inline(never)]
    fn alloc_apart(size: usize, align: usize, zeroed: bool, site: SiteId, kind: Kind) -> *mut u8 {
        if size > header::MAX_SIZE {
            return out_of_memory(size, site);
        }
        if size == 0 || size >= LARGE && space::may_spend() {
            let block = space::alloc(size, align, site, kind);
            if !block.is_null() {
                if !live::mark(block) {
                    space::give_back(block.addr());
                    return out_of_memory(size, site);
                }
                threads::on_alloc(size);
                return block;
            }
        }
        checked::reach(size);
        Self::alloc_inside(Layout::aligned(size, align), zeroed, site, kind)
    }

    #[inline(always)]
    fn alloc_inside(layout: Layout, zeroed: bool, site: SiteId, kind: Kind) -> *mut u8 {
        quarantine::look_at_last(site);
        let gross = layout.gross();
        let clean = zeroed && layout.size >= LARGE;
        let base = match (layout.offset == header::SIZE, clean) {
            (true, false) => B::alloc(gross),
            (true, true) => B::alloc_zeroed(gross),
            (false, false) => B::alloc_aligned(gross, layout.offset),
            (false, true) => B::alloc_aligned_zeroed(gross, layout.offset),
        };
        if base.is_null() {
            return out_of_memory(layout.size, site);
        }
        // SAFETY: the block holds the layout, and is ours.
        unsafe {
            let payload = base.add(layout.offset);
            // What comes back from the quarantine is clear, but nobody vouches for a backend's other memory.
            if zeroed
                && !clean
                && !(Self::NEIGHBOURS && !block::is_heap_mixed() && fill::is_zero(payload, gross - layout.offset))
            {
                fill::zero(payload, gross - layout.offset);
            }
            if layout.offset != header::SIZE {
                fill::zero(base, layout.offset - header::SIZE);
            }
            block::write(payload, layout, site, kind, header::epoch());
            if !live::mark(payload) {
                B::free(base);
                return out_of_memory(layout.size, site);
            }
            threads::on_alloc(layout.size);
            payload
        }
    }

    /// [`Backend::free`] for a call site; a wrong pointer is reported and left alone.
    ///
    /// # Safety
    /// Unless the pointer is found to be wrong, as [`Backend::free`].
    #[inline]
    pub unsafe fn free_at(ptr: *mut u8, site: SiteId) {
        // SAFETY: the caller's promise.
        unsafe { Self::free_as(ptr, None, site, Kind::Malloc) }
    }

    /// [`Backend::free_sized`] for a call site; a wrong size is reported, and the block freed with its own.
    ///
    /// # Safety
    /// As [`Guarded::free_at`].
    #[inline]
    pub unsafe fn free_sized_at(ptr: *mut u8, size: usize, site: SiteId) {
        // SAFETY: the caller's promise.
        unsafe { Self::free_as(ptr, Some(size), site, Kind::Malloc) }
    }

    /// [`Backend::free`], or [`Backend::free_sized`] with a size, for a call site and a kind.
    ///
    /// # Safety
    /// As [`Guarded::free_at`].
    #[inline]
    pub unsafe fn free_as(ptr: *mut u8, told: Option<usize>, site: SiteId, kind: Kind) {
        if !live::take(ptr) {
            if let Some(others) = stranger::<B>(ptr) {
                // SAFETY: it is theirs.
                return keep_errno(|| unsafe { (others.free)(ptr) });
            }
            return wrong(Operation::Free, ptr, site);
        }
        // SAFETY: the block was live and is ours now.
        unsafe {
            let Some((layout, word)) = block::read(ptr) else {
                // Its size is not known, so it stays where it is.
                live::put_back(ptr);
                return fault::damaged(Operation::Free, ptr, site);
            };
            if block::kind(word) != kind as u8 && !(block::kind(word) == Kind::AnyNew as u8 && kind != Kind::Malloc) {
                fault::wrong_kind(ptr, &layout, word, kind, site);
            }
            if let Some(told) = told
                && told != layout.size
                && Check::Size.is_on()
            {
                let header = layout.header(word);
                allokit_track::fault::wrong_size(ptr, told, header.size, header.site, site);
            }
            Self::retire(ptr, layout, word, site);
        }
    }

    /// # Safety
    /// The block was live, was taken out of the map by the caller, and this is its header.
    #[inline(always)]
    unsafe fn retire(ptr: *mut u8, layout: Layout, word: u64, site: SiteId) {
        threads::count_free(layout.size);
        if header::guard::is_elsewhere(ptr.addr()) {
            return space::retire(ptr.addr(), site);
        }
        // SAFETY: the caller's promise.
        unsafe {
            let base = ptr.sub(layout.offset);
            // (A report comes when the block is clear, as its neighbours expect it to be: the program's handler may not
            // come back.)
            if !block::is_whole(ptr, layout) {
                let damage = block::damage(ptr, layout);
                // Nobody gets it any more.
                fill::zero(base, layout.gross());
                return fault::overflow(Operation::Free, ptr, &layout, word, site, damage);
            }
            let (mut underflow, mut beyond) = (false, None);
            // With several threads a neighbour may be in another one's hands: its header written, and not in the map yet.
            if Self::NEIGHBOURS && !threads::are_several() && !block::is_heap_mixed() {
                underflow = !block::is_clear_before::<B>(base);
                beyond = block::damage_after::<B>(base, layout.gross());
            }
            let all = block::clears_all(layout.gross());
            block::clear(base, layout, all);
            if underflow {
                fault::underflow(ptr, &layout, word, site);
            }
            if let Some(there) = beyond {
                fault::beyond(ptr, &layout, word, site, there);
            }
            let entry = Entry::new(ptr, layout, block::site(word), site, all);
            quarantine::push::<B>(entry);
        }
    }

    /// [`Backend::realloc`] for a call site, which becomes the block's. A wrong pointer is reported: null and EINVAL.
    ///
    /// # Safety
    /// Unless the pointer is found to be wrong, as [`Backend::realloc`].
    pub unsafe fn realloc_at(ptr: *mut u8, size: usize, site: SiteId) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { Self::realloc_aligned_at(ptr, size, MIN_ALIGN, site) }
    }

    /// [`Backend::realloc_aligned`] for a call site, as [`Guarded::realloc_at`].
    ///
    /// # Safety
    /// As [`Guarded::realloc_at`].
    pub unsafe fn realloc_aligned_at(ptr: *mut u8, size: usize, align: usize, site: SiteId) -> *mut u8 {
        if size > header::MAX_SIZE {
            return out_of_memory(size, site);
        }
        if !live::take(ptr) {
            if let Some(others) = stranger::<B>(ptr) {
                // SAFETY: it is theirs.
                return unsafe { (others.realloc)(ptr, size) };
            }
            wrong(Operation::Realloc, ptr, site);
            errno::set(errno::EINVAL);
            return ptr::null_mut();
        }
        // SAFETY: the block was live and is ours now.
        unsafe {
            let Some((layout, word)) = block::read(ptr) else {
                live::put_back(ptr);
                fault::damaged(Operation::Realloc, ptr, site);
                errno::set(errno::EINVAL);
                return ptr::null_mut();
            };
            let kind = Kind::of(block::kind(word));
            if kind != Kind::Malloc {
                fault::wrong_kind_realloc(ptr, &layout, word, site);
            }
            // (Of a block with pages of its own, what lies around it is looked at when it is freed, below.)
            let whole = header::guard::is_elsewhere(ptr.addr()) || block::is_whole(ptr, layout);
            let damage = if whole { None } else { block::damage(ptr, layout) };
            let new = Layout { size, ..layout };
            if whole
                && layout.offset == header::SIZE
                && align <= MIN_ALIGN
                && size != 0
                && new.gross() == layout.gross()
                && !header::guard::is_elsewhere(ptr.addr())
            {
                // The old canary must not be left inside the new payload, nor old bytes behind it.
                block::clear_tail(ptr, layout.size.min(size), layout.gross() - layout.offset);
                block::write(ptr, new, site, kind, block::epoch(word));
                live::put_back(ptr);
                threads::count_free(layout.size);
                threads::on_alloc(size);
                return ptr;
            }
            if header::guard::is_elsewhere(ptr.addr())
                && align <= MIN_ALIGN
                && matches!(space::damage(ptr.addr(), layout.size), space::Damage::None)
                && space::resize(ptr.addr(), layout.size, size)
            {
                block::write_elsewhere(ptr, new, site, kind, block::epoch(word));
                live::put_back(ptr);
                threads::count_free(layout.size);
                threads::on_alloc(size);
                return ptr;
            }
            if whole
                && layout.offset == header::SIZE
                && align <= MIN_ALIGN
                && layout.size.min(size) >= LARGE
                && !header::guard::is_elsewhere(ptr.addr())
                && live::have_reserve()
            {
                return Self::resize_large(ptr, layout, new, word, site);
            }
            let moved = if align <= MIN_ALIGN && size.wrapping_sub(1) < LARGE - 1 {
                Self::alloc_inside(Layout::new(size), false, site, kind)
            } else {
                Self::alloc_apart(size, align, false, site, kind)
            };
            if moved.is_null() {
                live::put_back(ptr);
                if !whole {
                    fault::overflow(Operation::Realloc, ptr, &layout, word, site, damage);
                }
                return moved;
            }
            block::keep_epoch(moved, block::epoch(word));
            fill::copy(moved, ptr, layout.size.min(size));
            if whole {
                Self::retire(ptr, layout, word, site);
            } else {
                threads::count_free(layout.size);
                fill::zero(ptr.sub(layout.offset), layout.gross());
                fault::overflow(Operation::Realloc, ptr, &layout, word, site, damage);
            }
            moved
        }
    }

    /// A large block of the backend gets another size, where it is or elsewhere: nothing of it waits, and a copy is left to
    /// the backend, which can often do without.
    ///
    /// # Safety
    /// The block was live and was taken out of the map by the caller; its layout, the new one, and its header.
    unsafe fn resize_large(ptr: *mut u8, old: Layout, new: Layout, word: u64, site: SiteId) -> *mut u8 {
        // SAFETY: the block is the backend's and the caller's alone; the new one holds the new layout.
        unsafe {
            block::mix_heap();
            let base = B::realloc(ptr.sub(old.offset), new.gross());
            if base.is_null() {
                live::put_back(ptr);
                return out_of_memory(new.size, site);
            }
            checked::reach(new.size);
            // If it has moved, another thread may have the old address already: it is not touched any more.
            let payload = base.add(old.offset);
            if new.size > old.size {
                // The old canary says nothing of the secret.
                fill::set(payload.add(old.size), 0, old.tail().min(new.tail()) - old.size);
            }
            block::write(payload, new, site, Kind::of(block::kind(word)), block::epoch(word));
            live::mark_surely(payload);
            threads::count_free(old.size);
            threads::on_alloc(new.size);
            payload
        }
    }

    /// [`Backend::usable_size`] for a call site: what was asked for; 0 for a wrong pointer, which is reported.
    ///
    /// # Safety
    /// None: a wrong pointer is found.
    pub unsafe fn usable_size_at(ptr: *const u8, site: SiteId) -> usize {
        let header: Option<Option<Header>> = {
            let _walk = live::WALK.lock();
            // SAFETY: the block is pinned.
            live::pin(ptr.addr()).map(|pin| unsafe { header::read(pin.payload) })
        };
        match header {
            Some(Some(header)) => return header.size,
            Some(None) => allokit_track::fault::damaged(Operation::UsableSize, ptr, site),
            None => match stranger::<B>(ptr) {
                // SAFETY: it is theirs.
                Some(others) => return unsafe { (others.usable_size)(ptr) },
                None => wrong(Operation::UsableSize, ptr, site),
            },
        }
        0
    }

    /// The tracker's figures and the backend's.
    pub fn stats(stats: &mut Stats) {
        Tracked::<B>::stats_of_headers(stats);
    }
}

// SAFETY: the backend keeps the contract; the payload is inside its block, aligned as asked for.
unsafe impl<B: Backend> Backend for Guarded<B> {
    const NAME: &'static str = B::NAME;

    fn alloc(size: usize) -> *mut u8 {
        Self::alloc_at(size, SiteId::UNKNOWN)
    }

    fn alloc_zeroed(size: usize) -> *mut u8 {
        Self::alloc_zeroed_at(size, SiteId::UNKNOWN)
    }

    fn alloc_aligned(size: usize, align: usize) -> *mut u8 {
        Self::alloc_aligned_at(size, align, SiteId::UNKNOWN)
    }

    fn alloc_aligned_zeroed(size: usize, align: usize) -> *mut u8 {
        Self::alloc_aligned_zeroed_at(size, align, SiteId::UNKNOWN)
    }

    unsafe fn realloc(ptr: *mut u8, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { Self::realloc_at(ptr, size, SiteId::UNKNOWN) }
    }

    unsafe fn realloc_aligned(ptr: *mut u8, size: usize, align: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { Self::realloc_aligned_at(ptr, size, align, SiteId::UNKNOWN) }
    }

    unsafe fn free(ptr: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { Self::free_at(ptr, SiteId::UNKNOWN) }
    }

    unsafe fn free_sized(ptr: *mut u8, size: usize) {
        // SAFETY: the caller's promise.
        unsafe { Self::free_sized_at(ptr, size, SiteId::UNKNOWN) }
    }

    unsafe fn usable_size(ptr: *const u8) -> usize {
        // SAFETY: the caller's promise.
        unsafe { Self::usable_size_at(ptr, SiteId::UNKNOWN) }
    }

    fn stats(stats: &mut Stats) {
        Guarded::<B>::stats(stats);
    }

    fn owns(ptr: *const u8) -> Option<bool> {
        B::owns(ptr)
    }

    fn trim() -> bool {
        B::trim()
    }

    fn write_own_stats(out: &mut dyn fmt::Write) -> fmt::Result {
        B::write_own_stats(out)
    }
}

/// In the order in which they nest; outside tracking's.
fn locks() -> [&'static Lock; 2] {
    [quarantine::lock(), space::lock()]
}

unsafe extern "C" fn before_fork() {
    locks().iter().for_each(|lock| lock.lock_raw());
}

unsafe extern "C" fn after_fork() {
    locks().iter().rev().for_each(|lock| lock.unlock_raw());
}

unsafe extern "C" fn after_fork_in_child() {
    // SAFETY: the child has one thread, which holds the locks since `before_fork`.
    unsafe { after_fork() };
    quarantine::after_fork_in_child();
}
