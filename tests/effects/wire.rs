//! What gets lost on the way of a commit, or comes late, and whose the entry is by then.

use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use streamhand::{Committed, Context, Effect, Registry};

use super::{PATIENCE, count, entries, publish};
use crate::support::jobs::Job;
use crate::support::{
    Proxy, Server, Setup, WorkerProcess, dead, eventually, run_worker, scripts, settled,
};

async fn counted(redis: &mut MultiplexedConnection) -> Vec<(String, u64)> {
    redis.hgetall("counted").await.unwrap()
}

async fn assert_once(redis: &mut MultiplexedConnection, ids: &[&str]) {
    let mut counted = counted(redis).await;
    counted.sort();
    let expected: Vec<(String, u64)> = ids.iter().map(|id| ((*id).to_owned(), 1)).collect();
    assert_eq!(counted, expected);
    assert_eq!(entries(redis, "done").await.len(), ids.len());
    assert_eq!(dead(redis).await, 0);
}

/// Counts after so many milliseconds.
fn counting_after(ms: u64) -> Registry {
    Registry::new().on(move |job: Job, ctx: Context| async move {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        count(job, ctx).await
    })
}

/// A worker in a process of its own that counts, commits, tells what it heard, and fails.
#[test]
#[ignore = "run by other tests"]
fn committing_worker_process() {
    let registry = Registry::new().on(async |job: Job, ctx: Context| {
        let mut own = ctx.redis().await?;
        count(job, ctx.clone()).await?;
        let heard = format!("{:?}", ctx.commit().await);
        let _: () = own.rpush("heard", heard).await?;
        Err("it is another's".into())
    });
    run_worker(registry);
}

