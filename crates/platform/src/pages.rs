//! Address space and memory from the system, in OS pages.
//!
//! The life of a stretch: [`reserve`]d (no access, costs nothing), [`commit`]ted (readable and writable, zero, memory on
//! first touch), [`purge`]d (still usable, memory given back, zero again), [`release`]d (gone).

use core::ptr;

/// The size of an OS page in bytes.
#[must_use]
pub fn os_page() -> usize {
    use core::sync::atomic::{AtomicUsize, Ordering};
    static SIZE: AtomicUsize = AtomicUsize::new(0);
    match SIZE.load(Ordering::Relaxed) {
        0 => {
            // SAFETY: sysconf has no precondition.
            let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
            SIZE.store(size, Ordering::Relaxed);
            size
        }
        size => size,
    }
}

/// Whether the process may have only so much address space (RLIMIT_AS): reservations should then be small.
#[must_use]
pub fn space_is_limited() -> bool {
    if cfg!(miri) {
        return false;
    }
    // SAFETY: the struct is valid for writing.
    unsafe {
        let mut limit: libc::rlimit = core::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) == 0 && limit.rlim_cur != libc::RLIM_INFINITY
    }
}

/// What became of a stretch that was to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remapped {
    /// It was.
    Moved,
    /// It is where it was and must be copied; the target has undefined contents.
    Copy,
    /// It is where it was, and the target is no memory any more.
    TargetLost,
}

