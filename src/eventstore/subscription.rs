//! Reading along: the events of a category or of an aggregate from a position on, and then each as it is stored.
//!
//! What is there is read, source by source, until none has any; then a connection of its own waits until one has. The
//! wait brings no events, it only ends: so nothing is lost with it, whoever drops it, and whatever it would have said.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use super::category::{CategoryEvent, check};
use super::id::AggregateId;
use super::position::{At, Position};
use super::redis::RedisEventStore;
use super::subscription_source::{One, Partition};
use crate::error::{Error, ErrorKind, Result};
use crate::event::EntryId;
use crate::retry::Backoff;
use crate::stream::Waiter;

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

/// Events from a position on, and then each as it is stored: [`RedisEventStore::subscribe`].
pub struct Subscription {
    store: RedisEventStore,
    sources: Sources,
    waiter: Option<Waiter>,
    /// Kept when a call is dropped: a connection that waits answers nothing else.
    waiting: Option<Pin<Box<dyn Future<Output = Result<()>> + Send>>>,
    is_live: bool,
    errors: u32,
    pause_until: Option<Instant>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("store", &self.store)
            .field("is_live", &self.is_live)
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
    /// Where a kind is not one.
    pub fn subscribe(&self, kinds: &[&str]) -> Result<Subscription> {
        kinds.iter().try_for_each(|kind| check(kind))?;
        let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        let partition = |number| Partition::new(number, kinds.clone(), EntryId::default());
        let partitions = (0..self.public().names().count()).map(partition).collect();
        Ok(self.subscription(Sources::Category {
            partitions,
            turn: 0,
            quiet: 0,
        }))
    }

    /// The events of an aggregate from the first one on, and then each as it is stored.
    pub fn subscribe_to(&self, aggregate: &AggregateId) -> Subscription {
        self.subscription(Sources::Aggregate(One::new(aggregate.clone(), 0)))
    }

    fn subscription(&self, sources: Sources) -> Subscription {
        Subscription {
            store: self.clone(),
            sources,
            waiter: None,
            waiting: None,
            is_live: false,
            errors: 0,
            pause_until: None,
        }
    }
}

impl Subscription {
    /// The same, of one partition alone.
    ///
    /// # Errors
    /// Where there is no such partition, or it is an aggregate that is subscribed to.
    pub fn in_partition(mut self, partition: usize) -> Result<Self> {
        self.store.public().partition_keys(partition)?;
        match &mut self.sources {
            Sources::Category { partitions, .. } => {
                partitions.retain(|one| one.number == partition);
                Ok(self)
            }
            Sources::Aggregate(_) => {
                Err(invalid("an aggregate's events are in one partition anyway"))
            }
        }
    }

    /// The same, of events behind a position alone, as a subscription to the same has told it.
    ///
    /// # Errors
    /// Where it is the position of another subscription: of an aggregate for a category, or the other way about, or in
    /// another number of partitions.
    pub fn after(mut self, position: &Position) -> Result<Self> {
        match (&mut self.sources, &position.0) {
            (Sources::Aggregate(one), At::Version(version)) => {
                *one = One::new(one.id.clone(), *version)
            }
            (Sources::Category { partitions, .. }, At::Public(positions))
                if partitions.len() == positions.len() =>
            {
                for (partition, position) in partitions.iter_mut().zip(positions) {
                    partition.go_to(*position);
                }
            }
            (Sources::Aggregate(_), _) => {
                return Err(invalid("an aggregate's position is a version, like 7"));
            }
            (Sources::Category { partitions, .. }, _) => {
                let count = partitions.len();
                return Err(invalid(&format!(
                    "{position} is no position in {count} partitions: it has one in each, like 1732360000000-0"
                )));
            }
        }
        Ok(self)
    }

    /// How far it has come: behind the last event told. Going on from there tells what comes after it.
    pub fn position(&self) -> Position {
        Position(match &self.sources {
            Sources::Category { partitions, .. } => {
                At::Public(partitions.iter().map(Partition::kept).collect())
            }
            Sources::Aggregate(one) => At::Version(one.version()),
        })
    }

    /// Whether it has caught up: [`Subscribed::CaughtUp`] has been told, and no error since.
    pub fn is_live(&self) -> bool {
        self.is_live
    }

    /// The next event; waits until there is one. It can be dropped before it has ended: nothing is passed over, and
    /// nothing comes twice.
    ///
    /// # Errors
    /// Where Redis can't be read, or an aggregate has an event that can't be, or lacks one. Nothing is passed over: this
    /// can be called again at once, waits a growing while by itself after errors that follow each other (up to 5 s), and
    /// goes on where it was.
    pub async fn next(&mut self) -> Result<Subscribed> {
        if let Some(until) = self.pause_until {
            tokio::time::sleep_until(until).await;
            self.pause_until = None;
        }
        match self.look().await {
            Ok(told) => {
                self.errors = 0;
                Ok(told)
            }
            Err(error) => {
                self.errors = self.errors.saturating_add(1);
                self.pause_until = Some(Instant::now() + PAUSE.delay(self.errors, fastrand::f64()));
                self.is_live = false;
                Err(error)
            }
        }
    }

    async fn look(&mut self) -> Result<Subscribed> {
        loop {
            if self.waiting.is_none() {
                if let Some(event) = self.sources.next(&self.store).await? {
                    return Ok(Subscribed::Event(event));
                }
                if !std::mem::replace(&mut self.is_live, true) {
                    return Ok(Subscribed::CaughtUp);
                }
                let waiter = match &self.waiter {
                    Some(waiter) => waiter.clone(),
                    None => self.waiter.insert(self.store.line.waiter().await?).clone(),
                };
                self.waiting = Some(Box::pin(waiter.wait(self.sources.ends(&self.store)?)));
            }
            let waiting = self.waiting.as_mut().expect("it has just been made");
            let waited = waiting.await;
            self.waiting = None;
            if let Err(error) = waited {
                self.waiter = None;
                return Err(error);
            }
            self.errors = 0;
        }
    }
}

impl Sources {
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
