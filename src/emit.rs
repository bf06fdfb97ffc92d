//! What a handler does with its outbox: it emits events, asks for effects, and may commit by itself.

mod later;

use std::time::SystemTime;

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::about::{About, tell};
use crate::codec::{self, Encodable, Format};
use crate::config::check_stream;
use crate::context::{Ask, Context};
use crate::effects::{CommitError, Committed, Effect};
use crate::event::{Envelope, Event, demand, envelope_of};
use crate::event_type;
use crate::fields::MOST_FIELDS;
use crate::identity::which;
use crate::outbox::{Emitted, Known};

/// What ids of emitted events are made in: UUIDv5 of `streamhand:emitted` in the namespace of URLs.
const NAMESPACE: Uuid = Uuid::from_u128(0x1e4e_2aa0_6fa5_550a_875b_f4de_79ce_2391);

impl Context {
    /// Emits an event to `stream`: it is there once the event being handled is acknowledged, in the same step, or not
    /// at all. One that can't be encoded, or a name that can't be a stream's, fails the handler for good when it
    /// returns.
    ///
    /// Its id follows from the event being handled, the group, and how many were emitted before: emitted again, it has
    /// the same one. Its `source` is the group, its `subject` is that of the event being handled, whose id is its
    /// `causationid`; the `correlationid` is handed on, and begins as the id of the first event. Its `traceparent` is that
    /// of the event being handled, or, if runs are traced, a span of this run.
    ///
    /// ```
    /// # use streamhand::{Context, Event, Failure};
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderCreated { order_id: String }
    /// # impl Event for OrderCreated { const TYPE: &'static str = "order.created"; }
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct InventoryReserved { order_id: String }
    /// # impl Event for InventoryReserved { const TYPE: &'static str = "inventory.reserved"; }
    /// async fn reserve(order: OrderCreated, ctx: Context) -> Result<(), Failure> {
    ///     ctx.emit("inventory", InventoryReserved { order_id: order.order_id });
    ///     Ok(())
    /// }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let ctx = Context::for_test();
    /// let order = OrderCreated { order_id: "o-1".into() };
    /// assert!(reserve(order, ctx.clone()).await.is_ok());
    /// assert_eq!(ctx.emitted()[0].stream, "inventory");
    /// assert_eq!(ctx.emitted()[0].envelope.event_type(), "inventory.reserved");
    /// # }
    /// ```
    pub fn emit<E: Event + Encodable>(&self, stream: &str, event: E) {
        const { demand::<E>() };
        let leaves = self.outbox_or_new().emit(stream, |place| {
            let envelope = envelope_of(&event, Format::default()).map_err(|e| e.to_string())?;
            self.addressed(stream, self.complete(stream, envelope, place)?)
        });
        self.tell_unless(leaves);
    }

    /// The same with an event that is ready made: with an id, a subject or fields of its own.
    pub fn emit_envelope(&self, stream: &str, envelope: Envelope) {
        let leaves = self.outbox_or_new().emit(stream, |place| {
            self.addressed(stream, self.complete(stream, envelope, place)?)
        });
        self.tell_unless(leaves);
    }

    /// Asks for an effect: it takes place in the step that acknowledges the event being handled, in the order in which
    /// they were asked for, or not at all. If its guard refuses when the handler has returned, the handler has failed;
    /// one that wants to decide then says [`commit`](Self::commit).
    pub fn effect(&self, effect: Effect) {
        let leaves = self.outbox_or_new().effect(effect);
        self.tell_unless(leaves);
    }

