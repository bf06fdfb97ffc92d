//! Which event is this: source, id and type together say it, an empty id says nothing, and a time is one wherever its
//! clock stood.

use std::time::{Duration, SystemTime};

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use streamhand::{Context, Envelope, ErrorKind, Failure, Publisher, Registry};

use crate::support::jobs::{self, Action, Job};
use crate::support::{Cli, Server, Setup, add, dead, entries, eventually, publisher, settled};

const PATIENCE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

/// An entry of a job called `name`, with these fields before its data.
async fn entry(redis: &mut MultiplexedConnection, fields: &[(&str, &str)], name: &str) {
    let data = serde_json::to_string(&Job::new(name, Action::Succeed)).unwrap();
    entry_of(redis, fields, &data).await;
}

async fn entry_of(redis: &mut MultiplexedConnection, fields: &[(&str, &str)], data: &str) {
    let fields = [fields, &[("data", data)]].concat();
    let fields = fields
        .iter()
        .map(|(name, value)| (name.to_string().into(), value.to_string().into()));
    add(redis, "jobs", &fields.collect()).await;
}

async fn keys(redis: &mut MultiplexedConnection, pattern: &str) -> Vec<String> {
    redis.keys(pattern).await.unwrap()
}

/// Handlers that leave the id of their job in a list: of `test.job` and of `test.other`.
fn two_types() -> Registry {
    async fn handle(envelope: Envelope, ctx: Context) -> Result<(), Failure> {
        let job: Job = envelope.decode_data()?;
        let _: () = ctx.redis().await?.rpush("ran", job.id).await?;
        Ok(())
    }
    Registry::new()
        .on_raw("test.job", handle)
        .on_raw("test.other", handle)
}

fn setup(server: &Server) -> Setup {
    Setup::new(server).defaults("deduplicate = \"1h\"")
}

/// Four events under one id, and a fifth that only looks like one of them.
fn under_one_id() -> [Envelope; 5] {
    let event =
        |event_type: &str, id: &str| Envelope::new(event_type).with("id", id).json(&1).unwrap();
    [
        event("test.job", "7"),
        event("test.other", "7"),
        event("test.job", "7").with("source", "a"),
        event("test.job", "7").with("source", "b"),
        event("test.job", "a:7").with("source", "b"),
    ]
}

async fn scheduled(publisher: &Publisher) -> Vec<(String, String)> {
    let mut list = publisher.scheduled("jobs").unwrap();
    let mut found = Vec::new();
    while let Some(one) = list.next().await.unwrap() {
        let event = one.event.expect("an event");
        found.push((
            one.id,
            format!("{} {}", event.event_type(), event.source().unwrap_or("-")),
        ));
    }
    found.sort();
    found
}

