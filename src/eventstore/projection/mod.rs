//! Projections: views that are made from the events of aggregates, and can be made anew from them.
//!
//! [`Projection`] is what a user writes, [`View`] what it is given to write to. `registered.rs` is one without its
//! types; `batch.rs` says what entries do to a view and which are bad. `partition.rs` knows how far one public stream is,
//! `catch_up.rs` reads what that no longer has, and `runner.rs` runs the partitions of a projection within a worker.
//! `quarantine.rs` knows what to do if those who ran one have died, and `rebuild.rs` builds a view anew.
//!
//! A view and how far it is are one in Redis: each batch writes both, in one step that does nothing if another has
//! been before it. So whatever dies in between, every event is in the view once.

mod batch;
mod catch_up;
mod partition;
mod quarantine;
mod reading;
mod rebuild;
mod registered;
mod runner;
mod view;

pub use reading::ProjectionView;
pub(crate) use rebuild::{Progress, rebuild};
pub(crate) use registered::Registered;
pub(crate) use runner::{Alone, Runner};
pub use view::View;

use super::aggregate::AggregateEvent;
use crate::aggregate_id::AggregateId;
use crate::event::{EntryId, Envelope};
use crate::failure::Failure;

/// A view that is made from the events of aggregates, one after the other in the order in which they were published.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use streamhand::{Event, Failure, Registry, aggregate_events};
/// use streamhand::eventstore::{Projected, Projection, View};
///
/// # #[derive(Serialize, Deserialize)] struct OrderCreated {}
/// # impl Event for OrderCreated { const TYPE: &'static str = "order.created"; }
/// # #[derive(Serialize, Deserialize)] struct OrderShipped {}
/// # impl Event for OrderShipped { const TYPE: &'static str = "order.shipped"; }
/// # aggregate_events! { enum OrderEvent { Created(OrderCreated), Shipped(OrderShipped) } }
/// struct OrdersByStatus;
///
/// impl Projection for OrdersByStatus {
///     const NAME: &'static str = "orders-by-status";
///     const STREAM: &'static str = "orders";
///     const KINDS: &'static [&'static str] = &["order"];
///     type Event = OrderEvent;
///
///     fn project(&self, event: Projected<OrderEvent>, view: &mut View) -> Result<(), Failure> {
///         match event.event {
///             OrderEvent::Created(_) => view.hincr_by("counts", "created", 1),
///             OrderEvent::Shipped(_) => view.hincr_by("counts", "created", -1).hincr_by("counts", "shipped", 1),
///         };
///         Ok(())
///     }
/// }
///
/// let registry = Registry::new().projection(OrdersByStatus);
/// assert!(registry.check().is_ok());
/// ```
pub trait Projection: Send + Sync + 'static {
    /// Its name, such as `orders-by-status`: a consumer group of the public stream that nothing else is called like,
    /// neither a worker's group nor a kind of aggregates. Of `a-z`, `0-9`, `_` and `-`, beginning with a letter.
    const NAME: &'static str;

    /// The public stream of its aggregates: their [`Aggregate::STREAM`](super::Aggregate::STREAM).
    const STREAM: &'static str;

    /// Their [`Aggregate::PARTITIONS`](super::Aggregate::PARTITIONS). Each partition has a view of its own.
    const PARTITIONS: u32 = 1;

    /// The kinds of aggregates whose events it takes: [`Aggregate::KIND`](super::Aggregate::KIND) of each.
    const KINDS: &'static [&'static str];

    /// The events it takes, an enum made by [`aggregate_events!`](crate::aggregate_events): those of an aggregate, or
    /// some of them. Events of other types are passed over.
    type Event: AggregateEvent;

    /// What an event does to the view. Nothing is done but what is asked of `view`; it may be called more than once for
    /// an event, and what it asked for the last time is what happens.
    ///
    /// # Errors
    /// A failure that is not permanent holds up the events behind it and is tried again, as a handler's is, up to
    /// `retry.max_attempts`. One that is permanent, and a panic, make it a bad event.
    fn project(&self, event: Projected<Self::Event>, view: &mut View) -> Result<(), Failure>;
}

/// An event on its way to a view.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Projected<E> {
    /// The event.
    pub event: E,
    /// Whose it is.
    pub aggregate: AggregateId,
    /// The version it is in its aggregate.
    pub version: u64,
    /// Its place on the public stream, whether or not it is still there.
    pub position: EntryId,
    /// The event as it is stored.
    pub envelope: Envelope,
}

impl<E> Projected<E> {
    /// An event for a test of a projection.
    pub fn new(event: E, aggregate: AggregateId, version: u64, envelope: Envelope) -> Self {
        let position = envelope.entry_id();
        Projected {
            event,
            aggregate,
            version,
            position,
            envelope,
        }
    }
}
