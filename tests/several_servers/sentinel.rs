use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use streamhand::{ErrorKind, Publisher, Settings};
use tokio::time::{Instant, sleep};

use super::load::{Load, lost};
use super::nodes::{PATIENCE, Trio};
use crate::support::{Entry, Kind, entries, eventually};

on_both_servers! {
    /// The primary is another one, and then the first again.
    async fn what_is_published_a_second_after_a_switch_is_with_the_new_primary(kind: Kind) {
        let mut trio = Trio::start(kind).await;
        let load = begun(&trio).await;
        let first = trio.servers[0].port();
        let mut windows = Vec::new();
        for _ in 0..2 {
            let (begun, before) = (Instant::now(), trio.primary().await);
            trio.failover().await;
            windows.push(begun..Instant::now() + Duration::from_secs(1));
            goes_on(&load).await;
            trio.follows(before).await;
        }
        assert_eq!(trio.primary().await, first, "A, B, A");
        sleep(Duration::from_millis(500)).await;
        all_but_those_of(&windows, load, &mut trio).await;
    }

    /// The primary hangs for a while, and comes back as if it still were the primary.
    async fn a_primary_that_comes_back_gets_nothing(kind: Kind) {
        let mut trio = Trio::start(kind).await;
        let load = begun(&trio).await;
        let first = trio.servers[0].port();
        let begun = Instant::now();
        trio.at(first).freeze();
        trio.switched_from(first).await;
        let window = begun..Instant::now() + Duration::from_secs(1);
        sleep(Duration::from_millis(500)).await;
        trio.at(first).thaw();
        goes_on(&load).await;
        trio.follows(first).await;
        all_but_those_of(&[window], load, &mut trio).await;
    }

    async fn sentinels_that_are_gone_or_know_no_such_primary_are_told_of(kind: Kind) {
        let mut trio = Trio::start(kind).await;
        let settings = trio.settings();
        let wrong = publisher(&settings.replace("mymaster", "other"));
        let error = wrong.redis().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        let said = error.to_string();
        assert!(said.contains("no sentinel knows a primary called \"other\"") && said.contains("redis.sentinel.master"), "{said}");

        // One that is away, or two, change nothing.
        trio.stop_sentinel(0);
        trio.stop_sentinel(1);
        let right = publisher(&settings);
        let since = Instant::now();
        right.redis().await.unwrap();
        assert!(since.elapsed() < Duration::from_secs(2));

        trio.stop_sentinel(2);
        let alone = publisher(&settings);
        let said = alone.redis().await.unwrap_err().to_string();
        assert!(said.contains("no sentinel of redis.sentinel.nodes says where \"mymaster\" is"), "{said}");
        // Who has found the primary goes on.
        right.redis().await.unwrap();
    }

    async fn a_sentinel_in_place_of_a_server_is_told_of(kind: Kind) {
        let trio = Trio::start(kind).await;
        let settings = format!("[redis]\nurl = \"redis://127.0.0.1:{}\"", trio.sentinels[0]);
        let said = publisher(&settings).redis().await.unwrap_err().to_string();
        assert!(said.contains("is a sentinel") && said.contains("redis.sentinel.nodes"), "{said}");
    }
}

/// Eight publishers under way.
async fn begun(trio: &Trio) -> Load {
    let publisher = publisher(&trio.settings());
    let load = Load::start(
        &publisher,
        &["jobs".to_owned()],
        8,
        Duration::from_millis(5),
    );
    sleep(Duration::from_millis(300)).await;
    assert!(load.all_go_on(Duration::from_millis(300)));
    load
}

async fn goes_on(load: &Load) {
    eventually(PATIENCE, "all to be published again", async || {
        load.all_go_on(Duration::from_millis(500))
    })
    .await;
}

/// Everything that was acknowledged is with the primary, but what was while primaries changed.
async fn all_but_those_of(windows: &[Range<Instant>], load: Load, trio: &mut Trio) {
    let acked = load.end().await;
    let primary = trio.primary().await;
    let kept = ids(&mut trio.at(primary).connect().await, "jobs").await;
    let lost = lost(&acked, &kept);
    println!(
        "{} published, {} lost while primaries changed",
        acked.len(),
        lost.len()
    );
    assert!(acked.len() > 500, "{}", acked.len());
    for event in lost {
        let is_within = windows.iter().any(|window| window.contains(&event.at));
        assert!(
            is_within,
            "{} is lost, of {:?} before",
            event.id,
            event.at.elapsed()
        );
    }
}

pub fn publisher(settings: &str) -> Publisher {
    Publisher::new(&Settings::from_toml_str(settings).unwrap().redis).unwrap()
}

/// The ids of the events of a stream.
pub async fn ids(redis: &mut MultiplexedConnection, stream: &str) -> HashSet<String> {
    let entries = entries(redis, stream).await.into_iter();
    let id = |entry: Entry| {
        let (_, id) = entry.fields.into_iter().find(|(name, _)| name == "id")?;
        String::from_utf8(id.to_vec()).ok()
    };
    entries.filter_map(id).collect()
}
