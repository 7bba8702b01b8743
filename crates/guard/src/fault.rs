//! What the guarding layer reports beyond what tracking does. One form: what and which block, how far; where it was
//! allocated, where freed, where it was noticed.

use crate::block::{self, Layout};
use crate::quarantine::Entry;
use crate::switches::Check;
use crate::{Kind, SiteId};
use allokit_core::{Fault, FaultKind};
use allokit_platform::fill;
use allokit_platform::stderr::Stderr;
use allokit_report::Bytes;
use allokit_report::fault::raise;
use allokit_track::fault::Operation;
use core::fmt::{self, Write};

fn last_line(out: &mut Stderr, operation: Operation, site: SiteId) -> fmt::Result {
    writeln!(out, "  {} {site}", operation.here())
}

/// The header of a live block is not what was written.
#[cold]
#[inline(never)]
pub(crate) fn damaged(operation: Operation, ptr: *const u8, site: SiteId) {
    if Check::Underflow.is_on() {
        allokit_track::fault::damaged(operation, ptr, site);
    }
}

fn report_overflow(
    operation: Operation,
    ptr: *const u8,
    layout: &Layout,
    word: u64,
    site: SiteId,
    (first, last): (usize, usize),
) {
    let allocated = SiteId::from_number(block::site(word));
    let fault = Fault {
        operation: operation.c_name().as_ptr(),
        block: ptr.cast(),
        offset: first,
        size: layout.size,
        over_bytes: last + 1 - layout.size,
        allocated: allocated.place(),
        now: site.place(),
        ..Fault::new(FaultKind::Overflow)
    };
    raise(&fault, |out| {
        writeln!(
            out,
            "allokit: overflow of {:#x}, a block of {}: written up to {} past its end, first at offset {first}",
            ptr.addr(),
            Bytes(layout.size),
            Bytes(last + 1 - layout.size),
        )?;
        writeln!(out, "  allocated at {allocated}")?;
        last_line(out, operation, site)
    });
}

/// The canary of a block is not what was written.
#[cold]
#[inline(never)]
pub(crate) fn overflow(
    operation: Operation,
    ptr: *const u8,
    layout: &Layout,
    word: u64,
    site: SiteId,
    damage: Option<(usize, usize)>,
) {
    report_overflow(operation, ptr, layout, word, site, damage.unwrap_or((layout.size, layout.size)));
}

/// The rest of a large block's last page is not what was written.
#[cold]
#[inline(never)]
pub(crate) fn overflow_large(ptr: *const u8, layout: &Layout, word: u64, site: SiteId, first: usize, last: usize) {
    report_overflow(Operation::Free, ptr, layout, word, site, (first, last));
}

/// What lies behind the block's end, in no block, was written to, but not its canary.
#[cold]
#[inline(never)]
pub(crate) fn beyond(ptr: *const u8, layout: &Layout, word: u64, site: SiteId, there: *const u8) {
    let found = (0..16).filter(|at| {
        // SAFETY: the caller has seen that these bytes are there.
        let byte = unsafe { there.add(*at).read_volatile() };
        byte != 0
    });
    let (first, last) = (found.clone().min().unwrap_or(0), found.max().unwrap_or(15));
    let start = there.addr() - ptr.addr();
    report_overflow(Operation::Free, ptr, layout, word, site, (start + first, start + last));
}

/// What lies before a block's header was written to.
#[cold]
#[inline(never)]
pub(crate) fn underflow(ptr: *const u8, layout: &Layout, word: u64, site: SiteId) {
    let allocated = SiteId::from_number(block::site(word));
    let fault = Fault {
        operation: Operation::Free.c_name().as_ptr(),
        block: ptr.cast(),
        size: layout.size,
        allocated: allocated.place(),
        now: site.place(),
        ..Fault::new(FaultKind::Underflow)
    };
    raise(&fault, |out| {
        writeln!(
            out,
            "allokit: underflow of {:#x}, a block of {}: written before its start",
            ptr.addr(),
            Bytes(layout.size)
        )?;
        writeln!(out, "  allocated at {allocated}")?;
        last_line(out, Operation::Free, site)
    });
}

/// A block that waits is not clear any more.
#[cold]
#[inline(never)]
pub(crate) fn write_after_free(entry: &Entry, site: SiteId) {
    let (freed, ptr, layout) = (entry.freed(), entry.payload(), entry.layout());
    let (allocated, freed_at) = (SiteId::from_number(freed.allocated_at), SiteId::from_number(freed.freed_at));
    // SAFETY: the block is out of use, and its memory is there.
    let is_set = |at: &isize| unsafe { ptr.offset(*at).read_volatile() != 0 };
    let [(start, end), (behind, last)] = block::cleared(layout, entry.is_all_clear())
        .map(|(from, to)| (from as isize - layout.offset as isize, to as isize - layout.offset as isize));
    let bytes = (start..end).chain(behind..last);
    let first = bytes.clone().find(is_set).unwrap_or(0);
    let last = bytes.rev().find(is_set).unwrap_or(0);
    // Nobody gets the block any more; it is clear, as its neighbours expect it to be.
    // SAFETY: as above.
    unsafe { fill::zero(ptr.sub(layout.offset), layout.gross()) };
    let fault = Fault {
        block: ptr.cast_const().cast(),
        offset: first.max(0) as usize,
        size: layout.size,
        allocated: allocated.place(),
        freed: freed_at.place(),
        now: site.place(),
        ..Fault::new(FaultKind::WriteAfterFree)
    };
    raise(&fault, |out| {
        writeln!(
            out,
            "allokit: write after free to {:#x}, a block of {}: from offset {first} to {last}",
            ptr.addr(),
            Bytes(layout.size)
        )?;
        writeln!(out, "  allocated at {allocated}")?;
        writeln!(out, "  freed at     {freed_at}")?;
        if site != SiteId::UNKNOWN {
            writeln!(out, "  noticed at   {site}")?;
        }
        Ok(())
    });
}

