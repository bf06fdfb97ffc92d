//! What is handed on to be handled.

use std::sync::Arc;
use std::time::Duration;

use crate::context::Context;
use crate::event::Entry;
use crate::stream::Record;
use crate::worker::state::inflight::Batch;

/// Entries that are handed to a lane at once.
pub(crate) const RUN: usize = 32;

/// Part of a batch, on its way to handlers.
pub(crate) struct Run {
    pub batch: Arc<Batch>,
    pub items: Vec<Item>,
}

/// One entry to be handled.
pub(crate) struct Item {
    /// Its place in the batch.
    pub index: u32,
    pub entry: Entry,
    /// Set where it was delivered before.
    pub past: Option<Box<Past>>,
}

/// What is known of an entry that was delivered before.
pub(crate) struct Past {
    pub record: Option<Record>,
    /// Since its first delivery.
    pub age: Duration,
}

/// An entry that has been admitted and does not run yet: it waits for a place, or for others to be handled with.
pub(crate) struct Member {
    pub batch: Arc<Batch>,
    pub index: u32,
    pub ctx: Context,
}
