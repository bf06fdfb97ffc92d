//! Workers for tests: how one is configured, and one that runs inside the test.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use streamhand::metrics::Metrics;
use streamhand::{Observer, Registry, Settings, Summary, Worker};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Server, WorkerProcess, eventually, jobs};

/// The table of one handler.
const HANDLER: &str = "handlers.\"test.job\"";

/// A worker's configuration, quick enough for tests.
#[derive(Clone)]
pub struct Setup {
    lines: Vec<(&'static str, String)>,
    /// Whole tables.
    more: String,
}

impl Setup {
    /// A worker of `server`: the group `workers` of the stream `jobs`, a lease of 2 s, five
    /// attempts, 100 ms apart.
    pub fn new(server: &Server) -> Self {
        Setup::at(server.url())
    }

    pub fn at(url: String) -> Self {
        let (lines, more) = (Vec::new(), String::new());
        Setup { lines, more }
            .redis(&format!("url = \"{url}\""))
            .worker("group = \"workers\"")
            .worker("streams = [\"jobs\"]")
            .worker("lease = \"2s\"")
            .retry("backoff = { initial = \"100ms\", factor = 1.0, jitter = 0.0 }")
    }

    /// Sets a line of `[redis]`.
    pub fn redis(self, line: &str) -> Self {
        self.line("redis", line)
    }

    /// Sets a line of `[worker]`, in place of one of the same key.
    pub fn worker(self, line: &str) -> Self {
        self.line("worker", line)
    }

    /// Sets a line of `[retry]`.
    pub fn retry(self, line: &str) -> Self {
        self.line("retry", line)
    }

    /// Sets a line of `[defaults]`.
    pub fn defaults(self, line: &str) -> Self {
        self.line("defaults", line)
    }

    /// Adds whole tables, such as `[handlers."order.created"]`.
    pub fn more(mut self, tables: &str) -> Self {
        self.more += &format!("{tables}\n");
        self
    }

    /// Sets a line of `[streams.jobs]`.
    pub fn stream(self, line: &str) -> Self {
        self.line("streams.jobs", line)
    }

    /// Sets a line of `[dead_letters]`.
    pub fn dead_letters(self, line: &str) -> Self {
        self.line("dead_letters", line)
    }

    /// Sets a line for the handler of [`jobs::Job`] alone.
    pub fn handler(self, line: &str) -> Self {
        self.line(HANDLER, line)
    }

    fn line(mut self, table: &'static str, line: &str) -> Self {
        let key = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
        self.lines
            .retain(|(known, old)| *known != table || key(old) != key(line));
        self.lines.push((table, line.to_owned()));
        self
    }

    pub fn toml(&self) -> String {
        let mut toml = String::new();
        let tables = [
            "redis",
            "worker",
            "retry",
            "defaults",
            "streams.jobs",
            "dead_letters",
            HANDLER,
        ];
        for table in tables {
            let mut lines = self.lines.iter().filter(|(of, _)| *of == table).peekable();
            if lines.peek().is_some() {
                toml += &format!("[{table}]\n");
            }
            for (_, line) in lines {
                toml += &format!("{line}\n");
            }
        }
        toml + &self.more
    }

    /// A worker in a process of its own.
    pub fn process(&self) -> WorkerProcess {
        WorkerProcess::builder().config(&self.toml()).start()
    }

    /// A worker inside the test, with the tests' handlers.
    pub fn start(&self) -> InProcess {
        self.start_with(jobs::registry())
    }

    /// A worker inside the test.
    pub fn start_with(&self, registry: Registry) -> InProcess {
        self.start_observed(registry, ())
    }

    /// A worker inside the test, watched.
    pub fn start_observed(&self, registry: Registry, observer: impl Observer) -> InProcess {
        self.run(registry, |worker| worker.observer(observer))
    }

    /// A worker inside the test, which counts what it does.
    pub fn start_counted(&self, registry: Registry, metrics: &Metrics) -> InProcess {
        self.run(registry, |worker| worker.metrics(metrics))
    }

