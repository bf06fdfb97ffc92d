//! Snapshots: an aggregate's state as of one of its events, so that those before it need not be applied again. Only ever
//! a shortcut: what can't be used is passed over, and what can't be kept is not missed.
//!
//! One is used where its event is (still) the aggregate's: so it is loaded with the event it is of, which tells.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::EventStore;
use super::aggregate::Aggregate;
use super::batch::MOST_EVENT_BYTES;
use super::caught::caught;
use super::id::AggregateId;
use super::loaded::Loaded;
use super::repository::Repository;
use crate::codec::{self, Format};
use crate::error::{Error, ErrorKind, Result, chain};

/// An aggregate's state as of one of its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The version it is of.
    pub version: u64,
    /// The id of the event at that version.
    pub event: String,
    /// [`Aggregate::SNAPSHOT_VERSION`].
    pub schema: u32,
    /// The state, as MessagePack with its fields' names.
    pub state: Vec<u8>,
}

/// How a repository takes snapshots.
pub(super) struct Snapshots<A> {
    every: u64,
    encode: fn(&A) -> Result<Vec<u8>>,
    decode: fn(&[u8]) -> Option<A>,
    has_said_too_large: AtomicBool,
}

impl<A> Snapshots<A>
where
    A: Aggregate + Serialize + DeserializeOwned,
{
    fn new(every: u64) -> Self {
        Snapshots {
            every: every.max(1),
            encode: |state| {
                caught("written,", || codec::encode(Format::MessagePack, state))
                    .unwrap_or_else(|why| Err(Error::new(ErrorKind::Codec, why)))
            },
            decode: decode::<A>,
            has_said_too_large: AtomicBool::new(false),
        }
    }
}

/// The state in a snapshot.
pub(super) fn decode<A: DeserializeOwned>(state: &[u8]) -> Option<A> {
    let read = || codec::decode(codec::MSGPACK.as_bytes(), state).ok();
    caught("read,", read).ok().flatten()
}

impl<A: Aggregate, S: EventStore> Repository<A, S> {
    /// The same, keeping a snapshot of an aggregate whenever it has been loaded or saved with `every` or more events
    /// (at least one) since its last. Loading begins at the snapshot then.
    ///
    /// The state and the version are the same with snapshots and without; only time is spared. They are worth it for
    /// aggregates of more than some hundreds of events. See [`Aggregate::SNAPSHOT_VERSION`].
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
