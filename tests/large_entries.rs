//! Entries that are large: a worker's memory stays near what it may hold, however many of them wait, and a server that
//! lets no large answers through is asked for less.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use streamhand::{Context, Envelope, Registry};

use crate::support::{Server, Setup, WorkerProcess, dead, eventually, most_memory, settled};

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than it takes to receive what waits, so that what comes while one is handled is held beside it.
const HANDLED_IN: Duration = Duration::from_millis(400);
const MIB: usize = 1 << 20;
/// What the process takes beside its entries.
const ITSELF: usize = 60 * MIB;

fn registry() -> Registry {
    Registry::new()
        .on_raw("test.large", async |_: Envelope, _: Context| {
            tokio::time::sleep(HANDLED_IN).await;
            Ok(())
        })
        .on_raw("test.small", async |_: Envelope, _: Context| Ok(()))
}

#[test]
#[ignore = "run by other tests"]
fn large_worker() {
    crate::support::run_worker(registry());
}

fn start(server: &Server) -> WorkerProcess {
    WorkerProcess::builder()
        .test("large_entries::large_worker")
        .config(&Setup::new(server).worker("concurrency = 64").toml())
        .start()
}

async fn publish(redis: &mut MultiplexedConnection, kind: &str, count: usize, bytes: usize) {
    let data = vec![b'x'; bytes];
    for lot in 0..count.div_ceil(100) {
        let mut pipe = redis::pipe();
        for _ in 0..(count - lot * 100).min(100) {
            pipe.cmd("XADD").arg("jobs").arg("*").arg("type").arg(kind);
            pipe.arg("data").arg(&data).ignore();
            if bytes > MIB {
                let () = pipe.query_async(redis).await.expect("room");
                pipe.clear();
            }
        }
        if bytes <= MIB {
            let () = pipe.query_async(redis).await.expect("room");
        }
    }
}

/// All of them are there when the next read is served: one that was asked for before any of them was seen.
async fn publish_at_once(
    redis: &mut MultiplexedConnection,
    kind: &str,
    count: usize,
    bytes: usize,
) {
    let mut eval = redis::cmd("EVAL");
    eval.arg("for _ = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'type', ARGV[2], 'data', ARGV[3]) end");
    eval.arg(1).arg("jobs").arg(count).arg(kind);
    eval.arg(vec![b'x'; bytes]);
    let () = eval.query_async(redis).await.expect("room");
}

async fn limit(redis: &mut MultiplexedConnection, limit: &str) {
    let mut config = redis::cmd("CONFIG");
    config
        .arg("SET")
        .arg("client-output-buffer-limit")
        .arg(limit);
    let () = config.query_async(redis).await.unwrap();
}

async fn all_settled(redis: &mut MultiplexedConnection, worker: &WorkerProcess) {
    eventually(PATIENCE, "all to be settled", async || {
        let mut command = redis::cmd("XINFO");
        command.arg("GROUPS").arg("jobs");
        let info: redis::streams::StreamInfoGroupsReply = command
            .query_async(&mut redis.clone())
            .await
            .map_err(|error| error.to_string())?;
        let [group] = &info.groups[..] else {
            return Err("no group".to_owned());
        };
        match (group.pending, group.lag) {
            (0, Some(0)) => Ok(()),
            (pending, lag) => Err(format!("{pending} pending, lag {lag:?}\n{}", worker.log())),
        }
    })
    .await;
}

