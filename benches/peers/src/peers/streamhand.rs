//! streamhand as its users run it: the settings' defaults, a typed handler called once an event, logging at info.

use redis::aio::MultiplexedConnection;
use streamhand::config::RedisUrl;
use streamhand::{Registry, Settings, Worker};
use tokio_util::sync::CancellationToken;

use super::{Bench, GROUP, ORDERS, Peer, Threads, pending_in, publish_as_streamhand};
use crate::Result;
use crate::order::Order;
use crate::tally::TALLY;

pub struct Streamhand;

impl Peer for Streamhand {
    const NAME: &'static str = "streamhand";
    const CRATE: &'static str = "streamhand";
    const SETTINGS: &'static str = "defaults; logging at info";
    const THREADS: Threads = Threads::Many;

    async fn publish(bench: &Bench) -> Result<()> {
        publish_as_streamhand(bench).await
    }

    async fn work(bench: Bench, stop: CancellationToken) -> Result<()> {
        // The others log nothing.
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .init();
        let registry = Registry::new().on(|order: Order, _| {
            TALLY.handle(&order);
            async { Ok(()) }
        });
        let summary = Worker::new(settings(&bench)?, registry)?
            .run(stop.cancelled_owned())
            .await?;
        if summary.unsettled > 0 {
            return Err(format!("{} events not settled", summary.unsettled).into());
        }
        Ok(())
    }

    async fn pending(_: &Bench, conn: &mut MultiplexedConnection) -> Result<u64> {
        pending_in(conn, ORDERS, GROUP).await
    }
}

pub(super) fn settings(bench: &Bench) -> Result<Settings> {
    let mut settings = Settings::default();
    settings.redis.url = RedisUrl::parse(&bench.url)?;
    settings.worker.streams = vec![ORDERS.to_owned()];
    settings.worker.group = GROUP.to_owned();
    Ok(settings)
}
