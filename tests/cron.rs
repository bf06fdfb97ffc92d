//! Crons: every occurrence comes once, whatever becomes of the workers and their clocks; what was missed, overlaps or is
//! declared anew is as it was asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use streamhand::config::{CatchUp, CronSettings};
use streamhand::{Context, Event, Failure, Registry, Settings, Worker};

use crate::support::jobs::{self, Action};
use crate::support::{Cli, Clock, Kind, Server, Setup, WorkerProcess, eventually};

const PATIENCE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

/// A cron called `tick`, of jobs that do this.
fn tick(schedule: &str, action: &Action, more: &str) -> String {
    let action = serde_json::to_value(action).unwrap();
    let action = match action {
        serde_json::Value::String(word) => format!("{word:?}"),
        serde_json::Value::Object(of) => {
            let (word, value) = of.iter().next().unwrap();
            format!("{{ {word} = {value} }}")
        }
        other => panic!("{other}"),
    };
    format!(
        "[cron.tick]\nschedule = {schedule:?}\ntype = \"test.job\"\n{more}\n\
         data = {{ id = \"tick\", action = {action} }}\n"
    )
}

/// The fields of the stream's entries, in their order.
async fn events(redis: &mut MultiplexedConnection, stream: &str) -> Vec<BTreeMap<String, String>> {
    let entries: Vec<(String, BTreeMap<String, String>)> = redis::cmd("XRANGE")
        .arg(stream)
        .arg("-")
        .arg("+")
        .query_async(redis)
        .await
        .unwrap();
    entries.into_iter().map(|(_, fields)| fields).collect()
}

/// What the stream's events are for: local times.
async fn due(redis: &mut MultiplexedConnection) -> Vec<String> {
    let events = events(redis, "jobs").await;
    events
        .into_iter()
        .map(|event| event["crondue"].clone())
        .collect()
}

/// What Redis has of the cron.
async fn record(redis: &mut MultiplexedConnection) -> BTreeMap<String, String> {
    let kept: Option<String> = redis.hget("{jobs}:cron", "tick").await.unwrap();
    kept.map(|kept| serde_json::from_str(&kept).unwrap())
        .unwrap_or_default()
}

async fn planned(redis: &mut MultiplexedConnection) {
    eventually(PATIENCE, "the cron to be planned", async || {
        !record(redis).await.is_empty()
    })
    .await;
}

/// The seconds of the day that times of UTC stand for.
fn seconds(times: &[String]) -> Vec<u64> {
    let parse = |time: &String| {
        let clock = &time[11..19];
        let parts = clock.split(':').map(|part| part.parse::<u64>().unwrap());
        parts.fold(0, |all, part| all * 60 + part)
    };
    times.iter().map(parse).collect()
}

/// Whether they come one after the other, none twice and none left out.
fn follow(times: &[String], apart: u64) {
    let seconds = seconds(times);
    for two in seconds.windows(2) {
        assert_eq!((two[1] + 86_400 - two[0]) % 86_400, apart, "{times:?}");
    }
}

