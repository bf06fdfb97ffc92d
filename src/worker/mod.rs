//! The worker: one process's part in a group. `run` works until it is told to stop.
//!
//! Everything that speaks to Redis runs on a thread of its own, so that no handler, however it computes or blocks,
//! holds up reading, renewing or acknowledging. Handlers run on the caller's runtime, or begin on that thread if few
//! come and they are quick: see [`run::dispatch`] and [`runtime`]. An entry comes by
//! [`shard::fetch`], is kept in [`state::inflight`], handled by [`run::executor`], judged by [`run::verdict`], and carried
//! out by [`shard::settle`]; [`shard::maintain`] keeps it ours meanwhile.

mod gauges;
mod growth;
#[cfg(test)]
mod instructions;
mod observer;
pub mod pace;
pub(crate) mod preflight;
pub(crate) mod run;
mod runtime;
pub(crate) mod shard;
pub(crate) mod state;
#[cfg(feature = "telemetry")]
mod vitals;
mod watchdog;
mod wiring;

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, OptionFuture, join_all};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use observer::{Observer, Outcome, Settled, Unstarted};

use crate::config::{Settings, TraceMode};
use crate::context::Cancelled;
use crate::error::{ErrorKind, Result};
use crate::handler::{self, Cron, Registry};
use crate::metrics::Metrics;
use crate::metrics::entries::ServerTime;
#[cfg(feature = "telemetry")]
use crate::otlp::{self, Exporter};
use crate::policy::Breakers;
use crate::publisher::Topics;
use crate::reconnect::{Complaint, Pause};
use crate::stream::{Connector, Pool, Trouble};
use crate::trace::Tracer;
use crate::worker::run::dedup_windows::Windows;
use crate::worker::run::spans::Spans;
use crate::worker::shard::unit::{Common, Shard, Shards};
use crate::worker::state::duties::{Duties, Share};
use crate::worker::state::identity::Identity;
use crate::worker::state::signals::Signals;
use crate::worker::state::slots::Slots;
use gauges::Gauges;
use growth::Growth;
use preflight::preflight;
use run::routes::Routes;
use runtime::Fetching;
use shard::maintain::Maintenance;
use shard::maintain::crons::home;
use shard::maintain::projections::Projections;
use shard::maintain::pulse::Told;
use state::capacity::Capacity;
use watchdog::LOOK;
use wiring::{Asking, Wiring};

/// How long after the drain time what is finished may still take to be settled.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Where Redis is at hand it is known by then whether it is a cluster.
#[cfg(feature = "telemetry")]
const SOON: Duration = Duration::from_millis(200);

/// A worker of a group: reads entries of streams, hands each to its handler, and settles it.
///
/// ```no_run
/// # use streamhand::{Registry, Settings, Worker};
/// # async fn example(settings: Settings, registry: Registry) -> streamhand::Result<()> {
/// let worker = Worker::new(settings, registry)?;
/// worker.run(async { tokio::signal::ctrl_c().await.unwrap() }).await?;
/// # Ok(()) }
/// ```
#[must_use]
pub struct Worker {
    settings: Settings,
    registry: Registry,
    connector: Connector,
    /// What is set up for nothing.
    warnings: Vec<String>,
    observer: Option<Arc<dyn Observer>>,
    metrics: Option<Metrics>,
    /// Who is told how it is, if somebody started it who wants to know.
    #[cfg(feature = "telemetry")]
    systemd: Option<crate::telemetry::systemd::Systemd>,
    version: String,
}

