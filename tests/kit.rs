//! The test kit: that what it says of a handler is so, that a failing assertion tells what happened, and that a test costs
//! next to nothing.

#[path = "kit/idempotent.rs"]
mod idempotent;
#[path = "kit/jobs.rs"]
mod jobs;
#[path = "support/kind.rs"]
#[allow(dead_code)]
mod kind;
#[path = "kit/messages.rs"]
mod messages;
#[path = "kit/random.rs"]
mod random;
#[path = "kit/scenarios.rs"]
mod scenarios;
#[path = "kit/server.rs"]
mod server;
#[path = "kit/shop.rs"]
mod shop;
#[path = "kit/speed.rs"]
mod speed;

use std::future::Future;
use std::pin::Pin;

use kind::Kind;
use streamhand::Registry;
use streamhand::testing::{self, Builder, TestWorker};

/// The folder of the project, for `kind.rs`.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What a scenario does with a worker.
type Run = for<'a> fn(&'a mut TestWorker) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// A worker, and what is done with it.
pub struct Scenario {
    pub name: &'static str,
    pub config: &'static str,
    pub run: Run,
}

/// A runtime as a test has it.
fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// What a failing test prints.
fn said(test: impl FnOnce()) -> String {
    let panic =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(test)).expect_err("it is to fail");
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => (*other.downcast::<&str>().unwrap()).to_owned(),
    }
}

fn builder(make: impl Fn(Registry) -> Builder, config: &str) -> Builder {
    let builder = make(jobs::registry()).seed(7);
    match config {
        "" => builder.streams(["jobs"]),
        config => builder.config(config),
    }
}

/// Runs a scenario, and returns what happened. Times of the calendar are taken out: each run begins at another.
fn trace(scenario: &Scenario, make: impl Fn(Registry) -> Builder) -> String {
    runtime().block_on(async {
        let mut worker = builder(make, scenario.config).start().await;
        (scenario.run)(&mut worker).await;
        let time = regex::Regex::new(r"\d{4}-\d\d-\d\dT[\d:.]+Z").unwrap();
        time.replace_all(&worker.timeline(), "<time>").into_owned()
    })
}

/// A kit on a server of this kind.
fn on(kind: Kind) -> impl Fn(Registry) -> Builder {
    move |registry| testing::on_redis(registry).server(kind.program())
}

/// Runs all scenarios, and returns which failed.
fn failures(each: impl Fn(&Scenario) + std::panic::RefUnwindSafe) -> Vec<&'static str> {
    let mut failed = Vec::new();
    for scenario in scenarios::all() {
        println!("{}", scenario.name);
        let ran = std::panic::catch_unwind(|| each(&scenario));
        if ran.is_err() {
            println!("^ {}", scenario.name);
            failed.push(scenario.name);
        }
    }
    failed
}

#[test]
fn scenarios_pass_in_memory_and_come_to_the_same_each_time() {
    let failed = failures(|scenario| {
        let first = trace(scenario, testing::worker);
        assert_eq!(first, trace(scenario, testing::worker));
    });
    assert!(failed.is_empty(), "{failed:?}");
}

fn come_to_the_same_on(kind: Kind) {
    let failed = failures(|scenario| {
        assert_eq!(trace(scenario, testing::worker), trace(scenario, on(kind)));
    });
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn scenarios_come_to_the_same_on_redis() {
    come_to_the_same_on(Kind::Redis);
}

#[test]
fn scenarios_come_to_the_same_on_valkey() {
    come_to_the_same_on(Kind::Valkey);
}
