//! Projections whose events take long to be applied.

use std::time::Duration;

use streamhand::eventstore::{Projected, Projection, View};
use streamhand::{Failure, Registry};
use tokio::time::{Instant, sleep};

use super::views::{
    ByStatus, PATIENCE, agrees, any_event, checkpoint, happens, names, setup, store,
};
use crate::eventstore::orders::OrderEvent;
use crate::support::{Server, eventually};

/// Takes so long for each event.
struct Slow(Duration);

impl Projection for Slow {
    const NAME: &'static str = "orders-by-status";
    const STREAM: &'static str = "orders";
    const KINDS: &'static [&'static str] = &["order"];
    type Event = OrderEvent;

    fn project(&self, event: Projected<OrderEvent>, view: &mut View) -> Result<(), Failure> {
        std::thread::sleep(self.0);
        ByStatus::default().project(event, view)
    }
}

fn slow(ms: u64) -> Registry {
    Registry::new().projection(Slow(Duration::from_millis(ms)))
}

on_both_servers! {
    async fn a_backlog_that_takes_longer_than_the_lease_is_applied_from_the_start_on_by_one_worker(server: Server) {
        let mut redis = server.connect().await;
        let store = store(&server, 1);
        happens(&store, "o-1", (0..500).map(|_| any_event())).await;
        let workers = [(); 2].map(|()| setup(&server).start_with(slow(80)));
        let passed = async |redis: &mut _| {
            let at = checkpoint(redis, "{orders}").await;
            at.get("passed").and_then(|passed| passed.parse::<u64>().ok()).unwrap_or(0)
        };
        // Long before the first batch would have been done, had all of them been in it.
        eventually(Duration::from_secs(20), "some to be applied", async || passed(&mut redis).await > 0).await;
        let runner = checkpoint(&mut redis, "{orders}").await["runner"].clone();
        let (begin, mut before) = (Instant::now(), 0);
        while begin.elapsed() < Duration::from_millis(5_500) {
            sleep(Duration::from_millis(100)).await;
            let at = checkpoint(&mut redis, "{orders}").await;
            assert_eq!(at["runner"], runner, "nobody takes over while it lives");
            assert!(!at.contains_key("deaths"), "{at:?}");
        }
        let now = passed(&mut redis).await;
        assert!(now >= 20, "{now} of 500 after {:?}", begin.elapsed());
        // Whoever goes on has all that was done.
        for worker in workers {
            worker.stop().await;
            let now = passed(&mut redis).await;
            assert!(now >= before);
            before = now;
        }
    }

    async fn one_event_that_takes_longer_than_the_lease_is_applied_once_by_one_worker(server: Server) {
        let mut redis = server.connect().await;
        let (store, ids) = (store(&server, 1), names(3));
        let setup = setup(&server).worker("lease = \"1s\"");
        happens(&store, "o-0", [any_event()]).await;
        let workers = [(); 2].map(|()| setup.start_with(slow(3_500)));
        eventually(PATIENCE, "one to run it", async || checkpoint(&mut redis, "{orders}").await.contains_key("runner")).await;
        let runner = checkpoint(&mut redis, "{orders}").await["runner"].clone();
        agrees(&mut redis, &store, &ids, &[]).await;
        let at = checkpoint(&mut redis, "{orders}").await;
        assert_eq!((&at["runner"], &at["passed"][..]), (&runner, "1"));
        for worker in workers {
            worker.stop().await;
        }
    }
}
