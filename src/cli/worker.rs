//! `worker`: who works in a group, and orders to them: take up nothing new, stop, log what runs, log one type's entries,
//! run more or fewer handlers at once.

use std::time::{Duration, Instant, SystemTime};

use clap::{Args, Subcommand};

use super::CommandError;
use super::terminal::{print, print_json, say};
use super::text::{count, printable, rough, table, time, whoami};
use crate::admin::{Admin, Fleet, FleetWorker, StandingOrder, WorkerOrder, WorkerState};
use crate::config::Settings;
use crate::duration;
use crate::names::shown;

/// How long it is waited for workers to say that they have heard of an order.
const HEARD_WITHIN: Duration = Duration::from_secs(5);
/// Runs of a worker that are listed.
const RUNS: usize = 5;

#[derive(Args)]
pub(super) struct WorkerArgs {
    /// The group that is meant [default: worker.group]
    #[arg(long, global = true)]
    pub group: Option<String>,
    #[command(subcommand)]
    command: WorkerCommand,
}

#[derive(Subcommand)]
enum WorkerCommand {
    /// List the group's workers, what they run, and the orders that stand
    List(ListArgs),
    /// Take up nothing new for a time; what runs runs on
    Quiet(LastingArgs),
    /// Stop, as if by a signal: what runs may end within worker.drain
    Drain(Whom),
    /// Write to the log what runs, the longest first
    Dump(Whom),
    /// Log the entries of one event type, one by one, for a time
    Debug(DebugArgs),
    /// Run so many handlers at once for a time, in place of worker.concurrency
    Concurrency(ConcurrencyArgs),
    /// Take back what holds for a time: go on as configured
    Resume(Whom),
}

#[derive(Args)]
struct ListArgs {
    /// Those as well that have ended within a day
    #[arg(long)]
    all: bool,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Whom {
    /// The worker: its name, or a part of it that no other has, such as its host or process
    #[arg(required_unless_present = "all")]
    worker: Option<String>,
    /// All workers of the group
    #[arg(long, conflicts_with = "worker")]
    all: bool,
    /// Who does this, for the log to tell [default: user@host]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

#[derive(Args)]
struct LastingArgs {
    #[command(flatten)]
    whom: Whom,
    /// For how long; it ends by itself after that
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse, default_value = "1h")]
    lasts: Duration,
}

#[derive(Args)]
struct DebugArgs {
    /// The event type
    #[arg(value_name = "TYPE")]
    event_type: String,
    /// This worker alone: its name, or a part of it that no other has [default: all]
    #[arg(long)]
    worker: Option<String>,
    /// For how long; it ends by itself after that
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse, default_value = "10m")]
    lasts: Duration,
    /// Who does this, for the log to tell [default: user@host]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

#[derive(Args)]
struct ConcurrencyArgs {
    /// How many
    #[arg(value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    slots: u32,
    #[command(flatten)]
    lasting: LastingArgs,
}

pub(super) async fn run(args: WorkerArgs, settings: Settings) -> Result<(), CommandError> {
    let admin = Admin::new(&settings)?;
    match args.command {
        WorkerCommand::List(args) => list(&args, &admin).await,
        WorkerCommand::Quiet(LastingArgs { whom, lasts }) => {
            give(&admin, WorkerOrder::quiet(lasts), whom).await
        }
        WorkerCommand::Drain(whom) => give(&admin, WorkerOrder::drain(), whom).await,
        WorkerCommand::Dump(whom) => give(&admin, WorkerOrder::dump(), whom).await,
        WorkerCommand::Debug(args) => {
            let whom = Whom {
                all: args.worker.is_none(),
                worker: args.worker,
                by: args.by,
            };
            give(
                &admin,
                WorkerOrder::debug(args.event_type, args.lasts),
                whom,
            )
            .await
        }
        WorkerCommand::Concurrency(ConcurrencyArgs { slots, lasting }) => {
            let order = WorkerOrder::concurrency(slots as usize, lasting.lasts);
            give(&admin, order, lasting.whom).await
        }
        WorkerCommand::Resume(whom) => resume(&admin, whom).await,
    }
}

