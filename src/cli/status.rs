//! `status`: how far a group is with each of its streams, what waits, and who works on it.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::CommandError;
use super::retention::Kept;
use super::terminal::print;
use super::text::{printable, rough, table};
use crate::config::Settings;
use crate::config::check;
use crate::stream::{Connector, ConsumerInfo, Keys, Lag, PARKED, PROTOCOL, StreamStatus};

#[derive(Args)]
pub(super) struct StatusArgs {
    /// The group that is meant [default: worker.group]
    #[arg(long)]
    group: Option<String>,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: StatusArgs, settings: Settings) -> Result<(), CommandError> {
    let group = args.group.unwrap_or_else(|| settings.worker.group.clone());
    check::group_name(&group)
        .map_err(|why| CommandError::usage(format!("the group name {group:?} {why}")))?;
    let pool = Connector::new(&settings.redis)?.pool(1)?;
    let mut streams = Vec::new();
    let mut kept = Vec::new();
    for stream in &settings.worker.streams {
        let status = pool.status(&Keys::new(stream, &group), &group).await?;
        kept.push(Kept::look(&pool, &settings, stream, &group, &status).await?);
        streams.push((stream.clone(), status));
    }
    if args.json {
        let mut streams: Vec<Value> = streams.iter().map(as_json).collect();
        streams
            .iter_mut()
            .zip(&kept)
            .for_each(|(json, kept)| kept.add_to(json));
        return print(json!({ "group": group, "streams": streams }));
    }
    print(format_args!("group {group}\n"))?;
    let header = [
        "STREAM",
        "LENGTH",
        "LAG",
        "PENDING",
        "PARKED",
        "REPLAYED",
        "DEAD",
        "OLDEST PENDING",
    ];
    let rows: Vec<Vec<String>> = streams.iter().map(row).collect();
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
    let notes: Vec<String> = streams
        .iter()
        .zip(&kept)
        .flat_map(|((stream, status), kept)| [notes(stream, &group, status), kept.notes()].concat())
        .collect();
    if !notes.is_empty() {
        print(format_args!("\n{}", notes.join("\n")))?;
    }
    Ok(())
}

fn row((stream, status): &(String, StreamStatus)) -> Vec<String> {
    let unknown = || "-".to_owned();
    let group = status.group.as_ref();
    let oldest = group.and_then(|group| group.oldest_pending);
    vec![
        stream.clone(),
        if status.kind == "stream" {
            status.length.to_string()
        } else {
            unknown()
        },
        group.map_or_else(unknown, |group| match group.lag {
            Lag::Exactly(lag) => lag.to_string(),
            Lag::AtLeast(lag) => format!("{lag}+"),
        }),
        group.map_or_else(unknown, |group| group.pending.to_string()),
        match status.next_due {
            None => status.parked.to_string(),
            Some(Duration::ZERO) => format!("{} (due)", status.parked),
            Some(due) => format!("{} (next in {})", status.parked, rough(due)),
        },
        status.again.to_string(),
        status.dead.to_string(),
        oldest.map_or_else(unknown, |(_, age)| rough(age)),
    ]
}

fn consumer_rows((stream, status): &(String, StreamStatus)) -> Vec<Vec<String>> {
    let consumers = status.group.iter().flat_map(|group| &group.consumers);
    consumers
        // Where a worker runs one entry alone says nothing while there is none.
        .filter(|consumer| {
            consumer.name != PARKED && (consumer.pending > 0 || !consumer.is_alone())
        })
        .map(|consumer| {
            let lease = consumer.lease_ms().map(Duration::from_millis);
            vec![
                printable(&consumer.name).to_string(),
                stream.clone(),
                consumer.pending.to_string(),
                format!("{} ago", rough(Duration::from_millis(consumer.idle_ms))),
                lease.map_or_else(|| "-".to_owned(), rough),
                standing(consumer).describe(consumer.pending).to_owned(),
            ]
        })
        .collect()
}

/// What there is to know of a consumer besides its numbers.
#[derive(Clone, Copy)]
enum Standing {
    Working,
    /// It holds one entry that may have killed its workers.
    Alone,
    /// Not heard of for its lease.
    Lapsed,
    /// No worker of ours: what it holds is its own.
    Foreign,
}

