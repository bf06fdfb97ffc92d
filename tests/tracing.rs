//! Traces, as a collector gets them: what belongs together is linked, and a collector in trouble holds nothing up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde::{Deserialize, Serialize};
use streamhand::metrics::Metrics;
use streamhand::{Context, Envelope, Event, Failure, Publisher, Registry, Settings, Tracing};
use tokio::net::TcpListener;

use crate::support::collector::{self, Collector, Mood, attribute};
use crate::support::jobs::{self, Action, Job};
use crate::support::{
    Authority, Cli, Entry, Scrape, Server, Setup, WorkerProcess, entries, eventually, run_worker,
    settled,
};

const PATIENCE: Duration = Duration::from_secs(20);
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[derive(Serialize, Deserialize)]
struct First(u32);

#[derive(Serialize, Deserialize)]
struct Second(u32);

#[derive(Serialize, Deserialize)]
struct Third(u32);

impl Event for First {
    const TYPE: &'static str = "chain.first";
}

impl Event for Second {
    const TYPE: &'static str = "chain.second";
}

impl Event for Third {
    const TYPE: &'static str = "chain.third";
}

/// Three handlers over three streams; the second one fails the first time.
fn chain() -> Registry {
    let first = async |First(n): First, ctx: Context| {
        ctx.emit("second", Second(n));
        Ok::<_, Failure>(())
    };
    let second = async |Second(n): Second, ctx: Context| {
        ctx.emit("third", Third(n));
        match ctx.attempt() {
            1 => Err(Failure::from("no stock")),
            _ => Ok(()),
        }
    };
    let third = async |_: Third, ctx: Context| {
        // It waits, and so goes on as a task.
        tokio::time::sleep(Duration::from_millis(20)).await;
        ctx.publisher()?.publish("fourth", &Third(4)).await?;
        Ok::<_, Failure>(())
    };
    Registry::new().on(first).on(second).on(third)
}

fn setup(server: &Server, telemetry: &str) -> Setup {
    Setup::new(server)
        .worker("streams = [\"first\", \"second\", \"third\"]")
        .more(telemetry)
}

/// A worker whose handler writes to the log, before it waits and after that.
#[test]
#[ignore = "run by other tests"]
fn worker_that_writes() {
    run_worker(Registry::new().on(async |_: Job, ctx: Context| {
        let calls = ctx
            .trace()
            .map(|trace| trace.to_string())
            .unwrap_or_default();
        tracing::warn!(calls, "before it waits");
        tokio::time::sleep(Duration::from_millis(20)).await;
        tracing::warn!(calls, "behind that");
        Ok::<_, Failure>(())
    }));
}

/// The spans of this name, in their order.
fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    let mut found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
    found.sort_by_key(|span| span.start_time_unix_nano);
    found
}

fn links(span: &Span) -> Vec<(Vec<u8>, Vec<u8>)> {
    let ids = |link: &opentelemetry_proto::tonic::trace::v1::span::Link| {
        (link.trace_id.clone(), link.span_id.clone())
    };
    span.links.iter().map(ids).collect()
}

fn ids(span: &Span) -> (Vec<u8>, Vec<u8>) {
    (span.trace_id.clone(), span.span_id.clone())
}

fn published() -> (Vec<u8>, Vec<u8>) {
    let bytes = |text: &str| {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    };
    (bytes(&TRACEPARENT[3..35]), bytes(&TRACEPARENT[36..52]))
}

/// What an entry says of its trace.
fn carried(entry: Entry) -> String {
    let mut fields = entry.fields.into_iter();
    let found = fields.find(|(name, _)| name == "traceparent");
    String::from_utf8(found.expect("each says it").1.to_vec()).expect("text")
}

fn is_kind(span: &Span, kind: SpanKind) -> bool {
    span.kind == i32::from(kind)
}

fn settings(server: &Server, telemetry: &str) -> Settings {
    Settings::from_toml_str(&format!("[redis]\nurl = \"{}\"\n{telemetry}", server.url()))
        .expect("settings")
}

