//! ruststream over ruststream-fred: `.pipeline()`, which acknowledges what one read brought with one XACK, and the same
//! with `.batch(256)`, where the handler takes a slice.
//!
//! - Its format: the payload in `_payload`, nothing else.
//! - One delivery at a time (its default): a handler that computes nothing gains nothing from workers or threads.
//! - Without `.batch`, a read takes 64 entries; that is not a setting.

use redis::aio::MultiplexedConnection;
use ruststream::codec::MsgpackCodec;
use ruststream_fred::stream::prelude::*;
use tokio_util::sync::CancellationToken;

use super::{Bench, CONSUMER, GROUP, ORDERS, Peer, Threads, pending_in};
use crate::Result;
use crate::order::Order;
use crate::tally::TALLY;

pub struct OneByOne;
pub struct Batches;

#[subscriber(RedisStream::new(ORDERS).group(GROUP).consumer(CONSUMER).start_id(StreamStart::Beginning))]
async fn one(order: &Order) -> HandlerOutcome {
    TALLY.handle(order);
    HandlerOutcome::ack()
}

#[subscriber(RedisStream::new(ORDERS).group(GROUP).consumer(CONSUMER).start_id(StreamStart::Beginning))]
async fn batch(orders: &[Order]) -> HandlerOutcome {
    for order in orders {
        TALLY.handle(order);
    }
    HandlerOutcome::ack()
}

impl Peer for OneByOne {
    const NAME: &'static str = "ruststream-fred";
    const CRATE: &'static str = "ruststream-fred";
    const SETTINGS: &'static str = ".pipeline()";
    const THREADS: Threads = Threads::One;

    async fn publish(bench: &Bench) -> Result<()> {
        publish(bench).await
    }

    async fn work(bench: Bench, stop: CancellationToken) -> Result<()> {
        let app = RustStream::new(AppInfo::new("peers", "0.1.0")).with_broker_codec(
            RedisBroker::standalone(bench.url),
            MsgpackCodec,
            |b| {
                b.include(one.pipeline());
            },
        );
        Ok(app.run_until(stop.cancelled_owned()).await?)
    }

    async fn pending(_: &Bench, conn: &mut MultiplexedConnection) -> Result<u64> {
        pending_in(conn, ORDERS, GROUP).await
    }
}

impl Peer for Batches {
    const NAME: &'static str = "ruststream-fred-batch";
    const CRATE: &'static str = "ruststream-fred";
    const SETTINGS: &'static str = ".pipeline().batch(256)";
    const THREADS: Threads = Threads::One;

    async fn publish(bench: &Bench) -> Result<()> {
        publish(bench).await
    }

    async fn work(bench: Bench, stop: CancellationToken) -> Result<()> {
        let app = RustStream::new(AppInfo::new("peers", "0.1.0")).with_broker_codec(
            RedisBroker::standalone(bench.url),
            MsgpackCodec,
            |b| {
                b.include(batch.pipeline().batch(nonzero!(256)));
            },
        );
        Ok(app.run_until(stop.cancelled_owned()).await?)
    }

    async fn pending(_: &Bench, conn: &mut MultiplexedConnection) -> Result<u64> {
        pending_in(conn, ORDERS, GROUP).await
    }
}

async fn publish(bench: &Bench) -> Result<()> {
    let mut conn = bench.connect().await?;
    for orders in Order::chunks(bench.events) {
        let mut chunk = redis::pipe();
        for order in orders {
            chunk
                .cmd("XADD")
                .arg(ORDERS)
                .arg("*")
                .arg("_payload")
                .arg(order.encode()?)
                .ignore();
        }
        chunk.exec_async(&mut conn).await?;
    }
    Ok(())
}
