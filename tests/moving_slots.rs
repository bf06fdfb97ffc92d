//! Scripts in a slot that moves key by key: each does all of it or nothing, and the same step again succeeds at the slot's
//! new place.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, Value};
use streamhand::{Context, Effect, Registry};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::support::cluster::{Cluster, slot};
use crate::support::jobs::{self, Action, Job};
use crate::support::{Cli, Kind, Server, Setup, dead, eventually, publisher, scripts, settled};

const PATIENCE: Duration = Duration::from_secs(30);

/// A call of a script as it was sent.
#[derive(Clone, Debug)]
struct Call {
    hash: String,
    keys: Vec<Vec<u8>>,
    args: Vec<Vec<u8>>,
}

impl Call {
    /// The call in a request, if it is one that may write.
    fn of(words: &[Vec<u8>]) -> Option<Call> {
        if !words.first()?.eq_ignore_ascii_case(b"EVALSHA") {
            return None;
        }
        let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
        let count: usize = text(words.get(2)?).parse().ok()?;
        Some(Call {
            hash: text(&words[1]),
            keys: words[3..3 + count].to_vec(),
            args: words[3 + count..].to_vec(),
        })
    }

    fn command(&self) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.hash).arg(self.keys.len());
        command.arg(&self.keys).arg(&self.args);
        command
    }

    async fn at(&self, redis: &mut MultiplexedConnection) -> RedisResult<Value> {
        self.command().query_async(redis).await
    }

    /// The same by one who was sent there while the slot moves.
    async fn asking_at(&self, redis: &mut MultiplexedConnection) -> RedisResult<Value> {
        let mut pipe = redis::pipe();
        pipe.cmd("ASKING").ignore();
        pipe.add_command(self.command());
        let (answer,): (Value,) = pipe.query_async(redis).await?;
        Ok(answer)
    }
}

/// The first call of each script that a worker and the program's commands make of one stream, by the scripts' names.
async fn calls(server: &Server) -> BTreeMap<String, Call> {
    let mut redis = server.connect().await;
    let mut monitor = TcpStream::connect(("127.0.0.1", server.port()))
        .await
        .unwrap();
    monitor.write_all(b"MONITOR\r\n").await.unwrap();
    let seen = tokio::spawn(async move {
        let (mut lines, mut seen) = (BufReader::new(monitor).lines(), Vec::new());
        while let Ok(Some(line)) = lines.next_line().await {
            let words = words(&line);
            let is_end = words.len() == 2 && words[1] == b"the end";
            seen.extend(Call::of(&words));
            if is_end {
                break;
            }
        }
        seen
    });

    let registry = Registry::new().on(async |job: Job, ctx: Context| {
        if job.id == "commits" {
            ctx.effect(Effect::hincr_by("{jobs}:counted", &job.id, 1));
        }
        jobs::handle(job, ctx).await
    });
    let setup = Setup::new(server).handler("deduplicate = \"1h\"");
    let worker = setup.start_with(registry);
    let mut all = vec![
        Job::new("commits", Action::Succeed),
        Job::new("retried", Action::Fail(1)),
        Job::new("later", Action::Later(1)),
    ];
    all.extend((0..6).map(|n| Job::new(format!("dies-{n}"), Action::FailForGood)));
    let publisher = publisher(&server.url());
    for job in &all {
        publisher.publish("jobs", job).await.unwrap();
    }
    let job = Job::new("once", Action::Succeed);
    let window = Duration::from_secs(60);
    publisher
        .publish_once("jobs", "once", &job, window)
        .await
        .unwrap();
    let soon = Duration::from_millis(50);
    publisher.publish_after("jobs", &job, soon).await.unwrap();
    let never = publisher
        .publish_after("jobs", &job, Duration::from_secs(3_600))
        .await
        .unwrap();
    publisher.cancel_scheduled("jobs", &never.id).await.unwrap();
    eventually(PATIENCE, "six dead letters", async || {
        dead(&mut redis).await == 6
    })
    .await;
    settled(&mut redis, "jobs", PATIENCE).await;
    let cli = Cli::new(
        server,
        "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n",
    );
    for args in [
        &["pause", "jobs"][..],
        &["resume", "jobs"],
        &["dlq", "groups"],
        &["dlq", "replay", "--all", "--yes"],
        &["dlq", "purge", "--all", "--yes"],
    ] {
        cli.run(args).await.ok();
        if args.contains(&"replay") {
            eventually(PATIENCE, "all to be dead again", async || {
                dead(&mut redis).await == 6
            })
            .await;
        }
    }
    worker.stop().await;
    let _: Value = redis::cmd("ECHO")
        .arg("the end")
        .query_async(&mut redis)
        .await
        .unwrap();

    let mut names = BTreeMap::new();
    for name in scripts::names() {
        names.insert(scripts::hash(&name), name);
    }
    let mut first = BTreeMap::new();
    let of_the_slot = |call: &Call| {
        let key = call
            .keys
            .first()
            .map(|key| String::from_utf8_lossy(key).into_owned());
        key.is_some_and(|key| slot(&key) == slot("jobs"))
    };
    for call in seen.await.unwrap().into_iter().filter(of_the_slot) {
        first.entry(names[&call.hash].clone()).or_insert(call);
    }
    first
}

