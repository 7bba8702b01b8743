//! Live blocks grouped by call site: a walk over the map of live starts, so that no counter is needed on the hot path.

use crate::spread::Spread;
use crate::{SiteId, header, means, sites, stacks};
use allokit_platform::pages;
use allokit_report::{finding, leak_heading, leak_row};
use core::{fmt, ptr, slice};

/// What is live of one site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteCount {
    /// The site; [`SiteId::UNKNOWN`] holds what belongs to none, and blocks whose header is damaged.
    pub site: SiteId,
    /// The age of the oldest live block: how many stretches between marks, or snapshots of growth, began since.
    pub oldest: u32,
    /// Live blocks.
    pub blocks: u64,
    /// Their bytes, as asked for.
    pub bytes: u64,
}

/// Which blocks are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// All live blocks.
    Start,
    /// Those allocated since the last [`mark`].
    Mark,
}

/// Starts a stretch for [`Since::Mark`].
pub fn mark() {
    header::mark();
}

/// Doublings of ages: 0, 1, 2 and 3, 4 to 7 and so on; the last holds what is damaged too.
const AGES: usize = 25;

fn step_of_age(age: u32) -> usize {
    ((u32::BITS - age.leading_zeros()) as usize).min(AGES - 1)
}

/// A snapshot of what is live, sorted: most bytes first.
#[derive(Debug)]
pub struct Leaks {
    /// All blocks.
    pub blocks: u64,
    /// All bytes.
    pub bytes: u64,
    /// Not 0 when some of it is estimated from a sample: of at most so many bytes one was chosen.
    pub sampled: u64,
    /// Mapped memory, or null when there was none to have.
    rows: *mut SiteCount,
    used: usize,
    mapped: usize,
    /// Blocks and bytes by age.
    ages: [(u64, u64); AGES],
}

impl Leaks {
    /// Looks at what is live now. Other threads may go on; blocks that they allocate or free meanwhile may be counted
    /// or not.
    #[must_use]
    pub fn take(since: Since) -> Leaks {
        let (sites, stacks) = (sites::count() as usize + 1, stacks::count() as usize);
        let capacity = sites + stacks;
        let mapped = (capacity * size_of::<SiteCount>()).next_multiple_of(pages::os_page());
        // All zeroes is a row without blocks.
        let rows = pages::map(mapped, pages::os_page()).cast::<SiteCount>();
        let mut leaks = Leaks { blocks: 0, bytes: 0, sampled: 0, rows, used: 0, mapped, ages: [(0, 0); AGES] };
        let table: &mut [SiteCount] = if rows.is_null() {
            &mut []
        } else {
            // SAFETY: the mapping is ours, large enough and zero.
            unsafe { slice::from_raw_parts_mut(rows, capacity) }
        };
        let new = header::since_mark();
        let mut in_all = (0, 0);
        means::for_each(|block| {
            if since == Since::Mark && block.age > new {
                return;
            }
            let aged = &mut leaks.ages[step_of_age(block.age)];
            if block.site == stacks::UNSAMPLED {
                return;
            }
            // Stacks after the sites; those that are newer than the table count as unknown.
            let stack = (stacks::UNSAMPLED - 1 - block.site.min(stacks::UNSAMPLED - 1)) as usize;
            let (place, site) = match block.site as usize {
                site if site < sites => (site, block.site),
                _ if stack < stacks => (sites + stack, block.site),
                _ => (0, 0),
            };
            let (one, bytes) = match SiteId(site).sampled_of() {
                None => (WHOLE, block.size as u64 * WHOLE),
                Some(interval) => {
                    leaks.sampled = leaks.sampled.max(interval);
                    let weight = stacks::weight(block.size, interval) * WHOLE as f64;
                    (weight as u64, (weight * block.size as f64) as u64)
                }
            };
            *aged = (aged.0 + one, aged.1 + bytes);
            in_all.0 += one;
            in_all.1 += bytes;
            if let Some(row) = table.get_mut(place) {
                let oldest = row.oldest.max(if block.is_damaged { 0 } else { block.age });
                *row = SiteCount { site: SiteId(site), oldest, blocks: row.blocks + one, bytes: row.bytes + bytes };
            }
        });
        let mut used = 0;
        (leaks.blocks, leaks.bytes) = (rounded(in_all.0), rounded(in_all.1));
        for aged in &mut leaks.ages {
            *aged = (rounded(aged.0), rounded(aged.1));
        }
        if !table.is_empty() {
            (leaks.blocks, leaks.bytes) = (0, 0);
        }
        for index in 0..table.len() {
            let SiteCount { site, oldest, blocks, bytes } = table[index];
            if blocks != 0 {
                table[used] = SiteCount { site, oldest, blocks: rounded(blocks), bytes: rounded(bytes) };
                leaks.blocks += table[used].blocks;
                leaks.bytes += table[used].bytes;
                used += 1;
            }
        }
        table[..used].sort_unstable_by_key(|row| (core::cmp::Reverse((row.bytes, row.blocks)), row.site));
        leaks.used = used;
        leaks
    }

