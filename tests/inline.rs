//! Where few entries come they are handled on the thread that read them. Nothing shows of that: a handler that blocks
//! that thread holds up neither reading nor renewing, and belongs to the caller's runtime as ever.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamhand::{Context, Event, Failure, Publisher, Registry};

use crate::support::{Server, Setup, eventually, pending, publisher, settled};

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    blocks_ms: u64,
}

impl Event for Asked {
    const TYPE: &'static str = "test.asked";
}

#[derive(Debug, Serialize, Deserialize)]
struct Spawns {}

impl Event for Spawns {
    const TYPE: &'static str = "test.spawns";
}

/// What became of an entry: on which thread it was handled, and whether that has ended.
#[derive(Clone, Debug)]
struct Handled {
    thread: String,
    ended: bool,
}

impl Handled {
    fn is_inline(&self) -> bool {
        self.thread.starts_with("streamhand-io")
    }
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Handled>>>);

impl Seen {
    fn all(&self) -> Vec<Handled> {
        self.0.lock().unwrap().clone()
    }

    fn saw(&self, thread: String, ended: bool) -> usize {
        let mut seen = self.0.lock().unwrap();
        seen.push(Handled { thread, ended });
        seen.len() - 1
    }

    async fn are(&self, count: usize) -> Vec<Handled> {
        let what = format!("{count} to be handled");
        eventually(PATIENCE, &what, async || {
            Some(self.all()).filter(|all| all.len() >= count)
        })
        .await
    }

    fn registry(&self) -> Registry {
        let seen = self.clone();
        Registry::new().on(move |asked: Asked, _ctx: Context| {
            let seen = seen.clone();
            async move {
                let thread = std::thread::current().name().unwrap_or_default().to_owned();
                let at = seen.saw(thread, false);
                if asked.blocks_ms > 0 && seen.all()[at].is_inline() {
                    std::thread::sleep(Duration::from_millis(asked.blocks_ms));
                }
                seen.0.lock().unwrap()[at].ended = true;
                Ok::<(), Failure>(())
            }
        })
    }
}

/// Publishes entries that block the thread they were read on, one by one until one of them comes to be handled there: a
/// thread that was not run for a moment looks like a slow handler. Answers which one.
async fn until_inline(publisher: &Publisher, seen: &Seen, blocks_ms: u64) -> usize {
    eventually(
        PATIENCE,
        "an entry to be handled where it was read",
        async || {
            let before = seen.all().len();
            publisher
                .publish("jobs", &Asked { blocks_ms })
                .await
                .unwrap();
            seen.are(before + 1).await[before]
                .is_inline()
                .then_some(before)
        },
    )
    .await
}

on_both_servers! {
    async fn few_are_handled_where_they_were_read_and_many_on_the_callers_runtime(server: Server) {
        let mut redis = server.connect().await;
        let publisher = publisher(&server.url());
        let seen = Seen::default();
        let asked: Vec<Asked> = (0..500).map(|_| Asked { blocks_ms: 0 }).collect();
        publisher.publish_many("jobs", &asked).await.unwrap();
        // With few slots, reads are for few entries until it is known how fast they are settled.
        let setup = Setup::new(&server).worker("concurrency = 500");
        let worker = setup.start_with(seen.registry());
        let elsewhere = seen.are(500).await.into_iter().filter(|handled| !handled.is_inline()).count();
        // But for the last few, which may have come alone.
        assert!(elsewhere > 400, "{elsewhere}");
        until_inline(&publisher, &seen, 0).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        worker.stop().await;
    }

    async fn one_that_blocks_where_it_was_read_holds_up_neither_reading_nor_renewing(server: Server) {
        let mut redis = server.connect().await;
        let publisher = publisher(&server.url());
        let seen = Seen::default();
        let setup = Setup::new(&server).worker("lease = \"500ms\"");
        let worker = setup.start_with(seen.registry());
        let blocked = until_inline(&publisher, &seen, 4_000).await;
        for more in 2..5 {
            publisher.publish("jobs", &Asked { blocks_ms: 0 }).await.unwrap();
            let all = seen.are(blocked + more).await;
            assert!(!all[blocked].ended, "it was waited for");
            assert!(!all[blocked + more - 1].is_inline(), "nobody watches: {all:?}");
        }
        // Another worker takes over what is not renewed.
        let elsewhere = Seen::default();
        let other = setup.start_with(elsewhere.registry());
        settled(&mut redis, "jobs", PATIENCE).await;
        assert!(seen.all()[blocked].ended);
        assert_eq!(elsewhere.all().len(), 0);
        other.stop().await;
        // And it goes on as before.
        until_inline(&publisher, &seen, 0).await;
        worker.stop().await;
    }

    async fn one_that_blocks_there_can_be_left_behind_by_a_worker_that_stops(server: Server) {
        let mut redis = server.connect().await;
        let publisher = publisher(&server.url());
        let seen = Seen::default();
        let setup = Setup::new(&server).worker("lease = \"1s\"").worker("drain = \"200ms\"");
        let worker = setup.start_with(seen.registry());
        let blocked = until_inline(&publisher, &seen, 15_000).await;
        let summary = worker.stop().await;
        assert!(!seen.all()[blocked].ended, "it was waited for");
        assert_eq!(summary.unsettled, 1);
        assert_eq!(pending(&mut redis, "jobs").await.iter().map(|(_, count)| count).sum::<u64>(), 1);
        let heirs = Seen::default();
        let heir = setup.start_with(heirs.registry());
        heirs.are(1).await;
        heir.stop().await;
    }

    async fn what_a_handler_spawns_there_runs_on_the_callers_runtime(server: Server) {
        let publisher = publisher(&server.url());
        let spawned = Seen::default();
        let theirs = spawned.clone();
        let registry = Registry::new().on(move |_: Spawns, _ctx: Context| {
            let spawned = theirs.clone();
            async move {
                let thread = || std::thread::current().name().unwrap_or_default().to_owned();
                spawned.saw(thread(), false);
                let on = tokio::spawn(async move { thread() }).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
                spawned.saw(on, true);
                Ok::<(), Failure>(())
            }
        });
        let worker = Setup::new(&server).start_with(registry);
        eventually(PATIENCE, "one to be handled where it was read", async || {
            let before = spawned.all().len();
            publisher.publish("jobs", &Spawns {}).await.unwrap();
            let all = spawned.are(before + 2).await;
            assert!(!all[before + 1].is_inline(), "{all:?}");
            all[before].is_inline()
        })
        .await;
        worker.stop().await;
    }
}
