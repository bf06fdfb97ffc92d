//! `dlq note`, `dlq hold` and `dlq assign`: what is said of a dead letter, beside it.

use clap::Args;

use super::CommandError;
use super::find::find;
use crate::cli::terminal::print;
use crate::cli::text::{printable, whoami};
use crate::dead_letters::DeadLetters;

/// Which letter, and who says something of it.
#[derive(Args)]
struct Of {
    /// The letter's id, as `dlq list` shows it, or that of the entry or the event it is of
    id: String,
    /// The stream it is of, where the worker reads several
    #[arg(long)]
    stream: Option<String>,
    /// Who says it [default: user@host]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

#[derive(Args)]
pub(super) struct NoteArgs {
    #[command(flatten)]
    of: Of,
    /// What is to be noted, in place of the note before; "" for nothing
    text: String,
}

#[derive(Args)]
pub(super) struct HoldArgs {
    #[command(flatten)]
    of: Of,
    /// Why, for those who would purge it
    #[arg(long, value_name = "TEXT", conflicts_with = "release")]
    why: Option<String>,
    /// Hold it no longer
    #[arg(long)]
    release: bool,
}

#[derive(Args)]
pub(super) struct AssignArgs {
    #[command(flatten)]
    of: Of,
    /// Whom it is assigned to; "" for nobody
    to: String,
}

pub(super) async fn note(args: NoteArgs, dead: &DeadLetters) -> Result<(), CommandError> {
    let (stream, letter) = find(dead, args.of.stream.as_deref(), &args.of.id).await?;
    let by = args.of.by.unwrap_or_else(whoami);
    dead.note(&stream, letter.id, &by, &args.text).await?;
    let verb = if args.text.trim().is_empty() {
        "nothing noted of"
    } else {
        "noted of"
    };
    print(format_args!("{verb} {}", letter.id))
}

pub(super) async fn hold(args: HoldArgs, dead: &DeadLetters) -> Result<(), CommandError> {
    let (stream, letter) = find(dead, args.of.stream.as_deref(), &args.of.id).await?;
    if args.release {
        dead.release_hold(&stream, letter.id).await?;
        return print(format_args!("{} is held no longer", letter.id));
    }
    let by = args.of.by.unwrap_or_else(whoami);
    let why = args.why.unwrap_or_default();
    dead.hold(&stream, letter.id, &by, &why).await?;
    print(format_args!(
        "{} is held: neither purged nor dropped",
        letter.id
    ))
}

pub(super) async fn assign(args: AssignArgs, dead: &DeadLetters) -> Result<(), CommandError> {
    let (stream, letter) = find(dead, args.of.stream.as_deref(), &args.of.id).await?;
    let by = args.of.by.unwrap_or_else(whoami);
    dead.assign(&stream, letter.id, &by, &args.to).await?;
    match args.to.trim() {
        "" => print(format_args!("{} is assigned to nobody", letter.id)),
        to => print(format_args!(
            "{} is assigned to {}",
            letter.id,
            printable(to)
        )),
    }
}
