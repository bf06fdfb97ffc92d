//! Emitting later: an event goes on its stream's schedule in the step that acknowledges, or is taken off it there.

use std::time::{Duration, SystemTime};

use crate::codec::{Encodable, Format};
use crate::config::check_stream;
use crate::context::Context;
use crate::event::{Envelope, Event, demand, envelope_of};
use crate::outbox::{CancelledEmit, EmittedLater, What, When};
use crate::publisher;

impl Context {
    /// Emits an event to `stream` so much later than the event being handled is acknowledged, by the clock of Redis: in
    /// the step that acknowledges it is scheduled, or not at all. Until its time has come it can be
    /// [cancelled](Self::cancel). What it says is what an event says that is [emitted](Self::emit) at once.
    ///
    /// If the same event (its id, type and source) is scheduled already it stays as it is. If it is there with other data
    /// nothing is committed. A time that can't be, after the year 9999, fails the handler for good when it returns.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use streamhand::{Context, Envelope, Event, Failure, When};
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderCreated { order_id: String }
    /// # impl Event for OrderCreated { const TYPE: &'static str = "order.created"; }
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderPaid { order_id: String }
    /// # impl Event for OrderPaid { const TYPE: &'static str = "order.paid"; }
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct PaymentOverdue { order_id: String }
    /// # impl Event for PaymentOverdue { const TYPE: &'static str = "payment.overdue"; }
    /// async fn await_payment(order: OrderCreated, ctx: Context) -> Result<(), Failure> {
    ///     // An id that whoever cancels it can tell.
    ///     let id = format!("overdue:{}", order.order_id);
    ///     let overdue = PaymentOverdue { order_id: order.order_id };
    ///     let overdue = Envelope::new(PaymentOverdue::TYPE).with("id", id).json(&overdue)?;
    ///     ctx.emit_envelope_after("orders", overdue, Duration::from_secs(15 * 60));
    ///     Ok(())
    /// }
    ///
    /// async fn paid(order: OrderPaid, ctx: Context) -> Result<(), Failure> {
    ///     ctx.cancel("orders", &format!("overdue:{}", order.order_id));
    ///     Ok(())
    /// }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let ctx = Context::for_test();
    /// assert!(await_payment(OrderCreated { order_id: "o-1".into() }, ctx.clone()).await.is_ok());
    /// assert_eq!(ctx.scheduled()[0].when, When::After(Duration::from_secs(900)));
    /// let ctx = Context::for_test();
    /// assert!(paid(OrderPaid { order_id: "o-1".into() }, ctx.clone()).await.is_ok());
    /// assert_eq!(ctx.cancels()[0].id, "overdue:o-1");
    /// # }
    /// ```
    pub fn emit_after<E: Event + Encodable>(&self, stream: &str, event: E, delay: Duration) {
        const { demand::<E>() };
        self.later(stream, When::After(delay), || encoded(&event));
    }

    /// The same at a time; at once if it has passed. If the same event is scheduled for another time nothing is
    /// committed: [cancel](Self::cancel) that one first, which one commit can do.
    pub fn emit_at<E: Event + Encodable>(&self, stream: &str, event: E, at: SystemTime) {
        const { demand::<E>() };
        self.later(stream, When::At(at), || encoded(&event));
    }

    /// As [`emit_after`](Self::emit_after), with an event that is ready made.
    pub fn emit_envelope_after(&self, stream: &str, envelope: Envelope, delay: Duration) {
        self.later(stream, When::After(delay), || Ok(envelope));
    }

    /// As [`emit_at`](Self::emit_at), with an event that is ready made.
    pub fn emit_envelope_at(&self, stream: &str, envelope: Envelope, at: SystemTime) {
        self.later(stream, When::At(at), || Ok(envelope));
    }

    /// Takes the event with this id off the schedule of `stream`, in the step that acknowledges: what was scheduled by
    /// [`emit_after`](Self::emit_after), or published with a delay. If it does not wait for its time any more, or never
    /// did, nothing is. If several wait that have the id, of other types or sources, nothing is committed: see
    /// [`cancel_event`](Self::cancel_event).
    ///
    /// Of a partitioned topic it is looked for in the partition of the subject of the event being handled, where emitted
    /// events go; `cancel_event` takes one with another subject. What was scheduled before a topic grew waits where it was
    /// put: [`Publisher::cancel_scheduled`](crate::Publisher::cancel_scheduled) looks there as well.
    pub fn cancel(&self, stream: &str, id: &str) {
        self.cancels_one(stream, Envelope::new("").with("id", id), false);
    }

    /// The same with the event itself: of several with one id the one with its type and its source, which is the group
    /// if it says none, as of what is emitted.
    pub fn cancel_event(&self, stream: &str, event: &Envelope) {
        self.cancels_one(stream, event.clone(), true);
    }

    /// What has been scheduled here so far, complete, and has not left; in a test what has left as well.
    pub fn scheduled(&self) -> Vec<EmittedLater> {
        self.lines_of(|what| match what {
            What::Schedule(later) => Some(later),
            _ => None,
        })
    }

    /// What has been cancelled here so far, and still waits for the commit; in a test what does not as well.
    pub fn cancels(&self) -> Vec<CancelledEmit> {
        self.lines_of(|what| match what {
            What::Cancel(cancelled) => Some(cancelled),
            _ => None,
        })
    }

    /// In a test without a worker: the next [`commit`](Self::commit) that appends to an aggregate finds it at this
    /// version, and is refused. If this is not called commits are settled.
    pub fn conflict_next_commit(&self, actual: u64) {
        self.outbox_or_new().conflict(actual);
    }

