//! Requests that were half done when something came between: nothing is left out unnoticed, nothing is done twice, and
//! what is said names the place to go on at.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use rustix::process::{Pid, Signal, kill_process};
use streamhand::{Envelope, ErrorKind, Published};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use crate::support::jobs::{Action, Job};
use crate::support::{Cli, Exchange, Proxy, Server, entries, eventually, marks, publisher};

const PATIENCE: Duration = Duration::from_secs(30);

async fn length(redis: &mut MultiplexedConnection) -> u64 {
    redis::cmd("XLEN")
        .arg("jobs")
        .query_async(redis)
        .await
        .unwrap()
}

fn signal(child: &Child, signal: Signal) {
    let pid = child.id().expect("a process that runs");
    kill_process(Pid::from_raw(pid as i32).expect("its id"), signal).expect("to signal it");
}

/// Begins to publish very many lines to a server, which stands still once some of them are in.
async fn publishing_to_a_server_that_stands_still(server: &mut Server) -> (Child, Cli) {
    let mut redis = server.connect().await;
    let cli = Cli::new(server, "");
    let lines: String = (1..=600_000).map(|n| format!("{n}\n")).collect();
    std::fs::write(cli.file("many.ndjson"), lines).unwrap();
    let child = cli
        .command(&["publish", "jobs", "test.job", "--file", "many.ndjson"])
        .spawn()
        .unwrap();
    eventually(PATIENCE, "some to be in", async || {
        length(&mut redis).await > 2_000
    })
    .await;
    server.freeze();
    (child, cli)
}

/// The numbers in what a program said, in their order.
fn numbers(said: &str) -> Vec<u64> {
    let digits = regex::Regex::new(r"\d+").unwrap();
    digits
        .find_iter(said)
        .map(|found| found.as_str().parse().unwrap())
        .collect()
}

