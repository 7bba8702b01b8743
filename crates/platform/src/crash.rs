//! The last moment of a process that a signal ends.

use core::sync::atomic::{AtomicPtr, Ordering};

static NOTE: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Has `note` called, with the address that was being executed (0 where that is not known), on the thread that a signal of a
/// crash or of `abort` ends; then the signal takes its course. Signals that the program has its own handlers for are left
/// alone, also when it installs them later. `note` must do with what a signal handler may do.
pub fn on_crash(note: fn(usize)) {
    NOTE.store(note as *mut (), Ordering::Release);
    cfg_if::cfg_if! {
        if #[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))] {
            for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGABRT] {
                // SAFETY: the structs are filled; the handler is below.
                unsafe {
                    let mut old: libc::sigaction = core::mem::zeroed();
                    if libc::sigaction(signal, core::ptr::null(), &raw mut old) != 0 || old.sa_sigaction != libc::SIG_DFL {
                        continue;
                    }
                    let mut action: libc::sigaction = core::mem::zeroed();
                    action.sa_sigaction = handler as *const () as usize;
                    // Once: the same fault comes again when the handler has returned, and ends the process.
                    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND | libc::SA_ONSTACK;
                    libc::sigaction(signal, &raw const action, core::ptr::null_mut());
                }
            }
        }
    }
}

#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
unsafe extern "C" fn handler(signal: i32, about: *mut libc::siginfo_t, context: *mut core::ffi::c_void) {
    // SAFETY: the kernel hands over both structs; only functions of this type are stored.
    unsafe {
        let note = NOTE.load(Ordering::Acquire);
        if !note.is_null() {
            let note: fn(usize) = core::mem::transmute(note);
            note(executed(context.cast()));
        }
        // What was sent does not come again by itself.
        if (*about).si_code <= 0 {
            libc::raise(signal);
        }
    }
}

#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
unsafe fn executed(context: *const libc::ucontext_t) -> usize {
    cfg_if::cfg_if! {
        if #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
            // SAFETY: the kernel's struct.
            unsafe { (*context).uc_mcontext.gregs[libc::REG_RIP as usize] as usize }
        } else if #[cfg(all(target_arch = "aarch64", target_os = "linux"))] {
            // SAFETY: as above.
            unsafe { (*context).uc_mcontext.pc as usize }
        } else {
            let _ = context;
            0
        }
    }
}
