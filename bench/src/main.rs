//! `streamhand-bench`: what this machine and this Redis can do, and how near to it the runtime comes. Every figure that compares is
//! a ratio of runs that took turns on one server.

#![forbid(unsafe_code)]

mod crew;
mod events;
mod eventstore;
mod figures;
mod job;
mod latency;
mod load;
mod loops;
mod measure;
mod pacer;
mod paths;
mod places;
mod progress;
mod publish;
mod rig;
mod runs;
mod scale;
mod tally;
mod throughput;
mod watched;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use streamhand::cli::{CommandError, Globals, Program, print, say, told_to_stop};
use streamhand::unstable::flush;
use streamhand::{Registry, Settings};

use progress::Progress;
use rig::Rig;
use worker::BenchWorkerArgs;

#[derive(Parser)]
#[command(
    version,
    about = "Measures what this machine and this Redis can do, against the least a worker could do",
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(flatten)]
    bench: BenchArgs,
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    own: Option<Own>,
}

/// What the bench starts for itself.
#[derive(Subcommand)]
enum Own {
    /// One of the processes a measurement runs on
    #[command(hide = true)]
    BenchWorker(BenchWorkerArgs),
    /// The command `publish` of every program of streamhand's
    #[command(hide = true)]
    BenchPublish {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if error.code() != 0 {
                say(format_args!("error: {error}"));
            }
            flush();
            ExitCode::from(error.code())
        }
    }
}

fn start(cli: Cli) -> Result<(), CommandError> {
    let runtime = || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build();
        runtime.map_err(|error| CommandError::failed(format!("can't start: {error}")))
    };
    match &cli.own {
        Some(Own::BenchPublish { arguments }) => {
            let arguments = arguments.iter().map(String::as_str);
            Program::new(Registry::new())
                .run_from(["streamhand", "publish"].into_iter().chain(arguments))
        }
        Some(Own::BenchWorker(args)) => {
            log("info");
            runtime()?.block_on(worker::run(args, cli.globals.settings()?))
        }
        None => {
            // Its workers' comings and goings are not what is asked for.
            log("warn");
            runtime()?.block_on(run(&cli.bench, cli.globals.settings()?))
        }
    }
}

