//! At which version an aggregate is expected, and that it is not there. Nothing of this knows where events are kept: a
//! handler's commit is refused with the same words as an append to the event store.

use std::fmt;

use crate::aggregate_id::AggregateId;
use crate::event::Envelope;
use crate::fields::Fields;
use crate::identity::{self, Identity};

/// At which version an aggregate is expected when events are appended to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expected {
    /// At this one: that of its last event, 0 if it has none.
    Exact(u64),
    /// It has no events yet.
    NoStream,
    /// It has some.
    Exists,
    /// Whatever it is at.
    Any,
}

/// The aggregate is not at the version expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{aggregate} is at version {actual}, and {expected}")]
#[non_exhaustive]
pub struct Conflict {
    /// The aggregate.
    pub aggregate: AggregateId,
    /// The version it was expected at.
    pub expected: Expected,
    /// The version it is at.
    pub actual: u64,
}

/// Some of the events are stored already, others are not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{aggregate} is at version {actual} and has some of these events already: this is neither new nor a repeat of one \
     append, so nothing was stored"
)]
#[non_exhaustive]
pub struct Overlap {
    /// The aggregate.
    pub aggregate: AggregateId,
    /// The version it is at.
    pub actual: u64,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Exact(version) => write!(f, "was expected at {version}"),
            Expected::NoStream => f.write_str("was expected not to exist"),
            Expected::Exists => f.write_str("was expected to exist"),
            Expected::Any => f.write_str("was expected at any"),
        }
    }
}

/// Makes sure that events found at their places from the version `first` on, under their ids, are these: a repeat of an
/// append, and not another one under ids that were taken.
pub(crate) fn is_what_was_stored<'a>(
    aggregate: &AggregateId,
    events: &[Envelope],
    first: u64,
    stored: impl IntoIterator<Item = &'a Fields>,
) -> Result<(), String> {
    for (at, (event, stored)) in events.iter().zip(stored).enumerate() {
        if Identity::of(event.fields()) != Identity::of(stored) {
            return Err(format!(
                "{aggregate} has {} as version {}, of another source or type or with other data: what is another event \
                 needs another id",
                identity::named(stored),
                first + at as u64
            ));
        }
    }
    Ok(())
}
