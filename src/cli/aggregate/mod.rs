//! `aggregate`: what is stored of aggregates whose kind is registered. One file a command; what they share is here:
//! which kind is meant.

mod append;
mod history;
mod show;
mod verify;

use clap::{Args, Subcommand};

use super::CommandError;
use super::text::printable;
use crate::config::{Settings, nearest};
use crate::error::{Error, ErrorKind, chain};
use crate::eventstore::{AggregateId, Kind, Registered};
use crate::handler::Registry;

#[derive(Args)]
pub(super) struct AggregateArgs {
    #[command(subcommand)]
    command: AggregateCommand,
}

#[derive(Subcommand)]
enum AggregateCommand {
    /// Show the state that an aggregate's events add up to, as JSON
    Show(show::ShowArgs),
    /// List an aggregate's events, the oldest first
    History(history::HistoryArgs),
    /// Append an event to an aggregate, and publish it
    Append(append::AppendArgs),
    /// Look for what must not be: missing events, unreadable ones, snapshots that disagree
    Verify(verify::VerifyArgs),
}

/// Which aggregate is meant.
#[derive(Args)]
struct IdArgs {
    /// The aggregate, such as order:o-1
    id: AggregateId,
}

pub(super) async fn run(
    args: AggregateArgs,
    settings: Settings,
    registry: &Registry,
) -> Result<(), CommandError> {
    registry.check()?;
    let kinds = registry.aggregates();
    if kinds.kinds().next().is_none() {
        return Err(CommandError::usage(
            "this program knows no aggregates: register them, as in Registry::new().aggregate::<Order>()",
        ));
    }
    kinds.check_group(&settings.worker)?;
    match args.command {
        AggregateCommand::Show(args) => show::run(args, &settings, kinds).await,
        AggregateCommand::History(args) => history::run(args, &settings, kinds).await,
        AggregateCommand::Append(args) => append::run(args, &settings, kinds).await,
        AggregateCommand::Verify(args) => verify::run(args, &settings, kinds).await,
    }
}

/// The registered kind of this name.
fn kind<'a>(kinds: &'a Registered, name: &str) -> Result<&'a Kind, CommandError> {
    kinds.kind(name).ok_or_else(|| {
        let names: Vec<&str> = kinds.kinds().map(|kind| kind.name).collect();
        CommandError::usage(format!(
            "no aggregates of the kind {name:?} are registered in this program{}",
            instead(name, &names)
        ))
    })
}

/// What else there is, the likeliest where one is likely.
fn instead(word: &str, known: &[&str]) -> String {
    match nearest::of(word, known.iter().copied()) {
        Some(meant) => format!("; did you mean {meant}? there are: {}", known.join(", ")),
        None => format!("; there are: {}", known.join(", ")),
    }
}

/// An error that may quote what came from Redis.
fn failed(error: &Error) -> CommandError {
    let message = printable(&chain(error)).to_string();
    match error.kind() {
        ErrorKind::Invalid => CommandError::usage(message),
        _ => CommandError::failed(message),
    }
}
