//! mimalloc's figures: `mi_stats_get` of its header `mimalloc-stats.h`, which libmimalloc-sys does not declare.

use core::mem::MaybeUninit;

/// `mi_stat_count_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Count {
    total: i64,
    peak: i64,
    current: i64,
}

impl Count {
    pub(crate) fn current(self) -> u64 {
        self.current.max(0) as u64
    }

    pub(crate) fn peak(self) -> u64 {
        self.peak.max(self.current).max(0) as u64
    }
}

/// `mi_stats_t`, as far as it is used here; mimalloc fills it only when size and version are what it expects.
#[repr(C)]
pub(crate) struct Info {
    size: usize,
    version: usize,
    pages: Count,
    pub(crate) reserved: Count,
    pub(crate) committed: Count,
    reset: i64,
    purged: i64,
    page_committed: Count,
    pages_abandoned: Count,
    pub(crate) threads: Count,
    /// 9 more figures with a peak and 19 without, 8 reserved ones, and the figures for each size.
    _rest: [i64; 9 * 3 + 19 + 4 * 3 + 4 + (74 + 74 + 6) * 3],
}

const VERSION: usize = 5;

unsafe extern "C" {
    fn mi_stats_get(stats: *mut Info) -> bool;
}

/// The figures of now. `None` when mimalloc's struct is not the one above any more.
pub(crate) fn read() -> Option<Info> {
    let mut info = MaybeUninit::<Info>::zeroed();
    // SAFETY: all zeroes is a valid Info; mimalloc checks size and version before it writes `size` bytes.
    unsafe {
        let pointer = info.as_mut_ptr();
        (*pointer).size = size_of::<Info>();
        (*pointer).version = VERSION;
        if mi_stats_get(pointer) { Some(info.assume_init()) } else { None }
    }
}
