//! What the environment and `ak_track_set` ask for.

use crate::Selected;
use crate::api::Level;
use crate::leaks::{LeaksFormat, Profile};
use allokit_core::Backend;
use allokit_platform::unwind::How;
use allokit_platform::{control, env, stderr::Stderr};
use allokit_report::Format;
use allokit_report::fault::{self, Policy};
use core::ffi::CStr;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU8, Ordering};

/// 0: nobody asked; else the level + 1.
static ASKED: AtomicU8 = AtomicU8::new(0);
/// What the environment says of the level + 1; 0: not read yet.
static FROM_ENVIRONMENT: AtomicU8 = AtomicU8::new(0);

/// `ak_track_set` before the first allocation.
pub(crate) fn ask_for(level: Level) {
    ASKED.store(level as u8 + 1, Ordering::Relaxed);
}

/// The level that the next first allocation will put in force.
pub(crate) fn wanted_level() -> Level {
    if guards_heap() {
        // It answers all that tracking does.
        read_environment();
        let stacks = Level::Stacks as u8 + 1;
        let wants = ASKED.load(Ordering::Relaxed) == stacks || FROM_ENVIRONMENT.load(Ordering::Relaxed) == stacks;
        return if wants { Level::Stacks } else { Level::Sites };
    }
    let stored = match ASKED.load(Ordering::Relaxed) {
        0 => {
            read_environment();
            FROM_ENVIRONMENT.load(Ordering::Relaxed)
        }
        asked => asked,
    };
    level_of(stored)
}

/// Of a level + 1.
fn level_of(stored: u8) -> Level {
    match stored {
        2 => Level::Sites,
        3 => Level::Stacks,
        _ => Level::Off,
    }
}

/// Whether the guarding layer is built in and not switched off.
#[must_use]
pub fn guards_heap() -> bool {
    crate::api::GUARD && env::var(c"ALLOKIT_GUARD").is_none_or(|value| value.to_bytes() != b"0")
}

/// A number of bytes, with K, M or G.
fn bytes(value: &CStr) -> Option<usize> {
    bytes_of(value.to_str().ok()?)
}

/// See [`bytes`].
pub(crate) fn bytes_of(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G']);
    let shift = match &text[digits.len()..] {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        _ => return None,
    };
    digits.parse::<usize>().ok()?.checked_mul(1 << shift)
}

/// What the environment asks of the guarding layer.
#[cfg(feature = "guard")]
pub(crate) fn guard_options() -> allokit_guard::Options {
    allokit_guard::Options {
        quarantine: env::var(c"ALLOKIT_QUARANTINE").and_then(bytes),
        check_every: env::var(c"ALLOKIT_CHECK").and_then(bytes).unwrap_or(0),
        pages_each_second: env::var(c"ALLOKIT_GUARD_PAGES").and_then(pages),
    }
}

/// Of how many blocks one is to be guarded.
fn sample_rate(value: &CStr) -> Option<usize> {
    match value.to_bytes() {
        b"" | b"0" | b"off" => Some(0),
        b"1" | b"on" => Some(crate::sampled::USUAL),
        _ => bytes(value).filter(|every| *every > 1),
    }
}

/// A number of large blocks each second, or all.
fn pages(value: &CStr) -> Option<usize> {
    if value.to_bytes() == b"all" { Some(usize::MAX) } else { bytes(value) }
}

/// Says something once about a setting.
fn complain(text: fmt::Arguments<'_>) {
    let mut out = Stderr::new();
    let _ = writeln!(out, "allokit: {text}");
}

fn unknown(name: &str, value: &CStr, valid: &str) {
    let value = value.to_str().unwrap_or("(not UTF-8)");
    complain(format_args!("{name}={value} is not known; valid: {valid}"));
}

