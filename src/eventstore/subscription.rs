//! Reading along: the events of a category or of an aggregate from a position on, and then each as it is stored.
//!
//! What is there is read, source by source, until none has any; then a connection of its own waits until one has. The
//! wait brings no events, it only ends: so nothing is lost with it, whoever drops it, and whatever it would have said.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::time::Instant;

use super::asking::{Asking, Reads};
use super::category::{CategoryEvent, check};
use super::position::{At, Position};
use super::redis::RedisEventStore;
use super::subscription_source::{One, Partition};
use crate::aggregate_id::AggregateId;
use crate::error::{Error, ErrorKind, Result};
use crate::event::EntryId;
use crate::retry::Backoff;
use crate::stream::Waiters;

/// How long the call after an error waits, by how many there have been.
const PAUSE: Backoff = Backoff {
    initial: Duration::from_millis(50),
    factor: 2.0,
    max: Duration::from_secs(5),
    jitter: 0.2,
};

/// What a subscription tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subscribed {
    /// An event.
    Event(CategoryEvent),
    /// There is nothing more: what comes from now on has just been stored. Told once, and once more after an error.
    CaughtUp,
}

/// Events from a position on, and then each as it is stored: [`RedisEventStore::subscribe`]. A `Stream` that does not end,
/// and [`next`](Self::next) for who has no use for one.
#[must_use = "it reads nothing before it is asked"]
pub struct Subscription {
    store: RedisEventStore,
    of: Of,
    /// How far it had come, and whether it was live, when the read under way began.
    position: Position,
    is_live: bool,
    asking: Asking<'static, Along>,
}

/// What is subscribed to.
#[derive(Clone)]
enum Of {
    Category {
        kinds: Vec<String>,
        partitions: Vec<usize>,
    },
    Aggregate(AggregateId),
}

/// Reads along.
struct Along {
    store: RedisEventStore,
    sources: Sources,
    waiters: Waiters,
    /// Nothing more is there than what is waited for, also if a call is dropped.
    is_waiting: bool,
    is_live: bool,
    errors: u32,
    pause_until: Option<Instant>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("store", &self.store)
            .field("is_live", &self.is_live())
            .finish_non_exhaustive()
    }
}

enum Sources {
    Category {
        partitions: Vec<Partition>,
        /// Whose turn it is.
        turn: usize,
        /// How many in a row have had nothing.
        quiet: usize,
    },
    Aggregate(One),
}

impl RedisEventStore {
    /// The events of all aggregates of these kinds from the first one on, and then each as it is stored.
    ///
    /// Those of one partition come in the order of their positions on the public stream, those of one aggregate in the
    /// order of their versions; between partitions there is no order. What is on the public stream and is no event of
    /// these aggregates is passed over. Where the public stream has been trimmed, the aggregates are read.
    ///
    /// # Errors
    /// If a kind is not one.
    pub fn subscribe(&self, kinds: &[&str]) -> Result<Subscription> {
        kinds.iter().try_for_each(|kind| check(kind))?;
        let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        let partitions: Vec<usize> = (0..self.public().names().count()).collect();
        let first = At::Public(vec![EntryId::default(); partitions.len()]);
        Ok(Subscription::new(
            self.clone(),
            Of::Category { kinds, partitions },
            Position(first),
        ))
    }

    /// The events of an aggregate from the first one on, and then each as it is stored.
    pub fn subscribe_to(&self, aggregate: &AggregateId) -> Subscription {
        let first = Position(At::Version(0));
        Subscription::new(self.clone(), Of::Aggregate(aggregate.clone()), first)
    }
}

impl Subscription {
    fn new(store: RedisEventStore, of: Of, position: Position) -> Self {
        let along = Along {
            store: store.clone(),
            sources: Sources::new(&of, &position),
            waiters: store.line.waiters(),
            is_waiting: false,
            is_live: false,
            errors: 0,
            pause_until: None,
        };
        Subscription {
            store,
            of,
            position,
            is_live: false,
            asking: Asking::of(along),
        }
    }

    /// The same, of one partition alone.
    ///
    /// # Errors
    /// If there is no such partition, or it is an aggregate that is subscribed to.
    pub fn in_partition(self, partition: usize) -> Result<Self> {
        self.store.public().partition_keys(partition)?;
        let position = self.position();
        match (self.of, position.0) {
            (Of::Category { kinds, partitions }, At::Public(positions)) => {
                let both = partitions.into_iter().zip(positions);
                let (partitions, positions) = both.filter(|(one, _)| *one == partition).unzip();
                let of = Of::Category { kinds, partitions };
                let position = Position(At::Public(positions));
                Ok(Subscription::new(self.store, of, position))
            }
            _ => Err(invalid("an aggregate's events are in one partition anyway")),
        }
    }

    /// The same, of events behind a position alone, as a subscription to the same has told it.
    ///
    /// # Errors
    /// If it is the position of another subscription: of an aggregate for a category, or the other way about, or in
    /// another number of partitions.
    pub fn after(self, position: &Position) -> Result<Self> {
        match (&self.of, &position.0) {
            (Of::Aggregate(_), At::Version(_)) => {}
            (Of::Category { partitions, .. }, At::Public(positions))
                if partitions.len() == positions.len() => {}
            (Of::Aggregate(_), _) => {
                return Err(invalid("an aggregate's position is a version, like 7"));
            }
            (Of::Category { partitions, .. }, _) => {
                let count = partitions.len();
                return Err(invalid(&format!(
                    "{position} is no position in {count} partitions: it has one in each, like 1732360000000-0"
                )));
            }
        }
        Ok(Subscription::new(self.store, self.of, position.clone()))
    }