on_both_servers! {
    async fn an_empty_id_makes_no_copies_of_events_that_have_it(server: Server) {
        let mut redis = server.connect().await;
        for name in ["one", "two", "three"] {
            entry(&mut redis, &[("type", "test.job"), ("id", ""), ("source", "")], name).await;
        }
        let worker = setup(&server).start();
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::handled(&mut redis).await.len(), 3);
        assert_eq!(keys(&mut redis, "*seen*").await, [""; 0]);
        worker.stop().await;
    }

    async fn what_is_empty_when_it_is_published_is_filled_in(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "");
        let line = r#"{"type":"test.job","data":1,"id":"","source":"","subject":"","time":""}"#.to_owned() + "\n";
        let lines = line.repeat(2);
        let args = ["publish", "jobs", "--envelopes", "--source", "shop"];
        cli.run_with(&args, lines.as_bytes()).await.ok();
        let stored: Vec<Envelope> = entries(&mut redis, "jobs").await.into_iter()
            .map(|entry| Envelope::decode(entry.into()).unwrap())
            .collect();
        assert_eq!(stored.len(), 2);
        assert_ne!(stored[0].id(), stored[1].id());
        for event in &stored {
            assert_eq!((event.id().len(), event.source(), event.subject()), (36, Some("shop"), None));
            assert!(event.field("time").is_some_and(|time| time.ends_with('Z')));
        }
        let out = cli.run_with(&[&args[..], &["--delay", "1h"]].concat(), lines.as_bytes()).await.ok();
        assert_eq!(out, "scheduled 2\n");
        assert_eq!(scheduled(&publisher(&server.url())).await.len(), 2);
        let out = cli.run(&["publish", "jobs", "test.job", "1", "--id", "", "--delay", "1h"]).await.ok();
        assert_eq!(out.trim().len(), 36, "{out}");
        cli.run_with(&[&args[..], &["--once"]].concat(), lines.as_bytes()).await.failed(1);
        // From the library as well.
        let empty = Envelope::new("test.job").with("id", "").json(&1).unwrap();
        let publisher = publisher(&server.url());
        publisher.publish_envelope("jobs", empty.clone()).await.unwrap();
        assert_eq!(entries(&mut redis, "jobs").await.len(), 3);
        assert_eq!(publisher.publish_envelope_after("jobs", empty, HOUR).await.unwrap().id.len(), 36);
    }

    async fn what_a_handler_emits_with_an_empty_id_gets_one(server: Server) {
        let mut redis = server.connect().await;
        let registry = Registry::new().on(async |_: Job, ctx: Context| {
            for _ in 0..2 {
                ctx.emit_envelope("out", Envelope::new("test.emitted").with("id", "").with("source", "").json(&1)?);
            }
            Ok(())
        });
        let worker = Setup::new(&server).start_with(registry);
        entry(&mut redis, &[("type", "test.job"), ("correlationid", "")], "a").await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let out: Vec<Envelope> = entries(&mut redis, "out").await.into_iter()
            .map(|entry| Envelope::decode(entry.into()).unwrap())
            .collect();
        assert_eq!((out.len(), out[0].id().len(), out[0].source()), (2, 36, Some("workers")));
        assert_ne!(out[0].id(), out[1].id());
        assert_ne!(out[0].field("correlationid"), Some(""));
        worker.stop().await;
    }

    async fn events_of_other_types_and_sources_under_one_id_all_run(server: Server) {
        let mut redis = server.connect().await;
        let worker = setup(&server).start_with(two_types());
        for _ in 0..2 {
            entry(&mut redis, &[("type", "test.job"), ("id", "7")], "plain").await;
            entry(&mut redis, &[("type", "test.other"), ("id", "7")], "other").await;
            entry(&mut redis, &[("type", "test.job"), ("id", "7"), ("source", "a")], "a").await;
            entry(&mut redis, &[("source", "b"), ("type", "test.job"), ("id", "7")], "b").await;
            entry(&mut redis, &[("type", "test.job"), ("id", "7"), ("source", "")], "plain").await;
            // Separators in them do not make others of them.
            entry(&mut redis, &[("type", "test.job"), ("id", "a:7"), ("source", "b")], "b, a:7").await;
            entry(&mut redis, &[("type", "test.job"), ("id", "7"), ("source", "b:a")], "b:a, 7").await;
            settled(&mut redis, "jobs", PATIENCE).await;
        }
        let mut ran: Vec<String> = redis.lrange("ran", 0, -1).await.unwrap();
        ran.sort();
        assert_eq!(ran, ["a", "b", "b, a:7", "b:a, 7", "other", "plain"]);
        assert_eq!(dead(&mut redis).await, 0);
        worker.stop().await;
    }

    async fn a_mark_is_short_however_long_an_id_is(server: Server) {
        let mut redis = server.connect().await;
        let worker = setup(&server).start();
        let long = "x".repeat(1 << 20);
        for id in [format!("{long}1"), format!("{long}2")] {
            for _ in 0..2 {
                entry(&mut redis, &[("type", "test.job"), ("id", &id)], &id[1 << 20..]).await;
            }
        }
        settled(&mut redis, "jobs", PATIENCE).await;
        let handled = jobs::handled(&mut redis).await;
        assert_eq!((handled["1"], handled["2"], handled.len()), (1, 1, 2));
        let publisher = publisher(&server.url());
        for _ in 0..2 {
            publisher.publish_once("jobs", &long, &Job::new("3", Action::Succeed), HOUR).await.unwrap();
        }
        let marks = [keys(&mut redis, "*seen*").await, keys(&mut redis, "*published*").await].concat();
        assert!(marks.len() >= 3 && marks.iter().all(|key| key.len() < 100), "{marks:?}");
        worker.stop().await;
    }

    async fn a_copy_with_other_data_is_not_handled_and_warned_of(server: Server) {
        let mut redis = server.connect().await;
        let mut worker = setup(&server).process();
        let id: &[(&str, &str)] = &[("type", "test.job"), ("id", "7"), ("source", "shop")];
        entry(&mut redis, id, "first").await;
        settled(&mut redis, "jobs", PATIENCE).await;
        // The same members in another order are the same data.
        let same = r#"{ "action": "succeed", "id": "first" }"#;
        entry_of(&mut redis, id, same).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert!(!worker.log().contains("WARN"), "{}", worker.log());
        entry(&mut redis, id, "second").await;
        let warned = worker.wait_for_log("other data", PATIENCE).await;
        assert!(warned.contains("WARN") && warned.contains('7') && warned.contains("shop"), "{warned}");
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::handled(&mut redis).await.len(), 1);
        assert_eq!(dead(&mut redis).await, 0);
    }

    async fn events_under_one_id_are_each_published_once(server: Server) {
        let mut redis = server.connect().await;
        let publisher = publisher(&server.url());
        for is_new in [true, false] {
            for event in under_one_id() {
                let once = publisher.publish_envelope_once("jobs", event, HOUR).await.unwrap();
                assert_eq!(once.is_new, is_new);
            }
        }
        let other = Envelope::new("test.job").with("id", "7").with("source", "a").json(&2).unwrap();
        let refused = publisher.publish_envelope_once("jobs", other, HOUR).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Exists);
        let first = entries(&mut redis, "jobs").await[2].id;
        assert_eq!(refused.to_string(), format!("an event test.job with the id \"7\" of the source \"a\" was published \
            before, as entry {first}, with other data: what is another event needs another id"));
        // The same data, written in another order and in another format.
        let once = |event| publisher.publish_envelope_once("jobs", event, HOUR);
        let event = || Envelope::new("test.job").with("id", "8");
        assert!(once(event().with("data", r#"{"a":1,"b":[2,{"c":null,"d":"x"}]}"#)).await.unwrap().is_new);
        assert!(!once(event().with("data", r#"{ "b":[2,{"d":"x","c":null}], "a":1 }"#)).await.unwrap().is_new);
        let data = serde_json::json!({"a": 1, "b": [2, {"c": null, "d": "x"}]});
        assert!(!once(event().msgpack(&data).unwrap()).await.unwrap().is_new);
        assert_eq!(entries(&mut redis, "jobs").await.len(), 6);

        let cli = Cli::new(&server, "");
        let lines = "{\"type\":\"test.new\",\"data\":1,\"id\":\"7\"}\n{\"type\":\"test.job\",\"data\":2,\"id\":\"7\"}\n";
        let err = cli.run_with(&["publish", "jobs", "--envelopes", "--once"], lines.as_bytes()).await.failed(1);
        assert!(err.contains("line 2: ") && err.contains("with other data"), "{err}");
        assert_eq!(entries(&mut redis, "jobs").await.len(), 7);
    }

    async fn events_under_one_id_all_wait_for_their_time_and_each_can_be_cancelled(server: Server) {
        let mut redis = server.connect().await;
        let publisher = publisher(&server.url());
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(32_503_680_000);
        for is_new in [true, false] {
            for event in under_one_id() {
                assert_eq!(publisher.publish_envelope_at("jobs", event, at).await.unwrap().is_new, is_new);
            }
        }
        let all = ["test.job -", "test.job a", "test.job b", "test.other -"];
        let mut expected: Vec<(String, String)> = all.iter().map(|of| ("7".to_owned(), of.to_string())).collect();
        expected.push(("a:7".to_owned(), "test.job b".to_owned()));
        assert_eq!(scheduled(&publisher).await, expected);
        for event in [
            Envelope::new("test.job").with("id", "7").with("source", "a").json(&2).unwrap(),
            Envelope::new("test.job").with("id", "7").json(&2).unwrap(),
        ] {
            let at = publisher.publish_envelope_at("jobs", event.clone(), at).await.unwrap_err();
            let after = publisher.publish_envelope_after("jobs", event, HOUR).await.unwrap_err();
            for refused in [at, after] {
                assert_eq!(refused.kind(), ErrorKind::Exists);
                assert!(refused.to_string().contains("with other data"), "{refused}");
            }
        }
        // By the id alone nobody knows which is meant.
        let refused = publisher.cancel_scheduled("jobs", "7").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        assert!(publisher.cancel_scheduled("jobs", "a:7").await.unwrap());
        let [plain, other, of_a, ..] = under_one_id();
        assert!(publisher.cancel_scheduled_event("jobs", &of_a).await.unwrap());
        assert!(!publisher.cancel_scheduled_event("jobs", &of_a).await.unwrap());
        assert_eq!(scheduled(&publisher).await.len(), 3);
        let cli = Cli::new(&server, "");
        let err = cli.run(&["scheduled", "cancel", "jobs", "7"]).await.failed(1);
        assert!(err.contains("3 events") && err.contains("--type"), "{err}");
        let narrowed = ["scheduled", "cancel", "jobs", "7", "--type", "test.job", "--source", "b"];
        assert_eq!(cli.run(&narrowed).await.ok(), "cancelled 1 event\n");
        assert_eq!(scheduled(&publisher).await, [expected[0].clone(), expected[3].clone()]);
        // What was the first under the id goes first, and the other is still known.
        assert!(publisher.cancel_scheduled_event("jobs", &plain).await.unwrap());
        assert!(!publisher.publish_envelope_at("jobs", other, at).await.unwrap().is_new);
        assert!(publisher.cancel_scheduled("jobs", "7").await.unwrap());
        let left: u64 = redis::cmd("DBSIZE").query_async(&mut redis).await.unwrap();
        assert_eq!(left, 0);
    }

    async fn what_other_hands_or_releases_have_scheduled_is_known_and_cancelled(server: Server) {
        let mut redis = server.connect().await;
        let publisher = publisher(&server.url());
        let (ms, at) = (32_503_680_000_000_u64, SystemTime::UNIX_EPOCH + Duration::from_secs(32_503_680_000));
        let packed = rmp_serde::to_vec(&["type", "test.job", "id", "7", "data", "1"]).unwrap();
        for (id, packed) in [("7", &packed[..]), ("spoilt", b"no fields")] {
            let _: () = redis.zadd("{jobs}:scheduled", id, ms).await.unwrap();
            let _: () = redis.hset("{jobs}:scheduled:events", id, packed).await.unwrap();
        }
        let job = |id: &str, data: &str| Envelope::new("test.job").with("id", id).with("data", data);
        assert!(!publisher.publish_envelope_at("jobs", job("7", " 1 "), at).await.unwrap().is_new);
        assert_eq!(publisher.publish_envelope_at("jobs", job("7", "2"), at).await.unwrap_err().kind(), ErrorKind::Exists);
        assert!(publisher.publish_envelope_at("jobs", job("7", "1").with("source", "a"), at).await.unwrap().is_new);
        assert!(!publisher.publish_envelope_at("jobs", job("spoilt", "1"), at).await.unwrap().is_new);
        assert!(publisher.cancel_scheduled_event("jobs", &job("7", "1")).await.unwrap());
        assert!(publisher.cancel_scheduled("jobs", "7").await.unwrap());
        assert!(publisher.cancel_scheduled_event("jobs", &job("spoilt", "1")).await.unwrap());
        assert_eq!(keys(&mut redis, "*").await, [""; 0]);
        // An id that looks like a name of ours is one like any other.
        let ids = ["\0i7", "\0m7", "\0"];
        for id in ids {
            assert!(publisher.publish_envelope_at("jobs", job(id, "1"), at).await.unwrap().is_new);
            assert!(!publisher.publish_envelope_at("jobs", job(id, "1"), at).await.unwrap().is_new);
        }
        assert_eq!(scheduled(&publisher).await.len(), 3);
        for id in ids {
            assert!(publisher.cancel_scheduled("jobs", id).await.unwrap());
        }
        assert_eq!(keys(&mut redis, "*").await, [""; 0]);
    }

    async fn events_under_one_id_all_come_when_they_are_due(server: Server) {
        let mut redis = server.connect().await;
        let publisher = publisher(&server.url());
        for event in under_one_id() {
            publisher.publish_envelope_after("jobs", event, Duration::from_millis(300)).await.unwrap();
        }
        let worker = Setup::new(&server).worker("unhandled = \"ack\"").start_with(Registry::new().ignore("test.job"));
        eventually(PATIENCE, "all to come", async || entries(&mut redis, "jobs").await.len() == 5).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(keys(&mut redis, "*scheduled*").await, [""; 0]);
        worker.stop().await;
    }

    async fn times_are_read_with_their_offsets_and_stay_as_they_were_written(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "");
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_769_860_800);
        let times = ["2026-01-31T13:00:00+01:00", "2026-01-31t12:00:00z", "2026-01-31T17:30:00.000+05:30"];
        let lines: String = times.iter().map(|time| format!("{{\"type\":\"test.job\",\"data\":1,\"time\":\"{time}\"}}\n")).collect();
        cli.run_with(&["publish", "jobs", "--envelopes"], lines.as_bytes()).await.ok();
        for (entry, time) in entries(&mut redis, "jobs").await.into_iter().zip(times) {
            let event = Envelope::decode(entry.into()).unwrap();
            assert_eq!((event.time(), event.field("time")), (noon, Some(time)));
        }
        for (time, why) in [
            ("2026-01-31T12:00:00", "does not say its offset"),
            ("2026-01-30T12:00:60Z", "has a second 60"),
            ("2026-02-30T12:00:00Z", "is no time"),
        ] {
            let line = format!("{{\"type\":\"test.job\",\"data\":1,\"time\":\"{time}\"}}\n");
            let err = cli.run_with(&["publish", "jobs", "--envelopes"], line.as_bytes()).await.failed(1);
            assert!(err.contains(&format!("line 1 has the time {time:?}, which {why}")), "{err}");
        }
        // What others have written, a handler reads the same.
        let half = Envelope::new("test.job").with("time", "2026-01-31T13:00:00.5+05:30");
        assert_eq!(half.time(), noon - Duration::from_millis(16_199_500));
        for args in [&["--at", "2999-12-31t23:00:00-01:00"][..], &["--at", "2999-12-31T23:00:00z"]] {
            cli.run(&[&["publish", "jobs", "test.job", "1"], args].concat()).await.ok();
        }
    }
}
