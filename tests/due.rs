//! Scheduled events come to their stream within a second of their time, each once, whatever becomes of workers and of
//! the server meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use redis::aio::MultiplexedConnection;
use streamhand::{Envelope, Publisher, Registry};
use tokio::sync::mpsc;

use crate::support::jobs::{self, Action, Job};
use crate::support::{
    Cli, Kind, Proxy, Server, Setup, entries, eventually, publisher, scripts, settled,
};

const PATIENCE: Duration = Duration::from_secs(30);
const SECOND: u64 = 1000;

fn ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.expect("a time after 1970").as_millis() as u64
}

/// Schedules a job that succeeds, and answers when it is due.
async fn schedule(publisher: &Publisher, id: &str, delay: Duration) -> u64 {
    let event = Envelope::new("test.job").with("id", id);
    let event = event.json(&Job::new(id, Action::Succeed)).expect("JSON");
    let scheduled = publisher.publish_envelope_after("jobs", event, delay).await;
    ms(scheduled.expect("to be scheduled").at)
}

/// When events came to the stream `jobs`, by Redis' clock, by their ids.
async fn came(redis: &mut MultiplexedConnection) -> BTreeMap<String, Vec<u64>> {
    let mut came: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for entry in entries(redis, "jobs").await {
        let (id, event) = (entry.id, Envelope::decode(entry.into()).expect("an event"));
        came.entry(event.id().into_owned()).or_default().push(id.ms);
    }
    came
}

/// Waits until the event has come, and asserts that it came once and within a second of its time.
async fn comes_in_time(redis: &mut MultiplexedConnection, id: &str, due: u64) {
    let times = eventually(PATIENCE, format!("{id} to be added"), async || {
        came(redis).await.remove(id)
    })
    .await;
    let late: Vec<i64> = times.iter().map(|at| *at as i64 - due as i64).collect();
    println!("{id}: {late:?} ms late");
    assert!(
        late.len() == 1 && (0..SECOND as i64).contains(&late[0]),
        "{id}: {late:?} ms late"
    );
}

async fn run(redis: &mut MultiplexedConnection, command: &[&str]) {
    let mut cmd = redis::cmd(command[0]);
    let _: redis::Value = cmd.arg(&command[1..]).query_async(redis).await.unwrap();
}

/// How many events wait, by both keys that say so.
async fn waiting(redis: &mut MultiplexedConnection) -> (u64, u64) {
    let mut pipe = redis::pipe();
    pipe.cmd("ZCARD")
        .arg("{jobs}:scheduled")
        .cmd("HLEN")
        .arg("{jobs}:scheduled:events");
    pipe.query_async(redis).await.unwrap()
}

