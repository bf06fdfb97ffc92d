//! What is in the way of a commit that schedules, cancels and appends: nothing of it is done, and it is told.

use streamhand::Registry;

use super::*;
use crate::effects::cluster::cluster;
use crate::effects::refused_for_memory;
use crate::support::Kind;

async fn run(redis: &mut MultiplexedConnection, command: &str) {
    let mut words = command.split_whitespace();
    let mut cmd = redis::cmd(words.next().expect("a command"));
    let _: redis::Value = cmd
        .arg(words.collect::<Vec<_>>())
        .query_async(redis)
        .await
        .expect(command);
}

/// Why the one dead letter was buried, which is taken away.
async fn buried_for(redis: &mut MultiplexedConnection) -> String {
    eventually(PATIENCE, "a dead letter", async || dead(redis).await == 1).await;
    let letter = entries(redis, DEAD).await.remove(0);
    let _: () = redis.del(DEAD).await.unwrap();
    let error = letter
        .fields
        .into_iter()
        .find(|(name, _)| name == "dead.error");
    String::from_utf8(error.expect("an error").1.to_vec()).unwrap()
}

on_both_servers! {
    async fn a_key_that_holds_something_else_is_named_and_nothing_is_done(server: Server) {
        let mut redis = server.connect().await;
        let worker = Setup::new(&server).retry("max_attempts = 1").start_with(Registry::new().on(all));
        for (key, said) in [
            ("{jobs}:scheduled", "cancelling an event for jobs: {jobs}:scheduled holds a string and should be a zset"),
            ("{jobs}:scheduled:events", "{jobs}:scheduled:events holds a string and should be a hash"),
            ("orders", "appending to {orders}:order:one: orders holds a string and should be a stream"),
            ("{orders}:order:one", "{orders}:order:one holds a string and should be a stream"),
        ] {
            let _: () = redis.set(key, "x").await.unwrap();
            publish(&mut redis, &["one"]).await;
            let error = buried_for(&mut redis).await;
            assert!(error.contains(said), "{error}");
            let _: () = redis.del(key).await.unwrap();
            assert_nothing(&mut redis).await;
        }
        // A stream that does not begin as an aggregate does.
        run(&mut redis, "XADD {orders}:order:one 5-0 type x").await;
        publish(&mut redis, &["one"]).await;
        let error = buried_for(&mut redis).await;
        assert!(error.contains("does not begin with the first event"), "{error}");
        let _: () = redis.del("{orders}:order:one").await.unwrap();
        assert_nothing(&mut redis).await;
        worker.stop().await;
    }

    async fn a_server_without_memory_has_nothing_of_it_and_then_everything(server: Server) {
        let mut redis = server.connect().await;
        schedule_old(&publisher(&server.url()), &["first", "short"]).await;
        let worker = Setup::new(&server).start_with(Registry::new().on(all));
        publish(&mut redis, &["first"]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        // Entries still come, for they are there already.
        let data = serde_json::to_string(&Job::new("short", Action::Succeed)).unwrap();
        let mut full = redis::pipe();
        full.atomic().cmd("XADD").arg("jobs").arg("*").arg(&["type", Job::TYPE, "data", &data]).ignore();
        full.cmd("CONFIG").arg("SET").arg("maxmemory").arg("1").ignore();
        let _: () = full.query_async(&mut redis).await.unwrap();
        refused_for_memory(&mut redis).await;
        assert_eq!(version(&server, "short").await, 0);
        assert_eq!(entries(&mut redis, "done").await.len(), 1);
        assert_eq!(scheduled(&publisher(&server.url()), "jobs").await, ["old-short", "timer-first"]);
        run(&mut redis, "CONFIG SET maxmemory 0").await;
        settled(&mut redis, "jobs", PATIENCE).await;
        worker.stop().await;
        assert_once(&server, &["first", "short"]).await;
    }

    /// The first write of a commit is what is refused for want of memory, whichever line that is.
    async fn whichever_line_comes_first_waits_for_memory(server: Server) {
        let mut redis = server.connect().await;
        let registry = Registry::new().on(async |job: Job, ctx: Context| {
            ctx.cancel("jobs", "nothing of that id");
            match &job.id[..] {
                "later" => ctx.emit_envelope_after("jobs", timer("x"), HOUR),
                _ => ctx.append::<Order>("x", [Added { cents: 1 }], Expected::Any),
            }
            Ok(())
        });
        let worker = Setup::new(&server).retry("max_attempts = 1").start_with(registry);
        for id in ["later", "append"] {
            let data = serde_json::to_string(&Job::new(id, Action::Succeed)).unwrap();
            let mut full = redis::pipe();
            full.atomic().cmd("XADD").arg("jobs").arg("*").arg(&["type", Job::TYPE, "data", &data]).ignore();
            full.cmd("CONFIG").arg("RESETSTAT").ignore();
            full.cmd("CONFIG").arg("SET").arg("maxmemory").arg("1").ignore();
            let _: () = full.query_async(&mut redis).await.unwrap();
            refused_for_memory(&mut redis).await;
            run(&mut redis, "CONFIG SET maxmemory 0").await;
            settled(&mut redis, "jobs", PATIENCE).await;
        }
        worker.stop().await;
        assert_eq!(dead(&mut redis).await, 0, "{:?}", entries(&mut redis, DEAD).await);
        assert_eq!((version(&server, "x").await, scheduled(&publisher(&server.url()), "jobs").await.len()), (1, 1));
    }

    /// Keys that no rule allows, and commands that no rule allows: both are named.
    async fn a_right_that_is_missing_is_named_and_nothing_is_done(server: Server) {
        let mut redis = server.connect().await;
        let worker_of = |server: &Server| {
            let url = format!("redis://limited:secret@127.0.0.1:{}", server.port());
            Setup::at(url).retry("max_attempts = 1")
        };
        let rights = "ACL SETUSER limited on >secret +@all ~jobs ~{jobs}:* ~streamhand:* ~done";
        for (more, said) in [
            ("", "appending to order:one: this user may not XADD {orders}:order:one: its ACL lacks ~{orders}:order:one"),
            ("~orders ~{orders}:* -xsetid", "appending to {orders}:order:one: the ACL of this user lacks XSETID of orders"),
            ("~orders ~{orders}:* +xsetid -zadd", "ZADD"),
        ] {
            let _: () = redis::cmd("FLUSHALL").query_async(&mut redis).await.unwrap();
            run(&mut redis, &format!("{rights} {more}")).await;
            let registry = Registry::new().on(async |job: Job, ctx: Context| {
                // Without what else needs ZADD.
                all(job, ctx).await
            });
            let worker = worker_of(&server).start_with(registry);
            publish(&mut redis, &["one"]).await;
            if more.ends_with("-zadd") {
                // Neither can it park, bury or commit anything: it goes on once it may.
                eventually(PATIENCE, "a refusal", async || {
                    let log: Vec<redis::Value> = redis::cmd("INFO").arg("errorstats").query_async::<String>(&mut redis).await
                        .map(|stats| stats.lines().filter(|line| line.contains("NOPERM")).map(|_| redis::Value::Nil).collect()).unwrap();
                    !log.is_empty()
                })
                .await;
                assert_nothing(&mut redis).await;
                run(&mut redis, "ACL SETUSER limited +zadd").await;
                settled(&mut redis, "jobs", PATIENCE).await;
                worker.stop().await;
                assert_once(&server, &["one"]).await;
                continue;
            }
            let error = buried_for(&mut redis).await;
            assert!(error.contains(said), "{error}");
            assert_nothing(&mut redis).await;
            worker.stop().await;
        }
    }

    async fn what_is_in_another_slot_of_a_cluster_is_refused_with_what_would_be_right(kind: Kind) {
        let server = cluster(kind).await;
        let mut redis = server.connect().await;
        let registry = Registry::new().on(async |job: Job, ctx: Context| {
            match &job.id[..] {
                "later" => ctx.emit_envelope_after("far", timer("x"), HOUR),
                "cancel" => ctx.cancel("far", "timer-x"),
                "append" => ctx.append::<Order>("o-1", [Added { cents: 1 }], Expected::Any),
                _ => {
                    ctx.emit_envelope_after("{jobs}:near", timer("x"), HOUR);
                    ctx.cancel("jobs", "timer-y");
                    let public = PublicStreams::new("{jobs}:orders")?;
                    let id = "order:o-1".parse()?;
                    ctx.append_envelopes(&public, &id, vec![Envelope::new("order.added")], Expected::NoStream);
                    ctx.emit_envelope("far", Envelope::new("test.done"));
                }
            }
            Ok(())
        });
        let worker = Setup::new(&server).retry("max_attempts = 1").start_with(registry);
        for (id, said) in [
            ("later", ["emitting to far later: on a cluster", "have its handler schedule"]),
            ("cancel", ["cancelling an event for far: on a cluster", "have its handler cancel"]),
            ("append", ["appending to order:o-1: on a cluster", "emit an event to \"orders\" with the subject \"order:o-1\""]),
        ] {
            publish(&mut redis, &[id]).await;
            let error = buried_for(&mut redis).await;
            assert!(said.iter().all(|said| error.contains(said)), "{error}");
        }
        publish(&mut redis, &["near"]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        eventually(PATIENCE, "what goes by the outbox", async || entries(&mut redis, "far").await.len() == 1).await;
        worker.stop().await;
        assert_eq!(dead(&mut redis).await, 0);
        for (key, length) in [("{jobs}:orders", 1), ("{jobs}:orders:order:o-1", 1)] {
            assert_eq!(entries(&mut redis, key).await.len(), length, "{key}");
        }
        assert_eq!(scheduled(&publisher(&server.url()), "{jobs}:near").await, ["timer-x"]);
    }

    /// An event is scheduled in the partition in which it will be, by its subject, and is looked for there.
    async fn a_partitioned_topic_has_what_is_scheduled_in_the_partition_of_its_subject(server: Server) {
        let mut redis = server.connect().await;
        let publisher = publisher(&server.url()).partitioned("jobs", 4).unwrap();
        let registry = Registry::new().on(async |job: Job, ctx: Context| {
            match &job.id[..] {
                "cancel" => ctx.cancel("jobs", &format!("timer-{}", ctx.envelope().subject().unwrap_or_default())),
                id => ctx.emit_envelope_after("jobs", timer(id), HOUR),
            }
            Ok(())
        });
        let worker = Setup::new(&server).stream("partitions = 4").start_with(registry);
        let subjects = ["s-1", "s-2", "s-3", "s-4", "s-5", "s-6"];
        let event = |id: &str, subject: &str| {
            Envelope::new(Job::TYPE).with("subject", subject).json(&Job::new(id, Action::Succeed)).unwrap()
        };
        for subject in subjects {
            publisher.publish_envelope("jobs", event(subject, subject)).await.unwrap();
        }
        eventually(PATIENCE, "all to be scheduled", async || scheduled(&publisher, "jobs").await.len() == subjects.len()).await;
        for subject in subjects {
            let stream = publisher.stream_of("jobs", &event("x", subject)).await.unwrap();
            let due = format!("{stream}:scheduled");
            let score: Option<f64> = redis.zscore(&due, format!("timer-{subject}")).await.unwrap();
            assert!(score.is_some(), "{due}");
        }
        for subject in subjects {
            publisher.publish_envelope("jobs", event("cancel", subject)).await.unwrap();
        }
        eventually(PATIENCE, "all to be cancelled", async || scheduled(&publisher, "jobs").await.is_empty()).await;
        worker.stop().await;
    }
}
