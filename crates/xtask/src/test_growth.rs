//! A leak planted in a program of others (a module of redis-server, a C module of Lua) is named by file and line while the program
//! runs, preloaded, with tracking switched on from outside: no restart, nothing compiled for it but the module itself. And the
//! server of ALLOKIT_HTTP: what it answers, and that nobody who misbehaves stops it or the program.

use crate::build;
use crate::case::{Case, LeftOut};
use crate::sources;
use crate::tools;
use crate::{test_cli, test_profile};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The cases of this module.
pub fn cases() -> Vec<Case> {
    vec![Case::new("growth/redis", redis), Case::new("growth/lua", lua), Case::new("growth/http", http)]
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
        Ok(Server { child, pipe, said, folder: folder.to_path_buf() })
    }

    fn order(&self, line: &str) -> Result<()> {
        wait_for("the pipe", || self.pipe.exists().then_some(()))?;
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

/// The status, the head and the body of an answer to these bytes.
fn ask(port: u16, request: &[u8]) -> Result<(u16, String, Vec<u8>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request)?;
    answer(&mut stream)
}

fn answer(stream: &mut impl Read) -> Result<(u16, String, Vec<u8>)> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").context("no head")?;
    let head = String::from_utf8(bytes[..end].to_vec())?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    Ok((status, head, bytes[end + 4..].to_vec()))
}