on_both_servers! {
    async fn an_idle_worker_adds_events_within_a_second_of_their_time(server: Server) {
        let mut redis = server.connect().await;
        let worker = Setup::new(&server).worker("lease = \"30s\"").start();
        let publisher = publisher(&server.url());
        schedule(&publisher, "warm-up", Duration::ZERO).await;
        eventually(PATIENCE, "the worker to work", async || came(&mut redis).await.len() == 1).await;
        let mut due = Vec::new();
        for delay in [300, 400, 650, 900, 1_300, 2_100] {
            let id = format!("after-{delay}");
            due.push((id.clone(), schedule(&publisher, &id, Duration::from_millis(delay)).await));
            tokio::time::sleep(Duration::from_millis(170)).await;
        }
        let at = SystemTime::now() + Duration::from_millis(1_500);
        let scheduled = publisher.publish_at("jobs", &Job::new("at", Action::Succeed), at).await.unwrap();
        due.push((scheduled.id, ms(at)));
        for (id, due) in &due {
            comes_in_time(&mut redis, id, *due).await;
        }
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::handled(&mut redis).await.len(), 8);
        assert_eq!(waiting(&mut redis).await, (0, 0));
        worker.stop().await;
    }

    /// It wakes nothing, and would not hear when an event is due.
    async fn a_worker_without_room_adds_what_is_due_all_the_same(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).worker("concurrency = 1").worker("prefetch = 1").worker("lease = \"30s\"");
        let worker = setup.start();
        jobs::publish(&mut redis, "jobs", &[Job::new("long", Action::UntilTold)]).await;
        eventually(PATIENCE, "it to have no room", async || jobs::started(&mut redis).await.len() == 1).await;
        let publisher = publisher(&server.url());
        for delay in [300, 700, 1_100, 350, 1_900] {
            let id = format!("after-{delay}");
            let due = schedule(&publisher, &id, Duration::from_millis(delay)).await;
            comes_in_time(&mut redis, &id, due).await;
        }
        assert_eq!(jobs::started(&mut redis).await.len(), 1, "it had no room all the while");
        worker.stop().await;
    }

    /// Looking by itself would be one more request every 0.8 seconds. A worker of a machine that is busy with something
    /// else may have to, for a while.
    async fn what_is_due_later_costs_an_idle_worker_nothing(server: Server) {
        let proxy = Proxy::start(server.port()).await;
        let worker = Setup::at(proxy.url()).worker("lease = \"30s\"").start();
        schedule(&publisher(&server.url()), "later", Duration::from_secs(3600)).await;
        eventually(PATIENCE, "the worker to wait", async || {
            proxy.traffic().commands.get("XREADGROUP").is_some_and(|reads| *reads >= 2)
        })
        .await;
        eventually(PATIENCE, "three seconds with nothing but reads and wakes", async || {
            let sent = proxy.traffic_during(Duration::from_secs(3)).await;
            println!("in three seconds: {sent:?}");
            if sent.connections == 0 && sent.requests() <= 9 { Ok(()) } else { Err(format!("{sent:?}")) }
        })
        .await;
        worker.stop().await;
    }

    async fn of_workers_of_two_groups_at_once_each_event_is_added_by_one(server: Server) {
        let mut redis = server.connect().await;
        let ours = Setup::new(&server);
        let workers = [ours.process(), ours.process(), ours.clone().worker("group = \"others\"").process()];
        let cli = Cli::new(&server, "");
        let lines: String = (0..3_000).map(|n| format!("{n}\n")).collect();
        std::fs::write(cli.file("events.ndjson"), &lines).unwrap();
        let args = ["publish", "jobs", "test.other", "--file", "events.ndjson", "--delay", "2s"];
        assert_eq!(cli.run(&args).await.ok(), "scheduled 3000\n");
        eventually(PATIENCE, "all to be added", async || waiting(&mut redis).await == (0, 0)).await;
        let came = came(&mut redis).await;
        assert_eq!(came.len(), 3_000);
        assert!(came.values().all(|times| times.len() == 1), "some were added twice");
        drop(workers);
    }

    /// The event waits in Redis; the worker that knew of it is gone, and so is the server for a while.
    async fn what_is_scheduled_survives_the_end_of_workers_and_a_restart_of_the_server(kind: Kind) {
        let mut server = Server::builder(kind).persistent(true).start().await;
        let mut worker = Setup::new(&server).process();
        worker.wait_for_log("the group is new", PATIENCE).await;
        let publisher = publisher(&server.url());
        let due = schedule(&publisher, "first", Duration::from_secs(4)).await;
        let later = schedule(&publisher, "second", Duration::from_secs(8)).await;
        worker.kill();
        server.restart().await;
        let mut other = Setup::new(&server).process();
        other.wait_for_log("worker starts", PATIENCE).await;
        let mut redis = server.connect().await;
        comes_in_time(&mut redis, "first", due).await;
        // The same with a worker that lives on, and a server that is away when the time comes near.
        server.restart().await;
        let mut redis = server.connect().await;
        comes_in_time(&mut redis, "second", later).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::handled(&mut redis).await.len(), 2);
    }

    async fn what_fell_due_while_nobody_worked_is_added_when_somebody_does(server: Server) {
        let mut redis = server.connect().await;
        let publisher = publisher(&server.url());
        let now = SystemTime::now();
        for n in 0..5 {
            let event = Envelope::new("test.job").with("id", format!("e-{n}"));
            let event = event.json(&Job::new(format!("e-{n}"), Action::Succeed)).unwrap();
            let at = now - Duration::from_millis(10 * n);
            assert!(publisher.publish_envelope_at("jobs", event, at).await.unwrap().is_new);
        }
        let worker = Setup::new(&server).start();
        eventually(PATIENCE, "all to be added", async || waiting(&mut redis).await == (0, 0)).await;
        let stored = entries(&mut redis, "jobs").await.into_iter();
        let ids: Vec<String> = stored.map(|entry| Envelope::decode(entry.into()).unwrap().id().into_owned()).collect();
        assert_eq!(ids, ["e-4", "e-3", "e-2", "e-1", "e-0"], "the first due first");
        settled(&mut redis, "jobs", PATIENCE).await;
        worker.stop().await;
    }

    /// More than there are scores of their own for, by ids that sort the other way round. Another release put the first of
    /// them there, and the one that was cancelled comes behind those that were there before it came again.
    async fn events_of_one_due_time_come_in_the_order_in_which_they_were_scheduled(server: Server) {
        let mut redis = server.connect().await;
        let publisher = publisher(&server.url());
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(ms(SystemTime::now() - Duration::from_secs(5)));
        let id = |n: u32| format!("e-{:04}", 9_999 - n);
        let event = |n: u32| {
            let event = Envelope::new("test.job").with("id", id(n));
            event.json(&Job::new(id(n), Action::Succeed)).unwrap()
        };
        assert!(publisher.publish_envelope_at("jobs", event(0), at).await.unwrap().is_new);
        let score = ms(at).to_string();
        run(&mut redis, &["ZADD", "{jobs}:scheduled", &score, &id(0)]).await;
        for n in 1..1_700 {
            assert_eq!(publisher.publish_envelope_at("jobs", event(n), at).await.unwrap().at, at);
        }
        for n in [3, 1_200] {
            let again = publisher.publish_envelope_at("jobs", event(n), at).await.unwrap();
            assert_eq!((again.at, again.is_new), (at, false), "a repeat changes nothing");
            assert!(publisher.cancel_scheduled("jobs", &id(n)).await.unwrap());
            assert!(publisher.publish_envelope_at("jobs", event(n), at).await.unwrap().is_new);
        }
        let mut listed = publisher.scheduled("jobs").unwrap();
        while let Some(one) = listed.next().await.unwrap() {
            assert_eq!((one.at, one.event.is_some()), (at, true));
        }
        let worker = Setup::new(&server).start();
        eventually(PATIENCE, "all to be added", async || waiting(&mut redis).await == (0, 0)).await;
        let came: Vec<String> = entries(&mut redis, "jobs").await.into_iter()
            .map(|entry| Envelope::decode(entry.into()).unwrap().id().into_owned())
            .collect();
        let expected: Vec<String> = (0..1_700).filter(|n| ![3, 1_200].contains(n)).chain([3, 1_200]).map(id).collect();
        assert!(came == expected, "{:?}", came.iter().zip(&expected).enumerate().find(|(_, (a, b))| a != b));
        worker.stop().await;
    }

    async fn an_addition_whose_answer_got_lost_is_not_made_again(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = Proxy::start(server.port()).await;
        let worker = Setup::at(proxy.url()).start();
        let publisher = publisher(&server.url());
        for (id, was_done) in [("e-1", true), ("e-2", false)] {
            let step = scripts::call("add_due");
            let caught = if was_done { proxy.cut_after(step) } else { proxy.cut_before(step) };
            let due = schedule(&publisher, id, Duration::from_millis(1_500)).await;
            caught.within(PATIENCE).await;
            comes_in_time(&mut redis, id, due).await;
        }
        settled(&mut redis, "jobs", PATIENCE).await;
        assert!(came(&mut redis).await.values().all(|times| times.len() == 1));
        worker.stop().await;
    }

    async fn what_is_in_the_way_is_said_and_left_alone_and_work_goes_on(server: Server) {
        let mut redis = server.connect().await;
        let mut worker = Setup::new(&server).process();
        let due = schedule(&publisher(&server.url()), "waits", Duration::from_millis(1_500)).await;
        run(&mut redis, &["RENAME", "{jobs}:scheduled:events", "aside"]).await;
        run(&mut redis, &["SET", "{jobs}:scheduled:events", "in the way"]).await;
        let said = worker.wait_for_log("WRONGTYPE", PATIENCE).await;
        assert!(said.contains("adding events that are due to \"jobs\" from {jobs}:scheduled"), "{said}");
        assert!(said.contains("rename or delete it"), "{said}");
        run(&mut redis, &["RENAME", "{jobs}:scheduled", "aside:times"]).await;
        run(&mut redis, &["SET", "{jobs}:scheduled", "in the way"]).await;
        jobs::publish(&mut redis, "jobs", &[Job::new("other", Action::Succeed)]).await;
        eventually(PATIENCE, "other work to go on", async || jobs::handled(&mut redis).await.len() == 1).await;
        assert_eq!(came(&mut redis).await.len(), 1);
        let status = Cli::new(&server, "[worker]\nstreams = [\"jobs\"]\ngroup = \"workers\"").run(&["status"]).await.ok();
        for key in ["{jobs}:scheduled", "{jobs}:scheduled:events"] {
            assert!(status.contains(&format!("{key} is a string that is in the way")), "{status}");
        }
        run(&mut redis, &["RENAME", "aside", "{jobs}:scheduled:events"]).await;
        run(&mut redis, &["RENAME", "aside:times", "{jobs}:scheduled"]).await;
        let times = eventually(PATIENCE, "it to be added", async || came(&mut redis).await.remove("waits")).await;
        assert!(times.len() == 1 && times[0] >= due, "{times:?}");
        settled(&mut redis, "jobs", PATIENCE).await;
    }

    async fn a_redis_out_of_memory_keeps_what_is_due(server: Server) {
        let mut redis = server.connect().await;
        let mut worker = Setup::new(&server).process();
        worker.wait_for_log("the group is new", PATIENCE).await;
        let publisher = publisher(&server.url());
        for n in 0..5 {
            schedule(&publisher, &format!("e-{n}"), Duration::from_millis(1_200)).await;
        }
        run(&mut redis, &["CONFIG", "SET", "maxmemory", "1"]).await;
        let said = worker.wait_for_log("maxmemory is reached", PATIENCE).await;
        assert!(said.contains("adding events that are due"), "{said}");
        assert_eq!(waiting(&mut redis).await, (5, 5));
        assert!(came(&mut redis).await.is_empty());
        run(&mut redis, &["CONFIG", "SET", "maxmemory", "0"]).await;
        eventually(PATIENCE, "them to be added", async || waiting(&mut redis).await == (0, 0)).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::handled(&mut redis).await.len(), 5);
    }

    async fn what_other_hands_did_to_events_keeps_no_other_from_coming(server: Server) {
        let mut redis = server.connect().await;
        let publisher = publisher(&server.url());
        for id in ["deleted", "garbage", "nested", "whole"] {
            schedule(&publisher, id, Duration::from_millis(300)).await;
        }
        run(&mut redis, &["HDEL", "{jobs}:scheduled:events", "deleted"]).await;
        run(&mut redis, &["HSET", "{jobs}:scheduled:events", "garbage", "\u{1}garbage"]).await;
        // A list of a text and a list.
        let nested = b"\x92\xa1a\x91\xa1b";
        let _: i64 = redis::cmd("HSET").arg("{jobs}:scheduled:events").arg("nested").arg(&nested[..])
            .query_async(&mut redis).await.unwrap();
        let mut worker = Setup::new(&server).process();
        let said = worker.wait_for_log("LOST", PATIENCE).await;
        assert!(said.contains("deleted"), "{said}");
        eventually(PATIENCE, "the others to be added", async || waiting(&mut redis).await == (0, 0)).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::handled(&mut redis).await.len(), 1);
        assert_eq!(crate::support::dead(&mut redis).await, 2);
        assert_eq!(waiting(&mut redis).await, (0, 0));
    }

    async fn an_event_of_very_many_fields_comes_whole(server: Server) {
        let (fields, mut came) = mpsc::unbounded_channel();
        let registry = Registry::new().on_raw("test.wide", move |event: Envelope, _| {
            let fields = fields.clone();
            async move {
                let _ = fields.send((event.fields().len(), event.field("field-3999").map(str::to_owned)));
                Ok(())
            }
        });
        let worker = Setup::new(&server).start_with(registry);
        let mut event = Envelope::new("test.wide").json(&1).unwrap();
        for n in 0..4_000 {
            event = event.with(&format!("field-{n}"), n.to_string());
        }
        let publisher = publisher(&server.url());
        publisher.publish_envelope_after("jobs", event, Duration::from_millis(300)).await.unwrap();
        let kept = publisher.scheduled("jobs").unwrap().next().await.unwrap().unwrap();
        assert_eq!(kept.event.unwrap().field("field-3999"), Some("3999"));
        let told = tokio::time::timeout(PATIENCE, came.recv()).await.expect("it to come");
        // Type, content type, data, id and time.
        assert_eq!(told, Some((4_005, Some("3999".to_owned()))));
        worker.stop().await;
    }
}
