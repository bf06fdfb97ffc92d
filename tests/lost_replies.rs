//! A reply that got lost takes nothing along: what it brought is found where it still is, with this worker.

use std::time::{Duration, Instant};

use crate::support::jobs::{self, Action, many};
use crate::support::{Proxy, Server, Setup, eventually, settled};

const PATIENCE: Duration = Duration::from_secs(30);

on_both_servers! {
    /// With a lease of half a minute, nothing that waits for one would be in time.
    async fn entries_of_a_read_whose_connection_breaks_are_handled_once_it_is_made_again(server: Server) {
        let mut redis = server.connect().await;
        let proxy = Proxy::start(server.port()).await;
        let worker = Setup::at(proxy.url()).worker("lease = \"30s\"").start();
        eventually(PATIENCE, "the worker to wait for entries", async || blocked(&mut redis).await == 1).await;
        let caught = proxy.cut_after_next_reply_containing("lost-0");
        let all = many("lost", 20, &Action::Succeed);
        jobs::publish(&mut redis, "jobs", &all).await;
        caught.within(PATIENCE).await;
        let cut = Instant::now();
        settled(&mut redis, "jobs", PATIENCE).await;
        assert!(cut.elapsed() < Duration::from_secs(2), "handled after {:?}", cut.elapsed());
        let handled = jobs::handled(&mut redis).await;
        assert_eq!(handled.len(), all.len());
        assert!(handled.values().all(|times| *times == 1), "{handled:?}");
        assert!(jobs::started(&mut redis).await.iter().all(|trace| trace.attempt == 1));
        worker.stop().await;
    }

    async fn an_acknowledgement_whose_answer_is_lost_is_repeated_and_nothing_runs_twice(server: Server) {
        let mut redis = server.connect().await;
        let proxy = Proxy::start(server.port()).await;
        let worker = Setup::at(proxy.url()).start();
        let all = many("job", 200, &Action::Take(20));
        jobs::publish(&mut redis, "jobs", &all).await;
        eventually(PATIENCE, "some to be done", async || jobs::ended(&mut redis).await.len() > 50).await;
        proxy.cut().await;
        settled(&mut redis, "jobs", PATIENCE).await;
        eventually(PATIENCE, "all to be handled", async || jobs::handled(&mut redis).await.len() == all.len()).await;
        assert!(jobs::started(&mut redis).await.iter().all(|trace| trace.attempt <= 2));
        worker.stop().await;
    }
}

async fn blocked(redis: &mut redis::aio::MultiplexedConnection) -> usize {
    let clients: String = redis::cmd("CLIENT")
        .arg("LIST")
        .query_async(redis)
        .await
        .unwrap();
    let waits = |client: &&str| client.contains("cmd=xreadgroup") && client.contains("flags=b");
    clients.lines().filter(waits).count()
}
