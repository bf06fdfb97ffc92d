//! Loads aggregates and saves them, with optimistic concurrency.

use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::aggregate::{Aggregate, AggregateEvent, assert_sound};
use super::append::{Append, AppendError, Appended};
use super::batch::MOST_EVENT_BYTES;
use super::decode::{apply, decode};
use super::loaded::Loaded;
use super::redis::RedisEventStore;
use super::snapshot::{Snapshot, Snapshots};
use super::store::{EventStore, Events};
use crate::aggregate_id::AggregateId;
use crate::codec::Format;
use crate::conflict::Expected;
use crate::error::{Error, ErrorKind, Result, chain};
use crate::event::Envelope;
use crate::event::Event;
use crate::failure::Failure;
use crate::retry::Backoff;
use crate::sync::{read, write};
use crate::upcast::Upcasters;

/// How long an update waits after a conflict: not long, for others have just been done. Where 16 write one aggregate, a
/// quarter of it makes some of them give up, and ten times as much has all of them wait for nothing.
const BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(2),
    factor: 1.5,
    max: Duration::from_millis(30),
    jitter: 1.0,
};

/// How often an update tries, where nothing else is said.
const TRIES: u32 = 16;

/// The aggregates of one kind. Cheap to clone where its store is.
pub struct Repository<A, S = RedisEventStore> {
    store: S,
    pub(super) format: Format,
    pub(super) tries: u32,
    pub(super) backoff: Backoff,
    upcasters: Arc<RwLock<Upcasters>>,
    pub(super) snapshots: Option<Arc<Snapshots<A>>>,
    of: PhantomData<fn() -> A>,
}

impl<A, S: fmt::Debug> fmt::Debug for Repository<A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository")
            .field("store", &self.store)
            .field("format", &self.format)
            .field("tries", &self.tries)
            .field("backoff", &self.backoff)
            .finish_non_exhaustive()
    }
}

impl<A: Aggregate, S: EventStore> Repository<A, S> {
    /// The aggregates of a store.
    pub fn new(store: S) -> Self {
        const { assert_sound::<A>() };
        Repository {
            store,
            format: Format::default(),
            tries: TRIES,
            backoff: BACKOFF,
            upcasters: Arc::default(),
            snapshots: None,
            of: PhantomData,
        }
    }

    /// The same, encoding events as `format` (MessagePack where this is not called).
    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// The same, whose updates try so often, at least once (16 times where this is not called), and wait so after a
    /// conflict.
    #[must_use]
    pub fn tries(mut self, tries: u32, backoff: Backoff) -> Self {
        self.tries = tries.max(1);
        self.backoff = backoff;
        self
    }

    /// The same, with a step that brings events from version `from` to the next before they are applied: see
    /// [`Registry::upcast`](crate::Registry::upcast).
    #[track_caller]
    #[must_use]
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
        write(&self.upcasters).add(E::TYPE, E::VERSION, from, place, step);
        self
    }

    /// The same, with these upcasters.
    pub(crate) fn with_upcasters(mut self, upcasters: Arc<RwLock<Upcasters>>) -> Self {
        self.upcasters = upcasters;
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
        let upcasters = read(&self.upcasters);
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
    /// Where the id is not one, the store can't be read, or one of the events is missing, can't be read, or panics when it
    /// is applied.
    pub async fn load(&self, id: &str) -> Result<Loaded<A>> {
        let id = self.id(id)?;
        if let Some(mut loaded) = self.as_of_snapshot(&id).await {
            if self.catch_up(&mut loaded).await? {
                return Ok(loaded);
            }
            tracing::debug!(aggregate = %id, "the snapshot is of another aggregate, which was here before");
        }
        let mut loaded = Loaded::new(id.clone(), self.format);
        self.apply_all(&mut loaded, self.store.read(&id, 1)).await?;
        Ok(loaded)
    }

    /// Applies what has been stored since. False where the aggregate's event at that version is another, or none: then
    /// it is not the one that was loaded, but one of the same name.
    pub(super) async fn catch_up(&self, loaded: &mut Loaded<A>) -> Result<bool> {
        let version = loaded.version();
        let mut events = self.store.read(loaded.id(), version.max(1));
        if version > 0 {
            match events.next().await {
                Ok(Some(first)) if first.envelope.id() == loaded.last() => {}
                _ => return Ok(false),
            }
        }
        self.apply_all(loaded, events).await?;
        Ok(true)
    }

    /// Applies the events that follow.
    async fn apply_all(&self, loaded: &mut Loaded<A>, mut events: Events<'_, S>) -> Result<()> {
        let mut last = None;
        while let Some(stored) = events.next().await? {
            let event = decode::<A>(&self.upcasters, loaded.id(), &stored)?;
            let id = loaded.id().clone();
            apply(&id, &stored, || loaded.apply(stored.version, event))?;
            last = Some(stored.envelope);
        }
        if let Some(last) = last {
            loaded.is_at(&last);
            self.take_snapshot(loaded).await;
        }
        Ok(())
    }

    /// Saves what has happened to an aggregate since it was loaded, if nothing else has. Answers what became of the
    /// events, None where there were none. If it fails they stay uncommitted, and saving can be repeated.
    ///
    /// # Errors
    /// As [`EventStore::append`].
    pub async fn save(&self, loaded: &mut Loaded<A>) -> Result<Option<Appended>, AppendError> {
        loaded.check()?;
        let events = loaded.uncommitted();
        if events.is_empty() {
            return Ok(None);
        }
        let appended = self.append_to(loaded, events).await?;
        loaded.committed(appended.version());
        self.take_snapshot(loaded).await;
        Ok(Some(appended))
    }

    /// Stores events behind those that were loaded.
    pub(super) async fn append_to(
        &self,
        loaded: &Loaded<A>,
        events: &[Envelope],
    ) -> Result<Appended, AppendError> {
        let expected = Expected::Exact(loaded.version());
        let mut append = Append::new(loaded.id().clone(), events.to_vec(), expected);
        append.fresh = true;
        let mut appended = self.store.append_all(vec![append]).await?;
        Ok(appended.pop().expect("one was asked for"))
    }
}