/// Three entries of 8 MiB among small ones, and a server that lets 4 MiB through.
async fn too_large(server: &Server, url: String) {
    let mut redis = server.connect().await;
    for _ in 0..3 {
        publish(&mut redis, "test.small", 50, 100).await;
        publish(&mut redis, "test.large", 1, 8 * MIB).await;
    }
    publish(&mut redis, "test.small", 50, 100).await;
    limit(&mut redis, "normal 4194304 4194304 0").await;
    let config = Setup::at(url).worker("concurrency = 64").toml();
    let mut worker = WorkerProcess::builder()
        .test("large_entries::large_worker")
        .config(&config)
        .start();
    all_settled(&mut redis, &worker).await;
    assert_eq!(dead(&mut redis).await, 3, "{}", worker.log());
    limit(&mut redis, "normal 0 0 0").await;
    let letters: redis::streams::StreamRangeReply = redis::cmd("XRANGE")
        .arg("{jobs}:workers:dead")
        .arg("-")
        .arg("+")
        .query_async(&mut redis)
        .await
        .unwrap();
    for letter in letters.ids {
        let field = |name: &str| letter.get::<String>(name).unwrap_or_default();
        assert_eq!(field("dead.reason"), "too_large");
        assert_eq!(field("dead.handler"), "test.large");
        assert_eq!(field("data").len(), 8 * MIB, "it is there as a whole");
        let (error, id) = (field("dead.error"), field("dead.entry"));
        assert!(
            error.contains("client-output-buffer-limit normal"),
            "{error}"
        );
        // The log is written by a thread of its own, and may come after what it tells of.
        let line = worker.wait_for_log(&format!("entry={id} "), PATIENCE).await;
        assert!(line.contains("can't come through"), "{line}");
        assert!(
            line.contains("jobs") && line.contains("raise that"),
            "{line}"
        );
    }
    let said = worker.log();
    assert!(!said.contains("LOST"), "{said}");
}

on_both_servers! {
    async fn large_entries_at_the_start_take_no_more_memory_than_they_may(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, "test.large", 48, 4 * MIB).await;
        let worker = start(&server);
        settled(&mut redis, "jobs", PATIENCE).await;
        let memory = most_memory(worker.pid());
        println!("{} MiB", memory / MIB);
        // What may be held, an entry more, and copies of one or two on their way.
        assert!(memory < 16 * MIB + 6 * 4 * MIB + ITSELF, "{} MiB\n{}", memory / MIB, worker.log());
        assert_eq!(dead(&mut redis).await, 0);
    }

    async fn large_entries_behind_small_ones_take_no_more_memory_than_they_may(server: Server) {
        let mut redis = server.connect().await;
        let worker = start(&server);
        publish(&mut redis, "test.small", 2_000, 100).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        publish_at_once(&mut redis, "test.large", 24, 8 * MIB).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let memory = most_memory(worker.pid());
        println!("{} MiB", memory / MIB);
        assert!(memory < 16 * MIB + 6 * 8 * MIB + ITSELF, "{} MiB\n{}", memory / MIB, worker.log());
        assert_eq!(dead(&mut redis).await, 0);
    }

    async fn an_entry_that_the_server_does_not_let_through_is_buried_and_the_others_go_on(server: Server) {
        too_large(&server, server.url()).await;
    }

    /// As above, for a user to whom the server does not tell its limit.
    async fn an_entry_that_does_not_come_through_is_buried_where_the_limit_is_not_told(server: Server) {
        let mut redis = server.connect().await;
        let mut acl = redis::cmd("ACL");
        acl.arg("SETUSER").arg("worker").arg(&["on", ">secret", "~*", "+@all", "-config"]);
        let () = acl.query_async(&mut redis).await.unwrap();
        too_large(&server, format!("redis://worker:secret@127.0.0.1:{}", server.port())).await;
    }

    async fn a_server_that_cuts_large_answers_is_asked_for_less(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, "test.large", 80, 200 << 10).await;
        limit(&mut redis, "normal 1048576 1048576 0").await;
        let worker = start(&server);
        all_settled(&mut redis, &worker).await;
        let stats: redis::InfoDict = redis::cmd("INFO").arg("stats").query_async(&mut redis).await.unwrap();
        let connections: usize = stats.get("total_connections_received").unwrap();
        println!("{connections} connections");
        assert!(connections < 60, "{connections} connections\n{}", worker.log());
        assert_eq!(dead(&mut redis).await, 0);
    }
}
