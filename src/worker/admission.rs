//! Admission: what an entry needs before its handler runs, and which entries need none.

use std::collections::HashSet;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::held::Batch;
use super::memory::Memory;
use super::steps::Body;
use super::verdict::{self, Reason, Verdict};
use crate::config::{HandlerPolicy, Settings, Unhandled};
use crate::context::Context;
use crate::event::{Entry, Envelope};
use crate::handler::{Registry, Route};
use crate::stream::Record;

/// One entry to be handled.
pub(super) struct Item {
    /// Its place in the batch.
    pub index: u32,
    pub entry: Entry,
    /// Set where it was delivered before.
    pub past: Option<Box<Past>>,
}

/// What is known of an entry that was delivered before.
pub(super) struct Past {
    pub record: Option<Record>,
    /// Since its first delivery.
    pub age: Duration,
}

/// A handler, and the policy its entries are under.
pub(super) struct Bound {
    pub route: Route,
    pub policy: HandlerPolicy,
}

/// What an entry needs before its handler runs.
pub(super) enum Admission<'a> {
    Handle(&'a Bound, Context),
    /// No handler runs: the verdict, what it speaks of, and the attempt.
    Settle(Verdict, Body, u32),
}

/// Which handler an event goes to, and what becomes of those that go to none.
pub(super) struct Routes {
    handlers: FxHashMap<Box<[u8]>, Bound>,
    ignored: HashSet<String>,
    default_policy: HandlerPolicy,
    unhandled: Unhandled,
    unhandled_after: Duration,
}

impl Routes {
    pub fn new(settings: &Settings, registry: Registry) -> Self {
        let (routes, ignored) = registry.into_parts();
        let bind = |(event_type, route): (String, Route)| {
            let policy = settings.policy(&event_type);
            (event_type.into_bytes().into(), Bound { route, policy })
        };
        Routes {
            handlers: routes.into_iter().map(bind).collect(),
            ignored,
            default_policy: settings.policy(""),
            unhandled: settings.worker.unhandled,
            unhandled_after: settings.worker.unhandled_after,
        }
    }

    /// The handler of a type that has one.
    pub fn of(&self, event: &Envelope) -> &Bound {
        &self.handlers[event.type_bytes()]
    }

    /// What is to be done with an entry, before a handler is involved.
    pub fn admit(&self, memory: &Memory, batch: &Batch, item: Item) -> Admission<'_> {
        let slot = &batch.slots[item.index as usize];
        let Item { index, entry, past } = item;
        let (record, age) = match past {
            Some(past) => (past.record, past.age),
            None => (None, Duration::ZERO),
        };
        let died_alone = record.as_ref().is_some_and(|record| record.died_alone);
        let given_back = record.as_ref().map_or(0, |record| record.given_back);
        let attempt = slot.count.saturating_sub(given_back).max(1);
        if let Some((reason, error)) =
            record.and_then(|record| Some((record.doomed?, record.error)))
        {
            let verdict = Verdict::Bury {
                reason: Reason::parse(&reason),
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
        let bound = self.handlers.get(envelope.type_bytes());
        let policy = bound.map_or(&self.default_policy, |bound| &bound.policy);
        if memory.knows(&batch.source, slot.id, &envelope) {
            let event_type = envelope.event_type();
            tracing::info!(entry = %slot.id, event_type, "handled already: its acknowledgement was lost with a server");
            let body = event_body(batch, envelope, attempt, policy);
            return Admission::Settle(Verdict::Ack, body, attempt);
        }
        // This delivery brought it to where it can be buried; what counts are those before it.
        if died_alone && attempt > policy.max_attempts {
            let attempts = attempt - 1;
            let error = format!(
                "its worker died {attempts} times while it ran, at last with nothing else starting"
            );
            let verdict = Verdict::Bury {
                reason: Reason::Crashed,
                error,
            };
            let body = event_body(batch, envelope, attempts, policy);
            return Admission::Settle(verdict, body, attempts);
        }
        let unhandled = match bound {
            Some(bound) if envelope.version() <= bound.route.version => {
                let surroundings = batch.source.surroundings.clone();
                let (most, place) = (policy.max_attempts, batch.place(index));
                return Admission::Handle(
                    bound,
                    Context::placed(envelope, attempt, most, surroundings, place),
                );
            }
            Some(bound) => format!(
                "{} has version {}; this worker's handler takes versions up to {}",
                envelope.event_type(),
                envelope.version(),
                bound.route.version
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
            None => format!("no handler is registered for {:?}", envelope.event_type()),
        };
        let verdict = verdict::of_unhandled(verdict::bounded(unhandled), age, self.unhandled_after);
        let body = event_body(batch, envelope, attempt, policy);
        Admission::Settle(verdict, body, attempt)
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
