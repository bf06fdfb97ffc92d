//! A handler that does what its event says, for scenarios and random programs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamhand::{Committed, Context, Effect, Envelope, Event, Failure, FailureExt, Registry};

/// What a job is to do, step by step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub name: String,
    pub does: Vec<Does>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Does {
    /// Fails in its first attempts, so many.
    Fail(u32),
    Never,
    /// The same so many times.
    NeverTimes(u32),
    RetryAfter(u32, u64),
    Later(u32, u64),
    /// Takes so many seconds.
    Sleep(u64),
    Panic(u32),
    Emit,
    /// So many seconds later.
    EmitLater(u64),
    /// Cancels what the first job has emitted for later.
    CancelLater,
    Count(i64),
    /// Takes one of what there is, and decides anew if there is none.
    Take,
    /// Commits, and then fails.
    CommitAndFail,
    CallAway,
}

/// What jobs emit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unknown;

impl Event for Job {
    const TYPE: &'static str = "job.asked";
    const VERSION: u32 = 2;
}

impl Event for Done {
    const TYPE: &'static str = "job.done";
}

impl Event for Unknown {
    const TYPE: &'static str = "job.unknown";
}

/// An error whose meaning the registry says.
#[derive(Debug, thiserror::Error)]
#[error("nobody may do that")]
pub struct Forbidden;

/// How often events have come.
#[derive(Clone, Default)]
struct Came(Arc<Mutex<HashMap<String, u32>>>);

impl Came {
    /// This time included.
    fn times(&self, id: String) -> u32 {
        let mut came = self.0.lock().unwrap();
        let times = came.entry(id).or_default();
        *times += 1;
        *times
    }
}

pub fn job(name: &str, does: impl Into<Vec<Does>>) -> Job {
    Job {
        name: name.to_owned(),
        does: does.into(),
    }
}

pub fn registry() -> Registry {
    Registry::new()
        .on_with(Came::default(), work)
        .on(done)
        .ignore("job.ignored")
        .upcast::<Job, String, Job>(1, |name| Ok(job(&name, [Does::Emit])))
        .classify(|_: &Forbidden| streamhand::FailureKind::Permanent)
}

async fn done(_: Done, _: Context) -> Result<(), Failure> {
    Ok(())
}

async fn work(came: Came, job: Job, ctx: Context) -> Result<(), Failure> {
    let attempt = ctx.attempt();
    for does in &job.does {
        match does {
            Does::Fail(times) if attempt <= *times => Err("it failed")?,
            Does::Never => Err(Forbidden)?,
            Does::NeverTimes(times) => {
                let id = ctx.envelope().id().into_owned();
                if came.times(id) <= *times {
                    Err(Forbidden)?;
                }
            }
            Does::RetryAfter(times, seconds) if attempt <= *times => {
                Err("busy").retry_after(Duration::from_secs(*seconds))?
            }
            // It uses up no attempt: told apart by a count of its own.
            Does::Later(times, seconds) => {
                let id = ctx.envelope().id().into_owned();
                let times_so_far = came.times(id);
                if times_so_far <= *times {
                    let wait = Duration::from_secs(*seconds);
                    return Err(Failure::later(wait, "not yet"));
                }
            }
            Does::Sleep(seconds) => tokio::time::sleep(Duration::from_secs(*seconds)).await,
            Does::Panic(times) if attempt <= *times => panic!("it panicked, as it was told"),
            Does::Emit => ctx.emit(
                "done",
                Done {
                    name: job.name.clone(),
                },
            ),
            Does::EmitLater(seconds) => {
                let event = Envelope::new(Done::TYPE).json(&Done {
                    name: job.name.clone(),
                })?;
                let event = event.with("id", format!("later {}", job.name));
                ctx.emit_envelope_after("done", event, Duration::from_secs(*seconds));
            }
            Does::CancelLater => ctx.cancel("done", "later job 0"),
            Does::Count(by) => ctx.effect(Effect::incr_by("count", *by)),
            Does::Take => {
                ctx.effect(Effect::incr_by("stock", -1).at_least(0));
                if let Committed::Refused(refusal) = ctx.commit().await? {
                    assert_eq!(refusal.number(), Some(0));
                    ctx.effect(Effect::sadd("sold out", &job.name));
                }
            }
            Does::CommitAndFail => {
                ctx.effect(Effect::incr_by("committed", 1));
                let _ = ctx.commit().await?;
                return Err("too late to fail".into());
            }
            Does::CallAway => {
                let away = async { Err::<(), _>("the service is away") };
                ctx.breaker("service").call(away).await?;
            }
            Does::Fail(_) | Does::RetryAfter(..) | Does::Panic(_) => {}
        }
    }
    Ok(())
}
