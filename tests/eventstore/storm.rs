//! Thirty-two writers on one aggregate, killed and cut off at random.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use streamhand::eventstore::{AppendError, EventStore, Expected, PublicStreams};
use streamhand::{Context, ErrorKind, Registry};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::shelf::{event, order, orders, stored};
use super::{published, store_of};
use crate::support::{Proxy, Server, Setup, WorkerProcess, eventually, settled};

const APPENDS: usize = 5_000;
const PROCESSES: usize = 4;
const WRITERS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(90);
/// Names the server to a process of writers.
const URL: &str = "STREAMHAND_TEST_STORE";

/// What a process of writers does until it is killed: says what it tries and what was acknowledged.
#[test]
#[ignore = "run by other tests"]
fn writers() {
    let url = std::env::var(URL).expect("a server");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    // Behind what the test's harness has begun to say.
    println!();
    runtime.block_on(async {
        let all = (0..WRITERS).map(|n| tokio::spawn(write(url.clone(), n % 4 == 3)));
        for writer in all.collect::<Vec<_>>() {
            writer.await.expect("no writer fails");
        }
    });
}

/// Appends events for ever, expecting the version it knows, or any.
async fn write(url: String, any: bool) {
    let (store, id) = (
        store_of(&url, PublicStreams::new("orders").unwrap()),
        order("o-1"),
    );
    let mut version = 0;
    loop {
        let names: Vec<String> = (0..fastrand::usize(1..4))
            .map(|_| Uuid::now_v7().to_string())
            .collect();
        println!("try {}", names.join(" "));
        loop {
            let expected = if any {
                Expected::Any
            } else {
                Expected::Exact(version)
            };
            let events = names.iter().map(|name| event(name)).collect();
            match store.append(&id, events, expected).await {
                Ok(appended) => {
                    println!("ack {} {}", appended.first, names.join(" "));
                    version = appended.version();
                    break;
                }
                Err(AppendError::Conflict(conflict)) => version = conflict.actual,
                Err(AppendError::Failed(error)) if error.kind() == ErrorKind::Unreachable => {
                    sleep(Duration::from_millis(5)).await;
                    // Where others may have come behind it, it would not be known again.
                    if any {
                        break;
                    }
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

/// What writers have said.
#[derive(Default)]
struct Said {
    tried: HashSet<String>,
    acknowledged: HashMap<String, u64>,
    appends: usize,
}

impl Said {
    fn hear(&mut self, log: &str) {
        assert!(!log.contains("panicked"), "{log}");
        // A process that was killed may have begun a line.
        for line in log
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
        {
            let mut words = line.split(' ');
            match words.next() {
                Some("try") => self.tried.extend(words.map(str::to_owned)),
                Some("ack") => {
                    let first: u64 = words.next().unwrap().parse().unwrap();
                    self.appends += 1;
                    for (at, name) in words.enumerate() {
                        self.acknowledged.insert(name.to_owned(), first + at as u64);
                    }
                }
                _ => {}
            }
        }
    }
}

on_both_servers! {
    async fn thirty_two_writers_killed_at_random_leave_no_gap_and_nothing_twice(server: Server) {
        let mut redis = server.connect().await;
        let proxy = Proxy::start(server.port()).await;
        // Two processes can be cut off as well.
        let start = |n: usize| {
            let url = if n.is_multiple_of(2) { proxy.url() } else { server.url() };
            WorkerProcess::builder().test("eventstore::storm::writers").env(URL, url).start()
        };
        let mut processes: Vec<WorkerProcess> = (0..PROCESSES).map(start).collect();
        let (mut said, mut kills, begin) = (Said::default(), 0, Instant::now());
        loop {
            sleep(Duration::from_millis(fastrand::u64(100..500))).await;
            proxy.cut().await;
            let mut heard = said.appends;
            heard += processes.iter().map(|process| process.log().matches("ack ").count()).sum::<usize>();
            if heard >= APPENDS && kills >= 8 {
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "{heard} appends, {kills} kills");
            let victim = fastrand::usize(..PROCESSES);
            processes[victim].kill();
            said.hear(&processes[victim].log());
            processes[victim] = start(victim);
            kills += 1;
        }
        for process in &mut processes {
            process.kill();
            said.hear(&process.log());
        }
        // What was on its way when they were killed has come.
        eventually(PATIENCE, "all writers to be gone", async || {
            let info: redis::InfoDict = redis::cmd("INFO").arg("clients").query_async(&mut redis).await.unwrap();
            info.get::<u64>("connected_clients") == Some(1)
        })
        .await;

        let all = stored(&store_of(&server.url(), orders()), &order("o-1"), 1).await;
        assert!(all.iter().map(|one| one.version).eq(1..=all.len() as u64));
        let found: HashMap<String, u64> = all.iter().map(|one| (one.envelope.id().into_owned(), one.version)).collect();
        assert_eq!(found.len(), all.len(), "nothing twice");
        let lost: Vec<_> = said.acknowledged.iter().filter(|(id, version)| found.get(*id) != Some(version)).collect();
        assert!(lost.is_empty(), "acknowledged and not there: {lost:?}");
        assert!(found.keys().all(|id| said.tried.contains(id)), "nothing that nobody wrote");
        let told = published(&mut redis, "orders").await;
        assert_eq!(told.len(), all.len());
        for (one, told) in all.iter().zip(&told) {
            assert_eq!((one.envelope.id(), one.position), (told.id(), told.entry_id()));
            assert_eq!(told.field("aggregateversion"), Some(&*one.version.to_string()));
        }
    }

    async fn a_group_of_workers_sees_what_was_stored_once(server: Server) {
        let mut redis = server.connect().await;
        let (store, id) = (store_of(&server.url(), orders()), order("o-1"));
        let (tell, mut told) = mpsc::unbounded_channel();
        let registry = Registry::new().on_raw("order.changed", move |envelope, _: Context| {
            let version = envelope.field("aggregateversion").map(str::to_owned);
            let sent = tell.send((envelope.subject().map(str::to_owned), version, envelope.id().into_owned()));
            async move { Ok(sent?) }
        });
        let worker = Setup::new(&server).worker("streams = [\"orders\"]").start_with(registry);
        for version in 0..20 {
            store.append(&id, vec![event(&format!("e-{version}"))], Expected::Exact(version)).await.unwrap();
            // Told again, and in vain: neither is seen.
            assert!(!store.append(&id, vec![event(&format!("e-{version}"))], Expected::Exact(version)).await.unwrap().is_new);
            assert!(store.append(&id, vec![event("late")], Expected::Exact(version)).await.is_err());
        }
        settled(&mut redis, "orders", PATIENCE).await;
        worker.stop().await;
        told.close();
        let mut all = Vec::new();
        while let Some((subject, version, id)) = told.recv().await {
            assert_eq!(subject.as_deref(), Some("order:o-1"));
            all.push((version.unwrap().parse::<u64>().unwrap(), id));
        }
        all.sort();
        let expected: Vec<_> = (0..20).map(|version| (version + 1, format!("e-{version}"))).collect();
        assert_eq!(all, expected);
    }
}