fn standing(consumer: &ConsumerInfo) -> Standing {
    match consumer.lease_ms() {
        None => Standing::Foreign,
        Some(lease) if consumer.idle_ms > lease => Standing::Lapsed,
        Some(_) if consumer.is_alone() => Standing::Alone,
        Some(_) => Standing::Working,
    }
}

impl Standing {
    fn describe(self, pending: u64) -> &'static str {
        match self {
            Standing::Lapsed if pending == 0 => "gone",
            Standing::Foreign if pending == 0 => "not a streamhand worker",
            Standing::Working => "",
            Standing::Alone => "one entry at a time that may kill its worker",
            Standing::Lapsed => "gone: others take over what it holds",
            Standing::Foreign => "not a streamhand worker: what it holds is left to it",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Standing::Working => "working",
            Standing::Alone => "alone",
            Standing::Lapsed => "lapsed",
            Standing::Foreign => "foreign",
        }
    }
}

/// What an operator has to know of a stream first.
fn notes(stream: &str, group: &str, status: &StreamStatus) -> Vec<String> {
    let state = match (&status.kind[..], &status.group, status.protocol) {
        ("none", ..) => Some(
            "there is no such stream yet; the first event or the first worker makes it".to_owned(),
        ),
        ("stream", _, Some(protocol)) if protocol > PROTOCOL => Some(format!(
            "a newer release works on it (protocol {protocol}; this one speaks {PROTOCOL})"
        )),
        ("stream", None, _) => Some(format!(
            "there is no group {group} yet; its first worker makes it"
        )),
        ("stream", Some(group), _) if !group.consumers.iter().any(is_there) => {
            Some("nobody works on it: streamhand run starts a worker".to_owned())
        }
        ("stream", ..) => None,
        (kind, ..) => Some(format!(
            "this key is a {kind}, not a stream: rename or delete it"
        )),
    };
    let in_the_way = status.in_the_way.iter().map(|(key, kind)| {
        format!("{key} is a {kind} that is in the way of the group: rename or delete it")
    });
    let notes = state.into_iter().chain(in_the_way);
    notes.map(|note| format!("{stream}: {note}")).collect()
}

/// Whether it is a worker of ours that has been heard of.
fn is_there(consumer: &ConsumerInfo) -> bool {
    match standing(consumer) {
        Standing::Working => consumer.name != PARKED,
        Standing::Alone => consumer.pending > 0,
        _ => false,
    }
}

fn as_json((stream, status): &(String, StreamStatus)) -> Value {
    let group = status.group.as_ref().map(|group| {
        let consumers: Vec<Value> = group
            .consumers
            .iter()
            .filter(|consumer| consumer.name != PARKED)
            .map(|consumer| {
                json!({
                    "name": consumer.name,
                    "pending": consumer.pending,
                    "last_seen_ms": consumer.idle_ms,
                    "lease_ms": consumer.lease_ms(),
                    "standing": standing(consumer).name(),
                })
            })
            .collect();
        let (lag, at_least) = match group.lag {
            Lag::Exactly(lag) => (Some(lag), lag),
            Lag::AtLeast(lag) => (None, lag),
        };
        json!({
            "last_delivered": group.last_delivered.to_string(),
            "lag": lag,
            "lag_at_least": at_least,
            "pending": group.pending,
            "oldest_pending": group.oldest_pending.map(|(id, _)| id.to_string()),
            "oldest_pending_ms": group.oldest_pending.map(|(_, age)| age.as_millis() as u64),
            "consumers": consumers,
        })
    });
    json!({
        "stream": stream,
        "key": status.kind,
        "length": status.length,
        "parked": status.parked,
        "next_due_ms": status.next_due.map(|due| due.as_millis() as u64),
        "replayed": status.again,
        "dead": status.dead,
        "protocol": status.protocol,
        "in_the_way": status.in_the_way.iter().map(|(key, _)| key).collect::<Vec<_>>(),
        "group": group,
    })
}
