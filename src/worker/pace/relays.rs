//! When it is looked for what others have left in the outbox.

use std::time::Duration;

/// How often, on average.
const LOOK: Duration = Duration::from_secs(5);

/// How long it is until the next look. Not all workers of a fleet look at once.
pub fn look_in() -> Duration {
    LOOK.mul_f64(0.75 + 0.5 * fastrand::f64())
}
