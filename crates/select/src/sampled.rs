//! Sampled guarding: switching it on, and what is said of what it finds. The guarding itself is the backend's.

use crate::Selected;
use crate::api;
use allokit_core::{Backend, Fault, FaultKind, Frames, Place, SampleHooks, SampledFault};
use allokit_platform::{backtrace, errno, symbol};
use allokit_report::Bytes;
use allokit_report::fault::{Policy, note, policy, raise};
use core::fmt::{self, Write};

/// One in so many, when nobody says more than "on".
pub(crate) const USUAL: usize = 5000;

static HOOKS: SampleHooks = SampleHooks { stack, stack_at, wrong };

/// Why the library cannot do it; `None` when it can.
pub(crate) fn impossible() -> Option<&'static str> {
    if api::GUARD {
        Some("this library guards every block")
    } else if !Selected::SAMPLES {
        Some("only the native backend guards samples")
    } else {
        None
    }
}

/// `ak_guard_sample_set`
pub fn set(every: usize) -> bool {
    if every != 0 && impossible().is_some() {
        errno::set(errno::ENOTSUP);
        return false;
    }
    if every != 0 {
        // Without an unwinder a report names no places.
        backtrace::prepare();
    }
    let done = Selected::sample(every, &HOOKS);
    if !done {
        errno::set(errno::ENOMEM);
    }
    done
}

/// `ak_guard_sampled`
pub fn is_sampled(ptr: *const u8) -> bool {
    Selected::is_sampled(ptr)
}

fn stack(frames: &mut Frames) {
    backtrace::frames(0, frames);
}

/// Without this library's own frames, where they can be told from the program's: in a shared library of its name, by their
/// module. (In a program that holds the static one they stay.)
fn trimmed(frames: &Frames) -> &[usize] {
    let count = frames.iter().take_while(|frame| **frame != 0).count();
    let module = |address: usize| symbol::of(address).map(|found| found.module.to_bytes());
    let here = module(stack as *const () as usize).unwrap_or_default();
    if !here.rsplit(|byte| *byte == b'/').next().unwrap_or_default().starts_with(b"liballokit") {
        return &frames[..count];
    }
    let own = frames[..count].iter().take_while(|at| module(**at) == Some(here)).count();
    &frames[own..count]
}

fn stack_at(instruction: usize, frames: &mut Frames) {
    if backtrace::frames(instruction, frames) == 0 {
        frames[0] = instruction;
    }
    // The others are where calls return to, one behind the call; this one is where it happened.
    frames[0] += 1;
}

fn place(frames: &Frames) -> Place {
    Place { address: trimmed(frames).first().copied().unwrap_or(0), ..Place::UNKNOWN }
}

fn wrong(found: &SampledFault<'_>) -> bool {
    let fault = Fault {
        operation: found.operation.as_ptr(),
        block: core::ptr::without_provenance(found.addr),
        offset: found.addr.wrapping_sub(found.start),
        size: found.size,
        allocated: place(&found.allocated),
        freed: place(&found.freed),
        now: place(&found.now),
        ..Fault::new(found.kind)
    };
    let operation = found.operation.to_str().unwrap_or("access");
    if matches!(operation, "read" | "write" | "access") {
        // The signal ends the program, if nobody lets it go on.
        note(&fault, |out| {
            describe(found, operation, out)?;
            if policy() == Policy::Abort {
                writeln!(out, "allokit: the signal goes on to the program (ALLOKIT_POLICY=report goes on without it)")?;
            }
            Ok(())
        });
        return policy() != Policy::Abort;
    }
    raise(&fault, |out| describe(found, operation, out));
    true
}

fn describe(found: &SampledFault<'_>, operation: &str, out: &mut dyn Write) -> fmt::Result {
    let (addr, start, size) = (found.addr, found.start, Bytes(found.size));
    let verb = match (operation, found.writes) {
        (_, Some(true)) => "written",
        (_, Some(false)) => "read",
        _ => "accessed",
    };
    match found.kind {
        FaultKind::Overflow => {
            let by = Bytes((addr + 1).saturating_sub(start + found.size));
            writeln!(out, "allokit: overflow of {start:#x}, a block of {size}: {verb} {by} past its end")?;
        }
        FaultKind::Underflow => {
            let by = Bytes(start - addr);
            writeln!(out, "allokit: underflow of {start:#x}, a block of {size}: {verb} {by} before its start")?;
        }
        FaultKind::ReadAfterFree | FaultKind::WriteAfterFree => {
            let into = addr as isize - start as isize;
            let name =
                if found.kind == FaultKind::ReadAfterFree { "read after free of" } else { "write after free to" };
            writeln!(out, "allokit: {name} {start:#x}, a block of {size}: at offset {into}")?;
        }
        FaultKind::DoubleFree if operation == "free" => {
            writeln!(out, "allokit: double free of {addr:#x}, a block of {size}")?;
        }
        FaultKind::DoubleFree => {
            writeln!(out, "allokit: {operation} of {addr:#x}, a block of {size} that is already freed")?;
        }
        _ if start == 0 => {
            writeln!(out, "allokit: {operation} of {addr:#x}, which is no live block of this allocator")?;
        }
        _ => {
            let into = addr as isize - start as isize;
            writeln!(
                out,
                "allokit: {operation} of {addr:#x}, which is {into} bytes into a block of {size} at {start:#x}"
            )?;
        }
    }
    write_stack("  allocated at ", &found.allocated, out)?;
    write_stack("  freed at     ", &found.freed, out)?;
    write_stack("  now at       ", &found.now, out)
}

fn write_stack(label: &str, frames: &Frames, out: &mut dyn Write) -> fmt::Result {
    for (place, frame) in trimmed(frames).iter().enumerate() {
        let label = if place == 0 { label } else { "          by   " };
        writeln!(out, "{label}{}", symbol::Call(*frame))?;
    }
    Ok(())
}
