//! What must not run more often than it has attempts does not, whatever kills or stops its workers; and what may is
//! counted apart.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;

use crate::support::jobs::{self, Action, Job, many};
use crate::support::{Entry, Server, Setup, dead, entries, eventually};

const PATIENCE: Duration = Duration::from_secs(60);
const DEAD: &str = "{jobs}:workers:dead";

fn once(server: &Server) -> Setup {
    Setup::new(server)
        .worker("lease = \"1s\"")
        .retry("max_attempts = 1")
        .handler("on_crash = \"bury\"")
}

fn field<'a>(letter: &'a Entry, name: &str) -> &'a str {
    let found = letter
        .fields
        .iter()
        .find(|(field, _)| field == name.as_bytes());
    found.map_or("", |(_, value)| std::str::from_utf8(value).unwrap())
}

async fn starts(redis: &mut MultiplexedConnection) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for trace in jobs::started(redis).await {
        *times.entry(trace.id).or_default() += 1;
    }
    times
}

on_both_servers! {
    async fn what_dies_in_its_only_attempt_is_buried_and_never_runs_again(server: Server) {
        let mut redis = server.connect().await;
        let setup = once(&server);
        let mut all = many("bystander", 5, &Action::Take(3_000));
        all.push(Job::new("culprit", Action::AbortAfter(500)));
        jobs::publish(&mut redis, "jobs", &all).await;
        let mut first = setup.process();
        eventually(PATIENCE, "the worker to die", async || first.has_ended()).await;
        let second = setup.process();
        eventually(PATIENCE, "all of them to be buried", async || dead(&mut redis).await == 6).await;
        let after = many("after", 1, &Action::Succeed);
        jobs::publish(&mut redis, "jobs", &after).await;
        eventually(PATIENCE, "what comes after", async || jobs::handled(&mut redis).await.len() == 1).await;
        drop(second);
        let starts = starts(&mut redis).await;
        assert!(starts.len() == 7 && starts.values().all(|times| *times == 1), "{starts:?}");
        for letter in entries(&mut redis, DEAD).await {
            let told = ["dead.reason", "dead.attempts", "dead.crash_checks"].map(|name| field(&letter, name));
            assert_eq!(told, ["crashed", "1", "0"]);
            assert!(field(&letter, "dead.error").contains("on_crash"), "{letter:?}");
        }
    }

    /// The other one finds it silent, and can't know what it has done.
    async fn what_a_frozen_worker_runs_is_buried_and_not_run_beside_it(server: Server) {
        let mut redis = server.connect().await;
        let setup = once(&server);
        let job = Job::new("charge", Action::Take(1_500));
        jobs::publish(&mut redis, "jobs", std::slice::from_ref(&job)).await;
        let mut frozen = setup.process();
        eventually(PATIENCE, "it to start", async || jobs::starts_of(&mut redis, "charge").await == 1).await;
        frozen.freeze();
        let _other = setup.process();
        eventually(PATIENCE, "the letter", async || dead(&mut redis).await == 1).await;
        frozen.thaw();
        eventually(PATIENCE, "the frozen one to come to its end", async || jobs::handled(&mut redis).await.len() == 1).await;
        jobs::publish(&mut redis, "jobs", &many("after", 20, &Action::Succeed)).await;
        eventually(PATIENCE, "what comes after", async || jobs::handled(&mut redis).await.len() == 21).await;
        assert_eq!(starts(&mut redis).await["charge"], 1);
        assert_eq!(dead(&mut redis).await, 1);
    }

    async fn what_a_stop_cuts_off_has_had_its_attempt(server: Server) {
        let mut redis = server.connect().await;
        let setup = once(&server).worker("drain = \"200ms\"");
        jobs::publish(&mut redis, "jobs", &[Job::new("hangs", Action::Hang), Job::new("told", Action::UntilTold)]).await;
        let worker = setup.start();
        eventually(PATIENCE, "both to start", async || starts(&mut redis).await.len() == 2).await;
        worker.stop().await;
        let next = setup.start();
        jobs::publish(&mut redis, "jobs", &many("after", 1, &Action::Succeed)).await;
        eventually(PATIENCE, "what comes after", async || jobs::handled(&mut redis).await.contains_key("after-0")).await;
        eventually(PATIENCE, "both letters", async || dead(&mut redis).await == 2).await;
        next.stop().await;
        let starts = starts(&mut redis).await;
        assert_eq!((starts["hangs"], starts["told"]), (1, 1));
    }

    /// What may run once more does so alone, and that is no attempt.
    async fn a_crash_check_is_counted_apart(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).worker("lease = \"1s\"").retry("max_attempts = 1");
        jobs::publish(&mut redis, "jobs", &[Job::new("culprit", Action::Abort)]).await;
        let mut worker = setup.process();
        eventually(PATIENCE, "it to be buried", async || {
            if worker.has_ended() {
                worker = setup.process();
            }
            dead(&mut redis).await == 1
        })
        .await;
        let attempts: Vec<u32> = jobs::started(&mut redis).await.iter().map(|trace| trace.attempt).collect();
        assert_eq!(attempts, [1, 1]);
        let letter = &entries(&mut redis, DEAD).await[0];
        let told = ["dead.reason", "dead.attempts", "dead.crash_checks"].map(|name| field(letter, name));
        assert_eq!(told, ["crashed", "1", "1"]);
    }
}
