//! What was live by call site at several moments, kept in a ring, and which sites grow with time: how a slow leak is named in a
//! program that runs on.
//!
//! A moment keeps 16 bytes for each call site with live blocks, in memory outside the heap. The oldest is forgotten when there are
//! [`MOST`], or when all together are more than [`BUDGET`].

use crate::leaks::{Leaks, Since, write_finding};
use crate::{SiteId, header};
use allokit_platform::{Lock, clock, pages};
use allokit_report::growth::{self, Likely, Trend};
use core::cell::UnsafeCell;
use core::{fmt, ptr, slice};

/// The most moments that are kept.
pub const MOST: usize = 64;
/// The most bytes that they have together, but for the newest two.
const BUDGET: usize = 64 << 20;
/// Of so many call sites, the likeliest, each moment's bytes are shown.
const SHOWN: usize = 500;

/// A site at a moment.
#[derive(Clone, Copy)]
struct Row {
    site: u32,
    /// 4 billion when there are more.
    blocks: u32,
    bytes: u64,
}

/// What is known of the process at a moment, beside its call sites.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Resident memory, where the system tells it.
    pub resident: Option<u64>,
    /// Memory that the backend holds, where that is known.
    pub committed: Option<u64>,
    /// Blocks handed out since the start, where that is known.
    pub allocs: Option<u64>,
    /// Their bytes.
    pub alloc_bytes: Option<u64>,
}

/// A moment.
#[derive(Clone, Copy)]
struct Moment {
    ms: u64,
    blocks: u64,
    bytes: u64,
    figures: Figures,
    /// By site. Mapped memory, or null without any.
    rows: *mut Row,
    used: usize,
    mapped: usize,
}

impl Moment {
    fn rows(&self) -> &[Row] {
        if self.rows.is_null() {
            return &[];
        }
        // SAFETY: `used` rows of the mapping are filled, and the moment is the ring's, whose lock the caller holds.
        unsafe { slice::from_raw_parts(self.rows, self.used) }
    }

    fn forget(&self) {
        if !self.rows.is_null() {
            // SAFETY: the mapping is the moment's, which nobody looks at any more.
            unsafe { pages::release(self.rows.cast(), self.mapped, pages::os_page()) };
        }
    }
}

/// The moments, the earliest first.
struct Ring {
    moments: [Option<Moment>; MOST],
    used: usize,
}

struct Guarded(UnsafeCell<Ring>);

// SAFETY: only looked at under LOCK.
unsafe impl Sync for Guarded {}

static RING: Guarded = Guarded(UnsafeCell::new(Ring { moments: [None; MOST], used: 0 }));
static LOCK: Lock = Lock::new();

/// The lock of the ring, for fork handlers. Held while the heap is walked.
pub(crate) fn lock() -> &'static Lock {
    &LOCK
}

fn with_ring<R>(see: impl FnOnce(&mut Ring) -> R) -> R {
    let _guard = LOCK.lock();
    // SAFETY: under the lock, and `see` does not come here again.
    see(unsafe { &mut *RING.0.get() })
}

impl Ring {
    fn moments(&self) -> impl DoubleEndedIterator<Item = &Moment> {
        self.moments[..self.used].iter().flatten()
    }

    fn forget_first(&mut self) {
        if let Some(first) = self.moments[0].take() {
            first.forget();
            self.moments[..self.used].rotate_left(1);
            self.used -= 1;
        }
    }

    fn add(&mut self, moment: Moment) {
        let bytes = |ring: &Ring| ring.moments().map(|moment| moment.mapped).sum::<usize>() + moment.mapped;
        while self.used == MOST || self.used > 1 && bytes(self) > BUDGET {
            self.forget_first();
        }
        self.moments[self.used] = Some(moment);
        self.used += 1;
    }
}

/// Looks at what is live now and keeps it. Begins a stretch, so that blocks from before and after are told apart by their age.
/// False without memory for it.
pub fn take(figures: Figures) -> bool {
    with_ring(|ring| {
        let mut leaks = Leaks::take(Since::Start);
        if leaks.sort_by_site().is_none() {
            return false;
        }
        let used = leaks.rows().len();
        let mapped = (used * size_of::<Row>()).next_multiple_of(pages::os_page());
        let rows = if used > 0 { pages::map(mapped, pages::os_page()).cast::<Row>() } else { ptr::null_mut() };
        if rows.is_null() && used > 0 {
            return false;
        }
        for (index, row) in leaks.rows().iter().enumerate() {
            let blocks = u32::try_from(row.blocks).unwrap_or(u32::MAX);
            // SAFETY: there is room for a row of each site.
            unsafe { rows.add(index).write(Row { site: row.site.number(), blocks, bytes: row.bytes }) };
        }
        let mapped = if rows.is_null() { 0 } else { mapped };
        ring.add(Moment { ms: clock::now_ms(), blocks: leaks.blocks, bytes: leaks.bytes, figures, rows, used, mapped });
        header::next_epoch();
        true
    })
}

/// Whether there are two moments to compare.
#[must_use]
pub fn is_known() -> bool {
    with_ring(|ring| ring.used > 1)
}

