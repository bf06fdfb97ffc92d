//! What is collected for batch handlers. Each batch is of one handler and one stream, and of one key where the handler has
//! keys; it is whole when nothing more fits in, and who keeps it takes it then, or when its first entry has waited for long
//! enough: see [`super::keeper`].

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::sync::lock;
use crate::worker::run::routes::Bound;
use crate::worker::run::work::Member;
use crate::worker::state::inflight::Inflight;
use crate::worker::state::slots::Permit;

/// Batches of one key that wait while one runs. What is more goes back to Redis: a slow key is not to have all the room.
const OF_ONE_KEY: usize = 2;

/// Collects entries, those of one shard.
pub(crate) struct Gatherer {
    state: Mutex<State>,
    /// `worker.prefetch`: nothing more comes once so many are held.
    most_held: usize,
    /// How long a worker that stops waits for its handlers.
    pub drain: Duration,
}

#[derive(Default)]
struct State {
    lines: FxHashMap<Key, Line>,
    last_serial: u64,
    /// Batches that are not whole.
    open: usize,
}

/// What a batch is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The place of the handler.
    pub handler: usize,
    stream: String,
    of: Option<String>,
}

/// The batches of a key, the oldest first: the last may not be whole.
#[derive(Default)]
struct Line {
    batches: VecDeque<Gathering>,
    /// Somebody keeps all of them, one after the other.
    is_kept: bool,
}

struct Gathering {
    serial: u64,
    members: Vec<Member>,
    bytes: usize,
    is_whole: bool,
    until: Instant,
    wake: Arc<Notify>,
    permit: Option<Permit>,
}

/// A batch that is to run, with a slot if it got one along.
pub(super) struct Gathered {
    pub members: Vec<Member>,
    pub permit: Option<Permit>,
}

/// What became of an entry that came.
pub(super) enum Came {
    /// It is with others.
    In,
    /// It is the first of a batch that somebody is to keep.
    First(Kept),
    /// Too many wait.
    Full(Member),
}

/// What is to be kept: one batch, or all of a key, one after the other.
pub(super) struct Kept {
    pub key: Key,
    serial: Option<u64>,
}

/// Until when a batch waits for more, and what tells that it is whole.
pub(super) struct Waits {
    pub until: Instant,
    pub whole: Arc<Notify>,
}

impl Gatherer {
    pub fn new(most_held: usize, drain: Duration) -> Self {
        Gatherer {
            state: Mutex::default(),
            most_held,
            drain,
        }
    }

    /// An entry has come. A batch that is whole by it takes the slot along.
    pub(super) fn collect(
        &self,
        bound: &Bound,
        of: Option<String>,
        member: Member,
        inflight: &Inflight,
        permit: &mut Option<Permit>,
    ) -> Came {
        let Some(together) = &bound.batch else {
            return Came::Full(member);
        };
        let limits = together.limits;
        let most_bytes = usize::try_from(limits.bytes.bytes()).unwrap_or(usize::MAX);
        let key = Key {
            handler: bound.place,
            stream: member.batch.source.surroundings.stream.clone(),
            of,
        };
        let by_key = key.of.is_some();
        let bytes = member.batch.slots[member.index as usize].size();
        let mut state = self.lock();
        let State {
            lines,
            last_serial,
            open,
        } = &mut *state;
        let line = match lines.entry(key.clone()) {
            Entry::Occupied(line) => line.into_mut(),
            Entry::Vacant(free) => free.insert(Line::default()),
        };
        let fits = |last: &Gathering| !last.is_whole && last.bytes + bytes <= most_bytes;
        let mut first = None;
        if !line.batches.back().is_some_and(fits) {
            if by_key && line.is_kept && line.batches.len() >= OF_ONE_KEY {
                return Came::Full(member);
            }
            if let Some(last) = line.batches.back_mut() {
                last.close(open, &mut None);
            }
            *last_serial += 1;
            *open += 1;
            line.batches.push_back(Gathering {
                serial: *last_serial,
                members: Vec::new(),
                bytes: 0,
                is_whole: false,
                until: Instant::now() + limits.wait,
                wake: Arc::default(),
                permit: None,
            });
            if !(by_key && std::mem::replace(&mut line.is_kept, true)) {
                let serial = (!by_key).then_some(*last_serial);
                first = Some(Kept { key, serial });
            }
        }
        together.collect();
        if let Some(last) = line.batches.back_mut() {
            last.members.push(member);
            last.bytes += bytes;
            inflight.collect(limits.size - last.members.len());
            if last.members.len() >= limits.size || last.bytes >= most_bytes {
                last.close(open, permit);
            }
        }
        if *open > 0 && inflight.entries() >= self.most_held {
            // Nothing can come that they would wait for.
            for line in lines.values_mut() {
                if let Some(last) = line.batches.back_mut() {
                    last.close(open, &mut None);
                }
            }
        }
        if *open == 0 {
            inflight.wants_no_more();
        }
        first.map_or(Came::In, Came::First)
    }

    /// What the next batch to be kept waits for; None once there is none.
    pub(super) fn next(&self, kept: &Kept) -> Option<Waits> {
        let mut state = self.lock();
        let Entry::Occupied(mut line) = state.lines.entry(kept.key.clone()) else {
            return None;
        };
        let found = line.get_mut().find(kept.serial).map(|batch| Waits {
            until: batch.until,
            whole: batch.wake.clone(),
        });
        if found.is_none() && line.get().batches.is_empty() {
            line.remove();
        }
        found
    }

    /// Takes it, whole or not.
    pub(super) fn take(&self, kept: &Kept, inflight: &Inflight) -> Option<Gathered> {
        let mut state = self.lock();
        let State { lines, open, .. } = &mut *state;
        let line = lines.get_mut(&kept.key)?;
        let at = match kept.serial {
            None => 0,
            Some(serial) => line
                .batches
                .iter()
                .position(|batch| batch.serial == serial)?,
        };
        let mut batch = line.batches.remove(at)?;
        batch.close(open, &mut None);
        if kept.serial.is_some() && line.batches.is_empty() {
            lines.remove(&kept.key);
        }
        if *open == 0 {
            inflight.wants_no_more();
        }
        let Gathering {
            mut members,
            permit,
            ..
        } = batch;
        // Lanes take turns, and what one of them brought later may have come here first.
        members.sort_by_key(|member| member.batch.slots[member.index as usize].id);
        Some(Gathered { members, permit })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Line {
    fn find(&mut self, serial: Option<u64>) -> Option<&mut Gathering> {
        match serial {
            None => self.batches.front_mut(),
            Some(serial) => self.batches.iter_mut().find(|batch| batch.serial == serial),
        }
    }
}

impl Gathering {
    /// Nothing more comes to it.
    fn close(&mut self, open: &mut usize, permit: &mut Option<Permit>) {
        if !std::mem::replace(&mut self.is_whole, true) {
            *open -= 1;
            self.permit = permit.take();
            self.wake.notify_one();
        }
    }
}
