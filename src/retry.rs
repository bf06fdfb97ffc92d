//! How long a failed entry waits for its next attempt: pure, no clock, no IO.

use std::time::Duration;

/// Truncated exponential backoff with proportional jitter, the algorithm of gRPC's [connection
/// backoff protocol][grpc]: the wait grows by `factor` with every failed attempt, is cut off at
/// `max`, and is then spread evenly over `±jitter` of itself, so that entries which failed
/// together do not come back together.
///
/// [grpc]: https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
#[non_exhaustive]
pub struct Backoff {
    /// The wait after the first failed attempt, before the jitter.
    pub initial: Duration,
    /// What the wait is multiplied by with every further failed attempt; at least 1.
    pub factor: f64,
    /// The longest wait, before the jitter.
    pub max: Duration,
    /// The share of the wait, from 0 to 1, by which it is made shorter or longer at random.
    pub jitter: f64,
}

impl Default for Backoff {
    /// 1 s, doubled up to 5 min, ±20 %.
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            factor: 2.0,
            max: Duration::from_secs(300),
            jitter: 0.2,
        }
    }
}

impl Backoff {
    /// Waits that begin at `initial`, and are else as those of [`default`](Self::default).
    pub fn new(initial: Duration) -> Self {
        Backoff {
            initial,
            ..Self::default()
        }
    }

    /// The same backoff with `initial`.
    pub fn initial(self, initial: Duration) -> Self {
        Backoff { initial, ..self }
    }

    /// The same backoff with `factor`.
    pub fn factor(self, factor: f64) -> Self {
        Backoff { factor, ..self }
    }

    /// The same backoff with `max`.
    pub fn max(self, max: Duration) -> Self {
        Backoff { max, ..self }
    }

    /// The same backoff with `jitter`.
    pub fn jitter(self, jitter: f64) -> Self {
        Backoff { jitter, ..self }
    }

    /// The wait after `failed_attempts` attempts have failed, the first one counting 1:
    /// `initial · factor^(failed_attempts − 1)`, at most `max`, times a factor from
    /// `[1 − jitter, 1 + jitter]` picked by `random`, which is uniform in `[0, 1]`.
    ///
    /// Total: no arguments and no settings make it overflow or panic. What lies outside its range
    /// counts as the nearest value inside (a `failed_attempts` of 0 as 1), a `factor` that is not
    /// a number as 1, a `jitter` that is none as 0, a `random` that is none as one half.
    pub fn delay(&self, failed_attempts: u32, random: f64) -> Duration {
        let base = self.without_jitter(failed_attempts);
        let jitter = or_if_nan(self.jitter, 0.0).clamp(0.0, 1.0);
        if jitter == 0.0 {
            // Not through floating point, which keeps nanoseconds for a hundred days only.
            return base;
        }
        let random = or_if_nan(random, 0.5).clamp(0.0, 1.0);
        let spread = 1.0 + jitter * (2.0 * random - 1.0);
        seconds(base.as_secs_f64() * spread)
    }

    fn without_jitter(&self, failed_attempts: u32) -> Duration {
        if self.initial.is_zero() {
            // Zero times a power that has become infinite would be no number.
            return Duration::ZERO;
        }
        let doublings = f64::from(failed_attempts.saturating_sub(1));
        let grown = self.initial.as_secs_f64() * self.factor.max(1.0).powf(doublings);
        seconds(grown).min(self.max)
    }
}

/// `seconds` as a duration, the longest there is where it has no room.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

