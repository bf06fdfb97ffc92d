//! How slots are shared: events that are quickly handled do not wait for a long row of slow ones, and what is alone has
//! all slots.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use streamhand::Registry;

use crate::support::{Server, Setup, dead, eventually, jobs::now_ms, settled};

const PATIENCE: Duration = Duration::from_secs(60);

/// What ran.
#[derive(Clone, Default)]
struct Runs {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    attempts: Arc<Mutex<Vec<u32>>>,
    /// How long each of the quick ones had waited, in ms.
    waits: Arc<Mutex<Vec<u64>>>,
}

impl Runs {
    /// Handlers of `test.slow` and `test.slower`, which take their time, and of `test.quick`, which does not.
    fn registry(&self, takes: Duration) -> Registry {
        let slow = |registry: Registry, event_type: &'static str| {
            let runs = self.clone();
            registry.on_raw(event_type, move |_, ctx| {
                let runs = runs.clone();
                async move {
                    let now = runs.now.fetch_add(1, Ordering::SeqCst) + 1;
                    runs.most.fetch_max(now, Ordering::SeqCst);
                    runs.attempts.lock().unwrap().push(ctx.attempt());
                    tokio::time::sleep(takes).await;
                    runs.now.fetch_sub(1, Ordering::SeqCst);
                    runs.ended.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                }
            })
        };
        let runs = self.clone();
        let registry = slow(slow(Registry::new(), "test.slow"), "test.slower");
        registry.on_raw("test.quick", move |event, _| {
            let mut sent = event.extensions().filter(|(name, _)| *name == b"sent");
            let sent = std::str::from_utf8(sent.next().unwrap().1).unwrap();
            let sent: u64 = sent.parse().unwrap();
            let wait = now_ms().saturating_sub(sent);
            runs.waits.lock().unwrap().push(wait);
            async { Ok(()) }
        })
    }

    fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }

    fn waited(&self) -> Vec<u64> {
        let mut waits = self.waits.lock().unwrap().clone();
        waits.sort_unstable();
        waits
    }
}

async fn publish(redis: &mut MultiplexedConnection, stream: &str, event_type: &str, count: usize) {
    let mut pipe = redis::pipe();
    for _ in 0..count {
        let add = pipe.cmd("XADD").arg(stream).arg("*").arg("type");
        add.arg(event_type).arg("sent").arg(now_ms()).ignore();
    }
    let () = pipe.query_async(redis).await.unwrap();
}

/// Publishes quick ones one by one, and waits for them. Returns how long they waited, in ms, in order of that.
async fn quick_ones(redis: &mut MultiplexedConnection, runs: &Runs, count: usize) -> Vec<u64> {
    for _ in 0..count {
        publish(redis, "jobs", "test.quick", 1).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eventually(PATIENCE, "the quick ones", async || {
        runs.waited().len() == count
    })
    .await;
    runs.waited()
}

on_both_servers! {
    async fn quick_events_do_not_wait_for_slow_ones_of_their_stream(server: Server) {
        let mut redis = server.connect().await;
        let runs = Runs::default();
        publish(&mut redis, "jobs", "test.slow", 600).await;
        let setup = Setup::new(&server).worker("concurrency = 16");
        let worker = setup.start_with(runs.registry(Duration::from_millis(300)));
        let waited = quick_ones(&mut redis, &runs, 150).await;
        let (median, slow) = (waited[75], runs.ended());
        println!("quick ones waited {median} ms at the median, {} at most; {slow} slow ones ran", waited[149]);
        assert!(median < 50, "{waited:?}");
        // Those who take long had all slots as long as they were alone, and most of them since: at least ten rounds.
        assert_eq!(runs.most.load(Ordering::SeqCst), 16);
        assert!(slow >= 75, "{slow}");
        let summary = worker.stop().await;
        assert_eq!((summary.unsettled, dead(&mut redis).await), (0, 0));
        assert!(runs.attempts.lock().unwrap().iter().all(|attempt| *attempt == 1));
    }

    async fn quick_events_do_not_wait_for_slow_ones_of_other_streams_and_types(server: Server) {
        let mut redis = server.connect().await;
        let runs = Runs::default();
        publish(&mut redis, "bulk", "test.slow", 100).await;
        publish(&mut redis, "bulk", "test.slower", 100).await;
        publish(&mut redis, "bulk", "test.slow", 100).await;
        let setup = Setup::new(&server)
            .worker("concurrency = 8")
            .worker("streams = [\"bulk\", \"jobs\"]");
        let worker = setup.start_with(runs.registry(Duration::from_millis(200)));
        eventually(PATIENCE, "some to run", async || runs.ended() >= 8).await;
        let waited = quick_ones(&mut redis, &runs, 100).await;
        println!("quick ones waited {} ms at the median, {} at most", waited[50], waited[99]);
        assert!(waited[50] < 50, "{waited:?}");
        assert_eq!(worker.stop().await.unsettled, 0);
    }

    async fn a_type_that_is_alone_has_all_slots_and_nothing_of_it_goes_back(server: Server) {
        let mut redis = server.connect().await;
        let runs = Runs::default();
        publish(&mut redis, "jobs", "test.slow", 120).await;
        let setup = Setup::new(&server).worker("concurrency = 12");
        let worker = setup.start_with(runs.registry(Duration::from_millis(150)));
        eventually(PATIENCE, "some to run", async || runs.ended() >= 60).await;
        let records: u64 = redis::cmd("HLEN").arg("{jobs}:workers:failures").query_async(&mut redis).await.unwrap();
        let (pending, ..): (u64, redis::Value, redis::Value, redis::Value) =
            redis::cmd("XPENDING").arg("jobs").arg("workers").query_async(&mut redis).await.unwrap();
        assert!(records == 0 && pending <= 30, "{records} went back, {pending} are held");
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!((runs.most.load(Ordering::SeqCst), runs.ended()), (12, 120));
        worker.stop().await;
    }

    async fn slow_events_that_waited_for_others_run_once_each(server: Server) {
        let mut redis = server.connect().await;
        let runs = Runs::default();
        publish(&mut redis, "jobs", "test.slow", 100).await;
        publish(&mut redis, "jobs", "test.quick", 20).await;
        publish(&mut redis, "jobs", "test.slower", 50).await;
        publish(&mut redis, "jobs", "test.quick", 20).await;
        let setup = Setup::new(&server).worker("concurrency = 8");
        let workers = [1, 2].map(|_| setup.start_with(runs.registry(Duration::from_millis(60))));
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!((runs.ended(), runs.waited().len()), (150, 40));
        assert!(runs.attempts.lock().unwrap().iter().all(|attempt| *attempt == 1));
        for worker in workers {
            assert_eq!(worker.stop().await.unsettled, 0);
        }
    }
}
