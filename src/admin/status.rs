//! How a group is doing: what it has read of each stream, what waits, and who works.
//!
//! What is said of a stream is read in one step, so that its numbers fit together.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use super::projections::ProjectionStatus;
use super::retention::RetentionStatus;
use super::scheduled::{UnreadSchedule, unread};
use super::topics::{Part, TopicStatus};
use super::{Admin, check_stream, in_ms, since_1970, text};
use crate::error::Result;
use crate::event::EntryId;
use crate::stream::{
    self, BreakerNote, ConsumerInfo, Keys, OrderNow, OutboxQueue, PARKED, Pausable, PauseNote,
};

/// The protocol that this release speaks: [`StreamStatus::protocol`] of a group that it works on.
pub const PROTOCOL: u32 = stream::PROTOCOL;

/// How a group is doing, by [`Admin::status`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The group.
    pub group: String,
    /// Each of its streams that can be looked at.
    pub streams: Vec<StreamStatus>,
    /// Partitioned topics among them, as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<TopicStatus>,
    /// Limits of handlers that operators have set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<super::StandingLimit>,
    /// Those that can't, because the server refuses it, or the node of a cluster is away that they lie at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub in_trouble: Vec<StreamTrouble>,
    /// Projections that read these streams, whatever program they are of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub projections: Vec<ProjectionStatus>,
    /// The server's `maxmemory-policy`; None where it does not say.
    pub maxmemory_policy: Option<String>,
    /// Whether the server deletes keys when its memory is full; None where it does not say.
    pub evicts: Option<bool>,
    /// What is wrong with that, and what would be right.
    #[serde(skip)]
    pub eviction_warning: Option<String>,
}

/// A stream that can't be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StreamTrouble {
    /// The stream.
    pub stream: String,
    /// What the server says.
    pub error: String,
}

/// How a stream and its group are doing, by [`Admin::stream_status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StreamStatus {
    /// The stream.
    pub stream: String,
    /// What its key holds: `stream`, `none` where there is none yet, or the type of what is in the way.
    #[serde(rename = "key")]
    pub kind: String,
    /// Entries of the stream.
    pub length: u64,
    /// Entries that wait for their retry.
    pub parked: u64,
    /// How long the first of them still waits; zero where it is due.
    #[serde(rename = "next_due_ms", serialize_with = "in_ms")]
    pub next_due: Option<Duration>,
    /// Events that are to be published later.
    pub scheduled: u64,
    /// How long the first of them still waits; zero where it is due.
    #[serde(rename = "next_scheduled_ms", serialize_with = "in_ms")]
    pub next_scheduled: Option<Duration>,
    /// Why they don't come, if they don't.
    #[serde(serialize_with = "is_some")]
    pub scheduled_unread: Option<UnreadSchedule>,
    /// Replayed entries that are not settled yet.
    pub replayed: u64,
    /// Dead letters.
    pub dead: u64,
    /// Whether they are as many as `dead_letters.warn_at`.
    pub dead_too_many: bool,
    /// Dead letters that were dropped by `dead_letters.keep`, ever.
    pub dead_dropped: u64,
    /// The protocol that the group's workers speak: see [`PROTOCOL`]. None where none has worked yet.
    pub protocol: Option<u32>,
    /// What is paused.
    pub paused: Vec<Pause>,
    /// Circuit breakers that are not closed, of workers that are there.
    pub circuit_breakers: Vec<BreakerStatus>,
    /// Keys of the group that hold something else than they should.
    #[serde(serialize_with = "keys")]
    pub in_the_way: Vec<InTheWay>,
    /// What its handlers have emitted to streams of other slots of a cluster, and is not there yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outbox: Vec<OutboxStatus>,
    /// Entries that are to be cancelled, and that no worker has met yet.
    #[serde(skip_serializing_if = "is_zero")]
    pub to_be_cancelled: u64,
    /// Entries that were cancelled in the last seven days.
    #[serde(skip_serializing_if = "is_zero")]
    pub cancelled: u64,
    /// Whose it is, if its events have an order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderStatus>,
    /// The group, where it is there.
    pub group: Option<GroupStatus>,
    /// What the stream is trimmed to, where it is.
    pub retention: Option<RetentionStatus>,
    /// The server's time when this was read.
    #[serde(skip)]
    pub now: SystemTime,
}

