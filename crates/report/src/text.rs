//! Statistics as a table for a person.

use crate::{Head, Owners, Tracking};
use allokit_core::{Known, Stats};
use core::fmt;

/// A figure, or `unknown`, aligned to the right.
struct Cell(Option<u64>);

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => fmt::Display::fmt(&value, f),
            None => f.pad("unknown"),
        }
    }
}

pub(crate) fn write(head: &Head<'_>, stats: &Stats, owners: &[Owners], out: &mut dyn fmt::Write) -> fmt::Result {
    let tracking = match head.tracking {
        Tracking::None => "built without tracking",
        Tracking::Off => "tracking off",
        Tracking::Sites => "tracking sites",
        Tracking::Stacks => "tracking stacks",
    };
    writeln!(out, "allokit {}, backend {}, {tracking}", head.version, head.backend)?;
    let figure = |known, value| Cell(stats.known.has(known).then_some(value));
    let rows = [
        ("allocated", figure(Known::ALLOC_COUNT, stats.alloc_count), figure(Known::ALLOC_BYTES, stats.alloc_bytes)),
        ("freed", figure(Known::FREE_COUNT, stats.free_count), figure(Known::FREE_BYTES, stats.free_bytes)),
        (
            "live",
            figure(Known::ALLOC_COUNT | Known::FREE_COUNT, stats.alloc_count.saturating_sub(stats.free_count)),
            figure(Known::CURRENT_BYTES, stats.current_bytes),
        ),
    ];
    for (label, blocks, bytes) in rows {
        writeln!(out, "  {label:<11}{blocks:>9} blocks{bytes:>13} bytes")?;
    }
    let rows = [
        ("peak", figure(Known::PEAK_BYTES, stats.peak_bytes)),
        ("reserved", figure(Known::RESERVED_BYTES, stats.reserved_bytes)),
        ("committed", figure(Known::COMMITTED_BYTES, stats.committed_bytes)),
        ("mapped peak", figure(Known::MAPPED_PEAK_BYTES, stats.mapped_peak_bytes)),
    ];
    for (label, bytes) in rows {
        writeln!(out, "  {label:<11}{bytes:>29} bytes")?;
    }
    writeln!(out, "  {:<11}{:>9}", "threads", figure(Known::THREADS, stats.threads))?;
    // Of what the program has never had there is no line.
    for Owners { kind, live, reserved, used, peak } in owners.iter().filter(|owners| owners.live + owners.peak != 0) {
        let (used, s, width) = (Cell(*used), "s", 11 - kind.len());
        writeln!(out, "  {kind}{s:<width$}{live:>9} live{reserved:>15} bytes, {used} used, peak {peak}")?;
    }
    Ok(())
}
