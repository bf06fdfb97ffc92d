//! Events of older and newer versions than a worker's handler takes: older ones are brought to its version, newer ones
//! are left to workers that know them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use streamhand::{Context, Envelope, Event, Failure, Registry};

use crate::support::letters::fields;
use crate::support::{
    Entry, Fields, Server, Setup, add, dead, entries, eventually, pending, settled,
};

use events::{Placed1, Placed2, Placed3, RECORDED, TYPE, expected, second, third};

mod events;

const PATIENCE: Duration = Duration::from_secs(30);

/// The newest release, which writes down what reaches it.
fn newest(seen: Arc<Mutex<Vec<(Placed3, u32)>>>) -> Registry {
    Registry::new()
        .upcast::<Placed3, _, _>(1, second)
        .on(move |placed: Placed3, ctx: Context| {
            seen.lock().unwrap().push((placed, ctx.attempt()));
            async { Ok(()) }
        })
        .upcast::<Placed3, _, _>(2, third)
}

fn recorded((version, content_type, data): (&str, &str, &[u8])) -> Envelope {
    Envelope::new(TYPE)
        .with("schemaversion", version)
        .with("datacontenttype", content_type)
        .with("data", data)
}

fn entry_of(envelope: &Envelope) -> Fields {
    let bytes = bytes::Bytes::copy_from_slice;
    let all = envelope.fields().iter();
    all.map(|(name, value)| (bytes(name), bytes(value)))
        .collect()
}

#[tokio::test]
async fn recorded_events_of_every_older_version_reach_the_handler_in_todays() {
    let seen = Arc::default();
    let registry = newest(Arc::clone(&seen));
    registry.check().unwrap();
    for event in RECORDED {
        registry.dispatch(recorded(event)).await.unwrap();
    }
    let today = Envelope::new(TYPE)
        .with("schemaversion", "3")
        .msgpack(&expected())
        .unwrap();
    registry.dispatch(today).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), RECORDED.len() + 1);
    for (placed, _) in &*seen {
        assert_eq!(*placed, expected());
    }
}

/// A value of any form has no room for bytes: the event is refused, and not changed.
#[tokio::test]
async fn what_an_upcasters_types_have_no_room_for_is_refused_and_not_bent() {
    let any = |registry: Registry| {
        registry
            .upcast::<Placed3, Value, Value>(1, |mut order| {
                order["amount"] = json!({"cents": order["total"], "currency": "EUR"});
                Ok(order)
            })
            .upcast::<Placed3, Value, Value>(2, |mut order| {
                order["customer"] = json!({"email": order["email"]});
                Ok(order)
            })
    };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let writes = seen.clone();
    let registry = any(Registry::new()).on(move |placed: Placed3, _: Context| {
        writes.lock().unwrap().push(placed);
        async { Ok(()) }
    });
    registry.check().unwrap();
    for (version, content_type, data) in RECORDED {
        let done = registry
            .dispatch(recorded((version, content_type, data)))
            .await;
        if content_type == "application/json" {
            done.unwrap();
        } else {
            let failure = done.unwrap_err();
            assert!(failure.is_permanent());
            let of = format!("the upcaster of order.placed from version {version} to ");
            let message = failure.to_string();
            assert!(
                message.starts_with(&of) && message.contains("tests/versions.rs:"),
                "{message}"
            );
            assert!(
                message.contains("does not decode as MessagePack"),
                "{message}"
            );
        }
    }
    assert_eq!(*seen.lock().unwrap(), [expected(), expected()]);
}

#[tokio::test]
async fn without_an_upcaster_an_older_version_is_read_as_it_is() {
    #[derive(Deserialize)]
    struct Lenient {
        order_id: String,
        #[serde(default)]
        note: String,
    }
    impl Event for Lenient {
        const TYPE: &'static str = TYPE;
        const VERSION: u32 = 7;
    }
    let registry = Registry::new().on(async |order: Lenient, _: Context| {
        assert_eq!((&order.order_id[..], &order.note[..]), ("o-1", ""));
        Ok(())
    });
    registry.check().unwrap();
    for event in RECORDED {
        registry.dispatch(recorded(event)).await.unwrap();
    }
}

#[tokio::test]
async fn a_version_older_than_the_first_upcaster_is_refused() {
    let registry = Registry::new()
        .on(async |_: Placed3, _: Context| Ok(()))
        .upcast::<Placed3, _, _>(2, third);
    registry.check().unwrap();
    registry.dispatch(recorded(RECORDED[2])).await.unwrap();
    let failure = registry.dispatch(recorded(RECORDED[0])).await.unwrap_err();
    assert!(failure.is_permanent());
    assert_eq!(
        failure.to_string(),
        "version 1 of order.placed is older than all its upcasters"
    );
}

