//! `cargo xtask install`: what a C project needs, in a prefix: libraries, headers, CMake package, pkg-config files.
//!
//! Owns the layout of the prefix. No installed file names a folder of this machine, so the prefix may be moved. Whether
//! the prefix can be written is found out before anything is built; then everything is put together in a folder inside
//! it and moved into place at the end.

use crate::{build, sources, tools};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

#[derive(clap::Args)]
pub struct Args {
    /// Where to install: DIR/include, DIR/lib, DIR/share/doc/allokit
    #[arg(long)]
    prefix: PathBuf,
    /// native, mimalloc, jemalloc or system; may be given several times [default: all four]
    #[arg(long)]
    backend: Vec<String>,
    /// off: install libraries without tracking
    #[arg(long, default_value = "on")]
    track: String,
    /// on: install libraries that guard their heap (a preload library that does is always installed)
    #[arg(long, default_value = "off")]
    guard: String,
    /// Put the files under this folder, as packagers do: DESTDIR/PREFIX/…
    #[arg(long)]
    destdir: Option<PathBuf>,
    /// Install libraries for another machine: a Rust target such as aarch64-unknown-linux-gnu
    #[arg(long)]
    target: Option<String>,
    /// Leave out the command `allokit`, its manual and its completions
    #[arg(long)]
    no_command: bool,
}

/// Of the packages whose code is inside a library, the licence that must go with it.
const LICENCES: [(&str, &str, &str); 2] = [
    ("mimalloc", "libmimalloc-sys", "c_src/mimalloc/v3/LICENSE"),
    ("jemalloc", "tikv-jemalloc-sys", "jemalloc/COPYING"),
];

pub fn run(args: &Args) -> Result<()> {
    let backends = backends(&args.backend)?;
    let track = build::on_or_off("--track", &args.track)?;
    let guard = build::on_or_off("--guard", &args.guard)?;
    let prefix = std::path::absolute(&args.prefix).context("--prefix")?;
    let place = match &args.destdir {
        Some(destdir) => under(&std::path::absolute(destdir).context("--destdir")?, &prefix),
        None => prefix.clone(),
    };
    check(&place)?;

    let mut built = Vec::new();
    for backend in backends {
        let options = build::Options { track, guard, target: args.target.clone(), ..build::Options::new(backend) };
        let mut preload = Vec::new();
        if build::has_preload(backend) {
            for guard in [false, true] {
                preload.push(build::build_preload(&build::Options { guard, ..options.clone() })?);
            }
        }
        built.push(Libraries { backend, built: build::build_with(&options)?, preload });
    }
    // A command for another machine could not write its own manual here.
    let command = if args.no_command || args.target.is_some() { None } else { Some(build::build_command()?) };
    install(&place, &built, command.as_deref())?;

    let names: Vec<&str> = built.iter().map(|libraries| libraries.backend).collect();
    println!("Allokit {} ({}) is in {}", build::VERSION, names.join(", "), place.display());
    if command.is_some() {
        println!("  the command: {}", prefix.join("bin/allokit").display());
    }
    println!("  CMake:       -DCMAKE_PREFIX_PATH={}", prefix.display());
    println!("  pkg-config:  PKG_CONFIG_PATH={}", prefix.join("lib/pkgconfig").display());
    if let Some(preload) = built.iter().find_map(|libraries| libraries.preload.first()) {
        println!("  any program: LD_PRELOAD={}", prefix.join("lib").join(name(preload)?).display());
    }
    Ok(())
}

/// What is installed of one backend.
pub struct Libraries {
    pub backend: &'static str,
    pub built: build::Built,
    /// `liballokit_preload_<backend>.so`, `liballokit_preload_<backend>_guard.so`
    pub preload: Vec<PathBuf>,
}

/// The backends asked for, each once, in their usual order; all when none is named.
fn backends(asked: &[String]) -> Result<Vec<&'static str>> {
    let asked = asked.iter().map(|name| build::backend(name)).collect::<Result<Vec<_>>>()?;
    Ok(build::BACKENDS.into_iter().filter(|backend| asked.is_empty() || asked.contains(backend)).collect())
}

/// `/tmp/stage` and `/usr/local` make `/tmp/stage/usr/local`.
fn under(destdir: &Path, prefix: &Path) -> PathBuf {
    let names = prefix.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    destdir.join(names.collect::<PathBuf>())
}

/// The folders of the layout, outer ones first.
const FOLDERS: [&str; 7] =
    ["", "include", "include/allokit", "lib", "lib/cmake/Allokit", "lib/pkgconfig", "share/doc/allokit"];

