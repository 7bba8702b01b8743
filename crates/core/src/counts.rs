//! What a thread counts of its blocks, and the peak of all threads together.
//!
//! A [`Counts`] is written by one thread only and read by anybody: no operation is an atomic read-modify-write. Blocks and
//! bytes are counted in one word, one for each direction, so that neither waits for the other: three instructions for an
//! allocation, and seven for a free. (A single counter of live bytes, which each call waits for, cost four times as much.)
//! Now and then, before that word is full, [`Counts::settle`] moves it into the sums.
//!
//! The peak. With one thread it is exact: before live bytes become less, a free looks whether they were never more. With
//! several it is the most that the threads' live bytes were together when one of them settled.

use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// In a word of both: how many blocks, and above them their bytes.
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// How often at least there must be a [`Counts::settle`], in calls.
pub const SETTLE_AFTER: u64 = COUNT_MASK / 2;
/// A change of live bytes less than this is not worth telling the others.
const WORTH: i64 = 16 << 10;
/// The same where nothing else makes a thread settle.
const FAR: u64 = 1 << 20;

/// The sum of what threads have told of their live bytes.
static CHARGED: AtomicI64 = AtomicI64::new(0);
/// The most that CHARGED has been since there was a second thread, and the first thread's peak before.
static PEAK: AtomicI64 = AtomicI64::new(0);
/// Whether more than one thread has counted.
static SEVERAL: AtomicBool = AtomicBool::new(false);

/// See the module's head. All zeroes is valid, and has counted nothing.
#[derive(Debug)]
#[repr(C)]
pub struct Counts {
    /// Since the last settling.
    allocs: AtomicU64,
    frees: AtomicU64,
    /// How much `allocs` may be above `frees` until live bytes are more than they ever were.
    most: AtomicI64,
    sums: [AtomicU64; 4],
    /// What CHARGED has of this.
    charged: AtomicI64,
}

const ALLOCS: usize = 0;
const ALLOC_BYTES: usize = 1;
const FREES: usize = 2;
const FREE_BYTES: usize = 3;

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

#[inline(always)]
fn one(size: usize) -> u64 {
    (size as u64) << COUNT_BITS | 1
}

impl Counts {
    /// Nothing counted.
    #[must_use]
    pub const fn new() -> Counts {
        Counts {
            allocs: AtomicU64::new(0),
            frees: AtomicU64::new(0),
            most: AtomicI64::new(0),
            sums: [const { AtomicU64::new(0) }; 4],
            charged: AtomicI64::new(0),
        }
    }

    /// Counts a block handed out, of less than 1 MiB.
    #[inline(always)]
    pub fn on_alloc(&self, size: usize) {
        add(&self.allocs, one(size));
    }

    /// Counts a block taken back, of less than 1 MiB, unless live bytes are more than ever: then it does nothing and gives
    /// false.
    #[inline(always)]
    #[must_use]
    pub fn try_on_free(&self, size: usize) -> bool {
        let frees = self.frees.load(Ordering::Relaxed);
        let live = self.allocs.load(Ordering::Relaxed).wrapping_sub(frees) as i64;
        if live > self.most.load(Ordering::Relaxed) {
            return false;
        }
        self.frees.store(frees.wrapping_add(one(size)), Ordering::Relaxed);
        true
    }

    /// Counts a block handed out, of any size.
    pub fn on_any_alloc(&self, size: usize) {
        add(&self.sums[ALLOCS], 1);
        add(&self.sums[ALLOC_BYTES], size as u64);
        self.most.store(self.most.load(Ordering::Relaxed) - ((size as i64) << COUNT_BITS), Ordering::Relaxed);
        self.settle_if_far();
    }

    /// Settles when live bytes have moved far since the others were told.
    fn settle_if_far(&self) {
        if (self.live() - self.charged.load(Ordering::Relaxed)).unsigned_abs() >= FAR {
            self.settle();
        }
    }

    /// Counts a block taken back, of any size.
    pub fn on_any_free(&self, size: usize) {
        let live = self.allocs.load(Ordering::Relaxed).wrapping_sub(self.frees.load(Ordering::Relaxed)) as i64;
        if live > self.most.load(Ordering::Relaxed) {
            self.settle();
        }
        add(&self.sums[FREES], 1);
        add(&self.sums[FREE_BYTES], size as u64);
        self.most.store(self.most.load(Ordering::Relaxed) + ((size as i64) << COUNT_BITS), Ordering::Relaxed);
        self.settle_if_far();
    }

