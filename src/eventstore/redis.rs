//! Aggregates in Redis: a stream each, beside the public stream in one slot.

use super::aggregate::Aggregate;
use super::append::{Append, AppendError, Appended};
use super::batch::prepare;
use super::events::StoredEvent;
use super::public::PublicStreams;
use super::snapshot::Snapshot;
use super::store::EventStore;
use crate::aggregate_id::AggregateId;
use crate::config::RedisSettings;
use crate::conflict::{Conflict, Overlap};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Entry;
use crate::publisher::Publisher;
use crate::stream::{
    Connector, EventsAppended, EventsFor, KeptSnapshot, Line, NotReplicated, Pool, Replicas,
};
use std::fmt;
use std::time::Duration;

/// Keeps aggregates in Redis. Cheap to clone; clones share one connection, over which many requests can be under way.
#[derive(Clone)]
pub struct RedisEventStore {
    pub(super) line: Line,
    public: PublicStreams,
    replicas: Replicas,
}

impl fmt::Debug for RedisEventStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisEventStore")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

impl RedisEventStore {
    /// A store with a connection of its own, made when it is needed, and made anew where it broke.
    ///
    /// # Errors
    /// Where the address is not one.
    pub fn new(settings: &RedisSettings, public: PublicStreams) -> Result<Self> {
        let pool = Connector::new(settings)?.pool(settings.pool_size)?;
        Ok(Self::on_line(Line::new(pool), public))
    }

    /// The same store, whose appends are acknowledged once so many replicas have them, in place of `redis.replicas` (or
    /// what the publisher says that it was made from). If fewer have them within the timeout that is
    /// [`AppendError::NotReplicated`].
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas.count = replicas;
        self
    }

    /// The same store, which waits so long for those, in place of `redis.replicas_timeout`: from a millisecond to 5 s.
    #[must_use]
    pub fn replicas_timeout(mut self, timeout: Duration) -> Self {
        self.replicas.timeout = timeout;
        self
    }

    /// A store for a kind of aggregates, on the public streams that it says.
    ///
    /// # Errors
    /// Where the address is not one, or the stream's name.
    pub fn of_kind<A: Aggregate>(settings: &RedisSettings) -> Result<Self> {
        Self::new(settings, PublicStreams::of_kind::<A>()?)
    }

    /// The same, at the server of a publisher.
    pub fn with_publisher(publisher: &Publisher, public: PublicStreams) -> Self {
        RedisEventStore {
            replicas: publisher.replicas,
            ..Self::with_pool(publisher.pool().clone(), public)
        }
    }

    /// The same, over a connection that others use as well.
    pub(crate) fn on_line(line: Line, public: PublicStreams) -> Self {
        RedisEventStore {
            replicas: line.replicas(),
            line,
            public,
        }
    }

    /// Entries of an aggregate as they are, from a version on.
    pub(super) async fn entries(
        &self,
        aggregate: &AggregateId,
        from: u64,
        most: usize,
    ) -> Result<Vec<Entry>> {
        let key = self.public.key(aggregate);
        self.line.read_events(&key, from, most).await
    }

    /// What the key of an aggregate holds, if it holds something else than events: in words that say what to do.
    pub(super) async fn clobbered(&self, aggregate: &AggregateId) -> Result<Option<String>> {
        let key = self.public.key(aggregate);
        let held = self.line.holds_other(&key).await?;
        Ok(held.map(|held| clobbered(aggregate, &key, &held)))
    }

    /// The version of the last event there ever was.
    pub(super) async fn last_version(&self, aggregate: &AggregateId) -> Result<u64> {
        self.line.last_version(&self.public.key(aggregate)).await
    }

    /// The same, over connections of a pool.
    pub(super) fn with_pool(pool: Pool, public: PublicStreams) -> Self {
        Self::on_line(Line::new(pool), public)
    }

    /// The streams on which others are told of the events.
    pub fn public(&self) -> &PublicStreams {
        &self.public
    }
}

