//! A histogram that any thread may count into at any time, without a lock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::histogram::{FIRST, Histogram, LAST, index};

/// The buckets, and before them what counts as zero.
const CELLS: usize = (LAST - FIRST + 2) as usize;

/// Counts of values that come as whole numbers of a unit.
pub struct Cells {
    unit: Unit,
    places: &'static Places,
    sum: AtomicU64,
    cells: Box<[AtomicU64]>,
}

/// Where the values of a unit count to.
struct Places {
    /// The largest value of each cell.
    tops: Box<[u64]>,
    /// By how large a value is, to a sixteenth of its octave.
    parts: Box<[Part]>,
}

/// Values that differ by a sixteenth at most: those up to a bound count to one cell, those above it to the next one.
struct Part {
    top: u64,
    cell: usize,
}

/// What values are numbers of.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    Nanoseconds,
    Milliseconds,
    Ones,
}

/// Values of one cell that are counted at once: those that come behind each other are most often much the same, and then
/// each costs a comparison and two sums.
#[derive(Default)]
pub struct Lot {
    /// The values it takes: from `low` on so many. None before the first.
    low: u64,
    span: u64,
    cell: usize,
    /// How many are in it,
    count: u64,
    /// and what all come to that it ever took: it goes with the last of them.
    sum: u64,
}

