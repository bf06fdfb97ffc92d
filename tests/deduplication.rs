//! Of all copies of an event a handler that deduplicates succeeds with one, and no other runs after that or beside it.

use std::time::{Duration, Instant};

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use streamhand::dead_letters::{DeadLetters, Filter};
use streamhand::{Context, Effect, Envelope, Registry, Settings};

use crate::support::jobs::{self, Action, Job};
use crate::support::{Proxy, Server, Setup, dead, eventually, marks, scripts, settled};

const PATIENCE: Duration = Duration::from_secs(30);

/// Adds an event, once more where it is there already.
async fn publish(redis: &mut MultiplexedConnection, id: &str, action: Action) {
    let data = serde_json::to_string(&Job::new(id, action)).unwrap();
    let _: String = redis::cmd("XADD")
        .arg("jobs")
        .arg("*")
        .arg(&["type", "test.job", "id", id, "data", &data])
        .query_async(redis)
        .await
        .unwrap();
}

fn setup(server: &Server) -> Setup {
    Setup::new(server).defaults("deduplicate = \"1h\"")
}

async fn mark(redis: &mut MultiplexedConnection, id: &str) -> Option<String> {
    redis.get(marks::seen(id)).await.unwrap()
}

async fn assert_started(redis: &mut MultiplexedConnection, expected: &[(&str, u32)]) {
    let started: Vec<(String, u32)> = jobs::started(redis)
        .await
        .into_iter()
        .map(|trace| (trace.id, trace.attempt))
        .collect();
    let expected: Vec<(String, u32)> = expected
        .iter()
        .map(|(id, n)| ((*id).to_owned(), *n))
        .collect();
    assert_eq!(started, expected);
}

