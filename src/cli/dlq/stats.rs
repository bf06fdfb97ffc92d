//! `dlq stats`: how many dead letters there are, and of what kind.

use clap::Args;

use super::CommandError;
use super::select::FilterArgs;
use crate::cli::terminal::print;
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
    let total: u64 = stats.values().map(|tally| tally.count).sum();
    if args.json {
        let kinds: Vec<serde_json::Value> = stats
            .iter()
            .map(|((stream, event_type, reason), tally)| {
                serde_json::json!({
                    "stream": stream,
                    "type": Some(event_type).filter(|name| !name.is_empty()),
                    "reason": reason,
                    "count": tally.count,
                    "oldest": time(tally.oldest),
                    "newest": time(tally.newest),
                })
            })
            .collect();
        return print(serde_json::json!({ "group": dead.group(), "total": total, "kinds": kinds }));
    }
    if total == 0 {
        args.filter.say_none(dead);
        return Ok(());
    }
    let row = |((stream, event_type, reason), tally): (&(String, String, String), &Tally)| {
        let event_type = match &event_type[..] {
            "" => "-",
            name => name,
        };
        vec![
            stream.clone(),
            shown(event_type).to_string(),
            shown(reason).to_string(),
            tally.count.to_string(),
            time(tally.oldest),
            time(tally.newest),
        ]
    };
    let rows: Vec<Vec<String>> = stats.iter().map(row).collect();
    let header = ["STREAM", "TYPE", "REASON", "COUNT", "OLDEST", "NEWEST"];
    print(table(&header, &["STREAM", "TYPE"], &rows))?;
    print(format_args!("{} in all", count(total, "dead letter")))
}
