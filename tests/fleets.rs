//! A fleet shares out who reads what, and asks each node for what the simulation says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redis::AsyncCommands;
use simulate::{Fleet, Request, Simulation};
use streamhand::unstable::pace::duty;
use streamhand::{Envelope, Publisher, Registry, Settings};
use tokio::time::{Instant, sleep};

use crate::support::cluster::{Cluster, slot};
use crate::support::{InProcess, Kind, Setup, eventually};

const PATIENCE: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(3);
const WORKERS: usize = 20;
const PARTITIONS: usize = 24;
const NODES: usize = 3;
/// How far a node may be from what the simulation says, with five tests at once on two processors.
const TOLERANCE: f64 = 0.35;

/// What is asked of a node, as far as it can be told from its own counts.
const KINDS: [(&str, &[Request]); 4] = [
    ("cmdstat_xreadgroup:", &[Request::Read]),
    ("cmdstat_xinfo|consumers:", &[Request::Consumers]),
    ("cmdstat_smembers:", &[Request::Outbox]),
    (
        "cmdstat_evalsha:",
        &[
            Request::Wake,
            Request::Adopt,
            Request::Renew,
            Request::Mend,
            Request::Expire,
            Request::Reclaim,
            Request::Join,
            Request::Forget,
        ],
    ),
];

/// So often each kind was asked of a node so far.
async fn asked(cluster: &Cluster, node: usize) -> Vec<f64> {
    let mut conn = cluster.node(node).connect().await;
    let mut info = redis::cmd("INFO");
    let info: String = info
        .arg("commandstats")
        .query_async(&mut conn)
        .await
        .unwrap();
    let calls = |name: &str| {
        let mut lines = info.lines();
        let calls = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix("calls="));
        calls.map_or(0.0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    };
    KINDS.iter().map(|(name, _)| calls(name)).collect()
}

/// Who reads each partition, by the group's own list.
async fn readers(cluster: &Cluster) -> BTreeMap<usize, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    for number in 0..PARTITIONS {
        let stream = format!("{{jobs:{number}}}");
        let mut conn = cluster
            .node(cluster.master_of(&stream).await)
            .connect()
            .await;
        let mut list = redis::cmd("XINFO");
        list.arg("CONSUMERS").arg(&stream).arg("workers");
        let list: Result<Vec<BTreeMap<String, redis::Value>>, _> =
            list.query_async(&mut conn).await;
        let names = list
            .unwrap_or_default()
            .into_iter()
            .map(|consumer| redis::from_redis_value::<String>(consumer["name"].clone()).unwrap());
        all.insert(
            number,
            names.filter(|name| name.starts_with("sh")).collect(),
        );
    }
    all
}

/// Who should read each, if these are alive.
fn should_read(workers: &BTreeSet<String>) -> BTreeMap<usize, BTreeSet<String>> {
    let streams: Vec<String> = (0..PARTITIONS).map(|n| format!("{{jobs:{n}}}")).collect();
    let streams: Vec<&str> = streams.iter().map(String::as_str).collect();
    let mut all: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for worker in workers {
        let own = duty::own(&streams, worker);
        for (number, stream) in streams.iter().enumerate() {
            let mine = duty::rank(stream, worker);
            let before = workers
                .iter()
                .filter(|other| duty::rank(stream, other) > mine);
            if own[number] || before.count() < duty::READERS {
                all.entry(number).or_default().insert(worker.clone());
            }
        }
    }
    all
}

fn noting() -> Registry {
    Registry::new().on_raw(
        "test.noted",
        |event: Envelope, ctx: streamhand::Context| async move {
            let key = format!("{{{}}}:seen", ctx.stream().trim_matches(['{', '}']));
            ctx.redis()
                .await?
                .rpush::<_, _, ()>(key, event.id().into_owned())
                .await?;
            Ok(())
        },
    )
}

async fn publish(publisher: &Publisher, from: usize, to: usize) {
    let events = (from..to).map(|n| {
        let id = format!("e-{n}");
        Envelope::new("test.noted")
            .with("id", &id)
            .with("subject", &id)
    });
    publisher.publish_envelopes("jobs", events).await.unwrap();
}

