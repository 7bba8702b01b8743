//! The suite for arenas, scratch, regions, pools and stacks (tests/arena) with the runner of the conformance suite: each
//! backend, static and shared, C and C++, plain, tracked and guarded; and a late read under AddressSanitizer and valgrind.

use crate::build::{self, BACKENDS};
use crate::case::{Case, LeftOut};
use crate::suites::Suite;
use crate::tools;
use anyhow::{Result, ensure};
use std::process::Command;

const SUITE: Suite = Suite {
    name: "arena",
    sources: &["arenas.c", "places.c", "bad_input.c"],
    // What is no fault is the same under each policy.
    runs: &[
        &[("ALLOKIT_TRACK", "off"), ("ALLOKIT_GUARD", "0"), ("ALLOKIT_POLICY", "abort")],
        &[("ALLOKIT_TRACK", "sites"), ("ALLOKIT_GUARD", "0"), ("ALLOKIT_POLICY", "report")],
        &[("ALLOKIT_TRACK", "off"), ("ALLOKIT_GUARD", "1"), ("ALLOKIT_POLICY", "quiet")],
    ],
    late: ("late_read.c", &["late"]),
};

/// The cases of this module.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backend in BACKENDS {
        cases.push(Case::new(format!("arena/{backend}/static"), move || SUITE.run(backend, false)));
        cases.push(Case::new(format!("arena/{backend}/shared"), move || SUITE.run(backend, true)));
    }
    for backend in ["native", "system"] {
        cases.push(Case::new(format!("arena/{backend}/address-sanitizer"), move || SUITE.sanitizer(backend)));
        cases.push(Case::new(format!("arena/{backend}/valgrind"), move || SUITE.valgrind(backend)));
    }
    cases.push(Case::new("arena/leak-sanitizer", || {
        SUITE.leaks("ak_arena_t *a = ak_arena_new(NULL); if (ak_arena_alloc(a, 100) == NULL) return 1; a = NULL;")
    }));
    cases.push(Case::new("arena/no-system", no_system));
    cases.push(Case::new("arena/bare-metal", bare_metal));
    cases
}

/// The Rust crate for a machine without an operating system.
fn no_system() -> Result<()> {
    let target = "x86_64-unknown-none";
    if !tools::attempt(Command::new("rustup").args(["target", "add", target])).is_ok_and(|done| done.success) {
        return Err(LeftOut::because(format!(
            "Rust's libraries for {target} cannot be had (rustup target add {target})"
        )));
    }
    let mut command = Command::new("cargo");
    command.current_dir(build::root()).args(["check", "--quiet", "--target", target, "-p", "allokit-arena"]);
    command.args(["--features", "allocator-api2"]);
    command.env_remove("CARGO_MANIFEST_DIR").env_remove("RUSTUP_TOOLCHAIN");
    tools::output(&mut command).map(drop)
}

/// examples-rust/bare_metal on a machine that is not there.
fn bare_metal() -> Result<()> {
    let target = "aarch64-unknown-none-softfloat";
    if !tools::attempt(Command::new("rustup").args(["target", "add", target])).is_ok_and(|done| done.success) {
        return Err(LeftOut::because(format!(
            "Rust's libraries for {target} cannot be had (rustup target add {target})"
        )));
    }
    if let Err(error) = tools::need(&["qemu-system-aarch64"]) {
        return Err(LeftOut::because(format!("{error:#}")));
    }
    let output = build::target_dir().join("bare-metal");
    let mut command = Command::new("cargo");
    command.current_dir(build::root().join("examples-rust/bare_metal")).env("CARGO_TARGET_DIR", &output);
    command.args(["build", "--quiet", "--locked", "--target", target]);
    command.env_remove("CARGO_MANIFEST_DIR").env_remove("RUSTUP_TOOLCHAIN");
    tools::output(&mut command)?;
    let mut board = Command::new(tools::find("qemu-system-aarch64")?);
    board.args(["-M", "virt", "-cpu", "cortex-a53", "-display", "none", "-nic", "none", "-semihosting", "-kernel"]);
    let done = tools::attempt(board.arg(output.join(target).join("debug/bare-metal")))?;
    ensure!(done.success && done.all().contains("refused, all right"), "{}\n{}", done.ending, done.all());
    Ok(())
}
