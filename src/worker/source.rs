//! A stream as this worker reads it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::pauses::Pauses;
use super::scheduler::Schedule;
use crate::context::Surroundings;
use crate::event::EntryId;
use crate::stream::{Keys, Known};

/// A stream this worker reads: one it was told to, or the replayed entries of one.
pub(super) struct Source {
    pub keys: Keys,
    pub surroundings: Arc<Surroundings>,
    /// The stream of replayed entries that belongs to it; None for such a stream itself.
    pub again: Option<Arc<Source>>,
    /// What is known of events that are to be added to it later.
    pub schedule: Schedule,
    /// Whether there is anything in it to look for: always, but for replayed entries.
    active: AtomicBool,
    /// Entries of it wait for a worker that knows them.
    unknown: AtomicBool,
    /// What an operator has paused of it; the same for replayed entries.
    pub pauses: Arc<Pauses>,
    /// One bit for each handler that an entry of it went to.
    seen: AtomicU64,
    /// Entries that have come and are on their way to their handlers; kept where handlers have limits.
    pub on_the_way: AtomicUsize,
    /// The group, once it was joined: nobody but those who were in it knows that it is not new where its keys are gone.
    known: Mutex<Option<Known>>,
    /// The highest id that is known to have been read. The two halves are read and written one after the other: who sees
    /// one without the other asks once too often, or sees it with the next reply.
    read: (AtomicU64, AtomicU64),
}

impl Source {
    /// The stream called `surroundings.stream`, with its stream of replayed entries.
    pub fn new(surroundings: Surroundings) -> Arc<Self> {
        let surroundings = Arc::new(surroundings);
        let keys = Keys::new(&surroundings.stream, &surroundings.group);
        let pauses = Arc::<Pauses>::default();
        let again = Source {
            keys: keys.again(&surroundings.group),
            surroundings: surroundings.clone(),
            again: None,
            schedule: Schedule::default(),
            active: AtomicBool::new(false),
            unknown: AtomicBool::new(false),
            pauses: pauses.clone(),
            seen: AtomicU64::new(0),
            on_the_way: AtomicUsize::new(0),
            known: Mutex::default(),
            read: Default::default(),
        };
        Arc::new(Source {
            keys,
            surroundings,
            again: Some(Arc::new(again)),
            schedule: Schedule::default(),
            active: AtomicBool::new(true),
            unknown: AtomicBool::new(false),
            pauses,
            seen: AtomicU64::new(0),
            on_the_way: AtomicUsize::new(0),
            known: Mutex::default(),
            read: Default::default(),
        })
    }

    /// What is known of the group since it was joined.
    pub fn known(&self) -> Option<Known> {
        self.known
            .lock()
            .expect("no panic while it is locked")
            .clone()
    }

    /// How far the group is known to have read.
    pub fn read_up_to(&self) -> EntryId {
        EntryId {
            ms: self.read.0.load(Ordering::Relaxed),
            seq: self.read.1.load(Ordering::Relaxed),
        }
    }

    /// It has read up to here, too.
    pub fn has_read(&self, id: EntryId) {
        if id > self.read_up_to() {
            self.read.0.store(id.ms, Ordering::Relaxed);
            self.read.1.store(id.seq, Ordering::Relaxed);
        }
    }

    /// The group was joined.
    pub fn joined(&self, known: Known) {
        known.last().into_iter().for_each(|id| self.has_read(id));
        *self.known.lock().expect("no panic while it is locked") = Some(known);
    }

    /// A renewal tells how far the group is. Answers whether it is still the one that was joined.
    pub fn learn(&self, now: Known) -> bool {
        now.last().into_iter().for_each(|id| self.has_read(id));
        let mut known = self.known.lock().expect("no panic while it is locked");
        match &mut *known {
            Some(known) if known.is_of(&now) => *known = now,
            Some(_) => return false,
            None => {}
        }
        true
    }

    /// Whether settled entries are deleted: replayed ones are nobody else's.
    pub fn deletes(&self) -> bool {
        self.again.is_none()
    }

    /// An entry of it went to the handler with this bit. Costs one load where others did before.
    pub fn saw(&self, bit: u64) {
        if self.seen.load(Ordering::Relaxed) & bit == 0 {
            self.seen.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// The bits of the handlers it has seen.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Whether entries of it wait for a worker that knows them, as was last heard.
    pub fn has_unknown(&self) -> bool {
        self.unknown.load(Ordering::Relaxed)
    }

    pub fn set_unknown(&self, unknown: bool) {
        self.unknown.store(unknown, Ordering::Relaxed);
    }

    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    pub fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Relaxed);
    }
}
