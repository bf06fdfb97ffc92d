//! The fetcher: everything that brings entries to this worker, one request after the other on one connection:
//! what others left, what is due, what is new, and what was delivered and got lost on the way. Because nothing else
//! delivers, adopting (which asks what is pending with us and not held) can never meet a delivery under way.
//!
//! How much it takes is decided by [`budget`](Fetcher::budget); the three kinds take turns in it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::complaint::{Complaint, Pause};
use super::executor::{Item, Past, RUN, Run};
use super::held::Slot;
use super::shared::{Shared, sleep_until};
use super::source::Source;
use super::waker::Alarm;
use crate::event::{Entry, EntryId};
use crate::stream::{Delivered, Joined, Link, Read, Trouble};

/// Most bytes held, reads under way included.
const BYTES: usize = 16 << 20;
/// The longest a read waits for new entries. Other work that comes up meanwhile wakes it.
const BLOCK: Duration = Duration::from_secs(1);
/// How often parked entries are looked for while there is always something new.
const BUSY_POLL: Duration = Duration::from_millis(100);
/// What an entry is taken to have in bytes before the first has been seen.
const FIRST_SIZE: usize = 64 << 10;

/// Brings entries to this worker.
pub(super) struct Fetcher {
    pub(super) shared: Arc<Shared>,
    runs: mpsc::UnboundedSender<Run>,
    suspects: mpsc::UnboundedSender<Run>,
    /// The connection, gone after an error.
    link: Option<Link>,
    /// Wakes a read that blocks; a read can't be cancelled without losing its reply.
    bell: Option<Link>,
    complaint: Complaint,
    pause: Pause,
    pub(super) alarm: Alarm,
    pub(super) reclaims: super::reclaimer::Schedule,
    rate: Rate,
    /// The server's time in ms, and when it was told.
    pub(super) clock: Option<(u64, Instant)>,
    /// The size of an entry, as of late.
    size: usize,
    turn: usize,
}

/// How fast entries have been settled of late.
struct Rate {
    per_second: f64,
    settled: u64,
    at: Instant,
}

impl Fetcher {
    pub fn new(
        shared: Arc<Shared>,
        runs: mpsc::UnboundedSender<Run>,
        suspects: mpsc::UnboundedSender<Run>,
    ) -> Self {
        Fetcher {
            shared,
            runs,
            suspects,
            link: None,
            bell: None,
            complaint: Complaint::default(),
            pause: Pause::new(),
            alarm: Alarm::default(),
            reclaims: super::reclaimer::Schedule::new(),
            rate: Rate {
                per_second: 0.0,
                settled: 0,
                at: Instant::now(),
            },
            clock: None,
            size: FIRST_SIZE,
            turn: 0,
        }
    }