/// What a worker did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Entries that were acknowledged, parked, released or buried.
    pub settled: u64,
    /// Entries that could not be settled before the end. They stay pending, and other workers take them over when
    /// the lease is over.
    pub unsettled: usize,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("settings", &self.settings)
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker by `settings`, with the handlers of `registry`. Does not connect yet.
    ///
    /// # Errors
    /// If the registry is wrong, `redis.url` is, or the two of them do not fit the group.
    pub fn new(settings: Settings, registry: Registry) -> Result<Self> {
        #[cfg(feature = "telemetry")]
        let registry = crate::targets::register(registry, &settings)?;
        let warnings = preflight(&settings, &registry).passed()?;
        let connector = Connector::new(&settings.redis)?;
        Ok(Worker {
            settings,
            registry,
            connector,
            warnings,
            observer: None,
            metrics: None,
            #[cfg(feature = "telemetry")]
            systemd: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// The same worker, watched by `observer`.
    pub fn observer(self, observer: impl Observer) -> Self {
        self.watched_by(Some(Arc::new(observer)))
    }

    /// The same worker, which counts what it does in `metrics`, along with what others count there. Without this it
    /// counts for its pulse alone.
    pub fn metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = Some(metrics.clone());
        self
    }

    /// The same worker, of a program of this version: history tells what came with which. It is streamhand's own if none
    /// is set.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    pub(crate) fn watched_by(mut self, observer: Option<Arc<dyn Observer>>) -> Self {
        self.observer = observer;
        self
    }

    /// The same worker, which tells systemd how it is, or whoever else waits for that at `NOTIFY_SOCKET`.
    #[cfg(feature = "cli")]
    pub(crate) fn telling_systemd(mut self) -> Self {
        self.systemd = crate::telemetry::systemd::Systemd::from_env();
        self
    }

    /// Works until `shutdown` ends; then releases what has not started, waits for running handlers up to
    /// `worker.drain`, and settles what they did. Waits for a Redis that can't be reached.
    ///
    /// # Errors
    /// If waiting can't help: the server is too old, or workers of another release have taken over the group.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Summary> {
        let Worker {
            settings,
            mut registry,
            connector,
            warnings,
            observer,
            metrics,
            #[cfg(feature = "telemetry")]
            systemd,
            version,
        } = self;
        #[cfg(feature = "telemetry")]
        let port = vitals::port(&settings)?;
        let tracer = tracer(&settings);
        // Whoever serves or sends them wants them counted.
        #[cfg(feature = "telemetry")]
        let metrics = metrics.or_else(|| (port.is_some() || tracer.is_some()).then(Metrics::new));
        // And so does the pulse.
        let metrics = metrics.or_else(|| settings.pulse.enabled.then(Metrics::new));
        if let Some(metrics) = &metrics {
            connector.counted_in(metrics);
        }
        let pool = connector.pool(settings.redis.pool_size)?;
        let topics = Topics::new(settings.topics());
        let breakers = Arc::new(Breakers::new(settings.breakers.clone()));
        let types = registry.event_types().collect::<Vec<_>>().join(", ");
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let windows = Arc::new(Windows::new(&settings, &registry));
        let projections = registry.projections().to_vec();
        let mut companions = registry.companions().to_vec();
        if !registry.hooks().is_empty() {
            companions.push(Arc::new(registry.hooks().clone()));
        }
        let registered_crons = registry.take_crons();
        let routes = Routes::new(&settings, registry, &breakers);
        let counts = metrics.as_ref().map(|metrics| {
            let streams = settings.worker.streams.iter().map(|stream| &stream[..]);
            let types = routes.all().iter().map(|bound| &bound.gate.name[..]);
            metrics.worker(
                &settings.worker.group,
                streams,
                types,
                ServerTime::default(),
            )
        });
        let identity = Arc::new(Identity::new(&settings));
        let crons = handler::crons(&settings, &registered_crons, &version)?;
        tracing::info!(
            group = identity.group,
            streams = settings.worker.streams.join(", "),
            handles = types,
            consumer = identity.name,
            redis = connector.address,
            "worker starts"
        );
        let mut shutdown = pin!(shutdown);
        // How many shards there are is known once it is known whether it is a cluster.
        let concurrency = settings.worker.concurrency;
        let slots = Arc::new(Slots::new(concurrency));
        #[cfg(feature = "telemetry")]
        let vitals = vitals::Vitals::new(
            identity.clone(),
            &settings,
            &connector.address,
            slots.clone(),
        );
        #[cfg(feature = "telemetry")]
        let server = vitals.serve(port, metrics.clone(), settings.telemetry.token.as_ref())?;
        // As long as that takes they run here; nothing of them may stay with a runtime that a handler can block.
        #[cfg(feature = "telemetry")]
        let meanwhile = async {
            tokio::time::sleep(SOON).await;
            drive(vitals.tasks(systemd.clone())).await;
        };
        #[cfg(not(feature = "telemetry"))]
        let meanwhile = std::future::pending::<()>();
        let learnt = tokio::select! {
            learnt = learn(&connector, &topics, &pool) => learnt,
            () = &mut shutdown => {
                #[cfg(feature = "telemetry")]
                vitals.stops();
                Ok(false)
            }
            () = meanwhile => unreachable!("it goes on for ever"),
        };
        let by_slot = match learnt {
            Ok(true) => {
                let names = settings.worker.streams.iter();
                let streams: Vec<String> = names.flat_map(|name| topics.streams(name)).collect();
                split_by_slot(&connector, &streams)
            }
            Ok(false) => {
                #[cfg(feature = "telemetry")]
                OptionFuture::from(server.map(|server| server.stop())).await;
                tracing::info!(settled = 0, "stopped");
                return Ok(Summary {
                    settled: 0,
                    unsettled: 0,
                });
            }
            Err(error) => {
                tracing::error!("{}", crate::error::chain(&error));
                return Err(error);
            }
        };
        if by_slot.len() > 1 {
            slots.share();
        }
        let homes = crons.into_iter().map(|cron| (home(&cron, &topics), cron));
        let crons: Arc<[(String, Arc<Cron>)]> = homes.collect();
        let capacity = Capacity::new(slots.clone(), 2 * LOOK);
        let common = Common::new(identity, routes, capacity, counts);
        let spans = tracer.clone().map(|tracer| {
            let address = connector.address.clone();
            Spans::new(tracer, common.identity.clone(), address)
        });
        let wiring = Wiring {
            settings: &settings,
            connector: &connector,
            pool: &pool,
            topics: &topics,
            breakers: &breakers,
            metrics: metrics.as_ref(),
            tracer: tracer.as_ref(),
            observer: observer.as_ref(),
            windows,
            spans,
            common: &common,
        };
        let (shards, signals) = (Arc::<Shards>::default(), Signals::of_worker());
        let mut all_signals = vec![signals.clone()];
        all_signals.extend((1..by_slot.len()).map(|_| signals.another()));
        let share = Arc::<Share>::default();
        let share_out = |lots: &[Vec<String>], all_signals: &[Arc<Signals>]| {
            let duties = all_signals.iter().map(|signals| &signals.duties);
            let all: Vec<_> = lots.iter().map(|lot| &lot[..]).zip(duties).collect();
            Duties::begin(&all, &common.identity.name, &share);
        };
        if connector.is_cluster() {
            share_out(&by_slot, &all_signals);
        }
        let all = by_slot.iter().zip(all_signals);
        let ways: Vec<_> = all
            .map(|(streams, signals)| add(&wiring, &shards, streams, signals))
            .collect();
        let commits = ways[0].1.commits();
        if let Some(metrics) = &metrics {
            let group = &settings.worker.group;
            let gauges = Gauges::new(group, &shards, &slots, &breakers);
            metrics.gauges(move |snapshot| gauges.tell(snapshot));
        }
        #[cfg(feature = "telemetry")]
        let exporter = exporter(&settings, &common.identity, tracer.clone(), metrics.clone())?;
        #[cfg(feature = "telemetry")]
        vitals.are(shards.clone());
        #[cfg(feature = "telemetry")]
        let mut beside = vitals.tasks(systemd);
        #[cfg(not(feature = "telemetry"))]
        let mut beside: Vec<BoxFuture<'static, ()>> = Vec::new();
        let names = settings.worker.streams.iter();
        let names = names.filter(|name| topics.partitions(name).is_some());
        let names = names.map(|name| (name.clone(), settings.order(name).is_some()));
        let (more, mut grown) = mpsc::unbounded_channel();
        let growth = Growth {
            group: settings.worker.group.clone(),
            topics: topics.clone(),
            names: names.collect(),
            pool: pool.clone(),
            signals: signals.clone(),
            shards: shards.clone(),
            more,
        };
        beside.push(Box::pin(growth.run()));
        let projections =
            Projections::run(projections, &settings, &connector, &common.identity.name)?;
        let mut told = Some(Told {
            version,
            metrics: metrics.clone(),
        });
        for companion in &companions {
            companion.start(&Handle::current());
        }
        let (mut parts, mut inlined, mut executors) = (Vec::new(), Vec::new(), JoinSet::new());
        let all = shards.all();
        for (shard, asking) in ways {
            let mut maintenance = Maintenance::new(&shard, &settings, &breakers, &crons);
            if let Some(told) = told.take() {
                let held = &common.capacity.held;
                maintenance = maintenance.once(&all, held, &settings, &breakers, &slots, told);
            }
            let wired = wiring.parts(&shard, maintenance, asking);
            parts.push(wired.parts);
            inlined.push(wired.inlined);
            executors.spawn(wired.executing);
        }
        let io = runtime::spawn(signals.clone(), parts, beside, Fetching::of(inlined))?;

        loop {
            let streams: Vec<String> = tokio::select! {
                () = &mut shutdown => {
                    tracing::info!("stopping: what has not started is released");
                    break;
                }
                () = signals.stopped() => break,
                Some(streams) = grown.recv() => streams,
            };
            if !connector.is_cluster() {
                let sources = streams.iter().map(|stream| wiring.source(stream, &commits));
                let sources: Vec<_> = sources.collect();
                if let Some(orderer) = &all[0].orderer {
                    orderer.orders(&sources);
                }
                all[0].sources.add(sources);
                signals.rejoin();
                continue;
            }
            slots.share();
            let by_slot = split_by_slot(&connector, &streams);
            let all_signals: Vec<_> = by_slot.iter().map(|_| signals.another()).collect();
            share_out(&by_slot, &all_signals);
            for (streams, signals) in by_slot.iter().zip(all_signals) {
                let (shard, asking) = add(&wiring, &shards, streams, signals);
                let maintenance = Maintenance::new(&shard, &settings, &breakers, &crons);
                let wired = wiring.parts(&shard, maintenance, asking);
                executors.spawn(wired.executing);
                io.add(wired.parts, wired.inlined.fetcher);
            }
        }
        let drain = Instant::now() + settings.worker.drain;
        signals.stop();
        projections.stop();
        stop(&shards.all(), &slots, executors, io, drain).await;
        projections.ended().await;
        join_all(companions.iter().map(|companion| companion.stop())).await;
        // Until here probes are told that it stops; whoever is connected holds it up no longer.
        #[cfg(feature = "telemetry")]
        OptionFuture::from(server.map(|server| server.stop())).await;
        #[cfg(feature = "telemetry")]
        if let Some(exporter) = exporter {
            exporter.stop().await;
        }
        if let Some(error) = signals.take_failure() {
            return Err(error);
        }
        Ok(summary(&shards.all()))
    }
}

