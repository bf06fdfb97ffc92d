//! The doorman: where handlers deduplicate it stands between the fetcher and the executor. It asks Redis of all entries
//! that have come meanwhile at once whether their events are done, or with another entry. What is done is acknowledged
//! without running; what another copy is being handled of is given back for a while.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::dedup_windows::Windows;
use super::dispatch::{Arrivals, Dispatcher};
use super::outcome::Acks;
use super::outcome::Body;
use super::outcome::Settlement;
use super::report::unstarted;
use super::verdict::Verdict;
use super::work::Item;
use super::work::RUN;
use super::work::Run;
use crate::identity::{self, Identity};
use crate::reconnect::sleep_until;
use crate::reconnect::{Complaint, Pause};
use crate::stream::{Claim, Claimed, Trouble};
use crate::worker::shard::refusals::{Chore, Refusals};
use crate::worker::state::about::{About, tell};
use crate::worker::state::inflight::Batch;
use crate::worker::state::shared::Shared;
use crate::worker::state::source::Source;
use crate::worker::state::source::by_source;

/// Most runs that are asked about at once.
const RUNS: usize = 64;
/// The shortest and the longest wait of a copy, between two looks.
const WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Lets entries in.
pub(crate) struct Deduplicator {
    shared: Arc<Shared>,
    windows: Arc<Windows>,
    to_executor: Dispatcher,
    acks: mpsc::UnboundedSender<Acks>,
    settle: mpsc::UnboundedSender<Settlement>,
    complaint: Complaint,
    pause: Pause,
    refusals: Refusals,
}

/// What is known of one.
#[derive(Clone)]
enum Answer {
    Is(Claimed),
    /// It can't be known, for so long.
    Refused(Duration),
}

/// An entry that is asked about.
struct Asked {
    batch: Arc<Batch>,
    item: Item,
    event: Identity,
    lasts: Duration,
}

impl Deduplicator {
    pub fn new(
        shared: Arc<Shared>,
        windows: Arc<Windows>,
        to_executor: Dispatcher,
        acks: mpsc::UnboundedSender<Acks>,
        settle: mpsc::UnboundedSender<Settlement>,
    ) -> Self {
        Deduplicator {
            shared,
            windows,
            to_executor,
            acks,
            settle,
            complaint: Complaint::default(),
            pause: Pause::new(),
            refusals: Refusals::default(),
        }
    }

    /// Lets in what comes until nothing more can come. The ways to the executor close with it.
    pub async fn run(mut self, arrivals: Arrivals) {
        let Arrivals {
            lanes: runs,
            quarantine: mut suspects,
        } = arrivals;
        let (mut no_more, mut no_more_suspects) = (false, false);
        while !(no_more && no_more_suspects) {
            let mut asked = Vec::new();
            tokio::select! {
                run = runs.recv(), if !no_more => match run {
                    Some(run) => self.look_at(run, &mut asked),
                    None => no_more = true,
                },
                run = suspects.recv(), if !no_more_suspects => match run {
                    Some(run) => self.look_at(run, &mut asked),
                    None => no_more_suspects = true,
                },
            }
            for _ in 1..RUNS {
                match runs.try_recv() {
                    Some(run) => self.look_at(run, &mut asked),
                    None => break,
                }
            }
            if !asked.is_empty() {
                self.ask(asked).await;
            }
        }
    }

    /// Lets in at once what need not be asked about.
    fn look_at(&self, run: Run, asked: &mut Vec<Asked>) {
        let Run { batch, items } = run;
        // A replayed copy is meant to run, and what is doomed does not.
        let lasts = |item: &Item| {
            let doomed = item
                .past
                .as_ref()
                .and_then(|past| past.record.as_ref()?.doomed.as_ref());
            if batch.source.deletes() || doomed.is_some() {
                return None;
            }
            let lasts = self.windows.lasts(item.entry.fields.value("type")?)?;
            // One without an id is like no other.
            Some((lasts, Identity::of(&item.entry.fields)?))
        };
        let mut free = Vec::with_capacity(items.len());
        for item in items {
            match lasts(&item) {
                None => free.push(item),
                Some((lasts, event)) => asked.push(Asked {
                    batch: batch.clone(),
                    item,
                    event,
                    lasts,
                }),
            }
        }
        self.let_in(&batch, free);
    }

    fn let_in(&self, batch: &Arc<Batch>, items: Vec<Item>) {
        self.to_executor.send(batch, items.into_iter());
    }

