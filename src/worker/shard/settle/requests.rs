//! The steps the settler sends: which requests a lot of settlements comes to, stream by stream, and whose answer is
//! whose.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::about::About;
use crate::clock;
use crate::fields::Fields;
use crate::handler::BuriedEvent;
use crate::identity::Identity;
use crate::stream::{
    BroughtBack, Burial, Buried, Cancelling, Link, ParkOutcome, Parking, Trouble, waiting,
};
use crate::worker::run::dedup_windows::Windows;
use crate::worker::run::outcome::Body;
use crate::worker::run::routes::Routes;
use crate::worker::run::verdict::Reason;
use crate::worker::shard::clock::ServerClock;
use crate::worker::state::identity::Identity as Worker;
use crate::worker::state::inflight::{Batch, OWN_FOR, Slot};
use crate::worker::state::signals::Signals;
use crate::worker::state::source::{Source, by_source};

/// Most burials after which it is looked whether there is any sense in more, and most entries of nobody's that are brought
/// back at once.
const AT_ONCE: usize = 100;
/// When the next attempt is made to bury what could not be buried.
pub(crate) const DOOMED_WAIT: Duration = Duration::from_secs(5);
/// So many burials refused, and none done, mean that none can be for a while.
const HOPELESS: usize = 8;

/// An entry that has not succeeded, and what is to be done with it.
pub(crate) struct Job {
    pub batch: Arc<Batch>,
    pub index: u32,
    pub step: Step,
    pub body: Body,
    pub attempt: u32,
    /// When the first request for it was sent whose answer got lost: it may have been done.
    pub asked: Option<Instant>,
}

/// What a verdict asks of Redis.
pub(crate) enum Step {
    Park {
        delay: Duration,
        released: bool,
        /// It waits for a worker that can handle it.
        listed: bool,
        doomed: Option<Reason>,
        error: String,
        /// It is not pending with anybody, and is brought back.
        nobodys: bool,
    },
    Bury {
        reason: Reason,
        error: String,
        /// It is not pending with anybody, and not in the stream: it can't be parked.
        nobodys: bool,
    },
    /// It is acknowledged, and noted as cancelled. If that is refused it stays here.
    Cancel,
}

impl Job {
    pub fn slot(&self) -> &Slot {
        &self.batch.slots[self.index as usize]
    }

    /// Tells hooks that it is a dead letter now.
    pub fn tell_hooks(&self, routes: &Routes) {
        let Step::Bury { reason, error, .. } = &self.step else {
            return;
        };
        let source = &self.batch.source;
        routes.hooks.died(|| BuriedEvent {
            stream: source.surroundings.stream.clone(),
            group: source.surroundings.group.clone(),
            entry: self.slot().id,
            fields: self.fields().clone(),
            reason: *reason,
            error: error.clone(),
            attempts: self.attempts(routes).0,
        });
    }