fn get(port: u16, path: &str) -> Result<(u16, String, String)> {
    let (status, head, body) = ask(port, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
    Ok((status, head, String::from_utf8_lossy(&body).into_owned()))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn http() -> Result<()> {
    tools::need(&["gcc"])?;
    let folder = tempfile::tempdir()?;
    let here = folder.path();
    let program = here.join("server");
    let mut gcc = Command::new("gcc");
    gcc.current_dir(build::root()).args(["-g", "-O1", "-rdynamic", "tests/preload/server.c", "-o"]).arg(&program);
    tools::output(&mut gcc)?;
    let port = free_port()?;
    let mut command = Command::new(&program);
    command.env("ALLOKIT_HTTP", port.to_string()).env("ALLOKIT_GROWTH", "50ms").stdin(Stdio::piped());
    let mut server = Server::start(command.stdout(Stdio::null()), here)?;
    wait_for("the port", || TcpStream::connect(("127.0.0.1", port)).ok())?;
    let tasks = |pid: u32| Ok::<_, anyhow::Error>(fs::read_dir(format!("/proc/{pid}/task"))?.count());
    ensure!(tasks(server.child.id())? == 2, "not one thread for all");

    let (status, _, body) = get(port, "/leaks")?;
    ensure!(status == 503 && body.contains("tracking is off"), "{status}: {body}");
    server.order("track sites")?;
    let grown = || get(port, "/growth").ok().filter(|(_, _, body)| body.contains("likely")).map(|(.., body)| body);
    let body = wait_for("growth", grown)?;
    ensure!(body.lines().nth(2).is_some_and(|line| line.contains("server(forgets+0x")), "{body}");
    for (path, kind, wanted) in [
        ("/", "text/plain", "/metrics"),
        ("/metrics", "text/plain; version=0.0.4", "# TYPE allokit_current_bytes gauge"),
        ("/report", "text/html", "</html>"),
        ("/report.json", "application/json", "\"allokit-report\""),
        ("/leaks", "text/plain", "server(forgets+0x"),
        ("/leaks?format=json", "application/json", "\"symbol\":\"forgets\""),
        ("/leaks?format=lines", "text/plain", "bytes in "),
        ("/growth?format=json", "application/json", "\"leak\":\"likely\""),
    ] {
        let (status, head, body) = get(port, path)?;
        let typed = head.to_lowercase().contains(&format!("content-type: {kind}"));
        ensure!(status == 200 && typed && body.contains(wanted), "{path}: {head}\n\n{body}");
        if kind == "application/json" {
            serde_json::from_str::<serde_json::Value>(&body).with_context(|| path.to_string())?;
        }
    }
    let request =
        b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n\r\n";
    let (_, head, body) = ask(port, request)?;
    ensure!(head.contains("application/openmetrics-text") && body.ends_with(b"# EOF\n"), "{head}");
    for path in ["/heap", "/debug/pprof/heap"] {
        let (status, _, body) = ask(port, format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes())?;
        let live = test_profile::samples(&body)?;
        let leak = live.iter().find(|sample| sample.name.contains("forgets"));
        ensure!(status == 200 && leak.is_some_and(|leak| leak.bytes >= 1000), "{live:?}");
    }
    if tools::need(&["curl"]).is_ok() {
        let said = tools::output(Command::new("curl").args(["-sSf", &format!("http://127.0.0.1:{port}/leaks")]))?;
        ensure!(said.contains("server(forgets+0x"), "curl: {said}");
    }

    // What is no request, or too long, or something else than GET.
    let long = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 100_000]].concat();
    let requests: [(&[u8], u16); 6] = [
        (b"\0\x16\x03\x01 garbage \xff\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"POST /leaks HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"GET /etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"GET /leaks?format=xml HTTP/1.1\r\n\r\n", 400),
        (&long[..9000], 431),
    ];
    for (request, wanted) in requests {
        let (status, head, _) = ask(port, request)?;
        ensure!(status == wanted && head.contains("Connection: close"), "{wanted}: {head}");
    }
    // More than it reads: the answer, or no connection any more, but never a hang.
    let _ = ask(port, &long);

    // One who asks slowly is sent away; meanwhile another waits, and is served.
    let mut slow = TcpStream::connect(("127.0.0.1", port))?;
    slow.write_all(b"GET /met")?;
    let start = Instant::now();
    let drip = std::thread::spawn({
        let mut slow = slow.try_clone()?;
        move || {
            for _ in 0..100 {
                std::thread::sleep(Duration::from_millis(100));
                if slow.write_all(b"r").is_err() {
                    break;
                }
            }
        }
    });
    let (status, ..) = get(port, "/metrics")?;
    ensure!(status == 200 && start.elapsed() < Duration::from_secs(6), "after {:?}: {status}", start.elapsed());
    let (status, ..) = answer(&mut slow)?;
    ensure!(status == 408, "the slow one got {status}");
    drop(slow);
    // Ones who go without a word, or without reading.
    for _ in 0..20 {
        drop(TcpStream::connect(("127.0.0.1", port))?);
        TcpStream::connect(("127.0.0.1", port))?.write_all(b"GET /report HTTP/1.1\r\n\r\n")?;
    }
    ensure!(get(port, "/metrics")?.0 == 200 && server.child.try_wait()?.is_none(), "it is gone");
    drip.join().map_err(|_| anyhow::anyhow!("the slow client failed"))?;

    // A second process cannot have the port, says so, and runs; an address that is none.
    for (address, wanted) in [
        (port.to_string(), format!("allokit: ALLOKIT_HTTP: cannot listen on {port} (errno ")),
        ("nowhere:80".into(), "allokit: ALLOKIT_HTTP=nowhere:80 is not known; valid: 127.0.0.1:9464".into()),
    ] {
        let mut other = Command::new(&program);
        let library = build::build_preload(&build::Options::new("native"))?;
        other.env("ALLOKIT_HTTP", &address).env("LD_PRELOAD", library).stdin(Stdio::null());
        let done = tools::attempt(&mut other)?;
        ensure!(done.success && done.stderr.starts_with(&wanted), "{}", done.all());
    }
    drop(server.child.stdin.take());
    let ended = wait_for("the end", || server.child.try_wait().ok().flatten())?;
    ensure!(ended.success(), "{ended}\n{}", fs::read_to_string(&server.said)?);

    // A socket with a path: for its owner only, left behind by one that was killed, taken away at the end.
    let path = here.join("http");
    let start = || -> Result<Server> {
        let mut command = Command::new(&program);
        command.env("ALLOKIT_HTTP", format!("unix:{}", path.display())).stdin(Stdio::piped()).stdout(Stdio::null());
        let server = Server::start(&mut command, here)?;
        let mut stream = wait_for("the socket", || UnixStream::connect(&path).ok())?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")?;
        ensure!(answer(&mut stream)?.0 == 200, "no answer");
        ensure!(
            std::os::unix::fs::PermissionsExt::mode(&path.metadata()?.permissions()) & 0o077 == 0,
            "for others too"
        );
        Ok(server)
    };
    drop(start()?);
    ensure!(path.exists(), "it was killed");
    let mut server = start()?;
    drop(server.child.stdin.take());
    wait_for("the end", || server.child.try_wait().ok().flatten())?;
    ensure!(!path.exists(), "the socket is left behind");

    // A child does not keep the port.
    let mut command = Command::new(&program);
    command.arg("leave").env("ALLOKIT_HTTP", port.to_string()).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut server = Server::start(&mut command, here)?;
    let child = server.child.stdin.take();
    wait_for("the end", || server.child.try_wait().ok().flatten())?;
    ensure!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the child has the port");
    drop(child);
    Ok(())
}
