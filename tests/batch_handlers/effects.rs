//! What a batch handler emits and wants to take effect leaves in one step with the acknowledgement of all its events, once,
//! or not at all.

use redis::AsyncCommands;
use streamhand::{Committed, Effect, Envelope};

use crate::support::{Proxy, scripts};

use super::*;

/// Counts the events of each batch, each of them, and the batches; and says so.
fn counting(wait: &str) -> Registry {
    Registry::new().on_batch(Batches::of(20).wait(wait), count)
}

async fn count(rows: Batch<Row>, ctx: Context) -> Result<(), Failure> {
    handle(&rows).await?;
    for (at, row) in rows.iter().enumerate() {
        if row.does == Does::FailAlone && rows.attempt(at) == 1 {
            continue;
        }
        ctx.effect(Effect::hincr_by("counted", row.n.to_string(), 1));
    }
    ctx.effect(Effect::incr_by("batches", 1));
    ctx.emit_envelope("done", Envelope::new("test.done").json(&rows.len())?);
    Ok(())
}

/// Each of so many events was counted once.
async fn assert_once(redis: &mut MultiplexedConnection, count: u64) {
    let counted: BTreeMap<u64, u64> = redis.hgetall("counted").await.unwrap();
    assert_eq!(counted, (0..count).map(|n| (n, 1)).collect());
    let batches: usize = redis.get("batches").await.unwrap();
    assert_eq!(entries(redis, "done").await.len(), batches);
    let noted: u64 = redis.hlen("{jobs}:workers:failures").await.unwrap();
    assert_eq!((noted, dead(redis).await), (0, 0));
}

on_both_servers! {
    /// In one step of all of them, and nothing for what was failed.
    async fn effects_of_a_batch_take_place_with_its_acknowledgements(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, 10, &[(4, Does::FailAlone)]).await;
        let worker = setup(&server).retry("max_attempts = 2").start_with(counting("500ms"));
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(worker.stop().await.unsettled, 0);
        assert_once(&mut redis, 10).await;
        let done = entries(&mut redis, "done").await;
        assert_eq!(done.len(), 2);
        assert_eq!((field(&done[0], "causationid"), field(&done[0], "data")), ("e-0".to_owned(), "10".to_owned()));
    }

    /// A handler may commit by itself, and decide anew if a guard refuses.
    async fn a_batch_handler_commits_and_decides_anew(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, 6, &[]).await;
        let registry = Registry::new().on_batch(Batches::of(6).wait("5s"), async |rows: Batch<Row>, ctx: Context| {
            rows.fail(5, Failure::permanent("not this one"));
            ctx.effect(Effect::incr_by("stock", -6).at_least(0));
            let Committed::Refused(_) = ctx.commit().await? else { return Err("there is no stock".into()) };
            for row in rows.iter().take(5) {
                ctx.effect(Effect::hincr_by("counted", row.n.to_string(), 1));
            }
            assert_eq!(ctx.commit().await?, Committed::Settled);
            Ok(())
        });
        let worker = setup(&server).start_with(registry);
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(worker.stop().await.unsettled, 0);
        let counted: BTreeMap<u64, u64> = redis.hgetall("counted").await.unwrap();
        assert_eq!(counted, (0..5).map(|n| (n, 1)).collect());
        assert!(!redis.exists::<_, bool>("stock").await.unwrap());
        let letters = letters(&mut redis).await;
        assert_eq!((letters.len(), &letters[0].0[..], &letters[0].3[..]), (1, "e-5", "not this one"));
    }

    /// The answer is lost, with many others on their way: a repeat finds what was done.
    async fn a_step_whose_answer_is_lost_is_done_once(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = Proxy::start(server.port()).await;
        let cut = [proxy.cut_after(scripts::call("commit_batch")), proxy.cut_before(scripts::call("commit_batch").second())];
        let setup = Setup::at(proxy.url()).worker("lease = \"20s\"");
        let worker = setup.start_with(counting("50ms"));
        publish(&mut redis, 200, &[]).await;
        for cut in cut {
            cut.within(PATIENCE).await;
        }
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(worker.stop().await.unsettled, 0);
        assert_once(&mut redis, 200).await;
    }

    /// Killed before the step, when it is on its way and comes after the worker's death, and after it.
    async fn killed_before_in_and_after_the_step_each_effect_takes_place_once(server: Server) {
        for at in ["before", "in", "after"] {
            let mut redis = server.connect().await;
            let _: () = redis.flushall().await.unwrap();
            scripts::load(&mut redis).await;
            let proxy = Proxy::start(server.port()).await;
            let builder = WorkerProcess::builder().test("batch_handlers::effects::counting_worker_process");
            let mut worker = builder.config(&Setup::at(proxy.url()).worker("lease = \"1s\"").toml()).start();
            publish(&mut redis, 8, &[]).await;
            match at {
                "before" => {
                    proxy.cut_before(scripts::call("commit_batch")).within(PATIENCE).await;
                    worker.kill();
                }
                "in" => {
                    let held = proxy.hold_request(scripts::call("commit_batch")).within(PATIENCE).await;
                    worker.kill();
                    held.now();
                }
                _ => {
                    proxy.hold_reply(scripts::call("commit_batch")).within(PATIENCE).await;
                    worker.kill();
                }
            }
            let other = Setup::new(&server).worker("lease = \"1s\"").start_with(counting("50ms"));
            settled(&mut redis, "jobs", PATIENCE).await;
            other.stop().await;
            assert_once(&mut redis, 8).await;
        }
    }

    /// One entry is another worker's by the time of the commit: nothing is done, and the handler decides again with the rest.
    async fn with_an_entry_lost_the_handler_decides_again_with_the_rest(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, 5, &[]).await;
        let calls = Calls::default();
        let seen = calls.clone();
        let handler = move |rows: Batch<Row>, ctx: Context| {
            seen.note(&rows);
            let first = seen.all().len() == 1;
            async move {
                if first {
                    let mut redis = ctx.redis().await?;
                    let id = rows.envelope(2).entry_id().to_string();
                    let mut claim = redis::cmd("XCLAIM");
                    claim.arg("jobs").arg("workers").arg("another").arg(0).arg(id);
                    let _: redis::Value = claim.query_async(&mut redis).await?;
                }
                count(rows, ctx).await
            }
        };
        let worker = setup(&server).start_with(Registry::new().on_batch(patient(5), handler));
        eventually(PATIENCE, "the rest to be done", async || {
            calls.all().len() == 2 && held(&mut redis).await == 1
        })
        .await;
        assert_eq!(worker.stop().await.unsettled, 0);
        let all: Vec<Vec<u64>> = calls.all().into_iter().map(|call| call.into_iter().map(|(n, _)| n).collect()).collect();
        assert_eq!(all, [vec![0, 1, 2, 3, 4], vec![0, 1, 3, 4]]);
        let counted: BTreeMap<u64, u64> = redis.hgetall("counted").await.unwrap();
        assert_eq!(counted, [0, 1, 3, 4].map(|n| (n, 1)).into());
        assert_eq!(redis.get::<_, u64>("batches").await.unwrap(), 1);
    }
}

#[test]
#[ignore = "run by other tests"]
fn counting_worker_process() {
    crate::support::run_worker(counting("50ms"));
}
