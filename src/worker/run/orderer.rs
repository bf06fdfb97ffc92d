//! The orderer: where a stream's events have an order it stands between the fetcher and whoever handles them. What may run
//! goes on; what comes after another of its subject waits, here or in Redis: see [`super::line`]. It hears of everything
//! that is settled, and what that makes of those that wait goes out by a channel, for it hears on others' tasks.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rustc_hash::FxBuildHasher;
use tokio::sync::mpsc;

use super::line::{Act, Line, Place, Room};
use super::work::Item;
use crate::metrics::entries::Outcome;
use crate::stream::{Held, Pending, Whereabouts};
use crate::sync::lock;
use crate::worker::state::inflight::Batch;
use crate::worker::state::order::{Hears, Settled};
use crate::worker::state::source::{Source, Sources};

/// What is noted of an entry that only waits behind another.
pub(crate) const BEHIND: &str = "released unstarted: an earlier event of its subject comes first";

/// An entry that waits.
pub(crate) type Waiting = (Arc<Batch>, Item);

/// What is to be done that nobody asked for.
pub(crate) struct Task {
    /// The stream; the acts are of it and of its replayed entries.
    pub stream: String,
    pub acts: Vec<Act<Waiting>>,
}

/// What orders entries, and what it asks for.
pub(crate) struct Ordered {
    pub orderer: Arc<Orderer>,
    pub tasks: mpsc::UnboundedReceiver<Task>,
}

impl Ordered {
    /// What is needed if any of these streams has an order.
    pub fn of(sources: &Sources, prefetch: usize) -> Option<Self> {
        let sources = sources.named();
        sources.iter().find(|of| of.order.is_some())?;
        let (orderer, tasks) = Orderer::new(Room::of(prefetch));
        orderer.orders(&sources);
        Some(Ordered { orderer, tasks })
    }
}

/// Orders entries.
pub(crate) struct Orderer {
    lines: Mutex<Lines>,
    /// How many entries wait here for others.
    waiting: AtomicUsize,
    tasks: mpsc::UnboundedSender<Task>,
}

struct Lines {
    of: HashMap<String, Of>,
    room: Room,
    /// The worker stops: everything goes on, to be released.
    are_over: bool,
}

struct Of {
    line: Line<Waiting>,
    /// What was settled since a look began at what is pending, while there is one.
    settled: Option<HashSet<Place>>,
    /// How many first ones have been looked at: the next look goes on behind them.
    looked_at: usize,
}

impl Orderer {
    fn new(room: Room) -> (Arc<Self>, mpsc::UnboundedReceiver<Task>) {
        let (tasks, at_carrier) = mpsc::unbounded_channel();
        let lines = Mutex::new(Lines {
            of: HashMap::new(),
            room,
            are_over: false,
        });
        let waiting = AtomicUsize::new(0);
        let orderer = Orderer {
            lines,
            waiting,
            tasks,
        };
        (Arc::new(orderer), at_carrier)
    }

    /// It hears of what is settled of these from now on, if they have an order.
    pub fn orders(self: &Arc<Self>, sources: &[Arc<Source>]) {
        let orders = sources.iter().filter_map(|of| of.order.as_ref());
        orders.for_each(|order| order.heard_by(self.clone()));
    }

    /// Entries of a batch have come. Returns those that may run; those that are to wait in Redis go there.
    pub fn arrive(&self, batch: &Arc<Batch>, items: Vec<Item>) -> Vec<Item> {
        let stream = &batch.source.surroundings.stream;
        let (mut start, mut acts, mut later) =
            (Vec::with_capacity(items.len()), Vec::new(), Vec::new());
        let mut lines = lock(&self.lines);
        let are_over = lines.are_over;
        let of = of(&mut lines, stream);
        for item in items {
            let subject = item.entry.fields.value("subject");
            let Some(subject) = subject.filter(|subject| !subject.is_empty() && !are_over) else {
                start.push(item);
                continue;
            };
            let (place, subject) = (place(&batch.source, item.entry.id), hash(subject));
            // What is to run alone keeps others from running until it is settled: it must not wait for any of them.
            let (may_wait, item) = (!batch.alone, (batch.clone(), item));
            of.line.arrives(place, subject, item, may_wait, &mut acts);
            for act in acts.drain(..) {
                match act {
                    Act::Start((_, item)) => start.push(item),
                    other => later.push(other),
                }
            }
        }
        self.unlock(lines);
        self.send(stream, later);
        start
    }

    /// A look at what is pending begins: what is settled from now on may be in it.
    pub fn begins_to_look(&self, stream: &str) {
        of(&mut lock(&self.lines), stream).settled = Some(HashSet::new());
    }

    /// What is pending of a stream, a page of it.
    pub fn knows(&self, source: &Source, pending: &[Pending]) {
        let mut lines = lock(&self.lines);
        let of = of(&mut lines, &source.surroundings.stream);
        for pending in pending {
            let place = place(source, pending.id);
            let settled = of.settled.as_ref();
            if !settled.is_some_and(|settled| settled.contains(&place)) {
                of.line.knows(place, hash(&pending.subject), pending.is);
            }
        }
    }

    /// The dead letters of a stream that hold their subjects.
    pub fn dead(&self, stream: &str) -> Vec<Place> {
        let mut lines = lock(&self.lines);
        of(&mut lines, stream).line.dead().iter().copied().collect()
    }

    /// Whether so many wait behind a dead letter that no more should come.
    pub fn is_full(&self, stream: &str) -> bool {
        let lines = lock(&self.lines);
        lines.of.get(stream).is_some_and(|of| of.line.is_full())
    }

