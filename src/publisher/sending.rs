//! A request that adds events to a stream, as a span. Events carry its context, unless who publishes them has given them
//! one of their own: that is left as it is, and the span is linked to it. A batch is one span.

use std::time::{Instant, SystemTime};

use crate::error::{Error, ErrorKind};
use crate::event::Envelope;
use crate::names::shown;
use crate::stream::{Appended, Done, Fate, Pool};
use crate::trace::{Exception, Kind, Span, TraceContext, Tracer, attributes, server};

/// Most links of one span: of a batch of events that each carry a context of their own, those of the first.
const MOST_LINKS: usize = 128;

/// Who makes spans of requests, and what they are part of.
#[derive(Clone)]
pub(super) struct Traced {
    tracer: Tracer,
    within: Option<TraceContext>,
}

impl Traced {
    pub fn new(tracer: Tracer, within: Option<TraceContext>) -> Self {
        Traced { tracer, within }
    }
}

/// A request on its way.
pub(super) struct Sending<'a>(Option<Begun<'a>>);

struct Begun<'a> {
    tracer: &'a Tracer,
    pool: &'a Pool,
    stream: &'a str,
    /// What events carry that have none of their own.
    context: TraceContext,
    parent: Option<[u8; 8]>,
    links: Vec<TraceContext>,
    /// How many events had one of their own.
    own: usize,
    started: (SystemTime, Instant),
}

impl<'a> Sending<'a> {
    /// Events are about to be sent to `stream`.
    pub fn begin(
        traced: Option<&'a Traced>,
        pool: &'a Pool,
        stream: &'a str,
        events: &[Envelope],
    ) -> Self {
        let Some(Traced { tracer, within }) = traced else {
            return Sending(None);
        };
        let contexts = || events.iter().filter_map(carried);
        let mut links: Vec<TraceContext> = Vec::new();
        for context in contexts() {
            if links.len() < MOST_LINKS && !links.contains(&context) {
                links.push(context);
            }
        }
        // What leads to a single event may be known by the event alone.
        let single = (events.len() == 1)
            .then(|| links.first().copied())
            .flatten();
        let parent = within.or(single);
        let context = match parent {
            Some(parent) if parent.is_sampled() => parent.with_span(tracer.new_span()),
            // Whoever handles them is to know that this trace is not kept.
            Some(parent) => parent,
            None => tracer.root(),
        };
        Sending(Some(Begun {
            tracer,
            pool,
            stream,
            context,
            parent: parent.map(|parent| parent.span),
            own: contexts().count(),
            links,
            started: (SystemTime::now(), Instant::now()),
        }))
    }

    /// The same event with the context it is to carry.
    pub fn carried_by(&self, event: Envelope) -> Envelope {
        match &self.0 {
            Some(begun) if !event.says("traceparent") => {
                event.with_known("traceparent", begun.context.to_string())
            }
            _ => event,
        }
    }

    /// What became of it is known.
    pub fn ended(self, events: &[Envelope], appended: &Appended) {
        if let Some(begun) = self.0
            && begun.context.is_sampled()
            && !events.is_empty()
        {
            begun.end(events, appended);
        }
    }
}

impl Begun<'_> {
    fn end(self, events: &[Envelope], appended: &Appended) {
        let mut attributes = attributes("send", self.stream);
        attributes.extend(server(self.pool.address()));
        match events {
            [event] => {
                let entry = appended.fates.iter().find_map(|fate| match fate {
                    Fate::Done(Done::Added(id) | Done::AddedBefore(id))
                    | Fate::NotReplicated(Done::Added(id) | Done::AddedBefore(id), _) => {
                        Some(id.to_string())
                    }
                    _ => None,
                });
                if let Some(entry) = entry {
                    attributes.push(("messaging.message.id", entry.into()));
                }
                attributes.push(("streamhand.event.id", shown(&event.id()).to_string().into()));
                attributes.push((
                    "streamhand.event.type",
                    shown(event.event_type()).to_string().into(),
                ));
            }
            events => attributes.push(("messaging.batch.message_count", events.len().into())),
        }
        let failed = |error: &Error| Exception {
            kind: word(error.kind()),
            message: error.to_string(),
        };
        let refused = appended.fates.iter().find_map(|fate| match fate {
            Fate::Refused(error) => Some(failed(error)),
            Fate::NotReplicated(done, why) => {
                Some(failed(&done.not_replicated(why.clone()).into_error()))
            }
            _ => None,
        });
        let exception = refused.or_else(|| appended.broken.as_ref().map(failed));
        if let Some(exception) = &exception {
            attributes.push(("error.type", exception.kind.into()));
        }
        let (start, since) = self.started;
        self.tracer.add(Span {
            name: format!("send {}", self.stream),
            kind: match self.own < events.len() {
                true => Kind::Producer,
                false => Kind::Client,
            },
            context: self.context,
            parent: self.parent,
            links: self.links,
            start,
            end: start + since.elapsed(),
            attributes,
            is_failed: exception.is_some(),
            exception,
        });
    }
}

/// A kind of error as the value of `error.type`.
fn word(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Invalid => "invalid",
        ErrorKind::Unreachable => "unreachable",
        ErrorKind::Refused => "refused",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::Redis => "redis",
        ErrorKind::Codec => "codec",
        ErrorKind::NotReplicated => "not_replicated",
        _ => "_OTHER",
    }
}

/// The context that an event carries already.
fn carried(event: &Envelope) -> Option<TraceContext> {
    event.traceparent().and_then(TraceContext::parse)
}
