//! Says what has become of an entry: in the log, and to the observer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::outcome::Body;
use super::routes::Routes;
use super::spans::Spans;
use super::verdict::{Reason, Verdict};
use crate::about::{About, tell};
use crate::context::Context;
use crate::duration;
use crate::event::EntryId;
use crate::fields::Fields;
use crate::handler::FailedAttempt;
use crate::metrics::entries::Outcome as Counted;
use crate::worker::observer::{Observer, Outcome, Settled, Unstarted};
use crate::worker::state::debugged;
use crate::worker::state::inflight::{Batch, Inflight, Owner};

/// Tells of entries.
pub(crate) struct Reporter {
    observer: Option<Arc<dyn Observer>>,
    routes: Arc<Routes>,
    inflight: Arc<Inflight>,
    pub spans: Option<Spans>,
}

impl Reporter {
    pub fn new(
        observer: Option<Arc<dyn Observer>>,
        routes: Arc<Routes>,
        inflight: Arc<Inflight>,
        spans: Option<Spans>,
    ) -> Self {
        Reporter {
            observer,
            routes,
            inflight,
            spans,
        }
    }

    /// A handler starts. Returns when, if anybody watches.
    #[inline]
    pub fn started(&self, ctx: &Context) -> Option<Instant> {
        if debugged::any() {
            tell_start(ctx);
        }
        let observer = self.observer.as_ref()?;
        observer.started(ctx);
        Some(Instant::now())
    }

    /// An entry was handled, and this becomes of it.
    #[inline]
    pub fn handled(
        &self,
        batch: &Batch,
        ctx: &Context,
        verdict: &Verdict,
        owner: Owner,
        started: Option<Instant>,
    ) {
        let is_told = || tracing::enabled!(tracing::Level::DEBUG) || debugged::any();
        if !matches!(verdict, Verdict::Ack) || is_told() {
            log(verdict, owner, &About::of(ctx, &batch.source.keys.stream));
        }
        self.settled(batch, ctx, verdict, owner, started);
    }

    /// Tells the observer of a handler that is over.
    #[inline]
    pub fn settled(
        &self,
        batch: &Batch,
        ctx: &Context,
        verdict: &Verdict,
        owner: Owner,
        started: Option<Instant>,
    ) {
        if let Some(spans) = &self.spans {
            spans.end(batch, ctx, verdict, owner);
        }
        if !matches!(verdict, Verdict::Ack) && owner != Owner::Another {
            self.tell_hooks(ctx, verdict);
        }
        if let Some(observer) = &self.observer {
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

    /// An attempt is over, and did not succeed.
    #[cold]
    fn tell_hooks(&self, ctx: &Context, verdict: &Verdict) {
        let (error, retry_in) = match verdict {
            Verdict::Retry { delay, error } => (error, Some(*delay)),
            Verdict::Bury { error, .. } => (error, None),
            Verdict::Ack
            | Verdict::Release { .. }
            | Verdict::Wait { .. }
            | Verdict::Cancel { .. } => return,
        };
        self.routes.hooks.failed(|| FailedAttempt {
            stream: ctx.stream().to_owned(),
            group: ctx.group().to_owned(),
            event: ctx.envelope().clone(),
            attempt: ctx.attempt(),
            error: error.clone(),
            retry_in,
        });
    }

    /// Tells the observer of an entry that leaves without its handler having started.
    #[inline]
    pub fn unstarted(
        &self,
        batch: &Batch,
        index: u32,
        body: &Body,
        verdict: &Verdict,
        owner: Owner,
    ) {
        if let Some(times) = &batch.times {
            let place = self.routes.place_of(fields(body).1);
            times.is_of(index, place);
            // What has a handler and is acknowledged without it had been done before.
            if place.is_some() && matches!(verdict, Verdict::Ack) {
                times.is_duplicate(index);
            }
        }
        let Some(observer) = &self.observer else {
            return;
        };
        match verdict {
            Verdict::Ack => {
                let of = fields(body).1.value("type");
                let is_handled = of.is_some_and(|of| self.routes.find(of).is_some());
                let outcome = match is_handled {
                    true => Outcome::Duplicate,
                    false => Outcome::Ignored,
                };
                let told = (outcome, None, None, None);
                tell_observer(&**observer, batch, body, told, owner);
            }
            verdict => tell_unstarted(&**observer, batch, body, verdict, owner),
        }
    }

    /// The handler of an entry that is settled, or another's, has ended.
    pub fn ended(
        &self,
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
                About::of(ctx, &batch.source.keys.stream),
                "handled, but another worker has taken it over: nothing was committed here"
            );
        }
        let owner = if is_ours { Owner::Us } else { Owner::Another };
        self.handled(batch, ctx, &Verdict::Ack, owner, started);
        let outcome = match is_ours {
            true => Counted::Committed,
            false => Counted::Lost,
        };
        self.inflight.settle(batch, [index], outcome);
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
        Verdict::Cancel { error } => (Outcome::Cancelled, Some(error), None, None),
    }
}

/// Says that a handler starts, if its type's entries are to be logged one by one.
#[cold]
fn tell_start(ctx: &Context) {
    let envelope = ctx.envelope();
    if debugged::is(envelope.event_type()) {
        let about = About::of(ctx, ctx.stream());
        let (bytes, of) = (envelope.data().len(), ctx.max_attempts());
        tell!(info, about, of, bytes, "its handler starts");
    }
}

/// Says what became of an entry; of a success only to those who listen closely.
pub(crate) fn log(verdict: &Verdict, owner: Owner, about: &About<'_>) {
    match verdict {
        Verdict::Ack if about.event_type.as_deref().is_some_and(debugged::is) => {
            tell!(info, about, "handled");
        }
        Verdict::Ack => tell!(debug, about, "handled"),
        _ if owner == Owner::Another => {
            tell!(warn, about, "failed, but another worker has taken it over");
        }
        Verdict::Retry { delay, error } => {
            let retry_in = duration::rounded(*delay);
            tell!(warn, about, %retry_in, "failed: {error}");
        }
        Verdict::Release { delay, error } => {
            let delay = duration::rounded(*delay);
            tell!(info, about, %delay, "released: {error}");
        }
        Verdict::Wait { error, .. } => {
            tell!(info, about, "released: {error}");
        }
        Verdict::Cancel { error } => tell!(info, about, "cancelled: {error}"),
        Verdict::Bury { reason, error } => {
            let reason = reason.as_str();
            tell!(error, about, reason, "to the dead letters: {error}");
        }
    }
}
