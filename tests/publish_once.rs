//! An event that is to be published once is, whoever publishes it, however often, and whatever gets lost on the way.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use streamhand::{Envelope, ErrorKind, Publisher};

use crate::support::jobs::{Action, Job};
use crate::support::{Cli, Proxy, Server, entries, eventually, marks, publisher_with, scripts};

const PATIENCE: Duration = Duration::from_secs(30);
const DAY: Duration = Publisher::ONCE_WITHIN;

fn publisher(url: &str) -> Publisher {
    publisher_with(url, "pool_size = 1")
}

fn job() -> Job {
    Job::new("once", Action::Succeed)
}

async fn length(redis: &mut MultiplexedConnection) -> u64 {
    let mut command = redis::cmd("XLEN");
    command.arg("jobs").query_async(redis).await.unwrap()
}

async fn run(redis: &mut MultiplexedConnection, command: &[&str]) {
    let mut cmd = redis::cmd(command[0]);
    let _: redis::Value = cmd.arg(&command[1..]).query_async(redis).await.unwrap();
}

on_both_servers! {
    async fn an_event_is_published_once_within_its_window_and_again_after_it(server: Server) {
        let mut redis = server.connect().await;
        let publisher = publisher(&server.url());
        let first = publisher.publish_once("jobs", "e-1", &job(), DAY).await.unwrap();
        assert!(first.is_new);
        let again = publisher.publish_once("jobs", "e-1", &job(), DAY).await.unwrap();
        assert_eq!((again.entry, again.is_new), (first.entry, false));
        // Others are others, and so is the same id on another stream.
        assert!(publisher.publish_once("jobs", "e-2", &job(), DAY).await.unwrap().is_new);
        assert!(publisher.publish_once("others", "e-1", &job(), DAY).await.unwrap().is_new);
        let stored = entries(&mut redis, "jobs").await;
        assert_eq!((stored.len(), stored[0].id), (2, first.entry));
        let event = Envelope::decode(stored[0].clone().into()).unwrap();
        assert_eq!((&event.id()[..], event.event_type()), ("e-1", "test.job"));
        let ttl: i64 = redis::cmd("PTTL").arg(marks::published("e-1")).query_async(&mut redis).await.unwrap();
        assert!((DAY.as_millis() as i64 - 60_000..=DAY.as_millis() as i64).contains(&ttl), "{ttl}");

        let short = Duration::from_millis(200);
        let first = publisher.publish_once("jobs", "e-3", &job(), short).await.unwrap();
        assert!(first.is_new);
        let later = eventually(PATIENCE, "the window to pass", async || {
            Some(publisher.publish_once("jobs", "e-3", &job(), short).await.unwrap()).filter(|once| once.is_new)
        })
        .await;
        assert!(later.entry.ms >= first.entry.ms + 200, "{first:?} {later:?}");
    }

    async fn of_sixteen_publishers_at_once_one_publishes_an_event(server: Server) {
        let mut redis = server.connect().await;
        let publishers: Vec<Publisher> = (0..16).map(|_| publisher(&server.url())).collect();
        for round in 0..40 {
            let id = format!("e-{round}");
            let (event, id) = (job(), &id);
            let attempts = publishers.iter().map(|one| one.publish_once("jobs", id, &event, DAY));
            let done: Vec<_> = join_all(attempts).await.into_iter().map(Result::unwrap).collect();
            assert_eq!(done.iter().filter(|once| once.is_new).count(), 1, "{done:?}");
            assert_eq!(done.iter().map(|once| once.entry).collect::<HashSet<_>>().len(), 1, "{done:?}");
        }
        assert_eq!(length(&mut redis).await, 40);
    }

    async fn a_publish_whose_answer_got_lost_can_be_repeated(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = Proxy::start(server.port()).await;
        let publisher = publisher(&proxy.url());
        for (id, was_done) in [("e-1", true), ("e-2", false)] {
            let step = scripts::call("publish_once");
            let caught = if was_done { proxy.cut_after(step) } else { proxy.cut_before(step) };
            let lost = publisher.publish_once("jobs", id, &job(), DAY).await.unwrap_err();
            assert_eq!(lost.kind(), ErrorKind::Unreachable, "{lost}");
            caught.within(PATIENCE).await;
            let once = publisher.publish_once("jobs", id, &job(), DAY).await.unwrap();
            assert_eq!(once.is_new, !was_done);
            assert_eq!(entries(&mut redis, "jobs").await.last().unwrap().id, once.entry);
        }
        assert_eq!(length(&mut redis).await, 2);
    }

    async fn what_stands_in_the_way_is_an_error_and_nothing_is_published(server: Server) {
        let mut redis = server.connect().await;
        let publisher = publisher(&server.url());
        let error = async |id: &str, window| publisher.publish_once("jobs", id, &job(), window).await.unwrap_err();
        assert_eq!(error("", DAY).await.kind(), ErrorKind::Invalid);
        assert_eq!(error("e-1", Duration::ZERO).await.kind(), ErrorKind::Invalid);
        assert_eq!(error("e-1", Duration::MAX).await.kind(), ErrorKind::Invalid);
        let nameless = Envelope::new("test.job");
        let nameless = publisher.publish_envelope_once("jobs", nameless, DAY).await.unwrap_err();
        assert_eq!(nameless.kind(), ErrorKind::Invalid);

        run(&mut redis, &["RPUSH", &marks::published("list"), "x"]).await;
        run(&mut redis, &["SET", &marks::published("other"), "x"]).await;
        for id in ["list", "other"] {
            let error = error(id, DAY).await;
            assert_eq!(error.kind(), ErrorKind::Redis);
            assert!(error.to_string().contains(&format!("WRONGTYPE {} ", marks::published(id))), "{error}");
        }
        run(&mut redis, &["SET", "jobs", "no stream"]).await;
        assert_eq!(error("e-1", DAY).await.kind(), ErrorKind::Redis);
        run(&mut redis, &["DEL", "jobs"]).await;
        run(&mut redis, &["CONFIG", "SET", "maxmemory", "1"]).await;
        let full = error("e-1", DAY).await;
        assert!(full.to_string().contains("maxmemory is reached"), "{full}");
        run(&mut redis, &["CONFIG", "SET", "maxmemory", "0"]).await;
        assert!(publisher.publish_once("jobs", "e-1", &job(), DAY).await.unwrap().is_new, "nothing was marked");
        assert_eq!(length(&mut redis).await, 1);
    }

    async fn an_event_of_very_many_fields_is_published_once_whole(server: Server) {
        let mut redis = server.connect().await;
        let mut event = Envelope::new("test.wide").with("id", "wide").json(&1).unwrap();
        for n in 0..4_000 {
            event = event.with(&format!("field-{n}"), n.to_string());
        }
        let publisher = publisher(&server.url());
        assert!(publisher.publish_envelope_once("jobs", event.clone(), DAY).await.unwrap().is_new);
        assert!(!publisher.publish_envelope_once("jobs", event, DAY).await.unwrap().is_new);
        let stored = entries(&mut redis, "jobs").await;
        let [(name, packed)] = &stored[0].fields[..] else { panic!("{} fields", stored[0].fields.len()) };
        assert_eq!(&name[..], b"streamhand.packed");
        assert!(packed.windows(10).any(|bytes| bytes == b"field-3999"));
    }

    async fn the_program_publishes_once_one_event_or_a_file_of_them(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "");
        let once = ["publish", "jobs", "test.job", "1", "--id", "e-1", "--once"];
        let first = cli.run(&once).await.ok();
        let again = cli.run(&once).await;
        assert_eq!((&again.out, &again.err[..]), (&first, "published before, and not again\n"));
        let told = cli.run(&[&once[..], &["--once-within", "2h", "--json"]].concat()).await.json();
        assert_eq!((&told["published"], &told["published_before"]), (&0.into(), &1.into()));
        assert_eq!(told["first"], first.trim());

        let line = |id: &str| format!("{{\"type\":\"test.job\",\"data\":1,\"id\":\"{id}\"}}\n");
        let lines = ["e-1", "e-2", "e-3", "e-2"].map(line).concat();
        let args = ["publish", "jobs", "--envelopes", "--once"];
        assert_eq!(cli.run_with(&args, lines.as_bytes()).await.ok(), "published 2 (2 had been published before)\n");
        let lines = line("e-4") + "{\"type\":\"test.job\",\"data\":1}\n";
        let err = cli.run_with(&args, lines.as_bytes()).await.failed(1);
        insta::allow_duplicates! { insta::assert_snapshot!(err, @r#"
        error: standard input, line 2 has no "id", by which it would be known again: --once, --replace and --debounce need one
        published 1 event, up to line 1
        "#) };
        assert_eq!(length(&mut redis).await, 4);

        let mut said = String::new();
        for args in [
            &["{}", "--once"][..],
            &["{}", "--once", "--id="],
            &["-", "--once"],
            &["{}", "--id", "e-9", "--once", "--once-within", "0s"],
            &["{}", "--id", "e-9", "--once-within", "1h"],
            &["{}", "--id", "e-9", "--once", "--delay", "1h"],
        ] {
            let ran = cli.run_with(&[&["publish", "jobs", "test.job"], args].concat(), b"{}\n").await;
            let err = ran.failed(2);
            said += &format!("$ publish jobs test.job {}\n{}\n", args.join(" "), err.lines().next().unwrap());
        }
        insta::allow_duplicates! { insta::assert_snapshot!(said, @r#"
        $ publish jobs test.job {} --once
        error: --once needs an id by which the event is known again: add --id, or publish whole events that have ids by --envelopes
        $ publish jobs test.job {} --once --id=
        error: --once needs an id by which the event is known again: add --id, or publish whole events that have ids by --envelopes
        $ publish jobs test.job - --once
        error: --once needs an id by which the event is known again: add --id, or publish whole events that have ids by --envelopes
        $ publish jobs test.job {} --id e-9 --once --once-within 0s
        error: --once-within: nothing can be published once within 0s: from a millisecond to a hundred years
        $ publish jobs test.job {} --id e-9 --once-within 1h
        error: the following required arguments were not provided:
        $ publish jobs test.job {} --id e-9 --once --delay 1h
        error: the argument '--once' cannot be used with '--delay <DURATION>'
        "#) };
        assert_eq!(length(&mut redis).await, 4);
    }
}
