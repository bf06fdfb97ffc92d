//! Has a worker do all that there is to do: what is settled first, then what has come, then what is due. Time moves while
//! nothing can be done but to wait.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::at::At;
use super::clock::{Clock, sleep_until};
use super::log::Log;
use super::process::{Process, Question};
use super::store::Store;
use super::unsettled::{Came, Unsettled};
use crate::config::Settings;
use crate::handler::Registry;
use crate::policy::Room;
use crate::stream::{Claim, Kind, Pool, Reclaim};
use crate::worker::run::dedup::Answer;
use crate::worker::shard::fetch::delivery::Delivery;
use crate::worker::shard::fetch::flow_control::{room_of, room_to_wake, rooms};
use crate::worker::state::inflight::Coming;
use crate::worker::state::source::Source;

/// From which attempt on what its workers died with goes alone.
const ALONE_FROM: u32 = 3;

/// So often at most something happens while no time passes.
const TURNS: usize = 100_000;

/// A worker, and all that it works on.
pub(super) struct Driver {
    pub settings: Settings,
    pub registry: Registry,
    pub clock: Clock,
    pub store: Store,
    pub pool: Option<Pool>,
    pub log: Log,
    pub process: Process,
    /// Where it is to die, once it comes there.
    pub dies: Vec<At>,
    /// So many answers get lost.
    pub losses: usize,
    /// Until then nothing answers (ms).
    pub away_until: Option<u64>,
    pub graves: Vec<Grave>,
    /// When something is due that only the last look has told.
    pub next: Option<u64>,
    pub unsettled: Unsettled,
    /// Streams that something was published or emitted to.
    pub streams: BTreeSet<String>,
}

/// What a worker left behind that died.
pub(super) struct Grave {
    pub consumer: String,
    /// When its leases run out (ms).
    pub lapses: u64,
}

impl Driver {
    /// Works until there is nothing more to do, or, if a time is given, until it has come (ms).
    pub async fn work(&mut self, until: Option<u64>) {
        let (mut turns, mut at) = (0, self.clock.now_ms());
        loop {
            if self.clock.now_ms() > at {
                (turns, at) = (0, self.clock.now_ms());
            }
            turns += 1;
            if turns > TURNS {
                panic!(
                    "{TURNS} things happened and no time passed: does a handler ask to come back at once?\n{}",
                    self.log.timeline()
                );
            }
            if self.carry_out().await || self.fetch().await || self.process.start_handlers() {
                continue;
            }
            if !self.process.is_busy() || (self.is_away() && self.process.slots.running() == 0) {
                return;
            }
            if !self.wait(until).await {
                return;
            }
        }
    }

    /// Lets so much time pass, and does what falls due meanwhile.
    pub async fn advance(&mut self, by: Duration) {
        let end = self.clock.now_ms() + by.as_millis() as u64;
        loop {
            self.work(Some(end)).await;
            let due = self.next_due().filter(|due| *due < end);
            let now = self.clock.now_ms();
            let Some(due) = due.filter(|due| *due > now) else {
                break;
            };
            self.pass_to(due).await;
        }
        self.pass_to(end).await;
        self.work(Some(end)).await;
    }

    async fn pass_to(&mut self, ms: u64) {
        if ms > self.clock.now_ms() {
            self.clock.set(ms).await;
        }
    }

    pub fn is_away(&self) -> bool {
        let now = self.clock.now_ms();
        self.away_until.is_some_and(|until| until > now)
    }

    /// When something is due next, as far as is known.
    fn next_due(&self) -> Option<u64> {
        if let Some(until) = self.away_until.filter(|_| self.is_away()) {
            return Some(until);
        }
        let graves = self.graves.iter().map(|grave| grave.lapses);
        let now = self.clock.now_ms();
        graves.chain(self.next).filter(|due| *due > now).min()
    }

    /// Waits for a handler, or for what is due. False if the time has come that was given.
    async fn wait(&mut self, until: Option<u64>) -> bool {
        let due = self.next_due();
        let ends = until.is_some_and(|until| due.is_none_or(|due| until <= due));
        let next = if ends { until } else { due };
        let at = next.map(|ms| self.clock.instant(ms));
        let (inbox, inflight) = (&mut self.process.inbox, &self.process.inflight);
        let came = async {
            tokio::select! {
                biased;
                Some(acks) = inbox.acks.recv() => Came::Acks(acks),
                Some(settlement) = inbox.settlements.recv() => Came::Settlement(settlement),
                Some(committing) = inbox.committing.recv() => Came::Committing(committing),
                Some(ask) = inbox.asks.recv() => Came::Ask(ask),
                Some(question) = inbox.questions.recv() => Came::Question(question),
                Some(run) = inbox.runs.lanes.recv() => Came::Run(run),
                Some(run) = inbox.runs.quarantine.recv() => Came::Suspect(run),
                // A handler has ended that had committed.
                () = inflight.freed() => Came::Nothing,
            }
        };
        let came = tokio::select! {
            biased;
            came = came => Some(came),
            () = sleep_until(at) => None,
        };
        match came {
            None => return !ends,
            Some(came) => self.came(came).await,
        }
        true
    }

