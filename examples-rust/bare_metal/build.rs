//! Tells the linker where the board has its memory.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo::rerun-if-changed=board.ld");
    println!("cargo::rustc-link-arg=-T{folder}/board.ld");
}