    /// Moves what was counted into the sums, notes a new peak, and tells the others if it is worth that. By the thread
    /// itself, at least every [`SETTLE_AFTER`] calls.
    pub fn settle(&self) {
        let (allocs, frees) = (self.allocs.load(Ordering::Relaxed), self.frees.load(Ordering::Relaxed));
        let change = (allocs >> COUNT_BITS) as i64 - (frees >> COUNT_BITS) as i64;
        let most = self.most.load(Ordering::Relaxed) >> COUNT_BITS;
        self.allocs.store(0, Ordering::Relaxed);
        self.frees.store(0, Ordering::Relaxed);
        add(&self.sums[ALLOCS], allocs & COUNT_MASK);
        add(&self.sums[ALLOC_BYTES], allocs >> COUNT_BITS);
        add(&self.sums[FREES], frees & COUNT_MASK);
        add(&self.sums[FREE_BYTES], frees >> COUNT_BITS);
        self.set_most(change.max(most) - change);
        let live = self.live();
        let moved = live - self.charged.load(Ordering::Relaxed);
        if moved.unsigned_abs() as i64 >= WORTH {
            self.charge(live);
        }
    }

    /// How many more bytes may become live until there never were more.
    fn set_most(&self, bytes: i64) {
        // Up to that many bytes, with any number of blocks.
        self.most.store(bytes << COUNT_BITS | COUNT_MASK as i64, Ordering::Relaxed);
    }

    fn charge(&self, live: i64) {
        let moved = live - self.charged.swap(live, Ordering::Relaxed);
        // SeqCst with `several`: either this sees SEVERAL, or that sees this charge.
        let charged = CHARGED.fetch_add(moved, Ordering::SeqCst) + moved;
        if SEVERAL.load(Ordering::SeqCst) {
            PEAK.fetch_max(charged, Ordering::Relaxed);
        }
    }

    /// Its thread has ended; what is counted stays, and another thread may go on with it.
    pub fn rest(&self) {
        self.settle();
        if !SEVERAL.load(Ordering::Relaxed) {
            PEAK.fetch_max(self.high(), Ordering::Relaxed);
        }
        self.set_most(0);
        self.charge(self.live());
    }

    fn live(&self) -> i64 {
        let sum = |index: usize| self.sums[index].load(Ordering::Relaxed);
        let settled = sum(ALLOC_BYTES).wrapping_sub(sum(FREE_BYTES)) as i64;
        let since = |word: &AtomicU64| (word.load(Ordering::Relaxed) >> COUNT_BITS) as i64;
        settled + since(&self.allocs) - since(&self.frees)
    }

    /// The most bytes that were live since the last rest.
    fn high(&self) -> i64 {
        let since = |word: &AtomicU64| (word.load(Ordering::Relaxed) >> COUNT_BITS) as i64;
        let change = since(&self.allocs) - since(&self.frees);
        self.live() + ((self.most.load(Ordering::Relaxed) >> COUNT_BITS) - change).max(0)
    }

    /// Adds what is counted. Exact when the thread does not allocate or free meanwhile.
    pub fn add_to(&self, totals: &mut Totals) {
        // Frees first: what is freed in between must not exceed what is allocated.
        let frees = self.frees.load(Ordering::Acquire);
        let allocs = self.allocs.load(Ordering::Acquire);
        let sum = |index: usize| self.sums[index].load(Ordering::Relaxed);
        totals.frees += sum(FREES) + (frees & COUNT_MASK);
        totals.free_bytes += sum(FREE_BYTES) + (frees >> COUNT_BITS);
        totals.allocs += sum(ALLOCS) + (allocs & COUNT_MASK);
        totals.alloc_bytes += sum(ALLOC_BYTES) + (allocs >> COUNT_BITS);
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
    let live = totals.alloc_bytes.saturating_sub(totals.free_bytes);
    totals.peak_bytes = totals.peak_bytes.max(peak).max(live);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums and the peak of one thread, against a model, with settlings in between.
    #[test]
    fn agrees_with_a_model() {
        let counts = Counts::new();
        let (mut model, mut live, mut random) = (Totals::default(), [0usize; 100], 7u64);
        let mut sum = 0;
        for round in 0..if cfg!(miri) { 2000 } else { 200_000 } {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let slot = &mut live[random as usize % 100];
            if *slot == 0 {
                let large = (random >> 8).is_multiple_of(50);
                *slot = 1 + (random >> 20) as usize % if large { 5 << 20 } else { 32 << 10 };
                if large {
                    counts.on_any_alloc(*slot)
                } else {
                    counts.on_alloc(*slot)
                }
                model.allocs += 1;
                model.alloc_bytes += *slot as u64;
                sum += *slot;
                model.peak_bytes = model.peak_bytes.max(sum as u64);
            } else {
                if *slot >= 1 << 20 || !counts.try_on_free(*slot) {
                    counts.on_any_free(*slot);
                }
                model.frees += 1;
                model.free_bytes += *slot as u64;
                sum -= *slot;
                *slot = 0;
            }
            if round % 1000 == 0 {
                counts.settle();
            }
            if round % 100 == 0 {
                let mut totals = Totals::default();
                counts.add_to(&mut totals);
                assert_eq!(totals, model, "round {round}");
            }
        }
    }
}
