//! A real Prometheus scrapes workers and the exporter: what it has is what they say, as text and as protobuf.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use streamhand::admin::Admin;
use streamhand::metrics::Metrics;
use streamhand::{Envelope, Failure, Settings};

use crate::exporter::Exporter;
use crate::projections::views;
use crate::support::http::{get, get_with, served_by};
use crate::support::jobs::{self, Action, Job, many};
use crate::support::prometheus::{Prometheus, promtool};
use crate::support::{
    Cli, InProcess, Scrape, Server, Setup, WorkerProcess, dead, eventually, free_ports, publisher,
    settled,
};

const PATIENCE: Duration = Duration::from_secs(30);
const LISTEN: &str = "[telemetry]\nlisten = \"127.0.0.1:0\"";
const OF_WORKERS: &str = "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n";
/// What goes on while nothing is to do.
const RESTLESS: [&str; 6] = [
    "streamhand_redis_",
    "streamhand_process_resident_",
    "streamhand_process_cpu_",
    "streamhand_process_open_",
    "streamhand_lease_",
    "streamhand_group_oldest_",
];

on_both_servers! {
    async fn what_it_has_is_what_workers_and_the_exporter_say(server: Server) {
        let scene = Scene::start(&server).await;
        let prometheus = Prometheus::scraping(&scene.targets(), false).await;
        prometheus.is_up().await;
        eventually(PATIENCE, "everything to be as it is told", async || {
            let mut compared = 0;
            for (job, at) in scene.targets() {
                let text = get(at, "/metrics").await?.text();
                let known = prometheus.query(&format!("{{job=\"{job}\", __name__=~\"streamhand_.+\"}}")).await?;
                let known: BTreeMap<String, f64> =
                    known.into_iter().map(|(labels, value)| (series(labels), value)).collect();
                for (name, value) in samples(&text) {
                    match known.get(&name) {
                        Some(had) if *had == value => compared += 1,
                        had => return Err(format!("{job} says {name} is {value}, Prometheus {had:?}")),
                    }
                }
            }
            if compared > 100 { Ok(()) } else { Err(format!("only {compared} compared")) }
        })
        .await;
        // And that is what has happened.
        for (expression, wanted) in [
            ("sum(streamhand_settled_total{outcome=\"acked\"})", 40.0),
            ("sum(streamhand_settled_total{outcome=\"dead\"})", 3.0),
            ("sum(streamhand_dead_letters_total)", 3.0),
            ("sum(streamhand_settled_total{outcome=\"retried\"})", 5.0),
            ("sum(streamhand_process_duration_seconds_count)", 48.0),
            ("sum(streamhand_group_dead)", 3.0),
            ("sum(streamhand_group_workers{state=\"working\"})", 2.0),
            ("sum(streamhand_group_runnable)", 0.0),
            ("count(up == 1)", 3.0),
        ] {
            let came = prometheus.query(expression).await.expect(expression);
            let values: Vec<f64> = came.iter().map(|(_, value)| *value).collect();
            assert_eq!(values, [wanted], "{expression}: {}", prometheus.log());
        }
    }

    async fn with_native_histograms_it_has_them_as_they_are_counted(server: Server) {
        let scene = Scene::start(&server).await;
        let prometheus = Prometheus::scraping(&scene.targets(), true).await;
        prometheus.is_up().await;
        let ask = async |expression: &str| {
            let came = prometheus.query(expression).await?;
            match came[..] {
                [(_, value)] => Ok(value),
                _ => Err(format!("{expression} came to {came:?}")),
            }
        };
        eventually(PATIENCE, "histograms of all that ran", async || {
            let count = ask("sum(histogram_count(streamhand_process_duration_seconds))").await?;
            if count == 48.0 { Ok(()) } else { Err(format!("{count} of 48")) }
        })
        .await;
        // As buckets there are none.
        let buckets = prometheus.query("streamhand_process_duration_seconds_bucket").await.expect("a query");
        assert!(buckets.is_empty(), "{buckets:?}");
        // Half of them took 50 ms, and a little for waking up; the others next to nothing.
        let of_acked = "histogram_quantile(0.9, sum(streamhand_process_duration_seconds{outcome=\"acked\"}))";
        let took = ask(of_acked).await.expect("a quantile");
        assert!((0.045..0.5).contains(&took), "{took}");
        let mut sum = 0.0;
        for (_, at) in scene.targets() {
            let text = get(at, "/metrics").await.expect("an answer").text();
            let sums = samples(&text).filter(|(name, _)| name.starts_with("streamhand_process_duration_seconds_sum"));
            sum += sums.map(|(_, value)| value).sum::<f64>();
        }
        let had = ask("sum(histogram_sum(streamhand_process_duration_seconds))").await.expect("a sum");
        assert!((had - sum).abs() < 1e-6, "{had} of {sum}");
        let settled = ask("sum(streamhand_settled_total{outcome=\"acked\"})").await.expect("a count");
        assert_eq!(settled, 40.0);
    }

    async fn its_tool_finds_nothing_wrong_with_the_metrics(server: Server) {
        let scene = Scene::start(&server).await;
        for (job, at) in scene.targets() {
            let got = get(at, "/metrics").await.expect("an answer");
            let mut tool = promtool();
            tool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut tool = tool.spawn().expect("promtool to start");
            tool.stdin.take().expect("its input").write_all(&got.body).expect("to give it the metrics");
            let said = tool.wait_with_output().expect("its end");
            let found = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
            assert!(said.status.success() && found.trim().is_empty(), "{job}: {found}");
            let open = get_with(at, "/metrics", &[("accept", "application/openmetrics-text; version=1.0.0")]).await;
            assert!(open.expect("an answer").text().ends_with("# EOF\n"));
        }
    }
}

