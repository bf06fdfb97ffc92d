//! A handler that takes too long is told to stop, and dropped when it does not.

use std::time::{Duration, Instant};

use streamhand::{Context, Registry};
use tokio::sync::mpsc;

use crate::support::jobs::{self, Action, Job, many};
use crate::support::letters::fields;
use crate::support::{Server, Setup, add, eventually, settled};

const PATIENCE: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_millis(300);
const GRACE: Duration = Duration::from_millis(400);

/// Says when it is dropped.
struct Dropped(mpsc::UnboundedSender<(&'static str, Instant)>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(("dropped", Instant::now()));
    }
}

on_both_servers! {
    /// With room for one handler, whatever comes after the one that hangs shows that its slot is free again.
    async fn it_fails_frees_its_slot_and_the_next_one_runs(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server)
            .worker("concurrency = 1")
            .retry("max_attempts = 2")
            .defaults("timeout = \"300ms\"")
            .defaults("grace = \"100ms\"");
        let worker = setup.start();
        let all = [
            Job::new("hangs", Action::Hang),
            Job::new("listens", Action::UntilTold),
            Job::new("next", Action::Succeed),
        ];
        jobs::publish(&mut redis, "jobs", &all).await;
        eventually(PATIENCE, "both to be dead letters after two attempts", async || {
            redis::cmd("XLEN").arg("{jobs}:workers:dead").query_async::<u64>(&mut redis).await.unwrap() == 2
        })
        .await;
        eventually(PATIENCE, "the next one to run", async || jobs::handled(&mut redis).await.contains_key("next")).await;
        let ended = jobs::ended(&mut redis).await;
        assert_eq!(ended.iter().filter(|trace| trace.id == "next").count(), 1);
        let told: Vec<_> = ended.iter().filter(|trace| trace.id == "listens").map(|trace| &trace.told[..]).collect();
        assert_eq!(told, ["TimedOut", "TimedOut"]);
        assert_eq!(jobs::starts_of(&mut redis, "hangs").await, 2);
        let letters: Vec<(String, Vec<(String, String)>)> =
            redis::cmd("XRANGE").arg("{jobs}:workers:dead").arg("-").arg("+").query_async(&mut redis).await.unwrap();
        let errors: Vec<_> = letters
            .iter()
            .flat_map(|(_, fields)| fields.iter().find(|(name, _)| name == "dead.error"))
            .map(|(_, error)| &error[..])
            .collect();
        assert!(errors.contains(&"the handler timed out after 300ms"), "{errors:?}");
        worker.stop().await;
    }

    async fn it_is_told_at_its_timeout_and_dropped_after_the_grace(server: Server) {
        let mut redis = server.connect().await;
        let (tell, mut told) = mpsc::unbounded_channel();
        let registry = Registry::new().on_raw("test.hangs", move |event, ctx: Context| {
            let tell = tell.clone();
            async move {
                let _dropped = Dropped(tell.clone());
                tell.send(("starts", Instant::now()))?;
                let why = ctx.cancelled().await;
                assert_eq!(why, streamhand::Cancelled::TimedOut);
                tell.send(("told", Instant::now()))?;
                if event.field("listens").is_some() {
                    return Ok(());
                }
                std::future::pending().await
            }
        });
        let worker = Setup::new(&server)
            .retry("max_attempts = 1")
            .defaults("timeout = \"300ms\"")
            .defaults("grace = \"400ms\"")
            .start_with(registry);
        for (event, end) in [
            (&[("type", "test.hangs")][..], TIMEOUT + GRACE),
            // One that heeds it and succeeds has succeeded.
            (&[("type", "test.hangs"), ("listens", "")], TIMEOUT),
        ] {
            add(&mut redis, "jobs", &fields(event)).await;
            let mut next = async || {
                tokio::time::timeout(PATIENCE, told.recv()).await.expect("the handler to go on").expect("a handler")
            };
            let [start, told, dropped] = [next().await, next().await, next().await];
            assert_eq!((start.0, told.0, dropped.0), ("starts", "told", "dropped"));
            for (at, expected) in [(told.1, TIMEOUT), (dropped.1, end)] {
                let after = at - start.1;
                assert!(after >= expected && after < expected + GRACE / 2, "{after:?} instead of {expected:?}");
            }
            settled(&mut redis, "jobs", PATIENCE).await;
            let dead: u64 = redis::cmd("XLEN").arg("{jobs}:workers:dead").query_async(&mut redis).await.unwrap();
            assert_eq!(dead, 1);
        }
        worker.stop().await;
    }

    /// From its first moment, after it has waited for something, and behind another of its kind.
    async fn a_handler_that_blocks_its_thread_is_named_once_with_the_remedy(server: Server) {
        let mut redis = server.connect().await;
        let cases = [
            (Action::ComputeQuietlyThenFail(900), ""),
            (Action::Compute(900), ""),
            (Action::ComputeQuietlyThenFail(900), "[handlers.\"test.job\"]\nconcurrency = 1"),
        ];
        for (action, limit) in cases {
            let setup = Setup::new(&server)
                .more(limit)
                .worker("concurrency = 1")
                .retry("max_attempts = 1")
                .defaults("timeout = \"300ms\"");
            jobs::publish(&mut redis, "jobs", &many("blocks", 2, &action)).await;
            let mut worker = setup.process();
            let line = worker.wait_for_log("blocks its thread", PATIENCE).await;
            assert!(line.contains("test.job") && line.contains("spawn_blocking"), "{line}");
            settled(&mut redis, "jobs", PATIENCE).await;
            let log = worker.log();
            assert_eq!(log.matches("blocks its thread").count(), 1, "{log}");
        }
    }
}