#[test]
fn every_upcaster_that_leads_nowhere_is_told_with_its_place() {
    #[derive(Serialize, Deserialize)]
    struct Other;
    impl Event for Other {
        const TYPE: &'static str = "order.other";
        const VERSION: u32 = 5;
    }
    #[derive(Serialize, Deserialize)]
    struct Raw;
    impl Event for Raw {
        const TYPE: &'static str = "order.raw";
        const VERSION: u32 = 2;
    }
    #[derive(Serialize, Deserialize)]
    struct Orphan;
    impl Event for Orphan {
        const TYPE: &'static str = "order.orphan";
        const VERSION: u32 = 2;
    }
    #[derive(Serialize, Deserialize)]
    struct Old;
    impl Event for Old {
        const TYPE: &'static str = "order.old";
        const VERSION: u32 = 1;
    }
    #[derive(Serialize, Deserialize)]
    struct Older;
    impl Event for Older {
        const TYPE: &'static str = "order.old";
        const VERSION: u32 = 3;
    }
    let same = |value: Value| Ok(value);
    let registry = Registry::new()
        .on(async |_: Other, _: Context| Ok(()))
        .upcast::<Other, _, _>(1, same)
        .upcast::<Other, _, _>(1, same)
        .upcast::<Other, _, _>(4, same)
        .upcast::<Other, _, _>(5, same)
        .upcast::<Other, _, _>(0, same)
        .on_raw("order.raw", |_, _| async { Ok(()) })
        .upcast::<Raw, _, _>(1, same)
        .upcast::<Orphan, _, _>(1, same)
        .on(async |_: Old, _: Context| Ok(()))
        .upcast::<Older, _, _>(2, same);
    let message = registry.check().unwrap_err().to_string();
    let place = regex::Regex::new(r"tests/versions\.rs:\d+:\d+").unwrap();
    let lines = place.find_iter(&message).count();
    assert_eq!(lines, 8, "{message}");
    insta::assert_snapshot!(place.replace_all(&message, "PLACE"), @"
    the registry of handlers is wrong:
      PLACE: order.other has an upcaster from version 1 already, registered at PLACE
      PLACE: order.other has no upcaster from version 5: they begin at 1 to 4, below Event::VERSION, 5
      PLACE: order.other has no upcaster from version 0: they begin at 1 to 4, below Event::VERSION, 5
      PLACE: order.old has upcasters to version 3, and a handler of version 1
      PLACE: order.orphan has upcasters, and no handler or aggregate
      PLACE: order.other has an upcaster to version 2, and none from there to 3
      PLACE: order.raw has upcasters, and a handler that takes its data as it is
    ");
}

on_both_servers! {
    async fn recorded_events_are_handled_in_todays_version_by_a_worker(server: Server) {
        let mut redis = server.connect().await;
        for event in RECORDED {
            add(&mut redis, "jobs", &entry_of(&recorded(event))).await;
        }
        let seen = Arc::default();
        let worker = Setup::new(&server).start_with(newest(Arc::clone(&seen)));
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(*seen.lock().unwrap(), vec![(expected(), 1); RECORDED.len()]);
        assert_eq!(dead(&mut redis).await, 0);
        worker.stop().await;
    }

    /// First only workers of the old release, then both, then only those of the new one.
    async fn while_a_version_is_rolled_out_every_event_is_handled_once_and_in_its_version(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).retry("max_attempts = 2");
        let older = || Registry::new().on(async |placed: Placed1, ctx| note(placed.order_id, 1, ctx).await);
        let newer = || {
            Registry::new()
                .upcast::<Placed3, _, _>(1, second)
                .upcast::<Placed3, _, _>(2, third)
                .on(async |placed: Placed3, ctx| note(placed.order_id, 3, ctx).await)
        };
        let mut old = vec![setup.start_with(older()), setup.start_with(older())];
        publish(&mut redis, "early").await;
        eventually(PATIENCE, "what is newer to be released", async || {
            let listed: usize = redis.zcard("{jobs}:workers:waiting").await.unwrap();
            listed == EACH
        })
        .await;
        let mut new = vec![setup.start_with(newer())];
        publish(&mut redis, "amid").await;
        while let Some(worker) = old.pop() {
            worker.stop().await;
            new.push(setup.start_with(newer()));
        }
        publish(&mut redis, "late").await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let mut handled: Vec<String> = redis.lrange("test:versions", 0, -1).await.unwrap();
        handled.sort();
        let attempts: Vec<&str> = handled.iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
        assert!(attempts.iter().all(|attempt| *attempt == "1"), "{handled:?}");
        let events: Vec<&str> = handled.iter().map(|line| line.split(' ').next().unwrap()).collect();
        let mut all: Vec<String> = Vec::new();
        for time in ["early", "amid", "late"] {
            all.extend((0..EACH).flat_map(|n| [format!("{time}-{n}-v1"), format!("{time}-{n}-v3")]));
        }
        all.sort();
        assert_eq!(events, all);
        for line in &handled {
            let by = line.split(' ').nth(1).unwrap();
            assert!(by == "3" || line.contains("-v1 "), "an old worker has handled {line}");
            assert!(by == "3" || !line.starts_with("late"), "{line}");
        }
        assert_eq!(dead(&mut redis).await, 0);
        assert_eq!(pending(&mut redis, "jobs").await, []);
        for worker in new {
            worker.stop().await;
        }
    }

    async fn a_version_that_nobody_comes_to_know_is_buried_in_time(server: Server) {
        let mut redis = server.connect().await;
        let newest_yet = recorded(("4", "application/json", b"{}"));
        add(&mut redis, "jobs", &entry_of(&newest_yet)).await;
        let seen = Arc::default();
        let worker = Setup::new(&server).worker("unhandled_after = \"1s\"").start_with(newest(Arc::clone(&seen)));
        let letter = buried(&mut redis).await;
        assert_eq!(value(&letter, "dead.reason"), "unhandled");
        let error = "order.placed has version 4; this worker's handler takes versions up to 3";
        assert_eq!(value(&letter, "dead.error"), error);
        assert_eq!(letter.fields[..4], entry_of(&newest_yet)[..]);
        assert!(seen.lock().unwrap().is_empty());
        worker.stop().await;
    }

    async fn an_event_whose_upcaster_fails_or_panics_is_buried_whole_and_says_which(server: Server) {
        let place = regex::Regex::new(r"tests/versions\.rs:\d+:\d+").unwrap();
        for (panics, error) in [(false, "no such customer"), (true, "it panicked: no such customer")] {
            let mut redis = server.connect().await;
            let event = recorded(RECORDED[1]);
            add(&mut redis, "jobs", &entry_of(&event)).await;
            let registry = Registry::new()
                .upcast::<Placed3, _, _>(1, second)
                .upcast::<Placed3, Placed2, Placed3>(2, move |_| {
                    assert!(!panics, "no such customer");
                    // Never again, whatever it asks for: the data stays what it is.
                    Err(Failure::retry_after(Duration::ZERO, "no such customer"))
                })
                .on(async |_: Placed3, _: Context| -> Result<(), Failure> { panic!("it was not to be called") });
            let worker = Setup::new(&server).start_with(registry);
            let letter = buried(&mut redis).await;
            assert_eq!(letter.fields[..4], entry_of(&event)[..]);
            assert_eq!((value(&letter, "dead.reason"), value(&letter, "dead.attempts")), ("undecodable", "1"));
            let said = value(&letter, "dead.error");
            let step = "the upcaster of order.placed from version 2 to 3 (PLACE) failed";
            assert_eq!(place.replace_all(said, "PLACE"), format!("{step}: {error}"));
            worker.stop().await;
            let _: () = redis.flushall().await.unwrap();
        }
    }

    async fn a_raw_handler_gets_an_older_version_as_it_is(server: Server) {
        let mut redis = server.connect().await;
        let (seen, event) = (Arc::new(Mutex::new(Vec::new())), recorded(RECORDED[1]));
        add(&mut redis, "jobs", &entry_of(&event)).await;
        let writes = seen.clone();
        let worker = Setup::new(&server).start_with(Registry::new().on_raw(TYPE, move |envelope, _| {
            writes.lock().unwrap().push((envelope.version(), envelope.data().to_vec()));
            async { Ok(()) }
        }));
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(*seen.lock().unwrap(), [(1, RECORDED[1].2.to_vec())]);
        worker.stop().await;
    }
}