    /// Commits now: in one step all that was emitted leaves, all effects take place, and the event is acknowledged, if
    /// it is still this worker's. A step whose answer gets lost is repeated until it is known, and done once.
    ///
    /// ```
    /// # use streamhand::{Context, Event, Failure, Committed, Effect};
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderCreated { order_id: String }
    /// # impl Event for OrderCreated { const TYPE: &'static str = "order.created"; }
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct SoldOut { order_id: String }
    /// # impl Event for SoldOut { const TYPE: &'static str = "inventory.sold.out"; }
    /// async fn reserve(order: OrderCreated, ctx: Context) -> Result<(), Failure> {
    ///     ctx.effect(Effect::incr_by("{orders}:stock:apple", -3).at_least(0));
    ///     if let Committed::Refused(refusal) = ctx.commit().await? {
    ///         tracing::info!("sold out: {refusal}");
    ///         ctx.emit("inventory", SoldOut { order_id: order.order_id });
    ///     }
    ///     Ok(())
    /// }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let ctx = Context::for_test();
    /// ctx.refuse_next_commit(Some("2"));
    /// let order = OrderCreated { order_id: "o-1".into() };
    /// assert!(reserve(order, ctx.clone()).await.is_ok());
    /// assert_eq!((ctx.emitted().len(), ctx.effects().len()), (1, 0));
    /// # }
    /// ```
    ///
    /// # Errors
    /// If nothing was written: the event is another worker's by now, or what is to leave can't be written. If the
    /// worker ended before it was known. `?` on any of them ends the handler as it should.
    pub async fn commit(&self) -> Result<Committed, CommitError> {
        let outbox = self.outbox_or_new();
        let items = outbox.begin()?;
        let Some(commits) = &self.surroundings().commits else {
            return outbox.commit_in_test(items);
        };
        let (reply, answer) = oneshot::channel();
        let ask = Ask {
            ctx: self.clone(),
            items,
            reply,
        };
        if commits
            .upgrade()
            .is_none_or(|commits| commits.send(ask).is_err())
        {
            outbox.known(Known::Lost);
            return Err(CommitError::Unknown);
        }
        answer.await.unwrap_or(Err(CommitError::Unknown))
    }

    /// What has been emitted here so far, complete, and has not left; in a test what has left as well.
    pub fn emitted(&self) -> Vec<Emitted> {
        self.outbox()
            .map(|outbox| outbox.emitted())
            .unwrap_or_default()
    }

    /// The effects asked for so far that have not taken place; in a test those that have as well.
    pub fn effects(&self) -> Vec<Effect> {
        self.outbox()
            .map(|outbox| outbox.effects())
            .unwrap_or_default()
    }

    /// In a test without a worker: the next [`commit`](Self::commit) with a guard is refused by the first one, which
    /// finds `current`. If this is not called commits are settled.
    pub fn refuse_next_commit(&self, current: Option<&str>) {
        self.outbox_or_new().refuse(current.map(str::as_bytes));
    }

    pub(crate) fn tell_unless(&self, leaves: bool) {
        #[cfg(feature = "testing")]
        crate::cuts::here(|| "what it emitted, or an effect it asked for".to_owned());
        if !leaves {
            tell!(
                error,
                About::of(self, self.stream()),
                "emitted, or an effect asked for, after the commit: it never leaves"
            );
        }
    }

    /// Adds to an event that is emitted at `place` what it has not got itself.
    fn complete(&self, stream: &str, envelope: Envelope, place: usize) -> Result<Envelope, String> {
        check_stream(stream).map_err(|error| error.to_string())?;
        let event_type = envelope.event_type();
        event_type::check(event_type)
            .map_err(|why| format!("the event type {event_type:?} {why}"))?;
        let cause = self.envelope();
        let now = || humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let envelope = add(envelope, "id", || Some(self.id_at(place)));
        let envelope = add(envelope, "time", || Some(now()));
        let envelope = add(envelope, "datacontenttype", || Some(codec::JSON.to_owned()));
        let envelope = add(envelope, "source", || Some(self.group().to_owned()));
        let envelope = add(envelope, "subject", || {
            let subject = match self.members() {
                Some(members) => members.shared(|ctx| ctx.envelope().subject()),
                None => cause.subject(),
            };
            subject.map(str::to_owned)
        });
        let envelope = self.caused(envelope);
        if envelope.fields().len() > MOST_FIELDS {
            return Err(format!("an event of more than {MOST_FIELDS} fields"));
        }
        Ok(envelope)
    }

