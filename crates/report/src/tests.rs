//! Each format, read back by something that knows it.

use crate::{FIELDS, Format, Head, Owners, Tracking, leak_heading, leak_row, write_stats};
use allokit_core::{Known, Stats};
use std::collections::HashMap;
use std::string::{String, ToString};
use std::vec::Vec;

const HEAD: Head<'_> = Head { version: "0.1.0", backend: "native", tracking: Tracking::Sites };

const OWNERS: &[Owners] = &[
    Owners { kind: "heap", live: 2, reserved: 1 << 20, used: Some(4096), peak: 1 << 21 },
    Owners { kind: "arena", live: 0, reserved: 0, used: None, peak: 65536 },
    Owners { kind: "pool", live: 0, reserved: 0, used: None, peak: 0 },
];

fn all_known() -> Stats {
    Stats {
        struct_size: size_of::<Stats>(),
        known: Known((1 << 10) - 1),
        alloc_count: 123,
        free_count: 120,
        alloc_bytes: 4567,
        free_bytes: 4467,
        current_bytes: 100,
        peak_bytes: 2000,
        reserved_bytes: 1 << 40,
        committed_bytes: 65536,
        mapped_peak_bytes: u64::MAX,
        threads: 1,
    }
}

fn written(format: Format, head: &Head<'_>, stats: &Stats) -> String {
    let mut text = String::new();
    write_stats(format, head, stats, OWNERS, &mut text).unwrap();
    text
}

#[test]
fn text() {
    let expected = "\
allokit 0.1.0, backend native, tracking sites
  allocated        123 blocks         4567 bytes
  freed            120 blocks         4467 bytes
  live               3 blocks          100 bytes
  peak                                2000 bytes
  reserved                   1099511627776 bytes
  committed                          65536 bytes
  mapped peak         18446744073709551615 bytes
  threads            1
  heaps              2 live        1048576 bytes, 4096 used, peak 2097152
  arenas             0 live              0 bytes, unknown used, peak 65536
";
    assert_eq!(written(Format::Text, &HEAD, &all_known()), expected);
}

#[test]
fn text_says_what_is_unknown() {
    let mut stats = all_known();
    stats.known = Known::COMMITTED_BYTES | Known::ALLOC_COUNT;
    let head = Head { tracking: Tracking::None, backend: "system", ..HEAD };
    let expected = "\
allokit 0.1.0, backend system, built without tracking
  allocated        123 blocks      unknown bytes
  freed        unknown blocks      unknown bytes
  live         unknown blocks      unknown bytes
  peak                             unknown bytes
  reserved                         unknown bytes
  committed                          65536 bytes
  mapped peak                      unknown bytes
  threads      unknown
";
    let written_with = written(Format::Text, &head, &stats);
    assert!(written_with.starts_with(expected) && written_with.contains("\n  arenas  "), "{written_with}");
    assert!(!written_with.contains("pools"), "{written_with}");
    let off = written(Format::Text, &Head { tracking: Tracking::Off, ..HEAD }, &stats);
    assert!(off.starts_with("allokit 0.1.0, backend native, tracking off\n"));
}

#[test]
fn json() {
    let mut stats = all_known();
    stats.known = Known(stats.known.0 & !Known::PEAK_BYTES.0);
    for (tracking, name) in [(Tracking::None, "none"), (Tracking::Off, "off"), (Tracking::Sites, "sites")] {
        let text = written(Format::Json, &Head { tracking, ..HEAD }, &stats);
        assert_eq!(text.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["allokit"], &value["backend"]), (&"0.1.0".into(), &"native".into()));
        assert_eq!(value["tracking"], name);
        let fields = value["stats"].as_object().unwrap();
        assert_eq!(fields.len(), FIELDS.len());
        for field in FIELDS {
            assert_eq!(fields[field.name].as_u64(), field.get(&stats), "{}", field.name);
        }
        let heaps = &value["owners"]["heap"];
        assert_eq!((heaps["live"].as_u64(), heaps["reserved_bytes"].as_u64()), (Some(2), Some(1 << 20)));
        assert_eq!((heaps["used_bytes"].as_u64(), heaps["peak_bytes"].as_u64()), (Some(4096), Some(1 << 21)));
        assert!(value["owners"]["arena"]["used_bytes"].is_null());
        assert!(fields["peak_bytes"].is_null() && fields["mapped_peak_bytes"].as_u64() == Some(u64::MAX));
    }
}

