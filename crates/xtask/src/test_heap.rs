//! The suite for heaps (tests/heap) with the runner of the conformance suite: each backend, static and shared, C and C++,
//! plain and tracked; a late read under AddressSanitizer and valgrind; and a Lua host whose states have a limit.

use crate::build::{self, BACKENDS};
use crate::case::Case;
use crate::suites::{Suite, link};
use crate::{sources, tools};
use anyhow::{Result, ensure};
use std::path::PathBuf;
use std::process::Command;

const SUITE: Suite = Suite {
    name: "heap",
    sources: &["heaps.c"],
    runs: &[
        &[("ALLOKIT_TRACK", "off"), ("ALLOKIT_POLICY", "abort")],
        &[("ALLOKIT_TRACK", "sites"), ("ALLOKIT_POLICY", "report")],
        &[("ALLOKIT_TRACK", "off"), ("ALLOKIT_POLICY", "quiet")],
    ],
    late: ("late_use.c", &["late", "reset"]),
};

/// The cases of this module.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backend in BACKENDS {
        cases.push(Case::new(format!("heap/{backend}/static"), move || SUITE.run(backend, false)));
        cases.push(Case::new(format!("heap/{backend}/shared"), move || SUITE.run(backend, true)));
        cases.push(Case::new(format!("heap/{backend}/lua"), move || lua_host(backend)));
    }
    for backend in ["native", "system"] {
        cases.push(Case::new(format!("heap/{backend}/address-sanitizer"), move || SUITE.sanitizer(backend)));
        cases.push(Case::new(format!("heap/{backend}/valgrind"), move || SUITE.valgrind(backend)));
    }
    // A heap's memory is not the system allocator's; what is lost with it is what an arena has from there.
    cases.push(Case::new("heap/leak-sanitizer", || {
        SUITE.leaks(
            "ak_heap_t *h = ak_heap_new(NULL); void **p = (void **)ak_heap_alloc(h, 16); *p = ak_alloc(100); h = NULL;",
        )
    }));
    cases
}

/// examples-c/11_lua_limits with the Lua of `cargo xtask sources`.
fn lua_host(backend: &str) -> Result<()> {
    tools::need(&["gcc"])?;
    let lua = sources::find()?.lua;
    let built = build::build(backend, true, None)?;
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("lua_limits");
    let mut command = Command::new("gcc");
    command.args(["-std=gnu99", "-O1", "-Wall", "-Wextra", "-DLUA_USE_POSIX", "-pthread"]);
    command.arg("-I").arg(build::root().join("include")).arg("-isystem").arg(&lua);
    command.arg(build::root().join("examples-c/11_lua_limits/lua_limits.c"));
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in lua.read_dir()? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.ends_with(".c") && !["lua.c", "luac.c", "onelua.c", "ltests.c"].contains(&name) {
            files.push(path);
        }
    }
    files.sort();
    command.args(files);
    link(&mut command, &built.static_lib, &program)?;
    for level in ["off", "sites"] {
        let done = tools::attempt(Command::new(&program).env("ALLOKIT_TRACK", level).env("ALLOKIT_LEAKS", "1"))?;
        ensure!(done.success, "ALLOKIT_TRACK={level}: {}\n{}", done.ending, done.all());
        for words in ["greedy: not enough memory", "sly: not enough memory", "the host goes on: 0 went wrong"] {
            ensure!(done.stdout.contains(words), "{words:?} is not said:\n{}", done.all());
        }
    }
    Ok(())
}
