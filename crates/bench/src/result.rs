//! What the runs say: medians, ratios to the reference, geometric means. Owns the report's data, not its looks.

use crate::machine::Machine;
use crate::measure::Sample;
use crate::plan::{FIGURES, Group};
use crate::scaling::Point;
use crate::suite::{Allocator, Cell, REFERENCE, SUBJECT};
use serde::{Deserialize, Serialize};

/// An allocator that was asked for and could not be had.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Missing {
    pub name: String,
    pub why: String,
}

/// What the report says about a program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    pub name: String,
    pub group: Group,
    pub what: String,
}

/// A whole measurement; written as JSON and read again to make reports of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub machine: Machine,
    pub rounds: u32,
    pub quick: bool,
    pub seconds: f64,
    pub allocators: Vec<Allocator>,
    /// Allocators and programs that could not be had.
    pub missing: Vec<Missing>,
    pub workloads: Vec<About>,
    pub cells: Vec<Cell>,
    pub scaling: Vec<Point>,
}

/// A quantity over rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub best: f64,
    pub median: f64,
    pub worst: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (best, worst) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Spread { best, median, worst })
    }

    /// How far the runs lie apart, relative to the median.
    pub fn relative(&self) -> f64 {
        if self.median > 0.0 { (self.worst - self.best) / self.median } else { 0.0 }
    }
}

/// The geometric mean; None of nothing.
pub fn geometric(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp())
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// The best of the runs.
    Cpu,
    /// The median of the runs.
    Wall,
    Peak,
    /// Resident at the program's end, after all is freed: programs of ours report it.
    Left,
}

impl Measure {
    /// The number that stands for a cell.
    pub fn of(self, samples: &[Sample]) -> Option<f64> {
        match self {
            Measure::Cpu => Some(Spread::of(samples.iter().map(|sample| sample.cpu))?.best),
            Measure::Wall => Some(Spread::of(samples.iter().map(|sample| sample.wall))?.median),
            Measure::Peak => Some(Spread::of(samples.iter().map(|sample| sample.peak_kib as f64))?.median),
            Measure::Left => {
                Some(Spread::of(samples.iter().filter_map(|sample| sample.figures.get("left_kib").copied()))?.median)
            }
        }
    }
}

/// One row of the table of geometric means.
#[derive(Clone, Debug, Serialize)]
pub struct Mean {
    pub name: String,
    pub measure: Measure,
    /// None: stress and real together.
    pub group: Option<Group>,
    pub programs: usize,
    /// For each allocator in order, over the programs that both it and the reference finished.
    pub ratios: Vec<Option<f64>>,
    /// How many programs an allocator did not finish.
    pub lost: Vec<usize>,
    /// Of the best peer, program by program: peers are all but this project's own libraries.
    pub best_peer: Option<f64>,
}

/// A program on which the subject is more than 10 % slower than the reference, or failed.
#[derive(Clone, Debug, Serialize)]
pub struct Offender {
    pub workload: String,
    /// None: it failed.
    pub ratio: Option<f64>,
}

/// Slower than the reference by more than this is a loss.
pub const LOSS: f64 = 1.10;

impl Report {
    /// The runs of a program on an allocator that all went well.
    pub fn samples(&self, workload: &str, allocator: &str) -> Option<&[Sample]> {
        let cell = self.cells.iter().find(|cell| cell.workload == workload && cell.allocator == allocator)?;
        (cell.failed.is_none() && !cell.samples.is_empty()).then_some(&cell.samples)
    }

    pub fn value(&self, workload: &str, allocator: &str, measure: Measure) -> Option<f64> {
        measure.of(self.samples(workload, allocator)?)
    }

    /// An allocator's value by the reference's.
    pub fn ratio(&self, workload: &str, allocator: &str, measure: Measure) -> Option<f64> {
        let (value, base) = (self.value(workload, allocator, measure)?, self.value(workload, REFERENCE, measure)?);
        (value > 0.0 && base > 0.0).then(|| value / base)
    }

    /// The best that an allocator reached in a figure of a micro program.
    pub fn figure(&self, name: &str, allocator: &str) -> Option<f64> {
        let more = FIGURES.iter().find(|figure| figure.name == name)?.more;
        let cells = self.cells.iter().filter(|cell| cell.allocator == allocator && cell.failed.is_none());
        let values = cells.flat_map(|cell| &cell.samples).filter_map(|sample| sample.figures.get(name).copied());
        let spread = Spread::of(values)?;
        Some(if more { spread.worst } else { spread.best })
    }

    /// The programs of a group; without one, stress and real.
    pub fn programs(&self, group: Option<Group>) -> Vec<&About> {
        let wanted = |about: &&About| group.map_or(about.group != Group::Micro, |group| about.group == group);
        self.workloads.iter().filter(wanted).collect()
    }

    pub fn mean(&self, name: &str, measure: Measure, group: Option<Group>) -> Mean {
        let programs = self.programs(group);
        let ratios_of = |allocator: &str| -> Vec<f64> {
            programs.iter().filter_map(|about| self.ratio(&about.name, allocator, measure)).collect()
        };
        let of_all: Vec<Vec<f64>> = self.allocators.iter().map(|allocator| ratios_of(&allocator.name)).collect();
        let best = |about: &&About| -> Option<f64> {
            let peers = self.allocators.iter().filter(|allocator| !is_ours(&allocator.name));
            peers.filter_map(|peer| self.ratio(&about.name, &peer.name, measure)).min_by(f64::total_cmp)
        };
        let best: Vec<f64> = programs.iter().filter_map(best).collect();
        Mean {
            name: name.to_string(),
            measure,
            group,
            programs: programs.len(),
            ratios: of_all.iter().map(|ratios| geometric(ratios)).collect(),
            lost: of_all.iter().map(|ratios| programs.len() - ratios.len()).collect(),
            best_peer: geometric(&best),
        }
    }

