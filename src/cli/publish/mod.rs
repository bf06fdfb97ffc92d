//! `publish`: one event from an argument, or many from lines of JSON.
//!
//! Lines are read and turned into events by one task and published by another, in pipelines; what lies between the
//! two is bounded in bytes. What is said to be published has been answered by Redis.

mod event;
mod lines;
mod when;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use tokio_util::sync::CancellationToken;

use super::terminal::{byte_progress, print, progress, say};
use super::text::time;
use super::{CommandError, adding, told_to_stop};
use crate::called;
use crate::config::Settings;
use crate::config::check_stream;
use crate::error::chain;
use crate::event::EntryId;
use crate::event::with_id;
use crate::event_type;
use crate::otlp::Tracing;
use crate::publisher::Publisher;
use crate::rfc3339;
use crate::stream::{Appended, Done, Fate, How};
use event::Template;
use lines::{Line, Lines};
use when::WhenArgs;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PublishArgs {
    /// The stream
    stream: String,
    /// The events' type, such as order.created
    #[arg(value_name = "TYPE", required_unless_present = "envelopes")]
    event_type: Option<String>,
    /// The event's data as JSON; "-" reads events from standard input, one a line
    #[arg(conflicts_with = "file")]
    data: Option<String>,
    /// Read events from a file, one JSON value a line: each is the data of one event
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The lines are whole events, which say their own type
    #[arg(long)]
    envelopes: bool,
    /// The event's id [default: a new UUIDv7]
    #[arg(long, conflicts_with_all = ["file", "envelopes"])]
    id: Option<String>,
    /// What the events are about: the ordering key
    #[arg(long, conflicts_with = "envelopes")]
    subject: Option<String>,
    /// Who publishes them
    #[arg(long)]
    source: Option<String>,
    /// The version of the data's schema
    #[arg(long, value_name = "NUMBER", conflicts_with = "envelopes",
          value_parser = clap::value_parser!(u32).range(1..))]
    schema_version: Option<u32>,
    /// Start no handler for them after this: a time, or so long from now (10m)
    #[arg(long, value_name = "TIME", value_parser = when::Deadline::parse, conflicts_with = "envelopes")]
    expires: Option<when::Deadline>,
    /// At most so many attempts, within those that their handler has
    #[arg(long, value_name = "NUMBER", conflicts_with = "envelopes",
          value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: Option<u32>,
    /// Acknowledge events once so many replicas have them [default: redis.replicas]
    #[arg(long, value_name = "NUMBER")]
    replicas: Option<u32>,
    #[command(flatten)]
    when: WhenArgs,
    /// Keep the data as JSON instead of encoding it as MessagePack
    #[arg(long)]
    json_data: bool,
    /// Say what was published as one JSON value
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  streamhand publish orders order.created '{\"order_id\":\"o-1\",\"amount\":12}'
  streamhand publish orders order.created --file orders.ndjson
  jq -c '.[]' orders.json | streamhand publish orders order.created -
  streamhand publish orders --envelopes --file events.ndjson
  streamhand publish orders order.overdue '{\"order_id\":\"o-1\"}' --delay 10m
  streamhand publish orders order.created '{\"order_id\":\"o-1\"}' --id o-1-created --once
  streamhand publish carts cart.changed '{\"items\":3}' --id cart-7 --debounce 5s

