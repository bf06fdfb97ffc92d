//! A stream as this worker reads it.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::{Duration, Instant};

use super::emits::Emits;
use super::look_ahead::LookAhead;
use super::next_due::Schedule;
use super::order::Order;
use super::pauses::Pauses;
use crate::config::Start;
use crate::context::Surroundings;
use crate::event::EntryId;
use crate::metrics::entries::StreamCounts;
use crate::stream::{Keys, Known};
use crate::sync::{lock, read, write};
use crate::trace;

/// Whether new entries of a stream are read. Everything else goes on whatever it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reads {
    Yes = 0,
    /// It is of a generation of its topic that comes later: what is in the one before is settled first.
    NotYet = 1,
    /// It is sealed, and its group has settled all of it.
    NoMore = 2,
}

/// What is known of entries that are to be cancelled is asked for again after this: other workers have cancelled some.
const CANCELS_OLD: Duration = Duration::from_secs(30);

/// Entries that are to be cancelled.
#[derive(Default)]
struct Cancels {
    ids: HashSet<EntryId>,
    /// What told of them.
    flag: String,
    asked: Option<Instant>,
}

/// A stream this worker reads: one it was told to, or the replayed entries of one.
pub(crate) struct Source {
    pub keys: Keys,
    /// Of its stream and its group: see [`trace::seed`].
    pub seed: u64,
    pub surroundings: Arc<Surroundings>,
    /// Where its group begins if there is none.
    pub start: Start,
    /// Whose it is, if its events have an order; the same for replayed entries.
    pub order: Option<Arc<Order>>,
    /// Whether any handler is limited by more than its time and `worker.concurrency`.
    is_limited: bool,
    /// The stream of replayed entries that belongs to it; None for such a stream itself.
    pub again: Option<Arc<Source>>,
    /// What is known of events that are to be added to it later.
    pub schedule: Schedule,
    /// What was emitted to streams of other slots, for the relay; the same for replayed entries.
    pub emits: Arc<Emits>,
    /// Whether there is anything in it to look for: always, but for replayed entries.
    active: AtomicBool,
    /// See [`Reads`].
    reads: AtomicU8,
    /// The entry that seals it has come, and is to be acknowledged.
    has_seal: AtomicBool,
    /// Joining its group was refused: nothing is asked of it until that is done.
    barred: AtomicBool,
    /// Entries of it wait for a worker that can handle them.
    waiting: AtomicBool,
    /// Others may have left some there.
    heard_of_waiting: AtomicBool,
    /// Where its entries are counted, if they are; the same for replayed entries.
    pub counts: Option<Arc<StreamCounts>>,
    /// What an operator has paused of it; the same for replayed entries.
    pub pauses: Arc<Pauses>,
    /// Which entries of it are to be cancelled, and when that was asked for last.
    cancels: Mutex<Cancels>,
    /// The places of handlers whose entries wait in Redis.
    listed: Mutex<BTreeSet<usize>>,
    /// When a renewal of what is held of it was last refused: others' renewals were, too.
    unrenewed: Mutex<Option<Instant>>,
    /// What is known of its next new entries.
    ahead: Mutex<LookAhead>,
    /// Entries that have come and are on their way to their handlers; kept where handlers have limits.
    on_the_way: AtomicUsize,
    /// The group, once it was joined: nobody but those who were in it knows that it is not new where its keys are gone.
    known: Mutex<Option<Known>>,
    /// The highest id that is known to have been read. The two halves are read and written one after the other: who sees
    /// one without the other asks once too often, or sees it with the next reply.
    read: (AtomicU64, AtomicU64),
}

