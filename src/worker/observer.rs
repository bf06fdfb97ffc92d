//! What can be watched of every entry's life. Metrics hang on it; where none is set it costs nothing.

use std::time::Duration;

use crate::context::Context;

/// Watches the life of entries. Called on the way of an entry: an implementation must not block.
pub trait Observer: Send + Sync + 'static {
    /// So many entries of `stream` have come to this worker in one reply.
    fn delivered(&self, stream: &str, entries: usize) {
        let _ = (stream, entries);
    }

    /// A handler starts.
    fn started(&self, context: &Context) {
        let _ = context;
    }

    /// A handler has ended, and what is to become of its entry is decided.
    fn settled(&self, settled: &Settled<'_>) {
        let _ = settled;
    }
}

/// How a handler's run ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Settled<'a> {
    /// The event, its stream and its attempt.
    pub context: &'a Context,
    /// What becomes of the entry.
    pub outcome: Outcome,
    /// Another worker has taken the entry over meanwhile; what was decided here does not count.
    pub lost: bool,
    /// From the request that brought the entry to the handler's start.
    pub queued: Duration,
    /// From the handler's start to its end.
    pub ran: Duration,
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Acknowledged.
    Succeeded,
    /// Parked for a retry.
    Retried,
    /// Given back without using up an attempt.
    Released,
    /// Moved to the dead letters.
    Buried,
}

/// Watches nothing.
impl Observer for () {}