    fn run(&self, registry: Registry, with: impl FnOnce(Worker) -> Worker) -> InProcess {
        let settings = Settings::from_toml_str(&self.toml()).expect("a right configuration");
        let worker = with(Worker::new(settings, registry).expect("a worker"));
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(worker.run(async {
            let _ = stopped.await;
        }));
        InProcess {
            stop: Some(stop),
            running,
        }
    }
}

/// A worker inside the test. Dropped, it stops as if it had been told to.
pub struct InProcess {
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<streamhand::Result<Summary>>,
}

impl InProcess {
    /// Tells it to stop and waits until it has.
    pub async fn stop(mut self) -> Summary {
        self.stop.take();
        self.ended().await.expect("a clean end")
    }

    /// Waits until it ends.
    pub async fn ended(self) -> streamhand::Result<Summary> {
        let InProcess {
            stop: _stop,
            running,
        } = self;
        tokio::time::timeout(Duration::from_secs(40), running)
            .await
            .expect("the worker to end")
            .expect("no panic")
    }
}

/// What is pending in the group `workers` of a stream: how much with each consumer. Nothing where
/// there is no such group yet.
pub async fn pending(redis: &mut MultiplexedConnection, stream: &str) -> Vec<(String, u64)> {
    type Summary = (u64, redis::Value, redis::Value, Option<Vec<(String, u64)>>);
    let mut command = redis::cmd("XPENDING");
    match command
        .arg(stream)
        .arg("workers")
        .query_async::<Summary>(redis)
        .await
    {
        Ok((_, _, _, consumers)) => consumers.unwrap_or_default(),
        Err(error) if error.code() == Some("NOGROUP") => Vec::new(),
        Err(error) => panic!("XPENDING: {error}"),
    }
}

/// What is pending in the group `workers` of the stream `jobs`, parked or not: the ids, in their order.
pub async fn all_pending(redis: &mut MultiplexedConnection) -> Vec<String> {
    let mut command = redis::cmd("XPENDING");
    command
        .arg("jobs")
        .arg("workers")
        .arg("-")
        .arg("+")
        .arg(1000);
    let pending: Vec<(String, String, u64, u64)> =
        command.query_async(redis).await.expect("a group");
    pending.into_iter().map(|(id, ..)| id).collect()
}

/// How many dead letters the group `workers` of the stream `jobs` has.
pub async fn dead(redis: &mut MultiplexedConnection) -> u64 {
    let mut command = redis::cmd("XLEN");
    command
        .arg("{jobs}:workers:dead")
        .query_async(redis)
        .await
        .expect("a stream, or nothing")
}

/// How many entries of the stream `jobs` wait for their due time in the group `workers`.
pub async fn parked(redis: &mut MultiplexedConnection) -> usize {
    let mut zcard = redis::cmd("ZCARD");
    zcard
        .arg("{jobs}:workers:retry")
        .query_async(redis)
        .await
        .expect("a sorted set, or nothing")
}

/// Waits until the group `workers` of a stream has read everything and settled it.
pub async fn settled(redis: &mut MultiplexedConnection, stream: &str, deadline: Duration) {
    eventually(
        deadline,
        format!("everything in {stream} to be settled"),
        async || {
            let groups: redis::streams::StreamInfoGroupsReply = redis::cmd("XINFO")
                .arg("GROUPS")
                .arg(stream)
                .query_async(redis)
                .await
                .ok()
                .ok_or("no stream")?;
            let group = groups
                .groups
                .iter()
                .find(|group| group.name == "workers")
                .ok_or("no group")?;
            let info: redis::streams::StreamInfoStreamReply = redis::cmd("XINFO")
                .arg("STREAM")
                .arg(stream)
                .query_async(redis)
                .await
                .map_err(|_| "no stream")?;
            if group.last_delivered_id != info.last_generated_id {
                return Err(format!(
                    "read up to {} of {}",
                    group.last_delivered_id, info.last_generated_id
                ));
            }
            match group.pending {
                0 => Ok(()),
                pending => Err(format!("{pending} pending")),
            }
        },
    )
    .await
}
