//! The calling thread's stack by the tables that compilers write for exceptions (`.eh_frame`), which are there with and
//! without frame pointers: asked of the unwinder that the process has, or of libgcc_s.so.1. Costs microseconds, so it is
//! for what happens seldom.

cfg_if::cfg_if! {
    if #[cfg(all(target_os = "linux", not(miri)))] {
        use core::ffi::c_void;
        use core::ptr;
        use core::sync::atomic::{AtomicPtr, Ordering};

        type Step = unsafe extern "C" fn(context: *mut c_void, argument: *mut c_void) -> i32;
        type Trace = unsafe extern "C" fn(step: Step, argument: *mut c_void) -> i32;
        type Address = unsafe extern "C" fn(context: *mut c_void) -> usize;

        static TRACE: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
        static ADDRESS: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

        /// Finds the unwinder, loading it if need be; whether there is one. May allocate: to be called while the library
        /// is loaded, or from a call of the program's that is no allocation.
        pub fn prepare() -> bool {
            if !TRACE.load(Ordering::Acquire).is_null() {
                return true;
            }
            // SAFETY: the names are zero-terminated; a library that is loaded here stays.
            unsafe {
                let find = |handle| {
                    (libc::dlsym(handle, c"_Unwind_Backtrace".as_ptr()), libc::dlsym(handle, c"_Unwind_GetIP".as_ptr()))
                };
                let mut found = find(libc::RTLD_DEFAULT);
                if found.0.is_null() || found.1.is_null() {
                    let library = libc::dlopen(c"libgcc_s.so.1".as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
                    if library.is_null() {
                        return false;
                    }
                    found = find(library);
                }
                if found.0.is_null() || found.1.is_null() {
                    return false;
                }
                ADDRESS.store(found.1, Ordering::Relaxed);
                TRACE.store(found.0, Ordering::Release);
            }
            // Once, so that what it needs at first is there.
            frames(0, &mut [0; 1]);
            true
        }

        struct Walk<'a> {
            address: Address,
            /// Frames before this instruction are left out; 0: none.
            from: usize,
            frames: &'a mut [usize],
            count: usize,
        }

        unsafe extern "C" fn step(context: *mut c_void, argument: *mut c_void) -> i32 {
            const GO_ON: i32 = 0;
            const END: i32 = 5;
            // SAFETY: the argument is the walk of the call below, which waits; the context is the unwinder's.
            unsafe {
                let walk = &mut *argument.cast::<Walk<'_>>();
                let at = (walk.address)(context);
                if walk.from != 0 && at != walk.from {
                    return GO_ON;
                }
                walk.from = 0;
                if at == 0 || walk.count == walk.frames.len() {
                    return END;
                }
                walk.frames[walk.count] = at;
                walk.count += 1;
                if walk.count == walk.frames.len() { END } else { GO_ON }
            }
        }

        /// The return addresses of the calling thread, the innermost first, from the frame on that is at the instruction
        /// `from` (0: this function's own); how many there are. None without [`prepare`].
        pub fn frames(from: usize, frames: &mut [usize]) -> usize {
            let trace = TRACE.load(Ordering::Acquire);
            if trace.is_null() || frames.is_empty() {
                return 0;
            }
            // SAFETY: the two functions are what their names say, by the ABI of exceptions; the walk outlives the call.
            unsafe {
                let trace = core::mem::transmute::<*mut c_void, Trace>(trace);
                let address = core::mem::transmute::<*mut c_void, Address>(ADDRESS.load(Ordering::Relaxed));
                let mut walk = Walk { address, from, frames, count: 0 };
                trace(step, (&raw mut walk).cast());
                walk.count
            }
        }
    } else {
        /// There is none here.
        pub fn prepare() -> bool {
            false
        }

        /// As elsewhere: none.
        pub fn frames(_from: usize, _frames: &mut [usize]) -> usize {
            0
        }
    }
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    #[test]
    fn a_frame_is_where_the_call_returns_to() {
        #[inline(never)]
        fn here() -> [usize; 8] {
            let mut frames = [0; 8];
            assert!(super::prepare());
            let count = super::frames(0, &mut frames);
            assert!(count > 3, "{count}");
            frames
        }
        let (one, other) = (here(), here());
        // Two calls of one function: the frames below it are the same, and so are those above this one.
        assert_ne!(one, other);
        assert_eq!(one.iter().zip(&other).filter(|(a, b)| a != b).count(), 1, "{one:x?} {other:x?}");
        let mut rest = [0; 8];
        let from = here()[2];
        let count = super::frames(from, &mut rest);
        assert!(count == 0 || rest[0] == from);
        assert_eq!(super::frames(0, &mut []), 0);
    }
}
