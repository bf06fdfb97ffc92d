//! What breaks under a worker: it says what is wrong, does not spin, loses nothing, and carries on when it is mended.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;

use crate::support::jobs::{self, Action, Job, many};
use crate::support::{Kind, Server, Setup, eventually, settled};

const PATIENCE: Duration = Duration::from_secs(30);

async fn dead(redis: &mut MultiplexedConnection) -> u64 {
    redis::cmd("XLEN")
        .arg("{jobs}:workers:dead")
        .query_async(redis)
        .await
        .unwrap()
}

async fn commands_processed(redis: &mut MultiplexedConnection) -> u64 {
    let info: String = redis::cmd("INFO")
        .arg("stats")
        .query_async(redis)
        .await
        .unwrap();
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("total_commands_processed:"));
    line.unwrap().trim().parse().unwrap()
}

async fn set(redis: &mut MultiplexedConnection, setting: &str, value: &str) {
    let _: () = redis::cmd("CONFIG")
        .arg("SET")
        .arg(setting)
        .arg(value)
        .query_async(redis)
        .await
        .unwrap();
}

on_both_servers! {
    async fn redis_that_is_away_for_ten_seconds_loses_nothing_and_is_not_hammered(kind: Kind) {
        let mut server = Server::builder(kind).persistent(true).start().await;
        let mut worker = Setup::new(&server).process();
        worker.wait_for_log("the group is new", PATIENCE).await;
        let mut redis = server.connect().await;
        let all = many("job", 100, &Action::Take(500));
        jobs::publish(&mut redis, "jobs", &all).await;
        eventually(PATIENCE, "some to run", async || jobs::started(&mut redis).await.len() > 10).await;
        server.stop();
        let gone = Instant::now();
        worker.wait_for_log("can't reach Redis", PATIENCE).await;
        eventually(PATIENCE, "ten seconds to pass", async || gone.elapsed() > Duration::from_secs(10)).await;
        server.start_again().await;
        let mut redis = server.connect().await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let handled = jobs::handled(&mut redis).await;
        assert_eq!(handled.len(), all.len());
        let complaints = worker.log().lines().filter(|line| line.contains("WARN")).count();
        assert!(complaints < 150, "{complaints} warnings:\n{}", worker.log());
        worker.wait_for_log("connected to Redis", PATIENCE).await;
    }

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
        worker.wait_for_log("was made anew", PATIENCE).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(dead(&mut redis).await, 0);
    }

    async fn a_stream_that_is_deleted_and_written_to_again_is_read_from_its_beginning(server: Server) {
        let mut redis = server.connect().await;
        let worker = Setup::new(&server).start();
        jobs::publish(&mut redis, "jobs", &many("old", 10, &Action::Succeed)).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let _: i64 = redis::cmd("DEL").arg("jobs").query_async(&mut redis).await.unwrap();
        jobs::publish(&mut redis, "jobs", &many("new", 10, &Action::Succeed)).await;
        eventually(PATIENCE, "the new ones to be handled", async || jobs::handled(&mut redis).await.len() == 20).await;
        worker.stop().await;
    }

    /// What can't be buried is kept, is buried once it can be, and does not run again for that.
    async fn a_dead_letter_key_that_holds_a_string_keeps_its_entries_and_stops_nothing_else(server: Server) {
        let mut redis = server.connect().await;
        let _: () = redis::cmd("SET").arg("{jobs}:workers:dead").arg("in the way").query_async(&mut redis).await.unwrap();
        let mut worker = Setup::new(&server).process();
        let mut all = many("bad", 20, &Action::FailForGood);
        all.extend(many("good", 20, &Action::Succeed));
        jobs::publish(&mut redis, "jobs", &all).await;
        eventually(PATIENCE, "the good ones to be handled", async || jobs::handled(&mut redis).await.len() == 20).await;
        worker.wait_for_log("a key of this stream or group holds something else", PATIENCE).await;
        eventually(PATIENCE, "the bad ones to be kept", async || {
            redis::cmd("ZCARD").arg("{jobs}:workers:retry").query_async::<u64>(&mut redis).await.unwrap() == 20
        })
        .await;
        let _: i64 = redis::cmd("DEL").arg("{jobs}:workers:dead").query_async(&mut redis).await.unwrap();
        eventually(PATIENCE, "the bad ones to be buried", async || dead(&mut redis).await == 20).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::started(&mut redis).await.len(), 40, "none ran again");
    }

    async fn a_redis_out_of_memory_loses_nothing(server: Server) {
        let mut redis = server.connect().await;
        let mut worker = Setup::new(&server).process();
        worker.wait_for_log("the group is new", PATIENCE).await;
        // These leave no trace, for there is no memory for one.
        let mut all = many("good", 50, &Action::SleepQuietly(300));
        all.extend(many("bad", 10, &Action::SleepQuietlyThenFailForGood(300)));
        jobs::publish(&mut redis, "jobs", &all).await;
        set(&mut redis, "maxmemory-policy", "noeviction").await;
        set(&mut redis, "maxmemory", "1").await;
        worker.wait_for_log("maxmemory is reached", PATIENCE).await;
        eventually(PATIENCE, "the good ones to be acknowledged all the same", async || {
            crate::support::pending(&mut redis, "jobs").await.iter().map(|(_, count)| count).sum::<u64>() == 10
        })
        .await;
        let before = commands_processed(&mut redis).await;
        let since = Instant::now();
        eventually(PATIENCE, "three seconds to pass", async || since.elapsed() > Duration::from_secs(3)).await;
        let sent = commands_processed(&mut redis).await - before;
        assert!(sent < 600, "{sent} commands in three seconds");
        assert_eq!(dead(&mut redis).await, 0);
        set(&mut redis, "maxmemory", "0").await;
        eventually(PATIENCE, "the bad ones to be buried", async || dead(&mut redis).await == 10).await;
        settled(&mut redis, "jobs", PATIENCE).await;
    }

    async fn a_wrong_password_is_said_and_waited_for(kind: Kind) {
        let server = Server::builder(kind).password("right").start().await;
        let mut redis = server.connect().await;
        let url = format!("redis://:wrong@127.0.0.1:{}", server.port());
        let mut worker = Setup::at(url).process();
        let said = worker.wait_for_log("refuses us", PATIENCE).await;
        assert!(said.contains("check redis.username and redis.password") && !said.contains("wrong@"), "{said}");
        jobs::publish(&mut redis, "jobs", &many("job", 5, &Action::Succeed)).await;
        set(&mut redis, "requirepass", "wrong").await;
        eventually(PATIENCE, "them to be handled", async || jobs::handled(&mut redis).await.len() == 5).await;
        worker.terminate();
        assert!(worker.wait(PATIENCE).await.success());
    }

    async fn a_read_only_replica_is_named_and_waited_for(server: Server) {
        let primary = Server::start(server.kind()).await;
        let (mut redis, mut first) = (server.connect().await, primary.connect().await);
        jobs::publish(&mut first, "jobs", &many("job", 5, &Action::Succeed)).await;
        let _: () = redis::cmd("REPLICAOF").arg("127.0.0.1").arg(primary.port()).query_async(&mut redis).await.unwrap();
        eventually(PATIENCE, "the replica to have the jobs", async || {
            redis::cmd("XLEN").arg("jobs").query_async::<u64>(&mut redis).await == Ok(5)
        })
        .await;
        let mut worker = Setup::new(&server).process();
        worker.wait_for_log("read-only replica", PATIENCE).await;
        let _: () = redis::cmd("REPLICAOF").arg("NO").arg("ONE").query_async(&mut redis).await.unwrap();
        eventually(PATIENCE, "them to be handled", async || jobs::handled(&mut redis).await.len() == 5).await;
        settled(&mut redis, "jobs", PATIENCE).await;
    }
}
