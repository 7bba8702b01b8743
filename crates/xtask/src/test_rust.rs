//! The Rust side: formatting, clippy in each feature combination, unit and property tests, Miri, other targets; and the
//! C header alone, under every standard and both compilers.

use crate::build::{self, BACKENDS};
use crate::case::{Case, LeftOut};
use crate::tools;
use anyhow::{Result, ensure};
use std::process::Command;

/// Crates whose tests Miri can run: no C library behind them, no files, no child processes.
const MIRI: [&str; 5] = ["allokit-core", "allokit-platform", "allokit-native", "allokit-arena", "allokit-heap"];

/// What each run of all cases takes of the three crates whose tests take Miri minutes: names of tests, or parts of them.
const MIRI_NATIVE: [&str; 4] =
    ["classes", "check_sees_damage", "what_cannot_be", "sampled::tests::what_is_beside_a_block_is_looked_at"];
const MIRI_HEAP: [&str; 5] =
    ["an_owner_gives_way", "limits_nest", "wrong_pointers_are_noticed", "parents_and_arenas", "space::tests::clean"];
const MIRI_ARENA: [&str; 6] =
    ["tests::arena::a_", "tests::arena::five_cycles", "tests::pool", "tests::stack", "tests::scratch", "tests::safe"];

/// The cases of this module.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("rust/fmt", || cargo(&["fmt", "--all", "--check"])),
        Case::new("rust/clippy/all-features", || clippy(&["--workspace", "--all-targets", "--all-features"])),
        Case::new("rust/tests", || {
            tools::need(&["libclang"])?;
            // (The command's are cli/unit: built once, as the command is.)
            let args = ["test", "--workspace", "--exclude", "allokit-cli", "--quiet"];
            cargo_env(&args, &[("ALLOKIT_ABI", "required")])
        }),
    ];
    for backend in BACKENDS {
        for track in ["", ",track"] {
            let features = format!("{backend}{track}");
            let name = format!("rust/clippy/{features}");
            cases.push(Case::new(name, move || {
                clippy(&["-p", "allokit-c", "-p", "allokit-select", "--no-default-features", "--features", &features])?;
                if build::has_preload(backend) {
                    clippy(&["-p", "allokit-preload", "--no-default-features", "--features", &features])?;
                }
                Ok(())
            }));
        }
        cases.push(Case::new(format!("rust/select/{backend}"), move || {
            let features = format!("{backend},track");
            cargo(&["test", "--quiet", "-p", "allokit-select", "--no-default-features", "--features", &features])
        }));
    }
    for krate in MIRI {
        cases.push(Case::new(format!("miri/{krate}"), move || miri(krate, &[])));
    }
    cases.push(Case::new("miri/some-of-allokit-native", || miri("allokit-native", &MIRI_NATIVE)));
    cases.push(Case::new("miri/some-of-allokit-heap", || miri("allokit-heap", &MIRI_HEAP)));
    cases.push(Case::new("miri/some-of-allokit-arena", || miri("allokit-arena", &MIRI_ARENA)));
    for target in ["aarch64-unknown-linux-gnu", "x86_64-unknown-linux-musl"] {
        cases.push(Case::new(format!("rust/check/{target}"), move || check(target)));
    }
    cases.push(Case::new("header/standards", header_alone));
    cases
}

fn cargo(args: &[&str]) -> Result<()> {
    cargo_env(args, &[])
}

fn cargo_env(args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    let mut command = Command::new("cargo");
    command.current_dir(build::root()).args(args).envs(env.iter().copied());
    // What cargo told this program about itself must not reach another build.
    command.env_remove("CARGO_MANIFEST_DIR").env_remove("RUSTUP_TOOLCHAIN");
    tools::output(&mut command).map(drop)
}

fn clippy(args: &[&str]) -> Result<()> {
    tools::need(&["libclang"])?;
    let mut all = vec!["clippy", "--quiet"];
    all.extend(args);
    all.extend(["--", "-D", "warnings"]);
    cargo(&all)
}

fn miri(krate: &str, some: &[&str]) -> Result<()> {
    let rustup = |args: &[&str]| tools::attempt(Command::new("rustup").args(args)).is_ok_and(|done| done.success);
    let have = || rustup(&["run", "nightly", "cargo", "miri", "--version"]);
    if !have() {
        rustup(&["component", "add", "miri", "rust-src", "--toolchain", "nightly"]);
    }
    if !have() {
        let how = "rustup toolchain install nightly --component miri,rust-src";
        return Err(LeftOut::because(format!("Miri is not here and cannot be had; {how}")));
    }
    // What the arenas' tests take they give back; the native heap keeps its memory until the process ends.
    let arena = krate == "allokit-arena";
    let leaks = if arena { "" } else { "-Zmiri-ignore-leaks " };
    let flags = format!("{leaks}-Zmiri-permissive-provenance -Zmiri-disable-isolation");
    let mut command = Command::new("rustup");
    command
        .current_dir(build::root())
        .args(["run", "nightly", "cargo", "miri", "test", "--quiet", "-p", krate, "--lib"]);
    if arena {
        command.args(["--features", "allocator-api2"]);
    }
    if !some.is_empty() {
        command.arg("--").args(some);
    }
    command.env("MIRIFLAGS", flags).env("CARGO_TARGET_DIR", build::target_dir().join("miri-tests"));
    command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO_MANIFEST_DIR");
    let text = tools::output(&mut command)?;
    ensure!(text.contains("test result: ok"), "Miri ran no test:\n{text}");
    Ok(())
}

