//! What the server refuses of one thing holds up that one thing: a right that a worker's user lacks, or a key that holds
//! something else, is said by its name, and everything else goes on. What was held up comes when it is mended.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use streamhand::{Context, Envelope, Failure, Registry};

use crate::support::{Server, Setup, WorkerProcess, dead, eventually, scripts, settled};

const PATIENCE: Duration = Duration::from_secs(40);
/// What has nothing to do with a refusal takes no longer, on a busy machine.
const SOON: Duration = Duration::from_secs(10);
/// As [`Setup`] has them, and what the tests' handlers write.
const RIGHTS: &str =
    "+@read +@write +@scripting +@connection -@dangerous +info +time +unwatch +client|unblock";

/// Types that need something of Redis each: a count of starts, a place to emit to, a mark, a retry, a dead letter.
const NEEDY: [&str; 5] = ["rated", "emits", "once", "again", "dies"];

/// Notes that it has run.
async fn note(ctx: &Context) -> Result<(), Failure> {
    let mut redis = ctx.redis().await?;
    let (list, event_type) = (
        format!("test:{}", ctx.stream()),
        ctx.envelope().event_type(),
    );
    let () = redis.rpush(list, event_type).await?;
    Ok(())
}

fn registry() -> Registry {
    Registry::new()
        .on_raw("test.plain", async |_: Envelope, ctx: Context| {
            note(&ctx).await
        })
        .on_raw("test.rated", async |_: Envelope, ctx: Context| {
            note(&ctx).await
        })
        .on_raw("test.once", async |_: Envelope, ctx: Context| {
            note(&ctx).await
        })
        .on_raw("test.emits", async |_: Envelope, ctx: Context| {
            note(&ctx).await?;
            let to = format!("{{{}}}:out", ctx.stream());
            ctx.emit_envelope(&to, Envelope::new("test.out"));
            Ok(())
        })
        .on_raw("test.again", async |_: Envelope, ctx: Context| {
            if ctx.attempt() == 1 {
                return Err("asked to fail".into());
            }
            note(&ctx).await
        })
        .on_raw("test.full.plain", async |_: Envelope, _: Context| Ok(()))
        .on_raw("test.full.once", async |_: Envelope, _: Context| Ok(()))
        .on_raw(
            "test.full.again",
            async |_: Envelope, ctx: Context| match ctx.attempt() {
                1 => Err("asked to fail".into()),
                _ => Ok(()),
            },
        )
        .on_raw("test.full.emits", async |_: Envelope, ctx: Context| {
            let to = format!("{{{}}}:out", ctx.stream());
            ctx.emit_envelope(&to, Envelope::new("test.out"));
            Ok(())
        })
        .on_raw("test.full.dies", async |_: Envelope, _: Context| {
            Err(Failure::permanent("asked to fail for good"))
        })
        .on_raw("test.dies", async |_: Envelope, _: Context| {
            Err(Failure::permanent("asked to fail for good"))
        })
}

#[test]
#[ignore = "run by other tests"]
fn refused_worker() {
    crate::support::run_worker(registry());
}

/// A worker whose user has these rights beside those to its stream.
async fn start(
    server: &Server,
    redis: &mut MultiplexedConnection,
    stream: &str,
    more: &str,
) -> WorkerProcess {
    let rule = format!("{stream} on >secret ~{stream} ~{{{stream}}}:* ~test:* {RIGHTS} {more}");
    acl(redis, &rule).await;
    let url = format!("redis://{stream}:secret@127.0.0.1:{}", server.port());
    let setup = Setup::at(url)
        .worker(&format!("streams = [\"{stream}\"]"))
        .worker("concurrency = 8")
        .more("[handlers.\"test.rated\"]\nrate = \"1000/s\"\nrate_scope = \"group\"")
        .more("[handlers.\"test.once\"]\ndeduplicate = \"1h\"")
        .more("[handlers.\"test.full.once\"]\ndeduplicate = \"1h\"");
    WorkerProcess::builder()
        .test("refusals::refused_worker")
        .config(&setup.toml())
        .start()
}

