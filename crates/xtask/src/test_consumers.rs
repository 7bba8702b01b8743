//! Programs that use Allokit from outside, in every way that is promised: by CMake from source and installed, by
//! pkg-config, by hand, beside other allocators and other Rust libraries; and what the libraries themselves must look like.
//!
//! Owns the cases; the programs are in tests/consumers. The installed package that they use has been moved after its
//! installation, and a `cargo` that fails comes first in PATH there.

use crate::build::{self, Built, Options};
use crate::case::{Case, LeftOut};
use crate::{install, sources, tools};
use anyhow::{Context, Result, anyhow, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const MAX_STATIC_BYTES: u64 = 2_000_000;

/// A check without parameters.
type Check = fn() -> Result<()>;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backend in build::BACKENDS {
        for track in [true, false] {
            let mode = if track { "track" } else { "no-track" };
            cases.push(Case::new(format!("library/{backend}/{mode}"), move || library(backend, track)));
        }
        cases.push(Case::new(format!("consumers/relink/{backend}"), move || relink(backend)));
        cases.push(Case::new(format!("consumers/relink-inline/{backend}"), move || relink_inline(backend)));
        cases.push(Case::new(format!("consumers/two-objects/{backend}"), move || two_objects(backend)));
        for kind in ["static", "shared"] {
            let shared = kind == "shared";
            cases
                .push(Case::new(format!("consumers/pkg-config/{backend}/{kind}"), move || pkg_config(backend, shared)));
            let name = format!("consumers/find-package/{backend}/{kind}");
            cases.push(Case::new(name, move || find_package(backend, shared)));
        }
    }
    // backend, shared, ALLOKIT_TRACK, generator
    let from_source = [
        ("native", false, "", "Ninja"),
        ("native", true, "ON", "Unix Makefiles"),
        ("mimalloc", true, "", "Ninja"),
        ("jemalloc", false, "ON", "Ninja"),
        ("system", false, "OFF", "Unix Makefiles"),
    ];
    for (backend, shared, track, generator) in from_source {
        let kind = if shared { "shared" } else { "static" };
        cases.push(Case::new(format!("consumers/add-subdirectory/{backend}/{kind}"), move || {
            add_subdirectory(backend, shared, track, generator)
        }));
    }
    let others: [(&str, Check); 14] = [
        ("consumers/fetchcontent", fetchcontent),
        ("consumers/cmake-install", cmake_install),
        ("consumers/guarded", guarded),
        ("consumers/components", components),
        ("consumers/version", version),
        ("consumers/prefix-header", prefix_header),
        ("consumers/prefix-header-names", prefix_header_names),
        ("consumers/own-mimalloc", own_mimalloc),
        ("consumers/other-rust-library", other_rust),
        ("consumers/cross-aarch64", cross_aarch64),
        ("consumers/bad-options", bad_options),
        ("consumers/no-rust", no_rust),
        ("consumers/bad-commands", bad_commands),
        ("consumers/package-is-relocatable", relocatable),
    ];
    cases.extend(others.map(|(name, run)| Case::new(name, run)));
    cases
}

// ---- the libraries themselves ------------------------------------------------------------------------------------------

/// Symbols, size, soname and dependencies of a backend's two libraries.
fn library(backend: &'static str, track: bool) -> Result<()> {
    let built = build::build_with(&Options { track, ..Options::new(backend) })?;
    let exports = build::exports()?;
    let mut for_static = exports.clone();
    for_static.insert(build::INLINE_SYMBOL.to_string());
    for (library, exports) in [(&built.static_lib, &for_static), (&built.shared_lib, &exports)] {
        same(&build::offered(library)?, exports).with_context(|| format!("public symbols of {}", library.display()))?;
    }
    let size = built.static_lib.metadata()?.len();
    ensure!(size < MAX_STATIC_BYTES, "{} has {size} bytes, {MAX_STATIC_BYTES} are allowed", built.static_lib.display());

    let dynamic = readelf("--dynamic", &built.shared_lib)?;
    let soname = format!("[liballokit_{backend}.so.{}]", build::MAJOR);
    ensure!(tagged(&dynamic, "(SONAME)").any(|line| line.ends_with(&soname)), "the soname is not {soname}:\n{dynamic}");
    for needed in tagged(&dynamic, "(NEEDED)") {
        let libc = needed.contains("[libc.so") || needed.contains("[ld-linux") || needed.contains("[ld64");
        ensure!(libc, "{} needs more than libc: {}", built.shared_lib.display(), needed.trim());
    }
    ensure!(!dynamic.contains("RUNPATH") && !dynamic.contains("RPATH"), "a path of this machine:\n{dynamic}");
    ensure!(tagged(&dynamic, "(TEXTREL)").next().is_none(), "text relocations:\n{dynamic}");
    for file in [MAJOR_LINK, FULL_NAME] {
        let path = built.shared_lib.with_extension(file);
        ensure!(path.is_file(), "{} is missing", path.display());
    }

    // Ours, and those of mimalloc (at load and exit) and jemalloc (at load).
    let constructors = if matches!(backend, "mimalloc" | "jemalloc") { 2 } else { 1 };
    let destructors = if backend == "mimalloc" { 2 } else { 1 };
    let sections = readelf("--relocs", &built.static_lib)?;
    let in_section = |name: &str| entries(&sections, name);
    ensure!(in_section(".init_array") >= constructors, "constructors were lost:\n{}", heads(&sections));
    ensure!(in_section(".fini_array") >= destructors, "destructors were lost:\n{}", heads(&sections));
    let sections = readelf("--sections", &built.static_lib)?;
    ensure!(sections.contains(".note.GNU-stack"), "programs linked with it would get an executable stack");
    ensure!(!sections.contains(".debug_info"), "debug information is left");
    Ok(())
}

