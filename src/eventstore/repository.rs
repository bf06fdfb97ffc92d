//! Loads aggregates and saves them, with optimistic concurrency.

use std::marker::PhantomData;
use std::panic::Location;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::EventStore;
use super::aggregate::{Aggregate, AggregateEvent, are_distinct};
use super::append::{Append, AppendError, Appended, Expected};
use super::decode::decode;
use super::events::StoredEvent;
use super::id::{AggregateId, is_kind};
use super::loaded::Loaded;
use super::redis::RedisEventStore;
use crate::codec::Format;
use crate::error::{Error, ErrorKind, Result};
use crate::failure::Failure;
use crate::handler::{Event, Registry};
use crate::retry::Backoff;
use crate::upcast::Upcasters;

/// How long an update waits after a conflict: not long, for others have just been done.
const BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(4),
    factor: 1.6,
    max: Duration::from_millis(500),
    jitter: 1.0,
};

/// How often an update tries, where nothing else is said.
const TRIES: u32 = 16;

/// The aggregates of one kind. Cheap to clone where its store is.
pub struct Repository<A, S = RedisEventStore> {
    store: S,
    format: Format,
    pub(super) tries: u32,
    pub(super) backoff: Backoff,
    upcasters: Arc<RwLock<Upcasters>>,
    of: PhantomData<fn() -> A>,
}

impl<A: Aggregate, S: EventStore> Repository<A, S> {
    /// The aggregates of a store.
    pub fn new(store: S) -> Self {
        const {
            assert!(
                is_kind(A::KIND),
                "Aggregate::KIND is a word of a-z, 0-9, '_' and '-', like order"
            );
            assert!(
                are_distinct(<A::Event as AggregateEvent>::KINDS),
                "two events of an aggregate have the same Event::TYPE"
            );
        };
        Repository {
            store,
            format: Format::default(),
            tries: TRIES,
            backoff: BACKOFF,
            upcasters: Arc::default(),
            of: PhantomData,
        }
    }

    /// The same, encoding events as `format` (MessagePack where this is not called).
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// The same, whose updates try so often, at least once (16 times where this is not called), and wait so after a
    /// conflict.
    pub fn tries(mut self, tries: u32, backoff: Backoff) -> Self {
        self.tries = tries.max(1);
        self.backoff = backoff;
        self
    }

    /// The same, with a step that brings events from version `from` to the next before they are applied: see
    /// [`Registry::upcast`].
    #[track_caller]
    pub fn upcast<E, In, Out>(
        self,
        from: u32,
        step: impl Fn(In) -> Result<Out, Failure> + Send + Sync + 'static,
    ) -> Self
    where
        E: Event,
        In: DeserializeOwned,
        Out: Serialize,
    {
        let place = Location::caller();
        self.upcasters
            .write()
            .expect("no panic while it is locked")
            .add(E::TYPE, E::VERSION, from, place, step);
        self
    }

    /// The same, with the upcasters that a registry's handlers have.
    pub fn upcasters_of(mut self, registry: &Registry) -> Self {
        self.upcasters = registry.shared_upcasters();
        self
    }

    /// Makes sure that the upcasters lead, step by step, to versions of this aggregate's events.
    ///
    /// # Errors
    /// Where they do not: all that is wrong, each with its place.
    pub fn check(&self) -> Result<()> {
        let version_of = |event_type: &str| {
            let mut kinds = A::Event::KINDS.iter();
            kinds
                .find(|kind| kind.event_type == event_type)
                .map(|kind| kind.version)
        };
        let upcasters = self.upcasters.read().expect("no panic while it is locked");
        let problems = upcasters.problems(version_of);
        match problems.is_empty() {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Invalid, problems.join("\n"))),
        }
    }

    /// Where the events are kept.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The address of an aggregate of this kind.
    ///
    /// # Errors
    /// Where the id is not one.
    pub fn id(&self, id: &str) -> Result<AggregateId> {
        AggregateId::new(A::KIND, id)
    }

    /// Loads an aggregate: its state is the one after all its events. One that has none is at version 0.
    ///
    /// # Errors
    /// Where the id is not one, the store can't be read, or one of the events is missing or can't be read.
    pub async fn load(&self, id: &str) -> Result<Loaded<A>> {
        let id = self.id(id)?;
        let mut events = self.store.read(&id, 1);
        let mut loaded = Loaded::new(id, self.format);
        while let Some(stored) = events.next().await? {
            let event = self.decode(loaded.id(), &stored)?;
            loaded.apply(stored.version, event);
        }
        Ok(loaded)
    }

    /// Saves what has happened to an aggregate since it was loaded, if nothing else has. Answers what became of the
    /// events, None where there were none. If it fails they stay uncommitted, and saving can be repeated.
    ///
    /// # Errors
    /// As [`EventStore::append`].
    pub async fn save(&self, loaded: &mut Loaded<A>) -> Result<Option<Appended>, AppendError> {
        let events = loaded.uncommitted().to_vec();
        if events.is_empty() {
            return Ok(None);
        }
        let expected = Expected::Exact(loaded.version());
        let mut append = Append::new(loaded.id().clone(), events, expected);
        append.fresh = true;
        let appended = self.store.append_all(vec![append]).await?.pop();
        if let Some(appended) = &appended {
            loaded.committed(appended.version());
        }
        Ok(appended)
    }

    fn decode(&self, id: &AggregateId, stored: &StoredEvent) -> Result<A::Event> {
        let envelope = &stored.envelope;
        let (event_type, version) = (envelope.event_type(), envelope.version());
        let wrong = |why: String| {
            let at = stored.version;
            let message = format!("event {at} of {id} ({event_type} in version {version}): {why}");
            Error::new(ErrorKind::Codec, message)
        };
        decode(&self.upcasters, envelope)
            .map_err(&wrong)?
            .ok_or_else(|| wrong(format!("{} has no events of this type", A::KIND)))
    }
}

impl<A, S: Clone> Clone for Repository<A, S> {
    fn clone(&self) -> Self {
        Repository {
            store: self.store.clone(),
            format: self.format,
            tries: self.tries,
            backoff: self.backoff,
            upcasters: self.upcasters.clone(),
            of: PhantomData,
        }
    }
}
