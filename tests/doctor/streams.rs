//! What is wrong with a stream and its group: who holds what, and who trims.

use std::time::Duration;

use super::{doctor, findings, found, is_gone, mended, that_say};
use crate::support::jobs::{self, Action, Job, many};
use crate::support::{Cli, Server, Setup, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

on_both_servers! {
    async fn what_dead_workers_hold_waits_for_a_worker(server: Server) {
        let (mut redis, cli) = (server.connect().await, doctor(&server));
        assert_eq!(found(&cli, "notice", "jobs: there is no such stream yet").await, "shop run");
        jobs::publish(&mut redis, "jobs", &many("held", 3, &Action::TakeOrLess(60_000, 10))).await;
        assert_eq!(found(&cli, "notice", "there is no group workers yet").await, "shop run");
        let setup = Setup::new(&server).worker("lease = \"1s\"");
        let mut worker = setup.process();
        eventually(PATIENCE, "all to be held", async || jobs::started(&mut redis).await.len() == 3).await;
        is_gone(&cli, "there is no").await;
        worker.kill();
        eventually(PATIENCE, "the lease to run out", async || {
            let all = findings(&cli).await;
            (!that_say(&all, "holds 3 entries").is_empty()).then_some(())
        })
        .await;
        assert_eq!(found(&cli, "danger", "holds 3 entries").await, "shop run");
        let _worker = setup.process();
        eventually(PATIENCE, "all to be handled", async || jobs::ended(&mut redis).await.len() == 3).await;
        is_gone(&cli, "holds 3 entries").await;
    }

    async fn what_a_foreign_client_holds_is_handed_over(server: Server) {
        let (mut redis, cli) = (server.connect().await, doctor(&server).with_env("STREAMHAND_WORKER__LEASE", "1s"));
        let worker = Setup::new(&server).worker("lease = \"1s\"").process();
        eventually(PATIENCE, "the group to be there", async || {
            let groups: redis::RedisResult<Vec<redis::Value>> = redis::cmd("XINFO").arg("GROUPS").arg("jobs").query_async(&mut redis).await;
            groups.is_ok_and(|groups| groups.len() == 1)
        })
        .await;
        // No worker reads while it is read by hand: one that had it would acknowledge it, whoever it is with by then.
        drop(worker);
        eventually(PATIENCE, "the worker's connections to be gone", async || {
            let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut redis).await.unwrap();
            !clients.contains("streamhand:workers:read")
        })
        .await;
        jobs::publish(&mut redis, "jobs", &[Job::new("taken", Action::Succeed)]).await;
        let mut read = redis::cmd("XREADGROUP");
        let read = read.arg(&["GROUP", "workers", "by-hand", "COUNT", "1", "STREAMS", "jobs", ">"]);
        let got: redis::Value = read.query_async(&mut redis).await.unwrap();
        assert_ne!(got, redis::Value::Nil);
        let _worker = Setup::new(&server).worker("lease = \"1s\"").process();
        eventually(PATIENCE, "it to be seen", async || {
            let all = findings(&cli).await;
            (!that_say(&all, "by-hand, no worker of ours").is_empty()).then_some(())
        })
        .await;
        mended(&cli, &mut redis, "warning", "by-hand, no worker of ours").await;
        eventually(PATIENCE, "a worker to handle it", async || {
            jobs::ended(&mut redis).await.iter().any(|trace| trace.id == "taken")
        })
        .await;
    }

    async fn what_was_trimmed_unread_is_counted_and_taken_for_known(server: Server) {
        let (mut redis, cli) = (server.connect().await, doctor(&server));
        let worker = Setup::new(&server).start();
        jobs::publish(&mut redis, "jobs", &many("read", 3, &Action::Succeed)).await;
        crate::support::settled(&mut redis, "jobs", PATIENCE).await;
        worker.stop().await;
        jobs::publish(&mut redis, "jobs", &many("unread", 5, &Action::Succeed)).await;
        is_gone(&cli, "were trimmed").await;
        let _: u64 = redis::cmd("XTRIM").arg("jobs").arg("MAXLEN").arg(1).query_async(&mut redis).await.unwrap();
        mended(&cli, &mut redis, "danger", "jobs: 4 entries were trimmed that workers had not read").await;
        // One that is pending, and gone.
        let ids = jobs::publish(&mut redis, "jobs", &many("pending", 2, &Action::Succeed)).await;
        let mut read = redis::cmd("XREADGROUP");
        let read = read.arg(&["GROUP", "workers", "by-hand", "COUNT", "1", "STREAMS", "jobs", ">"]);
        let _: redis::Value = read.query_async(&mut redis).await.unwrap();
        let _: u64 = redis::cmd("XTRIM").arg("jobs").arg("MINID").arg(&ids[0]).query_async(&mut redis).await.unwrap();
        mended(&cli, &mut redis, "danger", "is pending and was trimmed or deleted").await;
    }

    async fn who_trims_while_it_is_looked_is_noticed(server: Server) {
        let (mut redis, cli) = (server.connect().await, doctor(&server));
        let worker = Setup::new(&server).start();
        jobs::publish(&mut redis, "jobs", &many("read", 3, &Action::Succeed)).await;
        crate::support::settled(&mut redis, "jobs", PATIENCE).await;
        let mut publisher = server.connect().await;
        let trimming = tokio::spawn(async move {
            loop {
                let event = r#"{"id":"x","action":"nothing"}"#;
                let mut add = redis::cmd("XADD");
                let add = add.arg(&["jobs", "MAXLEN", "2", "*", "type", "test.job", "data", event]);
                let _: redis::RedisResult<String> = add.query_async(&mut publisher).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        eventually(PATIENCE, "it to be noticed", async || {
            let all = findings(&cli).await;
            (!that_say(&all, "somebody else trims it").is_empty()).then_some(())
        })
        .await;
        assert_eq!(found(&cli, "warning", "somebody else trims it").await, "CLIENT LIST");
        trimming.abort();
        let _ = trimming.await;
        is_gone(&cli, "somebody else trims it").await;
        worker.stop().await;
    }

    async fn a_pending_list_that_is_oversized_is_told_of_and_each_partition_is_looked_at(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n[streams.jobs]\npartitions = 2\n");
        let topic = ["{jobs:0}", "{jobs:1}"];
        for stream in topic {
            assert_eq!(found(&cli, "notice", &format!("{stream}: there is no such stream yet")).await, "shop run");
        }
        let fill = "for n = 1, 100000 do redis.call('XADD', KEYS[1], n .. '-1', 'type', 'test.job') end \
                    redis.call('XGROUP', 'CREATE', KEYS[1], 'workers', '0') \
                    redis.call('XREADGROUP', 'GROUP', 'workers', '(parked)', 'COUNT', '100000', 'STREAMS', KEYS[1], '>') return 1";
        let () = redis::cmd("EVAL").arg(fill).arg(1).arg(topic[1]).query_async(&mut redis).await.unwrap();
        let oversized = "{jobs:1}: 100000 entries are pending, 100000 of them parked";
        assert_eq!(found(&cli, "warning", oversized).await, "shop run");
        let () = redis::cmd("XGROUP").arg(&["DESTROY", topic[1], "workers"]).query_async(&mut redis).await.unwrap();
        is_gone(&cli, "entries are pending").await;
    }
}