fn check(target: &str) -> Result<()> {
    let added = tools::attempt(Command::new("rustup").args(["target", "add", target]));
    if !added.is_ok_and(|done| done.success) {
        return Err(LeftOut::because(format!(
            "Rust's libraries for {target} cannot be had (rustup target add {target})"
        )));
    }
    let crates = ["core", "platform", "native", "system", "arena", "heap", "track", "report", "select"];
    let mut args = vec!["check".to_string(), "--quiet".into(), "--target".into(), target.into()];
    for krate in crates {
        args.extend(["-p".to_string(), format!("allokit-{krate}")]);
    }
    cargo(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// alloc.h as the only include, with all its macros used, under each standard.
fn header_alone() -> Result<()> {
    tools::need(&["gcc", "g++", "clang"])?;
    let folder = tempfile::tempdir()?;
    let source = folder.path().join("use.c");
    std::fs::write(&source, HEADER_USE)?;
    let c = ["c99", "c11", "c17", "c2x", "gnu99", "gnu17"];
    let cxx = ["c++11", "c++14", "c++17", "c++20", "gnu++17"];
    for (compilers, language, standards) in [(["gcc", "clang"], "c", &c[..]), (["g++", "clang++"], "c++", &cxx[..])] {
        for compiler in compilers {
            for standard in standards {
                for sites in [false, true] {
                    let mut command = Command::new(compiler);
                    command.args(["-x", language]).arg(format!("-std={standard}"));
                    command.args(["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror", "-O2"]);
                    command.arg("-I").arg(build::root().join("include")).args(["-c", "-o"]);
                    command.arg(folder.path().join("use.o")).arg(&source);
                    if sites {
                        command.arg("-DAK_TRACK");
                    }
                    tools::output(&mut command)?;
                    // Without AK_TRACK the object names no file and holds no record; with it, it does.
                    let object = std::fs::read(folder.path().join("use.o"))?;
                    let marked = contains(&object, b"marker_of_a_file_name.c");
                    ensure!(
                        marked == sites,
                        "{compiler} -std={standard}, AK_TRACK {sites}: file name in object: {marked}"
                    );
                    let records = contains(&object, b"ak_site_");
                    ensure!(records == sites, "{compiler} -std={standard}, AK_TRACK {sites}: site record: {records}");
                }
            }
        }
    }
    Ok(())
}

fn contains(object: &[u8], text: &[u8]) -> bool {
    object.windows(text.len()).any(|window| window == text)
}

const HEADER_USE: &str = r#"
#include "alloc.h"
#include "alloc.h"
#line 1 "marker_of_a_file_name.c"
typedef struct node { struct node *next; double x; } node_t;
#define vex_alloc(n) ak_alloc(n)
void *use_all(size_t n);
static inline void *from_inline(size_t n) { return ak_alloc(n); }
#ifdef __cplusplus
struct alignas(64) wide { int y; };
template <class T> static T *make(void) { return AK_NEW(T); }
void *use_cxx(void);
static node_t *global_node = AK_NEW(node_t);
void *use_cxx(void) { ak_free(global_node); return make<wide>(); }
#endif
void *use_all(size_t n) {
    node_t *one = AK_NEW(node_t);
    node_t *many = AK_ARRAY(node_t, n);
    node_t *more = AK_RESIZE(many, node_t, n * 2);
    AK_FREE(one);
    AK_FREE(more);
    if (n == 3) ak_free(ak_strdup("x")); else ak_free(ak_strndup("xy", n));
    ak_free_sized(ak_memdup("abc", 3), 3);
    ak_free(ak_realloc(from_inline(n), n));
    ak_free(ak_alloc_at(n, NULL, 0));
    void *p = (ak_alloc)(ak_usable_size(NULL) + 1);
    ak_free(p);
    ak_free(ak_alloc_aligned(n, 64));
    ak_free(ak_calloc(n, 2));
    void *kept = ak_alloc(n);
    void *grown = ak_realloc(kept, n * 2); /* no compiler may take a failed realloc for a free */
    if (grown == NULL) ak_free(kept); else ak_free(grown);
    ak_heap_t *heap = ak_heap_new(NULL);
    char *held = (char *)ak_heap_realloc(heap, ak_heap_strdup(heap, "x"), n);
    ak_heap_free(heap, held);
    ak_free(ak_lua_alloc(heap, NULL, 4, n));
    ak_heap_reset(heap);
    ak_heap_destroy(heap);
    ak_arena_t *arena = ak_arena_new(NULL);
    ak_arena_mark_t mark = ak_arena_mark(arena);
    char *text = ak_arena_sprintf(arena, "%d", 1);
    text = (char *)ak_arena_realloc(arena, text, 2, n);
    if (text != ak_arena_alloc(ak_arena_child(arena, NULL), n)) ak_arena_rewind(arena, mark);
    ak_scratch_t s = ak_scratch_begin();
    ak_scratch_end(s);
    ak_region_t *region = ak_region_new(n);
    ak_region_free(ak_region_realloc(region, ak_region_alloc(region, n), n * 2));
    ak_pool_t *pool = ak_pool_new(n, NULL);
    ak_pool_give(pool, ak_pool_take(pool));
    ak_stack_t *stack = ak_stack_new(n, NULL);
    ak_stack_pop(stack, ak_stack_push(stack, n));
    ak_stack_release(stack, ak_stack_mark(stack));
    ak_region_destroy(region);
    ak_pool_destroy(pool);
    ak_stack_destroy(stack);
    ak_arena_destroy(arena);
    ak_stats_t st;
    st.struct_size = sizeof st;
    return ak_stats_get(&st) && ak_assert_balanced("x") ? vex_alloc(n) : NULL;
}
"#;
