//! A small lock for slow paths: one word, no allocation, usable in a forked child after `reset`.
//!
//! States: 0 free, 1 held, 2 held and somebody may be waiting (the mutex of Drepper's "Futexes Are Tricky").

use core::sync::atomic::{AtomicU32, Ordering};

const FREE: u32 = 0;
const HELD: u32 = 1;
const WAITED_FOR: u32 = 2;

/// A mutual exclusion lock. It keeps `errno`, and it is not re-entrant.
#[derive(Debug, Default)]
pub struct Lock {
    state: AtomicU32,
}

/// Releases the lock when dropped.
#[derive(Debug)]
pub struct LockGuard<'a> {
    lock: &'a Lock,
}

impl Lock {
    /// A free lock.
    #[must_use]
    pub const fn new() -> Lock {
        Lock { state: AtomicU32::new(FREE) }
    }

    /// Waits for the lock and takes it.
    #[inline]
    pub fn lock(&self) -> LockGuard<'_> {
        self.lock_raw();
        LockGuard { lock: self }
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<LockGuard<'_>> {
        match self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Some(LockGuard { lock: self }),
            Err(_) => None,
        }
    }

    /// Takes the lock, unless it stays held for a fifth of a second: for reports, which may come in a signal handler that has
    /// interrupted the holder, and then say less instead of waiting for ever. Keeps `errno`.
    #[cold]
    pub fn lock_for_report(&self) -> Option<LockGuard<'_>> {
        let _errno = crate::errno::Saved::new();
        for _ in 0..200 {
            if let Some(guard) = self.try_lock() {
                return Some(guard);
            }
            let pause = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
            // SAFETY: the time is valid, and what is left of it is not asked for.
            unsafe { libc::nanosleep(&raw const pause, core::ptr::null_mut()) };
        }
        None
    }

    /// Takes the lock without a guard; `unlock_raw` must follow. For fork handlers.
    #[inline]
    pub fn lock_raw(&self) {
        if self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.lock_contended();
        }
    }

    /// Releases a lock that this thread holds.
    #[inline]
    pub fn unlock_raw(&self) {
        if self.state.swap(FREE, Ordering::Release) == WAITED_FOR {
            wake(&self.state);
        }
    }

    /// Makes the lock free whatever it was: in a forked child, where its holder may not exist.
    pub fn reset(&self) {
        self.state.store(FREE, Ordering::Relaxed);
    }

    /// Whether somebody holds it, for assertions.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.state.load(Ordering::Relaxed) != FREE
    }

    #[cold]
    fn lock_contended(&self) {
        let _errno = crate::errno::Saved::new();
        for _ in 0..100 {
            if self.state.load(Ordering::Relaxed) == FREE
                && self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return;
            }
            core::hint::spin_loop();
        }
        while self.state.swap(WAITED_FOR, Ordering::Acquire) != FREE {
            wait(&self.state, WAITED_FOR);
        }
    }
}

impl Drop for LockGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.lock.unlock_raw();
    }
}

cfg_if::cfg_if! {
    if #[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))] {
        fn wait(word: &AtomicU32, expected: u32) {
            // SAFETY: the word outlives the call; the kernel only compares and sleeps.
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    word.as_ptr(),
                    libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                    expected,
                    core::ptr::null::<libc::timespec>(),
                );
            }
        }

        #[cold]
        fn wake(word: &AtomicU32) {
            let _errno = crate::errno::Saved::new();
            // SAFETY: FUTEX_WAKE does not touch the word.
            unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1) };
        }
    } else {
        fn wait(_word: &AtomicU32, _expected: u32) {
            // SAFETY: sched_yield has no precondition.
            unsafe { libc::sched_yield() };
        }

        fn wake(_word: &AtomicU32) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::UnsafeCell;

    struct Counter(Lock, UnsafeCell<u64>);
    // SAFETY: the cell is touched only under the lock.
    unsafe impl Sync for Counter {}

    #[test]
    fn excludes() {
        let counter = Counter(Lock::new(), UnsafeCell::new(0));
        let rounds = if cfg!(miri) { 50 } else { 50_000 };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let counter = &counter;
                    for _ in 0..rounds {
                        let _guard = counter.0.lock();
                        // SAFETY: under the lock.
                        unsafe { *counter.1.get() += 1 };
                    }
                });
            }
        });
        assert_eq!(counter.1.into_inner(), 4 * rounds);
        assert!(!counter.0.is_held());
        let guard = counter.0.lock();
        assert!(counter.0.try_lock().is_none());
        assert!(counter.0.lock_for_report().is_none());
        drop(guard);
        assert!(counter.0.lock_for_report().is_some());
        assert!(counter.0.try_lock().is_some());
    }
}
