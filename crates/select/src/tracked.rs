//! The tracking layer as a source of the C rules: each [`Origin`] becomes the number of a call site.

use crate::Selected;
use crate::api::{Origin, Source};
use allokit_core::{Backend, Fault, FaultKind, Stats};
use allokit_platform::{errno, handler, stderr::Stderr};
use allokit_report::fault;
use allokit_track::{Leaks, Since, SiteId, Tracked, sites};
use core::ffi::{CStr, c_char};

type Layer = Tracked<Selected>;

/// Before the first tracked allocation.
pub(crate) fn start() {
    Layer::start();
}

/// The tracker's figures and the backend's.
pub(crate) fn stats(stats: &mut Stats) {
    Layer::stats(stats);
}

/// See [`crate::leaks::print`].
pub(crate) fn leaks_print() -> usize {
    let leaks = Leaks::take(Since::Start);
    // Stderr never fails.
    let _ = leaks.write(&mut Stderr::new(), None);
    leaks.blocks as usize
}

/// See [`crate::leaks::mark`].
pub(crate) fn mark() {
    allokit_track::mark();
}

/// See [`crate::leaks::assert_balanced`].
pub(crate) fn assert_balanced(context: &CStr) -> bool {
    let leaks = Leaks::take(Since::Mark);
    if leaks.blocks == 0 {
        return true;
    }
    let tell = |policy| {
        for row in leaks.rows() {
            handler::call(&Fault {
                policy: policy as u32,
                size: row.bytes as usize,
                count: row.blocks,
                allocated: row.site.place(),
                context: context.as_ptr(),
                ..Fault::new(FaultKind::Leak)
            });
        }
    };
    fault::act(tell, |out| leaks.write(out, Some(&context.to_str().unwrap_or("(not UTF-8)"))));
    false
}

impl Origin {
    #[inline(always)]
    fn site(self) -> SiteId {
        // SAFETY: whoever made the origin vouches for its texts: the C caller, by alloc.h.
        unsafe {
            match self {
                Origin::Site(record) => sites::of_record(record),
                Origin::At(file, line) => sites::of_place(file, line),
                Origin::Caller(address) => sites::of_caller(address),
            }
        }
    }
}

// SAFETY: the tracking layer keeps the contract.
unsafe impl Source for Origin {
    #[inline]
    fn alloc(self, size: usize) -> *mut u8 {
        Layer::alloc_at(size, self.site())
    }
    #[inline]
    fn alloc_zeroed(self, size: usize) -> *mut u8 {
        Layer::alloc_zeroed_at(size, self.site())
    }
    fn alloc_aligned(self, size: usize, align: usize) -> *mut u8 {
        Layer::alloc_aligned_at(size, align, self.site())
    }
    fn alloc_aligned_zeroed(self, size: usize, align: usize) -> *mut u8 {
        Layer::alloc_aligned_zeroed_at(size, align, self.site())
    }
    #[inline]
    unsafe fn realloc(self, ptr: *mut u8, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { Layer::realloc_at(ptr, size, self.site()) }
    }
    unsafe fn realloc_aligned(self, ptr: *mut u8, size: usize, align: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { Layer::realloc_aligned_at(ptr, size, align, self.site()) }
    }
    #[inline]
    unsafe fn free(self, ptr: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { Layer::free_at(ptr, self.site()) }
    }
    #[inline]
    unsafe fn free_sized(self, ptr: *mut u8, size: usize) {
        // SAFETY: the caller's promise.
        unsafe { Layer::free_sized_at(ptr, size, self.site()) }
    }
    unsafe fn usable_size(self, ptr: *const u8) -> usize {
        // SAFETY: the caller's promise.
        unsafe { Layer::usable_size_at(ptr, self.site()) }
    }
    #[cold]
    fn impossible(self) -> *mut u8 {
        let (operation, now) = (c"alloc".as_ptr(), self.site().place());
        fault::tell(&Fault { operation, size: usize::MAX, now, ..Fault::new(FaultKind::OutOfMemory) });
        errno::set(errno::ENOMEM);
        core::ptr::null_mut()
    }
}

/// Memory for an arena and the like, attributed to the place that made it.
pub(crate) fn take(number: u32, size: usize, align: usize) -> *mut u8 {
    let site = SiteId::from_number(number);
    if align <= allokit_core::MIN_ALIGN {
        Layer::alloc_at(size, site)
    } else {
        Layer::alloc_aligned_at(size, align, site)
    }
}

/// Gives it back.
///
/// # Safety
/// `ptr` came from [`take`] with this size.
pub(crate) unsafe fn give(number: u32, ptr: *mut u8, size: usize) {
    // SAFETY: the caller's promise.
    unsafe { Layer::free_sized_at(ptr, size, SiteId::from_number(number)) }
}

/// The number of a place, for [`take`].
///
/// # Safety
/// `file` is null or zero-terminated.
pub(crate) unsafe fn number_of(file: *const c_char, line: u32) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { sites::of_place(file, line) }.number()
}
