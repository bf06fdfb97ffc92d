//! The event store: the source of truth is the events of an aggregate, one stream each, and what others are told of
//! them goes on a public stream in the same step.
//!
//! [`EventStore`] is the contract; [`RedisEventStore`] and, for tests, [`MemoryEventStore`] keep it. An [`Aggregate`]
//! is a state made of its events; a [`Repository`] loads, changes and saves one.
//!
//! The order of things: `store.rs` is the contract, `redis.rs` and `memory.rs` keep it. `append.rs` has what is asked for
//! and what may become of it, `batch.rs` completes events and refuses what can't be stored before anything is sent,
//! `public.rs` says which public stream and which key an aggregate has.
//!
//! `aggregate.rs`, `loaded.rs`, `repository.rs` and `update.rs` are aggregates as a program sees them. `snapshot.rs` spares
//! them the events before a snapshot, `decode.rs` brings a stored event to its version of today, `registered.rs` has what
//! can be done with a kind by its name, `verify.rs` looks for what must not be in an aggregate, and `testing.rs` is for
//! tests of what aggregates decide.
//!
//! `category.rs` reads the aggregates of some kinds in the order in which it all happened, and `subscription.rs` goes on
//! from there: its sources are in `subscription_source.rs`, a position to go on from in `position.rs`.
//!
//! `in_commit.rs` appends from a handler, in the step that acknowledges.
//!
//! What holds between the steps in Redis is described in `docs/protocol.md`.

mod aggregate;
mod append;
mod asking;
mod batch;
mod catch_panic;
mod category;
mod decode;
mod events;
#[cfg(feature = "worker")]
mod in_commit;
mod loaded;
mod memory;
mod position;
pub(crate) mod projection;
mod public;
mod redis;
mod registered;
mod repository;
mod snapshot;
mod store;
mod subscription;
mod subscription_source;
pub mod testing;
mod update;
mod verify;

pub use crate::aggregate_id::AggregateId;
pub use crate::conflict::{Conflict, Expected, Overlap};
pub use aggregate::{Aggregate, AggregateEvent, EventData, EventKind};
pub use append::{Append, AppendError, Appended};
pub use batch::{MOST_APPEND_BYTES, MOST_EVENT_BYTES, MOST_EVENTS};
pub use category::{Aggregates, CategoryEvent, History};
pub(crate) use events::Paging;
pub use events::StoredEvent;
pub use loaded::Loaded;
pub use memory::MemoryEventStore;
pub use position::Position;
pub use projection::{Projected, Projection, ProjectionView, View};
pub use public::PublicStreams;
pub use redis::RedisEventStore;
pub(crate) use registered::{EventError, Kind, Registered};
pub use repository::Repository;
pub use snapshot::Snapshot;
pub use store::{EventStore, Events};
pub use subscription::{Subscribed, Subscription};
pub use update::UpdateError;
pub use verify::Problem;
pub(crate) use verify::verify;