    /// Which dead letters hold their subjects. Those known `before` that was asked, and gone by now, do no more: what was
    /// replayed of them comes before all that waited for them.
    pub fn held(&self, stream: &str, before: &[Place], held: &Held) {
        let mut acts = Vec::new();
        let mut lines = lock(&self.lines);
        let of = of(&mut lines, stream);
        for (id, subject) in &held.copies {
            let place = Place {
                is_new: false,
                id: *id,
            };
            let settled = of.settled.as_ref();
            if !settled.is_some_and(|settled| settled.contains(&place)) {
                of.line.knows(place, hash(subject), Whereabouts::Worker);
            }
        }
        let mut there = HashSet::new();
        for (is_new, id, subject) in &held.there {
            let (is_new, id) = (*is_new, *id);
            there.insert(Place { is_new, id });
            of.line
                .is_held(Place { is_new, id }, hash(subject), &mut acts);
        }
        for place in before.iter().filter(|place| !there.contains(place)) {
            of.line.done(*place, &mut acts);
        }
        self.unlock(lines);
        self.send(stream, acts);
    }

    /// The look is over.
    pub fn has_looked(&self, stream: &str) {
        let mut acts = Vec::new();
        let mut lines = lock(&self.lines);
        let of = of(&mut lines, stream);
        of.settled = None;
        of.line.begins(&mut acts);
        self.unlock(lines);
        self.send(stream, acts);
    }

    /// These were found to be pending with nobody: they are done with, but for those that are known to be dead letters.
    pub fn gone(&self, stream: &str, places: impl IntoIterator<Item = Place>) {
        let mut acts = Vec::new();
        let mut lines = lock(&self.lines);
        let of = of(&mut lines, stream);
        for place in places {
            of.line.gone(place, &mut acts);
        }
        self.unlock(lines);
        self.send(stream, acts);
    }

    /// Up to `most` entries that others of their subjects wait for and that are not here; the next time, the next ones.
    pub fn awaited(&self, stream: &str, most: usize) -> Vec<Place> {
        let mut lines = lock(&self.lines);
        let of = of(&mut lines, stream);
        let mut awaited = of.line.awaited();
        if awaited.len() > most {
            let from = of.looked_at % awaited.len();
            awaited.rotate_left(from);
            awaited.truncate(most);
            of.looked_at = from + most;
        }
        awaited
    }

    /// The stream is to be another worker's: what waits here goes back to Redis.
    pub fn leaves(&self, stream: &str) {
        let mut acts = Vec::new();
        let mut lines = lock(&self.lines);
        of(&mut lines, stream).line.leaves(&mut acts);
        self.unlock(lines);
        self.send(stream, acts);
    }

    /// It is another worker's. Nothing is known of it any more.
    pub fn forgets(&self, stream: &str) {
        let mut lines = lock(&self.lines);
        lines.of.remove(stream);
        self.unlock(lines);
    }

    /// The worker stops. Returns what waits, to be released.
    pub fn ends(&self) -> Vec<Waiting> {
        let mut acts = Vec::new();
        let mut lines = lock(&self.lines);
        lines.are_over = true;
        for of in lines.of.values_mut() {
            of.line.leaves(&mut acts);
        }
        self.unlock(lines);
        let waits = |act| match act {
            Act::Park(waiting) | Act::Start(waiting) => Some(waiting),
            Act::Rouse(_) => None,
        };
        acts.into_iter().filter_map(waits).collect()
    }

    /// How many entries wait here for others of their subjects: they want no slot.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Counts what waits before others may change it. A worker has few streams to a shard.
    fn unlock(&self, lines: MutexGuard<'_, Lines>) {
        let waiting = lines.of.values().map(|of| of.line.waiting()).sum();
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    fn send(&self, stream: &str, acts: Vec<Act<Waiting>>) {
        if !acts.is_empty() {
            let stream = stream.to_owned();
            let _ = self.tasks.send(Task { stream, acts });
        }
    }
}

impl Hears for Orderer {
    fn settled(&self, entries: Settled<'_>) {
        let Settled {
            stream,
            is_new,
            holds,
            ids,
            outcome,
        } = entries;
        let is_back = matches!(
            outcome,
            Outcome::Released | Outcome::Retried | Outcome::Lost
        );
        let mut acts = Vec::new();
        let mut lines = lock(&self.lines);
        let are_over = lines.are_over;
        let Some(of) = lines.of.get_mut(stream) else {
            return;
        };
        for id in ids {
            let place = Place { is_new, id: *id };
            if is_back {
                of.line.back(place, &mut acts);
                continue;
            }
            match outcome {
                Outcome::Dead if holds => of.line.dies(place, &mut acts),
                _ => of.line.done(place, &mut acts),
            }
            if let Some(settled) = &mut of.settled {
                settled.insert(place);
            }
        }
        self.unlock(lines);
        if are_over {
            return;
        }
        self.send(stream, acts);
    }
}

fn of<'a>(lines: &'a mut Lines, stream: &str) -> &'a mut Of {
    if !lines.of.contains_key(stream) {
        let of = Of {
            line: Line::new(lines.room),
            settled: None,
            looked_at: 0,
        };
        lines.of.insert(stream.to_owned(), of);
    }
    lines.of.get_mut(stream).expect("it is there now")
}

fn place(source: &Source, id: crate::event::EntryId) -> Place {
    Place {
        is_new: !source.deletes(),
        id,
    }
}

/// Two subjects with the same hash wait for each other, and do no harm.
fn hash(subject: &[u8]) -> u64 {
    FxBuildHasher.hash_one(subject)
}
