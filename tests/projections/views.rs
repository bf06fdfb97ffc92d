//! A projection of tests, and what its view is to be by the aggregates themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use streamhand::eventstore::{
    AggregateEvent, EventStore, Expected, Projected, Projection, PublicStreams, RedisEventStore,
    View,
};
use streamhand::{EntryId, Failure, Format, Registry};

use crate::eventstore::orders::{Added, Created, OrderEvent, Shipped};
use crate::eventstore::shelf::{order, stored};
use crate::support::{Server, Setup, eventually};

pub const PATIENCE: Duration = Duration::from_secs(60);

/// What the projection does with an order to which so much is added.
pub const FAILS_FOR_GOOD: u64 = 1_000_001;
pub const PANICS: u64 = 1_000_002;
pub const FAILS_TWICE: u64 = 1_000_003;
pub const FAILS: u64 = 1_000_004;
pub const IS_GUARDED: u64 = 1_000_005;

/// Counts orders by their status, and keeps what tells in which order events came.
#[derive(Clone, Default)]
pub struct ByStatus {
    pub tries: Arc<AtomicUsize>,
    /// What is amiss has been mended.
    pub mended: bool,
}

impl Projection for ByStatus {
    const NAME: &'static str = "orders-by-status";
    const STREAM: &'static str = "orders";
    const KINDS: &'static [&'static str] = &["order"];
    type Event = OrderEvent;

    fn project(&self, event: Projected<OrderEvent>, view: &mut View) -> Result<(), Failure> {
        project(self, event, view)
    }
}

/// The same over four partitions.
pub struct InFour(pub ByStatus);

impl Projection for InFour {
    const NAME: &'static str = "orders-by-status";
    const STREAM: &'static str = "orders";
    const PARTITIONS: u32 = 4;
    const KINDS: &'static [&'static str] = &["order"];
    type Event = OrderEvent;

    fn project(&self, event: Projected<OrderEvent>, view: &mut View) -> Result<(), Failure> {
        project(&self.0, event, view)
    }
}

fn project(is: &ByStatus, event: Projected<OrderEvent>, view: &mut View) -> Result<(), Failure> {
    let id = event.aggregate.id();
    match event.event {
        OrderEvent::Added(Added { cents }) if cents > 1_000_000 && !is.mended => match cents {
            FAILS_FOR_GOOD => return Err(Failure::permanent("asked to fail for good")),
            PANICS => panic!("asked to panic"),
            FAILS_TWICE if is.tries.fetch_add(1, SeqCst) >= 2 => {}
            IS_GUARDED => {
                view.effect(streamhand::Effect::incr_by("cents", 1).at_least(0));
            }
            _ => return Err("asked to fail".into()),
        },
        OrderEvent::Added(Added { cents }) => {
            view.incr_by("cents", cents as i64);
        }
        OrderEvent::Created(_) => {
            view.hincr_by("counts", "created", 1);
            view.hset("status", id, "created");
        }
        OrderEvent::Shipped(Shipped {}) => {
            view.hincr_by("counts", "shipped", 1)
                .hset("status", id, "shipped");
        }
    }
    view.hset("versions", id, event.version.to_string());
    view.set(
        "last",
        format!("{} {}", event.position, event.envelope.id()),
    );
    Ok(())
}

pub fn registry() -> Registry {
    Registry::new().projection(ByStatus::default())
}

/// A worker's setup with a group that has nothing to do with the orders.
pub fn setup(server: &Server) -> Setup {
    Setup::new(server)
}

/// A view as it is in Redis, by key and field; what strings hold has no field.
pub type Seen = BTreeMap<(String, String), String>;

pub fn store(server: &Server, partitions: u32) -> RedisEventStore {
    crate::eventstore::store_of(&server.url(), public(partitions))
}

pub fn public(partitions: u32) -> PublicStreams {
    PublicStreams::new("orders")
        .unwrap()
        .partitions(partitions)
        .unwrap()
}

/// Appends events to an order, at whatever version it is.
pub async fn happens(
    store: &RedisEventStore,
    id: &str,
    events: impl IntoIterator<Item = OrderEvent>,
) {
    let events = events
        .into_iter()
        .map(|event| event.encode(Format::Json).unwrap());
    store
        .append(&order(id), events.collect(), Expected::Any)
        .await
        .unwrap();
}

/// Any event, most often one that follows.
pub fn any_event() -> OrderEvent {
    match fastrand::u8(..4) {
        0 => Created { cents: 1 }.into(),
        1 => Shipped {}.into(),
        _ => Added {
            cents: fastrand::u64(1..100),
        }
        .into(),
    }
}

