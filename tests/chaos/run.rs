//! One run: a server, workers and publishers, everything that is planned for them, and what is known when it is over.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep, sleep_until};

use super::fleet::{self, Base, Slot};
use super::history::{History, Life, Stored, Troubles};
use super::plan::{Plan, Planned, ServerFault, WORKERS};
use super::publishing;
use super::records;
use super::rules::{COUNTED, DONE, GROUP, STREAMS};
use crate::keys;
use crate::support::{Kind, Proxy, Server, entries, monotonic};

/// How long it may take until all is settled, once nothing goes wrong any more.
const REST: Duration = Duration::from_secs(90);
/// How long workers may take to be themselves again after the server was away.
const AFTER: Duration = Duration::from_secs(4);

/// Does all that is planned, in this folder, and tells what came of it.
pub async fn play(kind: Kind, plan: &Plan, dir: &Path) -> History {
    let server = Server::builder(kind).persistent(true).start().await;
    let base = Base {
        server_port: server.port(),
        dir: dir.to_owned(),
    };
    std::fs::write(base.records(), "").expect("a file for the records");
    let url = server.url();
    let begin = Instant::now();
    let troubles = Troubles::default();
    let serving = serve(server, begin, &plan.server, troubles.clone());
    let rest = AtomicBool::new(false);
    let slots = (0..WORKERS).map(async |number| {
        let mut slot = Slot::start(base.clone(), number).await;
        slot.play(begin, &plan.workers[number]).await;
        slot.live_until(begin + plan.length).await;
        slot.heal().await;
        while !rest.load(Ordering::SeqCst) {
            slot.live_until(Instant::now() + Duration::from_millis(20))
                .await;
        }
        slot.finish().await
    });
    let publishers = plan.events.iter().zip(&plan.publishers);
    let publishers = publishers.map(async |(events, faults)| {
        let mut proxy = Proxy::start(base.server_port).await;
        let url = proxy.url();
        let faults = fleet::play_to(&mut proxy, begin, faults);
        tokio::join!(publishing::publish(&url, begin, events), faults).0
    });
    let mut history = History::default();
    let coming_to_rest = async {
        let (server, published) = tokio::join!(serving, join_all(publishers));
        sleep_until(begin + plan.length).await;
        let left = rests(&mut server.connect().await).await;
        rest.store(true, Ordering::SeqCst);
        (server, published, left)
    };
    let ((server, published, left), lives) = tokio::join!(coming_to_rest, join_all(slots));
    history.published = published.into_iter().flatten().collect();
    history.left.extend(left);
    let named = |life: Life| (life.name.clone(), life);
    history.lives = lives.into_iter().flatten().map(named).collect();
    let mut redis = server.connect().await;
    history.lines = records::read(&base.records());
    history.server_troubles = troubles;
    look(&mut redis, &url, &mut history).await;
    history
}

/// The server, and what happens to it.
async fn serve(
    mut server: Server,
    begin: Instant,
    faults: &[Planned<ServerFault>],
    troubles: Troubles,
) -> Server {
    for planned in faults {
        sleep_until(begin + planned.at).await;
        let from = monotonic();
        match planned.what {
            ServerFault::Kill(pause) => {
                server.stop();
                sleep(pause).await;
                server.start_again().await;
            }
            ServerFault::Freeze(time) => {
                server.freeze();
                sleep(time).await;
                server.thaw();
            }
            ServerFault::ForgetScripts => {
                let mut redis = server.connect().await;
                let flushed: Result<(), _> = redis::cmd("SCRIPT")
                    .arg("FLUSH")
                    .query_async(&mut redis)
                    .await;
                flushed.expect("scripts to be forgotten");
            }
        }
        troubles.add(from, monotonic() + AFTER.as_nanos() as u64);
    }
    server
}

