//! The pulse: what workers tell of themselves through Redis, the history that is made of it, and orders on the way back.

use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use streamhand::admin::{Admin, Fleet, FleetWorker, WorkerState};

use crate::support::jobs::{self, Action, many};
use crate::support::{Cli, Exchange, Proxy, Server, Setup, eventually, settled};

const PATIENCE: Duration = Duration::from_secs(40);
const PULSE: &str = "streamhand:{workers}:pulse";

fn admin(server: &Server) -> Admin {
    Admin::connect(&server.url(), "workers", ["jobs"]).expect("right names")
}

/// A worker that pulses each second.
fn quick(server: &Server) -> Setup {
    Setup::new(server).more("[pulse]\nevery = \"1s\"")
}

async fn pulses(redis: &mut MultiplexedConnection) -> u64 {
    let mut xlen = redis::cmd("XLEN");
    xlen.arg(PULSE)
        .query_async(redis)
        .await
        .expect("a stream, or nothing")
}

/// Waits until the fleet is as it should be.
async fn fleet(admin: &Admin, what: &str, is_so: impl Fn(&Fleet) -> bool) -> Fleet {
    eventually(PATIENCE, what, async || {
        let fleet = admin.fleet().await.map_err(|error| error.to_string())?;
        match is_so(&fleet) {
            true => Ok(fleet),
            false => Err(format!("{fleet:?}")),
        }
    })
    .await
}

fn only(fleet: &Fleet) -> &FleetWorker {
    fleet.workers.first().expect("a worker")
}

