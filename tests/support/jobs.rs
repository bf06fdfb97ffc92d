//! The handlers that tests run: a job says itself what is to happen to it, and leaves a trace in
//! Redis of every start and every end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use streamhand::{Context, Envelope, Event, Failure, Registry};

/// Lists of traces: when a handler starts, and when it has ended by itself.
const STARTED: &str = "test:started";
const ENDED: &str = "test:ended";

/// An event that says what is to happen when it is handled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub id: String,
    pub action: Action,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Succeeds at once.
    Succeed,
    /// Succeeds at once, and leaves no trace.
    Nothing,
    /// Succeeds after so many milliseconds, and leaves no trace.
    SleepQuietly(u64),
    /// Fails for good after so many milliseconds, and leaves no trace.
    SleepQuietlyThenFailForGood(u64),
    /// Succeeds after so many milliseconds, whatever it is told meanwhile.
    Take(u64),
    /// Succeeds after so many milliseconds, and after so many if it is not the first time.
    TakeOrLess(u64, u64),
    /// Succeeds after so many milliseconds of computing, without an await.
    Compute(u64),
    /// Fails the first time, and leaves no trace.
    FailOnceQuietly,
    /// Fails after so many milliseconds of computing, without an await and without a trace.
    ComputeQuietlyThenFail(u64),
    /// Fails in the first so many attempts.
    Fail(u32),
    /// Succeeds after so many milliseconds, and leaves a trace of its start alone.
    TakeUnseen(u64),
    /// Fails in the first so many attempts, then succeeds after so many milliseconds.
    FailThenTake(u32, u64),
    /// Fails for good.
    FailForGood,
    /// Asks, the first so many times, to come back after 10 ms.
    Later(u32),
    /// The same, and then succeeds after so many milliseconds.
    LaterThenTake(u32, u64),
    /// Asks to come back after two years.
    LaterThanThereIs,
    /// Emits an event, commits, and emits another one, which never leaves.
    EmitAfterCommit,
    Panic,
    /// Kills its process.
    Abort,
    /// Kills its process after so many milliseconds.
    AbortAfter(u64),
    /// Fails after so many milliseconds, whatever it is told meanwhile.
    TakeThenFail(u64),
    /// The same, for good.
    TakeThenFailForGood(u64),
    /// Never ends, whatever it is told.
    Hang,
    /// Ends, with an error, when it is told to.
    UntilTold,
}

impl Event for Job {
    const TYPE: &'static str = "test.job";
}

/// A start or an end of a handler.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trace {
    pub id: String,
    pub attempt: u32,
    pub pid: u32,
    /// Milliseconds since 1970.
    pub at: u64,
    /// How it was told to stop, or nothing.
    pub told: String,
}

impl Job {
    pub fn new(id: impl Into<String>, action: Action) -> Self {
        Job {
            id: id.into(),
            action,
        }
    }
}

pub fn registry() -> Registry {
    Registry::new().on(handle)
}

/// Handlers that start whatever comes and never end, but for jobs called `short-…`, which succeed at once.
pub fn holding_registry() -> Registry {
    Registry::new().on(async |job: Job, ctx: Context| {
        trace(STARTED, &job, &ctx).await?;
        if !job.id.starts_with("short-") {
            std::future::pending::<()>().await;
        }
        trace(ENDED, &job, &ctx).await
    })
}

