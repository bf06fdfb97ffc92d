//! Handlers that take many events at once: what comes together, what becomes of it if some of it fails, and what leaves with
//! it.

mod effects;
mod limits;
mod stopping;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use streamhand::{Batch, Batches, Context, Event, Failure, Registry, Settings, Worker};

use crate::support::letters::fields;
use crate::support::{
    Entry, Server, Setup, WorkerProcess, add, dead, entries, eventually, pending, publisher,
    settled,
};

const PATIENCE: Duration = Duration::from_secs(60);
const DEAD: &str = "{jobs}:workers:dead";

/// An event that says what is to become of a batch that has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    n: u64,
    #[serde(default)]
    does: Does,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Does {
    #[default]
    Succeed,
    /// Fails the batch.
    Fail,
    Panic,
    /// Has the batch never end.
    Hang,
    /// Kills the worker.
    Abort,
    /// Is failed by itself the first time.
    FailAlone,
    /// Fails an event that is not there.
    FailNobody,
}

impl Event for Row {
    const TYPE: &'static str = "test.row";
}

/// The events of one call and their attempts.
type Call = Vec<(u64, u32)>;

/// What a handler was called with.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<Call>>>);

impl Calls {
    fn all(&self) -> Vec<Call> {
        self.0.lock().unwrap().clone()
    }

    /// How often each event was in a call, and its last attempt.
    fn of_each(&self) -> BTreeMap<u64, (usize, u32)> {
        let mut of_each = BTreeMap::new();
        for (n, attempt) in self.all().into_iter().flatten() {
            let known: &mut (usize, u32) = of_each.entry(n).or_default();
            *known = (known.0 + 1, attempt);
        }
        of_each
    }

    fn note(&self, rows: &Batch<Row>) {
        let one = |(at, row): (usize, &Row)| (row.n, rows.attempt(at));
        let call = rows.iter().enumerate().map(one).collect();
        self.0.lock().unwrap().push(call);
    }

    fn registry(&self, batches: Batches<Row>) -> Registry {
        let calls = self.clone();
        Registry::new().on_batch(batches, move |rows: Batch<Row>, _ctx: Context| {
            calls.note(&rows);
            async move { handle(&rows).await }
        })
    }
}

async fn handle(rows: &Batch<Row>) -> Result<(), Failure> {
    for (at, row) in rows.iter().enumerate() {
        match row.does {
            Does::Succeed => {}
            Does::Fail => return Err("asked to fail".into()),
            Does::Panic => panic!("asked to panic"),
            Does::Hang => std::future::pending().await,
            Does::Abort => std::process::abort(),
            Does::FailAlone if rows.attempt(at) > 1 => {}
            Does::FailAlone => rows.fail(at, "asked to fail"),
            Does::FailNobody => rows.fail(rows.len(), "asked to fail"),
        }
    }
    Ok(())
}

/// Puts events `0..count` on the stream as a foreign client would; those at some places do something.
async fn publish(redis: &mut MultiplexedConnection, count: u64, does: &[(u64, Does)]) {
    let mut pipe = redis::pipe();
    for n in 0..count {
        let found = does.iter().find(|(at, _)| *at == n);
        let does = found.map_or(Does::Succeed, |(_, does)| *does);
        let data = serde_json::to_string(&Row { n, does }).unwrap();
        pipe.cmd("XADD").arg("jobs").arg("*");
        pipe.arg("type")
            .arg(Row::TYPE)
            .arg("id")
            .arg(format!("e-{n}"));
        pipe.arg("data").arg(data);
    }
    let _: () = pipe.query_async(redis).await.unwrap();
}

fn field(entry: &Entry, name: &str) -> String {
    let value = entry.fields.iter().find(|(n, _)| n == name);
    value.map_or(String::new(), |(_, value)| {
        String::from_utf8_lossy(value).into_owned()
    })
}

/// The dead letters: the event, the reason, the attempts and the error.
async fn letters(redis: &mut MultiplexedConnection) -> Vec<(String, String, String, String)> {
    let letter = |letter: &Entry| {
        let [id, reason, attempts, error] =
            ["id", "dead.reason", "dead.attempts", "dead.error"].map(|name| field(letter, name));
        (id, reason, attempts, error)
    };
    let mut all: Vec<_> = entries(redis, DEAD).await.iter().map(letter).collect();
    all.sort();
    all
}

/// How many events are pending.
async fn held(redis: &mut MultiplexedConnection) -> u64 {
    let pending = pending(redis, "jobs").await;
    pending.iter().map(|(_, count)| count).sum()
}

/// One batch of all there is, if it comes within a few seconds.
fn patient(size: usize) -> Batches<Row> {
    Batches::of(size).wait("5s")
}

/// A worker with one slot, whose events have one attempt.
fn setup(server: &Server) -> Setup {
    Setup::new(server)
        .worker("lease = \"20s\"")
        .worker("concurrency = 1")
        .retry("max_attempts = 1")
}