async fn list(args: &ListArgs, admin: &Admin) -> Result<(), CommandError> {
    let mut fleet = admin.fleet().await?;
    if !args.all {
        fleet
            .workers
            .retain(|worker| worker.state != WorkerState::Gone);
    }
    let orders = admin.orders().await?;
    if args.json {
        return print_json(&serde_json::json!({ "fleet": fleet, "orders": orders }));
    }
    if fleet.workers.is_empty() {
        say(format_args!(
            "no worker of {} has been heard of",
            admin.group()
        ));
    } else {
        let header = [
            "WORKER",
            "STATE",
            "VERSION",
            "SLOTS",
            "HELD",
            "MEMORY",
            "CPU",
            "REDIS",
            "UP",
            "LAST SEEN",
        ];
        let rows: Vec<Vec<String>> = fleet
            .workers
            .iter()
            .map(|worker| row(worker, fleet.now))
            .collect();
        print(table(&header, &["WORKER"], &rows))?;
    }
    let runs: Vec<Vec<String>> = fleet
        .there()
        .flat_map(|worker| runs(worker, fleet.now))
        .collect();
    if !runs.is_empty() {
        let header = ["WORKER", "RUNS", "ENTRY", "ATTEMPT", "FOR"];
        print(format_args!(
            "\n{}",
            table(&header, &["WORKER", "RUNS"], &runs)
        ))?;
    }
    if !orders.is_empty() {
        let header = ["ORDER", "TO", "UNTIL", "BY", "CARRIED OUT"];
        let rows: Vec<Vec<String>> = orders
            .iter()
            .map(|order| order_row(order, &fleet))
            .collect();
        print(format_args!("\n{}", table(&header, &["TO", "BY"], &rows)))?;
    }
    Ok(())
}

fn row(worker: &FleetWorker, now: SystemTime) -> Vec<String> {
    let ago = |then: SystemTime| rough(now.duration_since(then).unwrap_or_default());
    vec![
        format!("{}:{}", printable(&worker.host), worker.pid),
        state(worker.state).to_owned(),
        format!("{} ({})", printable(&worker.version), worker.configuration),
        format!("{}/{}", worker.running, worker.slots),
        worker.held.to_string(),
        match worker.memory {
            0 => "-".to_owned(),
            bytes => format!("{} MB", bytes >> 20),
        },
        format!("{:.0} %", worker.cpu * 100.0),
        format!("{:.1}ms", worker.round_trip.as_secs_f64() * 1000.0),
        ago(worker.started),
        format!("{} ago", ago(worker.last_seen)),
    ]
}

fn runs(worker: &FleetWorker, now: SystemTime) -> Vec<Vec<String>> {
    let runs = worker.runs.iter().take(RUNS);
    let row = |run: &crate::admin::LongRun| {
        let lasts = run
            .since
            .map(|since| now.duration_since(since).unwrap_or_default());
        vec![
            format!("{}:{}", printable(&worker.host), worker.pid),
            run.event_type
                .as_deref()
                .map_or_else(|| "-".to_owned(), |of| shown(of).to_string()),
            format!("{} of {}", run.id, run.stream),
            run.attempt
                .map_or_else(|| "-".to_owned(), |attempt| attempt.to_string()),
            lasts.map_or_else(|| "-".to_owned(), rough),
        ]
    };
    runs.map(row).collect()
}

fn order_row(order: &StandingOrder, fleet: &Fleet) -> Vec<String> {
    let (done, of) = carried_out(order, fleet);
    vec![
        order.what.clone(),
        order
            .to
            .as_deref()
            .map_or_else(|| "all".to_owned(), |to| short(to, fleet)),
        time(order.until),
        printable(&order.by).to_string(),
        format!("by {done} of {of}"),
    ]
}

