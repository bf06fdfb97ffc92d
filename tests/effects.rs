//! What a handler emits and wants to take effect leaves with the acknowledgement of its event, once, or not at all.

pub mod cluster;
mod wire;

use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use streamhand::{CommitError, Committed, Context, Effect, Envelope, Event, Registry};

use crate::support::jobs::{self, Action, Job};
use crate::support::{Entry, Server, Setup, dead, entries, eventually, settled};

const PATIENCE: Duration = Duration::from_secs(30);
const DEAD: &str = "{jobs}:workers:dead";

/// What the handlers here emit.
#[derive(Serialize, Deserialize)]
struct Done {
    id: String,
}

impl Event for Done {
    const TYPE: &'static str = "test.done";
}

async fn publish(redis: &mut MultiplexedConnection, ids: &[&str]) {
    let jobs: Vec<Job> = ids
        .iter()
        .map(|id| Job::new(*id, Action::Succeed))
        .collect();
    jobs::publish(redis, "jobs", &jobs).await;
}

fn field(entry: &Entry, name: &str) -> String {
    let value = entry.fields.iter().find(|(n, _)| n == name);
    value.map_or(String::new(), |(_, value)| {
        String::from_utf8_lossy(value).into_owned()
    })
}

/// Counts its job, and says so.
async fn count(job: Job, ctx: Context) -> Result<(), streamhand::Failure> {
    ctx.effect(Effect::hincr_by("counted", &job.id, 1));
    ctx.emit("done", Done { id: job.id });
    Ok(())
}

/// Why the one dead letter was buried.
async fn buried_for(redis: &mut MultiplexedConnection) -> (String, String) {
    eventually(PATIENCE, "a dead letter", async || dead(redis).await == 1).await;
    let letter = &entries(redis, DEAD).await[0];
    (field(letter, "dead.reason"), field(letter, "dead.error"))
}

/// Waits until the server has refused something for want of memory.
pub async fn refused_for_memory(redis: &mut MultiplexedConnection) {
    eventually(PATIENCE, "a refusal", async || {
        let mut info = redis::cmd("INFO");
        let stats: String = info.arg("errorstats").query_async(redis).await.unwrap();
        stats.contains("errorstat_OOM")
    })
    .await;
}

