//! Measures streamhand against other crates that handle events from Redis: the same events, the same server,
//! acknowledged after the handler, the clock stopped when nothing is pending.

#![forbid(unsafe_code)]

mod measure;
mod order;
mod peers;
mod report;
mod server;
mod tally;

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use clap::{Parser, ValueEnum};

use peers::{Bench, Peer, Threads, Visitor};
use report::{Missing, Outcome, Report};
use server::{PrivateServer, Version};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// What everybody's version is read from.
const LOCK: &str = include_str!("../Cargo.lock");

#[derive(Parser)]
#[command(about = "Measures streamhand against other crates that handle events from Redis")]
enum Command {
    /// Measure one peer once, in an empty database, and print one line of JSON
    Run(RunArgs),
    /// Measure them all in turns, each run in a process of its own, on a server started for it
    All(AllArgs),
    /// Print the peers that were compiled in
    List,
}

#[derive(clap::Args)]
struct RunArgs {
    /// Which one; `list` prints them
    name: String,
    /// The server; its database must be empty, and is emptied afterwards
    #[arg(long)]
    url: String,
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    events: u64,
    /// The runtime, where it should not be the one that this peer is fastest on
    #[arg(long)]
    threads: Option<ThreadsArg>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ThreadsArg {
    One,
    Many,
}

#[derive(clap::Args)]
struct AllArgs {
    /// The redis-server or valkey-server to start
    #[arg(long, value_name = "PROGRAM")]
    server: PathBuf,
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    runs: u64,
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    events: u64,
    /// Measure these alone
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Write what was measured, every run of it, to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Run(args) => run(args),
        Command::All(args) => runtime(Threads::One).and_then(|runtime| runtime.block_on(all(args))),
        Command::List => {
            println!("{}", peers::names().join("\n"));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: RunArgs) -> Result<()> {
    let name = args.name.clone();
    let outcome = peers::visit(&name, Measure(args))?;
    println!("{}", serde_json::to_string(&outcome?)?);
    Ok(())
}

struct Measure(RunArgs);

impl Visitor for Measure {
    type Output = Result<Outcome>;

    fn visit<P: Peer>(self) -> Result<Outcome> {
        let Measure(args) = self;
        let threads = match args.threads {
            None => P::THREADS,
            Some(ThreadsArg::One) => Threads::One,
            Some(ThreadsArg::Many) => Threads::Many,
        };
        runtime(threads)?.block_on(async {
            let server = Version::of(&args.url).await?;
            let skipped = measure::unfit::<P>(&server);
            let bench = Bench {
                url: args.url,
                events: args.events,
            };
            let figures = match &skipped {
                None => Some(measure::run::<P>(bench).await?),
                Some(_) => None,
            };
            let on = match threads {
                Threads::One => "one thread",
                Threads::Many => "a thread a core",
            };
            Ok(Outcome {
                name: P::NAME.to_owned(),
                version: version(P::CRATE)
                    .ok_or("the lock file does not name it")?
                    .to_owned(),
                events: args.events,
                figures,
                settings: format!("{}; {on}", P::SETTINGS),
                skipped,
            })
        })
    }
}

fn version(name: &str) -> Option<&'static str> {
    let package = format!("name = \"{name}\"\nversion = \"");
    let (_, rest) = LOCK.split_once(&package)?;
    rest.split('"').next()
}

fn runtime(threads: Threads) -> Result<tokio::runtime::Runtime> {
    let mut builder = match threads {
        Threads::One => tokio::runtime::Builder::new_current_thread(),
        Threads::Many => tokio::runtime::Builder::new_multi_thread(),
    };
    Ok(builder.enable_all().build()?)
}

async fn all(args: AllArgs) -> Result<()> {
    let mut names = peers::names();
    for only in &args.only {
        if !names.contains(&only.as_str()) {
            return Err(format!(
                "there is no peer named {only}; there are {}",
                names.join(", ")
            )
            .into());
        }
    }
    names.retain(|name| args.only.is_empty() || args.only.iter().any(|only| only == name));
    let server = PrivateServer::start(&args.server).await?;
    let url = server.url();
    let (mut rounds, mut failed) = (Vec::new(), Vec::new());
    for number in 0..args.runs {
        // Nobody comes always first, or always after the same one.
        let shift = number as usize % names.len();
        let mut round = Vec::new();
        for name in names[shift..].iter().chain(&names[..shift]) {
            eprintln!("run {} of {}: {name}", number + 1, args.runs);
            match measure_in_process(name, &url, args.events).await {
                Ok(outcome) => round.push(outcome),
                Err(error) => {
                    eprintln!("{name}: {error}");
                    failed.push(Missing {
                        name: (*name).to_owned(),
                        reason: error.to_string(),
                    });
                    empty(&url).await?;
                }
            }
        }
        rounds.push(round);
    }
    let report = Report::new(
        Version::of(&url).await?.to_string(),
        args.events,
        rounds,
        failed,
    );
    if let Some(path) = &args.json {
        write(path, &serde_json::to_string_pretty(&report)?)?;
    }
    report.print();
    if report.failed.is_empty() {
        Ok(())
    } else {
        Err("not every run came to its end".into())
    }
}

async fn measure_in_process(name: &str, url: &str, events: u64) -> Result<Outcome> {
    let output = tokio::process::Command::new(std::env::current_exe()?)
        .args(["run", name, "--url", url, "--events", &events.to_string()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", output.status, said.trim()).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Removes what a run that failed left behind.
async fn empty(url: &str) -> Result<()> {
    let mut conn = redis::Client::open(url)?
        .get_multiplexed_async_connection()
        .await?;
    Ok(redis::cmd("FLUSHDB")
        .arg("SYNC")
        .query_async(&mut conn)
        .await?)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text)
        .map_err(|error| format!("can't write {}: {error}", path.display()).into())
}
