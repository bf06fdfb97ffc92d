//! `status`: how far a group is with each of its streams, what waits, and who works on it.

use std::time::Duration;

use clap::Args;

use super::terminal::{print, print_json};
use super::text::{rough, table, time};
use super::{CommandError, adding, projection, retention};
use crate::admin::{
    Admin, BreakerStatus, ConsumerStatus, GroupStatus, OutboxStatus, PROTOCOL, Pause, Standing,
    StandingLimit, Status, StreamStatus, TopicStatus,
};
use crate::called;
use crate::config::Settings;
use crate::names::shown;
use crate::partition::Partition;

/// From so many times the mean on it is said that a partition is longer than the others.
const SKEWED: f64 = 3.0;

#[derive(Args)]
pub(super) struct StatusArgs {
    /// The group that is meant [default: worker.group]
    #[arg(long)]
    pub(super) group: Option<String>,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
    /// List each partition of a topic in place of their totals
    #[arg(long)]
    partitions: bool,
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
        topics,
        limits,
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
    let is_alone = |status: &&StreamStatus| args.partitions || topic_of(&status.stream).is_none();
    let alone: Vec<&StreamStatus> = streams.iter().filter(is_alone).collect();
    let totals = topics.iter().filter(|_| !args.partitions);
    let totals: Vec<(&TopicStatus, Vec<&StreamStatus>)> = totals
        .map(|topic| {
            let is_of = |status: &&StreamStatus| topic_of(&status.stream) == Some(&topic.topic[..]);
            (topic, streams.iter().filter(is_of).collect())
        })
        .collect();
    let mut rows: Vec<Vec<String>> = totals
        .iter()
        .map(|(topic, of)| topic_row(topic, of))
        .collect();
    rows.extend(alone.iter().map(|status| row(status)));
    // Where nothing is, there is no need for the room.
    if streams.iter().any(|status| status.scheduled > 0) {
        header.push("SCHEDULED");
        let scheduled = totals.iter().map(|(topic, of)| {
            let next = of.iter().filter_map(|status| status.next_scheduled);
            waiting(topic.scheduled, next.min())
        });
        let single = alone.iter();
        let single = single.map(|status| waiting(status.scheduled, status.next_scheduled));
        for (row, scheduled) in rows.iter_mut().zip(scheduled.chain(single)) {
            row.push(scheduled);
        }
    }
    print(table(&header, &["STREAM"], &rows))?;
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (topic, of) in &totals {
        rows.extend(together(&topic.topic, of).iter().flat_map(consumer_rows));
    }
    rows.extend(alone.iter().copied().flat_map(consumer_rows));
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
    // Who may not look at them is not to be without the rest.
    let crons = admin.crons().await.unwrap_or_default();
    let crons = crons
        .iter()
        .filter(|cron| cron.is_suspended || cron.paused.is_some());
    let crons =
        crons.map(|cron| format!("cron {}: {}", shown(&cron.name), super::cron::state(cron)));
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
            .chain(crons)
            .chain(limits.iter().map(limit_note))
            .chain(alone.iter().flat_map(|status| order_notes(status)))
            .chain(projections.iter().flat_map(projection::notes))
            .chain(eviction_warning)
            .collect();
    let notes = match args.partitions {
        true => notes,
        false => by_topic(notes),
    };
    let notes: Vec<String> = totals
        .iter()
        .flat_map(|(topic, of)| [skew_note(topic), topic_order_note(topic, of)])
        .flatten()
        .chain(notes)
        .collect();
    if !notes.is_empty() {
        print(format_args!("\n{}", notes.join("\n")))?;
    }
    Ok(())
}

/// The topic that a stream is a partition of.
fn topic_of(stream: &str) -> Option<&str> {
    Partition::parse(stream).map(|partition| partition.topic)
}

