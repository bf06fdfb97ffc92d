//! Where reading begins again: a stream or a whole server that is emptied under workers that begin new groups at the end,
//! and a group that is set back.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};

use crate::support::jobs::{self, Action, Job, many};
use crate::support::{
    CommandStats, InProcess, Proxy, Server, Setup, entries, eventually, parked, scripts, settled,
};

const PATIENCE: Duration = Duration::from_secs(30);
const POSITION: &str = "{jobs}:workers:position";

fn at_the_end(server: &Server) -> Setup {
    Setup::new(server).worker("start = \"end\"")
}

/// A worker that has joined its group, whose position was noted, and has handled what came after.
async fn joined(redis: &mut MultiplexedConnection, setup: &Setup) -> InProcess {
    jobs::publish(redis, "jobs", &many("before", 5, &Action::Nothing)).await;
    let worker = setup.start();
    eventually(PATIENCE, "the group to be there", async || {
        redis::cmd("EXISTS")
            .arg(POSITION)
            .query_async::<bool>(redis)
            .await
            .unwrap()
    })
    .await;
    jobs::publish(redis, "jobs", &many("first", 5, &Action::Succeed)).await;
    eventually(PATIENCE, "the first ones to be handled", async || {
        jobs::handled(redis).await.len() == 5
    })
    .await;
    worker
}

/// Adds jobs in one step with what comes before.
fn with_jobs(pipe: &mut Pipeline, stream: &str, jobs: &[Job]) {
    for job in jobs {
        let data = serde_json::to_string(job).unwrap();
        pipe.cmd("XADD").arg(stream).arg("*");
        pipe.arg("type")
            .arg("test.job")
            .arg("data")
            .arg(data)
            .ignore();
    }
}

