//! Faults: wrong frees and whatever else a layer finds. The policy of the process decides what becomes of them.

use allokit_core::Fault;
use allokit_platform::{abort, errno, handler, stderr::Stderr};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering};

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
    COUNT.fetch_add(1, Ordering::Relaxed);
    // SAFETY: null, or for good.
    if let Some(words) = unsafe { KEPT.load(Ordering::Acquire).as_ref() }
        && words[0].fetch_add(1, Ordering::Relaxed) == 0
    {
        words[1].store(found.kind as u64, Ordering::Relaxed);
    }
    act(|policy| handler::call(&Fault { policy: policy as u32, ..*found }), describe);
}

/// As [`raise`] where something else ends the program under [`Policy::Abort`]: returns always.
#[cold]
pub fn note(found: &Fault, describe: impl FnOnce(&mut Stderr) -> fmt::Result) {
    COUNT.fetch_add(1, Ordering::Relaxed);
    let _errno = errno::Saved::new();
    let policy = policy();
    if policy != Policy::Quiet {
        let mut out = Stderr::new();
        let _ = describe(&mut out);
        out.flush();
    }
    tell(found);
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
    let mut out = Stderr::new();
    // Stderr itself never fails; a failing describe would only shorten the report.
    let _ = describe(&mut out);
    if handler::is_set() {
        out.flush();
        tell(policy);
    }
    if policy == Policy::Abort {
        let _ = writeln!(out, "allokit: aborting (ALLOKIT_POLICY=report goes on)");
        out.flush();
        abort();
    }
}

/// Hands to the handler what is no fault, a failed request: not counted, not reported, whatever the policy. Keeps `errno`.
#[cold]
pub fn tell(found: &Fault) {
    if handler::is_set() {
        let _errno = errno::Saved::new();
        handler::call(&Fault { policy: policy() as u32, ..*found });
    }
}
