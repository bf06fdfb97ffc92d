//! Makes a shard and its parts, and the ways between them: runs go from the fetcher to the executor, past the deduplicator
//! if there is one; outcomes go from handlers to the acker, the settler and the committer.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, OptionFuture};
use tokio::sync::mpsc;

use super::gauges;
use super::observer::Observer;
use super::run::attempt::Attempts;
use super::run::batches::Keepers;
use super::run::commit_handle::CommitHandle;
use super::run::dedup::Deduplicator;
use super::run::dedup_windows::Windows;
use super::run::dispatch::Dispatcher;
use super::run::executor::Executor;
use super::run::orderer::Ordered;
use super::run::outcome::{Acks, Committing, CommittingBatch, Outcomes, Settlement};
use super::run::report::Reporter;
use super::run::spans::Spans;
use super::run::starter::Gathers;
use super::runtime;
use super::shard::claims::Claims;
use super::shard::fetch::fetcher::Fetcher;
use super::shard::fetch::rounds::Downstream;
use super::shard::leave::Leaving;
use super::shard::maintain::Maintenance;
use super::shard::order::carrier::Carrier;
use super::shard::settle::acker::Acker;
use super::shard::settle::commit_requests::CommitRequests;
use super::shard::settle::committer::Committer;
use super::shard::settle::requests::Requests;
use super::shard::settle::settler::Settler;
use super::shard::unit::{Common, Shard};
use super::state::capacity::Capacity;
use super::state::order::Order;
use super::state::signals::Signals;
use super::state::source::{Reads, Source, Sources};
use super::watchdog::LOOK;
use crate::config::Settings;
use crate::context::{Ask, Surroundings};
use crate::metrics::Metrics;
use crate::partition::Partition;
use crate::policy::Breakers;
use crate::publisher::{Publisher, Topics};
use crate::stream::{Connector, Pool};
use crate::trace::Tracer;

/// What every shard of a worker is made of.
pub(super) struct Wiring<'a> {
    pub settings: &'a Settings,
    pub connector: &'a Connector,
    pub pool: &'a Pool,
    pub topics: &'a Topics,
    pub breakers: &'a Arc<Breakers>,
    pub metrics: Option<&'a Metrics>,
    pub tracer: Option<&'a Tracer>,
    pub observer: Option<&'a Arc<dyn Observer>>,
    pub windows: Arc<Windows>,
    pub spans: Option<Spans>,
    pub common: &'a Common,
}

/// The way of handlers that ask for a commit while they run, and what orders entries if any stream's have an order.
pub(super) struct Asking {
    ask: mpsc::UnboundedSender<Ask>,
    asks: mpsc::UnboundedReceiver<Ask>,
    ordered: Option<Ordered>,
}

impl Asking {
    /// How sources that come later ask.
    pub fn commits(&self) -> mpsc::WeakUnboundedSender<Ask> {
        self.ask.downgrade()
    }
}

/// A shard's parts.
pub(super) struct Wired {
    pub parts: runtime::Parts,
    pub inlined: runtime::Inlined,
    /// The executor at work; it ends after the fetcher.
    pub executing: BoxFuture<'static, ()>,
}

