//! `limit`: how often a handler may start, and how many of it may run, in the whole group from now on.

use clap::Args;

use super::CommandError;
use super::terminal::{print, print_json, say};
use super::text::{table, time, whoami};
use crate::admin::{Admin, LimitRequest, StandingLimit};
use crate::called;
use crate::config::{Rate, Settings};
use crate::names::shown;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LimitArgs {
    /// The handler, by its event type; or "list" for all that is set
    #[arg(value_name = "TYPE")]
    handler: String,
    /// It starts so often at most: 50/s, 30/m, 5/10s
    #[arg(long, value_name = "RATE", value_parser = rate, conflicts_with = "clear")]
    rate: Option<Rate>,
    /// So many of it run at once at most
    #[arg(long, value_name = "NUMBER", conflicts_with = "clear")]
    concurrency: Option<usize>,
    /// Its limits are as configured again
    #[arg(long)]
    clear: bool,
    /// The group that is meant [default: worker.group]
    #[arg(long)]
    pub(super) group: Option<String>,
    /// Who does this, for status to tell [default: user@host]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  streamhand limit order.created --rate 50/s
  streamhand limit order.created --concurrency 8
  streamhand limit order.created --clear
  streamhand limit list";

pub(super) async fn run(args: LimitArgs, settings: Settings) -> Result<(), CommandError> {
    let mut admin = Admin::new(&settings)?;
    if let Some(group) = &args.group {
        admin = admin.for_group(group)?;
    }
    if args.handler == "list" {
        if args.rate.is_some() || args.concurrency.is_some() || args.clear {
            return Err(CommandError::usage(
                "list shows what is set: name the event type that is to be limited".to_owned(),
            ));
        }
        return list(&admin, args.json).await;
    }
    let handler = &args.handler;
    if args.clear {
        let had = admin.clear_limit(handler).await?;
        let group = admin.group();
        return match had {
            true => print(format!(
                "{handler}: as configured again, for all workers of {group}"
            )),
            false => print(format!(
                "{handler}: as configured already; {} shows what is set",
                called::command("limit list")
            )),
        };
    }
    if args.rate.is_none() && args.concurrency.is_none() {
        return Err(CommandError::usage(
            "no limit: add --rate 50/s, --concurrency 8, or --clear for what is configured"
                .to_owned(),
        ));
    }
    let mut request = LimitRequest::of(handler, args.by.unwrap_or_else(whoami));
    if let Some(rate) = args.rate {
        request = request.rate(rate);
    }
    if let Some(concurrency) = args.concurrency {
        request = request.concurrency(concurrency);
    }
    let set = admin.limit(request).await?;
    if args.json {
        return print_json(&set);
    }
    print(format!(
        "{handler}: {set} in all of {}, until it is cleared",
        admin.group()
    ))
}

async fn list(admin: &Admin, json: bool) -> Result<(), CommandError> {
    let limits = admin.limits().await?;
    if json {
        return print_json(&limits);
    }
    if limits.is_empty() {
        say(format_args!(
            "no limits of {} are set: all are as configured",
            admin.group()
        ));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = limits.iter().map(row).collect();
    print(table(&["TYPE", "LIMIT", "BY", "SINCE"], &[], &rows))
}

fn row(limit: &StandingLimit) -> Vec<String> {
    let (handler, by) = (shown(&limit.handler), shown(&limit.by));
    vec![
        handler.to_string(),
        limit.to_string(),
        by.to_string(),
        time(limit.since),
    ]
}

fn rate(text: &str) -> Result<Rate, String> {
    Rate::parse(text)
}
