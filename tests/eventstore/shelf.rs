//! A store as tests see it, whichever it is, and what they put there.

use streamhand::Envelope;
use streamhand::eventstore::{
    AggregateId, AppendError, Appended, EventStore, MemoryEventStore, PublicStreams, StoredEvent,
};

/// A store, and what others are told.
pub trait Shelf {
    type Store: EventStore;

    fn store(&self) -> &Self::Store;

    async fn published(&self, stream: &str) -> Vec<Envelope>;
}

impl Shelf for MemoryEventStore {
    type Store = Self;

    fn store(&self) -> &Self {
        self
    }

    async fn published(&self, stream: &str) -> Vec<Envelope> {
        MemoryEventStore::published(self, stream)
    }
}

pub fn orders() -> PublicStreams {
    PublicStreams::new("orders").unwrap()
}

pub fn order(id: &str) -> AggregateId {
    AggregateId::new("order", id).unwrap()
}

/// An event by its id.
pub fn event(id: &str) -> Envelope {
    Envelope::new("order.changed")
        .with("id", id)
        .json(&serde_json::json!({ "by": id }))
        .unwrap()
}

pub fn events(ids: &[&str]) -> Vec<Envelope> {
    ids.iter().map(|id| event(id)).collect()
}

pub async fn stored<S: EventStore>(
    store: &S,
    aggregate: &AggregateId,
    from: u64,
) -> Vec<StoredEvent> {
    let (mut reading, mut all) = (store.read(aggregate, from), Vec::new());
    while let Some(event) = reading.next().await.unwrap() {
        all.push(event);
    }
    all
}

/// Ids of all events of an aggregate.
pub async fn ids<S: EventStore>(store: &S, aggregate: &AggregateId) -> Vec<String> {
    stored(store, aggregate, 1)
        .await
        .iter()
        .map(|event| event.envelope.id().into_owned())
        .collect()
}

/// What an append came to, in few words.
pub fn said(result: &Result<Vec<Appended>, AppendError>) -> String {
    match result {
        Ok(all) => {
            let told = all.iter().map(|one| {
                format!(
                    "{:?} {}",
                    one.versions(),
                    if one.is_new { "new" } else { "again" }
                )
            });
            told.collect::<Vec<_>>().join(", ")
        }
        Err(AppendError::Conflict(conflict)) => format!("conflict: {conflict}"),
        Err(AppendError::Overlap(overlap)) => {
            format!("overlap: {} at {}", overlap.aggregate, overlap.actual)
        }
        Err(other) => format!("failed: {other}"),
    }
}
