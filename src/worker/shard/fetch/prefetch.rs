//! How much a worker takes at once: as much as it is likely to finish soon, so that a fast handler gets large batches
//! and a slow one hoards nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::worker::run::orderer::Orderer;
use crate::worker::state::held::Held;
use crate::worker::state::inflight::Inflight;
use crate::worker::state::precedence::Precedence;
use crate::worker::state::slots::Slots;
use crate::worker::state::throughput::{SPAN, Throughput};

/// Most bytes a single wake, reclaim or adopt brings.
pub(super) const ROOM: usize = 4 << 20;
/// Most bytes held, reads under way included.
pub(crate) const BYTES: usize = 16 << 20;
/// What an entry is taken to have in bytes before the first has been seen: a first look is at few.
const FIRST_SIZE: usize = 1 << 20;
/// A limit that grew out of a cut is doubled after so long, and after at most so long if it is met again and again.
const GROW: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// What an entry costs beside its names and values.
const OVERHEAD: usize = 64;
/// Most entries that are taken at once to get at what stands behind them.
const THROUGH: usize = 128;

/// Of what may be held a read asks for such a part: two are on their way, one has come, one is handled, and what is left
/// waits to be acknowledged, which takes as long as Redis takes for the reads before it.
const PARTS: usize = 7;

/// How fast and how large entries have been of late.
pub(crate) struct Prefetch {
    /// `worker.prefetch`: most entries held.
    most_held: usize,
    inflight: Arc<Inflight>,
    /// What other shards hold counts as well.
    held: Arc<Held>,
    slots: Arc<Slots>,
    precedence: Arc<Precedence>,
    /// What keeps events in order, if any stream's have one.
    orderer: Option<Arc<Orderer>>,
    throughput: Throughput,
    /// The largest entry of late.
    size: usize,
    /// How many entries were last asked for.
    asked: usize,
    caution: Option<Caution>,
}

/// A connection was cut while an answer was waited for: perhaps because it was too large for the server's
/// `client-output-buffer-limit`. Less is asked for, and slowly more again.
#[derive(Clone, Copy)]
struct Caution {
    entries: usize,
    bytes: usize,
    wait: Duration,
    grow_at: Instant,
    has_grown: bool,
}

impl Prefetch {
    pub fn new(
        most_held: usize,
        inflight: Arc<Inflight>,
        held: Arc<Held>,
        slots: Arc<Slots>,
        precedence: Arc<Precedence>,
        orderer: Option<Arc<Orderer>>,
    ) -> Self {
        Prefetch {
            most_held,
            inflight,
            held,
            slots,
            precedence,
            orderer,
            throughput: Throughput::new(Instant::now()),
            size: FIRST_SIZE,
            asked: 0,
            caution: None,
        }
    }

    /// How many more bytes may be held.
    pub fn room(&self) -> usize {
        let others = self.held.besides(&self.inflight);
        let bytes = others.leave(BYTES, others.bytes);
        bytes.saturating_sub(self.inflight.bytes())
    }

    /// The most entries and bytes that one request other than a read may bring, of so many entries.
    pub fn most(&mut self, entries: usize) -> (usize, usize) {
        self.grow();
        let room = self.room().min(ROOM);
        let (entries, room) = match &self.caution {
            Some(caution) => (entries.min(caution.entries), room.min(caution.bytes)),
            None => (entries, room),
        };
        self.asked = entries;
        (entries, room)
    }

    /// So many entries are asked for, by all reads on their way.
    pub fn asks(&mut self, entries: usize) {
        self.asked = entries;
    }

    /// The connection broke that an answer was to come on: half of what was asked for is the most for now.
    pub fn cut(&mut self) {
        let before = self.caution.unwrap_or(Caution {
            entries: usize::MAX,
            bytes: ROOM,
            wait: GROW.0,
            grow_at: Instant::now(),
            has_grown: false,
        });
        let wait = match before.has_grown {
            true => (before.wait * 2).min(GROW.1),
            false => before.wait,
        };
        self.caution = Some(Caution {
            entries: (before.entries.min(self.asked) / 2).max(1),
            bytes: before.bytes / 2,
            wait,
            grow_at: Instant::now() + wait,
            has_grown: false,
        });
    }

    fn grow(&mut self) {
        let now = Instant::now();
        if let Some(caution) = &mut self.caution
            && now >= caution.grow_at
        {
            caution.entries = caution.entries.saturating_mul(2);
            caution.bytes = (caution.bytes * 2).clamp(1 << 10, ROOM);
            caution.grow_at = now + caution.wait;
            caution.has_grown = true;
            if caution.entries >= 1 << 20 {
                self.caution = None;
            }
        }
    }

