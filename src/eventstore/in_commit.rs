//! Appending to aggregates from a handler: in the step that acknowledges the event being handled.

use super::aggregate::{Aggregate, AggregateEvent};
use super::append::Append;
use super::batch::prepare;
use super::loaded::Loaded;
use super::public::PublicStreams;
use crate::aggregate_id::AggregateId;
use crate::codec::Format;
use crate::conflict::Expected;
use crate::context::Context;
use crate::error::Result;
use crate::event::Envelope;
use crate::outbox::{Appending, What};

impl Context {
    /// Appends events to the aggregate of a kind with this id, and puts them on the public stream, in the step that
    /// acknowledges the event being handled, or not at all: as an append to the event store, which is done once however
    /// often the handler runs. If the aggregate is not at the version expected nothing is committed: a handler that
    /// [commits](Self::commit) by itself is told by [`CommitError::Conflict`](crate::CommitError::Conflict) and decides
    /// anew; any other has failed, and runs again later.
    ///
    /// The events' ids follow from the event being handled, as those of emitted events do. They carry what led to them:
    /// `causationid`, `correlationid`, `traceparent`. On a cluster the aggregate has to be in the slot of the stream that
    /// the event was read from, as it is if that is its public stream. What can't be appended fails the handler for good
    /// when it returns; so does a second append to the same aggregate.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use streamhand::{CommitError, Context, Event, Failure, aggregate_events};
    /// # use streamhand::eventstore::{Aggregate, Expected};
    /// # #[derive(Serialize, Deserialize)] struct PaymentMade { order_id: String }
    /// # impl Event for PaymentMade { const TYPE: &'static str = "payment.made"; }
    /// # #[derive(Serialize, Deserialize)] struct OrderPaid {}
    /// # impl Event for OrderPaid { const TYPE: &'static str = "order.paid"; }
    /// # aggregate_events! { enum OrderEvent { OrderPaid(OrderPaid) } }
    /// # struct Order {}
    /// # impl Aggregate for Order {
    /// #     const KIND: &'static str = "order";
    /// #     const STREAM: &'static str = "orders";
    /// #     type Event = OrderEvent;
    /// #     fn initial() -> Self { Order {} }
    /// #     fn apply(&mut self, _: OrderEvent) {}
    /// # }
    /// async fn pay(payment: PaymentMade, ctx: Context) -> Result<(), Failure> {
    ///     ctx.append::<Order>(&payment.order_id, [OrderPaid {}], Expected::Exists);
    ///     Ok(())
    /// }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let ctx = Context::for_test();
    /// assert!(pay(PaymentMade { order_id: "o-1".into() }, ctx.clone()).await.is_ok());
    /// let append = &ctx.appended()[0];
    /// assert_eq!(append.aggregate.as_str(), "order:o-1");
    /// assert_eq!(append.events[0].event_type(), "order.paid");
    ///
    /// // Somebody else was faster.
    /// let ctx = Context::for_test();
    /// ctx.conflict_next_commit(5);
    /// ctx.append::<Order>("o-1", [OrderPaid {}], Expected::Exact(4));
    /// let refused = ctx.commit().await.unwrap_err();
    /// assert_eq!(refused.conflict().unwrap().actual, 5);
    /// # }
    /// ```
    pub fn append<A: Aggregate>(
        &self,
        id: &str,
        events: impl IntoIterator<Item = impl Into<A::Event>>,
        expected: Expected,
    ) {
        let of_kind = || {
            let aggregate = AggregateId::new(A::KIND, id)?;
            let events = events.into_iter();
            let events = events.map(|event| event.into().encode(Format::default()));
            let events = events.collect::<Result<Vec<_>>>()?;
            Ok((PublicStreams::of_kind::<A>()?, aggregate, events))
        };
        self.appends(&format!("{}:{id}", A::KIND), expected, of_kind);
    }

    /// The same with what has happened to an aggregate since it was loaded, which is expected at the version it was loaded
    /// at. Nothing, if nothing has. The loaded one does not learn of it: load it again for more.
    pub fn save<A: Aggregate>(&self, loaded: &Loaded<A>) {
        if loaded.check().is_ok() && loaded.uncommitted().is_empty() {
            return;
        }
        let of_loaded = || {
            loaded.check()?;
            let public = PublicStreams::of_kind::<A>()?;
            Ok((public, loaded.id().clone(), loaded.uncommitted().to_vec()))
        };
        let expected = Expected::Exact(loaded.version());
        self.appends(loaded.id().as_str(), expected, of_loaded);
    }

    /// As [`append`](Self::append), with events that are ready made, for an aggregate on these public streams.
    pub fn append_envelopes(
        &self,
        public: &PublicStreams,
        aggregate: &AggregateId,
        events: Vec<Envelope>,
        expected: Expected,
    ) {
        let all = || Ok((public.clone(), aggregate.clone(), events));
        self.appends(aggregate.as_str(), expected, all);
    }

    /// What has been appended here so far, complete, and has not left; in a test what has left as well. A
    /// [`MemoryEventStore`](super::MemoryEventStore) takes it as it is.
    pub fn appended(&self) -> Vec<Append> {
        self.lines_of(|what| match what {
            What::Append(it) => Some(Append::new(it.aggregate, it.events, it.expected)),
            _ => None,
        })
    }

    fn appends(
        &self,
        name: &str,
        expected: Expected,
        of: impl FnOnce() -> Result<(PublicStreams, AggregateId, Vec<Envelope>)>,
    ) {
        let (doing, made) = (|| format!("appending to {name}"), of());
        let events = made.as_ref().map_or(0, |(.., events)| events.len());
        let leaves = self.outbox_or_new().line(doing, events, |first| {
            let (public, aggregate, events) = made.map_err(|error| error.to_string())?;
            let events = (first..).zip(events);
            let events = events.map(|(place, event)| self.recorded(event, place));
            let append = Append::new(aggregate, events.collect(), expected);
            let prepared = prepare(&public, vec![append]).map_err(|error| error.to_string())?;
            let Some(append) = prepared.into_iter().next() else {
                return Err("nothing came of it".to_owned());
            };
            Ok(What::Append(Appending {
                public: public.of(&append.aggregate).to_owned(),
                key: public.key(&append.aggregate),
                aggregate: append.aggregate,
                expected: append.expected,
                events: append.events,
            }))
        });
        self.tell_unless(leaves);
    }
}
