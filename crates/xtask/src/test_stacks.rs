//! Stacks (tests/stacks): a tree of calls known to the byte, in each format; samples of it; registers, stacks and modules that
//! are none or go; more stacks than there is room for; python3; the signal.

use crate::build::{self, BACKENDS};
use crate::case::Case;
use crate::test_profile;
use crate::tools::{self, Done};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The cases of this module.
pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = BACKENDS
        .into_iter()
        .map(|backend| Case::new(format!("stacks/tree/{backend}"), move || tree(backend)))
        .collect();
    for backend in ["native", "system"] {
        cases.push(Case::new(format!("stacks/odd/{backend}"), move || odd(backend)));
    }
    cases.push(Case::new("stacks/sample", sample));
    cases.push(Case::new("stacks/many", many));
    cases.push(Case::new("stacks/python", python));
    cases.push(Case::new("stacks/signal", signal));
    cases
}

fn compile(backend: &str, source: &str, folder: &Path, more: &[&str]) -> Result<PathBuf> {
    tools::need(&["gcc"])?;
    let library = build::build(backend, true, None)?.static_lib;
    let program = folder.join(source).with_extension(more.concat().replace(|c: char| !c.is_ascii_alphanumeric(), ""));
    let mut command = Command::new("gcc");
    command.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread", "-rdynamic"]).args(more);
    command.arg("-I").arg(build::root().join("include")).arg(build::root().join("tests/stacks").join(source));
    tools::output(command.arg(library).args(["-ldl", "-lm", "-o"]).arg(&program))?;
    Ok(program)
}

/// Runs a program with nothing of ours in its environment but this.
fn run(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Done> {
    let done = tools::attempt(clean(program).args(arguments).envs(environment.iter().copied()))?;
    ensure!(done.success, "{arguments:?} with {environment:?}: {}\n{}", done.ending, done.all());
    Ok(done)
}

fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ALLOKIT_")) {
        command.env_remove(name);
    }
    command.env_remove("LD_PRELOAD");
    command
}

/// The function's name in `tree(make+0x1f)` or `make (tree.c:40)`.
fn function(frame: &str) -> String {
    match frame.split_once(" (") {
        Some((name, _)) => name,
        None => frame.split_once('(').and_then(|(_, rest)| rest.split_once('+')).map_or(frame, |(name, _)| name),
    }
    .to_string()
}

/// Sums by the names of the stack up to `main`, the outermost first.
fn by_names(rows: impl Iterator<Item = (Vec<String>, i64, i64)>) -> BTreeMap<String, (i64, i64)> {
    let mut sums = BTreeMap::<String, (i64, i64)>::new();
    for (mut names, blocks, bytes) in rows {
        if let Some(main) = names.iter().position(|name| name == "main") {
            names.truncate(main + 1);
        }
        names.reverse();
        let sum = sums.entry(names.join(";")).or_default();
        *sum = (sum.0 + blocks, sum.1 + bytes);
    }
    sums
}

/// What the JSON report has.
fn of_json(json: &serde_json::Value) -> Result<BTreeMap<String, (i64, i64)>> {
    let rows = json["sites"].as_array().context("no sites")?;
    let number = |row: &serde_json::Value, key: &str| row[key].as_i64().unwrap_or(i64::MIN);
    Ok(by_names(rows.iter().map(|row| {
        let frames = row["stack"].as_array().into_iter().flatten();
        let name = |frame: &serde_json::Value| {
            frame["function"].as_str().or(frame["symbol"].as_str()).unwrap_or("?").to_string()
        };
        (frames.map(name).collect(), number(row, "blocks"), number(row, "bytes"))
    })))
}

