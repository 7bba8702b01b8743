//! What a thread counts of its blocks, and the peak of all threads together.
//!
//! A [`Counts`] is written by one thread only and read by anybody: no operation is an atomic read-modify-write. An
//! allocation costs four instructions, a free six.
//!
//! The peak. With one thread it is exact. With several no thread knows what the others have live, so each keeps a *limit*
//! at or above its own live bytes; [`CHARGED`] is the sum of all limits, and the peak is the most that `CHARGED` has been.
//! `room` is the limit less the live bytes; the limit is moved when `room` leaves `0..=2 * MARGIN`: so the peak is never too
//! low, and too high by at most 64 KiB for each thread.

use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// Half the width of what `room` may be.
const MARGIN: i64 = 32 << 10;

/// The sum of the limits.
static CHARGED: AtomicI64 = AtomicI64::new(0);
/// The most that CHARGED has been since there was a second thread, and the first thread's peak before.
static PEAK: AtomicI64 = AtomicI64::new(0);
/// Whether more than one thread has counted.
static SEVERAL: AtomicBool = AtomicBool::new(false);

/// See the module's head. All zeroes is valid, and has counted nothing.
#[derive(Debug)]
#[repr(C)]
pub struct Counts {
    allocs: AtomicU64,
    alloc_bytes: AtomicU64,
    frees: AtomicU64,
    room: AtomicI64,
    /// The least that `room` has been with this limit, as far as frees have looked.
    least: AtomicI64,
    limit: AtomicI64,
}

/// Sums of counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Blocks handed out.
    pub allocs: u64,
    /// Their bytes, as asked for.
    pub alloc_bytes: u64,
    /// Blocks taken back.
    pub frees: u64,
    /// Their bytes.
    pub free_bytes: u64,
    /// The most bytes that were live.
    pub peak_bytes: u64,
}

#[inline(always)]
fn add(counter: &AtomicU64, value: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
}

impl Counts {
    /// Nothing counted.
    #[must_use]
    pub const fn new() -> Counts {
        Counts {
            allocs: AtomicU64::new(0),
            alloc_bytes: AtomicU64::new(0),
            frees: AtomicU64::new(0),
            room: AtomicI64::new(0),
            least: AtomicI64::new(0),
            limit: AtomicI64::new(0),
        }
    }

    /// Counts a block handed out.
    #[inline(always)]
    pub fn on_alloc(&self, size: usize) {
        add(&self.allocs, 1);
        add(&self.alloc_bytes, size as u64);
        let room = self.room.load(Ordering::Relaxed).wrapping_sub(size as i64);
        self.room.store(room, Ordering::Relaxed);
        if room < 0 {
            self.move_limit();
        }
    }

    /// Counts a block taken back.
    #[inline(always)]
    pub fn on_free(&self, size: usize) {
        add(&self.frees, 1);
        let room = self.room.load(Ordering::Relaxed);
        if room < self.least.load(Ordering::Relaxed) {
            self.least.store(room, Ordering::Relaxed);
        }
        let room = room.wrapping_add(size as i64);
        self.room.store(room, Ordering::Relaxed);
        if room > 2 * MARGIN {
            self.move_limit();
        }
    }

    #[cold]
    #[inline(never)]
    fn move_limit(&self) {
        let (limit, room) = (self.limit.load(Ordering::Relaxed), self.room.load(Ordering::Relaxed));
        self.set_limit(limit - room + MARGIN);
    }

    fn set_limit(&self, limit: i64) {
        let old = self.limit.load(Ordering::Relaxed);
        let (room, least) = (self.room.load(Ordering::Relaxed), self.least.load(Ordering::Relaxed));
        self.limit.store(limit, Ordering::Relaxed);
        self.least.store(least.min(room) + limit - old, Ordering::Relaxed);
        self.room.store(room + limit - old, Ordering::Relaxed);
        // SeqCst with `several`: either this sees SEVERAL, or that sees this charge.
        let charged = CHARGED.fetch_add(limit - old, Ordering::SeqCst) + limit - old;
        if SEVERAL.load(Ordering::SeqCst) {
            PEAK.fetch_max(charged, Ordering::Relaxed);
        }
    }

    /// Its thread has ended; what is counted stays, and another thread may go on with it.
    pub fn rest(&self) {
        if !SEVERAL.load(Ordering::Relaxed) {
            PEAK.fetch_max(self.high(), Ordering::Relaxed);
        }
        let live = self.live();
        self.set_limit(live);
        self.least.store(0, Ordering::Relaxed);
    }

    fn live(&self) -> i64 {
        self.limit.load(Ordering::Relaxed) - self.room.load(Ordering::Relaxed)
    }

    /// The most bytes that were live since the last rest.
    fn high(&self) -> i64 {
        let least = self.least.load(Ordering::Relaxed).min(self.room.load(Ordering::Relaxed));
        self.limit.load(Ordering::Relaxed) - least
    }

    /// Adds what is counted. Exact when the thread does not allocate or free meanwhile.
    pub fn add_to(&self, totals: &mut Totals) {
        // Frees first: what is freed in between must not exceed what is allocated.
        totals.frees += self.frees.load(Ordering::Acquire);
        let live = self.live();
        totals.allocs += self.allocs.load(Ordering::Acquire);
        let bytes = self.alloc_bytes.load(Ordering::Acquire);
        totals.alloc_bytes = totals.alloc_bytes.wrapping_add(bytes);
        totals.free_bytes = totals.free_bytes.wrapping_add(bytes.wrapping_sub(live as u64));
        if !SEVERAL.load(Ordering::Relaxed) {
            totals.peak_bytes = totals.peak_bytes.max(self.high().max(0) as u64);
        }
    }
}

impl Default for Counts {
    fn default() -> Counts {
        Counts::new()
    }
}

/// A second thread begins to count; `each` visits the counts of all. From now on the peak is that of what is charged.
/// One caller at a time.
pub fn several(each: impl FnOnce(&mut dyn FnMut(&Counts))) {
    if SEVERAL.load(Ordering::Relaxed) {
        return;
    }
    SEVERAL.store(true, Ordering::SeqCst);
    let mut high = CHARGED.load(Ordering::SeqCst);
    each(&mut |counts| high = high.max(counts.high()));
    PEAK.fetch_max(high, Ordering::Relaxed);
}

/// Ends a sum: the peak.
pub fn finish(totals: &mut Totals) {
    let peak = PEAK.load(Ordering::Relaxed).max(0) as u64;
    let live = totals.alloc_bytes.wrapping_sub(totals.free_bytes);
    totals.peak_bytes = totals.peak_bytes.max(peak).max(if live as i64 > 0 { live } else { 0 });
}
