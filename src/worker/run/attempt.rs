//! One attempt: a handler is called and polled once where it stands; only if it waits it becomes a task of its own, which
//! is for whoever called it to start. What comes of it is a verdict.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tracing::{Instrument, Span};

use super::commit_handle::{self, CommitHandle};
use super::outcome::{Body, Outcomes, Settlement};
use super::report::{Reporter, log};
use super::routes::{Bound, RunFuture};
use super::spans;
use super::verdict::{self, Verdict};
use crate::about::{About, tell};
use crate::classify::Classifiers;
use crate::context::{Cancelled, Context};
use crate::delay;
use crate::duration;
use crate::failure::{Cause, Failure, FailureVerdict};
use crate::metrics::entries::{Failed, HeldBy};
use crate::policy::{Pass, Why};
use crate::worker::state::inflight::{Batch, Inflight, Owner};
use crate::worker::state::recent_acks;
use crate::worker::state::signals::Signals;

/// What is released at a limit waits in Redis until its handler is free for it. If it has been forgotten there it comes
/// back after this, once.
const AT_A_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Makes attempts.
pub(crate) struct Attempts {
    pub signals: Arc<Signals>,
    pub inflight: Arc<Inflight>,
    pub reporter: Arc<Reporter>,
    pub outcomes: Outcomes,
    pub commit_handle: CommitHandle,
}

/// An entry on its way to its handler.
#[derive(Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub batch: &'a Arc<Batch>,
    pub index: u32,
    pub bound: &'a Bound,
    /// When its handler starts, by the batch's clock.
    pub since: u64,
}

/// What calling a handler came to.
pub(crate) enum Launched {
    Done(Done),
    /// It waits for something: the rest of it is to be run.
    Waiting(Started),
}

/// What an attempt that is over came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// Its entry is to be acknowledged.
    Succeeded,
    /// Whatever else becomes of it is on its way.
    HandedOver,
}

/// A handler that has been called, and waits.
pub(crate) struct Started {
    pub ctx: Context,
    future: RunFuture,
    /// It has ended, and whose its failure is is not known yet.
    ended: Option<Result<(), Failure>>,
    pass: Pass,
    at: Option<Instant>,
}

impl Attempt<'_> {
    /// Its handler starts.
    #[inline]
    fn started(&self) {
        if let Some(times) = &self.batch.times {
            times.started(self.index, self.since, self.bound.place);
        }
    }

    /// It has ended, by the batch's clock.
    #[inline]
    pub fn ended(&self, now: u64) {
        if let Some(times) = &self.batch.times {
            times.ended(self.index, now);
        }
    }

    /// It has ended now.
    fn has_ended(&self) {
        if self.batch.times.is_some() {
            self.ended(self.batch.now());
        }
    }
}

impl Attempts {
    /// Calls the handler, unless its limits release the entry, and polls it once.
    pub fn launch(
        &self,
        attempt: Attempt<'_>,
        ctx: Context,
        classifiers: &Classifiers,
    ) -> Launched {
        let Attempt {
            batch,
            index,
            bound,
            ..
        } = attempt;
        if batch.source.pauses.handler(&bound.gate.name) {
            self.release_at_limit(attempt, ctx, Why::Paused);
            return Launched::Done(Done::HandedOver);
        }
        let Some(ctx) = self.unless_it_is_over(batch, index, ctx) else {
            return Launched::Done(Done::HandedOver);
        };
        let pass = match bound.gate.pass() {
            Ok(pass) => pass,
            Err(closed) => {
                self.release_at_limit(attempt, ctx, closed.why);
                return Launched::Done(Done::HandedOver);
            }
        };
        self.begin(attempt, ctx, pass, classifiers)
    }

