//! Where logs go: to standard error, readable, or as JSON for a collector. Nobody who logs waits for its reader.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal, Write};
use std::panic::{self, PanicHookInfo};

use tracing_subscriber::EnvFilter;

use super::CommandError;
use super::stderr::{self, Stderr};
use crate::failure::panic_text;

/// Sets logging up by `STREAMHAND_LOG` (a filter such as `info` or `streamhand=debug,warn`; `unless_set` where it is not
/// set) and `STREAMHAND_LOG_FORMAT` (`text` or `json`). `NO_COLOR` is heeded.
pub(super) fn set_up(unless_set: &str) -> Result<(), CommandError> {
    let filter = std::env::var("STREAMHAND_LOG").unwrap_or_else(|_| unless_set.to_owned());
    let filter = EnvFilter::try_new(&filter).map_err(|error| {
        CommandError::usage(format!(
            "STREAMHAND_LOG={filter}: {error}; write info, debug, warn …"
        ))
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Stderr);
    let format = std::env::var("STREAMHAND_LOG_FORMAT").unwrap_or_else(|_| "text".to_owned());
    // A second subscriber (a user's own) is not an error.
    let _ = match &format[..] {
        "text" => builder
            .with_target(false)
            .with_ansi(is_colourful())
            .try_init(),
        "json" => builder.json().flatten_event(true).try_init(),
        other => {
            let message = format!("STREAMHAND_LOG_FORMAT={other}: write text or json");
            return Err(CommandError::usage(message));
        }
    };
    say_panics();
    Ok(())
}

/// Whether what is written to standard error may be in colour.
pub(super) fn is_colourful() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !no_color
}

/// Has panics told by the thread that writes the log: the standard library's own hook waits for whoever reads standard
/// error, and so a handler that panics would stop its thread for as long as nobody does. A hook of the user's stays.
fn say_panics() {
    let present = panic::take_hook();
    let standard = panic::take_hook();
    if std::ptr::eq(&raw const *present, &raw const *standard) {
        panic::set_hook(Box::new(say_panic));
    } else {
        panic::set_hook(present);
    }
}

fn say_panic(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let place = info.location().map(|at| format!(" at {at}"));
    let message = panic_text(info.payload());
    let backtrace = Backtrace::capture();
    let trace = match backtrace.status() {
        BacktraceStatus::Captured => format!("\nstack backtrace:\n{backtrace}"),
        _ => String::new(),
    };
    let place = place.unwrap_or_default();
    let text = format!("\nthread '{name}' panicked{place}:\n{message}{trace}\n");
    // It never fails.
    let _ = Stderr.write_all(text.as_bytes());
    if cfg!(panic = "abort") || name == "main" {
        // The process ends with this.
        stderr::flush();
    }
}
