//! What a handler's error means: try again, try again after a given time, come back later, or never again.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::delay;

/// Why a handler did not succeed, and what is to be done about it.
///
/// `?` turns any error into one that is retried with the handler's backoff:
///
/// ```
/// use streamhand::{Failure, FailureExt};
///
/// async fn charge(card: &str) -> Result<(), Failure> {
///     let amount: u64 = "12".parse()?;                          // any error: retried with backoff
///     let _digits: u64 = card.parse().permanent()?;             // never again: to the dead letters
///     if amount == 0 {
///         return Err(Failure::permanent("nothing to charge"));
///     }
///     Ok(())
/// }
/// ```
///
/// `Failure` is deliberately not a [`std::error::Error`]: only so can every error, boxed ones, `anyhow::Error` and
/// `&str` included, be turned into one.
pub struct Failure {
    pub(crate) verdict: FailureVerdict,
    pub(crate) cause: Cause,
    error: BoxError,
}

/// Any error.
pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// What a failure says about the service behind a handler: which of them a circuit breaker counts can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The handler said so.
    Error,
    TimedOut,
    Panicked,
    /// An open circuit breaker was met within the handler: nothing was tried.
    BreakerOpen,
    /// It says nothing about any service.
    Uncounted,
}

/// A failure on its way through layers, which want an error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct InDisguise(Failure);

/// What a failed attempt leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureVerdict {
    Retry,
    RetryAfter(Duration),
    Later(Duration),
    Permanent,
    /// The event's data is not what the handler takes.
    Undecodable,
}

impl Failure {
    /// Try again after the handler's backoff. The same as `?` on the error.
    pub fn retry(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        match error.into().downcast::<InDisguise>() {
            // A layer hands on what its handler said.
            Ok(disguised) => disguised.0,
            Err(error) => Self::new(FailureVerdict::Retry, Cause::Error, error),
        }
    }

    /// Try again after `delay`, at most a year, instead of the handler's backoff; the attempt counts.
    pub fn retry_after(delay: Duration, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(FailureVerdict::RetryAfter(delay), Cause::Error, error)
    }

    /// Never try again: the entry goes to the dead letters at once, as `permanent`.
    pub fn permanent(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(FailureVerdict::Permanent, Cause::Error, error)
    }

    /// Come back after `delay`, at most a year; this attempt does not count.
    pub fn later(delay: Duration) -> Self {
        let error = "asked to come back later";
        Self::new(FailureVerdict::Later(delay), Cause::Uncounted, error)
    }

    /// The same failure, of which no circuit breaker takes notice: it says nothing about the service behind the
    /// handler.
    pub fn uncounted(self) -> Self {
        Failure {
            cause: Cause::Uncounted,
            ..self
        }
    }

    /// The same failure as an error, for a `tower` layer to hand on. [`Failure::from`] makes it a failure again, with
    /// all that it meant.
    pub fn into_error(self) -> Box<dyn StdError + Send + Sync> {
        Box::new(InDisguise(self))
    }

    /// An open circuit breaker was met: nothing is to be tried for so long.
    pub(crate) fn breaker_open(delay: Duration, error: String) -> Self {
        Self::new(FailureVerdict::Later(delay), Cause::BreakerOpen, error)
    }

    pub(crate) fn timed_out(error: String) -> Self {
        Self::new(FailureVerdict::Retry, Cause::TimedOut, error)
    }

    pub(crate) fn panicked(error: String) -> Self {
        Self::new(FailureVerdict::Retry, Cause::Panicked, error)
    }

    fn new(verdict: FailureVerdict, cause: Cause, error: impl Into<BoxError>) -> Self {
        let verdict = match verdict {
            FailureVerdict::RetryAfter(delay) => FailureVerdict::RetryAfter(delay::asked(delay)),
            FailureVerdict::Later(delay) => FailureVerdict::Later(delay::asked(delay)),
            verdict => verdict,
        };
        Failure {
            verdict,
            cause,
            error: error.into(),
        }
    }

    pub(crate) fn undecodable(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(FailureVerdict::Undecodable, Cause::Uncounted, error)
    }

    /// The error behind it.
    pub fn error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.error
    }

    /// Whether it is no failure: the event comes back, and no attempt is used up.
    pub(crate) fn is_later(&self) -> bool {
        matches!(self.verdict, FailureVerdict::Later(_))
    }

    /// Whether the entry is never tried again.
    pub fn is_permanent(&self) -> bool {
        matches!(
            self.verdict,
            FailureVerdict::Permanent | FailureVerdict::Undecodable
        )
    }
}

impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::retry(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::error::chain(&*self.error))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("verdict", &self.verdict)
            .field("error", &self.error)
            .finish()
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: Box<dyn std::any::Any + Send>) -> String {
    panic_text(&*panic)
}

/// The same, where it is somebody else's.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "of a value that is no text".to_owned())
}

/// Chooses, in passing, what a failed step of a handler means: `charge(card).await.permanent()?`.
pub trait FailureExt<T> {
    /// As [`Failure::permanent`].
    fn permanent(self) -> Result<T, Failure>;
    /// As [`Failure::retry_after`].
    fn retry_after(self, delay: Duration) -> Result<T, Failure>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> FailureExt<T> for Result<T, E> {
    fn permanent(self) -> Result<T, Failure> {
        self.map_err(Failure::permanent)
    }

    fn retry_after(self, delay: Duration) -> Result<T, Failure> {
        self.map_err(|error| Failure::retry_after(delay, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question_mark() -> Result<u8, Failure> {
        Ok("300".parse::<u8>()?)
    }

    #[test]
    fn any_error_means_retry_and_keeps_its_message() {
        let failure = question_mark().unwrap_err();
        assert_eq!(failure.verdict, FailureVerdict::Retry);
        assert_eq!(
            failure.to_string(),
            "number too large to fit in target type"
        );
        assert_eq!(Failure::from("no stock").to_string(), "no stock");
        let boxed: Box<dyn StdError + Send + Sync> = "boxed".into();
        assert_eq!(Failure::from(boxed).to_string(), "boxed");
    }

    #[test]
    fn a_failure_passes_through_layers_with_all_that_it_means() {
        let delay = Duration::from_secs(3);
        let handed_on: BoxError = Failure::retry_after(delay, "no stock")
            .uncounted()
            .into_error();
        assert_eq!(handed_on.to_string(), "no stock");
        let failure = Failure::from(handed_on);
        assert_eq!(failure.verdict, FailureVerdict::RetryAfter(delay));
        assert_eq!(failure.cause, Cause::Uncounted);
    }

    #[test]
    fn the_extension_trait_chooses_the_verdict() {
        let no: Result<(), &str> = Err("no");
        assert_eq!(
            no.permanent().unwrap_err().verdict,
            FailureVerdict::Permanent
        );
        let delay = Duration::from_secs(3);
        assert_eq!(
            no.retry_after(delay).unwrap_err().verdict,
            FailureVerdict::RetryAfter(delay)
        );
    }
}
