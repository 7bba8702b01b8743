//! What is live, in the formats of profilers: pprof's protocol buffer and folded stacks. A call site without a stack is a
//! stack of one frame.
//!
//! pprof: `profile.proto` of github.com/google/pprof, uncompressed, which its readers take. Written by hand: the crates
//! for protocol buffers need an allocator, and what is reported on is the allocator.

use crate::SiteId;
use crate::growth::Growth;
use crate::leaks::{Leaks, Since, SiteCount};
use crate::sites::{Caller, Parts};
use crate::spread::Spread;
use allokit_core::Tag;
use allokit_platform::pages;
use allokit_platform::symbol::{self, Module, write_text};
use core::fmt::{self, Write};
use core::slice;

/// A line for each call site or stack with live blocks: `outermost;...;function (file:line) bytes`, as flame graph programs
/// take it.
///
/// # Errors
/// Those of the writer.
pub fn write_folded(out: &mut dyn fmt::Write) -> fmt::Result {
    let leaks = Leaks::take(Since::Start);
    for row in leaks.rows() {
        for &frame in row.site.frames().iter().rev() {
            write!(OneFrame(out), "{}", Caller(frame))?;
            out.write_str(";")?;
        }
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

/// The members `blocks`, `bytes`, `sites`, `ages`, `growth`, `timeline`, `sizes` and `map` of a JSON object, and where figures
/// are estimated `sampled` and `notes`: docs/profiling.md has the schema.
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

/// The first strings of the table; those of mappings follow, a path and a build id each, and those of locations, a name and a
/// file each.
const STRINGS: [&str; 6] = ["", "inuse_objects", "count", "inuse_space", "bytes", "space"];

/// Writes a profile with the sample types `inuse_objects/count` and `inuse_space/bytes`: a location for each call site and
/// each return address, a mapping for each part of a module that holds code. `time_ns` is the time of day in ns since 1970.
/// `add` takes the bytes as they come.
pub fn write_pprof(time_ns: i64, add: &mut dyn FnMut(&[u8])) {
    let leaks = Leaks::take(Since::Start);
    let modules = Modules::take();
    let keys = Keys::of(leaks.rows());
    // sample_type and, at the end, default_sample_type by their strings.
    for (kind, unit) in [(1, 2), (3, 4)] {
        let mut value_type = Message::new();
        value_type.number(1, kind);
        value_type.number(2, unit);
        value_type.put(1, add);
    }
    for row in leaks.rows() {
        let mut sample = Message::new();
        // Not packed: a repeated number may be written one by one.
        sample.number(1, key_of(row));
        row.site
            .frames()
            .iter()
            .filter(|frame| keys.has(**frame as u64))
            .for_each(|&frame| sample.number(1, frame as u64));
        sample.number(2, row.blocks);
        sample.number(2, row.bytes);
        sample.put(2, add);
    }
    for (index, module) in modules.list().iter().enumerate() {
        let strings = (STRINGS.len() + 2 * index) as u64;
        let mut mapping = Message::new();
        mapping.number(1, index as u64 + 1);
        mapping.number(2, module.start as u64);
        mapping.number(3, module.end as u64);
        mapping.number(4, module.offset as u64);
        mapping.number(5, strings);
        mapping.number(6, strings + 1);
        mapping.put(3, add);
    }
    let first = (STRINGS.len() + 2 * modules.list().len()) as u64;
    for (index, key) in keys.list().enumerate() {
        put_location(key, first + 2 * index as u64, &modules, add);
    }
    for text in STRINGS {
        put_text(&|out| out.write_str(text), add);
    }
    for module in modules.list() {
        put_text(&|out| write_text(module.path(), out), add);
        put_text(&|out| module.build_id().iter().try_for_each(|byte| write!(out, "{byte:02x}")), add);
    }
    for key in keys.list() {
        put_text(&|out| write_name(key, out), add);
        put_text(&|out| write_file(key, out), add);
    }
    let mut rest = Message::new();
    rest.number(9, time_ns as u64);
    if leaks.sampled > 0 {
        // period_type and period.
        let mut value_type = Message::new();
        value_type.number(1, 5);
        value_type.number(2, 4);
        rest.message(11, &value_type);
        rest.number(12, leaks.sampled);
    }
    rest.number(14, 3);
    add(rest.bytes());
}

/// A location and its function, both of the number `key`.
fn put_location(key: u64, name: u64, modules: &Modules, add: &mut dyn FnMut(&[u8])) {
    let place = place_of(key);
    let mut line = Message::new();
    line.number(1, key);
    line.number(2, u64::from(place.line));
    let mut location = Message::new();
    location.number(1, key);
    if let Some(index) = modules.list().iter().position(|module| (module.start..module.end).contains(&place.caller)) {
        location.number(2, index as u64 + 1);
    }
    location.number(3, place.caller as u64);
    location.message(4, &line);
    location.put(4, add);

    let mut function = Message::new();
    function.number(1, key);
    function.number(2, name);
    function.number(3, name);
    function.number(4, name + 1);
    function.put(5, add);
}

/// What a location is known by: the number of a call site, or a return address, which is larger than those.
const KEYS_OF_SITES: u64 = Tag::SITE_MAX as u64 + 1;

/// The key of a row's call site; 0 is none, so the unknown site has another one.
fn key_of(row: &SiteCount) -> u64 {
    match row.site.leaf().number() {
        0 => KEYS_OF_SITES,
        number => u64::from(number),
    }
}

fn place_of(key: u64) -> Parts {
    match key {
        KEYS_OF_SITES => Parts::default(),
        0..KEYS_OF_SITES => SiteId::from_number(key as u32).parts(),
        address => Parts { caller: address as usize, ..Parts::default() },
    }
}

fn write_name(key: u64, out: &mut dyn fmt::Write) -> fmt::Result {
    let place = place_of(key);
    match place.function {
        Some(function) => write_text(function.to_bytes(), out),
        None if key > KEYS_OF_SITES => write!(out, "{}", Caller(place.caller)),
        None => write!(out, "{}", SiteId::from_number((key % KEYS_OF_SITES) as u32)),
    }
}

fn write_file(key: u64, out: &mut dyn fmt::Write) -> fmt::Result {
    let place = place_of(key);
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

/// The keys of some rows, each once.
struct Keys {
    /// A power of two of places, 0 where none is; null when there was no memory.
    table: *mut u64,
    mask: usize,
    used: usize,
}

impl Keys {
    /// What is more than this has no location.
    const MOST: usize = 1 << 22;

    fn of(rows: &[SiteCount]) -> Keys {
        let all: usize = rows.iter().map(|row| 1 + row.site.frames().len()).sum();
        let places = (2 * all).next_power_of_two().clamp(1 << 9, Keys::MOST);
        let table = pages::map(places * size_of::<u64>(), pages::os_page()).cast::<u64>();
        let mut keys = Keys { table, mask: places - 1, used: 0 };
        // Call sites first: without a location, a sample would be nobody's.
        rows.iter().for_each(|row| keys.add(key_of(row)));
        rows.iter().flat_map(|row| row.site.frames()).for_each(|&frame| keys.add(frame as u64));
        keys
    }

    fn places(&self) -> &[u64] {
        if self.table.is_null() {
            return &[];
        }
        // SAFETY: the mapping is ours and has so many.
        unsafe { slice::from_raw_parts(self.table, self.mask + 1) }
    }

    /// Where a key is or would be.
    fn find(&self, key: u64) -> Option<usize> {
        let places = self.places();
        let mut at = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & self.mask;
        while *places.get(at)? != key && places[at] != 0 {
            at = (at + 1) & self.mask;
        }
        Some(at)
    }

    fn add(&mut self, key: u64) {
        if let Some(at) = self.find(key)
            && self.places()[at] == 0
            && self.used < self.mask * 3 / 4
        {
            // SAFETY: one of the places.
            unsafe { self.table.add(at).write(key) };
            self.used += 1;
        }
    }

    fn has(&self, key: u64) -> bool {
        self.find(key).is_some_and(|at| self.places()[at] == key)
    }

    fn list(&self) -> impl Iterator<Item = u64> {
        self.places().iter().copied().filter(|key| *key != 0)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if !self.table.is_null() {
            // SAFETY: the mapping is ours and nobody looks at it any more.
            unsafe { pages::release(self.table.cast(), (self.mask + 1) * size_of::<u64>(), pages::os_page()) };
        }
    }
}

/// The parts of the loaded modules that hold code.
struct Modules {
    table: *mut Module,
    used: usize,
}

impl Modules {
    const MOST: usize = 1024;
    const BYTES: usize = (Modules::MOST * size_of::<Module>()).next_multiple_of(64 << 10);

    fn take() -> Modules {
        let table = pages::map(Modules::BYTES, pages::os_page()).cast::<Module>();
        let mut modules = Modules { table, used: 0 };
        if !table.is_null() {
            symbol::modules(&mut |module| {
                if modules.used < Modules::MOST {
                    // SAFETY: there is room for so many.
                    unsafe { table.add(modules.used).write(module) };
                    modules.used += 1;
                }
            });
        }
        modules
    }

    fn list(&self) -> &[Module] {
        if self.table.is_null() {
            return &[];
        }
        // SAFETY: so many are filled.
        unsafe { slice::from_raw_parts(self.table, self.used) }
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        if !self.table.is_null() {
            // SAFETY: the mapping is ours and nobody looks at it any more.
            unsafe { pages::release(self.table.cast(), Modules::BYTES, pages::os_page()) };
        }
    }
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

/// A message of a few numbers, or of the longest stack.
struct Message {
    bytes: [u8; 1600],
    used: usize,
}

impl Message {
    fn new() -> Message {
        Message { bytes: [0; 1600], used: 0 }
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
