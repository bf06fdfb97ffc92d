//! The history of a category is read from its aggregates, in the order in which it happened.

use std::collections::HashSet;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use streamhand::eventstore::{
    AggregateId, Append, EventStore, Expected, History, PublicStreams, RedisEventStore, StoredEvent,
};
use streamhand::{EntryId, Envelope, ErrorKind};

use super::shelf::{event, events, order, orders, stored};
use super::{run, store_of};
use crate::support::{Exchange, Proxy, Server, WorkerProcess};

const PATIENCE: Duration = Duration::from_secs(30);
const URL: &str = "STREAMHAND_TEST_STORE";

pub type Told = (AggregateId, StoredEvent);

/// Everything that comes.
pub async fn all_of(mut history: History) -> Vec<Told> {
    let mut all = Vec::new();
    while let Some(event) = history.next().await.unwrap() {
        all.push((event.aggregate, event.stored));
    }
    all
}

/// Appends so many times to aggregates of kinds, a few events each time.
async fn appends(
    store: &RedisEventStore,
    kinds: &[&str],
    aggregates: u32,
    count: usize,
) -> HashSet<AggregateId> {
    let mut all = HashSet::new();
    for _ in 0..count {
        let kind = kinds[fastrand::usize(..kinds.len())];
        let id = AggregateId::new(kind, &format!("a-{}", fastrand::u32(..aggregates))).unwrap();
        let some = vec![Envelope::new("order.changed"); fastrand::usize(1..5)];
        store.append(&id, some, Expected::Any).await.unwrap();
        all.insert(id);
    }
    all
}

/// What the aggregates have, in the order of their positions.
pub async fn merged<'a>(
    store: &RedisEventStore,
    of: impl Iterator<Item = &'a AggregateId>,
) -> Vec<Told> {
    let mut all = Vec::new();
    for aggregate in of {
        let events = stored(store, aggregate, 1).await;
        all.extend(events.into_iter().map(|event| (aggregate.clone(), event)));
    }
    all.sort_by_key(|(_, event)| event.position);
    all
}

/// Keys that look like aggregates', and are none.
async fn add_strangers(redis: &mut MultiplexedConnection, prefix: &str) {
    let entry = ["*", "type", "order.changed"];
    run(
        redis,
        &[&["XADD", &format!("{prefix}:order:dead")], &entry[..]].concat(),
    )
    .await;
    run(
        redis,
        &[&["XADD", &format!("{prefix}:workers:again")], &entry[..]].concat(),
    )
    .await;
    run(
        redis,
        &[
            "HSET",
            &format!("{prefix}:order:a-1:snapshot"),
            "version",
            "1",
        ],
    )
    .await;
    run(redis, &["SET", &format!("{prefix}:note:text"), "no stream"]).await;
}

