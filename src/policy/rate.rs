//! How often a handler may start: by the generic cell rate algorithm of the `governor` crate within this process, or by
//! what the group's share in Redis granted beforehand.

use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::clock;
use crate::config::Rate;
use crate::delay;
use crate::sync::lock;

/// How long nothing starts if the group's rate can't be counted, at first and at most.
const REFUSED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A rate within this process.
pub(crate) struct Local {
    limiter: RateLimiter<NotKeyed, InMemoryState, Ticks, StateInformationMiddleware>,
    /// The time one start takes up.
    interval: Duration,
    burst: u32,
    /// How many could have started at once, and when that was so.
    left: Mutex<(u32, Instant)>,
}

/// The clock that all of this goes by.
#[derive(Clone, Debug)]
struct Ticks;

impl Clock for Ticks {
    type Instant = Instant;

    fn now(&self) -> Instant {
        clock::now()
    }
}

/// A share of the group's rate: so many may start, as Redis has granted.
pub(crate) struct Granted {
    share: Mutex<Share>,
}

struct Share {
    left: u32,
    /// Redis has no more to grant before.
    dry_until: Option<Instant>,
    /// It refuses to count, and how long it is not asked again the next time it does.
    refused: Option<Duration>,
}

impl Local {
    pub fn new(rate: Rate) -> Self {
        let burst = NonZeroU32::new(rate.burst()).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(rate.interval())
            .unwrap_or(Quota::per_second(NonZeroU32::MAX))
            .allow_burst(burst);
        Local {
            limiter: RateLimiter::direct_with_clock(quota, Ticks).with_middleware(),
            interval: rate.interval(),
            burst: burst.get(),
            left: Mutex::new((burst.get(), clock::now())),
        }
    }

    /// Asks for one start; or says how long to wait for one.
    pub fn admit(&self) -> Result<(), Duration> {
        let (answer, left) = match self.limiter.check() {
            Ok(state) => (Ok(()), state.remaining_burst_capacity()),
            Err(not_before) => (Err(not_before.wait_time_from(clock::now())), 0),
        };
        *lock(&self.left) = (left, clock::now());
        answer
    }

    /// How many could start now, and when the next could where that is none.
    pub fn room(&self) -> (usize, Duration) {
        let (left, since) = *lock(&self.left);
        let passed = clock::now().saturating_duration_since(since);
        let came = passed.as_nanos() / self.interval.as_nanos();
        let left = u32::try_from(came).unwrap_or(u32::MAX).saturating_add(left);
        (
            left.min(self.burst) as usize,
            self.interval.saturating_sub(passed),
        )
    }
}

impl Granted {
    pub fn new() -> Self {
        Granted {
            share: Mutex::new(Share {
                left: 0,
                dry_until: None,
                refused: None,
            }),
        }
    }

    /// Redis has granted so many; if it was fewer than asked for, it has no more for so long.
    pub fn grant(&self, granted: u32, dry_for: Option<Duration>) {
        let mut share = lock(&self.share);
        share.left = share.left.saturating_add(granted);
        share.dry_until = dry_for.map(|dry| delay::after(clock::now(), dry));
        share.refused = None;
    }

    /// Redis refuses to count: nothing starts for a while, as behind an open breaker.
    pub fn refuse(&self) {
        let mut share = lock(&self.share);
        let wait = share.refused.unwrap_or(REFUSED.0);
        share.refused = Some((wait * 2).min(REFUSED.1));
        share.dry_until = Some(clock::now() + wait);
    }

    /// Whether Redis refuses to count, as it last said.
    pub fn is_refused(&self) -> bool {
        let share = lock(&self.share);
        share.refused.is_some()
    }

    /// Takes one start of what was granted; or says how long to wait for more.
    pub fn admit(&self) -> Result<(), Duration> {
        let mut share = lock(&self.share);
        if share.left > 0 {
            share.left -= 1;
            return Ok(());
        }
        Err(share.wait())
    }

    /// Until when Redis has nothing to grant, if that is so.
    pub fn dry_for(&self) -> Option<Duration> {
        let share = lock(&self.share);
        (share.left == 0)
            .then(|| share.wait())
            .filter(|wait| !wait.is_zero())
    }

    /// So much was granted and not used: it is not asked for again.
    pub fn left(&self) -> u32 {
        lock(&self.share).left
    }
}

impl Share {
    fn wait(&self) -> Duration {
        self.dry_until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(clock::now())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn rate(count: u32, seconds: u64) -> Rate {
        Rate {
            count,
            per: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn a_burst_is_a_tenth_of_a_seconds_worth_and_at_least_one() {
        assert_eq!(rate(1000, 1).burst(), 100);
        assert_eq!(rate(5, 1).burst(), 1);
        assert_eq!(rate(6000, 60).burst(), 10);
        assert_eq!(rate(30, 60).interval(), Duration::from_secs(2));
    }

    #[test]
    fn what_is_over_the_rate_is_told_how_long_to_wait() {
        let local = Local::new(rate(20, 60));
        assert_eq!(local.room().0, 1);
        assert_eq!(local.admit(), Ok(()));
        let wait = local.admit().unwrap_err();
        assert!(
            wait > Duration::from_secs(2) && wait <= Duration::from_secs(3),
            "{wait:?}"
        );
        let (room, wait) = local.room();
        assert_eq!(room, 0);
        assert!(
            wait > Duration::from_secs(2) && wait <= Duration::from_secs(3),
            "{wait:?}"
        );
    }

    #[test]
    fn a_share_of_the_groups_rate_is_what_was_granted() {
        let granted = Granted::new();
        assert!(granted.admit().is_err());
        granted.grant(2, Some(Duration::from_secs(5)));
        assert_eq!(granted.dry_for(), None);
        assert!(granted.admit().is_ok() && granted.admit().is_ok());
        assert!(granted.admit().unwrap_err() > Duration::from_secs(4));
        assert!(granted.dry_for().is_some());
        granted.refuse();
        granted.refuse();
        assert!(granted.is_refused() && granted.admit().unwrap_err() > Duration::from_millis(1500));
        granted.grant(1, None);
        assert!(!granted.is_refused() && granted.admit().is_ok());
    }
}
