//! How many runs of one handler there are at once, where that is limited. What comes while all places are taken waits
//! here, but only as much of it as is likely to have its turn within a tenth of a second; the rest goes back to Redis,
//! where it does not grow old in this worker's memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::work::Member;
use crate::config::RateScope;
use crate::policy::Room;
use crate::sync::lock;
use crate::worker::state::throughput::Throughput;

/// How soon it is asked again where all places are taken; that one is free is told.
const LOOK: Duration = Duration::from_millis(250);

/// What waits for a place of the group's goes back to Redis after this if there is none; and entries come again only after
/// that: by then there may be one.
const GIVES_BACK: Duration = Duration::from_secs(1);
const DENIED: Duration = Duration::from_secs(3);
/// What had no place comes again within this, or another worker has it.
const REFUSED: Duration = Duration::from_secs(2);

/// The places that a handler's runs may take: so many in this worker, or those of its group's that this worker has.
pub(crate) struct ConcurrencyLimit {
    /// Whether there is a limit: all else is looked at only then.
    is_on: AtomicBool,
    configured: Option<(usize, RateScope)>,
    state: Mutex<State>,
    /// Told if there are too few of the group's.
    wants: Arc<Notify>,
}

struct State {
    most: usize,
    /// How many the whole group may run, if it is that which is limited.
    of_group: Option<usize>,
    running: usize,
    waiting: VecDeque<Member>,
    /// When one came that had no place, if none has had one since.
    refused: Option<Instant>,
    /// Since when the group has had none for this worker.
    denied: Option<Instant>,
    ended: u64,
    throughput: Throughput,
}

/// What becomes of an entry that comes.
pub(crate) enum Entered {
    /// It runs, and [`ConcurrencyLimit::leave`] is to be called when it has ended.
    Runs(Member),
    /// It will come back from [`ConcurrencyLimit::leave`].
    Waits,
    /// There is no room: it goes back to Redis.
    Full(Member),
}

impl ConcurrencyLimit {
    /// As it is configured, if it is; whoever asks for the group's places is told by `wants`.
    pub fn new(configured: Option<(usize, RateScope)>, wants: Arc<Notify>) -> Self {
        let (most, of_group) = places(configured);
        ConcurrencyLimit {
            is_on: AtomicBool::new(configured.is_some()),
            configured,
            wants,
            state: Mutex::new(State {
                most,
                of_group,
                running: 0,
                waiting: VecDeque::new(),
                refused: None,
                denied: None,
                ended: 0,
                throughput: Throughput::new(Instant::now()),
            }),
        }
    }

    /// Whether there is a limit. What enters is to leave whatever this says by then.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// The whole group is limited to so many, in place of what is configured; to that again if it is none.
    pub fn set(&self, of_group: Option<usize>) {
        let wanted = of_group
            .map(|most| (most, RateScope::Group))
            .or(self.configured);
        let (most, of_group) = places(wanted);
        let mut state = self.lock();
        if wanted.is_some() && of_group.is_some() && state.of_group.is_some() {
            // It has what it has until it is told otherwise, but no more than there are.
            state.most = state.most.min(of_group.unwrap_or_default());
        } else {
            state.most = most;
        }
        state.of_group = of_group;
        self.is_on.store(wanted.is_some(), Ordering::Relaxed);
        self.wants.notify_one();
    }

    /// How many the whole group may run, if it is that which is limited.
    pub fn of_group(&self) -> Option<usize> {
        match self.is_on() {
            true => self.lock().of_group,
            false => None,
        }
    }

    /// This worker has so many of the group's places. Returns whether that changes something for what waits here.
    pub fn set_permits(&self, most: usize) -> bool {
        let mut state = self.lock();
        let are_more = most > state.most;
        if state.of_group.is_some() {
            state.most = most;
        }
        match most {
            0 => state.denied.get_or_insert_with(Instant::now),
            _ => return std::mem::take(&mut state.denied).is_some() || are_more,
        };
        state.is_to_give_back() && !state.waiting.is_empty()
    }

    /// What waits here in vain goes back to Redis, for a worker that has places.
    pub fn give_back(&self) -> VecDeque<Member> {
        let mut state = self.lock();
        match state.is_to_give_back() {
            true => std::mem::take(&mut state.waiting),
            false => VecDeque::new(),
        }
    }

    /// How many run, how many wait, here or in Redis as far as is known, and how many have ended, ever.
    pub fn demand(&self) -> (usize, usize, u64) {
        let state = self.lock();
        let refused = state.refused.is_some_and(|at| at.elapsed() < REFUSED);
        let waiting = state.waiting.len().max(usize::from(refused));
        (state.running, waiting, state.ended)
    }

    /// The next that waits, if there is a place for it: it has that now.
    pub fn next(&self) -> Option<Member> {
        let mut state = self.lock();
        if state.running >= state.most {
            return None;
        }
        let next = state.waiting.pop_front()?;
        state.running += 1;
        Some(next)
    }

    /// An entry comes.
    pub fn enter(&self, entry: Member) -> Entered {
        let mut state = self.lock();
        if state.running < state.most {
            state.running += 1;
            state.refused = None;
            return Entered::Runs(entry);
        }
        if state.of_group.is_some() {
            // It is one more, whether it waits here or in Redis.
            state.refused = Some(Instant::now());
            self.wants.notify_one();
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
    pub fn leave(&self) -> Option<Member> {
        let mut state = self.lock();
        state.ended += 1;
        // There may be fewer places than there were.
        let next = match state.running > state.most {
            true => None,
            false => state.waiting.pop_front(),
        };
        if next.is_none() {
            state.running -= 1;
        }
        next
    }

    /// All that wait, which will not run.
    pub fn drain(&self) -> VecDeque<Member> {
        std::mem::take(&mut self.lock().waiting)
    }

    /// How many more may come.
    pub fn room(&self) -> Room {
        if !self.is_on() {
            return Room::Any;
        }
        let mut state = self.lock();
        if state.of_group.is_some() && state.most == 0 {
            match state.denied.map(|since| since.elapsed()) {
                // Others have them all. It is asked for places meanwhile, not for entries.
                Some(since) if since < DENIED => return Room::None(LOOK),
                Some(_) => state.denied = None,
                None => {}
            }
        }
        let free = state.most.saturating_sub(state.running);
        let more = state.ahead().saturating_sub(state.waiting.len());
        match free.saturating_add(more) {
            0 => Room::None(LOOK),
            room => Room::Some(room),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// How many places there are at first, and how many the group has.
fn places(limit: Option<(usize, RateScope)>) -> (usize, Option<usize>) {
    match limit {
        None => (usize::MAX, None),
        Some((most, RateScope::Worker)) => (most, None),
        Some((most, _)) => (0, Some(most)),
    }
}

impl State {
    fn is_to_give_back(&self) -> bool {
        let since = self.denied.map(|since| since.elapsed());
        self.of_group.is_some() && self.most == 0 && since.is_some_and(|since| since >= GIVES_BACK)
    }

    fn ahead(&mut self) -> usize {
        // Of a group's places one is asked for once an entry waits for it.
        let is_first = self.of_group.is_some() && self.most == 0;
        let ahead = self.throughput.ahead(Instant::now(), self.ended);
        ahead.max(usize::from(is_first))
    }
}
