//! A handler's panic is a failure of its attempt, and harms nothing else.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Poll, ready};

use tower::{Layer, Service};

use crate::context::Context;
use crate::failure::{Failure, panic_message};

/// Catches panics of what it stands around.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CatchPanics;

/// A service whose panics are failures.
#[derive(Clone, Debug)]
pub(crate) struct Caught<S>(S);

/// A call whose panics are failures.
pub(crate) enum CaughtFuture<F> {
    Running(F),
    /// It was over before it had begun.
    Failed(Option<Failure>),
}

impl CatchPanics {
    /// Makes a call, and catches what panics in that and in what comes of it.
    #[inline]
    pub fn call<F>(self, call: impl FnOnce() -> Result<F, Failure>) -> CaughtFuture<F> {
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(future)) => CaughtFuture::Running(future),
            Ok(Err(failure)) => CaughtFuture::Failed(Some(failure)),
            Err(panic) => CaughtFuture::Failed(Some(panicked(panic))),
        }
    }
}

impl<S> Layer<S> for CatchPanics {
    type Service = Caught<S>;

    fn layer(&self, inner: S) -> Caught<S> {
        Caught(inner)
    }
}

impl<S> Service<Context> for Caught<S>
where
    S: Service<Context, Response = ()>,
    S::Error: Into<Failure>,
    S::Future: Unpin,
{
    type Response = ();
    type Error = Failure;
    type Future = CaughtFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), Failure>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, ctx: Context) -> Self::Future {
        CatchPanics.call(|| Ok(self.0.call(ctx)))
    }
}

impl<F, E> Future for CaughtFuture<F>
where
    F: Future<Output = Result<(), E>> + Unpin,
    E: Into<Failure>,
{
    type Output = Result<(), Failure>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            CaughtFuture::Running(future) => {
                let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(future).poll(cx)));
                Poll::Ready(match polled {
                    Ok(poll) => ready!(poll).map_err(Into::into),
                    Err(panic) => Err(panicked(panic)),
                })
            }
            CaughtFuture::Failed(failure) => {
                Poll::Ready(Err(failure.take().expect("polled after its end")))
            }
        }
    }
}

#[cold]
fn panicked(panic: Box<dyn Any + Send>) -> Failure {
    Failure::panicked(format!("the handler panicked: {}", panic_message(panic)))
}

#[cfg(test)]
mod tests {
    use tower::{ServiceExt, service_fn};

    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_failure_before_a_call_begins_and_while_it_runs() {
        let early =
            service_fn(|_: Context| -> std::future::Ready<Result<(), Failure>> { panic!("early") });
        let late = service_fn(|_: Context| {
            Box::pin(async {
                if true {
                    panic!("late")
                } else {
                    Ok::<(), Failure>(())
                }
            })
        });
        let early = CatchPanics.layer(early).oneshot(Context::for_test()).await;
        let late = CatchPanics.layer(late).oneshot(Context::for_test()).await;
        for (result, said) in [(early, "panicked: early"), (late, "panicked: late")] {
            let failure = result.unwrap_err().to_string();
            assert!(failure.contains(said), "{failure}");
        }
    }
}
