//! `allokit`, the command, installed into a prefix: what it runs, reads, compares and refuses (tests/cli).

use crate::build;
use crate::case::Case;
use crate::install;
use crate::test_page;
use crate::tools::{self, Done};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// The cases of this module.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("cli/unit", build::test_command),
        Case::new("cli/run", run),
        Case::new("cli/report-and-diff", report_and_diff),
        Case::new("cli/oom-sweep", oom_sweep),
        Case::new("cli/bad-input", bad_input),
        Case::new("cli/installed", installed),
    ]
}

/// The command in a prefix, with native's library, for all cases.
fn prefix() -> Result<&'static Path> {
    static PREFIX: OnceLock<std::result::Result<tempfile::TempDir, String>> = OnceLock::new();
    let made = PREFIX.get_or_init(|| {
        let put = || -> Result<tempfile::TempDir> {
            let folder = tempfile::tempdir()?;
            let (backend, options) = ("native", build::Options::new("native"));
            let preload = vec![build::build_preload(&options)?];
            let libraries = install::Libraries { backend, built: build::build_with(&options)?, preload };
            install::install(folder.path(), &[libraries], Some(&build::build_command()?))?;
            Ok(folder)
        };
        put().map_err(|error| format!("{error:#}"))
    });
    made.as_ref().map(tempfile::TempDir::path).map_err(|error| anyhow::anyhow!("{error}"))
}

/// Runs the command in a folder.
pub fn allokit<S: AsRef<OsStr>>(folder: &Path, arguments: &[S]) -> Result<Done> {
    let mut command = Command::new(prefix()?.join("bin/allokit"));
    for name in ["LD_PRELOAD", "ALLOKIT_LIB_DIR", "ALLOKIT_TRACK"] {
        command.env_remove(name);
    }
    // Files of the checkout are named from its root.
    command.env("GITHUB_WORKSPACE", build::root());
    tools::attempt(command.current_dir(folder).args(arguments))
}

/// tests/cli/leak.cpp, with debug information or as told.
fn leak(folder: &Path, name: &str, flags: &[&str]) -> Result<PathBuf> {
    tools::need(&["g++"])?;
    let program = folder.join(name);
    let mut command = Command::new("g++");
    command.current_dir(build::root()).args(["-std=c++11", "-O1", "-fno-inline", "tests/cli/leak.cpp"]);
    tools::output(command.args(flags).arg("-o").arg(&program))?;
    Ok(program)
}

fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let here = folder.path();
    leak(here, "leak", &["-g"])?;

    // The status of the program, its output untouched, and what is live by file and line.
    let done = allokit(here, &["run", "--", "./leak", "status", "3"])?;
    ensure!(
        done.ending == "exit status: 3" && done.stdout == "the program's own words\n",
        "{}: {}",
        done.ending,
        done.all()
    );
    let row = done.stderr.lines().find(|line| line.ends_with("leak.cpp:16 (store::Shelf::grow(int))"));
    let row: Vec<&str> =
        row.with_context(|| format!("no line of the leak in {}", done.stderr))?.split_whitespace().collect();
    ensure!(row[..2] == ["100", "104950"], "{row:?}");

    // By a signal, the program's or one that is passed on.
    let done = allokit(here, &["run", "--", "./leak", "abort"])?;
    ensure!(done.ending.starts_with("signal: 6"), "{}", done.ending);
    ensure!(done.stderr.contains("the program left no report: it ended by signal 6"), "{}", done.stderr);
    let mut command = Command::new(prefix()?.join("bin/allokit"));
    let mut child = command
        .current_dir(here)
        .args(["run", "--report", "json:sleep.json", "--", "./leak", "sleep"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    // It says when it is there.
    std::io::Read::read_exact(child.stdout.as_mut().context("no pipe")?, &mut [0; 3])?;
    // SAFETY: the process is our child and has not been waited for.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) };
    let (start, mut ended) = (Instant::now(), None);
    while ended.is_none() && start.elapsed() < Duration::from_secs(20) {
        ended = child.try_wait()?;
        std::thread::sleep(Duration::from_millis(5));
    }
    let Some(ended) = ended else {
        child.kill()?;
        anyhow::bail!("SIGTERM was not passed on");
    };
    ensure!(
        ended.code() == Some(9) && ended.signal().is_none(),
        "the program's handler for SIGTERM has not run: {ended}"
    );
    ensure!(here.join("sleep.json").is_file(), "and it left no report");

    // Several forms of one run; the page knows how resident memory went.
    let forms = ["html:r.html", "json:r.json", "pprof:r.pb", "folded:r.folded", "svg:r.svg", "ci"];
    let mut arguments = vec!["run", "--stats"];
    forms.iter().for_each(|form| arguments.extend(["--report", form]));
    arguments.extend(["--", "./leak", "slow"]);
    let done = allokit(here, &arguments)?;
    ensure!(done.success && done.stderr.contains("committed_bytes"), "{}", done.all());
    let line = "tests/cli/leak.cpp:16: warning: 104950 bytes in 100 blocks are live (store::Shelf::grow(int))";
    ensure!(done.stderr.lines().any(|said| said == line), "{}", done.stderr);
    let json: Value = serde_json::from_str(&fs::read_to_string(here.join("r.json"))?)?;
    let samples = json["timeline"].as_array().context("no samples")?;
    ensure!(
        samples.len() > 3 && samples.iter().all(|sample| sample["resident_bytes"].as_u64() > Some(0)),
        "{samples:?}"
    );
    ensure!(
        fs::read_to_string(here.join("r.svg"))?.contains("store::Shelf::grow"),
        "the flame graph lacks the function"
    );
    for (name, sites) in [("r.html", true), ("r.pb", true), ("r.folded", true)] {
        let done = allokit(here, &["report", name])?;
        let found = done.stdout.contains("104950") && done.stdout.contains("leak.cpp:16 (store::Shelf::grow(int))");
        ensure!(done.success && found == sites, "{name}: {}", done.all());
    }
    if test_page::browser().is_ok() {
        let page = fs::read_to_string(here.join("r.html"))?;
        let seen = test_page::drawn(&page, "", 1000, true)?;
        for piece in
            ["Memory of leak", "leak.cpp:16 (store::Shelf::grow(int))</td>", "resident bytes: ", "id=\"cells\""]
        {
            ensure!(seen.contains(piece), "the page lacks {piece}");
        }
    }

    // Two backends, in turns.
    let done = allokit(here, &["run", "--backend", "native,system", "--runs", "3", "--json", "--", "./leak"])?;
    let json: Value = serde_json::from_str(&done.stdout).with_context(|| done.all())?;
    let names: Vec<&Value> = json["backends"].as_array().into_iter().flatten().map(|row| &row["backend"]).collect();
    ensure!(names == ["native", "system"] && json["runs"] == 3, "{json}");
    let rows = &json["backends"];
    ensure!(rows[0]["committed_bytes"].as_u64() > Some(0) && rows[1]["committed_bytes"].is_null(), "{json}");
    ensure!(rows[1]["peak_resident_bytes"].as_u64() > Some(1 << 20), "{json}");
    let done = allokit(here, &["run", "--backend", "native,system", "--track", "sites", "--", "./leak"])?;
    ensure!(done.success && done.stdout.is_empty() && done.stderr.contains("| system  |"), "{}", done.all());
    let done = allokit(here, &["run", "--runs", "2", "--", "./leak", "status", "4"])?;
    ensure!(done.ending == "exit status: 4" && done.stderr.contains("run 1 with native failed"), "{}", done.all());

    // A program that starts others: its own report, and theirs on request.
    let done = allokit(here, &["run", "--keep", ".", "--", "sh", "-c", "./leak; ./leak; exit 5"])?;
    ensure!(done.ending == "exit status: 5", "{}: {}", done.ending, done.all());
    let kept = fs::read_dir(here)?.flatten().filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.strip_suffix(".json").is_some_and(|pid| pid.parse::<u32>().is_ok())
    });
    ensure!(kept.count() >= 2, "the reports of the processes that sh started are not there: {}", done.all());
    Ok(())
}

