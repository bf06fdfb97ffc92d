//! Handlers in other languages over HTTP: what they are sent, what each status and answer means for the event, and that
//! nothing is lost or done twice whoever dies.

mod service;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use ring::hmac;
use serde_json::{Value, json};
use streamhand::Registry;

use crate::support::letters::fields;
use crate::support::{
    Cli, Entry, Kind, Server, Setup, WorkerProcess, add, dead, entries, eventually, parked,
};
use service::{Came, Reply, Service, ok, status};

const PATIENCE: Duration = Duration::from_secs(60);
/// How often each event was handled, by the answers that were committed.
const DONE: &str = "{jobs}:done";
const DEAD: &str = "{jobs}:workers:dead";

/// An event of this type, with this id and data.
async fn publish(redis: &mut MultiplexedConnection, event_type: &str, id: &str, data: &Value) {
    let data = data.to_string();
    let event = fields(&[("type", event_type), ("id", id), ("data", &data)]);
    add(redis, "jobs", &event).await;
}

/// A handler of this type of events.
fn handler(event_type: &str, target: &str) -> String {
    format!("[handlers.{event_type:?}]\ntarget = {target:?}\n")
}

fn field<'a>(letter: &'a Entry, name: &str) -> &'a str {
    let found = letter
        .fields
        .iter()
        .find(|(field, _)| field == name.as_bytes());
    found.map_or("", |(_, value)| std::str::from_utf8(value).expect("text"))
}

/// The dead letters by the type of their event: reason, attempts and error.
async fn letters(redis: &mut MultiplexedConnection) -> BTreeMap<String, [String; 3]> {
    let letters = entries(redis, DEAD).await;
    let told = |letter: &Entry| {
        ["dead.reason", "dead.attempts", "dead.error"].map(|name| field(letter, name).to_owned())
    };
    letters
        .iter()
        .map(|letter| (field(letter, "type").to_owned(), told(letter)))
        .collect()
}

/// How many entries were settled, acknowledged or buried.
async fn settled(redis: &mut MultiplexedConnection) -> u64 {
    let mut command = redis::cmd("XINFO");
    let groups: redis::RedisResult<redis::streams::StreamInfoGroupsReply> =
        command.arg("GROUPS").arg("jobs").query_async(redis).await;
    let groups = groups.map_or_else(|_| Vec::new(), |reply| reply.groups);
    let read = |group: &redis::streams::StreamInfoGroup| group.entries_read.unwrap_or_default();
    let settled = groups
        .iter()
        .map(|group| read(group) - group.pending)
        .next();
    settled.unwrap_or_default() as u64
}

