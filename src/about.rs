//! What a line of the log says of the entry it is about, everywhere the same: the entry's id, its stream, the id and type
//! of its event, the attempt, and the trace where there is one. An event goes through several streams and many entries;
//! whoever looks for it has its id.

use std::borrow::Cow;

#[cfg(feature = "worker")]
use crate::context::Context;
use crate::event::{Entry, EntryId};
use crate::names::shown;
use crate::trace::TraceContext;

/// An entry, as lines of the log name it.
pub(crate) struct About<'a> {
    pub entry: EntryId,
    /// Where it stands: of one that was replayed, the stream of those.
    pub stream: &'a str,
    /// None of one that is too large to be read.
    pub event: Option<Cow<'a, str>>,
    pub event_type: Option<Cow<'a, str>>,
    pub attempt: u32,
    pub trace: Option<TraceContext>,
}

impl<'a> About<'a> {
    /// Of an event that stands in `stream`.
    #[cfg(feature = "worker")]
    pub fn of(ctx: &'a Context, stream: &'a str) -> Self {
        let envelope = ctx.envelope();
        About {
            entry: envelope.entry_id(),
            stream,
            event: Some(envelope.id()),
            event_type: Some(Cow::Borrowed(envelope.event_type())),
            attempt: ctx.attempt(),
            trace: ctx.known_trace(),
        }
    }

    /// Of an entry that may be no event.
    pub fn raw(entry: &'a Entry, stream: &'a str, attempt: u32) -> Self {
        let text = |name: &str| {
            let value = entry.fields.value(name).unwrap_or_default();
            String::from_utf8_lossy(value)
        };
        About {
            entry: entry.id,
            stream,
            event: Some(match text("id") {
                id if id.is_empty() => Cow::Owned(entry.id.to_string()),
                id => id,
            }),
            event_type: Some(text("type")),
            attempt,
            trace: TraceContext::parse(&text("traceparent")),
        }
    }

    /// Of an entry that can't be read.
    #[cfg(feature = "worker")]
    pub fn unread(entry: EntryId, stream: &'a str, attempt: u32) -> Self {
        About {
            entry,
            stream,
            event: None,
            event_type: None,
            attempt,
            trace: None,
        }
    }

    /// The event's id, as a line shows it.
    pub fn event_id(&self) -> Option<String> {
        self.event.as_deref().map(|id| shown(id).to_string())
    }

    /// The event's type, as a line shows it.
    pub fn type_name(&self) -> Option<String> {
        self.event_type
            .as_deref()
            .map(|name| shown(name).to_string())
    }

    pub fn trace_id(&self) -> Option<String> {
        self.trace.map(|trace| trace.trace_id())
    }
}

/// Logs a line about an entry, at the level of this name: `tell!(warn, about, "failed: {error}")`.
macro_rules! tell {
    ($level:ident, $about:expr, $($line:tt)+) => {{
        let about = &$about;
        tracing::$level!(
            entry = %about.entry,
            stream = about.stream,
            event = about.event_id().map(tracing::field::display),
            event_type = about.type_name().map(tracing::field::display),
            attempt = about.attempt,
            trace_id = about.trace_id().map(tracing::field::display),
            $($line)+
        )
    }};
}
pub(crate) use tell;
