//! `dlq replay`: gives dead letters back to their group.

use std::num::NonZeroU32;

use clap::Args;
use serde::Serialize;

use super::CommandError;
use super::paced::{Then, When, per_cent};
use super::runs::follow;
use super::select::{Meant, Which, confirm};
use crate::admin::{Admin, Redirected};
use crate::cli::terminal::{print, print_json, progress, say};
use crate::cli::text::{count, time, whoami};
use crate::cli::told_to_stop;
use crate::dead_letters::{Counted, DeadLetters, Replayed, RunPlan};
use crate::error::chain;

/// More than so many are not replayed without asking.
const ASK: u64 = 100;

#[derive(Args)]
#[command(after_help = "\
Examples:
  streamhand dlq replay --type order.created
  streamhand dlq replay --fingerprint 1f0a5c9b77e2 --canary 10 --then 50/s --stop-at 5%
  streamhand dlq replay --reason failed --at 02:00 --then 20/s --note 'after the deploy'

With --canary, --then, --stop-at, --at or --note the replay is a run, which is kept in Redis: dlq runs shows what
becomes of it, dlq stop stops it, and dlq resume goes on with it, from anywhere.")]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    which: Which,
    /// As a run: so many first, the others once these are settled
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    canary: Option<u64>,
    /// As a run: behind the canary at most so many a second (50/s), or all; without it none
    #[arg(long, value_name = "RATE", value_parser = Then::parse, conflicts_with = "rate")]
    then: Option<Then>,
    /// As a run: stop by itself once more than so many per cent of them died again (5%)
    #[arg(long, value_name = "SHARE", value_parser = per_cent)]
    stop_at: Option<f64>,
    /// As a run: a worker begins it then: at 02:00 UTC, 2026-01-31T02:00:00Z, or in 30m
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    at: Option<When>,
    /// As a run: what is to be noted of it
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Send them to this stream instead, as new events that they caused
    #[arg(long, value_name = "STREAM", conflicts_with_all = ["canary", "then", "stop_at", "at", "note"])]
    to: Option<String>,
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

impl ReplayArgs {
    /// Whether it is kept as a run.
    fn is_a_run(&self) -> bool {
        self.canary.is_some()
            || self.then.is_some()
            || self.stop_at.is_some()
            || self.at.is_some()
            || self.note.is_some()
    }

    fn plan(&self) -> RunPlan {
        let rate = match self.then {
            Some(Then::Rate(rate)) => Some(rate),
            Some(Then::All) => None,
            None => self.rate.and_then(NonZeroU32::new),
        };
        let mut plan = RunPlan::new().rate(rate);
        if let Some(canary) = self.canary {
            plan = plan.canary(canary);
            if self.then.is_none() && self.rate.is_none() {
                plan = plan.canary_only();
            }
        }
        match self.stop_at {
            Some(share) => plan.stop_at(share),
            None => plan,
        }
    }
}

/// Sends them to another stream.
async fn send(
    args: &ReplayArgs,
    meant: &Meant,
    admin: &Admin,
    to: &str,
    by: &str,
) -> Result<(), CommandError> {
    let stop = told_to_stop("; what was sent so far is")?;
    let (bar, found) = (
        progress(Some(meant.counted.found), "letters"),
        meant.counted.found,
    );
    let mut done = Redirected::default();
    let rate = args.rate.and_then(NonZeroU32::new);
    let result = {
        let sending = admin.redirect(&meant.selection, to, by, rate, |so_far| {
            done = *so_far;
            bar.set_position(so_far.sent);
        });
        tokio::select! {
            result = sending => result.map(|_| ()).map_err(|error| chain(&error)),
            () = stop => Err("stopped".to_owned()),
        }
    };
    bar.finish_and_clear();
    if let Err(why) = result {
        return Err(CommandError::failed(format!(
            "{why}\nsent {} of {found} to {to}; run it again to go on",
            done.sent
        )));
    }
    if args.json {
        return print_json(&done);
    }
    let mut left = String::new();
    for (letters, one, many) in [
        (done.held, "is held", "are held"),
        (done.no_events, "is no event", "are no events"),
        (done.gone, "was gone by then", "were gone by then"),
    ] {
        match letters {
            0 => {}
            1 => left.push_str(&format!("; 1 {one}")),
            _ => left.push_str(&format!("; {letters} {many}")),
        }
    }
    print(format_args!(
        "sent {} to {to}{left}",
        count(done.sent, "dead letter")
    ))
}

/// Begins a run, and drives it unless its time is still to come.
async fn begin(
    args: &ReplayArgs,
    meant: &Meant,
    dead: &DeadLetters,
    by: &str,
) -> Result<(), CommandError> {
    let at = match args.at {
        Some(when) => Some(when.from(dead.now().await?)),
        None => None,
    };
    let note = args.note.as_deref().unwrap_or_default();
    let (selection, found) = (&meant.selection, meant.counted.found);
    let begun = dead
        .begin_run(selection, by, note, args.plan(), at, found)
        .await?;
    for (other, letters) in &begun.shared {
        say(format_args!(
            "{} of r-{} as well, which {} began ({}): whichever comes first replays each",
            match letters {
                1 => "1 of these letters is".to_owned(),
                many => format!("{many} of these letters are"),
            },
            other.number,
            other.by,
            other.state.name()
        ));
    }
    let number = begun.run.number;
    match at {
        Some(at) => {
            if args.json {
                return print_json(&begun.run);
            }
            print(format_args!(
                "r-{number} begins at {}, when a worker of the group {} drives it: {}",
                time(at),
                dead.group(),
                count(found, "dead letter")
            ))
        }
        None => {
            say(format_args!(
                "r-{number} begins: {}",
                count(found, "dead letter")
            ));
            follow(dead, &begun.run, by, args.json, false).await
        }
    }
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

pub(super) async fn run(
    args: ReplayArgs,
    admin: &Admin,
    dead: &DeadLetters,
) -> Result<(), CommandError> {
    let meant = args.which.resolve(dead, "replay").await?;
    let mut run = Replayed::default();
    if meant.counted.expired > 0 {
        let expired = count(meant.counted.expired, "dead letter");
        say(format_args!(
            "{expired} had expired: what still has its deadline does not run, and is a dead letter again; take it away \
             by: dlq edit ID --set expires="
        ));
    }
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
        if let Some(to) = &args.to {
            send(&args, &meant, admin, to, &by).await?;
            return meant.all_there(dead, args.dry_run);
        }
        if args.is_a_run() {
            begin(&args, &meant, dead, &by).await?;
            return meant.all_there(dead, args.dry_run);
        }
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
    meant.all_there(dead, args.dry_run)
}