/// Those of the command, and the completions: where a shell looks, under which name.
const COMMAND_FOLDERS: [&str; 2] = ["bin", "share/man/man1"];
const COMPLETIONS: [(&str, &str, &str); 3] = [
    ("bash", "share/bash-completion/completions", "allokit"),
    ("zsh", "share/zsh/site-functions", "_allokit"),
    ("fish", "share/fish/vendor_completions.d", "allokit.fish"),
];

/// Whether every folder of the layout can be made and written to; makes none.
fn check(place: &Path) -> Result<()> {
    for folder in FOLDERS.into_iter().chain(COMMAND_FOLDERS) {
        let folder = place.join(folder);
        let there = folder.ancestors().find(|folder| folder.symlink_metadata().is_ok()).unwrap_or(Path::new("/"));
        ensure!(there.is_dir(), "cannot install to {}: {} is not a folder", place.display(), there.display());
        if let Err(error) = tempfile::tempfile_in(there) {
            bail!("cannot install to {}: {} cannot be written to ({error})", place.display(), there.display());
        }
    }
    Ok(())
}

/// Puts the libraries and all that belongs to them into `place`.
pub fn install(place: &Path, built: &[Libraries], command: Option<&Path>) -> Result<()> {
    let new = !place.exists();
    fs::create_dir_all(place).with_context(|| format!("cannot make the folder {}", place.display()))?;
    let stage = tempfile::Builder::new().prefix(".allokit-").tempdir_in(place);
    let done = stage.with_context(|| format!("cannot write to {}", place.display())).and_then(|stage| {
        put_together(stage.path(), built, command)?;
        move_into(stage.path(), place)
    });
    if new && done.is_err() {
        // Only if it is empty: what others have put there in the meantime is theirs.
        let _ = fs::remove_dir(place);
    }
    done
}

/// The whole layout, in a folder of its own.
fn put_together(stage: &Path, built: &[Libraries], command: Option<&Path>) -> Result<()> {
    for folder in FOLDERS {
        fs::create_dir_all(stage.join(folder))?;
    }
    let root = build::root();
    copy(&root.join("include/alloc.h"), &stage.join("include/alloc.h"))?;
    copy(&root.join("include/alloc_override.h"), &stage.join("include/alloc_override.h"))?;
    for header in files(&root.join("include/allokit"), ".h")? {
        copy(&header, &stage.join("include/allokit").join(name(&header)?))?;
    }
    for file in ["AllokitTargets.cmake", "AllokitPrefixHeader.cmake"] {
        copy(&root.join("cmake").join(file), &stage.join("lib/cmake/Allokit").join(file))?;
    }
    for file in ["AllokitConfig.cmake", "AllokitConfigVersion.cmake"] {
        fill(&root.join("cmake").join(format!("{file}.in")), "", &stage.join("lib/cmake/Allokit").join(file))?;
    }
    for file in ["LICENSE-MIT", "LICENSE-APACHE", "README.md"] {
        let from = root.join(file);
        if from.exists() {
            copy(&from, &stage.join("share/doc/allokit").join(file))?;
        }
    }
    for libraries in built {
        library(stage, libraries)?;
    }
    command.map_or(Ok(()), |command| self::command(stage, command))
}

