//! What this worker holds: entries delivered to it and not settled yet. Kept by batch, as they were delivered, so
//! that the path of an entry takes no lock: an entry's state is one atomic byte.
//!
//! An entry waits, runs, has finished, and is settled once Redis is known to have it settled. The renewer may find
//! in between that it is no longer this worker's; that is noted beside the state and heeded by whoever has it next.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::order::Settled;
use super::quarantine::Quarantine;
use super::signals::Signals;
use super::source::Source;
use super::times::Times;
use crate::context::{Cancelled, Context, Place};
use crate::event::EntryId;
use crate::metrics::entries::Outcome;
use crate::stream::LostWhy;
use crate::sync::lock;

const WAITING: u8 = 0;
const RUNNING: u8 = 1;
const FINISHED: u8 = 2;
const SETTLED: u8 = 3;
const PHASE: u8 = 0b11;
/// Another delivery of the entry is under way.
const TAKEN: u8 = 0b100;
/// Nobody has it pending, and our lease never lapsed: its end is ours to write.
const NOBODYS: u8 = 0b1000;
/// Redis has settled it, and its handler still runs.
const COMMITTED: u8 = 0b1_0000;
/// It has a place, or waits for one, of those that its handler's runs may take.
const PLACED: u8 = 0b10_0000;

/// For how long at most it can be said of an entry that is nobody's, once an answer got lost, that its end is ours to
/// write. Longer than a server is away for a moment; what others did is known for twice as long: see
/// `scripts/common/guards.lua`.
pub(crate) const OWN_FOR: Duration = Duration::from_secs(30);

/// So many entries that have succeeded are worth a request of their own; fewer wait for others, if nobody wants the room.
pub(crate) const ENOUGH_TO_ACK: usize = 256;

/// Everything this worker holds.
pub(crate) struct Inflight {
    batches: Mutex<Vec<Arc<Batch>>>,
    /// Of the next batch.
    next_serial: AtomicU64,
    entries: AtomicUsize,
    /// Those of them that have succeeded and wait to be acknowledged.
    succeeded: AtomicUsize,
    /// Those that only wait for the server to settle them, which it refuses to do.
    stuck: AtomicUsize,
    /// Those that batch handlers have, or that are collected for them.
    batched: AtomicUsize,
    /// How many more would make the batch whole that is collected.
    wanted: AtomicUsize,
    bytes: AtomicUsize,
    settled: AtomicU64,
    /// Entries that have succeeded and that the acker has not taken in.
    untaken: AtomicUsize,
    /// Signalled when the acker is not to wait for more: enough have succeeded, or the room they take up is wanted.
    ack_now: Notify,
    /// Signalled when something was settled.
    freed: Notify,
    /// Signalled when a renewal has been answered.
    renewed: Notify,
    epoch: Instant,
    server_ms: OnceLock<Box<dyn Fn() -> u64 + Send + Sync>>,
    quarantine: Arc<Quarantine>,
    signals: Arc<Signals>,
}

/// How entries come, which says when they may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coming {
    /// When their turn comes.
    InTurn,
    /// Before those that came in turn: a worker that is gone held them.
    First,
    /// When nothing else runs: they may kill their worker, and are with its consumer for those.
    Alone,
}

/// Entries that came in one reply and have one lease.
pub(crate) struct Batch {
    /// By which it is found again: no other batch of this worker has it.
    serial: u64,
    pub source: Arc<Source>,
    /// They were reclaimed under this worker's consumer for entries that may kill their worker.
    pub alone: bool,
    /// They start before what came in turn.
    pub first: bool,
    /// When the request was sent that brought them.
    pub since: Instant,
    pub slots: Box<[Slot]>,
    /// The number of the lease under which the stream was this worker's; 0 where its events have no order.
    stream_lease: u64,
    /// What is noted of them, if somebody counts.
    pub times: Option<Times>,
    /// Nanoseconds after the epoch of [`Inflight`].
    leased_until: AtomicU64,
    /// Another server brought it than the one that answers now: an id may be another entry's there.
    fenced: AtomicBool,
    open: AtomicUsize,
    epoch: Instant,
}

