//! Hands other than ours in a group's keys, and other clients in its group: what they break is repaired, what they
//! hold is left alone, and nothing is lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;

use crate::support::jobs::{self, Action, Job, many};
use crate::support::{Cli, Server, Setup, entries, eventually, settled};

const PATIENCE: Duration = Duration::from_secs(30);
const LEASE: Duration = Duration::from_secs(2);
const TWO_LEASES: Duration = Duration::from_secs(4);
const DEAD: &str = "{jobs}:workers:dead";
const RETRY: &str = "{jobs}:workers:retry";
const FAILURES: &str = "{jobs}:workers:failures";
/// A client that is no worker of ours.
const FOREIGN: &str = "c1";

/// Does by hand what an operator would type.
async fn by_hand<T: redis::FromRedisValue>(redis: &mut MultiplexedConnection, typed: &str) -> T {
    let words: Vec<&str> = typed.split(' ').collect();
    let mut command = redis::cmd(words[0]);
    let done = command.arg(&words[1..]).query_async(redis).await;
    done.unwrap_or_else(|error| panic!("{typed}: {error}"))
}

/// Who has what pending, and how often it was delivered.
async fn holders(redis: &mut MultiplexedConnection) -> BTreeMap<String, (String, u64)> {
    let all = "XPENDING jobs workers - + 10000";
    let pending: Vec<(String, String, u64, u64)> = by_hand(redis, all).await;
    let holder = |(id, consumer, _, count)| (id, (consumer, count));
    pending.into_iter().map(holder).collect()
}

async fn until_started(redis: &mut MultiplexedConnection, count: usize) {
    let what = format!("{count} to run");
    eventually(PATIENCE, what, async || {
        jobs::started(redis).await.len() == count
    })
    .await;
}

async fn until_parked(redis: &mut MultiplexedConnection, count: usize) {
    eventually(PATIENCE, format!("{count} to be parked"), async || {
        let there: usize = by_hand(redis, &format!("ZCARD {RETRY}")).await;
        there == count
    })
    .await;
}

async fn until_passed(since: Instant, time: Duration) {
    let what = format!("{time:?} to pass");
    eventually(PATIENCE, what, async || since.elapsed() >= time).await;
}

/// Every job ran at these attempts and, having come to its end, not again.
async fn each_ran_at(redis: &mut MultiplexedConnection, jobs: &[Job], attempts: &[u32]) {
    let mut ran: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for trace in jobs::started(redis).await {
        ran.entry(trace.id).or_default().push(trace.attempt);
    }
    let handled = jobs::handled(redis).await;
    for job in jobs {
        assert_eq!(
            ran.get(&job.id).map(|at| &at[..]),
            Some(attempts),
            "{}",
            job.id
        );
        assert_eq!(handled.get(&job.id), Some(&1), "{}", job.id);
    }
}

/// The errors in the dead letters, and that each is of another entry.
async fn buried(redis: &mut MultiplexedConnection) -> Vec<String> {
    let field = |fields: &crate::support::Fields, name: &str| {
        let (_, value) = fields.iter().rfind(|(n, _)| n == name).expect(name);
        String::from_utf8(value.to_vec()).expect("text")
    };
    let letters = entries(redis, DEAD).await;
    let of: Vec<String> = letters
        .iter()
        .map(|letter| field(&letter.fields, "dead.entry"))
        .collect();
    let distinct: std::collections::BTreeSet<&String> = of.iter().collect();
    assert_eq!(distinct.len(), of.len(), "buried twice: {of:?}");
    letters
        .iter()
        .map(|letter| field(&letter.fields, "dead.error"))
        .collect()
}

