//! Streams that can't be looked at, as all commands say it: those of the others are shown all the same.

use super::CommandError;
use super::terminal::say;
use crate::dead_letters::DeadLetters;

/// Says on standard error that a stream is not in what is shown.
pub(super) fn say_away(stream: &str, error: impl std::fmt::Display) {
    say(format_args!(
        "warning: {stream}: can't be looked at: {error}"
    ));
}

/// Says which streams' dead letters are not in what is shown.
pub(super) fn say_left_out(dead: &DeadLetters) {
    for left_out in dead.left_out() {
        say_away(&left_out.stream, left_out.error);
    }
}

/// Fails if something was to be done with all letters, and was not with some; said last.
pub(super) fn none_left_out(dead: &DeadLetters) -> Result<(), CommandError> {
    let streams: Vec<String> = dead.left_out().into_iter().map(|out| out.stream).collect();
    match streams.is_empty() {
        true => Ok(()),
        false => Err(CommandError::failed(format!(
            "the dead letters of {} were left out: run it again once their node is back",
            streams.join(", ")
        ))),
    }
}
