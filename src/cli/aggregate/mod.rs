//! `aggregate`: what is stored of aggregates whose kind is registered. One file a command; `meant.rs` is what they share.

mod append;
mod history;
mod meant;
mod show;
mod verify;

use clap::{Args, Subcommand};

use super::CommandError;
use crate::config::Settings;
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
