//! Cancelling an event wherever it stands: what waits does not start, what runs is told, and no other worker's entry is
//! acknowledged. It ends as cancelled, and as nothing else.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::AsyncCommands;
use streamhand::admin::{Admin, CancelOutcome, CancelRequest};
use streamhand::metrics::Metrics;
use streamhand::{Envelope, ErrorKind, Observer, Outcome, Settings, Settled, Unstarted};

use crate::support::jobs::{self, Action, Job};
use crate::support::{
    Cli, Scrape, Server, Setup, all_pending, dead, eventually, parked, publisher, settled,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// What entries ended as.
#[derive(Clone, Default)]
struct Ends(Arc<Mutex<Vec<(String, Outcome)>>>);

impl Ends {
    fn all(&self) -> Vec<(String, Outcome)> {
        self.0.lock().unwrap().clone()
    }
}

impl Observer for Ends {
    fn settled(&self, settled: &Settled<'_>) {
        let id = settled.context.envelope().entry_id().to_string();
        self.0.lock().unwrap().push((id, settled.outcome));
    }

    fn unstarted(&self, unstarted: &Unstarted<'_>) {
        self.0
            .lock()
            .unwrap()
            .push((unstarted.entry.to_string(), unstarted.outcome));
    }
}

fn program(setup: &Setup, server: &Server) -> Cli {
    let toml = setup.toml();
    Cli::new(server, &toml[toml.find("[worker]").expect("a table")..])
}

fn event(id: &str, action: Action) -> Envelope {
    Envelope::new("test.job")
        .with("id", id)
        .json(&Job::new(id, action))
        .expect("JSON")
}

on_both_servers! {
    /// On a topic, whose partitions are looked through.
    async fn what_waits_is_cancelled_wherever_it_waits_and_never_runs(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).stream("partitions = 2")
            .retry("backoff = { initial = \"4m\", factor = 1.0, jitter = 0.0 }");
        let (cli, publisher) = (program(&setup, &server), publisher(&server.url()).partitioned("jobs", 2).unwrap());
        let worker = setup.start();
        publisher.publish_envelope_after("jobs", event("later", Action::Succeed), Duration::from_secs(3600)).await.unwrap();
        let parked_at = publisher.publish_envelope("jobs", event("parked", Action::Fail(9)).with("subject", "a")).await.unwrap();
        publisher.publish_envelope("jobs", event("done", Action::Succeed).with("subject", "b")).await.unwrap();
        eventually(PATIENCE, "one to fail, and one to be done", async || jobs::ended(&mut redis).await.len() == 1
            && jobs::started(&mut redis).await.len() == 2).await;
        let stands = |id: &'static str| {
            let cli = &cli;
            async move { cli.run(&["entry", id]).await.ok() }
        };
        eventually(PATIENCE, "it to be parked", async || stands("parked").await.contains("waits for its next attempt")).await;
        let said = cli.run(&["cancel", "later"]).await.ok();
        assert!(said.starts_with("later of {jobs:") && said.ends_with("cancelled: it waited for its time\n"), "{said}");
        let said = cli.run(&["cancel", "parked", "--by", "alice"]).await.ok();
        assert!(said.starts_with(&format!("{parked_at} of {{jobs:")) && said.ends_with("}: cancelled: it was parked\n"), "{said}");
        let said = stands("parked").await;
        assert!(said.contains("workers: cancelled at ") && said.contains(" by alice\n"), "{said}");
        let again = cli.run(&["cancel", "parked"]).await.ok();
        assert!(again.contains("cancelled before, at ") && again.contains(" by alice"), "{again}");
        let over = cli.run(&["cancel", "done"]).await;
        assert!(over.out.contains("nothing to cancel: it is done, or a dead letter"), "{}", over.out);
        assert_eq!(over.code, 1);
        assert!(stands("done").await.contains("workers: settled"), "it was not cancelled");
        let none = cli.run(&["cancel", "nobody"]).await.failed(1);
        assert!(none.contains("no event and no entry has the id nobody"), "{none}");
        worker.stop().await;

        // Nobody reads: the next worker settles it, whatever else comes with it.
        let unread = publisher.publish_envelope("jobs", event("unread", Action::Succeed).with("subject", "a")).await.unwrap();
        let said = cli.run(&["cancel", &unread.to_string()]).await.ok();
        assert!(said.contains("not read yet: it ends as cancelled when a worker reads it"), "{said}");
        let said = cli.run(&["status"]).await.ok();
        assert!(said.contains("1 to be cancelled"), "{said}");
        publisher.publish_envelope("jobs", event("other", Action::Succeed).with("subject", "a")).await.unwrap();
        let (ends, metrics) = (Ends::default(), Metrics::new());
        let settings = Settings::from_toml_str(&setup.toml()).unwrap();
        let worker = streamhand::Worker::new(settings.clone(), jobs::registry()).unwrap().observer(ends.clone()).metrics(&metrics);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(worker.run(async { let _ = stopped.await; }));
        eventually(PATIENCE, "both to be settled", async || ends.all().len() == 2).await;
        eventually(PATIENCE, "that to be told", async || stands("unread").await.contains("workers: cancelled at ")).await;
        assert!(ends.all().contains(&(unread.to_string(), Outcome::Cancelled)), "{:?}", ends.all());
        eventually(PATIENCE, "it to be counted", async || {
            Scrape::of(&metrics).sum("settled_total", "outcome=cancelled") == 1.0
        }).await;
        let started: Vec<String> = jobs::started(&mut redis).await.into_iter().map(|trace| trace.id).collect();
        assert_eq!(started.iter().filter(|id| ["unread", "later"].contains(&&id[..])).count(), 0, "{started:?}");
        assert_eq!(started.iter().filter(|id| *id == "parked").count(), 1, "{started:?}");
        let status = cli.run(&["status", "--json"]).await.json();
        let sum = |what: &str| {
            let streams = status["streams"].as_array().unwrap().iter();
            streams.map(|stream| stream[what].as_u64().unwrap_or_default()).sum::<u64>()
        };
        assert_eq!((sum("to_be_cancelled"), sum("cancelled"), sum("dead"), sum("parked")), (0, 2, 0, 0), "{status}");
        drop(stop);
        running.await.unwrap().unwrap();

        // Two events share an id.
        let admin = Admin::new(&settings).unwrap();
        for event_type in ["test.job", "test.other"] {
            let envelope = Envelope::new(event_type).with("id", "twins").json(&1).unwrap();
            publisher.publish_envelope("jobs", envelope).await.unwrap();
        }
        let which = admin.cancel(CancelRequest::of("twins", "bob")).await.unwrap_err();
        assert_eq!(which.kind(), ErrorKind::Invalid);
        assert!(which.to_string().contains("say which is meant by its type, of test.job, test.other"), "{which}");
        let found = admin.cancel(CancelRequest::of("twins", "bob").event_type("test.other")).await.unwrap().found;
        assert!(found.len() == 1 && found[0].outcome == CancelOutcome::Unread, "{found:?}");
    }

    /// The only worker has no room for anything else: it hears of it all the same.
    async fn what_runs_is_told_and_ends_as_cancelled_unless_it_succeeds(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).worker("concurrency = 1").worker("prefetch = 1");
        let cli = program(&setup, &server);
        let worker = setup.clone().handler("grace = \"500ms\"").start();
        for (name, action) in [("told", Action::UntilTold), ("deaf", Action::Hang)] {
            let ids = jobs::publish(&mut redis, "jobs", &[Job::new(name, action)]).await;
            eventually(PATIENCE, "it to run", async || jobs::started(&mut redis).await.iter().any(|trace| trace.id == name)).await;
            let said = cli.run(&["cancel", &ids[0], "--by", "alice", "--wait", "20s"]).await.ok();
            assert_eq!(said, format!("{} of jobs: cancelled\n", ids[0]));
            let said = cli.run(&["entry", &ids[0]]).await.ok();
            assert!(said.contains("workers: cancelled at ") && said.contains(" by alice\n"), "{said}");
        }
        worker.stop().await;
        // It is told as well, and succeeds within its grace period.
        let worker = setup.handler("grace = \"20s\"").start();
        let ids = jobs::publish(&mut redis, "jobs", &[Job::new("late", Action::Take(2_500))]).await;
        eventually(PATIENCE, "it to run", async || jobs::started(&mut redis).await.len() == 3).await;
        let said = cli.run(&["cancel", &ids[0], "--wait", "20s"]).await;
        assert!(said.out.contains("too late: it was done"), "{}", said.out);
        assert_eq!(said.code, 1);
        assert!(cli.run(&["entry", &ids[0]]).await.ok().contains("workers: settled"), "it has succeeded");
        let told: Vec<_> = jobs::ended(&mut redis).await.into_iter().map(|trace| (trace.id, trace.told)).collect();
        assert!(told.iter().all(|(_, told)| told == "Requested"), "{told:?}");
        settled(&mut redis, "jobs", PATIENCE).await;
        let traces = jobs::started(&mut redis).await;
        assert!(traces.iter().all(|trace| trace.attempt == 1), "none came again: {traces:?}");
        assert_eq!((dead(&mut redis).await, parked(&mut redis).await), (0, 0));
        worker.stop().await;
    }

    /// What another worker has is that one's: whoever lost it settles nothing.
    async fn what_another_worker_has_is_never_acknowledged_by_one_that_had_it(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).handler("grace = \"200ms\"");
        let cli = program(&setup, &server);
        let ends = Ends::default();
        let worker = setup.start_observed(jobs::registry(), ends.clone());
        let ids = jobs::publish(&mut redis, "jobs", &[Job::new("taken", Action::UntilTold)]).await;
        eventually(PATIENCE, "it to run", async || jobs::started(&mut redis).await.len() == 1).await;
        let elsewhere = "sh2-60000-elsewhere-1-0000000000000000";
        let claimed: Vec<String> = redis::cmd("XCLAIM").arg("jobs").arg("workers").arg(elsewhere)
            .arg(0).arg(&ids[0]).arg("RETRYCOUNT").arg(2).arg("JUSTID").query_async(&mut redis).await.unwrap();
        assert_eq!(claimed, ids);
        let said = cli.run(&["cancel", &ids[0], "--wait", "1s"]).await.ok();
        assert!(said.contains(elsewhere) && said.contains("has not ended it yet"), "{said}");
        eventually(PATIENCE, "the handler to end", async || jobs::ended(&mut redis).await.len() == 1).await;
        eventually(PATIENCE, "that to be told", async || !ends.all().is_empty()).await;
        worker.stop().await;
        assert_eq!(all_pending(&mut redis).await, ids, "it is the other one's still");
        let note: String = redis.hget("{jobs}:workers:cancelled", &ids[0]).await.unwrap();
        assert!(note.starts_with("asked "), "{note}");
    }

    /// In an order a cancelled event counts as done: what is behind it goes on, whatever its dead letters would do.
    async fn what_is_behind_a_cancelled_event_of_its_subject_goes_on(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).stream("order = \"subject\"").worker("lease = \"1s\"")
            .retry("backoff = { initial = \"4m\", factor = 1.0, jitter = 0.0 }");
        let (cli, publisher) = (program(&setup, &server), publisher(&server.url()));
        let worker = setup.process();
        let first = publisher.publish_envelope("jobs", event("first", Action::Fail(9)).with("subject", "o-1")).await.unwrap();
        publisher.publish_envelope("jobs", event("second", Action::UntilTold).with("subject", "o-1")).await.unwrap();
        publisher.publish_envelope("jobs", event("third", Action::Succeed).with("subject", "o-1")).await.unwrap();
        eventually(PATIENCE, "it to fail", async || jobs::started(&mut redis).await.len() == 1).await;
        let said = cli.run(&["cancel", &first.to_string(), "--wait", "20s"]).await.ok();
        assert!(said.contains("cancelled"), "{said}");
        eventually(PATIENCE, "the second to run", async || jobs::started(&mut redis).await.len() == 2).await;
        let said = cli.run(&["cancel", "second", "--wait", "20s"]).await.ok();
        assert!(said.ends_with(": cancelled\n"), "{said}");
        eventually(PATIENCE, "the third to be handled", async || {
            jobs::ended(&mut redis).await.iter().any(|trace| trace.id == "third")
        }).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(dead(&mut redis).await, 0);
        drop(worker);
    }
}
