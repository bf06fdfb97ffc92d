//! What the committer does with batches: each goes in a request of its own, all of its entries or none. One whose answer got
//! lost is repeated by the very next request of its stream.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::commit_requests::{CommitRequests, follow_growth, leaving, mark_of};
use crate::context::Context;
use crate::context::notes::Gone;
use crate::effects::{CommitError, Committed, Refusal};
use crate::failure::Failure;
use crate::outbox::{Items, Known};
use crate::stream::{BatchCommit, BatchEntry, BatchOutcome, Link, NotOurs, Trouble};
use crate::worker::run::batches::too_much;
use crate::worker::run::outcome::{BatchFate, CommittingBatch, WhoseBatch};
use crate::worker::run::verdict::REFUSING;
use crate::worker::shard::clock::ServerClock;
use crate::worker::state::inflight::{Batch, Inflight};
use crate::worker::state::source::Source;

/// Batches that are to be committed.
#[derive(Default)]
pub(super) struct BatchQueue {
    jobs: VecDeque<BatchJob>,
    /// Entries that stand alone had their turn.
    had_singles: bool,
}

/// One of them.
pub(super) struct BatchJob {
    pub source: Arc<Source>,
    members: Vec<Held>,
    ctx: Context,
    items: Items,
    who: WhoseBatch,
    /// Whether it was done is not known.
    unknown: bool,
}

/// One entry of it.
struct Held {
    batch: Arc<Batch>,
    index: u32,
    ctx: Context,
    /// Its place among those that the handler was given.
    place: usize,
    /// It is pending with nobody, and its end is ours to write.
    nobodys: bool,
}

/// What a request for one came to.
pub(super) enum Answered {
    Came(BatchOutcome),
    /// It can't be done in one step on a cluster, or at this server.
    Never(String),
    NotKnown(Trouble),
}

impl BatchQueue {
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub fn add(&mut self, batch: CommittingBatch) {
        let CommittingBatch {
            members,
            ctx,
            items,
            who,
        } = batch;
        let held = |(batch, index, ctx, place)| Held {
            batch,
            index,
            ctx,
            place,
            nobodys: false,
        };
        let members: Vec<Held> = members.into_iter().map(held).collect();
        let Some(first) = members.first() else {
            return;
        };
        self.jobs.push_back(BatchJob {
            source: first.batch.source.clone(),
            members,
            ctx,
            items,
            who,
            unknown: false,
        });
    }

    /// A batch handler that runs asks: where its entries are held is found again. What it has failed is not committed.
    pub fn asked(
        &mut self,
        ctx: Context,
        items: Items,
        reply: oneshot::Sender<Result<Committed, CommitError>>,
        inflight: &Inflight,
    ) {
        let refuse = |error: CommitError, known: Known| {
            ctx.outbox_or_new().known(known);
            error
        };
        if let Some(why) = too_much(&items) {
            let error = refuse(CommitError::Invalid(why.clone()), Known::Refused(why));
            let _ = reply.send(Err(error));
            return;
        }
        let mut members = Vec::new();
        if let Some(all) = ctx.members() {
            let notes = all.notes();
            for (place, one) in all.all().iter().enumerate() {
                if notes.failed.contains_key(&place) {
                    continue;
                }
                let at = one.place();
                // Of one whose handler has ended nothing is held.
                if let Some(batch) = inflight.at(at) {
                    members.push((batch, at.index, one.clone(), place));
                }
            }
        }
        if members.is_empty() {
            let _ = reply.send(Err(refuse(CommitError::Twice, Known::Lost)));
            return;
        }
        self.add(CommittingBatch {
            members,
            ctx,
            items,
            who: WhoseBatch::Asked(reply),
        });
    }

    /// Those whose turn it is, one of each stream. `singles` says whether entries that stand alone are to be committed of a
    /// stream, and whether it is not known if some of them were.
    pub fn take_turn(&mut self, singles: impl Fn(&Arc<Source>) -> Option<bool>) -> Vec<BatchJob> {
        let singles_first = !std::mem::replace(&mut self.had_singles, false);
        let mut turn: Vec<BatchJob> = Vec::new();
        let mut rest = VecDeque::new();
        for job in self.jobs.drain(..) {
            let is_next = !turn
                .iter()
                .any(|other| Arc::ptr_eq(&other.source, &job.source));
            let waits = !job.unknown
                && match singles(&job.source) {
                    None => false,
                    Some(unknown) => unknown || singles_first,
                };
            self.had_singles |= waits;
            match is_next && !waits {
                true => turn.push(job),
                false => rest.push_back(job),
            }
        }
        self.jobs = rest;
        turn
    }

