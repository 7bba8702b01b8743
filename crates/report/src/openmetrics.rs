//! Statistics in the OpenMetrics text format; figures that are not known are left out. What is added to Prometheus' format: a
//! family has the counter's name without `_total`, a unit where it has one, and the text ends with `# EOF`.

use crate::{FIELDS, Head};
use allokit_core::Stats;
use core::fmt;

pub(crate) fn write(head: &Head<'_>, stats: &Stats, out: &mut dyn fmt::Write) -> fmt::Result {
    for field in FIELDS {
        let Some(value) = field.get(stats) else { continue };
        let (suffix, kind) = if field.is_counter { ("_total", "counter") } else { ("", "gauge") };
        let name = field.name;
        writeln!(out, "# TYPE allokit_{name} {kind}")?;
        if name.ends_with("_bytes") {
            writeln!(out, "# UNIT allokit_{name} bytes")?;
        }
        writeln!(out, "# HELP allokit_{name} {}", field.help)?;
        writeln!(out, "allokit_{name}{suffix}{{backend=\"{}\"}} {value}", head.backend)?;
    }
    out.write_str("# EOF\n")
}
