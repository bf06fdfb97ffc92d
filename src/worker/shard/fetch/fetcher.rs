//! The fetcher: brings entries to this worker, in this order: what others left, what is due, what waits, what is new, and
//! before all of that what was delivered and got lost on the way. Each is a part of its own that returns what has come;
//! the fetcher calls them and hands that over.
//!
//! New entries have a connection of their own, on which several reads may be on their way; the rest is asked one after
//! the other, and only while no read is unanswered. Because nothing else delivers, adopting (which asks what is pending
//! with us and not held) can never meet a delivery under way.
//!
//! How much it takes is decided by the [`Prefetch`], and how much of each kind by the [`Shares`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::adopt::{Adopted, Adopter};
use super::delivery::{Begin, Deliveries, Taken};
use super::due_retries::DueRetries;
use super::flow_control::{FlowControl, MayRead, Readable, is_limited};
use super::group_rates::GroupRates;
use super::hand_over::HandOver;
use super::idle::{until_there_is_room, until_there_may_be_more};
use super::join::Joiner;
use super::look_ahead::LooksAhead;
use super::prefetch::Prefetch;
use super::read_new::NewReads;
use super::reading::Terms;
use super::reclaim::Reclaimer;
use super::server_clock::ServerClock;
use super::shares::Shares;
use super::take_waiting::WaitingEntries;
use crate::reconnect::{Complaint, Pause};
use crate::stream::{Link, Reader, Trouble};
use crate::worker::run::dispatch::Dispatcher;
use crate::worker::run::outcome::Settlement;
use crate::worker::state::inflight::Coming;
use crate::worker::state::inline::handle_now;
use crate::worker::state::shared::Shared;

