//! A topic grows while events are published to it and handled: none is lost or done twice, and none overtakes an earlier
//! one of its subject.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, RedisResult};
use serde_json::json;
use streamhand::admin::Admin;
use streamhand::{Context, Envelope, ErrorKind, Failure, Publisher, Registry, Settings};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::exporter::Exporter;
use crate::order::{all_ended, assert_in_order};
use crate::support::cluster::Cluster;
use crate::support::http::get;
use crate::support::jobs::{self, Action, Job};
use crate::support::{Cli, Kind, Server, Setup, eventually};

const PATIENCE: Duration = Duration::from_secs(40);
const SUBJECTS: u64 = 24;
/// The event that fails at its first attempt.
const FAILS: u64 = 7;
const SEAL: &str = "18446744073709551615-18446744073709551615";

/// What was handled, in order: the stream it came from, and its number.
type Seen = Arc<Mutex<Vec<(String, u64)>>>;

fn noting(seen: &Seen) -> Registry {
    let seen = seen.clone();
    Registry::new().on_raw("test.noted", move |envelope: Envelope, ctx: Context| {
        let seen = seen.clone();
        async move {
            let number: u64 = envelope.decode_data()?;
            if number == FAILS && ctx.attempt() == 1 {
                return Err(Failure::retry_after(Duration::from_secs(1), "once"));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
            ctx.emit_envelope("made", Envelope::new("test.made"));
            seen.lock().unwrap().push((ctx.stream().to_owned(), number));
            Ok(())
        }
    })
}

fn noted(number: u64) -> Envelope {
    let subject = format!("order:o-{}", number % SUBJECTS);
    let envelope = Envelope::new("test.noted").with("subject", subject);
    envelope.json(&number).unwrap()
}

fn settings(setup: &Setup) -> Settings {
    Settings::from_toml_str(&setup.toml()).expect("settings")
}

fn publisher(setup: &Setup) -> Publisher {
    Publisher::of_settings(&settings(setup)).expect("a publisher")
}

/// Publishes one after the other until it is told to stop. Returns how many.
fn publishing(publisher: Publisher, stop: CancellationToken) -> JoinHandle<u64> {
    tokio::spawn(async move {
        let mut number = 0;
        while !stop.is_cancelled() {
            let envelope = noted(number);
            publisher
                .publish_envelope("jobs", envelope)
                .await
                .expect("it to be published");
            number += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        number
    })
}

fn is_second(stream: &str) -> bool {
    stream.starts_with("{jobs:2.")
}

/// Each was handled once; those of the first generation before any of the second, and so each subject in order, as far
/// as `in_order` handlers ran one at a time.
fn are_right(seen: &Seen, count: u64, in_order: bool) {
    let seen = seen.lock().unwrap();
    let numbers: BTreeSet<u64> = seen.iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, (0..count).collect());
    assert_eq!(seen.len() as u64, count, "each once");
    let first = seen.iter().position(|(stream, _)| is_second(stream));
    let last = seen.iter().rposition(|(stream, _)| !is_second(stream));
    assert!(
        last < first,
        "the second began at {first:?}, the first ended at {last:?}"
    );
    let mut of_subject: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (_, number) in seen.iter().filter(|(_, number)| *number != FAILS) {
        of_subject
            .entry(number % SUBJECTS)
            .or_default()
            .push(*number);
    }
    if in_order {
        assert!(
            of_subject.values().all(|seen| seen.is_sorted()),
            "{of_subject:?}"
        );
    }
}

async fn pending(redis: &mut MultiplexedConnection, stream: &str) -> u64 {
    let pending: redis::streams::StreamPendingReply =
        redis.xpending(stream, "workers").await.unwrap();
    pending.count() as u64
}

on_both_servers! {
    async fn a_topic_grows_under_load_and_nothing_overtakes(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server)
            .stream("partitions = 4")
            .worker("concurrency = 1")
            .more("[streams.made]\npartitions = 2\n");
        let publisher = publisher(&setup);
        let seen = Seen::default();
        let worker = setup.start_with(noting(&seen));
        let stop = CancellationToken::new();
        let publishing = publishing(publisher.clone(), stop.clone());
        eventually(PATIENCE, "some are handled", async || seen.lock().unwrap().len() > 50).await;

        let worker_of = "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n[streams.jobs]\npartitions = 4\n";
        let cli = Cli::new(&server, worker_of);
        let exporter = Exporter::start(&cli).await;
        let grown = cli.run(&["topic", "grow", "jobs", "--to", "10", "--json"]).await.json();
        assert_eq!(grown["generations"], json!([4, 10]));
        let before = seen.lock().unwrap().len();
        // Others see that it is sealed, too.
        let foreign: RedisResult<String> = redis.xadd("{jobs:0}", "*", &[("type", "a.b")]).await;
        assert!(foreign.unwrap_err().to_string().contains("exhausted"));
        eventually(PATIENCE, "the exporter to tell of new partitions", async || {
            let told = get(exporter.at, "/scale").await.unwrap().json();
            told["streams"]["{jobs:3}"].is_object() && told["streams"]["{jobs:2.9}"].is_object()
        })
        .await;
        // What is emitted follows its topic as well.
        cli.run(&["topic", "grow", "made", "--to", "5"]).await.ok();
        eventually(PATIENCE, "some of the second are handled", async || {
            let seen = seen.lock().unwrap();
            seen.iter().filter(|(stream, _)| is_second(stream)).count() > 100 && seen.len() > before
        })
        .await;
        stop.cancel();
        let count = publishing.await.unwrap();
        eventually(PATIENCE, "all are handled", async || seen.lock().unwrap().len() as u64 >= count).await;
        let shown = cli.run(&["topic", "show", "jobs"]).await.ok();
        assert!(shown.contains("10 partitions") && shown.contains("4 partitions, sealed; settled by workers"), "{shown}");
        let status = cli.run(&["status", "--json"]).await.json();
        assert_eq!(status["topics"][0]["partitions"], 14);
        assert_eq!((&status["topics"][0]["lag"], &status["topics"][0]["length"]), (&json!(0), &json!(count)));
        // Who begins now knows what it has grown to.
        let stream = self::publisher(&setup).stream_of("jobs", &noted(3)).await.unwrap();
        assert!(is_second(&stream), "{stream}");
        worker.stop().await;
        are_right(&seen, count, true);
        for stream in (0..4).map(|n| format!("{{jobs:{n}}}")).chain((0..10).map(|n| format!("{{jobs:2.{n}}}"))) {
            assert_eq!(pending(&mut redis, &stream).await, 0, "{stream}");
            assert_eq!(redis.xlen::<_, u64>(format!("{stream}:workers:dead")).await.unwrap(), 0);
        }
        let mut made = 0;
        for stream in ["{made:0}", "{made:1}"] {
            let last: Vec<(String, Vec<String>)> = redis.xrevrange_count(stream, "+", "-", 1).await.unwrap();
            assert_eq!(last[0].0, SEAL);
            made += redis.xlen::<_, u64>(stream).await.unwrap() - 1;
        }
        let mut later = 0;
        for n in 0..5 {
            later += redis.xlen::<_, u64>(format!("{{made:2.{n}}}")).await.unwrap();
        }
        assert!(later > 0);
        assert_eq!(made + later, count);
    }

    async fn what_is_kept_and_known_goes_along(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).stream("partitions = 4");
        let stale = publisher(&setup);
        let job = |id: &str, action| Envelope::new("test.job").with("id", id).json(&Job::new(id, action)).unwrap();
        let once = stale.publish_envelope_once("jobs", job("once", Action::Succeed), PATIENCE).await.unwrap();
        stale.publish_envelope("jobs", job("dead", Action::FailForGood)).await.unwrap();
        let hour = Duration::from_secs(3600);
        let late = stale.publish_envelope_after("jobs", job("late", Action::Succeed), hour).await.unwrap();
        stale.publish_envelope_after("jobs", job("soon", Action::Succeed), Duration::from_millis(1500)).await.unwrap();
        let admin = Admin::new(&settings(&setup)).unwrap();
        admin.grow("jobs", 9).await.unwrap();

        // It knows what was published and scheduled before, and where what is new goes to.
        for publisher in [stale.clone(), publisher(&setup)] {
            let again = publisher.publish_envelope_once("jobs", job("once", Action::Succeed), PATIENCE).await.unwrap();
            assert_eq!((again.entry, again.is_new), (once.entry, false));
            let again = publisher.publish_envelope_after("jobs", job("late", Action::Succeed), hour).await.unwrap();
            assert_eq!((again.at, again.is_new), (late.at, false));
        }
        assert!(stale.publish_envelope_once("jobs", job("new", Action::Succeed), PATIENCE).await.unwrap().is_new);
        assert!(!stale.publish_envelope_once("jobs", job("new", Action::Succeed), PATIENCE).await.unwrap().is_new);
        stale.publish_envelope_after("jobs", job("then", Action::Succeed), Duration::from_millis(300)).await.unwrap();
        let worker = setup.start();
        eventually(PATIENCE, "what was due is handled, once", async || {
            let handled = jobs::handled(&mut redis).await;
            ["once", "soon", "new", "then"].iter().all(|id| handled.get(*id) == Some(&1))
        })
        .await;
        let mut first = 0;
        for n in 0..4 {
            first += redis.xlen::<_, u64>(format!("{{jobs:{n}}}")).await.unwrap();
        }
        assert_eq!(first, 2 + 4, "two events and the seals");
        // Dead letters of old partitions are replayed.
        let cli = Cli::new(&server, "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n[streams.jobs]\npartitions = 4\n");
        eventually(PATIENCE, "a dead letter", async || {
            cli.run(&["dlq", "stats", "--stream", "jobs", "--json"]).await.json()["total"] == 1
        })
        .await;
        let starts = jobs::starts_of(&mut redis, "dead").await;
        cli.run(&["dlq", "replay", "--all", "--stream", "jobs", "--yes"]).await.ok();
        eventually(PATIENCE, "it comes again", async || jobs::starts_of(&mut redis, "dead").await == starts + 1).await;
        let listed = cli.run(&["scheduled", "list", "jobs", "--json"]).await.ok();
        assert!(listed.contains("\"late\""), "{listed}");
        assert!(admin.clone().grown().await.unwrap().cancel_scheduled("jobs", &[streamhand::admin::ScheduledId::new("late")]).await.is_ok());
        worker.stop().await;
        let ended = jobs::ended(&mut redis).await;
        let count = |id: &str| ended.iter().filter(|trace| trace.id == id).count();
        assert_eq!((count("once"), count("soon"), count("new"), count("then")), (1, 1, 1, 1));
    }

    async fn a_seal_that_was_lost_holds_nothing_up(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).stream("partitions = 3");
        let publisher = publisher(&setup);
        let seen = Seen::default();
        publisher.publish_envelopes("jobs", (0..30).map(noted)).await.unwrap();
        Admin::new(&settings(&setup)).unwrap().grow("jobs", 4).await.unwrap();
        publisher.publish_envelopes("jobs", (30..60).map(noted)).await.unwrap();
        // One is deleted, one is trimmed to nothing, and of one the last entry was lost in a failover.
        let second = redis.xlen::<_, u64>("{jobs:2.0}").await.unwrap();
        assert!(second > 0);
        let () = redis.del("{jobs:0}").await.unwrap();
        let lost = redis.xlen::<_, u64>("{jobs:1}").await.unwrap();
        assert!(lost > 1);
        let _: u64 = redis.xtrim("{jobs:1}", redis::streams::StreamMaxlen::Equals(0)).await.unwrap();
        let third: Vec<(String, Vec<String>)> = redis.xrange_all("{jobs:2}").await.unwrap();
        let () = redis.del("{jobs:2}").await.unwrap();
        for (id, fields) in third.iter().filter(|(id, _)| id != SEAL) {
            let _: String = redis::cmd("XADD").arg("{jobs:2}").arg(id).arg(fields).query_async(&mut redis).await.unwrap();
        }
        let worker = setup.start_with(noting(&seen));
        let wanted = 30 + third.len() - 1;
        eventually(PATIENCE, "what is left is handled", async || seen.lock().unwrap().len() >= wanted).await;
        for n in 0..3 {
            let foreign: RedisResult<String> = redis.xadd(format!("{{jobs:{n}}}"), "*", &[("type", "a.b")]).await;
            assert!(foreign.unwrap_err().to_string().contains("exhausted"), "{n}");
        }
        worker.stop().await;
    }

    /// A dead letter of the old partitions comes before what is new of its subject, wherever that is.
    async fn an_order_is_kept_and_what_is_held_holds_up_what_is_new(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server)
            .stream("partitions = 2\norder = \"subject\"")
            .worker("lease = \"1s\"");
        let mended = Arc::new(AtomicBool::new(false));
        let registry = || {
            let mended = mended.clone();
            Registry::new().on(move |job: Job, ctx: Context| {
                let mended = mended.clone();
                async move {
                    if job.id == "a/2" && !mended.load(Ordering::SeqCst) {
                        return Err(Failure::permanent("broken"));
                    }
                    jobs::handle(job, ctx).await
                }
            })
        };
        let workers = [setup.start_with(registry()), setup.start_with(registry())];
        let publisher = publisher(&setup);
        let round = |number: usize| -> Vec<Job> {
            let action = |of| match (of + number) % 3 {
                0 => Action::Fail(1),
                _ => Action::Take(20),
            };
            let job = |of| Job::new(format!("s{of}/{number}"), action(of));
            let held = Job::new(format!("a/{number}"), Action::Succeed);
            (0..12).map(job).chain([held]).collect()
        };
        let publish = async |numbers: std::ops::RangeInclusive<usize>| {
            let jobs: Vec<Job> = numbers.flat_map(round).collect();
            for job in &jobs {
                let (subject, _) = job.id.split_once('/').unwrap();
                let envelope = Envelope::new("test.job").with("subject", subject);
                publisher.publish_envelope("jobs", envelope.json(job).unwrap()).await.unwrap();
            }
            jobs
        };
        let mut all = publish(1..=2).await;
        let but_held = |jobs: &[Job]| -> Vec<Job> { jobs.iter().filter(|job| job.id != "a/2").cloned().collect() };
        all_ended(&mut redis, &but_held(&all)).await;
        let worker_of = "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n[streams.jobs]\npartitions = 2\n";
        let cli = Cli::new(&server, worker_of);
        eventually(PATIENCE, "a dead letter", async || cli.run(&["dlq", "stats", "--json"]).await.json()["total"] == 1).await;
        Admin::new(&settings(&setup)).unwrap().grow("jobs", 5).await.unwrap();
        all.extend(publish(3..=5).await);
        // All that is pending is the letter, which is not; what is new waits for it.
        for stream in ["{jobs:0}", "{jobs:1}"] {
            eventually(PATIENCE, "the old ones to be read to their end", async || {
                let groups: redis::streams::StreamInfoGroupsReply = redis.xinfo_groups(stream).await.unwrap();
                let group = &groups.groups[0];
                group.pending == 0 && group.last_delivered_id == SEAL
            })
            .await;
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let early = jobs::started(&mut redis).await.into_iter().find(|trace| !trace.id.ends_with(['1', '2']));
        assert!(early.is_none(), "{early:?}");
        mended.store(true, Ordering::SeqCst);
        cli.run(&["dlq", "replay", "--all"]).await.ok();
        all_ended(&mut redis, &all).await;
        assert_in_order(&mut redis).await;
        assert!(jobs::handled(&mut redis).await.values().all(|times| *times == 1));
        for worker in workers {
            worker.stop().await;
        }
    }

    async fn a_growth_that_was_begun_is_finished_by_whoever_meets_it(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).stream("partitions = 2");
        let publisher = publisher(&setup);
        publisher.publish_envelope("jobs", noted(0)).await.unwrap();
        for group in ["others", "late"] {
            let () = redis.xgroup_create_mkstream("{jobs:1}", group, "$").await.unwrap();
        }
        let () = redis.hset_nx("{jobs}:partitions", "sealing:2", 5).await.unwrap();
        let _: String = redis.xadd("{jobs:0}", SEAL, &[("type", "streamhand.sealed")]).await.unwrap();
        let _: RedisResult<String> = redis.xadd("{jobs:1}", SEAL, &[("type", "streamhand.sealed")]).await;
        // Another number is refused; the publisher goes on with what was begun.
        let admin = Admin::new(&settings(&setup)).unwrap();
        let refused = admin.grow("jobs", 6).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Exists, "{refused}");
        publisher.publish_envelopes("jobs", (1..40).map(noted)).await.unwrap();
        assert_eq!(redis.hget::<_, _, u32>("{jobs}:partitions", "2").await.unwrap(), 5);
        let groups: Vec<redis::Value> = redis::cmd("XINFO").arg("GROUPS").arg("{jobs:2.4}").query_async(&mut redis).await.unwrap();
        assert_eq!(groups.len(), 2, "the groups are there, at the beginning");
        assert_eq!(admin.grow("jobs", 5).await.unwrap().generations, [2, 5]);
        for (topic, to) in [("jobs", 4), ("jobs", 0), ("none", 4)] {
            assert_eq!(admin.grow(topic, to).await.unwrap_err().kind(), ErrorKind::Invalid);
        }
        let () = redis.set("{jobs:2.0}:reached", "1-0").await.unwrap();
        let refused = admin.grow("jobs", 8).await.unwrap_err().to_string();
        assert!(refused.contains("aggregates"), "{refused}");
    }
}

