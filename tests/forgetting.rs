//! A consumer that is gone is forgotten, and only once nothing is pending with it.

use std::time::Duration;

use crate::support::jobs::{self, Action, Job};
use crate::support::{Server, Setup, eventually, settled};

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

    /// The race: between looking at a consumer and deleting it, it is given an entry. The look and the deletion are
    /// one script, so an entry that came in between is seen.
    async fn an_entry_that_comes_at_the_last_moment_is_not_deleted_along(server: Server) {
        let mut redis = server.connect().await;
        let worker = Setup::new(&server).worker("lease = \"500ms\"").start();
        let gone = "sh1-500-elsewhere-1-0000000000000000";
        eventually(PATIENCE, "the group", async || {
            redis::cmd("XGROUP").arg("CREATECONSUMER").arg("jobs").arg("workers").arg(gone)
                .query_async::<i64>(&mut redis).await.is_ok()
        })
        .await;
        let forget = include_str!("../src/stream/scripts/forget.lua");
        for round in 0..200 {
            let id: String = redis::cmd("XADD").arg("bystander").arg("*").arg("n").arg(round)
                .query_async(&mut redis).await.unwrap();
            if round == 0 {
                let _: () = redis::cmd("XGROUP").arg("CREATE").arg("bystander").arg("workers").arg("0")
                    .query_async(&mut redis).await.unwrap();
            }
            // Both at once, on two connections: whichever comes first, the entry is still there afterwards.
            let (mut reader, mut forgetter) = (server.connect().await, server.connect().await);
            let mut read = redis::cmd("XREADGROUP");
            read.arg("GROUP").arg("workers").arg(gone).arg("COUNT").arg(1).arg("STREAMS").arg("bystander").arg(">");
            let script = redis::Script::new(forget);
            let mut call = script.key("bystander");
            call.key("position").arg("workers").arg(gone);
            let (read, forgotten) = tokio::join!(
                read.query_async::<redis::Value>(&mut reader),
                call.invoke_async::<i64>(&mut forgetter)
            );
            read.unwrap();
            forgotten.unwrap();
            let pending: Vec<(String, String, u64, u64)> = redis::cmd("XPENDING").arg("bystander").arg("workers")
                .arg(&id).arg(&id).arg(1).query_async(&mut redis).await.unwrap();
            assert_eq!(pending.len(), 1, "{id} is neither pending nor handled");
            let _: i64 = redis::cmd("XACK").arg("bystander").arg("workers").arg(&id).query_async(&mut redis).await.unwrap();
        }
        worker.stop().await;
    }
}

async fn consumers(redis: &mut redis::aio::MultiplexedConnection) -> Vec<String> {
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
