//! What a worker's process has handled, and whether it is to end.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hdrhistogram::Histogram;

use super::events::Due;
use super::figures;
use super::measure::{now_ns, own_cpu};

/// What has been handled.
pub(super) struct Tally {
    handled: AtomicU64,
    latencies: Option<Mutex<Histogram<u64>>>,
}

/// Whether it is to end.
#[derive(Default)]
pub(super) struct Stop {
    flag: AtomicBool,
    token: tokio_util::sync::CancellationToken,
}

impl Stop {
    pub fn set(&self) {
        self.flag.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// Waits until it is set.
    pub async fn wait(&self) {
        self.token.cancelled().await;
    }

    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }
}

impl Tally {
    /// Nothing yet. Latencies are recorded where events tell when they were due.
    pub fn new(due: bool) -> Self {
        Tally {
            handled: AtomicU64::new(0),
            latencies: due.then(|| Mutex::new(figures::histogram())),
        }
    }

    /// An event of this amount was handled.
    pub fn handled(&self, amount: u64) {
        self.handled.fetch_add(1, Ordering::Relaxed);
        if let Some(latencies) = &self.latencies
            && let Some(due) = Due::of(amount)
        {
            record(
                &mut latencies.lock().expect("no panic while it is locked"),
                due,
                now_ns(),
            );
        }
    }

    /// So many events were there to be handled at the same time, with their data.
    pub fn handled_all<'a>(&self, count: usize, data: impl FnOnce() -> Vec<&'a [u8]>) {
        self.handled.fetch_add(count as u64, Ordering::Relaxed);
        if let Some(latencies) = &self.latencies {
            let (now, mut latencies) = (
                now_ns(),
                latencies.lock().expect("no panic while it is locked"),
            );
            for due in data().into_iter().filter_map(Due::of_data) {
                record(&mut latencies, due, now);
            }
        }
    }

    /// How many events were handled.
    pub fn count(&self) -> u64 {
        self.handled.load(Ordering::Acquire)
    }

    /// How far it is, and the CPU time it took.
    pub fn mark(&self) -> String {
        let (handled, cpu) = (self.handled.load(Ordering::Acquire), own_cpu());
        format!("mark {handled} {}", cpu.as_nanos())
    }

    /// What was recorded, as values and how often each was met.
    pub fn latencies(&self) -> Vec<(u64, u64)> {
        let Some(latencies) = &self.latencies else {
            return Vec::new();
        };
        let latencies = latencies.lock().expect("no panic while it is locked");
        let recorded = latencies.iter_recorded();
        recorded
            .map(|value| (value.value_iterated_to(), value.count_at_value()))
            .collect()
    }
}

fn record(latencies: &mut Histogram<u64>, due: Due, now: u64) {
    latencies.saturating_record(now.saturating_sub(due.0));
}
