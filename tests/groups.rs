//! Groups and streams: each group gets everything, and a worker can read several streams.

use std::time::Duration;

use crate::support::jobs::{self, Action, many};
use crate::support::{Server, Setup, eventually, settled};

const PATIENCE: Duration = Duration::from_secs(30);

on_both_servers! {
    async fn each_of_two_groups_gets_everything(server: Server) {
        let mut redis = server.connect().await;
        let all = many("event", 100, &Action::Succeed);
        jobs::publish(&mut redis, "jobs", &all).await;
        let one = Setup::new(&server).start();
        let other = Setup::new(&server).worker("group = \"others\"").start();
        eventually(PATIENCE, "both groups to handle everything", async || {
            let handled = jobs::handled(&mut redis).await;
            handled.len() == all.len() && handled.values().all(|times| *times == 2)
        })
        .await;
        one.stop().await;
        other.stop().await;
    }

    async fn a_worker_reads_several_streams(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).worker("streams = [\"jobs\", \"more-jobs\", \"{jobs}:third\"]");
        let worker = setup.start();
        let mut all = Vec::new();
        for stream in ["jobs", "more-jobs", "{jobs}:third"] {
            let some = many(stream, 50, &Action::Fail(1));
            jobs::publish(&mut redis, stream, &some).await;
            all.extend(some);
        }
        eventually(PATIENCE, "everything to be handled", async || {
            jobs::handled(&mut redis).await.keys().cloned().collect::<std::collections::BTreeSet<_>>() == jobs::ids(&all)
        })
        .await;
        for stream in ["jobs", "more-jobs", "{jobs}:third"] {
            settled(&mut redis, stream, PATIENCE).await;
        }
        assert!(jobs::handled(&mut redis).await.values().all(|times| *times == 1));
        worker.stop().await;
    }

    async fn a_new_group_begins_at_the_beginning_unless_it_is_told_otherwise(server: Server) {
        let mut redis = server.connect().await;
        jobs::publish(&mut redis, "jobs", &many("early", 10, &Action::Succeed)).await;
        let late = Setup::new(&server).worker("group = \"late\"").worker("start = \"end\"").start();
        eventually(PATIENCE, "the group that begins at the end to be there", async || {
            let groups: redis::streams::StreamInfoGroupsReply =
                redis::cmd("XINFO").arg("GROUPS").arg("jobs").query_async(&mut redis).await.unwrap();
            groups.groups.len() == 1
        })
        .await;
        jobs::publish(&mut redis, "jobs", &many("new", 10, &Action::Succeed)).await;
        eventually(PATIENCE, "the new ones to be handled", async || jobs::handled(&mut redis).await.len() == 10).await;
        assert!(jobs::handled(&mut redis).await.keys().all(|id| id.starts_with("new")));
        let worker = Setup::new(&server).start();
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::handled(&mut redis).await.len(), 20);
        worker.stop().await;
        late.stop().await;
    }
}
