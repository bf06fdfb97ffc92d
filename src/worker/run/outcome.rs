//! What has become of an entry, on its way to those who carry it out.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::verdict::Verdict;
use crate::context::Context;
use crate::effects::{CommitError, Committed};
use crate::event::Entry;
use crate::outbox::Items;
use crate::worker::state::inflight::Batch;

/// Entries of one batch that have succeeded.
pub(crate) struct Acks {
    pub batch: Arc<Batch>,
    pub slots: Vec<u32>,
}

/// What has become of an entry, on its way to Redis.
pub(crate) struct Settlement {
    pub batch: Arc<Batch>,
    pub index: u32,
    pub verdict: Verdict,
    pub body: Body,
    pub attempt: u32,
}

/// The fields of an entry that may have to be buried.
pub(crate) enum Body {
    Event(Context),
    Raw(Entry),
}

/// What a handler leaves with the acknowledgement of its entry.
pub(crate) struct Committing {
    pub batch: Arc<Batch>,
    pub index: u32,
    pub ctx: Context,
    pub items: Items,
    pub who: Who,
}

/// Who wants to know what becomes of it.
pub(crate) enum Who {
    /// A handler that has returned, and when it started.
    Returned(Option<Instant>),
    /// A handler that waits for it.
    Asked(oneshot::Sender<Result<Committed, CommitError>>),
}
