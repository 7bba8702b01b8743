//! The real programs of `cargo xtask bench`: interpreters, a database, compilers, a server, as people run them. Owns where
//! they come from and what they are given to do; a program that this machine lacks is reported as missing.

use crate::{bench_peers, build, sources, tools};
use allokit_bench::measure;
use allokit_bench::plan::{Group, Kind, Workload};
use allokit_bench::result::Missing;
use anyhow::{Context, Result, bail, ensure};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Name and what it does.
pub const NAMES: [(&str, &str); 12] = [
    ("lua", "Lua 5.4 runs four scripts: JSON, trees, strings, coroutines"),
    ("sqlite", "SQLite in memory: insert, index, query, update, delete, vacuum"),
    ("python", "Python: objects, dictionaries, JSON, regular expressions"),
    ("python_malloc", "the same without Python's own allocator (PYTHONMALLOC=malloc)"),
    ("perl", "Perl: words, hashes, arrays of arrays"),
    ("gcc", "gcc -O1 compiles a generated C file"),
    ("clang", "clang -O1 compiles the same"),
    ("g++", "g++ -O0 compiles a file full of standard containers"),
    ("redis", "redis-server asked by redis-benchmark; the server alone counts"),
    ("git", "git log -p --stat over a generated history"),
    ("cmake", "a CMake script: lists, strings, regular expressions"),
    ("z3", "Z3 proves that a generated job-shop schedule is possible"),
];

/// Where things lie and how much is to be done.
struct Place<'a> {
    folder: &'a Path,
    sources: PathBuf,
    quick: bool,
}

impl Place<'_> {
    /// Rounds of work, a quarter of them for a quick look.
    fn rounds(&self, full: u32) -> String {
        if self.quick { full.div_ceil(4) } else { full }.to_string()
    }

    fn workload(&self, name: &str, program: &Path, arguments: &[&str]) -> Workload {
        let what = NAMES.iter().find(|(known, _)| *known == name).map_or("", |(_, what)| what);
        Workload {
            name: name.to_string(),
            group: Group::Real,
            what: what.to_string(),
            program: program.to_path_buf(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            folder: self.folder.to_path_buf(),
            environment: vec![("HOME".into(), self.folder.display().to_string())],
            kind: Kind::Plain,
            rounds: None,
        }
    }

    fn source(&self, file: &str) -> String {
        self.sources.join(file).display().to_string()
    }
}

/// The wanted programs, ready to run, and those that cannot be had.
pub fn get(wanted: &dyn Fn(&str) -> bool, folder: &Path, quick: bool) -> Result<(Vec<Workload>, Vec<Missing>)> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let place = Place { folder, sources: build::root().join("tests/bench/real"), quick };
    let (mut here, mut missing) = (Vec::new(), Vec::new());
    for (name, _) in NAMES.iter().filter(|(name, _)| wanted(name)) {
        match one(name, &place) {
            Ok(workload) => here.push(workload),
            Err(error) => {
                let why = bench_peers::short(&error);
                eprintln!("bench: the program {name} is MISSING: {why}");
                missing.push(Missing { name: format!("the program {name}"), why });
            }
        }
    }
    Ok((here, missing))
}

fn one(name: &str, place: &Place) -> Result<Workload> {
    match name {
        "lua" => lua(place),
        "sqlite" => sqlite(place),
        "python" => python(place, name, 8),
        "python_malloc" => {
            let mut workload = python(place, name, 4)?;
            workload.environment.push(("PYTHONMALLOC".into(), "malloc".into()));
            Ok(workload)
        }
        "perl" => {
            tools::need(&["perl"])?;
            let mut workload =
                place.workload(name, &tools::find("perl")?, &[&place.source("words.pl"), &place.rounds(6)]);
            // The order of a hash must be the same in every run.
            workload.environment.push(("PERL_HASH_SEED".into(), "0".into()));
            Ok(workload)
        }
        "gcc" | "clang" => compiler(place, name),
        "g++" => {
            tools::need(&["g++"])?;
            let depth = format!("-DDEPTH={}", place.rounds(2));
            let file = place.source("templates.cc");
            Ok(place.workload(name, &tools::find("g++")?, &["-std=c++17", "-O0", &depth, "-c", &file, "-o", "g++.o"]))
        }
        "redis" => redis(place),
        "git" => git(place),
        "cmake" => {
            tools::need(&["cmake"])?;
            let rounds = format!("-DROUNDS={}", place.rounds(60));
            Ok(place.workload(name, &tools::find("cmake")?, &[&rounds, "-P", &place.source("lists.cmake")]))
        }
        "z3" => {
            tools::need(&["z3"])?;
            let (jobs, machines, end) = if place.quick { (10, 8, 70) } else { (10, 10, 85) };
            let file = place.folder.join(format!("schedule_{jobs}.smt2"));
            fs::write(&file, schedule(jobs, machines, end))?;
            Ok(place.workload(name, &tools::find("z3")?, &[&file.display().to_string()]))
        }
        _ => bail!("no program is called so"),
    }
}

