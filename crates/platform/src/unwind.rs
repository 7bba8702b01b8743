//! The stack of the calling thread: where a call came in, and the return addresses above it, by frame pointers.
//!
//! Code without frame pointers leaves anything in the register. So each word is looked at only where the thread's own stack
//! certainly is: aligned, above the last one, below the stack's end. A call that comes in on another stack (a signal
//! handler's own, a coroutine's) is on none that is known, and has no frames. What is read may be no return address:
//! [`is_code`] tells, where the loader can be asked without a lock. Code without frame pointers is left by its tables instead
//! where somebody wants that ([`How`]): it takes ten times as long.

#[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64", not(miri)))]
mod eh;

use crate::symbol::{self, Where};
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// Where a call came in: the two registers that its stack is found by. All zeroes: not known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Here {
    /// On x86-64 the place of the return address; on aarch64 the stack pointer.
    sp: usize,
    /// The frame pointer, if that is what the caller keeps there.
    fp: usize,
}

impl Here {
    /// Not known.
    pub const NONE: Here = Here { sp: 0, fp: 0 };

    /// From what an entry that says `frame` hands on: floating-point registers carry them, since those of integers may all
    /// be arguments.
    #[inline(always)]
    #[must_use]
    pub fn new(sp: f64, fp: f64) -> Here {
        Here { sp: sp.to_bits() as usize, fp: fp.to_bits() as usize }
    }
}

/// The calling thread's own stack, up to where it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The lowest address that may be of the stack.
    pub low: usize,
    /// Behind its last byte.
    pub high: usize,
}

impl Bounds {
    /// No stack.
    pub const NONE: Bounds = Bounds { low: 0, high: 0 };
}

/// A frame begins with the next frame's address and the return address.
const FRAME: usize = 2 * size_of::<usize>();

/// How callers are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By frame pointers.
    Pointers,
    /// By the tables of the code, and by frame pointers where it has none; where tables cannot be read, as
    /// [`How::Pointers`]: see [`has_tables`].
    Tables,
}

/// The return addresses above a call, the innermost first, as many as there are and `frames` takes; without the one that the
/// call itself returns to. Reads nothing outside `stack`.
///
/// # Safety
/// `stack` is of the calling thread, which came in at `here` and has not returned from there.
#[must_use]
pub unsafe fn walk(here: Here, stack: Bounds, how: How, frames: &mut [MaybeUninit<usize>]) -> &[usize] {
    if here.sp < stack.low || here.sp >= stack.high {
        return &[];
    }
    #[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64", not(miri)))]
    if how == How::Tables && has_tables() && here.sp.is_multiple_of(size_of::<usize>()) {
        // SAFETY: the return address lies there; the caller's promise.
        unsafe {
            let caller = core::ptr::with_exposed_provenance::<usize>(here.sp).read_volatile();
            return eh::walk(here, caller, stack, frames);
        }
    }
    let _ = how;
    // (On aarch64 the caller's frame may begin where its stack ends.)
    let mut least = if cfg!(target_arch = "aarch64") { here.sp } else { here.sp + 1 };
    let (mut fp, mut count) = (here.fp, 0);
    while count < frames.len()
        // SAFETY: `stack` is this thread's, in use from `least` on.
        && let Some([next, caller]) = unsafe { frame_at(fp, least, stack) }
    {
        // Bits that sign an address are none of it.
        let caller = if cfg!(target_arch = "aarch64") { caller & ((1 << 48) - 1) } else { caller };
        if caller < 4096 {
            break;
        }
        frames[count].write(caller);
        count += 1;
        (least, fp) = (fp + FRAME, next);
    }
    // SAFETY: so many are written.
    unsafe { frames[..count].assume_init_ref() }
}

/// The two words of the frame at `fp`, if one may be there: aligned, not below `least`.
///
/// # Safety
/// From `least` to its end the stack is in use.
#[inline(always)]
unsafe fn frame_at(fp: usize, least: usize, stack: Bounds) -> Option<[usize; 2]> {
    let may_be = fp >= least && fp <= stack.high - FRAME && fp.is_multiple_of(FRAME);
    // SAFETY: between where the thread is and where its stack began all of it is there; aligned.
    may_be.then(|| unsafe { core::ptr::with_exposed_provenance::<[usize; 2]>(fp).read_volatile() })
}

