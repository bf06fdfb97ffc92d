//! Starts the handlers of entries, one after the other, within `worker.concurrency` and the handlers' own limits.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::attempt::{Attempt, Attempts, Done, Launched, Started};
use super::concurrency::{ConcurrencyLimit, Entered};
use super::outcome::Body;
use super::report::log;
use super::routes::{Admission, Bound, Routes};
use super::verdict::{self, Verdict};
use super::work::{Item, Member};
use crate::about::About;
use crate::context::Context;
use crate::metrics::entries::{HeldBy, Outcome};
use crate::middleware::kept_its_thread;
use crate::policy::Why;
use crate::worker::state::inflight::{Batch, Owner};
use crate::worker::state::quarantine::Quarantine;
use crate::worker::state::recent_acks::{self, RecentAcks};
use crate::worker::state::slots::{Permit, Slots};

/// What all that start handlers have in common.
pub(crate) struct Handlers {
    pub routes: Arc<Routes>,
    pub attempts: Attempts,
    pub recent_acks: Arc<RecentAcks>,
    pub quarantine: Arc<Quarantine>,
    pub slots: Arc<Slots>,
    /// Handlers that wait.
    pub tasks: TaskTracker,
    /// What collects entries for handlers that take many at once. Without it they take one.
    pub gatherer: Option<Box<dyn Gathers>>,
}

/// What collects entries for handlers that take many at once.
pub(crate) trait Gathers: Send + Sync {
    /// An entry comes that was admitted and is to be handled together with others. If it makes a batch whole that takes the
    /// slot along.
    fn join(
        &self,
        of: &Arc<Handlers>,
        bound: &Bound,
        member: Member,
        permit: &mut Option<Permit>,
    ) -> Joined;
}

/// What becomes of an entry of a batch handler.
pub(crate) enum Joined {
    /// It is collected, or goes back.
    Yes,
    /// It is handled alone: it has no key.
    Alone(Member),
}

/// Starts handlers, one after the other.
pub(super) struct Starter<'a> {
    of: &'a Arc<Handlers>,
    /// Kept from one handler to the next; only one that waits takes it along.
    permit: Option<Permit>,
    /// What has succeeded of the batch at hand, and was not handed over yet.
    acks: Vec<u32>,
    kept: Kept<'a>,
}

impl<'a> Starter<'a> {
    pub fn new(of: &'a Arc<Handlers>) -> Self {
        Starter::with(of, None)
    }

    pub fn with(of: &'a Arc<Handlers>, permit: Option<Permit>) -> Self {
        Starter {
            of,
            permit,
            acks: Vec::new(),
            kept: Kept::default(),
        }
    }

    /// So many entries of one batch come.
    pub fn expect(&mut self, entries: usize) {
        self.acks.reserve_exact(entries);
    }

