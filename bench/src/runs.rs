//! The two kinds of runs. *Backlog*: everything is there before the workers begin. *Paced*: events come by a timetable
//! while the workers wait for them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::crew::{Crew, Mark};
use super::figures::{self, median};
use super::job::Job;
use super::job::Way;
use super::measure::{Cost, now_ns};
use super::pacer::{Pacer, Timetable};
use super::rig::Rig;
use streamhand::cli::CommandError;

/// The longest a run may take beyond what it is planned to.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long workers may be behind the publisher at its end.
const BEHIND: Duration = Duration::from_secs(10);

/// What a run came to, by the message.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figures {
    pub per_second: f64,
    pub redis_us: f64,
    /// CPU time of the process that works, or of all of them together.
    pub client_us: f64,
    /// Commands that Redis executed, those inside scripts too.
    pub commands: f64,
    pub by_command: BTreeMap<String, f64>,
    pub redis_busy: f64,
    pub peak_mb: Option<f64>,
}

/// What a run by a timetable came to.
pub(super) struct Paced {
    pub cost: Cost,
    /// Events handled while the cost was measured.
    pub handled: u64,
    /// Events published while the cost was measured.
    pub published: u64,
    pub client_us: f64,
    pub peak_mb: Option<f64>,
    pub late: Histogram<u64>,
    pub latencies: Histogram<u64>,
}

impl Figures {
    fn of(cost: &Cost, events: u64, client_us: f64, peak_mb: Option<f64>) -> Self {
        Figures {
            per_second: events as f64 / cost.wall.as_secs_f64(),
            redis_us: cost.redis_us(events),
            client_us,
            commands: cost.commands(events),
            by_command: cost.by_command(events),
            redis_busy: cost.redis_busy(),
            peak_mb,
        }
    }

    /// Without what the publisher by itself costs Redis, by the message.
    pub fn of_paced(run: &Paced, publisher_us: f64) -> Self {
        Figures {
            redis_us: run.redis_us_beside(publisher_us),
            ..Self::of(&run.cost, run.handled.max(1), run.client_us, run.peak_mb)
        }
    }

    /// The median of each.
    pub fn medians(runs: &[Figures]) -> Self {
        let of = |figure: fn(&Figures) -> f64| median(runs.iter().map(figure));
        let names = runs.iter().flat_map(|run| run.by_command.keys());
        let calls = |name: &String| {
            median(
                runs.iter()
                    .map(|run| run.by_command.get(name).copied().unwrap_or(0.0)),
            )
        };
        let peaks: Vec<f64> = runs.iter().filter_map(|run| run.peak_mb).collect();
        Figures {
            per_second: of(|run| run.per_second),
            redis_us: of(|run| run.redis_us),
            client_us: of(|run| run.client_us),
            commands: of(|run| run.commands),
            by_command: names.map(|name| (name.clone(), calls(name))).collect(),
            redis_busy: of(|run| run.redis_busy),
            peak_mb: (!peaks.is_empty()).then(|| median(peaks)),
        }
    }
}

impl Paced {
    /// Redis CPU by the message handled, where the publisher alone costs so much by the message published.
    pub fn redis_us_beside(&self, publisher_us: f64) -> f64 {
        let publisher = Duration::from_secs_f64(publisher_us * self.published as f64 / 1e6);
        let workers = self.cost.redis.saturating_sub(publisher);
        workers.as_secs_f64() * 1e6 / self.handled.max(1) as f64
    }
}

/// Lets `size` processes work off `events` that are there; `rest` entries stay pending all the while. All of them have
/// started and wait before the clock does.
pub(super) async fn backlog(
    rig: &mut Rig,
    job: &Job,
    size: usize,
    events: u64,
    rest: u64,
) -> Result<Figures, CommandError> {
    let held = rig.hold(&job.streams).await?;
    let mut crew = Crew::start(rig, job, size).await?;
    crew.go().await?;
    let readers = all_wait(rig, size).await?;
    let before = crew.mark().await?;
    let begun = rig.meter.begin().await?;
    rig.release(held, &readers).await?;
    crew.until(events, PATIENCE).await?;
    settled(rig, &job.streams, rest).await?;
    let cost = rig.meter.end(begun).await?;
    let client_us = crew.mark().await?.client_us_since(before);
    let did = crew.stop().await?;
    let handled = did.handled;
    // With a lease that is shorter than usual a machine that stood still may have had some handled again.
    if handled < events || (handled > events && job.lease.is_none()) {
        return Err(CommandError::failed(format!(
            "the bench: {events} events were handled {handled} times; is somebody else in their group?"
        )));
    }
    Ok(Figures::of(&cost, events, client_us, did.peak_mb))
}