impl Wiring<'_> {
    /// The shard of these streams. A cluster has them in one hash slot.
    pub fn shard(&self, streams: &[String], signals: Arc<Signals>) -> (Shard, Asking) {
        let (ask, asks) = mpsc::unbounded_channel();
        let commits = ask.downgrade();
        let sources = streams.iter().map(|stream| self.source(stream, &commits));
        let sources = Sources::new(sources.collect());
        let connector = match self.connector.is_cluster() {
            true => self.connector.at(&streams[0]),
            false => self.connector.clone(),
        };
        let ordered = Ordered::of(&sources, self.settings.worker.prefetch);
        let orderer = ordered.as_ref().map(|ordered| ordered.orderer.clone());
        let shard = Shard::new(self.common, connector, sources, signals, orderer);
        (shard, Asking { ask, asks, ordered })
    }

    /// The source of a stream, whose handlers ask for commits by `commits`.
    pub fn source(&self, stream: &str, commits: &mpsc::WeakUnboundedSender<Ask>) -> Arc<Source> {
        let pool = match self.connector.is_cluster() {
            true => self.pool.at(stream),
            false => self.pool.clone(),
        };
        let publisher = Publisher::with_pool(pool.clone())
            .counts_in(self.metrics.cloned())
            .with_topics(self.topics.clone());
        let surroundings = Surroundings {
            stream: stream.to_owned(),
            group: self.settings.worker.group.clone(),
            pool: Some(pool),
            publisher: Some(publisher),
            breakers: self.breakers.clone(),
            commits: Some(commits.clone()),
            tracer: self.tracer.cloned(),
        };
        // A topic's partitions are counted together: a label each would be too many.
        let partition = Partition::parse(stream);
        let counted = partition.map(|partition| partition.topic);
        let counts = self.common.counts.as_ref().and_then(|counts| {
            let topic = || counted.and_then(|topic| counts.stream(topic));
            counts.stream(stream).or_else(topic)
        });
        let is_limited = self.common.routes.is_limited();
        let start = self.settings.start(stream);
        let holds = self.settings.holds(stream);
        let order = self
            .settings
            .order(stream)
            .map(|_| Arc::new(Order::new(holds)));
        let source = Source::new(surroundings, start, is_limited, order, counts.cloned());
        let topics = &self.settings.worker.streams;
        let is_later =
            |of: &Partition<'_>| of.generation > 1 && topics.iter().any(|it| it == of.topic);
        if partition.as_ref().is_some_and(is_later) {
            // Who follows the topic's growth says when.
            source.set_reads(Reads::NotYet);
        }
        source
    }

    /// All that works for a shard.
    pub fn parts(&self, shard: &Shard, maintenance: Maintenance, asking: Asking) -> Wired {
        let Asking { ask, asks, ordered } = asking;
        let (acknowledge, acks) = mpsc::unbounded_channel();
        let (settle, settlements) = mpsc::unbounded_channel();
        let (commit, jobs) = mpsc::unbounded_channel();
        let (commit_batch, batches) = mpsc::unbounded_channel();
        let outcomes = Outcomes::new(shard.inflight.clone(), acknowledge.clone(), settle.clone());
        let reporter = Arc::new(Reporter::new(
            self.observer.cloned(),
            shard.routes.clone(),
            shard.inflight.clone(),
            self.spans.clone(),
        ));
        let committing = self
            .committer(shard, reporter.clone(), settle.clone())
            .run(jobs, batches, asks);
        let settler = self.settler(shard, acknowledge);
        let capacity = self.common.capacity.of_shard(2 * LOOK);
        let (to_executor, at_executor, runs) = Dispatcher::to_executor(capacity.inline.clone());
        let lanes = to_executor.lanes();
        let (dispatcher, door) = self.door(shard, to_executor, &outcomes, &reporter);
        let worker = &self.settings.worker;
        let gatherer = Keepers::gathers(worker.prefetch, worker.drain);
        let commits = (commit, commit_batch, ask);
        let executor = executor(
            shard,
            capacity.clone(),
            reporter,
            outcomes,
            commits,
            gatherer,
        );
        let carrying = ordered.map(|ordered| {
            let Ordered { orderer, tasks } = ordered;
            Carrier::new(shard, orderer, dispatcher.beside(), settle.clone()).run(tasks)
        });
        let downstream = Downstream {
            capacity: capacity.clone(),
            breakers: self.breakers.clone(),
            observer: self.observer.cloned(),
            runs: dispatcher,
            settle,
        };
        Wired {
            parts: runtime::Parts {
                acker: acker(shard),
                acks,
                settler,
                settlements,
                maintenance,
                leaving: Leaving::new(
                    shard.identity.clone(),
                    shard.signals.clone(),
                    shard.sources.clone(),
                    shard.links.clone(),
                ),
                committing: async move {
                    let (door, carrying) = (OptionFuture::from(door), OptionFuture::from(carrying));
                    tokio::join!(committing, door, carrying);
                }
                .boxed(),
            },
            inlined: runtime::Inlined {
                fetcher: Fetcher::new(shard, self.settings, downstream),
                runs,
                hands: runtime::Hands {
                    executor: executor.clone(),
                    lanes,
                    inline: capacity.inline,
                },
                blocked: gauges::blocked(shard),
            },
            executing: executor.work(at_executor).boxed(),
        }
    }

    fn settler(&self, shard: &Shard, acknowledge: mpsc::UnboundedSender<Acks>) -> Settler {
        let requests = Requests::new(
            shard.identity.clone(),
            shard.signals.clone(),
            shard.routes.clone(),
            shard.clock.clone(),
            self.windows.clone(),
        );
        Settler::new(
            shard.signals.clone(),
            shard.inflight.clone(),
            shard.links.clone(),
            requests,
            acknowledge,
        )
    }

    fn committer(
        &self,
        shard: &Shard,
        reporter: Arc<Reporter>,
        settle: mpsc::UnboundedSender<Settlement>,
    ) -> Committer {
        let requests = CommitRequests::new(
            shard.identity.clone(),
            shard.clock.clone(),
            self.windows.clone(),
        );
        Committer::new(
            shard.signals.clone(),
            shard.inflight.clone(),
            shard.routes.clone(),
            shard.links.clone(),
            requests,
            reporter,
            settle,
        )
    }

    /// The way to the executor, and who stands in it. If no handler deduplicates, nobody does.
    fn door(
        &self,
        shard: &Shard,
        to_executor: Dispatcher,
        outcomes: &Outcomes,
        reporter: &Arc<Reporter>,
    ) -> (Dispatcher, Option<BoxFuture<'static, ()>>) {
        if self.windows.is_empty() {
            return (to_executor, None);
        }
        let (to_deduplicator, at_deduplicator) = Dispatcher::to_deduplicator();
        let deduplicator = Deduplicator::new(
            Claims::new(shard.links.clone(), shard.signals.clone()),
            self.windows.clone(),
            shard.routes.clone(),
            shard.signals.clone(),
            to_executor,
            outcomes.clone(),
            reporter.clone(),
        );
        (
            to_deduplicator,
            Some(deduplicator.run(at_deduplicator).boxed()),
        )
    }
}

