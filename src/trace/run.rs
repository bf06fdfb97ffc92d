//! A run of a handler as a span. Its ids are derived from the entry, the group and the delivery: a retry knows the ids of
//! the run before it, and nothing is kept for that.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime};

use uuid::Uuid;

use super::context::TraceContext;
use super::sampling::Decision;
use super::span::{Exception, Kind, Span, Value, attributes, server};
use super::tracer::Tracer;
use crate::event::Envelope;
use crate::names::shown;

/// What ids of runs are made in: UUIDv5 of `streamhand:run` in the namespace of URLs.
const NAMESPACE: Uuid = Uuid::from_u128(0x2647_bd58_720f_5770_9b74_1a9b_17bc_899d);
/// Bytes of an event's data that tell it from others.
const TELLING: usize = 256;

/// What a handler runs for.
pub(crate) struct RunOf<'a> {
    /// Where the entry stands.
    pub stream: &'a str,
    pub group: &'a str,
    /// Of these two: see [`seed`](super::seed).
    pub seed: u64,
    pub envelope: &'a Envelope,
    pub attempt: u32,
    /// Which delivery of the entry it is,
    pub delivery: u32,
    /// and which before it ran its handler; 0 if none is known to.
    pub after: u32,
}

/// A run that has begun.
pub(crate) struct Run {
    pub context: TraceContext,
    parent: Option<[u8; 8]>,
    links: Vec<TraceContext>,
    started: (SystemTime, Instant),
    /// What it failed with, in a word.
    failed: OnceLock<&'static str>,
    /// What log lines that the handler writes stand in.
    pub within: tracing::Span,
}

/// How a run ended.
pub(crate) struct Ended<'a> {
    pub stream: &'a str,
    pub group: &'a str,
    /// The worker's consumer, and its server.
    pub consumer: &'a str,
    pub server: &'a str,
    pub envelope: &'a Envelope,
    pub attempt: u32,
    pub outcome: &'static str,
    /// In words, if it did not succeed.
    pub error: Option<&'a str>,
    /// Whether that counts as a failure.
    pub is_failed: bool,
}

impl Tracer {
    /// A handler begins to run. None if that is not to be traced.
    #[inline]
    pub fn begin(&self, of: &RunOf<'_>) -> Option<Run> {
        match self.sampling().decide(of.envelope, of.seed) {
            Decision::Dropped => None,
            Decision::Kept(published) => Some(self.begin_kept(of, published)),
        }
    }

    /// What stands for a run that is not traced, for whoever it calls: what its event came with, or a trace of its own.
    pub fn untraced(&self, envelope: &Envelope) -> Run {
        let published = envelope.traceparent().and_then(TraceContext::parse);
        let context = published.unwrap_or_else(|| self.root());
        let context = TraceContext {
            flags: 0,
            ..context
        };
        Run {
            context,
            parent: None,
            links: Vec::new(),
            started: (SystemTime::now(), Instant::now()),
            failed: OnceLock::new(),
            within: tracing::Span::none(),
        }
    }

    #[cold]
    fn begin_kept(&self, of: &RunOf<'_>, published: Option<TraceContext>) -> Run {
        let parent = published.filter(|_| self.is_child());
        let of_delivery = |delivery| {
            let own = of.ids(delivery);
            match parent {
                Some(parent) => parent.with_span(own.span),
                None => own,
            }
        };
        let context = of_delivery(of.delivery);
        let before = (of.after > 0).then(|| of_delivery(of.after));
        let envelope = of.envelope;
        // Seen whatever the filter lets through: a handler's warnings are to have it.
        let within = tracing::error_span!(
            target: "streamhand::handler",
            parent: None,
            "process",
            entry = %envelope.entry_id(),
            stream = of.stream,
            event = %shown(&envelope.id()),
            event_type = %shown(envelope.event_type()),
            attempt = of.attempt,
            trace_id = %context.trace_id(),
            span_id = %context.span_id(),
        );
        Run {
            context,
            parent: parent.map(|parent| parent.span),
            links: published.into_iter().chain(before).collect(),
            started: (SystemTime::now(), Instant::now()),
            failed: OnceLock::new(),
            within,
        }
    }

    /// A run that is traced has ended.
    #[cold]
    pub fn end(&self, run: &Run, ended: &Ended<'_>) {
        let envelope = ended.envelope;
        let mut attributes = attributes("process", ended.stream);
        attributes.extend(server(ended.server));
        let mut add = |name, value: Value| attributes.push((name, value));
        add("messaging.consumer.group.name", ended.group.into());
        add("messaging.client.id", ended.consumer.into());
        add(
            "messaging.message.id",
            envelope.entry_id().to_string().into(),
        );
        if let Some(conversation) = envelope.field("correlationid") {
            add(
                "messaging.message.conversation_id",
                shown(conversation).to_string().into(),
            );
        }
        add(
            "streamhand.event.id",
            shown(&envelope.id()).to_string().into(),
        );
        add(
            "streamhand.event.type",
            shown(envelope.event_type()).to_string().into(),
        );
        add("streamhand.attempt", ended.attempt.into());
        add("streamhand.outcome", ended.outcome.into());
        let kind = run.failed.get().copied().unwrap_or("error");
        if ended.is_failed {
            add("error.type", kind.into());
        }
        let (start, since) = run.started;
        self.add(Span {
            name: format!("process {}", ended.stream),
            kind: Kind::Consumer,
            context: run.context,
            parent: run.parent,
            links: run.links.clone(),
            start,
            end: start + since.elapsed(),
            attributes,
            exception: ended.error.map(|message| Exception {
                kind,
                message: message.to_owned(),
            }),
            is_failed: ended.is_failed,
        });
    }

