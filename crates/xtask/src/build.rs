//! `cargo xtask lib`: one backend as a C library, static and shared, and as the library that stands in for malloc.
//!
//! Owns the way from cargo's output to the files that are linked and installed. cargo's shared library gets its versioned
//! names. cargo's static library holds the whole of Rust's core and every symbol of mimalloc and jemalloc for all to see;
//! it is *prelinked*: what the functions of c-api/exports.txt need is linked into one object (`ld -r --gc-sections`), then
//! every other symbol becomes local to it (`objcopy --keep-global-symbols`). So it is small, and an application's own
//! mimalloc or another Rust library in the same program never meets ours.

use crate::tools;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// In the order in which the libraries are built and listed.
pub const BACKENDS: [&str; 4] = ["native", "mimalloc", "jemalloc", "system"];

/// The one version, from the workspace's Cargo.toml.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The first number of [`VERSION`], which the soname ends with.
pub const MAJOR: &str = env!("CARGO_PKG_VERSION_MAJOR");

/// What include/allokit/inline.h refers to: in the static libraries only, and hidden in what is linked with them.
pub const INLINE_SYMBOL: &str = "ak_inline_2_needs_a_static_library_of_this_header";

#[derive(clap::Args)]
pub struct Args {
    /// native, mimalloc, jemalloc or system
    #[arg(long)]
    backend: String,
    /// Only the library that stands in for malloc
    #[arg(long, conflicts_with = "no_preload")]
    preload: bool,
    /// Without the library that stands in for malloc
    #[arg(long)]
    no_preload: bool,
    /// on: the library holds tracking, off until a program asks for it; off: it is left out
    #[arg(long, default_value = "on")]
    track: String,
    /// on: the library guards its heap; off: that is left out
    #[arg(long, default_value = "off")]
    guard: String,
    /// Where the libraries go [default: target/allokit/<backend>, <backend>-notrack or <backend>-guard]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Build for another machine: a Rust target such as aarch64-unknown-linux-gnu
    #[arg(long)]
    target: Option<String>,
    /// Without optimisation, with all assertions
    #[arg(long)]
    debug: bool,
    /// Do not print the paths of the libraries
    #[arg(long)]
    quiet: bool,
}

/// What to build; `Options::new("native")` is the library that is installed.
#[derive(Clone, Debug)]
pub struct Options {
    pub backend: String,
    pub track: bool,
    pub guard: bool,
    /// A guarded library of which a test can switch checks off.
    pub mutants: bool,
    /// The Rust target, when it is another machine than this one.
    pub target: Option<String>,
    pub debug: bool,
    /// The default is [`default_out`].
    pub out: Option<PathBuf>,
}

impl Options {
    pub fn new(backend: &str) -> Options {
        Options {
            backend: backend.to_string(),
            track: true,
            guard: false,
            mutants: false,
            target: None,
            debug: false,
            out: None,
        }
    }
}

/// The files of one library; all paths are absolute.
#[derive(Clone, Debug)]
pub struct Built {
    /// `liballokit_<backend>.a`
    pub static_lib: PathBuf,
    /// `liballokit_<backend>.so`, a link to `.so.<major>`, a link to `.so.<version>`
    pub shared_lib: PathBuf,
}

/// The backend that has no preload library, and why.
const NO_PRELOAD: (&str, &str) = ("system", "its malloc would call itself");

pub fn run(args: &Args) -> Result<()> {
    let options = Options {
        backend: args.backend.clone(),
        track: on_or_off("--track", &args.track)?,
        guard: on_or_off("--guard", &args.guard)?,
        mutants: false,
        target: args.target.clone(),
        debug: args.debug,
        out: args.out.as_ref().map(std::path::absolute).transpose()?,
    };
    let mut made = Vec::new();
    if !args.preload {
        let built = build_with(&options)?;
        made.extend([built.static_lib, built.shared_lib]);
    }
    if args.preload || !args.no_preload && has_preload(&options.backend) {
        made.push(build_preload(&options)?);
    }
    if !args.quiet {
        made.iter().for_each(|library| println!("{}", library.display()));
    }
    Ok(())
}

/// Whether a backend can stand in for malloc.
pub fn has_preload(backend: &str) -> bool {
    backend != NO_PRELOAD.0
}

/// Builds a backend's libraries into `out` (by default [`default_out`]); what is up to date is left alone.
pub fn build(backend: &str, track: bool, out: Option<&Path>) -> Result<Built> {
    build_with(&Options { track, out: out.map(Path::to_path_buf), ..Options::new(backend) })
}

