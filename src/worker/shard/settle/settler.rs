//! The settler: carries out in Redis what is to become of entries that have not succeeded. What comes while it waits for
//! an answer goes out together with the next request. A step whose answer got lost is repeated until it is known; until
//! then the entry stays held, and is renewed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::requests::{DOOMED_WAIT, Job, Requests, Step, gone, hopeless};
use crate::about::tell;
use crate::metrics::entries::{Outcome, Reason as Why};
use crate::reconnect::sleep_until;
use crate::stream::{BroughtBack, Buried, ParkOutcome, Trouble};
use crate::worker::run::outcome::Acks;
use crate::worker::run::outcome::Settlement;
use crate::worker::run::verdict::{Reason, Verdict};
use crate::worker::shard::hold_up::HoldUp;
use crate::worker::shard::links::Links;
use crate::worker::state::inflight::{Inflight, Owner};
use crate::worker::state::signals::Signals;

/// Most settlements in one step.
const STEP: usize = 4096;

/// When the next attempt is made to park what could not be parked.
const STUCK_WAIT: Duration = Duration::from_secs(1);

/// Carries verdicts out.
pub(crate) struct Settler {
    signals: Arc<Signals>,
    inflight: Arc<Inflight>,
    links: Arc<Links>,
    requests: Requests,
    acks: mpsc::UnboundedSender<Acks>,
    others: Vec<Job>,
    hold_up: HoldUp,
    /// The dead letters can't be written: no burial is tried before.
    no_burial_before: Option<Instant>,
    /// What was refused and can't wait in Redis either, and when it is tried again.
    stuck: Vec<Job>,
    stuck_until: Option<Instant>,
}

impl Settler {
    pub fn new(
        signals: Arc<Signals>,
        inflight: Arc<Inflight>,
        links: Arc<Links>,
        requests: Requests,
        acks: mpsc::UnboundedSender<Acks>,
    ) -> Self {
        let hold_up = HoldUp::new(signals.clone());
        Settler {
            signals,
            inflight,
            links,
            requests,
            acks,
            others: Vec::new(),
            hold_up,
            no_burial_before: None,
            stuck: Vec::new(),
            stuck_until: None,
        }
    }

