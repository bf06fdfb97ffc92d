//! How long a read for new entries waits.

use std::time::{Duration, Instant};

/// The longest a read waits for new entries. Other work that comes up meanwhile wakes it.
const BLOCK: Duration = Duration::from_secs(1);

/// The longest a read may block: the server can't tell a worker that waits from one that is gone.
pub fn block(lease: Duration) -> Duration {
    BLOCK.min(lease / 3)
}

/// How long a single read may block: until it is time for something else.
pub fn patience(now: Instant, next_look: Instant, lease: Duration) -> Duration {
    next_look
        .saturating_duration_since(now)
        .clamp(Duration::from_millis(1), block(lease))
}
