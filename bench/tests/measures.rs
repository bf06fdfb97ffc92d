//! The bench measures on keys of its own and takes them along.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use serde_json::Value;
use tokio::io::AsyncReadExt;

use crate::support::{Cli, Server, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a part of the bench measured, on a server that it must leave as it was.
async fn measured(server: &Server, args: &[&str]) -> Value {
    let mut redis = server.connect().await;
    let report = Cli::new(server, "")
        .run(&[args, &["--small", "--json"]].concat())
        .await
        .json();
    assert_eq!(keys(&mut redis).await, 0, "keys left by {args:?}");
    let server = report["server"].as_str().unwrap_or_default();
    assert!(
        server.starts_with("Redis ") || server.starts_with("Valkey "),
        "{report}"
    );
    report
}

async fn keys(redis: &mut MultiplexedConnection) -> u64 {
    redis::cmd("DBSIZE")
        .query_async(redis)
        .await
        .expect("DBSIZE")
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The figure at a path such as `runtime.p50_us`, which must be a number above nothing.
#[track_caller]
fn figure(report: &Value, path: &str) -> f64 {
    let found = path
        .split('.')
        .fold(report, |value, name| match name.parse::<usize>() {
            Ok(at) => &value[at],
            Err(_) => &value[name],
        });
    let number = found
        .as_f64()
        .unwrap_or_else(|| panic!("{path} is {found} in {report}"));
    assert!(number > 0.0, "{path} is {number} in {report}");
    number
}

on_both_servers! {
    async fn it_measures_what_entries_cost_by_what_becomes_of_them(server: Server) {
        let report = measured(&server, &["paths"]).await;
        for path in ["handled", "committed", "retried", "buried", "deduplicated"] {
            for name in ["runtime.redis_us", "runtime.per_second", "plain_redis_us", "redis_cpu_ratio", "to_handled"] {
                figure(&report, &format!("paths.{path}.{name}"));
            }
        }
        assert!(figure(&report, "paths.retried.runtime.redis_us") > figure(&report, "paths.handled.runtime.redis_us"), "{report}");
    }

    async fn it_measures_throughput_unless_told_otherwise(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "");
        let report = cli.run(&["--events", "5000", "--runs", "2", "--json"]).await.json();
        for path in ["throughput_ratio", "redis_cpu_ratio", "client_cpu_ratio", "redis_busy", "bare.per_second",
            "runtime.per_second", "runtime.commands", "rounds.1.runtime.redis_us"] {
            figure(&report, path);
        }
        assert_eq!((figure(&report, "events"), figure(&report, "runs")), (5_000.0, 2.0));
        // The loop reads 500 at once and acknowledges them at once; it is told to end by a read that finds nothing.
        let commands = figure(&report, "bare.commands");
        assert!((0.004..0.01).contains(&commands), "{commands} commands a message of the bare loop");
        assert_eq!(keys(&mut redis).await, 0);
    }

    async fn what_it_prints_for_people_says_what_was_compared(server: Server) {
        let text = Cli::new(&server, "").run(&["--small"]).await.ok();
        for words in ["bare loop", "streamhand", "messages/s", "in terms of the bare loop"] {
            assert!(text.contains(words), "{words:?} in\n{text}");
        }
    }

    async fn it_measures_what_being_watched_costs(server: Server) {
        let report = measured(&server, &["watched"]).await;
        for way in ["unwatched", "pulse", "scraped"] {
            figure(&report[way], "per_second");
        }
        figure(&report, "pulse_ratio");
        figure(&report, "scraped_cpu_ratio");
    }

    async fn it_measures_latencies_from_when_events_were_due(server: Server) {
        let report = measured(&server, &["latency"]).await;
        for (at, per_second) in [(0, 100.0), (1, 1_000.0), (2, 10_000.0)] {
            let rate = &report["rates"][at];
            assert_eq!(figure(rate, "per_second"), per_second);
            for way in ["bare", "runtime"] {
                let [p50, p99] = ["p50_us", "p99_us"].map(|name| figure(&rate[way], name));
                assert!(p50 <= p99, "{rate}");
                // Of the fifth of a second that is measured, every event.
                assert_eq!(figure(&rate[way], "samples"), per_second / 5.0, "{way}: {rate}");
                assert!(rate[way]["p999_us"].is_null(), "too few samples for it: {rate}");
            }
            figure(rate, "p50_ratio");
        }
        // Where there is a CPU for it, the publisher has one of its own; once more without.
        let has_one = report["rates"][0]["apart"].as_bool().unwrap();
        assert!(has_one || cfg!(not(target_os = "linux")) || cpus() == 1);
        assert_eq!(report["anywhere"].is_null(), !has_one);
        if has_one {
            assert_eq!(report["anywhere"]["apart"], false);
            assert_eq!(figure(&report, "anywhere.per_second"), 100.0);
            figure(&report, "anywhere.p50_ratio");
        }
    }

    async fn it_measures_middling_load_beside_what_publishing_costs(server: Server) {
        // What publishing costs is measured for itself and taken off: on a machine that does much else it can be more
        // than all of it, and then nothing is left.
        let ways = ["one_by_one", "bare", "runtime"];
        let has_all = |report: &Value| ways.iter().all(|way| report[way]["redis_us"].as_f64() > Some(0.0));
        let mut report = measured(&server, &["load"]).await;
        for _ in 0..4 {
            if has_all(&report) {
                break;
            }
            report = measured(&server, &["load"]).await;
        }
        for way in ways {
            for name in ["redis_us", "client_us", "commands", "latency.p99_us"] {
                figure(&report[way], name);
            }
        }
        figure(&report, "publisher_redis_us");
        figure(&report, "redis_cpu_ratio");
        // One read and one acknowledgement for each, and nothing else.
        let calls = &report["one_by_one"]["by_command"];
        assert!((figure(calls, "xack") - 1.0).abs() < 0.2, "{report}");
    }

    async fn it_measures_what_grows(server: Server) {
        let report = measured(&server, &["scale"]).await;
        let series = report["series"].as_array().expect("a list");
        let names: Vec<_> = series.iter().filter_map(|series| series["name"].as_str()).collect();
        let all = ["workers", "fleet", "streams", "trickle", "concurrency", "parked", "dead", "payload", "backlog"];
        assert_eq!(names, all);
        for series in series {
            let cases = series["cases"].as_array().expect("a list");
            assert!(cases.len() > 1, "{series}");
            for case in cases {
                figure(case, "figures.commands");
                figure(case, "commands_growth");
            }
            assert_eq!(figure(&cases[0], "commands_growth"), 1.0);
        }
        assert_eq!(report["idle"].as_array().map(Vec::len), Some(3));
        figure(&report, "idle.0.commands_per_second");
    }

    async fn it_measures_publishing(server: Server) {
        let report = measured(&server, &["publish"]).await;
        for way in ["bare", "publish_many", "ndjson"] {
            figure(&report[way], "per_second");
        }
        figure(&report, "publish_many_ratio");
        figure(&report, "ndjson_ratio");
    }

    async fn it_measures_aggregates(server: Server) {
        let report = measured(&server, &["eventstore"]).await;
        for (at, at_once) in [(0, 1.0), (1, 16.0)] {
            assert_eq!(figure(&report, &format!("append.{at}.at_once")), at_once);
            figure(&report, &format!("append.{at}.ratio"));
            figure(&report, &format!("append.{at}.store.redis_us"));
        }
        figure(&report, "load.ratio");
        let update = report["update"].as_array().expect("a list");
        assert_eq!(update.iter().map(|one| figure(one, "writers")).collect::<Vec<_>>(), [1.0, 4.0, 16.0]);
        assert_eq!((&update[0]["figures"]["conflicts"], figure(&update[0], "ratio")), (&serde_json::json!(0.0), 1.0));
        update.iter().for_each(|one| assert!(figure(one, "figures.latency.p99_us") > 0.0));
    }

    async fn a_series_can_be_measured_alone(server: Server) {
        let report = measured(&server, &["scale", "--only", "backlog"]).await;
        assert_eq!(report["series"].as_array().map(Vec::len), Some(1));
        let refused = Cli::new(&server, "").run(&["--only", "backlog"]).await.failed(2);
        assert!(refused.contains("--only"), "{refused}");
    }

    /// Neither takes the other's workers for its own, nor its keys along.
    async fn two_can_measure_on_one_server(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "");
        let args = ["--events", "20000", "--runs", "2", "--json"];
        let (one, other) = tokio::join!(cli.run(&args), cli.run(&args));
        for report in [one.json(), other.json()] {
            figure(&report, "throughput_ratio");
        }
        assert_eq!(keys(&mut redis).await, 0);
    }

    async fn stopped_in_the_middle_it_takes_its_keys_and_its_processes_along(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "");
        let mut bench = cli.command(&["load", "--seconds", "600"]).spawn().expect("the program");
        eventually(PATIENCE, "workers at work", async || {
            let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut redis).await.unwrap();
            clients.contains("name=streamhand:streamhand-bench-") || keys(&mut redis).await > 0
        })
        .await;
        let pid = rustix::process::Pid::from_raw(bench.id().expect("it runs") as i32).expect("an id");
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("to signal it");
        let status = tokio::time::timeout(PATIENCE, bench.wait()).await.expect("it to end").unwrap();
        let mut said = String::new();
        bench.stderr.take().expect("it is piped").read_to_string(&mut said).await.unwrap();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains("stopped"), "{said}");
        assert_eq!(keys(&mut redis).await, 0, "{said}");
        eventually(PATIENCE, "its connections to be gone", async || {
            let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut redis).await.unwrap();
            clients.lines().count() == 1
        })
        .await;
    }
}