/// Whose a stream is whose events have an order, and what of it dead letters hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OrderStatus {
    /// The worker that has the stream; None where none does.
    pub owner: Option<String>,
    /// Since when, by the server's clock.
    #[serde(rename = "since_ms", serialize_with = "some_since_1970")]
    pub since: Option<SystemTime>,
    /// Its lease has run out, and nobody has taken the stream over yet.
    pub lapsed: bool,
    /// How many workers are there to have it.
    pub workers: usize,
    /// How many dead letters hold their subjects.
    pub held: u64,
    /// Some of those subjects.
    pub subjects: Vec<String>,
}

/// What waits in a stream's outbox for one other stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OutboxStatus {
    /// The stream it is for.
    pub stream: String,
    /// How many events.
    pub events: u64,
    /// How long the first of them has waited.
    #[serde(rename = "oldest_ms", serialize_with = "ms")]
    pub oldest: Duration,
    /// Why the stream can't be added to, if it can't.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// For how long that has been so.
    #[serde(
        rename = "refused_ms",
        serialize_with = "in_ms",
        skip_serializing_if = "Option::is_none"
    )]
    pub refused_for: Option<Duration>,
}

/// How a group is doing with one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GroupStatus {
    /// The last entry that was delivered.
    #[serde(serialize_with = "text")]
    pub last_delivered: EntryId,
    /// Entries that were not delivered yet; None where Redis does not know and counting them would take too long.
    pub lag: Option<u64>,
    /// So many there are at least.
    pub lag_at_least: u64,
    /// Entries that were delivered and are not settled, parked ones among them.
    pub pending: u64,
    /// The oldest of them.
    #[serde(serialize_with = "text_of_some")]
    pub oldest_pending: Option<EntryId>,
    /// How old that is.
    #[serde(rename = "oldest_pending_ms", serialize_with = "in_ms")]
    pub oldest_pending_age: Option<Duration>,
    /// The group's consumers: workers, and what else reads.
    pub consumers: Vec<ConsumerStatus>,
}

/// A consumer of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConsumerStatus {
    /// Its name.
    pub name: String,
    /// Entries it holds.
    pub pending: u64,
    /// How long ago it was heard of.
    #[serde(rename = "last_seen_ms", serialize_with = "ms")]
    pub last_seen: Duration,
    /// Its lease; None where it is no worker of ours.
    #[serde(rename = "lease_ms", serialize_with = "in_ms")]
    pub lease: Option<Duration>,
    /// What there is to know of it besides.
    pub standing: Standing,
    /// Whether it is where a worker runs entries one at a time that may have killed their workers, and no worker itself.
    #[serde(skip)]
    pub is_alone: bool,
}

/// What there is to know of a consumer besides its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Standing {
    /// A worker that is there.
    Working,
    /// Where a worker that is there runs one entry at a time that may have killed its workers.
    Alone,
    /// Not heard of for its lease: others take over what it holds.
    Lapsed,
    /// No worker of ours: what it holds is left to it.
    Foreign,
}

/// Something that is paused for a whole group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Pause {
    /// The event type whose entries wait; None where all of the stream does.
    pub handler: Option<String>,
    /// Since when, by the server's clock.
    #[serde(rename = "since_ms", serialize_with = "since_1970")]
    pub since: SystemTime,
    /// When it ends by itself, by the server's clock; None where it has to be resumed.
    #[serde(
        rename = "until_ms",
        serialize_with = "some_since_1970",
        skip_serializing_if = "Option::is_none"
    )]
    pub until: Option<SystemTime>,
    /// Who paused it.
    pub by: String,
    /// Why, where that was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A circuit breaker of a worker that is not closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BreakerStatus {
    /// Its name.
    pub name: String,
    /// `open`, or `half-open` while it lets probes through.
    pub state: String,
    /// How often it has opened.
    pub opened: u64,
    /// When its probes are let through, by the server's clock; None where they are.
    #[serde(rename = "until_ms", serialize_with = "some_since_1970")]
    pub until: Option<SystemTime>,
    /// What it was opened for, if that was said: what a target answered that is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whose it is.
    pub worker: String,
}

/// A key of a group that holds something else than it should.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InTheWay {
    /// The key.
    pub key: String,
    /// The type of what it holds.
    pub kind: String,
}

