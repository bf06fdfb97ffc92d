//! Ids up to 2^64 - 1 in both halves: a clock of nanoseconds is beyond what a double holds, and a stream can be sealed
//! with the last id there is. Whatever they are, entries are handled, and every script does with such ids what it does
//! with small ones.

mod scene;

use std::time::Duration;

use redis::Value;
use redis::aio::MultiplexedConnection;

use crate::support::jobs::{self, Action, Job};
use crate::support::{Cli, Server, Setup, eventually, scripts, settled};
use scene::{Ids, WITHOUT_IDS, play, played};

const PATIENCE: Duration = Duration::from_secs(30);
/// Where a double stops being exact, where a signed number ends, and where an id ends.
const EDGES: [u64; 7] = [
    0,
    (1 << 53) - 1,
    1 << 53,
    (1 << 53) + 1,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// What the piece that all scripts share says of some ids: is each above the next, and what comes after and before it.
async fn moved(redis: &mut MultiplexedConnection, ids: &[(u64, u64)]) -> Vec<String> {
    let text = scripts::text("common/ids")
        + "local out = {}
           for i, id in ipairs(ARGV) do
             out[i] = (above(id, ARGV[i + 1] or id) and 1 or 0) .. ' ' .. (just_above(id) or 'none') .. ' '
               .. (just_below(id) or 'none')
           end
           return out";
    let mut call = redis::cmd("EVAL");
    call.arg(text).arg(0);
    for (ms, seq) in ids {
        call.arg(format!("{ms}-{seq}"));
    }
    call.query_async(redis).await.unwrap()
}

fn written(id: Option<(u64, u64)>) -> String {
    id.map_or("none".to_owned(), |(ms, seq)| format!("{ms}-{seq}"))
}

fn next(id: (u64, u64)) -> Option<(u64, u64)> {
    let later = id.0.checked_add(1).map(|ms| (ms, 0));
    id.1.checked_add(1).map_or(later, |seq| Some((id.0, seq)))
}

fn before(id: (u64, u64)) -> Option<(u64, u64)> {
    let earlier = id.0.checked_sub(1).map(|ms| (ms, u64::MAX));
    id.1.checked_sub(1).map_or(earlier, |seq| Some((id.0, seq)))
}

/// Adds a job under an id of its own.
async fn add(redis: &mut MultiplexedConnection, id: &str, job: &Job) {
    let data = serde_json::to_string(job).unwrap();
    let mut call = redis::cmd("XADD");
    call.arg("jobs")
        .arg(id)
        .arg("type")
        .arg("test.job")
        .arg("data")
        .arg(data);
    let _: String = call.query_async(redis).await.unwrap();
}

on_both_servers! {
    async fn ids_are_compared_and_moved_by_their_digits(server: Server) {
        let mut redis = server.connect().await;
        let mut numbers: Vec<u64> = EDGES.into_iter().chain([1, 9, 10, 99, 100, 1_732_360_000_000]).collect();
        numbers.extend((0..40).map(|_| fastrand::u64(..) >> fastrand::u32(0..64)));
        let mut ids: Vec<(u64, u64)> = Vec::new();
        for ms in &numbers {
            ids.extend(numbers.iter().map(|seq| (*ms, *seq)));
        }
        fastrand::shuffle(&mut ids);
        ids.truncate(2_000);
        let said = moved(&mut redis, &ids).await;
        for (at, id) in ids.iter().enumerate() {
            let is_above = ids.get(at + 1).is_some_and(|other| id > other);
            let expected = format!("{} {} {}", u8::from(is_above), written(next(*id)), written(before(*id)));
            assert_eq!(said[at], expected, "{id:?}");
        }
    }

    /// Ids around the edges, in one half and in the other, and up to the very last: with all of them every script
    /// comes to what it comes to with ids that any number holds.
    async fn every_script_does_the_same_whatever_the_ids(server: Server) {
        let mut redis = server.connect().await;
        for halves in [Ids::in_ms, Ids::in_seq] {
            let small = play(&mut redis, &halves(3_000_000_000_000, 2)).await;
            for edge in EDGES.into_iter().filter(|edge| *edge > 0) {
                let ids = halves(edge, if edge > 1 << 63 { 0 } else { 2 });
                let other = play(&mut redis, &ids).await;
                for (one, other) in small.iter().zip(&other) {
                    assert_eq!(one, other, "with {ids:?}");
                }
                assert_eq!(small.len(), other.len());
            }
        }
        let last = play(&mut redis, &Ids::last()).await;
        assert_eq!(last, play(&mut redis, &Ids::in_seq(3_000_000_000_000, 0)).await);
        let mut scripts = scripts::names();
        let played = played(&last);
        scripts.retain(|name| !played.contains(&&name[..]) && !WITHOUT_IDS.contains(&&name[..]));
        assert_eq!(scripts, [""; 0], "scripts that were not played");
    }

    /// A worker that dies with it, and a group that is destroyed while it is held: what comes next begins below it.
    async fn a_group_made_anew_begins_below_an_id_of_nanoseconds(server: Server) {
        let mut redis = server.connect().await;
        let mut worker = Setup::new(&server).process();
        let id = "1732360000000000000-0";
        worker.wait_for_log("the group is new", PATIENCE).await;
        add(&mut redis, id, &Job::new("held", Action::Take(60_000))).await;
        eventually(PATIENCE, "the position to be noted", async || {
            let notes: Vec<String> =
                redis::cmd("HVALS").arg("{jobs}:workers:position").query_async(&mut redis).await.unwrap();
            notes.contains(&format!("from {id}"))
        })
        .await;
        worker.kill();
        let _: Value = redis::cmd("XGROUP").arg("DESTROY").arg("jobs").arg("workers").query_async(&mut redis).await.unwrap();
        let other = Setup::new(&server).start();
        eventually(PATIENCE, "it to run again", async || jobs::starts_of(&mut redis, "held").await == 2).await;
        drop(other);
    }

    /// The last ids there are: the stream takes no more entries, and these are handled as any are, each once.
    async fn entries_under_the_last_ids_are_handled_once(server: Server) {
        let mut redis = server.connect().await;
        // Renewed often while they run.
        let setup = Setup::new(&server).worker("lease = \"900ms\"");
        let worker = setup.start();
        let actions = [Action::Take(1_500), Action::Fail(1), Action::FailForGood, Action::Take(1_500)];
        for (seq, action) in (u64::MAX - 3..=u64::MAX).zip(actions) {
            add(&mut redis, &format!("{}-{seq}", u64::MAX), &Job::new(format!("{seq}"), action)).await;
        }
        settled(&mut redis, "jobs", PATIENCE).await;
        worker.stop().await;
        let mut attempts: Vec<_> = jobs::started(&mut redis).await.into_iter().map(|t| (t.id, t.attempt)).collect();
        attempts.sort();
        let of = |back: u64| (u64::MAX - back).to_string();
        assert_eq!(attempts, [(of(3), 1), (of(2), 1), (of(2), 2), (of(1), 1), (of(0), 1)]);
        let cli = Cli::new(&server, "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]");
        let status = cli.run(&["status", "--json"]).await.json();
        let group = &status["streams"][0]["group"];
        assert_eq!((&group["lag"], &group["pending"]), (&0.into(), &0.into()));
        assert_eq!(group["last_delivered"], format!("{0}-{0}", u64::MAX));
    }
}