/// A site that has grown.
#[derive(Clone, Copy)]
struct Grown {
    site: SiteId,
    trend: Trend,
    blocks: i64,
    live_blocks: u64,
    live_bytes: u64,
}

/// Which sites have grown, the likeliest leak first. Made under the lock, and written without it.
pub struct Growth {
    moments: [Option<Moment>; MOST],
    count: usize,
    /// Mapped memory, or null.
    rows: *mut Grown,
    used: usize,
    mapped: usize,
    /// The bytes at each moment of the first [`SHOWN`], site by site. Mapped memory, or null.
    series: *mut u64,
    series_mapped: usize,
}

/// Walks through all moments side by side, in the order of their sites.
struct Side<'a> {
    rows: &'a [Row],
}

impl Side<'_> {
    /// Blocks and bytes of a site that is not before the last one that was asked for.
    fn of(&mut self, site: u32) -> (u64, u64) {
        while let Some(row) = self.rows.first() {
            if row.site > site {
                break;
            }
            self.rows = &self.rows[1..];
            if row.site == site {
                return (u64::from(row.blocks), row.bytes);
            }
        }
        (0, 0)
    }
}

impl Growth {
    /// Compares what is kept.
    #[must_use]
    pub fn take() -> Growth {
        with_ring(|ring| {
            let mut growth = Growth {
                // Without their rows, which the ring may forget.
                moments: ring.moments.map(|moment| moment.map(|moment| Moment { rows: ptr::null_mut(), ..moment })),
                count: ring.used,
                rows: ptr::null_mut(),
                used: 0,
                mapped: 0,
                series: ptr::null_mut(),
                series_mapped: 0,
            };
            if ring.used > 1 {
                growth.compare(ring);
                growth.fill_series(ring);
            }
            growth
        })
    }

    /// Whether there are two moments to compare.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.count > 1
    }

    fn sides(ring: &Ring) -> [Side<'_>; MOST] {
        core::array::from_fn(|index| Side { rows: ring.moments[index].as_ref().map_or(&[], Moment::rows) })
    }

    fn compare(&mut self, ring: &Ring) {
        let Some(last) = ring.moments().next_back().filter(|last| last.used > 0) else { return };
        self.mapped = (last.used * size_of::<Grown>()).next_multiple_of(pages::os_page());
        self.rows = pages::map(self.mapped, pages::os_page()).cast();
        if self.rows.is_null() {
            return;
        }
        let mut sides = Growth::sides(ring);
        let mut values = [0; MOST];
        for row in last.rows() {
            let mut first_blocks = 0;
            for (index, side) in sides[..ring.used].iter_mut().enumerate() {
                let (blocks, bytes) = side.of(row.site);
                values[index] = bytes;
                if index == 0 {
                    first_blocks = blocks;
                }
            }
            let trend = Trend::of(&values[..ring.used]);
            let live_blocks = u64::from(row.blocks);
            let blocks = live_blocks as i64 - first_blocks as i64;
            if trend.change > 0 {
                let site = SiteId(row.site);
                let grown = Grown { site, trend, blocks, live_blocks, live_bytes: row.bytes };
                // SAFETY: there is room for each row of the last moment.
                unsafe { self.rows.add(self.used).write(grown) };
                self.used += 1;
            }
        }
        // SAFETY: so many are filled.
        let rows = unsafe { slice::from_raw_parts_mut(self.rows, self.used) };
        rows.sort_unstable_by_key(|row| (row.trend.rank(), row.site));
    }

    fn fill_series(&mut self, ring: &Ring) {
        let shown = self.used.min(SHOWN);
        if shown == 0 {
            return;
        }
        self.series_mapped = (shown * self.count * size_of::<u64>()).next_multiple_of(pages::os_page());
        self.series = pages::map(self.series_mapped, pages::os_page()).cast();
        if self.series.is_null() {
            return;
        }
        for index in 0..shown {
            let site = self.rows()[index].site.number();
            for (at, moment) in ring.moments().enumerate() {
                let rows = moment.rows();
                let bytes = rows.binary_search_by_key(&site, |row| row.site).map_or(0, |found| rows[found].bytes);
                // SAFETY: there is room for `count` of each that is shown.
                unsafe { self.series.add(index * self.count + at).write(bytes) };
            }
        }
    }

    fn rows(&self) -> &[Grown] {
        if self.rows.is_null() {
            return &[];
        }
        // SAFETY: so many are filled.
        unsafe { slice::from_raw_parts(self.rows, self.used) }
    }

    fn series(&self, index: usize) -> &[u64] {
        if self.series.is_null() || index >= SHOWN {
            return &[];
        }
        // SAFETY: filled for the first SHOWN rows.
        unsafe { slice::from_raw_parts(self.series.add(index * self.count), self.count) }
    }

    fn moments(&self) -> impl DoubleEndedIterator<Item = &Moment> {
        self.moments[..self.count].iter().flatten()
    }

    /// How long it took, and how bytes and blocks have changed.
    fn totals(&self) -> (u64, i64, i64) {
        let (Some(first), Some(last)) = (self.moments().next(), self.moments().next_back()) else { return (0, 0, 0) };
        (last.ms - first.ms, last.bytes as i64 - first.bytes as i64, last.blocks as i64 - first.blocks as i64)
    }

    /// Writes a table for a person.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        if self.count < 2 {
            let have = if self.count == 0 { "none" } else { "one" };
            return writeln!(out, "allokit: growth is unknown: it takes two snapshots, and there is {have}");
        }
        let (ms, bytes, blocks) = self.totals();
        out.write_str("allokit: growth over ")?;
        growth::heading(out, self.count, ms, bytes, blocks)?;
        if self.used == 0 {
            return out.write_str("  (no call site has more than at first)\n");
        }
        growth::columns(out)?;
        self.rows().iter().try_for_each(|row| growth::row(out, &row.trend, ms, row.live_bytes, &row.site))
    }

    /// A line as compilers write them for each site that may leak.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_lines(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let (ms, ..) = self.totals();
        let mut likely = self.rows().iter().filter(|row| row.trend.likely() > Likely::No);
        likely.try_for_each(|row| write_finding(out, row.site, &About(row.trend, ms)))
    }

    /// Writes one JSON object.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_json(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let (ms, bytes, blocks) = self.totals();
        writeln!(out, "{{\"snapshots\":{},\"ms\":{ms},\"bytes\":{bytes},\"blocks\":{blocks},", self.count)?;
        self.write_members(out)?;
        out.write_str("}\n")
    }

    /// The members `growth` and `timeline` of a JSON object: docs/profiling.md has the schema.
    pub(crate) fn write_members(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let (ms, ..) = self.totals();
        out.write_str("\"growth\":[")?;
        for (index, row) in self.rows().iter().enumerate() {
            out.write_str(if index > 0 { ",\n{\"site\":" } else { "\n{\"site\":" })?;
            row.site.write_json(out)?;
            out.write_str(",")?;
            growth::members(out, &row.trend, ms)?;
            write!(out, ",\"blocks\":{}", row.blocks)?;
            write!(out, ",\"live_blocks\":{},\"live_bytes\":{},\"series\":[", row.live_blocks, row.live_bytes)?;
            for (at, bytes) in self.series(index).iter().enumerate() {
                write!(out, "{}{bytes}", if at > 0 { "," } else { "" })?;
            }
            out.write_str("]}")?;
        }
        out.write_str("],\n\"timeline\":[")?;
        let start = self.moments().next().map_or(0, |first| first.ms);
        for (index, moment) in self.moments().enumerate() {
            let Figures { resident, committed, allocs, alloc_bytes } = moment.figures;
            out.write_str(if index > 0 { "," } else { "" })?;
            write!(out, "{{\"ms\":{},\"live_bytes\":{}", moment.ms - start, moment.bytes)?;
            write!(out, ",\"live_blocks\":{}", moment.blocks)?;
            for (name, known) in [
                ("resident_bytes", resident),
                ("committed_bytes", committed),
                ("alloc_count", allocs),
                ("alloc_bytes", alloc_bytes),
            ] {
                if let Some(figure) = known {
                    write!(out, ",\"{name}\":{figure}")?;
                }
            }
            out.write_str("}")?;
        }
        out.write_str("]")
    }
}

