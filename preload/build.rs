//! Names the library for the loader and keeps it loaded: blocks outlive whoever opened it. Owns only linker arguments.

use std::env;

/// The order is that of allokit-select: with several backends built in, the first one serves.
const BACKENDS: [&str; 4] = ["native", "mimalloc", "jemalloc", "system"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let on = |backend: &&&str| env::var_os(format!("CARGO_FEATURE_{}", backend.to_uppercase())).is_some();
    let backend = BACKENDS.iter().find(on).expect("one of the features native, mimalloc, jemalloc must be on");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        // No version: nothing is linked with it, and what it exports is libc's interface.
        let guard = if env::var_os("CARGO_FEATURE_GUARD").is_some() { "_guard" } else { "" };
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,liballokit_preload_{backend}{guard}.so");
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
