//! What `status` says of streams and groups in every state they can be in.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use streamhand::Registry;

use crate::support::letters::{Working, bury_many, deliver, fields, settings};
use crate::support::{Cli, Kind, Server, add, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a command of Redis whose answer is of no interest.
async fn run(redis: &mut MultiplexedConnection, command: &str) {
    let mut words = command.split(' ');
    let mut cmd = redis::cmd(words.next().expect("a command"));
    let _: redis::Value = cmd
        .arg(words.collect::<Vec<_>>())
        .query_async(redis)
        .await
        .expect(command);
}

/// What `status --json` says of the one stream.
async fn add_many(redis: &mut MultiplexedConnection, count: usize) {
    let mut pipe = redis::pipe();
    for _ in 0..count {
        pipe.xadd("orders", "*", &[("type", "order.created")])
            .ignore();
    }
    let _: () = pipe.query_async(redis).await.expect("entries");
}

async fn status(cli: &Cli) -> serde_json::Value {
    cli.run(&["status", "--json"]).await.json()["streams"][0].take()
}

/// Output with ages masked.
fn ageless(text: &str) -> String {
    let age = regex::Regex::new(r"\b\d+(ms|s)( ago)?\b").expect("a regex");
    let width = regex::Regex::new(r" {2,}").expect("a regex");
    width
        .replace_all(&age.replace_all(text, "AGE$2"), "  ")
        .into_owned()
}

on_both_servers! {
    async fn what_is_not_there_yet_is_said_and_no_error(server: Server) {
        let mut redis = server.connect().await;
        add(&mut redis, "payments", &fields(&[("type", "payment.taken")])).await;
        run(&mut redis, "SET refunds x").await;
        run(&mut redis, "SET {orders}:fulfilment:dead x").await;
        let cli = Cli::new(&server, "[worker]\nstreams = [\"orders\", \"payments\", \"refunds\"]");
        let out = cli.run(&["status"]).await.ok();
        insta::allow_duplicates! { insta::assert_snapshot!(out, @r#"
        group fulfilment

        STREAM    LENGTH  LAG  PENDING  PARKED  REPLAYED  DEAD  OLDEST PENDING
        orders    -       -    -        0       0         0     -
        payments  1       -    -        0       0         0     -
        refunds   -       -    -        0       0         0     -

        orders: there is no such stream yet; the first event or the first worker makes it
        orders: {orders}:fulfilment:dead is a string that is in the way of the group: rename or delete it
        payments: there is no group fulfilment yet; its first worker makes it
        refunds: this key is a string, not a stream: rename or delete it
        "#) };
    }

    async fn a_working_group_shows_its_numbers_and_its_workers(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 3).await;
        let cli = Cli::new(&server, "");
        assert_eq!(cli.run(&["dlq", "replay", "--limit", "1"]).await.ok(), "replayed 1 dead letter\n");
        // A foreign client holds one entry; a worker of old has not been heard of for its lease.
        add(&mut redis, "orders", &fields(&[("type", "order.created")])).await;
        run(&mut redis, "XREADGROUP GROUP fulfilment py-1 STREAMS orders >").await;
        run(&mut redis, "XGROUP CREATECONSUMER orders fulfilment sh1-1-old-1-a").await;
        // Of no interest while it holds nothing.
        run(&mut redis, "XGROUP CREATECONSUMER orders fulfilment sh1-30000-test-1-a!").await;
        for _ in 0..4 {
            add(&mut redis, "orders", &fields(&[("type", "order.created")])).await;
        }
        eventually(PATIENCE, "the lease of a millisecond to pass", async || {
            let at = status(&cli).await;
            let consumers = at["group"]["consumers"].as_array().unwrap();
            consumers.iter().any(|consumer| consumer["standing"] == "lapsed")
        })
        .await;
        let out = ageless(&cli.run(&["status"]).await.ok());
        insta::allow_duplicates! { insta::assert_snapshot!(out, @r#"
        group fulfilment

        STREAM  LENGTH  LAG  PENDING  PARKED  REPLAYED  DEAD  OLDEST PENDING
        orders  8  4  1  0  1  2  AGE

        CONSUMER  STREAM  PENDING  LAST SEEN  LEASE  NOTE
        py-1  orders  1  AGE ago  -  not a streamhand worker: what it holds is left to it
        sh1-1-old-1-a  orders  0  AGE ago  AGE  gone
        sh1-30000-test-1-a  orders  0  AGE ago  AGE
        "#) };
        let json = status(&cli).await;
        assert_eq!((&json["length"], &json["dead"], &json["replayed"]), (&8.into(), &2.into(), &1.into()));
        assert_eq!((&json["group"]["lag"], &json["group"]["pending"]), (&4.into(), &1.into()));
        assert_eq!(json["group"]["consumers"].as_array().unwrap().len(), 4);
        run(&mut redis, "XGROUP DELCONSUMER orders fulfilment sh1-30000-test-1-a").await;
        let out = cli.run(&["status"]).await.ok();
        assert!(out.ends_with("orders: nobody works on it: shop run starts a worker\n"), "{out}");
    }

    async fn parked_entries_are_counted_and_the_next_is_announced(server: Server) {
        let mut redis = server.connect().await;
        for _ in 0..3 {
            add(&mut redis, "orders", &fields(&[("type", "order.created")])).await;
        }
        let slow = "[retry]\nbackoff = { initial = \"1h\", max = \"2h\", jitter = 0.0 }";
        let registry = Registry::new().on_raw("order.created", |_, _| async { Err("no stock".into()) });
        let worker = Working::start(settings(&server, slow), registry);
        let cli = Cli::new(&server, "");
        let json = eventually(PATIENCE, "all to be parked", async || {
            Some(status(&cli).await).filter(|json| json["parked"] == 3)
        })
        .await;
        assert_eq!((&json["group"]["pending"], &json["group"]["lag"]), (&3.into(), &0.into()));
        let due = json["next_due_ms"].as_u64().unwrap();
        assert!((3_500_000..=3_600_000).contains(&due), "{due}");
        assert!(json["group"]["oldest_pending_ms"].as_u64().unwrap() < 30_000);
        let consumers = json["group"]["consumers"].as_array().unwrap();
        assert_eq!((consumers.len(), &consumers[0]["standing"]), (1, &"working".into()));
        assert_eq!((&consumers[0]["lease_ms"], &json["protocol"]), (&30_000.into(), &2.into()));
        assert!(cli.run(&["status"]).await.ok().contains("3 (next in 59m "));
        worker.stop().await;
    }

    /// A blocked read that brings nothing does not count as a sign of life on Redis 7.0.
    async fn a_worker_without_work_is_not_called_gone(server: Server) {
        let mut redis = server.connect().await;
        add(&mut redis, "orders", &fields(&[("type", "order.created")])).await;
        let registry = Registry::new().on_raw("order.created", |_, _| async { Ok(()) });
        let worker = Working::start(settings(&server, "[worker]\nlease = \"500ms\""), registry);
        let cli = Cli::new(&server, "");
        eventually(PATIENCE, "the entry to be handled", async || {
            let group = status(&cli).await["group"].take();
            (&group["lag"], &group["pending"]) == (&0.into(), &0.into())
        })
        .await;
        let idle_since = Instant::now();
        eventually(Duration::from_secs(10), "it to be called working after four leases without work", async || {
            let consumer = status(&cli).await["group"]["consumers"][0].take();
            let working = consumer["standing"] == "working" && idle_since.elapsed() > Duration::from_secs(2);
            if working { Ok(()) } else { Err(consumer) }
        })
        .await;
        worker.stop().await;
    }

    async fn the_lag_is_right_where_redis_does_not_know_it(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "");
        let event = fields(&[("type", "order.created")]);
        let lag = async |cli: &Cli| {
            let group = status(cli).await["group"].take();
            (group["lag"].as_u64(), group["lag_at_least"].as_u64().unwrap())
        };
        deliver(&mut redis, "orders", &event).await;
        assert_eq!(lag(&cli).await, (Some(0), 0));
        let mut ids = Vec::new();
        for _ in 0..1100 {
            ids.push(add(&mut redis, "orders", &event).await);
        }
        assert_eq!(lag(&cli).await, (Some(1100), 1100));
        // An entry that is deleted ahead of the group makes Redis forget the lag. Few are behind it: the rest is.
        run(&mut redis, &format!("XDEL orders {}", ids[500])).await;
        assert_eq!(lag(&cli).await, (Some(1099), 1099));
        run(&mut redis, &format!("XGROUP SETID orders fulfilment {}", ids[499])).await;
        assert_eq!(lag(&cli).await, (Some(599), 599));
        // All that the group has read is trimmed, and some that it has not.
        run(&mut redis, "XTRIM orders MAXLEN 7").await;
        assert_eq!(lag(&cli).await, (Some(7), 7));
        run(&mut redis, "XTRIM orders MAXLEN 0").await;
        assert_eq!(lag(&cli).await, (Some(0), 0));
        // Large entries are not all looked at.
        let large = fields(&[("type", "order.created"), ("data", &"x".repeat(3 << 20))]);
        for _ in 0..6 {
            ids.push(add(&mut redis, "orders", &large).await);
        }
        run(&mut redis, &format!("XDEL orders {}", ids[1104])).await;
        run(&mut redis, &format!("XGROUP SETID orders fulfilment {}", ids[1102])).await;
        add(&mut redis, "orders", &event).await;
        run(&mut redis, &format!("XGROUP SETID orders fulfilment {}", ids[1102])).await;
        assert_eq!(lag(&cli).await, (None, 2));
    }

    async fn a_newer_release_is_named(server: Server) {
        let mut redis = server.connect().await;
        deliver(&mut redis, "orders", &fields(&[("type", "order.created")])).await;
        run(&mut redis, "SET {orders}:fulfilment:protocol 99").await;
        let out = Cli::new(&server, "").run(&["status"]).await.ok();
        assert!(out.ends_with("orders: a newer release works on it (protocol 99; this one speaks 2)\n"), "{out}");
    }

    /// Before Redis 8.2 the server counts what was trimmed unread as unread for ever.
    async fn the_lag_after_a_trimming_by_hand_is_what_is_there_and_unread(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "");
        run(&mut redis, "XGROUP CREATE orders fulfilment 0 MKSTREAM").await;
        add_many(&mut redis, 100).await;
        run(&mut redis, "XREADGROUP GROUP fulfilment c COUNT 1 STREAMS orders >").await;
        run(&mut redis, "XTRIM orders MAXLEN 50").await;
        assert_eq!(status(&cli).await["group"]["lag"], 50);
        run(&mut redis, "XREADGROUP GROUP fulfilment c COUNT 49 STREAMS orders >").await;
        assert_eq!(status(&cli).await["group"]["lag"], 1);
        add_many(&mut redis, 2).await;
        assert_eq!(status(&cli).await["group"]["lag"], 3);
        run(&mut redis, "XREADGROUP GROUP fulfilment c STREAMS orders >").await;
        assert_eq!(status(&cli).await["group"]["lag"], 0);
        // Many are unread and few are not.
        add_many(&mut redis, 1_500).await;
        assert_eq!(status(&cli).await["group"]["lag"], 1_500);
    }

    /// With many on both sides an old server can't be asked, and they are not all counted: it says so.
    async fn a_lag_that_is_not_known_is_at_least_what_was_counted(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "");
        run(&mut redis, "XGROUP CREATE orders fulfilment 0 MKSTREAM").await;
        add_many(&mut redis, 5_000).await;
        // What workers trim is settled, and says nothing against the server's number.
        run(&mut redis, "XREADGROUP GROUP fulfilment c COUNT 1000 NOACK STREAMS orders >").await;
        run(&mut redis, "XTRIM orders MAXLEN = 4000").await;
        run(&mut redis, "HINCRBY {orders}:trimmed settled 1000").await;
        run(&mut redis, "XREADGROUP GROUP fulfilment c COUNT 1500 NOACK STREAMS orders >").await;
        assert_eq!(status(&cli).await["group"]["lag"], 2_500);
        // What other hands trim may have been unread.
        run(&mut redis, "XTRIM orders MAXLEN = 3900").await;
        let group = status(&cli).await["group"].take();
        let knows = server.kind() == Kind::Valkey;
        let expected = if knows { (2_500.into(), 2_500.into()) } else { (serde_json::Value::Null, 1_000.into()) };
        assert_eq!((&group["lag"], &group["lag_at_least"]), (&expected.0, &expected.1));
        // What is deleted ahead of the group makes every server forget.
        let last: Vec<(String, redis::Value)> =
            redis::cmd("XREVRANGE").arg(&["orders", "+", "-", "COUNT", "1"]).query_async(&mut redis).await.unwrap();
        run(&mut redis, &format!("XDEL orders {}", last[0].0)).await;
        let group = status(&cli).await["group"].take();
        assert_eq!((&group["lag"], &group["lag_at_least"]), (&serde_json::Value::Null, &1_000.into()));
        let out = cli.run(&["status"]).await.ok();
        assert!(out.contains(" 1000+ "), "{out}");
    }
}
