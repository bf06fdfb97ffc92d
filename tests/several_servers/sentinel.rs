use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use streamhand::{ErrorKind, Publisher, Settings};
use tokio::time::{Instant, sleep};

use super::load::{Load, lost};
use crate::support::jobs::{self, Action, Job};
use crate::support::sentinel::{NAME, Trio};
use crate::support::{
    Authority, Entry, Kind, Server, Setup, TlsServer, entries, eventually, settled,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A second after the switch nothing goes to the old primary; two more are for a machine that lets nobody run meanwhile.
const LEFT: Duration = Duration::from_secs(3);

on_both_servers! {
    /// The primary is another one, and then the first again.
    async fn what_is_published_a_second_after_a_switch_is_with_the_new_primary(trio: Trio) {
        let mut trio = trio;
        let load = begun(&trio).await;
        let mut windows = Vec::new();
        for _ in 0..2 {
            let (begun, before) = (Instant::now(), trio.primary().await);
            trio.failover().await;
            windows.push(begun..Instant::now() + LEFT);
            goes_on(&load).await;
            trio.is_replicated(before).await;
        }
        assert_eq!(trio.primary().await, 0, "A, B, A");
        sleep(Duration::from_millis(500)).await;
        all_but_those_of(&windows, load, &mut trio).await;
    }

    /// The primary hangs for a while, and comes back as if it still were the primary.
    async fn a_primary_that_comes_back_gets_nothing(trio: Trio) {
        let mut trio = trio;
        let load = begun(&trio).await;
        let begun = Instant::now();
        trio.servers[0].freeze();
        trio.primary_is_not(0).await;
        let window = begun..Instant::now() + LEFT;
        sleep(Duration::from_millis(500)).await;
        trio.servers[0].thaw();
        goes_on(&load).await;
        trio.is_replicated(0).await;
        all_but_those_of(&[window], load, &mut trio).await;
    }

    /// Its reader waits for entries, and its other connections are idle, when the primary is another one.
    async fn a_worker_goes_to_the_new_primary_and_handles_everything(trio: Trio) {
        let mut trio = trio;
        let settings = of_trio(&trio);
        let (_, sentinel) = settings.split_once("[redis.sentinel]").unwrap();
        let worker = Setup::at("redis://127.0.0.1:1".to_owned()).more(&format!("[redis.sentinel]{sentinel}")).start();
        let publisher = publisher(&settings);
        let mut events = 0;
        let mut published = async || {
            events += 20;
            for number in events - 20..events {
                let job = Job::new(number.to_string(), Action::Succeed);
                while publisher.publish("jobs", &job).await.is_err() {
                    sleep(Duration::from_millis(20)).await;
                }
            }
            events
        };
        let all_are_handled = async |trio: &mut Trio, events: usize| {
            let primary = trio.primary().await;
            let mut redis = trio.servers[primary].connect().await;
            eventually(PATIENCE, "all to be handled", async || {
                (jobs::handled(&mut redis).await.len() >= events).then_some(())
            })
            .await;
            settled(&mut redis, "jobs", PATIENCE).await;
        };
        all_are_handled(&mut trio, published().await).await;
        let since = Instant::now();
        trio.failover().await;
        sleep(Duration::from_secs(1)).await;
        all_are_handled(&mut trio, published().await).await;
        println!("{:?} from the failover to the last event", since.elapsed());
        worker.stop().await;
    }

    /// A login of their own, and TLS of their own, before a primary that has neither.
    async fn sentinels_have_a_login_and_tls_of_their_own(trio: Trio) {
        for sentinel in &trio.sentinels {
            let mut conn = sentinel.connect().await;
            let set = redis::cmd("ACL").arg("SETUSER").arg("default").arg("resetpass").arg(">hidden").to_owned();
            let () = set.query_async(&mut conn).await.expect("a password");
        }
        let settings = of_trio(&trio);
        let said = publisher(&settings).redis().await.unwrap_err().to_string();
        assert!(said.contains("NOAUTH") && said.contains("redis.sentinel.password"), "{said}");
        let said = publisher(&format!("{settings}password = \"wrong\"")).redis().await.unwrap_err().to_string();
        assert!(said.contains("redis.sentinel.password"), "{said}");
        publisher(&format!("{settings}password = \"hidden\"")).redis().await.unwrap();

        let authority = Authority::new();
        let identity = authority.issue("localhost");
        let front = TlsServer::before(&identity, trio.sentinels[0].port()).await;
        let nodes = format!("nodes = [\"localhost:{front}\"]");
        let line = settings.lines().find(|line| line.starts_with("nodes")).unwrap();
        let settings = settings.replace(line, &nodes) + "password = \"hidden\"\ntls = true\n";
        let said = publisher(&settings).redis().await.unwrap_err().to_string();
        assert!(said.contains("issued by nobody we trust"), "{said}");
        let trusted = format!("{settings}tls_ca = \"{}\"\n", authority.file().display());
        publisher(&trusted).redis().await.unwrap();
    }

    async fn sentinels_that_are_gone_or_know_no_such_primary_are_told_of(trio: Trio) {
        let mut trio = trio;
        let settings = of_trio(&trio);
        let wrong = publisher(&settings.replace(NAME, "other"));
        let error = wrong.redis().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        let said = error.to_string();
        assert!(said.contains("no sentinel knows a primary called \"other\"") && said.contains("redis.sentinel.master"), "{said}");

        // One that is away, or two, change nothing.
        trio.sentinels[0].stop();
        trio.sentinels[1].stop();
        let right = publisher(&settings);
        let since = Instant::now();
        right.redis().await.unwrap();
        assert!(since.elapsed() < Duration::from_secs(2));

        trio.sentinels[2].stop();
        let alone = publisher(&settings);
        let said = alone.redis().await.unwrap_err().to_string();
        assert!(said.contains("no sentinel of redis.sentinel.nodes says where \"orders-db\" is"), "{said}");
        // Who has found the primary goes on.
        right.redis().await.unwrap();
    }

    async fn a_sentinel_in_place_of_a_server_is_told_of(kind: Kind) {
        let sentinel = Server::builder(kind).sentinel().start().await;
        let settings = format!("[redis]\nurl = \"{}\"", sentinel.url());
        let said = publisher(&settings).redis().await.unwrap_err().to_string();
        assert!(said.contains("is a sentinel") && said.contains("redis.sentinel.nodes"), "{said}");
    }
}

/// Eight publishers under way.
async fn begun(trio: &Trio) -> Load {
    let publisher = publisher(&of_trio(trio));
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
    let kept = ids(&mut trio.servers[primary].connect().await, "jobs").await;
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

/// `[redis]` for it.
pub fn of_trio(trio: &Trio) -> String {
    let nodes = trio.addresses();
    format!(
        "[redis]\nmode = \"sentinel\"\n[redis.sentinel]\nmaster = \"{NAME}\"\nnodes = {nodes:?}\n"
    )
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
