//! What the tracker tells of live blocks (tests/profile): sites, snapshots and their differences, profiles, against what
//! the program is known to have allocated; the pprof file is read by another implementation of protocol buffers.

use crate::build::{self, BACKENDS};
use crate::case::Case;
use crate::tools;
use anyhow::{Context, Result, ensure};
use prost::Message;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The cases of this module.
pub fn cases() -> Vec<Case> {
    BACKENDS.into_iter().map(|backend| Case::new(format!("profile/{backend}"), move || profile(backend))).collect()
}

/// The parts of pprof's profile.proto that are used, as that file numbers them.
#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    memory_start: u64,
    #[prost(uint64, tag = "3")]
    memory_limit: u64,
    #[prost(uint64, tag = "4")]
    file_offset: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(int64, tag = "6")]
    build_id: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

const GROW: &str = "grow \"here\".c";

/// The program, with call sites, or without so that its sites are return addresses.
fn compile(backend: &str, sites: bool, folder: &Path) -> Result<PathBuf> {
    tools::need(&["gcc"])?;
    let library = build::build(backend, true, None)?.static_lib;
    let program = folder.join(if sites { "profile" } else { "plain" });
    let mut command = Command::new("gcc");
    command.args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-pthread", "-rdynamic"]);
    command.args(sites.then_some("-DAK_TRACK")).arg("-I").arg(build::root().join("include"));
    command.arg(build::root().join("tests/profile/profile.c")).arg(library).args(["-ldl", "-lm", "-o"]).arg(&program);
    tools::output(&mut command)?;
    Ok(program)
}

