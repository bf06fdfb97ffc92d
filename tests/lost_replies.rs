//! What gets lost between a worker and Redis takes nothing along: what a lost reply brought is found where it still
//! is, with this worker, and every step is repeated until it is known to be done, and is done once. It makes no
//! difference whether the request got lost, or its answer, or whether the answer only came late.

mod scene;

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;

use crate::support::jobs::{self, Action, Job, many};
use crate::support::{Exchange, Proxy, Server, Setup, eventually, scripts, settled};
use scene::{Loss, Scene, with_each_loss};

const PATIENCE: Duration = Duration::from_secs(30);

on_both_servers! {
    /// With a lease of half a minute, nothing that waits for one would be in time.
    async fn entries_of_a_read_whose_connection_breaks_are_handled_once_it_is_made_again(server: Server) {
        let mut redis = server.connect().await;
        let proxy = Proxy::start(server.port()).await;
        let worker = Setup::at(proxy.url()).worker("lease = \"30s\"").start();
        until_it_reads(&mut redis, 1).await;
        let caught = proxy.cut_after(Exchange::of("XREADGROUP").and_answered("lost-0"));
        let all = many("lost", 20, &Action::Succeed);
        jobs::publish(&mut redis, "jobs", &all).await;
        caught.within(PATIENCE).await;
        let cut = Instant::now();
        settled(&mut redis, "jobs", PATIENCE).await;
        assert!(cut.elapsed() < Duration::from_secs(2), "handled after {:?}", cut.elapsed());
        let handled = jobs::handled(&mut redis).await;
        assert_eq!(handled.len(), all.len());
        assert!(handled.values().all(|times| *times == 1), "{handled:?}");
        assert!(jobs::started(&mut redis).await.iter().all(|trace| trace.attempt == 1));
        worker.stop().await;
    }

    /// A reply that is lost while the connection stays: nothing tells the reader that none will come. Another worker
    /// would take the entry over when the lease is over.
    async fn an_entry_of_a_read_that_is_never_answered_is_handled_before_its_lease_is_over(server: Server) {
        let mut redis = server.connect().await;
        let proxy = Proxy::start(server.port()).await;
        let lease = Duration::from_secs(3);
        let worker = Setup::at(proxy.url()).worker("lease = \"3s\"").start();
        until_it_reads(&mut redis, 1).await;
        let caught = proxy.swallow(Exchange::of("XREADGROUP").and_answered("lost"));
        jobs::publish(&mut redis, "jobs", &[Job::new("lost", Action::Succeed)]).await;
        caught.within(PATIENCE).await;
        let (delivered, before) = (Instant::now(), proxy.traffic().requests());
        let other = Setup::new(&server).worker("lease = \"3s\"").start();
        settled(&mut redis, "jobs", PATIENCE).await;
        assert!(delivered.elapsed() < lease, "handled after {:?}", delivered.elapsed());
        assert_eq!(attempts(&mut redis, "lost").await, [1]);
        // Waking a read that can't end must not become a spin.
        let sent = proxy.traffic().requests() - before;
        assert!(sent < 80, "{sent} commands meanwhile: {:?}", proxy.traffic());
        worker.stop().await;
        other.stop().await;
    }

    /// The worker's own connections know nothing of a delivery under its name. Another worker would take it over when
    /// the lease is over.
    async fn an_entry_that_a_worker_has_and_does_not_know_of_is_found_by_its_next_renewals(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).worker("lease = \"6s\"");
        let worker = setup.start();
        // A consumer is there from its first delivery on.
        jobs::publish(&mut redis, "jobs", &[Job::new("first", Action::Succeed)]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let info: redis::streams::StreamInfoConsumersReply =
            redis::cmd("XINFO").arg("CONSUMERS").arg("jobs").arg("workers").query_async(&mut redis).await.unwrap();
        let consumer = info.consumers[0].name.clone();
        let other = setup.start();
        until_it_reads(&mut redis, 2).await;
        // Within one transaction, or it would be delivered to a reader that waits.
        let data = serde_json::to_string(&Job::new("lost", Action::Succeed)).unwrap();
        let mut delivery = redis::pipe();
        delivery.atomic().cmd("XADD").arg("jobs").arg("*").arg("type").arg("test.job").arg("data").arg(data);
        delivery.cmd("XREADGROUP").arg("GROUP").arg("workers").arg(consumer).arg("STREAMS").arg("jobs").arg(">");
        let _: (String, redis::Value) = delivery.query_async(&mut redis).await.unwrap();
        let delivered = Instant::now();
        settled(&mut redis, "jobs", PATIENCE).await;
        // A third of the lease at most until the renewal.
        assert!(delivered.elapsed() < Duration::from_secs(4), "handled after {:?}", delivered.elapsed());
        assert_eq!(attempts(&mut redis, "lost").await, [1]);
        worker.stop().await;
        other.stop().await;
    }

    async fn a_lost_join(server: Server) {
        with_each_loss(&server, "join", async |mut scene| {
            let caught = scene.set(scripts::call("join"));
            scene.publish(5, Action::Succeed).await;
            let worker = scene.setup().start();
            caught.within(PATIENCE).await;
            scene.comes_to(worker, &[1], 0).await;
        })
        .await;
    }

    async fn a_lost_delivery(server: Server) {
        with_each_loss(&server, "deliver", async |mut scene| {
            let worker = scene.start_reading().await;
            let caught = scene.set(Exchange::of("XREADGROUP").and_answered(&scene.stream));
            scene.publish(20, Action::Take(300)).await;
            caught.within(PATIENCE).await;
            scene.comes_to(worker, &[1], 0).await;
        })
        .await;
    }

    async fn a_lost_adoption(server: Server) {
        with_each_loss(&server, "adopt", async |mut scene| {
            let worker = scene.start_reading().await;
            let delivery = scene.proxy.cut_after(Exchange::of("XREADGROUP").and_answered(&scene.stream));
            let caught = scene.set(scripts::call("adopt").and_answered(&scene.stream));
            scene.publish(20, Action::Take(300)).await;
            delivery.within(PATIENCE).await;
            caught.within(PATIENCE).await;
            scene.comes_to(worker, &[1], 0).await;
        })
        .await;
    }

    async fn a_lost_renewal(server: Server) {
        with_each_loss(&server, "renew", async |mut scene| {
            let setup = scene.setup().worker("lease = \"1500ms\"");
            let worker = setup.start();
            scene.publish(5, Action::Take(4_000)).await;
            eventually(PATIENCE, "all to run", async || scene.starts().await == 5).await;
            let idle = Setup::new(&server).worker(&scene.streams()).worker("lease = \"1500ms\"").start();
            scene.set(scripts::call("renew")).within(PATIENCE).await;
            scene.comes_to(worker, &[1], 0).await;
            idle.stop().await;
        })
        .await;
    }

    async fn a_lost_acknowledgement(server: Server) {
        with_each_loss(&server, "ack", async |mut scene| {
            let worker = scene.start_reading().await;
            let caught = scene.set(Exchange::of("XACK"));
            scene.publish(20, Action::Succeed).await;
            caught.within(PATIENCE).await;
            scene.comes_to(worker, &[1], 0).await;
        })
        .await;
    }

    async fn a_lost_acknowledgement_of_what_had_failed(server: Server) {
        with_each_loss(&server, "ack-recorded", async |mut scene| {
            let worker = scene.start_reading().await;
            let caught = scene.set(scripts::call("ack"));
            scene.publish(20, Action::Fail(1)).await;
            caught.within(PATIENCE).await;
            scene.comes_to(worker, &[1, 2], 0).await;
        })
        .await;
    }

    async fn a_lost_parking(server: Server) {
        with_each_loss(&server, "park", async |mut scene| {
            let worker = scene.start_reading().await;
            let caught = scene.set(scripts::call("park"));
            scene.publish(20, Action::Fail(1)).await;
            caught.within(PATIENCE).await;
            scene.comes_to(worker, &[1, 2], 0).await;
        })
        .await;
    }

    /// The repeat comes when the entry is on its next attempt already, and with the same worker.
    async fn a_parking_that_is_repeated_during_the_next_attempt(server: Server) {
        let mut scene = Scene::new(&server, "park-again", Loss::Answer).await;
        let worker = scene.start_reading().await;
        let first = scene.proxy.cut_after(scripts::call("park"));
        let repeat = scene.proxy.hold_request(scripts::call("park").second());
        scene.publish(1, Action::FailThenTake(1, 1_000)).await;
        first.within(PATIENCE).await;
        let repeat = repeat.within(PATIENCE).await;
        eventually(PATIENCE, "it to run again", async || scene.starts().await == 2).await;
        repeat.now();
        scene.comes_to(worker, &[1, 2], 0).await;
    }

    async fn a_lost_release(server: Server) {
        with_each_loss(&server, "release", async |mut scene| {
            let worker = scene.start_reading().await;
            let caught = scene.set(scripts::call("park"));
            scene.publish(20, Action::Later(1)).await;
            caught.within(PATIENCE).await;
            scene.comes_to(worker, &[1, 1], 0).await;
        })
        .await;
    }

    async fn a_lost_waking(server: Server) {
        with_each_loss(&server, "wake", async |mut scene| {
            let worker = scene.start_reading().await;
            scene.publish(20, Action::Fail(1)).await;
            eventually(PATIENCE, "all to have failed", async || scene.starts().await == 20).await;
            let caught = scene.set(scripts::call("wake").and_answered(&scene.stream));
            caught.within(PATIENCE).await;
            scene.comes_to(worker, &[1, 2], 0).await;
        })
        .await;
    }

    async fn a_lost_reclaim(server: Server) {
        with_each_loss(&server, "reclaim", async |mut scene| {
            let caught = scene.set(scripts::call("reclaim").and_answered(&scene.stream));
            scene.publish(20, Action::Take(300)).await;
            scene.leave_to_a_dead_worker(1).await;
            let worker = scene.setup().worker("lease = \"2s\"").start();
            caught.within(PATIENCE).await;
            scene.comes_to(worker, &[2], 0).await;
        })
        .await;
    }

    /// From the third attempt on an entry comes alone.
    async fn a_lost_reclaim_of_what_may_have_killed_its_workers(server: Server) {
        with_each_loss(&server, "reclaim-alone", async |mut scene| {
            let caught = scene.set(scripts::call("reclaim").and_answered(&scene.stream));
            scene.publish(1, Action::Take(300)).await;
            scene.leave_to_a_dead_worker(2).await;
            let worker = scene.setup().worker("lease = \"2s\"").start();
            caught.within(PATIENCE).await;
            scene.comes_to(worker, &[3], 0).await;
        })
        .await;
    }

    async fn a_lost_burial(server: Server) {
        with_each_loss(&server, "bury", async |mut scene| {
            let worker = scene.start_reading().await;
            let caught = scene.set(scripts::call("bury"));
            scene.publish(20, Action::FailForGood).await;
            caught.within(PATIENCE).await;
            scene.comes_to(worker, &[1], 20).await;
        })
        .await;
    }
}

/// The attempts in which a job was started, in their order.
async fn attempts(redis: &mut MultiplexedConnection, id: &str) -> Vec<u32> {
    let started = jobs::started(redis).await;
    let of = started.iter().filter(|trace| trace.id == id);
    of.map(|trace| trace.attempt).collect()
}

/// Waits until so many workers wait for entries.
async fn until_it_reads(redis: &mut MultiplexedConnection, workers: usize) {
    eventually(PATIENCE, "the workers to wait for entries", async || {
        let clients: String = redis::cmd("CLIENT")
            .arg("LIST")
            .query_async(redis)
            .await
            .unwrap();
        let waits = |client: &&str| client.contains("cmd=xreadgroup") && client.contains("flags=b");
        clients.lines().filter(waits).count() == workers
    })
    .await;
}
