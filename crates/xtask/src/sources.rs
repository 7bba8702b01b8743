//! `cargo xtask sources`: where the C sources of Lua 5.4 and SQLite lie, which the examples and the demo compile.
//! Owns the way there: two crates carry them, examples-c/sources/Cargo.toml pins which, cargo fetches them once into its
//! own cache. Nothing is vendored; after the first time no network is needed.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(clap::Args)]
pub struct Args {}

/// The folders with `lua.h`, `lapi.c` … and with `sqlite3.h`, `sqlite3.c`.
pub struct Sources {
    pub lua: PathBuf,
    pub sqlite: PathBuf,
}

/// Prints one `NAME=folder` line each, the names those of the CMake variables: examples-c/CMakeLists.txt reads them.
pub fn run(_args: &Args) -> Result<()> {
    let sources = find()?;
    println!("ALLOKIT_LUA_DIR={}", sources.lua.display());
    println!("ALLOKIT_SQLITE_DIR={}", sources.sqlite.display());
    Ok(())
}

/// Finds the sources, fetching the packages first when cargo does not have them yet.
pub fn find() -> Result<Sources> {
    let manifest = crate::build::root().join("examples-c/sources/Cargo.toml");
    // Offline first: cargo would otherwise ask the registry for its index each time that the cache is cleaned of it.
    let metadata = match metadata(&manifest, true) {
        Ok(found) => found,
        Err(_) => metadata(&manifest, false).context(
            "the sources of Lua and SQLite are not here and could not be fetched: connect to the network once, or give \
             CMake their folders with -DALLOKIT_LUA_DIR=… -DALLOKIT_SQLITE_DIR=…",
        )?,
    };
    let lua = lua_5_4(&package(&metadata, "lua-src")?)?;
    let sqlite = package(&metadata, "libsqlite3-sys")?.join("sqlite3");
    for file in [lua.join("lapi.c"), sqlite.join("sqlite3.c")] {
        if !file.is_file() {
            bail!("{} is missing: the pins in {} fit this command no longer", file.display(), manifest.display());
        }
    }
    Ok(Sources { lua, sqlite })
}

/// Where cargo keeps the package of this name that the manifest's workspace is built with.
pub fn package_folder(manifest: &Path, name: &str) -> Result<PathBuf> {
    package(&metadata(manifest, true).or_else(|_| metadata(manifest, false))?, name)
}

/// What `cargo metadata` says about the manifest; it unpacks the packages as it goes.
fn metadata(manifest: &Path, offline: bool) -> Result<serde_json::Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version", "1", "--locked", "--manifest-path"]).arg(manifest);
    if offline {
        command.arg("--offline");
    }
    let output = command.stderr(Stdio::piped()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata gave no JSON")
}

/// The folder of the package of this name.
fn package(metadata: &serde_json::Value, name: &str) -> Result<PathBuf> {
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let manifest = packages
        .iter()
        .find(|package| package["name"] == name)
        .and_then(|package| package["manifest_path"].as_str())
        .with_context(|| format!("cargo metadata does not list {name}"))?;
    Ok(Path::new(manifest).parent().context("a manifest without a folder")?.to_path_buf())
}

/// lua-src holds a folder for each Lua, `lua-5.4.8` and others: the newest 5.4.
fn lua_5_4(package: &Path) -> Result<PathBuf> {
    let mut newest: Option<(u32, PathBuf)> = None;
    for entry in package.read_dir().with_context(|| format!("cannot read {}", package.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let patch = name.to_str().and_then(|name| name.strip_prefix("lua-5.4.")).and_then(|patch| patch.parse().ok());
        if let Some(patch) = patch
            && newest.as_ref().is_none_or(|(best, _)| patch > *best)
        {
            newest = Some((patch, entry.path()));
        }
    }
    newest.map(|(_, path)| path).with_context(|| format!("no Lua 5.4 in {}", package.display()))
}
