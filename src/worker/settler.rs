//! The settler: carries verdicts out in Redis, over a connection of its own. What finishes while it waits for an
//! answer goes out together with the next request, so that acknowledgements coalesce without a timer. A step whose
//! answer got lost is repeated until it is known; until then the entry stays held, and is renewed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::complaint::{Complaint, Pause};
use super::held::{Batch, Owner, Slot};
use super::shared::{Shared, sleep_until};
use super::source::Source;
use super::verdict::{Reason, Verdict};
use crate::context::Context;
use crate::error::ErrorKind;
use crate::event::{Entry, Fields};
use crate::stream::{Ack, Burial, Buried, Link, ParkOutcome, Parking, Trouble};

/// Most settlements in one step.
const STEP: usize = 4096;
/// Most ids in one XACK, so that Redis does nothing for too long.
const ACKS: usize = 1000;
/// Most burials under way at once.
const BURIALS: usize = 32;
/// When the next attempt is made to bury what could not be buried.
const DOOMED_WAIT: Duration = Duration::from_secs(5);
/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(10);

/// What has become of entries, on its way to Redis.
pub(super) enum Settlement {
    /// These slots of a batch have succeeded.
    Acks(Arc<Batch>, Vec<u32>),
    /// One entry that has not.
    Other {
        batch: Arc<Batch>,
        index: u32,
        verdict: Verdict,
        body: Body,
        attempt: u32,
    },
}

/// The fields of an entry that may have to be buried.
pub(super) enum Body {
    Event(Context),
    Raw(Entry),
}

/// Carries verdicts out.
pub(super) struct Settler {
    shared: Arc<Shared>,
    link: Option<Link>,
    acks: Vec<(Arc<Batch>, Vec<u32>)>,
    others: Vec<Job>,
    complaint: Complaint,
    pause: Pause,
    /// Something was refused or got no answer: nothing is sent before.
    not_before: Option<Instant>,
}

struct Job {
    batch: Arc<Batch>,
    index: u32,
    step: Step,
    body: Body,
    attempt: u32,
}

enum Step {
    Park {
        delay: Duration,
        given_back: bool,
        doomed: Option<Reason>,
        error: String,
    },
    Bury {
        reason: Reason,
        error: String,
    },
}

impl Settler {
    pub fn new(shared: Arc<Shared>) -> Self {
        Settler {
            shared,
            link: None,
            acks: Vec::new(),
            others: Vec::new(),
            complaint: Complaint::default(),
            pause: Pause::new(),
            not_before: None,
        }
    }

