//! What is counted of a worker's entries: of each stream and each event type. An entry is counted once it is settled, on
//! the thread that hears so from Redis; what its handler took was noted beside it until then.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use super::cells::{Cells, Lot, Unit};
use super::snapshot::{Labels, Snapshot, Value, of};
use super::table::Id;

/// The label of whatever is not registered.
pub const OTHER: &str = "other";
/// Most types of streams that are told apart, of all workers of a process. Each takes up 12 kB or more.
const MOST_TYPES: usize = 1000;
const NS_OF_MS: u64 = 1_000_000;

/// A label's values.
macro_rules! values {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $value:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$of])* $value,)*
        }

        impl $name {
            pub const ALL: &[$name] = &[$($name::$value),*];
            const COUNT: usize = Self::ALL.len();

            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$value => $text,)*
                }
            }
        }
    };
}

values! {
    /// How an entry came.
    Via {
        Read = "read",
        Wake = "wake",
        Reclaim = "reclaim",
        Adopt = "adopt",
        Replay = "replay",
    }
}

values! {
    /// What became of an entry, as Redis says.
    Outcome {
        Acked = "acked",
        Committed = "committed",
        Retried = "retried",
        Released = "released",
        Dead = "dead",
        /// It had been done before.
        Duplicate = "duplicate",
        /// It was no longer this worker's.
        Lost = "lost",
        /// An operator has cancelled it.
        Cancelled = "cancelled",
    }
}

values! {
    /// How an attempt failed.
    Failed {
        Error = "error",
        Timeout = "timeout",
        Panic = "panic",
        Lease = "lease",
    }
}

values! {
    /// What held an entry back.
    HeldBy {
        Breaker = "breaker",
        Rate = "rate",
        Places = "places",
        Pause = "pause",
    }
}

values! {
    /// Why an entry is a dead letter.
    Reason {
        Failed = "failed",
        Permanent = "permanent",
        Crashed = "crashed",
        Undecodable = "undecodable",
        Unhandled = "unhandled",
        TooLarge = "too_large",
        Expired = "expired",
    }
}

/// What a worker counts.
pub struct WorkerCounts {
    group: Box<str>,
    /// The registered types, in the order of their places, and [`OTHER`].
    types: Arc<[Box<str>]>,
    streams: Vec<Arc<StreamCounts>>,
    clock: Arc<ServerTime>,
    margin: Cells,
    blocked: Box<[AtomicU64]>,
}

/// What a worker counts of one stream.
pub struct StreamCounts {
    stream: Box<str>,
    group: Box<str>,
    types: Arc<[Box<str>]>,
    clock: Arc<ServerTime>,
    delivered: [AtomicU64; Via::COUNT],
    lapsed: AtomicU64,
    of: Box<[OnceLock<Box<TypeCounts>>]>,
    /// How many there are of those, with those of all others.
    made: Arc<AtomicUsize>,
}

/// By which times of entries are told: the server's clock, as far as it is known.
#[derive(Debug)]
pub struct ServerTime {
    /// What this machine's clock showed when the worker began,
    began_ms: u64,
    /// and the server's; 0 where it has not told.
    server_began_ms: Arc<AtomicU64>,
}

struct TypeCounts {
    settled: [AtomicU64; Outcome::COUNT],
    failed: [AtomicU64; Failed::COUNT],
    held_back: [AtomicU64; HeldBy::COUNT],
    dead: [AtomicU64; Reason::COUNT],
    /// Made when the first entry comes to that: most outcomes are rare.
    ran: [OnceLock<Cells>; Outcome::COUNT],
    wait: Cells,
    end_to_end: Cells,
    attempts: Cells,
}

/// An entry that is settled.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The place of its type, the last one for [`OTHER`].
    pub place: usize,
    pub outcome: Outcome,
    pub attempt: u32,
    /// Its time, by its id.
    pub ms: u64,
    /// When its handler started and for how long it ran, in ns since the worker began; none of one that did not start.
    pub ran: Option<(u64, u64)>,
}

/// Counts entries of one stream, those of one type and outcome that come behind each other at once.
pub struct Tally<'a> {
    counts: &'a StreamCounts,
    /// What the server's clock showed when the worker began, and shows now.
    began_ms: u64,
    now_ms: u64,
    of: Option<Alike<'a>>,
    entries: u64,
    ran: Lot,
    wait: Lot,
    end_to_end: Lot,
    attempts: Lot,
}

/// What entries of one type and outcome count to.
#[derive(Clone, Copy)]
struct Alike<'a> {
    place: usize,
    outcome: Outcome,
    is_an_end: bool,
    counts: &'a TypeCounts,
    ran: &'a Cells,
}

