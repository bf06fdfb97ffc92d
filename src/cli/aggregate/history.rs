//! `aggregate history`: a table of an aggregate's events, or a JSON array, written as they are read.

use std::io::{BufWriter, Write};

use clap::Args;

use super::CommandError;
use super::meant::{IdArgs, failed};
use crate::admin::{Aggregates, HistoryEvent, List};
use crate::cli::terminal::{closed, print, say};
use crate::cli::text::{printable, printable_json, table};
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

pub(super) async fn run(args: HistoryArgs, aggregates: &Aggregates) -> Result<(), CommandError> {
    let id = &args.aggregate.id;
    let history = aggregates.history(id, args.from).await;
    let history = history.map_err(|error| failed(&error))?;
    let limit = args.limit.unwrap_or(u64::MAX);
    match args.json {
        true => as_json(history.events, limit).await?,
        false => as_table(history.events, limit).await?,
    }
    let version = history.version;
    if args.from > version {
        say(format_args!("{id} is at version {version}"));
    }
    Ok(())
}

async fn as_table(mut events: List<HistoryEvent>, limit: u64) -> Result<(), CommandError> {
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

fn row(of: &HistoryEvent) -> Vec<String> {
    let (stored, event) = (&of.stored, &of.stored.envelope);
    let data = match &of.data {
        Some(json) => json.get().into(),
        None => String::from_utf8_lossy(event.data()),
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
async fn as_json(mut events: List<HistoryEvent>, limit: u64) -> Result<(), CommandError> {
    let mut separator = "[";
    let mut out = BufWriter::new(std::io::stdout());
    let mut left = limit;
    while left > 0
        && let Some(event) = events.next().await.map_err(|error| failed(&error))?
    {
        left -= 1;
        let json = serde_json::to_string(&event);
        let json = json.map_err(|error| CommandError::failed(error.to_string()))?;
        let json = printable_json(&json);
        write!(out, "{separator}\n{json}").map_err(closed)?;
        separator = ",";
    }
    let end = if separator == "[" { "[]" } else { "\n]" };
    writeln!(out, "{end}")
        .and_then(|()| out.flush())
        .map_err(closed)
}
