//! Whatever becomes of a cluster, one thing after the other, under load. What handlers did stands in Redis itself: an effect
//! beside each stream, and an event that is emitted to another slot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use redis::AsyncCommands;
use serde::{Deserialize, Serialize};
use streamhand::{Context, Effect, Envelope, Event, Failure, Registry};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Counted, Handled, PATIENCE, Sent, publishing};
use crate::support::cluster::{Cluster, slot, spread};
use crate::support::{Setup, entries, eventually, pending};

/// How long each handler takes: so that 80 run at once at some 500 events a second.
const TAKES: Duration = Duration::from_millis(150);

/// What a handler tells elsewhere.
#[derive(Serialize, Deserialize)]
struct Seen {
    stream: String,
    number: u64,
}

impl Event for Seen {
    const TYPE: &'static str = "counted.seen";
}

/// Every event has one effect, in its own slot, and one emit, to another.
fn telling(handled: &Handled, seen: &[String]) -> Registry {
    let (handled, seen) = (handled.clone(), Arc::new(seen.to_vec()));
    Registry::new().on(move |event: Counted, ctx: Context| {
        let (handled, seen) = (handled.clone(), seen.clone());
        async move {
            sleep(TAKES).await;
            ctx.effect(Effect::hincr_by(
                done(&event.stream),
                event.number.to_string(),
                1,
            ));
            let to = &seen[event.number as usize % seen.len()];
            let (stream, number) = (event.stream.clone(), event.number);
            ctx.emit(to, Seen { stream, number });
            let mut handled = handled.lock().unwrap();
            *handled.entry((event.stream, event.number)).or_default() += 1;
            Ok::<_, Failure>(())
        }
    })
}

/// How often each event of a stream had its effect.
fn done(stream: &str) -> String {
    format!("{{{stream}}}:done")
}

/// Waits until more of every stream has been handled than by now.
async fn goes_on(handled: &Handled, streams: &[String], what: &str) {
    let count = |stream: &String| {
        let handled = handled.lock().unwrap();
        handled.keys().filter(|(of, _)| of == stream).count()
    };
    let before: Vec<usize> = streams.iter().map(count).collect();
    let since = Instant::now();
    eventually(
        PATIENCE,
        format!("all streams to go on after {what}"),
        async || {
            let stalled: Vec<_> = streams
                .iter()
                .zip(&before)
                .filter(|(stream, before)| count(stream) < **before + 10)
                .collect();
            if stalled.is_empty() {
                Ok(())
            } else {
                Err(format!("{stalled:?}"))
            }
        },
    )
    .await;
    println!("{what}: all go on after {:?}", since.elapsed());
}

/// The data of all events of a stream, wherever it is.
async fn events<E: Event + serde::de::DeserializeOwned>(cluster: &Cluster, stream: &str) -> Vec<E> {
    let master = cluster.master_of(stream).await;
    let mut redis = cluster.node(master).connect().await;
    let entries = entries(&mut redis, stream).await.into_iter();
    let event = entries.map(|entry| {
        Envelope::decode(entry.into())
            .map_err(|(_, why)| why)
            .unwrap()
    });
    event.map(|event| event.decode_data().unwrap()).collect()
}

/// Whether the servers move a slot in one step.
async fn moves_at_once(cluster: &Cluster) -> bool {
    let info: String = redis::cmd("INFO")
        .arg("server")
        .query_async(&mut cluster.node(0).connect().await)
        .await
        .unwrap();
    let version = info
        .lines()
        .find_map(|line| line.strip_prefix("valkey_version:"));
    version
        .and_then(|version| version.split('.').next()?.parse::<u32>().ok())
        .is_some_and(|major| major >= 9)
}

