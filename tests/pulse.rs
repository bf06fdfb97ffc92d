//! The pulse: what workers tell of themselves through Redis, the history that is made of it, and orders on the way back.

use std::time::{Duration, SystemTime};

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use streamhand::admin::{Admin, Fleet, FleetWorker, GroupHistory, Resolution, WorkerState};

use crate::support::jobs::{self, Action, many};
use crate::support::{
    Cli, Clock, CommandStats, Exchange, Kind, Proxy, Server, Setup, eventually, scripts, settled,
};

const PATIENCE: Duration = Duration::from_secs(40);
const PULSE: &str = "streamhand:{workers}:pulse";
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

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
        assert!(line.contains("event_type=test.job") && line.contains("lasts="), "{line}");
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

    /// A read that waits at the server when the order comes can't be ended at once here, and must not bring anything after
    /// the worker has said that it is quiet.
    async fn one_that_says_that_it_is_quiet_starts_nothing_more(server: Server) {
        let mut redis = server.connect().await;
        let mut acl = redis::cmd("ACL");
        for word in "SETUSER worker on >secret ~* &* +@all -client|unblock".split(' ') {
            acl.arg(word);
        }
        let _: () = acl.query_async(&mut redis).await.unwrap();
        let url = format!("redis://worker:secret@127.0.0.1:{}", server.port());
        let worker = Setup::at(url).more("[pulse]\nevery = \"1s\"").start();
        let admin = admin(&server);
        fleet(&admin, "the worker", |fleet| !fleet.workers.is_empty()).await;
        for round in 0..4 {
            let quiet = streamhand::admin::WorkerOrder::quiet(HOUR);
            let order = admin.order(quiet, "alice").await.unwrap();
            fleet(&admin, "it to be quiet", |fleet| only(fleet).carried_out.contains(&order.number)).await;
            let started = jobs::started(&mut redis).await.len();
            jobs::publish(&mut redis, "jobs", &many(&format!("waits-{round}"), 1, &Action::Succeed)).await;
            let before = pulses(&mut redis).await;
            eventually(PATIENCE, "it to have pulsed on", async || pulses(&mut redis).await >= before + 2).await;
            assert_eq!(jobs::started(&mut redis).await.len(), started, "in round {round}");
            admin.take_back(order.number).await.unwrap();
            settled(&mut redis, "jobs", PATIENCE).await;
        }
        worker.stop().await;
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

    /// Whatever dies, and whenever: what stands in the minutes, in the tens and in the hours is what pulses told.
    async fn sums_over_any_slots_are_what_workers_counted_though_some_are_killed(kind: Kind) {
        let clock = Clock::new();
        let server = Server::builder(kind).clock(&clock).start().await;
        let mut redis = server.connect().await;
        // So that each call of one is the step itself.
        scripts::load(&mut redis).await;
        let admin = admin(&server);
        let began = admin.now().await.unwrap();
        let proxy = Proxy::start(server.port()).await;
        let setup = Setup::at(proxy.url()).worker("lease = \"30s\"").more("[pulse]\nevery = \"1s\"");
        let (mut ahead, mut published) = (Duration::ZERO, 0);
        let mut killed = setup.process();
        for round in 0..4 {
            let jobs = many(&format!("round-{round}"), 25, &Action::Nothing);
            published += jobs.len();
            jobs::publish(&mut redis, "jobs", &jobs).await;
            settled(&mut redis, "jobs", PATIENCE).await;
            // All of it is told of before anybody is killed.
            let told = eventually(PATIENCE, "all of it to be told of", async || {
                let told = acked(&history(&admin, began, Resolution::Minute).await);
                if told == published as f64 { Ok(told) } else { Err(format!("{told} of {published}")) }
            })
            .await;
            assert_eq!(told, published as f64);
            // The next merge dies before it has written a minute, or after it has, without having heard of it.
            let minutes = Exchange::of(format!("{PULSE}:minutes\r\n${}\r\n{PULSE}:workers", PULSE.len() + 8));
            let caught = if round % 2 == 0 { proxy.cut_before(minutes) } else { proxy.hold_reply(minutes) };
            ahead += 11 * MINUTE;
            clock.ahead(ahead);
            caught.within(PATIENCE).await;
            killed.kill();
            killed = setup.process();
            ahead += 2 * MINUTE;
            clock.ahead(ahead);
        }
        // It knows what time it is once it has pulsed.
        let before = pulses(&mut redis).await;
        eventually(PATIENCE, "it to pulse", async || pulses(&mut redis).await > before + 1).await;
        // Over an hour's end, for hours to be made.
        ahead += Duration::from_secs(3600);
        clock.ahead(ahead);
        eventually(PATIENCE, "an hour to be merged", async || {
            let (minutes, tens, hours) = (length(&mut redis, "minutes").await, length(&mut redis, "tens").await, length(&mut redis, "hours").await);
            if minutes >= 4 && tens >= 4 && hours >= 1 { Ok(()) } else { Err(format!("{minutes} {tens} {hours}")) }
        })
        .await;
        for resolution in [Resolution::Minute, Resolution::TenMinutes, Resolution::Hour] {
            let history = history(&admin, began, resolution).await;
            assert_eq!(acked(&history), published as f64, "{resolution:?}");
            let counted: f64 = history.slots.iter().map(|slot| slot.total("process_duration_seconds", &[])).sum();
            assert_eq!(counted, published as f64, "{resolution:?}");
            assert!(history.slots.iter().all(|slot| slot.unread == 0));
            assert_eq!(history.deploys.len(), 1, "{:?}", history.deploys);
        }
    }

    /// All workers have stopped, and pulses are left that nobody has merged: whoever starts next merges them, however old
    /// they are, before they may go.
    async fn what_was_left_is_merged_by_whoever_starts_next(kind: Kind) {
        let clock = Clock::new();
        let server = Server::builder(kind).clock(&clock).args(["--stream-node-max-entries", "1"]).start().await;
        let mut redis = server.connect().await;
        let admin = admin(&server);
        let began = admin.now().await.unwrap();
        let worker = quick(&server).start();
        jobs::publish(&mut redis, "jobs", &many("quick", 30, &Action::Nothing)).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        // Its last pulse tells what it had not told yet.
        worker.stop().await;
        let left = pulses(&mut redis).await;
        assert!(left > 0 && length(&mut redis, "minutes").await == 0);
        clock.ahead(5 * HOUR);
        let worker = quick(&server).start();
        eventually(PATIENCE, "it to pulse", async || pulses(&mut redis).await > left).await;
        clock.ahead(5 * HOUR + 2 * MINUTE);
        eventually(PATIENCE, "a minute", async || length(&mut redis, "minutes").await > 0).await;
        assert_eq!(acked(&history(&admin, began, Resolution::Minute).await), 30.0);
        clock.ahead(5 * HOUR + 40 * MINUTE);
        eventually(PATIENCE, "what is merged to go", async || {
            let first: redis::streams::StreamRangeReply = redis.xrange_count(PULSE, "-", "+", 1).await.unwrap();
            !first.ids[0].id.starts_with(&left_at(began))
        })
        .await;
        assert_eq!(acked(&history(&admin, began, Resolution::Minute).await), 30.0);
        worker.stop().await;
    }

    /// One after the other in one process, and with what each has counted still there: nothing is told twice.
    async fn workers_that_count_in_one_place_tell_it_once(server: Server) {
        let mut redis = server.connect().await;
        let admin = admin(&server);
        let began = admin.now().await.unwrap();
        let metrics = streamhand::metrics::Metrics::new();
        for round in 0..2 {
            let settings = streamhand::Settings::from_toml_str(&quick(&server).toml()).unwrap();
            let worker = streamhand::Worker::new(settings, jobs::registry()).unwrap().metrics(&metrics);
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let running = tokio::spawn(worker.run(async {
                let _ = stopped.await;
            }));
            jobs::publish(&mut redis, "jobs", &many(&format!("round-{round}"), 10, &Action::Nothing)).await;
            settled(&mut redis, "jobs", PATIENCE).await;
            drop(stop);
            running.await.unwrap().unwrap();
        }
        assert_eq!(acked(&history(&admin, began, Resolution::Minute).await), 20.0);
    }

    /// On a terminal of its own: it shows the group, and leaves the terminal as it was.
    async fn top_shows_a_group_in_a_terminal_and_leaves_it_as_it_was(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]");
        let said = cli.run(&["top"]).await.failed(2);
        assert!(said.contains("top needs a terminal"), "{said}");
        let worker = quick(&server).start();
        jobs::publish(&mut redis, "jobs", &many("quick", 5, &Action::Succeed)).await;
        fleet(&admin(&server), "the worker", |fleet| !fleet.workers.is_empty()).await;
        let screen = cli.on_terminal_of((80, 24), &["top"], "?q").await.ok();
        for shown in ["workers", "STREAM", "jobs", "TYPE", "test.job", "WORKER", &format!(":{}", std::process::id())] {
            assert!(screen.contains(shown), "{shown}: {screen:?}");
        }
        let (enter, leave) = (screen.find("\u{1b}[?1049h"), screen.rfind("\u{1b}[?1049l"));
        assert!(enter.is_some() && enter < leave, "{screen:?}");
        worker.stop().await;
    }

    /// While somebody looks, and for as long as that, workers pulse each second.
    async fn while_somebody_looks_workers_pulse_each_second(server: Server) {
        let mut redis = server.connect().await;
        let worker = Setup::new(&server).start();
        fleet(&admin(&server), "the worker", |fleet| !fleet.workers.is_empty()).await;
        let field = ["{jobs}:workers:asked", "watch"];
        let watch = async |redis: &mut MultiplexedConnection| {
            let until = jobs::now_ms() + 15_000;
            let _: () = redis.hset(field[0], field[1], format!("{until} ")).await.unwrap();
            let _: () = redis.pexpire(field[0], 15_000).await.unwrap();
        };
        watch(&mut redis).await;
        let before = pulses(&mut redis).await;
        let since = std::time::Instant::now();
        eventually(PATIENCE, "four more pulses", async || pulses(&mut redis).await >= before + 4).await;
        let took = since.elapsed();
        assert!(took > Duration::from_secs(2) && took < Duration::from_secs(9), "{took:?}");
        let seen = admin(&server).fleet().await.unwrap();
        assert_eq!(only(&seen).state, WorkerState::Alive);
        worker.stop().await;
    }

    /// What a pulse costs Redis, and what the history takes up, of a group with ten event types.
    async fn a_hundred_workers_cost_redis_less_than_a_ten_thousandth(server: Server) {
        let mut redis = server.connect().await;
        let mut registry = streamhand::Registry::new();
        for n in 0..10 {
            registry = registry.on_raw(&format!("test.kind-{n}"), async |_, _| Ok(()));
        }
        let worker = quick(&server).start_with(registry);
        for round in 0..3 {
            let mut pipe = redis::pipe();
            for n in 0..200 {
                pipe.cmd("XADD").arg("jobs").arg("*").arg("type").arg(format!("test.kind-{}", n % 10)).arg("data").arg("{}").ignore();
            }
            let _: () = pipe.query_async(&mut redis).await.unwrap();
            settled(&mut redis, "jobs", PATIENCE).await;
            eventually(PATIENCE, "pulses", async || pulses(&mut redis).await > round).await;
        }
        worker.stop().await;
        let all: redis::streams::StreamRangeReply = redis.xrange_all(PULSE).await.unwrap();
        let packed: Vec<Vec<u8>> = all.ids.iter().map(|entry| entry.get("p").expect("a packed pulse")).collect();
        let largest = packed.iter().max_by_key(|packed| packed.len()).expect("a pulse");
        // The same again and again, as many workers would send it.
        let _: () = redis::cmd("CONFIG").arg("RESETSTAT").query_async(&mut redis).await.unwrap();
        for _ in 0..100 {
            let mut pipe = redis::pipe();
            for n in 0..100 {
                let xadd = pipe.cmd("XADD").arg("test:cost").arg("MINID").arg("~").arg(jobs::now_ms() - 1000).arg("*");
                xadd.arg("w").arg("sh2-30000-a-host-of-some-name-4711-00112233445566ff").arg("n").arg(n).arg("p").arg(&largest[..]).ignore();
            }
            let _: () = pipe.query_async(&mut redis).await.unwrap();
        }
        let each = CommandStats::of(&mut redis).await.usec_per_call("xadd");
        assert!(each > 0.0, "XADD was not called");
        // One in ten seconds each.
        let part = 100.0 / 10.0 * each / 1e6;
        println!("a pulse of {} bytes is {each:.1} us of Redis; 100 workers {:.4} %", largest.len(), part * 100.0);
        assert!(part < 1e-4, "{each} us");
        assert!(largest.len() < 4096, "{} bytes", largest.len());
    }
}

/// The first digits of ids of about that time.
fn left_at(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).expect("a time");
    (since.as_millis() as u64 / 1_000_000).to_string()
}

async fn history(admin: &Admin, from: SystemTime, resolution: Resolution) -> GroupHistory {
    let to = admin.now().await.expect("a time") + MINUTE;
    admin
        .history(from, to, Some(resolution))
        .await
        .expect("a history")
}

/// How many entries were acknowledged, by a history.
fn acked(history: &GroupHistory) -> f64 {
    let of = |slot: &streamhand::admin::HistorySlot| {
        slot.total("settled_total", &[("outcome", "acked")])
    };
    history.slots.iter().map(of).sum()
}

async fn length(redis: &mut MultiplexedConnection, of: &str) -> u64 {
    let mut xlen = redis::cmd("XLEN");
    xlen.arg(format!("{PULSE}:{of}"))
        .query_async(redis)
        .await
        .expect("a stream, or nothing")
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
