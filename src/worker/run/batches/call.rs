//! Calls of a batch handler. A batch that fails as a whole is halved, and its handler called with each half, in the order of
//! the entries, until what fails stands alone: so one entry among five hundred is found in at most 19 calls. Until then
//! no attempt is used up. An entry that stands alone is handled as any other.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::poll;
use tokio::sync::oneshot;

use super::release::release;
use super::too_much;
use crate::about::{About, tell};
use crate::context::notes::{Gone, Notes};
use crate::context::{Cancelled, Context};
use crate::failure::{Cause, Failure};
use crate::metrics::entries::Outcome;
use crate::outbox::{End, Items, Known};
use crate::policy::{Pass, Why};
use crate::worker::run::attempt::{Attempt, Done, Launched, how_it_failed};
use crate::worker::run::outcome::{BatchFate, Body, CommittingBatch, WhoseBatch};
use crate::worker::run::routes::Bound;
use crate::worker::run::spans;
use crate::worker::run::starter::{Handlers, Starter};
use crate::worker::run::verdict::{self, Verdict};
use crate::worker::run::work::Member;
use crate::worker::state::inflight::Owner;
use crate::worker::state::recent_acks;

/// Calls a handler with a batch and its parts.
pub(super) struct Calls<'a> {
    of: &'a Arc<Handlers>,
    bound: &'a Bound,
    starter: Starter<'a>,
}

/// What a call came to.
enum Called {
    /// All is on its way.
    Over,
    /// It failed as a whole.
    Failed(Vec<Member>),
    /// Nothing was done, and these are left: the handler decides again.
    Again(Vec<Member>),
}

/// How a handler ended.
enum Ended {
    /// By itself, or by its timeout or a panic.
    With(Result<(), Failure>),
    /// The worker gave it up.
    CutOff,
}

/// A call that is under way.
struct Call {
    members: Vec<Member>,
    ctx: Context,
    pass: Pass,
    at: Option<Instant>,
}

impl<'a> Calls<'a> {
    pub fn new(of: &'a Arc<Handlers>, bound: &'a Bound, starter: Starter<'a>) -> Self {
        Calls { of, bound, starter }
    }

    /// Has all of these handled, which may start now.
    pub async fn handle(mut self, members: Vec<Member>) {
        let (mut parts, mut is_first) = (vec![members], true);
        while let Some(part) = parts.pop() {
            if !std::mem::take(&mut is_first) && !self.starter.until_all_may_start(&part).await {
                self.release_all(part, verdict::STOPPED);
                continue;
            }
            let part = self.still_ours(part);
            if part.is_empty() {
                continue;
            }
            match self.call(part).await {
                Called::Over => {}
                Called::Again(rest) => parts.push(rest),
                Called::Failed(mut first) => {
                    let second = first.split_off(first.len().div_ceil(2));
                    parts.extend([second, first]);
                }
            }
        }
    }

    /// Lets go of those that another worker has taken over while they waited, or an operator has cancelled.
    fn still_ours(&self, members: Vec<Member>) -> Vec<Member> {
        let attempts = &self.of.attempts;
        let mut ours = Vec::with_capacity(members.len());
        for Member { batch, index, ctx } in members {
            let Some(ctx) = attempts.unless_it_is_over(&batch, index, ctx) else {
                attempts.inflight.leave_batch(1);
                continue;
            };
            let slot = &batch.slots[index as usize];
            let runs_again = slot.is_running() && slot.owner() != Owner::Another;
            if runs_again || slot.start() {
                ours.push(Member { batch, index, ctx });
                continue;
            }
            let why = "another worker has taken it over";
            let verdict = Verdict::release(Duration::ZERO, why);
            attempts
                .reporter
                .unstarted(&batch, index, &Body::Event(ctx), &verdict, Owner::Another);
            attempts.inflight.settle(&batch, [index], Outcome::Lost);
            attempts.inflight.leave_batch(1);
        }
        ours
    }

    async fn call(&mut self, members: Vec<Member>) -> Called {
        let bound = self.bound;
        let pauses = &members[0].batch.source.pauses;
        let passed = match pauses.handler(&bound.gate.name) {
            true => Err(Why::Paused),
            false => bound.gate.pass_call().map_err(|closed| closed.why),
        };
        let pass = match passed {
            Ok(pass) => pass,
            Err(why) => {
                for member in members {
                    self.of.attempts.inflight.leave_batch(1);
                    self.of.release_at_limit(bound, member, why);
                }
                return Called::Over;
            }
        };
        match <[Member; 1]>::try_from(members) {
            Ok([alone]) => {
                self.call_alone(alone, pass).await;
                Called::Over
            }
            Err(members) => self.call_together(members, pass).await,
        }
    }

