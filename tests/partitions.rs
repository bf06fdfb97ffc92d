//! A topic is spread over streams by subject: who publishes, who works and who operates says its name alone.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use streamhand::admin::Admin;
use streamhand::dead_letters::Filter;
use streamhand::{Context, Envelope, ErrorKind, Publisher, Registry, Settings, Worker};

use crate::support::jobs::{self, Action, Job};
use crate::support::{Cli, Server, Setup, eventually};

const PATIENCE: Duration = Duration::from_secs(30);
const PARTITIONS: usize = 16;

fn setup(server: &Server) -> Setup {
    Setup::new(server).stream(&format!("partitions = {PARTITIONS}"))
}

fn settings(setup: &Setup) -> Settings {
    Settings::from_toml_str(&setup.toml()).expect("settings")
}

fn publisher(setup: &Setup) -> Publisher {
    Publisher::of_settings(&settings(setup)).expect("a publisher")
}

/// The number of a partition, as anybody can work it out who has read the page.
fn partition(address: &str) -> usize {
    let hash = address
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    (hash % PARTITIONS as u64) as usize
}

fn stream_of(address: &str) -> String {
    format!("{{jobs:{}}}", partition(address))
}

async fn length(redis: &mut MultiplexedConnection, stream: &str) -> u64 {
    redis.xlen(stream).await.expect("a stream, or nothing")
}

/// What Redis has done so far: commands, those in scripts among them, and CPU time.
async fn done(redis: &mut MultiplexedConnection) -> (u64, f64) {
    let info: redis::InfoDict = redis::cmd("INFO").query_async(redis).await.unwrap();
    let cpu = |name| info.get::<f64>(name).unwrap();
    let commands = info.get("total_commands_processed").unwrap();
    (commands, cpu("used_cpu_user") + cpu("used_cpu_sys"))
}

fn job(id: &str, action: Action) -> Envelope {
    Envelope::new("test.job")
        .with("id", id)
        .json(&Job {
            id: id.to_owned(),
            action,
        })
        .expect("JSON")
}

/// Handlers that note each subject's numbers in the order in which they come.
fn noting() -> Registry {
    jobs::registry().on_raw(
        "test.noted",
        |envelope: Envelope, ctx: Context| async move {
            let subject = envelope.subject().unwrap_or_default().to_owned();
            let number: u64 = envelope.decode_data()?;
            ctx.redis()
                .await?
                .rpush::<_, _, ()>(format!("test:seen:{subject}"), number)
                .await?;
            ctx.emit_envelope("made", Envelope::new("test.made"));
            Ok(())
        },
    )
}

