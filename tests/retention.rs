//! Streams that workers keep short, and what they say of what holds one back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use streamhand::{Context, EntryId, Failure, Registry};

use crate::support::jobs::{self, Action, Job, many};
use crate::support::trim::{Trim, ids, nothing_is_missing};
use crate::support::{Cli, CommandStats, Proxy, Server, Setup, all_pending, eventually, settled};

const PATIENCE: Duration = Duration::from_secs(40);

/// How often each job was handled, by its id.
type Handled = Arc<Mutex<BTreeMap<String, usize>>>;

/// Handlers that take so long, and of whose jobs every fiftieth fails at its first attempt.
fn registry(handled: &Handled, time: Duration) -> Registry {
    let handled = handled.clone();
    Registry::new().on_with(
        handled,
        move |handled: Handled, job: Job, ctx: Context| async move {
            if !time.is_zero() {
                tokio::time::sleep(time).await;
            }
            if job.id.ends_with("49") && ctx.attempt() == 1 {
                return Err(Failure::retry("asked to fail"));
            }
            *handled.lock().unwrap().entry(job.id).or_default() += 1;
            Ok(())
        },
    )
}

async fn length(redis: &mut MultiplexedConnection) -> usize {
    redis.xlen("jobs").await.expect("a stream, or nothing")
}

/// Publishes jobs, and answers their entries' ids.
async fn publish(redis: &mut MultiplexedConnection, jobs: &[Job]) -> Vec<EntryId> {
    let ids = jobs::publish(redis, "jobs", jobs).await;
    ids.iter().map(|id| id.parse().unwrap()).collect()
}

/// Waits until workers have had so many turns at trimming from now on.
async fn turns(redis: &mut MultiplexedConnection, turns: usize) {
    let mut seen = BTreeSet::new();
    eventually(PATIENCE, "turns at trimming", async || {
        let at: Option<String> = redis.hget("{jobs}:trimmed", "at").await.unwrap();
        seen.extend(at);
        seen.len() > turns
    })
    .await;
}