async fn acl(redis: &mut MultiplexedConnection, rule: &str) {
    let mut command = redis::cmd("ACL");
    command
        .arg("SETUSER")
        .arg(rule.split(' ').collect::<Vec<_>>());
    let () = command.query_async(redis).await.expect("a rule");
}

async fn publish(redis: &mut MultiplexedConnection, stream: &str, kind: &str, count: usize) {
    let mut pipe = redis::pipe();
    for n in 0..count {
        pipe.cmd("XADD")
            .arg(stream)
            .arg("*")
            .arg("type")
            .arg(format!("test.{kind}"));
        pipe.arg("id")
            .arg(format!("{kind}-{n}-{}", fastrand::u64(..)))
            .ignore();
    }
    let () = pipe.query_async(redis).await.expect("a stream");
}

async fn ran(redis: &mut MultiplexedConnection, stream: &str, kind: &str) -> usize {
    let ran: Vec<String> = redis.lrange(format!("test:{stream}"), 0, -1).await.unwrap();
    ran.iter()
        .filter(|of| **of == format!("test.{kind}"))
        .count()
}

/// The most any pending entry has been delivered.
async fn most_deliveries(redis: &mut MultiplexedConnection, stream: &str) -> u64 {
    let mut command = redis::cmd("XPENDING");
    command
        .arg(stream)
        .arg("workers")
        .arg("-")
        .arg("+")
        .arg(1000);
    let pending: Vec<(String, String, u64, u64)> = command.query_async(redis).await.unwrap();
    pending.iter().map(|(.., count)| *count).max().unwrap_or(0)
}

/// It ends soon, and as it should.
async fn stops(mut worker: WorkerProcess) {
    worker.terminate();
    let since = Instant::now();
    let status = worker.wait(PATIENCE).await;
    assert!(status.success(), "{status}:\n{}", worker.log());
    assert!(
        since.elapsed() < SOON,
        "it took {:?}:\n{}",
        since.elapsed(),
        worker.log()
    );
}

/// Something that is taken away from a running worker, and what its log says of it.
struct Case {
    /// What is taken: `-command`, or a key's name behind its stream's tag, which gets another type.
    taken: &'static str,
    said: &'static str,
}

const fn case(taken: &'static str, said: &'static str) -> Case {
    Case { taken, said }
}

/// Everything goes on that needs it not, and all else once it is there again.
async fn take_away(server: &Server, number: usize, case: &Case) {
    let (stream, taken) = (format!("s{number}"), case.taken);
    let mut redis = server.connect().await;
    let mut worker = start(server, &mut redis, &stream, "~streamhand:*").await;
    publish(&mut redis, &stream, "plain", 1).await;
    eventually(PATIENCE, format!("{taken}: the first"), async || {
        ran(&mut redis, &stream, "plain").await == 1
    })
    .await;
    let key = format!("{{{stream}}}{taken}");
    match taken.strip_prefix('-') {
        Some(_) => acl(&mut redis, &format!("{stream} {taken}")).await,
        None if taken == ":workers:dead" => redis.hset(&key, "in the", "way").await.unwrap(),
        None => redis.set(&key, "in the way").await.unwrap(),
    }
    for kind in NEEDY {
        publish(&mut redis, &stream, kind, 3).await;
    }
    publish(&mut redis, &stream, "plain", 20).await;
    let soon = Instant::now();
    eventually(
        PATIENCE,
        format!("{taken}: the others"),
        async || match ran(&mut redis, &stream, "plain").await {
            21.. => Ok(()),
            n => Err(format!("{n}\n{}", worker.log())),
        },
    )
    .await;
    assert!(
        soon.elapsed() < SOON,
        "{taken}: the others took {:?}:\n{}",
        soon.elapsed(),
        worker.log()
    );
    let said = case.said.replace("{s}", &format!("{{{stream}}}"));
    worker.wait_for_log(&said, PATIENCE).await;
    let most = most_deliveries(&mut redis, &stream).await;
    assert!(most <= 8, "{taken}: {most} deliveries:\n{}", worker.log());
    match taken.strip_prefix('-') {
        Some(command) => acl(&mut redis, &format!("{stream} +{command}")).await,
        None => redis.del(&key).await.unwrap(),
    }
    settled(&mut redis, &stream, PATIENCE).await;
    for kind in ["rated", "emits", "once", "again"] {
        assert!(
            ran(&mut redis, &stream, kind).await >= 3,
            "{taken}: {kind}:\n{}",
            worker.log()
        );
    }
    let dead: usize = redis
        .xlen(format!("{{{stream}}}:workers:dead"))
        .await
        .unwrap();
    assert!(
        (3..=6).contains(&dead),
        "{taken}: {dead} dead letters:\n{}",
        worker.log()
    );
    stops(worker).await;
}

