//! The steps the committer sends: what an entry's commit comes to as a request. On a cluster what is emitted to another
//! slot goes to the outbox of the entry's own, and a relay is told.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use crate::context::Context;
use crate::event::EntryId;
use crate::identity::{self, Identity};
use crate::outbox::{Emitted, Items, Line, What};
use crate::stream::{Commit, CommitOutcome, Leaving, Link, Mark, Placed, Trouble};
use crate::worker::run::dedup_windows::Windows;
use crate::worker::run::outcome::Committing;
use crate::worker::run::outcome::Who;
use crate::worker::shard::clock::ServerClock;
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
    /// Whether it was done is not known.
    pub unknown: bool,
    /// It goes by itself: a request with others was refused, and it may have been for its sake.
    pub alone: bool,
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
            unknown: false,
            alone: false,
        }
    }

    /// Whether it is an entry of this stream.
    pub fn is_of(&self, source: &Arc<Source>) -> bool {
        Arc::ptr_eq(&self.batch.source, source)
    }

    pub fn slot(&self) -> &Slot {
        &self.batch.slots[self.index as usize]
    }

    /// The first stream that it emits to, now or later.
    pub fn emits_to(&self) -> Option<&str> {
        let now = self.items.events.iter().map(|event| &event.stream[..]);
        let later = self.items.lines.iter().flat_map(Line::events);
        now.chain(later.map(|(stream, _)| stream)).next()
    }

    /// What is asked of Redis to commit it; `reaches` says whether one step can reach both of two streams.
    pub fn commit<'a>(
        &'a self,
        by: &'a CommitRequests,
        reaches: impl Fn(&str, &str) -> bool,
    ) -> Commit<'a> {
        let slot = self.slot();
        let events = self.items.events.iter().enumerate();
        let events = events.map(|(place, event)| self.leaving(place, event, &reaches));
        Commit {
            id: slot.id,
            consumer: by.worker.consumer(self.batch.alone),
            count: slot.count,
            nobodys_until: self.nobodys_until(&by.clock),
            recorded: slot.recorded,
            mark: self.mark(&by.windows),
            events: events.collect(),
            effects: &self.items.effects,
            lines: self.items.lines.iter().map(Placed::new).collect(),
        }
    }

    fn nobodys_until(&self, clock: &ServerClock) -> u64 {
        let left = self.batch.ours_to_end_for(self.slot());
        let left = left.filter(|_| self.nobodys);
        left.map_or(0, |left| clock.shows_in(left))
    }

    fn mark(&self, windows: &Windows) -> Option<Mark> {
        mark_of(&self.ctx, &self.batch.source, windows)
    }

    /// An event that leaves, the one emitted at this place.
    fn leaving<'a>(
        &'a self,
        place: usize,
        event: &'a Emitted,
        reaches: impl Fn(&str, &str) -> bool,
    ) -> Leaving<'a> {
        let cause = self.ctx.envelope();
        let by = || {
            let (source, id) = (cause.source_bytes(), cause.id());
            identity::which(source, id.as_bytes(), cause.type_bytes())
        };
        // Of this entry of this event: whoever handles it again after a failover emits the same.
        leaving(
            &self.batch.source,
            self.slot().id,
            by,
            place,
            event,
            reaches,
        )
    }
}

/// The mark of an event that is to be known as done. One without an id of its own is like no other. A replayed one runs
/// whatever the marks say.
pub(super) fn mark_of(ctx: &Context, source: &Source, windows: &Windows) -> Option<Mark> {
    let envelope = ctx.envelope();
    Some(Mark {
        lasts: windows.lasts(envelope.type_bytes())?,
        event: Identity::of(envelope.fields())?,
        counts: !source.deletes(),
    })
}

/// An event that leaves with the acknowledgement of entry `id`, emitted at `place` by what `by` says.
pub(super) fn leaving<'a>(
    source: &Source,
    id: EntryId,
    by: impl Fn() -> String,
    place: usize,
    event: &'a Emitted,
    reaches: impl Fn(&str, &str) -> bool,
) -> Leaving<'a> {
    let (keys, fields) = (&source.keys, event.envelope.fields());
    let stream = &event.stream[..];
    if reaches(&keys.stream, stream) {
        let (key, mark) = (Cow::Borrowed(stream), None);
        return Leaving {
            stream,
            key,
            fields,
            mark,
        };
    }
    let group = &source.surroundings.group;
    let (id, place) = (id.to_string(), place.to_string());
    let emitted = [&keys.stream, &id, &by(), group, &place, stream];
    Leaving {
        stream,
        key: Cow::Owned(keys.outbox.waiting(stream)),
        fields,
        mark: Some(identity::emitted(&emitted, fields)),
    }
}

