//! From an event's publication to the start of its handler, at several rates: this runtime, and a loop on a blocking
//! socket, which nothing gets ahead of.

use serde::Serialize;

use super::figures::{self, Percentiles, difference, median, ratio};
use super::job::Job;
use super::job::Way;
use super::pacer::Timetable;
use super::places::Places;
use super::rig::Rig;
use super::runs::{Paced, paced};
use super::{Measured, Sizes};
use streamhand::cli::CommandError;
use streamhand::unstable::table;

const RATES: [u64; 3] = [100, 1_000, 10_000];
const SECONDS: f64 = 10.0;

/// Latencies at each rate; medians of the runs' percentiles.
#[derive(Serialize)]
pub(super) struct Latency {
    seconds: f64,
    runs: u64,
    /// With the publisher on a CPU of its own, and server and worker on the others, where that can be had.
    rates: Vec<Rate>,
    /// The first of them once more, with all of them wherever the kernel puts them.
    anywhere: Option<Rate>,
}

#[derive(Serialize)]
struct Rate {
    per_second: u64,
    /// The publisher had a CPU of its own.
    apart: bool,
    bare: Percentiles,
    runtime: Percentiles,
    p50_ratio: f64,
    p99_ratio: f64,
    /// By how much the runtime's is more.
    p50_more_us: f64,
    p99_more_us: f64,
    /// How much later than they were due events were sent, the worst run: part of both ways' latencies.
    sent_late_p50_us: f64,
    sent_late_p99_us: f64,
    rounds: Vec<Round>,
    curves: Curves,
}

#[derive(Serialize)]
struct Round {
    bare: Percentiles,
    runtime: Percentiles,
}

/// Shares of all samples and the latency in µs that each stays below.
#[derive(Serialize)]
struct Curves {
    bare: Vec<(f64, f64)>,
    runtime: Vec<(f64, f64)>,
}

pub(super) async fn run(rig: &mut Rig, sizes: &Sizes) -> Result<Latency, CommandError> {
    let seconds = sizes.seconds(SECONDS);
    let places = Places::apart();
    let mut rates = Vec::new();
    for per_second in RATES {
        rates.push(at_rate(rig, sizes, per_second, places.as_ref()).await?);
    }
    let anywhere = match places {
        Some(_) => Some(at_rate(rig, sizes, RATES[0], None).await?),
        None => None,
    };
    Ok(Latency {
        seconds: seconds.as_secs_f64(),
        runs: sizes.runs,
        rates,
        anywhere,
    })
}

async fn at_rate(
    rig: &mut Rig,
    sizes: &Sizes,
    per_second: u64,
    places: Option<&Places>,
) -> Result<Rate, CommandError> {
    let (mut bare, mut runtime) = (Vec::new(), Vec::new());
    let (mut bare_all, mut runtime_all) = (figures::histogram(), figures::histogram());
    let mut late = Vec::new();
    let runs = 2 * sizes.runs;
    let takes = (sizes.seconds(SECONDS) + sizes.warm_up()).mul_f64(runs as f64 * 1.1);
    let what = match places {
        Some(_) => format!("latency at {per_second} events a second"),
        None => format!("latency at {per_second} events a second, wherever the kernel puts it"),
    };
    rig.progress.begin(&what, runs, takes);
    for round in 1..=sizes.runs {
        for way in sizes.turns(round, [Way::Blocking, Way::Streamhand]) {
            rig.progress.step(round, sizes.runs, way.name());
            let run = measure(rig, sizes, way, per_second, places).await?;
            rig.progress.done();
            late.push(Percentiles::of(&run.late));
            let (told, all) = match way {
                Way::Streamhand => (&mut runtime, &mut runtime_all),
                _ => (&mut bare, &mut bare_all),
            };
            told.push(Percentiles::of(&run.latencies));
            let _ = all.add(&run.latencies);
        }
    }
    let late = |figure: fn(&Percentiles) -> f64| median(late.iter().map(figure));
    Ok(Rate {
        per_second,
        apart: places.is_some(),
        bare: Percentiles::medians(&bare),
        runtime: Percentiles::medians(&runtime),
        p50_ratio: ratio(&runtime, &bare, |run| run.p50_us),
        p99_ratio: ratio(&runtime, &bare, |run| run.p99_us),
        p50_more_us: difference(&runtime, &bare, |run| run.p50_us),
        p99_more_us: difference(&runtime, &bare, |run| run.p99_us),
        sent_late_p50_us: late(|run| run.p50_us),
        sent_late_p99_us: late(|run| run.p99_us),
        rounds: bare
            .into_iter()
            .zip(runtime)
            .map(|(bare, runtime)| Round { bare, runtime })
            .collect(),
        curves: Curves {
            bare: figures::curve(&bare_all),
            runtime: figures::curve(&runtime_all),
        },
    })
}

/// One run of one way, on a stream of its own.
pub(super) async fn measure(
    rig: &mut Rig,
    sizes: &Sizes,
    way: Way,
    per_second: u64,
    places: Option<&Places>,
) -> Result<Paced, CommandError> {
    let streams = vec![rig.stream()];
    let mut job = Job::new(way, &streams);
    job.due = true;
    let timetable = Timetable {
        streams,
        per_second,
        warm_up: sizes.warm_up(),
        measured: sizes.seconds(SECONDS),
        places: places.cloned(),
    };
    let run = paced(rig, Some(&job), 1, &timetable).await?;
    rig.drop_streams(&timetable.streams).await?;
    Ok(run)
}

impl Measured for Latency {
    fn text(&self) -> String {
        let (mut rows, mut late) = (Vec::new(), Vec::new());
        let apart = self.rates.iter().map(|rate| (rate, ""));
        let anywhere = self.anywhere.iter().map(|rate| (rate, ", anywhere"));
        for (rate, place) in apart.chain(anywhere) {
            let at = format!("{}{place}", rate.per_second);
            late.push(format!(
                "{:.0}/{:.0}",
                rate.sent_late_p50_us, rate.sent_late_p99_us
            ));
            let mut row = |way: &str, told: &Percentiles, more: [String; 2]| {
                let p999 = told.p999_us.map(|us| format!("{us:.0}"));
                rows.push(vec![
                    at.clone(),
                    way.to_owned(),
                    format!("{:.0}", told.p50_us),
                    more[0].clone(),
                    format!("{:.0}", told.p99_us),
                    more[1].clone(),
                    p999.unwrap_or_default(),
                ]);
            };
            row("blocking loop", &rate.bare, Default::default());
            let more = |ratio: f64, us: f64| format!("{ratio:.2}x, {us:+.0}");
            row(
                "streamhand",
                &rate.runtime,
                [
                    more(rate.p50_ratio, rate.p50_more_us),
                    more(rate.p99_ratio, rate.p99_more_us),
                ],
            );
        }
        let header = ["EVENTS/S", "WAY", "P50 µs", "", "P99 µs", "", "P99.9 µs"];
        let places = match &self.anywhere {
            Some(_) => {
                "the publisher has a CPU of its own, server and worker have the others; anywhere: as the kernel places \
                 them\n"
            }
            None => "",
        };
        format!(
            "from when an event was due to be published to the start of its handler; {} runs of {} s in turns\n\
             {places}\n{}\n\n\
             events were sent late by (p50/p99, µs): {}",
            self.runs,
            self.seconds,
            table(&header, &[], &rows),
            late.join(", ")
        )
    }
}
