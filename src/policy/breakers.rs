//! Circuit breakers by their names: one for each handler that is set up with one, and one for each service that
//! handlers call by [`Context::breaker`](crate::Context::breaker). One name, one state in the process.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::breaker::{Held, Machine, Outcome, State, Ticket};
use crate::clock;
use crate::config::{BreakerScope, BreakerSettings};
use crate::delay;
use crate::failure::Failure;
use crate::sync::lock;

/// All circuit breakers of a process.
#[derive(Debug, Default)]
pub(crate) struct Breakers {
    settings: BTreeMap<String, BreakerSettings>,
    named: Mutex<HashMap<String, Arc<Circuit>>>,
    all: Mutex<Vec<Arc<Circuit>>>,
    /// What the group had open when this worker began, by key, and until when.
    inherited: Mutex<HashMap<String, Instant>>,
    news: Arc<News>,
}

/// Wakes those who tell others what has changed. Which breakers have, their epochs tell.
#[derive(Debug, Default)]
pub(crate) struct News(Notify);

/// One breaker's state, shared by all that ask it.
pub(crate) struct Circuit {
    pub name: String,
    /// What the group calls it: a handler's and a service's may have one name.
    pub key: String,
    settings: BreakerSettings,
    /// It is to be found out who sends the group's probes.
    asks: AtomicBool,
    machine: Mutex<Machine>,
    /// A success changes nothing, and everything is let through: nothing is to be locked.
    is_clean: AtomicBool,
    epoch: AtomicU64,
    /// What it was opened for, if that was said.
    why: Mutex<Option<String>>,
    news: Arc<News>,
}

impl Breakers {
    pub fn new(settings: BTreeMap<String, BreakerSettings>) -> Self {
        Breakers {
            settings,
            ..Breakers::default()
        }
    }

    /// The breaker of that name, for calls to a service.
    pub fn named(&self, name: &str) -> Arc<Circuit> {
        let mut named = lock(&self.named);
        if let Some(circuit) = named.get(name) {
            return circuit.clone();
        }
        let settings = self.settings.get(name).copied().unwrap_or_default();
        let circuit = self.add(name, format!("call:{name}"), settings);
        named.insert(name.to_owned(), circuit.clone());
        circuit
    }

    /// A breaker that nobody else asks for by its name.
    pub fn make(&self, name: &str, settings: BreakerSettings) -> Arc<Circuit> {
        self.add(name, format!("handler:{name}"), settings)
    }

    fn add(&self, name: &str, key: String, settings: BreakerSettings) -> Arc<Circuit> {
        let inherited = lock(&self.inherited).get(&key).copied();
        let circuit = Arc::new(Circuit::new(name, key, settings, self.news.clone()));
        lock(&self.all).push(circuit.clone());
        if let Some(until) = inherited {
            circuit.hear_open(until.saturating_duration_since(clock::now()));
        }
        circuit
    }

    /// All that have been asked for.
    pub fn all(&self) -> Vec<Arc<Circuit>> {
        lock(&self.all).clone()
    }

    /// What the group has open as this worker begins, and for how long: it begins with that.
    pub fn inherit(&self, open: &[(String, Duration)]) {
        let now = clock::now();
        for (key, left) in open {
            let until = delay::after(now, *left);
            lock(&self.inherited).insert(key.clone(), until);
        }
        for circuit in self.all() {
            if let Some((_, left)) = open.iter().find(|(key, _)| *key == circuit.key) {
                circuit.hear_open(*left);
            }
        }
    }

    pub fn news(&self) -> &Arc<News> {
        &self.news
    }
}

impl News {
    /// Waits for the next; whoever makes this hears of what comes from then on, polled or not.
    pub fn next(&self) -> impl Future<Output = ()> {
        self.0.notified()
    }

    fn wake(&self) {
        self.0.notify_waiters();
        self.0.notify_one();
    }
}

impl Circuit {
    fn new(name: &str, key: String, settings: BreakerSettings, news: Arc<News>) -> Self {
        let machine = Machine::new(settings);
        Circuit {
            name: name.to_owned(),
            key,
            asks: AtomicBool::new(false),
            settings,
            is_clean: AtomicBool::new(machine.is_clean()),
            epoch: AtomicU64::new(machine.epoch()),
            machine: Mutex::new(machine),
            why: Mutex::new(None),
            news,
        }
    }

    /// Asks for one call.
    pub fn admit(self: &Arc<Self>) -> Result<Ticket, Held> {
        if self.is_clean.load(Ordering::Acquire) {
            return Ok(Ticket(self.epoch.load(Ordering::Acquire)));
        }
        let mut machine = lock(&self.machine);
        let before = machine.epoch();
        let admitted = machine.admit(clock::now());
        if machine.epoch() != before {
            self.changed(&machine);
        }
        self.ask_if_wanted(&machine);
        admitted
    }

