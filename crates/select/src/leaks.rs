//! What is live and by whom: `ak_leaks_print`, `ak_mark`, `ak_assert_balanced`; and the reports at exit.

use crate::api::Level;
use crate::settings::LeaksForm;
use crate::{api, heap, settings};
use allokit_platform::file::Draft;
use allokit_platform::stderr::Stderr;
use allokit_platform::{clock, control, errno, process};
use allokit_report::page;
use core::ffi::{CStr, c_char, c_void};
use core::fmt::{self, Write};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

/// No server here.
#[cfg(not(all(any(target_os = "linux", target_os = "android"), not(miri))))]
mod http {
    pub(crate) fn listen() -> Option<allokit_platform::control::Open> {
        None
    }
    pub(crate) fn serve(_fd: i32) {}
    pub(crate) fn remove() {}
}
#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
use crate::http;

/// What stands for the tracking layer in a build without it; never reached, since [`unknown`] has a reason then.
#[cfg(not(feature = "track"))]
mod absent {
    pub(super) fn leaks_print() -> usize {
        0
    }
    pub(super) fn leaks_table(_out: &mut dyn super::Write) -> core::fmt::Result {
        Ok(())
    }
    pub(super) fn leaks_write(_format: super::LeaksFormat, _out: &mut dyn super::Write) -> core::fmt::Result {
        Ok(())
    }
    pub(super) fn growth_take() -> bool {
        false
    }
    pub(super) fn growth_known() -> bool {
        false
    }
    pub(super) fn growth_write(_format: super::LeaksFormat, _out: &mut dyn super::Write) -> core::fmt::Result {
        Ok(())
    }
    pub(super) fn mark() {}
    pub(super) fn assert_balanced(_context: &core::ffi::CStr) -> bool {
        true
    }
    pub(super) fn visit(_see: &mut dyn FnMut(&super::SiteInfo) -> bool) -> usize {
        0
    }
    pub(super) fn snapshot_take() -> *mut super::RawSnapshot {
        super::ptr::null_mut()
    }
    pub(super) unsafe fn snapshot_free(_snapshot: *mut super::RawSnapshot) {}
    pub(super) unsafe fn snapshot_diff(
        _before: *const super::RawSnapshot,
        _after: *const super::RawSnapshot,
        _json: bool,
        _out: &mut dyn super::Write,
    ) -> core::fmt::Result {
        Ok(())
    }
    pub(super) fn write_json(_out: &mut dyn super::Write) -> core::fmt::Result {
        Ok(())
    }
    pub(super) fn profile(_format: super::Profile, _out: &mut super::Draft<'_>) {}
    pub(super) fn pprof(_add: &mut dyn FnMut(&[u8])) {}
}
#[cfg(feature = "track")]
use crate::tracked;
#[cfg(not(feature = "track"))]
use absent as tracked;

/// Why nothing is known of live blocks; `None` when something is.
pub(crate) fn unknown() -> Option<&'static str> {
    if !cfg!(feature = "track") {
        Some("this library was built without tracking (ALLOKIT_TRACK=OFF)")
    } else if !api::was_tracked() {
        Some("tracking is off (set ALLOKIT_TRACK=sites before the program starts)")
    } else {
        None
    }
}

/// `ak_leaks_print`
pub fn print() -> usize {
    if let Some(reason) = unknown() {
        let mut out = Stderr::new();
        let _ = writeln!(out, "allokit: leaks are unknown: {reason}");
        return 0;
    }
    tracked::leaks_print()
}

/// The forms of a list of leaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaksFormat {
    /// Tables: by call site, size and age.
    Text,
    /// One object.
    Json,
    /// A line for each call site, as compilers write them.
    Lines,
}

/// `ak_leaks_write`: false, with ENOTSUP, when nothing is known.
pub fn write(format: LeaksFormat, out: &mut dyn Write) -> bool {
    // A writer of C's does not fail, and one of ours tells at its end.
    is_known() && tracked::leaks_write(format, out).is_ok()
}

