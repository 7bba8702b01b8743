//! Tracking: which call site has which blocks, exactly, and which frees are wrong. A layer over any backend.
//!
//! Owns: [`Tracked`], the sites, the stacks ([`stacks`]), the map of live blocks, the threads' counts. Uses: `allokit-core`, `allokit-platform`,
//! `allokit-report`. One state for the process.
//!
//! How, where the backend keeps a tag beside a block (`Backend::TAGS`): the tag says whose it is, and the backend finds
//! live blocks by walking its pages; nothing more is done for an allocation. So tracking may begin and end while the program
//! runs.
//!
//! How, elsewhere: 16 bytes before each payload say whose it is (`header`); a map outside the heap says which addresses are live
//! payload starts (`live`); each thread counts for itself (`threads`). A wrong pointer is found by the map, so no freed
//! or foreign memory is ever read. Live counts and bytes per site come from walking the map, not from counters.
//!
//! Invariants: an address is live in the map exactly while its block is the program's; whoever takes it out of the map
//! (`live::take`) alone may free, resize or rewrite it; the header is written before the address becomes live. A block
//! that is not live is never touched. Nothing here allocates from the backend for itself.
#![no_std]

#[cfg(test)]
extern crate std;

// `fault`, `header`, `live` and `threads` are public for allokit-guard, whose blocks have the same headers in the same map.
#[doc(hidden)]
#[allow(missing_docs)]
pub mod fault;
pub mod growth;
#[doc(hidden)]
#[allow(missing_docs)]
pub mod header;
mod leaks;
#[doc(hidden)]
#[allow(missing_docs)]
pub mod live;
mod means;
mod profile;
pub mod sites;
mod snapshot;
mod spread;
pub mod stacks;
#[doc(hidden)]
#[allow(missing_docs)]
pub mod threads;

#[cfg(test)]
mod tests;

pub use leaks::{Leaks, Since, SiteCount, check, mark};
pub use profile::{write_folded, write_json, write_pprof};
pub use sites::SiteId;
pub use snapshot::{Diff, Snapshot};

use allokit_core::{Backend, Found, Known, MIN_ALIGN, Stats, Tag, Tagged};
use allokit_platform::{Lock, errno, fork};
use core::fmt;
use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};
use fault::Operation;
use header::Header;

/// A backend whose blocks are tracked. The functions with `_at` take the call site; those of [`Backend`] have none.
///
/// `usable_size` is exactly the size asked for, so that nobody is invited to write into slack that a resize would lose.
#[derive(Debug)]
pub struct Tracked<B>(PhantomData<B>);

#[cold]
fn out_of_memory(size: usize, site: SiteId) -> *mut u8 {
    fault::no_memory(size, site);
    errno::set(errno::ENOMEM);
    ptr::null_mut()
}

/// What the backend is asked for: the payload starts `offset` bytes into it. At least 32 bytes in all, so that payload
/// starts are at least that far apart. `None` when it is too much.
#[inline(always)]
fn gross(size: usize, offset: usize) -> Option<usize> {
    if size > header::MAX_SIZE { None } else { Some(size.max(MIN_ALIGN) + offset) }
}

/// Makes the backend's block a tracked one: header and map. False, with nothing done, without memory.
///
/// # Safety
/// The block is the caller's and holds `header.offset + header.size` bytes; `payload` is `header.offset` bytes into it.
#[inline(always)]
unsafe fn publish(payload: *mut u8, header: Header) -> bool {
    // SAFETY: the 16 bytes before the payload are in the block, since `offset` is 16 at least.
    unsafe { header::write(payload, header) };
    live::mark(payload)
}

/// Takes a block out of the map and reads its header; reports the fault when it is no live block, or a damaged one.
#[inline(always)]
fn take(ptr: *mut u8, operation: Operation, site: SiteId) -> Option<Header> {
    if !live::take(ptr) {
        fault::wrong_pointer(operation, ptr, site);
        return None;
    }
    // SAFETY: the block was live and is ours alone now.
    let header = unsafe { header::read(ptr) };
    if header.is_none() {
        live::put_back(ptr);
        fault::damaged(operation, ptr, site);
    }
    header
}

