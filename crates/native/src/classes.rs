//! Size classes: steps of 16 bytes up to 128, then eight to a doubling, so that a block is at most 12.5 % larger than
//! asked for (or 15 bytes). Class 0 is none.

/// The largest size that a class serves; above it a block is a run of its own.
pub const SMALL_MAX: usize = 32 << 10;
/// How many classes there are; they are numbered from 1.
pub const CLASS_COUNT: usize = 72;
/// Bins in a heap: one a class, and one that is never filled.
pub(crate) const BINS: usize = CLASS_COUNT + 1;
/// A power of two above the classes, so that a mask keeps an index in bounds.
const ENTRIES: usize = 128;
/// Up to this size the class comes from a table.
pub(crate) const TABLE_MAX: usize = 1024;
/// Entries of that table.
pub(crate) const TINY_COUNT: usize = TABLE_MAX / 16 + 1;

/// The unit of address space: 64 KiB.
pub(crate) const UNIT_SHIFT: u32 = 16;
/// See [`UNIT_SHIFT`].
pub(crate) const UNIT: usize = 1 << UNIT_SHIFT;

/// How many bytes of freed blocks a class may gather until an allocation takes them: more of the blocks that lists and
/// trees are made of.
const fn bin_bytes(size: usize) -> usize {
    if size <= 64 { 64 << 10 } else { 24 << 10 }
}
/// How many bytes of them, and how many at least and at most, lie in the bin; the others in its reserve.
const NEAR_BYTES: usize = 8 << 10;
const NEAR_LEAST: usize = 16;
const NEAR_MOST: usize = 128;
/// How many bytes of a fresh page are made into blocks at a time.
const CARVE_BYTES: usize = 8 << 10;

/// A tag's bytes: the 8 before its block.
pub(crate) const TAG: usize = 8;
/// Where the first block of a page with tags begins: its tag before it, and 16-aligned as all are.
pub(crate) const LEAD: usize = 16;
/// The first class with room for what a free block holds (16 bytes) and a tag.
pub(crate) const TAGGED_FIRST: usize = 2;

/// How many blocks freed by another thread travel together, and how many bytes at most.
const BATCH_COUNT: usize = 32;
const BATCH_BYTES: usize = 8 << 10;
/// How many bytes of such blocks may wait for the owner's bin.
const READY_BYTES: usize = 512 << 10;

const fn ready_most(batch: usize, size: usize) -> u16 {
    let batches = READY_BYTES / (if batch < 1 { size } else { batch * size });
    if batches > 256 { 256 } else { batches as u16 }
}

/// What is known of a class.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Class {
    /// The size of its blocks in bytes.
    pub size: u32,
    /// How many units a page of it has.
    pub units: u32,
    /// How many blocks fit a page.
    pub capacity: u32,
    /// The same where blocks begin [`LEAD`] bytes into the page, and the last 8 bytes of each are the next one's tag.
    pub tagged_capacity: u32,
    /// How many freed blocks a bin may gather, and how many lists of that length its reserve.
    pub bin: u32,
    pub reserve: u32,
    /// How many blocks are carved at a time.
    pub step: u32,
    /// 2^40 / size, rounded up: for dividing an offset by the size.
    pub magic: u64,
    /// How many blocks freed by another thread travel together.
    pub batch: u32,
    /// How many such batches may wait for the owner's bin.
    pub ready_most: u16,
}

const fn size_of_class(class: usize) -> usize {
    if class <= 8 {
        class * 16
    } else {
        let doubling = (class - 9) / 8;
        let step = (class - 9) % 8;
        (9 + step) << (doubling + 4)
    }
}

const fn describe(class: usize) -> Class {
    let size = size_of_class(class);
    let mut units = 1;
    while units * UNIT / size < 8 {
        units += 1;
    }
    let budget = if bin_bytes(size) / size < 4 { 4 } else { bin_bytes(size) / size };
    let mut bin = NEAR_BYTES / size;
    bin = if bin < NEAR_LEAST { NEAR_LEAST } else { bin };
    bin = if bin > NEAR_MOST { NEAR_MOST } else { bin };
    bin = if bin > budget { budget } else { bin };
    let step = CARVE_BYTES / size;
    let batch = if BATCH_BYTES / size < BATCH_COUNT { BATCH_BYTES / size } else { BATCH_COUNT };
    Class {
        size: size as u32,
        units: units as u32,
        capacity: (units * UNIT / size) as u32,
        tagged_capacity: ((units * UNIT - LEAD + TAG) / size) as u32,
        bin: bin as u32,
        reserve: (budget.div_ceil(bin) - 1) as u32,
        step: if step < 1 { 1 } else { step as u32 },
        magic: (1u64 << 40).div_ceil(size as u64),
        batch: if batch < 1 { 1 } else { batch as u32 },
        ready_most: ready_most(batch, size),
    }
}