A whole event has `type` and `data`, and may have `id`, `source`, `subject`, `time`, `schemaversion`,
`traceparent`, `expires`, `maxattempts` and fields of your own: {\"type\":\"order.created\",\"data\":{\"order_id\":\"o-1\"}}";

/// What has been published so far, or scheduled, by Redis' answers.
#[derive(Default)]
struct Tally {
    published: u64,
    /// Events whose id was published or scheduled before: they were not, again.
    before: u64,
    first: Option<EntryId>,
    last: Option<EntryId>,
    /// Those of them that have taken the place of another.
    replaced: u64,
    /// When the last one that was scheduled is due.
    due_ms: Option<u64>,
    is_later: bool,
    /// The number of the last line up to which Redis has every event.
    line: u64,
    /// The first line of which it has none, or may have none: where to go on.
    missing: Option<u64>,
    /// Events of lines behind that one that it has all the same.
    behind: u64,
    /// Events that are in, and not known to be with as many replicas as are asked for.
    not_replicated: u64,
    /// The first and the last line of which it may have an event or not, and how many they are.
    doubt: Option<(u64, u64, u64)>,
}

/// How long answers to what was sent are waited for when the command is told to stop.
const GRACE: Duration = Duration::from_secs(2);

pub(super) async fn run(args: PublishArgs, settings: Settings) -> Result<(), CommandError> {
    let later = args.when.is_later().then(|| args.stream.clone());
    let tracing = Tracing::start(&settings.telemetry, called::program())?;
    let publisher = Publisher::of_settings(&settings)?.traced_by(&tracing);
    let published = publish(args, publisher.clone()).await;
    tracing.stop().await;
    published?;
    if let Some(stream) = later
        // Who may only publish may not look; what was to be done is done.
        && let Ok(Some(warning)) = adding::warning(publisher.pool(), &stream).await
    {
        say(format_args!("warning: {warning}"));
    }
    Ok(())
}

async fn publish(mut args: PublishArgs, mut publisher: Publisher) -> Result<(), CommandError> {
    // With --envelopes there is no TYPE, and what stands in its place is DATA.
    if args.envelopes && args.data.is_none() {
        args.data = args.event_type.take();
    }
    check(&args)?;
    let how = args.when.how(&publisher).await?;
    if let Some(source) = &args.source {
        publisher = publisher.source(source);
    }
    if let Some(replicas) = args.replicas {
        publisher = publisher.replicas(replicas);
    }
    let template = Template {
        event_type: args.event_type.clone(),
        id: args.id.clone(),
        subject: args.subject.clone(),
        version: args.schema_version,
        expires: match args.expires {
            Some(deadline) => Some(deadline.time(&publisher).await?),
            None => None,
        },
        max_attempts: args.max_attempts,
        keep_json: args.json_data,
        lines: args.data.as_deref().is_none_or(|data| data == "-"),
        needs_id: args.when.once || args.when.replaces(),
    };
    let mut tally = Tally {
        is_later: args.when.is_later(),
        ..Tally::default()
    };
    match &args.data {
        Some(data) if data != "-" => {
            let envelope = template
                .event(data)
                .map_err(|why| CommandError::usage(format!("DATA {why}{}", quoting(data))))?;
            let envelope = with_id(envelope);
            let id = envelope.id().into_owned();
            let done = publisher.append_one(&args.stream, &how, envelope).await?;
            if !args.json {
                return say_one(&id, done);
            }
            tally.count(done);
            return print(tally.as_json(&args.stream, Some(&id)));
        }
        _ => {
            let lines = Lines::open(args.file.as_deref(), template).await?;
            let bar = lines
                .size()
                .map_or_else(|| progress(None, "events"), byte_progress);
            let result =
                publish_lines(&publisher, &args.stream, &how, lines, &mut tally, &bar).await;
            bar.finish_and_clear();
            result?;
        }
    }
    if args.json {
        return print(tally.as_json(&args.stream, None));
    }
    let before = match tally.before {
        0 if tally.replaced > 0 => format!(" ({} in place of what waited)", tally.replaced),
        0 => String::new(),
        before => format!(" ({before} had been {} before)", tally.verb()),
    };
    print(format_args!("{} {}{before}", tally.verb(), tally.published))
}

/// Says what became of one event: the entry's id, or the event's own by which it can be cancelled.
fn say_one(id: &str, done: Done) -> Result<(), CommandError> {
    match done {
        Done::Added(entry) => print(entry),
        Done::AddedBefore(entry) => {
            say("published before, and not again");
            print(entry)
        }
        Done::Scheduled {
            due_ms,
            is_new,
            replaced,
        } => {
            let at = time(crate::stream::time(due_ms));
            let before = match (is_new, replaced) {
                (_, true) => "replaced what was scheduled before, ",
                (true, _) => "",
                (false, _) => "scheduled before, ",
            };
            say(format_args!("{before}due at {at}"));
            print(id)
        }
    }
}

/// Refuses, before anything is sent, what can't be meant.
fn check(args: &PublishArgs) -> Result<(), CommandError> {
    check_stream(&args.stream)?;
    let data = args.data.as_deref();
    if args.envelopes {
        let extra = args
            .event_type
            .as_deref()
            .or(data.filter(|data| *data != "-"));
        return match extra {
            None => Ok(()),
            Some(extra) => Err(CommandError::usage(format!(
                "{extra:?} is too much: with --envelopes each event says its own type and data; name a file of them \
                 by --file, or write - for standard input"
            ))),
        };
    }
    if let Some(event_type) = &args.event_type
        && let Err(why) = event_type::check(event_type)
    {
        let message = format!("the event type {event_type:?} {why}");
        return Err(CommandError::usage(message));
    }
    if data.is_none() && args.file.is_none() {
        return Err(CommandError::usage(
            "no data: write it as JSON ('{}' where there is nothing to say), name a --file, or write - for standard \
             input",
        ));
    }
    if args.when.replaces() && args.id.as_deref().is_none_or(str::is_empty) {
        return Err(CommandError::usage(
            "--replace and --debounce need an id by which what waits is known again: add --id, or publish whole events \
             that have ids by --envelopes",
        ));
    }
    if args.when.once && args.id.as_deref().is_none_or(str::is_empty) {
        return Err(CommandError::usage(
            "--once needs an id by which the event is known again: add --id, or publish whole events that have ids by \
             --envelopes",
        ));
    }
    if args.id.is_some() && data == Some("-") {
        return Err(CommandError::usage(
            "--id is one event's: the events of standard input would all have the same one",
        ));
    }
    Ok(())
}

/// What the shell may have done to DATA.
fn quoting(data: &str) -> &'static str {
    if data.starts_with(['{', '[']) && !data.contains('"') {
        " (the shell takes quotes away: write '{\"order_id\":\"o-1\"}')"
    } else if data.starts_with(char::is_alphabetic) {
        " (text is JSON in its own quotes: write '\"o-1\"')"
    } else {
        ""
    }
}

