//! The steps the committer sends: what an entry's commit comes to as a request, and on a cluster, what has to be
//! published before it.

use std::sync::Arc;
use std::time::SystemTime;

use crate::context::Context;
use crate::fields::Fields;
use crate::identity::Identity;
use crate::outbox::Items;
use crate::stream::{Commit, CommitOutcome, Link, Mark, Trouble};
use crate::worker::run::dedup_windows::Windows;
use crate::worker::run::outcome::Committing;
use crate::worker::run::outcome::Who;
use crate::worker::shard::clock::ServerClock;
use crate::worker::shard::unit::Shard;
use crate::worker::state::identity::Identity as Worker;
use crate::worker::state::inflight::{Batch, Slot};
use crate::worker::state::source::Source;

/// An entry to be committed.
pub(crate) struct Job {
    pub batch: Arc<Batch>,
    pub index: u32,
    pub ctx: Context,
    pub items: Items,
    pub who: Who,
    /// It is pending with nobody, and its end is ours to write.
    pub nobodys: bool,
    /// It goes by itself: a request with others was refused, and it may have been for its sake.
    pub alone: bool,
    /// What one step can't reach has been published before it.
    published: bool,
    /// When it came here, if its run is traced.
    pub since: Option<SystemTime>,
}

impl Job {
    pub fn new(committing: Committing) -> Self {
        let Committing {
            batch,
            index,
            ctx,
            items,
            who,
        } = committing;
        let since = ctx.run().map(|_| SystemTime::now());
        Job {
            since,
            batch,
            index,
            ctx,
            items,
            who,
            nobodys: false,
            alone: false,
            published: false,
        }
    }

    pub fn slot(&self) -> &Slot {
        &self.batch.slots[self.index as usize]
    }

    fn commit<'a>(&'a self, by: &'a CommitRequests, link: &Link) -> Commit<'a> {
        let slot = self.slot();
        let stream = &self.batch.source.keys.stream;
        let events = self.items.events.iter();
        let events = events.filter(|event| link.reaches(stream, &event.stream));
        Commit {
            id: slot.id,
            consumer: by.worker.consumer(self.batch.alone),
            count: slot.count,
            nobodys_until: self.nobodys_until(&by.clock),
            recorded: slot.recorded,
            mark: self.mark(&by.windows),
            events: events
                .map(|event| (&event.stream[..], event.envelope.fields()))
                .collect(),
            effects: &self.items.effects,
        }
    }

    fn nobodys_until(&self, clock: &ServerClock) -> u64 {
        let left = self.batch.ours_to_end_for(self.slot());
        let left = left.filter(|_| self.nobodys);
        left.map_or(0, |left| clock.shows_in(left))
    }

    /// An event without an id of its own is like no other. A replayed one runs whatever the marks say.
    fn mark(&self, windows: &Windows) -> Option<Mark> {
        let envelope = self.ctx.envelope();
        Some(Mark {
            lasts: windows.lasts(envelope.type_bytes())?,
            event: Identity::of(envelope.fields())?,
            counts: !self.batch.source.deletes(),
        })
    }

    /// The events that one step with the acknowledgement can't reach.
    fn far(&self, link: &Link) -> Vec<(&str, &Fields)> {
        let stream = &self.batch.source.keys.stream;
        let events = self.items.events.iter();
        events
            .filter(|event| !link.reaches(stream, &event.stream))
            .map(|event| (&event.stream[..], event.envelope.fields()))
            .collect()
    }
}

/// What these requests are made by.
pub(crate) struct CommitRequests {
    worker: Arc<Worker>,
    clock: Arc<ServerClock>,
    windows: Arc<Windows>,
}

impl CommitRequests {
    pub fn new(shard: &Shard, windows: Arc<Windows>) -> Self {
        CommitRequests {
            worker: shard.identity.clone(),
            clock: shard.clock.clone(),
            windows,
        }
    }

    /// About how many bytes the request has that commits this.
    pub fn size(&self, job: &Job, link: &Link) -> usize {
        job.commit(self, link).size()
    }