    /// What was cancelled while it waited here, or whose deadline has passed, does not run: it is settled so.
    #[inline]
    pub fn unless_it_is_over(
        &self,
        batch: &Arc<Batch>,
        index: u32,
        ctx: Context,
    ) -> Option<Context> {
        if batch.source.cancels(batch.slots[index as usize].id) {
            let number = ctx.attempt();
            self.settle_cancelled(batch, index, Body::Event(ctx), number);
            return None;
        }
        if ctx.envelope().may_expire() && self.has_expired(&ctx) {
            self.bury_expired(batch, index, ctx);
            return None;
        }
        Some(ctx)
    }

    /// The same of an entry that its handler's limits have let through.
    #[inline]
    pub fn begin(
        &self,
        attempt: Attempt<'_>,
        ctx: Context,
        pass: Pass,
        classifiers: &Classifiers,
    ) -> Launched {
        let Attempt {
            batch,
            index,
            bound,
            ..
        } = attempt;
        let at = self.reporter.started(&ctx);
        if let Some(spans) = &self.reporter.spans {
            spans.begin(batch, index, &ctx);
        }
        let within = ctx.run().map(|run| run.within.enter());
        attempt.started();
        let mut future = bound.call(&ctx);
        let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
        let mut ended = None;
        let polled = future.poll_unpin(&mut nobody);
        drop(within);
        if let Poll::Ready(result) = polled {
            // When a success ended is told by the clock that is read for the next one.
            if result.is_err() || commit_handle::takes(&ctx, &bound.policy) {
                attempt.has_ended();
            }
            if result.is_ok() || !batch.is_lapsed() {
                return Launched::Done(self.finish(attempt, &ctx, pass, result, at, classifiers));
            }
            // Its lease ran out meanwhile: whose the failure is has to be waited for.
            ctx.has_ended();
            ended = Some(result);
        }
        ctx.waits(batch.now());
        let slot = &batch.slots[index as usize];
        slot.running(&ctx);
        // Whoever hears of a cancellation notes it first and looks for contexts then: one of the two sees the other.
        if batch.source.cancels(slot.id) {
            let stream = &batch.source.keys.stream;
            cancel_run(&ctx, stream, bound.policy.grace, &self.signals);
        }
        Launched::Waiting(Started {
            ctx,
            future,
            ended,
            pass,
            at,
        })
    }

    /// The rest of a handler that waits: until it ends, or the worker gives up on it.
    pub async fn wait(
        &self,
        attempt: Attempt<'_>,
        started: Started,
        classifiers: &Classifiers,
    ) -> Done {
        let Started {
            ctx,
            future,
            ended,
            pass,
            at,
        } = started;
        let Attempt {
            batch,
            index,
            bound,
            ..
        } = attempt;
        let since = at.unwrap_or_else(Instant::now);
        let had_ended = ended.is_some();
        // In a block of its own: what it returns with, the handler's future is dropped by then.
        let result = match ended {
            Some(result) => {
                drop(future);
                Some(result)
            }
            None => {
                let within = ctx.run().map(|run| run.within.clone());
                let future = future.instrument(within.unwrap_or_else(Span::none));
                let mut future = std::pin::pin!(future);
                loop {
                    let interrupted = self.signals.interrupted();
                    let dropped = async {
                        if !self.signals.is_giving_up() && !ctx.is_cut() {
                            interrupted.await;
                        }
                    };
                    tokio::select! {
                        biased;
                        result = &mut future => break Some(result),
                        () = dropped => {}
                    }
                    if self.signals.is_giving_up() || ctx.is_cut() {
                        break None;
                    }
                }
            }
        };
        if !had_ended {
            attempt.has_ended();
        }
        match result {
            Some(result) => {
                if result.is_err() {
                    // A stop that comes while it waits is not why it has failed.
                    ctx.has_ended();
                    self.until_it_is_known_whose(batch).await;
                }
                self.finish(attempt, &ctx, pass, result, Some(since), classifiers)
            }
            None => {
                bound.gate.give_back(pass);
                let verdict = match ctx.cancellation() {
                    Some(Cancelled::Requested) => verdict::cancelled(),
                    _ => verdict::of_cut_off((ctx.attempt(), ctx.max_attempts()), &bound.policy),
                };
                self.settle_cut_off(batch, index, verdict, ctx, since);
                Done::HandedOver
            }
        }
    }

