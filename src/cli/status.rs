//! `status`: how far a group is with each of its streams, what waits, and who works on it.

use std::time::Duration;

use clap::Args;

use super::terminal::{print, print_json};
use super::text::{rough, table, time};
use super::{CommandError, adding, called, projection, retention};
use crate::admin::{
    Admin, BreakerStatus, ConsumerStatus, GroupStatus, PROTOCOL, Pause, Standing, Status,
    StreamStatus,
};
use crate::config::Settings;
use crate::names::shown;

#[derive(Args)]
pub(super) struct StatusArgs {
    /// The group that is meant [default: worker.group]
    #[arg(long)]
    pub(super) group: Option<String>,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: StatusArgs, settings: Settings) -> Result<(), CommandError> {
    let mut admin = Admin::new(&settings)?;
    if let Some(group) = args.group {
        admin = admin.for_group(group)?;
    }
    let status = admin.status().await?;
    if args.json {
        return print_json(&status);
    }
    let Status {
        group,
        streams,
        in_trouble,
        projections,
        eviction_warning,
        ..
    } = status;
    print(format_args!("group {group}\n"))?;
    let mut header = vec![
        "STREAM",
        "LENGTH",
        "LAG",
        "PENDING",
        "PARKED",
        "REPLAYED",
        "DEAD",
        "OLDEST PENDING",
    ];
    let mut rows: Vec<Vec<String>> = streams.iter().map(row).collect();
    // Where nothing is, there is no need for the room.
    if streams.iter().any(|status| status.scheduled > 0) {
        header.push("SCHEDULED");
        for (row, status) in rows.iter_mut().zip(&streams) {
            row.push(waiting(status.scheduled, status.next_scheduled));
        }
    }
    print(table(&header, &["STREAM"], &rows))?;
    let rows: Vec<Vec<String>> = streams.iter().flat_map(consumer_rows).collect();
    if !rows.is_empty() {
        let header = [
            "CONSUMER",
            "STREAM",
            "PENDING",
            "LAST SEEN",
            "LEASE",
            "NOTE",
        ];
        print(format_args!(
            "\n{}",
            table(&header, &["STREAM", "NOTE"], &rows)
        ))?;
    }
    if !projections.is_empty() {
        print(format_args!("\n{}", projection::rows(&projections)))?;
    }
    let unread = streams.iter().filter_map(|status| {
        let unread = status.scheduled_unread?;
        Some(adding::line(&status.stream, unread))
    });
    let notes: Vec<String> =
        streams
            .iter()
            .flat_map(|status| {
                let kept = retention::notes(status, &settings.dead_letters);
                [notes(&group, status), kept].concat()
            })
            .chain(in_trouble.into_iter().map(|trouble| {
                format!("{}: can't be looked at: {}", trouble.stream, trouble.error)
            }))
            .chain(unread)
            .chain(projections.iter().flat_map(projection::notes))
            .chain(eviction_warning)
            .collect();
    if !notes.is_empty() {
        print(format_args!("\n{}", notes.join("\n")))?;
    }
    Ok(())
}

fn row(status: &StreamStatus) -> Vec<String> {
    let unknown = || "-".to_owned();
    let group = status.group.as_ref();
    let oldest = group.and_then(|group| group.oldest_pending_age);
    vec![
        status.stream.clone(),
        if status.kind == "stream" {
            status.length.to_string()
        } else {
            unknown()
        },
        group.map_or_else(unknown, lag),
        group.map_or_else(unknown, |group| group.pending.to_string()),
        waiting(status.parked, status.next_due),
        status.replayed.to_string(),
        status.dead.to_string(),
        oldest.map_or_else(unknown, rough),
    ]
}

fn lag(group: &GroupStatus) -> String {
    match group.lag {
        Some(lag) => lag.to_string(),
        None => format!("{}+", group.lag_at_least),
    }
}

/// How many wait for their time, and how long the next of them still has to.
fn waiting(count: u64, next: Option<Duration>) -> String {
    match next {
        None => count.to_string(),
        Some(Duration::ZERO) => format!("{count} (due)"),
        Some(next) => format!("{count} (next in {})", rough(next)),
    }
}