fn report_and_diff() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let here = folder.path();
    leak(here, "leak", &["-g"])?;
    for (name, more) in [("one.json", "0"), ("two.json", "7")] {
        let done = allokit(here, &["run", "--report", &format!("json:{name}"), "--", "./leak", "more", more])?;
        ensure!(done.success, "{}", done.all());
    }
    // Addresses differ from run to run; places do not.
    let done = allokit(here, &["diff", "one.json", "one.json"])?;
    ensure!(done.success && done.stdout == "+0 blocks, +0 bytes, at 0 call sites\n", "{}", done.all());
    let done = allokit(here, &["diff", "one.json", "two.json"])?;
    ensure!(done.ending == "exit status: 1", "{}", done.ending);
    ensure!(done.stdout.starts_with("+7 blocks, +3500 bytes, at 1 call sites\n"), "{}", done.stdout);
    ensure!(done.stdout.contains("leak.cpp:20 (store::Shelf::more(int))"), "{}", done.stdout);
    let done = allokit(here, &["diff", "two.json", "one.json"])?;
    ensure!(
        done.success && done.stdout.starts_with("-7 blocks, -3500 bytes"),
        "shrinking is no failure: {}",
        done.all()
    );
    let done = allokit(here, &["diff", "--allow", "3500", "one.json", "two.json"])?;
    ensure!(done.success, "{}", done.all());
    let done = allokit(here, &["diff", "--format", "json", "one.json", "two.json"])?;
    let json: Value = serde_json::from_str(&done.stdout)?;
    let row = &json["sites"][0];
    ensure!(json["bytes"] == 3500 && row["blocks"] == 7 && row["site"]["line"] == 20, "{json}");
    ensure!(row["live_bytes"] == 3500 && row["live_bytes_before"] == 0, "{json}");
    let done = allokit(here, &["diff", "--format", "github", "one.json", "two.json"])?;
    let line =
        "::warning file=tests/cli/leak.cpp,line=20,title=Allokit::grown by 3500 bytes in +7 blocks, to 3500 bytes in 7";
    ensure!(done.stdout.starts_with(line) && done.stdout.lines().count() == 1, "{}", done.stdout);
    let done = allokit(here, &["diff", "--format", "html", "-o", "d.html", "one.json", "two.json"])?;
    ensure!(
        done.ending == "exit status: 1" && fs::read_to_string(here.join("d.html"))?.contains("\"bytes_before\""),
        "{}",
        done.all()
    );

    // pprof, in and out, from a profile of the library's own too, and gone through gzip.
    let done = allokit(here, &["report", "--format", "pprof", "-o", "two.pb.gz", "two.json"])?;
    ensure!(done.success && fs::read(here.join("two.pb.gz"))?.starts_with(&[0x1f, 0x8b]), "{}", done.all());
    let done = allokit(here, &["diff", "two.json", "two.pb.gz"])?;
    ensure!(done.success && done.stdout.starts_with("+0 blocks, +0 bytes, at 0 "), "{}", done.all());
    let preload = prefix()?.join("lib/liballokit_preload_native.so");
    let mut command = Command::new(here.join("leak"));
    command
        .env("LD_PRELOAD", preload)
        .env("ALLOKIT_TRACK", "sites")
        .env("ALLOKIT_PROFILE", format!("pprof:{}/own.pb", here.display()));
    tools::output(&mut command)?;
    let done = allokit(here, &["report", "own.pb"])?;
    ensure!(done.success && done.stdout.contains("           100        104950"), "{}", done.all());

    // Stripped, and gone: said, and shown as far as it goes.
    leak(here, "bare", &["-s"])?;
    let done = allokit(here, &["run", "--report", "json:bare.json", "--", "./bare"])?;
    ensure!(done.success, "{}", done.all());
    let done = allokit(here, &["report", "bare.json"])?;
    ensure!(
        done.stdout.contains("note: stripped, so only names that are exported, and no lines: ")
            && done.stdout.contains("bare (1 call site)")
            && done.stdout.contains(" bare(+0x"),
        "{}",
        done.stdout
    );
    fs::remove_file(here.join("bare"))?;
    let done = allokit(here, &["report", "bare.json"])?;
    ensure!(done.success && done.stdout.contains("not there any more, so without lines: bare ("), "{}", done.stdout);
    Ok(())
}