/// Adds a shard of these streams.
fn add(
    wiring: &Wiring<'_>,
    shards: &Shards,
    streams: &[String],
    signals: Arc<Signals>,
) -> (Arc<Shard>, Asking) {
    let (shard, asking) = wiring.shard(streams, signals);
    let shard = Arc::new(shard);
    wiring.common.capacity.held.by(&shard.inflight);
    shards.add(shard.clone());
    (shard, asking)
}

/// Waits for running handlers until the drain time is over, and for what they did to be settled.
async fn stop(
    shards: &[Arc<Shard>],
    slots: &Slots,
    mut executors: JoinSet<()>,
    io: runtime::Io,
    drain: Instant,
) {
    let signals = &shards[0].signals;
    for shard in shards {
        shard.inflight.cancel_all(Cancelled::Stopping);
    }
    if tokio::time::timeout_at(drain.into(), ended(&mut executors))
        .await
        .is_err()
    {
        let running = slots.running();
        tracing::warn!(
            running,
            "the drain time is over: handlers that still run are cut off"
        );
        signals.give_up();
        // A handler that blocks its thread can't be cut off: it dies with the process.
        let _ = tokio::time::timeout(Duration::from_millis(500), ended(&mut executors)).await;
    }
    executors.abort_all();
    if tokio::time::timeout_at((drain + LAST_WORDS).into(), io.ended())
        .await
        .is_err()
    {
        signals.abandon();
    }
}

