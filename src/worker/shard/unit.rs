//! What the parts that speak to one server are made from.

use std::sync::{Arc, RwLock};

use super::clock::ServerClock;
use super::health::ServerHealth;
use super::links::Links;
use crate::metrics::entries::WorkerCounts;
use crate::stream::Connector;
use crate::sync::{read, write};
use crate::worker::run::orderer::Orderer;
use crate::worker::run::routes::Routes;
use crate::worker::state::capacity::Capacity;
use crate::worker::state::heard::Heard;
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::Inflight;
use crate::worker::state::recent_acks::RecentAcks;
use crate::worker::state::signals::Signals;
use crate::worker::state::source::{Source, Sources};

/// What all shards of a worker have in common.
pub(crate) struct Common {
    pub identity: Arc<Identity>,
    pub routes: Arc<Routes>,
    /// What operators ask of this worker.
    pub heard: Arc<Heard>,
    /// What is counted, if it is.
    pub counts: Option<Arc<WorkerCounts>>,
    pub capacity: Capacity,
}

/// What a worker has of one server, and what it has in common with the other shards. The parts are made from this, and each
/// is given what it uses.
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
    /// What keeps events in order, if any stream's have one.
    pub orderer: Option<Arc<Orderer>>,
    pub links: Arc<Links>,
    pub health: Arc<ServerHealth>,
    pub clock: Arc<ServerClock>,
}

/// The shards of a worker. On a cluster more come when a topic grows.
#[derive(Default)]
pub(crate) struct Shards(RwLock<Vec<Arc<Shard>>>);

impl Shards {
    /// This one comes as well.
    pub fn add(&self, shard: Arc<Shard>) {
        write(&self.0).push(shard);
    }

    pub fn all(&self) -> Vec<Arc<Shard>> {
        read(&self.0).clone()
    }

    /// The streams of all of them.
    pub fn sources(&self) -> Vec<Arc<Source>> {
        let all = self.all();
        let named = all.iter().map(|shard| shard.sources.named());
        named.flat_map(|named| named.to_vec()).collect()
    }

    /// What all of them hold.
    pub fn inflights(&self) -> Vec<Arc<Inflight>> {
        let all = read(&self.0);
        all.iter().map(|shard| shard.inflight.clone()).collect()
    }
}

impl Common {
    pub fn new(
        identity: Arc<Identity>,
        routes: Routes,
        capacity: Capacity,
        counts: Option<Arc<WorkerCounts>>,
    ) -> Self {
        Common {
            identity,
            routes: Arc::new(routes),
            heard: Arc::default(),
            counts,
            capacity,
        }
    }
}

impl Shard {
    /// The one that reads these sources, by a connector that leads to them.
    pub fn new(
        common: &Common,
        connector: Connector,
        sources: Sources,
        signals: Arc<Signals>,
        orderer: Option<Arc<Orderer>>,
    ) -> Self {
        let identity = &common.identity;
        let inflight = Arc::new(Inflight::new(
            common.capacity.quarantine.clone(),
            signals.clone(),
        ));
        let recent_acks = Arc::<RecentAcks>::default();
        let counts = common.counts.as_ref();
        let server_began_ms = counts.map(|counts| counts.server_began_ms().clone());
        let clock = Arc::new(ServerClock::new(server_began_ms.unwrap_or_default()));
        let told = clock.clone();
        inflight.tells_time(move || told.get().now());
        Shard {
            links: Arc::new(Links::new(
                connector,
                identity.clone(),
                signals.clone(),
                inflight.clone(),
                recent_acks.clone(),
            )),
            orderer,
            health: Arc::new(ServerHealth::new(identity.lease)),
            clock,
            identity: identity.clone(),
            signals,
            sources: Arc::new(sources),
            inflight,
            recent_acks,
            routes: common.routes.clone(),
            heard: common.heard.clone(),
            counts: common.counts.clone(),
        }
    }
}
