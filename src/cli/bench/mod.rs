//! `bench`: what this machine and this Redis can do. Two ways through the same events, in turns on one server: the
//! bare loop, which is the least one can do, and this runtime with a handler that does nothing.

mod bare;
mod measure;
mod runtime;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::CommandError;
use super::private_server::PrivateServer;
use super::terminal::{print, say};
use crate::config::{RedisUrl, Settings};
use measure::{Meter, Run};

#[derive(Args)]
pub(super) struct BenchArgs {
    /// Start this redis-server or valkey-server for the measurement, instead of using redis.url
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
    /// Events a run
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    events: u64,
    /// Runs of each way
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    runs: u64,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

/// What the runs came to; medians.
#[derive(Serialize)]
struct Report {
    events: u64,
    runs: u64,
    bare: Figures,
    runtime: Figures,
    /// The runtime's throughput in terms of the bare loop's.
    throughput_ratio: f64,
    /// Redis CPU per message, likewise.
    redis_cpu_ratio: f64,
    /// This process's CPU per message, likewise.
    client_cpu_ratio: f64,
    /// How much of the time Redis was busy under the runtime, from 0 to 1.
    redis_busy: f64,
}

#[derive(Serialize)]
struct Figures {
    per_second: f64,
    redis_us: f64,
    client_us: f64,
}

pub(super) async fn run(args: BenchArgs, mut settings: Settings) -> Result<(), CommandError> {
    let private = match &args.server {
        Some(program) => Some(PrivateServer::start(program).await?),
        None => None,
    };
    if let Some(server) = &private {
        settings.redis = crate::config::RedisSettings::default();
        settings.redis.url = RedisUrl::parse(&server.url()).map_err(CommandError::failed)?;
    }
    let mut meter = Meter::connect(&settings.redis).await?;
    // Keys of its own, which go with it, so that a bench on a server in use harms nothing.
    let stream = format!("streamhand-bench-{:08x}", fastrand::u32(..));
    let (mut bare, mut runtime) = (Vec::new(), Vec::new());
    for round in 1..=args.runs {
        say(format_args!("run {round} of {}", args.runs));
        let stream = format!("{stream}-{round}");
        let measured = async {
            runtime::fill(&settings.redis, &stream, args.events).await?;
            let first = bare::run(&mut meter, &stream, args.events).await?;
            let second = runtime::run(&mut meter, &settings.redis, &stream, args.events).await?;
            Ok::<_, CommandError>((first, second))
        };
        let measured = measured.await;
        meter.clean_up(&stream).await?;
        let (first, second) = measured?;
        bare.push(first);
        runtime.push(second);
    }
    let report = Report::of(&args, &bare, &runtime);
    if args.json {
        let json = serde_json::to_string(&report)
            .map_err(|error| CommandError::failed(error.to_string()))?;
        print(json)
    } else {
        report.print()
    }
}

impl Report {
    fn of(args: &BenchArgs, bare: &[Run], runtime: &[Run]) -> Self {
        let pairs = |figure: fn(&Run) -> f64| {
            median(
                bare.iter()
                    .zip(runtime)
                    .map(|(bare, runtime)| figure(runtime) / figure(bare))
                    .collect(),
            )
        };
        Report {
            events: args.events,
            runs: args.runs,
            bare: Figures::of(bare),
            runtime: Figures::of(runtime),
            throughput_ratio: pairs(Run::per_second),
            redis_cpu_ratio: pairs(Run::redis_us),
            client_cpu_ratio: pairs(Run::client_us),
            redis_busy: median(runtime.iter().map(Run::redis_busy).collect()),
        }
    }

    fn print(&self) -> Result<(), CommandError> {
        print(format_args!(
            "{} events a run, median of {} runs in turns\n",
            self.events, self.runs
        ))?;
        print(format_args!(
            "{:<36}{:>12}{:>16}{:>16}",
            "", "messages/s", "Redis µs/msg", "client µs/msg"
        ))?;
        for (name, figures) in [
            ("bare loop, COUNT 500, no handler", &self.bare),
            ("streamhand, no-op handler", &self.runtime),
        ] {
            print(format_args!(
                "{name:<36}{:>12.0}{:>16.2}{:>16.2}",
                figures.per_second, figures.redis_us, figures.client_us
            ))?;
        }
        print(format_args!(
            "{:<36}{:>12.2}{:>16.2}{:>16.2}",
            "streamhand in terms of the bare loop",
            self.throughput_ratio,
            self.redis_cpu_ratio,
            self.client_cpu_ratio
        ))?;
        print(format_args!(
            "\nRedis was busy for {:.0} % of the time under streamhand",
            self.redis_busy * 100.0
        ))
    }
}

impl Figures {
    fn of(runs: &[Run]) -> Self {
        let figure = |figure: fn(&Run) -> f64| median(runs.iter().map(figure).collect());
        Figures {
            per_second: figure(Run::per_second),
            redis_us: figure(Run::redis_us),
            client_us: figure(Run::client_us),
        }
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => figures[n / 2],
        n => f64::midpoint(figures[n / 2 - 1], figures[n / 2]),
    }
}
