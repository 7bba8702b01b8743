//! Limits. What blocks occupy counts against the heap's own limit and those of all heaps above it.
//!
//! A heap with a limit is a *meter*: `metered` is what it and the heaps below it have been granted, by compare and exchange. Each
//! heap knows the nearest meter, itself or above (`meter`), and such a one the next (`outer`). A heap is granted more than it
//! needs: `granted` bytes, of which `credit` are not in use, so that most calls change these two words of its own only. A heap
//! that no limit concerns has been granted all there can be, once and for all.
//!
//! Limits are exact all the same. Where a meter refuses, the credit of all heaps below it is collected, and the
//! meter is *tight* from then on: heaps are granted what they need, give back what they free, and have no owner
//! ([`crate::turn`]), until an eighth of the limit is free again.
//!
//! Invariants, checked by `Raw::check` and the tests: `granted - credit` is the sum of the usable sizes of the heap's live blocks;
//! `metered` is the sum of `granted` of the heap and all below it, and never over the limit; `credit` is 0 below a tight meter;
//! `low` is `granted` less the most that has been in use, or more when `credit` is lower.

use crate::heap::{Raw, TREE, walk};
use crate::turn;
use core::ptr;
use core::sync::atomic::{AtomicIsize, AtomicU8, AtomicUsize, Ordering};

/// What a heap is granted that no limit concerns.
const ALL: isize = isize::MAX;
/// How much more than it needs a heap is granted.
const EXTRA: isize = 16 << 10;
/// The most credit that a heap keeps, where the long way is taken.
const CREDIT_MOST: isize = 64 << 10;

const LOOSE: u8 = 0;
const COLLECTING: u8 = 1;
const TIGHT: u8 = 2;

/// What a heap has been granted, and as a meter has granted.
pub(crate) struct Account {
    /// Written by whoever is alone in the heap.
    pub credit: AtomicIsize,
    pub granted: AtomicIsize,
    /// So much credit was there when the most was in use.
    pub low: AtomicIsize,
    meter: *mut Raw,
    // -- as a meter
    outer: *mut Raw,
    limit: usize,
    metered: AtomicUsize,
    tight: AtomicU8,
}

impl Account {
    /// Of a heap with this limit, or with none (0), below one.
    ///
    /// # Safety
    /// `parent` is null or a heap; the account is `h`'s.
    pub unsafe fn new(h: *mut Raw, parent: *mut Raw, limit: usize) -> Account {
        // SAFETY: the caller's promise; these two never change while the parent lives.
        let above = if parent.is_null() { ptr::null_mut() } else { unsafe { (*parent).account.meter } };
        let meter = if limit == 0 { above } else { h };
        let granted = if meter.is_null() { ALL } else { 0 };
        Account {
            credit: AtomicIsize::new(granted),
            granted: AtomicIsize::new(granted),
            low: AtomicIsize::new(granted),
            meter,
            outer: above,
            limit,
            metered: AtomicUsize::new(0),
            tight: AtomicU8::new(LOOSE),
        }
    }

    /// The nearest limit that concerns the heap.
    pub unsafe fn nearest_limit(&self) -> usize {
        // SAFETY: a heap above lives longer; its limit does not change.
        if self.meter.is_null() { usize::MAX } else { unsafe { (*self.meter).account.limit } }
    }

    /// The heap's own limit; 0 for none.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes in use. Exact for whoever is alone in the heap; others may miss what happens meanwhile.
    pub fn current(&self) -> usize {
        let mut granted = self.granted.load(Ordering::Acquire);
        loop {
            let credit = self.credit.load(Ordering::Acquire);
            let again = self.granted.load(Ordering::Acquire);
            if again == granted {
                return (granted - credit).max(0) as usize;
            }
            granted = again;
        }
    }

    /// The most that has been in use.
    pub fn peak(&self) -> usize {
        let low = self.low.load(Ordering::Relaxed).min(self.credit.load(Ordering::Relaxed));
        (self.granted.load(Ordering::Relaxed) - low) as usize
    }

    /// Remembers how much is in use, if it is the most: before it becomes less.
    #[inline(always)]
    pub fn note(&self) -> isize {
        let credit = self.credit.load(Ordering::Relaxed);
        if credit < self.low.load(Ordering::Relaxed) {
            self.low.store(credit, Ordering::Relaxed);
        }
        credit
    }

    /// Changes what is granted, not what is in use nor the peak.
    fn grant(&self, by: isize) {
        self.low.store(self.low.load(Ordering::Relaxed) + by, Ordering::Relaxed);
        self.granted.store(self.granted.load(Ordering::Relaxed) + by, Ordering::Release);
        self.credit.store(self.credit.load(Ordering::Relaxed) + by, Ordering::Release);
    }
}

// ---- the caller of each function from here on is alone in the heap ----

/// Counts bytes as in use. False, and nothing has changed, when a limit is too low: `short` then is the meter that refused, if it
/// may have the bytes after [`collect`].
#[inline(always)]
pub(crate) unsafe fn charge(h: *mut Raw, bytes: usize, short: &mut *mut Raw) -> bool {
    // SAFETY: the account is the caller's.
    unsafe {
        let credit = (*h).account.credit.load(Ordering::Relaxed);
        if bytes as isize <= credit {
            (*h).account.credit.store(credit - bytes as isize, Ordering::Relaxed);
            return true;
        }
        charge_more(h, bytes, short)
    }
}

