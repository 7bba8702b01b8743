//! Says that c-api is compiled as a Rust library here: whoever links it has std's panic handler.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(allokit_rust_library)");
    println!("cargo::rustc-cfg=allokit_rust_library");
}
