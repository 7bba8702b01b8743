//! Stacks: blocks that end in the reverse order of their beginning, in one fixed piece of memory.
//!
//! Owns: [`Raw`], the stack as C sees it. Each block and each mark is a frame with a header of 16 bytes: where the frame
//! before begins, where the free part began, and a check word bound to the address. So the end of anything but the newest
//! frame is noticed before it does harm, and a mark is good exactly as long as its frame is there.
//!
//! Invariants, checked by [`Raw::check`]: the frames' check words are right from the newest down to the first; each
//! frame's `top` is at or below its own place.

use crate::census::STACKS;
use crate::{Error, Kind, Label, Source, gap, round_up};
use allokit_core::{MAX_SIZE, MIN_ALIGN};
use core::ptr::{self, NonNull};

const UNIT: usize = 16;
const NONE: u32 = u32::MAX;
const ALIVE: usize = 0x57AC_0C0D_E5A5_E004;
const SEAL: u64 = 0x8F3D_91B2_C4E6_5A77;
const MOST_BYTES: usize = (u32::MAX as usize - 1) * UNIT;

/// How a stack is to be.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Name and place for reports.
    pub label: Label,
    /// Of every block; 16 is the least.
    pub alignment: usize,
    /// Where the stack lies; null: out of the source.
    pub buffer: *mut u8,
    /// Where its memory comes from without a buffer.
    pub source: Source,
}

impl Options {
    /// A stack out of a source.
    #[must_use]
    pub const fn new(source: Source) -> Options {
        Options { label: Label::NONE, alignment: MIN_ALIGN, buffer: ptr::null_mut(), source }
    }
}

#[repr(C, align(16))]
struct Frame {
    /// Units from the base to the frame before; NONE for the first.
    prev: u32,
    /// Units from the base to where the free part began before this frame.
    top: u32,
    check: u64,
}

/// A point to release to; `ak_stack_mark_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Mark {
    stack: *mut Raw,
    at: usize,
    serial: u64,
}

impl Mark {
    /// No mark: what a failed one gives.
    pub const NONE: Mark = Mark { stack: ptr::null_mut(), at: 0, serial: 0 };
}

/// A stack: `ak_stack_t`. Lies in front of its memory.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Raw {
    alive: usize,
    base: *mut u8,
    /// Of all memory, in bytes.
    size: usize,
    /// Where the free part begins, in units.
    top: u32,
    newest: u32,
    serial: u64,
    alignment: usize,
    memory_size: usize,
    source: Source,
    label: Label,
}

/// # Safety of all functions here
/// `s` is a living stack that nobody else uses at the same time.
#[allow(clippy::missing_safety_doc)] // said above, once
impl Raw {
    /// Makes a stack: of `size` bytes for blocks and their headers out of the source, or in a buffer of `size` bytes in all.
    ///
    /// # Errors
    /// `Invalid` for an alignment that is none and a buffer in which nothing fits; `NoMemory`.
    ///
    /// # Safety
    /// The options' buffer is the stack's until it is destroyed.
    pub unsafe fn create(size: usize, options: &Options) -> Result<NonNull<Raw>, Error> {
        let alignment = crate::asked_alignment(options.alignment)?;
        if size > MOST_BYTES.min(MAX_SIZE / 2) {
            return Err(Error::NoMemory);
        }
        // SAFETY: the memory holds the struct and `size` bytes, or the buffer what is left of it.
        unsafe {
            let (place, room, memory_size) = if options.buffer.is_null() {
                let whole = size_of::<Raw>() + size;
                let place = options.source.take(whole, UNIT, &STACKS);
                if place.is_null() {
                    return Err(Error::NoMemory);
                }
                (place, size, whole)
            } else {
                let skip = gap(options.buffer, UNIT);
                let least = skip + size_of::<Raw>() + size_of::<Frame>() + 1;
                if size < least {
                    return Err(Error::Invalid);
                }
                (options.buffer.add(skip), size - skip - size_of::<Raw>(), 0)
            };
            let s = place.cast::<Raw>();
            s.write(Raw {
                alive: ALIVE ^ s.addr(),
                base: place.add(size_of::<Raw>()),
                size: room,
                top: 0,
                newest: NONE,
                serial: 0,
                alignment,
                memory_size,
                source: options.source,
                label: options.label,
            });
            STACKS.made();
            Ok(NonNull::new_unchecked(s))
        }
    }

