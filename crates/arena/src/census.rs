//! How many arenas, regions, pools and stacks there are, and what they hold: four words for each kind, changed where one is made,
//! grows or ends, and never where a block is taken or given.

use core::sync::atomic::{AtomicUsize, Ordering};

/// The figures of one kind.
#[derive(Debug)]
pub struct Census {
    live: AtomicUsize,
    reserved: AtomicUsize,
    peak: AtomicUsize,
}

/// What a [`Census`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// How many there are.
    pub live: usize,
    /// Bytes that they have taken from their sources; a caller's buffer is not among them.
    pub reserved: usize,
    /// The most that `reserved` has been.
    pub peak: usize,
}

/// Arenas, children and scratch arenas among them.
pub static ARENAS: Census = Census::new();
/// Regions.
pub static REGIONS: Census = Census::new();
/// Pools.
pub static POOLS: Census = Census::new();
/// Stacks.
pub static STACKS: Census = Census::new();

impl Census {
    const fn new() -> Census {
        Census { live: AtomicUsize::new(0), reserved: AtomicUsize::new(0), peak: AtomicUsize::new(0) }
    }

    /// The figures of now; each is exact, the three not from one moment.
    pub fn figures(&self) -> Figures {
        Figures {
            live: self.live.load(Ordering::Relaxed),
            reserved: self.reserved.load(Ordering::Relaxed),
            peak: self.peak.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn made(&self) {
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ended(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn took(&self, bytes: usize) {
        let now = self.reserved.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if now > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(now, Ordering::Relaxed);
        }
    }

    pub(crate) fn gave(&self, bytes: usize) {
        self.reserved.fetch_sub(bytes, Ordering::Relaxed);
    }
}
