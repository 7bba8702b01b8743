//! The page of a report in a browser: headless Chromium draws it, and what its script has made of the data is looked at in
//! the document that comes out. Also the metrics, which prometheus_client reads: the formats' own parser.

use crate::build;
use crate::case::{Case, LeftOut};
use crate::tools;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The cases of this module.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("report/page", page),
        Case::new("report/page-many-sites", many_sites),
        Case::new("report/metrics", metrics),
    ]
}

/// The page of some data, as the library and the command write it.
pub fn page_of(data: &Value) -> Result<String> {
    let mut text = String::new();
    allokit_report::page::write(&mut text, |out| out.write_str(&data.to_string()))?;
    Ok(text)
}

/// A browser, or the reason why what needs one is left out.
pub fn browser() -> Result<std::path::PathBuf> {
    if tools::need(&["chromium"]).is_err() {
        return Err(LeftOut::because(
            "no browser draws the page here; on Debian: apt-get install chromium-headless-shell (or CHROMIUM=path)",
        ));
    }
    tools::find("chromium")
}

/// The document after its scripts have run, in a window so wide. `script` runs after those of the page.
pub fn drawn(page: &str, script: &str, width: u32, dark: bool) -> Result<String> {
    let browser = browser()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("page.html");
    fs::write(&path, page.replace("</body>", &format!("<script>{script}</script></body>")))?;
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=5000"]);
    command.arg(format!("--window-size={width},900")).arg(format!("--user-data-dir={}", folder.path().display()));
    command.arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)));
    let done = tools::attempt(command.arg(format!("file://{}", path.display())))?;
    ensure!(done.success && done.stdout.contains("</html>"), "the browser: {}\n{}", done.ending, done.all());
    Ok(done.stdout)
}

/// The texts of the elements that begin so (`<td`), without the elements inside them.
fn texts<'a>(document: &'a str, begin: &str) -> Vec<&'a str> {
    let (begin, end) = (format!("<{begin}"), format!("</{}>", begin.split(' ').next().unwrap_or(begin)));
    let rest = document.split(&begin).skip(1);
    rest.filter_map(|rest| Some(rest.split_once('>')?.1.split_once(&end)?.0)).collect()
}

fn report() -> Value {
    let evil = "</script><img src=x onerror=document.title='broken'>\u{2028}.c";
    json!({"format": "allokit-report", "version": 1, "program": "/usr/bin/server", "pid": 7, "time_ns": 1_700_000_000_000_000_000u64,
        "allokit": "0.1.0", "backend": "native", "tracking": "sites", "notes": ["a note"],
        "stats": {"peak_bytes": 9000, "committed_bytes": null},
        "blocks": 16, "bytes": 8000, "bytes_before": 7000, "blocks_before": 15, "sites": [
            {"site": {"file": "src/parse.c", "line": 12, "function": "grow"}, "blocks": 10, "bytes": 6000,
             "blocks_before": 9, "bytes_before": 4900},
            {"site": {"file": evil, "line": 3, "function": "<b>"}, "blocks": 1, "bytes": 1500, "blocks_before": 1, "bytes_before": 1600},
            {"site": {"address": "0x55d0", "module": "/lib/libx.so", "symbol": "make", "offset": 31}, "blocks": 4, "bytes": 400,
             "stack": [{"function": "make"}, {"function": "outer_frame"}], "blocks_before": 4, "bytes_before": 400},
            {"site": {}, "blocks": 1, "bytes": 100, "blocks_before": 1, "bytes_before": 100},
        ],
        "sizes": [{"most": 16, "blocks": 6, "bytes": 90}, {"most": 640, "blocks": 10, "bytes": 7910}],
        "map": {"unit": 65536, "cells": [[0, 7000], [3, 1000]]},
        "heaps": [{"id": "a", "parent": "0", "name": "tenants", "bytes": 10, "blocks": 1, "reserved": 16384, "peak": 20, "limit": 4096, "failed": 2},
                  {"id": "b", "parent": "a", "name": "<i>one", "file": "t.c", "line": 9, "bytes": 5, "blocks": 1, "reserved": 16384, "peak": 5, "limit": 0, "failed": 0}],
        "growth": [
            {"site": {"file": "src/parse.c", "line": 12, "function": "grow"}, "leak": "likely", "grew": 2, "fell": 0, "of": 2, "trend": 1000,
             "bytes": 1100, "blocks": 1, "bytes_per_minute": 733_333, "live_blocks": 10, "live_bytes": 6000, "series": [4900, 5000, 6000]},
            {"site": {"file": "<b>.c", "line": 1}, "leak": "no", "grew": 1, "fell": 1, "of": 2, "trend": 0, "bytes": 5, "live_bytes": 9}],
        "ages": [{"least": 0, "most": 0, "blocks": 6, "bytes": 2000, "ms": 0}, {"least": 2, "most": 3, "blocks": 10, "bytes": 6000, "ms": 1500}],
        "owners": {"heap": {"live": 2}, "arena": {"live": 3, "reserved_bytes": 4096, "used_bytes": null, "peak_bytes": 8192}},
        "timeline": [{"ms": 0, "resident_bytes": 1000, "alloc_count": 100}, {"ms": 50, "resident_bytes": 5_242_880, "alloc_count": 150},
            {"ms": 90, "resident_bytes": 2000, "alloc_count": 350}]})
}

