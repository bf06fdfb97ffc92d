//! How much a worker takes at once: no more than it can use, and as much as it can use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use streamhand::Observer;

use crate::support::jobs::{self, Action, many};
use crate::support::{Server, Setup, eventually, pending, settled};

const PATIENCE: Duration = Duration::from_secs(60);

/// Remembers the largest batch.
struct Largest(Arc<AtomicUsize>);

impl Observer for Largest {
    fn delivered(&self, _: &str, entries: usize) {
        self.0.fetch_max(entries, Ordering::SeqCst);
    }
}

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
        let all = many("slow", 32, &Action::Take(1_000));
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

    async fn with_fast_handlers_batches_grow_to_the_prefetch_limit(server: Server) {
        let mut redis = server.connect().await;
        let all = many("fast", 40_000, &Action::Nothing);
        jobs::publish(&mut redis, "jobs", &all).await;
        let largest = Arc::new(AtomicUsize::new(0));
        let setup = Setup::new(&server).worker("prefetch = 700").worker("concurrency = 16");
        let worker = setup.start_observed(jobs::registry(), Largest(largest.clone()));
        settled(&mut redis, "jobs", PATIENCE).await;
        let largest = largest.load(Ordering::SeqCst);
        println!("the largest batch had {largest} entries");
        assert!((350..=700).contains(&largest), "the largest batch had {largest} entries");
        assert_eq!(worker.stop().await.settled, 40_000);
    }
}