/// Compiles unless the program is newer than the files.
fn compiled(program: &Path, files: &[PathBuf], flags: &[&str]) -> Result<()> {
    let time = |path: &Path| path.metadata().and_then(|data| data.modified());
    if let Ok(made) = time(program)
        && files.iter().all(|file| time(file).is_ok_and(|file| file < made))
    {
        return Ok(());
    }
    eprintln!("bench: compiling {}", program.file_name().unwrap_or_default().to_string_lossy());
    let mut cc = Command::new(tools::find("cc")?);
    tools::output(cc.args(["-O2", "-w"]).args(flags).args(files).arg("-o").arg(program).args([
        "-lm",
        "-lpthread",
        "-ldl",
    ]))?;
    Ok(())
}

fn lua(place: &Place) -> Result<Workload> {
    let sources = sources::find()?.lua;
    let mut files: Vec<PathBuf> = fs::read_dir(&sources)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|end| end == "c") && file.file_stem() != Some("luac".as_ref()));
    files.retain(|file| file.file_stem() != Some("lua".as_ref()));
    files.push(place.sources.join("lua.c"));
    files.sort();
    let program = place.folder.join("lua");
    let include = format!("-I{}", sources.display());
    compiled(&program, &files, &["-DLUA_USE_POSIX", &include])?;
    let mut arguments = vec![place.rounds(4)];
    for script in ["json", "trees", "strings", "coroutines"] {
        let file = build::root().join(format!("examples-c/04_lua_host/scripts/{script}.lua"));
        arguments.push(file.display().to_string());
    }
    Ok(place.workload("lua", &program, &arguments.iter().map(String::as_str).collect::<Vec<_>>()))
}

fn sqlite(place: &Place) -> Result<Workload> {
    let sources = sources::find()?.sqlite;
    let program = place.folder.join("sqlite");
    let include = format!("-I{}", sources.display());
    let files = [place.sources.join("sqlite.c"), sources.join("sqlite3.c")];
    compiled(&program, &files, &[&include, "-DSQLITE_OMIT_LOAD_EXTENSION"])?;
    Ok(place.workload("sqlite", &program, &[&place.rounds(8)]))
}

fn python(place: &Place, name: &str, rounds: u32) -> Result<Workload> {
    tools::need(&["python3"])?;
    // python3 may be a script that starts the real one.
    let asked = tools::output(Command::new(tools::find("python3")?).args([
        "-I",
        "-c",
        "import os, sys; print(os.path.realpath(sys.executable))",
    ]))?;
    let program = PathBuf::from(asked.trim());
    let mut workload =
        place.workload(name, &program, &["-S", "-B", &place.source("objects.py"), &place.rounds(rounds)]);
    workload.environment.push(("PYTHONHASHSEED".into(), "0".into()));
    Ok(workload)
}

fn compiler(place: &Place, name: &str) -> Result<Workload> {
    tools::need(&[name])?;
    let functions = if place.quick { 40 } else { 160 };
    let file = place.folder.join(format!("generated_{functions}.c"));
    fs::write(&file, generated(functions))?;
    let (file, object) = (file.display().to_string(), format!("{name}.o"));
    Ok(place.workload(name, &tools::find(name)?, &["-O1", "-w", "-c", &file, "-o", &object]))
}

