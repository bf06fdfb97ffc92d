//! What a worker asks of the nodes of a cluster: for an event, whether there is one node or six, and when nothing happens.

use std::time::Duration;

use streamhand::{Context, Failure, Publisher, Registry};
use tokio::time::{Instant, sleep};

use super::{Counted, PATIENCE};
use crate::support::cluster::{Cluster, spread};
use crate::support::{CommandStats, Kind, Setup, eventually, settled};

const EVENTS: u64 = 500;
const STREAMS: usize = 12;
/// As many partitions as a topic has.
const MANY: usize = 64;

/// Commands that were called, by scripts too, and seconds of CPU, at all nodes together.
async fn spent(cluster: &Cluster) -> (f64, f64) {
    let (mut calls, mut cpu) = (0.0, 0.0);
    for node in cluster.nodes() {
        let mut redis = node.server.connect().await;
        calls += CommandStats::of(&mut redis).await.all_calls() as f64;
        let info: String = redis::cmd("INFO")
            .arg("cpu")
            .query_async(&mut redis)
            .await
            .unwrap();
        let used = |line: &str| {
            line.strip_prefix("used_cpu_user:")
                .or(line.strip_prefix("used_cpu_sys:"))?
                .trim()
                .parse::<f64>()
                .ok()
        };
        cpu += info.lines().filter_map(used).sum::<f64>();
    }
    (calls, cpu)
}

/// Puts so many events on each stream, and waits until all are handled.
async fn handled(cluster: &Cluster, publisher: &Publisher, streams: &[String], count: u64) {
    for stream in streams {
        let event = |number| Counted {
            stream: stream.clone(),
            number,
        };
        let events: Vec<Counted> = (0..count).map(event).collect();
        publisher.publish_many(stream, &events).await.unwrap();
    }
    for stream in streams {
        let master = cluster.master_of(stream).await;
        let mut redis = cluster.node(master).connect().await;
        settled(&mut redis, stream, PATIENCE).await;
    }
}

/// What an event costs that is published and handled with others, over so many nodes, once the worker runs.
async fn of_an_event(cluster: &Cluster, masters: usize) -> (f64, f64) {
    let streams = spread("work", STREAMS, masters);
    let registry = Registry::new().on(async |_: Counted, _: Context| Ok::<_, Failure>(()));
    let publisher = Publisher::connect(&cluster.node(0).url()[..]).await;
    let publisher = publisher.unwrap();
    let setup = Setup::new(cluster.node(0)).worker(&format!("streams = {streams:?}"));
    let worker = setup.worker("lease = \"30s\"").start_with(registry);
    handled(cluster, &publisher, &streams, 10).await;
    let before = spent(cluster).await;
    handled(cluster, &publisher, &streams, EVENTS).await;
    let after = spent(cluster).await;
    worker.stop().await;
    let all = (STREAMS as u64 * EVENTS) as f64;
    ((after.0 - before.0) / all, (after.1 - before.1) / all)
}

on_both_servers! {
    async fn an_event_costs_the_same_on_six_nodes_as_on_one(kind: Kind) {
        let mut costs = Vec::new();
        for masters in [1, 6] {
            let cluster = Cluster::start(kind, masters, false).await;
            let (commands, cpu) = of_an_event(&cluster, masters).await;
            println!("{masters} nodes: {commands:.2} commands an event, {:.0} µs of CPU", cpu * 1e6);
            costs.push(commands);
        }
        assert!(costs[1] < 1.3 * costs[0] + 0.1, "{costs:?}");
    }

    async fn streams_without_events_cost_next_to_nothing(kind: Kind) {
        let cluster = Cluster::start(kind, 3, false).await;
        let streams = spread("idle", MANY, 3);
        let registry = Registry::new().on(async |_: Counted, _: Context| Ok::<_, Failure>(()));
        let setup = Setup::new(cluster.node(0)).worker(&format!("streams = {streams:?}")).worker("lease = \"30s\"");
        let worker = setup.start_with(registry);
        // Once joined, it is quiet.
        for stream in &streams {
            let master = cluster.master_of(stream).await;
            let mut redis = cluster.node(master).connect().await;
            eventually(PATIENCE, "the worker to have joined", async || {
                let mut groups = redis::cmd("XINFO");
                groups.arg("CONSUMERS").arg(stream).arg("workers");
                let there: redis::RedisResult<Vec<redis::Value>> = groups.query_async(&mut redis).await;
                there.is_ok_and(|there| !there.is_empty())
            })
            .await;
        }
        sleep(Duration::from_secs(1)).await;
        let (before, since) = (spent(&cluster).await, Instant::now());
        sleep(Duration::from_secs(4)).await;
        let (after, took) = (spent(&cluster).await, since.elapsed().as_secs_f64());
        let (calls, cpu) = ((after.0 - before.0) / took, (after.1 - before.1) / took);
        println!("{MANY} idle streams: {calls:.0} commands a second, scripts' included, and {:.1} % of a core at three nodes", cpu * 100.0);
        // Three requests a second each, as on one server, some of which are scripts.
        assert!(calls < 12.0 * MANY as f64, "{calls}");
        worker.stop().await;
    }
}
