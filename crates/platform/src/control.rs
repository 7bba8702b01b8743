//! A thread that does what is written, line by line, into a pipe with a name, or what a signal says: how somebody outside talks
//! to a running process. Only where there are such pipes.

/// The line that a signal writes.
const SIGNALLED_LINE: &[u8] = b"signal\n";
/// The same without its end.
pub const SIGNALLED: &[u8] = b"signal";

/// The number of a signal that is for programs to use, by its name (with or without SIG) or as a number.
#[must_use]
pub fn signal_number(name: &str) -> Option<i32> {
    match name.strip_prefix("SIG").unwrap_or(name) {
        "USR1" => Some(libc::SIGUSR1),
        "USR2" => Some(libc::SIGUSR2),
        "HUP" => Some(libc::SIGHUP),
        "WINCH" => Some(libc::SIGWINCH),
        "URG" => Some(libc::SIGURG),
        number => number
            .parse()
            .ok()
            .filter(|number| (1..=64).contains(number) && ![libc::SIGKILL, libc::SIGSTOP].contains(number)),
    }
}

cfg_if::cfg_if! {
    if #[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))] {
        use core::ffi::{CStr, c_void};
        use core::mem::MaybeUninit;
        use core::ptr;
        use crate::process;
        use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};

        /// The longest line.
        const MOST: usize = 1024;

        static FD: AtomicI32 = AtomicI32::new(-1);
        /// Where it is written to; -1 until there is a thread.
        static TO: AtomicI32 = AtomicI32::new(-1);
        /// The process that listens.
        static HERE: AtomicU32 = AtomicU32::new(0);
        static ACT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

        /// Makes the pipe (only its owner may write to it) unless there is one, and a thread that calls `act` with each line,
        /// without its end. The thread sleeps until something is written, takes no signals, and is not there in a forked
        /// child. False with `errno` when there can be none, EEXIST when the path is something else. Once a process.
        pub fn listen(path: &CStr, act: fn(&[u8])) -> bool {
            // SAFETY: the path is zero-terminated; the structs are filled by the calls before they are read.
            unsafe {
                if libc::mkfifo(path.as_ptr(), 0o600) != 0 && crate::errno::get() != libc::EEXIST {
                    return false;
                }
                // Readable and writable: there is a writer always, so a read waits for the next one.
                let fd = libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOFOLLOW);
                if fd < 0 {
                    return false;
                }
                let mut about = MaybeUninit::<libc::stat>::uninit();
                let is_pipe = libc::fstat(fd, about.as_mut_ptr()) == 0
                    && about.assume_init().st_mode & libc::S_IFMT == libc::S_IFIFO;
                if !is_pipe || libc::fcntl(fd, libc::F_SETFL, 0) != 0 {
                    libc::close(fd);
                    crate::errno::set(libc::EEXIST);
                    return false;
                }
                begin(fd, fd, act)
            }
        }

        /// Reads lines from `from` in a thread of its own.
        ///
        /// # Safety
        /// Both are descriptors of a pipe; they are this module's from now on.
        unsafe fn begin(from: i32, to: i32, act: fn(&[u8])) -> bool {
            // SAFETY: the structs are filled by the calls before they are read.
            unsafe {
                FD.store(from, Ordering::Release);
                HERE.store(process::id(), Ordering::Relaxed);
                ACT.store(act as *mut c_void, Ordering::Release);
                let (mut all, mut before) = (MaybeUninit::<libc::sigset_t>::uninit(), MaybeUninit::uninit());
                libc::sigfillset(all.as_mut_ptr());
                libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
                let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
                let made = libc::pthread_create(thread.as_mut_ptr(), ptr::null(), run, ptr::null_mut());
                libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
                if made != 0 {
                    libc::close(from);
                    if to != from {
                        libc::close(to);
                    }
                    crate::errno::set(made);
                    return false;
                }
                libc::pthread_detach(thread.assume_init());
                TO.store(to, Ordering::Release);
                true
            }
        }

        /// Has the thread of [`listen`], or one of its own kind, called with [`SIGNALLED`] when the signal comes. The signal's
        /// handler does no more than to write that line into the pipe. False when the program (or who started it) has done
        /// something about the signal already, or there can be no thread.
        pub fn on_signal(number: i32, act: fn(&[u8])) -> bool {
            // SAFETY: the structs are filled before they are read; the handler is a function for good.
            unsafe {
                let mut before = MaybeUninit::<libc::sigaction>::uninit();
                if libc::sigaction(number, ptr::null(), before.as_mut_ptr()) != 0
                    || before.assume_init().sa_sigaction != libc::SIG_DFL
                {
                    return false;
                }
                if TO.load(Ordering::Acquire) < 0 {
                    let mut ends = [0; 2];
                    if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) != 0 || !begin(ends[0], ends[1], act) {
                        return false;
                    }
                }
                // A writer must not wait for the thread: what does not fit is one signal of many.
                let flags = libc::fcntl(TO.load(Ordering::Acquire), libc::F_GETFL);
                if TO.load(Ordering::Acquire) != FD.load(Ordering::Acquire) {
                    libc::fcntl(TO.load(Ordering::Acquire), libc::F_SETFL, flags | libc::O_NONBLOCK);
                }
                let mut action: libc::sigaction = core::mem::zeroed();
                action.sa_sigaction = tell as extern "C" fn(i32) as usize;
                action.sa_flags = libc::SA_RESTART;
                libc::sigemptyset(&raw mut action.sa_mask);
                libc::sigaction(number, &raw const action, ptr::null_mut()) == 0
            }
        }

        /// The handler.
        extern "C" fn tell(_number: i32) {
            // A forked child has the handler, and nobody who reads.
            if HERE.load(Ordering::Relaxed) != process::id() {
                return;
            }
            let _errno = crate::errno::Saved::new();
            let line = SIGNALLED_LINE;
            // SAFETY: the line is a constant; write is allowed in a handler.
            unsafe { libc::write(TO.load(Ordering::Relaxed), line.as_ptr().cast(), line.len()) };
        }

        extern "C" fn run(_: *mut c_void) -> *mut c_void {
            let (mut line, mut used) = ([0u8; MOST], 0);
            // SAFETY: `listen` has stored a function of this type.
            let act: fn(&[u8]) = unsafe { core::mem::transmute(ACT.load(Ordering::Acquire)) };
            loop {
                // SAFETY: the rest of the line is ours.
                let got = unsafe { libc::read(FD.load(Ordering::Acquire), line[used..].as_mut_ptr().cast(), MOST - used) };
                let Ok(got) = usize::try_from(got) else {
                    if crate::errno::get() == libc::EINTR {
                        continue;
                    }
                    // The program has closed all it knows nothing of.
                    return ptr::null_mut();
                };
                used += got;
                while let Some(end) = line[..used].iter().position(|&byte| byte == b'\n') {
                    act(&line[..end]);
                    line.copy_within(end + 1..used, 0);
                    used -= end + 1;
                }
                if used == MOST {
                    // No line of ours is that long: what there is of it is shown to be wrong.
                    act(&line);
                    used = 0;
                }
            }
        }

        /// Takes the pipe away, at the end of the process that listens.
        pub fn remove(path: &CStr) {
            // (What a signal writes to has no name.)
            let has_name = TO.load(Ordering::Relaxed) == FD.load(Ordering::Relaxed);
            if has_name && HERE.load(Ordering::Relaxed) == process::id() {
                // SAFETY: the path is zero-terminated.
                unsafe { libc::unlink(path.as_ptr()) };
            }
        }
    } else {
        use core::ffi::CStr;

        /// False: there are no such pipes here.
        pub fn listen(_path: &CStr, _act: fn(&[u8])) -> bool {
            false
        }

        /// False: there is no thread.
        pub fn on_signal(_number: i32, _act: fn(&[u8])) -> bool {
            false
        }

        /// Nothing.
        pub fn remove(_path: &CStr) {}
    }
}
