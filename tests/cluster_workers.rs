//! A worker whose streams lie on several masters of a cluster. What was published and handled is counted outside of it.

mod cost;
mod storm;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamhand::{Context, Event, Failure, Publisher, Registry};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::cluster::{Cluster, slot, spread};
use crate::support::{Setup, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Counted {
    stream: String,
    number: u64,
}

impl Event for Counted {
    const TYPE: &'static str = "counted.up";
}

/// How often each was handled.
type Handled = Arc<Mutex<BTreeMap<(String, u64), u32>>>;
/// What is known to be on the streams.
type Sent = Arc<Mutex<BTreeSet<(String, u64)>>>;

fn counting(handled: &Handled) -> Registry {
    let handled = handled.clone();
    Registry::new().on(move |event: Counted, _: Context| {
        let handled = handled.clone();
        async move {
            // Every third waits a little, so that some run whatever happens.
            if event.number.is_multiple_of(3) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            *handled
                .lock()
                .unwrap()
                .entry((event.stream, event.number))
                .or_default() += 1;
            Ok::<_, Failure>(())
        }
    })
}

/// Publishes to all streams in turn until it is told to stop; each event until it is acknowledged.
fn publishing(
    url: String,
    streams: Vec<String>,
    sent: Sent,
    stop: CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let publisher = Publisher::connect(&url[..]).await.expect("a cluster");
        let publisher = publisher.timeout(Duration::from_secs(2));
        for number in 0.. {
            for stream in &streams {
                let event = Counted {
                    stream: stream.clone(),
                    number,
                };
                let envelope = publisher.envelope(&event).expect("an event");
                while publisher
                    .publish_envelope(stream, envelope.clone())
                    .await
                    .is_err()
                {
                    if stop.is_cancelled() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                sent.lock().unwrap().insert((stream.clone(), number));
            }
            if stop.is_cancelled() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
}

/// Waits until all that is on the streams by now is handled.
async fn all_handled(sent: &Sent, handled: &Handled) {
    let sent = sent.lock().unwrap().clone();
    eventually(
        PATIENCE,
        "all that was acknowledged to be handled",
        async || {
            let handled = handled.lock().unwrap();
            let left: Vec<_> = sent
                .iter()
                .filter(|event| !handled.contains_key(*event))
                .take(5)
                .collect();
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        },
    )
    .await;
}

on_both_servers! {
    /// Slots move and masters change while events come: each that was acknowledged is handled, and nothing is left.
    async fn slots_move_and_masters_change_under_load(cluster: Cluster) {
        let mut cluster = cluster;
        let streams = spread("work", 9, 3);
        let (handled, sent) = (Handled::default(), Sent::default());
        let setup = Setup::new(cluster.node(0)).worker(&format!("streams = {streams:?}"));
        let worker = setup.start_with(counting(&handled));
        let stop = CancellationToken::new();
        let publisher = publishing(cluster.node(1).url(), streams.clone(), sent.clone(), stop.clone());
        eventually(PATIENCE, "some of each to be handled", async || {
            let handled = handled.lock().unwrap();
            let seen: BTreeSet<_> = handled.keys().map(|(stream, _)| stream).collect();
            seen.len() == streams.len() && handled.len() > 200
        })
        .await;

        let migration = cluster.begin_migration(slot(&streams[0]), 1).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.finish_migration(migration).await;
        all_handled(&sent, &handled).await;

        cluster.failover(4).await;
        all_handled(&sent, &handled).await;

        // What is acknowledged is at the replica before the master dies.
        stop.cancel();
        publisher.await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.node_mut(2).stop();
        let stop = CancellationToken::new();
        let begun = sent.lock().unwrap().len();
        let publisher = publishing(cluster.node(0).url(), streams.clone(), sent.clone(), stop.clone());
        cluster.master_of_is_not(&streams[2], 2).await;
        eventually(PATIENCE, "events to go on", async || sent.lock().unwrap().len() > begun + 200).await;
        stop.cancel();
        publisher.await.unwrap();
        all_handled(&sent, &handled).await;

        let summary = worker.stop().await;
        assert_eq!(summary.unsettled, 0);
        for stream in &streams {
            let master = cluster.master_of(stream).await;
            let mut redis = cluster.node(master).connect().await;
            let pending = crate::support::pending(&mut redis, stream).await;
            assert_eq!(pending, [], "{stream}");
            let dead: u64 = redis::cmd("XLEN").arg(format!("{{{stream}}}:workers:dead")).query_async(&mut redis).await.unwrap();
            assert_eq!(dead, 0);
        }
    }
}
