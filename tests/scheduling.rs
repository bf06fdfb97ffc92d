//! Events are scheduled, listed and cancelled; a repeat changes nothing, and what can't be meant is refused.

use std::time::{Duration, SystemTime};

use redis::aio::MultiplexedConnection;
use streamhand::{Envelope, ErrorKind, Publisher, Scheduled};

use crate::support::jobs::{Action, Job};
use crate::support::{Cli, Proxy, Server, entries, masked, publisher, scripts};

const PATIENCE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

fn event(id: &str) -> Envelope {
    Envelope::new("test.job")
        .with("id", id)
        .json(&Job::new(id, Action::Succeed))
        .expect("JSON")
}

/// A time in whole milliseconds, as Redis keeps it.
fn in_hours(hours: u32) -> SystemTime {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("a time after 1970");
    SystemTime::UNIX_EPOCH + Duration::from_millis(since.as_millis() as u64) + HOUR * hours
}

/// The ids of what is scheduled for `jobs`, in their order.
async fn scheduled(publisher: &Publisher) -> Vec<String> {
    let mut events = publisher.scheduled("jobs").expect("a stream");
    let mut ids = Vec::new();
    while let Some(event) = events.next().await.expect("the list") {
        assert_eq!(event.event.expect("an event").id(), event.id);
        ids.push(event.id);
    }
    ids
}

async fn run(redis: &mut MultiplexedConnection, command: &[&str]) {
    let mut cmd = redis::cmd(command[0]);
    let _: redis::Value = cmd.arg(&command[1..]).query_async(redis).await.unwrap();
}

async fn keys(redis: &mut MultiplexedConnection) -> u64 {
    redis::cmd("DBSIZE").query_async(redis).await.unwrap()
}

/// What is said of events that are scheduled for a stream which nobody reads.
const UNREAD: &str = "warning: jobs: no worker has ever read it: its scheduled events come once a worker has it in \
    worker.streams\n";

