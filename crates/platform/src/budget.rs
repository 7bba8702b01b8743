//! How much memory the process may hold: one limit, one count, for the backend and for the heaps.
//!
//! Whoever takes memory from the system, or memory that had been given back, [`charge`]s it first, and [`refund`]s what goes
//! back. This happens by the run of pages, never by the block, so that it is always counted: a limit may come at any time.
//! What is refused may do after [`relieve`]: all that is free and cached goes back to the system then.
//!
//! Invariant: with a limit, no charge makes the count exceed it. (A limit below what is held already takes nothing away.)

use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Functions that give back what is cached.
static RELIEFS: [AtomicPtr<()>; 4] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 4];

/// Sets the limit in bytes; `usize::MAX` for none.
pub fn set_limit(bytes: usize) {
    LIMIT.store(bytes, Ordering::SeqCst);
}

/// The limit; `usize::MAX` for none.
#[must_use]
pub fn limit() -> usize {
    LIMIT.load(Ordering::Relaxed)
}

/// Whether there is a limit.
#[must_use]
pub fn is_limited() -> bool {
    limit() != usize::MAX
}

/// What counts now, in bytes.
#[must_use]
pub fn held() -> usize {
    HELD.load(Ordering::Relaxed)
}

/// Counts bytes as held; false, and nothing has changed, when the limit refuses.
#[must_use]
pub fn charge(bytes: usize) -> bool {
    let held = HELD.fetch_add(bytes, Ordering::SeqCst);
    if held.checked_add(bytes).is_some_and(|sum| sum <= LIMIT.load(Ordering::SeqCst)) {
        return true;
    }
    HELD.fetch_sub(bytes, Ordering::SeqCst);
    false
}

/// Counts bytes as held, whatever the limit: they are there already.
pub fn charge_at_any_rate(bytes: usize) {
    HELD.fetch_add(bytes, Ordering::SeqCst);
}

/// Counts bytes as held no longer. The count stays at 0 when more goes than ever came.
pub fn refund(bytes: usize) {
    let _ = HELD.fetch_update(Ordering::SeqCst, Ordering::Relaxed, |held| Some(held.saturating_sub(bytes)));
}

/// Has `relief` called where the limit refuses: a function that gives back what is free and cached. It may be called from
/// any thread that holds no lock of whoever registers it.
pub fn on_relief(relief: fn()) {
    let relief = relief as *mut ();
    for slot in &RELIEFS {
        match slot.compare_exchange(core::ptr::null_mut(), relief, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return,
            Err(other) if other == relief => return,
            Err(_) => {}
        }
    }
    // (Under Miri a function has another address each time.)
    debug_assert!(cfg!(miri), "more reliefs than there is room for");
}

/// Has all that is cached given back, where there is a limit; false where there is none, and nothing is done.
#[cold]
pub fn relieve() -> bool {
    if !is_limited() {
        return false;
    }
    for slot in &RELIEFS {
        let relief = slot.load(Ordering::Acquire);
        if !relief.is_null() {
            // SAFETY: only functions of this type are put there.
            let relief: fn() = unsafe { core::mem::transmute(relief) };
            relief();
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_not_exceeded() {
        static CALLED: AtomicUsize = AtomicUsize::new(0);
        on_relief(|| {
            CALLED.fetch_add(1, Ordering::Relaxed);
        });
        // (Nothing else of this crate's tests charges.)
        assert!(charge(100) && !relieve());
        set_limit(150);
        assert!(charge(50) && !charge(1) && held() == 150);
        assert!(!charge(usize::MAX) && held() == 150);
        refund(60);
        assert!(!charge(61) && charge(60));
        assert!(relieve() && CALLED.load(Ordering::Relaxed) == 1);
        set_limit(10);
        assert!(!charge(0) && held() == 150, "over the limit already");
        charge_at_any_rate(5);
        refund(1000);
        assert_eq!(held(), 0);
        set_limit(usize::MAX);
        assert!(charge(1 << 40));
        refund(1 << 40);
    }
}
