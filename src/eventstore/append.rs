//! What is asked of a store, and what may become of it.

use std::ops::RangeInclusive;

use crate::aggregate_id::AggregateId;
use crate::conflict::{Conflict, Expected, Overlap, is_what_was_stored};
use crate::error::{Error, ErrorKind};
use crate::event::{EntryId, Envelope};
use crate::fields::Fields;
use crate::stream::NotReplicated;

/// Events for one aggregate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The aggregate.
    pub aggregate: AggregateId,
    /// Its new events, in their order.
    pub events: Vec<Envelope>,
    /// The version it is expected at.
    pub expected: Expected,
    /// Whether the events came about after the aggregate was seen at that version: none of them is its last one.
    pub(super) fresh: bool,
}

impl Append {
    /// Events for one aggregate.
    pub fn new(aggregate: AggregateId, events: Vec<Envelope>, expected: Expected) -> Self {
        Append {
            aggregate,
            events,
            expected,
            fresh: false,
        }
    }
}

/// Events that are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// The version of the first event.
    pub first: u64,
    /// Where each event stands on the public stream.
    pub positions: Vec<EntryId>,
    /// False if the very same append had been done before, and was not done again.
    pub is_new: bool,
}

impl Appended {
    /// The version of the last event, which the aggregate had from then on.
    pub fn version(&self) -> u64 {
        self.first + self.positions.len() as u64 - 1
    }

    /// The versions of the events.
    pub fn versions(&self) -> RangeInclusive<u64> {
        self.first..=self.version()
    }
}

/// Why events were not appended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The aggregate is not at the version expected; nothing was stored.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// Some of the events are stored already, and not at this place, or not all; nothing was stored.
    #[error(transparent)]
    Overlap(#[from] Overlap),
    /// The events are stored, and fewer replicas are known to have them than were asked for: a failover may lose them. The
    /// same append can be repeated, which stores nothing anew and waits for the replicas again.
    #[error("{error}")]
    NotReplicated {
        /// What became of each aggregate.
        appended: Vec<Appended>,
        /// Why.
        #[source]
        error: NotReplicated,
    },
    /// An event can't be stored (then none was), or Redis can't be reached or refuses. Of
    /// [`ErrorKind::Exists`](crate::ErrorKind::Exists) where these ids are stored at this place with other events.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Append {
    /// Makes sure that events found at their places, under their ids, are the events of this append: a repeat of it, and
    /// not another one under ids that were taken.
    pub(super) fn is_what_was_stored<'a>(
        &self,
        first: u64,
        stored: impl IntoIterator<Item = &'a Fields>,
    ) -> Result<(), AppendError> {
        is_what_was_stored(&self.aggregate, &self.events, first, stored)
            .map_err(|why| AppendError::Failed(Error::new(ErrorKind::Exists, why)))
    }
}

impl AppendError {
    /// The conflict, where it is one.
    pub fn conflict(&self) -> Option<&Conflict> {
        match self {
            AppendError::Conflict(conflict) => Some(conflict),
            _ => None,
        }
    }
}