fn tree(backend: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let deep = |levels: usize, kept: usize| {
        let all = [vec!["main"], vec!["deep"; levels + 1], vec!["make"]].concat();
        all[all.len().saturating_sub(kept)..].join(";")
    };
    let wanted = |kept: usize| {
        BTreeMap::from([
            // Three calls of `first`, and two more from another line; the first two blocks are freed.
            ("main;first;make".to_string(), (3, 300)),
            ("main;second;make".to_string(), (5, 5000)),
            ("main;resized".to_string(), (1, 3000)),
            (deep(4, kept), (1, 7)),
            (deep(60, kept), (1, 7)),
        ])
    };
    let pointers: &[&str] = &["-O1", "-fno-omit-frame-pointer"];
    let ways: &[(&[&str], &str)] = if backend == "native" {
        &[
            (pointers, "fp"),
            (&["-O1", "-fno-omit-frame-pointer", "-DAK_TRACK"], "fp"),
            (&["-O2", "-fomit-frame-pointer"], "eh"),
            (pointers, "eh"),
        ]
    } else {
        &[(pointers, "fp")]
    };
    for (flags, unwind) in ways {
        if *unwind == "eh" && !cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
            continue;
        }
        let program = compile(backend, "tree.c", folder.path(), flags)?;
        let place = folder.path().to_str().context("a folder's name is UTF-8")?;
        for depth in [32, 128] {
            let depth_text = depth.to_string();
            let environment =
                [("ALLOKIT_TRACK", "stacks"), ("ALLOKIT_UNWIND", unwind), ("ALLOKIT_STACK_DEPTH", depth_text.as_str())];
            let done = run(&program, &[place], &environment)?;
            let wanted = wanted(depth);
            let read = |name: &str| fs::read(folder.path().join(name)).with_context(|| name.to_string());
            let what = format!("{flags:?}, {unwind}, {depth}");

            let json: serde_json::Value = serde_json::from_slice(&read("live.json")?)?;
            ensure!(of_json(&json)? == wanted, "{what}: {:#?}", of_json(&json)?);
            ensure!(json["tracking"] == "stacks" && json["bytes"] == json["stats"]["current_bytes"], "{what}: {json}");
            ensure!(json["blocks"] == 11 && json["sampled"].is_null(), "{what}: {json}");

            let bases = test_profile::bases(&read("live.pb")?)?;
            let base = json["sites"][0]["stack"][1]["base"].as_str().and_then(|base| base.strip_prefix("0x"));
            let base = u64::from_str_radix(base.context("no base")?, 16)?;
            ensure!(bases.contains(&base), "{what}: the program begins at {base:#x}, mappings say {bases:x?}");
            let (found, period) = test_profile::stacks(&read("live.pb")?)?;
            let found =
                by_names(found.iter().map(|(names, blocks, bytes)| {
                    (names.iter().map(|name| function(name)).collect(), *blocks, *bytes)
                }));
            ensure!(found == wanted && period == 0, "{what}, pprof: {found:#?}");

            let folded = String::from_utf8(read("live.folded")?)?;
            let lines: Option<Vec<_>> = folded.lines().map(|line| line.rsplit_once(' ')).collect();
            let found = by_names(lines.context("a line has no number")?.into_iter().map(|(stack, bytes)| {
                (stack.split(';').rev().map(function).collect(), 0, bytes.parse().unwrap_or(-1))
            }));
            ensure!(
                found
                    .iter()
                    .map(|(stack, sums)| (stack, sums.1))
                    .eq(wanted.iter().map(|(stack, sums)| (stack, sums.1))),
                "{what}, folded: {found:#?}"
            );

            // Two stacks of one function are two rows, each with its callers below it.
            let text = &done.stderr;
            ensure!(text.starts_with("allokit: 11 live blocks, 8314 bytes, from 6 call sites\n"), "{what}: {text}");
            let lines: Vec<&str> = text.lines().collect();
            let row =
                lines.iter().position(|line| line.split_whitespace().take(2).eq(["5", "5000"])).context("no row")?;
            let by = |at: usize, name: &str| lines[at].trim_start().starts_with("by ") && lines[at].contains(name);
            ensure!(by(row + 1, "(second+0x") && by(row + 2, "(main+0x"), "{what}: {text}");
            let page = String::from_utf8(read("live.html")?)?;
            ensure!(page.contains("\"stack\":["), "{what}: the page has no stacks");
        }
    }
    Ok(())
}

