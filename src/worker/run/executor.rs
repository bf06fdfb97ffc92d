//! The executor: takes entries in runs, one lane a core, and starts their handlers, as many at once as `concurrency` and
//! the handlers' own limits allow. What becomes of a handler that has been started is in [`super::attempt`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::task::TaskTracker;

use super::attempt::Attempt;
use super::commit_handle::CommitHandle;
use super::concurrency::{ConcurrencyLimit, Entered, Waiting};
use super::dispatch::Arrivals;
use super::outcome::Acks;
use super::outcome::Body;
use super::outcome::Settlement;
use super::queue::Receiver;
use super::report::{log, settled, unstarted};
use super::routes::{Admission, Bound};
use super::verdict::Verdict;
use super::work::Item;
use super::work::Run;
use crate::context::Context;
use crate::middleware::kept_its_thread;
use crate::policy::Why;
use crate::worker::state::about::About;
use crate::worker::state::inflight::{Batch, Owner};
use crate::worker::state::recent_acks;
use crate::worker::state::shared::Shared;

/// What is held back waits in Redis until its handler is free for it. If it has been forgotten there it comes back after
/// this, once.
const HELD_BACK: Duration = Duration::from_secs(15 * 60);
const UNSTARTED: &str = "given back unstarted by a worker that stopped";
/// Starts handlers. Lives on the caller's runtime, apart from everything that speaks to Redis.
pub(crate) struct Executor {
    pub shared: Arc<Shared>,
    acks: mpsc::UnboundedSender<Acks>,
    settle: mpsc::UnboundedSender<Settlement>,
    pub commit_handle: CommitHandle,
    pub tasks: TaskTracker,
}

impl Executor {
    pub fn new(
        shared: Arc<Shared>,
        acks: mpsc::UnboundedSender<Acks>,
        settle: mpsc::UnboundedSender<Settlement>,
        commit_handle: CommitHandle,
    ) -> Self {
        Executor {
            shared,
            acks,
            settle,
            commit_handle,
            tasks: TaskTracker::new(),
        }
    }