/// `ak_growth_take`: false with ENOTSUP or ENOMEM.
pub fn growth_take() -> bool {
    if !is_known() {
        return false;
    }
    let taken = tracked::growth_take();
    if !taken {
        errno::set(errno::ENOMEM);
    }
    taken
}

/// `ak_growth_write`: false, with ENOTSUP, when nothing is known.
pub fn growth_write(format: LeaksFormat, out: &mut dyn Write) -> bool {
    is_known() && tracked::growth_write(format, out).is_ok()
}

/// `ak_mark`
pub fn mark() {
    if unknown().is_none() {
        tracked::mark();
    }
}

/// `ak_assert_balanced`
///
/// # Safety
/// `context` is null or zero-terminated.
pub unsafe fn assert_balanced(context: *const c_char) -> bool {
    // SAFETY: the caller's promise.
    let context = if context.is_null() { c"assert_balanced" } else { unsafe { CStr::from_ptr(context) } };
    if let Some(reason) = unknown() {
        let mut out = Stderr::new();
        let context = context.to_str().unwrap_or("(not UTF-8)");
        let _ = writeln!(out, "allokit: {context}: balance is unknown: {reason}");
        return true;
    }
    tracked::assert_balanced(context)
}

/// `ak_site_info_t`
#[repr(C)]
#[derive(Debug)]
pub struct SiteInfo {
    /// The size of this.
    pub struct_size: usize,
    /// The file, or null: a return address, or unknown.
    pub file: *const c_char,
    /// The function, or null.
    pub function: *const c_char,
    /// The line, or 0.
    pub line: u32,
    /// The number of the site.
    pub number: u32,
    /// The return address, or null.
    pub address: *const c_void,
    /// Live blocks and their bytes.
    pub live_blocks: u64,
    /// See above.
    pub live_bytes: u64,
}

/// `ak_snapshot_t`: only ever behind a pointer.
#[repr(C)]
#[derive(Debug)]
pub struct RawSnapshot {
    _opaque: [u8; 0],
}

/// `ak_profile_t`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The protocol buffer of pprof.
    Pprof = 0,
    /// Folded stacks, a line each.
    Folded = 1,
    /// A page for a browser.
    Html = 2,
    /// The data of that page, as a JSON object.
    Json = 3,
}

/// Whether live blocks are known; sets ENOTSUP if not.
fn is_known() -> bool {
    let known = unknown().is_none();
    if !known {
        errno::set(errno::ENOTSUP);
    }
    known
}

/// `ak_site_visit`
pub fn visit(see: &mut dyn FnMut(&SiteInfo) -> bool) -> usize {
    if is_known() { tracked::visit(see) } else { 0 }
}

/// `ak_snapshot_take`
#[must_use]
pub fn snapshot_take() -> *mut RawSnapshot {
    if !is_known() {
        return ptr::null_mut();
    }
    let snapshot = tracked::snapshot_take();
    if snapshot.is_null() {
        errno::set(errno::ENOMEM);
    }
    snapshot
}

/// `ak_snapshot_free`
///
/// # Safety
/// `snapshot` is null or came from [`snapshot_take`], and is used no more.
pub unsafe fn snapshot_free(snapshot: *mut RawSnapshot) {
    // SAFETY: the caller's promise.
    unsafe { tracked::snapshot_free(snapshot) }
}

/// `ak_snapshot_diff`, with `after` null for now. False with EINVAL for a null `before`, ENOMEM without memory to look.
///
/// # Safety
/// Both are null or came from [`snapshot_take`] and are live.
pub unsafe fn snapshot_diff(
    before: *const RawSnapshot,
    after: *const RawSnapshot,
    json: bool,
    out: &mut dyn Write,
) -> bool {
    if before.is_null() {
        errno::set(errno::EINVAL);
        return false;
    }
    let now = if after.is_null() { snapshot_take() } else { ptr::null_mut() };
    let after = if after.is_null() { now.cast_const() } else { after };
    if after.is_null() {
        return false;
    }
    // SAFETY: the caller's promise; `now` is ours.
    unsafe {
        let written = tracked::snapshot_diff(before, after, json, out).is_ok();
        snapshot_free(now);
        written
    }
}

