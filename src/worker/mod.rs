//! The worker: one process's part in a group. `run` works until it is told to stop.
//!
//! Everything that speaks to Redis runs on a thread of its own, so that no handler, however it computes or blocks,
//! holds up reading, renewing or acknowledging. Handlers run on the caller's runtime, or begin on that thread where few
//! come and they are quick: see [`dispatch`] and [`io`]. An entry comes by the
//! [`fetcher`], is kept in [`held`], handled by the [`executor`], judged by [`verdict`], and acknowledged by the
//! [`acker`], committed by the [`committer`], or else settled by the [`settler`]; the [`renewer`] keeps it ours
//! meanwhile.

mod about;
mod acker;
mod admission;
mod ahead;
mod arrival;
mod attempt;
mod budget;
mod bulletin;
mod clock;
mod commit_steps;
mod commits;
mod committer;
mod complaint;
mod dispatch;
mod doorman;
mod duty;
mod executor;
mod fetcher;
mod gait;
mod held;
mod housekeeper;
#[cfg(test)]
mod instructions;
mod io;
mod memory;
mod observer;
mod oversized;
mod pace;
mod pauses;
mod precedence;
pub(crate) mod preflight;
mod queue;
mod rates;
mod reading;
mod reclaimer;
mod refusals;
mod renewer;
pub(crate) mod retention;
mod room;
mod scheduler;
mod settler;
mod shared;
mod shares;
mod source;
mod steps;
mod turns;
mod turnstile;
mod verdict;
mod views;
mod waker;
mod ward;
mod watch;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::OptionFuture;
use tokio::sync::mpsc;

pub(crate) use complaint::{Complaint, Pause};
pub use observer::{Observer, Outcome, Settled};

use crate::config::Settings;
use crate::context::{Cancelled, Surroundings};
use crate::error::{Error, ErrorKind, Result};
use crate::event::EntryId;
use crate::handler::Registry;
use crate::policy::Breakers;
use crate::publisher::Publisher;
use crate::stream::{Connector, PROTOCOL, Trouble};
use admission::Routes;
use commits::Commits;
use committer::Committer;
use dispatch::Dispatcher;
use doorman::{Doorman, Windows};
use executor::Executor;
use fetcher::Fetcher;
use preflight::preflight;
use retention::Keeper;
use settler::Settler;
use shared::Shared;
use source::Source;
use views::Views;

/// Most bytes a single wake, reclaim or adopt brings.
const ROOM: usize = 4 << 20;

/// How long after the drain time what is finished may still take to be settled.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A worker of a group: reads entries of streams, hands each to its handler, and settles it.
///
/// ```no_run
/// # use streamhand::{Registry, Settings, Worker};
/// # async fn example(registry: Registry) -> streamhand::Result<()> {
/// let worker = Worker::new(Settings::default(), registry)?;
/// worker.run(async { tokio::signal::ctrl_c().await.unwrap() }).await?;
/// # Ok(()) }
/// ```
pub struct Worker {
    settings: Settings,
    registry: Registry,
    connector: Connector,
    /// What is set up for nothing.
    warnings: Vec<String>,
    observer: Option<Arc<dyn Observer>>,
}

/// What a worker did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Entries that were acknowledged, parked, given back or buried.
    pub settled: u64,
    /// Entries that could not be settled before the end. They stay pending, and other workers take them over when
    /// the lease is over.
    pub unsettled: usize,
}

impl Worker {
    /// A worker by `settings`, with the handlers of `registry`. Does not connect yet.
    ///
    /// # Errors
    /// Where the registry is wrong, `redis.url` is, or the two of them do not fit the group.
    pub fn new(settings: Settings, registry: Registry) -> Result<Self> {
        let warnings = preflight(&settings, &registry).passed()?;
        let connector = Connector::new(&settings.redis)?;
        Ok(Worker {
            settings,
            registry,
            connector,
            warnings,
            observer: None,
        })
    }

    /// The same worker, watched by `observer`.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Works until `shutdown` ends; then gives back what has not started, waits for running handlers up to
    /// `worker.drain`, and settles what they did. Waits for a Redis that can't be reached.
    ///
    /// # Errors
    /// Where waiting can't help: the server is too old, or workers of another release have taken over the group.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Summary> {
        let Worker {
            settings,
            registry,
            connector,
            warnings,
            observer,
        } = self;
        let pool = connector.pool(settings.redis.pool_size)?;
        let breakers = Arc::new(Breakers::new(settings.breakers.clone()));
        let (ask, asks) = mpsc::unbounded_channel();
        let surroundings = |stream: &String| Surroundings {
            stream: stream.clone(),
            group: settings.worker.group.clone(),
            pool: Some(pool.clone()),
            publisher: Some(Publisher::with_pool(pool.clone())),
            breakers: breakers.clone(),
            commits: Some(ask.downgrade()),
        };
        let sources = settings
            .worker
            .streams
            .iter()
            .map(|stream| Source::new(surroundings(stream)))
            .collect();
        let types = registry.event_types().collect::<Vec<_>>().join(", ");
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let windows = Arc::new(Windows::new(&settings, &registry));
        let projections = registry.projections().to_vec();
        let routes = Routes::new(&settings, registry, &breakers);
        let shared = Shared::new(&settings, connector, sources, observer, routes, breakers);
        let shared = Arc::new(shared);
        tracing::info!(
            group = shared.group,
            streams = settings.worker.streams.join(", "),
            handles = types,
            consumer = shared.consumer,
            redis = shared.connector.address,
            "worker starts"
        );