on_both_servers! {
    async fn each_status_leads_where_it_should(server: Server) {
        let times = AtomicU16::new(0);
        let service = Service::start(move |came| {
            let name = came.path.trim_start_matches("/s");
            let (number, rest) = name.split_at(3);
            let again = came.header("streamhand-attempt") != "1";
            match (number.parse().expect(name), rest) {
                // The second time all is well.
                (_, "now") if again => ok("{}"),
                (number, "wait") => match times.fetch_add(1, Ordering::SeqCst) {
                    0 => Reply::Full(number, vec![("retry-after", "1".into())], "busy".into()),
                    _ => ok("{}"),
                },
                (204, _) => status(204, ""),
                (number, _) => status(number, &format!("no {}", "x".repeat(2000))),
            }
        })
        .await;
        let mut redis = server.connect().await;
        let mut setup = Setup::new(&server).retry("max_attempts = 2");
        let names = [
            "s200", "s202", "s204", "s400", "s413", "s415", "s422", "s301", "s302", "s307", "s401", "s403", "s404",
            "s405", "s410", "s408", "s425", "s429", "s503", "s500", "s502", "s504", "s418", "s500now", "s503now",
            "s503wait",
        ];
        for name in names {
            setup = setup.more(&service.target(name, "contract = \"status\"")).more(&handler(&format!("{name}.x"), name));
        }
        for name in names {
            publish(&mut redis, &format!("{name}.x"), name, &json!({})).await;
        }
        let worker = setup.start_with(Registry::new());
        let wrong = ["s301", "s302", "s307", "s401", "s403", "s404", "s405", "s410"];
        eventually(PATIENCE, "the others to be settled", async || {
            let (parked, dead) = (parked(&mut redis).await, dead(&mut redis).await);
            let left = parked == wrong.len() && dead as usize == 12 && service.came_to("/s503wait").len() == 2;
            left.then_some(()).ok_or(format!("{parked} parked, {dead} dead"))
        })
        .await;
        let letters = letters(&mut redis).await;
        for name in ["s400", "s413", "s415", "s422"] {
            let [reason, attempts, error] = &letters[&format!("{name}.x")];
            assert_eq!((&reason[..], &attempts[..]), ("permanent", "1"), "{name}");
            assert!(error.contains(&name[1..]) && error.contains(": no xxx") && error.len() > 900, "{error}");
            assert_eq!(service.came_to(&format!("/{name}")).len(), 1, "{name}");
        }
        for name in ["s408", "s425", "s429", "s503", "s500", "s502", "s504", "s418"] {
            let [reason, attempts, error] = &letters[&format!("{name}.x")];
            assert_eq!((&reason[..], &attempts[..]), ("failed", "2"), "{name}");
            assert!(error.contains(&name[1..]), "{error}");
            let came = service.came_to(&format!("/{name}"));
            let attempts: Vec<&str> = came.iter().map(|came| came.header("streamhand-attempt")).collect();
            assert_eq!(attempts, ["1", "2"], "{name}");
            let keys: Vec<&str> = came.iter().map(|came| came.header("idempotency-key")).collect();
            assert_eq!(keys[0], keys[1]);
        }
        for name in wrong {
            // Its breaker is open: it is not asked again and again.
            assert_eq!(service.came_to(&format!("/{name}")).len(), 1, "{name}");
        }
        // Whoever says when to come again has used up no attempt.
        let waited = service.came_to("/s503wait");
        assert_eq!(waited[1].header("streamhand-attempt"), "1");
        worker.stop().await;
    }

    async fn an_answer_is_committed_with_the_acknowledgement(server: Server) {
        let service = Service::start(|came| {
            let data: Value = serde_json::from_slice(&came.body).expect("JSON");
            let id = came.header("ce-id");
            match data["do"].as_str().expect("what to do") {
                "emit" => ok(json!({
                    "emit": [{"stream": "mails", "type": "mail.wanted", "data": {"of": id}, "subject": "s-1"}],
                    "effects": [{"effect": "hincr_by", "key": "{jobs}:done", "field": id, "by": 1}],
                })
                .to_string()),
                "refused" => ok(json!({
                    "emit": [{"stream": "mails", "type": "mail.wanted"}],
                    "effects": [{"effect": "incr_by", "key": "{jobs}:stock", "by": -1, "at_least": 0}],
                })
                .to_string()),
                "misspelt" => ok(r#"{"emits": []}"#),
                // Who forgets to say that it is JSON loses nothing.
                "unsaid" => status(200, r#" {"permanent": "no such card"}"#),
                "text" => status(200, "OK"),
                "retry" if came.header("streamhand-attempt") == "1" => ok(r#"{"retry_after": "1s", "error": "busy"}"#),
                "retry" => ok(""),
                other => panic!("{other}"),
            }
        })
        .await;
        let mut redis = server.connect().await;
        let mut setup = Setup::new(&server)
            .retry("max_attempts = 2")
            .more(&service.target("bills", ""));
        let all = ["emit", "refused", "misspelt", "unsaid", "text", "retry"];
        for name in all {
            setup = setup.more(&handler(&format!("bill.{name}"), "bills"));
        }
        for name in all {
            publish(&mut redis, &format!("bill.{name}"), name, &json!({"do": name})).await;
        }
        let worker = setup.start_with(Registry::new());
        eventually(PATIENCE, "all to be settled", async || {
            settled(&mut redis).await == all.len() as u64 && dead(&mut redis).await == 3
        })
        .await;
        let mails = entries(&mut redis, "mails").await;
        assert_eq!(mails.len(), 1);
        assert_eq!(field(&mails[0], "data"), r#"{"of":"emit"}"#);
        assert_eq!((field(&mails[0], "subject"), field(&mails[0], "causationid")), ("s-1", "emit"));
        let done: BTreeMap<String, i64> = redis.hgetall("{jobs}:done").await.expect("a hash");
        assert_eq!(done, BTreeMap::from([("emit".to_owned(), 1)]));
        let letters = letters(&mut redis).await;
        let [reason, _, error] = &letters["bill.refused"];
        assert!(reason == "failed" && error.contains("refused by a guard"), "{error}");
        let [reason, attempts, error] = &letters["bill.misspelt"];
        assert_eq!((&reason[..], &attempts[..]), ("failed", "2"));
        assert!(error.contains("unknown field `emits`"), "{error}");
        let [reason, _, error] = &letters["bill.unsaid"];
        assert_eq!((&reason[..], &error[..]), ("permanent", "no such card"));
        worker.stop().await;
    }

    async fn a_wrong_target_has_its_events_wait_and_status_say_so(server: Server) {
        let is_right = Arc::new(AtomicBool::new(false));
        let right = is_right.clone();
        let service = Service::start(move |came| match right.load(Ordering::SeqCst) || came.path != "/bills" {
            true => ok("{}"),
            false => status(404, "no such page"),
        })
        .await;
        let mut redis = server.connect().await;
        let setup = Setup::new(&server)
            .more(&service.target("bills", ""))
            .more(&service.target("others", ""))
            .more(&handler("bill.made", "bills"))
            .more(&handler("other.made", "others"))
            .more("[breakers.bills]\nopen_for = \"1s\"");
        for at in 0..20 {
            publish(&mut redis, "bill.made", &format!("b-{at}"), &json!({})).await;
        }
        let worker = setup.start_with(Registry::new());
        let cli = Cli::new(&server, "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]");
        let said = eventually(PATIENCE, "status to say it", async || {
            let said = cli.run(&["status"]).await.ok();
            said.contains("no such page").then_some(said)
        })
        .await;
        assert!(said.contains("circuit breaker bills") && said.contains("404"), "{said}");
        let shown = cli.run(&["status", "--json"]).await.json().to_string();
        assert!(shown.contains("\"why\":\"answered 404"), "{shown}");
        publish(&mut redis, "other.made", "o-1", &json!({})).await;
        eventually(PATIENCE, "the other target's event", async || settled(&mut redis).await == 1).await;
        // There is a probe a second, and no attempt is used up.
        let before = service.came_to("/bills").len();
        eventually(PATIENCE, "probes", async || service.came_to("/bills").len() >= before + 2).await;
        is_right.store(true, Ordering::SeqCst);
        eventually(PATIENCE, "all to be done", async || settled(&mut redis).await == 21).await;
        assert!(service.came_to("/bills").iter().all(|came| came.header("streamhand-attempt") == "1"));
        assert_eq!(dead(&mut redis).await, 0);
        worker.stop().await;
    }

    async fn what_nobody_mends_is_buried_and_never_dropped(server: Server) {
        let service = Service::start(|_| status(410, "gone")).await;
        let mut redis = server.connect().await;
        let setup = Setup::new(&server)
            .worker("unhandled_after = \"2s\"")
            .more(&service.target("bills", ""))
            .more(&handler("bill.made", "bills"));
        for at in 0..5 {
            publish(&mut redis, "bill.made", &format!("b-{at}"), &json!({})).await;
        }
        let since = Instant::now();
        let worker = setup.start_with(Registry::new());
        eventually(PATIENCE, "letters", async || dead(&mut redis).await == 5).await;
        assert!(since.elapsed() >= Duration::from_secs(2));
        let [reason, _, error] = &letters(&mut redis).await["bill.made"];
        assert_eq!(reason, "unhandled");
        assert!(error.contains("target bills is wrong: answered 410"), "{error}");
        worker.stop().await;
    }

    async fn who_answers_badly_fails_that_event_and_holds_up_no_other(server: Server) {
        let elsewhere = Service::start(|_| ok("{}")).await;
        let location = elsewhere.url("/latest/meta-data");
        let service = Service::start(move |came| match &came.path[..] {
            "/stalls" => Reply::Nothing,
            "/head" => Reply::Bytes(b"HTTP/1.1 200 OK\r\ncontent-le"),
            "/half" => Reply::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"emit\": ["),
            "/closes" => Reply::Bytes(b""),
            "/garbage" => Reply::Bytes(b"hello\r\n\r\n"),
            "/endless" => Reply::Endless(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000000000\r\n\r\n"),
            "/endlesserror" => Reply::Endless(b"HTTP/1.1 422 x\r\ncontent-length: 1000000000\r\n\r\nno"),
            "/redirects" => Reply::Full(307, vec![("location", location.clone())], String::new()),
            "/metadata" => Reply::Full(302, vec![("location", "http://169.254.169.254/".into())], String::new()),
            _ => ok("{}"),
        })
        .await;
        let mut redis = server.connect().await;
        let mut setup = Setup::new(&server).retry("max_attempts = 1").defaults("timeout = \"1s\"");
        let bad = ["stalls", "head", "half", "closes", "garbage", "endless", "endlesserror"];
        let wrong = ["redirects", "metadata"];
        for name in bad.into_iter().chain(wrong).chain(["fine"]) {
            setup = setup.more(&service.target(name, "")).more(&handler(&format!("{name}.x"), name));
            publish(&mut redis, &format!("{name}.x"), name, &json!({})).await;
        }
        let refused = "[targets.refused]\nurl = \"http://127.0.0.1:1/\"\nallow = [\"127.0.0.0/8\"]\n";
        let private = "[targets.private]\nurl = \"http://localhost:1/\"\n";
        for (name, target) in [("refused", refused), ("private", private)] {
            setup = setup.more(target).more(&handler(&format!("{name}.x"), name));
            publish(&mut redis, &format!("{name}.x"), name, &json!({})).await;
        }
        let worker = setup.start_with(Registry::new());
        let settles = async || {
            let (settled, dead, parked) = (settled(&mut redis).await, dead(&mut redis).await, parked(&mut redis).await);
            let is_so = dead == 8 && parked == 3 && settled == 9;
            is_so.then_some(()).ok_or(format!("{settled} settled, {dead} dead, {parked} parked"))
        };
        eventually(PATIENCE, "all to be settled", settles).await;
        let letters = letters(&mut redis).await;
        for (name, said) in [
            ("stalls", "has not answered within 1s"),
            ("head", "can't be reached"),
            ("half", "can't be reached"),
            ("endless", "1 MiB"),
            ("refused", "refused"),
            ("endlesserror", "422"),
        ] {
            let [_, _, error] = &letters[&format!("{name}.x")];
            assert!(error.contains(said), "{name}: {error}");
        }
        assert!(elsewhere.came().is_empty(), "a redirect was followed");
        worker.stop().await;
    }

    async fn an_event_arrives_as_a_cloud_event_signed_by_every_secret(server: Server) {
        let service = Service::start(|_| ok("{}")).await;
        let mut redis = server.connect().await;
        let dir = crate::support::scratch_dir();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("a file");
            path.display().to_string()
        };
        let secrets = [[7_u8; 32], [8; 32]];
        let [new, old] = [0, 1].map(|at| file(&format!("secret-{at}"), &format!("whsec_{}\n", BASE64_STANDARD.encode(secrets[at]))));
        let token = file("token", "tr0ub4dor\n");
        let keys = format!("secret_files = [{new:?}, {old:?}]\ntoken_file = {token:?}");
        let setup = Setup::new(&server)
            .more(&service.target("binary", &keys))
            .more(&service.target("structured", "format = \"structured\""))
            .more(&handler("bill.made", "binary"))
            .more(&handler("mail.made", "structured"));
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for event_type in ["bill.made", "mail.made"] {
            let event = fields(&[
                ("type", event_type), ("id", "e-1"), ("source", "shop"), ("subject", "Ö 1"), ("time", "2026-01-31T12:00:00Z"),
                ("traceparent", trace), ("tenant", "a"), ("Odd-Name", "x"), ("data", "{\"n\": 12345678901234567890}"),
            ]);
            add(&mut redis, "jobs", &event).await;
        }
        let worker = setup.start_with(Registry::new());
        eventually(PATIENCE, "both to be done", async || settled(&mut redis).await == 2).await;
        let came = &service.came_to("/binary")[0];
        for (name, value) in [
            ("ce-specversion", "1.0"), ("ce-id", "e-1"), ("ce-source", "shop"), ("ce-type", "bill.made"),
            ("ce-subject", "%C3%96%201"), ("ce-time", "2026-01-31T12:00:00Z"), ("ce-tenant", "a"), ("ce-traceparent", trace),
            ("traceparent", trace), ("content-type", "application/json"), ("authorization", "Bearer tr0ub4dor"),
            ("streamhand-attempt", "1"), ("streamhand-max-attempts", "5"), ("streamhand-group", "workers"),
            ("streamhand-stream", "jobs"), ("ce-datacontenttype", ""), ("ce-odd-name", ""),
        ] {
            assert_eq!(came.header(name), value, "{name}");
        }
        assert_eq!(came.text(), "{\"n\": 12345678901234567890}");
        assert_eq!(came.header("webhook-id"), came.header("idempotency-key"));
        let signed = format!("{}.{}.{}", came.header("webhook-id"), came.header("webhook-timestamp"), came.text());
        let signatures: Vec<&str> = came.header("webhook-signature").split(' ').collect();
        assert_eq!(signatures.len(), 2);
        for (signature, secret) in signatures.iter().zip(secrets) {
            let tag = BASE64_STANDARD.decode(signature.strip_prefix("v1,").expect("v1")).expect("base64");
            hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &secret), signed.as_bytes(), &tag).expect("its signature");
        }
        let came = &service.came_to("/structured")[0];
        assert_eq!(came.header("content-type"), "application/cloudevents+json; charset=utf-8");
        assert_eq!(came.header("webhook-signature"), "");
        let event: Value = serde_json::from_slice(&came.body).expect("JSON");
        assert_eq!((&event["subject"], &event["data"]["n"]), (&json!("Ö 1"), &json!(12_345_678_901_234_567_890_u64)));
        worker.stop().await;
    }

    async fn connections_are_kept_and_a_stop_waits_for_what_runs(server: Server) {
        let service = Service::start(|came| match came.header("ce-type") {
            "bill.slow" => Reply::Late(Duration::from_millis(800), 200, String::new()),
            _ => ok("{}"),
        })
        .await;
        let mut redis = server.connect().await;
        let setup = Setup::new(&server)
            .worker("concurrency = 4")
            .more(&service.target("bills", ""))
            .more(&handler("bill.made", "bills"))
            .more(&handler("bill.slow", "bills"));
        for at in 0..300 {
            publish(&mut redis, "bill.made", &format!("b-{at}"), &json!({})).await;
        }
        let worker = setup.start_with(Registry::new());
        eventually(PATIENCE, "all to be done", async || settled(&mut redis).await == 300).await;
        assert!(service.connections() <= 8, "{} connections", service.connections());
        publish(&mut redis, "bill.slow", "slow", &json!({})).await;
        eventually(PATIENCE, "it to begin", async || service.came().len() == 301).await;
        let summary = worker.stop().await;
        assert_eq!((summary.unsettled, settled(&mut redis).await), (0, 301));
    }

    async fn the_program_runs_with_no_rust_written(server: Server) {
        let service = Service::start(|_| ok("{}")).await;
        let mut redis = server.connect().await;
        let config = format!(
            "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n{}{}",
            service.target("bills", ""),
            handler("bill.made", "bills")
        );
        let cli = Cli::new(&server, &config).of_program(env!("CARGO_BIN_EXE_streamhand"));
        let said = cli.run(&["config", "check"]).await.ok();
        assert_eq!(said, "the configuration is right\n");
        let ran = cli.run(&["config", "check", "--connect"]).await;
        assert!(!ran.err.contains("target"), "{ran:?}");
        assert!(service.came().is_empty(), "an event was sent");
        let gone = config.replace(&service.url(""), "http://127.0.0.1:1");
        let gone = Cli::new(&server, &gone).of_program(env!("CARGO_BIN_EXE_streamhand"));
        let ran = gone.run(&["config", "check", "--connect"]).await;
        assert!(ran.err.contains("warning: the target bills: http://127.0.0.1:1 can't be reached"), "{ran:?}");
        let mut running = cli.command(&["run"]).spawn().expect("the program");
        publish(&mut redis, "bill.made", "b-1", &json!({})).await;
        eventually(PATIENCE, "it to be done", async || settled(&mut redis).await == 1).await;
        running.kill().await.expect("its end");

        let without = Cli::new(&server, "[worker]\ngroup = \"g\"\nstreams = [\"s\"]").of_program(env!("CARGO_BIN_EXE_streamhand"));
        let said = without.run(&["run"]).await.failed(2);
        assert!(said.contains("no handlers") && said.contains("target = "), "{said}");
        let private = "[worker]\ngroup = \"g\"\nstreams = [\"s\"]\n[targets.a]\nurl = \"http://[::ffff:169.254.169.254]/\"\n[handlers.\"a.b\"]\ntarget = \"a\"";
        let private = Cli::new(&server, private).of_program(env!("CARGO_BIN_EXE_streamhand"));
        for command in [&["config", "check"][..], &["run"]] {
            let ran = private.run(command).await;
            assert!(ran.code != 0 && ran.err.contains("metadata"), "{ran:?}");
        }
    }

    async fn whoever_is_killed_every_event_is_done_and_every_effect_is_there_once(kind: Kind) {
        under_fire(kind, 600, 4).await;
    }
}

/// With so many events as the promise is made for.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute"]
async fn a_hundred_thousand_events_through_kills() {
    under_fire(Kind::Redis, 100_000, 40).await;
}

/// Two workers, a service and Redis that are killed again and again while events are handled.
async fn under_fire(kind: Kind, events: usize, kills: usize) {
    let mut server = Server::builder(kind).persistent(true).start().await;
    let mut redis = server.connect().await;
    let port = crate::support::free_ports().next().expect("a port");
    let address = format!("127.0.0.1:{port}");
    let setup = Setup::new(&server)
        .worker("lease = \"1s\"")
        .worker("concurrency = 32")
        .retry("max_attempts = 1000")
        .more(&format!(
            "[targets.bills]\nurl = \"http://{address}/bills\"\nallow = [\"127.0.0.1\"]\n"
        ))
        .more("[breakers.bills]\nopen_for = \"200ms\"")
        .more(&handler("bill.made", "bills"));
    let worker = || {
        let process = WorkerProcess::builder().test("targets::worker_of_targets");
        process.config(&setup.toml()).start()
    };
    let target = || {
        let process = WorkerProcess::builder().test("targets::target_in_a_process");
        let process = process.env("STREAMHAND_TEST_TARGET", address.clone());
        process.start()
    };
    let (mut workers, mut service) = ([worker(), worker()], target());
    for first in (0..events).step_by(500) {
        let mut batch = redis::pipe();
        for at in first..(first + 500).min(events) {
            let id = format!("b-{at}");
            let event = ["jobs", "*", "type", "bill.made", "id", &id, "data", "{}"];
            batch.cmd("XADD").arg(&event).ignore();
        }
        let added: redis::RedisResult<()> = batch.query_async(&mut redis).await;
        added.expect("to be added");
    }
    for kill in 0..kills {
        let wanted = events * (kill + 1) / (kills + 1);
        let far = async || {
            let done: usize = redis.hlen(DONE).await.expect("a hash");
            (done >= wanted).then_some(()).ok_or(format!("{done} done"))
        };
        eventually(PATIENCE * 2, format!("{wanted} to be done"), far).await;
        match kill % 4 {
            at @ (0 | 1) => {
                workers[at].kill();
                workers[at] = worker();
            }
            2 => {
                service.kill();
                service = target();
            }
            _ => {
                server.restart().await;
                redis = server.connect().await;
            }
        }
    }
    crate::support::settled(&mut redis, "jobs", PATIENCE * 2).await;
    drop((workers, service));
    assert_eq!(dead(&mut redis).await, 0);
    let done: BTreeMap<String, u64> = redis.hgetall(DONE).await.expect("a hash");
    assert_eq!(done.len(), events);
    let twice: Vec<_> = done.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let emitted: usize = redis.xlen("done").await.expect("a stream");
    assert_eq!(emitted, events);
}

/// A worker in a process of its own, whose handlers are targets.
#[test]
#[ignore = "run by other tests"]
fn worker_of_targets() {
    crate::support::run_worker(Registry::new());
}

/// A service in a process of its own.
#[test]
#[ignore = "run by other tests"]
fn target_in_a_process() {
    let address = std::env::var("STREAMHAND_TEST_TARGET").expect("an address");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let _service = Service::at(&address, |came: &Came| {
            let id = came.header("ce-id");
            ok(json!({
                "emit": [{"stream": "done", "type": "bill.done", "data": {"of": id}}],
                "effects": [{"effect": "hincr_by", "key": "{jobs}:done", "field": id, "by": 1}],
            })
            .to_string())
        })
        .await;
        std::future::pending::<()>().await;
    });
}