/// A C file of this many functions: structures, switches, loops, calls.
fn generated(functions: u32) -> String {
    let mut text = String::from(
        "typedef struct pair { long a, b; struct pair *next; } pair;\nextern long outside(const char *, long);\n",
    );
    for n in 0..functions {
        let _ = write!(
            text,
            "struct s{n} {{ int kind; double weight[{}]; pair pairs[{}]; const char *name; }};\n\
             static long f{n}(struct s{n} *s, long x, unsigned char *text)\n{{\n    long sum = x + {n};\n\
             \x20   for (int i = 0; i < {}; i++) {{\n        pair *p = &s->pairs[i];\n\
             \x20       while (p) {{ sum += p->a * {} - (p->b >> {}); p = p->next; }}\n        switch (text[i] ^ s->kind) {{\n",
            2 + n % 7,
            1 + n % 5,
            1 + n % 5,
            n % 13 + 1,
            n % 9 + 1
        );
        for case in 0..12 {
            let _ = writeln!(
                text,
                "        case {}: sum ^= (long)(s->weight[{}] * {case}) + text[sum & {}]; break;",
                case * 3 + n % 3,
                case % (2 + n % 7),
                (1 << (case % 8)) - 1
            );
        }
        let call =
            if n == 0 { "outside(s->name, sum)".to_string() } else { format!("f{}((void *)s, sum, text + 1)", n - 1) };
        let _ = write!(
            text,
            "        default: sum += {call};\n        }}\n    }}\n    return sum > {} ? outside(\"f{n} is large\", sum) : sum;\n}}\n\
             long g{n}(void *s, unsigned char *t) {{ return f{n}(s, {n}, t); }}\n",
            n * 977
        );
    }
    text
}

/// An SMT problem: every job needs every machine for a while, in an order of its own; all are to be done by `end`.
fn schedule(jobs: u32, machines: u32, end: u32) -> String {
    let mut next = random();
    let mut text = String::from("(set-logic QF_LIA)\n");
    let mut all = Vec::new();
    for job in 0..jobs {
        let mut order: Vec<u32> = (0..machines).collect();
        for left in (1..machines).rev() {
            order.swap(left as usize, next(left + 1) as usize);
        }
        let lengths: Vec<u32> = (0..machines).map(|_| 1 + next(9)).collect();
        for machine in 0..machines {
            let _ = writeln!(text, "(declare-const s_{job}_{machine} Int)");
        }
        let _ = writeln!(text, "(assert (>= s_{job}_{} 0))", order[0]);
        for pair in order.windows(2) {
            let (first, then) = (pair[0], pair[1]);
            let length = lengths[first as usize];
            let _ = writeln!(text, "(assert (>= s_{job}_{then} (+ s_{job}_{first} {length})))");
        }
        let last = order[order.len() - 1];
        let _ = writeln!(text, "(assert (<= (+ s_{job}_{last} {}) {end}))", lengths[last as usize]);
        all.push(lengths);
    }
    for machine in 0..machines {
        for one in 0..jobs {
            for other in one + 1..jobs {
                let before = |a: u32, b: u32| {
                    format!("(<= (+ s_{a}_{machine} {}) s_{b}_{machine})", all[a as usize][machine as usize])
                };
                let _ = writeln!(text, "(assert (or {} {}))", before(one, other), before(other, one));
            }
        }
    }
    text.push_str("(check-sat)\n");
    text
}

/// Numbers that are the same everywhere, below what is asked for.
fn random() -> impl FnMut(u32) -> u32 {
    let mut seed = 1u32;
    move |below| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) % below
    }
}