/// The command, its manual and its completions, which it writes itself.
fn command(stage: &Path, command: &Path) -> Result<()> {
    for folder in COMMAND_FOLDERS.into_iter().chain(COMPLETIONS.map(|(_, folder, _)| folder)) {
        fs::create_dir_all(stage.join(folder))?;
    }
    copy(command, &stage.join("bin/allokit"))?;
    tools::output(Command::new(command).args(["man", "--dir"]).arg(stage.join("share/man/man1")))?;
    for page in files(&stage.join("share/man/man1"), ".1")? {
        fs::set_permissions(&page, fs::Permissions::from_mode(0o644))?;
    }
    for (shell, folder, name) in COMPLETIONS {
        let text = tools::output(Command::new(command).args(["completions", shell]))?;
        let path = stage.join(folder).join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

/// One backend: its libraries, its pkg-config file, its licence.
fn library(stage: &Path, libraries: &Libraries) -> Result<()> {
    let (backend, built) = (libraries.backend, &libraries.built);
    let lib = stage.join("lib");
    copy(&built.static_lib, &lib.join(name(&built.static_lib)?))?;
    for preload in &libraries.preload {
        copy(preload, &lib.join(name(preload)?))?;
    }
    let folder = built.shared_lib.parent().context("a library without a folder")?;
    let shared = format!("liballokit_{backend}.so");
    let full = format!("{shared}.{}", build::VERSION);
    let soname = format!("{shared}.{}", build::MAJOR);
    copy(&folder.join(&full), &lib.join(&full))?;
    symlink(&full, lib.join(&soname))?;
    symlink(&soname, lib.join(&shared))?;
    let template = build::root().join("cmake/allokit.pc.in");
    fill(&template, backend, &lib.join(format!("pkgconfig/allokit-{backend}.pc")))?;
    for (inside, package, licence) in LICENCES {
        if inside == backend {
            let from = sources::package_folder(&build::root().join("Cargo.toml"), package)?.join(licence);
            copy(&from, &stage.join("share/doc/allokit").join(format!("LICENSE-{inside}")))?;
        }
    }
    Ok(())
}

/// Moves what lies in `stage` to the same places in `place`, over what is there. Both are on one file system, and
/// [`check`] has written to each folder, so that nothing is expected to go wrong between the first move and the last.
fn move_into(stage: &Path, place: &Path) -> Result<()> {
    for entry in fs::read_dir(stage)? {
        let (from, to) = {
            let entry = entry?;
            (entry.path(), place.join(entry.file_name()))
        };
        if from.symlink_metadata()?.is_dir() {
            fs::create_dir_all(&to).with_context(|| format!("cannot make the folder {}", to.display()))?;
            move_into(&from, &to)?;
        } else {
            fs::rename(&from, &to).with_context(|| format!("cannot write {}", to.display()))?;
        }
    }
    Ok(())
}

/// A copy of a file that everyone may read, whatever the umask; programs and shared libraries stay executable.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    let mode = if from.metadata()?.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 };
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).with_context(|| format!("cannot write {}", to.display()))
}

/// A template with its `@NAME@`s filled in.
fn fill(template: &Path, backend: &str, to: &Path) -> Result<()> {
    let text = fs::read_to_string(template).with_context(|| format!("cannot read {}", template.display()))?;
    let text = text.replace("@VERSION@", build::VERSION).replace("@MAJOR@", build::MAJOR).replace("@BACKEND@", backend);
    fs::write(to, text).with_context(|| format!("cannot write {}", to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o644))?;
    Ok(())
}

/// The files of a folder whose names end so, sorted.
fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let entries = folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let mut files: Vec<PathBuf> = paths.into_iter().filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    files.sort();
    Ok(files)
}

fn name(path: &Path) -> Result<&std::ffi::OsStr> {
    path.file_name().with_context(|| format!("{} has no name", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_checked_and_counted_once() {
        let asked = |names: &[&str]| backends(&names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        assert_eq!(asked(&[]).unwrap(), build::BACKENDS);
        assert_eq!(asked(&["system", "native", "system"]).unwrap(), ["native", "system"]);
        assert!(asked(&["foo"]).unwrap_err().to_string().starts_with("--backend foo is not known; valid: native,"));
    }

    #[test]
    fn destdir_comes_before_the_prefix() {
        assert_eq!(under(Path::new("/stage"), Path::new("/usr/local")), Path::new("/stage/usr/local"));
    }

    #[test]
    fn a_prefix_that_cannot_be_is_refused_and_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = check(&file).unwrap_err().to_string();
        assert!(error.ends_with("file is not a folder") && !error.contains('\n'), "{error}");
        assert!(check(&file.join("below")).unwrap_err().to_string().ends_with("file is not a folder"));
        // A folder of the layout that is a file, deep inside.
        fs::create_dir(folder.path().join("lib")).unwrap();
        fs::write(folder.path().join("lib/pkgconfig"), "").unwrap();
        assert!(check(folder.path()).unwrap_err().to_string().ends_with("lib/pkgconfig is not a folder"));
        let fresh = folder.path().join("a/b/c");
        check(&fresh).unwrap();
        assert!(!folder.path().join("a").exists());
    }

    #[test]
    fn files_move_over_old_ones_and_leave_others() {
        let folder = tempfile::tempdir().unwrap();
        let (stage, place) = (folder.path().join("stage"), folder.path().join("place"));
        fs::create_dir_all(stage.join("lib")).unwrap();
        fs::create_dir_all(place.join("lib")).unwrap();
        fs::write(stage.join("lib/ours"), "new").unwrap();
        symlink("ours", stage.join("lib/link")).unwrap();
        fs::write(place.join("lib/ours"), "old").unwrap();
        fs::write(place.join("lib/theirs"), "kept").unwrap();
        move_into(&stage, &place).unwrap();
        assert_eq!(fs::read(place.join("lib/link")).unwrap(), b"new");
        assert_eq!(fs::read(place.join("lib/theirs")).unwrap(), b"kept");
    }
}
