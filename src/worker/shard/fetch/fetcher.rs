//! The fetcher: everything that brings entries to this worker: what others left, what is due, what is new, and what was
//! delivered and got lost on the way. New entries have a connection of their own, on which several reads may be on their
//! way; the rest is asked one after the other, and only while no read is unanswered. Because nothing else delivers,
//! adopting (which asks what is pending with us and not held) can never meet a delivery under way.
//!
//! How much it takes is decided by the [`Prefetch`], and how much of each kind by the [`Shares`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::delivery::Delivery;
use super::due_retries::Alarm;
use super::join::foreign;
use super::oversized::Oversized;
use super::prefetch::Prefetch;
use super::read_plan::Flow;
use super::shares::Shares;
use crate::event::{Entry, EntryId};
use crate::fields::Fields;
use crate::reconnect::{Complaint, Pause};
use crate::stream::{Join, Joined, Link, Reader, Trouble};
use crate::worker::run::dispatch::Dispatcher;
use crate::worker::run::outcome::Body;
use crate::worker::run::outcome::Settlement;
use crate::worker::run::verdict::Verdict;
use crate::worker::run::work::Item;
use crate::worker::shard::clock::{Clock, Step};
use crate::worker::shard::maintain::breaker_report;
use crate::worker::shard::refusals::{Chore, Refusals};
use crate::worker::state::inflight::{Coming, Slot};
use crate::worker::state::shared::Shared;
use crate::worker::state::source::Source;

/// How long anything but a read may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How often parked entries are looked for while there is always something new.
const BUSY_POLL: Duration = Duration::from_millis(100);

/// Brings entries to this worker.
pub(crate) struct Fetcher {
    pub(super) shared: Arc<Shared>,
    pub(super) runs: Dispatcher,
    /// The connections, gone after an error.
    lines: Option<Lines>,
    complaint: Complaint,
    pause: Pause,
    pub(super) alarm: Alarm,
    pub(super) reclaims: super::reclaim::Schedule,
    pub(super) prefetch: Prefetch,
    pub(super) flow: Flow,
    /// The server's clock.
    pub(super) clock: Clock,
    /// It was set, and what that means is still to be done.
    pub(super) clock_set: Option<Step>,
    /// Whether the last look found the clock where it should be, or learnt that it was set: if only the answer took long,
    /// the next one is not to be put off for that.
    pub(super) is_clock_known: bool,
    shares: Shares,
    /// Something is to be adopted once there is room for it.
    adopts: bool,
    pub(super) settle: mpsc::UnboundedSender<Settlement>,
    pub(super) refusals: Refusals,
    pub(super) oversized: Oversized,
    /// Rates that can't be counted.
    pub(super) uncounted: Complaint,
    /// When to look next for what waits for a worker that can handle it.
    pub(super) waiting_next: Instant,
    /// The last read was one of streams without limits alone.
    pub(super) free_only: bool,
}

/// What the fetcher speaks to Redis over.
struct Lines {
    /// New entries come this way, and nothing else does.
    reader: Reader,
    /// Everything else. It also wakes a read that blocks, which can't be cancelled without losing its answer.
    link: Link,
}

impl Fetcher {
    pub fn new(
        shared: Arc<Shared>,
        runs: Dispatcher,
        settle: mpsc::UnboundedSender<Settlement>,
    ) -> Self {
        Fetcher {
            shared,
            runs,
            lines: None,
            complaint: Complaint::default(),
            pause: Pause::new(),
            alarm: Alarm::default(),
            reclaims: super::reclaim::Schedule::new(),
            prefetch: Prefetch::new(),
            flow: Flow::new(),
            clock: Clock::default(),
            clock_set: None,
            is_clock_known: true,
            shares: Shares::default(),
            adopts: false,
            settle,
            refusals: Refusals::default(),
            oversized: Oversized::default(),
            uncounted: Complaint::default(),
            waiting_next: Instant::now(),
            free_only: false,
        }
    }

