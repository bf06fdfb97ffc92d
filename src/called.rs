//! What the program is called, for whatever names one of its commands: a user's program has a name of its own.

use std::fmt::Display;
use std::sync::OnceLock;

static NAME: OnceLock<&str> = OnceLock::new();

/// Said once, when the program starts.
#[cfg(feature = "cli")]
pub(crate) fn is(name: &'static str) {
    let _ = NAME.set(name);
}

/// The program's name; the one of this library's own program if no program has said any.
pub(crate) fn program() -> &'static str {
    NAME.get().unwrap_or(&"streamhand")
}

/// A command as it is typed: the program's name and these words.
pub(crate) fn command(words: impl Display) -> String {
    format!("{} {words}", program())
}
