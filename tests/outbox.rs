//! What is emitted to a stream of another slot gets there by an outbox, once, in its order, whatever happens on the way.

use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use streamhand::{Context, Event, Failure, Registry};

use crate::effects::cluster::cluster;
use crate::support::jobs::{self, Action, Job};
use crate::support::{
    Cli, Entry, Kind, Proxy, Server, Setup, WorkerProcess, dead, entries, eventually, run_worker,
    scripts, settled,
};

const PATIENCE: Duration = Duration::from_secs(40);
const OUTBOX: &str = "{jobs}:outbox";
const TURNS: &str = "{jobs}:outbox:turns";
const WAITING: &str = "{jobs}:outbox:to:far";

#[derive(Serialize, Deserialize)]
struct Done {
    id: String,
}

impl Event for Done {
    const TYPE: &'static str = "test.done";
}

/// Emits two events to one stream, and one to another.
async fn emit(job: Job, ctx: Context) -> Result<(), Failure> {
    let done = |nth: &str| Done {
        id: format!("{}-{nth}", job.id),
    };
    ctx.emit("far", done("a"));
    ctx.emit("farther", done("a"));
    ctx.emit("far", done("b"));
    Ok(())
}

fn registry() -> Registry {
    Registry::new().on(emit)
}

/// A worker in a process of its own that emits.
#[test]
#[ignore = "run by other tests"]
fn emitting_worker_process() {
    run_worker(registry());
}

/// What is reached through this is reached through this alone, whoever asks where a slot is.
async fn behind(server: &Server, redis: &mut MultiplexedConnection) -> Proxy {
    let proxy = Proxy::start(server.port()).await;
    let announced = [
        ("cluster-announce-ip", "127.0.0.1".to_owned()),
        ("cluster-announce-port", proxy.port().to_string()),
    ];
    for (name, value) in announced {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg(name).arg(value);
        let _: () = set.query_async(redis).await.unwrap();
    }
    proxy
}

async fn publish(redis: &mut MultiplexedConnection, from: usize, to: usize) {
    let job = |nth| Job::new(format!("job-{nth:03}"), Action::Succeed);
    let jobs: Vec<Job> = (from..to).map(job).collect();
    jobs::publish(redis, "jobs", &jobs).await;
}

fn field(entry: &Entry, name: &str) -> String {
    let value = entry.fields.iter().find(|(n, _)| n == name);
    value.map_or(String::new(), |(_, value)| {
        String::from_utf8_lossy(value).into_owned()
    })
}

/// The jobs that emitted what stands in a stream, in its order.
async fn done(redis: &mut MultiplexedConnection, stream: &str) -> Vec<String> {
    let entries = entries(redis, stream).await;
    let event = |entry: Entry| streamhand::Envelope::decode(entry.into()).map_err(|(_, why)| why);
    let ids = entries.into_iter().map(|entry| {
        let done: Done = event(entry).unwrap().decode_data().unwrap();
        done.id
    });
    ids.collect()
}

/// Waits until so many jobs' emits are where they belong, each once, those of one job in their order; and nothing is left.
async fn all_there(redis: &mut MultiplexedConnection, jobs: usize) {
    settled(redis, "jobs", PATIENCE).await;
    eventually(PATIENCE, "all emitted events", async || {
        let there = (done(redis, "far").await, done(redis, "farther").await);
        match (there.0.len() >= 2 * jobs, there.1.len() >= jobs) {
            (true, true) => Ok(()),
            _ => Err(format!("{} and {}", there.0.len(), there.1.len())),
        }
    })
    .await;
    eventually(PATIENCE, "an empty outbox", async || left(redis).await == 0).await;
    let far = done(redis, "far").await;
    let mut sorted = far.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), far.len(), "twice: {far:?}");
    for (a, id) in far.iter().enumerate() {
        if let Some(job) = id.strip_suffix("-a") {
            let b = far.iter().position(|other| *other == format!("{job}-b"));
            assert!(b.is_some_and(|b| a < b), "{job}: {far:?}");
        }
    }
    assert_eq!(
        (far.len(), done(redis, "farther").await.len()),
        (2 * jobs, jobs)
    );
    assert_eq!(dead(redis).await, 0);
}