async fn take_away_each(server: &Server, cases: &[Case]) {
    let each = cases.iter().enumerate();
    join_all(each.map(|(number, case)| take_away(server, number, case))).await;
}

on_both_servers! {
    async fn a_command_that_is_not_allowed_to_settle_or_wake_holds_up_what_needs_it(server: Server) {
        let cases = [
            case("-zadd", "may not ZADD {s}:workers:retry: its ACL lacks +zadd"),
            case("-zrem", "its ACL lacks +zrem"),
            case("-hset", "its ACL lacks +hset"),
            case("-hdel", "its ACL lacks +hdel"),
            case("-xclaim", "its ACL lacks +xclaim"),
            case("-xpending", "its ACL lacks +xpending"),
        ];
        take_away_each(&server, &cases).await;
    }

    async fn a_command_that_is_not_allowed_elsewhere_holds_up_what_needs_it(server: Server) {
        let cases = [
            case("-xinfo", "its ACL lacks +xinfo"),
            case("-set", "its ACL lacks +set"),
            case("-xadd", "its ACL lacks +xadd"),
            case("-xack", "its ACL lacks +xack"),
            case("-evalsha", "NOPERM"),
            case("-time", "README.md has the rule"),
        ];
        take_away_each(&server, &cases).await;
    }

    async fn a_key_that_holds_something_else_holds_up_what_needs_it(server: Server) {
        let cases = [
            case(":workers:retry", "{s}:workers:retry is a string and should be a zset"),
            case(":workers:failures", "{s}:workers:failures is a string and should be a hash"),
            case(":workers:position", "{s}:workers:position"),
            case(":workers:commits", "{s}:workers:commits is a string and should be a hash"),
            case(":workers:paused", "{s}:workers:paused is a string and should be a hash"),
            case(":workers:dead", "{s}:workers:dead is a hash and should be a stream"),
        ];
        take_away_each(&server, &cases).await;
    }

    async fn a_key_of_which_little_depends_holds_up_nothing_else(server: Server) {
        let cases = [
            case(":workers:again", ""),
            case(":scheduled", "{s}:scheduled is a string and should be a zset"),
            case(":workers:tidied", ""),
            case(":workers:tidied_to", ""),
            case(":workers:kept", ""),
            case(":workers:breakers", ""),
        ];
        take_away_each(&server, &cases).await;
    }

    async fn breakers_that_can_not_be_taken_over_keep_no_worker_from_starting(server: Server) {
        let mut redis = server.connect().await;
        let () = redis.set("{s}:workers:breakers", "in the way").await.unwrap();
        let mut worker = start(&server, &mut redis, "s", "").await;
        publish(&mut redis, "s", "plain", 3).await;
        eventually(PATIENCE, "them", async || ran(&mut redis, "s", "plain").await == 3).await;
        worker.wait_for_log("circuit breakers begin closed", PATIENCE).await;
        stops(worker).await;
    }

    async fn a_stream_whose_group_may_not_be_joined_or_read_holds_up_no_other(server: Server) {
        let mut redis = server.connect().await;
        let () = redis.set("k", "in the way").await.unwrap();
        acl(&mut redis, &format!("w on >secret ~s ~{{s}}:* ~k ~{{k}}:* ~test:* {RIGHTS}")).await;
        let setup = Setup::at(format!("redis://w:secret@127.0.0.1:{}", server.port()));
        let setup = setup.worker("streams = [\"t\", \"s\", \"k\"]").worker("concurrency = 8");
        let mut worker =
            WorkerProcess::builder().test("refusals::refused_worker").config(&setup.toml()).start();
        publish(&mut redis, "s", "plain", 5).await;
        publish(&mut redis, "t", "plain", 5).await;
        let all = async |stream: &str, count: usize| {
            eventually(PATIENCE, format!("{count} of {stream}"), async || {
                match ran(&mut redis.clone(), stream, "plain").await {
                    n if n == count => Ok(()),
                    n => Err(format!("{n}\n{}", worker.log())),
                }
            })
            .await
        };
        all("s", 5).await;
        assert_eq!(ran(&mut redis.clone(), "t", "plain").await, 0);
        // Each by itself, once what is in its way is gone.
        let () = redis.clone().del("k").await.unwrap();
        publish(&mut redis.clone(), "k", "plain", 5).await;
        all("k", 5).await;
        acl(&mut redis.clone(), "w ~t ~{t}:*").await;
        all("t", 5).await;
        // One that is taken away while it is read.
        acl(&mut redis.clone(), "w resetkeys ~s ~{s}:* ~k ~{k}:* ~test:*").await;
        publish(&mut redis.clone(), "t", "plain", 5).await;
        for round in 2..5 {
            publish(&mut redis.clone(), "s", "plain", 5).await;
            all("s", 5 * round).await;
        }
        // A read that had begun may still have brought one, which can't be acknowledged then.
        let came = ran(&mut redis.clone(), "t", "plain").await;
        assert!(came <= 6, "{came}");
        acl(&mut redis.clone(), "w ~t ~{t}:*").await;
        eventually(PATIENCE, "those that were held up", async || match ran(&mut redis.clone(), "t", "plain").await {
            10.. => Ok(()),
            n => Err(format!("{n}\n{}", worker.log())),
        })
        .await;
        let said = worker.wait_for_log("its ACL lacks ~t", PATIENCE).await;
        assert!(said.contains("joining the group"), "{said}");
        worker.wait_for_log("joining the group \"workers\" of \"k\"", PATIENCE).await;
        stops(worker).await;
    }

    /// As much of it as needs no memory: what does is kept, and done once there is some.
    async fn a_server_that_is_full_loses_nothing_and_holds_up_no_acknowledgements(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let mut worker = start(&server, &mut redis, "s", "~streamhand:*").await;
        publish(&mut redis, "s", "full.plain", 1).await;
        settled(&mut redis, "s", PATIENCE).await;
        worker.freeze();
        for kind in ["full.dies", "full.emits", "full.once", "full.again"] {
            publish(&mut redis, "s", kind, 3).await;
        }
        publish(&mut redis, "s", "full.plain", 20).await;
        let memory = async |most: &str| {
            let mut config = redis::cmd("CONFIG");
            config.arg("SET").arg("maxmemory").arg(most);
            let () = config.query_async(&mut redis.clone()).await.unwrap();
        };
        memory("1").await;
        worker.thaw();
        // All but what has to be written for.
        eventually(PATIENCE, "those that need no memory", async || {
            let mut command = redis::cmd("XINFO");
            command.arg("GROUPS").arg("s");
            let info: redis::streams::StreamInfoGroupsReply = command.query_async(&mut redis.clone()).await.map_err(|error| error.to_string())?;
            match (info.groups[0].lag, info.groups[0].pending) {
                (Some(0), ..=9) => Ok(()),
                (lag, pending) => Err(format!("lag {lag:?}, {pending} pending\n{}", worker.log())),
            }
        })
        .await;
        worker.wait_for_log("OOM", PATIENCE).await;
        let letters = async || redis.clone().xlen::<_, u64>("{s}:workers:dead").await.unwrap();
        assert_eq!(letters().await, 0);
        memory("0").await;
        settled(&mut redis.clone(), "s", PATIENCE).await;
        assert_eq!(letters().await, 3, "{}", worker.log());
        let out: u64 = redis.clone().xlen("{s}:out").await.unwrap();
        assert_eq!(out, 3, "{}", worker.log());
        assert!(!worker.log().contains("LOST"), "{}", worker.log());
        stops(worker).await;
    }

    /// The README's rule has the rates' keys apart.
    async fn a_rate_that_may_not_be_counted_holds_up_its_own_entries(server: Server) {
        let mut redis = server.connect().await;
        let mut worker = start(&server, &mut redis, "s", "").await;
        publish(&mut redis, "s", "rated", 200).await;
        publish(&mut redis, "s", "plain", 5).await;
        eventually(PATIENCE, "the others", async || match ran(&mut redis, "s", "plain").await { 5 => Ok(()), n => Err(format!("{n}\n{}", worker.log())) }).await;
        let said = worker.wait_for_log("counting starts", PATIENCE).await;
        assert!(said.contains("its ACL lacks ~streamhand:workers:rate:test.rated"), "{said}");
        // Long enough for them to have come back, and been put back, again and again.
        let since = Instant::now();
        eventually(PATIENCE, "three seconds to pass", async || since.elapsed() > Duration::from_secs(3)).await;
        publish(&mut redis, "s", "plain", 5).await;
        eventually(SOON, "more of the others", async || ran(&mut redis, "s", "plain").await == 10).await;
        stops(worker).await;
        let most = most_deliveries(&mut redis, "s").await;
        assert!(most <= 6, "{most} deliveries");
        assert_eq!(ran(&mut redis, "s", "rated").await, 0);
        // With the right they come, and are no crashes.
        let worker = start(&server, &mut redis, "s", "~streamhand:*").await;
        settled(&mut redis, "s", PATIENCE).await;
        assert_eq!(ran(&mut redis, "s", "rated").await, 200);
        assert!(!worker.log().contains("died"), "{}", worker.log());
        stops(worker).await;
    }

    async fn a_rate_whose_key_holds_something_else_holds_up_its_own_entries(server: Server) {
        let mut redis = server.connect().await;
        let key = "streamhand:workers:rate:test.rated";
        let () = redis.hset(key, "in the", "way").await.unwrap();
        let mut worker = start(&server, &mut redis, "s", "~streamhand:*").await;
        publish(&mut redis, "s", "rated", 200).await;
        publish(&mut redis, "s", "plain", 5).await;
        eventually(PATIENCE, "the others", async || match ran(&mut redis, "s", "plain").await { 5 => Ok(()), n => Err(format!("{n}\n{}", worker.log())) }).await;
        let said = worker.wait_for_log("counting starts", PATIENCE).await;
        assert!(said.contains(&format!("{key} is a hash and should be a string")), "{said}");
        assert_eq!(ran(&mut redis, "s", "rated").await, 0);
        let () = redis.del(key).await.unwrap();
        settled(&mut redis, "s", PATIENCE).await;
        assert_eq!(ran(&mut redis, "s", "rated").await, 200);
        stops(worker).await;
    }

    async fn a_stream_that_may_not_be_emitted_to_fails_those_that_do(server: Server) {
        let mut redis = server.connect().await;
        // The stream itself and the group's keys, but not the one beside them that is emitted to.
        let mut worker = start(&server, &mut redis, "s", "resetkeys ~s ~{s}:workers:* ~{s}:scheduled* ~test:*").await;
        publish(&mut redis, "s", "plain", 1).await;
        eventually(PATIENCE, "the first", async || ran(&mut redis, "s", "plain").await == 1).await;
        publish(&mut redis, "s", "emits", 3).await;
        publish(&mut redis, "s", "plain", 20).await;
        publish(&mut redis, "s", "once", 2).await;
        eventually(SOON, "the others", async || ran(&mut redis, "s", "plain").await == 21).await;
        eventually(PATIENCE, "those that commit as well", async || ran(&mut redis, "s", "once").await == 2).await;
        let said = worker.wait_for_log("emitting to {s}:out", PATIENCE).await;
        assert!(said.contains("may not XADD {s}:out") && said.contains("its ACL lacks ~{s}:out"), "{said}");
        let letters = async || redis::cmd("XLEN").arg("{s}:workers:dead").query_async::<u64>(&mut redis.clone()).await.unwrap();
        eventually(PATIENCE, "them to be buried", async || letters().await == 3).await;
        assert_eq!(ran(&mut redis, "s", "emits").await, 15, "five attempts each");
        settled(&mut redis, "s", PATIENCE).await;
        assert_eq!(dead(&mut redis).await, 0, "of another stream");
        // A stop does not wait for what is refused.
        publish(&mut redis, "s", "emits", 10).await;
        stops(worker).await;
    }
}
