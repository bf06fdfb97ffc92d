//! Circuit breakers by their names: one for each handler that is set up with one, and one for each service that
//! handlers call by [`Context::breaker`](crate::Context::breaker). One name, one state in the process.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::breaker::{Held, Machine, Outcome, State, Ticket};
use crate::config::{BreakerScope, BreakerSettings};
use crate::context::{Cancelled, Context};
use crate::delay;
use crate::failure::{BoxError, Failure};

/// A circuit breaker for calls to a service from within handlers. See [`Context::breaker`](crate::Context::breaker).
///
/// ```
/// # use streamhand::{Context, Failure};
/// # async fn charge(amount: u64) -> Result<(), std::io::Error> { Ok(()) }
/// # async fn example(ctx: Context) -> Result<(), Failure> {
/// ctx.breaker("payments").call(charge(12)).await?;
/// # Ok(()) }
/// ```
///
/// While it is open nothing is called: the error, handed on by `?`, lets the event come back when the breaker's time
/// is over, and uses up no attempt.
#[derive(Clone)]
pub struct Breaker {
    shared: Arc<Circuit>,
    ctx: Option<Context>,
}

/// Why a call through a [`Breaker`] did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError<E> {
    /// The breaker is open: nothing was called.
    Open {
        /// The breaker's name.
        name: String,
        /// When it is worth asking again.
        retry_in: Duration,
    },
    /// The call failed, and was counted.
    Failed(E),
}

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

/// Which breakers have changed, for whoever tells others.
#[derive(Debug, Default)]
pub(crate) struct News {
    changed: Mutex<Vec<Arc<Circuit>>>,
    pub notify: Notify,
}

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
    news: Arc<News>,
}

/// A call that was let through: what is not said of it by its end says nothing.
struct Call<'a> {
    breaker: &'a Breaker,
    ticket: Option<Ticket>,
}

impl Breakers {
    pub fn new(settings: BTreeMap<String, BreakerSettings>) -> Self {
        Breakers {
            settings,
            ..Breakers::default()
        }
    }

    /// The breaker of that name, for calls of one handler's run.
    pub fn named(&self, name: &str, ctx: Context) -> Breaker {
        let mut named = lock(&self.named);
        let shared = match named.get(name) {
            Some(shared) => shared.clone(),
            None => {
                let settings = self.settings.get(name).copied().unwrap_or_default();
                let shared = self.add(name, format!("call:{name}"), settings);
                named.insert(name.to_owned(), shared.clone());
                shared
            }
        };
        Breaker {
            shared,
            ctx: Some(ctx),
        }
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
            circuit.hear_open(until.saturating_duration_since(Instant::now()));
        }
        circuit
    }

    /// All that have been asked for.
    pub fn all(&self) -> Vec<Arc<Circuit>> {
        lock(&self.all).clone()
    }

    /// What the group has open as this worker begins, and for how long: it begins with that.
    pub fn inherit(&self, open: &[(String, Duration)]) {
        let now = Instant::now();
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
    /// The breakers that have changed since this was asked last.
    pub fn take(&self) -> Vec<Arc<Circuit>> {
        std::mem::take(&mut *lock(&self.changed))
    }

    /// They are to be told of again.
    pub fn put_back(&self, breakers: Vec<Arc<Circuit>>) {
        lock(&self.changed).extend(breakers);
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
        let admitted = machine.admit(Instant::now());
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
        let changed = machine.record(ticket, outcome, Instant::now());
        self.is_clean.store(machine.is_clean(), Ordering::Release);
        if changed {
            self.changed(&machine);
        }
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
        machine.room(Instant::now())
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
        lock(&self.machine).grant(Instant::now(), lasts);
    }

    /// Others of the group have it open for so long; zero where it waits for probes.
    pub fn hear_open(self: &Arc<Self>, left: Duration) {
        if !left.is_zero() {
            self.asks.store(false, Ordering::Release);
        }
        self.hear(|machine| machine.hear_open(Instant::now(), left));
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

    /// Goes up with every change.
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
            && machine.wants_to_probe(Instant::now())
            && !self.asks.swap(true, Ordering::AcqRel)
        {
            self.news.notify.notify_one();
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
                let open_for = crate::config::duration::format(self.settings.open_for);
                tracing::warn!(breaker, opened, %open_for, "the circuit breaker opens");
            }
            State::HalfOpen => tracing::info!(breaker, "the circuit breaker lets probes through"),
            State::Closed => tracing::info!(breaker, "the circuit breaker closes"),
        }
        self.spread(machine);
    }

    fn spread(self: &Arc<Self>, machine: &Machine) {
        self.epoch.store(machine.epoch(), Ordering::Release);
        self.is_clean.store(machine.is_clean(), Ordering::Release);
        lock(&self.news.changed).push(self.clone());
        self.news.notify.notify_waiters();
        self.news.notify.notify_one();
    }
}

