//! The bare loop: XREADGROUP COUNT 500, the ids moved out of the raw reply, one XACK for all of them, no handler and
//! nothing decoded. What others cost is told in terms of it.

use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio_util::sync::CancellationToken;

use super::{Bench, CONSUMER, GROUP, ORDERS, Peer, Threads, pending_in, publish_as_streamhand};
use crate::Result;
use crate::tally::TALLY;

pub struct Bare;

impl Peer for Bare {
    const NAME: &'static str = "bare";
    const CRATE: &'static str = "redis";
    const SETTINGS: &'static str = "XREADGROUP COUNT 500, one XACK, no handler";
    const THREADS: Threads = Threads::One;
    const HANDLES: bool = false;

    async fn publish(bench: &Bench) -> Result<()> {
        publish_as_streamhand(bench).await
    }

    async fn work(bench: Bench, stop: CancellationToken) -> Result<()> {
        let mut conn = bench.connect().await?;
        let create = redis::cmd("XGROUP")
            .arg("CREATE")
            .arg(ORDERS)
            .arg(GROUP)
            .arg("0")
            .clone();
        let _: () = create.query_async(&mut conn).await?;
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP")
            .arg(GROUP)
            .arg(CONSUMER)
            .arg("COUNT")
            .arg(500);
        read.arg("STREAMS").arg(ORDERS).arg(">");
        let mut done = 0;
        while done < bench.events {
            let ids =
                ids(read.query_async(&mut conn).await?).ok_or("the stream ended too early")?;
            let came = ids.len() as u64;
            let _: u64 = redis::cmd("XACK")
                .arg(ORDERS)
                .arg(GROUP)
                .arg(ids)
                .query_async(&mut conn)
                .await?;
            TALLY.add(came);
            done += came;
        }
        stop.cancelled().await;
        Ok(())
    }

    async fn pending(_: &Bench, conn: &mut MultiplexedConnection) -> Result<u64> {
        pending_in(conn, ORDERS, GROUP).await
    }
}

fn ids(reply: Value) -> Option<Vec<Vec<u8>>> {
    let array = |value| {
        if let Value::Array(items) = value {
            Some(items)
        } else {
            None
        }
    };
    let entries = array(array(array(reply)?.pop()?)?.pop()?)?;
    let id = |entry| match array(entry)?.swap_remove(0) {
        Value::BulkString(id) => Some(id),
        _ => None,
    };
    entries.into_iter().map(id).collect()
}
