//! `dlq`: dead letters. One file a command; what they share is here: which letters are meant.

mod list;
mod purge;
mod replay;
mod select;
mod show;
mod stats;
mod undo;

use clap::{Args, Subcommand};

use super::CommandError;
use crate::admin::Admin;
use crate::config::Settings;

#[derive(Args)]
pub(super) struct DlqArgs {
    /// The group whose dead letters are meant [default: worker.group]
    #[arg(long, global = true)]
    pub(super) group: Option<String>,
    #[command(subcommand)]
    command: DlqCommand,
}

#[derive(Subcommand)]
enum DlqCommand {
    /// List dead letters, the oldest first
    List(list::ListArgs),
    /// Show all of one dead letter
    Show(show::ShowArgs),
    /// Count dead letters by stream, type and reason
    Stats(stats::StatsArgs),
    /// Give dead letters back to their group, to be handled again
    Replay(replay::ReplayArgs),
    /// Delete dead letters
    Purge(purge::PurgeArgs),
    /// Bring back what `purge --undo-within` has deleted, or list what can be
    Undo(undo::UndoArgs),
}

pub(super) async fn run(args: DlqArgs, settings: Settings) -> Result<(), CommandError> {
    let mut admin = Admin::new(&settings)?;
    if let Some(group) = args.group {
        admin = admin.for_group(group)?;
    }
    let dead = admin.dead_letters()?;
    match args.command {
        DlqCommand::List(args) => list::run(args, &dead).await,
        DlqCommand::Show(args) => show::run(args, &dead).await,
        DlqCommand::Stats(args) => stats::run(args, &dead).await,
        DlqCommand::Replay(args) => replay::run(args, &dead).await,
        DlqCommand::Purge(args) => purge::run(args, &dead).await,
        DlqCommand::Undo(args) => undo::run(args, &dead).await,
    }
}
