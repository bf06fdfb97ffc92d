//! What becomes of an entry: decisions without IO. The executor asks before and after a handler runs; the settler
//! carries the verdict out.

use std::time::Duration;

use crate::config::{HandlerPolicy, OnCrash};
use crate::context::{Cancelled, Context};
pub(crate) use crate::dead_letters::Reason;
use crate::delay;
use crate::event::Envelope;
use crate::failure::{Cause, Failure, FailureVerdict};
use crate::names::shown;
use crate::policy::Why;
use crate::stream::{Died, Record};

/// Most bytes of an error that are kept in Redis.
const ERROR_BYTES: usize = 1000;

/// What is noted of entries that are released without their handler having run.
pub(crate) const STOPPED: &str = "released unstarted by a worker that stopped";
/// What is told of an entry that waits because nothing of its stream can be committed.
pub(crate) const REFUSING: &str =
    "the server refuses to commit anything of this stream (the log says why)";
pub(crate) const STREAM_PAUSED: &str = "released unstarted: the stream is paused";
pub(crate) const COPY_RUNS: &str = "released while another copy of its event is handled";
pub(crate) const COPIES_UNKNOWN: &str =
    "released: the server refuses to look for copies of its event (the log says why)";
pub(crate) const CANCELLED: &str = "an operator has cancelled it";
const NO_HANDLER: &str = "no handler is registered for ";

/// What is to be done with an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It succeeded, or is none of our business.
    Ack,
    /// It failed and is tried again after `delay`.
    Retry { delay: Duration, error: String },
    /// It is released, to be taken after `delay`; no attempt is used up.
    Release { delay: Duration, error: String },
    /// It is released for a worker that can handle it; if none has taken it after `delay` it comes back.
    Wait { delay: Duration, error: String },
    /// It goes to the dead letters.
    Bury { reason: Reason, error: String },
    /// An operator has cancelled it: it is acknowledged, and that is noted.
    Cancel { error: String },
}

impl Verdict {
    /// It is released, to be taken after `delay`, for this reason.
    pub fn release(delay: Duration, why: impl Into<String>) -> Self {
        Verdict::Release {
            delay,
            error: why.into(),
        }
    }
}

/// What a handler's failure at `attempt` leads to; `random` is uniform from 0 to 1.
pub(crate) fn of_failure(
    failure: &Failure,
    (attempt, most): (u32, u32),
    policy: &HandlerPolicy,
    random: f64,
) -> Verdict {
    let error = bounded(failure.to_string());
    let retry = |delay: Duration, error: String| {
        if attempt >= most {
            Verdict::Bury {
                reason: Reason::Failed,
                error,
            }
        } else {
            Verdict::Retry { delay, error }
        }
    };
    match failure.verdict {
        FailureVerdict::Retry => {
            let wait = policy.backoff.delay(attempt, random);
            retry(delay::bounded(wait), error)
        }
        FailureVerdict::RetryAfter(delay) => retry(delay, error),
        FailureVerdict::Later(delay) => Verdict::Release { delay, error },
        FailureVerdict::Permanent => Verdict::Bury {
            reason: match failure.cause {
                Cause::Unhandled => Reason::Unhandled,
                _ => Reason::Permanent,
            },
            error,
        },
        FailureVerdict::Undecodable => Verdict::Bury {
            reason: Reason::Undecodable,
            error,
        },
    }
}

/// The same of a failure as its handler ends. One that ends because it was told that the worker stops has not failed,
/// unless it must not run more often than it has attempts. One that was cancelled ends as that, whatever it says.
pub(crate) fn of_end(failure: &Failure, ctx: &Context, policy: &HandlerPolicy) -> Verdict {
    if ctx.cancellation() == Some(Cancelled::Requested) {
        return cancelled();
    }
    let may_run_again = policy.on_crash == OnCrash::RunAgain || failure.is_later();
    if ctx.cancellation() == Some(Cancelled::Stopping) && !failure.is_permanent() && may_run_again {
        return Verdict::Release {
            delay: Duration::ZERO,
            error: "its handler was told to stop".to_owned(),
        };
    }
    let attempts = (ctx.attempt(), ctx.max_attempts());
    of_failure(failure, attempts, policy, fastrand::f64())
}

/// What becomes of an entry that an operator has cancelled.
pub(crate) fn cancelled() -> Verdict {
    Verdict::Cancel {
        error: CANCELLED.to_owned(),
    }
}