impl WorkerCounts {
    /// Of a worker that reads these streams and handles these types.
    pub fn new<'a>(
        group: &str,
        streams: impl IntoIterator<Item = &'a str>,
        types: impl IntoIterator<Item = &'a str>,
        clock: ServerTime,
        made: &Arc<AtomicUsize>,
    ) -> Self {
        let types = types.into_iter().chain([OTHER]);
        let types: Arc<[Box<str>]> = types.map(Box::from).collect();
        let clock = Arc::new(clock);
        let stream = |stream: &str| {
            Arc::new(StreamCounts {
                stream: stream.into(),
                group: group.into(),
                types: types.clone(),
                clock: clock.clone(),
                delivered: Default::default(),
                lapsed: AtomicU64::new(0),
                of: types.iter().map(|_| OnceLock::new()).collect(),
                made: made.clone(),
            })
        };
        WorkerCounts {
            group: group.into(),
            streams: streams.into_iter().map(stream).collect(),
            clock,
            margin: Cells::new(Unit::Milliseconds),
            blocked: types.iter().map(|_| AtomicU64::new(0)).collect(),
            types,
        }
    }

    /// Where it is noted what the server's clock showed when the worker began.
    pub fn server_began_ms(&self) -> &Arc<AtomicU64> {
        &self.clock.server_began_ms
    }

    /// What is counted of a stream.
    pub fn stream(&self, name: &str) -> Option<&Arc<StreamCounts>> {
        self.streams.iter().find(|counts| *counts.stream == *name)
    }

    /// So much was left of the lease of a batch when it was renewed.
    pub fn renewed(&self, margin_ms: u64) {
        self.margin.record(margin_ms);
    }

    /// A handler, by the place of its type, holds up the thread that speaks to Redis.
    pub fn blocked(&self, place: usize) {
        let last = self.blocked.len() - 1;
        self.blocked[place.min(last)].fetch_add(1, Ordering::Relaxed);
    }

    pub fn add_to(&self, snapshot: &mut Snapshot) {
        for counts in &self.streams {
            counts.add_to(snapshot);
        }
        if let Some(margin) = self.margin.get() {
            let labels = of(&[&self.group]);
            snapshot.add(Id::LeaseMargin, labels, Value::Histogram(margin));
        }
        for (name, count) in self.types.iter().zip(&self.blocked) {
            counted(snapshot, Id::HandlerBlocked, count, || {
                of(&[&self.group, name])
            });
        }
    }
}

impl StreamCounts {
    /// The place of whatever is not registered.
    pub fn other(&self) -> usize {
        self.types.len() - 1
    }

    /// So many entries have come.
    pub fn delivered(&self, via: Via, entries: usize) {
        self.delivered[via as usize].fetch_add(entries as u64, Ordering::Relaxed);
    }

    /// The lease of so many entries had run out before it was renewed.
    pub fn lapsed(&self, entries: usize) {
        self.lapsed.fetch_add(entries as u64, Ordering::Relaxed);
    }

