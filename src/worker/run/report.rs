//! Says what has become of an entry: in the log, and to the observer.

use std::time::Instant;

use super::verdict::Verdict;
use crate::context::Context;
use crate::duration;
use crate::worker::observer::{Outcome, Settled};
use crate::worker::state::about::{About, tell};
use crate::worker::state::inflight::{Batch, Owner};
use crate::worker::state::shared::Shared;

/// Says what has become of an entry that was handled.
#[inline]
pub(crate) fn report(
    shared: &Shared,
    batch: &Batch,
    ctx: &Context,
    verdict: &Verdict,
    owner: Owner,
    started: Option<Instant>,
) {
    if !matches!(verdict, Verdict::Ack) || tracing::enabled!(tracing::Level::DEBUG) {
        log(
            verdict,
            owner,
            &About::of(ctx, &batch.source),
            ctx.attempt(),
        );
    }
    if let Some(observer) = &shared.observer {
        let outcome = match verdict {
            Verdict::Ack => Outcome::Succeeded,
            Verdict::Retry { .. } => Outcome::Retried,
            Verdict::Release { .. } | Verdict::Wait { .. } => Outcome::Released,
            Verdict::Bury { .. } => Outcome::Buried,
        };
        let (started, lost) = (
            started.unwrap_or_else(Instant::now),
            owner == Owner::Another,
        );
        let queued = started.saturating_duration_since(batch.since);
        observer.settled(&Settled {
            context: ctx,
            outcome,
            lost,
            queued,
            ran: started.elapsed(),
        });
    }
}

/// The handler of an entry that is settled, or another's, has ended.
pub(crate) fn ended(
    shared: &Shared,
    batch: &Batch,
    index: u32,
    ctx: &Context,
    is_ours: bool,
    started: Option<Instant>,
) {
    let slot = &batch.slots[index as usize];
    slot.finish();
    if !is_ours {
        tell!(
            warn,
            About::of(ctx, &batch.source),
            attempt = ctx.attempt(),
            "handled, but another worker has taken it over: nothing was committed here"
        );
    }
    let owner = if is_ours { Owner::Us } else { Owner::Another };
    report(shared, batch, ctx, &Verdict::Ack, owner, started);
    shared.inflight.settle(batch, [slot]);
}

/// Says what became of an entry; of a success only to those who listen closely.
pub(crate) fn log(verdict: &Verdict, owner: Owner, about: &About<'_>, attempt: u32) {
    match verdict {
        Verdict::Ack => tell!(debug, about, attempt, "handled"),
        _ if owner == Owner::Another => {
            tell!(
                warn,
                about,
                attempt,
                "failed, but another worker has taken it over"
            );
        }
        Verdict::Retry { delay, error } => {
            let retry_in = duration::rounded(*delay);
            tell!(warn, about, attempt, %retry_in, "failed: {error}");
        }
        Verdict::Release { delay, error } => {
            let delay = duration::rounded(*delay);
            tell!(info, about, attempt, %delay, "given back: {error}");
        }
        Verdict::Wait { error, .. } => {
            tell!(info, about, attempt, "given back: {error}");
        }
        Verdict::Bury { reason, error } => {
            let reason = reason.as_str();
            tell!(
                error,
                about,
                attempt,
                reason,
                "to the dead letters: {error}"
            );
        }
    }
}
