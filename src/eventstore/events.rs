//! Events as they are stored, and reading them page by page.

use std::collections::VecDeque;

use super::EventStore;
use super::batch::POSITION;
use super::id::AggregateId;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Entry, EntryId, Envelope};

/// Most entries of a page.
const MOST: usize = 512;

/// How many entries there are in the first page: nobody knows yet how large they are.
pub(super) const FIRST: usize = 64;

/// Bytes that a page is to have, going by the one before: events of 1 MiB come a few at a time.
const PAGE_BYTES: usize = 2 << 20;

/// How many entries the page behind one with entries of these sizes is to have.
pub(super) fn next_page(sizes: impl ExactSizeIterator<Item = usize>) -> usize {
    let count = sizes.len();
    (PAGE_BYTES * count / sizes.sum::<usize>().max(1)).clamp(1, MOST)
}

/// One event of an aggregate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredEvent {
    /// Its version: 1 for the first event, and one more for each after it.
    pub version: u64,
    /// Where it stands on the public stream, whether or not it is still there.
    pub position: EntryId,
    /// The event.
    pub envelope: Envelope,
}

impl StoredEvent {
    /// One that is not stored yet.
    pub(crate) fn new(version: u64, envelope: Envelope) -> Self {
        StoredEvent {
            version,
            position: EntryId::default(),
            envelope,
        }
    }

    /// Bytes of its fields.
    pub(super) fn size(&self) -> usize {
        self.envelope.fields().size()
    }

    /// Reads an entry of an aggregate's stream.
    pub(super) fn decode(aggregate: &AggregateId, entry: Entry) -> Result<Self> {
        let id = entry.id;
        let wrong = |why: String| {
            let message = format!("entry {id} of {aggregate} is none of its events: {why}");
            Error::new(ErrorKind::Codec, message)
        };
        if id.seq != 0 {
            return Err(wrong("its id is no version".to_owned()));
        }
        let position = entry.fields.value(POSITION).and_then(EntryId::parse);
        let position = position.ok_or_else(|| wrong("it has no position".to_owned()))?;
        let envelope = Envelope::decode(entry).map_err(|(_, error)| wrong(error.to_string()))?;
        Ok(StoredEvent {
            version: id.ms,
            position,
            envelope,
        })
    }
}

/// Reads an aggregate's events, oldest first. A page at a time is in memory.
pub struct Events<'a, S> {
    store: &'a S,
    aggregate: AggregateId,
    page: VecDeque<StoredEvent>,
    /// The version that comes next.
    next: u64,
    most: usize,
    is_last_page: bool,
}

impl<'a, S: EventStore> Events<'a, S> {
    pub(super) fn new(store: &'a S, aggregate: AggregateId, from: u64) -> Self {
        Events {
            store,
            aggregate,
            page: VecDeque::new(),
            next: from.max(1),
            most: FIRST,
            is_last_page: false,
        }
    }

    /// The next event, None behind the last one.
    ///
    /// # Errors
    /// Where the store can't be read, or an event is missing or unreadable: what would be made of the others is not the
    /// aggregate.
    pub async fn next(&mut self) -> Result<Option<StoredEvent>> {
        if self.page.is_empty() && !self.is_last_page {
            self.turn_page().await?;
        }
        let Some(event) = self.page.pop_front() else {
            return Ok(None);
        };
        if event.version != self.next {
            let (aggregate, next) = (&self.aggregate, self.next);
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "{aggregate} lacks its events {next} to {}",
                    event.version - 1
                ),
            ));
        }
        self.next += 1;
        Ok(Some(event))
    }

    async fn turn_page(&mut self) -> Result<()> {
        let page = self
            .store
            .page(&self.aggregate, self.next, self.most)
            .await?;
        self.is_last_page = page.len() < self.most;
        self.most = next_page(page.iter().map(StoredEvent::size));
        self.page = page.into();
        Ok(())
    }
}