/// What acknowledges.
pub(super) fn acker(shard: &Shard) -> Acker {
    Acker::new(
        shard.identity.clone(),
        shard.signals.clone(),
        shard.inflight.clone(),
        shard.recent_acks.clone(),
        shard.links.clone(),
    )
}

/// What starts handlers.
pub(super) fn executor(
    shard: &Shard,
    capacity: Capacity,
    reporter: Arc<Reporter>,
    outcomes: Outcomes,
    commits: (
        mpsc::UnboundedSender<Committing>,
        mpsc::UnboundedSender<CommittingBatch>,
        mpsc::UnboundedSender<Ask>,
    ),
    gatherer: Box<dyn Gathers>,
) -> Arc<Executor> {
    let (commit, batches, asks) = commits;
    let routes = shard.routes.clone();
    let (reports, leaves) = (reporter.clone(), outcomes.clone());
    let attempts = Attempts {
        signals: shard.signals.clone(),
        inflight: shard.inflight.clone(),
        reporter,
        outcomes,
        commit_handle: CommitHandle::new(routes.clone(), reports, leaves, commit, batches, asks),
    };
    let recent_acks = shard.recent_acks.clone();
    let gatherer = Some(gatherer);
    Arc::new(Executor::new(
        attempts,
        routes,
        recent_acks,
        capacity,
        gatherer,
    ))
}