/// One held entry.
pub(crate) struct Slot {
    pub id: EntryId,
    /// Deliveries, this one included: what makes a step on the entry this delivery's.
    pub count: u32,
    /// The group has a record of it, which goes when it is settled.
    pub recorded: bool,
    size: u32,
    /// Of the event that succeeded: see [`mark`](super::recent_acks::mark).
    mark: AtomicU32,
    state: AtomicU8,
    /// Set while a handler waits, so that it can be told to stop.
    running: OnceLock<Context>,
}

/// A handler that runs.
pub(crate) struct Running {
    pub source: Arc<Source>,
    pub id: EntryId,
    /// For how long it has run; zero where it has not let go of its thread yet.
    pub lasts: Duration,
    /// None there.
    pub ctx: Option<Context>,
}

/// Whose an entry is when its handler has finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Us,
    Another,
    /// Nobody, and its end is ours to write.
    Nobody,
}

impl Slot {
    pub fn new(id: EntryId, count: u32, recorded: bool, size: usize) -> Self {
        let (state, running) = (AtomicU8::new(WAITING), OnceLock::new());
        Slot {
            id,
            count,
            recorded,
            size: size.min(u32::MAX as usize) as u32,
            mark: AtomicU32::new(0),
            state,
            running,
        }
    }

    /// Whether its handler may start: it waits, and nobody else has it.
    pub fn start(&self) -> bool {
        let begin = |state| {
            (state & PHASE == WAITING && state & TAKEN == 0).then_some((state & !PHASE) | RUNNING)
        };
        self.state
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, begin)
            .is_ok()
    }

    /// It was to start, and waits for others to start with.
    pub fn waits_again(&self) {
        let wait = |state| (state & PHASE == RUNNING).then_some((state & !PHASE) | WAITING);
        let (Ok(_) | Err(_)) = self
            .state
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, wait);
    }

    /// How many bytes its fields have.
    pub fn size(&self) -> usize {
        self.size as usize
    }

    /// From now on it only has to be settled. Answers whose it is.
    pub fn finish(&self) -> Owner {
        let finish = |state| Some((state & !PHASE) | FINISHED);
        let (Ok(state) | Err(state)) =
            self.state
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, finish);
        owner(state)
    }

    /// It has a place of its handler's, or waits for one.
    pub fn takes_a_place(&self) {
        self.state.fetch_or(PLACED, Ordering::SeqCst);
    }

    pub fn has_a_place(&self) -> bool {
        self.state.load(Ordering::SeqCst) & PLACED != 0
    }

    /// It has succeeded, and will be acknowledged as the event with this mark.
    pub fn succeeded(&self, mark: u32) {
        self.mark.store(mark, Ordering::Relaxed);
    }

    /// The mark it succeeded with.
    pub fn mark(&self) -> u32 {
        self.mark.load(Ordering::Relaxed)
    }

    /// Whose the entry is, as far as the last renewal told.
    pub fn owner(&self) -> Owner {
        owner(self.state.load(Ordering::SeqCst))
    }

    /// Whether its handler has not ended.
    pub fn is_running(&self) -> bool {
        self.state.load(Ordering::SeqCst) & PHASE == RUNNING
    }

    /// A handler that waits can be told to stop through its context.
    pub fn running(&self, ctx: &Context) {
        let _ = self.running.set(ctx.clone());
        // `lose` marks first and looks for the context then: one of the two sees the other.
        if self.owner() == Owner::Another {
            ctx.stops_for(Cancelled::LeaseLost);
        }
    }

    /// The context of a handler that waits.
    pub fn context(&self) -> Option<&Context> {
        self.is_running().then(|| self.running.get()).flatten()
    }

    /// Whether it is to be renewed: not settled, and not known to be lost.
    fn is_kept(&self) -> bool {
        let state = self.state.load(Ordering::SeqCst);
        state & PHASE != SETTLED && state & (TAKEN | NOBODYS | COMMITTED) == 0
    }

    /// It was ours until it was found to be nobody's: its end is ours to write.
    pub fn is_nobodys(&self) {
        self.state.fetch_or(NOBODYS, Ordering::SeqCst);
    }

    /// Its handler has committed it, and may still run.
    pub fn committed(&self) {
        self.state.fetch_or(COMMITTED, Ordering::SeqCst);
    }

    /// It is not ours any more, as a step was told.
    pub fn is_anothers(&self) {
        self.lose(Owner::Another);
    }

    fn lose(&self, owner: Owner) {
        let mark = if owner == Owner::Nobody {
            NOBODYS
        } else {
            TAKEN
        };
        self.state.fetch_or(mark, Ordering::SeqCst);
        if let (Owner::Another, Some(ctx)) = (owner, self.context()) {
            ctx.stops_for(Cancelled::LeaseLost);
        }
    }
}

