//! What a group knows of a stream's entries: what is pending with whom, parked until when, failed how often, and which of
//! several copies of an event runs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::event::{Entry, EntryId};
use crate::fields::Fields;
use crate::stream::{Delivered, PARKED, Record};

/// How long at least it is known what came to an end: see `scripts/common/guards.lua`.
const GUARDED_MS: u64 = 60_000;
/// How much longer than a lease.
const BEYOND_LEASE_MS: u64 = 30_000;

/// One group of one stream.
#[derive(Default)]
pub(super) struct Group {
    pub read: EntryId,
    pub pending: BTreeMap<EntryId, Pending>,
    /// When what is parked is due.
    pub retry: BTreeMap<EntryId, u64>,
    pub records: BTreeMap<EntryId, Noted>,
    /// What waits for a worker that can handle it, by type, version and id.
    pub waiting: BTreeSet<(Vec<u8>, EntryId)>,
    guards: BTreeMap<EntryId, u64>,
    pub commits: HashMap<String, (u64, Vec<(EntryId, u32)>)>,
}

pub(super) struct Pending {
    pub consumer: String,
    pub since_ms: u64,
    pub count: u32,
}

/// A record, and the delivery it was written at.
#[derive(Clone)]
pub(super) struct Noted {
    pub record: Record,
    pub count: u32,
    /// It waits for a worker that can handle it.
    pub waits: bool,
}

/// What is known of an event that is to be handled once.
pub(super) struct Mark {
    pub id: EntryId,
    pub is_done: bool,
    pub data: String,
    pub until: u64,
}

/// What waking one comes to.
pub(super) enum Woken {
    Comes(Delivered),
    Trimmed,
    /// Nothing of it is parked.
    Stale,
}

impl Group {
    pub fn begins_at(read: EntryId) -> Self {
        Group {
            read,
            ..Group::default()
        }
    }

    pub fn deliver(&mut self, id: EntryId, consumer: &str, count: u32, now: u64) {
        let pending = Pending {
            consumer: consumer.to_owned(),
            since_ms: now,
            count,
        };
        self.pending.insert(id, pending);
    }

    /// The ids of parked entries that are due, the first due first.
    pub fn due(&self, now: u64, most: usize) -> Vec<EntryId> {
        let due = self.retry.iter().filter(|(_, at)| **at <= now);
        let mut due: Vec<(u64, EntryId)> = due.map(|(id, at)| (*at, *id)).collect();
        due.sort();
        due.into_iter().take(most).map(|(_, id)| id).collect()
    }

    pub fn next_due(&self) -> Option<u64> {
        self.retry.values().min().copied()
    }

    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What is parked, and until when.
    pub fn parked(&self) -> Vec<(EntryId, u64)> {
        self.retry.iter().map(|(id, due)| (*id, *due)).collect()
    }

    pub fn record(&self, id: EntryId) -> Option<Record> {
        self.records.get(&id).map(|noted| noted.record.clone())
    }

    /// Takes one that is due; its `fields` are gone if it was trimmed.
    pub fn wake(&mut self, id: EntryId, me: &str, fields: Option<Fields>, now: u64) -> Woken {
        self.retry.remove(&id);
        let count = match self.pending.get(&id) {
            Some(pending) if pending.consumer == PARKED => pending.count + 1,
            _ => return Woken::Stale,
        };
        self.take(id, me, count, fields, now)
    }

    pub fn take(
        &mut self,
        id: EntryId,
        me: &str,
        count: u32,
        fields: Option<Fields>,
        now: u64,
    ) -> Woken {
        let Some(fields) = fields else {
            self.pending.remove(&id);
            self.records.remove(&id);
            return Woken::Trimmed;
        };
        self.deliver(id, me, count, now);
        Woken::Comes(Delivered {
            entry: Entry { id, fields },
            count,
            record: self.record(id),
        })
    }

    pub fn is_mine(&self, id: EntryId, consumer: &str, count: u32) -> Option<bool> {
        let pending = self.pending.get(&id)?;
        Some(pending.consumer == consumer && pending.count == count)
    }

    pub fn is_guarded(&self, id: EntryId, now: u64) -> bool {
        self.guards.get(&id).is_some_and(|until| *until > now)
    }

    pub fn guard(&mut self, id: EntryId, now: u64, lease_ms: u64) {
        let lasts = GUARDED_MS.max(lease_ms + BEYOND_LEASE_MS);
        self.guards.retain(|_, until| *until > now);
        self.guards.insert(id, now + lasts);
    }

    /// It leaves the group.
    pub fn forget(&mut self, id: EntryId) {
        self.pending.remove(&id);
        self.records.remove(&id);
        self.retry.remove(&id);
    }
}
