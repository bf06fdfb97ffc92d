use std::time::Duration;

use streamhand::eventstore::{AppendError, EventStore, Expected, RedisEventStore};
use streamhand::{Error, ErrorKind, NotReplicated, Published, Publisher, Settings};
use tokio::time::{Instant, sleep, timeout};

use super::load::{Load, lost};
use super::sentinel::{ids, of_trio, publisher};
use crate::eventstore::shelf::{events, order, orders};
use crate::support::jobs::{Action, Job};
use crate::support::replication::{a_primary, follow};
use crate::support::sentinel::Trio;
use crate::support::{Cli, Kind, Server, Switch, eventually};

const PATIENCE: Duration = Duration::from_secs(30);
const WINDOW: Duration = Duration::from_secs(600);
/// How long a replica is waited for that hangs.
const SHORT: Duration = Duration::from_millis(300);

/// A primary, and its replica.
async fn both(kind: Kind) -> (Server, Server) {
    let (primary, replica) = tokio::join!(a_primary(kind), a_primary(kind));
    follow(&mut replica.connect().await, &primary).await;
    let mut redis = primary.connect().await;
    eventually(PATIENCE, "the replica to tell what it has", async || {
        let mut asking = redis::pipe();
        asking.set("probe", 1).ignore().cmd("WAIT").arg(1).arg(500);
        let (have,): (u32,) = asking.query_async(&mut redis).await.unwrap();
        have == 1
    })
    .await;
    (primary, replica)
}

fn settings(primary: &Server) -> String {
    format!(
        "[redis]\nurl = \"{}\"\npool_size = 4\nreplicas = 1\nreplicas_timeout = \"5s\"\n",
        primary.url()
    )
}

fn store(primary: &Server) -> RedisEventStore {
    let settings = Settings::from_toml_str(&settings(primary)).unwrap();
    RedisEventStore::new(&settings.redis, orders()).unwrap()
}

fn job(name: &str) -> Job {
    Job::new(name, Action::Succeed)
}

/// Asserts that an error says "stored, not replicated", and returns what it says.
fn stored(error: &Error, is_new: bool) -> NotReplicated {
    assert_eq!(error.kind(), ErrorKind::NotReplicated, "{error}");
    assert!(error.to_string().contains("not replicated"), "{error}");
    let stored = NotReplicated::of(error).expect("what is stored").clone();
    assert_eq!(stored.is_new(), is_new, "{error}");
    stored
}