/// Whole, for so many centuries.
fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

fn owner(state: u8) -> Owner {
    match state & (TAKEN | NOBODYS) {
        0 => Owner::Us,
        NOBODYS => Owner::Nobody,
        _ => Owner::Another,
    }
}

impl Batch {
    /// Whether the lease may have run out: nothing of the batch may start before a renewal has confirmed it.
    pub fn is_lapsed(&self) -> bool {
        self.is_lapsed_at(self.now())
    }

    /// The same at a time that [`now`](Self::now) has told.
    pub fn is_lapsed_at(&self, now: u64) -> bool {
        now >= self.leased_until()
    }

    /// When the lease runs out, as [`now`](Self::now) tells the time.
    pub fn leased_until(&self) -> u64 {
        self.leased_until.load(Ordering::SeqCst)
    }

    /// Nanoseconds since the worker began.
    pub fn now(&self) -> u64 {
        nanos(self.epoch.elapsed())
    }

    /// What is left of the lease; nothing where it does not count, for another server is there.
    pub fn lease_left(&self) -> Option<Duration> {
        let until = self.leased_until.load(Ordering::SeqCst);
        (until > 0).then(|| Duration::from_nanos(until.saturating_sub(self.now())))
    }

    /// How many handlers of it run.
    pub fn running(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_running()).count()
    }

    /// Whether all of it that is not settled is being handled.
    pub fn only_runs(&self) -> bool {
        let phase = |slot: &Slot| slot.state.load(Ordering::SeqCst) & PHASE;
        let mut phases = self.slots.iter().map(phase);
        phases.all(|phase| matches!(phase, RUNNING | SETTLED))
    }

    /// How many of it are not settled.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// The place of the type of an entry whose handler has not let go of its thread.
    pub fn blocking(&self) -> Option<usize> {
        let times = self.times.as_ref()?;
        let mut slots = self.slots.iter();
        let at = slots.position(|slot| slot.is_running() && slot.running.get().is_none())?;
        times.place(at as u32)
    }

    /// Whether an acknowledgement has to make sure that the ids are still these entries'.
    pub fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::SeqCst)
    }

    /// Where an entry of it is found again: see [`Inflight::at`].
    pub fn place(&self, index: u32) -> Place {
        Place {
            batch: self.serial,
            index,
            after: 0,
            age: 0,
            lease: self.stream_lease,
        }
    }

    /// Should an entry of it be pending with nobody: whether nobody else can have had it since it was ours. What has
    /// once been found to be nobody's stays so, for it can't be taken; what another has had stays lost, whenever the
    /// lease of its batch is renewed after that.
    pub fn is_ours_to_end(&self, slot: &Slot) -> bool {
        self.ours_to_end_for(slot).is_some()
    }

    /// And for how long that can be said in a request that is sent now.
    pub fn ours_to_end_for(&self, slot: &Slot) -> Option<Duration> {
        let until = Duration::from_nanos(self.leased_until.load(Ordering::SeqCst));
        let leased = until.saturating_sub(self.epoch.elapsed());
        match slot.owner() {
            Owner::Us => Some(leased.min(OWN_FOR)).filter(|left| !left.is_zero()),
            Owner::Another => None,
            Owner::Nobody => Some(OWN_FOR),
        }
    }

    /// Entries that are to be renewed.
    pub fn kept(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| slot.is_kept())
    }

    /// The lease now runs from when the renewal was sent.
    pub fn renew(&self, sent: Instant, lease: Duration) {
        let until = sent.saturating_duration_since(self.epoch) + lease;
        self.leased_until.fetch_max(nanos(until), Ordering::SeqCst);
    }

    /// A renewal that named `id` with `count` was told that it is no longer ours. Answers whose it is then, if it was held:
    /// still ours where that is how it was settled.
    pub fn lose(&self, id: EntryId, count: u32, why: LostWhy) -> Option<(Owner, Option<&Context>)> {
        let slot = self
            .slots
            .iter()
            .find(|slot| slot.id == id && slot.count == count && slot.is_kept())?;
        // Nobody's after the lease ran out: another worker may have had it and settled it.
        let owner = match why {
            LostWhy::Trimmed => Owner::Nobody,
            LostWhy::Nobody if !self.is_lapsed() => Owner::Nobody,
            _ => Owner::Another,
        };
        let is_finished = slot.state.load(Ordering::SeqCst) & PHASE == FINISHED;
        slot.lose(owner);
        // Its settling was done before, and the answer to that is on its way; else it will be told.
        match why {
            LostWhy::Nobody if owner == Owner::Nobody && is_finished => Some((Owner::Us, None)),
            _ => Some((owner, slot.context())),
        }
    }
}

