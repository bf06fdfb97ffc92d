//! Events are published in their order and counted from Redis' answers; what is wrong is said before it is sent.

use std::time::{Duration, Instant};

use streamhand::config::RedisUrl;
use streamhand::{Envelope, ErrorKind, Format, Published, Publisher};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Cli, Exchange, Proxy, Server, entries, eventually, publisher};

const PATIENCE: Duration = Duration::from_secs(30);

on_both_servers! {
    async fn a_library_user_publishes_in_order_across_pipelines(server: Server) {
        let mut redis = server.connect().await;
        let envelope = |n: usize| {
            // Every hundredth is so large that a pipeline ends before its count is reached.
            let padding = "x".repeat(if n.is_multiple_of(100) { 300_000 } else { 10 });
            Envelope::new("order.created").json(&(n, padding)).unwrap()
        };
        let ids = publisher(&server.url()).source("shop").publish_envelopes("orders", (0..1200).map(envelope)).await.unwrap();
        let stored = entries(&mut redis, "orders").await;
        assert_eq!(ids, stored.iter().map(|entry| entry.id).collect::<Vec<_>>());
        for (n, entry) in stored.into_iter().enumerate() {
            let event = Envelope::decode(entry.into()).unwrap();
            let (number, _): (usize, String) = event.decode_data().unwrap();
            assert_eq!((number, event.source()), (n, Some("shop")));
        }
    }

    async fn a_refused_event_is_an_error_and_no_name_that_cannot_be_is_sent(server: Server) {
        let mut redis = server.connect().await;
        let _: () = redis::cmd("SET").arg("taken").arg("x").query_async(&mut redis).await.unwrap();
        let publisher = publisher(&server.url()).format(Format::Json);
        let event = || Envelope::new("order.created");
        let kind = |result: streamhand::Result<_>| result.unwrap_err().kind();
        assert_eq!(kind(publisher.publish_envelope("taken", event()).await), ErrorKind::Redis);
        for name in ["", "a{b", "{a}{b}", "a\nb"] {
            assert_eq!(kind(publisher.publish_envelope(name, event()).await), ErrorKind::Invalid, "{name:?}");
        }
        assert_eq!(kind(publisher.publish_envelope("orders", Envelope::new("Order")).await), ErrorKind::Invalid);
        let keys: i64 = redis::cmd("DBSIZE").query_async(&mut redis).await.unwrap();
        assert_eq!(keys, 1);
    }

    async fn publish_puts_one_event_on_the_stream_and_prints_its_id(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "");
        let plain = cli.run(&["publish", "orders", "order.created", r#"{"order_id":"o-1","amount":12}"#]).await.ok();
        let more = ["publish", "orders", "order.created", "[1, 2]", "--json-data", "--id", "e-1", "--subject", "o-1",
            "--source", "shop", "--schema-version", "3"];
        let told = cli.run(&[&more[..], &["--json"]].concat()).await.json();

        let stored = entries(&mut redis, "orders").await;
        assert_eq!(plain.trim(), stored[0].id.to_string());
        assert_eq!(told["published"], 1);
        assert_eq!(told["first"], stored[1].id.to_string());
        let [first, second]: [Envelope; 2] = stored
            .into_iter()
            .map(|entry| Envelope::decode(entry.into()).unwrap())
            .collect::<Vec<_>>()
            .try_into()
            .unwrap();
        assert_eq!(first.content_type(), "application/msgpack");
        let data: serde_json::Value = first.decode_data().unwrap();
        assert_eq!(data, serde_json::json!({"order_id": "o-1", "amount": 12}));
        assert_eq!(first.field("id").unwrap().len(), 36);
        assert!(first.field("time").is_some());
        assert_eq!((second.content_type(), second.data()), ("application/json", &b"[1, 2]"[..]));
        assert_eq!((&second.id()[..], second.subject(), second.source()), ("e-1", Some("o-1"), Some("shop")));
        assert_eq!(second.version(), 3);
    }

    async fn lines_of_a_file_are_published_in_order_and_counted(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "");
        // More than two pipelines, empty lines between, and no newline at the end.
        let text: String = (0..1234).map(|n| format!("{{\"n\":{n}}}\n\r\n")).collect();
        std::fs::write(cli.file("orders.ndjson"), format!("\u{feff}{}", text.trim_end())).unwrap();
        let out = cli.run(&["publish", "orders", "order.created", "--file", "orders.ndjson"]).await.ok();
        assert_eq!(out, "published 1234\n");
        for (n, entry) in entries(&mut redis, "orders").await.into_iter().enumerate() {
            let event = Envelope::decode(entry.into()).unwrap();
            assert_eq!(event.decode_data::<serde_json::Value>().unwrap(), serde_json::json!({"n": n}));
        }
        let out = cli.run_with(&["publish", "orders", "order.created", "-"], b"1\n\n2\n").await.ok();
        assert_eq!(out, "published 2\n");
        assert_eq!(entries(&mut redis, "orders").await.len(), 1236);
    }

    async fn envelopes_keep_what_they_say(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "");
        let lines = r#"{"type":"order.created","data":{"a":1},"id":"e-1","source":"crm","subject":"o-1","time":"2026-01-31T12:00:00Z","schemaversion":2,"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","tenant":"t-1"}
{"type":"order.shipped","data":null,"datacontenttype":"application/json"}"#;
        let told = cli.run_with(&["publish", "orders", "--envelopes", "--source", "shop", "--json"], lines.as_bytes()).await.json();
        assert_eq!(told["published"], 2);
        let stored = entries(&mut redis, "orders").await;
        assert_eq!(told["last"], stored[1].id.to_string());
        let events: Vec<Envelope> = stored.into_iter().map(|entry| Envelope::decode(entry.into()).unwrap()).collect();
        let full = &events[0];
        assert_eq!((&full.id()[..], full.source(), full.subject()), ("e-1", Some("crm"), Some("o-1")));
        assert_eq!((full.field("time"), full.version()), (Some("2026-01-31T12:00:00Z"), 2));
        assert_eq!((full.traceparent(), full.field("tenant")), (Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), Some("t-1")));
        assert_eq!(full.decode_data::<serde_json::Value>().unwrap(), serde_json::json!({"a": 1}));
        assert_eq!(events[1].event_type(), "order.shipped");
        assert_eq!((events[1].data(), events[1].source()), (&b"null"[..], Some("shop")));
    }

    async fn a_wrong_line_is_named_and_what_came_before_it_is_published(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "");
        let text = (0..17).map(|n| format!("{n}\n")).collect::<String>() + "{oops}\n18\n";
        std::fs::write(cli.file("orders.ndjson"), text).unwrap();
        let err = cli.run(&["publish", "orders", "order.created", "--file", "orders.ndjson"]).await.failed(1);
        insta::allow_duplicates! { insta::assert_snapshot!(err, @r#"
        error: orders.ndjson, line 18 is no JSON at column 2: key must be a string
        published 17 events, up to line 17
        "#) };
        assert_eq!(entries(&mut redis, "orders").await.len(), 17);

        let lines = "{\"type\":\"order.created\",\"data\":1}\n{\"type\":\"Order\",\"data\":1}\n";
        let err = cli.run_with(&["publish", "orders", "--envelopes"], lines.as_bytes()).await.failed(1);
        insta::allow_duplicates! { insta::assert_snapshot!(err, @r#"
        error: standard input, line 2 has the type "Order", which has the upper-case letter 'O' at position 1; event types are lower-case
        published 1 event, up to line 1
        "#) };
        let pretty = "{\n  \"a\": 1\n}\n";
        let err = cli.run_with(&["publish", "orders", "order.created", "-"], pretty.as_bytes()).await.failed(1);
        insta::allow_duplicates! { insta::assert_snapshot!(err, @r#"
        error: standard input, line 1 is no whole JSON value: EOF while parsing an object; each line must be one (jq -c . FILE writes them so, jq -c '.[]' FILE the elements of a list)
        published nothing
        "#) };
        assert_eq!(entries(&mut redis, "orders").await.len(), 18);
    }

    async fn what_cannot_be_meant_is_refused_before_anything_is_sent(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "");
        let mut said = String::new();
        for args in [
            &["orders", "OrderCreated", "{}"][..],
            &["orders{", "order.created", "{}"],
            &["orders", "order.created"],
            &["orders", "order.created", "{order_id:o-1}"],
            &["orders", "order.created", "--file", "missing.ndjson"],
            &["orders", "order.created", "--file", "."],
            &["orders", "order.created", "-", "--id", "e-1"],
            &["orders", "order.created", "99999999999999999999"],
            &["orders", "order.created", "--envelopes"],
            &["orders", "order.created", "-", "--envelopes"],
        ] {
            let ran = cli.run_with(&[&["publish"], args].concat(), b"{}\n").await;
            said += &format!("$ publish {}\n{}", args.join(" "), ran.failed(2));
        }
        insta::allow_duplicates! { insta::assert_snapshot!(said, @r#"
        $ publish orders OrderCreated {}
        error: the event type "OrderCreated" has the upper-case letter 'O' at position 1; event types are lower-case
        $ publish orders{ order.created {}
        error: the stream name "orders{" has braces that are not one tag; write none, or one pair as in "{shop}.orders"
        $ publish orders order.created
        error: no data: write it as JSON ('{}' where there is nothing to say), name a --file, or write - for standard input
        $ publish orders order.created {order_id:o-1}
        error: DATA is no JSON at column 2: key must be a string (the shell takes quotes away: write '{"order_id":"o-1"}')
        $ publish orders order.created --file missing.ndjson
        error: can't open missing.ndjson: No such file or directory (os error 2)
        $ publish orders order.created --file .
        error: can't read .: it is a directory; name a file with one JSON value a line
        $ publish orders order.created - --id e-1
        error: --id is one event's: the events of standard input would all have the same one
        $ publish orders order.created 99999999999999999999
        error: DATA has the number 99999999999999999999, which MessagePack can't carry; write it in quotes, or keep the data as it is by --json-data
        $ publish orders order.created --envelopes
        error: "order.created" is too much: with --envelopes each event says its own type and data; name a file of them by --file, or write - for standard input
        $ publish orders order.created - --envelopes
        error: "order.created" is too much: with --envelopes each event says its own type and data; name a file of them by --file, or write - for standard input
        "#) };
        let keys: i64 = redis::cmd("DBSIZE").query_async(&mut redis).await.unwrap();
        assert_eq!(keys, 0);
    }

    /// Redis runs out of memory in the middle of a file: the count is that of the events it has.
    async fn what_redis_refuses_is_not_counted(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "");
        let used: redis::InfoDict = redis::cmd("INFO").arg("memory").query_async(&mut redis).await.unwrap();
        let limit = used.get::<u64>("used_memory").unwrap() + (6 << 20);
        let _: () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(limit).query_async(&mut redis).await.unwrap();
        let text = format!("\"{}\"\n", "x".repeat(2000)).repeat(20_000);
        std::fs::write(cli.file("orders.ndjson"), text).unwrap();
        let err = cli.run(&["publish", "orders", "order.created", "--file", "orders.ndjson"]).await.failed(1);
        let _: () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(0).query_async(&mut redis).await.unwrap();
        let there = entries(&mut redis, "orders").await.len();
        assert!(there > 500, "{there} of them fit in:\n{err}");
        assert!(err.contains(&format!("published {there} events, up to line ")), "{there} are there:\n{err}");
        assert!(err.contains("OOM") && err.starts_with("error: orders.ndjson: line "), "{err}");
    }

    async fn what_comes_slowly_is_published_as_it_comes(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "");
        let mut child = cli.command(&["publish", "orders", "order.created", "-"]).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        for n in 1..=3 {
            stdin.write_all(format!("{n}\n").as_bytes()).await.unwrap();
            eventually(PATIENCE, "the line to be published", async || entries(&mut redis, "orders").await.len() == n).await;
        }
        drop(stdin);
        let mut out = String::new();
        child.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
        assert_eq!(out, "published 3\n");
        assert!(child.wait().await.unwrap().success());
    }
    async fn a_publisher_is_made_of_an_address_and_says_at_once_that_nobody_is_there(server: Server) {
        let publisher = Publisher::connect(server.url()).await.unwrap();
        publisher.publish_envelope("orders", Envelope::new("order.created")).await.unwrap();
        let url: RedisUrl = server.url().parse().unwrap();
        assert!(Publisher::connect(url).await.is_ok());
        let kind = |refused: streamhand::Result<Publisher>| refused.unwrap_err().kind();
        assert_eq!(kind(Publisher::connect("localhost").await), ErrorKind::Invalid);
        // Nobody listens at a port that was just given back.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(kind(Publisher::connect(format!("redis://{free}")).await), ErrorKind::Unreachable);
    }

    async fn a_publisher_with_a_timeout_gives_up_in_time_and_says_what_was_sent(server: Server) {
        let proxy = Proxy::start(server.port()).await;
        let publisher = Publisher::connect(proxy.url()).await.unwrap().timeout(Duration::from_millis(300));
        let events = || [Envelope::new("order.created"), Envelope::new("order.paid")];
        publisher.publish_envelopes("orders", events()).await.unwrap();
        // The server does what it is asked, and its answers do not come.
        let caught = proxy.hold_reply(Exchange::of("XADD"));
        let began = Instant::now();
        let late = publisher.publish_envelopes("orders", events()).await.unwrap_err();
        caught.within(PATIENCE).await;
        proxy.pause_replies();
        let scheduled = publisher.cancel_scheduled("orders", "e-1").await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!((late.kind(), scheduled.kind()), (ErrorKind::Unreachable, ErrorKind::Unreachable));
        assert!(late.to_string().contains("within 300ms, the publisher's timeout"), "{late}");
        assert!(late.events().all(|(_, fate)| matches!(fate, Published::Unknown)), "{late:?}");
        assert_eq!(late.into_rest().len(), 2);
        proxy.resume_replies();
        let mut redis = server.connect().await;
        eventually(PATIENCE, "what was sent to be in", async || entries(&mut redis, "orders").await.len() == 4).await;
        eventually(PATIENCE, "the publisher to be of use again", async || {
            publisher.publish_envelopes("orders", events()).await.is_ok()
        })
        .await;
    }
}