on_both_servers! {
    async fn a_copy_of_an_event_that_has_succeeded_is_acknowledged_without_running(server: Server) {
        let mut redis = server.connect().await;
        let worker = setup(&server).start();
        publish(&mut redis, "a", Action::Fail(1)).await;
        eventually(PATIENCE, "it to fail", async || jobs::started(&mut redis).await.len() == 1).await;
        assert!(!mark(&mut redis, "a").await.is_some_and(|mark| mark.starts_with("done")), "marked before its success");
        settled(&mut redis, "jobs", PATIENCE).await;
        assert!(mark(&mut redis, "a").await.is_some_and(|mark| mark.starts_with("done ")));
        let lasts: u64 = redis.pttl(marks::seen("a")).await.unwrap();
        assert!((3_500_000..=3_600_000).contains(&lasts), "{lasts} ms");
        for _ in 0..3 {
            publish(&mut redis, "a", Action::Succeed).await;
        }
        publish(&mut redis, "b", Action::Succeed).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_started(&mut redis, &[("a", 1), ("a", 2), ("b", 1)]).await;
        // Another worker knows as well.
        worker.stop().await;
        let worker = setup(&server).start();
        publish(&mut redis, "a", Action::Succeed).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::started(&mut redis).await.len(), 3);
        let summary = worker.stop().await;
        assert_eq!((summary.settled, summary.unsettled), (1, 0));
    }

    async fn of_copies_in_flight_at_once_one_runs_and_the_others_wait(server: Server) {
        let mut redis = server.connect().await;
        let fleet = [setup(&server).start(), setup(&server).start()];
        for _ in 0..5 {
            publish(&mut redis, "a", Action::Take(1_200)).await;
        }
        eventually(PATIENCE, "one to run", async || jobs::started(&mut redis).await.len() == 1).await;
        // Others are not kept waiting by them.
        publish(&mut redis, "b", Action::Succeed).await;
        let begin = Instant::now();
        eventually(PATIENCE, "the other event", async || jobs::handled(&mut redis).await.contains_key("b")).await;
        assert!(begin.elapsed() < Duration::from_secs(1), "after {:?}", begin.elapsed());
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::starts_of(&mut redis, "a").await, 1);
        assert_eq!(dead(&mut redis).await, 0);
        for worker in fleet {
            worker.stop().await;
        }
    }

    /// The copy that ran is buried: its claim is void.
    async fn a_copy_runs_where_the_first_has_come_to_nothing(server: Server) {
        let mut redis = server.connect().await;
        let worker = setup(&server).start();
        publish(&mut redis, "a", Action::TakeThenFailForGood(600)).await;
        publish(&mut redis, "a", Action::Succeed).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        // It has waited without using up an attempt.
        assert_started(&mut redis, &[("a", 1), ("a", 1)]).await;
        assert_eq!(dead(&mut redis).await, 1);
        worker.stop().await;
    }

    async fn a_copy_waits_for_one_whose_worker_died_and_does_not_run_beside_it(server: Server) {
        let mut redis = server.connect().await;
        let setup = setup(&server).worker("lease = \"1s\"");
        let mut victim = setup.process();
        publish(&mut redis, "a", Action::TakeOrLess(60_000, 300)).await;
        eventually(PATIENCE, "it to run", async || jobs::started(&mut redis).await.len() == 1).await;
        victim.kill();
        let worker = setup.start();
        publish(&mut redis, "a", Action::Succeed).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_started(&mut redis, &[("a", 1), ("a", 2)]).await;
        assert_eq!(jobs::handled(&mut redis).await["a"], 1);
        worker.stop().await;
    }

    async fn a_dead_letter_that_is_replayed_runs_whatever_the_marks_say(server: Server) {
        let mut redis = server.connect().await;
        let worker = setup(&server).start();
        publish(&mut redis, "a", Action::FailForGood).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        publish(&mut redis, "a", Action::Succeed).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert!(mark(&mut redis, "a").await.is_some_and(|mark| mark.starts_with("done ")));
        assert_eq!(replay_all(&server).await, 1);
        eventually(PATIENCE, "the replay", async || jobs::started(&mut redis).await.len() == 3).await;
        worker.stop().await;
    }

    async fn an_event_is_known_for_as_long_as_it_says_and_one_without_an_id_is_not(server: Server) {
        let mut redis = server.connect().await;
        let worker = Setup::new(&server).defaults("deduplicate = \"1s\"").start();
        publish(&mut redis, "a", Action::Succeed).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        eventually(PATIENCE, "the mark to go", async || mark(&mut redis, "a").await.is_none()).await;
        publish(&mut redis, "a", Action::Succeed).await;
        jobs::publish(&mut redis, "jobs", &[Job::new("b", Action::Succeed), Job::new("b", Action::Succeed)]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::started(&mut redis).await.len(), 4);
        worker.stop().await;
    }

    /// Both copies came to run all the same: the one that is late does nothing.
    async fn a_copy_that_ends_after_another_has_succeeded_leaves_nothing(server: Server) {
        let mut redis = server.connect().await;
        let registry = Registry::new().on(async |job: Job, ctx: Context| {
            let mut own = ctx.redis().await?;
            let _: () = own.set(marks::seen(&job.id), "done 1-1").await?;
            ctx.effect(Effect::set("effect", "x"));
            ctx.emit_envelope("emitted", Envelope::new("test.emitted"));
            Ok(())
        });
        let worker = setup(&server).start_with(registry);
        publish(&mut redis, "a", Action::Succeed).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let left: u64 = redis.exists(&["effect", "emitted"]).await.unwrap();
        assert_eq!((left, dead(&mut redis).await), (0, 0));
        assert_eq!(mark(&mut redis, "a").await.unwrap(), "done 1-1");
        worker.stop().await;
    }

    async fn what_gets_lost_on_the_way_is_asked_again(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = Proxy::start(server.port()).await;
        let setup = Setup::at(proxy.url()).worker("lease = \"60s\"").defaults("deduplicate = \"1h\"");
        let worker = setup.start();
        for script in ["claim", "commit"] {
            for answer_is_lost in [false, true] {
                let call = scripts::call(script);
                let caught = if answer_is_lost { proxy.cut_after(call) } else { proxy.cut_before(call) };
                for _ in 0..2 {
                    publish(&mut redis, &format!("{script}-{answer_is_lost}"), Action::Succeed).await;
                }
                caught.within(PATIENCE).await;
                settled(&mut redis, "jobs", PATIENCE).await;
            }
        }
        let handled = jobs::handled(&mut redis).await;
        assert!(handled.len() == 4 && handled.values().all(|times| *times == 1), "{handled:?}");
        worker.stop().await;
    }

    async fn a_worker_that_deduplicates_nothing_asks_nothing(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        // Off for this handler, whatever holds for others.
        let worker = setup(&server).handler("deduplicate = \"0s\"").start();
        for _ in 0..3 {
            publish(&mut redis, "a", Action::Succeed).await;
        }
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::handled(&mut redis).await["a"], 3);
        assert_eq!(mark(&mut redis, "a").await, None);
        worker.stop().await;
    }
}

async fn replay_all(server: &Server) -> u64 {
    let settings = Settings::from_toml_str(&setup(server).toml()).unwrap();
    let letters = DeadLetters::new(&settings).unwrap();
    let all = letters.select(Filter::new()).await.unwrap();
    all.replay("me", None, |_| ()).await.unwrap().replayed
}