on_both_servers! {
    async fn what_is_scheduled_is_listed_in_the_order_of_its_times_and_can_be_cancelled(server: Server) {
        let mut redis = server.connect().await;
        let publisher = publisher(&server.url()).source("shop");
        let late = publisher.publish_at("jobs", &Job::new("late", Action::Succeed), in_hours(3)).await.unwrap();
        let soon = publisher.publish_after("jobs", &Job::new("soon", Action::Succeed), HOUR).await.unwrap();
        let at = in_hours(2);
        let own = publisher.publish_envelope_at("jobs", event("own").with("subject", "o-1"), at).await.unwrap();
        assert!(late.is_new && soon.is_new && own.is_new);
        assert_eq!((&own.id[..], own.at, late.id.len()), ("own", at, 36));
        let left = soon.at.duration_since(SystemTime::now()).unwrap();
        assert!(left > HOUR - Duration::from_secs(30) && left <= HOUR + Duration::from_secs(1), "{left:?}");
        assert_eq!(scheduled(&publisher).await, [&soon.id[..], "own", &late.id]);
        let mut list = publisher.scheduled("jobs").unwrap();
        list.next().await.unwrap();
        let listed = list.next().await.unwrap().unwrap();
        assert_eq!((&listed.id[..], listed.at), ("own", at));
        let kept = listed.event.unwrap();
        assert_eq!((kept.subject(), kept.source()), (Some("o-1"), Some("shop")));
        assert_eq!(kept.decode_data::<Job>().unwrap().id, "own");

        assert!(publisher.cancel_scheduled("jobs", "own").await.unwrap());
        assert!(!publisher.cancel_scheduled("jobs", "own").await.unwrap());
        assert_eq!(scheduled(&publisher).await, [&soon.id[..], &late.id]);
        // What was cancelled can be scheduled anew, for another time.
        assert!(publisher.publish_envelope_at("jobs", event("own"), in_hours(4)).await.unwrap().is_new);
        for id in [&soon.id[..], &late.id, "own"] {
            assert!(publisher.cancel_scheduled("jobs", id).await.unwrap());
        }
        assert_eq!(keys(&mut redis).await, 0, "nothing is left of them");
    }

    async fn a_list_of_many_is_whole_whatever_is_cancelled_meanwhile(server: Server) {
        let publisher = publisher(&server.url());
        // Most of them share a time with more than fit into a page.
        let (first, second) = (in_hours(1), in_hours(2));
        let at = |n: usize| if n < 650 { first } else { second };
        let ids: Vec<String> = (0..700).map(|n| format!("e-{n:03}")).collect();
        for (n, id) in ids.iter().enumerate() {
            publisher.publish_envelope_at("jobs", event(id), at(n)).await.unwrap();
        }
        assert_eq!(scheduled(&publisher).await, ids);

        let mut list = publisher.scheduled("jobs").unwrap();
        let mut told = Vec::new();
        while let Some(event) = list.next().await.unwrap() {
            let id = event.id;
            // At the end of a page and in the middle, its last and others.
            if told.len() % 50 == 49 {
                assert!(publisher.cancel_scheduled("jobs", &id).await.unwrap());
            }
            told.push(id);
        }
        assert_eq!(told, ids);
        assert_eq!(scheduled(&publisher).await.len(), 700 - 14);
    }

    async fn a_repeat_changes_nothing_and_another_time_is_refused(server: Server) {
        let mut redis = server.connect().await;
        let publisher = publisher(&server.url());
        let at = in_hours(2);
        assert!(publisher.publish_envelope_at("jobs", event("e-1"), at).await.unwrap().is_new);
        let again = publisher.publish_envelope_at("jobs", event("e-1"), at).await.unwrap();
        assert_eq!((again.at, again.is_new), (at, false));
        let other = publisher.publish_envelope_at("jobs", event("e-1"), in_hours(3)).await.unwrap_err();
        assert_eq!(other.kind(), ErrorKind::Exists);
        let said = masked(&other.to_string());
        assert_eq!(said, "an event with the id \"e-1\" is scheduled for TIME already: cancel that one first");
        // A delay begins when Redis has the event: a repeat begins none anew.
        let first = publisher.publish_envelope_after("jobs", event("e-2"), HOUR).await.unwrap();
        let again = publisher.publish_envelope_after("jobs", event("e-2"), HOUR * 2).await.unwrap();
        assert_eq!((again.at, again.is_new), (first.at, false));
        assert_eq!(scheduled(&publisher).await, ["e-2", "e-1"]);

        let far = publisher.publish_envelope_after("jobs", event("e-3"), Duration::MAX).await.unwrap_err();
        assert_eq!(far.kind(), ErrorKind::Invalid);
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_800);
        let far = publisher.publish_envelope_at("jobs", event("e-3"), far).await.unwrap_err();
        assert_eq!(far.kind(), ErrorKind::Invalid);
        let name = publisher.publish_envelope_after("a{b", event("e-3"), HOUR).await.unwrap_err();
        assert_eq!(name.kind(), ErrorKind::Invalid);
        assert_eq!(keys(&mut redis).await, 2);
    }

    /// Its data, its time and its turn are those of the last call; another event of the same id is another.
    async fn what_waits_is_replaced_or_put_off_and_comes_once(server: Server) {
        let mut redis = server.connect().await;
        let publisher = publisher(&server.url());
        let of = |data: &str| Envelope::new("test.job").with("id", "e-1").json(&Job::new(data, Action::Succeed)).unwrap();
        let at = in_hours(2);
        let first = publisher.replace_envelope_at("jobs", of("first"), at).await.unwrap();
        assert_eq!((first.is_new, first.replaced), (true, false));
        publisher.publish_envelope_at("jobs", event("e-2"), at).await.unwrap();
        let twin = Envelope::new("test.other").with("id", "e-1").json(&1).unwrap();
        publisher.publish_envelope_at("jobs", twin.clone(), in_hours(3)).await.unwrap();
        let second = publisher.replace_envelope_at("jobs", of("second"), at).await.unwrap();
        assert_eq!((second.at, second.is_new, second.replaced), (at, true, true));
        assert_eq!(scheduled(&publisher).await, ["e-2", "e-1", "e-1"], "its turn is that of the last call");
        let again = publisher.replace_envelope_after("jobs", twin, HOUR).await.unwrap();
        assert!(again.replaced && again.at < at, "{again:?}");
        assert_eq!(keys(&mut redis).await, 2);
        let mut list = publisher.scheduled("jobs").unwrap();
        let mut kept = Vec::new();
        while let Some(one) = list.next().await.unwrap() {
            let event = one.event.unwrap();
            kept.push((event.event_type().to_owned(), event.decode_data::<Job>().map(|job| job.id).unwrap_or_default()));
        }
        let expected = [("test.other", ""), ("test.job", "e-2"), ("test.job", "second")];
        assert_eq!(kept, expected.map(|(of, data)| (of.to_owned(), data.to_owned())));
        // As it stands the same event for another time is refused, and nothing is replaced that is not known again.
        let refused = publisher.publish_envelope_at("jobs", of("second"), in_hours(5)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Exists);
        let nameless = Envelope::new("test.job").json(&1).unwrap();
        assert_eq!(publisher.replace_envelope_after("jobs", nameless, HOUR).await.unwrap_err().kind(), ErrorKind::Invalid);

        let cli = Cli::new(&server, "");
        let put_off = |data: &'static str| {
            let cli = &cli;
            async move { cli.run(&["publish", "carts", "cart.changed", data, "--id", "c-7", "--debounce", "2s"]).await }
        };
        assert!(put_off("1").await.err.starts_with("due at "));
        let mut last = SystemTime::now();
        for data in ["2", "3"] {
            tokio::time::sleep(Duration::from_millis(700)).await;
            last = SystemTime::now();
            let said = put_off(data).await.err;
            assert!(said.starts_with("replaced what was scheduled before, due at "), "{said}");
        }
        let told = cli.run(&["publish", "carts", "cart.changed", "9", "--id", "c-8", "--delay", "1h", "--replace", "--json"]).await.json();
        assert_eq!((&told["scheduled"], &told["replaced"]), (&1.into(), &0.into()));
        let worker = crate::support::Setup::new(&server).worker("streams = [\"carts\"]").start();
        let came = crate::support::eventually(PATIENCE, "it to come", async || {
            let came = entries(&mut redis, "carts").await;
            if came.is_empty() { Err("not yet".to_owned()) } else { Ok(came) }
        }).await;
        assert!(SystemTime::now().duration_since(last).unwrap() >= Duration::from_millis(1_900), "it was put off");
        assert_eq!((came.len(), came[0].fields.iter().any(|(name, value)| name == "data" && &value[..] == b"\x03")), (1, true), "{came:?}");
        worker.stop().await;
        for (args, why) in [
            (&["--id", "c-7", "--replace"][..], "--replace is for what waits for its time: add --delay 10m or --at TIME"),
            (&["--debounce", "5s"], "need an id by which what waits is known again"),
            (&["--id", "c-7", "--debounce", "0s"], "--debounce 0s is no delay"),
            (&["--id", "c-7", "--debounce", "5s", "--once"], "cannot be used with"),
        ] {
            let args = [&["publish", "carts", "cart.changed", "1"], args].concat();
            let err = cli.run(&args).await.failed(2);
            assert!(err.contains(why), "{err}");
        }
    }

    async fn a_schedule_whose_answer_got_lost_can_be_repeated(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = Proxy::start(server.port()).await;
        let publisher = publisher(&proxy.url());
        let at = in_hours(1);
        for (id, was_done) in [("e-1", true), ("e-2", false)] {
            let step = scripts::call("schedule");
            let caught = if was_done { proxy.cut_after(step) } else { proxy.cut_before(step) };
            let lost = publisher.publish_envelope_at("jobs", event(id), at).await.unwrap_err();
            assert_eq!(lost.kind(), ErrorKind::Unreachable, "{lost}");
            caught.within(PATIENCE).await;
            let Scheduled { at: due, is_new, .. } = publisher.publish_envelope_at("jobs", event(id), at).await.unwrap();
            assert_eq!((due, is_new), (at, !was_done));
        }
        assert_eq!(scheduled(&publisher).await, ["e-1", "e-2"]);
    }

    async fn a_key_of_another_kind_in_the_way_is_named_and_nothing_is_written(server: Server) {
        let mut redis = server.connect().await;
        let publisher = publisher(&server.url());
        for key in ["{jobs}:scheduled", "{jobs}:scheduled:events", "jobs"] {
            run(&mut redis, &["SET", key, "in the way"]).await;
            let error = publisher.publish_envelope_after("jobs", event("e-1"), HOUR).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Redis);
            let said = error.to_string();
            assert!(said.contains("WRONGTYPE") && said.contains("rename or delete it"), "{said}");
            if key != "jobs" {
                for error in [
                    publisher.scheduled("jobs").unwrap().next().await.unwrap_err(),
                    publisher.cancel_scheduled("jobs", "e-1").await.unwrap_err(),
                ] {
                    assert!(error.to_string().contains("{jobs}:scheduled"), "{error}");
                    assert!(error.to_string().contains("WRONGTYPE"), "{error}");
                }
            }
            assert_eq!(keys(&mut redis).await, 1, "{key}");
            run(&mut redis, &["DEL", key]).await;
        }
        run(&mut redis, &["CONFIG", "SET", "maxmemory", "1"]).await;
        let full = publisher.publish_envelope_after("jobs", event("e-1"), HOUR).await.unwrap_err();
        assert!(full.to_string().contains("maxmemory is reached"), "{full}");
        assert_eq!(keys(&mut redis).await, 0);
    }

    async fn the_program_schedules_lists_and_cancels(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "[worker]\nstreams = [\"jobs\", \"others\"]");
        let none = cli.run(&["scheduled", "list"]).await;
        assert_eq!((&none.out[..], &none.err[..]), ("", "nothing is scheduled for jobs, others\n"));
        assert_eq!(cli.run(&["scheduled", "list", "--json"]).await.json(), serde_json::json!([]));

        let args = ["publish", "jobs", "test.job", "{}", "--id", "e-1", "--subject", "o-1", "--delay", "10m"];
        let first = cli.run(&args).await;
        assert_eq!((&first.out[..], &masked(&first.err)[..]), ("e-1\n", &format!("due at TIME\n{UNREAD}")[..]));
        let again = cli.run(&args).await;
        assert_eq!((&again.out[..], &masked(&again.err)[..]), ("e-1\n", &format!("scheduled before, due at TIME\n{UNREAD}")[..]));
        let args = ["publish", "jobs", "test.job", "{}", "--at", "2999-12-31T23:00:00-01:00", "--json"];
        let told = cli.run(&args).await.json();
        assert_eq!((&told["scheduled"], &told["at"]), (&1.into(), &"3000-01-01T00:00:00.000Z".into()));
        let lines: String = (0..600).map(|n| format!("{n}\n")).collect();
        let out = cli.run_with(&["publish", "others", "test.job", "-", "--delay", "1h"], lines.as_bytes()).await.ok();
        assert_eq!(out, "scheduled 600\n");
        assert!(entries(&mut redis, "others").await.is_empty());

        let out = cli.run(&["scheduled", "list", "jobs"]).await.ok();
        let width = regex::Regex::new(r" {2,}").unwrap();
        let out = width.replace_all(&masked(&out).replace(told["id"].as_str().unwrap(), "UUID"), "  ").into_owned();
        insta::allow_duplicates! { insta::assert_snapshot!(out, @r#"
        DUE  ID  TYPE  SUBJECT
        TIME  e-1  test.job  o-1
        TIME  UUID  test.job  -
        "#) };
        let listed = cli.run(&["scheduled", "list", "--json", "--limit", "500"]).await.json();
        assert_eq!(listed.as_array().unwrap().len(), 502);
        assert_eq!((&listed[0]["id"], &listed[0]["type"]), (&"e-1".into(), &"test.job".into()));
        let all = cli.run(&["scheduled", "list"]).await;
        assert_eq!(all.out.lines().count(), 1 + 2 + 100);
        assert_eq!(all.err, format!("these are the 100 of others that are due first: see more by --limit\n{UNREAD}{}",
            UNREAD.replace("jobs", "others")));

        let status = cli.run(&["status"]).await.ok();
        assert!(status.contains("OLDEST PENDING  SCHEDULED\n") && status.contains("  2 (next in 9m "), "{status}");
        let status = cli.run(&["status", "--json"]).await.json();
        assert_eq!(status["streams"][1]["scheduled"], 600);
        let next = status["streams"][1]["next_scheduled_ms"].as_u64().unwrap();
        assert!((3_500_000..=3_600_000).contains(&next), "{next}");

        let uuid = told["id"].as_str().unwrap();
        assert_eq!(cli.run(&["scheduled", "cancel", "jobs", uuid, uuid]).await.ok(), "cancelled 1 event\n");
        let ran = cli.run(&["scheduled", "cancel", "jobs", "e-1", uuid, "e-9"]).await;
        assert_eq!((ran.code, &ran.out[..]), (1, "cancelled 1 event\n"));
        assert_eq!(ran.err.replace(uuid, "UUID"), "error: no event of jobs that waits for its time has the id UUID or \
            e-9: it was published or cancelled, or never was scheduled\n");
        assert!(!cli.run(&["status"]).await.ok().contains("  2 (next"));
    }

    async fn times_that_cannot_be_meant_are_refused_before_anything_is_sent(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "");
        let mut said = String::new();
        let now = regex::Regex::new(r"it is \S+ now at the server").unwrap();
        for args in [
            &["--delay", "0s"][..],
            &["--delay", "10"],
            &["--delay", "soon"],
            &["--delay", "9999999999d"],
            &["--at", "2020-01-01T00:00:00Z"],
            &["--at", "2999-01-01T00:00:00"],
            &["--at", "noon"],
            &["--at", "2999-01-01T00:00:00Z", "--delay", "1h"],
        ] {
            let ran = cli.run(&[&["publish", "jobs", "test.job", "{}"], args].concat()).await;
            let err = ran.failed(2);
            let line = now.replace(err.lines().next().unwrap(), "it is NOW now at the server").into_owned();
            said += &format!("$ publish jobs test.job {{}} {}\n{line}\n", args.join(" "));
        }
        insta::allow_duplicates! { insta::assert_snapshot!(said, @r#"
        $ publish jobs test.job {} --delay 0s
        error: --delay 0s is no delay: leave it out, or write at least 1ms
        $ publish jobs test.job {} --delay 10
        error: invalid value '10' for '--delay <DURATION>': "10" has no unit; write "10s"
        $ publish jobs test.job {} --delay soon
        error: invalid value 'soon' for '--delay <DURATION>': "soon" is not a duration; write a number and a unit, as in "500ms", "30s" or "1h 30m"
        $ publish jobs test.job {} --delay 9999999999d
        error: --delay: that is too far in the future: nothing can be scheduled for a time after the year 9999
        $ publish jobs test.job {} --at 2020-01-01T00:00:00Z
        error: --at 2020-01-01T00:00:00Z has passed (it is NOW now at the server): leave it out to publish at once
        $ publish jobs test.job {} --at 2999-01-01T00:00:00
        error: invalid value '2999-01-01T00:00:00' for '--at <TIME>': it does not say its offset from UTC; write 2026-01-31T12:00:00Z or 2026-01-31T13:00:00+01:00
        $ publish jobs test.job {} --at noon
        error: invalid value 'noon' for '--at <TIME>': it is no time as RFC 3339 writes it; write 2026-01-31T12:00:00Z or 2026-01-31T13:00:00+01:00
        $ publish jobs test.job {} --at 2999-01-01T00:00:00Z --delay 1h
        error: the argument '--at <TIME>' cannot be used with '--delay <DURATION>'
        "#) };
        assert_eq!(keys(&mut redis).await, 0);
    }
}
