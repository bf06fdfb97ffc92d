//! One attempt: a handler is called, polled once where it stands, and becomes a task of its own only if it waits; what
//! comes of it is a verdict.

use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use futures_util::FutureExt;
use tokio::sync::OwnedSemaphorePermit;

use super::executor::Executor;
use super::outcome::Body;
use super::report::report;
use super::routes::{Bound, RunFuture};
use super::verdict::{self, Verdict};
use crate::context::{Cancelled, Context};
use crate::failure::{Cause, Failure, FailureVerdict};
use crate::policy::{Pass, Why};
use crate::worker::state::inflight::Batch;
use crate::worker::state::recent_acks;

/// An entry on its way to its handler.
#[derive(Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub batch: &'a Arc<Batch>,
    pub index: u32,
    pub bound: &'a Bound,
}

/// A handler that has been called.
struct Started {
    future: RunFuture,
    /// It has ended, and whose its failure is is not known yet.
    ended: Option<Result<(), Failure>>,
    pass: Pass,
    at: Option<Instant>,
}

impl Executor {
    /// Calls the handler, unless its limits hold the entry back, and polls it once. Answers whether it is over.
    pub fn launch(
        self: &Arc<Self>,
        attempt: Attempt<'_>,
        ctx: Context,
        permit: &mut Option<OwnedSemaphorePermit>,
        acks: &mut Vec<u32>,
    ) -> bool {
        let Attempt {
            batch,
            index,
            bound,
        } = attempt;
        let slot = &batch.slots[index as usize];
        if batch.source.pauses.handler(&bound.gate.name) {
            self.hold_back(attempt, ctx, Why::Paused);
            return true;
        }
        let pass = match bound.gate.pass() {
            Ok(pass) => pass,
            Err(held) => {
                self.hold_back(attempt, ctx, held.why);
                return true;
            }
        };
        let at = self.observe_start(&ctx);
        let mut future = bound.call(&ctx);
        let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
        let mut ended = None;
        if let Poll::Ready(result) = future.poll_unpin(&mut nobody) {
            if result.is_ok() || !batch.is_lapsed() {
                self.finish(attempt, &ctx, pass, result, at, acks);
                return true;
            }
            // Its lease ran out meanwhile: whose the failure is has to be waited for.
            ended = Some(result);
        }
        slot.running(&ctx);
        let started = Started {
            future,
            ended,
            pass,
            at,
        };
        let task = self
            .clone()
            .wait(batch.clone(), index, ctx, started, permit.take());
        self.tasks.spawn(task);
        false
    }

    /// A handler that waits: until it ends, or the worker gives up on it.
    async fn wait(
        self: Arc<Self>,
        batch: Arc<Batch>,
        index: u32,
        ctx: Context,
        started: Started,
        mut permit: Option<OwnedSemaphorePermit>,
    ) {
        let Started {
            future,
            ended,
            pass,
            at,
        } = started;
        let bound = self.shared.routes.of(ctx.envelope());
        let since = at.unwrap_or_else(Instant::now);
        // In a block of its own: what it returns with, the handler's future is dropped by then.
        let result = match ended {
            Some(result) => {
                drop(future);
                Some(result)
            }
            None => {
                tokio::select! {
                    biased;
                    result = future => Some(result),
                    () = self.shared.signals.given_up() => None,
                }
            }
        };
        let attempt = Attempt {
            batch: &batch,
            index,
            bound,
        };
        let mut acks = Vec::new();
        match result {
            Some(result) => {
                if result.is_err() {
                    self.until_it_is_known_whose(&batch).await;
                }
                self.finish(attempt, &ctx, pass, result, Some(since), &mut acks);
                self.acknowledge(&batch, &mut acks);
            }
            None => {
                bound.gate.give_back(pass);
                let verdict = verdict::of_cut_off(ctx.attempt(), &bound.policy);
                self.settle_cut_off(&batch, index, verdict, ctx, since);
            }
        }
        self.leave(bound, &mut permit);
    }

    /// Waits for a renewal of a lease that has run out: a failure is reported as this worker's only if it is.
    async fn until_it_is_known_whose(&self, batch: &Batch) {
        while batch.is_lapsed() {
            let renewed = self.shared.inflight.renewal();
            self.shared.signals.renew_soon();
            tokio::select! {
                () = renewed => {}
                () = self.shared.signals.given_up() => return,
                () = self.shared.signals.abandoned() => return,
            }
        }
    }

    /// A handler has come to its end.
    fn finish(
        &self,
        attempt: Attempt<'_>,
        ctx: &Context,
        pass: Pass,
        mut result: Result<(), Failure>,
        started: Option<Instant>,
        acks: &mut Vec<u32>,
    ) {
        let Attempt {
            batch,
            index,
            bound,
        } = attempt;
        if let Err(failure) = &mut result {
            self.shared.routes.classifiers.apply(failure);
        }
        match &result {
            Err(_) if ctx.cancellation() == Some(Cancelled::Stopping) => bound.gate.give_back(pass),
            result => bound.gate.record(pass, result),
        }
        if let Err(failure) = &result
            && let (Cause::BreakerOpen, FailureVerdict::Later(delay)) =
                (failure.cause, failure.verdict)
        {
            // A million entries are not to find out one by one that the service they need is away.
            bound.gate.put_back(delay);
            self.shared.signals.released();
        }
        let taken = self
            .commit_handle
            .take(batch, index, ctx, &bound.policy, result, started);
        let Some(result) = taken else { return };
        let verdict = match &result {
            Ok(()) => Verdict::Ack,
            Err(failure) => verdict::of_end(failure, ctx, &bound.policy),
        };
        let owner = batch.slots[index as usize].finish();
        report(&self.shared, batch, ctx, &verdict, owner, started);
        match verdict {
            Verdict::Ack => {
                batch.slots[index as usize].succeeded(recent_acks::mark(ctx.envelope()));
                acks.push(index);
            }
            verdict => self.settle(
                batch,
                index,
                verdict,
                Body::Event(ctx.clone()),
                ctx.attempt(),
            ),
        }
    }

    fn observe_start(&self, ctx: &Context) -> Option<Instant> {
        let observer = self.shared.observer.as_ref()?;
        observer.started(ctx);
        Some(Instant::now())
    }
}
