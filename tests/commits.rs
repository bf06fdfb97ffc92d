//! What a handler schedules, cancels and appends to aggregates is in the step that acknowledges its event, once, or not at
//! all.

mod refusals;
mod wire;

use std::time::{Duration, SystemTime};

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use streamhand::eventstore::{
    Aggregate, Append, EventStore, Expected, MemoryEventStore, PublicStreams, RedisEventStore,
    Repository,
};
use streamhand::{CommitError, Committed, Context, Envelope, Event, Failure, Publisher, Registry};

use crate::eventstore::orders::{Added, Created, Order, OrderEvent};
use crate::eventstore::{shelf::stored, store_of};
use crate::support::jobs::{self, Action, Job};
use crate::support::{Server, Setup, dead, entries, eventually, publisher, settled};

const PATIENCE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);
const DEAD: &str = "{jobs}:workers:dead";

async fn publish(redis: &mut MultiplexedConnection, ids: &[&str]) {
    let job = |id: &&str| Job::new(*id, Action::Succeed);
    jobs::publish(redis, "jobs", &ids.iter().map(job).collect::<Vec<_>>()).await;
}

/// What is scheduled for a job, and known by this id.
fn timer(id: &str) -> Envelope {
    let timer = Job::new(format!("timer of {id}"), Action::Succeed);
    let event = Envelope::new(Job::TYPE).with("id", format!("timer-{id}"));
    event.json(&timer).expect("JSON")
}

/// Does of everything something, under names of its job.
async fn all(job: Job, ctx: Context) -> Result<(), Failure> {
    ctx.cancel("jobs", &format!("old-{}", job.id));
    ctx.emit_envelope_after("jobs", timer(&job.id), HOUR);
    ctx.append::<Order>(&job.id, [Created { cents: 3 }], Expected::NoStream);
    ctx.emit_envelope("done", Envelope::new("test.done").json(&job.id)?);
    Ok(())
}

/// Schedules what the jobs cancel.
async fn schedule_old(publisher: &Publisher, ids: &[&str]) {
    for id in ids {
        let old = timer(id).with("id", format!("old-{id}"));
        let until = publisher.publish_envelope_after("jobs", old, HOUR);
        until.await.expect("it to be scheduled");
    }
}

async fn scheduled(publisher: &Publisher, stream: &str) -> Vec<String> {
    let mut events = publisher.scheduled(stream).expect("a stream");
    let mut ids = Vec::new();
    while let Some(event) = events.next().await.expect("the list") {
        assert!(event.event.is_some(), "{event:?}");
        ids.push(event.id);
    }
    ids.sort();
    ids
}

fn orders(server: &Server) -> RedisEventStore {
    store_of(&server.url(), PublicStreams::of_kind::<Order>().unwrap())
}

async fn version(server: &Server, id: &str) -> u64 {
    let orders = orders(server);
    orders
        .version(&format!("order:{id}").parse().unwrap())
        .await
        .unwrap()
}

/// All of it was done for these jobs, once, and nothing else was.
async fn assert_once(server: &Server, ids: &[&str]) {
    let mut redis = server.connect().await;
    let mut timers: Vec<String> = ids.iter().map(|id| format!("timer-{id}")).collect();
    timers.sort();
    assert_eq!(scheduled(&publisher(&server.url()), "jobs").await, timers);
    for id in ids {
        assert_eq!(version(server, id).await, 1, "{id}");
    }
    for stream in ["orders", "done"] {
        assert_eq!(
            entries(&mut redis, stream).await.len(),
            ids.len(),
            "{stream}"
        );
    }
    assert_eq!(dead(&mut redis).await, 0);
}

/// Nothing of it was done.
async fn assert_nothing(redis: &mut MultiplexedConnection) {
    for key in [
        "done",
        "orders",
        "{orders}:reached",
        "{jobs}:scheduled",
        "{jobs}:scheduled:events",
    ] {
        assert!(!redis.exists::<_, bool>(key).await.unwrap(), "{key}");
    }
    let aggregates: Vec<String> = redis.keys("{orders}:order:*").await.unwrap();
    assert_eq!(aggregates, [""; 0]);
}