    /// Adds to an event that comes of the one being handled what says so.
    fn caused(&self, envelope: Envelope) -> Envelope {
        let cause = self.envelope();
        let cause_id = cause.id();
        let envelope = add(envelope, "traceparent", || match self.trace_of_emitted() {
            Some(context) => Some(context.to_string()),
            None => cause.traceparent().map(str::to_owned),
        });
        let envelope = add(envelope, "causationid", || Some(cause_id.to_string()));
        add(envelope, "correlationid", || {
            if let Some(members) = self.members() {
                let shared = members.shared(|ctx| ctx.envelope().field("correlationid"));
                return shared.filter(|id| !id.is_empty()).map(str::to_owned);
            }
            let first = cause.field("correlationid").filter(|id| !id.is_empty());
            Some(first.unwrap_or(&cause_id).to_owned())
        })
    }

    /// An event for an aggregate, the one at `place` of what is emitted, with what no other append would know of it.
    pub(crate) fn recorded(&self, envelope: Envelope, place: usize) -> Envelope {
        self.caused(add(envelope, "id", || Some(self.id_at(place))))
    }

    /// An event that is complete, and the stream it goes to: that of its partition if `stream` is a topic.
    fn addressed(&self, stream: &str, envelope: Envelope) -> Result<(String, Envelope), String> {
        let publisher = self.surroundings().publisher.as_ref();
        let placed = publisher.and_then(|publisher| publisher.placed(stream));
        let stream = placed.map_or(stream.to_owned(), |placed| {
            placed.stream_of(&envelope).stream.clone()
        });
        Ok((stream, envelope))
    }

    fn id_at(&self, place: usize) -> String {
        if let Some(members) = self.members() {
            // The same batch emits the same once more; another one, which may begin with the same event, something else.
            let (stream, group) = (self.stream(), self.group());
            let name = format!("{stream}\0{}\0{group}\0{place}\0batch", members.seed());
            let id = Uuid::new_v5(&NAMESPACE, name.as_bytes());
            return id.hyphenated().to_string();
        }
        emitted_id(self.stream(), self.group(), self.envelope(), place)
    }
}

/// The id of what the handler of an event emits at this place. Anybody can work it out: see `docs/wire.md`.
fn emitted_id(stream: &str, group: &str, cause: &Envelope, place: usize) -> String {
    let (id, of) = (cause.id(), cause.event_type());
    let name = match cause.source() {
        // Two sources may count from one, and what their events lead to are different events.
        Some(source) => {
            let which = which(source.as_bytes(), id.as_bytes(), of.as_bytes());
            format!("{stream}\0{which}\0{group}\0{place}")
        }
        None => format!("{stream}\0{id}\0{group}\0{of}\0{place}"),
    };
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
        .hyphenated()
        .to_string()
}