    /// Fetches until the worker stops. The ways to the executor close with it.
    pub async fn run(mut self) {
        while !self.shared.is_stopping() {
            let result = match self.lines.take() {
                Some(mut lines) => {
                    let result = self.round(&mut lines).await;
                    if let Err(Trouble::Broken(_)) = result {
                        self.prefetch.cut();
                    }
                    if result.is_ok() {
                        self.pause.reset();
                    }
                    // After a broken connection, or where an answer is still to come, new ones begin by adopting what
                    // may have been lost.
                    let usable = !matches!(result, Err(Trouble::Broken(_)));
                    self.lines = (usable && !lines.reader.is_waiting()).then_some(lines);
                    result
                }
                None => self.connect().await,
            };
            let Err(trouble) = result else { continue };
            // Lanes are not to leave slots to what can't come.
            self.shared.precedence.answer(false);
            if trouble.is_final() {
                return self.shared.fail(trouble.into_error());
            }
            match &trouble {
                Trouble::NoGroup(_) => {
                    self.shared.rejoin();
                    tracing::warn!("{}", trouble.error());
                }
                // One stream may be in the way of reading all of them: joining each tells which.
                _ if trouble.is_about_a_key() => {
                    self.shared.rejoin();
                    self.complaint.warn(trouble.error().to_string());
                }
                _ => self.complaint.warn(trouble.error().to_string()),
            }
            tokio::select! {
                () = tokio::time::sleep(self.pause.next()) => {}
                () = self.shared.stopping.cancelled() => {}
            }
        }
    }

    async fn connect(&mut self) -> Result<(), Trouble> {
        let connecting = self.shared.connect("fetch", ANSWER).await;
        let mut link = connecting.map_err(Trouble::Broken)?;
        let connecting = self.shared.connect_reader().await;
        let reader = connecting.map_err(Trouble::Broken)?;
        for source in self.shared.all_sources() {
            self.try_to_join(&mut link, &source).await?;
        }
        self.shared.joined.cancel();
        self.shared.adopt_soon();
        if self.complaint.clear() {
            tracing::info!(
                "connected to Redis at {} again",
                self.shared.connector.address
            );
        }
        self.lines = Some(Lines { reader, link });
        Ok(())
    }

    /// Joins a group, unless that was refused a moment ago. Where it is, its stream waits by itself.
    async fn try_to_join(&mut self, link: &mut Link, source: &Source) -> Result<(), Trouble> {
        let stream = &source.keys.stream;
        if self.refusals.wait(Chore::Join, stream).is_some() {
            return Ok(());
        }
        let is_first = source.known().is_none() && !source.deletes();
        let joined = self.join(link, source).await;
        let joined = self.refusals.heard(Chore::Join, stream, joined)?;
        if joined.is_some() && is_first {
            breaker_report::inherit(&self.shared, link, source).await?;
        }
        if source.is_barred() && joined.is_some() {
            tracing::info!(stream, "the group can be joined now");
        }
        source.set_barred(joined.is_none());
        Ok(())
    }

    async fn join(&self, link: &mut Link, source: &Source) -> Result<(), Trouble> {
        let (group, stream) = (&source.surroundings.group, &source.keys.stream);
        let (known, start) = (source.known(), self.shared.start_of(source));
        loop {
            let Join {
                how,
                known: now,
                brought,
                more,
            } = link
                .join(&source.keys, group, start, known.as_ref())
                .await?;
            match how {
                Joined::There => {}
                Joined::Created(at) => {
                    tracing::info!(group, stream, begins_at = at, "the group is new")
                }
                Joined::Restored(at) => {
                    tracing::warn!(
                        group,
                        stream,
                        begins_at = at,
                        "the group had been deleted and was made anew"
                    );
                }
                Joined::Foreign(protocol) => return Err(foreign(group, stream, &protocol)),
            }
            if brought > 0 {
                tracing::warn!(
                    group,
                    stream,
                    count = brought,
                    "the group had been deleted, and a worker that could not know it made one that begins at the end: \
                     what came in between comes now"
                );
                self.shared.due_in(Duration::ZERO);
            }
            if !more {
                source.joined(now);
                return Ok(());
            }
        }
    }