fn page() -> Result<()> {
    let text = page_of(&report())?;
    let seen = drawn(&text, "", 1200, false)?;
    let has = |seen: &str, piece: &str| ensure_has(seen, piece);
    for piece in [
        "<title>server: Allokit report</title>",
        "2023-11-14 22:13:20 UTC",
        "a note",
        "<b>+1000 B</b>since the first",
        "<b>unknown</b>held from the system",
        "2 stretches of 64.0 KiB hold the live blocks: 6.1 % of them is live. 2 are less than a quarter full.",
        "resident bytes: 1000 B at first, 5.00 MiB at most, 1.95 KiB at last",
        "3 snapshots in 0 s. 1 of 4 call sites grow steadily",
        "<td class=\"up\">likely</td><td>2 of 2</td><td title=\"1\u{202f}100 bytes\" class=\"up\">+1.07 KiB</td><td>+716 KiB</td>",
        "d=\"M0.0 4.3L50.0 4.0L100.0 1.0\"",
        "Allocations a second between snapshots: 1\u{202f}000 at first, 5\u{202f}000 at most, 5\u{202f}000 at last.",
        "<td>2–3</td><td>≥ 1.5 s</td><td>10</td>",
        "<b>arenas</b> 3 live, 4.00 KiB held, peak 8.00 KiB",
        "<b>tenants</b> 10 B in 1 blocks, 16.0 KiB held, peak 20 B, limit 4.00 KiB, 2 refused<ul>",
        "<b>&lt;i&gt;one</b> 5 B in 1 blocks, 16.0 KiB held, peak 5 B, made at t.c:9",
    ] {
        has(&seen, piece)?;
    }
    // The one that grew most first, since there is another moment to compare with.
    let cells = texts(&seen, "td ");
    let rows = seen.split("<tbody>").nth(1).context("no table")?.split("</tbody>").next().unwrap_or("");
    let places: Vec<&str> = rows.split("<tr>").skip(1).filter_map(|row| texts(row, "td").last().copied()).collect();
    ensure!(places.len() == 4 && places[0] == "src/parse.c:12 (grow)", "{places:?}");
    ensure!(places[1..].contains(&"libx.so(make+0x1f)") && places[1..].contains(&"unknown site"), "{places:?}");
    ensure!(
        places[3].starts_with("&lt;/script&gt;&lt;img src=x") && places[3].ends_with(":3 (&lt;b&gt;)"),
        "{places:?}"
    );
    ensure!(cells.contains(&"+1.07 KiB") && cells.contains(&"−100 B"), "{cells:?}");
    let boxes = texts(&seen, "button class=\"box");
    for wanted in ["server", "src/", "parse.c", "grow", "src/parse.c:12 (grow)", "outer_frame", "make", "unknown site"]
    {
        ensure!(boxes.contains(&wanted), "no box {wanted:?} among {boxes:?}");
    }
    ensure!(!boxes.contains(&"libx.so"), "a site with a stack is drawn as its stack: {boxes:?}");
    ensure!(seen.matches("<i title=").count() == 2 && seen.matches("<i class=\"gap\"").count() == 1, "{seen}");
    ensure!(seen.contains("<path style=\"stroke:hsl(200 75% 50%)\" d=\"M70.0 "), "no line over time");

    // By hand: another order, the filter, a zoom and the way back with the keyboard, the third metric.
    let keys = |key: &str| {
        format!("document.activeElement.dispatchEvent(new KeyboardEvent('keydown',{{key:'{key}',bubbles:true}}));")
    };
    let says = "document.body.append(Object.assign(document.createElement('output'),{textContent:document.activeElement.textContent+'|'+$('about').textContent}));";
    let press = "[...document.querySelectorAll('th button')].find(b=>b.textContent==='blocks').click();";
    let seen = drawn(&text, press, 1200, false)?;
    has(&seen, "<th scope=\"col\" aria-sort=\"descending\"><button type=\"button\">blocks</button>")?;
    let filter = "$('filter').value='GROW';$('filter').dispatchEvent(new Event('input'));";
    let seen = drawn(&text, filter, 1200, false)?;
    has(&seen, "1 of 4, 5.86 KiB")?;
    ensure!(seen.contains("class=\"box  off\""), "what does not match is grey");
    let seen = drawn(&text, &filter.replace("GROW", "nowhere"), 1200, false)?;
    has(&seen, "No call site has this in its name.")?;
    let walk = format!(
        "document.querySelector('#rows button').focus();{down}{down}{says}document.activeElement.click();{says}{escape}{says}",
        down = keys("ArrowDown"),
        escape = keys("Escape")
    );
    let seen = drawn(&text, &walk, 1200, false)?;
    let outputs = texts(&seen, "output");
    ensure!(outputs.len() == 3, "{outputs:?}");
    ensure!(outputs[0] == "parse.c|parse.c — 5.86 KiB, 75.0 % of all; live: 5.86 KiB in 10 blocks", "{outputs:?}");
    ensure!(
        outputs[1].starts_with("parse.c|parse.c — ") && outputs[2].starts_with("server|server — 7.81 KiB"),
        "{outputs:?}"
    );
    let seen = drawn(&text, "[...$('metrics').children][2].click();", 1200, false)?;
    has(&seen, "server — grown by 1.07 KiB, 100.0 % of all")?;

    // A narrow window scrolls within its tables only; dark is dark.
    let measure = "document.body.append(Object.assign(document.createElement('output'),{textContent:document.documentElement.scrollWidth+' '+document.documentElement.clientWidth+' '+getComputedStyle(document.body).backgroundColor}));";
    for (width, dark, colour) in [(500, false, "rgb(247, 247, 245)"), (500, true, "rgb(20, 23, 26)")] {
        let seen = drawn(&text, measure, width, dark)?;
        let outputs = texts(&seen, "output");
        let words: Vec<&str> = outputs.first().context("nothing was measured")?.splitn(3, ' ').collect();
        ensure!(words[0] == words[1] && words[2] == colour, "{words:?}");
    }

    // What is not known, or not there, is said.
    let bare = json!({"format": "allokit-report", "version": 1, "bytes": 0, "blocks": 0, "sites": []});
    let seen = drawn(&page_of(&bare)?, "", 1200, false)?;
    for piece in [
        "Nothing is live: every block has been freed.",
        "Not known: a process takes no samples of itself.",
        "Not known: the source of this report does not tell where blocks lie.",
        "Not known: the source of this report has no heaps.",
        "No call site has live blocks.",
        "Not known: it takes two snapshots or more: ALLOKIT_GROWTH=30s",
        "Not known: the source of this report has no ages.",
    ] {
        has(&seen, piece)?;
    }
    let cut = text.replace("\"timeline\"", "\"timeline");
    has(&drawn(&cut, "", 1200, false)?, "It may have been cut off on its way; write the report again.")?;
    has(&drawn(&page_of(&json!({"blocks": 1}))?, "", 1200, false)?, "its data is not a report of Allokit")?;
    pictures(&text)
}

