//! The settler: carries verdicts out in Redis, over a connection of its own. What finishes while it waits for an
//! answer goes out together with the next request, so that acknowledgements coalesce without a timer. A step whose
//! answer got lost is repeated until it is known; until then the entry stays held, and is renewed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::complaint::{Complaint, Pause};
use super::held::{Batch, Owner, Slot};
use super::shared::{Shared, sleep_until};
use super::steps::{Body, DOOMED_WAIT, Job, Step, acknowledge, bury, hopeless, nobodys, park};
use super::verdict::{Reason, Verdict};
use crate::error::ErrorKind;
use crate::stream::{Link, ParkOutcome, Trouble};

/// Most settlements in one step.
const STEP: usize = 4096;
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
    /// The dead letters can't be written: no burial is tried before.
    no_burial_before: Option<Instant>,
    /// Burials that were refused and can't wait in Redis, and when they are tried again.
    stuck: Vec<Job>,
    stuck_until: Option<Instant>,
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
            no_burial_before: None,
            stuck: Vec::new(),
            stuck_until: None,
        }
    }

    /// Settles what comes in until nothing more can come and all of it is settled, or the worker gives up.
    pub async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Settlement>) {
        let abandon = self.shared.abandon.clone();
        let mut news = Vec::new();
        let mut closed = false;
        loop {
            if self.stuck_until.is_some_and(|at| at <= Instant::now()) {
                self.others.append(&mut self.stuck);
                self.stuck_until = None;
            }
            let idle = self.acks.is_empty() && self.others.is_empty();
            if idle && closed && self.stuck.is_empty() {
                return;
            }
            let later = self.not_before.filter(|_| !idle);
            tokio::select! {
                biased;
                () = abandon.cancelled() => return,
                count = inbox.recv_many(&mut news, STEP), if !closed && (idle || later.is_some()) => closed = count == 0,
                () = sleep_until(later), if later.is_some() => self.not_before = None,
                () = sleep_until(self.stuck_until), if self.stuck_until.is_some() => {}
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
            (_, Verdict::Bury { reason, error }) => Step::Bury {
                reason,
                error,
                nobodys: false,
            },
            (Owner::Nobody, Verdict::Retry { error, .. } | Verdict::Release { error, .. }) => {
                nobodys(Reason::Failed, error)
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
        let too_soon = self.no_burial_before.is_some_and(|at| at > Instant::now());
        let (parks, burials) = std::mem::take(&mut self.others)
            .into_iter()
            .map(|job| {
                if too_soon {
                    job.doomed().unwrap_or_else(|job| job)
                } else {
                    job
                }
            })
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
                None => {
                    let slots = || slots.iter().map(|at| &batch.slots[*at as usize]);
                    let marked = slots().map(|slot| (slot.id, slot.mark())).collect();
                    let (source, lease) = (&batch.source, self.shared.lease);
                    self.shared.memory.acknowledged(source, marked, lease);
                    self.done(&batch, slots());
                }
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
                    let step = match job.step {
                        Step::Park { doomed, error, .. } => {
                            nobodys(doomed.unwrap_or(Reason::Failed), error)
                        }
                        bury => bury,
                    };
                    self.others.push(Job { step, ..job });
                }
                Ok(_) => self.done(&job.batch, [job.slot()]),
                Err(met) => {
                    trouble = Some(met);
                    self.others.push(job);
                }
            }
        }
        if hopeless(&buried).is_some() {
            // At random, so that no entry is always one of those that are not tried.
            let wait = DOOMED_WAIT.mul_f64(0.2 + 0.6 * fastrand::f64());
            self.no_burial_before = Some(Instant::now() + wait);
        }
        for (job, result) in buried {
            match result {
                Ok(_) => self.done(&job.batch, [job.slot()]),
                // It must not be acknowledged, and must not take up room here: it waits in Redis to be buried.
                Err(Trouble::Refused(met)) => {
                    self.complaint.warn(format!(
                        "{met}; the entry is kept and will be buried when this is mended"
                    ));
                    match job.doomed() {
                        Ok(parking) => self.others.push(parking),
                        Err(job) => {
                            self.stuck.push(job);
                            self.stuck_until.get_or_insert(Instant::now() + DOOMED_WAIT);
                        }
                    }
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

impl Trouble {
    /// The same trouble for another entry of the same request.
    pub(super) fn again(&self) -> Trouble {
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