    /// The sites with live blocks, most bytes first. Empty, while `blocks` is not 0, when there was no memory for it.
    #[must_use]
    pub fn rows(&self) -> &[SiteCount] {
        if self.rows.is_null() {
            return &[];
        }
        // SAFETY: `used` rows of the mapping are filled.
        unsafe { slice::from_raw_parts(self.rows, self.used) }
    }

    /// Puts the rows into the order of their sites; `None` when there are none because there was no memory for them.
    pub(crate) fn sort_by_site(&mut self) -> Option<()> {
        if self.rows.is_null() {
            return None;
        }
        // SAFETY: `used` rows of the mapping are filled.
        unsafe { slice::from_raw_parts_mut(self.rows, self.used) }.sort_unstable_by_key(|row| row.site);
        Some(())
    }

    /// Writes the table; with a context, in the words of `ak_assert_balanced`.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, out: &mut dyn fmt::Write, context: Option<&dyn fmt::Display>) -> fmt::Result {
        if self.blocks == 0 {
            return out.write_str("allokit: no live blocks\n");
        }
        leak_heading(out, context, self.blocks, self.bytes, self.used as u64)?;
        if self.used == 0 {
            return out.write_str("  (no memory for the table of call sites)\n");
        }
        self.rows().iter().try_for_each(|row| {
            leak_row(out, row.blocks, row.bytes, &row.site)?;
            row.site.write_stack(out, 30)
        })?;
        self.write_estimated(out)
    }
}

/// What a row counts by while blocks are added up: a sampled one stands for no whole number of blocks.
const WHOLE: u64 = 256;

fn rounded(parts: u64) -> u64 {
    (parts + WHOLE / 2) / WHOLE
}

impl Leaks {
    /// A line that says so where figures are estimated.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_estimated(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        if self.sampled == 0 {
            return Ok(());
        }
        writeln!(out, "  (estimated: of {} bytes one was sampled)", self.sampled)
    }
}

