//! What a handler's error means: try again, try again after a given time, come back later, or never again.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

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
    error: Box<dyn StdError + Send + Sync>,
}

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
        Failure {
            verdict: FailureVerdict::Retry,
            error: error.into(),
        }
    }

    /// Try again after `delay` instead of the handler's backoff; the attempt counts.
    pub fn retry_after(delay: Duration, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Failure {
            verdict: FailureVerdict::RetryAfter(delay),
            error: error.into(),
        }
    }

    /// Never try again: the entry goes to the dead letters at once, as `permanent`.
    pub fn permanent(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Failure {
            verdict: FailureVerdict::Permanent,
            error: error.into(),
        }
    }

    /// Come back after `delay`; this attempt does not count.
    pub fn later(delay: Duration) -> Self {
        Failure {
            verdict: FailureVerdict::Later(delay),
            error: "asked to come back later".into(),
        }
    }

    pub(crate) fn undecodable(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Failure {
            verdict: FailureVerdict::Undecodable,
            error: error.into(),
        }
    }

    /// The error behind it.
    pub fn error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.error
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
