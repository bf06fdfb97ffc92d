//! Admission: what an entry needs before its handler runs, and which entries need none.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::batches::Together;
use super::concurrency::ConcurrencyLimit;
use super::limits::Limits;
use super::outcome::Body;
use super::sharing::Sharing;
use super::verdict::{self, Reason, Verdict};
use super::work::Item;
use crate::about::{About, tell};
use crate::classify::Classifiers;
use crate::config::{HandlerPolicy, Settings, Unhandled};
use crate::context::{Context, Place};
use crate::event::Envelope;
use crate::fields::Fields;
use crate::handler::{Hooks, Registry};
use crate::middleware::{
    CatchPanics, CaughtFuture, Handler, HandlerFuture, TimedFuture, TimeoutLayer,
};
use crate::policy::{Breakers, Gate, Room, SetLimit};
use crate::stream::waiting::{self, Range};
use crate::worker::state::inflight::Batch;
use crate::worker::state::recent_acks::RecentAcks;

/// A run of a handler, with what the runtime puts around it.
pub(crate) type RunFuture = TimedFuture<CaughtFuture<HandlerFuture>>;

/// A handler, and the policy its entries are under.
pub(crate) struct Bound {
    /// The newest version of the data it takes.
    version: u32,
    handler: Handler,
    around: TimeoutLayer,
    pub policy: HandlerPolicy,
    pub gate: Gate,
    pub concurrency_limit: ConcurrencyLimit,
    /// If it takes many events at once.
    pub batch: Option<Together>,
    /// Its place among all handlers.
    pub place: usize,
    /// Its entries among those that wait for a worker that can handle them.
    pub waiting: Range,
}

/// What an entry needs before its handler runs.
pub(crate) enum Admission<'a> {
    Handle(&'a Bound, Context),
    /// No handler runs: the verdict, what it speaks of, and the attempt.
    Settle(Verdict, Body, u32),
}

/// Which handler an event goes to, and what becomes of those that go to none.
pub(crate) struct Routes {
    handlers: Vec<Bound>,
    places: FxHashMap<Box<[u8]>, usize>,
    ignored: HashSet<String>,
    default_policy: HandlerPolicy,
    unhandled: Unhandled,
    unhandled_after: Duration,
    is_limited: AtomicBool,
    has_group_rates: AtomicBool,
    /// What operators have set.
    pub limits: Limits,
    unbound: Vec<Range>,
    /// Who is told of failures and dead letters.
    pub hooks: Hooks,
    /// How the slots are shared by all of them.
    pub sharing: Sharing,
    /// What errors mean whose handlers do not say so.
    pub classifiers: Classifiers,
}

impl Routes {
    pub fn new(settings: &Settings, registry: Registry, breakers: &Breakers) -> Self {
        let hooks = registry.hooks().clone();
        let (routes, ignored, classifiers) = registry.into_parts();
        let (mut handlers, mut places) = (Vec::new(), FxHashMap::default());
        let limits = Limits::default();
        for (place, (event_type, route)) in routes.into_iter().enumerate() {
            let policy = settings.policy(&event_type);
            let around = TimeoutLayer {
                timeout: policy.timeout,
                grace: policy.grace,
            };
            let gate = Gate::new(&event_type, &policy, breakers);
            // Its batches are limited, and not its entries.
            let single = policy.concurrency.filter(|_| route.batch.is_none());
            let batch = route.batch.map(|batch| {
                let limits = settings.batch(&event_type, batch.limits);
                Together::new(limits, batch.key, policy.concurrency)
            });
            handlers.push(Bound {
                version: route.version,
                handler: route.handler,
                around,
                gate,
                concurrency_limit: ConcurrencyLimit::new(
                    single.map(|most| (most, policy.concurrency_scope)),
                    limits.wants(),
                ),
                batch,
                policy,
                place,
                waiting: waiting::of(&event_type, Some(route.version)),
            });
            places.insert(event_type.into_bytes().into(), place);
        }
        let unhandled = settings.worker.unhandled;
        let mut unbound: Vec<Range> = ignored.iter().map(|name| waiting::of(name, None)).collect();
        if unhandled == Unhandled::Ack {
            let names = handlers.iter().map(|bound: &Bound| &bound.gate.name[..]);
            unbound = waiting::of_others(names);
        }
        Routes {
            classifiers,
            sharing: Sharing::new(handlers.len()),
            limits,
            is_limited: AtomicBool::new(handlers.iter().any(Bound::is_limited)),
            hooks,
            unbound,
            has_group_rates: AtomicBool::new(handlers.iter().any(Bound::has_group_rate)),
            handlers,
            places,
            ignored,
            default_policy: settings.policy(""),
            unhandled,
            unhandled_after: settings.worker.unhandled_after,
        }
    }

