//! `dlq list`: a table of dead letters, or a JSON array.

use std::io::Write;

use clap::Args;

use super::CommandError;
use super::select::{FilterArgs, say_strangers};
use crate::cli::away::say_left_out;
use crate::cli::terminal::{closed, print, say};
use crate::cli::text::{printable, table, time};
use crate::dead_letters::{DeadLetter, DeadLetters};
use crate::names::shown;

/// Letters in the table where no limit is given.
const LIMIT: u64 = 100;
/// Rows that are laid out together; more of them begin a new table.
const ROWS: usize = 1000;

#[derive(Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// List all that there are as one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: ListArgs, dead: &DeadLetters) -> Result<(), CommandError> {
    if args.json {
        return as_json(&args, dead).await;
    }
    let limit = args.filter.limit.unwrap_or(LIMIT);
    // One more tells whether there are more.
    let filter = args
        .filter
        .filter(dead)
        .await?
        .limit(limit.saturating_add(1))
        .brief();
    let selection = dead.select(filter).await?;
    let with_stream = dead.streams().count() > 1 && args.filter.stream.is_none();
    let mut letters = selection.letters();
    let (mut rows, mut count, mut more) = (Vec::new(), 0, false);
    while let Some(letter) = letters.next().await? {
        if count == limit {
            more = true;
            break;
        }
        count += 1;
        rows.push(letter);
        if rows.len() == ROWS {
            print(lay_out(&rows, with_stream))?;
            rows.clear();
        }
    }
    if !rows.is_empty() {
        print(lay_out(&rows, with_stream))?;
    }
    say_strangers(letters.strangers());
    say_left_out(dead);
    if count == 0 {
        args.filter.say_none(dead);
    } else if more && args.filter.limit.is_none() {
        say(format_args!(
            "these are the {count} oldest: see more by --limit, or count them by dlq stats"
        ));
    }
    Ok(())
}

/// The array is written as it is read.
async fn as_json(args: &ListArgs, dead: &DeadLetters) -> Result<(), CommandError> {
    let selection = dead.select(args.filter.filter(dead).await?).await?;
    let mut letters = selection.letters();
    let mut separator = "[";
    let mut out = std::io::BufWriter::new(std::io::stdout());
    while let Some(letter) = letters.next().await? {
        let json = serde_json::to_string(&letter)
            .map_err(|error| CommandError::failed(error.to_string()))?;
        write!(out, "{separator}\n{json}").map_err(closed)?;
        separator = ",";
    }
    say_strangers(letters.strangers());
    let end = if separator == "[" { "[]" } else { "\n]" };
    writeln!(out, "{end}")
        .and_then(|()| out.flush())
        .map_err(closed)?;
    say_left_out(dead);
    Ok(())
}

fn lay_out(letters: &[DeadLetter], with_stream: bool) -> String {
    let mut header = vec!["ID", "STREAM", "TYPE", "REASON", "TRIES", "AT", "ERROR"];
    header.retain(|name| with_stream || *name != "STREAM");
    let row = |letter: &DeadLetter| {
        let mut row = vec![letter.id.to_string()];
        if with_stream {
            row.push(letter.stream.clone());
        }
        let event_type = letter.event_type.as_deref().unwrap_or("-");
        row.extend([
            shown(event_type).to_string(),
            shown(letter.reason.as_str()).to_string(),
            letter.attempts.to_string(),
            time(letter.at),
            printable(&letter.error).to_string(),
        ]);
        row
    };
    let rows: Vec<Vec<String>> = letters.iter().map(row).collect();
    table(&header, &["STREAM", "TYPE", "ERROR"], &rows)
}
