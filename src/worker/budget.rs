//! How much a worker takes at once: as much as it is likely to finish soon, so that a fast handler gets large batches
//! and a slow one hoards nothing.

use std::time::{Duration, Instant};

use super::pace::{Pace, SPAN};
use super::shared::Shared;

/// Most bytes held, reads under way included.
pub(super) const BYTES: usize = 16 << 20;
/// What an entry is taken to have in bytes before the first has been seen.
const FIRST_SIZE: usize = 64 << 10;
/// What an entry costs beside its names and values.
const OVERHEAD: usize = 64;

/// Of what may be held a read asks for such a part: two are on their way, one has come, one is handled, and what is left
/// waits to be acknowledged, which takes as long as Redis takes for the reads before it.
const PARTS: usize = 7;

/// How fast and how large entries have been of late.
pub(super) struct Budget {
    pace: Pace,
    size: usize,
}

impl Budget {
    pub fn new() -> Self {
        Budget {
            pace: Pace::new(Instant::now()),
            size: FIRST_SIZE,
        }
    }

    /// How many entries may be taken now, with so many that have come and are not held yet: as many as are likely to be
    /// settled in a tenth of a second, at least one for each free slot, and no more than `prefetch` and [`BYTES`] allow.
    pub fn entries(&mut self, shared: &Shared, coming: usize) -> usize {
        let all = shared.held.entries() + coming;
        // What the server refuses to settle takes up memory, and is in nobody's way.
        let held = all - shared.held.stuck().min(all);
        // What only waits to be acknowledged is not in the way of what may be finished next.
        let open = held - shared.held.succeeded().min(held);
        let (prefetch, free) = (shared.prefetch, shared.slots.available_permits());
        let settled = shared.held.settled();
        let ahead = self.pace.ahead(Instant::now(), settled).min(prefetch);
        let bytes = shared.held.bytes() + coming * self.size;
        let bytes = BYTES.saturating_sub(bytes) / self.size.max(1);
        // What is held and does not run yet takes the free slots first.
        let waiting = held.saturating_sub(shared.concurrency - free);
        let by_slots = free.saturating_sub(waiting);
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
        // One entry larger than all that is allowed must pass, alone.
        budget.min(bytes.max(usize::from(held == 0)))
    }

    /// How many of the slots that lanes have offered may be taken by what comes first.
    pub fn offered(&self, shared: &Shared) -> usize {
        let free = shared.slots.available_permits();
        let open = shared
            .held
            .entries()
            .saturating_sub(shared.held.succeeded());
        let room = shared.prefetch.saturating_sub(open);
        shared.precedence.take_offered().min(free).min(room)
    }

    /// How many entries are likely to be settled in so long.
    pub fn ahead(&mut self, shared: &Shared, time: Duration) -> usize {
        let ahead = self.pace.ahead(Instant::now(), shared.held.settled());
        (ahead as f64 * time.as_secs_f64() / SPAN.as_secs_f64()) as usize
    }

    /// So many entries have come, of so many bytes. Their size rises at once and falls slowly: too few entries cost a
    /// round trip, too many cost memory.
    pub fn came(&mut self, entries: usize, bytes: usize) {
        let size = bytes / entries.max(1) + OVERHEAD;
        self.size = if size > self.size {
            size
        } else {
            (self.size * 7 + size) / 8
        };
    }
}
