//! `run`: works until it is told to stop.

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::CommandError;
use super::terminal::say;
use crate::config::Settings;
use crate::handler::Registry;
use crate::worker::Worker;

#[derive(Args)]
pub(super) struct RunArgs {}

pub(super) async fn run(
    _: RunArgs,
    settings: Settings,
    registry: Registry,
) -> Result<(), CommandError> {
    let worker = Worker::new(settings, registry)?;
    let listen = |kind| {
        signal(kind)
            .map_err(|error| CommandError::failed(format!("can't listen to signals: {error}")))
    };
    let (mut terminate, mut interrupt) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let mut stop = Some(stop);
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            match stop.take() {
                Some(stop) => drop(stop),
                None => {
                    say(
                        "stopped at once by a second signal; other workers take over what was running",
                    );
                    std::process::exit(1);
                }
            }
        }
    });
    let summary = worker
        .run(async {
            let _ = stopped.await;
        })
        .await?;
    match summary.unsettled {
        0 => Ok(()),
        unsettled => Err(CommandError::failed(format!(
            "{unsettled} entries could not be settled before the end; other workers take them over"
        ))),
    }
}