    /// Whether `s` is a stack that lives. A net, no proof.
    #[inline]
    pub unsafe fn is_alive(s: *const Raw) -> bool {
        // SAFETY: the caller's promise, as far as it goes.
        !s.is_null() && s.addr() & (UNIT - 1) == 0 && unsafe { (*s).alive } == ALIVE ^ s.addr()
    }

    unsafe fn frame(s: *mut Raw, at: u32) -> *mut Frame {
        // SAFETY: a unit of the stack's memory.
        unsafe { (*s).base.add(at as usize * UNIT).cast() }
    }

    fn check_word(frame: &Frame, addr: usize, serial: u64) -> u64 {
        let words = u64::from(frame.prev) | u64::from(frame.top) << 32;
        (words ^ addr as u64).wrapping_mul(SEAL) ^ serial
    }

    unsafe fn add_frame(s: *mut Raw, size: usize, align: usize, serial: u64) -> Result<*mut u8, Error> {
        // SAFETY: what is written lies between the top and the end.
        unsafe {
            let used = (*s).top as usize * UNIT;
            let left = (*s).size.saturating_sub(used);
            if left < UNIT {
                return Err(Error::NoMemory);
            }
            let gap = gap((*s).base.add(used + UNIT), align);
            if gap > left - UNIT || size > left - UNIT - gap {
                return Err(Error::NoMemory);
            }
            let at = ((used + gap) / UNIT) as u32;
            let place = Raw::frame(s, at);
            let mut frame = Frame { prev: (*s).newest, top: (*s).top, check: 0 };
            frame.check = Raw::check_word(&frame, place.addr(), serial);
            place.write(frame);
            (*s).newest = at;
            // The last block may end in an odd tail; then the top lies past the end and nothing more fits.
            (*s).top = at + 1 + size.div_ceil(UNIT) as u32;
            Ok(place.add(1).cast())
        }
    }

    /// A block on top.
    ///
    /// # Errors
    /// `NoMemory`.
    pub unsafe fn push(s: *mut Raw, size: usize) -> Result<NonNull<u8>, Error> {
        // SAFETY: the caller's promise; a block is not null.
        unsafe { Raw::add_frame(s, size.max(1), (*s).alignment, 0).map(|block| NonNull::new_unchecked(block)) }
    }

    unsafe fn drop_newest(s: *mut Raw) {
        // SAFETY: there is a frame.
        unsafe {
            let frame = Raw::frame(s, (*s).newest);
            ((*s).newest, (*s).top) = ((*frame).prev, (*frame).top);
        }
    }

    /// Ends the newest block; null does nothing.
    ///
    /// # Errors
    /// `Fault` for every other pointer: nothing is changed.
    pub unsafe fn pop(s: *mut Raw, block: *mut u8) -> Result<(), Error> {
        if block.is_null() {
            return Ok(());
        }
        // SAFETY: headers are read inside the stack's memory only.
        unsafe {
            let from = (*s).base.addr();
            let distance = block.addr().wrapping_sub(from);
            if distance < UNIT || distance > (*s).size || distance & (UNIT - 1) != 0 {
                return Err(Error::fault(Kind::Foreign, block.addr()));
            }
            let at = (distance / UNIT - 1) as u32;
            let place = Raw::frame(s, at);
            if place.read().check != Raw::check_word(&*place, place.addr(), 0) {
                return Err(Error::fault(Kind::Foreign, block.addr()));
            }
            let newest = (*s).newest;
            if at != newest {
                let kind = if newest == NONE || at > newest { Kind::DoubleFree } else { Kind::OutOfOrder };
                return Err(Error::fault(kind, block.addr()));
            }
            Raw::drop_newest(s);
            Ok(())
        }
    }

