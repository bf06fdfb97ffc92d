//! Where a worker dies.

use std::fmt;

/// Where a worker dies: see [`TestWorker::kill`](super::TestWorker::kill).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum At {
    /// Entries have come, and no handler has started.
    Delivered,
    /// A handler has succeeded, or asks for its commit; nothing of that is known in Redis.
    BeforeAck,
    /// An entry is acknowledged, with what its handler left, and the worker does not hear of it.
    AfterAck,
    /// A handler has failed, or an entry is to be released or buried; nothing of that is known in Redis.
    BeforeRetry,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            At::Delivered => "with entries delivered and none begun",
            At::BeforeAck => "before it acknowledges",
            At::AfterAck => "when it has acknowledged and does not know it",
            At::BeforeRetry => "before it parks or buries",
        })
    }
}
