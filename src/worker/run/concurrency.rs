//! How many runs of one handler there are at once, where that is limited. What comes while all places are taken waits
//! here, but only as much of it as is likely to have its turn within a tenth of a second; the rest goes back to Redis,
//! where it does not grow old in this worker's memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::context::Context;
use crate::policy::Room;
use crate::sync::lock;
use crate::worker::state::inflight::Batch;
use crate::worker::state::throughput::Throughput;

/// How soon it is asked again where all places are taken; that one is free is told.
const LOOK: Duration = Duration::from_millis(250);

/// The places that a handler's runs may take.
pub(crate) struct ConcurrencyLimit {
    most: usize,
    state: Mutex<State>,
}

struct State {
    running: usize,
    waiting: VecDeque<Waiting>,
    ended: u64,
    throughput: Throughput,
}

/// An entry that has been admitted and does not run yet.
pub(crate) struct Waiting {
    pub batch: Arc<Batch>,
    pub index: u32,
    pub ctx: Context,
}

/// What becomes of an entry that comes.
pub(crate) enum Entered {
    /// It runs, and [`ConcurrencyLimit::leave`] is to be called when it has ended.
    Runs(Waiting),
    /// It will come back from [`ConcurrencyLimit::leave`].
    Waits,
    /// There is no room: it goes back to Redis.
    Full(Waiting),
}

impl ConcurrencyLimit {
    pub fn new(most: usize) -> Self {
        ConcurrencyLimit {
            most,
            state: Mutex::new(State {
                running: 0,
                waiting: VecDeque::new(),
                ended: 0,
                throughput: Throughput::new(Instant::now()),
            }),
        }
    }

    /// An entry comes.
    pub fn enter(&self, entry: Waiting) -> Entered {
        let mut state = self.lock();
        if state.running < self.most {
            state.running += 1;
            return Entered::Runs(entry);
        }
        let ahead = state.ahead();
        if state.waiting.len() < ahead {
            match entry.batch.first {
                true => state.waiting.push_front(entry),
                false => state.waiting.push_back(entry),
            }
            return Entered::Waits;
        }
        Entered::Full(entry)
    }

    /// A run has ended: its place goes to the next that waits, which is answered, or is free.
    pub fn leave(&self) -> Option<Waiting> {
        let mut state = self.lock();
        state.ended += 1;
        let next = state.waiting.pop_front();
        if next.is_none() {
            state.running -= 1;
        }
        next
    }

    /// All that wait, which will not run.
    pub fn drain(&self) -> VecDeque<Waiting> {
        std::mem::take(&mut self.lock().waiting)
    }

    /// How many more may come.
    pub fn room(&self) -> Room {
        let mut state = self.lock();
        let free = self.most - state.running;
        let more = state.ahead().saturating_sub(state.waiting.len());
        match free + more {
            0 => Room::None(LOOK),
            room => Room::Some(room),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn ahead(&mut self) -> usize {
        self.throughput.ahead(Instant::now(), self.ended)
    }
}
