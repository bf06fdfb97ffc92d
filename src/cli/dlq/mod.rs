//! `dlq`: dead letters. One file a command; what they share is here: which letters are meant.

mod diff;
mod edit;
mod find;
mod groups;
mod list;
mod note;
mod paced;
mod purge;
mod replay;
mod runs;
mod select;
mod show;
mod stats;
mod undo;

pub(super) use select::confirm;

use clap::{Args, Subcommand};

use super::CommandError;
use crate::admin::Admin;
use crate::config::Settings;
use crate::handler::Registry;

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
    /// Show dead letters by what they have in common
    Groups(groups::GroupsArgs),
    /// Give dead letters back to their group, to be handled again
    Replay(replay::ReplayArgs),
    /// List the replays that are kept as runs
    Runs(runs::RunsArgs),
    /// Stop a run of replays, whoever drives it
    Stop(runs::RunArgs),
    /// Go on with a run of replays, whoever began it
    Resume(runs::RunArgs),
    /// Give a dead letter other values, which its handler can decode, before it is replayed
    Edit(edit::EditArgs),
    /// Show the last errors of a dead letter, and in what they differ
    Diff(diff::DiffArgs),
    /// Note something of a dead letter
    Note(note::NoteArgs),
    /// Keep a dead letter from being purged or dropped
    Hold(note::HoldArgs),
    /// Assign a dead letter to somebody
    Assign(note::AssignArgs),
    /// Delete dead letters
    Purge(purge::PurgeArgs),
    /// Bring back what `purge --undo-within` has deleted, or list what can be
    Undo(undo::UndoArgs),
}

/// `registry` makes the handlers, where the program has any and they are asked for.
pub(super) async fn run<Fut: Future<Output = Result<Registry, CommandError>>>(
    args: DlqArgs,
    settings: Settings,
    registry: Option<impl FnOnce(Settings) -> Fut>,
) -> Result<(), CommandError> {
    let mut admin = Admin::new(&settings)?;
    if let Some(group) = args.group {
        admin = admin.for_group(group)?;
    }
    // What can be seen is shown, and what can't is named.
    let dead = admin.dead_letters()?.leaving_out_unreachable();
    match args.command {
        DlqCommand::List(args) => list::run(args, &dead).await,
        DlqCommand::Show(args) => show::run(args, &dead).await,
        DlqCommand::Stats(args) => stats::run(args, &dead).await,
        DlqCommand::Replay(args) => replay::run(args, &admin, &dead).await,
        DlqCommand::Groups(args) => groups::run(args, &dead).await,
        DlqCommand::Runs(args) => runs::list(args, &dead).await,
        DlqCommand::Stop(args) => runs::stop(args, &dead).await,
        DlqCommand::Resume(args) => runs::resume(args, &dead).await,
        DlqCommand::Edit(args) => {
            let registry = match registry {
                Some(make) => Some(make(settings).await?),
                None => None,
            };
            edit::run(args, &admin, registry.as_ref()).await
        }
        DlqCommand::Diff(args) => diff::run(args, &dead).await,
        DlqCommand::Note(args) => note::note(args, &dead).await,
        DlqCommand::Hold(args) => note::hold(args, &dead).await,
        DlqCommand::Assign(args) => note::assign(args, &dead).await,
        DlqCommand::Purge(args) => purge::run(args, &dead).await,
        DlqCommand::Undo(args) => undo::run(args, &dead).await,
    }
}
