//! The server's clock is set an hour ahead and back: what goes by it goes by what has really passed.

use std::time::{Duration, Instant};

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;

use crate::support::jobs::{self, Action, Job, now_ms};
use crate::support::{Cli, Clock, Kind, Server, Setup, dead, eventually, parked, scripts};

const PATIENCE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3_600);

/// Waits until so many workers have read, and so have looked at the clock.
async fn have_read(redis: &mut MultiplexedConnection, workers: usize) {
    eventually(PATIENCE, "workers to have read", async || {
        consumers(redis).await.len() >= workers
    })
    .await;
}

/// The workers of the group, and for how long nothing was heard of each, in ms.
async fn consumers(redis: &mut MultiplexedConnection) -> Vec<(String, usize)> {
    let found: Result<redis::streams::StreamInfoConsumersReply, _> =
        redis.xinfo_consumers("jobs", "workers").await;
    let found = found.map(|reply| reply.consumers).unwrap_or_default();
    let workers = found
        .into_iter()
        .filter(|consumer| consumer.name != "(parked)");
    workers
        .map(|consumer| (consumer.name, consumer.idle))
        .collect()
}

async fn pass(time: Duration, since: Instant) {
    eventually(PATIENCE, "time to pass", async || since.elapsed() > time).await;
}

/// A step by itself.
async fn step<T: redis::FromRedisValue>(
    redis: &mut MultiplexedConnection,
    script: &str,
    keys: &[&str],
    args: &[&str],
) -> T {
    let mut call = redis::cmd("EVAL");
    call.arg(scripts::text(script))
        .arg(keys.len())
        .arg(keys)
        .arg(args);
    call.query_async(redis).await.expect("an answer")
}