fn profile(backend: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = compile(backend, true, folder.path())?;
    let run = |program: &Path, arguments: &[&str], environment: &[(&str, &str)]| -> Result<tools::Done> {
        let mut command = Command::new(program);
        command.args(arguments).env_remove("ALLOKIT_TRACK").envs(environment.iter().copied());
        let done = tools::attempt(&mut command)?;
        ensure!(done.success, "{arguments:?}: {}\n{}", done.ending, done.all());
        Ok(done)
    };
    let place = folder.path().to_str().context("a folder's name is UTF-8")?;
    let sites = [("ALLOKIT_TRACK", "sites")];
    run(&program, &["changes", place], &sites)?;
    run(&program, &["untracked"], &[])?;
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).with_context(|| name.to_string());

    // Three blocks of 1000 bytes and one of 50000; two more and that one freed; that one again.
    let text = read("first-second.txt")?;
    let lines: Vec<&str> = text.lines().collect();
    ensure!(lines.first() == Some(&"allokit: +1 blocks, -48000 bytes since the snapshot, at 2 call sites"), "{text}");
    let words: Vec<Vec<&str>> = lines.iter().map(|line| line.split_whitespace().collect()).collect();
    ensure!(words.get(2).is_some_and(|row| row[..4] == ["+2", "+2000", "5", "5000"]), "{text}");
    ensure!(lines[2].ends_with("grow \"here\".c:100 (grow)"), "{text}");
    ensure!(words.get(3).is_some_and(|row| row[..4] == ["-1", "-50000", "0", "0"]), "{text}");
    ensure!(lines[3].ends_with("once.c:200 (once)") && lines.len() == 4, "{text}");
    let back = read("second-first.txt")?;
    ensure!(back.starts_with("allokit: -1 blocks, +48000 bytes since the snapshot, at 2 call sites\n"), "{back}");
    let now = read("first-now.txt")?;
    ensure!(now.starts_with("allokit: +2 blocks, +2000 bytes") && !now.contains("once.c"), "{now}");
    let same = "allokit: +0 blocks, +0 bytes since the snapshot, at 0 call sites\n";
    ensure!(read("same.txt")? == same, "{}", read("same.txt")?);

    let json: serde_json::Value = serde_json::from_str(&read("first-second.json")?)?;
    let wanted = serde_json::json!({"blocks": 1, "bytes": -48000, "sites": [
        {"site": {"file": GROW, "line": 100, "function": "grow"}, "blocks": 2, "bytes": 2000,
         "live_blocks": 5, "live_bytes": 5000, "live_blocks_before": 3, "live_bytes_before": 3000},
        {"site": {"file": "once.c", "line": 200, "function": "once"}, "blocks": -1, "bytes": -50000,
         "live_blocks": 0, "live_bytes": 0, "live_blocks_before": 1, "live_bytes_before": 50000},
    ]});
    ensure!(json == wanted, "{json}");
    let json: serde_json::Value = serde_json::from_str(&read("same.json")?)?;
    ensure!(json == serde_json::json!({"blocks": 0, "bytes": 0, "sites": []}), "{json}");

    let seen = read("sites.txt")?;
    ensure!(
        seen.contains(&format!("{GROW}:100 grow 5 5000\n")) && seen.contains("once.c:200 once 1 50000\n"),
        "{seen}"
    );
    ensure!(seen.find("once.c") < seen.find("grow"), "the most bytes come first: {seen}");
    let folded = read("live.folded")?;
    ensure!(folded.contains(&format!("grow ({GROW}:100) 5000\n")), "{folded}");
    let live = samples(&fs::read(folder.path().join("live.pb"))?)?;
    for wanted in [("grow", GROW, 100, 5, 5000), ("once", "once.c", 200, 1, 50000)] {
        let (name, file, line, blocks, bytes) = wanted;
        let found = live.iter().any(|sample| {
            (&*sample.name, &*sample.file, sample.line) == (name, file, line)
                && (sample.blocks, sample.bytes) == (blocks, bytes)
        });
        ensure!(found, "{wanted:?} is not among {live:?}");
    }

    // The report as data, and the page with the same data. What other libraries hold is among the numbers too.
    let json: serde_json::Value = serde_json::from_str(&read("live.json")?)?;
    ensure!(json["format"] == "allokit-report" && json["version"] == 1 && json["backend"] == backend, "{json}");
    ensure!(json["program"].as_str() == program.to_str() && json["pid"].as_u64() > Some(1), "{json}");
    let sum = |list: &serde_json::Value, key: &str| -> u64 {
        list.as_array().into_iter().flatten().filter_map(|row| row[key].as_u64()).sum()
    };
    let bytes = json["bytes"].as_u64().context("no bytes")?;
    ensure!(bytes >= 55000 && json["stats"]["current_bytes"] == bytes, "{json}");
    for key in ["blocks", "bytes"] {
        ensure!(json[key] == sum(&json["sites"], key) && json[key] == sum(&json["sizes"], key), "{key}: {json}");
    }
    let cells = json["map"]["cells"].as_array().into_iter().flatten();
    ensure!(bytes == cells.filter_map(|cell| cell[1].as_u64()).sum::<u64>(), "the map: {json}");
    let grown = serde_json::json!(
        {"site": {"file": GROW, "line": 100, "function": "grow"}, "blocks": 5, "bytes": 5000, "oldest": 0});
    let rows = json["sites"].as_array().context("no sites")?;
    ensure!(rows.contains(&grown) && json["heaps"] == serde_json::json!([]), "{json}");
    // 1000 bytes are in a class of 1024, 50000 in the doubling up to 65536.
    let sizes = json["sizes"].as_array().context("no sizes")?;
    let of =
        |most: u64| sizes.iter().find(|row| row["most"] == most).map_or(0, |row| row["bytes"].as_u64().unwrap_or(0));
    ensure!(of(1024) >= 5000 && of(65536) >= 50000, "{json}");
    let page = read("live.html")?;
    let (before, after) = allokit_report::page::around();
    let inside = page.strip_prefix(before).and_then(|page| page.strip_suffix(after)).context("not the page")?;
    let mut on_page: serde_json::Value = serde_json::from_str(inside)?;
    on_page["time_ns"] = json["time_ns"].clone();
    ensure!(on_page == json, "{on_page}");

    growth(&read, &|policy| run(&program, &["growth", place], &[sites[0], ("ALLOKIT_POLICY", policy)]))?;

    let said = run(&program, &["heaps", place], &[sites[0], ("ALLOKIT_POLICY", "report")])?.stderr;
    let line = "allokit: the inner: 1 blocks, 10240 bytes, live in heap \"</script>\"7\"\", made at profile.c:";
    ensure!(said.starts_with(line) && said.lines().count() == 1, "{said}");
    let page = read("heaps.html")?;
    let inside = page.strip_prefix(before).and_then(|page| page.strip_suffix(after)).context("not the page")?;
    ensure!(!inside.contains('<'), "{inside}");
    let json: serde_json::Value = serde_json::from_str(inside)?;
    let named = |name: &str| json["heaps"].as_array().into_iter().flatten().find(|heap| heap["name"] == name);
    let (all, one) = (named("all").context("no heap")?, named("</script>\"7\"").context("no heap in it")?);
    ensure!(one["parent"] == all["id"] && one["id"] != all["id"] && all["parent"] == "0", "{json}");
    ensure!(all["limit"] == 1 << 20 && one["limit"] == 0 && one["failed"] == 1 && one["blocks"] == 1, "{json}");
    ensure!(
        one["bytes"].as_u64() >= Some(10000) && all["bytes"] == 0 && one["reserved"].as_u64() > Some(10000),
        "{json}"
    );
    let json: serde_json::Value = serde_json::from_str(&read("no-heaps.json")?)?;
    ensure!(json["heaps"] == serde_json::json!([]), "{json}");

    // At exit, over what is there already; sites that are return addresses have the function's name.
    let plain = compile(backend, false, folder.path())?;
    for (format, name) in [("folded", "exit.folded"), ("pprof", "exit.pb")] {
        let path = folder.path().join(name);
        fs::write(&path, "from before")?;
        let wish = format!("{format}:{}", path.display());
        run(&plain, &["leave"], &[("ALLOKIT_TRACK", "sites"), ("ALLOKIT_PROFILE", &wish)])?;
    }
    let folded = read("exit.folded")?;
    ensure!(folded.lines().any(|line| line.starts_with("plain(") && line.ends_with(" 4000")), "{folded}");
    let live = samples(&fs::read(folder.path().join("exit.pb"))?)?;
    let found = live.iter().any(|sample| sample.bytes == 4000 && sample.address != 0 && sample.file.ends_with("plain"));
    ensure!(found, "{live:?}");

    // Each process its own file; return addresses with all that finds their lines later.
    let wish = format!("json:{place}/of-%p-%p.json");
    run(&plain, &["leave"], &[("ALLOKIT_TRACK", "sites"), ("ALLOKIT_PROFILE", &wish)])?;
    let names: Vec<String> = fs::read_dir(&folder)?
        .filter_map(|entry| Some(entry.ok()?.file_name().into_string().ok()?).filter(|name| name.starts_with("of-")))
        .collect();
    let [name] = &names[..] else { anyhow::bail!("not one file: {names:?}") };
    let json: serde_json::Value = serde_json::from_str(&read(name)?)?;
    ensure!(*name == format!("of-{0}-{0}.json", json["pid"]), "{name}");
    let site = json["sites"].as_array().into_iter().flatten().find(|row| row["bytes"] == 4000);
    let site = &site.context("the four blocks are not there")?["site"];
    ensure!(site["module"].as_str() == plain.to_str() && site["base"].is_string(), "{site}");

    // Leaks at exit in each form; one that cannot be written is said, and the program ends as it would have.
    let path = format!("{place}/at-exit");
    for form in ["1", "text", "json", "lines"] {
        let done = run(&program, &["leave"], &[sites[0], ("ALLOKIT_LEAKS", &format!("{form}:{path}-%p.{form}"))])?;
        ensure!(done.stderr.is_empty(), "{}", done.stderr);
        let name = fs::read_dir(&folder)?.flatten().map(|entry| entry.path());
        let name = name
            .filter(|path| path.extension().is_some_and(|end| end == form))
            .find(|path| path.file_stem().is_some_and(|stem| stem.to_string_lossy().starts_with("at-exit-")));
        let text = fs::read_to_string(name.with_context(|| format!("no {form} at exit"))?)?;
        let wanted = match form {
            "json" => "\"blocks\":4,\"bytes\":4000",
            "lines" => "grow \"here\".c:100: warning: 4000 bytes in 4 blocks leaked (grow)\n",
            _ => "               4          4000  grow \"here\".c:100 (grow)\n",
        };
        ensure!(text.contains(wanted) && text.contains("\n  ") == (form == "1" || form == "text"), "{form}: {text}");
        ensure!(text.contains("up to 1024") == (form == "text"), "{form}: {text}");
    }
    let done = run(&program, &["leave"], &[sites[0], ("ALLOKIT_LEAKS", "lines")])?;
    ensure!(done.stderr.contains(":100: warning: 4000 bytes in 4 blocks leaked (grow)\n"), "{}", done.stderr);
    let done = run(&program, &["leave"], &[sites[0], ("ALLOKIT_LEAKS", "json:/no/folder/x")])?;
    let said = "allokit: ALLOKIT_LEAKS: cannot write /no/folder/x; the leaks are lost\n";
    ensure!(done.stderr == said, "{}", done.stderr);
    let done = run(&program, &["leave"], &[("ALLOKIT_LEAKS", "lines:/tmp/x")])?;
    ensure!(done.stderr.starts_with("allokit: leaks are unknown: tracking is off"), "{}", done.stderr);
    let done = run(&program, &["leave"], &[("ALLOKIT_GROWTH", "often")])?;
    ensure!(done.stderr.starts_with("allokit: ALLOKIT_GROWTH=often is not known; valid: a time"), "{}", done.stderr);

    let done = run(&program, &["leave"], &[("ALLOKIT_TRACK", "sites"), ("ALLOKIT_PROFILE", "pprof:/no/folder/x")])?;
    let said = "allokit: ALLOKIT_PROFILE: cannot write /no/folder/x; the profile is lost\n";
    ensure!(done.stderr == said, "{}", done.stderr);
    let done = run(&program, &["leave"], &[("ALLOKIT_PROFILE", "xml:file")])?;
    let said = "allokit: ALLOKIT_PROFILE=xml:file is not known; valid: pprof:path, folded:path, html:path, json:path\n";
    ensure!(done.stderr == said, "{}", done.stderr);
    let done = run(&program, &["leave"], &[("ALLOKIT_PROFILE", "pprof:/tmp/x")])?;
    ensure!(done.stderr.contains("nothing is known: tracking is off"), "{}", done.stderr);
    Ok(())
}

