//! Runs of handlers as spans: how one begins, what becomes of it, and what it has emitted. See [`crate::trace`].

use std::sync::Arc;
use std::time::SystemTime;

use super::verdict::Verdict;
use crate::context::Context;
use crate::failure::{Failure, FailureReason};
use crate::outbox::{Items, Line};
use crate::trace::{Ended, RunOf, Tracer};
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::{Batch, Owner};

/// Makes spans of runs.
#[derive(Clone)]
pub(crate) struct Spans {
    tracer: Tracer,
    identity: Arc<Identity>,
    /// The server's address.
    server: String,
}

impl Spans {
    pub fn new(tracer: Tracer, identity: Arc<Identity>, server: String) -> Self {
        Spans {
            tracer,
            identity,
            server,
        }
    }

    /// A handler is about to run.
    pub fn begin(&self, batch: &Batch, index: u32, ctx: &Context) {
        let source = &batch.source;
        let run = self.tracer.begin(&RunOf {
            stream: &source.keys.stream,
            group: ctx.group(),
            seed: source.seed,
            envelope: ctx.envelope(),
            attempt: ctx.attempt(),
            delivery: batch.slots[index as usize].count,
            after: ctx.place().after,
        });
        if let Some(run) = run {
            ctx.runs_in(run);
        }
    }

    /// A run is over, and this becomes of its entry.
    pub fn end(&self, batch: &Batch, ctx: &Context, verdict: &Verdict, owner: Owner) {
        let Some(run) = ctx.run() else { return };
        let (outcome, error, is_failed) = match verdict {
            Verdict::Ack => ("acked", None, false),
            Verdict::Retry { error, .. } => ("retried", Some(error), true),
            Verdict::Release { error, .. } | Verdict::Wait { error, .. } => {
                ("released", Some(error), false)
            }
            Verdict::Bury { error, .. } => ("dead", Some(error), true),
            Verdict::Cancel { error } => ("cancelled", Some(error), false),
        };
        let is_lost = owner == Owner::Another;
        self.tracer.end(
            run,
            &Ended {
                stream: &batch.source.keys.stream,
                group: ctx.group(),
                consumer: self.identity.consumer(batch.alone),
                server: &self.server,
                envelope: ctx.envelope(),
                attempt: ctx.attempt(),
                outcome: if is_lost { "lost" } else { outcome },
                error: error.map(String::as_str),
                is_failed,
            },
        );
    }

    /// What a run has emitted is in its streams, and was sent at `since`.
    pub fn emitted(&self, ctx: &Context, items: &Items, since: SystemTime) {
        let Some(run) = ctx.run() else { return };
        let now = items.events.iter();
        let now = now.map(|event| (&event.stream[..], &event.envelope));
        let all = now.chain(items.lines.iter().flat_map(Line::events));
        for (stream, event) in all {
            self.tracer.emitted(run, stream, event, since);
        }
    }
}

/// Has a span say with what its handler failed.
pub(crate) fn note(ctx: &Context, failure: &Failure) {
    if let Some(run) = ctx.run() {
        run.failed(match failure.reason() {
            FailureReason::Error => "error",
            FailureReason::TimedOut => "timeout",
            FailureReason::Panicked => "panic",
            FailureReason::BreakerOpen => "breaker_open",
            FailureReason::Undecodable => "undecodable",
        });
    }
}
