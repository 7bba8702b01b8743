//! The report of `cargo xtask bench --arenas`: arenas, regions, pools and stacks beside others of their kind. Owns the list of
//! figures with their targets and what others have published, and the report's forms; the programs are xtask's.

use crate::machine::Machine;
use crate::report::{Sheet, escaped, sheet_html, sheet_markdown, sheet_text};
use crate::result::{Missing, Spread};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// A library that runs through the loops.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kind {
    pub name: String,
    pub version: String,
    pub origin: String,
}

/// What one library reached in one figure: one number for each round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reached {
    pub kind: String,
    pub figure: String,
    pub rounds: Vec<f64>,
}

/// A whole measurement; written as JSON and read again to make reports of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Arenas {
    pub machine: Machine,
    pub rounds: u32,
    pub seconds: f64,
    pub kinds: Vec<Kind>,
    pub missing: Vec<Missing>,
    pub arenas: Vec<Reached>,
}

/// A row of the table.
struct Figure {
    /// As the programs print it.
    name: &'static str,
    title: &'static str,
    /// In ns; None: no target is set.
    target: Option<f64>,
    /// EasyMem is not packaged: what is published of it, from another machine.
    easymem: Option<f64>,
}

const fn figure(name: &'static str, title: &'static str, target: Option<f64>, easymem: Option<f64>) -> Figure {
    Figure { name, title, target, easymem }
}

const FIGURES: [Figure; 13] = [
    figure("l1", "arena, 16-256 B, in L1", Some(0.9), Some(1.1)),
    figure("560k", "arena, 16-256 B, 560 KB", Some(2.0), Some(2.7)),
    figure("aligned_l1", "arena, aligned to 64, in L1", None, Some(2.9)),
    figure("aligned_560k", "arena, aligned to 64, 560 KB", None, Some(2.0)),
    figure("region_pair", "region: alloc and free, one block", Some(7.0), Some(20.0)),
    figure("region_1024", "region: alloc and free, 1024 live, random", None, None),
    figure("region_100000", "region: alloc and free, 100 000 live, random", None, None),
    figure("region_long_way", "region: alloc and free, split and merged each time", None, None),
    figure("region_dearest_1024", "region: the dearest call, 1024 live", None, None),
    figure("region_dearest_100000", "region: the dearest call, 100 000 live", None, None),
    figure("pool_pair", "pool: take and give", Some(1.5), None),
    figure("pool_fifo64", "pool: 64 taken, then 64 given", None, None),
    figure("stack_pair", "stack: push and pop", None, None),
];

/// The subject's name among the kinds.
pub const SUBJECT: &str = "allokit";

impl Arenas {
    fn spread(&self, kind: &str, figure: &str) -> Option<Spread> {
        let reached = self.arenas.iter().find(|one| one.kind == kind && one.figure == figure)?;
        Spread::of(reached.rounds.iter().copied())
    }

    fn sheet(&self) -> Sheet {
        let mut head = vec!["ns".to_string()];
        head.extend(self.kinds.iter().map(|kind| kind.name.clone()));
        head.extend(["EasyMem, published".to_string(), "target".to_string(), "verdict".to_string()]);
        let row = |figure: &Figure| {
            let mut row = vec![figure.title.to_string()];
            row.extend(self.kinds.iter().map(|kind| {
                let cell = |found: Spread| format!("{:.2} ({:.2})", found.best, found.median);
                self.spread(&kind.name, figure.name).map_or_else(|| "-".to_string(), cell)
            }));
            row.push(figure.easymem.map_or_else(|| "-".to_string(), |value| value.to_string()));
            row.push(figure.target.map_or_else(String::new, |target| format!("<= {target}")));
            row.push(match (figure.target, self.spread(SUBJECT, figure.name)) {
                (None, _) => String::new(),
                (Some(_), None) => "not measured".to_string(),
                (Some(target), Some(found)) if found.best <= target => "met".to_string(),
                (Some(target), Some(found)) => format!("MISSED by {:.0} %", 100.0 * (found.best / target - 1.0)),
            });
            row
        };
        Sheet {
            title: "Arenas, regions, pools and stacks".into(),
            note: "Nanoseconds for an allocation, or for a pair; the least of the rounds, and in brackets their median. \
                   An int of each block is written. `the dearest call`: of 20 000 calls, each the least of 15 repeats, so \
                   that what the machine does in between is left out; it includes the cache misses of a first touch. EasyMem is \
                   in no distribution: its figures are the published ones, from another machine."
                .into(),
            head,
            rows: FIGURES.iter().map(row).collect(),
        }
    }

    fn heading(&self) -> Vec<String> {
        let machine = &self.machine;
        let mut lines = vec![
            format!("{}, {} cores, Linux {}, {}", machine.cpu, machine.cores, machine.kernel, machine.libc),
            format!(
                "{}, commit {}, {} rounds interleaved, {:.0} s, load before {:.1}",
                machine.date, machine.commit, self.rounds, self.seconds, machine.load_before
            ),
        ];
        if machine.load_before > 0.5 {
            lines.push("The machine was NOT QUIET when this began: read the figures with care.".into());
        }
        lines.extend(self.kinds.iter().map(|kind| format!("{} {} ({})", kind.name, kind.version, kind.origin)));
        lines.extend(self.missing.iter().map(|missing| format!("MISSING: {}: {}", missing.name, missing.why)));
        lines
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        self.heading().join("\n") + "\n" + &sheet_text(&self.sheet())
    }

    /// For a page of docs/.
    pub fn markdown(&self) -> String {
        self.heading().join("  \n") + "\n" + &sheet_markdown(&self.sheet())
    }

    /// A page of its own.
    pub fn page(&self) -> String {
        let mut out = crate::report::page_head("Allokit: arenas");
        for line in self.heading() {
            let _ = writeln!(out, "<p>{}</p>", escaped(&line));
        }
        out += &sheet_html(&self.sheet());
        out + "</body></html>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Arenas {
        let reached = |kind: &str, figure: &str, rounds: &[f64]| Reached {
            kind: kind.into(),
            figure: figure.into(),
            rounds: rounds.to_vec(),
        };
        let kind = |name: &str| Kind { name: name.into(), version: "1 <2>".into(), origin: "somewhere".into() };
        Arenas {
            machine: Machine::here(std::path::Path::new(".")),
            rounds: 3,
            seconds: 1.0,
            kinds: [SUBJECT, "bumpalo"].map(kind).to_vec(),
            missing: vec![Missing { name: "talloc".into(), why: "not here".into() }],
            arenas: vec![
                reached(SUBJECT, "l1", &[0.9, 0.7, 0.8]),
                reached("bumpalo", "l1", &[1.25, 1.5, 1.0]),
                reached(SUBJECT, "pool_pair", &[3.0, 3.5, 3.25]),
            ],
        }
    }

    #[test]
    fn the_forms_say_the_same() {
        let report = sample();
        for form in [report.text(), report.markdown(), report.page()] {
            for word in
                ["0.70 (0.80)", "1.00 (1.25)", "met", "MISSED by 100 %", "not measured", "MISSING: talloc", "EasyMem"]
            {
                assert!(form.contains(word), "{word} is not in\n{form}");
            }
        }
        assert!(report.page().contains("1 &lt;2&gt;"));
    }

    #[test]
    fn json_can_be_read_again() {
        let text = serde_json::to_string(&sample()).unwrap();
        let again: Arenas = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), text);
    }
}
