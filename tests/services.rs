//! Managed services refuse commands that servers know. What can be done without them is done; what can't is said.

use std::time::{Duration, Instant};

use serde_json::Value;
use streamhand::{Context, Effect, Failure, Registry};

use crate::support::jobs::{self, Action, Job, many};
use crate::support::{Cli, Exchange, Proxy, Server, Service, Setup, eventually, pending};

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
        most: usize::MAX,
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
        most: usize::MAX,
    },
    Service {
        name: "Redis Enterprise",
        refuses: &["INFO", "CONFIG", "ACL", "ROLE", "MEMORY"],
        says: "ERR command is not allowed",
        most: usize::MAX,
    },
    Service {
        name: "Azure",
        refuses: &[
            "CONFIG", "ACL", "DEBUG", "MONITOR", "ROLE", "INFO", "HELLO", "CLIENT",
        ],
        says: "ERR unknown command `{}`, with args beginning with: ",
        most: usize::MAX,
    },
];

static WITHOUT_SCRIPTS: Service = Service {
    name: "one without scripts",
    refuses: &["EVAL", "EVALSHA", "EVALSHA_RO", "SCRIPT"],
    says: "ERR unknown command '{}', with args beginning with: ",
    most: usize::MAX,
};

static OF_FEW_ARGUMENTS: Service = Service {
    name: "one that takes few arguments",
    refuses: &[],
    says: "ERR too many arguments for '{}'",
    most: 1024,
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

    async fn what_a_service_refuses_is_told_before_a_worker_meets_it(server: Server) {
        let proxy = Proxy::start(server.port()).await;
        let cli = Cli::at(&proxy.url(), "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n");
        let sound = cli.run(&["config", "check", "--connect"]).await.ok();
        for says in ["the configuration is right\n", "one server, at ", "the server refuses nothing that is used", "may do all that is needed", "jobs: there is no such stream yet"] {
            assert!(sound.contains(says), "{says}: {sound}");
        }
        let services = SERVICES.iter().chain([&WITHOUT_SCRIPTS, &OF_FEW_ARGUMENTS]);
        for service in services {
            proxy.serve_as(service);
            let told = cli.run(&["config", "check", "--connect", "--json"]).await;
            let report: Value = serde_json::from_str(&told.out).unwrap_or_else(|_| panic!("{}: {told:?}", service.name));
            let of_service: Vec<(&str, &str)> = report["findings"].as_array().unwrap().iter()
                .filter(|found| found["check"] == "service")
                .map(|found| (found["severity"].as_str().unwrap(), found["what"].as_str().unwrap()))
                .collect();
            let tells = |severity: &str, what: &str| of_service.iter().any(|(how, said)| *how == severity && said.starts_with(what));
            for refused in service.refuses {
                let severity = match *refused {
                    // Nothing of it is used, or nothing without an argument.
                    "DEBUG" | "MONITOR" | "HELP" | "EVAL" => continue,
                    "EVALSHA" | "SCRIPT" => "danger",
                    "EVALSHA_RO" => "warning",
                    _ => "notice",
                };
                assert!(tells(severity, &format!("no {refused}")), "{}: {refused} of {of_service:?}", service.name);
            }
            if service.most < 3900 {
                assert!(tells("danger", "a call with 3900 arguments is refused"), "{of_service:?}");
            }
            let is_impossible = of_service.iter().any(|(severity, _)| *severity == "danger");
            assert_eq!((told.code, &report["worst"] == "danger"), (i32::from(is_impossible), is_impossible), "{}: {told:?}", service.name);
            if service.refuses.contains(&"EVALSHA") {
                let said = cli.run(&["config", "check", "--connect"]).await;
                assert!(said.code == 1 && said.out.contains("streamhand can't work here"), "{said:?}");
            }
        }
        // What is said before is said all the same, and what can't be reached is.
        let wrong = cli.with_env("STREAMHAND_WORKER__LEASE", "1ms").run(&["config", "check", "--connect"]).await;
        assert_eq!(wrong.code, 2, "{wrong:?}");
        drop(proxy);
        let away = Cli::at("redis://127.0.0.1:1", "").run(&["config", "check", "--connect"]).await;
        assert!(away.code == 1 && away.err.contains("can't reach Redis at 127.0.0.1:1"), "{away:?}");
    }

    async fn what_a_user_may_not_do_is_told_command_by_command(server: Server) {
        let mut redis = server.connect().await;
        let () = redis::cmd("CONFIG").arg("SET").arg("maxmemory-policy").arg("allkeys-lru").query_async(&mut redis).await.unwrap();
        let rule = ["SETUSER", "worker", "on", ">secret", "~*", "+@all", "-xclaim", "-client|unblock"];
        let () = redis::cmd("ACL").arg(&rule).query_async(&mut redis).await.unwrap();
        let url = format!("redis://worker:secret@127.0.0.1:{}", server.port());
        let told = Cli::at(&url, "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n").run(&["config", "check", "--connect"]).await;
        assert_eq!(told.code, 1, "{told:?}");
        for says in ["+xclaim (script ", "+client|unblock (reading)", "ACL SETUSER worker ", "maxmemory-policy is allkeys-lru"] {
            assert!(told.out.contains(says), "{says}: {told:?}");
        }
    }
}