/// Reads the environment, once, and reports what it does not understand.
pub fn read_environment() {
    if FROM_ENVIRONMENT.load(Ordering::Relaxed) != 0 {
        return;
    }
    let mut level = Level::Off;
    let mut complaints: [Option<(&str, &CStr, &str)>; 15] = [None; 15];
    if let Some(value) = env::var(c"ALLOKIT_TRACK") {
        match value.to_bytes() {
            b"off" | b"" => {}
            b"sites" => level = Level::Sites,
            b"stacks" => level = Level::Stacks,
            _ => complaints[0] = Some(("ALLOKIT_TRACK", value, "off, sites, stacks")),
        }
    }
    let mut policy = None;
    if let Some(value) = env::var(c"ALLOKIT_POLICY") {
        match value.to_bytes() {
            b"abort" => policy = Some(Policy::Abort),
            b"report" => policy = Some(Policy::Report),
            b"quiet" => policy = Some(Policy::Quiet),
            b"" => {}
            _ => complaints[1] = Some(("ALLOKIT_POLICY", value, "abort, report, quiet")),
        }
    }
    if let Some(value) = env::var(c"ALLOKIT_STATS")
        && !value.is_empty()
        && stats_target(value).is_none()
    {
        complaints[2] =
            Some(("ALLOKIT_STATS", value, "text, json, prometheus, openmetrics (each may be followed by :path)"));
    }
    if let Some(value) = env::var(c"ALLOKIT_LEAKS")
        && !matches!(value.to_bytes(), b"" | b"0")
        && leaks_target(value).is_none()
    {
        complaints[3] = Some(("ALLOKIT_LEAKS", value, "0, 1, text, json, lines (each but 0 may be followed by :path)"));
    }
    if let Some(value) = env::var(c"ALLOKIT_PROFILE")
        && !value.is_empty()
        && profile_target(value).is_none()
    {
        complaints[4] = Some(("ALLOKIT_PROFILE", value, "pprof:path, folded:path, html:path, json:path"));
    }
    if let Some(value) = env::var(c"ALLOKIT_QUARANTINE")
        && !value.is_empty()
        && bytes(value).is_none()
    {
        complaints[5] = Some(("ALLOKIT_QUARANTINE", value, "a number of bytes, such as 256K or 16M"));
    }
    if let Some(value) = env::var(c"ALLOKIT_CHECK")
        && !value.is_empty()
        && bytes(value).is_none()
    {
        complaints[6] = Some(("ALLOKIT_CHECK", value, "a number of frees"));
    }
    let sample = env::var(c"ALLOKIT_GUARD_SAMPLE");
    if let Some(value) = sample
        && sample_rate(value).is_none()
    {
        complaints[7] = Some(("ALLOKIT_GUARD_SAMPLE", value, "off, on, or N for one in N blocks"));
    }
    if let Some(value) = env::var(c"ALLOKIT_GROWTH")
        && !matches!(value.to_bytes(), b"" | b"0" | b"off")
        && duration_ms(value).is_none()
    {
        complaints[8] = Some(("ALLOKIT_GROWTH", value, "a time between snapshots, such as 30s, 5m or 500ms"));
    }
    let limit = env::var(c"ALLOKIT_LIMIT").filter(|value| !value.is_empty());
    if let Some(value) = limit
        && bytes(value).is_none()
    {
        complaints[9] = Some(("ALLOKIT_LIMIT", value, "a number of bytes, such as 512M"));
    }
    if let Some(value) = env::var(c"ALLOKIT_GUARD_PAGES")
        && !value.is_empty()
        && pages(value).is_none()
    {
        complaints[13] = Some(("ALLOKIT_GUARD_PAGES", value, "all, a number of large blocks each second"));
    }
    let json = env::var(c"ALLOKIT_REPORT").filter(|value| !value.is_empty()).and_then(|value| {
        let bytes = value.to_bytes_with_nul();
        match &bytes[..bytes.iter().position(|byte| *byte == b':').unwrap_or(bytes.len() - 1)] {
            b"text" if value.to_bytes() == b"text" => None,
            // After the colon, if there is one.
            b"json" => Some(CStr::from_bytes_with_nul(bytes.get(5..).unwrap_or(b"\0")).unwrap_or(c"")),
            _ => {
                complaints[14] = Some(("ALLOKIT_REPORT", value, "text, json, json:path"));
                None
            }
        }
    });
    // The first thread to get here speaks.
    let level_stored = if cfg!(feature = "track") { level } else { Level::Off };
    if FROM_ENVIRONMENT.compare_exchange(0, level_stored as u8 + 1, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        return;
    }
    if let Some(policy) = policy {
        fault::set_policy(policy);
    }
    let limit = limit.and_then(bytes).unwrap_or(0);
    let held = crate::limit::set_first(limit);
    rehearsal(&mut complaints[10..13]);
    if let Some(path) = json {
        fault::report_as_json((!path.is_empty()).then_some(path));
    }
    for (name, value, valid) in complaints.into_iter().flatten() {
        unknown(name, value, valid);
    }
    if limit != 0 && !held {
        complain(format_args!("ALLOKIT_LIMIT is ignored: this library was built without tracking (ALLOKIT_TRACK=OFF)"));
    }
    let asked = env::var(c"ALLOKIT_TRACK").map_or(&b""[..], CStr::to_bytes);
    if level != Level::Off && !cfg!(feature = "track") {
        let asked = core::str::from_utf8(asked).unwrap_or("?");
        complain(format_args!(
            "ALLOKIT_TRACK={asked} is ignored: this library was built without tracking (ALLOKIT_TRACK=OFF)"
        ));
    }
    read_stacks();
    if let Some(every) = sample.and_then(sample_rate).filter(|every| *every > 0) {
        if let Some(why) = crate::sampled::impossible() {
            complain(format_args!("ALLOKIT_GUARD_SAMPLE is ignored: {why}"));
        } else if !crate::sampled::set(every) {
            complain(format_args!("ALLOKIT_GUARD_SAMPLE is ignored: no memory for it"));
        }
    }
    if let Some(value) = env::var(c"ALLOKIT_BACKEND")
        && !value.is_empty()
        && value.to_bytes() != Selected::NAME.as_bytes()
    {
        match value.to_bytes() {
            b"native" | b"mimalloc" | b"jemalloc" | b"system" => complain(format_args!(
                "ALLOKIT_BACKEND={} is ignored: this library holds only {}",
                value.to_str().unwrap_or("?"),
                Selected::NAME
            )),
            _ => unknown("ALLOKIT_BACKEND", value, "native, mimalloc, jemalloc, system"),
        }
    }
    if let Some(value) = env::var(c"ALLOKIT_GUARD")
        && !crate::api::GUARD
        && !matches!(value.to_bytes(), b"" | b"0")
    {
        complain(format_args!(
            "ALLOKIT_GUARD guards arenas and pools; the guarded heap is not in this library (ALLOKIT_GUARD=ON in CMake)"
        ));
    }
}

