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
/// use streamhand::{Failure, FailureExt, FailureKind};
///
/// async fn charge(card: &str) -> Result<(), Failure> {
///     let amount: u64 = "12".parse()?;                          // any error: retried with backoff
///     let _digits: u64 = card.parse().permanent()?;             // never again: to the dead letters
///     if amount == 0 {
///         return Err(Failure::permanent("nothing to charge"));
///     }
///     Ok(())
/// }
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let failure = charge("no digits").await.unwrap_err();
/// assert_eq!(failure.kind(), FailureKind::Permanent);
/// assert_eq!(failure.delay(), None);
/// # }
/// ```
///
/// What an error type of your own means is said once, by [`Registry::classify`](crate::Registry::classify).
///
/// `Failure` is deliberately not a [`std::error::Error`]: only so can every error, boxed ones, `anyhow::Error` and
/// `&str` included, be turned into one.
pub struct Failure {
    pub(crate) verdict: FailureKind,
    pub(crate) cause: Cause,
    error: BoxError,
    /// What it means was said where it was made: no classifier is asked.
    is_chosen: bool,
    /// It asked for a longer delay than there is.
    pub(crate) is_cut: bool,
}

/// Any error.
pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// What a failed attempt leads to. Delays are a year at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// It is tried again after the handler's backoff; the attempt counts.
    Retry,
    /// It is tried again after this time instead of the backoff; the attempt counts.
    RetryAfter(Duration),
    /// It comes back after this time; the attempt does not count.
    Later(Duration),
    /// It is never tried again: to the dead letters, as `permanent`.
    Permanent,
    /// The event's data is not what the handler takes: to the dead letters, as `undecodable`.
    Undecodable,
}

pub(crate) use FailureKind as FailureVerdict;

/// What it was that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureReason {
    /// The handler returned an error.
    Error,
    /// The handler's timeout has passed.
    TimedOut,
    /// The handler panicked.
    Panicked,
    /// The handler met an open circuit breaker: nothing was tried.
    BreakerOpen,
    /// The event's data is not what the handler takes: it did not run.
    Undecodable,
}

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
    /// Who should handle it is not there, and was waited for.
    Unhandled,
}

/// A failure on its way through layers, which want an error.
#[derive(Debug)]
struct InDisguise(Failure);

impl Failure {
    /// Try again after the handler's backoff, whatever a [classifier](crate::Registry::classify) says of the error. An
    /// error that stands for another failure (see [`into_error`](Self::into_error)) keeps what that means.
    pub fn retry(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Failure {
            is_chosen: true,
            ..Self::of(error.into())
        }
    }

    /// Try again after `delay`, at most a year, instead of the handler's backoff; the attempt counts.
    pub fn retry_after(delay: Duration, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(FailureKind::RetryAfter(delay), Cause::Error, error)
    }

    /// Never try again: the entry goes to the dead letters at once, as `permanent`.
    pub fn permanent(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(FailureKind::Permanent, Cause::Error, error)
    }

    /// Come back after `delay`, at most a year, for this reason; this attempt does not count.
    pub fn later(delay: Duration, reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(FailureKind::Later(delay), Cause::Uncounted, reason)
    }

    /// The same failure, of which no circuit breaker takes notice: it says nothing about the service behind the
    /// handler.
    #[must_use]
    pub fn uncounted(self) -> Self {
        Failure {
            cause: Cause::Uncounted,
            ..self
        }
    }

    /// The same failure as an error, for a `tower` layer to hand on. [`Failure::from`] makes it a failure again, with
    /// all that it meant; and of an error that has it somewhere among its [sources](StdError::source) one that means
    /// the same in that error's words.
    pub fn into_error(self) -> Box<dyn StdError + Send + Sync> {
        Box::new(InDisguise(self))
    }

    /// An open circuit breaker was met: nothing is to be tried for so long.
    pub(crate) fn breaker_open(delay: Duration, error: String) -> Self {
        Self::new(FailureKind::Later(delay), Cause::BreakerOpen, error)
    }

    /// Nobody was there to handle it for as long as is waited for that: to the dead letters, as `unhandled`.
    pub(crate) fn unhandled(error: String) -> Self {
        Self::new(FailureKind::Permanent, Cause::Unhandled, error)
    }

