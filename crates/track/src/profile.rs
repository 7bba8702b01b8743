//! What is live, in the formats of profilers: pprof's protocol buffer and folded stacks. A call site is a stack of one
//! frame.
//!
//! pprof: `profile.proto` of github.com/google/pprof, uncompressed, which its readers take. Written by hand: the crates
//! for protocol buffers need an allocator, and what is reported on is the allocator.

use crate::growth::Growth;
use crate::leaks::{Leaks, Since, SiteCount};
use crate::sites::Parts;
use crate::spread::Spread;
use allokit_platform::symbol;
use allokit_platform::symbol::write_text;
use core::fmt::{self, Write};

/// A line for each call site with live blocks: `function (file:line) bytes`, as flame graph programs take it.
///
/// # Errors
/// Those of the writer.
pub fn write_folded(out: &mut dyn fmt::Write) -> fmt::Result {
    let leaks = Leaks::take(Since::Start);
    for row in leaks.rows() {
        let mut frame = OneFrame(out);
        let place = row.site.parts();
        if let Some(function) = place.function {
            write_text(function.to_bytes(), &mut frame)?;
            write!(frame, " (")?;
            write_text(place.file.map_or(&b""[..], |file| file.to_bytes()), &mut frame)?;
            write!(frame, ":{})", place.line)?;
        } else {
            write!(frame, "{}", row.site)?;
        }
        writeln!(out, " {}", row.bytes)?;
    }
    Ok(())
}

/// The members `blocks`, `bytes`, `sites`, `ages`, `growth`, `timeline`, `sizes` and `map` of a JSON object: docs/profiling.md has the schema.
///
/// # Errors
/// Those of the writer.
pub fn write_json(out: &mut dyn fmt::Write) -> fmt::Result {
    Leaks::take(Since::Start).write_members(out)?;
    out.write_str(",\n")?;
    let growth = Growth::take();
    if growth.is_known() {
        growth.write_members(out)?;
        out.write_str(",\n")?;
    }
    Spread::take().write_json(out)
}

/// Text that is to be one frame: the character between frames and the end of the line have a meaning there.
struct OneFrame<'a>(&'a mut dyn fmt::Write);

impl fmt::Write for OneFrame<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| self.0.write_char(if c == ';' || c == '\n' { ' ' } else { c }))
    }
}

/// The first strings of the table; those of a site follow, a name and a file for each.
const STRINGS: [&str; 6] = ["", "inuse_objects", "count", "inuse_space", "bytes", "space"];

/// Writes a profile with the sample types `inuse_objects/count` and `inuse_space/bytes`, a location for each call site.
/// `time_ns` is the time of day in ns since 1970. `add` takes the bytes as they come.
pub fn write_pprof(time_ns: i64, add: &mut dyn FnMut(&[u8])) {
    let leaks = Leaks::take(Since::Start);
    // sample_type and, at the end, default_sample_type by their strings.
    for (kind, unit) in [(1, 2), (3, 4)] {
        let mut value_type = Message::new();
        value_type.number(1, kind);
        value_type.number(2, unit);
        value_type.put(1, add);
    }
    for (index, row) in leaks.rows().iter().enumerate() {
        put_row(index as u64, row, add);
    }
    for text in STRINGS {
        put_text(&|out| out.write_str(text), add);
    }
    for row in leaks.rows() {
        let place = row.site.parts();
        put_text(&|out| write_name(row, &place, out), add);
        put_text(&|out| write_file(&place, out), add);
    }
    let mut rest = Message::new();
    rest.number(9, time_ns as u64);
    rest.number(14, 3);
    add(rest.bytes());
}

/// A sample, its location and its function, all of the number `index` + 1.
fn put_row(index: u64, row: &SiteCount, add: &mut dyn FnMut(&[u8])) {
    let (id, name) = (index + 1, STRINGS.len() as u64 + 2 * index);
    let place = row.site.parts();
    let mut sample = Message::new();
    sample.number(1, id);
    // Not packed: a repeated number may be written one by one.
    sample.number(2, row.blocks);
    sample.number(2, row.bytes);
    sample.put(2, add);

    let mut line = Message::new();
    line.number(1, id);
    line.number(2, u64::from(place.line));
    let mut location = Message::new();
    location.number(1, id);
    location.number(3, place.caller as u64);
    location.message(4, &line);
    location.put(4, add);

    let mut function = Message::new();
    function.number(1, id);
    function.number(2, name);
    function.number(3, name);
    function.number(4, name + 1);
    function.put(5, add);
}

fn write_name(row: &SiteCount, place: &Parts, out: &mut dyn fmt::Write) -> fmt::Result {
    match place.function {
        Some(function) => write_text(function.to_bytes(), out),
        None => write!(out, "{}", row.site),
    }
}

fn write_file(place: &Parts, out: &mut dyn fmt::Write) -> fmt::Result {
    if let Some(file) = place.file {
        return write_text(file.to_bytes(), out);
    }
    if place.caller != 0
        && let Some(found) = symbol::of(place.caller - 1)
    {
        return write_text(found.module.to_bytes(), out);
    }
    Ok(())
}

/// An entry of the string table. Written twice: its length comes first.
fn put_text(write: &dyn Fn(&mut dyn fmt::Write) -> fmt::Result, add: &mut dyn FnMut(&[u8])) {
    struct Count(u64);
    impl fmt::Write for Count {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 += text.len() as u64;
            Ok(())
        }
    }
    // A module may be unloaded in between, and its names with it: the length that was said is kept.
    struct Out<'a>(&'a mut dyn FnMut(&[u8]), u64);
    impl fmt::Write for Out<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let taken = text.len().min(self.1 as usize);
            self.1 -= taken as u64;
            (self.0)(&text.as_bytes()[..taken]);
            Ok(())
        }
    }
    let mut count = Count(0);
    // Neither writer fails.
    let _ = write(&mut count);
    let mut head = Message::new();
    head.varint(6 << 3 | 2);
    head.varint(count.0);
    add(head.bytes());
    let mut out = Out(add, count.0);
    let _ = write(&mut out);
    while out.1 > 0 {
        let _ = out.write_str(" ");
    }
}

/// A message of a few numbers.
struct Message {
    bytes: [u8; 96],
    used: usize,
}

impl Message {
    fn new() -> Message {
        Message { bytes: [0; 96], used: 0 }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    fn byte(&mut self, byte: u8) {
        self.bytes[self.used] = byte;
        self.used += 1;
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn message(&mut self, field: u64, inner: &Message) {
        self.varint(field << 3 | 2);
        self.varint(inner.used as u64);
        inner.bytes().iter().for_each(|&byte| self.byte(byte));
    }

    /// Adds the message as a field of the profile.
    fn put(&self, field: u64, add: &mut dyn FnMut(&[u8])) {
        let mut outer = Message::new();
        outer.message(field, self);
        add(outer.bytes());
    }
}
