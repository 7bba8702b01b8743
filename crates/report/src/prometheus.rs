//! Statistics in Prometheus' text format; figures that are not known are left out.

use crate::{FIELDS, Head};
use allokit_core::Stats;
use core::fmt;

pub(crate) fn write(head: &Head<'_>, stats: &Stats, out: &mut dyn fmt::Write) -> fmt::Result {
    for field in FIELDS {
        let Some(value) = field.get(stats) else { continue };
        let (suffix, kind) = if field.is_counter { ("_total", "counter") } else { ("", "gauge") };
        let name = field.name;
        writeln!(out, "# HELP allokit_{name}{suffix} {}", field.help)?;
        writeln!(out, "# TYPE allokit_{name}{suffix} {kind}")?;
        writeln!(out, "allokit_{name}{suffix}{{backend=\"{}\"}} {value}", head.backend)?;
    }
    Ok(())
}
