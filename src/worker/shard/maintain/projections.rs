//! The projections of a worker: they run beside its handlers and end with it.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::error::Result;
use crate::eventstore::projection::{Alone, Registered, Runner};
use crate::reconnect::{Complaint, Pause};
use crate::stream::Connector;

/// Projections that run.
pub(crate) struct Projections {
    stop: CancellationToken,
    running: JoinSet<()>,
}

impl Projections {
    /// Begins to run these projections for the worker `me`, on the caller's runtime.
    ///
    /// # Errors
    /// If the streams of one can be none.
    pub fn run(
        projections: Vec<Arc<Registered>>,
        settings: &Settings,
        connector: &Connector,
        me: &str,
    ) -> Result<Self> {
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        let alone = Alone::default();
        for projection in projections {
            let runner = Runner::new(projection, settings, connector, me, alone.clone())?;
            running.spawn(run(runner, connector.clone(), stop.clone()));
        }
        Ok(Projections { stop, running })
    }

    pub fn stop(&self) {
        self.stop.cancel();
    }

    pub async fn ended(mut self) {
        while let Some(ended) = self.running.join_next().await {
            if let Err(error) = ended {
                tracing::error!("a projection's runner failed: {error}");
            }
        }
    }
}

/// Runs it where its partitions are, once it is known whether that is a cluster.
async fn run(runner: Runner, connector: Connector, stop: CancellationToken) {
    let (mut pause, mut complaint) = (Pause::new(), Complaint::default());
    while let Err(error) = connector.learn().await {
        complaint.warn(error.to_string());
        tokio::select! {
            () = tokio::time::sleep(pause.next()) => {}
            () = stop.cancelled() => return,
        }
    }
    let mut parts = JoinSet::new();
    for runner in runner.by_slot() {
        parts.spawn(runner.run(stop.clone()));
    }
    while let Some(ended) = parts.join_next().await {
        if let Err(error) = ended {
            tracing::error!("a projection's runner failed: {error}");
        }
    }
}
