//! Memory for our own records: zeroed, never given back, apart from the blocks of the program.

use crate::{Lock, pages};
use core::cell::UnsafeCell;
use core::ptr;

const CHUNK: usize = if cfg!(miri) { 64 << 10 } else { 256 << 10 };

struct Bump {
    lock: Lock,
    /// `next..end` is committed, zero and unused.
    range: UnsafeCell<(*mut u8, usize)>,
}

// SAFETY: `range` is touched only under `lock`.
unsafe impl Sync for Bump {}

static BUMP: Bump = Bump { lock: Lock::new(), range: UnsafeCell::new((ptr::null_mut(), 0)) };

/// `size` zeroed bytes aligned to `align` (a power of two, up to 64 KiB for less than 64 KiB), for good. Null when there is no memory.
/// Thread-safe.
#[must_use]
pub fn alloc(size: usize, align: usize) -> *mut u8 {
    debug_assert!(align.is_power_of_two() && (align <= 64 << 10 || size >= CHUNK / 4));
    if size >= CHUNK / 4 {
        let bytes = size.next_multiple_of(pages::os_page());
        return pages::map(bytes, align.max(pages::os_page()));
    }
    let _guard = BUMP.lock.lock();
    // SAFETY: under the lock.
    let range = unsafe { &mut *BUMP.range.get() };
    let mut gap = range.0.addr().wrapping_neg() & (align - 1);
    if range.0.is_null() || gap + size > range.1 {
        let chunk = pages::map(CHUNK, 64 << 10);
        if chunk.is_null() {
            return chunk;
        }
        *range = (chunk, CHUNK);
        gap = 0;
    }
    // SAFETY: `gap + size` bytes are left in the chunk.
    unsafe {
        let block = range.0.add(gap);
        *range = (block.add(size), range.1 - gap - size);
        block
    }
}

/// Fork handlers' part: `lock` before, `unlock` after in both processes.
pub mod fork {
    /// Keeps other threads out until [`unlock`].
    pub fn lock() {
        super::BUMP.lock.lock_raw();
    }
    /// Ends [`lock`].
    pub fn unlock() {
        super::BUMP.lock.unlock_raw();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroed_aligned_and_distinct() {
        let a = alloc(24, 8);
        let b = alloc(100, 64);
        let c = alloc(CHUNK, 4096);
        assert!(b.addr().is_multiple_of(64) && c.addr().is_multiple_of(4096));
        assert!(a.addr() + 24 <= b.addr() || b.addr() + 100 <= a.addr());
        // SAFETY: the blocks are ours.
        unsafe {
            assert_eq!(*c.add(CHUNK - 1), 0);
            a.write_bytes(1, 24);
            assert_eq!(*b, 0);
        }
    }
}