/// What has run for the longest, of all shards.
pub(crate) fn longest(shards: &[Arc<Inflight>], most: usize) -> Vec<Running> {
    let mut running: Vec<Running> = shards
        .iter()
        .flat_map(|inflight| inflight.longest(most))
        .collect();
    running.sort_by_key(|run| std::cmp::Reverse(run.lasts));
    running.truncate(most);
    running
}

impl Inflight {
    /// Entries that run alone tell the `quarantine` when they are settled, and the fetcher by the `signals`.
    pub fn new(quarantine: Arc<Quarantine>, signals: Arc<Signals>) -> Self {
        Inflight {
            batches: Mutex::new(Vec::new()),
            next_serial: AtomicU64::new(1),
            entries: AtomicUsize::new(0),
            succeeded: AtomicUsize::new(0),
            stuck: AtomicUsize::new(0),
            batched: AtomicUsize::new(0),
            wanted: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            settled: AtomicU64::new(0),
            untaken: AtomicUsize::new(0),
            ack_now: Notify::new(),
            freed: Notify::new(),
            renewed: Notify::new(),
            epoch: Instant::now(),
            server_ms: OnceLock::new(),
            quarantine,
            signals,
        }
    }

    /// The server's clock is asked this way, in ms since 1970; 0 where it is not known yet.
    pub fn tells_time(&self, server_ms: impl Fn() -> u64 + Send + Sync + 'static) {
        let _ = self.server_ms.set(Box::new(server_ms));
    }

    /// What the server's clock shows, as far as is known.
    pub fn server_time(&self) -> Option<SystemTime> {
        let ms = self.server_ms.get()?();
        (ms > 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_millis(ms))
    }

    /// Takes a batch in; its lease runs from `since`, when the request was sent that brought it.
    pub fn add(
        &self,
        source: &Arc<Source>,
        coming: Coming,
        since: Instant,
        lease: Duration,
        slots: Vec<Slot>,
    ) -> Arc<Batch> {
        self.entries.fetch_add(slots.len(), Ordering::SeqCst);
        self.bytes.fetch_add(
            slots.iter().map(|slot| slot.size as usize).sum(),
            Ordering::SeqCst,
        );
        let until = since.saturating_duration_since(self.epoch) + lease;
        let batch = Arc::new(Batch {
            serial: self.next_serial.fetch_add(1, Ordering::Relaxed),
            source: source.clone(),
            alone: coming == Coming::Alone,
            first: coming == Coming::First,
            stream_lease: source
                .order
                .as_ref()
                .and_then(|order| order.epoch())
                .unwrap_or(0),
            since,
            open: AtomicUsize::new(slots.len()),
            times: source.counts.as_ref().map(|_| Times::new(slots.len())),
            slots: slots.into(),
            leased_until: AtomicU64::new(nanos(until)),
            fenced: AtomicBool::new(false),
            epoch: self.epoch,
        });
        let mut batches = lock(&self.batches);
        batches.retain(|batch| batch.open.load(Ordering::SeqCst) > 0);
        batches.push(batch.clone());
        batch
    }

