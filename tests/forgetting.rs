//! A consumer that is gone is forgotten, and only once nothing is pending with it.

use std::time::Duration;

use redis::aio::MultiplexedConnection;

use crate::support::jobs::{self, Action, Job};
use crate::support::{Exchange, Proxy, Server, Setup, eventually, scripts, settled};

const PATIENCE: Duration = Duration::from_secs(40);

on_both_servers! {
    async fn a_dead_workers_consumer_goes_when_what_it_held_has_been_taken_over(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).worker("lease = \"500ms\"");
        let mut victim = setup.process();
        victim.wait_for_log("the group is new", PATIENCE).await;
        jobs::publish(&mut redis, "jobs", &[Job::new("held", Action::Take(2_000))]).await;
        eventually(PATIENCE, "it to run", async || jobs::started(&mut redis).await.len() == 1).await;
        victim.kill();
        let heir = setup.start();
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::handled(&mut redis).await["held"], 1);
        let pid = format!("-{}-", victim.pid());
        eventually(PATIENCE, "the dead worker's consumer to be forgotten", async || {
            !consumers(&mut redis).await.iter().any(|name| name.contains(&pid))
        })
        .await;
        heir.stop().await;
    }

    /// The race: the worker has found that a consumer holds nothing, and before its request to delete it reaches the
    /// server, the consumer is given an entry.
    async fn a_consumer_that_is_given_an_entry_at_the_last_moment_keeps_it(server: Server) {
        let mut redis = server.connect().await;
        let proxy = Proxy::start(server.port()).await;
        let gone = "sh1-100-elsewhere-1-0000000000000000";
        let mut made = redis::pipe();
        made.cmd("XGROUP").arg("CREATE").arg("jobs").arg("workers").arg("0").arg("MKSTREAM");
        made.cmd("XGROUP").arg("CREATECONSUMER").arg("jobs").arg("workers").arg(gone);
        let _: (redis::Value, i64) = made.query_async(&mut redis).await.unwrap();
        let held = proxy.hold_request(deletion());
        let worker = Setup::at(proxy.url()).worker("lease = \"1s\"").start();
        let release = held.within(PATIENCE).await;
        give(&mut redis, gone, "late").await;
        release.now();
        settled(&mut redis, "jobs", PATIENCE).await;
        let attempts: Vec<u32> = jobs::started(&mut redis).await.iter().map(|trace| trace.attempt).collect();
        assert_eq!(attempts, [2], "what it was given is run by another, and not deleted along");
        eventually(PATIENCE, "the consumer to be forgotten in the end", async || {
            !consumers(&mut redis).await.iter().any(|name| name == gone)
        })
        .await;
        worker.stop().await;
    }

    /// A worker that stops takes its consumer along: not so with an entry that it has and does not know of.
    async fn a_stopping_worker_leaves_its_consumer_where_something_is_pending_with_it(server: Server) {
        let mut redis = server.connect().await;
        let proxy = Proxy::start(server.port()).await;
        let setup = Setup::at(proxy.url()).worker("lease = \"1s\"");
        let worker = setup.start();
        jobs::publish(&mut redis, "jobs", &[Job::new("first", Action::Succeed)]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let name = consumers(&mut redis).await.remove(0);
        let held = proxy.hold_request(deletion());
        let stopping = tokio::spawn(worker.stop());
        let release = held.within(PATIENCE).await;
        give(&mut redis, &name, "late").await;
        release.now();
        stopping.await.unwrap();
        assert_eq!(consumers(&mut redis).await, [name]);
        let heir = Setup::new(&server).start();
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::handled(&mut redis).await["late"], 1);
        heir.stop().await;
    }
}

/// The request that deletes a consumer, as a script or as the command itself.
fn deletion() -> Exchange {
    scripts::call("forget").or_of("DELCONSUMER")
}

/// Publishes a job and delivers it to `consumer`, in one step, so that nobody else gets it.
async fn give(redis: &mut MultiplexedConnection, consumer: &str, id: &str) {
    let data = serde_json::to_string(&Job::new(id, Action::Succeed)).unwrap();
    let mut pipe = redis::pipe();
    pipe.atomic();
    pipe.cmd("XADD")
        .arg("jobs")
        .arg("*")
        .arg("type")
        .arg("test.job")
        .arg("data")
        .arg(data);
    pipe.cmd("XREADGROUP")
        .arg("GROUP")
        .arg("workers")
        .arg(consumer)
        .arg("STREAMS")
        .arg("jobs")
        .arg(">");
    let _: (String, redis::Value) = pipe.query_async(redis).await.unwrap();
}

async fn consumers(redis: &mut MultiplexedConnection) -> Vec<String> {
    let info: redis::streams::StreamInfoConsumersReply = redis::cmd("XINFO")
        .arg("CONSUMERS")
        .arg("jobs")
        .arg("workers")
        .query_async(redis)
        .await
        .unwrap();
    info.consumers
        .into_iter()
        .map(|consumer| consumer.name)
        .collect()
}