    /// One turn of everything that brings entries.
    async fn round(&mut self, lines: &mut Lines) -> Result<(), Trouble> {
        let Lines { reader, link } = lines;
        if self.shared.take_rejoin() {
            for source in self.shared.all_sources() {
                self.try_to_join(link, &source).await?;
            }
            self.shared.adopt_soon();
        }
        for source in self.shared.all_sources() {
            if source.is_barred() {
                self.try_to_join(link, &source).await?;
            }
        }
        if self.shared.active_sources().is_empty() {
            return self.until_there_is_room().await;
        }
        // Whatever has changed, everything below is decided anew.
        if self.shared.take_replan() {
            self.waiting_next = Instant::now();
        }
        self.adopts |= self.shared.take_adopt();
        // It is part of what may be held, and waits for room like all else.
        let may_adopt = self.prefetch.room(&self.shared) > 0 || self.shared.inflight.entries() == 0;
        if self.adopts && may_adopt {
            self.adopts = false;
            self.adopt(link).await?;
        }
        let (held, lease) = (self.shared.inflight.entries(), self.shared.lease);
        if self
            .reclaims
            .visits
            .tend(&self.shared.quarantine, held, lease)
        {
            self.reclaims.look_soon(Instant::now());
        }
        let budget = self.prefetch.entries(&self.shared, 0);
        let offered = self.prefetch.offered(&self.shared);
        let room = self.shares.reclaimed(budget).max(offered);
        // Without room, too: a suspect has no need of a free slot, it comes when nothing else runs.
        let reclaimed = self.reclaim(link, room).await;
        let wanted = reclaimed.as_ref().is_ok_and(|taken| taken.more);
        self.shared.precedence.answer(wanted);
        let reclaimed = reclaimed?;
        let mut left = budget.saturating_sub(reclaimed.entries);
        self.shares.took(reclaimed.entries, left);
        if left == 0 {
            // For what is paused.
            self.wake(link, 0).await?;
            return match reclaimed.entries {
                0 => self.until_there_is_room().await,
                _ => Ok(()),
            };
        }
        let due = self.shares.due(left);
        let woken = self.wake(link, due).await?;
        let due = due.saturating_sub(woken.entries);
        let waiting = self.take_waiting(link, due).await?;
        left = left.saturating_sub(woken.entries + waiting.entries);
        let more = reclaimed.more || woken.more || waiting.more;
        // Waking may have found replayed entries, whose group has to be joined before it is read.
        if left == 0 || self.shared.wants_to_join() {
            return Ok(());
        }
        self.look_at_crew(link).await?;
        self.read(reader, link, left, more).await
    }

    async fn until_there_is_room(&self) -> Result<(), Trouble> {
        if self.shared.inflight.succeeded() > 0 {
            self.shared.ack_now.notify_one();
        }
        tokio::select! {
            () = self.shared.inflight.freed.notified() => {}
            () = self.shared.nudge.notified() => {}
            () = self.shared.stopping.cancelled() => {}
            () = tokio::time::sleep(BUSY_POLL) => {}
        }
        Ok(())
    }

