//! How commands speak: data to standard output, progress to standard error.

use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressStyle};

use super::CommandError;

/// Writes a line of data to standard output.
pub(super) fn print(line: impl std::fmt::Display) -> Result<(), CommandError> {
    writeln!(io::stdout().lock(), "{line}").map_err(closed)
}

/// What a write to standard output means that failed: whoever read it has had enough, or the disk is full.
pub(super) fn closed(error: io::Error) -> CommandError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return CommandError::unheard();
    }
    CommandError::failed(format!("can't write to standard output: {error}"))
}

/// A progress bar over `total` of `what`, or a mere count where the total is not known. It is drawn only on a
/// terminal.
pub(super) fn progress(total: Option<u64>, what: &str) -> ProgressBar {
    let template = match total {
        Some(_) => "{bar:30} {pos}/{len} WHAT, {per_sec}, {eta} left {msg}",
        None => "{spinner} {pos} WHAT, {per_sec} {msg}",
    };
    bar(total, &template.replace("WHAT", what))
}

/// A progress bar over the bytes of a file.
pub(super) fn byte_progress(bytes: u64) -> ProgressBar {
    bar(
        Some(bytes),
        "{bar:30} {binary_bytes}/{binary_total_bytes}, {eta} left {msg}",
    )
}

fn bar(total: Option<u64>, template: &str) -> ProgressBar {
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is right"))
}
