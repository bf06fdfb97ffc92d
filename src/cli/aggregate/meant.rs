//! Which aggregate is meant, and what is said if something is wrong with it.

use clap::Args;

use super::super::CommandError;
use super::super::text::printable;
use crate::error::{Error, ErrorKind, chain};
use crate::eventstore::AggregateId;

/// Which aggregate is meant.
#[derive(Args)]
pub(super) struct IdArgs {
    /// The aggregate, such as order:o-1
    pub id: AggregateId,
}

/// An error that may quote what came from Redis.
pub(super) fn failed(error: &Error) -> CommandError {
    let message = printable(&chain(error)).to_string();
    match error.kind() {
        ErrorKind::Invalid => CommandError::usage(message),
        _ => CommandError::failed(message),
    }
}
