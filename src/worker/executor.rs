//! The executor: starts handlers, as many at once as `concurrency` allows, and turns what comes of them into
//! verdicts. A handler is polled once where it stands; only one that waits becomes a task of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::CatchUnwind;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::acker::Acks;
use super::admission::{Admission, Bound, Item, Routes};
use super::commits::Commits;
use super::held::{Batch, Owner};
use super::memory;
use super::observer::{Outcome, Settled};
use super::settler::Settlement;
use super::shared::Shared;
use super::steps::Body;
use super::verdict::{self, Verdict};
use crate::config::Settings;
use crate::context::{Cancelled, Context};
use crate::event::EntryId;
use crate::failure::Failure;
use crate::handler::{HandlerFuture, Registry};

/// Entries that are handed to a lane at once.
pub(super) const RUN: usize = 32;

/// Part of a batch, on its way to handlers.
pub(super) struct Run {
    pub batch: Arc<Batch>,
    pub items: Vec<Item>,
}

/// Starts handlers. Lives on the caller's runtime, apart from everything that speaks to Redis.
pub(super) struct Executor {
    shared: Arc<Shared>,
    routes: Routes,
    acks: mpsc::UnboundedSender<Acks>,
    settle: mpsc::UnboundedSender<Settlement>,
    commits: Commits,
    tasks: TaskTracker,
    /// Drops the handlers that are still running.
    pub give_up: CancellationToken,
}

type Caught = CatchUnwind<AssertUnwindSafe<HandlerFuture>>;

impl Executor {
    pub fn new(
        shared: Arc<Shared>,
        settings: &Settings,
        registry: Registry,
        acks: mpsc::UnboundedSender<Acks>,
        settle: mpsc::UnboundedSender<Settlement>,
        commits: Commits,
    ) -> Self {
        Executor {
            shared,
            routes: Routes::new(settings, registry),
            acks,
            settle,
            commits,
            tasks: TaskTracker::new(),
            give_up: CancellationToken::new(),
        }
    }

