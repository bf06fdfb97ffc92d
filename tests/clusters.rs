//! Clusters and sentinels as tests start them: what other tests go by.

use crate::support::Cli;
use crate::support::cluster::{Cluster, slot, spread};
use crate::support::sentinel::{NAME, Trio};

on_both_servers! {
    /// Slots are where the names say, and move; who dies is replaced.
    async fn a_cluster_moves_slots_and_replaces_masters(cluster: Cluster) {
        let mut cluster = cluster;
        let streams = spread("work", 3, 3);
        let mut masters = Vec::new();
        for stream in &streams {
            let number: u16 = redis::cmd("CLUSTER").arg("KEYSLOT").arg(stream)
                .query_async(&mut cluster.node(0).connect().await).await.unwrap();
            assert_eq!(number, slot(stream));
            masters.push(cluster.master_of(stream).await);
        }
        assert_eq!(masters, [0, 1, 2]);
        let moved = slot(&streams[0]);
        let add = redis::cmd("XADD").arg(&streams[0]).arg("*").arg("type").arg("a.b").to_owned();
        let () = add.exec_async(&mut cluster.node(0).connect().await).await.unwrap();
        let migration = cluster.begin_migration(moved, 1).await;
        assert_eq!(cluster.migrate_keys(&migration, |_| true).await, [streams[0].clone()]);
        let error = add.exec_async(&mut cluster.node(0).connect().await).await.unwrap_err();
        assert_eq!(error.code(), Some("ASK"));
        cluster.abandon_migration(migration).await;
        let () = add.exec_async(&mut cluster.node(0).connect().await).await.unwrap();
        cluster.migrate(moved, 1).await;
        assert_eq!(cluster.master_of(&streams[0]).await, 1);
        cluster.is_whole().await;
        cluster.failover(4).await;
        assert_eq!(cluster.master_of(&streams[1]).await, 4);
        cluster.node_mut(2).stop();
        assert_eq!(cluster.master_of_is_not(&streams[2], 2).await, 5);
    }

    async fn sentinels_make_another_the_primary(trio: Trio) {
        let mut trio = trio;
        assert_eq!(trio.primary().await, 0);
        let sentinels = format!("[redis.sentinel]\nmaster = \"{NAME}\"\nnodes = {:?}\n", trio.addresses());
        let checked = Cli::at("redis://x", &sentinels).run(&["config", "check", "--connect"]).await.ok();
        assert!(checked.contains(&format!("the primary of {NAME} by the sentinels ")), "{checked}");
        assert_eq!(trio.failover().await, 1);
        trio.is_replicated(0).await;
        trio.servers[1].stop();
        assert_eq!(trio.primary_is_not(1).await, 0);
    }
}
