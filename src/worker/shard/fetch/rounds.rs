//! The order in which everything is asked that brings entries: what others left, what is due, what waits, what is new, and
//! before all of that what was delivered and got lost on the way. Each is a part of its own that returns what has come,
//! which is handed over here before the next is asked.
//!
//! New entries have a connection of their own, on which several reads may be on their way; the rest is asked one after
//! the other, and only while no read is unanswered. Because nothing else delivers, adopting (which asks what is pending
//! with us and not held) can never meet a delivery under way.
//!
//! How much is taken is decided by the [`Prefetch`], and how much of each kind by the [`Shares`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::adopt::{Adopted, Adopter};
use super::clock_steps::ClockSteps;
use super::delivery::{Begin, Deliveries, Taken};
use super::due_retries::DueRetries;
use super::flow_control::{FlowControl, MayRead, Readable, is_limited};
use super::group_rates::GroupRates;
use super::hand_over::HandOver;
use super::idle::{until_there_is_room, until_there_may_be_more};
use super::in_order::InOrder;
use super::join::Joiner;
use super::look_ahead::LooksAhead;
use super::others_in_sight::OthersInSight;
use super::prefetch::Prefetch;
use super::read_new::NewReads;
use super::reading::Terms;
use super::reclaim::Reclaimer;
use super::shares::Shares;
use super::take_waiting::WaitingEntries;
use super::takeover::Takeover;
use crate::config::Settings;
use crate::policy::Breakers;
use crate::stream::{Link, Reader, Trouble};
use crate::worker::observer::Observer;
use crate::worker::run::dispatch::Dispatcher;
use crate::worker::run::outcome::Settlement;
use crate::worker::run::routes::Routes;
use crate::worker::shard::unit::Shard;
use crate::worker::state::capacity::Capacity;
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::{Coming, Inflight};
use crate::worker::state::inline::handle_now;
use crate::worker::state::precedence::Precedence;
use crate::worker::state::signals::Signals;
use crate::worker::state::source::Sources;

/// How long to wait where every stream is another worker's.
const NOBODYS: Duration = Duration::from_secs(1);

/// What comes after the fetch: where entries go, and what they are held back for.
pub(crate) struct Downstream {
    pub capacity: Capacity,
    pub breakers: Arc<Breakers>,
    pub observer: Option<Arc<dyn Observer>>,
    pub runs: Dispatcher,
    /// For what is settled without being handled.
    pub settle: mpsc::UnboundedSender<Settlement>,
}

/// Everything that brings entries.
pub(crate) struct Rounds {
    identity: Arc<Identity>,
    signals: Arc<Signals>,
    sources: Arc<Sources>,
    inflight: Arc<Inflight>,
    routes: Arc<Routes>,
    precedence: Arc<Precedence>,
    joiner: Joiner,
    adopter: Adopter,
    /// Something is to be adopted once there is room for it.
    adopts: bool,
    reclaimer: Reclaimer,
    due_retries: DueRetries,
    clock_steps: ClockSteps,
    waiting: WaitingEntries,
    looks_ahead: LooksAhead,
    others_in_sight: OthersInSight,
    new_reads: NewReads,
    flow_control: FlowControl,
    group_rates: GroupRates,
    prefetch: Prefetch,
    shares: Shares,
    hand_over: HandOver,
    in_order: InOrder,
}

impl Rounds {
    pub fn new(shard: &Shard, settings: &Settings, downstream: Downstream) -> Self {
        let Downstream {
            capacity,
            breakers,
            observer,
            runs,
            settle,
        } = downstream;
        let Capacity {
            slots,
            held,
            quarantine,
            precedence,
            inline,
        } = capacity;
        let health = &shard.health;
        let identity = || shard.identity.clone();
        let signals = || shard.signals.clone();
        let sources = || shard.sources.clone();
        let inflight = || shard.inflight.clone();
        let routes = || shard.routes.clone();
        let takeover = Takeover::new(
            identity(),
            health.clone(),
            quarantine,
            slots.clone(),
            settings.retry.max_attempts,
            attempts_of(settings),
        );
        let (most, precede) = (settings.worker.prefetch, precedence.clone());
        let orderer = shard.orderer.clone();
        let prefetch = Prefetch::new(most, inflight(), held, slots, precede, orderer);
        let clock = shard.clock.clone();
        Rounds {
            identity: identity(),
            signals: signals(),
            sources: sources(),
            inflight: inflight(),
            routes: routes(),
            precedence,
            joiner: Joiner::new(signals(), sources(), breakers),
            adopter: Adopter::new(identity(), signals(), sources(), inflight()),
            adopts: false,
            reclaimer: Reclaimer::new(identity(), signals(), sources(), health.clone(), takeover),
            due_retries: DueRetries::new(
                identity(),
                signals(),
                sources(),
                routes(),
                shard.heard.clone(),
                inflight(),
            ),
            clock_steps: ClockSteps::new(sources(), health.clone(), clock),
            waiting: WaitingEntries::new(identity(), sources(), routes()),
            looks_ahead: LooksAhead::new(signals(), sources(), routes()),
            others_in_sight: OthersInSight::new(sources(), routes()),
            new_reads: NewReads::new(identity(), signals(), sources(), inflight(), inline),
            flow_control: FlowControl::default(),
            group_rates: GroupRates::new(identity(), routes(), shard.links.connector.clone()),
            prefetch,
            shares: Shares::default(),
            hand_over: HandOver::new(
                identity(),
                signals(),
                inflight(),
                observer,
                runs,
                shard.orderer.clone(),
                settle,
            ),
            in_order: InOrder::new(shard),
        }
    }