/// What holds of the chain behind the publisher, whose context is `by`.
fn check_chain(spans: &[Span], by: &(Vec<u8>, Vec<u8>), is_child: bool) {
    let one = |name: &str| {
        let found = named(spans, name);
        assert_eq!(found.len(), 1, "{name}: {found:#?}");
        found[0]
    };
    let [failed, retried] = named(spans, "process second")[..] else {
        panic!("two attempts: {spans:#?}")
    };
    let (first, third) = (one("process first"), one("process third"));
    let (to_second, to_third, to_fourth) =
        (one("send second"), one("send third"), one("send fourth"));
    for (run, links_to) in [
        (first, vec![by.clone()]),
        (failed, vec![ids(to_second)]),
        (retried, vec![ids(to_second), ids(failed)]),
        (third, vec![ids(to_third)]),
    ] {
        assert!(is_kind(run, SpanKind::Consumer), "{run:#?}");
        assert_eq!(links(run), links_to, "{run:#?}");
        let parent = if is_child { &links_to[0].1[..] } else { &[] };
        assert_eq!(run.parent_span_id, parent, "{run:#?}");
        assert_eq!(run.trace_id == by.0, is_child, "{run:#?}");
        assert!(run.end_time_unix_nano >= run.start_time_unix_nano);
    }
    if !is_child {
        assert_ne!(
            failed.trace_id, retried.trace_id,
            "each run is a trace of its own"
        );
    }
    // What the run that failed has emitted has not left.
    for (sent, within) in [(to_second, first), (to_third, retried), (to_fourth, third)] {
        assert!(is_kind(sent, SpanKind::Producer), "{sent:#?}");
        assert_eq!(
            (&sent.trace_id, &sent.parent_span_id),
            (&within.trace_id, &within.span_id),
            "{sent:#?}"
        );
    }
    let status = |span: &Span| span.status.clone().unwrap_or_default().code;
    assert_eq!([first, failed, retried, third].map(status), [0, 2, 0, 0]);
    let event = &failed.events[0];
    assert_eq!(
        (
            &event.name[..],
            attribute(&event.attributes, "exception.message")
        ),
        ("exception", "no stock".to_owned())
    );
    let of = |span: &Span, key: &str| attribute(&span.attributes, key);
    for (key, value) in [
        ("messaging.system", "redis"),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "second"),
        ("messaging.consumer.group.name", "workers"),
        ("streamhand.event.type", "chain.second"),
        ("streamhand.attempt", "1"),
        ("streamhand.outcome", "retried"),
        ("error.type", "error"),
    ] {
        assert_eq!(of(failed, key), value, "{key}");
    }
    assert_eq!(
        (
            of(retried, "streamhand.attempt"),
            of(retried, "streamhand.outcome")
        ),
        ("2".to_owned(), "committed".replace("committed", "acked"))
    );
    assert!(
        of(failed, "messaging.client.id").starts_with("sh"),
        "{failed:#?}"
    );
    assert!(
        of(failed, "messaging.message.id").contains('-'),
        "{failed:#?}"
    );
    assert_eq!(of(to_second, "messaging.operation.name"), "send");
}