/// What a sweep or its user wants to fail.
#[cfg(feature = "track")]
fn rehearsal(complaints: &mut [Option<(&str, &'static CStr, &str)>]) {
    use crate::rehearse;
    let set = |name| env::var(name).filter(|value: &&CStr| !value.is_empty());
    if let Some(path) = set(c"ALLOKIT_FAIL_LOG")
        && rehearse::begin_log(path) == rehearse::Begun::Anothers
    {
        // It was started by the program that is looked at.
        return;
    }
    if let Some(value) = set(c"ALLOKIT_FAIL_NTH")
        && !rehearse::nth_of(value)
    {
        complaints[0] = Some(("ALLOKIT_FAIL_NTH", value, "a number, n+ for that request and all after it"));
    }
    if let Some(value) = set(c"ALLOKIT_FAIL_RATE")
        && !rehearse::rate_of(value)
    {
        complaints[1] = Some(("ALLOKIT_FAIL_RATE", value, "requests per million, with :seed"));
    }
    if let Some(value) = set(c"ALLOKIT_FAIL_ONLY")
        && !rehearse::only_of(value)
    {
        // Nothing fails that was not meant.
        rehearse::nothing();
        complaints[2] = Some((
            "ALLOKIT_FAIL_ONLY",
            value,
            "file.c, file.c:line, function, module+0x12, min-max; several with commas",
        ));
    }
}

#[cfg(not(feature = "track"))]
fn rehearsal(_: &mut [Option<(&str, &'static CStr, &str)>]) {
    if [c"ALLOKIT_FAIL_NTH", c"ALLOKIT_FAIL_RATE"].into_iter().any(|name| env::var(name).is_some()) {
        complain(format_args!(
            "ALLOKIT_FAIL_NTH and ALLOKIT_FAIL_RATE are ignored: this library was built without tracking (ALLOKIT_TRACK=OFF)"
        ));
    }
}

/// Reads how stacks are to be taken.
fn read_stacks() {
    let set = |name: &'static CStr, valid: &str, take: fn(usize) -> bool| {
        if let Some(value) = env::var(name)
            && !value.is_empty()
            && !bytes(value).is_some_and(take)
        {
            unknown(name.to_str().unwrap_or(""), value, valid);
        }
    };
    set(
        c"ALLOKIT_SAMPLE",
        "a number of bytes, such as 512K, of which one is sampled; 0 for each allocation",
        |bytes| {
            #[cfg(feature = "track")]
            allokit_track::stacks::set_interval(bytes);
            let _ = bytes;
            true
        },
    );
    set(c"ALLOKIT_SAMPLE_SEED", "a number", |seed| {
        #[cfg(feature = "track")]
        allokit_track::stacks::set_seed(seed as u64);
        let _ = seed;
        true
    });
    set(c"ALLOKIT_STACK_DEPTH", "a number of frames, from 1 to 128", |frames| {
        #[cfg(feature = "track")]
        allokit_track::stacks::set_depth(frames);
        (1..=128).contains(&frames)
    });
    if let Some(value) = env::var(c"ALLOKIT_SIGNAL")
        && !value.is_empty()
        && signal_of(value).is_none()
    {
        unknown(
            "ALLOKIT_SIGNAL",
            value,
            "USR1, USR2, or a number of a signal, which may be followed by :sites or :stacks",
        );
    }
    if let Some(value) = env::var(c"ALLOKIT_UNWIND") {
        let how = match value.to_bytes() {
            b"auto" | b"" => Some(None),
            b"fp" => Some(Some(How::Pointers)),
            b"eh" => Some(Some(How::Tables)),
            _ => None,
        };
        match how {
            None => unknown("ALLOKIT_UNWIND", value, "auto, fp, eh"),
            #[cfg(feature = "track")]
            Some(how) => allokit_track::stacks::set_how(how),
            #[cfg(not(feature = "track"))]
            Some(_) => {}
        }
    }
}

/// What `ALLOKIT_TRACK` says.
pub(crate) fn environment_level() -> Level {
    read_environment();
    level_of(FROM_ENVIRONMENT.load(Ordering::Relaxed))
}

/// The signal that `ALLOKIT_SIGNAL` names, and the level that it switches on.
pub(crate) fn signal() -> Option<(i32, Level)> {
    env::var(c"ALLOKIT_SIGNAL").filter(|value| !value.is_empty()).and_then(signal_of)
}

fn signal_of(value: &CStr) -> Option<(i32, Level)> {
    let text = value.to_str().ok()?;
    let (name, level) = text.split_once(':').unwrap_or((text, "stacks"));
    let level = match level {
        "sites" => Level::Sites,
        "stacks" => Level::Stacks,
        _ => return None,
    };
    Some((control::signal_number(name)?, level))
}

/// Whether arenas and pools are to look closely.
#[must_use]
pub fn guards() -> bool {
    cfg!(debug_assertions)
        || guards_heap()
        || env::var(c"ALLOKIT_GUARD").is_some_and(|value| !matches!(value.to_bytes(), b"" | b"0"))
}

/// The format and, if given, the path of an `ALLOKIT_STATS`.
fn stats_target(value: &'static CStr) -> Option<(Format, Option<&'static CStr>)> {
    let bytes = value.to_bytes_with_nul();
    let colon = bytes.iter().position(|byte| *byte == b':');
    let format = match &bytes[..colon.unwrap_or(bytes.len() - 1)] {
        b"text" | b"1" => Format::Text,
        b"json" => Format::Json,
        b"prometheus" => Format::Prometheus,
        b"openmetrics" => Format::OpenMetrics,
        _ => return None,
    };
    let path = match colon {
        Some(colon) => Some(CStr::from_bytes_with_nul(&bytes[colon + 1..]).ok()?),
        None => None,
    };
    Some((format, path))
}

/// The format and the path of an `ALLOKIT_PROFILE`.
fn profile_target(value: &CStr) -> Option<(Profile, &CStr)> {
    let bytes = value.to_bytes_with_nul();
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    let format = match &bytes[..colon] {
        b"pprof" => Profile::Pprof,
        b"folded" => Profile::Folded,
        b"html" => Profile::Html,
        b"json" => Profile::Json,
        _ => return None,
    };
    let path = CStr::from_bytes_with_nul(&bytes[colon + 1..]).ok()?;
    (!path.is_empty()).then_some((format, path))
}

/// The format and the path of a profile, from outside the environment.
pub(crate) fn profile_of(value: &CStr) -> Option<(Profile, &CStr)> {
    profile_target(value)
}

/// The pipe that `ALLOKIT_CONTROL` names.
pub(crate) fn control() -> Option<&'static CStr> {
    env::var(c"ALLOKIT_CONTROL").filter(|path| !path.is_empty())
}

/// The address that `ALLOKIT_HTTP` names.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
pub(crate) fn http() -> Option<&'static CStr> {
    env::var(c"ALLOKIT_HTTP").filter(|address| !address.is_empty() && address.to_bytes() != b"0")
}

/// A stretch of time in ms: a number with ms, s, m or h.
fn duration_ms(value: &CStr) -> Option<u64> {
    let text = value.to_str().ok()?;
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).filter(|ms| (10..=1 << 31).contains(ms))
}

