//! Workers of different settings and releases in one group: each goes by the other's lease, and what only the newer
//! ones can handle waits for them.

use std::time::{Duration, Instant};

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use streamhand::{Context, Event, Failure, Registry};

use crate::support::jobs::{self, Action, Job, many};
use crate::support::letters::fields;
use crate::support::{Server, Setup, WorkerProcess, add, entries, eventually, pending, settled};

const PATIENCE: Duration = Duration::from_secs(40);
const SHORT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(10);

/// An event that the older release has never heard of.
#[derive(Serialize, Deserialize)]
struct Fresh {
    id: String,
}

impl Event for Fresh {
    const TYPE: &'static str = "test.fresh";
}

/// A job as the newer release writes it.
#[derive(Serialize, Deserialize)]
struct NewerJob {
    id: String,
}

impl Event for NewerJob {
    const TYPE: &'static str = Job::TYPE;
    const VERSION: u32 = 2;
}

/// The list of what the newer release has handled: id and attempt.
const HANDLED: &str = "test:newer";

async fn note(id: String, ctx: Context) -> Result<(), Failure> {
    let _: () = ctx
        .redis()
        .await?
        .rpush(HANDLED, format!("{id} {}", ctx.attempt()))
        .await?;
    Ok(())
}

fn newer() -> Registry {
    Registry::new()
        .on(|fresh: Fresh, ctx| note(fresh.id, ctx))
        .on(|job: NewerJob, ctx| note(job.id, ctx))
}

/// A worker with this lease, of a stream of its own and with room for a few.
fn worker(server: &Server, stream: &str, lease: Duration, concurrency: usize) -> WorkerProcess {
    Setup::new(server)
        .worker(&format!("streams = [\"{stream}\"]"))
        .worker(&format!("lease = \"{}ms\"", lease.as_millis()))
        .worker(&format!("concurrency = {concurrency}"))
        .process()
}

/// One worker runs four entries until it is killed, the other, of another lease, waits for work all the while.
/// Answers how long after the death its entries ran elsewhere, the first and the last.
async fn takeover(
    server: &Server,
    stream: &str,
    holders: Duration,
    heirs: Duration,
) -> (Duration, Duration) {
    let mut redis = server.connect().await;
    // What the holder holds it is full of: later entries are the other's.
    let mut holder = worker(server, stream, holders, 4);
    let long = many(&format!("{stream}-held"), 4, &Action::Take(60_000));
    jobs::publish(&mut redis, stream, &long).await;
    let running = async |redis: &mut MultiplexedConnection, name: &str| {
        let of = format!("{stream}-{name}-");
        let started = jobs::started(redis).await;
        started
            .into_iter()
            .filter(|trace| trace.id.starts_with(&of))
            .collect::<Vec<_>>()
    };
    eventually(PATIENCE, "the holder to run them", async || {
        running(&mut redis, "held").await.len() == 4
    })
    .await;
    let mut heir = worker(server, stream, heirs, 16);
    let own = many(&format!("{stream}-own"), 4, &Action::Take(60_000));
    jobs::publish(&mut redis, stream, &own).await;
    eventually(PATIENCE, "the heir to run its own", async || {
        running(&mut redis, "own").await.len() == 4
    })
    .await;
    // The heir takes over once its own renewals have been answered for a lease.
    let there = Instant::now();
    let time = heirs.max(Duration::from_secs(3)) + Duration::from_millis(200);
    eventually(PATIENCE, "both to be alive for long", async || {
        there.elapsed() > time
    })
    .await;
    for name in ["held", "own"] {
        assert_eq!(
            running(&mut redis, name).await.len(),
            4,
            "{stream}: taken from a worker that is alive"
        );
    }

    holder.kill();
    let killed = jobs::now_ms();
    eventually(PATIENCE, "them to run elsewhere", async || {
        running(&mut redis, "held").await.len() == 8
    })
    .await;
    assert!(!heir.has_ended());
    let taken: Vec<_> = running(&mut redis, "held").await.split_off(4);
    let after = |at: u64| Duration::from_millis(at.saturating_sub(killed));
    let after: Vec<Duration> = taken.iter().map(|trace| after(trace.at)).collect();
    println!("a lease of {holders:?}, taken over by one of {heirs:?} after {after:?}");
    assert!(
        taken
            .iter()
            .all(|trace| trace.pid == heir.pid() && trace.attempt == 2),
        "{taken:?}"
    );
    assert_eq!(running(&mut redis, "own").await.len(), 4);
    (
        after.iter().min().copied().unwrap(),
        after.iter().max().copied().unwrap(),
    )
}

