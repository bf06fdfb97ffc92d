//! When parked entries are looked for.

use std::time::{Duration, Instant};

/// How often every worker looks for due entries that nobody told it of, and for what is paused: that holds within a
/// second. A server at rest looks at its clock ten times a second only, and may wake it so much later: scheduled events
/// are to be found within a second all the same.
pub const POLL: Duration = Duration::from_millis(850);
/// The least time between two looks, so that due times close together are woken together.
pub const LEAST: Duration = Duration::from_millis(5);

/// When parked entries are to be looked for next.
#[derive(Debug)]
pub struct DueTimes {
    next: Instant,
    /// No look without room before this: it takes nothing, and only tells what is paused.
    bare: Instant,
}

/// Whether it is time for a look.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is.
    Look,
    /// It is not; whether something is due all the same.
    Not {
        /// Something is due that there is no room for.
        due: bool,
    },
}

impl DueTimes {
    /// The first look is at once.
    pub fn new(now: Instant) -> Self {
        DueTimes {
            next: now,
            bare: now,
        }
    }

    /// When to look next for what others have parked.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Whether to look now, if something that was parked here falls due at `parked_here`. Without room (`is_bare`) it only
    /// hears what is paused, now and then.
    pub fn begin(&mut self, now: Instant, parked_here: Option<Instant>, is_bare: bool) -> Turn {
        let at = parked_here.map_or(self.next, |due| due.min(self.next));
        if at > now || (is_bare && self.bare > now) {
            self.next = at;
            return Turn::Not { due: at <= now };
        }
        if is_bare {
            self.bare = now + POLL;
        }
        Turn::Look
    }

    /// The look is over: there is `more` to be had now, or something is due in so long.
    pub fn end(&mut self, now: Instant, more: bool, next: Duration) {
        self.next = match more {
            // No waiting, not even a little: a read would have to block for it, and a server at rest looks at its
            // clock ten times a second only.
            true => now,
            false => now + next.clamp(LEAST, POLL),
        };
    }
}