/// The server is Debian's redis-check-rdb under the name by which it serves. Its memory goes through malloc of whatever is
/// loaded first, its own jemalloc otherwise: with glibc, libc must be loaded first as well.
fn redis(place: &Place) -> Result<Workload> {
    tools::need(&["redis"])?;
    let tools_at = |name: &str| tools::in_path(name).with_context(|| format!("{name} is missing"));
    let server = place.folder.join("redis-server");
    let _ = fs::remove_file(&server);
    std::os::unix::fs::symlink(tools::find("redis")?, &server)?;
    // Relative, because a socket's path must be short; server and clients run in the folder.
    let socket = "redis.sock";
    let (client, bench) = (tools_at("redis-cli")?, tools_at("redis-benchmark")?);
    let word = |path: &Path| path.display().to_string();
    let bench = |tests: &str, requests: u32, size: &str| -> Vec<String> {
        let requests = place.rounds(requests);
        let words =
            ["-s", socket, "-q", "-c", "20", "-P", "16", "-r", "40000", "-n", &requests, "-d", size, "-t", tests];
        std::iter::once(word(&bench)).chain(words.map(str::to_string)).collect()
    };
    let mut workload = place.workload(
        "redis",
        &server,
        &[
            "--port",
            "0",
            "--unixsocket",
            socket,
            "--save",
            "",
            "--appendonly",
            "no",
            "--daemonize",
            "no",
            "--logfile",
            "",
        ],
    );
    // The launcher overrides it for allocators that are libraries.
    workload.environment.push(("LD_PRELOAD".into(), "libc.so.6".into()));
    workload.kind = Kind::Server {
        socket: place.folder.join(socket),
        clients: vec![
            bench("set,get,incr", 100_000, "40"),
            bench("lpush,rpush,lpop,rpop,sadd,hset,zadd,spop", 100_000, "20"),
            bench("set", 60_000, "700"),
            bench("lrange_100", 6_000, "20"),
            vec![word(&client), "-s".into(), socket.into(), "flushall".into()],
            vec![word(&client), "-s".into(), socket.into(), "shutdown".into(), "nosave".into()],
        ],
    };
    Ok(workload)
}

/// A repository of some hundred commits that is the same everywhere.
fn git(place: &Place) -> Result<Workload> {
    tools::need(&["git"])?;
    let program = tools::find("git")?;
    let repository = place.folder.join("history.git");
    let commits = 600;
    if !repository.join("made").is_file() {
        let _ = fs::remove_dir_all(&repository);
        let command = || {
            let mut command = Command::new(&program);
            measure::clean(&mut command);
            command.env("HOME", place.folder).env("GIT_CONFIG_NOSYSTEM", "1").current_dir(place.folder);
            command
        };
        tools::output(command().args(["init", "--quiet", "--bare", "history.git"]))?;
        let mut import = command();
        import.args(["--git-dir", "history.git", "fast-import", "--quiet"]).stdin(Stdio::piped());
        let mut child = import.spawn().context("cannot run git")?;
        child.stdin.take().context("no pipe")?.write_all(history(commits).as_bytes())?;
        ensure!(child.wait()?.success(), "git fast-import failed");
        fs::write(repository.join("made"), "")?;
    }
    let count = format!("--max-count={}", place.rounds(commits));
    let arguments =
        ["--git-dir", "history.git", "log", "-p", "--stat", "-M", "--no-color", "--patience", &count, "main"];
    let mut workload = place.workload("git", &program, &arguments);
    workload.environment.push(("GIT_CONFIG_NOSYSTEM".into(), "1".into()));
    Ok(workload)
}

/// Input of git fast-import: 40 files, each commit changes lines of three and now and then renames one.
fn history(commits: u32) -> String {
    let mut next = random();
    let mut files: Vec<Vec<String>> =
        (0..40).map(|file| (0..400).map(|line| format!("file {file} line {line}: nothing yet")).collect()).collect();
    let mut out = String::new();
    for commit in 1..=commits {
        let _ = write!(
            out,
            "commit refs/heads/main\ncommitter A <a@example.org> {} +0000\ndata <<END\nchange {commit}\n\nfor no reason\nEND\n",
            1_700_000_000 + commit * 60
        );
        let changed: Vec<u32> = if commit == 1 { (0..40).collect() } else { (0..3).map(|_| next(40)).collect() };
        for file in changed {
            for _ in 0..12 {
                let place = next(files[file as usize].len() as u32) as usize;
                let text = format!("    value_{} = compute({}, {});", next(1000), next(1000), next(1000));
                match next(3) {
                    0 => files[file as usize].insert(place, text),
                    1 if files[file as usize].len() > 50 => drop(files[file as usize].remove(place)),
                    _ => files[file as usize][place] = text,
                }
            }
            let text = files[file as usize].join("\n");
            let _ = write!(out, "M 100644 inline source/file{file}.c\ndata {}\n{text}\n", text.len());
        }
        out.push('\n');
    }
    out
}
