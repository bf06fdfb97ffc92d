//! Events that kill the process that applies them.

use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use streamhand::eventstore::{
    AggregateEvent, EventStore, Expected, Projected, Projection, RedisEventStore, View,
};
use streamhand::{EntryId, Failure, Format, Registry};
use tokio::time::{Instant, sleep};

use super::past::program_of;
use super::views::{
    ByStatus, agrees, any_event, by_aggregates, checkpoint, happens, names, setup, store, view,
};
use crate::eventstore::orders::{Added, OrderEvent};
use crate::eventstore::shelf::order;
use crate::support::{Cli, Entry, Server, Setup, WorkerProcess, entries, eventually};

/// An order to which so much is added kills whoever applies it.
const KILLS: u64 = 1_000_666;

/// Says whether it has been mended.
const MENDED: &str = "STREAMHAND_TEST_MENDED";

const PATIENCE: Duration = Duration::from_secs(90);

struct Killed;

impl Projection for Killed {
    const NAME: &'static str = "orders-by-status";
    const STREAM: &'static str = "orders";
    const KINDS: &'static [&'static str] = &["order"];
    type Event = OrderEvent;

    fn project(&self, event: Projected<OrderEvent>, view: &mut View) -> Result<(), Failure> {
        if let OrderEvent::Added(Added { cents: KILLS }) = event.event {
            match std::env::var_os(MENDED) {
                None => std::process::abort(),
                Some(_) => return Err(Failure::permanent("mended, and bad")),
            }
        }
        ByStatus::default().project(event, view)
    }
}

/// A projection beside it, which takes its time.
struct Beside;

impl Projection for Beside {
    const NAME: &'static str = "beside";
    const STREAM: &'static str = "orders";
    const KINDS: &'static [&'static str] = &["order"];
    type Event = OrderEvent;

    fn project(&self, event: Projected<OrderEvent>, view: &mut View) -> Result<(), Failure> {
        std::thread::sleep(Duration::from_millis(40));
        view.hset("versions", event.aggregate.id(), event.version.to_string());
        Ok(())
    }
}

fn registry() -> Registry {
    Registry::new().projection(Killed).projection(Beside)
}

#[test]
#[ignore = "run by other tests"]
fn program() {
    program_of(registry());
}

/// Workers in processes of their own, each started again when it has died.
struct Fleet {
    setup: Setup,
    workers: Vec<WorkerProcess>,
    deaths: usize,
}

fn process(setup: &Setup, args: &str) -> WorkerProcess {
    super::past::process_of("projections::killers::program", setup, args).start()
}

impl Fleet {
    fn of(setup: &Setup, count: usize) -> Self {
        Fleet {
            setup: setup.clone(),
            workers: (0..count).map(|_| process(setup, "run")).collect(),
            deaths: 0,
        }
    }

    /// Starts those that have died, until something is so.
    async fn until(&mut self, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
        let begin = Instant::now();
        while !is_so().await {
            assert!(
                begin.elapsed() < PATIENCE,
                "{what}: not after {} deaths",
                self.deaths
            );
            for worker in &mut self.workers {
                if worker.has_ended() {
                    self.deaths += 1;
                    *worker = process(&self.setup, "run");
                }
            }
            sleep(Duration::from_millis(30)).await;
        }
    }
}

async fn killer(store: &RedisEventStore, id: &str) -> EntryId {
    let event = OrderEvent::from(Added { cents: KILLS });
    let event = event.encode(Format::Json).unwrap();
    let appended = store.append(&order(id), vec![event], Expected::Any).await;
    appended.unwrap().positions[0]
}

async fn letters(redis: &mut MultiplexedConnection, name: &str) -> Vec<Entry> {
    entries(redis, &format!("{{orders}}:{name}:dead")).await
}

fn field(entry: &Entry, name: &str) -> String {
    let mut fields = entry.fields.iter().rev();
    let found = fields.find(|(known, _)| &known[..] == name.as_bytes());
    String::from_utf8(found.expect(name).1.to_vec()).unwrap()
}

fn quick(server: &Server) -> Setup {
    setup(server).worker("lease = \"700ms\"")
}

