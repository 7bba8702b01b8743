//! Statistics as one JSON object; figures that are not known are null.

use crate::{FIELDS, Head, Tracking};
use allokit_core::Stats;
use core::fmt;
use json_write::JsonWrite;

pub(crate) fn write(head: &Head<'_>, stats: &Stats, mut out: &mut dyn fmt::Write) -> fmt::Result {
    (&mut out).open_object()?;
    members(head, stats, out)?;
    (&mut out).close_object()?;
    (&mut out).newline()
}

/// All between the braces.
pub(crate) fn members(head: &Head<'_>, stats: &Stats, mut out: &mut dyn fmt::Write) -> fmt::Result {
    let out = &mut out;
    let tracking = match head.tracking {
        Tracking::None => "none",
        Tracking::Off => "off",
        Tracking::Sites => "sites",
    };
    for (key, value) in [("allokit", head.version), ("backend", head.backend), ("tracking", tracking)] {
        out.key(key)?;
        out.keyval_sep()?;
        out.value(value)?;
        out.val_sep()?;
    }
    out.key("stats")?;
    out.keyval_sep()?;
    out.open_object()?;
    for (index, field) in FIELDS.iter().enumerate() {
        if index > 0 {
            out.val_sep()?;
        }
        out.key(field.name)?;
        out.keyval_sep()?;
        out.value(field.get(stats))?;
    }
    out.close_object()
}
