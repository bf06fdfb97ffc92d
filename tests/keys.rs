//! What is left in Redis after a storm: keys that `docs/keys.md` lists, of the types it says, and none that grows with how
//! much has been settled.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use regex::Regex;

use crate::support::jobs::{self, Action, Job, many};
use crate::support::{Server, Setup, settled};

const PATIENCE: Duration = Duration::from_secs(60);

/// The keys that the page lists, as patterns for this test's stream and group, each with its type.
pub fn listed() -> Vec<(Regex, String)> {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/keys.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let key = cells[0]
            .trim_matches('`')
            .replace("orders", "jobs")
            .replace("fulfilment", "workers");
        let variable = Regex::new("<[a-z]+>").unwrap();
        let fixed: Vec<String> = variable.split(&key).map(regex::escape).collect();
        (
            Regex::new(&format!("^{}$", fixed.join(".+"))).unwrap(),
            cells[1].to_owned(),
        )
    };
    let listed: Vec<_> = rows.map(row).collect();
    assert!(listed.len() > 20, "{listed:?}");
    listed
}

async fn keys(redis: &mut MultiplexedConnection) -> BTreeSet<String> {
    let keys: Vec<String> = redis.keys("*").await.unwrap();
    keys.into_iter()
        .filter(|key| !key.starts_with("test:"))
        .collect()
}

/// Jobs that fail, come back, are released, buried and handled once, some of them twice on the stream.
async fn storm(redis: &mut MultiplexedConnection, round: usize, events: usize) {
    let of = |name: &str, count, action: Action| many(&format!("{name}-{round}"), count, &action);
    let mut all = of("fails", 200, Action::Fail(1));
    all.extend(of("fails-more", 50, Action::Fail(2)));
    all.extend(of("gives-back", 100, Action::Later(1)));
    all.extend(of("dies", 100, Action::FailForGood));
    all.extend(of("quick", 300, Action::Succeed));
    jobs::publish(redis, "jobs", &all).await;
    let mut pipe = redis::pipe();
    for n in 0..events {
        let action = if n % 2 == 0 {
            Action::FailForGood
        } else {
            Action::Fail(1)
        };
        let data = serde_json::to_string(&Job::new(format!("once-{round}-{n}"), action)).unwrap();
        for _ in 0..2 {
            let fields = [
                "type",
                "test.job",
                "id",
                &format!("e-{round}-{n}"),
                "data",
                &data,
            ];
            pipe.cmd("XADD").arg("jobs").arg("*").arg(&fields).ignore();
        }
    }
    if events > 0 {
        let _: () = pipe.query_async(redis).await.unwrap();
    }
    settled(redis, "jobs", PATIENCE).await;
}

on_both_servers! {
    async fn a_storm_leaves_keys_that_are_listed_and_none_for_what_is_settled(server: Server) {
        let mut redis = server.connect().await;
        // No lease runs out however busy the machine is: what is taken over while its handler runs is guarded for an hour.
        let setup = Setup::new(&server).worker("lease = \"10s\"").handler("deduplicate = \"1h\"").handler("rate = \"5000/s\"").handler("rate_scope = \"group\"");
        let workers = [setup.start(), setup.start()];
        storm(&mut redis, 0, 40).await;
        let before = keys(&mut redis).await;
        storm(&mut redis, 1, 0).await;
        storm(&mut redis, 2, 0).await;
        // What holds the turns of housekeeping, and rates, comes and goes.
        let passing = |key: &String| !key.ends_with(":tidied") && !key.ends_with(":tidied_to") && !key.contains(":rate:");
        let after = keys(&mut redis).await;
        let new: Vec<&String> = after.difference(&before).filter(|key| passing(key)).collect();
        assert_eq!(new, [""; 0], "keys that came with more of the same");

        let listed = listed();
        for key in after.union(&before) {
            let kind: String = redis::cmd("TYPE").arg(key).query_async(&mut redis).await.unwrap();
            let is_listed = |(pattern, of): &(Regex, String)| pattern.is_match(key) && (*of == kind || of == "any" || kind == "none");
            assert!(listed.iter().any(is_listed), "{key}, a {kind}, is not in docs/keys.md");
            // The stream and the dead letters are what they are, and what is guarded is so for a time; everything else is
            // bounded.
            if key.ends_with(":guards") {
                let left: i64 = redis.pttl(key).await.unwrap();
                let is_gone = left == -2;
                assert!(is_gone || (1..=60_000).contains(&left), "{key} stays for {left} ms");
            } else if key != "jobs" && !key.ends_with(":dead") {
                let bytes: Option<u64> = redis::cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(0).query_async(&mut redis).await.unwrap();
                assert!(bytes.unwrap_or(0) < 64 << 10, "{key} has {bytes:?} bytes");
            }
        }
        // Of events that were buried no claim is left, and of those that succeeded that they are done.
        let marks: Vec<&String> = after.iter().filter(|key| key.contains(":seen:")).collect();
        assert_eq!(marks.len(), 20);
        for mark in marks {
            let state: String = redis.get(mark).await.unwrap();
            assert!(state.starts_with("done "), "{mark}: {state}");
        }
        for worker in workers {
            worker.stop().await;
        }
    }
}
