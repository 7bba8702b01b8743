//! Clearing, copying and looking through memory without libc's functions of that kind: a library that stands in for
//! `memcpy` and `memset` must not meet itself when it works on a block that is no longer the program's.

/// Above this many bytes the processor's string instructions are faster than a loop.
const LOOP_MAX: usize = 256;

/// Writes zeroes.
///
/// # Safety
/// The `bytes`, a multiple of 8, are the caller's to write, and `start` is aligned to 8.
#[inline(always)]
pub unsafe fn zero(start: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise. (Volatile: or else the compiler makes a call of memset out of the loop.)
    unsafe {
        if bytes > LOOP_MAX {
            return zero_much(start, bytes);
        }
        let (mut at, end) = (start.cast::<u64>(), start.add(bytes).cast::<u64>());
        let fours = start.add(bytes & !31).cast::<u64>();
        while at < fours {
            at.write_volatile(0);
            at.add(1).write_volatile(0);
            at.add(2).write_volatile(0);
            at.add(3).write_volatile(0);
            at = at.add(4);
        }
        while at < end {
            at.write_volatile(0);
            at = at.add(1);
        }
    }
}

#[inline(never)]
unsafe fn zero_much(start: *mut u8, bytes: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the caller's promise; the direction flag is clear by the ABI.
    unsafe {
        core::arch::asm!("rep stosb", inout("rdi") start => _, inout("rcx") bytes => _, in("al") 0u8,
            options(nostack, preserves_flags));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    for at in (0..bytes).step_by(8) {
        // SAFETY: the caller's promise.
        unsafe { start.add(at).cast::<u64>().write_volatile(0) };
    }
}

/// Copies; the stretches do not overlap.
///
/// # Safety
/// `from` has `bytes` readable bytes, `to` is the caller's to write as many.
#[inline(always)]
pub unsafe fn copy(to: *mut u8, from: *const u8, bytes: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the caller's promise; the direction flag is clear by the ABI.
    unsafe {
        core::arch::asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") bytes => _,
            options(nostack, preserves_flags));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    for at in 0..bytes {
        // SAFETY: the caller's promise.
        unsafe { to.add(at).write_volatile(*from.add(at)) };
    }
}

/// Copies from the end on, for a target that overlaps the source and lies above it.
///
/// # Safety
/// As [`copy`], where the stretches may overlap.
pub unsafe fn copy_backwards(to: *mut u8, from: *const u8, bytes: usize) {
    for at in (0..bytes).rev() {
        // SAFETY: the caller's promise.
        unsafe { to.add(at).write_volatile(*from.add(at)) };
    }
}

/// Writes a byte everywhere.
///
/// # Safety
/// The stretch is the caller's to write.
pub unsafe fn set(start: *mut u8, byte: u8, bytes: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the caller's promise; the direction flag is clear by the ABI.
    unsafe {
        core::arch::asm!("rep stosb", inout("rdi") start => _, inout("rcx") bytes => _, in("al") byte,
            options(nostack, preserves_flags));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    for at in 0..bytes {
        // SAFETY: the caller's promise.
        unsafe { start.add(at).write_volatile(byte) };
    }
}

/// Whether all is zero.
///
/// # Safety
/// The `bytes`, a multiple of 8, are readable, and `start` is aligned to 8.
#[inline(always)]
#[must_use]
pub unsafe fn is_zero(start: *const u8, bytes: usize) -> bool {
    let mut any = 0u64;
    // SAFETY: the caller's promise.
    unsafe {
        let (mut at, end) = (start.cast::<u64>(), start.add(bytes).cast::<u64>());
        while at < end {
            any |= *at;
            at = at.add(1);
        }
    }
    any == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sizes() {
        let mut block = [0u64; 128];
        let mut other = [0u8; 1024];
        let start = block.as_mut_ptr().cast::<u8>();
        for bytes in [0, 8, 16, 248, 256, 264, 512, 1024] {
            // SAFETY: the arrays hold 1024 bytes.
            unsafe {
                set(start, 7, 1024);
                zero(start, bytes);
                assert!(is_zero(start, bytes) && (bytes == 1024 || !is_zero(start, bytes + 8)));
                copy(other.as_mut_ptr(), start, 1024);
                assert_eq!(other.iter().position(|byte| *byte == 7).unwrap_or(1024), bytes);
                start.add(1).write(5);
                copy_backwards(start.add(3), start.add(1), 500);
                assert_eq!(*start.add(3), 5);
            }
        }
    }
}