const fn describe_all() -> [Class; ENTRIES] {
    let mut all = [Class {
        size: 0,
        units: 0,
        capacity: 0,
        tagged_capacity: 0,
        bin: 0,
        reserve: 0,
        step: 0,
        magic: 0,
        batch: 0,
        ready_most: 0,
    }; ENTRIES];
    let mut class = 1;
    while class <= CLASS_COUNT {
        all[class] = describe(class);
        class += 1;
    }
    assert!(all[CLASS_COUNT].size as usize == SMALL_MAX);
    all
}

static CLASSES: [Class; ENTRIES] = describe_all();

/// The offsets of the classes' entries in a table that begins at `at` and has `step` bytes for each, by size in steps of 16
/// bytes up to [`TABLE_MAX`]; no class before `first`.
pub(crate) const fn tiny_offsets(at: usize, step: usize, first: usize) -> [u16; TINY_COUNT] {
    let mut table = [(at + first * step) as u16; TINY_COUNT];
    let mut index = 1;
    let mut class = first;
    while index < table.len() {
        while size_of_class(class) < index * 16 {
            class += 1;
        }
        table[index] = (at + class * step) as u16;
        index += 1;
    }
    table
}

/// The class for a size above 128 and up to [`SMALL_MAX`].
#[inline(always)]
pub(crate) fn of_small(size: usize) -> usize {
    debug_assert!(size > 128 && size <= SMALL_MAX);
    let last = size - 1;
    let log = last.ilog2() as usize;
    (log - 7) * 8 + ((last >> (log - 3)) & 7) + 9
}

/// The class of any size up to [`SMALL_MAX`].
#[cfg(test)]
pub(crate) fn of(size: usize) -> usize {
    const NUMBERS: [u16; TINY_COUNT] = tiny_offsets(0, 1, 1);
    if size <= TABLE_MAX { NUMBERS[size.div_ceil(16)] as usize } else { of_small(size) }
}

/// The number of the block that begins (or covers the byte) at `offset` in its page, from its class's [`Class::magic`].
#[inline(always)]
pub(crate) fn number(magic: u64, offset: usize) -> usize {
    ((offset as u64 * magic) >> 40) as usize
}

/// What is known of a class.
#[inline(always)]
pub(crate) fn get(class: usize) -> &'static Class {
    &CLASSES[class & (ENTRIES - 1)]
}

/// The size of the blocks of a class, 1 to [`CLASS_COUNT`], in bytes.
#[must_use]
pub fn class_size(class: usize) -> usize {
    get(class).size as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Under Miri a few do: this is arithmetic.
    const STEP: usize = if cfg!(miri) { 61 } else { 1 };

    #[test]
    fn every_size_gets_the_smallest_class_that_fits() {
        for size in (0..=SMALL_MAX).step_by(STEP) {
            let class = of(size);
            assert!(class_size(class) >= size.max(1), "{size}");
            assert!(class == 1 || class_size(class - 1) < size, "{size}");
            if size > 128 {
                assert_eq!(class, of_small(size));
            }
        }
    }

    #[test]
    fn every_byte_of_a_page_has_its_block() {
        for class in 1..=CLASS_COUNT {
            let about = get(class);
            for offset in (0..about.units as usize * UNIT).step_by(if cfg!(miri) { 4099 } else { 1 }) {
                assert_eq!(number(about.magic, offset), offset / class_size(class), "class {class}, byte {offset}");
            }
        }
    }

    #[test]
    fn waste_is_bounded() {
        for size in (1..=SMALL_MAX).step_by(STEP) {
            let waste = class_size(of(size)) - size;
            assert!(waste <= 15 || waste * 8 <= size, "{size} wastes {waste}");
        }
    }

    #[test]
    fn sizes_are_multiples_of_16_and_pages_hold_at_least_8() {
        for class in 1..=CLASS_COUNT {
            assert_eq!(class_size(class) % 16, 0);
            assert!(get(class).capacity >= 8);
        }
    }

    #[test]
    fn a_multiple_of_an_alignment_gets_a_class_that_is_one_too() {
        for log in 0..=15 {
            let align = 1 << log;
            for size in (align..=SMALL_MAX).step_by(align * STEP) {
                assert_eq!(class_size(of(size)) % align, 0, "{size} at {align}");
            }
        }
    }
}
