//! A thread that serves who talks to the running process from outside: it does what is written, line by line, into a pipe with a
//! name, or what a signal says, answers connections one after another, and does something at intervals. Only where there are such pipes.

/// The line that a signal writes, without its end.
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
        use core::cell::UnsafeCell;
        use core::ffi::{CStr, c_void};
        use core::mem::MaybeUninit;
        use core::ptr;
        use crate::{clock, process};
        use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

        /// The longest line.
        const MOST: usize = 1024;

        /// The process that listens.
        static HERE: AtomicU32 = AtomicU32::new(0);

        /// An open file, and what tells it from another that has its number later: the program may close all it knows nothing
        /// of.
        #[derive(Clone, Copy, Debug)]
        pub struct Open {
            fd: i32,
            device: u64,
            inode: u64,
        }

        impl Open {
            /// The file of this descriptor.
            #[must_use]
            pub fn new(fd: i32) -> Option<Open> {
                let mut about = MaybeUninit::<libc::stat>::uninit();
                // SAFETY: the struct is read only when it was filled.
                unsafe {
                    (libc::fstat(fd, about.as_mut_ptr()) == 0).then(|| {
                        let about = about.assume_init();
                        #[allow(clippy::unnecessary_cast)] // other types on some targets
                        Open { fd, device: about.st_dev as u64, inode: about.st_ino as u64 }
                    })
                }
            }

            fn is_there(&self) -> bool {
                Open::new(self.fd).is_some_and(|now| (now.device, now.inode) == (self.device, self.inode))
            }

        }

        /// What the thread is to do.
        #[derive(Clone, Copy, Debug)]
        pub struct Orders {
            /// The pipe, of [`pipe`], and what is called with each line, without its end.
            pub pipe: Option<Open>,
            /// The pipe of [`signals`]: what is called is the same, with [`SIGNALLED`].
            pub signals: Option<Open>,
            /// See above.
            pub act: fn(&[u8]),
            /// A socket that listens, and what is called with each connection's descriptor, which is closed afterwards.
            pub socket: Option<Open>,
            /// See above.
            pub serve: fn(i32),
            /// Every so many ms, 0 for never, and what is called then.
            pub every_ms: u64,
            /// See above.
            pub tick: fn(),
        }

        struct Kept(UnsafeCell<MaybeUninit<Orders>>);
        // SAFETY: written once, before the thread that reads it is made.
        unsafe impl Sync for Kept {}
        static ORDERS: Kept = Kept(UnsafeCell::new(MaybeUninit::uninit()));

        /// Makes the pipe (only its owner may write to it) unless there is one. `None` with `errno` when there can be none, EEXIST
        /// when the path is something else.
        #[must_use]
        pub fn pipe(path: &CStr) -> Option<Open> {
            // SAFETY: the path is zero-terminated; the struct is read only when it was filled.
            unsafe {
                if libc::mkfifo(path.as_ptr(), 0o600) != 0 && crate::errno::get() != libc::EEXIST {
                    return None;
                }
                // Readable and writable: there is a writer always, so a read waits for the next one.
                let fd = libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOFOLLOW);
                if fd < 0 {
                    return None;
                }
                let mut about = MaybeUninit::<libc::stat>::uninit();
                let is_pipe = libc::fstat(fd, about.as_mut_ptr()) == 0
                    && about.assume_init().st_mode & libc::S_IFMT == libc::S_IFIFO;
                let open = if is_pipe { Open::new(fd) } else { None };
                if open.is_none() {
                    libc::close(fd);
                    crate::errno::set(libc::EEXIST);
                }
                open
            }
        }

        /// Where the handler of the signal writes to: a descriptor; -1 for none.
        static TO: AtomicI32 = AtomicI32::new(-1);
        static TO_INODE: AtomicU64 = AtomicU64::new(0);

        /// Makes a pipe into which each signal of that number writes a line: its handler does no more. `None` when the program
        /// (or who started it) has done something about the signal already, or there can be no pipe. Once a process.
        #[must_use]
        pub fn signals(number: i32) -> Option<Open> {
            // SAFETY: the structs are filled before they are read; the handler is a function for good.
            unsafe {
                let mut before = MaybeUninit::<libc::sigaction>::uninit();
                if libc::sigaction(number, ptr::null(), before.as_mut_ptr()) != 0
                    || before.assume_init().sa_sigaction != libc::SIG_DFL
                {
                    return None;
                }
                // A writer must not wait for the thread: what does not fit is one signal of many.
                let mut ends = [0; 2];
                if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) != 0 {
                    return None;
                }
                let (from, to) = (Open::new(ends[0])?, Open::new(ends[1])?);
                TO_INODE.store(to.inode, Ordering::Relaxed);
                TO.store(to.fd, Ordering::Release);
                let mut action: libc::sigaction = core::mem::zeroed();
                action.sa_sigaction = tell as extern "C" fn(i32) as usize;
                action.sa_flags = libc::SA_RESTART;
                libc::sigemptyset(&raw mut action.sa_mask);
                (libc::sigaction(number, &raw const action, ptr::null_mut()) == 0).then_some(from)
            }
        }

        /// The handler.
        extern "C" fn tell(_number: i32) {
            // A forked child has the handler, and nobody who reads.
            if !is_here() {
                return;
            }
            let _errno = crate::errno::Saved::new();
            let to = TO.load(Ordering::Acquire);
            // The program may have closed all it knows nothing of.
            if Open::new(to).is_some_and(|open| open.inode == TO_INODE.load(Ordering::Relaxed)) {
                let line = b"signal\n";
                // SAFETY: the line is a constant; write is allowed in a handler.
                unsafe { libc::write(to, line.as_ptr().cast(), line.len()) };
            }
        }

        /// Makes a thread that does what is ordered. It sleeps until there is something to do, takes no signals, and is not there
        /// in a forked child. False with `errno` when there can be none. Once a process.
        pub fn start(orders: Orders) -> bool {
            // SAFETY: the structs are filled by the calls before they are read; nobody reads ORDERS yet.
            unsafe {
                (*ORDERS.0.get()).write(orders);
                HERE.store(process::id(), Ordering::Release);
                let (mut all, mut before) = (MaybeUninit::<libc::sigset_t>::uninit(), MaybeUninit::uninit());
                libc::sigfillset(all.as_mut_ptr());
                libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
                let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
                let made = libc::pthread_create(thread.as_mut_ptr(), ptr::null(), run, ptr::null_mut());
                libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
                if made != 0 {
                    HERE.store(0, Ordering::Release);
                    crate::errno::set(made);
                    return false;
                }
                libc::pthread_detach(thread.assume_init());
                true
            }
        }

        /// Whether the thread is in this process, and not in one that has forked it.
        #[must_use]
        pub fn is_here() -> bool {
            HERE.load(Ordering::Acquire) == process::id()
        }

        fn socket() -> Option<Open> {
            if HERE.load(Ordering::Acquire) == 0 {
                return None;
            }
            // SAFETY: written before HERE.
            unsafe { (*ORDERS.0.get()).assume_init_ref() }.socket.filter(Open::is_there)
        }

        /// Whether the socket that was given to [`start`] is this process's to serve.
        #[must_use]
        pub fn listens() -> bool {
            is_here() && socket().is_some()
        }

        /// A child has no thread that serves, and is not to keep the socket's port when its parent has ended.
        ///
        /// # Safety
        /// To be called in a forked child only.
        pub unsafe extern "C" fn close_socket_in_child() {
            if let Some(open) = socket() {
                // SAFETY: the descriptor is that of the socket still.
                unsafe { libc::close(open.fd) };
            }
        }

        /// Lines that come in pieces.
        struct Lines {
            line: [u8; MOST],
            used: usize,
        }

        impl Lines {
            /// Reads what there is and does it; false when there is no more to come.
            fn read(&mut self, fd: i32, act: fn(&[u8])) -> bool {
                let room = &mut self.line[self.used..];
                // SAFETY: the rest of the line is ours.
                let got = unsafe { libc::read(fd, room.as_mut_ptr().cast(), room.len()) };
                let Ok(got) = usize::try_from(got) else {
                    return matches!(crate::errno::get(), libc::EINTR | libc::EAGAIN);
                };
                self.used += got;
                while let Some(end) = self.line[..self.used].iter().position(|&byte| byte == b'\n') {
                    act(&self.line[..end]);
                    self.line.copy_within(end + 1..self.used, 0);
                    self.used -= end + 1;
                }
                if self.used == MOST {
                    // No line of ours is that long: what there is of it is shown to be wrong.
                    act(&self.line);
                    self.used = 0;
                }
                true
            }
        }

        extern "C" fn run(_: *mut c_void) -> *mut c_void {
            // SAFETY: written before this thread was made.
            let orders = unsafe { *(*ORDERS.0.get()).assume_init_ref() };
            let (mut pipe, mut signals, mut socket) = (orders.pipe, orders.signals, orders.socket);
            let mut lines = Lines { line: [0; MOST], used: 0 };
            let mut signal_lines = Lines { line: [0; MOST], used: 0 };
            let mut due = clock::now_ms() + orders.every_ms;
            while pipe.is_some() || signals.is_some() || socket.is_some() || orders.every_ms > 0 {
                let wait = match orders.every_ms {
                    0 => -1,
                    _ => i32::try_from(due.saturating_sub(clock::now_ms())).unwrap_or(i32::MAX),
                };
                let about = |open: Option<Open>| libc::pollfd { fd: open.map_or(-1, |open| open.fd), events: libc::POLLIN, revents: 0 };
                let mut all = [about(pipe), about(socket), about(signals)];
                // SAFETY: three of them.
                unsafe { libc::poll(all.as_mut_ptr(), 3, wait) };
                if all[0].revents != 0
                    && let Some(open) = pipe
                    && !(open.is_there() && lines.read(open.fd, orders.act))
                {
                    pipe = None;
                }
                if all[2].revents != 0
                    && let Some(open) = signals
                    && !(open.is_there() && signal_lines.read(open.fd, orders.act))
                {
                    signals = None;
                }
                if all[1].revents != 0
                    && let Some(open) = socket
                {
                    if open.is_there() {
                        // SAFETY: no address is wanted; the connection is ours.
                        unsafe {
                            let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
                            let connection = libc::accept4(open.fd, ptr::null_mut(), ptr::null_mut(), flags);
                            if connection >= 0 {
                                (orders.serve)(connection);
                                libc::close(connection);
                            } else if matches!(crate::errno::get(), libc::EMFILE | libc::ENFILE | libc::ENOMEM) {
                                // It would be asked for again at once.
                                crate::thread::sleep_ms(200);
                            }
                        }
                    } else {
                        socket = None;
                    }
                }
                if orders.every_ms > 0 && clock::now_ms() >= due {
                    (orders.tick)();
                    // What was missed meanwhile is not made up for.
                    due = clock::now_ms() + orders.every_ms;
                }
            }
            ptr::null_mut()
        }

        /// Takes the pipe or the socket away, at the end of the process that listens.
        pub fn remove(path: &CStr) {
            if is_here() {
                // SAFETY: the path is zero-terminated.
                unsafe { libc::unlink(path.as_ptr()) };
            }
        }
    } else {
        use core::ffi::CStr;

        /// Nothing that can be open here.
        #[derive(Clone, Copy, Debug)]
        pub struct Open;

        /// What the thread is to do, where there is one.
        #[allow(missing_docs)]
        #[derive(Clone, Copy, Debug)]
        pub struct Orders {
            pub pipe: Option<Open>,
            pub signals: Option<Open>,
            pub act: fn(&[u8]),
            pub socket: Option<Open>,
            pub serve: fn(i32),
            pub every_ms: u64,
            pub tick: fn(),
        }

        /// None: there are no such pipes here.
        #[must_use]
        pub fn pipe(_path: &CStr) -> Option<Open> {
            None
        }

        /// False: there is no such thread here.
        pub fn start(_orders: Orders) -> bool {
            false
        }

        /// False.
        #[must_use]
        pub fn is_here() -> bool {
            false
        }

        /// None: there is no thread.
        #[must_use]
        pub fn signals(_number: i32) -> Option<Open> {
            None
        }

        /// Nothing.
        pub fn remove(_path: &CStr) {}
    }
}
