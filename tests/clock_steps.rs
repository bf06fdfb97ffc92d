//! The server's clock is set an hour ahead and back: what goes by it goes by what has really passed.

use std::time::{Duration, Instant};

use crate::support::jobs::{self, Action, Job};
use crate::support::{Clock, Kind, Server, Setup, eventually, parked};

const PATIENCE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3_600);

on_both_servers! {
    async fn after_a_step_back_the_dead_are_found_and_retries_come_in_time(kind: Kind) {
        let clock = Clock::new();
        let server = Server::builder(kind).clock(&clock).start().await;
        let mut redis = server.connect().await;
        let setup = Setup::new(&server)
            .worker("lease = \"1s\"")
            .retry("backoff = { initial = \"3s\", factor = 1.0, jitter = 0.0 }");
        let mut first = setup.process();
        jobs::publish(&mut redis, "jobs", &[Job::new("held", Action::TakeOrLess(60_000, 10))]).await;
        eventually(PATIENCE, "it to start", async || jobs::starts_of(&mut redis, "held").await == 1).await;
        let mut second = setup.process();
        // A worker looks at the clock before it reads for the first time.
        eventually(PATIENCE, "both to have read", async || {
            let mut command = redis::cmd("XINFO");
            command.arg("CONSUMERS").arg("jobs").arg("workers");
            let consumers: Vec<redis::Value> = command.query_async(&mut redis).await.unwrap();
            consumers.len() == 2
        })
        .await;
        clock.ahead(HOUR);
        let since = Instant::now();
        second.wait_for_log("was set ahead", PATIENCE).await;
        eventually(PATIENCE, "a few leases to pass", async || since.elapsed() > Duration::from_millis(3_500)).await;
        assert_eq!(jobs::starts_of(&mut redis, "held").await, 1, "its worker is alive");
        jobs::publish(&mut redis, "jobs", &[Job::new("retried", Action::Fail(1))]).await;
        eventually(PATIENCE, "it to be parked", async || parked(&mut redis).await == 1).await;
        first.kill();
        clock.ahead(Duration::ZERO);
        let since = Instant::now();
        eventually(PATIENCE, "both to be handled", async || jobs::handled(&mut redis).await.len() == 2).await;
        let took = since.elapsed();
        println!("both handled {took:?} after the step back");
        assert!(took < Duration::from_secs(12), "{took:?}");
        drop(second);
    }
}
