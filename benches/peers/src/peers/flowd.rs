//! flowd: a task a message, each with an XACK of its own, pipelined over one connection.
//!
//! - `max_concurrent_tasks` is the COUNT of a read and the limit of tasks: 300 gave the most of 50, 100, 300, 1000 and
//!   5000: fewer make small reads, more outgrow the caches.
//! - The connections have no response timeout: with the client's default of 500 ms a blocked read is given up while
//!   the server goes on with it, and what it is answered is lost to everybody.
//! - `Job` is written by hand instead of derived, so that it reads the entries of streamhand and decodes them once.

use flowd::task::{Queue, QueueBuilder};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Value};
use tokio_util::sync::CancellationToken;

use super::{
    Bench, CONSUMER, DATA, GROUP, ORDERS, Peer, Threads, pending_in, publish_as_streamhand,
};
use crate::Result;
use crate::order::Order;
use crate::tally::TALLY;

const TASKS: usize = 300;

pub struct Flowd;

impl Peer for Flowd {
    const NAME: &'static str = "flowd";
    const CRATE: &'static str = "flowd";
    const SETTINGS: &'static str = "max_concurrent_tasks 300, no response timeout";
    const THREADS: Threads = Threads::One;

    async fn publish(bench: &Bench) -> Result<()> {
        publish_as_streamhand(bench).await
    }

    async fn work(bench: Bench, stop: CancellationToken) -> Result<()> {
        let handler = async |Received(order): Received| {
            TALLY.handle(&order);
            Ok::<(), String>(())
        };
        let (conn, reader) = (patient(&bench).await?, patient(&bench).await?);
        let builder = QueueBuilder::new(ORDERS, GROUP, CONSUMER, handler, conn, reader);
        let queue = Queue::new(builder.max_concurrent_tasks(TASKS).block_timeout(1_000));
        queue.init().await?;
        let running = queue.run();
        stop.cancelled().await;
        running.shutdown().await;
        Ok(())
    }

    async fn pending(_: &Bench, conn: &mut MultiplexedConnection) -> Result<u64> {
        pending_in(conn, ORDERS, GROUP).await
    }
}

async fn patient(bench: &Bench) -> Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let client = redis::Client::open(bench.url.as_str())?;
    Ok(client
        .get_multiplexed_async_connection_with_config(&config)
        .await?)
}

struct Received(Order);

impl flowd::Job for Received {
    fn try_to_pairs(self) -> Result<Vec<(String, Value)>, String> {
        Err("it is only read".to_owned())
    }

    fn try_from_pairs(pairs: &[(String, Value)]) -> Result<Self, String> {
        let data = pairs.iter().find_map(|(field, value)| match value {
            Value::BulkString(bytes) if field == DATA => Some(bytes),
            _ => None,
        });
        let order = Order::decode(data.ok_or("no data")?).map_err(|error| error.to_string())?;
        Ok(Received(order))
    }

    fn fields() -> &'static [&'static str] {
        &[DATA]
    }
}