    /// The entry, for a line of the log.
    pub fn about(&self) -> About<'_> {
        let stream = &self.batch.source.keys.stream;
        match &self.body {
            Body::Event(ctx) => About::of(ctx, stream),
            Body::Raw(entry) => About::raw(entry, stream, self.attempt),
        }
    }

    /// The last field of that name: what a replay adds stands at the end.
    fn last_text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.fields().iter().rfind(|(n, _)| *n == name.as_bytes())?;
        std::str::from_utf8(value).ok()
    }

    /// Whether the end of an entry that is nobody's is ours to write.
    pub fn is_ours_to_bury(&self) -> bool {
        self.ours_to_bury_for().is_some()
    }

    /// And for how long that holds. Once an answer got lost, what it told of may have been done, and that is known in
    /// Redis for a while only.
    fn ours_to_bury_for(&self) -> Option<Duration> {
        let left = self.batch.ours_to_end_for(self.slot())?;
        let Some(asked) = self.asked else {
            return Some(left);
        };
        let known = OWN_FOR.saturating_sub(asked.elapsed());
        Some(left.min(known)).filter(|left| !left.is_zero())
    }

    /// Whether it was passed over when it came: nothing of it is here. No entry is without fields.
    pub fn is_unread(&self) -> bool {
        self.fields().is_empty()
    }

    fn fields(&self) -> &Fields {
        match &self.body {
            Body::Event(ctx) => ctx.envelope().fields(),
            Body::Raw(entry) => &entry.fields,
        }
    }

    /// How many attempts it had, and how many runs behind the last one.
    fn attempts(&self, routes: &Routes) -> (u32, u32) {
        let most = match &self.body {
            Body::Event(ctx) => return (ctx.attempt(), ctx.crash_checks()),
            Body::Raw(entry) => entry
                .fields
                .value("type")
                .and_then(|event_type| routes.find(event_type))
                .map_or(self.attempt, |bound| bound.policy.max_attempts),
        };
        (self.attempt.min(most), self.attempt.saturating_sub(most))
    }

    /// What it is listed as where it waits for a worker that can handle it.
    fn listed(&self) -> Option<Vec<u8>> {
        match &self.body {
            Body::Event(ctx) => {
                let event = ctx.envelope();
                waiting::listed(event.type_bytes(), event.version())
            }
            Body::Raw(_) => None,
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.fields().value(name)?).ok()
    }

    /// The mark of its event, where its handler deduplicates.
    fn mark(&self, windows: &Windows) -> Option<String> {
        let (source, fields) = (&self.batch.source, self.fields());
        if source.deletes() || windows.is_empty() {
            return None;
        }
        windows.lasts(fields.value("type")?)?;
        Some(source.keys.seen(Identity::of(fields)?.which()))
    }

    /// What is left to do after a request for it that was sent then.
    pub fn after(self, met: &Trouble, sent: Instant) -> Job {
        let asked = self
            .asked
            .or_else(|| matches!(met, Trouble::Broken(_)).then_some(sent));
        Job { asked, ..self }
    }

    /// The same, of an entry that turned out to be nobody's.
    pub fn into_nobodys(self) -> Job {
        let step = match self.step {
            Step::Park {
                delay,
                released,
                listed,
                doomed,
                error,
                ..
            } => Step::Park {
                delay,
                released,
                listed,
                doomed,
                error,
                nobodys: true,
            },
            end => end,
        };
        Job { step, ..self }
    }

    /// The burial that was refused, as a parking that remembers it; or the same again where it can't be parked.
    pub fn doomed(self) -> Result<Job, Job> {
        let step = match self.step {
            Step::Bury { nobodys: true, .. } | Step::Cancel => return Err(self),
            Step::Bury { reason, error, .. } => Step::Park {
                delay: DOOMED_WAIT,
                released: true,
                listed: false,
                doomed: Some(reason),
                error,
                nobodys: false,
            },
            park => park,
        };
        Ok(Job { step, ..self })
    }
}

/// What is left for what was to be parked, and is nobody's, if it can't be brought back.
pub(crate) fn gone(step: Step) -> Step {
    let Step::Park { doomed, error, .. } = step else {
        return step;
    };
    let error = format!(
        "{error} (and it was no longer pending: acknowledged, deleted or trimmed while it ran, or its group was destroyed; \
         it may have been handled)"
    );
    Step::Bury {
        reason: doomed.unwrap_or(Reason::Failed),
        error,
        nobodys: true,
    }
}

/// What these requests are made by.
pub(crate) struct Requests {
    worker: Arc<Worker>,
    signals: Arc<Signals>,
    pub routes: Arc<Routes>,
    pub clock: Arc<ServerClock>,
    windows: Arc<Windows>,
}

impl Requests {
    pub fn new(
        worker: Arc<Worker>,
        signals: Arc<Signals>,
        routes: Arc<Routes>,
        clock: Arc<ServerClock>,
        windows: Arc<Windows>,
    ) -> Self {
        Requests {
            worker,
            signals,
            routes,
            clock,
            windows,
        }
    }

    /// Parks entries; returns for each what became of it.
    pub async fn park(
        &self,
        mut link: Link,
        jobs: Vec<Job>,
    ) -> Vec<(Job, Result<ParkOutcome, Trouble>)> {
        let mut results: Vec<Option<Result<ParkOutcome, Trouble>>> =
            jobs.iter().map(|_| None).collect();
        for (source, places) in by_source(&jobs, |job| &job.batch.source) {
            let parkings: Vec<Parking> = places
                .iter()
                .filter_map(|at| self.parking(&jobs[*at]))
                .collect();
            let longest_sleep = parkings.iter().map(|parking| parking.delay).min();
            match link
                .park(&source.keys, &source.surroundings.group, &parkings)
                .await
            {
                Ok(outcomes) => {
                    for (at, outcome) in places.into_iter().zip(outcomes) {
                        self.note_that_it_waits(&jobs[at], &outcome);
                        results[at] = Some(Ok(outcome));
                    }
                    if let Some(delay) = longest_sleep {
                        self.signals.due_in(delay);
                    }
                }
                Err(trouble) => places
                    .into_iter()
                    .for_each(|at| results[at] = Some(Err(trouble.again()))),
            }
        }
        let missing = || Err(Trouble::garbled("parking entries"));
        jobs.into_iter()
            .zip(results)
            .map(|(job, result)| (job, result.unwrap_or_else(missing)))
            .collect()
    }

