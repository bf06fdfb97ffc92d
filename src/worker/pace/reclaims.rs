//! When it is looked for what dead workers held.

use std::time::{Duration, Instant};

/// The longest time between two looks at the group's consumers.
pub const LONGEST: Duration = Duration::from_secs(5);
/// The shortest.
pub const SHORTEST: Duration = Duration::from_millis(50);
/// If no more workers than this are alive each of them looks when a lease runs out.
const FEW: usize = 16;
/// Every tenth look also looks at holders that are alive.
pub const THOROUGH: u64 = 10;

/// When to look next.
///
/// A look without room takes nothing but suspects. It must not use up the turn of one with room: if it has found
/// something, the next one with room is due at once.
#[derive(Debug)]
pub struct ReclaimTimes {
    /// The next look with room.
    pub(in crate::worker) next: Instant,
    /// The next look at every holder, room or not: suspects need none.
    all: Instant,
    looks: u64,
    /// Something is to be looked for sooner: a suspect that may come in now.
    soon: Option<Instant>,
}

/// Whether it is time for a look.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is.
    Look {
        /// At every holder, room or not.
        all: bool,
        /// At those that are alive, too.
        thorough: bool,
    },
    /// It is not.
    Not {
        /// Something is due that there is no room for.
        due: bool,
    },
}

impl ReclaimTimes {
    /// The first look is at once.
    pub fn new(now: Instant) -> Self {
        ReclaimTimes {
            next: now,
            all: now,
            looks: 0,
            soon: None,
        }
    }

    /// When to look next, with room.
    pub fn next(&self) -> Instant {
        self.next.min(self.next_at_all())
    }

    /// Looks at this time at the latest.
    pub fn look_soon(&mut self, at: Instant) {
        self.soon = Some(self.soon.map_or(at, |soon| soon.min(at)));
    }

    /// Whether to look now, if there is room. If the server has not been healthy for a lease the ages it tells mean nothing.
    pub fn begin(
        &mut self,
        now: Instant,
        has_room: bool,
        is_healthy: impl FnOnce() -> bool,
        lease: Duration,
    ) -> Turn {
        let all = self.next_at_all() <= now;
        if !all && (!has_room || self.next > now) {
            return Turn::Not {
                due: self.next <= now,
            };
        }
        if !is_healthy() {
            self.soon = None;
            self.next = now + lease / 10;
            self.all = self.next;
            return Turn::Not { due: false };
        }
        if all {
            self.soon = None;
            self.looks += 1;
        }
        Turn::Look {
            all,
            thorough: all && self.looks.is_multiple_of(THOROUGH),
        }
    }

    /// The look is over: there is `more` to be had now, or the next lease runs out in `next`. `left_out`: there was no room
    /// for what is due. So many `others` are alive: not all of many look when a lease runs out.
    pub fn end(&mut self, now: Instant, next: Duration, more: bool, left_out: bool, others: usize) {
        let wait = next.max(SHORTEST) + spread(others);
        if !left_out {
            self.all = now + wait;
        }
        self.next = if more { now } else { now + wait };
    }

    /// When every holder is to be looked at next.
    fn next_at_all(&self) -> Instant {
        self.soon.map_or(self.all, |soon| soon.min(self.all))
    }
}

/// If many look after the same holders, each looks so much later, by chance: all of them together look no more often than a
/// few would, and one of them soon.
fn spread(others: usize) -> Duration {
    let many = others as f64 / FEW as f64 - 1.0;
    LONGEST.mul_f64(many.clamp(0.0, 100.0) * fastrand::f64())
}

/// How long it is from a look until a holder's lease runs out, if so long of it is left; nothing if that is over.
pub fn runs_out_in(left_ms: u64) -> Option<Duration> {
    (left_ms > 0).then(|| Duration::from_millis(left_ms + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When each of so many others looks next, if a lease runs out in a second.
    fn looks(others: usize) -> Vec<Duration> {
        let now = Instant::now();
        let next = |_| {
            let mut times = ReclaimTimes::new(now);
            times.end(now, Duration::from_secs(1), false, false, others);
            times.next().duration_since(now)
        };
        (0..others).map(next).collect()
    }

    #[test]
    fn a_few_all_look_when_a_lease_runs_out_and_of_many_a_few() {
        assert_eq!(looks(FEW), [Duration::from_secs(1); FEW]);
        let mut many = looks(1000);
        many.sort();
        let soon = Duration::from_secs(6);
        let early = many.iter().filter(|look| **look < soon).count();
        assert!((4..60).contains(&early), "{early} within five seconds");
        assert!(many[0] < Duration::from_secs(3), "{:?}", many[0]);
    }
}
