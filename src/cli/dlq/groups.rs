//! `dlq groups`: dead letters by what they have in common.

use clap::Args;

use super::CommandError;
use super::select::FilterArgs;
use crate::cli::away::say_left_out;
use crate::cli::terminal::{print, print_json, progress, say};
use crate::cli::text::{count, printable, table, time};
use crate::dead_letters::{DeadLetters, Group};
use crate::names::shown;

/// Groups in the table.
const ROWS: usize = 100;

#[derive(Args)]
#[command(after_help = "\
Examples:
  streamhand dlq groups
  streamhand dlq groups --since 2h --type order.created
  streamhand dlq replay --fingerprint 1f0a5c9b77e2 --canary 10 --then 50/s --stop-at 5%

Letters are alike that have the reason, the type and the handler in common, and the error but for numbers, ids and what
is quoted.")]
pub(super) struct GroupsArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: GroupsArgs, dead: &DeadLetters) -> Result<(), CommandError> {
    let filter = args.filter.filter(dead).await?;
    let filter = if args.json { filter } else { filter.brief() };
    let bar = progress(None, "letters counted");
    let groups = dead.groups_told(filter, |counted| bar.set_position(counted));
    let groups = groups.await;
    bar.finish_and_clear();
    let groups = groups?;
    say_left_out(dead);
    if args.json {
        return print_json(&groups);
    }
    if groups.groups.is_empty() {
        args.filter.say_none(dead);
        return Ok(());
    }
    let with_stream = dead.streams().count() > 1 && args.filter.stream.is_none();
    let row = |group: &Group| {
        let mut row = vec![group.fingerprint.clone(), group.count.to_string()];
        if with_stream {
            row.push(group.stream.clone());
        }
        let versions: Vec<String> = group.versions.iter().map(u32::to_string).collect();
        row.extend([
            shown(group.event_type.as_deref().unwrap_or("-")).to_string(),
            shown(group.reason.as_str()).to_string(),
            versions.join(" "),
            time(group.first),
            time(group.last),
            printable(&group.error).to_string(),
        ]);
        row
    };
    let rows: Vec<Vec<String>> = groups.groups.iter().take(ROWS).map(row).collect();
    let mut header = vec![
        "FINGERPRINT",
        "COUNT",
        "STREAM",
        "TYPE",
        "REASON",
        "V",
        "FIRST",
        "LAST",
        "ERROR",
    ];
    header.retain(|name| with_stream || *name != "STREAM");
    print(table(&header, &["STREAM", "TYPE", "ERROR"], &rows))?;
    let letters = count(groups.total, "dead letter");
    let kinds = count(groups.groups.len() as u64, "group");
    print(format_args!("{letters} in {kinds}"))?;
    if groups.groups.len() > ROWS {
        say(format_args!(
            "these are the {ROWS} largest groups: --json has all of them"
        ));
    }
    Ok(())
}