on_both_servers! {
    async fn a_commit_whose_answer_is_lost_is_repeated_and_done_once(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = Proxy::start(server.port()).await;
        let worker = Setup::at(proxy.url()).start_with(Registry::new().on(count));
        publish(&mut redis, &["a"]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let caught = proxy.cut_after(scripts::call("commit"));
        publish(&mut redis, &["b", "c"]).await;
        caught.within(PATIENCE).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        publish(&mut redis, &["d"]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(worker.stop().await.unsettled, 0);
        assert_once(&mut redis, &["a", "b", "c", "d"]).await;
    }

    async fn a_commit_whose_request_is_lost_is_repeated(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = Proxy::start(server.port()).await;
        let worker = Setup::at(proxy.url()).start_with(Registry::new().on(count));
        let caught = proxy.cut_before(scripts::call("commit"));
        publish(&mut redis, &["a", "b"]).await;
        caught.within(PATIENCE).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(worker.stop().await.unsettled, 0);
        assert_once(&mut redis, &["a", "b"]).await;
    }

    /// The handler that asked for it hears that it was done, and not that it was lost.
    async fn a_handler_that_waits_for_its_commit_hears_what_became_of_it(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = Proxy::start(server.port()).await;
        let registry = Registry::new().on(async |job: Job, ctx: Context| {
            let mut own = ctx.redis().await?;
            count(job, ctx.clone()).await?;
            let heard = match ctx.commit().await {
                Ok(Committed::Settled) => "settled",
                _ => "something else",
            };
            let _: () = own.rpush("heard", heard).await?;
            Ok(())
        });
        let worker = Setup::at(proxy.url()).start_with(registry);
        let caught = proxy.cut_after(scripts::call("commit"));
        publish(&mut redis, &["a"]).await;
        caught.within(PATIENCE).await;
        eventually(PATIENCE, "the answer", async || redis.exists::<_, bool>("heard").await.unwrap()).await;
        assert_eq!(redis.lrange::<_, Vec<String>>("heard", 0, -1).await.unwrap(), ["settled"]);
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(worker.stop().await.unsettled, 0);
        assert_once(&mut redis, &["a"]).await;
    }

    /// Its worker is frozen: another takes the entry over, and commits it before the first commit comes, or after.
    async fn a_commit_that_comes_after_another_worker_took_the_entry_over_does_nothing(server: Server) {
        for other_is_done in [true, false] {
            let mut redis = server.connect().await;
            let _: () = redis.flushall().await.unwrap();
            scripts::load(&mut redis).await;
            let proxy = Proxy::start(server.port()).await;
            let lease = "lease = \"1s\"";
            let late = WorkerProcess::builder().test("effects::wire::committing_worker_process");
            let mut late = late.config(&Setup::at(proxy.url()).worker(lease).toml()).start();
            let held = proxy.hold_request(scripts::call("commit"));
            publish(&mut redis, &["a"]).await;
            let commit = held.within(PATIENCE).await;
            late.freeze();
            let other = Setup::new(&server).worker(lease);
            let other = other.start_with(counting_after(if other_is_done { 0 } else { 1500 }));
            let mut pending = redis::cmd("XPENDING");
            pending.arg("jobs").arg("workers").arg("-").arg("+").arg(1);
            eventually(PATIENCE, "the other one to have it", async || {
                let pending: Vec<(String, String, u64, u64)> = pending.query_async(&mut redis).await.unwrap();
                if other_is_done { pending.is_empty() } else { pending.iter().any(|(.., count)| *count == 2) }
            })
            .await;
            commit.now();
            late.thaw();
            eventually(PATIENCE, "the answer", async || redis.exists::<_, bool>("heard").await.unwrap()).await;
            assert_eq!(redis.lrange::<_, Vec<String>>("heard", 0, -1).await.unwrap(), ["Err(Taken)"]);
            settled(&mut redis, "jobs", PATIENCE).await;
            late.terminate();
            late.wait(PATIENCE).await;
            other.stop().await;
            assert_once(&mut redis, &["a"]).await;
        }
    }

    /// The first request has been given up, and its repeat was refused by a guard; then what the guard asks for comes
    /// to be, and the first request with it.
    async fn a_request_that_was_given_up_and_comes_late_does_nothing(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = Proxy::start(server.port()).await;
        let registry = Registry::new().on(async |job: Job, ctx: Context| {
            let mut own = ctx.redis().await?;
            ctx.effect(Effect::incr_by("stock", -1).at_least(0));
            let Committed::Refused(_) = ctx.commit().await? else { return Ok(()) };
            let _: () = own.set("refused", "yes").await?;
            while !own.exists::<_, bool>("go on").await? {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            count(job, ctx).await
        });
        let worker = Setup::at(proxy.url()).worker("lease = \"60s\"").start_with(registry);
        let held = proxy.hold_request(scripts::call("commit"));
        publish(&mut redis, &["a"]).await;
        let late = held.within(PATIENCE).await;
        eventually(PATIENCE, "a refusal of the repeat", async || redis.exists::<_, bool>("refused").await.unwrap()).await;
        let _: () = redis.set("stock", 1).await.unwrap();
        late.now();
        eventually(PATIENCE, "the late request", async || {
            was_stale(&mut redis).await || redis.get::<_, u64>("stock").await.unwrap() == 0
        })
        .await;
        let _: () = redis.set("go on", "yes").await.unwrap();
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(redis.get::<_, u64>("stock").await.unwrap(), 1, "what was given up was done");
        assert_eq!(worker.stop().await.unsettled, 0);
        assert_once(&mut redis, &["a"]).await;
    }

    /// Nobody has it pending any more, and nobody else can have had it.
    async fn an_entry_that_is_trimmed_while_it_runs_has_its_effects_once(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        for lost in [false, true] {
            let proxy = Proxy::start(server.port()).await;
            let worker = Setup::at(proxy.url()).worker("lease = \"2s\"").start_with(counting_after(1500));
            let id = if lost { "lost" } else { "trimmed" };
            publish(&mut redis, &[id]).await;
            let pending = async |redis: &mut MultiplexedConnection| crate::support::pending(redis, "jobs").await.len();
            eventually(PATIENCE, "it to run", async || pending(&mut redis).await == 1).await;
            let _: u64 = redis::cmd("XTRIM").arg("jobs").arg("MAXLEN").arg(0).query_async(&mut redis).await.unwrap();
            // A renewal finds out, and drops it.
            eventually(PATIENCE, "it to be nobody's", async || pending(&mut redis).await == 0).await;
            // Of two requests: the first hears that it is nobody's.
            let caught = lost.then(|| proxy.cut_after(scripts::call("commit").second()));
            if let Some(caught) = caught {
                caught.within(PATIENCE).await;
            }
            eventually(PATIENCE, "its effect", async || redis.hexists::<_, _, bool>("counted", id).await.unwrap()).await;
            let summary = worker.stop().await;
            assert_eq!((summary.settled, summary.unsettled), (1, 0));
        }
        assert_once(&mut redis, &["lost", "trimmed"]).await;
    }

    /// It came to its end in another way, as the guard says: a burial, or a success after a failure.
    async fn what_is_nobodys_and_has_a_guard_is_not_committed(server: Server) {
        let mut redis = server.connect().await;
        let mut group = redis::cmd("XGROUP");
        group.arg("CREATE").arg("jobs").arg("workers").arg("0").arg("MKSTREAM");
        let _: () = group.query_async(&mut redis).await.unwrap();
        let script = scripts::named("commit");
        let guards = "{jobs}:workers:guards";
        let (seconds, _): (u64, u64) = redis::cmd("TIME").query_async(&mut redis).await.unwrap();
        for (number, guarded) in [(1, true), (2, false), (3, true)] {
            if guarded {
                let _: () = redis.zadd(guards, "1-1", (seconds + 60) * 1000).await.unwrap();
            } else {
                let _: () = redis.del(guards).await.unwrap();
            }
            let mut call = script.key("jobs");
            call.key("{jobs}:workers:retry").key("{jobs}:workers:failures").key("{jobs}:workers:commits");
            call.key(guards).key("counter");
            let count = number.to_string();
            // Of all: group, worker, number, delete, consumer, not all are plain, first and last id, how many to look for. Then
            // id, count, letters, no events, one effect, nobody's until; the effect: command, no guards, one argument.
            call.arg(scripts::packed(&[
                "workers", "me", &count, "0", "me", "1", "1-1", "1-1", "2", "1-1", &count, "o", "0", "1", "4000000000000",
                "INCRBY", "", "1", "1",
            ]));
            let answer: Vec<u64> = call.invoke_async(&mut redis).await.unwrap();
            assert_eq!(answer, [1], "it is done");
        }
        assert_eq!(redis.get::<_, u64>("counter").await.unwrap(), 1);
    }

    /// Its time is over while it waits for its commit, which stands all the same.
    async fn a_handler_that_is_dropped_while_it_commits_has_committed(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = Proxy::start(server.port()).await;
        let registry = Registry::new().on(async |job: Job, ctx: Context| {
            count(job, ctx.clone()).await?;
            let _ = ctx.commit().await?;
            Ok(())
        });
        let setup = Setup::at(proxy.url()).worker("lease = \"60s\"");
        let setup = setup.defaults("timeout = \"300ms\"").defaults("grace = \"50ms\"");
        let worker = setup.start_with(registry);
        let caught = proxy.delay(scripts::call("commit"), Duration::from_millis(1500));
        publish(&mut redis, &["a"]).await;
        caught.within(PATIENCE).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let summary = worker.stop().await;
        assert_eq!((summary.settled, summary.unsettled), (1, 0));
        assert_once(&mut redis, &["a"]).await;
    }

    /// And so has one that is cut off when its worker stops.
    async fn a_handler_that_is_cut_off_while_it_commits_has_committed(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = Proxy::start(server.port()).await;
        let registry = Registry::new().on(async |job: Job, ctx: Context| {
            count(job, ctx.clone()).await?;
            let _ = ctx.commit().await?;
            Ok(())
        });
        let worker = Setup::at(proxy.url()).worker("lease = \"60s\"").worker("drain = \"100ms\"").start_with(registry);
        let caught = proxy.delay(scripts::call("commit"), Duration::from_millis(800));
        publish(&mut redis, &["a"]).await;
        eventually(PATIENCE, "its effect", async || redis.exists::<_, bool>("counted").await.unwrap()).await;
        let summary = worker.stop().await;
        caught.within(PATIENCE).await;
        assert_eq!((summary.settled, summary.unsettled), (1, 0));
        assert_once(&mut redis, &["a"]).await;
    }
}

/// Whether a request was told that a later one has been answered.
async fn was_stale(redis: &mut MultiplexedConnection) -> bool {
    let mut info = redis::cmd("INFO");
    let stats: String = info.arg("errorstats").query_async(redis).await.unwrap();
    stats.contains("errorstat_STALE")
}