/// Whether [`How::Tables`] can be had; known after [`prepare`].
#[must_use]
pub fn has_tables() -> bool {
    cfg!(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64", not(miri)))
        && find_object().is_some()
}

/// Bounds of the calling thread's stack; `None` where they cannot be told. Takes microseconds, and may allocate: once a
/// thread.
#[must_use]
pub fn bounds() -> Option<Bounds> {
    cfg_if::cfg_if! {
        if #[cfg(all(target_os = "linux", not(miri)))] {
            // SAFETY: no preconditions.
            if unsafe { libc::getpid() == libc::gettid() } { first_thread() } else { other_thread() }
        } else {
            None
        }
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
fn other_thread() -> Option<Bounds> {
    // SAFETY: the struct is filled before it is read; the calls are about the calling thread.
    unsafe {
        let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return None;
        }
        let (mut start, mut size): (*mut c_void, usize) = (core::ptr::null_mut(), 0);
        let known = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut start, &raw mut size) == 0;
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        (known && size > 0).then(|| Bounds { low: start.addr(), high: start.addr() + size })
    }
}

/// The stack of the process's first thread grows: it may be as long as its limit allows. (pthread_getattr_np would open a
/// stream, too early in a process for that.)
#[cfg(all(target_os = "linux", not(miri)))]
fn first_thread() -> Option<Bounds> {
    const USUAL: usize = 8 << 20;
    const MOST: usize = 128 << 20;
    let here = 0u8;
    let mapped = mapping_of((&raw const here).addr())?;
    // SAFETY: the struct is filled by the call.
    let limit = unsafe {
        let mut limit: libc::rlimit = core::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit) == 0 { limit.rlim_cur as usize } else { USUAL }
    };
    // The system keeps no more than this free below a stack.
    Some(Bounds { low: mapped.low.min(mapped.high.saturating_sub(limit.min(MOST))), high: mapped.high })
}

/// The mapping that an address lies in, as the system tells.
#[cfg(all(target_os = "linux", not(miri)))]
fn mapping_of(address: usize) -> Option<Bounds> {
    // SAFETY: the path is zero-terminated.
    let fd = unsafe { libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if fd < 0 {
        return None;
    }
    let (mut numbers, mut which, mut found, mut room) = ([0usize; 2], 0, None, [0u8; 1024]);
    'all: loop {
        // SAFETY: the buffer is ours.
        let got = unsafe { libc::read(fd, room.as_mut_ptr().cast(), room.len()) };
        if got <= 0 {
            break;
        }
        // Lines begin with `low-high `.
        for &byte in &room[..got as usize] {
            match (byte, which) {
                (b'\n', _) => (numbers, which) = ([0; 2], 0),
                (b'-', 0) => which = 1,
                (b' ', 1) => {
                    which = 2;
                    if (numbers[0]..numbers[1]).contains(&address) {
                        found = Some(Bounds { low: numbers[0], high: numbers[1] });
                        break 'all;
                    }
                }
                (_, 0 | 1) => {
                    let digit = (byte as char).to_digit(16).unwrap_or(0) as usize;
                    numbers[which] = numbers[which] << 4 | digit;
                }
                _ => {}
            }
        }
    }
    // SAFETY: the descriptor is ours.
    unsafe { libc::close(fd) };
    found
}

/// `struct dl_find_object` of glibc 2.35 and later.
#[repr(C)]
struct Object {
    flags: u64,
    start: *const c_void,
    end: *const c_void,
    link_map: *const c_void,
    /// Of `.eh_frame_hdr`.
    eh_frame: *const c_void,
    rest: [u64; 8],
}

type FindObject = unsafe extern "C" fn(*const c_void, *mut Object) -> i32;

/// The loader's function, once it was looked for; else null, also where there is none.
static FIND_OBJECT: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());