    /// Settles what comes in until nothing more can come and all of it is settled, or the worker gives up.
    pub async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Settlement>) {
        let abandon = self.shared.abandon.clone();
        let mut news = Vec::new();
        let mut closed = false;
        loop {
            let idle = self.acks.is_empty() && self.others.is_empty();
            if idle && closed {
                return;
            }
            let later = self.not_before.filter(|_| !idle);
            tokio::select! {
                biased;
                () = abandon.cancelled() => return,
                count = inbox.recv_many(&mut news, STEP), if !closed && (idle || later.is_some()) => closed = count == 0,
                () = sleep_until(later), if later.is_some() => self.not_before = None,
                // Nothing to wait for: on with what is here.
                () = std::future::ready(()), if !idle && later.is_none() => {}
            }
            while news.len() < STEP {
                match inbox.try_recv() {
                    Ok(settlement) => news.push(settlement),
                    Err(_) => break,
                }
            }
            for settlement in news.drain(..) {
                self.sort(settlement);
            }
            if self.not_before.is_none_or(|at| at <= Instant::now()) {
                self.not_before = None;
                tokio::select! {
                    biased;
                    () = self.step() => {}
                    () = abandon.cancelled() => return,
                }
            }
        }
    }

    /// Turns a verdict into the step it asks for, by whose the entry is.
    fn sort(&mut self, settlement: Settlement) {
        let (batch, index, verdict, body, attempt) = match settlement {
            Settlement::Acks(batch, slots) => return self.acks.push((batch, slots)),
            Settlement::Other {
                batch,
                index,
                verdict,
                body,
                attempt,
            } => (batch, index, verdict, body, attempt),
        };
        let slot = &batch.slots[index as usize];
        let step = match (slot.owner(), verdict) {
            (_, Verdict::Ack) => return self.acks.push((batch, vec![index])),
            // What became of it here is no longer of interest.
            (Owner::Another, _) => return self.done(&batch, [slot]),
            (_, Verdict::Bury { reason, error }) => Step::Bury { reason, error },
            (Owner::Nobody, Verdict::Retry { error, .. } | Verdict::Release { error, .. }) => {
                nobodys(error)
            }
            (Owner::Us, Verdict::Retry { delay, error }) => Step::Park {
                delay,
                given_back: false,
                doomed: None,
                error,
            },
            (Owner::Us, Verdict::Release { delay, error }) => Step::Park {
                delay,
                given_back: true,
                doomed: None,
                error,
            },
        };
        self.others.push(Job {
            batch,
            index,
            step,
            body,
            attempt,
        });
    }

    async fn step(&mut self) {
        if self.acks.is_empty() && self.others.is_empty() {
            return;
        }
        let link = match self.link.take() {
            Some(link) => link,
            None => match self.shared.connect("settle", ANSWER).await {
                Ok(link) => link,
                Err(error) => return self.wait(Trouble::Broken(error)),
            },
        };
        self.link = Some(link.clone());
        let acks = std::mem::take(&mut self.acks);
        let (parks, burials) = std::mem::take(&mut self.others)
            .into_iter()
            .partition::<Vec<_>, _>(|job| matches!(job.step, Step::Park { .. }));
        // Three requests at once on one connection: none waits for the others' answers.
        let shared = self.shared.clone();
        let (acked, parked, buried) = tokio::join!(
            acknowledge(&shared, link.clone(), acks),
            park(&shared, link.clone(), parks),
            bury(&shared, link, burials),
        );
        let mut trouble = None;
        for (batch, slots, result) in acked {
            match result {
                None => self.done(&batch, slots.iter().map(|at| &batch.slots[*at as usize])),
                Some(met) => {
                    trouble = Some(met);
                    self.acks.push((batch, slots));
                }
            }
        }
        for (job, result) in parked {
            match result {
                Ok(outcome @ (ParkOutcome::Nobody | ParkOutcome::Trimmed))
                    if outcome == ParkOutcome::Trimmed || job.is_ours_to_bury() =>
                {
                    job.slot().is_nobodys();
                    let (Step::Park { error, .. } | Step::Bury { error, .. }) = &job.step;
                    self.others.push(Job {
                        step: nobodys(error.clone()),
                        ..job
                    });
                }
                Ok(_) => self.done(&job.batch, [job.slot()]),
                Err(met) => {
                    trouble = Some(met);
                    self.others.push(job);
                }
            }
        }
        for (job, result) in buried {
            match result {
                Ok(_) => self.done(&job.batch, [job.slot()]),
                // It must not be acknowledged, and must not take up room here: it waits in Redis to be buried.
                Err(Trouble::Refused(met)) => {
                    self.complaint.warn(format!(
                        "{met}; the entry is kept and will be buried when this is mended"
                    ));
                    let doomed = job.doomed();
                    self.others.push(doomed);
                }
                Err(met) => {
                    trouble = Some(met);
                    self.others.push(job);
                }
            }
        }
        match trouble {
            Some(trouble) => self.wait(trouble),
            None if self.others.is_empty() => self.pause.reset(),
            None => {}
        }
    }

    /// Nothing is sent for a while; what was not settled stays here.
    fn wait(&mut self, trouble: Trouble) {
        match &trouble {
            Trouble::Broken(_) => self.link = None,
            Trouble::NoGroup(_) => self.shared.rejoin(),
            Trouble::Refused(_) => {}
        }
        self.complaint.warn(trouble.error().to_string());
        self.not_before = Some(Instant::now() + self.pause.next());
    }

    fn done<'a>(&self, batch: &Batch, slots: impl IntoIterator<Item = &'a Slot>) {
        self.shared.settled(batch, slots);
    }
}