    /// Takes what is pending with us and not held: the reply that brought it got lost.
    async fn adopt(&mut self, link: &mut Link) -> Result<(), Trouble> {
        for source in self.shared.active_sources() {
            for alone in [false, true] {
                let consumer = if alone {
                    self.shared.alone.clone()
                } else {
                    self.shared.consumer.clone()
                };
                let mut held: Vec<EntryId> = self
                    .shared
                    .inflight
                    .snapshot()
                    .iter()
                    .filter(|batch| batch.alone == alone && Arc::ptr_eq(&batch.source, &source))
                    .flat_map(|batch| batch.kept().map(|slot| slot.id))
                    .collect();
                let since = Instant::now();
                let stream = &source.keys.stream;
                let is_suspected = self.oversized.is_suspected(stream, alone);
                if is_suspected {
                    let set_aside = self.set_aside(link, &source, alone, &mut held).await;
                    self.refusals.heard(Chore::Adopt, stream, set_aside)?;
                }
                let few = alone || is_suspected;
                let (most, room) = self.prefetch.most(&self.shared, if few { 1 } else { 500 });
                let group = &source.surroundings.group;
                let adopted = link
                    .adopt(&source.keys, group, &consumer, most, room, &held)
                    .await;
                match &adopted {
                    Ok(_) => self.oversized.came(stream, alone),
                    Err(trouble) if trouble.is_cut() => self.oversized.cut(stream, alone),
                    // One that only did not come says nothing.
                    Err(_) => {}
                }
                let adopted = self.refusals.heard(Chore::Adopt, stream, adopted)?;
                // Refused, it is asked for again once the renewer has found what there is to adopt.
                let Some(adopted) = adopted else { continue };
                source.report_trimmed(&adopted.trimmed, "before they were handled");
                if !adopted.entries.is_empty() {
                    let (count, stream) = (adopted.entries.len(), &source.keys.stream);
                    tracing::info!(stream, count, "found entries whose delivery had got lost");
                    if alone {
                        self.reclaims.visits.entered(&self.shared.quarantine);
                    }
                }
                if adopted.more {
                    self.shared.adopt_soon();
                }
                let entries = adopted
                    .entries
                    .into_iter()
                    .map(|entry| Delivery::again(entry, adopted.now_ms));
                let coming = match alone {
                    true => Coming::Alone,
                    false => Coming::InTurn,
                };
                self.hand_over(&source, coming, since, entries.collect());
            }
        }
        Ok(())
    }

    /// Gives entries back that there was no room for: they were delivered, and are left to whoever has room.
    pub(super) fn pass_on(&mut self, source: &Arc<Source>, since: Instant, ids: Vec<EntryId>) {
        let (stream, count) = (&source.keys.stream, ids.len());
        tracing::debug!(stream, count, "more came at once than there is room for");
        let slots = ids.iter().map(|id| Slot::new(*id, 1, false, 0)).collect();
        let lease = self.shared.lease;
        let batch = self
            .shared
            .inflight
            .add(source, Coming::InTurn, since, lease, slots);
        for (index, id) in ids.into_iter().enumerate() {
            batch.slots[index].finish();
            let why = "given back: more came at once than there is room for";
            let _ = self.settle.send(Settlement {
                batch: batch.clone(),
                index: index as u32,
                verdict: Verdict::give_back(Duration::ZERO, why),
                body: Body::Raw(Entry {
                    id,
                    fields: Fields::new(),
                }),
                attempt: 1,
            });
        }
    }

    /// Gives entries to the executor, from now on held.
    pub(crate) fn hand_over(
        &mut self,
        source: &Arc<Source>,
        coming: Coming,
        since: Instant,
        entries: Vec<Delivery>,
    ) {
        if entries.is_empty() {
            return;
        }
        self.shared.coming(source, entries.len());
        let largest = entries.iter().map(|arrival| arrival.size).max();
        self.prefetch.came(largest.unwrap_or_default());
        if let Some(observer) = &self.shared.observer {
            observer.delivered(&source.surroundings.stream, entries.len());
        }
        let slots = entries.iter().map(Delivery::slot).collect();
        let batch = self
            .shared
            .inflight
            .add(source, coming, since, self.shared.lease, slots);
        let items = entries.into_iter().enumerate();
        let items = items.map(|(index, arrival)| Item {
            index: index as u32,
            entry: arrival.entry,
            past: arrival.past,
        });
        self.runs.send(&batch, items);
    }
}