    /// What became of one. Answers why it has to be tried again, if it has.
    pub fn came(
        &mut self,
        mut job: BatchJob,
        answered: Answered,
        clock: &ServerClock,
    ) -> Option<Trouble> {
        job.unknown = false;
        let outcome = match answered {
            Answered::Came(outcome) => outcome,
            Answered::Never(why) => {
                job.tell(BatchFate::Failed(Failure::retry(why)));
                return None;
            }
            Answered::NotKnown(trouble) => {
                job.unknown = true;
                self.jobs.push_front(job);
                return Some(trouble);
            }
        };
        match outcome {
            BatchOutcome::Done => job.tell(BatchFate::Done),
            BatchOutcome::Gone(gone) => match job.lost(&gone, clock) {
                // They turned out to be nobody's, and ours to end.
                lost if lost.is_empty() => self.jobs.push_front(job),
                lost => job.tell(BatchFate::Gone(lost)),
            },
            BatchOutcome::Refused(at, current) => {
                let effect = job.items.effects.get(at).cloned();
                match (effect, job.who) {
                    (Some(effect), WhoseBatch::Asked(reply)) => {
                        let refusal = Refusal { effect, current };
                        let known = Known::Refused(refusal.to_string());
                        job.ctx.outbox_or_new().known(known);
                        let _ = reply.send(Ok(Committed::Refused(refusal)));
                    }
                    (Some(effect), WhoseBatch::Returned(reply)) => {
                        let refusal = Refusal { effect, current };
                        let _ = reply.send(BatchFate::Failed(Failure::retry(refusal)));
                    }
                    (None, who) => {
                        job.who = who;
                        let why = "something was refused that was not asked for";
                        job.tell(BatchFate::Failed(Failure::retry(why)));
                    }
                }
            }
            BatchOutcome::Failed(why) => job.tell(BatchFate::Failed(Failure::retry(why))),
            BatchOutcome::NotNow(why) => {
                self.jobs.push_front(job);
                return Some(Trouble::caught("committing a batch", &why));
            }
            BatchOutcome::Sealed => {
                let topic = job.items.events.first().map(|event| event.stream.clone());
                self.jobs.push_front(job);
                return Some(Trouble::sealed(&topic.unwrap_or_default()));
            }
        }
        None
    }
}

impl BatchJob {
    /// Sends it. Its topics may have grown: then it goes once more, to where they have grown to.
    pub async fn step(
        mut self,
        by: &CommitRequests,
        mut link: Link,
        number: u64,
    ) -> (Self, Answered) {
        if let Some(why) = self.beyond_reach(&link) {
            return (self, Answered::Never(why));
        }
        let answered = self.send(by, &mut link, number).await;
        if matches!(answered, Answered::Came(BatchOutcome::Sealed))
            && follow_growth(&self.source, &mut self.items).await
        {
            // It was not done, and is sent again by the next request.
            let nothing = Vec::new();
            return (self, Answered::Came(BatchOutcome::Gone(nothing)));
        }
        if link.greeting.is_cluster && matches!(answered, Answered::Came(BatchOutcome::Done)) {
            let stream = &self.source.keys.stream;
            let events = self.items.events.iter();
            let far = events.filter(|event| !link.reaches(stream, &event.stream));
            self.source.emits.add(far.map(|event| &event.stream[..]));
        }
        (self, answered)
    }

