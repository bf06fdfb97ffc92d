//! The event store: the source of truth is the events of an aggregate, one stream each, and what others are told of
//! them goes on a public stream in the same step.
//!
//! [`EventStore`] is the contract; [`RedisEventStore`] and, for tests, [`MemoryEventStore`] keep it. An [`Aggregate`]
//! is a state made of its events; a [`Repository`] loads, changes and saves one.
//!
//! The order of things: `append.rs` has what is asked for and what may become of it, `batch.rs` completes events and
//! refuses what can't be stored before anything is sent, `public.rs` says which public stream and which key an
//! aggregate has. `category.rs` reads the aggregates of some kinds in the order in which it all happened, and
//! `subscription.rs` goes on from there: its sources are in `along.rs`.

mod aggregate;
mod along;
mod append;
mod batch;
mod category;
mod caught;
mod decode;
mod events;
mod id;
mod loaded;
mod memory;
mod position;
pub(crate) mod projection;
mod public;
mod redis;
mod registered;
mod repository;
mod snapshot;
mod subscription;
pub mod testing;
mod update;
mod verify;

pub use aggregate::{Aggregate, AggregateEvent, EventData, EventKind};
pub use append::{Append, AppendError, Appended, Conflict, Expected, Overlap};
pub use batch::{MOST_APPEND_BYTES, MOST_EVENT_BYTES, MOST_EVENTS};
pub use category::{Aggregates, CategoryEvent, History};
pub use events::{Events, StoredEvent};
pub use id::AggregateId;
pub use loaded::Loaded;
pub use memory::MemoryEventStore;
pub use position::Position;
pub use projection::{Projected, Projection, ProjectionView, View};
pub use public::PublicStreams;
pub use redis::RedisEventStore;
pub(crate) use registered::{EventError, Kind, Registered};
pub use repository::Repository;
pub use snapshot::Snapshot;
pub use subscription::{Subscribed, Subscription};
pub use update::UpdateError;
pub(crate) use verify::{Problem, verify};

use std::future::Future;

use crate::error::Result;
use crate::event::Envelope;

/// Keeps the events of aggregates. Whoever keeps them, the contract is the same.
pub trait EventStore: Send + Sync {
    /// Appends events to several aggregates and puts them on the public stream, all or none. The aggregates must share
    /// a partition. Answers what became of each, in their order.
    ///
    /// # Errors
    /// Where nothing was stored: an aggregate is not at the version expected, some of the events are stored already and
    /// others not, or an event can't be stored. Where it is not known, as Redis can't be reached: the same append can
    /// be repeated, and says what the first one would have.
    fn append_all(
        &self,
        appends: Vec<Append>,
    ) -> impl Future<Output = Result<Vec<Appended>, AppendError>> + Send;

    /// Appends events to an aggregate and puts them on the public stream, all or none.
    ///
    /// Events that are to be known again when this is repeated have an `id`; one without gets its own every time.
    ///
    /// # Errors
    /// As [`append_all`](Self::append_all).
    fn append(
        &self,
        aggregate: &AggregateId,
        events: Vec<Envelope>,
        expected: Expected,
    ) -> impl Future<Output = Result<Appended, AppendError>> + Send {
        let append = Append::new(aggregate.clone(), events, expected);
        async {
            let mut appended = self.append_all(vec![append]).await?;
            Ok(appended.pop().expect("one was asked for"))
        }
    }

    /// The events of an aggregate from a version on, oldest first, at most `most`.
    ///
    /// # Errors
    /// Where the store can't be read.
    fn page(
        &self,
        aggregate: &AggregateId,
        from: u64,
        most: usize,
    ) -> impl Future<Output = Result<Vec<StoredEvent>>> + Send;

    /// The version of an aggregate, that of its last event; 0 where it has none.
    ///
    /// # Errors
    /// Where the store can't be read.
    fn version(&self, aggregate: &AggregateId) -> impl Future<Output = Result<u64>> + Send;

    /// The snapshot of an aggregate, whatever its schema; None where there is none. Whether its event is (still) the
    /// aggregate's is for the caller to see. A store that keeps none is a store all the same.
    ///
    /// # Errors
    /// Where the store can't be read.
    fn snapshot(
        &self,
        aggregate: &AggregateId,
    ) -> impl Future<Output = Result<Option<Snapshot>>> + Send {
        let _ = aggregate;
        async { Ok(None) }
    }

    /// Keeps a snapshot of an aggregate in place of the one there is. Answers whether it did: not where its event is
    /// none of the aggregate's, and not where the one there is has the same schema, a higher version, and an event
    /// that is there.
    ///
    /// # Errors
    /// Where it can't be kept.
    fn keep_snapshot(
        &self,
        aggregate: &AggregateId,
        snapshot: Snapshot,
    ) -> impl Future<Output = Result<bool>> + Send {
        let _ = (aggregate, snapshot);
        async { Ok(false) }
    }

    /// Reads the events of an aggregate from a version on, page by page: however many there are, few are in memory.
    fn read(&self, aggregate: &AggregateId, from: u64) -> Events<'_, Self>
    where
        Self: Sized,
    {
        Events::new(self, aggregate.clone(), from)
    }
}
