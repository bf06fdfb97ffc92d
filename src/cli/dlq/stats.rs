//! `dlq stats`: how many dead letters there are, and of what kind.

use clap::Args;

use super::CommandError;
use super::select::FilterArgs;
use crate::cli::away::say_left_out;
use crate::cli::terminal::{print, print_json};
use crate::cli::text::{count, table, time};
use crate::dead_letters::{DeadLetters, Tally};
use crate::names::shown;

#[derive(Args)]
pub(super) struct StatsArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: StatsArgs, dead: &DeadLetters) -> Result<(), CommandError> {
    let filter = args.filter.filter(dead).await?;
    let filter = if args.json { filter } else { filter.brief() };
    let selection = dead.select(filter).await?;
    let stats = selection.stats().await?;
    say_left_out(dead);
    if args.json {
        return print_json(&stats);
    }
    let total = stats.total;
    if total == 0 {
        args.filter.say_none(dead);
        return Ok(());
    }
    let row = |tally: &Tally| {
        vec![
            tally.stream.clone(),
            shown(tally.event_type.as_deref().unwrap_or("-")).to_string(),
            shown(tally.reason.as_str()).to_string(),
            tally.count.to_string(),
            time(tally.oldest),
            time(tally.newest),
        ]
    };
    let rows: Vec<Vec<String>> = stats.kinds.iter().map(row).collect();
    let header = ["STREAM", "TYPE", "REASON", "COUNT", "OLDEST", "NEWEST"];
    print(table(&header, &["STREAM", "TYPE"], &rows))?;
    print(format_args!("{} in all", count(total, "dead letter")))
}
