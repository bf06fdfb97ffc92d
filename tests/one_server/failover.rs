//! A failover behind one address: the old primary lives on as a replica, and connections to it stay open.

use std::time::{Duration, Instant};

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use streamhand::eventstore::{EventStore, Expected, Projected, Projection, View};
use streamhand::{Context, Envelope, Failure, Registry};

use crate::eventstore::orders::{Added, OrderEvent};
use crate::eventstore::shelf::{order, orders, stored};
use crate::eventstore::store_of;
use crate::support::jobs::{self, Action, Job, many};
use crate::support::replication::{a_primary, follow, lead};
use crate::support::{Cli, Kind, Setup, Switch, dead, eventually, parked, publisher, settled};

const PATIENCE: Duration = Duration::from_secs(30);
/// How long anything may take once the address leads elsewhere, on a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// Counts cents.
struct Cents;

impl Projection for Cents {
    const NAME: &'static str = "cents";
    const STREAM: &'static str = "orders";
    const KINDS: &'static [&'static str] = &["order"];
    type Event = OrderEvent;

    fn project(&self, event: Projected<OrderEvent>, view: &mut View) -> Result<(), Failure> {
        if let OrderEvent::Added(Added { cents }) = event.event {
            view.incr_by("cents", cents as i64);
        }
        Ok(())
    }
}

/// What handlers do with Redis: over their own connection, by the publisher, and with the acknowledgement.
fn registry() -> Registry {
    jobs::registry()
        .on_raw("test.relay", async |event: Envelope, ctx: Context| {
            let relayed = Envelope::new("test.relayed").with("id", &*event.id());
            ctx.publisher()?
                .publish_envelope("relayed", relayed)
                .await?;
            ctx.emit_envelope("{jobs}:emitted", Envelope::new("test.emitted"));
            Ok(())
        })
        .projection(Cents)
}

