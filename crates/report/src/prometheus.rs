//! Statistics in Prometheus' text format; figures that are not known are left out.

use crate::{FIELDS, Head, Owners};
use allokit_core::Stats;
use core::fmt;

pub(crate) fn write(head: &Head<'_>, stats: &Stats, owners: &[Owners], out: &mut dyn fmt::Write) -> fmt::Result {
    for field in FIELDS {
        let Some(value) = field.get(stats) else { continue };
        let (suffix, kind) = if field.is_counter { ("_total", "counter") } else { ("", "gauge") };
        let name = field.name;
        writeln!(out, "# HELP allokit_{name}{suffix} {}", field.help)?;
        writeln!(out, "# TYPE allokit_{name}{suffix} {kind}")?;
        writeln!(out, "allokit_{name}{suffix}{{backend=\"{}\"}} {value}", head.backend)?;
    }
    type Figure = (&'static str, fn(&Owners) -> Option<u64>, &'static str);
    let figures: [Figure; 4] = [
        ("owners", |one| Some(one.live), "Heaps, arenas, regions, pools and stacks that live."),
        ("owners_reserved_bytes", |one| Some(one.reserved), "Bytes that they hold."),
        ("owners_used_bytes", |one| one.used, "Bytes of their live blocks."),
        ("owners_peak_bytes", |one| Some(one.peak), "The most bytes that they held."),
    ];
    for (name, value, help) in figures {
        if !owners.iter().any(|one| value(one).is_some()) {
            continue;
        }
        writeln!(out, "# HELP allokit_{name} {help}")?;
        writeln!(out, "# TYPE allokit_{name} gauge")?;
        for one in owners {
            if let Some(value) = value(one) {
                writeln!(out, "allokit_{name}{{backend=\"{}\",kind=\"{}\"}} {value}", head.backend, one.kind)?;
            }
        }
    }
    Ok(())
}