/// What the partitions of a topic come to together.
fn topic_row(topic: &TopicStatus, of: &[&StreamStatus]) -> Vec<String> {
    let groups = || of.iter().filter_map(|status| status.group.as_ref());
    let is_there = groups().next().is_some();
    let known = |text: String| if is_there { text } else { "-".to_owned() };
    let oldest = groups().filter_map(|group| group.oldest_pending_age).max();
    vec![
        format!("{} ({} partitions)", topic.topic, topic.partitions),
        topic.length.to_string(),
        known(match topic.lag {
            Some(lag) => lag.to_string(),
            None => format!("{}+", topic.lag_at_least),
        }),
        known(topic.pending.to_string()),
        waiting(
            topic.parked,
            of.iter().filter_map(|status| status.next_due).min(),
        ),
        topic.replayed.to_string(),
        topic.dead.to_string(),
        oldest.map_or_else(|| "-".to_owned(), rough),
    ]
}

/// The consumers of all partitions of a topic, as if they were those of one stream.
fn together(topic: &str, of: &[&StreamStatus]) -> Option<StreamStatus> {
    let mut all = (*of.iter().find(|status| status.group.is_some())?).clone();
    all.stream = topic.to_owned();
    let mut consumers: Vec<ConsumerStatus> = Vec::new();
    let each = of.iter().flat_map(|status| &status.group);
    for consumer in each.flat_map(|group| &group.consumers) {
        match consumers
            .iter_mut()
            .find(|known| known.name == consumer.name)
        {
            Some(known) => {
                known.pending += consumer.pending;
                if consumer.last_seen < known.last_seen {
                    known.last_seen = consumer.last_seen;
                    known.standing = consumer.standing;
                }
            }
            None => consumers.push(consumer.clone()),
        }
    }
    all.group.as_mut()?.consumers = consumers;
    Some(all)
}

/// The same notes, of which those that are alike for partitions of a topic are one.
fn by_topic(notes: Vec<String>) -> Vec<String> {
    let mut all: Vec<(String, usize)> = Vec::new();
    for note in notes {
        let of = note.split_once("}: ").and_then(|(stream, what)| {
            let stream = format!("{stream}}}");
            Some(format!("{}: {what}", topic_of(&stream)?))
        });
        match of {
            Some(note) => match all.iter_mut().find(|(known, _)| *known == note) {
                Some((_, count)) => *count += 1,
                None => all.push((note, 1)),
            },
            None => all.push((note, 0)),
        }
    }
    let told = all.into_iter().map(|(note, count)| match count {
        0 => note,
        1 => format!("{note} (one partition)"),
        many => format!("{note} ({many} partitions)"),
    });
    told.collect()
}

/// Whose a stream is whose events have an order, and what of it is held.
fn order_notes(status: &StreamStatus) -> Vec<String> {
    let Some(order) = &status.order else {
        return Vec::new();
    };
    let stream = &status.stream;
    let since = order.since.map(|since| {
        let ago = status.now.duration_since(since).unwrap_or_default();
        rough(ago)
    });
    let owner = match (&order.owner, since) {
        (Some(owner), Some(since)) if order.lapsed => format!(
            "its events have an order; {} has had it for {since}, and its lease has run out",
            shown(owner)
        ),
        (Some(owner), Some(since)) => format!(
            "its events have an order; {} has had it for {since}, of {} that are there for it",
            shown(owner),
            order.workers
        ),
        _ => format!(
            "its events have an order, and nobody has it, of {} that are there for it",
            order.workers
        ),
    };
    let owner = format!("{stream}: {owner}");
    [Some(owner), held_note(stream, order.held, &order.subjects)]
        .into_iter()
        .flatten()
        .collect()
}

