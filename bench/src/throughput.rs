//! A backlog of small events, as fast as it goes: the bare loop, which is the least one can do, and this runtime with
//! a handler that does nothing, in turns through the same stream.

use std::time::Duration;

use serde::Serialize;

use super::events::fill;
use super::figures::ratio;
use super::job::Job;
use super::job::Way;
use super::rig::Rig;
use super::runs::{Figures, backlog};
use super::{Measured, Sizes};
use streamhand::cli::CommandError;

const EVENTS: u64 = 1_000_000;

/// What the runs came to; medians.
#[derive(Serialize)]
pub(super) struct Throughput {
    events: u64,
    runs: u64,
    bare: Figures,
    runtime: Figures,
    /// The runtime's throughput in terms of the bare loop's.
    throughput_ratio: f64,
    /// Redis CPU per message, likewise.
    redis_cpu_ratio: f64,
    /// The worker's CPU per message, likewise.
    client_cpu_ratio: f64,
    /// How much of the time Redis was busy under the runtime, from 0 to 1.
    redis_busy: f64,
    rounds: Vec<Round>,
}

#[derive(Serialize)]
struct Round {
    bare: Figures,
    runtime: Figures,
}

pub(super) async fn run(rig: &mut Rig, sizes: &Sizes) -> Result<Throughput, CommandError> {
    let events = sizes.events(EVENTS);
    let takes = Duration::from_secs_f64(sizes.runs as f64 * (1.0 + events as f64 / 90_000.0));
    rig.progress.begin("throughput", 2 * sizes.runs, takes);
    let (mut bare, mut runtime) = (Vec::new(), Vec::new());
    for round in 1..=sizes.runs {
        let stream = [rig.stream()];
        rig.progress.step(round, sizes.runs, "publishing");
        fill(rig, &stream, events, None).await?;
        for way in sizes.turns(round, [Way::Bare, Way::Streamhand]) {
            rig.progress.step(round, sizes.runs, way.name());
            let figures = backlog(rig, &Job::new(way, &stream), 1, events, 0).await?;
            rig.drop_group(&stream[0]).await?;
            rig.progress.done();
            match way {
                Way::Streamhand => runtime.push(figures),
                _ => bare.push(figures),
            }
        }
        rig.drop_streams(&stream).await?;
    }
    let all = Figures::medians(&runtime);
    Ok(Throughput {
        events,
        runs: sizes.runs,
        bare: Figures::medians(&bare),
        throughput_ratio: ratio(&runtime, &bare, |run| run.per_second),
        redis_cpu_ratio: ratio(&runtime, &bare, |run| run.redis_us),
        client_cpu_ratio: ratio(&runtime, &bare, |run| run.client_us),
        redis_busy: all.redis_busy,
        runtime: all,
        rounds: bare
            .into_iter()
            .zip(runtime)
            .map(|(bare, runtime)| Round { bare, runtime })
            .collect(),
    })
}

impl Measured for Throughput {
    fn text(&self) -> String {
        let row = |name: &str, figures: &Figures| {
            format!(
                "{name:<36}{:>12.0}{:>16.2}{:>16.2}\n",
                figures.per_second, figures.redis_us, figures.client_us
            )
        };
        format!(
            "{} events a run, median of {} runs in turns\n\n{:<36}{:>12}{:>16}{:>16}\n{}{}{:<36}{:>12.2}{:>16.2}{:>16.2}\n\n\
             Redis was busy for {:.0} % of the time under streamhand",
            self.events,
            self.runs,
            "",
            "messages/s",
            "Redis µs/msg",
            "client µs/msg",
            row("bare loop, COUNT 500, no handler", &self.bare),
            row("streamhand, no-op handler", &self.runtime),
            "streamhand in terms of the bare loop",
            self.throughput_ratio,
            self.redis_cpu_ratio,
            self.client_cpu_ratio,
            self.redis_busy * 100.0
        )
    }
}
