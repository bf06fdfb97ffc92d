//! `dlq replay`: gives dead letters back to their group.

use std::num::NonZeroU32;

use clap::Args;
use serde::Serialize;

use super::CommandError;
use super::select::{Which, confirm};
use crate::cli::terminal::{print, print_json, progress};
use crate::cli::text::{count, whoami};
use crate::cli::told_to_stop;
use crate::dead_letters::{Counted, DeadLetters, Replayed};
use crate::error::chain;

/// More than so many are not replayed without asking.
const ASK: u64 = 100;

#[derive(Args)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    which: Which,
    /// Say how many would be replayed, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// At most so many a second
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Replay more than 100 without asking
    #[arg(long, short)]
    yes: bool,
    /// Who replays, noted in each copy [default: user@host]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

/// What was done, as JSON.
#[derive(Serialize)]
struct Done<'a> {
    dry_run: bool,
    #[serde(flatten)]
    counted: &'a Counted,
    #[serde(flatten)]
    run: Replayed,
}

pub(super) async fn run(args: ReplayArgs, dead: &DeadLetters) -> Result<(), CommandError> {
    let meant = args.which.resolve(dead, "replay").await?;
    let mut run = Replayed::default();
    if !args.dry_run && meant.counted.found > 0 {
        if meant.counted.found > ASK && !args.yes {
            let (count, place) = (meant.counted.found, &meant.place);
            let unasked = format!(
                "{count} dead letters are more than {ASK}, and there is no terminal to ask on: add --yes to replay \
                 them"
            );
            if !confirm(
                &format!("Replay {count} dead letters of {place}?"),
                &unasked,
            )? {
                return Err(CommandError::failed("nothing was replayed"));
            }
        }
        let by = args.by.clone().unwrap_or_else(whoami);
        let stop = told_to_stop("; what was replayed so far is")?;
        let bar = progress(Some(meant.counted.found), "letters");
        let result = {
            let replaying =
                meant
                    .selection
                    .replay(&by, args.rate.and_then(NonZeroU32::new), |so_far| {
                        run = *so_far;
                        bar.set_position(so_far.replayed + so_far.gone);
                    });
            tokio::select! {
                result = replaying => result.map(|_| ()).map_err(|error| chain(&error)),
                () = stop => Err("stopped".to_owned()),
            }
        };
        bar.finish_and_clear();
        if let Err(why) = result {
            return Err(CommandError::failed(format!(
                "{why}\nreplayed {} of {}; run it again to go on",
                run.replayed, meant.counted.found
            )));
        }
    }
    if args.json {
        print_json(&Done {
            dry_run: args.dry_run,
            counted: &meant.counted,
            run,
        })?;
    } else if args.dry_run {
        print(format_args!(
            "would replay {}",
            count(meant.counted.found, "dead letter")
        ))?;
    } else if meant.counted.found > 0 {
        let gone = match run.gone {
            0 => String::new(),
            gone => format!(" ({gone} more were gone by then)"),
        };
        print(format_args!(
            "replayed {}{gone}",
            count(run.replayed, "dead letter")
        ))?;
    }
    meant.all_there()
}