/// Metrics that the dashboard asks for and that have no series here: only on a cluster does anything wait in an outbox.
const NOT_IN_SCENE: &[&str] = &["streamhand_stream_outbox"];

/// Workers that everything happens to which does not happen to those of a [`Scene`].
struct Eventful {
    at: SocketAddr,
    _workers: [InProcess; 2],
}

impl Eventful {
    async fn start(server: &Server) -> Eventful {
        let mut redis = server.connect().await;
        let at = SocketAddr::from(([127, 0, 0, 1], free_ports().next().expect("a port")));
        let metrics = Metrics::new();
        let publisher = publisher(&server.url()).metrics(&metrics);
        let registry =
            jobs::registry().on_raw("test.down", |_, _| async { Err(Failure::retry("down")) });
        let worker = Setup::new(server)
            .worker("group = \"eventful\"")
            .worker("streams = [\"eventful\"]")
            .worker("lease = \"1s\"")
            .more(&format!("[telemetry]\nlisten = \"{at}\""))
            .more("[handlers.\"test.down\"]\nmax_attempts = 100\ncircuit_breaker = { failures = 2, open_for = \"60s\" }")
            .start_counted(registry, &metrics);
        let count = async |name: &str, labels: &str, least: f64| {
            eventually(PATIENCE, format!("{name} of {labels}"), async || {
                let sum = Scrape::of(&metrics).sum(name, labels);
                if sum >= least {
                    Ok(())
                } else {
                    Err(sum.to_string())
                }
            })
            .await;
        };
        publisher
            .publish("eventful", &Job::new("first", Action::Nothing))
            .await
            .expect("to publish");
        count("settled_total", "outcome=acked", 1.0).await;
        // Alone, it is handled on the thread that has read it, and holds that up.
        publisher
            .publish(
                "eventful",
                &Job::new("blocks", Action::ComputeQuietlyThenFail(500)),
            )
            .await
            .expect("to publish");
        count("handler_blocked_total", "", 1.0).await;
        // Its lease is renewed, and then it can't be in time.
        publisher
            .publish("eventful", &Job::new("holds", Action::SleepQuietly(4_000)))
            .await
            .expect("to publish");
        count("lease_margin_seconds_count", "", 1.0).await;
        let pause = redis::cmd("CLIENT")
            .arg("PAUSE")
            .arg(1_800)
            .arg("WRITE")
            .query_async(&mut redis)
            .await;
        let () = pause.expect("a pause");
        count("lease_lapsed_total", "", 1.0).await;
        // A breaker opens, and holds others back.
        publisher
            .publish_envelopes("eventful", (0..20).map(|_| Envelope::new("test.down")))
            .await
            .expect("to publish");
        count("held_back_total", "by=breaker", 1.0).await;
        count("breaker_state", "state=open", 1.0).await;
        // Connections break, and a request is refused.
        let kill = redis::cmd("CLIENT")
            .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
            .query_async(&mut redis)
            .await;
        let _: u64 = kill.expect("to kill connections");
        let () = redis::cmd("SET")
            .arg("wrong")
            .arg("a text")
            .query_async(&mut redis)
            .await
            .expect("a text");
        publisher
            .publish("wrong", &Job::new("wrong", Action::Nothing))
            .await
            .expect_err("no stream");
        count("redis_errors_total", "", 1.0).await;
        count("redis_reconnects_total", "", 1.0).await;

        // Something of the group that the exporter tells of is paused, and there is a view of other events.
        let settings = Settings::from_toml_str(&format!(
            "[redis]\nurl = \"{}\"\n{OF_WORKERS}",
            server.url()
        ))
        .expect("right settings");
        let admin = Admin::new(&settings).expect("an address");
        admin
            .pause_handler("jobs", "test.never", "me")
            .await
            .expect("a pause");
        let views = views::setup(server)
            .worker("group = \"views\"")
            .worker("streams = [\"others\"]");
        let views = views.start_with(views::registry());
        views::happens(&views::store(server, 1), "o-1", [views::any_event()]).await;
        Eventful {
            at,
            _workers: [worker, views],
        }
    }
}