    /// Answers whether events are copies.
    pub async fn answer(&mut self, question: Question) {
        let Question {
            source,
            claims,
            reply,
        } = question;
        let of = self.process.all_sources();
        let Some(of) = of.iter().find(|of| of.keys.stream == source) else {
            return;
        };
        let claims: Vec<Claim<'_>> = claims
            .iter()
            .map(|(id, event, lasts)| Claim {
                id: *id,
                event,
                lasts: *lasts,
            })
            .collect();
        let answers = self.store.claim(&of.keys, &claims).await;
        let _ = reply.send(answers.into_iter().map(Answer::Is).collect());
    }

    /// Brings entries, if any are due or new. Returns whether anything has happened.
    async fn fetch(&mut self) -> bool {
        if self.is_away() {
            return false;
        }
        self.next = None;
        let mut any = false;
        for source in self.process.all_sources() {
            if self.fetch_from(&source).await {
                any = true;
            }
            if any && self.dies_at(At::Delivered).await {
                return true;
            }
        }
        any
    }

    fn is_due(&mut self, ms: u64) {
        self.next = Some(self.next.map_or(ms, |next| next.min(ms)));
    }

    fn is_due_in(&mut self, wait: Duration) {
        // What is over in a part of a millisecond is over in the next one.
        let ms = wait.as_micros().div_ceil(1000) as u64;
        let due = self.clock.now_ms() + ms.max(1);
        self.is_due(due);
    }

    async fn fetch_from(&mut self, source: &Arc<Source>) -> bool {
        let me = self.process.identity.name.clone();
        let added = self.store.add_due(&source.keys.stream).await;
        if added > 0 {
            let stream = &source.keys.stream;
            self.log
                .say(format!("{stream}: {added} scheduled, due and added"));
        }
        let routes = self.process.routes.clone();
        let most = match room_to_wake(&routes, source) {
            Room::Any => usize::MAX,
            Room::Some(room) => room,
            Room::None(_) => 0,
        };
        let held = self.process.inflight.entries();
        let room = self.settings.worker.prefetch.saturating_sub(held);
        let due = self.store.wake(&source.keys, &me, most.min(room)).await;
        let now = self.clock.now_ms();
        let next = due.next.into_iter().chain(due.scheduled);
        next.filter(|due| *due > now)
            .for_each(|due| self.is_due(due));
        let is_paused = due.paused.iter().any(|what| what == "stream");
        let handlers = due.paused.iter();
        let handlers = handlers.filter_map(|what| what.strip_prefix("handler:"));
        let handlers = handlers.map(str::to_owned).collect();
        if source.pauses.learn(is_paused, handlers).is_some() {
            let bounds = routes.all().iter();
            bounds.for_each(|bound| bound.gate.forget_released());
        }
        let mut any = added > 0;
        if let Some(again) = &source.again
            && again.is_active() != due.again
        {
            if due.again {
                self.store.join(&again.keys, again.start).await;
            }
            again.set_active(due.again);
            any = true;
        }
        source.heard_of_waiting(due.waiting);
        source.report_trimmed(&due.trimmed, "while they were parked");
        any |= self.came_again(source, Coming::InTurn, due.entries);
        if is_paused {
            return any;
        }
        any |= self.reclaim(source).await;
        any |= self.take_waiting(source).await;
        any | self.read_new(source).await
    }

    fn came_again(
        &mut self,
        source: &Arc<Source>,
        coming: Coming,
        entries: Vec<crate::stream::Delivered>,
    ) -> bool {
        let now = self.clock.now_ms();
        let entries = entries.into_iter();
        let entries: Vec<Delivery> = entries.map(|entry| Delivery::again(entry, now)).collect();
        let any = !entries.is_empty();
        if any {
            self.process.deliver(source, coming, entries);
        }
        any
    }

    /// Takes over what dead workers held, once their leases have run out.
    async fn reclaim(&mut self, source: &Arc<Source>) -> bool {
        let now = self.clock.now_ms();
        let lapsed = |grave: &&Grave| grave.lapses <= now;
        let lapsed: Vec<String> = self
            .graves
            .iter()
            .filter(lapsed)
            .map(|grave| grave.consumer.clone())
            .collect();
        let mut any = false;
        for holder in lapsed {
            any |= self.reclaim_from(source, &holder).await;
        }
        any
    }

