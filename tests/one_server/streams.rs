//! A stream in trouble is that stream's trouble: it is tried again alone, and the others go on, leases included.

use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;

use crate::support::jobs::{self, Action, Job, many};
use crate::support::{Cli, Server, Setup, WorkerProcess, eventually, settled};

const PATIENCE: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(10);
const RIGHTS: &str =
    "+@read +@write +@scripting +@connection -@dangerous +info +time +unwatch +client|unblock";
const STREAMS: &str = "streams = [\"jobs\", \"payments\"]";

/// What is done to the stream of payments, and undone.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    String,
    NoRights,
}

impl Trouble {
    async fn begins(self, redis: &mut MultiplexedConnection) {
        match self {
            Trouble::String => redis.set("payments", "in the way").await.unwrap(),
            Trouble::NoRights => {
                acl(redis, "w resetkeys ~jobs ~{jobs}:* ~test:* ~streamhand:*").await
            }
        }
    }

    async fn ends(self, redis: &mut MultiplexedConnection) {
        match self {
            Trouble::String => redis.del("payments").await.unwrap(),
            Trouble::NoRights => acl(redis, "w ~*").await,
        }
    }
}

async fn acl(redis: &mut MultiplexedConnection, rule: &str) {
    let mut command = redis::cmd("ACL");
    command
        .arg("SETUSER")
        .arg(rule.split(' ').collect::<Vec<_>>());
    let () = command.query_async(redis).await.expect("a rule");
}

fn setup(server: &Server) -> Setup {
    Setup::at(format!("redis://w:secret@127.0.0.1:{}", server.port()))
        .worker(STREAMS)
        .worker("concurrency = 8")
}

/// Jobs go on: they are read, kept for longer than a lease, retried, and taken over from who is gone.
async fn jobs_go_on(
    redis: &mut MultiplexedConnection,
    server: &Server,
    worker: &WorkerProcess,
    name: &str,
) {
    let mut others = setup(server).worker("streams = [\"jobs\"]").process();
    others.wait_for_log("worker starts", PATIENCE).await;
    let mut all = many(&format!("{name}-quick"), 10, &Action::Succeed);
    all.extend(many(&format!("{name}-again"), 3, &Action::Fail(1)));
    all.extend(many(&format!("{name}-long"), 8, &Action::Take(4_000)));
    jobs::publish(redis, "jobs", &all).await;
    let quick = |id: &String| id.contains("quick") || id.contains("again");
    eventually(PATIENCE, format!("{name}: jobs"), async || {
        let handled = jobs::handled(redis).await;
        let left = jobs::ids(&all)
            .into_iter()
            .filter(|id| quick(id) && !handled.contains_key(id))
            .count();
        if left == 0 {
            Ok(())
        } else {
            Err(format!("{left} are left\n{}", worker.log()))
        }
    })
    .await;
    // Who dies leaves what it held to the one that has trouble with the other stream.
    others.kill();
    eventually(
        PATIENCE,
        format!("{name}: what the dead one held"),
        async || {
            let handled = jobs::handled(redis).await;
            let left = jobs::ids(&all)
                .into_iter()
                .filter(|id| !handled.contains_key(id))
                .count();
            if left == 0 {
                Ok(())
            } else {
                Err(format!("{left} are left\n{}", worker.log()))
            }
        },
    )
    .await;
    let traces = jobs::started(redis).await;
    for job in all.iter().filter(|job| job.id.contains("long")) {
        let mine = traces
            .iter()
            .filter(|trace| trace.id == job.id && trace.pid == worker.pid());
        assert!(
            mine.count() <= 1,
            "{} lost its lease:\n{}",
            job.id,
            worker.log()
        );
    }
}

async fn alone(server: Server, trouble: Trouble) {
    let mut redis = server.connect().await;
    acl(&mut redis, &format!("w on >secret ~* {RIGHTS}")).await;
    // Before it starts.
    trouble.begins(&mut redis).await;
    let mut worker = setup(&server).process();
    jobs::publish(&mut redis, "jobs", &many("before", 10, &Action::Fail(1))).await;
    eventually(PATIENCE, "jobs", async || {
        match jobs::handled(&mut redis).await.len() {
            10 => Ok(()),
            n => Err(format!("{n}\n{}", worker.log())),
        }
    })
    .await;
    let status = Cli::at(
        &format!("redis://w:secret@127.0.0.1:{}", server.port()),
        &format!("[worker]\ngroup = \"workers\"\n{STREAMS}\n"),
    );
    let said = worker.wait_for_log("payments", PATIENCE).await;
    println!("{said}");
    trouble.ends(&mut redis).await;
    let paid = jobs::publish(
        &mut redis,
        "payments",
        &[Job::new("paid-1", Action::Succeed)],
    )
    .await;
    assert_eq!(paid.len(), 1);
    eventually(SOON, "the payment", async || {
        match jobs::handled(&mut redis).await.get("paid-1") {
            Some(1) => Ok(()),
            _ => Err(worker.log()),
        }
    })
    .await;
    settled(&mut redis, "payments", PATIENCE).await;
    // While it runs.
    trouble.begins(&mut redis).await;
    jobs_go_on(&mut redis, &server, &worker, "while").await;
    let ran = status.run(&["status"]).await;
    assert!(
        format!("{}{}", ran.out, ran.err).contains("payments"),
        "{ran:?}"
    );
    assert!(ran.out.contains("jobs"), "{ran:?}");
    trouble.ends(&mut redis).await;
    jobs::publish(
        &mut redis,
        "payments",
        &[Job::new("paid-2", Action::Succeed)],
    )
    .await;
    eventually(SOON, "the next payment", async || {
        match jobs::handled(&mut redis).await.get("paid-2") {
            Some(1) => Ok(()),
            _ => Err(worker.log()),
        }
    })
    .await;
    worker.terminate();
    assert!(worker.wait(PATIENCE).await.success(), "{}", worker.log());
}

on_both_servers! {
    async fn a_stream_that_is_a_string_stops_no_other(server: Server) {
        alone(server, Trouble::String).await;
    }

    async fn a_stream_that_may_not_be_read_stops_no_other(server: Server) {
        alone(server, Trouble::NoRights).await;
    }
}
