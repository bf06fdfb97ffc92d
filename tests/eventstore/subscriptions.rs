//! Subscriptions tell every event once, in order, whatever is done to the public stream, to them and to their connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use streamhand::Envelope;
use streamhand::eventstore::{
    AggregateId, EventStore, Expected, Position, PublicStreams, RedisEventStore, Subscribed,
    Subscription,
};
use tokio::time::{Instant, sleep, timeout};

use super::category::{Told, merged};
use super::shelf::{event, events, order, orders, stored};
use super::{run, store_of};
use crate::support::cluster::Cluster;
use crate::support::{Kind, Proxy, Server, eventually};

const PATIENCE: Duration = Duration::from_secs(60);
const WRITERS: usize = 8;
const AGGREGATES: u32 = 20;
const APPENDS: usize = 120;

/// The next event; errors of the connection are passed over.
async fn next(subscription: &mut Subscription) -> Told {
    loop {
        match subscription.next().await {
            Ok(Subscribed::Event(event)) => return (event.aggregate, event.stored),
            Ok(_) => {}
            Err(error) if error.kind() == streamhand::ErrorKind::Unreachable => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// What is there, up to where it has caught up.
async fn until_live(subscription: &mut Subscription) -> Vec<Told> {
    let mut all = Vec::new();
    loop {
        match timeout(PATIENCE, subscription.next())
            .await
            .expect("in time")
            .unwrap()
        {
            Subscribed::Event(event) => all.push((event.aggregate, event.stored)),
            _ => return all,
        }
    }
}

async fn write(store: RedisEventStore, redis: redis::aio::MultiplexedConnection) {
    for _ in 0..APPENDS {
        let kind = if fastrand::u8(..) < 40 {
            "note"
        } else {
            "order"
        };
        let id = AggregateId::new(kind, &format!("o-{}", fastrand::u32(..AGGREGATES))).unwrap();
        let some = vec![Envelope::new("order.changed"); fastrand::usize(1..4)];
        store.append(&id, some, Expected::Any).await.unwrap();
        let stream = store.public().of(&id).to_owned();
        let mut redis = redis.clone();
        match fastrand::u8(..) {
            0..40 => {
                run(
                    &mut redis,
                    &["XTRIM", &stream, "MAXLEN", &fastrand::u8(0..4).to_string()],
                )
                .await
            }
            40..60 => {
                run(
                    &mut redis,
                    &[
                        "XADD",
                        &stream,
                        "*",
                        "type",
                        "order.changed",
                        "subject",
                        "order:o-1",
                    ],
                )
                .await
            }
            60..80 => {
                // The newest one, or one of the last few.
                let newest: Vec<(String, HashMap<String, String>)> = redis::cmd("XREVRANGE")
                    .arg(&[&stream[..], "+", "-", "COUNT", "3"])
                    .query_async(&mut redis)
                    .await
                    .unwrap();
                if let Some((id, _)) = newest.get(fastrand::usize(..3)) {
                    run(&mut redis, &["XDEL", &stream, id]).await;
                }
            }
            _ => {}
        }
        sleep(Duration::from_millis(fastrand::u64(..8))).await;
    }
}

/// Each once, in order within its partition and within its aggregate, none left out.
async fn check(store: &RedisEventStore, told: &[Told]) {
    let ids: Vec<_> = (0..AGGREGATES).map(|n| order(&format!("o-{n}"))).collect();
    let public = store.public();
    for (partition, _) in public.names().enumerate() {
        let mine = |id: &&AggregateId| public.partition(id) == partition;
        let expected = merged(store, ids.iter().filter(mine)).await;
        let got: Vec<_> = told.iter().filter(|(id, _)| mine(&id)).cloned().collect();
        for (got, expected) in got.iter().zip(&expected) {
            assert_eq!(got, expected, "partition {partition}");
        }
        assert_eq!(got.len(), expected.len(), "partition {partition}");
    }
}

async fn told_once(server: &Server, url: String, partitions: u32, proxy: Option<&Proxy>) {
    let public = orders().partitions(partitions).unwrap();
    let store = store_of(&server.url(), public.clone());
    let reading = store_of(&url, public);
    let redis = server.connect().await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| tokio::spawn(write(store.clone(), redis.clone())))
        .collect();
    let done = Arc::new(AtomicBool::new(false));
    let is_done = done.clone();
    let writing = tokio::spawn(async move {
        for writer in writers {
            writer.await.expect("no writer fails");
        }
        is_done.store(true, Ordering::SeqCst);
    });
    let (mut told, mut position, mut resumed) = (Vec::new(), None::<String>, 0);
    loop {
        let was_done = done.load(Ordering::SeqCst);
        let mut subscription = reading.subscribe(&["order"]).unwrap();
        if let Some(position) = &position {
            subscription = subscription
                .after(&position.parse::<Position>().unwrap())
                .unwrap();
        }
        if was_done {
            loop {
                match subscription.next().await {
                    Ok(Subscribed::Event(event)) => told.push((event.aggregate, event.stored)),
                    Ok(_) => break,
                    Err(error) => {
                        assert_eq!(error.kind(), streamhand::ErrorKind::Unreachable, "{error}")
                    }
                }
            }
            break;
        }
        let until = Instant::now() + Duration::from_millis(fastrand::u64(..200));
        while Instant::now() < until {
            // Calls are given up at any moment.
            let some = Duration::from_micros(fastrand::u64(..8_000));
            if let Ok(event) = timeout(some, next(&mut subscription)).await {
                told.push(event);
            }
            if let Some(proxy) = proxy
                && fastrand::u8(..) < 4
            {
                proxy.cut().await;
            }
        }
        position = Some(subscription.position().to_string());
        resumed += 1;
    }
    writing.await.unwrap();
    assert!(resumed > 3, "{resumed}");
    check(&store, &told).await;
}

on_both_servers! {
    async fn every_event_is_told_once_while_the_stream_is_trimmed(server: Server) {
        told_once(&server, server.url(), 1, None).await;
    }

    async fn every_event_of_four_partitions_is_told_once_while_they_are_trimmed(server: Server) {
        told_once(&server, server.url(), 4, None).await;
    }

    async fn every_event_is_told_once_over_connections_that_break(server: Server) {
        let proxy = Proxy::start(server.port()).await;
        told_once(&server, proxy.url(), 2, Some(&proxy)).await;
    }

    async fn an_event_is_told_as_soon_as_it_is_stored(server: Server) {
        let proxy = Proxy::start(server.port()).await;
        let store = store_of(&server.url(), orders().partitions(4).unwrap());
        let reading = store_of(&proxy.url(), orders().partitions(4).unwrap());
        let mut category = reading.subscribe(&["order"]).unwrap();
        let mut one = reading.subscribe_to(&order("o-1"));
        assert!(until_live(&mut category).await.is_empty() && until_live(&mut one).await.is_empty());
        assert!(category.is_live() && one.is_live());
        let mut slowest = Duration::ZERO;
        for n in 1..=20 {
            let id = order(if n % 2 == 0 { "o-1" } else { "o-2" });
            // Both wait when it is stored, and have been for a while.
            assert!(timeout(Duration::from_millis(60), category.next()).await.is_err());
            assert!(timeout(Duration::from_millis(20), one.next()).await.is_err());
            let begin = Instant::now();
            store.append(&id, vec![event(&format!("e-{n}"))], Expected::Any).await.unwrap();
            assert_eq!(next(&mut category).await.1.envelope.id(), format!("e-{n}"));
            if n % 2 == 0 {
                assert_eq!(next(&mut one).await.1.version, n / 2);
            }
            slowest = slowest.max(begin.elapsed());
        }
        assert!(slowest < Duration::from_millis(500), "{slowest:?}");
        // While nothing comes, nothing is asked.
        let _ = timeout(Duration::from_millis(100), category.next()).await;
        let _ = timeout(Duration::from_millis(100), one.next()).await;
        let before = proxy.traffic();
        let _ = timeout(Duration::from_millis(900), category.next()).await;
        let _ = timeout(Duration::from_millis(900), one.next()).await;
        let asked = proxy.traffic().since(&before).requests();
        assert!(asked <= 4, "{asked} requests");
    }

    /// Four partitions, in four slots of one node.
    async fn who_waits_in_one_slot_holds_up_no_other_at_its_node(kind: Kind) {
        let cluster = Cluster::start(kind, 1, false).await;
        let public = || orders().partitions(4).unwrap();
        let store = store_of(&cluster.node(0).url(), public());
        let reading = store_of(&cluster.node(0).url(), public());
        let mut categories = [(); 2].map(|()| reading.subscribe(&["order"]).unwrap());
        for category in &mut categories {
            assert!(until_live(category).await.is_empty());
        }
        let of = |partition| (0..).map(|n| order(&format!("o-{n}"))).find(|id| public().partition(id) == partition).unwrap();
        for partition in 0..4 {
            for category in &mut categories {
                assert!(timeout(Duration::from_millis(60), category.next()).await.is_err());
            }
            let begin = Instant::now();
            store.append(&of(partition), events(&["a"]), Expected::Any).await.unwrap();
            for category in &mut categories {
                next(category).await;
            }
            assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        }
    }

    async fn a_server_that_cuts_large_answers_is_asked_for_less(server: Server) {
        let mut redis = server.connect().await;
        let store = store_of(&server.url(), orders());
        let large = |id: &str| event(id).with("blob", "x".repeat(100 << 10));
        let many = |range: std::ops::Range<usize>| range.map(|n| format!("e-{n}"));
        for id in ["o-1", "o-2"] {
            store.append(&order(id), many(0..100).map(|id| event(&id)).collect(), Expected::Any).await.unwrap();
            store.append(&order(id), many(100..140).map(|id| large(&id)).collect(), Expected::Any).await.unwrap();
        }
        run(&mut redis, &["CONFIG", "SET", "client-output-buffer-limit", "normal 1048576 1048576 0"]).await;
        // From the public stream, and from the aggregates where that no longer has them.
        for is_there in [true, false] {
            if !is_there {
                run(&mut redis, &["XTRIM", "orders", "MAXLEN", "0"]).await;
            }
            let reading = store_of(&server.url(), orders());
            let mut category = reading.subscribe(&["order"]).unwrap();
            let mut one = reading.subscribe_to(&order("o-1"));
            let telling = async {
                for _ in 0..280 {
                    next(&mut category).await;
                }
                for version in 1..=140 {
                    assert_eq!(next(&mut one).await.1.version, version);
                }
            };
            timeout(Duration::from_secs(20), telling).await.expect("all to be told");
        }
    }

    async fn a_position_goes_on_from_where_it_was_taken(server: Server) {
        let mut redis = server.connect().await;
        let store = store_of(&server.url(), orders());
        store.append(&order("o-1"), events(&["a", "b", "c"]), Expected::NoStream).await.unwrap();
        store.append(&"bill:b-1".parse().unwrap(), events(&["x"]), Expected::NoStream).await.unwrap();
        let ids = |all: Vec<Told>| all.iter().map(|(_, event)| event.envelope.id().into_owned()).collect::<Vec<_>>();
        let mut first = store.subscribe(&["order", "bill"]).unwrap();
        assert_eq!(next(&mut first).await.1.version, 1);
        let position: Position = first.position().to_string().parse().unwrap();
        assert_eq!(position, first.position());
        for trim in ["1000", "2", "0"] {
            run(&mut redis, &["XTRIM", "orders", "MAXLEN", trim]).await;
            let mut then = store.subscribe(&["order", "bill"]).unwrap().after(&position).unwrap();
            assert_eq!(ids(until_live(&mut then).await), ["b", "c", "x"], "{trim}");
            let mut all = store.subscribe(&["order"]).unwrap();
            assert_eq!(ids(until_live(&mut all).await), ["a", "b", "c"], "{trim}");
        }
        // The stream itself can go, and come again.
        run(&mut redis, &["DEL", "orders"]).await;
        run(&mut redis, &["XGROUP", "CREATE", "orders", "workers", "$", "MKSTREAM"]).await;
        assert_eq!(ids(until_live(&mut store.subscribe(&["order"]).unwrap()).await), ["a", "b", "c"]);
        run(&mut redis, &["DEL", "orders"]).await;
        let mut live = store.subscribe(&["order"]).unwrap();
        assert_eq!(ids(until_live(&mut live).await), ["a", "b", "c"]);
        store.append(&order("o-1"), events(&["d"]), Expected::Exact(3)).await.unwrap();
        assert_eq!(next(&mut live).await.1.envelope.id(), "d");
        assert_eq!(ids(until_live(&mut store.subscribe(&["order"]).unwrap().after(&position).unwrap()).await), ["b", "c", "d"]);

        let mut one = store.subscribe_to(&order("o-1"));
        assert_eq!(next(&mut one).await.1.version, 1);
        let version = one.position();
        assert_eq!(version.to_string(), "1");
        let mut then = store.subscribe_to(&order("o-1")).after(&version).unwrap();
        assert_eq!(ids(until_live(&mut then).await), ["b", "c", "d"]);
        assert!(store.subscribe(&["order"]).unwrap().after(&version).is_err());
        assert!(store.subscribe_to(&order("o-1")).after(&position).is_err());
        assert!(store.subscribe(&["Order"]).is_err() && store.subscribe(&["order"]).unwrap().in_partition(1).is_err());
        let spread = store_of(&server.url(), PublicStreams::new("orders").unwrap().partitions(2).unwrap());
        assert!(spread.subscribe(&["order"]).unwrap().after(&position).is_err());
        assert!(spread.subscribe(&["order"]).unwrap().in_partition(1).unwrap().after(&position).is_ok());
    }

    async fn nothing_is_missed_where_the_stream_was_made_anew_a_moment_ago(server: Server) {
        let mut redis = server.connect().await;
        let store = store_of(&server.url(), orders());
        for n in 1..=50 {
            store.append(&order("o-1"), events(&[&format!("e-{n}")]), Expected::Exact(n - 1)).await.unwrap();
            run(&mut redis, &["DEL", "orders"]).await;
            run(&mut redis, &["XGROUP", "CREATE", "orders", "workers", "$", "MKSTREAM"]).await;
            let told = until_live(&mut store.subscribe(&["order"]).unwrap()).await;
            let versions: Vec<u64> = told.iter().map(|(_, event)| event.version).collect();
            assert_eq!(versions, (1..=n).collect::<Vec<_>>());
            run(&mut redis, &["DEL", "orders"]).await;
        }
    }

    async fn nothing_is_missed_where_the_stream_is_made_anew_below_what_others_had_put_there(server: Server) {
        let mut redis = server.connect().await;
        let store = store_of(&server.url(), orders());
        let ids = |all: Vec<Told>| all.iter().map(|(_, event)| event.envelope.id().into_owned()).collect::<Vec<_>>();
        store.append(&order("o-1"), events(&["a"]), Expected::NoStream).await.unwrap();
        // Two hours ahead of the clock an event, and far ahead of that an entry of somebody else.
        let (seconds, _): (u64, u64) = redis::cmd("TIME").query_async(&mut redis).await.unwrap();
        run(&mut redis, &["XSETID", "orders", &format!("{}-0", (seconds + 7_200) * 1_000)]).await;
        store.append(&order("o-1"), events(&["b"]), Expected::Exact(1)).await.unwrap();
        run(&mut redis, &["XADD", "orders", &format!("{}-0", (seconds + 10_000) * 1_000), "type", "order.seen"]).await;
        let mut live = store.subscribe(&["order"]).unwrap();
        assert_eq!(ids(until_live(&mut live).await), ["a", "b"]);
        let kept = live.position().to_string().parse().unwrap();
        run(&mut redis, &["RENAME", "orders", "old"]).await;
        run(&mut redis, &["XADD", "orders", "*", "type", "order.seen"]).await;
        store.append(&order("o-1"), events(&["c", "d"]), Expected::Exact(2)).await.unwrap();
        assert_eq!(timeout(PATIENCE, next(&mut live)).await.expect("in time").1.envelope.id(), "c");
        assert_eq!(timeout(PATIENCE, next(&mut live)).await.expect("in time").1.envelope.id(), "d");
        let mut again = store.subscribe(&["order"]).unwrap().after(&kept).unwrap();
        assert_eq!(ids(until_live(&mut again).await), ["c", "d"]);

        // Where it is not known any more how far it was, that is said, and not passed over.
        let kept = again.position().to_string().parse().unwrap();
        run(&mut redis, &["DEL", "orders", "{orders}:reached"]).await;
        store.append(&order("o-2"), events(&["e"]), Expected::NoStream).await.unwrap();
        let mut lost = store.subscribe(&["order"]).unwrap().after(&kept).unwrap();
        let error = timeout(PATIENCE, lost.next()).await.expect("in time").unwrap_err();
        assert_eq!(error.kind(), streamhand::ErrorKind::NotFound);
        assert!(error.to_string().contains("orders ends at"), "{error}");
    }

    async fn an_aggregate_is_told_once_over_connections_that_break(server: Server) {
        let proxy = Proxy::start(server.port()).await;
        let (store, reading) = (store_of(&server.url(), orders()), store_of(&proxy.url(), orders()));
        let id = order("o-1");
        let (writer, of) = (store.clone(), id.clone());
        let writing = tokio::spawn(async move {
            for _ in 0..300 {
                let some = vec![Envelope::new("order.changed"); fastrand::usize(1..4)];
                writer.append(&of, some, Expected::Any).await.unwrap();
                sleep(Duration::from_millis(fastrand::u64(..6))).await;
            }
        });
        let (mut told, mut subscription) = (Vec::new(), reading.subscribe_to(&id));
        while !writing.is_finished() {
            if let Ok((_, event)) = timeout(Duration::from_micros(fastrand::u64(..8_000)), next(&mut subscription)).await {
                told.push(event);
            }
            if fastrand::u8(..) < 3 {
                proxy.cut().await;
            }
            if fastrand::u8(..) < 10 {
                let position = subscription.position().to_string().parse().unwrap();
                subscription = reading.subscribe_to(&id).after(&position).unwrap();
            }
        }
        writing.await.unwrap();
        let all = stored(&store, &id, 1).await;
        while told.len() < all.len() {
            told.push(timeout(PATIENCE, next(&mut subscription)).await.expect("in time").1);
        }
        assert_eq!(told, all);
    }

    async fn an_outage_is_told_and_the_same_subscription_goes_on(server: Server) {
        let mut proxy = Proxy::start(server.port()).await;
        let store = store_of(&server.url(), orders());
        let mut subscription = store_of(&proxy.url(), orders()).subscribe(&["order"]).unwrap();
        store.append(&order("o-1"), events(&["a"]), Expected::NoStream).await.unwrap();
        assert_eq!(until_live(&mut subscription).await.len(), 1);
        assert!(timeout(Duration::from_millis(50), subscription.next()).await.is_err());
        proxy.refuse().await;
        let begin = Instant::now();
        for _ in 0..4 {
            let error = timeout(PATIENCE, subscription.next()).await.expect("in time").unwrap_err();
            assert_eq!(error.kind(), streamhand::ErrorKind::Unreachable, "{error}");
        }
        // Not a busy loop: 50, 100 and 200 ms.
        assert!(begin.elapsed() > Duration::from_millis(250) && !subscription.is_live());
        store.append(&order("o-1"), events(&["b"]), Expected::Exact(1)).await.unwrap();
        proxy.accept_again();
        assert_eq!(next(&mut subscription).await.1.envelope.id(), "b");
        eventually(PATIENCE, "it to be live", async || {
            let _ = timeout(Duration::from_millis(50), subscription.next()).await;
            subscription.is_live()
        })
        .await;
    }
}