    /// Asks until there is an answer. A worker that stops lets all in: it gives back what has not started.
    async fn ask(&mut self, asked: Vec<Asked>) {
        let signals = self.shared.signals.clone();
        let lots = by_source(&asked, |asked| &asked.batch.source);
        let mut answers: Vec<Option<Answer>> = vec![None; asked.len()];
        for (source, places) in lots {
            let claims: Vec<Claim> = places.iter().map(|at| asked[*at].claim()).collect();
            let stream = &source.keys.stream;
            let answered = loop {
                if let Some(wait) = self.refusals.wait(Chore::Claim, stream) {
                    break Some(vec![Answer::Refused(wait); claims.len()]);
                }
                let answer = tokio::select! {
                    biased;
                    () = signals.stopped() => break None,
                    answer = self.claim(&source, &claims) => answer,
                };
                let answer = match answer {
                    // It concerns the server, and no entry has to go back for it.
                    Err(trouble @ (Trouble::Elsewhere(_) | Trouble::Wait(_))) => Err(trouble),
                    answer => self.refusals.heard(Chore::Claim, stream, answer),
                };
                match answer {
                    Ok(Some(answers)) => break Some(answers.into_iter().map(Answer::Is).collect()),
                    // The others that come here have nothing to do with it.
                    Ok(None) => {}
                    Err(trouble) => {
                        if matches!(trouble, Trouble::NoGroup(_)) {
                            self.shared.signals.rejoin();
                        }
                        self.complaint.warn(trouble.error().to_string());
                        let later = Instant::now() + self.pause.next();
                        tokio::select! {
                            () = sleep_until(Some(later)) => {}
                            () = signals.stopped() => break None,
                        }
                    }
                }
            };
            for (at, answer) in places.into_iter().zip(answered.unwrap_or_default()) {
                answers[at] = Some(answer);
            }
        }
        self.pause.reset();
        self.answered(asked, answers);
    }

    async fn claim(&self, source: &Source, claims: &[Claim<'_>]) -> Result<Vec<Claimed>, Trouble> {
        let link = self.shared.links.settle_link().await;
        let mut link = link.map_err(Trouble::Broken)?;
        let claimed = link
            .claim(&source.keys, &source.surroundings.group, claims)
            .await;
        if claimed.as_ref().is_err_and(Trouble::ends_the_link) {
            self.shared.links.settle_link_broke(&link).await;
        }
        claimed
    }

    /// Does with each what its answer says. What comes from one batch is let in together, in its order.
    fn answered(&self, asked: Vec<Asked>, answers: Vec<Option<Answer>>) {
        let mut lot: Option<(Arc<Batch>, Vec<Item>)> = None;
        for (Asked { batch, item, .. }, answer) in asked.into_iter().zip(answers) {
            match answer {
                Some(Answer::Is(Claimed::Done)) => self.is_done(&batch, item, false),
                Some(Answer::Is(Claimed::DoneDiffers)) => self.is_done(&batch, item, true),
                Some(Answer::Is(Claimed::Wait)) => {
                    let age = item.past.as_ref().map_or(Duration::ZERO, |past| past.age);
                    let why = "given back while another copy of its event is handled";
                    self.waits(&batch, item, age.clamp(WAIT.0, WAIT.1), why);
                }
                Some(Answer::Refused(wait)) => {
                    self.hold_back(&item, wait);
                    let why = "held back: the server refuses to look for copies of its event (the log says why)";
                    self.waits(&batch, item, wait, why);
                }
                Some(Answer::Is(Claimed::Run)) | None => match &mut lot {
                    Some((of, items)) if Arc::ptr_eq(of, &batch) && items.len() < RUN => {
                        items.push(item)
                    }
                    _ => {
                        if let Some((of, items)) = lot.replace((batch, vec![item])) {
                            self.let_in(&of, items);
                        }
                    }
                },
            }
        }
        if let Some((of, items)) = lot {
            self.let_in(&of, items);
        }
    }

    /// Its event has succeeded: acknowledged.
    fn is_done(&self, batch: &Arc<Batch>, item: Item, differs: bool) {
        let which = identity::named(&item.entry.fields);
        let about = About::raw(&item.entry, &batch.source);
        if differs {
            tell!(
                warn,
                about,
                "a copy of {which}, which has succeeded, but with other data: not handled; what is \
                another event needs another id"
            );
        } else {
            tell!(
                info,
                about,
                "a copy of {which}, which has succeeded: not handled"
            );
        }
        let slot = &batch.slots[item.index as usize];
        let owner = slot.finish();
        batch.source.arrived();
        let body = Body::Raw(item.entry);
        unstarted(&self.shared, batch, &body, &Verdict::Ack, owner);
        self.shared.inflight.succeed(1);
        let _ = self.acks.send(Acks {
            batch: batch.clone(),
            slots: vec![item.index],
        });
    }

    /// It is one of those that its handler's limits hold back, of which there are only so many at a time.
    fn hold_back(&self, item: &Item, wait: Duration) {
        let event_type = item.entry.fields.value("type").unwrap_or_default();
        if let Some(bound) = self.shared.routes.find(event_type) {
            bound.gate.put_back(wait);
            self.shared.signals.released();
        }
    }

    /// It is looked at again later.
    fn waits(&self, batch: &Arc<Batch>, item: Item, delay: Duration, why: &str) {
        let record = item.past.and_then(|past| past.record);
        let slot = &batch.slots[item.index as usize];
        let owner = slot.finish();
        batch.source.arrived();
        let given_back = record.map_or(0, |record| record.given_back);
        let verdict = Verdict::give_back(delay, why);
        if tracing::enabled!(tracing::Level::DEBUG) {
            tell!(debug, About::raw(&item.entry, &batch.source), "{why}");
        }
        let body = Body::Raw(item.entry);
        unstarted(&self.shared, batch, &body, &verdict, owner);
        let _ = self.settle.send(Settlement {
            batch: batch.clone(),
            index: item.index,
            verdict,
            body,
            attempt: slot.count.saturating_sub(given_back).max(1),
        });
    }
}

impl Asked {
    fn claim(&self) -> Claim<'_> {
        Claim {
            id: self.item.entry.id,
            event: &self.event,
            lasts: self.lasts,
        }
    }
}