impl<B: Backend> Tracked<B> {
    /// To be called before the first allocation; later calls do nothing. Makes the backend ready and keeps the tracker
    /// whole in forked children. The earlier the better: a fork that has begun does not run handlers that are new.
    pub fn start() {
        if B::TAGS {
            means::ask::<B>();
        }
        Self::start_with_headers();
    }

    /// As [`Tracked::start`], for a layer that writes headers whatever the backend keeps.
    #[doc(hidden)]
    pub fn start_with_headers() {
        static STARTED: AtomicBool = AtomicBool::new(false);
        static STARTING: Lock = Lock::new();
        let _guard = STARTING.lock();
        if STARTED.swap(true, Ordering::Relaxed) {
            return;
        }
        let block = B::alloc(1);
        if !block.is_null() {
            // The backend's fork handlers are registered by now: ours, registered later, take their locks first, as
            // everywhere else where both are held.
            // SAFETY: the block is live.
            unsafe { B::free(block) };
        }
        fork::register(before_fork, after_fork, after_fork_in_child);
    }

    /// [`Backend::stats`] for such a layer.
    #[doc(hidden)]
    pub fn stats_of_headers(stats: &mut Stats) {
        fill(stats, threads::totals(), B::stats);
    }

    /// A block for a call site if one is at hand; null says nothing but that the caller must take the long way.
    #[inline(always)]
    #[must_use]
    pub fn alloc_at_hand_at(size: usize, site: SiteId) -> *mut u8 {
        B::alloc_tagged_at_hand(size, header::live().with_site(site.0))
    }

    /// Frees a block if that is done at once; false says nothing but that the caller must take the long way.
    ///
    /// # Safety
    /// As [`Tracked::free_at`], except that `ptr` may be null.
    #[inline(always)]
    #[must_use]
    pub unsafe fn free_at_hand_at(ptr: *mut u8, site: SiteId) -> bool {
        // SAFETY: the caller's promise.
        unsafe { B::free_tagged_at_hand(ptr, site.0) }
    }

    /// A block with a tag, where the backend keeps those.
    #[inline(always)]
    fn alloc_tagged(size: usize, align: usize, zeroed: bool, site: SiteId) -> *mut u8 {
        let block = B::alloc_tagged(size, align, zeroed, header::live().with_site(site.0));
        if block.is_null() { out_of_memory(size, site) } else { block }
    }

    /// [`Tracked::realloc_at`], where the backend keeps tags.
    ///
    /// # Safety
    /// As there.
    unsafe fn realloc_tagged(ptr: *mut u8, size: usize, align: usize, site: SiteId) -> *mut u8 {
        // SAFETY: the caller's promise; both blocks are live and hold what is copied.
        unsafe {
            let (tag, old) = match B::tagged_at(ptr) {
                Found::Tagged(Tagged { tag, size, .. }) => (Tag::live(tag.stretch()).with_site(site.0), size),
                Found::Plain => (header::live().with_site(site.0), B::usable_size(ptr)),
                Found::Wrong => {
                    fault::wrong_pointer(Operation::Realloc, ptr, site);
                    return wrong_realloc();
                }
            };
            if align <= MIN_ALIGN {
                let same = B::resize_tagged(ptr, size, tag);
                if !same.is_null() {
                    return same;
                }
            }
            let block = B::alloc_tagged(size, align, false, tag);
            if block.is_null() {
                return out_of_memory(size, site);
            }
            block.copy_from_nonoverlapping(ptr, old.min(size));
            B::free_tagged(ptr, site.0);
            block
        }
    }

    /// [`Backend::alloc`] for a call site.
    #[inline]
    pub fn alloc_at(size: usize, site: SiteId) -> *mut u8 {
        if B::TAGS {
            return Self::alloc_tagged(size, MIN_ALIGN, false, site);
        }
        let Some(gross) = gross(size, header::SIZE) else { return out_of_memory(size, site) };
        Self::finish(B::alloc(gross), header::SIZE, size, site)
    }

