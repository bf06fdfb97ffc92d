//! Aggregates in this process' memory, for tests: the same contract, no Redis.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use super::EventStore;
use super::append::{Append, AppendError, Appended};
use super::batch::{POSITION, VERSION, prepare};
use super::events::StoredEvent;
use super::public::PublicStreams;
use super::snapshot::Snapshot;
use crate::aggregate_id::AggregateId;
use crate::conflict::{Conflict, Expected, Overlap};
use crate::error::Result;
use crate::event::{Entry, EntryId, Envelope};
use crate::fields::Fields;
use crate::sync::lock;

/// Keeps aggregates in memory, for tests, as [`RedisEventStore`](super::RedisEventStore) does in Redis. Clones share
/// what is kept.
///
/// ```
/// use streamhand::Envelope;
/// use streamhand::eventstore::{EventStore, Expected, MemoryEventStore, PublicStreams};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryEventStore::new(PublicStreams::new("orders")?);
/// let order = "order:o-1".parse()?;
/// let created = Envelope::new("order.created").json(&"o-1")?;
/// assert_eq!(store.append(&order, vec![created], Expected::NoStream).await?.version(), 1);
/// assert_eq!(store.published("orders")[0].subject(), Some("order:o-1"));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MemoryEventStore {
    public: PublicStreams,
    kept: Arc<Mutex<Kept>>,
}

impl fmt::Debug for MemoryEventStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryEventStore")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Kept {
    aggregates: HashMap<AggregateId, Vec<StoredEvent>>,
    public: HashMap<String, Vec<Envelope>>,
    snapshots: HashMap<AggregateId, Snapshot>,
}

/// What an append to one aggregate comes to.
enum Place {
    New,
    /// The events are there already, the first one after this many others.
    Repeat(usize),
}

impl MemoryEventStore {
    /// A store without aggregates.
    pub fn new(public: PublicStreams) -> Self {
        MemoryEventStore {
            public,
            kept: Arc::default(),
        }
    }

    /// What has been put on a public stream, oldest first.
    pub fn published(&self, stream: &str) -> Vec<Envelope> {
        self.lock().public.get(stream).cloned().unwrap_or_default()
    }

    /// The streams on which others are told of the events.
    pub fn public(&self) -> &PublicStreams {
        &self.public
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        lock(&self.kept)
    }
}

impl EventStore for MemoryEventStore {
    async fn append_all(&self, appends: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        let appends = prepare(&self.public, appends)?;
        let stream = self.public.of(&appends[0].aggregate);
        let mut kept = self.lock();
        let places = appends
            .iter()
            .map(|append| place(kept.events(&append.aggregate), append))
            .collect::<Result<Vec<_>, _>>()?;
        let is_new = places.iter().all(|place| matches!(place, Place::New));
        for (append, place) in appends.iter().zip(&places) {
            if !is_new && matches!(place, Place::New) {
                return Err(overlap(append, kept.events(&append.aggregate)));
            }
            if let Place::Repeat(after) = place {
                let stored = &kept.events(&append.aggregate)[*after..];
                let stored = stored.iter().map(|event| event.envelope.fields());
                append.is_what_was_stored(*after as u64 + 1, stored)?;
            }
        }
        let appended = appends
            .into_iter()
            .zip(places)
            .map(|(append, place)| match place {
                Place::New => kept.store(stream, append),
                Place::Repeat(after) => {
                    let stored = &kept.events(&append.aggregate)[after..];
                    Appended {
                        first: after as u64 + 1,
                        positions: stored[..append.events.len()]
                            .iter()
                            .map(|event| event.position)
                            .collect(),
                        is_new: false,
                    }
                }
            });
        Ok(appended.collect())
    }

    async fn page(
        &self,
        aggregate: &AggregateId,
        from: u64,
        most: usize,
    ) -> Result<Vec<StoredEvent>> {
        let skip = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
        let kept = self.lock();
        Ok(kept
            .events(aggregate)
            .iter()
            .skip(skip)
            .take(most)
            .cloned()
            .collect())
    }

    async fn version(&self, aggregate: &AggregateId) -> Result<u64> {
        Ok(self.lock().events(aggregate).len() as u64)
    }

    async fn snapshot(&self, aggregate: &AggregateId) -> Result<Option<Snapshot>> {
        Ok(self.lock().snapshots.get(aggregate).cloned())
    }

