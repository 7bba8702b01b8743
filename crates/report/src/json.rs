//! Statistics as one JSON object; figures that are not known are null.

use crate::{FIELDS, Head, Owners, Tracking};
use allokit_core::Stats;
use core::fmt;
use json_write::JsonWrite;

pub(crate) fn write(head: &Head<'_>, stats: &Stats, owners: &[Owners], mut out: &mut dyn fmt::Write) -> fmt::Result {
    (&mut out).open_object()?;
    members(head, stats, owners, out)?;
    (&mut out).close_object()?;
    (&mut out).newline()
}

/// The member that tells of heaps, arenas and the like; a comma before it.
fn write_owners(owners: &[Owners], mut out: &mut dyn fmt::Write) -> fmt::Result {
    let out = &mut out;
    out.val_sep()?;
    out.key("owners")?;
    out.keyval_sep()?;
    out.open_object()?;
    for (index, one) in owners.iter().enumerate() {
        if index > 0 {
            out.val_sep()?;
        }
        out.key(one.kind)?;
        out.keyval_sep()?;
        out.open_object()?;
        let figures = [
            ("live", Some(one.live)),
            ("reserved_bytes", Some(one.reserved)),
            ("used_bytes", one.used),
            ("peak_bytes", Some(one.peak)),
        ];
        for (index, (key, value)) in figures.into_iter().enumerate() {
            if index > 0 {
                out.val_sep()?;
            }
            out.key(key)?;
            out.keyval_sep()?;
            out.value(value)?;
        }
        out.close_object()?;
    }
    out.close_object()
}

/// All between the braces.
pub(crate) fn members(head: &Head<'_>, stats: &Stats, owners: &[Owners], text: &mut dyn fmt::Write) -> fmt::Result {
    let out = &mut &mut *text;
    let tracking = match head.tracking {
        Tracking::None => "none",
        Tracking::Off => "off",
        Tracking::Sites => "sites",
        Tracking::Stacks => "stacks",
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
    out.close_object()?;
    write_owners(owners, text)
}