    /// The handler of a type that has one.
    pub fn of(&self, event: &Envelope) -> &Bound {
        &self.handlers[self.places[event.type_bytes()]]
    }

    /// The policy that an event is under whose type has a handler.
    pub fn policy(&self, ctx: &Context) -> &HandlerPolicy {
        &self.of(ctx.envelope()).policy
    }

    /// The handler of a type, where there is one.
    pub fn find(&self, event_type: &[u8]) -> Option<&Bound> {
        self.places.get(event_type).map(|at| &self.handlers[*at])
    }

    pub fn all(&self) -> &[Bound] {
        &self.handlers
    }

    /// Whether any handler takes many events at once.
    pub fn has_batches(&self) -> bool {
        self.handlers.iter().any(|bound| bound.batch.is_some())
    }

    /// Whether any handler is limited by more than its time and `worker.concurrency`.
    pub fn is_limited(&self) -> bool {
        self.is_limited.load(Ordering::Relaxed)
    }

    /// What operators have set for a stream's handlers. Returns whether that changes anything.
    pub fn learn_limits(&self, stream: &str, set: Vec<SetLimit>) -> bool {
        let Some(now) = self.limits.learn(stream, set) else {
            return false;
        };
        for bound in &self.handlers {
            let set = now.iter().find(|set| set.handler == bound.gate.name);
            bound.gate.set_rate(set.and_then(|set| set.rate));
            // Batches of a handler are each worker's own.
            if bound.batch.is_none() {
                let most = set.and_then(|set| set.concurrency);
                bound.concurrency_limit.set(most);
            }
            if let Some(set) = set {
                let or_none =
                    |text: Option<String>| text.unwrap_or_else(|| "as configured".to_owned());
                let handler = &bound.gate.name;
                let rate = or_none(set.rate.map(|rate| rate.to_string()));
                let concurrency = or_none(set.concurrency.map(|most| most.to_string()));
                tracing::info!(
                    handler,
                    rate,
                    concurrency,
                    "the group's limits are set by an operator"
                );
            }
        }
        if now.is_empty() {
            tracing::info!("limits are as they are configured");
        }
        let any = |of: fn(&Bound) -> bool| self.handlers.iter().any(of);
        self.is_limited
            .store(any(Bound::is_limited), Ordering::Relaxed);
        let group_rates = any(Bound::has_group_rate);
        self.has_group_rates.store(group_rates, Ordering::Relaxed);
        self.limits.change();
        true
    }

    /// Whether any handler's rate is counted for the whole group.
    pub fn has_group_rates(&self) -> bool {
        self.has_group_rates.load(Ordering::Relaxed)
    }

    /// What is acknowledged here without a handler, among entries that wait for a worker that can handle them.
    pub fn unbound(&self) -> &[Range] {
        &self.unbound
    }

    /// The place of the handler of an entry's type, where there is one.
    pub fn place_of(&self, fields: &Fields) -> Option<usize> {
        self.place(fields.value("type")?)
    }

    /// The place of the handler of a type, where there is one.
    pub fn place(&self, event_type: &[u8]) -> Option<usize> {
        self.places.get(event_type).copied()
    }

