//! A leak planted in a program of others (a module of redis-server, a C module of Lua) is named by file and line while the program
//! runs, preloaded, with tracking switched on from outside: no restart, nothing compiled for it but the module itself.

use crate::build;
use crate::case::{Case, LeftOut};
use crate::sources;
use crate::test_cli;
use crate::tools;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The cases of this module.
pub fn cases() -> Vec<Case> {
    vec![Case::new("growth/redis", redis), Case::new("growth/lua", lua)]
}

/// A program that runs preloaded; killed when dropped.
struct Server {
    child: Child,
    pipe: PathBuf,
    said: PathBuf,
    folder: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something is there.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        ensure!(start.elapsed() < Duration::from_secs(20), "{what}: waited for 20 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Server {
    fn start(command: &mut Command, folder: &Path) -> Result<Server> {
        let library = build::build_preload(&build::Options::new("native"))?;
        let (pipe, said) = (folder.join("control"), folder.join("said"));
        command.env("LD_PRELOAD", library).env("ALLOKIT_CONTROL", &pipe).env_remove("ALLOKIT_TRACK");
        let child = command.current_dir(folder).stderr(fs::File::create(&said)?).spawn()?;
        let server = Server { child, pipe, said, folder: folder.to_path_buf() };
        wait_for("the pipe", || server.pipe.exists().then_some(()))?;
        Ok(server)
    }

    fn order(&self, line: &str) -> Result<()> {
        fs::write(&self.pipe, format!("{line}\n")).with_context(|| format!("cannot write \"{line}\" to the pipe"))
    }

    /// All that was ordered before is done then: the file has its name when it is whole.
    fn report(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        self.order(&format!("json:{}", path.display()))?;
        wait_for(name, || path.exists().then_some(()))?;
        Ok(path)
    }

    /// Switches tracking on, has `work` done between snapshots, and gives the report and what stderr has.
    fn watch(&self, mut work: impl FnMut() -> Result<()>) -> Result<(PathBuf, String)> {
        work()?;
        self.order("track sites")?;
        for moment in 0..6 {
            work()?;
            self.order("snapshot")?;
            self.report(&format!("{moment}.json"))?;
        }
        self.order("grown")?;
        let path = self.report("now.json")?;
        self.order("track off")?;
        self.report("off.json")?;
        work()?;
        Ok((path, fs::read_to_string(&self.said)?))
    }
}

/// The leak is the first row of what grows, by its file and line; and so it is of the six reports, compared.
fn named(server: &Server, report: &Path, said: &str, module: &str, place: &str) -> Result<()> {
    let first = said.lines().skip_while(|line| !line.contains("allokit: growth over 6 snapshots")).nth(2);
    let first = first.with_context(|| format!("no growth in\n{said}"))?;
    ensure!(first.contains("likely   5 of  5") && first.contains(module), "the first is {first}");
    let done = test_cli::allokit(&server.folder, &["report".as_ref(), report.as_os_str()])?;
    let text = &done.stdout;
    let first = text.lines().skip_while(|line| !line.starts_with("growth over 6 snapshots")).nth(2);
    let first = first.with_context(|| format!("no growth in\n{text}"))?;
    ensure!(first.contains("likely   5 of  5") && first.ends_with(place), "the first is {first}");
    let mut arguments = vec!["diff".to_string(), "--format".into(), "ci".into()];
    arguments.extend((0..6).map(|moment| format!("{moment}.json")));
    let done = test_cli::allokit(&server.folder, &arguments)?;
    let line = done.stdout.lines().next().unwrap_or("");
    let (file, function) = place.split_once(" (").context("a place has a function")?;
    ensure!(
        done.ending == "exit status: 1"
            && line.contains(&format!("{file}: warning: grew in 5 of 5 snapshots, +"))
            && line.ends_with(&format!("bytes/min ({function}")),
        "{}",
        done.all()
    );
    Ok(())
}

/// A shared object with debug information.
fn module(source: &str, folder: &Path, flags: &[&str]) -> Result<()> {
    tools::need(&["gcc"])?;
    let name = Path::new(source).with_extension("so");
    let mut command = Command::new("gcc");
    command.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-g", "-O1", "-fPIC", "-shared"]).args(flags);
    command.current_dir(build::root()).arg(format!("tests/growth/{source}")).arg("-o").arg(folder.join(name));
    tools::output(&mut command).map(drop)
}

fn redis() -> Result<()> {
    let apt = "on Debian: apt-get install redis-server";
    tools::need(&["redis-server"]).map_err(|error| LeftOut::because(format!("{error:#}; {apt}")))?;
    let folder = tempfile::tempdir()?;
    let here = folder.path();
    module("redis_leak.c", here, &[])?;
    let socket = here.join("s");
    let mut command = Command::new(tools::find("redis-server")?);
    command.args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"]).arg(here);
    command.args(["--enable-module-command", "yes", "--unixsocket"]).arg(&socket);
    let log = fs::File::create(here.join("log"))?;
    let server = Server::start(command.arg("--loadmodule").arg(here.join("redis_leak.so")).stdout(log), here)?;
    let stream = wait_for("redis-server", || UnixStream::connect(&socket).ok())?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut turn = 0;
    let (report, said) = server.watch(|| {
        for _ in 0..200 {
            turn += 1;
            let key = turn % 500;
            let (value, note) = ("value ".repeat(key % 20), "x".repeat(key % 300));
            write!(&stream, "SET key{key} \"{value}\"\r\nLEAK.REMEMBER \"{note}\"\r\nGET key{key}\r\n")?;
            let mut answer = String::new();
            // Of GET two lines.
            for wanted in ["+OK", &format!(":{turn}"), "$", ""] {
                answer.clear();
                answers.read_line(&mut answer)?;
                ensure!(answer.starts_with(wanted), "{answer} for {wanted}");
            }
        }
        Ok(())
    })?;
    named(&server, &report, &said, "redis_leak.so(", "redis_leak.c:31 (remember)")?;
    let mut server = server;
    write!(&stream, "SHUTDOWN NOSAVE\r\n")?;
    let ended = wait_for("the end", || server.child.try_wait().ok().flatten())?;
    ensure!(ended.success(), "redis-server: {ended}");
    Ok(())
}

fn lua() -> Result<()> {
    let sources = sources::find()?.lua;
    let folder = tempfile::tempdir()?;
    let here = folder.path();
    module("lua_leak.c", here, &["-isystem", sources.to_str().context("a folder's name is UTF-8")?])?;
    let mut files: Vec<PathBuf> = fs::read_dir(&sources)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|end| end == "c") && file.file_stem() != Some("luac".as_ref()));
    files.retain(|file| file.file_stem() != Some("lua".as_ref()));
    files.push(build::root().join("tests/bench/real/lua.c"));
    let mut command = Command::new("gcc");
    command.args(["-O0", "-w", "-DLUA_USE_POSIX", "-DLUA_USE_DLOPEN", "-Wl,-E"]).args(&files).arg("-I").arg(&sources);
    tools::output(command.args(["-lm", "-ldl", "-o"]).arg(here.join("lua")))?;
    let mut command = Command::new(here.join("lua"));
    command.arg("1").arg(build::root().join("tests/growth/serve.lua")).env("LUA_CPATH", here.join("?.so"));
    let mut server = Server::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()), here)?;
    let mut input = server.child.stdin.take().context("no input")?;
    let mut answers = BufReader::new(server.child.stdout.take().context("no output")?);
    let mut turn = 0;
    let (report, said) = server.watch(|| {
        for _ in 0..200 {
            turn += 1;
            let line = format!("line {}", "x".repeat(turn % 30));
            writeln!(input, "{line}")?;
            let mut answer = String::new();
            answers.read_line(&mut answer)?;
            ensure!(answer.trim().parse() == Ok(line.len() * 20), "{answer} for {line}");
        }
        Ok(())
    })?;
    named(&server, &report, &said, "lua_leak.so(", "lua_leak.c:13 (copy)")?;
    drop(input);
    let ended = wait_for("the end", || server.child.try_wait().ok().flatten())?;
    ensure!(ended.success() && !server.pipe.exists(), "lua: {ended}");
    Ok(())
}
