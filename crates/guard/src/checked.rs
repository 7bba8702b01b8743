//! Copies that stay in their blocks: what `memcpy` and its family ask before they begin, in the preload library and for
//! `ak_memcpy` and its family.
//!
//! Of an address in no block nothing is said, except where it certainly is heap memory that nobody has.

use crate::fault::{self, Copy};
use crate::switches::Check;
use crate::{LARGE, SiteId, block, space};
use allokit_core::{Backend, FaultKind};
use allokit_track::{header, live};
use core::ffi::CStr;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

static ON: AtomicBool = AtomicBool::new(false);
/// Whether the backend owns an address.
static OWNS: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// How far before an address its block can begin: as far as the largest of the backend's blocks is long.
static REACH: AtomicUsize = AtomicUsize::new(LARGE);

/// A block of the backend that is larger than they should be.
#[cold]
pub(crate) fn reach(size: usize) {
    REACH.fetch_max(size, Ordering::Relaxed);
}

type Owns = fn(*const u8) -> Option<bool>;

pub(crate) fn begin<B: Backend>() {
    if Check::Copy.is_on() {
        let owns: Owns = B::owns;
        OWNS.store(owns as *mut (), Ordering::Relaxed);
        ON.store(true, Ordering::Release);
    }
}

fn is_heap(addr: usize) -> bool {
    let owns = OWNS.load(Ordering::Relaxed);
    if owns.is_null() {
        return false;
    }
    // SAFETY: set to a function of this type.
    let owns: Owns = unsafe { core::mem::transmute(owns) };
    owns(ptr::without_provenance(addr)) == Some(true)
}

/// How many of `bytes` from `addr` on may be read or written; reports when that is not all.
#[inline(always)]
pub fn room(
    function: &'static CStr,
    writes: bool,
    addr: *const u8,
    bytes: usize,
    site: impl FnOnce() -> SiteId,
) -> usize {
    let addr = addr.addr();
    if bytes == 0 || !ON.load(Ordering::Relaxed) || !(live::is_used_near(addr) || header::guard::is_elsewhere(addr)) {
        return bytes;
    }
    match look(addr, bytes) {
        Found::Fits => bytes,
        found => tell(function, writes, addr, bytes, found, site()),
    }
}

/// Whether `bytes` from `addr` on may be read or written, as far as that is known.
#[inline(always)]
#[must_use]
pub fn fits(addr: *const u8, bytes: usize) -> bool {
    let addr = addr.addr();
    !(live::is_used_near(addr) || header::guard::is_elsewhere(addr)) || fits_in_heap(addr, bytes)
}

/// Starts of blocks that were found by a long way, by the address: a large block is often copied to again. Whether what is
/// here is a live block that the copy stays in is looked at each time.
static STARTS: [AtomicUsize; 256] = [const { AtomicUsize::new(0) }; 256];

#[inline(never)]
fn fits_in_heap(addr: usize, bytes: usize) -> bool {
    // The usual case, without a look at the checksum.
    if !header::guard::is_elsewhere(addr) {
        let covers = |start: usize| {
            // SAFETY: as in `look`.
            let size = unsafe { block::size_unchecked(ptr::with_exposed_provenance(start)) };
            addr - start <= size && bytes <= size - (addr - start)
        };
        let known = &STARTS[addr / 1024 % STARTS.len()];
        let start = known.load(Ordering::Relaxed);
        if start.wrapping_sub(1) < addr && live::is_live(start) && covers(start) {
            return true;
        }
        if let Some(start) = live::last_start(addr, REACH.load(Ordering::Relaxed))
            && covers(start)
        {
            if addr - start >= 256 {
                known.store(start, Ordering::Relaxed);
            }
            return true;
        }
    }
    bytes == 0 || !ON.load(Ordering::Relaxed) || matches!(look(addr, bytes), Found::Fits)
}

enum Found {
    Fits,
    /// In this block, of which so many bytes are left.
    Short(usize, usize),
    /// In heap memory that is no block.
    Nowhere,
}

#[inline]
fn look(addr: usize, bytes: usize) -> Found {
    if header::guard::is_elsewhere(addr) {
        let Some((start, size)) = space::around(addr) else { return Found::Fits };
        if !live::is_live(start) || addr < start || addr - start > size {
            // Its pages say the rest.
            return Found::Fits;
        }
        return if bytes <= size - (addr - start) { Found::Fits } else { Found::Short(start, size) };
    }
    let Some(start) = live::last_start(addr, REACH.load(Ordering::Relaxed)) else { return outside(addr, bytes) };
    // SAFETY: it was live a moment ago. If it is the block that the program copies to, it is live until that is done; if
    // it is another and is freed just now, it waits in the quarantine.
    let Some((layout, _)) = (unsafe { block::read(ptr::with_exposed_provenance(start)) }) else { return Found::Fits };
    let into = addr - start;
    if into <= layout.size {
        return if bytes <= layout.size - into { Found::Fits } else { Found::Short(start, layout.size) };
    }
    outside(addr, bytes)
}

/// An address in no block.
#[cold]
#[inline(never)]
fn outside(addr: usize, bytes: usize) -> Found {
    let reaches_header = || {
        let end = addr + bytes.min(LARGE) + header::SIZE;
        live::last_start(end, end - addr).is_some_and(|start| start > addr)
    };
    if is_heap(addr) || reaches_header() { Found::Nowhere } else { Found::Fits }
}

#[cold]
#[inline(never)]
fn tell(function: &'static CStr, writes: bool, addr: usize, bytes: usize, found: Found, site: SiteId) -> usize {
    match found {
        Found::Fits => bytes,
        Found::Short(start, size) => {
            // SAFETY: as in `look`.
            let word = unsafe { block::read(ptr::with_exposed_provenance(start)) }.map_or(0, |(_, word)| word);
            let block = Some((start, size, SiteId::from_number(block::site(word))));
            fault::copy(&Copy { function, writes, addr, bytes, block, kind: FaultKind::Overflow }, site);
            size - (addr - start)
        }
        Found::Nowhere => {
            let freed = live::was_freed(addr);
            let kind = if freed { FaultKind::WriteAfterFree } else { FaultKind::Underflow };
            fault::copy(&Copy { function, writes, addr, bytes, block: None, kind }, site);
            0
        }
    }
}