/// What becomes of an entry whose handler is cut off when the worker's drain time is over. It may have done what it is
/// there for.
pub(crate) fn of_cut_off((attempt, most): (u32, u32), policy: &HandlerPolicy) -> Verdict {
    let error = "cut off when the worker's drain time was over".to_owned();
    match policy.on_crash {
        OnCrash::RunAgain => Verdict::release(Duration::ZERO, error),
        OnCrash::Bury if attempt >= most => Verdict::Bury {
            reason: Reason::Crashed,
            error,
        },
        OnCrash::Bury => Verdict::Retry {
            delay: Duration::ZERO,
            error,
        },
    }
}

/// Whether an entry that comes after its worker's death is buried without running: what is told of it then. This
/// delivery, the `attempt`, brought it to where it can be; what counts are those before it.
pub(crate) fn of_death(
    died: Died,
    (attempt, most): (u32, u32),
    policy: &HandlerPolicy,
) -> Option<String> {
    let most = match policy.on_crash {
        // It is taken over alone by what its handler has, and only that tells whether it is guilty.
        OnCrash::RunAgain => most.max(2).min(policy.max_attempts),
        OnCrash::Bury => most,
    };
    let deaths = attempt.saturating_sub(1);
    match (policy.on_crash, died) {
        _ if attempt <= most => None,
        (OnCrash::Bury, _) => Some(format!(
            "its worker died or froze in attempt {most} of {most}, and on_crash = \"bury\" runs it no more; whether it \
             had been done is not known"
        )),
        (OnCrash::RunAgain, Died::Alone) => Some(format!(
            "its worker died {deaths} times while it ran, at last with nothing else starting"
        )),
        // It has had its crash check, in company: a worker that stopped had given that back.
        (OnCrash::RunAgain, Died::InCompany) if attempt > most.saturating_add(1) => Some(format!(
            "its worker died {deaths} times while it ran, at last in the run behind its last attempt"
        )),
        (OnCrash::RunAgain, Died::InCompany) => None,
    }
}

/// How many attempts an event has at most: its own, within those of its handler.
pub(crate) fn most_attempts(event: &Envelope, policy: &HandlerPolicy) -> u32 {
    let own = event.max_attempts().unwrap_or(u32::MAX);
    policy.max_attempts.min(own)
}

/// What becomes of an event whose own deadline has passed before its handler could start.
pub(crate) fn of_expired(event: &Envelope, attempt: u32) -> Verdict {
    let expires = event.field("expires").unwrap_or_default();
    let expires = shown(expires);
    let error = match attempt {
        1 => format!("it was to be started before {expires}, and was not"),
        _ => format!(
            "it was to be started before {expires}: there was no time for attempt {attempt}"
        ),
    };
    Verdict::Bury {
        reason: Reason::Expired,
        error: bounded(error),
    }
}

/// What becomes of an entry nobody here handles, first delivered `age` ago: workers that know it, newer ones in a rolling
/// deploy, may take it until `bury_after`.
pub(crate) fn of_unhandled(error: String, age: Duration, bury_after: Duration) -> Verdict {
    match bury_after.checked_sub(age).filter(|left| !left.is_zero()) {
        Some(left) => Verdict::Wait {
            delay: delay::bounded(left),
            error,
        },
        None => Verdict::Bury {
            reason: Reason::Unhandled,
            error,
        },
    }
}

/// Why an entry has no handler here.
pub(crate) fn no_handler(event_type: &str) -> String {
    format!("{NO_HANDLER}\"{}\"", shown(event_type))
}

/// Which delivery before this one ran the entry's handler, by what is noted of the last; 0 if none is known to. Of one
/// that was released unstarted in between it is not known.
pub(crate) fn run_before(record: Option<&Record>, delivery: u32) -> u32 {
    let ran = |record: &&Record| {
        let error = &record.error[..];
        let unstarted = [STOPPED, STREAM_PAUSED, COPY_RUNS, COPIES_UNKNOWN];
        record.died.is_none()
            && !error.starts_with(NO_HANDLER)
            && !unstarted.contains(&error)
            && !Why::ALL.iter().any(|why| why.as_str() == error)
    };
    record.filter(ran).map_or(0, |_| delivery.saturating_sub(1))
}