    async fn reclaim_from(&mut self, source: &Arc<Source>, holder: &str) -> bool {
        let attempts = self.settings.retry.max_attempts;
        let alone_from = ALONE_FROM.min(attempts);
        let of = self.process.routes.all().iter().map(|bound| {
            let from = ALONE_FROM.min(bound.policy.max_attempts);
            (bound.gate.name.clone(), from)
        });
        let of: Vec<(String, u32)> = of.filter(|(_, from)| *from != alone_from).collect();
        let is_quiet = self.process.slots.running() == 0 && !self.process.is_busy();
        let identity = self.process.identity.clone();
        let wanted = Reclaim {
            group: &identity.group,
            me: &identity.name,
            holder,
            lease_ms: self.settings.worker.lease.as_millis() as u64,
            most: self.settings.worker.prefetch,
            most_bytes: usize::MAX >> 1,
            alone_from,
            alone_from_of: &of,
            room_alone: is_quiet,
            from: "-",
            clock: crate::stream::Expected {
                ms: self.clock.now_ms(),
                leeway: self.settings.worker.lease / 2,
            },
        };
        let brought = self.store.reclaim(&source.keys, &wanted).await;
        source.report_trimmed(&brought.trimmed, "while their worker was gone");
        for entry in brought.entries.iter().chain(&brought.alone) {
            let name = self.log.name_of(source, entry.entry.id);
            self.log
                .say(format!("{name}: taken over from the worker that died"));
        }
        let mut any = self.came_again(source, Coming::First, brought.entries);
        any |= self.came_again(source, Coming::Alone, brought.alone.into_iter().collect());
        any
    }

    /// Takes what waits for a worker that can handle it, if its handler may run by now.
    async fn take_waiting(&mut self, source: &Arc<Source>) -> bool {
        if !source.has_waiting() {
            return false;
        }
        let (me, routes) = (
            self.process.identity.name.clone(),
            self.process.routes.clone(),
        );
        let mut kinds = Vec::new();
        for bound in routes.all() {
            let most = match room_of(&routes, source, bound) {
                Room::None(wait) => {
                    if !source.pauses.handler(&bound.gate.name) {
                        self.is_due_in(wait);
                    }
                    continue;
                }
                Room::Some(room) => room,
                Room::Any => self.settings.worker.prefetch,
            };
            let range = &bound.waiting;
            kinds.push(Kind { range, most });
        }
        let unbound = routes.unbound().iter();
        let most = self.settings.worker.prefetch;
        kinds.extend(unbound.map(|range| Kind { range, most }));
        let taken = self.store.take_waiting(&source.keys, &me, &kinds).await;
        self.came_again(source, Coming::InTurn, taken)
    }

    async fn read_new(&mut self, source: &Arc<Source>) -> bool {
        let routes = self.process.routes.clone();
        let room = rooms(&routes, source).into_iter().reduce(Room::or);
        let held = self.process.inflight.entries();
        let room = match room.unwrap_or(Room::Any) {
            Room::None(wait) => {
                self.is_due_in(wait);
                0
            }
            Room::Some(room) => room.saturating_sub(held),
            Room::Any => self.settings.worker.concurrency.saturating_sub(held),
        };
        if room == 0 {
            return false;
        }
        let me = self.process.identity.name.clone();
        let entries = self.store.read_new(&source.keys, &me, room).await;
        let any = !entries.is_empty();
        if any {
            for entry in &entries {
                // Named as they come: those as well that a handler emitted.
                self.log.name_of(source, entry.id);
            }
            let entries = entries.into_iter().map(Delivery::new).collect();
            self.process.deliver(source, Coming::InTurn, entries);
        }
        any
    }

    /// Whether it dies here; then another one has begun.
    pub async fn dies_at(&mut self, at: At) -> bool {
        let Some(place) = self.dies.iter().position(|dies| *dies == at) else {
            return false;
        };
        self.dies.remove(place);
        self.die(&format!("{at}")).await;
        true
    }

    /// It dies, and another one begins.
    pub async fn die(&mut self, why: &str) {
        let number = self.process.number + 1;
        let identity = self.process.identity.clone();
        for source in self.process.all_sources() {
            for alone in [false, true] {
                self.store
                    .renew(&source.keys, identity.consumer(alone))
                    .await;
            }
        }
        let lapses = self.clock.now_ms() + identity.lease.as_millis() as u64;
        for alone in [false, true] {
            let consumer = identity.consumer(alone).to_owned();
            self.graves.push(Grave { consumer, lapses });
        }
        self.log.say(format!(
            "THE WORKER DIES {why}; what it held comes back when its lease is over"
        ));
        let next = self.start(number);
        std::mem::replace(&mut self.process, next).die().await;
        self.log.died();
        self.unsettled = Unsettled::default();
    }

    fn start(&self, number: u32) -> Process {
        let (registry, pool) = (self.registry.copy(), self.pool.as_ref());
        let started = Process::start(number, &self.settings, registry, pool, &self.log);
        started.unwrap_or_else(|error| panic!("a worker can't begin: {error}"))
    }
}