/// How long anything but a read may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Brings entries to this worker.
pub(crate) struct Fetcher {
    shared: Arc<Shared>,
    /// The connections, gone after an error.
    lines: Option<Lines>,
    complaint: Complaint,
    pause: Pause,
    joiner: Joiner,
    adopter: Adopter,
    /// Something is to be adopted once there is room for it.
    adopts: bool,
    reclaimer: Reclaimer,
    due_retries: DueRetries,
    server_clock: ServerClock,
    waiting: WaitingEntries,
    looks_ahead: LooksAhead,
    new_reads: NewReads,
    flow_control: FlowControl,
    group_rates: GroupRates,
    prefetch: Prefetch,
    shares: Shares,
    hand_over: HandOver,
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
            lines: None,
            complaint: Complaint::default(),
            pause: Pause::new(),
            joiner: Joiner::new(shared.clone()),
            adopter: Adopter::new(shared.clone()),
            adopts: false,
            reclaimer: Reclaimer::new(shared.clone()),
            due_retries: DueRetries::new(shared.clone()),
            server_clock: ServerClock::new(shared.clone()),
            waiting: WaitingEntries::new(shared.clone()),
            looks_ahead: LooksAhead::new(shared.clone()),
            new_reads: NewReads::new(shared.clone()),
            flow_control: FlowControl::default(),
            group_rates: GroupRates::new(shared.clone()),
            prefetch: Prefetch::new(),
            shares: Shares::default(),
            hand_over: HandOver::new(shared.clone(), runs, settle),
            shared,
        }
    }

    /// Fetches until the worker stops. The ways to the executor close with it.
    pub async fn run(mut self) {
        while !self.shared.signals.is_stopping() {
            let result = match self.lines.take() {
                Some(mut lines) => {
                    let result = self.round(&mut lines).await;
                    if let Err(Trouble::Broken(_)) = result {
                        self.prefetch.cut();
                    }
                    if result.is_ok() {
                        self.pause.reset();
                    }
                    // After a broken connection, or if an answer is still to come, new ones begin by adopting what
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
                return self.shared.signals.fail(trouble.into_error());
            }
            match &trouble {
                Trouble::NoGroup(_) => {
                    self.shared.signals.rejoin();
                    tracing::warn!("{}", trouble.error());
                }
                // One stream may be in the way of reading all of them: joining each tells which.
                _ if trouble.is_about_a_key() => {
                    self.shared.signals.rejoin();
                    self.complaint.warn(trouble.error().to_string());
                }
                _ => self.complaint.warn(trouble.error().to_string()),
            }
            tokio::select! {
                () = tokio::time::sleep(self.pause.next()) => {}
                () = self.shared.signals.stopped() => {}
            }
        }
    }

    async fn connect(&mut self) -> Result<(), Trouble> {
        let connecting = self.shared.links.connect("fetch", ANSWER).await;
        let mut link = connecting.map_err(Trouble::Broken)?;
        let connecting = self.shared.links.connect_reader().await;
        let reader = connecting.map_err(Trouble::Broken)?;
        self.joiner.join_all(&mut link).await?;
        self.shared.signals.set_joined();
        self.shared.signals.adopt_soon();
        if self.complaint.clear() {
            tracing::info!(
                "connected to Redis at {} again",
                self.shared.links.connector.address
            );
        }
        self.lines = Some(Lines { reader, link });
        Ok(())
    }

    /// One turn of everything that brings entries.
    async fn round(&mut self, lines: &mut Lines) -> Result<(), Trouble> {
        let Lines { reader, link } = lines;
        if self.shared.signals.take_rejoin() {
            self.joiner.join_all(link).await?;
            self.shared.signals.adopt_soon();
        }
        self.joiner.join_barred(link).await?;
        if self.shared.sources.active().is_empty() {
            until_there_is_room(&self.shared).await;
            return Ok(());
        }
        // Whatever has changed, everything below is decided anew.
        if self.shared.signals.take_replan() {
            self.waiting.look_at(Instant::now());
        }
        self.adopts |= self.shared.signals.take_adopt();
        // It is part of what may be held, and waits for room like all else.
        let may_adopt = self.prefetch.room(&self.shared) > 0 || self.shared.inflight.entries() == 0;
        if self.adopts && may_adopt {
            self.adopts = false;
            self.adopt(link).await?;
        }
        self.reclaimer.tend_quarantine();
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
            self.take_due(link, 0).await?;
            if reclaimed.entries == 0 {
                until_there_is_room(&self.shared).await;
            }
            return Ok(());
        }
        let due = self.shares.due(left);
        let woken = self.take_due(link, due).await?;
        let due = due.saturating_sub(woken.entries);
        let waiting = self.take_waiting(link, due).await?;
        left = left.saturating_sub(woken.entries + waiting.entries);
        let more = reclaimed.more || woken.more || waiting.more;
        // Waking may have found replayed entries, whose group has to be joined before it is read.
        if left == 0 || self.shared.signals.wants_to_join() {
            return Ok(());
        }
        self.new_reads.look_at_crew(link).await?;
        self.read(reader, link, left, more).await
    }

    async fn adopt(&mut self, link: &mut Link) -> Result<(), Trouble> {
        let mut look = self.adopter.begin();
        while let Some(adopted) = self
            .adopter
            .next(&mut look, link, &mut self.prefetch)
            .await?
        {
            match adopted {
                Adopted::Deliveries(deliveries) => self.hand_over(deliveries),
                Adopted::TooLarge(unread) => {
                    if unread.coming == Coming::Alone {
                        self.reclaimer.entered();
                    }
                    self.hand_over.settle_unread(unread);
                }
            }
        }
        Ok(())
    }

    async fn reclaim(&mut self, link: &mut Link, most: usize) -> Result<Taken, Trouble> {
        let mut look = match self.reclaimer.begin(most) {
            Begin::Look(look) => look,
            Begin::Not(taken) => return Ok(taken),
        };
        let clock = self.server_clock.last_seen();
        while let Some(deliveries) = self
            .reclaimer
            .next(&mut look, link, &clock, &self.prefetch)
            .await?
        {
            self.hand_over(deliveries);
        }
        Ok(self.reclaimer.end(look))
    }

    async fn take_due(&mut self, link: &mut Link, most: usize) -> Result<Taken, Trouble> {
        let mut look = match self.due_retries.begin(most) {
            Begin::Look(look) => look,
            Begin::Not(taken) => return Ok(taken),
        };
        if self.server_clock.follow(link).await? {
            // Who looked alive for long is to be looked at when their leases have run out, counted from now.
            self.reclaimer.look_soon(Instant::now());
        }
        while let Some(woken) = self
            .due_retries
            .next(&mut look, link, &mut self.server_clock, &mut self.prefetch)
            .await?
        {
            let entries = &woken.deliveries.entries;
            self.group_rates.ask_for(link, entries).await?;
            self.hand_over(woken.deliveries);
            if woken.tells_of_waiting {
                self.waiting.look_at(look.began);
            }
        }
        Ok(self.due_retries.end(look))
    }

    async fn take_waiting(&mut self, link: &mut Link, most: usize) -> Result<Taken, Trouble> {
        let mut look = match self.waiting.begin(most) {
            Begin::Look(look) => look,
            Begin::Not(taken) => return Ok(taken),
        };
        while let Some(deliveries) = self
            .waiting
            .next(&mut look, link, &mut self.group_rates, &mut self.prefetch)
            .await?
        {
            self.group_rates.ask_for(link, &deliveries.entries).await?;
            self.hand_over(deliveries);
        }
        Ok(self.waiting.end(look))
    }

    /// Reads new entries as long as they keep coming and nothing else is to be done; waits for some if there is nothing
    /// else to do now.
    async fn read(
        &mut self,
        reader: &mut Reader,
        link: &Link,
        budget: usize,
        more: bool,
    ) -> Result<(), Trouble> {
        let shared = self.shared.clone();
        self.looks_ahead.look(link).await?;
        let (sources, routes) = (shared.sources.active(), &shared.routes);
        let is_limited = is_limited(routes, shared.signals.has_released(), &sources);
        let next_look = self.next_look();
        let may_read = self.flow_control.may_read(sources, routes, is_limited);
        let Readable { sources, limits } = match may_read {
            MayRead::Streams(readable) => readable,
            MayRead::NothingFor(wait) => {
                until_there_may_be_more(&shared, wait, next_look).await;
                return Ok(());
            }
        };
        let terms = Terms {
            shared: &shared,
            sources: &sources,
            limits: &limits,
            next_look,
            clock: self.server_clock.last_seen(),
        };
        let lines = (reader, link);
        let begun = self
            .new_reads
            .begin(terms, lines, budget, more, &mut self.prefetch);
        let Some(mut reading) = begun.await? else {
            return Ok(());
        };
        while let Some(mut answer) = self
            .new_reads
            .next(&mut reading, &mut self.prefetch)
            .await?
        {
            while let Some(deliveries) = reading.next_of(&mut answer).await? {
                self.group_rates.ask_for(link, &deliveries.entries).await?;
                self.hand_over(deliveries);
            }
            for unread in reading.take_passed(answer) {
                self.hand_over.settle_unread(unread);
            }
            if self.hand_over.waits_here() {
                // They are handled before anything else is done.
                handle_now().await;
            }
            reading.nap();
        }
        Ok(())
    }

    /// When it is time to look for what is due, for what others left, and for what waits.
    fn next_look(&self) -> Instant {
        let looks = self.due_retries.next_look().min(self.reclaimer.next_look());
        looks.min(self.waiting.next_look())
    }

    /// Gives entries to the executor, from now on held.
    pub(crate) fn hand_over(&mut self, deliveries: Deliveries) {
        if deliveries.entries.is_empty() {
            return;
        }
        if deliveries.coming == Coming::Alone {
            self.reclaimer.entered();
        }
        self.prefetch.came(deliveries.largest());
        self.hand_over.deliver(deliveries);
    }
}