    /// One that stands alone is handled as any other.
    async fn call_alone(&self, member: Member, pass: Pass) {
        let Member { batch, index, ctx } = member;
        let (attempts, classifiers) = (&self.of.attempts, &self.of.routes.classifiers);
        let attempt = Attempt {
            batch: &batch,
            index,
            bound: self.bound,
            since: batch.now(),
        };
        let done = match attempts.begin(attempt, ctx, pass, classifiers) {
            Launched::Done(done) => done,
            Launched::Waiting(started) => attempts.wait(attempt, started, classifiers).await,
        };
        if done == Done::Succeeded {
            attempt.ended(batch.now());
            attempts.outcomes.acknowledge(&batch, vec![index]);
        }
        attempts.inflight.leave_batch(1);
    }

    async fn call_together(&mut self, members: Vec<Member>, pass: Pass) -> Called {
        let all = members.iter().map(|member| member.ctx.clone());
        let ctx = Context::of_batch(all.collect());
        let at = self.begin(&members);
        let call = Call {
            members,
            ctx,
            pass,
            at,
        };
        let ended = self.run(&call).await;
        let now = call.members[0].batch.now();
        for Member { batch, index, .. } in &call.members {
            if let Some(times) = &batch.times {
                times.ended(*index, now);
            }
        }
        match ended {
            Ended::CutOff => {
                self.bound.gate.give_back(call.pass);
                self.cut_off(call).await
            }
            Ended::With(result) => self.ended(call, result).await,
        }
    }

    /// Says of each that its handler starts.
    fn begin(&self, members: &[Member]) -> Option<Instant> {
        let reporter = &self.of.attempts.reporter;
        let now = members[0].batch.now();
        let mut at = None;
        for Member { batch, index, ctx } in members {
            at = reporter.started(ctx).or(at);
            if let Some(spans) = &reporter.spans {
                spans.begin(batch, *index, ctx);
            }
            if let Some(times) = &batch.times {
                times.started(*index, now, self.bound.place);
            }
        }
        at
    }

    /// Runs the handler to its end.
    async fn run(&self, call: &Call) -> Ended {
        let signals = &self.of.attempts.signals;
        let mut future = self.bound.call(&call.ctx);
        if let Poll::Ready(result) = poll!(&mut future) {
            return Ended::With(result);
        }
        for Member { batch, index, ctx } in &call.members {
            ctx.waits(batch.now());
            batch.slots[*index as usize].running(ctx);
        }
        tokio::select! {
            biased;
            result = &mut future => return Ended::With(result),
            () = signals.stopped() => call.ctx.stops_for(Cancelled::Stopping),
        }
        tokio::select! {
            biased;
            result = future => Ended::With(result),
            () = signals.given_up() => Ended::CutOff,
        }
    }

    /// The handler has come to its end.
    async fn ended(&mut self, call: Call, mut result: Result<(), Failure>) -> Called {
        let (of, bound) = (self.of, self.bound);
        call.ctx.has_ended();
        if let Err(failure) = &mut result {
            of.routes.classifiers.apply(failure);
        }
        let is_stopping = call.ctx.cancellation() == Some(Cancelled::Stopping);
        match &result {
            Err(_) if is_stopping => bound.gate.give_back(call.pass),
            result => bound.gate.record(call.pass, result),
        }
        let (end, known) = end(&call.ctx);
        let items = match end {
            End::Items(items) => Ok(items),
            End::Settled => Err(Known::Settled),
            End::Lost => Err(Known::Lost),
            // It has ended while its commit is on its way.
            End::Waits => Err(known.await.unwrap_or(Known::Lost)),
        };
        let Some(members) = call.ctx.members() else {
            return Called::Over;
        };
        let notes = members.take_notes();
        match (items, result) {
            (Err(Known::Settled), result) => {
                if let Err(failure) = &result {
                    tell!(
                        warn,
                        About::of(&call.ctx, call.ctx.stream()),
                        "failed after its commit, which stands: {failure}"
                    );
                }
                self.committed(call, notes)
            }
            (Err(Known::Lost), _) => self.gone(call, &notes.gone),
            (Err(Known::Refused(why)), result) => {
                let failure = result.err().unwrap_or_else(|| Failure::retry(why));
                self.failed(call, &failure)
            }
            (Ok(_), Err(failure)) => self.failed(call, &failure),
            (Ok(items), Ok(())) => self.leave(call, notes, items).await,
        }
    }

