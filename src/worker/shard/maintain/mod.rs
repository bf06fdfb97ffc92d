//! Keeps things as they should be: leases, due events, the length of streams, what others have broken.

mod breaker_report;
pub(crate) mod crons;
mod lease_renewer;
mod orders;
mod ownership;
mod permits;
pub(crate) mod projections;
pub(crate) mod pulse;
mod relay;
mod repair;
mod replays;
mod scheduler;
mod spread;
mod trimmer;

use std::sync::Arc;

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::unit::Shard;
use crate::config::Settings;
use crate::handler::Cron;
use crate::policy::Breakers;
use crate::worker::state::held::Held;
use crate::worker::state::slots::Slots;
use breaker_report::BreakerReport;
use lease_renewer::LeaseRenewer;
use orders::Orders;
use ownership::{Owner, Ownership};
use permits::Permits;
use pulse::{Pulses, Told, Watched};
use relay::Relay;
use repair::Repair;
use replays::Replays;
use scheduler::Scheduler;
use trimmer::Trimmer;

/// All that keeps things as they should be, but for projections, which run with the handlers.
pub(crate) struct Maintenance {
    lease_renewer: LeaseRenewer,
    repair: Repair,
    breaker_report: BreakerReport,
    scheduler: Scheduler,
    ownership: Ownership,
    relay: Relay,
    /// What a worker does once, however many shards it has.
    once: Option<(Orders, Permits, Pulses)>,
}

/// All of that, at work until it is dropped.
pub(crate) struct Maintaining {
    /// Ends with this.
    _running: JoinSet<()>,
    pulsing: Option<JoinHandle<()>>,
    end: CancellationToken,
}

impl Maintenance {
    /// That of one shard. Each cron comes with the stream on whose schedule its occurrences stand.
    pub fn new(
        shard: &Shard,
        settings: &Settings,
        breakers: &Arc<Breakers>,
        crons: &Arc<[(String, Arc<Cron>)]>,
    ) -> Self {
        let identity = || shard.identity.clone();
        let signals = || shard.signals.clone();
        let sources = || shard.sources.clone();
        let links = || shard.links.clone();
        let (inflight, health) = (shard.inflight.clone(), shard.health.clone());
        let (counts, clock) = (shard.counts.clone(), shard.clock.clone());
        let ownership = Ownership::new(
            Owner {
                identity: identity(),
                signals: signals(),
                sources: sources(),
                inflight: inflight.clone(),
                health: health.clone(),
                clock: clock.clone(),
            },
            shard.orderer.clone(),
            links(),
        );
        let lease_renewer = LeaseRenewer::new(
            identity(),
            signals(),
            sources(),
            inflight,
            health,
            counts,
            links(),
        );
        let replays = Replays::new(identity(), signals(), links());
        let trimmer = Trimmer::new(identity(), signals(), sources(), clock, replays, settings);
        let streams = settings.streams_of(&settings.worker.streams);
        let is_home = has_first(shard, &streams);
        let breakers = breakers.clone();
        Maintenance {
            lease_renewer,
            repair: Repair::new(identity(), signals(), sources(), links(), trimmer),
            breaker_report: BreakerReport::new(
                identity(),
                signals(),
                sources(),
                links(),
                breakers,
                is_home,
            ),
            scheduler: Scheduler::new(signals(), sources(), links(), crons.clone()),
            ownership,
            relay: Relay::new(identity(), signals(), sources(), links()),
            once: None,
        }
    }

    /// The same with what a worker does once for all its shards. What the pulse tells beside what they know is in `told`.
    pub fn once(
        mut self,
        shards: &[Arc<Shard>],
        held: &Arc<Held>,
        settings: &Settings,
        breakers: &Arc<Breakers>,
        slots: &Arc<Slots>,
        told: Told,
    ) -> Self {
        let shard = &shards[0];
        let watched = Watched {
            identity: shard.identity.clone(),
            signals: shards.iter().map(|shard| shard.signals.clone()).collect(),
            held: held.clone(),
            heard: shard.heard.clone(),
            breakers: breakers.clone(),
            slots: slots.clone(),
        };
        let orders = Orders::new(
            watched.identity.clone(),
            shard.signals.clone(),
            held.clone(),
            watched.heard.clone(),
            slots.clone(),
        );
        let types = shard.routes.all().iter();
        let types = types.map(|bound| bound.gate.name.clone()).collect();
        let pulses = Pulses::new(watched, &shard.links, types, settings, told);
        let permits = Permits::new(
            shard.identity.clone(),
            shard.signals.clone(),
            shard.routes.clone(),
            &shard.links,
            settings.worker.lease,
        );
        self.once = Some((orders, permits, pulses));
        self
    }

    /// Begins, on the runtime that this is called on. It ends when what is returned is dropped, and by
    /// [`Maintaining::end`].
    pub fn spawn(self) -> Maintaining {
        let mut running = JoinSet::new();
        running.spawn(self.lease_renewer.run());
        running.spawn(self.repair.run());
        running.spawn(self.breaker_report.run());
        running.spawn(self.scheduler.run());
        running.spawn(self.ownership.run());
        running.spawn(self.relay.run());
        let end = CancellationToken::new();
        let pulsing = self.once.map(|(orders, permits, pulses)| {
            running.spawn(orders.run());
            running.spawn(permits.run());
            tokio::spawn(pulses.run(end.clone()))
        });
        Maintaining {
            _running: running,
            pulsing,
            end,
        }
    }
}

impl Maintaining {
    /// Ends it, with a last pulse: what was counted since the one before is not to be lost.
    pub async fn end(mut self) {
        self.end.cancel();
        if let Some(pulsing) = &mut self.pulsing {
            let _ = pulsing.await;
        }
    }
}

/// Whether a shard has the stream by which workers agree: the same for all that read the same ones.
fn has_first(shard: &Shard, streams: &[String]) -> bool {
    let first = streams.iter().min();
    let named = shard.sources.named();
    let mut streams = named.iter().map(|source| &source.keys.stream);
    streams.any(|stream| Some(stream) == first)
}

impl Drop for Maintaining {
    fn drop(&mut self) {
        if let Some(pulsing) = &self.pulsing {
            pulsing.abort();
        }
    }
}
