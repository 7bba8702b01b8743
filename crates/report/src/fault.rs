//! Faults: wrong frees and whatever else a layer finds. The policy of the process decides what becomes of them.

use crate::write_json_text;
use allokit_core::{Fault, Place};
use allokit_platform::file::File;
use allokit_platform::{abort, errno, handler, stderr::Stderr, symbol, thread};
use core::ffi::{CStr, c_char};
use core::fmt::{self, Write};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, Ordering};

/// What happens on a fault: `ak_policy_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Policy {
    /// Report it on stderr and abort.
    Abort = 0,
    /// Report it on stderr and go on safely.
    Report = 1,
    /// Count it.
    Quiet = 2,
}

static POLICY: AtomicU8 = AtomicU8::new(Policy::Abort as u8);
static COUNT: AtomicU64 = AtomicU64::new(0);

/// The policy in force.
#[must_use]
pub fn policy() -> Policy {
    match POLICY.load(Ordering::Relaxed) {
        1 => Policy::Report,
        2 => Policy::Quiet,
        _ => Policy::Abort,
    }
}

/// Sets the policy; at any time.
pub fn set_policy(policy: Policy) {
    POLICY.store(policy as u8, Ordering::Relaxed);
}

/// Two words beside [`COUNT`] that outlive the process.
static KEPT: AtomicPtr<[AtomicU64; 2]> = AtomicPtr::new(core::ptr::null_mut());

/// From now on faults are counted in `words[0]` too; `words[1]` gets the kind of the first.
pub fn keep_in(words: &'static [AtomicU64; 2]) {
    KEPT.store(core::ptr::from_ref(words).cast_mut(), Ordering::Release);
}

/// How many faults there were.
#[must_use]
pub fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// Counts a fault, hands it to the program's handler and deals with it: `describe` writes the report, whole lines, when
/// one is wanted. Returns under every policy but [`Policy::Abort`]. Keeps `errno`. The caller holds no lock.
#[cold]
pub fn raise(found: &Fault, describe: impl FnOnce(&mut Stderr) -> fmt::Result) {
    count_one(found);
    let policy = policy();
    let found = &Fault { policy: policy as u32, ..*found };
    if !as_json(found, policy) {
        return act(|_| handler::call(found), describe);
    }
    if policy == Policy::Abort {
        abort();
    }
}

/// Counts a fault, here and where a sweep looks.
fn count_one(found: &Fault) {
    COUNT.fetch_add(1, Ordering::Relaxed);
    // SAFETY: null, or for good.
    if let Some(words) = unsafe { KEPT.load(Ordering::Acquire).as_ref() }
        && words[0].fetch_add(1, Ordering::Relaxed) == 0
    {
        words[1].store(found.kind as u64, Ordering::Relaxed);
    }
}

/// Writes a fault as JSON, if that is wanted; whether that is all that is to be written, and the handler was told.
fn as_json(found: &Fault, policy: Policy) -> bool {
    let json = JSON.load(Ordering::Acquire);
    if json.is_null() || policy == Policy::Quiet {
        return false;
    }
    let _errno = errno::Saved::new();
    // SAFETY: set to the text of a setting, which is for good.
    let path = unsafe { CStr::from_ptr(json) };
    if !path.is_empty() {
        append(found, path);
        return false;
    }
    speak(|out| write_json(found, out));
    if handler::is_set() {
        handler::call(found);
    }
    true
}

/// Where faults go as JSON: null for nowhere, an empty text for stderr, instead of the text; else a path.
static JSON: AtomicPtr<c_char> = AtomicPtr::new(ptr::null_mut());

/// From now on each fault is a line of JSON: on stderr, instead of the text, or, beside that, at the end of a file.
pub fn report_as_json(path: Option<&'static CStr>) {
    JSON.store(path.unwrap_or(c"").as_ptr().cast_mut(), Ordering::Release);
}

#[cold]
#[inline(never)]
fn append(found: &Fault, path: &CStr) {
    if let Some(file) = File::append(path) {
        // A line leaves in one write, so that those of several processes do not mix.
        let _ = write_json(found, &mut Stderr::to(file.fd()));
        return;
    }
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.swap(true, Ordering::Relaxed) {
        let path = path.to_str().unwrap_or("(not UTF-8)");
        let _ = writeln!(Stderr::new(), "allokit: ALLOKIT_REPORT: cannot write {path}; faults are on stderr only");
    }
}

