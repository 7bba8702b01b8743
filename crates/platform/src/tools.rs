//! The tools that watch a program's memory: AddressSanitizer, when the program was built with it, and valgrind, when it
//! runs under it. Neither needs to be there.

use core::ffi::c_void;

crate::weak_symbol! {
    fn asan_poison = "__asan_poison_memory_region": unsafe extern "C" fn(*const c_void, usize);
}
crate::weak_symbol! {
    fn asan_unpoison = "__asan_unpoison_memory_region": unsafe extern "C" fn(*const c_void, usize);
}

// The numbers of valgrind.h and memcheck.h: a protocol, kept for good.
const RUNNING: usize = 0x1001;
const MEMCHECK: usize = (b'M' as usize) << 24 | (b'C' as usize) << 16;
const NO_ACCESS: usize = MEMCHECK;
const UNDEFINED: usize = MEMCHECK + 1;
const DEFINED: usize = MEMCHECK + 2;

/// Asks valgrind; 0 without it. The instructions change nothing on a processor.
#[inline(never)]
fn valgrind(request: usize, a: usize, b: usize) -> usize {
    let arguments = [request, a, b, 0, 0, 0];
    let mut answer = 0usize;
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: rotations of a register by 64 in all and an exchange with itself: valgrind's mark.
    unsafe {
        core::arch::asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") arguments.as_ptr(), inout("rdx") answer, options(nostack),
        );
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!(
            "ror x12, x12, #3", "ror x12, x12, #13", "ror x12, x12, #51", "ror x12, x12, #61", "orr x10, x10, x10",
            in("x4") arguments.as_ptr(), inout("x3") answer, options(nostack),
        );
    }
    let _ = (&arguments, &mut answer);
    answer
}

/// Whether one of them watches.
#[must_use]
pub fn watch() -> bool {
    asan_poison().is_some() && asan_unpoison().is_some() || valgrind(RUNNING, 0, 0) != 0
}

/// Whether valgrind runs the program and keeps a record of each byte that is mapped (memcheck does, callgrind does not).
#[must_use]
pub fn records_each_byte() -> bool {
    // Memcheck alone answers this, with -1.
    valgrind(DEFINED, 0, 0) != 0
}

/// Nobody may touch these bytes.
///
/// # Safety
/// They belong to the caller.
pub unsafe fn hide(place: *mut u8, size: usize) {
    match asan_poison() {
        // SAFETY: the caller's promise.
        Some(poison) => unsafe { poison(place.cast(), size) },
        None => drop(valgrind(NO_ACCESS, place.addr(), size)),
    }
}

/// They may be written, and read once written.
///
/// # Safety
/// As [`hide`].
pub unsafe fn show(place: *mut u8, size: usize) {
    match asan_unpoison() {
        // SAFETY: the caller's promise.
        Some(unpoison) => unsafe { unpoison(place.cast(), size) },
        None => drop(valgrind(UNDEFINED, place.addr(), size)),
    }
}

/// They may be read as they are.
///
/// # Safety
/// As [`hide`].
pub unsafe fn reveal(place: *mut u8, size: usize) {
    match asan_unpoison() {
        // SAFETY: the caller's promise.
        Some(unpoison) => unsafe { unpoison(place.cast(), size) },
        None => drop(valgrind(DEFINED, place.addr(), size)),
    }
}
