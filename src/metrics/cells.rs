//! A histogram that any thread may count into at any time, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use super::histogram::{FIRST, Histogram, LAST, index};

const BUCKETS: usize = (LAST - FIRST + 1) as usize;

/// Counts of values that come as whole numbers of a unit.
pub struct Cells {
    /// How much one is.
    unit: f64,
    zero: AtomicU64,
    sum: AtomicU64,
    buckets: Box<[AtomicU64]>,
}

/// What values are numbers of.
pub const NANOSECONDS: f64 = 1e-9;
pub const MILLISECONDS: f64 = 1e-3;
pub const ONES: f64 = 1.0;

impl Cells {
    pub fn new(unit: f64) -> Self {
        Cells {
            unit,
            zero: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Counts one value.
    pub fn record(&self, value: u64) {
        self.count(value);
        self.add(value);
    }

    /// Counts a value that is [added](Self::add) together with others.
    #[inline]
    pub fn count(&self, value: u64) {
        let cell = match index(value as f64 * self.unit) {
            Some(index) => self.buckets.get((index - FIRST) as usize),
            None => Some(&self.zero),
        };
        if let Some(cell) = cell {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What values that were counted come to together.
    #[inline]
    pub fn add(&self, sum: u64) {
        self.sum.fetch_add(sum, Ordering::Relaxed);
    }

    /// What was counted; nothing where that is nothing.
    pub fn get(&self) -> Option<Histogram> {
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let indices = FIRST..=LAST;
        let buckets = indices.zip(self.buckets.iter().map(load));
        // Divided by what is whole nothing is rounded that need not be.
        let sum = load(&self.sum) as f64 / (1.0 / self.unit).round();
        let histogram = Histogram::of(load(&self.zero), sum, buckets);
        (!histogram.is_empty()).then_some(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_at_once_is_what_is_counted_one_by_one() {
        let (cells, mut histogram) = (Cells::new(NANOSECONDS), Histogram::default());
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
            histogram.record(value as f64 * NANOSECONDS);
        }
        let got = cells.get().unwrap();
        assert_eq!(
            (got.zero(), got.buckets()),
            (histogram.zero(), histogram.buckets())
        );
        assert!((got.sum() / histogram.sum() - 1.0).abs() < 1e-9);
    }
}
