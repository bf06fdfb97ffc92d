//! What it costs to handle an entry and to acknowledge it: see [`crate::instructions`]. Entries go the way of every
//! entry, in by the fetcher's door, through the executor and the acker; all that is made up is the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::config::{BreakerSettings, RedisUrl, Settings, Start};
use crate::context::{Context, Surroundings};
use crate::event::Entry;
use crate::failure::Failure;
use crate::handler::Registry;
use crate::instructions::{ENTRIES, REPLIES, STREAM, Sample, WARM_UP, counted, report, uncounted};
use crate::metrics::Metrics;
use crate::metrics::entries::{ServerTime, Via};
use crate::metrics::table::Id;
use crate::policy::Breakers;
use crate::stream::Connector;
use crate::stream::instructions::entries;
use crate::worker::run::batches::Keepers;
use crate::worker::run::dispatch::Dispatcher;
use crate::worker::run::outcome::Acks;
use crate::worker::run::outcome::Outcomes;
use crate::worker::run::report::Reporter;
use crate::worker::run::routes::Routes;
use crate::worker::shard::fetch::delivery::{Deliveries, Delivery};
use crate::worker::shard::fetch::rounds::{Downstream, Rounds};
use crate::worker::shard::unit::{Common, Shard};
use crate::worker::state::capacity::Capacity;
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::Coming;
use crate::worker::state::slots::Slots;
use crate::worker::state::source::Source;
use crate::worker::state::source::Sources;
use crate::worker::watchdog::LOOK;

#[test]
#[ignore = "counted by scripts/instructions"]
fn dispatch() {
    handle_all(&Worker::new(
        "redis://127.0.0.1:1",
        Settings::default(),
        None,
    ));
}

/// The same where it is counted.
#[test]
#[ignore = "counted by scripts/instructions"]
fn dispatch_counted() {
    let metrics = Metrics::new();
    let url = "redis://127.0.0.1:1";
    handle_all(&Worker::new(url, Settings::default(), Some(&metrics)));
}

/// With a time limit, as always, a circuit breaker and a limit of how many run at once.
#[test]
#[ignore = "counted by scripts/instructions"]
fn guarded() {
    let mut settings = Settings::default();
    settings.defaults.circuit_breaker = Some(BreakerSettings::default());
    settings.defaults.concurrency = Some(16);
    handle_all(&Worker::new("redis://127.0.0.1:1", settings, None));
}

fn handle_all(worker: &Worker) {
    for nth in 0..WARM_UP + REPLIES {
        let mut acks = worker.dispatch(entries(nth), nth >= WARM_UP);
        let handed_over = std::iter::from_fn(|| acks.try_recv().ok());
        assert_eq!(
            handed_over.map(|acks| acks.slots.len()).sum::<usize>(),
            ENTRIES
        );
    }
    report(REPLIES * ENTRIES);
}

#[test]
#[ignore = "counted by scripts/instructions"]
fn settle() {
    settle_all(None);
}

/// The same where it is counted: what each entry's handler took, its wait, its age and its attempts.
#[test]
#[ignore = "counted by scripts/instructions"]
fn settle_counted() {
    let metrics = Metrics::new();
    settle_all(Some(&metrics));
    let snapshot = metrics.snapshot();
    let acked = snapshot.total(Id::Settled, &[("outcome", "acked")]);
    assert_eq!(acked as usize, (WARM_UP + REPLIES) * ENTRIES);
    let ran = snapshot.histogram(Id::ProcessDuration, &[]);
    assert_eq!(ran.count() as usize, (WARM_UP + REPLIES) * ENTRIES);
}

fn settle_all(metrics: Option<&Metrics>) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("redis");
    let url = format!("unix://{}", path.display());
    let worker = Worker::new(&url, Settings::default(), metrics);
    let listener = worker.runtime.block_on(async { UnixListener::bind(&path) });
    worker.runtime.spawn(serve(listener.expect("a socket")));
    for nth in 0..WARM_UP + REPLIES {
        let acks = worker.dispatch(entries(nth), false);
        worker.settle(acks, nth >= WARM_UP);
        assert_eq!(
            worker.shard.inflight.settled() as usize,
            (nth + 1) * ENTRIES
        );
    }
    report(REPLIES * ENTRIES);
}

/// The parts of a worker, on one thread.
struct Worker {
    settings: Settings,
    shard: Shard,
    capacity: Capacity,
    source: Arc<Source>,
    runtime: Runtime,
}

