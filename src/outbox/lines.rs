//! What leaves with an acknowledgement beside events and effects: events that are scheduled, or are not to be any more,
//! and events for aggregates. They are carried out in the order in which they were asked for.

use std::time::{Duration, SystemTime};

use crate::aggregate_id::AggregateId;
use crate::conflict::{Conflict, Expected, Overlap, is_what_was_stored};
use crate::event::Envelope;
use crate::fields::Fields;
use crate::identity::{self, Identity};
use crate::partition::Partition;

/// An event on its way to a stream at a later time: on that stream's schedule once the event being handled is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmittedLater {
    /// The stream it goes to.
    pub stream: String,
    /// The event, complete.
    pub envelope: Envelope,
    /// When.
    pub when: When,
}

/// When an event is to be in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// So long after the commit, by the clock of Redis.
    After(Duration),
    /// At this time; at once if it has passed.
    At(SystemTime),
}

/// An event that is to be taken off a stream's schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CancelledEmit {
    /// The stream it would go to.
    pub stream: String,
    /// Its id.
    pub id: String,
    /// Its type and its source, if it is not the only one of its id.
    pub of: Option<(String, String)>,
}

/// Events for one aggregate, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Appending {
    pub aggregate: AggregateId,
    pub expected: Expected,
    pub events: Vec<Envelope>,
    /// The stream on which others are told.
    pub public: String,
    /// Where the aggregate is kept.
    pub key: String,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub what: What,
    /// It is known that this very event is scheduled, or that these very events are stored, though not by the letter.
    pub stands: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Schedule(EmittedLater),
    Cancel(CancelledEmit),
    Append(Appending),
}

impl Appending {
    /// The topic that others are told of, of which its public stream may be a partition.
    pub fn topic(&self) -> &str {
        Partition::parse(&self.public).map_or(&self.public, |partition| partition.topic)
    }
}

impl Line {
    /// The events it has, and the stream that each goes to.
    pub fn events(&self) -> impl Iterator<Item = (&str, &Envelope)> {
        let (stream, events) = match &self.what {
            What::Schedule(later) => (&later.stream, std::slice::from_ref(&later.envelope)),
            What::Cancel(cancelled) => (&cancelled.stream, &[][..]),
            What::Append(append) => (&append.public, &append.events[..]),
        };
        events.iter().map(move |event| (&stream[..], event))
    }

    /// Notes that what is there in its place says the same, or returns why that is something else. `first` is the version of
    /// the first stored event.
    pub fn is_there(&mut self, first: u64, stored: &[Fields]) -> Result<(), String> {
        match &self.what {
            What::Schedule(later) => {
                let event = later.envelope.fields();
                if stored.first().map(Identity::of) != Some(Identity::of(event)) {
                    return Err(format!(
                        "emitting to {:?} later: {} is scheduled already, with other data: what is another event needs \
                         another id",
                        later.stream,
                        identity::named(event)
                    ));
                }
            }
            What::Append(append) => {
                is_what_was_stored(&append.aggregate, &append.events, first, stored)?;
            }
            What::Cancel(_) => {}
        }
        self.stands = true;
        Ok(())
    }

    /// That its aggregate is at another version, if it has one.
    pub fn conflict(&self, actual: u64) -> Option<Conflict> {
        match &self.what {
            What::Append(append) => Some(Conflict {
                aggregate: append.aggregate.clone(),
                expected: append.expected,
                actual,
            }),
            _ => None,
        }
    }

    /// That its aggregate has some of the events, if it has one.
    pub fn overlap(&self, actual: u64) -> Option<Overlap> {
        match &self.what {
            What::Append(append) => Some(Overlap {
                aggregate: append.aggregate.clone(),
                actual,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(data: &str) -> Envelope {
        Envelope::new("a.b").with("id", "e-1").with("data", data)
    }

    #[test]
    fn what_is_scheduled_stands_if_it_says_the_same_however_it_is_written() {
        let later = |data: &str| Line {
            what: What::Schedule(EmittedLater {
                stream: "s".to_owned(),
                envelope: event(data),
                when: When::After(Duration::ZERO),
            }),
            stands: false,
        };
        let there = [event(r#"{"a":1,"b":2}"#).fields().clone()];
        let mut same = later(r#"{ "b":2, "a":1 }"#);
        assert_eq!((same.is_there(0, &there), same.stands), (Ok(()), true));
        let mut other = later(r#"{"a":1,"b":3}"#);
        let said = other.is_there(0, &there).unwrap_err();
        assert!(
            said.contains("\"s\"") && said.contains("\"e-1\"") && said.contains("other data"),
            "{said}"
        );
        assert!(!other.stands);
    }

    #[test]
    fn what_is_stored_stands_if_it_says_the_same() {
        let append = |data: &str| Line {
            what: What::Append(Appending {
                aggregate: AggregateId::new("order", "o-1").unwrap(),
                expected: Expected::Exact(4),
                events: vec![event(data)],
                public: "orders".to_owned(),
                key: "{orders}:order:o-1".to_owned(),
            }),
            stands: false,
        };
        let there = [event(r#"{"a":1}"#).fields().clone()];
        assert_eq!(append(r#"{"a": 1}"#).is_there(5, &there), Ok(()));
        let said = append("2").is_there(5, &there).unwrap_err();
        assert!(
            said.contains("order:o-1") && said.contains("as version 5"),
            "{said}"
        );
        let conflict = append("1").conflict(7).unwrap();
        assert_eq!(
            conflict.to_string(),
            "order:o-1 is at version 7, and was expected at 4"
        );
    }
}