on_both_servers! {
    async fn every_occurrence_comes_once_whatever_workers_die_and_what_their_clocks_show(kind: Kind) {
        let server = Server::builder(kind).start().await;
        let mut redis = server.connect().await;
        let toml = Setup::new(&server).more(&tick("every 1s", &Action::Nothing, "")).toml();
        let clocks = [Duration::ZERO, HOUR, 40 * HOUR];
        let clocks: Vec<Clock> = clocks.map(|by| {
            let clock = Clock::new();
            clock.behind(by);
            clock
        }).into();
        let start = |clock: &Clock| {
            let [(preload, library), (name, file)] = clock.env();
            WorkerProcess::builder().config(&toml).env(preload, library).env(name, file).start()
        };
        let mut workers: Vec<_> = clocks.iter().map(start).collect();
        for turn in 0..5 {
            eventually(PATIENCE, "one more", async || due(&mut redis).await.len() > turn).await;
            let at = turn % workers.len();
            // One moment after another around the turn of a second.
            tokio::time::sleep(Duration::from_millis(190 * turn as u64)).await;
            workers[at].kill();
            workers[at] = start(&clocks[at]);
        }
        eventually(PATIENCE, "more of them", async || due(&mut redis).await.len() >= 8).await;
        let times = due(&mut redis).await;
        follow(&times, 1);
        let event = events(&mut redis, "jobs").await.remove(0);
        assert_eq!(event["id"], format!("cron:tick:{}", event["crondue"]));
        assert_eq!(event["cronname"], "tick");
        assert!(event["cronlate"].parse::<u64>().unwrap() < 30_000, "{event:?}");
        assert!(event["crondue"].ends_with("[UTC]"), "{event:?}");
    }

    async fn three_hours_without_a_worker_are_none_the_last_or_all(kind: Kind) {
        for (catch_up, come) in [("none", &[][..]), ("last", &[3]), ("all", &[1, 2, 3])] {
            let clock = Clock::new();
            let server = Server::builder(kind).clock(&clock).start().await;
            let mut redis = server.connect().await;
            let more = format!("catch_up = {catch_up:?}");
            let setup = Setup::new(&server).more(&tick("every 1h", &Action::Nothing, &more));
            let worker = setup.start();
            planned(&mut redis).await;
            worker.stop().await;
            let first = record(&mut redis).await["at"].parse::<u64>().unwrap();
            let now = jobs::now_ms() / 1000;
            clock.ahead(Duration::from_secs(first - now + 2 * 3600 + 1200));
            let worker = setup.start();
            let next = (first + 3 * 3600).to_string();
            eventually(PATIENCE, "the next one to come", async || record(&mut redis).await["at"] == next).await;
            worker.stop().await;
            let times = due(&mut redis).await;
            let hours = |hour: &usize| first / 3600 * 3600 + (*hour as u64 - 1) * 3600;
            let expected: Vec<u64> = come.iter().map(|hour| hours(hour) % 86_400).collect();
            assert_eq!(seconds(&times), expected, "{catch_up}: {times:?}");
            let lines: String = redis.hget("{jobs}:cron", "tick:log").await.unwrap();
            assert_eq!(lines.contains(" missed "), come.len() < 3, "{lines}");
        }
    }

    async fn a_newer_release_replaces_what_is_next_and_an_older_one_does_not_flip_it_back(server: Server) {
        let mut redis = server.connect().await;
        let start = |schedule: &str, release: &str| {
            let toml = Setup::new(&server).more(&tick(schedule, &Action::Nothing, "")).toml();
            let settings = Settings::from_toml_str(&toml).unwrap();
            let worker = Worker::new(settings, jobs::registry()).unwrap().version(release);
            tokio::spawn(worker.run(std::future::pending()))
        };
        let is = |record: &BTreeMap<String, String>, release: &str, minute: &str| {
            record["release"] == release && record["next"].contains(minute)
        };
        let old = start("17 */1 * * *", "1.9.0");
        planned(&mut redis).await;
        assert!(is(&record(&mut redis).await, "1.9.0", ":17:00"));
        let new = start("43 */1 * * *", "1.10.0");
        eventually(PATIENCE, "the newer one to hold", async || is(&record(&mut redis).await, "1.10.0", ":43:00")).await;
        let stand: Vec<String> = redis.zrange("{jobs}:scheduled", 0, -1).await.unwrap();
        assert_eq!(stand, [format!("cron:tick:{}", record(&mut redis).await["next"])]);
        // One of the older ones starts again in the middle of the deploy, and is heard: what it declares is behind.
        let again = start("17 */1 * * *", "1.9.0");
        eventually(PATIENCE, "it to have joined", async || {
            let consumers: Vec<redis::Value> = redis.xinfo_consumers("jobs", "workers").await.unwrap_or_default();
            consumers.len() >= 3
        }).await;
        assert!(is(&record(&mut redis).await, "1.10.0", ":43:00"));
        // Rolled back by a release that says so.
        let back = start("17 */1 * * *", "1.10.1");
        eventually(PATIENCE, "that to hold", async || is(&record(&mut redis).await, "1.10.1", ":17:00")).await;
        for worker in [old, new, again, back] {
            worker.abort();
        }
    }

    async fn while_the_one_before_is_parked_for_a_retry_the_next_is_left_out_or_waits(kind: Kind) {
        for overlap in ["skip", "queue"] {
            let server = Server::builder(kind).start().await;
            let mut redis = server.connect().await;
            let more = format!("overlap = {overlap:?}");
            let setup = Setup::new(&server)
                .retry("backoff = { initial = \"3s\", factor = 1.0, jitter = 0.0 }")
                .more(&tick("every 1s", &Action::Fail(1), &more));
            let worker = setup.start();
            eventually(PATIENCE, "the second to come", async || due(&mut redis).await.len() >= 2).await;
            worker.stop().await;
            let times = seconds(&due(&mut redis).await);
            let apart = (times[1] + 86_400 - times[0]) % 86_400;
            let lines: String = redis.hget("{jobs}:cron", "tick:log").await.unwrap();
            if overlap == "skip" {
                assert!(apart >= 3, "{times:?}");
                assert!(lines.contains(" overlap "), "{lines}");
            } else {
                assert_eq!(apart, 1, "it waited: {times:?}");
                let late = &events(&mut redis, "jobs").await[1]["cronlate"];
                assert!(late.parse::<u64>().unwrap() >= 1500, "{late}");
            }
        }
    }

    async fn a_cron_that_nobody_declares_is_suspended_and_goes_on_when_somebody_does(kind: Kind) {
        let clock = Clock::new();
        let server = Server::builder(kind).clock(&clock).start().await;
        let mut redis = server.connect().await;
        let declares = Setup::new(&server).more(&tick("every 1h", &Action::Nothing, "catch_up = \"last\""));
        let worker = declares.start();
        planned(&mut redis).await;
        worker.stop().await;
        clock.ahead(2 * HOUR);
        let worker = Setup::new(&server).start();
        eventually(PATIENCE, "it to be suspended", async || record(&mut redis).await["state"] == "suspended").await;
        let stand: u64 = redis.zcard("{jobs}:scheduled").await.unwrap();
        assert_eq!((stand, due(&mut redis).await.len()), (0, 0));
        let declaring = declares.start();
        eventually(PATIENCE, "the last one to come", async || due(&mut redis).await.len() == 1).await;
        declaring.stop().await;
        worker.stop().await;
    }

    async fn a_partitioned_topic_has_its_occurrences_on_one_partition_that_goes_by_the_name(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server)
            .stream("partitions = 4")
            .more(&tick("every 1s", &Action::Nothing, ""));
        let worker = setup.start();
        let mut found = Vec::new();
        eventually(PATIENCE, "three of them", async || {
            found.clear();
            for number in 0..4 {
                let of_it = events(&mut redis, &format!("{{jobs:{number}}}")).await;
                found.push(of_it.into_iter().map(|event| event["crondue"].clone()).collect::<Vec<_>>());
            }
            found.iter().map(Vec::len).sum::<usize>() >= 3
        }).await;
        worker.stop().await;
        found.retain(|times| !times.is_empty());
        assert_eq!(found.len(), 1, "{found:?}");
        follow(&found[0], 1);
    }

    async fn a_program_makes_the_events_of_its_own_crons(server: Server) {
        #[derive(Serialize, Deserialize)]
        struct ReportDue { day: String, zone: String }
        impl Event for ReportDue {
            const TYPE: &'static str = "report.due";
        }
        let mut redis = server.connect().await;
        let settings = CronSettings::new("every 1s").zone("Asia/Tokyo").subject("s-1").catch_up(CatchUp::Last);
        let registry = Registry::new()
            .on(async |report: ReportDue, ctx: Context| {
                let due = ctx.envelope().field("crondue").unwrap_or_default();
                let is_it = due.starts_with(&report.day) && due.ends_with(&format!("[{}]", report.zone));
                ctx.redis().await?.rpush::<_, _, ()>("seen", is_it).await?;
                Ok::<(), Failure>(())
            })
            .cron("tick", settings, |due| ReportDue {
                day: due.date().to_owned(),
                zone: due.zone().to_owned(),
            });
        let worker = Setup::new(&server).start_with(registry);
        eventually(PATIENCE, "two of them", async || {
            let seen: Vec<bool> = redis.lrange("seen", 0, -1).await.unwrap();
            assert!(seen.iter().all(|is_it| *is_it));
            seen.len() >= 2
        }).await;
        worker.stop().await;
        let event = events(&mut redis, "jobs").await.remove(0);
        assert_eq!((&event["type"][..], &event["subject"][..]), ("report.due", "s-1"));
    }
}