    /// Joins the groups of all streams; what may be pending with this worker is adopted after that.
    pub async fn join(&mut self, link: &mut Link) -> Result<(), Trouble> {
        self.joiner.join_all(link).await?;
        self.in_order.joined(link).await?;
        self.signals.adopt_soon();
        Ok(())
    }

    /// Nothing more is fetched.
    pub fn end(&mut self) {
        self.in_order.ends();
    }

    /// The connection broke that an answer was to come on.
    pub fn cut(&mut self) {
        self.prefetch.cut();
    }

    /// One turn of everything that brings entries.
    pub async fn round(&mut self, reader: &mut Reader, link: &mut Link) -> Result<(), Trouble> {
        if self.signals.take_rejoin() {
            self.join(link).await?;
        }
        self.joiner.join_barred(link).await?;
        self.in_order.stands_still();
        if self.sources.active().is_empty() {
            self.signals.takes_up_nothing();
            until_there_is_room(&self.signals, &self.inflight).await;
            return Ok(());
        }
        // Whatever has changed, everything below is decided anew.
        if self.signals.take_replan() {
            self.waiting.look_at(Instant::now());
        }
        self.adopts |= self.signals.take_adopt();
        // It is part of what may be held, and waits for room like all else.
        let may_adopt = self.prefetch.room() > 0 || self.inflight.entries() == 0;
        if self.adopts && may_adopt {
            self.adopts = false;
            self.adopt(link).await?;
        }
        if !self.signals.may_take_up() {
            // It hears by this that it may go on.
            self.take_due(link, 0).await?;
            until_there_is_room(&self.signals, &self.inflight).await;
            return Ok(());
        }
        self.reclaimer.tend_quarantine(self.inflight.entries());
        let sharing = &self.routes.sharing;
        sharing.look(self.prefetch.unstarted(), Instant::now());
        if sharing.wants_proof() {
            self.others_in_sight.prove(link).await?;
        }
        let budget = self.prefetch.entries(0);
        let offered = self.prefetch.offered();
        let room = self.shares.reclaimed(budget).max(offered);
        // Without room, too: a suspect has no need of a free slot, it comes when nothing else runs.
        let reclaimed = self.reclaim(link, room).await;
        let wanted = reclaimed.as_ref().is_ok_and(|taken| taken.more);
        self.precedence.answer(wanted);
        let reclaimed = reclaimed?;
        let mut left = budget.saturating_sub(reclaimed.entries);
        self.shares.took(reclaimed.entries, left);
        if left == 0 {
            // For what is paused.
            self.take_due(link, 0).await?;
            self.others_in_sight.look(link).await?;
            if reclaimed.entries == 0 {
                until_there_is_room(&self.signals, &self.inflight).await;
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
        if left == 0 || self.signals.wants_to_join() {
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
        let clock = self.clock_steps.last_seen();
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
        if self.clock_steps.follow(link).await? {
            // Who looked alive for long is to be looked at when their leases have run out, counted from now.
            self.reclaimer.look_soon(Instant::now());
        }
        while let Some(woken) = self
            .due_retries
            .next(&mut look, link, &mut self.clock_steps, &mut self.prefetch)
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
        self.looks_ahead.look(link).await?;
        let (mut sources, next_look) = (self.sources.fetched(), self.next_look());
        sources.retain(|source| source.is_read());
        let Rounds {
            identity,
            signals,
            inflight,
            routes,
            new_reads,
            group_rates,
            prefetch,
            hand_over,
            in_order,
            ..
        } = self;
        if sources.is_empty() {
            until_there_may_be_more(signals, inflight, NOBODYS, next_look).await;
            return Ok(());
        }
        let is_limited = is_limited(routes, signals.has_released(), &sources);
        let may_read = self.flow_control.may_read(sources, routes, is_limited);
        let Readable { sources, limits } = match may_read {
            MayRead::Streams(readable) => readable,
            MayRead::NothingFor(wait) => {
                until_there_may_be_more(signals, inflight, wait, next_look).await;
                return Ok(());
            }
        };
        let budget = match limits.most {
            Some(most) if routes.sharing.is_limited() => budget.max(prefetch.through().min(most)),
            _ => budget,
        };
        let terms = Terms {
            identity,
            signals,
            inflight,
            routes,
            sources: &sources,
            limits: &limits,
            next_look,
            clock: self.clock_steps.last_seen(),
        };
        let begun = new_reads.begin(terms, (reader, link), budget, more, prefetch);
        let Some(mut reading) = begun.await? else {
            return Ok(());
        };
        while let Some(mut answer) = new_reads.next(&mut reading, prefetch).await? {
            while let Some(deliveries) = reading.next_of(&mut answer).await? {
                group_rates.ask_for(link, &deliveries.entries).await?;
                if deliveries.source.order.is_some()
                    && !in_order
                        .check(link, &deliveries.source, deliveries.since)
                        .await?
                {
                    continue;
                }
                hand_over.deliver(deliveries, prefetch);
            }
            for unread in reading.take_passed(answer) {
                if unread.source.order.is_some() {
                    in_order.passed(link, &unread.source).await?;
                    continue;
                }
                hand_over.settle_unread(unread);
            }
            if hand_over.waits_here() {
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
    pub fn hand_over(&mut self, deliveries: Deliveries) {
        let mut entries = deliveries.entries.iter();
        if deliveries.coming == Coming::Alone && entries.any(|delivery| !delivery.is_seal()) {
            self.reclaimer.entered();
        }
        self.hand_over.deliver(deliveries, &mut self.prefetch);
    }
}

/// How many attempts there are at most of the types that have a number of their own.
fn attempts_of(settings: &Settings) -> impl Iterator<Item = (String, u32)> {
    settings.handlers.keys().map(|event_type| {
        let policy = settings.policy(event_type);
        (event_type.clone(), policy.max_attempts)
    })
}
