//! How the live blocks are spread: over sizes, and over the address space. For the size-class table and the map of a
//! report. A walk like that of [`crate::Leaks`], into memory outside the heap.

use crate::means;
use allokit_platform::pages;
use core::{fmt, ptr, slice};

/// Steps of 16 bytes up to 128, then eight to a doubling, as native's size classes; above [`FINE_MAX`] doublings.
const FINE: usize = 72;
/// The largest size with a fine step.
const FINE_MAX: u64 = 32 << 10;
/// All steps: sizes have 48 bits.
const STEPS: usize = FINE + 34;

/// The step of a size.
fn step_of(size: u64) -> usize {
    match size {
        0..=16 => 0,
        17..=128 => (size as usize - 1) / 16,
        129..=FINE_MAX => {
            let doubling = (size - 1).ilog2() as usize;
            8 * (doubling - 6) + ((size - 1) >> (doubling - 3)) as usize - 8
        }
        _ => (FINE + (size - 1).ilog2() as usize - 15).min(STEPS - 1),
    }
}

/// The largest size of a step.
fn size_of_step(step: usize) -> u64 {
    match step {
        0..8 => (step as u64 + 1) * 16,
        8..FINE => {
            let doubling = step / 8 + 6;
            (step as u64 % 8 + 9) << (doubling - 3)
        }
        _ => 1 << (step - FINE + 16),
    }
}

/// A stretch of the address space, in units.
#[derive(Clone, Copy)]
struct Cell {
    unit: usize,
    bytes: u64,
}

/// How many stretches are told apart.
const CELLS: usize = 4096;
/// The smallest unit: the smallest page of the native backend.
const UNIT_SHIFT: u32 = 16;

/// What is live, by size and by address.
pub(crate) struct Spread {
    steps: [(u64, u64); STEPS],
    cells: *mut Cell,
    used: usize,
    shift: u32,
}

impl Spread {
    /// Looks at what is live now.
    pub(crate) fn take() -> Spread {
        let cells = pages::map(CELLS * size_of::<Cell>(), pages::os_page()).cast::<Cell>();
        let mut spread = Spread { steps: [(0, 0); STEPS], cells, used: 0, shift: UNIT_SHIFT };
        means::for_each(|block| spread.add(block.start, block.size as u64));
        spread.sort();
        spread
    }

    fn add(&mut self, addr: usize, size: u64) {
        let step = &mut self.steps[step_of(size)];
        *step = (step.0 + 1, step.1 + size);
        if self.cells.is_null() || size == 0 {
            return;
        }
        // A block that covers many units: units large enough that it does not.
        while size >> self.shift > CELLS as u64 / 8 {
            self.coarsen();
        }
        let (mut addr, end) = (addr, addr + size as usize);
        while addr < end {
            let next = ((addr >> self.shift) + 1) << self.shift;
            self.add_in_unit(addr >> self.shift, (end.min(next) - addr) as u64);
            addr = next;
        }
    }

    /// The walk goes upwards, nearly always: the same unit, or a new one.
    fn add_in_unit(&mut self, unit: usize, bytes: u64) {
        if let Some(last) = self.cells().last_mut()
            && last.unit == unit
        {
            last.bytes += bytes;
            return;
        }
        let shift = self.shift;
        while self.used == CELLS {
            self.coarsen();
        }
        // SAFETY: there is room for CELLS of them.
        unsafe { self.cells.add(self.used).write(Cell { unit: unit >> (self.shift - shift), bytes }) };
        self.used += 1;
    }

    fn cells(&mut self) -> &mut [Cell] {
        if self.cells.is_null() {
            return &mut [];
        }
        // SAFETY: so many are filled; the mapping is ours alone.
        unsafe { slice::from_raw_parts_mut(self.cells, self.used) }
    }

    /// Units of twice the size.
    fn coarsen(&mut self) {
        self.cells().iter_mut().for_each(|cell| cell.unit >>= 1);
        self.shift += 1;
        self.sort();
    }