impl Cells {
    pub fn new(unit: Unit) -> Self {
        Cells {
            unit,
            places: unit.places(),
            sum: AtomicU64::new(0),
            cells: (0..CELLS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Counts one value.
    pub fn record(&self, value: u64) {
        self.cells[self.places.cell(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts a value with others: the lot is [put](Self::put) here at last.
    #[inline]
    pub fn gather(&self, lot: &mut Lot, value: u64) {
        if value.wrapping_sub(lot.low) >= lot.span {
            self.begin(lot, value);
        }
        lot.count += 1;
        lot.sum = lot.sum.wrapping_add(value);
    }

    /// The lot that takes this value; how many were in the one before is counted.
    fn begin(&self, lot: &mut Lot, value: u64) {
        if lot.count > 0 {
            self.cells[lot.cell].fetch_add(lot.count, Ordering::Relaxed);
            lot.count = 0;
        }
        let cell = self.places.cell(value);
        let low = match cell.checked_sub(1) {
            Some(below) => self.places.tops[below] + 1,
            None => 0,
        };
        (lot.cell, lot.low) = (cell, low);
        lot.span = self.places.tops[cell] - low + 1;
    }

    /// Counts what is in a lot, and empties it.
    #[inline]
    pub fn put(&self, lot: &mut Lot) {
        let Lot {
            cell, count, sum, ..
        } = std::mem::take(lot);
        if count > 0 {
            self.cells[cell].fetch_add(count, Ordering::Relaxed);
            self.sum.fetch_add(sum, Ordering::Relaxed);
        }
    }

    /// What was counted; nothing where that is nothing.
    pub fn get(&self) -> Option<Histogram> {
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let mut cells = self.cells.iter().map(load);
        let zero = cells.next().unwrap_or_default();
        // Divided by what is whole nothing is rounded that need not be.
        let sum = load(&self.sum) as f64 / (1.0 / self.unit.size()).round();
        let histogram = Histogram::of(zero, sum, (FIRST..=LAST).zip(cells));
        (!histogram.is_empty()).then_some(histogram)
    }
}

impl Unit {
    fn size(self) -> f64 {
        match self {
            Unit::Nanoseconds => 1e-9,
            Unit::Milliseconds => 1e-3,
            Unit::Ones => 1.0,
        }
    }

    /// The cell that a value counts to, as histograms have it.
    fn cell(self, value: u64) -> usize {
        match index(value as f64 * self.size()) {
            Some(index) => (index - FIRST + 1) as usize,
            None => 0,
        }
    }

    fn places(self) -> &'static Places {
        static PLACES: [OnceLock<Places>; 3] = [const { OnceLock::new() }; 3];
        PLACES[self as usize].get_or_init(|| Places::of(self))
    }
}

impl Places {
    fn of(unit: Unit) -> Self {
        let largest = |cell: usize| {
            // The first value beyond it, by halves: `below` is none, `beyond` is one.
            let (mut below, mut beyond) = (0, u64::MAX);
            if unit.cell(beyond) <= cell {
                return beyond;
            }
            while beyond - below > 1 {
                let middle = below + (beyond - below) / 2;
                match unit.cell(middle) > cell {
                    true => beyond = middle,
                    false => below = middle,
                }
            }
            below
        };
        // One that takes no value has the same as the one before.
        let tops: Box<[u64]> = (0..CELLS).map(largest).collect();
        let part_of = |at: usize| {
            let cell = unit.cell(smallest(at));
            Part {
                top: tops[cell],
                cell,
            }
        };
        Places {
            parts: (0..=part(u64::MAX)).map(part_of).collect(),
            tops,
        }
    }

    /// The cell that a value counts to.
    #[inline]
    fn cell(&self, value: u64) -> usize {
        let part = &self.parts[part(value)];
        part.cell + usize::from(value > part.top)
    }
}

/// Parts that octaves are in, as powers of two. A cell is an eighth of an octave, so no part has more than one bound in it.
const SIXTEENTHS: u32 = 4;

/// The part of a value: its octave and its next four bits. Values below 32 have one each.
#[inline]
fn part(value: u64) -> usize {
    let shift = u64::BITS - 1 - SIXTEENTHS - (value | 1 << SIXTEENTHS).leading_zeros();
    ((shift as usize) << SIXTEENTHS) + (value >> shift) as usize
}

/// The smallest value of a part.
fn smallest(part: usize) -> u64 {
    let shift = (part >> SIXTEENTHS).saturating_sub(1);
    ((part - (shift << SIXTEENTHS)) as u64) << shift
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_counted_at_once_is_what_is_counted_one_by_one() {
        let (cells, mut histogram) = (Cells::new(Unit::Nanoseconds), Histogram::default());
        assert_eq!(cells.get(), None);
        for value in [
            0,
            1,
            119,
            120,
            1_000,
            1_000_000,
            3_333_333_333,
            u64::MAX / 100,
        ] {
            cells.record(value);
            histogram.record(value as f64 * 1e-9);
        }
        let got = cells.get().unwrap();
        assert_eq!(
            (got.zero(), got.buckets()),
            (histogram.zero(), histogram.buckets())
        );
        assert!((got.sum() / histogram.sum() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn parts_follow_each_other_from_nothing_on() {
        assert_eq!((part(0), part(31), part(32), part(33)), (0, 31, 32, 32));
        for at in 0..part(u64::MAX) {
            assert_eq!(part(smallest(at)), at);
            assert_eq!(part(smallest(at + 1) - 1), at);
        }
    }

    #[test]
    fn each_value_counts_to_the_cell_that_a_histogram_has_for_it() {
        for unit in [Unit::Nanoseconds, Unit::Milliseconds, Unit::Ones] {
            let places = unit.places();
            let bounds = places.tops.iter().copied();
            let bounds = bounds.chain((0..places.parts.len()).map(smallest));
            for value in bounds.flat_map(|top| [top.saturating_sub(1), top, top.saturating_add(1)])
            {
                assert_eq!(places.cell(value), unit.cell(value), "{unit:?} {value}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_gathered_is_what_is_counted_one_by_one(
            values in proptest::collection::vec(prop_oneof![0..3u64, 100..140u64, 0..100_000u64, any::<u64>(), Just(u64::MAX)], 0..60),
            repeats in 1..4usize,
        ) {
            for unit in [Unit::Nanoseconds, Unit::Milliseconds, Unit::Ones] {
                let (one_by_one, at_once) = (Cells::new(unit), Cells::new(unit));
                let mut lot = Lot::default();
                for value in &values {
                    for _ in 0..repeats {
                        one_by_one.record(*value);
                        at_once.gather(&mut lot, *value);
                    }
                }
                at_once.put(&mut lot);
                at_once.put(&mut lot);
                prop_assert_eq!(one_by_one.get(), at_once.get());
            }
        }
    }
}
