//! What was asked of each node.

use std::collections::BTreeMap;
use std::time::Duration;

/// What is asked, by the command or the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Request {
    /// What a new connection says first.
    Greet,
    Join,
    Adopt,
    Read,
    Wake,
    /// XINFO CONSUMERS: who else is there.
    Consumers,
    Reclaim,
    Renew,
    Mend,
    Expire,
    Outbox,
    /// Whose a partition is whose events have an order: looking, taking, releasing.
    Own,
    /// Behind a read of one: is it still the worker's?
    Check,
    /// A worker that no longer reads a partition takes itself off its list.
    Forget,
    Ack,
    Publish,
    Pulse,
    /// CLUSTER INFO and CLUSTER SLOTS.
    SlotMap,
}

/// How long a slice is in which the worst moment is looked for.
const SLICE_US: u64 = 100_000;

/// Counts while it goes on.
#[derive(Debug, Default)]
pub struct Counts {
    began_us: u64,
    requests: Vec<BTreeMap<Request, u64>>,
    slices: Vec<BTreeMap<u64, u64>>,
}

/// What was counted for a while.
#[derive(Clone, Debug)]
pub struct Counted {
    /// For how long.
    pub lasted: Duration,
    /// Of each node, how often each was asked.
    pub requests: Vec<BTreeMap<Request, u64>>,
    /// Of each node, the most in a tenth of a second, as so many a second.
    pub worst: Vec<f64>,
}

impl Counts {
    pub fn of(nodes: usize) -> Self {
        Counts {
            began_us: 0,
            requests: vec![BTreeMap::new(); nodes],
            slices: vec![BTreeMap::new(); nodes],
        }
    }

    pub fn count(&mut self, node: usize, request: Request, times: u64, now_us: u64) {
        *self.requests[node].entry(request).or_default() += times;
        *self.slices[node].entry(now_us / SLICE_US).or_default() += times;
    }

    /// What was counted since it was taken last.
    pub fn take(&mut self, now_us: u64) -> Counted {
        let nodes = self.requests.len();
        let began_us = std::mem::replace(&mut self.began_us, now_us);
        let requests = std::mem::replace(&mut self.requests, vec![BTreeMap::new(); nodes]);
        let slices = std::mem::replace(&mut self.slices, vec![BTreeMap::new(); nodes]);
        let worst = |slices: &BTreeMap<u64, u64>| {
            let most = slices.values().max().copied().unwrap_or(0);
            most as f64 * 1e6 / SLICE_US as f64
        };
        Counted {
            lasted: Duration::from_micros(now_us - began_us),
            worst: slices.iter().map(worst).collect(),
            requests,
        }
    }
}

impl Counted {
    /// How many a second each node was asked.
    pub fn rates(&self) -> Vec<f64> {
        let sum = |of: &BTreeMap<Request, u64>| of.values().sum::<u64>();
        let rate = |of| sum(of) as f64 / self.lasted.as_secs_f64();
        self.requests.iter().map(rate).collect()
    }

    /// How many a second a node was asked on average.
    pub fn mean(&self) -> f64 {
        let rates = self.rates();
        rates.iter().sum::<f64>() / rates.len() as f64
    }

    /// The most that any node was asked in a tenth of a second, as so many a second.
    pub fn peak(&self) -> f64 {
        self.worst.iter().copied().fold(0.0, f64::max)
    }

    /// What was asked, by how many a second of all nodes together, the most first.
    pub fn by_request(&self) -> Vec<(Request, f64)> {
        let mut all = BTreeMap::<Request, u64>::new();
        for (request, times) in self.requests.iter().flatten() {
            *all.entry(*request).or_default() += times;
        }
        let seconds = self.lasted.as_secs_f64();
        let rate = |(request, times)| (request, times as f64 / seconds);
        let mut all: Vec<_> = all.into_iter().map(rate).collect();
        all.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        all
    }
}