/// What these requests are made by.
pub(crate) struct CommitRequests {
    pub worker: Arc<Worker>,
    pub clock: Arc<ServerClock>,
    pub windows: Arc<Windows>,
}

impl CommitRequests {
    pub fn new(worker: Arc<Worker>, clock: Arc<ServerClock>, windows: Arc<Windows>) -> Self {
        CommitRequests {
            worker,
            clock,
            windows,
        }
    }

    /// About how many bytes, and at most how many arguments, the request has that commits this.
    pub fn size(&self, job: &Job, link: &Link) -> (usize, usize) {
        let commit = job.commit(self, |a, b| link.reaches(a, b));
        (commit.size(), commit.arguments())
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
        let is_cluster = link.greeting.is_cluster;
        if is_cluster {
            let tried = std::mem::take(&mut lot);
            for job in tried {
                match beyond_reach(&link, &job) {
                    Some(failed) => answers.push((job, Some(failed))),
                    None => lot.push(job),
                }
            }
        }
        let commits: Vec<Commit> = lot
            .iter()
            .map(|job| job.commit(self, |a, b| link.reaches(a, b)))
            .collect();
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
        let mut lot: Vec<_> = lot.into_iter().zip(outcomes).collect();
        for (job, outcome) in &mut lot {
            // It goes once more, to where its topics have grown to.
            let is_sealed = *outcome == Some(CommitOutcome::Sealed);
            if is_sealed && follow_growth(&job.batch.source, &mut job.items).await {
                *outcome = None;
            }
        }
        if is_cluster {
            let done = lot
                .iter()
                .filter(|(_, outcome)| *outcome == Some(CommitOutcome::Done));
            let events = done.flat_map(|(job, _)| &job.items.events);
            let far = events.filter(|event| !link.reaches(&source.keys.stream, &event.stream));
            source.emits.add(far.map(|event| &event.stream[..]));
        }
        answers.extend(lot);
        (answers, met)
    }
}

/// Gives events that go to sealed streams the streams that their topics have for them by now. Returns whether any has
/// another one.
pub(super) async fn follow_growth(source: &Source, items: &mut Items) -> bool {
    let Some(pool) = &source.surroundings.pool else {
        return false;
    };
    let mut has_another = false;
    let now = items.events.iter_mut();
    let now = now.map(|event| (&mut event.stream, &event.envelope));
    let later = items
        .lines
        .iter_mut()
        .filter_map(|line| match &mut line.what {
            What::Schedule(later) => Some((&mut later.stream, &later.envelope)),
            _ => None,
        });
    for (to, envelope) in now.chain(later) {
        let (id, subject) = (envelope.id(), envelope.subject().map(str::as_bytes));
        let grown = pool.grown_from(to, subject, id.as_bytes());
        if let Ok(Some(stream)) = grown.await {
            *to = stream;
            has_another = true;
        }
    }
    has_another
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
            let what = commit.doing(missing.place);
            CommitOutcome::Failed(what + &missing.words)
        }));
    }
    let is_for_some = outcomes.iter().any(Option::is_some);
    (outcomes, (!is_for_some).then_some(trouble))
}

/// On a cluster: what no step with the acknowledgement can do, if there is anything.
fn beyond_reach(link: &Link, job: &Job) -> Option<CommitOutcome> {
    let stream = &job.batch.source.keys.stream;
    let mut effects = job.items.effects.iter();
    if let Some(far) = effects.find(|effect| !link.reaches(stream, &effect.key)) {
        return Some(CommitOutcome::Failed(format!(
            "the effect {far}: on a cluster its key must be in the hash slot of {stream:?}: give it the same {{tag}}"
        )));
    }
    let mut lines = job.items.lines.iter().map(Placed::new);
    let far = lines.find(|line| !link.reaches(stream, line.key()))?;
    Some(CommitOutcome::Failed(format!(
        "{}: on a cluster one step with the acknowledgement reaches the hash slot of {stream:?} alone, and {} is in \
         another: {}",
        far.doing(),
        far.key(),
        far.instead()
    )))
}
