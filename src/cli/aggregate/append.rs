//! `aggregate append`: one event, checked to be one of the aggregate's before anything is sent.

use std::io::Read;

use clap::Args;
use serde_json::Value;

use super::{CommandError, IdArgs, failed, instead, kind};
use crate::cli::data;
use crate::cli::terminal::{print, say};
use crate::config::Settings;
use crate::event::Envelope;
use crate::eventstore::{
    AppendError, EventError, EventStore, Expected, Kind, MOST_EVENT_BYTES, RedisEventStore,
    Registered,
};
use crate::publisher::with_id;

#[derive(Args)]
#[command(after_help = "\
Examples:
  streamhand aggregate append order:o-1 order.created '{\"order_id\":\"o-1\"}' --expect 0
  streamhand aggregate append order:o-1 order.shipped '{\"order_id\":\"o-1\"}' --expect 1
  jq -c .data event.json | streamhand aggregate append order:o-1 order.created -

The event is stored, and published on the aggregate's stream, if the aggregate is at the version expected. If it is at
another one nothing is stored, and the exit code is 1. Nothing but the event's form is checked: whether it may happen is
for your program to decide.")]
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
    let expected = args.expect.map_or(Expected::Any, Expected::Exact);
    let store = RedisEventStore::new(&settings.redis, kind.public.clone())?;
    let appended = store.append(id, vec![event], expected).await;
    let appended = appended.map_err(|error| match error {
        AppendError::Failed(error) => failed(&error),
        other => CommandError::failed(other.to_string()),
    })?;
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