on_both_servers! {
    async fn after_a_step_back_the_dead_are_found_and_retries_come_in_time(kind: Kind) {
        let clock = Clock::new();
        let server = Server::builder(kind).clock(&clock).start().await;
        let mut redis = server.connect().await;
        let setup = Setup::new(&server)
            .worker("lease = \"3s\"")
            .retry("backoff = { initial = \"3s\", factor = 1.0, jitter = 0.0 }");
        let mut first = setup.process();
        jobs::publish(&mut redis, "jobs", &[Job::new("held", Action::TakeOrLess(60_000, 10))]).await;
        eventually(PATIENCE, "it to start", async || jobs::starts_of(&mut redis, "held").await == 1).await;
        let (mut second, mut third) = (setup.process(), setup.process());
        have_read(&mut redis, 3).await;
        clock.ahead(HOUR);
        let since = Instant::now();
        second.wait_for_log("was set ahead", PATIENCE).await;
        pass(Duration::from_millis(7_500), since).await;
        assert_eq!(jobs::starts_of(&mut redis, "held").await, 1, "its worker is alive");
        jobs::publish(&mut redis, "jobs", &[Job::new("retried", Action::Fail(1))]).await;
        eventually(PATIENCE, "it to be parked", async || parked(&mut redis).await == 1).await;
        first.kill();
        third.kill();
        clock.ahead(Duration::ZERO);
        let since = Instant::now();
        eventually(PATIENCE, "both to be handled", async || jobs::handled(&mut redis).await.len() == 2).await;
        let took = since.elapsed();
        println!("both handled {took:?} after the step back");
        assert!(took < Duration::from_secs(18), "{took:?}");
        // Of the dead it is not known when they were seen last, but from now on they grow old.
        eventually(PATIENCE, "the dead not to look alive", async || {
            consumers(&mut redis).await.iter().filter(|(_, idle)| *idle < 3_500).count() <= 1
        })
        .await;
        drop(second);
    }

    /// All that did not renew since looks old, and the living get time to.
    async fn after_a_step_ahead_the_living_are_not_taken_for_dead(kind: Kind) {
        let clock = Clock::new();
        let server = Server::builder(kind).clock(&clock).start().await;
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).worker("lease = \"8s\"");
        let mut first = setup.process();
        jobs::publish(&mut redis, "jobs", &[Job::new("held", Action::TakeOrLess(60_000, 10))]).await;
        eventually(PATIENCE, "it to start", async || jobs::starts_of(&mut redis, "held").await == 1).await;
        let mut others = [setup.process(), setup.process()];
        have_read(&mut redis, 3).await;
        // They have been well for a lease: only then do they take over anything at all.
        pass(Duration::from_millis(8_500), Instant::now()).await;
        first.freeze();
        clock.ahead(HOUR);
        let since = Instant::now();
        for other in &mut others {
            other.wait_for_log("was set ahead", PATIENCE).await;
        }
        pass(Duration::from_secs(3), since).await;
        first.thaw();
        assert_eq!(jobs::starts_of(&mut redis, "held").await, 1, "its worker is alive");
        pass(Duration::from_secs(5), since).await;
        assert_eq!(jobs::starts_of(&mut redis, "held").await, 1, "its worker has renewed");
        drop(others);
    }

    /// Ahead, and back again: what is parked waits as long as it was to, whichever of the workers see it.
    async fn what_is_parked_waits_as_long_as_it_was_to(kind: Kind) {
        const DELAY: Duration = Duration::from_secs(6);
        let clock = Clock::new();
        let server = Server::builder(kind).clock(&clock).start().await;
        let mut redis = server.connect().await;
        let setup = Setup::new(&server)
            .worker("lease = \"1s\"")
            .retry("backoff = { initial = \"6s\", factor = 1.0, jitter = 0.0 }");
        let mut workers = [setup.process(), setup.process(), setup.process()];
        have_read(&mut redis, 3).await;
        jobs::publish(&mut redis, "jobs", &[Job::new("before", Action::Fail(1))]).await;
        eventually(PATIENCE, "it to be parked", async || parked(&mut redis).await == 1).await;
        let before = Instant::now();
        clock.ahead(HOUR);
        for worker in &mut workers {
            worker.wait_for_log("was set ahead", PATIENCE).await;
        }
        pass(Duration::from_secs(2), before).await;
        jobs::publish(&mut redis, "jobs", &[Job::new("meanwhile", Action::Fail(1))]).await;
        eventually(PATIENCE, "both to be parked", async || parked(&mut redis).await == 2).await;
        let meanwhile = Instant::now();
        clock.ahead(Duration::ZERO);
        pass(DELAY - Duration::from_secs(1), before).await;
        assert_eq!(jobs::handled(&mut redis).await.len(), 0, "none is early");
        eventually(PATIENCE, "the first", async || jobs::handled(&mut redis).await.contains_key("before")).await;
        let took = before.elapsed();
        assert!(took < DELAY + Duration::from_secs(4), "{took:?}");
        eventually(PATIENCE, "the second", async || jobs::handled(&mut redis).await.len() == 2).await;
        let took = meanwhile.elapsed();
        println!("handled {took:?} after it was parked");
        assert!(took > DELAY - Duration::from_secs(1) && took < DELAY + Duration::from_secs(4), "{took:?}");
        drop(workers);
    }

    async fn what_is_kept_for_a_time_is_kept_for_that_time(kind: Kind) {
        let clock = Clock::new();
        let server = Server::builder(kind).clock(&clock).start().await;
        let mut redis = server.connect().await;
        for n in 0..3 {
            let id = format!("{}-{n}", now_ms() - 60_000);
            let _: String = redis.xadd("{jobs}:workers:dead", id, &[("type", "test.job")]).await.unwrap();
        }
        let setup = Setup::new(&server).stream("retention = \"30m\"").dead_letters("keep = \"30m\"");
        let jobs = [Job::new("a", Action::Succeed), Job::new("b", Action::Succeed)];
        jobs::publish(&mut redis, "jobs", &jobs).await;
        let mut worker = setup.process();
        eventually(PATIENCE, "both to be handled", async || jobs::handled(&mut redis).await.len() == 2).await;
        clock.ahead(HOUR);
        worker.wait_for_log("was set ahead", PATIENCE).await;
        let later = now_ms() + 3_000_000;
        for turns in ["{jobs}:workers:kept", "{jobs}:trimmed"] {
            eventually(PATIENCE, "a turn since the step", async || {
                let at: Option<u64> = redis.hget(turns, "at").await.unwrap();
                at.is_some_and(|at| at > later)
            })
            .await;
        }
        assert_eq!(dead(&mut redis).await, 3);
        assert_eq!(redis.xlen::<_, usize>("jobs").await.unwrap(), 2);
        drop(worker);
    }

    /// Before a worker has noticed: the steps look themselves.
    async fn no_step_goes_by_ages_while_the_clock_is_off(kind: Kind) {
        let clock = Clock::new();
        let server = Server::builder(kind).clock(&clock).start().await;
        let mut redis = server.connect().await;
        let now = now_ms();
        let old = format!("{}-0", now - 60_000);
        for stream in ["jobs", "dead"] {
            let _: String = redis.xadd(stream, &old, &[("type", "test.job")]).await.unwrap();
        }
        let _: () = redis.xgroup_create("jobs", "workers", "$").await.unwrap();
        let _: bool = redis.xgroup_createconsumer("jobs", "workers", "sh2-1000-gone-1-0").await.unwrap();
        // One that is due since two hours ago, and one whose holder let it lapse then: they stay that, either way.
        let long_ago = now - 2 * HOUR.as_millis() as u64;
        for id in ["1-1", "1-2"] {
            let _: String = redis.xadd("held", id, &[("type", "test.job")]).await.unwrap();
        }
        let _: () = redis.xgroup_create("held", "workers", "$").await.unwrap();
        for (id, holder) in [("1-1", "(parked)"), ("1-2", "sh2-1000-froze-1-0")] {
            let mut claim = redis::cmd("XCLAIM");
            claim.arg("held").arg("workers").arg(holder).arg(0).arg(id);
            claim.arg("TIME").arg(long_ago).arg("RETRYCOUNT").arg(1).arg("FORCE");
            let _: redis::Value = claim.query_async(&mut redis).await.unwrap();
        }
        let _: usize = redis.zadd("retry", "1-1", long_ago).await.unwrap();
        let expected = || (now_ms().to_string(), "60000".to_owned());
        let expire = async |redis: &mut MultiplexedConnection| {
            let expected = expected();
            let args = ["age", "1800000", "turn", "me", "0", "100", "1000", "1000", &expected.0, &expected.1];
            step::<redis::Value>(redis, "expire", &["dead", "kept", "notes", "groups", "runs", "out"], &args).await
        };
        let trim = async |redis: &mut MultiplexedConnection| {
            let expected = expected();
            let args = [
                "workers", "age", "1800000", "0", "turn", "me", "0", "0", "10", "3600000", "600000", "1000", "1000000",
                &expected.0, &expected.1, "workers",
            ];
            step::<redis::Value>(redis, "trim", &["jobs", "trimmed", "retry"], &args).await
        };
        let forget = async |redis: &mut MultiplexedConnection| {
            let expected = expected();
            let args = ["workers", "sh2-1000-gone-1-0", &expected.0, &expected.1];
            step::<u64>(redis, "forget", &["jobs", "position", "breakers", "commits"], &args).await
        };
        let taken = |answer: Vec<redis::Value>| answer[0].as_sequence().expect("a list of entries").len();
        let wake = async |redis: &mut MultiplexedConnection| {
            let expected = expected();
            let keys = ["held", "retry", "failures", "held", "paused", "scheduled", "waiting"];
            taken(step(redis, "wake", &keys, &["workers", "me", "10", "100000", &expected.0, &expected.1]).await)
        };
        let reclaim = async |redis: &mut MultiplexedConnection| {
            let expected = expected();
            let args = [
                "workers", "me", "sh2-1000-froze-1-0", "1000", "10", "100000", "5", "1", "-", &expected.0, &expected.1,
            ];
            taken(step(redis, "reclaim", &["held", "failures", "retry"], &args).await)
        };
        let off = redis::Value::BulkString("off".into());
        for ahead in [true, false] {
            if ahead { clock.ahead(HOUR) } else { clock.behind(HOUR) }
            assert_eq!(expire(&mut redis).await, off);
            assert_eq!(trim(&mut redis).await, redis::Value::Array(vec![off.clone()]));
            assert_eq!(forget(&mut redis).await, 0);
            assert_eq!((wake(&mut redis).await, reclaim(&mut redis).await), (0, 0));
        }
        assert_eq!((redis.xlen::<_, usize>("jobs").await.unwrap(), redis.xlen::<_, usize>("dead").await.unwrap()), (1, 1));
        clock.ahead(Duration::ZERO);
        assert_ne!(expire(&mut redis).await, off);
        assert_eq!(forget(&mut redis).await, 1);
        assert_eq!((wake(&mut redis).await, reclaim(&mut redis).await), (1, 1));
    }

    /// They are times of the calendar: those of the clock of Redis, whatever it shows.
    async fn scheduled_events_come_by_the_calendar(kind: Kind) {
        let clock = Clock::new();
        let server = Server::builder(kind).clock(&clock).start().await;
        let mut redis = server.connect().await;
        let mut worker = Setup::new(&server).process();
        have_read(&mut redis, 1).await;
        let cli = Cli::new(&server, "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n");
        for delay in ["20m", "90m"] {
            cli.run(&["publish", "jobs", "other.job", "{}", "--delay", delay]).await.ok();
        }
        let due: Vec<(String, f64)> = redis.zrange_withscores("{jobs}:scheduled", 1, 1).await.unwrap();
        clock.ahead(HOUR);
        eventually(PATIENCE, "the first", async || redis.xlen::<_, usize>("jobs").await.unwrap() == 1).await;
        worker.wait_for_log("was set ahead", PATIENCE).await;
        clock.ahead(Duration::ZERO);
        worker.wait_for_log("was set back", PATIENCE).await;
        pass(Duration::from_secs(2), Instant::now()).await;
        let left: Vec<(String, f64)> = redis.zrange_withscores("{jobs}:scheduled", 0, -1).await.unwrap();
        assert_eq!(left, due);
        drop(worker);
    }

    async fn rates_and_breakers_do_not_stand_still_after_a_step_back(kind: Kind) {
        let clock = Clock::new();
        let server = Server::builder(kind).clock(&clock).start().await;
        let mut redis = server.connect().await;
        // Ten a second.
        let rate = async |redis: &mut MultiplexedConnection| {
            step::<(u64, u64)>(redis, "rate", &["rate"], &["100000", "1", "1"]).await
        };
        let open = async |redis: &mut MultiplexedConnection| {
            step::<Vec<String>>(redis, "breaker", &["breakers"], &["look"]).await[1].parse::<u64>().unwrap()
        };
        clock.ahead(HOUR);
        assert_eq!(rate(&mut redis).await.0, 1);
        let _: redis::Value = step(&mut redis, "breaker", &["breakers"], &["open", "payments", "5000"]).await;
        clock.ahead(Duration::ZERO);
        let (granted, wait) = rate(&mut redis).await;
        assert!(granted == 0 && wait <= 100_000, "{granted} granted, {wait} µs");
        let left = open(&mut redis).await;
        assert!(left <= 5_000, "{left}");
        let since = Instant::now();
        pass(Duration::from_millis(500), since).await;
        assert!(open(&mut redis).await <= left - 400, "it counts from the first look on");
        eventually(PATIENCE, "a start", async || rate(&mut redis).await.0 == 1).await;
    }

    /// Who drove it died before the clock was set back an hour: nobody has to wait for that hour.
    async fn a_run_of_replays_whose_driver_died_is_gone_on_with_after_a_step_back(server: Server) {
        let mut redis = server.connect().await;
        for (till, expected) in [(now_ms() + 3_000, ["taken", "dead"]), (now_ms() + 3_600_000, ["ok", ""])] {
            let _: () = redis.hset_multiple("runs", &[
                ("1:state", "running"), ("1:driver", "dead"), ("1:until", &till.to_string()), ("active", "1"),
            ]).await.unwrap();
            let turn = ["1", "drive", "", "me", "5000"];
            let said: [String; 2] = step(&mut redis, "run_turn", &["runs"], &turn).await;
            assert_eq!(said, expected);
            let replay = ["2", "me", "1000", "1", "me", "5000", "10", "1-1"];
            let keys = ["dead", "again", "protocol", "notes", "groups", "runs", "out"];
            let said: Vec<redis::Value> = step(&mut redis, "run_step", &keys, &replay).await;
            let state = if expected[0] == "ok" { "running" } else { "taken" };
            assert_eq!(said[0], redis::Value::BulkString(state.into()));
        }
    }

}
