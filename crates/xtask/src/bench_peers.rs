//! The allocators that `cargo xtask bench` compares: a shared library each, for LD_PRELOAD. Owns how they are built and
//! where their sources are from: this project's own preload libraries, C and C++ sources inside packages of crates.io
//! (tests/bench/peers pins which), and a package of the distribution. Each that cannot be had is reported, with the reason.

use crate::{build, sources, tools};
use allokit_bench::result::Missing;
use allokit_bench::suite::Allocator;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// All names that `--allocators` takes; the first [`DEFAULT`] of them run by default.
pub const NAMES: [&str; 15] = [
    "native",
    "allokit-mimalloc",
    "allokit-jemalloc",
    "glibc",
    "mimalloc2",
    "mimalloc3",
    "jemalloc",
    "tcmalloc",
    "rpmalloc",
    "snmalloc",
    // Asked for by name only.
    "native-track",
    "native-sampled",
    "native-guard",
    "allokit-mimalloc-track",
    "allokit-jemalloc-track",
];
/// How many of them run by default.
pub const DEFAULT: usize = 10;

/// Builds the allocators of these names; what cannot be had is in the second list.
pub fn get(names: &[String], folder: &Path) -> Result<(Vec<Allocator>, Vec<Missing>)> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (mut here, mut missing) = (Vec::new(), Vec::new());
    for name in names {
        match one(name, folder) {
            Ok(allocator) => here.push(allocator),
            Err(error) => {
                let why = short(&error);
                eprintln!("bench: {name} is MISSING: {why}");
                missing.push(Missing { name: name.clone(), why });
            }
        }
    }
    ensure!(!here.is_empty(), "none of the allocators could be had");
    Ok((here, missing))
}

/// An error for a report: a failed command can be long, what counts is its end.
pub fn short(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let mut lines = text.lines();
    let first: String = lines.next().unwrap_or_default().chars().take(160).collect();
    lines.next_back().map_or(first.clone(), |last| format!("{first} … {last}"))
}

fn one(name: &str, folder: &Path) -> Result<Allocator> {
    match name {
        "native" | "native-track" | "native-sampled" => ours("native", "", name),
        "native-guard" => ours("native", "_guard", name),
        "allokit-mimalloc" | "allokit-mimalloc-track" => ours("mimalloc", "", name),
        "allokit-jemalloc" | "allokit-jemalloc-track" => ours("jemalloc", "", name),
        "glibc" => Ok(allocator(name, &libc_version(), "the C library's own", None)),
        "mimalloc2" => mimalloc(name, "v2", folder),
        "mimalloc3" => mimalloc(name, "v3", folder),
        "jemalloc" => jemalloc(folder),
        "tcmalloc" => tcmalloc(),
        "rpmalloc" => rpmalloc(folder),
        "snmalloc" => snmalloc(folder),
        _ => bail!("no allocator is called so; known: {}", NAMES.join(", ")),
    }
}

fn allocator(name: &str, version: &str, origin: &str, library: Option<PathBuf>) -> Allocator {
    Allocator {
        name: name.to_string(),
        version: version.to_string(),
        origin: origin.to_string(),
        library,
        environment: Vec::new(),
    }
}

/// One of this project's libraries.
fn ours(backend: &str, variant: &str, name: &str) -> Result<Allocator> {
    let guard = variant == "_guard";
    let library = build::build_preload(&build::Options { guard, ..build::Options::new(backend) })?;
    let mut made = allocator(name, env!("CARGO_PKG_VERSION"), "this project", Some(library));
    if name.ends_with("-sampled") {
        made.environment.push(("ALLOKIT_GUARD_SAMPLE".into(), "on".into()));
        made.origin = "this project, ALLOKIT_GUARD_SAMPLE=on".into();
    }
    if name.ends_with("-track") {
        made.environment.push(("ALLOKIT_TRACK".into(), "sites".into()));
        made.origin = "this project, ALLOKIT_TRACK=sites".into();
    }
    Ok(made)
}

