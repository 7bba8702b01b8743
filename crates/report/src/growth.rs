//! Whether a call site grows: how its live bytes went over several moments, and how that is said.

use core::cmp::{Ordering, Reverse};
use core::fmt;

/// How a figure went from moment to moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trend {
    /// Steps, one less than there are moments.
    pub of: u32,
    /// In how many it became more.
    pub grew: u32,
    /// In how many it became less.
    pub fell: u32,
    /// The last less the first.
    pub change: i64,
    /// In thousandths: 1000 when each moment has more than each before it, 0 when it goes up as often as down, -1000 when
    /// each has less. (The pairs of moments that rise less those that fall, of all: Mann and Kendall's test.)
    pub trend: i32,
}

/// How likely it is that a site leaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Likely {
    /// It has not grown, or as often fallen.
    No,
    /// It has grown more often than fallen.
    Perhaps,
    /// It grows steadily.
    Steady,
}

impl Likely {
    /// A word for a table.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Likely::No => "no",
            Likely::Perhaps => "perhaps",
            Likely::Steady => "likely",
        }
    }
}

impl Trend {
    /// Of a figure at each moment, the earliest first.
    #[must_use]
    pub fn of(values: &[u64]) -> Trend {
        let (Some(first), Some(last)) = (values.first(), values.last()) else { return Trend::default() };
        let mut trend = Trend { of: values.len() as u32 - 1, change: *last as i64 - *first as i64, ..Trend::default() };
        for step in values.windows(2) {
            match step[1].cmp(&step[0]) {
                Ordering::Greater => trend.grew += 1,
                Ordering::Less => trend.fell += 1,
                Ordering::Equal => {}
            }
        }
        let mut sum = 0i64;
        for (index, value) in values.iter().enumerate() {
            for before in &values[..index] {
                sum += match value.cmp(before) {
                    Ordering::Greater => 1,
                    Ordering::Less => -1,
                    Ordering::Equal => 0,
                };
            }
        }
        let pairs = values.len() as i64 * (values.len() as i64 - 1) / 2;
        trend.trend = if pairs > 0 { (sum * 1000 / pairs) as i32 } else { 0 };
        trend
    }

    /// How likely it is a leak: never more than perhaps before there are four moments. What grows once and stays (a cache that fills, a table that doubles) is below 600.
    #[must_use]
    pub fn likely(&self) -> Likely {
        match self.trend {
            _ if self.change <= 0 => Likely::No,
            850.. if self.of > 2 => Likely::Steady,
            300.. => Likely::Perhaps,
            _ => Likely::No,
        }
    }

    /// What to sort by for the likeliest first, and of equals the one that grew most.
    #[must_use]
    pub fn rank(&self) -> impl Ord + use<> {
        (Reverse(self.likely()), Reverse(self.change))
    }

    /// The change in a minute, when all took so long.
    #[must_use]
    pub fn per_minute(&self, ms: u64) -> i64 {
        if ms == 0 { 0 } else { (i128::from(self.change) * 60_000 / i128::from(ms)) as i64 }
    }
}

/// The first lines of a table: what was looked at, and the columns.
///
/// # Errors
/// Those of the writer.
pub fn heading(out: &mut dyn fmt::Write, moments: usize, ms: u64, bytes: i64, blocks: i64) -> fmt::Result {
    let seconds = ms / 1000;
    write!(out, "{moments} snapshots in ")?;
    if seconds >= 60 {
        write!(out, "{} min ", seconds / 60)?;
    }
    writeln!(out, "{} s: {bytes:+} bytes, {blocks:+} blocks", seconds % 60)
}

/// The columns of a table of [`row`]s.
///
/// # Errors
/// Those of the writer.
pub fn columns(out: &mut dyn fmt::Write) -> fmt::Result {
    writeln!(out, "{:>9}{:>10}{:>14}{:>14}{:>14}  call site", "leak", "grew", "bytes", "bytes/min", "live bytes")
}

/// The line of a call site.
///
/// # Errors
/// Those of the writer.
pub fn row(out: &mut dyn fmt::Write, trend: &Trend, ms: u64, live: u64, site: &dyn fmt::Display) -> fmt::Result {
    let (word, grew, of, change, rate) =
        (trend.likely().word(), trend.grew, trend.of, trend.change, trend.per_minute(ms));
    writeln!(out, "{word:>9}{grew:>4} of {of:>2}{change:>+14}{rate:>+14}{live:>14}  {site}")
}

/// The same in a sentence.
///
/// # Errors
/// Those of the writer.
pub fn about(out: &mut dyn fmt::Write, trend: &Trend, ms: u64) -> fmt::Result {
    let (grew, of, change, rate) = (trend.grew, trend.of, trend.change, trend.per_minute(ms));
    write!(out, "grew in {grew} of {of} snapshots, {change:+} bytes, {rate:+} bytes/min")
}

/// Members of a site's JSON object, without its braces.
///
/// # Errors
/// Those of the writer.
pub fn members(out: &mut dyn fmt::Write, trend: &Trend, ms: u64) -> fmt::Result {
    let Trend { of, grew, fell, change, trend: thousandths } = *trend;
    write!(out, "\"leak\":\"{}\",\"grew\":{grew},\"fell\":{fell},\"of\":{of}", trend.likely().word())?;
    write!(out, ",\"trend\":{thousandths},\"bytes\":{change},\"bytes_per_minute\":{}", trend.per_minute(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaks_are_told_from_caches_and_tides() {
        let of = |values: &[u64]| {
            let trend = Trend::of(values);
            (trend.grew, trend.fell, trend.of, trend.change, trend.likely())
        };
        assert_eq!(of(&[1, 2, 3, 4, 5]), (4, 0, 4, 4, Likely::Steady));
        assert_eq!(of(&[1, 1, 1, 4, 4, 4, 4]), (1, 0, 6, 3, Likely::Perhaps), "a table that doubled once");
        assert_eq!(of(&[0, 40, 80, 80, 80, 80, 80, 80, 80, 80]).4, Likely::Perhaps, "a cache that has filled");
        assert_eq!(of(&[5, 9, 2, 8, 5, 9, 4, 6]).4, Likely::No, "a tide");
        assert_eq!(of(&[9, 8, 7]), (0, 2, 2, -2, Likely::No));
        // Grows now and then, and gives a little back.
        assert_eq!(of(&[10, 10, 20, 19, 30, 30, 41, 40, 50, 60]).4, Likely::Steady);
        assert_eq!(Trend::of(&[7]), Trend::default());
        assert_eq!(Trend::of(&[]), Trend::default());
        assert_eq!(Trend::of(&[0, 100]).per_minute(30_000), 200);
        assert_eq!(Trend::of(&[0, 100]).per_minute(0), 0);
        assert!(Trend::of(&[1, 2, 3, 4]).rank() < Trend::of(&[1, 1, 900, 900, 900]).rank());
        assert_eq!(of(&[1, 2, 3]).4, Likely::Perhaps, "too few to tell");
    }
}
