//! Events of one subject are handled one after the other, in the order of the stream, across the fleet: while they fail,
//! while workers die, freeze, come and go. Other subjects are not held up by that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use streamhand::{Context, Failure, Registry};

use crate::support::jobs::{self, Action, Job};
use crate::support::{Cli, Server, Setup, WorkerProcess, dead, eventually, parked, settled};

const PATIENCE: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(1);

fn setup(server: &Server) -> Setup {
    Setup::new(server)
        .worker("lease = \"1s\"")
        .stream("order = \"subject\"")
        .retry("max_attempts = 20")
}

/// The event with this number of a subject.
fn event(subject: &str, number: usize, action: Action) -> Job {
    Job::new(format!("{subject}/{number}"), action)
}

/// Adds events to a stream, each with its subject.
async fn publish(redis: &mut MultiplexedConnection, stream: &str, events: &[Job]) {
    for chunk in events.chunks(1000) {
        let mut pipe = redis::pipe();
        for event in chunk {
            let (subject, _) = event.id.split_once('/').expect("a subject");
            let data = serde_json::to_string(event).expect("JSON");
            pipe.cmd("XADD").arg(stream).arg("*");
            pipe.arg("type").arg("test.job").arg("data").arg(data);
            pipe.arg("subject").arg(subject).ignore();
        }
        let _: () = pipe.query_async(redis).await.expect("events to be added");
    }
}

fn place(id: &str) -> (String, usize) {
    let (subject, number) = id.split_once('/').expect("a subject and a number");
    (subject.to_owned(), number.parse().expect("a number"))
}

/// Whether all that was started of each subject was started in order, each after the one before it had ended.
pub async fn assert_in_order(redis: &mut MultiplexedConnection) {
    let mut ended: BTreeMap<(String, usize), u64> = BTreeMap::new();
    for trace in jobs::ended(redis).await {
        let first = ended.entry(place(&trace.id)).or_insert(trace.at);
        *first = trace.at.min(*first);
    }
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    // What a worker notes when it has just been frozen comes late.
    let mut started = jobs::started(redis).await;
    started.sort_by_key(|trace| trace.at);
    for trace in started {
        let (subject, number) = place(&trace.id);
        let last = last.entry(subject.clone()).or_default();
        assert!(
            number >= *last,
            "{} was started after {subject}/{last}",
            trace.id
        );
        if number > *last {
            let before = ended.get(&(subject.clone(), number - 1));
            assert_eq!(number, *last + 1, "{subject}: one was left out");
            assert!(
                number == 1 || before.is_some_and(|ended| *ended <= trace.at),
                "{} was started before the one before it had ended",
                trace.id
            );
        }
        *last = number;
    }
}

pub async fn all_ended(redis: &mut MultiplexedConnection, events: &[Job]) {
    let all = jobs::ids(events);
    eventually(PATIENCE, "all events to be handled", async || {
        let handled = jobs::handled(redis).await;
        let missing: Vec<_> = all.iter().filter(|id| !handled.contains_key(*id)).collect();
        missing.is_empty().then_some(()).ok_or(format!(
            "{} are missing, of them {:?}",
            missing.len(),
            missing.first()
        ))
    })
    .await;
}

/// Rounds of events of many subjects, of which every third fails at first.
fn rounds(subjects: usize, from: usize, to: usize) -> Vec<Job> {
    let action = |subject: usize, number: usize| match (subject + number) % 3 {
        0 => Action::Fail(1),
        1 => Action::Take(3),
        _ => Action::Succeed,
    };
    let round =
        |number| (0..subjects).map(move |of| event(&format!("s{of}"), number, action(of, number)));
    (from..=to).flat_map(round).collect()
}

/// Which process runs what is started last.
async fn owner(redis: &mut MultiplexedConnection, stream: &str) -> String {
    let owner: Option<String> = redis
        .hget(format!("{{{stream}}}:workers:order"), "owner")
        .await
        .expect("a hash, or nothing");
    owner.unwrap_or_default()
}

/// Waits until somebody has the stream.
async fn owned(redis: &mut MultiplexedConnection, stream: &str) -> String {
    eventually(PATIENCE, "a worker to have the stream", async || {
        Some(owner(redis, stream).await)
            .filter(|owner| !owner.is_empty())
            .ok_or("nobody has it")
    })
    .await
}