    /// Settles what comes in until nothing more can come and all of it is settled, or the worker gives up.
    pub async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Settlement>) {
        let signals = self.signals.clone();
        let mut news = Vec::new();
        let (mut closed, mut last_try) = (false, false);
        loop {
            if self.stuck_until.is_some_and(|at| at <= Instant::now()) {
                self.try_again();
            }
            if closed && self.others.is_empty() {
                // What is refused still stays pending: a stop does not wait for somebody to mend that.
                if last_try || self.stuck.is_empty() {
                    return;
                }
                last_try = true;
                self.try_again();
            }
            let idle = self.others.is_empty();
            let later = self.hold_up.until().filter(|_| !idle);
            tokio::select! {
                biased;
                () = signals.abandoned() => return,
                count = inbox.recv_many(&mut news, STEP), if !closed && (idle || later.is_some()) => closed = count == 0,
                () = sleep_until(later), if later.is_some() => {}
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
            if self.hold_up.until().is_none() {
                tokio::select! {
                    biased;
                    () = self.step() => {}
                    () = signals.abandoned() => return,
                }
            }
        }
    }

    /// Turns a verdict into the step it asks for, by whose the entry is.
    pub fn sort(&mut self, settlement: Settlement) {
        let Settlement {
            batch,
            index,
            verdict,
            body,
            attempt,
        } = settlement;
        let slot = &batch.slots[index as usize];
        let step = match (slot.owner(), verdict) {
            (_, Verdict::Ack) => {
                let slots = vec![index];
                self.inflight.succeed(slots.len());
                // The acker ends after the settler.
                let _ = self.acks.send(Acks::of(batch, slots));
                return;
            }
            // What became of it here is no longer of interest.
            (Owner::Another, _) => return self.inflight.settle(&batch, [index], Outcome::Lost),
            (_, Verdict::Bury { reason, error }) => Step::Bury {
                reason,
                error,
                nobodys: false,
            },
            (_, Verdict::Cancel { .. }) => Step::Cancel,
            (owner, Verdict::Retry { delay, error }) => Step::Park {
                delay,
                released: false,
                listed: false,
                doomed: None,
                error,
                nobodys: owner == Owner::Nobody,
            },
            (owner, Verdict::Release { delay, error }) => Step::Park {
                delay,
                released: true,
                listed: false,
                doomed: None,
                error,
                nobodys: owner == Owner::Nobody,
            },
            (owner, Verdict::Wait { delay, error }) => Step::Park {
                delay,
                released: true,
                listed: true,
                doomed: None,
                error,
                nobodys: owner == Owner::Nobody,
            },
        };
        self.others.push(Job {
            batch,
            index,
            step,
            body,
            attempt,
            asked: None,
        });
    }

    /// What has been sorted and is still to be done, for who does it in another way.
    #[cfg(feature = "testing")]
    pub fn take_jobs(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.others)
    }

    async fn step(&mut self) {
        if self.others.is_empty() {
            return;
        }
        let link = match self.links.settle_link().await {
            Ok(link) => link,
            Err(error) => return self.hold_up.begin(&Trouble::Broken(error)),
        };
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
        let (nobodys, parks) = parks
            .into_iter()
            .partition::<Vec<_>, _>(|job| matches!(job.step, Step::Park { nobodys: true, .. }));
        // All at once on one connection: none waits for the others' answers.
        let sent = Instant::now();
        let (parked, brought_back, buried) = tokio::join!(
            self.requests.park(link.clone(), parks),
            self.requests.bring_back(link.clone(), nobodys),
            self.requests.bury(link.clone(), burials),
        );
        if let Some(Trouble::Refused(_)) = hopeless(buried.iter().map(|(_, result)| result)) {
            // At random, so that no entry is always one of those that are not tried.
            let wait = DOOMED_WAIT.mul_f64(0.2 + 0.6 * fastrand::f64());
            self.no_burial_before = Some(Instant::now() + wait);
        }
        let mut trouble = None;
        for (job, result) in parked {
            match result {
                Ok(outcome) => self.was_parked(job, outcome),
                Err(met) => trouble = self.was_not_parked(job, met, sent).or(trouble),
            }
        }
        for (job, result) in brought_back {
            match result {
                Ok(outcome) => self.was_brought_back(job, outcome),
                Err(met) => trouble = self.was_not_parked(job, met, sent).or(trouble),
            }
        }
        for (job, result) in buried {
            match result {
                Ok(outcome) => self.was_buried(job, outcome),
                // It must not be acknowledged, and must not take up room here: it waits in Redis to be buried.
                Err(Trouble::Refused(met)) => {
                    let ends_as = match job.step {
                        Step::Cancel => "cancelled",
                        _ => "buried",
                    };
                    self.hold_up.warn(format!(
                        "{met}; the entry is kept and will be {ends_as} when this is mended"
                    ));
                    match job.doomed() {
                        Ok(parking) => self.others.push(parking),
                        Err(job) => self.is_stuck(job, DOOMED_WAIT),
                    }
                }
                Err(met) => {
                    self.others.push(job.after(&met, sent));
                    trouble = Some(met);
                }
            }
        }
        match trouble {
            Some(trouble) => self.hold_up.begin_on(&trouble, &link, &self.links).await,
            None if self.others.is_empty() => self.hold_up.is_over(),
            None => {}
        }
    }

    pub fn was_parked(&mut self, job: Job, outcome: ParkOutcome) {
        match outcome {
            ParkOutcome::Nobody | ParkOutcome::Trimmed if job.is_unread() => self.was_trimmed(&job),
            ParkOutcome::Trimmed => {
                job.slot().is_nobodys();
                self.is_gone(job);
            }
            ParkOutcome::Nobody if job.is_ours_to_bury() => {
                job.slot().is_nobodys();
                self.others.push(job.into_nobodys());
            }
            outcome => self.done(&job, counts_as(&job, outcome)),
        }
    }

    fn was_brought_back(&mut self, job: Job, outcome: BroughtBack) {
        let outcome = match outcome {
            BroughtBack::Missing | BroughtBack::Unknown => return self.is_gone(job),
            BroughtBack::Late(now) => return self.was_late(job, now),
            BroughtBack::Parked => ParkOutcome::Parked,
            BroughtBack::Taken => ParkOutcome::Taken,
            _ => ParkOutcome::Nobody,
        };
        self.done(&job, counts_as(&job, outcome));
    }

    pub fn was_buried(&mut self, job: Job, outcome: Buried) {
        match outcome {
            Buried::Late(now) => {
                self.requests.clock.shows(now);
                self.others.push(job);
            }
            Buried::Missing => self.was_trimmed(&job),
            Buried::Done if matches!(job.step, Step::Cancel) => {
                job.batch.source.was_cancelled(job.slot().id);
                self.done(&job, Outcome::Cancelled);
            }
            Buried::Done => {
                count_letter(&job);
                job.tell_hooks(&self.requests.routes);
                self.done(&job, Outcome::Dead);
            }
            outcome => {
                if outcome == Buried::Nobody {
                    is_not_known(&job);
                }
                self.done(&job, Outcome::Lost);
            }
        }
    }

    /// It stayed on its way for long, and was not done. If it is still ours, it goes out again.
    fn was_late(&mut self, job: Job, now: u64) {
        self.requests.clock.shows(now);
        if job.is_ours_to_bury() {
            self.others.push(job);
        } else {
            is_not_known(&job);
            self.done(&job, Outcome::Lost);
        }
    }

    fn was_trimmed(&self, job: &Job) {
        let source = &job.batch.source;
        source.report_trimmed(&[job.slot().id], "before they were handled");
        self.done(job, Outcome::Lost);
    }

    /// It can't be parked: what it is goes to the dead letters.
    fn is_gone(&mut self, job: Job) {
        let step = gone(job.step);
        self.others.push(Job { step, ..job });
    }

    /// Returns what holds all requests up, if this does.
    fn was_not_parked(&mut self, job: Job, met: Trouble, sent: Instant) -> Option<Trouble> {
        if met.is_lasting() {
            let warning = format!("{}; its entries are kept", met.error());
            self.hold_up.warn(warning);
            self.is_stuck(job, STUCK_WAIT);
            return None;
        }
        self.others.push(job.after(&met, sent));
        Some(met)
    }

    /// The server refuses it; it stays here, in nobody's way.
    fn is_stuck(&mut self, job: Job, wait: Duration) {
        self.inflight.is_refused(1);
        self.stuck.push(job);
        self.stuck_until.get_or_insert(Instant::now() + wait);
    }

    fn try_again(&mut self) {
        self.inflight.is_tried_again(self.stuck.len());
        self.others.append(&mut self.stuck);
        self.stuck_until = None;
    }

    fn done(&self, job: &Job, outcome: Outcome) {
        self.inflight.settle(&job.batch, [job.index], outcome);
    }
}