    /// By address, each unit once.
    fn sort(&mut self) {
        let cells = self.cells();
        // Nearly in order already, and the library stays smaller than with core's.
        for gap in [701, 301, 132, 57, 23, 10, 4, 1] {
            for at in gap..cells.len() {
                let mut to = at;
                while to >= gap && cells[to - gap].unit > cells[to].unit {
                    cells.swap(to - gap, to);
                    to -= gap;
                }
            }
        }
        let mut used = 0;
        for index in 0..cells.len() {
            if used > 0 && cells[used - 1].unit == cells[index].unit {
                cells[used - 1].bytes += cells[index].bytes;
            } else {
                cells[used] = cells[index];
                used += 1;
            }
        }
        self.used = used;
    }

    /// A line for each size that there is.
    pub(crate) fn write_text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let steps = self.steps.iter().enumerate().filter(|(_, (blocks, _))| *blocks > 0);
        for (step, (blocks, bytes)) in steps {
            writeln!(out, "{blocks:>16}{bytes:>14}  up to {}", size_of_step(step))?;
        }
        Ok(())
    }

    /// The members `sizes` and `map` of a JSON object.
    pub(crate) fn write_json(&mut self, out: &mut dyn fmt::Write) -> fmt::Result {
        out.write_str("\"sizes\":[")?;
        let mut comma = "";
        for (step, (blocks, bytes)) in self.steps.iter().enumerate().filter(|(_, (blocks, _))| *blocks > 0) {
            let most = size_of_step(step);
            write!(out, "{comma}{{\"most\":{most},\"blocks\":{blocks},\"bytes\":{bytes}}}")?;
            comma = ",";
        }
        write!(out, "],\"map\":{{\"unit\":{},\"cells\":[", 1u64 << self.shift)?;
        let (mut comma, mut before) = ("", 0);
        for cell in self.cells() {
            // Only how far apart they are: addresses say nothing to a reader, and more to others.
            let gap = if comma.is_empty() { 0 } else { cell.unit - before };
            write!(out, "{comma}[{gap},{}]", cell.bytes)?;
            (comma, before) = (",", cell.unit);
        }
        out.write_str("]}")
    }
}

impl Drop for Spread {
    fn drop(&mut self) {
        if !self.cells.is_null() {
            // SAFETY: the mapping is ours and nobody looks at it any more.
            unsafe { pages::release(self.cells.cast(), CELLS * size_of::<Cell>(), pages::os_page()) };
            self.cells = ptr::null_mut();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_has_the_smallest_step_that_holds_it() {
        let mut before = 0;
        for step in 0..STEPS {
            let most = size_of_step(step);
            assert!(most > before, "step {step}");
            assert_eq!((step_of(before + 1), step_of(most)), (step, step), "up to {most}");
            before = most;
        }
        assert_eq!((step_of(0), size_of_step(FINE - 1)), (0, FINE_MAX));
        assert_eq!(step_of(u64::MAX), STEPS - 1);
    }

    #[test]
    fn units_grow_until_all_fits_and_no_byte_is_lost() {
        let cells = pages::map(CELLS * size_of::<Cell>(), pages::os_page()).cast::<Cell>();
        let mut spread = Spread { steps: [(0, 0); STEPS], cells, used: 0, shift: UNIT_SHIFT };
        spread.add(0x7000_0001_fff0, 32);
        spread.sort();
        assert_eq!(spread.cells().iter().map(|cell| cell.bytes).sum::<u64>(), 32);
        assert_eq!(spread.used, 2, "a block over a border is in both units");
        for index in (0..3 * CELLS).rev() {
            spread.add(0x5000_0000_0000 + (index << UNIT_SHIFT), 100);
        }
        spread.add(0x6000_0000_0000, 1 << 40);
        spread.sort();
        assert!(spread.used <= CELLS && spread.shift > UNIT_SHIFT + 1);
        let units = spread.cells().windows(2).all(|pair| pair[0].unit < pair[1].unit);
        assert!(units, "by address, each once");
        let bytes = spread.cells().iter().map(|cell| cell.bytes).sum::<u64>();
        assert_eq!(bytes, 32 + 3 * CELLS as u64 * 100 + (1 << 40));
    }
}