fn ensure_has(seen: &str, piece: &str) -> Result<()> {
    let body = seen.split("<script type=\"application/json\"").next().unwrap_or(seen);
    ensure!(body.contains(piece), "not on the page: {piece}\n{}", &body[body.len().saturating_sub(12_000)..]);
    Ok(())
}

/// A picture of the page is not of one colour.
fn pictures(text: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (path, picture) = (folder.path().join("page.html"), folder.path().join("page.png"));
    fs::write(&path, text)?;
    screenshot(&path, &picture, 1000, 1200)?;
    let size = picture.metadata().context("the browser made no picture")?.len();
    // A blank picture of this size has about 6 KB.
    ensure!(size > 30_000, "the picture has {size} bytes: is it blank?");
    Ok(())
}

/// Has the browser take a picture.
pub fn screenshot(page: &Path, picture: &Path, width: u32, height: u32) -> Result<()> {
    let mut command = Command::new(browser()?);
    let folder = tempfile::tempdir()?;
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=5000"]);
    command.arg(format!("--user-data-dir={}", folder.path().display()));
    command.arg(format!("--window-size={width},{height}")).arg(format!("--screenshot={}", picture.display()));
    tools::output(command.arg(format!("file://{}", page.display()))).map(drop)
}

/// 100 000 call sites, one of them with most of the memory, and the others small: a table of the first ones, a flame graph
/// of few boxes, nothing lost in the sums.
fn many_sites() -> Result<()> {
    const MANY: u64 = 100_000;
    let mut sites =
        vec![json!({"site": {"file": "big.c", "line": 1, "function": "big"}, "blocks": 1, "bytes": 3 * MANY})];
    for i in 1..MANY {
        let site = json!({"file": format!("src/{}/{}.c", i % 50, i % 1000), "line": i, "function": format!("f{i}")});
        sites.push(json!({"site": site, "blocks": 1, "bytes": 3}));
    }
    let total = 3 * MANY + 3 * (MANY - 1);
    let data =
        json!({"format": "allokit-report", "version": 1, "blocks": MANY, "bytes": total, "sites": sites, "stats": {}});
    let seen = drawn(&page_of(&data)?, "", 1200, false)?;
    ensure_has(&seen, "100\u{202f}000 of 100\u{202f}000, 586 KiB")?;
    ensure_has(&seen, "Show 400 more of 99\u{202f}960")?;
    let boxes = texts(&seen, "button class=\"box");
    ensure!(boxes.len() < 600, "{} boxes", boxes.len());
    ensure!(boxes.contains(&"big.c:1 (big)") && boxes.contains(&"src/7/"), "{boxes:?}");
    ensure!(boxes.iter().any(|text| text.ends_with(" together")), "small ones are put together: {boxes:?}");
    let one = json!({"format": "allokit-report", "version": 1, "blocks": 1, "bytes": 1, "stats": {}, "sites": [{"site": {"address": "0x1"}, "blocks": 1, "bytes": 1}]});
    let seen = drawn(&page_of(&one)?, "", 1200, false)?;
    ensure_has(&seen, ">0x1</td>")
}