on_both_servers! {
    async fn what_fails_is_found_by_halves_and_nothing_else_loses_an_attempt(server: Server) {
        let mut redis = server.connect().await;
        for (poisons, most) in [(&[][..], 1), (&[137], 19), (&[3, 250, 499], 47)] {
            let _: () = redis::cmd("FLUSHALL").query_async(&mut redis).await.unwrap();
            let does: Vec<(u64, Does)> = poisons.iter().map(|at| (*at, Does::Fail)).collect();
            publish(&mut redis, 500, &does).await;
            let calls = Calls::default();
            let worker = setup(&server).start_with(calls.registry(patient(500)));
            settled(&mut redis, "jobs", PATIENCE).await;
            worker.stop().await;
            let all = calls.all();
            let first: Vec<(u64, u32)> = (0..500).map(|n| (n, 1)).collect();
            assert_eq!(all[0], first, "all of them come at once, in their order");
            assert!(all.len() <= most, "{} calls for {} of them", all.len(), poisons.len());
            assert!(calls.of_each().values().all(|(_, attempt)| *attempt == 1));
            let buried: Vec<String> = letters(&mut redis).await.into_iter().map(|(id, reason, attempts, _)| {
                assert_eq!((&reason[..], &attempts[..]), ("failed", "1"));
                id
            }).collect();
            let mut expected: Vec<String> = poisons.iter().map(|at| format!("e-{at}")).collect();
            expected.sort();
            assert_eq!(buried, expected);
        }
    }

    async fn a_panic_and_a_timeout_are_found_like_an_error(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, 16, &[(2, Does::Panic), (11, Does::Hang)]).await;
        let calls = Calls::default();
        let setup = setup(&server).defaults("timeout = \"100ms\"").defaults("grace = \"0s\"");
        let worker = setup.start_with(calls.registry(patient(16)));
        settled(&mut redis, "jobs", PATIENCE).await;
        worker.stop().await;
        let letters = letters(&mut redis).await;
        let what: Vec<(&str, &str)> = letters.iter().map(|(id, .., error)| (&id[..], &error[..])).collect();
        assert_eq!(what.len(), 2, "{what:?}");
        assert!(what[0].0 == "e-11" && what[0].1.contains("timed out"), "{what:?}");
        assert!(what[1].0 == "e-2" && what[1].1.contains("asked to panic"), "{what:?}");
        assert!(calls.of_each().values().all(|(_, attempt)| *attempt == 1));
    }

    /// Single events that their handler has failed, and those that can't be decoded; both formats in one batch.
    async fn single_events_fail_and_the_others_are_done(server: Server) {
        let mut redis = server.connect().await;
        let wrong = fields(&[("type", Row::TYPE), ("id", "e-wrong"), ("data", "{\"n\":\"much\"}")]);
        publish(&mut redis, 4, &[(1, Does::FailAlone)]).await;
        add(&mut redis, "jobs", &wrong).await;
        let publisher = publisher(&server.url());
        for n in [4, 5] {
            let does = if n == 5 { Does::FailAlone } else { Does::Succeed };
            publisher.publish("jobs", &Row { n, does }).await.unwrap();
        }
        let calls = Calls::default();
        let setup = setup(&server).retry("max_attempts = 2");
        let worker = setup.start_with(calls.registry(Batches::of(7).wait("1s")));
        settled(&mut redis, "jobs", PATIENCE).await;
        worker.stop().await;
        let all = calls.all();
        assert_eq!(all[0], [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]);
        let again: Vec<(u64, u32)> = all[1..].concat();
        assert_eq!(again, [(1, 2), (5, 2)]);
        let letters = letters(&mut redis).await;
        assert_eq!(letters.len(), 1, "{letters:?}");
        assert_eq!((&letters[0].0[..], &letters[0].1[..]), ("e-wrong", "undecodable"));
    }

    async fn a_place_that_is_none_fails_the_batch_with_the_reason(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, 4, &[(2, Does::FailNobody)]).await;
        let calls = Calls::default();
        let worker = setup(&server).start_with(calls.registry(patient(4)));
        settled(&mut redis, "jobs", PATIENCE).await;
        worker.stop().await;
        let letters = letters(&mut redis).await;
        assert_eq!(letters.len(), 1, "{letters:?}");
        let (id, reason, _, error) = &letters[0];
        assert_eq!((&id[..], &reason[..]), ("e-2", "failed"));
        assert!(error.contains("index 1") && error.contains("the batch has 1"), "{error}");
        assert_eq!(calls.all().len(), 5, "four, two, two, one and one");
    }

    /// The one that kills its worker is found as any other is: it runs alone at last.
    async fn a_batch_that_kills_its_worker_names_its_culprit(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, 10, &[(4, Does::Abort)]).await;
        let setup = Setup::new(&server).worker("lease = \"1s\"").retry("max_attempts = 2");
        let start = || {
            let builder = WorkerProcess::builder().test("batch_handlers::batch_worker_process");
            builder.config(&setup.toml()).start()
        };
        let mut worker = start();
        eventually(PATIENCE, "the culprit to be buried", async || {
            if worker.has_ended() {
                worker = start();
            }
            dead(&mut redis).await == 1
        })
        .await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let letters = letters(&mut redis).await;
        assert_eq!((letters.len(), &letters[0].0[..], &letters[0].1[..]), (1, "e-4", "crashed"));
    }

    /// Of a subject one event runs at a time: none comes together with another of it.
    async fn order_by_subject_is_kept(server: Server) {
        let mut redis = server.connect().await;
        for n in 0..24_u64 {
            let (data, subject) = (format!("{{\"n\":{n}}}"), format!("s-{}", n % 3));
            let event = fields(&[("type", Row::TYPE), ("subject", &subject), ("data", &data)]);
            add(&mut redis, "jobs", &event).await;
        }
        let calls = Calls::default();
        let setup = Setup::new(&server).stream("order = \"subject\"");
        let worker = setup.start_with(calls.registry(Batches::of(10).wait("50ms")));
        settled(&mut redis, "jobs", PATIENCE).await;
        worker.stop().await;
        let all = calls.all();
        for subject in 0..3 {
            let of_it = |call: &Call| call.iter().map(|(n, _)| *n).filter(|n| n % 3 == subject).collect::<Vec<_>>();
            let each: Vec<Vec<u64>> = all.iter().map(of_it).collect();
            assert!(each.iter().all(|call| call.len() <= 1), "{each:?}");
            assert_eq!(each.concat(), (0..8).map(|n| 3 * n + subject).collect::<Vec<_>>());
        }
        assert!(all.iter().any(|call| call.len() > 1), "different subjects come together: {all:?}");
    }
}