    pub(crate) fn timed_out(error: String) -> Self {
        Self::new(FailureKind::Retry, Cause::TimedOut, error)
    }

    pub(crate) fn panicked(error: String) -> Self {
        Self::new(FailureKind::Retry, Cause::Panicked, error)
    }

    pub(crate) fn undecodable(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(FailureKind::Undecodable, Cause::Uncounted, error)
    }

    fn new(kind: FailureKind, cause: Cause, error: impl Into<BoxError>) -> Self {
        Failure {
            verdict: kind.bounded(),
            cause,
            error: error.into(),
            is_chosen: true,
            is_cut: kind != kind.bounded(),
        }
    }

    /// What an error means that says nothing else: a retry, or what the failure means that it stands for.
    fn of(error: BoxError) -> Self {
        let error = match error.downcast::<InDisguise>() {
            // A layer hands on what its handler said.
            Ok(disguised) => return disguised.0,
            Err(error) => error,
        };
        let disguised = with_sources(&*error).find_map(|error| error.downcast_ref::<InDisguise>());
        let (verdict, cause, is_chosen, is_cut) = match disguised {
            // The layer has added its words to it.
            Some(InDisguise(inner)) => (inner.verdict, inner.cause, inner.is_chosen, inner.is_cut),
            None => (FailureKind::Retry, Cause::Error, false, false),
        };
        Failure {
            verdict,
            cause,
            error,
            is_chosen,
            is_cut,
        }
    }

    /// What is to be done about it.
    pub fn kind(&self) -> FailureKind {
        self.verdict
    }

    /// When the event comes back, if the failure says so: after [`retry_after`](Self::retry_after) and
    /// [`later`](Self::later).
    pub fn delay(&self) -> Option<Duration> {
        match self.verdict {
            FailureKind::RetryAfter(delay) | FailureKind::Later(delay) => Some(delay),
            _ => None,
        }
    }

    /// What it was that failed. The words for it are in [`error`](Self::error).
    pub fn reason(&self) -> FailureReason {
        match (self.verdict, self.cause) {
            (FailureKind::Undecodable, _) => FailureReason::Undecodable,
            (_, Cause::Error | Cause::Uncounted | Cause::Unhandled) => FailureReason::Error,
            (_, Cause::TimedOut) => FailureReason::TimedOut,
            (_, Cause::Panicked) => FailureReason::Panicked,
            (_, Cause::BreakerOpen) => FailureReason::BreakerOpen,
        }
    }

    /// The error behind it.
    pub fn error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.error
    }

    /// Whether it is no failure: the event comes back, and no attempt is used up.
    pub(crate) fn is_later(&self) -> bool {
        matches!(self.verdict, FailureKind::Later(_))
    }

    /// Whether the entry is never tried again.
    pub fn is_permanent(&self) -> bool {
        matches!(
            self.verdict,
            FailureKind::Permanent | FailureKind::Undecodable
        )
    }

    /// What `meaning` says of the error, unless what it means was said where it was made.
    pub(crate) fn unless_chosen(
        &mut self,
        meaning: impl FnOnce(&(dyn StdError + 'static)) -> Option<FailureKind>,
    ) {
        if !self.is_chosen
            && let Some(kind) = meaning(&*self.error)
        {
            self.verdict = kind.bounded();
            self.is_cut = kind != self.verdict;
            if self.is_later() {
                self.cause = Cause::Uncounted;
            }
        }
    }
}

impl FailureKind {
    fn bounded(self) -> Self {
        match self {
            FailureKind::RetryAfter(delay) => FailureKind::RetryAfter(delay::bounded(delay)),
            FailureKind::Later(delay) => FailureKind::Later(delay::bounded(delay)),
            kind => kind,
        }
    }
}

/// An error and what caused it, from the outermost in. What `std::io::Error` wraps is among them, which it leaves out
/// of its sources.
pub(crate) fn with_sources<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| {
        let error: &'a (dyn StdError + 'static) = *error;
        let wrapped = error.downcast_ref().and_then(std::io::Error::get_ref);
        match wrapped {
            Some(wrapped) => Some(wrapped as _),
            None => error.source(),
        }
    })
}

