//! chasquimq: XREADGROUP with CLAIM, a pool of tasks behind a channel, and XACKDEL for what they have finished.
//!
//! - Its format: MessagePack of its own job around the payload.
//! - `batch` and `ack_batch`: large reads, large acknowledgements.
//! - The events stream is off (three XADDs a job otherwise), and so are the promoter of delayed jobs and the scheduler:
//!   nothing here is delayed or repeated.

use chasquimq::{Consumer, ConsumerConfig, Job, Producer, ProducerConfig};
use redis::aio::MultiplexedConnection;
use tokio_util::sync::CancellationToken;

use super::{Bench, GROUP, ORDERS, Peer, Threads, pending_in};
use crate::Result;
use crate::order::Order;
use crate::tally::TALLY;

pub struct Chasquimq;

impl Peer for Chasquimq {
    const NAME: &'static str = "chasquimq";
    const CRATE: &'static str = "chasquimq";
    const SETTINGS: &'static str =
        "batch and ack_batch 1000, concurrency 100, events, delays and scheduler off";
    const THREADS: Threads = Threads::One;
    const REDIS: Option<(u32, u32)> = Some((8, 6));

    async fn publish(bench: &Bench) -> Result<()> {
        let config = ProducerConfig {
            queue_name: ORDERS.to_owned(),
            max_stream_len: bench.events * 2,
            ..ProducerConfig::default()
        };
        let producer = Producer::<Order>::connect(&bench.url, config).await?;
        for orders in Order::chunks(bench.events) {
            producer.add_bulk(orders).await?;
        }
        producer.shutdown().await?;
        Ok(())
    }

    async fn work(bench: Bench, stop: CancellationToken) -> Result<()> {
        let config = ConsumerConfig {
            queue_name: ORDERS.to_owned(),
            group: GROUP.to_owned(),
            batch: 1_000,
            ack_batch: 1_000,
            concurrency: 100,
            events_enabled: false,
            delayed_enabled: false,
            run_scheduler: false,
            ..ConsumerConfig::default()
        };
        let handler = async |job: Job<Order>| {
            TALLY.handle(&job.payload);
            Ok(chasquimq::Bytes::new())
        };
        Consumer::<Order>::new(bench.url, config)
            .run(handler, stop)
            .await?;
        Ok(())
    }

    async fn pending(_: &Bench, conn: &mut MultiplexedConnection) -> Result<u64> {
        pending_in(conn, &format!("{{chasqui:{ORDERS}}}:stream"), GROUP).await
    }
}