/// A fault as one line of JSON: what is known of it.
///
/// # Errors
/// Those of the writer.
pub fn write_json(found: &Fault, out: &mut dyn fmt::Write) -> fmt::Result {
    let policy = ["abort", "report", "quiet"][found.policy.min(2) as usize];
    out.write_str("{\"fault\":")?;
    write_json_text(found.kind.name().to_bytes(), out)?;
    write!(out, ",\"policy\":\"{policy}\"")?;
    text("operation", found.operation, out)?;
    write!(out, ",\"block\":\"{:#x}\",\"size\":{},\"offset\":{}", found.block.addr(), found.size, found.offset)?;
    for (name, value) in [("told_size", found.told_size), ("over_bytes", found.over_bytes)] {
        if value != 0 {
            write!(out, ",\"{name}\":{value}")?;
        }
    }
    for (name, place) in [("allocated", &found.allocated), ("freed", &found.freed), ("now", &found.now)] {
        write_place(name, place, out)?;
    }
    text("owner", found.owner, out)?;
    text("name", found.name, out)?;
    write_place("made", &found.made, out)?;
    let (process, thread) = thread::ids();
    writeln!(out, ",\"process\":{process},\"thread\":{thread}}}")
}

/// A member with a text, after others; nothing for null.
fn text(name: &str, value: *const c_char, out: &mut dyn fmt::Write) -> fmt::Result {
    if value.is_null() {
        return Ok(());
    }
    write!(out, ",\"{name}\":")?;
    // SAFETY: the texts of a fault are null or zero-terminated.
    write_json_text(unsafe { CStr::from_ptr(value) }.to_bytes(), out)
}

fn write_place(name: &str, place: &Place, out: &mut dyn fmt::Write) -> fmt::Result {
    if !place.file.is_null() {
        write!(out, ",\"{name}\":{{\"line\":{}", place.line)?;
        text("file", place.file, out)?;
        text("function", place.function, out)?;
        return out.write_str("}");
    }
    if place.address == 0 {
        return Ok(());
    }
    write!(out, ",\"{name}\":{{\"address\":\"{:#x}\"", place.address)?;
    // One less: the call, not what comes after it.
    if let Some(found) = symbol::of(place.address - 1) {
        text("module", found.module.as_ptr(), out)?;
        text("symbol", found.name.map_or(ptr::null(), CStr::as_ptr), out)?;
        write!(out, ",\"offset\":{}", found.offset)?;
    }
    out.write_str("}")
}

/// As [`raise`] where something else ends the program under [`Policy::Abort`]: returns always.
#[cold]
pub fn note(found: &Fault, describe: impl FnOnce(&mut Stderr) -> fmt::Result) {
    count_one(found);
    let policy = policy();
    let found = &Fault { policy: policy as u32, ..*found };
    if as_json(found, policy) {
        return;
    }
    let _errno = errno::Saved::new();
    if policy != Policy::Quiet {
        speak(describe);
    }
    if handler::is_set() {
        handler::call(found);
    }
}

/// As [`raise`] for a finding that is not counted among the faults; `tell` hands to the handler what it shall see.
#[cold]
pub fn act(tell: impl FnOnce(Policy), describe: impl FnOnce(&mut Stderr) -> fmt::Result) {
    let _errno = errno::Saved::new();
    let policy = policy();
    if policy == Policy::Quiet {
        if handler::is_set() {
            tell(policy);
        }
        return;
    }
    speak(describe);
    if handler::is_set() {
        tell(policy);
    }
    if policy == Policy::Abort {
        speak(|out| writeln!(out, "allokit: aborting (ALLOKIT_POLICY=report goes on)"));
        abort();
    }
}

/// Apart, so that its buffer is not on the stack while the handler runs.
#[inline(never)]
fn speak(describe: impl FnOnce(&mut Stderr) -> fmt::Result) {
    // Stderr itself never fails; a failing describe would only shorten the report.
    let _ = describe(&mut Stderr::new());
}

/// Hands to the handler what is no fault, a failed request: not counted, not reported, whatever the policy. Keeps `errno`.
#[cold]
pub fn tell(found: &Fault) {
    if handler::is_set() {
        let _errno = errno::Saved::new();
        handler::call(&Fault { policy: policy() as u32, ..*found });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use allokit_core::FaultKind;

    #[test]
    fn a_fault_is_a_line_of_json() {
        let place = |line| Place { file: c"dir/a \"b\".c".as_ptr(), function: c"f".as_ptr(), line, address: 0 };
        let fault = Fault {
            policy: 1,
            operation: c"free".as_ptr(),
            block: ptr::without_provenance(0x1230),
            offset: 24,
            size: 24,
            over_bytes: 3,
            allocated: place(7),
            now: Place { address: 1, ..Place::UNKNOWN },
            ..Fault::new(FaultKind::Overflow)
        };
        let mut line = std::string::String::new();
        write_json(&fault, &mut line).unwrap();
        assert!(line.ends_with("}\n"), "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["fault"], "overflow");
        assert_eq!(read["policy"], "report");
        assert_eq!(read["block"], "0x1230");
        assert_eq!((&read["size"], &read["offset"], &read["over_bytes"]), (&24.into(), &24.into(), &3.into()));
        assert_eq!(read["allocated"], serde_json::json!({"file": "dir/a \"b\".c", "line": 7, "function": "f"}));
        assert_eq!(read["now"]["address"], "0x1");
        assert!(read.get("freed").is_none() && read.get("told_size").is_none() && read.get("owner").is_none());
    }
}
