//! The README's rules for users who do not do everything: each is read from there, and its user can do what it is for
//! and nothing else.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use streamhand::eventstore::{Expected, PublicStreams};
use streamhand::{Context, Envelope, Registry};

use crate::support::letters::{DEAD, bury_many};
use crate::support::{Cli, Server, Setup, entries, eventually};

async fn run(redis: &mut MultiplexedConnection, command: &str) -> redis::RedisResult<redis::Value> {
    let mut words = command.split_whitespace();
    let mut cmd = redis::cmd(words.next().expect("a command"));
    cmd.arg(words.collect::<Vec<_>>()).query_async(redis).await
}

/// Makes the user of that name by the README's rule, and the program that logs in as it.
async fn user(server: &Server, redis: &mut MultiplexedConnection, name: &str, more: &str) -> Cli {
    let readme = include_str!("../README.md");
    let begin = format!("ACL SETUSER {name} ");
    let rule = readme
        .lines()
        .find(|line| line.starts_with(&begin))
        .expect("the rule");
    run(redis, &format!("{rule} {more}")).await.expect("a rule");
    Cli::at(
        &format!("redis://{name}:secret@127.0.0.1:{}", server.port()),
        "",
    )
}

async fn refusals(redis: &mut MultiplexedConnection) -> usize {
    let log: Vec<redis::Value> = redis::cmd("ACL")
        .arg("LOG")
        .query_async(redis)
        .await
        .unwrap();
    log.len()
}

const EVENT: [&str; 4] = ["publish", "orders", "order.created", "{}"];

