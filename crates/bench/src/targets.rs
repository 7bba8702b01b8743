//! What is to be reached, by the native backend, and how far it got.

use crate::plan::Group;
use crate::result::{Measure, Report};
use crate::suite::{REFERENCE, SUBJECT};
use serde::Serialize;

enum Source {
    /// A geometric mean against the reference.
    Mean(Measure, Option<Group>),
    /// A figure of a micro program.
    Figure(&'static str),
    /// The worst single program against the reference.
    Worst,
}

/// A row of the table below.
pub struct Target {
    pub name: &'static str,
    pub unit: &'static str,
    pub aim: f64,
    /// `>=` instead of `<=`.
    pub more: bool,
    source: Source,
}

const fn mean(name: &'static str, measure: Measure, group: Option<Group>, aim: f64) -> Target {
    Target { name, unit: "of mimalloc2", aim, more: false, source: Source::Mean(measure, group) }
}

const fn most(name: &'static str, figure: &'static str, unit: &'static str, aim: f64) -> Target {
    Target { name, unit, aim, more: false, source: Source::Figure(figure) }
}

const TARGETS: &[Target] = &[
    mean("CPU, all programs", Measure::Cpu, None, 0.90),
    mean("CPU, real programs", Measure::Cpu, Some(Group::Real), 0.96),
    mean("CPU, stress programs", Measure::Cpu, Some(Group::Stress), 0.88),
    mean("peak RSS, all programs", Measure::Peak, None, 0.60),
    mean("peak RSS, real programs", Measure::Peak, Some(Group::Real), 0.68),
    Target { name: "CPU, the worst program", unit: "of mimalloc2", aim: 1.10, more: false, source: Source::Worst },
    most("alloc+free 64 B, LIFO", "lifo64", "ns", 4.7),
    most("the same, instructions", "steps_lifo64", "instr", 40.0),
    most("page empties each time, instructions", "steps_empties64", "instr", 42.0),
    most("mixed 16-255 B, 4096 live", "mixed", "ns", 6.0),
    most("1e6 x 64 B: alloc", "million_alloc", "ns", 9.0),
    most("1e6 x 64 B: free in random order", "million_free", "ns", 25.0),
    most("pair of 64 KiB", "pair64k", "ns", 15.0),
    most("pair of 1 MiB", "pair1m", "ns", 15.0),
    most("pair of 16 MiB", "pair16m", "ns", 20.0),
    most("realloc x1.5 up to 1 MiB", "realloc", "ns", 200.0),
    most("aligned_alloc(64, 256)", "aligned", "ns", 5.5),
    most("allocated here, freed there: alloc", "remote_alloc", "ns", 7.0),
    most("allocated here, freed there: free", "remote_free", "ns", 6.0),
    Target {
        name: "returned after freeing 200 MiB, 2 s of light use",
        unit: "%",
        aim: 95.0,
        more: true,
        source: Source::Figure("return"),
    },
    most("4 idle threads after freeing 200 MiB hold", "idle", "MiB", 16.0),
];

/// A target beside what was reached.
#[derive(Clone, Debug, Serialize)]
pub struct Reached {
    pub name: &'static str,
    pub unit: &'static str,
    pub aim: f64,
    pub more: bool,
    pub reached: Option<f64>,
    /// The reference's own, for comparison; as a ratio it is 1 by definition.
    pub reference: Option<f64>,
    pub met: bool,
}

impl Reached {
    /// `met`, `missed by 12 %`, `not measured`.
    pub fn verdict(&self) -> String {
        match self.reached {
            None => "not measured".to_string(),
            Some(_) if self.met => "met".to_string(),
            Some(reached) if self.more => format!("MISSED by {:.1} {}", self.aim - reached, self.unit),
            Some(reached) => format!("MISSED by {:.1} %", 100.0 * (reached / self.aim - 1.0)),
        }
    }
}

/// The target of a figure, for the table of figures.
pub fn of_figure(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| matches!(target.source, Source::Figure(figure) if figure == name))
}

/// The target of a mean, for the table of means.
pub fn of_mean(measure: Measure, group: Option<Group>) -> Option<&'static Target> {
    TARGETS.iter().find(|target| matches!(target.source, Source::Mean(m, g) if m == measure && g == group))
}

pub fn reached(report: &Report) -> Vec<Reached> {
    let value = |target: &Target, allocator: &str| match target.source {
        Source::Mean(measure, group) => {
            let place = report.allocators.iter().position(|one| one.name == allocator)?;
            report.mean("", measure, group).ratios[place]
        }
        Source::Figure(name) => report.figure(name, allocator),
        Source::Worst => {
            let ratios = report
                .programs(None)
                .into_iter()
                .filter_map(|about| report.ratio(&about.name, allocator, Measure::Cpu));
            ratios.max_by(f64::total_cmp)
        }
    };
    let row = |target: &Target| {
        let reached = value(target, SUBJECT);
        let met =
            reached.is_some_and(|reached| if target.more { reached >= target.aim } else { reached <= target.aim });
        let (name, unit, aim, more) = (target.name, target.unit, target.aim, target.more);
        Reached { name, unit, aim, more, reached, reference: value(target, REFERENCE), met }
    };
    TARGETS.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::FIGURES;

    #[test]
    fn every_figure_exists() {
        for target in TARGETS {
            if let Source::Figure(name) = target.source {
                assert!(FIGURES.iter().any(|figure| figure.name == name && figure.more == target.more), "{name}");
            }
        }
    }

    #[test]
    fn verdicts() {
        let report = crate::result::tests::sample_report();
        let rows = reached(&report);
        let verdict = |name: &str| rows.iter().find(|row| row.name == name).unwrap().verdict();
        assert_eq!(verdict("CPU, all programs"), "met");
        assert_eq!(verdict("CPU, the worst program"), "MISSED by 9.1 %");
        assert_eq!(verdict("alloc+free 64 B, LIFO"), "met");
        assert_eq!(verdict("pair of 1 MiB"), "not measured");
    }
}