impl Admin {
    /// How the group is doing with all of its streams.
    ///
    /// # Errors
    /// Where Redis can't be reached, or refuses to say anything of any of them. One stream that can't be looked at is no
    /// error, and neither is a key that holds something else than it should: both are told of.
    ///
    /// ```no_run
    /// # async fn example(admin: &streamhand::admin::Admin) -> streamhand::Result<()> {
    /// for stream in admin.status().await?.streams {
    ///     let lag = stream.group.and_then(|group| group.lag);
    ///     println!("{}: {lag:?} behind, {} dead letters", stream.stream, stream.dead);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn status(&self) -> Result<Status> {
        let (mut streams, mut in_trouble, mut refused) = (Vec::new(), Vec::new(), None);
        for stream in self.streams() {
            match self.stream_status(stream).await {
                Ok(status) => streams.push(status),
                Err(error) if self.pool.is_of_one_stream(&error) => {
                    in_trouble.push(StreamTrouble {
                        stream: stream.clone(),
                        error: error.to_string(),
                    });
                    refused = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = refused.filter(|_| streams.is_empty()) {
            return Err(error);
        }
        let seen: Vec<String> = streams.iter().map(|seen| seen.stream.clone()).collect();
        let projections = self.projections_on(&seen).await?;
        let eviction = self.pool.eviction().await?;
        let policy = eviction.policy();
        // Who may look at all the rest may not at this.
        let limits = self.limits().await.unwrap_or_default();
        Ok(Status {
            limits,
            group: self.group().to_owned(),
            topics: TopicStatus::all(streams.iter().map(StreamStatus::part)),
            streams,
            in_trouble,
            projections,
            maxmemory_policy: policy.map(str::to_owned),
            evicts: policy.map(|policy| policy != "noeviction"),
            eviction_warning: eviction.warning(),
        })
    }

    /// How the group is doing with one stream, one of its own or another.
    ///
    /// # Errors
    /// As [`status`](Self::status), and where no stream can have this name.
    pub async fn stream_status(&self, stream: &str) -> Result<StreamStatus> {
        check_stream(stream)?;
        let keys = Keys::new(stream, self.group());
        let status = self.pool.status(&keys, self.group()).await?;
        let retention = match &status.kind[..] {
            "stream" => self.look_at_retention(&keys).await?,
            _ => self.retention_set(stream),
        };
        let scheduled_unread = match status.scheduled {
            0 => None,
            _ => unread(&self.pool, stream).await?,
        };
        let dead_dropped = self.pool.dropped_letters(&keys).await?;
        let outbox = self.pool.outbox(&keys.outbox).await?;
        // Who may look at all the rest may not at this.
        let cancelled = self.pool.cancel_counts(&keys).await.unwrap_or_default();
        let order = match self.settings.order(stream) {
            Some(_) => Some(self.pool.order(&keys).await?),
            None => None,
        };
        let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        Ok(StreamStatus {
            outbox: outbox.into_iter().map(OutboxStatus::of).collect(),
            order: order.map(|order| OrderStatus::of(order, status.now_ms)),
            to_be_cancelled: cancelled.0,
            cancelled: cancelled.1,
            stream: stream.to_owned(),
            length: status.length,
            parked: status.parked,
            next_due: status.next_due,
            scheduled: status.scheduled,
            next_scheduled: status.next_scheduled,
            scheduled_unread,
            replayed: status.again,
            dead: status.dead,
            dead_too_many: status.dead >= self.settings.dead_letters.warn_at,
            dead_dropped,
            protocol: status.protocol,
            circuit_breakers: breakers(&status),
            paused: status.paused.into_iter().map(Pause::of).collect(),
            in_the_way: status
                .in_the_way
                .into_iter()
                .map(|(key, kind)| InTheWay { key, kind })
                .collect(),
            group: status.group.map(GroupStatus::of),
            retention,
            now: at(status.now_ms),
            kind: status.kind,
        })
    }
}

impl StreamStatus {
    /// What it adds to the topic that it may be a partition of.
    fn part(&self) -> Part<'_> {
        let group = self.group.as_ref();
        Part {
            stream: &self.stream,
            length: self.length,
            lag: group.and_then(|group| group.lag),
            lag_at_least: group.map_or(0, |group| group.lag_at_least),
            pending: group.map_or(0, |group| group.pending),
            parked: self.parked,
            replayed: self.replayed,
            dead: self.dead,
            scheduled: self.scheduled,
        }
    }

    /// Whether a newer release works on it, whose keys this one does not understand.
    pub fn is_of_newer_release(&self) -> bool {
        self.protocol.is_some_and(|protocol| protocol > PROTOCOL)
    }

    /// Whether any worker of the group is there.
    pub fn is_worked_on(&self) -> bool {
        let consumers = self.group.iter().flat_map(|group| &group.consumers);
        consumers.into_iter().any(ConsumerStatus::is_there)
    }
}

impl OrderStatus {
    fn of(order: OrderNow, now_ms: u64) -> Self {
        let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        let (owner, since, until_ms) = match order.owner {
            Some((owner, since_ms, until_ms)) => (Some(owner), Some(at(since_ms)), until_ms),
            None => (None, None, 0),
        };
        OrderStatus {
            lapsed: owner.is_some() && until_ms < now_ms,
            owner,
            since,
            workers: order.crew,
            held: order.held,
            subjects: order.subjects,
        }
    }
}

impl OutboxStatus {
    fn of(queue: OutboxQueue) -> Self {
        let (refused_for, refused) = queue.why.unzip();
        OutboxStatus {
            stream: queue.target,
            events: queue.length,
            oldest: queue.oldest,
            refused,
            refused_for,
        }
    }
}

impl GroupStatus {
    fn of(group: stream::GroupStatus) -> Self {
        let (lag, lag_at_least) = group.lag.known();
        let consumers = group.consumers.into_iter();
        GroupStatus {
            last_delivered: group.last_delivered,
            lag,
            lag_at_least,
            pending: group.pending,
            oldest_pending: group.oldest_pending.map(|(id, _)| id),
            oldest_pending_age: group.oldest_pending.map(|(_, age)| age),
            consumers: consumers
                .filter(|consumer| consumer.name != PARKED)
                .map(ConsumerStatus::of)
                .collect(),
        }
    }
}

impl ConsumerStatus {
    fn of(consumer: ConsumerInfo) -> Self {
        ConsumerStatus {
            standing: Standing::of(&consumer),
            lease: consumer.lease_ms().map(Duration::from_millis),
            last_seen: Duration::from_millis(consumer.idle_ms),
            is_alone: consumer.is_alone(),
            pending: consumer.pending,
            name: consumer.name,
        }
    }