on_both_servers! {
    /// More entries than are mended in a few steps, and due in an hour but for the hand.
    async fn parked_entries_whose_due_times_are_deleted_are_due_at_once(server: Server) {
        let mut redis = server.connect().await;
        let hour = "backoff = { initial = \"1h\", max = \"1h\", jitter = 0.0 }";
        let setup = Setup::new(&server).retry(hour);
        let workers = [setup.start(), setup.start()];
        let all = many("fails", 50, &Action::Fail(1));
        jobs::publish(&mut redis, "jobs", &many("before", 3_300, &Action::FailOnceQuietly)).await;
        jobs::publish(&mut redis, "jobs", &all).await;
        until_parked(&mut redis, 3_300 + all.len()).await;
        let _: () = by_hand(&mut redis, &format!("DEL {RETRY}")).await;
        settled(&mut redis, "jobs", TWO_LEASES).await;
        each_ran_at(&mut redis, &all, &[1, 2]).await;
        for worker in workers {
            worker.stop().await;
        }
    }

    /// While some run for the second time, some wait for it, and some have given an attempt back.
    async fn deleted_failure_records_lose_no_entry_and_no_attempt(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).retry("backoff = { initial = \"700ms\", factor = 1.0, jitter = 0.0 }");
        let worker = setup.start();
        let fail = many("fails", 20, &Action::Fail(3));
        let later = many("later", 5, &Action::Later(1));
        jobs::publish(&mut redis, "jobs", &fail).await;
        jobs::publish(&mut redis, "jobs", &later).await;
        until_parked(&mut redis, fail.len()).await;
        for _ in 0..2 {
            let removed: u64 = by_hand(&mut redis, &format!("DEL {FAILURES}")).await;
            assert_eq!(removed, 1, "there were records");
            let runs = jobs::started(&mut redis).await.len();
            eventually(TWO_LEASES, "all to run again", async || {
                jobs::started(&mut redis).await.len() >= runs + fail.len()
            })
            .await;
        }
        settled(&mut redis, "jobs", PATIENCE).await;
        each_ran_at(&mut redis, &fail, &[1, 2, 3, 4]).await;
        let handled = jobs::handled(&mut redis).await;
        assert!(later.iter().all(|job| handled.get(&job.id) == Some(&1)), "{handled:?}");
        assert_eq!(buried(&mut redis).await, [""; 0]);
        worker.stop().await;
    }

    /// They wait for longer than it takes to find them with nobody, and go on at the attempt they had reached.
    async fn a_deleted_consumer_of_parked_entries_takes_none_along(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).retry("backoff = { initial = \"3s\", factor = 1.0, jitter = 0.0 }");
        let worker = setup.start();
        let all = many("fails", 20, &Action::Fail(1));
        jobs::publish(&mut redis, "jobs", &all).await;
        until_parked(&mut redis, all.len()).await;
        let dropped: usize = by_hand(&mut redis, "XGROUP DELCONSUMER jobs workers (parked)").await;
        assert_eq!(dropped, all.len());
        eventually(TWO_LEASES, "all to be handled", async || {
            jobs::handled(&mut redis).await.len() == all.len()
        })
        .await;
        each_ran_at(&mut redis, &all, &[1, 2]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        worker.stop().await;
    }

    /// The handler's success stands, and its failure, which nobody else would hear of, is a dead letter.
    /// One that fails comes back, as long as it has attempts left.
    async fn an_entry_acknowledged_while_it_runs_ends_as_its_handler_does(server: Server) {
        let mut redis = server.connect().await;
        let worker = Setup::new(&server).retry("max_attempts = 2").start();
        let jobs = [
            Job::new("succeeds", Action::Take(1_500)),
            Job::new("fails", Action::TakeThenFail(1_500)),
            // Before a renewal can have told that it is nobody's.
            Job::new("fails-soon", Action::TakeThenFail(400)),
        ];
        let ids = jobs::publish(&mut redis, "jobs", &jobs).await;
        until_started(&mut redis, jobs.len()).await;
        let acked: usize = by_hand(&mut redis, &format!("XACK jobs workers {}", ids.join(" "))).await;
        assert_eq!(acked, jobs.len());
        eventually(2 * TWO_LEASES, "the failures to be buried", async || buried(&mut redis).await.len() == 2).await;
        eventually(TWO_LEASES, "the other to succeed", async || jobs::handled(&mut redis).await.len() == 1).await;
        let stopped = worker.stop().await;
        assert_eq!((stopped.settled, stopped.unsettled), (5, 0));
        each_ran_at(&mut redis, &jobs[..1], &[1]).await;
        for id in ["fails", "fails-soon"] {
            assert_eq!(jobs::starts_of(&mut redis, id).await, 2, "{id}");
        }
        assert_eq!(holders(&mut redis).await, BTreeMap::new());
        let left: u64 = by_hand(&mut redis, &format!("EXISTS {RETRY} {FAILURES}")).await;
        assert_eq!(left, 0);
    }

    /// It is not to be told from one whose consumer was deleted: it comes back, at the attempt it had reached.
    async fn an_entry_acknowledged_while_it_is_parked_comes_back(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).retry("backoff = { initial = \"1s\", factor = 1.0, jitter = 0.0 }");
        let worker = setup.start();
        let all = [Job::new("fails", Action::Fail(1))];
        let ids = jobs::publish(&mut redis, "jobs", &all).await;
        until_parked(&mut redis, 1).await;
        let acked: usize = by_hand(&mut redis, &format!("XACK jobs workers {}", ids[0])).await;
        assert_eq!(acked, 1);
        eventually(TWO_LEASES, "it to be handled", async || jobs::handled(&mut redis).await.len() == 1).await;
        each_ran_at(&mut redis, &all, &[1, 2]).await;
        worker.stop().await;
    }

    /// Its handler's success stands, and its failure is buried whole; what is parked can't be brought back, and that
    /// is said.
    async fn an_entry_deleted_from_the_stream_is_buried_whole_by_its_holder_or_reported(server: Server) {
        let mut redis = server.connect().await;
        let mut worker = Setup::new(&server).process();
        let jobs = [
            Job::new("succeeds", Action::Take(1_000)),
            Job::new("fails", Action::TakeThenFailForGood(1_000)),
            Job::new("retries", Action::TakeThenFail(1_000)),
        ];
        let ids = jobs::publish(&mut redis, "jobs", &jobs).await;
        let originals = entries(&mut redis, "jobs").await;
        until_started(&mut redis, jobs.len()).await;
        let _: () = by_hand(&mut redis, &format!("XDEL jobs {}", ids.join(" "))).await;
        eventually(TWO_LEASES, "the failures to be buried", async || buried(&mut redis).await.len() == 2).await;
        eventually(TWO_LEASES, "the other to succeed", async || jobs::handled(&mut redis).await.len() == 1).await;
        for letter in entries(&mut redis, DEAD).await {
            let fields = &letter.fields[..letter.fields.len() - 12];
            assert!(originals[1..].iter().any(|original| original.fields == fields), "{letter:?}");
        }

        let parked = jobs::publish(&mut redis, "jobs", &[Job::new("parked", Action::FailThenTake(1, 1_000))]).await;
        until_parked(&mut redis, 1).await;
        let _: () = by_hand(&mut redis, &format!("XDEL jobs {}", parked[0])).await;
        worker.wait_for_log("LOST TO TRIMMING", TWO_LEASES).await;
        settled(&mut redis, "jobs", TWO_LEASES).await;
        assert_eq!(by_hand::<u64>(&mut redis, &format!("HLEN {FAILURES}")).await, 0);
    }

    /// What is acknowledged is handled by the worker that has it; what a foreign client takes is the client's.
    async fn entries_that_wait_their_turn_at_a_worker_are_acknowledged_and_taken(server: Server) {
        let mut redis = server.connect().await;
        let worker = Setup::new(&server).worker("concurrency = 1").start();
        // Fast ones first: the worker learns to read ahead, and then holds what it can't start.
        let slow = Job::new("slow", Action::Take(2_500));
        let mut all = many("fast", 2_000, &Action::Nothing);
        all.push(slow);
        let behind = many("behind", 100, &Action::Succeed);
        jobs::publish(&mut redis, "jobs", &all).await;
        let ids = jobs::publish(&mut redis, "jobs", &behind).await;
        until_started(&mut redis, 1).await;
        let held = holders(&mut redis).await;
        let waiting: Vec<&String> = ids.iter().filter(|id| held.contains_key(*id)).collect();
        assert!(waiting.len() >= 20, "{} wait at the worker", waiting.len());
        let (acked, taken) = (&waiting[..waiting.len() / 2], &waiting[waiting.len() / 2..]);
        for id in acked {
            let _: () = by_hand(&mut redis, &format!("XACK jobs workers {id}")).await;
        }
        for id in taken {
            let _: redis::Value = by_hand(&mut redis, &format!("XCLAIM jobs workers {FOREIGN} 0 {id}")).await;
        }
        let ours = all.len() - 2_000 + behind.len() - taken.len();
        eventually(TWO_LEASES, "all but the client's to be handled", async || {
            jobs::handled(&mut redis).await.len() == ours
        })
        .await;
        let left = eventually(TWO_LEASES, "all but the client's to be settled", async || {
            Some(holders(&mut redis).await).filter(|left| left.len() == taken.len())
        })
        .await;
        for id in taken {
            assert_eq!(left[*id], (FOREIGN.to_owned(), 2));
        }
        assert_eq!(jobs::started(&mut redis).await.len(), ours, "each ran once, and the client's never");
        worker.stop().await;
    }

    /// Its handlers' successes stand, its failures are tried again, and it reads on.
    async fn a_workers_own_consumer_deleted_by_hand_takes_nothing_along(server: Server) {
        let mut redis = server.connect().await;
        let worker = Setup::new(&server).retry("max_attempts = 2").start();
        let mut all = many("takes", 10, &Action::Take(1_500));
        all.push(Job::new("fails", Action::TakeThenFail(1_500)));
        jobs::publish(&mut redis, "jobs", &all).await;
        until_started(&mut redis, all.len()).await;
        let (me, _) = holders(&mut redis).await.into_values().next().unwrap();
        let dropped: usize = by_hand(&mut redis, &format!("XGROUP DELCONSUMER jobs workers {me}")).await;
        assert_eq!(dropped, all.len());
        jobs::publish(&mut redis, "jobs", &many("next", 10, &Action::Succeed)).await;
        eventually(2 * TWO_LEASES, "all to be handled or buried", async || {
            jobs::handled(&mut redis).await.len() == 20 && buried(&mut redis).await.len() == 1
        })
        .await;
        settled(&mut redis, "jobs", TWO_LEASES).await;
        each_ran_at(&mut redis, &all[..10], &[1]).await;
        assert_eq!(jobs::starts_of(&mut redis, "fails").await, 2);
        assert_eq!(jobs::started(&mut redis).await.len(), 22);
        worker.stop().await;
    }

    async fn what_a_foreign_client_reads_is_left_to_it_and_shown(server: Server) {
        let mut redis = server.connect().await;
        let all = many("foreign", 10, &Action::Succeed);
        let ids = jobs::publish(&mut redis, "jobs", &all).await;
        let _: () = by_hand(&mut redis, "XGROUP CREATE jobs workers 0").await;
        let read = format!("XREADGROUP GROUP workers {FOREIGN} COUNT 10 STREAMS jobs >");
        let _: redis::Value = by_hand(&mut redis, &read).await;
        let setup = Setup::new(&server).worker("lease = \"500ms\"");
        let workers = [setup.start(), setup.start()];
        let ours = many("ours", 20, &Action::Fail(1));
        jobs::publish(&mut redis, "jobs", &ours).await;
        let since = Instant::now();
        let left = eventually(PATIENCE, "ours to be settled", async || {
            let done = jobs::handled(&mut redis).await.len() == ours.len();
            Some(holders(&mut redis).await).filter(|left| done && left.len() == ids.len())
        })
        .await;
        each_ran_at(&mut redis, &ours, &[1, 2]).await;
        // Four leases, more than any worker of ours would have been given.
        until_passed(since, Duration::from_secs(2)).await;
        assert_eq!(holders(&mut redis).await, left);
        assert!(ids.iter().all(|id| left[id] == (FOREIGN.to_owned(), 1)), "{left:?}");

        let cli = Cli::new(&server, "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]");
        let status = cli.run(&["status", "--json"]).await.json();
        let consumers = status["streams"][0]["group"]["consumers"].as_array().unwrap();
        let of = |name: &str| consumers.iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("{consumers:?}"));
        assert_eq!((&of(FOREIGN)["pending"], &of(FOREIGN)["standing"]), (&10.into(), &"foreign".into()));

        let acked: usize = by_hand(&mut redis, &format!("XACK jobs workers {}", ids.join(" "))).await;
        assert_eq!(acked, 10);
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::started(&mut redis).await.len(), 40, "none of the client's ran");
        for worker in workers {
            worker.stop().await;
        }
    }

    /// Its holder is told; what the handler comes to is the client's business, but a success is one for all.
    async fn what_a_foreign_client_takes_from_a_live_worker_is_left_to_it(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).retry("backoff = { initial = \"1s\", factor = 1.0, jitter = 0.0 }");
        let workers = [setup.start(), setup.start()];
        let all = [
            Job::new("succeeds", Action::Take(1_500)),
            Job::new("fails", Action::TakeThenFail(1_500)),
            Job::new("fails-for-good", Action::TakeThenFailForGood(1_500)),
            Job::new("fails-soon", Action::TakeThenFail(400)),
            Job::new("told", Action::UntilTold),
            Job::new("parked", Action::Fail(1)),
        ];
        let ids = jobs::publish(&mut redis, "jobs", &all).await;
        until_started(&mut redis, all.len()).await;
        until_parked(&mut redis, 1).await;
        let meddled = Instant::now();
        for id in &ids {
            let _: redis::Value = by_hand(&mut redis, &format!("XCLAIM jobs workers {FOREIGN} 0 {id} JUSTID")).await;
        }
        let told = eventually(TWO_LEASES, "a handler to be told", async || {
            jobs::ended(&mut redis).await.into_iter().find(|trace| trace.id == "told")
        })
        .await;
        assert_eq!(told.told, "LeaseLost");
        // All handlers have ended by then, and renewals, due times and takeovers have had their turns.
        until_passed(meddled, LEASE + LEASE / 4).await;
        let left = holders(&mut redis).await;
        assert_eq!(left.len(), 5, "{left:?}");
        assert!(left.values().all(|holder| *holder == (FOREIGN.to_owned(), 1)), "{left:?}");
        assert!(!left.contains_key(&ids[0]), "the success stands");
        assert_eq!(jobs::started(&mut redis).await.len(), all.len(), "none ran again");
        assert_eq!(buried(&mut redis).await, [""; 0]);
        until_parked(&mut redis, 0).await;

        let acked: usize = by_hand(&mut redis, &format!("XACK jobs workers {}", ids.join(" "))).await;
        assert_eq!(acked, 5);
        // What is known of its failures goes as well.
        eventually(2 * LEASE, "the records to go", async || {
            by_hand::<u64>(&mut redis, &format!("HLEN {FAILURES}")).await == 0
        })
        .await;
        for worker in workers {
            worker.stop().await;
        }
    }

    /// A delivery of its own, to the worker that has it: what runs is told, and the entry runs once more.
    async fn what_a_foreign_client_gives_to_its_holder_again_is_found_by_it(server: Server) {
        let mut redis = server.connect().await;
        let worker = Setup::new(&server).start();
        let ids = jobs::publish(&mut redis, "jobs", &[Job::new("told", Action::UntilTold)]).await;
        until_started(&mut redis, 1).await;
        let (me, _) = holders(&mut redis).await.into_values().next().unwrap();
        let _: redis::Value = by_hand(&mut redis, &format!("XCLAIM jobs workers {me} 0 {}", ids[0])).await;
        eventually(TWO_LEASES, "it to run once more", async || jobs::started(&mut redis).await.len() == 2).await;
        let ended = jobs::ended(&mut redis).await;
        assert_eq!((ended.len(), ended[0].told.as_str(), ended[0].attempt), (1, "LeaseLost", 1));
        assert_eq!(jobs::started(&mut redis).await[1].attempt, 2);
        assert_eq!(holders(&mut redis).await[&ids[0]], (me, 2));
        worker.stop().await;
    }
}