/// tests/cli/oom.c: each of its mistakes is found at its line, and what it does right is none.
fn oom_sweep() -> Result<()> {
    tools::need(&["gcc"])?;
    let folder = tempfile::tempdir()?;
    let here = folder.path();
    let source = build::root().join("tests/cli/oom.c");
    let mut command = Command::new("gcc");
    command.args(["-std=gnu99", "-g", "-O1", "-fno-inline", "-fno-optimize-sibling-calls"]);
    tools::output(command.args(WARNINGS).arg("-o").arg(here.join("oom")).arg(&source))?;
    let text = fs::read_to_string(&source)?;
    // A mistake is where its request is: `malloc(102)`.
    let line = |what: &str| text.lines().position(|line| line.contains(what)).map_or(0, |at| at as u64 + 1);
    let sweep = |options: &[&str]| {
        let mut arguments = vec!["oom-sweep", "--timeout", "3", "--report", "json:o.json"];
        arguments.extend(options);
        arguments.extend(["--", "./oom"]);
        let done = allokit(here, &arguments)?;
        let json: Value =
            serde_json::from_str(&fs::read_to_string(here.join("o.json"))?).with_context(|| done.all())?;
        Ok::<_, anyhow::Error>((done, json))
    };
    let verdicts = |json: &Value| -> Vec<(String, u64, u64)> {
        let findings = json["findings"].as_array().into_iter().flatten();
        let one = |finding: &Value| {
            let name = finding["verdict"].as_str().unwrap_or("").to_string();
            (name, finding["place"]["line"].as_u64().unwrap_or(0), finding["end"][0]["line"].as_u64().unwrap_or(0))
        };
        let mut all: Vec<_> = findings.map(one).collect();
        all.sort();
        all
    };
    let expected = |wrapped: &[(&'static str, u64)]| {
        let place = |what: &str| line(what);
        let mut all = vec![
            ("crash", place("malloc(102)"), place("strcpy(text, \"unchecked\")")),
            ("leak", place("malloc(104)"), 0),
            ("corruption", place("malloc(107)"), 0),
            ("silent", place("strdup("), 0),
            ("handled", place("malloc(101)"), 0),
            ("handled", place("malloc(103)"), 0),
            ("handled", place("malloc(106)"), 0),
            ("handled", place("malloc(size)"), 0),
            // The buffer of standard output: it does without.
            ("handled", place("puts(text)"), 0),
        ];
        all.extend(wrapped.iter().map(|(verdict, end)| (*verdict, place("malloc(110)"), *end)));
        all
    };
    let same = |json: &Value, expected: &[(&str, u64, u64)]| {
        let mut found = verdicts(json);
        // These two end inside libc, whose lines are not known everywhere.
        let hang = found.iter().position(|one| one.0 == "hang" && one.1 == line("malloc(105)"));
        found.remove(hang.with_context(|| format!("no hang in {found:?}"))?);
        let abort = text.lines().enumerate().filter(|(_, line)| line.contains("malloc(size)")).nth(1);
        let abort = found.iter().position(|one| one.0 == "abort" && Some(one.1) == abort.map(|(at, _)| at as u64 + 1));
        found.remove(abort.with_context(|| format!("no abort in {found:?}"))?);
        let mut expected: Vec<_> = expected.iter().map(|one| (one.0.to_string(), one.1, one.2)).collect();
        expected.sort();
        ensure!(found == expected, "found {found:#?}\nexpected {expected:#?}");
        Ok(())
    };

    // By the first frame outside libc, a wrapper is one site, whose second caller does not look.
    let careless = line("text[0] = 'x'");
    let (done, json) = sweep(&["--jobs", "4", "--report", "github", "--report", "junit:o.xml"])?;
    ensure!(done.ending == "exit status: 1", "{}: {}", done.ending, done.all());
    same(&json, &expected(&[("crash", careless)]))?;
    let at = line("malloc(104)");
    let annotation = format!("::error file=tests/cli/oom.c,line={at},title=Allokit::a failed allocation here is not");
    ensure!(done.stdout.lines().any(|line| line.starts_with(&annotation)), "{}", done.stdout);
    ensure!(done.stdout.matches("::error ").count() == 5, "{}", done.stdout);
    let junit = fs::read_to_string(here.join("o.xml"))?;
    ensure!(junit.contains("tests=\"12\" failures=\"5\"") && junit.matches("<failure ").count() == 5, "{junit}");
    let leak = json["findings"].as_array().into_iter().flatten().find(|one| one["verdict"] == "leak");
    let leak = leak.context("no leak")?;
    let said = format!("1 block allocated at {}:{} (forgets)", source.display(), line("malloc(103)"));
    ensure!(
        leak["more"][0] == said && leak["about"].as_str().is_some_and(|about| about.contains("103 bytes")),
        "{leak}"
    );

    // By the stack, each caller is a site; the text names them, and what to type.
    let (done, json) = sweep(&["--depth", "stack", "--report", "text"])?;
    same(&json, &expected(&[("crash", careless), ("handled", 0)]))?;
    for piece in ["double free of 0x", "(careless)\n", "again: ALLOKIT_FAIL_ONLY='oom+0x"] {
        ensure!(done.stdout.contains(piece), "no {piece} in {}", done.stdout);
    }
    // What to type does it again.
    let mut again = done.stdout.lines().filter_map(|line| line.trim().strip_prefix("again: "));
    let script = format!("{} exec ./oom", again.next_back().context("nothing to type")?);
    let mut command = Command::new("sh");
    command
        .current_dir(here)
        .arg("-c")
        .arg(script)
        .env("LD_PRELOAD", prefix()?.join("lib/liballokit_preload_native.so"));
    let silent = tools::attempt(&mut command)?;
    ensure!(silent.success && silent.stdout.is_empty(), "{}", silent.all());

    // A single failure is got over by trying again; verdicts that are not asked for are no failure.
    let (done, json) = sweep(&["--once", "--max-sites", "5", "--fail-on", "hang,abort"])?;
    ensure!(done.success && json["sites"] == 5 && json["counts"]["hang"] == 0, "{}: {json}", done.all());
    // Where exit is called, what is live counts only when it is asked for.
    let (_, json) = sweep(&["--leaks", "none"])?;
    ensure!(json["counts"]["leak"] == 0, "{json}");
    Ok(())
}

fn bad_input() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let here = folder.path();
    leak(here, "leak", &["-g"])?;
    leak(here, "static", &["-static"])?;
    fs::copy(here.join("leak"), here.join("suid"))?;
    let is_root = fs::metadata(here.join("leak")).is_ok_and(|about| std::os::unix::fs::MetadataExt::uid(&about) == 0);
    if is_root {
        std::os::unix::fs::chown(here.join("suid"), Some(65534), None)?;
    }
    fs::set_permissions(here.join("suid"), fs::Permissions::from_mode(0o4755))?;
    fs::write(here.join("plain.txt"), "Dear reader,\nthis is a letter.\n")?;
    fs::write(here.join("script"), "#!/bin/sh\nexec ./static\n")?;
    fs::set_permissions(here.join("script"), fs::Permissions::from_mode(0o755))?;
    let done = allokit(here, &["run", "--report", "json:whole.json", "--report", "pprof:whole.pb", "--", "./leak"])?;
    ensure!(done.success, "{}", done.all());
    for name in ["whole.json", "whole.pb"] {
        let bytes = fs::read(here.join(name))?;
        fs::write(here.join(format!("cut-{name}")), &bytes[..bytes.len() / 2])?;
    }
    let refusals: &[(&[&str], &str, &str)] = &[
        (&["run", "--", "./no-such"], "127", "there is no program ./no-such"),
        (&["run", "--", "leak"], "127", "cannot find leak in PATH; for the file in this folder: ./leak"),
        (&["run", "--", "./plain.txt"], "126", "it is not executable"),
        (&["run", "--", "./static"], "126", "linked statically"),
        (
            &["run", "--backend", "foo", "--", "./leak"],
            "125",
            "--backend foo is not known; valid: native, mimalloc, jemalloc, system",
        ),
        (&["run", "--backend", "jemalloc", "--", "./leak"], "125", "liballokit_preload_jemalloc.so is missing"),
        (
            &["run", "--backend", "system", "--report", "text", "--", "./leak"],
            "125",
            "nothing is known of its call sites",
        ),
        (&["run", "--track", "all", "--", "./leak"], "125", "--track all is not known; valid: off, sites, stacks"),
        (&["run", "--report", "xml:f", "--", "./leak"], "125", "--report xml:f is not known; valid: text,"),
        (&["run", "--report", "html", "--", "./leak"], "125", "wants a file: --report html:FILE"),
        (
            &["run", "--report", "html:/no/folder/r.html", "--", "./leak"],
            "125",
            "cannot write to the folder /no/folder",
        ),
        (&["run", "--report", "html:.", "--", "./leak"], "125", "it is a folder"),
        (&["run", "--runs", "2", "--report", "text", "--", "./leak"], "125", "a comparison has no --report"),
        (&["oom-sweep", "--", "./no-such"], "127", "there is no program ./no-such"),
        (&["oom-sweep", "--", "./static"], "126", "linked statically"),
        (&["oom-sweep", "--backend", "system", "--", "./leak"], "2", "valid: native, mimalloc, jemalloc"),
        (&["oom-sweep", "--guard", "on", "--", "./leak"], "2", "liballokit_preload_native_guard.so is missing"),
        (&["oom-sweep", "--fail-on", "hung", "--", "./leak"], "2", "--fail-on hung is not known; valid: crash, hang"),
        (&["oom-sweep", "--depth", "9", "--", "./leak"], "2", "--depth 9 is not known; valid: auto, stack"),
        (&["oom-sweep", "--report", "xml", "--", "./leak"], "2", "valid: text, json, junit, github"),
        (
            &["oom-sweep", "--leaks", "some", "--", "./leak"],
            "2",
            "--leaks some is not known; valid: returned, all, none",
        ),
        (&["oom-sweep", "--", "./leak", "abort"], "2", "without any failure the program ends by SIGABRT"),
        (&["report", "no-such.json"], "2", "cannot read no-such.json"),
        (&["report", "cut-whole.json"], "2", "cut-whole.json: the file is cut off"),
        (&["report", "cut-whole.pb"], "2", "cut-whole.pb: the file is cut off"),
        (&["report", "plain.txt"], "2", "neither pprof, nor folded stacks, nor a report of Allokit"),
        (&["report", "leak"], "2", "the file is a program"),
        (&["report", "/dev/null"], "2", "the file is empty"),
        (&["report", "whole.json", "-o", "/no/folder/x"], "2", "cannot write /no/folder/x"),
        (&["report", "whole.json", "-o", "/dev/full"], "2", "cannot write /dev/full"),
        (&["diff", "whole.json", "plain.txt"], "2", "plain.txt: "),
        (&["diff", "--format", "svg", "whole.json", "whole.json"], "2", "a difference is shown as text"),
    ];
    for (arguments, code, words) in refusals {
        let done = allokit(here, arguments)?;
        let said =
            done.stderr.starts_with("allokit: ") && done.stderr.lines().count() == 1 && done.stderr.contains(words);
        ensure!(
            done.ending == format!("exit status: {code}") && said,
            "{arguments:?}: {}\n{}",
            done.ending,
            done.all()
        );
        ensure!(done.stdout.is_empty(), "{arguments:?}: {}", done.stdout);
    }
    if is_root {
        let done = allokit(here, &["run", "--", "./suid"])?;
        ensure!(done.ending == "exit status: 126" && done.stderr.contains("set-user-id"), "{}", done.all());
    }
    // It ends in a program that takes no library: the program is unharmed, and it is said why there is no report.
    let done = allokit(here, &["run", "--", "./script"])?;
    ensure!(done.success && done.stdout == "the program's own words\n", "{}", done.all());
    ensure!(done.stderr.contains("the program left no report: "), "{}", done.stderr);
    // A reader that goes away is no error.
    let mut shell = Command::new("sh");
    shell.current_dir(here).arg("-c").arg("\"$0\" report --top 0 whole.json | true").arg(prefix()?.join("bin/allokit"));
    let done = tools::attempt(&mut shell)?;
    ensure!(done.success && done.stderr.is_empty(), "{}", done.all());
    Ok(())
}

