//! What the program is called, for messages that name one of its commands: a user's program has a name of its own.

use std::fmt::Display;
use std::sync::OnceLock;

static NAME: OnceLock<&str> = OnceLock::new();

/// Said once, when the program starts.
pub(super) fn is(name: &'static str) {
    let _ = NAME.set(name);
}

/// A command as it is typed: the program's name and these words.
pub(super) fn command(words: impl Display) -> String {
    format!("{} {words}", NAME.get().unwrap_or(&"streamhand"))
}