    pub(crate) fn lines_of<T>(&self, of: impl FnMut(What) -> Option<T>) -> Vec<T> {
        let lines = self.outbox().map(|outbox| outbox.lines());
        lines
            .unwrap_or_default()
            .into_iter()
            .filter_map(of)
            .collect()
    }

    fn later(&self, stream: &str, when: When, envelope: impl FnOnce() -> Result<Envelope, String>) {
        let doing = || format!("emitting to {stream:?} later");
        let leaves = self.outbox_or_new().line(doing, 1, |place| {
            let envelope = self.complete(stream, envelope()?, place)?;
            let known = match when {
                When::After(delay) => publisher::after(delay),
                When::At(at) => publisher::at_time(at),
            };
            known.map_err(|error| error.to_string())?;
            let (stream, envelope) = self.addressed(stream, envelope)?;
            Ok(What::Schedule(EmittedLater {
                stream,
                envelope,
                when,
            }))
        });
        self.tell_unless(leaves);
    }

    fn cancels_one(&self, stream: &str, event: Envelope, is_itself: bool) {
        let doing = || format!("cancelling an event for {stream:?}");
        let leaves = self.outbox_or_new().line(doing, 0, |_| {
            check_stream(stream).map_err(|error| error.to_string())?;
            if !event.says("id") {
                return Err(
                    "an event without an id can't be cancelled: it is known by that".to_owned(),
                );
            }
            let of = is_itself.then(|| {
                let source = event.source().filter(|source| !source.is_empty());
                let source = source.unwrap_or(self.group());
                (event.event_type().to_owned(), source.to_owned())
            });
            let subject = self.envelope().subject();
            let placed = match subject.filter(|_| !event.says("subject")) {
                Some(subject) => event.with("subject", subject),
                None => event,
            };
            let (stream, event) = self.addressed(stream, placed)?;
            Ok(What::Cancel(CancelledEmit {
                stream,
                id: event.id().into_owned(),
                of,
            }))
        });
        self.tell_unless(leaves);
    }
}

fn encoded<E: Event + Encodable>(event: &E) -> Result<Envelope, String> {
    envelope_of(event, Format::default()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ctx() -> Context {
        let cause = Envelope::new("order.created").with("id", "e-1");
        Context::for_test_with(cause.with("subject", "o-1"), None)
    }

    const TIME: &str = "2026-01-31T12:00:00Z";

    fn minute() -> Duration {
        Duration::from_secs(60)
    }

    #[test]
    fn what_is_emitted_later_says_what_an_emitted_event_says() {
        let (now, later) = (ctx(), ctx());
        now.emit_envelope("inventory", Envelope::new("a.b").with("time", TIME));
        later.emit_envelope_after(
            "inventory",
            Envelope::new("a.b").with("time", TIME),
            minute(),
        );
        let (emitted, scheduled) = (now.emitted().remove(0), later.scheduled().remove(0));
        assert_eq!(emitted.envelope, scheduled.envelope);
        assert_eq!(scheduled.when, When::After(minute()));
        assert!(later.emitted().is_empty() && later.effects().is_empty());
        // Each has a place of its own.
        later.emit_envelope_at("inventory", Envelope::new("a.b"), SystemTime::UNIX_EPOCH);
        later.emit_envelope("inventory", Envelope::new("a.b"));
        let ids = [
            later.scheduled()[0].envelope.id().into_owned(),
            later.scheduled()[1].envelope.id().into_owned(),
            later.emitted()[0].envelope.id().into_owned(),
        ];
        let all: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn what_is_cancelled_is_told_by_its_id_or_by_all_that_tells_it() {
        let ctx = ctx();
        ctx.cancel("inventory", "t-1");
        ctx.cancel_event("inventory", &Envelope::new("a.b").with("id", "t-2"));
        let mine = Envelope::new("a.b")
            .with("id", "t-3")
            .with("source", "shop");
        ctx.cancel_event("inventory", &mine);
        let of = |source: &str| Some(("a.b".to_owned(), source.to_owned()));
        let cancels: Vec<_> = ctx.cancels().into_iter().map(|c| (c.id, c.of)).collect();
        let all = [
            ("t-1".to_owned(), None),
            ("t-2".to_owned(), of("test")),
            ("t-3".to_owned(), of("shop")),
        ];
        assert_eq!(cancels, all);
    }

    #[test]
    fn what_can_t_be_scheduled_or_cancelled_fails_the_handler() {
        let wrong = |ask: &dyn Fn(&Context)| {
            let ctx = ctx();
            ask(&ctx);
            ctx.outbox().unwrap().wrong().unwrap()
        };
        let event = || Envelope::new("a.b");
        let said = wrong(&|ctx| ctx.emit_envelope_after("inventory", event(), Duration::MAX));
        assert!(
            said.contains("\"inventory\" later") && said.contains("after the year 9999"),
            "{said}"
        );
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_800);
        let said = wrong(&|ctx| ctx.emit_envelope_at("inventory", event(), far));
        assert!(said.contains("after the year 9999"), "{said}");
        let said = wrong(&|ctx| ctx.emit_envelope_after("a{b", event(), minute()));
        assert!(said.contains("stream name"), "{said}");
        let said = wrong(&|ctx| ctx.cancel("a{b", "t-1"));
        assert!(said.contains("stream name"), "{said}");
        let said = wrong(&|ctx| ctx.cancel("inventory", ""));
        assert!(said.contains("without an id"), "{said}");
    }
}