/// Waits until workers that don't know these entries have released so many, and none holds one.
async fn until_given_back(redis: &mut MultiplexedConnection, count: usize) {
    eventually(
        PATIENCE,
        "the older workers to have given them back",
        async || {
            let parked: usize = redis.zcard("{jobs}:workers:retry").await.unwrap();
            let unknown: usize = redis.zcard("{jobs}:workers:waiting").await.unwrap();
            if (parked, unknown) == (count, count) {
                Ok(())
            } else {
                Err(format!("{parked} parked, {unknown} of them listed"))
            }
        },
    )
    .await;
}

/// How often each entry that is parked was released.
async fn given_back(redis: &mut MultiplexedConnection) -> Vec<u32> {
    let records: Vec<String> = redis.hvals("{jobs}:workers:failures").await.unwrap();
    let times = |record: &String| record.split(' ').nth(1).unwrap().parse().unwrap();
    records.iter().map(times).collect()
}

/// Adds so many entries of a type that only the newer release knows, and as many of a version.
async fn add_newer(redis: &mut MultiplexedConnection, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        for (event_type, version) in [(Fresh::TYPE, "1"), (Job::TYPE, "2")] {
            let id = format!("{event_type}-{n}");
            let data = format!("{{\"id\":\"{id}\"}}");
            let event = fields(&[
                ("type", event_type),
                ("schemaversion", version),
                ("data", &data),
            ]);
            add(redis, "jobs", &event).await;
            ids.push(id);
        }
    }
    ids
}

