//! Scratch: one thread's arenas for temporaries.
//!
//! Owns: [`Scratch`], a set of arenas, one for each depth. A stretch that begins inside another one gets an arena of its
//! own, so whatever arena its caller wants the result in, an outer stretch's included, is never the one that ends with it.
//! The thread-local place of a set is whoever has threads' business (allokit-select).
//!
//! Invariants: the arenas outside `current` are in use, those inside are empty and wait with their chunks.

use crate::arena::{Options, Raw};
use crate::census::ARENAS;
use crate::{Error, Kind, Source};
use core::ptr::{self, NonNull};

/// An arena that holds more than this when its stretch ends gives back all but its first chunk.
const KEPT: usize = 1 << 20;

#[derive(Debug)]
#[repr(C)]
struct Level {
    arena: *mut Raw,
    outer: *mut Level,
    inner: *mut Level,
    /// Of the stretch that is open here; 0 when none is.
    serial: usize,
}

/// A stretch: `ak_scratch_t`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Stretch {
    /// The arena for temporaries.
    pub arena: *mut Raw,
    level: *mut Level,
    serial: usize,
}

impl Stretch {
    /// No stretch: what a failed begin gives.
    pub const NONE: Stretch = Stretch { arena: ptr::null_mut(), level: ptr::null_mut(), serial: 0 };
}

/// A thread's arenas.
#[derive(Debug)]
#[repr(C)]
pub struct Scratch {
    /// The depth that is open, null for none.
    current: *mut Level,
    outermost: *mut Level,
    counter: usize,
    source: Source,
}

impl Scratch {
    /// An empty set.
    #[must_use]
    pub const fn new(source: Source) -> Scratch {
        Scratch { current: ptr::null_mut(), outermost: ptr::null_mut(), counter: 0, source }
    }

    /// Begins a stretch inside the open ones.
    ///
    /// # Errors
    /// `NoMemory`.
    ///
    /// # Safety
    /// As for [`Raw::create`].
    pub unsafe fn begin(&mut self, options: &Options) -> Result<Stretch, Error> {
        // SAFETY: the levels are this set's own.
        unsafe {
            let place = if self.current.is_null() { &raw mut self.outermost } else { &raw mut (*self.current).inner };
            if (*place).is_null() {
                let level = self.source.take(size_of::<Level>(), allokit_core::MIN_ALIGN, &ARENAS).cast::<Level>();
                if level.is_null() {
                    return Err(Error::NoMemory);
                }
                let arena = match Raw::create(options) {
                    Ok(arena) => arena.as_ptr(),
                    Err(error) => {
                        self.source.give(level.cast(), size_of::<Level>(), &ARENAS);
                        return Err(error);
                    }
                };
                level.write(Level { arena, outer: self.current, inner: ptr::null_mut(), serial: 0 });
                *place = level;
            }
            let level = *place;
            self.counter += 1;
            (*level).serial = self.counter;
            self.current = level;
            Ok(Stretch { arena: (*level).arena, level, serial: self.counter })
        }
    }

    /// Ends a stretch and its temporaries.
    ///
    /// # Errors
    /// `Fault` when it is not the newest: `OutOfOrder` when it is open (it ends, with all inside it), `Foreign` when it
    /// ended before or is another thread's (nothing happens).
    pub fn end(&mut self, stretch: &Stretch) -> Result<(), Error> {
        let (mut level, mut between) = (self.current, false);
        // SAFETY: the levels are this set's own; the stretch's is compared and not followed.
        unsafe {
            while !level.is_null() && (level != stretch.level || (*level).serial != stretch.serial) {
                level = (*level).outer;
                between = true;
            }
            if level.is_null() {
                return Err(Error::fault(Kind::Foreign, stretch.arena.addr()));
            }
            loop {
                let one = self.current;
                if Raw::stats_reserved((*one).arena) > KEPT {
                    Raw::clear((*one).arena);
                } else {
                    Raw::reset((*one).arena);
                }
                (*one).serial = 0;
                self.current = (*one).outer;
                if one == level {
                    break;
                }
            }
        }
        if between { Err(Error::fault(Kind::OutOfOrder, stretch.arena.addr())) } else { Ok(()) }
    }

    /// How many stretches are open.
    #[must_use]
    pub fn depth(&self) -> usize {
        let (mut level, mut depth) = (self.current, 0);
        while let Some(one) = NonNull::new(level) {
            depth += 1;
            // SAFETY: a level of this set.
            level = unsafe { one.as_ref() }.outer;
        }
        depth
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut level = self.outermost;
        // SAFETY: the levels are this set's own; each is left before it is given back.
        unsafe {
            while !level.is_null() {
                let inner = (*level).inner;
                Raw::destroy((*level).arena);
                self.source.give(level.cast(), size_of::<Level>(), &ARENAS);
                level = inner;
            }
        }
        (self.outermost, self.current) = (ptr::null_mut(), ptr::null_mut());
    }
}