impl Worker {
    fn new(url: &str, mut settings: Settings, metrics: Option<&Metrics>) -> Self {
        settings.redis.url = RedisUrl::parse(url).expect("a URL");
        // Under callgrind everything takes fifty times as long; no lease is to run out.
        settings.worker.lease = Duration::from_secs(3600);
        // One lane, whatever the machine.
        settings.worker.concurrency = 1;
        let connector = Connector::new(&settings.redis).expect("a connector");
        let breakers = Arc::<Breakers>::default();
        let routes = Routes::new(&settings, Registry::new().on(handle), &breakers);
        let surroundings = Surroundings {
            stream: STREAM.to_owned(),
            group: settings.worker.group.clone(),
            pool: None,
            publisher: None,
            breakers: Arc::default(),
            commits: None,
            tracer: None,
        };
        let counts = metrics.map(|metrics| {
            let types = routes.all().iter().map(|bound| &bound.gate.name[..]);
            let group = &settings.worker.group;
            metrics.worker(group, [STREAM], types, ServerTime::default())
        });
        let of_stream = counts.as_ref().and_then(|counts| counts.stream(STREAM));
        let is_limited = routes.is_limited();
        let source = Source::new(
            surroundings,
            Start::Beginning,
            is_limited,
            None,
            of_stream.cloned(),
        );
        let sources = Sources::new(vec![source.clone()]);
        let capacity = Capacity::new(Arc::new(Slots::new(1)), 2 * LOOK);
        let identity = Arc::new(Identity::new(&settings));
        let common = Common::new(identity, routes, capacity.clone(), counts);
        Worker {
            shard: Shard::new(&common, connector, sources, Arc::default(), None),
            settings,
            capacity,
            source,
            runtime: Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime"),
        }
    }

    /// Handles entries. Answers what is to be acknowledged.
    fn dispatch(&self, entries: Vec<Entry>, counts: bool) -> mpsc::UnboundedReceiver<Acks> {
        let (acknowledge, acks) = mpsc::unbounded_channel();
        let (settle, _settlements) = mpsc::unbounded_channel();
        let (dispatcher, at_executor, _inline) =
            Dispatcher::to_executor(self.capacity.inline.clone());
        let (commit, _jobs) = mpsc::unbounded_channel();
        let (commit_batch, _batches) = mpsc::unbounded_channel();
        let (ask, _asks) = mpsc::unbounded_channel();
        let reporter = Arc::new(Reporter::new(
            None,
            self.shard.routes.clone(),
            self.shard.inflight.clone(),
            None,
        ));
        let outcomes = Outcomes::new(self.shard.inflight.clone(), acknowledge, settle);
        let executor = super::wiring::executor(
            &self.shard,
            self.capacity.clone(),
            reporter,
            outcomes,
            (commit, commit_batch, ask),
            Keepers::gathers(1_000, Duration::ZERO),
        );
        let (settle, _) = mpsc::unbounded_channel();
        let downstream = Downstream {
            capacity: self.capacity.clone(),
            breakers: Arc::default(),
            observer: None,
            runs: dispatcher,
            settle,
        };
        let mut rounds = Rounds::new(&self.shard, &self.settings, downstream);
        let handled = SEEN.load(Ordering::Relaxed) + entries.len();
        counted(counts, || {
            rounds.hand_over(Deliveries {
                source: self.source.clone(),
                via: Via::Read,
                coming: Coming::InTurn,
                since: Instant::now(),
                entries: entries.into_iter().map(Delivery::new).collect(),
            });
            // Then the executor ends once it has worked on what is there.
            drop(rounds);
            self.runtime.block_on(executor.work(at_executor));
        });
        assert_eq!(SEEN.load(Ordering::Relaxed), handled);
        acks
    }

    /// Acknowledges what has succeeded, all at once.
    fn settle(&self, acks: mpsc::UnboundedReceiver<Acks>, counts: bool) {
        let acker = super::wiring::acker(&self.shard);
        counted(counts, || self.runtime.block_on(acker.run(acks)));
    }
}

/// Events that came to the handler whole.
static SEEN: AtomicUsize = AtomicUsize::new(0);

async fn handle(order: Sample, _ctx: Context) -> Result<(), Failure> {
    let is_whole = order.order_id.len() == "o-000000".len() && order.amount < 1_000_000;
    SEEN.fetch_add(usize::from(is_whole), Ordering::Relaxed);
    Ok(())
}

/// A server that answers whatever is asked, on this thread and not counted.
async fn serve(listener: UnixListener) {
    let mut serving = Box::pin(async {
        loop {
            let (socket, _) = listener.accept().await.expect("a client");
            answer(socket).await;
        }
    });
    std::future::poll_fn(|cx| uncounted(|| serving.as_mut().poll(cx))).await
}

async fn answer(mut socket: UnixStream) {
    let (mut asked, mut answers) = (Vec::new(), Vec::new());
    while socket.read_buf(&mut asked).await.is_ok_and(|came| came > 0) {
        while let Some((name, length)) = command(&asked) {
            answers.extend_from_slice(match name {
                b"INFO" => b"$31\r\nredis_version:7.2.0\r\nrun_id:a\r\n\r\n",
                b"CLIENT" => b":1\r\n",
                b"XACK" => b":500\r\n",
                _ => b"-ERR unknown command\r\n",
            });
            asked.drain(..length);
        }
        socket
            .write_all(&answers)
            .await
            .expect("the client is there");
        answers.clear();
    }
}

/// The name of the first command, and how many bytes it has; None where it is not whole.
fn command(asked: &[u8]) -> Option<(&[u8], usize)> {
    let line = |at: usize| {
        let rest = asked.get(at..)?;
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let number = std::str::from_utf8(&rest[1..end])
            .ok()?
            .parse::<usize>()
            .ok()?;
        Some((number, at + end + 2))
    };
    let (arguments, mut at) = line(0)?;
    let mut name = None;
    for _ in 0..arguments {
        let (length, begin) = line(at)?;
        at = begin + length + 2;
        name = name.or(Some(asked.get(begin..begin + length)?));
    }
    (at <= asked.len()).then_some((name?, at))
}