#[cold]
#[inline(never)]
unsafe fn charge_more(h: *mut Raw, bytes: usize, short: &mut *mut Raw) -> bool {
    // SAFETY: as above.
    unsafe {
        let account = &(*h).account;
        if account.meter.is_null() {
            return false;
        }
        let need = bytes as isize - account.credit.load(Ordering::Relaxed);
        let want = need.saturating_add(EXTRA);
        let mut unused = ptr::null_mut();
        let got = if !is_tight(h) && ask(account.meter, want as usize, &mut unused) {
            want
        } else if ask(account.meter, need as usize, short) {
            need
        } else {
            return false;
        };
        account.grant(got);
        account.credit.store(account.credit.load(Ordering::Relaxed) - bytes as isize, Ordering::Relaxed);
        true
    }
}

/// Asks all meters from the first on for so many bytes.
unsafe fn ask(first: *mut Raw, bytes: usize, short: &mut *mut Raw) -> bool {
    let mut meter = first;
    // SAFETY: a heap lives longer than those below it.
    unsafe {
        while !meter.is_null() {
            let account = &(*meter).account;
            // Looked at before: what is collected after the refusal is worth another try.
            let tight = account.tight.load(Ordering::Acquire) == TIGHT;
            let limit = account.limit;
            let more = |have: usize| have.checked_add(bytes).filter(|sum| *sum <= limit);
            if account.metered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
                give(first, bytes, meter);
                if !tight {
                    *short = meter;
                }
                return false;
            }
            meter = account.outer;
        }
    }
    true
}

/// Gives bytes back to all meters from the first up to `end`.
unsafe fn give(mut meter: *mut Raw, bytes: usize, end: *mut Raw) {
    // SAFETY: as above.
    unsafe {
        while meter != end {
            let account = &(*meter).account;
            let left = account.metered.fetch_sub(bytes, Ordering::Relaxed) - bytes;
            if account.tight.load(Ordering::Relaxed) == TIGHT && left < account.limit - account.limit / 8 {
                let _ = account.tight.compare_exchange(TIGHT, LOOSE, Ordering::Relaxed, Ordering::Relaxed);
            }
            meter = account.outer;
        }
    }
}

/// Counts bytes as no longer in use.
#[inline(always)]
pub(crate) unsafe fn discharge(h: *mut Raw, bytes: usize) {
    // SAFETY: the account is the caller's.
    unsafe {
        (*h).account.note();
        uncharge(h, bytes);
    }
}

/// Takes [`charge`] back: the bytes have not been in use.
#[inline(always)]
pub(crate) unsafe fn uncharge(h: *mut Raw, bytes: usize) {
    // SAFETY: the account is the caller's.
    unsafe {
        let account = &(*h).account;
        account.credit.store(account.credit.load(Ordering::Relaxed) + bytes as isize, Ordering::Relaxed);
        if !account.meter.is_null() {
            trim(h);
        }
    }
}

/// Gives credit back that is too much to keep.
#[inline(never)]
unsafe fn trim(h: *mut Raw) {
    // SAFETY: as above.
    unsafe {
        let credit = (*h).account.credit.load(Ordering::Relaxed);
        if is_tight(h) {
            give_back(h, credit);
        } else if credit > CREDIT_MOST {
            give_back(h, credit - EXTRA);
        }
    }
}

unsafe fn give_back(h: *mut Raw, bytes: isize) {
    // SAFETY: as above.
    unsafe {
        let account = &(*h).account;
        if bytes > 0 && !account.meter.is_null() {
            account.note();
            account.grant(-bytes);
            give(account.meter, bytes as usize, ptr::null_mut());
        }
    }
}

/// Nothing is in use any more, and no credit is kept.
pub(crate) unsafe fn discharge_all(h: *mut Raw) {
    // SAFETY: as above.
    unsafe {
        let account = &(*h).account;
        account.note();
        account.credit.store(account.granted.load(Ordering::Relaxed), Ordering::Relaxed);
        give_back(h, account.granted.load(Ordering::Relaxed));
    }
}

/// Whether a meter of the heap is tight.
pub(crate) unsafe fn is_tight(h: *mut Raw) -> bool {
    // SAFETY: a heap lives longer than those below it.
    unsafe {
        let mut meter = (*h).account.meter;
        while !meter.is_null() {
            if (*meter).account.tight.load(Ordering::Acquire) != LOOSE {
                return true;
            }
            meter = (*meter).account.outer;
        }
    }
    false
}

// ---- and of this one in none ----

/// Has all heaps below a meter that refused `h` give their credit back. False when that changes nothing: there is no other heap.
#[cold]
pub(crate) unsafe fn collect(h: *mut Raw, meter: *mut Raw) -> bool {
    let _tree = TREE.lock();
    // SAFETY: `h` lives, and so does what is above it; what is below does under TREE.
    unsafe {
        if meter == h && !Raw::has_children(h) {
            return false;
        }
        let tight = &(*meter).account.tight;
        if tight.load(Ordering::Relaxed) != TIGHT {
            tight.store(COLLECTING, Ordering::Release);
            walk(meter, |below| {
                let _turn = turn::wait(below);
                // Perhaps this thread is the owner, and goes the short way from here on.
                (*below).owner.store(0, Ordering::Relaxed);
                give_back(below, (*below).account.credit.load(Ordering::Relaxed));
            });
            tight.store(TIGHT, Ordering::Release);
        }
    }
    true
}