on_both_servers! {
    /// Sixteen partitions over three masters become twenty-four: workers take up shards for the new ones.
    async fn a_topic_of_a_cluster_grows_under_load(kind: Kind) {
        let cluster = Cluster::start(kind, 3, false).await;
        let server = cluster.node(0);
        let setup = Setup::new(server)
            .stream("partitions = 16")
            .worker("concurrency = 8")
            .more("[streams.made]\npartitions = 2\n");
        let publisher = publisher(&setup);
        let seen = Seen::default();
        let workers = [setup.start_with(noting(&seen)), setup.start_with(noting(&seen))];
        let stop = CancellationToken::new();
        let publishing = publishing(publisher.clone(), stop.clone());
        eventually(PATIENCE, "some of each are handled", async || {
            let seen = seen.lock().unwrap();
            let streams: BTreeSet<&String> = seen.iter().map(|(stream, _)| stream).collect();
            streams.len() > 8 && seen.len() > 100
        })
        .await;
        let admin = Admin::new(&settings(&setup)).unwrap();
        assert_eq!(admin.grow("jobs", 24).await.unwrap().generations, [16, 24]);
        eventually(PATIENCE, "many of the second are handled", async || {
            let seen = seen.lock().unwrap();
            seen.iter().filter(|(stream, _)| is_second(stream)).count() > 100
        })
        .await;
        admin.grow("made", 4).await.unwrap();
        let so_far = seen.lock().unwrap().len();
        eventually(PATIENCE, "more are handled", async || seen.lock().unwrap().len() > so_far + 100).await;
        stop.cancel();
        let count = publishing.await.unwrap();
        eventually(PATIENCE, "all are handled", async || seen.lock().unwrap().len() as u64 >= count).await;
        let made = async || {
            let admin = admin.clone().for_streams(["made"]).unwrap().grown().await.unwrap();
            admin.status().await.unwrap().streams.iter().map(|stream| stream.length).sum::<u64>()
        };
        eventually(PATIENCE, "all that was emitted gets there", async || made().await == count).await;
        for worker in workers {
            assert_eq!(worker.stop().await.unsettled, 0);
        }
        are_right(&seen, count, false);
        let status = admin.grown().await.unwrap().status().await.unwrap();
        assert!(status.streams.iter().all(|stream| stream.dead == 0));
        assert_eq!((status.topics[0].pending, status.topics[0].lag), (0, Some(0)));
    }
}

