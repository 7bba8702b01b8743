//! Size and alignment rules, the same for every backend.

/// Every block is aligned to this, in bytes, blocks smaller than it included.
pub const MIN_ALIGN: usize = 16;
/// The largest alignment that may be asked for: 1 GiB.
pub const MAX_ALIGN: usize = 1 << 30;
/// The largest size of a block: `PTRDIFF_MAX`, so that the difference of two pointers into it is defined.
pub const MAX_SIZE: usize = isize::MAX as usize;

/// `count * size`, or `None` when the product exceeds [`MAX_SIZE`].
#[inline]
#[must_use]
pub fn array_size(count: usize, size: usize) -> Option<usize> {
    match count.checked_mul(size) {
        Some(bytes) if bytes <= MAX_SIZE => Some(bytes),
        _ => None,
    }
}

/// Whether `align` may be asked for: a power of two, at most [`MAX_ALIGN`].
#[inline]
#[must_use]
pub fn is_valid_align(align: usize) -> bool {
    align.is_power_of_two() && align <= MAX_ALIGN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn array_size_refuses_what_does_not_fit() {
        assert_eq!(array_size(3, 5), Some(15));
        assert_eq!(array_size(0, usize::MAX), Some(0));
        assert_eq!(array_size(1, MAX_SIZE), Some(MAX_SIZE));
        assert_eq!(array_size(1, MAX_SIZE + 1), None);
        assert_eq!(array_size(usize::MAX, 2), None);
        assert_eq!(array_size(1 << 32, 1 << 32), None);
    }

    #[test]
    fn alignments() {
        assert!(is_valid_align(1) && is_valid_align(16) && is_valid_align(MAX_ALIGN));
        assert!(!is_valid_align(0) && !is_valid_align(24) && !is_valid_align(MAX_ALIGN * 2));
    }
}