on_both_servers! {
    async fn every_expression_of_the_dashboard_returns_data(server: Server) {
        let mut scene = Scene::start(&server).await;
        let eventful = Eventful::start(&server).await;
        let more = OF_WORKERS.replace("[\"jobs\"]", "[\"jobs\", \"orders\"]") + "[streams.jobs]\nretention = \"acked\"\n";
        scene.exporter = Exporter::start(&Cli::new(&server, &more)).await;
        let targets: Vec<_> = scene.targets().into_iter().chain([("eventful", eventful.at)]).collect();
        let prometheus = Prometheus::scraping(&targets, false).await;
        prometheus.is_up().await;
        let file = format!("{}/deploy/grafana/streamhand.json", crate::support::ROOT);
        let dashboard: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(file).expect("the dashboard")).expect("JSON");
        let panels = dashboard["panels"].as_array().expect("panels");
        let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
        let expressions: Vec<String> = targets
            .map(|target| target["expr"].as_str().expect("an expression"))
            // As Grafana fills them in.
            .map(|expr| expr.replace("$__rate_interval", "10s").replace("$group", ".*").replace("$stream", ".*"))
            .collect();
        assert!(expressions.len() > 40, "{}", expressions.len());
        eventually(PATIENCE, "data for every expression", async || {
            let mut empty = Vec::new();
            for expr in &expressions {
                if prometheus.query(expr).await?.is_empty() {
                    empty.push(&expr[..]);
                }
            }
            let is_missing = |expr: &&&str| !NOT_IN_SCENE.iter().any(|metric| expr.contains(metric));
            let missing: Vec<_> = empty.iter().filter(is_missing).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{missing:#?}")) }
        })
        .await;
    }
}