/// What `cargo xtask install` puts there beside the command.
fn installed() -> Result<()> {
    let prefix = prefix()?;
    for page in ["allokit.1", "allokit-run.1", "allokit-report.1", "allokit-diff.1", "allokit-oom-sweep.1"] {
        let text = fs::read_to_string(prefix.join("share/man/man1").join(page)).with_context(|| page.to_string())?;
        ensure!(text.contains(".TH ") && text.contains("SYNOPSIS"), "{page}: {text}");
    }
    let bash = prefix.join("share/bash-completion/completions/allokit");
    let script = format!(
        ". {}; COMP_WORDS=(allokit re); COMP_CWORD=1; _allokit allokit re allokit; echo \"${{COMPREPLY[*]}}\"",
        bash.display()
    );
    let completed = tools::output(Command::new("bash").args(["--norc", "-c", &script]))?;
    ensure!(completed.trim() == "report", "re is completed to {completed:?}");
    ensure!(
        fs::read_to_string(prefix.join("share/zsh/site-functions/_allokit"))?.starts_with("#compdef allokit"),
        "zsh"
    );
    ensure!(
        fs::read_to_string(prefix.join("share/fish/vendor_completions.d/allokit.fish"))?
            .contains("complete -c allokit"),
        "fish"
    );
    let version = allokit(prefix, &["--version"])?;
    ensure!(version.stdout == format!("allokit {}\n", build::VERSION), "{}", version.stdout);
    // A prefix that was moved is still whole.
    let moved = tempfile::tempdir()?;
    for file in ["bin/allokit", "lib/liballokit_preload_native.so"] {
        fs::create_dir_all(moved.path().join(file).parent().context("a folder")?)?;
        fs::copy(prefix.join(file), moved.path().join(file))?;
    }
    let program = leak(moved.path(), "leak", &["-g"])?;
    let mut command = Command::new(moved.path().join("bin/allokit"));
    let done = tools::attempt(command.env_remove("ALLOKIT_LIB_DIR").args(["run", "--"]).arg(&program))?;
    ensure!(done.success && done.stderr.contains("104950"), "{}", done.all());
    let mut command = Command::new(moved.path().join("bin/allokit"));
    let done = tools::attempt(command.env("ALLOKIT_LIB_DIR", "/nowhere").args(["run", "--"]).arg(&program))?;
    ensure!(done.ending == "exit status: 125" && done.stderr.contains("not in /nowhere"), "{}", done.all());
    Ok(())
}
