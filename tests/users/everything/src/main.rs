//! A program of an outside user that does all there is: handlers, commands of its own beside those of the library, and
//! a worker inside a program that does other things as well. `make check` builds it.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, FromArgMatches};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use streamhand::admin::{Admin, PauseRequest};
use streamhand::cli::{self, Command, CommandError};
use streamhand::config::{
    HandlerSettings, Rate, RedisSettings, StreamSettings, TelemetrySettings, WorkerSettings,
};
use streamhand::dead_letters::{Filter, Reason};
use streamhand::metrics::Metrics;
use streamhand::retry::Backoff;
use streamhand::{
    Context, Envelope, Event, Failure, FailureExt, FailureKind, Observer, Publisher, Registry,
    Settings, Settled, Summary, Unstarted, Worker,
};

#[derive(Serialize, Deserialize)]
struct OrderCreated {
    order_id: String,
    amount: u64,
}

impl Event for OrderCreated {
    const TYPE: &'static str = "order.created";
}

async fn ship(order: OrderCreated, ctx: Context) -> Result<(), Failure> {
    if order.amount == 0 {
        return Err(Failure::permanent("an order of nothing"));
    }
    let weight: u64 = "12".parse().permanent()?;
    cli::say(format_args!(
        "{} weighs {weight}, attempt {}",
        order.order_id,
        ctx.attempt()
    ));
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct OrderPaid {
    amount: u64,
}

impl Event for OrderPaid {
    const TYPE: &'static str = "order.paid";
}

/// An error of its own, which says once what it means.
#[derive(Debug)]
struct TooMuch(u64);

impl std::fmt::Display for TooMuch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is too much", self.0)
    }
}

impl std::error::Error for TooMuch {}

async fn book(paid: OrderPaid, _: Context) -> Result<(), TooMuch> {
    match paid.amount {
        amount if amount > 1_000 => Err(TooMuch(amount)),
        _ => Ok(()),
    }
}

fn registry() -> Registry {
    Registry::new()
        .on(ship)
        .on_typed(book)
        .classify(|_: &TooMuch| FailureKind::Permanent)
}

/// Says what becomes of each entry.
#[derive(Debug)]
struct Says;

impl Observer for Says {
    fn settled(&self, settled: &Settled<'_>) {
        cli::say(format_args!("{:?} {:?}", settled.outcome, settled.error));
    }

    fn unstarted(&self, left: &Unstarted<'_>) {
        cli::say(format_args!("{} {:?}", left.entry, left.outcome));
    }
}

/// Creates an order.
#[derive(Args)]
struct OrderArgs {
    order_id: String,
    #[arg(long, default_value_t = 1)]
    amount: u64,
}

fn order() -> Command {
    let clap = OrderArgs::augment_args(clap::Command::new("order"));
    Command::new(clap, |settings, matches| async move {
        let args = OrderArgs::from_arg_matches(&matches)
            .map_err(|error| CommandError::usage(error.to_string()))?;
        let event = OrderCreated {
            order_id: args.order_id,
            amount: args.amount,
        };
        let entry = Publisher::new(&settings.redis)?
            .publish("orders", &event)
            .await?;
        cli::print(entry)
    })
}

/// Works beside whatever else the program does, until told to stop.
fn beside() -> Command {
    let clap = clap::Command::new("serve").about("Work beside a server of one's own");
    Command::new(clap, |settings, _| async move {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let working = tokio::spawn(work(settings, async {
            let _ = stopped.await;
        }));
        serve().await?;
        drop(stop);
        working
            .await
            .map_err(|error| CommandError::failed(error.to_string()))?
    })
}

