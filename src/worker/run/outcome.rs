//! What has become of an entry, and the ways out to those who carry it out in Redis.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::verdict::Verdict;
use crate::context::Context;
use crate::context::notes::Gone;
use crate::effects::{CommitError, Committed};
use crate::event::Entry;
use crate::failure::Failure;
use crate::outbox::Items;
use crate::worker::state::inflight::{Batch, Inflight};

/// Entries of one batch that have succeeded.
pub(crate) struct Acks {
    pub batch: Arc<Batch>,
    pub slots: Vec<u32>,
    /// They were asked for before, and it is not known whether that was done.
    pub is_repeated: bool,
}

impl Acks {
    /// Those at these places of a batch.
    pub fn of(batch: Arc<Batch>, slots: Vec<u32>) -> Self {
        Acks {
            batch,
            slots,
            is_repeated: false,
        }
    }
}

/// What has become of an entry that has not succeeded.
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

/// What a batch handler leaves with the acknowledgement of its entries, which are of one stream.
pub(crate) struct CommittingBatch {
    /// Where each is held, its context, and its place among those that the handler was given.
    pub members: Vec<(Arc<Batch>, u32, Context, usize)>,
    /// That of the batch.
    pub ctx: Context,
    pub items: Items,
    pub who: WhoseBatch,
}

/// Who wants to know what becomes of it.
pub(crate) enum WhoseBatch {
    /// Who called the handler, which has returned.
    Returned(oneshot::Sender<BatchFate>),
    /// A handler that waits for it.
    Asked(oneshot::Sender<Result<Committed, CommitError>>),
}

/// What became of a batch that was to be committed.
pub(crate) enum BatchFate {
    Done,
    /// Nothing was done, for these, by their places, are not ours any more.
    Gone(Vec<(usize, Gone)>),
    /// Nothing was done, and the handler has failed.
    Failed(Failure),
    /// Nothing can be committed for so long.
    Refusing(Duration),
}

/// The ways out. Who carries out ends once all of these are gone; if that has ended before, the worker ends with an
/// error, and what is sent goes nowhere.
#[derive(Clone)]
pub(crate) struct Outcomes {
    inflight: Arc<Inflight>,
    acks: mpsc::UnboundedSender<Acks>,
    settlements: mpsc::UnboundedSender<Settlement>,
}

impl Outcomes {
    pub fn new(
        inflight: Arc<Inflight>,
        acks: mpsc::UnboundedSender<Acks>,
        settlements: mpsc::UnboundedSender<Settlement>,
    ) -> Self {
        Outcomes {
            inflight,
            acks,
            settlements,
        }
    }

    /// Entries of a batch have succeeded.
    pub fn acknowledge(&self, batch: &Arc<Batch>, slots: Vec<u32>) {
        if !slots.is_empty() {
            let batch = batch.clone();
            self.send(self.succeeded(Acks::of(batch, slots)));
        }
    }

    /// The same, to be [sent](Self::send) by somebody else.
    pub fn succeeded(&self, acks: Acks) -> Acks {
        self.inflight.succeed(acks.slots.len());
        acks
    }

    pub fn send(&self, acks: Acks) {
        let _ = self.acks.send(acks);
    }

    pub fn settle(&self, settlement: Settlement) {
        let _ = self.settlements.send(settlement);
    }
}