on_both_servers! {
    async fn a_worker_tells_who_it_is_and_what_it_runs_and_that_it_leaves(server: Server) {
        let mut redis = server.connect().await;
        let admin = admin(&server);
        let worker = quick(&server).worker("concurrency = 3").start();
        jobs::publish(&mut redis, "jobs", &many("long", 2, &Action::Take(4000))).await;
        let seen = fleet(&admin, "two runs to be told of", |fleet| {
            fleet.workers.iter().any(|worker| worker.runs.len() == 2 && worker.round_trip > Duration::ZERO)
        })
        .await;
        let one = only(&seen);
        assert_eq!((one.state, one.slots, one.running, one.held), (WorkerState::Alive, 3, 2, 2));
        assert_eq!((one.pid, &one.version[..]), (u64::from(std::process::id()), env!("CARGO_PKG_VERSION")));
        assert_eq!((&one.streams[..], &one.types[..]), (&["jobs".to_owned()][..], &["test.job".to_owned()][..]));
        let run = &one.runs[0];
        assert_eq!((run.event_type.as_deref(), run.attempt, &run.stream[..]), (Some("test.job"), Some(1), "jobs"));
        let since = seen.now.duration_since(run.since.expect("a time")).expect("the past");
        assert!(since < Duration::from_secs(10), "{since:?}");
        assert!(one.memory > 1 << 20, "{one:?}");
        worker.stop().await;
        let seen = fleet(&admin, "it to be gone", |fleet| only(fleet).state == WorkerState::Gone).await;
        assert_eq!(seen.workers.len(), 1);
        assert_eq!(only(&seen).runs, []);
    }

    async fn one_that_is_switched_off_tells_nothing(server: Server) {
        let mut redis = server.connect().await;
        let worker = Setup::new(&server).more("[pulse]\nenabled = false").start();
        jobs::publish(&mut redis, "jobs", &many("quick", 5, &Action::Nothing)).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        worker.stop().await;
        let keys: Vec<String> = redis.keys("streamhand:*").await.unwrap();
        assert_eq!(keys, [""; 0]);
    }

    async fn at_rest_it_pulses_a_third_as_often_and_each_second_while_somebody_looks(server: Server) {
        let mut redis = server.connect().await;
        // Three seconds at rest.
        let worker = quick(&server).start();
        eventually(PATIENCE, "the first pulse", async || pulses(&mut redis).await > 0).await;
        let (before, since) = (pulses(&mut redis).await, std::time::Instant::now());
        eventually(PATIENCE, "seven seconds to pass", async || since.elapsed() > Duration::from_secs(7)).await;
        let came = pulses(&mut redis).await - before;
        assert!((1..=3).contains(&came), "{came} in seven seconds");
        let live = admin(&server).fleet().await.unwrap();
        assert_eq!(live.workers.len(), 1);
        worker.stop().await;
    }

    /// The user may do what the README said before there were pulses.
    async fn a_user_who_may_not_is_told_once_and_no_entry_is_held_up(server: Server) {
        let mut redis = server.connect().await;
        let rule = "SETUSER worker on >secret ~jobs ~{jobs}:* ~test:* +@read +@write +@scripting +@connection -@dangerous +info +time +unwatch +client|unblock";
        let mut acl = redis::cmd("ACL");
        for word in rule.split(' ') {
            acl.arg(word);
        }
        let _: () = acl.query_async(&mut redis).await.unwrap();
        let url = format!("redis://worker:secret@127.0.0.1:{}", server.port());
        let mut worker = Setup::at(url).more("[pulse]\nevery = \"1s\"").process();
        let jobs = many("quick", 20, &Action::Succeed);
        jobs::publish(&mut redis, "jobs", &jobs).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        eventually(PATIENCE, "the refusal to be said", async || worker.log().contains("its pulse")).await;
        jobs::publish(&mut redis, "jobs", &many("more", 20, &Action::Succeed)).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::handled(&mut redis).await.len(), 40);
        worker.terminate();
        worker.wait(PATIENCE).await;
        let log = worker.log();
        let said = log.matches("its pulse").count();
        assert_eq!(said, 1, "{log}");
        assert!(log.contains("~streamhand:") && log.contains("README.md has the rule"), "{log}");
        assert_eq!(pulses(&mut redis).await, 0);
    }

    /// Whether a pulse arrived whose reply got lost is not known: it comes once all the same.
    async fn a_pulse_whose_reply_gets_lost_comes_once(server: Server) {
        let mut redis = server.connect().await;
        let proxy = Proxy::start(server.port()).await;
        let worker = Setup::at(proxy.url()).more("[pulse]\nevery = \"1s\"").start();
        eventually(PATIENCE, "the first pulse", async || pulses(&mut redis).await > 0).await;
        for cut in [Proxy::cut_after, Proxy::cut_before] {
            jobs::publish(&mut redis, "jobs", &many("quick", 3, &Action::Nothing)).await;
            cut(&proxy, Exchange::of(format!("{PULSE}\r\n"))).within(PATIENCE).await;
            let before = pulses(&mut redis).await;
            jobs::publish(&mut redis, "jobs", &many("more", 3, &Action::Nothing)).await;
            eventually(PATIENCE, "pulses to go on", async || pulses(&mut redis).await > before + 1).await;
        }
        worker.stop().await;
        let numbers: Vec<String> = sent(&mut redis).await.into_iter().map(|pulse| pulse.1).collect();
        let expected: Vec<String> = (1..=numbers.len()).map(|n| n.to_string()).collect();
        assert_eq!(numbers, expected);
    }

    async fn workers_do_what_they_are_told_and_say_that_they_have(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]");
        let mut worker = quick(&server).process();
        let admin = admin(&server);
        fleet(&admin, "the worker", |fleet| !fleet.workers.is_empty()).await;

        let said = cli.run(&["worker", "quiet", "--all", "--for", "1h", "--by", "alice"]).await.ok();
        assert!(said.starts_with("quiet: carried out by 1 of 1 worker, until "), "{said}");
        fleet(&admin, "it to be quiet", |fleet| only(fleet).state == WorkerState::Quiet).await;
        jobs::publish(&mut redis, "jobs", &many("waits", 3, &Action::Succeed)).await;
        let before = pulses(&mut redis).await;
        eventually(PATIENCE, "it to have pulsed on", async || pulses(&mut redis).await >= before + 2).await;
        assert!(jobs::started(&mut redis).await.is_empty());
        let listed = cli.run(&["worker", "list"]).await.ok();
        assert!(listed.contains("quiet") && listed.contains("alice") && listed.contains("by 1 of 1"), "{listed}");
        let said = cli.run(&["worker", "resume", "--all"]).await.ok();
        assert_eq!(said, "taken back: quiet\n");
        settled(&mut redis, "jobs", PATIENCE).await;

        let pid = worker.pid().to_string();
        let said = cli.run(&["worker", "concurrency", "2", &pid]).await.ok();
        assert!(said.starts_with("concurrency 2: carried out by 1 of 1 worker, until "), "{said}");
        let said = cli.run(&["worker", "debug", "test.job", "--for", "1h"]).await.ok();
        assert!(said.starts_with("debug test.job: carried out by 1 of 1 worker, until "), "{said}");
        jobs::publish(&mut redis, "jobs", &many("long", 5, &Action::Take(3000))).await;
        let seen = fleet(&admin, "two of two slots to be taken", |fleet| only(fleet).running == 2).await;
        assert_eq!((only(&seen).slots, &only(&seen).debugged[..]), (2, &["test.job".to_owned()][..]));
        let said = cli.run(&["worker", "dump", &pid]).await.ok();
        assert_eq!(said, "dump: carried out by 1 of 1 worker\n");
        worker.wait_for_log("what runs, the longest first", PATIENCE).await;
        let line = worker.wait_for_log(" runs ", PATIENCE).await;
        assert!(line.contains("event_type=\"test.job\"") && line.contains("lasts="), "{line}");
        worker.wait_for_log("its handler starts", PATIENCE).await;
        cli.run(&["worker", "resume", &pid]).await.ok();
        fleet(&admin, "its own concurrency again", |fleet| only(fleet).slots == 64).await;

        let said = cli.run(&["worker", "drain", &pid]).await.ok();
        assert_eq!(said, "drain: carried out by 1 of 1 worker\n");
        assert!(worker.wait(PATIENCE).await.success());
        assert!(worker.log().contains("drains, as an operator asks"), "{}", worker.log());
        let said = cli.run(&["worker", "quiet", &pid]).await.failed(1);
        assert!(said.contains("no worker of workers is called"), "{said}");
    }

    async fn what_holds_for_a_time_is_over_by_itself(server: Server) {
        let mut redis = server.connect().await;
        let worker = quick(&server).start();
        let admin = admin(&server);
        fleet(&admin, "the worker", |fleet| !fleet.workers.is_empty()).await;
        let quiet = streamhand::admin::WorkerOrder::quiet(Duration::from_secs(3));
        let order = admin.order(quiet, "alice").await.unwrap();
        fleet(&admin, "it to be quiet", |fleet| only(fleet).carried_out == [order.number]).await;
        jobs::publish(&mut redis, "jobs", &many("waits", 3, &Action::Succeed)).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let keys: Vec<String> = redis.keys("{jobs}:workers:asked").await.unwrap();
        assert_eq!(keys, [""; 0], "it is gone from Redis as well");
        assert_eq!(admin.orders().await.unwrap(), []);
        worker.stop().await;
    }
}

/// The pulses that were sent: the worker and the number of each.
async fn sent(redis: &mut MultiplexedConnection) -> Vec<(String, String)> {
    let all: redis::streams::StreamRangeReply = redis.xrange_all(PULSE).await.expect("pulses");
    let pulse = |entry: &redis::streams::StreamId| {
        let text = |name| entry.get::<String>(name).expect(name);
        (text("w"), text("n"))
    };
    all.ids.iter().map(pulse).collect()
}