/// Six snapshots, a mark with a block, and a seventh.
fn growth(read: &dyn Fn(&str) -> Result<String>, run: &dyn Fn(&str) -> Result<tools::Done>) -> Result<()> {
    let said = run("report")?.stderr;
    for context in ["one since the mark", "a snapshot is no mark"] {
        let wanted = format!("allokit: {context}: 1 blocks, 1000 bytes, live since the mark, from 1 call sites\n");
        ensure!(said.contains(&wanted), "{said}");
    }
    let none = read("growth-none.txt")?;
    ensure!(none == "allokit: growth is unknown: it takes two snapshots, and there is none\n", "{none}");
    let text = read("growth.text")?;
    ensure!(text.starts_with("allokit: growth over 7 snapshots in 0 s: -32000 bytes, +11 blocks\n"), "{text}");
    // Of 50000 at first and 0 at last: that one has not grown.
    let rows: Vec<Vec<&str>> = text.lines().skip(2).map(|line| line.split_whitespace().collect()).collect();
    let found = |row: &[&str], wanted: [&str; 5]| row[..5] == wanted;
    ensure!(found(&rows[0], ["likely", "6", "of", "6", "+11000"]), "{text}");
    ensure!(found(&rows[1], ["perhaps", "1", "of", "6", "+7000"]) && !text.contains("once.c"), "{text}");
    ensure!(text.contains("13000  grow \"here\".c:100 (grow)\n"), "{text}");
    let lines = read("growth.lines")?;
    let wanted = "grow \"here\".c:100: warning: grew in 6 of 6 snapshots, +11000 bytes, +";
    ensure!(lines.starts_with(wanted) && lines.lines().all(|line| line.contains(": warning: grew in ")), "{lines}");

    for name in ["growth.json", "growth-report.json"] {
        let json: serde_json::Value = serde_json::from_str(&read(name)?)?;
        let row = &json["growth"][0];
        let series = serde_json::json!([2000, 4000, 6000, 8000, 10000, 12000, 13000]);
        ensure!(row["series"] == series && row["site"]["line"] == 100 && row["leak"] == "likely", "{row}");
        ensure!(row["bytes"] == 11000 && row["blocks"] == 11 && row["live_blocks"] == 13, "{row}");
        ensure!(json["growth"][1]["series"] == serde_json::json!([0, 0, 0, 7000, 7000, 7000, 7000]), "{json}");
        let moments = json["timeline"].as_array().context("no timeline")?;
        let resident = |moment: &serde_json::Value| moment["resident_bytes"].as_u64() > Some(100_000);
        ensure!(moments.len() == 7 && moments.iter().all(resident), "{json}");
        ensure!(moments[6]["alloc_count"].as_u64() > moments[0]["alloc_count"].as_u64(), "{json}");
    }
    let many: serde_json::Value = serde_json::from_str(&read("growth-many.json")?)?;
    ensure!(many["snapshots"] == 64 && many["growth"] == serde_json::json!([]), "{many}");

    let leaks: serde_json::Value = serde_json::from_str(&read("leaks.json")?)?;
    let row = leaks["sites"].as_array().into_iter().flatten().find(|row| row["site"]["line"] == 100);
    // The first two were made before the first of seven snapshots and a mark.
    ensure!(row.context("no row")?["oldest"] == 8, "{leaks}");
    let ages: Vec<_> =
        leaks["ages"].as_array().into_iter().flatten().map(|age| (&age["least"], &age["bytes"])).collect();
    // Made 1; 2, 3; 4 to 7 stretches ago, and before. (Since the last snapshot: nothing.)
    let sum =
        |list: &str| leaks[list].as_array().into_iter().flatten().filter_map(|row| row["bytes"].as_u64()).sum::<u64>();
    ensure!(ages[0] == (&1.into(), &1000.into()) && ages[1] == (&2.into(), &2000.into()), "{leaks}");
    ensure!(ages[2] == (&4.into(), &15000.into()), "{leaks}");
    ensure!(sum("ages") == sum("sites") && sum("sizes") == sum("sites"), "{leaks}");
    let text = read("leaks.text")?;
    ensure!(text.contains("               1          1000  1 (for 0 s at least)\n"), "{text}");
    ensure!(text.contains("              13         13000  up to 1024\n"), "{text}");
    let lines = read("leaks.lines")?;
    ensure!(lines.contains("grow \"here\".c:100: warning: 13000 bytes in 13 blocks leaked (grow)\n"), "{lines}");
    Ok(())
}

