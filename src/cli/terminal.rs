//! How commands speak: data to standard output, progress to standard error.

use std::fmt::Write;
use std::io;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::CommandError;

/// Writes a line of data to standard output.
///
/// # Errors
/// Where it can't be written. The command that ends with this error ends well and says nothing, if that is because
/// nobody reads any more (`| head`).
pub fn print(line: impl std::fmt::Display) -> Result<(), CommandError> {
    io::Write::write_fmt(&mut io::stdout().lock(), format_args!("{line}\n")).map_err(closed)
}

/// Says something on standard error, to whoever listens.
pub(super) fn say(line: impl std::fmt::Display) {
    let _ = io::Write::write_fmt(&mut io::stderr().lock(), format_args!("{line}\n"));
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
        Some(_) => "{bar:30} {pos}/{len} WHAT, {pace}, {eta} left {msg}",
        None => "{spinner} {pos} WHAT, {pace} {msg}",
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
    let style = ProgressStyle::with_template(template).expect("the template is right");
    bar.with_style(
        style.with_key("pace", |state: &ProgressState, to: &mut dyn Write| {
            // A bar that can't be drawn is not drawn.
            let _ = write!(to, "{:.0}/s", state.per_sec());
        }),
    )
}