#[test]
fn its_tool_finds_the_rules_right_and_each_tells_of_what_it_should() {
    for args in [
        ["check", "rules", "streamhand.rules.yaml"],
        ["test", "rules", "streamhand.tests.yaml"],
    ] {
        let mut tool = promtool();
        tool.args(args)
            .current_dir(format!("{}/deploy/prometheus", crate::support::ROOT));
        let said = tool.output().expect("promtool to start");
        let found = format!(
            "{}{}",
            String::from_utf8_lossy(&said.stdout),
            String::from_utf8_lossy(&said.stderr)
        );
        assert!(said.status.success(), "{args:?}: {found}");
    }
    // Each rule has a case for it and one against it.
    let read = |name| {
        let path = format!(
            "{}/deploy/prometheus/streamhand.{name}.yaml",
            crate::support::ROOT
        );
        std::fs::read_to_string(path).expect(name)
    };
    let (rules, tests) = (read("rules"), read("tests"));
    for rule in rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
    {
        let cases = tests
            .split("  - interval:")
            .filter(|case| case.contains(&format!("alertname: {rule}\n")));
        let (none, some): (Vec<&str>, Vec<&str>) =
            cases.partition(|case| case.contains("exp_alerts: []"));
        assert!(!none.is_empty() && !some.is_empty(), "{rule}");
    }
}

/// Two workers and an exporter, after 40 jobs that succeeded, 5 of them the second time, and 3 that failed for good.
struct Scene {
    _workers: [WorkerProcess; 2],
    exporter: Exporter,
    at: [SocketAddr; 2],
}

impl Scene {
    async fn start(server: &Server) -> Scene {
        let mut redis = server.connect().await;
        let setup = Setup::new(server).worker("concurrency = 2").more(LISTEN);
        let mut workers = [setup.process(), setup.process()];
        let [one, other] = &mut workers;
        let at = [served_by(one).await, served_by(other).await];
        for at in at {
            eventually(PATIENCE, "a worker to be ready", async || {
                get(at, "/readyz")
                    .await
                    .map(|got| got.status == 200)
                    .unwrap_or(false)
            })
            .await;
        }
        let mut all = many("quick", 15, &Action::Nothing);
        all.extend(many("slow", 20, &Action::SleepQuietly(50)));
        all.extend(many("again", 5, &Action::FailOnceQuietly));
        all.extend(many("bad", 3, &Action::FailForGood));
        jobs::publish(&mut redis, "jobs", &all).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(dead(&mut redis).await, 3);
        let exporter = Exporter::start(&Cli::new(server, OF_WORKERS)).await;
        Scene {
            _workers: workers,
            exporter,
            at,
        }
    }

    fn targets(&self) -> [(&'static str, SocketAddr); 3] {
        let [one, other] = self.at;
        [
            ("one", one),
            ("other", other),
            ("exporter", self.exporter.at),
        ]
    }
}

/// What does not change while nothing is to do, by its series.
fn samples(text: &str) -> impl Iterator<Item = (String, f64)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let is_restless = RESTLESS.iter().any(|begin| series.starts_with(begin));
        let value = value.parse().expect("a number");
        (!is_restless).then(|| (ordered(series), value))
    })
}

/// A series as text, its labels in their order.
fn series(labels: BTreeMap<String, String>) -> String {
    let name = labels.get("__name__").cloned().unwrap_or_default();
    let own = labels
        .iter()
        .filter(|(label, _)| !["__name__", "job", "instance"].contains(&&label[..]));
    let own: Vec<String> = own
        .map(|(name, value)| label(&format!("{name}={value:?}")))
        .collect();
    format!("{name}{{{}}}", own.join(","))
}

/// The same of a line of text; no value of these tests has a comma or a quote in it.
fn ordered(series: &str) -> String {
    let (name, labels) = series
        .trim_end_matches('}')
        .split_once('{')
        .unwrap_or((series, ""));
    let mut labels: Vec<String> = labels
        .split(',')
        .filter(|label| !label.is_empty())
        .map(label)
        .collect();
    labels.sort();
    format!("{name}{{{}}}", labels.join(","))
}

/// Later releases of Prometheus write bounds of buckets in their own way.
fn label(label: &str) -> String {
    let bound = label
        .strip_prefix("le=\"")
        .and_then(|bound| bound.trim_end_matches('"').parse::<f64>().ok());
    match bound {
        Some(bound) if bound.is_finite() => format!("le=\"{bound}\""),
        _ => label.to_owned(),
    }
}