/// What the aggregates say that the view of a partition is: all events in the order of their positions, without those
/// at some.
pub async fn by_aggregates(
    store: &RedisEventStore,
    ids: &[String],
    partition: usize,
    but: &[EntryId],
) -> Seen {
    let mut all = Vec::new();
    for id in ids {
        let id = order(id);
        if store.public().partition(&id) == partition {
            let events = stored(store, &id, 1).await;
            all.extend(
                events
                    .into_iter()
                    .map(|event| (event.position, id.clone(), event)),
            );
        }
    }
    all.sort_by_key(|(position, ..)| *position);
    let mut seen = Seen::new();
    for (position, id, event) in all
        .into_iter()
        .filter(|(position, ..)| !but.contains(position))
    {
        let mut set = |key: &str, field: &str, value: String| {
            seen.insert((key.to_owned(), field.to_owned()), value);
        };
        set("last", "", format!("{position} {}", event.envelope.id()));
        set("versions", id.id(), event.version.to_string());
        let number = |seen: &mut Seen, key: &str, field: &str, by: u64| {
            let value = seen
                .entry((key.to_owned(), field.to_owned()))
                .or_insert("0".to_owned());
            *value = (value.parse::<u64>().unwrap() + by).to_string();
        };
        match event.envelope.event_type() {
            "order.created" | "order.shipped" => {
                let status = event.envelope.event_type().trim_start_matches("order.");
                set("status", id.id(), status.to_owned());
                number(&mut seen, "counts", status, 1);
            }
            _ => number(
                &mut seen,
                "cents",
                "",
                event.envelope.decode_data::<Added>().unwrap().cents,
            ),
        }
    }
    seen
}

/// The checkpoint of a public stream.
pub async fn checkpoint(
    redis: &mut MultiplexedConnection,
    prefix: &str,
) -> BTreeMap<String, String> {
    redis
        .hgetall(format!("{prefix}:orders-by-status:projection"))
        .await
        .unwrap()
}

/// The view of a public stream, of the generation that is served.
pub async fn view(redis: &mut MultiplexedConnection, prefix: &str) -> Seen {
    let generation = checkpoint(redis, prefix)
        .await
        .remove("generation")
        .unwrap_or_default();
    view_of(redis, prefix, &generation).await
}

pub async fn view_of(redis: &mut MultiplexedConnection, prefix: &str, generation: &str) -> Seen {
    let begin = format!("{prefix}:orders-by-status:view:{generation}:");
    let mut seen = Seen::new();
    for key in ["counts", "status", "versions"] {
        let fields: BTreeMap<String, String> =
            redis.hgetall(format!("{begin}{key}")).await.unwrap();
        seen.extend(
            fields
                .into_iter()
                .map(|(field, value)| ((key.to_owned(), field), value)),
        );
    }
    for key in ["cents", "last"] {
        let value: Option<String> = redis.get(format!("{begin}{key}")).await.unwrap();
        seen.extend(value.map(|value| ((key.to_owned(), String::new()), value)));
    }
    seen
}

/// Waits until the view of the only partition is what the aggregates say.
pub async fn agrees(
    redis: &mut MultiplexedConnection,
    store: &RedisEventStore,
    ids: &[String],
    but: &[EntryId],
) {
    for (partition, stream) in store.public().names().enumerate() {
        let prefix = if stream.contains('{') {
            stream.to_owned()
        } else {
            format!("{{{stream}}}")
        };
        let expected = by_aggregates(store, ids, partition, but).await;
        eventually(
            PATIENCE,
            format!("the view of {stream} to be right"),
            async || {
                let seen = view(redis, &prefix).await;
                match seen == expected {
                    true => Ok(()),
                    false => Err(format!(
                        "is {seen:?}\nfor {expected:?}\nat {:?}",
                        checkpoint(redis, &prefix).await
                    )),
                }
            },
        )
        .await;
    }
}

/// How many entries behind the projection there are, by Redis, of a group that has nothing pending.
pub async fn lag(redis: &mut MultiplexedConnection, stream: &str) -> Option<usize> {
    let groups: redis::streams::StreamInfoGroupsReply = redis.xinfo_groups(stream).await.ok()?;
    let group = groups
        .groups
        .into_iter()
        .find(|group| group.name == "orders-by-status")?;
    assert_eq!(group.pending, 0);
    group.lag
}

pub fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("o-{n}")).collect()
}
