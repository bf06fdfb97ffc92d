//! What handlers leave to the committer when they end.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::outcome::Body;
use super::outcome::Committing;
use super::outcome::Settlement;
use super::outcome::Who;
use super::report::{ended, report, settled};
use super::verdict;
use crate::config::HandlerPolicy;
use crate::context::Ask;
use crate::context::Context;
use crate::failure::Failure;
use crate::outbox::{Deferred, End, Known};
use crate::worker::state::about::{About, tell};
use crate::worker::state::inflight::Batch;
use crate::worker::state::shared::Shared;

/// The executor's way to the committer.
pub(crate) struct CommitHandle {
    shared: Arc<Shared>,
    jobs: mpsc::UnboundedSender<Committing>,
    settle: mpsc::UnboundedSender<Settlement>,
    /// While it is there handlers can ask.
    _asks: mpsc::UnboundedSender<Ask>,
}

impl CommitHandle {
    pub fn new(
        shared: Arc<Shared>,
        jobs: mpsc::UnboundedSender<Committing>,
        asks: mpsc::UnboundedSender<Ask>,
        settle: mpsc::UnboundedSender<Settlement>,
    ) -> Self {
        CommitHandle {
            shared,
            jobs,
            settle,
            _asks: asks,
        }
    }

    /// A handler has come to its end. Takes care of one that leaves something with the acknowledgement, or has
    /// committed itself; answers the result of any other.
    pub fn take(
        &self,
        batch: &Arc<Batch>,
        index: u32,
        ctx: &Context,
        policy: &HandlerPolicy,
        result: Result<(), Failure>,
        started: Option<Instant>,
    ) -> Option<Result<(), Failure>> {
        let outbox = match (ctx.outbox(), policy.deduplicate) {
            (Some(outbox), _) => outbox,
            // Its success is noted along with the acknowledgement, where there is an id to note it under.
            (None, Some(_)) if result.is_ok() && ctx.envelope().id_bytes().is_some() => {
                ctx.outbox_or_new()
            }
            _ => return Some(result),
        };
        let is_noted = policy.deduplicate.is_some() && ctx.envelope().id_bytes().is_some();
        let mut result = Some(result);
        let end = outbox.end(|| {
            let result = result.take().expect("it is there once");
            self.once_it_is_known(batch, index, ctx, result, started)
        });
        let slot = &batch.slots[index as usize];
        match (end, result) {
            (End::Items(mut items), Some(Ok(()))) => match items.wrong.take() {
                Some(wrong) => Some(Err(Failure::permanent(wrong))),
                None if items.is_empty() && !is_noted => Some(Ok(())),
                None => {
                    slot.finish();
                    let _ = self.jobs.send(Committing {
                        batch: batch.clone(),
                        index,
                        ctx: ctx.clone(),
                        items,
                        who: Who::Returned(started),
                    });
                    None
                }
            },
            (End::Items(_), result) => result,
            (end @ (End::Settled | End::Lost), result) => {
                if let (End::Settled, Some(Err(failure))) = (&end, &result) {
                    let error = failure.to_string();
                    tell!(
                        warn,
                        About::of(ctx, &batch.source),
                        "failed after its commit, which stands: {error}"
                    );
                }
                let is_ours = matches!(end, End::Settled);
                ended(&self.shared, batch, index, ctx, is_ours, started);
                None
            }
            (End::Waits, _) => {
                slot.finish();
                None
            }
        }
    }

    /// What is to become of a handler that was dropped: answers it where no commit decides.
    pub fn unless_committed(
        &self,
        settlement: Settlement,
        ctx: &Context,
        started: Instant,
    ) -> Option<Settlement> {
        let Some(outbox) = ctx.outbox() else {
            return Some(settlement);
        };
        let (batch, index) = (settlement.batch.clone(), settlement.index);
        let mut settlement = Some(settlement);
        let end = outbox.end(|| {
            let settlement = settlement.take().expect("it is there once");
            let (shared, settle) = (self.shared.clone(), self.settle.clone());
            let (batch, ctx) = (settlement.batch.clone(), ctx.clone());
            Box::new(move |known| {
                if let Known::Refused(_) = known {
                    let (verdict, owner) =
                        (&settlement.verdict, batch.slots[index as usize].owner());
                    settled(&shared, &batch, &ctx, verdict, owner, Some(started));
                    let _ = settle.send(settlement);
                } else {
                    let is_ours = matches!(known, Known::Settled);
                    ended(&shared, &batch, index, &ctx, is_ours, Some(started));
                }
            })
        });
        if let End::Settled | End::Lost = end {
            let is_ours = matches!(end, End::Settled);
            ended(&self.shared, &batch, index, ctx, is_ours, Some(started));
            return None;
        }
        settlement
    }

    /// For a handler that ended while its commit was on its way: dropped at its timeout, or it went on without it.
    fn once_it_is_known(
        &self,
        batch: &Arc<Batch>,
        index: u32,
        ctx: &Context,
        result: Result<(), Failure>,
        started: Option<Instant>,
    ) -> Deferred {
        let (shared, settle) = (self.shared.clone(), self.settle.clone());
        let (batch, ctx) = (batch.clone(), ctx.clone());
        Box::new(move |known| {
            let Known::Refused(refused) = known else {
                let is_ours = matches!(known, Known::Settled);
                return ended(&shared, &batch, index, &ctx, is_ours, started);
            };
            let failure = result.err().unwrap_or_else(|| Failure::retry(refused));
            let verdict = verdict::of_end(&failure, &ctx, shared.routes.policy(&ctx));
            let owner = batch.slots[index as usize].owner();
            report(&shared, &batch, &ctx, &verdict, owner, started);
            let attempt = ctx.attempt();
            let _ = settle.send(Settlement {
                batch,
                index,
                verdict,
                body: Body::Event(ctx),
                attempt,
            });
        })
    }
}
