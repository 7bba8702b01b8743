//! Blocks that libc's own malloc has handed out, and that come here to be freed: from a library that was opened with
//! RTLD_DEEPBIND, or from before this library was bound. They go back to libc.

use allokit_core::{Backend, Others};
use allokit_platform::errno;
#[cfg(feature = "guard")]
use allokit_platform::peek;
use allokit_platform::symbol::{self, Where};
#[cfg(feature = "track")]
use allokit_platform::unwind::Here;
use allokit_platform::weak_symbol;
#[cfg(feature = "track")]
use allokit_select::Kinded;
use allokit_select::Selected;
#[cfg(feature = "track")]
use allokit_select::api::{Kind, Origin, Source};
use core::ffi::c_void;
#[cfg(feature = "guard")]
use core::sync::atomic::{AtomicUsize, Ordering};
use core::{mem, ptr};

weak_symbol! { fn libc_free = "__libc_free": unsafe extern "C" fn(*mut c_void); }
weak_symbol! { fn libc_realloc = "__libc_realloc": unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void; }

static OTHERS: Others = Others { know_their_own: false, free, realloc, usable_size };

/// Has the backend hand libc's blocks over, where it can tell them from its own.
pub(crate) fn install() {
    Selected::set_others(&OTHERS);
    #[cfg(feature = "guard")]
    {
        FIRST_BREAK.store(peek::program_break(), Ordering::Relaxed);
        allokit_select::set_stranger(&OTHERS, is_libcs);
    }
}

#[cfg(feature = "guard")]
static FIRST_BREAK: AtomicUsize = AtomicUsize::new(0);

/// Whether a pointer that is none of ours looks like a block of libc's: in its first heap, or with a header before it that
/// says that it is a mapping of its own, or of the heap of a thread, as it is in glibc. The guarding layer must not hand
/// it every wrong pointer.
#[cfg(feature = "guard")]
fn is_libcs(addr: usize) -> bool {
    const IS_MAPPED: usize = 2;
    const OF_A_THREAD: usize = 4;
    const HEAP: usize = 64 << 20;
    if !addr.is_multiple_of(16) {
        return false;
    }
    let Some([before, size]) = peek::words(addr - 16) else { return false };
    let bytes = size & !7;
    if !(32..1 << 46).contains(&bytes) || !bytes.is_multiple_of(16) {
        return false;
    }
    let first = FIRST_BREAK.load(Ordering::Relaxed);
    if (first..peek::program_break()).contains(&addr) {
        return true;
    }
    if size & IS_MAPPED != 0 {
        return (addr - 16 - before).is_multiple_of(4096) && (before + bytes).is_multiple_of(4096);
    }
    // A thread's heap begins with the address of its arena, which lies in such a heap too.
    size & OF_A_THREAD != 0
        && peek::words(addr & !(HEAP - 1))
            .is_some_and(|[arena, _]| arena.is_multiple_of(8) && arena % HEAP < 4096 && arena >= HEAP)
}

unsafe fn free(ptr: *mut u8) {
    // A libc without the name: the block is lost, which is better than the program's end.
    if let Some(libc_free) = libc_free() {
        // SAFETY: the caller's promise: a block of libc's. (It ends the program when it is nobody's.)
        unsafe { libc_free(ptr.cast()) }
    }
}

unsafe fn realloc(ptr: *mut u8, size: usize) -> *mut u8 {
    match libc_realloc() {
        // SAFETY: as above.
        Some(libc_realloc) => unsafe { libc_realloc(ptr.cast(), size) }.cast(),
        None => {
            errno::set(errno::ENOMEM);
            ptr::null_mut()
        }
    }
}

unsafe fn usable_size(ptr: *const u8) -> usize {
    let address = symbol::find(Where::Next, c"malloc_usable_size");
    if address.is_null() {
        return 0;
    }
    // SAFETY: libc's function of this name has this type; the block is libc's.
    unsafe {
        let ask: unsafe extern "C" fn(*const c_void) -> usize = mem::transmute(address);
        ask(ptr.cast())
    }
}

/// The tracking layer for a call from somewhere; it would take libc's blocks for wrong pointers.
#[cfg(feature = "track")]
#[derive(Clone, Copy)]
pub(crate) struct Watched(pub(crate) Origin, pub(crate) Kind, pub(crate) Here);

#[cfg(feature = "track")]
impl Watched {
    #[inline(always)]
    fn layer(self) -> Kinded {
        Kinded(self.0, self.1, self.2)
    }
}

/// (The guarding layer asks by itself, before it reports: see [`install`].)
#[cfg(feature = "track")]
#[inline(always)]
fn is_foreign(ptr: *const u8) -> bool {
    !allokit_select::api::GUARD && Selected::owns(ptr) == Some(false)
}

// SAFETY: the tracking layer keeps the contract, and for blocks of libc's, libc.
#[cfg(feature = "track")]
unsafe impl Source for Watched {
    #[inline]
    fn alloc(self, size: usize) -> *mut u8 {
        self.layer().alloc(size)
    }
    #[inline]
    fn alloc_zeroed(self, size: usize) -> *mut u8 {
        self.layer().alloc_zeroed(size)
    }
    fn alloc_aligned(self, size: usize, align: usize) -> *mut u8 {
        self.layer().alloc_aligned(size, align)
    }
    fn alloc_aligned_zeroed(self, size: usize, align: usize) -> *mut u8 {
        self.layer().alloc_aligned_zeroed(size, align)
    }
    #[inline]
    unsafe fn realloc(self, ptr: *mut u8, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { if is_foreign(ptr) { realloc(ptr, size) } else { self.layer().realloc(ptr, size) } }
    }
    unsafe fn realloc_aligned(self, ptr: *mut u8, size: usize, align: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.layer().realloc_aligned(ptr, size, align) }
    }
    #[inline]
    unsafe fn free(self, ptr: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe {
            if is_foreign(ptr) {
                allokit_platform::keep_errno(|| free(ptr));
            } else {
                self.layer().free(ptr);
            }
        }
    }
    #[inline]
    unsafe fn free_sized(self, ptr: *mut u8, size: usize) {
        // SAFETY: the caller's promise.
        unsafe { if is_foreign(ptr) { self.free(ptr) } else { self.layer().free_sized(ptr, size) } }
    }
    unsafe fn usable_size(self, ptr: *const u8) -> usize {
        // SAFETY: the caller's promise.
        unsafe { if is_foreign(ptr) { usable_size(ptr) } else { self.layer().usable_size(ptr) } }
    }
}