    /// [`Backend::alloc_zeroed`] for a call site.
    #[inline]
    pub fn alloc_zeroed_at(size: usize, site: SiteId) -> *mut u8 {
        if B::TAGS {
            return Self::alloc_tagged(size, MIN_ALIGN, true, site);
        }
        let Some(gross) = gross(size, header::SIZE) else { return out_of_memory(size, site) };
        Self::finish(B::alloc_zeroed(gross), header::SIZE, size, site)
    }

    /// [`Backend::alloc_aligned`] for a call site.
    pub fn alloc_aligned_at(size: usize, align: usize, site: SiteId) -> *mut u8 {
        if B::TAGS {
            return Self::alloc_tagged(size, align, false, site);
        }
        let offset = align.max(header::SIZE);
        let Some(gross) = gross(size, offset) else { return out_of_memory(size, site) };
        Self::finish(B::alloc_aligned(gross, offset), offset, size, site)
    }

    /// [`Backend::alloc_aligned_zeroed`] for a call site.
    pub fn alloc_aligned_zeroed_at(size: usize, align: usize, site: SiteId) -> *mut u8 {
        if B::TAGS {
            return Self::alloc_tagged(size, align, true, site);
        }
        let offset = align.max(header::SIZE);
        let Some(gross) = gross(size, offset) else { return out_of_memory(size, site) };
        Self::finish(B::alloc_aligned_zeroed(gross, offset), offset, size, site)
    }

    #[inline(always)]
    fn finish(base: *mut u8, offset: usize, size: usize, site: SiteId) -> *mut u8 {
        if base.is_null() {
            return out_of_memory(size, site);
        }
        // SAFETY: the block holds `offset` bytes and then `size`.
        unsafe {
            let payload = base.add(offset);
            if !publish(payload, Header { site: site.0, epoch: header::epoch(), offset, size }) {
                B::free(base);
                return out_of_memory(size, site);
            }
            threads::on_alloc(size);
            payload
        }
    }

    /// [`Backend::free`] for a call site; a wrong pointer is reported and left alone.
    ///
    /// # Safety
    /// Unless the pointer is found to be wrong, as [`Backend::free`].
    #[inline]
    pub unsafe fn free_at(ptr: *mut u8, site: SiteId) {
        if B::TAGS {
            // SAFETY: the caller's promise.
            if unsafe { B::free_tagged(ptr, site.0) } == Found::Wrong {
                fault::wrong_pointer(Operation::Free, ptr, site);
            }
            return;
        }
        let Some(header) = take(ptr, Operation::Free, site) else { return };
        // SAFETY: the block was live and is ours now.
        unsafe { Self::release(ptr, &header, site) }
    }

    /// [`Backend::free_sized`] for a call site; a wrong size is reported, and the block freed with its own.
    ///
    /// # Safety
    /// As [`Tracked::free_at`].
    #[inline]
    pub unsafe fn free_sized_at(ptr: *mut u8, size: usize, site: SiteId) {
        if B::TAGS {
            // SAFETY: the caller's promise.
            match unsafe { B::free_tagged(ptr, site.0) } {
                Found::Tagged(block) if block.size != size => {
                    fault::wrong_size(ptr, size, block.size, block.tag.site(), site);
                }
                Found::Wrong => fault::wrong_pointer(Operation::Free, ptr, site),
                _ => {}
            }
            return;
        }
        let Some(header) = take(ptr, Operation::Free, site) else { return };
        if header.size != size {
            fault::wrong_size(ptr, size, header.size, header.site, site);
        }
        // SAFETY: as above.
        unsafe { Self::release(ptr, &header, site) }
    }