/// `ak_profile_write`: false with errno when the file cannot be written whole; what was there before stays then.
#[must_use]
pub fn profile_write(format: Profile, path: &CStr) -> bool {
    if !is_known() {
        return false;
    }
    let Some(mut draft) = Draft::begin(path) else { return false };
    // A draft tells at its end whether all went well.
    match format {
        Profile::Html => drop(page::write(&mut draft, write_json)),
        Profile::Json => drop(write_json(&mut draft)),
        Profile::Pprof | Profile::Folded => tracked::profile(format, &mut draft),
    }
    draft.finish()
}

/// What is live as a page.
pub(crate) fn write_page(out: &mut dyn Write) -> fmt::Result {
    page::write(out, write_json)
}

/// What is live for pprof.
pub(crate) fn write_pprof(add: &mut dyn FnMut(&[u8])) {
    tracked::pprof(add);
}

/// What is known of the process as one JSON object: docs/profiling.md has the schema.
pub(crate) fn write_json(out: &mut dyn Write) -> fmt::Result {
    out.write_str("{\"format\":\"allokit-report\",\"version\":1,\"program\":")?;
    allokit_report::write_json_text(process::program(&mut [0; 4096]), out)?;
    writeln!(out, ",\"pid\":{},\"time_ns\":{},", process::id(), clock::unix_ns())?;
    api::stats_json(out)?;
    out.write_str(",\n")?;
    tracked::write_json(out)?;
    out.write_str(",\n")?;
    heap::write_json(out)?;
    out.write_str("}\n")
}

/// A path in which `%p` stands for the number of the process, so that a program and those that it starts do not report
/// over one another. `None` when it becomes too long.
pub(crate) fn filled<'a>(path: &'a CStr, room: &'a mut [u8; 4096]) -> Option<&'a CStr> {
    let text = path.to_bytes_with_nul();
    if !text.windows(2).any(|two| two == b"%p") {
        return Some(path);
    }
    let mut out = Into { room, used: 0 };
    let mut rest = text;
    while let Some(at) = rest.windows(2).position(|two| two == b"%p") {
        out.add(&rest[..at]).ok()?;
        write!(out, "{}", process::id()).ok()?;
        rest = &rest[at + 2..];
    }
    out.add(rest).ok()?;
    CStr::from_bytes_until_nul(room).ok()
}

/// Text into an array.
struct Into<'a> {
    room: &'a mut [u8],
    used: usize,
}

impl Into<'_> {
    fn add(&mut self, bytes: &[u8]) -> fmt::Result {
        let place = self.room.get_mut(self.used..self.used + bytes.len()).ok_or(fmt::Error)?;
        place.copy_from_slice(bytes);
        self.used += bytes.len();
        Ok(())
    }
}

impl Write for Into<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.add(text.as_bytes())
    }
}

/// Makes the thread that takes orders through the pipe that `ALLOKIT_CONTROL` names and by the signal of
/// `ALLOKIT_SIGNAL`, and takes snapshots as often as
/// `ALLOKIT_GROWTH` says, if there is one of them.
pub fn listen() {
    let mut pipe = None;
    if let Some(path) = settings::control() {
        let mut room = [0; 4096];
        let path = filled(path, &mut room).unwrap_or(path);
        pipe = control::pipe(path);
        if pipe.is_none() {
            let error = errno::get();
            let mut out = Stderr::new();
            let path = path.to_str().unwrap_or("(not UTF-8)");
            let _ = writeln!(
                out,
                "allokit: ALLOKIT_CONTROL: {path} cannot be a pipe (errno {error}); name a path that is not there"
            );
        }
    }
    let mut signals = None;
    if let Some((number, _)) = settings::signal() {
        signals = control::signals(number);
        if signals.is_none() {
            say(format_args!("ALLOKIT_SIGNAL: the program has this signal already, or there can be no pipe for it"));
        }
    }
    let (every_ms, socket) = (settings::growth_every_ms(), http::listen());
    if pipe.is_none() && signals.is_none() && socket.is_none() && every_ms == 0 {
        return;
    }
    let orders = control::Orders { pipe, signals, act: obey, socket, serve: http::serve, every_ms, tick };
    if !control::start(orders) {
        let mut out = Stderr::new();
        let _ = writeln!(
            out,
            "allokit: there is no thread for ALLOKIT_CONTROL, ALLOKIT_SIGNAL, ALLOKIT_GROWTH and ALLOKIT_HTTP (errno {})",
            errno::get()
        );
    }
}