const MAJOR_LINK: &str = concat!("so.", env!("CARGO_PKG_VERSION_MAJOR"));
const FULL_NAME: &str = concat!("so.", env!("CARGO_PKG_VERSION"));

fn readelf(what: &str, file: &Path) -> Result<String> {
    tools::need(&["readelf"])?;
    tools::output(Command::new(tools::find("readelf")?).args([what, "--wide"]).arg(file))
}

fn tagged<'a>(dynamic: &'a str, tag: &'a str) -> impl Iterator<Item = &'a str> {
    dynamic.lines().filter(move |line| line.contains(tag))
}

/// How many relocations `readelf --relocs` lists for the sections of this name: one for each constructor.
fn entries(relocations: &str, section: &str) -> usize {
    let wanted = [format!("'.rela{section}'"), format!("'.rel{section}'")];
    let counts = relocations.lines().filter(|line| wanted.iter().any(|name| line.contains(name))).filter_map(|line| {
        let (_, rest) = line.split_once(" contains ")?;
        rest.split_whitespace().next()?.parse::<usize>().ok()
    });
    counts.sum()
}

fn heads(relocations: &str) -> String {
    relocations.lines().filter(|line| line.contains("_array")).collect::<Vec<_>>().join("\n")
}

/// An error that names what is missing and what is too much.
fn same(found: &BTreeSet<String>, wanted: &BTreeSet<String>) -> Result<()> {
    let list = |set: &mut dyn Iterator<Item = &String>| set.map(String::as_str).collect::<Vec<_>>().join(" ");
    let missing = list(&mut wanted.difference(found));
    let extra = list(&mut found.difference(wanted));
    ensure!(missing.is_empty() && extra.is_empty(), "missing: [{missing}], not in the list: [{extra}]");
    Ok(())
}

// ---- by hand -----------------------------------------------------------------------------------------------------------

/// One object file, linked with a backend's static and then with its shared library: no more than that is switching.
fn relink(backend: &'static str) -> Result<()> {
    let folder = folder(&format!("relink-{backend}"))?;
    let built = built(backend)?;
    let object = folder.join("app.o");
    tools::output(cc()?.args(["-std=c99", "-D_GNU_SOURCE", "-c"]).arg(consumers("app/app.c")).arg("-o").arg(&object))?;
    for (kind, library) in [("static", &built.static_lib), ("shared", &built.shared_lib)] {
        let program = folder.join(kind);
        let mut link = cc()?;
        link.arg(&object).arg(library).args(["-Werror", "-lpthread", "-ldl", "-o"]).arg(&program);
        tools::output(link.arg(rpath(library)?))?;
        tools::output(Command::new(&program).args([backend, "off"]))?;
        ensure!(!tools::attempt(Command::new(&program).args(["other", "off"]))?.success, "the check cannot fail");
    }
    Ok(())
}