async fn publish_lines(
    publisher: &Publisher,
    stream: &str,
    how: &How,
    mut lines: Lines,
    tally: &mut Tally,
    bar: &ProgressBar,
) -> Result<(), CommandError> {
    let stop = told_to_stop(": what was sent last may be in or not")?;
    tokio::pin!(stop);
    let stopping = CancellationToken::new();
    loop {
        let batch = tokio::select! {
            biased;
            () = &mut stop => return Err(stopped(tally)),
            batch = lines.next() => batch,
        };
        if !batch.lines.is_empty() {
            let (numbers, envelopes): (Vec<Line>, Vec<_>) = batch.lines.into_iter().unzip();
            let mut appended = Appended::default();
            {
                let publishing = publisher.append(stream, how, envelopes, &stopping, &mut appended);
                tokio::pin!(publishing);
                tokio::select! {
                    biased;
                    done = &mut publishing => done?,
                    () = &mut stop => {
                        stopping.cancel();
                        say(format_args!(
                            "stopping: waits {} s at most for answers to what was sent; a second signal ends at once",
                            GRACE.as_secs()
                        ));
                        if let Ok(done) = tokio::time::timeout(GRACE, publishing).await {
                            done?;
                        }
                    }
                }
            }
            tally
                .take(&numbers, appended)
                .map_err(|why| CommandError::failed(format!("{}: {why}", lines.name())))?;
            match (lines.size(), numbers.last()) {
                (Some(_), Some(line)) => {
                    bar.set_position(line.end);
                    bar.set_message(format!("{} events", tally.published + tally.before));
                }
                _ => bar.set_position(tally.published + tally.before),
            }
            if stopping.is_cancelled() {
                return Err(stopped(tally));
            }
        }
        match batch.end {
            None => {}
            Some(Ok(())) => return Ok(()),
            Some(Err(why)) => {
                return Err(CommandError::failed(format!(
                    "{}, {why}\n{tally}",
                    lines.name()
                )));
            }
        }
    }
}

/// What is said when the command was told to stop.
fn stopped(tally: &Tally) -> CommandError {
    let next = tally.missing.unwrap_or(tally.line + 1);
    CommandError::failed(format!("stopped; {tally}; go on at line {next}"))
}