/// The same with all that can be chosen.
pub fn build_with(options: &Options) -> Result<Built> {
    let backend = backend(&options.backend)?;
    let place = Place::new(backend, options)?;
    let out = &place.out;
    let static_lib = out.join(format!("liballokit_{backend}.a"));
    let shared_lib = out.join(format!("liballokit_{backend}.so"));
    let _turn = place.turn()?;
    if !static_lib.exists() {
        let patience = if backend == "jemalloc" { "; its own build takes a minute or two the first time" } else { "" };
        eprintln!("building liballokit_{backend}{patience}");
    }
    let made = cargo_build("allokit-c", backend, options, &place)?;
    let (archive, dylib) = (made.join("liballokit.a"), made.join("liballokit.so"));
    ensure!(dylib.is_file(), "cargo left no {}: has this target shared libraries?", dylib.display());

    let work = tempfile::tempdir_in(out).with_context(|| format!("cannot write to {}", out.display()))?;
    let made = prelink(backend, &archive, &place.kit, work.path())?;
    replace(&made, &static_lib)?;
    let versioned = out.join(format!("liballokit_{backend}.so.{VERSION}"));
    replace(&stripped(&dylib, &place.kit, work.path())?, &versioned)?;
    link(&versioned, &out.join(format!("liballokit_{backend}.so.{MAJOR}")))?;
    link(&out.join(format!("liballokit_{backend}.so.{MAJOR}")), &shared_lib)?;
    Ok(Built { static_lib, shared_lib })
}

/// Builds `liballokit_preload_<backend>.so` and returns its path; what is up to date is left alone.
pub fn build_preload(options: &Options) -> Result<PathBuf> {
    let backend = backend(&options.backend)?;
    ensure!(has_preload(backend), "the {backend} backend has no preload library: {}", NO_PRELOAD.1);
    let place = Place::new(backend, options)?;
    let name = format!("liballokit_preload_{backend}{}", if options.guard { "_guard" } else { "" });
    let library = place.out.join(format!("{name}.so"));
    let _turn = place.turn()?;
    if !library.exists() {
        eprintln!("building {name}");
    }
    let dylib = cargo_build("allokit-preload", backend, options, &place)?.join("liballokit_preload.so");
    ensure!(dylib.is_file(), "cargo left no {}: has this target shared libraries?", dylib.display());
    let (offered, exports) = (offered(&dylib)?, preload_exports(options.guard)?);
    let differ: Vec<_> = exports.symmetric_difference(&offered).map(String::as_str).collect();
    ensure!(differ.is_empty(), "preload/exports.txt and the library do not agree on {}", differ.join(", "));
    let work = tempfile::tempdir_in(&place.out).with_context(|| format!("cannot write to {}", place.out.display()))?;
    replace(&stripped(&dylib, &place.kit, work.path())?, &library)?;
    Ok(library)
}

/// A copy of a shared library without debug information: that of the C parts makes jemalloc's 28 MB. Symbol names stay,
/// for profilers.
fn stripped(dylib: &Path, kit: &Kit, work: &Path) -> Result<PathBuf> {
    let made = work.join("shared");
    tools::output(Command::new(&kit.objcopy).arg("--strip-debug").arg(dylib).arg(&made))?;
    Ok(made)
}

/// Builds the command `allokit`, for this machine, and returns its path.
pub fn build_command() -> Result<PathBuf> {
    let (mut cargo, folder) = command_cargo("build")?;
    let command = folder.join("tool/allokit");
    if !command.exists() {
        eprintln!("building allokit, the command; a minute or two the first time");
    }
    tools::run(&mut cargo)?;
    ensure!(command.is_file(), "cargo left no {}", command.display());
    Ok(command)
}

/// Runs the command's own tests, from the same build of what it depends on.
pub fn test_command() -> Result<()> {
    tools::output(&mut command_cargo("test")?.0).map(drop)
}

/// A cargo that builds the command, and the folder it builds in.
fn command_cargo(verb: &str) -> Result<(Command, PathBuf)> {
    let folder = target_dir().join("allokit/cargo/command");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([verb, "--quiet", "--package", "allokit-cli", "--profile", "tool"]);
    cargo.arg("--manifest-path").arg(root().join("Cargo.toml")).arg("--target-dir").arg(&folder);
    Ok((cargo, folder))
}

/// Where a backend is built: with what, in which folder of cargo's, to which folder.
struct Place {
    kit: Kit,
    out: PathBuf,
    cargo_folder: PathBuf,
}

