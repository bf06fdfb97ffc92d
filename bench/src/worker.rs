//! `bench-worker`, which is not for people: one of the processes a measurement runs on. See [`crew`](super::crew).

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::events::Sample;
use super::job::{Path, Way};
use super::loops;
use super::measure::memory_mb;
use super::tally::{Stop, Tally};
use streamhand::Context;
use streamhand::Effect;
use streamhand::Failure;
use streamhand::Registry;
use streamhand::Settings;
use streamhand::Worker;
use streamhand::cli::CommandError;

/// How often it tells how much it has handled; where latencies are measured it must not disturb them.
const TELL: Duration = Duration::from_millis(5);
const TELL_SELDOM: Duration = Duration::from_millis(50);

#[derive(Args)]
pub(super) struct BenchWorkerArgs {
    way: Way,
    /// Handlers wait so many milliseconds, on average
    #[arg(long)]
    wait: Option<u64>,
    /// Handlers fail
    #[arg(long)]
    fail: bool,
    /// What becomes of an entry
    #[arg(long, value_enum, default_value_t = Path::Handled)]
    path: Path,
    /// Events tell when they were due
    #[arg(long)]
    due: bool,
}

/// What a process says at its end.
#[derive(Serialize, Deserialize)]
pub(super) struct Report {
    pub handled: u64,
    pub peak_mb: Option<f64>,
    /// Latencies in ns, and how often each was met.
    pub latencies: Vec<(u64, u64)>,
}

pub(super) async fn run(args: &BenchWorkerArgs, settings: Settings) -> Result<(), CommandError> {
    let tally = Arc::new(Tally::new(args.due));
    say("ready");
    let stop = told_to_go(&tally)?;
    tell(tally.clone(), if args.due { TELL_SELDOM } else { TELL });
    match args.way {
        Way::Streamhand => {
            let worker = Worker::new(settings, registry(args, &tally))?;
            let summary = worker.run(stop.wait()).await?;
            if summary.unsettled > 0 {
                return Err(CommandError::failed("not everything could be settled"));
            }
        }
        Way::Bare => loops::bare(&settings, &tally, &stop).await?,
        Way::Blocking | Way::OneByOne => {
            let count = if args.way == Way::OneByOne { 1 } else { 500 };
            let (tally, stop) = (tally.clone(), stop.clone());
            let looping = tokio::task::spawn_blocking(move || {
                loops::blocking(&settings, count, &tally, &stop)
            });
            looping
                .await
                .map_err(|error| CommandError::failed(error.to_string()))??;
        }
    }
    let report = Report {
        handled: tally.count(),
        peak_mb: memory_mb("self", "VmHWM"),
        latencies: tally.latencies(),
    };
    let report =
        serde_json::to_string(&report).map_err(|error| CommandError::failed(error.to_string()))?;
    say(&report);
    Ok(())
}

fn registry(args: &BenchWorkerArgs, tally: &Arc<Tally>) -> Registry {
    let tally = tally.clone();
    let registry = Registry::new();
    match args.path {
        Path::Handled | Path::Deduplicated => {}
        Path::Committed => return committing(tally),
        Path::Retried => {
            return registry.on(move |sample: Sample, ctx: Context| {
                let is_last = ctx.attempt() > 1;
                if is_last {
                    tally.handled(sample.amount());
                }
                async move {
                    match is_last {
                        true => Ok(()),
                        false => Err(Failure::retry("it is to fail once")),
                    }
                }
            });
        }
        Path::Buried => {
            return registry.on(move |sample: Sample, _: Context| {
                tally.handled(sample.amount());
                async { Err::<(), _>(Failure::permanent("it is to be buried")) }
            });
        }
    }
    if args.fail {
        return registry.on(move |sample: Sample, _: Context| {
            tally.handled(sample.amount());
            async { Err::<(), _>(Failure::retry("it is to fail")) }
        });
    }
    if let Some(wait) = args.wait {
        return registry.on(move |sample: Sample, _: Context| {
            let tally = tally.clone();
            async move {
                // Not all for the same time, or they would end together.
                let wait = Duration::from_millis(wait).mul_f64(0.5 + fastrand::f64());
                tokio::time::sleep(wait).await;
                tally.handled(sample.amount());
                Ok(())
            }
        });
    }
    registry.on(move |sample: Sample, _: Context| {
        tally.handled(sample.amount());
        async { Ok(()) }
    })
}

/// One event, a guarded counter and two writes; named after the stream, so that they go with it.
fn committing(tally: Arc<Tally>) -> Registry {
    Registry::new().on(move |sample: Sample, ctx: Context| {
        let stream = ctx.stream().to_owned();
        let (key, n) = (|name: &str| format!("{{{stream}}}:{name}"), sample.amount());
        ctx.emit(&key("out"), Sample::numbered(n));
        ctx.effect(Effect::hincr_by(key("stock"), format!("s{}", n % 50), 1).at_least(0));
        ctx.effect(Effect::hset(key("orders"), format!("o-{n}"), "x"));
        ctx.effect(Effect::set(key(&format!("last:{n}")), "1"));
        tally.handled(n);
        async { Ok(()) }
    })
}

/// Waits for the word. What it answers is set when there is nobody left to listen.
fn told_to_go(tally: &Arc<Tally>) -> Result<Arc<Stop>, CommandError> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    if !matches!(read, Ok(read) if read > 0) {
        return Err(CommandError::failed("nobody said that it is to begin"));
    }
    let stop = Arc::new(Stop::default());
    let (set, tally) = (stop.clone(), tally.clone());
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            match line.as_deref() {
                Ok("mark") => say(&tally.mark()),
                _ => break,
            }
        }
        set.set();
    });
    Ok(stop)
}

/// Tells how much has been handled, whenever there is something new.
fn tell(tally: Arc<Tally>, every: Duration) {
    std::thread::spawn(move || {
        let mut told = 0;
        loop {
            std::thread::sleep(every);
            let handled = tally.count();
            if handled != told {
                say(&handled.to_string());
                told = handled;
            }
        }
    });
}

fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    // Where nobody listens any more the end of standard input tells so as well.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