    /// How far it has come: behind the last event told. Going on from there tells what comes after it.
    pub fn position(&self) -> Position {
        match self.asking.if_idle() {
            Some(along) => along.sources.position(),
            None => self.position.clone(),
        }
    }

    /// Whether it has caught up: [`Subscribed::CaughtUp`] has been told, and no error since.
    pub fn is_live(&self) -> bool {
        let idle = self.asking.if_idle();
        idle.map_or(self.is_live, |along| along.is_live)
    }

    /// The next event; waits until there is one. It can be dropped before it has ended: nothing is passed over, and
    /// nothing comes twice.
    ///
    /// # Errors
    /// If Redis can't be read, or an aggregate has an event that can't be, or lacks one. Nothing is passed over: this can
    /// be called again at once, waits a growing while by itself after errors that follow each other (up to 5 s), and goes
    /// on where it was.
    pub async fn next(&mut self) -> Result<Subscribed> {
        let told = std::future::poll_fn(|cx| self.poll(cx)).await;
        told.expect("it does not end")
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Subscribed>>> {
        if let Some(along) = self.asking.if_idle() {
            (self.position, self.is_live) = (along.sources.position(), along.is_live);
        }
        self.asking.poll_next(cx)
    }
}

impl Stream for Subscription {
    type Item = Result<Subscribed>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(cx)
    }
}

impl Reads for Along {
    type Item = Subscribed;

    fn here(&mut self) -> Option<Subscribed> {
        None
    }

    async fn read(&mut self) -> Result<Option<Subscribed>> {
        if let Some(until) = self.pause_until {
            tokio::time::sleep_until(until).await;
            self.pause_until = None;
        }
        match self.look().await {
            Ok(told) => {
                self.errors = 0;
                Ok(Some(told))
            }
            Err(error) => {
                self.errors = self.errors.saturating_add(1);
                self.pause_until = Some(Instant::now() + PAUSE.delay(self.errors, fastrand::f64()));
                self.is_live = false;
                Err(error)
            }
        }
    }
}

impl Along {
    async fn look(&mut self) -> Result<Subscribed> {
        loop {
            if !self.is_waiting {
                if let Some(event) = self.sources.next(&self.store).await? {
                    return Ok(Subscribed::Event(event));
                }
                if !std::mem::replace(&mut self.is_live, true) {
                    return Ok(Subscribed::CaughtUp);
                }
                self.is_waiting = true;
            }
            let ends = self.sources.ends(&self.store)?;
            let waited = self.waiters.wait(ends).await;
            self.is_waiting = false;
            waited?;
            self.errors = 0;
        }
    }
}

impl Sources {
    fn new(of: &Of, position: &Position) -> Self {
        match (of, &position.0) {
            (Of::Aggregate(id), At::Version(version)) => {
                Sources::Aggregate(One::new(id.clone(), *version))
            }
            (Of::Aggregate(id), At::Public(_)) => Sources::Aggregate(One::new(id.clone(), 0)),
            (Of::Category { kinds, partitions }, at) => {
                let at = |place: usize| match at {
                    At::Public(positions) => positions.get(place).copied().unwrap_or_default(),
                    At::Version(_) => EntryId::default(),
                };
                let numbers = partitions.iter().enumerate();
                let partitions = numbers
                    .map(|(place, number)| Partition::new(*number, kinds.clone(), at(place)))
                    .collect();
                Sources::Category {
                    partitions,
                    turn: 0,
                    quiet: 0,
                }
            }
        }
    }

    fn position(&self) -> Position {
        Position(match self {
            Sources::Category { partitions, .. } => {
                At::Public(partitions.iter().map(Partition::kept).collect())
            }
            Sources::Aggregate(one) => At::Version(one.version()),
        })
    }

    /// The next event of those that are there.
    async fn next(&mut self, store: &RedisEventStore) -> Result<Option<CategoryEvent>> {
        let (partitions, turn, quiet) = match self {
            Sources::Aggregate(one) => return one.next(store).await,
            Sources::Category {
                partitions,
                turn,
                quiet,
            } => (partitions, turn, quiet),
        };
        // A partition is read on until what was read of it is told: to ask all others for each event would be slow.
        while *quiet < partitions.len() {
            let partition = &mut partitions[*turn];
            let event = partition.next(store).await?;
            if event.is_some() {
                *quiet = 0;
            } else {
                *quiet += 1;
            }
            if !partition.has_some() {
                *turn = (*turn + 1) % partitions.len();
            }
            if event.is_some() {
                return Ok(event);
            }
        }
        *quiet = 0;
        Ok(None)
    }

    /// Where each stream has been read to.
    fn ends(&self, store: &RedisEventStore) -> Result<Vec<(String, EntryId)>> {
        match self {
            Sources::Aggregate(one) => {
                let last = EntryId {
                    ms: one.version(),
                    seq: 0,
                };
                Ok(vec![(store.public().key(&one.id), last)])
            }
            Sources::Category { partitions, .. } => partitions
                .iter()
                .map(|one| {
                    let stream = store.public().partition_keys(one.number)?.stream.clone();
                    Ok((stream, one.read_to()))
                })
                .collect(),
        }
    }
}

fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::Invalid, message)
}