/// malloc freed by delete, and so on.
#[cold]
#[inline(never)]
pub(crate) fn wrong_kind(ptr: *const u8, layout: &Layout, word: u64, kind: Kind, site: SiteId) {
    mismatch(Operation::Free, ptr, layout, word, kind.frees(), site);
}

/// realloc of what came from new.
#[cold]
#[inline(never)]
pub(crate) fn wrong_kind_realloc(ptr: *const u8, layout: &Layout, word: u64, site: SiteId) {
    mismatch(Operation::Realloc, ptr, layout, word, "realloc", site);
}

fn mismatch(operation: Operation, ptr: *const u8, layout: &Layout, word: u64, by: &str, site: SiteId) {
    if !Check::Mismatch.is_on() {
        return;
    }
    let allocated = SiteId::from_number(block::site(word));
    let fault = Fault {
        operation: operation.c_name().as_ptr(),
        block: ptr.cast(),
        size: layout.size,
        allocated: allocated.place(),
        now: site.place(),
        ..Fault::new(FaultKind::AllocatorMismatch)
    };
    raise(&fault, |out| {
        writeln!(
            out,
            "allokit: mismatch at {:#x}, a block of {}: allocated by {}, handed to {by}",
            ptr.addr(),
            Bytes(layout.size),
            Kind::of(block::kind(word)).allocates(),
        )?;
        writeln!(out, "  allocated at {allocated}")?;
        last_line(out, operation, site)
    });
}

/// A live block that `check` has found wrong.
pub(crate) fn checked(ptr: *const u8, kind: FaultKind, layout: &Layout, word: u64, over: (usize, usize), site: SiteId) {
    let allocated = SiteId::from_number(block::site(word));
    let known = layout.offset != 0;
    let fault = Fault {
        operation: c"check".as_ptr(),
        block: ptr.cast(),
        offset: over.0,
        size: layout.size,
        over_bytes: if kind == FaultKind::Overflow { over.1 + 1 - layout.size } else { 0 },
        allocated: allocated.place(),
        now: site.place(),
        ..Fault::new(kind)
    };
    raise(&fault, |out| {
        let addr = ptr.addr();
        if !known {
            writeln!(out, "allokit: block at {addr:#x} is damaged: its header was overwritten")?;
        } else if kind == FaultKind::Underflow {
            let size = Bytes(layout.size);
            writeln!(out, "allokit: underflow of {addr:#x}, a block of {size}: written before its start")?;
        } else {
            writeln!(
                out,
                "allokit: overflow of {addr:#x}, a block of {}: written up to {} past its end, first at offset {}",
                Bytes(layout.size),
                Bytes(over.1 + 1 - layout.size),
                over.0
            )?;
        }
        if known {
            writeln!(out, "  allocated at {allocated}")?;
        }
        if site != SiteId::UNKNOWN {
            writeln!(out, "  noticed at   {site}")?;
        }
        Ok(())
    });
}

/// A copy that leaves its block: how many bytes, from or to where.
pub(crate) struct Copy<'a> {
    pub(crate) function: &'a core::ffi::CStr,
    pub(crate) writes: bool,
    pub(crate) addr: usize,
    pub(crate) bytes: usize,
    /// The block: its start and size; `None`: it begins outside every block.
    pub(crate) block: Option<(usize, usize, SiteId)>,
    pub(crate) kind: FaultKind,
}

#[cold]
#[inline(never)]
pub(crate) fn copy(found: &Copy<'_>, site: SiteId) {
    let (start, size, allocated) = found.block.unwrap_or((found.addr, 0, SiteId::UNKNOWN));
    let fault = Fault {
        operation: found.function.as_ptr(),
        block: core::ptr::without_provenance(found.addr),
        offset: found.addr.wrapping_sub(start),
        size,
        told_size: found.bytes,
        over_bytes: found.block.map_or(0, |_| found.bytes - (size - (found.addr - start))),
        allocated: allocated.place(),
        now: site.place(),
        ..Fault::new(found.kind)
    };
    raise(&fault, |out| {
        let function = found.function.to_str().unwrap_or("copy");
        let direction = if found.writes { "to" } else { "from" };
        let bytes = Bytes(found.bytes);
        write!(out, "allokit: {function} of {bytes} {direction} {:#x}, ", found.addr)?;
        if found.block.is_some() {
            let into = found.addr - start;
            writeln!(
                out,
                "which is {} into a block of {} at {start:#x}: {} too many",
                Bytes(into),
                Bytes(size),
                Bytes(found.bytes - (size - into))
            )?;
            writeln!(out, "  allocated at {allocated}")?;
        } else {
            writeln!(out, "which is heap memory but in no live block")?;
        }
        writeln!(out, "  called at    {site}")
    });
}