impl Tally {
    fn count(&mut self, done: Done) {
        let is_new = match done {
            Done::Added(_) => true,
            Done::AddedBefore(_) => false,
            Done::Scheduled {
                due_ms,
                is_new,
                replaced,
            } => {
                self.due_ms = Some(due_ms);
                self.replaced += u64::from(replaced);
                is_new
            }
        };
        match is_new {
            true => self.published += 1,
            false => self.before += 1,
        }
        if let Some(id) = done.entry() {
            self.first.get_or_insert(id);
            self.last = Some(id);
        }
    }

    fn verb(&self) -> &'static str {
        if self.is_later {
            "scheduled"
        } else {
            "published"
        }
    }

    fn as_json(&self, stream: &str, id: Option<&str>) -> serde_json::Value {
        if self.is_later {
            return serde_json::json!({
                "stream": stream,
                "scheduled": self.published,
                "scheduled_before": self.before,
                "replaced": self.replaced,
                "id": id,
                "at": self.due_ms.map(|due| {
                    rfc3339::millis(crate::stream::time(due))
                }),
            });
        }
        serde_json::json!({
            "stream": stream,
            "published": self.published,
            "published_before": self.before,
            "first": self.first.map(|id| id.to_string()),
            "last": self.last.map(|id| id.to_string()),
        })
    }

    /// Counts what was answered; an error says what was not published, or may not have been.
    fn take(&mut self, lines: &[Line], appended: Appended) -> Result<(), String> {
        let (mut refused, mut lacking) = (Vec::new(), None);
        for (line, fate) in lines.iter().zip(appended.fates) {
            let number = line.number;
            let fate = match fate {
                Fate::NotReplicated(done, why) => {
                    self.not_replicated += 1;
                    lacking.get_or_insert((number, why));
                    Fate::Done(done)
                }
                fate => fate,
            };
            match fate {
                Fate::Done(done) => {
                    self.count(done);
                    match self.missing {
                        None => self.line = number,
                        Some(_) => self.behind += 1,
                    }
                    continue;
                }
                Fate::Refused(error) => refused.push((number, error)),
                Fate::InDoubt => {
                    let (first, _, count) = self.doubt.unwrap_or((number, number, 0));
                    self.doubt = Some((first, number, count + 1));
                }
                Fate::NotReplicated(..) | Fate::NotSent => {}
            }
            self.missing.get_or_insert(number);
        }
        if let Some((line, error)) = refused.first() {
            let more = match refused.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more up to line {})", refused[more].0),
            };
            return Err(format!("line {line}{more}: {}\n{self}", chain(error)));
        }
        match appended.broken {
            None => match lacking {
                None => Ok(()),
                Some((line, why)) => Err(format!(
                    "line {line}: stored, not replicated: {why}\n{self}"
                )),
            },
            Some(error) => Err(format!("{}\n{self}", chain(&error))),
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = self.verb();
        match self.published {
            0 if self.before == 0 => write!(f, "{verb} nothing")?,
            1 => write!(f, "{verb} 1 event")?,
            many => write!(f, "{verb} {many} events")?,
        }
        if self.before > 0 {
            write!(f, " ({} had been {verb} before)", self.before)?;
        }
        if self.not_replicated > 0 {
            write!(
                f,
                ", {} of them not known to be replicated",
                self.not_replicated
            )?;
        }
        match (self.line, self.behind, self.missing) {
            (0, 0, _) => {}
            (line, 0, _) => write!(f, ", up to line {line}")?,
            (0, _, missing) => write!(f, ", but not line {}", missing.unwrap_or(1))?,
            (line, behind, missing) => write!(
                f,
                ", up to line {line} and {behind} behind it; line {} is the first that is not in",
                missing.unwrap_or(line + 1)
            )?,
        }
        match self.doubt {
            None => Ok(()),
            Some((only, _, 1)) => write!(f, "; whether line {only} was {verb} is not known"),
            Some((first, last, count)) => write!(
                f,
                "; whether lines {first} to {last} ({count} events) were {verb} is not known"
            ),
        }
    }
}
