//! `scheduled`: events that are to be published later, listed and cancelled.

use std::io::Write;

use clap::{Args, Subcommand};

use super::away::say_away;
use super::terminal::{closed, print, say};
use super::text::{count, table, time};
use super::{CommandError, adding};
use crate::admin::{Admin, Cancelled, ScheduledId};
use crate::config::Settings;
use crate::names::shown;
use crate::publisher::ScheduledEvent;

/// Events in the table where no limit is given.
const LIMIT: u64 = 100;

#[derive(Subcommand)]
pub(super) enum ScheduledCommand {
    /// List events that wait for their time, the first due first
    List(ListArgs),
    /// Cancel events, by their ids as the list shows them
    Cancel(CancelArgs),
}

#[derive(Args)]
pub(super) struct ListArgs {
    /// The stream they are for [default: each of worker.streams]
    stream: Option<String>,
    /// Only so many of each stream
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// List all that there are as one JSON value
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct CancelArgs {
    /// The stream they are for
    stream: String,
    /// The events' ids
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Their type, where several events have an id
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Their source, where they have one
    #[arg(long, requires = "event_type")]
    source: Option<String>,
}

pub(super) async fn run(command: ScheduledCommand, settings: Settings) -> Result<(), CommandError> {
    let admin = Admin::new(&settings)?;
    match command {
        ScheduledCommand::List(args) => {
            let streams = match &args.stream {
                Some(stream) => vec![stream.clone()],
                None => settings.worker.streams,
            };
            match args.json {
                true => list_as_json(&args, &admin, &streams).await,
                false => list(&args, &admin, &streams).await,
            }
        }
        ScheduledCommand::Cancel(args) => cancel(args, &admin).await,
    }
}

async fn list(args: &ListArgs, admin: &Admin, streams: &[String]) -> Result<(), CommandError> {
    let limit = args.limit.unwrap_or(LIMIT);
    let (mut rows, mut cut, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
    for stream in streams {
        let mut events = admin.scheduled(stream)?;
        let mut shown = 0;
        while let Some(event) = or_told(stream, admin, events.next().await)? {
            if shown == limit {
                cut.push(stream.as_str());
                break;
            }
            shown += 1;
            rows.push(row(&event));
        }
        if shown > 0 {
            waiting.push(stream.as_str());
        }
    }
    if rows.is_empty() {
        say(format_args!(
            "nothing is scheduled for {}",
            streams.join(", ")
        ));
        return Ok(());
    }
    let mut header = vec!["DUE", "STREAM", "ID", "TYPE", "SUBJECT"];
    if streams.len() == 1 {
        header.remove(1);
        rows.iter_mut().for_each(|row| drop(row.remove(1)));
    }
    print(table(&header, &["STREAM", "TYPE", "SUBJECT"], &rows))?;
    if !cut.is_empty() && args.limit.is_none() {
        let cut = cut.join(", ");
        say(format_args!(
            "these are the {limit} of {cut} that are due first: see more by --limit"
        ));
    }
    say_unread(admin, &waiting).await
}

/// Where the node of one stream is away the others are shown all the same.
fn or_told<T>(
    stream: &str,
    admin: &Admin,
    looked: crate::Result<Option<T>>,
) -> crate::Result<Option<T>> {
    looked.or_else(|error| match admin.is_of_one_node(&error) {
        true => {
            say_away(stream, error);
            Ok(None)
        }
        false => Err(error),
    })
}

fn row(scheduled: &ScheduledEvent) -> Vec<String> {
    let event = scheduled.event.as_ref();
    let or_none = |text: Option<&str>| text.map_or("-".to_owned(), |text| shown(text).to_string());
    vec![
        time(scheduled.at),
        scheduled.stream.clone(),
        shown(&scheduled.id).to_string(),
        or_none(event.map(|event| event.event_type())),
        or_none(event.and_then(|event| event.subject())),
    ]
}

/// The array is written as it is read.
async fn list_as_json(
    args: &ListArgs,
    admin: &Admin,
    streams: &[String],
) -> Result<(), CommandError> {
    let mut separator = "[";
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let mut waiting = Vec::new();
    for stream in streams {
        let mut events = admin.scheduled(stream)?;
        let mut left = args.limit.unwrap_or(u64::MAX);
        while left > 0
            && let Some(event) = or_told(stream, admin, events.next().await)?
        {
            left -= 1;
            if waiting.last() != Some(&stream.as_str()) {
                waiting.push(stream);
            }
            let json = serde_json::to_value(&event);
            let json = json.map_err(|error| CommandError::failed(error.to_string()))?;
            write!(out, "{separator}\n{json}").map_err(closed)?;
            separator = ",";
        }
    }
    let end = if separator == "[" { "[]" } else { "\n]" };
    writeln!(out, "{end}")
        .and_then(|()| out.flush())
        .map_err(closed)?;
    say_unread(admin, &waiting).await
}

/// Says of streams with scheduled events which are read by no worker.
async fn say_unread(admin: &Admin, streams: &[&str]) -> Result<(), CommandError> {
    for stream in streams {
        if let Some(unread) = admin.unread_schedule(stream).await? {
            say(format_args!("warning: {}", adding::line(stream, unread)));
        }
    }
    Ok(())
}

async fn cancel(args: CancelArgs, admin: &Admin) -> Result<(), CommandError> {
    let CancelArgs {
        stream,
        mut ids,
        event_type,
        source,
    } = args;
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    let source = source.unwrap_or_default();
    let asked = ids.iter().map(|id| match &event_type {
        None => ScheduledId::new(id),
        Some(event_type) => ScheduledId::new(id).of(event_type, &source),
    });
    let asked: Vec<ScheduledId> = asked.collect();
    let cancelled = admin.cancel_scheduled(&stream, &asked).await?;
    let (mut number, mut missing, mut several) = (0, Vec::new(), Vec::new());
    for (id, cancelled) in ids.iter().zip(cancelled) {
        match cancelled {
            Cancelled::Yes => number += 1,
            Cancelled::No => missing.push(&id[..]),
            Cancelled::Which(many) => several.push(format!(
                "{many} events of {stream} that wait for their time have the id {id}: say which by --type and --source"
            )),
        }
    }
    if number > 0 {
        print(format_args!("cancelled {}", count(number, "event")))?;
    }
    if !missing.is_empty() {
        several.push(format!(
            "no event of {stream} that waits for its time has the id {}: it was published or cancelled, or never was \
             scheduled",
            missing.join(" or ")
        ));
    }
    match several.is_empty() {
        true => Ok(()),
        false => Err(CommandError::failed(several.join("; "))),
    }
}