    /// Fetches until the worker stops. The channels to the executor close with it.
    pub async fn run(mut self) {
        while !self.shared.stopping.is_cancelled() {
            let result = match self.link.take() {
                Some(mut link) => {
                    let result = self.round(&mut link).await;
                    // After a broken connection the next one begins by adopting what this one may have lost.
                    self.link = (!matches!(result, Err(Trouble::Broken(_)))).then_some(link);
                    result
                }
                None => self.connect().await,
            };
            let Err(trouble) = result else {
                if self.link.is_some() {
                    self.pause.reset();
                }
                continue;
            };
            if trouble.is_final() {
                return self.shared.fail(trouble.into_error());
            }
            match &trouble {
                Trouble::NoGroup(_) => {
                    self.shared.rejoin();
                    tracing::warn!("{}", trouble.error());
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
        let mut link = self
            .shared
            .connect("read", BLOCK + Duration::from_secs(10))
            .await
            .map_err(Trouble::Broken)?;
        self.bell = Some(
            self.shared
                .connect("bell", Duration::from_secs(5))
                .await
                .map_err(Trouble::Broken)?,
        );
        for source in self.shared.sources.clone() {
            self.join(&mut link, &source).await?;
            if source.again.as_ref().is_some_and(|again| again.is_active()) {
                self.join(&mut link, source.again.as_ref().expect("it is active"))
                    .await?;
            }
        }
        self.shared.joined.cancel();
        self.shared.adopt_soon();
        if self.complaint.clear() {
            tracing::info!(
                "connected to Redis at {} again",
                self.shared.connector.address
            );
        }
        self.link = Some(link);
        Ok(())
    }

    async fn join(&self, link: &mut Link, source: &Source) -> Result<(), Trouble> {
        let (group, stream) = (&source.surroundings.group, &source.keys.stream);
        match link
            .join(&source.keys, group, self.shared.start_of(source))
            .await?
        {
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
            Joined::Foreign(protocol) => return Err(super::foreign(group, stream, &protocol)),
        }
        Ok(())
    }

    /// One turn of everything that brings entries.
    async fn round(&mut self, link: &mut Link) -> Result<(), Trouble> {
        if self.shared.take_rejoin() {
            for source in self.shared.active_sources() {
                self.join(link, &source).await?;
            }
            self.shared.adopt_soon();
        }
        if self.shared.take_adopt() {
            self.adopt(link).await?;
        }
        let (held, lease) = (self.shared.held.entries(), self.shared.lease);
        if self.reclaims.visits.tend(&self.shared.ward, held, lease) {
            self.reclaims.look_soon(Instant::now());
        }
        let budget = self.budget();
        if budget == 0 {
            // A suspect has no need of a free slot: it comes when nothing else runs.
            self.reclaim(link, 0).await?;
            return self.until_there_is_room().await;
        }
        // With room for all, each kind gets its share; with room for one, they take turns.
        self.turn = (self.turn + 1) % 3;
        let mut left = budget;
        let mut more = false;
        if left > 2 || self.turn == 0 {
            let taken = self.reclaim(link, share(left, 3)).await?;
            left = left.saturating_sub(taken.entries);
            more |= taken.more;
        }
        if left > 1 || (left == 1 && self.turn != 2) {
            let taken = self.wake(link, share(left, 2)).await?;
            left = left.saturating_sub(taken.entries);
            more |= taken.more;
        }
        // Waking may have found replayed entries, whose group has to be joined before it is read.
        if left == 0 || self.shared.wants_to_join() {
            return Ok(());
        }
        self.read(link, left, more).await
    }

    /// How many entries may be taken now: as many as are likely to be settled in a tenth of a second, at least one
    /// for each free slot, and no more than `prefetch` and [`BYTES`] allow.
    fn budget(&mut self) -> usize {
        self.rate.sample(self.shared.held.settled());
        let held = self.shared.held.entries();
        let (prefetch, free) = (self.shared.prefetch, self.shared.slots.available_permits());
        let ahead = ((self.rate.per_second / 10.0) as usize).min(prefetch);
        let bytes = BYTES.saturating_sub(self.shared.held.bytes()) / self.size.max(1);
        // What is held and does not run yet takes the free slots first.
        let waiting = held.saturating_sub(self.shared.concurrency - free);
        let by_slots = free.saturating_sub(waiting);
        let mut budget = by_slots
            .max(ahead.saturating_sub(held))
            .min(prefetch.saturating_sub(held));
        // Half of a large budget at least, so that fast handlers get large batches.
        if by_slots == 0 && budget < ahead / 2 {
            budget = 0;
        }
        // One entry larger than all that is allowed must pass, alone.
        budget.min(bytes.max(usize::from(held == 0)))
    }

    async fn until_there_is_room(&self) -> Result<(), Trouble> {
        tokio::select! {
            () = self.shared.held.freed.notified() => {}
            () = self.shared.nudge.notified() => {}
            () = self.shared.stopping.cancelled() => {}
            () = tokio::time::sleep(BUSY_POLL) => {}
        }
        Ok(())
    }

    /// Reads new entries; waits for some where there is nothing else to do.
    async fn read(&mut self, link: &mut Link, budget: usize, more: bool) -> Result<(), Trouble> {
        let sources = self.shared.active_sources();
        let streams: Vec<&str> = sources
            .iter()
            .map(|source| source.keys.stream.as_str())
            .collect();
        let read = Read {
            group: &self.shared.group,
            consumer: &self.shared.consumer,
            count: (budget / streams.len()).max(1),
            block: (!more).then(|| self.patience()),
            streams: &streams,
        };
        let since = Instant::now();
        let client = link.client;
        let delivered = {
            let reading = link.read(&read);
            tokio::pin!(reading);
            let mut ringing = false;
            loop {
                let bell = self.bell.clone();
                tokio::select! {
                    biased;
                    delivered = &mut reading => break delivered?,
                    () = self.something_else(), if !ringing && bell.is_some() => ringing = true,
                    () = ring(bell, client), if ringing => {}
                }
            }
        };
        for (at, entries) in delivered {
            let entries: Vec<Arrival> = entries.into_iter().map(Arrival::new).collect();
            self.hand_over(&sources[at], false, since, entries);
        }
        Ok(())
    }

    /// How long a read may block: until it is time for something else.
    fn patience(&self) -> Duration {
        let until = self.alarm.next.min(self.reclaims.next());
        until
            .saturating_duration_since(Instant::now())
            .clamp(Duration::from_millis(1), BLOCK.min(self.shared.lease / 3))
    }

    /// Waits for a reason to end a read that blocks.
    async fn something_else(&self) {
        loop {
            // What was parked here while the read blocked may fall due before the read ends by itself.
            let due = self.shared.next_due();
            tokio::select! {
                () = self.shared.stopping.cancelled() => return,
                () = self.shared.nudge.notified() => return,
                () = sleep_until(due), if due.is_some() => return,
                () = self.shared.due_changed.notified() => {}
            }
        }
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
                let held: Vec<EntryId> = self
                    .shared
                    .held
                    .snapshot()
                    .iter()
                    .filter(|batch| batch.alone == alone && Arc::ptr_eq(&batch.source, &source))
                    .flat_map(|batch| batch.kept().map(|slot| slot.id))
                    .collect();
                let since = Instant::now();
                let most = if alone { 1 } else { 500 };
                let group = &source.surroundings.group;
                let adopted = link
                    .adopt(&source.keys, group, &consumer, most, BYTES / 4, &held)
                    .await?;
                super::report_trimmed(&source, &adopted.trimmed, "before they were handled");
                if !adopted.entries.is_empty() {
                    let (count, stream) = (adopted.entries.len(), &source.keys.stream);
                    tracing::info!(stream, count, "found entries whose delivery had got lost");
                    if alone {
                        self.reclaims.visits.entered(&self.shared.ward);
                    }
                }
                if adopted.more {
                    self.shared.adopt_soon();
                }
                let entries = adopted
                    .entries
                    .into_iter()
                    .map(|entry| Arrival::again(entry, adopted.now_ms));
                self.hand_over(&source, alone, since, entries.collect());
            }
        }
        Ok(())
    }

    /// Gives entries to the executor, from now on held.
    pub(super) fn hand_over(
        &mut self,
        source: &Arc<Source>,
        alone: bool,
        since: Instant,
        entries: Vec<Arrival>,
    ) {
        if entries.is_empty() {
            return;
        }
        let sizes: usize = entries.iter().map(|arrival| arrival.size).sum();
        // Rises at once and falls slowly: too few entries cost a round trip, too many cost memory.
        let size = sizes / entries.len() + 64;
        self.size = if size > self.size {
            size
        } else {
            (self.size * 7 + size) / 8
        };
        if let Some(observer) = &self.shared.observer {
            observer.delivered(&source.surroundings.stream, entries.len());
        }
        let slots = entries.iter().map(Arrival::slot).collect();
        let batch = self
            .shared
            .held
            .add(source, alone, since, self.shared.lease, slots);
        let to = if alone { &self.suspects } else { &self.runs };
        let mut items = Vec::with_capacity(entries.len().min(RUN));
        let count = entries.len();
        for (index, arrival) in entries.into_iter().enumerate() {
            items.push(Item {
                index: index as u32,
                entry: arrival.entry,
                past: arrival.past,
            });
            if items.len() == RUN || index + 1 == count {
                // The executor ends after the fetcher.
                let _ = to.send(Run {
                    batch: batch.clone(),
                    items: std::mem::take(&mut items),
                });
            }
        }
    }
}

/// An entry that has just come.
pub(super) struct Arrival {
    entry: Entry,
    count: u32,
    size: usize,
    past: Option<Box<Past>>,
}

impl Arrival {
    fn new(entry: Entry) -> Self {
        let size = entry.size();
        Arrival {
            entry: unpacked(entry),
            count: 1,
            size,
            past: None,
        }
    }

