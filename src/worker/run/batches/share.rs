//! What a worker's shards have in common of one batch handler: its limits, and how many of its batches run at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::config::BatchLimits;
use crate::handler::KeyOf;
use crate::policy::Room;

/// How soon it is asked again if as many run and wait as may.
const LOOK: Duration = Duration::from_millis(250);

/// A handler that takes many events at once.
pub(crate) struct Together {
    pub limits: BatchLimits,
    pub key: Option<KeyOf>,
    /// If `concurrency` limits how many of its batches run at once.
    pub places: Option<Arc<Semaphore>>,
    /// Entries that are collected and do not run yet.
    collected: AtomicUsize,
}

impl Together {
    pub fn new(limits: BatchLimits, key: Option<KeyOf>, concurrency: Option<usize>) -> Self {
        Together {
            limits,
            key,
            places: concurrency.map(|places| Arc::new(Semaphore::new(places))),
            collected: AtomicUsize::new(0),
        }
    }

    /// How many more of its entries may come: if all places are taken, those of one batch more.
    pub fn room(&self) -> Room {
        match &self.places {
            Some(places) if places.available_permits() == 0 => {
                let collected = self.collected.load(Ordering::SeqCst);
                match self.limits.size.saturating_sub(collected) {
                    0 => Room::None(LOOK),
                    room => Room::Some(room),
                }
            }
            _ => Room::Any,
        }
    }

    /// Whether one more would wait for long.
    pub(super) fn is_full(&self) -> bool {
        let places = self.places.as_ref();
        places.is_some_and(|places| places.available_permits() == 0)
            && self.collected.load(Ordering::SeqCst) >= 2 * self.limits.size
    }

    pub(super) fn collect(&self) {
        self.collected.fetch_add(1, Ordering::SeqCst);
    }

    /// So many run, or go back.
    pub(super) fn go(&self, entries: usize) {
        self.collected.fetch_sub(entries, Ordering::SeqCst);
    }
}
