//! Giving entries of batches back to Redis, without an attempt.

use std::time::Duration;

use crate::worker::run::outcome::Body;
use crate::worker::run::starter::Handlers;
use crate::worker::run::verdict::Verdict;
use crate::worker::run::work::Member;

/// It goes back to Redis for so long. No attempt is used up.
pub(super) fn release(of: &Handlers, member: Member, delay: Duration, why: &str) {
    let Member { batch, index, ctx } = member;
    let owner = batch.slots[index as usize].finish();
    let (verdict, attempt) = (Verdict::release(delay, why), ctx.attempt());
    let body = Body::Event(ctx);
    let attempts = &of.attempts;
    attempts
        .reporter
        .unstarted(&batch, index, &body, &verdict, owner);
    attempts.settle(&batch, index, verdict, body, attempt);
}