on_both_servers! {
    /// Two streams, several workers: one is killed, one is frozen for longer than its lease, one comes later.
    async fn a_subject_stays_in_order_through_failures_deaths_and_frozen_workers(server: Server) {
        let mut redis = server.connect().await;
        let setup = setup(&server);
        let mut fleet: Vec<WorkerProcess> = (0..3).map(|_| setup.process()).collect();
        let mut all = rounds(30, 1, 4);
        publish(&mut redis, "jobs", &all).await;
        eventually(PATIENCE, "some to be handled", async || jobs::ended(&mut redis).await.len() >= 20).await;
        let of = |redis: &mut MultiplexedConnection| {
            let mut redis = redis.clone();
            async move { jobs::started(&mut redis).await.last().map_or(0, |trace| trace.pid) }
        };
        let pid = of(&mut redis).await;
        let first = fleet.iter_mut().find(|worker| worker.pid() == pid).expect("one of them");
        first.kill();
        let more = rounds(30, 5, 8);
        publish(&mut redis, "jobs", &more).await;
        all.extend(more);
        eventually(PATIENCE, "another to go on", async || of(&mut redis).await != pid).await;
        let pid = of(&mut redis).await;
        let second = fleet.iter_mut().find(|worker| worker.pid() == pid).expect("one of them");
        second.freeze();
        let more = rounds(30, 9, 12);
        publish(&mut redis, "jobs", &more).await;
        all.extend(more);
        eventually(PATIENCE, "the third to go on", async || of(&mut redis).await != pid).await;
        let second = fleet.iter_mut().find(|worker| worker.pid() == pid).expect("one of them");
        second.thaw();
        fleet.push(setup.process());
        let more = rounds(30, 13, 16);
        publish(&mut redis, "jobs", &more).await;
        all.extend(more);
        all_ended(&mut redis, &all).await;
        assert_in_order(&mut redis).await;
        settled(&mut redis, "jobs", PATIENCE).await;
    }

    /// What a frozen owner's read brings after its lease has lapsed comes before what the next owner reads.
    async fn what_a_frozen_owner_reads_late_is_not_passed(server: Server) {
        let mut redis = server.connect().await;
        let setup = setup(&server);
        let mut first = setup.process();
        owned(&mut redis, "jobs").await;
        publish(&mut redis, "jobs", &[event("a", 1, Action::Succeed)]).await;
        all_ended(&mut redis, &[event("a", 1, Action::Succeed)]).await;
        let before = owned(&mut redis, "jobs").await;
        // Whoever has it now is frozen, in a read that blocks.
        let mut second = setup.process();
        tokio::time::sleep(LEASE).await;
        let now = owned(&mut redis, "jobs").await;
        let frozen = if now == before { &mut first } else { &mut second };
        frozen.freeze();
        let all: Vec<Job> = (2..=40).map(|n| event("a", n, Action::Succeed)).collect();
        for event in &all {
            publish(&mut redis, "jobs", std::slice::from_ref(event)).await;
        }
        all_ended(&mut redis, &all).await;
        frozen.thaw();
        let more: Vec<Job> = (41..=60).map(|n| event("a", n, Action::Fail(1))).collect();
        publish(&mut redis, "jobs", &more).await;
        all_ended(&mut redis, &more).await;
        assert_in_order(&mut redis).await;
        settled(&mut redis, "jobs", PATIENCE).await;
    }

    /// More events than a worker may hold wait behind one that fails; all others go on at once, and those that waited
    /// have used up no attempt.
    async fn a_subject_that_fails_holds_up_no_other(server: Server) {
        let mut redis = server.connect().await;
        let setup = setup(&server)
            .worker("prefetch = 32")
            .retry("backoff = { initial = \"3s\", factor = 1.0, jitter = 0.0 }");
        let mut stuck = vec![event("stuck", 1, Action::Fail(1))];
        stuck.extend((2..=200).map(|n| event("stuck", n, Action::Succeed)));
        let others: Vec<Job> = (0..50).map(|n| event(&format!("s{n}"), 1, Action::Succeed)).collect();
        publish(&mut redis, "jobs", &stuck).await;
        publish(&mut redis, "jobs", &others).await;
        let _worker = setup.process();
        all_ended(&mut redis, &others).await;
        let handled = jobs::handled(&mut redis).await;
        assert!(!handled.contains_key("stuck/1"), "the others have waited for it");
        all_ended(&mut redis, &stuck).await;
        assert_in_order(&mut redis).await;
        for trace in jobs::started(&mut redis).await {
            assert_eq!(trace.attempt, if trace.id == "stuck/1" && trace.attempt == 2 { 2 } else { 1 }, "{}", trace.id);
        }
        settled(&mut redis, "jobs", PATIENCE).await;
    }

    /// Streams go from worker to worker as those come and go. Nothing runs twice, and what runs for long holds up only
    /// its own subject.
    async fn streams_are_handed_over_without_a_repeat(server: Server) {
        let mut redis = server.connect().await;
        // So many that each of two workers is sure to be the first for some: who that is goes by a hash.
        let streams: Vec<String> = (0..16).map(|n| format!("stream-{n}")).collect();
        let order: String = streams.iter().map(|of| format!("[streams.{of}]\norder = \"subject\"\n")).collect();
        let setup = Setup::new(&server)
            .worker("lease = \"1s\"")
            .worker(&format!("streams = {streams:?}"))
            .more(&order);
        let mut first = setup.process();
        for stream in &streams {
            owned(&mut redis, stream).await;
        }
        let mut all = Vec::new();
        let mut round = async |redis: &mut MultiplexedConnection, number: usize, action: &Action| {
            for (at, stream) in streams.iter().enumerate() {
                let of = |subject| event(&format!("{at}-{subject}"), number, action.clone());
                let events: Vec<Job> = (0..2).map(of).collect();
                publish(redis, stream, &events).await;
                all.extend(events);
            }
            all.clone()
        };
        round(&mut redis, 1, &Action::Take(4_000)).await;
        eventually(PATIENCE, "all to run", async || jobs::started(&mut redis).await.len() == 32).await;
        let second = setup.process();
        let before = owner(&mut redis, &streams[0]).await;
        let mut numbers = 2..;
        // While the first's handlers still run.
        eventually(PATIENCE, "the second to have some", async || {
            for stream in &streams {
                let owner = owner(&mut redis, stream).await;
                if !owner.is_empty() && owner != before {
                    return Ok(());
                }
            }
            Err("the first has them all")
        })
        .await;
        assert!(jobs::ended(&mut redis).await.is_empty(), "it was handed over once nothing ran any more");
        for _ in 0..20 {
            round(&mut redis, numbers.next().expect("more"), &Action::Take(5)).await;
        }
        first.terminate();
        let mut so_far = Vec::new();
        for _ in 0..20 {
            so_far = round(&mut redis, numbers.next().expect("more"), &Action::Succeed).await;
        }
        all_ended(&mut redis, &so_far).await;
        assert_in_order(&mut redis).await;
        assert!(jobs::handled(&mut redis).await.values().all(|times| *times == 1));
        assert!(jobs::started(&mut redis).await.iter().any(|trace| trace.pid == second.pid()));
    }

    /// A dead letter holds its subject and no other, whoever has the stream; replayed, it comes before those that have
    /// waited.
    async fn a_dead_letter_holds_its_subject_until_it_is_replayed(server: Server) {
        let mut redis = server.connect().await;
        let setup = setup(&server);
        let mended = Arc::new(AtomicBool::new(false));
        let epochs = Arc::new(Mutex::new(Vec::new()));
        let registry = || {
            let (mended, epochs) = (mended.clone(), epochs.clone());
            Registry::new().on(move |job: Job, ctx: Context| {
                let (mended, epochs) = (mended.clone(), epochs.clone());
                async move {
                    let fence = ctx.fence().map(|fence| (fence.partition.to_owned(), fence.epoch));
                    epochs.lock().expect("no panic").push(fence);
                    if job.id == "a/2" && !mended.load(Ordering::SeqCst) {
                        return Err(Failure::permanent("broken"));
                    }
                    jobs::handle(job, ctx).await
                }
            })
        };
        let first = setup.start_with(registry());
        let held: Vec<Job> = (1..=5).map(|n| event("a", n, Action::Succeed)).collect();
        publish(&mut redis, "jobs", &held).await;
        let others = |number| -> Vec<Job> { (0..20).map(|n| event(&format!("s{n}"), number, Action::Succeed)).collect() };
        publish(&mut redis, "jobs", &others(1)).await;
        all_ended(&mut redis, &others(1)).await;
        eventually(PATIENCE, "a dead letter", async || dead(&mut redis).await == 1).await;
        first.stop().await;
        // Another one knows as well.
        let second = setup.start_with(registry());
        publish(&mut redis, "jobs", &[event("a", 6, Action::Succeed)]).await;
        publish(&mut redis, "jobs", &others(2)).await;
        all_ended(&mut redis, &others(2)).await;
        eventually(PATIENCE, "what is held to be parked", async || parked(&mut redis).await == 4).await;
        let handled = jobs::handled(&mut redis).await;
        let of_a: Vec<_> = handled.keys().filter(|id| id.starts_with("a/")).collect();
        assert_eq!(of_a, ["a/1"]);
        mended.store(true, Ordering::SeqCst);
        Cli::new(&server, "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n").run(&["dlq", "replay", "--all"]).await.ok();
        publish(&mut redis, "jobs", &[event("a", 7, Action::Succeed)]).await;
        let all: Vec<Job> = (1..=7).map(|n| event("a", n, Action::Succeed)).collect();
        all_ended(&mut redis, &all).await;
        assert_in_order(&mut redis).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        second.stop().await;
        let epochs = epochs.lock().expect("no panic").clone();
        let epochs: Vec<(String, u64)> = epochs.into_iter().map(|fence| fence.expect("a fence")).collect();
        assert!(epochs.iter().all(|(partition, _)| partition == "jobs"));
        assert!(epochs.is_sorted() && epochs.first() < epochs.last(), "{epochs:?}");
    }

    async fn released_a_subject_goes_on_behind_a_dead_letter(server: Server) {
        let mut redis = server.connect().await;
        let setup = setup(&server).stream("on_dead = \"release\"");
        let mut all = vec![event("a", 1, Action::FailForGood)];
        all.extend((2..=5).map(|n| event("a", n, Action::Succeed)));
        publish(&mut redis, "jobs", &all).await;
        let _worker = setup.start();
        all_ended(&mut redis, &all[1..]).await;
        assert_eq!(dead(&mut redis).await, 1);
    }

    /// A stream without an order has no owner, and events of one subject run side by side.
    async fn without_an_order_nothing_is_different(server: Server) {
        let mut redis = server.connect().await;
        let all: Vec<Job> = (1..=10).map(|n| event("a", n, Action::Take(500))).collect();
        publish(&mut redis, "jobs", &all).await;
        let worker = Setup::new(&server).start();
        eventually(PATIENCE, "all to run at once", async || {
            jobs::started(&mut redis).await.len() == all.len() && jobs::ended(&mut redis).await.is_empty()
        })
        .await;
        worker.stop().await;
        let keys: Vec<String> = redis.keys("*:order").await.expect("keys");
        assert_eq!(keys, [""; 0]);
    }

    /// What still runs when a stream is handed over, and dies then, holds its subject with the next owner as well: also
    /// what was replayed of it comes first.
    async fn what_dies_with_the_owner_before_holds_its_subject(server: Server) {
        let mut redis = server.connect().await;
        let setup = setup(&server);
        let (fails, mended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let registry = || {
            let (fails, mended) = (fails.clone(), mended.clone());
            Registry::new().on(move |job: Job, ctx: Context| {
                let (fails, mended) = (fails.clone(), mended.clone());
                async move {
                    while job.id == "a/1" && !mended.load(Ordering::SeqCst) {
                        if fails.load(Ordering::SeqCst) {
                            return Err(Failure::permanent("broken"));
                        }
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    jobs::handle(job, ctx).await
                }
            })
        };
        let mut fleet = vec![setup.start_with(registry())];
        let before = owned(&mut redis, "jobs").await;
        publish(&mut redis, "jobs", &[event("a", 1, Action::Succeed)]).await;
        eventually(PATIENCE, "it to run", async || {
            let pending: redis::Value = redis.xpending("jobs", "workers").await.unwrap();
            format!("{pending:?}").contains("int(1)")
        })
        .await;
        // Whichever of them should have it.
        while owned(&mut redis, "jobs").await == before {
            assert!(fleet.len() < 12, "none of them should have it");
            fleet.push(setup.start_with(registry()));
            let until = std::time::Instant::now() + LEASE;
            while owner(&mut redis, "jobs").await == before && std::time::Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        publish(&mut redis, "jobs", &[event("a", 2, Action::Succeed), event("b", 1, Action::Succeed)]).await;
        all_ended(&mut redis, &[event("b", 1, Action::Succeed)]).await;
        fails.store(true, Ordering::SeqCst);
        eventually(PATIENCE, "a dead letter", async || dead(&mut redis).await == 1).await;
        // For longer than it takes to look what has become of what others wait for.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(!jobs::handled(&mut redis).await.contains_key("a/2"), "it has passed a dead letter");
        mended.store(true, Ordering::SeqCst);
        Cli::new(&server, "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n").run(&["dlq", "replay", "--all"]).await.ok();
        all_ended(&mut redis, &[event("a", 2, Action::Succeed)]).await;
        assert_in_order(&mut redis).await;
        settled(&mut redis, "jobs", PATIENCE).await;
    }

    /// A purge lets a subject go on; if it is undone the letter holds what comes from then on.
    async fn a_letter_that_was_purged_and_brought_back_holds_its_subject_again(server: Server) {
        let mut redis = server.connect().await;
        let setup = setup(&server);
        let mended = Arc::new(AtomicBool::new(false));
        let is_mended = mended.clone();
        let registry = Registry::new().on(move |job: Job, ctx: Context| {
            let is_mended = is_mended.clone();
            async move {
                if job.id == "a/1" && !is_mended.load(Ordering::SeqCst) {
                    return Err(Failure::permanent("broken"));
                }
                jobs::handle(job, ctx).await
            }
        });
        let _worker = setup.start_with(registry);
        publish(&mut redis, "jobs", &[event("a", 1, Action::Succeed), event("a", 2, Action::Succeed)]).await;
        eventually(PATIENCE, "what is held to be parked", async || parked(&mut redis).await == 1 && dead(&mut redis).await == 1).await;
        let cli = Cli::new(&server, "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n[streams.jobs]\norder = \"subject\"\n");
        let said = cli.run(&["dlq", "purge", "--all", "--undo-within", "1h", "--yes"]).await.ok();
        all_ended(&mut redis, &[event("a", 2, Action::Succeed)]).await;
        let name = said.split('`').nth(1).and_then(|command| command.rsplit(' ').next()).expect("the command");
        cli.run(&["dlq", "undo", name]).await.ok();
        let held: usize = redis.hlen("{jobs}:workers:order:held").await.expect("a hash");
        assert_eq!(held, 1);
        // What comes before its worker has looked goes on; what comes then is held, and with it what follows.
        let mut last = 2;
        while parked(&mut redis).await == 0 {
            last += 1;
            publish(&mut redis, "jobs", &[event("a", last, Action::Succeed)]).await;
            let id = format!("a/{last}");
            eventually(PATIENCE, "it to be handled or held", async || {
                jobs::handled(&mut redis).await.contains_key(&id) || parked(&mut redis).await == 1
            })
            .await;
        }
        publish(&mut redis, "jobs", &[event("a", last + 1, Action::Succeed), event("b", 1, Action::Succeed)]).await;
        all_ended(&mut redis, &[event("b", 1, Action::Succeed)]).await;
        eventually(PATIENCE, "what is held to be parked", async || parked(&mut redis).await == 2).await;
        let said = cli.run(&["status"]).await.ok();
        assert!(said.contains("jobs: its events have an order; "), "{said}");
        assert!(said.contains("jobs: 1 dead letter holds its subject (\"a\")"), "{said}");
        let said = cli.run(&["status", "--json"]).await.ok();
        let status: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        let order = &status["streams"][0]["order"];
        assert_eq!((&order["held"], &order["subjects"], &order["workers"], &order["lapsed"]), (&1.into(), &serde_json::json!(["a"]), &1.into(), &false.into()), "{status}");
        assert!(order["owner"].as_str().is_some_and(|owner| owner.starts_with("sh")), "{status}");
        mended.store(true, Ordering::SeqCst);
        cli.run(&["dlq", "replay", "--all"]).await.ok();
        all_ended(&mut redis, &[event("a", 1, Action::Succeed), event("a", last + 1, Action::Succeed)]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
    }

    /// However many letters hold their subjects, each is looked at, and each that is gone is noted no more.
    async fn thousands_of_letters_that_hold_are_all_looked_at(server: Server) {
        let mut redis = server.connect().await;
        let mut pipe = redis::pipe();
        for n in 1..=2500 {
            let note = format!("1 {n}-0 s{n}");
            pipe.hset("{jobs}:workers:order:held", format!("{n}-0"), note).ignore();
            // Every other one is there.
            if n % 2 == 0 {
                pipe.xadd("{jobs}:workers:dead", format!("{n}-0"), &[("type", "test.job")]).ignore();
            }
        }
        let _: () = pipe.query_async(&mut redis).await.expect("letters");
        let _worker = setup(&server).start();
        eventually(PATIENCE, "those that are gone to be noted no more", async || {
            let held: usize = redis.hlen("{jobs}:workers:order:held").await.expect("a hash");
            (held == 1250).then_some(()).ok_or(held)
        })
        .await;
        publish(&mut redis, "jobs", &[event("s2500", 1, Action::Succeed), event("s2499", 1, Action::Succeed)]).await;
        all_ended(&mut redis, &[event("s2499", 1, Action::Succeed)]).await;
        eventually(PATIENCE, "what is held to be parked", async || parked(&mut redis).await == 1).await;
    }
}

/// How many events a second a worker handles of 10,000 subjects, with an order and without. Not a test of its own, for
/// a machine that is busy tells little: `cargo test --test behaviour throughput_of_many_subjects -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn throughput_of_many_subjects() {
    crate::support::run(crate::support::Kind::Redis, measure);
}

async fn measure(server: Server) {
    const SUBJECTS: usize = 10_000;
    let mut redis = server.connect().await;
    let mut took = [Duration::ZERO; 2];
    for round in 0..3 {
        for (kind, order) in [(0, ""), (1, "order = \"subject\"")] {
            let stream = format!("jobs-{round}-{kind}");
            let _: () = redis::cmd("XGROUP")
                .arg("CREATE")
                .arg(&stream)
                .arg("workers")
                .arg(0)
                .arg("MKSTREAM")
                .query_async(&mut redis)
                .await
                .expect("a group");
            for number in 1..=5 {
                let all: Vec<Job> = (0..SUBJECTS)
                    .map(|of| event(&format!("s{of}"), number, Action::Succeed))
                    .collect();
                publish(&mut redis, &stream, &all).await;
            }
            let handled = Arc::new(std::sync::atomic::AtomicUsize::new(0));
            let counts = handled.clone();
            let registry = Registry::new().on(move |_: Job, _: Context| {
                counts.fetch_add(1, Ordering::Relaxed);
                async { Ok::<(), Failure>(()) }
            });
            let settings = format!("[streams.{stream}]\n{order}\n");
            let worker = Setup::new(&server)
                .worker(&format!("streams = [{stream:?}]"))
                .more(&settings)
                .start_with(registry);
            let first = eventually(PATIENCE, "the first", async || {
                (handled.load(Ordering::Relaxed) > 0)
                    .then(std::time::Instant::now)
                    .ok_or(0)
            })
            .await;
            eventually(PATIENCE, "all of them", async || {
                let so_far = handled.load(Ordering::Relaxed);
                (so_far >= 5 * SUBJECTS).then_some(()).ok_or(so_far)
            })
            .await;
            took[kind] += first.elapsed();
            worker.stop().await;
        }
    }
    let rate = took.map(|took| (15 * SUBJECTS) as f64 / took.as_secs_f64());
    println!(
        "without an order {:.0} a second, with one {:.0}: {:.2}",
        rate[0],
        rate[1],
        rate[1] / rate[0]
    );
    assert!(rate[1] > 0.7 * rate[0], "{rate:?}");
}