    /// # Safety
    /// The block was taken out of the map by the caller.
    #[inline(always)]
    unsafe fn release(ptr: *mut u8, header: &Header, site: SiteId) {
        threads::on_free(ptr.addr(), freed(header, site));
        // SAFETY: the backend's block starts `offset` bytes before the payload and is as large as it was asked for.
        unsafe { B::free_sized(ptr.sub(header.offset), header.size.max(MIN_ALIGN) + header.offset) }
    }

    /// [`Backend::realloc`] for a call site, which becomes the block's; for [`Since::Mark`] the block stays as old as it
    /// is. A wrong pointer is reported: null and EINVAL.
    ///
    /// # Safety
    /// Unless the pointer is found to be wrong, as [`Backend::realloc`].
    pub unsafe fn realloc_at(ptr: *mut u8, size: usize, site: SiteId) -> *mut u8 {
        if B::TAGS {
            // SAFETY: the caller's promise.
            return unsafe { Self::realloc_tagged(ptr, size, MIN_ALIGN, site) };
        }
        let Some(gross) = gross(size, header::SIZE) else { return out_of_memory(size, site) };
        let Some(header) = take(ptr, Operation::Realloc, site) else { return wrong_realloc() };
        if header.offset != header::SIZE || !live::have_reserve() {
            // The backend would keep the offset, and its slack; or there might be no memory to make the moved block
            // live. A new block can fail cleanly.
            // SAFETY: the block is ours, and the new one holds `size` bytes.
            return unsafe { Self::move_to(ptr, &header, Self::new_block(size, header::SIZE), size, site) };
        }
        // SAFETY: the block is ours; it is the backend's at 16 bytes before.
        unsafe {
            let base = B::realloc(ptr.sub(header::SIZE), gross);
            if base.is_null() {
                live::put_back(ptr);
                return out_of_memory(size, site);
            }
            // If it has moved, another thread may have the old address already: it is not touched any more.
            let payload = base.add(header::SIZE);
            header::write(payload, Header { site: site.0, size, ..header });
            live::mark_surely(payload);
            threads::on_realloc(ptr.addr(), freed(&header, site), size, payload.addr() != ptr.addr());
            payload
        }
    }

    /// [`Backend::realloc_aligned`] for a call site, as [`Tracked::realloc_at`].
    ///
    /// # Safety
    /// As [`Tracked::realloc_at`].
    pub unsafe fn realloc_aligned_at(ptr: *mut u8, size: usize, align: usize, site: SiteId) -> *mut u8 {
        if B::TAGS {
            // SAFETY: the caller's promise.
            return unsafe { Self::realloc_tagged(ptr, size, align, site) };
        }
        let offset = align.max(header::SIZE);
        if gross(size, offset).is_none() {
            return out_of_memory(size, site);
        }
        let Some(header) = take(ptr, Operation::Realloc, site) else { return wrong_realloc() };
        // SAFETY: the block is ours, and the new one holds `size` bytes.
        unsafe { Self::move_to(ptr, &header, Self::new_block(size, offset), size, site) }
    }

    /// The payload of a new block, not published yet, or null.
    fn new_block(size: usize, offset: usize) -> (*mut u8, usize) {
        let Some(gross) = gross(size, offset) else { return (ptr::null_mut(), offset) };
        let base = if offset == header::SIZE { B::alloc(gross) } else { B::alloc_aligned(gross, offset) };
        // SAFETY: the block holds `offset` bytes and then `size`.
        (if base.is_null() { base } else { unsafe { base.add(offset) } }, offset)
    }

    /// Moves a taken block into a new one; the old one is live again when that fails.
    ///
    /// # Safety
    /// The old block was taken by the caller; the new one is null or not published and holds `size` bytes.
    unsafe fn move_to(
        old: *mut u8,
        header: &Header,
        (new, offset): (*mut u8, usize),
        size: usize,
        site: SiteId,
    ) -> *mut u8 {
        // SAFETY: the caller's promise; the blocks are distinct, and both hold the bytes copied.
        unsafe {
            if new.is_null() {
                live::put_back(old);
                return out_of_memory(size, site);
            }
            new.copy_from_nonoverlapping(old, header.size.min(size));
            if !publish(new, Header { site: site.0, offset, size, ..*header }) {
                B::free(new.sub(offset));
                live::put_back(old);
                return out_of_memory(size, site);
            }
            threads::on_realloc(old.addr(), freed(header, site), size, true);
            B::free_sized(old.sub(header.offset), header.size.max(MIN_ALIGN) + header.offset);
            new
        }
    }

