//! What a thread is called while it lives, and the end of one.

use core::ffi::c_void;
use core::sync::atomic::{AtomicU64, Ordering};

/// A number of the calling thread's own, never 0; a later thread may have it again once this one has ended. One instruction
/// where the thread's own block is known.
#[inline(always)]
#[must_use]
pub fn identity() -> usize {
    cfg_if::cfg_if! {
        if #[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64", not(miri)))] {
            let block: usize;
            // SAFETY: the ABI has the thread's block begin with its own address.
            unsafe {
                core::arch::asm!("mov {}, qword ptr fs:[0]", out(reg) block, options(nostack, preserves_flags, readonly, pure));
            }
            block
        } else if #[cfg(all(target_os = "linux", target_arch = "aarch64", not(miri)))] {
            let block: usize;
            // SAFETY: reads a register that is the thread's for as long as it lives.
            unsafe { core::arch::asm!("mrs {}, tpidr_el0", out(reg) block, options(nostack, preserves_flags, nomem, pure)) };
            block
        } else {
            // SAFETY: no precondition.
            unsafe { libc::pthread_self() as usize }
        }
    }
}

/// Lets others run: the processor at first, then for a while, so that a waiting thread of a higher priority does not keep
/// the one that it waits for from going on. Keeps `errno`.
pub fn pause(turn: usize) {
    if turn < 100 {
        core::hint::spin_loop();
        return;
    }
    crate::keep_errno(|| {
        // SAFETY: no precondition; the time is valid.
        unsafe {
            if turn < 200 || cfg!(miri) {
                libc::sched_yield();
            } else {
                let time = libc::timespec { tv_sec: 0, tv_nsec: 50_000 };
                libc::nanosleep(&raw const time, core::ptr::null_mut());
            }
        }
    });
}

/// Sleeps.
pub fn sleep_ms(ms: u32) {
    let time = libc::timespec { tv_sec: (ms / 1000) as libc::time_t, tv_nsec: (ms % 1000 * 1_000_000) as _ };
    // SAFETY: the time is valid.
    unsafe { libc::nanosleep(&raw const time, core::ptr::null_mut()) };
}

/// A function that a thread calls when it ends, if it has set a value: a pthread key with a destructor. std's
/// thread-local destructors would allocate when they are registered.
#[derive(Debug)]
pub struct Key {
    /// 0: not made yet; else the key + 1.
    key: AtomicU64,
    destructor: unsafe extern "C" fn(*mut c_void),
}

impl Key {
    /// A key whose destructor gets the value that the ending thread has set. The key itself is made at first use.
    #[must_use]
    pub const fn new(destructor: unsafe extern "C" fn(*mut c_void)) -> Key {
        Key { key: AtomicU64::new(0), destructor }
    }

    /// Sets the calling thread's value; null means that nothing is to be done at its end. False when the system has no
    /// key or no memory left: the destructor will then not run.
    #[allow(clippy::not_unsafe_ptr_arg_deref)] // the value is only handed to the destructor
    pub fn set(&self, value: *mut c_void) -> bool {
        let key = match self.key.load(Ordering::Acquire) {
            0 => match self.make() {
                Some(key) => key,
                None => return false,
            },
            key => (key - 1) as libc::pthread_key_t,
        };
        // SAFETY: the key exists and is never deleted.
        unsafe { libc::pthread_setspecific(key, value) == 0 }
    }

    #[cold]
    fn make(&self) -> Option<libc::pthread_key_t> {
        let mut key: libc::pthread_key_t = 0;
        // SAFETY: `key` is valid for writing and the destructor is a function for good.
        if unsafe { libc::pthread_key_create(&raw mut key, Some(self.destructor)) } != 0 {
            return None;
        }
        let stored = u64::from(key) + 1;
        match self.key.compare_exchange(0, stored, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Some(key),
            Err(other) => {
                // SAFETY: another thread was first; nobody knows this key.
                unsafe { libc::pthread_key_delete(key) };
                Some((other - 1) as libc::pthread_key_t)
            }
        }
    }
}

/// A pthread key for a plain value, made at first use: what [`crate::thread_cell!`] falls back on where the two
/// instructions are not known.
#[derive(Debug)]
pub struct ValueKey(Key);

impl ValueKey {
    /// A key without a value.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> ValueKey {
        unsafe extern "C" fn nothing(_value: *mut c_void) {}
        ValueKey(Key::new(nothing))
    }

    /// The calling thread's value, at first null.
    pub fn get(&self) -> *mut c_void {
        match self.0.key.load(Ordering::Acquire) {
            0 => core::ptr::null_mut(),
            // SAFETY: the key exists and is never deleted.
            key => unsafe { libc::pthread_getspecific((key - 1) as libc::pthread_key_t) },
        }
    }

    /// Sets the calling thread's value; false when the system has no key or no memory left.
    pub fn set(&self, value: *mut c_void) -> bool {
        self.0.set(value)
    }
}

/// The numbers of the process and of this thread, as the system shows them.
#[must_use]
pub fn ids() -> (i32, u64) {
    // SAFETY: neither can fail.
    #[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
    return unsafe { (libc::getpid(), libc::syscall(libc::SYS_gettid) as u64) };
    // SAFETY: as above.
    #[cfg(not(all(any(target_os = "linux", target_os = "android"), not(miri))))]
    return unsafe { (libc::getpid(), libc::pthread_self() as u64) };
}