on_both_servers! {
    async fn the_program_lists_looks_ahead_pauses_triggers_fills_in_and_tells(server: Server) {
        let mut redis = server.connect().await;
        let crons = tick("every 1s", &Action::Nothing, "")
            + "[cron.nightly]\nschedule = \"30 2 * * *\"\nzone = \"Europe/Berlin\"\ntype = \"test.job\"\n";
        let toml = format!("[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n{crons}");
        let cli = Cli::new(&server, &toml);
        // What is declared is told without a worker.
        let next = cli.run(&["cron", "next", "nightly", "--count", "400", "--json"]).await;
        let next: serde_json::Value = serde_json::from_str(&next.out).unwrap();
        let clock: Vec<&str> = next.as_array().unwrap().iter().filter_map(|next| next["clock"].as_str()).collect();
        assert!(clock.contains(&"left_out") && clock.contains(&"first"), "{clock:?}");
        assert!(cli.run(&["cron", "list"]).await.err.contains("no cron is known"));
        let worker = Setup::new(&server).more(&crons).start();
        eventually(PATIENCE, "two of them", async || due(&mut redis).await.len() >= 2).await;
        let list = cli.run(&["cron", "list"]).await.out;
        assert!(list.contains("every 1s") && list.contains("[Europe/Berlin]") && list.contains("runs"), "{list}");

        let paused = cli.run(&["cron", "pause", "tick", "--for", "1h", "--note", "year end", "--by", "eve"]).await;
        assert!(paused.out.contains("by eve: year end"), "{paused:?}");
        let begun = due(&mut redis).await.len();
        eventually(PATIENCE, "it to be left out", async || {
            let lines: String = redis.hget("{jobs}:cron", "tick:log").await.unwrap();
            lines.matches(" paused ").count() >= 2
        }).await;
        assert!(due(&mut redis).await.len() <= begun + 1);
        assert!(cli.run(&["status"]).await.out.contains("cron tick: paused"));
        let triggered = cli.run(&["cron", "trigger", "tick"]).await.out;
        assert!(triggered.starts_with("published cron:tick:manual:"), "{triggered}");
        assert!(cli.run(&["cron", "resume", "tick"]).await.out.contains("resumed: tick"));
        assert!(cli.run(&["cron", "resume", "tick"]).await.out.contains("not paused: tick"));
        let missed = ["cron", "backfill", "nightly", "--from", "2026-03-28", "--to", "2026-03-31"];
        let dry = cli.run(&[&missed[..], &["--dry-run"]].concat()).await;
        assert_eq!(dry.out.lines().count(), 3, "{dry:?}");
        assert_eq!(cli.run(&missed).await.out, "published 3 events\n");
        let filled = events(&mut redis, "jobs").await;
        let filled: Vec<&str> = filled.iter().filter(|it| it["cronname"] == "nightly").map(|it| &it["id"][..]).collect();
        assert_eq!(filled[1], "cron:nightly:2026-03-29T02:30:00[Europe/Berlin]");
        let history = cli.run(&["cron", "history", "tick", "--limit", "1000"]).await.out;
        assert!(history.contains("added") && history.contains("paused"), "{history}");
        let unknown = cli.run(&["cron", "trigger", "nightli"]).await;
        assert!(unknown.err.contains("no cron \"nightli\" is known here"), "{unknown:?}");
        worker.stop().await;
    }
}