    /// An entry that its handler's limits let not through is released to Redis, and uses up no attempt.
    #[cold]
    pub fn release_at_limit(&self, attempt: Attempt<'_>, ctx: Context, why: Why) {
        let Attempt {
            batch,
            index,
            bound,
            ..
        } = attempt;
        if let Some(counts) = &batch.source.counts {
            counts.held_back(bound.place, held_by(why));
        }
        self.signals.released();
        let owner = batch.slots[index as usize].finish();
        let verdict = Verdict::Wait {
            delay: AT_A_LIMIT,
            error: why.to_string(),
        };
        let number = ctx.attempt();
        let body = Body::Event(ctx);
        self.reporter
            .unstarted(batch, index, &body, &verdict, owner);
        self.settle(batch, index, verdict, body, number);
    }

    /// An entry that an operator has cancelled does not start.
    #[cold]
    pub fn settle_cancelled(&self, batch: &Arc<Batch>, index: u32, body: Body, attempt: u32) {
        let owner = batch.slots[index as usize].finish();
        let verdict = verdict::cancelled();
        let stream = &batch.source.keys.stream;
        match &body {
            Body::Event(ctx) => log(&verdict, owner, &About::of(ctx, stream)),
            Body::Raw(entry) => log(&verdict, owner, &About::raw(entry, stream, attempt)),
        }
        self.reporter
            .unstarted(batch, index, &body, &verdict, owner);
        self.settle(batch, index, verdict, body, attempt);
    }

    /// Whether an event's own deadline has passed, by the server's clock.
    #[cold]
    pub fn has_expired(&self, ctx: &Context) -> bool {
        let expires = ctx.envelope().expires();
        let (Some(expires), Some(now)) = (expires, self.inflight.server_time()) else {
            return false;
        };
        expires <= now
    }

    /// No handler starts for it any more.
    #[cold]
    pub fn bury_expired(&self, batch: &Arc<Batch>, index: u32, ctx: Context) {
        let owner = batch.slots[index as usize].finish();
        let number = ctx.attempt();
        let verdict = verdict::of_expired(ctx.envelope(), number);
        log(&verdict, owner, &About::of(&ctx, &batch.source.keys.stream));
        let before = number.saturating_sub(1);
        let body = Body::Event(ctx.with_attempt(before));
        self.reporter
            .unstarted(batch, index, &body, &verdict, owner);
        self.settle(batch, index, verdict, body, before);
    }

    /// Hands over what becomes of an entry.
    pub fn settle(
        &self,
        batch: &Arc<Batch>,
        index: u32,
        verdict: Verdict,
        body: Body,
        attempt: u32,
    ) {
        let settlement = Settlement {
            batch: batch.clone(),
            index,
            verdict,
            body,
            attempt,
        };
        self.outcomes.settle(settlement);
    }

    /// A handler that has started is dropped: it is settled by its commit, if that is on its way, or as this says.
    fn settle_cut_off(
        &self,
        batch: &Arc<Batch>,
        index: u32,
        verdict: Verdict,
        ctx: Context,
        started: Instant,
    ) {
        let owner = batch.slots[index as usize].finish();
        let settlement = Settlement {
            batch: batch.clone(),
            index,
            verdict,
            attempt: ctx.attempt(),
            body: Body::Event(ctx.clone()),
        };
        let left = self
            .commit_handle
            .unless_committed(settlement, &ctx, started);
        if let Some(settlement) = left {
            let verdict = &settlement.verdict;
            self.reporter
                .settled(batch, &ctx, verdict, owner, Some(started));
            self.outcomes.settle(settlement);
        }
    }