async fn seen(cluster: &Cluster) -> usize {
    let mut all = 0;
    for number in 0..PARTITIONS {
        let key = format!("{{jobs:{number}}}:seen");
        let mut conn = cluster.node(cluster.master_of(&key).await).connect().await;
        all += conn
            .lrange::<_, Vec<String>>(key, 0, -1)
            .await
            .unwrap()
            .len();
    }
    all
}

/// What the simulation says that each node is asked a second.
fn simulated(nodes: &[usize]) -> Vec<Vec<f64>> {
    let mut fleet = Fleet::new(WORKERS, PARTITIONS, NODES);
    (fleet.partitions, fleet.lease) = (nodes.to_vec(), LEASE);
    let mut it = Simulation::new(fleet);
    it.start(Duration::from_secs(1));
    it.run(Duration::from_secs(40));
    let counted = it.run(Duration::from_secs(40));
    let seconds = counted.lasted.as_secs_f64();
    let of_node = counted.requests.iter().map(|requests| {
        let rate = |of: &[Request]| {
            let times = of.iter().filter_map(|request| requests.get(request));
            times.sum::<u64>() as f64 / seconds
        };
        KINDS.iter().map(|(_, of)| rate(of)).collect()
    });
    of_node.collect()
}

on_both_servers! {
    async fn a_fleet_shares_out_its_partitions_and_asks_what_the_simulation_says(kind: Kind) {
        let cluster = Cluster::start(kind, NODES, false).await;
        let nodes = cluster.addresses();
        let setup = Setup::at(format!("redis://{}", nodes[0]))
            .redis("mode = \"cluster\"")
            .worker(&format!("lease = \"{}s\"", LEASE.as_secs()))
            .stream(&format!("partitions = {PARTITIONS}"));
        let settings = Settings::from_toml_str(&setup.toml()).unwrap();
        let publisher = Publisher::of_settings(&settings).unwrap();
        let mut workers: Vec<InProcess> = (0..WORKERS).map(|_| setup.start_with(noting())).collect();
        publish(&publisher, 0, 200).await;
        let mut all = BTreeSet::new();
        eventually(PATIENCE, "all to read something", async || {
            all.extend(readers(&cluster).await.into_values().flatten());
            all.len() == WORKERS
        })
        .await;
        let should = should_read(&all);
        let shares: usize = should.values().map(BTreeSet::len).sum();
        assert!(shares < WORKERS * PARTITIONS, "nobody would have to leave: {shares}");
        eventually(PATIENCE, "each to read what it should", async || {
            let read = readers(&cluster).await;
            if read == should { Ok(()) } else {
                Err(format!("{:?}", read.values().map(BTreeSet::len).collect::<Vec<_>>()))
            }
        })
        .await;

        let places: Vec<usize> = (0..PARTITIONS)
            .map(|number| usize::from(slot(&format!("{{jobs:{number}}}"))) * NODES / 16_384)
            .collect();
        let said = simulated(&places);
        let began = Instant::now();
        let mut before = Vec::new();
        for node in 0..NODES {
            before.push(asked(&cluster, node).await);
        }
        sleep(Duration::from_secs(6)).await;
        for node in 0..NODES {
            let after = asked(&cluster, node).await;
            let seconds = began.elapsed().as_secs_f64();
            let rates: Vec<f64> = after.iter().zip(&before[node]).map(|(a, b)| (a - b) / seconds).collect();
            println!("node {node}: {rates:.1?} a second, {:.1?} simulated", said[node]);
            let (really, simulated) = (rates.iter().sum::<f64>(), said[node].iter().sum::<f64>());
            let off = (really - simulated).abs() / simulated;
            assert!(off < TOLERANCE, "node {node}: {rates:?} really, {:?} simulated", said[node]);
        }

        // Who is left takes the places of who is gone.
        let gone = workers.split_off(WORKERS / 2);
        futures_util::future::join_all(gone.into_iter().map(InProcess::stop)).await;
        eventually(PATIENCE, "the others to read everything", async || {
            readers(&cluster).await.values().all(|names| names.len() == WORKERS / 2)
        })
        .await;
        publish(&publisher, 200, 400).await;
        eventually(PATIENCE, "all to be handled", async || seen(&cluster).await >= 400).await;
        futures_util::future::join_all(workers.into_iter().map(InProcess::stop)).await;
        assert_eq!(seen(&cluster).await, 400);
    }
}