/// `cargo test --release --test behaviour -- --ignored --nocapture ten_thousand`.
#[tokio::test]
#[ignore = "minutes: ten thousand occurrences, fifty workers, one killed after the other"]
async fn ten_thousand_occurrences_come_once_each() {
    let server = Server::builder(Kind::Redis).start().await;
    let mut redis = server.connect().await;
    let mut crons = String::new();
    for number in 0..100 {
        crons += &tick("every 1s", &Action::Nothing, "").replace("tick]", &format!("t{number}]"));
    }
    let toml = Setup::new(&server).more(&crons).toml();
    let clocks: Vec<Clock> = (0..50_u64)
        .map(|number| {
            let clock = Clock::new();
            clock.behind(Duration::from_secs(number * 977));
            clock
        })
        .collect();
    let start = |clock: &Clock| {
        let [(preload, library), (name, file)] = clock.env();
        WorkerProcess::builder()
            .config(&toml)
            .env(preload, library)
            .env(name, file)
            .start()
    };
    let mut workers: Vec<_> = clocks.iter().map(start).collect();
    let mut killed = 0;
    while redis.xlen::<_, usize>("jobs").await.unwrap() < 10_000 {
        let at = fastrand::usize(..workers.len());
        workers[at].kill();
        workers[at] = start(&clocks[at]);
        killed += 1;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..400))).await;
    }
    drop(workers);
    let mut by_cron: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in events(&mut redis, "jobs").await {
        let of_it = by_cron.entry(event["cronname"].clone()).or_default();
        of_it.push(event["crondue"].clone());
    }
    let all: usize = by_cron.values().map(Vec::len).sum();
    assert_eq!(by_cron.len(), 100);
    by_cron.values().for_each(|times| follow(times, 1));
    println!("{all} occurrences, each once; {killed} workers killed");
}