    /// An event that a run has emitted has left, and carries this context.
    #[cold]
    pub fn emitted(&self, run: &Run, stream: &str, event: &Envelope, start: SystemTime) {
        let carried = event.traceparent().and_then(TraceContext::parse);
        // One that its handler has given a context keeps it.
        let is_own = carried.is_some_and(|carried| {
            carried.trace == run.context.trace && carried.span != run.context.span
        });
        let context = match carried.filter(|_| is_own) {
            Some(carried) => carried,
            None => run.context.with_span(self.new_span()),
        };
        let mut attributes = attributes("send", stream);
        attributes.push(("streamhand.event.id", shown(&event.id()).to_string().into()));
        attributes.push((
            "streamhand.event.type",
            shown(event.event_type()).to_string().into(),
        ));
        self.add(Span {
            name: format!("send {stream}"),
            kind: if is_own { Kind::Producer } else { Kind::Client },
            context,
            parent: Some(run.context.span),
            links: carried.filter(|_| !is_own).into_iter().collect(),
            start,
            end: SystemTime::now().max(start),
            attributes,
            exception: None,
            is_failed: false,
        });
    }
}

impl Run {
    /// Why it failed, in a word.
    pub fn failed(&self, kind: &'static str) {
        let _ = self.failed.set(kind);
    }

    pub fn is_traced(&self) -> bool {
        self.context.is_sampled()
    }
}

impl RunOf<'_> {
    /// The ids of the run of a delivery: the same for whoever asks, and no other's, for an event has an id of its own. Of
    /// one that has none, its data and its time tell it from another server's that has the same entry's id.
    fn ids(&self, delivery: u32) -> TraceContext {
        let envelope = self.envelope;
        let data = envelope.data();
        let id = envelope.entry_id();
        let mut name = format!(
            "{}\0{}\0{id}\0{}\0{}\0{}\0",
            self.stream,
            self.group,
            envelope.id(),
            envelope.field("time").unwrap_or_default(),
            envelope.field("traceparent").unwrap_or_default(),
        )
        .into_bytes();
        name.extend_from_slice(&data[..data.len().min(TELLING)]);
        name.extend_from_slice(&delivery.to_be_bytes());
        let trace = Uuid::new_v5(&NAMESPACE, &name).into_bytes();
        let span = Uuid::new_v5(&Uuid::from_bytes(trace), b"span").into_bytes();
        // Of its 16 bytes the last eight have the most chance in them; none of them are all zeros.
        let [.., a, b, c, d, e, f, g, h] = span;
        TraceContext::new(trace, [a, b, c, d, e, f, g, h], true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traceparent::EXAMPLE;

    fn of(envelope: &Envelope, delivery: u32, after: u32) -> RunOf<'_> {
        RunOf {
            stream: "orders",
            group: "workers",
            seed: 0,
            envelope,
            attempt: 1,
            delivery,
            after,
        }
    }

    #[test]
    fn a_retry_knows_the_run_before_it() {
        let event = Envelope::new("order.created").with("id", "e-1");
        let tracer = Tracer::new(1.0, false);
        let first = tracer.begin(&of(&event, 1, 0)).expect("all are");
        let again = tracer.begin(&of(&event, 1, 0)).expect("all are");
        let retry = tracer.begin(&of(&event, 2, 1)).expect("all are");
        assert_eq!(first.context, again.context);
        assert_ne!(first.context.trace, retry.context.trace);
        assert_eq!((first.parent, &first.links[..]), (None, &[][..]));
        assert_eq!(
            (retry.parent, &retry.links[..]),
            (None, &[first.context][..])
        );
    }

    #[test]
    fn a_run_is_linked_to_what_published_its_event_or_its_child() {
        let event = Envelope::new("order.created").with("traceparent", EXAMPLE);
        let published = TraceContext::parse(EXAMPLE).expect("one");
        let linked = Tracer::new(0.0, false)
            .begin(&of(&event, 1, 0))
            .expect("its parent is");
        assert_ne!(linked.context.trace, published.trace);
        assert_eq!((linked.parent, &linked.links[..]), (None, &[published][..]));
        let tracer = Tracer::new(0.0, true);
        let child = tracer.begin(&of(&event, 1, 0)).expect("its parent is");
        assert_eq!(child.context.trace, published.trace);
        assert_eq!(
            (child.parent, &child.links[..]),
            (Some(published.span), &[published][..])
        );
        let retry = tracer.begin(&of(&event, 2, 1)).expect("its parent is");
        assert_eq!(retry.parent, Some(published.span));
        assert_eq!(retry.links, [published, child.context]);
    }

    #[test]
    fn what_is_not_traced_hands_on_that_it_is_not() {
        let tracer = Tracer::new(0.0, false);
        let unsampled = EXAMPLE.replace("-01", "-00");
        let event = Envelope::new("a.b").with("traceparent", &unsampled);
        assert!(tracer.begin(&of(&event, 1, 0)).is_none());
        assert_eq!(tracer.untraced(&event).context.to_string(), unsampled);
        let event = Envelope::new("a.b");
        assert!(tracer.begin(&of(&event, 1, 0)).is_none());
        assert!(tracer.untraced(&event).context.to_string().ends_with("-00"));
    }
}