async fn work(settings: Settings, stop: impl Future<Output = ()>) -> Result<(), CommandError> {
    // Counted in one place with whatever else the program counts, and shown wherever it likes.
    let metrics = Metrics::new();
    let worker = Worker::new(settings, registry())?.metrics(&metrics);
    let summary = worker.run(stop).await?;
    let (form, page) = metrics.render("text/plain");
    cli::say(format_args!("{} bytes of {form}", page.len()));
    match summary.unsettled {
        0 => Ok(()),
        unsettled => Err(CommandError::failed(format!("{unsettled} are left"))),
    }
}

/// In place of a web server.
async fn serve() -> Result<(), CommandError> {
    cli::told_to_stop("")?.await;
    Ok(())
}

/// Says how the group is, replays what crashed, and pauses for an hour: the work of an operator, from code.
fn look_after() -> Command {
    let clap = clap::Command::new("look-after").about("Replay what crashed, and pause a stream");
    Command::new(clap, |settings, _| async move {
        let admin = Admin::new(&settings)?;
        let status = admin.status().await?;
        for stream in status.streams {
            cli::print(format_args!("{} {}", stream.stream, stream.is_worked_on()))?;
        }
        for topic in status.topics {
            cli::print(format_args!(
                "{} of {} partitions",
                topic.topic, topic.partitions
            ))?;
        }
        let dead = admin.dead_letters()?;
        let crashed = dead.select(Filter::new().reason(Reason::Crashed)).await?;
        let mut letters = crashed.letters();
        while let Some(letter) = letters.next().await? {
            let is_known = letter.reason == Reason::Crashed;
            cli::print(format_args!(
                "{} of {}: {is_known}",
                letter.id, letter.entry
            ))?;
        }
        crashed.replay("ops", None, |_| ()).await?;
        let pause = PauseRequest::of("orders", "ops")
            .reason("stock-taking")
            .lasts(Duration::from_secs(3_600));
        admin.pause_with(pause).await?;
        Ok(())
    })
}

/// Settings without a file.
fn own_settings() -> Settings {
    let redis = RedisSettings::default().url("redis://127.0.0.1:6379".parse().expect("an address"));
    let worker = WorkerSettings::default()
        .group("shipping")
        .streams(["orders"])
        .lease(Duration::from_secs(10));
    let slowly = HandlerSettings::default()
        .max_attempts(8)
        .backoff(Backoff::new(Duration::from_secs(1)).max(Duration::from_secs(60)))
        .rate("5/s".parse::<Rate>().expect("a rate"));
    Settings::default()
        .redis(redis)
        .worker(worker)
        .handler("order.created", slowly)
        .stream("orders", StreamSettings::default().partitions(8))
        .telemetry(TelemetrySettings::default().listen(SocketAddr::from(([127, 0, 0, 1], 9464))))
}

/// An event with more to it than its type says, published by what was made without a file.
fn import() -> Command {
    let clap = clap::Command::new("import").about("Publish an order as it came from elsewhere");
    Command::new(clap, |_, _| async move {
        let order = OrderCreated {
            order_id: "o-1".to_owned(),
            amount: 1,
        };
        // What comes from elsewhere may break the rules of a field.
        let envelope = Envelope::new(OrderCreated::TYPE)
            .json(&order)?
            .try_with("time", "2026-01-31T12:00:00Z")?
            .try_with("subject", "order:o-1")?;
        // Which partition it belongs to is for the publisher to know.
        let publisher = Publisher::of_settings(&own_settings())?;
        cli::say(publisher.stream_of("orders", &envelope).await?);
        cli::print(publisher.publish_envelope("orders", envelope).await?)
    })
}

fn main() -> ExitCode {
    streamhand::program!(registry())
        .observer(Says)
        .on_start(async |settings: Settings| {
            // Whether the server is there is known before the work begins.
            let publisher = Publisher::connect(settings.redis.url.clone()).await?;
            cli::say(format_args!("{publisher:?}"));
            Ok(())
        })
        .on_stop(async |summary: Summary| {
            cli::say(format_args!("{} settled", summary.settled));
            Ok(())
        })
        .command(order())
        .command(beside())
        .command(look_after())
        .command(import())
        .main()
}
