//! A user's code that is run on what is stored: where it panics, that is said with the event's name, and no more is lost.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::failure::panic_message;

/// What `work` returns, or what it panicked with. What it has left half done is not to be used any more.
pub(super) fn catch_panic<T>(doing: &str, work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|panic| format!("{doing} it panicked: {}", panic_message(panic)))
}
