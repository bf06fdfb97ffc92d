//! Snapshots are only ever a shortcut: with them and without, an aggregate is the same, whatever stands in their place.

use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use streamhand::Envelope;
use streamhand::eventstore::{Aggregate, EventStore, MemoryEventStore, Repository, Snapshot};

use super::orders::{Added, Created, Order, OrderEvent};
use super::shelf::{order, orders};
use super::store_of;
use crate::support::Server;

/// The order of a later release, which counts in tenths of a cent: its state looks like that of today.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Later {
    cents: u64,
    added: u64,
    shipped: bool,
}

impl Aggregate for Later {
    const KIND: &'static str = "order";
    const STREAM: &'static str = "orders";
    const SNAPSHOT_VERSION: u32 = 2;
    type Event = OrderEvent;

    fn initial() -> Self {
        Later::default()
    }

    fn apply(&mut self, event: OrderEvent) {
        match event {
            OrderEvent::Created(event) => self.cents = 10 * event.cents,
            OrderEvent::Added(event) => {
                self.cents += 10 * event.cents;
                self.added += 1;
            }
            OrderEvent::Shipped(_) => self.shipped = true,
        }
    }
}

fn any_events(random: &mut fastrand::Rng) -> Vec<OrderEvent> {
    let one = |random: &mut fastrand::Rng| match random.u8(..5) {
        0 => Created {
            cents: random.u64(..100),
        }
        .into(),
        _ => Added {
            cents: random.u64(..100),
        }
        .into(),
    };
    (0..random.u8(1..8)).map(|_| one(random)).collect()
}

/// Loads or changes an aggregate with snapshots, and holds what comes of it against what it is without.
async fn step<A, S>(store: &S, id: &str, random: &mut fastrand::Rng, when: &str)
where
    A: Aggregate<Event = OrderEvent>
        + Clone
        + std::fmt::Debug
        + PartialEq
        + Serialize
        + serde::de::DeserializeOwned,
    S: EventStore + Clone,
{
    let plain = Repository::<A, S>::new(store.clone());
    let with = plain.clone().snapshots([1, 2, 3, 7, 50][random.usize(..5)]);
    let mut expected = plain.load(id).await.unwrap();
    let mut loaded = with.load(id).await.unwrap();
    assert_eq!(
        (loaded.version(), loaded.state()),
        (expected.version(), expected.state()),
        "{when}"
    );
    for _ in 0..random.u8(..3) {
        for event in any_events(random) {
            let encoded =
                streamhand::eventstore::AggregateEvent::encode(&event, Default::default()).unwrap();
            loaded.record(event).unwrap();
            expected.record(again(&encoded)).unwrap();
        }
        with.save(&mut loaded).await.unwrap();
        let stored = plain.load(id).await.unwrap();
        assert_eq!(
            (loaded.version(), loaded.state()),
            (stored.version(), stored.state()),
            "{when}"
        );
        assert_eq!(stored.state(), expected.state(), "{when}");
    }
}

/// The same event once more.
fn again(encoded: &Envelope) -> OrderEvent {
    match encoded.event_type() {
        "order.created" => encoded.decode_data::<Created>().unwrap().into(),
        _ => encoded.decode_data::<Added>().unwrap().into(),
    }
}

async fn histories<S: EventStore + Clone>(
    store: &S,
    rounds: u32,
    meddle: impl AsyncFn(&str, &mut fastrand::Rng),
) {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..rounds {
        let id = format!("h-{round}");
        for n in 0..random.u8(5..25) {
            let when = format!("seed {seed}, round {round}, step {n}");
            match random.u8(..10) {
                0..5 => step::<Order, S>(store, &id, &mut random, &when).await,
                5..7 => step::<Later, S>(store, &id, &mut random, &when).await,
                _ => meddle(&id, &mut random).await,
            }
        }
    }
}

#[tokio::test]
async fn an_aggregate_in_memory_is_the_same_with_snapshots_and_without() {
    let store = MemoryEventStore::new(orders());
    histories(&store, 150, async |id, random| {
        let id = order(id);
        let version = store.version(&id).await.unwrap();
        if version == 0 {
            return;
        }
        let version = random.u64(1..=version);
        let event = store.page(&id, version, 1).await.unwrap().remove(0);
        let state = match store.snapshot(&id).await.unwrap() {
            Some(mut snapshot) if random.bool() => {
                snapshot
                    .state
                    .truncate(random.usize(..=snapshot.state.len().saturating_sub(1)));
                snapshot.state
            }
            _ => (0..random.u8(..40))
                .map(|_| random.u8(..))
                .chain([0xc1])
                .collect(),
        };
        let event = event.envelope.id().into_owned();
        let schema = random.u32(1..4);
        store
            .keep_snapshot(
                &id,
                Snapshot {
                    version,
                    event,
                    schema,
                    state,
                },
            )
            .await
            .unwrap();
    })
    .await;
}

async fn run(redis: &mut MultiplexedConnection, command: &[&str]) {
    let mut cmd = redis::cmd(command[0]);
    // Some of it fails, as what it is done to is something else by then.
    let _: redis::RedisResult<redis::Value> = cmd.arg(&command[1..]).query_async(redis).await;
}

fn key(id: &str) -> String {
    format!("{{orders}}:order:{id}:snapshot")
}

async fn kept_version(redis: &mut MultiplexedConnection, id: &str) -> Option<u64> {
    redis::cmd("HGET")
        .arg(key(id))
        .arg("version")
        .query_async(redis)
        .await
        .unwrap()
}