    /// What came of a call that was let through.
    pub fn record(self: &Arc<Self>, ticket: Ticket, outcome: Outcome) {
        if outcome != Outcome::Failure && self.is_clean.load(Ordering::Acquire) {
            return;
        }
        let mut machine = lock(&self.machine);
        let changed = machine.record(ticket, outcome, clock::now());
        self.is_clean.store(machine.is_clean(), Ordering::Release);
        if changed {
            self.changed(&machine);
        }
    }

    /// A call that was let through has shown that there is no use in others.
    pub fn trip(self: &Arc<Self>, ticket: Ticket, why: String) {
        let mut machine = lock(&self.machine);
        if machine.trip(ticket, Instant::now()) {
            *lock(&self.why) = Some(why);
            self.is_clean.store(machine.is_clean(), Ordering::Release);
            self.changed(&machine);
        }
    }

    /// What it was opened for, if it was said, and it has not closed since.
    pub fn why(&self) -> Option<String> {
        lock(&self.why).clone()
    }

    /// What came of a handler's run.
    pub fn record_run(self: &Arc<Self>, ticket: Ticket, result: &Result<(), Failure>) {
        let outcome = match result {
            Ok(()) => Outcome::Success,
            Err(failure) => Machine::outcome_of(&self.settings, failure),
        };
        self.record(ticket, outcome);
    }

    /// How many more calls would be let through: None for any number.
    pub fn room(&self) -> Option<usize> {
        if self.is_clean.load(Ordering::Acquire) {
            return None;
        }
        let machine = lock(&self.machine);
        self.ask_if_wanted(&machine);
        machine.room(clock::now())
    }

    /// Whether it is one for the whole group.
    pub fn is_of_group(&self) -> bool {
        self.settings.scope == BreakerScope::Group
    }

    /// How long it stays open.
    pub fn open_for(&self) -> Duration {
        self.settings.open_for
    }

    /// Whether the right to send the group's probes is wanted: it is asked for once, or kept.
    pub fn wants_to_probe(&self) -> bool {
        self.asks.load(Ordering::Acquire)
            || (self.is_of_group() && lock(&self.machine).is_probing())
    }

    /// This worker may send the group's probes for so long.
    pub fn grant(&self, lasts: Duration) {
        self.asks.store(false, Ordering::Release);
        lock(&self.machine).grant(clock::now(), lasts);
    }

    /// Others of the group have it open for so long; zero if it waits for probes.
    pub fn hear_open(self: &Arc<Self>, left: Duration) {
        if !left.is_zero() {
            self.asks.store(false, Ordering::Release);
        }
        self.hear(|machine| machine.hear_open(clock::now(), left));
    }

    /// It is closed for the group, unless it has changed here since `epoch`.
    pub fn hear_closed(self: &Arc<Self>, epoch: u64) {
        self.asks.store(false, Ordering::Release);
        self.hear(|machine| {
            if machine.epoch() == epoch {
                machine.hear_closed();
            }
        });
    }

    /// Goes up with every change, from 0.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// How often its own probes have closed it.
    pub fn closed(&self) -> u64 {
        lock(&self.machine).closed()
    }

    fn hear(self: &Arc<Self>, what: impl FnOnce(&mut Machine)) {
        let mut machine = lock(&self.machine);
        let before = machine.epoch();
        what(&mut machine);
        if machine.epoch() != before {
            self.heard(&machine);
        }
    }

    fn ask_if_wanted(&self, machine: &Machine) {
        if self.is_of_group()
            && machine.wants_to_probe(clock::now())
            && !self.asks.swap(true, Ordering::AcqRel)
        {
            self.news.wake();
        }
    }

    pub fn state(&self) -> State {
        lock(&self.machine).state()
    }

    /// How often it has opened.
    pub fn opened(&self) -> u64 {
        lock(&self.machine).opened()
    }

    fn heard(self: &Arc<Self>, machine: &Machine) {
        let breaker = &self.name[..];
        match machine.state() {
            State::Closed => tracing::info!(
                breaker,
                "the circuit breaker closes: it has at another worker"
            ),
            _ => tracing::warn!(breaker, "the circuit breaker is open in this group"),
        }
        self.spread(machine);
    }

    fn changed(self: &Arc<Self>, machine: &Machine) {
        let (breaker, opened) = (&self.name[..], machine.opened());
        match machine.state() {
            State::Open { .. } => {
                let open_for = crate::duration::format(self.settings.open_for);
                match self.why() {
                    Some(why) => {
                        tracing::warn!(breaker, opened, %open_for, why, "the circuit breaker opens");
                    }
                    None => tracing::warn!(breaker, opened, %open_for, "the circuit breaker opens"),
                }
            }
            State::HalfOpen => tracing::info!(breaker, "the circuit breaker lets probes through"),
            State::Closed => tracing::info!(breaker, "the circuit breaker closes"),
        }
        self.spread(machine);
    }

    fn spread(self: &Arc<Self>, machine: &Machine) {
        if machine.state() == State::Closed {
            *lock(&self.why) = None;
        }
        self.epoch.store(machine.epoch(), Ordering::Release);
        self.is_clean.store(machine.is_clean(), Ordering::Release);
        self.news.wake();
    }
}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("name", &self.name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
