//! Drives runs of replays that nobody else drives: those whose time has come, and those whose driver died. Nobody asks Redis
//! for them: the step that drops dead letters, once a minute, says of one besides.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::dead_letters::DeadLetters;
use crate::error::Result;
use crate::worker::shard::links::Links;
use crate::worker::state::identity::Identity;
use crate::worker::state::signals::Signals;

/// Connections of one run: it asks one thing at a time.
const CONNECTIONS: usize = 1;

/// Runs that this worker drives.
pub(super) struct Replays {
    identity: Arc<Identity>,
    signals: Arc<Signals>,
    links: Arc<Links>,
    /// Ends with this.
    driving: JoinSet<()>,
}

impl Replays {
    pub fn new(identity: Arc<Identity>, signals: Arc<Signals>, links: Arc<Links>) -> Self {
        Replays {
            identity,
            signals,
            links,
            driving: JoinSet::new(),
        }
    }

    /// Drives a run of a stream until it is over, stopped, or this worker stops: then others go on with it.
    pub fn drive(&mut self, stream: &str, number: u64) {
        while self.driving.try_join_next().is_some() {}
        let dead = match self.dead_letters(stream) {
            Ok(dead) => dead,
            Err(error) => {
                tracing::debug!("{error}");
                return;
            }
        };
        let (stream, signals) = (stream.to_owned(), self.signals.clone());
        let driver = self.identity.name.clone();
        self.driving.spawn(async move {
            let driven = tokio::select! {
                driven = dead.drive_undriven(&stream, number, &driver) => driven,
                () = signals.stopped() => return,
            };
            match driven {
                Ok(Some(run)) => tracing::info!(
                    stream,
                    run = format_args!("r-{number}"),
                    state = run.state.name(),
                    replayed = run.replayed,
                    succeeded = run.succeeded,
                    died = run.died,
                    "drove a run of replays: {}",
                    run.why
                ),
                // Another was faster.
                Ok(None) => {}
                // Whoever looks next goes on with it.
                Err(error) => tracing::debug!("{error}"),
            }
        });
    }

    fn dead_letters(&self, stream: &str) -> Result<DeadLetters> {
        let pool = || self.links.connector.pool(CONNECTIONS);
        DeadLetters::at(pool, &self.identity.group, [stream])
    }
}
