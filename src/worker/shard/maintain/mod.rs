//! Keeps things as they should be: leases, due events, the length of streams, what others have broken.

mod breaker_report;
mod lease_renewer;
mod orders;
pub(crate) mod projections;
pub(crate) mod pulse;
mod relay;
mod repair;
mod replays;
mod scheduler;
mod trimmer;

use std::sync::Arc;

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::unit::Shard;
use crate::config::Settings;
use crate::policy::Breakers;
use crate::worker::state::slots::Slots;
use breaker_report::BreakerReport;
use lease_renewer::LeaseRenewer;
use orders::Orders;
use pulse::{Pulses, Told};
use relay::Relay;
use repair::Repair;
use scheduler::Scheduler;

/// All that keeps things as they should be, but for projections, which run with the handlers.
pub(crate) struct Maintenance {
    lease_renewer: LeaseRenewer,
    repair: Repair,
    breaker_report: BreakerReport,
    scheduler: Scheduler,
    relay: Relay,
    orders: Orders,
    pulses: Pulses,
}

/// All of that, at work until it is dropped.
pub(crate) struct Maintaining {
    /// Ends with this.
    _running: JoinSet<()>,
    pulsing: JoinHandle<()>,
    end: CancellationToken,
}

impl Maintenance {
    /// What the pulse tells beside what a shard knows is in `told`.
    pub fn new(
        shard: &Shard,
        settings: &Settings,
        breakers: Arc<Breakers>,
        slots: Arc<Slots>,
        told: Told,
    ) -> Self {
        Maintenance {
            lease_renewer: LeaseRenewer::new(shard),
            repair: Repair::new(shard, settings),
            breaker_report: BreakerReport::new(shard, breakers.clone()),
            scheduler: Scheduler::new(shard),
            relay: Relay::new(shard),
            orders: Orders::new(shard, slots.clone()),
            pulses: Pulses::new(shard, settings, breakers, slots, told),
        }
    }

    /// Begins, on the runtime that this is called on. It ends when what is returned is dropped, and by
    /// [`Maintaining::end`].
    pub fn spawn(self) -> Maintaining {
        let mut running = JoinSet::new();
        running.spawn(self.lease_renewer.run());
        running.spawn(self.repair.run());
        running.spawn(self.breaker_report.run());
        running.spawn(self.scheduler.run());
        running.spawn(self.relay.run());
        running.spawn(self.orders.run());
        let end = CancellationToken::new();
        Maintaining {
            _running: running,
            pulsing: tokio::spawn(self.pulses.run(end.clone())),
            end,
        }
    }
}

impl Maintaining {
    /// Ends it, with a last pulse: what was counted since the one before is not to be lost.
    pub async fn end(mut self) {
        self.end.cancel();
        let _ = (&mut self.pulsing).await;
    }
}

impl Drop for Maintaining {
    fn drop(&mut self) {
        self.pulsing.abort();
    }
}