impl Place {
    fn new(backend: &str, options: &Options) -> Result<Place> {
        ensure!(
            cfg!(target_os = "linux"),
            "cargo xtask lib makes ELF libraries and runs on Linux only, in this version"
        );
        let out = options.out.clone().unwrap_or_else(|| default_out(options));
        let kit = Kit::new(options)?;
        fs::create_dir_all(&out).with_context(|| format!("cannot make the folder {}", out.display()))?;
        let cargo_folder = target_dir().join("allokit/cargo").join(backend);
        fs::create_dir_all(&cargo_folder)
            .with_context(|| format!("cannot make the folder {}", cargo_folder.display()))?;
        Ok(Place { kit, out, cargo_folder })
    }

    /// Both variants of a backend end in the same files of cargo's, and several of us may run: one at a time. Cargo's
    /// files are the caller's until it drops this.
    fn turn(&self) -> Result<File> {
        let path = self.cargo_folder.join(".xtask-lock");
        let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(lock)
    }
}

/// The backend of this name, or an error in one line.
pub fn backend(name: &str) -> Result<&'static str> {
    let found = BACKENDS.into_iter().find(|backend| *backend == name);
    found.with_context(|| format!("--backend {name} is not known; valid: {}", BACKENDS.join(", ")))
}

/// The value of an option that is `on` or `off`.
pub fn on_or_off(option: &str, value: &str) -> Result<bool> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => bail!("{option} {value} is not known; valid: on, off"),
    }
}

/// The root of the repository.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_path_buf()
}

/// cargo's target folder: CARGO_TARGET_DIR, or `target`.
pub fn target_dir() -> PathBuf {
    // A relative path means what it means to the cargo that started us: relative to where the command was given.
    let named = std::env::var_os("CARGO_TARGET_DIR").filter(|named| !named.is_empty());
    named.and_then(|named| std::path::absolute(named).ok()).unwrap_or_else(|| root().join("target"))
}

/// `target/allokit/[<target>/]<backend>[-notrack|-guard][-mutants][-debug]`
pub fn default_out(options: &Options) -> PathBuf {
    let mut name = options.backend.clone();
    if options.guard {
        name.push_str("-guard");
    } else if !options.track {
        name.push_str("-notrack");
    }
    if options.mutants {
        name.push_str("-mutants");
    }
    if options.debug {
        name.push_str("-debug");
    }
    let folder = target_dir().join("allokit");
    options.target.as_ref().map_or_else(|| folder.join(&name), |target| folder.join(target).join(&name))
}

/// The public symbols, from c-api/exports.txt.
pub fn exports() -> Result<BTreeSet<String>> {
    listed(&exports_file())
}

fn exports_file() -> PathBuf {
    root().join("c-api/exports.txt")
}

/// What the preload libraries put before libc, from preload/exports.txt; the guarded ones, from exports_guard.txt too.
pub fn preload_exports(guard: bool) -> Result<BTreeSet<String>> {
    let mut exports = listed(&root().join("preload/exports.txt"))?;
    if guard {
        exports.extend(listed(&root().join("preload/exports_guard.txt"))?);
    }
    Ok(exports)
}

fn listed(path: &Path) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or("").trim());
    Ok(lines.filter(|line| !line.is_empty()).map(str::to_string).collect())
}

/// The symbols that a library offers to others: of an archive its global ones, of a shared library its dynamic ones.
pub fn offered(library: &Path) -> Result<BTreeSet<String>> {
    let mut nm = Command::new(tools::find("nm")?);
    nm.args(["--defined-only", "--extern-only", "--format=posix"]);
    if library.extension().is_none_or(|extension| extension != "a" && extension != "o") {
        nm.arg("--dynamic");
    }
    let text = tools::output(nm.arg(library))?;
    // `name type value size`; the lines that name an archive's members have one word.
    let symbols = text.lines().filter_map(|line| line.split_once(' ')).map(|(name, _)| name.to_string());
    Ok(symbols.collect())
}

/// The programs for the machine that is built for.
struct Kit {
    ld: PathBuf,
    objcopy: PathBuf,
    ar: PathBuf,
    /// Of a cross compiler, what cargo is to be told.
    variables: Vec<(String, String)>,
}