/// Says something on stderr.
pub(crate) fn say(text: fmt::Arguments<'_>) {
    let _ = writeln!(Stderr::new(), "allokit: {text}");
}

/// Keeps what is live, if that is known.
fn tick() {
    if unknown().is_none() {
        growth_take();
    }
}

/// What the orders are, for a wrong one.
const ORDERS: &str = "track sites, track stacks, track off, sample BYTES, mark, snapshot, leaks, grown, stats, pprof:PATH, \
     folded:PATH, html:PATH, json:PATH";

/// Does what one line says; the answer, where there is one to read, goes to stderr.
fn obey(line: &[u8]) {
    static BEFORE: AtomicPtr<RawSnapshot> = AtomicPtr::new(ptr::null_mut());
    let mut out = Stderr::new();
    let mut room = [0; 4096];
    let text = Into { room: &mut room, used: 0 };
    match line {
        b"" => {}
        b"track sites" => switch(Level::Sites, &mut out),
        b"track stacks" => switch(Level::Stacks, &mut out),
        b"track off" => switch(Level::Off, &mut out),
        control::SIGNALLED => on_signal(&mut out),
        b"mark" => {
            mark();
            let now = snapshot_take();
            // SAFETY: nobody else takes it; orders come one after another.
            unsafe { snapshot_free(BEFORE.swap(now, Ordering::AcqRel)) };
        }
        b"leaks" => {
            print();
        }
        b"grown" => {
            // SAFETY: the snapshot is ours.
            let told = unsafe { snapshot_diff(BEFORE.load(Ordering::Acquire), ptr::null(), false, &mut out) };
            if unknown().is_none() && tracked::growth_known() {
                growth_write(LeaksFormat::Text, &mut out);
            } else if !told {
                let _ = writeln!(
                    out,
                    "allokit: nothing is known of what has grown: there was no mark before, and not two snapshots"
                );
            }
        }
        b"snapshot" => {
            if let Some(reason) = unknown() {
                let _ = writeln!(out, "allokit: no snapshot: {reason}");
            } else if !growth_take() {
                let _ = writeln!(out, "allokit: no snapshot: there is no memory for it");
            }
        }
        b"stats" => {
            let _ = api::stats_write(allokit_report::Format::Text, &mut out);
        }
        _ => {
            if !sample_by_line(line) && !profile_by_line(line, text, &mut out) {
                let line = core::str::from_utf8(line).unwrap_or("(not UTF-8)");
                let _ = writeln!(out, "allokit: ALLOKIT_CONTROL: \"{line}\" is not known; valid: {ORDERS}");
            }
        }
    }
}

fn switch(level: Level, out: &mut Stderr) {
    if !api::track_set(level as u32) {
        let _ = writeln!(out, "allokit: tracking cannot be switched in this program: it must be set before it starts");
    }
}

/// `sample BYTES`; false when it is no such line.
fn sample_by_line(line: &[u8]) -> bool {
    let wanted = line.strip_prefix(b"sample ").and_then(|text| settings::bytes_of(core::str::from_utf8(text).ok()?));
    wanted.is_some_and(api::sample_set)
}

