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

    /// Entries that failed together do not come back together: their delays are spread over all that `jitter` allows.
    async fn delays_are_spread_by_the_jitter(server: Server) {
        let mut redis = server.connect().await;
        let backoff = "backoff = { initial = \"2s\", factor = 1.0, jitter = 0.5 }";
        let worker = Setup::new(&server).retry(backoff).start();
        let ids = jobs::publish(&mut redis, "jobs", &many("fails", 60, &Action::Fail(1))).await;
        let mut due: Vec<(String, u64)> = Vec::new();
        eventually(PATIENCE, "all to be parked", async || {
            due = redis::cmd("ZRANGE").arg("{jobs}:workers:retry").arg(0).arg(-1).arg("WITHSCORES")
                .query_async(&mut redis).await.unwrap();
            due.len() == ids.len()
        })
        .await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let started = jobs::started(&mut redis).await;
        let mut delays = Vec::new();
        for (n, id) in ids.iter().enumerate() {
            let due = due.iter().find(|(parked, _)| parked == id).unwrap().1;
            let name = format!("fails-{n}");
            let starts: Vec<u64> = started.iter().filter(|trace| trace.id == name).map(|trace| trace.at).collect();
            let [failed, again] = starts[..] else { panic!("{name} started at {starts:?}") };
            // It is due as long after it has failed as the backoff says, and comes back when it is due. Above there
            // is room for a machine that is busy.
            assert!((999..=3_500).contains(&(due - failed)), "{name} was due after {} ms", due - failed);
            assert!((due..due + 1_000).contains(&(again + 1)), "{name} came back {} ms late", again as i64 - due as i64);
            delays.push(due - failed);
        }
        let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
        let mean = delays.iter().sum::<u64>() / delays.len() as u64;
        println!("delays from {least} to {most} ms, {mean} on average");
        // Sixty even draws from two seconds: all of them within 0.7 of it is less likely than one in ten million.
        assert!(most - least > 1_400, "delays from {least} to {most} ms");
        assert!((1_600..=2_500).contains(&mean), "{mean} ms on average");
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
}
