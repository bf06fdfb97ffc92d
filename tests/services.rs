//! Managed services refuse commands that servers know. What can be done without them is done; what can't is said.

use std::time::{Duration, Instant};

use streamhand::{Context, Effect, Failure, Registry};

use crate::support::jobs::{self, Action, Job, many};
use crate::support::{Exchange, Proxy, Server, Service, Setup, eventually, pending};

const PATIENCE: Duration = Duration::from_secs(40);

const ADMINISTRATION: [&str; 12] = [
    "CONFIG",
    "ACL",
    "DEBUG",
    "MONITOR",
    "REPLICAOF",
    "ROLE",
    "SLOWLOG",
    "SAVE",
    "BGSAVE",
    "SHUTDOWN",
    "MEMORY",
    "LATENCY",
];

/// What services refuse of what a worker would send, beside the commands of administration; in the words that users report.
const SERVICES: &[Service] = &[
    Service {
        name: "Memorystore",
        refuses: &["CLIENT", "CONFIG", "ACL", "ROLE", "SLOWLOG"],
        says: "ERR unknown command `{}`, with args beginning with: ",
    },
    Service {
        name: "ElastiCache Serverless",
        refuses: &[
            "CLIENT UNBLOCK",
            "CLIENT ID",
            "CLIENT SETNAME",
            "CONFIG",
            "ACL",
            "ROLE",
            "MEMORY",
        ],
        says: "ERR unknown command '{}', with args beginning with: ",
    },
    Service {
        name: "Redis Enterprise",
        refuses: &["INFO", "CONFIG", "ACL", "ROLE", "MEMORY"],
        says: "ERR command is not allowed",
    },
    Service {
        name: "Azure",
        refuses: &[
            "CONFIG", "ACL", "DEBUG", "MONITOR", "ROLE", "INFO", "HELLO", "CLIENT",
        ],
        says: "ERR unknown command `{}`, with args beginning with: ",
    },
];

static WITHOUT_SCRIPTS: Service = Service {
    name: "one without scripts",
    refuses: &["EVAL", "EVALSHA", "EVALSHA_RO", "SCRIPT"],
    says: "ERR unknown command '{}', with args beginning with: ",
};

on_both_servers! {
    async fn a_worker_works_on_what_services_leave_it(server: Server) {
        let mut redis = server.connect().await;
        for service in SERVICES {
            let proxy = Proxy::start(server.port()).await;
            proxy.serve_as(service);
            let () = redis::cmd("FLUSHALL").query_async(&mut redis).await.unwrap();
            let worker = Setup::at(proxy.url()).start();
            let mut all = many("new", 50, &Action::Succeed);
            all.push(Job::new("retried", Action::Fail(1)));
            jobs::publish(&mut redis, "jobs", &all).await;
            eventually(PATIENCE, format!("all to be handled at {}", service.name), async || {
                let handled = jobs::handled(&mut redis).await;
                (handled.len() == all.len()).then_some(()).ok_or(format!("{} of {}", handled.len(), all.len()))
            })
            .await;
            // At rest, and then something that was parked falls due: no read that nobody can wake holds it up.
            let begun = Instant::now();
            jobs::publish(&mut redis, "jobs", &[Job::new("late", Action::Fail(1))]).await;
            eventually(PATIENCE, "the late one", async || jobs::handled(&mut redis).await.contains_key("late")).await;
            assert!(begun.elapsed() < Duration::from_secs(3), "{}: {:?}", service.name, begun.elapsed());
            eventually(PATIENCE, "nothing to be pending", async || {
                pending(&mut redis, "jobs").await.iter().all(|(_, count)| *count == 0)
            })
            .await;
            let traffic = proxy.traffic();
            assert!(traffic.commands.keys().all(|name| !ADMINISTRATION.contains(&&name[..])), "{}: {traffic:?}", service.name);
            worker.stop().await;
        }
    }

    /// However many fail at once, and however much is committed.
    async fn no_call_has_more_arguments_than_services_take(server: Server) {
        let mut redis = server.connect().await;
        let proxy = Proxy::start(server.port()).await;
        let calls = proxy.watch(Exchange::of("EVALSHA"));
        let registry = Registry::new().on(async |job: Job, ctx: Context| {
            tokio::time::sleep(Duration::from_millis(400)).await;
            if ctx.attempt() == 1 {
                return Err(Failure::retry("all at once"));
            }
            for n in 0..10 {
                ctx.effect(Effect::hincr_by("{jobs}:done", format!("{}-{n}", job.id), 1));
            }
            Ok(())
        });
        jobs::publish(&mut redis, "jobs", &many("job", 1000, &Action::Succeed)).await;
        let setup = Setup::at(proxy.url()).worker("concurrency = 1000").worker("prefetch = 2000");
        let worker = setup.start_with(registry);
        eventually(PATIENCE, "all to be done", async || {
            let done: usize = redis::cmd("HLEN").arg("{jobs}:done").query_async(&mut redis).await.unwrap();
            done == 10_000
        })
        .await;
        worker.stop().await;
        let arguments = |head: &[u8]| std::str::from_utf8(head.split(|byte| *byte == b'\r').next()?.strip_prefix(b"*")?).ok()?.parse::<usize>().ok();
        let most = calls.seen().iter().filter_map(|call| arguments(&call.head)).max().unwrap();
        println!("at most {most} arguments");
        assert!((1000..=3900).contains(&most), "{most}");
    }

    async fn without_scripts_a_worker_says_that_it_cannot_work(server: Server) {
        let proxy = Proxy::start(server.port()).await;
        proxy.serve_as(&WITHOUT_SCRIPTS);
        let worker = Setup::at(proxy.url()).start();
        let error = tokio::time::timeout(PATIENCE, worker.ended()).await.expect("it to end").expect_err("it to say so");
        assert_eq!(error.kind(), streamhand::ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("the server runs no scripts"), "{error}");
    }
}
