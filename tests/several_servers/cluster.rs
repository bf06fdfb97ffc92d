use std::collections::HashSet;
use std::time::Duration;

use streamhand::admin::Admin;
use tokio::time::{Instant, sleep};

use super::load::{Load, lost};
use super::sentinel::{ids, publisher};
use crate::support::cluster::{Cluster, slot, spread};
use crate::support::eventually;
use crate::support::jobs::{Action, Job};

const PATIENCE: Duration = Duration::from_secs(30);

on_both_servers! {
    /// 80 tasks go on through slots that move, masters that change places, and one that dies; what is lost is lost in the
    /// moment of that death.
    async fn publishers_go_on_through_moves_failovers_and_a_death(cluster: Cluster) {
        let mut cluster = cluster;
        let streams = spread("jobs", 12, 3);
        let publisher = publisher(&of_cluster(&cluster));
        let load = Load::start(&publisher, &streams, 80, Duration::from_millis(20));
        // Some wait for a replica.
        let safe = publisher.clone().replicas(1).replicas_timeout(Duration::from_millis(300));
        let safe = Load::start(&safe, &streams, 12, Duration::from_millis(20));
        sleep(Duration::from_millis(500)).await;
        assert!(load.all_go_on(Duration::from_millis(500)));

        // A slot moves, held open for a while: the key itself goes in the middle.
        let migration = cluster.begin_migration(slot(&streams[0]), 1).await;
        sleep(Duration::from_millis(500)).await;
        cluster.migrate_keys(&migration, |_| true).await;
        // It is asked for at its new place alone, and its slot is still at the old one.
        sleep(Duration::from_secs(1)).await;
        assert!(load.all_go_on(Duration::from_millis(500)));
        eventually(PATIENCE, "those that wait for a replica to go on as well", async || {
            safe.all_go_on(Duration::from_millis(900))
        })
        .await;
        cluster.finish_migration(migration).await;
        eventually(PATIENCE, "all to go on after a move", async || {
            load.all_go_on(Duration::from_millis(500))
        })
        .await;

        // A replica takes over by agreement.
        cluster.failover(4).await;
        eventually(PATIENCE, "all to go on after a failover", async || {
            load.all_go_on(Duration::from_millis(500))
        })
        .await;

        let killed = Instant::now();
        cluster.node_mut(2).stop();
        eventually(PATIENCE, "all to go on after a death", async || {
            (killed.elapsed() > Duration::from_secs(1) && load.all_go_on(Duration::from_millis(500))).then_some(())
        })
        .await;
        let back = killed.elapsed();
        sleep(Duration::from_secs(1)).await;
        assert!(load.all_go_on(Duration::from_millis(800)), "nobody stalls");

        let (acked, safe) = (load.end().await, safe.end().await);
        let kept = kept(&cluster, &streams).await;
        let lost_safe = lost(&safe, &kept);
        assert!(lost_safe.is_empty() && safe.len() > 200, "{} of {} were with a replica and are lost", lost_safe.len(), safe.len());
        let lost = lost(&acked, &kept);
        println!("{} published, {} lost when a master died; all went on after {back:?}", acked.len(), lost.len());
        let window = killed - Duration::from_millis(500)..killed + Duration::from_millis(100);
        for event in lost {
            assert!(slot(&event.stream) > 10_922 && window.contains(&event.at), "{} of {} is lost", event.id, event.stream);
        }
        assert!(acked.len() > 2_000, "{}", acked.len());
    }

    /// A master hangs, and still does when its replica has taken over: whoever waits for its answer gives up by then. Then it
    /// comes back.
    async fn a_master_that_hangs_is_left_for_its_successor(cluster: Cluster) {
        let mut cluster = cluster;
        let streams = spread("jobs", 12, 3);
        let publisher = publisher(&of_cluster(&cluster));
        let load = Load::start(&publisher, &streams, 80, Duration::from_millis(20));
        sleep(Duration::from_millis(500)).await;
        let frozen = Instant::now();
        cluster.node_mut(0).freeze();
        has_moved(&cluster, &streams[0]).await;
        let moved = Instant::now();
        eventually(PATIENCE, "all to go on", async || load.all_go_on(Duration::from_millis(500))).await;
        println!("another master after {:?}, all went on {:?} later", moved - frozen, moved.elapsed());
        assert!(moved.elapsed() < Duration::from_secs(4), "{:?}", moved.elapsed());
        cluster.node_mut(0).thaw();
        sleep(Duration::from_secs(2)).await;
        assert!(load.all_go_on(Duration::from_millis(800)), "nobody stalls");
        let acked = load.end().await;
        let lost = lost(&acked, &kept(&cluster, &streams).await);
        println!("{} published, {} lost when a master hung", acked.len(), lost.len());
        for event in lost {
            // What was acknowledged and not passed on, before it hung.
            assert!(event.at < frozen + Duration::from_millis(100), "{} is lost", event.id);
        }
    }

    /// `auto` finds out that one of the nodes is named; and what is published once, scheduled and cancelled is so at the
    /// stream's master.
    async fn a_node_says_by_itself_that_it_is_one_of_a_cluster(cluster: Cluster) {
        let url = cluster.node(5).url();
        // Nothing else has found it out for them.
        let admin = Admin::connect(&url, "workers", ["jobs"]).unwrap();
        assert_eq!(admin.servers().await.unwrap().len(), 3, "one for each master");
        let publisher = publisher(&format!("[redis]\nurl = \"{url}\""));
        let job = Job::new("one", Action::Succeed);
        for stream in spread("jobs", 6, 3) {
            for is_new in [true, false] {
                let once = publisher.publish_once(&stream, "one", &job, Duration::from_secs(60)).await.unwrap();
                assert_eq!(once.is_new, is_new, "{stream}");
            }
            let jobs = [job.clone(), job.clone(), job.clone()];
            assert_eq!(publisher.publish_many(&stream, &jobs).await.unwrap().len(), 3);
            let scheduled = publisher.publish_after(&stream, &job, Duration::from_secs(3600)).await.unwrap();
            assert!(publisher.cancel_scheduled(&stream, &scheduled.id).await.unwrap());
            let master = cluster.master_of(&stream).await;
            let mut redis = cluster.node(master).connect().await;
            let length: usize = redis::cmd("XLEN").arg(&stream).query_async(&mut redis).await.unwrap();
            assert_eq!(length, 4, "{stream}");
        }
    }
}

/// `[redis]` for it.
fn of_cluster(cluster: &Cluster) -> String {
    format!(
        "[redis]\nmode = \"cluster\"\nnodes = {:?}\n",
        cluster.addresses()
    )
}

/// Waits until another than the first node has this key, by what the second says: the first hangs.
async fn has_moved(cluster: &Cluster, key: &str) {
    let mut redis = cluster.node(1).connect().await;
    eventually(PATIENCE, "another master", async || {
        let redirected: redis::RedisResult<()> =
            redis::cmd("XLEN").arg(key).query_async(&mut redis).await;
        let to = redirected.err()?.detail()?.to_owned();
        let first = cluster.node(0).port().to_string();
        (!to.ends_with(&first)).then_some(())
    })
    .await;
}

/// The ids of all events that are in these streams.
async fn kept(cluster: &Cluster, streams: &[String]) -> HashSet<String> {
    let mut kept = HashSet::new();
    for stream in streams {
        let master = cluster.master_of(stream).await;
        kept.extend(ids(&mut cluster.node(master).connect().await, stream).await);
    }
    kept
}
