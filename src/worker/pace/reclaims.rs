//! When it is looked for what dead workers held.

use std::time::{Duration, Instant};

/// The longest time between two looks at the group's consumers.
pub const LONGEST: Duration = Duration::from_secs(5);
/// The shortest.
pub const SHORTEST: Duration = Duration::from_millis(50);
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
    /// for what is due.
    pub fn end(&mut self, now: Instant, next: Duration, more: bool, left_out: bool) {
        let wait = next.max(SHORTEST);
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

/// How long it is from a look until a holder's lease runs out, if so long of it is left; nothing if that is over.
pub fn runs_out_in(left_ms: u64) -> Option<Duration> {
    (left_ms > 0).then(|| Duration::from_millis(left_ms + 1))
}
