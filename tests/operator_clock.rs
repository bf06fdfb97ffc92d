//! Commands on a machine whose clock is wrong: what is long ago, what is later and how old something is goes by the
//! server's clock.

use std::time::{Duration, SystemTime};

use redis::aio::MultiplexedConnection;

use crate::support::letters::{DEAD, bury, bury_many, fields};
use crate::support::{Cli, Clock, Server, entries};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The program on a machine whose clock is 40 days ahead.
fn ahead(server: &Server) -> (Cli, Clock) {
    let clock = Clock::new();
    clock.ahead(40 * DAY);
    (Cli::new(server, "").with_clock(&clock), clock)
}

/// The program on a machine whose clock is 40 days behind.
fn behind(server: &Server) -> (Cli, Clock) {
    let clock = Clock::new();
    clock.behind(40 * DAY);
    (Cli::new(server, "").with_clock(&clock), clock)
}

/// A letter buried so long ago.
async fn bury_ago(redis: &mut MultiplexedConnection, ago: Duration) {
    bury(
        redis,
        "orders",
        &fields(&[("type", "order.old")]),
        "failed",
        "no stock",
    )
    .await;
    let letter = entries(redis, DEAD).await.pop().expect("the letter");
    let ms = letter.id.ms - ago.as_millis() as u64;
    let mut again = redis::cmd("XADD");
    again.arg(DEAD).arg(format!("{ms}-0"));
    for (name, value) in &letter.fields {
        again.arg(&name[..]).arg(&value[..]);
    }
    let _: () = redis::cmd("DEL")
        .arg(DEAD)
        .query_async(redis)
        .await
        .unwrap();
    let _: () = again.query_async(redis).await.unwrap();
}

/// So far from now by this machine's clock, which the servers of tests have, too.
fn in_a(duration: Duration) -> String {
    humantime::format_rfc3339_seconds(SystemTime::now() + duration).to_string()
}

on_both_servers! {
    async fn letters_are_as_old_as_the_server_says(server: Server) {
        let mut redis = server.connect().await;
        bury_ago(&mut redis, 2 * DAY).await;
        bury_many(&mut redis, 2).await;
        let ((ahead, _kept), (behind, _kept_too)) = (ahead(&server), behind(&server));
        for cli in [&ahead, &behind] {
            let count = async |filter: &str, ago: &str| {
                let ran = cli.run(&["dlq", "stats", filter, ago, "--json"]).await;
                ran.json()["total"].as_u64().unwrap()
            };
            assert_eq!(count("--since", "1h").await, 2);
            assert_eq!(count("--until", "1h").await, 1);
            assert_eq!(count("--until", "30d").await, 0);
            assert_eq!(count("--since", "30d").await, 3);
            let ran = cli.run(&["dlq", "replay", "--until", "30d", "--dry-run"]).await;
            assert_eq!(ran.ok(), "would replay 0 dead letters\n");
        }
        let ran = ahead.run(&["dlq", "purge", "--until", "30d", "--yes"]).await;
        assert_eq!((ran.code, &ran.out[..]), (0, ""), "{}", ran.err);
        assert_eq!(behind.run(&["dlq", "purge", "--until", "1d", "--yes"]).await.ok(), "deleted 1 dead letter\n");
        let id = entries(&mut redis, DEAD).await[1].id.to_string();
        for cli in [ahead, behind] {
            let out = cli.run(&["dlq", "show", &id]).await.ok();
            let buried = out.lines().find(|line| line.contains("  buried  ")).unwrap();
            assert!(buried.ends_with("s ago)") && !buried.contains("(0ms "), "{buried}");
        }
    }

    async fn what_is_later_is_later_at_the_server(server: Server) {
        let ((ahead, _kept), (behind, _kept_too)) = (ahead(&server), behind(&server));
        let publish = ["publish", "orders", "order.created", "{}"];
        let at = in_a(DAY);
        let ran = ahead.run(&[&publish[..], &["--at", &at]].concat()).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.err.starts_with(&format!("due at {at}\n")), "{ran:?}");
        let at = in_a(Duration::ZERO);
        let err = behind.run(&[&publish[..], &["--at", &at]].concat()).await.failed(2);
        assert!(err.starts_with(&format!("error: --at {at} has passed (it is ")), "{err}");
        let year = &in_a(Duration::ZERO)[..4];
        assert!(err.contains(&format!("(it is {year}-")) && err.contains(" now at the server)"), "{err}");
    }

    async fn a_pause_is_as_old_as_the_server_says(server: Server) {
        let right = Cli::new(&server, "");
        right.run(&["publish", "orders", "order.created", "{}"]).await.ok();
        let ((ahead, _kept), (behind, _kept_too)) = (ahead(&server), behind(&server));
        for cli in [ahead, behind] {
            cli.run(&["pause", "orders", "--by", "me"]).await.ok();
            let note = right.run(&["status"]).await.ok();
            let note = note.lines().find(|line| line.contains("paused ")).unwrap();
            assert!(note.contains("s ago by me: "), "{note}");
            let since = right.run(&["status", "--json"]).await.json();
            let since = since["streams"][0]["paused"][0]["since_ms"].as_u64().unwrap();
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
            assert!((now - 60_000..=now).contains(&since), "{since} at {now}");
            cli.run(&["resume", "orders"]).await.ok();
        }
    }
}