    /// An attempt has failed.
    pub fn failed(&self, place: usize, how: Failed) {
        self.of(place).failed[how as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// An entry goes back unstarted.
    pub fn held_back(&self, place: usize, by: HeldBy) {
        self.of(place).held_back[by as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// An entry is a dead letter now.
    pub fn buried(&self, place: usize, reason: Reason) {
        self.of(place).dead[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Entries are settled `now`, in ns since the worker began.
    pub fn settle(&self, now: u64) -> Tally<'_> {
        let began_ms = self.clock.server_ms();
        Tally {
            counts: self,
            began_ms,
            now_ms: began_ms + now / NS_OF_MS,
            of: None,
            entries: 0,
            ran: Lot::default(),
            wait: Lot::default(),
            end_to_end: Lot::default(),
            attempts: Lot::default(),
        }
    }

    fn of(&self, place: usize) -> &TypeCounts {
        let last = self.of.len() - 1;
        let place = place.min(last);
        if let Some(counts) = self.of[place].get() {
            return counts;
        }
        // Beyond the limit there is one more for each stream.
        let is_one_more = place != last && self.made.load(Ordering::Relaxed) >= MOST_TYPES;
        let place = if is_one_more { last } else { place };
        self.of[place].get_or_init(|| {
            self.made.fetch_add(1, Ordering::Relaxed);
            Box::default()
        })
    }

    fn add_to(&self, snapshot: &mut Snapshot) {
        let (stream, group) = (&*self.stream, &*self.group);
        for (via, count) in Via::ALL.iter().zip(&self.delivered) {
            counted(snapshot, Id::Delivered, count, || {
                of(&[stream, group, via.as_str()])
            });
        }
        counted(snapshot, Id::LeaseLapsed, &self.lapsed, || {
            of(&[stream, group])
        });
        for (name, counts) in self.types.iter().zip(&self.of) {
            let Some(counts) = counts.get() else { continue };
            let labels = |more: &str| of(&[stream, group, name, more]);
            for (outcome, count) in Outcome::ALL.iter().zip(&counts.settled) {
                counted(snapshot, Id::Settled, count, || labels(outcome.as_str()));
            }
            for (how, count) in Failed::ALL.iter().zip(&counts.failed) {
                counted(snapshot, Id::Failures, count, || labels(how.as_str()));
            }
            for (by, count) in HeldBy::ALL.iter().zip(&counts.held_back) {
                counted(snapshot, Id::HeldBack, count, || labels(by.as_str()));
            }
            for (reason, count) in Reason::ALL.iter().zip(&counts.dead) {
                counted(snapshot, Id::DeadLetters, count, || labels(reason.as_str()));
            }
            for (outcome, cells) in Outcome::ALL.iter().zip(&counts.ran) {
                if let Some(histogram) = cells.get().and_then(Cells::get) {
                    let labels = labels(outcome.as_str());
                    snapshot.add(Id::ProcessDuration, labels, Value::Histogram(histogram));
                }
            }
            for (id, cells) in [
                (Id::Wait, &counts.wait),
                (Id::EndToEnd, &counts.end_to_end),
                (Id::Attempts, &counts.attempts),
            ] {
                if let Some(histogram) = cells.get() {
                    snapshot.add(id, of(&[stream, group, name]), Value::Histogram(histogram));
                }
            }
        }
    }
}

impl Default for TypeCounts {
    fn default() -> Self {
        TypeCounts {
            settled: Default::default(),
            failed: Default::default(),
            held_back: Default::default(),
            dead: Default::default(),
            ran: Default::default(),
            wait: Cells::new(Unit::Milliseconds),
            end_to_end: Cells::new(Unit::Milliseconds),
            attempts: Cells::new(Unit::Ones),
        }
    }
}

impl<'a> Tally<'a> {
    /// Counts one.
    #[inline]
    pub fn count(&mut self, entry: &Entry) {
        let of = match self.of {
            Some(of) if of.place == entry.place && of.outcome == entry.outcome => of,
            _ => self.turn_to(entry),
        };
        self.entries += 1;
        if let Some((since, ran)) = entry.ran {
            of.ran.gather(&mut self.ran, ran);
            if entry.attempt == 1 {
                let started_ms = self.began_ms + since / NS_OF_MS;
                let wait = started_ms.saturating_sub(entry.ms);
                of.counts.wait.gather(&mut self.wait, wait);
            }
        }
        if of.is_an_end {
            let age = self.now_ms.saturating_sub(entry.ms);
            of.counts.end_to_end.gather(&mut self.end_to_end, age);
            let attempt = u64::from(entry.attempt);
            of.counts.attempts.gather(&mut self.attempts, attempt);
        }
    }

    /// Counts those that came so far, and turns to what counts entries like this one.
    #[cold]
    fn turn_to(&mut self, entry: &Entry) -> Alike<'a> {
        self.flush();
        let (place, outcome) = (entry.place, entry.outcome);
        let counts = self.counts.of(place);
        let of = Alike {
            place,
            outcome,
            is_an_end: outcome.is_an_end(),
            ran: counts.ran[outcome as usize].get_or_init(|| Cells::new(Unit::Nanoseconds)),
            counts,
        };
        self.of = Some(of);
        of
    }

    fn flush(&mut self) {
        let Some(of) = self.of.take() else {
            return;
        };
        let entries = std::mem::take(&mut self.entries);
        of.counts.settled[of.outcome as usize].fetch_add(entries, Ordering::Relaxed);
        of.ran.put(&mut self.ran);
        of.counts.wait.put(&mut self.wait);
        of.counts.end_to_end.put(&mut self.end_to_end);
        of.counts.attempts.put(&mut self.attempts);
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Outcome {
    /// Whether the entry is over with it.
    fn is_an_end(self) -> bool {
        match self {
            Outcome::Acked
            | Outcome::Committed
            | Outcome::Dead
            | Outcome::Duplicate
            | Outcome::Cancelled => true,
            Outcome::Retried | Outcome::Released | Outcome::Lost => false,
        }
    }
}

impl Default for ServerTime {
    /// Of a worker that begins now.
    fn default() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        ServerTime {
            began_ms: now.map_or(0, |now| now.as_millis() as u64),
            server_began_ms: Arc::default(),
        }
    }
}

impl ServerTime {
    /// What the server's clock showed when the worker began.
    fn server_ms(&self) -> u64 {
        match self.server_began_ms.load(Ordering::Relaxed) {
            0 => self.began_ms,
            began => began,
        }
    }
}

fn counted(snapshot: &mut Snapshot, id: Id, count: &AtomicU64, labels: impl FnOnce() -> Labels) {
    let count = count.load(Ordering::Relaxed);
    if count > 0 {
        snapshot.add(id, labels(), Value::Counter(count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn worker(types: &[&str], made: &Arc<AtomicUsize>) -> WorkerCounts {
        let clock = ServerTime {
            began_ms: 0,
            server_began_ms: Arc::new(AtomicU64::new(10_000)),
        };
        WorkerCounts::new("g", ["orders", "mails"], types.iter().copied(), clock, made)
    }

    #[test]
    fn entries_are_counted_by_what_became_of_them() {
        let worker = worker(&["a", "b"], &Arc::default());
        let orders = worker.stream("orders").unwrap();
        let entry = |place, outcome, attempt, ran| Entry {
            place,
            outcome,
            attempt,
            ms: 9_000,
            ran,
        };
        let mut tally = orders.settle(500 * MS);
        for _ in 0..3 {
            tally.count(&entry(0, Outcome::Acked, 1, Some((100 * MS, 7 * MS))));
        }
        tally.count(&entry(1, Outcome::Retried, 2, Some((100 * MS, MS))));
        tally.count(&entry(0, Outcome::Acked, 3, Some((100 * MS, 8 * MS))));
        tally.count(&entry(2, Outcome::Released, 1, None));
        tally.count(&entry(99, Outcome::Dead, 5, None));
        drop(tally);
        let mut snapshot = Snapshot::default();
        worker.add_to(&mut snapshot);
        let settled = |with: &[(&str, &str)]| snapshot.total(Id::Settled, with);
        assert_eq!(settled(&[]), 7.0);
        assert_eq!(settled(&[("type", "a"), ("outcome", "acked")]), 4.0);
        assert_eq!(settled(&[("type", "b"), ("outcome", "retried")]), 1.0);
        assert_eq!(settled(&[("type", OTHER)]), 2.0);
        let ran = snapshot.histogram(Id::ProcessDuration, &[("outcome", "acked")]);
        assert_eq!(ran.count(), 4);
        assert!((ran.sum() - 0.029).abs() < 1e-9);
        let wait = snapshot.histogram(Id::Wait, &[]);
        assert_eq!((wait.count(), wait.sum()), (3, 3.3));
        let whole = snapshot.histogram(Id::EndToEnd, &[("type", "a")]);
        assert_eq!((whole.count(), whole.sum()), (4, 6.0));
        let attempts = snapshot.histogram(Id::Attempts, &[]);
        assert_eq!((attempts.count(), attempts.sum()), (5, 11.0));
    }

    #[test]
    fn what_is_rare_is_counted_where_it_belongs() {
        let worker = worker(&["a"], &Arc::default());
        let orders = worker.stream("orders").unwrap();
        assert!(worker.stream("other").is_none());
        orders.delivered(Via::Read, 10);
        orders.delivered(Via::Reclaim, 2);
        orders.lapsed(3);
        orders.failed(0, Failed::Panic);
        orders.held_back(0, HeldBy::Places);
        orders.buried(orders.other(), Reason::Unhandled);
        worker.renewed(1_500);
        worker.blocked(0);
        let mut snapshot = Snapshot::default();
        worker.add_to(&mut snapshot);
        let total = |id, with: &[(&str, &str)]| snapshot.total(id, with);
        assert_eq!(total(Id::Delivered, &[("via", "reclaim")]), 2.0);
        assert_eq!(total(Id::Delivered, &[("stream", "orders")]), 12.0);
        assert_eq!(total(Id::LeaseLapsed, &[]), 3.0);
        assert_eq!(
            total(Id::Failures, &[("type", "a"), ("kind", "panic")]),
            1.0
        );
        assert_eq!(total(Id::HeldBack, &[("by", "places")]), 1.0);
        assert_eq!(
            total(Id::DeadLetters, &[("type", OTHER), ("reason", "unhandled")]),
            1.0
        );
        assert_eq!(total(Id::HandlerBlocked, &[("type", "a")]), 1.0);
        assert_eq!(snapshot.histogram(Id::LeaseMargin, &[]).sum(), 1.5);
        assert!(
            snapshot
                .iter()
                .all(|(_, labels, _)| !labels.iter().any(|of| &**of == "mails"))
        );
    }

    #[test]
    fn there_is_an_end_to_series() {
        let made = Arc::new(AtomicUsize::new(MOST_TYPES - 1));
        let worker = worker(&["a", "b"], &made);
        let orders = worker.stream("orders").unwrap();
        for place in [0, 1, 1, 2] {
            orders.failed(place, Failed::Error);
        }
        orders.failed(0, Failed::Error);
        let mut snapshot = Snapshot::default();
        worker.add_to(&mut snapshot);
        let failures = |of| snapshot.total(Id::Failures, &[("type", of)]);
        assert_eq!(
            (failures("a"), failures("b"), failures(OTHER)),
            (2.0, 0.0, 3.0)
        );
    }
}
