//! Everything goes wrong at once, at random by a seed: and still nothing is lost, nothing happens twice, and nothing is
//! left over.
//!
//! `make chaos` plays ten minutes on each server, `make test` half a minute. Four workers are killed, stopped and frozen,
//! the server is killed and started again, the network in between cuts, delays, loses and goes silent, and events fail,
//! panic, hang, kill their workers and come twice. What handlers did stands in a file that the server knows nothing of
//! (`records.rs`); the checker (`check.rs`) compares that with what was published and what the server has in the end.

mod check;
mod fleet;
mod handlers;
mod history;
mod plan;
mod publishing;
mod records;
mod report;
mod rules;
mod run;

use std::time::Duration;

use plan::{Plan, Rates};

use crate::support::{self, Kind, scratch_dir};

/// A run beside other tests, which need the machine as well.
const SHORT: Duration = Duration::from_secs(30);
const FEW: Rates = Rates {
    events: 20.0,
    pause: Duration::from_millis(3_500),
    loss: Duration::from_millis(2_500),
};
const MANY: Rates = Rates {
    events: 40.0,
    pause: Duration::from_millis(4_000),
    loss: Duration::from_millis(2_000),
};
/// How much longer than its faults a run may take.
const REST: Duration = Duration::from_secs(240);

/// A worker of a run.
#[test]
#[ignore = "run by other tests"]
fn worker_under_chaos() {
    support::run_worker(handlers::registry());
}

#[test]
fn half_a_minute_on_redis() {
    play_shortly(Kind::Redis);
}

#[test]
fn half_a_minute_on_valkey() {
    play_shortly(Kind::Valkey);
}

/// What `make chaos` runs, for as long as it is told.
#[test]
#[ignore = "run by make chaos"]
fn at_length_on_redis() {
    play_at_length(Kind::Redis);
}

#[test]
#[ignore = "run by make chaos"]
fn at_length_on_valkey() {
    play_at_length(Kind::Valkey);
}

fn play_shortly(kind: Kind) {
    play(kind, SHORT, FEW, |seed| {
        let server = name(kind);
        format!("STREAMHAND_CHAOS_SEED={seed} make test ARGS=half_a_minute_on_{server}")
    });
}

fn play_at_length(kind: Kind) {
    let seconds = asked("STREAMHAND_CHAOS_SECONDS").unwrap_or(600);
    play(kind, Duration::from_secs(seconds), MANY, |seed| {
        let server = name(kind);
        format!("make chaos SECONDS={seconds} SEED={seed} SERVER={server}")
    });
}

fn asked(variable: &str) -> Option<u64> {
    let asked = std::env::var(variable)
        .ok()
        .filter(|asked| !asked.is_empty())?;
    let number = asked.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable}={asked} is no whole number")))
}

fn name(kind: Kind) -> String {
    format!("{kind:?}").to_lowercase()
}

/// Plays a run and looks at it. `again` is the command that plays the same plan.
fn play(kind: Kind, length: Duration, rates: Rates, again: impl Fn(u64) -> String) {
    let seed = asked("STREAMHAND_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(0..1 << 32));
    let plan = Plan::new(seed, length, rates);
    println!("chaos on {kind:?}: SEED={seed}");
    let dir = scratch_dir();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let history = runtime.block_on(async {
        let playing = run::play(kind, &plan, dir.path());
        tokio::time::timeout(length + REST, playing)
            .await
            .unwrap_or_else(|_| {
                panic!("SEED={seed} was not over after {:?}\n{plan}", length + REST)
            })
    });
    let findings = check::check(&history);
    println!("{}", report::figures(kind, &plan, &history, &findings));
    if !findings.wrong.is_empty() {
        let dir = dir.keep();
        panic!(
            "{}",
            report::complaint(kind, &plan, &history, &findings, &dir, &again(seed))
        );
    }
    assert!(
        report::is_worth_it(&history),
        "SEED={seed}: next to nothing was handled"
    );
}