/// What a program's `ALLOKIT_STATS` writes is read by the reference parsers of both formats.
fn metrics() -> Result<()> {
    const PARSER: &str = "
import sys, json
from prometheus_client.parser import text_string_to_metric_families as prometheus
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
parse = {'prometheus': prometheus, 'openmetrics': openmetrics}[sys.argv[1]]
families = parse(open(sys.argv[2]).read())
print(json.dumps([[f.name, f.type, f.unit, [[s.name, s.labels, float(s.value)] for s in f.samples]] for f in families]))
";
    if tools::need(&["python3", "prometheus_client"]).is_err() {
        return Err(LeftOut::because(
            "prometheus_client is missing; on Debian: apt-get install python3-prometheus-client",
        ));
    }
    let folder = tempfile::tempdir()?;
    for backend in ["native", "jemalloc"] {
        let library = build::build(backend, true, None)?.static_lib;
        let (source, program) = (folder.path().join("leave.c"), folder.path().join("leave"));
        fs::write(
            &source,
            "#include \"alloc.h\"\nint main(void) { ak_free(ak_alloc(77)); return ak_alloc(12345) == 0; }\n",
        )?;
        let mut gcc = Command::new("gcc");
        gcc.arg("-I").arg(build::root().join("include")).arg(&source).arg(&library);
        tools::output(gcc.args(["-pthread", "-ldl", "-lm", "-o"]).arg(&program))?;
        for (format, is_open) in [("prometheus", false), ("openmetrics", true)] {
            let path = folder.path().join(format);
            let mut command = Command::new(&program);
            command.env("ALLOKIT_TRACK", "sites").env("ALLOKIT_STATS", format!("{format}:{}", path.display()));
            tools::output(&mut command)?;
            // The system's Python: the package is one of the system.
            let mut python = Command::new("/usr/bin/python3");
            let read = tools::output(python.args(["-c", PARSER, format]).arg(&path))?;
            let families: Value = serde_json::from_str(&read)?;
            let family = |name: &str| families.as_array()?.iter().find(|family| family[0] == name);
            let unit = if is_open { "bytes" } else { "" };
            let labels = json!({"backend": backend});
            for (name, kind, sample, unit, value) in [
                ("allokit_alloc_bytes", "counter", "allokit_alloc_bytes_total", unit, 12422.0),
                ("allokit_free_count", "counter", "allokit_free_count_total", "", 1.0),
                ("allokit_current_bytes", "gauge", "allokit_current_bytes", unit, 12345.0),
            ] {
                let wanted = json!([name, kind, unit, [[sample, labels, value]]]);
                ensure!(family(name) == Some(&wanted), "{format}: {wanted} is not in {families}");
            }
            ensure!(families.as_array().is_some_and(|all| all.len() >= 6), "{format}: {families}");
        }
    }
    Ok(())
}