    /// An entry that was delivered before; `now_ms` is the server's time.
    pub(super) fn again(delivered: Delivered, now_ms: u64) -> Self {
        let Delivered {
            entry,
            count,
            record,
        } = delivered;
        let age = record
            .as_ref()
            .map_or(0, |record| now_ms.saturating_sub(record.first_ms));
        let past = Past {
            record,
            age: Duration::from_millis(age),
        };
        let size = entry.size();
        Arrival {
            entry: unpacked(entry),
            count,
            size,
            past: Some(Box::new(past)),
        }
    }

    fn slot(&self) -> Slot {
        let recorded = self.past.as_ref().is_some_and(|past| past.record.is_some());
        Slot::new(self.entry.id, self.count, recorded, self.size)
    }
}

/// A replayed entry that was too wide for a script travels as one field.
fn unpacked(entry: Entry) -> Entry {
    match crate::codec::unpack(entry.fields) {
        Ok(fields) => Entry {
            id: entry.id,
            fields,
        },
        // Without a type it will be buried as undecodable, as it is.
        Err((fields, _)) => Entry {
            id: entry.id,
            fields,
        },
    }
}

impl Rate {
    fn sample(&mut self, settled: u64) {
        let elapsed = self.at.elapsed();
        if elapsed >= Duration::from_millis(10) {
            let now = (settled - self.settled) as f64 / elapsed.as_secs_f64();
            self.per_second = if now > self.per_second {
                now
            } else {
                self.per_second * 0.7 + now * 0.3
            };
            (self.settled, self.at) = (settled, Instant::now());
        }
    }
}

/// Ends a read that blocks. It may not have begun to block when the bell rings: the caller rings again until the
/// read has ended.
async fn ring(bell: Option<Link>, client: i64) {
    if let Some(mut bell) = bell {
        // Without the right to do this a read ends when its time is over.
        let _ = bell.unblock(client).await;
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// One of `parts` shares of what is left, at least one.
fn share(left: usize, parts: usize) -> usize {
    left.div_ceil(parts)
}
