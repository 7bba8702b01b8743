//! The three lists of functions are one: what alloc.h declares (bindgen), what exports.txt lists, what the library's
//! source defines (cbindgen, which also counts the arguments).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Of each function that alloc.h declares; empty when the build script had no libclang.
const FUNCTIONS: &[(&str, usize)] = include!(concat!(env!("OUT_DIR"), "/functions.rs"));

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn declared() -> Option<BTreeMap<String, usize>> {
    let required = std::env::var_os("ALLOKIT_ABI").is_some_and(|value| value == "required");
    assert!(!FUNCTIONS.is_empty() || !required, "built without libclang");
    if FUNCTIONS.is_empty() {
        eprintln!("left out: libclang is missing");
        return None;
    }
    Some(FUNCTIONS.iter().map(|(name, arguments)| (name.to_string(), *arguments)).collect())
}

#[test]
fn exports_txt_lists_what_the_header_declares() {
    let Some(declared) = declared() else { return };
    let text = std::fs::read_to_string(root().join("c-api/exports.txt")).unwrap();
    let mut listed: Vec<&str> =
        text.lines().map(|line| line.split('#').next().unwrap().trim()).filter(|line| !line.is_empty()).collect();
    listed.sort_unstable();
    let declared: Vec<&str> = declared.keys().map(String::as_str).collect();
    assert_eq!(listed, declared, "left: c-api/exports.txt, right: include/alloc.h");
}

/// The library's source after macro expansion: cbindgen does not expand macros on stable.
fn expanded() -> String {
    let output = Command::new(env!("CARGO"))
        .env("RUSTC_BOOTSTRAP", "1")
        .current_dir(root())
        .args(["rustc", "--quiet", "--package", "allokit-c-exports", "--profile", "check", "--target-dir"])
        .arg(env!("CARGO_TARGET_TMPDIR"))
        .args(["--", "-Zunpretty=expanded"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Name and number of arguments of each prototype in a C header.
fn prototypes(header: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let text = header.replace('\n', " ");
    for (at, _) in text.match_indices("ak_") {
        let word_begins =
            at == 0 || !text.as_bytes()[at - 1].is_ascii_alphanumeric() && text.as_bytes()[at - 1] != b'_';
        let name: String = text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let Some(rest) = text[at + name.len()..].strip_prefix('(') else { continue };
        if !word_begins {
            continue;
        }
        let mut depth = 1;
        let mut arguments = 1;
        let mut inside = String::new();
        for c in rest.chars() {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                ',' if depth == 1 => arguments += 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            inside.push(c);
        }
        if inside.trim().is_empty() || inside.trim() == "void" {
            arguments = 0;
        }
        found.insert(name, arguments);
    }
    found
}

#[test]
fn cbindgen_sees_the_same_functions() {
    let Some(declared) = declared() else { return };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cbindgen");
    std::fs::create_dir_all(&folder).unwrap();
    let source = folder.join("expanded.rs");
    std::fs::write(&source, expanded()).unwrap();
    let config = cbindgen::Config { language: cbindgen::Language::C, ..cbindgen::Config::default() };
    let bindings = cbindgen::Builder::new().with_config(config).with_src(&source).generate().unwrap();
    let mut header = Vec::new();
    bindings.write(&mut header);
    let generated = prototypes(&String::from_utf8(header).unwrap());
    assert_eq!(generated, declared, "left: cbindgen over c-api, right: include/alloc.h");
}

#[test]
fn prototypes_are_found_and_counted() {
    let found = prototypes(
        "void *ak_a(size_t n, void (*f)(int, int),\n  int z);\nuint32_t ak_b(void);\nstruct ak_c; int ak_d(int x); int xak_e(int);",
    );
    let expected = [("ak_a", 3), ("ak_b", 0), ("ak_d", 1)];
    assert_eq!(found, expected.into_iter().map(|(name, count)| (name.to_string(), count)).collect());
}