impl EventStore for RedisEventStore {
    async fn append_all(&self, appends: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        let appends = prepare(&self.public, appends)?;
        let public = self.public.keys_of(&appends[0].aggregate);
        let keys: Vec<String> = appends
            .iter()
            .map(|append| self.public.key(&append.aggregate))
            .collect();
        let parts: Vec<EventsFor<'_>> = appends
            .iter()
            .zip(&keys)
            .map(|(append, key)| EventsFor {
                key,
                at: append.expected.into(),
                events: append.events.iter().map(|event| event.fields()).collect(),
            })
            .collect();
        let fresh = appends.iter().all(|append| append.fresh);
        let of = |place: usize| appends.get(place).ok_or_else(garbled);
        let replicas = self.replicas.asked();
        let appending = self.line.append_events(public, fresh, &parts, replicas);
        let (appended, lacking) = appending.await?;
        match appended {
            EventsAppended::Done {
                is_new, aggregates, ..
            } => {
                if !is_new {
                    for ((append, key), (first, _)) in appends.iter().zip(&keys).zip(&aggregates) {
                        let count = append.events.len();
                        let stored = self.line.read_events(key, *first, count).await?;
                        let stored = stored.iter().map(|entry| &entry.fields);
                        append.is_what_was_stored(*first, stored)?;
                    }
                }
                let of_one = |(first, positions)| Appended {
                    first,
                    positions,
                    is_new,
                };
                let appended = aggregates.into_iter().map(of_one).collect();
                match lacking {
                    None => Ok(appended),
                    Some(why) => Err(AppendError::NotReplicated {
                        appended,
                        error: NotReplicated::new(None, is_new, why),
                    }),
                }
            }
            EventsAppended::Conflict { place, actual } => {
                let append = of(place)?;
                Err(AppendError::Conflict(Conflict {
                    aggregate: append.aggregate.clone(),
                    expected: append.expected,
                    actual,
                }))
            }
            EventsAppended::Overlap { place, actual } => Err(AppendError::Overlap(Overlap {
                aggregate: of(place)?.aggregate.clone(),
                actual,
            })),
            EventsAppended::Strange { place } => {
                let aggregate = &of(place)?.aggregate;
                let message = format!(
                    "{} does not begin with the first event of {aggregate}: it has lost some, or is no aggregate",
                    keys[place]
                );
                Err(AppendError::Failed(Error::new(ErrorKind::Redis, message)))
            }
        }
    }

    async fn page(
        &self,
        aggregate: &AggregateId,
        from: u64,
        most: usize,
    ) -> Result<Vec<StoredEvent>> {
        let key = self.public.key(aggregate);
        let entries = self.line.read_events(&key, from.max(1), most).await?;
        entries
            .into_iter()
            .map(|entry| StoredEvent::decode(aggregate, entry))
            .collect()
    }

    async fn version(&self, aggregate: &AggregateId) -> Result<u64> {
        let last = self.line.last_event(&self.public.key(aggregate)).await?;
        Ok(last.map_or(0, |last| last.id.ms))
    }

    async fn snapshot(&self, aggregate: &AggregateId) -> Result<Option<Snapshot>> {
        let kept = self.line.snapshot(&self.public.snapshot(aggregate)).await?;
        Ok(kept.map(|kept| Snapshot {
            version: kept.version,
            event: kept.event,
            schema: kept.schema,
            state: kept.state,
        }))
    }

    async fn keep_snapshot(&self, aggregate: &AggregateId, snapshot: Snapshot) -> Result<bool> {
        let kept = KeptSnapshot {
            version: snapshot.version,
            event: snapshot.event,
            schema: snapshot.schema,
            state: snapshot.state,
        };
        let (key, its) = (self.public.key(aggregate), self.public.snapshot(aggregate));
        self.line.keep_snapshot(&key, &its, &kept).await
    }
}

/// What is wrong with an aggregate in whose place there is something else.
pub(super) fn clobbered(aggregate: &AggregateId, key: &str, held: &str) -> String {
    format!(
        "{aggregate} has been overwritten: its key {key} holds a {held}, not its events; restore it, or delete the key if \
         they are not to come back"
    )
}

fn garbled() -> Error {
    Error::new(
        ErrorKind::Redis,
        "storing events: an answer that can't be understood",
    )
}