    /// The batches with something unsettled.
    pub fn snapshot(&self) -> Vec<Arc<Batch>> {
        let mut batches = lock(&self.batches);
        batches.retain(|batch| batch.open.load(Ordering::SeqCst) > 0);
        batches.clone()
    }

    /// The batch of a place, as long as something of it is not settled.
    pub fn at(&self, place: Place) -> Option<Arc<Batch>> {
        let batches = lock(&self.batches);
        let mut batches = batches.iter();
        batches.find(|batch| batch.serial == place.batch).cloned()
    }

    /// Redis has settled these entries, or they are no longer ours to settle. Each is counted once, as what became of it.
    pub fn settle(&self, batch: &Batch, indices: impl IntoIterator<Item = u32>, outcome: Outcome) {
        match &batch.source.order {
            None => self.settle_in_turn(batch, indices, outcome),
            Some(order) => {
                let indices: Vec<u32> = indices.into_iter().collect();
                self.settle_in_turn(batch, indices.iter().copied(), outcome);
                let ids = indices.iter().map(|at| batch.slots[*at as usize].id);
                let ids: Vec<EntryId> = ids.collect();
                order.settled(Settled {
                    stream: &batch.source.surroundings.stream,
                    is_new: !batch.source.deletes(),
                    holds: order.holds,
                    ids: &ids,
                    outcome,
                });
            }
        }
    }

    #[inline]
    fn settle_in_turn(
        &self,
        batch: &Batch,
        indices: impl IntoIterator<Item = u32>,
        outcome: Outcome,
    ) {
        match (&batch.times, &batch.source.counts) {
            (Some(times), Some(counts)) => {
                let mut tally = counts.settle(batch.now());
                self.settle_each(batch, indices, |index, slot| {
                    tally.count(&times.entry(index, slot.id, slot.count, outcome));
                });
            }
            _ => self.settle_each(batch, indices, |_, _| {}),
        }
    }

    #[inline]
    fn settle_each(
        &self,
        batch: &Batch,
        indices: impl IntoIterator<Item = u32>,
        mut settled: impl FnMut(u32, &Slot),
    ) {
        let (mut entries, mut bytes) = (0, 0);
        for index in indices {
            let slot = &batch.slots[index as usize];
            if slot.state.fetch_or(SETTLED, Ordering::SeqCst) & PHASE != SETTLED {
                entries += 1;
                bytes += slot.size as usize;
                settled(index, slot);
            }
        }
        batch.open.fetch_sub(entries, Ordering::SeqCst);
        self.entries.fetch_sub(entries, Ordering::SeqCst);
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.settled.fetch_add(entries as u64, Ordering::SeqCst);
        self.freed.notify_one();
        if batch.alone {
            self.quarantine.leave();
            self.signals.nudge();
        }
    }

    /// Leases and ids may mean nothing to the server that answers now: nothing starts before it has confirmed them.
    pub fn lapse_all(&self) {
        for batch in self.snapshot() {
            batch.fenced.store(true, Ordering::SeqCst);
            batch.leased_until.store(0, Ordering::SeqCst);
        }
    }

    /// Tells every handler that waits why it should stop.
    pub fn cancel_all(&self, why: Cancelled) {
        for batch in self.snapshot() {
            batch
                .slots
                .iter()
                .filter_map(Slot::context)
                .for_each(|ctx| ctx.stops_for(why));
        }
    }