impl Job {
    fn slot(&self) -> &Slot {
        &self.batch.slots[self.index as usize]
    }

    /// The last field of that name: what a replay adds stands at the end.
    fn last_text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.fields().iter().rfind(|(n, _)| n == name.as_bytes())?;
        std::str::from_utf8(value).ok()
    }

    /// Should the entry be nobody's: nobody else can have had it since it was ours. What has once been found to be so
    /// stays so, for what is nobody's can't be taken.
    fn is_ours_to_bury(&self) -> bool {
        !self.batch.is_lapsed() || self.slot().owner() == Owner::Nobody
    }

    fn consumer<'a>(&self, shared: &'a Shared) -> &'a str {
        if self.batch.alone {
            &shared.alone
        } else {
            &shared.consumer
        }
    }

    fn fields(&self) -> &Fields {
        match &self.body {
            Body::Event(ctx) => ctx.envelope().fields(),
            Body::Raw(entry) => &entry.fields,
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.fields().iter().find(|(n, _)| n == name.as_bytes())?;
        std::str::from_utf8(value).ok()
    }

    /// The burial that was refused, as a parking that remembers it.
    fn doomed(self) -> Job {
        let step = match self.step {
            Step::Bury { reason, error } => Step::Park {
                delay: DOOMED_WAIT,
                given_back: true,
                doomed: Some(reason),
                error,
            },
            park => park,
        };
        Job { step, ..self }
    }
}

fn nobodys(error: String) -> Step {
    let error = format!(
        "{error} (and it was no longer pending: trimmed, or acknowledged or deleted by hand)"
    );
    Step::Bury {
        reason: Reason::Failed,
        error,
    }
}

/// Acknowledges slots of batches. Answers for each lot what stood in the way, if anything.
async fn acknowledge(
    shared: &Shared,
    mut link: Link,
    acks: Vec<(Arc<Batch>, Vec<u32>)>,
) -> Vec<(Arc<Batch>, Vec<u32>, Option<Trouble>)> {
    let mut out: Vec<(Arc<Batch>, Vec<u32>, Option<Trouble>)> = acks
        .into_iter()
        .map(|(batch, slots)| (batch, slots, None))
        .collect();
    let all_fenced = shared.is_fenced();
    for (source, lots) in by_source(&out, |(batch, ..)| &batch.source) {
        let group = &source.surroundings.group;
        let (mut plain, mut scripted, mut fenced) = (Vec::new(), Vec::new(), Vec::new());
        for lot in &lots {
            let (batch, slots, _) = &out[*lot];
            let consumer = if batch.alone {
                &shared.alone
            } else {
                &shared.consumer
            };
            let is_fenced = all_fenced || batch.is_fenced();
            for slot in slots.iter().map(|at| &batch.slots[*at as usize]) {
                let (id, count) = (slot.id, slot.count);
                let ack = Ack {
                    id,
                    consumer,
                    count,
                };
                if is_fenced {
                    fenced.push(ack);
                } else if slot.recorded || source.deletes() {
                    scripted.push(ack);
                } else {
                    plain.push(id);
                }
            }
        }
        let mut trouble = None;
        for ids in plain.chunks(ACKS) {
            if let Err(met) = link.ack(&source.keys, group, ids).await {
                trouble = Some(met);
                break;
            }
        }
        for (acks, is_fenced) in [(scripted, false), (fenced, true)] {
            if trouble.is_none() && !acks.is_empty() {
                let acked = link
                    .ack_with_records(&source.keys, group, is_fenced, source.deletes(), &acks)
                    .await;
                trouble = acked.err();
            }
        }
        if let Some(trouble) = trouble {
            for lot in lots {
                out[lot].2 = Some(trouble.again());
            }
        }
    }
    out
}