/// What is said of a site.
struct About(Trend, u64);

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        growth::about(f, &self.0, self.1)
    }
}

impl fmt::Debug for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Growth").field("moments", &self.count).field("sites", &self.used).finish()
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        for (mapping, length) in [(self.rows.cast::<u8>(), self.mapped), (self.series.cast(), self.series_mapped)] {
            if !mapping.is_null() {
                // SAFETY: the mapping is ours and nobody looks at it any more.
                unsafe { pages::release(mapping, length, pages::os_page()) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_moments_are_forgotten_by_number_and_by_size() {
        let mut ring = Ring { moments: [None; MOST], used: 0 };
        let moment = |ms, mapped| Moment {
            ms,
            blocks: 0,
            bytes: 0,
            figures: Figures::default(),
            rows: ptr::null_mut(),
            used: 0,
            mapped,
        };
        let times = |ring: &Ring| ring.moments().map(|moment| moment.ms).collect::<std::vec::Vec<_>>();
        (0..100).for_each(|ms| ring.add(moment(ms, 0)));
        assert_eq!(times(&ring), (36..100).collect::<std::vec::Vec<_>>());
        (100..110).for_each(|ms| ring.add(moment(ms, 20 << 20)));
        assert_eq!(times(&ring), [107, 108, 109], "three of 20 MiB are within 64");
        (110..113).for_each(|ms| ring.add(moment(ms, 200 << 20)));
        assert_eq!(times(&ring), [111, 112], "the newest two stay, however large");
    }

    #[test]
    fn sides_give_what_a_site_had() {
        let row = |site, bytes| Row { site, blocks: 1, bytes };
        let rows = [row(2, 20), row(5, 50), row(9, 90)];
        let mut side = Side { rows: &rows };
        let found: std::vec::Vec<u64> = [1, 2, 3, 5, 8, 9, 10].map(|site| side.of(site).1).to_vec();
        assert_eq!(found, [0, 20, 0, 50, 0, 90, 0]);
    }
}
