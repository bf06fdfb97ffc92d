//! How many entries a search reads at a time: many, so that it asks seldom, and few while reading takes long, so that it
//! ends about when it should.

use std::time::Duration;

/// It begins with so many, and never reads fewer.
const FEWEST: u64 = 100;
/// A step that takes less than this part of the time there is could be larger, and one that takes more than twice as
/// much could be smaller.
const QUICK: u32 = 10;

/// The size of a search's next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Steps {
    next: u64,
    quick: Duration,
    /// No step brings more, whatever is asked for.
    most: u64,
}

impl Steps {
    /// For a search that is to end after `time`, where no step brings more than `most`.
    pub fn of(time: Duration, most: u64) -> Self {
        Steps {
            next: FEWEST.min(most),
            quick: time / QUICK,
            most,
        }
    }

    pub fn next(&self) -> u64 {
        self.next
    }

    /// A step took so long.
    pub fn took(&mut self, took: Duration) {
        if took < self.quick {
            self.next = (self.next * 2).min(self.most);
        } else if took > 2 * self.quick {
            self.next = (self.next / 2).max(FEWEST).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOKS: Duration = Duration::from_millis(60);

    /// How many steps it takes to read so many entries within the time, on a machine that needs `each` for one.
    fn steps(entries: u64, each: Duration) -> (u64, u64) {
        let mut steps = Steps::of(LOOKS, 500);
        let (mut read, mut asked, mut elapsed) = (0, 0, Duration::ZERO);
        while read < entries && elapsed < LOOKS {
            let took = each * u32::try_from(steps.next()).unwrap();
            read += steps.next();
            asked += 1;
            elapsed += took;
            steps.took(took);
        }
        (read, asked)
    }

    #[test]
    fn however_quick_a_machine_is_it_asks_little_more_than_once_for_500() {
        for ns in [1, 100, 1_000, 5_000, 12_000, 20_000, 100_000, 1_000_000] {
            let (read, asked) = steps(50_000, Duration::from_nanos(ns));
            assert!(
                asked <= 10 + 3 + read / 500,
                "{asked} for {read} of {ns} ns"
            );
        }
        assert_eq!(steps(50_000, Duration::from_nanos(100)), (50_200, 102));
    }

    #[test]
    fn on_a_slow_machine_a_step_stays_small() {
        assert_eq!(steps(50_000, Duration::from_millis(1)), (100, 1));
        let mut steps = Steps::of(LOOKS, 500);
        for _ in 0..9 {
            steps.took(Duration::ZERO);
        }
        assert_eq!(steps.next(), 500);
        steps.took(Duration::from_millis(13));
        assert_eq!(steps.next(), 250);
        steps.took(Duration::from_millis(9));
        assert_eq!(steps.next(), 250);
        for _ in 0..9 {
            steps.took(Duration::from_millis(13));
        }
        assert_eq!(steps.next(), 100);
    }
}
