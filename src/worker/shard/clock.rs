//! The server's clock, as its answers tell it, against what has really passed: whether it was set in between.
//!
//! Set ahead, it makes everything look old; for a lease nobody is taken for dead, what is kept for a time is kept for
//! longer, and what is parked is due later. Set back, what it noted meanwhile lies in the future: those notes are brought
//! back. Until a worker has seen that it was set, scripts that go by ages see it themselves, by what it should show.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::stream::Expected;
use crate::sync::lock;

/// Less is no step: clocks do not go alike, and answers take their time.
pub(crate) const LEAST: Duration = Duration::from_secs(1);

/// What has really passed since some time. Nobody sets it, and it goes on while the machine sleeps.
#[cfg(target_os = "linux")]
pub(crate) fn ticks() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// What has really passed since some time. Nobody sets it; where it stands still while the machine sleeps, that looks as
/// if the server's clock had been set ahead.
#[cfg(not(target_os = "linux"))]
pub(crate) fn ticks() -> Duration {
    static BEGUN: std::sync::LazyLock<std::time::Instant> =
        std::sync::LazyLock::new(std::time::Instant::now);
    BEGUN.elapsed()
}

/// The server's clock as the parts that speak to it tell each other of it.
pub(crate) struct ServerClock {
    /// As the fetcher last saw it.
    seen: Mutex<Clock>,
    began: Instant,
    /// What it showed when this worker began, by its last answers; 0 where it is not known yet.
    server_began_ms: Arc<AtomicU64>,
}

/// The server's clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    /// What it showed, at some time between two.
    seen: Option<(u64, Duration, Duration)>,
    ahead: Duration,
    /// When it was last seen to have been set.
    set: Option<Duration>,
}

/// It was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub way: Way,
    /// So far, at least.
    pub by: Duration,
    /// Not before this.
    pub after: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Ahead,
    Back,
}

impl ServerClock {
    /// One that notes there what it showed when the worker began, which is now.
    pub fn new(server_began_ms: Arc<AtomicU64>) -> Self {
        ServerClock {
            seen: Mutex::default(),
            began: Instant::now(),
            server_began_ms,
        }
    }

    /// The fetcher saw it.
    pub fn saw(&self, clock: Clock) {
        *lock(&self.seen) = clock;
    }

    /// As it was last seen.
    pub fn get(&self) -> Clock {
        *lock(&self.seen)
    }

    /// It shows this now, or did a moment ago.
    pub fn shows(&self, ms: u64) {
        let began = ms.saturating_sub(self.began.elapsed().as_millis() as u64);
        self.server_began_ms.store(began, Ordering::Relaxed);
    }

    /// When `left` will be over by it, and not later than that (ms); in the past where it is not known yet, so that the
    /// server says so.
    pub fn shows_in(&self, left: Duration) -> u64 {
        let began = self.server_began_ms.load(Ordering::Relaxed);
        let after = self.began.elapsed() + left;
        (began + after.as_millis() as u64).max(1)
    }
}

impl Clock {
    /// It showed `ms`, in the answer to what was sent at `sent` and came at `answered`. Answers whether it was set since
    /// the last time; what an answer took on its way is no step.
    pub fn saw(&mut self, ms: u64, sent: Duration, answered: Duration) -> Option<Step> {
        let (before, begun, ended) = self.seen.replace((ms, sent, answered))?;
        let least = before + sent.saturating_sub(ended).as_millis() as u64;
        let most = before + answered.saturating_sub(begun).as_millis() as u64;
        let ahead = Duration::from_millis(ms.saturating_sub(most));
        let back = Duration::from_millis(least.saturating_sub(ms));
        let (way, by) = if ahead > LEAST {
            self.ahead += ahead;
            (Way::Ahead, ahead)
        } else if back > LEAST {
            self.ahead = self.ahead.saturating_sub(back);
            (Way::Back, back)
        } else {
            return None;
        };
        self.set = Some(answered);
        let after = begun;
        Some(Step { way, by, after })
    }

    /// What it shows now, unless the server has stood still meanwhile: then it is later there. 0 where it was never seen.
    pub fn now(&self) -> u64 {
        self.seen.map_or(0, |(ms, _, answered)| {
            ms + ticks().saturating_sub(answered).as_millis() as u64
        })
    }

    /// What a script is to find. Where the clock was never seen that is nothing that it could.
    pub fn expected(&self, leeway: Duration) -> Expected {
        let ms = self.now();
        Expected { ms, leeway }
    }

    /// What is kept for so long, by this clock: with how far that was set ahead since this worker began.
    pub fn lasting(&self, age: Duration) -> Duration {
        age + self.ahead
    }

    /// Whether it was set so short a time ago.
    pub fn was_set_within(&self, time: Duration) -> bool {
        self.set
            .is_some_and(|set| ticks().saturating_sub(set) < time)
    }
}

impl Step {
    /// Ahead in ms; below zero, back.
    pub fn ms(&self) -> i64 {
        let by = self.by.as_millis() as i64;
        match self.way {
            Way::Ahead => by,
            Way::Back => -by,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_from_an_answer_that_took_its_time() {
        let at = Duration::from_millis;
        let mut clock = Clock::default();
        assert_eq!(clock.saw(1_000_000, at(0), at(1)), None);
        assert_eq!(clock.saw(1_000_800, at(800), at(801)), None);
        // Read at once and answered late; then asked early and read late.
        assert_eq!(clock.saw(1_001_600, at(1_600), at(9_600)), None);
        assert_eq!(clock.saw(1_019_000, at(9_601), at(19_001)), None);
        let hour = 3_600_000;
        let stepped = clock.saw(1_020_000 + hour, at(20_000), at(20_001)).unwrap();
        assert_eq!((stepped.way, stepped.after), (Way::Ahead, at(9_601)));
        assert_eq!(stepped.ms(), hour as i64 - 9_400);
        assert!(clock.lasting(Duration::ZERO) > Duration::from_secs(3_500));
        let stepped = clock.saw(1_020_800, at(20_800), at(20_801)).unwrap();
        assert_eq!((stepped.way, stepped.by.as_secs()), (Way::Back, 3_599));
        assert!(stepped.ms() < 0);
        assert!(clock.lasting(Duration::ZERO) < Duration::from_secs(2));
    }
}
