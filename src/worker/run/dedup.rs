//! The deduplicator: where handlers deduplicate it stands between the fetcher and the executor. It has asked of all
//! entries that have come meanwhile at once whether their events are done, or with another entry. What is done is acknowledged
//! without running; what another copy is being handled of is released for a while.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::dedup_windows::Windows;
use super::dispatch::{Arrivals, Dispatcher};
use super::outcome::{Body, Outcomes, Settlement};
use super::report::Reporter;
use super::routes::Routes;
use super::verdict::{self, Verdict};
use super::work::{Item, RUN, Run};
use crate::about::{About, tell};
use crate::identity::{self, Identity};
use crate::stream::{Claim, Claimed};
use crate::worker::state::inflight::Batch;
use crate::worker::state::signals::Signals;
use crate::worker::state::source::Source;
use crate::worker::state::source::by_source;

/// Most runs that are asked about at once.
const RUNS: usize = 64;
/// The shortest and the longest wait of a copy, between two looks.
const WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Lets entries in.
pub(crate) struct Deduplicator<C> {
    copies: C,
    windows: Arc<Windows>,
    routes: Arc<Routes>,
    signals: Arc<Signals>,
    to_executor: Dispatcher,
    outcomes: Outcomes,
    reporter: Arc<Reporter>,
}

/// Who is asked which entries are copies of others.
pub(crate) trait Copies: Send {
    /// Asks until there is an answer, about entries of one stream. Returns nothing if the worker stops before.
    fn ask(
        &mut self,
        source: &Source,
        claims: &[Claim<'_>],
    ) -> impl Future<Output = Option<Vec<Answer>>> + Send;
}

/// What is known of one.
#[derive(Clone)]
pub(crate) enum Answer {
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

impl<C: Copies> Deduplicator<C> {
    pub fn new(
        copies: C,
        windows: Arc<Windows>,
        routes: Arc<Routes>,
        signals: Arc<Signals>,
        to_executor: Dispatcher,
        outcomes: Outcomes,
        reporter: Arc<Reporter>,
    ) -> Self {
        Deduplicator {
            copies,
            windows,
            routes,
            signals,
            to_executor,
            outcomes,
            reporter,
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

    /// A worker that stops lets in what it has no answer for: it releases what has not started.
    async fn ask(&mut self, asked: Vec<Asked>) {
        let mut answers: Vec<Option<Answer>> = vec![None; asked.len()];
        for (source, places) in by_source(&asked, |asked| &asked.batch.source) {
            let claims: Vec<Claim> = places.iter().map(|at| asked[*at].claim()).collect();
            let answered = self.copies.ask(&source, &claims).await;
            for (at, answer) in places.into_iter().zip(answered.unwrap_or_default()) {
                answers[at] = Some(answer);
            }
        }
        self.answered(asked, answers);
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
                    let why = verdict::COPY_RUNS;
                    self.waits(&batch, item, age.clamp(WAIT.0, WAIT.1), why);
                }
                Some(Answer::Refused(wait)) => {
                    self.released(&item, wait);
                    let why = verdict::COPIES_UNKNOWN;
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
        let about = About::raw(
            &item.entry,
            &batch.source.keys.stream,
            attempt(batch, &item),
        );
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
        let (index, body) = (item.index, Body::Raw(item.entry));
        self.reporter
            .unstarted(batch, index, &body, &Verdict::Ack, owner);
        self.outcomes.acknowledge(batch, vec![index]);
    }

    /// It is one of those that are released because of its handler's limits, of which there are only so many at a time.
    fn released(&self, item: &Item, wait: Duration) {
        let event_type = item.entry.fields.value("type").unwrap_or_default();
        if let Some(bound) = self.routes.find(event_type) {
            bound.gate.released(wait);
            self.signals.released();
        }
    }

    /// It is looked at again later.
    fn waits(&self, batch: &Arc<Batch>, item: Item, delay: Duration, why: &str) {
        let attempt = attempt(batch, &item);
        let owner = batch.slots[item.index as usize].finish();
        batch.source.arrived();
        let verdict = Verdict::release(delay, why);
        if tracing::enabled!(tracing::Level::DEBUG) {
            let about = About::raw(&item.entry, &batch.source.keys.stream, attempt);
            tell!(debug, about, "{why}");
        }
        let body = Body::Raw(item.entry);
        self.reporter
            .unstarted(batch, item.index, &body, &verdict, owner);
        self.outcomes.settle(Settlement {
            batch: batch.clone(),
            index: item.index,
            verdict,
            body,
            attempt,
        });
    }
}

/// Which attempt its delivery is.
fn attempt(batch: &Batch, item: &Item) -> u32 {
    let record = item.past.as_ref().and_then(|past| past.record.as_ref());
    let released = record.map_or(0, |record| record.released);
    let count = batch.slots[item.index as usize].count;
    count.saturating_sub(released).max(1)
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
