//! Wrong frees: finding out what a pointer is that is no live block, and saying so.

use crate::{SiteId, header, live, means, threads};
use allokit_core::{Fault, FaultKind};
use allokit_platform::stderr::Stderr;
use allokit_report::fault::{raise, tell};
use core::ffi::CStr;
use core::fmt::{self, Write};

/// What was about to be done with the pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Free,
    Realloc,
    UsableSize,
    Check,
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Operation::Free => "free",
            Operation::Realloc => "realloc",
            Operation::UsableSize => "usable size",
            Operation::Check => "check",
        }
    }

    pub fn c_name(self) -> &'static CStr {
        match self {
            Operation::Free => c"free",
            Operation::Realloc => c"realloc",
            Operation::UsableSize => c"usable size",
            Operation::Check => c"check",
        }
    }

    /// The label of the line that says where.
    pub fn here(self) -> &'static str {
        match self {
            Operation::Free => "freed at    ",
            Operation::Realloc => "resized at  ",
            Operation::UsableSize => "asked at    ",
            Operation::Check => "noticed at  ",
        }
    }
}

/// What a pointer is that is no live payload start.
enum Found {
    /// Inside a live block.
    Inside {
        start: usize,
        size: usize,
        allocated_at: u32,
    },
    /// A block that was freed, with what the ring remembers.
    Freed(Option<threads::Freed>),
    /// A block whose tag was overwritten.
    Damaged,
    Nothing,
}

fn find(addr: usize, recall: impl Fn(usize) -> Option<threads::Freed>) -> Found {
    if let Some(block) = means::around(addr) {
        if addr == block.start && !block.tag.is_freed() && !block.tag.is_live() {
            return Found::Damaged;
        }
        if addr == block.start && block.tag.is_freed() {
            return Found::Freed(Some(threads::Freed {
                size: block.size,
                allocated_at: block.tag.site(),
                freed_at: block.freed_at,
            }));
        }
        if block.tag.is_live() && addr.wrapping_sub(block.start) < block.size {
            return Found::Inside { start: block.start, size: block.size, allocated_at: block.tag.site() };
        }
    }
    {
        let walk = live::WALK.lock_for_report();
        // The nearest start before it is the only block that can reach it.
        if walk.is_some()
            && let Some(pin) = live::before(addr)
            // SAFETY: the block is pinned.
            && let Some(header) = unsafe { header::read(pin.payload) }
            && addr - pin.payload.addr() < header.size
        {
            return Found::Inside { start: pin.payload.addr(), size: header.size, allocated_at: header.site };
        }
    }
    if live::was_freed(addr) { Found::Freed(recall(addr)) } else { Found::Nothing }
}

/// Reports a pointer that is no live block.
#[cold]
#[inline(never)]
pub fn wrong_pointer(operation: Operation, ptr: *const u8, site: SiteId) {
    wrong_pointer_with(operation, ptr, site, threads::recall);
}

/// As [`wrong_pointer`], where `recall` knows what was freed.
#[cold]
#[inline(never)]
pub fn wrong_pointer_with(
    operation: Operation,
    ptr: *const u8,
    site: SiteId,
    recall: impl Fn(usize) -> Option<threads::Freed>,
) {
    let addr = ptr.addr();
    let found = find(addr, recall);
    if matches!(found, Found::Damaged) {
        return damaged(operation, ptr, site);
    }
    let mut fault = Fault {
        operation: operation.c_name().as_ptr(),
        block: ptr.cast(),
        now: site.place(),
        ..Fault::new(FaultKind::InvalidFree)
    };
    match &found {
        Found::Inside { start, size, allocated_at } => {
            (fault.offset, fault.size) = (addr - start, *size);
            fault.allocated = SiteId(*allocated_at).place();
        }
        Found::Freed(freed) => {
            fault.kind = FaultKind::DoubleFree;
            if let Some(freed) = freed {
                fault.size = freed.size;
                fault.allocated = SiteId(freed.allocated_at).place();
                fault.freed = SiteId(freed.freed_at).place();
            }
        }
        Found::Damaged | Found::Nothing => {}
    }
    raise(&fault, |out| describe(out, operation, addr, found, site));
}

fn describe(out: &mut Stderr, operation: Operation, addr: usize, found: Found, site: SiteId) -> fmt::Result {
    let (name, here) = (operation.name(), operation.here());
    match found {
        Found::Inside { start, size, allocated_at } => {
            let distance = addr - start;
            writeln!(
                out,
                "allokit: {name} of {addr:#x}, which is {distance} bytes into a block of {size} bytes at {start:#x}"
            )?;
            writeln!(out, "  allocated at {}", SiteId(allocated_at))?;
        }
        Found::Freed(freed) => {
            if operation == Operation::Free {
                write!(out, "allokit: double free of {addr:#x}, a block")?;
            } else {
                write!(out, "allokit: {name} of {addr:#x}, a block")?;
            }
            if let Some(freed) = freed {
                write!(out, " of {} bytes", freed.size)?;
            }
            let already = if operation == Operation::Free && freed.is_some() { "" } else { " that is already freed" };
            writeln!(out, "{already}")?;
            if let Some(freed) = freed {
                writeln!(out, "  allocated at {}", SiteId(freed.allocated_at))?;
                writeln!(out, "  freed at     {}", SiteId(freed.freed_at))?;
            }
            if operation == Operation::Free {
                return writeln!(out, "  freed again  {site}");
            }
        }
        Found::Damaged | Found::Nothing => {
            writeln!(out, "allokit: {name} of {addr:#x}, which is no live block of this allocator")?;
        }
    }
    writeln!(out, "  {here} {site}")
}

/// Reports a sized free with another size than the block has.
#[cold]
#[inline(never)]
pub fn wrong_size(ptr: *const u8, said: usize, size: usize, allocated_at: u32, site: SiteId) {
    let fault = Fault {
        operation: Operation::Free.c_name().as_ptr(),
        block: ptr.cast(),
        size,
        told_size: said,
        allocated: SiteId(allocated_at).place(),
        now: site.place(),
        ..Fault::new(FaultKind::SizeMismatch)
    };
    raise(&fault, |out| {
        let addr = ptr.addr();
        writeln!(out, "allokit: free of {addr:#x} with size {said}, but the block has {size} bytes")?;
        writeln!(out, "  allocated at {}", SiteId(allocated_at))?;
        writeln!(out, "  freed at     {site}")
    });
}

/// Reports a live block whose header, right before it, is not what was written.
#[cold]
#[inline(never)]
pub fn damaged(operation: Operation, ptr: *const u8, site: SiteId) {
    let fault = Fault {
        operation: operation.c_name().as_ptr(),
        block: ptr.cast(),
        now: site.place(),
        ..Fault::new(FaultKind::Underflow)
    };
    raise(&fault, |out| -> fmt::Result {
        writeln!(out, "allokit: block at {:#x} is damaged: its header was overwritten", ptr.addr())?;
        writeln!(out, "  {} {site}", operation.here())
    });
}

/// Tells the program's handler of a request that failed. Keeps `errno`.
#[cold]
#[inline(never)]
pub fn no_memory(size: usize, site: SiteId) {
    let operation = c"alloc".as_ptr();
    tell(&Fault { operation, size, now: site.place(), ..Fault::new(FaultKind::OutOfMemory) });
}
