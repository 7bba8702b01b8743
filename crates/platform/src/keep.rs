//! `errno` kept across a call that may change it, in a handful of instructions.
//!
//! `__errno_location` is a call; but libc's `errno` lies at the same distance from the thread pointer in every thread
//! (it is in the block of thread-local memory that is laid out before the program starts). So that distance is looked
//! up once, and from then on saving and restoring are a load and a store.

cfg_if::cfg_if! {
    if #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))] {
        use core::arch::asm;
        use core::sync::atomic::{AtomicUsize, Ordering};

        /// From the thread pointer to `errno`; 0 until it is looked up (no thread-local variable lies at 0).
        static DISTANCE: AtomicUsize = AtomicUsize::new(0);

        #[cold]
        #[inline(never)]
        fn look_up() -> usize {
            let thread: usize;
            #[cfg(target_arch = "x86_64")]
            // SAFETY: on Linux the word at fs:0 is the thread pointer itself.
            unsafe {
                asm!("mov {}, qword ptr fs:[0]", out(reg) thread, options(nostack, preserves_flags, readonly));
            }
            #[cfg(target_arch = "aarch64")]
            // SAFETY: reads the thread pointer.
            unsafe {
                asm!("mrs {}, tpidr_el0", out(reg) thread, options(nostack, preserves_flags, nomem));
            }
            // SAFETY: no precondition.
            let distance = unsafe { libc::__errno_location() }.addr().wrapping_sub(thread);
            DISTANCE.store(distance, Ordering::Relaxed);
            distance
        }

        #[inline(always)]
        fn load(distance: usize) -> u32 {
            let value: u32;
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `distance` leads to this thread's errno.
            unsafe {
                asm!("mov {:e}, dword ptr fs:[{}]", out(reg) value, in(reg) distance,
                    options(nostack, preserves_flags, readonly));
            }
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            unsafe {
                asm!("mrs {t}, tpidr_el0", "ldr {v:w}, [{t}, {d}]", t = out(reg) _, v = lateout(reg) value,
                    d = in(reg) distance, options(nostack, preserves_flags, readonly));
            }
            value
        }

        #[inline(always)]
        fn store(distance: usize, value: u32) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `distance` leads to this thread's errno.
            unsafe {
                asm!("mov dword ptr fs:[{}], {:e}", in(reg) distance, in(reg) value,
                    options(nostack, preserves_flags));
            }
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            unsafe {
                asm!("mrs {t}, tpidr_el0", "str {v:w}, [{t}, {d}]", t = out(reg) _, v = in(reg) value,
                    d = in(reg) distance, options(nostack, preserves_flags));
            }
        }

        /// What `call` gives, with `errno` afterwards as it was before.
        #[inline(always)]
        pub fn keep_errno<R>(call: impl FnOnce() -> R) -> R {
            let mut distance = DISTANCE.load(Ordering::Relaxed);
            if distance == 0 {
                distance = look_up();
            }
            let saved = load(distance);
            let result = call();
            store(distance, saved);
            result
        }
    } else {
        /// What `call` gives, with `errno` afterwards as it was before.
        #[inline(always)]
        pub fn keep_errno<R>(call: impl FnOnce() -> R) -> R {
            let _errno = crate::errno::Saved::new();
            call()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errno;

    #[test]
    fn each_thread_keeps_its_own() {
        let check = |before: i32| {
            errno::set(before);
            let result = keep_errno(|| {
                errno::set(errno::ENOMEM);
                7
            });
            assert_eq!((result, errno::get()), (7, before));
        };
        check(3);
        std::thread::scope(|scope| {
            scope.spawn(|| check(4));
            scope.spawn(|| check(5));
        });
        assert_eq!(errno::get(), 3);
    }
}
