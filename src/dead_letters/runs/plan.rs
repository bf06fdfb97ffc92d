//! What a run of replays does next: a few first, as a canary; the rest once those have succeeded; nothing more once too many
//! died again. Pure: counts in, a step out.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// So many copies have to be settled for a share of them to say anything, where there is no canary.
const BASIS: u64 = 20;
/// Copies that are judged together besides all of them: what breaks half-way is not to hide behind what went well before.
const BLOCK: u64 = 200;
/// Most copies that may be unsettled behind the canary: their workers are to keep up, or a stop would come too late.
const UNSETTLED: u64 = 1000;
/// The same at a rate, as seconds of it.
const SECONDS: u64 = 10;

/// How a run replays: by [`RunPlan::default`] all that is meant, as fast as its group handles it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunPlan {
    /// So many first. The others follow once these are settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<u64>,
    /// Whether it stops behind the canary, for somebody to look.
    #[serde(default)]
    pub canary_only: bool,
    /// At most so many a second behind the canary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<NonZeroU32>,
    /// It stops by itself once more than so many per cent of what is settled died again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_at: Option<f64>,
}

impl RunPlan {
    /// All that is meant, as fast as the group handles it.
    pub fn new() -> Self {
        RunPlan::default()
    }

    /// So many first; the others follow once these are settled.
    #[must_use]
    pub fn canary(mut self, letters: u64) -> Self {
        self.canary = Some(letters);
        self
    }

    /// Stops behind the canary, for somebody to look; resumed it replays the next ones.
    #[must_use]
    pub fn canary_only(mut self) -> Self {
        self.canary_only = true;
        self
    }

    /// At most so many a second behind the canary.
    #[must_use]
    pub fn rate(mut self, rate: Option<NonZeroU32>) -> Self {
        self.rate = rate;
        self
    }

    /// Stops by itself once more than so many per cent of what is settled died again.
    #[must_use]
    pub fn stop_at(mut self, per_cent: f64) -> Self {
        self.stop_at = Some(per_cent);
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let invalid = |message: &str| Err(Error::new(ErrorKind::Invalid, message));
        if self.canary == Some(0) {
            return invalid("a canary of none tells nothing: it takes 1 letter at least");
        }
        if self.canary_only && self.canary.is_none() {
            return invalid("without a canary there is nothing to stop behind");
        }
        match self.stop_at {
            Some(per_cent) if !(0.0..=100.0).contains(&per_cent) => {
                invalid("the share to stop at is a percentage, from 0 to 100")
            }
            _ => Ok(()),
        }
    }
}

/// How far a run is, since it began or was last resumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub replayed: u64,
    pub died: u64,
    pub succeeded: u64,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    /// Up to so many letters, as long as no more than so many copies are unsettled.
    Replay { most: u64, unsettled: u64 },
    /// Copies are to be settled first.
    Wait,
    /// Too many died again, or the canary is through and somebody is to look.
    Stop(String),
}

/// Judges a run by its counts.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// As they were when the block began that is judged by itself.
    block: Counts,
}

impl Judge {
    /// What comes next.
    pub fn next(&mut self, plan: &RunPlan, is: Counts) -> Next {
        let basis = plan.canary.unwrap_or(BASIS);
        if let Some(most) = plan.stop_at {
            let block = is.since(self.block);
            for (counts, basis) in [(is, basis), (block, basis.max(BLOCK / 2))] {
                if counts.exceeds(most, basis) {
                    return Next::Stop(format!(
                        "{} of {} died again, more than {most} %",
                        counts.died,
                        counts.settled()
                    ));
                }
            }
            if block.settled() >= BLOCK {
                self.block = is;
            }
        }
        if let Some(canary) = plan.canary {
            if is.replayed < canary {
                return Next::Replay {
                    most: canary - is.replayed,
                    unsettled: canary,
                };
            }
            if is.settled() < canary {
                return Next::Wait;
            }
            if plan.canary_only {
                return Next::Stop(format!(
                    "the canary is through: {} succeeded, {} died again; resume it for the next {canary}",
                    is.succeeded, is.died
                ));
            }
        }
        let paced = plan
            .rate
            .map_or(UNSETTLED, |rate| u64::from(rate.get()) * SECONDS);
        Next::Replay {
            most: u64::MAX,
            unsettled: paced.max(plan.canary.unwrap_or(1)).min(UNSETTLED),
        }
    }
}