    /// This point, to release to. A frame of its own.
    ///
    /// # Errors
    /// `NoMemory` when 16 bytes are not left.
    pub unsafe fn mark(s: *mut Raw) -> Result<Mark, Error> {
        // SAFETY: the caller's promise.
        unsafe {
            (*s).serial += 1;
            let serial = (*s).serial;
            Raw::add_frame(s, 0, UNIT, serial)?;
            Ok(Mark { stack: s, at: (*s).newest as usize, serial })
        }
    }

    /// Ends everything since the mark, and the mark. Takes as long as there are frames to end: a mark that has ended may
    /// still be found in memory that a block has not been written into, so it must be met on the way down.
    ///
    /// # Errors
    /// `Fault` for a mark of another stack, and one that ended with an older one: nothing is changed.
    pub unsafe fn release(s: *mut Raw, mark: &Mark) -> Result<(), Error> {
        // SAFETY: the frame is read inside the stack's memory only.
        unsafe {
            if mark.stack != s {
                return Err(Error::fault(Kind::Foreign, mark.stack.addr()));
            }
            let mut at = (*s).newest;
            while at != NONE && at as usize > mark.at {
                let older = (*Raw::frame(s, at)).prev;
                if older != NONE && older >= at {
                    return Err(Error::fault(Kind::Corrupt, mark.at));
                }
                at = older;
            }
            let there = at != NONE && at as usize == mark.at && mark.serial != 0 && {
                let place = Raw::frame(s, at);
                place.read().check == Raw::check_word(&*place, place.addr(), mark.serial)
            };
            if !there {
                return Err(Error::fault(Kind::OutOfOrder, mark.at));
            }
            (*s).newest = mark.at as u32;
            Raw::drop_newest(s);
            Ok(())
        }
    }

    /// Bytes in use, headers included.
    pub unsafe fn used(s: *mut Raw) -> usize {
        // SAFETY: the caller's promise.
        unsafe { ((*s).top as usize * UNIT).min((*s).size) }
    }

    /// Ends the stack.
    pub unsafe fn destroy(s: *mut Raw) {
        // SAFETY: nobody uses it any more.
        unsafe {
            let (source, size) = ((*s).source, (*s).memory_size);
            (*s).alive = 0;
            STACKS.ended();
            if size != 0 {
                source.give(s.cast(), size, &STACKS);
            }
        }
    }

    /// Name and place.
    pub unsafe fn label(s: *const Raw) -> Label {
        // SAFETY: the caller's promise.
        unsafe { (*s).label }
    }

    /// Looks at the chain of frames; the number of faults.
    pub unsafe fn check(s: *mut Raw) -> usize {
        // SAFETY: a frame is read inside the stack's memory only; each lies below the one before, so there is an end.
        unsafe {
            let mut faults = usize::from((*s).alive != ALIVE ^ s.addr());
            let (mut at, mut above) = ((*s).newest, (*s).top);
            while at != NONE {
                if at >= above {
                    return faults + 1;
                }
                let frame = Raw::frame(s, at).read();
                let serial = frame.check ^ Raw::check_word(&frame, Raw::frame(s, at).addr(), 0);
                faults += usize::from(serial > (*s).serial || frame.top > at);
                if frame.top > at {
                    return faults;
                }
                (at, above) = (frame.prev, frame.top);
            }
            faults + usize::from(above != 0)
        }
    }
}

// The struct keeps what follows it aligned.
const _: () = assert!(size_of::<Raw>() == round_up(size_of::<Raw>(), UNIT));