fn libc_version() -> String {
    // SAFETY: returns a static string.
    unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) }.to_string_lossy().into_owned()
}

/// Where the package's sources lie, and its version.
pub fn package(name: &str) -> Result<(PathBuf, String)> {
    let manifest = build::root().join("tests/bench/peers/Cargo.toml");
    let folder = sources::package_folder(&manifest, name)
        .with_context(|| format!("the sources of {name} are not here and could not be fetched"))?;
    let text = fs::read_to_string(folder.join("Cargo.toml"))?;
    let version = text.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    Ok((folder.clone(), version.context("a package without a version")?.to_string()))
}

/// Makes `library` unless it was made before by the same package and the same recipe.
fn made_once(library: PathBuf, recipe: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let stamp = library.with_extension("recipe");
    if library.is_file() && fs::read_to_string(&stamp).is_ok_and(|old| old == recipe) {
        return Ok(library);
    }
    let name = library.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    eprintln!("bench: building {name}");
    let _ = fs::remove_file(&stamp);
    make(&library)?;
    ensure!(library.is_file(), "building {name} left no {}", library.display());
    fs::write(stamp, recipe)?;
    Ok(library)
}

/// Compiles C files into a shared library.
fn shared(library: &Path, flags: &[&str], include: &Path, source: &Path) -> Result<()> {
    let mut cc = Command::new(tools::find("cc")?);
    cc.args(["-fPIC", "-shared", "-w", "-DNDEBUG", "-fvisibility=hidden", "-ftls-model=initial-exec"]);
    cc.args(flags).arg("-I").arg(include).arg(source).arg("-o").arg(library).args(["-lpthread", "-ldl"]);
    tools::output(&mut cc).map(drop)
}

/// Both versions lie in one package. The flags are those of its CMake release build of the shared library.
fn mimalloc(name: &str, folder: &str, out: &Path) -> Result<Allocator> {
    let (package, crate_version) = package("libmimalloc-sys")?;
    let root = package.join("c_src/mimalloc").join(folder);
    let header = fs::read_to_string(root.join("include/mimalloc.h")).context("no mimalloc.h")?;
    let version = header
        .lines()
        .find_map(|line| line.strip_prefix("#define MI_MALLOC_VERSION")?.split_whitespace().next()?.parse::<u32>().ok())
        .context("mimalloc.h names no version")?;
    // 2.3.2 is 20302; before, two digits fewer.
    let version = match version {
        10000.. => format!("{}.{}.{}", version / 10000, version / 100 % 100, version % 100),
        _ => format!("{}.{}.{}", version / 100, version / 10 % 10, version % 10),
    };
    let flags = ["-O3", "-DMI_SHARED_LIB", "-DMI_SHARED_LIB_EXPORT", "-DMI_MALLOC_OVERRIDE", "-fno-builtin-malloc"];
    let library = made_once(out.join(format!("lib{name}.so")), &format!("{crate_version} {flags:?}"), |library| {
        shared(library, &flags, &root.join("include"), &root.join("src/static.c"))
    })?;
    Ok(allocator(name, &version, &format!("libmimalloc-sys {crate_version}, cc -O3"), Some(library)))
}

fn rpmalloc(out: &Path) -> Result<Allocator> {
    let (package, crate_version) = package("rpmalloc-sys")?;
    let root = package.join("rpmalloc");
    // Its change log begins with the version.
    let log = fs::read_to_string(root.join("CHANGELOG")).unwrap_or_default();
    let version = log.lines().next().unwrap_or("unknown").trim().to_string();
    let flags = ["-O3", "-DENABLE_PRELOAD=1", "-DENABLE_OVERRIDE=1", "-D_GNU_SOURCE", "-fno-builtin-malloc"];
    let library = made_once(out.join("librpmalloc.so"), &format!("{crate_version} {flags:?}"), |library| {
        shared(library, &flags, &root.join("rpmalloc"), &root.join("rpmalloc/rpmalloc.c"))
    })?;
    Ok(allocator("rpmalloc", &version, &format!("rpmalloc-sys {crate_version}, cc -O3"), Some(library)))
}