on_both_servers! {
    async fn a_topic_is_read_whole_by_its_workers_and_a_subject_stays_in_one_stream_in_order(server: Server) {
        let mut redis = server.connect().await;
        let setup = setup(&server).worker("concurrency = 1").more("[streams.made]\npartitions = 4");
        let publisher = publisher(&setup);
        let events: Vec<Envelope> = (0..400_u64)
            .map(|n| {
                let envelope = Envelope::new("test.noted").with("subject", format!("order:o-{}", n % 40));
                envelope.json(&n).unwrap()
            })
            .collect();
        let ids = publisher.publish_envelopes("jobs", events.clone()).await.unwrap();
        // Each result is that of the event at its place.
        let mut stored = BTreeMap::new();
        for number in 0..PARTITIONS {
            let stream = format!("{{jobs:{number}}}");
            for entry in crate::support::entries(&mut redis, &stream).await {
                let event = Envelope::decode(entry.clone().into()).unwrap();
                assert_eq!(stream, stream_of(event.subject().unwrap()));
                stored.insert(event.decode_data::<u64>().unwrap(), entry.id);
            }
        }
        assert_eq!(stored.into_values().collect::<Vec<_>>(), ids);
        assert_eq!(length(&mut redis, "jobs").await, 0);
        let kept: BTreeMap<String, String> = redis.hgetall("{jobs}:partitions").await.unwrap();
        assert_eq!(kept.into_iter().collect::<Vec<_>>(), [("1".to_owned(), PARTITIONS.to_string())]);
        assert_eq!(publisher.stream_of("jobs", &events[3]).await.unwrap(), stream_of("order:o-3"));

        let worker = setup.start_with(noting());
        eventually(PATIENCE, "all are handled, each subject in order", async || {
            let mut is_done = true;
            for n in 0..40 {
                let seen: Vec<u64> = redis.lrange(format!("test:seen:order:o-{n}"), 0, -1).await.unwrap();
                assert!(seen.is_sorted(), "{seen:?}");
                is_done &= seen.len() == 10;
            }
            is_done
        })
        .await;
        worker.stop().await;
        // What they emitted went by the subject it inherited.
        let mut made = 0;
        for n in 0..4 {
            made += length(&mut redis, &format!("{{made:{n}}}")).await;
        }
        assert_eq!((made, length(&mut redis, "made").await), (400, 0));
    }

    async fn a_topic_is_operated_by_its_name(server: Server) {
        let mut redis = server.connect().await;
        let setup = setup(&server);
        let (publisher, admin) = (publisher(&setup), Admin::new(&settings(&setup)).unwrap());
        let ids: Vec<String> = (0..40).map(|n| format!("j-{n}")).collect();
        let events = ids.iter().map(|id| job(id, Action::FailForGood));
        publisher.publish_envelopes("jobs", events).await.unwrap();
        // An event without a subject goes by its id. Once, and later, it goes to the same place.
        let once = job("once", Action::Succeed);
        assert!(publisher.publish_envelope_once("jobs", once.clone(), PATIENCE).await.unwrap().is_new);
        assert!(!publisher.publish_envelope_once("jobs", once, PATIENCE).await.unwrap().is_new);
        for n in 0..10_u64 {
            let later = job(&format!("later-{n}"), Action::Succeed);
            publisher.publish_envelope_after("jobs", later, Duration::from_secs(3600 - n)).await.unwrap();
        }
        let mut scheduled = publisher.scheduled("jobs").unwrap();
        let mut listed = Vec::new();
        while let Some(event) = scheduled.next().await.unwrap() {
            listed.push(event.id);
        }
        assert_eq!(listed, (0..10).rev().map(|n| format!("later-{n}")).collect::<Vec<_>>());
        assert!(publisher.cancel_scheduled("jobs", "later-3").await.unwrap());
        publisher.publish_envelope_after("jobs", job("soon", Action::Succeed), Duration::from_millis(200)).await.unwrap();

        let worker = setup.start();
        eventually(PATIENCE, "what was published once and what was due is handled", async || {
            let ended = jobs::ended(&mut redis).await;
            ["once", "soon"].iter().all(|id| ended.iter().filter(|trace| trace.id == *id).count() == 1)
        })
        .await;
        let dead = admin.dead_letters().unwrap();
        let count = async |filter: Filter| dead.select(filter).await.unwrap().count(|_| ()).await.unwrap().found;
        eventually(PATIENCE, "all that fail are dead letters", async || {
            count(Filter::new().stream("jobs")).await == 40
        })
        .await;
        assert_eq!(count(Filter::new().stream(stream_of("j-0"))).await, ids.iter().filter(|id| partition(id) == partition("j-0")).count() as u64);

        assert!(admin.pause("jobs", "me").await.unwrap().is_new);
        assert!(!admin.pause("jobs", "me").await.unwrap().is_new);
        let status = admin.status().await.unwrap();
        assert!(status.streams.iter().all(|stream| stream.paused.len() == 1));
        let [topic] = &status.topics[..] else { panic!("{:?}", status.topics) };
        assert_eq!((&topic.topic[..], topic.partitions, topic.dead), ("jobs", PARTITIONS, 40));
        assert_eq!((topic.length, topic.scheduled, topic.lag, topic.pending), (42, 9, Some(0), 0));
        assert!(topic.skew > 1.0 && topic.skew < 6.0, "{}", topic.skew);
        assert!(admin.resume("jobs").await.unwrap().was_paused);

        let worker_of = "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n[streams.jobs]\n";
        let cli = Cli::new(&server, &format!("{worker_of}partitions = {PARTITIONS}\n"));
        let told = cli.run(&["status"]).await.ok();
        assert!(told.contains(&format!("jobs ({PARTITIONS} partitions)")), "{told}");
        assert!(!told.contains("{jobs:3}"), "{told}");
        let told = cli.run(&["status", "--partitions"]).await.ok();
        assert!(told.contains("{jobs:3}") && told.contains("{jobs:15}"), "{told}");
        assert_eq!(cli.run(&["status", "--json"]).await.json()["topics"][0]["dead"], 40);
        assert_eq!(cli.run(&["dlq", "stats", "--stream", "jobs", "--json"]).await.json()["total"], 40);
        let before = length(&mut redis, &stream_of("order:o-1")).await;
        cli.run(&["publish", "jobs", "test.job", r#"{"id":"c","action":"succeed"}"#, "--subject", "order:o-1"]).await.ok();
        assert_eq!(length(&mut redis, &stream_of("order:o-1")).await, before + 1);
        worker.stop().await;
    }

    async fn sixty_four_partitions_at_rest_cost_little(server: Server) {
        const WORKERS: u32 = 4;
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).stream("partitions = 64").worker("lease = \"30s\"");
        let workers: Vec<_> = (0..WORKERS).map(|_| setup.start_with(noting())).collect();
        eventually(PATIENCE, "all have joined, and asked once", async || {
            let mut members = 0;
            for stream in ["{jobs:0}", "{jobs:63}"] {
                let consumers: redis::RedisResult<redis::streams::StreamInfoConsumersReply> =
                    redis.xinfo_consumers(stream, "workers").await;
                members += consumers.map_or(0, |reply| reply.consumers.len() as u32);
            }
            members == 2 * WORKERS
        })
        .await;
        let (commands, cpu) = done(&mut redis).await;
        let seconds = 6.0;
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        let (commands_then, cpu_then) = done(&mut redis).await;
        let rate = (commands_then - commands) as f64 / seconds / f64::from(WORKERS);
        let percent = (cpu_then - cpu) / seconds * 100.0;
        println!("64 partitions, {WORKERS} workers at rest: {rate:.0} commands a second of each, {percent:.1} % of a core of Redis");
        assert!(rate < 64.0 * 8.0, "{rate} commands a second of each worker");
        for worker in workers {
            worker.stop().await;
        }
    }

    async fn who_says_another_number_of_partitions_is_refused(server: Server) {
        let setup = setup(&server);
        publisher(&setup).publish_envelope("jobs", job("a", Action::Succeed)).await.unwrap();
        let wrong = setup.clone().stream("partitions = 8");
        let refused = publisher(&wrong).publish_envelope("jobs", job("b", Action::Succeed)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        let said = refused.to_string();
        assert!(said.contains("has 16 partitions") && said.contains("set to have 8"), "{said}");
        let worker = Worker::new(settings(&wrong), jobs::registry()).unwrap();
        let refused = worker.run(std::future::pending()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
        let plain = crate::support::publisher(&server.url());
        for (topic, many) in [("jobs", 0), ("jobs", 16385), ("{a}jobs", 4)] {
            assert_eq!(plain.clone().partitioned(topic, many).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
}

#[test]
fn partitions_that_can_t_be_are_refused_where_they_are_set() {
    let refused = |text: &str| Settings::from_toml_str(text).unwrap_err().to_string();
    let said = refused("[streams.orders]\npartitions = 0");
    assert!(said.contains("from 1 to 16384"), "{said}");
    let said = refused("[streams.\"{shop}.orders\"]\npartitions = 4");
    assert!(said.contains("tag"), "{said}");
    let said = refused(
        "[worker]\nstreams = [\"orders\", \"{orders:3}\"]\n[streams.orders]\npartitions = 4",
    );
    assert!(said.contains("is a partition of \"orders\""), "{said}");
}
