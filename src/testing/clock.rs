//! The time of a test. In memory it is tokio's, which stands still unless a handler waits or the test goes on; on a real server
//! it is a number that the scripts read in place of the server's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// What time it is in a test.
#[derive(Clone)]
pub(super) struct Clock {
    begin: Instant,
    begin_ms: u64,
    /// How far it was set, where it is a number.
    set: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// Tokio's.
    pub fn of_tokio() -> Self {
        Clock {
            begin: Instant::now(),
            begin_ms: wall_ms(),
            set: None,
        }
    }

    /// In milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        match &self.set {
            Some(set) => set.load(Ordering::SeqCst),
            None => self.begin_ms + self.begin.elapsed().as_millis() as u64,
        }
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
        match &self.set {
            Some(set) => {
                set.fetch_max(ms, Ordering::SeqCst);
            }
            None if left.is_zero() => {}
            None => tokio::time::advance(left).await,
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
