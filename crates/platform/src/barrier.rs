//! A fence between a frequent and a rare side (Dekker's algorithm): the frequent one pays nothing, the rare one has the
//! kernel run a fence on every processor that runs the process (membarrier, Linux 4.14). Where the kernel cannot, both
//! pay for fences.

use core::sync::atomic::{AtomicU8, Ordering, compiler_fence, fence};

const UNKNOWN: u8 = 0;
const ASYMMETRIC: u8 = 1;
const SYMMETRIC: u8 = 2;

static KIND: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Prepares the process; to be called before the first [`light`] that matters. Thread-safe, again and again.
pub fn prepare() {
    if KIND.load(Ordering::Relaxed) == UNKNOWN {
        let kind = if membarrier(REGISTER) { ASYMMETRIC } else { SYMMETRIC };
        // The first one stays: a light side that relied on it may be under way.
        let _ = KIND.compare_exchange(UNKNOWN, kind, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// The frequent side's fence, between its store and its load.
#[inline(always)]
pub fn light() {
    if KIND.load(Ordering::Relaxed) == ASYMMETRIC {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// Whether the frequent side's fence is none for the processor, once [`prepare`] was called. What is worth its while only then
/// may leave the fence out when this was true: see [`lightest`].
#[must_use]
pub fn costs_nothing() -> bool {
    KIND.load(Ordering::Relaxed) == ASYMMETRIC || cfg!(miri)
}

/// The frequent side's fence where [`costs_nothing`] was true. The interpreter has a real one.
#[inline(always)]
pub fn lightest() {
    if cfg!(miri) {
        fence(Ordering::SeqCst);
    } else {
        compiler_fence(Ordering::SeqCst);
    }
}

/// The rare side's fence, between its store and its load. False when it could not be made: nothing may then be concluded
/// from what is loaded.
#[must_use]
pub fn heavy() -> bool {
    // Decided before it is looked at: a thread whose light side is none must not be missed by one that never prepared.
    prepare();
    fence(Ordering::SeqCst);
    KIND.load(Ordering::Relaxed) != ASYMMETRIC || membarrier(COMMAND)
}

cfg_if::cfg_if! {
    if #[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))] {
        /// MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED and MEMBARRIER_CMD_PRIVATE_EXPEDITED.
        const REGISTER: libc::c_int = 1 << 4;
        const COMMAND: libc::c_int = 1 << 3;

        fn membarrier(command: libc::c_int) -> bool {
            crate::keep_errno(|| {
                // SAFETY: membarrier touches no memory of the caller.
                unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
            })
        }
    } else {
        const REGISTER: i32 = 0;
        const COMMAND: i32 = 0;

        fn membarrier(_command: i32) -> bool {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicU32;

    #[test]
    fn both_sides_never_miss_each_other() {
        static FREQUENT: AtomicU32 = AtomicU32::new(0);
        static RARE: AtomicU32 = AtomicU32::new(0);
        static MISSED: AtomicU32 = AtomicU32::new(0);
        prepare();
        let rounds = if cfg!(miri) { 20 } else { 2000 };
        for _ in 0..rounds {
            FREQUENT.store(0, Ordering::SeqCst);
            RARE.store(0, Ordering::SeqCst);
            crate::std::thread::scope(|scope| {
                let frequent = scope.spawn(|| {
                    FREQUENT.store(1, Ordering::Relaxed);
                    light();
                    RARE.load(Ordering::Relaxed)
                });
                RARE.store(1, Ordering::Relaxed);
                let sure = heavy();
                let seen = FREQUENT.load(Ordering::Relaxed);
                if frequent.join().unwrap() == 0 && seen == 0 && sure {
                    MISSED.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        assert_eq!(MISSED.load(Ordering::Relaxed), 0);
    }
}