    /// Moves entries to the dead letters, and settles those that are cancelled; returns for each what became of it.
    pub async fn bury(&self, link: Link, jobs: Vec<Job>) -> Vec<(Job, Result<Buried, Trouble>)> {
        let mut results: Vec<Option<Result<Buried, Trouble>>> = jobs.iter().map(|_| None).collect();
        for (source, places) in by_source(&jobs, |job| &job.batch.source) {
            let (cancelled, places) = places
                .into_iter()
                .partition::<Vec<_>, _>(|at| matches!(jobs[*at].step, Step::Cancel));
            for places in cancelled.chunks(AT_ONCE) {
                let sent = places
                    .iter()
                    .map(|at| self.cancel_one(link.clone(), &jobs[*at]));
                let outcomes = join_all(sent).await;
                let outcomes = places.iter().zip(outcomes);
                outcomes.for_each(|(at, outcome)| results[*at] = Some(outcome));
            }
            self.bury_lots(link.clone(), &source, (&jobs, &places), &mut results)
                .await;
        }
        let missing = || Err(Trouble::garbled("writing a dead letter"));
        jobs.into_iter()
            .zip(results)
            .map(|(job, result)| (job, result.unwrap_or_else(missing)))
            .collect()
    }

    /// Moves those at these places to the dead letters, until a lot tells that none can be for a while.
    async fn bury_lots(
        &self,
        mut link: Link,
        source: &Source,
        (jobs, places): (&[Job], &[usize]),
        results: &mut [Option<Result<Buried, Trouble>>],
    ) {
        let (keys, group) = (&source.keys, &source.surroundings.group);
        let mut refused: Option<Trouble> = None;
        for places in places.chunks(AT_ONCE) {
            if let Some(refused) = &refused {
                let again = || Some(Err(refused.again()));
                places.iter().for_each(|at| results[*at] = again());
                continue;
            }
            let burials = places
                .iter()
                .filter_map(|at| Some((*at, self.burial(&jobs[*at])?)));
            let (places, burials): (Vec<usize>, Vec<Burial>) = burials.unzip();
            let outcomes = link.bury(keys, group, source.deletes(), &burials).await;
            refused = hopeless(outcomes.iter());
            let outcomes = places.into_iter().zip(outcomes);
            outcomes.for_each(|(at, outcome)| results[at] = Some(outcome));
        }
    }

    /// What waits for its handler comes before new entries of its type.
    fn note_that_it_waits(&self, job: &Job, outcome: &ParkOutcome) {
        if let (Step::Park { listed: true, .. }, ParkOutcome::Parked) = (&job.step, outcome)
            && let Some(bound) = job
                .fields()
                .value("type")
                .and_then(|name| self.routes.find(name))
            && let Body::Event(ctx) = &job.body
            && bound.takes(ctx.envelope().version())
        {
            job.batch.source.list(bound.place);
        }
    }

    /// What is asked of Redis to park an entry.
    pub fn parking<'a>(&'a self, job: &'a Job) -> Option<Parking<'a>> {
        let Step::Park {
            delay,
            released,
            listed,
            doomed,
            error,
            ..
        } = &job.step
        else {
            return None;
        };
        Some(Parking {
            id: job.slot().id,
            consumer: self.worker.consumer(job.batch.alone),
            count: job.slot().count,
            delay: *delay,
            released: *released,
            age: clock::now().saturating_duration_since(job.batch.since),
            doomed: doomed.map(Reason::as_str),
            listed: listed.then(|| job.listed()).flatten(),
            error,
        })
    }

    /// Parks what is nobody's; returns for each what became of it.
    pub async fn bring_back(
        &self,
        link: Link,
        jobs: Vec<Job>,
    ) -> Vec<(Job, Result<BroughtBack, Trouble>)> {
        let send = |mut link, job| async move {
            let result = self.bring_one_back(&mut link, &job).await;
            (job, result)
        };
        in_lots(link, jobs, send).await
    }