    /// How many entries may be taken now, with so many that have come and are not held yet: as many as are likely to be
    /// settled in a tenth of a second, at least one for each free slot, and no more than `prefetch` and [`BYTES`] allow.
    pub fn entries(&mut self, coming: usize) -> usize {
        let others = self.held.besides(&self.inflight);
        let all = self.inflight.entries() + coming;
        // What the server refuses to settle takes up memory, and is in nobody's way.
        let held = all - self.inflight.stuck().min(all);
        // And so does what waits for an earlier event of its subject.
        let in_line = self.orderer.as_ref().map_or(0, |of| of.waiting());
        // What is in a batch takes one slot with all others of it, and what is collected none.
        let held = held.saturating_sub(in_line + self.inflight.batched());
        // What only waits to be acknowledged is not in the way of what may be finished next.
        let open = held - self.inflight.succeeded().min(held);
        let (prefetch, free) = (self.most_held, self.slots.free());
        let prefetch = others.leave(prefetch, others.entries);
        let settled = self.inflight.settled();
        let ahead = self.throughput.ahead(Instant::now(), settled).min(prefetch);
        let bytes = self.inflight.bytes() + coming * self.size;
        let bytes = others.leave(BYTES, others.bytes).saturating_sub(bytes) / self.size.max(1);
        // What is held and does not run yet takes the free slots first.
        let running = self.slots.all().saturating_sub(free);
        let waiting = (held + others.entries).saturating_sub(running);
        let mut by_slots = free.saturating_sub(waiting);
        if others.shards > 0 && held == 0 {
            // Else another shard's lanes would have every slot as soon as it is free: one has to wait for the next.
            by_slots = by_slots.max(1);
        }
        // Nobody waits for events that are there.
        by_slots = by_slots.max(self.inflight.wanted().saturating_sub(open));
        let mut budget = by_slots
            .max(ahead.saturating_sub(open))
            .min(prefetch.saturating_sub(all));
        // A part of a large budget and no less, so that fast handlers get large batches; and no more, so that one is
        // read while another is handled and a third acknowledged.
        let part = ahead / PARTS;
        if by_slots == 0 && budget < part {
            budget = 0;
        }
        budget = budget.min(part.max(by_slots));
        if self.caution.is_some() {
            self.grow();
            let most = self.caution.map_or(usize::MAX, |caution| caution.entries);
            budget = budget.min(most.saturating_sub(coming));
        }
        // One entry larger than all that is allowed must pass, alone.
        budget.min(bytes.max(usize::from(held == 0)))
    }

    /// How many are held that need a slot and have none.
    pub fn unstarted(&self) -> usize {
        let of_batches = self.inflight.batched();
        let not_waiting = self.slots.running() + self.inflight.succeeded() + of_batches;
        self.inflight.entries().saturating_sub(not_waiting)
    }

    /// How many may be taken of which most can't start, to get at what stands behind them.
    pub fn through(&self) -> usize {
        let others = self.held.besides(&self.inflight);
        let entries = others.leave(self.most_held, others.entries);
        let entries = entries.saturating_sub(self.inflight.entries());
        entries.min(self.room() / self.size.max(1)).min(THROUGH)
    }

    /// How many of the slots that lanes have offered may be taken by what comes first.
    pub fn offered(&self) -> usize {
        let free = self.slots.free() + self.precedence.kept();
        let open = self
            .inflight
            .entries()
            .saturating_sub(self.inflight.succeeded());
        let others = self.held.besides(&self.inflight);
        let room = others
            .leave(self.most_held, others.entries)
            .saturating_sub(open);
        self.precedence.take_offered().min(free).min(room)
    }

    /// How many entries are likely to be settled in so long.
    pub fn ahead(&mut self, time: Duration) -> usize {
        let ahead = self
            .throughput
            .ahead(Instant::now(), self.inflight.settled());
        (ahead as f64 * time.as_secs_f64() / SPAN.as_secs_f64()) as usize
    }

    /// Entries have come, the largest of so many bytes. Their size rises at once and falls within a few reads: too few
    /// entries cost a round trip, too many cost memory.
    pub fn came(&mut self, largest: usize) {
        self.size = (largest + OVERHEAD).max(self.size / 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With nothing held, room for 100 entries, and four slots.
    fn prefetch() -> Prefetch {
        let inflight = Arc::new(Inflight::new(Arc::default(), Arc::default()));
        let slots = Arc::new(Slots::new(4));
        Prefetch::new(100, inflight, Arc::default(), slots, Arc::default(), None)
    }

    #[test]
    fn before_anything_is_known_as_many_are_taken_as_slots_are_free() {
        let mut prefetch = prefetch();
        assert_eq!(
            [0, 1, 3, 4, 5].map(|coming| prefetch.entries(coming)),
            [4, 3, 1, 0, 0]
        );
        let _slot = prefetch.slots.try_take().expect("one of four");
        assert_eq!(prefetch.entries(0), 3);
    }

    #[test]
    fn no_more_is_taken_than_there_are_bytes_for_but_one_alone() {
        let mut prefetch = prefetch();
        prefetch.came(BYTES / 2 - OVERHEAD);
        assert_eq!([0, 1, 2].map(|coming| prefetch.entries(coming)), [2, 1, 0]);
        prefetch.came(2 * BYTES);
        assert_eq!([0, 1].map(|coming| prefetch.entries(coming)), [1, 0]);
        // The size falls within a few reads.
        for _ in 0..20 {
            prefetch.came(100);
        }
        assert_eq!(prefetch.size, 100 + OVERHEAD);
    }

    #[test]
    fn after_a_cut_half_of_what_was_asked_for_is_the_most_and_slowly_more_again() {
        let mut prefetch = prefetch();
        assert_eq!(prefetch.most(64), (64, ROOM));
        prefetch.cut();
        assert_eq!(prefetch.most(64), (32, ROOM / 2));
        prefetch.cut();
        assert_eq!(prefetch.most(64), (16, ROOM / 4));
        prefetch.asks(4);
        prefetch.cut();
        assert_eq!(prefetch.entries(0), 2);
        for most in [4, 8, 16] {
            let caution = prefetch.caution.as_mut().expect("it was cut");
            caution.grow_at = Instant::now();
            assert_eq!(prefetch.most(64).0, most);
        }
        // A limit that was met again is doubled later.
        let before = prefetch.caution.expect("it was cut").wait;
        prefetch.cut();
        assert_eq!(prefetch.caution.expect("it was cut").wait, 2 * before);
    }
}