on_both_servers! {
    /// Between two renewals of the longer lease an entry is idle for many of the shorter.
    async fn workers_of_different_leases_take_over_by_the_holders_and_only_from_the_dead(server: Server) {
        let (from_short, from_long) = tokio::join!(
            takeover(&server, "short", SHORT, LONG),
            takeover(&server, "long", LONG, SHORT),
        );
        // A look takes a second at most, and a busy machine some more.
        let look = Duration::from_secs(3);
        assert!(from_short.1 <= SHORT + look, "{from_short:?}");
        // The last renewal may have been a third of the lease before the death.
        let least = LONG * 2 / 3 - Duration::from_millis(300);
        assert!(from_long.0 >= least && from_long.1 <= LONG + look, "{from_long:?}");
    }

    /// The older workers are replaced one by one while such entries come in.
    async fn what_only_newer_workers_handle_reaches_them_and_uses_up_no_attempt(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).retry("max_attempts = 2");
        let mut older = vec![setup.start(), setup.start()];
        let known = many("known", 10, &Action::Succeed);
        let mut expected: Vec<String> = Vec::new();
        for n in 0..20 {
            for (event_type, version) in [(Fresh::TYPE, "1"), (Job::TYPE, "2")] {
                let id = format!("{event_type}-{n}");
                let data = format!("{{\"id\":\"{id}\"}}");
                let event = fields(&[("type", event_type), ("schemaversion", version), ("data", &data)]);
                add(&mut redis, "jobs", &event).await;
                expected.push(format!("{id} 1"));
            }
        }
        jobs::publish(&mut redis, "jobs", &known).await;
        until_given_back(&mut redis, expected.len()).await;
        eventually(PATIENCE, "what they know to be handled", async || {
            jobs::handled(&mut redis).await.len() == known.len()
        })
        .await;

        let mut fleet = vec![setup.start_with(newer())];
        while let Some(worker) = older.pop() {
            worker.stop().await;
            fleet.push(setup.start_with(newer()));
        }
        settled(&mut redis, "jobs", PATIENCE).await;
        let mut handled: Vec<String> = redis.lrange(HANDLED, 0, -1).await.unwrap();
        handled.sort();
        expected.sort();
        assert_eq!(handled, expected);
        assert_eq!(entries(&mut redis, "{jobs}:workers:dead").await, []);
        assert_eq!(pending(&mut redis, "jobs").await, []);
        for worker in fleet {
            worker.stop().await;
        }
    }

    /// Three that know neither, and one that comes after a while.
    async fn a_worker_that_knows_what_others_gave_back_gets_all_of_it_at_once(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server);
        let older = [setup.start(), setup.start(), setup.start()];
        let expected = add_newer(&mut redis, 100).await;
        until_given_back(&mut redis, expected.len()).await;
        // Longer than the shortest steps in which they could go round.
        let since = Instant::now();
        eventually(PATIENCE, "some time to pass", async || since.elapsed() > Duration::from_secs(2)).await;
        assert_eq!(given_back(&mut redis).await, [1; 200], "they go round among workers that don't know them");

        let since = Instant::now();
        let newer_one = setup.start_with(newer());
        settled(&mut redis, "jobs", PATIENCE).await;
        let took = since.elapsed();
        println!("handled within {took:?}");
        assert!(took < Duration::from_secs(4), "after {took:?}");
        let handled: Vec<String> = redis.lrange(HANDLED, 0, -1).await.unwrap();
        assert_eq!(handled.len(), expected.len());
        // What comes from now on is with it within a second, whoever reads it.
        add_newer(&mut redis, 10).await;
        settled(&mut redis, "jobs", Duration::from_secs(4)).await;
        assert_eq!(entries(&mut redis, "{jobs}:workers:dead").await, []);
        for key in ["waiting", "retry", "failures"] {
            let left: bool = redis.exists(format!("{{jobs}}:workers:{key}")).await.unwrap();
            assert!(!left, "{key} is left");
        }
        newer_one.stop().await;
        for worker in older {
            worker.stop().await;
        }
    }

    async fn what_no_worker_ever_knows_is_buried_and_leaves_nothing(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).worker("unhandled_after = \"2s\"").worker("lease = \"1s\"");
        let workers = [setup.start(), setup.start()];
        let all = add_newer(&mut redis, 5).await;
        until_given_back(&mut redis, all.len()).await;
        settled(&mut redis, "jobs", Duration::from_secs(10)).await;
        let dead = entries(&mut redis, "{jobs}:workers:dead").await;
        assert_eq!(dead.len(), all.len());
        for letter in &dead {
            let is_unhandled = letter
                .fields
                .iter()
                .any(|(name, value)| name == "dead.reason" && value == "unhandled");
            assert!(is_unhandled, "{letter:?}");
        }
        eventually(PATIENCE, "nothing to be left", async || {
            let left: usize = redis.exists(&["{jobs}:workers:waiting", "{jobs}:workers:retry", "{jobs}:workers:failures"]).await.unwrap();
            left == 0
        })
        .await;
        for worker in workers {
            worker.stop().await;
        }
    }

    /// The group is destroyed, and the list of what waits is gone.
    async fn what_waits_for_a_newer_worker_outlives_other_hands(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).worker("lease = \"1s\"");
        let older = setup.start();
        let expected = add_newer(&mut redis, 10).await;
        until_given_back(&mut redis, expected.len()).await;
        let () = redis::cmd("XGROUP").arg("DESTROY").arg("jobs").arg("workers").query_async(&mut redis).await.unwrap();
        let newer_one = setup.start_with(newer());
        settled(&mut redis, "jobs", PATIENCE).await;
        let handled: Vec<String> = redis.lrange(HANDLED, 0, -1).await.unwrap();
        let handled: std::collections::BTreeSet<&str> =
            handled.iter().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(handled.len(), expected.len(), "each at least once");
        assert_eq!(entries(&mut redis, "{jobs}:workers:dead").await, []);
        older.stop().await;
        newer_one.stop().await;
    }

    /// The worker that took them is killed while it handles them.
    async fn a_crash_of_the_worker_that_knows_them_loses_nothing(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).worker("lease = \"1s\"");
        let older = setup.start_with(Registry::new());
        let all = many("job", 10, &Action::TakeOrLess(60_000, 10));
        jobs::publish(&mut redis, "jobs", &all).await;
        until_given_back(&mut redis, all.len()).await;
        let mut first = setup.process();
        eventually(PATIENCE, "it to handle them", async || jobs::started(&mut redis).await.len() == all.len()).await;
        first.kill();
        let second = setup.process();
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::handled(&mut redis).await.len(), all.len());
        assert_eq!(entries(&mut redis, "{jobs}:workers:dead").await, []);
        drop(second);
        older.stop().await;
    }
}
