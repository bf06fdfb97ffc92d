//! Saying what is wrong without saying it a thousand times.

use std::time::{Duration, Instant};

/// How long the same complaint is not repeated.
const SILENCE: Duration = Duration::from_secs(10);

/// The last complaint of one task.
#[derive(Default)]
pub(crate) struct Complaint {
    last: Option<(String, Instant)>,
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

    /// What was wrong is mended. Answers whether anything was.
    pub fn clear(&mut self) -> bool {
        self.last.take().is_some()
    }
}

/// Waits that grow while something stays wrong, so that nothing spins.
pub(crate) struct Pause {
    next: Duration,
    first: Duration,
    most: Duration,
}

impl Pause {
    const FIRST: Duration = Duration::from_millis(50);
    const MOST: Duration = Duration::from_secs(2);

    /// From a twentieth of a second to two seconds.
    pub fn new() -> Self {
        Pause::between(Self::FIRST, Self::MOST)
    }

    /// Waits of this length, to begin with, and at most of that.
    pub fn between(first: Duration, most: Duration) -> Self {
        Pause {
            next: first,
            first,
            most,
        }
    }

    /// The next wait: twice the last one, up to the longest, less up to a fifth so that a fleet spreads out.
    pub fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.most);
        wait.mul_f64(1.0 - 0.2 * fastrand::f64())
    }

    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Waits until `at`, or for ever.
pub(crate) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
