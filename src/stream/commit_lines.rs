//! What a commit does beside events and effects, as the script `commit_more` takes it.

use std::borrow::Cow;
use std::time::SystemTime;

use redis::Value;

use super::events::At;
use super::keys::StreamKeys;
use super::obstacle::{Need, need};
use super::reply;
use super::script::ScriptInvocation;
use crate::codec;
use crate::event::Envelope;
use crate::fields::Fields;
use crate::identity::which;
use crate::outbox::{Line, What, When};

/// A line with its keys.
pub(crate) struct Placed<'a> {
    line: &'a Line,
    keys: [Cow<'a, str>; 3],
}

impl<'a> Placed<'a> {
    pub fn new(line: &'a Line) -> Self {
        let on_schedule = |stream: &'a str| {
            let of = StreamKeys::new(stream);
            let (scheduled, events) = (Cow::Owned(of.scheduled), Cow::Owned(of.events));
            [Cow::Borrowed(stream), scheduled, events]
        };
        let keys = match &line.what {
            What::Schedule(later) => on_schedule(&later.stream),
            What::Cancel(cancelled) => on_schedule(&cancelled.stream),
            What::Append(append) => {
                let (key, public) = (&append.key[..], &append.public[..]);
                let reached = StreamKeys::new(public).reached;
                [key.into(), public.into(), reached.into()]
            }
        };
        Placed { line, keys }
    }

    /// What it is, as a message begins.
    pub fn doing(&self) -> String {
        match &self.line.what {
            What::Schedule(later) => format!("emitting to {} later", later.stream),
            What::Cancel(cancelled) => format!("cancelling an event for {}", cancelled.stream),
            What::Append(append) => format!("appending to {}", append.aggregate),
        }
    }

    /// What would be right, if its keys are in another slot.
    pub fn instead(&self) -> String {
        match &self.line.what {
            What::Schedule(_) => {
                "give its name the same {tag}, or emit an event there and have its handler schedule"
                    .to_owned()
            }
            What::Cancel(_) => {
                "give its name the same {tag}, or emit an event there and have its handler cancel"
                    .to_owned()
            }
            What::Append(append) => format!(
                "emit an event to {:?} with the subject {:?}, and append in its handler, or save it by a `Repository`, \
                 which is a step of its own",
                append.topic(),
                append.aggregate.as_str()
            ),
        }
    }

    /// One of its keys: all of them are in one slot.
    pub fn key(&self) -> &str {
        &self.keys[0]
    }

    /// What this needs of its keys.
    pub fn needs(&self) -> [Need<'_>; 3] {
        let [first, second, third] = &self.keys;
        match &self.line.what {
            What::Schedule(_) => [
                need(&**first, "stream", "TYPE"),
                need(&**second, "zset", "ZADD ZSCORE"),
                need(&**third, "hash", "HSET HGET"),
            ],
            What::Cancel(_) => [
                need(&**first, "stream", "TYPE"),
                need(&**second, "zset", "ZREM ZSCORE"),
                need(&**third, "hash", "HDEL HGET HSET"),
            ],
            What::Append(_) => [
                need(&**first, "stream", "XADD XINFO|STREAM XRANGE XREVRANGE"),
                need(&**second, "stream", "XADD XDEL XSETID"),
                need(&**third, "", "SET"),
            ],
        }
    }

    /// About how many bytes it has.
    pub fn size(&self) -> usize {
        let events = self.line.events();
        events.map(|(_, event)| event.fields().size()).sum()
    }

    /// How many arguments it takes, keys included.
    pub fn arguments(&self) -> usize {
        let events = self.line.events();
        let events = events.map(|(_, event)| 1 + 2 * event.fields().len());
        11 + events.sum::<usize>()
    }

    /// Adds it to a call, as the script has it.
    pub(super) fn put(&self, call: &mut ScriptInvocation<'_>) {
        for key in &self.keys {
            call.key(&**key);
        }
        let stands = if self.line.stands { "stands" } else { "" };
        match &self.line.what {
            What::Schedule(later) => {
                let event = &later.envelope;
                let source = event.source().unwrap_or_default().as_bytes();
                let which = which(source, event.id().as_bytes(), event.type_bytes());
                let (due, delay) = match later.when {
                    When::After(delay) => (String::new(), delay.as_millis() as u64),
                    When::At(at) => {
                        let since = at.duration_since(SystemTime::UNIX_EPOCH);
                        (since.unwrap_or_default().as_millis().to_string(), 0)
                    }
                };
                call.arg("SCHEDULE").arg("=").arg(stands).arg(&*event.id());
                call.arg(which).arg(due);
                call.arg(1 + 2 * event.fields().len()).arg(delay);
                put(event.fields(), call);
            }
            What::Cancel(cancelled) => {
                let (event_type, source) = match &cancelled.of {
                    Some((event_type, source)) => (&event_type[..], &source[..]),
                    None => ("", ""),
                };
                let id = &cancelled.id;
                let of = cancelled
                    .of
                    .is_some()
                    .then(|| which(source.as_bytes(), id.as_bytes(), event_type.as_bytes()));
                call.arg("CANCEL").arg("=").arg(stands).arg(id);
                call.arg(of.unwrap_or_default()).arg("");
                call.arg(2).arg(event_type).arg(source);
            }
            What::Append(append) => {
                call.arg("APPEND").arg("=").arg(stands);
                match append.expected.into() {
                    At::Version(version) => call.arg(version),
                    At::Exists => call.arg("exists"),
                    At::Any => call.arg("any"),
                };
                let count = |event: &Envelope| 2 * event.fields().len();
                let strings = append.events.iter().map(|event| 1 + count(event));
                call.arg(append.events.len()).arg("");
                call.arg(strings.sum::<usize>());
                for event in &append.events {
                    call.arg(count(event));
                    put(event.fields(), call);
                }
            }
        }
    }
}

fn put(fields: &Fields, call: &mut ScriptInvocation<'_>) {
    for (name, value) in fields {
        call.arg(name).arg(value);
    }
}

/// The fields of what is there in place of a line's events: those of a scheduled one are packed.
pub(super) fn stored(there: Value) -> Option<Vec<Fields>> {
    match there {
        Value::Array(events) => events.into_iter().map(reply::fields).collect(),
        packed => Some(vec![codec::packed(reply::bytes(packed)?)?]),
    }
}
