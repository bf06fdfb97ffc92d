//! A stream as this worker reads it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::scheduler::Schedule;
use crate::context::Surroundings;
use crate::stream::Keys;

/// A stream this worker reads: one it was told to, or the replayed entries of one.
pub(super) struct Source {
    pub keys: Keys,
    pub surroundings: Arc<Surroundings>,
    /// The stream of replayed entries that belongs to it; None for such a stream itself.
    pub again: Option<Arc<Source>>,
    /// What is known of events that are to be added to it later.
    pub schedule: Schedule,
    /// Whether there is anything in it to look for: always, but for replayed entries.
    active: AtomicBool,
}

impl Source {
    /// The stream called `surroundings.stream`, with its stream of replayed entries.
    pub fn new(surroundings: Surroundings) -> Arc<Self> {
        let surroundings = Arc::new(surroundings);
        let keys = Keys::new(&surroundings.stream, &surroundings.group);
        let again = Arc::new(Source {
            keys: keys.again(&surroundings.group),
            surroundings: surroundings.clone(),
            again: None,
            schedule: Schedule::default(),
            active: AtomicBool::new(false),
        });
        Arc::new(Source {
            keys,
            surroundings,
            again: Some(again),
            schedule: Schedule::default(),
            active: AtomicBool::new(true),
        })
    }

    /// Whether settled entries are deleted: replayed ones are nobody else's.
    pub fn deletes(&self) -> bool {
        self.again.is_none()
    }

    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    pub fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Relaxed);
    }
}
