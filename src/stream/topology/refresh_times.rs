//! When a client asks for the slot map. Pure, for the program in `simulate/` as well.

use std::time::{Duration, Instant};

/// How often the map is asked for if nothing happens.
pub const EVERY: Duration = Duration::from_secs(15);
/// How long a map is new enough for whoever doubts it.
const NEW: Duration = Duration::from_millis(200);

/// When it was asked for last.
#[derive(Debug, Default)]
pub struct RefreshTimes {
    last: Option<Instant>,
}

impl RefreshTimes {
    /// Whether to ask for it now, because somebody doubts it.
    pub fn may_ask(&self, now: Instant) -> bool {
        self.last
            .is_none_or(|last| now.saturating_duration_since(last) >= NEW)
    }

    /// It has been asked for, whether it was told or not.
    pub fn asked(&mut self, now: Instant) {
        self.last = Some(now);
    }
}