/// Logs go to standard error.
fn log(default: &str) {
    let filter = std::env::var("STREAMHAND_LOG").unwrap_or_else(|_| default.to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
}

#[derive(Args)]
struct BenchArgs {
    /// What to measure
    #[arg(value_enum, default_value_t = Part::Throughput)]
    part: Part,
    /// Start this redis-server or valkey-server for the measurement, instead of using redis.url
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
    /// Events of a run, where it has a backlog [default: 1000000; scale: as each series needs]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    events: Option<u64>,
    /// Seconds of a run, where events come by a timetable [default: 10; scale: 5]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: Option<u64>,
    /// Runs of each way [default: 5]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100))]
    runs: Option<u64>,
    /// Of scale, these series alone
    #[arg(long, value_name = "SERIES", value_delimiter = ',')]
    only: Vec<scale::Kind>,
    /// A hundredth of everything, and one run: to see that it works; the figures mean nothing
    #[arg(long)]
    small: bool,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    /// A backlog, as fast as it goes, against the bare loop
    Throughput,
    /// A backlog by a worker that nobody watches, one with its pulse, and one whose metrics are scraped
    Watched,
    /// What entries cost that are committed, retried, buried, deduplicated, against the same commands in pipelines
    Paths,
    /// From publication to the start of the handler, against a loop on a blocking socket
    Latency,
    /// What a message costs at 10,000 a second, against reading and acknowledging one by one
    Load,
    /// What grows with workers, streams, handlers, parked and abandoned entries, payloads, backlogs
    Scale,
    /// Publishing, against XADD in pipelines
    Publish,
    /// Aggregates: appending, loading, and updating what others update too
    Eventstore,
}

/// How much is to be measured.
struct Sizes {
    events: Option<u64>,
    seconds: Option<u64>,
    runs: u64,
    small: bool,
}

/// What a part came to.
trait Measured: erased::Json {
    /// For people.
    fn text(&self) -> String;
}

async fn run(args: &BenchArgs, settings: Settings) -> Result<(), CommandError> {
    if !args.only.is_empty() && args.part != Part::Scale {
        return Err(CommandError::usage(
            "--only is for scale: streamhand-bench scale --only …",
        ));
    }
    let sizes = Sizes {
        events: args.events,
        seconds: args.seconds,
        runs: args.runs.unwrap_or(if args.small { 1 } else { 5 }),
        small: args.small,
    };
    let stop = told_to_stop("; what it measured with is still on the server")?;
    let mut rig = Rig::set_up(args.server.as_deref(), settings.redis, Progress::new()).await?;
    let measured = tokio::select! {
        biased;
        () = stop => Err(CommandError::failed("stopped; nothing was left on the server")),
        measured = measure(&mut rig, args, &sizes) => measured,
    };
    rig.progress.end();
    // Also where it was stopped or went wrong: on a server in use nothing may stay.
    let cleaned = rig.clean_up().await;
    let measured = measured?;
    cleaned?;
    print(if args.json {
        measured.json(&rig.server)?
    } else {
        measured.text()
    })
}

async fn measure(
    rig: &mut Rig,
    args: &BenchArgs,
    sizes: &Sizes,
) -> Result<Box<dyn Measured>, CommandError> {
    Ok(match args.part {
        Part::Throughput => Box::new(throughput::run(rig, sizes).await?),
        Part::Watched => Box::new(watched::run(rig, sizes).await?),
        Part::Paths => Box::new(paths::run(rig, sizes).await?),
        Part::Latency => Box::new(latency::run(rig, sizes).await?),
        Part::Load => Box::new(load::run(rig, sizes).await?),
        Part::Scale => Box::new(scale::run(rig, sizes, &args.only).await?),
        Part::Publish => Box::new(publish::run(rig, sizes).await?),
        Part::Eventstore => Box::new(eventstore::run(rig, sizes).await?),
    })
}

impl Sizes {
    /// Events of a run that has usually so many.
    fn events(&self, usual: u64) -> u64 {
        self.events.unwrap_or_else(|| self.events_of(usual))
    }

    /// Likewise, where the number is what matters.
    fn events_of(&self, usual: u64) -> u64 {
        if self.small { usual / 100 } else { usual }
    }

    /// How many lie around where it is usually so many.
    fn pile(&self, usual: u64) -> u64 {
        self.events_of(usual)
    }

    /// How long a run takes that takes usually so many seconds.
    fn seconds(&self, usual: f64) -> Duration {
        match self.seconds {
            Some(seconds) => Duration::from_secs(seconds),
            None if self.small => Duration::from_secs_f64(usual / 50.0),
            None => Duration::from_secs_f64(usual),
        }
    }

    /// How long events come before a run by a timetable begins.
    fn warm_up(&self) -> Duration {
        Duration::from_millis(if self.small { 100 } else { 1_000 })
    }

    /// The ways in the order of this round: each is first in its turn.
    fn turns<T: Copy, const N: usize>(&self, round: u64, mut ways: [T; N]) -> [T; N] {
        ways.rotate_left((round as usize - 1) % N);
        ways
    }
}

mod erased {
    use super::{CommandError, Serialize};

    /// Something that can be told as one JSON value.
    pub(super) trait Json {
        fn json(&self, server: &str) -> Result<String, CommandError>;
    }

    #[derive(Serialize)]
    struct Headed<'a, T> {
        server: &'a str,
        streamhand: &'static str,
        #[serde(flatten)]
        measured: &'a T,
    }

    impl<T: Serialize> Json for T {
        fn json(&self, server: &str) -> Result<String, CommandError> {
            let headed = Headed {
                server,
                streamhand: streamhand::unstable::VERSION,
                measured: self,
            };
            serde_json::to_string(&headed).map_err(|error| CommandError::failed(error.to_string()))
        }
    }
}