impl Leaks {
    /// The table, and below it what is live by size and by age.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_all(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        self.write(out, None)?;
        if self.blocks == 0 {
            return Ok(());
        }
        writeln!(out, "{:>16}{:>14}  size", "count", "bytes")?;
        Spread::take().write_text(out)?;
        writeln!(out, "{:>16}{:>14}  age, in marks and snapshots since", "count", "bytes")?;
        for (least, most, (blocks, bytes)) in self.ages() {
            write!(out, "{blocks:>16}{bytes:>14}  {least}")?;
            if most > least {
                write!(out, " to {most}")?;
            }
            match header::ended_ms_ago(least) {
                Some(ms) if least > 0 => writeln!(out, " (for {} s at least)", ms / 1000)?,
                _ => writeln!(out)?,
            }
        }
        Ok(())
    }

    /// A line for each call site as compilers write them, for editors and CI: `file:line: warning: 20 bytes in 2 blocks
    /// leaked (function)`.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_lines(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        self.rows().iter().try_for_each(|row| {
            let plural = |count| if count == 1 { "" } else { "s" };
            let (bytes, blocks) = (row.bytes, row.blocks);
            let about = format_args!("{bytes} byte{} in {blocks} block{} leaked", plural(bytes), plural(blocks));
            write_finding(out, row.site, &about)
        })
    }

    /// One JSON object: docs/tracking.md has the schema.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_json(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        out.write_str("{")?;
        self.write_members(out)?;
        out.write_str(",\n")?;
        Spread::take().write_json(out)?;
        out.write_str("}\n")
    }

    /// The members `blocks`, `bytes`, `sites` and `ages` of a JSON object, and where figures are estimated `sampled` and
    /// `notes`.
    pub(crate) fn write_members(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        if self.sampled > 0 {
            let bytes = self.sampled;
            write!(
                out,
                "\"sampled\":{bytes},\"notes\":[\"Blocks and bytes by call site are estimated: of {bytes} bytes one was sampled. Sizes, the map and the statistics are counted.\"],"
            )?;
        }
        write!(out, "\"blocks\":{},\"bytes\":{},\"sites\":[", self.blocks, self.bytes)?;
        for (index, row) in self.rows().iter().enumerate() {
            out.write_str(if index > 0 { ",\n{\"site\":" } else { "\n{\"site\":" })?;
            row.site.write_json(out)?;
            write!(out, ",\"blocks\":{},\"bytes\":{},\"oldest\":{}", row.blocks, row.bytes, row.oldest)?;
            row.site.write_json_stack(out)?;
            out.write_str("}")?;
        }
        out.write_str("],\n\"ages\":[")?;
        for (index, (least, most, (blocks, bytes))) in self.ages().enumerate() {
            out.write_str(if index > 0 { "," } else { "" })?;
            write!(out, "{{\"least\":{least},\"most\":{most},\"blocks\":{blocks},\"bytes\":{bytes}")?;
            if let Some(ms) = header::ended_ms_ago(least) {
                write!(out, ",\"ms\":{ms}")?;
            }
            out.write_str("}")?;
        }
        out.write_str("]")
    }

    /// The ages that there are, youngest first: the least and the most of each, blocks and bytes.
    fn ages(&self) -> impl Iterator<Item = (u32, u32, (u64, u64))> {
        let steps = self.ages.iter().enumerate().filter(|(_, (blocks, _))| *blocks > 0);
        steps.map(|(step, &found)| if step == 0 { (0, 0, found) } else { (1 << (step - 1), (1 << step) - 1, found) })
    }
}

/// A line about a site, as compilers write them.
pub(crate) fn write_finding(out: &mut dyn fmt::Write, site: SiteId, about: &dyn fmt::Display) -> fmt::Result {
    let place = site.parts();
    match (place.file, place.function) {
        (Some(file), function) => {
            let (file, function) = (sites::Shown(file), function.map(sites::Shown));
            let function: Option<&dyn fmt::Display> = function.as_ref().map(|function| function as _);
            finding(out, &format_args!("{file}:{}", place.line), function, about)
        }
        (None, _) => finding(out, &site, None, about),
    }
}

/// Verifies the header or tag of every live block, reports the damaged ones, and gives their number.
pub fn check(site: SiteId) -> usize {
    let mut found = [ptr::null::<u8>(); 32];
    let mut count = 0;
    means::for_each(|block| {
        if block.is_damaged {
            if let Some(place) = found.get_mut(count) {
                *place = ptr::without_provenance(block.start);
            }
            count += 1;
        }
    });
    found.iter().take(count).for_each(|payload| crate::fault::damaged(crate::fault::Operation::Check, *payload, site));
    count
}

impl Drop for Leaks {
    fn drop(&mut self) {
        if !self.rows.is_null() {
            // SAFETY: the mapping is ours and nobody looks at it any more.
            unsafe { pages::release(self.rows.cast(), self.mapped, pages::os_page()) };
            self.rows = ptr::null_mut();
        }
    }
}
