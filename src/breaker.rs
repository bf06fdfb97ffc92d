//! The circuit breaker a handler asks for calls to a service: [`Context::breaker`].

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::context::{Cancelled, Context};
use crate::failure::{BoxError, Failure};
use crate::policy::{Circuit, Outcome, Ticket};

/// A circuit breaker for calls to a service from within handlers. See [`Context::breaker`](crate::Context::breaker).
///
/// ```
/// # use streamhand::{Context, Failure};
/// # async fn charge(amount: u64) -> Result<(), std::io::Error> { Ok(()) }
/// # async fn example(ctx: Context) -> Result<(), Failure> {
/// ctx.breaker("payments").call(charge(12)).await?;
/// # Ok(()) }
/// ```
///
/// While it is open nothing is called: the error, handed on by `?`, lets the event come back when the breaker's time
/// is over, and uses up no attempt.
#[derive(Clone)]
pub struct Breaker {
    shared: Arc<Circuit>,
    ctx: Context,
}

/// Why a call through a [`Breaker`] did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError<E> {
    /// The breaker is open: nothing was called.
    Open {
        /// The breaker's name.
        name: String,
        /// When it is worth asking again.
        retry_in: Duration,
    },
    /// The call failed, and was counted.
    Failed(E),
}

/// What a call says of the service, as whoever called judges it.
pub(crate) enum Said {
    Works,
    Fails,
    Nothing,
    /// There is no use in other calls, for this reason.
    Opens(String),
}

/// A call that was let through: what is not said of it by its end says nothing.
struct Call<'a> {
    breaker: &'a Breaker,
    ticket: Option<Ticket>,
}

impl Context {
    /// The circuit breaker of that name, for calls to a service that may be away. One name, one state in the process,
    /// whichever handler asks; `[breakers.payments]` in the configuration sets up the one called `payments`.
    ///
    /// ```
    /// # use streamhand::{Context, Failure};
    /// # async fn charge() -> Result<(), std::io::Error> { Ok(()) }
    /// # async fn handler(ctx: Context) -> Result<(), Failure> {
    /// ctx.breaker("payments").call(charge()).await?;
    /// # Ok(()) }
    /// ```
    pub fn breaker(&self, name: &str) -> Breaker {
        Breaker {
            shared: self.surroundings().breakers.named(name),
            ctx: self.clone(),
        }
    }
}

impl Breaker {
    /// Calls, if the breaker lets it, and counts whether it succeeded. Every error counts as a failure. A call that is
    /// dropped before its end counts as one where the handler's time was over, and not at all else.
    ///
    /// # Errors
    /// The call's own error, or [`CallError::Open`].
    pub async fn call<T, E>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CallError<E>> {
        self.call_counting(call, |_| true).await
    }

    /// As [`call`](Self::call), if only some errors say something about the service: those that `counts`.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_counting<T, E>(
        &self,
        call: impl Future<Output = Result<T, E>>,
        counts: impl FnOnce(&E) -> bool,
    ) -> Result<T, CallError<E>> {
        let said = |result: &Result<T, E>| match result {
            Ok(_) => Said::Works,
            Err(error) if counts(error) => Said::Fails,
            Err(_) => Said::Nothing,
        };
        match self.call_judged(call, said).await {
            Ok(result) => result.map_err(CallError::Failed),
            Err(retry_in) => Err(CallError::Open {
                name: self.shared.name.clone(),
                retry_in,
            }),
        }
    }

    /// Calls, if the breaker lets it, and takes notice of what that says of the service. If it does not let it, returns
    /// when it is worth asking again.
    pub(crate) async fn call_judged<T>(
        &self,
        call: impl Future<Output = T>,
        judge: impl FnOnce(&T) -> Said,
    ) -> Result<T, Duration> {
        let ticket = self.shared.admit().map_err(|held| held.wait)?;
        let mut under_way = Call {
            breaker: self,
            ticket: Some(ticket),
        };
        let result = call.await;
        under_way.ticket = None;
        let outcome = match judge(&result) {
            Said::Works => Outcome::Success,
            Said::Fails => Outcome::Failure,
            Said::Nothing => Outcome::Neither,
            Said::Opens(why) => {
                self.shared.trip(ticket, why);
                return Ok(result);
            }
        };
        self.shared.record(ticket, outcome);
        Ok(result)
    }

    /// How long it stays open.
    pub(crate) fn open_for(&self) -> Duration {
        self.shared.open_for()
    }

    /// Whether calls are refused at this moment.
    pub fn is_open(&self) -> bool {
        self.shared.room() == Some(0)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let why = self.breaker.ctx.cancellation();
            let outcome = if why == Some(Cancelled::TimedOut) || std::thread::panicking() {
                Outcome::Failure
            } else {
                Outcome::Neither
            };
            self.breaker.shared.record(ticket, outcome);
        }
    }
}

impl<E: Into<BoxError>> From<CallError<E>> for Failure {
    fn from(error: CallError<E>) -> Self {
        match error {
            CallError::Open { name, retry_in } => {
                Failure::breaker_open(retry_in, format!("the circuit breaker {name} is open"))
            }
            CallError::Failed(error) => Failure::from(error),
        }
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Open { name, .. } => write!(f, "the circuit breaker {name} is open"),
            CallError::Failed(error) => error.fmt(f),
        }
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shared, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BreakerSettings;
    use crate::policy::Breakers;

    fn named(breakers: &Breakers, name: &str, ctx: Context) -> Breaker {
        let shared = breakers.named(name);
        Breaker { shared, ctx }
    }

    fn breakers() -> Breakers {
        let settings = BreakerSettings {
            failures: 2,
            ..BreakerSettings::default()
        };
        Breakers::new([("payments".to_owned(), settings)].into())
    }

    #[tokio::test]
    async fn calls_are_refused_while_it_is_open_by_whatever_handle() {
        let breakers = breakers();
        let fails = async || {
            let breaker = named(&breakers, "payments", Context::for_test());
            breaker.call(async { Err::<(), _>("down") }).await
        };
        assert_eq!(fails().await, Err(CallError::Failed("down")));
        assert_eq!(fails().await, Err(CallError::Failed("down")));
        let refused = fails().await.unwrap_err();
        assert!(matches!(&refused, CallError::Open { name, .. } if name == "payments"));
        let failure = Failure::from(refused);
        assert!(matches!(
            failure.verdict,
            crate::failure::FailureVerdict::Later(_)
        ));
        assert_eq!(breakers.named("payments").epoch(), 1);
        let other = named(&breakers, "mail", Context::for_test());
        assert!(!other.is_open());
    }

    #[tokio::test]
    async fn what_does_not_count_and_what_is_dropped_says_nothing() {
        let breakers = breakers();
        let breaker = named(&breakers, "payments", Context::for_test());
        for _ in 0..5 {
            let call = breaker.call_counting(async { Err::<(), _>("no such card") }, |_| false);
            assert!(call.await.is_err());
            let never = breaker.call(std::future::pending::<Result<(), &str>>());
            let timeout = std::time::Duration::from_millis(1);
            assert!(tokio::time::timeout(timeout, never).await.is_err());
        }
        assert!(!breaker.is_open());
        let ctx = Context::for_test();
        ctx.stops_for(Cancelled::TimedOut);
        for _ in 0..2 {
            let breaker = named(&breakers, "payments", ctx.clone());
            let never = breaker.call(std::future::pending::<Result<(), &str>>());
            let timeout = std::time::Duration::from_millis(1);
            assert!(tokio::time::timeout(timeout, never).await.is_err());
        }
        assert!(breaker.is_open());
    }
}
