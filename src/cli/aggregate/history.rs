//! `aggregate history`: a table of an aggregate's events, or a JSON array, written as they are read.

use std::io::{BufWriter, Write};

use clap::Args;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::CommandError;
use super::meant::{IdArgs, failed, kind};
use super::show::missing;
use crate::cli::data::{self, on_one_line};
use crate::cli::terminal::{closed, print, say};
use crate::cli::text::{printable, printable_json, table};
use crate::config::Settings;
use crate::eventstore::{EventStore, Events, RedisEventStore, Registered, StoredEvent};
use crate::names::shown;
use crate::rfc3339;

/// Rows that are laid out together, and how many characters of them; what follows begins a new table.
const ROWS: usize = 1000;
const CHARACTERS: usize = 1 << 20;

/// Characters of an event's data in the table.
const DATA: usize = 400;

#[derive(Args)]
#[command(after_help = "\
Examples:
  streamhand aggregate history order:o-1
  streamhand aggregate history order:o-1 --from 100 --limit 20
  streamhand aggregate history order:o-1 --json | jq '.[] | select(.type == \"order.shipped\") | .time'")]
pub(super) struct HistoryArgs {
    #[command(flatten)]
    aggregate: IdArgs,
    /// Begin at this version
    #[arg(long, value_name = "VERSION", default_value_t = 1, hide_default_value = true,
          value_parser = clap::value_parser!(u64).range(1..))]
    from: u64,
    /// List so many at most
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// List them as one JSON value, with all of their data
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(
    args: HistoryArgs,
    settings: &Settings,
    kinds: &Registered,
) -> Result<(), CommandError> {
    let id = &args.aggregate.id;
    let kind = kind(kinds, id.kind())?;
    let store = RedisEventStore::new(&settings.redis, kind.public.clone())?;
    let version = store.version(id).await.map_err(|error| failed(&error))?;
    if version == 0 {
        return Err(missing(id));
    }
    let limit = args.limit.unwrap_or(u64::MAX);
    let events = store.read(id, args.from);
    match args.json {
        true => as_json(events, limit).await?,
        false => as_table(events, limit).await?,
    }
    if args.from > version {
        say(format_args!("{id} is at version {version}"));
    }
    Ok(())
}

async fn as_table(mut events: Events<'_, RedisEventStore>, limit: u64) -> Result<(), CommandError> {
    let (mut rows, mut characters, mut left, mut end) = (Vec::new(), 0, limit, Ok(()));
    while left > 0 {
        match events.next().await {
            Ok(Some(event)) => {
                let row = row(&event);
                characters += row.iter().map(String::len).sum::<usize>();
                rows.push(row);
                left -= 1;
            }
            Ok(None) => break,
            // What comes before it is shown.
            Err(error) => {
                end = Err(failed(&error));
                break;
            }
        }
        if rows.len() == ROWS || characters > CHARACTERS {
            print(lay_out(&rows))?;
            (rows, characters) = (Vec::new(), 0);
        }
    }
    if !rows.is_empty() {
        print(lay_out(&rows))?;
    }
    end
}

fn lay_out(rows: &[Vec<String>]) -> String {
    let header = ["VERSION", "TIME", "TYPE", "ID", "POSITION", "DATA"];
    table(&header, &["TYPE", "ID", "DATA"], rows)
}

fn row(stored: &StoredEvent) -> Vec<String> {
    let event = &stored.envelope;
    let data = match data_of(stored) {
        Some(json) => json,
        None => String::from_utf8_lossy(event.data()).into_owned(),
    };
    let mut start: String = data.chars().take(DATA).collect();
    if start.len() < data.len() {
        start.push('…');
    }
    let version = match event.version() {
        1 => String::new(),
        version => format!(" v{version}"),
    };
    vec![
        stored.version.to_string(),
        rfc3339::millis(event.time()),
        format!("{}{version}", shown(event.event_type())),
        shown(&event.id()).to_string(),
        stored.position.to_string(),
        printable(&start).to_string(),
    ]
}

/// The array is written as it is read.
async fn as_json(mut events: Events<'_, RedisEventStore>, limit: u64) -> Result<(), CommandError> {
    let mut separator = "[";
    let mut out = BufWriter::new(std::io::stdout());
    let mut left = limit;
    while left > 0
        && let Some(event) = events.next().await.map_err(|error| failed(&error))?
    {
        left -= 1;
        let json = printable_json(&json_of(&event)?);
        write!(out, "{separator}\n{json}").map_err(closed)?;
        separator = ",";
    }
    let end = if separator == "[" { "[]" } else { "\n]" };
    writeln!(out, "{end}")
        .and_then(|()| out.flush())
        .map_err(closed)
}

/// Data as JSON on one line, None where it is not what it says it is.
fn data_of(stored: &StoredEvent) -> Option<String> {
    let event = &stored.envelope;
    if event.data().is_empty() {
        return Some("null".to_owned());
    }
    let (_, json) = data::json(event.content_type(), event.data())?;
    Some(on_one_line(&json))
}

#[derive(serde::Serialize)]
struct AsJson<'a> {
    version: u64,
    time: String,
    #[serde(rename = "type")]
    event_type: &'a str,
    schemaversion: u32,
    id: &'a str,
    position: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    /// None where it can't be read: then it is there undecoded.
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_hex: Option<String>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    extensions: Map<String, Value>,
}

fn json_of(stored: &StoredEvent) -> Result<String, CommandError> {
    let wrong = |error: serde_json::Error| CommandError::failed(error.to_string());
    let event = &stored.envelope;
    let data = match data_of(stored) {
        Some(json) => Some(RawValue::from_string(json).map_err(wrong)?),
        None => None,
    };
    let hex = || {
        event
            .data()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    };
    let own = ["position", "subject"];
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let extensions = event
        .extensions()
        .map(|(name, value)| (text(name), Value::from(text(value))))
        .filter(|(name, _)| !own.contains(&&name[..]));
    serde_json::to_string(&AsJson {
        version: stored.version,
        time: rfc3339::millis(event.time()),
        event_type: event.event_type(),
        schemaversion: event.version(),
        id: &event.id(),
        position: stored.position.to_string(),
        source: event.source(),
        data: data.as_deref(),
        data_hex: data.is_none().then(hex),
        extensions: extensions.collect(),
    })
    .map_err(wrong)
}