    /// Works until no more entries come; then waits for the handlers that are still running.
    pub async fn work(self: Arc<Self>, arrivals: Arrivals) {
        let Arrivals {
            lanes: runs,
            quarantine: suspects,
        } = arrivals;
        // If the caller's runtime ends, nothing is handled elsewhere either.
        let _inline = self.shared.inline.open();
        let lanes = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(self.shared.slots.all());
        for _ in 0..lanes {
            self.tasks.spawn(self.clone().lane(runs.clone()));
        }
        self.tasks.spawn(self.clone().quarantine(suspects));
        let turnstiles = self.shared.routes.all().iter();
        if turnstiles
            .filter_map(|bound| bound.concurrency_limit.as_ref())
            .next()
            .is_some()
        {
            tokio::spawn(self.clone().give_back_what_waits());
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Takes runs one after the other and starts their handlers.
    async fn lane(self: Arc<Self>, runs: Receiver<Run>) {
        // A lane keeps its permit from one handler to the next; only one that waits takes it along.
        let mut permit = None;
        loop {
            let run = match runs.try_recv() {
                Some(run) => run,
                None => {
                    // Whoever waits here must not look as if it ran a handler.
                    permit = None;
                    match runs.recv().await {
                        Some(run) => run,
                        None => return,
                    }
                }
            };
            self.run(run, &mut permit, &runs).await;
            self.shared.inline.came_back();
        }
    }

    /// Handles a run on the calling thread, which is not one of the runtime's. Answers what is to be acknowledged, and
    /// what has to wait, which is a lane's to do.
    pub fn run_inline(self: &Arc<Self>, run: Run) -> (Option<Acks>, Option<Run>) {
        let Run { batch, items } = run;
        let mut permit = None;
        let mut slots = Vec::with_capacity(items.len());
        let mut items = items.into_iter();
        let mut rest = None;
        let mut kept = Kept::default();
        while let Some(item) = items.next() {
            let now = batch.now();
            kept.until(now);
            if !self.may_start_at(&batch, &mut permit, now) {
                let items = std::iter::once(item).chain(items).collect();
                let batch = batch.clone();
                rest = Some(Run { batch, items });
                break;
            }
            kept.since(now, self.start(&batch, item, &mut permit, &mut slots));
        }
        kept.until(batch.now());
        self.shared.inflight.succeed(slots.len());
        let acks = (!slots.is_empty()).then_some(Acks { batch, slots });
        (acks, rest)
    }

    async fn run(
        self: &Arc<Self>,
        run: Run,
        permit: &mut Option<OwnedSemaphorePermit>,
        runs: &Receiver<Run>,
    ) {
        let Run { batch, items } = run;
        let mut acks = Vec::with_capacity(items.len());
        let (mut items, mut kept) = (items.into_iter(), Kept::default());
        while let Some(item) = items.next() {
            let mut now = batch.now();
            kept.until(now);
            // All that may wait happens before the entry starts, and not while acknowledgements are kept back.
            while !self.may_start_at(&batch, permit, now) {
                self.acknowledge(&batch, &mut acks);
                self.until_it_may_start(&batch, permit).await;
                if !batch.first && self.gives_way(runs, permit).await {
                    let items = std::iter::once(item).chain(items).collect();
                    self.shared.inline.left();
                    runs.put_back(Run { batch, items });
                    return;
                }
                now = batch.now();
            }
            kept.since(now, self.start(&batch, item, permit, &mut acks));
        }
        kept.until(batch.now());
        self.acknowledge(&batch, &mut acks);
    }

    /// Whether the next entry may start at once (a stopping worker "starts" them all, to give them back).
    fn may_start(&self, batch: &Batch, permit: &mut Option<OwnedSemaphorePermit>) -> bool {
        self.may_start_at(batch, permit, batch.now())
    }

    fn may_start_at(
        &self,
        batch: &Batch,
        permit: &mut Option<OwnedSemaphorePermit>,
        now: u64,
    ) -> bool {
        if self.shared.signals.is_stopping() {
            return true;
        }
        if !self.shared.quarantine.is_open() || batch.is_lapsed_at(now) {
            return false;
        }
        if permit.is_some() {
            return true;
        }
        // The slot first, and then the gate once more: it may have been closed, and the slots counted, in between.
        *permit = self.shared.slots.try_take();
        permit.is_some() && self.shared.quarantine.lets_in()
    }

    /// Waits for the quarantine to open, a renewal of a lease that has run out, and a free slot.
    async fn until_it_may_start(&self, batch: &Batch, permit: &mut Option<OwnedSemaphorePermit>) {
        let free = async {
            if !self.shared.quarantine.is_open() {
                *permit = None;
                self.shared.quarantine.pass().await;
            }
            while batch.is_lapsed() {
                let renewed = self.shared.inflight.renewal();
                self.shared.signals.renew_soon();
                renewed.await;
            }
            if permit.is_none() {
                *permit = self.shared.slots.take().await;
            }
        };
        tokio::select! {
            () = free => {}
            () = self.shared.signals.stopped() => {}
        }
    }

    /// Whether what a lane has must wait for what comes first, now that there is a slot. Where that is still to be taken
    /// over, the slot is left to it.
    async fn gives_way(
        &self,
        runs: &Receiver<Run>,
        permit: &mut Option<OwnedSemaphorePermit>,
    ) -> bool {
        let precedence = &self.shared.precedence;
        if self.shared.signals.is_stopping() || !runs.gives_way(precedence.is_wanted()) {
            return false;
        }
        if !runs.holds_first() {
            *permit = None;
            tokio::select! {
                () = precedence.offer(&self.shared.signals) => {}
                () = self.shared.signals.stopped() => {}
            }
        }
        runs.holds_first()
    }

    /// Where suspects run, one at a time, each as a task of its own.
    async fn quarantine(self: Arc<Self>, mut suspects: mpsc::UnboundedReceiver<Run>) {
        while let Some(run) = suspects.recv().await {
            let mut permit = self.shared.slots.try_take();
            let (mut acks, mut kept) = (Vec::new(), Kept::default());
            for item in run.items {
                let now = run.batch.now();
                kept.since(now, self.start(&run.batch, item, &mut permit, &mut acks));
                kept.until(run.batch.now());
            }
            self.acknowledge(&run.batch, &mut acks);
        }
    }

    /// One entry: decides whether it is to be handled, and starts its handler. Answers that where whoever calls is to look
    /// at how long it keeps the thread.
    fn start<'a>(
        self: &'a Arc<Self>,
        batch: &Arc<Batch>,
        item: Item,
        permit: &mut Option<OwnedSemaphorePermit>,
        acks: &mut Vec<u32>,
    ) -> Option<&'a Bound> {
        let slot = &batch.slots[item.index as usize];
        let index = item.index;
        batch.source.arrived();
        if self.shared.signals.is_stopping() || batch.source.pauses.stream() {
            self.give_back_raw(batch, item);
            return None;
        }
        if !slot.start() {
            // Taken over by another worker while it waited here.
            let verdict = Verdict::give_back(Duration::ZERO, "another worker has taken it over");
            unstarted(
                &self.shared,
                batch,
                &Body::Raw(item.entry),
                &verdict,
                Owner::Another,
            );
            self.shared.inflight.settle(batch, [slot]);
            return None;
        }
        match self
            .shared
            .routes
            .admit(&self.shared.recent_acks, batch, item)
        {
            Admission::Handle(bound, ctx) => {
                let is_last = self.enter(batch, index, bound, ctx, permit, acks);
                return is_last.then_some(bound);
            }
            Admission::Settle(Verdict::Ack, body, _) => {
                if let Body::Event(ctx) = &body {
                    slot.succeeded(recent_acks::mark(ctx.envelope()));
                }
                let owner = slot.finish();
                unstarted(&self.shared, batch, &body, &Verdict::Ack, owner);
                acks.push(index);
            }
            Admission::Settle(verdict, body, attempt) => {
                let owner = slot.finish();
                match &body {
                    Body::Event(ctx) => {
                        let about = About::of(ctx, &batch.source);
                        log(&verdict, owner, &about, ctx.attempt());
                    }
                    Body::Raw(entry) => {
                        let about = About::raw(entry, &batch.source);
                        log(&verdict, owner, &about, attempt);
                    }
                }
                unstarted(&self.shared, batch, &body, &verdict, owner);
                self.settle(batch, index, verdict, body, attempt);
            }
        }
        None
    }