on_both_servers! {
    async fn everything_follows_to_the_new_primary_and_nothing_runs_twice(kind: Kind) {
        let (old, new) = (a_primary(kind).await, a_primary(kind).await);
        let (mut first, mut second) = (old.connect().await, new.connect().await);
        follow(&mut second, &old).await;
        let switch = Switch::to(old.port()).await;
        let worker = Setup::at(switch.url()).worker("concurrency = 8").start_with(registry());
        let (publisher, store) = (publisher(&switch.url()), store_of(&switch.url(), orders()));
        let added = || vec![Envelope::new("order.added").json(&Added { cents: 1 }).unwrap()];
        let relay = || Envelope::new("test.relay");
        // Everything has spoken to the old one.
        jobs::publish(&mut first, "jobs", &many("before", 20, &Action::Succeed)).await;
        publisher.publish_envelope("jobs", relay()).await.unwrap();
        store.append(&order("o"), added(), Expected::Any).await.unwrap();
        eventually(PATIENCE, "the first to be handled", async || {
            jobs::handled(&mut first).await.len() == 20 && emitted(&mut first).await == (1, 1) && cents(&mut first).await == 1
        })
        .await;
        // These are handled all the while: what they come to is for the new one.
        let mut meanwhile = many("long", 4, &Action::Take(3_000));
        meanwhile.push(Job::new("fails", Action::TakeThenFail(3_000)));
        jobs::publish(&mut first, "jobs", &meanwhile).await;
        eventually(PATIENCE, "both to know that they run", async || jobs::started(&mut second).await.len() == 25).await;

        lead(&mut second).await;
        follow(&mut first, &new).await;
        switch.lead_to(new.port());
        let since = Instant::now();
        jobs::publish(&mut second, "jobs", &many("after", 20, &Action::Succeed)).await;
        // What the old one refuses it has not done: these ask the new one, and nobody hears of it.
        publisher.publish_envelope("jobs", relay()).await.unwrap();
        store.append(&order("o"), added(), Expected::Any).await.unwrap();
        eventually(SOON, "the new ones to be handled", async || {
            let handled = jobs::handled(&mut second).await;
            (0..20).all(|n| handled.get(&format!("after-{n}")) == Some(&1))
        })
        .await;
        eventually(SOON, "what handlers publish and emit", async || emitted(&mut second).await == (2, 2)).await;
        eventually(SOON, "the projection", async || cents(&mut second).await == 2).await;
        println!("everything is at the new one after {:?}", since.elapsed());
        assert_eq!(stored(&store, &order("o"), 1).await.len(), 2);
        eventually(SOON, "the long ones to be handled", async || {
            let handled = jobs::handled(&mut second).await;
            (0..4).all(|n| handled.get(&format!("long-{n}")) == Some(&1))
        })
        .await;
        eventually(SOON, "nobody to be left at the old one", async || {
            let left = ours(&mut first).await;
            if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
        })
        .await;
        // Several leases later it is still there, and holds nothing that it has not.
        let status = Cli::at(&switch.url(), "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\nlease = \"2s\"\n");
        eventually(SOON, "status to know the worker", async || {
            let status = status.run(&["status", "--json"]).await.json();
            let workers = status["streams"][0]["group"]["consumers"].as_array().cloned().unwrap_or_default();
            match workers.iter().any(|worker| worker["standing"] == "working") {
                true => Ok(()),
                false => Err(status.to_string()),
            }
        })
        .await;
        // What failed runs again, as its next attempt; and nothing else runs twice.
        eventually(SOON, "the retries", async || {
            let fails = jobs::started(&mut second).await.into_iter().filter(|trace| trace.id == "fails");
            let attempts: Vec<u32> = fails.map(|trace| trace.attempt).collect();
            if attempts.starts_with(&[1, 2]) { Ok(()) } else { Err(format!("{attempts:?}")) }
        })
        .await;
        let stopping = Instant::now();
        let summary = worker.stop().await;
        assert!(stopping.elapsed() < SOON, "it took {:?} to stop", stopping.elapsed());
        assert_eq!(summary.unsettled, 0);
        assert_eq!(dead(&mut second).await, 0);
        assert_eq!(parked(&mut second).await, 1, "what fails waits for its next attempt");
        let started = jobs::started(&mut second).await;
        let mut runs: Vec<(String, u32)> = started.into_iter().map(|trace| (trace.id, trace.attempt)).collect();
        let all = runs.len();
        runs.sort();
        runs.dedup();
        assert_eq!(runs.len(), all, "an attempt ran twice: {runs:?}");
    }

    /// Back to where it was: the server is the same process, and may lack what the other one had.
    async fn a_server_that_was_a_replica_meanwhile_counts_as_another(kind: Kind) {
        let (old, new) = (a_primary(kind).await, a_primary(kind).await);
        let (mut first, mut second) = (old.connect().await, new.connect().await);
        follow(&mut second, &old).await;
        let switch = Switch::to(old.port()).await;
        let worker = Setup::at(switch.url()).start();
        jobs::publish(&mut first, "jobs", &many("a", 5, &Action::Succeed)).await;
        settled(&mut first, "jobs", PATIENCE).await;
        knows(&mut second, 5).await;
        lead(&mut second).await;
        follow(&mut first, &new).await;
        switch.lead_to(new.port());
        jobs::publish(&mut second, "jobs", &many("b", 5, &Action::Succeed)).await;
        eventually(SOON, "those at the other", async || jobs::handled(&mut second).await.len() == 10).await;
        settled(&mut second, "jobs", PATIENCE).await;
        knows(&mut first, 10).await;
        lead(&mut first).await;
        follow(&mut second, &old).await;
        switch.lead_to(old.port());
        jobs::publish(&mut first, "jobs", &many("c", 5, &Action::Succeed)).await;
        eventually(SOON, "those back at the first", async || jobs::handled(&mut first).await.len() == 15).await;
        settled(&mut first, "jobs", PATIENCE).await;
        assert_eq!(worker.stop().await.unsettled, 0);
    }
}

/// Waits until a replica knows that so many are handled, and all settled.
async fn knows(redis: &mut MultiplexedConnection, count: usize) {
    eventually(PATIENCE, "the replica to have everything", async || {
        jobs::handled(redis).await.len() == count
    })
    .await;
    settled(redis, "jobs", PATIENCE).await;
}

/// What the handler of relays has published, and emitted.
async fn emitted(redis: &mut MultiplexedConnection) -> (u64, u64) {
    let relayed = redis.xlen("relayed").await.unwrap();
    (relayed, redis.xlen("{jobs}:emitted").await.unwrap())
}

/// What the view has counted.
async fn cents(redis: &mut MultiplexedConnection) -> u64 {
    let cents: Option<u64> = redis.get("{orders}:cents:view:1:cents").await.unwrap();
    cents.unwrap_or(0)
}

/// Who of ours is connected.
async fn ours(redis: &mut MultiplexedConnection) -> Vec<String> {
    let mut list = redis::cmd("CLIENT");
    list.arg("LIST").arg("TYPE").arg("NORMAL");
    let clients: String = list.query_async(redis).await.unwrap();
    let ours = clients
        .lines()
        .filter(|line| line.contains("name=streamhand") || line.contains(":cents"));
    ours.map(str::to_owned).collect()
}