/// Looks for what the loader offers; before that the others do with less. May allocate. (Not bound when this library is
/// loaded: it would then not load where that function is missing.)
pub fn prepare() {
    static ASKED: AtomicBool = AtomicBool::new(false);
    if !ASKED.swap(true, Ordering::Relaxed) {
        FIND_OBJECT.store(symbol::find(Where::Program, c"_dl_find_object"), Ordering::Release);
    }
}

fn find_object() -> Option<FindObject> {
    // SAFETY: null, or the function of this name, which has this type.
    unsafe { core::mem::transmute(FIND_OBJECT.load(Ordering::Acquire)) }
}

/// The loaded module that an address lies in. Without a lock; `None` also where the loader cannot be asked so.
fn object_of(address: usize) -> Option<Object> {
    let find = find_object()?;
    let mut object = MaybeUninit::<Object>::zeroed();
    // SAFETY: the function takes any address and fills the struct, which has room for more than it knows.
    unsafe { (find(core::ptr::without_provenance(address), object.as_mut_ptr()) == 0).then(|| object.assume_init()) }
}

impl Object {
    #[cfg(all(target_os = "linux", target_arch = "x86_64", target_pointer_width = "64", not(miri)))]
    fn has(&self, address: usize) -> bool {
        (self.start.addr()..self.end.addr()).contains(&address)
    }
}

/// Whether an address is in a loaded module; true where that cannot be told.
#[must_use]
pub fn is_code(address: usize) -> bool {
    find_object().is_none() || object_of(address).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(not(miri))] // which wants to know whose memory a frame pointer names
    fn only_what_can_be_a_frame_is_read() {
        #[repr(align(16))]
        struct Stack([usize; 16]);
        let mut stack = Stack([0; 16]);
        let base = stack.0.as_mut_ptr().expose_provenance();
        let bounds = Bounds { low: base, high: base + size_of::<Stack>() };
        let mut frames = [MaybeUninit::uninit(); 8];
        let mut walk_from = |stack: &Stack, fp: usize, sp: usize| {
            let _ = stack;
            // SAFETY: the "stack" is the test's own.
            unsafe { walk(Here { sp, fp }, bounds, How::Pointers, &mut frames) }.to_vec()
        };
        stack.0[2] = base + 6 * 8;
        stack.0[3] = 0x40_1000;
        stack.0[6] = base + 14 * 8;
        stack.0[7] = 0x40_2000;
        stack.0[14] = usize::MAX - 15;
        stack.0[15] = 0x40_3000;
        assert_eq!(walk_from(&stack, base + 16, base), [0x40_1000, 0x40_2000, 0x40_3000]);
        assert_eq!(walk_from(&stack, base + 24, base), [0usize; 0], "not aligned");
        assert_eq!(walk_from(&stack, base + 16, base + 32), [0usize; 0], "below the call");
        assert_eq!(walk_from(&stack, base + 16, base - 8), [0usize; 0], "the call is on another stack");
        assert_eq!(walk_from(&stack, base + 128, base), [0usize; 0], "the frame is on another stack");
        assert_eq!(walk_from(&stack, 0, base), [0usize; 0]);
        stack.0[6] = base + 16;
        assert_eq!(walk_from(&stack, base + 16, base), [0x40_1000, 0x40_2000], "a ring ends");
        stack.0[7] = 0;
        assert_eq!(walk_from(&stack, base + 16, base), [0x40_1000], "nobody has called this");
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn threads_know_their_stacks() {
        let check = || {
            let here = 0usize;
            let bounds = bounds().unwrap();
            assert!(bounds.low < (&raw const here).addr() && (&raw const here).addr() < bounds.high, "{bounds:x?}");
            assert!(bounds.high - bounds.low <= 1 << 30, "{bounds:x?}");
        };
        std::thread::spawn(check).join().unwrap();
        prepare();
        let here = 0usize;
        let mapped = mapping_of((&raw const here).addr()).unwrap();
        assert!(mapped.low < mapped.high && mapped.high.is_multiple_of(4096));
        assert!(is_code(threads_know_their_stacks as *const () as usize) && mapping_of(16).is_none());
        assert!(find_object().is_none() || !is_code(mapped.low), "a stack is no code");
    }
}