    /// Commits one lot. Returns for each entry what became of it where that is known, and why it is not.
    pub async fn commit(
        &self,
        mut link: Link,
        source: Arc<Source>,
        mut lot: Vec<Job>,
        number: u64,
    ) -> (Vec<(Job, Option<CommitOutcome>)>, Option<Trouble>) {
        let mut answers = Vec::with_capacity(lot.len());
        if link.greeting.is_cluster {
            let (near, mut far): (Vec<_>, Vec<_>) =
                lot.into_iter().partition(|job| is_near(job, &link));
            lot = near;
            while let Some(mut job) = far.pop() {
                match publish_far(&mut link, &mut job).await {
                    Ok(None) => lot.push(job),
                    Ok(Some(failed)) => answers.push((job, Some(failed))),
                    Err(trouble) => {
                        far.push(job);
                        far.append(&mut lot);
                        answers.extend(far.into_iter().map(|job| (job, None)));
                        return (answers, Some(trouble));
                    }
                }
            }
        }
        let commits: Vec<Commit> = lot.iter().map(|job| job.commit(self, &link)).collect();
        let (keys, group, me) = (&source.keys, &source.surroundings.group, &self.worker.name);
        let mut sending = link.clone();
        let sent = sending.commit(keys, group, me, number, source.deletes(), &commits);
        let (outcomes, met) = match sent.await {
            Ok(outcomes) => (outcomes.into_iter().map(Some).collect(), None),
            Err(trouble) if trouble.is_lasting() => whose(&mut link, &commits, trouble).await,
            Err(trouble) => (Vec::new(), Some(trouble)),
        };
        drop(commits);
        if met.is_none() && outcomes.iter().all(Option::is_none) {
            lot.iter_mut().for_each(|job| job.alone = true);
        }
        let outcomes = outcomes.into_iter().chain(std::iter::repeat_with(|| None));
        answers.extend(lot.into_iter().zip(outcomes));
        (answers, met)
    }
}

/// Of a request that was refused, which entries it was refused for: they fail. Where it was for none of them, nothing can
/// be committed now, and what was met is answered. Where that can't be told, all of them go one by one.
async fn whose(
    link: &mut Link,
    commits: &[Commit<'_>],
    trouble: Trouble,
) -> (Vec<Option<CommitOutcome>>, Option<Trouble>) {
    if !trouble.is_about_a_key() {
        return match commits {
            [_] => {
                let failed = CommitOutcome::Failed(trouble.error().to_string());
                (vec![Some(failed)], None)
            }
            _ => (vec![None; commits.len()], None),
        };
    }
    let mut outcomes = Vec::with_capacity(commits.len());
    for commit in commits {
        let missing = link.missing_right(&commit.needs()).await;
        outcomes.push(missing.map(|missing| {
            let what = match commit.events.get(missing.place) {
                Some((stream, _)) => format!("emitting to {stream}: "),
                None => String::new(),
            };
            CommitOutcome::Failed(what + &missing.words)
        }));
    }
    let is_for_some = outcomes.iter().any(Option::is_some);
    (outcomes, (!is_for_some).then_some(trouble))
}

/// Whether one step can do all of it.
fn is_near(job: &Job, link: &Link) -> bool {
    let reaches = |key: &str| link.reaches(&job.batch.source.keys.stream, key);
    job.items.events.iter().all(|event| reaches(&event.stream))
        && job.items.effects.iter().all(|effect| reaches(&effect.key))
}

/// On a cluster: what goes to other slots is published first, under the same ids should it be published again.
async fn publish_far(link: &mut Link, job: &mut Job) -> Result<Option<CommitOutcome>, Trouble> {
    let stream = &job.batch.source.keys.stream;
    let mut effects = job.items.effects.iter();
    if let Some(far) = effects.find(|effect| !link.reaches(stream, &effect.key)) {
        return Ok(Some(CommitOutcome::Failed(format!(
            "the effect {far}: on a cluster its key must be in the hash slot of {stream:?}: give it the same {{tag}}"
        ))));
    }
    if job.published {
        return Ok(None);
    }
    let mut sending = link.clone();
    match sending.add(&job.far(link)).await {
        Ok(()) => {
            job.published = true;
            Ok(None)
        }
        Err(Trouble::Refused(error)) => Ok(Some(CommitOutcome::Failed(error.to_string()))),
        Err(trouble) => Err(trouble),
    }
}
