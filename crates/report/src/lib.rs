//! What a person or a program reads: statistics as text, JSON, Prometheus and OpenMetrics, the table of leaks, the HTML page.
//!
//! Owns: the formats, and [`fault`]: what becomes of a fault that a layer has found. Uses: `allokit-core`,
//! `allokit-platform`, and `json-write` for JSON (no serde: another crate of a workspace could
//! switch serde's `std` on, and a library with a panic handler of its own cannot be linked with std).
//!
//! Invariants: nothing here allocates; a figure that is not known is never printed as a number.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod fault;
pub mod growth;
mod json;
mod leaks;
mod openmetrics;
pub mod page;
mod prometheus;
mod text;

#[cfg(test)]
mod tests;

pub use leaks::{finding, leak_heading, leak_row};

use allokit_core::{Known, Stats};
use core::fmt;

/// "1 byte", "7 bytes"
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub usize);

impl fmt::Display for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} byte{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// How much is tracked in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// The build leaves it out.
    None,
    /// Not asked for.
    Off,
    /// Blocks have call sites.
    Sites,
    /// Blocks have stacks.
    Stacks,
}

/// Whose statistics they are.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The library's version.
    pub version: &'a str,
    /// The backend's name.
    pub backend: &'a str,
    /// What is tracked.
    pub tracking: Tracking,
}

/// What all owners of a kind have: heaps, arenas and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owners {
    /// What one is called.
    pub kind: &'static str,
    /// How many live.
    pub live: u64,
    /// Bytes that they hold.
    pub reserved: u64,
    /// Bytes of their live blocks, where that is known.
    pub used: Option<u64>,
    /// The most that `reserved` has been.
    pub peak: u64,
}

/// The forms that statistics can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A table for a person.
    Text,
    /// One object on one line.
    Json,
    /// Prometheus' text format.
    Prometheus,
    /// OpenMetrics 1.0, with units and an end.
    OpenMetrics,
}

/// The members `allokit`, `backend`, `tracking`, `stats` and `owners` of a JSON object, without its braces.
///
/// # Errors
/// Those of the writer.
pub fn write_json_stats(head: &Head<'_>, stats: &Stats, owners: &[Owners], out: &mut dyn fmt::Write) -> fmt::Result {
    json::members(head, stats, owners, out)
}

/// Writes the statistics in a format.
///
/// # Errors
/// Those of the writer.
pub fn write_stats(
    format: Format,
    head: &Head<'_>,
    stats: &Stats,
    owners: &[Owners],
    out: &mut dyn fmt::Write,
) -> fmt::Result {
    match format {
        Format::Text => text::write(head, stats, owners, out),
        Format::Json => json::write(head, stats, owners, out),
        Format::Prometheus => prometheus::write(head, stats, owners, out),
        Format::OpenMetrics => openmetrics::write(head, stats, out),
    }
}

/// A JSON string of any bytes; what is not UTF-8 becomes U+FFFD.
///
/// # Errors
/// Those of the writer.
pub fn write_json_text(bytes: &[u8], out: &mut dyn fmt::Write) -> fmt::Result {
    out.write_str("\"")?;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => write!(out, "\\{c}")?,
                c if c < ' ' => write!(out, "\\u{:04x}", c as u32)?,
                c => out.write_char(c)?,
            }
        }
        if !chunk.invalid().is_empty() {
            out.write_char('\u{fffd}')?;
        }
    }
    out.write_str("\"")
}

/// One figure of [`Stats`]: what the formats need to know about it.
struct Field {
    name: &'static str,
    known: Known,
    value: fn(&Stats) -> u64,
    is_counter: bool,
    help: &'static str,
}

impl Field {
    fn get(&self, stats: &Stats) -> Option<u64> {
        stats.known.has(self.known).then(|| (self.value)(stats))
    }
}

macro_rules! fields {
    ($($name:ident $known:ident $counter:literal $help:literal;)*) => {
        const FIELDS: &[Field] = &[$(Field {
            name: stringify!($name),
            known: Known::$known,
            value: |stats| stats.$name,
            is_counter: $counter,
            help: $help,
        }),*];
    };
}

fields! {
    alloc_count ALLOC_COUNT true "Blocks handed out.";
    free_count FREE_COUNT true "Blocks taken back.";
    alloc_bytes ALLOC_BYTES true "Bytes handed out.";
    free_bytes FREE_BYTES true "Bytes taken back.";
    current_bytes CURRENT_BYTES false "Bytes live now.";
    peak_bytes PEAK_BYTES false "The most bytes that were live.";
    reserved_bytes RESERVED_BYTES false "Address space held, in bytes.";
    committed_bytes COMMITTED_BYTES false "Memory held, in bytes.";
    mapped_peak_bytes MAPPED_PEAK_BYTES false "The most memory that was held, in bytes.";
    threads THREADS false "Threads that hold allocator state.";
}