on_both_servers! {
    async fn what_is_scheduled_cancelled_and_appended_is_so_with_the_acknowledgement(server: Server) {
        let mut redis = server.connect().await;
        let publisher = publisher(&server.url());
        schedule_old(&publisher, &["one", "two"]).await;
        let worker = Setup::new(&server).start_with(Registry::new().on(all));
        publish(&mut redis, &["one", "two"]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_once(&server, &["one", "two"]).await;
        let mut list = publisher.scheduled("jobs").unwrap();
        let first = list.next().await.unwrap().unwrap();
        let left = first.at.duration_since(SystemTime::now()).unwrap();
        assert!(left > HOUR - Duration::from_secs(60) && left <= HOUR + Duration::from_secs(1), "{left:?}");
        let event = first.event.unwrap();
        assert_eq!(event.source(), Some("workers"));
        assert!(event.field("causationid").is_some() && event.field("correlationid").is_some());
        assert_eq!(worker.stop().await.settled, 2);
        let noted: u64 = redis.hlen("{jobs}:workers:commits").await.unwrap();
        assert_eq!(noted, 0);
    }

    /// An append in a commit and one to the store leave the same behind.
    async fn an_append_in_a_commit_is_what_an_append_to_the_store_is(server: Server) {
        let mut redis = server.connect().await;
        let registry = Registry::new().on(async |job: Job, ctx: Context| {
            if job.id == "more" {
                let orders = Repository::<Order>::new(RedisEventStore::with_publisher(ctx.publisher()?, PublicStreams::of_kind::<Order>()?));
                let mut order = orders.load("o-1").await?;
                order.record(Added { cents: 4 })?;
                order.record(Added { cents: 5 })?;
                ctx.save(&order);
                return Ok(());
            }
            ctx.append::<Order>("o-1", [OrderEvent::Created(Created { cents: 3 }), Added { cents: 2 }.into()], Expected::NoStream);
            Ok(())
        });
        let worker = Setup::new(&server).start_with(registry);
        for id in ["first", "more"] {
            let event = Envelope::new(Job::TYPE).with("id", format!("e-{id}")).with("correlationid", "c-1");
            let event = event.with("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
            publisher(&server.url()).publish_envelope("jobs", event.json(&Job::new(id, Action::Succeed)).unwrap()).await.unwrap();
            settled(&mut redis, "jobs", PATIENCE).await;
        }
        worker.stop().await;
        let (store, id) = (orders(&server), "order:o-1".parse().unwrap());
        let events = stored(&store, &id, 1).await;
        assert_eq!(events.iter().map(|event| event.version).collect::<Vec<_>>(), [1, 2, 3, 4]);
        let field = |name: &str| events[0].envelope.field(name).unwrap_or_default().to_owned();
        assert_eq!((field("causationid"), field("correlationid")), ("e-first".to_owned(), "c-1".to_owned()));
        assert!(field("traceparent").starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
        let loaded = Repository::<Order>::new(orders(&server)).load("o-1").await.unwrap();
        assert_eq!(loaded.state(), &Order { cents: 14, added: 3, shipped: false });
        // The same events in a store of their own, by its own append.
        let other = Server::start(server.kind()).await;
        let theirs = orders(&other);
        for event in &events {
            let fields = event.envelope.fields().iter().filter(|(name, _)| *name != b"position");
            let mut own = Envelope::new("");
            for (name, value) in fields {
                own = own.with(std::str::from_utf8(name).unwrap(), value);
            }
            theirs.append(&id, vec![own], Expected::Exact(event.version - 1)).await.unwrap();
        }
        let mut there = other.connect().await;
        let mut public = Vec::new();
        for redis in [&mut redis, &mut there] {
            let all = entries(redis, "orders").await;
            let kept = entries(redis, "{orders}:order:o-1").await;
            let reached: String = redis.get("{orders}:reached").await.unwrap();
            let last = all.last().unwrap().id.to_string();
            assert_eq!(reached, last);
            let positions: Vec<String> = kept.iter().map(|entry| String::from_utf8(entry.fields[0].1.to_vec()).unwrap()).collect();
            assert_eq!(positions, all.iter().map(|entry| entry.id.to_string()).collect::<Vec<_>>());
            let ids: Vec<String> = kept.iter().map(|entry| entry.id.to_string()).collect();
            public.push((all.into_iter().map(|entry| entry.fields).collect::<Vec<_>>(), ids));
        }
        assert_eq!(public[0], public[1]);
    }

    async fn an_aggregate_at_another_version_refuses_the_commit_and_the_handler_decides_anew(server: Server) {
        let mut redis = server.connect().await;
        let (store, id) = (orders(&server), "order:o-1".parse().unwrap());
        let before = Envelope::new("order.added").json(&Added { cents: 1 }).unwrap();
        store.append(&id, vec![before.clone(), before.clone()], Expected::NoStream).await.unwrap();
        let registry = Registry::new().on(async |job: Job, ctx: Context| {
            ctx.emit_envelope("done", Envelope::new("test.done"));
            ctx.emit_envelope_after("jobs", timer(&job.id), HOUR);
            let expected = match &job.id[..] {
                "behind" => Expected::Exact(1),
                "ahead" => Expected::Exact(u64::MAX),
                _ => Expected::NoStream,
            };
            ctx.append::<Order>("o-1", [Added { cents: 1 }], expected);
            match ctx.commit().await {
                Err(CommitError::Conflict(conflict)) => {
                    assert_eq!((conflict.actual, conflict.expected), (2, expected));
                    assert_eq!(conflict.aggregate.as_str(), "order:o-1");
                }
                other => panic!("{other:?}"),
            }
            ctx.emit_envelope("decided", Envelope::new("test.done").with("id", job.id));
            Ok(())
        });
        let worker = Setup::new(&server).retry("max_attempts = 1").start_with(registry);
        publish(&mut redis, &["behind", "ahead", "new"]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(entries(&mut redis, "decided").await.len(), 3);
        assert_eq!(dead(&mut redis).await, 0);
        worker.stop().await;
        // One that does not commit by itself has failed.
        let registry = Registry::new().on(async |job: Job, ctx: Context| {
            ctx.append::<Order>("o-1", [Added { cents: 1 }], Expected::Exact(1));
            all(Job { id: format!("x-{}", job.id), ..job }, ctx).await
        });
        let worker = Setup::new(&server).retry("max_attempts = 1").start_with(registry);
        publish(&mut redis, &["one"]).await;
        eventually(PATIENCE, "a dead letter", async || dead(&mut redis).await == 1).await;
        let letter = &entries(&mut redis, DEAD).await[0];
        let error = letter.fields.iter().find(|(name, _)| name == "dead.error").unwrap();
        assert_eq!(String::from_utf8_lossy(&error.1), "order:o-1 is at version 2, and was expected at 1");
        worker.stop().await;
        assert_eq!(entries(&mut redis, "orders").await.len(), 2);
        assert_eq!(store.version(&id).await.unwrap(), 2);
        assert!(!redis.exists::<_, bool>(&["done", "{jobs}:scheduled", "{orders}:order:x-one"]).await.unwrap());
    }

    /// The same event comes twice, as from a publisher that did not know whether it had been published.
    async fn what_a_copy_of_an_event_schedules_and_appends_is_there_once(server: Server) {
        let mut redis = server.connect().await;
        let registry = Registry::new().on(async |job: Job, ctx: Context| {
            // The same, and written in another order each time.
            let spaces = " ".repeat(ctx.envelope().entry_id().seq as usize + entries_of_time());
            let data = format!("{{\"cents\":3{spaces}}}");
            let event = |kind: &str| Envelope::new(kind).with("data", data.as_bytes());
            ctx.emit_envelope_after("jobs", event(Job::TYPE), HOUR);
            let public = PublicStreams::of_kind::<Order>()?;
            let id = format!("order:{}", job.id).parse()?;
            ctx.append_envelopes(&public, &id, vec![event("order.added")], Expected::NoStream);
            ctx.emit_envelope("done", Envelope::new("test.done"));
            Ok(())
        });
        let worker = Setup::new(&server).retry("max_attempts = 1").start_with(registry);
        let event = Envelope::new(Job::TYPE).with("id", "e-1").json(&Job::new("one", Action::Succeed)).unwrap();
        for _ in 0..3 {
            publisher(&server.url()).publish_envelope("jobs", event.clone()).await.unwrap();
            settled(&mut redis, "jobs", PATIENCE).await;
        }
        worker.stop().await;
        assert_eq!(dead(&mut redis).await, 0, "{:?}", entries(&mut redis, DEAD).await);
        assert_eq!(scheduled(&publisher(&server.url()), "jobs").await.len(), 1);
        assert_eq!((version(&server, "one").await, entries(&mut redis, "orders").await.len()), (1, 1));
        assert_eq!(entries(&mut redis, "done").await.len(), 3);
    }

    /// What the lines of one commit come to together.
    async fn a_commit_moves_what_is_scheduled_to_another_time(server: Server) {
        let mut redis = server.connect().await;
        let publisher = publisher(&server.url()).source("workers");
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
        publisher.publish_envelope_at("jobs", timer("one"), at).await.unwrap();
        // The same id of another source.
        publisher.clone().source("shop").publish_envelope_at("jobs", timer("one"), at).await.unwrap();
        let registry = Registry::new().on(move |job: Job, ctx: Context| async move {
            ctx.cancel_event("jobs", &timer(&job.id));
            ctx.emit_envelope_at("jobs", timer(&job.id), at + HOUR);
            // Not there when this is done.
            ctx.emit_envelope_after("jobs", timer("never"), HOUR);
            ctx.cancel("jobs", "timer-never");
            ctx.cancel("jobs", "nothing of that id");
            // Twice is once.
            ctx.emit_envelope_at("jobs", timer("twice"), at);
            ctx.emit_envelope_after("jobs", timer("twice"), HOUR);
            // Its time has passed.
            ctx.emit_envelope_at("jobs", timer("past"), SystemTime::UNIX_EPOCH);
            Ok(())
        });
        let first = Envelope::new(Job::TYPE).with("id", "e-1").json(&Job::new("one", Action::Succeed)).unwrap();
        let worker = Setup::new(&server).retry("max_attempts = 1").start_with(registry);
        publisher.publish_envelope("jobs", first).await.unwrap();
        eventually(PATIENCE, "what is due", async || entries(&mut redis, "jobs").await.len() >= 2).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        worker.stop().await;
        assert_eq!(dead(&mut redis).await, 0, "{:?}", entries(&mut redis, DEAD).await);
        let mut list = publisher.scheduled("jobs").unwrap();
        let mut all = Vec::new();
        while let Some(event) = list.next().await.unwrap() {
            let source = event.event.unwrap().source().unwrap_or_default().to_owned();
            all.push((event.id, source, event.at));
        }
        let ours = |id: &str, at| (format!("timer-{id}"), "workers".to_owned(), at);
        assert!(all.contains(&ours("one", at + HOUR)) && all.contains(&ours("twice", at)), "{all:?}");
        assert!(all.contains(&("timer-one".to_owned(), "shop".to_owned(), at)), "{all:?}");
        assert!(!all.iter().any(|(id, ..)| id == "timer-never"), "{all:?}");
    }
}

/// So that data that says the same is not written the same twice.
fn entries_of_time() -> usize {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    (now.unwrap().as_nanos() % 97) as usize
}

/// What a handler appended in a unit test can be appended to a store in memory as it is.
#[tokio::test]
async fn what_was_appended_in_a_test_can_be_looked_at_in_memory() {
    let ctx = Context::for_test();
    all(Job::new("one", Action::Succeed), ctx.clone())
        .await
        .unwrap();
    assert!(matches!(ctx.commit().await, Ok(Committed::Settled)));
    assert_eq!(
        (
            ctx.scheduled().len(),
            ctx.cancels().len(),
            ctx.emitted().len()
        ),
        (1, 1, 1)
    );
    let orders = Repository::<Order, _>::new(MemoryEventStore::new(
        PublicStreams::of_kind::<Order>().unwrap(),
    ));
    let appended: Vec<Append> = ctx.appended();
    orders.store().append_all(appended).await.unwrap();
    assert_eq!(orders.load("one").await.unwrap().state().cents, 3);
    assert_eq!(orders.store().published(Order::STREAM).len(), 1);
}