async fn park(
    shared: &Shared,
    mut link: Link,
    jobs: Vec<Job>,
) -> Vec<(Job, Result<ParkOutcome, Trouble>)> {
    let mut results: Vec<Option<Result<ParkOutcome, Trouble>>> =
        jobs.iter().map(|_| None).collect();
    for (source, places) in by_source(&jobs, |job| &job.batch.source) {
        let parkings: Vec<Parking> = places
            .iter()
            .filter_map(|at| parking(shared, &jobs[*at]))
            .collect();
        let longest_sleep = parkings.iter().map(|parking| parking.delay).min();
        match link
            .park(&source.keys, &source.surroundings.group, &parkings)
            .await
        {
            Ok(outcomes) => {
                for (at, outcome) in places.into_iter().zip(outcomes) {
                    results[at] = Some(Ok(outcome));
                }
                if let Some(delay) = longest_sleep {
                    shared.due_in(delay);
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

fn parking<'a>(shared: &'a Shared, job: &'a Job) -> Option<Parking<'a>> {
    let Step::Park {
        delay,
        given_back,
        doomed,
        error,
    } = &job.step
    else {
        return None;
    };
    Some(Parking {
        id: job.slot().id,
        consumer: job.consumer(shared),
        count: job.slot().count,
        delay: *delay,
        given_back: *given_back,
        age: job.batch.since.elapsed(),
        doomed: doomed.map(Reason::as_str),
        error,
    })
}

async fn bury(shared: &Shared, link: Link, jobs: Vec<Job>) -> Vec<(Job, Result<Buried, Trouble>)> {
    let mut out = Vec::with_capacity(jobs.len());
    let mut jobs = jobs.into_iter().peekable();
    while jobs.peek().is_some() {
        let lot = jobs.by_ref().take(BURIALS).map(|job| {
            let mut link = link.clone();
            async move {
                let result = bury_one(shared, &mut link, &job).await;
                (job, result)
            }
        });
        out.extend(join_all(lot).await);
    }
    out
}

async fn bury_one(shared: &Shared, link: &mut Link, job: &Job) -> Result<Buried, Trouble> {
    let Step::Bury { reason, error } = &job.step else {
        return Err(Trouble::garbled("writing a dead letter"));
    };
    let source = &job.batch.source;
    let burial = Burial {
        id: job.slot().id,
        consumer: job.consumer(shared),
        count: job.slot().count,
        own: job.is_ours_to_bury(),
        age: job.batch.since.elapsed(),
        reason: reason.as_str(),
        error,
        attempts: job.attempt,
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
    };
    link.bury(
        &source.keys,
        &source.surroundings.group,
        source.deletes(),
        &burial,
    )
    .await
}

/// The places of what belongs to one stream, stream by stream; a worker has few.
fn by_source<T>(
    items: &[T],
    source: impl Fn(&T) -> &Arc<Source>,
) -> Vec<(Arc<Source>, Vec<usize>)> {
    let mut lots: Vec<(Arc<Source>, Vec<usize>)> = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let of = source(item);
        match lots.iter_mut().find(|(known, _)| Arc::ptr_eq(known, of)) {
            Some((_, places)) => places.push(at),
            None => lots.push((of.clone(), vec![at])),
        }
    }
    lots
}

impl Trouble {
    /// The same trouble for another entry of the same request.
    fn again(&self) -> Trouble {
        let copy = |error: &crate::Error| crate::Error::new(error.kind(), error.to_string());
        match self {
            Trouble::Broken(error) => Trouble::Broken(copy(error)),
            Trouble::NoGroup(error) => Trouble::NoGroup(copy(error)),
            Trouble::Refused(error) => Trouble::Refused(copy(error)),
        }
    }

    /// Whether waiting can't help.
    pub(super) fn is_final(&self) -> bool {
        matches!(
            self.error().kind(),
            ErrorKind::Unsupported | ErrorKind::Protocol
        )
    }
}
