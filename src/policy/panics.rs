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
    /// It panicked before it had begun.
    Panicked(Option<Failure>),
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
        match catch_unwind(AssertUnwindSafe(|| self.0.call(ctx))) {
            Ok(future) => CaughtFuture::Running(future),
            Err(panic) => CaughtFuture::Panicked(Some(panicked(panic))),
        }
    }
}

impl<F, E> Future for CaughtFuture<F>
where
    F: Future<Output = Result<(), E>> + Unpin,
    E: Into<Failure>,
{
    type Output = Result<(), Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            CaughtFuture::Running(future) => {
                let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(future).poll(cx)));
                Poll::Ready(match polled {
                    Ok(poll) => ready!(poll).map_err(Into::into),
                    Err(panic) => Err(panicked(panic)),
                })
            }
            CaughtFuture::Panicked(failure) => {
                Poll::Ready(Err(failure.take().expect("polled after its end")))
            }
        }
    }
}

fn panicked(panic: Box<dyn Any + Send>) -> Failure {
    Failure::panicked(format!("the handler panicked: {}", panic_message(panic)))
}