    /// Works until no more entries come; then waits for the handlers that are still running.
    pub async fn work(
        self: Arc<Self>,
        runs: async_channel::Receiver<Run>,
        suspects: mpsc::UnboundedReceiver<Run>,
    ) {
        let lanes = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(self.shared.concurrency);
        for _ in 0..lanes {
            self.tasks.spawn(self.clone().lane(runs.clone()));
        }
        self.tasks.spawn(self.clone().ward(suspects));
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Takes runs one after the other and starts their handlers.
    async fn lane(self: Arc<Self>, runs: async_channel::Receiver<Run>) {
        // A lane keeps its permit from one handler to the next; only one that waits takes it along.
        let mut permit = None;
        loop {
            let run = match runs.try_recv() {
                Ok(run) => run,
                Err(_) => {
                    // Whoever waits here must not look as if it ran a handler.
                    permit = None;
                    match runs.recv().await {
                        Ok(run) => run,
                        Err(_) => return,
                    }
                }
            };
            self.run(run, &mut permit).await;
        }
    }

    async fn run(self: &Arc<Self>, run: Run, permit: &mut Option<OwnedSemaphorePermit>) {
        let Run { batch, items } = run;
        let mut acks = Vec::with_capacity(items.len());
        for item in items {
            // All that may wait happens before the entry starts, and not while acknowledgements are kept back.
            while !self.may_start(&batch, permit) {
                self.acknowledge(&batch, &mut acks);
                self.until_it_may_start(&batch, permit).await;
            }
            self.start(&batch, item, permit, &mut acks);
        }
        self.acknowledge(&batch, &mut acks);
    }

    /// Whether the next entry may start at once (a stopping worker "starts" them all, to give them back).
    fn may_start(&self, batch: &Batch, permit: &mut Option<OwnedSemaphorePermit>) -> bool {
        if self.shared.is_stopping() {
            return true;
        }
        if !self.shared.ward.is_open() || batch.is_lapsed() {
            return false;
        }
        if permit.is_some() {
            return true;
        }
        // The slot first, and then the gate once more: it may have been closed, and the slots counted, in between.
        *permit = self.shared.slots.clone().try_acquire_owned().ok();
        permit.is_some() && self.shared.ward.lets_in()
    }

    /// Waits for the ward to open, a renewal of a lease that has run out, and a free slot.
    async fn until_it_may_start(&self, batch: &Batch, permit: &mut Option<OwnedSemaphorePermit>) {
        let free = async {
            if !self.shared.ward.is_open() {
                *permit = None;
                self.shared.ward.pass().await;
            }
            while batch.is_lapsed() {
                let renewed = self.shared.held.renewed.notified();
                self.shared.renew_now.notify_one();
                renewed.await;
            }
            if permit.is_none() {
                *permit = self.shared.slots.clone().acquire_owned().await.ok();
            }
        };
        tokio::select! {
            () = free => {}
            () = self.shared.stopping.cancelled() => {}
        }
    }

    /// Where suspects run, one at a time, each as a task of its own.
    async fn ward(self: Arc<Self>, mut suspects: mpsc::UnboundedReceiver<Run>) {
        while let Some(run) = suspects.recv().await {
            let mut permit = self.shared.slots.clone().try_acquire_owned().ok();
            let mut acks = Vec::new();
            for item in run.items {
                self.start(&run.batch, item, &mut permit, &mut acks);
            }
            self.acknowledge(&run.batch, &mut acks);
        }
    }

    /// One entry: decides whether it is to be handled, starts its handler, and polls it once.
    fn start(
        self: &Arc<Self>,
        batch: &Arc<Batch>,
        item: Item,
        permit: &mut Option<OwnedSemaphorePermit>,
        acks: &mut Vec<u32>,
    ) {
        let slot = &batch.slots[item.index as usize];
        let index = item.index;
        if self.shared.is_stopping() {
            slot.finish();
            let error = "given back unstarted by a worker that stopped".to_owned();
            let verdict = Verdict::Release {
                delay: Duration::ZERO,
                error,
            };
            return self.settle(batch, index, verdict, Body::Raw(item.entry), 0);
        }
        if !slot.start() {
            // Taken over by another worker while it waited here.
            return self.shared.settled(batch, [slot]);
        }
        let (bound, ctx) = match self.routes.admit(&self.shared.memory, batch, item) {
            Admission::Handle(bound, ctx) => (bound, ctx),
            Admission::Settle(Verdict::Ack, body, _) => {
                if let Body::Event(ctx) = &body {
                    slot.succeeded(memory::mark(ctx.envelope()));
                }
                slot.finish();
                return acks.push(index);
            }
            Admission::Settle(verdict, body, attempt) => {
                let owner = slot.finish();
                match &body {
                    Body::Event(ctx) => {
                        Self::report(&self.shared, batch, ctx, &verdict, owner, None);
                    }
                    Body::Raw(entry) => log(&verdict, owner, entry.id, "", attempt),
                }
                return self.settle(batch, index, verdict, body, attempt);
            }
        };
        let started = self.observe_start(&ctx);
        let mut future = match catch_unwind(AssertUnwindSafe(|| bound.route.call(ctx.clone()))) {
            Ok(Ok(future)) => AssertUnwindSafe(future).catch_unwind(),
            Ok(Err(failure)) => {
                return self.finish(batch, index, &ctx, bound, Err(failure), started, acks);
            }
            Err(panic) => {
                return self.finish(
                    batch,
                    index,
                    &ctx,
                    bound,
                    Err(panicked(panic)),
                    started,
                    acks,
                );
            }
        };
        let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
        match future.poll_unpin(&mut nobody) {
            Poll::Ready(result) => {
                let result = flatten(result);
                if result.is_ok() || !batch.is_lapsed() {
                    return self.finish(batch, index, &ctx, bound, result, started, acks);
                }
                // Its lease ran out meanwhile: whose the failure is has to be waited for.
                let ended: HandlerFuture = Box::pin(std::future::ready(result));
                future = AssertUnwindSafe(ended).catch_unwind();
            }
            Poll::Pending => {}
        }
        slot.running(&ctx);
        let task = self
            .clone()
            .wait(batch.clone(), index, ctx, future, started, permit.take());
        self.tasks.spawn(task);
    }

    /// A handler that waits: until it ends, its time is over, or the worker gives up on it.
    async fn wait(
        self: Arc<Self>,
        batch: Arc<Batch>,
        index: u32,
        ctx: Context,
        future: Caught,
        started: Option<Instant>,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let bound = self.routes.of(ctx.envelope());
        let since = started.unwrap_or_else(Instant::now);
        // In a block of its own: what it returns with, the handler's future is dropped by then.
        let result = {
            tokio::pin!(future);
            tokio::select! {
                biased;
                result = &mut future => Some(flatten(result)),
                () = self.give_up.cancelled() => None,
                () = tokio::time::sleep(bound.policy.timeout) => {
                    ctx.cancel(Cancelled::TimedOut);
                    tokio::select! {
                        biased;
                        result = &mut future => Some(flatten(result)),
                        () = self.give_up.cancelled() => None,
                        () = tokio::time::sleep(bound.policy.grace) => {
                            let timeout = humantime::format_duration(bound.policy.timeout);
                            Some(Err(Failure::retry(format!("the handler timed out after {timeout}"))))
                        }
                    }
                }
            }
        };
        let mut acks = Vec::new();
        match result {
            Some(result) => {
                if result.is_err() {
                    self.until_it_is_known_whose(&batch).await;
                }
                self.finish(&batch, index, &ctx, bound, result, Some(since), &mut acks);
                self.acknowledge(&batch, &mut acks);
            }
            None => {
                batch.slots[index as usize].finish();
                let error = "cut off when the worker's drain time was over".to_owned();
                let verdict = Verdict::Release {
                    delay: Duration::ZERO,
                    error,
                };
                let attempt = ctx.attempt();
                self.settle(&batch, index, verdict, Body::Event(ctx), attempt);
            }
        }
        drop(permit);
    }

    /// Waits for a renewal of a lease that has run out: a failure is reported as this worker's only if it is.
    async fn until_it_is_known_whose(&self, batch: &Batch) {
        while batch.is_lapsed() {
            let renewed = self.shared.held.renewed.notified();
            self.shared.renew_now.notify_one();
            tokio::select! {
                () = renewed => {}
                () = self.give_up.cancelled() => return,
                () = self.shared.abandon.cancelled() => return,
            }
        }
    }

    /// A handler has come to its end.
    #[allow(clippy::too_many_arguments)]
    fn finish(
        &self,
        batch: &Arc<Batch>,
        index: u32,
        ctx: &Context,
        bound: &Bound,
        result: Result<(), Failure>,
        started: Option<Instant>,
        acks: &mut Vec<u32>,
    ) {
        let taken = self
            .commits
            .take(batch, index, ctx, &bound.policy, result, started);
        let Some(result) = taken else { return };
        let verdict = match &result {
            Ok(()) => Verdict::Ack,
            Err(failure) => verdict::of_end(failure, ctx, &bound.policy),
        };
        let owner = batch.slots[index as usize].finish();
        Self::report(&self.shared, batch, ctx, &verdict, owner, started);
        match verdict {
            Verdict::Ack => {
                batch.slots[index as usize].succeeded(memory::mark(ctx.envelope()));
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

    /// Says what has become of an entry that was handled.
    pub(super) fn report(
        shared: &Shared,
        batch: &Batch,
        ctx: &Context,
        verdict: &Verdict,
        owner: Owner,
        started: Option<Instant>,
    ) {
        if !matches!(verdict, Verdict::Ack) || tracing::enabled!(tracing::Level::DEBUG) {
            let envelope = ctx.envelope();
            let (entry, event_type) = (envelope.entry_id(), envelope.event_type());
            log(verdict, owner, entry, event_type, ctx.attempt());
        }
        if let Some(observer) = &shared.observer {
            let outcome = match verdict {
                Verdict::Ack => Outcome::Succeeded,
                Verdict::Retry { .. } => Outcome::Retried,
                Verdict::Release { .. } => Outcome::Released,
                Verdict::Bury { .. } => Outcome::Buried,
            };
            let (started, lost) = (
                started.unwrap_or_else(Instant::now),
                owner == Owner::Another,
            );
            let queued = started.saturating_duration_since(batch.since);
            observer.settled(&Settled {
                context: ctx,
                outcome,
                lost,
                queued,
                ran: started.elapsed(),
            });
        }
    }

    fn observe_start(&self, ctx: &Context) -> Option<Instant> {
        let observer = self.shared.observer.as_ref()?;
        observer.started(ctx);
        Some(Instant::now())
    }

    fn acknowledge(&self, batch: &Arc<Batch>, acks: &mut Vec<u32>) {
        if !acks.is_empty() {
            self.shared.succeeded(acks.len());
            let (batch, slots) = (batch.clone(), std::mem::take(acks));
            // The acker outlives every handler; if it is gone, the worker is ending with an error.
            let _ = self.acks.send(Acks { batch, slots });
        }
    }

    fn settle(&self, batch: &Arc<Batch>, index: u32, verdict: Verdict, body: Body, attempt: u32) {
        let settlement = Settlement {
            batch: batch.clone(),
            index,
            verdict,
            body,
            attempt,
        };
        if let Some(settlement) = self.commits.unless_committed(settlement) {
            let _ = self.settle.send(settlement);
        }
    }
}

/// Says what became of an entry; of a success only to those who listen closely.
fn log(verdict: &Verdict, owner: Owner, entry: EntryId, event_type: &str, attempt: u32) {
    match verdict {
        Verdict::Ack => tracing::debug!(%entry, event_type, attempt, "handled"),
        _ if owner == Owner::Another => {
            tracing::warn!(%entry, event_type, attempt, "failed, but another worker has taken it over");
        }
        Verdict::Retry { delay, error } => {
            let retry_in =
                humantime::format_duration(Duration::from_millis(delay.as_millis() as u64));
            tracing::warn!(%entry, event_type, attempt, %retry_in, "failed: {error}");
        }
        Verdict::Release { delay, error } => {
            tracing::info!(%entry, event_type, attempt, ?delay, "given back: {error}");
        }
        Verdict::Bury { reason, error } => {
            tracing::error!(%entry, event_type, attempt, reason = reason.as_str(), "to the dead letters: {error}");
        }
    }
}

/// Handlers that run, by the slots they took.
pub(super) fn running(slots: &Semaphore, concurrency: usize) -> usize {
    concurrency.saturating_sub(slots.available_permits())
}

fn flatten(result: std::thread::Result<Result<(), Failure>>) -> Result<(), Failure> {
    result.unwrap_or_else(|panic| Err(panicked(panic)))
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Failure {
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "of a value that is no text".to_owned());
    Failure::retry(format!("the handler panicked: {message}"))
}
