//! The gauges of a group: how much there is to do, how old it is, and who does it. They are the group's, not a worker's, so
//! they come from one place: whoever shows them asks here, in work that is bounded however long a stream is.
//!
//! [`StreamLoad::runnable`] is the number to scale workers by. What waits for a retry that is not due yet, for a breaker or
//! for an operator does not count, since no worker could do anything about it; what fell due does, which is what scalers
//! that look at pending entries alone get wrong either way.

use std::time::Duration;

use serde::Serialize;

use crate::config::{Keep, Retention, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::event::EntryId;
use crate::metrics::snapshot::Snapshot;
use crate::metrics::table::Id;
use crate::stream::{
    ConsumerInfo, Keys, PARKED, Pausable, Pool, ServerGauges, StreamGauges, StreamKeys, Trimming,
    trim_policy, trim_rhythm,
};

/// How much a group has to do, by [`Admin::load`](crate::admin::Admin::load).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct GroupLoad {
    /// The group.
    pub group: String,
    /// Entries of all streams that could be worked on now.
    pub runnable: u64,
    /// Each of its streams that can be looked at.
    pub streams: Vec<StreamLoad>,
    /// Those that can't, and why.
    pub in_trouble: Vec<LoadTrouble>,
    /// Projections that read these streams.
    pub projections: Vec<ProjectionLoad>,
    /// The server's `maxmemory-policy`; None where it does not say.
    pub maxmemory_policy: Option<String>,
    /// Whether the server writes an append-only file; None where it does not say.
    pub append_only: Option<bool>,
}

/// How much a group has to do with one stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StreamLoad {
    /// The stream.
    pub stream: String,
    /// Entries that could be worked on now: unread, due, replayed, of a lapsed lease, or with a worker. Where all of the
    /// stream is paused, those with a worker alone.
    pub runnable: u64,
    /// Entries of the stream.
    pub length: u64,
    /// Entries that the group has not read; at least so many where that is not known exactly.
    pub lag: u64,
    /// Entries that were delivered and are not settled, parked ones among them.
    pub pending: u64,
    /// Entries that wait for their next attempt, replayed ones left out.
    pub parked: u64,
    /// Entries whose wait for their next attempt is over, replayed ones among them.
    pub due: u64,
    /// Dead letters that were replayed and have not been read.
    pub replayed: u64,
    /// Entries of workers that were not heard of for their lease.
    pub lapsed: u64,
    /// Entries that workers have.
    pub held: u64,
    /// Dead letters.
    pub dead: u64,
    /// Scheduled events whose time has passed.
    pub scheduled_overdue: u64,
    /// Age of the oldest entry that the group has not read, in seconds.
    pub oldest_unread_seconds: Option<f64>,
    /// Age of the oldest entry that was delivered and is not settled, in seconds.
    pub oldest_pending_seconds: Option<f64>,
    /// Age of the oldest dead letter, in seconds.
    pub oldest_dead_seconds: Option<f64>,
    /// Workers of the group that are there, that were not heard of for their lease, and consumers that are none of ours.
    pub workers: WorkerCounts,
    /// What is paused, and for how long it has been, in seconds: a type, or all of the stream.
    pub paused: Vec<PausedLoad>,
    /// Who keeps the stream from being trimmed, and for how long, where it is trimmed at all.
    pub retention_blocked: Option<Blocked>,
    /// What its handlers have emitted to streams of other slots of a cluster, and is not there yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outbox: Vec<OutboxLoad>,
}

/// Consumers of a group, by what there is to know of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WorkerCounts {
    /// They are there.
    pub working: u64,
    /// They were not heard of for their lease.
    pub lapsed: u64,
    /// They are no workers of ours.
    pub foreign: u64,
}

/// Something that is paused.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PausedLoad {
    /// The type; None where all of the stream is.
    pub handler: Option<String>,
    /// Since when, in seconds.
    pub seconds: f64,
}

/// What waits for one other stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct OutboxLoad {
    /// That stream.
    pub target: String,
    /// How many events.
    pub events: u64,
    /// Age of the oldest of them, in seconds.
    pub oldest_seconds: f64,
}

/// Who keeps a stream from being trimmed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Blocked {
    /// The group.
    pub group: String,
    /// For how long, in seconds; 0 where it does not.
    pub seconds: f64,
}

/// How far a projection is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ProjectionLoad {
    /// Its name.
    pub name: String,
    /// Events it has not seen, of all its streams; None where Redis does not know.
    pub lag: Option<u64>,
    /// How far it is behind the youngest event, in seconds.
    pub lag_seconds: f64,
}

/// A stream that can't be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LoadTrouble {
    /// The stream.
    pub stream: String,
    /// What the server says.
    pub error: String,
}

