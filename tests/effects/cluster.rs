//! On a cluster a step reaches one hash slot: what is out of its reach is told, or goes there by the outbox.

use redis::AsyncCommands;
use streamhand::{Context, Effect, Registry};

use super::{Done, PATIENCE, buried_for, entries, field, publish};
use crate::support::jobs::Job;
use crate::support::{Kind, Proxy, Server, Setup, eventually, scripts, settled};

/// One node that has all slots.
pub async fn cluster(kind: Kind) -> Server {
    let server = Server::builder(kind)
        .args(["--cluster-enabled", "yes"])
        .start()
        .await;
    let mut redis = server.connect().await;
    let _: () = redis::cmd("CLUSTER")
        .arg("ADDSLOTSRANGE")
        .arg(0)
        .arg(16383)
        .query_async(&mut redis)
        .await
        .unwrap();
    eventually(PATIENCE, "the cluster", async || {
        let info: String = redis::cmd("CLUSTER")
            .arg("INFO")
            .query_async(&mut redis)
            .await
            .unwrap();
        info.contains("cluster_state:ok")
    })
    .await;
    server
}

on_both_servers! {
    async fn what_is_in_the_streams_slot_leaves_with_it_and_other_streams_get_theirs_after_it(kind: Kind) {
        let server = cluster(kind).await;
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = Proxy::start(server.port()).await;
        // By the slot map workers are led to it as well.
        let mut announce = redis::cmd("CONFIG");
        announce.arg("SET").arg("cluster-announce-port").arg(proxy.port());
        let _: () = announce.query_async(&mut redis).await.unwrap();
        let registry = Registry::new().on(async |job: Job, ctx: Context| {
            ctx.effect(Effect::hincr_by("{jobs}:counted", &job.id, 1));
            ctx.emit("{jobs}:near", Done { id: job.id.clone() });
            ctx.emit("far", Done { id: job.id });
            Ok(())
        });
        let worker = Setup::at(proxy.url()).start_with(registry);
        publish(&mut redis, &["one", "two"]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        // A commit that is repeated puts nothing there again.
        let caught = proxy.cut_before(scripts::call("commit"));
        publish(&mut redis, &["three"]).await;
        caught.within(PATIENCE).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let counted: Vec<u64> = redis.hvals("{jobs}:counted").await.unwrap();
        assert_eq!(counted, [1, 1, 1]);
        eventually(PATIENCE, "what goes by the outbox", async || entries(&mut redis, "far").await.len() == 3).await;
        let (near, far) = (entries(&mut redis, "{jobs}:near").await, entries(&mut redis, "far").await);
        assert_eq!((near.len(), far.len()), (3, 3));
        assert_ne!(field(&near[0], "id"), field(&far[0], "id"));
        worker.stop().await;
    }

    async fn an_effect_in_another_slot_fails_the_handler_and_says_what_to_do(kind: Kind) {
        let server = cluster(kind).await;
        let mut redis = server.connect().await;
        let registry = Registry::new().on(async |job: Job, ctx: Context| {
            ctx.emit("far", Done { id: job.id });
            ctx.effect(Effect::set("elsewhere", "x"));
            Ok(())
        });
        let worker = Setup::new(&server).retry("max_attempts = 1").start_with(registry);
        publish(&mut redis, &["one"]).await;
        let (_, error) = buried_for(&mut redis).await;
        assert!(error.contains("SET elsewhere x") && error.contains("give it the same {tag}"), "{error}");
        assert_eq!(entries(&mut redis, "far").await.len(), 0);
        worker.stop().await;
    }
}
