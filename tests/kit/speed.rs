//! That tests cost next to nothing: what the docs promise, in time of the processor, for the machine may be loaded.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use streamhand::testing;

use super::jobs::{Does, Job, job, registry};
use super::runtime;

/// What this thread has used.
fn used() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

#[test]
fn a_thousand_tests_take_two_seconds() {
    let since = used();
    for _ in 0..1000 {
        runtime().block_on(async {
            let mut worker = testing::worker(registry()).streams(["jobs"]).start().await;
            worker
                .publish("jobs", &job("a", [Does::Emit, Does::Fail(1)]))
                .await;
            worker.advance(Duration::from_secs(5)).await;
            worker.handled::<Job>().once();
        });
    }
    let took = used() - since;
    println!("1,000 tests: {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_month_of_retries_takes_five_milliseconds() {
    let config = "[worker]\nstreams = [\"jobs\"]\n[retry]\nmax_attempts = 100\n\
        backoff = { initial = \"1s\", factor = 2.0, max = \"1d\", jitter = 0.2 }";
    let month = || {
        runtime().block_on(async {
            let mut worker = testing::worker(registry()).config(config).start().await;
            worker.publish("jobs", &job("a", [Does::Fail(99)])).await;
            let since = used();
            worker.advance(Duration::from_secs(30 * 24 * 3600)).await;
            let took = used() - since;
            assert!(worker.attempts::<Job>().get() > 40);
            worker.handled::<Job>().never();
            took
        })
    };
    let took = std::iter::repeat_with(month).take(5).min().unwrap();
    println!("a month: {took:?}");
    assert!(took < Duration::from_millis(5), "{took:?}");
}
