//! `cron`: what happens again and again, what comes next, and what an operator does about it.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};

use super::CommandError;
use super::dlq::confirm;
use super::moment::Moment;
use super::terminal::{print, print_json, say};
use super::text::{count, table, time, whoami};
use crate::admin::{Admin, ClockChange, CronOccurrence, CronPauseRequest, CronStatus};
use crate::config::Settings;
use crate::duration;
use crate::handler::Registry;
use crate::names::shown;

/// More than this is asked for.
const MANY: usize = 100;

#[derive(Subcommand)]
pub(super) enum CronCommand {
    /// List crons: what they are, what came last, what comes next
    List(ListArgs),
    /// Show the next times of a cron, local and in UTC, and what a clock that is set does to them
    Next(NextArgs),
    /// Leave occurrences out until it is resumed
    Pause(PauseArgs),
    /// Go on with a cron that was paused
    Resume(NameArgs),
    /// Publish an event of a cron now, beside its schedule
    Trigger(NameArgs),
    /// Publish the events of a time that has passed
    Backfill(BackfillArgs),
    /// Show what was done about a cron, the newest first
    History(HistoryArgs),
}

#[derive(Args)]
pub(super) struct ListArgs {
    /// Print them as one JSON value
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct NextArgs {
    /// What it is called
    name: String,
    /// How many
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    /// Print them as one JSON value
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct NameArgs {
    /// What it is called
    name: String,
}

#[derive(Args)]
pub(super) struct PauseArgs {
    /// What it is called
    name: String,
    /// It ends by itself at this time (2026-01-31T12:00:00Z, or 2026-01-31)
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "lasts")]
    until: Option<SystemTime>,
    /// It ends by itself after so long (1h)
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse)]
    lasts: Option<Duration>,
    /// Why, for list to tell
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Who does this, for list to tell [default: user@host]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

#[derive(Args)]
pub(super) struct BackfillArgs {
    /// What it is called
    name: String,
    /// From this time on (2026-01-31T12:00:00Z, 2026-01-31, or so long ago: 2h)
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    from: Moment,
    /// Up to this time [default: now]
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    to: Option<Moment>,
    /// List them, and publish nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before more than 100
    #[arg(long)]
    yes: bool,
}

#[derive(Args)]
pub(super) struct HistoryArgs {
    /// What it is called
    name: String,
    /// Only so many lines
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    limit: u16,
    /// Print them as one JSON value
    #[arg(long)]
    json: bool,
}

/// `registry` has the crons that the program declares in code.
pub(super) async fn run(
    command: CronCommand,
    settings: Settings,
    registry: Option<&Registry>,
) -> Result<(), CommandError> {
    let mut admin = Admin::new(&settings)?;
    if let Some(registry) = registry {
        admin = admin.with_crons_of(registry)?;
    }
    match command {
        CronCommand::List(args) => list(&args, &admin).await,
        CronCommand::Next(args) => next(&args, &settings, &admin).await,
        CronCommand::Pause(args) => pause(args, &admin).await,
        CronCommand::Resume(args) => resume(&args.name, &admin).await,
        CronCommand::Trigger(args) => {
            let id = admin.trigger_cron(&args.name).await?;
            print(format_args!("published {id}"))
        }
        CronCommand::Backfill(args) => backfill(&args, &admin).await,
        CronCommand::History(args) => history(&args, &admin).await,
    }
}

async fn list(args: &ListArgs, admin: &Admin) -> Result<(), CommandError> {
    let crons = admin.crons().await?;
    if args.json {
        return print_json(&crons);
    }
    if crons.is_empty() {
        say("no cron is known: a worker makes known those that it declares");
        return Ok(());
    }
    let row = |cron: &CronStatus| {
        let last = cron.last.as_ref().map_or("-".to_owned(), |last| {
            let unsettled = if last.is_unsettled {
                " (not settled)"
            } else {
                ""
            };
            format!("{}{unsettled}", last.occurrence)
        });
        vec![
            shown(&cron.name).to_string(),
            cron.schedule.join(", "),
            cron.next
                .as_ref()
                .map_or("-".to_owned(), |next| next.occurrence.clone()),
            last,
            state(cron),
        ]
    };
    let rows: Vec<Vec<String>> = crons.iter().map(row).collect();
    let header = ["CRON", "SCHEDULE", "NEXT", "LAST", "STATE"];
    print(table(&header, &["SCHEDULE", "STATE"], &rows))
}

/// How it is with a cron, in a few words.
pub(super) fn state(cron: &CronStatus) -> String {
    if let Some(paused) = &cron.paused {
        let until = paused.until.map(|until| format!(" until {}", time(until)));
        let note = paused
            .note
            .as_ref()
            .map(|note| format!(": {}", shown(note)));
        return format!(
            "paused{} by {}{}",
            until.unwrap_or_default(),
            shown(&paused.by),
            note.unwrap_or_default()
        );
    }
    match cron.is_suspended {
        true => format!(
            "suspended: no worker has declared it since {}",
            time(cron.declared)
        ),
        false => "runs".to_owned(),
    }
}

