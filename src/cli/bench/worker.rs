//! `bench-worker`, which is not for people: one of the processes a measurement runs on. See [`crew`](super::crew).

use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::events::{Due, Sample};
use super::measure::{memory_mb, now_ns, own_cpu};
use super::{figures, loops};
use crate::cli::CommandError;
use crate::config::Settings;
use crate::context::Context;
use crate::failure::Failure;
use crate::handler::Registry;
use crate::worker::Worker;

/// How often it tells how much it has handled; where latencies are measured it must not disturb them.
const TELL: Duration = Duration::from_millis(5);
const TELL_SELDOM: Duration = Duration::from_millis(50);

#[derive(Args)]
pub(in crate::cli) struct BenchWorkerArgs {
    way: Way,
    /// Handlers wait so many milliseconds, on average
    #[arg(long)]
    wait: Option<u64>,
    /// Handlers fail
    #[arg(long)]
    fail: bool,
    /// Events tell when they were due
    #[arg(long)]
    due: bool,
}

/// A way to work through a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Way {
    /// The runtime as its users run it, with all that is on by default.
    Streamhand,
    /// XREADGROUP COUNT 500, the ids moved out of the reply, one XACK; no handler.
    Bare,
    /// The same on a blocking socket.
    Blocking,
    /// The same, but one entry at a time.
    OneByOne,
}

/// What a process says at its end.
#[derive(Serialize, Deserialize)]
pub(super) struct Report {
    pub handled: u64,
    pub peak_mb: Option<f64>,
    /// Latencies in ns, and how often each was met.
    pub latencies: Vec<(u64, u64)>,
}

/// What has been handled.
pub(super) struct Tally {
    handled: AtomicU64,
    latencies: Option<Mutex<Histogram<u64>>>,
}

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Way::Streamhand => "streamhand",
            Way::Bare => "bare",
            Way::Blocking => "blocking",
            Way::OneByOne => "one-by-one",
        }
    }
}

pub(in crate::cli) async fn run(
    args: BenchWorkerArgs,
    settings: Settings,
) -> Result<(), CommandError> {
    let tally = Arc::new(Tally {
        handled: AtomicU64::new(0),
        latencies: args.due.then(|| Mutex::new(figures::histogram())),
    });
    say("ready");
    let stop = told_to_go(&tally)?;
    tell(tally.clone(), if args.due { TELL_SELDOM } else { TELL });
    match args.way {
        Way::Streamhand => {
            let worker = Worker::new(settings, registry(&args, &tally))?;
            let summary = worker.run(stopped(&stop)).await?;
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
        handled: tally.handled.load(Ordering::Acquire),
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

impl Tally {
    /// An event of this amount was handled.
    pub fn handled(&self, amount: u64) {
        self.handled.fetch_add(1, Ordering::Relaxed);
        if let Some(latencies) = &self.latencies
            && let Some(due) = Due::of(amount)
        {
            record(
                &mut latencies.lock().expect("no panic while it is locked"),
                due,
                now_ns(),
            );
        }
    }

    /// So many events were there to be handled at the same time, with their data.
    pub fn handled_all<'a>(&self, count: usize, data: impl FnOnce() -> Vec<&'a [u8]>) {
        self.handled.fetch_add(count as u64, Ordering::Relaxed);
        if let Some(latencies) = &self.latencies {
            let (now, mut latencies) = (
                now_ns(),
                latencies.lock().expect("no panic while it is locked"),
            );
            for due in data().into_iter().filter_map(Due::of_data) {
                record(&mut latencies, due, now);
            }
        }
    }

    /// How far it is, and the CPU time it took.
    fn mark(&self) -> String {
        let (handled, cpu) = (self.handled.load(Ordering::Acquire), own_cpu());
        format!("mark {handled} {}", cpu.as_nanos())
    }

    /// What was recorded, as values and how often each was met.
    fn latencies(&self) -> Vec<(u64, u64)> {
        let Some(latencies) = &self.latencies else {
            return Vec::new();
        };
        let latencies = latencies.lock().expect("no panic while it is locked");
        let recorded = latencies.iter_recorded();
        recorded
            .map(|value| (value.value_iterated_to(), value.count_at_value()))
            .collect()
    }
}

fn record(latencies: &mut Histogram<u64>, due: Due, now: u64) {
    latencies.saturating_record(now.saturating_sub(due.0));
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
        set.flag.store(true, Ordering::Release);
        set.token.cancel();
    });
    Ok(stop)
}

/// Whether it is to end.
#[derive(Default)]
pub(super) struct Stop {
    flag: AtomicBool,
    token: tokio_util::sync::CancellationToken,
}

impl Stop {
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }
}

async fn stopped(stop: &Stop) {
    stop.token.cancelled().await;
}

/// Tells how much has been handled, whenever there is something new.
fn tell(tally: Arc<Tally>, every: Duration) {
    std::thread::spawn(move || {
        let mut told = 0;
        loop {
            std::thread::sleep(every);
            let handled = tally.handled.load(Ordering::Acquire);
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
