//! Middling load: events come so fast that a worker is never idle for long, and so slowly that there is never more than
//! one or two. What each way then costs Redis, beyond what the publisher costs by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::figures::{Percentiles, difference, median, ratio};
use super::job::Way;
use super::latency;
use super::pacer::Timetable;
use super::rig::Rig;
use super::runs::{Paced, paced};
use super::{Measured, Sizes};
use streamhand::cli::CommandError;
use streamhand::unstable::table;

const PER_SECOND: u64 = 10_000;
const SECONDS: f64 = 10.0;
const WAYS: [Way; 3] = [Way::OneByOne, Way::Blocking, Way::Streamhand];

/// What each way costs; medians.
#[derive(Serialize)]
pub(super) struct Load {
    per_second: u64,
    seconds: f64,
    runs: u64,
    /// What the publisher alone costs Redis by the message; it is taken off what follows.
    publisher_redis_us: f64,
    one_by_one: Told,
    bare: Told,
    runtime: Told,
    /// The runtime's Redis CPU per message in terms of the loop's that goes one by one.
    redis_cpu_ratio: f64,
    /// Its p99 in terms of the bare blocking loop's, and by how much it is more.
    p99_ratio: f64,
    p99_more_us: f64,
    rounds: Vec<BTreeMap<&'static str, Told>>,
}

#[derive(Clone, Serialize)]
struct Told {
    redis_us: f64,
    client_us: f64,
    commands: f64,
    by_command: BTreeMap<String, f64>,
    /// The share of the events that were handled in the time they were published in.
    kept_up: f64,
    latency: Percentiles,
}

pub(super) async fn run(rig: &mut Rig, sizes: &Sizes) -> Result<Load, CommandError> {
    let seconds = sizes.seconds(SECONDS);
    let runs = sizes.runs * (1 + WAYS.len() as u64);
    let takes = (seconds + sizes.warm_up()).mul_f64(runs as f64 * 1.1);
    rig.progress.begin("middling load", runs, takes);
    let (mut publisher, mut rounds) = (Vec::new(), Vec::new());
    for round in 1..=sizes.runs {
        rig.progress.step(round, sizes.runs, "publishing to nobody");
        let alone = publish_to_nobody(rig, sizes, 1, PER_SECOND, seconds).await?;
        rig.progress.done();
        let mut told = BTreeMap::new();
        for way in sizes.turns(round, WAYS) {
            rig.progress.step(round, sizes.runs, way.name());
            let run = latency::measure(rig, sizes, way, PER_SECOND, None).await?;
            told.insert(way.name(), Told::of(&run, alone));
            rig.progress.done();
        }
        publisher.push(alone);
        rounds.push(told);
    }
    let of =
        |way: Way| -> Vec<Told> { rounds.iter().map(|told| told[way.name()].clone()).collect() };
    let [one_by_one, bare, runtime] = WAYS.map(of);
    Ok(Load {
        per_second: PER_SECOND,
        seconds: seconds.as_secs_f64(),
        runs: sizes.runs,
        publisher_redis_us: median(publisher),
        redis_cpu_ratio: ratio(&runtime, &one_by_one, |told| told.redis_us),
        p99_ratio: ratio(&runtime, &bare, |told| told.latency.p99_us),
        p99_more_us: difference(&runtime, &bare, |told| told.latency.p99_us),
        one_by_one: Told::medians(&one_by_one),
        bare: Told::medians(&bare),
        runtime: Told::medians(&runtime),
        rounds,
    })
}

/// Redis CPU per message of the publisher alone.
pub(super) async fn publish_to_nobody(
    rig: &mut Rig,
    sizes: &Sizes,
    streams: usize,
    per_second: u64,
    measured: Duration,
) -> Result<f64, CommandError> {
    let timetable = Timetable {
        streams: rig.streams(streams),
        per_second,
        warm_up: sizes.warm_up(),
        measured,
        places: None,
    };
    let run = paced(rig, None, 0, &timetable).await?;
    rig.drop_streams(&timetable.streams).await?;
    Ok(run.cost.redis_us(run.published))
}

impl Told {
    fn of(run: &Paced, publisher_us: f64) -> Self {
        let handled = run.handled.max(1);
        Told {
            redis_us: run.redis_us_beside(publisher_us),
            client_us: run.client_us,
            commands: run.cost.commands(handled),
            by_command: run.cost.by_command(handled),
            kept_up: run.handled as f64 / run.published as f64,
            latency: Percentiles::of(&run.latencies),
        }
    }

    fn medians(runs: &[Told]) -> Self {
        let of = |figure: fn(&Told) -> f64| median(runs.iter().map(figure));
        let names = runs.iter().flat_map(|run| run.by_command.keys());
        let calls = |name: &String| {
            median(
                runs.iter()
                    .map(|run| run.by_command.get(name).copied().unwrap_or(0.0)),
            )
        };
        let latencies: Vec<Percentiles> = runs.iter().map(|run| run.latency).collect();
        Told {
            redis_us: of(|run| run.redis_us),
            client_us: of(|run| run.client_us),
            commands: of(|run| run.commands),
            by_command: names.map(|name| (name.clone(), calls(name))).collect(),
            kept_up: of(|run| run.kept_up),
            latency: Percentiles::medians(&latencies),
        }
    }
}

impl Measured for Load {
    fn text(&self) -> String {
        let row = |name: &str, told: &Told| {
            vec![
                name.to_owned(),
                format!("{:.2}", told.redis_us),
                format!("{:.2}", told.commands),
                format!("{:.2}", told.client_us),
                format!("{:.0}", told.latency.p50_us),
                format!("{:.0}", told.latency.p99_us),
                format!("{:.0} %", told.kept_up * 100.0),
            ]
        };
        let rows = [
            row("read one, ack one", &self.one_by_one),
            row("blocking loop, COUNT 500", &self.bare),
            row("streamhand", &self.runtime),
        ];
        let header = [
            "WAY",
            "Redis µs/msg",
            "commands/msg",
            "client µs/msg",
            "P50 µs",
            "P99 µs",
            "kept up",
        ];
        format!(
            "{} events a second; {} runs of {} s in turns; without the publisher's own {:.2} µs of Redis a message\n\n\
             {}\n\nstreamhand costs Redis {:.2} of what reading and acknowledging one by one does; its p99 is {:.2} of \
             the blocking loop's ({:+.0} µs)",
            self.per_second,
            self.runs,
            self.seconds,
            self.publisher_redis_us,
            table(&header, &[], &rows),
            self.redis_cpu_ratio,
            self.p99_ratio,
            self.p99_more_us
        )
    }
}