fn state(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Alive => "alive",
        WorkerState::Quiet => "quiet",
        WorkerState::Draining => "draining",
        WorkerState::Gone => "gone",
    }
}

/// A worker's host and process, where it is known.
fn short(name: &str, fleet: &Fleet) -> String {
    let known = fleet.workers.iter().find(|worker| worker.name == name);
    known.map_or_else(
        || shown(name).to_string(),
        |worker| format!("{}:{}", printable(&worker.host), worker.pid),
    )
}

/// How many workers have carried out an order, of how many that it is for.
fn carried_out(order: &StandingOrder, fleet: &Fleet) -> (usize, usize) {
    let is_for = |worker: &&FleetWorker| order.to.as_ref().is_none_or(|to| *to == worker.name);
    // Who drains may be gone by now, and has said what it did.
    let has_done = |worker: &&FleetWorker| worker.carried_out.contains(&order.number);
    let done = fleet.workers.iter().filter(is_for).filter(has_done).count();
    let waits = fleet
        .there()
        .filter(is_for)
        .filter(|worker| !has_done(worker))
        .count();
    (done, done + waits)
}

async fn give(admin: &Admin, order: WorkerOrder, whom: Whom) -> Result<(), CommandError> {
    let by = whom.by.clone().unwrap_or_else(whoami);
    let order = match whom.name(admin).await? {
        Some(name) => order.to(name),
        None => order,
    };
    let given = admin.order(order, &by).await?;
    let until = match given.lasts() {
        true => format!(", until {}", time(given.until)),
        false => String::new(),
    };
    let deadline = Instant::now() + HEARD_WITHIN;
    loop {
        let fleet = admin.fleet().await?;
        let (done, of) = carried_out(&given, &fleet);
        if of == 0 {
            say(format_args!(
                "note: no worker of {} has been heard of",
                admin.group()
            ));
        }
        if done == of || Instant::now() >= deadline {
            let workers = count(of as u64, "worker");
            return print(format_args!(
                "{}: carried out by {done} of {workers}{until}",
                given.what
            ));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn resume(admin: &Admin, whom: Whom) -> Result<(), CommandError> {
    let name = whom.name(admin).await?;
    let mut taken_back = Vec::new();
    for order in admin.orders().await? {
        // What is for all stays where one is named: the others are to go on as they are.
        if order.lasts() && (whom.all || order.to == name) && admin.take_back(order.number).await? {
            taken_back.push(order.what);
        }
    }
    print(match taken_back.is_empty() {
        true => "nothing to take back; streamhand worker list shows what stands".to_owned(),
        false => format!("taken back: {}", taken_back.join(", ")),
    })
}

impl Whom {
    /// The name of the worker that is meant; none where all are.
    async fn name(&self, admin: &Admin) -> Result<Option<String>, CommandError> {
        let Some(part) = &self.worker else {
            return Ok(None);
        };
        let fleet = admin.fleet().await?;
        if let Some(worker) = fleet.workers.iter().find(|worker| worker.name == *part) {
            return Ok(Some(worker.name.clone()));
        }
        let is_meant = |worker: &&FleetWorker| {
            let short = format!("{}:{}", worker.host, worker.pid);
            worker.name.contains(part) || short.contains(part)
        };
        let found: Vec<&FleetWorker> = fleet.there().filter(is_meant).collect();
        match &found[..] {
            [one] => Ok(Some(one.name.clone())),
            [] => Err(CommandError::failed(format!(
                "no worker of {} is called {part:?}; streamhand worker list shows them",
                admin.group()
            ))),
            [one, other, ..] => Err(CommandError::failed(format!(
                "{part:?} may mean {}:{} or {}:{}: name one of them",
                one.host, one.pid, other.host, other.pid
            ))),
        }
    }
}