    /// What has succeeded since this was asked last.
    pub fn take_acks(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.acks)
    }

    /// Hands over what has succeeded of a batch.
    pub fn acknowledge(&mut self, batch: &Arc<Batch>) {
        let slots = self.take_acks();
        self.of.attempts.outcomes.acknowledge(batch, slots);
    }

    /// The slot is for others: whoever waits must not look as if it ran a handler.
    pub fn leave_slot(&mut self) {
        self.permit = None;
    }

    /// Takes a slot if one is free, whatever else is in the way.
    pub fn try_slot(&mut self) {
        self.permit = self.of.slots.try_take();
    }

    /// The handler that was started last has let go of the thread by now.
    #[inline]
    pub fn let_go(&mut self, batch: &Batch, now: u64) {
        let Some((bound, index)) = self.kept.let_go() else {
            return;
        };
        // Of one that did not end there and then others tell.
        if let Some(times) = &batch.times
            && self.acks.last() == Some(&index)
        {
            times.ended(index, now);
        }
        self.kept.complain(bound, now);
    }

    /// Whether the next entry may start at once (a stopping worker "starts" them all, to release them).
    #[inline]
    pub fn may_start(&mut self, batch: &Batch, now: u64) -> bool {
        let of = self.of;
        if of.attempts.signals.is_stopping() {
            return true;
        }
        if !of.quarantine.is_open() || batch.is_lapsed_at(now) {
            return false;
        }
        if self.permit.is_some() {
            return true;
        }
        // The slot first, and then the gate once more: it may have been closed, and the slots counted, in between.
        self.permit = of.slots.try_take();
        self.permit.is_some() && of.quarantine.lets_in()
    }

    /// Waits for the quarantine to open, a renewal of a lease that has run out, and a free slot.
    pub async fn until_it_may_start(&mut self, batch: &Batch) {
        let Handlers {
            quarantine,
            attempts,
            slots,
            ..
        } = &**self.of;
        let permit = &mut self.permit;
        let free = async {
            if !quarantine.is_open() {
                *permit = None;
                quarantine.pass().await;
            }
            while batch.is_lapsed() {
                let renewed = attempts.inflight.renewal();
                attempts.signals.renew_soon();
                renewed.await;
            }
            if permit.is_none() {
                *permit = slots.take().await;
            }
        };
        tokio::select! {
            () = free => {}
            () = attempts.signals.stopped() => {}
        }
    }

    /// Waits until all of these may start together. Returns whether they may: not if the worker stops.
    pub async fn until_all_may_start(&mut self, members: &[Member]) -> bool {
        while let Some(first) = members.first() {
            let now = first.batch.now();
            let mut all = members.iter().map(|member| &member.batch);
            let batch = all
                .find(|batch| batch.is_lapsed_at(now))
                .unwrap_or(&first.batch);
            let may_start = self.may_start(batch, now);
            if self.of.attempts.signals.is_stopping() {
                return false;
            }
            if may_start {
                break;
            }
            self.until_it_may_start(batch).await;
        }
        true
    }

    /// Waits for a slot, whatever else is in the way.
    pub async fn until_slot(&mut self) {
        if self.permit.is_none() {
            self.permit = self.of.slots.take().await;
        }
    }

    /// One entry: decides whether it is to be handled, and starts its handler. It is `now` by the batch's clock.
    #[inline]
    pub fn start(&mut self, batch: &Arc<Batch>, item: Item, now: u64) {
        let index = item.index;
        let by = self.start_one(batch, item, now);
        self.kept.since(now, by, index);
    }

    /// Returns the handler if it is to be looked at how long it keeps the thread.
    fn start_one(&mut self, batch: &Arc<Batch>, item: Item, now: u64) -> Option<&'a Bound> {
        let of: &'a Handlers = self.of;
        let slot = &batch.slots[item.index as usize];
        let index = item.index;
        batch.source.arrived();
        let is_held_up = batch.source.pauses.stream_or_entries();
        if of.attempts.signals.is_stopping() || is_held_up && batch.source.pauses.stream() {
            of.release_raw(batch, item);
            return None;
        }
        if !slot.start() {
            // Taken over by another worker while it waited here.
            let verdict = Verdict::release(Duration::ZERO, "another worker has taken it over");
            let body = Body::Raw(item.entry);
            of.attempts
                .reporter
                .unstarted(batch, index, &body, &verdict, Owner::Another);
            of.attempts.inflight.settle(batch, [index], Outcome::Lost);
            return None;
        }
        if is_held_up && batch.source.cancels(slot.id) {
            let body = Body::Raw(item.entry);
            of.attempts.settle_cancelled(batch, index, body, slot.count);
            return None;
        }
        match of.routes.admit(&of.recent_acks, batch, item) {
            Admission::Handle(bound, ctx) => {
                let is_last = self.enter(batch, index, bound, ctx, now);
                return is_last.then_some(bound);
            }
            Admission::Settle(Verdict::Ack, body, _) => {
                if let Body::Event(ctx) = &body {
                    slot.succeeded(recent_acks::mark(ctx.envelope()));
                }
                let owner = slot.finish();
                let reporter = &of.attempts.reporter;
                reporter.unstarted(batch, index, &body, &Verdict::Ack, owner);
                self.acks.push(index);
            }
            Admission::Settle(verdict, body, attempt) => {
                let owner = slot.finish();
                match &body {
                    Body::Event(ctx) => {
                        let about = About::of(ctx, &batch.source.keys.stream);
                        log(&verdict, owner, &about);
                    }
                    Body::Raw(entry) => {
                        let about = About::raw(entry, &batch.source.keys.stream, attempt);
                        log(&verdict, owner, &about);
                    }
                }
                let reporter = &of.attempts.reporter;
                reporter.unstarted(batch, index, &body, &verdict, owner);
                of.attempts.settle(batch, index, verdict, body, attempt);
            }
        }
        None
    }

    /// An entry that is to be handled comes to its handler's limits. Returns whether its handler is the last that was
    /// started here: others may have waited for its place.
    fn enter(
        &mut self,
        batch: &Arc<Batch>,
        index: u32,
        bound: &'a Bound,
        ctx: Context,
        now: u64,
    ) -> bool {
        let attempt = Attempt {
            batch,
            index,
            bound,
            since: now,
        };
        // What runs alone is in nobody's way, and of a batch the slot is another one.
        if !batch.alone && !self.of.routes.sharing.admits(bound.place) && bound.batch.is_none() {
            self.of.attempts.release_at_limit(attempt, ctx, Why::Share);
            return false;
        }
        if bound.batch.is_some() {
            self.gather(attempt, ctx);
            return false;
        }
        let limit = &bound.concurrency_limit;
        if limit.is_on() {
            return self.enter_limited(limit, attempt, ctx);
        }
        if let Some(Done::Succeeded) = self.launch(attempt, ctx) {
            self.acks.push(index);
        }
        true
    }

    /// The same if its handler takes many entries at once. One that may have killed its worker it takes alone.
    #[inline(never)]
    fn gather(&mut self, attempt: Attempt<'_>, ctx: Context) {
        let Attempt {
            batch,
            index,
            bound,
            ..
        } = attempt;
        let gatherer = self.of.gatherer.as_ref().filter(|_| !batch.alone);
        let ctx = match gatherer {
            None => ctx,
            Some(gatherer) => {
                let batch = batch.clone();
                let member = Member { batch, index, ctx };
                match gatherer.join(self.of, bound, member, &mut self.permit) {
                    Joined::Yes => return,
                    Joined::Alone(Member { ctx, .. }) => ctx,
                }
            }
        };
        if let Some(Done::Succeeded) = self.launch(attempt, ctx) {
            self.acks.push(index);
        }
    }

    /// The same where places are limited.
    #[inline(never)]
    fn enter_limited(
        &mut self,
        limit: &ConcurrencyLimit,
        attempt: Attempt<'_>,
        ctx: Context,
    ) -> bool {
        let Attempt {
            batch,
            index,
            bound,
            ..
        } = attempt;
        batch.slots[index as usize].takes_a_place();
        let waiting = Member {
            batch: batch.clone(),
            index,
            ctx,
        };
        match limit.enter(waiting) {
            Entered::Runs(waiting) => {
                let done = self.launch(attempt, waiting.ctx);
                if done == Some(Done::Succeeded) {
                    self.acks.push(index);
                }
                !(done.is_some() && self.leave(bound, Some(attempt)))
            }
            Entered::Waits => false,
            Entered::Full(waiting) => {
                let attempts = &self.of.attempts;
                attempts.release_at_limit(attempt, waiting.ctx, Why::Concurrency);
                false
            }
        }
    }

    /// Calls a handler. One that waits becomes a task, which takes the slot along; nothing is returned of that.
    fn launch(&mut self, attempt: Attempt<'_>, ctx: Context) -> Option<Done> {
        let of = self.of;
        match of.attempts.launch(attempt, ctx, &of.routes.classifiers) {
            Launched::Done(done) => Some(done),
            Launched::Waiting(started) => {
                let (batch, permit) = (attempt.batch.clone(), self.permit.take());
                of.routes.sharing.begins(attempt.bound.place);
                let task = wait(of.clone(), batch, attempt.index, started, permit);
                of.tasks.spawn(task);
                None
            }
        }
    }

    /// Calls a handler that has waited for its place, and looks at how long it keeps the thread: others may be started
    /// behind it. Returns whether it is over.
    fn launch_limited(&mut self, attempt: Attempt<'_>, ctx: Context) -> bool {
        let Attempt {
            batch,
            index,
            bound,
            since,
        } = attempt;
        let mut kept = Kept::default();
        kept.since(since, Some(bound), index);
        let done = self.launch(attempt, ctx);
        let now = batch.now();
        kept.complain(bound, now);
        if done == Some(Done::Succeeded) {
            attempt.ended(now);
            self.of.attempts.outcomes.acknowledge(batch, vec![index]);
        }
        done.is_some()
    }

    /// A run of a handler with limited places has ended: the next entry that waits takes its place. Returns whether one
    /// waited. If the run that has ended was started here just now, for how long it ran is not known yet.
    fn leave(&mut self, bound: &Bound, mut ended: Option<Attempt<'_>>) -> bool {
        let of = self.of;
        let mut any = false;
        let limit = &bound.concurrency_limit;
        while let Some(waiting) = limit.leave() {
            any = true;
            let now = waiting.batch.now();
            if let Some(attempt) = ended.take()
                && self.acks.last() == Some(&attempt.index)
            {
                attempt.ended(now);
            }
            if of.attempts.signals.is_stopping() {
                of.release_unstarted(waiting);
                continue;
            }
            if !self.may_start(&waiting.batch, now) {
                // It takes its place along, and has to wait for something else as well.
                let task = start_later(of.clone(), waiting, self.permit.take());
                of.tasks.spawn(task);
                return any;
            }
            let Member { batch, index, ctx } = waiting;
            let attempt = Attempt {
                batch: &batch,
                index,
                bound,
                since: now,
            };
            if !self.launch_limited(attempt, ctx) {
                return any;
            }
        }
        if of.attempts.signals.has_released() {
            // There is a place for one that waits in Redis.
            of.attempts.signals.replan_all();
        }
        any
    }
}

