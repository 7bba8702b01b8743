//! The statistics that `ak_stats_get` fills.

/// A mask of the fields of [`Stats`] that hold a known figure: the `AK_KNOWN_*` bits of `alloc.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Known(pub u64);

impl Known {
    /// [`Stats::alloc_count`]
    pub const ALLOC_COUNT: Known = Known(1 << 0);
    /// [`Stats::free_count`]
    pub const FREE_COUNT: Known = Known(1 << 1);
    /// [`Stats::alloc_bytes`]
    pub const ALLOC_BYTES: Known = Known(1 << 2);
    /// [`Stats::free_bytes`]
    pub const FREE_BYTES: Known = Known(1 << 3);
    /// [`Stats::current_bytes`]
    pub const CURRENT_BYTES: Known = Known(1 << 4);
    /// [`Stats::peak_bytes`]
    pub const PEAK_BYTES: Known = Known(1 << 5);
    /// [`Stats::reserved_bytes`]
    pub const RESERVED_BYTES: Known = Known(1 << 6);
    /// [`Stats::committed_bytes`]
    pub const COMMITTED_BYTES: Known = Known(1 << 7);
    /// [`Stats::mapped_peak_bytes`]
    pub const MAPPED_PEAK_BYTES: Known = Known(1 << 8);
    /// [`Stats::threads`]
    pub const THREADS: Known = Known(1 << 9);

    /// Whether every bit of `other` is set.
    #[must_use]
    pub fn has(self, other: Known) -> bool {
        self.0 & other.0 == other.0
    }
}

impl core::ops::BitOr for Known {
    type Output = Known;
    fn bitor(self, other: Known) -> Known {
        Known(self.0 | other.0)
    }
}

impl core::ops::BitOrAssign for Known {
    fn bitor_assign(&mut self, other: Known) {
        self.0 |= other.0;
    }
}

/// `ak_stats_t`, field for field. A field whose bit is not in `known` is 0 and means nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Stats {
    /// How many bytes of this struct are valid; set by the caller in C.
    pub struct_size: usize,
    /// Which of the fields below are known.
    pub known: Known,
    /// Blocks handed out; a realloc that succeeds counts as one alloc and one free.
    pub alloc_count: u64,
    /// Blocks taken back.
    pub free_count: u64,
    /// Bytes handed out.
    pub alloc_bytes: u64,
    /// Bytes taken back.
    pub free_bytes: u64,
    /// Bytes live now: as asked for when tracked, else what the blocks occupy.
    pub current_bytes: u64,
    /// The most bytes that were live.
    pub peak_bytes: u64,
    /// Address space held.
    pub reserved_bytes: u64,
    /// Memory held: live, cached or not yet given back.
    pub committed_bytes: u64,
    /// The most that `committed_bytes` has been.
    pub mapped_peak_bytes: u64,
    /// Threads that hold allocator state now.
    pub threads: u64,
}

impl Stats {
    /// Nothing known yet.
    #[must_use]
    pub fn new() -> Stats {
        Stats { struct_size: size_of::<Stats>(), ..Stats::default() }
    }
}
