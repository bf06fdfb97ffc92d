//! An idle worker is next to nothing, to Redis and to its machine.

use std::time::{Duration, Instant};

use crate::support::{Server, Setup, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

on_both_servers! {
    async fn it_sends_at_most_three_commands_a_second_and_stays_below_15_mb(server: Server) {
        let mut redis = server.connect().await;
        let mut worker = Setup::new(&server).worker("lease = \"30s\"").process();
        worker.wait_for_log("the group is new", PATIENCE).await;
        // Connecting and joining are over when it waits for entries.
        eventually(PATIENCE, "the worker to wait for entries", async || {
            let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut redis).await.unwrap();
            clients.lines().any(|client| client.contains("cmd=xreadgroup") && client.contains("flags=b"))
        })
        .await;
        let (before, since) = (client_commands(&mut redis).await, Instant::now());
        eventually(PATIENCE, "ten seconds to pass", async || since.elapsed() >= Duration::from_secs(10)).await;
        let sent = client_commands(&mut redis).await - before;
        let rate = sent as f64 / since.elapsed().as_secs_f64();
        println!("{rate:.2} commands a second");
        assert!(rate <= 3.0, "{rate:.2} commands a second");

        let status = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", worker.pid())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        let kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        println!("{kib} KiB resident");
        assert!(kib < 15 * 1024, "{kib} KiB resident");
    }
}

/// Commands as clients send them: a script is one.
async fn client_commands(redis: &mut redis::aio::MultiplexedConnection) -> u64 {
    let stats: String = redis::cmd("INFO")
        .arg("commandstats")
        .query_async(redis)
        .await
        .unwrap();
    let calls = |line: &str| {
        line.split_once("calls=")?
            .1
            .split(',')
            .next()?
            .parse::<u64>()
            .ok()
    };
    let sent_by_clients = [
        "evalsha",
        "xreadgroup",
        "xack",
        "client|unblock",
        "xinfo|consumers",
    ];
    stats
        .lines()
        .filter(|line| {
            sent_by_clients
                .iter()
                .any(|command| line.starts_with(&format!("cmdstat_{command}:")))
        })
        .filter_map(calls)
        .sum()
}
