//! Which aggregate is meant, and what is said if there is none.

use clap::Args;

use super::super::CommandError;
use super::super::text::printable;
use crate::config::nearest;
use crate::error::{Error, ErrorKind, chain};
use crate::eventstore::{AggregateId, Kind, Registered};

/// Which aggregate is meant.
#[derive(Args)]
pub(super) struct IdArgs {
    /// The aggregate, such as order:o-1
    pub id: AggregateId,
}

/// The registered kind of this name.
pub(super) fn kind<'a>(kinds: &'a Registered, name: &str) -> Result<&'a Kind, CommandError> {
    kinds.kind(name).ok_or_else(|| {
        let names: Vec<&str> = kinds.kinds().map(|kind| kind.name).collect();
        CommandError::usage(format!(
            "no aggregates of the kind {name:?} are registered in this program{}",
            instead(name, &names)
        ))
    })
}

/// What else there is, the likeliest where one is likely.
pub(super) fn instead(word: &str, known: &[&str]) -> String {
    match nearest::of(word, known.iter().copied()) {
        Some(meant) => format!("; did you mean {meant}? there are: {}", known.join(", ")),
        None => format!("; there are: {}", known.join(", ")),
    }
}

/// An error that may quote what came from Redis.
pub(super) fn failed(error: &Error) -> CommandError {
    let message = printable(&chain(error)).to_string();
    match error.kind() {
        ErrorKind::Invalid => CommandError::usage(message),
        _ => CommandError::failed(message),
    }
}
