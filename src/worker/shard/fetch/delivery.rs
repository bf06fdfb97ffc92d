//! What the parts of fetching return: entries that have come, with what is known of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::{Entry, EntryId};
use crate::metrics::entries::Via;
use crate::stream::{Delivered, Record, is_seal};
use crate::worker::run::verdict::Verdict;
use crate::worker::run::work::Past;
use crate::worker::state::inflight::{Coming, Slot};
use crate::worker::state::source::Source;

/// Entries of one stream that came in one reply.
pub(crate) struct Deliveries {
    pub source: Arc<Source>,
    pub via: Via,
    pub coming: Coming,
    /// When they were asked for: their lease begins then.
    pub since: Instant,
    pub entries: Vec<Delivery>,
}

/// Entries of one stream that were delivered and that nobody here has read: no handler sees them, they are only settled.
pub(crate) struct Unread {
    pub source: Arc<Source>,
    pub via: Via,
    pub coming: Coming,
    pub since: Instant,
    /// Each with how often it has been delivered.
    pub entries: Vec<(EntryId, u32)>,
    pub verdict: Verdict,
    pub attempt: u32,
}

/// How much one kind of fetching has brought.
#[derive(Clone, Copy)]
pub(crate) struct Taken {
    pub entries: usize,
    /// There is more of it, and it is worth asking again at once.
    pub more: bool,
}

/// Whether there is something to look for now.
pub(crate) enum Begin<Look> {
    /// This look is to be carried out.
    Look(Look),
    /// Nothing is taken: this is what that comes to.
    Not(Taken),
}

/// An entry that has just come.
pub(crate) struct Delivery {
    pub entry: Entry,
    count: u32,
    pub size: usize,
    pub past: Option<Box<Past>>,
}

impl Delivery {
    /// An entry that is new.
    pub fn new(entry: Entry) -> Self {
        let size = entry.size();
        Delivery {
            entry: unpacked(entry),
            count: 1,
            size,
            past: None,
        }
    }

    /// An entry that was delivered before; `now_ms` is the server's time.
    pub fn again(delivered: Delivered, now_ms: u64) -> Self {
        let Delivered {
            entry,
            count,
            record,
        } = delivered;
        let age = record
            .as_ref()
            .map_or(0, |record| now_ms.saturating_sub(record.first_ms));
        let past = Past {
            record,
            age: Duration::from_millis(age),
        };
        let size = entry.size();
        Delivery {
            entry: unpacked(entry),
            count,
            size,
            past: Some(Box::new(past)),
        }
    }

    /// One that comes as a new one and is not: it goes on at this delivery.
    pub fn going_on(entry: Entry, count: u32, record: Option<Record>, now_ms: u64) -> Self {
        let delivered = Delivered {
            entry,
            count,
            record,
        };
        Delivery::again(delivered, now_ms)
    }

    pub fn is_seal(&self) -> bool {
        is_seal(&self.entry)
    }

    /// Its place among what is held.
    pub fn slot(&self) -> Slot {
        let recorded = self.past.as_ref().is_some_and(|past| past.record.is_some());
        Slot::new(self.entry.id, self.count, recorded, self.size)
    }
}

impl Deliveries {
    /// Takes off the entry that seals the stream, if it is there: it is the last there can be, and no event.
    pub fn take_seal(&mut self) -> bool {
        let is_there = self.entries.last().is_some_and(Delivery::is_seal);
        if is_there {
            self.entries.pop();
        }
        is_there
    }

    /// The size of the largest entry.
    pub fn largest(&self) -> usize {
        let sizes = self.entries.iter().map(|delivery| delivery.size);
        sizes.max().unwrap_or_default()
    }
}

impl Taken {
    pub const NONE: Taken = Taken {
        entries: 0,
        more: false,
    };

    /// Nothing, and whether there may be some.
    pub fn none_and(more: bool) -> Taken {
        Taken { entries: 0, more }
    }
}

/// A replayed entry that was too wide for a script travels as one field.
fn unpacked(entry: Entry) -> Entry {
    match crate::codec::unpack(entry.fields) {
        Ok(fields) => Entry {
            id: entry.id,
            fields,
        },
        // Without a type it will be buried as undecodable, as it is.
        Err((fields, _)) => Entry {
            id: entry.id,
            fields,
        },
    }
}