/// Its own configure and make, with the names of the C library.
fn jemalloc(out: &Path) -> Result<Allocator> {
    let (package, crate_version) = package("tikv-jemalloc-sys")?;
    let upstream = crate_version.split_once('+').map_or("5.0.0-0-g0", |(_, version)| version).to_string();
    let library = made_once(out.join("libjemalloc.so"), &crate_version, |library| {
        tools::need(&["cc", "make"])?;
        let work = out.join("jemalloc-build");
        if work.exists() {
            fs::remove_dir_all(&work)?;
        }
        copy(&package.join("jemalloc"), &work)?;
        // The package keeps the generated script apart.
        fs::copy(package.join("configure/configure"), work.join("configure"))?;
        let mut configure = Command::new("sh");
        configure.arg("configure").arg(format!("--with-version={upstream}"));
        configure.args(["--disable-cxx", "--enable-doc=no", "--enable-static=no", "--disable-libdl"]);
        tools::output(configure.current_dir(&work))?;
        tools::output(Command::new(tools::find("make")?).args(["-j2", "build_lib_shared"]).current_dir(&work))?;
        fs::copy(work.join("lib/libjemalloc.so.2"), library)?;
        fs::remove_dir_all(&work)?;
        Ok(())
    })?;
    let version = upstream.split('-').next().unwrap_or(&upstream);
    let origin = format!("tikv-jemalloc-sys {}, its configure", crate_version.split('+').next().unwrap_or_default());
    Ok(allocator("jemalloc", version, &origin, Some(library)))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in from.read_dir().with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &place)?;
        } else {
            fs::copy(entry.path(), place)?;
        }
    }
    Ok(())
}

/// Its CMake build of the shim that replaces malloc.
fn snmalloc(out: &Path) -> Result<Allocator> {
    let (package, version) = package("snmalloc-sys")?;
    let library = made_once(out.join("libsnmalloc.so"), &version, |library| {
        tools::need(&["cmake", "c++", "make"])?;
        let work = out.join("snmalloc-build");
        let mut configure = Command::new(tools::find("cmake")?);
        configure.args(["-G", "Unix Makefiles", "-DCMAKE_BUILD_TYPE=Release", "-DSNMALLOC_BUILD_TESTING=OFF"]);
        // Its own choice of linker would make the build depend on what is installed.
        configure.arg("-DSNMALLOC_LINK_ICF=OFF").arg("-S").arg(package.join("upstream")).arg("-B").arg(&work);
        tools::output(&mut configure)?;
        let mut make = Command::new(tools::find("cmake")?);
        tools::output(make.arg("--build").arg(&work).args(["--target", "snmallocshim"]))?;
        fs::copy(work.join("libsnmallocshim.so"), library)?;
        fs::remove_dir_all(&work)?;
        Ok(())
    })?;
    Ok(allocator("snmalloc", &version, &format!("snmalloc-sys {version}, its CMake release"), Some(library)))
}

/// The distribution's: no package of crates.io carries its sources.
fn tcmalloc() -> Result<Allocator> {
    tools::need(&["libtcmalloc"])?;
    let library = tools::find("libtcmalloc")?;
    let asked = tools::attempt(Command::new("dpkg-query").args(["-W", "-f", "${Version}", "libtcmalloc-minimal4"]));
    let version = asked.ok().filter(|done| done.success).map_or_else(|| "unknown".to_string(), |done| done.stdout);
    Ok(allocator("tcmalloc", version.trim(), "gperftools, minimal, of the distribution", Some(library)))
}
