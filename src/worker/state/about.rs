//! What a line of the log says of the entry it is about, everywhere the same: the entry's id, its stream, and the id and
//! type of its event. An event goes through several streams and many entries; whoever looks for it has its id.

use std::borrow::Cow;

use super::source::Source;
use crate::context::Context;
use crate::event::{Entry, EntryId};

/// An entry, as lines of the log name it.
pub(crate) struct About<'a> {
    pub entry: EntryId,
    /// Where it stands: of one that was replayed, the stream of those.
    pub stream: &'a str,
    pub event: Cow<'a, str>,
    pub event_type: Cow<'a, str>,
}

impl<'a> About<'a> {
    pub fn of(ctx: &'a Context, source: &'a Source) -> Self {
        let envelope = ctx.envelope();
        About {
            entry: envelope.entry_id(),
            stream: &source.keys.stream,
            event: envelope.id(),
            event_type: Cow::Borrowed(envelope.event_type()),
        }
    }

    /// Of an entry that may be no event.
    pub fn raw(entry: &'a Entry, source: &'a Source) -> Self {
        let text = |name: &str| {
            let value = entry.fields.value(name).unwrap_or_default();
            String::from_utf8_lossy(value)
        };
        About {
            entry: entry.id,
            stream: &source.keys.stream,
            event: match text("id") {
                id if id.is_empty() => Cow::Owned(entry.id.to_string()),
                id => id,
            },
            event_type: text("type"),
        }
    }
}

/// Logs a line about an entry, at the level of this name: `tell!(warn, about, attempt, "failed: {error}")`.
macro_rules! tell {
    ($level:ident, $about:expr, $($line:tt)+) => {{
        let about = &$about;
        tracing::$level!(
            entry = %about.entry,
            stream = about.stream,
            event = %$crate::names::shown(&about.event),
            event_type = %$crate::names::shown(&about.event_type),
            $($line)+
        )
    }};
}
pub(crate) use tell;
