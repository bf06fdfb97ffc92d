//! pulses: a task a message, each with an XACK of its own, all over the one connection that it also reads on.
//!
//! - `block` zero: a read that blocks on that connection holds up the acknowledgements behind it, and the client gives
//!   both up after 500 ms; what the read is answered after that is lost to this consumer until it is reclaimed.
//! - `MAX_IN_FLIGHT` 256 instead of 16, as many as a read takes; with 1000 and 4000 it was slower.
//! - `payload_field`: it reads the entries of streamhand.

use std::time::Duration;

use pulses::broker::redis::{RedisBroker, RedisSubscription};
use pulses::{App, AppConfig, Context, Envelope, Handler, HandlerError, Outcome};
use redis::aio::MultiplexedConnection;
use tokio_util::sync::CancellationToken;

use super::{
    Bench, CONSUMER, DATA, GROUP, ORDERS, Peer, Threads, pending_in, publish_as_streamhand,
};
use crate::Result;
use crate::order::Order;
use crate::tally::TALLY;

const IN_FLIGHT: usize = 256;

pub struct Pulses;

impl Peer for Pulses {
    const NAME: &'static str = "pulses";
    const CRATE: &'static str = "pulses";
    const SETTINGS: &'static str = "not blocking, 256 in flight";
    const THREADS: Threads = Threads::One;

    async fn publish(bench: &Bench) -> Result<()> {
        publish_as_streamhand(bench).await
    }

    async fn work(bench: Bench, stop: CancellationToken) -> Result<()> {
        let subscription = RedisSubscription {
            block: Duration::ZERO,
            payload_field: DATA.into(),
            ..RedisSubscription::for_group(GROUP, CONSUMER)
        };
        let config = AppConfig {
            max_in_flight_per_handler: IN_FLIGHT,
            ..AppConfig::default()
        };
        let broker = RedisBroker::connect(&bench.url).await?;
        App::new(broker, subscription)
            .with_config(config)
            .register(Orders)
            .run(stop)
            .await?;
        Ok(())
    }

    async fn pending(_: &Bench, conn: &mut MultiplexedConnection) -> Result<u64> {
        pending_in(conn, ORDERS, GROUP).await
    }
}

struct Orders;

impl Handler<RedisBroker> for Orders {
    const STREAMS: &'static [&'static str] = &[ORDERS];
    const MAX_IN_FLIGHT: usize = IN_FLIGHT;

    async fn handle(
        &self,
        _: &Context<RedisBroker>,
        message: &Envelope,
    ) -> Result<Outcome, HandlerError> {
        let order = Order::decode(&message.payload)
            .map_err(|error| HandlerError::msg(error.to_string()))?;
        TALLY.handle(&order);
        Ok(Outcome::Ack)
    }
}
