//! The committer: what a handler emitted and wants to take effect leaves here in one step with the acknowledgement of
//! its event, when the handler has returned or when it asks. One request is under way for each stream: the group notes
//! of each worker what its last one did, and so knows a repeat of it. A step whose answer got lost is repeated until it
//! is known; until then the entry stays held, and is renewed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::batch_commits::BatchQueue;
use super::commit_requests::{CommitRequests, Job};
use crate::about::{About, tell};
use crate::conflict::{Conflict, Overlap};
use crate::context::Ask;
use crate::effects::{CommitError, Committed, Refusal};
use crate::failure::Failure;
use crate::identity;
use crate::outbox::{Known, Line};
use crate::reconnect::sleep_until;
use crate::stream::{ARGUMENTS, CommitOutcome, Trouble};
use crate::worker::run::outcome::Settlement;
use crate::worker::run::outcome::Who;
use crate::worker::run::outcome::{BatchFate, Body, Committing, CommittingBatch};
use crate::worker::run::report::Reporter;
use crate::worker::run::routes::Routes;
use crate::worker::run::verdict::{self, REFUSING, Verdict};
use crate::worker::shard::hold_up::HoldUp;
use crate::worker::shard::links::Links;
use crate::worker::shard::refusals::{Chore, Refusals};
use crate::worker::state::inflight::Inflight;
use crate::worker::state::signals::Signals;
use crate::worker::state::source::Source;
use crate::worker::state::source::by_source;

/// Most entries in one step, and about how many bytes, so that Redis does nothing for too long.
const LOT: usize = 100;
const LOT_BYTES: usize = 256 << 10;
/// Arguments of a step that belong to no single entry.
const FOR_ALL: usize = 32;
/// What is told of entries that wait because nothing can be committed.
/// An answer that can't be.
const NOT_ASKED_FOR: &str = "something was refused that was not asked for";

/// Commits entries.
pub(crate) struct Committer {
    signals: Arc<Signals>,
    inflight: Arc<Inflight>,
    routes: Arc<Routes>,
    links: Arc<Links>,
    requests: CommitRequests,
    reporter: Arc<Reporter>,
    settle: mpsc::UnboundedSender<Settlement>,
    queue: Vec<Job>,
    batches: BatchQueue,
    /// Of the last request.
    number: u64,
    hold_up: HoldUp,
    refusals: Refusals,
}

/// What became of it.
enum Fate {
    Settled,
    /// It is no longer ours, and nothing of it was done here.
    Lost,
    Refused(Refusal),
    Conflict(Conflict),
    Overlap(Overlap),
    Failed(String),
    /// Nothing can be committed for so long.
    Refusing(Duration),
}

impl Committer {
    pub fn new(
        signals: Arc<Signals>,
        inflight: Arc<Inflight>,
        routes: Arc<Routes>,
        links: Arc<Links>,
        requests: CommitRequests,
        reporter: Arc<Reporter>,
        settle: mpsc::UnboundedSender<Settlement>,
    ) -> Self {
        let hold_up = HoldUp::new(signals.clone());
        Committer {
            signals,
            inflight,
            routes,
            links,
            requests,
            reporter,
            settle,
            queue: Vec::new(),
            batches: BatchQueue::default(),
            number: 0,
            hold_up,
            refusals: Refusals::default(),
        }
    }

    /// Commits what comes in until nothing more can come and all of it is known to be settled, or the worker gives up.
    pub async fn run(
        mut self,
        mut returned: mpsc::UnboundedReceiver<Committing>,
        mut batches: mpsc::UnboundedReceiver<CommittingBatch>,
        mut asked: mpsc::UnboundedReceiver<Ask>,
    ) {
        let signals = self.signals.clone();
        let (mut no_more, mut no_more_asked, mut no_more_batches) = (false, false, false);
        loop {
            let idle = self.queue.is_empty() && self.batches.is_empty();
            if idle && no_more && no_more_asked && no_more_batches {
                return;
            }
            let later = self.hold_up.until().filter(|_| !idle);
            let waits = idle || later.is_some();
            tokio::select! {
                biased;
                () = signals.abandoned() => return,
                job = returned.recv(), if !no_more && waits => match job {
                    Some(job) => self.queue.push(Job::new(job)),
                    None => no_more = true,
                },
                batch = batches.recv(), if !no_more_batches && waits => match batch {
                    Some(batch) => self.batches.add(batch),
                    None => no_more_batches = true,
                },
                ask = asked.recv(), if !no_more_asked && waits => match ask {
                    Some(ask) => self.asked(ask),
                    None => no_more_asked = true,
                },
                () = sleep_until(later), if later.is_some() => {}
                () = std::future::ready(()), if !waits => {}
            }
            while let Ok(job) = returned.try_recv() {
                self.queue.push(Job::new(job));
            }
            while let Ok(batch) = batches.try_recv() {
                self.batches.add(batch);
            }
            while let Ok(ask) = asked.try_recv() {
                self.asked(ask);
            }
            let idle = self.queue.is_empty() && self.batches.is_empty();
            if self.hold_up.until().is_none() && !idle {
                tokio::select! {
                    biased;
                    () = self.step() => {}
                    () = signals.abandoned() => return,
                }
            }
        }
    }

