//! `aggregate append`: one event, checked to be one of the aggregate's before anything is sent.

use std::error::Error as _;
use std::io::Read;

use clap::Args;

use super::CommandError;
use super::meant::{IdArgs, failed};
use crate::admin::Aggregates;
use crate::cli::terminal::{print, print_json, say};
use crate::codec::DecodeError;
use crate::error::Error;
use crate::eventstore::MOST_EVENT_BYTES;

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

pub(super) async fn run(args: AppendArgs, aggregates: &Aggregates) -> Result<(), CommandError> {
    let (id, event_type) = (&args.aggregate.id, &args.event_type);
    let known = aggregates.check_kind(id.kind());
    known.map_err(|error| failed(&error))?;
    let data = match &args.data[..] {
        "-" => from_stdin()?,
        data => data.to_owned(),
    };
    let event = aggregates.event(id.kind(), event_type, &data);
    let mut event = event.map_err(|error| wrong_data(event_type, &error))?;
    if !event.left_out.is_empty() {
        let names: Vec<String> = event
            .left_out
            .iter()
            .map(|name| format!("{name:?}"))
            .collect();
        say(format_args!(
            "{event_type} is stored without {}, which it has no use for",
            names.join(", ")
        ));
    }
    if let Some(id) = &args.event_id {
        // An empty one is refused by the store: whoever names an id wants to repeat the append by it.
        event = event.with_id(id);
    }
    let appended = aggregates.append(id, event.event, args.expect).await;
    let appended = appended.map_err(|error| failed(&error))?;
    if args.json {
        return print_json(&appended);
    }
    if !appended.is_new {
        say("stored before, and not again");
    }
    print(format_args!("{id} is at version {}", appended.version))
}

/// Calls the data what the command's usage does.
fn wrong_data(event_type: &str, error: &Error) -> CommandError {
    let source = error.source();
    if let Some(why) = source.and_then(|source| source.downcast_ref::<serde_json::Error>()) {
        return CommandError::usage(format!("DATA is no JSON: {why}"));
    }
    if let Some(why) = source.and_then(|source| source.downcast_ref::<DecodeError>()) {
        return CommandError::usage(format!("DATA is no {event_type} of today: {why}"));
    }
    failed(error)
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