on_both_servers! {
    /// The shards that come while a worker runs keep the order as well.
    async fn an_order_is_kept_where_a_topic_of_a_cluster_grows(kind: Kind) {
        let cluster = Cluster::start(kind, 3, false).await;
        let server = cluster.node(0);
        let setup = Setup::new(server)
            .stream("partitions = 2\norder = \"subject\"")
            .worker("concurrency = 8")
            .worker("lease = \"1s\"");
        let publisher = publisher(&setup);
        let seen = Seen::default();
        let workers = [setup.start_with(noting(&seen)), setup.start_with(noting(&seen))];
        publisher.publish_envelopes("jobs", (0..150).map(noted)).await.unwrap();
        Admin::new(&settings(&setup)).unwrap().grow("jobs", 5).await.unwrap();
        publisher.publish_envelopes("jobs", (150..300).map(noted)).await.unwrap();
        eventually(PATIENCE, "all are handled", async || seen.lock().unwrap().len() >= 300).await;
        for worker in workers {
            assert_eq!(worker.stop().await.unsettled, 0);
        }
        are_right(&seen, 300, true);
        let seen = seen.lock().unwrap();
        let subject = seen.iter().map(|(_, number)| *number).filter(|number| number % SUBJECTS == FAILS % SUBJECTS);
        assert!(subject.is_sorted(), "what comes behind one that fails waits for it: {seen:?}");
    }
}
