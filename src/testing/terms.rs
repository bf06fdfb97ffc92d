//! What is asked of a store, and what it tells.

use std::time::{Duration, SystemTime};

use crate::event::EntryId;
use crate::stream::Delivered;

/// When an event is published.
#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    Now,
    /// At this time, in milliseconds since 1970.
    At(u64),
    After(Duration),
    /// Unless it was within this time.
    Once(Duration),
}

impl How {
    pub fn at(at: SystemTime) -> Self {
        let since = at.duration_since(SystemTime::UNIX_EPOCH);
        How::At(since.unwrap_or_default().as_millis() as u64)
    }
}

/// What is due, and what else there is.
pub(super) struct Due {
    pub entries: Vec<Delivered>,
    pub trimmed: Vec<EntryId>,
    /// When the next parked entry is due, or a pause ends (ms).
    pub next: Option<u64>,
    /// When the next scheduled event is due (ms).
    pub scheduled: Option<u64>,
    /// What is paused: `stream`, or `handler:` and a type.
    pub paused: Vec<String>,
    /// Entries wait for a worker that can handle them.
    pub waiting: bool,
    /// Replayed entries wait.
    pub again: bool,
}