    /// The handlers that have run for longest, the longest first; behind them those that have not let go of their thread
    /// yet, of which nobody knows more than their entry.
    pub fn longest(&self, most: usize) -> Vec<Running> {
        let mut running = Vec::new();
        for batch in self.snapshot() {
            let now = batch.now();
            for slot in batch.slots.iter().filter(|slot| slot.is_running()) {
                let ctx = slot.context().cloned();
                let ran = ctx
                    .as_ref()
                    .map(|ctx| now.saturating_sub(ctx.waits_since()));
                running.push(Running {
                    source: batch.source.clone(),
                    id: slot.id,
                    lasts: Duration::from_nanos(ran.unwrap_or_default()),
                    ctx,
                });
            }
        }
        running.sort_by_key(|run| std::cmp::Reverse(run.lasts));
        running.truncate(most);
        running
    }

    /// How many entries are held.
    pub fn entries(&self) -> usize {
        self.entries.load(Ordering::SeqCst)
    }

    /// So many entries of a batch have succeeded, and are about to be handed to the acker. It is told once there are
    /// enough of them to be sent at once.
    pub fn succeed(&self, entries: usize) {
        self.succeeded.fetch_add(entries, Ordering::SeqCst);
        self.freed.notify_one();
        // Several add at once; of their sums one alone passes the mark.
        let before = self.untaken.fetch_add(entries, Ordering::SeqCst);
        if before < ENOUGH_TO_ACK && before + entries >= ENOUGH_TO_ACK {
            self.ack_now.notify_one();
        }
    }

    /// The acker has taken so many in.
    pub fn taken_in(&self, entries: usize) {
        self.untaken.fetch_sub(entries, Ordering::SeqCst);
    }

    /// The room is wanted that entries take up until they are acknowledged.
    pub fn ack_now(&self) {
        self.ack_now.notify_one();
    }

    /// Waits until the acker is not to wait for more.
    pub fn ack_wanted(&self) -> Notified<'_> {
        self.ack_now.notified()
    }

    /// Waits until something is settled.
    pub fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// A renewal has been answered.
    pub fn renewed(&self) {
        self.renewed.notify_waiters();
    }

    /// Waits for the next renewal that is answered, from when this is called.
    pub fn renewal(&self) -> Notified<'_> {
        self.renewed.notified()
    }

    /// Redis has acknowledged these entries of a batch.
    pub fn acknowledge(&self, batch: &Batch, indices: &[u32]) {
        self.succeeded.fetch_sub(indices.len(), Ordering::SeqCst);
        self.settle(batch, indices.iter().copied(), Outcome::Acked);
    }

    /// The server refuses to settle so many more, or so many are tried again.
    pub fn is_refused(&self, entries: usize) {
        self.stuck.fetch_add(entries, Ordering::SeqCst);
    }

    pub fn is_tried_again(&self, entries: usize) {
        self.stuck.fetch_sub(entries, Ordering::SeqCst);
    }

    /// One more is collected for a batch handler; so many more would make its batch whole.
    pub fn collect(&self, wanted: usize) {
        self.batched.fetch_add(1, Ordering::SeqCst);
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Nothing is collected any more of a batch that wanted more.
    pub fn wants_no_more(&self) {
        self.wanted.store(0, Ordering::Relaxed);
    }

    /// So many are no longer a batch's.
    pub fn leave_batch(&self, entries: usize) {
        self.batched.fetch_sub(entries, Ordering::SeqCst);
    }

    /// How many are in batches or collected for some: they wait for each other, and not for a slot each.
    pub fn batched(&self) -> usize {
        self.batched.load(Ordering::SeqCst)
    }

    /// How many more are worth reading for the sake of a batch that is collected.
    pub fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Relaxed)
    }

    /// How many the server refuses to settle.
    pub fn stuck(&self) -> usize {
        self.stuck.load(Ordering::SeqCst)
    }

    /// How many are held that have succeeded.
    pub fn succeeded(&self) -> usize {
        self.succeeded.load(Ordering::SeqCst)
    }

    /// How many bytes their fields have.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }

    /// How many have been settled since the worker began.
    pub fn settled(&self) -> u64 {
        self.settled.load(Ordering::SeqCst)
    }
}