    /// Waits for a renewal of a lease that has run out: a failure is reported as this worker's only if it is.
    async fn until_it_is_known_whose(&self, batch: &Batch) {
        while batch.is_lapsed() {
            let renewed = self.inflight.renewal();
            self.signals.renew_soon();
            tokio::select! {
                () = renewed => {}
                () = self.signals.given_up() => return,
                () = self.signals.abandoned() => return,
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
        classifiers: &Classifiers,
    ) -> Done {
        let Attempt {
            batch,
            index,
            bound,
            ..
        } = attempt;
        if let Err(failure) = &mut result {
            classifiers.apply(failure);
            spans::note(ctx, failure);
            if failure.is_cut {
                let most = duration::format(delay::LONGEST);
                tell!(
                    warn,
                    About::of(ctx, &batch.source.keys.stream),
                    "a handler asked for a longer delay than there is: its event comes back in {most}"
                );
            }
        }
        match &result {
            Err(_)
                if matches!(
                    ctx.cancellation(),
                    Some(Cancelled::Stopping | Cancelled::Requested)
                ) =>
            {
                bound.gate.give_back(pass);
            }
            result => bound.gate.record(pass, result),
        }
        if let Err(failure) = &result
            && let (Cause::BreakerOpen, FailureVerdict::Later(delay)) =
                (failure.cause, failure.verdict)
        {
            // A million entries are not to find out one by one that the service they need is away.
            bound.gate.released(delay);
            self.signals.released();
        }
        let taken = self
            .commit_handle
            .take(batch, index, ctx, &bound.policy, result, started);
        let Some(result) = taken else {
            return Done::HandedOver;
        };
        let verdict = match &result {
            Ok(()) => Verdict::Ack,
            Err(failure) => verdict::of_end(failure, ctx, &bound.policy),
        };
        let slot = &batch.slots[index as usize];
        let owner = slot.finish();
        if let (Err(failure), Some(counts)) = (&result, &batch.source.counts)
            && let Some(how) = how_it_failed(failure, &verdict, owner)
        {
            counts.failed(bound.place, how);
        }
        self.reporter.handled(batch, ctx, &verdict, owner, started);
        match verdict {
            Verdict::Ack => {
                slot.succeeded(recent_acks::mark(ctx.envelope()));
                Done::Succeeded
            }
            verdict => {
                let body = Body::Event(ctx.clone());
                self.settle(batch, index, verdict, body, ctx.attempt());
                Done::HandedOver
            }
        }
    }
}

/// Tells a handler that runs that an operator has cancelled its entry, once, and has it dropped if it goes on for longer than
/// its grace period.
#[cold]
pub(crate) fn cancel_run(ctx: &Context, stream: &str, grace: Duration, signals: &Arc<Signals>) {
    if !ctx.is_told(Cancelled::Requested) {
        return;
    }
    tell!(
        info,
        About::of(ctx, stream),
        "its handler is told to stop: {}",
        verdict::CANCELLED
    );
    let (ctx, signals) = (ctx.clone(), signals.clone());
    tokio::spawn(async move {
        tokio::time::sleep(grace).await;
        ctx.is_to_be_cut();
        signals.interrupt();
    });
}

/// What an entry counts as that goes back at a limit.
fn held_by(why: Why) -> HeldBy {
    match why {
        Why::BreakerOpen | Why::Probing => HeldBy::Breaker,
        Why::Rate | Why::Uncounted => HeldBy::Rate,
        Why::Concurrency | Why::Share => HeldBy::Places,
        Why::Paused => HeldBy::Pause,
    }
}

/// What an attempt counts as that has failed; nothing if it uses up none.
#[cold]
pub(crate) fn how_it_failed(failure: &Failure, verdict: &Verdict, owner: Owner) -> Option<Failed> {
    match verdict {
        Verdict::Ack | Verdict::Release { .. } | Verdict::Wait { .. } | Verdict::Cancel { .. } => {
            None
        }
        _ if owner == Owner::Another => Some(Failed::Lease),
        Verdict::Retry { .. } | Verdict::Bury { .. } => Some(match failure.cause {
            Cause::TimedOut => Failed::Timeout,
            Cause::Panicked => Failed::Panic,
            Cause::Error | Cause::BreakerOpen | Cause::Uncounted | Cause::Unhandled => {
                Failed::Error
            }
        }),
    }
}
