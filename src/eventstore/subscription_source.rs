//! One source of a subscription: a partition of a category, or an aggregate. It knows how far it has come, and reads what
//! comes next.
//!
//! A category is read from its public stream as long as nothing behind the position has been taken from that, which
//! every read makes sure of. Where something may have been, its aggregates are read up to the end that the stream had in
//! the same step, and then the stream again: behind that end.

use std::collections::VecDeque;

use super::EventStore;
use super::batch::{POSITION, VERSION};
use super::category::{CategoryEvent, InTurn};
use super::events::{FIRST, StoredEvent, next_page};
use super::redis::RedisEventStore;
use crate::aggregate_id::AggregateId;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Entry, EntryId, Envelope};
use crate::fields::Fields;

/// A partition of a category.
pub(super) struct Partition {
    pub number: usize,
    kinds: Vec<String>,
    /// How far it has read.
    position: EntryId,
    /// How far that is among what the store ever published: others' entries may stand far ahead, and a stream that is made
    /// anew begins behind its events alone.
    kept: EntryId,
    /// The highest position of an event, as of the last read.
    reached: Option<EntryId>,
    /// How many entries had been added to the public stream up to the position, if that is known.
    added: Option<u64>,
    /// What has been read: where each entry stands, and the event, where it is one of the category.
    page: VecDeque<(EntryId, Option<CategoryEvent>)>,
    most: usize,
    history: Option<Box<InTurn>>,
    /// Where that history ends, and how many entries had been added up to there.
    end: (EntryId, u64),
}

/// An aggregate.
pub(super) struct One {
    pub id: AggregateId,
    version: u64,
    page: VecDeque<StoredEvent>,
    most: usize,
}

impl Partition {
    pub fn new(number: usize, kinds: Vec<String>, position: EntryId) -> Self {
        Partition {
            number,
            kinds,
            position,
            kept: position,
            reached: None,
            added: None,
            page: VecDeque::new(),
            most: FIRST,
            history: None,
            end: (EntryId::default(), 0),
        }
    }

    /// Where it can be gone on from, whatever becomes of the public stream.
    pub fn kept(&self) -> EntryId {
        self.kept
    }

    /// How far the public stream has been read.
    pub fn read_to(&self) -> EntryId {
        self.position
    }

    fn passes(&mut self, position: EntryId) {
        self.position = position;
        let reached = self.reached.unwrap_or(position);
        self.kept = position.min(reached).max(self.kept);
    }

    /// What has been read and not been told yet, or is to be read from the aggregates.
    pub fn has_some(&self) -> bool {
        !self.page.is_empty() || self.history.is_some()
    }

    /// The next event, None if there is none yet.
    pub async fn next(&mut self, store: &RedisEventStore) -> Result<Option<CategoryEvent>> {
        loop {
            if let Some(history) = &mut self.history {
                if let Some(event) = history.next().await? {
                    self.passes(event.stored.position);
                    return Ok(Some(event));
                }
                // Those and no others stand at or below the end.
                self.history = None;
                self.passes(self.end.0.max(self.position));
                self.added = Some(self.end.1);
            }
            while let Some((position, event)) = self.page.pop_front() {
                self.passes(position);
                if event.is_some() {
                    return Ok(event);
                }
            }
            self.read(store).await?;
            if !self.has_some() {
                return Ok(None);
            }
        }
    }

    async fn read(&mut self, store: &RedisEventStore) -> Result<()> {
        let public = store.public().partition_keys(self.number)?;
        let mut along = store
            .line
            .read_along(public, self.position, self.added, self.most)
            .await?;
        if along.is_behind_all && self.kept < self.position {
            // It was made anew, behind the last event and below what others had put there.
            (self.position, self.added) = (self.kept, None);
            along = store
                .line
                .read_along(public, self.position, None, self.most)
                .await?;
        }
        if along.is_behind_all {
            let message = format!(
                "{} ends at {}, and was read up to {} before: it was made anew, or what was on it is lost, and events \
                 that were stored since may stand below that; read from an earlier position",
                public.stream, along.end, self.position
            );
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        self.reached = along.reached;
        if !along.is_complete {
            let (kinds, end) = (self.kinds.clone(), Some(along.end));
            let history = InTurn::new(store.clone(), self.number, kinds, self.position, end);
            self.history = Some(Box::new(history));
            self.end = (along.end, along.added);
            return Ok(());
        }
        let count = along.entries.len();
        // None of those between has been taken away, so they are as many as were added.
        self.added = match self.added {
            _ if along.is_to_end => Some(along.added),
            known => known.map(|known| known + count as u64),
        };
        self.most = next_page(along.entries.iter().map(Entry::size));
        let told = |entry: Entry| (entry.id, self.event(store, entry));
        self.page = along.entries.into_iter().map(told).collect();
        Ok(())
    }

    /// The event that an entry of the public stream tells of, as its aggregate has it.
    fn event(&self, store: &RedisEventStore, entry: Entry) -> Option<CategoryEvent> {
        let position = entry.id;
        let (name, version) = entry.fields.iter().next()?;
        // As the store writes it, and nobody else.
        if name != VERSION.as_bytes() {
            return None;
        }
        let version: u64 = std::str::from_utf8(version).ok()?.parse().ok()?;
        let mut fields: Fields = [(POSITION, position.to_string())].into_iter().collect();
        fields.extend(entry.fields.iter().skip(1));
        let id = EntryId {
            ms: version,
            seq: 0,
        };
        let envelope = Envelope::decode(Entry { id, fields }).ok()?;
        let aggregate: AggregateId = envelope.subject()?.parse().ok()?;
        let is_one = self.kinds.iter().any(|kind| kind == aggregate.kind())
            && store.public().partition(&aggregate) == self.number;
        is_one.then_some(CategoryEvent {
            aggregate,
            stored: StoredEvent {
                version,
                position,
                envelope,
            },
        })
    }
}

impl One {
    pub fn new(id: AggregateId, version: u64) -> Self {
        One {
            id,
            version,
            page: VecDeque::new(),
            most: FIRST,
        }
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// The next event, None if there is none yet.
    pub async fn next(&mut self, store: &RedisEventStore) -> Result<Option<CategoryEvent>> {
        if self.page.is_empty() {
            let page = store.page(&self.id, self.version + 1, self.most).await?;
            self.most = next_page(page.iter().map(StoredEvent::size));
            self.page = page.into();
        }
        let Some(stored) = self.page.front() else {
            return Ok(None);
        };
        let expected = self.version + 1;
        if stored.version != expected {
            self.page.clear();
            let message = format!("{} lacks its event {expected}", self.id);
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        self.version = expected;
        let aggregate = self.id.clone();
        Ok(self
            .page
            .pop_front()
            .map(|stored| CategoryEvent { aggregate, stored }))
    }
}