impl Source {
    /// The stream called `surroundings.stream`, with its stream of replayed entries. Its group begins at `start` if there
    /// is none; where handlers have limits, entries on their way to them are counted.
    pub fn new(
        surroundings: Surroundings,
        start: Start,
        is_limited: bool,
        order: Option<Arc<Order>>,
        counts: Option<Arc<StreamCounts>>,
    ) -> Arc<Self> {
        let surroundings = Arc::new(surroundings);
        let keys = Keys::new(&surroundings.stream, &surroundings.group);
        let pauses = Arc::<Pauses>::default();
        let emits = Arc::<Emits>::default();
        let source = |keys: Keys, start, again, is_active| Source {
            seed: trace::seed(&keys.stream, &surroundings.group),
            keys,
            surroundings: surroundings.clone(),
            start,
            order: order.clone(),
            is_limited,
            again,
            schedule: Schedule::default(),
            emits: emits.clone(),
            active: AtomicBool::new(is_active),
            reads: AtomicU8::new(Reads::Yes as u8),
            has_seal: AtomicBool::new(false),
            barred: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            heard_of_waiting: AtomicBool::new(false),
            counts: counts.clone(),
            pauses: pauses.clone(),
            cancels: Mutex::default(),
            listed: Mutex::default(),
            unrenewed: Mutex::default(),
            ahead: Mutex::default(),
            on_the_way: AtomicUsize::new(0),
            known: Mutex::default(),
            read: Default::default(),
        };
        let keys_again = keys.again(&surroundings.group);
        let again = Arc::new(source(keys_again, Start::Beginning, None, false));
        Arc::new(source(keys, start, Some(again), true))
    }

    /// Whether an operator has cancelled an entry. Costs one load if none is cancelled.
    #[inline]
    pub fn cancels(&self, id: EntryId) -> bool {
        self.pauses.entries(self.deletes()) && lock(&self.cancels).ids.contains(&id)
    }

    /// Whether it is to be asked what is cancelled, by what a look for due entries tells of that.
    pub fn asks_for_cancels(&self, flag: Option<&str>) -> bool {
        let cancels = lock(&self.cancels);
        let is_old = cancels.asked.is_none_or(|at| at.elapsed() > CANCELS_OLD);
        match flag {
            Some(flag) => cancels.flag != flag || !cancels.ids.is_empty() && is_old,
            None => !cancels.ids.is_empty() && is_old,
        }
    }

    /// These are.
    pub fn learn_cancels(&self, flag: Option<&str>, ids: HashSet<EntryId>) {
        let mut cancels = lock(&self.cancels);
        self.pauses.set_entries(self.deletes(), !ids.is_empty());
        cancels.flag = flag.unwrap_or_default().to_owned();
        cancels.asked = Some(Instant::now());
        cancels.ids = ids;
    }

    /// One has been.
    pub fn was_cancelled(&self, id: EntryId) {
        let mut cancels = lock(&self.cancels);
        cancels.ids.remove(&id);
        if cancels.ids.is_empty() {
            self.pauses.set_entries(self.deletes(), false);
        }
    }

