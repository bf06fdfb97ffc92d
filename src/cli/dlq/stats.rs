//! `dlq stats`: how many dead letters there are, and of what kind.

use clap::Args;

use super::CommandError;
use super::select::FilterArgs;
use crate::cli::terminal::print;
use crate::cli::text::{count, lines, printable, table, time};
use crate::dead_letters::DeadLetters;

#[derive(Args)]
pub(super) struct StatsArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: StatsArgs, dead: &DeadLetters) -> Result<(), CommandError> {
    let selection = dead.select(args.filter.filter()?).await?;
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
    let mut table = table(
        &["STREAM", "TYPE", "REASON", "COUNT", "OLDEST", "NEWEST"],
        &["STREAM", "TYPE"],
    );
    for ((stream, event_type, reason), tally) in &stats {
        let event_type = match &event_type[..] {
            "" => "-",
            name => name,
        };
        table.add_row([
            stream.clone(),
            printable(event_type).to_string(),
            printable(reason).to_string(),
            tally.count.to_string(),
            time(tally.oldest),
            time(tally.newest),
        ]);
    }
    print(lines(&table))?;
    print(format_args!("{} in all", count(total, "dead letter")))
}
