//! What is wrong with a server: its settings, its memory, its clock, its replicas, its slots.

use std::time::Duration;

use redis::aio::MultiplexedConnection;

use super::{doctor, findings, found, is_gone, mended, run, set, that_say};
use crate::support::{Clock, Kind, Server, eventually, replication, scratch_dir};

const PATIENCE: Duration = Duration::from_secs(20);

on_both_servers! {
    async fn settings_that_cost_something_are_named_with_what_sets_them_right(server: Server) {
        let (mut redis, cli) = (server.connect().await, doctor(&server));
        let wrong = [
            ("maxmemory-policy", "volatile-ttl", "danger", "maxmemory-policy is volatile-ttl"),
            ("timeout", "20", "warning", "at rest for 20 s"),
            ("tcp-keepalive", "0", "notice", "tcp-keepalive is 0"),
            ("client-output-buffer-limit", "normal 1048576 0 0", "warning", "cuts a connection at 1.0 MiB"),
        ];
        for (name, value, ..) in wrong {
            set(&mut redis, name, value).await;
        }
        let all = findings(&cli).await;
        for (.., severity, what) in wrong {
            let [one] = that_say(&all, what)[..] else { panic!("{what}: {all:#?}") };
            assert_eq!(one["severity"], severity, "{one:#}");
            run(&mut redis, one["mend"].as_str().expect("a command")).await;
        }
        let all = findings(&cli).await;
        for (.., what) in wrong {
            assert!(that_say(&all, what).is_empty(), "{what}: {all:#?}");
        }
        // The same for people, and with an exit code.
        let said = cli.run(&["doctor"]).await;
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.out.starts_with("danger persistence at 127.0.0.1:"), "{said:?}");
        assert!(said.out.contains("  mend:  CONFIG SET appendonly yes"), "{said:?}");
        mended(&cli, &mut redis, "danger", "neither an append-only file nor a snapshot").await;
        set(&mut redis, "appendfsync", "no").await;
        mended(&cli, &mut redis, "warning", "appendfsync is no").await;
        mended(&cli, &mut redis, "notice", "nothing limits it").await;
        assert_eq!(cli.run(&["doctor"]).await.code, 0);
    }

    async fn a_snapshot_that_fails_is_a_danger_until_one_succeeds(kind: Kind) {
        let dir = scratch_dir();
        let server = Server::builder(kind).args(["--dir".to_owned(), dir.path().display().to_string()]).start().await;
        let (mut redis, cli) = (server.connect().await, doctor(&server));
        let in_the_way = dir.path().join("dump.rdb");
        std::fs::create_dir(&in_the_way).expect("a folder in the snapshot's place");
        run(&mut redis, "BGSAVE").await;
        snapshot_is(&mut redis, "err").await;
        let mend = found(&cli, "danger", "the last snapshot failed").await;
        std::fs::remove_dir(&in_the_way).expect("it to go");
        run(&mut redis, &mend).await;
        snapshot_is(&mut redis, "ok").await;
        is_gone(&cli, "the last snapshot failed").await;
    }

    async fn memory_that_is_full_and_a_key_that_has_most_of_it_are_named(server: Server) {
        let (mut redis, cli) = (server.connect().await, doctor(&server));
        let payload = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            let () = redis::cmd("SET").arg(format!("blob:{}", fastrand::u64(..))).arg(&payload).query_async(&mut redis).await.unwrap();
            for _ in 0..2 {
            let _: String = redis::cmd("XADD").arg("large").arg("*").arg("f").arg(&payload).query_async(&mut redis).await.unwrap();
            }
        }
        let info: redis::InfoDict = redis::cmd("INFO").arg("memory").query_async(&mut redis).await.unwrap();
        let used: u64 = info.get("used_memory").unwrap();
        set(&mut redis, "maxmemory", &(used + used / 50).to_string()).await;
        mended(&cli, &mut redis, "danger", "are used").await;
        mended(&cli, &mut redis, "warning", "large has ").await;
        // It has made room, and lost something.
        set(&mut redis, "maxmemory-policy", "allkeys-random").await;
        set(&mut redis, "maxmemory", &(used / 2).to_string()).await;
        eventually(PATIENCE, "keys to be gone", async || {
            let size: u64 = redis::cmd("DBSIZE").query_async(&mut redis).await.ok()?;
            (size < 21).then_some(())
        })
        .await;
        set(&mut redis, "maxmemory-policy", "noeviction").await;
        mended(&cli, &mut redis, "warning", "keys to make room").await;
    }

    async fn connections_that_run_out_are_told_of(server: Server) {
        let (mut redis, cli) = (server.connect().await, doctor(&server));
        set(&mut redis, "maxclients", "20").await;
        let mut held = Vec::new();
        for _ in 0..18 {
            held.push(server.connect().await);
        }
        let client = redis::Client::open(server.url()).unwrap();
        let mut beyond = Vec::new();
        for _ in 0..3 {
            beyond.push(client.get_connection());
        }
        assert!(beyond.iter().any(Result::is_err), "one is turned away");
        drop(beyond);
        drop(held.pop());
        eventually(PATIENCE, "room for the doctor", async || {
            let info: redis::InfoDict = redis::cmd("INFO").arg("clients").query_async(&mut redis).await.ok()?;
            (info.get::<u64>("connected_clients")? <= 18).then_some(())
        })
        .await;
        mended(&cli, &mut redis, "danger", "connections of the 20").await;
        mended(&cli, &mut redis, "notice", "were turned away").await;
    }

    async fn a_clock_that_is_wrong_is_told_of(kind: Kind) {
        let clock = Clock::new();
        let server = Server::builder(kind).clock(&clock).start().await;
        let cli = doctor(&server);
        clock.ahead(Duration::from_secs(600));
        assert_eq!(found(&cli, "warning", "the server's clock is").await, "chronyc makestep");
        // What that does.
        clock.ahead(Duration::ZERO);
        is_gone(&cli, "the server's clock is").await;
    }

    async fn a_server_that_something_keeps_busy_is_told_of(server: Server) {
        let (mut redis, cli) = (server.connect().await, doctor(&server));
        set(&mut redis, "slowlog-log-slower-than", "10000").await;
        let mut busy = server.connect().await;
        let slow = "local busy = 0 for i = 1, 5000000 do busy = busy + i end return 1";
        let busy = tokio::spawn(async move {
            loop {
                let said: redis::RedisResult<i64> = redis::cmd("EVAL").arg(slow).arg(0).query_async(&mut busy).await;
                // Of a connection that is gone all of it fails at once, and a task that never waits can't be ended.
                if said.is_err() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        });
        let mend = found(&cli, "notice", "99 in 100").await;
        assert_eq!(mend, "SLOWLOG GET 10");
        // On a busy machine the first script may not have ended yet.
        eventually(PATIENCE, "it to name what keeps it busy", async || {
            let slow: Vec<redis::Value> = redis::cmd("SLOWLOG").arg("GET").arg(10).query_async(&mut redis).await.unwrap();
            format!("{slow:?}").contains("busy")
        })
        .await;
        busy.abort();
        let _ = busy.await;
        eventually(PATIENCE, "it to be quick again", async || {
            let all = findings(&cli).await;
            that_say(&all, "99 in 100").is_empty().then_some(())
        })
        .await;
    }

    async fn who_would_take_over_is_told_of(kind: Kind) {
        let (primary, replica) = (replication::a_primary(kind).await, Server::start(kind).await);
        let (mut redis, mut second) = (primary.connect().await, replica.connect().await);
        let cli = doctor(&primary);
        let mend = found(&cli, "notice", "the server has no replica").await;
        let mend = mend.replace("<its host>", "127.0.0.1").replace("<its port>", &primary.port().to_string());
        run(&mut second, mend.trim_end_matches(" (at another server)")).await;
        replication::follow(&mut second, &primary).await;
        is_gone(&cli, "the server has no replica").await;
        mended(&cli, &mut redis, "notice", "min-replicas-to-write is 0").await;
        found(&cli, "notice", "no more replicas than that").await;
        // At the replica.
        mended(&doctor(&replica), &mut second, "danger", "this server is a read-only replica").await;
    }

    async fn slots_that_are_nobodys_or_stand_open_are_named(kind: Kind) {
        let server = Server::builder(kind).args(["--cluster-enabled", "yes"]).start().await;
        let (mut redis, cli) = (server.connect().await, doctor(&server));
        run(&mut redis, "CLUSTER ADDSLOTSRANGE 0 99 200 16383").await;
        let mend = found(&cli, "danger", "100 slots are nobody's").await;
        assert_eq!(mend, "CLUSTER ADDSLOTSRANGE 100 199");
        run(&mut redis, &mend).await;
        eventually(PATIENCE, "the cluster to be well", async || {
            let info: String = redis::cmd("CLUSTER").arg("INFO").query_async(&mut redis).await.ok()?;
            info.contains("cluster_state:ok").then_some(())
        })
        .await;
        is_gone(&cli, "are nobody's").await;
        // A slot that comes from a node that is not known any more.
        let other = Server::builder(kind).args(["--cluster-enabled", "yes"]).start().await;
        let mut second = other.connect().await;
        let id: String = redis::cmd("CLUSTER").arg("MYID").query_async(&mut second).await.unwrap();
        run(&mut redis, &format!("CLUSTER MEET 127.0.0.1 {}", other.port())).await;
        eventually(PATIENCE, "the slot to be opened", async || {
            let mut open = redis::cmd("CLUSTER");
            let open = open.arg("SETSLOT").arg(93).arg("MIGRATING").arg(&id);
            open.query_async::<()>(&mut redis).await.map_err(|error| error.to_string())
        })
        .await;
        mended(&cli, &mut redis, "warning", "slot 93 stands open: it leaves this node").await;
        mended(&cli, &mut redis, "notice", "cluster-require-full-coverage is yes").await;
    }
}

/// Waits until the last snapshot has ended so.
async fn snapshot_is(redis: &mut MultiplexedConnection, expected: &str) {
    eventually(
        PATIENCE,
        format!("the snapshot to be {expected}"),
        async || {
            let info: redis::InfoDict = redis::cmd("INFO")
                .arg("persistence")
                .query_async(redis)
                .await
                .ok()?;
            let (runs, status): (u8, String) = (
                info.get("rdb_bgsave_in_progress")?,
                info.get("rdb_last_bgsave_status")?,
            );
            (runs == 0 && status == expected).then_some(())
        },
    )
    .await;
}