    async fn send(&self, by: &CommitRequests, link: &mut Link, number: u64) -> Answered {
        let Some(first) = self.members.first() else {
            return Answered::Came(BatchOutcome::Done);
        };
        let reached = link.clone();
        let first = first.batch.slots[first.index as usize].id;
        let seed = || match self.ctx.members() {
            Some(members) => members.seed().to_owned(),
            None => String::new(),
        };
        let events = self.items.events.iter().enumerate();
        let leave = |(place, event)| {
            leaving(&self.source, first, seed, place, event, |a, b| {
                reached.reaches(a, b)
            })
        };
        let entry = |held: &Held| {
            let slot = &held.batch.slots[held.index as usize];
            let left = held.batch.ours_to_end_for(slot).filter(|_| held.nobodys);
            BatchEntry {
                id: slot.id,
                count: slot.count,
                nobodys_until: left.map_or(0, |left| by.clock.shows_in(left)),
                recorded: slot.recorded,
                mark: mark_of(&held.ctx, &self.source, &by.windows),
            }
        };
        let commit = BatchCommit {
            entries: self.members.iter().map(entry).collect(),
            events: events.map(leave).collect(),
            effects: &self.items.effects,
        };
        if commit.is_too_large() {
            let why = "a batch with so many effects is more than one step can do: have it take fewer events";
            return Answered::Never(why.to_owned());
        }
        let (keys, group) = (&self.source.keys, &self.source.surroundings.group);
        let (me, delete) = (&by.worker.name, self.source.deletes());
        match link
            .commit_batch(keys, group, me, number, delete, &commit)
            .await
        {
            Ok(outcome) => Answered::Came(outcome),
            // Each of its entries finds out by itself what is in its way.
            Err(trouble) if trouble.is_lasting() => {
                Answered::Never(trouble.into_error().to_string())
            }
            Err(trouble) => Answered::NotKnown(trouble),
        }
    }

    /// On a cluster: what no step with the acknowledgement can do, if there is anything.
    fn beyond_reach(&self, link: &Link) -> Option<String> {
        let stream = &self.source.keys.stream;
        let mut effects = self.items.effects.iter();
        let far = effects.find(|effect| !link.reaches(stream, &effect.key))?;
        Some(format!(
            "the effect {far}: on a cluster its key must be in the hash slot of {stream:?}: give it the same {{tag}}"
        ))
    }

    /// Of those that are not ours, which are lost. What turned out to be nobody's is ours to end if nobody else can have
    /// had it.
    fn lost(&mut self, gone: &[(usize, NotOurs)], clock: &ServerClock) -> Vec<(usize, Gone)> {
        let mut lost = Vec::new();
        for (at, why) in gone {
            let Some(held) = self.members.get_mut(*at) else {
                continue;
            };
            let slot = &held.batch.slots[held.index as usize];
            let why = match why {
                NotOurs::Nobody if !held.nobodys && held.batch.is_ours_to_end(slot) => {
                    slot.is_nobodys();
                    held.nobodys = true;
                    continue;
                }
                // It stayed on its way for long, and was not done.
                NotOurs::Late(now) => {
                    clock.shows(*now);
                    continue;
                }
                NotOurs::Taken | NotOurs::Nobody => Gone::Lost,
                NotOurs::Copy { differs } => Gone::Copy { differs: *differs },
            };
            lost.push((held.place, why));
        }
        lost
    }

    pub fn tell(self, fate: BatchFate) {
        let reply = match self.who {
            WhoseBatch::Returned(reply) => {
                let _ = reply.send(fate);
                return;
            }
            WhoseBatch::Asked(reply) => reply,
        };
        let mut notes = self.ctx.members().map(|members| members.notes());
        let (known, answer) = match fate {
            BatchFate::Done => {
                for held in &self.members {
                    held.batch.slots[held.index as usize].committed();
                }
                if let Some(notes) = &mut notes {
                    notes.committed = self.members.iter().map(|held| held.place).collect();
                }
                (Known::Settled, Ok(Committed::Settled))
            }
            BatchFate::Gone(gone) => {
                if let Some(notes) = &mut notes {
                    notes.gone = gone;
                }
                (Known::Lost, Err(CommitError::Taken))
            }
            BatchFate::Failed(failure) => {
                let why = failure.to_string();
                (Known::Refused(why.clone()), Err(CommitError::Invalid(why)))
            }
            BatchFate::Refusing(_) => (
                Known::Refused(REFUSING.to_owned()),
                Err(CommitError::Invalid(REFUSING.to_owned())),
            ),
        };
        drop(notes);
        self.ctx.outbox_or_new().known(known);
        // A handler that does not wait for it any more is told otherwise.
        let _ = reply.send(answer);
    }
}
