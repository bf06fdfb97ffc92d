//! Pausing a stream or a handler: for the whole group, within a second, and across restarts.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;

use crate::support::jobs::{self, Action, Job, many};
use crate::support::{Cli, Server, Setup, eventually, settled};

const PATIENCE: Duration = Duration::from_secs(30);

fn program(server: &Server) -> Cli {
    Cli::new(
        server,
        "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n",
    )
}

async fn done(redis: &mut MultiplexedConnection) -> usize {
    jobs::ended(redis).await.len()
}

async fn passes(time: Duration) {
    let since = Instant::now();
    eventually(time * 2, "some time to pass", async || {
        since.elapsed() >= time
    })
    .await;
}

on_both_servers! {
    async fn a_paused_stream_is_left_alone_by_all_workers_until_it_is_resumed(server: Server) {
        let mut redis = server.connect().await;
        let (cli, setup) = (program(&server), Setup::new(&server).worker("concurrency = 4"));
        let mut workers = [setup.process(), setup.process()];
        jobs::publish(&mut redis, "jobs", &many("job", 3_000, &Action::Take(5))).await;
        eventually(PATIENCE, "work to be done", async || done(&mut redis).await > 50).await;
        let said = cli.run(&["pause", "jobs", "--by", "alice"]).await.ok();
        assert!(said.starts_with("paused: jobs"), "{said}");
        passes(Duration::from_secs(1)).await;
        let so_far = jobs::started(&mut redis).await.len();
        assert!(so_far < 3_000, "all had started by then");
        passes(Duration::from_secs(2)).await;
        assert_eq!(jobs::started(&mut redis).await.len(), so_far, "started while paused");
        let text = cli.run(&["status"]).await.ok();
        assert!(text.contains("ago by alice: `shop resume jobs`"), "{text}");

        // It survives a restart of workers, and a second pause changes nothing.
        for worker in &mut workers {
            worker.terminate();
            worker.wait(PATIENCE).await;
        }
        let worker = setup.process();
        passes(Duration::from_secs(2)).await;
        assert_eq!(jobs::started(&mut redis).await.len(), so_far);
        let said = cli.run(&["pause", "jobs"]).await.ok();
        assert!(said.starts_with("paused already"), "{said}");

        let resumed = Instant::now();
        let said = cli.run(&["resume", "jobs"]).await.ok();
        assert!(said.starts_with("resumed: jobs"), "{said}");
        eventually(PATIENCE, "work to go on", async || jobs::started(&mut redis).await.len() > so_far).await;
        assert!(resumed.elapsed() < Duration::from_millis(2_000), "after {:?}", resumed.elapsed());
        settled(&mut redis, "jobs", PATIENCE).await;
        let twice: Vec<_> = jobs::handled(&mut redis).await.into_iter().filter(|(_, times)| *times > 1).collect();
        assert!(twice.is_empty(), "{twice:?}");
        assert!(jobs::started(&mut redis).await.iter().all(|trace| trace.attempt == 1), "no attempt was used up");
        let said = cli.run(&["resume", "jobs"]).await.ok();
        assert!(said.starts_with("not paused"), "{said}");
        drop(worker);
    }

    /// Others of the stream go on; what was put back comes back at once.
    async fn a_paused_handlers_entries_wait_and_come_back_at_once_when_it_is_resumed(server: Server) {
        let mut redis = server.connect().await;
        let (cli, setup) = (program(&server), Setup::new(&server));
        let registry = jobs::registry().on_raw("test.other", |_, ctx: streamhand::Context| async move {
            let mut redis = ctx.redis().await?;
            redis::cmd("INCR").arg("test:others").query_async::<()>(&mut redis).await?;
            Ok(())
        });
        cli.run(&["pause", "jobs", "--handler", "test.job"]).await.ok();
        let worker = setup.start_with(registry);
        let add_others = async |redis: &mut MultiplexedConnection| {
            let mut pipe = redis::pipe();
            (0..50).for_each(|_| {
                pipe.cmd("XADD").arg("jobs").arg("*").arg("type").arg("test.other").ignore();
            });
            pipe.query_async::<()>(redis).await.unwrap();
        };
        add_others(&mut redis).await;
        jobs::publish(&mut redis, "jobs", &many("job", 300, &Action::Succeed)).await;
        add_others(&mut redis).await;
        eventually(PATIENCE, "the others to be handled", async || {
            let others: Option<u32> = redis::cmd("GET").arg("test:others").query_async(&mut redis).await.unwrap();
            others == Some(100)
        })
        .await;
        passes(Duration::from_millis(500)).await;
        assert_eq!(done(&mut redis).await, 0);
        let text = cli.run(&["status"]).await.ok();
        assert!(text.contains("test.job paused"), "{text}");
        let resumed = Instant::now();
        cli.run(&["resume", "jobs", "--handler", "test.job"]).await.ok();
        settled(&mut redis, "jobs", PATIENCE).await;
        assert!(resumed.elapsed() < Duration::from_secs(3), "after {:?}", resumed.elapsed());
        assert_eq!(done(&mut redis).await, 300);
        assert!(jobs::started(&mut redis).await.iter().all(|trace| trace.attempt == 1));
        worker.stop().await;
    }

    /// With nobody there to resume it. A longer end can be given meanwhile, and it survives with who paused it.
    async fn a_pause_with_an_end_is_over_by_itself(server: Server) {
        let mut redis = server.connect().await;
        let (cli, setup) = (program(&server), Setup::new(&server));
        let said = cli.run(&["pause", "jobs", "--for", "50ms", "--by", "alice", "--reason", "deploy \"417\""]).await.ok();
        assert!(said.starts_with("paused: jobs, for all workers of workers, until 2"), "{said}");
        passes(Duration::from_millis(60)).await;
        // It is over though no worker has seen it, and can be paused anew.
        let text = cli.run(&["status"]).await.ok();
        assert!(!text.contains("paused"), "{text}");
        cli.run(&["pause", "jobs", "--for", "1h", "--by", "alice", "--reason", "deploy \"417\""]).await.ok();
        cli.run(&["pause", "jobs", "--handler", "test.other"]).await.ok();
        jobs::publish(&mut redis, "jobs", &many("job", 300, &Action::Succeed)).await;
        let workers = [setup.process(), setup.process()];
        passes(Duration::from_secs(2)).await;
        assert_eq!(jobs::started(&mut redis).await.len(), 0);
        let text = cli.run(&["status"]).await.ok();
        assert!(text.contains("by alice (deploy \"417\"): `shop resume jobs` goes on with it; it ends by itself at 2"), "{text}");
        let said = cli.run(&["pause", "jobs", "--by", "bob"]).await.ok();
        assert!(said.starts_with("paused already: jobs, until 2"), "{said}");
        let ends = Instant::now();
        let said = cli.run(&["pause", "jobs", "--for", "1s", "--by", "bob"]).await.ok();
        assert!(said.starts_with("paused already: jobs, until 2"), "{said}");
        settled(&mut redis, "jobs", PATIENCE).await;
        assert!(ends.elapsed() >= Duration::from_secs(1), "after {:?}", ends.elapsed());
        assert_eq!(done(&mut redis).await, 300);
        assert!(jobs::started(&mut redis).await.iter().all(|trace| trace.attempt == 1), "no attempt was used up");
        let left: Vec<String> = redis::cmd("HKEYS").arg("{jobs}:workers:paused").query_async(&mut redis).await.unwrap();
        assert_eq!(left, ["handler:test.other"]);
        for wrong in ["0s", "400d", "soon"] {
            assert_ne!(cli.run(&["pause", "jobs", "--for", wrong]).await.code, 0, "{wrong}");
        }
        drop(workers);
    }

    async fn what_is_due_waits_for_a_paused_stream(server: Server) {
        let mut redis = server.connect().await;
        let (cli, setup) = (program(&server), Setup::new(&server));
        let worker = setup.start();
        jobs::publish(&mut redis, "jobs", &[Job::new("fails", Action::Fail(2))]).await;
        eventually(PATIENCE, "it to fail", async || jobs::starts_of(&mut redis, "fails").await >= 1).await;
        cli.run(&["pause", "jobs"]).await.ok();
        passes(Duration::from_secs(2)).await;
        let starts = jobs::starts_of(&mut redis, "fails").await;
        assert!(starts < 3, "it had run {starts} times before it was paused");
        passes(Duration::from_secs(1)).await;
        assert_eq!(jobs::starts_of(&mut redis, "fails").await, starts);
        cli.run(&["resume", "jobs"]).await.ok();
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::starts_of(&mut redis, "fails").await, 3);
        worker.stop().await;
    }

    async fn wrong_names_are_told(server: Server) {
        let cli = program(&server);
        let said = cli.run(&["pause", "jobs", "--handler", "No Such"]).await.failed(2);
        assert!(said.contains("the event type \"No Such\""), "{said}");
        let said = cli.run(&["pause", "j{o}b}s"]).await.failed(2);
        assert!(said.contains("the stream name"), "{said}");
        let ran = cli.run(&["pause", "jods"]).await;
        assert!(ran.err.contains("worker.streams does not name jods"), "{ran:?}");
    }

    /// The worker has seen nothing but the paused type since it started.
    async fn others_behind_a_paused_type_come_at_once_and_it_is_moved_once(server: Server) {
        let mut redis = server.connect().await;
        let (cli, setup) = (program(&server), Setup::new(&server));
        cli.run(&["pause", "jobs", "--handler", "test.job"]).await.ok();
        jobs::publish(&mut redis, "jobs", &many("job", 100, &Action::Succeed)).await;
        let mut other = redis::cmd("XADD");
        other.arg("jobs").arg("*").arg("type").arg("test.other");
        let _: String = other.query_async(&mut redis).await.unwrap();
        jobs::publish(&mut redis, "jobs", &many("later", 3_000, &Action::Succeed)).await;
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let registry = jobs::registry().on_raw("test.other", move |_, _| {
            let _ = tell.send(());
            async { Ok(()) }
        });
        let since = Instant::now();
        let worker = setup.start_with(registry);
        tokio::time::timeout(PATIENCE, told.recv()).await.expect("the other to be handled");
        assert!(since.elapsed() < Duration::from_secs(5), "after {:?}", since.elapsed());
        passes(Duration::from_secs(2)).await;
        let records: Vec<String> = redis::cmd("HVALS").arg("{jobs}:workers:failures").query_async(&mut redis).await.unwrap();
        let given_back = |record: &String| record.split(' ').nth(1).unwrap().parse::<u32>().unwrap();
        println!("{} were put back", records.len());
        assert!((100..=200).contains(&records.len()), "{} were put back", records.len());
        assert!(records.iter().all(|record| given_back(record) == 1), "moved again and again: {records:?}");
        assert_eq!(jobs::started(&mut redis).await.len(), 0);
        cli.run(&["resume", "jobs", "--handler", "test.job"]).await.ok();
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(done(&mut redis).await, 3_100);
        worker.stop().await;
    }

    /// What the worker knows of the entries that come next is of no use then.
    async fn others_that_come_again_before_a_paused_type_are_found(server: Server) {
        let mut redis = server.connect().await;
        let (cli, setup) = (program(&server), Setup::new(&server));
        cli.run(&["pause", "jobs", "--handler", "test.job"]).await.ok();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let registry = jobs::registry().on_raw("test.other", move |_, _| {
            let _ = tell.send(());
            async { Ok(()) }
        });
        let worker = setup.start_with(registry);
        let mut other = redis::cmd("XADD");
        other.arg("jobs").arg("*").arg("type").arg("test.other");
        let first: String = other.query_async(&mut redis).await.unwrap();
        tokio::time::timeout(PATIENCE, told.recv()).await.expect("the other to be handled");
        jobs::publish(&mut redis, "jobs", &many("job", 100, &Action::Succeed)).await;
        passes(Duration::from_secs(2)).await;
        let mut set_back = redis::cmd("XGROUP");
        set_back.arg("SETID").arg("jobs").arg("workers").arg("0");
        let () = set_back.query_async(&mut redis).await.unwrap();
        tokio::time::timeout(PATIENCE, told.recv()).await.unwrap_or_else(|_| panic!("{first} does not come again"));
        assert_eq!(jobs::started(&mut redis).await.len(), 0);
        worker.stop().await;
    }
}
