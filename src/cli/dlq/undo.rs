//! `dlq undo`: brings back what `dlq purge --undo-within` has deleted.

use clap::Args;

use super::CommandError;
use crate::cli::away::{none_left_out, say_left_out};
use crate::cli::terminal::{print, print_json, progress, say};
use crate::cli::text::{count, table, time};
use crate::dead_letters::DeadLetters;
use crate::names::shown;

#[derive(Args)]
pub(super) struct UndoArgs {
    /// The purge, as `dlq purge` has named it [default: list those that can be undone]
    #[arg(value_name = "PURGE")]
    name: Option<String>,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: UndoArgs, dead: &DeadLetters) -> Result<(), CommandError> {
    let Some(name) = &args.name else {
        return list(&args, dead).await;
    };
    let bar = progress(None, "letters");
    let undone = dead.undo_purge(name, |back| bar.set_position(back)).await;
    bar.finish_and_clear();
    say_left_out(dead);
    let undone = undone?;
    match args.json {
        true => print_json(&undone)?,
        false => print(format_args!(
            "brought back {}",
            count(undone.restored, "dead letter")
        ))?,
    }
    none_left_out(dead)
}

async fn list(args: &UndoArgs, dead: &DeadLetters) -> Result<(), CommandError> {
    let purges = dead.purges().await?;
    say_left_out(dead);
    if args.json {
        return print_json(&purges);
    }
    if purges.is_empty() {
        say("no purge can be undone");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = purges
        .iter()
        .map(|run| {
            vec![
                run.name.clone(),
                time(run.at),
                time(run.until),
                run.letters.to_string(),
                shown(&run.by).to_string(),
            ]
        })
        .collect();
    print(table(
        &["PURGE", "AT", "UNTIL", "LETTERS", "BY"],
        &["BY"],
        &rows,
    ))
}
