//! bullmq-official: a hash a job, and Lua scripts that finish one job and fetch the next.
//!
//! - Its format; the data are JSON, it knows no other.
//! - `concurrency`: jobs at once, whose scripts share one connection and are pipelined; 20 took less
//!   CPU than 50, 100 and 500.
//! - `remove_on_complete`: nothing is kept of a finished job.

use bullmq::options::RedisConnectionOptions;
use bullmq::types::RemoveOnFinish;
use bullmq::worker::CancellationToken as JobToken;
use bullmq::{BulkJob, Job, Queue, QueueOptions, Worker, WorkerOptions};
use redis::aio::MultiplexedConnection;
use tokio_util::sync::CancellationToken;

use super::{Bench, ORDERS, Peer, Threads};
use crate::Result;
use crate::order::Order;
use crate::tally::TALLY;

pub struct Bullmq;

impl Peer for Bullmq {
    const NAME: &'static str = "bullmq";
    const CRATE: &'static str = "bullmq-official";
    const SETTINGS: &'static str = "concurrency 20, remove_on_complete";
    const THREADS: Threads = Threads::One;

    async fn publish(bench: &Bench) -> Result<()> {
        let queue =
            Queue::with_options(ORDERS, QueueOptions::new().connection(connection(bench))).await?;
        for orders in Order::chunks(bench.events) {
            let jobs = orders
                .into_iter()
                .map(|order| BulkJob::new("order.created", order));
            queue.add_bulk(jobs.collect()).await?;
        }
        Ok(())
    }

    async fn work(bench: Bench, stop: CancellationToken) -> Result<()> {
        let options = WorkerOptions::new()
            .connection(connection(&bench))
            .concurrency(20)
            .remove_on_complete(RemoveOnFinish::Bool(true));
        let handler = async |job: Job, _: JobToken| {
            TALLY.handle(&serde_json::from_value(job.data().clone())?);
            Ok(serde_json::Value::Null)
        };
        let worker = Worker::with_options(ORDERS, handler, options).await?;
        stop.cancelled().await;
        worker.close(10_000).await?;
        Ok(())
    }

    /// Waiting, being worked on, or failed.
    async fn pending(_: &Bench, conn: &mut MultiplexedConnection) -> Result<u64> {
        let key = |name: &str| format!("bull:{ORDERS}:{name}");
        let mut sizes = redis::pipe();
        sizes
            .cmd("LLEN")
            .arg(key("wait"))
            .cmd("LLEN")
            .arg(key("active"));
        sizes
            .cmd("ZCARD")
            .arg(key("failed"))
            .cmd("ZCARD")
            .arg(key("delayed"));
        let sizes: Vec<u64> = sizes.query_async(conn).await?;
        Ok(sizes.iter().sum())
    }
}

fn connection(bench: &Bench) -> RedisConnectionOptions {
    RedisConnectionOptions::new().url(&bench.url)
}
