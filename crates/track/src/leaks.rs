//! Live blocks grouped by call site: a walk over the map of live starts, so that no counter is needed on the hot path.

use crate::{SiteId, header, means, sites, stacks};
use allokit_platform::pages;
use allokit_report::{leak_heading, leak_row};
use core::{fmt, ptr, slice};

/// What is live of one site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteCount {
    /// The site; [`SiteId::UNKNOWN`] holds what belongs to none, and blocks whose header is damaged.
    pub site: SiteId,
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
    header::next_epoch();
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
}

impl Leaks {
    /// Looks at what is live now. Other threads may go on; blocks that they allocate or free meanwhile may be counted
    /// or not.
    #[must_use]
    pub fn take(since: Since) -> Leaks {
        let (sites, stacks) = (sites::count() as usize + 1, stacks::count() as usize);
        let capacity = sites + stacks;
        let mapped = (capacity * size_of::<SiteCount>()).next_multiple_of(pages::os_page());
        // A row is three words; all zeroes is a row without blocks.
        let rows = pages::map(mapped, pages::os_page()).cast::<SiteCount>();
        let mut leaks = Leaks { blocks: 0, bytes: 0, sampled: 0, rows, used: 0, mapped };
        let table: &mut [SiteCount] = if rows.is_null() {
            &mut []
        } else {
            // SAFETY: the mapping is ours, large enough and zero.
            unsafe { slice::from_raw_parts_mut(rows, capacity) }
        };
        let mut in_all = (0, 0);
        means::for_each(|block| {
            if since == Since::Mark && !block.is_new {
                return;
            }
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
            in_all.0 += one;
            in_all.1 += bytes;
            if let Some(row) = table.get_mut(place) {
                *row = SiteCount { site: SiteId(site), blocks: row.blocks + one, bytes: row.bytes + bytes };
            }
        });
        let mut used = 0;
        (leaks.blocks, leaks.bytes) = (rounded(in_all.0), rounded(in_all.1));
        if !table.is_empty() {
            (leaks.blocks, leaks.bytes) = (0, 0);
        }
        for index in 0..table.len() {
            let SiteCount { site, blocks, bytes } = table[index];
            if blocks != 0 {
                table[used] = SiteCount { site, blocks: rounded(blocks), bytes: rounded(bytes) };
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