on_both_servers! {
    async fn an_aggregate_in_redis_is_the_same_with_snapshots_and_without(server: Server) {
        let store = store_of(&server.url(), orders());
        let redis = server.connect().await;
        histories(&store, 60, async |id, random| {
            let mut redis = redis.clone();
            let key = key(id);
            let number = random.u64(..12).to_string();
            match random.u8(..12) {
                // The aggregate is gone, and another comes: its snapshot has stayed.
                0 | 1 => run(&mut redis, &["DEL", &format!("{{orders}}:order:{id}")]).await,
                2 => run(&mut redis, &["DEL", &key]).await,
                3 => run(&mut redis, &["SET", &key, "garbage"]).await,
                4 => {
                    run(&mut redis, &["DEL", &key]).await;
                    run(&mut redis, &["XADD", &key, "*", "version", "1"]).await;
                }
                5 => run(&mut redis, &["HSET", &key, "state", "garbage"]).await,
                6 => run(&mut redis, &["HSET", &key, "version", &number]).await,
                7 => run(&mut redis, &["HSET", &key, "version", ["x", "", "-1", "99999999999999999999999"][random.usize(..4)]]).await,
                8 => run(&mut redis, &["HSET", &key, "event", "another"]).await,
                9 => run(&mut redis, &["HSET", &key, "schema", ["x", "0", "7"][random.usize(..3)]]).await,
                10 => run(&mut redis, &["HDEL", &key, ["version", "event", "schema", "state"][random.usize(..4)]]).await,
                _ => run(&mut redis, &["HSET", &key, "more", "of it"]).await,
            }
        })
        .await;
    }

    async fn a_snapshot_is_kept_every_so_many_events_and_loading_begins_there(server: Server) {
        let store = store_of(&server.url(), orders());
        let mut redis = server.connect().await;
        let orders = Repository::<Order>::new(store.clone()).snapshots(5);
        let mut loaded = orders.load("o-1").await.unwrap();
        for n in 1..=12 {
            loaded.record(Added { cents: 1 }).unwrap();
            orders.save(&mut loaded).await.unwrap();
            assert_eq!(kept_version(&mut redis, "o-1").await, [None, Some(5), Some(10)][n / 5]);
        }
        // What an event before it was is not asked any more.
        run(&mut redis, &["XDEL", "{orders}:order:o-1", "3-0"]).await;
        assert!(Repository::<Order>::new(store.clone()).load("o-1").await.is_err());
        let loaded = orders.load("o-1").await.unwrap();
        assert_eq!((loaded.version(), loaded.state().added), (12, 12));

        // Another aggregate in its place has none yet: what is there is no newer one of its own.
        run(&mut redis, &["DEL", "{orders}:order:o-1"]).await;
        let mut loaded = orders.load("o-1").await.unwrap();
        assert_eq!((loaded.version(), loaded.state()), (0, &Order::default()));
        for _ in 0..5 {
            loaded.record(Added { cents: 1 }).unwrap();
        }
        orders.save(&mut loaded).await.unwrap();
        assert_eq!(kept_version(&mut redis, "o-1").await, Some(5));

        // A load that saw many keeps one, too.
        let plain = Repository::<Order>::new(store.clone());
        for _ in 0..7 {
            plain.update("o-2", |_| Ok::<_, String>(vec![Added { cents: 1 }.into()])).await.unwrap();
        }
        assert_eq!(kept_version(&mut redis, "o-2").await, None);
        orders.load("o-2").await.unwrap();
        assert_eq!(kept_version(&mut redis, "o-2").await, Some(7));
    }

    async fn a_snapshot_that_can_t_be_kept_is_not_missed(server: Server) {
        let store = store_of(&server.url(), orders());
        let mut redis = server.connect().await;
        let orders = Repository::<Order>::new(store.clone()).snapshots(1);
        orders.update("o-1", |_| Ok::<_, String>(vec![Added { cents: 1 }.into()])).await.unwrap();
        run(&mut redis, &["HSET", &key("o-1"), "version", "0"]).await;
        run(&mut redis, &["CONFIG", "SET", "maxmemory", "1"]).await;
        assert_eq!(orders.load("o-1").await.unwrap().version(), 1);
        run(&mut redis, &["CONFIG", "SET", "maxmemory", "0"]).await;
        assert_eq!(kept_version(&mut redis, "o-1").await, Some(0));
        assert_eq!(orders.load("o-1").await.unwrap().version(), 1);
        assert_eq!(kept_version(&mut redis, "o-1").await, Some(1));

        let large = Repository::<Hoard>::new(store.clone()).snapshots(1);
        let text = "x".repeat(600_000);
        for n in 1..=3 {
            let said = Said { text: text.clone() };
            let hoard = large.update("h-1", |_| Ok::<_, String>(vec![said.clone().into()])).await.unwrap();
            assert_eq!((hoard.version(), hoard.state().all.len()), (n, n as usize));
        }
        let kept: Option<u64> = redis::cmd("HGET").arg("{orders}:hoard:h-1:snapshot").arg("version").query_async(&mut redis).await.unwrap();
        assert_eq!(kept, Some(1), "with two it is more than an event may have");
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Said {
    text: String,
}

impl streamhand::Event for Said {
    const TYPE: &'static str = "hoard.said";
}

streamhand::aggregate_events! {
    enum HoardEvent { Said(Said) }
}

#[derive(Serialize, Deserialize)]
struct Hoard {
    all: Vec<String>,
}

impl Aggregate for Hoard {
    const KIND: &'static str = "hoard";
    const STREAM: &'static str = "hoards";
    type Event = HoardEvent;

    fn initial() -> Self {
        Hoard { all: Vec::new() }
    }

    fn apply(&mut self, event: HoardEvent) {
        match event {
            HoardEvent::Said(said) => self.all.push(said.text),
        }
    }
}
