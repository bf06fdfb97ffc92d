use std::collections::HashSet;
use std::time::Duration;

use streamhand::Event;
use tokio::time::{Instant, sleep};

use super::load::{Load, lost};
use super::nodes::{Cluster, PATIENCE, ask, connect};
use super::sentinel::{ids, publisher};
use crate::support::{Kind, eventually};

/// Streams in slots of all three masters: 1 of the first, and so on.
fn streams() -> Vec<String> {
    let mut streams = vec![Vec::new(); 3];
    for number in 0.. {
        let name = format!("jobs{number}");
        let of = &mut streams[usize::from(slot(&name) / 5_462)];
        if of.len() < 4 {
            of.push(name);
        }
        if streams.iter().all(|of| of.len() == 4) {
            return streams.concat();
        }
    }
    unreachable!()
}

/// CRC16, as clusters count it.
fn slot(key: &str) -> u16 {
    let crc = key.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    });
    crc % 16_384
}

on_both_servers! {
    /// 80 tasks go on through slots that move, masters that change places, and one that dies; what is lost is lost in the
    /// moment of that death.
    async fn publishers_go_on_through_moves_failovers_and_a_death(kind: Kind) {
        let mut cluster = Cluster::start(kind).await;
        let streams = streams();
        let publisher = publisher(&cluster.settings());
        let load = Load::start(&publisher, &streams, 80, Duration::from_millis(20));
        sleep(Duration::from_millis(500)).await;
        assert!(load.all_go_on(Duration::from_millis(500)));

        // A slot moves, held open for a while: the key itself goes in the middle.
        let moving = slot(&streams[0]);
        migrate(&cluster, moving, &streams[0], 0, 1).await;
        eventually(PATIENCE, "all to go on after a move", async || {
            load.all_go_on(Duration::from_millis(500))
        })
        .await;

        // A replica takes over by agreement.
        cluster.ask::<redis::Value>(4, &["FAILOVER"]).await;
        let slot_of_second = slot(&streams[4]);
        eventually(PATIENCE, "the replica to be the master", async || {
            (cluster.master_of(0, slot_of_second).await? == 4).then_some(())
        })
        .await;
        eventually(PATIENCE, "all to go on after a failover", async || {
            load.all_go_on(Duration::from_millis(500))
        })
        .await;

        let killed = Instant::now();
        cluster.servers[2].stop();
        eventually(PATIENCE, "all to go on after a death", async || {
            (killed.elapsed() > Duration::from_secs(1) && load.all_go_on(Duration::from_millis(500))).then_some(())
        })
        .await;
        let back = killed.elapsed();
        sleep(Duration::from_secs(1)).await;
        assert!(load.all_go_on(Duration::from_millis(800)), "nobody stalls");

        let acked = load.end().await;
        let mut kept = HashSet::new();
        for stream in &streams {
            let master = cluster.master_of(0, slot(stream)).await.unwrap();
            let mut redis = connect(cluster.servers[master].port()).await.unwrap();
            kept.extend(ids(&mut redis, stream).await);
        }
        let lost = lost(&acked, &kept);
        println!("{} published, {} lost when a master died; all went on after {back:?}", acked.len(), lost.len());
        let window = killed - Duration::from_millis(500)..killed + Duration::from_millis(100);
        for event in lost {
            assert!(slot(&event.stream) > 10_922 && window.contains(&event.at), "{} of {} is lost", event.id, event.stream);
        }
        assert!(acked.len() > 2_000, "{}", acked.len());
    }

    /// `auto` finds out that one of the nodes is named; and what is published once, scheduled and cancelled is so at the
    /// stream's master.
    async fn a_node_says_by_itself_that_it_is_one_of_a_cluster(kind: Kind) {
        let cluster = Cluster::start(kind).await;
        let url = cluster.servers[5].url();
        let publisher = publisher(&format!("[redis]\nurl = \"{url}\""));
        for stream in streams() {
            let job = crate::support::jobs::Job::new("one", crate::support::jobs::Action::Succeed);
            for is_new in [true, false] {
                let once = publisher.publish_once(&stream, "one", &job, Duration::from_secs(60)).await.unwrap();
                assert_eq!(once.is_new, is_new, "{stream}");
            }
            let jobs = [job.clone(), job.clone(), job.clone()];
            assert_eq!(publisher.publish_many(&stream, &jobs).await.unwrap().len(), 3);
            let scheduled = publisher.publish_after(&stream, &job, Duration::from_secs(3600)).await.unwrap();
            assert!(publisher.cancel_scheduled(&stream, &scheduled.id).await.unwrap());
            let master = cluster.master_of(0, slot(&stream)).await.unwrap();
            let length: Option<usize> = ask(cluster.servers[master].port(), "XLEN", &[&stream]).await;
            assert_eq!(length, Some(4), "{} in {stream}", crate::support::jobs::Job::TYPE);
        }
    }
}

/// Moves a slot with one key the old way, by its owner and its new one.
async fn migrate(cluster: &Cluster, slot: u16, key: &str, from: usize, to: usize) {
    let number = slot.to_string();
    let (source, target) = (cluster.id(from).await, cluster.id(to).await);
    cluster
        .ask::<redis::Value>(to, &["SETSLOT", &number, "IMPORTING", &source])
        .await;
    cluster
        .ask::<redis::Value>(from, &["SETSLOT", &number, "MIGRATING", &target])
        .await;
    sleep(Duration::from_millis(500)).await;
    let port = cluster.servers[to].port().to_string();
    let args = ["127.0.0.1", &port, key, "0", "5000"];
    let moved: Option<String> = ask(cluster.servers[from].port(), "MIGRATE", &args).await;
    assert_eq!(moved.as_deref(), Some("OK"));
    // It is asked for at its new place alone, and its slot is still at the old one.
    sleep(Duration::from_secs(1)).await;
    for at in [to, from] {
        cluster
            .ask::<redis::Value>(at, &["SETSLOT", &number, "NODE", &target])
            .await;
    }
}