    /// What is known of the group since it was joined.
    pub fn known(&self) -> Option<Known> {
        lock(&self.known).clone()
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

    /// It was set back, and nothing is left from before beyond this entry: what comes there is new.
    pub fn was_set_back(&self, to: Option<EntryId>) {
        let to = to.unwrap_or_default();
        self.read.0.store(to.ms, Ordering::Relaxed);
        self.read.1.store(to.seq, Ordering::Relaxed);
    }

    /// The group was joined.
    pub fn joined(&self, known: Known) {
        known.last().into_iter().for_each(|id| self.has_read(id));
        *lock(&self.known) = Some(known);
    }

    /// A renewal tells how far the group is. Answers whether it is still the one that was joined.
    pub fn learn(&self, now: Known) -> bool {
        now.last().into_iter().for_each(|id| self.has_read(id));
        let mut known = lock(&self.known);
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

    /// So many entries have come, and are on their way to their handlers.
    pub fn coming(&self, entries: usize) {
        if self.is_limited {
            self.on_the_way.fetch_add(entries, Ordering::Relaxed);
        }
    }

    /// One of them has got there.
    #[inline]
    pub fn arrived(&self) {
        if self.is_limited {
            self.on_the_way.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many have come and have not got to their handlers; kept where handlers have limits.
    pub fn on_the_way(&self) -> usize {
        self.on_the_way.load(Ordering::Relaxed)
    }

    /// What is known of its next new entries.
    pub fn ahead(&self) -> MutexGuard<'_, LookAhead> {
        lock(&self.ahead)
    }

    /// The places of handlers whose entries wait.
    pub fn listed(&self) -> BTreeSet<usize> {
        self.lock_listed().clone()
    }

    fn lock_listed(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        lock(&self.listed)
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

    /// What is held of it could not be renewed, because the server refused it.
    pub fn renewal_refused(&self) {
        *lock(&self.unrenewed) = Some(Instant::now());
    }

    /// Whether renewals have not been refused for so long: before that the ages of others' entries say nothing.
    pub fn is_renewed_for(&self, lease: Duration) -> bool {
        lock(&self.unrenewed).is_none_or(|refused| refused.elapsed() >= lease)
    }

    /// Whether its group could not be joined when that was last tried.
    pub fn is_barred(&self) -> bool {
        self.barred.load(Ordering::Relaxed)
    }

    pub fn set_barred(&self, barred: bool) {
        self.barred.store(barred, Ordering::Relaxed);
    }

    /// The entry that seals it has come: no handler sees it, and it is acknowledged by who follows the topic's growth.
    pub fn set_seal(&self, has_seal: bool) {
        self.has_seal.store(has_seal, Ordering::Relaxed);
    }

    pub fn has_seal(&self) -> bool {
        self.has_seal.load(Ordering::Relaxed)
    }

    /// Whether new entries of it are read.
    pub fn is_read(&self) -> bool {
        self.reads.load(Ordering::Relaxed) == Reads::Yes as u8
    }

    /// They are from now on, or are not. Returns whether that is a change.
    pub fn set_reads(&self, reads: Reads) -> bool {
        self.reads.swap(reads as u8, Ordering::Relaxed) != reads as u8
    }

    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Whether this worker is to fetch entries of it.
    pub fn is_fetched(&self) -> bool {
        self.order.as_ref().is_none_or(|order| order.reads())
    }

    /// For how long what came by a request sent at `since` is this worker's.
    pub fn lease(&self, since: Instant, lease: Duration) -> Duration {
        match &self.order {
            Some(order) => order.covers(since, lease),
            None => lease,
        }
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

/// The streams of a worker, as it was told them. More come when a topic grows.
pub(crate) struct Sources(RwLock<Arc<[Arc<Source>]>>);

impl Sources {
    pub fn new(sources: Vec<Arc<Source>>) -> Self {
        Sources(RwLock::new(sources.into()))
    }

    /// Those it was told, without the streams of replayed entries.
    pub fn named(&self) -> Arc<[Arc<Source>]> {
        read(&self.0).clone()
    }

    /// These come as well.
    pub fn add(&self, more: Vec<Arc<Source>>) {
        let mut sources = write(&self.0);
        *sources = sources.iter().cloned().chain(more).collect();
    }

    /// Those there is something to look for in.
    pub fn active(&self) -> Vec<Arc<Source>> {
        let mut active = self.all();
        active.retain(|source| !source.is_barred());
        active
    }

    /// Those that this worker fetches entries of: where events have an order one worker does.
    pub fn fetched(&self) -> Vec<Arc<Source>> {
        let mut fetched = self.active();
        fetched.retain(|source| source.is_fetched());
        fetched
    }

    /// Those that entries may be held of: those as well whose group was joined once and can't be joined now.
    pub fn joined(&self) -> Vec<Arc<Source>> {
        let mut joined = self.all();
        joined.retain(|source| !source.is_barred() || source.known().is_some());
        joined
    }

    /// The same with those whose group can't be joined.
    pub fn all(&self) -> Vec<Arc<Source>> {
        let named = self.named();
        let again = named.iter().filter_map(|source| source.again.clone());
        let again = again.filter(|again| again.is_active());
        named.iter().cloned().chain(again).collect()
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
