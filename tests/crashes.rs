//! An entry that kills its worker is found out and buried; those that were held beside it are not.

use std::time::{Duration, Instant};

use crate::support::jobs::{self, Action, Job, many};
use crate::support::{Server, Setup, WorkerProcess, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

on_both_servers! {
    /// A handler that may run once has its entries go alone when their worker dies. All others still come at once.
    async fn what_goes_alone_early_sends_no_other_type_alone(server: Server) {
        let single = "[handlers.\"test.single\"]\nmax_attempts = 1\n";
        those_that_were_held_run_side_by_side(Setup::new(&server).more(single), &server).await;
    }

    async fn where_most_go_alone_early_a_type_with_more_attempts_does_not(server: Server) {
        let setup = Setup::new(&server).retry("max_attempts = 1").handler("max_attempts = 5");
        those_that_were_held_run_side_by_side(setup, &server).await;
    }

    async fn with_five_attempts_the_culprit_is_buried_and_no_bystander(server: Server) {
        the_culprit_is_buried_and_no_bystander(server, 5).await;
    }

    async fn with_two_attempts_the_culprit_is_buried_and_no_bystander(server: Server) {
        the_culprit_is_buried_and_no_bystander(server, 2).await;
    }

    /// Each kills its worker while the other's bystanders are held.
    async fn two_culprits_are_told_from_their_bystanders(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).worker("lease = \"1s\"").retry("max_attempts = 2");
        let mut all = many("before", 100, &Action::Take(20));
        all.push(Job::new("culprit-1", Action::Abort));
        all.extend(many("between", 100, &Action::Take(20)));
        all.push(Job::new("culprit-2", Action::Abort));
        all.extend(many("after", 100, &Action::Take(20)));
        jobs::publish(&mut redis, "jobs", &all).await;
        let mut fleet: Vec<WorkerProcess> = (0..3).map(|_| setup.process()).collect();
        let dead = until_all_is_done(&mut redis, &setup, &mut fleet, &all).await;
        assert_eq!(dead, ["culprit-1", "culprit-2"]);
    }

    /// Three times an entry on its last attempt could be taken for the culprit: it runs when another comes and kills
    /// the worker, it comes when another runs that will, and it has failed once and is run for the last time in
    /// company.
    async fn an_innocent_suspect_is_not_taken_for_the_culprit_beside_it(server: Server) {
        let mut redis = server.connect().await;
        // A suspect has company once it has run for a lease: these take far less.
        let setup = Setup::new(&server).worker("lease = \"800ms\"").retry("max_attempts = 2");
        let mut all = many("bystander", 4, &Action::TakeOrLess(5_000, 150));
        all.push(Job::new("unlucky", Action::FailThenTake(1, 200)));
        jobs::publish(&mut redis, "jobs", &all).await;
        let mut worker = setup.process();
        let mut culprit = async |redis: &mut redis::aio::MultiplexedConnection, name: &str, action| {
            all.push(Job::new(name, action));
            jobs::publish(redis, "jobs", &all[all.len() - 1..]).await;
        };
        let second_starts = async |redis: &mut redis::aio::MultiplexedConnection, name: &str| {
            let started = jobs::started(redis).await;
            started.iter().filter(|trace| trace.id.starts_with(name) && trace.attempt == 2).count()
        };
        eventually(PATIENCE, "one to run for the last time", async || {
            second_starts(&mut redis, "unlucky").await == 1
        })
        .await;
        culprit(&mut redis, "culprit-first", Action::Abort).await;
        eventually(PATIENCE, "the worker to die", async || worker.has_ended()).await;
        // This one is read before a worker takes anything over, and still runs when it may.
        culprit(&mut redis, "culprit-there", Action::AbortAfter(1_300)).await;
        worker = setup.process();
        eventually(PATIENCE, "the worker to die", async || worker.has_ended()).await;
        worker = setup.process();
        // This one comes when a suspect runs.
        eventually(PATIENCE, "a suspect to run", async || {
            if worker.has_ended() {
                worker = setup.process();
            }
            second_starts(&mut redis, "bystander").await > 0
        })
        .await;
        culprit(&mut redis, "culprit-beside", Action::Abort).await;
        let dead = until_all_is_done(&mut redis, &setup, std::slice::from_mut(&mut worker), &all).await;
        assert_eq!(dead, ["culprit-beside", "culprit-first", "culprit-there"]);
    }
}