fn odd(backend: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = compile(backend, "odd.c", folder.path(), &["-O2", "-fomit-frame-pointer"])?;
    let plugin = folder.path().join("plugin.so");
    let mut command = Command::new("gcc");
    command.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&plugin).arg(build::root().join("tests/stacks/plugin.c"));
    tools::output(&mut command)?;
    let (plugin, file) = (plugin.to_str().context("UTF-8")?, folder.path().join("live.pb"));
    for unwind in ["fp", "eh"] {
        for bytes in ["0", "4K"] {
            let environment = [("ALLOKIT_TRACK", "stacks"), ("ALLOKIT_UNWIND", unwind), ("ALLOKIT_SAMPLE", bytes)];
            for case in ["registers", "threads", "signals", "coroutines", "switching"] {
                run(&program, &[case], &environment)?;
            }
            let done = run(&program, &["unload", plugin, file.to_str().context("UTF-8")?], &environment)?;
            // What has been unloaded has addresses left.
            ensure!(bytes != "0" || done.stderr.contains("allokit: 3 live blocks, 33 bytes"), "{}", done.stderr);
            test_profile_of_unloaded(&fs::read(&file)?)?;
        }
    }
    if backend == "native" {
        run(&program, &["switching"], &[])?;
    }
    Ok(())
}

/// It can be read, though modules that it names are gone.
fn test_profile_of_unloaded(bytes: &[u8]) -> Result<()> {
    match test_profile::stacks(bytes) {
        Err(error) if !error.to_string().contains("has no mapping") => Err(error),
        _ => Ok(()),
    }
}

/// The estimate is near what is live, for blocks of many sizes; the same seed makes the same sample.
fn sample() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = compile("native", "tree.c", folder.path(), &["-O1", "-fno-omit-frame-pointer"])?;
    let place = folder.path().to_str().context("UTF-8")?;
    let mut before = None;
    for (bytes, interval, most) in [("4K", 4 << 10, 0.04), ("4K", 4 << 10, 0.04), ("512K", 512 << 10, 0.25)] {
        let environment = [
            ("ALLOKIT_TRACK", "stacks"),
            ("ALLOKIT_SAMPLE", bytes),
            ("ALLOKIT_SAMPLE_SEED", "7"),
            ("ALLOKIT_UNWIND", "fp"),
        ];
        run(&program, &["sample", place, "200000"], &environment)?;
        let json: serde_json::Value = serde_json::from_slice(&fs::read(folder.path().join("live.json"))?)?;
        let found = of_json(&json)?;
        for (stack, blocks, bytes) in
            [("main;small;make", 200_000.0, 103_100_000.0), ("main;large;make", 50_000.0, 51_550_000.0)]
        {
            let (blocks_found, bytes_found) = found.get(stack).with_context(|| format!("{stack}: {found:?}"))?;
            for (found, is) in [(*blocks_found as f64, blocks), (*bytes_found as f64, bytes)] {
                // Small blocks are sampled less often: their number is the worse known one.
                let most = if is == blocks { 2.0 * most } else { most };
                ensure!((found / is - 1.0).abs() <= most, "of {interval} bytes one: {stack}: {found}, and it is {is}");
            }
        }
        ensure!(json["sampled"] == interval && json["stats"]["current_bytes"] == 154_650_000, "{json}");
        ensure!(json["notes"][0].as_str().is_some_and(|note| note.contains("estimated")), "{}", json["notes"]);
        let (stacks, period) = test_profile::stacks(&fs::read(folder.path().join("live.pb"))?)?;
        ensure!(period == interval && stacks.len() == 2, "{period}, {stacks:?}");
        if interval == 4 << 10 {
            let sums = Some(found);
            ensure!(before.is_none() || before == sums, "the same seed, another sample");
            before = sums;
        }
    }
    Ok(())
}

/// A million different stacks: told once, each block counted.
fn many() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = compile("native", "odd.c", folder.path(), &["-O1", "-fno-omit-frame-pointer"])?;
    let done = run(&program, &["many"], &[("ALLOKIT_TRACK", "stacks"), ("ALLOKIT_UNWIND", "fp")])?;
    let said =
        "allokit: there is no room for more than 786432 different stacks; further blocks have their call site only\n";
    ensure!(done.stderr == said, "{}", done.stderr);
    Ok(())
}