    /// What is to be done with an entry, before a handler is involved.
    pub fn admit(&self, memory: &RecentAcks, batch: &Batch, item: Item) -> Admission<'_> {
        let slot = &batch.slots[item.index as usize];
        let Item { index, entry, past } = item;
        let (record, age) = match past {
            Some(past) => (past.record, past.age),
            None => (None, Duration::ZERO),
        };
        let after = verdict::run_before(record.as_ref(), slot.count);
        let died = record.as_ref().and_then(|record| record.died);
        let released = record.as_ref().map_or(0, |record| record.released);
        let attempt = slot.count.saturating_sub(released).max(1);
        if released > 0
            && let Some(times) = &batch.times
        {
            times.is_at(index, attempt);
        }
        if let Some((reason, error)) =
            record.and_then(|record| Some((record.doomed?, record.error)))
        {
            let verdict = Verdict::Bury {
                reason: reason.parse().unwrap_or(Reason::Failed),
                error,
            };
            return Admission::Settle(verdict, Body::Raw(entry), attempt);
        }
        let envelope = match Envelope::decode(entry) {
            Ok(envelope) => envelope,
            Err((entry, error)) => {
                let verdict = Verdict::Bury {
                    reason: Reason::Undecodable,
                    error: error.to_string(),
                };
                return Admission::Settle(verdict, Body::Raw(entry), attempt);
            }
        };
        let bound = self.find(envelope.type_bytes());
        let policy = bound.map_or(&self.default_policy, |bound| &bound.policy);
        if memory.knows(&batch.source, slot.id, &envelope) {
            let body = event_body(batch, envelope, attempt, policy);
            if let Body::Event(ctx) = &body {
                tell!(
                    info,
                    About::of(ctx, &batch.source.keys.stream),
                    "handled already: its acknowledgement was lost with a server"
                );
            }
            return Admission::Settle(Verdict::Ack, body, attempt);
        }
        let most = verdict::most_attempts(&envelope, policy);
        let of_death = |died| verdict::of_death(died, (attempt, most), policy);
        if let Some(error) = died.and_then(of_death) {
            let attempts = attempt - 1;
            let verdict = Verdict::Bury {
                reason: Reason::Crashed,
                error,
            };
            let body = event_body(batch, envelope, attempts, policy);
            return Admission::Settle(verdict, body, attempts);
        }
        let unhandled = match bound {
            Some(bound) if bound.takes(envelope.version()) => {
                let surroundings = batch.source.surroundings.clone();
                let place = Place {
                    after,
                    age: age.as_secs().try_into().unwrap_or(u32::MAX),
                    ..batch.place(index)
                };
                // Beyond the last attempt an entry runs to find out whether it kills its worker, or because it had
                // more attempts when they were made.
                let most = match died {
                    Some(_) => most,
                    None => most.max(attempt),
                };
                return Admission::Handle(
                    bound,
                    Context::placed(envelope, attempt, most, surroundings, place),
                );
            }
            Some(bound) => format!(
                "{} has version {}; this worker's handler takes versions up to {}",
                envelope.event_type(),
                envelope.version(),
                bound.version
            ),
            None if self.ignored.contains(envelope.event_type())
                || self.unhandled == Unhandled::Ack =>
            {
                return Admission::Settle(
                    Verdict::Ack,
                    event_body(batch, envelope, attempt, policy),
                    attempt,
                );
            }
            None => verdict::no_handler(envelope.event_type()),
        };
        let verdict = verdict::of_unhandled(verdict::bounded(unhandled), age, self.unhandled_after);
        let body = event_body(batch, envelope, attempt, policy);
        Admission::Settle(verdict, body, attempt)
    }
}

impl Bound {
    /// Decodes the event and makes the handler's run.
    #[inline]
    pub fn call(&self, ctx: &Context) -> RunFuture {
        let call = || self.handler.begin(ctx.clone());
        self.around.around(CatchPanics.call(call), ctx.clone())
    }

    /// Whether it takes data of this version.
    pub fn takes(&self, version: u32) -> bool {
        version <= self.version
    }

    /// How many entries so many runs take.
    pub fn entries_of(&self, runs: Room) -> Room {
        match (runs, &self.batch) {
            (Room::Some(runs), Some(batch)) => Room::Some(runs.saturating_mul(batch.limits.size)),
            (runs, _) => runs,
        }
    }

    /// How many more of its entries may come.
    pub fn room(&self) -> Room {
        let batch = self.batch.as_ref();
        self.gate
            .room()
            .and(batch.map_or(Room::Any, Together::room))
            .and(self.concurrency_limit.room())
    }

    fn is_limited(&self) -> bool {
        let of_batches = self.batch.is_some() && self.policy.concurrency.is_some();
        !self.gate.is_none() || self.concurrency_limit.is_on() || of_batches
    }

    fn has_group_rate(&self) -> bool {
        self.gate.granted().is_some()
    }
}

fn event_body(batch: &Batch, envelope: Envelope, attempt: u32, policy: &HandlerPolicy) -> Body {
    Body::Event(Context::new(
        envelope,
        attempt,
        policy.max_attempts,
        batch.source.surroundings.clone(),
    ))
}