/// What a parking counts as.
fn counts_as(job: &Job, outcome: ParkOutcome) -> Outcome {
    let Step::Park { released, .. } = job.step else {
        return Outcome::Lost;
    };
    match outcome {
        // The answer that said that it was done got lost.
        ParkOutcome::Taken if job.asked.is_none() => Outcome::Lost,
        ParkOutcome::Nobody | ParkOutcome::Trimmed => Outcome::Lost,
        ParkOutcome::Parked | ParkOutcome::Taken if released => Outcome::Released,
        ParkOutcome::Parked | ParkOutcome::Taken => Outcome::Retried,
    }
}

/// It is nobody's, and may have been settled by a request whose answer got lost.
fn is_not_known(job: &Job) {
    if job.asked.is_some() {
        tell!(
            warn,
            job.about(),
            "no longer pending, and answers to its settling were lost for long: it has been settled, or was trimmed, \
             acknowledged or deleted by hand"
        );
    }
}

/// It is a dead letter now.
fn count_letter(job: &Job) {
    let (Some(counts), Step::Bury { reason, .. }) = (&job.batch.source.counts, &job.step) else {
        return;
    };
    let place = job.batch.times.as_ref().and_then(|of| of.place(job.index));
    let reason = match reason {
        Reason::Failed => Why::Failed,
        Reason::Permanent => Why::Permanent,
        Reason::Crashed => Why::Crashed,
        Reason::Undecodable => Why::Undecodable,
        Reason::Unhandled => Why::Unhandled,
        Reason::TooLarge => Why::TooLarge,
        Reason::Expired => Why::Expired,
    };
    counts.buried(place.unwrap_or(counts.other()), reason);
}