/// A large program without frame pointers, with threads.
fn python() -> Result<()> {
    tools::need(&["python3"])?;
    let library = build::build_preload(&build::Options::new("native"))?;
    let folder = tempfile::tempdir()?;
    let script = "import json, threading\nkept = []\ndef work():\n kept.append(json.loads(json.dumps([{str(i): [i] * 9} \
                  for i in range(3000)])))\nts = [threading.Thread(target=work) for _ in range(3)]\n[t.start() for t in ts]\n\
                  [t.join() for t in ts]\nimport os\nos.kill(os.getpid(), 12)\nimport time\ntime.sleep(0.5)\nos._exit(0)\n";
    for (unwind, bytes) in [("fp", "0"), ("eh", "64K")] {
        let file = folder.path().join(format!("{unwind}.json"));
        let mut command = clean(Path::new("python3"));
        command.args(["-c", script]).env("LD_PRELOAD", &library).env("PYTHONMALLOC", "malloc").env("LC_ALL", "C");
        command.env("ALLOKIT_TRACK", "stacks").env("ALLOKIT_UNWIND", unwind).env("ALLOKIT_SAMPLE", bytes);
        // The report is written by the signal: at its end the program frees most.
        command.env("ALLOKIT_SIGNAL", "USR2").env("ALLOKIT_PROFILE", format!("json:{}", file.display()));
        command.env("ALLOKIT_POLICY", "abort");
        let output = command.stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&file)?)?;
        let sum: u64 = json["sites"].as_array().into_iter().flatten().filter_map(|row| row["bytes"].as_u64()).sum();
        let live = json["stats"]["current_bytes"].as_u64().context("no statistics")?;
        ensure!(json["bytes"] == sum && (bytes != "0" || sum == live), "{sum} of {live}");
        let deepest =
            json["sites"].as_array().into_iter().flatten().filter_map(|row| row["stack"].as_array()).map(Vec::len);
        if unwind == "eh" && cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
            ensure!(deepest.max() >= Some(8), "no stack is deep");
        }
    }
    Ok(())
}

/// Off, on, what is live in a file, off: by a signal, twice; and by words in the pipe.
fn signal() -> Result<()> {
    use std::io::{BufRead, BufReader, Read};
    let library = build::build_preload(&build::Options::new("native"))?;
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("server");
    let mut command = Command::new("gcc");
    command.args(["-std=gnu11", "-O2", "-fno-omit-frame-pointer", "-fno-builtin", "-rdynamic", "-o"]).arg(&program);
    tools::output(command.arg(build::root().join("tests/preload/server.c")))?;
    let (pipe, profile) = (folder.path().join("control"), folder.path().join("live.folded"));
    for by_pipe in [false, true] {
        let mut command = clean(&program);
        command.env("LD_PRELOAD", &library).env("ALLOKIT_PROFILE", format!("folded:{}", profile.display()));
        command.env("ALLOKIT_SIGNAL", "USR2").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if by_pipe {
            command.env("ALLOKIT_CONTROL", &pipe);
        }
        let mut server = command.spawn()?;
        BufReader::new(server.stdout.take().context("no output")?).read_line(&mut String::new())?;
        let order = |words: &[&str]| -> Result<()> {
            if by_pipe {
                words.iter().try_for_each(|word| fs::write(&pipe, format!("{word}\n")))?;
            } else {
                tools::run(Command::new("kill").args(["-USR2", &server.id().to_string()]))?;
            }
            std::thread::sleep(Duration::from_millis(300));
            Ok(())
        };
        for _ in 0..2 {
            order(&["sample 0", "track stacks"])?;
            order(&[&format!("folded:{}", profile.display()), "track off"])?;
            let folded = fs::read_to_string(&profile).context("no profile was written")?;
            let found = folded.lines().any(|line| line.contains(";server(main+0x") || line.contains("main+0x"));
            ensure!(found && folded.contains("server(forgets+0x"), "{folded}");
            fs::remove_file(&profile)?;
        }
        drop(server.stdin.take());
        let status = server.wait()?;
        let mut said = String::new();
        server.stderr.take().context("no stderr")?.read_to_string(&mut said)?;
        ensure!(status.success(), "{status}\n{said}");
        if !by_pipe {
            let said: Vec<&str> = said.lines().map(|line| line.split(" in ").next().unwrap_or("")).collect();
            let once = [
                "allokit: signal: tracking is on; the next one writes what is live",
                "allokit: signal: what is live is",
                "allokit: signal: tracking is off",
            ];
            ensure!(said == [once, once].concat(), "{said:?}");
        }
    }
    Ok(())
}