/// The same event with this field, unless it says something there itself.
fn add(envelope: Envelope, name: &str, value: impl FnOnce() -> Option<String>) -> Envelope {
    if envelope.says(name) {
        return envelope;
    }
    match value() {
        Some(value) => envelope.with_known(name, value),
        None => envelope,
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    fn cause() -> Envelope {
        Envelope::new("order.created").with("id", "e-1")
    }

    fn emitted(cause: Envelope, envelope: Envelope) -> Envelope {
        let ctx = Context::for_test_with(cause, None);
        ctx.emit_envelope("inventory", envelope);
        ctx.emitted().remove(0).envelope
    }

    #[test]
    fn ids_of_what_is_emitted_are_those_that_are_published() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../conformance/emitted.json")).unwrap();
        assert_eq!(vectors["namespace"], NAMESPACE.hyphenated().to_string());
        let events = vectors["events"].as_array().unwrap();
        assert!(events.len() > 5);
        for event in events {
            let text = |name: &str| event[name].as_str().unwrap_or_default();
            let cause = Envelope::new(text("type"))
                .with("id", text("id"))
                .with("source", text("source"));
            let place = event["place"].as_u64().unwrap() as usize;
            let id = emitted_id(text("stream"), text("group"), &cause, place);
            assert_eq!(event["emitted"], id, "{event}");
        }
    }

    #[test]
    fn what_is_emitted_again_has_the_same_id_and_what_else_is_emitted_another() {
        let id = |envelope: &Envelope| envelope.id().into_owned();
        let first = emitted(cause(), Envelope::new("a.b"));
        assert_eq!(id(&first), id(&emitted(cause(), Envelope::new("a.b"))));
        assert_eq!(Uuid::parse_str(&id(&first)).unwrap().get_version_num(), 5);
        assert_ne!(
            id(&first),
            id(&emitted(cause().with("id", "e-2"), Envelope::new("a.b")))
        );
        assert_ne!(
            id(&first),
            id(&emitted(
                Envelope::new("order.x").with("id", "e-1"),
                Envelope::new("a.b")
            ))
        );
        assert_ne!(
            id(&first),
            id(&emitted(
                cause().with("source", "shop"),
                Envelope::new("a.b")
            ))
        );
        let ctx = Context::for_test_with(cause(), None);
        (0..3).for_each(|_| ctx.emit_envelope("inventory", Envelope::new("a.b")));
        let ids: std::collections::BTreeSet<_> =
            ctx.emitted().iter().map(|e| id(&e.envelope)).collect();
        assert_eq!(ids.len(), 3);
    }

    #[test]
    fn an_emitted_event_says_what_caused_it_and_keeps_what_it_says_itself() {
        let cause = cause()
            .with("subject", "o-1")
            .with("traceparent", crate::traceparent::EXAMPLE);
        let event = emitted(cause.clone(), Envelope::new("a.b"));
        let field = |name: &str| event.field(name).unwrap_or_default().to_owned();
        assert_eq!(
            (event.source(), event.subject()),
            (Some("test"), Some("o-1"))
        );
        assert_eq!(
            (field("causationid"), field("correlationid")),
            ("e-1".to_owned(), "e-1".to_owned())
        );
        assert_eq!(event.traceparent(), Some(crate::traceparent::EXAMPLE));
        let next = emitted(event.clone(), Envelope::new("a.c"));
        assert_eq!(next.field("causationid"), Some(&*event.id()));
        assert_eq!(next.field("correlationid"), Some("e-1"));
        let own = emitted(
            cause,
            Envelope::new("a.b").with("id", "mine").with("subject", "s"),
        );
        assert_eq!((&*own.id(), own.subject()), ("mine", Some("s")));
    }

    #[tokio::test]
    async fn what_can_t_be_emitted_fails_the_handler() {
        struct Unencodable;
        impl Serialize for Unencodable {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("never"))
            }
        }
        impl Event for Unencodable {
            const TYPE: &'static str = "test.never";
        }
        let wrong = |emit: fn(&Context)| {
            let ctx = Context::for_test();
            emit(&ctx);
            ctx.outbox().unwrap().wrong().unwrap()
        };
        let said = wrong(|ctx| ctx.emit("inventory", Unencodable));
        assert!(
            said.contains("\"inventory\"") && said.contains("never"),
            "{said}"
        );
        let said = wrong(|ctx| ctx.emit_envelope("a{b", Envelope::new("a.b")));
        assert!(said.contains("stream name"), "{said}");
        let said = wrong(|ctx| ctx.emit_envelope("inventory", Envelope::new("No Type")));
        assert!(said.contains("No Type"), "{said}");
        let ctx = Context::for_test();
        ctx.emit("inventory", Unencodable);
        assert!(matches!(ctx.commit().await, Err(CommitError::Invalid(_))));
    }
}