on_both_servers! {
    /// Two groups at work, one of them slow and failing; trimming always on.
    async fn nothing_unread_or_pending_is_trimmed_and_the_stream_does_not_grow(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).stream("retention = \"acked\"");
        let slow = setup.clone().worker("group = \"slow\"").worker("concurrency = 8").worker("prefetch = 16");
        let (by_fast, by_slow) = (Handled::default(), Handled::default());
        let fast = [(); 2].map(|()| setup.start_with(registry(&by_fast, Duration::ZERO)));
        let start_slow = || [(); 2].map(|()| slow.start_with(registry(&by_slow, Duration::from_millis(4))));
        let mut slow_ones = start_slow();
        eventually(PATIENCE, "both groups to be there", async || {
            let groups: redis::RedisResult<redis::streams::StreamInfoGroupsReply> =
                redis::cmd("XINFO").arg("GROUPS").arg("jobs").query_async(&mut redis).await;
            groups.is_ok_and(|groups| groups.groups.len() == 2)
        })
        .await;
        let (mut all, mut added) = (BTreeMap::new(), Vec::new());
        for wave in 0..3 {
            let jobs = many(&format!("wave-{wave}"), 2000, &Action::Nothing);
            all.extend(jobs.iter().map(|job| (job.id.clone(), 1)));
            for some in jobs.chunks(100) {
                added.extend(publish(&mut redis, some).await);
                nothing_is_missing(&mut redis, &added).await;
            }
            // It is empty once both have settled all: each wave is as long as the one before, and none is longer.
            eventually(PATIENCE, "the wave to be settled and trimmed", async || {
                match nothing_is_missing(&mut redis, &added).await {
                    0 => Ok(()),
                    left => Err(format!("{left} left")),
                }
            })
            .await;
        }
        // The slow one is away, with nothing pending, while another wave comes in.
        for worker in slow_ones {
            worker.stop().await;
        }
        let jobs = many("meanwhile", 500, &Action::Nothing);
        all.extend(jobs.iter().map(|job| (job.id.clone(), 1)));
        added.extend(publish(&mut redis, &jobs).await);
        settled(&mut redis, "jobs", PATIENCE).await;
        turns(&mut redis, 2).await;
        assert_eq!(nothing_is_missing(&mut redis, &added).await, 500);
        slow_ones = start_slow();
        eventually(PATIENCE, "the rest to be settled and trimmed", async || length(&mut redis).await == 0).await;
        for worker in fast.into_iter().chain(slow_ones) {
            worker.stop().await;
        }
        for handled in [&by_fast, &by_slow] {
            assert!(*handled.lock().unwrap() == all, "each job once by each group");
        }
    }

    async fn a_parked_entry_stays_until_it_is_handled_and_what_came_before_it_goes(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server)
            .stream("retention = \"acked\"")
            .retry("backoff = { initial = \"6s\", jitter = 0.0 }");
        let worker = setup.start();
        publish(&mut redis, &many("before", 150, &Action::Nothing)).await;
        let parked = publish(&mut redis, &[Job::new("parked", Action::Fail(1))]).await;
        let after = publish(&mut redis, &many("after", 150, &Action::Nothing)).await;
        eventually(PATIENCE, "what came before it to be trimmed", async || {
            let left = ids(&mut redis, "jobs").await;
            if left == [&parked[..], &after[..]].concat() { Ok(()) } else { Err(left.len()) }
        })
        .await;
        assert_eq!(all_pending(&mut redis).await, [parked[0].to_string()]);
        eventually(PATIENCE, "the rest to be trimmed", async || length(&mut redis).await == 0).await;
        assert_eq!(jobs::handled(&mut redis).await.get("parked"), Some(&1));
        worker.stop().await;
    }

    /// While another group's workers trim, and have settled all.
    async fn what_a_group_that_was_destroyed_had_parked_is_there_when_it_is_due(server: Server) {
        let mut redis = server.connect().await;
        let audit = Setup::new(&server).worker("group = \"audit\"").stream("retention = \"acked\"");
        let (other, handled) = (audit, Handled::default());
        let other = other.start_with(registry(&handled, Duration::ZERO));
        let worker = Setup::new(&server)
            .stream("retention = \"acked\"")
            .retry("backoff = { initial = \"25s\", jitter = 0.0 }")
            .start();
        publish(&mut redis, &[Job::new("parked", Action::Fail(1))]).await;
        publish(&mut redis, &many("after", 50, &Action::Nothing)).await;
        eventually(PATIENCE, "one to be parked and the others to be done", async || {
            redis.zcard::<_, usize>("{jobs}:workers:retry").await.unwrap() == 1
                && all_pending(&mut redis).await.len() == 1
                && handled.lock().unwrap().len() == 51
        })
        .await;
        // What the workers held is known to Redis with their next renewal.
        let begun = Instant::now();
        eventually(PATIENCE, "two leases to pass", async || begun.elapsed() > Duration::from_secs(4)).await;
        let _: () = redis.xgroup_destroy("jobs", "workers").await.unwrap();
        turns(&mut redis, 2).await;
        assert_eq!(jobs::starts_of(&mut redis, "parked").await, 1, "it is not due yet");
        eventually(PATIENCE, "it to be handled", async || {
            jobs::handled(&mut redis).await.contains_key("parked")
        })
        .await;
        eventually(PATIENCE, "all to be trimmed", async || length(&mut redis).await == 0).await;
        worker.stop().await;
        other.stop().await;
    }

    /// Of a name that is no text, as foreign clients may have them.
    async fn a_group_that_has_read_nothing_holds_and_a_destroyed_one_does_not(server: Server) {
        let mut redis = server.connect().await;
        let audit: &[u8] = b"audit \xff:1";
        let jobs = publish(&mut redis, &many("job", 300, &Action::Succeed)).await;
        let _: () = redis.xgroup_create("jobs", audit, "0").await.unwrap();
        let worker = Setup::new(&server).stream("retention = \"acked\"").start();
        eventually(PATIENCE, "all to be handled", async || jobs::handled(&mut redis).await.len() == 300).await;
        eventually(PATIENCE, "and acknowledged", async || all_pending(&mut redis).await.is_empty()).await;
        turns(&mut redis, 2).await;
        assert_eq!(ids(&mut redis, "jobs").await, jobs);
        let _: () = redis.xgroup_destroy("jobs", audit).await.unwrap();
        eventually(PATIENCE, "all to be trimmed", async || length(&mut redis).await == 0).await;
        worker.stop().await;
    }

    async fn three_workers_trim_as_often_as_one_and_where_nothing_is_kept_short_none_does(server: Server) {
        let mut redis = server.connect().await;
        let idle = Setup::new(&server).worker("group = \"idle\"").start();
        let settled_by_idle = publish(&mut redis, &many("job", 10, &Action::Nothing)).await;
        eventually(PATIENCE, "its dead letters to be looked at", async || CommandStats::of(&mut redis).await.calls("xlen") > 0).await;
        let since = Instant::now();
        eventually(PATIENCE, "some seconds", async || since.elapsed() > Duration::from_secs(5)).await;
        assert_eq!(CommandStats::of(&mut redis).await.calls("xtrim"), 0);
        assert!(!redis.exists::<_, bool>("{jobs}:trimmed").await.unwrap());
        assert!(!redis.exists::<_, bool>("{jobs}:idle:kept").await.unwrap());
        assert_eq!(length(&mut redis).await, settled_by_idle.len());

        let setup = Setup::new(&server).stream("retention = \"acked\"");
        let workers = [setup.start(), setup.start(), setup.start()];
        turns(&mut redis, 1).await;
        let (before, since) = (CommandStats::of(&mut redis).await.calls("xtrim"), Instant::now());
        eventually(PATIENCE, "some seconds", async || since.elapsed() > Duration::from_secs(10)).await;
        let sent = CommandStats::of(&mut redis).await.calls("xtrim") - before;
        // Two calls a turn, by nodes and exactly; every two seconds, and one more that was about to come.
        let most = 2 * (since.elapsed().as_secs() / 2 + 1);
        assert!((6..=most).contains(&sent), "{sent} of {most}");
        for worker in workers {
            worker.stop().await;
        }
        idle.stop().await;
    }

    async fn a_key_in_the_way_of_trimming_is_told_and_nothing_else_suffers(server: Server) {
        let mut redis = server.connect().await;
        let _: () = redis.set("{jobs}:trimmed", "x").await.unwrap();
        let mut worker = Setup::new(&server).stream("retention = \"acked\"").process();
        let said = worker.wait_for_log("WRONGTYPE", PATIENCE).await;
        assert!(said.contains("WARN") && said.contains("trimming \"jobs\""), "{said}");
        publish(&mut redis, &many("job", 100, &Action::Nothing)).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let config = "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n[streams.jobs]\nretention = \"acked\"";
        let out = Cli::new(&server, config).run(&["status"]).await.ok();
        assert!(out.contains("jobs: retention acked: ") && out.contains("WRONGTYPE"), "{out}");
        assert_eq!(length(&mut redis).await, 100);
        let _: () = redis.del("{jobs}:trimmed").await.unwrap();
        eventually(PATIENCE, "all to be trimmed", async || length(&mut redis).await == 0).await;
    }

    async fn a_group_that_holds_for_long_is_named_once_and_force_says_what_it_cost(server: Server) {
        let mut redis = server.connect().await;
        let _: () = redis.xgroup_create_mkstream("jobs", "audit", "0").await.unwrap();
        for ms in 1..=40 {
            let data = serde_json::to_string(&Job::new("old", Action::Nothing)).unwrap();
            let fields = [("type", "test.job"), ("data", &data)];
            let _: () = redis.xadd("jobs", format!("{ms}-0"), &fields).await.unwrap();
        }
        let mut worker = Setup::new(&server).stream("retention = \"acked\"").process();
        let said = worker.wait_for_log("holds the trimming back", PATIENCE).await;
        for word in ["WARN", "audit", "unread", "1-0", "40"] {
            assert!(said.contains(word), "{word}: {said}");
        }
        turns(&mut redis, 2).await;
        assert_eq!(worker.log().matches("holds the trimming back").count(), 1);
        assert_eq!(length(&mut redis).await, 40);
        worker.kill();

        let forced = Setup::new(&server).stream("retention = \"1h\"").stream("force = true");
        let mut worker = forced.process();
        let said = worker.wait_for_log("LOST TO TRIMMING", PATIENCE).await;
        assert!(said.contains("ERROR") && said.contains("count=40"), "{said}");
        assert_eq!(length(&mut redis).await, 0);
    }

    /// What a stream's retention and its lag look like before and after it is trimmed.
    async fn status_says_what_is_kept_what_holds_it_and_how_much_could_go(server: Server) {
        let mut redis = server.connect().await;
        let config = "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n[streams.jobs]\nretention = \"1000000\"";
        let count = Cli::new(&server, config);
        let acked = Cli::new(&server, &config.replace("1000000", "acked"));
        let json = async |cli: &Cli| cli.run(&["status", "--json"]).await.json()["streams"][0].take();
        let out = acked.run(&["status"]).await.ok();
        assert!(out.contains("jobs: retention acked: nothing is trimmed before the group is there"), "{out}");
        let added = publish(&mut redis, &many("job", 1500, &Action::Nothing)).await;
        for group in ["workers", "audit"] {
            let _: () = redis.xgroup_create("jobs", group, "0").await.unwrap();
        }
        let read = async |redis: &mut MultiplexedConnection, group: &str, count: usize, ack: bool| {
            let mut call = redis::cmd("XREADGROUP");
            call.arg("GROUP").arg(group).arg("c").arg("COUNT").arg(count);
            let _: redis::Value = call.arg("STREAMS").arg("jobs").arg(">").query_async(redis).await.unwrap();
            for id in added.iter().filter(|_| ack) {
                let _: () = redis.xack("jobs", group, &[id.to_string()]).await.unwrap();
            }
        };
        read(&mut redis, "workers", 1200, true).await;
        read(&mut redis, "audit", 700, true).await;
        read(&mut redis, "audit", 3, false).await;
        let before = json(&acked).await;
        let retention = &before["retention"];
        assert_eq!((&retention["keeps"], &retention["could_trim"]), (&"acked".into(), &700.into()));
        let held = &retention["held"];
        assert_eq!((&held["group"], &held["why"]), (&"audit".into(), &"pending".into()));
        assert_eq!((&held["pending"], &held["unread"]), (&3.into(), &797.into()));
        assert_eq!(held["from"], added[700].to_string());
        let out = acked.run(&["status"]).await.ok();
        let line = format!("jobs: retention acked: 700 entries could be trimmed; the group audit holds {}", added[700]);
        assert!(out.contains(&line) && out.contains("3 pending, 797 unread)"), "{out}");
        assert_eq!(json(&count).await["retention"]["could_trim"], 0);
        Trim::acked().all(&mut redis).await;
        let after = json(&acked).await;
        assert_eq!((&after["length"], &after["group"]["lag"]), (&800.into(), &300.into()));
        assert_eq!(before["group"]["lag"], after["group"]["lag"]);
        assert_eq!(after["retention"]["could_trim"], 0);
        // With all of it settled there is more than is counted.
        let _: () = redis.xgroup_destroy("jobs", "audit").await.unwrap();
        publish(&mut redis, &many("more", 1000, &Action::Nothing)).await;
        read(&mut redis, "workers", 2000, false).await;
        let pending = all_pending(&mut redis).await;
        for some in [pending, all_pending(&mut redis).await] {
            let _: () = redis.xack("jobs", "workers", &some).await.unwrap();
        }
        let rest = all_pending(&mut redis).await;
        if !rest.is_empty() {
            let _: () = redis.xack("jobs", "workers", &rest).await.unwrap();
        }
        let gone = json(&acked).await["retention"].take();
        assert_eq!((&gone["could_trim"], &gone["held"]["why"]), (&0.into(), &"gone".into()));
        // As if its grace were over.
        let _: () = redis.hdel("{jobs}:trimmed", "group:audit").await.unwrap();
        let json = json(&acked).await;
        let retention = &json["retention"];
        assert_eq!((&retention["could_trim"], &retention["could_trim_more"]), (&1000.into(), &true.into()));
        assert_eq!((&json["group"]["lag"], &retention["held"]), (&0.into(), &serde_json::Value::Null));
        let out = acked.run(&["status"]).await.ok();
        assert!(out.contains("jobs: retention acked: 1000+ entries could be trimmed; nothing is held"), "{out}");
    }

    /// Trimming goes over the connection that is there already.
    async fn a_worker_that_trims_has_no_more_connections(server: Server) {
        let mut redis = server.connect().await;
        let proxy = Proxy::start(server.port()).await;
        let worker = Setup::at(proxy.url()).stream("retention = \"acked\"").start();
        turns(&mut redis, 2).await;
        let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut redis).await.unwrap();
        let own = clients.lines().filter(|line| line.contains("name=streamhand:workers:")).count();
        assert!(own <= 5, "{clients}");
        worker.stop().await;
    }
}
