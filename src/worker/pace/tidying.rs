//! When what nothing waits for is done: mending, dropping dead letters, trimming. Not by all workers of a fleet at once.

use std::time::Duration;

/// Between two looks at the dead letters: they grow slowly, and are kept for days.
pub const EXPIRE: Duration = Duration::from_secs(60);

/// How long it is until the next mending.
pub fn mend_in(lease: Duration) -> Duration {
    lease.mul_f64(0.75 + 0.5 * fastrand::f64())
}

/// How long it is until the next trimming, if that is done so often.
pub fn trim_in(every: Duration) -> Duration {
    spread(every)
}

/// How long it is until the next look at the dead letters.
pub fn expire_in() -> Duration {
    spread(EXPIRE)
}

/// How long it is until the first one. A worker that has just come may be one of many that have; where nothing is dropped
/// (`sooner` is not given), a look is for a warning only.
pub fn first_expire_in(sooner: Option<Duration>, lease: Duration) -> Duration {
    spread(sooner.unwrap_or(EXPIRE.min(lease)))
}

fn spread(time: Duration) -> Duration {
    time.mul_f64(0.9 + 0.2 * fastrand::f64())
}
