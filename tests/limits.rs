//! Limits of single handlers: how many of them run at once, and how often they start. What is over them stays in Redis.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use streamhand::Registry;

use crate::support::{Server, Setup, dead, eventually, parked, settled};

const PATIENCE: Duration = Duration::from_secs(60);

/// What ran: how many at once, at most, and when each began.
#[derive(Clone, Default)]
struct Runs {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    began: Arc<Mutex<Vec<Instant>>>,
    others: Arc<AtomicUsize>,
    attempts: Arc<Mutex<Vec<u32>>>,
}

impl Runs {
    /// Handlers of `test.slow`, which takes its time, and `test.fast`, which does not.
    fn registry(&self, takes: Duration) -> Registry {
        let (runs, others) = (self.clone(), self.others.clone());
        Registry::new()
            .on_raw("test.slow", move |_, ctx| {
                let runs = runs.clone();
                async move {
                    let now = runs.now.fetch_add(1, Ordering::SeqCst) + 1;
                    runs.most.fetch_max(now, Ordering::SeqCst);
                    runs.began.lock().unwrap().push(Instant::now());
                    runs.attempts.lock().unwrap().push(ctx.attempt());
                    if !takes.is_zero() {
                        tokio::time::sleep(takes).await;
                    }
                    runs.now.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                }
            })
            .on_raw("test.fast", move |_, _| {
                others.fetch_add(1, Ordering::SeqCst);
                async { Ok(()) }
            })
    }

    fn began(&self) -> Vec<Instant> {
        self.began.lock().unwrap().clone()
    }

    /// Most that began within such a time.
    fn most_within(&self, span: Duration) -> usize {
        let mut began = self.began();
        began.sort();
        let within = |at: &Instant| {
            began
                .iter()
                .filter(|other| **other >= *at && **other < *at + span)
                .count()
        };
        began.iter().map(within).max().unwrap_or(0)
    }
}

async fn publish(redis: &mut MultiplexedConnection, stream: &str, event_type: &str, count: usize) {
    let mut pipe = redis::pipe();
    for _ in 0..count {
        pipe.cmd("XADD")
            .arg(stream)
            .arg("*")
            .arg("type")
            .arg(event_type)
            .ignore();
    }
    let () = pipe.query_async(redis).await.unwrap();
}

/// How often each entry was released that is not settled.
async fn given_back(redis: &mut MultiplexedConnection) -> Vec<u32> {
    let mut hvals = redis::cmd("HVALS");
    let records: Vec<String> = hvals
        .arg("{jobs}:workers:failures")
        .query_async(redis)
        .await
        .unwrap();
    let times = |record: &String| record.split(' ').nth(1).unwrap().parse().unwrap();
    records.iter().map(times).collect()
}