    /// The rows of the first table.
    pub fn means(&self) -> Vec<Mean> {
        let rows = [
            ("CPU, all", Measure::Cpu, None),
            ("CPU, real programs", Measure::Cpu, Some(Group::Real)),
            ("CPU, stress programs", Measure::Cpu, Some(Group::Stress)),
            ("peak RSS, all", Measure::Peak, None),
            ("peak RSS, real", Measure::Peak, Some(Group::Real)),
            ("peak RSS, stress", Measure::Peak, Some(Group::Stress)),
        ];
        rows.map(|(name, measure, group)| self.mean(name, measure, group)).into_iter().collect()
    }

    /// Where the subject loses against the reference by more than 10 %.
    pub fn offenders(&self) -> Vec<Offender> {
        if !self.allocators.iter().any(|allocator| allocator.name == SUBJECT) {
            return Vec::new();
        }
        let mut offenders: Vec<Offender> = Vec::new();
        for about in self.programs(None) {
            let failed = self
                .cells
                .iter()
                .any(|cell| cell.workload == about.name && cell.allocator == SUBJECT && cell.failed.is_some());
            let ratio = self.ratio(&about.name, SUBJECT, Measure::Cpu);
            if failed || ratio.is_some_and(|ratio| ratio > LOSS) {
                offenders.push(Offender { workload: about.name.clone(), ratio });
            }
        }
        offenders.sort_by(|a, b| b.ratio.unwrap_or(f64::MAX).total_cmp(&a.ratio.unwrap_or(f64::MAX)));
        offenders
    }

    /// Programs that an allocator did not finish.
    pub fn failures(&self) -> Vec<&Cell> {
        self.cells.iter().filter(|cell| cell.failed.is_some()).collect()
    }
}

/// Whether an allocator is one of this project's libraries.
pub fn is_ours(name: &str) -> bool {
    name.starts_with(SUBJECT) || name.starts_with("allokit-")
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A report of two programs: on `native` one takes half of the reference's time and the other 1.2 of it.
    pub fn sample_report() -> Report {
        let allocator = |name: &str| Allocator {
            name: name.into(),
            version: "1 <2>".into(),
            origin: String::new(),
            library: None,
            environment: vec![],
        };
        let about = |name: &str, group| About { name: name.into(), group, what: "a program".into() };
        let cell = |workload: &str, allocator: &str, cpu: f64| {
            let figures = [("lifo64".to_string(), cpu * 5.0)].into();
            let sample = Sample { cpu, wall: cpu, peak_kib: 1000, figures };
            let slower = Sample { cpu: cpu * 2.0, ..sample.clone() };
            Cell { workload: workload.into(), allocator: allocator.into(), samples: vec![slower, sample], failed: None }
        };
        Report {
            machine: Machine::here(std::path::Path::new(".")),
            rounds: 2,
            quick: true,
            seconds: 1.0,
            allocators: ["native", "mimalloc2", "glibc"].map(allocator).to_vec(),
            missing: vec![Missing { name: "tcmalloc".into(), why: "not here".into() }],
            workloads: vec![about("one", Group::Stress), about("two", Group::Real), about("lifo64", Group::Micro)],
            cells: vec![
                cell("one", "native", 0.5),
                cell("one", "mimalloc2", 1.0),
                cell("one", "glibc", 4.0),
                cell("two", "native", 1.2),
                cell("two", "mimalloc2", 1.0),
                Cell { failed: Some("signal: 11".into()), ..cell("two", "glibc", 1.0) },
                cell("lifo64", "native", 1.0),
                cell("lifo64", "mimalloc2", 1.0),
                cell("lifo64", "glibc", 1.0),
            ],
            scaling: vec![Point {
                workload: "one".into(),
                allocator: "native".into(),
                threads: 2,
                ops_per_second: 1e6,
            }],
        }
    }

    #[test]
    fn medians_and_means() {
        let spread = Spread::of([3.0, 1.0, 2.0, 10.0]).unwrap();
        assert_eq!((spread.best, spread.median, spread.worst), (1.0, 2.5, 10.0));
        assert!(Spread::of([]).is_none() && geometric(&[]).is_none());
        assert!((geometric(&[2.0, 8.0]).unwrap() - 4.0).abs() < 1e-9);
    }

    #[test]
    fn ratios_are_of_the_best_runs_and_failures_do_not_count() {
        let report = sample_report();
        let mean = report.mean("all", Measure::Cpu, None);
        assert!((mean.ratios[0].unwrap() - 0.6f64.sqrt()).abs() < 1e-9, "{mean:?}");
        assert_eq!(mean.ratios[1], Some(1.0));
        assert_eq!((mean.ratios[2], mean.lost[2]), (Some(4.0), 1));
        assert!((mean.best_peer.unwrap() - 1.0).abs() < 1e-9);
        let offenders = report.offenders();
        assert_eq!((offenders.len(), offenders[0].workload.as_str()), (1, "two"));
        assert_eq!(report.figure("lifo64", "native"), Some(2.5));
    }
}
