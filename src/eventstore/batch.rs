//! Completes events before they are stored, and refuses what can't be, whoever stores them.

use std::collections::HashSet;
use std::time::SystemTime;

use super::append::Append;
use super::public::PublicStreams;
use crate::aggregate_id::AggregateId;
use crate::codec;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Envelope;
use crate::event::with_id;
use crate::event_type;
use crate::fields::MOST_FIELDS;

/// Most bytes of one event, names and values of all its fields together.
pub const MOST_EVENT_BYTES: usize = 1 << 20;

/// Most bytes of all events in one append: Redis does nothing else meanwhile.
pub const MOST_APPEND_BYTES: usize = 16 << 20;

/// Most events in one append.
pub const MOST_EVENTS: usize = 1000;

/// The field of a public event with the version it is in its aggregate.
pub(super) const VERSION: &str = "aggregateversion";

/// The field of an aggregate's event with its place on the public stream.
pub(super) const POSITION: &str = "position";

/// The same appends with complete events. All of them go to one public stream.
pub(super) fn prepare(public: &PublicStreams, appends: Vec<Append>) -> Result<Vec<Append>> {
    let Some(first) = appends.first() else {
        return Err(invalid("an append of nothing: name an aggregate"));
    };
    let partition = public.partition(&first.aggregate);
    let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let (mut aggregates, mut ids) = (HashSet::new(), HashSet::new());
    let (mut bytes, mut events) = (0, 0);
    let mut prepared = Vec::with_capacity(appends.len());
    let are_many = appends.len() > 1;
    for append in appends {
        let aggregate = append.aggregate;
        if public.partition(&aggregate) != partition {
            return Err(invalid(format!(
                "{aggregate} is in another partition: only aggregates that share one can be stored in one step"
            )));
        }
        // One alone can't be there twice, and is the usual case.
        if are_many && !aggregates.insert(aggregate.clone()) {
            return Err(invalid(format!("{aggregate} is named twice in one append")));
        }
        if append.events.is_empty() {
            return Err(invalid(format!("{aggregate}: an append of no events")));
        }
        let count = append.events.len();
        let mut complete = Vec::with_capacity(count);
        // Those get ids that nobody has had.
        let is_fresh = append.fresh || append.events.iter().all(|event| !event.says("id"));
        for event in append.events {
            let event = self::complete(&aggregate, event, &now)?;
            if (are_many || count > 1) && !ids.insert(event.id().into_owned()) {
                let id = event.id();
                return Err(invalid(format!(
                    "{aggregate}: the event id {id:?} stands twice in one append"
                )));
            }
            bytes += event.fields().size();
            events += 1;
            complete.push(event);
        }
        prepared.push(Append {
            aggregate,
            events: complete,
            expected: append.expected,
            fresh: is_fresh,
        });
    }
    if events > MOST_EVENTS || bytes > MOST_APPEND_BYTES {
        return Err(invalid(format!(
            "{events} events with {bytes} bytes in one append: at most {MOST_EVENTS} with {MOST_APPEND_BYTES}"
        )));
    }
    Ok(prepared)
}

fn complete(aggregate: &AggregateId, event: Envelope, now: &str) -> Result<Envelope> {
    let refuse = |why: String| Err(invalid(format!("{aggregate}: {why}")));
    let event_type = event.event_type();
    if let Err(why) = event_type::check(event_type) {
        return refuse(format!("the event type {event_type:?} {why}"));
    }
    for name in [VERSION, POSITION] {
        if event.fields().value(name).is_some() {
            return refuse(format!("{name:?} is a field that the store itself writes"));
        }
    }
    if event
        .subject()
        .is_some_and(|subject| subject != aggregate.as_str())
    {
        return refuse("the subject of an aggregate's event is the aggregate".to_owned());
    }
    if event.field("id") == Some("") {
        return refuse("an event with an empty id".to_owned());
    }
    let mut event = with_id(event);
    for (name, value) in [
        ("subject", aggregate.as_str()),
        ("time", now),
        ("datacontenttype", codec::JSON),
    ] {
        if !event.says(name) {
            event = event.with(name, value);
        }
    }
    let (fields, bytes) = (event.fields().len(), event.fields().size());
    if fields > MOST_FIELDS {
        return refuse(format!(
            "an event of {fields} fields: at most {MOST_FIELDS}"
        ));
    }
    if bytes > MOST_EVENT_BYTES {
        let event_type = event.event_type();
        return refuse(format!(
            "{event_type} with {bytes} bytes: at most {MOST_EVENT_BYTES}; keep large data elsewhere and name it"
        ));
    }
    Ok(event)
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}