    async fn keep_snapshot(&self, aggregate: &AggregateId, snapshot: Snapshot) -> Result<bool> {
        let mut kept = self.lock();
        let is_older = kept.snapshots.get(aggregate).is_some_and(|newer| {
            newer.schema == snapshot.schema
                && newer.version > snapshot.version
                && kept.has_event(aggregate, newer)
        });
        if is_older || !kept.has_event(aggregate, &snapshot) {
            return Ok(false);
        }
        kept.snapshots.insert(aggregate.clone(), snapshot);
        Ok(true)
    }
}

impl Kept {
    fn events(&self, aggregate: &AggregateId) -> &[StoredEvent] {
        self.aggregates
            .get(aggregate)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// Whether the event that a snapshot is of is there.
    fn has_event(&self, aggregate: &AggregateId, snapshot: &Snapshot) -> bool {
        let at = usize::try_from(snapshot.version)
            .ok()
            .and_then(|version| version.checked_sub(1));
        at.and_then(|at| self.events(aggregate).get(at))
            .is_some_and(|event| event.envelope.id() == snapshot.event)
    }

    fn store(&mut self, stream: &str, append: Append) -> Appended {
        let events = self.aggregates.entry(append.aggregate).or_default();
        let public = self.public.entry(stream.to_owned()).or_default();
        let first = events.len() as u64 + 1;
        let mut positions = Vec::with_capacity(append.events.len());
        for event in append.events {
            let version = events.len() as u64 + 1;
            let position = EntryId {
                ms: public.len() as u64 + 1,
                seq: 0,
            };
            public.push(kept_as(position, VERSION, version.to_string(), &event));
            let id = EntryId {
                ms: version,
                seq: 0,
            };
            events.push(StoredEvent {
                version,
                position,
                envelope: kept_as(id, POSITION, position.to_string(), &event),
            });
            positions.push(position);
        }
        Appended {
            first,
            positions,
            is_new: true,
        }
    }
}

/// An event as an entry with one field more, in front as the script has it.
fn kept_as(id: EntryId, name: &str, value: String, event: &Envelope) -> Envelope {
    let mut fields: Fields = [(name, value)].into_iter().collect();
    fields.extend(event.fields());
    Envelope::decode(Entry { id, fields }).unwrap_or_else(|_| unreachable!("it was an event"))
}

/// Where events stand, or would: the rules of the script, once more.
fn place(stored: &[StoredEvent], append: &Append) -> Result<Place, AppendError> {
    let (version, count) = (stored.len(), append.events.len());
    let ids: HashSet<_> = append.events.iter().map(|event| event.id()).collect();
    let is_last = stored
        .last()
        .is_some_and(|last| ids.contains(&last.envelope.id()));
    let after = match append.expected {
        Expected::Exact(version) => i128::from(version),
        Expected::NoStream => 0,
        Expected::Exists if version == 0 => return Err(conflict(append, version)),
        Expected::Exists | Expected::Any if is_last => version as i128 - count as i128,
        Expected::Exists | Expected::Any => version as i128,
    };
    match after.cmp(&(version as i128)) {
        std::cmp::Ordering::Greater => return Err(conflict(append, version)),
        std::cmp::Ordering::Equal if is_last => return Err(overlap(append, stored)),
        std::cmp::Ordering::Equal => return Ok(Place::New),
        std::cmp::Ordering::Less => {}
    }
    let there = |place: i128| {
        usize::try_from(place)
            .ok()
            .and_then(|place| stored.get(place))
    };
    let found: Vec<_> = (0..count)
        .map(|i| there(after + i as i128).map(|event| event.envelope.id()))
        .collect();
    if found
        .iter()
        .zip(&append.events)
        .all(|(found, event)| *found == Some(event.id()))
    {
        Ok(Place::Repeat(after as usize))
    } else if found.iter().flatten().any(|id| ids.contains(id)) {
        Err(overlap(append, stored))
    } else {
        Err(conflict(append, version))
    }
}

fn conflict(append: &Append, version: usize) -> AppendError {
    AppendError::Conflict(Conflict {
        aggregate: append.aggregate.clone(),
        expected: append.expected,
        actual: version as u64,
    })
}

fn overlap(append: &Append, stored: &[StoredEvent]) -> AppendError {
    AppendError::Overlap(Overlap {
        aggregate: append.aggregate.clone(),
        actual: stored.len() as u64,
    })
}
