//! A graceful stop finishes what runs, releases what has not started, and repeats nothing.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::jobs::{self, Action, Job, many};
use crate::support::letters::{DEAD, bury_many};
use crate::support::{Cli, Server, Setup, eventually, pending, settled};

const PATIENCE: Duration = Duration::from_secs(30);

on_both_servers! {
    async fn under_load_no_finished_work_is_done_again_in_ten_stops(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server)
            .worker("concurrency = 8")
            .worker("lease = \"30s\"")
            .worker("drain = \"5s\"");
        let all = many("job", 5_000, &Action::Take(5));
        jobs::publish(&mut redis, "jobs", &all).await;
        for _ in 0..10 {
            let done = jobs::ended(&mut redis).await.len();
            let mut worker = setup.process();
            eventually(PATIENCE, "some work to be done", async || jobs::ended(&mut redis).await.len() > done + 200).await;
            worker.terminate();
            let asked = Instant::now();
            let status = worker.wait(PATIENCE).await;
            assert_eq!(status.code(), Some(0), "{}", worker.log());
            assert!(asked.elapsed() < Duration::from_secs(5), "exited after {:?}", asked.elapsed());
        }
        let last = setup.start();
        settled(&mut redis, "jobs", PATIENCE * 2).await;
        last.stop().await;
        let handled = jobs::handled(&mut redis).await;
        assert_eq!(handled.keys().cloned().collect::<std::collections::BTreeSet<_>>(), jobs::ids(&all));
        let twice: Vec<_> = handled.into_iter().filter(|(_, times)| *times > 1).collect();
        assert!(twice.is_empty(), "done again: {twice:?}");
        // What was released unstarted has used up no attempt.
        let attempts: Vec<_> = jobs::started(&mut redis).await.into_iter().filter(|trace| trace.attempt > 1).collect();
        assert!(attempts.is_empty(), "{attempts:?}");
    }

    async fn what_was_not_started_is_taken_up_by_others_at_once(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).worker("lease = \"30s\"").worker("concurrency = 1");
        let mut leaving = setup.process();
        leaving.wait_for_log("the group is new", PATIENCE).await;
        // Fast ones first: the worker learns to read ahead, and then holds what it can't start.
        let mut all = many("fast", 2_000, &Action::Succeed);
        all.push(Job::new("slow", Action::Take(3_000)));
        all.extend(many("behind", 200, &Action::Succeed));
        jobs::publish(&mut redis, "jobs", &all).await;
        eventually(PATIENCE, "the slow job to run", async || jobs::starts_of(&mut redis, "slow").await == 1).await;
        let other = setup.start();
        let held: u64 = pending(&mut redis, "jobs").await.iter().map(|(_, count)| count).sum();
        assert!(held > 20, "only {held} wait behind it");
        leaving.terminate();
        let stopped = Instant::now();
        eventually(PATIENCE, "the jobs behind it to be done", async || {
            let ended = jobs::ended(&mut redis).await;
            ended.iter().filter(|trace| trace.id.starts_with("behind")).count() == 200
        })
        .await;
        assert!(stopped.elapsed() < Duration::from_millis(2_500), "after {:?}", stopped.elapsed());
        assert!(leaving.wait(PATIENCE).await.success());
        settled(&mut redis, "jobs", PATIENCE).await;
        other.stop().await;
        for trace in jobs::started(&mut redis).await {
            assert_eq!(trace.attempt, 1, "{trace:?}");
        }
        assert!(jobs::handled(&mut redis).await.values().all(|times| *times == 1));
        let consumers: redis::streams::StreamInfoConsumersReply =
            redis::cmd("XINFO").arg("CONSUMERS").arg("jobs").arg("workers").query_async(&mut redis).await.unwrap();
        assert!(consumers.consumers.iter().all(|consumer| consumer.name == "(parked)"), "{consumers:?}");
    }

    async fn a_handler_that_outlasts_the_drain_time_is_cut_off_and_given_back(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).worker("drain = \"1s\"").worker("lease = \"30s\"");
        let mut leaving = setup.process();
        leaving.wait_for_log("the group is new", PATIENCE).await;
        jobs::publish(&mut redis, "jobs", &[Job::new("hangs", Action::Hang), Job::new("told", Action::UntilTold)]).await;
        eventually(PATIENCE, "both to run", async || jobs::started(&mut redis).await.len() == 2).await;
        leaving.terminate();
        let asked = Instant::now();
        assert!(leaving.wait(PATIENCE).await.success(), "{}", leaving.log());
        assert!(asked.elapsed() < Duration::from_secs(3), "exited after {:?}", asked.elapsed());
        assert_eq!(jobs::ended(&mut redis).await[0].told, "Stopping");
        let other = setup.start();
        eventually(PATIENCE, "both to run elsewhere", async || jobs::started(&mut redis).await.len() == 4).await;
        assert!(jobs::started(&mut redis).await.iter().all(|trace| trace.attempt == 1));
        drop(other);
    }

    async fn a_second_signal_exits_at_once(server: Server) {
        let mut redis = server.connect().await;
        let mut worker = Setup::new(&server).worker("drain = \"60s\"").process();
        worker.wait_for_log("the group is new", PATIENCE).await;
        jobs::publish(&mut redis, "jobs", &[Job::new("hangs", Action::Hang)]).await;
        eventually(PATIENCE, "it to run", async || jobs::started(&mut redis).await.len() == 1).await;
        worker.terminate();
        worker.wait_for_log("stopping", PATIENCE).await;
        // Within a second it would be the same one.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        assert!(!worker.has_ended());
        worker.interrupt();
        let asked = Instant::now();
        assert_eq!(worker.wait(PATIENCE).await.code(), Some(1));
        assert!(asked.elapsed() < Duration::from_secs(1), "exited after {:?}", asked.elapsed());
    }

    async fn signals_within_a_second_are_one(server: Server) {
        let mut redis = server.connect().await;
        let mut worker = Setup::new(&server).process();
        worker.wait_for_log("the group is new", PATIENCE).await;
        jobs::publish(&mut redis, "jobs", &[Job::new("slow", Action::Take(2_000))]).await;
        eventually(PATIENCE, "it to run", async || jobs::started(&mut redis).await.len() == 1).await;
        // As a supervisor does that signals the process and its group; and a shell, at Ctrl-C.
        worker.terminate();
        worker.wait_for_log("stopping", PATIENCE).await;
        worker.terminate();
        worker.interrupt();
        assert_eq!(worker.wait(PATIENCE).await.code(), Some(0), "{}", worker.log());
        assert_eq!(jobs::handled(&mut redis).await.get("slow"), Some(&1));
    }

    async fn a_closed_terminal_stops_gracefully(server: Server) {
        let mut redis = server.connect().await;
        let mut worker = Setup::new(&server).worker("lease = \"30s\"").worker("concurrency = 1").process();
        worker.wait_for_log("the group is new", PATIENCE).await;
        jobs::publish(&mut redis, "jobs", &[Job::new("slow", Action::Take(1_000))]).await;
        eventually(PATIENCE, "it to run", async || jobs::started(&mut redis).await.len() == 1).await;
        worker.hang_up();
        assert_eq!(worker.wait(PATIENCE).await.code(), Some(0), "{}", worker.log());
        assert_eq!(jobs::handled(&mut redis).await.get("slow"), Some(&1));
        assert_eq!(crate::support::all_pending(&mut redis).await, Vec::<String>::new());
    }

    async fn whoever_is_to_outlive_its_terminal_does(server: Server) {
        let cli = Cli::new(&server, "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]");
        let program = crate::support::PROGRAM;
        let mut command = tokio::process::Command::new("sh");
        // What `nohup` does.
        command.args(["-c", "trap '' HUP; exec \"$0\" --config \"$1\" run", program])
            .arg(cli.file("config.toml")).stderr(Stdio::piped()).kill_on_drop(true);
        let mut worker = command.spawn().unwrap();
        let mut log = BufReader::new(worker.stderr.take().unwrap()).lines();
        while let Some(line) = log.next_line().await.unwrap() {
            if line.contains("the group is new") {
                break;
            }
        }
        let pid = Pid::from_raw(worker.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
        let stays = tokio::time::timeout(Duration::from_millis(500), worker.wait()).await;
        assert!(stays.is_err(), "{stays:?}");
        kill_process(pid, Signal::TERM).unwrap();
        assert_eq!(worker.wait().await.unwrap().code(), Some(0));
    }

    async fn commands_that_take_long_stop_by_any_signal_and_say_how_far_they_are(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 100).await;
        let cli = Cli::new(&server, "");
        for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
            let replaying = cli.command(&["dlq", "replay", "--all", "--rate", "5"]).spawn().unwrap();
            let before: u64 = redis::cmd("XLEN").arg(DEAD).query_async(&mut redis).await.unwrap();
            eventually(PATIENCE, "some to be replayed", async || {
                let left: u64 = redis::cmd("XLEN").arg(DEAD).query_async(&mut redis).await.unwrap();
                left < before
            })
            .await;
            let pid = Pid::from_raw(replaying.id().unwrap().cast_signed()).unwrap();
            kill_process(pid, signal).unwrap();
            let output = replaying.wait_with_output().await.unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{signal:?}: {said}");
            assert!(said.starts_with("error: stopped\nreplayed ") && said.contains("run it again to go on"), "{said}");
        }
    }
}
