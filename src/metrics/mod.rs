//! What is counted, and how it is shown.
//!
//! [`Metrics`] is what workers and publishers of a program count into: give it to each by
//! [`Worker::metrics`](crate::Worker::metrics) and [`Publisher::metrics`](crate::Publisher::metrics), and let your own
//! server show what [`render`](Metrics::render) returns. What there is, is on
//! [a page of its own](https://github.com/streamhand/streamhand/blob/main/docs/metrics.md).
//!
//! In here `table` says what there is, `entries`, `requests` and `published` count, `snapshot` is what it had all come to
//! at one time, and `expose` makes that what scrapers want.

mod cells;
#[cfg_attr(not(feature = "worker"), allow(dead_code))]
pub(crate) mod entries;
mod expose;
pub(crate) mod histogram;
#[cfg(test)]
mod page;
mod process;
pub(crate) mod published;
mod requests;
pub(crate) mod snapshot;
pub(crate) mod table;

use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use crate::sync::lock;
use entries::{ServerTime, WorkerCounts};
use published::Publishing;
use requests::Requests;
use snapshot::{Snapshot, Value};

/// What the workers and publishers of a program count. Cheap to clone; clones share it.
///
/// ```no_run
/// use streamhand::metrics::Metrics;
/// # use streamhand::{Publisher, Registry, Settings, Worker};
///
/// # async fn example(settings: Settings, registry: Registry, publisher: Publisher) -> streamhand::Result<()> {
/// let metrics = Metrics::new();
/// let worker = Worker::new(settings, registry)?.metrics(&metrics);
/// let publisher = publisher.metrics(&metrics);
/// // In the handler of `/metrics` of your own server, with the request's header `Accept`:
/// let (content_type, body) = metrics.render("application/openmetrics-text");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    since: SystemTime,
    workers: Mutex<Vec<Arc<WorkerCounts>>>,
    gauges: Mutex<Vec<Gauges>>,
    requests: Requests,
    publishing: Publishing,
    /// Types of streams that are told apart.
    types: Arc<AtomicUsize>,
    /// What pulses have told.
    told: Mutex<Snapshot>,
}

/// Tells what is now; no more once it returns false.
type Gauges = Box<dyn Fn(&mut Snapshot) -> bool + Send + Sync>;

impl Metrics {
    /// Nothing is counted yet.
    pub fn new() -> Self {
        Metrics(Arc::new(Inner {
            since: SystemTime::now(),
            workers: Mutex::default(),
            gauges: Mutex::default(),
            requests: Requests::default(),
            publishing: Publishing::default(),
            types: Arc::default(),
            told: Mutex::default(),
        }))
    }

    /// All of it as a scraper wants it that sent `accept` in the header of that name: the content type and the body.
    /// There are OpenMetrics 1.0, Prometheus' text format, which is also for whoever asks for nothing, and, with the feature
    /// `telemetry`, Prometheus' protobuf with native histograms.
    pub fn render(&self, accept: &str) -> (&'static str, Vec<u8>) {
        render(accept, &self.snapshot())
    }

    /// What all of it has come to by now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::new(self.0.since, SystemTime::now());
        let workers = lock(&self.0.workers).clone();
        workers
            .iter()
            .for_each(|worker| worker.add_to(&mut snapshot));
        lock(&self.0.gauges).retain(|gauges| gauges(&mut snapshot));
        self.0.requests.add_to(&mut snapshot);
        self.0.publishing.add_to(&mut snapshot);
        process::add_to(&mut snapshot);
        snapshot
    }

    /// What was counted of a group, and of none, since somebody asked last. It is for pulses: workers may share this, and
    /// what was told is not to be told again.
    #[cfg(feature = "worker")]
    pub(crate) fn take_untold(&self, group: &str) -> Snapshot {
        let mut told = lock(&self.0.told);
        let all = self.snapshot();
        let mut untold = Snapshot::new(all.since, all.at);
        for (id, labels, value) in all.iter() {
            let mut pairs = id.metric().labels.iter().zip(labels.iter());
            let is_anothers = pairs.any(|(name, of)| *name == "group" && **of != *group);
            if !is_anothers && !matches!(value, Value::Gauge(_)) {
                untold.add(id, labels.clone(), value.clone());
            }
        }
        untold.subtract(&told);
        told.merge(&untold);
        untold
    }

    /// A worker begins that reads these streams and handles these types.
    pub(crate) fn worker<'a>(
        &self,
        group: &str,
        streams: impl IntoIterator<Item = &'a str>,
        types: impl IntoIterator<Item = &'a str>,
        clock: ServerTime,
    ) -> Arc<WorkerCounts> {
        let counts = WorkerCounts::new(group, streams, types, clock, &self.0.types);
        let counts = Arc::new(counts);
        lock(&self.0.workers).push(counts.clone());
        counts
    }

    /// Asks this for what is now, whenever somebody wants to know.
    pub(crate) fn gauges(&self, tell: impl Fn(&mut Snapshot) -> bool + Send + Sync + 'static) {
        lock(&self.0.gauges).push(Box::new(tell));
    }

    pub(crate) fn requests(&self) -> &Requests {
        &self.0.requests
    }

    pub(crate) fn publishing(&self) -> &Publishing {
        &self.0.publishing
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("since", &self.0.since)
            .finish_non_exhaustive()
    }
}

/// A snapshot as a scraper wants it that sent `accept` in the header of that name: the content type and the body.
pub(crate) use expose::render;
