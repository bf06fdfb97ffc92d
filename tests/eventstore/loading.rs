//! A long aggregate is loaded in one pass, and little of it is in memory at a time.

use std::time::Duration;

use streamhand::Envelope;
use streamhand::eventstore::{EventStore, Expected, Repository};

use super::orders::Order;
use super::shelf::{order, orders};
use super::store_of;
use crate::support::{Proxy, Server, WorkerProcess};

const EVENTS: u64 = 100_000;
/// Bytes of each event that are nothing but bulk.
const BULK: usize = 1_000;
const URL: &str = "STREAMHAND_TEST_STORE";

/// The most memory this process has had, in KiB, as Linux says; 0 elsewhere.
pub fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.map_or(0, |peak| {
        let number = peak.split_whitespace().next().expect("a number");
        number.parse().expect("a number")
    })
}

/// In a process of its own, whose memory is nobody else's.
#[test]
#[ignore = "run by other tests"]
fn load() {
    let url = std::env::var(URL).expect("a server");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let repository = Repository::<Order>::new(store_of(&url, orders()));
        repository.load("short").await.unwrap();
        let before = peak();
        let loaded = repository.load("long").await.unwrap();
        let state = loaded.state();
        println!(
            "loaded {} {} {} KiB",
            loaded.version(),
            state.cents,
            peak() - before
        );
    });
}

on_both_servers! {
    async fn a_hundred_thousand_events_are_loaded_in_one_pass_with_little_memory(server: Server) {
        let store = store_of(&server.url(), orders());
        let added = |_| {
            let data = serde_json::json!({ "cents": 1, "bulk": "x".repeat(BULK) });
            Envelope::new("order.added").json(&data).expect("an event")
        };
        store.append(&order("short"), vec![added(0)], Expected::NoStream).await.unwrap();
        for version in (0..EVENTS).step_by(1_000) {
            store.append(&order("long"), (0..1_000).map(added).collect(), Expected::Exact(version)).await.unwrap();
        }
        let proxy = Proxy::start(server.port()).await;
        let mut process = WorkerProcess::builder().test("eventstore::loading::load").env(URL, proxy.url()).start();
        let line = process.wait_for_log("loaded ", Duration::from_secs(90)).await;
        let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        assert_eq!(numbers[..2], [EVENTS, EVENTS], "{line}");
        // Over 100 MB have come; a page has 512 events.
        assert!(numbers[2] < 16 << 10, "{line}");
        let requests = proxy.traffic().requests();
        assert!(requests < EVENTS / 300, "{requests} requests");
    }
}