impl Breaker {
    /// Calls, if the breaker lets it, and counts whether it succeeded. Every error counts as a failure. A call that is
    /// dropped before its end counts as one where the handler's time was over, and not at all else.
    ///
    /// # Errors
    /// The call's own error, or [`CallError::Open`].
    pub async fn call<T, E>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CallError<E>> {
        self.call_counting(call, |_| true).await
    }

    /// As [`call`](Self::call), where only some errors say something about the service: those that `counts`.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_counting<T, E>(
        &self,
        call: impl Future<Output = Result<T, E>>,
        counts: impl FnOnce(&E) -> bool,
    ) -> Result<T, CallError<E>> {
        let ticket = self.shared.admit().map_err(|held| CallError::Open {
            name: self.shared.name.clone(),
            retry_in: held.wait,
        })?;
        let mut under_way = Call {
            breaker: self,
            ticket: Some(ticket),
        };
        let result = call.await;
        under_way.ticket = None;
        let outcome = match &result {
            Ok(_) => Outcome::Success,
            Err(error) if counts(error) => Outcome::Failure,
            Err(_) => Outcome::Neither,
        };
        self.shared.record(ticket, outcome);
        result.map_err(CallError::Failed)
    }

    /// Whether calls are refused at this moment.
    pub fn is_open(&self) -> bool {
        self.shared.room() == Some(0)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let why = self.breaker.ctx.as_ref().and_then(Context::cancellation);
            let outcome = if why == Some(Cancelled::TimedOut) || std::thread::panicking() {
                Outcome::Failure
            } else {
                Outcome::Neither
            };
            self.breaker.shared.record(ticket, outcome);
        }
    }
}

impl<E: Into<BoxError>> From<CallError<E>> for Failure {
    fn from(error: CallError<E>) -> Self {
        match error {
            CallError::Open { name, retry_in } => {
                Failure::breaker_open(retry_in, format!("the circuit breaker {name} is open"))
            }
            CallError::Failed(error) => Failure::from(error),
        }
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Open { name, .. } => write!(f, "the circuit breaker {name} is open"),
            CallError::Failed(error) => error.fmt(f),
        }
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while it is locked")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breakers() -> Breakers {
        let settings = BreakerSettings {
            failures: 2,
            ..BreakerSettings::default()
        };
        Breakers::new([("payments".to_owned(), settings)].into())
    }

    #[tokio::test]
    async fn calls_are_refused_while_it_is_open_by_whatever_handle() {
        let breakers = breakers();
        let fails = async || {
            let breaker = breakers.named("payments", Context::for_test());
            breaker.call(async { Err::<(), _>("down") }).await
        };
        assert_eq!(fails().await, Err(CallError::Failed("down")));
        assert_eq!(fails().await, Err(CallError::Failed("down")));
        let refused = fails().await.unwrap_err();
        assert!(matches!(&refused, CallError::Open { name, .. } if name == "payments"));
        let failure = Failure::from(refused);
        assert!(matches!(
            failure.verdict,
            crate::failure::FailureVerdict::Later(_)
        ));
        assert_eq!(breakers.news().take().len(), 1);
        let other = breakers.named("mail", Context::for_test());
        assert!(!other.is_open());
    }

    #[tokio::test]
    async fn what_does_not_count_and_what_is_dropped_says_nothing() {
        let breakers = breakers();
        let breaker = breakers.named("payments", Context::for_test());
        for _ in 0..5 {
            let call = breaker.call_counting(async { Err::<(), _>("no such card") }, |_| false);
            assert!(call.await.is_err());
            let never = breaker.call(std::future::pending::<Result<(), &str>>());
            let timeout = std::time::Duration::from_millis(1);
            assert!(tokio::time::timeout(timeout, never).await.is_err());
        }
        assert!(!breaker.is_open());
        let ctx = Context::for_test();
        ctx.cancel(Cancelled::TimedOut);
        for _ in 0..2 {
            let breaker = breakers.named("payments", ctx.clone());
            let never = breaker.call(std::future::pending::<Result<(), &str>>());
            let timeout = std::time::Duration::from_millis(1);
            assert!(tokio::time::timeout(timeout, never).await.is_err());
        }
        assert!(breaker.is_open());
    }
}
