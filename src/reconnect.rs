//! What a task does while something stays wrong: it says so, but not a thousand times, it waits longer each time, and it
//! makes its connection anew.

use std::future::Future;
use std::time::{Duration, Instant};

use crate::retry::Backoff;

/// How long the same complaint is not repeated.
const SILENCE: Duration = Duration::from_secs(10);

/// The last complaint of one task.
#[derive(Default)]
pub(crate) struct Complaint {
    last: Option<(String, Instant)>,
}

/// Waits that grow while something stays wrong, so that nothing spins.
#[derive(Debug)]
pub struct Pause {
    backoff: Backoff,
    /// How often it has been waited in a row.
    waits: u32,
}

impl Complaint {
    /// Warns, unless the same was said a short while ago.
    pub fn warn(&mut self, message: String) {
        let now = Instant::now();
        match &self.last {
            Some((said, at)) if *said == message && now.duration_since(*at) < SILENCE => {}
            _ => {
                tracing::warn!("{message}");
                self.last = Some((message, now));
            }
        }
    }

    /// What was wrong is mended. Returns whether anything was.
    pub fn clear(&mut self) -> bool {
        self.last.take().is_some()
    }
}

impl Default for Pause {
    fn default() -> Self {
        Pause::new()
    }
}

impl Pause {
    const FIRST: Duration = Duration::from_millis(50);
    const MOST: Duration = Duration::from_secs(2);

    /// From a twentieth of a second to two seconds.
    pub fn new() -> Self {
        Pause::between(Self::FIRST, Self::MOST)
    }

    /// The first wait is `first` long, each further one twice as long, none longer than `most`.
    pub fn between(first: Duration, most: Duration) -> Self {
        Pause {
            backoff: Backoff {
                initial: first,
                factor: 2.0,
                max: most,
                jitter: 0.2,
            },
            waits: 0,
        }
    }

    /// The next wait, shorter by up to a fifth so that a fleet spreads out.
    #[allow(
        clippy::should_implement_trait,
        reason = "there is always one: it is no iterator"
    )]
    pub fn next(&mut self) -> Duration {
        self.waits = self.waits.saturating_add(1);
        // The lower half alone: the longest wait is never exceeded.
        self.backoff.delay(self.waits, fastrand::f64() / 2.0)
    }

    /// What was wrong is mended: the next wait is the first one again.
    pub fn reset(&mut self) {
        self.waits = 0;
    }
}

/// The connection in `slot`, made by `connect` if there is none.
pub(crate) async fn connected<L, E>(
    slot: &mut Option<L>,
    connect: impl Future<Output = Result<L, E>>,
) -> Result<&mut L, E> {
    match slot {
        Some(link) => Ok(link),
        None => Ok(slot.insert(connect.await?)),
    }
}

/// Waits until `at`, or for ever.
pub(crate) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew() {
        let mut pause = Pause::new();
        for longest in [50, 100, 200, 400, 800, 1600, 2000, 2000] {
            let (wait, longest) = (pause.next(), Duration::from_millis(longest));
            assert!(wait <= longest && wait >= longest.mul_f64(0.79), "{wait:?}");
        }
        pause.reset();
        assert!(pause.next() <= Duration::from_millis(50));
    }
}
