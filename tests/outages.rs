//! Redis away, refusing, or out of memory: a worker says what is wrong and what to do, does not hammer a server that
//! has trouble enough, loses nothing, and carries on when it is mended.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;

use crate::support::jobs::{self, Action, many};
use crate::support::replication::{a_primary, follow, lead};
use crate::support::{Kind, Proxy, Server, Setup, all_pending, dead, eventually, settled};

const PATIENCE: Duration = Duration::from_secs(30);
/// How long what a worker sends is counted.
const WHILE: Duration = Duration::from_secs(2);
/// A worker has five connections of its own, and each of them may try a few times a second.
const CALM: u64 = 5 * 6 * WHILE.as_secs();

on_both_servers! {
    async fn redis_that_is_away_for_ten_seconds_loses_nothing_and_is_not_hammered(kind: Kind) {
        let mut server = Server::builder(kind).persistent(true).start().await;
        // Counts connections while there is nothing to connect to.
        let proxy = Proxy::start(server.port()).await;
        let mut worker = Setup::at(proxy.url()).worker("concurrency = 8").process();
        worker.wait_for_log("the group is new", PATIENCE).await;
        let mut redis = server.connect().await;
        let all = many("job", 100, &Action::Take(300));
        jobs::publish(&mut redis, "jobs", &all).await;
        eventually(PATIENCE, "some to run", async || jobs::started(&mut redis).await.len() > 10).await;
        server.stop();
        let gone = Instant::now();
        let said = worker.wait_for_log("can't reach Redis", PATIENCE).await;
        assert!(said.contains(&proxy.port().to_string()), "{said}");
        // The handlers that run meet it as well, once each, and are done with by then.
        eventually(PATIENCE, "two seconds to pass", async || gone.elapsed() > Duration::from_secs(2)).await;
        let before = proxy.traffic();
        eventually(PATIENCE, "ten seconds to pass", async || gone.elapsed() > Duration::from_secs(10)).await;
        let tried = proxy.traffic().since(&before).connections;
        println!("{tried} connections tried in eight seconds");
        assert!((8..=40).contains(&tried), "{tried} connections tried in eight seconds");
        assert!(!worker.has_ended());

        server.start_again().await;
        let back = Instant::now();
        let mut redis = server.connect().await;
        worker.wait_for_log("connected to Redis", PATIENCE).await;
        assert!(back.elapsed() < Duration::from_secs(5), "connected after {:?}", back.elapsed());
        settled(&mut redis, "jobs", PATIENCE).await;
        let handled = jobs::handled(&mut redis).await;
        assert_eq!(handled.len(), all.len());
        assert_eq!(dead(&mut redis).await, 0);
        let complaints = worker.log().lines().filter(|line| line.contains("WARN")).count();
        assert!(complaints < 100, "{complaints} warnings:\n{}", worker.log());
    }

    /// What can be acknowledged is. What can't be buried is kept, and is buried once it can be.
    async fn a_redis_out_of_memory_loses_nothing(server: Server) {
        let mut redis = server.connect().await;
        let proxy = Proxy::start(server.port()).await;
        let mut worker = Setup::at(proxy.url()).process();
        worker.wait_for_log("the group is new", PATIENCE).await;
        // These leave no trace, for there is no memory for one.
        let mut all = many("good", 50, &Action::SleepQuietly(300));
        all.extend(many("bad", 10, &Action::SleepQuietlyThenFailForGood(300)));
        let ids = jobs::publish(&mut redis, "jobs", &all).await;
        set(&mut redis, "maxmemory-policy", "noeviction").await;
        set(&mut redis, "maxmemory", "1").await;
        let said = worker.wait_for_log("maxmemory is reached", PATIENCE).await;
        assert!(said.contains("give it memory, or take data away; nothing is lost"), "{said}");
        eventually(PATIENCE, "the good ones to be acknowledged all the same", async || {
            all_pending(&mut redis).await == ids[50..]
        })
        .await;
        let sent = proxy.traffic_during(WHILE).await;
        println!("in {WHILE:?}: {sent:?}");
        assert!(sent.requests() <= CALM, "in {WHILE:?}: {sent:?}");
        assert_eq!((all_pending(&mut redis).await, dead(&mut redis).await), (ids[50..].to_vec(), 0));
        set(&mut redis, "maxmemory", "0").await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(dead(&mut redis).await, 10);
    }

    async fn a_wrong_password_is_said_and_waited_for(kind: Kind) {
        let server = Server::builder(kind).password("right").start().await;
        let mut redis = server.connect().await;
        let proxy = Proxy::start(server.port()).await;
        let url = format!("redis://:wrong@127.0.0.1:{}", proxy.port());
        let mut worker = Setup::at(url).process();
        let said = worker.wait_for_log("refuses us", PATIENCE).await;
        assert!(said.contains("check redis.username and redis.password") && !said.contains("wrong@"), "{said}");
        jobs::publish(&mut redis, "jobs", &many("job", 5, &Action::Succeed)).await;
        // After the first, quick attempts.
        proxy.traffic_during(Duration::from_secs(1)).await;
        let sent = proxy.traffic_during(WHILE).await;
        println!("in {WHILE:?}: {sent:?}");
        assert!(sent.requests() <= CALM, "in {WHILE:?}: {sent:?}");
        set(&mut redis, "requirepass", "wrong").await;
        eventually(PATIENCE, "them to be handled", async || jobs::handled(&mut redis).await.len() == 5).await;
        worker.terminate();
        assert!(worker.wait(PATIENCE).await.success());
    }

    async fn a_read_only_replica_is_named_and_waited_for(server: Server) {
        let primary = a_primary(server.kind()).await;
        let (mut redis, mut first) = (server.connect().await, primary.connect().await);
        jobs::publish(&mut first, "jobs", &many("job", 5, &Action::Succeed)).await;
        follow(&mut redis, &primary).await;
        let proxy = Proxy::start(server.port()).await;
        let mut worker = Setup::at(proxy.url()).process();
        let said = worker.wait_for_log("read-only replica", PATIENCE).await;
        assert!(said.contains("redis.url must name the primary"), "{said}");
        // After the first, quick attempts.
        proxy.traffic_during(Duration::from_secs(1)).await;
        let sent = proxy.traffic_during(WHILE).await;
        println!("in {WHILE:?}: {sent:?}");
        assert!(sent.requests() <= CALM, "in {WHILE:?}: {sent:?}");
        lead(&mut redis).await;
        eventually(PATIENCE, "them to be handled", async || jobs::handled(&mut redis).await.len() == 5).await;
        settled(&mut redis, "jobs", PATIENCE).await;
    }

    /// The server a worker works with becomes a replica: what finishes meanwhile can't be settled, and is kept.
    async fn a_primary_that_becomes_a_replica_is_waited_for_with_what_is_finished(kind: Kind) {
        let (server, other) = (a_primary(kind).await, a_primary(kind).await);
        let (mut redis, mut second) = (server.connect().await, other.connect().await);
        follow(&mut second, &server).await;
        let proxy = Proxy::start(server.port()).await;
        // Whose lease has run out is not known to be ours, and what it failed with is kept back.
        let mut worker = Setup::at(proxy.url()).worker("lease = \"10s\"").process();
        worker.wait_for_log("the group is new", PATIENCE).await;
        let mut all = many("good", 20, &Action::TakeUnseen(2_000));
        all.extend(many("bad", 5, &Action::TakeThenFailForGood(2_000)));
        let ids = jobs::publish(&mut redis, "jobs", &all).await;
        eventually(PATIENCE, "the other to know the group", async || {
            redis::cmd("XPENDING").arg("jobs").arg("workers").query_async::<redis::Value>(&mut second).await.is_ok()
        })
        .await;
        eventually(PATIENCE, "all to run, and the other to know", async || {
            jobs::started(&mut second).await.len() == ids.len() && all_pending(&mut second).await == ids
        })
        .await;
        lead(&mut second).await;
        follow(&mut redis, &other).await;
        let said = worker.wait_for_log("read-only replica", PATIENCE).await;
        assert!(said.contains("redis.url must name the primary"), "{said}");
        worker.wait_for_log("to the dead letters", PATIENCE).await;
        let sent = proxy.traffic_during(WHILE).await;
        println!("in {WHILE:?}: {sent:?}");
        assert!(sent.requests() <= CALM, "in {WHILE:?}: {sent:?}");
        assert_eq!(all_pending(&mut redis).await, ids);
        lead(&mut redis).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!((jobs::started(&mut redis).await.len(), dead(&mut redis).await), (25, 5), "none ran again");
    }
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
