//! A failed entry waits out its backoff in Redis and comes back, however many workers die meanwhile.

use std::time::Duration;

use crate::support::jobs::{self, Action, Job, many};
use crate::support::{Server, Setup, eventually, settled};

const PATIENCE: Duration = Duration::from_secs(40);

on_both_servers! {
    async fn delays_follow_the_backoff_and_attempts_are_counted(server: Server) {
        let mut redis = server.connect().await;
        let backoff = "backoff = { initial = \"200ms\", factor = 2.0, max = \"500ms\", jitter = 0.1 }";
        // With a lease as long as this nothing but the due times themselves ends a read in time.
        let worker = Setup::new(&server).worker("lease = \"30s\"").retry(backoff).start();
        jobs::publish(&mut redis, "jobs", &[Job::new("fails", Action::Fail(4)), Job::new("later", Action::Later(3))]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let records: u64 = redis::cmd("HLEN").arg("{jobs}:workers:failures").query_async(&mut redis).await.unwrap();
        assert_eq!(records, 0, "what was known of their failures is gone with them");
        let started = jobs::started(&mut redis).await;
        let of = |id: &str| started.iter().filter(|trace| trace.id == id).cloned().collect::<Vec<_>>();
        assert_eq!(of("fails").iter().map(|trace| trace.attempt).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        // What asks to come later uses no attempt up.
        assert_eq!(of("later").iter().map(|trace| trace.attempt).collect::<Vec<_>>(), [1, 1, 1, 1]);
        let delays: Vec<u64> = of("fails").windows(2).map(|pair| pair[1].at - pair[0].at).collect();
        for (delay, expected) in delays.iter().zip([200, 400, 500, 500]) {
            let (least, most) = (expected * 9 / 10 - 1, expected * 11 / 10 + 150);
            assert!((least..=most).contains(delay), "{delays:?}");
        }
        worker.stop().await;
    }

    async fn the_schedule_survives_every_worker(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).retry("backoff = { initial = \"4s\", factor = 1.0, jitter = 0.0 }");
        let mut workers = [setup.process(), setup.process()];
        let all = many("fails", 20, &Action::Fail(1));
        jobs::publish(&mut redis, "jobs", &all).await;
        eventually(PATIENCE, "all to be parked", async || {
            redis::cmd("ZCARD").arg("{jobs}:workers:retry").query_async::<u64>(&mut redis).await.unwrap() == 20
        })
        .await;
        for worker in &mut workers {
            worker.kill();
        }
        let heir = setup.start();
        settled(&mut redis, "jobs", PATIENCE).await;
        let started = jobs::started(&mut redis).await;
        for job in &all {
            let starts: Vec<_> = started.iter().filter(|trace| trace.id == job.id).collect();
            assert_eq!(starts.iter().map(|trace| trace.attempt).collect::<Vec<_>>(), [1, 2], "{}", job.id);
            let delay = starts[1].at - starts[0].at;
            assert!((3_990..5_500).contains(&delay), "{} came back after {delay} ms", job.id);
        }
        heir.stop().await;
    }

    /// All of them due at once: woken in steps that Lua can carry, while new entries go on.
    async fn a_hundred_thousand_that_fall_due_at_once_starve_no_new_entry(server: Server) {
        let mut redis = server.connect().await;
        let parked = many("parked", 100_000, &Action::Nothing);
        let setup = Setup::new(&server);
        let first = setup.start();
        jobs::publish(&mut redis, "jobs", &[Job::new("first", Action::Succeed)]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        first.stop().await;
        jobs::publish(&mut redis, "jobs", &parked).await;
        // Parked as the runtime parks: with the consumer of parked entries, and a due time each.
        loop {
            let read: redis::Value = redis::cmd("XREADGROUP").arg("GROUP").arg("workers").arg("(parked)")
                .arg("COUNT").arg(5_000).arg("STREAMS").arg("jobs").arg(">").query_async(&mut redis).await.unwrap();
            if read == redis::Value::Nil {
                break;
            }
            let reply: redis::streams::StreamReadReply = redis::from_redis_value(read).unwrap();
            let mut due = redis::cmd("ZADD");
            due.arg("{jobs}:workers:retry");
            for entry in &reply.keys[0].ids {
                due.arg(1).arg(&entry.id);
            }
            let _: i64 = due.query_async(&mut redis).await.unwrap();
        }
        // Where all that is read ahead fits into one step of waking, new entries still have their turns.
        let worker = setup.clone().worker("prefetch = 100").start();
        let live = many("live", 100, &Action::Succeed);
        jobs::publish(&mut redis, "jobs", &live).await;
        eventually(PATIENCE, "the new entries to be handled", async || jobs::handled(&mut redis).await.len() == 101).await;
        let left: u64 = redis::cmd("ZCARD").arg("{jobs}:workers:retry").query_async(&mut redis).await.unwrap();
        println!("{left} of 100000 still parked when the new entries were done");
        assert!(left > 0, "new entries waited for all the parked ones");
        worker.stop().await;
        // With room for more than Lua can carry in one step.
        let worker = setup.worker("prefetch = 30000").worker("concurrency = 30000").start();
        settled(&mut redis, "jobs", PATIENCE).await;
        worker.stop().await;
        assert_eq!(jobs::handled(&mut redis).await.len(), 101);
        let parked: u64 = redis::cmd("ZCARD").arg("{jobs}:workers:retry").query_async(&mut redis).await.unwrap();
        assert_eq!(parked, 0);
    }
}