/// Publishes by `timetable` to `size` processes that do `job`, or to nobody.
pub(super) async fn paced(
    rig: &mut Rig,
    job: Option<&Job>,
    size: usize,
    timetable: &Timetable,
) -> Result<Paced, CommandError> {
    let mut crew = match job {
        None => None,
        Some(job) => {
            if job.way != Way::Streamhand {
                rig.make_groups(&job.streams).await?;
            }
            let mut crew = Crew::start(rig, job, size).await?;
            crew.go().await?;
            Some(crew)
        }
    };
    all_wait(rig, size).await?;
    let server = rig.server_pid();
    if let Some(places) = &timetable.places {
        let workers = crew.iter().flat_map(Crew::pids);
        for process in server.into_iter().chain(workers) {
            places.keep_off(process)?;
        }
    }
    let pacer = Pacer::start(&rig.redis, timetable)?;
    let begins = pacer.begins + timetable.warm_up.as_nanos() as u64;
    until(begins).await;
    let before = mark(&mut crew).await?;
    let begun = rig.meter.begin().await?;
    until(begins + timetable.measured.as_nanos() as u64).await;
    let cost = rig.meter.end(begun).await?;
    let after = mark(&mut crew).await?;
    let published = tokio::time::timeout(PATIENCE, pacer.ended())
        .await
        .map_err(|_| {
            CommandError::failed("the bench: the publisher can't get its events sent")
        })??;
    all_arrived(rig, timetable, published.events).await?;
    let (mut peak_mb, mut latencies) = (None, figures::histogram());
    if let Some(crew) = crew {
        // One that can't keep up would take for ever.
        let _ = crew.until(published.events, BEHIND).await;
        let did = crew.stop().await?;
        (peak_mb, latencies) = (did.peak_mb, did.latencies);
    }
    if let (Some(places), Some(server)) = (&timetable.places, server) {
        places.let_go(server)?;
    }
    Ok(Paced {
        cost,
        handled: after.handled - before.handled,
        published: timetable.measured_events(),
        client_us: after.client_us_since(before),
        peak_mb,
        late: published.late,
        latencies,
    })
}

/// How far a crew is, if there is one.
async fn mark(crew: &mut Option<Crew>) -> Result<Mark, CommandError> {
    match crew {
        Some(crew) => crew.mark().await,
        None => Ok(Mark::default()),
    }
}

/// Waits until nothing but `rest` entries is pending.
async fn settled(rig: &mut Rig, streams: &[String], rest: u64) -> Result<(), CommandError> {
    let end = Instant::now() + PATIENCE;
    let group = rig.group().to_owned();
    loop {
        type Summary = (u64, redis::Value, redis::Value, redis::Value);
        let summaries: Vec<Summary> = rig
            .meter
            .ask_each(streams, |stream| {
                let mut ask = redis::cmd("XPENDING");
                ask.arg(stream).arg(&group);
                ask
            })
            .await?;
        let pending: u64 = summaries.iter().map(|summary| summary.0).sum();
        if pending == rest {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(CommandError::failed(format!(
                "the bench: {pending} entries were still pending when all had been handled"
            )));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until so many workers wait for events. Answers the ids of the connections they read on.
async fn all_wait(rig: &mut Rig, size: usize) -> Result<Vec<i64>, CommandError> {
    let end = Instant::now() + PATIENCE;
    let name = format!(" name={} ", rig.reader());
    loop {
        let clients: String = rig.meter.ask(redis::cmd("CLIENT").arg("LIST")).await?;
        let waits = |client: &&str| client.contains(&name) && client.contains(" cmd=xreadgroup ");
        let id = |client: &str| client.strip_prefix("id=")?.split(' ').next()?.parse().ok();
        let waiting: Vec<i64> = clients.lines().filter(waits).filter_map(id).collect();
        if waiting.len() >= size {
            return Ok(waiting);
        }
        if Instant::now() > end {
            return Err(CommandError::failed(format!(
                "the bench: {} of {size} workers wait for events",
                waiting.len()
            )));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The publisher hears no refusals: the streams tell whether there were any.
async fn all_arrived(
    rig: &mut Rig,
    timetable: &Timetable,
    events: u64,
) -> Result<(), CommandError> {
    let mut arrived = 0;
    for _ in 0..1_000 {
        let lengths: Vec<u64> = rig
            .meter
            .ask_each(&timetable.streams, |stream| {
                let mut ask = redis::cmd("XLEN");
                ask.arg(stream);
                ask
            })
            .await?;
        arrived = lengths.iter().sum();
        if arrived == events {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err(CommandError::failed(format!(
        "the bench: Redis took {arrived} of {events} events"
    )))
}

async fn until(ns: u64) {
    tokio::time::sleep(Duration::from_nanos(ns.saturating_sub(now_ns()))).await;
}
