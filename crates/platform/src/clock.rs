//! A cheap monotonic clock, for giving memory back by time.

/// Milliseconds from an arbitrary start; steps of up to 4 ms; about 5 ns a call where the kernel maps the clock.
#[must_use]
pub fn now_ms() -> u64 {
    cfg_if::cfg_if! {
        if #[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))] {
            const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC_COARSE;
        } else {
            const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
        }
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing; the clock exists on the target.
    unsafe { libc::clock_gettime(CLOCK, &raw mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// The time of day in ns since 1970.
#[must_use]
pub fn unix_ns() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing; the clock exists on the target.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
    #[allow(clippy::unnecessary_cast)] // 32 bits on some targets
    {
        time.tv_sec as i64 * 1_000_000_000 + time.tv_nsec as i64
    }
}
