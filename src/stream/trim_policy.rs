//! What a stream is trimmed to by its settings, and how often.

use std::time::Duration;

use super::retention::{Policy, Rhythm};
use crate::config::Settings;

/// Between two turns of trimming a stream. A stream grows by what comes in so long: at a hundred thousand entries a
/// second by some 30 MB. Sooner would be a look at all groups more often than a busy stream fills a few of its nodes.
pub(crate) const TRIM_EVERY: Duration = Duration::from_secs(2);
/// The same is not warned of more often.
const SILENCE: Duration = Duration::from_secs(600);
/// A destroyed group holds for a lease, and for at least so long: workers that are alive notice it with their next read.
const GRACE: Duration = Duration::from_secs(5);

/// What trims a stream by these settings, if anything does.
pub(crate) fn trim_policy(settings: &Settings, stream: &str) -> Option<Policy> {
    let own = settings.of_stream(stream)?;
    Some(Policy {
        retention: own.retention?,
        force: own.force.unwrap_or(false),
    })
}

/// When workers trim, of this lease.
pub(crate) fn trim_rhythm(lease: Duration) -> Rhythm {
    Rhythm {
        every: TRIM_EVERY,
        silence: SILENCE,
        grace: lease.max(GRACE),
        clock: None,
    }
}