impl Kit {
    fn new(options: &Options) -> Result<Kit> {
        // Rust's linker is cc too.
        tools::need(&["cc", "ld", "objcopy", "ar", "nm", "readelf"])?;
        if options.backend == "jemalloc" {
            tools::need(&["make"])?;
        }
        let here = || {
            Ok(Kit {
                ld: tools::find("ld")?,
                objcopy: tools::find("objcopy")?,
                ar: tools::find("ar")?,
                variables: vec![],
            })
        };
        let Some(target) = &options.target else { return here() };
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let asked = tools::attempt(Command::new(rustc).args(["--print", "target-libdir", "--target", target]))?;
        ensure!(asked.success, "--target {target} is not known to Rust; `rustc --print target-list` lists what is");
        ensure!(
            Path::new(asked.stdout.trim()).is_dir(),
            "Rust's library for {target} is missing; install it with: rustup target add {target}"
        );
        let architecture = target.split('-').next().unwrap_or(target);
        if architecture == std::env::consts::ARCH {
            return here();
        }
        ensure!(
            target.ends_with("-linux-gnu"),
            "--target {target}: cross compilation is written for *-linux-gnu targets in this version"
        );
        // aarch64-unknown-linux-gnu's tools are called aarch64-linux-gnu-ld and so on.
        let prefix = format!("{architecture}-linux-gnu-");
        if architecture == "aarch64" {
            tools::need(&["aarch64-cc"])?;
        }
        let tool = |name: &str| {
            let path = tools::in_path(&format!("{prefix}{name}"));
            path.with_context(|| format!("{prefix}{name} is missing; install the cross compiler for {target}"))
        };
        let upper = target.to_uppercase().replace('-', "_");
        let lower = target.replace('-', "_");
        let gcc = tool("gcc")?.display().to_string();
        let named = [(format!("CARGO_TARGET_{upper}_LINKER"), gcc.clone()), (format!("CC_{lower}"), gcc)];
        let variables = named.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
        Ok(Kit { ld: tool("ld")?, objcopy: tool("objcopy")?, ar: tool("ar")?, variables })
    }
}

/// Has cargo build a package's libraries; gives the folder that they lie in.
fn cargo_build(package: &str, backend: &str, options: &Options, place: &Place) -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", package, "--lib", "--no-default-features", "--features"]);
    let layer = match options {
        Options { mutants: true, .. } => ",mutants",
        Options { guard: true, .. } => ",guard",
        Options { track: true, .. } => ",track",
        _ => "",
    };
    cargo.arg(format!("{backend}{layer}"));
    cargo.arg("--manifest-path").arg(root().join("Cargo.toml")).arg("--target-dir").arg(&place.cargo_folder);
    if !options.debug {
        cargo.arg("--release");
    }
    let mut made = place.cargo_folder.clone();
    if let Some(target) = &options.target {
        cargo.arg("--target").arg(target);
        made.push(target);
    }
    cargo.envs(place.kit.variables.iter().cloned());
    tools::run(&mut cargo)?;
    made.push(if options.debug { "debug" } else { "release" });
    Ok(made)
}

/// Makes the static library out of cargo's.
fn prelink(backend: &str, archive: &Path, kit: &Kit, work: &Path) -> Result<PathBuf> {
    let mut exports = exports()?;
    exports.insert(INLINE_SYMBOL.to_string());
    let linked = work.join("linked.o");
    // The exports are the roots; constructors and destructors (.init_array, .fini_array) of the objects that are linked
    // in stay as well, ld sees to that.
    let mut ld = Command::new(&kit.ld);
    // Each constant and each variable has a section of its own; their names and headers alone would be 80 KB.
    let script = work.join("sections.ld");
    fs::write(
        &script,
        "SECTIONS {\n\
         .rodata : { *(.rodata .rodata.*) }\n\
         .data.rel.ro : { *(.data.rel.ro .data.rel.ro.*) }\n\
         .data : { *(.data .data.*) }\n\
         .bss : { *(.bss .bss.*) }\n\
         }\n",
    )?;
    // Without groups: one would keep that of another Rust library out, whose symbols it has and shows to nobody.
    ld.args(["-r", "--gc-sections", "--force-group-allocation", "-T"])
        .arg(&script)
        .args(exports.iter().map(|symbol| format!("--undefined={symbol}")));
    tools::output(ld.arg(archive).arg("-o").arg(&linked))?;
    // .llvm_addrsig counts symbols by number, which this step changes; .llvmbc is the compiler's own form of the code.
    let object = work.join(format!("allokit_{backend}.o"));
    let mut objcopy = Command::new(&kit.objcopy);
    objcopy.args(["--strip-debug", "--remove-section=.llvm*", "--remove-section=.comment"]);
    objcopy.args(exports.iter().map(|symbol| format!("--keep-global-symbol={symbol}")));
    objcopy.arg(format!("@{}", short_names(&linked, work)?.display()));
    tools::output(objcopy.arg(&linked).arg(&object))?;

    let offered = offered(&object)?;
    let lacking: Vec<_> = exports.difference(&offered).map(String::as_str).collect();
    ensure!(
        lacking.is_empty(),
        "c-api/exports.txt lists what the library does not define: {} ({} in all)",
        lacking.iter().take(5).copied().collect::<Vec<_>>().join(", "),
        lacking.len()
    );
    let library = work.join("static");
    tools::output(Command::new(&kit.ar).arg("crsD").arg(&library).arg(&object))?;
    Ok(library)
}