on_both_servers! {
    async fn a_chain_is_linked_from_its_publisher_to_its_end(server: Server) {
        let mut redis = server.connect().await;
        for mode in ["link", "child"] {
            let () = redis::cmd("FLUSHALL").query_async(&mut redis).await.unwrap();
            let collector = Collector::start(Mood::Takes).await;
            let telemetry = collector.settings(&format!("trace = \"{mode}\""), "headers = \"x-tenant=t-1\"");
            let settings = settings(&server, &telemetry);
            let tracing = Tracing::start(&settings.telemetry, "web").expect("tracing");
            let publisher = Publisher::new(&settings.redis).expect("a publisher").traced_by(&tracing);
            let worker = setup(&server, &telemetry).start_with(chain());

            publisher.publish("first", &First(1)).await.unwrap();
            let spans = collector.wait_for_spans(8).await;
            let sent = named(&spans, "send first")[0];
            assert!(is_kind(sent, SpanKind::Producer) && sent.parent_span_id.is_empty() && sent.links.is_empty(), "{sent:#?}");
            check_chain(&spans, &ids(sent), mode == "child");

            // One that says itself where it comes from keeps that.
            let own = publisher.envelope(&First(2)).unwrap().with("traceparent", TRACEPARENT);
            publisher.publish_envelope("first", own).await.unwrap();
            let all = collector.wait_for_spans(16).await;
            let spans: Vec<Span> = all.iter().filter(|span| !spans.contains(span)).cloned().collect();
            check_chain(&spans, &published(), mode == "child");
            let sent = named(&spans, "send first")[0];
            assert!(is_kind(sent, SpanKind::Client), "{sent:#?}");
            assert_eq!((sent.trace_id.clone(), sent.parent_span_id.clone()), published());
            assert_eq!(links(sent), [published()]);
            let kept = entries(&mut redis, "first").await.pop().unwrap();
            assert_eq!(carried(kept), TRACEPARENT);

            worker.stop().await;
            tracing.stop().await;
            let services: std::collections::BTreeSet<(String, bool)> = collector.traces().iter()
                .flat_map(|request| &request.resource_spans)
                .map(|of| &of.resource.as_ref().unwrap().attributes)
                .map(|of| (attribute(of, "service.name"), attribute(of, "service.instance.id").is_empty()))
                .collect();
            assert_eq!(services.len(), 2, "{services:?}");
            assert!(services.contains(&("web".to_owned(), false)), "{services:?}");
            assert!(services.iter().any(|(name, _)| name.ends_with("/workers")), "{services:?}");
            assert!(collector.headers().iter().all(|headers| headers["x-tenant"] == "t-1"));
        }
    }

    async fn what_a_shell_publishes_begins_a_trace_as_well(server: Server) {
        let mut redis = server.connect().await;
        let collector = Collector::start(Mood::Takes).await;
        let cli = Cli::new(&server, &collector.settings("", ""));
        cli.run(&["publish", "first", "chain.first", "1"]).await.ok();
        let lines = "1\n2\n3\n";
        cli.run_with(&["publish", "first", "chain.first", "-"], lines.as_bytes()).await.ok();
        let spans = collector.wait_for_spans(2).await;
        let sent = named(&spans, "send first");
        assert!(sent.iter().all(|span| is_kind(span, SpanKind::Producer)), "{spans:#?}");
        let known: Vec<String> = sent.iter().map(|span| span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
        let carried: Vec<String> = entries(&mut redis, "first").await.into_iter().map(carried).collect();
        assert_eq!((carried.len(), &carried[0][3..35]), (4, &known[0][..]));
        assert!(carried[1..].iter().all(|of| known[1..].contains(&of[3..35].to_owned())), "{carried:?} {known:?}");
        let services = collector.traces();
        let of = &services[0].resource_spans[0].resource.as_ref().unwrap().attributes;
        assert_eq!(attribute(of, "service.name"), "shop");
        // A collector that hangs holds the command up for no longer than a moment.
        collector.set(Mood::Hangs);
        let since = Instant::now();
        cli.run(&["publish", "first", "chain.first", "1"]).await.ok();
        assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    }

    async fn a_batch_is_one_span_with_many_links(server: Server) {
        let collector = Collector::start(Mood::Takes).await;
        let settings = settings(&server, &collector.settings("", ""));
        let tracing = Tracing::start(&settings.telemetry, "web").expect("tracing");
        let publisher = Publisher::new(&settings.redis).expect("a publisher").traced_by(&tracing);
        let mut events: Vec<Envelope> = (0..5).map(|n| publisher.envelope(&First(n)).unwrap()).collect();
        for (n, event) in events.iter_mut().take(3).enumerate() {
            let own = TRACEPARENT.replace("b7-01", &format!("b{n}-01"));
            *event = event.clone().with("traceparent", own);
        }
        publisher.publish_envelopes("first", events).await.unwrap();
        tracing.stop().await;
        let spans = collector.spans();
        let [span] = &spans[..] else { panic!("{spans:#?}") };
        assert_eq!((&span.name[..], span.links.len()), ("send first", 3));
        assert!(is_kind(span, SpanKind::Producer), "its context is what two of them carry");
        assert_eq!(attribute(&span.attributes, "messaging.batch.message_count"), "5");
        let mut redis = server.connect().await;
        let carried = entries(&mut redis, "first").await.into_iter().map(carried);
        let of_span = |text: &String| text[36..52] == span.span_id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(carried.filter(of_span).count(), 2);
    }

    /// Who begins a trace decides for all that comes of it.
    async fn what_is_not_sampled_makes_no_span_and_says_so_to_what_comes_of_it(server: Server) {
        let mut redis = server.connect().await;
        let collector = Collector::start(Mood::Takes).await;
        let telemetry = collector.settings("", "").replace("sample = 1.0", "sample = 0.0");
        let worker = setup(&server, &telemetry).start_with(chain());
        let unsampled = TRACEPARENT.replace("-01", "-00");
        for traceparent in [None, Some(&unsampled[..]), Some(TRACEPARENT)] {
            let mut command = redis::cmd("XADD");
            command.arg("first").arg("*").arg(&["type", First::TYPE, "data", "1"]);
            if let Some(traceparent) = traceparent {
                command.arg("traceparent").arg(traceparent);
            }
            let () = command.query_async(&mut redis).await.unwrap();
        }
        for stream in ["first", "second", "third"] {
            eventually(PATIENCE, stream, async || entries(&mut server.connect().await, stream).await.len() == 3).await;
            settled(&mut redis, stream, PATIENCE).await;
        }
        worker.stop().await;
        // Those of the one that its publisher has sampled.
        let spans = collector.spans();
        check_chain(&spans, &published(), false);
        assert_eq!(spans.len(), 7, "{spans:#?}");
        for stream in ["second", "third", "fourth"] {
            let carried: Vec<String> = entries(&mut redis, stream).await.into_iter().map(carried).collect();
            let ends = |end: &str| carried.iter().filter(|text| text.ends_with(end)).count();
            assert_eq!((ends("-00"), ends("-01")), (2, 1), "{stream}: {carried:?}");
            assert!(carried.contains(&unsampled), "{stream}: {carried:?}");
        }
    }

    /// Where nothing is traced, what an event came with is handed on.
    async fn without_a_collector_a_trace_context_goes_through(server: Server) {
        let mut redis = server.connect().await;
        let worker = setup(&server, "").start_with(chain());
        let () = redis::cmd("XADD").arg("first").arg("*")
            .arg(&["type", First::TYPE, "data", "1", "traceparent", TRACEPARENT]).query_async(&mut redis).await.unwrap();
        eventually(PATIENCE, "the last", async || entries(&mut server.connect().await, "fourth").await.len() == 1).await;
        worker.stop().await;
        for stream in ["second", "third"] {
            let entry = entries(&mut redis, stream).await.pop().unwrap();
            assert_eq!(carried(entry), TRACEPARENT);
        }
    }

    /// Each series of counters and histograms, with all it has counted.
    async fn metrics_are_sent_as_they_are_served(server: Server) {
        let mut redis = server.connect().await;
        let collector = Collector::start(Mood::Takes).await;
        let metrics = Metrics::new();
        let setup = Setup::new(&server).more(&collector.settings("", "service = \"shop\""));
        let worker = setup.start_counted(jobs::registry(), &metrics);
        let mut all = jobs::many("fine", 200, &Action::Nothing);
        all.extend(jobs::many("twice", 10, &Action::Fail(2)));
        all.extend(jobs::many("bad", 5, &Action::FailForGood));
        jobs::publish(&mut redis, "jobs", &all).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        eventually(PATIENCE, "some to be sent before the end", async || collector.metrics().len() > 2).await;
        worker.stop().await;

        let sent = collector.metrics();
        let last = sent.last().expect("some");
        let resource = last.resource_metrics[0].resource.as_ref().expect("one");
        assert_eq!(attribute(&resource.attributes, "service.name"), "shop");
        let scrape = Scrape::of(&metrics);
        let key = |attributes: &[KeyValue]| {
            let pairs: BTreeMap<&str, String> = attributes.iter().map(|pair| (&pair.key[..], attribute(attributes, &pair.key))).collect();
            pairs.into_values().collect::<Vec<_>>().join(" ")
        };
        let (mut sums, mut histograms) = (0, 0);
        for metric in &last.resource_metrics[0].scope_metrics[0].metrics {
            let name = metric.name.strip_prefix("streamhand_").expect("its beginning");
            match metric.data.as_ref().expect("data") {
                Data::Sum(sum) if !name.starts_with("process_") => {
                    assert!(sum.is_monotonic && sum.aggregation_temporality == 2, "{name}");
                    let points = sum.data_points.iter().map(|point| match point.value {
                        Some(Number::AsInt(count)) => (key(&point.attributes), count as f64),
                        other => panic!("{name}: {other:?}"),
                    });
                    let points: BTreeMap<String, f64> = points.collect();
                    assert_eq!(points, scrape.all(&format!("{name}_total")), "{name}");
                    sums += points.len();
                }
                Data::ExponentialHistogram(all) => {
                    let counts = all.data_points.iter().map(|point| {
                        let buckets = point.positive.iter().flat_map(|buckets| &buckets.bucket_counts);
                        assert_eq!(buckets.sum::<u64>() + point.zero_count, point.count, "{name}");
                        assert_eq!(point.scale, 3);
                        (key(&point.attributes), (point.count as f64, point.sum.expect("one")))
                    });
                    let counts: BTreeMap<String, (f64, f64)> = counts.collect();
                    let served = scrape.all(&format!("{name}_count"));
                    let total = scrape.all(&format!("{name}_sum"));
                    let served = served.into_iter().map(|(key, count)| (key.clone(), (count, total[&key])));
                    assert_eq!(counts, served.collect(), "{name}");
                    histograms += counts.len();
                }
                _ => {}
            }
        }
        assert!(sums >= 6 && histograms >= 6, "{sums} series of counters, {histograms} of histograms");
        assert_eq!(scrape.sum("settled_total", "outcome=acked"), 210.0);
    }

    /// What a handler writes can be found from its trace, and what it calls is told of that.
    async fn lines_that_a_handler_writes_say_its_trace(server: Server) {
        let mut redis = server.connect().await;
        let collector = Collector::start(Mood::Takes).await;
        let setup = Setup::new(&server).more(&collector.settings("", ""));
        let mut worker = WorkerProcess::builder()
            .test("tracing::worker_that_writes")
            .config(&setup.toml())
            .env("STREAMHAND_LOG", "warn,streamhand=debug")
            .env("STREAMHAND_LOG_FORMAT", "json")
            .start();
        worker.wait_for_log("the group is new", PATIENCE).await;
        jobs::publish(&mut redis, "jobs", &jobs::many("a", 1, &Action::Nothing)).await;
        let spans = collector.wait_for_spans(1).await;
        worker.terminate();
        worker.wait(PATIENCE).await;
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let (trace, span) = (hex(&spans[0].trace_id), hex(&spans[0].span_id));
        let log = worker.log();
        let line = |message: &str| {
            let line = log.lines().find(|line| line.contains(&format!("\"message\":\"{message}\""))).unwrap_or_else(|| panic!("{message}\n{log}"));
            serde_json::from_str::<serde_json::Value>(&line[line.find('{').unwrap()..]).expect("JSON")
        };
        for message in ["before it waits", "behind that"] {
            let line = line(message);
            assert_eq!(line["calls"], format!("00-{trace}-{span}-01"), "{line}");
            let within = &line["span"];
            assert_eq!((&within["trace_id"], &within["span_id"]), (&trace.clone().into(), &span.clone().into()), "{line}");
            assert_eq!((&within["stream"], &within["event_type"], &within["attempt"]), (&"jobs".into(), &"test.job".into(), &1.into()), "{line}");
        }
        assert_eq!(line("handled")["trace_id"], trace);
    }

    async fn a_collector_that_refuses_gets_it_when_it_says_so(server: Server) {
        let mut redis = server.connect().await;
        let collector = Collector::start(Mood::Refuses(503, Some(1), 3)).await;
        let worker = Setup::new(&server).more(&collector.settings("", "")).start();
        jobs::publish(&mut redis, "jobs", &jobs::many("a", 20, &Action::Succeed)).await;
        let begin = Instant::now();
        settled(&mut redis, "jobs", PATIENCE).await;
        let spans = collector.wait_for_spans(20).await;
        assert!(begin.elapsed() >= Duration::from_secs(1), "it came again too soon: {:?}", begin.elapsed());
        assert_eq!((spans.len(), collector.refused()), (20, 3));
        worker.stop().await;
    }

    /// It refuses, hangs, is not there, can't be trusted, or does not like what comes: it is said once, and why, and
    /// neither an entry nor a stop waits.
    async fn a_collector_in_trouble_holds_nothing_up(server: Server) {
        let mut redis = server.connect().await;
        let hanging = Collector::start(Mood::Hangs).await;
        let refusing = Collector::start(Mood::Refuses(400, None, u32::MAX)).await;
        let partial = Collector::start(Mood::TakesAPart(2)).await;
        let untrusted = Untrusted::start().await;
        let nobody = { let gone = Collector::start(Mood::Takes).await; gone.settings("", "") };
        for (name, settings, said) in [
            ("hangs", hanging.settings("", "timeout = \"500ms\""), None),
            ("refuses", refusing.settings("", ""), Some("returned 400 Bad Request: no")),
            ("partial", partial.settings("", ""), Some("took a part: too old")),
            ("untrusted", collector::settings(&untrusted.address, "", ""), Some("certificate")),
            ("nobody", nobody, None),
        ] {
            let mut worker = WorkerProcess::builder().config(&Setup::new(&server).more(&settings).toml()).start();
            worker.wait_for_log("worker starts", PATIENCE).await;
            let begin = Instant::now();
            jobs::publish(&mut redis, "jobs", &jobs::many(name, 2_000, &Action::Nothing)).await;
            settled(&mut redis, "jobs", PATIENCE).await;
            if let Some(said) = said {
                worker.wait_for_log(said, PATIENCE).await;
                assert!(worker.log().contains("spans do not reach the collector: "), "{}", worker.log());
            }
            assert!(begin.elapsed() < PATIENCE, "{name}");
            let asked = Instant::now();
            worker.terminate();
            worker.wait(PATIENCE).await;
            assert!(asked.elapsed() < Duration::from_secs(5), "{name}: stopped after {:?}", asked.elapsed());
            // Of each once, and what the last try came to.
            let told = worker.log().matches("do not reach the collector").count();
            assert!(told <= 3, "{name}: told {told} times:\n{}", worker.log());
        }
    }

    /// What finds no room is dropped and counted.
    async fn spans_that_find_no_room_are_dropped_and_counted(server: Server) {
        let mut redis = server.connect().await;
        let collector = Collector::start(Mood::Hangs).await;
        let mut worker = WorkerProcess::builder()
            .config(&Setup::new(&server).more(&collector.settings("", "timeout = \"60s\"")).toml())
            .start();
        worker.wait_for_log("worker starts", PATIENCE).await;
        const EVENTS: usize = 8_000;
        jobs::publish(&mut redis, "jobs", &jobs::many("a", EVENTS, &Action::Nothing)).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        collector.set(Mood::Takes);
        worker.terminate();
        worker.wait(PATIENCE).await;
        let log = worker.log();
        let lost_of = |line: &str| {
            let (_, number) = line.split_once("lost=")?;
            number.split_whitespace().next()?.parse::<usize>().ok()
        };
        let lost: usize = log.lines().filter_map(lost_of).sum();
        // What was sent at the very end may have arrived though the worker did not wait for the answer.
        let in_doubt = log.lines().filter(|line| line.contains("answer")).filter_map(lost_of).sum::<usize>();
        let there = collector.spans().len();
        assert!(lost > 0 && there + lost >= EVENTS && there + lost - in_doubt <= EVENTS, "{lost} lost, {there} there of {EVENTS}:\n{log}");
    }
}

/// Speaks TLS with a certificate that nobody has issued.
struct Untrusted {
    address: String,
    task: tokio::task::JoinHandle<()>,
}

impl Untrusted {
    async fn start() -> Self {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};

        let identity = Authority::sign_itself("localhost", false);
        let certs = vec![CertificateDer::from_pem_file(&identity.cert).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certs, key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let _ = acceptor.accept(socket).await;
            }
        });
        Untrusted {
            address: format!("https://localhost:{port}"),
            task,
        }
    }
}

impl Drop for Untrusted {
    fn drop(&mut self) {
        self.task.abort();
    }
}