/// A handler that waits, until it is over.
async fn wait(
    of: Arc<Handlers>,
    batch: Arc<Batch>,
    index: u32,
    started: Started,
    permit: Option<Permit>,
) {
    let bound = of.routes.of(started.ctx.envelope());
    let attempt = Attempt {
        batch: &batch,
        index,
        bound,
        since: 0,
    };
    let waiting = of
        .attempts
        .wait(attempt, started, &of.routes.classifiers)
        .await;
    if waiting == Done::Succeeded {
        of.attempts.outcomes.acknowledge(&batch, vec![index]);
    }
    if batch.slots[index as usize].has_a_place() {
        Starter::with(&of, permit).leave(bound, None);
    } else {
        drop(permit);
    }
    if of.routes.sharing.ends(bound.place) && of.attempts.signals.has_released() {
        // There is a slot for one that waits in Redis.
        of.attempts.signals.replan_all();
    }
}

/// An entry that has its place and waits for something else.
async fn start_later(of: Arc<Handlers>, waiting: Member, permit: Option<Permit>) {
    let bound = of.routes.of(waiting.ctx.envelope());
    let mut starter = Starter::with(&of, permit);
    while !starter.may_start(&waiting.batch, waiting.batch.now()) {
        starter.until_it_may_start(&waiting.batch).await;
    }
    if of.attempts.signals.is_stopping() {
        of.release_unstarted(waiting);
        starter.leave(bound, None);
        return;
    }
    let Member { batch, index, ctx } = waiting;
    let attempt = Attempt {
        batch: &batch,
        index,
        bound,
        since: batch.now(),
    };
    if starter.launch_limited(attempt, ctx) {
        starter.leave(bound, None);
    }
}