    /// An entry that is to be handled comes to its handler's limits. Answers whether its handler is the last that was
    /// started here: others may have waited for its place.
    fn enter(
        self: &Arc<Self>,
        batch: &Arc<Batch>,
        index: u32,
        bound: &Bound,
        ctx: Context,
        permit: &mut Option<OwnedSemaphorePermit>,
        acks: &mut Vec<u32>,
    ) -> bool {
        let attempt = Attempt {
            batch,
            index,
            bound,
        };
        match &bound.concurrency_limit {
            None => {
                self.launch(attempt, ctx, permit, acks);
                true
            }
            Some(concurrency_limit) => {
                self.enter_limited(concurrency_limit, attempt, ctx, permit, acks)
            }
        }
    }

    /// The same where places are limited.
    #[inline(never)]
    fn enter_limited(
        self: &Arc<Self>,
        concurrency_limit: &ConcurrencyLimit,
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
        let waiting = Waiting {
            batch: batch.clone(),
            index,
            ctx,
        };
        match concurrency_limit.enter(waiting) {
            Entered::Runs(waiting) => {
                let ended = self.launch(attempt, waiting.ctx, permit, acks);
                !(ended && self.leave(bound, permit))
            }
            Entered::Waits => false,
            Entered::Full(waiting) => {
                self.hold_back(attempt, waiting.ctx, Why::Concurrency);
                false
            }
        }
    }

    /// Calls a handler that has waited for its place, and looks at how long it keeps the thread: others may be started
    /// behind it.
    fn launch_limited(
        self: &Arc<Self>,
        attempt: Attempt<'_>,
        ctx: Context,
        permit: &mut Option<OwnedSemaphorePermit>,
        acks: &mut Vec<u32>,
    ) -> bool {
        let mut kept = Kept::default();
        kept.since(attempt.batch.now(), Some(attempt.bound));
        let ended = self.launch(attempt, ctx, permit, acks);
        kept.until(attempt.batch.now());
        ended
    }

    /// A run of a handler with limited places has ended: the next entry that waits takes its place. Answers whether one
    /// waited.
    pub fn leave(
        self: &Arc<Self>,
        bound: &Bound,
        permit: &mut Option<OwnedSemaphorePermit>,
    ) -> bool {
        let mut any = false;
        let Some(concurrency_limit) = &bound.concurrency_limit else {
            return any;
        };
        while let Some(waiting) = concurrency_limit.leave() {
            any = true;
            let Waiting { batch, index, ctx } = waiting;
            if self.shared.signals.is_stopping() {
                self.give_back_unstarted(&batch, index, ctx);
                continue;
            }
            if !self.may_start(&batch, permit) {
                // It takes its place along, and has to wait for something else as well.
                let (executor, permit) = (self.clone(), permit.take());
                self.tasks
                    .spawn(executor.start_later(batch, index, ctx, permit));
                return any;
            }
            let attempt = Attempt {
                batch: &batch,
                index,
                bound,
            };
            let mut acks = Vec::new();
            let ended = self.launch_limited(attempt, ctx, permit, &mut acks);
            self.acknowledge(&batch, &mut acks);
            if !ended {
                return any;
            }
        }
        if self.shared.signals.has_released() {
            // There is a place for one that waits in Redis.
            self.shared.signals.replan();
        }
        any
    }

