//! Keeps things as they should be: leases, due events, the length of streams, what others have broken.

mod breaker_report;
mod lease_renewer;
pub(crate) mod projections;
mod repair;
mod scheduler;
mod trimmer;

use std::sync::Arc;

use tokio::task::JoinSet;

use super::unit::Shard;
use crate::config::Settings;
use crate::policy::Breakers;
use breaker_report::BreakerReport;
use lease_renewer::LeaseRenewer;
use repair::Repair;
use scheduler::Scheduler;

/// All that keeps things as they should be, but for projections, which run with the handlers.
pub(crate) struct Maintenance {
    lease_renewer: LeaseRenewer,
    repair: Repair,
    breaker_report: BreakerReport,
    scheduler: Scheduler,
}

impl Maintenance {
    pub fn new(shard: &Shard, settings: &Settings, breakers: Arc<Breakers>) -> Self {
        Maintenance {
            lease_renewer: LeaseRenewer::new(shard),
            repair: Repair::new(shard, settings),
            breaker_report: BreakerReport::new(shard, breakers),
            scheduler: Scheduler::new(shard),
        }
    }

    /// Begins, on the runtime that this is called on. It ends when what is returned is dropped.
    pub fn spawn(self) -> JoinSet<()> {
        let mut running = JoinSet::new();
        running.spawn(self.lease_renewer.run());
        running.spawn(self.repair.run());
        running.spawn(self.breaker_report.run());
        running.spawn(self.scheduler.run());
        running
    }
}