on_both_servers! {
    async fn what_no_replica_has_is_said_to_be_stored_and_a_repeat_makes_no_double(kind: Kind) {
        let (primary, mut replica) = both(kind).await;
        let (mut redis, mut second) = (primary.connect().await, replica.connect().await);
        // Each its own connection: a repeat is by another one, which has written nothing yet.
        let publisher = || publisher(&settings(&primary));
        publisher().publish("jobs", &job("a")).await.unwrap();
        assert_eq!(ids(&mut second, "jobs").await.len(), 1, "it has been waited for");
        let once = publisher().publish_once("once", "a", &job("a"), WINDOW).await.unwrap();
        let appended = store(&primary).append(&order("o-1"), events(&["a"]), Expected::NoStream).await.unwrap();
        publisher().publish_after("later", &job("a"), WINDOW).await.unwrap();

        replica.freeze();
        let hasty = || publisher().replicas_timeout(SHORT);
        let since = Instant::now();
        let error = hasty().publish("jobs", &job("b")).await.unwrap_err();
        assert!(since.elapsed() >= SHORT, "{:?}", since.elapsed());
        let entry = stored(&error, true).entry().expect("an entry");
        assert!(error.to_string().contains(&entry.to_string()), "{error}");
        assert_eq!(ids(&mut redis, "jobs").await.len(), 2);

        // Nothing is written by a repeat, and replicas are asked all the same.
        let error = hasty().publish_once("once", "b", &job("b"), WINDOW).await.unwrap_err();
        let first = stored(&error, true).entry();
        let error = hasty().publish_once("once", "b", &job("b"), WINDOW).await.unwrap_err();
        assert_eq!(stored(&error, false).entry(), first);
        let scheduled = hasty().envelope(&job("b")).unwrap();
        for is_new in [true, false] {
            let again = hasty().publish_envelope_after("later", scheduled.clone(), WINDOW).await;
            stored(&again.unwrap_err(), is_new);
        }
        for is_new in [true, false] {
            let appending = store(&primary).replicas_timeout(SHORT).append(&order("o-1"), events(&["b"]), Expected::Exact(1)).await;
            match appending.unwrap_err() {
                AppendError::NotReplicated { appended, error } => {
                    assert_eq!((appended[0].first, appended[0].is_new, error.is_new()), (2, is_new, is_new));
                }
                other => panic!("{other}"),
            }
        }
        let later = hasty().publish_after("later", &job("c"), WINDOW).await;
        stored(&later.unwrap_err(), true);

        // No more of many are sent, and the rest is what is not stored.
        let many: Vec<Job> = (0..1000).map(|n| job(&n.to_string())).collect();
        let error = hasty().publish_many("many", &many).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotReplicated);
        let stored_ones = error.events().filter(|(_, one)| matches!(one, Published::NotReplicated(_))).count();
        let unsent = error.events().filter(|(_, one)| matches!(one, Published::NotSent)).count();
        assert!(stored_ones > 0 && unsent > 0 && stored_ones + unsent == 1000, "{stored_ones} and {unsent}: {error}");
        assert_eq!(ids(&mut redis, "many").await.len(), stored_ones);
        assert_eq!(error.into_rest().len(), unsent);

        replica.thaw();
        for id in ["a", "b"] {
            let again = publisher().publish_once("once", id, &job(id), WINDOW).await.unwrap();
            assert!(!again.is_new);
            assert!(id == "b" || again.entry == once.entry);
        }
        assert_eq!(ids(&mut second, "once").await.len(), 2, "each is there once, and the replica has it");
        let again = store(&primary).append(&order("o-1"), events(&["a"]), Expected::NoStream).await.unwrap();
        assert_eq!((again.is_new, again.positions), (false, appended.positions));
        for (aggregate, version) in [("o-1", 2), ("o-2", 0)] {
            assert_eq!(store(&primary).version(&order(aggregate)).await.unwrap(), version);
        }

        // The program.
        let cli = Cli::at(&primary.url(), "");
        let with_one = ["publish", "jobs", "a.b", "{}", "--replicas", "1"];
        eventually(PATIENCE, "a replica to have it", async || cli.run(&with_one).await.code == 0).await;
        let said = cli.run(&["publish", "jobs", "a.b", "{}", "--replicas", "2"]).await;
        assert_eq!(said.code, 1);
        assert!(said.err.contains("stored as ") && said.err.contains("not replicated: 1 of the 2"), "{said:?}");
    }

    /// However long replicas take, nobody waits for more than two turns, and who asks for none does not wait.
    async fn who_waits_for_replicas_holds_up_nobody_else(kind: Kind) {
        let (primary, mut replica) = both(kind).await;
        let waits = publisher(&settings(&primary));
        let plain = waits.clone().replicas(0);
        let timed = async |publisher: &Publisher| {
            let since = Instant::now();
            for n in 0..200 {
                publisher.publish("jobs", &job(&n.to_string())).await.unwrap();
            }
            since.elapsed() / 200
        };
        let (with, without) = (timed(&waits).await, timed(&plain).await);
        let since = Instant::now();
        let all = (0..80).map(|task| {
            let waits = waits.clone();
            async move {
                for n in 0..20 {
                    waits.publish("many", &job(&format!("{task}-{n}"))).await.unwrap();
                }
            }
        });
        futures_util::future::join_all(all).await;
        println!("one at a time: {without:?} each, with a replica {with:?}; 80 at once: {:?} each", since.elapsed() / 1600);

        replica.freeze();
        let since = Instant::now();
        let tasks: Vec<_> = (0..80).map(|n| {
            let waits = waits.clone().replicas_timeout(SHORT);
            tokio::spawn(async move { waits.publish("jobs", &job(&n.to_string())).await })
        }).collect();
        sleep(Duration::from_millis(50)).await;
        let publishing = timed(&plain);
        let slow = timeout(Duration::from_secs(20), publishing).await.expect("others to go on");
        assert!(slow < Duration::from_millis(10), "{slow:?} each");
        for task in tasks {
            stored(&task.await.unwrap().unwrap_err(), true);
        }
        // Two turns of 300 ms; one at a time on four connections would be 6 s.
        assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
        replica.thaw();
        eventually(PATIENCE, "the replica to be back", async || waits.publish("jobs", &job("last")).await.is_ok()).await;
    }

    /// The primary is cut off from its replica, goes on for a while, and dies.
    async fn what_was_acknowledged_with_a_replica_survives_the_death_of_its_primary(trio: Trio) {
        let mut trio = trio;
        let link = Switch::to(trio.servers[0].port()).await;
        let port = link.url().rsplit_once(':').unwrap().1.to_owned();
        let mut redis = trio.servers[1].connect().await;
        let () = redis::cmd("REPLICAOF").arg("127.0.0.1").arg(port).query_async(&mut redis).await.unwrap();
        trio.is_replicated(1).await;
        let settings = of_trio(&trio);
        let plain = publisher(&settings);
        let safe = publisher(&settings).replicas(1).replicas_timeout(Duration::from_millis(300));
        let start = |publisher, stream: &str| Load::start(publisher, &[stream.to_owned()], 8, Duration::from_millis(2));
        let (plain, safe) = (start(&plain, "plain"), start(&safe, "safe"));
        eventually(PATIENCE, "all to be published", async || {
            plain.all_go_on(Duration::from_millis(500)) && safe.all_go_on(Duration::from_millis(500))
        })
        .await;
        sleep(Duration::from_millis(fastrand::u64(100..500))).await;
        link.forget();
        sleep(Duration::from_millis(fastrand::u64(300..600))).await;
        trio.servers[0].stop();
        trio.primary_is_not(0).await;
        eventually(PATIENCE, "all to be published again", async || plain.all_go_on(Duration::from_millis(500))).await;
        let mut redis = trio.servers[1].connect().await;
        let (plain, safe) = (plain.end().await, safe.end().await);
        let without = lost(&plain, &ids(&mut redis, "plain").await);
        let with = lost(&safe, &ids(&mut redis, "safe").await);
        println!(
            "lost when a primary died that was cut off: {} of {} acknowledged, with replicas = 1 {} of {}",
            without.len(), plain.len(), with.len(), safe.len()
        );
        assert!(with.is_empty(), "{} are lost", with.len());
        assert!(!without.is_empty() && safe.len() > 50, "the test shows nothing");
    }
}
