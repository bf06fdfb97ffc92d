//! A worker whose network is bad, once.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;

use super::{PATIENCE, attempts};
use crate::support::jobs::{self, Action, Job, many};
use crate::support::{
    Caught, Exchange, InProcess, Proxy, Server, Setup, eventually, scripts, settled,
};

/// How much later a late answer comes.
const LATE: Duration = Duration::from_secs(1);

/// What becomes of a step on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The connection breaks before the server has the request.
    Request,
    /// The connection breaks when the server has done the step.
    Answer,
    Late,
}

/// A stream, and a worker whose network is bad, once.
pub struct Scene {
    loss: Loss,
    pub stream: String,
    jobs: Vec<Job>,
    redis: MultiplexedConnection,
    pub proxy: Proxy,
}

/// Plays a scene with each of the losses, all at once.
pub async fn with_each_loss(server: &Server, step: &str, play: impl AsyncFn(Scene)) {
    let losses = [Loss::Request, Loss::Answer, Loss::Late];
    let scenes = losses.map(async |loss| play(Scene::new(server, step, loss).await).await);
    join_all(scenes).await;
}

impl Scene {
    pub async fn new(server: &Server, step: &str, loss: Loss) -> Self {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = Proxy::start(server.port()).await;
        let stream = format!("{step}-{loss:?}").to_lowercase();
        Scene {
            loss,
            stream,
            jobs: Vec::new(),
            redis,
            proxy,
        }
    }

    pub fn streams(&self) -> String {
        format!("streams = [{:?}]", self.stream)
    }

    /// A worker whose lease heals nothing: what is lost must be found without. While an answer is late, renewals go on,
    /// and find what the worker does not hold yet.
    pub fn setup(&self) -> Setup {
        let lease = if self.loss == Loss::Late { "2s" } else { "60s" };
        let setup = Setup::at(self.proxy.url()).worker(&self.streams());
        setup.worker(&format!("lease = {lease:?}"))
    }

    /// A worker that has read all there was.
    pub async fn start_reading(&mut self) -> InProcess {
        let worker = self.setup().start();
        let address = format!("XREADGROUP of {}", self.stream);
        eventually(PATIENCE, address, async || {
            self.proxy.traffic().commands.contains_key("XREADGROUP")
        })
        .await;
        worker
    }

    pub fn set(&self, exchange: Exchange) -> Caught {
        match self.loss {
            Loss::Request => self.proxy.cut_before(exchange),
            Loss::Answer => self.proxy.cut_after(exchange),
            Loss::Late => self.proxy.delay(exchange, LATE),
        }
    }

    pub async fn publish(&mut self, count: usize, action: Action) {
        self.jobs = many(&self.stream, count, &action);
        jobs::publish(&mut self.redis, &self.stream, &self.jobs).await;
    }

    /// Delivers all there is to a worker of another machine, the given number of times, which is never heard of again.
    pub async fn leave_to_a_dead_worker(&mut self, deliveries: u32) {
        let gone = "sh1-500-elsewhere-1-0000000000000000";
        let mut pipe = redis::pipe();
        pipe.cmd("XGROUP")
            .arg("CREATE")
            .arg(&self.stream)
            .arg("workers")
            .arg("0");
        pipe.cmd("XREADGROUP").arg("GROUP").arg("workers").arg(gone);
        pipe.arg("STREAMS").arg(&self.stream).arg(">");
        for _ in 1..deliveries {
            pipe.cmd("XAUTOCLAIM")
                .arg(&self.stream)
                .arg("workers")
                .arg(gone)
                .arg(0)
                .arg("0");
        }
        let _: redis::Value = pipe.query_async(&mut self.redis).await.unwrap();
    }

    /// How often its jobs were started, all together.
    pub async fn starts(&mut self) -> usize {
        let started = jobs::started(&mut self.redis).await;
        let ours = |trace: &&jobs::Trace| self.jobs.iter().any(|job| job.id == trace.id);
        started.iter().filter(ours).count()
    }

    /// Waits until all is settled; then each has started in just these attempts, and as much as that is buried.
    pub async fn comes_to(mut self, worker: InProcess, expected: &[u32], dead: u64) {
        let (loss, since) = (self.loss, Instant::now());
        settled(&mut self.redis, &self.stream, PATIENCE).await;
        assert!(
            since.elapsed() < Duration::from_secs(10),
            "{loss:?}: after {:?}",
            since.elapsed()
        );
        // What runs twice ends before the worker does.
        assert_eq!(worker.stop().await.unsettled, 0, "{loss:?}");
        for job in &self.jobs {
            let attempts = attempts(&mut self.redis, &job.id).await;
            assert_eq!(attempts, expected, "{loss:?}: attempts of {}", job.id);
        }
        let left = format!("{{{}}}:workers", self.stream);
        let (parked, records, buried): (u64, u64, u64) = redis::pipe()
            .cmd("ZCARD")
            .arg(format!("{left}:retry"))
            .cmd("HLEN")
            .arg(format!("{left}:failures"))
            .cmd("XLEN")
            .arg(format!("{left}:dead"))
            .query_async(&mut self.redis)
            .await
            .unwrap();
        assert_eq!((parked, records, buried), (0, 0, dead), "{loss:?}");
    }
}
