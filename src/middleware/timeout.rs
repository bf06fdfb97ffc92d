//! How long an attempt may take: when its time is over the handler is told so through its context, and dropped if it
//! has not ended by the end of the grace period.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::Sleep;
use tower::{Layer, Service};

use super::kept_its_thread;
use crate::context::{Cancelled, Context};
use crate::failure::Failure;

/// Puts an end to calls that take too long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeoutLayer {
    pub timeout: Duration,
    pub grace: Duration,
}

/// A service whose calls end in time.
#[derive(Clone, Debug)]
pub(crate) struct Timed<S> {
    inner: S,
    layer: TimeoutLayer,
}

/// A call that ends in time.
pub(crate) struct TimedFuture<F> {
    inner: F,
    ctx: Context,
    layer: TimeoutLayer,
    /// Made when the call first waits: most never do.
    sleep: Option<Pin<Box<Sleep>>>,
    is_cancelled: bool,
}

impl TimeoutLayer {
    /// Puts an end to one call.
    #[inline]
    pub fn around<F>(self, inner: F, ctx: Context) -> TimedFuture<F> {
        TimedFuture {
            inner,
            ctx,
            layer: self,
            sleep: None,
            is_cancelled: false,
        }
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timed<S>;

    fn layer(&self, inner: S) -> Timed<S> {
        Timed {
            inner,
            layer: *self,
        }
    }
}

impl<S> Service<Context> for Timed<S>
where
    S: Service<Context, Response = (), Error = Failure>,
    S::Future: Unpin,
{
    type Response = ();
    type Error = Failure;
    type Future = TimedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, ctx: Context) -> Self::Future {
        let layer = self.layer;
        layer.around(self.inner.call(ctx.clone()), ctx)
    }
}

impl<F: Future<Output = Result<(), Failure>> + Unpin> Future for TimedFuture<F> {
    type Output = Result<(), Failure>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        if self.sleep.is_some() {
            return self.poll_again(cx);
        }
        // Most are over at once.
        match Pin::new(&mut self.inner).poll(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.poll_time(cx),
        }
    }
}

impl<F: Future<Output = Result<(), Failure>> + Unpin> TimedFuture<F> {
    /// The call has waited: for how long it now keeps the thread is looked at. The first time whoever called it does.
    fn poll_again(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), Failure>> {
        let since = Instant::now();
        let polled = Pin::new(&mut self.inner).poll(cx);
        let kept = since.elapsed();
        if kept > self.layer.timeout {
            kept_its_thread(self.ctx.envelope().event_type(), kept, self.layer.timeout);
        }
        match polled {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.poll_time(cx),
        }
    }

    /// The call waits: its time may be over.
    #[cold]
    fn poll_time(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), Failure>> {
        let this = self;
        loop {
            let TimeoutLayer { timeout, grace } = this.layer;
            let sleep = this
                .sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if this.is_cancelled {
                let timeout = crate::duration::format(timeout);
                return Poll::Ready(Err(Failure::timed_out(format!(
                    "the handler timed out after {timeout}"
                ))));
            }
            this.is_cancelled = true;
            this.ctx.stops_for(Cancelled::TimedOut);
            this.sleep = Some(Box::pin(tokio::time::sleep(grace)));
            // Now that it has heard of it it may end by itself.
            if let Poll::Ready(result) = Pin::new(&mut this.inner).poll(cx) {
                return Poll::Ready(result);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tower::{ServiceExt, service_fn};

    use super::*;

    const LAYER: TimeoutLayer = TimeoutLayer {
        timeout: Duration::from_secs(60),
        grace: Duration::from_secs(5),
    };

    #[tokio::test(start_paused = true)]
    async fn a_handler_is_told_first_and_dropped_when_its_grace_is_over() {
        let since = tokio::time::Instant::now();
        let deaf = service_fn(|_: Context| Box::pin(std::future::pending::<Result<(), Failure>>()));
        let failure = LAYER
            .layer(deaf)
            .oneshot(Context::for_test())
            .await
            .unwrap_err();
        assert!(
            failure.to_string().contains("timed out after 1m"),
            "{failure}"
        );
        assert_eq!(since.elapsed().as_secs(), 65);
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_listens_ends_by_itself_with_what_it_says() {
        let since = tokio::time::Instant::now();
        let listens = service_fn(|ctx: Context| {
            Box::pin(async move {
                assert_eq!(ctx.cancelled().await, Cancelled::TimedOut);
                Ok::<(), Failure>(())
            })
        });
        let result = LAYER.layer(listens).oneshot(Context::for_test()).await;
        assert!(result.is_ok());
        assert_eq!(since.elapsed().as_secs(), 60);
    }
}
