//! `aggregate append`: one event, checked to be one of the aggregate's before anything is sent.

use std::io::Read;

use clap::Args;
use serde_json::Value;

use super::CommandError;
use super::meant::{IdArgs, failed, instead, kind};
use crate::cli::data;
use crate::cli::terminal::{print, say};
use crate::cli::text::printable;
use crate::config::Settings;
use crate::error::{Error, chain};
use crate::event::Envelope;
use crate::event::with_id;
use crate::eventstore::{
    AggregateId, AppendError, Appended, EventError, EventStore, Expected, Kind, MOST_EVENT_BYTES,
    RedisEventStore, Registered, StoredEvent,
};

/// How often an event that may come at any version is tried, where others are faster.
const TRIES: u32 = 16;

#[derive(Args)]
#[command(after_help = "\
Examples:
  streamhand aggregate append order:o-1 order.created '{\"order_id\":\"o-1\"}' --expect 0
  streamhand aggregate append order:o-1 order.shipped '{\"order_id\":\"o-1\"}' --expect 1
  jq -c .data event.json | streamhand aggregate append order:o-1 order.created -

The event is stored, and published on the aggregate's stream, if the aggregate is at the version expected. If it is at
another one nothing is stored, and the exit code is 1. Nothing is stored either where the event could not be read or
applied afterwards. Whether it may happen is for your program to decide.")]
pub(super) struct AppendArgs {
    #[command(flatten)]
    aggregate: IdArgs,
    /// The event's type, such as order.created
    #[arg(value_name = "TYPE")]
    event_type: String,
    /// The event's data as JSON, in its type's version as of today; "-" reads it from standard input
    #[arg(allow_hyphen_values = true)]
    data: String,
    /// The version the aggregate is expected at, that of its last event; 0: it must not exist [default: any]
    #[arg(long, value_name = "VERSION", value_parser = version, allow_hyphen_values = true)]
    expect: Option<u64>,
    /// The event's id: the same append with the same id is done once [default: a new UUIDv7]
    #[arg(long, value_name = "EVENT")]
    event_id: Option<String>,
    /// Say what was stored as one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(
    args: AppendArgs,
    settings: &Settings,
    kinds: &Registered,
) -> Result<(), CommandError> {
    let id = &args.aggregate.id;
    let kind = kind(kinds, id.kind())?;
    let data = match &args.data[..] {
        "-" => from_stdin()?,
        data => data.to_owned(),
    };
    let mut event = event(kind, &args.event_type, &data)?;
    event = match &args.event_id {
        // An empty one is refused by the store: whoever names an id wants to repeat the append by it.
        Some(id) => event.with("id", id),
        None => with_id(event),
    };
    let event_id = event.id().into_owned();
    let store = RedisEventStore::new(&settings.redis, kind.public.clone())?;
    let appended = stored(&store, kind, id, event, args.expect).await?;
    let (version, position) = (appended.version(), appended.positions[0].to_string());
    if args.json {
        return print(serde_json::json!({
            "aggregate": id.as_str(),
            "version": version,
            "id": event_id,
            "position": position,
            "is_new": appended.is_new,
        }));
    }
    if !appended.is_new {
        say("stored before, and not again");
    }
    print(format_args!("{id} is at version {version}"))
}

/// Stores the event once it is known that it can be read and applied where it is to come: what can't would be in the way
/// of every load from then on.
async fn stored(
    store: &RedisEventStore,
    kind: &Kind,
    id: &AggregateId,
    event: Envelope,
    expect: Option<u64>,
) -> Result<Appended, CommandError> {
    let mut tries = TRIES;
    loop {
        let expected = check(store, kind, id, &event, expect).await?;
        let error = match store.append(id, vec![event.clone()], expected).await {
            Ok(appended) => return Ok(appended),
            Err(error) => error,
        };
        tries -= 1;
        match error {
            // Others were faster: what they stored is to be looked at, too.
            AppendError::Conflict(_) if expect.is_none() && tries > 0 => {}
            AppendError::Failed(error) => return Err(failed(&error)),
            other => return Err(CommandError::failed(other.to_string())),
        }
    }
}

