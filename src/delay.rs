//! The longest that anything waits here, and the one place that bounds it.
//!
//! Delays come from handlers (`Failure::later`), from backoffs, from what breakers and rates compute and from settings.
//! An absurd one must neither panic where it is added to a time nor come out as none at all where it is counted in
//! milliseconds: it is cut to a year. What is published later is no delay of this kind: it has the calendar's end.

use std::time::{Duration, Instant};

/// Beyond a year a delay is a slip, and sums of it with a time may have no room.
pub(crate) const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// At most [`LONGEST`].
pub(crate) fn bounded(delay: Duration) -> Duration {
    delay.min(LONGEST)
}

/// The time after such a delay.
pub(crate) fn after(now: Instant, delay: Duration) -> Instant {
    now + bounded(delay)
}

/// The delay in milliseconds, as Redis is told of it.
pub(crate) fn millis(delay: Duration) -> u64 {
    bounded(delay).as_millis() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::failure::{Failure, FailureVerdict};
    use crate::publisher;
    use crate::stream::How;

    fn any_duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(s, n)| Duration::new(s, n)),
            (0..100_000_000_u64).prop_map(Duration::from_micros),
            Just(Duration::MAX),
            // What is just above zero in milliseconds of 64 bits.
            Just(Duration::from_secs(18_446_744_073_709_552)),
            (0..2_000_000_000_u64).prop_map(|ms| LONGEST - Duration::from_secs(1_000_000) + Duration::from_millis(ms)),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_is_kept_up_to_a_year_and_cut_beyond(delay in any_duration()) {
            let wanted = delay.min(LONGEST);
            let now = Instant::now();
            prop_assert_eq!(after(now, delay) - now, wanted);
            prop_assert_eq!(u128::from(millis(delay)), wanted.as_millis());
            let of = |failure: Failure| match failure.verdict {
                FailureVerdict::Later(delay) | FailureVerdict::RetryAfter(delay) => Some(delay),
                _ => None,
            };
            prop_assert_eq!(of(Failure::later(delay, "not yet")), Some(wanted));
            prop_assert_eq!(of(Failure::retry_after(delay, "no")), Some(wanted));
            prop_assert_eq!(of(Failure::breaker_open(delay, String::new())), Some(wanted));
        }

        #[test]
        fn what_is_published_later_is_kept_as_asked_or_refused(delay in any_duration()) {
            if let Ok(how) = publisher::after(delay) {
                let as_asked = matches!(how, How::After(kept) if kept == delay);
                prop_assert!(as_asked && delay.as_millis() <= u128::from(crate::stream::LAST_MS));
            }
        }
    }
}
