//! What is still handed to every part of a worker together. Goes once each takes what it uses.

use std::sync::Arc;

use super::identity::Identity;
use super::inflight::Inflight;
use super::inline::Inline;
use super::precedence::Precedence;
use super::quarantine::Quarantine;
use super::recent_acks::RecentAcks;
use super::signals::Signals;
use super::slots::Slots;
use super::source::Sources;
use crate::config::Settings;
use crate::policy::Breakers;
use crate::stream::Connector;
use crate::worker::observer::Observer;
use crate::worker::run::routes::Routes;
use crate::worker::shard::clock::ServerClock;
use crate::worker::shard::health::ServerHealth;
use crate::worker::shard::links::Links;

/// The parts' parts.
pub(crate) struct Shared {
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
    /// The fewest attempts any handler has.
    pub least_attempts: u32,
}

impl Shared {
    pub fn new(
        settings: &Settings,
        connector: Connector,
        sources: Sources,
        observer: Option<Arc<dyn Observer>>,
        routes: Routes,
        breakers: Arc<Breakers>,
    ) -> Self {
        let policies = settings
            .handlers
            .keys()
            .map(|event_type| settings.policy(event_type));
        let least_attempts = policies
            .map(|policy| policy.max_attempts)
            .fold(settings.retry.max_attempts, u32::min);
        let identity = Arc::new(Identity::new(settings));
        let signals = Arc::<Signals>::default();
        let quarantine = Arc::<Quarantine>::default();
        let inflight = Arc::new(Inflight::new(quarantine.clone(), signals.clone()));
        let recent_acks = Arc::<RecentAcks>::default();
        Shared {
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
            inline: Arc::new(Inline::new()),
            slots: Arc::new(Slots::new(settings.worker.concurrency)),
            routes: Arc::new(routes),
            breakers,
            observer,
            prefetch: settings.worker.prefetch,
            least_attempts,
        }
    }
}
