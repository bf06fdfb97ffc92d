//! Loads aggregates, changes them and saves them, with optimistic concurrency.

use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::EventStore;
use super::aggregate::{Aggregate, AggregateEvent, EventData, are_distinct};
use super::append::{AppendError, Appended, Expected};
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
    tries: u32,
    backoff: Backoff,
    upcasters: Arc<RwLock<Upcasters>>,
    of: PhantomData<fn() -> A>,
}

/// Why an update was not done.
#[derive(Debug)]
#[non_exhaustive]
pub enum UpdateError<E> {
    /// What was to decide refused.
    Refused(E),
    /// The aggregate can't be loaded, or the events can't be stored. A conflict where all tries met one.
    Failed(AppendError),
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
        let appended = self.store.append(loaded.id(), events, expected).await?;
        loaded.committed(appended.version());
        Ok(Some(appended))
    }

    /// Changes an aggregate: loads it, has `decide` say what happens, and saves that. On a conflict all of it is done
    /// again, on the state as it is by then; where the answer to a save got lost the save alone is repeated. After a
    /// bounded number of tries it gives up with the last error. Answers the aggregate after its new events.
    ///
    /// # Errors
    /// Where `decide` refuses, and as [`load`](Self::load) and [`save`](Self::save).
    pub async fn update<E>(
        &self,
        id: &str,
        mut decide: impl FnMut(&A) -> Result<Vec<A::Event>, E>,
    ) -> Result<Loaded<A>, UpdateError<E>> {
        let mut failed = 0;
        'anew: loop {
            let mut loaded = self.load(id).await?;
            for event in decide(loaded.state()).map_err(UpdateError::Refused)? {
                loaded.record(event)?;
            }
            loop {
                let error = match self.save(&mut loaded).await {
                    Ok(_) => return Ok(loaded),
                    Err(error) => error,
                };
                failed += 1;
                let is_conflict = error.conflict().is_some();
                if failed >= self.tries || !(is_conflict || is_in_doubt(&error)) {
                    return Err(UpdateError::Failed(error));
                }
                tokio::time::sleep(self.backoff.delay(failed, fastrand::f64())).await;
                if is_conflict {
                    continue 'anew;
                }
            }
        }
    }

    fn decode(&self, id: &AggregateId, stored: &StoredEvent) -> Result<A::Event> {
        let envelope = &stored.envelope;
        let (event_type, version) = (envelope.event_type(), envelope.version());
        let wrong = |why: String| {
            let at = stored.version;
            let message = format!("event {at} of {id} ({event_type} in version {version}): {why}");
            Error::new(ErrorKind::Codec, message)
        };
        let kinds = A::Event::KINDS;
        let kind = kinds
            .iter()
            .find(|kind| kind.event_type == event_type)
            .ok_or_else(|| wrong(format!("{} has no events of this type", A::KIND)))?;
        if version > kind.version {
            return Err(wrong(format!(
                "this release knows versions up to {}",
                kind.version
            )));
        }
        let upcast = match version == kind.version {
            true => None,
            false => {
                let upcasters = self.upcasters.read().expect("no panic while it is locked");
                upcasters
                    .upcast(envelope)
                    .map_err(|failure| wrong(failure.to_string()))?
            }
        };
        let data = EventData {
            content_type: envelope.content_type(),
            data: upcast.as_deref().unwrap_or(envelope.data()),
        };
        A::Event::decode(event_type, data)
            .ok_or_else(|| wrong("it is not decoded".to_owned()))?
            .map_err(|error| wrong(error.to_string()))
    }
}

/// Whether the events may be stored all the same.
fn is_in_doubt(error: &AppendError) -> bool {
    matches!(error, AppendError::Failed(error) if error.kind() == ErrorKind::Unreachable)
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

impl<E> UpdateError<E> {
    /// The conflict that every try met, where it is one.
    pub fn conflict(&self) -> Option<&super::Conflict> {
        match self {
            UpdateError::Failed(error) => error.conflict(),
            UpdateError::Refused(_) => None,
        }
    }
}

impl<E> From<Error> for UpdateError<E> {
    fn from(error: Error) -> Self {
        UpdateError::Failed(error.into())
    }
}

impl<E: fmt::Display> fmt::Display for UpdateError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpdateError::Refused(error) => error.fmt(f),
            UpdateError::Failed(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for UpdateError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            UpdateError::Refused(_) => None,
            UpdateError::Failed(error) => error.source(),
        }
    }
}