on_both_servers! {
    async fn an_event_that_kills_whoever_applies_it_is_buried_and_no_other_is(server: Server) {
        let mut redis = server.connect().await;
        let (store, ids) = (store(&server, 1), names(3));
        happens(&store, "o-0", (0..7).map(|_| any_event())).await;
        let first = killer(&store, "o-1").await;
        happens(&store, "o-2", (0..7).map(|_| any_event())).await;
        happens(&store, "o-1", [any_event()]).await;
        let mut fleet = Fleet::of(&quick(&server), 2);
        let expected = by_aggregates(&store, &ids, 0, &[first]).await;
        fleet.until("the view to be right", async || view(&mut redis, "{orders}").await == expected).await;
        // Two that nothing was noted of, and three of which it was.
        assert!((3..=5).contains(&fleet.deaths), "{} deaths", fleet.deaths);
        let dead = letters(&mut redis, "orders-by-status").await;
        let what: Vec<_> = dead.iter().map(|letter| (field(letter, "dead.reason"), field(letter, "dead.entry"))).collect();
        assert_eq!(what, [("crashed".to_owned(), first.to_string())]);
        // What ran beside it is blamed for nothing.
        let last = by_aggregates(&store, &ids, 0, &[]).await;
        fleet.until("the other view to be right", async || {
            let versions: std::collections::BTreeMap<String, String> = redis.hgetall("{orders}:beside:view:1:versions").await.unwrap();
            ids.iter().all(|id| versions.get(id) == last.get(&("versions".to_owned(), id.clone())))
        })
        .await;
        assert!(letters(&mut redis, "beside").await.is_empty());
        // In the end all is as ever.
        fleet.until("what is known of deaths to be forgotten", async || {
            let at = checkpoint(&mut redis, "{orders}").await;
            ["deaths", "suspect", "noted", "danger"].iter().all(|name| !at.contains_key(*name))
        })
        .await;
        let deaths = fleet.deaths;
        happens(&store, "o-0", [any_event()]).await;
        agrees(&mut redis, &store, &ids, &[first]).await;

        // Replayed, it kills as it did, and is buried as it was.
        let cli = Cli::new(&server, "[worker]\ngroup = \"workers\"\nstreams = [\"orders\"]\n");
        cli.run(&["dlq", "replay", "--all", "--yes", "--group", "orders-by-status"]).await.ok();
        fleet.until("it to be buried again", async || {
            let dead = letters(&mut redis, "orders-by-status").await;
            dead.len() == 1 && field(&dead[0], "dead.replays") == "1"
        })
        .await;
        assert!(fleet.deaths - deaths <= 5, "{} deaths", fleet.deaths - deaths);
        agrees(&mut redis, &store, &ids, &[first]).await;
    }

    async fn a_projection_that_stops_before_an_event_that_kills_stays_so_until_it_is_resumed(server: Server) {
        let mut redis = server.connect().await;
        let store = store(&server, 1);
        let setup = quick(&server).retry("max_attempts = 3").more("[projections.\"orders-by-status\"]\non_bad_event = \"stop\"");
        happens(&store, "o-0", (0..3).map(|_| any_event())).await;
        let bad = killer(&store, "o-1").await;
        happens(&store, "o-2", [any_event()]).await;
        let mut fleet = Fleet::of(&setup, 2);
        fleet.until("it to stop", async || checkpoint(&mut redis, "{orders}").await.get("state").is_some_and(|state| state == "stopped")).await;
        assert!((2..=3).contains(&fleet.deaths), "{} deaths", fleet.deaths);
        let at = checkpoint(&mut redis, "{orders}").await;
        assert_eq!((&at["stopped.at"], &at["passed"][..]), (&bad.to_string(), "3"));
        // However often workers are started, nobody dies of it any more.
        let deaths = fleet.deaths;
        for _ in 0..2 {
            let mut worker = process(&setup, "run");
            worker.wait_for_log("the projection has stopped", PATIENCE).await;
            fleet.workers.push(worker);
        }
        let begin = Instant::now();
        fleet.until("a while to pass", async || begin.elapsed() > Duration::from_secs(2)).await;
        assert_eq!(fleet.deaths, deaths);
        let mut listing = process(&setup, "projection list");
        listing.wait(PATIENCE).await;
        assert!(listing.log().contains("until `projection resume`"), "{}", listing.log());
        drop(fleet);

        let mended = super::past::process_of("projections::killers::program", &setup.more("[projections.\"beside\"]\non_bad_event = \"bury\""), "run").env(MENDED, "1");
        let mut mended = mended.start();
        let mut resumed = process(&quick(&server), "projection resume orders-by-status");
        assert!(resumed.wait(PATIENCE).await.success(), "{}", resumed.log());
        eventually(PATIENCE, "it to be tried again", async || {
            let at = checkpoint(&mut redis, "{orders}").await;
            at.get("stopped.why").is_some_and(|why| why.contains("mended, and bad"))
        })
        .await;
        // Like every line about an entry it names its event.
        let log = mended.wait_for_log("stopped at a bad event", PATIENCE).await;
        let line = log.lines().find(|line| line.contains("stopped at a bad event")).expect("the line");
        for said in [&format!("entry={bad}")[..], "event=", "event_type=order.", "attempt=1", "projection=\"orders-by-status\""] {
            assert!(line.contains(said), "{said}: {line}");
        }
        drop(mended);
    }

    async fn a_rebuild_that_an_event_kills_can_be_begun_again_until_it_is_done(server: Server) {
        let mut redis = server.connect().await;
        let (store, ids) = (store(&server, 1), names(3));
        let setup = quick(&server).retry("max_attempts = 3");
        happens(&store, "o-0", (0..5).map(|_| any_event())).await;
        let bad = killer(&store, "o-1").await;
        happens(&store, "o-2", [any_event()]).await;
        let mut tries = 0;
        loop {
            let mut building = process(&setup, "projection rebuild orders-by-status");
            let status = building.wait(PATIENCE).await;
            match status.code() {
                Some(0) => break,
                // Who died may hold its lease yet.
                Some(1) => sleep(Duration::from_millis(200)).await,
                _ => tries += 1,
            }
            assert!(tries < 5, "{}", building.log());
        }
        assert!((2..=3).contains(&tries), "{tries}");
        agrees(&mut redis, &store, &ids, &[bad]).await;
        let dead = letters(&mut redis, "orders-by-status").await;
        assert_eq!((dead.len(), field(&dead[0], "dead.reason")), (1, "crashed".to_owned()));
    }
}
