//! `status`: how far a group is with each of its streams, what waits, and who works on it.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::retention::Kept;
use super::terminal::print;
use super::text::{rough, table};
use super::{CommandError, adding, projection};
use crate::config::Settings;
use crate::config::check;
use crate::names::shown;
use crate::stream::{
    BreakerNote, Connector, ConsumerInfo, Keys, PARKED, PROTOCOL, Pausable, StreamStatus,
};

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
    let mut unread = Vec::new();
    for stream in &settings.worker.streams {
        let status = pool.status(&Keys::new(stream, &group), &group).await?;
        kept.push(Kept::look(&pool, &settings, stream, &group, &status).await?);
        unread.push(match status.scheduled {
            0 => None,
            _ => adding::warning(&pool, stream).await?,
        });
        streams.push((stream.clone(), status));
    }
    let projections = projection::on_streams(&pool, &settings.worker.streams).await?;
    let eviction = pool.eviction().await?;
    if args.json {
        let mut streams: Vec<Value> = streams.iter().map(as_json).collect();
        streams
            .iter_mut()
            .zip(kept.iter().zip(&unread))
            .for_each(|(json, (kept, unread))| {
                kept.add_to(json);
                json["scheduled_unread"] = unread.is_some().into();
            });
        let mut all = json!({
            "group": group,
            "streams": streams,
            "maxmemory_policy": eviction.policy(),
            "evicts": eviction.policy().map(|policy| policy != "noeviction"),
        });
        if !projections.is_empty() {
            let projections = projections
                .iter()
                .map(|(stream, status)| projection::as_json(stream, status));
            all["projections"] = projections.collect();
        }
        return print(all);
    }
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
    if streams.iter().any(|(_, status)| status.scheduled > 0) {
        header.push("SCHEDULED");
        for (row, (_, status)) in rows.iter_mut().zip(&streams) {
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
    let of_projections = projections
        .iter()
        .flat_map(|(stream, status)| projection::notes(stream, status));
    let notes: Vec<String> = streams
        .iter()
        .zip(&kept)
        .flat_map(|((stream, status), kept)| [notes(stream, &group, status), kept.notes()].concat())
        .chain(unread.into_iter().flatten())
        .chain(of_projections)
        .chain(eviction.warning())
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
        group.map_or_else(unknown, |group| group.lag.to_string()),
        group.map_or_else(unknown, |group| group.pending.to_string()),
        waiting(status.parked, status.next_due),
        status.again.to_string(),
        status.dead.to_string(),
        oldest.map_or_else(unknown, |(_, age)| rough(age)),
    ]
}

/// How many wait for their time, and how long the next of them still has to.
fn waiting(count: u64, next: Option<Duration>) -> String {
    match next {
        None => count.to_string(),
        Some(Duration::ZERO) => format!("{count} (due)"),
        Some(next) => format!("{count} (next in {})", rough(next)),
    }
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
                shown(&consumer.name).to_string(),
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
    let ago = |since_ms| {
        rough(Duration::from_millis(
            status.now_ms.saturating_sub(since_ms),
        ))
    };
    let paused = status.paused.iter().map(|(what, note)| {
        let (ago, by) = (ago(note.since_ms), shown(&note.by));
        match what {
            Pausable::Stream => format!(
                "paused {ago} ago by {by}: `streamhand resume {stream}` goes on with it"
            ),
            Pausable::Handler(event_type) => {
                let event_type = shown(event_type);
                format!(
                    "{event_type} paused {ago} ago by {by}: `streamhand resume {stream} --handler {event_type}` goes \
                     on with it"
                )
            }
        }
    });
    let breakers = breakers(status).map(|(worker, breaker)| {
        let name = shown(&breaker.name);
        let opened = breaker.opened;
        let state = match breaker
            .until_ms
            .map(|until| until.saturating_sub(status.now_ms))
        {
            None => "lets probes through".to_owned(),
            Some(0) => "is open; its probes are let through now".to_owned(),
            Some(left) => format!("is open for another {}", rough(Duration::from_millis(left))),
        };
        format!(
            "circuit breaker {name} {state} (opened {opened} times) at {}",
            shown(worker)
        )
    });
    let notes = state
        .into_iter()
        .chain(in_the_way)
        .chain(paused)
        .chain(breakers);
    notes.map(|note| format!("{stream}: {note}")).collect()
}

/// The circuit breakers that are not closed, of workers that are there.
fn breakers(status: &StreamStatus) -> impl Iterator<Item = (&str, &BreakerNote)> {
    let consumers = || status.group.iter().flat_map(|group| &group.consumers);
    let is_there =
        move |worker: &str| consumers().any(|known| known.name == worker && is_there(known));
    status
        .breakers
        .iter()
        .filter(move |(worker, _)| is_there(worker))
        .flat_map(|(worker, notes)| notes.iter().map(move |note| (&worker[..], note)))
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
        let (lag, at_least) = group.lag.known();
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
        "scheduled": status.scheduled,
        "next_scheduled_ms": status.next_scheduled.map(|due| due.as_millis() as u64),
        "replayed": status.again,
        "dead": status.dead,
        "protocol": status.protocol,
        "paused": status.paused.iter().map(|(what, note)| json!({
            "handler": match what {
                Pausable::Stream => None,
                Pausable::Handler(event_type) => Some(event_type),
            },
            "since_ms": note.since_ms,
            "by": note.by,
        })).collect::<Vec<_>>(),
        "circuit_breakers": breakers(status).map(|(worker, breaker)| json!({
            "name": breaker.name,
            "state": breaker.state,
            "opened": breaker.opened,
            "until_ms": breaker.until_ms,
            "worker": worker,
        })).collect::<Vec<_>>(),
        "in_the_way": status.in_the_way.iter().map(|(key, _)| key).collect::<Vec<_>>(),
        "group": group,
    })
}