#[derive(Debug)]
pub struct Live {
    pub name: String,
    file: String,
    line: i64,
    address: u64,
    blocks: i64,
    pub bytes: i64,
}

/// What a pprof file holds.
pub fn samples(bytes: &[u8]) -> Result<Vec<Live>> {
    let profile = Profile::decode(bytes).context("the pprof file cannot be read")?;
    let text = |index: i64| profile.string_table.get(index as usize).cloned().context("a string is missing");
    let mut kinds = Vec::new();
    for kind in &profile.sample_type {
        kinds.push((text(kind.kind)?, text(kind.unit)?));
    }
    ensure!(text(0)?.is_empty(), "the first string must be empty");
    ensure!(kinds == [("inuse_objects".into(), "count".into()), ("inuse_space".into(), "bytes".into())], "{kinds:?}");
    ensure!(text(profile.default_sample_type)? == "inuse_space", "{}", profile.default_sample_type);
    ensure!(profile.time_nanos > 1_700_000_000_000_000_000, "the time is {}", profile.time_nanos);
    let mut live = Vec::new();
    for sample in &profile.sample {
        let location = profile.location.iter().find(|location| [location.id] == *sample.location_id);
        let location = location.context("a sample has no location")?;
        let line = location.line.first().context("a location has no line")?;
        let function = profile.function.iter().find(|function| function.id == line.function_id);
        let function = function.context("a line has no function")?;
        let [blocks, bytes] = sample.value[..] else { anyhow::bail!("{:?} are not two values", sample.value) };
        live.push(Live {
            name: text(function.name)?,
            file: text(function.filename)?,
            line: line.line,
            address: location.address,
            blocks,
            bytes,
        });
    }
    Ok(live)
}