async fn each_once(redis: &mut MultiplexedConnection, jobs: &[Job]) {
    eventually(PATIENCE, "all to be handled", async || {
        let handled = jobs::handled(redis).await;
        let left: Vec<_> = jobs
            .iter()
            .filter(|job| !handled.contains_key(&job.id))
            .collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
    settled(redis, "jobs", PATIENCE).await;
    let handled = jobs::handled(redis).await;
    assert!(jobs.iter().all(|job| handled[&job.id] == 1), "{handled:?}");
}

/// Joins the group as a worker does that has only just come and begins a new one at the end.
fn newcomer_joins(pipe: &mut Pipeline) {
    let g = |name: &str| format!("{{jobs}}:workers:{name}");
    pipe.cmd("EVAL")
        .arg(scripts::text("join"))
        .arg(5)
        .arg("jobs")
        .arg(POSITION);
    pipe.arg(g("protocol")).arg(g("failures")).arg(g("retry"));
    pipe.arg(&[
        "workers", "$", "2", "another", "", "", "", "1000", "1000000",
    ])
    .ignore();
}

on_both_servers! {
    /// Whether all is deleted, or the stream alone, or what is noted of it as well: the worker knows better.
    async fn what_comes_after_a_stream_was_deleted_is_read_by_who_begins_at_the_end(server: Server) {
        let mut redis = server.connect().await;
        let worker = joined(&mut redis, &at_the_end(&server)).await;
        for (n, gone) in [&["FLUSHALL"][..], &["DEL", "jobs"], &["DEL", "jobs", POSITION]].into_iter().enumerate() {
            let after = many(&format!("after-{n}"), 20, &Action::Succeed);
            let mut pipe = redis::pipe();
            pipe.atomic().cmd(gone[0]).arg(&gone[1..]).ignore();
            with_jobs(&mut pipe, "jobs", &after);
            let _: () = pipe.query_async(&mut redis).await.unwrap();
            each_once(&mut redis, &after).await;
        }
        assert!(jobs::handled(&mut redis).await.keys().all(|id| !id.starts_with("before")));
        worker.stop().await;
    }

    async fn what_comes_while_a_worker_is_away_from_an_emptied_server_is_read(server: Server) {
        let mut redis = server.connect().await;
        let mut proxy = Proxy::start(server.port()).await;
        let worker = joined(&mut redis, &Setup::at(proxy.url()).worker("start = \"end\"")).await;
        proxy.refuse().await;
        let after = many("after", 20, &Action::Succeed);
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("FLUSHALL").ignore();
        with_jobs(&mut pipe, "jobs", &after);
        let _: () = pipe.query_async(&mut redis).await.unwrap();
        proxy.accept_again();
        each_once(&mut redis, &after).await;
        worker.stop().await;
    }

    /// It can't know that the group is not new, and begins at the end. Who knows finds that out when it comes back.
    async fn a_second_worker_that_joins_meanwhile_skips_nothing_for_good(server: Server) {
        let mut redis = server.connect().await;
        let mut proxy = Proxy::start(server.port()).await;
        let away = joined(&mut redis, &Setup::at(proxy.url()).worker("start = \"end\"")).await;
        proxy.refuse().await;
        // More than one step brings back.
        let mut after = many("between", 1_200, &Action::Succeed);
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("FLUSHALL").ignore();
        with_jobs(&mut pipe, "jobs", &after);
        let _: () = pipe.query_async(&mut redis).await.unwrap();
        let newcomer = at_the_end(&server).start();
        eventually(PATIENCE, "the group to be made anew", async || {
            redis::cmd("EXISTS").arg(POSITION).query_async::<bool>(&mut redis).await.unwrap()
        })
        .await;
        let later = many("later", 20, &Action::Succeed);
        jobs::publish(&mut redis, "jobs", &later).await;
        each_once(&mut redis, &later).await;
        assert_eq!(jobs::handled(&mut redis).await.len(), later.len());
        proxy.accept_again();
        after.extend(later);
        each_once(&mut redis, &after).await;
        assert!(jobs::started(&mut redis).await.iter().all(|trace| trace.attempt == 1));
        away.stop().await;
        newcomer.stop().await;
    }

    /// The worker never sees that the group was missing; its next renewal tells that it is another one.
    async fn a_group_that_another_makes_anew_in_the_same_moment_skips_nothing(server: Server) {
        let mut redis = server.connect().await;
        let worker = joined(&mut redis, &at_the_end(&server)).await;
        let after = many("after", 20, &Action::Succeed);
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("FLUSHALL").ignore();
        with_jobs(&mut pipe, "jobs", &after);
        newcomer_joins(&mut pipe);
        let _: () = pipe.query_async(&mut redis).await.unwrap();
        each_once(&mut redis, &after).await;
        worker.stop().await;
    }

    async fn replayed_entries_of_an_emptied_server_are_read(server: Server) {
        let mut redis = server.connect().await;
        let worker = joined(&mut redis, &at_the_end(&server)).await;
        let again = "{jobs}:workers:again";
        for round in 0..2 {
            let replayed = many(&format!("replayed-{round}"), 5, &Action::Succeed);
            let mut pipe = redis::pipe();
            pipe.atomic().cmd("FLUSHALL").ignore();
            with_jobs(&mut pipe, again, &replayed);
            let _: () = pipe.query_async(&mut redis).await.unwrap();
            eventually(PATIENCE, "the replayed to be handled", async || {
                let handled = jobs::handled(&mut redis).await;
                replayed.iter().all(|job| handled.get(&job.id) == Some(&1)) && entries(&mut redis, again).await.is_empty()
            })
            .await;
        }
        let next = many("next", 5, &Action::Succeed);
        jobs::publish(&mut redis, "jobs", &next).await;
        each_once(&mut redis, &next).await;
        worker.stop().await;
    }

    /// A group that really is new begins at the end, and a worker that was in it from its first moment has it stay so.
    async fn a_new_group_that_begins_at_the_end_stays_there(server: Server) {
        let mut redis = server.connect().await;
        let mut proxy = Proxy::start(server.port()).await;
        let worker = joined(&mut redis, &Setup::at(proxy.url()).worker("start = \"end\"")).await;
        for _ in 0..2 {
            proxy.refuse().await;
            proxy.accept_again();
            let next = [Job::new(format!("next-{}", fastrand::u64(..)), Action::Succeed)];
            jobs::publish(&mut redis, "jobs", &next).await;
            each_once(&mut redis, &next).await;
        }
        let destroyed: Value = redis::cmd("XGROUP").arg(&["DESTROY", "jobs", "workers"]).query_async(&mut redis).await.unwrap();
        assert_eq!(destroyed, Value::Int(1));
        let last = [Job::new("last", Action::Succeed)];
        jobs::publish(&mut redis, "jobs", &last).await;
        each_once(&mut redis, &last).await;
        assert!(jobs::handled(&mut redis).await.keys().all(|id| !id.starts_with("before")));
        worker.stop().await;
    }

    /// What it has settled runs once more, as whoever set it back wished. What is parked stays so, and goes on.
    async fn a_group_set_back_while_an_entry_is_parked_has_no_attempt_twice(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).retry("backoff = { initial = \"2500ms\", factor = 1.0, jitter = 0.0 }");
        let worker = setup.start();
        let all = [Job::new("settled", Action::Succeed), Job::new("parked", Action::Fail(2))];
        jobs::publish(&mut redis, "jobs", &all).await;
        parks(&mut redis, 1).await;
        for attempt in 1..3 {
            eventually(PATIENCE, "the attempt", async || jobs::starts_of(&mut redis, "parked").await == attempt).await;
            parks(&mut redis, 1).await;
            set_back(&mut redis).await;
            eventually(PATIENCE, "what was settled to run again", async || {
                jobs::starts_of(&mut redis, "settled").await == attempt + 1
            })
            .await;
        }
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(attempts_of(&mut redis, "parked").await, [1, 2, 3]);
        assert_eq!(jobs::handled(&mut redis).await["parked"], 1);
        worker.stop().await;
    }

    /// The worker that parked it is gone; one that has only just joined knows from the position how far the group was.
    async fn a_worker_that_joins_a_group_that_was_set_back_knows_it(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).retry("backoff = { initial = \"3s\", factor = 1.0, jitter = 0.0 }");
        let worker = setup.start();
        let ids = jobs::publish(&mut redis, "jobs", &[Job::new("parked", Action::Fail(1))]).await;
        parks(&mut redis, 1).await;
        noted(&mut redis, &ids[0]).await;
        worker.stop().await;
        set_back(&mut redis).await;
        let other = setup.start();
        settled(&mut redis, "jobs", PATIENCE).await;
        let attempts: Vec<u32> = jobs::started(&mut redis).await.iter().map(|trace| trace.attempt).collect();
        assert_eq!(attempts, [1, 2]);
        other.stop().await;
    }

    /// It has read the entry as a new one, and has not looked at it. What it had sent before comes late.
    async fn a_worker_that_dies_over_a_group_that_was_set_back_has_no_attempt_had_twice(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).worker("lease = \"1s\"").retry("backoff = { initial = \"2s\", factor = 1.0, jitter = 0.0 }");
        let worker = setup.start();
        let ids = jobs::publish(&mut redis, "jobs", &[Job::new("parked", Action::Fail(2))]).await;
        eventually(PATIENCE, "two attempts", async || jobs::starts_of(&mut redis, "parked").await == 2).await;
        parks(&mut redis, 1).await;
        worker.stop().await;
        set_back(&mut redis).await;
        let dead = "sh2-300-gone-3-0000000000000003";
        let _: Value = redis::cmd("XREADGROUP")
            .arg(&["GROUP", "workers", dead, "STREAMS", "jobs", ">"])
            .query_async(&mut redis)
            .await
            .unwrap();
        let g = |name: &str| format!("{{jobs}}:workers:{name}");
        let late: Vec<String> = redis::cmd("EVAL")
            .arg(scripts::text("park"))
            .arg(4)
            .arg(&["jobs", &g("retry"), &g("failures"), &g("waiting")])
            .arg(scripts::packed(&[
                "workers", dead, &ids[0], &ids[0], "", "", "", &ids[0], dead, "1", "0", "0", "5", "-", "late", "-",
            ]))
            .query_async(&mut redis)
            .await
            .unwrap();
        assert_eq!(late, ["taken"]);
        let other = setup.start();
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(attempts_of(&mut redis, "parked").await, [1, 2, 3]);
        other.stop().await;
    }

    /// The worker has it delivered and never hears of it; its next renewal finds it.
    async fn a_lost_read_of_a_group_that_was_set_back_has_no_attempt_had_twice(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server)
            .worker("lease = \"1s\"")
            .retry("backoff = { initial = \"2s\", factor = 1.0, jitter = 0.0 }");
        let worker = setup.start();
        jobs::publish(&mut redis, "jobs", &[Job::new("parked", Action::Fail(2))]).await;
        eventually(PATIENCE, "two attempts", async || jobs::starts_of(&mut redis, "parked").await == 2).await;
        parks(&mut redis, 1).await;
        let info: redis::streams::StreamInfoConsumersReply =
            redis::cmd("XINFO").arg("CONSUMERS").arg("jobs").arg("workers").query_async(&mut redis).await.unwrap();
        let consumer = info.consumers.into_iter().find(|consumer| consumer.name != "(parked)").unwrap().name;
        let mut lost = redis::pipe();
        lost.atomic().cmd("XGROUP").arg(&["SETID", "jobs", "workers", "0"]);
        lost.cmd("XREADGROUP").arg(&["GROUP", "workers", &consumer, "STREAMS", "jobs", ">"]);
        let (_, read): (Value, Value) = lost.query_async(&mut redis).await.unwrap();
        assert_ne!(read, Value::Nil);
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(attempts_of(&mut redis, "parked").await, [1, 2, 3]);
        worker.stop().await;
    }

    /// Its delivery would take it from whoever was woken with it.
    async fn what_is_due_in_a_group_that_was_set_back_is_not_woken_before_it_is_read(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).retry("backoff = { initial = \"1s\", factor = 1.0, jitter = 0.0 }");
        let worker = setup.start();
        let ids = jobs::publish(&mut redis, "jobs", &[Job::new("parked", Action::Fail(1))]).await;
        parks(&mut redis, 1).await;
        noted(&mut redis, &ids[0]).await;
        worker.stop().await;
        set_back(&mut redis).await;
        let g = |name: &str| format!("{{jobs}}:workers:{name}");
        let retry = g("retry");
        eventually(PATIENCE, "the due time to be looked at", async || {
            let woken: Vec<Value> = redis::cmd("EVAL")
                .arg(scripts::text("wake"))
                .arg(7)
                .arg(&["jobs", &retry, &g("failures"), &g("again"), &g("paused"), "{jobs}:scheduled", &g("waiting")])
                .arg(&["workers", "another", "10", "100000"])
                .query_async(&mut redis)
                .await
                .unwrap();
            assert_eq!(woken[0], Value::Array(Vec::new()));
            !redis::cmd("EXISTS").arg(&retry).query_async::<bool>(&mut redis).await.unwrap()
        })
        .await;
        let other = setup.start();
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(attempts_of(&mut redis, "parked").await, [1, 2]);
        other.stop().await;
    }

    async fn a_group_set_back_while_an_entry_is_held_or_waits_to_be_buried_runs_neither(server: Server) {
        let mut redis = server.connect().await;
        let _: () = redis::cmd("SET").arg("{jobs}:workers:dead").arg("in the way").query_async(&mut redis).await.unwrap();
        let worker = Setup::new(&server).start();
        let all = [Job::new("doomed", Action::FailForGood), Job::new("held", Action::Take(2_000))];
        jobs::publish(&mut redis, "jobs", &all).await;
        parks(&mut redis, 1).await;
        eventually(PATIENCE, "both to have run", async || jobs::started(&mut redis).await.len() == 2).await;
        set_back(&mut redis).await;
        // What comes after it shows that they have been read again.
        jobs::publish(&mut redis, "jobs", &[Job::new("next", Action::Succeed)]).await;
        eventually(PATIENCE, "the next to be handled", async || jobs::handled(&mut redis).await.contains_key("next")).await;
        let _: () = redis::cmd("DEL").arg("{jobs}:workers:dead").query_async(&mut redis).await.unwrap();
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::started(&mut redis).await.len(), 3);
        assert_eq!(entries(&mut redis, "{jobs}:workers:dead").await.len(), 1);
        worker.stop().await;
    }

    /// All of it runs once more, as whoever set the group back wished; only the first are asked for one by one.
    async fn a_group_that_is_set_back_with_nothing_left_from_before_is_read_as_a_new_one(server: Server) {
        const ALL: usize = 6_000;
        let mut redis = server.connect().await;
        let worker = Setup::new(&server).start();
        jobs::publish(&mut redis, "jobs", &many("a", ALL, &Action::Succeed)).await;
        let handled = async |redis: &mut MultiplexedConnection, times: usize| {
            eventually(PATIENCE, format!("all to be handled {times} times"), async || {
                jobs::handled(redis).await.values().sum::<usize>() == times * ALL
            })
            .await;
            settled(redis, "jobs", PATIENCE).await;
        };
        handled(&mut redis, 1).await;
        let before = CommandStats::of(&mut redis).await;
        set_back(&mut redis).await;
        handled(&mut redis, 2).await;
        let asked = CommandStats::of(&mut redis).await.calls("xpending") - before.calls("xpending");
        println!("{asked} entries were asked for");
        assert!((1..ALL as u64 / 2).contains(&asked), "{asked}");
        worker.stop().await;
    }

    /// Far beyond what is read first, and before: it still is held, parked and about to be buried.
    async fn a_long_stream_that_is_set_back_is_asked_for_as_long_as_anything_is_left_from_before(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server)
            .worker("concurrency = 2\ndrain = \"100ms\"")
            .retry("backoff = { initial = \"4s\", factor = 1.0, jitter = 0.0 }");
        let worker = setup.start();
        jobs::publish(&mut redis, "jobs", &many("a", 3_000, &Action::Succeed)).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        jobs::publish(&mut redis, "jobs", &[Job::new("held", Action::Take(60_000))]).await;
        eventually(PATIENCE, "it to be held", async || jobs::starts_of(&mut redis, "held").await == 1).await;
        set_back(&mut redis).await;
        jobs::publish(&mut redis, "jobs", &[Job::new("next", Action::Fail(1))]).await;
        eventually(PATIENCE, "the next to have run", async || jobs::starts_of(&mut redis, "next").await == 1).await;
        parks(&mut redis, 1).await;
        assert_eq!(jobs::starts_of(&mut redis, "held").await, 1);
        set_back(&mut redis).await;
        eventually(PATIENCE, "all but one to be handled again", async || {
            let handled = jobs::handled(&mut redis).await;
            handled.get("next") == Some(&1) && handled.values().sum::<usize>() == 3 * 3_000 + 1
        })
        .await;
        assert_eq!(attempts_of(&mut redis, "next").await, [1, 2]);
        assert_eq!(jobs::starts_of(&mut redis, "held").await, 1, "it is held all the while");
        worker.stop().await;
    }
}

async fn attempts_of(redis: &mut MultiplexedConnection, id: &str) -> Vec<u32> {
    let started = jobs::started(redis).await;
    let of_it = started.iter().filter(|trace| trace.id == id);
    of_it.map(|trace| trace.attempt).collect()
}

/// Waits until whoever joins will know that the group has read this.
async fn noted(redis: &mut MultiplexedConnection, id: &str) {
    eventually(PATIENCE, "the position to be noted", async || {
        let last: Option<String> = redis::cmd("HGET")
            .arg(POSITION)
            .arg("last")
            .query_async(redis)
            .await
            .unwrap();
        last.as_deref() == Some(id)
    })
    .await;
}

async fn parks(redis: &mut MultiplexedConnection, count: usize) {
    eventually(PATIENCE, format!("{count} to be parked"), async || {
        parked(redis).await == count
    })
    .await;
}

async fn set_back(redis: &mut MultiplexedConnection) {
    let _: Value = redis::cmd("XGROUP")
        .arg(&["SETID", "jobs", "workers", "0"])
        .query_async(redis)
        .await
        .unwrap();
}