impl Handlers {
    /// A worker that stops releases at once what waits for its handler's limits.
    pub fn release_what_waits(&self) {
        let limits = self.routes.all().iter();
        limits
            .flat_map(|bound| bound.concurrency_limit.drain())
            .for_each(|waiting| self.release_unstarted(waiting));
    }

    /// There are more places than there were: what waits has them.
    pub fn start_what_waits(self: &Arc<Self>) {
        for bound in self.routes.all() {
            while let Some(waiting) = bound.concurrency_limit.next() {
                self.tasks.spawn(start_later(self.clone(), waiting, None));
            }
            for waiting in bound.concurrency_limit.give_back() {
                self.release_at_limit(bound, waiting, Why::Concurrency);
            }
        }
        self.attempts.signals.replan_all();
    }

    /// It goes back to Redis until its handler may run.
    pub fn release_at_limit(&self, bound: &Bound, member: Member, why: Why) {
        let Member { batch, index, ctx } = member;
        let attempt = Attempt {
            batch: &batch,
            index,
            bound,
            since: 0,
        };
        self.attempts.release_at_limit(attempt, ctx, why);
    }

    fn release_unstarted(&self, waiting: Member) {
        let Member { batch, index, ctx } = waiting;
        self.release(&batch, index, Body::Event(ctx), verdict::STOPPED);
    }

    /// What comes while the worker stops, or its stream is paused.
    #[cold]
    fn release_raw(&self, batch: &Arc<Batch>, item: Item) {
        let why = if self.attempts.signals.is_stopping() {
            verdict::STOPPED
        } else {
            if let Some(counts) = &batch.source.counts {
                let place = self.routes.place_of(&item.entry.fields);
                counts.held_back(place.unwrap_or(counts.other()), HeldBy::Pause);
            }
            verdict::STREAM_PAUSED
        };
        self.release(batch, item.index, Body::Raw(item.entry), why);
    }

    fn release(&self, batch: &Arc<Batch>, index: u32, body: Body, why: &str) {
        let owner = batch.slots[index as usize].finish();
        let verdict = Verdict::release(Duration::ZERO, why);
        let reporter = &self.attempts.reporter;
        reporter.unstarted(batch, index, &body, &verdict, owner);
        self.attempts.settle(batch, index, verdict, body, 0);
    }
}

/// For how long the handler that was started last keeps the thread. A clock that is read anyway tells it.
#[derive(Default)]
struct Kept<'a> {
    since: u64,
    by: Option<&'a Bound>,
    index: u32,
}

impl<'a> Kept<'a> {
    /// A handler was started for the entry at this place of its batch.
    fn since(&mut self, now: u64, by: Option<&'a Bound>, index: u32) {
        (self.since, self.by, self.index) = (now, by, index);
    }

    /// It has let go of the thread: which one, if there was one.
    fn let_go(&mut self) -> Option<(&'a Bound, u32)> {
        Some((self.by.take()?, self.index))
    }

    /// It has kept it until now.
    fn complain(&self, bound: &Bound, now: u64) {
        let (kept, timeout) = (
            Duration::from_nanos(now.saturating_sub(self.since)),
            bound.policy.timeout,
        );
        if kept > timeout {
            kept_its_thread(&bound.gate.name, kept, timeout);
        }
    }
}
