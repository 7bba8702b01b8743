//! What happens when the program touches memory that it may not: a look at the address, before whoever would have been
//! told without us is told.

/// What is to become of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The signal goes to whom it would have gone to.
    PassOn,
    /// The access is tried again: the memory is accessible now.
    Retry,
}

/// An access that failed.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Of the memory.
    pub addr: usize,
    /// Of the instruction; 0 where the system does not tell.
    pub instruction: usize,
    /// Whether it was a write; `None` where the system does not tell.
    pub writes: Option<bool>,
}

cfg_if::cfg_if! {
    if #[cfg(all(target_os = "linux", not(miri)))] {
        use crate::{Lock, errno};
        use core::ffi::c_void;
        use core::mem::MaybeUninit;
        use core::ptr;
        use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

        const SIGNALS: [i32; 2] = [libc::SIGSEGV, libc::SIGBUS];

        static LOCK: Lock = Lock::new();
        static JUDGE: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
        /// What was there before, by the signal's place in `SIGNALS`; written once, before our handler is there.
        static mut BEFORE: [MaybeUninit<libc::sigaction>; 2] = [const { MaybeUninit::uninit() }; 2];
        static INSTALLED: AtomicBool = AtomicBool::new(false);

        /// From now on `judge` sees each access that fails, inside the signal's handler, unless the program sets a handler
        /// of its own later. False when the system refuses. Once a process.
        pub fn watch(judge: fn(&Access) -> Verdict) -> bool {
            let _guard = LOCK.lock();
            JUDGE.store(judge as *mut c_void, Ordering::Release);
            if INSTALLED.load(Ordering::Relaxed) {
                return true;
            }
            // SAFETY: the structs are ours, and filled before they are read; `BEFORE` is written under the lock, while no
            // handler of ours can run.
            unsafe {
                let before = (&raw mut BEFORE).cast::<libc::sigaction>();
                for (place, signal) in SIGNALS.into_iter().enumerate() {
                    if libc::sigaction(signal, ptr::null(), before.add(place)) != 0 {
                        return false;
                    }
                }
                let mut ours: libc::sigaction = core::mem::zeroed();
                ours.sa_sigaction = on_signal as *const () as usize;
                ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                libc::sigemptyset(&raw mut ours.sa_mask);
                for signal in SIGNALS {
                    if libc::sigaction(signal, &raw const ours, ptr::null_mut()) != 0 {
                        return false;
                    }
                }
            }
            INSTALLED.store(true, Ordering::Release);
            true
        }

        unsafe extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
            let errno = errno::Saved::new();
            // SAFETY: the kernel hands over valid structs; the pointer was stored from a function of this type.
            unsafe {
                let judge = JUDGE.load(Ordering::Acquire);
                // A signal that somebody sent has no address.
                if (*info).si_code > 0 && !judge.is_null() {
                    let judge = core::mem::transmute::<*mut c_void, fn(&Access) -> Verdict>(judge);
                    let (instruction, writes) = about(context.cast());
                    let addr = (*info).si_addr().addr();
                    if judge(&Access { addr, instruction, writes }) == Verdict::Retry {
                        return;
                    }
                }
                drop(errno);
                pass_on(signal, info, context);
            }
        }

        /// # Safety
        /// What the kernel has handed to the handler.
        unsafe fn about(context: *const libc::ucontext_t) -> (usize, Option<bool>) {
            if context.is_null() {
                return (0, None);
            }
            cfg_if::cfg_if! {
                if #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))] {
                    // SAFETY: the caller's promise. Bit 1 of a page fault's code says that it was a write.
                    unsafe {
                        let registers = &(*context).uc_mcontext.gregs;
                        let code = registers[libc::REG_ERR as usize];
                        (registers[libc::REG_RIP as usize] as usize, Some(code & 2 != 0))
                    }
                } else if #[cfg(target_arch = "aarch64")] {
                    // SAFETY: the caller's promise.
                    (unsafe { (*context).uc_mcontext.pc as usize }, None)
                } else {
                    (0, None)
                }
            }
        }

        /// # Safety
        /// What the kernel has handed to the handler.
        unsafe fn pass_on(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
            let place = usize::from(signal == SIGNALS[1]);
            // SAFETY: written before this handler was there. A handler of the program's gets what it would have got.
            unsafe {
                let before = &*(&raw const BEFORE).cast::<libc::sigaction>().add(place);
                match before.sa_sigaction {
                    libc::SIG_DFL | libc::SIG_IGN => {
                        // The instruction runs again when this returns, or the signal comes again, and then it ends the
                        // process, where it happened.
                        let mut default: libc::sigaction = core::mem::zeroed();
                        default.sa_sigaction = libc::SIG_DFL;
                        libc::sigaction(signal, &raw const default, ptr::null_mut());
                        if (*info).si_code <= 0 {
                            libc::raise(signal);
                        }
                    }
                    handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
                        let handler = core::mem::transmute::<
                            usize,
                            unsafe extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void),
                        >(handler);
                        handler(signal, info, context);
                    }
                    handler => {
                        let handler = core::mem::transmute::<usize, unsafe extern "C" fn(i32)>(handler);
                        handler(signal);
                    }
                }
            }
        }
    } else {
        /// Not here.
        pub fn watch(_judge: fn(&Access) -> Verdict) -> bool {
            false
        }
    }
}