impl Counts {
    pub fn settled(self) -> u64 {
        self.died + self.succeeded
    }

    fn since(self, before: Counts) -> Counts {
        Counts {
            replayed: self.replayed.saturating_sub(before.replayed),
            died: self.died.saturating_sub(before.died),
            succeeded: self.succeeded.saturating_sub(before.succeeded),
        }
    }

    /// Whether more than so many per cent died again, of those that are settled and at least of `basis`: of a few a share
    /// says nothing, but what would be too many of all of them is too many.
    fn exceeds(self, per_cent: f64, basis: u64) -> bool {
        let of = self.settled().max(basis);
        self.died as f64 * 100.0 > per_cent * of as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(canary: Option<u64>, rate: u32, stop_at: f64) -> RunPlan {
        RunPlan {
            canary,
            canary_only: false,
            rate: NonZeroU32::new(rate),
            stop_at: Some(stop_at),
        }
    }

    fn counts(replayed: u64, died: u64, succeeded: u64) -> Counts {
        Counts {
            replayed,
            died,
            succeeded,
        }
    }

    #[test]
    fn a_canary_is_settled_before_the_rest_follows() {
        let (plan, mut judge) = (plan(Some(10), 50, 5.0), Judge::default());
        let replay = |most, unsettled| Next::Replay { most, unsettled };
        assert_eq!(judge.next(&plan, counts(0, 0, 0)), replay(10, 10));
        assert_eq!(judge.next(&plan, counts(7, 0, 2)), replay(3, 10));
        assert_eq!(judge.next(&plan, counts(10, 0, 9)), Next::Wait);
        assert_eq!(judge.next(&plan, counts(10, 0, 10)), replay(u64::MAX, 500));
    }

    #[test]
    fn it_stops_once_more_died_than_may_of_the_canary_or_of_all() {
        let stops = |plan: &RunPlan, is| matches!(Judge::default().next(plan, is), Next::Stop(_));
        let of_ten = plan(Some(10), 50, 5.0);
        // One of ten is more than 5 %, whatever becomes of the others.
        assert!(stops(&of_ten, counts(3, 1, 0)));
        let of_hundred = plan(Some(100), 50, 5.0);
        assert!(!stops(&of_hundred, counts(100, 5, 0)));
        assert!(stops(&of_hundred, counts(100, 6, 0)));
        assert!(!stops(&of_hundred, counts(400, 15, 285)));
        assert!(stops(&of_hundred, counts(400, 16, 284)));
        let without = plan(None, 50, 5.0);
        assert!(!stops(&without, counts(5, 1, 0)));
        assert!(stops(&without, counts(5, 2, 0)));
        assert!(stops(&plan(None, 0, 0.0), counts(1, 1, 0)));
        assert!(!stops(&plan(None, 0, 100.0), counts(50, 50, 0)));
    }

    #[test]
    fn what_breaks_half_way_does_not_hide_behind_what_went_well() {
        let (plan, mut judge) = (plan(Some(10), 0, 5.0), Judge::default());
        for settled in (10..=10_000).step_by(50) {
            let next = judge.next(&plan, counts(settled, 0, settled));
            assert!(!matches!(next, Next::Stop(_)));
        }
        // 16 of 10,010 would be nothing.
        let next = judge.next(&plan, counts(10_016, 16, 9_960));
        assert!(matches!(next, Next::Stop(_)), "{next:?}");
    }

    #[test]
    fn a_canary_alone_is_looked_at_by_somebody() {
        let plan = RunPlan {
            canary_only: true,
            ..plan(Some(2), 0, 50.0)
        };
        let next = Judge::default().next(&plan, counts(2, 0, 2));
        assert!(matches!(next, Next::Stop(why) if why.starts_with("the canary is through")));
    }
}