impl GroupLoad {
    /// Looks at the group and the streams of `[worker]`.
    ///
    /// # Errors
    /// Where Redis can't be reached, or refuses to say anything of any of them.
    pub(crate) async fn look(pool: &Pool, settings: &Settings) -> Result<Self> {
        let group = &settings.worker.group;
        let mut load = GroupLoad {
            group: group.clone(),
            ..GroupLoad::default()
        };
        let mut refused = None;
        for stream in &settings.streams_of(&settings.worker.streams) {
            match look(pool, settings, stream).await {
                Ok(looked) => load.streams.push(looked),
                Err(error) if pool.is_of_one_stream(&error) => {
                    load.in_trouble.push(LoadTrouble {
                        stream: stream.clone(),
                        error: error.to_string(),
                    });
                    refused = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = refused.filter(|_| load.streams.is_empty()) {
            return Err(error);
        }
        for stream in load.streams.iter().map(|looked| &looked.stream) {
            for seen in pool.projections(&StreamKeys::new(stream), &[]).await? {
                let of = load.projections.iter_mut().find(|of| of.name == seen.name);
                let lag_seconds = seen.behind().as_secs_f64();
                match of {
                    Some(of) => {
                        of.lag = of.lag.zip(seen.lag).map(|(one, other)| one + other);
                        of.lag_seconds = of.lag_seconds.max(lag_seconds);
                    }
                    None => load.projections.push(ProjectionLoad {
                        lag: seen.lag,
                        lag_seconds,
                        name: seen.name,
                    }),
                }
            }
        }
        let ServerGauges {
            maxmemory_policy,
            append_only,
        } = pool.server_gauges().await?;
        load.runnable = load.streams.iter().map(|looked| looked.runnable).sum();
        (load.maxmemory_policy, load.append_only) = (maxmemory_policy, append_only);
        Ok(load)
    }

    /// Sets the metrics of the whole group.
    pub(crate) fn add_to(&self, snapshot: &mut Snapshot) {
        let group = &self.group[..];
        for load in &self.streams {
            let of = &[&load.stream[..], group];
            let mut gauge = |id, value: f64| snapshot.gauge(id, of, value);
            for (id, count) in [
                (Id::GroupRunnable, load.runnable),
                (Id::GroupLag, load.lag),
                (Id::GroupPending, load.pending),
                (Id::GroupParked, load.parked),
                (Id::GroupParkedDue, load.due),
                (Id::GroupReplayed, load.replayed),
                (Id::GroupDead, load.dead),
                (Id::GroupScheduledOverdue, load.scheduled_overdue),
            ] {
                gauge(id, count as f64);
            }
            for (id, age) in [
                (Id::GroupOldestUnread, load.oldest_unread_seconds),
                (Id::GroupOldestPending, load.oldest_pending_seconds),
                (Id::GroupOldestDead, load.oldest_dead_seconds),
            ] {
                // Of nothing the age is none: what is alerted upon has to come down again.
                gauge(id, age.unwrap_or(0.0));
            }
            let stream = &load.stream[..];
            for (state, count) in [
                ("working", load.workers.working),
                ("lapsed", load.workers.lapsed),
                ("foreign", load.workers.foreign),
            ] {
                snapshot.gauge(Id::GroupWorkers, &[stream, group, state], count as f64);
            }
            for paused in &load.paused {
                let what = paused.handler.as_deref().unwrap_or("stream");
                snapshot.gauge(Id::GroupPaused, &[stream, group, what], paused.seconds);
            }
            if let Some(blocked) = &load.retention_blocked {
                let of = &[stream, &blocked.group];
                snapshot.gauge(Id::RetentionBlocked, of, blocked.seconds);
            }
            for queue in &load.outbox {
                let of = &[stream, &queue.target[..]];
                snapshot.gauge(Id::StreamOutbox, of, queue.events as f64);
                snapshot.gauge(Id::StreamOutboxOldest, of, queue.oldest_seconds);
            }
            snapshot.gauge(Id::StreamLength, &[stream], load.length as f64);
        }
        for projection in &self.projections {
            let of = &[&projection.name[..]];
            if let Some(lag) = projection.lag {
                snapshot.gauge(Id::ProjectionLagEvents, of, lag as f64);
            }
            snapshot.gauge(Id::ProjectionLag, of, projection.lag_seconds);
        }
        if let Some(policy) = &self.maxmemory_policy {
            let evicts = f64::from(u8::from(policy != "noeviction"));
            snapshot.gauge(Id::RedisEvicts, &[policy], evicts);
        }
        if let Some(append_only) = self.append_only {
            snapshot.gauge(Id::RedisAppendOnly, &[], f64::from(u8::from(append_only)));
        }
    }
}

async fn look(pool: &Pool, settings: &Settings, stream: &str) -> Result<StreamLoad> {
    let group = &settings.worker.group;
    let keys = Keys::new(stream, group);
    let gauges = pool.gauges(&keys, group).await?;
    if !gauges.is_stream {
        let message = format!("{stream:?} is no stream: rename or delete that key");
        return Err(Error::new(ErrorKind::Redis, message));
    }
    let mut load = StreamLoad::of(stream, gauges);
    let queues = pool.outbox(&keys.outbox).await?.into_iter();
    load.outbox = queues
        .map(|queue| OutboxLoad {
            target: queue.target,
            events: queue.length,
            oldest_seconds: queue.oldest.as_secs_f64(),
        })
        .collect();
    load.retention_blocked = match trim_policy(settings, stream) {
        Some(policy) if load.length > 0 => {
            let of = Trimming {
                keys: &keys,
                group,
                policy,
                consumer: "",
                rhythm: trim_rhythm(settings.worker.lease),
                groups: &[group.as_bytes().to_vec()],
            };
            let looked = pool.look_at_trimming(of).await?;
            let hold = looked.and_then(|looked| looked.hold);
            let hold = hold.filter(|hold| hold.too_long);
            // What is older than it may get is held since it got so old.
            let kept = match policy.retention {
                Retention::Beyond(Keep::For(age)) => age,
                _ => Duration::ZERO,
            };
            Some(match hold {
                Some(hold) => Blocked {
                    seconds: hold.age.saturating_sub(kept).as_secs_f64(),
                    group: hold.group,
                },
                None => Blocked {
                    group: group.clone(),
                    seconds: 0.0,
                },
            })
        }
        _ => None,
    };
    Ok(load)
}

impl StreamLoad {
    fn of(stream: &str, gauges: StreamGauges) -> Self {
        let now = gauges.now_ms;
        let age = |id: EntryId| now.saturating_sub(id.ms) as f64 / 1000.0;
        let is_paused = gauges
            .paused
            .iter()
            .any(|(what, _)| matches!(what, Pausable::Stream));
        let paused = gauges.paused.into_iter().map(|(what, note)| PausedLoad {
            handler: match what {
                Pausable::Stream => None,
                Pausable::Handler(event_type) => Some(event_type),
            },
            seconds: now.saturating_sub(note.since_ms) as f64 / 1000.0,
        });
        let mut load = StreamLoad {
            stream: stream.to_owned(),
            length: gauges.length,
            parked: gauges.parked,
            due: gauges.due + gauges.again.due,
            dead: gauges.dead,
            scheduled_overdue: gauges.overdue,
            oldest_dead_seconds: gauges.oldest_dead.map(age),
            paused: paused.collect(),
            ..StreamLoad::default()
        };
        let again = &gauges.again.consumers;
        // What is settled of it is deleted: the rest is with somebody, or unread.
        let read: u64 = again.iter().map(|consumer| consumer.pending).sum();
        load.replayed = gauges.again.length.saturating_sub(read);
        again.iter().for_each(|consumer| load.held_by(consumer));
        if let Some(group) = gauges.group {
            load.lag = group.lag.known().1;
            load.pending = group.pending;
            load.oldest_pending_seconds = group.oldest_pending.map(age);
            load.oldest_unread_seconds = group.oldest_unread.map(age);
            for consumer in &group.consumers {
                load.held_by(consumer);
                load.counts(consumer);
            }
        } else {
            // Its first worker begins somewhere, and most often at the beginning.
            load.lag = gauges.length;
        }
        let waiting = load.lag + load.due + load.replayed + load.lapsed;
        load.runnable = load.held + if is_paused { 0 } else { waiting };
        load
    }

    /// Adds up what a consumer has.
    fn held_by(&mut self, consumer: &ConsumerInfo) {
        match State::of(consumer) {
            Some(State::Working) => self.held += consumer.pending,
            Some(State::Lapsed) => self.lapsed += consumer.pending,
            Some(State::Foreign) | None => {}
        }
    }

    fn counts(&mut self, consumer: &ConsumerInfo) {
        // Where a worker runs one entry alone is no worker itself.
        if consumer.is_alone() {
            return;
        }
        match State::of(consumer) {
            Some(State::Working) => self.workers.working += 1,
            Some(State::Lapsed) => self.workers.lapsed += 1,
            Some(State::Foreign) => self.workers.foreign += 1,
            None => {}
        }
    }
}

enum State {
    Working,
    Lapsed,
    Foreign,
}

impl State {
    /// None of where parked entries are.
    fn of(consumer: &ConsumerInfo) -> Option<Self> {
        match consumer.lease_ms() {
            None if consumer.name == PARKED => None,
            None => Some(State::Foreign),
            Some(lease) if consumer.idle_ms > lease => Some(State::Lapsed),
            Some(_) => Some(State::Working),
        }
    }
}
