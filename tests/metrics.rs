//! What is counted is what has happened: whatever becomes of entries, the sums agree with Redis to the entry.

use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use redis::streams::StreamInfoGroupsReply;
use streamhand::dead_letters::{DeadLetters, Filter};
use streamhand::metrics::Metrics;
use streamhand::{Context, Envelope, Failure, Publisher, Registry, Settings};

use crate::support::jobs::{self, Action, Job, many};
use crate::support::letters::fields;
use crate::support::{
    Exchange, Proxy, Scrape, Server, Setup, add, dead, eventually, parked, publisher, scripts,
    settled,
};

const PATIENCE: Duration = Duration::from_secs(40);

/// What events of other types do.
fn registry() -> Registry {
    jobs::registry()
        .on_raw("test.emits", |_, ctx: Context| async move {
            ctx.emit("mails", Job::new("mail", Action::Nothing));
            Ok(())
        })
        .on_raw("test.once", |_, _| async { Ok(()) })
        .on_raw("test.slow", |_, _| std::future::pending())
        .ignore("test.ignored")
}

async fn all_settled(redis: &mut MultiplexedConnection) {
    eventually(PATIENCE, "everything to be settled", async || {
        settled(redis, "jobs", PATIENCE).await;
        match parked(redis).await {
            0 => Ok(()),
            parked => Err(format!("{parked} parked")),
        }
    })
    .await;
}

async fn entries_read(redis: &mut MultiplexedConnection) -> f64 {
    let info = redis::cmd("XINFO").arg("GROUPS").arg("jobs").to_owned();
    let groups: StreamInfoGroupsReply = info.query_async(redis).await.unwrap();
    groups.groups[0].entries_read.expect("a count") as f64
}