on_both_servers! {
    async fn emitted_events_and_effects_leave_with_the_acknowledgement(server: Server) {
        let mut redis = server.connect().await;
        let worker = Setup::new(&server).start_with(Registry::new().on(count));
        let fields = ["type", Job::TYPE, "id", "e-1", "subject", "s-1", "data", r#"{"id":"one","action":"succeed"}"#];
        let _: String = redis::cmd("XADD").arg("jobs").arg("*").arg(&fields).query_async(&mut redis).await.unwrap();
        publish(&mut redis, &["two"]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let counted: Vec<(String, u64)> = redis.hgetall("counted").await.unwrap();
        assert_eq!(counted, [("one".to_owned(), 1), ("two".to_owned(), 1)]);
        let done = entries(&mut redis, "done").await;
        assert_eq!(done.len(), 2);
        let named = |name: &str| field(&done[0], name);
        assert_eq!((named("source"), named("subject"), named("causationid")), ("workers".into(), "s-1".into(), "e-1".into()));
        let event = Envelope::decode(done[0].clone().into()).map_err(|(_, error)| error).unwrap();
        assert_eq!(event.decode_data::<Done>().unwrap().id, "one");
        assert_eq!(worker.stop().await.settled, 2);
        // What it noted of its commits went with it.
        let noted: u64 = redis.hlen("{jobs}:workers:commits").await.unwrap();
        assert_eq!(noted, 0);
    }

    async fn nothing_leaves_of_a_handler_that_fails_and_all_of_it_when_it_succeeds(server: Server) {
        let mut redis = server.connect().await;
        let registry = Registry::new().on(async |job: Job, ctx: Context| {
            count(job, ctx.clone()).await?;
            if ctx.attempt() < 3 { Err("not yet".into()) } else { Ok(()) }
        });
        let worker = Setup::new(&server).start_with(registry);
        publish(&mut redis, &["one"]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(redis.hget::<_, _, u64>("counted", "one").await.unwrap(), 1);
        assert_eq!(entries(&mut redis, "done").await.len(), 1);
        let left: usize = redis::cmd("EXISTS").arg("{jobs}:workers:failures").arg("{jobs}:workers:retry")
            .query_async(&mut redis).await.unwrap();
        assert_eq!(left, 0, "its record goes with it");
        worker.stop().await;
    }

    async fn a_guard_that_refuses_when_the_handler_has_returned_is_a_failure_that_says_why(server: Server) {
        let mut redis = server.connect().await;
        let _: () = redis.set("stock", 5).await.unwrap();
        let registry = Registry::new().on(async |job: Job, ctx: Context| {
            ctx.emit("done", Done { id: job.id });
            ctx.effect(Effect::set("before", "x"));
            ctx.effect(Effect::incr_by("stock", -3).at_least(0));
            ctx.effect(Effect::incr_by("stock", -3).at_least(0));
            Ok(())
        });
        let worker = Setup::new(&server).retry("max_attempts = 2").start_with(registry);
        publish(&mut redis, &["one"]).await;
        // The second guard sees what the first effect will have done.
        let (reason, error) = buried_for(&mut redis).await;
        assert_eq!(reason, "failed");
        assert_eq!(error, "refused by a guard: INCRBY stock -3, at least 0; there was \"2\"");
        assert_eq!(redis.get::<_, u64>("stock").await.unwrap(), 5);
        assert!(!redis.exists::<_, bool>(&["before", "done"]).await.unwrap());
        assert_eq!(field(&entries(&mut redis, DEAD).await[0], "dead.attempts"), "2");
        worker.stop().await;
    }

    async fn a_handler_that_commits_by_itself_decides_anew_where_a_guard_refused(server: Server) {
        let mut redis = server.connect().await;
        let _: () = redis.set("stock", 1).await.unwrap();
        let registry = Registry::new().on(async |job: Job, ctx: Context| {
            ctx.effect(Effect::incr_by("stock", -1).at_least(0));
            ctx.effect(Effect::hset("decided", &job.id, "taken"));
            match ctx.commit().await? {
                // Acknowledged: what it answers no longer matters.
                Committed::Settled => return Err("too late".into()),
                Committed::Refused(refusal) => assert_eq!(refusal.number(), Some(0)),
            }
            ctx.effect(Effect::hset("decided", &job.id, "refused"));
            Ok(())
        });
        let worker = Setup::new(&server).worker("concurrency = 1").start_with(registry);
        publish(&mut redis, &["one", "two"]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let mut decided: Vec<String> = redis.hvals("decided").await.unwrap();
        decided.sort();
        assert_eq!(decided, ["refused", "taken"]);
        assert_eq!(redis.get::<_, i64>("stock").await.unwrap(), 0);
        assert_eq!(dead(&mut redis).await, 0);
        let summary = worker.stop().await;
        assert_eq!((summary.settled, summary.unsettled), (2, 0));
    }

    async fn a_key_of_the_wrong_type_leaves_everything_as_it_was(server: Server) {
        for (key, effect) in [
            ("hash", Effect::incr_by("hash", 1)),
            ("string", Effect::hset("string", "f", "v")),
            ("string", Effect::incr_by("string", 1)),
            ("string", Effect::sadd("string", "m")),
            ("huge", Effect::incr_by("huge", 1)),
        ] {
            let mut redis = server.connect().await;
            let _: () = redis.flushall().await.unwrap();
            let _: () = redis.hset("hash", "f", "v").await.unwrap();
            let _: () = redis.mset(&[("string", "no number"), ("huge", "9007199254740991")]).await.unwrap();
            let before: Vec<u8> = redis::cmd("DUMP").arg(key).query_async(&mut redis).await.unwrap();
            let of_it = effect.clone();
            let registry = Registry::new().on(move |job: Job, ctx: Context| {
                let effect = of_it.clone();
                async move {
                    ctx.emit("done", Done { id: job.id });
                    ctx.effect(Effect::set("before", "x"));
                    ctx.effect(effect);
                    match ctx.commit().await {
                        Err(CommitError::Invalid(why)) => Err(why.into()),
                        other => panic!("{other:?}"),
                    }
                }
            });
            let worker = Setup::new(&server).retry("max_attempts = 1").start_with(registry);
            publish(&mut redis, &["one"]).await;
            let (_, error) = buried_for(&mut redis).await;
            assert!(error.contains(key), "{effect}: {error}");
            let after: Vec<u8> = redis::cmd("DUMP").arg(key).query_async(&mut redis).await.unwrap();
            assert!(before == after, "{effect} has changed {key}");
            assert!(!redis.exists::<_, bool>("before").await.unwrap(), "{effect}");
            assert_eq!(entries(&mut redis, "done").await.len(), 0, "{effect}");
            worker.stop().await;
        }
    }

    async fn a_stream_that_is_none_or_a_name_that_can_t_be_one_fails_the_handler(server: Server) {
        let mut redis = server.connect().await;
        let _: () = redis.set("taken", "x").await.unwrap();
        let registry = Registry::new().on(async |job: Job, ctx: Context| {
            ctx.effect(Effect::set("before", "x"));
            ctx.emit(if job.id == "one" { "taken" } else { "no{name" }, Done { id: job.id });
            Ok(())
        });
        let worker = Setup::new(&server).retry("max_attempts = 1").start_with(registry);
        publish(&mut redis, &["one"]).await;
        let (reason, error) = buried_for(&mut redis).await;
        assert_eq!((&reason[..], &error[..]), ("failed", "emitting to taken: the key holds a string"));
        let _: () = redis.del(DEAD).await.unwrap();
        publish(&mut redis, &["two"]).await;
        let (reason, error) = buried_for(&mut redis).await;
        assert!(reason == "permanent" && error.contains("no{name"), "{reason}: {error}");
        assert!(!redis.exists::<_, bool>("before").await.unwrap());
        worker.stop().await;
    }

    /// Each kind of effect, and each kind of guard, as the command itself would have it.
    async fn effects_are_what_their_commands_are_and_guards_see_what_is_there(server: Server) {
        let mut redis = server.connect().await;
        let mut setup = redis::pipe();
        setup.set("s", "old").set("gone", "x").hset("h", "a", 1).hset("h", "b", 2).zadd("z", "m", 1).sadd("t", "m");
        let _: () = setup.query_async(&mut redis).await.unwrap();
        let registry = Registry::new().on(async |job: Job, ctx: Context| {
            if job.id != "good" {
                let refused = match &job.id[..] {
                    "set" => Effect::set("s", "x").if_equals("old"),
                    "absent" => Effect::set("s", "x").if_absent(),
                    "del" => Effect::del("gone").if_exists(),
                    "hset" => Effect::hset("h", "a", "x").if_absent(),
                    "hdel" => Effect::hdel("h", "b").if_exists(),
                    "hincr" => Effect::hincr_by("h", "new", 1).if_exists(),
                    "most" => Effect::hincr_by("h", "a", 9).at_most(10),
                    "zadd" => Effect::zadd("z", 3.0, "m").if_exists(),
                    "sadd" => Effect::sadd("t", "n").if_absent(),
                    other => panic!("{other}"),
                };
                ctx.effect(Effect::set("never", "x"));
                ctx.effect(refused.clone());
                return match ctx.commit().await? {
                    Committed::Refused(refusal) if *refusal.effect() == refused => Ok(()),
                    other => panic!("{refused}: {other:?}"),
                };
            }
            ctx.effect(Effect::set("s", "new").if_equals("old"));
            ctx.effect(Effect::set("s", "newer").if_equals("new"));
            ctx.effect(Effect::del("gone").if_equals("x"));
            ctx.effect(Effect::set("made", "1").if_absent());
            ctx.effect(Effect::incr_by("made", 4).if_exists().at_least(5).at_most(5));
            ctx.effect(Effect::hset("h", "c", "3").if_absent());
            ctx.effect(Effect::hincr_by("h", "a", 1).if_equals("1"));
            ctx.effect(Effect::hdel("h", "b").if_equals("2"));
            ctx.effect(Effect::hset("h", "b", "again").if_absent());
            ctx.effect(Effect::hdel("h", "b"));
            ctx.effect(Effect::zrem("z", "m").if_exists());
            ctx.effect(Effect::zadd("z", 2.5, "n").if_absent());
            ctx.effect(Effect::sadd("t", "n").if_absent());
            ctx.effect(Effect::srem("t", "m").if_exists());
            ctx.effect(Effect::del("t2"));
            ctx.effect(Effect::hset("t2", "f", "v").if_absent());
            Ok(())
        });
        let worker = Setup::new(&server).retry("max_attempts = 1").start_with(registry);
        publish(&mut redis, &["good"]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let refused = ["set", "absent", "del", "hset", "hdel", "hincr", "most", "zadd", "sadd"];
        publish(&mut redis, &refused).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(dead(&mut redis).await, 0, "{:?}", entries(&mut redis, DEAD).await);
        let strings: Vec<Option<String>> = redis.mget(&["s", "gone", "made", "never"]).await.unwrap();
        assert_eq!(strings, [Some("newer".to_owned()), None, Some("5".to_owned()), None]);
        let hash: Vec<(String, String)> = redis.hgetall("h").await.unwrap();
        assert_eq!(hash, [("a", "2"), ("c", "3")].map(|(a, b)| (a.to_owned(), b.to_owned())));
        let scored: Vec<(String, f64)> = redis.zrange_withscores("z", 0, -1).await.unwrap();
        assert_eq!(scored, [("n".to_owned(), 2.5)]);
        assert_eq!(redis.smembers::<_, Vec<String>>("t").await.unwrap(), ["n"]);
        worker.stop().await;
    }

    /// It waits with its worker, and leaves when there is memory again.
    async fn a_server_without_memory_has_nothing_of_it_and_then_everything(server: Server) {
        let mut redis = server.connect().await;
        let _: () = redis.hset("hash", "f", "v").await.unwrap();
        let registry = Registry::new().on(async |job: Job, ctx: Context| {
            // The first write alone frees memory, and is never refused.
            ctx.effect(if job.id == "frees" { Effect::hdel("hash", "f") } else { Effect::hset("hash", "g", "w") });
            count(job, ctx.clone()).await
        });
        let worker = Setup::new(&server).start_with(registry);
        publish(&mut redis, &["first"]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        // Short of memory as soon as it has started: entries still come, for they are there already.
        let mut full = redis::pipe();
        full.atomic();
        for id in ["frees", "takes"] {
            let data = serde_json::to_string(&Job::new(id, Action::Succeed)).unwrap();
            full.cmd("XADD").arg("jobs").arg("*").arg(&["type", Job::TYPE, "data", &data]).ignore();
        }
        full.cmd("CONFIG").arg("SET").arg("maxmemory").arg("1").ignore();
        let _: () = full.query_async(&mut redis).await.unwrap();
        refused_for_memory(&mut redis).await;
        let counted: Vec<String> = redis.hkeys("counted").await.unwrap();
        assert!(counted == ["first"], "{counted:?}");
        assert!(redis.hexists::<_, _, bool>("hash", "f").await.unwrap());
        let _: () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("0").query_async(&mut redis).await.unwrap();
        settled(&mut redis, "jobs", PATIENCE).await;
        let counted: Vec<(String, u64)> = redis.hgetall("counted").await.unwrap();
        assert!(counted.len() == 3 && counted.iter().all(|(_, times)| *times == 1), "{counted:?}");
        assert_eq!(entries(&mut redis, "done").await.len(), 3);
        assert_eq!(dead(&mut redis).await, 0);
        worker.stop().await;
    }
}