/// Thirty are held when their worker dies. One after the other they would take half a minute.
async fn those_that_were_held_run_side_by_side(setup: Setup, server: &Server) {
    let mut redis = server.connect().await;
    let setup = setup.worker("lease = \"1s\"");
    let all = many("held", 30, &Action::TakeOrLess(60_000, 1_000));
    jobs::publish(&mut redis, "jobs", &all).await;
    let mut worker = setup.process();
    eventually(PATIENCE, "all to be held", async || {
        jobs::started(&mut redis).await.len() == all.len()
    })
    .await;
    worker.kill();
    let died = Instant::now();
    let _worker = setup.process();
    eventually(PATIENCE, "all to be handled", async || {
        jobs::ended(&mut redis).await.len() == all.len()
    })
    .await;
    let took = died.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
}

async fn the_culprit_is_buried_and_no_bystander(server: Server, max_attempts: u32) {
    let mut redis = server.connect().await;
    let setup = Setup::new(&server)
        .worker("lease = \"1s\"")
        .worker("concurrency = 400")
        .retry(&format!("max_attempts = {max_attempts}"));
    // Hundreds that run, and are held, when the culprit kills its worker: the first time all that have started, however
    // slowly that goes. It is not among the first, of which each worker reads few.
    let mut all = many("bystander", 400, &Action::TakeOrLess(1_000, 50));
    all.insert(250, Job::new("culprit", Action::AbortAfter(300)));
    jobs::publish(&mut redis, "jobs", &all).await;
    let mut fleet = vec![setup.process(), setup.process()];
    let dead = until_all_is_done(&mut redis, &setup, &mut fleet, &all).await;
    assert_eq!(dead, ["culprit"]);
    let (started, ended) = (
        jobs::started(&mut redis).await,
        jobs::ended(&mut redis).await,
    );
    let deaths: Vec<u32> = started
        .iter()
        .filter(|trace| trace.id == "culprit")
        .map(|trace| trace.pid)
        .collect();
    assert_eq!(deaths.len(), max_attempts as usize, "starts of the culprit");
    let ran = |traces: &[jobs::Trace]| traces.iter().filter(|trace| trace.pid == deaths[0]).count();
    let lost = ran(&started) - ran(&ended);
    println!("{lost} ran when their worker died first");
    assert!(lost > 100, "only {lost} ran when their worker died first");
}

/// Replaces workers that die until everything is handled or buried; answers what was buried.
async fn until_all_is_done(
    redis: &mut redis::aio::MultiplexedConnection,
    setup: &Setup,
    fleet: &mut [WorkerProcess],
    all: &[Job],
) -> Vec<String> {
    let mut dead = eventually(PATIENCE, "everything to be handled or buried", async || {
        for worker in fleet.iter_mut() {
            if worker.has_ended() {
                *worker = setup.process();
            }
        }
        let letters: Vec<(String, Vec<(String, String)>)> = redis::cmd("XRANGE")
            .arg("{jobs}:workers:dead")
            .arg("-")
            .arg("+")
            .query_async(redis)
            .await
            .unwrap();
        let field = |fields: &[(String, String)], name: &str| {
            fields
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, value)| value.clone())
                .unwrap_or_default()
        };
        let mut dead = Vec::new();
        for (_, fields) in &letters {
            let job: Job = serde_json::from_str(&field(fields, "data")).unwrap();
            assert_eq!(
                field(fields, "dead.reason"),
                "crashed",
                "{} {fields:?}",
                job.id
            );
            dead.push(job.id);
        }
        let handled = jobs::handled(redis).await;
        let done = handled.len() + dead.len();
        let pending = crate::support::pending(redis, "jobs").await;
        let open: u64 = pending.iter().map(|(_, count)| count).sum();
        if done == all.len() && open == 0 {
            Ok(dead)
        } else {
            Err(format!(
                "{done} of {}, {open} pending; {}",
                all.len(),
                fleet[0].log()
            ))
        }
    })
    .await;
    let most = jobs::handled(redis).await.into_values().max().unwrap_or(0);
    assert!(most <= 3, "a bystander ran {most} times to its end");
    dead.sort();
    dead
}
