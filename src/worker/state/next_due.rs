//! When the next scheduled event of a stream is due.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::sync::lock;

/// After so long without a wake this looks by itself: longer than a worker at rest is between two.
pub(crate) const SILENCE: Duration = Duration::from_millis(1100);

/// What is known of the scheduled events of one stream.
#[derive(Default)]
pub(crate) struct Schedule(Mutex<Known>);

/// The same, looked into.
#[derive(Default)]
pub(crate) struct Known {
    /// When the next one is due.
    due: Option<Instant>,
    /// When to look whatever is known.
    pub look: Option<Instant>,
    pub not_before: Option<Instant>,
}

impl Schedule {
    /// A wake says how long it is until the next one is due. Answers whether this has to look sooner than it meant to.
    pub fn heard(&self, next: Option<Duration>) -> bool {
        let mut known = self.known();
        let before = known.next();
        known.learn(next, SILENCE);
        known.next() < before
    }

    /// When to look next.
    pub fn next(&self) -> Option<Instant> {
        self.known().next()
    }

    pub fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.0)
    }
}

impl Known {
    pub fn learn(&mut self, next: Option<Duration>, silence: Duration) {
        let now = Instant::now();
        self.due = next.map(|next| now + next);
        self.look = Some(now + silence);
    }

    pub fn next(&self) -> Option<Instant> {
        let next = self.due.into_iter().chain(self.look).min();
        next.max(self.not_before)
    }
}
