//! Publishers in other languages: the examples of `deploy/examples/publish/`, with the clients that people use there. Their
//! events are handled as they were meant, once is once whichever language says it, and the judge has nothing against them.
//!
//! `make test` finds or fetches Python, redis-py and node-redis. What can't be had is said, and is no failure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use streamhand::{Context, Envelope, Publisher, Registry};
use tokio::process::Command;

use crate::support::letters::{Working, settings};
use crate::support::{Cli, ROOT, Server, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

/// A language and a client for it.
struct Language {
    program: PathBuf,
    /// Where the client is, and what variable says so.
    client: (&'static str, PathBuf),
    example: &'static str,
}

impl Language {
    fn python() -> Option<Self> {
        Self::of(
            "python3",
            "PYTHON",
            "PYTHONPATH",
            "redis-py",
            "REDIS_PY",
            "redis_py.py",
        )
    }

    fn node() -> Option<Self> {
        Self::of(
            "node",
            "NODE",
            "NODE_REDIS",
            "node-redis",
            "NODE_REDIS",
            "node_redis.mjs",
        )
    }

    /// What the environment names, or else the first on `PATH` and the client that was fetched to `.servers/`.
    fn of(
        program: &str,
        variable: &str,
        of_client: &'static str,
        client: &str,
        client_variable: &str,
        example: &'static str,
    ) -> Option<Self> {
        let given = |name: &str| {
            let value = std::env::var_os(format!("STREAMHAND_TEST_{name}"));
            value.filter(|value| !value.is_empty()).map(PathBuf::from)
        };
        let servers = Path::new(ROOT).join(".servers");
        let client = given(client_variable).unwrap_or_else(|| servers.join(client));
        let fetched = servers.join(program);
        let programs = [given(variable), Some(program.into()), Some(fetched)];
        let program = programs.into_iter().flatten().find(|program| {
            let mut said = std::process::Command::new(program);
            said.arg("--version")
                .output()
                .is_ok_and(|said| said.status.success())
        });
        let (Some(program), true) = (program, client.is_dir()) else {
            eprintln!("{example} was not tried: scripts/languages says what is missing");
            return None;
        };
        let client = (of_client, client);
        Some(Language {
            program,
            client,
            example,
        })
    }

    async fn run(&self, args: &[&str]) {
        let example = Path::new(ROOT)
            .join("deploy/examples/publish")
            .join(self.example);
        let (variable, client) = &self.client;
        let ran = Command::new(&self.program)
            .arg(example)
            .args(args)
            .current_dir(ROOT)
            .env(variable, client)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .kill_on_drop(true)
            .output();
        let ran = tokio::time::timeout(PATIENCE, ran)
            .await
            .expect("it to end")
            .expect("it to start");
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{} {args:?}: {said}", self.example);
    }
}

/// What was handled: how often each event was, by its stream's topic and its id, and what the last one was.
type Seen = Arc<Mutex<BTreeMap<(String, String), Vec<Envelope>>>>;

fn registry(seen: &Seen) -> Registry {
    Registry::new().on_raw("order.created", {
        let seen = seen.clone();
        move |event: Envelope, ctx: Context| {
            let topic = if ctx.stream().starts_with('{') {
                "payments"
            } else {
                "orders"
            };
            let data: Value = event.decode_data().expect("JSON");
            let order = data["order_id"].as_str().expect("an order").to_owned();
            seen.lock()
                .unwrap()
                .entry((topic.to_owned(), order))
                .or_default()
                .push(event);
            async { Ok(()) }
        }
    })
}

async fn publishes_what_workers_read(server: Server, language: Option<Language>) {
    let Some(language) = language else {
        return;
    };
    language.run(&["check", "conformance"]).await;
    let toml = "[worker]\nstreams = [\"orders\", \"payments\"]\n[streams.payments]\npartitions = 8";
    let settings = settings(&server, toml);
    let seen = Seen::default();
    // Who comes first says how many partitions the topic has.
    let publisher = Publisher::of_settings(&settings).unwrap();
    publisher
        .stream_of("payments", &Envelope::new("order.created").with("id", "1"))
        .await
        .unwrap();
    let working = Working::start(settings.clone(), registry(&seen));
    for stream in ["orders", "payments"] {
        language.run(&[&server.url(), stream]).await;
    }
    eventually(PATIENCE, "eight events to be handled", async || {
        let seen = seen.lock().unwrap();
        if seen.len() == 8 {
            Ok(())
        } else {
            Err(format!("{:?}", seen.keys()))
        }
    })
    .await;
    // Another publisher comes to the same identity, and to the same hash of the data.
    for stream in ["orders", "payments"] {
        let again = Envelope::new("order.created")
            .with("id", "o-2-created")
            .with("source", "shop")
            .with("subject", "order:o-2")
            .msgpack(&json!({"amount": 3, "order_id": "o-2"}))
            .unwrap();
        let once = publisher.publish_envelope_once(stream, again.clone(), Publisher::ONCE_WITHIN);
        assert!(!once.await.unwrap().is_new);
        let other = again
            .msgpack(&json!({"amount": 4, "order_id": "o-2"}))
            .unwrap();
        let refused = publisher.publish_envelope_once(stream, other, Publisher::ONCE_WITHIN);
        assert_eq!(
            refused.await.unwrap_err().kind(),
            streamhand::ErrorKind::Exists
        );
    }
    working.stop().await;
    for ((topic, order), events) in seen.lock().unwrap().iter() {
        let [event] = &events[..] else {
            panic!("{order} of {topic} came {} times", events.len());
        };
        assert_eq!(event.source(), Some("shop"));
        let age = std::time::SystemTime::now()
            .duration_since(event.time())
            .unwrap();
        assert!(
            event.field("time").is_some() && age < Duration::from_secs(120),
            "{age:?}"
        );
        assert_eq!(event.decode_data::<Value>().unwrap()["amount"], 3);
        if order.starts_with("o-4") {
            assert_eq!((&order[..], event.subject()), ("o-4: créée", None));
        } else {
            assert_eq!(event.id(), format!("{order}-created"));
            assert_eq!(event.subject(), Some(&format!("order:{order}")[..]));
        }
    }
    let cli = Cli::new(&server, "").of_program(env!("CARGO_BIN_EXE_streamhand"));
    for stream in ["orders", "payments"] {
        let judged = cli
            .run(&["conformance", "--stream", stream, "--strict"])
            .await
            .ok();
        assert!(
            judged.contains("4 right, 0 with warnings, 0 that"),
            "{judged}"
        );
    }
}

on_both_servers! {
    async fn events_of_redis_py_are_handled_as_they_were_meant(server: Server) {
        publishes_what_workers_read(server, Language::python()).await;
    }

    async fn events_of_node_redis_are_handled_as_they_were_meant(server: Server) {
        publishes_what_workers_read(server, Language::node()).await;
    }
}
