//! What a program can watch of every entry's life, beyond what [`crate::metrics`] counts; where nothing is set it costs
//! nothing.
//!
//! Of each entry that was delivered one of two things is told: that its handler [started](Observer::started) and what it
//! was [settled](Observer::settled) as, or that it left [without a handler](Observer::unstarted). What a worker still
//! holds when its process is killed is told by nobody.

use std::time::Duration;

use crate::context::Context;
use crate::dead_letters::Reason;
use crate::event::EntryId;
use crate::fields::Fields;

/// Watches the life of entries. Called on the way of an entry: an implementation must not block.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no observer",
    label = "this is no observer",
    note = "write `impl streamhand::Observer for {Self} {{}}` and override what is to be watched"
)]
pub trait Observer: Send + Sync + 'static {
    /// So many entries of `stream` have come to this worker in one reply.
    fn delivered(&self, stream: &str, entries: usize) {
        let _ = (stream, entries);
    }

    /// A handler starts. It is settled once, however it ends.
    fn started(&self, context: &Context) {
        let _ = context;
    }

    /// A handler that has started is over, and what is to become of its entry is decided.
    fn settled(&self, settled: &Settled<'_>) {
        let _ = settled;
    }

    /// An entry leaves without its handler having started: it is no event, nobody handles it, it is a copy of what was
    /// done, or it is released.
    fn unstarted(&self, unstarted: &Unstarted<'_>) {
        let _ = unstarted;
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
    /// What went wrong, in words, with all that caused it; none of a success.
    pub error: Option<&'a str>,
    /// Why it is in the dead letters, if it goes there.
    pub reason: Option<Reason>,
    /// When it comes back, if it does.
    pub delay: Option<Duration>,
    /// Another worker has taken the entry over meanwhile; what was decided here does not count.
    pub lost: bool,
    /// From the request that brought the entry to the handler's start.
    pub queued: Duration,
    /// From the handler's start to its end.
    pub ran: Duration,
}

/// An entry that no handler started for.
#[derive(Debug)]
#[non_exhaustive]
pub struct Unstarted<'a> {
    /// The stream it was read from.
    pub stream: &'a str,
    /// Its id.
    pub entry: EntryId,
    /// Its fields as they came, with or without a type; none of one that is too large to come.
    pub fields: &'a Fields,
    /// What becomes of it.
    pub outcome: Outcome,
    /// Why, in words; none of what is acknowledged.
    pub error: Option<&'a str>,
    /// Why it is in the dead letters, if it goes there.
    pub reason: Option<Reason>,
    /// When it comes back, if it is released: at once, or when its handler is free, and then no later than this.
    pub delay: Option<Duration>,
    /// Another worker has taken the entry over meanwhile; what was decided here does not count.
    pub lost: bool,
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Acknowledged: its handler succeeded.
    Succeeded,
    /// Parked for a retry.
    Retried,
    /// Released without using up an attempt.
    Released,
    /// Moved to the dead letters.
    Buried,
    /// Acknowledged without a handler: its type is nobody's business here.
    Ignored,
    /// Acknowledged without a handler: its event has succeeded, as this entry or as another.
    Duplicate,
    /// Acknowledged because an operator has cancelled it, whether its handler had started or not.
    Cancelled,
}

/// Watches nothing.
impl Observer for () {}
