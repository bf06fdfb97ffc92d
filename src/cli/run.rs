//! `run`: works until it is told to stop.

use clap::Args;

use super::{CommandError, told_to_stop};
use crate::config::Settings;
use crate::handler::Registry;
use crate::worker::Worker;

#[derive(Args)]
pub(super) struct RunArgs {}

/// What a program has to say that has nothing to run.
pub(super) fn no_handlers() -> CommandError {
    CommandError::usage(
        "this program has no handlers, so it would take no event: workers are programs of your own, \
         made with the crate streamhand: `fn main() -> ExitCode { streamhand::cli::run(Registry::new().on(handler)) }`; \
         its README has one that takes five minutes",
    )
}

pub(super) async fn run(
    _: RunArgs,
    settings: Settings,
    registry: Registry,
) -> Result<(), CommandError> {
    let worker = Worker::new(settings, registry)?;
    let stop = told_to_stop("; other workers take over what was running")?;
    let summary = worker.run(stop).await?;
    match summary.unsettled {
        0 => Ok(()),
        unsettled => Err(CommandError::failed(format!(
            "{unsettled} entries could not be settled before the end; other workers take them over"
        ))),
    }
}
