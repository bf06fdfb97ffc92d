//! What is published reaches the view: in order, once, whoever runs it.

use std::time::{Duration, Instant};

use streamhand::eventstore::{AggregateEvent, EventStore};
use streamhand::{EntryId, Envelope, Registry};

use super::views::{
    ByStatus, InFour, PATIENCE, agrees, any_event, checkpoint, happens, lag, names, public,
    registry, setup, store, view,
};
use crate::eventstore::orders::{Added, Created};
use crate::support::cluster::Cluster;
use crate::support::{Kind, Proxy, Server, Setup, WorkerProcess, eventually, publisher, scripts};

/// A worker with the projection in a process of its own.
pub fn process(setup: &Setup) -> WorkerProcess {
    WorkerProcess::builder()
        .test("projections::live::worker_with_a_view")
        .config(&setup.toml())
        .start()
}

#[test]
#[ignore = "run by other tests"]
fn worker_with_a_view() {
    crate::support::run_worker(registry());
}

on_both_servers! {
    async fn events_reach_the_view_in_their_order_and_others_are_passed_over(server: Server) {
        let mut redis = server.connect().await;
        let (store, ids) = (store(&server, 1), names(5));
        let worker = setup(&server).start_with(registry());
        let publisher = publisher(&server.url());
        for n in 0..200 {
            happens(&store, &ids[fastrand::usize(..5)], (0..fastrand::usize(1..4)).map(|_| any_event())).await;
            if n % 20 == 0 {
                // Told to everybody and kept nowhere, of another kind, and of no type that the view takes.
                let plain = Envelope::new("order.created").json(&Created { cents: 1 }).unwrap();
                publisher.publish_envelope("orders", plain.with("subject", "order:o-1")).await.unwrap();
                let other = streamhand::eventstore::AggregateId::new("invoice", "i-1").unwrap();
                let event = || vec![Envelope::new("order.created").json(&Created { cents: 1 }).unwrap()];
                store.append(&other, event(), streamhand::eventstore::Expected::Any).await.unwrap();
                let strange = streamhand::eventstore::AggregateId::new("order", "strange").unwrap();
                store.append(&strange, vec![Envelope::new("order.seen")], streamhand::eventstore::Expected::Any).await.unwrap();
            }
        }
        agrees(&mut redis, &store, &ids, &[]).await;
        eventually(PATIENCE, "no lag", async || lag(&mut redis, "orders").await == Some(0)).await;
        let at = checkpoint(&mut redis, "{orders}").await;
        assert_eq!((&at["generation"][..], &at["state"][..], &at["bad"][..]), ("1", "running", "0"));
        worker.stop().await;
        assert!(!checkpoint(&mut redis, "{orders}").await.contains_key("runner"), "who stops leaves it to others");
        // Redis counts what comes then as what the view lacks.
        happens(&store, "o-1", [any_event(), any_event()]).await;
        assert_eq!(lag(&mut redis, "orders").await, Some(2));
        let worker = setup(&server).start_with(registry());
        agrees(&mut redis, &store, &ids, &[]).await;
        worker.stop().await;
    }

    async fn a_server_that_cuts_large_answers_is_asked_for_less(server: Server) {
        let redis = server.connect().await;
        let (store, ids) = (store(&server, 4), names(8));
        for id in &ids {
            happens(&store, id, (0..50).map(|_| any_event())).await;
            let large = (0..8).map(|_| any_event().encode(streamhand::Format::Json).unwrap());
            let large = large.map(|event| event.with("blob", "x".repeat(300 << 10)));
            let id = streamhand::eventstore::AggregateId::new("order", id).unwrap();
            store.append(&id, large.collect(), streamhand::eventstore::Expected::Any).await.unwrap();
        }
        let limit = async |limit: &str| {
            let mut config = redis::cmd("CONFIG");
            config.arg("SET").arg("client-output-buffer-limit").arg(limit);
            let () = config.query_async(&mut redis.clone()).await.unwrap();
        };
        // One fits, and not one of each stream.
        limit("normal 600000 600000 0").await;
        let worker = setup(&server).start_with(Registry::new().projection(InFour(ByStatus::default())));
        for stream in public(4).names() {
            eventually(PATIENCE, "no lag", async || lag(&mut redis.clone(), stream).await == Some(0)).await;
        }
        worker.stop().await;
        limit("normal 0 0 0").await;
        agrees(&mut redis.clone(), &store, &ids, &[]).await;
    }

    async fn each_partition_has_its_view(server: Server) {
        let mut redis = server.connect().await;
        let (store, ids) = (store(&server, 4), names(20));
        let workers = [0, 1].map(|_| setup(&server).start_with(Registry::new().projection(InFour(ByStatus::default()))));
        for _ in 0..200 {
            happens(&store, &ids[fastrand::usize(..20)], [any_event()]).await;
        }
        agrees(&mut redis, &store, &ids, &[]).await;
        for stream in public(4).names() {
            eventually(PATIENCE, "no lag", async || lag(&mut redis, stream).await == Some(0)).await;
        }
        for worker in workers {
            worker.stop().await;
        }
    }

    /// Four partitions, in four slots of one node.
    async fn a_view_in_one_slot_waits_for_no_other_at_its_node(kind: Kind) {
        let cluster = Cluster::start(kind, 1, false).await;
        let mut redis = cluster.node(0).connect().await;
        let (store, ids) = (store(cluster.node(0), 4), names(8));
        let worker = setup(cluster.node(0)).start_with(Registry::new().projection(InFour(ByStatus::default())));
        for id in &ids {
            happens(&store, id, [any_event()]).await;
        }
        agrees(&mut redis, &store, &ids, &[]).await;
        for id in &ids {
            let since = Instant::now();
            happens(&store, id, [any_event()]).await;
            agrees(&mut redis, &store, &ids, &[]).await;
            assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
        }
        worker.stop().await;
    }

    async fn a_batch_whose_answer_got_lost_is_applied_once(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = Proxy::start(server.port()).await;
        let (store, ids) = (store(&server, 1), names(3));
        let worker = Setup::at(proxy.url()).start_with(registry());
        happens(&store, "o-0", [any_event()]).await;
        agrees(&mut redis, &store, &ids, &[]).await;
        for round in 0..6 {
            let step = scripts::call("project");
            let caught = if round % 3 == 2 { proxy.cut_before(step) } else { proxy.cut_after(step) };
            happens(&store, &ids[round % 3], [any_event(), any_event()]).await;
            caught.within(PATIENCE).await;
            agrees(&mut redis, &store, &ids, &[]).await;
        }
        worker.stop().await;
    }

    async fn who_was_frozen_and_wakes_up_writes_nothing(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = Proxy::start(server.port()).await;
        let (store, ids) = (store(&server, 1), names(3));
        let first = Setup::at(proxy.url()).worker("lease = \"1s\"").start_with(registry());
        happens(&store, "o-0", [any_event()]).await;
        agrees(&mut redis, &store, &ids, &[]).await;
        let whose = checkpoint(&mut redis, "{orders}").await.remove("runner").unwrap();
        // Its batch is on the way, and nothing more is heard of it.
        let held = proxy.hold_request(scripts::call("project"));
        happens(&store, "o-1", [any_event(), Added { cents: 7 }.into()]).await;
        let release = held.within(PATIENCE).await;
        let second = setup(&server).worker("lease = \"1s\"").start_with(registry());
        agrees(&mut redis, &store, &ids, &[]).await;
        let now = checkpoint(&mut redis, "{orders}").await;
        assert_ne!(now["runner"], whose);
        release.now();
        // It asks again before long, and is told.
        eventually(PATIENCE, "the first one to have come again", async || {
            let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut redis).await.unwrap();
            clients.lines().any(|line| line.contains(&format!("name={whose}:")) && line.contains("cmd=evalsha"))
        })
        .await;
        happens(&store, "o-2", [any_event()]).await;
        agrees(&mut redis, &store, &ids, &[]).await;
        second.stop().await;
        happens(&store, "o-2", [any_event()]).await;
        agrees(&mut redis, &store, &ids, &[]).await;
        first.stop().await;
    }

    async fn another_worker_takes_over_within_a_lease_of_one_that_died(server: Server) {
        let mut redis = server.connect().await;
        let (store, ids) = (store(&server, 1), names(3));
        let setup = setup(&server).worker("lease = \"1500ms\"");
        let mut first = process(&setup);
        happens(&store, "o-0", [any_event()]).await;
        agrees(&mut redis, &store, &ids, &[]).await;
        let second = setup.start_with(registry());
        let one = checkpoint(&mut redis, "{orders}").await["runner"].clone();
        assert!(one.contains(&format!("-{}-", first.pid())), "{one}");
        // Nobody takes it from a worker that lives, whether or not there is something to do.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(checkpoint(&mut redis, "{orders}").await["runner"], one);
        first.kill();
        happens(&store, "o-1", [any_event()]).await;
        let since = tokio::time::Instant::now();
        agrees(&mut redis, &store, &ids, &[]).await;
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
        assert_ne!(checkpoint(&mut redis, "{orders}").await["runner"], one);
        second.stop().await;
    }

    async fn nothing_is_trimmed_that_the_view_does_not_have(server: Server) {
        let mut redis = server.connect().await;
        let (store, ids) = (store(&server, 1), names(3));
        let orders = setup(&server).worker("streams = [\"orders\"]").more("[streams.orders]\nretention = \"acked\"");
        let handlers = || ["order.created", "order.added", "order.shipped"].iter().fold(Registry::new(), |registry, name| registry.ignore(name));
        let worker = orders.start_with(handlers().projection(ByStatus::default()));
        happens(&store, "o-0", [any_event()]).await;
        agrees(&mut redis, &store, &ids, &[]).await;
        worker.stop().await;
        // The group's workers have settled what the view has not seen.
        happens(&store, "o-1", [any_event(), any_event()]).await;
        let worker = orders.start_with(handlers());
        crate::support::settled(&mut redis, "orders", PATIENCE).await;
        eventually(PATIENCE, "the stream to be trimmed to it", async || {
            let length: usize = redis::cmd("XLEN").arg("orders").query_async(&mut redis).await.unwrap();
            length == 2
        })
        .await;
        worker.stop().await;
        let before: Vec<EntryId> = crate::support::entries(&mut redis, "orders").await.iter().map(|entry| entry.id).collect();
        assert_eq!(before.len(), 2);
        let worker = orders.start_with(handlers().projection(ByStatus::default()));
        agrees(&mut redis, &store, &ids, &[]).await;
        eventually(PATIENCE, "the stream to be trimmed", async || {
            let length: usize = redis::cmd("XLEN").arg("orders").query_async(&mut redis).await.unwrap();
            length == 0
        })
        .await;
        worker.stop().await;
        assert!(!view(&mut redis, "{orders}").await.is_empty());
    }
}
