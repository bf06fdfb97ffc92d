//! Which streams a read asks of. COUNT is per stream: where there are many, a read of all of them brings little of each,
//! and each costs Redis an acknowledgement of its own. So those that have a backlog take turns, a few at a time, with
//! large counts; and the others are looked at in between.

/// Most streams with a backlog that are asked in one read.
const TOGETHER: usize = 8;
/// In every so-manieth read those are asked that had no backlog.
const OTHERS: u32 = 4;

/// The streams of a worker, by their places.
#[derive(Default)]
pub(super) struct Turns {
    all: usize,
    /// Those that gave as much as was asked, the next one first.
    busy: Vec<usize>,
    reads: u32,
}

/// The streams one read asks of.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Share {
    All,
    /// Those at these places.
    Some(Vec<usize>),
}

impl Turns {
    /// Whether some have a backlog that others must not keep waiting.
    pub fn is_needed(&self) -> bool {
        !self.busy.is_empty() && (self.busy.len() < self.all || self.all > TOGETHER)
    }

    /// Whom to ask next, with so many streams.
    pub fn next(&mut self, all: usize) -> Share {
        if self.all != all {
            *self = Turns {
                all,
                ..Turns::default()
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

    fn places(share: Share) -> Vec<usize> {
        match share {
            Share::All => panic!("all of them"),
            Share::Some(places) => places,
        }
    }

    #[test]
    fn a_few_streams_that_are_all_alike_are_asked_together() {
        let mut turns = Turns::default();
        assert_eq!(turns.next(8), Share::All);
        turns.learn(&Share::All, |_| true);
        assert_eq!(turns.next(8), Share::All);
        turns.learn(&Share::All, |_| false);
        assert!(!turns.is_needed());
    }

    #[test]
    fn many_streams_with_a_backlog_have_equal_turns() {
        let mut turns = Turns::default();
        assert_eq!(turns.next(100), Share::All);
        turns.learn(&Share::All, |_| true);
        let mut asked = vec![0; 100];
        for _ in 0..13 * 8 {
            let share = turns.next(100);
            let some = places(share.clone());
            assert!(some.len() <= TOGETHER);
            some.iter().for_each(|at| asked[*at] += 1);
            turns.learn(&share, |_| true);
        }
        assert!(
            asked.iter().all(|times| (8..=9).contains(times)),
            "{asked:?}"
        );
    }

    #[test]
    fn those_without_a_backlog_are_looked_at_in_between() {
        let mut turns = Turns::default();
        assert_eq!(turns.next(20), Share::All);
        turns.learn(&Share::All, |at| at == 3);
        let shares: Vec<Vec<usize>> = (0..8).map(|_| places(turns.next(20))).collect();
        assert_eq!(shares.iter().filter(|some| **some == [3]).count(), 6);
        let others: Vec<usize> = (0..20).filter(|at| *at != 3).collect();
        assert_eq!(shares.iter().filter(|some| **some == others).count(), 2);
    }

    #[test]
    fn a_stream_whose_backlog_ends_is_one_of_the_others_and_may_come_back() {
        let mut turns = Turns::default();
        assert_eq!(turns.next(3), Share::All);
        turns.learn(&Share::All, |at| at < 2);
        turns.learn(&Share::Some(vec![0]), |_| false);
        assert_eq!(places(turns.next(3)), [1]);
        turns.learn(&Share::Some(vec![2]), |_| true);
        assert_eq!(places(turns.next(3)).len(), 2);
        turns.learn(&Share::Some(vec![1, 2]), |_| false);
        assert_eq!(turns.next(3), Share::All);
    }
}
