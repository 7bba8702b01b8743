//! The guarded heap over our own allocator: calls, and writes into headers, canaries and freed blocks
//! (crates/guard/corruption.rs). What was damaged is never used again, so the process grows: a quarter of an hour at a time.
#![no_main]

use allokit_guard::{Guarded, Options};
use allokit_native::Native;
use allokit_report::fault::{Policy, set_policy};
use libfuzzer_sys::fuzz_target;

mod corruption {
    use allokit_guard as allokit_guard_under_test;
    use allokit_report as allokit_report_under_test;
    include!("../../crates/guard/corruption.rs");
}

fuzz_target!(|input: &[u8]| {
    set_policy(Policy::Quiet);
    Guarded::<Native>::start(Options::default());
    corruption::run::<Native>(input.iter().copied());
});