#[test]
#[ignore = "run by other tests"]
fn batch_worker_process() {
    let handler = async |rows: Batch<Row>, _: Context| handle(&rows).await;
    crate::support::run_worker(Registry::new().on_batch(Batches::of(10).wait("100ms"), handler));
}

/// What can't work is refused before a worker starts, all of it at once.
#[test]
fn wrong_limits_are_refused() {
    let registry = |batches| Calls::default().registry(batches);
    let refused = |toml: &str, registry: Registry| {
        let toml = format!(
            "[worker]\ngroup = \"g\"\nstreams = [\"jobs\"]\nlease = \"10s\"\nprefetch = 600\n{toml}"
        );
        let settings = match Settings::from_toml_str(&toml) {
            Ok(settings) => settings,
            Err(error) => return error.to_string(),
        };
        match Worker::new(settings, registry) {
            Ok(_) => "nothing".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    for (batches, why) in [
        (Batches::of(0), "size: 0 is too few"),
        (Batches::of(1_001), "size: 1001 is too many; at most 1000"),
        (
            Batches::of(700),
            "size: 700 events never come together where worker.prefetch is 600",
        ),
        (
            Batches::of(5).wait("10s"),
            "wait: 10s is as long as worker.lease, 10s, or longer",
        ),
        (Batches::of(5).bytes("0KiB"), "bytes: 0 bytes hold no event"),
        (
            Batches::of(5).bytes("16MiB"),
            "bytes: 16MiB is too much; at most 8MiB",
        ),
    ] {
        let said = refused("", registry(batches));
        assert!(said.contains(why) && said.contains("test.row"), "{said}");
    }
    let handler = |batch: &str| format!("[handlers.\"test.row\"]\nbatch = {{ {batch} }}\n");
    for (batch, why) in [
        ("size = 0", "handlers.\"test.row\".batch.size: 0 is too few"),
        (
            "wait = \"1m\"",
            "handlers.\"test.row\".batch.wait: 1m is as long as worker.lease",
        ),
        ("bytes = \"1MB\"", "\"1MB\" is no size"),
        (
            "sise = 5",
            "did you mean `handlers.\"test.row\".batch.size`?",
        ),
    ] {
        let said = refused(&handler(batch), registry(Batches::of(5)));
        assert!(said.contains(why), "{said}");
    }
    // The file has its say before the program.
    assert_eq!(
        refused(&handler("size = 5"), registry(Batches::of(700))),
        "nothing"
    );
    let single = Registry::new().on(async |_: Row, _: Context| Ok(()));
    let said = refused(&handler("size = 5"), single);
    assert!(said.contains("takes events one by one"), "{said}");
    let both = registry(Batches::of(5)).on(async |_: Row, _: Context| Ok(()));
    let said = refused("", both);
    assert!(said.contains("test.row has a handler already"), "{said}");
}
