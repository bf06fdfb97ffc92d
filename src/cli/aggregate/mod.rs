//! `aggregate`: what is stored of aggregates whose kind is registered. One file a command; `meant.rs` is what they share.

mod append;
mod history;
mod meant;
mod show;
mod verify;

use clap::{Args, Subcommand};

use super::CommandError;
use crate::admin::Admin;
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
    let aggregates = Admin::new(&settings)?.aggregates(registry)?;
    match args.command {
        AggregateCommand::Show(args) => show::run(args, &aggregates).await,
        AggregateCommand::History(args) => history::run(args, &aggregates).await,
        AggregateCommand::Append(args) => append::run(args, &aggregates).await,
        AggregateCommand::Verify(args) => verify::run(args, &aggregates).await,
    }
}