/// Applies the event to the aggregate as it is before it. Answers where it may be stored.
async fn check(
    store: &RedisEventStore,
    kind: &Kind,
    id: &AggregateId,
    event: &Envelope,
    expect: Option<u64>,
) -> Result<Expected, CommandError> {
    let refused = |why: &Error| {
        let why = printable(&chain(why)).to_string();
        CommandError::failed(format!(
            "nothing is stored, for {id} could not be loaded any more: {why}"
        ))
    };
    let loads_no_more = |why: &Error| {
        let why = printable(&chain(why)).to_string();
        CommandError::failed(format!(
            "nothing is stored, for {id} can't be loaded: {why}"
        ))
    };
    let most = expect.unwrap_or(u64::MAX);
    let (mut events, mut replay) = (store.read(id, 1), kind.begin(id.clone()));
    let (mut version, mut last) = (0, None);
    while version < most {
        let Some(stored) = events.next().await.map_err(|error| failed(&error))? else {
            break;
        };
        replay
            .apply(&stored)
            .map_err(|error| loads_no_more(&error))?;
        version = stored.version;
        last = Some(stored.envelope.id().into_owned());
    }
    let expected = match expect {
        Some(expected) if version < expected => return Ok(Expected::Exact(expected)),
        // The same request once more: it is stored, and applied.
        None if last.is_some_and(|last| last == event.id()) => return Ok(Expected::Any),
        _ => Expected::Exact(version),
    };
    let stored = StoredEvent::new(version + 1, event.clone());
    replay.apply(&stored).map_err(|error| refused(&error))?;
    Ok(expected)
}

/// The event, as it is to be stored.
fn event(kind: &Kind, event_type: &str, data: &str) -> Result<Envelope, CommandError> {
    let json: Value = serde_json::from_str(data)
        .map_err(|error| CommandError::usage(format!("DATA is no JSON: {error}")))?;
    let name = kind.name;
    let event = kind.event(event_type, data.as_bytes()).ok_or_else(|| {
        let types: Vec<&str> = kind.events.iter().map(|known| known.event_type).collect();
        CommandError::usage(format!(
            "{event_type:?} is no event of the aggregate {name}{}",
            instead(event_type, &types)
        ))
    })?;
    let event = event.map_err(|error| match error {
        EventError::Data(error) => {
            CommandError::usage(format!("DATA is no {event_type} of today: {error}"))
        }
        EventError::Failed(error) => failed(&error),
    })?;
    say_what_is_left_out(event_type, &json, &event);
    Ok(event)
}

/// A name that is mistyped, where it may be missing, would go unnoticed.
fn say_what_is_left_out(event_type: &str, given: &Value, event: &Envelope) {
    let stored = data::json(event.content_type(), event.data())
        .and_then(|(_, json)| serde_json::from_str::<Value>(&json).ok());
    let (Value::Object(given), Some(Value::Object(stored))) = (given, stored) else {
        return;
    };
    let left: Vec<String> = given
        .keys()
        .filter(|name| !stored.contains_key(*name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !left.is_empty() {
        say(format_args!(
            "{event_type} is stored without {}, which it has no use for",
            left.join(", ")
        ));
    }
}

fn from_stdin() -> Result<String, CommandError> {
    let mut data = String::new();
    // One byte more tells that it is too much.
    let most = MOST_EVENT_BYTES as u64 + 1;
    std::io::stdin()
        .take(most)
        .read_to_string(&mut data)
        .map_err(|error| CommandError::usage(format!("can't read standard input: {error}")))?;
    if data.len() as u64 == most {
        return Err(CommandError::usage(format!(
            "DATA has more than {MOST_EVENT_BYTES} bytes, the most of one event"
        )));
    }
    Ok(data)
}

fn version(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| {
        "a version is that of an aggregate's last event, from 1, or 0 where it has none".to_owned()
    })
}
