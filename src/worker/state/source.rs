//! A stream as this worker reads it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::look_ahead::LookAhead;
use super::next_due::Schedule;
use super::pauses::Pauses;
use crate::context::Surroundings;
use crate::event::EntryId;
use crate::stream::{Keys, Known};

/// A stream this worker reads: one it was told to, or the replayed entries of one.
pub(crate) struct Source {
    pub keys: Keys,
    pub surroundings: Arc<Surroundings>,
    /// The stream of replayed entries that belongs to it; None for such a stream itself.
    pub again: Option<Arc<Source>>,
    /// What is known of events that are to be added to it later.
    pub schedule: Schedule,
    /// Whether there is anything in it to look for: always, but for replayed entries.
    active: AtomicBool,
    /// Joining its group was refused: nothing is asked of it until that is done.
    barred: AtomicBool,
    /// Entries of it wait for a worker that can handle them.
    waiting: AtomicBool,
    /// Others may have left some there.
    heard_of_waiting: AtomicBool,
    /// What an operator has paused of it; the same for replayed entries.
    pub pauses: Arc<Pauses>,
    /// The places of handlers whose entries wait in Redis.
    listed: Mutex<BTreeSet<usize>>,
    /// What is known of its next new entries.
    ahead: Mutex<LookAhead>,
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
            barred: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            heard_of_waiting: AtomicBool::new(false),
            pauses: pauses.clone(),
            listed: Mutex::default(),
            ahead: Mutex::default(),
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
            barred: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            heard_of_waiting: AtomicBool::new(false),
            pauses,
            listed: Mutex::default(),
            ahead: Mutex::default(),
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

    /// Entries for the handler at this place wait in Redis.
    pub fn list(&self, place: usize) {
        self.lock_listed().insert(place);
        self.set_waiting(true);
    }

    /// None do any more.
    pub fn unlist(&self, place: usize) {
        self.lock_listed().remove(&place);
    }

    /// What is known of its next new entries.
    pub fn ahead(&self) -> MutexGuard<'_, LookAhead> {
        self.ahead.lock().expect("no panic while it is locked")
    }

    /// The places of handlers whose entries wait.
    pub fn listed(&self) -> BTreeSet<usize> {
        self.lock_listed().clone()
    }

    fn lock_listed(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.listed.lock().expect("no panic while it is locked")
    }

    /// Whether entries of it wait for a worker that can handle them, as was last heard.
    pub fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether there are any at all, as Redis says.
    pub fn heard_of_waiting(&self, waiting: bool) {
        self.waiting.store(waiting, Ordering::Relaxed);
        self.heard_of_waiting.store(waiting, Ordering::Relaxed);
        if !waiting {
            self.lock_listed().clear();
        }
    }

    pub fn take_heard_of_waiting(&self) -> bool {
        self.heard_of_waiting.swap(false, Ordering::Relaxed)
    }

    fn set_waiting(&self, waiting: bool) {
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    /// Whether its group could not be joined when that was last tried.
    pub fn is_barred(&self) -> bool {
        self.barred.load(Ordering::Relaxed)
    }

    pub fn set_barred(&self, barred: bool) {
        self.barred.store(barred, Ordering::Relaxed);
    }

    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    pub fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Relaxed);
    }

    /// Entries that are gone from the stream before this group was done with them: they can't be brought back.
    pub fn report_trimmed(&self, ids: &[EntryId], when: &str) {
        if let Some(first) = ids.first() {
            let (stream, count) = (&self.keys.stream, ids.len());
            tracing::error!(stream, count, first = %first, "LOST TO TRIMMING: deleted from the stream {when}");
        }
    }
}

/// The places of what belongs to one stream, stream by stream; a worker has few.
pub(crate) fn by_source<T>(
    items: &[T],
    source: impl Fn(&T) -> &Arc<Source>,
) -> Vec<(Arc<Source>, Vec<usize>)> {
    let mut lots: Vec<(Arc<Source>, Vec<usize>)> = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let of = source(item);
        match lots.iter_mut().find(|(known, _)| Arc::ptr_eq(known, of)) {
            Some((_, places)) => places.push(at),
            None => lots.push((of.clone(), vec![at])),
        }
    }
    lots
}
