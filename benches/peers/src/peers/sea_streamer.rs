//! sea-streamer-redis: messages pulled one by one, acknowledged in the consumer's memory and committed by a command.
//!
//! - `AutoCommit::Disabled` with a commit after each batch; `Rolling`, which hands over every message through a channel
//!   without room and looks at the clock between two of them, took three times the CPU.
//! - `LoadBalanced`: several consumers share a stream and take over from a dead one, as with everybody else.
//! - A batch of 500 (1000 and 5000 were slower); `set_message_field`: it reads the entries of streamhand.

use redis::aio::MultiplexedConnection;
use sea_streamer_redis::{
    AutoCommit, AutoStreamReset, RedisConnectOptions, RedisConsumerOptions, RedisStreamer,
};
use sea_streamer_types::{
    Buffer, Consumer, ConsumerGroup, ConsumerId, ConsumerMode, ConsumerOptions, Message, StreamKey,
    Streamer,
};
use tokio_util::sync::CancellationToken;

use super::{
    Bench, CONSUMER, DATA, GROUP, ORDERS, Peer, Threads, pending_in, publish_as_streamhand,
};
use crate::Result;
use crate::order::Order;
use crate::tally::TALLY;

const BATCH: usize = 500;

pub struct SeaStreamer;

impl Peer for SeaStreamer {
    const NAME: &'static str = "sea-streamer";
    const CRATE: &'static str = "sea-streamer-redis";
    const SETTINGS: &'static str = "LoadBalanced, batch of 500, a commit a batch";
    const THREADS: Threads = Threads::One;

    async fn publish(bench: &Bench) -> Result<()> {
        publish_as_streamhand(bench).await
    }

    async fn work(bench: Bench, stop: CancellationToken) -> Result<()> {
        let mut connect = RedisConnectOptions::default();
        connect.set_message_field(DATA);
        let streamer = RedisStreamer::connect(bench.url.parse()?, connect).await?;
        let mut options = RedisConsumerOptions::new(ConsumerMode::LoadBalanced);
        options.set_consumer_group(ConsumerGroup::new(GROUP))?;
        options.set_consumer_id(ConsumerId::new(CONSUMER));
        options.set_auto_stream_reset(AutoStreamReset::Earliest);
        options.set_auto_commit(AutoCommit::Disabled);
        options.set_batch_size(BATCH);
        let mut consumer = streamer
            .create_consumer(&[StreamKey::new(ORDERS)?], options)
            .await?;
        let mut done = 0;
        while done < bench.events {
            let message = consumer.next().await?;
            TALLY.handle(&Order::decode(message.message().as_bytes())?);
            consumer.ack(&message)?;
            done += 1;
            if done % BATCH as u64 == 0 || done == bench.events {
                consumer.commit_asap()?;
            }
        }
        stop.cancelled().await;
        consumer.end().await?;
        Ok(())
    }

    async fn pending(_: &Bench, conn: &mut MultiplexedConnection) -> Result<u64> {
        pending_in(conn, ORDERS, GROUP).await
    }
}