cfg_if::cfg_if! {
    if #[cfg(miri)] {
        use std::alloc::{Layout, alloc_zeroed, dealloc};
        use crate::std;

        /// As below, over the interpreter's memory.
        pub fn reserve(bytes: usize, align: usize) -> *mut u8 {
            match Layout::from_size_align(bytes, align) {
                // SAFETY: the size is not 0.
                Ok(layout) => unsafe { alloc_zeroed(layout) },
                Err(_) => ptr::null_mut(),
            }
        }

        /// # Safety
        /// As below.
        pub unsafe fn dump(_start: *mut u8, _bytes: usize, _wanted: bool) {}

        /// # Safety
        /// As below.
        pub unsafe fn commit(_start: *mut u8, _bytes: usize) -> bool {
            true
        }

        /// # Safety
        /// As below.
        pub unsafe fn purge(start: *mut u8, bytes: usize) -> bool {
            // SAFETY: the caller's promise.
            unsafe { start.write_bytes(0, bytes) };
            true
        }

        /// # Safety
        /// As below.
        pub unsafe fn revoke(start: *mut u8, bytes: usize) -> bool {
            // SAFETY: the caller's promise.
            unsafe { purge(start, bytes) }
        }

        /// # Safety
        /// As below, and the stretch is whole, as reserved with `align`.
        pub unsafe fn release(start: *mut u8, bytes: usize, align: usize) {
            // SAFETY: the stretch was reserved with this layout.
            unsafe { dealloc(start, Layout::from_size_align_unchecked(bytes, align)) };
        }

        /// # Safety
        /// As below.
        pub unsafe fn advise_huge(_start: *mut u8, _bytes: usize) {}

        /// # Safety
        /// As below.
        pub unsafe fn advise_small(_start: *mut u8, _bytes: usize) {}

        /// As below; not in the interpreter.
        pub fn map_sparse(_bytes: usize) -> *mut u8 {
            ptr::null_mut()
        }

        /// # Safety
        /// As below.
        pub unsafe fn remap(_old: *mut u8, _new: *mut u8, _bytes: usize) -> Remapped {
            Remapped::Copy
        }
    } else {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        const RESERVE_FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        const RESERVE_FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_ANON;

        fn map_none(bytes: usize) -> *mut u8 {
            // SAFETY: a fresh anonymous mapping replaces nothing.
            let start = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_NONE, RESERVE_FLAGS, -1, 0) };
            if start == libc::MAP_FAILED { ptr::null_mut() } else { start.cast() }
        }

        /// Whether pages are in a core dump: all are at first.
        ///
        /// # Safety
        /// The pages are the caller's.
        pub unsafe fn dump(start: *mut u8, bytes: usize, wanted: bool) {
            let _errno = crate::errno::Saved::new();
            #[cfg(any(target_os = "linux", target_os = "android"))]
            // SAFETY: the caller's promise; the contents stay as they are.
            unsafe {
                libc::madvise(start.cast(), bytes, if wanted { libc::MADV_DODUMP } else { libc::MADV_DONTDUMP });
            }
            #[cfg(not(any(target_os = "linux", target_os = "android")))]
            let _ = (start, bytes, wanted);
        }

        /// Reserves `bytes` of address space (a multiple of the OS page) aligned to `align` (a power of two), without
        /// access rights. Null when there is none.
        pub fn reserve(bytes: usize, align: usize) -> *mut u8 {
            let start = map_none(bytes);
            if start.is_null() || start.addr() & (align - 1) == 0 {
                return start;
            }
            // SAFETY: the stretch was just mapped and nobody else knows it.
            unsafe { release(start, bytes, align) };
            let Some(with_slack) = bytes.checked_add(align) else { return ptr::null_mut() };
            let start = map_none(with_slack);
            if start.is_null() {
                return start;
            }
            let before = start.addr().wrapping_neg() & (align - 1);
            // SAFETY: both ends are parts of the fresh mapping outside the aligned stretch.
            unsafe {
                let aligned = start.add(before);
                if before != 0 {
                    release(start, before, align);
                }
                if align - before != 0 {
                    release(aligned.add(bytes), align - before, align);
                }
                aligned
            }
        }

        /// Makes a reserved stretch readable and writable. False when the system refuses; nothing has changed then.
        ///
        /// # Safety
        /// The stretch is whole OS pages inside one reservation.
        pub unsafe fn commit(start: *mut u8, bytes: usize) -> bool {
            // SAFETY: the caller owns the stretch; giving rights invalidates nothing.
            unsafe { libc::mprotect(start.cast(), bytes, libc::PROT_READ | libc::PROT_WRITE) == 0 }
        }

        /// Gives the memory of a committed stretch back; it stays usable and reads as zero. False when the system
        /// refuses (locked pages): the contents are then undefined, not zero.
        ///
        /// # Safety
        /// The stretch is whole OS pages, committed, and nobody needs its contents.
        pub unsafe fn purge(start: *mut u8, bytes: usize) -> bool {
            cfg_if::cfg_if! {
                if #[cfg(any(target_os = "linux", target_os = "android"))] {
                    // SAFETY: private anonymous pages that nobody reads any more; they become zero pages.
                    unsafe { libc::madvise(start.cast(), bytes, libc::MADV_DONTNEED) == 0 }
                } else {
                    // MADV_DONTNEED does not zero elsewhere: a fresh mapping in the same place does.
                    // SAFETY: the caller owns the stretch; MAP_FIXED replaces exactly it.
                    unsafe {
                        libc::mmap(start.cast(), bytes, libc::PROT_READ | libc::PROT_WRITE,
                            RESERVE_FLAGS | libc::MAP_FIXED, -1, 0) != libc::MAP_FAILED
                    }
                }
            }
        }

        /// Undoes [`commit`]: the memory is given back, and any access ends the program. False when the system refuses (the
        /// limit on mappings): the memory is then given back as by [`purge`], as far as that works.
        ///
        /// # Safety
        /// The stretch is whole OS pages, committed, and nobody needs its contents.
        pub unsafe fn revoke(start: *mut u8, bytes: usize) -> bool {
            // SAFETY: the caller owns the stretch; MAP_FIXED replaces exactly it.
            unsafe {
                let flags = RESERVE_FLAGS | libc::MAP_FIXED;
                if libc::mmap(start.cast(), bytes, libc::PROT_NONE, flags, -1, 0) != libc::MAP_FAILED {
                    return true;
                }
                purge(start, bytes);
                false
            }
        }

        /// Gives address space back. Failure (the limit on mappings) leaks it; nothing else changes.
        ///
        /// # Safety
        /// The stretch is whole OS pages of reservations that nobody uses any more.
        pub unsafe fn release(start: *mut u8, bytes: usize, _align: usize) {
            // SAFETY: the caller owns the stretch and nobody uses it.
            unsafe { libc::munmap(start.cast(), bytes) };
        }

        /// Asks for memory of the stretch in huge pages, where the system has them and lets a program ask.
        ///
        /// # Safety
        /// The stretch is whole OS pages inside one reservation of the caller's.
        pub unsafe fn advise_huge(start: *mut u8, bytes: usize) {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            // SAFETY: advice changes no contents. Failure (no huge pages in this kernel) changes nothing.
            unsafe {
                libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE);
            }
            #[cfg(not(any(target_os = "linux", target_os = "android")))]
            let _ = (start, bytes);
        }

        /// Keeps the stretch out of huge pages, where the system would use them by itself.
        ///
        /// # Safety
        /// As for [`advise_huge`].
        pub unsafe fn advise_small(start: *mut u8, bytes: usize) {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            // SAFETY: as above.
            unsafe {
                libc::madvise(start.cast(), bytes, libc::MADV_NOHUGEPAGE);
            }
            #[cfg(not(any(target_os = "linux", target_os = "android")))]
            let _ = (start, bytes);
        }

        /// Readable zeroes of which few will ever be made writable ([`commit`]), for good; null when the system does not
        /// give so much address space. Uses no memory until written, and small pages then.
        pub fn map_sparse(bytes: usize) -> *mut u8 {
            let start = map_none(bytes);
            // SAFETY: the stretch was just mapped and nobody else knows it.
            unsafe {
                #[cfg(any(target_os = "linux", target_os = "android"))]
                if !start.is_null() {
                    libc::madvise(start.cast(), bytes, libc::MADV_NOHUGEPAGE);
                    libc::madvise(start.cast(), bytes, libc::MADV_DONTDUMP);
                }
                if !start.is_null() && libc::mprotect(start.cast(), bytes, libc::PROT_READ) != 0 {
                    release(start, bytes, os_page());
                    return ptr::null_mut();
                }
            }
            start
        }

        /// Moves the memory of `old` to `new` without copying, where that is possible (Linux from 5.7 on); both stay
        /// committed, and `old` reads as zero afterwards.
        ///
        /// # Safety
        /// Both stretches are `bytes` long, whole OS pages, committed, do not overlap, and nobody needs the contents of
        /// `new`.
        pub unsafe fn remap(old: *mut u8, new: *mut u8, bytes: usize) -> Remapped {
            cfg_if::cfg_if! {
                if #[cfg(any(target_os = "linux", target_os = "android"))] {
                    /// Keep the old range mapped, so that nobody else's mapping can land inside our reservation.
                    const MREMAP_DONTUNMAP: i32 = 4;
                    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | MREMAP_DONTUNMAP;
                    // SAFETY: MREMAP_FIXED replaces exactly the stretch at `new`, whose contents nobody needs.
                    let moved = unsafe { libc::mremap(old.cast(), bytes, bytes, flags, new.cast::<libc::c_void>()) };
                    if moved != libc::MAP_FAILED {
                        return Remapped::Moved;
                    }
                    // SAFETY: as for `refill`.
                    if unsafe { refill(new, bytes) } { Remapped::Copy } else { Remapped::TargetLost }
                } else {
                    let _ = (old, new, bytes);
                    Remapped::Copy
                }
            }
        }

        /// Maps memory where a failed mremap has left a hole: before Linux 6.17 it takes the target away first, and then
        /// finds that the old stretch lies in two mappings. False when there is a hole that could not be filled.
        ///
        /// # Safety
        /// The stretch is the caller's.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        #[cold]
        unsafe fn refill(start: *mut u8, bytes: usize) -> bool {
            let rights = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: MAP_FIXED_NOREPLACE replaces nothing; a kernel that does not know it (before 4.17) maps memory
            // elsewhere, which nobody knows of.
            unsafe {
                let flags = RESERVE_FLAGS | libc::MAP_FIXED_NOREPLACE;
                let mapped = libc::mmap(start.cast(), bytes, rights, flags, -1, 0);
                if mapped == libc::MAP_FAILED {
                    return crate::errno::get() == libc::EEXIST;
                }
                if mapped != start.cast() {
                    libc::munmap(mapped, bytes);
                }
                true
            }
        }
    }
}