/// A file of options for objcopy, which take the functions' names out of those of their sections: 80 KB. (The sections stay, so
/// that who links the library can leave out what is not used.)
fn short_names(linked: &Path, work: &Path) -> Result<PathBuf> {
    const KINDS: [&str; 4] = [".text.unlikely.", ".text.hot.", ".text.startup.", ".text."];
    let mut options = String::new();
    // `  [ 7] .text.name  PROGBITS …`
    for line in tools::output(Command::new(tools::find("readelf")?).args(["-S", "-W"]).arg(linked))?.lines() {
        let Some(name) = line.split_once(']').and_then(|(_, rest)| rest.split_whitespace().next()) else { continue };
        if let Some(kind) = KINDS.into_iter().find(|kind| name.starts_with(kind)) {
            options.push_str(&format!("--rename-section {name}={kind}f\n"));
        }
    }
    let file = work.join("names");
    fs::write(&file, options)?;
    Ok(file)
}

/// Moves a file into its place, unless the same is there already: then what was linked with it stays up to date.
fn replace(made: &Path, place: &Path) -> Result<()> {
    if fs::read(place).is_ok_and(|old| fs::read(made).is_ok_and(|new| old == new)) {
        return Ok(());
    }
    fs::rename(made, place).with_context(|| format!("cannot write {}", place.display()))
}

/// Makes `place` a link to `file`, which lies in the same folder.
fn link(file: &Path, place: &Path) -> Result<()> {
    let name = file.file_name().context("a file without a name")?;
    if fs::read_link(place).is_ok_and(|old| old == name) {
        return Ok(());
    }
    let _ = fs::remove_file(place);
    std::os::unix::fs::symlink(name, place).with_context(|| format!("cannot make the link {}", place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_in_one_line() {
        assert_eq!(
            backend("tcmalloc").unwrap_err().to_string(),
            "--backend tcmalloc is not known; valid: native, mimalloc, jemalloc, system"
        );
        assert_eq!(on_or_off("--track", "yes").unwrap_err().to_string(), "--track yes is not known; valid: on, off");
        let refused = build_preload(&Options::new("system")).unwrap_err().to_string();
        assert_eq!(refused, "the system backend has no preload library: its malloc would call itself");
        assert!(on_or_off("--track", "on").unwrap() && !on_or_off("--track", "off").unwrap());
    }

    #[test]
    fn variants_have_folders_of_their_own() {
        let options = Options::new("native");
        assert!(default_out(&options).ends_with("allokit/native"));
        assert!(default_out(&Options { track: false, ..options.clone() }).ends_with("allokit/native-notrack"));
        let guarded = Options { guard: true, ..options.clone() };
        assert!(default_out(&guarded).ends_with("allokit/native-guard"));
        assert!(default_out(&Options { mutants: true, ..guarded }).ends_with("allokit/native-guard-mutants"));
        let far = Options { target: Some("aarch64-unknown-linux-gnu".into()), debug: true, ..options };
        assert!(default_out(&far).ends_with("allokit/aarch64-unknown-linux-gnu/native-debug"));
    }

    #[test]
    fn a_file_that_stays_the_same_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let (made, place) = (folder.path().join("made"), folder.path().join("place"));
        fs::write(&place, "old").unwrap();
        let before = place.metadata().unwrap().modified().unwrap();
        fs::write(&made, "old").unwrap();
        replace(&made, &place).unwrap();
        assert_eq!(place.metadata().unwrap().modified().unwrap(), before);
        fs::write(&made, "new").unwrap();
        replace(&made, &place).unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"new");
    }

    #[test]
    fn exports_are_sorted_and_ours() {
        let exports = exports().unwrap();
        assert!(exports.contains("ak_alloc") && exports.iter().all(|symbol| symbol.starts_with("ak_")));
    }
}
