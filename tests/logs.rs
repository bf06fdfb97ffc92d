//! Nobody who logs waits for the log's reader, and a log that can't be written harms nothing.

use std::fs::File;
use std::io::{PipeReader, Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use streamhand::{Context, Event, Registry};
use tokio::process::{Child, Command};

use crate::support::jobs::{self, Action, Job};
use crate::support::letters::bury_many;
use crate::support::{Cli, Server, Setup, WorkerProcess, eventually, run_program, settled};

const PATIENCE: Duration = Duration::from_secs(30);

/// What entries say of their trace.
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Logs so many lines.
#[derive(serde::Serialize, serde::Deserialize)]
struct Noise(u64);

impl Event for Noise {
    const TYPE: &'static str = "test.noise";
}

/// The program: the tests' handlers, and one that says a lot.
#[test]
#[ignore = "run by other tests"]
fn program() {
    let noise = async |noise: Noise, _: Context| {
        for line in 0..noise.0 {
            tracing::info!(line, "noise");
        }
        Ok::<_, streamhand::Failure>(())
    };
    run_program(streamhand::cli::Program::new(
        Registry::new().on(noise).on(jobs::handle),
    ));
}

/// A worker that logs to `errors`.
fn worker(setup: &Setup, errors: impl Into<Stdio>) -> (Cli, Child) {
    let cli = Cli::at("redis://unused", "")
        .with_nothing_set()
        .of_test("logs::program");
    std::fs::write(cli.file("config.toml"), setup.toml()).unwrap();
    let mut command = cli.command(&["run"]);
    let child = started(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors),
    );
    (cli, child)
}

fn started(command: &mut Command) -> Child {
    command.spawn().expect("the program to start")
}

async fn terminated(mut worker: Child) -> Option<i32> {
    let pid = Pid::from_raw(worker.id().expect("it runs").cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let ended = tokio::time::timeout(PATIENCE, worker.wait()).await;
    ended.expect("it to end").unwrap().code()
}

/// A pipe that is full: who writes to it waits until somebody reads.
fn full_pipe() -> (PipeReader, File) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut writer = File::from(std::os::fd::OwnedFd::from(writer));
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[b'.'; 512]).is_ok() {}
    while writer.write(b".").is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