fn consumer_rows(status: &StreamStatus) -> Vec<Vec<String>> {
    let consumers = status.group.iter().flat_map(|group| &group.consumers);
    consumers
        // Where a worker runs one entry alone says nothing while there is none.
        .filter(|consumer| consumer.pending > 0 || !consumer.is_alone)
        .map(|consumer| {
            vec![
                shown(&consumer.name).to_string(),
                status.stream.clone(),
                consumer.pending.to_string(),
                format!("{} ago", rough(consumer.last_seen)),
                consumer.lease.map_or_else(|| "-".to_owned(), rough),
                describe(consumer).to_owned(),
            ]
        })
        .collect()
}

fn describe(consumer: &ConsumerStatus) -> &'static str {
    match consumer.standing {
        Standing::Lapsed if consumer.pending == 0 => "gone",
        Standing::Foreign if consumer.pending == 0 => "not a streamhand worker",
        Standing::Working => "",
        Standing::Alone => "one entry at a time that may kill its worker",
        Standing::Lapsed => "gone: others take over what it holds",
        Standing::Foreign => "not a streamhand worker: what it holds is left to it",
    }
}

/// What an operator has to know of a stream first.
fn notes(group: &str, status: &StreamStatus) -> Vec<String> {
    let state = match (&status.kind[..], &status.group, status.protocol) {
        ("none", ..) => Some(
            "there is no such stream yet; the first event or the first worker makes it".to_owned(),
        ),
        ("stream", _, Some(protocol)) if status.is_of_newer_release() => Some(format!(
            "a newer release works on it (protocol {protocol}; this one speaks {PROTOCOL})"
        )),
        ("stream", None, _) => Some(format!(
            "there is no group {group} yet; its first worker makes it"
        )),
        ("stream", Some(_), _) if !status.is_worked_on() => Some(format!(
            "nobody works on it: {} starts a worker",
            called::command("run")
        )),
        ("stream", ..) => None,
        (kind, ..) => Some(format!(
            "this key is a {kind}, not a stream: rename or delete it"
        )),
    };
    let in_the_way = status.in_the_way.iter().map(|one| {
        let (key, kind) = (&one.key, &one.kind);
        format!("{key} is a {kind} that is in the way of the group: rename or delete it")
    });
    let paused = status.paused.iter().map(|pause| paused(pause, status));
    let breakers = status.circuit_breakers.iter();
    let breakers = breakers.map(|breaker| breaker_note(breaker, status));
    let notes = state
        .into_iter()
        .chain(in_the_way)
        .chain(paused)
        .chain(breakers);
    notes
        .map(|note| format!("{}: {note}", status.stream))
        .collect()
}

fn paused(pause: &Pause, status: &StreamStatus) -> String {
    let ago = rough(status.now.duration_since(pause.since).unwrap_or_default());
    let (by, stream) = (shown(&pause.by), &status.stream);
    let what = pause.handler.as_deref().map(shown);
    let handler = what.as_ref().map(|what| format!(" --handler {what}"));
    let (what, handler) = (
        what.map(|what| format!("{what} ")).unwrap_or_default(),
        handler.unwrap_or_default(),
    );
    let why = pause.reason.as_deref().map(shown);
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    let until = pause
        .until
        .map(|until| format!("; it ends by itself at {}", time(until)))
        .unwrap_or_default();
    let resume = called::command(format_args!("resume {stream}{handler}"));
    format!("{what}paused {ago} ago by {by}{why}: `{resume}` goes on with it{until}")
}

fn breaker_note(breaker: &BreakerStatus, status: &StreamStatus) -> String {
    let left = breaker
        .until
        .map(|until| until.duration_since(status.now).unwrap_or_default());
    let state = match left {
        None => "lets probes through".to_owned(),
        Some(Duration::ZERO) => "is open; its probes are let through now".to_owned(),
        Some(left) => format!("is open for another {}", rough(left)),
    };
    format!(
        "circuit breaker {} {state} (opened {} times) at {}",
        shown(&breaker.name),
        breaker.opened,
        shown(&breaker.worker)
    )
}
