//! Whose turn it is: the way into a heap.
//!
//! A heap has a lock. A thread that took it often enough in a row becomes the heap's *owner* and from then on enters without
//! it: it sets `busy`, looks whether it still is the owner, and clears `busy` when it leaves; two stores and two loads, no
//! atomic exchange. Any other thread takes the lock and, if there is an owner, takes that away first: it clears `owner`, has
//! the kernel run a fence on every processor (`barrier::heavy`, a few microseconds), and waits until the heap is not busy. So
//! one of the two always sees the other. Each time that it happens the heap takes four times as long to have an
//! owner again, so threads that take turns do with the lock alone.
//!
//! Invariants: `owner` becomes a thread's number only under the lock, written by that thread; whoever holds the lock and
//! has seen to it that `owner` is 0 is alone; a heap that a tool watches, that is near a limit ([`crate::meter`]), or that has
//! ended has no owner, and none has while they are closed ([`close`]). An owner inside waits for no other heap and not for the tree.

use crate::heap::Raw;
use crate::meter;
use allokit_platform::{barrier, thread};
use core::sync::atomic::{AtomicBool, Ordering};

/// How often in a row a thread takes the lock until it is the owner, at first and at last.
const PATIENCE_FIRST: u32 = 16;
const PATIENCE_LAST: u32 = if cfg!(test) { PATIENCE_FIRST } else { 1 << 16 };

/// Whether no heap gets an owner.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// From now on no heap has an owner, so that every call takes the long way; or each may have one again.
///
/// # Safety
/// `each` visits every heap there is; others get no owner as long as it is closed.
pub(crate) unsafe fn close(closed: bool, each: impl Fn(&mut dyn FnMut(*mut Raw))) {
    if CLOSED.swap(closed, Ordering::SeqCst) || !closed {
        return;
    }
    // SAFETY: the caller's promise; the lock is held.
    unsafe {
        each(&mut |h| {
            (*h).lock.lock_raw();
            if (*h).owner.load(Ordering::Relaxed) != 0 {
                disown(h);
            }
            (*h).lock.unlock_raw();
        });
    }
}

/// The part of a heap's record that is used under its lock only.
pub(crate) struct Habit {
    /// Who had the lock the last time, and how often in a row.
    last: usize,
    row: u32,
    patience: u32,
}

impl Habit {
    pub const NONE: Habit = Habit { last: 0, row: 0, patience: PATIENCE_FIRST };
}

/// Being alone in a heap; ends when it is dropped.
pub(crate) struct Turn {
    h: *mut Raw,
    owner: bool,
}

/// Whether `h` lives and the calling thread is its owner; if so it is busy now, and [`leave`] must follow.
///
/// # Safety
/// `h` is null, or was a heap, or is readable.
#[inline(always)]
pub(crate) unsafe fn enter_as_owner(h: *mut Raw) -> bool {
    let me = thread::identity();
    // SAFETY: the caller's promise; a heap that has ended has no owner.
    unsafe {
        if h.is_null() || h.addr() & (align_of::<Raw>() - 1) != 0 || (*h).owner.load(Ordering::Relaxed) != me {
            return false;
        }
        (*h).busy.store(true, Ordering::Relaxed);
        barrier::lightest();
        if (*h).owner.load(Ordering::Relaxed) == me {
            return true;
        }
        (*h).busy.store(false, Ordering::Release);
        false
    }
}

/// Ends what [`enter_as_owner`] began.
///
/// # Safety
/// It was true.
#[inline(always)]
pub(crate) unsafe fn leave(h: *mut Raw) {
    // SAFETY: the caller's promise.
    unsafe { (*h).busy.store(false, Ordering::Release) };
}

/// Waits until the calling thread is alone in the heap.
///
/// # Safety
/// The record is a heap's, perhaps of one that has ended.
#[inline]
pub(crate) unsafe fn wait(h: *mut Raw) -> Turn {
    // SAFETY: the caller's promise.
    unsafe {
        let owner = enter_as_owner(h);
        if !owner {
            (*h).lock.lock_raw();
            if (*h).owner.load(Ordering::Relaxed) != 0 {
                disown(h);
            }
        }
        Turn { h, owner }
    }
}

/// # Safety
/// Under the lock.
#[cold]
#[inline(never)]
unsafe fn disown(h: *mut Raw) {
    // SAFETY: the caller's promise.
    unsafe {
        (*h).owner.store(0, Ordering::Relaxed);
        fence();
        wait_for_owner(h);
        (*h).habit.row = 0;
        (*h).habit.patience = ((*h).habit.patience * 4).min(PATIENCE_LAST);
    }
}

/// A fence on every processor that runs the process.
fn fence() {
    let mut turn = 0;
    // Refused by a filter of system calls that came later: after a while without one, every store has been seen.
    while !barrier::heavy() && turn < 300 {
        turn += 1;
        thread::pause(turn);
    }
}

unsafe fn wait_for_owner(h: *mut Raw) {
    let mut turn = 0;
    // SAFETY: the caller's promise.
    while unsafe { (*h).busy.load(Ordering::Acquire) } {
        turn += 1;
        thread::pause(turn);
    }
}

impl Drop for Turn {
    #[inline]
    fn drop(&mut self) {
        let h = self.h;
        // SAFETY: the turn is the calling thread's.
        unsafe {
            if self.owner {
                leave(h);
                return;
            }
            let (me, habit) = (thread::identity(), &raw mut (*h).habit);
            if (*habit).last != me {
                ((*habit).last, (*habit).row) = (me, 0);
            } else {
                (*habit).row += 1;
                if (*habit).row >= (*habit).patience {
                    (*habit).row = 0;
                    adopt(h, me);
                }
            }
            (*h).lock.unlock_raw();
        }
    }
}

/// # Safety
/// Under the lock.
#[cold]
#[inline(never)]
unsafe fn adopt(h: *mut Raw, me: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        if barrier::costs_nothing()
            && !CLOSED.load(Ordering::SeqCst)
            && !(*h).watch
            && Raw::is_alive(h)
            && !meter::is_tight(h)
        {
            (*h).owner.store(me, Ordering::Relaxed);
        }
    }
}

/// Before a fork, for all heaps that `each` visits: their locks are taken, and no other thread is inside one. A heap whose
/// owner forks keeps it: that thread is here.
///
/// # Safety
/// `each` visits the same heaps each time.
pub(crate) unsafe fn stop_all(each: impl Fn(&mut dyn FnMut(*mut Raw))) {
    let me = thread::identity();
    let mut any = false;
    // SAFETY: records live for good; the locks are ours below.
    unsafe {
        each(&mut |h| {
            (*h).lock.lock_raw();
            let owner = (*h).owner.load(Ordering::Relaxed);
            if owner != 0 && owner != me {
                (*h).owner.store(0, Ordering::Relaxed);
                any = true;
            }
        });
        if any {
            fence();
            each(&mut |h| {
                if (*h).owner.load(Ordering::Relaxed) != me {
                    wait_for_owner(h);
                }
            });
        }
    }
}
