//! What the parts that speak to one server are made from.

use std::sync::Arc;

use super::clock::ServerClock;
use super::health::ServerHealth;
use super::links::Links;
use crate::config::Settings;
use crate::metrics::entries::WorkerCounts;
use crate::stream::Connector;
use crate::worker::run::routes::Routes;
use crate::worker::state::heard::Heard;
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::Inflight;
use crate::worker::state::quarantine::Quarantine;
use crate::worker::state::recent_acks::RecentAcks;
use crate::worker::state::signals::Signals;
use crate::worker::state::source::Sources;

/// The state of a worker, and what it has of one server. Each part is made from this, and keeps what it uses.
pub(crate) struct Shard {
    pub identity: Arc<Identity>,
    pub signals: Arc<Signals>,
    pub sources: Arc<Sources>,
    pub inflight: Arc<Inflight>,
    pub recent_acks: Arc<RecentAcks>,
    pub routes: Arc<Routes>,
    /// What operators ask of this worker.
    pub heard: Arc<Heard>,
    /// What is counted, if it is.
    pub counts: Option<Arc<WorkerCounts>>,
    pub links: Arc<Links>,
    pub health: Arc<ServerHealth>,
    pub clock: Arc<ServerClock>,
}

impl Shard {
    pub fn new(
        settings: &Settings,
        connector: Connector,
        sources: Sources,
        routes: Routes,
        quarantine: Arc<Quarantine>,
        counts: Option<Arc<WorkerCounts>>,
    ) -> Self {
        let identity = Arc::new(Identity::new(settings));
        let signals = Arc::<Signals>::default();
        let inflight = Arc::new(Inflight::new(quarantine, signals.clone()));
        let recent_acks = Arc::<RecentAcks>::default();
        let server_began_ms = counts
            .as_ref()
            .map(|counts| counts.server_began_ms().clone());
        let server_began_ms = server_began_ms.unwrap_or_default();
        Shard {
            links: Arc::new(Links::new(
                connector,
                identity.clone(),
                signals.clone(),
                inflight.clone(),
                recent_acks.clone(),
            )),
            health: Arc::new(ServerHealth::new(identity.lease)),
            clock: Arc::new(ServerClock::new(server_began_ms)),
            identity,
            signals,
            sources: Arc::new(sources),
            inflight,
            recent_acks,
            routes: Arc::new(routes),
            heard: Arc::default(),
            counts,
        }
    }
}
