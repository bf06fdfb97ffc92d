//! What the parts that speak to one server are made from.

use std::sync::Arc;

use super::clock::ServerClock;
use super::health::ServerHealth;
use super::links::Links;
use crate::config::Settings;
use crate::policy::Breakers;
use crate::stream::Connector;
use crate::worker::observer::Observer;
use crate::worker::run::routes::Routes;
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::Inflight;
use crate::worker::state::inline::Inline;
use crate::worker::state::precedence::Precedence;
use crate::worker::state::quarantine::Quarantine;
use crate::worker::state::recent_acks::RecentAcks;
use crate::worker::state::signals::Signals;
use crate::worker::state::slots::Slots;
use crate::worker::state::source::Sources;
use crate::worker::watchdog::LOOK;

/// The state of a worker, and what it has of one server. Each part takes what it uses.
pub(crate) struct Shard {
    pub identity: Arc<Identity>,
    pub signals: Arc<Signals>,
    pub sources: Arc<Sources>,
    pub inflight: Arc<Inflight>,
    pub recent_acks: Arc<RecentAcks>,
    pub quarantine: Arc<Quarantine>,
    pub precedence: Arc<Precedence>,
    pub inline: Arc<Inline>,
    pub slots: Arc<Slots>,
    pub routes: Arc<Routes>,
    pub breakers: Arc<Breakers>,
    pub observer: Option<Arc<dyn Observer>>,
    pub links: Arc<Links>,
    pub health: Arc<ServerHealth>,
    pub clock: Arc<ServerClock>,
    pub prefetch: usize,
    /// How many attempts there are at most,
    pub attempts: u32,
    /// and of the types that have a number of their own.
    pub attempts_of: Vec<(String, u32)>,
}

impl Shard {
    pub fn new(
        settings: &Settings,
        connector: Connector,
        sources: Sources,
        observer: Option<Arc<dyn Observer>>,
        routes: Routes,
        breakers: Arc<Breakers>,
    ) -> Self {
        let attempts_of = settings.handlers.keys().map(|event_type| {
            let policy = settings.policy(event_type);
            (event_type.clone(), policy.max_attempts)
        });
        let identity = Arc::new(Identity::new(settings));
        let signals = Arc::<Signals>::default();
        let quarantine = Arc::<Quarantine>::default();
        let inflight = Arc::new(Inflight::new(quarantine.clone(), signals.clone()));
        let recent_acks = Arc::<RecentAcks>::default();
        Shard {
            links: Arc::new(Links::new(
                connector,
                identity.clone(),
                signals.clone(),
                inflight.clone(),
                recent_acks.clone(),
            )),
            health: Arc::new(ServerHealth::new(identity.lease)),
            clock: Arc::new(ServerClock::new()),
            identity,
            signals,
            sources: Arc::new(sources),
            inflight,
            recent_acks,
            quarantine,
            precedence: Arc::default(),
            inline: Arc::new(Inline::new(2 * LOOK)),
            slots: Arc::new(Slots::new(settings.worker.concurrency)),
            routes: Arc::new(routes),
            breakers,
            observer,
            prefetch: settings.worker.prefetch,
            attempts: settings.retry.max_attempts,
            attempts_of: attempts_of.collect(),
        }
    }
}
