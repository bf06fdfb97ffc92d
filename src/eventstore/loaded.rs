//! An aggregate as it was loaded, and what has happened to it since that is not stored yet.

use super::aggregate::{Aggregate, AggregateEvent};
use super::catch_panic::catch_panic;
use crate::aggregate_id::AggregateId;
use crate::codec::Format;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Envelope;
use crate::event::with_id;
use std::fmt;

/// An aggregate, loaded by a [`Repository`](super::Repository): its state, its version, and events that are not stored
/// yet. Those stay until a save has succeeded, each with its id: a save that failed, or was not waited for, can be
/// repeated.
pub struct Loaded<A> {
    id: AggregateId,
    state: A,
    version: u64,
    /// The id of the stored event at that version, which tells this aggregate from another of its name.
    last: String,
    uncommitted: Vec<Envelope>,
    /// The event that panicked when it happened, and left the state half changed.
    broken: Option<String>,
    /// The version of its last snapshot, as far as is known here.
    pub(super) snapshot: u64,
    format: Format,
}

impl<A: fmt::Debug> fmt::Debug for Loaded<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("id", &self.id)
            .field("version", &self.version)
            .field("state", &self.state)
            .field("uncommitted", &self.uncommitted)
            .finish_non_exhaustive()
    }
}

impl<A: Aggregate> Loaded<A> {
    pub(super) fn new(id: AggregateId, format: Format) -> Self {
        Loaded {
            id,
            state: A::initial(),
            version: 0,
            last: String::new(),
            uncommitted: Vec::new(),
            broken: None,
            snapshot: 0,
            format,
        }
    }

    pub(super) fn from_snapshot(
        id: AggregateId,
        state: A,
        of: (u64, String),
        format: Format,
    ) -> Self {
        let (version, last) = of;
        Loaded {
            state,
            version,
            last,
            snapshot: version,
            ..Loaded::new(id, format)
        }
    }

    /// Its address.
    pub fn id(&self) -> &AggregateId {
        &self.id
    }

    /// The state, after all events, stored or not.
    pub fn state(&self) -> &A {
        &self.state
    }

    /// The version as it is stored, as far as is known here; 0 where it is not.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether any of its events is stored, as far as is known here.
    pub fn exists(&self) -> bool {
        self.version > 0
    }

    /// The events that are not known to be stored.
    pub fn uncommitted(&self) -> &[Envelope] {
        &self.uncommitted
    }

    /// Has an event happen: the state is the one after it, and the next save stores it.
    ///
    /// # Errors
    /// Where it can't be encoded; then it has not happened. Where it panics when it is applied; then nothing of this
    /// aggregate is saved, and it is to be loaded anew.
    pub fn record(&mut self, event: impl Into<A::Event>) -> Result<()> {
        self.check()?;
        let event = event.into();
        let envelope = event.encode(self.format)?;
        let event_type = envelope.event_type().to_owned();
        self.uncommitted.push(with_id(envelope));
        if let Err(why) = catch_panic("applied,", || self.state.apply(event)) {
            self.uncommitted.pop();
            self.broken = Some(format!("{event_type} can't happen to {}: {why}", self.id));
        }
        self.check()
    }

    /// Makes sure that the state is one.
    pub(super) fn check(&self) -> Result<()> {
        match &self.broken {
            None => Ok(()),
            Some(why) => Err(Error::new(ErrorKind::Codec, why)),
        }
    }

    /// The state, and nothing else.
    pub fn into_state(self) -> A {
        self.state
    }

    /// The id of the stored event at its version; empty where there is none.
    pub(super) fn last(&self) -> &str {
        &self.last
    }

    /// One more stored event.
    pub(super) fn apply(&mut self, version: u64, event: A::Event) {
        self.state.apply(event);
        self.version = version;
    }

    /// The stored event at its version is this one.
    pub(super) fn is_at(&mut self, last: &Envelope) {
        self.last = last.id().into_owned();
    }

    /// What happened is stored, up to this version.
    pub(super) fn committed(&mut self, version: u64) {
        if let Some(last) = std::mem::take(&mut self.uncommitted).pop() {
            self.is_at(&last);
        }
        self.version = version;
    }
}