/// Waits until nothing is left to be done; what is, after a long time.
async fn rests(redis: &mut MultiplexedConnection) -> Option<String> {
    let end = Instant::now() + REST;
    loop {
        let left = all_unsettled(redis).await;
        if left.is_none() || Instant::now() > end {
            return left.map(|left| format!("after {REST:?} without trouble {left}"));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// What is not settled yet, or still to come, in words.
async fn all_unsettled(redis: &mut MultiplexedConnection) -> Option<String> {
    for stream in STREAMS {
        let scheduled: u64 = redis
            .zcard(format!("{{{stream}}}:scheduled"))
            .await
            .expect("a number");
        if scheduled > 0 {
            return Some(format!("{scheduled} are scheduled for {stream}"));
        }
        let left = unsettled(redis, stream).await;
        if let Some(left) = left {
            return Some(format!("in {stream} {left}"));
        }
    }
    None
}

async fn unsettled(redis: &mut MultiplexedConnection, stream: &str) -> Option<String> {
    let groups: redis::streams::StreamInfoGroupsReply = redis::cmd("XINFO")
        .arg(&["GROUPS", stream])
        .query_async(redis)
        .await
        .expect("the groups");
    let info: redis::streams::StreamInfoStreamReply = redis::cmd("XINFO")
        .arg(&["STREAM", stream])
        .query_async(redis)
        .await
        .expect("the stream");
    let Some(group) = groups.groups.iter().find(|group| group.name == GROUP) else {
        return Some("there is no group".to_owned());
    };
    if group.last_delivered_id != info.last_generated_id {
        let (read, last) = (&group.last_delivered_id, &info.last_generated_id);
        return Some(format!("the group has read up to {read} of {last}"));
    }
    if group.pending == 0 {
        return None;
    }
    let pending: Vec<(String, String, u64, u64)> = redis::cmd("XPENDING")
        .arg(&[stream, GROUP, "-", "+", "20"])
        .query_async(redis)
        .await
        .expect("what is pending");
    let words = |(id, consumer, idle, times): (String, String, u64, u64)| {
        format!("{id} with {consumer} for {idle} ms, delivered {times} times")
    };
    let some: Vec<String> = pending.into_iter().map(words).collect();
    Some(format!(
        "{} are pending: {}",
        group.pending,
        some.join("; ")
    ))
}

/// Looks at what the server has in the end.
async fn look(redis: &mut MultiplexedConnection, url: &str, history: &mut History) {
    for stream in STREAMS {
        let all = entries(redis, stream).await.into_iter();
        history
            .entries
            .extend(all.map(|entry| Stored { stream, entry }));
        history
            .letters
            .extend(entries(redis, &own(stream, "dead")).await);
        gone(redis, stream, &mut history.left).await;
    }
    history.emitted = entries(redis, DONE).await;
    let counted: BTreeMap<String, i64> = redis.hgetall(COUNTED).await.expect("what was counted");
    history.counted = counted;
    let left = &mut history.left;

    let listed = keys::listed();
    let all: Vec<String> = redis.keys("*").await.expect("the keys");
    for key in all {
        let kind: String = redis::cmd("TYPE")
            .arg(&key)
            .query_async(redis)
            .await
            .expect("a type");
        let is_ours = [DONE, COUNTED].contains(&&key[..]);
        let as_jobs = key.replace(STREAMS[1], STREAMS[0]);
        let is_listed = |(pattern, of): &(regex::Regex, String)| {
            pattern.is_match(&as_jobs) && (*of == kind || of == "any" || kind == "none")
        };
        if !is_ours && !listed.iter().any(is_listed) {
            left.push(format!("{key}, a {kind}, which is not in docs/keys.md"));
        }
        if key.contains(":seen:") {
            let state: Option<String> = redis.get(&key).await.expect("a mark");
            if state
                .as_ref()
                .is_some_and(|state| !state.starts_with("done "))
            {
                left.push(format!("{key}: {state:?}, where nothing is pending"));
            }
        }
    }
    if left.iter().any(|left| left.contains("pending")) {
        left.push(format!("the server was at {url}"));
    }
}

/// What says of an entry that it is not settled is gone with the last.
async fn gone(redis: &mut MultiplexedConnection, stream: &str, left: &mut Vec<String>) {
    for key in ["retry", "waiting", "failures", "again", "paused"] {
        let key = own(stream, key);
        let kind: String = redis::cmd("TYPE")
            .arg(&key)
            .query_async(redis)
            .await
            .expect("a type");
        if kind != "none" {
            let what = contents(redis, &key, &kind).await;
            left.push(format!("{key}, a {kind}: {what}"));
        }
    }
}

async fn contents(redis: &mut MultiplexedConnection, key: &str, kind: &str) -> String {
    let mut command = match kind {
        "zset" => redis::cmd("ZRANGE"),
        "hash" => redis::cmd("HGETALL"),
        _ => return String::new(),
    };
    command.arg(key);
    if kind == "zset" {
        command.arg(&["0", "9", "WITHSCORES"]);
    }
    let what: redis::RedisResult<Vec<String>> = command.query_async(redis).await;
    format!("{:.500}", what.unwrap_or_default().join(" "))
}

/// A key of the group.
fn own(stream: &str, what: &str) -> String {
    format!("{{{stream}}}:{GROUP}:{what}")
}
