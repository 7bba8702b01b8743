//! The table of live blocks, grouped by call site; and findings in the form of compilers.

use core::fmt;

/// The first lines: what was found, and the heading of the columns. With a context they are those of `ak_assert_balanced`.
///
/// # Errors
/// Those of the writer.
pub fn leak_heading(
    out: &mut dyn fmt::Write,
    context: Option<&dyn fmt::Display>,
    blocks: u64,
    bytes: u64,
    sites: u64,
) -> fmt::Result {
    match context {
        None => writeln!(out, "allokit: {blocks} live blocks, {bytes} bytes, from {sites} call sites")?,
        Some(context) => writeln!(
            out,
            "allokit: {context}: {blocks} blocks, {bytes} bytes, live since the mark, from {sites} call sites"
        )?,
    }
    writeln!(out, "{:>16}{:>14}  call site", "count", "bytes")
}

/// One call site's line.
///
/// # Errors
/// Those of the writer.
pub fn leak_row(out: &mut dyn fmt::Write, blocks: u64, bytes: u64, place: &dyn fmt::Display) -> fmt::Result {
    writeln!(out, "{blocks:>16}{bytes:>14}  {place}")
}

/// A line that editors and CI read: `file:line: warning: about (function)`.
///
/// # Errors
/// Those of the writer.
pub fn finding(
    out: &mut dyn fmt::Write,
    place: &dyn fmt::Display,
    function: Option<&dyn fmt::Display>,
    about: &dyn fmt::Display,
) -> fmt::Result {
    match function {
        Some(function) => writeln!(out, "{place}: warning: {about} ({function})"),
        None => writeln!(out, "{place}: warning: {about}"),
    }
}
