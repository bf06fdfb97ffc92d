//! How much a worker takes at once: no more than it can use, and as much as it can use.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;

use crate::support::jobs::{self, Action, Job, many};
use crate::support::letters::fields;
use crate::support::{Server, Setup, add, eventually, pending, settled};

const PATIENCE: Duration = Duration::from_secs(60);

on_both_servers! {
    /// Counted in Redis all the while: whoever holds more than it runs, while the other has room, is found out.
    async fn with_slow_handlers_no_entry_waits_at_one_worker_while_the_other_is_free(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).worker("concurrency = 4");
        let workers = [setup.start(), setup.start()];
        eventually(PATIENCE, "both to wait for entries", async || {
            let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut redis).await.unwrap();
            let waits = |client: &&str| client.contains("cmd=xreadgroup") && client.contains("flags=b");
            clients.lines().filter(waits).count() == 2
        })
        .await;
        // Some end a little before the others: a few ends within a moment do not make a worker fast.
        let mut all = many("slow", 16, &Action::Take(1_000));
        all.extend(many("slower", 16, &Action::Take(1_015)));
        fastrand::shuffle(&mut all);
        jobs::publish(&mut redis, "jobs", &all).await;
        let mut most: BTreeMap<String, u64> = BTreeMap::new();
        eventually(PATIENCE, "all to be done", async || {
            for (consumer, held) in pending(&mut redis, "jobs").await {
                let known = most.entry(consumer).or_default();
                *known = held.max(*known);
            }
            jobs::ended(&mut redis).await.len() == all.len()
        })
        .await;
        assert_eq!(most.len(), 2, "both work: {most:?}");
        // One at most is between its end and its acknowledgement for each that has begun in its place.
        assert!(most.values().all(|held| *held <= 4), "held by each at most: {most:?}");
        for worker in workers {
            worker.stop().await;
        }
    }

    /// Counted in Redis: what it is asked for, and how many entries are with the worker at once.
    async fn with_fast_handlers_batches_grow_to_the_prefetch_limit(server: Server) {
        let mut redis = server.connect().await;
        let all = many("fast", 40_000, &Action::Nothing);
        jobs::publish(&mut redis, "jobs", &all).await;
        let monitor = redis::Client::open(server.url()).unwrap().get_async_monitor().await.unwrap();
        let watching = tokio::spawn(async move {
            let mut asked: Vec<u64> = Vec::new();
            let mut lines = monitor.into_on_message::<String>();
            while let Some(line) = lines.next().await {
                let mut words = line.split_whitespace().map(|word| word.trim_matches('"'));
                if words.any(|word| word.eq_ignore_ascii_case("xreadgroup")) {
                    let count = words.skip_while(|word| *word != "COUNT").nth(1).unwrap();
                    asked.push(count.parse().unwrap());
                } else if line.contains("\"END\"") {
                    break;
                }
            }
            asked
        });
        let setup = Setup::new(&server).worker("prefetch = 700").worker("concurrency = 16");
        let worker = setup.start();
        let mut most = 0;
        eventually(PATIENCE, "all to be settled", async || {
            let held: u64 = pending(&mut redis, "jobs").await.iter().map(|(_, held)| held).sum();
            most = most.max(held);
            let read: redis::streams::StreamInfoGroupsReply =
                redis::cmd("XINFO").arg("GROUPS").arg("jobs").query_async(&mut redis).await.unwrap();
            held == 0 && read.groups.first().is_some_and(|group| group.lag == Some(0))
        })
        .await;
        assert_eq!(worker.stop().await.settled, 40_000);
        let _: String = redis::cmd("ECHO").arg("END").query_async(&mut redis).await.unwrap();
        let asked = watching.await.unwrap();
        let largest = asked.iter().max().copied().unwrap();
        println!("asked {} times, at most for {largest}; held at most {most}", asked.len());
        // A seventh of the prefetch limit, and not sixteen, one for each slot.
        assert!((90..=350).contains(&largest), "asked for {largest} at most");
        assert!((350..=700).contains(&most), "held {most} at most");
    }

    /// Sixteen megabytes, once it has seen how large they are.
    async fn of_large_entries_only_so_many_are_held_as_memory_allows(server: Server) {
        let mut redis = server.connect().await;
        let worker = Setup::new(&server).start();
        let data = serde_json::to_string(&Job::new("large", Action::SleepQuietly(600))).unwrap();
        let ballast = "x".repeat(1 << 20);
        let large = fields(&[("type", "test.job"), ("data", &data), ("ballast", &ballast)]);
        add(&mut redis, "jobs", &large).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let _: () = redis::cmd("XTRIM").arg("jobs").arg("MAXLEN").arg(0).query_async(&mut redis).await.unwrap();
        let (mut most, mut added) = (0, 0);
        eventually(PATIENCE, "all to be settled", async || {
            while added < 32 {
                add(&mut redis, "jobs", &large).await;
                added += 1;
            }
            let held: u64 = pending(&mut redis, "jobs").await.iter().map(|(_, held)| held).sum();
            most = most.max(held);
            held == 0
        })
        .await;
        println!("held at most {most}");
        assert!((8..=16).contains(&most), "held {most} at most");
        worker.stop().await;
    }
}