impl<A: Aggregate, S: EventStore> Repository<A, S> {
    /// The same, keeping a snapshot of an aggregate whenever it has been loaded or saved with `every` or more events
    /// (at least one) since its last. Loading begins at the snapshot then.
    ///
    /// The state and the version are the same with snapshots and without; only time is spared. They are worth it for
    /// aggregates of more than some hundreds of events. See [`Aggregate::SNAPSHOT_VERSION`].
    #[must_use]
    pub fn snapshots(mut self, every: u64) -> Self
    where
        A: Serialize + DeserializeOwned,
    {
        self.snapshots = Some(Arc::new(Snapshots::new(every)));
        self
    }

    /// The aggregate as of its snapshot, where there is one that can be used.
    pub(super) async fn as_of_snapshot(&self, id: &AggregateId) -> Option<Loaded<A>> {
        let snapshots = self.snapshots.as_ref()?;
        let snapshot = match self.store().snapshot(id).await {
            Ok(snapshot) => snapshot?,
            Err(error) => {
                tracing::debug!(aggregate = %id, error = chain(&error), "the snapshot can't be read");
                return None;
            }
        };
        let (schema, version) = (snapshot.schema, snapshot.version);
        if schema != A::SNAPSHOT_VERSION {
            tracing::debug!(aggregate = %id, schema, "the snapshot is of another schema");
            return None;
        }
        let Some(state) = (snapshots.decode)(&snapshot.state) else {
            tracing::debug!(aggregate = %id, version, "the snapshot does not decode");
            return None;
        };
        let of = (version, snapshot.event);
        Some(Loaded::from_snapshot(id.clone(), state, of, self.format))
    }

    /// Keeps a snapshot, where it is time to.
    pub(super) async fn take_snapshot(&self, loaded: &mut Loaded<A>) {
        let Some(snapshots) = &self.snapshots else {
            return;
        };
        let (id, version) = (loaded.id().clone(), loaded.version());
        if version.saturating_sub(loaded.snapshot) < snapshots.every {
            return;
        }
        // Where it fails, the next time is `every` events later.
        loaded.snapshot = version;
        let state = match (snapshots.encode)(loaded.state()) {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(aggregate = %id, error = chain(&error), "no snapshot is kept");
                return;
            }
        };
        let bytes = state.len();
        if bytes > MOST_EVENT_BYTES {
            if !snapshots.has_said_too_large.swap(true, Ordering::Relaxed) {
                tracing::warn!(aggregate = %id, bytes, most = MOST_EVENT_BYTES,
                    "no snapshot is kept of states this large");
            }
            return;
        }
        let snapshot = Snapshot {
            version,
            event: loaded.last().to_owned(),
            schema: A::SNAPSHOT_VERSION,
            state,
        };
        match self.store().keep_snapshot(&id, snapshot).await {
            Ok(kept) => tracing::debug!(aggregate = %id, version, kept, "a snapshot"),
            Err(error) => {
                tracing::warn!(aggregate = %id, error = chain(&error), "no snapshot is kept");
            }
        }
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
            snapshots: self.snapshots.clone(),
            of: PhantomData,
        }
    }
}