/// Reserves and commits in one step.
#[must_use]
pub fn map(bytes: usize, align: usize) -> *mut u8 {
    let start = reserve(bytes, align);
    // SAFETY: the stretch was just reserved.
    if !start.is_null() && !unsafe { commit(start, bytes) } {
        // SAFETY: nobody else knows it.
        unsafe { release(start, bytes, align) };
        return ptr::null_mut();
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_is_aligned_zero_and_zero_again_after_purge() {
        let bytes = 256 << 10;
        let align = 1 << 20;
        let start = map(bytes, align);
        assert!(!start.is_null() && start.addr().is_multiple_of(align));
        // SAFETY: the stretch is ours and committed.
        unsafe {
            assert_eq!(*start.add(bytes - 1), 0);
            start.write_bytes(7, bytes);
            assert!(purge(start, bytes));
            assert_eq!(*start, 0);
            assert_eq!(*start.add(bytes - 1), 0);
            release(start, bytes, align);
        }
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn remap_moves_contents() {
        let page = os_page();
        let (old, new) = (map(4 * page, page), map(8 * page, page));
        // SAFETY: both stretches are ours.
        unsafe {
            old.write_bytes(9, 4 * page);
            if remap(old, new, 4 * page) == Remapped::Moved {
                assert_eq!(*new.add(4 * page - 1), 9);
                assert_eq!(*new.add(4 * page), 0);
                assert_eq!(*old, 0);
                old.write_bytes(1, page);
            }
            release(old, 4 * page, page);
            release(new, 8 * page, page);
        }
    }

    #[test]
    #[cfg(not(miri))]
    fn impossible_sizes_give_null() {
        assert!(reserve(usize::MAX & !(os_page() - 1), 1 << 16).is_null());
        assert!(reserve(1 << 60, 1 << 16).is_null());
    }
}