/// A sample of a pprof file: the names of its stack, the innermost first, blocks and bytes.
pub(crate) type Stack = (Vec<String>, i64, i64);

/// The stacks of a pprof file, and of how many bytes one was sampled (0: all). Each return address must lie in a mapping with
/// the path of a file, and each location be there once.
pub(crate) fn stacks(bytes: &[u8]) -> Result<(Vec<Stack>, i64)> {
    let profile = Profile::decode(bytes).context("the pprof file cannot be read")?;
    let text = |index: i64| profile.string_table.get(index as usize).cloned().context("a string is missing");
    let mut names = std::collections::HashMap::new();
    for location in &profile.location {
        let line = location.line.first().context("a location has no line")?;
        let function = profile.function.iter().find(|function| function.id == line.function_id);
        let name = text(function.context("a line has no function")?.name)?;
        ensure!(location.id != 0 && names.insert(location.id, name.clone()).is_none(), "{name} is there twice");
        if location.address == 0 {
            continue;
        }
        let mapping = profile.mapping.iter().find(|mapping| mapping.id == location.mapping_id);
        let mapping = mapping.with_context(|| format!("{name} has no mapping"))?;
        let extent = mapping.memory_start..mapping.memory_limit;
        let path = text(mapping.filename)?;
        ensure!(extent.contains(&(location.address - 1)) && !path.is_empty(), "{name}: {extent:x?} of {path}");
        ensure!(text(mapping.build_id)?.len() % 2 == 0 && mapping.file_offset < 1 << 40, "{path}");
    }
    let mut found = Vec::new();
    for sample in &profile.sample {
        let stack: Option<Vec<String>> = sample.location_id.iter().map(|id| names.get(id).cloned()).collect();
        let [blocks, bytes] = sample.value[..] else { anyhow::bail!("{:?} are not two values", sample.value) };
        found.push((stack.context("a location is missing")?, blocks, bytes));
    }
    if let Some(kind) = &profile.period_type {
        ensure!((text(kind.kind)?, text(kind.unit)?) == ("space".into(), "bytes".into()), "the period is of {kind:?}");
    }
    Ok((found, profile.period))
}

/// Where the modules of a pprof file begin, as its readers find it: from where their code lies in memory and in the file.
pub(crate) fn bases(bytes: &[u8]) -> Result<Vec<u64>> {
    let profile = Profile::decode(bytes).context("the pprof file cannot be read")?;
    Ok(profile.mapping.iter().map(|mapping| mapping.memory_start.wrapping_sub(mapping.file_offset)).collect())
}
