//! What the workers of a run do with an event: what it says itself.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use streamhand::{CommitError, Committed, Context, Effect, Envelope, Event, Failure, Registry};

use super::plan::{AT_LENGTH, Act, Job};
use super::records::{How, Run};
use super::rules::{COUNTED, DONE, KILLER, TYPES};

/// What handlers emit.
#[derive(Serialize, Deserialize)]
pub struct Done {
    pub event: String,
}

impl Event for Done {
    const TYPE: &'static str = "chaos.done";
}

pub fn registry() -> Registry {
    TYPES
        .iter()
        .chain([&KILLER])
        .fold(Registry::new(), |registry, event_type| {
            registry.on_raw(event_type, handle)
        })
}

async fn handle(envelope: Envelope, ctx: Context) -> Result<(), Failure> {
    let run = Run::begin(&ctx);
    let result = act(envelope, &ctx).await;
    run.end(match &result {
        Ok(()) => How::Ok,
        Err(failure) if failure.is_permanent() => How::Permanent,
        Err(failure) if failure.to_string().contains(LATER) => How::Later,
        Err(failure) if failure.to_string().contains(COMMITTED) => How::Ok,
        Err(_) => How::Failed,
    });
    result
}

const LATER: &str = "come back later";
const COMMITTED: &str = "what it says after its commit is ignored";

async fn act(envelope: Envelope, ctx: &Context) -> Result<(), Failure> {
    let job: Job = envelope.decode_data().map_err(Failure::permanent)?;
    if job.effect {
        ctx.effect(Effect::hincr_by(COUNTED, envelope.id().into_owned(), 1));
        let event = envelope.id().into_owned();
        ctx.emit(DONE, Done { event });
    }
    match job.act {
        Act::Succeed | Act::Unseen => Ok(()),
        Act::Take(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok(())
        }
        Act::Compute(ms) => {
            std::thread::sleep(Duration::from_millis(ms));
            Ok(())
        }
        Act::TakeThenFailFirst(ms, times) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            if ctx.attempt() > times {
                Ok(())
            } else {
                Err(AT_LENGTH.into())
            }
        }
        Act::FailFirst(times) if ctx.attempt() > times => Ok(()),
        Act::FailFirst(_) | Act::Fail => Err("asked to fail".into()),
        Act::FailForGood => Err(Failure::permanent("asked to fail for good")),
        Act::TakeThenFailForGood(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Err(Failure::permanent(AT_LENGTH))
        }
        Act::PanicFirst(times) if ctx.attempt() > times => Ok(()),
        Act::PanicFirst(_) => panic!("asked to panic"),
        Act::HangFirst(times) if ctx.attempt() > times => Ok(()),
        Act::HangFirst(_) => std::future::pending().await,
        Act::LaterFor(ms) => {
            let age = SystemTime::now().duration_since(envelope.time());
            if age.is_ok_and(|age| age > Duration::from_millis(ms)) {
                return Ok(());
            }
            Err(Failure::later(Duration::from_millis(100), LATER))
        }
        Act::Commit => match ctx.commit().await {
            Ok(Committed::Settled) => Err(COMMITTED.into()),
            Ok(Committed::Refused(refusal)) => Err(Failure::permanent(refusal.to_string())),
            Err(error @ CommitError::Invalid(_)) => Err(Failure::permanent(error)),
            Err(error) => Err(error.into()),
        },
        Act::Abort => std::process::abort(),
    }
}