/// How many keys of the outbox there are.
async fn left(redis: &mut MultiplexedConnection) -> usize {
    let mut exists = 0;
    for key in [OUTBOX, WAITING, "{jobs}:outbox:to:farther", TURNS] {
        exists += usize::from(redis.exists::<_, bool>(key).await.unwrap());
    }
    exists
}

on_both_servers! {
    async fn what_is_emitted_to_another_slot_gets_there_once_and_says_the_same(kind: Kind) {
        let server = cluster(kind).await;
        let mut redis = server.connect().await;
        let worker = Setup::new(&server).start_with(registry());
        let fields = ["type", Job::TYPE, "id", "e-1", "subject", "s-1", "data", r#"{"id":"job-000","action":"succeed"}"#];
        let _: String = redis::cmd("XADD").arg("jobs").arg("*").arg(&fields).query_async(&mut redis).await.unwrap();
        publish(&mut redis, 1, 250).await;
        all_there(&mut redis, 250).await;
        let far = entries(&mut redis, "far").await;
        let first = far.iter().find(|entry| field(entry, "causationid") == "e-1").expect("what the first one emitted");
        assert_eq!((field(first, "source"), field(first, "subject")), ("workers".into(), "s-1".into()));
        assert!(far.iter().all(|entry| entry.fields.iter().all(|(name, _)| name != "outbox.mark")));
        assert_eq!(worker.stop().await.settled, 250);
    }

    /// Each request of the way is lost, and each reply.
    async fn a_lost_request_or_reply_on_the_way_costs_nothing_and_doubles_nothing(kind: Kind) {
        let server = cluster(kind).await;
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = behind(&server, &mut redis).await;
        let worker = Setup::at(proxy.url()).start_with(registry());
        publish(&mut redis, 0, 1).await;
        all_there(&mut redis, 1).await;
        let mut jobs = 1;
        for script in ["commit", "outbox_take", "outbox_add", "outbox_done"] {
            for is_reply in [false, true] {
                let of = scripts::call(script);
                let caught = match is_reply {
                    false => proxy.cut_before(of),
                    true => proxy.cut_after(of),
                };
                publish(&mut redis, jobs, jobs + 5).await;
                jobs += 5;
                caught.within(PATIENCE).await;
                all_there(&mut redis, jobs).await;
            }
        }
        assert_eq!(worker.stop().await.unsettled, 0);
    }

    /// Its commit is done; it dies before it has relayed anything, when it has added, and before it has taken off.
    async fn what_a_dead_worker_left_in_the_outbox_is_relayed_by_another_group(kind: Kind) {
        let server = cluster(kind).await;
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let mut jobs = 0;
        for script in ["outbox_take", "outbox_add", "outbox_done"] {
            let proxy = behind(&server, &mut redis).await;
            let process = WorkerProcess::builder().test("outbox::emitting_worker_process");
            let mut process = process.config(&Setup::at(proxy.url()).toml()).start();
            let held = proxy.hold_request(scripts::call(script));
            publish(&mut redis, jobs, jobs + 3).await;
            jobs += 3;
            settled(&mut redis, "jobs", PATIENCE).await;
            let late = held.within(PATIENCE).await;
            process.kill();
            assert!(left(&mut redis).await > 0);
            let announced = server.port().to_string();
            let mut set = redis::cmd("CONFIG");
            set.arg("SET").arg("cluster-announce-port").arg(announced);
            let _: () = set.query_async(&mut redis).await.unwrap();
            let other = Setup::new(&server).worker("group = \"others\"").worker("start = \"end\"");
            let other = other.start_with(Registry::new().ignore(Job::TYPE));
            all_there(&mut redis, jobs).await;
            drop(late);
            other.stop().await;
        }
    }

    /// Its request comes when another has relayed all of it, and more.
    async fn a_relay_that_is_frozen_past_its_turn_adds_nothing_twice_and_takes_nothing_off(kind: Kind) {
        let server = cluster(kind).await;
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = behind(&server, &mut redis).await;
        for (nth, script) in ["outbox_add", "outbox_done"].into_iter().enumerate() {
            let jobs = 5 * nth;
            // Each begins anew: one that has met the server itself meanwhile goes on there.
            let process = WorkerProcess::builder().test("outbox::emitting_worker_process");
            let mut process = process.config(&Setup::at(proxy.url()).toml()).start();
            publish(&mut redis, jobs, jobs + 1).await;
            all_there(&mut redis, jobs + 1).await;
            let held = proxy.hold_request(scripts::call(script));
            let jobs = jobs + 1;
            publish(&mut redis, jobs, jobs + 2).await;
            let late = held.within(PATIENCE).await;
            settled(&mut redis, "jobs", PATIENCE).await;
            process.freeze();
            let mut set = redis::cmd("CONFIG");
            set.arg("SET").arg("cluster-announce-port").arg(server.port());
            let _: () = set.query_async(&mut redis).await.unwrap();
            let other = Setup::new(&server).start_with(registry());
            publish(&mut redis, jobs + 2, jobs + 4).await;
            all_there(&mut redis, jobs + 4).await;
            late.now();
            process.thaw();
            other.stop().await;
            all_there(&mut redis, jobs + 4).await;
            let mut set = redis::cmd("CONFIG");
            set.arg("SET").arg("cluster-announce-port").arg(proxy.port());
            let _: () = set.query_async(&mut redis).await.unwrap();
        }
    }

    /// One stream can't be added to: what is for another goes on, and somebody hears of it.
    async fn a_stream_that_refuses_holds_up_only_what_is_for_it(kind: Kind) {
        let server = cluster(kind).await;
        let mut redis = server.connect().await;
        let _: () = redis.set("far", "in the way").await.unwrap();
        let process = WorkerProcess::builder().test("outbox::emitting_worker_process");
        let mut process = process.config(&Setup::new(&server).toml()).start();
        publish(&mut redis, 0, 5).await;
        eventually(PATIENCE, "the other stream's", async || done(&mut redis, "farther").await.len() == 5).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let line = process.wait_for_log("what was emitted to \"far\" waits in the outbox", PATIENCE).await;
        assert!(line.contains("WRONGTYPE"), "{line}");
        assert_eq!(redis.xlen::<_, u64>(WAITING).await.unwrap(), 10);
        let cli = Cli::new(&server, "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]");
        let status = cli.run(&["status"]).await;
        assert!(status.out.contains("jobs: 10 events emitted to \"far\" in the outbox, the first for "), "{status:?}");
        assert!(status.out.contains("refused for ") && status.out.contains("WRONGTYPE"), "{status:?}");
        let _: () = redis.del("far").await.unwrap();
        all_there(&mut redis, 5).await;
        process.wait_for_log("is relayed again", PATIENCE).await;
    }

    /// Nobody knew for longer than marks are kept whether it had been added.
    async fn what_may_be_there_twice_is_said(kind: Kind) {
        let server = cluster(kind).await;
        let mut redis = server.connect().await;
        let _: () = redis.set("far", "in the way").await.unwrap();
        let worker = Setup::new(&server).start_with(registry());
        publish(&mut redis, 0, 1).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        eventually(PATIENCE, "a refusal", async || redis.hexists::<_, _, bool>(TURNS, "why:far").await.unwrap()).await;
        worker.stop().await;
        let waiting = entries(&mut redis, WAITING).await;
        let (seconds, _): (u64, u64) = redis::cmd("TIME").query_async(&mut redis).await.unwrap();
        let sent = format!("{} {} {}", waiting[0].id, waiting[0].id, (seconds - 25 * 60 * 60) * 1000);
        let _: () = redis.hset(TURNS, "sent:far", sent).await.unwrap();
        let _: () = redis.del("far").await.unwrap();
        let process = WorkerProcess::builder().test("outbox::emitting_worker_process");
        let mut process = process.config(&Setup::new(&server).toml()).start();
        let line = process.wait_for_log("MAY BE THERE TWICE", PATIENCE).await;
        assert!(line.contains("far") && line.contains("count=1") && line.contains("1d 1h"), "{line}");
        all_there(&mut redis, 1).await;
    }
}