    /// A handler that runs asks: where its entry is held is found again.
    pub fn asked(&mut self, ask: Ask) {
        let Ask { ctx, items, reply } = ask;
        if ctx.members().is_some() {
            return self.batches.asked(ctx, items, reply, &self.inflight);
        }
        let place = ctx.place();
        let batch = self.inflight.at(place).filter(|batch| {
            let slot = batch.slots.get(place.index as usize);
            slot.is_some_and(|slot| slot.is_running() && slot.id == ctx.envelope().entry_id())
        });
        match batch {
            Some(batch) => {
                self.queue.push(Job::new(Committing {
                    batch,
                    index: place.index,
                    ctx,
                    items,
                    who: Who::Asked(reply),
                }));
            }
            // It speaks for an entry whose handler has ended.
            None => {
                ctx.outbox_or_new().known(Known::Lost);
                let _ = reply.send(Err(CommitError::Twice));
            }
        }
    }

    /// What is still to be committed, for who does it in another way.
    #[cfg(feature = "testing")]
    pub fn take_jobs(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.queue)
    }

    async fn step(&mut self) {
        let link = match self.links.settle_link().await {
            Ok(link) => link,
            Err(error) => return self.hold_up.begin(&Trouble::Broken(error)),
        };
        let mut queue = std::mem::take(&mut self.queue);
        // What may be done goes before all else: only the very next request of a stream finds out whether it was.
        if queue.iter().any(|job| job.unknown) {
            queue.sort_by_key(|job| !job.unknown);
        }
        let mut trouble = None;
        let mut lots: Vec<(Arc<Source>, Vec<Job>, u64)> = Vec::new();
        let mut rest: Vec<Option<Job>> = Vec::new();
        let places = by_source(&queue, |job| &job.batch.source);
        let has_singles = |source: &Arc<Source>| {
            let mut of_it = queue.iter().filter(|job| job.is_of(source));
            of_it.next().map(|job| job.unknown)
        };
        let mut batches = Vec::new();
        for job in self.batches.take_turn(has_singles) {
            match self.refusals.wait(Chore::Commit, &job.source.keys.stream) {
                Some(wait) => job.tell(BatchFate::Refusing(wait)),
                None => {
                    self.number += 1;
                    batches.push((job, self.number));
                }
            }
        }
        rest.extend(queue.into_iter().map(Some));
        for (source, places) in places {
            if batches
                .iter()
                .any(|(job, _)| Arc::ptr_eq(&job.source, &source))
            {
                continue;
            }
            if let Some(wait) = self.refusals.wait(Chore::Commit, &source.keys.stream) {
                let refused = places.into_iter().filter_map(|at| rest[at].take());
                refused.for_each(|job| self.tell(job, Fate::Refusing(wait)));
                continue;
            }
            let (mut lot, mut bytes, mut arguments) = (Vec::new(), 0, 0);
            for at in places {
                let is_next = |job: &Job| lot.is_empty() || !job.alone;
                let is_alone = |lot: &[Job]| lot.iter().any(|job| job.alone);
                if lot.len() == LOT || bytes > LOT_BYTES || is_alone(&lot) {
                    break;
                }
                let Some(next) = rest[at].as_ref().filter(|job| is_next(job)) else {
                    continue;
                };
                let (its_bytes, its_arguments) = self.requests.size(next, &link);
                if !lot.is_empty() && arguments + its_arguments > ARGUMENTS - FOR_ALL {
                    break;
                }
                bytes += its_bytes;
                arguments += its_arguments;
                lot.extend(rest[at].take());
            }
            self.number += 1;
            lots.push((source, lot, self.number));
        }
        self.queue.extend(rest.into_iter().flatten());
        let requests = &self.requests;
        let steps = lots.into_iter().map(async |(source, lot, number)| {
            let of = source.clone();
            let (lot, met) = requests.commit(link.clone(), source, lot, number).await;
            (of, lot, met)
        });
        let batches = batches.into_iter().map(|(job, number)| {
            let link = link.clone();
            async move { job.step(requests, link, number).await }
        });
        let (lots, batches) = tokio::join!(join_all(steps), join_all(batches));
        for (job, outcome) in batches {
            if let Some(met) = self.batches.came(job, outcome, &self.requests.clock) {
                trouble.get_or_insert(met);
            }
        }
        for (source, lot, met) in lots {
            let stream = &source.keys.stream;
            let lasts = met.as_ref().is_some_and(Trouble::is_lasting);
            let met = match met {
                Some(met) if lasts => self
                    .refusals
                    .heard(Chore::Commit, stream, Err::<(), _>(met))
                    .err(),
                Some(met) => Some(met),
                None => self.refusals.heard(Chore::Commit, stream, Ok(())).err(),
            };
            let wait = self.refusals.wait(Chore::Commit, stream).filter(|_| lasts);
            for (job, outcome) in lot {
                if let (None, Some(wait)) = (&outcome, wait) {
                    self.tell(job, Fate::Refusing(wait));
                } else if let Some(met) = self.came(job, outcome) {
                    trouble.get_or_insert(met);
                }
            }
            trouble = trouble.or(met);
        }
        match trouble {
            None => self.hold_up.is_over(),
            Some(trouble) => self.hold_up.begin_on(&trouble, &link, &self.links).await,
        }
    }

    /// What became of an entry, or None where it is not known. Answers why it has to be tried again, if it has.
    pub fn came(&mut self, mut job: Job, outcome: Option<CommitOutcome>) -> Option<Trouble> {
        job.unknown = false;
        let fate = match outcome {
            None => {
                job.unknown = true;
                self.queue.push(job);
                return None;
            }
            // Its events had no other place yet.
            Some(CommitOutcome::Sealed) => {
                let topic = job.emits_to().unwrap_or_default().to_owned();
                self.queue.push(job);
                return Some(Trouble::sealed(&topic));
            }
            Some(CommitOutcome::NotNow(why)) => {
                self.queue.push(job);
                return Some(Trouble::caught("committing entries", &why));
            }
            Some(CommitOutcome::Nobody) if !job.nobodys && job.batch.is_ours_to_end(job.slot()) => {
                job.slot().is_nobodys();
                job.nobodys = true;
                self.queue.push(job);
                return None;
            }
            // It stayed on its way for long, and was not done.
            Some(CommitOutcome::Late(now)) => {
                self.requests.clock.shows(now);
                self.queue.push(job);
                return None;
            }
            Some(CommitOutcome::Done) => {
                if let Some((spans, since)) = self.reporter.spans.as_ref().zip(job.since) {
                    spans.emitted(&job.ctx, &job.items, since);
                }
                Fate::Settled
            }
            Some(CommitOutcome::Duplicate { differs }) => {
                if let Some(times) = &job.batch.times {
                    times.is_duplicate(job.index);
                }
                let about = About::of(&job.ctx, &job.batch.source.keys.stream);
                if differs {
                    let which = identity::named(job.ctx.envelope().fields());
                    tell!(
                        warn,
                        about,
                        "{which} has succeeded meanwhile with other data, and this one does \
                        not count: what is another event needs another id"
                    );
                } else {
                    tell!(
                        info,
                        about,
                        "another copy of this event has succeeded meanwhile"
                    );
                }
                Fate::Settled
            }
            Some(CommitOutcome::Taken | CommitOutcome::Nobody) => Fate::Lost,
            Some(CommitOutcome::Refused(at, current)) => match job.items.effects.get(at) {
                Some(effect) => Fate::Refused(Refusal {
                    effect: effect.clone(),
                    current,
                }),
                None => Fate::Failed(NOT_ASKED_FOR.to_owned()),
            },
            // Nothing was done yet: what is there is looked at, and if it is what was asked for the rest is done.
            Some(CommitOutcome::Stands(at, first, stored)) => {
                let line = job.items.lines.get_mut(at);
                match line.map(|line| line.is_there(first, &stored)) {
                    Some(Ok(())) => {
                        self.queue.push(job);
                        return None;
                    }
                    Some(Err(why)) => Fate::Failed(why),
                    None => Fate::Failed(NOT_ASKED_FOR.to_owned()),
                }
            }
            Some(CommitOutcome::Conflict(at, actual)) => {
                let line = job.items.lines.get(at);
                match line.and_then(|line| line.conflict(actual)) {
                    Some(conflict) => Fate::Conflict(conflict),
                    None => Fate::Failed(NOT_ASKED_FOR.to_owned()),
                }
            }
            Some(CommitOutcome::Overlap(at, actual)) => {
                let line = job.items.lines.get(at);
                match line.and_then(|line| line.overlap(actual)) {
                    Some(overlap) => Fate::Overlap(overlap),
                    None => Fate::Failed(NOT_ASKED_FOR.to_owned()),
                }
            }
            Some(CommitOutcome::Failed(why)) => Fate::Failed(why),
        };
        self.tell(job, fate);
        None
    }

    fn tell(&self, job: Job, fate: Fate) {
        let batch = job.batch.clone();
        let slot = &batch.slots[job.index as usize];
        if matches!(fate, Fate::Lost) {
            slot.is_anothers();
        }
        if matches!(fate, Fate::Settled) {
            let events = job.items.lines.iter().flat_map(Line::events).count();
            let events = job.items.events.len() + events;
            let effects = job.items.effects.len();
            if tracing::enabled!(tracing::Level::DEBUG) {
                tell!(
                    debug,
                    About::of(&job.ctx, &job.batch.source.keys.stream),
                    events,
                    effects,
                    "committed"
                );
            }
        }
        match job.who {
            Who::Returned(started) => {
                let refusing = match fate {
                    Fate::Refusing(wait) => Some(wait),
                    _ => None,
                };
                let failure = match fate {
                    Fate::Settled | Fate::Lost => {
                        let is_ours = matches!(fate, Fate::Settled);
                        let (batch, ctx) = (&job.batch, &job.ctx);
                        return self.reporter.ended(batch, job.index, ctx, is_ours, started);
                    }
                    Fate::Refused(refusal) => Failure::retry(refusal),
                    Fate::Conflict(conflict) => Failure::retry(conflict),
                    Fate::Overlap(overlap) => Failure::retry(overlap),
                    Fate::Failed(why) => Failure::retry(why),
                    Fate::Refusing(wait) => {
                        let bound = self.routes.of(job.ctx.envelope());
                        bound.gate.released(wait);
                        self.signals.released();
                        // Its handler has not failed.
                        Failure::later(wait, REFUSING)
                    }
                };
                let mut verdict = verdict::of_end(&failure, &job.ctx, self.routes.policy(&job.ctx));
                if let Some(wait) = refusing {
                    verdict = Verdict::release(wait, REFUSING);
                }
                let owner = slot.owner();
                self.reporter
                    .handled(&job.batch, &job.ctx, &verdict, owner, started);
                let attempt = job.ctx.attempt();
                let _ = self.settle.send(Settlement {
                    batch: job.batch,
                    index: job.index,
                    verdict,
                    body: Body::Event(job.ctx),
                    attempt,
                });
            }
            Who::Asked(reply) => {
                let (known, answer) = match fate {
                    Fate::Settled => {
                        slot.committed();
                        (Known::Settled, Ok(Committed::Settled))
                    }
                    Fate::Lost => (Known::Lost, Err(CommitError::Taken)),
                    Fate::Refused(refusal) => (
                        Known::Refused(refusal.to_string()),
                        Ok(Committed::Refused(refusal)),
                    ),
                    Fate::Conflict(conflict) => (
                        Known::Refused(conflict.to_string()),
                        Err(CommitError::Conflict(conflict)),
                    ),
                    Fate::Overlap(overlap) => (
                        Known::Refused(overlap.to_string()),
                        Err(CommitError::Overlap(overlap)),
                    ),
                    Fate::Failed(why) => {
                        (Known::Refused(why.clone()), Err(CommitError::Invalid(why)))
                    }
                    Fate::Refusing(_) => (
                        Known::Refused(REFUSING.to_owned()),
                        Err(CommitError::Invalid(REFUSING.to_owned())),
                    ),
                };
                job.ctx.outbox_or_new().known(known);
                // A handler that does not wait for it any more is told otherwise.
                let _ = reply.send(answer);
            }
        }
    }
}