/// How often, in ms, `ALLOKIT_GROWTH` wants a snapshot; 0 for never.
pub(crate) fn growth_every_ms() -> u64 {
    env::var(c"ALLOKIT_GROWTH").and_then(duration_ms).unwrap_or(0)
}

/// The profile that is asked for at the end of the process.
pub fn profile_at_exit() -> Option<(Profile, &'static CStr)> {
    env::var(c"ALLOKIT_PROFILE").and_then(profile_target)
}

/// A list of leaks that is asked for at the end of the process.
#[derive(Clone, Copy, Debug)]
pub enum LeaksForm {
    /// As `ak_leaks_print` has it.
    Table,
    /// As `ak_leaks_write` has it.
    Written(LeaksFormat),
}

/// The form and, if given, the path of an `ALLOKIT_LEAKS`.
fn leaks_target(value: &'static CStr) -> Option<(LeaksForm, Option<&'static CStr>)> {
    let bytes = value.to_bytes_with_nul();
    let colon = bytes.iter().position(|byte| *byte == b':');
    let form = match &bytes[..colon.unwrap_or(bytes.len() - 1)] {
        b"1" => LeaksForm::Table,
        b"text" => LeaksForm::Written(LeaksFormat::Text),
        b"json" => LeaksForm::Written(LeaksFormat::Json),
        b"lines" => LeaksForm::Written(LeaksFormat::Lines),
        _ => return None,
    };
    let path = match colon {
        Some(colon) => Some(CStr::from_bytes_with_nul(&bytes[colon + 1..]).ok().filter(|path| !path.is_empty())?),
        None => None,
    };
    Some((form, path))
}

/// What is asked for at the end of the process: a form and, if given, a path.
pub type AtExit<F> = Option<(F, Option<&'static CStr>)>;

/// What is asked for at the end of the process: statistics and leaks.
pub fn at_exit() -> (AtExit<Format>, AtExit<LeaksForm>) {
    (env::var(c"ALLOKIT_STATS").and_then(stats_target), env::var(c"ALLOKIT_LEAKS").and_then(leaks_target))
}
