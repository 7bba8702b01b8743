//! What was live at a moment, kept; and what has changed between two.

use crate::leaks::{Leaks, Since, SiteCount};
use allokit_platform::pages;
use core::cmp::Ordering;
use core::{fmt, ptr, slice};

/// What is live, by call site, at the moment of [`Snapshot::take`]. Lies in memory of its own, outside the heap.
#[derive(Debug)]
pub struct Snapshot {
    leaks: Leaks,
}

/// How the live blocks of a site have changed.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    before: SiteCount,
    after: SiteCount,
}

impl Change {
    fn bytes(&self) -> i64 {
        self.after.bytes as i64 - self.before.bytes as i64
    }

    fn blocks(&self) -> i64 {
        self.after.blocks as i64 - self.before.blocks as i64
    }
}

/// The sites that have changed, the one that grew most first.
#[derive(Debug)]
pub struct Diff {
    /// Blocks and bytes at the two moments.
    before: (u64, u64),
    after: (u64, u64),
    /// Mapped memory, or null when there was none to have.
    rows: *mut Change,
    used: usize,
    mapped: usize,
}

impl Snapshot {
    /// Looks at what is live now; `None` when there is no memory for it.
    #[must_use]
    pub fn take() -> Option<Snapshot> {
        let mut leaks = Leaks::take(Since::Start);
        leaks.sort_by_site()?;
        Some(Snapshot { leaks })
    }

    /// Puts the snapshot where C can hold it: into OS pages of its own. Null when there are none.
    #[must_use]
    pub fn into_raw(self) -> *mut Snapshot {
        let place = pages::map(pages::os_page(), pages::os_page()).cast::<Snapshot>();
        if !place.is_null() {
            // SAFETY: the page is ours and large enough.
            unsafe { place.write(self) };
        }
        place
    }

    /// Ends a snapshot; null is allowed.
    ///
    /// # Safety
    /// `raw` is null or came from [`Snapshot::into_raw`], and is used no more.
    pub unsafe fn free(raw: *mut Snapshot) {
        if !raw.is_null() {
            // SAFETY: the caller's promise.
            unsafe {
                raw.drop_in_place();
                pages::release(raw.cast(), pages::os_page(), pages::os_page());
            }
        }
    }

    /// What has changed from this moment to another.
    #[must_use]
    pub fn diff(&self, after: &Snapshot) -> Diff {
        let (old, new) = (self.leaks.rows(), after.leaks.rows());
        let mapped = ((old.len() + new.len()).max(1) * size_of::<Change>()).next_multiple_of(pages::os_page());
        let rows = pages::map(mapped, pages::os_page()).cast::<Change>();
        let mut diff = Diff {
            before: (self.leaks.blocks, self.leaks.bytes),
            after: (after.leaks.blocks, after.leaks.bytes),
            rows,
            used: 0,
            mapped,
        };
        if rows.is_null() {
            return diff;
        }
        let none = |site| SiteCount { site, oldest: 0, blocks: 0, bytes: 0 };
        let (mut i, mut j) = (0, 0);
        while i < old.len() || j < new.len() {
            let order = match (old.get(i), new.get(j)) {
                (Some(a), Some(b)) => a.site.cmp(&b.site),
                (Some(_), None) => Ordering::Less,
                _ => Ordering::Greater,
            };
            let change = match order {
                Ordering::Less => Change { before: old[i], after: none(old[i].site) },
                Ordering::Equal => Change { before: old[i], after: new[j] },
                Ordering::Greater => Change { before: none(new[j].site), after: new[j] },
            };
            i += usize::from(order != Ordering::Greater);
            j += usize::from(order != Ordering::Less);
            if change.bytes() != 0 || change.blocks() != 0 {
                // SAFETY: there is a row for each site of both.
                unsafe { rows.add(diff.used).write(change) };
                diff.used += 1;
            }
        }
        // SAFETY: so many rows are filled.
        let filled = unsafe { slice::from_raw_parts_mut(rows, diff.used) };
        filled.sort_unstable_by_key(|row| (core::cmp::Reverse((row.bytes(), row.blocks())), row.after.site));
        diff
    }
}

impl Diff {
    fn rows(&self) -> &[Change] {
        if self.rows.is_null() {
            return &[];
        }
        // SAFETY: so many rows are filled.
        unsafe { slice::from_raw_parts(self.rows, self.used) }
    }

    fn totals(&self) -> (i64, i64) {
        (self.after.0 as i64 - self.before.0 as i64, self.after.1 as i64 - self.before.1 as i64)
    }

    /// Writes a table for a person.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let (blocks, bytes) = self.totals();
        writeln!(out, "allokit: {blocks:+} blocks, {bytes:+} bytes since the snapshot, at {} call sites", self.used)?;
        if self.rows.is_null() {
            return out.write_str("  (no memory for the table of call sites)\n");
        }
        if self.used > 0 {
            writeln!(out, "{:>16}{:>14}{:>16}{:>14}  call site", "count", "bytes", "live count", "live bytes")?;
        }
        self.rows().iter().try_for_each(|row| {
            let (blocks, bytes, after) = (row.blocks(), row.bytes(), row.after);
            writeln!(out, "{blocks:>+16}{bytes:>+14}{:>16}{:>14}  {}", after.blocks, after.bytes, after.site)?;
            after.site.write_stack(out, 60)
        })
    }

    /// Writes one JSON object on one line.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_json(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let (blocks, bytes) = self.totals();
        write!(out, "{{\"blocks\":{blocks},\"bytes\":{bytes},\"sites\":[")?;
        for (index, row) in self.rows().iter().enumerate() {
            let (before, after) = (row.before, row.after);
            out.write_str(if index > 0 { ",{\"site\":" } else { "{\"site\":" })?;
            after.site.write_json(out)?;
            after.site.write_json_stack(out)?;
            write!(out, ",\"blocks\":{},\"bytes\":{}", row.blocks(), row.bytes())?;
            write!(out, ",\"live_blocks\":{},\"live_bytes\":{}", after.blocks, after.bytes)?;
            write!(out, ",\"live_blocks_before\":{},\"live_bytes_before\":{}}}", before.blocks, before.bytes)?;
        }
        out.write_str("]}\n")
    }
}

impl Drop for Diff {
    fn drop(&mut self) {
        if !self.rows.is_null() {
            // SAFETY: the mapping is ours and nobody looks at it any more.
            unsafe { pages::release(self.rows.cast(), self.mapped, pages::os_page()) };
            self.rows = ptr::null_mut();
        }
    }
}
