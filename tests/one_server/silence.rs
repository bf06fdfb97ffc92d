//! Connections that are open at both ends and carry nothing any more: a router has forgotten them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::AsyncCommands;
use streamhand::{Context, Envelope, Failure, Registry};
use tokio::sync::Notify;

use crate::support::{Server, Setup, Switch, eventually, publisher};

const PATIENCE: Duration = Duration::from_secs(30);
const BOUND: Duration = Duration::from_secs(2);

on_both_servers! {
    async fn a_handler_has_its_connection_in_time_though_those_in_the_pool_are_dead(server: Server) {
        let switch = Switch::to(server.port()).await;
        let (go, took) = (Arc::new(Notify::new()), Arc::new(Mutex::new(Vec::new())));
        let (there, found) = (go.clone(), took.clone());
        let registry = Registry::new().on_raw("test.pool", move |_: Envelope, ctx: Context| {
            let (go, took) = (there.clone(), found.clone());
            async move {
                // All that the pool has are made.
                let mut all = Vec::new();
                for _ in 0..4 {
                    all.push(ctx.redis().await?);
                }
                drop(all);
                took.lock().unwrap().push(Duration::ZERO);
                go.notified().await;
                for _ in 0..4 {
                    let since = Instant::now();
                    let mut redis = ctx.redis().await?;
                    let () = redis.set("alive", 1).await?;
                    took.lock().unwrap().push(since.elapsed());
                }
                Ok::<(), Failure>(())
            }
        });
        let worker = Setup::at(switch.url()).redis("pool_size = 4").start_with(registry);
        let mut redis = server.connect().await;
        crate::support::add(&mut redis, "jobs", &vec![("type".into(), "test.pool".into())]).await;
        eventually(PATIENCE, "the pool to be full", async || !took.lock().unwrap().is_empty()).await;
        switch.forget();
        go.notify_one();
        eventually(PATIENCE, "all of it", async || took.lock().unwrap().len() == 5).await;
        let took = took.lock().unwrap().clone();
        assert!(took.iter().all(|took| *took < BOUND), "{took:?}");
        worker.stop().await;
    }

    async fn a_publisher_publishes_in_time_though_its_connections_are_dead(server: Server) {
        let switch = Switch::to(server.port()).await;
        let publisher = publisher(&switch.url());
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(publisher.redis().await.unwrap());
        }
        drop(all);
        switch.forget();
        for _ in 0..4 {
            let since = Instant::now();
            publisher.publish_envelope("jobs", Envelope::new("test.job")).await.unwrap();
            assert!(since.elapsed() < BOUND, "{:?}", since.elapsed());
        }
    }
}
