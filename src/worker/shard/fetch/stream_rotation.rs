//! Which streams a read asks of. COUNT is per stream: if there are many, a read of all of them brings little of each,
//! and each costs Redis an acknowledgement of its own. So those that have a backlog take turns, with large counts: one
//! for some reads in a row if entries are handled fast, else a few at a time. The others are looked at in between.

use std::time::Duration;

/// Most streams with a backlog that are asked in one read.
const TOGETHER: usize = 8;
/// For so long a stream with a backlog may have to wait for its turn.
pub(crate) const ROUND: Duration = Duration::from_millis(500);
/// Entries are handled fast if a round has time for as many reads as this.
const FAST: usize = 128;
/// Every fourth read asks those that had no backlog.
const OTHERS: u32 = 4;

/// The streams of a worker, by their places.
#[derive(Default)]
pub(crate) struct StreamRotation {
    all: usize,
    /// Those that gave as much as was asked, the next one first.
    busy: Vec<usize>,
    reads: u32,
    /// The stream whose turn it is, and how many reads it has had, if they are asked one by one.
    turn: Option<(usize, usize)>,
}

/// The streams one read asks of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Share {
    All,
    /// Those at these places.
    Some(Vec<usize>),
}

impl StreamRotation {
    /// Whether some have a backlog that others must not keep waiting.
    pub fn is_needed(&self) -> bool {
        !self.busy.is_empty() && (self.busy.len() < self.all || self.all > TOGETHER)
    }

    /// Whom to ask next, with so many streams, if what so many reads bring is handled in a [`ROUND`].
    pub fn next(&mut self, all: usize, reads: usize) -> Share {
        if self.all != all {
            *self = StreamRotation {
                all,
                ..StreamRotation::default()
            };
        }
        if !self.is_needed() {
            return Share::All;
        }
        self.reads += 1;
        if self.busy.len() < self.all && self.reads.is_multiple_of(OTHERS) {
            let others = (0..self.all).filter(|at| !self.busy.contains(at));
            return Share::Some(others.collect());
        }
        let in_a_row = if reads < FAST {
            0
        } else {
            reads / self.busy.len()
        };
        if in_a_row > 0 {
            let (at, had) = match self.turn {
                Some((at, had)) if had < in_a_row && self.busy.contains(&at) => (at, had),
                _ => {
                    self.busy.rotate_left(1);
                    (self.busy[self.busy.len() - 1], 0)
                }
            };
            self.turn = Some((at, had + 1));
            return Share::Some(vec![at]);
        }
        self.turn = None;
        // As many at a time as makes all turns about equal.
        let turns = self.busy.len().div_ceil(TOGETHER);
        let some = self.busy.len().div_ceil(turns);
        self.busy.rotate_left(some);
        Share::Some(self.busy[self.busy.len() - some..].to_vec())
    }

    /// Of these some gave as much as was asked, as far as `is_full` tells.
    pub fn learn(&mut self, asked: &Share, is_full: impl Fn(usize) -> bool) {
        let asked = match asked {
            Share::All => &(0..self.all).collect(),
            Share::Some(places) => places,
        };
        self.busy.retain(|at| !asked.contains(at) || is_full(*at));
        for at in asked {
            if is_full(*at) && !self.busy.contains(at) {
                self.busy.push(*at);
            }
        }
    }
}

impl Share {
    /// How many streams, of `all`.
    pub fn len(&self, all: usize) -> usize {
        match self {
            Share::All => all,
            Share::Some(places) => places.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_A_ROW: usize = 8;
    const READS: usize = 20 * IN_A_ROW;

    fn places(share: Share) -> Vec<usize> {
        match share {
            Share::All => panic!("all of them"),
            Share::Some(places) => places,
        }
    }

    #[test]
    fn a_few_streams_that_are_all_alike_are_asked_together() {
        let mut rotation = StreamRotation::default();
        assert_eq!(rotation.next(8, 0), Share::All);
        rotation.learn(&Share::All, |_| true);
        assert_eq!(rotation.next(8, 0), Share::All);
        rotation.learn(&Share::All, |_| false);
        assert!(!rotation.is_needed());
    }

    #[test]
    fn many_streams_with_a_backlog_have_equal_turns() {
        let mut rotation = StreamRotation::default();
        assert_eq!(rotation.next(100, 0), Share::All);
        rotation.learn(&Share::All, |_| true);
        let mut asked = vec![0; 100];
        for _ in 0..13 * 8 {
            let share = rotation.next(100, 0);
            let some = places(share.clone());
            assert!(some.len() <= TOGETHER);
            some.iter().for_each(|at| asked[*at] += 1);
            rotation.learn(&share, |_| true);
        }
        assert!(
            asked.iter().all(|times| (8..=9).contains(times)),
            "{asked:?}"
        );
    }

    #[test]
    fn if_handlers_are_fast_a_turn_is_some_reads_of_one_stream() {
        let mut rotation = StreamRotation::default();
        assert_eq!(rotation.next(20, READS), Share::All);
        rotation.learn(&Share::All, |at| at != 7);
        let mut asked = Vec::new();
        while asked.len() < 19 * IN_A_ROW {
            let some = places(rotation.next(20, READS));
            rotation.learn(&Share::Some(some.clone()), |at| at != 7);
            asked.extend(some.into_iter().filter(|at| *at != 7));
        }
        let turns_of = asked
            .chunk_by(|a, b| a == b)
            .map(|turn| (turn[0], turn.len()));
        let mut each: Vec<(usize, usize)> = turns_of.collect();
        each.sort_unstable();
        let busy = (0..20).filter(|at| *at != 7);
        assert!(each.into_iter().eq(busy.map(|at| (at, IN_A_ROW))));
    }

    #[test]
    fn a_turn_of_several_reads_ends_with_its_backlog() {
        let mut rotation = StreamRotation::default();
        assert_eq!(rotation.next(20, READS), Share::All);
        rotation.learn(&Share::All, |_| true);
        let first = places(rotation.next(20, READS));
        rotation.learn(&Share::Some(first.clone()), |_| false);
        assert_ne!(places(rotation.next(20, READS)), first);
    }

    #[test]
    fn those_without_a_backlog_are_looked_at_in_between() {
        let mut rotation = StreamRotation::default();
        assert_eq!(rotation.next(20, 0), Share::All);
        rotation.learn(&Share::All, |at| at == 3);
        let shares: Vec<Vec<usize>> = (0..8).map(|_| places(rotation.next(20, 0))).collect();
        assert_eq!(shares.iter().filter(|some| **some == [3]).count(), 6);
        let others: Vec<usize> = (0..20).filter(|at| *at != 3).collect();
        assert_eq!(shares.iter().filter(|some| **some == others).count(), 2);
    }

    #[test]
    fn a_stream_whose_backlog_ends_is_one_of_the_others_and_may_come_back() {
        let mut rotation = StreamRotation::default();
        assert_eq!(rotation.next(3, 0), Share::All);
        rotation.learn(&Share::All, |at| at < 2);
        rotation.learn(&Share::Some(vec![0]), |_| false);
        assert_eq!(places(rotation.next(3, 0)), [1]);
        rotation.learn(&Share::Some(vec![2]), |_| true);
        assert_eq!(places(rotation.next(3, 0)).len(), 2);
        rotation.learn(&Share::Some(vec![1, 2]), |_| false);
        assert_eq!(rotation.next(3, 0), Share::All);
    }
}