/// What a line of MONITOR shows, word by word.
fn words(line: &str) -> Vec<Vec<u8>> {
    let (mut words, mut bytes) = (Vec::new(), line.bytes());
    while bytes.by_ref().any(|byte| byte == b'"') {
        let mut word = Vec::new();
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' => break,
                b'\\' => match bytes.next() {
                    Some(b'x') => {
                        let digits =
                            [bytes.next(), bytes.next()].map(|digit| digit.unwrap_or(b'0'));
                        let digits = std::str::from_utf8(&digits).unwrap();
                        word.push(u8::from_str_radix(digits, 16).unwrap());
                    }
                    Some(b'n') => word.push(b'\n'),
                    Some(b'r') => word.push(b'\r'),
                    Some(b't') => word.push(b'\t'),
                    Some(b'a') => word.push(7),
                    Some(b'b') => word.push(8),
                    Some(other) => word.push(other),
                    None => break,
                },
                other => word.push(other),
            }
        }
        words.push(word);
    }
    words
}

/// All that one node has, as it would be moved.
async fn contents(redis: &mut MultiplexedConnection) -> BTreeMap<String, Vec<u8>> {
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query_async(redis)
        .await
        .unwrap();
    let mut all = BTreeMap::new();
    for key in keys {
        // What has come to a slot that still moves is told to those alone who say that they know; one server knows no such word.
        let _: RedisResult<Value> = redis::cmd("ASKING").query_async(redis).await;
        let dump: RedisResult<Vec<u8>> = redis::cmd("DUMP").arg(&key).query_async(redis).await;
        let dump = dump.expect("what the key holds");
        all.insert(key, dump);
    }
    all
}

/// It was refused, and for no other reason than that the slot moves.
fn refused(name: &str, answer: RedisResult<Value>, by: &[&str]) {
    let error = answer.expect_err(name);
    assert!(
        by.contains(&error.code().unwrap_or_default()),
        "{name}: {error}"
    );
}