/// An object with the fast path in the caller (AK_INLINE_NATIVE) runs with every backend's static library; with a shared
/// library, or one of another layout, it is not linked, and the linker names what is wanted.
fn relink_inline(backend: &'static str) -> Result<()> {
    tools::need(&["gcc", "g++", "objcopy"])?;
    let folder = folder(&format!("relink-inline-{backend}"))?;
    let built = built(backend)?;
    let other_layout = folder.join("libother.a");
    let other_name = build::INLINE_SYMBOL.replace("_inline_", "_inline_0");
    ensure!(other_name != build::INLINE_SYMBOL, "{other_name} has no number");
    let mut objcopy = Command::new(tools::find("objcopy")?);
    objcopy.arg(format!("--redefine-sym={}={other_name}", build::INLINE_SYMBOL));
    tools::output(objcopy.arg(&built.static_lib).arg(&other_layout))?;
    for (compiler, language) in [("gcc", "c"), ("g++", "c++")] {
        let object = folder.join(format!("{compiler}.o"));
        let mut compile = Command::new(compiler);
        compile.args(["-x", language, "-O2", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-DAK_INLINE_NATIVE"]);
        compile.arg("-I").arg(build::root().join("include")).arg("-c").arg(consumers("app/app.c"));
        tools::output(compile.arg("-o").arg(&object))?;
        let program = folder.join(compiler);
        let link = |library: &Path| -> Result<tools::Done> {
            let mut link = Command::new(compiler);
            link.arg(&object).arg(library).args(["-lpthread", "-ldl", "-o"]).arg(&program);
            tools::attempt(link.arg(rpath(library)?))
        };
        for refused in [&built.shared_lib, &other_layout] {
            let done = link(refused)?;
            let named = done.stderr.contains("undefined reference") && done.stderr.contains(build::INLINE_SYMBOL);
            ensure!(!done.success && named, "{} and {compiler}: {}\n{}", refused.display(), done.ending, done.stderr);
        }
        let done = link(&built.static_lib)?;
        ensure!(done.success, "the static library and {compiler}: {}\n{}", done.ending, done.stderr);
        tools::output(Command::new(&program).args([backend, "off"]))?;
    }
    Ok(())
}

/// Two shared objects in one process: linked with one shared library, and each with the static library in it.
fn two_objects(backend: &'static str) -> Result<()> {
    let folder = folder(&format!("two-objects-{backend}"))?;
    let built = built(backend)?;
    for (kind, library) in [("shared", &built.shared_lib), ("static", &built.static_lib)] {
        let folder = folder.join(kind);
        fs::create_dir_all(&folder)?;
        for part in ["a", "b"] {
            let mut link = cc()?;
            link.args(["-std=c99", "-fPIC", "-shared", &format!("-DPART={part}")]).arg(consumers("two_objects/part.c"));
            link.arg(library).arg(rpath(library)?).args(["-lpthread", "-ldl", "-o"]);
            tools::output(link.arg(folder.join(format!("libpart_{part}.so"))))?;
        }
        let program = folder.join("main");
        let mut link = cc()?;
        link.arg("-std=c99").arg(consumers("two_objects/main.c")).arg("-L").arg(&folder).args(["-lpart_a", "-lpart_b"]);
        link.arg(format!("-Wl,-rpath,{}:{}", folder.display(), parent(library)?.display()));
        tools::output(link.arg("-o").arg(&program))?;
        let mut main = Command::new(&program);
        main.env("ALLOKIT_TRACK", "sites").env("ALLOKIT_LEAKS", "1").env("ALLOKIT_STATS", "text");
        let done = tools::attempt(&mut main)?;
        ensure!(done.success, "{kind}: {}\n{}", done.ending, done.all());
        // One state has one report: a second copy of the library, which serves nobody, keeps quiet.
        for text in ["allokit: no live blocks", ", backend "] {
            let count = done.stderr.matches(text).count();
            ensure!(count == 1, "{kind}: at exit {text:?} is printed {count} times:\n{}", done.stderr);
        }
    }
    Ok(())
}

/// A program that brings its own mimalloc, linked before ours and after it.
fn own_mimalloc() -> Result<()> {
    let folder = folder("own-mimalloc")?;
    let built = built("mimalloc")?;
    let package = sources::package_folder(&build::root().join("Cargo.toml"), "libmimalloc-sys")?;
    let mimalloc = package.join("c_src/mimalloc/v3");
    let include = mimalloc.join("include");
    let theirs = folder.join("mimalloc.o");
    let mut compile = cc()?;
    compile.args(["-O1", "-w", "-c"]).arg("-I").arg(&include).arg(mimalloc.join("src/static.c"));
    tools::output(compile.arg("-o").arg(&theirs))?;
    let main = folder.join("main.o");
    let mut compile = cc()?;
    compile.args(["-std=gnu99", "-c"]).arg("-isystem").arg(&include).arg(consumers("own_mimalloc/main.c"));
    tools::output(compile.arg("-o").arg(&main))?;
    for (name, libraries) in
        [("theirs-first", [&theirs, &built.static_lib]), ("ours-first", [&built.static_lib, &theirs])]
    {
        let program = folder.join(name);
        tools::output(cc()?.arg(&main).args(libraries).args(["-lpthread", "-ldl", "-o"]).arg(&program))?;
        tools::output(&mut Command::new(&program)).context(name)?;
    }
    Ok(())
}

/// A program with another Rust library, which has std and unwinds, in both orders, for every backend.
fn other_rust() -> Result<()> {
    let folder = folder("other-rust")?;
    let other = folder.join("libother.a");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut compile = Command::new(rustc);
    compile.args(["--crate-type=staticlib", "--edition=2021", "-O", "-o"]).arg(&other);
    tools::output(compile.arg(consumers("other_rust/other.rs")))?;
    for backend in build::BACKENDS {
        let ours = built(backend)?.static_lib;
        for (order, libraries) in [("first", [&ours, &other]), ("last", [&other, &ours])] {
            let program = folder.join(format!("{backend}-{order}"));
            let mut link = cc()?;
            link.arg("-std=c99").arg(consumers("other_rust/main.c")).args(libraries);
            tools::output(link.args(["-lpthread", "-ldl", "-lm", "-lgcc_s", "-o"]).arg(&program))?;
            tools::output(&mut Command::new(&program)).with_context(|| format!("{backend}, ours {order}"))?;
        }
    }
    Ok(())
}

// ---- pkg-config --------------------------------------------------------------------------------------------------------

fn pkg_config(backend: &'static str, shared: bool) -> Result<()> {
    tools::need(&["pkg-config"])?;
    let prefix = prefix()?;
    let folder = folder(&format!("pkg-config-{backend}-{}", if shared { "shared" } else { "static" }))?;
    let ask = |options: &[&str]| -> Result<Vec<String>> {
        let mut command = Command::new(tools::find("pkg-config")?);
        command.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")).args(options).arg(format!("allokit-{backend}"));
        Ok(tools::output(&mut command)?.split_whitespace().map(str::to_string).collect())
    };
    ensure!(ask(&["--modversion"])? == [build::VERSION], "the version is wrong");
    let source = consumers("app/app.c");
    let compile = |program: &Path, words: &[String]| -> Result<()> {
        let mut link = Command::new(tools::find("cc")?);
        link.args(["-std=gnu99", "-pthread"]).arg(&source).args(words).arg("-o").arg(program);
        tools::output(&mut link).map(drop)
    };
    if shared {
        let program = folder.join("app");
        compile(&program, &ask(&["--cflags", "--libs"])?)?;
        let mut app = Command::new(&program);
        tools::output(app.env("LD_LIBRARY_PATH", prefix.join("lib")).args([backend, "off"]))?;
        let dynamic = readelf("--dynamic", &program)?;
        ensure!(dynamic.contains(&format!("[liballokit_{backend}.so.{}]", build::MAJOR)), "not linked by soname");
        return Ok(());
    }
    // Only Allokit static, as the file's comment says.
    let mut words = ask(&["--cflags"])?;
    words.extend(ask(&["--variable=static_library"])?);
    words.extend(["-lpthread".to_string(), "-ldl".to_string()]);
    let program = folder.join("app");
    compile(&program, &words)?;
    tools::output(Command::new(&program).args([backend, "off"]))?;
    ensure!(!readelf("--dynamic", &program)?.contains("liballokit"), "the static library was not taken");
    // All static.
    let trial = folder.join("trial.c");
    fs::write(&trial, "int main(void) { return 0; }\n")?;
    if !tools::attempt(cc()?.arg("-static").arg(&trial).arg("-o").arg(folder.join("trial")))?.success {
        return Err(LeftOut::because("libc.a is missing (on Fedora: dnf install glibc-static)"));
    }
    let mut words = ask(&["--static", "--cflags", "--libs"])?;
    words.push("-static".to_string());
    let program = folder.join("app-static");
    compile(&program, &words)?;
    tools::output(Command::new(&program).args([backend, "off"])).map(drop)
}

// ---- CMake, installed --------------------------------------------------------------------------------------------------

fn find_package(backend: &'static str, shared: bool) -> Result<()> {
    let kind = if shared { "shared" } else { "static" };
    let mut project = Project::new("find_package", &format!("find-package-{backend}-{kind}"), "Ninja")?;
    project
        .installed()?
        .define("ALLOKIT_BACKEND", backend)
        .define("BUILD_SHARED_LIBS", if shared { "ON" } else { "OFF" });
    // Half of them compiled with call sites.
    project.expect(backend, if shared { "ON" } else { "" });
    project.check()?;
    linked_as(&project.folder.join("app"), backend, shared)
}

/// Whether the program needs the backend's shared library, or holds the static one.
fn linked_as(program: &Path, backend: &str, shared: bool) -> Result<()> {
    let dynamic = readelf("--dynamic", program)?;
    let needs = dynamic.contains(&format!("[liballokit_{backend}.so.{}]", build::MAJOR));
    ensure!(needs == shared, "BUILD_SHARED_LIBS is {shared}, and the program needs the shared library: {needs}");
    Ok(())
}

/// The first component is Allokit::alloc; a component that is not there is named.
fn components() -> Result<()> {
    let mut project = Project::new("find_package", "components", "Unix Makefiles")?;
    project.installed()?.define("EXPECT_COMPONENTS", "jemalloc;native").expect("jemalloc", "");
    project.check()?;
    let mut project = Project::new("find_package", "components-missing", "Ninja")?;
    project.installed()?.define("EXPECT_COMPONENTS", "native;tcmalloc");
    project.refused("the component tcmalloc is not installed; installed: native, mimalloc, jemalloc, system")
}

/// What asks for a later version, or another major one, does not get this one.
fn version() -> Result<()> {
    let folder = folder("version")?;
    let ask = |name: &str, version: &str| -> Result<bool> {
        let source = folder.join(name);
        fs::create_dir_all(&source)?;
        let text = format!(
            "cmake_minimum_required(VERSION 3.19)\nproject(version LANGUAGES C)\nfind_package(Allokit {version})\n\
             if(NOT Allokit_FOUND)\n  message(FATAL_ERROR \"none\")\nendif()\n"
        );
        fs::write(source.join("CMakeLists.txt"), text)?;
        let mut cmake = cmake()?;
        cmake.arg("-S").arg(&source).arg("-B").arg(source.join("build"));
        Ok(tools::attempt(cmake.arg(format!("-DCMAKE_PREFIX_PATH={}", prefix()?.display())))?.success)
    };
    let (major, rest) = build::VERSION.split_once('.').context("a version")?;
    let next = major.parse::<u32>()? + 1;
    for (name, version, wanted) in [
        ("any", String::new(), true),
        ("same", build::VERSION.to_string(), true),
        ("exact", format!("{} EXACT", build::VERSION), true),
        ("range", format!("{major}.0...{next}.0"), true),
        ("range-above", format!("{next}.0...{next}.9"), false),
        ("newer", format!("{major}.99"), false),
        ("major", format!("{next}.{rest}"), false),
    ] {
        ensure!(ask(name, &version)? == wanted, "find_package(Allokit {version}): found is not {wanted}");
    }
    // What a later Allokit will say to programs made for an older one.
    let template = fs::read_to_string(build::root().join("cmake/AllokitConfigVersion.cmake.in"))?;
    let file = folder.join("later.cmake");
    fs::write(&file, template.replace("@VERSION@", "2.1.0").replace("@MAJOR@", "2"))?;
    for (version, wanted) in [("2.0", "TRUE"), ("2.1.0", "TRUE"), ("2.2", "FALSE"), ("1.5", "FALSE"), ("3.0", "FALSE")]
    {
        let script = folder.join("ask.cmake");
        let major = version.split('.').next().unwrap_or("");
        let text = format!(
            "set(PACKAGE_FIND_VERSION {version})\nset(PACKAGE_FIND_VERSION_MAJOR {major})\ninclude({:?})\n\
             message(\"${{PACKAGE_VERSION_COMPATIBLE}}\")\n",
            file.display().to_string()
        );
        fs::write(&script, text)?;
        let done = tools::attempt(cmake()?.arg("-P").arg(&script))?;
        ensure!(
            done.success && done.stderr.trim() == wanted,
            "2.1.0 for {version}: {} is not {wanted}",
            done.all().trim()
        );
    }
    Ok(())
}

/// No text of the package names the folder that it was installed to or that it was built in.
fn relocatable() -> Result<()> {
    let prefix = prefix()?;
    let mut files = Vec::new();
    walk(&prefix, &mut files)?;
    let texts = files.iter().filter(|file| file.extension().is_some_and(|e| e == "cmake" || e == "pc" || e == "h"));
    let mut seen = 0;
    for file in texts {
        let text = fs::read_to_string(file)?;
        for folder in [build::root(), build::target_dir(), installed_first()] {
            ensure!(!text.contains(&*folder.to_string_lossy()), "{} names {}", file.display(), folder.display());
        }
        ensure!(
            !text.contains("@VERSION@") && !text.contains("@MAJOR@") && !text.contains("@BACKEND@"),
            "not filled in"
        );
        seen += 1;
    }
    ensure!(seen >= 4 + 4 + 3, "only {seen} files were looked at");
    for file in ["LICENSE-MIT", "LICENSE-APACHE", "LICENSE-mimalloc", "LICENSE-jemalloc"] {
        ensure!(prefix.join("share/doc/allokit").join(file).is_file(), "{file} is not installed");
    }
    Ok(())
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.symlink_metadata()?.is_dir() {
            walk(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

// ---- CMake, from source ------------------------------------------------------------------------------------------------

fn add_subdirectory(backend: &'static str, shared: bool, track: &'static str, generator: &'static str) -> Result<()> {
    let kind = if shared { "shared" } else { "static" };
    let mut project = Project::new("add_subdirectory", &format!("add-subdirectory-{backend}-{kind}"), generator)?;
    project
        .of_source()
        .define("ALLOKIT_BACKEND", backend)
        .define("BUILD_SHARED_LIBS", if shared { "ON" } else { "OFF" });
    if !track.is_empty() {
        project.define("ALLOKIT_TRACK", track);
    }
    project.expect(backend, track);
    project.check()?;
    linked_as(&project.folder.join("app"), backend, shared)?;
    // Nothing has changed: nothing is compiled or linked. (Asked twice, since someone may have saved a source meanwhile.)
    let works = |text: &str| text.contains("Linking") || text.contains("Building C");
    if works(&project.build()?) {
        let again = project.build()?;
        ensure!(!works(&again), "a build after a build does work:\n{again}");
    }
    if track == "OFF" {
        let mut app = Command::new(project.folder.join("app"));
        let done = tools::attempt(app.env("ALLOKIT_TRACK", "sites").args([backend, "off"]))?;
        let text = "built without tracking (ALLOKIT_TRACK=OFF)";
        ensure!(done.success && done.stderr.contains(text), "ALLOKIT_TRACK=OFF left tracking in:\n{}", done.all());
    }
    Ok(())
}

/// From an archive that holds what git tracks, and nothing else.
fn fetchcontent() -> Result<()> {
    let mut project = Project::new("fetchcontent", "fetchcontent", "Ninja")?;
    tools::need(&["git"])?;
    let root = build::root();
    // Files that are not committed yet belong to it; ignored ones do not.
    let list = tools::attempt(Command::new("git").arg("-C").arg(&root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    if !list.success {
        return Err(LeftOut::because("this is no git checkout, so what belongs to the sources is not known"));
    }
    let names: Vec<&str> = list.stdout.split('\0').filter(|name| root.join(name).is_file()).collect();
    let archive = project.folder.with_extension("tar");
    let listed = project.folder.with_extension("list");
    fs::write(&listed, names.join("\n"))?;
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(&root).args(["--transform", "s,^,allokit/,", "-cf"]).arg(&archive).arg("-T").arg(&listed);
    tools::output(&mut tar)?;
    project.define("ALLOKIT_ARCHIVE", &archive.to_string_lossy()).define("ALLOKIT_BACKEND", "system");
    // Kept from one run to the next: the crates of the registry need not be built again.
    project.define("ALLOKIT_CARGO_TARGET_DIR", &area().join("fetchcontent-target").to_string_lossy());
    project.expect("system", "");
    project.check()
}

/// `cmake --install` of Allokit's own build puts the chosen backend under DESTDIR and the prefix.
fn cmake_install() -> Result<()> {
    let mut project = Project::new("", "cmake-install", "Ninja")?;
    project.source = build::root();
    project.define("ALLOKIT_BACKEND", "system").define("ALLOKIT_BUILD_EXAMPLES", "OFF");
    let done = project.configure()?;
    ensure!(done.success, "configure: {}\n{}", done.ending, done.all());
    let destdir = project.folder.join("stage");
    let mut install = cmake()?;
    install.arg("--install").arg(&project.folder).args(["--prefix", "/opt/allokit"]).env("DESTDIR", &destdir);
    tools::output(&mut install)?;
    let mut files = Vec::new();
    walk(&destdir.join("opt/allokit/lib"), &mut files)?;
    let mut names: Vec<_> = files.iter().filter_map(|file| file.file_name()?.to_str()).collect();
    names.sort_unstable();
    let full = format!("liballokit_system.{FULL_NAME}");
    let major = format!("liballokit_system.{MAJOR_LINK}");
    let mut wanted = vec!["allokit-system.pc", "liballokit_system.a", "liballokit_system.so", &major, &full];
    wanted.extend([
        "AllokitConfig.cmake",
        "AllokitConfigVersion.cmake",
        "AllokitPrefixHeader.cmake",
        "AllokitTargets.cmake",
    ]);
    wanted.sort_unstable();
    ensure!(names == wanted, "installed: {names:?}, wanted: {wanted:?}");
    Ok(())
}

/// `ALLOKIT_GUARD=ON`: as a folder of the project, and installed by CMake and found.
fn guarded() -> Result<()> {
    let built = area().join("guarded-target");
    let run = |project: &mut Project| -> Result<()> {
        let done = project.configure()?;
        ensure!(done.success, "configure: {}\n{}", done.ending, done.all());
        project.build()?;
        let done = tools::attempt(&mut Command::new(project.folder.join("app")))?;
        ensure!(done.success, "the guarded program ended with {}\n{}", done.ending, done.all());
        Ok(())
    };
    let mut project = Project::new("guarded", "guarded-source", "Ninja")?;
    project.of_source().define("ALLOKIT_GUARD", "ON").define("ALLOKIT_CARGO_TARGET_DIR", &built.to_string_lossy());
    run(&mut project)?;

    let mut project = Project::new("", "guarded-install", "Ninja")?;
    project.source = build::root();
    project.define("ALLOKIT_GUARD", "ON").define("ALLOKIT_BUILD_EXAMPLES", "OFF");
    project.define("ALLOKIT_CARGO_TARGET_DIR", &built.to_string_lossy());
    let done = project.configure()?;
    ensure!(done.success, "configure: {}\n{}", done.ending, done.all());
    project.build()?;
    let prefix = project.folder.join("prefix");
    tools::output(cmake()?.arg("--install").arg(&project.folder).arg("--prefix").arg(&prefix))?;

    let mut project = Project::new("guarded", "guarded-installed", "Ninja")?;
    project.define("CMAKE_PREFIX_PATH", &prefix.to_string_lossy());
    run(&mut project)
}

fn cross_aarch64() -> Result<()> {
    let target = "aarch64-unknown-linux-gnu";
    tools::need(&["aarch64-cc", "aarch64-c++", "qemu-aarch64"])
        .map_err(|error| LeftOut::because(format!("{error:#}").replace('\n', "; ")))?;
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let libraries = tools::output(Command::new(rustc).args(["--print", "target-libdir", "--target", target]))?;
    if !Path::new(libraries.trim()).is_dir() {
        return Err(LeftOut::because(format!(
            "Rust's library is missing; install it with: rustup target add {target}"
        )));
    }
    let mut project = Project::new("add_subdirectory", "cross-aarch64", "Ninja")?;
    project.of_source().define("CMAKE_SYSTEM_NAME", "Linux").define("CMAKE_SYSTEM_PROCESSOR", "aarch64");
    project.define("CMAKE_C_COMPILER", "aarch64-linux-gnu-gcc").define("CMAKE_CXX_COMPILER", "aarch64-linux-gnu-g++");
    let emulator = format!("{};-L;/usr/aarch64-linux-gnu", tools::find("qemu-aarch64")?.display());
    project.define("CMAKE_CROSSCOMPILING_EMULATOR", &emulator).expect("native", "");
    project.check()
}

// ---- the prefix header -------------------------------------------------------------------------------------------------

fn prefix_header() -> Result<()> {
    let mut project = Project::new("prefix_header", "prefix-header-installed", "Ninja")?;
    project.installed()?;
    project.check()?;
    let mut project = Project::new("prefix_header", "prefix-header-source", "Unix Makefiles")?;
    project.of_source().define("ALLOKIT_BACKEND", "system");
    project.check()
}

/// Every public function has its name, and bad arguments their line.
fn prefix_header_names() -> Result<()> {
    let folder = folder("prefix-header-names")?;
    let call = |arguments: &str| -> Result<tools::Done> {
        let script = folder.join("script.cmake");
        let module = build::root().join("cmake/AllokitPrefixHeader.cmake");
        fs::write(
            &script,
            format!("include({:?})\nallokit_prefix_header({arguments})\n", module.display().to_string()),
        )?;
        tools::attempt(cmake()?.arg("--warn-uninitialized").arg("-P").arg(&script).current_dir(&folder))
    };
    let done = call("PREFIX Vex_2 OUTPUT own.h")?;
    ensure!(done.success && !done.stderr.contains("Warning"), "{}", done.all());
    let text = fs::read_to_string(folder.join("own.h"))?;
    let defined = |line: &str| {
        let (own, ours) = line.strip_prefix("#define vex_2_")?.split_once(' ')?;
        (ours == format!("ak_{own}")).then(|| ours.to_string())
    };
    let mut functions = build::exports()?;
    // Written in the header, since it takes any arguments.
    functions.insert("ak_arena_sprintf".to_string());
    same(&text.lines().filter_map(defined).collect(), &functions).context("functions of the prefix header")?;
    for line in
        ["typedef ak_stats_t vex_2_stats_t;", "#define VEX_2_NEW AK_NEW", "#define VEX_2_TRACK_SITES AK_TRACK_SITES"]
    {
        ensure!(text.lines().any(|found| found == line), "{line} is missing:\n{text}");
    }
    for (arguments, line) in [
        ("PREFIX 2vex OUTPUT own.h", "Allokit: PREFIX 2vex cannot begin a name in C; valid:"),
        ("PREFIX ak OUTPUT own.h", "Allokit: PREFIX ak is Allokit's own; choose another one"),
        ("PREFIX vex", "Allokit: usage: allokit_prefix_header(PREFIX <name> OUTPUT <file>)"),
        ("PREFIX vex OUTPUT own.h MORE", "Allokit: usage: allokit_prefix_header(PREFIX <name> OUTPUT <file>)"),
    ] {
        let done = call(arguments)?;
        ensure!(!done.success && one_line(&done.stderr, line), "{arguments}: {line:?} is not said:\n{}", done.stderr);
    }
    Ok(())
}

// ---- bad input ---------------------------------------------------------------------------------------------------------

fn bad_options() -> Result<()> {
    let lines = [
        (
            "ALLOKIT_BACKEND",
            "tcmalloc",
            "ALLOKIT_BACKEND=tcmalloc is not known; valid: native, mimalloc, jemalloc, system",
        ),
        ("ALLOKIT_TRACK", "sites", "ALLOKIT_TRACK=sites is not known; valid: ON, OFF, or not set"),
        (
            "ALLOKIT_GUARD",
            "ON",
            "ALLOKIT_GUARD=ON needs tracking, and ALLOKIT_TRACK is OFF; valid: ALLOKIT_TRACK=ON, or not set",
        ),
    ];
    for (number, (option, value, line)) in lines.into_iter().enumerate() {
        let mut source = Project::new("add_subdirectory", &format!("bad-options-source-{number}"), "Ninja")?;
        source.of_source().define(option, value);
        if option == "ALLOKIT_GUARD" {
            source.define("ALLOKIT_TRACK", "OFF");
        }
        source.refused(line)?;
        let mut installed = Project::new("find_package", &format!("bad-options-installed-{number}"), "Ninja")?;
        installed.installed()?.define(option, value);
        if option == "ALLOKIT_GUARD" {
            installed.define("ALLOKIT_TRACK", "OFF");
        }
        installed.refused(line)?;
    }
    Ok(())
}

fn no_rust() -> Result<()> {
    let mut project = Project::new("add_subdirectory", "no-rust", "Ninja")?;
    project.of_source().define("ALLOKIT_BACKEND", "native");
    let folder = folder("no-rust-home")?;
    // No PATH to find cargo in; CMake is told where the rest is.
    for (variable, tool) in [("CMAKE_C_COMPILER", "cc"), ("CMAKE_CXX_COMPILER", "c++"), ("CMAKE_MAKE_PROGRAM", "ninja")]
    {
        project.define(variable, &tools::find(tool)?.to_string_lossy());
    }
    project.define("CMAKE_FIND_USE_SYSTEM_ENVIRONMENT_PATH", "OFF").define("CMAKE_FIND_USE_CMAKE_SYSTEM_PATH", "OFF");
    project.variables.push(("HOME".into(), folder.display().to_string()));
    project.variables.push(("CARGO_HOME".into(), folder.display().to_string()));
    project.refused("cargo was not found; install Rust from https://rustup.rs")?;
    // One that does not run.
    let mut project = Project::new("add_subdirectory", "no-rust-broken", "Ninja")?;
    let broken = broken_cargo()?;
    project.of_source().define("ALLOKIT_CARGO", &broken.to_string_lossy());
    project.refused(&format!("{} does not run", broken.display()))
}

/// The commands of xtask themselves.
fn bad_commands() -> Result<()> {
    let folder = folder("bad-commands")?;
    let file = folder.join("file");
    fs::write(&file, "")?;
    let under_file = file.join("below");
    let (file, below) = (file.to_string_lossy(), under_file.to_string_lossy());
    let valid = "is not known; valid: native, mimalloc, jemalloc, system";
    let cases: [(&[&str], String); 8] = [
        (&["lib", "--backend", "tcmalloc"], format!("error: --backend tcmalloc {valid}")),
        (
            &["lib", "--backend", "native", "--track", "sites"],
            "error: --track sites is not known; valid: on, off".into(),
        ),
        (&["lib", "--backend", "native", "--target", "pdp11"], "error: --target pdp11 is not known to Rust".into()),
        (&["lib", "--backend", "system", "--out", &file], format!("error: cannot make the folder {file}")),
        (&["install", "--prefix", &file], format!("error: cannot install to {file}: {file} is not a folder")),
        (&["install", "--prefix", &below], format!("error: cannot install to {below}: {file} is not a folder")),
        (
            &["install", "--prefix", "/proc/allokit"],
            "error: cannot install to /proc/allokit: /proc cannot be written".into(),
        ),
        (&["install", "--prefix", "new", "--backend", "tcmalloc"], format!("error: --backend tcmalloc {valid}")),
    ];
    for (arguments, line) in cases {
        let this = std::env::current_exe().context("cannot find this program")?;
        // Linux names it so when it was built anew meanwhile; the new one is in its place.
        let this = this.to_string_lossy().trim_end_matches(" (deleted)").to_string();
        let done = tools::attempt(Command::new(this).args(arguments).current_dir(&folder))?;
        let text = done.all();
        ensure!(!done.success, "{arguments:?} is accepted");
        ensure!(text.starts_with(&line) && text.trim_end().lines().count() == 1, "{arguments:?} says:\n{text}");
    }
    ensure!(!folder.join("new").exists() && fs::read(&*file)?.is_empty(), "something was left behind");
    Ok(())
}

/// Whether a text has a line that begins so, apart from blanks before it: CMake adds lines of its own.
fn one_line(text: &str, beginning: &str) -> bool {
    text.lines().any(|line| line.trim_start().starts_with(beginning))
}

// ---- helpers -----------------------------------------------------------------------------------------------------------

/// A CMake project of tests/consumers, in a build folder of its own.
struct Project {
    source: PathBuf,
    folder: PathBuf,
    generator: &'static str,
    definitions: Vec<(String, String)>,
    variables: Vec<(String, String)>,
}

impl Project {
    fn new(source: &str, name: &str, generator: &'static str) -> Result<Project> {
        tools::need(&["cmake", "cc", "c++", if generator == "Ninja" { "ninja" } else { "make" }])?;
        let (definitions, variables) = Default::default();
        Ok(Project { source: consumers(source), folder: folder(name)?, generator, definitions, variables })
    }

    fn define(&mut self, name: &str, value: &str) -> &mut Project {
        self.definitions.push((name.to_string(), value.to_string()));
        self
    }

    /// Allokit by add_subdirectory.
    fn of_source(&mut self) -> &mut Project {
        self.define("ALLOKIT_DIR", &build::root().to_string_lossy())
    }

    /// Allokit from the installed package, where no cargo is to be had.
    fn installed(&mut self) -> Result<&mut Project> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let first = broken_cargo()?.parent().context("a file without a folder")?.to_path_buf();
        let path = std::env::join_paths(std::iter::once(first).chain(std::env::split_paths(&path)))?;
        self.variables.push(("PATH".into(), path.to_string_lossy().into_owned()));
        Ok(self.define("CMAKE_PREFIX_PATH", &prefix()?.to_string_lossy()))
    }

    /// What the programs are to find: the backend, and whether ALLOKIT_TRACK=`track` defines AK_TRACK for them.
    fn expect(&mut self, backend: &str, track: &str) -> &mut Project {
        self.define("ALLOKIT_TRACK", track).define("EXPECT_BACKEND", backend);
        self.define("EXPECT_TRACK", if track == "ON" { "on" } else { "off" })
    }

    fn configure(&self) -> Result<tools::Done> {
        let mut cmake = cmake()?;
        cmake.arg("-S").arg(&self.source).arg("-B").arg(&self.folder).args(["-G", self.generator]);
        cmake.args(["--warn-uninitialized", "-DCMAKE_BUILD_TYPE=Release"]);
        cmake.args(self.definitions.iter().map(|(name, value)| format!("-D{name}={value}")));
        tools::attempt(cmake.envs(self.variables.iter().cloned()))
    }

    fn build(&self) -> Result<String> {
        tools::output(cmake()?.arg("--build").arg(&self.folder).envs(self.variables.iter().cloned()))
    }

    /// Configures without a warning, builds, and runs the tests.
    fn check(&self) -> Result<()> {
        let done = self.configure()?;
        ensure!(done.success, "configure: {}\n{}", done.ending, done.all());
        ensure!(!done.stderr.contains("Warning"), "configure warns:\n{}", done.stderr);
        self.build()?;
        let ctest = tools::find("cmake")?.with_file_name("ctest");
        let mut ctest = Command::new(if ctest.is_file() { ctest } else { "ctest".into() });
        let text = tools::output(ctest.arg("--output-on-failure").current_dir(&self.folder))?;
        ensure!(!text.contains("No tests were found"), "no test was run");
        Ok(())
    }

    /// The configuration fails with this line.
    fn refused(&self, line: &str) -> Result<()> {
        let done = self.configure()?;
        ensure!(!done.success, "it is accepted: {:?}", self.definitions);
        let said = one_line(&done.stderr, &format!("Allokit: {line}")) || one_line(&done.stderr, line);
        ensure!(said, "{line:?} is not said:\n{}", done.stderr);
        ensure!(!done.stderr.contains("Warning"), "configure warns:\n{}", done.stderr);
        Ok(())
    }
}

fn cmake() -> Result<Command> {
    let mut cmake = Command::new(tools::find("cmake")?);
    // Settings of the caller's are not part of what is tested.
    for variable in ["CMAKE_GENERATOR", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CMAKE_PREFIX_PATH", "ALLOKIT_TRACK"] {
        cmake.env_remove(variable);
    }
    Ok(cmake)
}

/// The C compiler with the header of this tree, warnings as errors.
fn cc() -> Result<Command> {
    tools::need(&["cc"])?;
    let mut cc = Command::new(tools::find("cc")?);
    cc.args(["-O1", "-Wall", "-Wextra", "-Werror"]).arg("-I").arg(build::root().join("include"));
    Ok(cc)
}

/// Where the cases keep their files.
fn area() -> PathBuf {
    build::target_dir().join("allokit/consumers")
}

/// An empty folder for a case.
fn folder(name: &str) -> Result<PathBuf> {
    let folder = area().join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn consumers(path: &str) -> PathBuf {
    build::root().join("tests/consumers").join(path)
}

/// The libraries as they are installed.
fn built(backend: &str) -> Result<Built> {
    build::build(backend, true, None)
}

fn parent(file: &Path) -> Result<&Path> {
    file.parent().with_context(|| format!("{} is in no folder", file.display()))
}

fn rpath(library: &Path) -> Result<String> {
    Ok(format!("-Wl,-rpath,{}", parent(library)?.display()))
}

/// Where the package of the cases is installed, before it is moved.
fn installed_first() -> PathBuf {
    area().join("installed-first")
}

/// An installed package of all backends, made once in a run, and moved since.
fn prefix() -> Result<PathBuf> {
    static PREFIX: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let make = || -> Result<PathBuf> {
        let first = installed_first();
        let moved = area().join("moved");
        for folder in [&first, &moved] {
            let _ = fs::remove_dir_all(folder);
        }
        let built = build::BACKENDS
            .into_iter()
            .map(|backend| Ok(install::Libraries { backend, built: built(backend)?, preload: Vec::new() }));
        install::install(&first, &built.collect::<Result<Vec<_>>>()?, None)?;
        fs::rename(&first, &moved)?;
        Ok(moved)
    };
    PREFIX.get_or_init(|| make().map_err(|error| format!("{error:#}"))).clone().map_err(|error| anyhow!(error))
}

/// A program called cargo that only fails.
fn broken_cargo() -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    static CARGO: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let make = || -> Result<PathBuf> {
        let cargo = folder("no-cargo")?.join("cargo");
        fs::write(&cargo, "#!/bin/sh\necho 'this cargo only fails' >&2\nexit 1\n")?;
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755))?;
        Ok(cargo)
    };
    CARGO.get_or_init(|| make().map_err(|error| format!("{error:#}"))).clone().map_err(|error| anyhow!(error))
}