/// What the signal of `ALLOKIT_SIGNAL` wants: tracking on, and when it is on, a report, and off.
fn on_signal(out: &mut Stderr) {
    if api::track_get() == Level::Off {
        let level = settings::signal().map_or(Level::Stacks, |(_, level)| level);
        switch(level, out);
        if api::track_get() == level {
            let _ = writeln!(out, "allokit: signal: tracking is on; the next one writes what is live");
        }
        return;
    }
    match settings::profile_at_exit() {
        Some((format, path)) => {
            let mut room = [0; 4096];
            let path = filled(path, &mut room).unwrap_or(path);
            if profile_write(format, path) {
                let path = path.to_str().unwrap_or("(not UTF-8)");
                let _ = writeln!(out, "allokit: signal: what is live is in {path}");
            } else {
                complain_of("ALLOKIT_PROFILE", path, "the profile is lost");
            }
        }
        None => {
            print();
        }
    }
    // What the environment wants from the start stays.
    if settings::environment_level() == Level::Off && api::track_set(Level::Off as u32) {
        let _ = writeln!(out, "allokit: signal: tracking is off");
    }
}

/// Writes the profile that a line wants; false when it is no such line.
fn profile_by_line(line: &[u8], mut text: Into<'_>, out: &mut Stderr) -> bool {
    if text.add(line).and_then(|()| text.add(&[0])).is_err() {
        return false;
    }
    let Some((format, path)) = CStr::from_bytes_until_nul(text.room).ok().and_then(settings::profile_of) else {
        return false;
    };
    let mut room = [0; 4096];
    let path = filled(path, &mut room).unwrap_or(path);
    if let Some(reason) = unknown() {
        let _ = writeln!(out, "allokit: nothing is known: {reason}");
    } else if !profile_write(format, path) {
        complain_of("ALLOKIT_CONTROL", path, "the profile is lost");
    }
    true
}

/// What the environment wants at the end of the process.
pub fn at_exit() {
    http::remove();
    if let Some(path) = settings::control() {
        control::remove(filled(path, &mut [0; 4096]).unwrap_or(path));
    }
    let (stats, leaks) = settings::at_exit();
    if let Some((format, path)) = stats {
        put("ALLOKIT_STATS", path, "the statistics are lost", &|out| api::stats_write(format, out));
    }
    if let Some((format, path)) = settings::profile_at_exit() {
        if let Some(reason) = unknown() {
            let mut out = Stderr::new();
            let _ = writeln!(out, "allokit: ALLOKIT_PROFILE: nothing is known: {reason}");
        } else if let path = filled(path, &mut [0; 4096]).unwrap_or(path)
            && !profile_write(format, path)
        {
            complain_of("ALLOKIT_PROFILE", path, "the profile is lost");
        }
    }
    if let Some((form, path)) = leaks {
        match (form, unknown()) {
            (LeaksForm::Table, _) if path.is_none() => {
                print();
            }
            (_, Some(reason)) => {
                let mut out = Stderr::new();
                let _ = writeln!(out, "allokit: leaks are unknown: {reason}");
            }
            (form, None) => put("ALLOKIT_LEAKS", path, "the leaks are lost", &|out| match form {
                LeaksForm::Table => tracked::leaks_table(out),
                LeaksForm::Written(format) => tracked::leaks_write(format, out),
            }),
        }
    }
}

/// Writes to a file, which takes its name when it is whole, or to stderr without a path.
fn put(setting: &str, path: Option<&CStr>, lost: &str, write: &dyn Fn(&mut dyn Write) -> fmt::Result) {
    let mut room = [0; 4096];
    let Some(path) = path.map(|path| filled(path, &mut room).unwrap_or(path)) else {
        let _ = write(&mut Stderr::new());
        return;
    };
    let written = Draft::begin(path).is_some_and(|mut draft| {
        // A draft tells at its end.
        let _ = write(&mut draft);
        draft.finish()
    });
    if !written {
        complain_of(setting, path, lost);
    }
}

fn complain_of(setting: &str, path: &CStr, what: &str) {
    let mut out = Stderr::new();
    let path = path.to_str().unwrap_or("(not UTF-8)");
    let _ = writeln!(out, "allokit: {setting}: cannot write {path}; {what}");
}
