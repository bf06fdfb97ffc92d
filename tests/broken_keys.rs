//! Keys that are deleted or taken from under a worker: it says what is wrong, does not spin, loses nothing, and
//! carries on when it is mended.

use std::time::Duration;

use redis::aio::MultiplexedConnection;

use crate::support::jobs::{self, Action, Job, many};
use crate::support::{Proxy, Server, Setup, all_pending, dead, eventually, settled};

const PATIENCE: Duration = Duration::from_secs(30);
/// How long what a worker sends is counted.
const WHILE: Duration = Duration::from_secs(3);
const DEAD: &str = "{jobs}:workers:dead";

on_both_servers! {
    async fn a_group_that_is_destroyed_is_made_anew_and_nothing_is_left_out(server: Server) {
        let mut redis = server.connect().await;
        let mut worker = Setup::new(&server).worker("concurrency = 4").process();
        worker.wait_for_log("the group is new", PATIENCE).await;
        let mut all = many("slow", 8, &Action::Take(1_500));
        all.push(Job::new("parked", Action::Fail(2)));
        all.extend(many("unread", 50, &Action::Succeed));
        jobs::publish(&mut redis, "jobs", &all).await;
        eventually(PATIENCE, "some to run", async || jobs::started(&mut redis).await.len() >= 4).await;
        let _: i64 =
            redis::cmd("XGROUP").arg("DESTROY").arg("jobs").arg("workers").query_async(&mut redis).await.unwrap();
        jobs::publish(&mut redis, "jobs", &[Job::new("late", Action::Succeed)]).await;
        all.push(Job::new("late", Action::Succeed));
        eventually(PATIENCE, "everything to be handled", async || {
            let handled = jobs::handled(&mut redis).await;
            jobs::ids(&all).iter().all(|id| handled.contains_key(id))
        })
        .await;
        let said = worker.wait_for_log("was made anew", PATIENCE).await;
        assert!(said.contains("jobs") && said.contains("workers"), "{said}");
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(dead(&mut redis).await, 0);
        // Each part of the worker meets it once or twice, and the reader mends it at once.
        let refused = refused(&mut redis, &["NOGROUP", "UNBLOCKED"]).await;
        println!("{refused} commands met no group");
        assert!(refused <= 12, "{refused} commands met no group");
    }

    /// What runs is not in the stream any more: its success stands, and its failure is buried as its holder has it.
    async fn a_stream_that_is_deleted_is_made_anew_and_read_from_its_beginning(server: Server) {
        let mut redis = server.connect().await;
        let mut worker = Setup::new(&server).process();
        worker.wait_for_log("the group is new", PATIENCE).await;
        let mut old = many("old", 5, &Action::Take(1_500));
        old.push(Job::new("bad", Action::TakeThenFailForGood(1_500)));
        jobs::publish(&mut redis, "jobs", &old).await;
        eventually(PATIENCE, "all to run", async || jobs::started(&mut redis).await.len() == old.len()).await;
        let _: i64 = redis::cmd("DEL").arg("jobs").query_async(&mut redis).await.unwrap();
        let said = worker.wait_for_log("was made anew", PATIENCE).await;
        assert!(said.contains("jobs") && said.contains("workers"), "{said}");
        jobs::publish(&mut redis, "jobs", &many("new", 10, &Action::Succeed)).await;
        eventually(PATIENCE, "all to be handled", async || jobs::handled(&mut redis).await.len() == 15).await;
        eventually(PATIENCE, "the bad one to be buried", async || dead(&mut redis).await == 1).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::started(&mut redis).await.len(), 16, "none ran again");
        let refused = refused(&mut redis, &["NOGROUP", "UNBLOCKED"]).await;
        println!("{refused} commands met no stream");
        assert!(refused <= 12, "{refused} commands met no stream");
    }

    /// What can't be buried is kept, is buried once it can be, and does not run again for that.
    async fn a_dead_letter_key_that_holds_a_string_keeps_its_entries_and_stops_nothing_else(server: Server) {
        let mut redis = server.connect().await;
        let _: () = redis::cmd("SET").arg(DEAD).arg("in the way").query_async(&mut redis).await.unwrap();
        let proxy = Proxy::start(server.port()).await;
        let mut worker = Setup::at(proxy.url()).process();
        let mut all = many("bad", 500, &Action::FailForGood);
        all.extend(many("good", 20, &Action::Succeed));
        let ids = jobs::publish(&mut redis, "jobs", &all).await;
        let said = worker.wait_for_log("writing a dead letter", PATIENCE).await;
        assert!(said.contains(DEAD) && said.contains("holds something else") && said.contains("rename or delete it"), "{said}");
        eventually(PATIENCE, "the good ones to be handled", async || jobs::handled(&mut redis).await.len() == 20).await;
        eventually(PATIENCE, "the bad ones to be kept", async || {
            redis::cmd("ZCARD").arg("{jobs}:workers:retry").query_async::<u64>(&mut redis).await.unwrap() == 500
        })
        .await;
        // Long enough for the burials to be tried once more: a few of them, for all.
        let sent = proxy.traffic_during(2 * WHILE).await;
        println!("in {:?}: {sent:?}", 2 * WHILE);
        assert!(sent.requests() <= 230, "in {:?}: {sent:?}", 2 * WHILE);
        assert_eq!(all_pending(&mut redis).await, ids[..500]);
        let _: i64 = redis::cmd("DEL").arg(DEAD).query_async(&mut redis).await.unwrap();
        eventually(PATIENCE, "the bad ones to be buried", async || dead(&mut redis).await == 500).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::started(&mut redis).await.len(), 520, "none ran again");
    }

    /// What was acknowledged and deleted by another hand while it ran can't be parked until its dead letter can be written:
    /// its worker keeps it.
    async fn a_failure_that_can_be_neither_buried_nor_parked_waits_with_its_worker(server: Server) {
        let mut redis = server.connect().await;
        let _: () = redis::cmd("SET").arg(DEAD).arg("in the way").query_async(&mut redis).await.unwrap();
        let proxy = Proxy::start(server.port()).await;
        let mut worker = Setup::at(proxy.url()).process();
        let ids = jobs::publish(&mut redis, "jobs", &many("bad", 5, &Action::TakeThenFailForGood(500))).await;
        eventually(PATIENCE, "all to run", async || jobs::started(&mut redis).await.len() == 5).await;
        let _: i64 = redis::cmd("XACK").arg("jobs").arg("workers").arg(&ids).query_async(&mut redis).await.unwrap();
        let _: i64 = redis::cmd("XDEL").arg("jobs").arg(&ids).query_async(&mut redis).await.unwrap();
        worker.wait_for_log("writing a dead letter", PATIENCE).await;
        let sent = proxy.traffic_during(WHILE).await;
        println!("in {WHILE:?}: {sent:?}");
        assert!(sent.requests() <= 90, "in {WHILE:?}: {sent:?}");
        // Others are settled meanwhile.
        jobs::publish(&mut redis, "jobs", &many("good", 20, &Action::Succeed)).await;
        settled(&mut redis, "jobs", Duration::from_secs(2)).await;
        let _: i64 = redis::cmd("DEL").arg(DEAD).query_async(&mut redis).await.unwrap();
        eventually(PATIENCE, "the bad ones to be buried", async || dead(&mut redis).await == 5).await;
        worker.terminate();
        assert!(worker.wait(PATIENCE).await.success());
        assert_eq!((jobs::started(&mut redis).await.len(), dead(&mut redis).await), (25, 5));
    }
}

/// How many commands the server has refused with one of these errors.
async fn refused(redis: &mut MultiplexedConnection, errors: &[&str]) -> u64 {
    let stats: String = redis::cmd("INFO")
        .arg("errorstats")
        .query_async(redis)
        .await
        .unwrap();
    let count = |line: &str| {
        let (error, count) = line
            .trim()
            .strip_prefix("errorstat_")?
            .split_once(":count=")?;
        errors.contains(&error).then(|| count.parse::<u64>().ok())?
    };
    stats.lines().filter_map(count).sum()
}