on_both_servers! {
    async fn no_more_run_at_once_than_may_and_the_rest_is_not_read(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, "jobs", "test.slow", 300).await;
        let runs = Runs::default();
        let setup = Setup::new(&server).more("[handlers.\"test.slow\"]\nconcurrency = 3");
        let since = Instant::now();
        let worker = setup.start_with(runs.registry(Duration::from_millis(20)));
        eventually(PATIENCE, "some to have run", async || runs.began().len() > 30).await;
        let pending: (u64, redis::Value, redis::Value, redis::Value) =
            redis::cmd("XPENDING").arg("jobs").arg("workers").query_async(&mut redis).await.unwrap();
        assert!(pending.0 <= 40, "{} of 300 are held or parked", pending.0);
        settled(&mut redis, "jobs", PATIENCE).await;
        let took = since.elapsed();
        assert_eq!(runs.most.load(Ordering::SeqCst), 3);
        assert_eq!(runs.began().len(), 300);
        assert!(runs.attempts.lock().unwrap().iter().all(|attempt| *attempt == 1));
        // 100 rounds of 20 ms; the places are kept busy.
        println!("took {took:?}");
        assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(12), "took {took:?}");
        worker.stop().await;
    }

    async fn others_of_the_stream_do_not_wait_for_a_slow_handlers_places(server: Server) {
        let mut redis = server.connect().await;
        let runs = Runs::default();
        let setup = Setup::new(&server)
            .worker("concurrency = 8")
            .more("[handlers.\"test.slow\"]\nconcurrency = 1");
        let worker = setup.start_with(runs.registry(Duration::from_millis(400)));
        publish(&mut redis, "jobs", "test.fast", 1).await;
        eventually(PATIENCE, "the first to be seen", async || runs.others.load(Ordering::SeqCst) == 1).await;
        publish(&mut redis, "jobs", "test.slow", 20).await;
        publish(&mut redis, "jobs", "test.fast", 500).await;
        let since = Instant::now();
        eventually(PATIENCE, "the others", async || runs.others.load(Ordering::SeqCst) == 501).await;
        assert!(since.elapsed() < Duration::from_secs(4), "they took {:?}", since.elapsed());
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!((runs.most.load(Ordering::SeqCst), runs.began().len()), (1, 20));
        assert!(runs.attempts.lock().unwrap().iter().all(|attempt| *attempt == 1));
        assert_eq!(dead(&mut redis).await, 0);
        worker.stop().await;
    }

    async fn a_worker_that_stops_gives_back_what_waits_for_a_place(server: Server) {
        let mut redis = server.connect().await;
        let runs = Runs::default();
        let setup = Setup::new(&server).more("[handlers.\"test.slow\"]\nconcurrency = 2");
        publish(&mut redis, "jobs", "test.slow", 400).await;
        let worker = setup.start_with(runs.registry(Duration::from_millis(10)));
        eventually(PATIENCE, "some to have run", async || runs.began().len() > 100).await;
        let summary = worker.stop().await;
        assert_eq!(summary.unsettled, 0);
        let other = setup.start_with(runs.registry(Duration::ZERO));
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(runs.began().len(), 400, "each ran once");
        assert!(runs.attempts.lock().unwrap().iter().all(|attempt| *attempt == 1));
        other.stop().await;
    }

    async fn it_starts_no_more_often_than_its_rate_and_nearly_as_often(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, "jobs", "test.slow", 300).await;
        let runs = Runs::default();
        let setup = Setup::new(&server).more("[handlers.\"test.slow\"]\nrate = \"100/s\"");
        let worker = setup.start_with(runs.registry(Duration::ZERO));
        settled(&mut redis, "jobs", PATIENCE).await;
        let began = runs.began();
        let took = *began.iter().max().unwrap() - *began.iter().min().unwrap();
        println!("300 at 100 a second took {took:?}, {} were parked at the end", parked(&mut redis).await);
        assert!(took >= Duration::from_millis(2_800) && took < Duration::from_millis(9_000), "{took:?}");
        assert!(runs.most_within(Duration::from_secs(1)) <= 112, "{} in a second", runs.most_within(Duration::from_secs(1)));
        assert!(runs.attempts.lock().unwrap().iter().all(|attempt| *attempt == 1));
        worker.stop().await;
    }

    async fn a_groups_rate_is_that_of_all_its_workers_together(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, "jobs", "test.slow", 300).await;
        let runs = Runs::default();
        let setup = Setup::new(&server).more("[handlers.\"test.slow\"]\nrate = \"100/s\"\nrate_scope = \"group\"");
        let start = || setup.start_with(runs.registry(Duration::ZERO));
        let workers = [start(), start(), start()];
        settled(&mut redis, "jobs", PATIENCE).await;
        let began = runs.began();
        let took = *began.iter().max().unwrap() - *began.iter().min().unwrap();
        let most = runs.most_within(Duration::from_secs(1));
        println!("300 at 100 a second by three workers took {took:?}, at most {most} in a second");
        assert!(took >= Duration::from_millis(2_700) && took < Duration::from_millis(9_000), "{took:?}");
        assert!(most <= 115, "{most} in a second");
        assert_eq!(began.len(), 300);
        for worker in workers {
            worker.stop().await;
        }
    }

    /// One stream's handler is limited, the other's is not: reading the one does not slow the other down.
    async fn a_stream_without_limits_is_not_slowed_down_by_one_with(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, "jobs", "test.slow", 100).await;
        publish(&mut redis, "free", "test.fast", 20_000).await;
        let runs = Runs::default();
        let setup = Setup::new(&server)
            .worker("streams = [\"jobs\", \"free\"]")
            .more("[handlers.\"test.slow\"]\nrate = \"20/s\"");
        let worker = setup.start_with(runs.registry(Duration::ZERO));
        let since = Instant::now();
        settled(&mut redis, "free", PATIENCE).await;
        println!("20,000 beside a limited stream took {:?}", since.elapsed());
        assert!(since.elapsed() < Duration::from_secs(4), "took {:?}", since.elapsed());
        settled(&mut redis, "jobs", PATIENCE).await;
        assert!(since.elapsed() >= Duration::from_millis(4_500), "took {:?}", since.elapsed());
        worker.stop().await;
    }

    /// The worker has seen no entry of the other type since it started.
    async fn others_behind_many_that_are_limited_come_at_once(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, "jobs", "test.slow", 150).await;
        publish(&mut redis, "jobs", "test.fast", 20).await;
        let runs = Runs::default();
        let setup = Setup::new(&server).more("[handlers.\"test.slow\"]\nrate = \"5/s\"");
        let since = Instant::now();
        let worker = setup.start_with(runs.registry(Duration::ZERO));
        eventually(PATIENCE, "the others", async || runs.others.load(Ordering::SeqCst) == 20).await;
        let took = since.elapsed();
        println!("the others took {took:?}; of the limited {} had begun", runs.began().len());
        assert!(took < Duration::from_secs(5), "they took {took:?}");
        // Each was put back once, and waits for its turn.
        let before = runs.began().len();
        eventually(PATIENCE, "more of the limited ones", async || runs.began().len() >= before + 10).await;
        assert!(given_back(&mut redis).await.iter().all(|times| *times <= 1), "moved again and again");
        let within = runs.most_within(Duration::from_secs(1));
        assert!(within <= 7, "{within} in a second");
        worker.stop().await;
    }

    async fn others_behind_thousands_that_wait_for_a_place_come_at_once(server: Server) {
        let mut redis = server.connect().await;
        let runs = Runs::default();
        let setup = Setup::new(&server).more("[handlers.\"test.slow\"]\nconcurrency = 1");
        let worker = setup.start_with(runs.registry(Duration::from_secs(1)));
        publish(&mut redis, "jobs", "test.fast", 1).await;
        eventually(PATIENCE, "the type to be known", async || runs.others.load(Ordering::SeqCst) == 1).await;
        publish(&mut redis, "jobs", "test.slow", 3_000).await;
        publish(&mut redis, "jobs", "test.fast", 1).await;
        let since = Instant::now();
        eventually(PATIENCE, "the other", async || runs.others.load(Ordering::SeqCst) == 2).await;
        let took = since.elapsed();
        println!("the other took {took:?}; of the limited {} had begun", runs.began().len());
        assert!(took < Duration::from_secs(8), "it took {took:?}");
        assert!(given_back(&mut redis).await.iter().all(|times| *times <= 1), "moved again and again");
        worker.stop().await;
    }

    /// The worker has handlers of other types, and there is none of them.
    async fn limited_ones_alone_stay_where_they_are(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, "jobs", "test.slow", 5_000).await;
        let runs = Runs::default();
        let setup = Setup::new(&server).more("[handlers.\"test.slow\"]\nrate = \"10/s\"");
        let worker = setup.start_with(runs.registry(Duration::ZERO));
        eventually(PATIENCE, "some to have run", async || runs.began().len() >= 25).await;
        let moved = given_back(&mut redis).await.len();
        let parked = parked(&mut redis).await;
        println!("{moved} of 5,000 were put back, {parked} wait");
        assert!(moved <= 40 && parked <= 40, "{moved} were put back, {parked} wait");
        // What comes now is found behind them.
        publish(&mut redis, "jobs", "test.fast", 1).await;
        let since = Instant::now();
        eventually(PATIENCE, "the other", async || runs.others.load(Ordering::SeqCst) == 1).await;
        assert!(since.elapsed() < Duration::from_secs(8), "it took {:?}", since.elapsed());
        worker.stop().await;
    }
}
