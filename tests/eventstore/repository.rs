//! Aggregates are loaded, changed and saved, and two who change one at once do not undo each other.

use std::time::Duration;

use serde_json::json;
use streamhand::eventstore::{EventStore, Expected, MemoryEventStore, Repository};
use streamhand::{Context, Envelope, ErrorKind, Failure, Format, Registry};

use super::orders::{Added, Created, Order, Shipped};
use super::shelf::{ids, order, orders, stored};
use super::store_of;
use crate::support::Server;

fn in_memory() -> Repository<Order, MemoryEventStore> {
    Repository::new(MemoryEventStore::new(orders()))
}

/// What an older release has left: a total instead of cents.
fn old() -> Envelope {
    Envelope::new("order.created")
        .json(&json!({ "total": 12.5 }))
        .unwrap()
}

fn in_cents(old: serde_json::Value) -> Result<Created, Failure> {
    let total = old["total"].as_f64().ok_or("no total")?;
    Ok(Created {
        cents: (total * 100.0) as u64,
    })
}

#[tokio::test]
async fn what_is_saved_is_loaded_again() {
    for format in [Format::Json, Format::MessagePack] {
        let repository = in_memory().format(format);
        let mut loaded = repository.load("o-1").await.unwrap();
        assert_eq!(
            (loaded.version(), loaded.exists(), loaded.state()),
            (0, false, &Order::default())
        );
        assert!(repository.save(&mut loaded).await.unwrap().is_none());
        loaded.record(Created { cents: 5 }).unwrap();
        loaded.record(Added { cents: 2 }).unwrap();
        assert_eq!(
            (
                loaded.state().cents,
                loaded.version(),
                loaded.uncommitted().len()
            ),
            (7, 0, 2)
        );
        let appended = repository.save(&mut loaded).await.unwrap().unwrap();
        assert_eq!(
            (
                appended.versions(),
                loaded.version(),
                loaded.uncommitted().len()
            ),
            (1..=2, 2, 0)
        );
        loaded.record(Shipped {}).unwrap();
        repository.save(&mut loaded).await.unwrap();

        let again = repository.load("o-1").await.unwrap();
        assert_eq!(
            (again.version(), again.state()),
            (
                3,
                &Order {
                    cents: 7,
                    added: 1,
                    shipped: true
                }
            )
        );
        let events = stored(repository.store(), &order("o-1"), 1).await;
        assert_eq!(
            (
                events[0].envelope.version(),
                events[0].envelope.content_type()
            ),
            (2, format.content_type())
        );
        assert_eq!(events[0].envelope.subject(), Some("order:o-1"));
    }
}

#[tokio::test]
async fn of_two_who_changed_it_the_second_is_told_and_keeps_what_it_wanted() {
    let repository = in_memory();
    let mut first = repository.load("o-1").await.unwrap();
    let mut second = repository.load("o-1").await.unwrap();
    first.record(Created { cents: 5 }).unwrap();
    second.record(Created { cents: 9 }).unwrap();
    repository.save(&mut first).await.unwrap();
    for _ in 0..2 {
        let error = repository.save(&mut second).await.unwrap_err();
        let conflict = error.conflict().unwrap();
        assert_eq!(
            (conflict.expected, conflict.actual),
            (Expected::Exact(0), 1)
        );
        assert_eq!(
            (
                second.uncommitted().len(),
                second.version(),
                second.state().cents
            ),
            (1, 0, 9)
        );
    }
    assert_eq!(repository.load("o-1").await.unwrap().state().cents, 5);
}

#[tokio::test]
async fn older_events_are_brought_to_their_version_and_what_can_t_be_read_is_an_error() {
    let plain = in_memory();
    let store = plain.store().clone();
    store
        .append(&order("old"), vec![old()], Expected::NoStream)
        .await
        .unwrap();
    let error = plain.load("old").await.err().unwrap();
    let said = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Codec);
    assert!(
        said.starts_with("event 1 of order:old (order.created in version 1): "),
        "{said}"
    );

    let upcasting = plain.clone().upcast::<Created, _, _>(1, in_cents);
    upcasting.check().unwrap();
    assert_eq!(upcasting.load("old").await.unwrap().state().cents, 1250);
    let registry = Registry::new()
        .on(async |_: Created, _: Context| Ok(()))
        .upcast::<Created, _, _>(1, in_cents);
    let shared = in_memory_on(&store).upcasters_of(&registry);
    assert_eq!(shared.load("old").await.unwrap().state().cents, 1250);

    let wrong = in_memory_on(&store).upcast::<Created, serde_json::Value, serde_json::Value>(2, Ok);
    assert!(
        wrong
            .check()
            .unwrap_err()
            .to_string()
            .contains("has no upcaster from version 2")
    );
    for (id, event, why) in [
        (
            "type",
            Envelope::new("order.lost").json(&json!({})),
            "order has no events of this type",
        ),
        (
            "new",
            old().with("schemaversion", "3").json(&json!({})),
            "this release knows versions up to 2",
        ),
        (
            "data",
            Envelope::new("order.added").json(&json!({ "cents": -1 })),
            "the data does not decode as JSON",
        ),
        (
            "total",
            Envelope::new("order.created").json(&json!({})),
            "no total",
        ),
    ] {
        store
            .append(&order(id), vec![event.unwrap()], Expected::NoStream)
            .await
            .unwrap();
        let error = upcasting.load(id).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Codec);
        assert!(error.to_string().contains(why), "{error}");
    }
    assert_eq!(
        upcasting.load("no id").await.err().unwrap().kind(),
        ErrorKind::Invalid
    );
}

fn in_memory_on(store: &MemoryEventStore) -> Repository<Order, MemoryEventStore> {
    Repository::new(store.clone())
}

on_both_servers! {
    async fn a_save_that_failed_can_be_repeated_when_redis_is_back(server: Server) {
        let mut server = server;
        let mut redis = server.connect().await;
        let repository = Repository::<Order>::new(store_of(&server.url(), orders()));
        let mut loaded = repository.load("o-1").await.unwrap();
        loaded.record(Created { cents: 5 }).unwrap();
        let id = loaded.uncommitted()[0].id().into_owned();
        let _: () = redis::cmd("CONFIG").arg(&["SET", "maxmemory", "1"]).query_async(&mut redis).await.unwrap();
        let full = repository.save(&mut loaded).await.unwrap_err();
        assert!(full.to_string().contains("maxmemory is reached"), "{full}");
        server.stop();
        assert!(repository.save(&mut loaded).await.is_err());
        server.start_again().await;
        assert_eq!((loaded.uncommitted().len(), loaded.state().cents), (1, 5));
        let saved = crate::support::eventually(Duration::from_secs(30), "Redis to be back", async || {
            repository.save(&mut loaded).await
        });
        assert_eq!(saved.await.unwrap().versions(), 1..=1);
        assert_eq!(ids(repository.store(), &order("o-1")).await, [id]);
    }
}
