//! What is dear is done for a program that does it now and then, and not all of the time for one that does little else:
//! so much at first, and so much more each second.

use allokit_platform::clock;
use core::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

pub(crate) struct Budget {
    left: AtomicI64,
    each_second: AtomicUsize,
    /// Up to when (ms) `left` is counted.
    counted: AtomicU64,
}

impl Budget {
    pub(crate) const fn new(first: usize, each_second: usize) -> Budget {
        Budget {
            left: AtomicI64::new(first as i64),
            each_second: AtomicUsize::new(each_second),
            counted: AtomicU64::new(0),
        }
    }

    /// Sets what comes each second; `usize::MAX`: all that is wanted.
    pub(crate) fn set(&self, each_second: usize) {
        self.each_second.store(each_second, Ordering::Relaxed);
    }

    /// Takes so much, if there is anything left. (The last one may take more than there was.)
    #[inline]
    pub(crate) fn spend(&self, amount: usize) -> bool {
        if self.left.load(Ordering::Relaxed) > 0 {
            self.left.fetch_sub(amount as i64, Ordering::Relaxed);
            return true;
        }
        self.spend_slowly(amount)
    }

    #[inline(never)]
    fn spend_slowly(&self, amount: usize) -> bool {
        let each_second = self.each_second.load(Ordering::Relaxed);
        if each_second == usize::MAX {
            return true;
        }
        let (now, before) = (clock::now_ms(), self.counted.load(Ordering::Relaxed));
        // What was not used in more than a second is lost.
        let more = now.saturating_sub(before).min(1000) as i64 * each_second as i64 / 1000;
        if more == 0 || self.counted.compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return false;
        }
        let left = self.left.fetch_add(more, Ordering::Relaxed) + more;
        if left <= 0 {
            return false;
        }
        self.left.fetch_sub(amount as i64, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "its clock begins with it")]
    fn first_then_by_time() {
        let budget = Budget::new(100, 0);
        assert!(budget.spend(60) && budget.spend(60) && !budget.spend(1));
        budget.set(usize::MAX);
        assert!((0..1000).all(|_| budget.spend(1 << 40)));
        let budget = Budget::new(0, 1000);
        // The clock began long ago: a second's worth, and what comes meanwhile.
        let spent = (0..5000).filter(|_| budget.spend(1)).count();
        assert!((1000..4000).contains(&spent), "{spent}");
    }
}