/// What a worker has done that has stopped.
fn summary(shards: &[Arc<Shard>]) -> Summary {
    let summary = Summary {
        settled: shards.iter().map(|shard| shard.inflight.settled()).sum(),
        unsettled: shards.iter().map(|shard| shard.inflight.entries()).sum(),
    };
    if summary.unsettled > 0 {
        tracing::error!(
            unsettled = summary.unsettled,
            "stopped with entries unsettled; they stay pending, and other workers take them over"
        );
    } else {
        tracing::info!(settled = summary.settled, "stopped");
    }
    summary
}

/// Finds out whether it is a cluster, however long Redis can't be reached.
///
/// # Errors
/// If waiting can't help.
async fn learn(connector: &Connector, topics: &Topics, pool: &Pool) -> Result<bool> {
    let (mut pause, mut complaint) = (Pause::new(), Complaint::default());
    loop {
        let trouble = match connector.learn().await {
            Ok(_) => break,
            Err(error) => Trouble::Broken(error),
        };
        if trouble.is_final() {
            return Err(trouble.into_error());
        }
        complaint.warn(trouble.error().to_string());
        tokio::time::sleep(pause.next()).await;
    }
    place_all(topics, pool).await?;
    Ok(true)
}

/// Asks how many partitions each topic has, and says so if nobody has: a worker that is set otherwise would read what
/// others do not write, or put in order what is not. Waits for a Redis that can't be reached.
async fn place_all(topics: &Topics, pool: &Pool) -> Result<()> {
    let (mut pause, mut complaint) = (Pause::new(), Complaint::default());
    for topic in topics.names() {
        while let Err(error) = topics.place(pool, &topic).await {
            if error.kind() == ErrorKind::Invalid {
                return Err(error);
            }
            complaint.warn(error.to_string());
            tokio::time::sleep(pause.next()).await;
        }
    }
    Ok(())
}

