//! Limits of a whole group: no more run at once than all workers may together, whoever of them is killed; and limits that
//! operators set while the group runs.

use std::time::Duration;

use redis::aio::MultiplexedConnection;

use crate::support::jobs::{self, Action, Trace, many};
use crate::support::{Cli, Server, Setup, dead, eventually, settled};

const PATIENCE: Duration = Duration::from_secs(60);

/// The most handlers that ran at once, of those that these say, among those that have ended.
async fn most_at_once(redis: &mut MultiplexedConnection, of: impl Fn(&Trace) -> bool) -> usize {
    let ended = jobs::ended(redis).await;
    let started = jobs::started(redis).await;
    let mut runs: Vec<(u64, i64)> = Vec::new();
    for begin in started.into_iter().filter(|trace| of(trace)) {
        let is_its = |end: &&Trace| {
            end.id == begin.id && end.pid == begin.pid && end.attempt == begin.attempt
        };
        if let Some(end) = ended.iter().find(is_its) {
            // What ends and what begins in one millisecond are one behind the other.
            runs.extend([(begin.at * 2 + 1, 1), (end.at * 2, -1)]);
        }
    }
    runs.sort();
    let mut now = 0;
    let at_once = runs.into_iter().map(|(_, change)| {
        now += change;
        now
    });
    at_once.max().unwrap_or(0) as usize
}

on_both_servers! {
    async fn no_more_run_in_a_group_than_may_and_what_a_killed_worker_had_is_free_again(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).worker("lease = \"1s\"")
            .handler("concurrency = 3").handler("concurrency_scope = \"group\"");
        let mut killed = setup.process();
        let workers = [setup.process(), setup.process()];
        jobs::publish(&mut redis, "jobs", &many("first", 90, &Action::Take(60))).await;
        eventually(PATIENCE, "all three to work", async || {
            let mut pids: Vec<u32> = jobs::ended(&mut redis).await.iter().map(|trace| trace.pid).collect();
            pids.sort_unstable();
            pids.dedup();
            if pids.len() >= 2 && jobs::ended(&mut redis).await.len() >= 30 { Ok(()) } else { Err(format!("{pids:?}")) }
        }).await;
        killed.kill();
        let at = jobs::now_ms();
        settled(&mut redis, "jobs", PATIENCE).await;
        let most = most_at_once(&mut redis, |_| true).await;
        assert!((2..=3).contains(&most), "{most} ran at once");
        // None of its permits is lost for good.
        jobs::publish(&mut redis, "jobs", &many("second", 60, &Action::Take(60))).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(most_at_once(&mut redis, |trace| trace.at > at && trace.id.starts_with("second")).await, 3);
        assert_eq!(dead(&mut redis).await, 0);
        let handled = jobs::handled(&mut redis).await;
        assert_eq!(handled.len(), 150);
        // Nobody has any once all is done.
        eventually(PATIENCE, "all to be given back", async || {
            let held: u64 = redis::cmd("HLEN").arg("streamhand:workers:permits:test.job").query_async(&mut redis).await.unwrap();
            held == 0
        }).await;
        drop(workers);
    }

    async fn what_an_operator_sets_holds_for_all_workers_until_it_is_cleared(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).worker("concurrency = 8");
        let cli = Cli::new(&server, "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n");
        let mut first = setup.process();
        first.wait_for_log("the group is new", PATIENCE).await;
        let said = cli.run(&["limit", "test.job", "--concurrency", "2", "--by", "alice"]).await.ok();
        assert_eq!(said, "test.job: 2 at once in all of workers, until it is cleared\n");
        first.wait_for_log("the group's limits are set by an operator", PATIENCE).await;
        // One that starts later hears of it as well.
        let mut second = setup.process();
        second.wait_for_log("the group's limits are set by an operator", PATIENCE).await;
        jobs::publish(&mut redis, "jobs", &many("limited", 30, &Action::Take(50))).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(most_at_once(&mut redis, |_| true).await, 2);
        let said = cli.run(&["limit", "list"]).await.ok();
        assert!(said.contains("test.job  2 at once  alice"), "{said}");
        let status = cli.run(&["status"]).await.ok();
        assert!(status.contains("limit of test.job: 2 at once, set by alice "), "{status}");
        let status = cli.run(&["status", "--json"]).await.json();
        assert_eq!(status["limits"][0]["concurrency"], 2);

        // The rate beside it; what is not said stays.
        let said = cli.run(&["limit", "test.job", "--rate", "20/s"]).await.ok();
        assert!(said.starts_with("test.job: 20/1s, 2 at once in all of workers"), "{said}");
        for worker in [&mut first, &mut second] {
            worker.wait_for_log("20/1s", PATIENCE).await;
        }
        let since = jobs::now_ms();
        jobs::publish(&mut redis, "jobs", &many("rated", 40, &Action::Succeed)).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let last = jobs::started(&mut redis).await.iter().map(|trace| trace.at).max().unwrap_or(0);
        assert!(last - since >= 1_500, "40 at 20/s took {} ms", last - since);

        let said = cli.run(&["limit", "test.job", "--clear"]).await.ok();
        assert_eq!(said, "test.job: as configured again, for all workers of workers\n");
        for worker in [&mut first, &mut second] {
            worker.wait_for_log("limits are as they are configured", PATIENCE).await;
        }
        jobs::publish(&mut redis, "jobs", &many("free", 60, &Action::Take(100))).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let most = most_at_once(&mut redis, |trace| trace.id.starts_with("free")).await;
        assert!(most > 4, "{most} ran at once");
        assert_eq!(cli.run(&["limit", "list"]).await.err, "no limits of workers are set: all are as configured\n");
        for (args, why) in [
            (&["test.job"][..], "no limit: add --rate 50/s, --concurrency 8, or --clear"),
            (&["test.job", "--rate", "often"], "100/s"),
            (&["test.job", "--rate", "0/s"], "pause the handler instead"),
            (&["test.job", "--concurrency", "0"], "1 to 1000000"),
            (&["Test Job", "--rate", "5/s"], "the event type \"Test Job\""),
            (&["test.job", "--rate", "5/s", "--clear"], "cannot be used with"),
        ] {
            let ran = cli.run(&[&["limit"], args].concat()).await;
            assert!(ran.code != 0 && ran.err.contains(why), "{args:?}: {ran:?}");
        }
    }
}