    /// The handler has succeeded, but for what it has noted.
    async fn leave(&mut self, call: Call, notes: Notes, mut items: Items) -> Called {
        if let Some(wrong) = items.wrong.take() {
            return self.failed(call, &Failure::permanent(wrong));
        }
        let is_done = |place: &usize| !notes.failed.contains_key(place);
        let done: Vec<usize> = (0..call.members.len()).filter(is_done).collect();
        let is_noted = self.bound.policy.deduplicate.is_some();
        if done.is_empty() || items.is_empty() && !is_noted {
            return self.acknowledge(call, notes);
        }
        if let Some(why) = too_much(&items) {
            return self.failed(call, &Failure::retry(why));
        }
        // Whoever waits for a slot need not wait for Redis.
        self.starter.leave_slot();
        let (reply, fate) = oneshot::channel();
        let member = |place: usize| {
            let Member { batch, index, ctx } = &call.members[place];
            (batch.clone(), *index, ctx.clone(), place)
        };
        self.of
            .attempts
            .commit_handle
            .commit_batch(CommittingBatch {
                members: done.into_iter().map(member).collect(),
                ctx: call.ctx.clone(),
                items,
                who: WhoseBatch::Returned(reply),
            });
        match fate.await {
            Ok(BatchFate::Done) => {
                let committed = (0..call.members.len()).filter(is_done).collect();
                let notes = Notes { committed, ..notes };
                self.committed(call, notes)
            }
            Ok(BatchFate::Gone(gone)) => self.gone(call, &gone),
            Ok(BatchFate::Failed(failure)) => self.failed(call, &failure),
            Ok(BatchFate::Refusing(wait)) => {
                for member in call.members {
                    self.bound.gate.released(wait);
                    self.of.attempts.inflight.leave_batch(1);
                    release(self.of, member, wait, verdict::REFUSING);
                }
                self.of.attempts.signals.released();
                Called::Over
            }
            // The worker has ended before it was known: what was not done stays pending.
            Err(_) => {
                let inflight = &self.of.attempts.inflight;
                inflight.leave_batch(call.members.len());
                Called::Over
            }
        }
    }

    /// All are done but those that were failed one by one.
    fn acknowledge(&self, call: Call, mut notes: Notes) -> Called {
        let attempts = &self.of.attempts;
        let (mut lot, mut of) = (Vec::new(), None);
        let count = call.members.len();
        for (place, member) in call.members.into_iter().enumerate() {
            if let Some(failure) = notes.failed.remove(&place) {
                self.failed_alone(member, &failure, &call.ctx, call.at);
                continue;
            }
            let Member { batch, index, ctx } = member;
            let slot = &batch.slots[index as usize];
            slot.succeeded(recent_acks::mark(ctx.envelope()));
            let owner = slot.finish();
            attempts
                .reporter
                .handled(&batch, &ctx, &Verdict::Ack, owner, call.at);
            match &of {
                Some(known) if Arc::ptr_eq(known, &batch) => lot.push(index),
                _ => {
                    if let Some(known) = of.replace(batch) {
                        attempts
                            .outcomes
                            .acknowledge(&known, std::mem::take(&mut lot));
                    }
                    lot.push(index);
                }
            }
        }
        if let Some(known) = of {
            attempts.outcomes.acknowledge(&known, lot);
        }
        attempts.inflight.leave_batch(count);
        Called::Over
    }

    /// Its commit is done.
    fn committed(&self, call: Call, mut notes: Notes) -> Called {
        let attempts = &self.of.attempts;
        let count = call.members.len();
        for (place, member) in call.members.into_iter().enumerate() {
            if notes.committed.binary_search(&place).is_ok() {
                let Member { batch, index, ctx } = member;
                attempts.reporter.ended(&batch, index, &ctx, true, call.at);
            } else {
                let failure = notes.failed.remove(&place);
                let failure = failure.unwrap_or_else(|| Failure::retry("it was left out"));
                self.failed_alone(member, &failure, &call.ctx, call.at);
            }
        }
        attempts.inflight.leave_batch(count);
        Called::Over
    }

    /// Nothing was done, for some are not ours any more: the handler decides again with the rest.
    fn gone(&self, call: Call, gone: &[(usize, Gone)]) -> Called {
        let attempts = &self.of.attempts;
        let mut rest = Vec::with_capacity(call.members.len());
        for (place, member) in call.members.into_iter().enumerate() {
            let Some((_, why)) = gone.iter().find(|(of, _)| *of == place) else {
                rest.push(member);
                continue;
            };
            let Member { batch, index, ctx } = member;
            let slot = &batch.slots[index as usize];
            let is_ours = match why {
                Gone::Lost => {
                    slot.is_anothers();
                    false
                }
                Gone::Copy { differs } => {
                    if let Some(times) = &batch.times {
                        times.is_duplicate(index);
                    }
                    tell_of_copy(&ctx, *differs);
                    slot.finish();
                    attempts.outcomes.acknowledge(&batch, vec![index]);
                    attempts.inflight.leave_batch(1);
                    continue;
                }
            };
            attempts
                .reporter
                .ended(&batch, index, &ctx, is_ours, call.at);
            attempts.inflight.leave_batch(1);
        }
        match rest.is_empty() {
            true => Called::Over,
            false => Called::Again(rest),
        }
    }

