//! Size classes: in steps of 16 bytes up to 128, eight to a doubling up to 1 KiB, four to a doubling up to 4 KiB.
//!
//! A size rounded up to a multiple of an alignment gets a class whose size is a multiple of it too; pages begin at
//! multiples of [`SLICE`], so alignments up to that need nothing more.

/// What chunks are divided into.
pub(crate) const SLICE: usize = 1024;
/// How many classes there are.
pub(crate) const CLASSES: usize = 40;
/// The largest size that has a class.
pub(crate) const CLASS_MAX: usize = 4096;
/// The largest block inside a chunk.
pub(crate) const SLICES_MAX: usize = 16;
/// The largest size that [`of_small`] takes.
pub(crate) const TABLE_MAX: usize = 1024;

/// The size of a class's blocks.
const fn make_size(class: usize) -> usize {
    if class < 8 {
        (class + 1) * 16
    } else if class < 32 {
        let (doubling, step) = ((class - 8) / 8, (class - 8) % 8);
        (128 << doubling) + (step + 1) * (16 << doubling)
    } else {
        let (doubling, step) = ((class - 32) / 4, (class - 32) % 4);
        (1024 << doubling) + (step + 1) * (256 << doubling)
    }
}

pub(crate) static SIZES: [u16; CLASSES] = {
    let mut sizes = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        sizes[class] = make_size(class) as u16;
        class += 1;
    }
    sizes
};

/// How many slices the first page of a class has: the least that wastes an eighth at most.
pub(crate) static LEAST: [u8; CLASSES] = {
    let mut least = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let size = make_size(class);
        let mut slices = size.div_ceil(SLICE);
        while (slices * SLICE % size) * 8 > slices * SLICE {
            slices += 1;
        }
        assert!(slices <= SLICES_MAX);
        least[class] = slices as u8;
        class += 1;
    }
    least
};

static SMALL: [u8; TABLE_MAX / 16 + 1] = {
    let mut table = [0; TABLE_MAX / 16 + 1];
    let mut class = 0;
    let mut at = 1; // size 0 has the first class
    while at < table.len() {
        if at * 16 > make_size(class) {
            class += 1;
        }
        table[at] = class as u8;
        at += 1;
    }
    table
};

/// The class of a size up to [`TABLE_MAX`].
#[inline(always)]
pub(crate) fn of_small(size: usize) -> usize {
    debug_assert!(size <= TABLE_MAX);
    // SAFETY: the table covers these sizes, and its entries are classes of sizes up to `TABLE_MAX`.
    unsafe {
        let class = *SMALL.get_unchecked((size + 15) >> 4) as usize;
        core::hint::assert_unchecked(class < CLASSES);
        class
    }
}

/// The class of a size up to [`CLASS_MAX`].
#[inline(always)]
pub(crate) fn of(size: usize) -> usize {
    debug_assert!(size <= CLASS_MAX);
    if size <= TABLE_MAX {
        of_small(size)
    } else {
        let last = size - 1;
        let doubling = last.ilog2() - 10;
        32 + doubling as usize * 4 + ((last >> (doubling + 8)) & 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_the_least_class_that_holds_it() {
        for size in 0..=CLASS_MAX {
            let class = of(size);
            assert!(SIZES[class] as usize >= size);
            assert!(class == 0 || (SIZES[class - 1] as usize) < size, "{size}");
        }
        assert_eq!(SIZES[CLASSES - 1] as usize, CLASS_MAX);
    }

    #[test]
    fn an_aligned_size_has_an_aligned_class() {
        for shift in 4..=10 {
            let align = 1 << shift;
            for size in (align..=CLASS_MAX).step_by(align) {
                assert_eq!(SIZES[of(size)] as usize % align, 0, "{size} {align}");
            }
        }
    }
}