async fn next(args: &NextArgs, settings: &Settings, admin: &Admin) -> Result<(), CommandError> {
    let count = args.count.into();
    // What is declared here is told as it is here, and without Redis.
    let next = match settings.cron.get(&args.name) {
        Some(cron) => cron.next_times(&args.name, SystemTime::now(), count)?,
        None => admin.cron(&args.name).await?.next_times(count)?,
    };
    if args.json {
        return print_json(&next);
    }
    let mut before = None;
    let rows = next.iter().map(|next| {
        let row = vec![next.occurrence.clone(), time(next.due), marks(next, before)];
        before = Some(next.offset);
        row
    });
    let rows: Vec<Vec<String>> = rows.collect();
    print(table(&["LOCAL", "DUE", "CLOCK"], &["CLOCK"], &rows))
}

/// What a clock that is set does to an occurrence.
fn marks(next: &CronOccurrence, offset_before: Option<i64>) -> String {
    let mut marks = Vec::new();
    if let Some(by) = offset_before
        .map(|before| next.offset - before)
        .filter(|by| *by != 0)
    {
        let (direction, by) = (if by > 0 { "forward" } else { "back" }, by.unsigned_abs());
        let by = duration::format(Duration::from_secs(by));
        marks.push(format!("the clock was set {direction} by {by}"));
    }
    match next.clock {
        Some(ClockChange::LeftOut) => {
            marks.push("this time is left out: it comes behind it".into())
        }
        Some(ClockChange::First) => marks.push("the first of two such times".into()),
        Some(ClockChange::Second) => marks.push("the second of two such times".into()),
        _ => {}
    }
    if !next.also.is_empty() {
        marks.push(format!("one event with {}", next.also.join(", ")));
    }
    marks.join("; ")
}

async fn pause(args: PauseArgs, admin: &Admin) -> Result<(), CommandError> {
    let mut request = CronPauseRequest::of(&args.name, args.by.unwrap_or_else(whoami));
    let mut lasts = args.lasts;
    if let Some(until) = args.until {
        let now = admin.now().await?;
        let left = until.duration_since(now);
        let left = left.map_err(|_| CommandError::usage("--until lies behind"))?;
        lasts = Some(left);
    }
    if let Some(lasts) = lasts {
        request = request.lasts(lasts);
    }
    if let Some(note) = args.note {
        request = request.note(note);
    }
    let is_new = admin.pause_cron(request).await?;
    let cron = admin.cron(&args.name).await?;
    let what = if is_new {
        "is"
    } else {
        "was paused before, and now is"
    };
    print(format_args!("{} {what} {}", args.name, state(&cron)))
}

async fn resume(name: &str, admin: &Admin) -> Result<(), CommandError> {
    match admin.resume_cron(name, &whoami()).await? {
        true => print(format_args!("resumed: {name}")),
        false => print(format_args!("not paused: {name}")),
    }
}

async fn backfill(args: &BackfillArgs, admin: &Admin) -> Result<(), CommandError> {
    let now = admin.now().await?;
    let (from, to) = (args.from.from(now), args.to.map_or(now, |to| to.from(now)));
    let name = &args.name;
    let missed = admin.missed_by_cron(name, from, to).await?;
    if args.dry_run {
        for occurrence in &missed {
            print(&occurrence.occurrence)?;
        }
        say(format_args!(
            "{} would be published",
            count(missed.len() as u64, "event")
        ));
        return Ok(());
    }
    if missed.len() > MANY && !args.yes {
        let question = format!("publish {} events of {name}?", missed.len());
        if !confirm(&question, "add --yes, or --dry-run to see which")? {
            return Err(CommandError::failed("nothing was published"));
        }
    }
    let published = admin.backfill_cron(name, from, to).await?;
    print(format_args!(
        "published {}",
        count(published as u64, "event")
    ))
}

async fn history(args: &HistoryArgs, admin: &Admin) -> Result<(), CommandError> {
    let mut runs = admin.cron_history(&args.name).await?;
    runs.truncate(args.limit.into());
    if args.json {
        return print_json(&runs);
    }
    let rows = runs.into_iter().map(|run| {
        vec![
            time(run.at),
            run.what,
            run.occurrences.join(", "),
            run.entry.unwrap_or_else(|| "-".to_owned()),
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    if rows.is_empty() {
        say("nothing yet");
        return Ok(());
    }
    print(table(
        &["AT", "WHAT", "OCCURRENCE", "ENTRY"],
        &["OCCURRENCE"],
        &rows,
    ))
}

fn moment(text: &str) -> Result<SystemTime, String> {
    match Moment::parse(text)? {
        Moment::At(time) => Ok(time),
        Moment::Ago(_) => Err("write a time (2026-01-31T12:00:00Z) or a day, or --for".to_owned()),
    }
}