pub async fn handle(job: Job, ctx: Context) -> Result<(), Failure> {
    match job.action {
        Action::Nothing => return Ok(()),
        Action::SleepQuietly(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            return Ok(());
        }
        Action::SleepQuietlyThenFailForGood(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            return Err(Failure::permanent("asked to fail for good"));
        }
        Action::FailOnceQuietly if ctx.attempt() == 1 => return Err("asked to fail".into()),
        Action::FailOnceQuietly => return Ok(()),
        Action::ComputeQuietlyThenFail(ms) => {
            std::thread::sleep(Duration::from_millis(ms));
            return Err("asked to fail".into());
        }
        _ => {}
    }
    trace(STARTED, &job, &ctx).await?;
    match job.action {
        Action::Succeed
        | Action::Nothing
        | Action::SleepQuietly(_)
        | Action::SleepQuietlyThenFailForGood(_)
        | Action::FailOnceQuietly
        | Action::ComputeQuietlyThenFail(_) => {}
        Action::Take(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        Action::TakeOrLess(first, later) => {
            let ms = if ctx.attempt() == 1 { first } else { later };
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        Action::TakeUnseen(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            return Ok(());
        }
        Action::Compute(ms) => std::thread::sleep(Duration::from_millis(ms)),
        Action::Fail(times) | Action::FailThenTake(times, _) if ctx.attempt() <= times => {
            return Err("asked to fail".into());
        }
        Action::Fail(_) => {}
        Action::FailThenTake(_, ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        Action::FailForGood => return Err(Failure::permanent("asked to fail for good")),
        Action::Later(times) | Action::LaterThenTake(times, _) => {
            let mut redis = ctx.redis().await?;
            let asked: u32 = redis.incr(format!("test:later:{}", job.id), 1).await?;
            if asked <= times {
                return Err(Failure::later(
                    Duration::from_millis(10),
                    "asked to come back later",
                ));
            }
            if let Action::LaterThenTake(_, ms) = job.action {
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
        }
        Action::LaterThanThereIs => {
            let two_years = Duration::from_secs(2 * 365 * 24 * 60 * 60);
            return Err(Failure::later(
                two_years,
                "asked to come back after two years",
            ));
        }
        Action::EmitAfterCommit => {
            for _ in 0..2 {
                ctx.emit_envelope("emitted", Envelope::new("test.emitted"));
                if !ctx.emitted().is_empty() {
                    let _ = ctx.commit().await?;
                }
            }
        }
        Action::Panic => panic!("asked to panic"),
        Action::Abort => std::process::abort(),
        Action::AbortAfter(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            std::process::abort();
        }
        Action::TakeThenFail(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            return Err("asked to fail".into());
        }
        Action::TakeThenFailForGood(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            return Err(Failure::permanent("asked to fail for good"));
        }
        Action::Hang => std::future::pending().await,
        Action::UntilTold => {
            let why = ctx.cancelled().await;
            trace(ENDED, &job, &ctx).await?;
            return Err(format!("told to stop: {why:?}").into());
        }
    }
    trace(ENDED, &job, &ctx).await
}

async fn trace(list: &str, job: &Job, ctx: &Context) -> Result<(), Failure> {
    let trace = Trace {
        id: job.id.clone(),
        attempt: ctx.attempt(),
        pid: std::process::id(),
        at: now_ms(),
        told: ctx
            .cancellation()
            .map_or(String::new(), |why| format!("{why:?}")),
    };
    let mut redis = ctx.redis().await?;
    let _: () = redis.rpush(list, serde_json::to_string(&trace)?).await?;
    Ok(())
}

pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("a clock after 1970").as_millis() as u64
}

/// The traces of the handlers' starts, in their order.
pub async fn started(redis: &mut MultiplexedConnection) -> Vec<Trace> {
    traces(redis, STARTED).await
}

/// The traces of handlers that came to their end, in their order.
pub async fn ended(redis: &mut MultiplexedConnection) -> Vec<Trace> {
    traces(redis, ENDED).await
}

/// How often each job came to its end.
pub async fn handled(redis: &mut MultiplexedConnection) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for trace in ended(redis).await {
        *times.entry(trace.id).or_default() += 1;
    }
    times
}

/// How often a job was started.
pub async fn starts_of(redis: &mut MultiplexedConnection, id: &str) -> usize {
    started(redis)
        .await
        .iter()
        .filter(|trace| trace.id == id)
        .count()
}

async fn traces(redis: &mut MultiplexedConnection, list: &str) -> Vec<Trace> {
    let lines: Vec<String> = redis.lrange(list, 0, -1).await.expect("the traces");
    lines
        .iter()
        .map(|line| serde_json::from_str(line).expect("a trace"))
        .collect()
}

/// Puts jobs on a stream as a foreign client would, and answers their entries' ids.
pub async fn publish(redis: &mut MultiplexedConnection, stream: &str, jobs: &[Job]) -> Vec<String> {
    let mut ids = Vec::new();
    for chunk in jobs.chunks(1000) {
        let mut pipe = redis::pipe();
        for job in chunk {
            let data = serde_json::to_string(job).expect("JSON");
            pipe.cmd("XADD").arg(stream).arg("*");
            pipe.arg("type").arg(Job::TYPE).arg("data").arg(data);
        }
        let added: Vec<String> = pipe.query_async(redis).await.expect("the jobs to be added");
        ids.extend(added);
    }
    ids
}

/// Jobs `name-0`, `name-1` … that do the same.
pub fn many(name: &str, count: usize, action: &Action) -> Vec<Job> {
    (0..count)
        .map(|n| Job::new(format!("{name}-{n}"), action.clone()))
        .collect()
}

/// The ids of jobs.
pub fn ids(jobs: &[Job]) -> BTreeSet<String> {
    jobs.iter().map(|job| job.id.clone()).collect()
}