impl fmt::Display for InDisguise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl StdError for InDisguise {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0.error)
    }
}

impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::of(error.into())
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
            .field("kind", &self.verdict)
            .field("reason", &self.reason())
            .field("error", &self.error)
            .finish()
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: Box<dyn std::any::Any + Send>) -> String {
    panic_text(&*panic)
}

/// The same, if it is somebody else's.
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
    ///
    /// # Errors
    /// If the step failed.
    fn permanent(self) -> Result<T, Failure>;
    /// As [`Failure::retry_after`].
    ///
    /// # Errors
    /// If the step failed.
    fn retry_after(self, delay: Duration) -> Result<T, Failure>;
    /// As [`Failure::later`], with the error as the reason.
    ///
    /// # Errors
    /// If the step failed.
    fn later(self, delay: Duration) -> Result<T, Failure>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> FailureExt<T> for Result<T, E> {
    fn permanent(self) -> Result<T, Failure> {
        self.map_err(Failure::permanent)
    }

    fn retry_after(self, delay: Duration) -> Result<T, Failure> {
        self.map_err(|error| Failure::retry_after(delay, error))
    }

    fn later(self, delay: Duration) -> Result<T, Failure> {
        self.map_err(|error| Failure::later(delay, error))
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
        let later = no.later(delay).unwrap_err();
        assert_eq!(later.kind(), FailureKind::Later(delay));
        assert_eq!(later.to_string(), "no");
    }

    #[test]
    fn a_failure_tells_what_is_done_about_it_when_and_why() {
        let delay = Duration::from_secs(3);
        let tells = |failure: Failure| (failure.kind(), failure.delay(), failure.reason());
        let later = Failure::later(delay, "the till is being counted");
        assert_eq!(later.to_string(), "the till is being counted");
        for (failure, kind, wait, reason) in [
            ("no".into(), FailureKind::Retry, None, FailureReason::Error),
            (
                Failure::permanent("no").uncounted(),
                FailureKind::Permanent,
                None,
                FailureReason::Error,
            ),
            (
                Failure::retry_after(delay, "no"),
                FailureKind::RetryAfter(delay),
                Some(delay),
                FailureReason::Error,
            ),
            (
                later,
                FailureKind::Later(delay),
                Some(delay),
                FailureReason::Error,
            ),
            (
                Failure::timed_out("late".to_owned()),
                FailureKind::Retry,
                None,
                FailureReason::TimedOut,
            ),
            (
                Failure::panicked("oh".to_owned()),
                FailureKind::Retry,
                None,
                FailureReason::Panicked,
            ),
            (
                Failure::breaker_open(delay, "open".to_owned()),
                FailureKind::Later(delay),
                Some(delay),
                FailureReason::BreakerOpen,
            ),
            (
                Failure::undecodable("what?"),
                FailureKind::Undecodable,
                None,
                FailureReason::Undecodable,
            ),
        ] {
            assert_eq!(tells(failure), (kind, wait, reason));
        }
    }

    /// What layers make of an error: their own words, and the error as its source.
    #[derive(Debug, thiserror::Error)]
    #[error("in the audit layer")]
    struct Audited(#[source] BoxError);

    #[test]
    fn a_failure_keeps_its_meaning_where_layers_add_their_words() {
        let delay = Duration::from_secs(3);
        let said = || Failure::retry_after(delay, "no stock").uncounted();
        let audited = Audited(said().into_error());
        let twice = Audited(Box::new(Audited(said().into_error())));
        let boxed = std::io::Error::other(Audited(said().into_error()));
        for error in [
            Box::new(audited) as BoxError,
            Box::new(twice),
            Box::new(boxed),
        ] {
            let failure = Failure::from(error);
            assert_eq!(failure.kind(), FailureKind::RetryAfter(delay));
            assert_eq!(failure.cause, Cause::Uncounted);
            let text = failure.to_string();
            assert!(
                text.ends_with("in the audit layer: no stock"),
                "{text}: the layer's words, and once what the handler said"
            );
        }
    }
}