    async fn start_later(
        self: Arc<Self>,
        batch: Arc<Batch>,
        index: u32,
        ctx: Context,
        mut permit: Option<OwnedSemaphorePermit>,
    ) {
        let bound = self.shared.routes.of(ctx.envelope());
        while !self.may_start(&batch, &mut permit) {
            self.until_it_may_start(&batch, &mut permit).await;
        }
        if self.shared.signals.is_stopping() {
            self.give_back_unstarted(&batch, index, ctx);
            self.leave(bound, &mut permit);
            return;
        }
        let attempt = Attempt {
            batch: &batch,
            index,
            bound,
        };
        let mut acks = Vec::new();
        let ended = self.launch_limited(attempt, ctx, &mut permit, &mut acks);
        self.acknowledge(&batch, &mut acks);
        if ended {
            self.leave(bound, &mut permit);
        }
    }

    /// A worker that stops gives back at once what waits for its handler's limits.
    async fn give_back_what_waits(self: Arc<Self>) {
        self.shared.signals.stopped().await;
        for bound in self.shared.routes.all() {
            for waiting in bound
                .concurrency_limit
                .iter()
                .flat_map(|concurrency_limit| concurrency_limit.drain())
            {
                self.give_back_unstarted(&waiting.batch, waiting.index, waiting.ctx);
            }
        }
    }

    /// What comes while the worker stops, or its stream is paused.
    #[cold]
    fn give_back_raw(&self, batch: &Arc<Batch>, item: Item) {
        let owner = batch.slots[item.index as usize].finish();
        let why = if self.shared.signals.is_stopping() {
            UNSTARTED
        } else {
            "given back unstarted: the stream is paused"
        };
        let verdict = Verdict::give_back(Duration::ZERO, why);
        let body = Body::Raw(item.entry);
        unstarted(&self.shared, batch, &body, &verdict, owner);
        self.settle(batch, item.index, verdict, body, 0);
    }

    fn give_back_unstarted(&self, batch: &Arc<Batch>, index: u32, ctx: Context) {
        let owner = batch.slots[index as usize].finish();
        let verdict = Verdict::give_back(Duration::ZERO, UNSTARTED);
        let body = Body::Event(ctx);
        unstarted(&self.shared, batch, &body, &verdict, owner);
        self.settle(batch, index, verdict, body, 0);
    }

    /// An entry that its handler's limits let not through goes back to Redis, and uses up no attempt.
    #[cold]
    pub fn hold_back(&self, attempt: Attempt<'_>, ctx: Context, why: Why) {
        let Attempt { batch, index, .. } = attempt;
        self.shared.signals.released();
        let owner = batch.slots[index as usize].finish();
        let verdict = Verdict::Wait {
            delay: HELD_BACK,
            error: format!("held back: {why}"),
        };
        let number = ctx.attempt();
        let body = Body::Event(ctx);
        unstarted(&self.shared, batch, &body, &verdict, owner);
        self.settle(batch, index, verdict, body, number);
    }

    pub fn acknowledge(&self, batch: &Arc<Batch>, acks: &mut Vec<u32>) {
        if !acks.is_empty() {
            self.shared.inflight.succeed(acks.len());
            let (batch, slots) = (batch.clone(), std::mem::take(acks));
            self.hand_in(Acks { batch, slots });
        }
    }

    pub fn hand_in(&self, acks: Acks) {
        // The acker outlives every handler; if it is gone, the worker is ending with an error.
        let _ = self.acks.send(acks);
    }

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
        let _ = self.settle.send(settlement);
    }

    /// A handler that has started is dropped: it is settled by its commit, if that is on its way, or as this says.
    pub fn settle_cut_off(
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
            settled(&self.shared, batch, &ctx, verdict, owner, Some(started));
            let _ = self.settle.send(settlement);
        }
    }
}

/// For how long the handler that was started last keeps the thread. A clock that is read anyway tells it.
#[derive(Default)]
struct Kept<'a> {
    since: u64,
    by: Option<&'a Bound>,
}

impl<'a> Kept<'a> {
    /// A handler was started.
    fn since(&mut self, now: u64, by: Option<&'a Bound>) {
        (self.since, self.by) = (now, by);
    }

    /// It has let go of the thread.
    fn until(&mut self, now: u64) {
        let Some(bound) = self.by.take() else { return };
        let (kept, timeout) = (
            Duration::from_millis(now - self.since),
            bound.policy.timeout,
        );
        if kept > timeout {
            kept_its_thread(&bound.gate.name, kept, timeout);
        }
    }
}
