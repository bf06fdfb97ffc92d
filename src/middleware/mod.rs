//! What stands around a handler: any `tower::Layer`. A handler is a `tower::Service` that takes the [`Context`] of an
//! entry and returns nothing, or an error. The runtime's own time limit and its catching of panics are built the same
//! way.
//!
//! A handler without layers costs nothing here; one that has some pays for a boxed future and a clone of the service.

mod blocking;
mod panics;
mod timeout;

pub(crate) use blocking::kept_its_thread;
pub(crate) use panics::{CatchPanics, CaughtFuture};
pub(crate) use timeout::{TimedFuture, TimeoutLayer};

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use tower::{Layer, Service, ServiceExt};

use crate::context::Context;
use crate::failure::{BoxError, Failure};

/// What a handler becomes when it is called.
pub(crate) type HandlerFuture = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// The function behind a handler, with everything it captures.
pub(crate) trait Handle: Send + Sync {
    /// Decodes the event and makes the handler's future.
    fn call(&self, ctx: Context) -> Result<HandlerFuture, Failure>;
}

impl<F: Fn(Context) -> Result<HandlerFuture, Failure> + Send + Sync> Handle for F {
    fn call(&self, ctx: Context) -> Result<HandlerFuture, Failure> {
        self(ctx)
    }
}

/// A handler as layers see it: a service that is always ready, takes an entry's [`Context`] and runs the handler of the
/// entry's type. What is inside may be layered already. Cheap to clone.
///
/// Its error is a [`Failure`] in disguise: a layer that hands it on as it is, in whatever box, or as the
/// [source](std::error::Error::source) of an error of its own, keeps what it means, and [`Failure::from`] brings it
/// back. An error of a layer's own means a retry, like any other.
#[derive(Clone)]
pub struct Handler(Arc<dyn Handle>);

impl Handler {
    pub(crate) fn new(handle: impl Handle + 'static) -> Self {
        Handler(Arc::new(handle))
    }

    /// Decodes the event and makes the handler's future.
    #[inline]
    pub(crate) fn begin(&self, ctx: Context) -> Result<HandlerFuture, Failure> {
        self.0.call(ctx)
    }

    /// The same handler with a layer around it.
    pub(crate) fn layered<L>(self, layer: &L) -> Self
    where
        L: Layer<Handler>,
        L::Service: Service<Context, Response = ()> + Clone + Send + Sync + 'static,
        <L::Service as Service<Context>>::Error: Into<BoxError>,
        <L::Service as Service<Context>>::Future: Send + 'static,
    {
        let service = layer.layer(self);
        Handler::new(move |ctx: Context| {
            let service = service.clone();
            let answer = async move { service.oneshot(ctx).await.map_err(Failure::from) };
            Ok(Box::pin(answer) as HandlerFuture)
        })
    }
}

impl Service<Context> for Handler {
    type Response = ();
    type Error = BoxError;
    type Future = Handling;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, ctx: Context) -> Handling {
        Handling(self.begin(ctx).map_err(Some))
    }
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handler")
    }
}

/// A handler that runs.
#[must_use = "a future does nothing unless it is polled"]
pub struct Handling(Result<HandlerFuture, Option<Failure>>);

impl Future for Handling {
    type Output = Result<(), BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let result = match &mut self.0 {
            Ok(future) => ready!(future.as_mut().poll(cx)),
            // The event could not even be decoded.
            Err(failure) => Err(failure.take().expect("polled after its end")),
        };
        Poll::Ready(result.map_err(Failure::into_error))
    }
}

impl std::fmt::Debug for Handling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handling")
    }
}
