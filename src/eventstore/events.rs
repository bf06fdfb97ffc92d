//! Events as they are stored, and how many of them make a page.

use super::batch::POSITION;
use crate::aggregate_id::AggregateId;
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

/// How far the pages of an aggregate's events are, and how many entries the next one is to have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paging {
    /// The version that comes next.
    next: u64,
    most: usize,
    is_last_page: bool,
}

impl Paging {
    /// Begins at this version.
    pub fn new(from: u64) -> Self {
        Paging {
            next: from.max(1),
            most: FIRST,
            is_last_page: false,
        }
    }

    /// The version that the next page begins at, and how many entries to ask for; None behind the last page.
    pub fn ask(&self) -> Option<(u64, usize)> {
        (!self.is_last_page).then_some((self.next, self.most))
    }

    /// Takes from a page what lies behind a gap, which is told when its turn comes, and goes on behind the rest.
    ///
    /// # Errors
    /// If the page begins behind a gap: what would be made of the others is not the aggregate.
    pub fn take(&mut self, aggregate: &AggregateId, page: &mut Vec<StoredEvent>) -> Result<()> {
        let follows = |(event, version): &(&StoredEvent, u64)| event.version == *version;
        let whole = page.iter().zip(self.next..).take_while(follows).count();
        if whole == 0
            && let Some(event) = page.first()
        {
            let (next, before) = (self.next, event.version - 1);
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("{aggregate} lacks its events {next} to {before}"),
            ));
        }
        self.is_last_page = page.len() < self.most && whole == page.len();
        self.most = next_page(page.iter().map(StoredEvent::size));
        page.truncate(whole);
        self.next += whole as u64;
        Ok(())
    }
}