on_both_servers! {
    async fn a_log_that_cannot_be_written_does_not_end_its_worker(server: Server) {
        let mut redis = server.connect().await;
        let (gone, broken) = std::io::pipe().unwrap();
        drop(gone);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut all = 0;
        for errors in [Stdio::from(full), Stdio::from(broken)] {
            let (_cli, worker) = worker(&Setup::new(&server).worker("lease = \"30s\""), errors);
            let jobs = [("fine", Action::Succeed), ("again", Action::Fail(1)), ("panics", Action::Panic)];
            let jobs = jobs.map(|(id, action)| Job::new(format!("{id}-{all}"), action));
            jobs::publish(&mut redis, "jobs", &jobs).await;
            all += jobs.len() - 1;
            eventually(PATIENCE, "all but the one that panics to be done", async || {
                jobs::handled(&mut redis).await.len() == all
            })
            .await;
            assert_eq!(terminated(worker).await, Some(0));
        }
    }

    async fn a_reader_of_the_log_that_stalls_holds_nothing_up(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).retry("max_attempts = 2");
        let (reader, full) = full_pipe();
        let (_cli, worker) = worker(&setup, full);
        // Longer than a lease of two seconds: somebody has to renew it. What panics is told of on the same output.
        let slow: Vec<Job> = (0..8).map(|n| Job::new(format!("slow-{n}"), Action::Take(5_000))).collect();
        let panics: Vec<Job> = (0..8).map(|n| Job::new(format!("panics-{n}"), Action::Panic)).collect();
        jobs::publish(&mut redis, "jobs", &slow).await;
        jobs::publish(&mut redis, "jobs", &panics).await;
        eventually(PATIENCE, "all to start", async || jobs::started(&mut redis).await.len() >= 16).await;
        // It would take over what is not renewed.
        let other = setup.start();
        eventually(PATIENCE, "the slow ones to be done", async || jobs::handled(&mut redis).await.len() == 8).await;
        let asked = Instant::now();
        assert_eq!(terminated(worker).await, Some(0));
        assert!(asked.elapsed() < Duration::from_secs(10), "exited after {:?}", asked.elapsed());
        settled(&mut redis, "jobs", PATIENCE).await;
        other.stop().await;
        let again: Vec<_> = jobs::started(&mut redis).await.into_iter()
            .filter(|trace| trace.id.starts_with("slow") && trace.attempt > 1)
            .collect();
        assert!(again.is_empty(), "run twice: {again:?}");
        drop(reader);
    }

    async fn lines_that_found_no_room_are_counted(server: Server) {
        let mut redis = server.connect().await;
        let (mut reader, full) = full_pipe();
        let (_cli, worker) = worker(&Setup::new(&server), full);
        const LINES: u64 = 40_000;
        let data = LINES.to_string();
        let () = redis::cmd("XADD").arg("jobs").arg("*").arg(&["type", Noise::TYPE, "data", &data])
            .query_async(&mut redis).await.unwrap();
        // Nobody reads, and yet it is handled.
        eventually(PATIENCE, "it to be handled", async || {
            let groups: Vec<std::collections::HashMap<String, redis::Value>> =
                redis::cmd("XINFO").arg("GROUPS").arg("jobs").query_async(&mut redis).await.unwrap_or_default();
            groups.iter().any(|group| group.get("entries-read") == Some(&redis::Value::Int(1))
                && group.get("pending") == Some(&redis::Value::Int(0)))
        })
        .await;
        let reading = tokio::task::spawn_blocking(move || {
            let mut log = Vec::new();
            reader.read_to_end(&mut log).unwrap();
            String::from_utf8_lossy(&log).into_owned()
        });
        // What is read makes room, and then the count is told; the last line is there as well.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(terminated(worker).await, Some(0));
        let log = reading.await.unwrap();
        let noise = log.lines().filter(|line| line.contains("noise")).count() as u64;
        let told = regex::Regex::new(r"lines of the log were lost.*lost=(\d+)").unwrap();
        let lost: u64 = told.captures_iter(&log).map(|found| found[1].parse::<u64>().unwrap()).sum();
        assert!(noise > 1_000, "the queue holds some: {noise}");
        assert!(noise + lost >= LINES, "{noise} seen and {lost} lost of {LINES}");
        assert!(log.contains(" stopped "), "the last line is missing:\n{}", &log[log.len().saturating_sub(1_000)..]);
    }

    async fn data_that_finds_no_room_is_an_error_and_no_panic(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 3).await;
        let cli = Cli::new(&server, "");
        for command in ["--help", "dlq --help", "--version", "completions bash", "config show", "config check", "status", "status --json",
            "dlq list", "dlq list --json", "dlq stats", "dlq replay --all --dry-run", "scheduled list --json",
            "publish orders order.created {}"] {
            let args: Vec<&str> = command.split(' ').collect();
            let full = File::options().write(true).open("/dev/full").unwrap();
            let output = started(cli.command(&args).stdout(full).stdin(Stdio::null())).wait_with_output().await.unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{command}: {errors}");
            assert!(errors.contains("can't write to standard output: No space left"), "{command}: {errors}");
        }
    }

    async fn a_reader_of_errors_that_stalls_does_not_keep_a_command_from_ending(server: Server) {
        let cli = Cli::new(&server, "");
        for (command, code) in [("status", 0), ("dlq show 1-1", 1), ("dlq shwo", 2), ("publish orders order.created {", 2)] {
            let args: Vec<&str> = command.split(' ').collect();
            let (reader, full) = full_pipe();
            let mut ending = started(cli.command(&args).stderr(full).stdout(Stdio::null()).stdin(Stdio::null()));
            let ended = tokio::time::timeout(PATIENCE, ending.wait()).await.unwrap_or_else(|_| panic!("{command} hangs"));
            assert_eq!(ended.unwrap().code(), Some(code), "{command}");
            drop(reader);
        }
    }

    async fn lines_about_an_entry_say_which_event_it_is_and_where(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).handler("deduplicate = \"1h\"").retry("backoff = { initial = \"1500ms\" }");
        let mut worker = WorkerProcess::builder()
            .config(&setup.toml())
            .env("STREAMHAND_LOG", "streamhand=debug,warn")
            .env("STREAMHAND_LOG_FORMAT", "json")
            .start();
        worker.wait_for_log("the group is new", PATIENCE).await;
        let job = |action| serde_json::to_string(&Job::new("job", action)).unwrap();
        let mut expected = std::collections::BTreeSet::new();
        for (id, event_type, data, line) in [
            ("e-fine", "test.job", job(Action::Succeed), "handled"),
            ("e-fine", "test.job", job(Action::Succeed), "a copy of an event"),
            ("e-again", "test.job", job(Action::Fail(1)), "failed: asked to fail"),
            ("e-later", "test.job", job(Action::Later(1)), "released: "),
            ("e-long", "test.job", job(Action::LaterThanThereIs), "a handler asked for a longer delay than there is"),
            ("e-late", "test.job", job(Action::EmitAfterCommit), "emitted, or an effect asked for, after the commit"),
            ("e-bad", "test.job", job(Action::FailForGood), "to the dead letters: asked to fail"),
            ("e-garbled", "test.job", "{".to_owned(), "to the dead letters: "),
            ("e-unknown", "test.unknown", "{}".to_owned(), "released: "),
        ] {
            let fields = ["type", event_type, "id", id, "data", &data, "traceparent", TRACEPARENT];
            let entry: String = redis::cmd("XADD").arg("jobs").arg("*").arg(&fields).query_async(&mut redis).await.unwrap();
            expected.insert((entry.clone(), id.to_owned(), line));
            // A copy is one once the first has succeeded.
            let begin = format!("\"message\":\"{line}");
            eventually(PATIENCE, line, async || {
                let log = worker.log();
                log.lines().any(|of| of.contains(&begin) && of.contains(&entry))
            })
            .await;
        }
        let log = worker.log();
        let duration = regex::Regex::new(r"^(\d+[dhms]+)( \d+[dhms]+)*$").unwrap();
        let (mut found, mut durations) = (expected.clone(), 0);
        for line in log.lines().filter_map(|line| line.find('{').map(|at| &line[at..])) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            for key in ["retry_in", "delay", "kept", "timeout", "by"] {
                if let Some(text) = line.get(key) {
                    assert!(duration.is_match(text.as_str().unwrap()), "{line}");
                    durations += 1;
                }
            }
            let Some(entry) = line.get("entry") else { continue };
            let which = expected.iter().find(|(known, ..)| entry == known).unwrap_or_else(|| panic!("{line}"));
            assert_eq!((&line["stream"], &line["event"]), (&"jobs".into(), &which.1[..].into()), "{line}");
            assert!(line["event_type"].as_str().is_some_and(|name| name.starts_with("test.")), "{line}");
            assert!(line["attempt"].as_u64().is_some_and(|attempt| attempt == 1 || attempt == 2 && which.1 == "e-again"), "{line}");
            assert_eq!(line["trace_id"], TRACEPARENT[3..35], "{line}");
            let message = line["message"].as_str().unwrap().to_owned();
            found.retain(|(of, _, begin)| entry != of || !message.starts_with(begin));
        }
        assert!(found.is_empty() && durations >= 2, "{durations}, not met: {found:?}\n{log}");
    }
}