/// At most [`ERROR_BYTES`] of an error, cut between characters.
pub(crate) fn bounded(mut error: String) -> String {
    if error.len() > ERROR_BYTES {
        let mut end = ERROR_BYTES;
        while !error.is_char_boundary(end) {
            end -= 1;
        }
        error.truncate(end);
        error.push('…');
    }
    error
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Settings;
    use crate::retry::Backoff;

    #[test]
    fn a_failure_is_retried_until_its_attempts_are_used_up() {
        let policy = Settings::default().policy("order.created");
        let failure = || Failure::retry("no");
        assert!(matches!(
            of_failure(&failure(), (1, 5), &policy, 0.5),
            Verdict::Retry { delay, .. } if delay == Duration::from_secs(1)
        ));
        assert!(matches!(
            of_failure(&failure(), (4, 5), &policy, 0.5),
            Verdict::Retry { .. }
        ));
        assert_eq!(
            of_failure(&failure(), (5, 5), &policy, 0.5),
            Verdict::Bury {
                reason: Reason::Failed,
                error: "no".to_owned()
            }
        );
        let later = Failure::later(Duration::from_secs(9), "not yet");
        assert!(matches!(
            of_failure(&later, (99, 5), &policy, 0.5),
            Verdict::Release { .. }
        ));
        let never = Failure::permanent("never");
        assert!(matches!(
            of_failure(&never, (1, 5), &policy, 0.5),
            Verdict::Bury {
                reason: Reason::Permanent,
                ..
            }
        ));
    }

    proptest! {
        #[test]
        fn no_backoff_waits_longer_than_anything_does(
            initial in any::<Duration>(), max in any::<Duration>(), attempt in any::<u32>(), random in 0.0..=1.0_f64
        ) {
            let mut policy = Settings::default().policy("order.created");
            policy.max_attempts = u32::MAX;
            policy.backoff = Backoff { initial, max, ..Backoff::default() };
            if let Verdict::Retry { delay, .. } = of_failure(&Failure::retry("no"), (attempt, u32::MAX), &policy, random) {
                prop_assert!(delay <= delay::LONGEST);
            }
        }
    }

    #[test]
    fn after_a_death_in_the_last_attempt_there_is_one_run_more_or_none() {
        let mut policy = Settings::default().policy("order.created");
        policy.max_attempts = 2;
        let buried = |died, attempt, policy: &_| of_death(died, (attempt, 2), policy).is_some();
        for died in [Died::Alone, Died::InCompany] {
            assert!(!buried(died, 2, &policy), "it has an attempt left");
            assert_eq!(buried(died, 3, &policy), died == Died::Alone);
            assert!(buried(died, 4, &policy), "the run more is over");
        }
        policy.on_crash = OnCrash::Bury;
        for died in [Died::Alone, Died::InCompany] {
            assert!(!buried(died, 2, &policy));
            assert!(buried(died, 3, &policy));
        }
    }

    #[test]
    fn an_event_that_allows_one_attempt_is_found_guilty_alone_all_the_same() {
        let mut policy = Settings::default().policy("order.created");
        let buried = |died, attempt, policy: &_| of_death(died, (attempt, 1), policy).is_some();
        // In company it may have been another; from the third attempt on it is alone.
        assert!((1..=3).all(|attempt| !buried(Died::InCompany, attempt, &policy)));
        assert!(buried(Died::Alone, 4, &policy));
        policy.on_crash = OnCrash::Bury;
        assert!(buried(Died::InCompany, 2, &policy));
    }

    #[test]
    fn what_must_not_run_again_is_not_released_by_a_worker_that_stops() {
        let mut policy = Settings::default().policy("order.created");
        policy.max_attempts = 2;
        assert!(matches!(
            of_cut_off((2, 2), &policy),
            Verdict::Release { .. }
        ));
        policy.on_crash = OnCrash::Bury;
        assert!(matches!(of_cut_off((1, 2), &policy), Verdict::Retry { .. }));
        assert!(matches!(
            of_cut_off((2, 2), &policy),
            Verdict::Bury {
                reason: Reason::Crashed,
                ..
            }
        ));
    }

    #[test]
    fn what_nobody_handles_waits_for_whoever_does_and_is_buried_in_time() {
        let limit = Duration::from_secs(600);
        for seconds in [0, 1, 599] {
            let age = Duration::from_secs(seconds);
            assert!(matches!(
                of_unhandled(String::new(), age, limit),
                Verdict::Wait { delay, .. } if age + delay == limit
            ));
        }
        assert!(matches!(
            of_unhandled(String::new(), limit, limit),
            Verdict::Bury {
                reason: Reason::Unhandled,
                ..
            }
        ));
    }

    #[test]
    fn the_run_before_is_known_unless_it_never_began() {
        let record = |error: &str, died| Record {
            first_ms: 1,
            released: 0,
            died,
            doomed: None,
            error: error.to_owned(),
        };
        assert_eq!(run_before(None, 2), 0);
        assert_eq!(run_before(Some(&record("no stock", None)), 2), 1);
        for error in [STOPPED, COPY_RUNS, "it is paused", &no_handler("a.b")] {
            assert_eq!(run_before(Some(&record(error, None)), 3), 0, "{error}");
        }
        let died = Some(Died::InCompany);
        assert_eq!(run_before(Some(&record("no stock", died)), 3), 0);
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let cut = bounded("ä".repeat(2000));
        assert!(cut.len() <= ERROR_BYTES + 4 && cut.ends_with("ä…"));
    }
}
