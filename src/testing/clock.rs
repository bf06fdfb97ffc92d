//! The time of a test: tokio's, which stands still unless a handler waits or the test goes on. A real server is told what
//! it is.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// What time it is in a test.
#[derive(Clone)]
pub(super) struct Clock {
    begin: Instant,
    begin_ms: u64,
}

impl Clock {
    /// Tokio's.
    pub fn of_tokio() -> Self {
        Clock {
            begin: Instant::now(),
            begin_ms: wall_ms(),
        }
    }

    /// In milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.begin_ms + self.begin.elapsed().as_millis() as u64
    }

    pub fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.now_ms())
    }

    /// Since the test began.
    pub fn passed(&self) -> Duration {
        Duration::from_millis(self.now_ms() - self.begin_ms)
    }

    /// When it will show this, by tokio's clock; at once where it has.
    pub fn instant(&self, ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(ms.saturating_sub(self.now_ms()))
    }

    /// Time passes while nothing runs.
    pub async fn set(&self, ms: u64) {
        let left = Duration::from_millis(ms.saturating_sub(self.now_ms()));
        if !left.is_zero() {
            tokio::time::advance(left).await;
        }
    }
}

/// Waits until then, or for ever.
pub(super) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}