on_both_servers! {
    async fn who_only_publishes_can_publish_and_no_more(server: Server) {
        let mut redis = server.connect().await;
        let publisher = user(&server, &mut redis, "publisher", "").await;
        publisher.run(&EVENT).await.ok();
        assert_eq!(publisher.run_with(&["publish", "orders", "order.created", "-"], b"{}\n{}\n").await.ok(), "published 2\n");
        assert_eq!(entries(&mut redis, "orders").await.len(), 3);
        assert_eq!(refusals(&mut redis).await, 0);
        for refused in [&["status"][..], &["dlq", "list"], &["publish", "others", "order.created", "{}"],
            &[&EVENT[..], &["--delay", "1h"]].concat()] {
            let said = publisher.run(refused).await.failed(1);
            assert!(said.contains("NOPERM"), "{refused:?}: {said}");
        }
    }

    async fn who_publishes_later_and_once_can_do_that(server: Server) {
        let mut redis = server.connect().await;
        let scheduler = user(&server, &mut redis, "scheduler", "").await;
        scheduler.run(&EVENT).await.ok();
        for _ in 0..2 {
            scheduler.run(&[&EVENT[..], &["--delay", "1h", "--id", "e-1"]].concat()).await.ok();
            scheduler.run(&[&EVENT[..], &["--once", "--id", "e-2"]].concat()).await.ok();
        }
        // The same id of another type.
        scheduler.run(&["publish", "orders", "order.paid", "{}", "--delay", "1h", "--id", "e-1"]).await.ok();
        assert_eq!(entries(&mut redis, "orders").await.len(), 2);
        assert_eq!(refusals(&mut redis).await, 0, "{:?}", run(&mut redis, "ACL LOG").await);
        let said = scheduler.run(&["status"]).await.failed(1);
        assert!(said.contains("NOPERM"), "{said}");
    }

    /// By the rule for workers, and what is said of streams that handlers schedule for and append to.
    async fn a_worker_whose_handlers_schedule_and_append_can_do_that(server: Server) {
        let mut redis = server.connect().await;
        let shipments = "~shipments ~{shipments}:*";
        user(&server, &mut redis, "worker", shipments).await;
        let registry = Registry::new().on_raw("order.created", async |_: Envelope, ctx: Context| {
            ctx.cancel("orders", "nothing of that id");
            for stream in ["orders", "shipments"] {
                let later = Envelope::new("order.late").with("id", "e-1");
                ctx.emit_envelope_after(stream, later.clone(), Duration::from_secs(3600));
                ctx.emit_envelope_after(stream, later.with("source", "another"), Duration::from_secs(3600));
                ctx.cancel_event(stream, &Envelope::new("order.late").with("id", "e-1"));
                let aggregate = "order:o-1".parse()?;
                let event = Envelope::new("order.shipped");
                ctx.append_envelopes(&PublicStreams::new(stream)?, &aggregate, vec![event], Expected::Any);
            }
            Ok(())
        });
        let url = format!("redis://worker:secret@127.0.0.1:{}", server.port());
        let worker = Setup::at(url).worker("streams = [\"orders\"]").worker("group = \"fulfilment\"").start_with(registry);
        // Its own events come back to it, and nobody handles those.
        Cli::new(&server, "").run(&EVENT).await.ok();
        let there = async |redis: &mut MultiplexedConnection| entries(redis, "{shipments}:order:o-1").await.len() == 1;
        eventually(Duration::from_secs(30), "the commit", async || there(&mut redis).await).await;
        assert_eq!(refusals(&mut redis).await, 0, "{:?}", run(&mut redis, "ACL LOG").await);
        worker.stop().await;
    }

    async fn who_only_looks_can_look_at_everything_and_change_nothing(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 3).await;
        let all = Cli::new(&server, "");
        all.run(&[&EVENT[..], &["--delay", "1h"]].concat()).await.ok();
        let viewer = user(&server, &mut redis, "viewer", "").await;
        let letter = entries(&mut redis, DEAD).await[0].id.to_string();
        for looks in [&["status"][..], &["status", "--json"], &["dlq", "list"], &["dlq", "list", "--since", "1h"],
            &["dlq", "stats"], &["dlq", "show", &letter], &["scheduled", "list"], &["scheduled", "list", "--json"],
            &["dlq", "purge", "--all", "--dry-run"], &["projection", "list"],
            &["find", "type:order.created"], &["entry", &letter], &["worker", "list"]] {
            let ran = viewer.run(looks).await;
            assert_eq!(ran.code, 0, "{looks:?}: {ran:?}");
        }
        let judged = viewer.run(&["conformance", "--stream", "orders"]).await;
        assert!(judged.out.contains(" looked at: "), "{judged:?}");
        let trimmed = "\n[streams.orders]\nretention = \"acked\"";
        let url = format!("redis://viewer:secret@127.0.0.1:{}", server.port());
        let out = Cli::at(&url, trimmed).run(&["status"]).await.ok();
        let text = format!("[redis]\nurl = \"{url}\"\n[worker]\ngroup = \"fulfilment\"\nstreams = [\"orders\"]{trimmed}");
        let settings = streamhand::Settings::from_toml_str(&text).expect("right settings");
        let load = streamhand::admin::Admin::new(&settings).expect("an admin").load().await.expect("a look");
        assert_eq!((load.streams[0].dead, load.append_only), (3, Some(false)));
        assert!(out.contains("retention acked: "), "{out}");
        assert_eq!(refusals(&mut redis).await, 0, "{:?}", run(&mut redis, "ACL LOG").await);
        // These try what would write, or tell more, and do without.
        for looks in [&["dlq", "groups"][..], &["dlq", "runs"], &["redis"]] {
            let ran = viewer.run(looks).await;
            assert_eq!(ran.code, 0, "{looks:?}: {ran:?}");
        }
        for changes in [&EVENT[..], &["dlq", "replay", "--all"], &["dlq", "purge", "--all", "--yes"], &["pause", "orders"]] {
            let said = viewer.run(changes).await;
            assert!(said.code == 1 && said.err.contains("NOPERM"), "{changes:?}: {said:?}");
        }
        assert_eq!(entries(&mut redis, DEAD).await.len(), 3);
    }

    async fn who_only_looks_sees_aggregates_whose_keys_it_may_read(server: Server) {
        let mut redis = server.connect().await;
        let all = Cli::new(&server, "");
        let order = r#"{"order_id":"o-1","customer_id":"c-1","amount":5,"items":[{"sku":"s-1","quantity":1}]}"#;
        all.run(&["aggregate", "append", "order:o-1", "order.created", order]).await.ok();
        let viewer = user(&server, &mut redis, "viewer", "~*").await;
        for args in [&["aggregate", "show", "order:o-1"][..], &["aggregate", "history", "order:o-1"], &["aggregate", "verify"]] {
            let ran = viewer.run(args).await;
            assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        }
        assert_eq!(refusals(&mut redis).await, 0, "{:?}", run(&mut redis, "ACL LOG").await);
        let said = viewer.run(&["aggregate", "append", "order:o-1", "order.cancelled", r#"{"order_id":"o-1"}"#]).await;
        assert!(said.code == 1 && said.err.contains("NOPERM"), "{said:?}");
    }
}
