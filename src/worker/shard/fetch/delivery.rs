//! An entry on its way in: what is known of it when it comes.

use std::time::Duration;

use crate::event::Entry;
use crate::stream::{Delivered, Record};
use crate::worker::run::work::Past;
use crate::worker::state::inflight::Slot;

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

    /// Its place among what is held.
    pub fn slot(&self) -> Slot {
        let recorded = self.past.as_ref().is_some_and(|past| past.record.is_some());
        Slot::new(self.entry.id, self.count, recorded, self.size)
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
