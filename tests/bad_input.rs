//! Whatever stands in a stream, each entry ends where it belongs, and those behind it go on.

use std::collections::BTreeMap;
use std::future::Ready;
use std::time::Duration;

use serde::Deserialize;
use streamhand::{Context, Event, Failure, Registry};

use crate::support::jobs::{self, Action, Job};
use crate::support::{Entry, Server, Setup, entries, eventually, settled};

const PATIENCE: Duration = Duration::from_secs(30);

/// Nests as deep as its data does.
#[derive(Deserialize)]
struct Nested {
    #[serde(default)]
    inner: Option<Box<Nested>>,
}

impl Event for Nested {
    const TYPE: &'static str = "test.nested";
}

async fn depth(nested: Nested, _: Context) -> Result<(), Failure> {
    let (mut depth, mut next) = (0, &nested.inner);
    while let Some(inner) = next {
        (depth, next) = (depth + 1, &inner.inner);
    }
    if depth > 1_000 {
        Err("deeper than anybody follows".into())
    } else {
        Ok(())
    }
}

fn registry() -> Registry {
    jobs::registry()
        .on(depth)
        .on_raw("test.value", |envelope, _| async move {
            envelope.decode_data::<serde_json::Value>()?;
            Ok(())
        })
        // Before there is a future, and when it is polled first; a job panics when it is polled again.
        .on_raw(
            "test.panics-when-called",
            |_, _| -> Ready<Result<(), Failure>> { panic!("asked to panic") },
        )
        .on_raw("test.panics-at-once", |_, _| async {
            panic!("asked to panic")
        })
}

type Fields<'a> = Vec<(&'a [u8], Vec<u8>)>;

on_both_servers! {
    async fn each_entry_ends_where_it_belongs_and_the_good_ones_behind_it_are_handled(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).retry("max_attempts = 2").worker("unhandled_after = \"1s\"");
        let worker = setup.start_with(registry());
        let job = |id: &str, action| serde_json::to_vec(&Job::new(id, action)).unwrap();
        let of = |event_type: &str, data: Vec<u8>| -> Fields {
            vec![(b"type", event_type.as_bytes().to_vec()), (b"data", data)]
        };
        let with = |name: &'static [u8], value: &[u8], id: &str| -> Fields {
            let mut fields = of("test.job", job(id, Action::Succeed));
            fields.push((name, value.to_vec()));
            fields
        };
        let msgpack = |data: Vec<u8>, event_type: &str| -> Fields {
            let mut fields = of(event_type, data);
            fields.push((b"datacontenttype", b"application/msgpack".to_vec()));
            fields
        };
        let deep_json = |open: &str, close: &str, inner: &str| {
            format!("{}{inner}{}", open.repeat(100_000), close.repeat(100_000)).into_bytes()
        };
        let deep_map: Vec<u8> = [0x81, 0xa5].iter().chain(b"inner").copied().collect::<Vec<_>>().repeat(100_000);
        let bad: Vec<(&str, Fields)> = vec![
            ("undecodable", vec![(b"data", b"{}".to_vec())]),
            ("undecodable", vec![(b"", Vec::new())]),
            ("undecodable", vec![(b"type", vec![0xff, 0xfe]), (b"data", b"{}".to_vec())]),
            ("undecodable", of("test.job", b"{\"id\":".to_vec())),
            ("undecodable", of("test.job", vec![0xff; 10])),
            ("undecodable", of("test.job", Vec::new())),
            ("undecodable", with(b"subject", &[0xc3, 0x28], "subject")),
            ("undecodable", with(b"schemaversion", b"one", "version")),
            ("undecodable", with(b"datacontenttype", b"text/html", "content")),
            ("undecodable", of("test.nested", deep_json("{\"inner\":", "}", "null"))),
            ("undecodable", msgpack(deep_map, "test.nested")),
            ("failed", of("test.value", deep_json("[", "]", ""))),
            ("failed", msgpack(vec![0x91; 100_000], "test.value")),
            ("failed", of("test.job", job("fails", Action::Fail(9)))),
            ("failed", of("test.job", job("panics", Action::Panic))),
            ("failed", of("test.panics-when-called", b"{}".to_vec())),
            ("failed", of("test.panics-at-once", b"{}".to_vec())),
            ("permanent", of("test.job", job("never", Action::FailForGood))),
            ("unhandled", of("test.unheard-of", b"{}".to_vec())),
            ("unhandled", with(b"schemaversion", b"2", "newer")),
        ];
        let mut good = vec![
            ("extension", with(b"an-extension", &[0xff, 0x00], "extension")),
            ("empty", with(b"", b"", "empty")),
        ];
        let mut large = of("test.job", job("large", Action::Succeed));
        large.push((b"ballast", vec![b'x'; 5_000_000]));
        good.push(("large", large));
        let mut payload = serde_json::to_value(Job::new("payload", Action::Succeed)).unwrap();
        payload["ballast"] = "x".repeat(5_000_000).into();
        good.push(("payload", of("test.job", serde_json::to_vec(&payload).unwrap())));
        let mut added = Vec::new();
        for (n, (reason, fields)) in bad.iter().enumerate() {
            added.push((add(&mut redis, fields).await, *reason));
            add(&mut redis, &of("test.job", job(&format!("behind-{n}"), Action::Succeed))).await;
        }
        for (_, fields) in &good {
            add(&mut redis, fields).await;
        }
        eventually(PATIENCE, "every bad one to be buried", async || {
            let buried = entries(&mut redis, "{jobs}:workers:dead").await.len();
            if buried == bad.len() { Ok(()) } else { Err(format!("{buried} of {}", bad.len())) }
        })
        .await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let letters = entries(&mut redis, "{jobs}:workers:dead").await;
        let field = |letter: &Entry, name: &str| {
            let found = letter.fields.iter().rfind(|(n, _)| n == name.as_bytes());
            String::from_utf8_lossy(&found.unwrap().1).into_owned()
        };
        let reasons: BTreeMap<String, String> =
            letters.iter().map(|letter| (field(letter, "dead.entry"), field(letter, "dead.reason"))).collect();
        for (id, reason) in &added {
            assert_eq!(&reasons[id], reason, "{id}");
        }
        let panicked = "the handler panicked: asked to panic";
        let panics = letters.iter().filter(|letter| field(letter, "dead.error") == panicked);
        assert_eq!(panics.filter(|letter| field(letter, "dead.attempts") == "2").count(), 3);
        let handled = jobs::handled(&mut redis).await;
        for n in 0..bad.len() {
            assert_eq!(handled.get(&format!("behind-{n}")), Some(&1));
        }
        for (id, _) in good {
            assert_eq!(handled.get(id), Some(&1), "{id}");
        }
        worker.stop().await;
    }

    async fn unknown_types_are_acknowledged_where_that_is_asked_for(server: Server) {
        let mut redis = server.connect().await;
        let worker = Setup::new(&server).worker("unhandled = \"ack\"").start();
        add(&mut redis, &vec![(b"type", b"test.unheard-of".to_vec())]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(entries(&mut redis, "{jobs}:workers:dead").await, []);
        worker.stop().await;
    }
}

async fn add(redis: &mut redis::aio::MultiplexedConnection, fields: &Fields<'_>) -> String {
    let mut command = redis::cmd("XADD");
    command.arg("jobs").arg("*");
    for (name, value) in fields {
        command.arg(name).arg(value);
    }
    command.query_async(redis).await.unwrap()
}