/// The same of all partitions of a topic.
fn topic_order_note(topic: &TopicStatus, of: &[&StreamStatus]) -> Option<String> {
    let orders = || of.iter().filter_map(|status| status.order.as_ref());
    let all = orders().count();
    if all == 0 {
        return None;
    }
    let owned = orders()
        .filter(|order| order.owner.is_some() && !order.lapsed)
        .count();
    let subjects = orders().flat_map(|order| order.subjects.iter().cloned());
    let subjects: Vec<String> = subjects.take(5).collect();
    let held = orders().map(|order| order.held).sum();
    let name = &topic.topic;
    let owned =
        format!("{name}: its events have an order; {owned} of {all} partitions have an owner");
    Some(match held_note(name, held, &subjects) {
        Some(held) => format!("{owned}\n{held}"),
        None => owned,
    })
}

fn held_note(name: &str, held: u64, subjects: &[String]) -> Option<String> {
    let some: Vec<String> = subjects
        .iter()
        .map(|subject| format!("\"{}\"", shown(subject)))
        .collect();
    let letters = match held {
        0 => return None,
        1 => "1 dead letter holds its subject".to_owned(),
        many => format!("{many} dead letters hold their subjects"),
    };
    let list = called::command(format_args!("dlq list"));
    Some(format!("{name}: {letters} ({}): `{list}`", some.join(", ")))
}

/// That one partition has far more than the others: then few subjects have most of the events.
fn skew_note(topic: &TopicStatus) -> Option<String> {
    // A few events are never even.
    let is_skewed = topic.skew >= SKEWED && topic.length >= 100 * topic.partitions as u64;
    let longest = topic.longest.as_ref().filter(|_| is_skewed)?;
    Some(format!(
        "{}: {longest} has {} times as many entries as its partitions have on average: one subject, or few, have most",
        topic.topic, topic.skew
    ))
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
    let outbox = status.outbox.iter().map(outbox);
    let paused = status.paused.iter().map(|pause| paused(pause, status));
    let breakers = status.circuit_breakers.iter();
    let breakers = breakers.map(|breaker| breaker_note(breaker, status));
    let notes = state
        .into_iter()
        .chain(in_the_way)
        .chain(outbox)
        .chain(cancelled(status))
        .chain(paused)
        .chain(breakers);
    notes
        .map(|note| format!("{}: {note}", status.stream))
        .collect()
}

/// What waits for a stream of another slot. A moment of it is as it should be.
/// A limit that holds in place of what is configured.
fn limit_note(limit: &StandingLimit) -> String {
    let (handler, by) = (shown(&limit.handler), shown(&limit.by));
    let (since, clear) = (
        time(limit.since),
        format!("limit {} --clear", limit.handler),
    );
    let clear = called::command(clear);
    format!(
        "limit of {handler}: {limit}, set by {by} at {since}: {clear} has it as configured again"
    )
}

/// What operators have cancelled of it.
fn cancelled(status: &StreamStatus) -> Option<String> {
    let said = match (status.to_be_cancelled, status.cancelled) {
        (0, 0) => return None,
        (0, done) => format!("{done} cancelled in the last 7 days"),
        (asked, 0) => format!("{asked} to be cancelled"),
        (asked, done) => format!("{asked} to be cancelled, {done} cancelled in the last 7 days"),
    };
    Some(said)
}

fn outbox(queue: &OutboxStatus) -> String {
    let (stream, oldest) = (shown(&queue.stream), rough(queue.oldest));
    let events = match queue.events {
        1 => "1 event".to_owned(),
        events => format!("{events} events"),
    };
    let waits = format!("{events} emitted to \"{stream}\" in the outbox, the first for {oldest}");
    match (&queue.refused, queue.refused_for) {
        (Some(why), Some(since)) => {
            format!("{waits}; refused for {}: {}", rough(since), shown(why))
        }
        _ => waits,
    }
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
    let why = breaker.why.as_deref();
    let why = why.map(|why| format!(": {}", shown(why)));
    format!(
        "circuit breaker {} {state} (opened {} times) at {}{}",
        shown(&breaker.name),
        breaker.opened,
        shown(&breaker.worker),
        why.unwrap_or_default()
    )
}