/// The streams of each shard: all together, or by their hash slots.
fn split_by_slot(connector: &Connector, streams: &[String]) -> Vec<Vec<String>> {
    let lots = connector.by_slot(streams, |stream| stream).into_iter();
    let streams_at = |places: Vec<usize>| places.iter().map(|at| streams[*at].clone()).collect();
    lots.map(streams_at).collect()
}

/// Waits until all of them have ended.
async fn ended(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// Goes on with what runs beside, until it is dropped.
#[cfg(feature = "telemetry")]
async fn drive(beside: Vec<BoxFuture<'static, ()>>) {
    futures_util::future::join_all(beside).await;
    std::future::pending().await
}

/// Who traces runs, if their spans are sent anywhere.
fn tracer(settings: &Settings) -> Option<Tracer> {
    let telemetry = &settings.telemetry;
    let is_child = telemetry.trace == TraceMode::Child;
    let is_sent = cfg!(feature = "telemetry") && !telemetry.otlp.endpoint.is_nowhere();
    is_sent.then(|| Tracer::new(telemetry.otlp.sample, is_child))
}

/// Who sends spans and metrics, if anybody is to.
#[cfg(feature = "telemetry")]
fn exporter(
    settings: &Settings,
    identity: &Identity,
    tracer: Option<Tracer>,
    metrics: Option<Metrics>,
) -> Result<Option<Exporter>> {
    let otlp = &settings.telemetry.otlp;
    let Some(tracer) = tracer else {
        return Ok(None);
    };
    let sources = otlp::Sources {
        tracer,
        resource: otlp::Resource::of_group(
            otlp.service.as_deref(),
            &identity.group,
            &identity.name,
        ),
        snapshot: metrics.map(|metrics| Box::new(move || metrics.snapshot()) as _),
    };
    Exporter::start(otlp, sources)
}
