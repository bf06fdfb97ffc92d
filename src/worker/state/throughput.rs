//! The throughput: how many entries this worker has settled of late, which is how many it is likely to settle next.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time that is looked back upon and ahead to.
pub(crate) const SPAN: Duration = Duration::from_millis(100);
/// The least time between two notes of how many have been settled.
const STEP: Duration = Duration::from_millis(10);

/// Counts what is settled in the last tenth of a second.
///
/// Whole: that a few handlers end within a millisecond of each other says nothing about the next ones.
pub(crate) struct Throughput {
    /// When so many had been settled in all; the oldest is the youngest that is a span old.
    notes: VecDeque<(Instant, u64)>,
}

impl Throughput {
    pub fn new(now: Instant) -> Self {
        Throughput {
            notes: VecDeque::from([(now, 0)]),
        }
    }

    /// How many are likely to be settled in the next tenth of a second, with `settled` in all by `now`.
    pub fn ahead(&mut self, now: Instant, settled: u64) -> usize {
        let age = |at: Instant| now.saturating_duration_since(at);
        if self.notes.back().is_none_or(|(at, _)| age(*at) >= STEP) {
            self.notes.push_back((now, settled));
        }
        while self.notes.len() > 1 && age(self.notes[1].0) >= SPAN {
            self.notes.pop_front();
        }
        let (since, before) = self.notes[0];
        let (count, time) = ((settled - before) as f64, age(since).max(SPAN));
        (count * SPAN.as_secs_f64() / time.as_secs_f64()) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn slow_handlers_that_end_together_do_not_look_fast() {
        let start = Instant::now();
        let mut throughput = Throughput::new(start);
        for second in 1..=5_u32 {
            let end = start + second * 1_000 * MS;
            let before = u64::from(second - 1) * 4;
            // One is settled a little before the other three, and all of that is looked at closely.
            assert!(throughput.ahead(end, before + 1) <= 1);
            for ms in 1..=300 {
                let ahead = throughput.ahead(end + ms * MS, before + 4);
                assert!(ahead <= 4, "{ahead} after {second} s and {ms} ms");
            }
        }
    }

    #[test]
    fn fast_handlers_are_seen_at_once_and_slow_ones_after_a_tenth_of_a_second() {
        let start = Instant::now();
        let mut throughput = Throughput::new(start);
        let fast = |ms: u32| throughput.ahead(start + ms * MS, u64::from(ms) * 50);
        let aheads: Vec<usize> = (1..=500).map(fast).collect();
        assert_eq!((aheads[9], aheads[49]), (500, 2_500));
        assert!(
            aheads[100..]
                .iter()
                .all(|ahead| (4_500..=5_000).contains(ahead)),
            "{aheads:?}"
        );
        let slow: Vec<usize> = (501..=700)
            .map(|ms| throughput.ahead(start + ms * MS, 25_000))
            .collect();
        assert_eq!(slow[120], 0);
    }

    #[test]
    fn what_was_settled_over_a_long_time_counts_for_its_share_of_it() {
        let start = Instant::now();
        let mut throughput = Throughput::new(start);
        assert_eq!(throughput.ahead(start + 2_000 * MS, 100), 5);
    }
}