on_both_servers! {
    async fn every_step_is_done_whole_or_not_at_all_and_again_at_the_new_place(kind: Kind) {
        let server = Server::start(kind).await;
        let calls = calls(&server).await;
        let names: Vec<&str> = calls.keys().map(String::as_str).collect();
        println!("{} scripts: {names:?}", names.len());
        for name in [
            "join", "renew", "wake", "park", "bury", "commit", "claim", "publish_once", "schedule", "add_due", "cancel",
            "pause", "resume", "forget", "replay", "purge",
        ] {
            assert!(calls.contains_key(name), "{name} was not called: {names:?}");
        }
        assert!(names.len() > 18, "{names:?}");

        let cluster = Cluster::start(kind, 2, false).await;
        let from = cluster.master_of("jobs").await;
        let to = 1 - from;
        let (mut old, mut new) = (cluster.node(from).connect().await, cluster.node(to).connect().await);
        scripts::load(&mut old).await;
        scripts::load(&mut new).await;
        for (key, dump) in contents(&mut server.connect().await).await {
            if slot(&key) == slot("jobs") {
                let mut restore = redis::cmd("RESTORE");
                restore.arg(&key).arg(0).arg(dump);
                let _: Value = restore.query_async(&mut old).await.unwrap();
            }
        }
        let migration = cluster.begin_migration(slot("jobs"), to).await;
        // The keys leave one after the other.
        let keys: Vec<String> = contents(&mut old).await.into_keys().collect();
        assert!(keys.len() > 4, "{keys:?}");
        for gone in 0..=keys.len() {
            if gone > 0 {
                let moved = cluster.migrate_keys(&migration, |key| key == keys[gone - 1]).await;
                assert_eq!(moved.len(), 1);
            }
            let before = (contents(&mut old).await, contents(&mut new).await);
            for (name, call) in &calls {
                refused(name, call.at(&mut old).await, &["TRYAGAIN", "ASK"]);
                refused(name, call.asking_at(&mut new).await, &["TRYAGAIN"]);
            }
            let after = (contents(&mut old).await, contents(&mut new).await);
            assert!(before == after, "something was done with {gone} of {} keys gone", keys.len());
        }
        cluster.finish_migration(migration).await;
        for (name, call) in &calls {
            refused(name, call.at(&mut old).await, &["MOVED"]);
            if let Err(error) = call.at(&mut new).await {
                panic!("{name}: {error}");
            }
        }
        for call in calls.values() {
            let never = call.keys.last().unwrap();
            let exists: bool = redis::cmd("EXISTS").arg(never).query_async(&mut new).await.unwrap();
            assert!(!exists, "{}", String::from_utf8_lossy(never));
        }
    }

    /// What the key is good for: without it, a script is done half if a key leaves while it runs.
    async fn without_a_key_that_never_exists_a_step_can_be_half_done(kind: Kind) {
        let cluster = Cluster::start(kind, 2, false).await;
        let from = cluster.master_of("jobs").await;
        let mut redis = cluster.node(from).connect().await;
        scripts::load(&mut redis).await;
        let keys = ["jobs", "{jobs}:scheduled", "{jobs}:scheduled:events"].map(|key| key.as_bytes().to_vec());
        let call = |name: &str, more: &[&str], args: &[&str]| Call {
            hash: scripts::hash(name),
            keys: keys.iter().cloned().chain(more.iter().map(|key| key.as_bytes().to_vec())).collect(),
            args: args.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
        };
        for id in ["e-1", "e-2"] {
            let schedule = call("schedule", &[], &[id, "", "1", "0", "0", "type", "t", "id", id]);
            schedule.at(&mut redis).await.unwrap();
        }
        let _: Value = redis::cmd("XADD").arg(&["jobs", "*", "type", "t"]).query_async(&mut redis).await.unwrap();
        let _: Value = redis::cmd("HSET").arg(&["{jobs}:cron", "of", "no cron"]).query_async(&mut redis).await.unwrap();
        let migration = cluster.begin_migration(slot("jobs"), 1 - from).await;
        let add = ["100", "100000", "60000", "600000"];
        let error = call("add_due", &["{jobs}:cron", "{jobs}:never"], &add).at(&mut redis).await.unwrap_err();
        assert_eq!(error.code(), Some("TRYAGAIN"), "{error}");
        let length = async |redis: &mut MultiplexedConnection| -> usize {
            redis::cmd("XLEN").arg("jobs").query_async(redis).await.unwrap()
        };
        assert_eq!(length(&mut redis).await, 1);
        let answer = call("add_due", &["{jobs}:cron"], &add).at(&mut redis).await;
        println!("without it: {answer:?}, {} entries", length(&mut redis).await);
        assert!(answer.unwrap_err().to_string().contains("non local key"));
        assert!(length(&mut redis).await > 1, "what was written before stayed");
        cluster.finish_migration(migration).await;
    }
}