/// Events of each version that are published at a time.
const EACH: usize = 10;

/// Events of the first and of the newest version.
async fn publish(redis: &mut MultiplexedConnection, name: &str) {
    for n in 0..EACH {
        let mut first: Value = serde_json::from_slice(RECORDED[0].2).unwrap();
        first["order_id"] = json!(format!("{name}-{n}-v1"));
        let newest = Placed3 {
            order_id: format!("{name}-{n}-v3"),
            ..expected()
        };
        for (version, data) in [
            ("1", first.to_string()),
            ("3", serde_json::to_string(&newest).unwrap()),
        ] {
            let event = fields(&[("type", TYPE), ("schemaversion", version), ("data", &data)]);
            add(redis, "jobs", &event).await;
        }
    }
}

/// Which event was handled, as which version, at which attempt.
async fn note(id: String, version: u32, ctx: Context) -> Result<(), Failure> {
    let line = format!("{id} {version} {}", ctx.attempt());
    let _: () = ctx.redis().await?.rpush("test:versions", line).await?;
    Ok(())
}

/// The one dead letter, once it is there.
async fn buried(redis: &mut MultiplexedConnection) -> Entry {
    eventually(PATIENCE, "it to be buried", async || dead(redis).await == 1).await;
    entries(redis, "{jobs}:workers:dead").await.remove(0)
}

fn value<'a>(letter: &'a Entry, name: &str) -> &'a str {
    let field = letter.fields.iter().find(|(field, _)| field == name);
    std::str::from_utf8(&field.expect(name).1).unwrap()
}