fn or_if_nan(value: f64, otherwise: f64) -> f64 {
    if value.is_nan() { otherwise } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIDDLE: f64 = 0.5;

    #[test]
    fn the_wait_doubles_until_it_is_cut_off() {
        let backoff = Backoff::default();
        let waits: Vec<u64> = (1..=11)
            .map(|failed| backoff.delay(failed, MIDDLE).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    #[test]
    fn the_jitter_reaches_as_far_below_as_above() {
        let backoff = Backoff {
            initial: Duration::from_secs(10),
            ..Backoff::default()
        };
        assert_eq!(backoff.delay(1, 0.0), Duration::from_secs(8));
        assert_eq!(backoff.delay(1, 0.25), Duration::from_secs(9));
        assert_eq!(backoff.delay(1, 0.5), Duration::from_secs(10));
        assert_eq!(backoff.delay(1, 1.0), Duration::from_secs(12));
    }

    #[test]
    fn the_cut_comes_before_the_jitter() {
        let backoff = Backoff::default();
        assert_eq!(backoff.delay(u32::MAX, 0.0), Duration::from_secs(240));
        assert_eq!(backoff.delay(u32::MAX, 1.0), Duration::from_secs(360));
    }

    #[test]
    fn arguments_out_of_range_count_as_the_nearest_inside() {
        let backoff = Backoff::default();
        assert_eq!(backoff.delay(0, MIDDLE), backoff.delay(1, MIDDLE));
        assert_eq!(backoff.delay(3, -7.0), backoff.delay(3, 0.0));
        assert_eq!(backoff.delay(3, f64::INFINITY), backoff.delay(3, 1.0));
        assert_eq!(backoff.delay(3, f64::NAN), backoff.delay(3, MIDDLE));
    }

    fn duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            (0..=u64::MAX, 0..1_000_000_000_u32).prop_map(|(s, n)| Duration::new(s, n)),
            (0..100_000_000_u64).prop_map(Duration::from_micros),
        ]
    }

    /// Whatever the fields can hold, sensible or not.
    fn any_backoff() -> impl Strategy<Value = Backoff> {
        (
            duration(),
            prop_oneof![any::<f64>(), 1.0..10.0],
            duration(),
            prop_oneof![any::<f64>(), 0.0..=1.0],
        )
            .prop_map(|(initial, factor, max, jitter)| Backoff {
                initial,
                factor,
                max,
                jitter,
            })
    }

    /// What passes the validation of the configuration.
    fn valid_backoff() -> impl Strategy<Value = Backoff> {
        (1..100_000_u64, 1.0..10.0_f64, 1..100_000_u64, 0.0..=1.0_f64).prop_map(
            |(initial, factor, more, jitter)| Backoff {
                initial: Duration::from_millis(initial),
                factor,
                max: Duration::from_millis(initial + more),
                jitter,
            },
        )
    }

    fn attempts() -> impl Strategy<Value = u32> {
        prop_oneof![0..40_u32, any::<u32>()]
    }

    proptest! {
        #[test]
        fn no_settings_and_no_arguments_make_it_panic_or_pass_twice_the_cut(
            backoff in any_backoff(), failed in attempts(), random in any::<f64>()
        ) {
            // The jitter is at most 1, so nothing exceeds twice the cut (as far as seconds held
            // in floating point can tell it).
            let most = seconds(backoff.max.as_secs_f64() * 2.0);
            prop_assert!(backoff.delay(failed, random) <= most.max(backoff.max));
        }

        #[test]
        fn the_wait_stays_within_the_jitter_around_the_cut_power(
            backoff in valid_backoff(), failed in 1..40_u32, random in 0.0..=1.0_f64
        ) {
            let power = (1..failed).fold(backoff.initial.as_secs_f64(), |wait, _| wait * backoff.factor);
            let middle = power.min(backoff.max.as_secs_f64());
            let wait = backoff.delay(failed, random).as_secs_f64();
            // Two ways of computing a power differ in the last places.
            let tolerance = middle * 1e-9 + 1e-9;
            prop_assert!(wait >= middle * (1.0 - backoff.jitter) - tolerance);
            prop_assert!(wait <= middle * (1.0 + backoff.jitter) + tolerance);
        }

        #[test]
        fn the_wait_never_exceeds_the_cut_by_more_than_the_jitter(
            backoff in valid_backoff(), failed in attempts(), random in any::<f64>()
        ) {
            let most = seconds(backoff.max.as_secs_f64() * (1.0 + backoff.jitter));
            prop_assert!(backoff.delay(failed, random) <= most);
        }

        #[test]
        fn without_jitter_a_later_attempt_never_waits_less(
            backoff in valid_backoff(), failed in 0..u32::MAX, random in 0.0..=1.0_f64
        ) {
            let backoff = Backoff { jitter: 0.0, ..backoff };
            prop_assert!(backoff.delay(failed, random) <= backoff.delay(failed + 1, random));
        }
    }
}
