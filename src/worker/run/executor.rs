//! The executor: takes entries in runs, one lane a core, and has their handlers started, as many at once as `concurrency`
//! allows. How one is started is in [`super::starter`], what becomes of it in [`super::attempt`].

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::attempt::Attempts;
use super::dispatch::Arrivals;
use super::outcome::Acks;
use super::queue::Receiver;
use super::routes::Routes;
use super::starter::{Gathers, Handlers, Starter};
use super::work::Run;
use crate::worker::state::capacity::Capacity;
use crate::worker::state::inline::Inline;
use crate::worker::state::precedence::Precedence;
use crate::worker::state::recent_acks::RecentAcks;

/// Starts handlers. Lives on the caller's runtime, apart from everything that speaks to Redis.
pub(crate) struct Executor {
    handlers: Arc<Handlers>,
    inline: Arc<Inline>,
    precedence: Arc<Precedence>,
}

/// What became of a run that was handled where it was read.
pub(crate) struct RunInline {
    /// To be handed in.
    pub acks: Option<Acks>,
    /// What has to wait, which is a lane's to do.
    pub rest: Option<Run>,
}

impl Executor {
    pub fn new(
        attempts: Attempts,
        routes: Arc<Routes>,
        recent_acks: Arc<RecentAcks>,
        capacity: Capacity,
        gatherer: Option<Box<dyn Gathers>>,
    ) -> Self {
        let Capacity {
            slots,
            quarantine,
            precedence,
            inline,
            held: _,
        } = capacity;
        routes.sharing.of(&slots);
        let gatherer = gatherer.filter(|_| routes.has_batches());
        if gatherer.is_some() {
            slots.batch();
        }
        Executor {
            handlers: Arc::new(Handlers {
                routes,
                attempts,
                recent_acks,
                quarantine,
                slots,
                tasks: TaskTracker::new(),
                gatherer,
            }),
            inline,
            precedence,
        }
    }

    /// Works until no more entries come; then waits for the handlers that are still running.
    pub async fn work(self: Arc<Self>, arrivals: Arrivals) {
        let Arrivals {
            lanes: runs,
            quarantine: suspects,
        } = arrivals;
        // If the caller's runtime ends, nothing is handled elsewhere either.
        let shared = self.handlers.slots.is_shared();
        // Entries of several shards go to lanes: which of them is read next is not for one of their handlers to say.
        let _inline = (!shared).then(|| self.inline.open());
        let Handlers { slots, tasks, .. } = &*self.handlers;
        let lanes = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(slots.all());
        for _ in 0..lanes {
            tasks.spawn(self.clone().lane(runs.clone()));
        }
        tasks.spawn(quarantine(self.handlers.clone(), suspects));
        tasks.close();
        // It ends with this: what handlers leave by would else stay open as long as the worker lives.
        let follow = async {
            let handlers = &self.handlers;
            let signals = &handlers.attempts.signals;
            loop {
                tokio::select! {
                    biased;
                    () = signals.stopped() => break,
                    () = handlers.routes.limits.changed() => handlers.start_what_waits(),
                }
            }
            handlers.release_what_waits();
        };
        let seek = async {
            let handlers = &self.handlers;
            match shared {
                true => {
                    self.precedence
                        .seek(&handlers.slots, &handlers.attempts.signals)
                        .await
                }
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tasks.wait() => {}
            _ = async { tokio::join!(seek, follow) } => tasks.wait().await,
        }
    }

    /// Takes runs one after the other and starts their handlers.
    async fn lane(self: Arc<Self>, runs: Receiver<Run>) {
        let mut starter = Starter::new(&self.handlers);
        loop {
            let run = match runs.try_recv() {
                Some(run) => run,
                None => {
                    starter.leave_slot();
                    match runs.recv().await {
                        Some(run) => run,
                        None => return,
                    }
                }
            };
            self.run(run, &mut starter, &runs).await;
            self.inline.came_back();
            if self.handlers.slots.is_wanted() {
                starter.leave_slot();
            }
        }
    }

    /// Handles a run on the calling thread, which is not one of the runtime's.
    pub fn run_inline(&self, run: Run) -> RunInline {
        let Run { batch, items } = run;
        let mut starter = Starter::new(&self.handlers);
        starter.expect(items.len());
        let mut items = items.into_iter();
        let mut rest = None;
        while let Some(item) = items.next() {
            let now = batch.now();
            starter.let_go(&batch, now);
            if !starter.may_start(&batch, now) {
                let items = std::iter::once(item).chain(items).collect();
                let batch = batch.clone();
                rest = Some(Run { batch, items });
                break;
            }
            starter.start(&batch, item, now);
        }
        starter.let_go(&batch, batch.now());
        let slots = starter.take_acks();
        let outcomes = &self.handlers.attempts.outcomes;
        let acks = (!slots.is_empty()).then(|| outcomes.succeeded(Acks::of(batch, slots)));
        RunInline { acks, rest }
    }

    /// Hands in what a run came to that was handled where it was read.
    pub fn hand_in(&self, acks: Acks) {
        self.handlers.attempts.outcomes.send(acks);
    }

    async fn run(&self, run: Run, starter: &mut Starter<'_>, runs: &Receiver<Run>) {
        let Run { batch, items } = run;
        starter.expect(items.len());
        let mut items = items.into_iter();
        while let Some(item) = items.next() {
            let mut now = batch.now();
            starter.let_go(&batch, now);
            // All that may wait happens before the entry starts, and not while acknowledgements are kept back.
            while !starter.may_start(&batch, now) {
                starter.acknowledge(&batch);
                starter.until_it_may_start(&batch).await;
                if !batch.first && self.gives_way(runs, starter).await {
                    let items = std::iter::once(item).chain(items).collect();
                    self.inline.left();
                    runs.put_back(Run { batch, items });
                    return;
                }
                now = batch.now();
            }
            starter.start(&batch, item, now);
        }
        starter.let_go(&batch, batch.now());
        starter.acknowledge(&batch);
    }

    /// Whether what a lane has must wait for what comes first, now that there is a slot. Where that is still to be taken
    /// over, the slot is left to it.
    async fn gives_way(&self, runs: &Receiver<Run>, starter: &mut Starter<'_>) -> bool {
        let (precedence, signals) = (&self.precedence, &self.handlers.attempts.signals);
        if signals.is_stopping() || !runs.gives_way(precedence.is_wanted()) {
            return false;
        }
        if !runs.holds_first() {
            starter.leave_slot();
            tokio::select! {
                () = precedence.offer(signals) => {}
                () = signals.stopped() => {}
            }
        }
        runs.holds_first()
    }
}

/// Where suspects run, one at a time, each as a task of its own.
async fn quarantine(handlers: Arc<Handlers>, mut suspects: mpsc::UnboundedReceiver<Run>) {
    while let Some(Run { batch, items }) = suspects.recv().await {
        let mut starter = Starter::new(&handlers);
        starter.try_slot();
        for item in items {
            starter.start(&batch, item, batch.now());
            starter.let_go(&batch, batch.now());
        }
        starter.acknowledge(&batch);
    }
}