    async fn bring_one_back(&self, link: &mut Link, job: &Job) -> Result<BroughtBack, Trouble> {
        let Some(parking) = self.parking(job) else {
            return Err(Trouble::garbled("parking entries"));
        };
        let source = &job.batch.source;
        let (group, delay) = (&source.surroundings.group, parking.delay);
        let slot = job.slot();
        let (attempts, crash_checks) = job.attempts(&self.routes);
        let released = slot.count.saturating_sub(attempts + crash_checks);
        let released = slot.recorded.then_some(released);
        let bound = job
            .fields()
            .value("type")
            .and_then(|name| self.routes.find(name));
        let own = match &job.body {
            Body::Event(ctx) => ctx.envelope().max_attempts(),
            Body::Raw(_) => None,
        };
        let own = own.unwrap_or(u32::MAX);
        let has_more = bound.is_none_or(|bound| attempts < bound.policy.max_attempts.min(own));
        let nobodys = (self.own_until(job), released, has_more);
        let outcome = link
            .bring_back(&source.keys, group, parking, nobodys)
            .await?;
        self.signals.due_in(delay);
        Ok(outcome)
    }

    /// Until when (ms, by the server's clock) the end of an entry is ours to write should it be nobody's; 0 if it is not.
    fn own_until(&self, job: &Job) -> u64 {
        job.ours_to_bury_for()
            .map_or(0, |left| self.clock.shows_in(left))
    }

    /// What is asked of Redis to move an entry to the dead letters.
    pub fn burial<'a>(&'a self, job: &'a Job) -> Option<Burial<'a>> {
        let Step::Bury { reason, error, .. } = &job.step else {
            return None;
        };
        let source = &job.batch.source;
        let (attempts, crash_checks) = job.attempts(&self.routes);
        Some(Burial {
            id: job.slot().id,
            consumer: self.worker.consumer(job.batch.alone),
            count: job.slot().count,
            own_until: self.own_until(job),
            age: clock::now().saturating_duration_since(job.batch.since),
            reason: reason.as_str(),
            error,
            attempts,
            crash_checks,
            handler: job.text("type").unwrap_or(""),
            stream: &source.surroundings.stream,
            // Only a replayed copy has been replayed, whatever an event's own fields are called.
            replays: if source.deletes() {
                job.last_text("replay.count")
                    .and_then(|count| count.parse().ok())
                    .unwrap_or(0)
            } else {
                0
            },
            fields: job.fields(),
            mark: job.mark(&self.windows),
            holds: source.order.as_ref().is_some_and(|order| order.holds),
        })
    }

    async fn cancel_one(&self, mut link: Link, job: &Job) -> Result<Buried, Trouble> {
        let source = &job.batch.source;
        let cancelling = Cancelling {
            id: job.slot().id,
            consumer: self.worker.consumer(job.batch.alone),
            count: job.slot().count,
            own_until: self.own_until(job),
            mark: job.mark(&self.windows),
        };
        let (group, delete) = (&source.surroundings.group, source.deletes());
        link.cancelled(&source.keys, group, delete, &cancelling)
            .await
    }
}

/// Sends a request for each job, so many at once.
async fn in_lots<T, F: Future<Output = (Job, Result<T, Trouble>)>>(
    link: Link,
    jobs: Vec<Job>,
    send: impl Fn(Link, Job) -> F,
) -> Vec<(Job, Result<T, Trouble>)> {
    let mut out = Vec::with_capacity(jobs.len());
    let mut jobs = jobs.into_iter().peekable();
    while jobs.peek().is_some() {
        let lot = jobs.by_ref().take(AT_ONCE);
        let lot = join_all(lot.map(|job| send(link.clone(), job))).await;
        out.extend(lot);
    }
    out
}

/// What stood in the way of every burial, where there were enough to tell.
pub(crate) fn hopeless<'a>(
    tried: impl ExactSizeIterator<Item = &'a Result<Buried, Trouble>>,
) -> Option<Trouble> {
    let (mut why, count) = (None, tried.len());
    for result in tried {
        match result {
            Err(refused) if refused.is_a_refusal() => why = Some(refused.again()),
            _ => return None,
        }
    }
    why.filter(|_| count >= HOPELESS)
}
