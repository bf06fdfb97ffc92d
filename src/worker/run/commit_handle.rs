//! What handlers leave to the committer when they end.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::outcome::{Body, Committing, CommittingBatch, Outcomes, Settlement, Who};
use super::report::Reporter;
use super::routes::Routes;
use super::verdict;
use crate::about::{About, tell};
use crate::config::HandlerPolicy;
use crate::context::Ask;
use crate::context::Context;
use crate::failure::Failure;
use crate::outbox::{Deferred, End, Known};
use crate::worker::state::inflight::Batch;

/// Whether the end of a handler's run may be a commit's to tell.
pub(crate) fn takes(ctx: &Context, policy: &HandlerPolicy) -> bool {
    ctx.outbox().is_some() || policy.deduplicate.is_some()
}

/// The way to the committer of those who make attempts.
pub(crate) struct CommitHandle {
    routes: Arc<Routes>,
    reporter: Arc<Reporter>,
    outcomes: Outcomes,
    jobs: mpsc::UnboundedSender<Committing>,
    batches: mpsc::UnboundedSender<CommittingBatch>,
    /// While it is there handlers can ask.
    _asks: mpsc::UnboundedSender<Ask>,
}

impl CommitHandle {
    pub fn new(
        routes: Arc<Routes>,
        reporter: Arc<Reporter>,
        outcomes: Outcomes,
        jobs: mpsc::UnboundedSender<Committing>,
        batches: mpsc::UnboundedSender<CommittingBatch>,
        asks: mpsc::UnboundedSender<Ask>,
    ) -> Self {
        CommitHandle {
            routes,
            reporter,
            outcomes,
            jobs,
            batches,
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
        // What its commit comes to is known later: a stop that comes before that is not why it is refused.
        ctx.has_ended();
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
                        About::of(ctx, &batch.source.keys.stream),
                        "failed after its commit, which stands: {error}"
                    );
                }
                let is_ours = matches!(end, End::Settled);
                self.reporter.ended(batch, index, ctx, is_ours, started);
                None
            }
            (End::Waits, _) => {
                slot.finish();
                None
            }
        }
    }

    /// A batch handler has come to its end, and leaves something with its acknowledgements.
    pub fn commit_batch(&self, batch: CommittingBatch) {
        let _ = self.batches.send(batch);
    }

    /// What is to become of a handler that was dropped: returns it if no commit decides.
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
            let (reporter, outcomes) = (self.reporter.clone(), self.outcomes.clone());
            let (batch, ctx) = (settlement.batch.clone(), ctx.clone());
            Box::new(move |known| {
                if let Known::Refused(_) = known {
                    let owner = batch.slots[index as usize].owner();
                    reporter.settled(&batch, &ctx, &settlement.verdict, owner, Some(started));
                    outcomes.settle(settlement);
                } else {
                    let is_ours = matches!(known, Known::Settled);
                    reporter.ended(&batch, index, &ctx, is_ours, Some(started));
                }
            })
        });
        if let End::Settled | End::Lost = end {
            let is_ours = matches!(end, End::Settled);
            self.reporter
                .ended(&batch, index, ctx, is_ours, Some(started));
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
        let (reporter, outcomes) = (self.reporter.clone(), self.outcomes.clone());
        let (routes, batch, ctx) = (self.routes.clone(), batch.clone(), ctx.clone());
        Box::new(move |known| {
            let Known::Refused(refused) = known else {
                let is_ours = matches!(known, Known::Settled);
                return reporter.ended(&batch, index, &ctx, is_ours, started);
            };
            let failure = result.err().unwrap_or_else(|| Failure::retry(refused));
            let verdict = verdict::of_end(&failure, &ctx, routes.policy(&ctx));
            let owner = batch.slots[index as usize].owner();
            reporter.handled(&batch, &ctx, &verdict, owner, started);
            let attempt = ctx.attempt();
            outcomes.settle(Settlement {
                batch,
                index,
                verdict,
                body: Body::Event(ctx),
                attempt,
            });
        })
    }
}
