//! What a worker tells of itself when it is asked: how many handlers run, how much it holds, and what its circuit breakers
//! are at.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use crate::metrics::snapshot::{Snapshot, Value, of};
use crate::metrics::table::Id;
use crate::partition::Partition;
use crate::policy::{Breakers, State};
use crate::worker::runtime::Blocked;
use crate::worker::shard::unit::{Shard, Shards};
use crate::worker::state::slots::Slots;

/// What is asked. It does not keep a worker from ending.
pub(crate) struct Gauges {
    group: String,
    shards: Weak<Shards>,
    slots: Weak<Slots>,
    breakers: Weak<Breakers>,
}

impl Gauges {
    pub fn new(
        group: &str,
        shards: &Arc<Shards>,
        slots: &Arc<Slots>,
        breakers: &Arc<Breakers>,
    ) -> Self {
        Gauges {
            group: group.to_owned(),
            shards: Arc::downgrade(shards),
            slots: Arc::downgrade(slots),
            breakers: Arc::downgrade(breakers),
        }
    }

    /// Adds what is now. Returns whether the worker is still there.
    pub fn tell(&self, snapshot: &mut Snapshot) -> bool {
        let (Some(shards), Some(slots), Some(breakers)) = (
            self.shards.upgrade(),
            self.slots.upgrade(),
            self.breakers.upgrade(),
        ) else {
            return false;
        };
        let group = &self.group[..];
        let mut gauge = |id, labels: &[&str], value: usize| {
            snapshot.add(id, of(labels), Value::Gauge(value as f64));
        };
        let mut entries: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        let sources = shards.sources();
        for source in &sources {
            entries.insert(counted_as(&source.surroundings.stream), (0, 0));
        }
        let inflights = shards.inflights().into_iter();
        let batches: Vec<_> = inflights.flat_map(|inflight| inflight.snapshot()).collect();
        for batch in &batches {
            let of = entries.entry(counted_as(&batch.source.surroundings.stream));
            let (running, held) = of.or_default();
            *running += batch.running();
            *held += batch.open();
        }
        for (stream, (running, held)) in entries {
            gauge(Id::Running, &[stream, group], running);
            gauge(Id::Held, &[stream, group], held);
        }
        gauge(Id::Slots, &[group], slots.all());
        for breaker in breakers.all() {
            let is = match breaker.state() {
                State::Closed => "closed",
                State::Open { .. } => "open",
                State::HalfOpen => "half-open",
            };
            for state in ["closed", "open", "half-open"] {
                let labels = [group, &breaker.key, state];
                gauge(Id::BreakerState, &labels, usize::from(state == is));
            }
        }
        true
    }
}

/// What a stream is counted as: a topic's partitions all together.
fn counted_as(stream: &str) -> &str {
    Partition::parse(stream).map_or(stream, |partition| partition.topic)
}

/// Counts which handler holds up the thread that speaks to Redis, if anything is counted.
pub(crate) fn blocked(shard: &Shard) -> Option<Blocked> {
    let counts = shard.counts.clone()?;
    let inflight = shard.inflight.clone();
    Some(Box::new(move || {
        let batches = inflight.snapshot();
        let blocking = batches.iter().find_map(|batch| batch.blocking());
        counts.blocked(blocking.unwrap_or(usize::MAX));
    }))
}
