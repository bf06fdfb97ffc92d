//! When a worker pulses.

use std::time::Duration;

/// At rest it pulses once in so many times.
pub const AT_REST: u32 = 3;
/// The least time between two.
pub const LEAST: Duration = Duration::from_millis(250);

/// How long it is until the first one: not all workers of a fleet at once.
pub fn first_in() -> Duration {
    Duration::from_millis(fastrand::u64(..500))
}

/// Whether it is time for one though nothing has happened, if the last one was so long ago.
pub fn is_due_at_rest(since: Duration, every: Duration) -> bool {
    since + LEAST >= every * AT_REST
}