    /// [`Backend::usable_size`] for a call site; 0 for a wrong pointer, which is reported.
    ///
    /// # Safety
    /// None: a wrong pointer is found. (That another thread does not free the block meanwhile is up to the caller.)
    pub unsafe fn usable_size_at(ptr: *const u8, site: SiteId) -> usize {
        if B::TAGS {
            return match B::tagged_at(ptr) {
                Found::Tagged(block) => block.size,
                // SAFETY: the caller's promise.
                Found::Plain => unsafe { B::usable_size(ptr) },
                Found::Wrong => {
                    fault::wrong_pointer(Operation::UsableSize, ptr, site);
                    0
                }
            };
        }
        let header = {
            let _walk = live::WALK.lock();
            // SAFETY: the block is pinned.
            live::pin(ptr.addr()).map(|pin| unsafe { header::read(pin.payload) })
        };
        match header {
            Some(Some(header)) => return header.size,
            Some(None) => fault::damaged(Operation::UsableSize, ptr, site),
            None => fault::wrong_pointer(Operation::UsableSize, ptr, site),
        }
        0
    }
}

/// The backend's figures, and what was counted.
fn fill(stats: &mut Stats, totals: threads::Totals, of_backend: fn(&mut Stats)) {
    of_backend(stats);
    stats.alloc_count = totals.alloc_count;
    stats.free_count = totals.free_count;
    stats.alloc_bytes = totals.alloc_bytes;
    stats.free_bytes = totals.free_bytes;
    stats.current_bytes = totals.alloc_bytes.saturating_sub(totals.free_bytes);
    stats.peak_bytes = totals.peak_bytes;
    stats.known |= Known::ALLOC_COUNT | Known::FREE_COUNT | Known::ALLOC_BYTES | Known::FREE_BYTES;
    stats.known |= Known::CURRENT_BYTES | Known::PEAK_BYTES;
    if !stats.known.has(Known::THREADS) {
        stats.threads = totals.threads;
        stats.known |= Known::THREADS;
    }
}

/// The counts of blocks with tags; the threads are the backend's to know.
fn tagged_totals<B: Backend>() -> threads::Totals {
    let totals = B::tagged_totals();
    threads::Totals {
        alloc_count: totals.allocs,
        alloc_bytes: totals.alloc_bytes,
        free_count: totals.frees,
        free_bytes: totals.free_bytes,
        peak_bytes: totals.peak_bytes,
        threads: 0,
    }
}

/// What is remembered of a block with this header that is freed at `site`.
#[inline(always)]
fn freed(header: &Header, site: SiteId) -> threads::Freed {
    threads::Freed { size: header.size, allocated_at: header.site, freed_at: site.0 }
}

#[cold]
fn wrong_realloc() -> *mut u8 {
    errno::set(errno::EINVAL);
    ptr::null_mut()
}

// SAFETY: the backend keeps the contract; the payload is inside its block, aligned like it (the offset is a power of two
// and at least the alignment), and a zero size still has 16 bytes of its own.
unsafe impl<B: Backend> Backend for Tracked<B> {
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
        fill(stats, if B::TAGS { tagged_totals::<B>() } else { threads::totals() }, B::stats);
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

/// The locks in the order in which they nest. Metadata memory has a lock of its own inside these: the tracker asks for
/// memory only under one of them, so it needs none here.
fn locks() -> [&'static Lock; 6] {
    [growth::lock(), &live::WALK, threads::lock(), sites::lock(), stacks::lock(), live::map_lock()]
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
    threads::after_fork_in_child();
}