    /// The batch has failed as a whole.
    fn failed(&self, call: Call, failure: &Failure) -> Called {
        let is_stopping = call.ctx.cancellation() == Some(Cancelled::Stopping);
        if !is_stopping && !failure.is_later() {
            tell!(
                warn,
                About::of(&call.ctx, call.ctx.stream()),
                events = call.members.len(),
                "a batch failed, and is handled again in halves: {failure}"
            );
            return Called::Failed(call.members);
        }
        if let (Cause::BreakerOpen, Some(delay)) = (failure.cause, failure.delay()) {
            for _ in &call.members {
                self.bound.gate.released(delay);
            }
            self.of.attempts.signals.released();
        }
        let count = call.members.len();
        for member in call.members {
            self.failed_alone(member, failure, &call.ctx, call.at);
        }
        self.of.attempts.inflight.leave_batch(count);
        Called::Over
    }

    /// One has failed, and what becomes of it is its own.
    fn failed_alone(&self, member: Member, failure: &Failure, of: &Context, at: Option<Instant>) {
        let attempts = &self.of.attempts;
        let Member { batch, index, ctx } = member;
        if let Some(Cancelled::Stopping) = of.cancellation() {
            ctx.stops_for(Cancelled::Stopping);
        }
        spans::note(&ctx, failure);
        let verdict = verdict::of_end(failure, &ctx, &self.bound.policy);
        let owner = batch.slots[index as usize].finish();
        if let Some(counts) = &batch.source.counts
            && let Some(how) = how_it_failed(failure, &verdict, owner)
        {
            counts.failed(self.bound.place, how);
        }
        attempts.reporter.handled(&batch, &ctx, &verdict, owner, at);
        let attempt = ctx.attempt();
        attempts.settle(&batch, index, verdict, Body::Event(ctx), attempt);
    }

    /// The drain time is over.
    async fn cut_off(&self, call: Call) -> Called {
        let (end, known) = end(&call.ctx);
        let known = match end {
            End::Items(_) => Known::Refused(String::new()),
            End::Settled => Known::Settled,
            End::Lost => Known::Lost,
            End::Waits => known.await.unwrap_or(Known::Lost),
        };
        let Some(members) = call.ctx.members() else {
            return Called::Over;
        };
        let notes = members.take_notes();
        let committed = match known {
            Known::Settled => notes.committed,
            Known::Lost | Known::Refused(_) => Vec::new(),
        };
        let attempts = &self.of.attempts;
        for (place, member) in call.members.into_iter().enumerate() {
            let Member { batch, index, ctx } = member;
            attempts.inflight.leave_batch(1);
            if committed.binary_search(&place).is_ok() {
                attempts.reporter.ended(&batch, index, &ctx, true, call.at);
                continue;
            }
            let owner = batch.slots[index as usize].finish();
            let verdict =
                verdict::of_cut_off((ctx.attempt(), ctx.max_attempts()), &self.bound.policy);
            attempts
                .reporter
                .settled(&batch, &ctx, &verdict, owner, call.at);
            let attempt = ctx.attempt();
            attempts.settle(&batch, index, verdict, Body::Event(ctx), attempt);
        }
        Called::Over
    }

    fn release_all(&self, members: Vec<Member>, why: &str) {
        for member in members {
            self.of.attempts.inflight.leave_batch(1);
            release(self.of, member, Duration::ZERO, why);
        }
    }
}

/// What a handler has left when it ends, and where it will be known what becomes of a commit that is on its way.
fn end(ctx: &Context) -> (End, oneshot::Receiver<Known>) {
    let (tell, known) = oneshot::channel();
    let end = match ctx.outbox() {
        None => End::Items(Items::default()),
        Some(outbox) => outbox.end(|| {
            Box::new(move |known| {
                let _ = tell.send(known);
            })
        }),
    };
    (end, known)
}

fn tell_of_copy(ctx: &Context, differs: bool) {
    let about = About::of(ctx, ctx.stream());
    if differs {
        let which = crate::identity::named(ctx.envelope().fields());
        tell!(
            warn,
            about,
            "{which} has succeeded meanwhile with other data, and this one does not count: what is another event needs \
             another id"
        );
    } else {
        tell!(
            info,
            about,
            "another copy of this event has succeeded meanwhile"
        );
    }
}
