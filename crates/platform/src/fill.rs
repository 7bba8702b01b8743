//! Clearing, copying and looking through memory without libc's functions of that kind: a library that stands in for
//! `memcpy` and `memset` must not meet itself when it works on a block that is no longer the program's.

/// Above this many bytes the processor's string instructions are faster than a loop.
const LOOP_MAX: usize = 1024;

/// Writes zeroes.
///
/// # Safety
/// The `bytes`, a multiple of 8, are the caller's to write, and `start` is aligned to 8.
#[inline(always)]
pub unsafe fn zero(start: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        if bytes > LOOP_MAX {
            return zero_much(start, bytes);
        }
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if bytes >= 32 {
            // Steps of 32 bytes, and the last 32 once more. (By hand: or else the compiler makes a call of memset of it.)
            return core::arch::asm!(
                "pxor {zero}, {zero}",
                "cmp {at}, {last}",
                "jae 3f",
                "2:",
                "movups [{at}], {zero}",
                "movups [{at} + 16], {zero}",
                "add {at}, 32",
                "cmp {at}, {last}",
                "jb 2b",
                "3:",
                "movups [{last}], {zero}",
                "movups [{last} + 16], {zero}",
                zero = out(xmm_reg) _, at = inout(reg) start => _, last = in(reg) start.add(bytes - 32),
                options(nostack));
        }
        // (Volatile for the same reason.)
        let (mut at, end) = (start.cast::<u64>(), start.add(bytes).cast::<u64>());
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

/// Copies from the start on: the stretches do not overlap, or the target lies below the source.
///
/// # Safety
/// `from` has `bytes` readable bytes, `to` is the caller's to write as many.
#[inline(always)]
pub unsafe fn copy(to: *mut u8, from: *const u8, bytes: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the caller's promise; the direction flag is clear by the ABI.
    unsafe {
        if bytes <= 32 {
            return copy_few(to, from, bytes);
        }
        if bytes <= LOOP_MAX {
            // Steps of 32 bytes, and the last 32 once more, read before they can be written to.
            let end = from.add(bytes - 32);
            return core::arch::asm!(
                "movups {c}, [{end}]",
                "movups {d}, [{end} + 16]",
                "2:",
                "movups {a}, [{from}]",
                "movups {b}, [{from} + 16]",
                "movups [{to}], {a}",
                "movups [{to} + 16], {b}",
                "add {from}, 32",
                "add {to}, 32",
                "cmp {from}, {end}",
                "jb 2b",
                "movups [{last}], {c}",
                "movups [{last} + 16], {d}",
                a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _, from = inout(reg) from => _, to = inout(reg) to => _,
                end = in(reg) end, last = in(reg) to.add(bytes - 32), options(nostack));
        }
        core::arch::asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") bytes => _,
            options(nostack, preserves_flags));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    for at in 0..bytes {
        // SAFETY: the caller's promise.
        unsafe { to.add(at).write_volatile(*from.add(at)) };
    }
}

/// Copies at most 32 bytes; all are read before any is written, so the stretches may overlap.
///
/// # Safety
/// As [`copy`], but for the overlap.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
pub unsafe fn copy_few(to: *mut u8, from: *const u8, bytes: usize) {
    // SAFETY: the caller's promise: each part lies in the stretch.
    unsafe {
        macro_rules! ends {
            ($type:ty) => {{
                let back = bytes - size_of::<$type>();
                let first = from.cast::<$type>().read_unaligned();
                let last = from.add(back).cast::<$type>().read_unaligned();
                to.cast::<$type>().write_unaligned(first);
                to.add(back).cast::<$type>().write_unaligned(last);
            }};
        }
        match bytes {
            16.. => ends!(core::arch::x86_64::__m128i),
            8.. => ends!(u64),
            4.. => ends!(u32),
            2.. => ends!(u16),
            1 => to.write(from.read()),
            _ => {}
        }
    }
}

/// Copies from the end on, for a target that overlaps the source and lies above it.
///
/// # Safety
/// As [`copy`], where the stretches may overlap.
pub unsafe fn copy_backwards(to: *mut u8, from: *const u8, bytes: usize) {
    #[cfg_attr(not(all(target_arch = "x86_64", not(miri))), allow(unused_mut))]
    let mut left = bytes;
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        while left >= 32 {
            // (All 32 are read before they are written.)
            left -= 32;
            copy_few(to.add(left), from.add(left), 32);
        }
        for at in (0..left).rev() {
            to.add(at).write_volatile(*from.add(at));
        }
    }
}