        let views = Views::run(projections, &settings, &shared)?;
        let (acknowledge, acks) = mpsc::unbounded_channel();
        let (settle, settlements) = mpsc::unbounded_channel();
        let (commit, jobs) = mpsc::unbounded_channel();
        let settler = Settler::new(shared.clone(), windows.clone(), acknowledge.clone());
        let committer = Committer::new(shared.clone(), windows.clone(), settle.clone());
        let committing = committer.run(jobs, asks);
        let (to_executor, at_executor, inline) = Dispatcher::to_executor(shared.clone());
        let lanes = to_executor.lanes();
        // Where no handler deduplicates, nobody stands between the fetcher and the executor.
        let (dispatcher, door) = if windows.is_empty() {
            (to_executor, None)
        } else {
            let (to_doorman, at_doorman) = Dispatcher::to_doorman();
            let (acks, settle) = (acknowledge.clone(), settle.clone());
            let doorman = Doorman::new(shared.clone(), windows, to_executor, acks, settle);
            (to_doorman, Some(doorman.run(at_doorman)))
        };
        let settle_unread = settle.clone();
        let commits = Commits::new(shared.clone(), commit, ask, settle.clone());
        let executor = Executor::new(shared.clone(), acknowledge, settle, commits);
        let executor = Arc::new(executor);
        let give_up = executor.give_up.clone();
        let parts = io::Parts {
            acks,
            settler,
            settlements,
            keeper: Keeper::new(&shared, &settings),
            committing: async move {
                tokio::join!(committing, OptionFuture::from(door));
            },
        };
        let hands = io::Hands {
            executor: executor.clone(),
            lanes,
        };
        let inlined = io::Inlined {
            fetcher: Fetcher::new(shared.clone(), dispatcher, settle_unread),
            runs: inline,
            hands,
        };
        let io = io::spawn(shared.clone(), parts, inlined)?;
        let mut work = tokio::spawn(executor.work(at_executor));

        tokio::select! {
            () = shutdown => tracing::info!("stopping: what has not started is given back"),
            () = shared.stopping.cancelled() => {}
        }
        let drain = Instant::now() + settings.worker.drain;
        shared.stop();
        views.stop();
        shared.held.cancel_all(Cancelled::Stopping);
        if tokio::time::timeout_at(drain.into(), &mut work)
            .await
            .is_err()
        {
            let running = executor::running(&shared.slots, shared.concurrency);
            tracing::warn!(
                running,
                "the drain time is over: handlers that still run are cut off"
            );
            give_up.cancel();
            // A handler that blocks its thread can't be cut off: it dies with the process.
            let _ = tokio::time::timeout(Duration::from_millis(500), &mut work).await;
        }
        work.abort();
        if tokio::time::timeout_at((drain + LAST_WORDS).into(), io.ended())
            .await
            .is_err()
        {
            shared.abandon.cancel();
        }
        views.ended().await;
        if let Some(error) = shared.take_failure() {
            return Err(error);
        }
        let summary = Summary {
            settled: shared.held.settled(),
            unsettled: shared.held.entries(),
        };
        if summary.unsettled > 0 {
            tracing::error!(
                unsettled = summary.unsettled,
                "stopped with entries unsettled; they stay pending, and other workers take them over"
            );
        } else {
            tracing::info!(settled = summary.settled, "stopped");
        }
        Ok(summary)
    }
}

/// A stopping worker takes its consumers along, where they hold nothing.
async fn leave(shared: &Shared) {
    let leave = async {
        let mut link = shared
            .connect("leave", Duration::from_secs(2))
            .await
            .map_err(Trouble::Broken)?;
        for source in shared.active_sources() {
            for consumer in [&shared.consumer, &shared.alone] {
                match link
                    .forget(&source.keys, &shared.group, consumer, None)
                    .await
                {
                    Err(broken @ Trouble::Broken(_)) => return Err(broken),
                    Err(trouble) => tracing::debug!("{}", trouble.error()),
                    Ok(_) => {}
                }
            }
            link.note_leaving(&source.keys).await?;
        }
        Ok::<(), Trouble>(())
    };
    if let Err(trouble) = leave.await {
        tracing::debug!("{}", trouble.error());
    }
}

/// Entries that are gone from the stream before this group was done with them: they can't be brought back.
fn report_trimmed(source: &Source, ids: &[EntryId], when: &str) {
    if let Some(first) = ids.first() {
        let (stream, count) = (&source.keys.stream, ids.len());
        tracing::error!(stream, count, first = %first, "LOST TO TRIMMING: deleted from the stream {when}");
    }
}

fn foreign(group: &str, stream: &str, protocol: &str) -> Trouble {
    Trouble::Refused(Error::new(
        ErrorKind::Protocol,
        format!(
            "the group {group:?} of {stream:?} is worked on by a newer release (protocol {protocol}; this one speaks \
             {PROTOCOL}): update this worker"
        ),
    ))
}

/// Linux lets a sleeping thread sleep on for some 50 µs; the one that calls this is woken in time.
pub(crate) fn wake_in_time() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}
