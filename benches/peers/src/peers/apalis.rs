//! apalis over apalis-redis: a list of ids, a hash of payloads and a hash a task, moved by Lua scripts.
//!
//! - Its format, with its MessagePack codec. Pushed tasks wait in a sorted set until they are due, which is at once,
//!   and each fetch moves all that are due to the list it reads, by one `unpack`: more than 8000 of them, and every
//!   fetch fails. So they are moved in portions, by the commands its own script uses, before the clock starts.
//! - `batch_size` 1000: the ids of a fetch, and what is acknowledged by one script. (Lua's `unpack` ends at 8000.)
//! - `persist_results`, which is its acknowledgement, stays on; `lock_tasks` is off, as its documentation advises for
//!   short tasks, and so is `emit_events`, a PUBLISH a task that nobody listens to.
//! - Not `parallelize`: a spawned task costs more than this handler.

use apalis::prelude::{BackendExt, TaskSink, WorkerBuilder};
use apalis_codec::msgpack::MsgPackCodec;
use apalis_redis::{Config, RedisStorage};
use redis::aio::MultiplexedConnection;
use tokio_util::sync::CancellationToken;

use super::{Bench, CONSUMER, ORDERS, Peer, Threads};
use crate::Result;
use crate::order::Order;
use crate::tally::TALLY;

const MOVE_DUE: &str = "
local due = redis.call('zrange', KEYS[1], 0, -1)
redis.call('rpush', KEYS[2], unpack(due))
redis.call('zrem', KEYS[1], unpack(due))
";

pub struct Apalis;

impl Peer for Apalis {
    const NAME: &'static str = "apalis";
    const CRATE: &'static str = "apalis-redis";
    const SETTINGS: &'static str = "batch_size 1000, MessagePack, lock_tasks and emit_events off";
    const THREADS: Threads = Threads::One;

    async fn publish(bench: &Bench) -> Result<()> {
        let mut redis = bench.connect().await?;
        let conn = apalis_redis::connect(bench.url.as_str()).await?;
        let mut storage = RedisStorage::<Order>::new(conn)
            .with_config(config())
            .with_codec(MsgPackCodec::default());
        for orders in Order::chunks(bench.events) {
            storage.push_bulk(orders).await?;
            let mut move_due = redis::cmd("EVAL");
            move_due
                .arg(MOVE_DUE)
                .arg(2)
                .arg(config().scheduled_jobs_set())
                .arg(config().active_jobs_list());
            let _: () = move_due.query_async(&mut redis).await?;
        }
        Ok(())
    }

    async fn work(bench: Bench, stop: CancellationToken) -> Result<()> {
        let conn = apalis_redis::connect(bench.url.as_str()).await?;
        let storage = RedisStorage::<Order>::new(conn)
            .with_config(config())
            .with_codec(MsgPackCodec::default());
        let worker = WorkerBuilder::new(CONSUMER)
            .backend(storage)
            .build(async |order: Order| TALLY.handle(&order));
        worker
            .run_with_ctx(move |context| {
                let stop = stop.clone();
                async move {
                    stop.cancelled().await;
                    context.stop()
                }
            })
            .await?;
        Ok(())
    }

    async fn pending(bench: &Bench, conn: &mut MultiplexedConnection) -> Result<u64> {
        let config = config();
        let done: u64 = redis::cmd("SCARD")
            .arg(config.done_jobs_set())
            .query_async(conn)
            .await?;
        Ok(bench.events - done)
    }
}

fn config() -> Config {
    Config::default()
        .queue(ORDERS)
        .batch_size(1_000)
        .lock_tasks(false)
        .emit_events(false)
}