on_both_servers! {
    async fn sums_agree_with_redis_whatever_becomes_of_entries(server: Server) {
        let mut redis = server.connect().await;
        let metrics = Metrics::new();
        let publisher = publisher(&server.url()).metrics(&metrics);
        let setup = Setup::new(&server)
            .more("[handlers.\"test.once\"]\ndeduplicate = \"1h\"")
            .more("[handlers.\"test.slow\"]\ntimeout = \"100ms\"\ngrace = \"10ms\"\nmax_attempts = 1");

        // A worker dies with all it has: what it counted is gone, and it has settled nothing.
        let killed = many("killed", 12, &Action::TakeOrLess(60_000, 0));
        publisher.publish_many("jobs", &killed).await.unwrap();
        let mut process = setup.process();
        eventually(PATIENCE, "all to run", async || jobs::started(&mut redis).await.len() == 12).await;
        let pid = process.pid();
        process.kill();

        let fleet = [setup.start_counted(registry(), &metrics), setup.start_counted(registry(), &metrics)];
        let mut all = many("quiet", 300, &Action::Nothing);
        all.extend(many("fine", 40, &Action::Succeed));
        all.extend(many("twice", 20, &Action::Fail(2)));
        all.extend(many("bad", 7, &Action::FailForGood));
        all.extend(many("panics", 3, &Action::Panic));
        all.extend(many("later", 5, &Action::Later(1)));
        publisher.publish_many("jobs", &all).await.unwrap();
        let typed = |name: &str, count: usize| (0..count).map(|_| Envelope::new(name)).collect::<Vec<_>>();
        let mut more = typed("test.emits", 11);
        more.extend(typed("test.slow", 2));
        more.extend(typed("test.ignored", 4));
        publisher.publish_envelopes("jobs", more).await.unwrap();
        for _ in 0..2 {
            add(&mut redis, "jobs", &fields(&[("data", "{}")])).await;
        }
        let once = || Envelope::new("test.once").with("id", "e-1");
        publisher.publish_envelope("jobs", once()).await.unwrap();
        all_settled(&mut redis).await;
        publisher.publish_envelopes("jobs", (0..5).map(|_| once())).await.unwrap();
        all_settled(&mut redis).await;

        let buried = dead(&mut redis).await;
        assert_eq!(buried, 7 + 3 + 2 + 2);
        let settings = Settings::from_toml_str(&setup.toml()).unwrap();
        let letters = DeadLetters::new(&settings).unwrap();
        let replay = letters.select(Filter::default()).await.unwrap().replay("me", None, |_| ()).await.unwrap();
        assert_eq!(replay.replayed, buried);
        eventually(PATIENCE, "all to die again", async || {
            let again: u64 = redis.xlen("{jobs}:workers:again").await.unwrap();
            dead(&mut redis).await == buried && again == 0
        })
        .await;
        // An answer may still be on its way.
        let scrape = eventually(PATIENCE, "nothing to be held", async || {
            let scrape = Scrape::of(&metrics);
            let held = scrape.sum("held", "");
            if held == 0.0 { Ok(scrape) } else { Err(format!("{held}")) }
        })
        .await;

        let length: u64 = redis.xlen("jobs").await.unwrap();
        let (length, replayed) = (length as f64, buried as f64);
        let outcome = |outcome: &str| scrape.sum("settled_total", &format!("outcome={outcome}"));
        let delivered = |via: &str| scrape.sum("delivered_total", &format!("via={via}"));
        assert_eq!(length, 12.0 + 375.0 + 17.0 + 2.0 + 6.0);
        // Every entry and every replayed copy has come to one end, and there is nothing else.
        let ends = outcome("acked") + outcome("committed") + outcome("dead") + outcome("duplicate");
        assert_eq!(ends, length + replayed, "{:#?}", scrape.all("settled_total"));
        assert_eq!(outcome("acked"), 12.0 + 300.0 + 40.0 + 20.0 + 5.0 + 4.0);
        assert_eq!((outcome("committed"), outcome("duplicate"), outcome("lost")), (12.0, 5.0, 0.0));
        assert_eq!(outcome("dead"), 2.0 * replayed);
        assert_eq!(scrape.sum("dead_letters_total", ""), replayed + dead(&mut redis).await as f64);
        assert_eq!(outcome("retried"), 20.0 * 2.0 + 2.0 * 3.0 * 4.0);
        assert!(outcome("released") >= 5.0);
        let by_reason = |reason: &str| scrape.sum("dead_letters_total", &format!("reason={reason}"));
        assert_eq!([by_reason("permanent"), by_reason("failed"), by_reason("undecodable")], [14.0, 10.0, 4.0]);
        // Each delivery was settled once, and each that was parked came back.
        assert_eq!(scrape.sum("delivered_total", ""), scrape.sum("settled_total", ""));
        assert_eq!(delivered("wake"), outcome("retried") + outcome("released"));
        assert_eq!((delivered("reclaim"), delivered("replay")), (12.0, replayed));
        assert_eq!(delivered("read") + 12.0, entries_read(&mut redis).await);
        let failed = |kind: &str| scrape.sum("failures_total", &format!("kind={kind}"));
        assert_eq!([failed("error"), failed("panic"), failed("timeout")], [40.0 + 14.0, 30.0, 4.0]);
        // Every handler that ran was timed; those that leave no trace are known.
        let (untraced, started) = (300 + 11 + 1 + 4, jobs::started(&mut redis).await);
        let here = started.iter().filter(|trace| trace.pid != pid);
        assert_eq!(scrape.sum("process_duration_seconds_count", ""), (untraced + here.clone().count()) as f64);
        let first = here.filter(|trace| trace.attempt == 1).count();
        assert_eq!(scrape.sum("wait_seconds_count", ""), (untraced + first) as f64);
        let taken = scrape.sum("process_duration_seconds_sum", "type=test.slow");
        assert!((0.4..5.0).contains(&taken), "four times a tenth of a second: {taken}");
        for (name, sum) in [("end_to_end_seconds", 0.0), ("attempts", ends + 12.0 + 40.0 + 24.0)] {
            assert_eq!(scrape.sum(&format!("{name}_count"), ""), ends);
            assert!(scrape.sum(&format!("{name}_sum"), "") >= sum, "{name}");
        }
        assert_eq!(scrape.sum("attempts_sum", ""), ends + 12.0 + 20.0 * 2.0 + 6.0 * 4.0);
        // Only what is registered is told by its name.
        assert_eq!(scrape.sum("settled_total", "type=other"), 4.0 + 4.0);
        assert_eq!(scrape.sum("published_total", "stream=jobs,status=ok"), length - 2.0);
        assert_eq!(scrape.sum("published_total", "type=test.emits"), 11.0);
        assert!(scrape.sum("publish_duration_seconds_count", "stream=jobs,status=ok") >= 4.0);
        for request in ["xack", "park", "bury", "commit", "wake", "reclaim", "renew", "xadd"] {
            let count = scrape.sum("redis_request_duration_seconds_count", &format!("request={request}"));
            assert!(count >= 1.0, "{request}: {:#?}", scrape.all("redis_request_duration_seconds_count"));
        }
        assert_eq!(scrape.sum("slots", ""), 2.0 * f64::from(u16::try_from(settings.worker.concurrency).unwrap()));
        assert!(scrape.sum("lease_margin_seconds_count", "") == scrape.sum("lease_margin_seconds_bucket", "le=2.0"));
        for worker in fleet {
            worker.stop().await;
        }
        eventually(PATIENCE, "no worker to be told of", async || {
            Scrape::of(&metrics).all("slots").is_empty()
        })
        .await;
    }

    /// The step is done, and nobody is told: it is asked for once more.
    async fn what_is_asked_for_twice_is_counted_once(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let steps: [(&str, Exchange, Action, &str, f64); 5] = [
            ("xack", Exchange::of("XACK"), Action::Nothing, "acked", 10.0),
            ("ack", scripts::call("ack"), Action::FailOnceQuietly, "acked", 10.0),
            ("park", scripts::call("park"), Action::FailOnceQuietly, "retried", 10.0),
            ("release", scripts::call("park"), Action::Later(1), "released", 10.0),
            ("bury", scripts::call("bury"), Action::FailForGood, "dead", 10.0),
        ];
        for (name, exchange, action, outcome, expected) in steps {
            let proxy = Proxy::start(server.port()).await;
            let metrics = Metrics::new();
            let stream = format!("streams = [\"{name}\"]");
            let setup = Setup::at(proxy.url()).worker("lease = \"60s\"").worker(&stream);
            let caught = proxy.cut_after(exchange);
            let worker = setup.start_counted(jobs::registry(), &metrics);
            jobs::publish(&mut redis, name, &many(name, 10, &action)).await;
            caught.within(PATIENCE).await;
            settled(&mut redis, name, PATIENCE).await;
            worker.stop().await;
            let scrape = Scrape::of(&metrics);
            let settled = scrape.all("settled_total");
            assert_eq!(scrape.sum("settled_total", &format!("outcome={outcome}")), expected, "{name}: {settled:#?}");
            assert_eq!(scrape.sum("settled_total", "outcome=lost"), 0.0, "{name}: {settled:#?}");
            let ends = ["acked", "dead"].map(|end| scrape.sum("settled_total", &format!("outcome={end}")));
            assert_eq!(ends.iter().sum::<f64>(), 10.0, "{name}: {settled:#?}");
            assert!(scrape.sum("redis_errors_total", "kind=broken") >= 1.0, "{name}");
            assert!(scrape.sum("redis_reconnects_total", "connection=settle") >= 1.0, "{name}");
        }
    }

    async fn an_entry_that_another_worker_took_is_lost_here_and_acknowledged_there(server: Server) {
        let mut redis = server.connect().await;
        let metrics = Metrics::new();
        let setup = Setup::new(&server);
        let worker = setup.start_counted(jobs::registry(), &metrics);
        let ids = jobs::publish(&mut redis, "jobs", &[Job::new("taken", Action::TakeOrLess(3_000, 0))]).await;
        eventually(PATIENCE, "it to run", async || jobs::started(&mut redis).await.len() == 1).await;
        assert_eq!(Scrape::of(&metrics).sum("running", "stream=jobs"), 1.0);
        let claimed: Vec<String> = redis::cmd("XCLAIM").arg("jobs").arg("workers").arg("sh2-500-elsewhere-1-0000000000000000")
            .arg(0).arg(&ids[0]).arg("JUSTID").query_async(&mut redis).await.unwrap();
        assert_eq!(claimed, ids);
        settled(&mut redis, "jobs", PATIENCE).await;
        let scrape = eventually(PATIENCE, "both runs to be told of", async || {
            let scrape = Scrape::of(&metrics);
            match scrape.sum("held", "") {
                0.0 => Ok(scrape),
                held => Err(held.to_string()),
            }
        })
        .await;
        let outcome = |outcome: &str| scrape.sum("settled_total", &format!("outcome={outcome}"));
        assert_eq!((outcome("acked"), outcome("lost")), (1.0, 1.0), "{:#?}", scrape.all("settled_total"));
        assert_eq!(scrape.sum("delivered_total", ""), 2.0);
        worker.stop().await;
    }

    async fn what_is_published_is_told_by_what_became_of_it(server: Server) {
        let mut redis = server.connect().await;
        let metrics = Metrics::new();
        let publisher = publisher(&server.url()).metrics(&metrics);
        let job = Job::new("once", Action::Nothing);
        for _ in 0..3 {
            publisher.publish_once("once", "e-1", &job, Publisher::ONCE_WITHIN).await.unwrap();
        }
        publisher.publish_after("later", &job, Duration::from_secs(3600)).await.unwrap();
        let _: () = redis.set("wrong", "a text").await.unwrap();
        publisher.publish("wrong", &job).await.unwrap_err();
        let scrape = Scrape::of(&metrics);
        let published = |labels: &str| scrape.sum("published_total", &format!("type=test.job,{labels}"));
        let added: u64 = redis.xlen("once").await.unwrap();
        assert_eq!(published("stream=once,status=ok"), added as f64);
        assert_eq!(published("stream=once,status=duplicate"), 2.0);
        assert_eq!(published("stream=later,status=scheduled"), 1.0);
        assert_eq!(published("stream=wrong,status=error"), 1.0);
        assert_eq!(scrape.sum("publish_duration_seconds_count", ""), 5.0);
        for request in ["publish_once", "schedule", "xadd"] {
            let count = scrape.sum("redis_request_duration_seconds_count", &format!("request={request}"));
            assert!(count >= 1.0, "{request}: {:#?}", scrape.all("redis_request_duration_seconds_count"));
        }
        assert_eq!(scrape.sum("redis_errors_total", "request=xadd,kind=refused"), 1.0);
        assert_eq!(scrape.sum("build_info", &format!("version={}", env!("CARGO_PKG_VERSION"))), 1.0);
        assert!(scrape.sum("process_resident_memory_bytes", "") > 1e6);
    }

    async fn what_holds_entries_back_is_told(server: Server) {
        let mut redis = server.connect().await;
        let metrics = Metrics::new();
        let registry = jobs::registry().on_raw("test.down", |_, _| async { Err(Failure::retry("down")) });
        let setup = Setup::new(&server)
            .handler("concurrency = 1")
            .more("[handlers.\"test.down\"]\nmax_attempts = 100\ncircuit_breaker = { failures = 2, open_for = \"60s\" }");
        let worker = setup.start_counted(registry, &metrics);
        jobs::publish(&mut redis, "jobs", &many("one-by-one", 30, &Action::SleepQuietly(50))).await;
        for _ in 0..20 {
            add(&mut redis, "jobs", &fields(&[("type", "test.down")])).await;
        }
        eventually(PATIENCE, "both to hold back", async || {
            let scrape = Scrape::of(&metrics);
            let held = |by: &str| scrape.sum("held_back_total", by);
            let of = (held("type=test.job,by=places"), held("type=test.down,by=breaker"));
            let open = scrape.sum("breaker_state", "breaker=handler:test.down,state=open");
            if of.0 >= 1.0 && of.1 >= 1.0 && open == 1.0 { Ok(()) } else { Err(format!("{of:?} {open}")) }
        })
        .await;
        assert_eq!(Scrape::of(&metrics).sum("breaker_state", "state=closed"), 0.0);
        worker.stop().await;
    }

    async fn a_handler_that_blocks_and_a_server_that_stands_still_are_told(server: Server) {
        let mut redis = server.connect().await;
        let metrics = Metrics::new();
        let worker = Setup::new(&server).worker("lease = \"1s\"").start_counted(jobs::registry(), &metrics);
        jobs::publish(&mut redis, "jobs", &[Job::new("first", Action::Nothing)]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        jobs::publish(&mut redis, "jobs", &[Job::new("blocks", Action::ComputeQuietlyThenFail(500))]).await;
        eventually(PATIENCE, "it to be noticed", async || {
            Scrape::of(&metrics).sum("handler_blocked_total", "type=test.job") == 1.0
        })
        .await;
        jobs::publish(&mut redis, "jobs", &[Job::new("holds", Action::SleepQuietly(4_000))]).await;
        eventually(PATIENCE, "it to run", async || Scrape::of(&metrics).sum("running", "") >= 1.0).await;
        let _: () = redis::cmd("CLIENT").arg("PAUSE").arg(2_500).arg("WRITE").query_async(&mut redis).await.unwrap();
        eventually(PATIENCE, "the lease to lapse", async || {
            Scrape::of(&metrics).sum("lease_lapsed_total", "stream=jobs") >= 1.0
        })
        .await;
        assert!(Scrape::of(&metrics).sum("lease_margin_seconds_count", "") >= 2.0);
        worker.stop().await;
    }
}