on_both_servers! {
    async fn scripts_that_a_server_forgets_leave_no_hole_in_a_file(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "");
        let line = |n: u32| format!("{{\"type\":\"test.job\",\"data\":{n},\"id\":\"e-{n}\"}}\n");
        std::fs::write(cli.file("events.ndjson"), (1..=4_000).map(line).collect::<String>()).unwrap();
        for how in [&["--once"][..], &["--delay", "1h"]] {
            let mut flushing = server.connect().await;
            let flush = tokio::spawn(async move {
                loop {
                    let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut flushing).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
            let args = [&["publish", "jobs", "--envelopes", "--file", "events.ndjson"], how].concat();
            let ran = cli.run(&args).await;
            flush.abort();
            let verb = if how[0] == "--once" { "published" } else { "scheduled" };
            assert_eq!(ran.ok(), format!("{verb} 4000\n"));
        }
        let forgotten: String = redis::cmd("INFO").arg("errorstats").query_async(&mut redis).await.unwrap();
        assert!(forgotten.contains("errorstat_NOSCRIPT"), "{forgotten}");
        let ids: HashSet<String> = entries(&mut redis, "jobs").await.into_iter()
            .map(|entry| Envelope::decode(entry.into()).unwrap().id().into_owned())
            .collect();
        assert_eq!((ids.len(), length(&mut redis).await), (4_000, 4_000));
        let scheduled: u64 = redis.zcard("{jobs}:scheduled").await.unwrap();
        assert_eq!(scheduled, 4_000);
    }

    async fn the_first_line_that_is_not_in_is_named_whatever_is_in_behind_it(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "");
        let line = |n: u32| format!("{{\"type\":\"test.job\",\"data\":{n},\"id\":\"e-{n}\"}}\n");
        std::fs::write(cli.file("events.ndjson"), (1..=90).map(line).collect::<String>()).unwrap();
        // Other hands have put something in the place of one event's mark.
        let mark = marks::published("e-50");
        let _: () = redis.rpush(&mark, "in the way").await.unwrap();
        let args = ["publish", "jobs", "--envelopes", "--once", "--file", "events.ndjson"];
        let err = cli.run(&args).await.failed(1);
        assert!(err.contains("line 50: ") && err.contains("WRONGTYPE"), "{err}");
        let said = "published 89 events, up to line 49 and 40 behind it; line 50 is the first that is not in";
        assert!(err.contains(said), "{err}");
        let _: () = redis.del(&mark).await.unwrap();
        assert_eq!(cli.run(&args).await.ok(), "published 1 (89 had been published before)\n");
        assert_eq!(length(&mut redis).await, 90);
    }

    async fn what_became_of_each_of_many_events_is_known_when_memory_ends_among_them(server: Server) {
        let mut redis = server.connect().await;
        let used: String = redis::cmd("INFO").arg("memory").query_async(&mut redis).await.unwrap();
        let used: u64 = used.split("used_memory:").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
        let limit = async |bytes: u64| {
            let mut redis = server.connect().await;
            let mut cmd = redis::cmd("CONFIG");
            let _: () = cmd.arg("SET").arg("maxmemory").arg(bytes).query_async(&mut redis).await.unwrap();
        };
        limit(used + (6 << 20)).await;
        let jobs: Vec<Job> = (0..4_000).map(|n| Job::new(format!("{n} {}", "x".repeat(4_000)), Action::Succeed)).collect();
        let publisher = publisher(&server.url());
        let error = publisher.publish_many("jobs", &jobs).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Redis);
        let stored: HashMap<_, _> = entries(&mut redis, "jobs").await.into_iter()
            .map(|entry| (entry.id, Envelope::decode(entry.into()).unwrap()))
            .collect();
        assert!((1..4_000).contains(&stored.len()), "{}", stored.len());
        let (mut added, mut refused) = (0, 0);
        assert_eq!(error.events().len(), 4_000);
        for (event, published) in error.events() {
            assert_eq!(event.id().len(), 36);
            match published {
                Published::Added(id) => {
                    assert_eq!(stored[id].id(), event.id());
                    added += 1;
                }
                Published::Refused(why) => {
                    assert!(why.to_string().contains("maxmemory is reached"), "{why}");
                    refused += 1;
                }
                Published::NotSent => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(added == stored.len() && refused > 0, "{added} added, {refused} refused, {} there", stored.len());
        assert!(error.to_string().contains(&format!("{added} of 4000 events are published")), "{error}");
        limit(0).await;
        let rest = error.into_rest();
        assert_eq!(rest.len(), 4_000 - added);
        publisher.publish_envelopes("jobs", rest).await.unwrap();
        let ids: HashSet<String> = entries(&mut redis, "jobs").await.into_iter()
            .map(|entry| Envelope::decode(entry.into()).unwrap().id().into_owned())
            .collect();
        assert_eq!((ids.len(), length(&mut redis).await), (4_000, 4_000));
    }

    async fn many_events_whose_answers_got_lost_are_recognised_when_they_are_published_again(server: Server) {
        let mut redis = server.connect().await;
        let proxy = Proxy::start(server.port()).await;
        let publisher = publisher(&proxy.url());
        let jobs: Vec<Job> = (0..600).map(|n| Job::new(n.to_string(), Action::Succeed)).collect();
        let caught = proxy.cut_after(Exchange::of("XADD"));
        let error = publisher.publish_many("jobs", &jobs).await.unwrap_err();
        caught.within(PATIENCE).await;
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        assert!(error.events().any(|(_, published)| matches!(published, Published::Unknown)), "{error}");
        assert!(error.to_string().contains("it is not known"), "{error}");
        let rest = error.into_rest();
        let again = rest.len() as u64;
        publisher.publish_envelopes("jobs", rest).await.unwrap();
        let there = entries(&mut redis, "jobs").await;
        let ids: HashSet<String> = there.iter()
            .map(|entry| Envelope::decode(entry.clone().into()).unwrap().id().into_owned())
            .collect();
        assert_eq!(ids.len(), 600, "{again} again, {} there", there.len());
        // An envelope has its id before it is published at all.
        let envelope = publisher.envelope(&jobs[0]).unwrap();
        assert_eq!(envelope.id().len(), 36);
        for _ in 0..2 {
            publisher.publish_envelope("ids", envelope.clone()).await.unwrap();
        }
        for entry in entries(&mut redis, "ids").await {
            assert_eq!(Envelope::decode(entry.into()).unwrap().id(), envelope.id());
        }
    }

    async fn a_signal_ends_publishing_to_a_server_that_stands_still_and_says_where_to_go_on(server: Server) {
        let mut server = server;
        let mut met = Vec::new();
        for attempt in 1.. {
            let which = if met.is_empty() { Signal::INT } else { Signal::TERM };
            let (child, _cli) = publishing_to_a_server_that_stands_still(&mut server).await;
            let begin = tokio::time::Instant::now();
            signal(&child, which);
            let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
            let took = begin.elapsed();
            server.thaw();
            let ended = ended.expect("it to end").unwrap();
            let said = String::from_utf8(ended.stderr).unwrap();
            assert_eq!(ended.status.code(), Some(1), "{said}");
            assert!(took < Duration::from_secs(5), "after {took:?}");
            // "stopped; published 2250 events, up to line 2250; whether lines 2251 to 2750 (500 events) were published is
            // not known; go on at line 2251"
            let last = said.lines().find(|line| line.contains("published")).expect(&said).to_owned();
            let told = numbers(&last);
            let (published, next) = (told[0], *told.last().unwrap());
            assert!(last.contains("stopped") && last.contains("go on at line"), "{said}");
            assert_eq!((told[1], next), (published, published + 1), "{said}");
            // It may have been between two requests, and have sent nothing that has no answer.
            let mut to = published;
            if let [_, _, from, last_in_doubt, unknown, _] = told[..] {
                assert!(last.contains("is not known"), "{said}");
                assert_eq!((from, unknown), (published + 1, last_in_doubt - published), "{said}");
                to = last_in_doubt;
                met.push(which);
            }
            let mut redis = server.connect().await;
            // What was on its way arrives now that the server goes on.
            eventually(PATIENCE, "what was sent to be in", async || {
                let first = length(&mut redis).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
                first == length(&mut redis).await
            })
            .await;
            let in_it = length(&mut redis).await;
            assert!((published..=to).contains(&in_it), "{in_it} in: {said}");
            let _: () = redis.del("jobs").await.unwrap();
            if met.len() == 2 {
                break;
            }
            assert!(attempt < 8, "nothing was on its way when the server stood still: {said}");
        }
    }

    async fn a_second_signal_ends_publishing_at_once(server: Server) {
        let mut server = server;
        // The first one waits a moment: on a slow machine it may be over before the second is sent.
        for attempt in 1.. {
            let (mut child, _cli) = publishing_to_a_server_that_stands_still(&mut server).await;
            let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
            signal(&child, Signal::INT);
            let first = tokio::time::timeout(PATIENCE, errors.next_line()).await.expect("a line").unwrap();
            let first = first.expect("a line");
            assert!(first.contains("a second signal"), "{first}");
            // Two within a second are taken for one.
            tokio::time::sleep(Duration::from_millis(1_100)).await;
            signal(&child, Signal::INT);
            let mut rest = String::new();
            while let Some(line) = errors.next_line().await.unwrap() {
                rest += &line;
            }
            let ended = child.wait().await.unwrap();
            server.thaw();
            let mut redis = server.connect().await;
            let _: () = redis.del("jobs").await.unwrap();
            assert_eq!(ended.code(), Some(1), "{rest}");
            if rest.contains("stopped at once") {
                break;
            }
            assert!(attempt < 4, "the second signal was never in time: {rest}");
        }
    }
}