/// Writes a byte everywhere.
///
/// # Safety
/// The stretch is the caller's to write.
#[inline(always)]
pub unsafe fn set(start: *mut u8, byte: u8, bytes: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the caller's promise; the direction flag is clear by the ABI.
    unsafe {
        if (16..=LOOP_MAX).contains(&bytes) {
            use core::arch::x86_64::{__m128i, _mm_set1_epi8};
            let all: __m128i = _mm_set1_epi8(byte as i8);
            // Steps of 16 bytes, and the last 16 once more.
            return core::arch::asm!(
                "2:",
                "movups [{at}], {all}",
                "add {at}, 16",
                "cmp {at}, {last}",
                "jb 2b",
                "movups [{last}], {all}",
                all = in(xmm_reg) all, at = inout(reg) start => _, last = in(reg) start.add(bytes - 16),
                options(nostack));
        }
        if bytes < 16 {
            for at in 0..bytes {
                start.add(at).write_volatile(byte);
            }
            return;
        }
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
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if bytes >= 32 {
            use core::arch::x86_64::*;
            // Two at a time, and the last two once more.
            let last = start.add(bytes - 32);
            let mut at = start;
            let mut any = _mm_or_si128(_mm_loadu_si128(last.cast()), _mm_loadu_si128(last.add(16).cast()));
            while at < last {
                any = _mm_or_si128(any, _mm_loadu_si128(at.cast()));
                any = _mm_or_si128(any, _mm_loadu_si128(at.add(16).cast()));
                at = at.add(32);
            }
            return _mm_movemask_epi8(_mm_cmpeq_epi8(any, _mm_setzero_si128())) == 0xffff;
        }
        let mut any = 0u64;
        let (mut at, end) = (start.cast::<u64>(), start.add(bytes).cast::<u64>());
        while at < end {
            any |= *at;
            at = at.add(1);
        }
        any == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sizes() {
        let mut block = [0u64; 512];
        let mut other = [0u8; 4096];
        let start = block.as_mut_ptr().cast::<u8>();
        let sizes = (0..if cfg!(miri) { 9 } else { 140 }).map(|words| words * 8).chain([2048, 4096]);
        for bytes in sizes {
            // SAFETY: the arrays hold 4096 bytes.
            unsafe {
                set(start, 7, 4096);
                zero(start, bytes);
                assert!(is_zero(start, bytes) && (bytes == 4096 || !is_zero(start, bytes + 8)));
                copy(other.as_mut_ptr(), start, 4096);
                assert_eq!(other.iter().position(|byte| *byte == 7).unwrap_or(4096), bytes);
                for at in 0..bytes {
                    start.add(at).write(1);
                    assert!(!is_zero(start, bytes), "byte {at} of {bytes}");
                    start.add(at).write(0);
                }
            }
        }
    }

    #[test]
    fn bytes_beside_are_left_alone() {
        let from: std::vec::Vec<u8> = (0..3000u32).map(|at| at as u8 | 1).collect();
        for bytes in (0..if cfg!(miri) { 70 } else { 200 }).chain([1023, 1024, 1025, 2500]) {
            let mut to = std::vec![0u8; bytes + 2];
            // SAFETY: the vectors hold so many.
            unsafe { copy(to.as_mut_ptr().add(1), from.as_ptr().add(3), bytes) };
            assert!(to[0] == 0 && to[bytes + 1] == 0 && to[1..=bytes] == from[3..3 + bytes], "{bytes}");
            // SAFETY: as above.
            unsafe { set(to.as_mut_ptr().add(1), 9, bytes) };
            assert!(to[0] == 0 && to[bytes + 1] == 0 && to[1..=bytes].iter().all(|byte| *byte == 9), "{bytes}");
            for over in [1, 7, 31, 40] {
                let mut moved = from[..bytes + over].to_vec();
                // SAFETY: both stretches lie in the vector.
                unsafe { copy(moved.as_mut_ptr(), moved.as_ptr().add(over), bytes) };
                assert!(moved[..bytes] == from[over..over + bytes], "{bytes} down by {over}");
                let mut moved = from[..bytes + over].to_vec();
                // SAFETY: both stretches lie in the vector.
                unsafe { copy_backwards(moved.as_mut_ptr().add(over), moved.as_ptr(), bytes) };
                assert!(moved[over..] == from[..bytes] && moved[..over.min(bytes)] == from[..over.min(bytes)]);
            }
        }
    }
}
