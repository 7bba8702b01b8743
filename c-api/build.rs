//! Names the shared library for the loader: liballokit_<backend>.so.<major>, which is what programs linked with it ask
//! for, and keeps it loaded. Owns only linker arguments of the cdylib; `cargo xtask lib` makes the files of these names.

use std::env;

/// The order is that of allokit-select: with several backends built in, the first one serves.
const BACKENDS: [&str; 4] = ["native", "mimalloc", "jemalloc", "system"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Set where crates/abi-test compiles this crate's source as a Rust library.
    println!("cargo:rustc-check-cfg=cfg(allokit_rust_library)");
    let on = |backend: &&&str| env::var_os(format!("CARGO_FEATURE_{}", backend.to_uppercase())).is_some();
    let backend = BACKENDS.iter().find(on).expect("one of the features native, mimalloc, jemalloc, system must be on");
    let major = env::var("CARGO_PKG_VERSION_MAJOR").expect("cargo sets it");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,liballokit_{backend}.so.{major}");
        // Threads run our code when they end, and blocks outlive a plugin: dlclose must not take the code away.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
