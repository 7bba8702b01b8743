//! The examples of arenas (examples-c/08_json, 09_http, 10_rows) as tests: compiled with both compilers' warnings as errors, linked
//! with each backend, run. The HTTP server is driven by its load generator, plain and tracked, and fails by itself when its
//! memory grows. `ALLOKIT_EXAMPLES_REQUESTS=1000000` makes that a long run.

use crate::build::{self, BACKENDS};
use crate::case::Case;
use crate::{sources, tools};
use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// What the server answers in a usual run.
const REQUESTS: &str = "50000";

/// The cases of this module.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backend in BACKENDS {
        cases.push(Case::new(format!("examples/json/{backend}"), move || json(backend)));
        cases.push(Case::new(format!("examples/http/{backend}"), move || http(backend)));
        cases.push(Case::new(format!("examples/rows/{backend}"), move || rows(backend)));
    }
    cases
}

/// Compiles a program, with clang for the backends that are not ours, and links it with a backend's static library.
fn compile(backend: &str, files: &[&str], more: &[&Path], program: &Path) -> Result<()> {
    tools::need(&["gcc", "clang"])?;
    let built = build::build(backend, true, None)?;
    let mut command = Command::new(if backend == "native" { "gcc" } else { "clang" });
    command.args(["-std=c11", "-D_GNU_SOURCE", "-O2", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread"]);
    command.arg("-I").arg(build::root().join("include")).arg("-o").arg(program);
    command.args(files.iter().map(|file| build::root().join("examples-c").join(file)));
    tools::output(command.args(more).arg(&built.static_lib).args(["-ldl", "-lm"])).map(drop)
}

/// Runs a program, plain and tracked; it says by its status whether all is right.
fn run(program: &Path, arguments: &[&str]) -> Result<()> {
    for level in ["off", "sites"] {
        let mut command = Command::new(program);
        tools::output(command.args(arguments).env("ALLOKIT_TRACK", level))
            .with_context(|| format!("ALLOKIT_TRACK={level}"))?;
    }
    Ok(())
}

fn json(backend: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("json");
    compile(backend, &["08_json/json.c", "08_json/main.c"], &[], &program)?;
    run(&program, &["10000"])
}

fn rows(backend: &str) -> Result<()> {
    let sources = sources::find()?;
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("rows");
    let object = sqlite(&sources.sqlite)?;
    let include = [Path::new("-I"), &sources.sqlite, &object];
    compile(backend, &["10_rows/rows.c"], &include, &program)?;
    run(&program, &["50000"])
}

/// SQLite, compiled once for all backends: that is the point of the interface.
fn sqlite(sources: &Path) -> Result<PathBuf> {
    static COMPILED: Mutex<bool> = Mutex::new(false);
    let folder = build::target_dir().join("allokit/examples");
    let object = folder.join("sqlite3.o");
    let mut compiled = COMPILED.lock().unwrap_or_else(|poison| poison.into_inner());
    if !*compiled {
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut command = Command::new("gcc");
        command.args(["-w", "-O1", "-include", "alloc_override.h", "-DSQLITE_OMIT_LOAD_EXTENSION", "-c"]);
        command.arg("-I").arg(build::root().join("include")).arg(sources.join("sqlite3.c")).arg("-o").arg(&object);
        tools::output(&mut command)?;
        *compiled = true;
    }
    Ok(object)
}

/// Ended when the test is over, however it ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn http(backend: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (server, load) = (folder.path().join("http"), folder.path().join("load"));
    compile(backend, &["09_http/server.c", "09_http/tenant.c"], &[], &server)?;
    compile(backend, &["09_http/load.c"], &[], &load)?;
    let requests = std::env::var("ALLOKIT_EXAMPLES_REQUESTS").unwrap_or_else(|_| REQUESTS.to_string());
    for level in ["off", "sites"] {
        let mut command = Command::new(&server);
        command.args(["--port", "0", "--requests", &requests]).env("ALLOKIT_TRACK", level);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut server = Server(child);
        let mut out = BufReader::new(server.0.stdout.take().context("the server's output")?);
        let mut line = String::new();
        out.read_line(&mut line)?;
        let port = line.trim().strip_prefix("listening on port ").with_context(|| format!("it said {line:?}"))?;
        let driven = tools::attempt(Command::new(&load).args([port, &requests, "8"]))?;
        if !driven.success {
            bail!("ALLOKIT_TRACK={level}: the load generator: {}\n{}", driven.ending, driven.all());
        }
        let mut said = String::new();
        out.read_to_string(&mut said)?;
        let mut errors = String::new();
        server.0.stderr.take().context("the server's errors")?.read_to_string(&mut errors)?;
        let ended = server.0.wait()?;
        ensure!(ended.success(), "ALLOKIT_TRACK={level}: the server: {ended}\n{said}{errors}");
        ensure!(said.contains(&format!("{requests} requests answered")), "ALLOKIT_TRACK={level}: it said {said:?}");
    }
    Ok(())
}
