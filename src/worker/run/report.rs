//! Says what has become of an entry: in the log, and to the observer.

use std::time::{Duration, Instant};

use super::outcome::Body;
use super::verdict::{Reason, Verdict};
use crate::context::Context;
use crate::duration;
use crate::event::EntryId;
use crate::fields::Fields;
use crate::worker::observer::{Observer, Outcome, Settled, Unstarted};
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
    settled(shared, batch, ctx, verdict, owner, started);
}

/// Tells the observer of a handler that is over.
#[inline]
pub(crate) fn settled(
    shared: &Shared,
    batch: &Batch,
    ctx: &Context,
    verdict: &Verdict,
    owner: Owner,
    started: Option<Instant>,
) {
    if let Some(observer) = &shared.observer {
        let (outcome, error, reason, delay) = told(verdict);
        let started = started.unwrap_or_else(Instant::now);
        observer.settled(&Settled {
            context: ctx,
            outcome,
            error,
            reason,
            delay,
            lost: owner == Owner::Another,
            queued: started.saturating_duration_since(batch.since),
            ran: started.elapsed(),
        });
    }
}

/// Tells the observer of an entry that leaves without its handler having started.
#[inline]
pub(crate) fn unstarted(
    shared: &Shared,
    batch: &Batch,
    body: &Body,
    verdict: &Verdict,
    owner: Owner,
) {
    let Some(observer) = &shared.observer else {
        return;
    };
    let is_handled = |event_type: &[u8]| shared.routes.find(event_type).is_some();
    match verdict {
        Verdict::Ack => {
            let of = fields(body).1.value("type");
            let outcome = match of.is_some_and(is_handled) {
                true => Outcome::Duplicate,
                false => Outcome::Ignored,
            };
            let told = (outcome, None, None, None);
            tell_observer(&**observer, batch, body, told, owner);
        }
        verdict => tell_unstarted(&**observer, batch, body, verdict, owner),
    }
}

/// The same of one that is not acknowledged.
pub(crate) fn tell_unstarted(
    observer: &dyn Observer,
    batch: &Batch,
    body: &Body,
    verdict: &Verdict,
    owner: Owner,
) {
    tell_observer(observer, batch, body, told(verdict), owner);
}

fn tell_observer(
    observer: &dyn Observer,
    batch: &Batch,
    body: &Body,
    told: Told<'_>,
    owner: Owner,
) {
    let ((entry, fields), (outcome, error, reason, delay)) = (fields(body), told);
    observer.unstarted(&Unstarted {
        stream: &batch.source.surroundings.stream,
        entry,
        fields,
        outcome,
        error,
        reason,
        delay,
        lost: owner == Owner::Another,
    });
}

fn fields(body: &Body) -> (EntryId, &Fields) {
    match body {
        Body::Event(ctx) => (ctx.envelope().entry_id(), ctx.envelope().fields()),
        Body::Raw(entry) => (entry.id, &entry.fields),
    }
}

type Told<'a> = (Outcome, Option<&'a str>, Option<Reason>, Option<Duration>);

fn told(verdict: &Verdict) -> Told<'_> {
    match verdict {
        Verdict::Ack => (Outcome::Succeeded, None, None, None),
        Verdict::Retry { delay, error } => (Outcome::Retried, Some(error), None, Some(*delay)),
        Verdict::Release { delay, error } | Verdict::Wait { delay, error } => {
            (Outcome::Released, Some(error), None, Some(*delay))
        }
        Verdict::Bury { reason, error } => (Outcome::Buried, Some(error), Some(*reason), None),
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