#[test]
fn prometheus() {
    let mut stats = all_known();
    stats.known = Known(stats.known.0 & !Known::RESERVED_BYTES.0);
    let text = written(Format::Prometheus, &HEAD, &stats);
    let (mut types, mut helps, mut values) = (HashMap::new(), Vec::new(), HashMap::new());
    let mut owners = HashMap::new();
    for line in text.lines() {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["#", "HELP", name, ..] => helps.push(name.to_string()),
            ["#", "TYPE", name, kind] => _ = types.insert(name.to_string(), kind),
            [sample, value] => {
                let (name, labels) = sample.split_once("{backend=\"native\"").unwrap();
                if let Some(kind) = labels.strip_prefix(",kind=\"").and_then(|kind| kind.strip_suffix("\"}")) {
                    assert!(types.contains_key(name) && helps.last().unwrap() == name);
                    owners.insert((name.to_string(), kind.to_string()), value.parse::<u64>().unwrap());
                    continue;
                }
                assert_eq!(labels, "}");
                assert!(types.contains_key(name) && helps.last().unwrap() == name);
                values.insert(name.to_string(), value.parse::<u64>().unwrap());
            }
            _ => panic!("{line}"),
        }
    }
    assert_eq!(values.len(), FIELDS.len() - 1);
    // Three kinds with three figures, and one whose use is known.
    assert_eq!(owners.len(), 10);
    assert_eq!(owners[&("allokit_owners_used_bytes".to_string(), "heap".to_string())], 4096);
    assert_eq!(owners[&("allokit_owners_peak_bytes".to_string(), "arena".to_string())], 65536);
    assert_eq!(values["allokit_alloc_count_total"], 123);
    assert_eq!(values["allokit_free_bytes_total"], 4467);
    assert_eq!((types["allokit_free_bytes_total"], types["allokit_peak_bytes"]), ("counter", "gauge"));
    assert!(!values.contains_key("allokit_reserved_bytes"));
}

#[test]
fn openmetrics() {
    let mut stats = all_known();
    stats.known = Known::FREE_BYTES | Known::PEAK_BYTES | Known::THREADS;
    let expected = "\
# TYPE allokit_free_bytes counter
# UNIT allokit_free_bytes bytes
# HELP allokit_free_bytes Bytes taken back.
allokit_free_bytes_total{backend=\"native\"} 4467
# TYPE allokit_peak_bytes gauge
# UNIT allokit_peak_bytes bytes
# HELP allokit_peak_bytes The most bytes that were live.
allokit_peak_bytes{backend=\"native\"} 2000
# TYPE allokit_threads gauge
# HELP allokit_threads Threads that hold allocator state.
allokit_threads{backend=\"native\"} 1
# EOF
";
    assert_eq!(written(Format::OpenMetrics, &HEAD, &stats), expected);
    // The tests of `formats/metrics` have prometheus_client read what the library writes.
    assert_eq!(written(Format::OpenMetrics, &HEAD, &Stats { known: Known(0), ..stats }), "# EOF\n");
}

#[test]
fn leaks() {
    let mut text = String::new();
    leak_heading(&mut text, None, 3, 1234, 2).unwrap();
    leak_row(&mut text, 2, 1200, &"leak.c:12 (make_buffer)").unwrap();
    leak_row(&mut text, 1, 34, &"leak.c:20 (main)").unwrap();
    let expected = "\
allokit: 3 live blocks, 1234 bytes, from 2 call sites
           count         bytes  call site
               2          1200  leak.c:12 (make_buffer)
               1            34  leak.c:20 (main)
";
    assert_eq!(text, expected);
    text.clear();
    leak_heading(&mut text, Some(&"shutdown"), 3, 1234, 2).unwrap();
    let first = "allokit: shutdown: 3 blocks, 1234 bytes, live since the mark, from 2 call sites\n";
    assert!(text.starts_with(first));
}