on_both_servers! {
    async fn the_events_of_a_category_come_in_order_from_its_aggregates(server: Server) {
        let mut redis = server.connect().await;
        // A name that as a pattern means others, and not itself.
        for (public, partitions) in [("or[d]*?ers", 1), ("orders", 4)] {
            let public = PublicStreams::new(public).unwrap().partitions(partitions).unwrap();
            let store = store_of(&server.url(), public.clone());
            let ids = appends(&store, &["order", "bill", "note"], 20, 300).await;
            let elsewhere = store_of(&server.url(), PublicStreams::new("ordXers").unwrap());
            appends(&elsewhere, &["order"], 20, 20).await;
            let names: Vec<_> = public.names().map(str::to_owned).collect();
            for (partition, stream) in names.iter().enumerate() {
                let prefix = if stream.contains('{') { stream.clone() } else { format!("{{{stream}}}") };
                add_strangers(&mut redis, &prefix).await;
                run(&mut redis, &["XTRIM", stream, "MAXLEN", "0"]).await;
                let mine = ids.iter().filter(|id| public.partition(id) == partition && id.kind() != "note");
                let expected = merged(&store, mine).await;
                assert!(expected.len() > 50);
                let kinds = ["order", "bill"];
                assert_eq!(all_of(store.history(&kinds, partition).unwrap()).await, expected);

                let mut counted = store.history(&kinds, partition).unwrap();
                assert_eq!(counted.total().await.unwrap(), expected.len() as u64);
                for _ in 0..8 {
                    let (a, b) = (fastrand::usize(..expected.len()), fastrand::usize(..expected.len()));
                    let (a, b) = (a.min(b), a.max(b));
                    let [after, up_to] = [a, b].map(|at| expected[at].1.position);
                    let part = store.history(&kinds, partition).unwrap().after(after).up_to(up_to);
                    assert_eq!(all_of(part).await, expected[a + 1..=b], "{after} {up_to}");
                }
            }
            let mut listed = Vec::new();
            let mut list = store.aggregates("order").unwrap();
            while let Some(id) = list.next().await.unwrap() {
                listed.push(id);
            }
            listed.sort();
            let mut orders: Vec<_> = ids.iter().filter(|id| id.kind() == "order").cloned().collect();
            orders.sort();
            assert_eq!(listed, orders);
        }
        assert_eq!(store_of(&server.url(), orders()).history(&["Order"], 0).err().unwrap().kind(), ErrorKind::Invalid);
        assert_eq!(store_of(&server.url(), orders()).history(&["order"], 1).err().unwrap().kind(), ErrorKind::Invalid);
    }

    async fn what_is_stored_meanwhile_is_behind_the_end(server: Server) {
        let store = store_of(&server.url(), orders());
        let nothing = store.history(&["order"], 0).unwrap();
        assert_eq!(all_of(nothing).await, []);
        appends(&store, &["order"], 5, 20).await;
        let mut history = store.history(&["order"], 0).unwrap();
        let (end, total) = (history.end().await.unwrap(), history.total().await.unwrap());
        appends(&store, &["order"], 50, 50).await;
        let first = all_of(history).await;
        assert_eq!((first.len() as u64, first.last().unwrap().1.position), (total, end));
        let then = all_of(store.history(&["order"], 0).unwrap().after(end)).await;
        let all = all_of(store.history(&["order"], 0).unwrap()).await;
        assert!(then.len() >= 50 && all == [first, then].concat());

        // The public stream itself may be gone.
        run(&mut server.connect().await, &["DEL", "orders"]).await;
        assert_eq!(all_of(store.history(&["order"], 0).unwrap()).await, all);
    }

    async fn a_lost_connection_leaves_nothing_out_and_nothing_comes_twice(server: Server) {
        let proxy = Proxy::start(server.port()).await;
        let store = store_of(&server.url(), orders());
        let ids: Vec<_> = (0..3_000).map(|n| order(&format!("o-{n}"))).collect();
        for some in ids.chunks(100) {
            let appends = some.iter().map(|id| Append::new(id.clone(), vec![event(id.id())], Expected::NoStream));
            store.append_all(appends.collect()).await.unwrap();
        }
        let cut_off = store_of(&proxy.url(), orders());
        let mut list = cut_off.aggregates("order").unwrap();
        let (mut listed, mut errors) = (Vec::new(), 0);
        let mut history = cut_off.history(&["order"], 0).unwrap();
        let mut read = Vec::new();
        loop {
            if errors < 4 && fastrand::u8(..) < 4 {
                proxy.cut().await;
            }
            match list.next().await {
                Ok(Some(id)) => listed.push(id),
                Ok(None) => break,
                Err(error) if error.kind() == ErrorKind::Unreachable => errors += 1,
                Err(error) => panic!("{error}"),
            }
        }
        loop {
            if errors < 8 && fastrand::u8(..) < 4 {
                proxy.cut().await;
            }
            match history.next().await {
                Ok(Some(event)) => read.push(event),
                Ok(None) => break,
                Err(error) if error.kind() == ErrorKind::Unreachable => errors += 1,
                Err(error) => panic!("{error}"),
            }
        }
        let once: HashSet<_> = listed.iter().collect();
        assert_eq!((listed.len(), once.len()), (3_000, 3_000));
        assert!(read.iter().map(|event| event.aggregate.clone()).eq(ids.clone()));

        // What was read last may have come before the last cut: whoever asks next finds out.
        let _ = cut_off.history(&["order"], 0).unwrap().total().await;
        // As the second page of keys is asked for: those of the first one come again.
        let caught = proxy.cut_before(Exchange::of("SCAN").second());
        let mut history = cut_off.history(&["order"], 0).unwrap();
        assert!(history.total().await.is_err());
        caught.within(PATIENCE).await;
        assert_eq!(history.total().await.unwrap(), 3_000);
        assert_eq!(all_of(history).await.len(), 3_000);
    }

    async fn an_event_that_is_missing_is_an_error_when_its_turn_comes(server: Server) {
        let (mut redis, store) = (server.connect().await, store_of(&server.url(), orders()));
        for id in ["a", "b", "c"].map(order) {
            store.append(&id, events(&[&format!("{id}-1"), &format!("{id}-2"), &format!("{id}-3")]), Expected::NoStream)
                .await.unwrap();
        }
        run(&mut redis, &["XDEL", "{orders}:order:b", "2-0"]).await;
        let mut history = store.history(&["order"], 0).unwrap();
        for expected in ["order:a-1", "order:a-2", "order:a-3", "order:b-1"] {
            assert_eq!(history.next().await.unwrap().unwrap().stored.envelope.id(), expected);
        }
        for _ in 0..2 {
            let error = history.next().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert!(error.to_string().contains("order:b lacks its event 2"), "{error}");
        }
        let last = store.page(&order("b"), 3, 1).await.unwrap()[0].position;
        let behind = all_of(store.history(&["order"], 0).unwrap().after(last)).await;
        assert_eq!(behind.len(), 3);
        run(&mut redis, &["XADD", "{orders}:order:stranger", "1700000000000-0", "a", "b"]).await;
        let error = store.history(&["order"], 0).unwrap().after(last).next().await.unwrap_err();
        assert!(error.to_string().contains("order:stranger"), "{error}");
    }

    async fn many_aggregates_are_read_with_little_memory(server: Server) {
        let store = store_of(&server.url(), orders());
        let bulk = |_| Envelope::new("order.changed").with("data", "x".repeat(1_000));
        // Events of all of them are next to each other, over and over.
        for round in 0..10 {
            for some in (0..2_000).collect::<Vec<_>>().chunks(100) {
                let appends = some.iter().map(|n| {
                    Append::new(order(&format!("o-{n}")), (0..5).map(bulk).collect(), Expected::Exact(5 * round))
                });
                store.append_all(appends.collect()).await.unwrap();
            }
        }
        let mut process = WorkerProcess::builder().test("eventstore::category::read").env(URL, server.url()).start();
        let line = process.wait_for_log("read ", Duration::from_secs(90)).await;
        let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        assert_eq!(numbers[0], 100_000, "{line}");
        // Over 100 MB have come.
        assert!(numbers[1] < 48 << 10, "{line}");
    }
}

/// In a process of its own, whose memory is nobody else's.
#[test]
#[ignore = "run by other tests"]
fn read() {
    let url = std::env::var(URL).expect("a server");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = store_of(&url, orders());
        store.version(&order("o-1")).await.unwrap();
        let before = super::loading::peak();
        let mut history = store.history(&["order"], 0).unwrap();
        let (mut count, mut last) = (0, EntryId::default());
        while let Some(event) = history.next().await.unwrap() {
            assert!(event.stored.position > last);
            last = event.stored.position;
            count += 1;
        }
        println!("read {count} {} KiB", super::loading::peak() - before);
    });
}