on_both_servers! {
    /// A move that is taken back, one that is done, a replica that takes over unasked, a master that hangs and comes back,
    /// and one that dies. Nothing stalls, and every event that is there in the end had its effect, and told of it, once.
    async fn effects_and_emits_are_done_once_whatever_becomes_of_the_cluster(cluster: Cluster) {
        let mut cluster = cluster;
        let (streams, seen) = (spread("work", 6, 3), spread("seen", 3, 3));
        let (handled, sent) = (Handled::default(), Sent::default());
        let setup = Setup::new(cluster.node(0)).worker(&format!("streams = {streams:?}")).worker("concurrency = 80");
        let worker = setup.start_with(telling(&handled, &seen));
        let stop = CancellationToken::new();
        let publishers: Vec<_> = [1, 5].map(|node| cluster.node(node).url()).into_iter().enumerate().map(|(half, url)| {
            let streams = streams.iter().skip(half).step_by(2).cloned().collect();
            publishing(url, streams, sent.clone(), stop.clone())
        }).collect();
        goes_on(&handled, &streams, "the start").await;

        let migration = cluster.begin_migration(slot(&streams[0]), 1).await;
        sleep(Duration::from_millis(500)).await;
        cluster.abandon_migration(migration).await;
        goes_on(&handled, &streams, "a move that was taken back").await;
        match moves_at_once(&cluster).await {
            true => cluster.migrate_at_once(slot(&streams[1]), 2).await,
            false => cluster.migrate(slot(&streams[1]), 2).await,
        }
        goes_on(&handled, &streams, "a move").await;
        cluster.takeover(3).await;
        goes_on(&handled, &streams, "a takeover").await;
        cluster.node_mut(1).freeze();
        cluster.master_of_is_not(&streams[4], 1).await;
        goes_on(&handled, &streams, "a master that hangs").await;
        cluster.node_mut(1).thaw();
        goes_on(&handled, &streams, "its return").await;
        cluster.node_mut(2).stop();
        cluster.master_of_is_not(&streams[2], 2).await;
        goes_on(&handled, &streams, "a death").await;
        stop.cancel();
        for publisher in publishers {
            publisher.await.unwrap();
        }

        let mut kept = BTreeSet::new();
        for stream in &streams {
            let there: Vec<Counted> = events(&cluster, stream).await;
            let numbers: Vec<u64> = there.iter().map(|event| event.number).collect();
            kept.extend(there.into_iter().map(|event| (event.stream, event.number)));
            let master = cluster.master_of(stream).await;
            let redis = cluster.node(master).connect().await;
            eventually(PATIENCE, "every event to have its effect, and nothing to be left", async || {
                let mut redis = redis.clone();
                let done: BTreeMap<u64, u32> = redis.hgetall(done(stream)).await.unwrap_or_default();
                let left: bool = redis.exists(format!("{{{stream}}}:outbox")).await.unwrap();
                // An event whose server died before a replica had it may have been handled all the same, and is not there.
                let twice = done.iter().find(|(_, times)| **times > 1);
                assert!(twice.is_none(), "an event of {stream} had its effect more than once: {twice:?}");
                let undone = numbers.iter().filter(|number| !done.contains_key(*number)).count();
                match undone == 0 && !left && pending(&mut redis, stream).await.is_empty() {
                    true => Ok(()),
                    false => Err(format!("{undone} of {} have none; outbox: {left}", numbers.len())),
                }
            })
            .await;
        }
        let mut told = BTreeMap::<_, u32>::new();
        for stream in &seen {
            for Seen { stream, number } in events(&cluster, stream).await {
                *told.entry((stream, number)).or_default() += 1;
            }
        }
        assert!(told.values().all(|times| *times == 1), "{:?}", told.iter().find(|(_, times)| **times > 1));
        let untold: Vec<_> = kept.iter().filter(|event| !told.contains_key(*event)).collect();
        assert!(untold.is_empty(), "{} are not told of: {:?}", untold.len(), untold.first());
        assert!(kept.len() > 500, "{}", kept.len());
        assert_eq!(worker.stop().await.unsettled, 0);
        let (handled, sent) = (handled.lock().unwrap(), sent.lock().unwrap());
        let again = handled.iter().filter(|(event, times)| **times > 1 && kept.contains(*event)).count();
        println!(
            "{} published, {} lost with their servers; {again} handled again, for what was lost of them",
            sent.len(), sent.difference(&kept).count()
        );
    }
}
