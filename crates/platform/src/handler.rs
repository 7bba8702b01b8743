//! The program's own function for faults: `ak_error_handler_set`. It lies this low so that backends reach it too.
//!
//! Invariants: whoever calls [`call`] holds no lock and has its records in order, since the function may allocate; a fault
//! that happens inside the function is not handed to it again. A pair of function and argument is one record that never
//! changes, so a thread sees both or neither.

use crate::{meta, peek, thread_cell};
use allokit_core::Fault;
use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

/// `ak_error_fn`
pub type Handler = unsafe extern "C" fn(fault: *const Fault, argument: *mut c_void);

struct Record {
    handler: Handler,
    argument: *mut c_void,
    next: *mut Record,
}

/// All pairs that were ever set.
static RECORDS: AtomicPtr<Record> = AtomicPtr::new(ptr::null_mut());
static CURRENT: AtomicPtr<Record> = AtomicPtr::new(ptr::null_mut());

/// What the cell points at outside the function; compared, never read.
static OUTSIDE: Frame = Frame([0; FRAME]);

/// Lies on the stack of [`call`] while the function runs: how it is known whether that call is still there, or was left by
/// `longjmp` or an exception. So long that later calls in its place write something there; in one page.
#[repr(C, align(512))]
struct Frame([usize; FRAME]);

const FRAME: usize = 64;

impl Frame {
    fn word(addr: usize) -> usize {
        addr.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
    }
}

thread_cell! { static FAULT_HANDLER: *mut Frame = OUTSIDE; }

/// Whether this thread is in the function now.
fn is_inside() -> bool {
    let frame = FAULT_HANDLER::get();
    if ptr::eq(frame, &raw const OUTSIDE) {
        return false;
    }
    // The stack that it lay on may be gone; or this call lies where it should be, or further out.
    let here = 0u8;
    let still_there = match peek::words(frame.addr()) {
        Some(_) if (&raw const here).addr() > frame.addr() => false,
        Some(_) => (0..FRAME).all(|at| {
            // SAFETY: the page is there.
            unsafe { frame.cast::<usize>().add(at).read_volatile() == Frame::word(frame.addr()) }
        }),
        None => cfg!(not(any(target_os = "linux", target_os = "android"))) || cfg!(miri),
    };
    if !still_there {
        FAULT_HANDLER::set((&raw const OUTSIDE).cast_mut());
    }
    still_there
}

/// Sets the function, or none. False, with nothing changed, when there is no memory to remember it.
pub fn set(handler: Option<Handler>, argument: *mut c_void) -> bool {
    let Some(handler) = handler else {
        CURRENT.store(ptr::null_mut(), Ordering::Release);
        return true;
    };
    let first = RECORDS.load(Ordering::Acquire);
    let mut known = first;
    // SAFETY: records are there for good and do not change once they are in the list.
    while let Some(record) = unsafe { known.as_ref() } {
        if ptr::fn_addr_eq(record.handler, handler) && record.argument == argument {
            CURRENT.store(known, Ordering::Release);
            return true;
        }
        known = record.next;
    }
    let made = meta::alloc(size_of::<Record>(), align_of::<Record>()).cast::<Record>();
    if made.is_null() {
        return false;
    }
    // SAFETY: the memory is ours until it is published below.
    unsafe { made.write(Record { handler, argument, next: first }) };
    // Another thread was first: its pair stays in the list, and this one is found through no list, only a little lost.
    let _ = RECORDS.compare_exchange(first, made, Ordering::AcqRel, Ordering::Relaxed);
    CURRENT.store(made, Ordering::Release);
    true
}

/// Whether [`call`] would call somebody.
#[must_use]
pub fn is_set() -> bool {
    !CURRENT.load(Ordering::Acquire).is_null() && !is_inside()
}

/// Hands a fault to the program's function. The caller keeps `errno`.
#[cold]
pub fn call(fault: &Fault) {
    // SAFETY: records are there for good.
    let Some(record) = (unsafe { CURRENT.load(Ordering::Acquire).as_ref() }) else { return };
    if is_inside() {
        return;
    }
    let mut frame = Frame([0; FRAME]);
    let place = &raw mut frame;
    let fill = |word: usize| {
        // SAFETY: our own variable. (Volatile: nothing here reads it.)
        (0..FRAME).for_each(|at| unsafe { place.cast::<usize>().add(at).write_volatile(word) });
    };
    fill(Frame::word(place.addr()));
    FAULT_HANDLER::set(place);
    // SAFETY: the program vouches for its function and argument.
    unsafe { (record.handler)(fault, record.argument) };
    FAULT_HANDLER::set((&raw const OUTSIDE).cast_mut());
    // What is left on the stack is no sign of a call.
    fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use allokit_core::FaultKind;
    use core::sync::atomic::AtomicUsize;

    unsafe extern "C" fn count(fault: *const Fault, argument: *mut c_void) {
        // SAFETY: the test's own.
        unsafe { (*argument.cast::<AtomicUsize>()).fetch_add((*fault).size, Ordering::Relaxed) };
        assert!(!is_set());
        // SAFETY: as above.
        call(unsafe { &*fault }); // does nothing
    }

    #[test]
    fn the_pair_that_was_set_is_called_and_not_inside_itself() {
        let (one, other) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let fault = || Fault { size: 5, ..Fault::new(FaultKind::Leak) };
        let address = |of: &AtomicUsize| ptr::from_ref(of).cast_mut().cast::<c_void>();
        call(&fault());
        assert!(set(Some(count), address(&one)) && is_set());
        call(&fault());
        std::thread::scope(|scope| {
            scope.spawn(|| call(&fault()));
        });
        assert!(set(Some(count), address(&other)));
        call(&fault());
        let before = RECORDS.load(Ordering::Relaxed);
        assert!(set(Some(count), address(&one)));
        if !cfg!(miri) {
            // (Under Miri a function has another address each time.)
            assert_eq!(RECORDS.load(Ordering::Relaxed), before, "a pair that was set before needs no new record");
        }
        call(&fault());
        assert!(set(None, ptr::null_mut()) && !is_set());
        call(&fault());
        assert_eq!((one.into_inner(), other.into_inner()), (15, 5));
    }
}