    /// Whether it is a worker that is there.
    pub fn is_there(&self) -> bool {
        self.standing.is_there(self.pending)
    }
}

impl Standing {
    pub(crate) fn of(consumer: &ConsumerInfo) -> Self {
        match consumer.lease_ms() {
            None => Standing::Foreign,
            Some(lease) if consumer.idle_ms > lease => Standing::Lapsed,
            Some(_) if consumer.is_alone() => Standing::Alone,
            Some(_) => Standing::Working,
        }
    }

    pub(crate) fn is_there(self, pending: u64) -> bool {
        match self {
            Standing::Working => true,
            Standing::Alone => pending > 0,
            Standing::Lapsed | Standing::Foreign => false,
        }
    }
}

impl Pause {
    fn of((what, note): (Pausable, PauseNote)) -> Self {
        Pause {
            handler: match what {
                Pausable::Stream => None,
                Pausable::Handler(event_type) => Some(event_type),
            },
            since: SystemTime::UNIX_EPOCH + Duration::from_millis(note.since_ms),
            until: note
                .until_ms
                .map(|ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms)),
            by: note.by,
            reason: note.reason,
        }
    }
}

/// The circuit breakers that are not closed, of workers that are there.
fn breakers(status: &stream::StreamStatus) -> Vec<BreakerStatus> {
    let consumers = || status.group.iter().flat_map(|group| &group.consumers);
    let is_there = |worker: &str| {
        let is_it = |known: &&ConsumerInfo| known.name == worker && known.name != PARKED;
        consumers()
            .filter(is_it)
            .any(|known| Standing::of(known).is_there(known.pending))
    };
    let of = |worker: &str, note: &BreakerNote| BreakerStatus {
        name: note.name.clone(),
        state: note.state.clone(),
        opened: note.opened,
        until: note
            .until_ms
            .map(|ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms)),
        why: note.why.clone(),
        worker: worker.to_owned(),
    };
    let there = status
        .breakers
        .iter()
        .filter(|(worker, _)| is_there(worker));
    there
        .flat_map(|(worker, notes)| notes.iter().map(|note| of(worker, note)))
        .collect()
}

fn is_some<T, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bool(value.is_some())
}

fn keys<S: Serializer>(all: &[InTheWay], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(all.iter().map(|one| &one.key))
}

fn ms<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    in_ms(&Some(*duration), to)
}

fn text_of_some<S: Serializer>(id: &Option<EntryId>, to: S) -> Result<S::Ok, S::Error> {
    match id {
        Some(id) => text(id, to),
        None => to.serialize_none(),
    }
}

fn some_since_1970<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => since_1970(time, to),
        None => to.serialize_none(),
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
