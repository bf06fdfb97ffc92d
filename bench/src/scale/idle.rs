//! What a worker costs that has nothing to do: its memory, and what it asks of Redis, with nothing around and beside
//! piles it must look after.

use std::time::Duration;

use serde::Serialize;

use super::piles::Pile;
use crate::Sizes;
use crate::crew::Crew;
use crate::job::Job;
use crate::job::Way;
use crate::measure::memory_mb;
use crate::rig::Rig;
use streamhand::cli::CommandError;
use streamhand::unstable::table;

/// Shorter than the default, so that all that happens once in ten leases happens in a minute: with the default lease
/// a worker costs less.
const LEASE: Duration = Duration::from_secs(5);
const LEASES: u32 = 12;

/// An idle worker in some surroundings.
#[derive(Serialize)]
pub(super) struct Idle {
    name: String,
    seconds: f64,
    /// What Redis spends on it.
    redis_ms_per_second: f64,
    commands_per_second: f64,
    memory_mb: Option<f64>,
}

pub(super) async fn run(rig: &mut Rig, sizes: &Sizes) -> Result<Vec<Idle>, CommandError> {
    let window = if sizes.small {
        Duration::from_millis(500)
    } else {
        LEASE * LEASES
    };
    let parked = sizes.pile(1_000_000);
    let mut piles = [
        ("nothing".to_owned(), Pile::None),
        (format!("{parked} parked"), Pile::parked(parked)),
        {
            let dead = sizes.pile(100_000);
            (format!("{dead} pending at a dead worker"), Pile::dead(dead))
        },
    ];
    let takes = window * piles.len() as u32 + Duration::from_secs(parked / 25_000);
    rig.progress.begin("scale, idle", piles.len() as u64, takes);
    let mut told = Vec::new();
    for (name, pile) in &mut piles {
        rig.progress.step(1, 1, name);
        told.push(measure(rig, name, pile, window).await?);
        rig.progress.done();
    }
    Ok(told)
}

async fn measure(
    rig: &mut Rig,
    name: &str,
    pile: &mut Pile,
    window: Duration,
) -> Result<Idle, CommandError> {
    let stream = match pile.stream(rig).await? {
        Some(stream) => stream,
        None => rig.stream(),
    };
    let streams = [stream];
    let mut job = Job::new(Way::Streamhand, &streams);
    job.lease = Some(LEASE);
    let mut crew = Crew::start(rig, &job, 1).await?;
    crew.go().await?;
    // Its start is not its idling.
    tokio::time::sleep(window.min(Duration::from_secs(1))).await;
    let begun = rig.meter.begin().await?;
    tokio::time::sleep(window).await;
    let cost = rig.meter.end(begun).await?;
    let memory_mb = crew
        .pid()
        .and_then(|pid| memory_mb(&pid.to_string(), "VmRSS"));
    crew.stop().await?;
    rig.drop_streams(&streams).await?;
    let seconds = cost.wall.as_secs_f64();
    Ok(Idle {
        name: name.to_owned(),
        seconds,
        redis_ms_per_second: cost.redis.as_secs_f64() * 1e3 / seconds,
        commands_per_second: cost.commands.values().sum::<u64>() as f64 / seconds,
        memory_mb,
    })
}

pub(super) fn text(all: &[Idle]) -> String {
    let row = |idle: &Idle| {
        vec![
            idle.name.clone(),
            format!("{:.2}", idle.redis_ms_per_second),
            format!("{:.1}", idle.commands_per_second),
            idle.memory_mb
                .map(|mb| format!("{mb:.1}"))
                .unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let header = ["BESIDE", "Redis ms/s", "commands/s", "MiB"];
    let seconds = all.first().map_or(0.0, |idle| idle.seconds);
    format!(
        "idle: one worker with nothing to do and a lease of {} s, over {seconds:.0} s\n{}",
        LEASE.as_secs(),
        table(&header, &[], &rows)
    )
}
