//! Where logs go: to standard error, readable, or as JSON for a collector.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::CommandError;

/// Sets logging up by `STREAMHAND_LOG` (a filter such as `info` or `streamhand=debug,warn`; `default` where it is not
/// set) and `STREAMHAND_LOG_FORMAT` (`text` or `json`). `NO_COLOR` is heeded.
pub(super) fn set_up(default: &str) -> Result<(), CommandError> {
    let filter = std::env::var("STREAMHAND_LOG").unwrap_or_else(|_| default.to_owned());
    let filter = EnvFilter::try_new(&filter).map_err(|error| {
        CommandError::usage(format!(
            "STREAMHAND_LOG={filter}: {error}; write info, debug, warn …"
        ))
    })?;
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let format = std::env::var("STREAMHAND_LOG_FORMAT").unwrap_or_else(|_| "text".to_owned());
    // A second subscriber (a user's own) is not an error.
    let _ = match &format[..] {
        "text" => builder
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal() && !no_color)
            .try_init(),
        "json" => builder.json().flatten_event(true).try_init(),
        other => {
            let message = format!("STREAMHAND_LOG_FORMAT={other}: write text or json");
            return Err(CommandError::usage(message));
        }
    };
    Ok(())
}
